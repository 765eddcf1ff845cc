"""Turn images into the paper's features: D's convolutions, max-pooled to a grid, flattened and concatenated (5.1).

50,000 x 28,672 features are 5.7 GB in float32, and half of that in bfloat16, which loses nothing where D convolves in
it.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from lib.nets.batchnorm import device_of, to_inputs
from lib.nets.models import Description, require_fit
from lib.study import chance
from lib.study.chance import Interval

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


def roc_area(X: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return how well each feature alone tells each thing: the area under its ROC curve, 0.5 by chance.

    (n, F), (n, A) bool -> (A, F), from ranks and for all pairs at once (Mann and Whitney). NaN for a thing that all
    have, or none.
    """
    have = truth.sum(0)[:, None]
    with np.errstate(invalid="ignore"):
        return (truth.T @ stats.rankdata(X, axis=0) - have * (have + 1) / 2) / (have * (len(truth) - have))


def best_alone(X: np.ndarray, truth: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find for each thing the feature that alone tells it best, as network dissection does (arXiv:1704.05796).

    X: (N, P, F), the features at P places of each image; truth: (N, P, A) bool. One half of the images, drawn by lot,
    chooses. Returns the features chosen (A,), and of the other half what these are, (n, P, A), and the truth. Raises
    ValueError for a thing that is everywhere or nowhere in one of the halves.
    """
    rng = np.random.default_rng(chance.stream(seed, "halves"))
    choose, test = np.array_split(rng.permutation(len(X)), 2)
    for half in (choose, test):
        if len(same := np.flatnonzero(np.ptp(truth[half].reshape(-1, truth.shape[-1]).astype(int), axis=0) == 0)):
            raise ValueError(f"thing {same[0]} is everywhere or nowhere in {len(half)} of the images: give more")
    areas_of = roc_area(X[choose].reshape(-1, X.shape[-1]), truth[choose].reshape(-1, truth.shape[-1]))
    best = areas_of.argmax(1)
    return best, X[test][..., best], truth[test]


def best_filters(
    nets: Sequence[nn.Module], x: Tensor, truth: np.ndarray, layer: int, grid: int, seed: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Ask one layer of several nets of a kind about the same images: what each one's `best_alone` filters say.

    x: (N, nc, S, S); truth: (N, grid * grid, A) bool, of each place of a grid, 1 for the strongest response anywhere.
    """
    told = []
    for D in nets:
        h = extract(D, x, layers=[layer], grid=grid).view(len(x), -1, grid * grid).mT  # (N, places, maps)
        told.append(best_alone(h.numpy(), truth, seed)[1:])
    return [chosen for chosen, _ in told], told[0][1]


def areas(chosen: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each thing's own feature: two of (n, P, A) -> (A,)."""
    return np.diagonal(roc_area(*(part.reshape(-1, part.shape[-1]) for part in (chosen, truth))))


def lead(
    ours: np.ndarray, others: Sequence[np.ndarray], truth: np.ndarray, seed: int, resamples: int = 100
) -> Interval:
    """Return by how much one net's chosen features lead those of L other nets, in the mean area under the ROC curve.

    ours and each of the others: (n, P, A), of `best_alone`, on the same images. The interval is that of a lead over one
    more such net on other such images, given the features chosen: Student's of L nets, the images' share by bootstrap.
    """
    rng = np.random.default_rng(chance.stream(seed, "resamples"))

    def told(rows: np.ndarray) -> tuple[float, np.ndarray]:
        mine, *theirs = (float(np.nanmean(areas(chosen[rows], truth[rows]))) for chosen in (ours, *others))
        return mine - np.mean(theirs), np.array(theirs)

    value, theirs = told(np.arange(len(truth)))
    by_images = np.var([told(rows)[0] for rows in rng.integers(len(truth), size=(resamples, len(truth)))], ddof=1)
    error = (theirs.var(ddof=1) * (1 + 1 / len(theirs)) + by_images) ** 0.5
    reach = stats.t.ppf(0.975, len(theirs) - 1) * error
    return Interval(float(value), float(value - reach), float(value + reach))


def compare_alone(chosen: Sequence[np.ndarray], truth: np.ndarray, seed: int) -> dict[str, Interval]:
    """Compare the filters of a trained D, the first, with those of three random ones or more (`best_filters`).

    The mean area under the ROC curve of either, that of random ones with an interval over them; the trained one's lead,
    and, which should be none, that of the first random one over the others. Raises ValueError for fewer random ones.
    """
    if len(chosen) < 4:
        raise ValueError(f"{len(chosen) - 1} random nets: three at least tell how far random nets lie apart")
    trained, *random = (float(areas(each, truth).mean()) for each in chosen)
    return {
        "trained D": Interval(trained, np.nan, np.nan),
        "a random D": chance.interval_of_mean(random),
        "lead of the trained D": lead(chosen[0], chosen[1:], truth, seed),
        "lead of a random D": lead(chosen[1], chosen[2:], truth, seed),
    }


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
