"""A method that costs nothing, so that a trial of it costs what the suite costs."""

from __future__ import annotations

import numpy as np

from methods.method import Context, Method
from methods.registry import register


@register("trivial")
class Trivial(Method):
    """Puts every image into cluster 0."""

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Trivial:
        """All of ``X`` to cluster 0."""
        self.labels_ = np.zeros(len(X), dtype=np.int64)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Cluster 0 for every image."""
        return np.zeros(len(X), dtype=np.int64)
