"""Ask whether G repeats its training images.

Report 004 asks for the nearest training images of samples. A distance says nothing alone: held-out real images, which
nobody can have memorised, have nearest training images too, and a G that memorised on purpose shows what it looks like.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from lib.images import data
from lib.internals import fidelity
from lib.nets import batchnorm, models, supervised
from lib.nets.models import Description, Generator
from lib.study import chance
from lib.study.chance import Interval

PART = 8192  # rows of a set whose distances are taken at once
BATCH = 64  # codes of a minibatch, while the control memorises
NOISE = 0.3  # of a stored code's variance: how far around it a memorised image reaches


def nearest(
    queries: Tensor,
    training: Tensor,
    shift: int = 0,
    to: Callable[[Tensor], Tensor] = Tensor.float,
    rows: Tensor | None = None,
    mirrored: bool = False,
    device: str | torch.device = "cpu",
) -> tuple[Tensor, Tensor]:
    """Return each query's distance to its nearest training row, and which that is: (Q, ...), (N, ...) -> (Q,), (Q,).

    Euclidean over all of a row's values; images are uint8, or float in [-1, 1]. shift: also try images (Q, C, H, W)
    moved by up to so many pixels each way, their edges repeated. to: compare in these features, (n, ...) -> (n, F).
    rows: of the training images, look at these alone. mirrored: also try images as in a mirror, where that is how the
    net saw half of them. Training rows are gathered, and their features taken, part by
    part on the device, so that its memory does not grow with the set.
    """
    rows = torch.arange(len(training)) if rows is None else rows
    queries = data.to_float(queries.to(device))
    moved = [queries]
    if shift:
        padded = F.pad(queries, (shift,) * 4, mode="replicate")
        side, steps = queries.shape[-1], range(2 * shift + 1)
        moved = [padded[:, :, i : i + side, j : j + side] for i in steps for j in steps]
    if mirrored:
        moved += [x.flip(-1) for x in moved]
    moved = [to(x).to(device).flatten(1) for x in moved]
    distances, found = torch.full((len(queries),), torch.inf), torch.zeros(len(queries), dtype=torch.long)
    for part in rows.split(PART):
        base = to(data.to_float(training[part].to(device))).to(device).flatten(1)
        for x in moved:
            near, row = (value.cpu() for value in torch.cdist(x, base).min(1))
            found = torch.where(near < distances, part[row], found)
            distances = torch.minimum(near, distances)
    return distances, found


def ratio_of_medians(a: Tensor, b: Tensor, seed: int) -> Interval:
    """Return median(a) / median(b) with its 95% bootstrap interval: (n,), (m,)."""

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.median(a, axis) / np.median(b, axis)

    a, b, rng = a.double().numpy(), b.double().numpy(), np.random.default_rng(chance.stream(seed, "bootstrap"))
    reach = stats.bootstrap((a, b), ratio, method="percentile", rng=rng).confidence_interval
    return Interval(float(ratio(a, b)), float(reach.low), float(reach.high))


def nearest_other(x: Tensor) -> Tensor:
    """Return each image's distance to the nearest of the others: (N, ...), uint8 or in [-1, 1] -> (N,).

    Features are taken as they are. Compares all pairs: for thousands of images.
    """
    flat = data.to_float(x).flatten(1)
    return torch.cdist(flat, flat).fill_diagonal_(torch.inf).min(1).values


def excess(distances: Tensor, control: Tensor, quantile: float = 0.01) -> Interval:
    """Return which share of distances (n,) is less than nearly all of the control's (m,), and what is more than its.

    Nearly all: but for the given share of them, which is taken off. 0 where both are alike; a share p of copies, which
    medians do not see, gives p. A quantile of 0: nearer than any of the control's.
    """
    limit = control.sort().values[max(1, round(quantile * len(control)))]
    return gap(distances < limit, control < limit)


def gap(ours: Tensor, theirs: Tensor) -> Interval:
    """Return the share of (n,) minus the share of (m,) with Newcombe's 95% interval (1998), of two Wilson intervals."""
    ours, theirs = (chance.interval_of_share(side.numpy()) for side in (ours, theirs))
    gap = ours.mean - theirs.mean
    low = gap - math.hypot(ours.mean - ours.low, theirs.high - theirs.mean)
    return Interval(gap, low, gap + math.hypot(ours.high - ours.mean, theirs.mean - theirs.low))


