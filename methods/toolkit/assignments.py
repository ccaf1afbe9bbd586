"""What a history tells of the clusters that images are assigned to."""

from __future__ import annotations

import torch

from methods.method import UNLABELLED


def compared(q: torch.Tensor, before: torch.Tensor, y: torch.Tensor) -> dict[str, float | None]:
    """What the history tells of soft assignments q ``(n, K)``; None where nothing can be compared.

    Parameters
    ----------
    before : ``(n,)`` the clusters at the time before, -1 if there was none.
    y : ``(n,)`` labels, -1 where there is none.
    """
    assigned, known, labelled = q.argmax(1), before != UNLABELLED, y != UNLABELLED
    return {
        "changed": _share((assigned != before)[known]),
        "clusters_in_use": len(assigned.unique()),
        "labelled_agreement": _share(assigned[labelled] == y[labelled]),
    }


def _share(condition: torch.Tensor) -> float | None:
    """The share of True; None where there is nothing to count."""
    return float(condition.double().mean()) if len(condition) else None
