"""The images of a probe: those that it learns from, those that decide its choices, and those that test it, once.

Whoever chooses C, a snapshot or a layer by the test images reports the luckiest of many. So some training images are
set apart, the same ones in every run, and all choices are theirs.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split

from lib.images import data, packing
from lib.images.data import ImageSet
from lib.study import chance, paths

DEVELOPMENT = "development"  # what a notebook calls the images set apart where it names a split
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EXACT = (0.49139968, 0.48215841, 0.44653091)  # the mean of CIFAR-10's 50,000 training images, red, green and blue
LOSSY = "not the exact CIFAR-10"  # begins what is said, and recorded, of a copy that has another
COST = r"(?P<who>.+) minus (?P=who), (?P<copy>JPEG \d+): all labels"  # of the kept runs' metrics


@dataclass(frozen=True)
class Splits:
    """The labelled images of a probe."""

    learn: ImageSet  # training images in the order of their classes, those set apart last
    test: ImageSet
    own: slice  # the training images that decide nothing
    apart: slice  # those that decide
    final: slice  # what the last classifier learns from: all, but for the images that test it
    unlabelled: int  # images that were left out, of both splits


def load(
    data_set: str,
    size: int,
    train: str = "train",
    test: str = "test",
    limit: int = 0,
    development: int = 0,
) -> Splits:
    """Load the labelled images of two splits, and set `development` of the training images apart.

    These are drawn class by class, whatever the seed of a run and its `limit`: at most so many of the others (0: all),
    evenly spaced. test: a split, or `development`. Raises ValueError where a split has no labels, and for a number of
    images to set apart that leaves no class or no image. Of a copy of CIFAR-10 that is not the exact one this is said,
    with what it costs, and of one of another size too; it stands in the notes of `learn`.
    """
    learn, left_out = _labelled(data_set, size, train)
    if note := not_its_own(learn):
        packing.say(data_set, note)
        learn = replace(learn, notes=(*learn.notes, note))
    own, apart = np.arange(len(learn)), np.arange(0)
    if development:
        if not len(learn.classes) <= development <= len(learn) - len(learn.classes):
            raise ValueError(
                f"development = {development}: of {len(learn)} training images of {len(learn.classes)} classes, one of "
                "each class at least is set apart, and one is left"
            )
        own, apart = (np.sort(part) for part in train_test_split(
            own, test_size=development, random_state=chance.stream(0, DEVELOPMENT), stratify=learn.y))  # fmt: skip
    if 0 < limit < len(own):
        own = own[np.arange(limit) * len(own) // limit]
    learn = learn[np.concatenate([own, apart])]
    parts = slice(0, len(own)), slice(len(own), len(learn))
    if test == DEVELOPMENT:
        if not development:
            raise ValueError("no images are set apart to be tested on: give development a number or test another split")
        return Splits(learn, learn[parts[1]], *parts, parts[0], left_out)
    tested, left_out_too = _labelled(data_set, size, test)
    return Splits(learn, tested, *parts, slice(0, len(learn)), left_out + left_out_too)


def _labelled(data_set: str, size: int, split: str) -> tuple[ImageSet, int]:
    """Return a split's images that have a label, and how many have none."""
    every = data.load(data_set, size, split)
    images = every.labelled()
    return images, len(every) - len(images)


def not_its_own(images: ImageSet) -> str:
    """Say of 50,000 images of CIFAR-10's classes that these are not its own, and what the kept runs found that to cost.

    Images of another size were made so for a net of that size. Empty for the exact ones, and for other sets.
    """
    if images.classes != CIFAR10 or len(images) != 50_000:
        return ""
    if images.x.shape[1:] != (3, 32, 32):
        width, height = images.x.shape[:1:-1]
        return f"CIFAR-10 at {width} x {height}, the size of the net: take one for 32 x 32 to compare with the paper"
    mean = images.x.numpy().mean((0, 2, 3), dtype=np.float64) / 255
    if np.abs(mean - EXACT).max() < 1e-6:
        return ""
    own, exact = (", ".join(f"{value:.5f}" for value in values) for values in (mean, EXACT))
    return f"{LOSSY}, its mean is {own} and not {exact}: {_cost_of_a_copy()}"


def _cost_of_a_copy() -> str:
    """Say what the kept runs found a lossy copy to cost, or which rows will find it."""
    table = pd.read_csv(paths.TABLE) if paths.TABLE.exists() else pd.DataFrame(columns=["metric", "value"], dtype=str)
    found = table.join(table["metric"].str.extract(COST)).dropna(subset="who")
    if found.empty:
        return "rows pixels-jpeg and kmeans-jpeg of batches/cifar10.yaml measure what a lossy copy costs"
    costs = ", ".join(f"{line.who} {line.value:.1f}" for line in found.itertuples())
    return f"a copy saved as {found['copy'].iloc[0]} cost {costs} points of what the probe gets from all labels"


def compress(images: ImageSet, quality: int) -> ImageSet:
    """Return the images as they come back from JPEG of this quality, with colour at half the resolution (4:2:0).

    Copies of CIFAR-10 that were saved so are about. Raises ValueError where quality is not from 1 to 95.
    """
    if not 1 <= quality <= 95:
        raise ValueError(f"jpeg = {quality}: a quality lies between 1 and 95")
    x = torch.stack([data.jpeg(pixels, quality) for pixels in images.x])
    return replace(images, x=x)
