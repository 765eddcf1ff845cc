"""Moves in G's latent space: walks between points, sums of concepts, and the turn vector (paper, section 6).

Every function returns vectors z; G turns them into images. The paper interpolates linearly, which leaves the
shell on which high-dimensional priors lie, so the spherical way stands beside it.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from lib.nets.devices import device_of
from lib.nets.models import Generator
from lib.study import chance

CONTROLS = ("random direction", "shuffled concept", "wrong signs")  # what sums have to beat


def points(G: Generator, n: int, seed: int, *purpose: str | int) -> Tensor:
    """Draw n vectors from G's prior for one purpose, from a stream of its own: (n, nz), on G's device."""
    generator = torch.Generator().manual_seed(chance.stream(seed, "z", *purpose))
    return G.sample_z(n, generator).to(device_of(G))


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Interpolate linearly: (nz,), (nz,), (T,) -> (T, nz); a at t = 0 and b at t = 1."""
    return torch.lerp(a, b, t.unsqueeze(1))


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Interpolate on the arc from a to b, the length going evenly from |a| to |b|: (nz,), (nz,), (T,) -> (T, nz).

    Directions turn at an even angle (Shoemake 1985). Parallel vectors fall back to `lerp`. Opposite ones have no
    single arc, and the origin has no direction: ValueError.
    """
    t = t.unsqueeze(1)
    norm_a, norm_b = a.norm(), b.norm()
    if not norm_a * norm_b:
        raise ValueError("a vector of zeros has no direction: interpolate linearly")
    cosine = (a @ b / (norm_a * norm_b)).clamp(-1, 1)
    angle = cosine.arccos()
    if angle < 1e-4:
        return torch.lerp(a, b, t)
    if torch.pi - angle < 1e-4:
        raise ValueError("opposite vectors have no single arc between them: interpolate linearly")
    direction = (((1 - t) * angle).sin() * a / norm_a + (t * angle).sin() * b / norm_b) / angle.sin()
    return direction * torch.lerp(norm_a, norm_b, t)  # (T, nz)


WAYS = {"linear": lerp, "spherical": slerp}


def walk(stops: Tensor, steps: int, way: str = "linear") -> Tensor:
    """Walk through a series of points, `steps` images from each to the next (paper, Fig 4: nine random points).

    (K, nz) -> ((K - 1) * steps + 1, nz); row i * steps is stop i. Raises ValueError for an unknown way, fewer than
    two stops or fewer than one step.
    """
    if way not in WAYS:
        raise ValueError(f"unknown way {way!r}: choose one of {', '.join(WAYS)}")
    if len(stops) < 2 or steps < 1:
        raise ValueError(f"a walk needs two stops and one step at least, not {len(stops)} and {steps}")
    t = torch.arange(steps, device=stops.device) / steps
    legs = [WAYS[way](a, b, t) for a, b in pairwise(stops)]
    return torch.cat([*legs, stops[-1:]])


def jumps(walks: Tensor) -> Tensor:
    """Return each walk's longest step over its median step: (K, T, ...) -> (K,); 1 is an even walk.

    walks: images or features of K walks of T places; a step is the Euclidean distance between neighbours. Raises
    ValueError for a walk that stands still for half of its steps or more: it has no median step to compare with.
    """
    lengths = walks.diff(dim=1).flatten(2).norm(dim=2)  # (K, T - 1)
    usual = lengths.median(1).values
    if not usual.all():
        raise ValueError(f"{int((usual == 0).sum())} of {len(walks)} walks stand still: G draws one image there")
    return lengths.amax(1) / usual


def arithmetic(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return mean(a) - mean(b) + mean(c) over each concept's exemplars (paper, Fig 7): three of (n, nz) -> (nz,).

    With n exemplars each the sum has (3 / n) times the prior's variance: n = 3 restores it exactly.
    """
    return a.mean(0) - b.mean(0) + c.mean(0)


def sums(values: Tensor, picked: Sequence[Sequence[Tensor]], n: int) -> Tensor:
    """Return the sum of n exemplars of each concept, over z or over pixels: (N, ...) -> (sums, ...).

    picked: of each sum the rows of its three concepts' exemplars. Raises ValueError for fewer than n of one.
    """
    if (least := min(len(rows) for concepts in picked for rows in concepts)) < n:
        raise ValueError(f"means of {n} exemplars, and {least} were drawn of a concept: raise most, or lower exemplars")
    return torch.stack([arithmetic(*(values[rows[:n]] for rows in concepts)) for concepts in picked])


