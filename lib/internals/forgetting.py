"""Make G forget an object: find the feature maps that draw it, and zero them (paper, section 6.3.1).

The paper boxes 52 windows in 150 samples by hand, fits a logistic regression on the activations of one of G's layers
that tells positions inside the boxes from others, and drops every map with a positive weight at all positions. Samples
have no truth, so here a `Segmenter`, taught on images whose boxes are known, draws the boxes in the place of the hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import ndimage, stats
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lib.images import data
from lib.images.data import ImageSet
from lib.internals import attributes
from lib.nets import devices, judges, supervised
from lib.nets.judges import Judge, Segmenter
from lib.nets.models import Generator
from lib.study import chance, paths
from lib.study.chance import Interval

LEAST = 9  # pixels of an object that counts, at 32 x 32; it grows with the image


def fit(
    x: Tensor, masks: Tensor, epochs: int, seed: int, device: str | torch.device = "cpu", starts: int = 1
) -> Segmenter:
    """Train a Segmenter on uint8 images x (N, nc, S, S) and their masks (N, S, S) bool, each also as in a mirror.

    Of so many starts the one that errs least on these very images is returned: of few images one start in some finds
    nothing.
    """
    both, truth = torch.cat([x, x.flip(-1)]), torch.cat([masks, masks.flip(-1)])[:, None].float()
    trained = []
    for start in range(starts):
        own = chance.stream(seed, "start", str(start)) if start else seed
        torch.manual_seed(chance.stream(own, "weights", "segmenter"))
        net = supervised.fit(
            Segmenter(x.shape[1]), both, truth, epochs / 2, lr=1e-2, batch_size=64,
            seed=chance.stream(own, "segmenter"), device=device,
            precision="float32", loss_of=F.binary_cross_entropy_with_logits,  # in bfloat16 photographs' loss is nan
        )  # fmt: skip
        trained.append((_loss(net, both, truth), start, net))
    return min(trained)[2]


@torch.no_grad()
def _loss(net: Segmenter, x: Tensor, truth: Tensor) -> float:
    device = devices.device_of(net)
    parts = zip(x.split(256), truth.split(256), strict=True)
    loss_of = F.binary_cross_entropy_with_logits
    return sum(len(a) * loss_of(net(data.to_float(a.to(device))), b.to(device)).item() for a, b in parts) / len(x)


@dataclass(frozen=True)
class Known:
    """What is known of rooms: where the thing is in some, and what else is in others, or in the same."""

    x: Tensor  # (n, nc, S, S) uint8
    masks: Tensor  # (n, S, S) bool: what the thing covers
    images: Tensor  # (N, nc, S, S) uint8
    truth: np.ndarray  # (N, A): which things are there, the thing first; or the kind of room, one-hot
    names: list[str]  # A of them
    by_hand: bool  # whether a hand drew the boxes: then `names` are kinds of rooms


def known(images: ImageSet, thing: str, others: Sequence[str], boxes: str, boxed_set: str) -> Known:
    """Collect what is known: of a set that has boxes and attributes, or of one that has classes and boxes by hand.

    boxes: a table of `read_boxes` in data/, of images of `boxed_set`; empty where the set has columns THING_x0, _y0,
    _x1 and _y1. Raises ValueError where the set lacks any of this.
    """
    size = images.x.shape[-1]
    if not boxes:
        names = [thing, *others]
        ends = attributes.require(images, [f"{thing}_{end}" for end in ("x0", "y0", "x1", "y1")])
        truth = attributes.truth(images, names)
        return Known(images.x, to_masks(ends.to_numpy(), size), images.x, truth, names, False)
    rows, masks = read_boxes(paths.ROOT / "data" / boxes, boxed_set or images.name, size)
    told, kinds = attributes.known(replace(images, attributes=None))
    if not len(kinds.columns):
        raise ValueError(f"{images.name} has no labels: nothing tells what stays of a room")
    labelled = data.load(boxed_set or images.name, size).x[rows]
    return Known(labelled, masks, told.x, kinds.to_numpy(), [*kinds], True)


def fit_judges(
    rooms: Known, epochs: int, box_epochs: int, seed: int, device: str | torch.device = "cpu"
) -> dict[str, Judge]:
    """Train the judges on four fifths of what is known, drawn by lot, with their accuracy on the rest.

    boxes: draws boxes on samples. rest: tells which things are in a room, or its kind. counts, where a hand drew the
    boxes: tells whether the thing is there; it learned from one half of them, `boxes` from the other.
    """
    rng = np.random.default_rng(chance.stream(seed, "held-out"))
    tested, taught = np.split(rng.permutation(len(rooms.x)), [len(rooms.x) // 5])
    unknown, learned = np.split(rng.permutation(len(rooms.images)), [len(rooms.images) // 5])
    halves = np.array_split(taught, 2) if rooms.by_hand else [taught]
    came = {}
    for name, rows in zip(("boxes", "counts"), halves, strict=False):
        own = chance.stream(seed, "counter") if name == "counts" else seed
        came[name] = fit(rooms.x[rows], rooms.masks[rows], box_epochs, own, device, 3 if rooms.by_hand else 1)
        told = there(came[name], data.to_float(rooms.x[tested]))
        right = (told == rooms.masks[tested].flatten(1).any(1)).float().mean().item()
        came[name].accuracy = {"boxes" if name == "boxes" else "boxes, by the net that counts": right}
    judge_seed = chance.stream(seed, "judge")
    came["rest"] = judges.fit(
        rooms.images[learned], rooms.truth[learned], rooms.names, epochs, judge_seed, device=device
    )
    told, truth = judges.tell(came["rest"], rooms.images[unknown]).numpy(), rooms.truth[unknown]
    if rooms.by_hand:
        came["rest"].accuracy = {"kind of room": float((told.argmax(1) == truth.argmax(1)).mean())}
    else:
        shares = ((told > 0.5) == (truth > 0.5)).mean(0)
        came["rest"].accuracy = dict(zip(rooms.names, shares.tolist(), strict=True))
    return came


def there(net: Segmenter, images: Tensor) -> Tensor:
    """Tell whether a net that draws boxes finds the thing in images (N, nc, S, S) in [-1, 1]: (N,) bool."""
    return torch.from_numpy(~np.isnan(find_boxes(net, images.to(devices.device_of(net)))).any(1))


def tell(came: Mapping[str, Judge], images: Tensor) -> Tensor:
    """Tell of images (N, nc, S, S) if the thing is there, then which others are, or the room's kind: (N, 1 + K)."""
    told = judges.tell(came["rest"], images)
    if "counts" not in came:
        return (told > 0.5).long()
    return torch.stack([there(came["counts"], images), told.argmax(1)], 1).long()


def to_masks(boxes: np.ndarray, size: int) -> Tensor:
    """Return which pixels lie in each box x0, y0, x1, y1, half-open: (N, 4) -> (N, size, size) bool; NaN: none."""
    x0, y0, x1, y1 = torch.tensor(np.asarray(boxes), dtype=torch.float32)[:, :, None].unbind(1)  # (N, 1) each
    pixel = torch.arange(size)
    across, down = (x0 <= pixel) & (pixel < x1), (y0 <= pixel) & (pixel < y1)  # (N, size)
    return down[:, :, None] & across[:, None, :]


def read_boxes(table: Path, data_set: str, size: int) -> tuple[np.ndarray, Tensor]:
    """Read boxes drawn by hand on some training images of a `tar:` or `folder:` set.

    table: a CSV of columns file (class/name), x0, y0, x1, y1 in pixels of an image of 64 x 64; one line per box, its
    ends empty where an image has none. Returns rows of `data.load(data_set, size)` and masks (n, size, size) bool.
    Raises ValueError that names the first file which the set does not have.
    """
    drawn = pd.read_csv(table)
    row_of = {name: row for row, name in enumerate(data.names(data_set, size))}
    missing = sorted(set(drawn["file"]) - row_of.keys())
    if missing:
        raise ValueError(f"{data_set} has no training image {missing[0]}, which {table.name} names")
    masks = {}
    for file, *box in drawn.itertuples(index=False):
        mask = to_masks(np.array([box]) * (size / 64), size)[0]
        masks[file] = masks.get(file, torch.zeros_like(mask)) | mask
    return np.array([row_of[file] for file in masks]), torch.stack(list(masks.values()))


@torch.no_grad()
def find_boxes(net: Segmenter, images: Tensor) -> np.ndarray:
    """Box the largest object of each image in [-1, 1], NaN where there is none: (N, nc, S, S) -> (N, 4)."""
    masks = torch.cat([(net(part).squeeze(1) > 0).cpu() for part in images.split(256)]).numpy()
    boxes = np.full((len(masks), 4), np.nan)
    for mask, box in zip(masks, boxes, strict=True):
        objects, count = ndimage.label(mask)
        areas = ndimage.sum_labels(mask, objects, range(1, count + 1))
        if count and areas.max() >= LEAST * (mask.shape[0] / 32) ** 2:
            down, across = ndimage.find_objects(objects)[areas.argmax()]
            box[:] = across.start, down.start, across.stop, down.stop
    return boxes


def positions(h: Tensor, boxes: np.ndarray, size: int, seed: int, needed: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Return activations inside the boxes, as many from outside in the same images, and which is which.

    h (N, C, H, W) of one layer of G, boxes (N, 4) in an image of side `size` -> (M, C) and (M,) bool. A position is
    inside where a box covers more than half of it. Raises ValueError where fewer than `needed` images have a box, and
    where no position lies inside one.
    """
    there = ~np.isnan(boxes).any(1)
    if there.sum() < needed:
        raise ValueError(f"{there.sum()} boxes found in {len(boxes)} samples, {needed} needed: draw more samples")
    cover = covered(to_masks(boxes[there], size), h.shape[-1])
    rng = np.random.default_rng(chance.stream(seed, "positions"))
    rows, labels = [], []
    for activations, inside in zip(h[torch.from_numpy(there)].cpu().flatten(2).mT, cover, strict=True):
        outside = np.flatnonzero(~inside)
        chosen = rng.choice(outside, min(len(outside), int(inside.sum())), replace=False)
        rows += [activations[inside], activations[chosen]]
        labels += [np.ones(int(inside.sum()), bool), np.zeros(len(chosen), bool)]
    return torch.cat(rows).numpy(), np.concatenate(labels)


def covered(masks: Tensor, grid: int) -> Tensor:
    """Tell of which positions of a grid more than half is covered: (N, S, S) bool -> (N, grid * grid) bool.

    Raises ValueError where no object of any image is so large: G's maps there are too coarse for it.
    """
    cover = F.adaptive_avg_pool2d(masks[:, None].float(), grid).flatten(1) > 0.5
    if not cover.any():
        raise ValueError(f"no box covers half a position of {grid} x {grid} maps: take a layer nearer to the image")
    return cover


def rank_maps(rows: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return each map's weight for the object, by logistic regression: (M, C), (M,) -> (C,)."""
    return LogisticRegression(max_iter=2000).fit(rows, inside).coef_[0]


@torch.no_grad()
def draw(G: Generator, z: Tensor, layer: int, without: Sequence[int] = ()) -> Tensor:
    """Draw z (N, nz) with some maps of a layer zeroed at all positions -> (N, nc, size, size).

    layer: index into `G.activations`, from 0, the projection; the image is none. Raises ValueError that lists the
    layers or the maps there are.
    """
    if not 0 <= layer < len(G.layers):
        raise ValueError(f"layer {layer}: G has 0 (its projection) to {len(G.layers) - 1} below the image")
    h = G.project(z)
    for i, module in enumerate(G.layers):
        if i == layer:
            if len(without) and not 0 <= min(without) <= max(without) < h.shape[1]:
                raise ValueError(f"maps {min(without)} to {max(without)}: layer {layer} has 0 to {h.shape[1] - 1}")
            h[:, list(without)] = 0
        h = module(h)
    return h


def gap(ours: Sequence[float], lots: Sequence[Sequence[float]]) -> Interval:
    """Return mean(lots) - mean(ours) with its 95% interval, of the same n samples under L draws of maps: (n,), (L, n).

    Both err: another draw of maps gives another share, and so do other samples, which are compared one by one. Where
    one is NaN (nothing was there to forget) it is left out.
    """
    ours, lots = np.asarray(ours, float), np.asarray(lots, float)
    there = ~np.isnan(ours)
    draws, pairs = lots[:, there].mean(1), lots[:, there].mean(0) - ours[there]
    parts = np.array([part.var(ddof=1) / len(part) for part in (draws, pairs)])
    freedom = parts.sum() ** 2 / (parts**2 / [len(draws) - 1, len(pairs) - 1]).sum() if parts.any() else 1
    reach = stats.t.ppf(0.975, freedom) * parts.sum() ** 0.5
    return Interval(float(pairs.mean()), float(pairs.mean() - reach), float(pairs.mean() + reach))
