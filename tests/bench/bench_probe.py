"""Measure, on this machine: what extraction costs, the probe against liblinear, and the probe at the paper's size.

`make bench` makes four calls: peak memory is the whole process's, so each measures one thing. Without arguments the
first two; `--dtype float32` and `--dtype bfloat16` fit the SVM to 50,000 x 28,672 features as in the paper, and end in
an error above the memory that these may take; `--kmeans 4800` goes from images to a fit of that many units' features.
The features are those of an untrained D of the paper's width on drawn faces, ten classes by head turn, and no download.
Timings lie on a busy machine: quote the ratios.
"""

import argparse
import os
import resource
import statistics
import time
import warnings

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix
from sklearn.svm import LinearSVC

from lib.images import data
from lib.nets import batchnorm, devices, models
from lib.probe import features, kmeans, l2svm
from lib.study import runs

SMALL = (10_000, 7_168)  # what liblinear can do here: it copies to float64, and again to 16 bytes per value
MOST = {"float32": 9.0, "bfloat16": 5.0}  # GB that the probe may take, images, net and features of that type included


def peak_gb() -> float:
    """Return this process's peak resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def time_extraction(D: models.Discriminator, x: torch.Tensor, autocast: bool, rounds: int = 5) -> pd.Series:
    """Time `features.extract` and the bare forward pass of D's convolutions in turn, on the same minibatches."""
    D.to(memory_format=torch.channels_last).eval()
    seconds = {"forward": [], "extract": []}
    for i in range(rounds + 1):
        began = time.perf_counter()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            for batch in x.split(256):
                D.activations(data.to_float(batch).contiguous(memory_format=torch.channels_last))
        middle = time.perf_counter()
        features.extract(D, x, autocast=autocast)
        D.to(memory_format=torch.channels_last)
        if i:  # the first round warms up
            seconds["forward"].append(middle - began)
            seconds["extract"].append(time.perf_counter() - middle)
    ratio = statistics.median(f / e for f, e in zip(*seconds.values(), strict=True))
    forward, extract = (len(x) / statistics.median(s) for s in seconds.values())
    name = "bfloat16" if autocast else "float32"
    return pd.Series({"forward, images/s": forward, "extract, images/s": extract, "share": ratio}, name=name)


def fit(X: torch.Tensor, y: np.ndarray, C: float, tol: float) -> dict[str, float]:
    """Fit L2SVM and tell what it took."""
    began = time.perf_counter()
    svm = l2svm.L2SVM(C=C, tol=tol).fit(X, y)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "objective": svm.objective_.sum(), "passes": svm.n_products_ + svm.n_iter_, "svm": svm}


def against_liblinear(X: torch.Tensor, y: np.ndarray, C: float, tol: float) -> pd.DataFrame:
    """Fit both to the same features and compare their objectives and seconds."""
    ours = fit(X, y, C, tol)
    X64, signs = X.double().numpy(), np.where(y[:, None] == np.unique(y), 1, -1)
    lines = [{"solver": "L2SVM"} | {k: ours[k] for k in ("seconds", "objective")}]
    for name, solve in {"LinearSVC": linear_svc, "liblinear-multicore": multicore}.items():
        for theirs in (1e-1, 1e-2, 1e-3):  # its own tolerance; the first whose objective is as good as ours ends it
            seconds, w, b = solve(X64, y, C, theirs)
            penalty = 0.5 * ((w**2).sum() + (b**2).sum())
            objective = penalty + C * (np.maximum(0, 1 - signs * (X64 @ w.T + b)) ** 2).sum()
            lines.append({"solver": f"{name}(tol={theirs:g})", "seconds": seconds, "objective": objective})
            if objective <= ours["objective"] * (1 + tol):
                break
    frame = pd.DataFrame(lines).set_index("solver")
    frame["times ours"] = frame["seconds"] / ours["seconds"]
    return frame


