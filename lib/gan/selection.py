"""Choose which of a training's snapshots to keep, without test labels: long trainings get worse again.

The rule: the one whose samples have the least Fréchet distance to real images that the GAN never saw, in the features
of a small classifier of the training images' labels; or, where there are no labels, of a random convolutional net or,
where one is named, of a judge of attributes.
These distances compare snapshots of one training. They are no FID, which is defined by one Inception net, and compare
with none; whoever has the file of that net's weights can choose by the FID.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.images.data import UNLABELLED, ImageSet
from lib.nets import batchnorm, judges, models, weights
from lib.nets.judges import AttributeNet
from lib.nets.models import Discriminator
from lib.study import chance, manifest, paths

VERSIONS = {"selection": 1}
NDF = 16  # base maps of the extractor
LEAST = 2  # held-out images per feature: with fewer, the distance is a matter of which ones they are
SAMPLES = (1_000, 50_000)  # drawn of each snapshot: as many as images are held out, within these bounds


class Extractor(nn.Module):
    """Images (N, nc, size, size) in [0, 1] -> features (N, F): a classifier's last maps, averaged over positions.

    Images of another size than those that it learned from are brought to that size.
    """

    measure = "Fréchet distance"

    def __init__(self, classifier: AttributeNet) -> None:
        super().__init__()
        self.body = classifier.body
        self.num_features = self.body.layers[-1][0].out_channels

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != (size := self.body.description.size):
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        x = (x * 2 - 1).contiguous(memory_format=torch.channels_last)
        return self.body.activations(x)[-1].mean((2, 3))  # (N, F)


class Inception(nn.Module):
    """Images (N, 1 or 3, size, size) in [0, 1] -> features (N, 2048) of the net that defines the FID, asked in bytes.

    path: the file of torch-fidelity's weights. ModuleNotFoundError says where torch-fidelity is not installed.
    """

    measure, num_features = "FID", 2048

    def __init__(self, path: Path) -> None:
        from torchmetrics.image import fid  # two seconds of import that most sessions do without

        super().__init__()
        self.net = fid.NoTrainInceptionV3("inception-v3-compat", [str(self.num_features)], str(path))

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x.expand(-1, 3, -1, -1) * 255).byte())  # (N, 2048)


def fit_extractor(
    images: ImageSet, rows: Tensor, seed: int, most: int = 12_800, device: str | torch.device = "cpu"
) -> Extractor:
    """Train a small classifier on some of the rows that the GAN learns from, `most` images in all epochs together.

    Where they have no two classes it stays random, its batch norm set to them.
    """
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(chance.stream(seed, "extractor", "rows")))
    some, own = images[rows[drawn[:most]]], chance.stream(seed, "extractor")
    y = torch.as_tensor(some.y)
    if len(y[y != UNLABELLED].unique()) > 1:
        x, truth = some.x[y != UNLABELLED], torch.eye(len(some.classes))[y[y != UNLABELLED]].numpy()
        return Extractor(judges.fit(x, truth, some.classes, max(1, most // len(x)), own, NDF, device))
    random = AttributeNet(["none"], some.x.shape[-1], some.x.shape[1], NDF, own)
    batchnorm.recalibrate_batchnorm(random.body, some.x[:1280])
    return Extractor(random.eval())


def extractor_of(features: str, nc: int) -> Extractor | Inception:
    """Return the features that a name means, for images of nc channels: one and the same for all trainings of a set.

    features: a net with which a judge of attributes came; it learned from labels, where the training's own images have
    none. Or inception:PATH. Raises ValueError where there is no such judge or file, and for images of other channels.
    """
    if features.startswith(manifest.INCEPTION):
        path = paths.from_root(features.removeprefix(manifest.INCEPTION))
        if not path.is_file():
            raise ValueError(f"features = {features}: no file {path}: give that of torch-fidelity's Inception weights")
        return Inception(path)
    if "attributes" not in (came := judges.beside(features)):
        raise ValueError(f"features = {features}: no judge of attributes came with this net: faces has one")
    if (own := came["attributes"].body.description.nc) != nc:
        raise ValueError(f"features = {features}: its judge takes images of {own} channels, and these have {nc}")
    return Extractor(came["attributes"])


def least_held_out(size: int, extractor: Extractor | Inception | None = None) -> int:
    """Return how many images of this size must be held out for distances in the features to mean something.

    extractor: whose features; by default those of `fit_extractor`.
    """
    own = extractor is None
    return LEAST * (models.describe("tutorial64", size=size).maps(NDF)[-1] if own else extractor.num_features)


def frechet_distances(
    snapshots: Mapping[int, Path],
    x: Tensor,
    held_out: Tensor,
    extractor: Extractor | Inception,
    seed: int,
    device: str | torch.device = "cpu",
) -> pd.Series:
    """Return each snapshot's Fréchet distance to the held-out rows of real images x: step -> distance.

    x: uint8 (N, nc, size, size); of more than 50,000 rows, the field's number, so many are drawn. As many samples as
    rows, 1,000 at least, are drawn from the same z. extractor: of the features; the result is named by its `measure`,
    the FID with Inception's alone. device: where to draw and compare, the CPU in place of MPS, which has no float64.
    Nothing is returned for fewer than LEAST rows per feature.
    """
    if len(held_out) < LEAST * extractor.num_features:
        return pd.Series(dtype=float)
    from torchmetrics.image.fid import FrechetInceptionDistance  # two seconds of import that most sessions do without

    metric = FrechetInceptionDistance(extractor, reset_real_features=False, normalize=True)
    rows = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(chance.stream(seed, "held-out rows")))
    rows = held_out[rows[: SAMPLES[1]]].sort().values
    device = torch.device("cpu" if torch.device(device).type == "mps" else device)
    metric, distances = metric.to(device), {}
    for some in rows.split(256):
        metric.update(x[some].to(device).float() / 255, real=True)
    for step, path in snapshots.items():
        G = weights.load_net(path)[0].to(device)
        own = torch.Generator().manual_seed(chance.stream(seed, "z", "evaluation"))
        z = G.sample_z(max(SAMPLES[0], len(rows)), own).to(device)
        batchnorm.recalibrate_batchnorm(G, z)
        metric.reset()
        with torch.no_grad():
            for some in z.split(256):
                metric.update(G(some).add(1).div(2), real=False)
        distances[step] = metric.compute().item()
    return pd.Series(distances, name=extractor.measure, dtype=float).rename_axis("step")


def choose(distances: pd.Series, last: int, steps: Sequence[int] = (), keep: int = 0) -> int:
    """Return the step of the snapshot to keep: the earliest of the least distance; the last where none is known.

    keep: take that one of `steps` instead, counted from 1. Raises ValueError where there is none.
    """
    require_snapshot(keep, len(steps))
    if keep:
        return steps[keep - 1]
    return int(distances.idxmin()) if len(distances) else last


def require_snapshot(keep: int, snapshots: int, average: int = 0) -> None:
    """Raise ValueError where there is no snapshot of this count, or not so many up to it: before a training."""
    if not 0 <= keep <= snapshots:
        raise ValueError(f"keep = {keep}: there are {snapshots} snapshots, counted from 1 (0: choose by distance)")
    if not 0 <= average <= keep:
        raise ValueError(
            f"average = {average}: say with keep which snapshot, {average} or a later one, is the last of them"
        )


def average_D(snapshots: Sequence[Path], x: Tensor) -> Discriminator:
    """Return a D whose every weight is the mean over snapshots, its batch-norm statistics those on images x."""
    first, *others = (weights.load_net(path)[1] for path in snapshots)
    with torch.no_grad():
        for weight, *same in zip(first.parameters(), *(D.parameters() for D in others), strict=True):
            weight.copy_(torch.stack([weight, *same]).mean(0))
    return batchnorm.recalibrate_batchnorm(first, x)
