"""Moves in G's latent space: walks between points, sums of concepts, and the turn vector (paper, section 6).

Every function returns vectors z; G turns them into images. The paper interpolates linearly, which leaves the
shell on which high-dimensional priors lie, so the spherical way stands beside it.
"""

from itertools import pairwise

import torch
from torch import Tensor

from lib.nets.devices import device_of
from lib.nets.models import Generator
from lib.study import chance


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


def neighbours(y: Tensor, generator: torch.Generator, radius: float = 0.25, n: int = 8) -> Tensor:
    """Surround y by n points with uniform noise of +-radius in each coordinate (paper, Fig 7), y in the middle.

    (nz,) -> (n + 1, nz): with n = 8 a 3 x 3 board read by rows.
    """
    noise = (torch.rand(n + 1, len(y), generator=generator) * 2 - 1) * radius
    noise[n // 2] = 0
    return y + noise.to(y)


def turn(left: Tensor, right: Tensor, steps: int, beyond: float = 0.0) -> Tensor:
    """Interpolate along the turn vector between two concepts' averages (paper, Fig 8): (n, nz), (n, nz) -> (steps, nz).

    beyond: how far past each average to go, as a share of the vector between them.
    """
    t = torch.linspace(-beyond, 1 + beyond, steps, device=left.device)
    return lerp(left.mean(0), right.mean(0), t)
