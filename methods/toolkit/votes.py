"""What labelled members say of their clusters."""

from __future__ import annotations

import numpy as np

from methods.method import UNLABELLED


def count_votes(y: np.ndarray, clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    """How many labelled members of each class each cluster has: ``(n_clusters, max(y) + 1)``.

    Parameters
    ----------
    y : ``(n,)`` labels, -1 where there is none.
    clusters : ``(n,)`` the cluster of each instance.
    """
    votes = np.zeros((n_clusters, int(y.max()) + 1))
    labelled = y != UNLABELLED
    np.add.at(votes, (clusters[labelled], y[labelled]), 1)
    return votes
