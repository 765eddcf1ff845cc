"""Minimise the squared-hinge objective of many classes at once, reading the features block by block.

`probe.L2SVM` is the classifier; this is its solver, a truncated Newton method with a line search. What it minimises,
and how it knows when to stop, stands in `probe`.

A net's features are far from independent: a few hundred directions hold nearly all of X'X, and conjugate gradients
that do not know them need thousands of passes. So X'X is sketched once, by its products with random directions
(Nyström's method, after Frangella, Tropp and Udell 2023), and the sketch preconditions every class, step and C.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lib.probe.blocks import Blocks, in_smaller_blocks
from lib.study import chance

RANK = 256  # directions of the sketch: one pass, as dear as some 20 of those that follow
CG_STEPS = 300  # most conjugate-gradient steps in one Newton step
TOO_LARGE = "the features are too large: the objective overflows; scale them down"
PATIENCE = 5  # Newton steps without progress after which float32 has given what it can


class Problem:
    """The one-against-rest objectives of all classes: weights (K, F + 1), the last one the constant feature's."""

    def __init__(self, blocks: Blocks, positive: Tensor, C: float) -> None:
        self.blocks, self.C = blocks, C
        self.y = positive.to(blocks.device, torch.float64) * 2 - 1  # (N, K)
        if blocks.spectrum is None:
            blocks.turn()
            blocks.spectrum = self._sketch()

    @in_smaller_blocks
    def evaluate(self, W: Tensor, live: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each live class's objective (K,), gradient (K, F + 1) and f (N, K), in one pass over the data."""
        y, V = self.y[:, live], W[:, :-1].to(self.blocks.dtype)
        f = torch.empty_like(y)

        def work(blocks: Iterator[tuple[slice, Tensor]]) -> tuple[Tensor, ...]:
            loss, data, bias = (torch.zeros_like(t, dtype=torch.float64) for t in (W[:, 0], V, W[:, 0]))
            for span, block in blocks:
                f[span] = (V @ block.T).T.double() + W[:, -1]
                lack = (1 - y[span] * f[span]).clamp_(min=0)  # (rows, K)
                error = lack * y[span]
                loss += lack.square().sum(0)
                data += error.to(block.dtype).T @ block
                bias += error.sum(0)
            return loss, data, bias

        loss, data, bias = self.blocks.sum(work)
        pull = torch.cat([data, bias[:, None]], 1)
        return 0.5 * W.square().sum(1) + self.C * loss, W - 2 * self.C * pull, f

    @in_smaller_blocks
    def multiply(self, P: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return Hessian times P (K, F + 1), and the rows' XP (N, K); active (N, K) marks rows inside the margin."""
        V, XP = P[:, :-1].to(self.blocks.dtype), torch.empty_like(active, dtype=torch.float64)

        def work(blocks: Iterator[tuple[slice, Tensor]]) -> tuple[Tensor]:
            out = torch.zeros_like(V)
            for span, block in blocks:
                product = (V @ block.T).T.double() + P[:, -1]  # V first: the faster way round
                XP[span] = product
                out.addmm_((product * active[span]).to(block.dtype).T, block)
            return (out,)

        out = self.blocks.sum(work)[0]
        bias = (XP * active).sum(0)
        return P + 2 * self.C * torch.cat([out.double(), bias[:, None]], 1), XP

    def _sketch(self) -> tuple[Tensor, Tensor, float]:
        """Return X'X's leading directions (F + 1, r), what it does to them (r,), and its mean effect on all others."""
        n, width = len(self.y), self.blocks.X.shape[1] + 1
        generator = torch.Generator().manual_seed(chance.stream(0, "sketch"))
        random = torch.randn(width, min(RANK, n, width), dtype=torch.float64, generator=generator)
        Q = torch.linalg.qr(random.to(self.y.device))[0]  # (F + 1, r)
        H, XQ = self.multiply(Q.T.contiguous(), Q.new_ones(1, 1).expand(n, Q.shape[1]))
        squares = self.blocks.sum(lambda blocks: (sum(block.square().sum().double() for _, block in blocks),))[0]
        if not (XQ.isfinite().all() and squares.isfinite()):
            raise ValueError(TOO_LARGE)
        Y = (H.T - Q) / (2 * self.C)  # X'X Q
        core, V = torch.linalg.eigh(XQ.T @ XQ)
        kept = core > 10 * torch.finfo(self.blocks.dtype).eps * core.max()  # the rest is rounding
        B = Y @ (V[:, kept] / core[kept].sqrt())  # BB' is near X'X, and nowhere above it
        values, V = torch.linalg.eigh(B.T @ B)
        rest = squares + n - values.sum()
        return B @ (V / values.sqrt()), values, float(rest.clamp(min=0)) / max(1, width - len(values))

    def precondition(self, R: Tensor, share: Tensor) -> Tensor:
        """Return about what the inverse Hessians make of R (K, F + 1), with a share (K,) of the rows active."""
        U, values, rest = self.blocks.spectrum
        weight = 2 * self.C * share[:, None]  # (K, 1)
        other = 1 / (1 + weight * rest)
        return other * R + ((R @ U) * (1 / (1 + weight * values) - other)) @ U.T


def newton(
    problem: Problem, start: Tensor | None, tol: float, max_iter: int
) -> tuple[Tensor, dict[str, np.ndarray | int]]:
    """Minimise each class's objective by truncated Newton steps, with exact line searches; drop those that converge."""
    K = problem.y.shape[1]
    problem.blocks.dtype = problem.blocks.native
    W = torch.zeros(K, problem.blocks.X.shape[1] + 1, dtype=torch.float64, device=problem.blocks.device)
    if start is not None:
        W.copy_(problem.blocks.to_span(start.to(W.device)))
    objective, gap, best, lowest = (torch.full((K,), torch.inf, dtype=torch.float64, device=W.device) for _ in range(4))
    waited = torch.zeros(K, dtype=torch.long, device=W.device)
    live = torch.arange(K, device=W.device)
    steps = products = 0
    while True:
        objective[live], gradient, f = problem.evaluate(W[live], live)
        if not objective[live].isfinite().all():
            raise ValueError(TOO_LARGE)
        gap[live] = 0.5 * gradient.square().sum(1) / objective[live].clamp(min=1e-300)
        better = (gap[live] < 0.5 * best[live]) | (objective[live] < (1 - 1e-5) * lowest[live])
        waited[live] = torch.where(better, 0, waited[live] + 1)
        best[live] = torch.minimum(best[live], gap[live])
        lowest[live] = torch.minimum(lowest[live], objective[live])
        if (waited[live] >= PATIENCE).any():
            if problem.blocks.dtype == torch.float32:  # rounding hides the rest: go on in float64, block by block
                problem.blocks.dtype = torch.float64
                best[live], waited[live] = torch.inf, 0
                continue
            if (waited[live] >= 4 * PATIENCE).any():
                break
        on = gap[live] > tol
        if steps == max_iter or not on.any():
            break
        live, gradient, f = live[on], gradient[on], f[:, on]
        target = (2 * tol * objective[live]).sqrt()
        step, moved, count = newton_step(problem, gradient, problem.y[:, live], f, target)
        t = line_search(problem, W[live], step, problem.y[:, live], f, moved)
        W[live] += t[:, None] * step
        steps, products = steps + 1, products + count
    report = {"objective_": objective.cpu().numpy(), "gap_": gap.cpu().numpy()}
    return problem.blocks.from_span(W), report | {"n_iter_": max(steps, 1), "n_products_": products}


def newton_step(problem: Problem, gradient: Tensor, y: Tensor, f: Tensor, target: Tensor) -> tuple[Tensor, Tensor, int]:
    """Solve Hessian times step = -gradient roughly, by preconditioned conjugate gradients, for all classes together.

    -> step (K, F + 1), its effect on f (N, K), and the number of products. A class's residual need only be a tenth of
    its gradient, or half of the gradient that it must reach (`target`): more is wasted on a model that will change.
    """
    active = y * f < 1  # (N, K)
    share = active.double().mean(0)
    step, residual = torch.zeros_like(gradient), -gradient
    moved = torch.zeros_like(f)
    direction = problem.precondition(residual, share)
    power = (residual * direction).sum(1)
    enough = torch.maximum(0.1 * gradient.norm(dim=1), 0.5 * target)
    on = torch.arange(len(gradient), device=f.device)
    count = 0
    while len(on) and count < CG_STEPS:
        count += 1
        bent, shift = problem.multiply(direction[on], active[:, on])
        curvature = (direction[on] * bent).sum(1)
        length = power[on] / curvature.clamp(min=1e-300)
        step[on] += length[:, None] * direction[on]
        moved[:, on] += length * shift
        residual[on] -= length[:, None] * bent
        next_direction = problem.precondition(residual[on], share[on])
        next_power = (residual[on] * next_direction).sum(1)
        direction[on] = next_direction + (next_power / power[on].clamp(min=1e-300))[:, None] * direction[on]
        power[on] = next_power
        on = on[(residual[on].norm(dim=1) > enough[on]) & (curvature > 0)]
    return step, moved, count


def line_search(problem: Problem, W: Tensor, step: Tensor, y: Tensor, f: Tensor, moved: Tensor) -> Tensor:
    """Return the t (K,) that minimises the objective along each class's step, without touching the features.

    The slope along the step is piecewise linear and rising: Newton's method on it, kept inside a shrinking bracket.
    """
    linear, quadratic = (W * step).sum(1), step.square().sum(1)
    t = torch.ones_like(linear)
    low, high = torch.zeros_like(t), torch.full_like(t, torch.inf)
    for _ in range(30):
        lack = (1 - y * (f + t * moved)).clamp_(min=0)
        slope = linear + t * quadratic - 2 * problem.C * (lack * y * moved).sum(0)
        bend = quadratic + 2 * problem.C * ((lack > 0) * moved * moved).sum(0)
        low, high = torch.where(slope < 0, t, low), torch.where(slope < 0, high, t)
        middle = torch.where(high.isinf(), 2 * t, (low + high) / 2)
        guess = t - slope / bend.clamp(min=1e-300)
        following = torch.where((guess > low) & (guess < high), guess, middle)
        done = (following - t).abs() <= 1e-6 * t
        t = following
        if done.all():
            break
    return t
