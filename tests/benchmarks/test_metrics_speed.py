"""How long all metrics of 70,000 labels take together (shown, not asserted)."""

from __future__ import annotations

import numpy as np
import pytest

from bench import metrics

pytest.importorskip("pytest_benchmark")


def test_all_metrics_of_70000_labels(benchmark):
    rng = np.random.default_rng(0)
    y_true = np.arange(70_000) % 10
    labels = np.where(rng.random(70_000) < 0.7, y_true, rng.integers(0, 10, 70_000))

    def all_metrics():
        table = metrics.contingency_matrix(y_true, labels, n_classes=10, n_clusters=10)
        return metrics.scores(table, named=True)

    scores = benchmark(all_metrics)
    assert scores["n"] == 70_000
    assert scores["acc"] == metrics.acc(y_true, labels)
