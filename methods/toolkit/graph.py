"""Graphs of nearest neighbours: which images are joined, how strongly, and the Laplacian's solver.

Notation: rows ``z`` ``(n, d)``, weights ``W`` ``(n, n)`` sparse and symmetric, degrees
``d_i = sum over j of w_ij``, D the diagonal matrix of them, L = D - W the graph Laplacian.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee
from scipy.sparse.linalg import cg
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from methods.method import Context, StageRequest
from methods.toolkit.features import FeatureMethod
from methods.toolkit.stages.neighbours import neighbours

BLOCK = 1024  # queries; their products with 70,000 rows are 287 MB
FEW_COLUMNS = 15  # up to here a tree finds neighbours faster
SHARED_NEIGHBOURS = 20  # as many as SCAN asks for: one search serves both
SAME_PLACE = 1e-5  # of the rows' size: what float32 leaves open from one batch to another
DECAY = 4.0  # of `gaussian_graph`, as Calder et al. (2020)


def nearest_rows(queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows nearest to each query, the nearest first.

    Rows of few columns are searched with a tree, others by comparing all pairs.

    Parameters
    ----------
    queries, rows : ``(m, d)`` and ``(n, d)`` float32, k at most n.

    Returns
    -------
    Indices ``(m, k)`` int64 and Euclidean distances ``(m, k)``.
    """
    if rows.shape[1] <= FEW_COLUMNS:
        distances, indices = NearestNeighbors(n_neighbors=k).fit(rows).kneighbors(queries)
        return indices, distances
    to = torch.from_numpy(rows)
    half_norms = to.square().sum(1) / 2
    found = []
    for block in torch.from_numpy(queries).split(BLOCK):
        # of ½‖z‖² - x·z: smallest where the distance is; for rows far from 0 rounding blurs it
        found.append(torch.addmm(half_norms, block, to.T, alpha=-1).topk(k, 1, largest=False)[1])
    indices = torch.cat(found).numpy()
    distances = distances_to(indices, queries, rows)
    order = distances.argsort(1, kind="stable")
    return np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1)


