"""An embedding in the plane, by UMAP: a layout that follows another one, and how far to trust it.

References
----------
McInnes, Healy and Melville, UMAP: Uniform Manifold Approximation and Projection for Dimension
Reduction, arXiv:1802.03426, 2018.
Venna and Kaski, Neighborhood Preservation in Nonlinear Projection Methods: An Experimental Study,
ICANN 2001 (trustworthiness).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from bench.core import metrics
from bench.records.projections import SIDE, Scores

NEIGHBOURS = 15  # of UMAP, of trustworthiness, and that vote
LEAST = 4 * NEIGHBOURS  # points of which there is a layout worth a look
MARGIN = 3  # places at each edge that stay empty, so that no point is cut
DIGITS = 4


def made_by() -> dict[str, str | int | float]:
    """UMAP's version and what it is given."""
    from importlib.metadata import version

    umap = version("umap-learn")
    return {"umap": umap, "n_neighbors": NEIGHBOURS, "min_dist": 0.1, "random_state": 0}


def places(embedding: np.ndarray, start: np.ndarray | None, made_by: dict[str, Any]) -> np.ndarray:
    """The points of an embedding in a square of `SIDE` places a side: ``(m, 2)`` uint8.

    Parameters
    ----------
    embedding : ``(m, d)`` finite numbers, m at least `LEAST`.
    start : ``(m, 2)`` uint8, where the same points are in the picture before. UMAP begins there
        instead of at the spectral layout, and its result is turned and mirrored so that the points
        come to lie as near to these places as they can (Procrustes).
    made_by : of `made_by`.
    """
    from umap import UMAP  # numba compiles it, which takes up to a minute

    parameters = {name: value for name, value in made_by.items() if name != "umap"}
    init = "spectral" if start is None else start.astype(np.float32)
    with threadpool_limits(1), warnings.catch_warnings():  # so that no sum depends on threads
        for known in ("Graph is not fully connected", "Spectral initiali", "n_jobs value"):
            warnings.filterwarnings("ignore", known)
        model = UMAP(n_components=2, init=init, n_jobs=1, **parameters)
        points = model.fit_transform(np.asarray(embedding, np.float32))
    return in_square(points if start is None else turned(points, start))


def turned(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """`points` ``(m, 2)`` turned and mirrored about their mean, as near to `onto` as they can."""
    centred, aims = points - points.mean(0), onto - onto.mean(0)
    rotation, _ = orthogonal_procrustes(centred, aims)
    return centred @ rotation


def in_square(points: np.ndarray) -> np.ndarray:
    """`points` ``(m, 2)`` as uint8, in the middle of the square and as large as it allows."""
    low, high = points.min(0), points.max(0)
    extent = (high - low).max() or 1.0
    room = SIDE - 1 - 2 * MARGIN
    return np.rint((points - (low + high) / 2) / extent * room + (SIDE - 1) / 2).astype(np.uint8)


def scores(embedding: np.ndarray, placed: np.ndarray, y: np.ndarray, n_classes: int) -> Scores:
    """How far the picture can be trusted, and how separable classes are in the embedding.

    Parameters
    ----------
    embedding, placed : ``(m, d)``, and ``(m, 2)`` of `places`.
    y : ``(m,)`` the true classes, 0 to `n_classes` - 1.
    """
    rows = np.asarray(embedding, np.float32)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than clusters
        kept = trustworthiness(rows, placed.astype(np.float32), n_neighbors=NEIGHBOURS)
        near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(rows).kneighbors(return_distance=False)
        clusters = KMeans(min(n_classes, len(rows)), n_init=10, random_state=0).fit_predict(rows)
    voted = np.array([np.bincount(y[others]).argmax() for others in near])
    found = kept, np.mean(voted == y), metrics.acc(y, clusters)
    return Scores(*(round(float(np.clip(value, 0, 1)), DIGITS) for value in found))
