"""What a history tells of the clusters that images are assigned to, and when they have settled."""

from __future__ import annotations

from collections.abc import Callable

import torch

from methods.method import UNLABELLED
from methods.toolkit.training import Loop


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


def descend_until_settled(
    loop: Loop,
    refresh: Callable[[], torch.Tensor],
    max_iterations: int,
    update_interval: int,
    delta: float,
) -> tuple[torch.Tensor, str]:
    """Descend; stop when fewer than `delta` of all assignments changed within one interval.

    Parameters
    ----------
    refresh : computes q ``(n, K)`` and the targets anew; logs the share that ``changed``.

    Returns
    -------
    The last q, and ``"converged"`` or ``"max_iterations"``.
    """
    for rows in loop.steps(max_iterations):
        if loop.done % update_interval == 0:
            q = refresh()
            changed = loop.history[-1]["changed"]
            if changed is not None and changed < delta:
                return q, "converged"
        loop.descend(rows)
    return refresh(), "max_iterations"