def linear_svc(X: np.ndarray, y: np.ndarray, C: float, tol: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Fit scikit-learn's LinearSVC: seconds, weights (K, F), intercepts (K,)."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        svc = LinearSVC(C=C, dual=False, tol=tol).fit(X, y)
    return time.perf_counter() - began, svc.coef_, svc.intercept_


def multicore(X: np.ndarray, y: np.ndarray, C: float, tol: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Fit liblinear's primal Newton on as many threads as torch has: seconds, weights (K, F), intercepts (K,)."""
    try:
        from liblinear.liblinearutil import parameter, problem, train  # no part of the study: only measured against
    except ImportError:
        raise SystemExit(
            "error: liblinear-multicore is missing: .venv/bin/uv pip install liblinear-multicore"
        ) from None
    began = time.perf_counter()
    given = problem(y, csr_matrix(X), bias=1)  # its own copy, 16 bytes a value
    svm = train(given, parameter(f"-s 2 -c {C} -e {tol} -B 1 -m {torch.get_num_threads()} -q"))
    seconds = time.perf_counter() - began
    w, b = zip(*[svm.get_decfun(label_idx=i) for i in np.argsort(svm.get_labels())], strict=True)
    return seconds, np.array(w), np.array(b)


def time_kmeans(faces: data.ImageSet, y: np.ndarray, units: int, C: float, tol: float) -> None:
    """Print what k-means features and one fit to them take, end to end, with a fifth as many images for the test."""
    began = time.perf_counter()
    X, _ = kmeans.kmeans_features(faces.x, faces.x[::5], units)
    middle = time.perf_counter()
    found = fit(X, y, C, tol)
    features_took, fit_took = (middle - began) / 60, found["seconds"] / 60
    print(f"k-means of {units:,} units: features of {len(X):,} and {len(X) // 5:,} images {features_took:.1f} min, "
          f"a fit {fit_took:.1f} min, peak memory {peak_gb():.1f} GB")  # fmt: skip


def at_the_papers_size(D: models.Discriminator, x: torch.Tensor, y: np.ndarray, given: argparse.Namespace) -> None:
    """Print what extraction and one fit to all features take. Exits with an error above the memory they may take."""
    half = devices.find_precision("auto", torch.device("cpu")) == "bfloat16"
    began = time.perf_counter()
    X = features.extract(D, x, dtype=getattr(torch, given.dtype), autocast=half)
    took, found = time.perf_counter() - began, fit(X, y, given.C, given.tol)
    print(f"{X.shape[0]:,} x {X.shape[1]:,}, {given.dtype}, ten classes, C = {given.C:g}, gap "
          f"{found['svm'].gap_.max():.1e} of the objective: extraction {took:.0f} s, fit {found['seconds']:.0f} s, "
          f"{found['passes']} passes, peak memory {peak_gb():.1f} of at most {MOST[given.dtype]:g} GB")  # fmt: skip
    if peak_gb() > MOST[given.dtype]:
        raise SystemExit(f"error: the probe took {peak_gb():.1f} GB for {given.dtype} features")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000, help="images at the paper's size")
    parser.add_argument("--C", type=float, default=1e-4)
    parser.add_argument("--tol", type=float, default=1e-3, help="duality gap, as a share of the objective")
    parser.add_argument("--dtype", choices=MOST, help="of features, to measure time and memory at the paper's size")
    parser.add_argument("--kmeans", type=int, default=0, help="measure k-means of so many units")
    given = parser.parse_args()
    print(f"{runs.device_name()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    faces = data.load(f"toy-faces:{given.rows}", 32)
    y = pd.qcut(faces.attributes["yaw"], 10, labels=False).to_numpy()
    if given.kmeans:
        return time_kmeans(faces, y, given.kmeans, given.C, given.tol)
    _, D = models.build("imagenet32", seed=1)
    batchnorm.recalibrate_batchnorm(D, faces.x[:2000])
    if given.dtype:
        return at_the_papers_size(D, faces.x, y, given)
    half = devices.find_precision("auto", torch.device("cpu")) == "bfloat16"
    shares = [time_extraction(D, faces.x[:1024], autocast) for autocast in sorted({False, half})]
    print("Extraction, as a share of the bare forward pass's speed:\n", pd.DataFrame(shares).round(2), "\n")
    n, f = min(SMALL[0], len(faces)), SMALL[1]
    X = features.extract(D, faces.x[:n], autocast=half)[:, :f].contiguous()
    print(f"{n:,} x {f:,}, ten classes, C = {given.C:g}:")
    print(against_liblinear(X, y[:n], given.C, given.tol).round(4).to_string())


if __name__ == "__main__":
    main()
