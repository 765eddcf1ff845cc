"""A minibatch on a GPU as one launch.

A minibatch of a GAN is a thousand short kernels, and a GPU is often done with one before Python launches the next. A
CUDA graph records them once and launches all of them together: the same kernels on the same memory, the same training.
"""

from collections.abc import Callable

import torch
from torch import Tensor

WARM = 3  # plain calls before the recording: they set up what must not be set up in it, such as Adam's moments


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
