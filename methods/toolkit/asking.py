"""Which instances a method asks labels for: those nearest the centres of clusters."""

from __future__ import annotations

import numpy as np

from methods.method import Arrays

NOBODY = -1


def nearest_members(clusters: np.ndarray, distances: np.ndarray, k: int) -> np.ndarray:
    """For each of k clusters the index of its member nearest the centre, -1 if it has none.

    Parameters
    ----------
    clusters : ``(n,)`` the cluster of each instance.
    distances : ``(n,)`` from each instance to its own centre; a tie goes to the lower index.
    """
    order = np.lexsort((distances, clusters))
    present, first = np.unique(clusters[order], return_index=True)
    members = np.full(k, NOBODY)
    members[present] = order[first]
    return members


def representatives(found: Arrays, budget: int, seed: int) -> np.ndarray:
    """The sorted indices ``(budget,)`` of the instances nearest the centres, the rest at random.

    Parameters
    ----------
    found : what the stage `kmeans` returns.
    seed : of what is drawn where there are fewer clusters than the budget.
    """
    members = nearest_members(found["labels"], found["distances"], len(found["centres"]))
    members = members[members != NOBODY][:budget]
    others = np.setdiff1d(np.arange(len(found["labels"])), members)
    drawn = np.random.default_rng(seed).choice(others, budget - len(members), replace=False)
    return np.sort(np.concatenate([members, drawn]))


def check_budget(budget: int, n: int) -> None:
    """Raise ValueError unless `budget` of n images can be asked for."""
    if not 1 <= budget <= n:
        raise ValueError(f"budget is {budget}; expected 1 to {n}, the number of images")
