"""A faster gradient of deep convolutions' weights, in bfloat16 on a CPU.

Where maps are small and many, as in D's last layer and G's first, the CPU's convolution library takes the gradient of
the weights far below the rate of a matrix product. The same gradient is one product, of the output's gradient with
the input's patches; it is computed so wherever a convolution ends, or a fractionally-strided one begins, at 4 x 4.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

SMALL = 4  # side of maps up to which the product is the faster way


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
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        ctx.how = (stride, padding, [1, 1], extra is not None, extra or [0, 0], 1)
        return torch.ops.aten.convolution(x, weight, None, *ctx.how)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
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
