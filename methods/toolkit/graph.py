"""Graphs of nearest neighbours: which images are joined, how strongly, and the Laplacian's solver.

Notation: rows ``z`` ``(n, d)``, weights ``W`` ``(n, n)`` sparse and symmetric, degrees
``d_i = sum over j of w_ij``, D the diagonal matrix of them, L = D - W the graph Laplacian.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg
from sklearn.metrics import pairwise_distances_argmin_min

BLOCK = 1024  # queries; their products with 70,000 rows are 287 MB
DECAY = 4.0  # of `gaussian_graph`, as Calder et al. (2020)


def nearest_rows(queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows nearest to each query, the nearest first.

    All pairs are compared, a block of queries at a time.

    Parameters
    ----------
    queries, rows : ``(m, d)`` and ``(n, d)`` float32, k at most n.

    Returns
    -------
    Indices ``(m, k)`` int64 and Euclidean distances ``(m, k)`` float32.
    """
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
