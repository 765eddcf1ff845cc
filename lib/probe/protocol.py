"""The paper's protocol around the L2-SVM: C on images set apart, few labels by repeated draws (section 5).

Every draw of a few labels is one classifier; a figure of few labels is the mean over draws, with its interval. All
features of a run are probed on the same draws, so that two of them are compared draw by draw.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.nets import batchnorm, weights
from lib.probe import features, splits
from lib.probe.l2svm import L2SVM, PAPER_CS, share
from lib.study import chance
from lib.study.runs import Run

# the authors' seven, and smaller and larger ones: the best C should lie within what is tried
CS = (1e-5, 2e-5, 5e-5, *PAPER_CS, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0)
AGREED = 0.1  # points by which the probe of a shipped net may differ from that of the trained one
PATIENCE = 2  # larger C that may do worse before no more are tried: the larger, the longer they take
CHOOSING = 3  # draws of few labels that choose their C, of all


def choose_C(X, y, X_held, y_held, Cs: Sequence[float] = CS, **svm) -> tuple[float, pd.DataFrame]:
    """Return the C of the best accuracy on images set apart (the smallest of equals), and all that were tried.

    svm: L2SVM's parameters. The frame: C, accuracy, n_iter, converged.
    """
    table = pd.DataFrame(
        [
            {"C": fit.C, "accuracy": accuracy, "n_iter": fit.n_iter_, "converged": fit.converged_}
            for fit, accuracy in _climb(X, y, (X_held, y_held), Cs, **svm)
        ]
    )
    return float(table.C[table.accuracy.idxmax()]), table


def _climb(X, y, held_out: tuple | None, Cs: Sequence[float], **svm) -> list[tuple[L2SVM, float]]:
    """Fit from small to large C while that helps on images set apart: until `PATIENCE` fits in a row are no better."""
    found, best = [], 0
    for fit in L2SVM(**svm).path(X, y, Cs):
        found.append((fit, fit.score(*held_out) if held_out else float("nan")))
        if found[-1][1] > found[best][1]:
            best = len(found) - 1
        if len(found) - 1 - best == PATIENCE:
            break
    return found


def draw_per_class(y, per_class: int, seed: int = 0, draw: int = 0) -> np.ndarray:
    """Draw the rows of `per_class` labels of each class: indices in rising order, (K * per_class,).

    draw: which of the seed's independent draws. Raises ValueError where a class has too few labels.
    """
    y = np.asarray(y)
    if per_class < 1:
        raise ValueError(f"per_class = {per_class}: must be at least 1")
    random, drawn = np.random.default_rng(chance.stream(seed, "draw", draw)), []
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        if len(rows) < per_class:
            raise ValueError(f"class {label} has {len(rows)} labels: {per_class} per class were asked for")
        drawn.append(random.choice(rows, per_class, replace=False))
    return np.sort(np.concatenate(drawn))


def check_draws(y, per_class: int, draws: int) -> None:
    """Raise ValueError, before any work, where there are not two draws or not enough labels for them."""
    if draws < 2:
        raise ValueError(f"draws = {draws}: an interval over draws needs two at least")
    draw_per_class(y, per_class)


def check_lines(lines: str, known: Sequence[str]) -> list[str]:
    """Return the lines that `lines` names, joined by +, or all. Raises ValueError for a line that does not exist."""
    chosen = list(known) if lines == "all" else [line.strip() for line in lines.split("+")]
    if unknown := [line for line in chosen if line not in known]:
        raise ValueError(f"lines: there is no {' + '.join(map(repr, unknown))}; choose all, or of {', '.join(known)}")
    return chosen


def check_Cs(least: float, most: float, development: int, test: str = "") -> list[float]:
    """Return the values of `CS` from least to most.

    test: the split to be tested on. Raises ValueError for none, and where no images choose of many, or those that test.
    """
    Cs = [C for C in CS if least <= C <= most]
    if not Cs:
        raise ValueError(f"no C from {least:g} to {most:g}: there are {', '.join(f'{C:g}' for C in CS)}")
    if len(Cs) > 1 and not development:
        raise ValueError(f"{len(Cs)} values of C and no images to choose by: give development a number, or one C")
    if len(Cs) > 1 and test == splits.DEVELOPMENT:
        raise ValueError(f"test_split = {test}: these images choose of {len(Cs)} values of C: give one, or test others")
    return Cs


def say_C(C: float, Cs: Sequence[float]) -> str:
    """Return how a record names a C: that it was given, or chosen, and whether the best may lie beyond those tried."""
    if len(Cs) == 1:
        return f"{C:g} given"
    return f"{C:g} chosen" + (", the end of those tried" if C in (min(Cs), max(Cs)) else "")


def probe_few_labels(
    X, y, X_test, y_test, per_class: int, draws: int, Cs: Sequence[float], seed: int = 0, held_out=None, **svm
) -> pd.DataFrame:
    """Fit on few labels and test, over several draws of the labels (paper: 400 per class of CIFAR-10; 1,000 of SVHN).

    X: (N, F); or several versions of the images, such as mirrored ones, one after another: (2N, F), of which each drawn
    image is learned from in all.

    As in the authors' SVHN script, one C serves all draws: that of the best mean accuracy of the first `CHOOSING` draws
    on `held_out`, images with labels (X, y) outside of all draws, which a single C does not need. One row per draw:
    draw, accuracy (on the test set), degenerate, apart (the accuracy on `held_out`, NaN without), C, n_iter, converged.
    """
    if len(Cs) > 1 and held_out is None:
        raise ValueError(f"{len(Cs)} values of C need images to choose by")
    drawn = [draw_per_class(y, per_class, seed, draw) for draw in range(draws)]
    climbs = [_climb(*learned(X, y, rows), held_out, Cs, **svm) for rows in drawn[:CHOOSING]]
    tried = min(map(len, climbs))  # by all of these
    best = int(np.mean([[accuracy for _, accuracy in fits[:tried]] for fits in climbs], axis=0).argmax())
    fits = [fits[best] for fits in climbs]
    fits += [_climb(*learned(X, y, rows), held_out, [fits[0][0].C], **svm)[0] for rows in drawn[CHOOSING:]]
    return _tested(fits, X_test, y_test)


def probe_each_C(
    X, y, X_test, y_test, per_class: int, draws: int, Cs: Sequence[float], seed: int = 0, **svm
) -> list[pd.DataFrame]:
    """Fit each draw of few labels with each C, every fit started from that of the C below, and test all of them.

    Returns the frames of `probe_few_labels`, one for each C from small to large, at a fraction of their time.
    """
    drawn = [draw_per_class(y, per_class, seed, draw) for draw in range(draws)]
    fits = [[(fit, float("nan")) for fit in L2SVM(**svm).path(*learned(X, y, rows), Cs)] for rows in drawn]
    return [_tested(of_one_C, X_test, y_test) for of_one_C in zip(*fits, strict=True)]


def learned(X, y, rows: slice | np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Return the features and labels of some images, of a slice a view, as long as there is one version of each.

    X: (N, F); or several versions of the images, such as mirrored ones, one after another: (2N, F). Of y (N,) there is
    one for all; those that are returned are repeated. Raises ValueError for another number of features.
    """
    X, y = share(X) if isinstance(X, np.ndarray) else X, np.asarray(y)
    versions, rest = divmod(len(X), len(y))
    if rest or not versions:
        raise ValueError(f"{len(X)} rows of features for {len(y)} labels: there must be as many, or twice as many")
    if versions == 1:
        return X[rows], y[rows]
    rows = np.arange(len(y))[rows]
    every = np.concatenate([rows + version * len(y) for version in range(versions)])
    return X[torch.from_numpy(every)], np.tile(y[rows], versions)


