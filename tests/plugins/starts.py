"""A method that works in processes of its own, on functions of this file and of one beside it."""

from __future__ import annotations

import multiprocessing
import sys

import joblib
import numpy as np
from neighbour_of_starts import HALF  # the file beside this one

from methods.method import Context, Method, flatten
from methods.registry import register


def darkness(rows: np.ndarray) -> np.ndarray:
    """How dark each image is, computed in another process."""
    return HALF - rows.mean(axis=1)


@register("starts")
class Starts(Method):
    """Clusters by brightness, three times over: in joblib's and in multiprocessing's processes."""

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Starts:
        """Fit images ``(n, h, w[, c])``."""
        halves = np.array_split(flatten(X), 2)
        found = [joblib.Parallel(n_jobs=2)(joblib.delayed(darkness)(half) for half in halves)]
        for way in ("spawn", "fork") if sys.platform == "linux" else ("spawn",):
            with multiprocessing.get_context(way).Pool(1) as pool:
                found.append(pool.map(darkness, halves))
        for one in found:
            assert np.array_equal(np.concatenate(one), darkness(flatten(X)))
        self.labels_ = self.predict(X)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """A cluster from the mean brightness."""
        return np.floor((HALF - darkness(flatten(X))) * (self.n_clusters - 1)).astype(int)
