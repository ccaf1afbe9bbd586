"""Methods that work: small and quick."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from methods.method import Context, Method, Tags, check_images, check_labels, flatten
from methods.registry import register


def spread(rows: np.ndarray, n_clusters: int, random_state: int | None) -> np.ndarray:
    """Centres of ten steps of k-means from random rows."""
    rng = np.random.default_rng(random_state)
    centres = rows[rng.choice(len(rows), n_clusters, replace=False)]
    for _ in range(10):
        labels = nearest(rows, centres)
        for k in np.unique(labels):
            centres[k] = rows[labels == k].mean(axis=0)
    return centres


def nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of each row."""
    return np.argmin(((rows[:, None] - centres[None]) ** 2).sum(axis=2), axis=1)


@register("near")
class Near(Method):
    """The nearest mean of the labelled images; without labels, k-means."""

    schedules = {"smoke": {"shrink": 0.5}}

    def __init__(
        self, n_clusters: int = 10, shrink: float = 0.0, random_state: int | None = None
    ) -> None:
        self.n_clusters = n_clusters
        self.shrink = shrink
        self.random_state = random_state

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Near:
        """Fit images ``(n, h, w[, c])`` with labels ``(n,)``, -1 = unlabelled."""
        rows = flatten(check_images(X))
        y = check_labels(y, len(X), self.n_clusters)
        print(f"near was shown {np.sum(y >= 0)} labels")
        if np.any(y >= 0):
            self.centres_ = np.full((self.n_clusters, rows.shape[1]), np.inf, dtype=np.float32)
            for k in np.unique(y[y >= 0]):
                mean = rows[y == k].mean(axis=0)
                self.centres_[k] = mean + self.shrink * 0.1 * (rows.mean(axis=0) - mean)
        else:
            self.centres_ = spread(rows, self.n_clusters, self.random_state)
        self.labels_ = nearest(rows, self.centres_)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The nearest centre of each image."""
        return nearest(flatten(check_images(X)), self.centres_)

    def select(self, X: np.ndarray, budget: int, context: Any = None) -> np.ndarray:
        """Evenly spaced images."""
        return np.arange(budget) * (len(X) // budget)


@register("blind")
class Blind(Method):
    """k-means: it does not look at the labels."""

    tags = Tags(uses_labels=False, inductive=False)

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Blind:
        """Fit images ``(n, h, w[, c])``."""
        rows = flatten(check_images(X))
        self.labels_ = nearest(rows, spread(rows, self.n_clusters, self.random_state))
        print(f"blind has fitted, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}")
        return self


@register("taught")
class Taught(Near):
    """As near, but of no use without labels."""

    tags = Tags(needs_labels=True)
