"""Turn images into the paper's features: D's convolutions, max-pooled to a grid, flattened and concatenated (5.1).

50,000 x 28,672 float32 features are 5.7 GB, so they are written as they are made, and a file that is not whole is not
taken for one.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from lib.nets.batchnorm import device_of, to_inputs
from lib.nets.models import Description

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


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
    out: str | Path | None = None,
    progress: bool = False,
) -> Tensor:
    """Return each image's pooled activations, image side first: (N, C, H, W) -> (N, F) of `dtype`, in CPU memory.

    x is uint8 or float in [-1, 1]. layers: indices of D's convolutions from 0, by default all. D is in eval mode
    meanwhile (see `recalibrate_batchnorm`) and moves to `device`, by default stays where it is. autocast: convolve in
    bfloat16. out: a file that backs the features; a second call finds it whole, or goes on where the first one died,
    provided that net, images and options are the same. Raises ValueError for features that are not finite and for a
    layer or a grid that the net does not have.
    """
    if dtype not in DTYPES.values():
        raise ValueError(f"dtype = {dtype}: features are one of {', '.join(DTYPES)}")
    if len(x) == 0 or batch_size < 1:
        raise ValueError(f"{len(x)} images in batches of {batch_size}: need at least one")
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
        if out is not None:
            return _extract_to_file(
                Path(out), pooled, D, x, (layers, grid, autocast), (len(x), length), dtype, batch_size, progress
            )
        features = torch.empty(len(x), length, dtype=dtype)
        for start, block in _blocks(pooled, 0, len(x), batch_size, progress):
            features[start : start + len(block)] = block
        return features
    finally:
        D.train(was_training).to(memory_format=torch.contiguous_format)  # safetensors takes no other


def load(path: str | Path) -> Tensor:
    """Map a file that `extract` wrote: (N, F). Raises ValueError where it is not whole."""
    path, sidecar = Path(path), _sidecar(Path(path))
    if not sidecar.exists() or not path.exists():
        raise ValueError(
            f"{path}: no whole feature file ({sidecar.name} or the features are missing); extract it again"
        )
    try:
        about = json.loads(sidecar.read_text())
        (n, f), dtype = about["shape"], DTYPES[about["dtype"]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{sidecar}: not a description of features; extract them again") from None
    if path.stat().st_size != n * f * dtype.itemsize:
        raise ValueError(
            f"{path}: {path.stat().st_size} bytes, but {n} x {f} {about['dtype']} are {n * f * dtype.itemsize}"
        )
    return torch.from_file(str(path), shared=False, size=n * f, dtype=dtype).view(n, f)


def _extract_to_file(
    out: Path,
    pooled: Callable,
    D: nn.Module,
    x,
    options: tuple,
    shape: tuple[int, int],
    dtype: torch.dtype,
    batch_size: int,
    progress: bool,
) -> Tensor:
    """Append blocks to a temporary file, and rename it once it is whole; go on with one of the same fingerprint."""
    about = {"shape": list(shape), "dtype": str(dtype).removeprefix("torch."), "made_of": _fingerprint(D, x, options)}
    part, sidecar = out.with_name(out.name + ".part"), _sidecar(out)
    if _read(sidecar) == about and out.exists():
        return load(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    block_bytes = batch_size * shape[1] * dtype.itemsize
    try:
        if _read(_sidecar(part)) != about or not part.exists():
            part.write_bytes(b"")
            _sidecar(part).write_text(json.dumps(about))
        whole = min(part.stat().st_size // block_bytes * batch_size, shape[0])
        with part.open("r+b") as file:
            file.truncate(whole * shape[1] * dtype.itemsize)  # a block that was cut off is made again
            file.seek(0, os.SEEK_END)
            for _, block in _blocks(pooled, whole, shape[0], batch_size, progress):
                file.write(block.contiguous().view(torch.uint8).numpy())
        sidecar.unlink(missing_ok=True)  # an older file's description must not meet the new features
        part.replace(out)
        _sidecar(part).replace(sidecar)
    except OSError as error:  # a full disk, above all
        raise OSError(error.errno, error.strerror, str(part)) from error
    return load(out)


def _blocks(pooled: Callable[[slice], Tensor], first: int, n: int, batch_size: int, progress: bool):
    """Yield (first row, features) batch by batch; in smaller ones, said once, where device memory is short."""
    size, at = batch_size, first
    with tqdm(total=n, initial=first, desc="features", unit="image", disable=not progress, leave=False) as bar:
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
            bar.update(len(block))


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


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read(sidecar: Path) -> dict | None:
    """Return a sidecar's content, None where there is none that can be read."""
    try:
        return json.loads(sidecar.read_text())
    except (OSError, ValueError):
        return None


def _fingerprint(D: nn.Module, x: Tensor | np.ndarray, options: tuple) -> str:
    """Return a hash of weights, statistics, images and options: features of another net must not be gone on with."""
    digest = hashlib.blake2b(repr((options, tuple(x.shape), str(x.dtype))).encode(), digest_size=16)
    for name, value in D.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    for at in range(0, len(x), 4096):
        rows = x[at : at + 4096]
        digest.update(np.ascontiguousarray(rows.detach().cpu().numpy() if isinstance(rows, Tensor) else rows))
    return digest.hexdigest()
