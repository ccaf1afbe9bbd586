"""k-means on features, and three ways in which it takes labels: as seeds, as members, as pairs.

Notation: rows of features ``x`` ``(n, d)``, centres ``mu`` ``(K, d)``, clusters ``(n,)`` with -1
for none yet, labels ``y`` ``(n,)`` with -1 = unlabelled, penalty ``w`` of a violated pair.

References
----------
Basu, Banerjee and Mooney, Semi-supervised Clustering by Seeding, ICML 2002.
Basu, Banerjee and Mooney, Active Semi-Supervision for Pairwise Constrained Clustering, SDM 2004.
Bilenko, Basu and Mooney, Integrating Constraints and Metric Learning in Semi-Supervised Clustering,
ICML 2004.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from methods.baselines import FeatureKMeans
from methods.method import UNLABELLED, Context, Tags, derive_seed
from methods.registry import register
from methods.toolkit.naming import cluster_of_each_class
from methods.toolkit.rows import Clustered
from methods.toolkit.stages.kmeans import nearest

NOBODY = -1
AT_LEAST = dict(max_iter=1, tol=0, w=0, n_pairs=0)
# From the costs ½·|x - mu|² (n, K) and the clusters before to the clusters now, and what the
# objective adds to the sum of their costs.
Assign = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]


def costs_of(x: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """½·|x - mu|² ``(n, K)`` float32 of rows ``(n, d)`` and centres ``(K, d)``."""
    half_x, half_mu = (np.einsum("nd,nd->n", rows, rows) / 2 for rows in (x, mu))
    return half_x[:, None] + half_mu - x @ mu.T


def cluster_means(x: np.ndarray, clusters: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """The means ``(K, d)`` float32 of the rows of each cluster; one without rows keeps its `mu`."""
    means = mu.astype(np.float32)
    order = np.argsort(clusters, kind="stable")[(clusters == NOBODY).sum() :]
    numbers, first = np.unique(clusters[order], return_index=True)
    for number, rows in zip(numbers, np.split(order, first[1:]), strict=False):
        means[number] = x[rows].mean(0, dtype=np.float64)
    return means


def lloyd(
    x: np.ndarray,
    mu: np.ndarray,
    clusters: np.ndarray,
    assign: Assign,
    max_iter: int,
    tol: float,
    context: Context,
) -> Clustered:
    """Lloyd's iterations: assign all rows, move each centre to its mean, until the centres stay.

    The objective, half the sum of squared distances and what `assign` adds, is logged after each
    assignment.

    Parameters
    ----------
    x : ``(n, d)`` rows.
    mu, clusters : centres ``(K, d)`` and clusters ``(n,)`` at the beginning.
    assign, max_iter, tol : see `Assign` and `SeededKMeans`.

    Returns
    -------
    The last centres, and the assignment whose means they are.
    """
    tolerance = tol * float(x.var(0).mean())
    for iteration in range(1, max_iter + 1):
        costs = costs_of(x, mu)
        clusters, penalty = assign(costs, clusters)
        own = costs[np.arange(len(x)), clusters].sum(dtype=np.float64)
        context.log(iteration=iteration, objective=float(own + penalty))
        context.progress("iteration", iteration, max_iter)
        before, mu = mu, cluster_means(x, clusters, mu)
        if np.square(mu - before, dtype=np.float64).sum() <= tolerance:
            break
    return Clustered(mu, clusters)


class Pairs(NamedTuple):
    """Pairs of rows: their indices `i` and `j` ``(m,)``, and whether they must share a cluster."""

    i: np.ndarray
    j: np.ndarray
    must: np.ndarray

    def violated(self, clusters: np.ndarray) -> int:
        """How many must-links have two clusters, and how many cannot-links have one."""
        return int(((clusters[self.i] == clusters[self.j]) != self.must).sum())

    def links(self, n: int) -> sparse.csr_array:
        """``(n, n)`` symmetric: 1 for a cannot-link, -1 for a must-link."""
        one_way = sparse.coo_array((np.where(self.must, -1.0, 1.0), (self.i, self.j)), (n, n))
        return (one_way + one_way.T).tocsr()


def draw_pairs(y: np.ndarray, n_pairs: int, drawing: np.random.Generator) -> Pairs:
    """`n_pairs` different pairs of labelled instances, all equally likely; all if there are fewer.

    Two of one class must be linked, two of different classes cannot be.
    """
    labelled = np.flatnonzero(y != UNLABELLED)
    n_all = math.comb(len(labelled), 2)
    number = np.arange(n_all) if n_all <= n_pairs else drawing.choice(n_all, n_pairs, replace=False)
    # Pairs (a, b) with b < a in the order (1, 0), (2, 0), (2, 1), (3, 0): number a·(a - 1)/2 + b.
    a = ((1 + np.sqrt(1 + 8 * number)) // 2).astype(np.int64)
    i, j = labelled[a], labelled[number - a * (a - 1) // 2]
    return Pairs(i, j, y[i] == y[j])


def neighbourhoods(pairs: Pairs, n: int) -> np.ndarray:
    """The neighbourhood ``(n,)`` of each row, from 0 on: those that must-links connect.

    A row with nothing but cannot-links is one of its own; -1 for a row in no pair.
    """
    i, j = pairs.i[pairs.must], pairs.j[pairs.must]
    graph = sparse.coo_array((np.ones(len(i)), (i, j)), (n, n))
    parts = connected_components(graph, directed=False)[1]
    paired, found = np.union1d(pairs.i, pairs.j), np.full(n, NOBODY)
    found[paired] = np.unique(parts[paired], return_inverse=True)[1]
    return found


def large_and_apart(x: np.ndarray, members: np.ndarray, k: int) -> np.ndarray:
    """`members` of k neighbourhoods alone, now numbered from 0 to k - 1, or of all if not more.

    First the largest; then, in turn, the one with the largest product of its size and the distance
    of its mean from the nearest one chosen (weighted farthest-first, Bilenko et al. 2004).

    Parameters
    ----------
    x : ``(n, d)`` rows.
    members : ``(n,)`` the neighbourhood of each row, -1 for none.
    """
    sizes = np.bincount(members[members != NOBODY])
    if len(sizes) <= k:
        return members
    means = cluster_means(x, members, np.zeros((len(sizes), x.shape[1])))
    chosen = [int(sizes.argmax())]
    while len(chosen) < k:
        scores = sizes * nearest(means, means[chosen])[1]
        scores[chosen] = -1  # not even where all others are at the place of one chosen
        chosen.append(int(scores.argmax()))
    number = np.full(len(sizes) + 1, NOBODY)  # the last is that of NOBODY
    number[chosen] = np.arange(k)
    return number[members]


def icm(
    costs: np.ndarray, clusters: np.ndarray, links: sparse.csr_array, w: float, order: np.ndarray
) -> np.ndarray:
    """Rows take, one after the other, the best cluster given those of all the others.

    Iterated conditional modes: a row in cluster h costs ``costs[i, h]``, and w for each pair of it
    that this violates. No step raises the objective.

    Parameters
    ----------
    costs : ``(n, K)``.
    clusters : ``(n,)`` the clusters before; pairs with a row of none do not count yet.
    links : ``(n, n)``, see `Pairs.links`.
    order : the rows that are in pairs, in the order of their turns; the others are independent.
    """
    found = costs.argmin(1)
    found[order] = clusters[order]
    members = np.eye(costs.shape[1] + 1)[found, :-1]  # (n, K) one-hot, 0 for none
    # A kept must-link counts -w here, not a violated one w: per row the same is missing for all h.
    costs = costs + w * (links @ members)
    for i in order:
        old, new = found[i], costs[i].argmin()
        if new != old:
            its_links = slice(links.indptr[i], links.indptr[i + 1])
            others, change = links.indices[its_links], w * links.data[its_links]
            costs[others, new] += change
            if old != NOBODY:
                costs[others, old] -= change
            found[i] = new
    return found


@register("seeded-kmeans")
@dataclass(eq=False, repr=False, kw_only=True)
class SeededKMeans(FeatureKMeans):
    """k-means whose first centres are the means of the labelled instances of each class.

    In Lloyd's iterations, which follow, labelled instances go where they are nearest, as all do. A
    class without labelled instances, which the paper allows for, starts at an unlabelled one, drawn
    as k-means++ does. A cluster that loses all its members keeps its centre. Without any label it
    is `simclr-kmeans`. Attributes: see `FeatureKMeans`.

    Parameters
    ----------
    max_iter : most iterations.
    tol : end when the squared moves of all centres add up to at most `tol` times the mean variance
        of the features, as in scikit-learn.
    n_init : runs of k-means where nothing is labelled.
    All others: see `FeatureMethod`.

    References
    ----------
    Basu, Banerjee and Mooney, ICML 2002, figure 1.
    """

    version: ClassVar[int] = 1
    tags: ClassVar[Tags] = Tags(without_labels="simclr-kmeans", family="k-means")

    max_iter: int = 300
    tol: float = 1e-4

    def _cluster(self, x: np.ndarray, y: np.ndarray, context: Context) -> Clustered:
        if (y == UNLABELLED).all():
            return super()._cluster(x, y, context)
        clusters, assign = self._start(x, y)
        mu = self._first_centres(x, clusters)
        return lloyd(x, mu, clusters, assign, self.max_iter, self.tol, context)

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        for name, least in AT_LEAST.items():
            if not least <= getattr(self, name, least) < math.inf:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; expected a finite number, at least {least}"
                )

    def _start(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, Assign]:
        """The first members ``(n,)`` of clusters, and how the iterations assign."""
        return y, lambda costs, before: (costs.argmin(1), 0.0)

    def _first_centres(self, x: np.ndarray, clusters: np.ndarray) -> np.ndarray:
        """The mean ``(K, d)`` of each cluster's first members; drawn where there are none.

        Drawn from the rows of no cluster, one by one, each with a probability proportional to its
        squared distance from the nearest centre so far.
        """
        mu = cluster_means(x, clusters, np.zeros((self.n_clusters, x.shape[1])))
        empty = np.setdiff1d(np.arange(self.n_clusters), clusters)
        known = np.delete(mu, empty, axis=0)
        rows = x[clusters == NOBODY] if NOBODY in clusters else x
        drawing = np.random.default_rng(derive_seed(self.random_state, "empty clusters"))
        for h in empty:
            distances = nearest(rows, known)[1] if len(known) else np.ones(len(rows))
            weights = np.square(distances, dtype=np.float64)
            weights = weights if weights.any() else np.ones(len(rows))  # all are centres already
            mu[h] = rows[drawing.choice(len(rows), p=weights / weights.sum())]
            known = np.concatenate([known, mu[[h]]])
        return mu


@register("constrained-kmeans")
@dataclass(eq=False, repr=False, kw_only=True)
class ConstrainedKMeans(SeededKMeans):
    """Seeded k-means in which labelled instances stay in the cluster of their class.

    They do so in every assignment while centres are found. In `labels_` all images have the nearest
    of the final centres, labelled ones too. Parameters: see `SeededKMeans`.

    Attributes
    ----------
    labels_, cluster_centers_ : see `FeatureKMeans`.
    constrained_labels_ : ``(n,)`` int64, the last assignment, in which labelled instances have
        their class; without any label, that of k-means.

    References
    ----------
    Basu, Banerjee and Mooney, ICML 2002, figure 2.
    """

    def _cluster(self, x: np.ndarray, y: np.ndarray, context: Context) -> Clustered:
        found = super()._cluster(x, y, context)
        self.constrained_labels_ = found.labels
        return found

    def _start(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, Assign]:
        return y, lambda costs, before: (np.where(y == UNLABELLED, costs.argmin(1), y), 0.0)


@register("pckmeans")
@dataclass(eq=False, repr=False, kw_only=True)
class PCKMeans(SeededKMeans):
    """k-means with pairs: must-links and cannot-links cost w where they are violated.

    The objective is ½·sum |x - mu|² + w·(number of violated pairs). Pairs are drawn from the
    labelled instances, and the labels serve as these pairs alone; at the end clusters are named by
    the labelled instances nearest to them, one to one, so that cluster j is class j.

    First centres are the means of neighbourhoods, sets of instances that must-links connect: K that
    are large and far from each other (`large_and_apart`), or where there are fewer, instances drawn
    as k-means++ does. In each iteration the instances in pairs choose their clusters one after the
    other, in random order (`icm`), the others all at once. Without any label it is `simclr-kmeans`.

    Where it differs from the papers: pairs that follow from others are not added, and the members
    of the first neighbourhoods start in their clusters. If they do not, a whole class may follow
    its first instances into the cluster of another one and stay there.

    Parameters
    ----------
    w : what a violated pair costs. SimCLR's features have length 1; others may ask for more.
    n_pairs : pairs that are drawn, without replacement; all if there are fewer. With 10 classes
        10,000 are must-links, which connect most of a class for up to some 7,000 labelled images.
    All others: see `SeededKMeans`.

    Attributes
    ----------
    labels_, cluster_centers_ : see `FeatureKMeans`.
    constrained_labels_ : ``(n,)`` int64, the last assignment, which heeds the pairs; without any
        label, that of k-means.

    References
    ----------
    Basu, Banerjee and Mooney, SDM 2004 (PCKMeans). Bilenko, Basu and Mooney, ICML 2004.
    """

    w: float = 1.0
    n_pairs: int = 100_000

    def _cluster(self, x: np.ndarray, y: np.ndarray, context: Context) -> Clustered:
        mu, clusters = super()._cluster(x, y, context)
        own = cluster_of_each_class(y, nearest(x, mu)[0], self.n_clusters)  # (K,)
        self.constrained_labels_ = own.argsort()[clusters]
        return Clustered(mu[own], self.constrained_labels_)

    def _start(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, Assign]:
        drawing = np.random.default_rng(derive_seed(self.random_state, "pairs"))
        pairs = draw_pairs(y, self.n_pairs, drawing)
        links, paired = pairs.links(len(x)), np.union1d(pairs.i, pairs.j)

        def assign(costs: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, float]:
            clusters = icm(costs, before, links, self.w, drawing.permutation(paired))
            return clusters, self.w * pairs.violated(clusters)

        return large_and_apart(x, neighbourhoods(pairs, len(x)), self.n_clusters), assign
