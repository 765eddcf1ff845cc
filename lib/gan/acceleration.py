"""The same minibatch, faster: gradients as matrix products on a CPU, one launch for all kernels on a GPU.

Where maps are small and many, as in D's last layer and G's first, a CPU's convolution library takes the gradient of the
weights far below the rate of a matrix product. The same gradient is one product, of the output's gradient with the
input's patches; in bfloat16 it is computed so wherever a convolution ends, or a fractionally-strided one begins, at
4 x 4.

On a GPU a minibatch of a GAN is a thousand short kernels, and the GPU is often done with one before Python launches the
next. A CUDA graph records them once and launches all of them together: the same kernels on the same memory.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

SMALL = 4  # side of maps up to which the product is the faster way
WARM = 3  # plain calls before the recording: they set up what must not be set up in it, such as Adam's moments


class MatrixGradients(TorchFunctionMode):
    """In this context, deep convolutions without bias take their weights' gradient as a matrix product."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in (torch.conv2d, torch.conv_transpose2d) and not kwargs:
            x, weight, _, stride, padding, *rest = args
            transposed = func is torch.conv_transpose2d
            small = x.shape[-1] if transposed else x.shape[-1] // stride[0]
            if small <= SMALL and weight.requires_grad and stride[0] > 1:
                return _Convolution.apply(x, weight, stride, padding, rest[0] if transposed else None)
        return func(*args, **(kwargs or {}))


class _Convolution(torch.autograd.Function):
    """conv2d, or conv_transpose2d where an output padding is given, in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple, padding: tuple, extra: tuple | None) -> Tensor:
        ctx.save_for_backward(x, weight)  # as they came: a second derivative goes through them
        ctx.how = (stride, padding, [1, 1], extra is not None, extra or [0, 0], 1)
        return torch.ops.aten.convolution(x.bfloat16(), weight.bfloat16(), None, *ctx.how)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = (tensor.bfloat16() for tensor in ctx.saved_tensors)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = torch.ops.aten.convolution_backward(gradient, x, weight, None, *ctx.how, [True, False, False])[0]
        if ctx.needs_input_grad[1]:
            small, large = (x, gradient) if ctx.how[3] else (gradient, x)
            of_weight = _weight_gradient(small, large, weight.shape, ctx.how[0][0], ctx.how[1][0]).float()
        return of_x, of_weight, None, None, None


def _weight_gradient(small: Tensor, large: Tensor, shape: torch.Size, stride: int, padding: int) -> Tensor:
    """Multiply small maps (N, A, h, h) with the patches of large ones (N, B, H, H) that each covers: (A, B, k, k)."""
    a, b, k, _ = shape
    padded = F.pad(large, [padding] * 4).permute(0, 2, 3, 1)  # (N, H', H', B)
    patches = padded.unfold(1, k, stride).unfold(2, k, stride)  # (N, h, h, B, k, k), a view
    patches = patches[:, : small.shape[-1], : small.shape[-1]].permute(0, 1, 2, 4, 5, 3).reshape(-1, k * k * b)
    product = small.permute(0, 2, 3, 1).reshape(-1, a).T @ patches  # (A, k * k * B)
    return product.view(a, k, k, b).permute(0, 3, 1, 2)


class Recorded:
    """A function of one tensor on a GPU: its first calls are plain, then its kernels are recorded and replayed.

    Every call does once what the function does, to nets and optimizers too. x keeps its shape from call to call, and
    what a call returns is overwritten by the next. generator: a source of chance on the GPU that the function draws
    from.
    """

    def __init__(self, function: Callable[[Tensor], dict[str, Tensor]], generator: torch.Generator) -> None:
        self.function, self.generator = function, generator
        self.warmed, self.graph = 0, None

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        with torch.cuda.device(x.device):  # the current one may be another card
            if self.warmed < WARM:
                self.warmed += 1
                return self._aside(x)
            if self.graph is None:
                self._record(x)
            self.x.copy_(x)
            self.graph.replay()
            return self.returned

    def _aside(self, x: Tensor) -> dict[str, Tensor]:
        """Call the function on a stream of its own: what it sets up must not hang on the stream that is recorded."""
        main, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(main)
        with torch.cuda.stream(aside):
            returned = self.function(x)
        main.wait_stream(aside)
        return returned

    def _record(self, x: Tensor) -> None:
        self.x, self.graph = x.clone(), torch.cuda.CUDAGraph()
        self.graph.register_generator_state(self.generator)
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # another thread places the next images
            self.returned = self.function(self.x)
