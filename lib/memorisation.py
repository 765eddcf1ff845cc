"""Ask whether a set repeats itself, and whether G repeats the set.

The paper removes near duplicates from its training images by a semantic hash (section 4.1): a denoising autoencoder,
3072-128-3072, regularised by dropout, whose ReLU code is read as 128 bits; images with the same bits count as one.
Report 004 asks for the nearest training images of samples. A distance says nothing alone: held-out real images, which
nobody can have memorised, have nearest training images too, and a G that memorised on purpose shows what it looks like.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import stats
from scipy.spatial.distance import pdist
from torch import Tensor, nn

from lib import data, features, health, models
from lib.data import ImageSet
from lib.intervals import Interval
from lib.models import Description, Generator

PART = 8192  # rows of a set whose distances are taken at once
NOISE = 0.3  # of a stored code's variance: how far around it a memorised image reaches


class Autoencoder(nn.Module):
    """Images (N, F) less the set's mean -> their reconstruction (N, F), through a ReLU code of `units`."""

    def __init__(self, mean: Tensor, units: int = 128) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.encoder, self.decoder = nn.Linear(len(mean), units), nn.Linear(units, len(mean))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x).relu()  # (N, units)

    def forward(self, x: Tensor) -> Tensor:
        noisy = F.dropout(x, 0.2, self.training)  # a fifth of the pixels turns to the mean: the denoising
        return self.decoder(F.dropout(self.encode(noisy), 0.5, self.training))  # (N, F)


def fit_autoencoder(x: Tensor, epochs: int, seed: int, units: int = 128) -> Autoencoder:
    """Train the hash on uint8 images x (N, C, H, W).

    The mean image is taken off first: without that most units are off on every image, and strangers collide.
    """
    torch.manual_seed(seed)
    net = Autoencoder(data.to_float(x[:10_000]).flatten(1).mean(0), units).train()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            batch = data.to_float(x[rows]).flatten(1) - net.mean
            loss = F.mse_loss(net(batch), batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return net.eval()


@torch.no_grad()
def hash_images(net: Autoencoder, x: Tensor) -> np.ndarray:
    """Return which units of the code are on: uint8 images (N, C, H, W) -> (N, units) bool."""
    parts = (data.to_float(part).flatten(1) - net.mean for part in x.split(1024))
    return torch.cat([net.encode(part) > 0 for part in parts]).numpy()


def collide(codes: np.ndarray) -> np.ndarray:
    """Number the images so that those with the same code share a number: (N, units) bool -> (N,)."""
    return np.unique(np.packbits(codes, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def score_pairs(codes: np.ndarray, truth: np.ndarray, bits: int = 0) -> tuple[float, float]:
    """Return precision and recall of the pairs whose codes differ in at most `bits`, against planted duplicates.

    codes (N, units) bool; truth (N,): images with the same number are duplicates. Compares all pairs: for thousands of
    images. Precision is NaN where no pair was found, recall where there is none to find.
    """
    found = pdist(codes, "cityblock") <= bits
    same = pdist(truth[:, None], "cityblock") == 0
    right = (found & same).sum()
    return tuple(float(right / total) if total else float("nan") for total in (found.sum(), same.sum()))


def _jpeg(x: Tensor) -> Tensor:
    file = io.BytesIO()
    pixels = x.permute(1, 2, 0).numpy()
    Image.fromarray(pixels.squeeze(2) if len(x) == 1 else pixels).save(file, "jpeg", quality=75)
    return torch.from_numpy(np.array(Image.open(file)).reshape(pixels.shape)).permute(2, 0, 1)


def _shift(x: Tensor) -> Tensor:
    return F.pad(x[None, :, :, :-1].float(), (1, 0, 0, 0), mode="replicate")[0].to(torch.uint8)


# How a picture comes twice into a set: one uint8 image (C, H, W) -> one that looks the same.
VARIANTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "copy": torch.clone,
    "JPEG, quality 75": _jpeg,
    "5% brighter": lambda x: (x.float() * 1.05).round().clamp(0, 255).to(torch.uint8),
    "shifted by a pixel": _shift,
}


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
    rows, kept = health.hold_out(len(images), own["held_out"], own["seed"])
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
    return features.recalibrate_batchnorm(G, recall(G, codes, rows, generator)), codes


def recall(G: Generator, codes: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a vector around each of these rows' codes, as long as the prior's: codes (N, nz), rows (n,) -> (n, nz)."""
    return (1 - NOISE) ** 0.5 * codes[rows] + NOISE**0.5 * G.sample_z(len(rows), generator)
