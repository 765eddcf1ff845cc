"""Choose which of a training's snapshots to keep, without test labels: long trainings get worse again.

The rule: the one whose samples have the least Fréchet distance to real images that the GAN never saw, in the features
of a small classifier of the training images' labels, or, where there are no labels, of a random convolutional net.
These distances compare snapshots of one training. They are no FID, which is defined by one Inception net, and compare
with none.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from lib.images.data import UNLABELLED, ImageSet
from lib.nets import batchnorm, judges, weights
from lib.nets.judges import AttributeNet
from lib.study import chance


class Extractor(nn.Module):
    """Images (N, nc, size, size) in [0, 1] -> features (N, F): a classifier's last maps, averaged over positions."""

    def __init__(self, classifier: AttributeNet) -> None:
        super().__init__()
        self.body = classifier.body
        self.num_features = self.body.layers[-1][0].out_channels

    def forward(self, x: Tensor) -> Tensor:
        x = (x * 2 - 1).contiguous(memory_format=torch.channels_last)
        return self.body.activations(x)[-1].mean((2, 3))  # (N, F)


def fit_extractor(images: ImageSet, rows: Tensor, seed: int, most: int = 12_800, ndf: int = 16) -> Extractor:
    """Train a small classifier on some of the rows that the GAN learns from, `most` images in all epochs together.

    Where they have no two classes it stays random, its batch norm set to them.
    """
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(chance.stream(seed, "extractor", "rows")))
    some = images[rows[drawn[:most]]]
    y = torch.as_tensor(some.y)
    if len(y[y != UNLABELLED].unique()) > 1:
        x, truth = some.x[y != UNLABELLED], torch.eye(len(some.classes))[y[y != UNLABELLED]].numpy()
        epochs, own = max(1, most // len(x)), chance.stream(seed, "extractor")
        return Extractor(judges.fit(x, truth, some.classes, epochs, own, ndf))
    random = AttributeNet(["none"], some.x.shape[-1], some.x.shape[1], ndf, chance.stream(seed, "extractor"))
    batchnorm.recalibrate_batchnorm(random.body, some.x[:1280])
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
        G = weights.load_net(path)[0].to(device)
        own = torch.Generator().manual_seed(chance.stream(seed, "z", "evaluation"))
        z = G.sample_z(max(1000, len(held_out)), own).to(device)
        batchnorm.recalibrate_batchnorm(G, z)
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
