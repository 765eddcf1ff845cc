"""The paper's protocol around the L2-SVM: C on held-out training images, few labels by repeated draws (section 5).

Every draw of a few labels is one classifier; a figure of few labels is the mean over draws, with its interval.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split

from lib.probe.l2svm import L2SVM, PAPER_CS, share
from lib.study import chance
from lib.study.runs import Run


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
    share = chance.interval_of_share(np.asarray(predicted) == np.asarray(y_true))
    note = ", ".join(filter(None, [note, "degenerate" if degenerate(predicted, y_true) else ""]))
    run.record(metric, *(100 * value for value in share), note=note, **where)


def record_draws(run: Run, metric: str, table: pd.DataFrame, note: str = "", **where: str) -> None:
    """Record the mean accuracy over draws in percent, with its interval, and how many draws were degenerate."""
    worthless = int(table["degenerate"].sum())
    note = ", ".join(filter(None, [note, f"{worthless} of {len(table)} draws degenerate" if worthless else ""]))
    run.record(metric, *chance.interval_of_mean(100 * table["accuracy"]), note=note, **where)
