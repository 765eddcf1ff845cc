"""The RBF SVM against scikit-learn's own scaler and SVC."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from lib.probe import l2svm


def test_it_is_scikit_learns_pipeline(monkeypatch):
    X, y = load_digits(return_X_y=True)  # some pixels are always 0
    X = X[:, X[:300].std(0) > 0] + 3  # gamma="scale" would count those that are
    theirs = make_pipeline(StandardScaler(), SVC(C=1.0)).fit(X[:300], y[:300])
    monkeypatch.setattr(l2svm, "RBF_ROWS", 64)
    ours = l2svm.predict_rbf(torch.from_numpy(X[:300]), y[:300], torch.from_numpy(X[300:]))
    assert np.mean(ours == theirs.predict(X[300:])) > 0.995
    assert np.mean(ours == y[300:]) > 0.75


def test_features_that_say_nothing_do_no_harm():
    X, y = load_digits(return_X_y=True)
    X = torch.from_numpy(X).bfloat16()
    assert (X[:300].float().std(0) == 0).any()
    assert np.mean(l2svm.predict_rbf(X[:300], y[:300], X[300:]) == y[300:]) > 0.75
