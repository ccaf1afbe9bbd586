"""Logistic regression against scikit-learn's lbfgs, and how near the optimum each ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import log_expit, log_softmax

from benchmarks.harness import WHOLE, Round
from methods.method import Context, flatten
from methods.toolkit.logistic import LogisticRegression

N_TRAIN = 60_000
# The largest entry of the gradient of the mean loss at which a fit ends; both solvers define it so.
TOL = 2e-5
PEER_TOL = 1e-4  # the peer's default: to go as near as ours would take it many minutes
MAX_ITER = 5_000
REFERENCE_ITER = 500  # of the longer fit that stands for the optimum: float32 gives no more
WITHIN = 1e-4  # of the optimum
BLOCK = 10_000


def objective(
    W: np.ndarray, b: np.ndarray, rows: np.ndarray, y: np.ndarray, multi_class: str
) -> float:
    """The mean loss plus ``|W|² / (2 n)`` (C = 1), in float64; W ``(k, d)``, b ``(k,)``."""
    W, b, total = W.astype(np.float64), b.astype(np.float64), 0.0
    for start in range(0, len(rows), BLOCK):
        logits = rows[start : start + BLOCK].astype(np.float64) @ W.T + b
        one_hot = np.eye(len(b))[y[start : start + BLOCK]]
        if multi_class == "multinomial":
            total -= (one_hot * log_softmax(logits, axis=1)).sum()
        else:
            total -= (one_hot * log_expit(logits) + (1 - one_hot) * log_expit(-logits)).sum()
    return float(total + (W**2).sum() / 2) / len(rows)


def fit_ours(
    X: np.ndarray, y: np.ndarray, multi_class: str, tol: float, max_iter: int
) -> LogisticRegression:
    """Our fit."""
    model = LogisticRegression(10, multi_class=multi_class, tol=tol, max_iter=max_iter)
    return model.fit(X, y, Context())


def fit_sklearn(rows: np.ndarray, y: np.ndarray, multi_class: str) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's weights ``(10, d)`` and intercepts ``(10,)``."""
    from sklearn.linear_model import LogisticRegression as Peer
    from sklearn.multiclass import OneVsRestClassifier

    peer = Peer(C=1.0, solver="lbfgs", tol=PEER_TOL, max_iter=MAX_ITER)
    if multi_class == "multinomial":
        peer.fit(rows, y)
        return peer.coef_, peer.intercept_
    each = OneVsRestClassifier(peer).fit(rows, y).estimators_
    return np.concatenate([one.coef_ for one in each]), np.ravel([one.intercept_ for one in each])


@pytest.mark.parametrize("multi_class", ["multinomial", "ovr"])
def test_pixels(versus: Callable[..., Any], images: Any, scale: Any, multi_class: str) -> None:
    n = scale.images(N_TRAIN)
    X, y = (part[:n] for part in images)
    rows = flatten(X)
    best = fit_ours(X, y, multi_class, TOL / 100, REFERENCE_ITER)
    optimum = objective(best.coef_, best.intercept_, rows, y, multi_class)

    def gap(W: np.ndarray, b: np.ndarray) -> dict[str, float]:
        return {"above the optimum": objective(W, b, rows, y, multi_class) - optimum}

    def ours() -> Round:
        start = time.perf_counter()
        model = fit_ours(X, y, multi_class, TOL, MAX_ITER)
        seconds = time.perf_counter() - start
        assert model.converged_, f"no convergence to {TOL} within {MAX_ITER} iterations"
        return Round({WHOLE: seconds}, gap(model.coef_, model.intercept_))

    def sklearn() -> Round:
        start = time.perf_counter()
        weights = fit_sklearn(rows, y, multi_class)
        return Round({WHOLE: time.perf_counter() - start}, gap(*weights))

    work = f"logistic regression, {multi_class}, {n:,} x {rows.shape[1]}"
    found = versus(work, {"fp32": ours}, {"scikit-learn lbfgs": sklearn}, rounds=1)
    assert found.ours["fp32"].figures["above the optimum"] < WITHIN