def nearest_others(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and distances ``(n, k)`` of the k other rows nearest to each row."""
    if rows.shape[1] <= FEW_COLUMNS:
        distances, indices = NearestNeighbors(n_neighbors=k).fit(rows).kneighbors()
        return indices, distances
    indices, distances = nearest_rows(rows, rows, k + 1)
    itself = indices == np.arange(len(rows))[:, None]
    itself[~itself.any(1), -1] = True  # among copies of itself it may not be found
    return indices[~itself].reshape(-1, k), distances[~itself].reshape(-1, k)


def distances_to(indices: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Euclidean distances ``(m, k)`` float32 of queries ``(m, d)`` to the rows of `indices`."""
    found = np.empty(indices.shape, dtype=np.float32)
    for start in range(0, len(indices), BLOCK):
        block = slice(start, start + BLOCK)
        found[block] = np.linalg.norm(rows[indices[block]] - queries[block, None], axis=2)
    return found


def gaussian_graph(indices: np.ndarray, distances: np.ndarray) -> sparse.csr_array:
    """Weights ``w_ij = exp(-4 |z_i - z_j|² / d_k(z_i)²)`` of neighbours, made symmetric.

    d_k is the distance to the last of the k neighbours; both directions are averaged.

    Parameters
    ----------
    indices, distances : ``(n, k)``, the k nearest others of each row, the nearest first.

    References
    ----------
    Calder, Cook, Thorpe and Slepčev, Poisson Learning, ICML 2020, section 4.
    """
    n, k = indices.shape
    width = np.maximum(distances[:, -1:].astype(np.float64), np.finfo(np.float32).tiny)
    weights = np.exp(-DECAY * np.square(distances / width))
    starts = np.arange(0, n * k + 1, k)
    directed = sparse.csr_array((weights.ravel(), indices.ravel(), starts), shape=(n, n))
    return ((directed + directed.T) / 2).tocsr()


def connected(graph: sparse.csr_array, rows: np.ndarray) -> sparse.csr_array:
    """`graph` with one more edge, of weight 1, for each component but the largest.

    It joins the nearest pair of rows of the two. On a graph of several components labels do not
    reach everywhere, and Poisson's equation has a solution only by chance.
    """
    n_components, component = connected_components(graph, directed=False)
    if n_components == 1:
        return graph
    largest = np.bincount(component).argmax()
    main = np.flatnonzero(component == largest)
    pairs = []
    for number in np.setdiff1d(np.arange(n_components), [largest]):
        members = np.flatnonzero(component == number)
        nearest, distances = pairwise_distances_argmin_min(rows[members], rows[main])
        at = distances.argmin()
        pairs.append((members[at], main[nearest[at]]))
    here, there = np.array(pairs).T
    edges = sparse.csr_array((np.ones(len(pairs)), (here, there)), shape=graph.shape)
    return (graph + edges + edges.T).tocsr()


def in_order_of_neighbours(graph: sparse.csr_array) -> np.ndarray:
    """An order ``(n,)`` of the nodes in which neighbours stand near each other.

    A product of 70,000 nodes' graph with ten columns took 9 ms in this order, 34 ms in that of the
    images: what it gathers is in the cache.

    References
    ----------
    Cuthill and McKee, Reducing the bandwidth of sparse symmetric matrices, 1969.
    """
    return reverse_cuthill_mckee(sparse.csr_matrix(graph), symmetric_mode=True)


def degrees(graph: sparse.csr_array) -> np.ndarray:
    """The degrees ``(n,)`` of a graph, all above 0 where it is connected."""
    return np.asarray(graph.sum(axis=1)).ravel()


def solve(
    A: sparse.csr_array,
    B: np.ndarray,
    tol: float,
    max_iter: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """X ``(n, K)`` with A X = B by conjugate gradients, scaled by A's diagonal, from X = 0.

    Parameters
    ----------
    A : ``(n, n)`` symmetric, positive definite; or semi-definite, with columns of B in its range:
        then X is the solution without a part in its kernel, in the scaled variables.
    B : ``(n, K)``.
    tol : end when the residual is below this share of the column's length.
    max_iter : most iterations for a column; a warning says where they did not suffice.
    progress : told how many columns are done, and of how many.
    """
    root = np.sqrt(A.diagonal())
    scaled = sparse.csr_array(A.multiply(1 / root[:, None]).multiply(1 / root))
    X = np.zeros(B.shape)
    late = 0
    with threadpool_limits(1):  # scalar products: threads wait for each other, and sums change
        for j in range(B.shape[1]):
            column, info = cg(scaled, B[:, j] / root, rtol=tol, maxiter=max_iter)
            X[:, j] = column / root
            late += info != 0
            progress(j + 1, B.shape[1])
    if late:
        warnings.warn(
            f"conjugate gradients did not reach the tolerance {tol} within {max_iter} iterations "
            f"for {late} of {B.shape[1]} classes; raise max_iter or tol",
            stacklevel=2,
        )
    return X


@dataclass(eq=False, repr=False, kw_only=True)
class NeighbourMethod(FeatureMethod):
    """A method on the graph of nearest neighbours in its features.

    Parameters
    ----------
    n_neighbors : k, the nearest others that each image is joined with, and the fitted images that
        decide on a new one.
    All others: see `FeatureMethod`.
    """

    n_neighbors: int = 10

    def _find_neighbours(self, X: np.ndarray, context: Context) -> tuple[np.ndarray, np.ndarray]:
        """Indices and distances ``(n, k)`` of each image's nearest others; sets `_rows`."""
        features = self._stage_features(X, context)
        self._rows = self._scaled(features)
        k = self.n_neighbors
        if self.features != "simclr":
            return nearest_others(self._rows, k)
        request = StageRequest(neighbours, {"k": min(max(k, SHARED_NEIGHBOURS), len(X) - 1)})
        indices = self._ask(request, features, context)["indices"][:, :k]
        return np.array(indices), distances_to(indices, self._rows, self._rows)

    def _mean_of_nearest(self, X: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The mean ``(m, K)`` of the fitted images' `scores` ``(n, K)`` over each image's nearest.

        An image at the very place of fitted ones takes the mean of these alone, so that a fitted
        image keeps its own, unless others equal it.
        """
        indices, distances = nearest_rows(self.transform(X), self._rows, self.n_neighbors)
        size = float(np.sqrt(np.square(self._rows).sum(1).mean()))
        here = distances <= SAME_PLACE * size
        weights = np.where(here.any(1, keepdims=True), here, 1.0)
        weights /= weights.sum(1, keepdims=True)
        return np.einsum("mk,mkc->mc", weights, scores[indices])

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        if not 1 <= self.n_neighbors < n:
            raise ValueError(
                f"n_neighbors is {self.n_neighbors} with {n} images; expected 1 to {n - 1}, since "
                "an image is not its own neighbour"
            )
