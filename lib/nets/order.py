"""The order in which a training meets its images: each epoch all of them once, in an order of its own.

A training that resumes at a minibatch, one whose images stream from a file and one whose images lie on the GPU see the
same minibatches, since these follow from the seed and the epoch alone.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lib.study import chance


def steps_of(epochs: float, n: int, batch_size: int) -> int:
    """Return the number of minibatches of a training on n images; an epoch's last, smaller one is left out."""
    return max(1, round(epochs * (n // batch_size)))


def minibatches(rows: Tensor, batch_size: int, seed: int, start: int, total: int) -> Iterator[Tensor]:
    """Yield the rows (batch_size,) of minibatches start to total.

    Each minibatch's are sorted: its loss and statistics are sums over it, and a file is read from front to back.
    """
    per_epoch = len(rows) // batch_size
    epoch, order = -1, None
    for step in range(start, total):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            generator = torch.Generator().manual_seed(chance.stream(seed, "order", epoch))
            order = rows[torch.randperm(len(rows), generator=generator)]
        first = step % per_epoch * batch_size
        yield order[first : first + batch_size].sort().values
