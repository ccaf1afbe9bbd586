"""Label spreading over the nearest-neighbour graph of features that were learnt without labels.

The labelled instances hand their labels to their neighbours in the graph, these to theirs, and so
on. The iteration is scikit-learn's; the graph and the rule for new images stand here.

Notation: features ``z`` ``(n, d)``, graph ``W`` ``(n, n)`` sparse, label distributions ``F``
``(n, K)`` of n instances and K classes.

References
----------
Zhou, Bousquet, Lal, Weston and Schölkopf, Learning with Local and Global Consistency, NIPS 2003.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy import sparse
from sklearn import semi_supervised

from methods.baselines import FeatureKMeans
from methods.method import UNLABELLED, Context, Tags, check_like_fitted, derive_seed
from methods.registry import register
from methods.toolkit.graph import NeighbourMethod, nearest_rows
from methods.toolkit.rows import kmeans_of_rows
from methods.toolkit.stages.kmeans import nearest


def neighbour_graph(indices: np.ndarray) -> sparse.csr_array:
    """The symmetric graph W ``(n, n)`` of the fitted instances: 0 or 1, n·k to 2·n·k entries.

    Two instances are joined if either is among the k nearest others of the other one. Nobody is
    joined to itself. Zhou et al. assume such a graph. scikit-learn's own ``kernel="knn"`` differs
    in both respects: an instance counts among its own k neighbours, and edges have a direction, so
    that a label never reaches instances whose neighbours, and neighbours' neighbours, know of no
    labelled one.

    Parameters
    ----------
    indices : ``(n, k)``, the k nearest others of each instance.
    """
    n, k = indices.shape
    ones, starts = np.ones(n * k), np.arange(0, n * k + 1, k)
    directed = sparse.csr_array((ones, indices.ravel(), starts), shape=(n, n))
    return directed.maximum(directed.T).tocsr()


def spread(
    graph: sparse.csr_array, y: np.ndarray, n_clusters: int, alpha: float, max_iter: int, tol: float
) -> tuple[np.ndarray, int]:
    """Spread labels over a graph: F ← alpha·S·F + (1 - alpha)·Y until F stays as it is.

    S = D^-½ W D^-½ with the degrees D. All matrices with n rows and n columns are sparse.

    Parameters
    ----------
    graph : W ``(n, n)``, symmetric, without self-loops.
    y : ``(n,)`` labels, -1 where there is none.
    alpha, max_iter, tol : see `LabelSpreading`.

    Returns
    -------
    F ``(n, n_clusters)`` float64 and the number of iterations. Rows sum to 1; the row of an
    instance that no label reached is 0.
    """
    model = semi_supervised.LabelSpreading(
        kernel=lambda X, Y: graph, alpha=alpha, max_iter=max_iter, tol=tol
    )
    model.fit(np.arange(len(y), dtype=np.float64)[:, None], y)  # stand-ins: the graph is there
    F = np.zeros((len(y), n_clusters))
    F[:, model.classes_] = model.label_distributions_
    return F, model.n_iter_


def fill_from_nearest(F: np.ndarray, z: np.ndarray) -> np.ndarray:
    """`F` ``(n, K)`` with, for every row of 0, the row of the nearest instance that has another.

    Nearest by the distance between the features `z` ``(n, d)``. At least one row is not 0.
    """
    reached = F.any(1)
    filled = F.copy()
    if not reached.all():
        nearest = nearest_rows(z[~reached], z[reached], 1)[0][:, 0]
        filled[~reached] = F[reached][nearest]
    return filled


@register("label-spreading")
@dataclass(eq=False, repr=False, kw_only=True)
class LabelSpreading(NeighbourMethod):
    """Local and global consistency on features that were learnt without labels.

    scikit-learn's `LabelSpreading`, on the graph that joins every image with its nearest others
    (see `neighbour_graph`). It needs no n × n array: 70,000 images have at most 980,000 entries in
    the graph.

    An image that no label reaches (none in its part of the graph, or more edges away than there
    were iterations) takes the label distribution of the nearest instance that one did reach.
    Without any label there is nothing to spread: it is the k-means of the same features,
    `cae-kmeans`.

    A given label can change: alpha is what the neighbours weigh against it.

    Parameters
    ----------
    features : ``"autoencoder"``, DCEC's, or others; their own parameters: see `FeatureMethod`.
    n_neighbors : nearest others that each image is joined with, and the fitted images that decide
        on a new one.
    alpha : what the neighbours weigh against an instance's own label, above 0 and below 1.
    max_iter : most iterations; scikit-learn warns where they do not suffice.
    tol : stop when all changes of one iteration add up to less. scikit-learn's default, 1e-3, is
        for small data: with few labels among 70,000 instances it stops while labels still travel.
    n_init : runs of k-means without any label.
    random_state : seed of the features; spreading draws nothing.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the largest share of each instance's label distribution, for labelled
        instances too; without any label, k-means' clusters.
    probabilities_ : ``(n, n_clusters)`` float32, the label distributions; 0 for a class that had no
        label. Without any label, 1 for the cluster.
    label_distributions_ : the same in float64, which `predict` uses; only with labels.
    cluster_centers_ : ``(n_clusters, d)`` float32, of k-means; only without labels.
    n_iter_ : iterations; only with labels.

    References
    ----------
    Zhou, Bousquet, Lal, Weston and Schölkopf, Learning with Local and Global Consistency, NIPS
    2003.
    """

    version: ClassVar[int] = 1
    tags: ClassVar[Tags] = Tags(without_labels="cae-kmeans", family="graph")
    schedules: ClassVar[dict[str, dict[str, Any]]] = FeatureKMeans.schedules

    features: str = "autoencoder"
    n_neighbors: int = 7
    alpha: float = 0.2
    max_iter: int = 1000
    tol: float = 1e-12
    n_init: int = 20

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled.

        Height and width are at least 8, except for the features ``"pixels"``.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        """
        X, y, context = self._begin(X, y, context)
        self._spread = bool((y != UNLABELLED).any())
        if not self._spread:
            return self._fit_unlabelled(X, context)
        graph = neighbour_graph(self._find_neighbours(X, context)[0])
        F, self.n_iter_ = spread(graph, y, self.n_clusters, self.alpha, self.max_iter, self.tol)
        context.log(
            spreading_iterations=self.n_iter_,
            graph_edges=graph.nnz // 2,
            unreached=int((~F.any(1)).sum()),
        )
        self.label_distributions_ = fill_from_nearest(F, self._rows)
        self.probabilities_ = self.label_distributions_.astype(np.float32)
        self.labels_ = self.label_distributions_.argmax(1)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most probable class ``(n,)`` int64 of each image."""
        return self._distributions(X).argmax(1)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """The mean label distribution ``(n, n_clusters)`` float32 of each image's neighbours.

        These are the `n_neighbors` fitted images with the nearest features, as in scikit-learn. An
        image at the very place of fitted ones takes the mean of these alone, so that a fitted image
        keeps its own distribution, unless others equal it.
        """
        return self._distributions(X).astype(np.float32)

    def _fit_unlabelled(self, X: np.ndarray, context: Context) -> Self:
        """Without labels there is nothing to spread: k-means."""
        x = self._learn_features(X, context)
        seed = derive_seed(self.random_state, "kmeans")  # the runs of `cae-kmeans`
        self.cluster_centers_ = kmeans_of_rows(x, self.n_clusters, self.n_init, seed).centres
        self.labels_ = nearest(x, self.cluster_centers_)[0]
        self.probabilities_ = self._one_hot(self.labels_)
        return self

    def _distributions(self, X: np.ndarray) -> np.ndarray:
        """`predict_proba` in float64."""
        X = check_like_fitted(self, X)
        if not self._spread:
            return self._one_hot(nearest(self.transform(X), self.cluster_centers_)[0])
        return self._mean_of_nearest(X, self.label_distributions_)

    def _one_hot(self, clusters: np.ndarray) -> np.ndarray:
        return np.eye(self.n_clusters, dtype=np.float32)[clusters]

    def _check_parameters(self, n: int) -> None:
        """Raise ValueError for a parameter that n images cannot be spread with."""
        super()._check_parameters(n)
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}; expected above 0 and below 1")
        if not self.max_iter >= 1:
            raise ValueError(f"max_iter is {self.max_iter}; expected at least 1")
        if not self.tol >= 0:
            raise ValueError(f"tol is {self.tol}; expected at least 0")
