"""Embeddings of methods that have ``transform``, for pictures of how they change with supervision.

A fit of seed 0 keeps the embedding of a fixed sample of the fitted images beside its labels in the
cache, as the array `EMBEDDING`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.core.errors import BenchError

LEVELS = ("0%", "1%", "10%", "50%")  # Figure 2 of SS-DCEC
N_POINTS = 3_000
SAMPLE_SEED = 2
EMBEDDING = "embedding"  # the array of a fit in the cache
WIDE = 32  # columns; of more than these half precision is kept


def sample(n: int) -> np.ndarray:
    """Which of `n` fitted images are shown, ascending int64: `N_POINTS` of them, at most all.

    Drawn uniformly, without a look at labels or images; for one number of fitted images the same
    in every method, level and run.
    """
    order = np.random.default_rng(SAMPLE_SEED).permutation(n)
    return np.sort(order[:N_POINTS])


def kept(method: Any, level: str, seed: int) -> bool:
    """Whether a fit of `method` at `level` keeps its embedding.

    Of a method that ignores labels the fit serves every level, so it does at each.
    """
    wanted = level in LEVELS or not method.tags.uses_labels
    return seed == 0 and wanted and hasattr(method, "transform")


def embed(method: Any, X: np.ndarray) -> np.ndarray:
    """The embedding ``(m, d)`` of the sampled ones among the images that `method` was fitted on.

    float32; of more than `WIDE` columns float16, where its error is below a thousandth of the
    largest value.

    Parameters
    ----------
    method : fitted, with ``transform``.
    X : ``(n, height, width[, channels])`` the fitted images.

    Raises
    ------
    BenchError : ``transform`` gives no d finite numbers for each image. It may raise anything else.
    """
    chosen = sample(len(X))
    found = np.asarray(method.transform(X[chosen]))
    expected = f"expected ({len(chosen)}, d) finite numbers, the embedding of each image"
    if found.ndim != 2 or len(found) != len(chosen) or found.dtype.kind not in "fiu":
        raise BenchError(f"transform gives {found.dtype} with shape {found.shape}; {expected}")
    with np.errstate(over="ignore"):
        rows = found.astype(np.float32)
        half = rows.astype(np.float16)
    if rows.shape[1] == 0 or not np.isfinite(rows).all():
        raise BenchError(f"transform gives no column, or numbers without end; {expected}")
    error = np.abs(half.astype(np.float32) - rows).max()
    return half if rows.shape[1] > WIDE and error <= np.abs(rows).max() / 1_000 else rows
