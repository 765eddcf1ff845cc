"""The probe against scikit-learn's own checks and LinearSVC; draws and intervals with the answer written out."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from lib.probe import blocks, l2svm, newton, protocol
from lib.probe.l2svm import L2SVM, PAPER_CS
from lib.probe.protocol import CS, choose_C, degenerate, draw_per_class, probe_few_labels
from lib.study.runs import Run


@parametrize_with_checks([L2SVM()])
@pytest.mark.filterwarnings(
    "ignore:invalid value encountered in cast:RuntimeWarning"
)  # check_supervised_y_no_nan's own
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def objectives(model, X, y, C):
    """Each class's objective in float64, written out."""
    W, b = model.coef_.astype(float), model.intercept_.astype(float)
    classes = model.classes_[1:] if len(W) == 1 else model.classes_
    signs = np.where(np.asarray(y)[:, None] == classes, 1, -1)
    lack = np.maximum(0, 1 - signs * (np.asarray(X, float) @ W.T + b))
    return 0.5 * (W**2).sum(1) + 0.5 * b**2 + C * (lack**2).sum(0)


def liblinear(X, y, C=1.0, **options):
    return LinearSVC(C=C, dual=False, tol=1e-6, max_iter=1_000_000, **options).fit(X, y)


def digits(n=600):
    X, y = load_digits(return_X_y=True)
    return X[:n].astype(np.float32) / 16, y[:n]


def problem(name):
    """Return X, y and C."""
    if name == "digits":
        return *digits(), 1e-2
    if name == "binary":
        return *make_classification(300, 20, random_state=0), 1.0
    if name == "more features than rows":
        X, y = make_classification(80, 300, n_informative=20, n_classes=4, random_state=1)
        return X.astype(np.float32), y, 1e-3
    if name == "features of unlike scale, far from zero":
        X, y = make_classification(300, 15, n_informative=8, n_classes=3, random_state=2)
        return X * np.logspace(-2, 1, 15) + 5, y, 1e-1
    raise KeyError(name)


# --- agreement with liblinear


@pytest.mark.parametrize(
    "name", ["digits", "binary", "more features than rows", "features of unlike scale, far from zero"]
)
def test_objective_and_predictions_agree_with_liblinear(name):
    X, y, C = problem(name)
    ours, theirs = L2SVM(C=C).fit(X, y), liblinear(X, y, C)
    truth = objectives(theirs, X, y, C)
    np.testing.assert_allclose(objectives(ours, X, y, C), truth, rtol=1e-4)
    np.testing.assert_allclose(ours.objective_, truth, rtol=1e-4)
    assert ours.coef_.shape == theirs.coef_.shape
    assert np.mean(ours.predict(X) == theirs.predict(X)) >= 0.999
    assert ours.converged_
    assert (ours.gap_ <= ours.tol).all()


