"""Probe features with the paper's regularised linear L2-SVM, at the paper's scale (section 5).

50,000 x 28,672 float32 features are 5.7 GB. liblinear, which the authors used, first makes a float64 copy and then its
own copy of that; report 000 gave up here. The objective is smooth and strongly convex, and needs neither: with targets
y in {-1, 1}, one class against the rest, and f = Xw + b,

    P(w, b) = 0.5 |w|^2 + 0.5 b^2 + C sum_i max(0, 1 - y_i f_i)^2

is minimised for all classes at once by a truncated Newton method, whose every step reads the features in small blocks
of rows, as they are (a few rows of many features: once, see `blocks`). A block is used twice while it is in the
processor's cache: once for f, once for the gradient.
The dual point alpha_i = 2 C max(0, 1 - y_i f_i) has the duality gap 0.5 |gradient of P|^2 exactly, so the solver
can state how far from the minimum it may be, and stops at a stated fraction of P.
"""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from lib.probe.blocks import Blocks
from lib.probe.newton import Problem, newton

# the values that the authors' SVHN script tries on held-out training images
PAPER_CS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)

GROUP = 2**26  # rows times classes that are solved at a time: some ten arrays of float64, 5 GB, for a thousand classes
RBF_ROWS = 1024  # images tested at a time


class L2SVM(ClassifierMixin, BaseEstimator):
    """liblinear's L2-penalised squared-hinge SVM, one against the rest, on any features that fit in memory or a map.

    Takes (N, F) NumPy arrays and memory maps, or torch tensors of float16, bfloat16, float32 and float64. float64 is
    computed in float64, all else in float32 (sums that matter in float64), and in float64 blocks where that stalls.
    A few rows of many features (at most `blocks.FEW_ROWS`) are copied and computed in float64 whatever they are.

    C: the weight of the errors. tol: stop once each class's duality gap is below `tol` times its objective.
    max_iter: most Newton steps. The intercept is the weight of a constant feature, penalised as in liblinear.
    device: "cpu" or "cuda"; by default where the features are; for "mps", which has no float64, the CPU computes.
    block_rows: rows read at a time, by default a few MB.

    After `fit`: classes_, coef_ (K, F), intercept_ (K,), objective_ and gap_ (K,; relative), n_iter_, n_products_
    (products of a Hessian with vectors, each one pass over the data), converged_. K is 1 for two classes.
    """

    def __init__(
        self,
        C: float = 1.0,
        tol: float = 1e-6,
        max_iter: int = 100,
        device: str | None = None,
        block_rows: int | None = None,
    ) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.device = device
        self.block_rows = block_rows

    def fit(self, X, y) -> "L2SVM":
        """Fit to X (N, F) and labels y (N,). Raises ValueError for NaN, one class only, C <= 0; warns unconverged."""
        X, y = self._checked(X, y)
        return self._fit(Blocks(X, self.device, self.block_rows), y)

    def path(self, X, y, Cs: Sequence[float] = PAPER_CS) -> Iterator["L2SVM"]:
        """Yield one fitted classifier per C, from small to large, each started from the one before."""
        X, y = self._checked(X, y)
        if len(Cs) == 0 or not min(Cs) > 0:
            raise ValueError(f"Cs = {tuple(Cs)}: expected at least one, all positive")
        fit, blocks = None, Blocks(X, self.device, self.block_rows)
        for C in sorted(Cs):
            fit = clone(self).set_params(C=C)._fit(blocks, y, fit)
            yield fit

    def decision_function(self, X) -> np.ndarray:
        """Return f = Xw + b: (N,) for two classes, else (N, K)."""
        check_is_fitted(self)
        X = self._features(X, reset=False)
        blocks = Blocks(X, self.device, self.block_rows)
        W = torch.from_numpy(self.coef_).to(blocks.device, blocks.dtype)
        f = np.concatenate([(block @ W.T).cpu().numpy() for _, block in blocks]) + self.intercept_
        if not np.isfinite(f).all():
            check_finite(X)
        return f[:, 0] if len(self.coef_) == 1 else f

    def predict(self, X) -> np.ndarray:
        """Return the class of the largest f: (N,)."""
        f = self.decision_function(X)
        return self.classes_[(f > 0).astype(int) if f.ndim == 1 else f.argmax(1)]

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
        for name in ("C", "tol", "max_iter"):
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

    def _fit(self, blocks: Blocks, y: np.ndarray, start: "L2SVM | None" = None) -> "L2SVM":
        """Fit to checked features and their labels, from another fit's weights."""
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"L2SVM needs samples of at least 2 classes, but y has only one class: {self.classes_}")
        self.n_features_in_ = blocks.width
        codes = torch.from_numpy(codes)[:, None]
        targets = torch.arange(len(self.classes_)) if len(self.classes_) > 2 else torch.tensor([1])
        first = start and torch.from_numpy(np.column_stack([start.coef_, start.intercept_]).astype(np.float64))
        weights, reports = [], []
        for group in targets.split(max(1, GROUP // len(y))):
            problem = Problem(blocks, codes == group, self.C)
            begun = None if first is None else first[group if len(targets) > 1 else slice(None)]
            found, report = newton(problem, begun, self.tol, self.max_iter)
            weights.append(found)
            reports.append(report)
        kept = torch.cat(weights).cpu().numpy()  # (K, F + 1), float64
        kept = kept if blocks.given == torch.float64 else kept.astype(np.float32)
        self.coef_, self.intercept_ = np.ascontiguousarray(kept[:, :-1]), kept[:, -1]
        self.objective_, self.gap_ = (np.concatenate([r[name] for r in reports]) for name in ("objective_", "gap_"))
        self.n_iter_ = max(r["n_iter_"] for r in reports)
        self.n_products_ = sum(r["n_products_"] for r in reports)
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


def share(array: np.ndarray) -> Tensor:
    """Return a tensor that shares the array's memory, read-only maps included (nothing here writes to it)."""
    if any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array))


def check_finite(X: Tensor) -> None:
    """Raise ValueError that names the first NaN or infinite feature; reads the features once, in blocks."""
    for span, block in Blocks(X, None, None):
        if block.sum().isfinite():
            continue
        for row, column in (~block.isfinite()).nonzero()[:1].tolist():
            what = "NaN" if block[row, column].isnan() else "infinity"
            raise ValueError(f"Input X contains {what}: row {span.start + row}, column {column}")


def predict_rbf(X: Tensor, y: np.ndarray, X_test: Tensor, C: float = 1.0) -> np.ndarray:
    """Fit an SVM with an RBF kernel to features X (N, F); return the classes of X_test (M, F): (M,).

    The best public attempt at the paper's number, MindSpore's model zoo, leaves all but the scaling to scikit-learn's
    SVC at C = 1; its scaler has seen the test images, which this one has not. The kernel, exp(-|a - b|^2 / F) of scaled
    features, is one product of matrices: libsvm takes an hour for 10,000 images where this takes a minute. Holds N x N
    values, float64.
    """
    X = X.float()
    mean, deviation = X.mean(0), X.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, torch.ones(()))  # of a feature that says nothing
    X = (X - mean) / deviation

    def kernel(A: Tensor) -> np.ndarray:
        squares = A.square().sum(1, keepdim=True) + X.square().sum(1) - 2 * A @ X.T
        return squares.div_(-X.shape[1]).exp_().double().numpy()

    svm = SVC(C=C, kernel="precomputed").fit(kernel(X), y)
    return np.concatenate([svm.predict(kernel((block.float() - mean) / deviation)) for block in X_test.split(RBF_ROWS)])
