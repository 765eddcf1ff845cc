"""Find near duplicates in a set by a semantic hash (paper, section 4.1).

A denoising autoencoder, 3072-128-3072, regularised by dropout, whose ReLU code is read as 128 bits; images with the
same bits count as one.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.distance import pdist
from torch import Tensor, nn

from lib.images import data
from lib.nets import supervised
from lib.study import chance

PART = 8192  # images that become float at once


class Autoencoder(nn.Module):
    """Images (N, ...) in [-1, 1] -> their reconstruction less the set's mean (N, F), through a ReLU code of `units`."""

    def __init__(self, mean: Tensor, units: int = 128) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.encoder, self.decoder = nn.Linear(len(mean), units), nn.Linear(units, len(mean))

    def centre(self, x: Tensor) -> Tensor:
        """Flatten images, uint8 or in [-1, 1], and take the mean image off: (N, ...) -> (N, F)."""
        return data.to_float(x).flatten(1) - self.mean

    def encode(self, centred: Tensor) -> Tensor:
        return self.encoder(centred).relu()  # (N, units)

    def forward(self, x: Tensor) -> Tensor:
        noisy = F.dropout(self.centre(x), 0.2, self.training)  # a fifth of the pixels turns to the mean: the denoising
        return self.decoder(F.dropout(self.encode(noisy), 0.5, self.training))  # (N, F)


def fit_autoencoder(
    x: Tensor, epochs: int, seed: int, units: int = 128, device: str | torch.device = "cpu"
) -> Autoencoder:
    """Train the hash on uint8 images x (N, C, H, W).

    The mean image is taken off first: without that most units are off on every image, and strangers collide.
    """
    mean = sum(data.to_float(part).flatten(1).double().sum(0) for part in x.split(PART)) / len(x)
    torch.manual_seed(chance.stream(seed, "weights", "hash"))
    net = Autoencoder(mean.float(), units)
    return supervised.fit(
        net, x, x, epochs, lr=2e-3, weight_decay=0, seed=chance.stream(seed, "hash"), device=device,
        precision="float32", loss_of=lambda made, x: F.mse_loss(made, net.centre(x)),
    )  # fmt: skip


@torch.no_grad()
def hash_images(net: Autoencoder, x: Tensor) -> np.ndarray:
    """Return which units of the code are on: uint8 images (N, C, H, W) -> (N, units) bool."""
    parts = (net.centre(part.to(net.mean.device)) for part in x.split(PART))
    return torch.cat([(net.encode(part) > 0).cpu() for part in parts]).numpy()


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


def _shift(x: Tensor) -> Tensor:
    return F.pad(x[None, :, :, :-1].float(), (1, 0, 0, 0), mode="replicate")[0].to(torch.uint8)


# How a picture comes twice into a set: one uint8 image (C, H, W) -> one that looks the same.
VARIANTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "copy": torch.clone,
    "JPEG, quality 75": partial(data.jpeg, quality=75),
    "5% brighter": lambda x: (x.float() * 1.05).round().clamp(0, 255).to(torch.uint8),
    "shifted by a pixel": _shift,
}


def collisions(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that share a code with the row before them in order of codes, and those rows: two of (r,).

    codes as `hash_images` returns them. r images would be removed.
    """
    numbers = collide(codes)
    order = np.argsort(numbers, kind="stable")
    same = np.diff(numbers[order]) == 0
    return order[1:][same], order[:-1][same]
