"""How long all metrics of 70,000 labels take together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.core import metrics
from benchmarks.harness import WHOLE, timed


def test_all_metrics_of_70000_labels(versus: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    y_true = np.arange(70_000) % 10
    labels = np.where(rng.random(70_000) < 0.7, y_true, rng.integers(0, 10, 70_000))

    def all_metrics() -> dict[str, Any]:
        table = metrics.contingency_matrix(y_true, labels, n_classes=10, n_clusters=10)
        return metrics.scores(table, named=True)

    versus(
        "all metrics of 70,000 labels", {"": timed(all_metrics)}, rounds=20, at_most={WHOLE: 0.1}
    )
    scores = all_metrics()
    assert scores["n"] == 70_000
    assert scores["acc"] == metrics.acc(y_true, labels)