def signs(
    rows: Tensor, control: Tensor, near: Mapping[str, Tensor], spaces: Mapping[str, Tensor], real: Tensor, fixed: str
) -> dict[str, Interval]:
    """Return each sign that samples copy or repeat, beside new images: 0 where they are as those, a failure above 0.

    rows, control: which of P images the samples are, and as many new ones. near: by space, the distance of all (P,) to
    their nearest training image. spaces: all of them in each space (P, ...); in the one called `fixed` precision and
    recall are taken against training images real (R, F).

    copies: the share that lies nearer to a training image than all but a hundredth of new images do. repeats: the same
    to another sample. twins: nearer to another than any two new images are. precision: what training images cover
    more of samples than of new images. lost recall: what samples cover less of training images than new images do.
    """
    found = {f"copies, {space}": excess(d[rows], d[control]) for space, d in near.items()}
    for space, x in spaces.items():
        ours, theirs = nearest_other(x[rows]), nearest_other(x[control])
        found |= {f"repeats, {space}": excess(ours, theirs), f"twins, {space}": excess(ours, theirs, quantile=0)}
    a, b = (spaces[fixed][some] for some in (rows, control))
    found["precision"] = gap(fidelity.covered(a, real), fidelity.covered(b, real))
    kept = (fidelity.covered(real, some).double() for some in (b, a))
    return found | {"lost recall": chance.interval_of_mean(next(kept) - next(kept))}


def power(
    ask: Callable[[Tensor, Tensor], dict[str, Interval]], new: Tensor, control: Tensor, copies: Tensor,
    shares: Sequence[float] = (0.0, 0.01, 0.02, 0.05, 0.1),
) -> dict[tuple[str, str, float], Interval]:  # fmt: skip
    """Plant shares of copies, and of one image again and again, among new images: (sign, kind, share) -> what it says.

    ask: `signs` of rows beside a control. new, control (n,), copies (k,): rows; `new` stand for samples of a good G.
    """
    found = {}
    for share in shares:
        some = round(share * len(new))
        for kind, planted in {"copies": copies[:some], "repeats": new[:1].expand(some)}.items():
            told = ask(torch.cat([planted, new[len(planted) :]]), control)
            found |= {(sign, kind, share): interval for sign, interval in told.items()}
    return found


def least_found(power: Mapping[tuple[str, str, float], Interval]) -> pd.Series:
    """Return the least planted share from which on a sign's interval lies above 0, by (sign, kind): NaN where none."""
    seen = pd.Series({key: interval.low > 0 for key, interval in power.items()}).unstack().sort_index(axis=1)
    planted = seen.loc[:, seen.columns > 0]
    return planted.apply(lambda row: next((share for share in row.index if row[share:].all()), math.nan), axis=1)


def memorise(
    description: Description, x: Tensor, steps: int, seed: int, device: str | torch.device = "cpu"
) -> tuple[Generator, Tensor]:
    """Fit a G that stores uint8 images x (N, nc, S, S) and nothing else; return it and each image's code (N, nz).

    Adversarial training on a few images does not get there in minutes; this G is fitted by reconstruction, one code per
    image, with noise around the codes, so that each image has a region of the latent space to itself. Raises ValueError
    where x does not fit the net or is a single image.
    """
    models.require_fit(x, (description.nc, description.size, description.size))
    own = chance.stream(seed, "memorised")
    G, generator = models.from_description(description, own)[0], torch.Generator().manual_seed(chance.stream(own, "z"))
    codes = G.sample_z(len(x), generator)
    supervised.fit(
        G, codes, x, steps / (len(x) // min(BATCH, len(x))), lr=5e-3, weight_decay=0, batch_size=BATCH, seed=own,
        device=device, augment=lambda codes: recall(G, codes, generator),
        loss_of=lambda made, x: F.l1_loss(made, data.to_float(x)),
    )  # fmt: skip
    G = G.to(memory_format=torch.contiguous_format)
    around = recall(G, codes[torch.randint(len(x), (2048,), generator=generator)], generator)
    return batchnorm.recalibrate_batchnorm(G, around), codes


def recall(G: Generator, codes: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a vector around each of these codes, as long as the prior's: (n, nz) -> (n, nz)."""
    return (1 - NOISE) ** 0.5 * codes + NOISE**0.5 * G.sample_z(len(codes), generator)
