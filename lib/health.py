"""Telling a healthy training from one that has failed, and a good net from a later, worse one.

GANs fail without an error: D wins for good, G draws one image, filters die, and long trainings get worse again. Three
measures go into every training's log, and `signs` says in words what they show.

Which of a training's snapshots to keep is decided without test labels, by this rule: the one whose samples have the
least Fréchet distance to real images that the GAN never saw, in the features of a small classifier of the training
images' labels, or, where there are no labels, of a random convolutional net. These distances compare snapshots of one
training. They are no FID, which is defined by one Inception net, and compare with none.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from lib import attributes, features, nets
from lib.attributes import AttributeNet
from lib.data import UNLABELLED, ImageSet
from lib.models import Discriminator, Generator

NEAR_ZERO = 0.05  # of D's loss, which is 2 log 2 = 1.39 where D cannot tell
LEAST_VARIETY = 0.5  # of samples, as a share of the real images'
DEAD = 0.01  # of the most varied filter of the same layer
MOST_DEAD = 0.25
LONG = 0.1  # of a training


def require_finite(line: dict[str, float]) -> None:
    """Raise FloatingPointError, naming the first value of a log's line that is not finite."""
    for name, value in line.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name} is {value} after minibatch {line['step']}: the training has diverged and stops; the last "
                "checkpoint is from before. Lower lr, or take precision float32"
            )


@torch.no_grad()
def measure(G: Generator, D: Discriminator, z: Tensor, real: Tensor) -> dict[str, float]:
    """Return the variety of G's samples and the shares of dead filters, in batch statistics, and change nothing.

    z (N, nz), real images (N, nc, size, size) in [-1, 1] on the nets' device.
    """
    G, D = copy.deepcopy(G).train(), copy.deepcopy(D).train()  # running averages of the nets in training stay
    drawn = G.activations(z)
    return {
        "variety": variety(drawn[-1], real),
        "dead_G": dead_share(drawn[:-1]),
        "dead_D": dead_share(D.activations(real)),
    }


def variety(samples: Tensor, real: Tensor) -> float:
    """Return the mean distance between two samples over that between two real images, both (N, C, H, W)."""
    return (torch.pdist(samples.flatten(1).float()).mean() / torch.pdist(real.flatten(1).float()).mean()).item()


def dead_share(layers: list[Tensor]) -> float:
    """Return the share of filters whose output hardly varies over images and positions: [(N, C, H, W), ...].

    A filter is dead where its standard deviation is at most DEAD of the largest in its layer.
    """
    spreads = [h.float().std((0, 2, 3)) for h in layers]
    return torch.cat([spread <= DEAD * spread.max() for spread in spreads]).float().mean().item()


def signs(log: pd.DataFrame) -> list[str]:
    """Return what a training's log shows of failure, in words; an empty list where it shows nothing.

    The first tenth is not judged, and variety not before it was once there, unless it never comes: G begins with grey
    images.
    """
    log = log[log["step"] > LONG * log["step"].max()]
    loss, varied, dead_G, dead_D = (log[name].dropna() for name in ("loss_D", "variety", "dead_G", "dead_D"))
    risen = (varied.cummax() >= LEAST_VARIETY) | (varied.index == varied.index.max())
    conditions = {
        f"D's loss is below {NEAR_ZERO}: D has won, and G learns nothing more": (
            loss.rolling(max(1, round(LONG * len(loss)))).max() < NEAR_ZERO
        ),
        f"G's samples vary less than {LEAST_VARIETY} of what real images do: it collapsed": (
            (varied < LEAST_VARIETY) & risen
        ),
        f"more than {MOST_DEAD:.0%} of G's filters are dead": dead_G > MOST_DEAD,
        f"more than {MOST_DEAD:.0%} of D's filters are dead": dead_D > MOST_DEAD,
    }
    found = {sign: log.loc[holds[holds].index, "step"] for sign, holds in conditions.items()}
    return [f"{sign} (minibatches {at.min():,} to {at.max():,})" for sign, at in found.items() if len(at)]


