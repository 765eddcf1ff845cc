"""Features that are read a block of rows at a time, as they are, by all cores or on a GPU.

They may fill memory, so no pass over them makes a copy: each block is converted as it is used. A few rows of many
features are turned first, once for all classes and every C: no weights of the minimum lie outside the span of the rows,
so their coordinates in that span, N instead of F, are the features that are then read.
"""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps

import torch
from torch import Tensor

FEW_ROWS = 1500  # are turned where the features are twice as many: the turn costs 4 F N^2, a product 4 F N K
BLOCK_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}  # a block of rows: as large as the processor's own cache
SHARE = 16  # blocks: what a thread must have to do to be worth its start, a millisecond or two


class Blocks:
    """Features, a few rows at a time, in the type that is computed in and on the device."""

    def __init__(self, X: Tensor, device: str | None, block_rows: int | None) -> None:
        self.native = self.dtype = torch.float64 if X.dtype == torch.float64 else torch.float32
        self.device = torch.device(device or X.device)
        if self.device.type == "mps":  # has no float64
            self.device = torch.device("cpu")
        row_bytes = X.shape[1] * X.element_size()
        if self.device != X.device and self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if len(X) * row_bytes < 0.7 * free:  # whole on the GPU, else each block travels in each pass
                X = X.to(self.device)
        self.X, self.shrunk = X, False
        self.width, self.given = X.shape[1], X.dtype  # X itself may be turned
        self.basis: Tensor | None = None  # (F, N), orthonormal, once `Problem` has turned few rows into its coordinates
        self.spectrum: tuple[Tensor, Tensor, float] | None = None  # of X'X, once `Problem` has sketched it
        size = BLOCK_BYTES["cuda" if self.device.type == "cuda" else "cpu"]
        self.block_rows = block_rows or max(16, size // (4 * X.shape[1]))

    def __len__(self) -> int:
        return len(self.X)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        return self._read(range(0, len(self), self.block_rows))

    def _read(self, starts: range) -> Iterator[tuple[slice, Tensor]]:
        for at in starts:
            span = slice(at, min(at + self.block_rows, len(self)))
            yield span, self.X[span].to(self.device, self.dtype)

    def sum(self, work: Callable[[Iterator[tuple[slice, Tensor]]], tuple[Tensor, ...]]) -> list[Tensor]:
        """Sum what `work` returns for the blocks that it is handed: each core's share of them, or all.

        Products with ten vectors are too thin for the library to split among cores; blocks are not.
        """
        cores = torch.get_num_threads() if self.device.type == "cpu" else 1
        threads = min(cores, len(self) // (SHARE * self.block_rows))
        if threads < 2:
            return list(work(iter(self)))
        shares = [range(i * self.block_rows, len(self), threads * self.block_rows) for i in range(threads)]
        torch.set_num_threads(1)  # of each worker, which takes this over as it starts
        try:
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(lambda share: work(self._read(share)), shares))
        finally:
            torch.set_num_threads(cores)
        return [sum(parts[1:], parts[0]) for parts in zip(*found, strict=True)]

    def turn(self) -> None:
        """Replace few rows of many features by their coordinates in the space that they span, in float64."""
        if len(self) > FEW_ROWS or 2 * len(self) > self.width:
            return
        try:
            X = torch.cat([block for _, block in self]).double()  # (N, F)
            self.basis, coordinates = torch.linalg.qr(X.T)
        except torch.OutOfMemoryError:  # as they are, they go through the device block by block
            return
        self.X = coordinates.T.contiguous()
        self.native = self.dtype = torch.float64
        self.block_rows *= self.width // len(self)

    def to_span(self, W: Tensor) -> Tensor:
        """Return weights (K, F + 1) as those of the features that are read: (K, N + 1) where the rows were turned."""
        return W if self.basis is None else torch.cat([W[:, :-1] @ self.basis, W[:, -1:]], 1)

    def from_span(self, W: Tensor) -> Tensor:
        """Return weights of the features that are read as weights (K, F + 1) of those that were given."""
        return W if self.basis is None else torch.cat([W[:, :-1] @ self.basis.T, W[:, -1:]], 1)

    def shrink(self) -> None:
        """Halve the blocks after the device ran out of memory; say so the first time."""
        if self.block_rows == 1:
            raise MemoryError(f"{self.device} is out of memory even for one row of {self.X.shape[1]} features")
        self.block_rows //= 2
        torch.cuda.empty_cache()
        if not self.shrunk:
            warnings.warn(f"{self.device} is out of memory: going on with smaller blocks", RuntimeWarning, stacklevel=2)
        self.shrunk = True


def in_smaller_blocks(method: Callable) -> Callable:
    """Repeat a pass over the data in smaller blocks for as long as the device runs out of memory."""

    @wraps(method)
    def repeat(self, *arguments):
        while True:
            try:
                return method(self, *arguments)
            except torch.OutOfMemoryError:
                self.blocks.shrink()

    return repeat