def _tested(fits: Sequence[tuple[L2SVM, float]], X_test, y_test) -> pd.DataFrame:
    """Test the fit of each draw, which comes with its accuracy on images set apart."""
    table = _scored([fit.predict(X_test) for fit, _ in fits], y_test)
    table["apart"] = [apart for _, apart in fits]
    for column, name in {"C": "C", "n_iter": "n_iter_", "converged": "converged_"}.items():
        table[column] = [getattr(fit, name) for fit, _ in fits]
    return table


def _scored(predicted: Sequence[np.ndarray], y_test) -> pd.DataFrame:
    """Return the accuracy of each draw's predictions, and whether they are degenerate."""
    told = [{"accuracy": np.mean(p == np.asarray(y_test)), "degenerate": degenerate(p, y_test)} for p in predicted]
    return pd.DataFrame(told).rename_axis("draw").reset_index()


def predict_few_labels(
    fit_and_predict: Callable[[np.ndarray], np.ndarray], y, y_test, per_class: int, draws: int, seed: int = 0
) -> pd.DataFrame:
    """Test any classifier on the draws that `probe_few_labels` makes. One row per draw: draw, accuracy, degenerate.

    fit_and_predict: takes the drawn rows of the training images and returns the test images' classes.
    """
    drawn = (draw_per_class(y, per_class, seed, draw) for draw in range(draws))
    return _scored([fit_and_predict(rows) for rows in drawn], y_test)


