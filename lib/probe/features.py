"""Turn images into the paper's features: D's convolutions, max-pooled to a grid, flattened and concatenated (5.1).

50,000 x 28,672 features are 5.7 GB in float32, and half of that in bfloat16, which loses nothing where D convolves in
it.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.nets.batchnorm import device_of, to_inputs
from lib.nets.models import Description, require_fit

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def max_pool_to_grid(h: Tensor, size: int = 4) -> Tensor:
    """Max-pool each feature map to a size x size grid (paper, section 5.1).

    (N, C, H, W) -> (N, C, size, size). Raises ValueError where H or W is smaller than size.
    """
    if min(h.shape[-2:]) < size:
        raise ValueError(f"feature maps of {h.shape[-2]} x {h.shape[-1]} cannot be pooled to a {size} x {size} grid")
    return F.adaptive_max_pool2d(h, size)


def feature_length(description: Description, layers: Sequence[int] | None = None, grid: int = 4) -> int:
    """Return the length F of a net's features: its map counts times the grid's cells."""
    maps = description.maps(description.ndf)[1:]
    return sum(maps[i] for i in _chosen(layers, len(maps))) * grid * grid


def extract(
    D: nn.Module,
    x: Tensor | np.ndarray,
    layers: Sequence[int] | None = None,
    grid: int = 4,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 256,
    device: str | None = None,
    autocast: bool = False,
) -> Tensor:
    """Return each image's pooled activations, image side first: (N, C, H, W) -> (N, F) of `dtype`, in CPU memory.

    x is uint8 or float in [-1, 1]. layers: indices of D's convolutions from 0, by default all. D is in eval mode
    meanwhile (see `recalibrate_batchnorm`) and moves to `device`, by default stays where it is. autocast: convolve in
    bfloat16. Raises ValueError for features that are not finite, for a layer or a grid that the net does not have, and
    for images of another size than its own, which it would convolve all the same.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype = {dtype}: features are one of {', '.join(map(str, DTYPES))}")
    if len(x) == 0 or batch_size < 1:
        raise ValueError(f"{len(x)} images in batches of {batch_size}: need at least one")
    if description := getattr(D, "description", None):
        require_fit(x, description.shape)
    D.to(device or device_of(D), memory_format=torch.channels_last)
    was_training = D.training
    D.eval()

    def pooled(rows: slice) -> Tensor:
        images = to_inputs(x, rows, device_of(D)).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(device_of(D).type, torch.bfloat16, enabled=autocast):
            hs = D.activations(images)
            parts = [max_pool_to_grid(hs[i], grid).flatten(1).to(dtype) for i in _chosen(layers, len(hs))]
        return _finite(torch.cat(parts, 1), parts, _chosen(layers, len(hs)), rows.start).cpu()  # (rows, F)

    try:
        length = pooled(slice(0, 1)).shape[1]
        features = torch.empty(len(x), length, dtype=dtype)
        for start, block in _blocks(pooled, len(x), batch_size):
            features[start : start + len(block)] = block
        return features
    finally:
        D.train(was_training).to(memory_format=torch.contiguous_format)  # safetensors takes no other


@torch.no_grad()
def extract_in_windows(
    D: nn.Module, x: Tensor, window: int = 4, stride: int = 2, device: str | None = None, autocast: bool = False
) -> Tensor:
    """Return report 000's features: all layers but the last, max-pooled by windows. (N, C, H, W) -> (N, F), float32.

    How many a map gives depends on its side. x, device, autocast: as `extract` has them; D is in eval mode already.
    """
    where, parts = torch.device(device or device_of(D)), []
    for start in range(0, len(x), 256):
        with torch.autocast(where.type, torch.bfloat16, enabled=autocast):
            hs = D.to(where).activations(to_inputs(x, slice(start, start + 256), where))[:-1]
            pooled = [F.max_pool2d(h, window, stride).flatten(1) for h in hs]
        parts.append(torch.cat(pooled, 1).float().cpu())
    return torch.cat(parts)


def _blocks(pooled: Callable[[slice], Tensor], n: int, batch_size: int) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, features) batch by batch; in smaller ones, said once, where device memory is short."""
    size, at = batch_size, 0
    while at < n:
        try:
            block = pooled(slice(at, min(at + size, n)))
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            if size == batch_size:
                warnings.warn(
                    "the device is out of memory: going on with smaller batches", RuntimeWarning, stacklevel=3
                )
            size //= 2
            continue
        yield at, block
        at += len(block)


def _chosen(layers: Sequence[int] | None, n: int) -> list[int]:
    """Return the layers that are asked for, image side first."""
    wrong = sorted(set(layers or ()) - set(range(n)))
    if wrong or (layers is not None and len(layers) == 0):
        raise ValueError(f"layers = {wrong}: the net has {', '.join(map(str, range(n)))}")
    return list(range(n)) if layers is None else sorted(set(layers))


def _finite(features: Tensor, parts: list[Tensor], layers: list[int], first: int) -> Tensor:
    """Return the features. Raises ValueError that names the first image and layer that are not finite."""
    if not features.sum(dtype=torch.float32).isfinite():  # one cheap look; a closer one only where it fails
        for layer, part in zip(layers, parts, strict=True):
            bad = (~part.isfinite()).any(1).nonzero()[:1].flatten().tolist()
            if bad:
                raise ValueError(f"features of image {first + bad[0]} in layer {layer} are not finite as {part.dtype}")
    return features