class Extractor(nn.Module):
    """Images (N, nc, size, size) in [0, 1] -> features (N, F): a classifier's last maps, averaged over positions."""

    def __init__(self, classifier: AttributeNet) -> None:
        super().__init__()
        self.body = classifier.body
        self.num_features = self.body.layers[-1][0].out_channels

    def forward(self, x: Tensor) -> Tensor:
        x = (x * 2 - 1).contiguous(memory_format=torch.channels_last)
        return self.body.activations(x)[-1].mean((2, 3))  # (N, F)


def hold_out(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows of n images to train on, and a random share of them to choose the snapshot by."""
    if not 0 <= share < 1:
        raise ValueError(f"held_out = {share}: must be a share from 0, and below 1")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held = round(share * n)
    return order[held:].sort().values, order[:held].sort().values


def fit_extractor(images: ImageSet, rows: Tensor, seed: int, most: int = 12_800, ndf: int = 16) -> Extractor:
    """Train a small classifier on some of the rows that the GAN learns from, `most` images in all epochs together.

    Where they have no two classes it stays random, its batch norm set to them.
    """
    some = images[rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most]]]
    y = torch.as_tensor(some.y)
    if len(y[y != UNLABELLED].unique()) > 1:
        x, truth = some.x[y != UNLABELLED], torch.eye(len(some.classes))[y[y != UNLABELLED]].numpy()
        return Extractor(attributes.fit(x, truth, some.classes, max(1, most // len(x)), seed, ndf))
    random = AttributeNet(["none"], some.x.shape[-1], some.x.shape[1], ndf, seed)
    features.recalibrate_batchnorm(random.body, some.x[:1280])
    return Extractor(random.eval())


def frechet_distances(
    snapshots: Mapping[int, Path],
    held_out: Tensor,
    extractor: nn.Module | None,
    seed: int,
    inception: str = "",
    device: str | torch.device = "cpu",
) -> pd.Series:
    """Return each snapshot's Fréchet distance to held-out real images, uint8 (N, nc, size, size): step -> distance.

    As many samples are drawn as there are images, 1,000 at least, from the same z. inception: the file of
    torch-fidelity's Inception weights, which takes the extractor's place: only then the distance is the FID. device:
    where to draw and compare, the CPU in place of MPS, which has no float64. Nothing is returned where there are no two
    images to compare with.
    """
    if len(held_out) < 2:
        return pd.Series(dtype=float)
    metric = FrechetInceptionDistance(
        2048 if inception else extractor, reset_real_features=False, normalize=True,
        feature_extractor_weights_path=inception or None,
    )  # fmt: skip
    device = torch.device("cpu" if torch.device(device).type == "mps" else device)
    metric, distances = metric.to(device), {}
    for batch in held_out.split(256):
        metric.update(_in_colour(batch.to(device).float() / 255, bool(inception)), real=True)
    for step, path in snapshots.items():
        G = nets.load_net(path)[0].to(device)
        z = G.sample_z(max(1000, len(held_out)), torch.Generator().manual_seed(seed)).to(device)
        features.recalibrate_batchnorm(G, z)
        metric.reset()
        with torch.no_grad():
            for some in z.split(256):
                metric.update(_in_colour(G(some).add(1).div(2), bool(inception)), real=False)
        distances[step] = metric.compute().item()
    return pd.Series(distances, name="Fréchet distance").rename_axis("step")


def _in_colour(x: Tensor, needed: bool) -> Tensor:
    return x.expand(-1, 3, -1, -1) if needed and x.shape[1] == 1 else x


def choose(distances: pd.Series, last: int, steps: Sequence[int] = (), keep: int = 0) -> int:
    """Return the step of the snapshot to keep: the earliest of the least distance; the last where none is known.

    keep: take that one of `steps` instead, counted from 1. Raises ValueError where there is none.
    """
    if not 0 <= keep <= len(steps):
        raise ValueError(f"keep = {keep}: there are {len(steps)} snapshots, counted from 1 (0: choose by distance)")
    if keep:
        return steps[keep - 1]
    return int(distances.idxmin()) if len(distances) else last
