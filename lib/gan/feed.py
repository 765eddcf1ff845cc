"""Feed a training: minibatches, on the device all at once where they fit, else each ahead of its turn.

An array of bytes on a GPU feeds any net; where it is larger than the GPU's memory, or a file that is larger than the
computer's, a thread gathers the next minibatch while one is trained on.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import torch
from torch import Tensor

from lib.gan.game import Settings
from lib.images import data
from lib.nets import devices, models

SHARE = 0.5  # of the device's free memory that images may take; more of them stream to it


def require_images(x: Tensor, shape: tuple[int, int, int], n: int, settings: Settings) -> None:
    """Raise ValueError where images x do not fit a net for this shape, or n of them are fewer than a minibatch."""
    models.require_fit(x, shape)
    if n < settings.batch_size:
        raise ValueError(f"{n} images are fewer than one minibatch of {settings.batch_size}: lower batch_size")


def minibatches(x: Tensor, settings: Settings, start: int, total: int, rows: Tensor | None = None) -> Iterator[Tensor]:
    """Yield minibatches start to total of x, or of some rows of it, as bytes."""
    rows = torch.arange(len(x)) if rows is None else rows
    for chosen in data.minibatches(rows, settings.batch_size, settings.seed, start, total):
        yield x[chosen.to(x.device)]


def place(x: Tensor, device: torch.device, most: int | None) -> Tensor:
    """Return x on the device, or as it is where it would take more than `most` bytes, or more than there are."""
    if x.nbytes > (SHARE * devices.free_bytes(device) if most is None else most):
        return x
    try:
        return x.to(device)
    except torch.OutOfMemoryError:  # another process took it meanwhile, or it is in pieces
        return x


def placed(batches: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield minibatches as float32 on the device; where they are not there yet, each is gathered one ahead."""
    first = next(batches, None)
    if first is None:
        return
    batches = chain([first], batches)
    if first.device.type != device.type:
        pinned = (batch.pin_memory() if device.type == "cuda" else batch for batch in batches)
        batches = _ahead(batch.to(device, non_blocking=True) for batch in pinned)
    for batch in batches:
        yield data.to_float(batch).contiguous(memory_format=torch.channels_last)


def _ahead(batches: Iterator[Tensor]) -> Iterator[Tensor]:
    """Prepare each minibatch in a thread while the one before it is trained on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch
