"""Find samples with wanted attributes, the exemplars of vector arithmetic (paper, section 6.3.2).

Which attributes a sample has is told by a judge (`nets.judges`) or, where nobody labelled the images, by its pixels.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.images import data
from lib.images.data import ImageSet
from lib.internals import fidelity, latent
from lib.nets import judges
from lib.nets.judges import AttributeNet, tell
from lib.nets.models import Discriminator, Generator
from lib.study import chance

LAID = 4000  # images at most that the judge of overlays learns from, and as many overlays of them


def measure(x: Tensor) -> pd.DataFrame:
    """Return what pixels alone say of images that nobody labelled, N rows of 0 or 1: uint8 (N, nc, S, S).

    bright and warm (redder than blue; colour images only): more so than half of the images. light_inside: the middle
    is lighter than the rim, as is a light digit on a dark wall.
    """
    x, rim = x.float(), x.shape[-1] // 4
    inside = x[:, :, rim:-rim, rim:-rim].mean((1, 2, 3))
    found = {"bright": x.mean((1, 2, 3)), "light_inside": inside - x.mean((1, 2, 3))}
    if x.shape[1] == 3:
        found["warm"] = (x[:, 0] - x[:, 2]).mean((1, 2))
    limits = {name: 0 if name == "light_inside" else values.median() for name, values in found.items()}
    return pd.DataFrame({name: (values > limits[name]).int().numpy() for name, values in found.items()})


@torch.no_grad()
def samples_of(G: Generator, z: Tensor) -> ImageSet:
    """Draw z (n, nz) as a set of images that nobody labelled, with what pixels say of them (`measure`)."""
    x = torch.cat([data.to_uint8(G(part)).cpu() for part in z.split(128)])
    return ImageSet("samples", x, torch.full((len(x),), data.UNLABELLED), attributes=measure(x))


def known(images: ImageSet) -> tuple[ImageSet, pd.DataFrame]:
    """Return the images that are labelled, and what is known of them: one column of numbers per attribute or class.

    Attributes count where there are some that differ; else classes do, as 0 and 1. No columns where all images are of
    one kind, or nobody labelled them.
    """
    if images.attributes is not None:
        numbers = images.attributes.select_dtypes(["number", "bool"]).astype(float)
        numbers = numbers.loc[:, numbers.nunique() > 1]
        if len(numbers.columns):
            return images, numbers
    images = images[(images.y != data.UNLABELLED).nonzero().flatten()]
    there = [(name, images.y == i) for i, name in enumerate(images.classes)]
    return images, pd.DataFrame({name: y.double().numpy() for name, y in there if 0 < y.sum() < len(images)})


def require(images: ImageSet, names: Sequence[str]) -> pd.DataFrame:
    """Return these attributes of the images, N rows.

    Raises ValueError where the set does not know one, or one is named twice.
    """
    if twice := [name for name in dict.fromkeys(names) if list(names).count(name) > 1]:
        raise ValueError(f"{', '.join(twice)}: an attribute is named twice")
    there = [] if images.attributes is None else list(images.attributes)
    if missing := [name for name in names if name not in there]:
        knows = f"it knows {', '.join(there)}" if there else "it has no labels"
        raise ValueError(f"{images.name} does not know {', '.join(missing)}: {knows}; name another set as data_set")
    return images.attributes[list(names)]


def truth(images: ImageSet, names: Sequence[str], angle: str = "") -> np.ndarray:
    """Return what a judge learns of images: (N, A), from 0 to 1.

    Which of these attributes each has, and last its angle where a name is given, from -1 to 1 put into that range.
    Raises ValueError for a set that does not know one of them.
    """
    known = require(images, [*names, *filter(None, [angle])]).astype(float).to_numpy()
    return np.column_stack([known[:, : len(names)] > 0, (known[:, len(names) :] + 1) / 2])


def overlays(x: Tensor, n: int, exemplars: int, generator: torch.Generator) -> Tensor:
    """Lay images over each other as a sum in pixel space does: three means of so many, drawn by lot, a - b + c.

    uint8 (N, nc, S, S) -> uint8 (n, nc, S, S).
    """
    lots = torch.randint(len(x), (n, 3, exemplars), generator=generator)
    return torch.stack([data.to_uint8(latent.arithmetic(*(data.to_float(x[rows]) for rows in lot))) for lot in lots])


def fit_judges(
    images: ImageSet, names: Sequence[str], angle: str, epochs: int, exemplars: int, seed: int,
    device: str | torch.device = "cpu",
) -> dict[str, AttributeNet]:  # fmt: skip
    """Train two judges on nine tenths of labelled images, drawn by lot, with their accuracy on the rest.

    attributes: tells these names, and last the angle where one is named, whose accuracy is the squared correlation.
    overlays: tells images laid over each other (`overlays`) from single ones, which the first was never shown.
    """
    lots = {what: torch.Generator().manual_seed(chance.stream(seed, what)) for what in ("held-out", "overlays")}
    known, judged = truth(images, names, angle), [*names, *filter(None, [angle])]
    unseen, seen = torch.randperm(len(images), generator=lots["held-out"]).tensor_split([len(images) // 10])
    judge = judges.fit(images.x[seen], known[seen], judged, epochs, chance.stream(seed, "judge"), device=device)
    told, right = tell(judge, images.x[unseen]).numpy(), known[unseen]
    judge.accuracy = dict(zip(judged, ((told > 0.5) == (right > 0.5)).mean(0).tolist(), strict=True))
    if angle:
        judge.accuracy[angle] = float(np.corrcoef(told[:, -1], right[:, -1])[0, 1] ** 2)
    both, laid = [], []
    for rows in (seen[:LAID], unseen):
        single = images.x[rows]
        both.append(torch.cat([single, overlays(single, len(rows), exemplars, lots["overlays"])]))
        laid.append(np.repeat([[0.0], [1.0]], len(rows), axis=0))
    own = chance.stream(seed, "judge", "overlays")
    whole = judges.fit(both[0], laid[0], ["overlay"], epochs, own, device=device, ndf=16)
    right = (tell(whole, both[1]).numpy() > 0.5) == laid[1]
    whole.accuracy = dict(zip(("single", "overlay"), map(float, right.reshape(2, -1).mean(1)), strict=True))
    return {"attributes": judge, "overlays": whole}


def concepts(sum_: str, names: Sequence[str]) -> tuple[dict[str, dict[str, bool]], dict[str, bool]]:
    """Read a sum such as "glasses > not male": carry glasses from men over to women (paper, Fig. 7).

    Returns the three concepts, label -> attributes wanted (the first minus the second plus the third), and what is
    asked of the result. Attributes of `names` that the sum does not name are wanted absent throughout. Raises
    ValueError for another form and for attributes that are not in `names`.
    """
    carried, arrow, to = (part.strip() for part in sum_.partition(">"))
    context, has = to.removeprefix("not "), not to.startswith("not ")
    if not arrow or carried == context or not {carried, context} <= set(names):
        raise ValueError(f"sum {sum_!r}: say A > B or A > not B with two of {', '.join(names)}")
    rest = dict.fromkeys(names, False)
    three = [rest | {carried: a, context: b} for a, b in ((True, not has), (False, not has), (False, has))]
    labels = [", ".join(n if w[n] else f"no {n}" for n in (carried, context)) for w in three]
    return dict(zip(labels, three, strict=True)), rest | {carried: True, context: has}


def require_told(told: Sequence[str], wanted: Iterable[str]) -> None:
    """Raise ValueError where a judge, such as one that came with a net, does not tell of a wanted attribute."""
    if missing := [name for name in wanted if name not in told]:
        raise ValueError(
            f"the judge does not tell {', '.join(missing)}: it tells {', '.join(told)}; name a data_set that knows it, "
            "and another judge learns from that"
        )


def exemplars(belief: pd.DataFrame, wanted: Mapping[str, bool], needed: int, sure: float = 0.8) -> Tensor:
    """Return the rows of `belief` (N, attributes) that surely have, or lack, each wanted attribute: (n,) int64.

    sure: the least probability. Raises ValueError where fewer than `needed` are found, and says how many were; and
    where belief does not tell of an attribute.
    """
    require_told(belief, wanted)
    agreeing = [belief[name] > sure if has else belief[name] < 1 - sure for name, has in wanted.items()]
    rows = np.flatnonzero(np.logical_and.reduce(agreeing))
    if len(rows) < needed:
        concept = ", ".join(name if has else f"not {name}" for name, has in wanted.items())
        found = f"{len(rows)} exemplars found among {len(belief):,} samples, {needed} needed"
        more = (
            f"samples = {-(-needed * len(belief) // len(rows))} may hold them"
            if len(rows)
            else "draw many more samples"
        )
        raise ValueError(f"{concept}: {found}; {more}")
    return torch.from_numpy(rows)


def draw(pools: Mapping[str, Tensor], most: int, generator: torch.Generator) -> list[Tensor]:
    """Draw fresh exemplars of a sum's three concepts from the rows that show each: three of (most,)."""
    return [rows[torch.randperm(len(rows), generator=generator)[:most]] for rows in pools.values()]


def having(net: AttributeNet, images: Tensor, wanted: Mapping[str, bool]) -> Tensor:
    """Tell which images (N, nc, S, S) have, or lack, every wanted attribute: (N,) bool."""
    columns = [net.names.index(name) for name in wanted]
    return ((tell(net, images)[:, columns] > 0.5) == torch.tensor(list(wanted.values()))).all(1)


def verdicts(
    images: Tensor, came: Mapping[str, AttributeNet], wanted: Mapping[str, bool], D: Discriminator, worth: Tensor
) -> dict[str, Tensor]:
    """Return what each judge says of images (N, nc, S, S), four of (N,) bool and one number each.

    works: the attributes are as wanted. single: it is one photograph and no overlay. face: a detector finds one. rank:
    the share of samples, to which D answered `worth` (M,), that it finds worse.
    """
    works, single = having(came["attributes"], images, wanted), tell(came["overlays"], images)[:, 0] < 0.5
    told = {"works": works, "single": single, "works and is single": works & single}
    with torch.no_grad():
        rank = (D(images)[:, None] > worth).float().mean(1).cpu()
    return told | {"face": fidelity.has_face(images), "rank": rank}


def trials(
    name: str, made: Mapping[str, Tensor], came: Mapping[str, AttributeNet], wanted: Mapping[str, bool],
    D: Discriminator, worth: Tensor,
) -> pd.DataFrame:  # fmt: skip
    """Return the judges' verdicts on the results of a sum, by way of making them: an index of draw, way, sum."""
    told = {(way, name): pd.DataFrame(verdicts(images, came, wanted, D, worth)) for way, images in made.items()}
    return pd.concat(told, names=["way", "sum", "draw"]).reorder_levels(["draw", "way", "sum"])


def angle(images: Tensor, judge: AttributeNet, yaw: str = "") -> Tensor:
    """Tell where heads look, from -1, the image's left, to 1, its right: images (N, nc, S, S) -> (N,).

    By the judge where it learned such an attribute, called yaw; else by a detector.
    """
    require_told(judge.names, filter(None, [yaw]))
    return tell(judge, images)[:, judge.names.index(yaw)] * 2 - 1 if yaw else fidelity.turned(images)


def angles(ways: Mapping[str, Tensor], judge: AttributeNet, yaw: str = "") -> pd.DataFrame:
    """Tell where heads look along ways (pairs, steps, nc, S, S) each: a row for each (way, pair), a column a place."""
    told = {way: angle(x.flatten(0, 1), judge, yaw).view(x.shape[:2]).numpy() for way, x in ways.items()}
    frames = {way: pd.DataFrame(rows).rename_axis("place", axis=1) for way, rows in told.items()}
    return pd.concat(frames, names=["way", "pair"])


def sides(angles: Tensor) -> list[Tensor]:
    """Return the rows of those that surely look to the left, and to the right: angles (N,) -> two of (n,) int64."""
    right = pd.DataFrame({"right": (angles.numpy() + 1) / 2})
    return [exemplars(right, {"right": side}, 0) for side in (False, True)]
