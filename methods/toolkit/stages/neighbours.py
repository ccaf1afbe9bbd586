"""The nearest neighbours of every instance: found exactly, and drawn from.

References
----------
Van Gansbeke, Vandenhende, Georgoulis, Proesmans and Van Gool, SCAN: Learning to Classify Images
without Labels, ECCV 2020, section 2.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from methods.method import UNLABELLED, Arrays, Context, stage
from methods.toolkit.draws import Draws

BLOCK = 512  # similarities of 512 instances to 70,000 others are 143 MB in float32


@stage(version=1)
def neighbours(X: np.ndarray, *, random_state: int, context: Context, k: int) -> Arrays:
    """The k most similar other instances of every instance: exact, by cosine similarity.

    Parameters
    ----------
    X : ``(n, d)`` float rows. Their lengths do not matter; a row of zeros is similar to none.
    random_state : not used: nothing is drawn. Every stage has it.
    context : device and progress (``"block"``).
    k : neighbours of each instance, at most n - 1: an instance is no neighbour of itself.

    Returns
    -------
    ``"indices"`` ``(n, k)`` int64, the most similar one first.

    Raises
    ------
    ValueError : `k` out of range, or rows that are no finite numbers.

    Notes
    -----
    All pairs are compared, in blocks of 512 rows. 70,000 rows of 512 numbers need about 600 MB.
    """
    rows = _checked_rows(X, k)
    directions = F.normalize(torch.from_numpy(rows).to(context.device), dim=1)
    n_blocks = math.ceil(len(rows) / BLOCK)
    indices = torch.empty(len(rows), k, dtype=torch.int64)
    buffer = directions.new_empty(min(BLOCK, len(rows)), len(rows))
    for number, block in enumerate(directions.split(BLOCK)):
        start = number * BLOCK
        # Reuse one buffer: allocating 143 MB per block took a sixth of the time.
        similarity = torch.mm(block, directions.T, out=buffer[: len(block)])  # (BLOCK, n)
        similarity.diagonal(start).fill_(-torch.inf)  # the instance itself
        indices[start : start + len(block)] = similarity.topk(k, dim=1).indices.cpu()
        context.progress("block", number + 1, n_blocks)
    return {"indices": indices.numpy()}


def _checked_rows(X: np.ndarray, k: int) -> np.ndarray:
    """`X` as float32 rows of its own memory; a ValueError for what cannot be used."""
    rows = np.array(X, dtype=np.float32)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(
            f"X has shape {rows.shape}; expected (n, d) finite numbers, one row per instance"
        )
    if not 1 <= k < len(rows):
        raise ValueError(
            f"k is {k} with {len(rows)} instances; expected 1 to {len(rows) - 1} neighbours, since "
            "an instance is not its own"
        )
    return rows


@dataclass(frozen=True)
class NeighbourLists:
    """The neighbours that each instance is paired with.

    Parameters
    ----------
    indices : ``(n, k)`` int64; of row i, the first ``counts[i]`` entries are used.
    counts : ``(n,)`` int64, at least 1.
    """

    indices: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def of(cls, indices: np.ndarray, y: np.ndarray) -> NeighbourLists:
        """All neighbours ``(n, k)`` but those known to be of another class.

        A neighbour is removed where it and the instance are labelled (`y` ``(n,)`` is not -1) and
        their classes differ. An instance that keeps none is its own neighbour.
        """
        known = (y[:, None] != UNLABELLED) & (y[indices] != UNLABELLED)
        removed = known & (y[:, None] != y[indices])  # (n, k)
        kept_first = np.argsort(removed, axis=1, kind="stable")
        lists = np.take_along_axis(np.asarray(indices), kept_first, axis=1)
        counts = (~removed).sum(1)
        lists[counts == 0, 0] = np.flatnonzero(counts == 0)
        return cls(torch.from_numpy(lists), torch.from_numpy(counts.clip(min=1)))

    def to(self, device: str) -> NeighbourLists:
        """The same on a device."""
        return NeighbourLists(self.indices.to(device), self.counts.to(device))

    def draw(self, rows: torch.Tensor, draws: Draws) -> torch.Tensor:
        """One neighbour of each of `rows` ``(m,)``, drawn uniformly from its list: ``(m,)``."""
        m = len(rows)

        def places(drawing: torch.Generator, step: int) -> torch.Tensor:
            return torch.rand(m, generator=drawing, dtype=torch.float64)

        place = draws("neighbours", places)
        return self.indices[rows, (place * self.counts[rows]).long()]