def ship(
    run: str,
    name: str,
    data_set: str,
    development: int = 5000,
    per_class: int = 400,
    C: float = 1e-4,
    D_alone: bool = False,
) -> Path:
    """Ship a run's net as `weights.ship` does, if its D in half precision is worth what the trained D is to the probe.

    Each D answers for itself: an L2-SVM of one C on the same labels, `per_class` of each class of data_set, tested on
    `development` training images that are set apart. The record keeps both accuracies. Raises ValueError where they
    differ by more than AGREED; what was shipped before stays then.
    """
    trained = weights.load_net(f"run:{run}")[1]
    images = splits.load(data_set, trained.description.size, test=splits.DEVELOPMENT, development=development)
    rows, found = torch.from_numpy(draw_per_class(images.learn.y[images.own], per_class)), {}
    for kind, D in (("trained", trained), ("shipped", weights.halved(trained))):
        batchnorm.recalibrate_batchnorm(D, images.learn.x[rows])
        X, X_test = (features.extract(D, x) for x in (images.learn.x[rows], images.test.x))
        found[kind] = 100 * L2SVM(C=C).fit(X, images.learn.y[rows].numpy()).score(X_test, images.test.y.numpy())
    if abs(found["trained"] - found["shipped"]) > AGREED:
        told = " and of the ".join(f"{kind} D {accuracy:.2f}%" for kind, accuracy in found.items())
        raise ValueError(f"{run}: not shipped, half precision changes its probe on {data_set}: of the {told}")
    told = {"probe": {"data_set": data_set, "per_class": per_class, "C": C} | found}
    return weights.ship(run, name, told, D_alone)


def degenerate(y_pred, y_true) -> bool:
    """Say whether a classifier cannot be told from one that guesses, each class as often as it does.

    The interval of its accuracy then reaches what such guesses get. Whoever predicts one class only is one of them.
    """
    y_pred, y_true = np.asarray(y_pred), np.asarray(y_true)
    guessed = sum(np.mean(y_pred == label) * np.mean(y_true == label) for label in np.unique(y_true))
    return bool(chance.interval_of_share(y_pred == y_true).low <= guessed)


def record_accuracy(run: Run, metric: str, predicted, y_true, note: str = "", **where: str) -> None:
    """Record a classifier's accuracy in percent, with Wilson's interval over the images that it was tested on.

    A degenerate classifier is said to be one in the table's note. where: `published` and `data` of `Run.record`.
    """
    share = chance.interval_of_share(np.asarray(predicted) == np.asarray(y_true))
    note = ", ".join(filter(None, [note, "degenerate" if degenerate(predicted, y_true) else ""]))
    run.record(metric, *(100 * value for value in share), note=note, **where)


def record_images(run: Run, images: splits.Splits) -> None:
    """Record how many images a probe was tested on, and what was told of its set: a lossy copy is known by this."""
    run.record("images to be tested on", len(images.test), note="; ".join(images.learn.notes))


def record_draws(run: Run, metric: str, table: pd.DataFrame, note: str = "", **where: str) -> None:
    """Record the mean accuracy over draws in percent, with its interval, and how many draws were degenerate."""
    worthless = int(table["degenerate"].sum())
    note = ", ".join(filter(None, [note, f"{worthless} of {len(table)} draws degenerate" if worthless else ""]))
    run.record(metric, *chance.interval_of_mean(100 * table["accuracy"]), note=note, **where)
