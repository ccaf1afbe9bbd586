"""Images as rows of numbers, and k-means on rows of few columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from methods.method import check_images, flatten


def as_rows(X: np.ndarray) -> np.ndarray:
    """A new float32 array ``(n, d)``: pixels in [0, 1] of uint8 images, or a copy of float rows.

    Raises
    ------
    ValueError : neither images nor rows, or rows with values that are not finite.
    """
    X = np.asanyarray(X)
    if X.dtype.kind != "f" or X.ndim != 2:
        return flatten(check_images(X))
    if not np.isfinite(X).all():
        raise ValueError(
            "the rows hold NaN or infinity; expected finite numbers: mend their source"
        )
    return np.array(X, dtype=np.float32)


class Clustered(NamedTuple):
    """Centres ``(k, d)`` float32 and labels ``(n,)`` int64."""

    centres: np.ndarray
    labels: np.ndarray


def kmeans_of_rows(rows: np.ndarray, n_clusters: int, n_init: int, seed: int) -> Clustered:
    """scikit-learn's k-means on rows ``(n, d)`` of few columns, an embedding say.

    There it is faster than the stage `kmeans`, which is for pixels. It has one thread: with more,
    it adds up their sums in the order in which they end, and one seed gives several results.

    Parameters
    ----------
    n_clusters, n_init : clusters, at most n, and runs, of which the best counts.
    """
    if not 1 <= n_clusters <= len(rows):
        raise ValueError(
            f"n_clusters is {n_clusters} for {len(rows)} instances; expected 1 to {len(rows)}: ask "
            "for fewer"
        )
    model = KMeans(n_clusters, n_init=n_init, algorithm="lloyd", random_state=seed % 2**32)
    with threadpool_limits(1):
        model.fit(rows)
    return Clustered(model.cluster_centers_.astype(np.float32), model.labels_.astype(np.int64))
