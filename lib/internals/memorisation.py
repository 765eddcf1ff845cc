"""Ask whether G repeats its training images.

Report 004 asks for the nearest training images of samples. A distance says nothing alone: held-out real images, which
nobody can have memorised, have nearest training images too, and a G that memorised on purpose shows what it looks like.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from lib.images import data
from lib.images.data import ImageSet
from lib.nets import batchnorm, models
from lib.nets.models import Description, Generator
from lib.study.chance import Interval

PART = 8192  # rows of a set whose distances are taken at once
NOISE = 0.3  # of a stored code's variance: how far around it a memorised image reaches


def nearest(
    queries: Tensor, training: Tensor, shift: int = 0, to: Callable[[Tensor], Tensor] = Tensor.float
) -> tuple[Tensor, Tensor]:
    """Return each query's distance to its nearest training row, and which that is: (Q, ...), (N, ...) -> (Q,), (Q,).

    Euclidean over all of a row's values; images are uint8, or float in [-1, 1]. shift: also try images (Q, C, H, W)
    moved by up to so many pixels each way, their edges repeated. to: compare in these features, (n, ...) -> (n, F).
    They are taken of the training rows part by part, so that their memory does not grow with the set.
    """
    queries = data.to_float(queries)
    moved = [queries]
    if shift:
        padded = F.pad(queries, (shift,) * 4, mode="replicate")
        side, steps = queries.shape[-1], range(2 * shift + 1)
        moved = [padded[:, :, i : i + side, j : j + side] for i in steps for j in steps]
    moved = [to(x).flatten(1) for x in moved]
    distances, rows = torch.full((len(queries),), torch.inf), torch.zeros(len(queries), dtype=torch.long)
    for start in range(0, len(training), PART):
        base = to(data.to_float(training[start : start + PART])).flatten(1)
        for x in moved:
            near, found = torch.cdist(x, base).min(1)
            rows = torch.where(near < distances, found + start, rows)
            distances = torch.minimum(near, distances)
    return distances, rows


def ratio_of_medians(a: Tensor, b: Tensor, seed: int) -> Interval:
    """Return median(a) / median(b) with its 95% bootstrap interval: (n,), (m,)."""

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.median(a, axis) / np.median(b, axis)

    a, b = a.double().numpy(), b.double().numpy()
    reach = stats.bootstrap((a, b), ratio, method="percentile", rng=np.random.default_rng(seed)).confidence_interval
    return Interval(float(ratio(a, b)), float(reach.low), float(reach.high))


def split_of(
    record: dict, data_set: str, size: int, split: str, held_out: str, most: int = 0
) -> tuple[ImageSet, Tensor]:
    """Return the images that a net learned, and uint8 images (N, C, H, W) that it never saw, evenly drawn.

    record: the net's, as `nets.load_net` returns it. held_out: another split of the set, or `training`: the images of
    this very split that the net's training kept for choosing a snapshot. most: at most so many of them (0: all).
    Raises ValueError for `training` where the net learned another set, or nothing was kept from it.
    """
    if held_out != "training":
        return data.load(data_set, size, split), data.load(data_set, size, held_out, most).x
    own = record.get("parameters", {})
    if (own.get("data_set"), own.get("split")) != (data_set, split):
        raise ValueError(f"held_out = training: the net did not learn {data_set}, {split}: name a split instead")
    images = data.load(data_set, size, split, own["limit"])
    rows, kept = data.hold_out(len(images), own["held_out"], own["seed"])
    if not len(kept):
        raise ValueError("held_out = training: the net's training held no image out: name a split instead")
    most = min(most or len(kept), len(kept))
    return images[rows], images.x[kept[torch.arange(most) * len(kept) // most]]


def memorise(description: Description, x: Tensor, steps: int, seed: int) -> tuple[Generator, Tensor]:
    """Fit a G that stores uint8 images x (N, nc, S, S) and nothing else; return it and each image's code (N, nz).

    Adversarial training on a few images does not get there in minutes; this G is fitted by reconstruction, one code per
    image, with noise around the codes, so that each image has a region of the latent space to itself. Raises ValueError
    where x does not fit the net.
    """
    expected = (description.nc, description.size, description.size)
    if tuple(x.shape[1:]) != expected:
        raise ValueError(f"images of {tuple(x.shape[1:])} do not fit a net for {expected}: name another set")
    G, _ = models.from_description(description, seed)
    generator = torch.Generator().manual_seed(seed)
    codes = G.sample_z(len(x), generator)
    half = models.find_precision("auto", torch.device("cpu")) == "bfloat16"
    optimizer = torch.optim.Adam(G.to(memory_format=torch.channels_last).train().parameters(), 5e-3, (0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,), generator=generator)
        z = recall(G, codes, rows, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            images = G(z)
        loss = F.l1_loss(images.float(), data.to_float(x[rows]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    G = G.to(memory_format=torch.contiguous_format)
    rows = torch.randint(len(x), (2048,), generator=generator)
    return batchnorm.recalibrate_batchnorm(G, recall(G, codes, rows, generator)), codes


def recall(G: Generator, codes: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a vector around each of these rows' codes, as long as the prior's: codes (N, nz), rows (n,) -> (n, nz)."""
    return (1 - NOISE) ** 0.5 * codes[rows] + NOISE**0.5 * G.sample_z(len(rows), generator)