@torch.no_grad()
def board(G: Generator, y: Tensor, generator: torch.Generator) -> Tensor:
    """Draw y (nz,) in the middle of a board of 3 x 3, noise of +-0.25 in each coordinate around it (paper, Fig 7).

    -> (9, nc, size, size).
    """
    noise = (torch.rand(9, len(y), generator=generator) * 2 - 1) * 0.25
    noise[4] = 0
    return G(y + noise.to(y))


def controls(z: Tensor, picked: Sequence[Sequence[Tensor]], n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return what sums of n exemplars have to beat: three of (sums, nz).

    picked: of each sum the rows of z that show its three concepts, n of each at least. The third mean plus a random
    direction as long as the difference of the first two; and plus that of their exemplars, shuffled. Wrong signs, as
    report 002 has them: the first mean plus the second, which is to show the third.
    """
    first, second, third = (torch.stack([z[rows[i][:n]].mean(0) for rows in picked]) for i in range(3))
    anywhere = F.normalize(torch.randn(third.shape, generator=generator), dim=1).to(z)
    both = [torch.cat([rows[0][: 2 * n], rows[1][: 2 * n]]) for rows in picked]
    mixed = [rows[torch.randperm(len(rows), generator=generator)] for rows in both]
    shuffled = torch.stack([z[rows[:n]].mean(0) - z[rows[n : 2 * n]].mean(0) for rows in mixed])
    along = third + (first - second).norm(dim=1, keepdim=True) * anywhere
    return dict(zip(CONTROLS, (along, third + shuffled, first + second), strict=True))


def turn(left: Tensor, right: Tensor, start: Tensor, steps: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return ways that should turn heads from left to right, and one that should not (paper, Fig 8).

    left, right: averages of samples that look there; start: samples; (pairs, nz) each -> (pairs, steps, nz) each. From
    average to average; the turn vector, from the one average to the other, taken from a sample to begin with and added
    to it in the end; and the same with a random direction as long.
    """
    vector = right - left
    anywhere = F.normalize(torch.randn(vector.shape, generator=generator), dim=1).to(vector)
    anywhere *= vector.norm(dim=1, keepdim=True)
    ends = {
        "turn": (left, right),
        "turn added to samples": (start - vector, start + vector),
        "random direction added to samples": (start - anywhere, start + anywhere),
    }
    t = torch.linspace(0, 1, steps, device=left.device)[:, None]
    return {way: torch.lerp(a[:, None], b[:, None], t) for way, (a, b) in ends.items()}


@torch.no_grad()
def turns(
    G: Generator, z: Tensor, left: Tensor, right: Tensor, steps: int, seed: int, n: int = 4, most: int = 20
) -> dict[str, Tensor]:
    """Draw the ways of `turn` between averages of n rows of z each (paper, Fig 8: four looking left, four right).

    left (k,), right (l,) -> (pairs, steps, nc, size, size) each, as many pairs as there are whole groups on both sides,
    `most` at most.
    """
    pairs = min(len(left) // n, len(right) // n, most)
    means = (z[rows[: pairs * n]].unflatten(0, (pairs, n)).mean(1) for rows in (left, right))
    generator = torch.Generator().manual_seed(chance.stream(seed, "turn"))
    ways = turn(*means, points(G, pairs, seed, "turned"), steps, generator)
    return {name: torch.stack([G(way) for way in of_pairs]) for name, of_pairs in ways.items()}


def rising(along: ArrayLike) -> np.ndarray:
    """Return Spearman's rank correlation of what is measured along a way with the place: (ways, steps) -> (ways,).

    1: it rises all the way; 0 where it does not change at all.
    """
    ranks = stats.rankdata(along, axis=1)
    ranks, place = ranks - ranks.mean(1, keepdims=True), np.arange(ranks.shape[1]) - (ranks.shape[1] - 1) / 2
    length = np.linalg.norm(ranks, axis=1) * np.linalg.norm(place)
    return (ranks * place).sum(1) / np.where(length, length, 1)
