"""Probe features with the paper's regularised linear L2-SVM, at the paper's scale (section 5).

50,000 x 28,672 float32 features are 5.7 GB. liblinear, which the authors used, first makes a float64 copy and then its
own copy of that; report 000 gave up here. The objective is smooth and strongly convex, and needs neither: with targets
y in {-1, 1}, one class against the rest, and f = Xw + b,

    P(w, b) = 0.5 |w|^2 + 0.5 b^2 + C sum_i max(0, 1 - y_i f_i)^2

is minimised for all classes at once by a truncated Newton method, whose every step reads the features in small blocks
of rows, as they are. A block is used twice while it is in the processor's cache: once for f, once for the gradient.
The dual point alpha_i = 2 C max(0, 1 - y_i f_i) has the duality gap 0.5 |gradient of P|^2 exactly, so the solver
can state how far from the minimum it may be, and stops at a stated fraction of P.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import wraps

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from tqdm.auto import tqdm

# the C that the authors' SVHN script tries, on held-out training data
PAPER_CS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)

CG_STEPS = 300  # most conjugate-gradient steps in one Newton step
BLOCK_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}  # a block of rows: as large as the processor's own cache
PATIENCE = 5  # Newton steps without progress after which float32 has given what it can
COPY_BYTES = 2**30  # chosen rows are copied once when they are smaller than this, else gathered block by block


class L2SVM(ClassifierMixin, BaseEstimator):
    """liblinear's L2-penalised squared-hinge SVM, one against the rest, on any features that fit in memory or a map.

    Takes (N, F) NumPy arrays and memory maps, or torch tensors of float16, bfloat16, float32 and float64. float64 is
    computed in float64, all else in float32 (sums that matter in float64), and in float64 blocks where that stalls.

    C: the weight of the errors. tol: stop once each class's duality gap is below `tol` times its objective.
    max_iter: most Newton steps. fit_intercept, intercept_scaling: as in LinearSVC, a constant feature of that value.
    regularise_intercept: penalise it, as liblinear does; if False it is free (the gap is then 0.5 |gradient|^2 only).
    device: "cpu" or "cuda"; by default where the features are. block_rows: rows read at a time, by default a few MB.
    progress: show a bar over Newton steps.

    After `fit`: classes_, coef_ (K, F), intercept_ (K,), objective_ and gap_ (K,; relative), n_iter_, n_products_
    (products of a Hessian with vectors, each one pass over the data), converged_. K is 1 for two classes.
    """

    def __init__(
        self,
        C: float = 1.0,
        tol: float = 1e-6,
        max_iter: int = 100,
        fit_intercept: bool = True,
        intercept_scaling: float = 1.0,
        regularise_intercept: bool = True,
        device: str | None = None,
        block_rows: int | None = None,
        progress: bool = False,
    ) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.regularise_intercept = regularise_intercept
        self.device = device
        self.block_rows = block_rows
        self.progress = progress

    def fit(self, X, y) -> "L2SVM":
        """Fit to X (N, F) and labels y (N,). Raises ValueError for NaN, one class only, C <= 0; warns unconverged."""
        return self._fit(*self._checked(X, y))

    def path(self, X, y, Cs: Sequence[float] = PAPER_CS) -> list["L2SVM"]:
        """Fit one classifier per C, from small to large, each started from the one before."""
        X, y = self._checked(X, y)
        return list(self._path(X, y, Cs))

    def decision_function(self, X) -> np.ndarray:
        """Return f = Xw + b: (N,) for two classes, else (N, K)."""
        check_is_fitted(self)
        return self._decide(self._features(X, reset=False))

    def predict(self, X) -> np.ndarray:
        """Return the class of the largest f: (N,)."""
        check_is_fitted(self)
        return self._label(self._decide(self._features(X, reset=False)))

    def _features(self, X, reset: bool) -> Tensor:
        """Check features and return them as a tensor that shares their memory."""
        if isinstance(X, Tensor):
            if X.ndim != 2 or not X.is_floating_point():
                raise ValueError(f"X is a {X.dtype} tensor of shape {tuple(X.shape)}: expected floats of shape (N, F)")
            if reset:
                self.n_features_in_ = X.shape[1]
            elif X.shape[1] != self.n_features_in_:
                raise ValueError(f"X has {X.shape[1]} features, but L2SVM is expecting {self.n_features_in_} features")
        else:
            kinds = [np.float64, np.float32, np.float16]
            X = share(validate_data(self, X, reset=reset, dtype=kinds, ensure_all_finite=False))
        if min(X.shape) == 0:
            raise ValueError(f"X has shape {tuple(X.shape)}: expected at least one row and one feature")
        return X

    def _checked(self, X, y) -> tuple[Tensor, np.ndarray]:
        """Check parameters, features and labels, before any long work."""
        for name in ("C", "tol", "max_iter", "intercept_scaling"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be a positive number")
        if y is None:
            raise ValueError("L2SVM requires y to be passed, but the target y is None")
        X = self._features(X, reset=True)
        y = column_or_1d(y.cpu() if isinstance(y, Tensor) else y, warn=True)
        if len(y) != len(X):
            raise ValueError(f"{len(X)} rows of features, but {len(y)} labels")
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        check_finite(X)
        return X, y

    def _fit(self, X: Tensor, y: np.ndarray, rows: Tensor | None = None, start: "L2SVM | None" = None) -> "L2SVM":
        """Fit to checked features, or to the chosen rows of them (y is theirs), from another fit's weights."""
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"L2SVM needs samples of at least 2 classes, but y has only one class: {self.classes_}")
        codes = torch.from_numpy(codes)
        positive = codes[:, None] == torch.arange(len(self.classes_)) if len(self.classes_) > 2 else codes[:, None] == 1
        self.n_features_in_ = X.shape[1]
        blocks = Blocks(X, rows, self.device, self.block_rows)
        constant = self.intercept_scaling if self.fit_intercept else 0.0
        problem = Problem(blocks, positive, self.C, constant, self.regularise_intercept)
        first = None if start is None else start._weights().to(blocks.device)
        weights, report = newton(problem, first, self.tol, self.max_iter, self.progress)
        self._store(weights, X.dtype, constant)
        for name, value in report.items():
            setattr(self, name, value)
        open_classes = int((self.gap_ > self.tol).sum())
        self.converged_ = open_classes == 0
        if not self.converged_:
            warnings.warn(
                f"L2SVM(C={self.C:g}) stopped after {self.n_iter_} steps: {open_classes} of {len(self.gap_)} classes "
                f"are above tol={self.tol:g}, with relative gaps of up to {self.gap_.max():.2g}",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _path(self, X: Tensor, y: np.ndarray, Cs: Sequence[float], rows: Tensor | None = None) -> Iterator["L2SVM"]:
        """Yield one fit per C, small to large, each started from the one before."""
        if len(Cs) == 0 or not min(Cs) > 0:
            raise ValueError(f"Cs = {tuple(Cs)}: expected at least one, all positive")
        start = None
        for C in sorted(Cs):
            start = clone(self).set_params(C=C)._fit(X, y, rows, start)
            yield start

    def _store(self, weights: Tensor, dtype: torch.dtype, constant: float) -> None:
        """Keep the solver's (K, F + 1) weights as coef_ and intercept_, float64 only for float64 features."""
        kept = weights.cpu().numpy()
        kept = kept if dtype == torch.float64 else kept.astype(np.float32)
        self.coef_, self.intercept_ = np.ascontiguousarray(kept[:, :-1]), kept[:, -1] * constant

    def _weights(self) -> Tensor:
        """Return coef_ and intercept_ as the solver has them."""
        intercept = self.intercept_ / self.intercept_scaling if self.fit_intercept else self.intercept_
        return torch.from_numpy(np.column_stack([self.coef_, intercept]).astype(np.float64))

    def _decide(self, X: Tensor, rows: Tensor | None = None) -> np.ndarray:
        """Return f of checked features, or of the chosen rows of them."""
        blocks = Blocks(X, rows, self.device, self.block_rows)
        W = torch.from_numpy(self.coef_).to(blocks.device, blocks.dtype)
        f = np.concatenate([(block @ W.T).cpu().numpy() for _, block in blocks]) + self.intercept_
        if not np.isfinite(f).all():
            check_finite(X)
        return f[:, 0] if len(self.coef_) == 1 else f

    def _label(self, f: np.ndarray) -> np.ndarray:
        return self.classes_[(f > 0).astype(int) if f.ndim == 1 else f.argmax(1)]


class Blocks:
    """Features, or chosen rows of them, a few rows at a time, in the type that is computed in and on the device."""

    def __init__(self, X: Tensor, rows: Tensor | None, device: str | None, block_rows: int | None) -> None:
        self.dtype = torch.float64 if X.dtype == torch.float64 else torch.float32
        self.device = torch.device(device or X.device)
        row_bytes = X.shape[1] * X.element_size()
        if rows is not None and len(rows) * row_bytes <= COPY_BYTES:
            X, rows = X[rows.to(X.device)], None
        if self.device != X.device and self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if len(X) * row_bytes < 0.7 * free:  # whole on the GPU, else each block travels in each pass
                X = X.to(self.device)
        self.X, self.rows, self.shrunk = X, rows, False
        size = BLOCK_BYTES["cuda" if self.device.type == "cuda" else "cpu"]
        self.block_rows = block_rows or max(16, size // (4 * X.shape[1]))

    def __len__(self) -> int:
        return len(self.X) if self.rows is None else len(self.rows)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        for at in range(0, len(self), self.block_rows):
            span = slice(at, min(at + self.block_rows, len(self)))
            block = self.X[span] if self.rows is None else self.X[self.rows[span].to(self.X.device)]
            yield span, block.to(self.device, self.dtype)

    def shrink(self) -> None:
        """Halve the blocks after the device ran out of memory; say so the first time."""
        if self.block_rows == 1:
            raise MemoryError(f"{self.device} is out of memory even for one row of {self.X.shape[1]} features")
        self.block_rows //= 2
        torch.cuda.empty_cache()
        if not self.shrunk:
            warnings.warn(f"{self.device} is out of memory: going on with smaller blocks", RuntimeWarning, stacklevel=2)
        self.shrunk = True


def in_smaller_blocks(method: Callable) -> Callable:
    """Repeat a pass over the data in smaller blocks for as long as the device runs out of memory."""

    @wraps(method)
    def repeat(self: "Problem", *arguments):
        while True:
            try:
                return method(self, *arguments)
            except torch.OutOfMemoryError:
                self.blocks.shrink()

    return repeat


class Problem:
    """The one-against-rest objectives of all classes: weights (K, F + 1), the last one the constant feature's."""

    def __init__(self, blocks: Blocks, positive: Tensor, C: float, constant: float, penalise_constant: bool) -> None:
        self.blocks, self.C, self.constant = blocks, C, constant
        self.y = positive.to(blocks.device, torch.float64) * 2 - 1  # (N, K)
        self.penalty = torch.ones(blocks.X.shape[1] + 1, dtype=torch.float64, device=blocks.device)
        if not penalise_constant or not constant:
            self.penalty[-1] = 0
        self.squares = self._sum_over_rows(lambda _, block: (block.square().sum(0),))[0]  # (F,)

    @in_smaller_blocks
    def _sum_over_rows(self, terms: Callable[[slice, Tensor], tuple[Tensor, ...]]) -> list[Tensor]:
        """Sum the terms of every block, in float64."""
        total = None
        for span, block in self.blocks:
            parts = terms(span, block)
            total = (
                [t.double() for t in parts] if total is None else [t.add_(p) for t, p in zip(total, parts, strict=True)]
            )
        return total

    @in_smaller_blocks
    def evaluate(self, W: Tensor, live: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each live class's objective (K,), gradient (K, F + 1) and f (N, K), in one pass over the data."""
        y, V = self.y[:, live], W[:, :-1].to(self.blocks.dtype)
        f = torch.empty_like(y)

        def terms(span: slice, block: Tensor) -> tuple[Tensor, ...]:
            f[span] = (block @ V.T).double() + W[:, -1] * self.constant
            lack = (1 - y[span] * f[span]).clamp_(min=0)  # (rows, K)
            error = lack * y[span]
            return lack.square().sum(0), error.to(block.dtype).T @ block, error.sum(0)

        loss, data, bias = self._sum_over_rows(terms)
        pull = torch.cat([data, bias[:, None] * self.constant], 1)
        return 0.5 * (self.penalty * W * W).sum(1) + self.C * loss, self.penalty * W - 2 * self.C * pull, f

    @in_smaller_blocks
    def multiply(self, P: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return Hessian times P (K, F + 1), and the rows' XP (N, K); active (N, K) marks rows inside the margin."""
        V, XP = P[:, :-1].to(self.blocks.dtype), torch.empty_like(active, dtype=torch.float64)
        out = torch.zeros_like(V)
        for span, block in self.blocks:
            product = (block @ V.T).double() + P[:, -1] * self.constant
            XP[span] = product
            out.addmm_((product * active[span]).to(block.dtype).T, block)
        bias = (XP * active).sum(0) * self.constant
        return self.penalty * P + 2 * self.C * torch.cat([out.double(), bias[:, None]], 1), XP

    def diagonal(self, active: Tensor) -> Tensor:
        """Guess the Hessians' diagonals (K, F + 1): each feature's sum of squares, times the share of active rows."""
        count = active.double().sum(0)
        data = torch.outer(count / len(active), self.squares)
        bias = (count * self.constant**2)[:, None]
        return (self.penalty + 2 * self.C * torch.cat([data, bias], 1)).clamp_(min=1e-12)


def newton(
    problem: Problem, start: Tensor | None, tol: float, max_iter: int, progress: bool
) -> tuple[Tensor, dict[str, np.ndarray | int]]:
    """Minimise each class's objective by truncated Newton steps, with exact line searches; drop those that converge."""
    K = problem.y.shape[1]
    W = torch.zeros(K, len(problem.penalty), dtype=torch.float64, device=problem.blocks.device)
    if start is not None:
        W.copy_(start)
    objective, gap, best, lowest = (torch.full((K,), torch.inf, dtype=torch.float64, device=W.device) for _ in range(4))
    waited = torch.zeros(K, dtype=torch.long, device=W.device)
    live = torch.arange(K, device=W.device)
    steps = products = 0
    with tqdm(total=max_iter, desc=f"L2SVM C={problem.C:g}", disable=not progress, leave=False) as bar:
        while True:
            objective[live], gradient, f = problem.evaluate(W[live], live)
            if not objective[live].isfinite().all():
                raise ValueError("the features are too large: the objective overflows; scale them down")
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
            bar.set_postfix(gap=f"{gap.max():.1e}", classes=len(live))
            on = gap[live] > tol
            if steps == max_iter or not on.any():
                break
            live, gradient, f = live[on], gradient[on], f[:, on]
            target = (2 * tol * objective[live]).sqrt()
            step, moved, count = newton_step(problem, gradient, problem.y[:, live], f, target)
            t = line_search(problem, W[live], step, problem.y[:, live], f, moved)
            W[live] += t[:, None] * step
            steps, products = steps + 1, products + count
            bar.update()
    report = {"objective_": objective.cpu().numpy(), "gap_": gap.cpu().numpy()}
    return W, report | {"n_iter_": max(steps, 1), "n_products_": products}


def newton_step(problem: Problem, gradient: Tensor, y: Tensor, f: Tensor, target: Tensor) -> tuple[Tensor, Tensor, int]:
    """Solve Hessian times step = -gradient roughly, by preconditioned conjugate gradients, for all classes together.

    -> step (K, F + 1), its effect on f (N, K), and the number of products. A class's residual need only be a tenth of
    its gradient, or half of the gradient that it must reach (`target`): more is wasted on a model that will change.
    """
    active = y * f < 1  # (N, K)
    scale = problem.diagonal(active)
    step, residual = torch.zeros_like(gradient), -gradient
    moved = torch.zeros_like(f)
    direction = residual / scale
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
        next_direction = residual[on] / scale[on]
        next_power = (residual[on] * next_direction).sum(1)
        direction[on] = next_direction + (next_power / power[on].clamp(min=1e-300))[:, None] * direction[on]
        power[on] = next_power
        on = on[(residual[on].norm(dim=1) > enough[on]) & (curvature > 0)]
    return step, moved, count


def line_search(problem: Problem, W: Tensor, step: Tensor, y: Tensor, f: Tensor, moved: Tensor) -> Tensor:
    """Return the t (K,) that minimises the objective along each class's step, without touching the features.

    The slope along the step is piecewise linear and rising: Newton's method on it, kept inside a shrinking bracket.
    """
    linear = (problem.penalty * W * step).sum(1)
    quadratic = (problem.penalty * step * step).sum(1)
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


def share(array: np.ndarray) -> Tensor:
    """Return a tensor that shares the array's memory, read-only maps included (nothing here writes to it)."""
    if any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array))


def check_finite(X: Tensor) -> None:
    """Raise ValueError that names the first NaN or infinite feature; reads the features once, in blocks."""
    for span, block in Blocks(X, None, None, None):
        if block.sum().isfinite():
            continue
        for row, column in (~block.isfinite()).nonzero()[:1].tolist():
            what = "NaN" if block[row, column].isnan() else "infinity"
            raise ValueError(f"Input X contains {what}: row {span.start + row}, column {column}")


def choose_C(
    X, y, Cs: Sequence[float] = PAPER_CS, held_out: float | tuple = 0.2, seed: int = 0, **svm
) -> tuple[float, pd.DataFrame]:
    """Return the C of the best accuracy on held-out training data (the smallest of equals), and all that were tried.

    held_out is a share of the rows, drawn from `seed` class by class, or a labelled set (X, y) of its own. Nothing is
    copied: rows are held out where they lie. `svm` are L2SVM's parameters. The frame: C, accuracy, n_iter, converged.
    """
    model = L2SVM(**svm)
    X, y = model._checked(X, y)
    if isinstance(held_out, tuple):
        model.n_features_in_, rows = X.shape[1], None
        X_held, y_held, y_fit = model._features(held_out[0], reset=False), np.asarray(held_out[1]), y
        held = None
    else:
        if not 0 < held_out < 1:
            raise ValueError(f"held_out = {held_out!r}: expected a share between 0 and 1, or a labelled set (X, y)")
        fitted, kept = train_test_split(np.arange(len(y)), test_size=held_out, random_state=seed, stratify=y)
        rows, held = (torch.from_numpy(np.sort(part)) for part in (fitted, kept))
        X_held, y_held, y_fit = X, y[held.numpy()], y[rows.numpy()]
    table = []
    for fit in model._path(X, y_fit, Cs, rows):
        accuracy = float(np.mean(fit._label(fit._decide(X_held, held)) == y_held))
        table.append({"C": fit.C, "accuracy": accuracy, "n_iter": fit.n_iter_, "converged": fit.converged_})
    table = pd.DataFrame(table)
    return float(table.C[table.accuracy.idxmax()]), table


def draw_per_class(y, per_class: int, seed: int = 0) -> np.ndarray:
    """Draw the rows of `per_class` labels of each class: indices in rising order, (K * per_class,).

    Labels may be numbers or strings; -1 means unlabelled and is no class. Raises ValueError where a class has too few.
    """
    y = np.asarray(y)
    if per_class < 1:
        raise ValueError(f"per_class = {per_class}: must be at least 1")
    random, drawn = np.random.default_rng(seed), []
    for label in np.unique(y[labelled(y)]):
        rows = np.flatnonzero(y == label)
        if len(rows) < per_class:
            raise ValueError(f"class {label} has {len(rows)} labels: {per_class} per class were asked for")
        drawn.append(random.choice(rows, per_class, replace=False))
    if not drawn:
        raise ValueError("no labels to draw from: every row is unlabelled (-1)")
    return np.sort(np.concatenate(drawn))


def labelled(y: np.ndarray) -> np.ndarray:
    """Mark the rows whose label is not -1: (N,) bool."""
    return y != -1 if np.issubdtype(y.dtype, np.number) else np.ones(len(y), dtype=bool)


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Return mean, low and high of the t-interval for the mean over draws; low and high are NaN for a single draw."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def probe_few_labels(
    X,
    y,
    X_test,
    y_test,
    per_class: int,
    draws: int,
    Cs: Sequence[float] = PAPER_CS,
    seed: int = 0,
    held_out: int = 2000,
    **svm,
) -> pd.DataFrame:
    """Fit on few labels and test, over several draws of the labels (paper: 400 per class of CIFAR-10; 1,000 of SVHN).

    As in the authors' SVHN script, C is chosen on labelled training images that are not in the draw: at most
    `held_out` of them, drawn anew each time. One row per draw: draw, accuracy (on the test set), C, n_labels,
    n_held_out, n_iter, converged (of the fit that was chosen), degenerate. A single C needs no held-out images.
    """
    y, y_test = np.asarray(y), np.asarray(y_test)
    X = share(X) if isinstance(X, np.ndarray) else X
    table = []
    for draw in range(draws):
        chosen = draw_per_class(y, per_class, seed + draw)
        rest = np.setdiff1d(np.flatnonzero(labelled(y)), chosen)
        if len(Cs) > 1 and not len(rest):
            raise ValueError(
                "every labelled image is in the draw: none is left to choose C on; draw fewer or give one C"
            )
        random = np.random.default_rng([seed + draw, 1])
        rest = np.sort(random.choice(rest, min(held_out, len(rest)), replace=False))
        model = L2SVM(**svm)
        fits = model.path(X[torch.from_numpy(chosen)], y[chosen], Cs)
        best = fits[0]
        if len(fits) > 1:
            X_held = X[torch.from_numpy(rest)]
            best = max(fits, key=lambda fit: np.mean(fit.predict(X_held) == y[rest]))
        predicted = best.predict(X_test)
        table.append(
            {
                "draw": draw,
                "accuracy": float(np.mean(predicted == y_test)),
                "C": best.C,
                "n_labels": len(chosen),
                "n_held_out": len(rest) if len(fits) > 1 else 0,
                "n_iter": best.n_iter_,
                "converged": best.converged_,
                "degenerate": degenerate(predicted, y_test),
            }
        )
    return pd.DataFrame(table)


def degenerate(y_pred, y_true) -> bool:
    """Say whether a classifier is worth nothing: one class predicted, or as many right as the majority class has."""
    y_pred, y_true = np.asarray(y_pred), np.asarray(y_true)
    majority = np.unique(y_true, return_counts=True)[1].max()
    return len(np.unique(y_pred)) == 1 or int((y_pred == y_true).sum()) == int(majority)