@given(
    n=st.integers(8, 60),
    f=st.integers(1, 40),
    k=st.integers(2, 5),
    C=st.sampled_from([1e-3, 0.1, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_objective_agrees_with_liblinear_on_any_shape(n, f, k, C, seed):
    random = np.random.default_rng(seed)
    y = np.concatenate([np.arange(k), random.integers(k, size=n - k)])
    X = (random.normal(size=(n, f)) + random.normal(size=(k, f))[y]).astype(np.float32)
    np.testing.assert_allclose(
        objectives(L2SVM(C=C).fit(X, y), X, y, C), objectives(liblinear(X, y, C), X, y, C), rtol=1e-4
    )


def test_the_gap_bounds_the_distance_from_the_minimum():
    X, y = digits()
    minimum = L2SVM(C=0.1, tol=1e-10).fit(X.astype(float), y).objective_
    for tol in (1e-1, 1e-3, 1e-5):
        rough = L2SVM(C=0.1, tol=tol).fit(X, y)
        assert (rough.objective_ - minimum <= rough.gap_ * rough.objective_ + 1e-6).all()


# --- memory, types, starts


def test_memory_maps_and_row_blocks_give_what_memory_gives(tmp_path):
    X, y = digits()  # tol: two weights may differ by sqrt(2 tol objective) and both be right
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    whole = L2SVM(C=0.01, tol=1e-9).fit(X, y)
    blockwise = L2SVM(C=0.01, tol=1e-9, block_rows=7).fit(mapped, y)
    np.testing.assert_allclose(blockwise.coef_, whole.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(blockwise.decision_function(mapped), whole.decision_function(X), atol=1e-3)
    reversed_rows = L2SVM(C=0.01, tol=1e-9).fit(X[::-1], y[::-1])  # negative strides
    np.testing.assert_allclose(reversed_rows.coef_, whole.coef_, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_tensors_of_any_type_are_fitted_as_their_values_say(dtype):
    X, y = digits()
    X = torch.from_numpy(X + 0.123).to(dtype)
    model, truth = L2SVM(C=0.01).fit(X, torch.from_numpy(y)), L2SVM(C=0.01).fit(X.float().numpy(), y)
    np.testing.assert_array_equal(model.coef_, truth.coef_)
    np.testing.assert_array_equal(model.predict(X), truth.predict(X.float().numpy()))


def test_features_are_neither_changed_nor_copied(monkeypatch):
    X, y = digits()
    X.flags.writeable = False
    seen = []
    init = l2svm.Blocks.__init__
    monkeypatch.setattr(l2svm.Blocks, "__init__", lambda self, *a: (init(self, *a), seen.append(self.X.data_ptr()))[0])
    L2SVM(C=0.01).fit(X, y).predict(X)
    assert set(seen) == {X.ctypes.data}


def test_cores_share_the_blocks(monkeypatch):
    X, y = digits()
    threads, pools = torch.get_num_threads(), []
    pool = blocks.ThreadPoolExecutor
    monkeypatch.setattr(blocks, "ThreadPoolExecutor", lambda n: (pools.append(n), pool(n))[1])
    try:
        found = []
        for share in (1, 3):
            torch.set_num_threads(share)
            found.append(L2SVM(C=0.01, tol=1e-8, block_rows=8).fit(X, y))
            assert torch.get_num_threads() == share
    finally:
        torch.set_num_threads(threads)
    assert set(pools) == {3}
    np.testing.assert_allclose(found[1].objective_, found[0].objective_, rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_rows_of_many_features_are_solved_in_their_span(dtype):
    X, y = features_like_a_nets(60, 500)
    X = X.astype(dtype)
    X[1] = X[0]  # and fewer dimensions than rows
    turned = blocks.Blocks(torch.from_numpy(X), None, None)
    turned.turn()
    assert turned.X.shape == (60, 60)
    np.testing.assert_allclose(turned.X @ turned.basis.T, X, atol=1e-5)
    *_, ours = L2SVM(tol=1e-9).path(X, y, (0.01, 0.1))
    assert ours.coef_.shape == (3, 500) and ours.coef_.dtype == dtype
    theirs = liblinear(X, y, 0.1)
    np.testing.assert_allclose(objectives(ours, X, y, 0.1), objectives(theirs, X, y, 0.1), rtol=1e-4)
    np.testing.assert_allclose(ours.objective_, objectives(ours, X, y, 0.1), rtol=1e-4)


def test_many_rows_are_read_as_they_are():
    for shape in ((blocks.FEW_ROWS + 1, 3 * blocks.FEW_ROWS), (60, 119)):
        left = blocks.Blocks(torch.zeros(shape), None, None)
        left.turn()
        assert left.basis is None and left.X.shape == shape


def test_float32_that_stalls_goes_on_in_float64():
    X, y = make_classification(200, 10, random_state=0)
    X = (X + 300).astype(np.float32)  # f is a small difference of large products
    ours, theirs = L2SVM(C=10.0, tol=1e-8).fit(X, y), liblinear(X, y, 10.0)
    np.testing.assert_allclose(ours.objective_, objectives(theirs, X, y, 10.0), rtol=1e-3)


def test_a_warm_path_gives_what_cold_fits_give():
    X, y = digits()
    Cs = (1e-1, 1e-3, 1e-2)
    fits = list(L2SVM().path(X, y, Cs))
    assert [fit.C for fit in fits] == sorted(Cs)
    for fit in fits:
        cold = L2SVM(C=fit.C).fit(X, y)
        np.testing.assert_allclose(fit.objective_, cold.objective_, rtol=1e-5)
        assert np.mean(fit.predict(X) == cold.predict(X)) >= 0.999


def test_less_device_memory_means_smaller_blocks_said_once(monkeypatch):
    X, y = digits(100)
    read = l2svm.Blocks._read

    def scarce(self, starts):
        for span, block in read(self, starts):
            if len(block) > 16:
                raise torch.OutOfMemoryError
            yield span, block

    truth = L2SVM(C=0.01, tol=1e-9).fit(X, y)
    monkeypatch.setattr(l2svm, "check_finite", lambda _: None)
    monkeypatch.setattr(l2svm.Blocks, "_read", scarce)
    with pytest.warns(RuntimeWarning, match="smaller blocks") as said:
        found = L2SVM(C=0.01, tol=1e-9, block_rows=64).fit(X, y)
    assert len(said) == 1
    np.testing.assert_allclose(found.coef_, truth.coef_, rtol=1e-3, atol=1e-4)


# --- bad input and honest warnings


def features_like_a_nets(n, f):
    """Features that are far from zero and far from independent, as activations are: a spectrum of 1 / i squared."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(n, 500)) / np.arange(1, 501) ** 2
    return (np.maximum(latent @ rng.normal(size=(500, f)), 0) + 0.5).astype(np.float32), rng.integers(0, 3, n)


def test_a_sketch_of_all_directions_inverts_the_hessian():
    X, y = features_like_a_nets(300, 40)
    codes = torch.from_numpy(y)[:, None] == torch.arange(3)
    solved = newton.Problem(blocks.Blocks(torch.from_numpy(X).double(), None, None), codes, 0.1)
    wide = np.column_stack([X.astype(float), np.full(300, 1.0)])
    hessian = np.eye(41) + 2 * 0.1 * 0.5 * wide.T @ wide  # half of the rows active
    R = np.random.default_rng(1).normal(size=(3, 41))
    found = solved.precondition(torch.from_numpy(R), torch.full((3,), 0.5, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), np.linalg.solve(hessian, R.T).T, rtol=1e-6, atol=1e-9)


def test_a_sketch_makes_few_passes_enough():
    X, y = features_like_a_nets(1000, 600)
    ours, theirs = L2SVM(C=0.1, tol=1e-5).fit(X, y), liblinear(X, y, 0.1)
    np.testing.assert_allclose(objectives(ours, X, y, 0.1), objectives(theirs, X, y, 0.1), rtol=1e-4)
    assert ours.n_products_ < 50  # with the diagonal alone it is hundreds


@pytest.mark.parametrize("size", [1e20, 1e30])
def test_features_whose_squares_overflow_are_refused_in_words(size):
    X, y = features_like_a_nets(40, 5)
    with pytest.raises(ValueError, match="features are too large: the objective overflows; scale them down"):
        L2SVM().fit(X * np.float32(size), y)


def test_an_unconverged_fit_says_so():
    X, y = digits()
    with pytest.warns(ConvergenceWarning, match=r"stopped after 1 steps: \d+ of 10 classes are above tol=1e-06"):
        model = L2SVM(C=1.0, max_iter=1).fit(X, y)
    assert not model.converged_
    assert (model.gap_ > model.tol).any()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"C": 0}, "C = 0: must be a positive number"),
        ({"C": -1.0}, "C = -1.0: must be"),
        ({"C": float("nan")}, "C = nan: must be"),
        ({"tol": 0}, "tol = 0: must be"),
        ({"max_iter": 0}, "max_iter = 0: must be"),
    ],
)
def test_bad_parameters_are_named(change, match):
    with pytest.raises(ValueError, match=match):
        L2SVM(**change).fit(*digits(50))


def test_bad_features_and_labels_are_named():
    X, y = digits(50)
    for value, name in ((np.nan, "NaN"), (np.inf, "infinity")):
        bad = X.copy()
        bad[7, 3] = value
        with pytest.raises(ValueError, match=f"Input X contains {name}: row 7, column 3"):
            L2SVM().fit(bad, y)
        with pytest.raises(ValueError, match=f"Input X contains {name}: row 7, column 3"):
            L2SVM(C=0.01).fit(X, y).predict(bad)
    with pytest.raises(ValueError, match="only one class"):
        L2SVM().fit(X, np.zeros(50))
    with pytest.raises(ValueError, match="50 rows of features, but 49 labels"):
        L2SVM().fit(X, y[:-1])
    with pytest.raises(ValueError, match="64 features"):
        L2SVM(C=0.01).fit(X, y).predict(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="floats of shape"):
        L2SVM().fit(torch.zeros(50), y)


# --- groups of classes, devices


@pytest.mark.parametrize("classes", [2, 10])
def test_classes_in_groups_are_solved_as_all_at_once(monkeypatch, classes):
    X, y = digits()
    y = y % classes
    whole = list(L2SVM(tol=1e-9).path(X, y, (1e-3, 1e-2)))
    monkeypatch.setattr(l2svm, "GROUP", 3 * len(y))
    seen = []
    solve = l2svm.newton
    monkeypatch.setattr(l2svm, "newton", lambda problem, *a: (seen.append(problem.y.shape[1]), solve(problem, *a))[1])
    parts = list(L2SVM(tol=1e-9).path(X, y, (1e-3, 1e-2)))
    assert seen == 2 * ([3, 3, 3, 1] if classes == 10 else [1])
    for part, truth in zip(parts, whole, strict=True):
        np.testing.assert_allclose(part.objective_, truth.objective_, rtol=1e-6)
        np.testing.assert_allclose(part.coef_, truth.coef_, rtol=1e-3, atol=1e-4)
        assert part.gap_.shape == truth.gap_.shape
        assert part.n_iter_ <= max(part.n_products_, 1)
    np.testing.assert_allclose(parts[-1].objective_, objectives(liblinear(X, y, 1e-2), X, y, 1e-2), rtol=1e-4)


def test_apples_device_has_no_float64_so_the_cpu_computes():
    assert blocks.Blocks(torch.zeros(3, 2), "mps", None).device == torch.device("cpu")


# --- choosing C


def test_C_is_chosen_on_images_set_apart():
    X, y = digits()
    C, table = choose_C(X[:400], y[:400], X[400:], y[400:])
    assert list(table.columns) == ["C", "accuracy", "n_iter", "converged"]
    assert PAPER_CS == (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
    assert (1e-5, 2e-5, 5e-5, *PAPER_CS, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0) == CS and tuple(table.C) == CS[: len(table)]
    assert table.C[table.accuracy.idxmax()] == C
    assert table.converged.all()
    some = [L2SVM(C=C).fit(X[:400], y[:400]).score(X[400:], y[400:]) for C in (1e-4, 1e-2)]
    _, table = choose_C(X[:400], y[:400], X[400:], y[400:], (1e-4, 1e-2))
    np.testing.assert_allclose(table.accuracy, some)


def test_no_larger_C_is_tried_once_two_are_no_better(monkeypatch):
    accuracies = {1.0: 0.5, 2.0: 0.7, 3.0: 0.6, 4.0: 0.8, 5.0: 0.8, 6.0: 0.1, 7.0: 0.9}

    class Known:
        n_iter_, converged_ = 1, True

        def __init__(self, C=0.0):
            self.C = C

        def path(self, X, y, Cs):
            return map(Known, Cs)

        def score(self, X, y):
            return accuracies[self.C]

    monkeypatch.setattr(protocol, "L2SVM", Known)
    C, table = choose_C(0, 0, 0, 0, list(accuracies))
    assert C == 4.0 and table.C.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("Cs", [(0.0, 1.0), ()])
def test_choose_C_refuses_what_makes_no_sense(Cs):
    X, y = digits(100)
    with pytest.raises(ValueError, match="at least one, all positive"):
        choose_C(X, y, X, y, Cs)


# --- few labels


def test_draws_are_class_uniform():
    y = np.array([2, 5, 0, 0, 2, 5, 2, 0, 5])
    rows = draw_per_class(y, 2, seed=0)
    assert sorted(y[rows]) == [0, 0, 2, 2, 5, 5]
    assert list(rows) == sorted(set(rows))
    assert list(draw_per_class(y, 3)) == list(range(9))


def test_draws_of_neighbouring_seeds_are_other_draws():
    y = np.arange(1000) % 10
    drawn = {tuple(draw_per_class(y, 9, seed, draw)) for seed in range(5) for draw in range(5)}
    assert len(drawn) == 25, "draw 1 of seed 0 was draw 0 of seed 1"
    assert tuple(draw_per_class(y, 9, 3, 2)) in drawn, "and the same when asked again"


def test_draws_take_strings_and_name_the_class_that_is_short():
    y = np.array(["cat"] * 5 + ["dog"] * 2)
    assert len(draw_per_class(y, 2)) == 4
    with pytest.raises(ValueError, match="class dog has 2 labels: 3 per class were asked for"):
        draw_per_class(y, 3)
    with pytest.raises(ValueError, match="per_class = 0"):
        draw_per_class(y, 0)


def test_few_labels_give_one_row_per_draw():
    X, y = digits()
    given = (X[:400], y[:400], X[500:], y[500:], 10, 3)
    table = probe_few_labels(*given, (1e-3, 1e-2), held_out=(X[400:500], y[400:500]))
    columns = ["draw", "accuracy", "degenerate", "apart", "C", "n_iter", "converged"]
    assert list(table.columns) == columns
    assert table.draw.tolist() == [0, 1, 2]
    assert table.converged.all()
    assert not table.degenerate.any()
    drawn = [draw_per_class(y[:400], 10, 0, draw) for draw in range(3)]
    by_hand = [L2SVM(C=table.C[0]).fit(X[rows], y[rows]).score(X[500:], y[500:]) for rows in drawn]
    np.testing.assert_allclose(table.accuracy, by_hand, atol=0.011)
    apart = [L2SVM(C=table.C[0]).fit(X[rows], y[rows]).score(X[400:500], y[400:500]) for rows in drawn]
    np.testing.assert_allclose(table.apart, apart, atol=0.011)
    assert len(set(table.accuracy)) > 1, "draws differ"
    again = probe_few_labels(torch.from_numpy(X[:400]), *given[1:], (1e-3, 1e-2), held_out=(X[400:500], y[400:500]))
    assert table.equals(again)


def test_one_C_serves_all_draws_the_best_on_the_images_set_apart():
    X, y = digits()
    Cs, held = (1e-5, 1e-2, 1.0), (X[400:500], y[400:500])
    found = probe_few_labels(X[:400], y[:400], X[500:], y[500:], 10, 3, Cs, held_out=held)
    alone = {C: probe_few_labels(X[:400], y[:400], *held, 10, 3, [C]).accuracy.mean() for C in Cs}
    assert set(found.C) == {max(alone, key=alone.get)} != {min(alone, key=alone.get)}
    wrong = (held[0], (held[1] + 1) % 10)  # right labels of the images set apart are what decides, not the test's
    misled = probe_few_labels(X[:400], y[:400], X[500:], y[500:], 10, 3, Cs, held_out=wrong)
    alone = {C: probe_few_labels(X[:400], y[:400], *wrong, 10, 3, [C]).accuracy.mean() for C in Cs}
    assert set(misled.C) == {max(alone, key=alone.get)}


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (lambda y: protocol.check_draws(y, 5, 1), "draws = 1: an interval over draws needs two at least"),
        (lambda y: protocol.check_draws(y, 21, 2), "class 0 has 20 labels: 21 per class"),
        (
            lambda y: protocol.check_lines("raw pixel", ["raw pixels", "k-means"]),
            "no 'raw pixel'; choose all, or",
        ),
        (lambda y: protocol.check_lines("k-means + x + y", ["k-means"]), r"no 'x' \+ 'y'; choose"),
        (lambda y: protocol.check_lines("", ["k-means"]), "no ''; choose all"),
        (lambda y: protocol.check_Cs(2.0, 5.0, 10), "no C from 2 to 5: there are 1e-05, 2e-05"),
        (lambda y: protocol.check_Cs(1e-4, 2e-4, 0), "2 values of C and no images to choose by: give development"),
        (
            lambda y: protocol.check_Cs(1e-4, 2e-4, 9, "development"),
            "these images choose of 2 values of C: give one",
        ),
        (lambda y: probe_few_labels(y[:, None], y, y[:, None], y, 5, 2, (1, 2)), "2 values of C need images"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(ask, match):
    with pytest.raises(ValueError, match=match):
        ask(np.repeat([0, 1, 2], 20))


def test_what_can_work_is_let_through():
    protocol.check_draws(np.repeat([0, 1, 2], 20), 20, 2)
    assert protocol.check_lines("all", ["a", "b"]) == ["a", "b"]
    assert protocol.check_lines("b+ a", ["a", "b", "c"]) == ["b", "a"]
    assert protocol.check_Cs(5e-5, 2e-4, 10) == [5e-5, 1e-4, 2e-4]
    assert protocol.check_Cs(1e-4, 1e-4, 0) == protocol.check_Cs(1e-4, 1e-4, 9, "development") == [1e-4]


def test_a_C_is_named_with_where_it_comes_from():
    assert protocol.say_C(1e-4, [1e-4]) == "0.0001 given"
    assert protocol.say_C(2e-4, [1e-4, 2e-4, 5e-4]) == "0.0002 chosen"
    assert protocol.say_C(5e-4, [1e-4, 2e-4, 5e-4]) == "0.0005 chosen, the end of those tried"
    assert protocol.say_C(1e-4, [1e-4, 2e-4, 5e-4]) == "0.0001 chosen, the end of those tried"


def test_degenerate_classifiers_are_recognised():
    y = np.repeat([0, 1], [90, 10])
    assert degenerate(np.zeros(100), y)
    assert degenerate(np.ones(100), y)  # one class, and the wrong one
    assert not degenerate(y, y)
    by_accident = y.copy()
    by_accident[80:90] = 1  # as many right as the majority class has, though balanced accuracy is 0.94
    assert np.mean(by_accident == y) == 0.9
    assert not degenerate(by_accident, y)
    guesses = np.random.default_rng(0).permutation(y)
    assert degenerate(guesses, y)
    assert degenerate(np.array(["a", "b"]), np.array(["a", "b"])), "two images tell nothing"
    assert not degenerate(np.repeat(["a", "b"], 9), np.repeat(["a", "b"], 9))


def test_guessing_is_called_degenerate_about_as_often_as_the_interval_says():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 10, 500)
    found = [degenerate(rng.integers(0, 10, 500), y) for _ in range(300)]
    assert 0.94 < np.mean(found) < 1


# --- what is recorded


def test_the_first_three_draws_choose_C_for_all():
    X, y = digits()
    Cs, apart, tested = (1e-5, 1e-2, 1.0), (X[400:500], y[400:500]), (X[500:], y[500:])
    three, five = (probe_few_labels(X[:400], y[:400], *tested, 10, n, Cs, held_out=apart) for n in (3, 5))
    pd.testing.assert_frame_equal(five[:3], three)
    given = probe_few_labels(X[:400], y[:400], *tested, 10, 5, [five.C[0]], held_out=apart)
    columns = ["draw", "accuracy", "apart", "C", "degenerate"]
    pd.testing.assert_frame_equal(five[3:][columns], given[3:][columns])


def test_each_C_is_tested_as_if_it_were_the_only_one():
    X, y = digits()
    given, Cs = (X[:400], y[:400], X[500:], y[500:], 10, 3), (1e-4, 1e-2, 1.0)
    columns = ["draw", "accuracy", "C", "converged", "degenerate"]
    for C, table in zip(Cs, protocol.probe_each_C(*given, Cs, tol=1e-8), strict=True):
        pd.testing.assert_frame_equal(table[columns], probe_few_labels(*given, [C], tol=1e-8)[columns])


def test_a_drawn_image_is_learned_from_in_all_its_versions():
    """An SVM of each image twice is one of twice the C; in another version the images of no draw are as far apart."""
    X, y = digits()
    tested = (X[500:], y[500:], 10, 3)
    twice = probe_few_labels(np.concatenate([X[:400], X[:400]]), y[:400], *tested, [1e-2], tol=1e-8)
    once = probe_few_labels(X[:400], y[:400], *tested, [2e-2], tol=1e-8)
    assert twice.accuracy.tolist() == once.accuracy.tolist()
    other = probe_few_labels(np.concatenate([X[:400], -X[:400]]), y[:400], *tested, [1e-2])
    assert (other.accuracy < once.accuracy).all(), "both versions are learned from"
    with pytest.raises(ValueError, match="450 rows of features for 400 labels: there must be as many, or twice"):
        probe_few_labels(X[:450], y[:400], *tested, [1e-2])


def test_a_part_is_a_view_and_of_several_versions_has_all():
    X, y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])
    part, labels = protocol.learned(X, y, slice(1, 3))
    assert np.shares_memory(part.numpy(), X) and labels.tolist() == [1, 0]
    part, labels = protocol.learned(np.concatenate([X, -X]), y, slice(1, 3))
    assert part.tolist() == [[2, 3], [4, 5], [-2, -3], [-4, -5]] and labels.tolist() == [1, 0, 1, 0]


def test_any_classifier_is_tested_on_the_same_draws():
    y, y_test = np.repeat([0, 1, 2], 20), np.array([0, 1, 2, 2])
    seen = []
    table = protocol.predict_few_labels(lambda rows: seen.append(rows) or np.full(4, 2), y, y_test, 5, 3, seed=7)
    assert all((rows == protocol.draw_per_class(y, 5, 7, i)).all() for i, rows in enumerate(seen))
    assert table["accuracy"].tolist() == [0.5] * 3
    assert table["degenerate"].all()


def test_the_table_says_which_classifiers_are_degenerate():
    run = Run("id", "05_cifar10_probe", {})
    truth = np.repeat([0, 1, 2, 2], 9)
    protocol.record_accuracy(run, "constant", np.full(36, 2), truth, note="C 1")
    protocol.record_accuracy(run, "right", truth, truth, published="p")
    draws = pd.DataFrame({"accuracy": [0.5, 0.7], "degenerate": [True, False]})
    protocol.record_draws(run, "draws", draws)
    notes = {line["metric"]: (round(line["value"], 6), line["note"], line["published"]) for line in run.metrics}
    assert notes == {
        "constant": (50.0, "C 1, degenerate", ""),
        "right": (100.0, "", "p"),
        "draws": (60.0, "1 of 2 draws degenerate", ""),
    }
