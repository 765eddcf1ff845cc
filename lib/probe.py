"""Probe features with the paper's regularised linear L2-SVM, at the paper's scale (section 5).

50,000 x 28,672 float32 features are 5.7 GB. liblinear, which the authors used, first makes a float64 copy and then its
own copy of that; report 000 gave up here. The objective is smooth and strongly convex, and needs neither: with targets
y in {-1, 1}, one class against the rest, and f = Xw + b,

    P(w, b) = 0.5 |w|^2 + 0.5 b^2 + C sum_i max(0, 1 - y_i f_i)^2

is minimised for all classes at once by a truncated Newton method, whose every step reads the features in small blocks
of rows, as they are (a few rows of many features: once, see `newton`). A block is used twice while it is in the
processor's cache: once for f, once for the gradient.
The dual point alpha_i = 2 C max(0, 1 - y_i f_i) has the duality gap 0.5 |gradient of P|^2 exactly, so the solver
can state how far from the minimum it may be, and stops at a stated fraction of P.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from lib import intervals
from lib.newton import Blocks, Problem, newton
from lib.results import Run

# the C that the authors' SVHN script tries, on held-out training data
PAPER_CS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)


class L2SVM(ClassifierMixin, BaseEstimator):
    """liblinear's L2-penalised squared-hinge SVM, one against the rest, on any features that fit in memory or a map.

    Takes (N, F) NumPy arrays and memory maps, or torch tensors of float16, bfloat16, float32 and float64. float64 is
    computed in float64, all else in float32 (sums that matter in float64), and in float64 blocks where that stalls.
    A few rows of many features (at most `newton.FEW_ROWS`) are copied and computed in float64 whatever they are.

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
        X, y = self._checked(X, y)
        return self._fit(self._blocks(X), y)

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

    def _blocks(self, X: Tensor, rows: Tensor | None = None) -> Blocks:
        return Blocks(X, rows, self.device, self.block_rows)

    def _fit(self, blocks: Blocks, y: np.ndarray, start: "L2SVM | None" = None) -> "L2SVM":
        """Fit to checked features and their labels, from another fit's weights."""
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"L2SVM needs samples of at least 2 classes, but y has only one class: {self.classes_}")
        codes = torch.from_numpy(codes)
        positive = codes[:, None] == torch.arange(len(self.classes_)) if len(self.classes_) > 2 else codes[:, None] == 1
        self.n_features_in_ = blocks.width
        constant = self.intercept_scaling if self.fit_intercept else 0.0
        problem = Problem(blocks, positive, self.C, constant, self.regularise_intercept)
        first = None if start is None else start._weights().to(blocks.device)
        weights, report = newton(problem, first, self.tol, self.max_iter, self.progress)
        self._store(weights, blocks.given, constant)
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
        start, blocks = None, self._blocks(X, rows)
        for C in sorted(Cs):
            start = clone(self).set_params(C=C)._fit(blocks, y, start)
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
        blocks = self._blocks(X, rows)
        W = torch.from_numpy(self.coef_).to(blocks.device, blocks.dtype)
        f = np.concatenate([(block @ W.T).cpu().numpy() for _, block in blocks]) + self.intercept_
        if not np.isfinite(f).all():
            check_finite(X)
        return f[:, 0] if len(self.coef_) == 1 else f

    def _label(self, f: np.ndarray) -> np.ndarray:
        return self.classes_[(f > 0).astype(int) if f.ndim == 1 else f.argmax(1)]


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


def predict_few_labels(
    fit_and_predict: Callable[[np.ndarray], np.ndarray], y, y_test, per_class: int, draws: int, seed: int = 0
) -> pd.DataFrame:
    """Test any classifier on the draws that `probe_few_labels` makes. One row per draw: draw, accuracy, degenerate.

    fit_and_predict: takes the drawn rows of the training images and returns the test images' classes.
    """
    table = []
    for draw in range(draws):
        predicted = fit_and_predict(draw_per_class(y, per_class, seed + draw))
        table.append(
            {
                "draw": draw,
                "accuracy": float(np.mean(predicted == np.asarray(y_test))),
                "degenerate": degenerate(predicted, y_test),
            }
        )
    return pd.DataFrame(table)


def degenerate(y_pred, y_true) -> bool:
    """Say whether a classifier is worth nothing: one class predicted, or as many right as the majority class has."""
    y_pred, y_true = np.asarray(y_pred), np.asarray(y_true)
    majority = np.unique(y_true, return_counts=True)[1].max()
    return len(np.unique(y_pred)) == 1 or int((y_pred == y_true).sum()) == int(majority)


def record_accuracy(run: Run, metric: str, predicted, y_true, note: str = "", **where: str) -> None:
    """Record a classifier's accuracy in percent, with Wilson's interval over the images that it was tested on.

    A degenerate classifier is said to be one in the table's note. where: `published` and `data` of `Run.record`.
    """
    share = intervals.of_share(np.asarray(predicted) == np.asarray(y_true))
    note = ", ".join(filter(None, [note, "degenerate" if degenerate(predicted, y_true) else ""]))
    run.record(metric, *(100 * value for value in share), note=note, **where)


def record_draws(run: Run, metric: str, table: pd.DataFrame, note: str = "", **where: str) -> None:
    """Record the mean accuracy over draws in percent, with its interval, and how many draws were degenerate."""
    worthless = int(table["degenerate"].sum())
    note = ", ".join(filter(None, [note, f"{worthless} of {len(table)} draws degenerate" if worthless else ""]))
    run.record(metric, *intervals.of_mean(100 * table["accuracy"]), note=note, **where)
