"""Metrics of a clustering against true labels, as pure functions.

Every metric takes two label arrays, or the contingency table of both (`contingency=`), so
that it can be computed again from a stored table alone.

A table has one row per class, one column per cluster and one last column more: the instances
that belong to no cluster (label -1), because the method left them unassigned or because
their cluster got no name. The last column is always there, mostly zeros. `acc`, `accuracy`,
`purity` and `recall` count these instances as wrong; `nmi` and `ari` take them as one more
cluster, as scikit-learn does with the label -1.

Where clusters are *named*, cluster j is class j, and the table is the confusion matrix.

`y_true` and `labels` are integer arrays of shape (n,); a `contingency` has shape
(n_classes, n_clusters + 1). Anything else raises `bench.errors.BenchError`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, TypedDict

import msgspec
import numpy as np
import numpy.typing as npt

from bench.core.errors import BenchError

IntArray = npt.NDArray[np.int64]
Given = npt.ArrayLike | None
# Ids are row and column numbers. A stray id such as 10**9 would ask for a table of gigabytes.
MAX_CELLS = 2**26
# What a record may hold: finite numbers in range. Sums of so large counts are still exact.
Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Value = Annotated[float, msgspec.Meta(ge=-1, le=1)]  # a correlation can be negative


class Scores(TypedDict):
    """What a record keeps for one subset, ready for JSON.

    `recall` has one entry per class, None for a class without instances.
    """

    n: Count
    acc: Value
    accuracy: Value | None
    nmi: Value
    ari: Value
    purity: Value
    recall: list[Value | None]


def _integers(name: str, values: npt.ArrayLike, ndim: int) -> IntArray:
    """`values` as an int64 array with `ndim` dimensions and at least one element."""
    array: npt.NDArray[Any] = np.asarray(values)
    if array.ndim != ndim:
        raise BenchError(f"{name} has shape {array.shape}: give an array of {ndim} dimension(s).")
    if array.size == 0:
        raise BenchError(f"{name} is empty: give at least one element, or there is no score.")
    if array.dtype.kind not in "iu":
        raise BenchError(f"{name} holds {array.dtype} values: give integers.")
    return array.astype(np.int64, copy=False)


def _ids(name: str, values: npt.ArrayLike, lowest: int, size: int | None = None) -> IntArray:
    """A 1-D array of ids, from `lowest` to `size` - 1 (without limit if None)."""
    ids = _integers(name, values, ndim=1)
    if ids.min() < lowest:
        raise BenchError(f"{name} holds {ids.min()}: the lowest value it may hold is {lowest}.")
    if size is not None and (size < 1 or ids.max() >= size):
        raise BenchError(f"{name} holds {ids.max()}: give ids below {size}, or raise their number.")
    return ids


def _check_labels(
    y_true: npt.ArrayLike, labels: npt.ArrayLike, n_classes: int | None, n_clusters: int | None
) -> tuple[IntArray, IntArray]:
    """The shared validator of two label arrays."""
    y_true = _ids("y_true", y_true, 0, n_classes)
    labels = _ids("labels", labels, -1, n_clusters)
    if len(y_true) != len(labels):
        raise BenchError(
            f"y_true has {len(y_true):,} elements and labels {len(labels):,}: "
            "give one cluster id for each true label."
        )
    return y_true, labels


def _check_table(contingency: npt.ArrayLike) -> IntArray:
    """The shared validator of a table in the form of `contingency_matrix`."""
    table = _integers("contingency", contingency, ndim=2)
    if table.shape[1] < 2:
        raise BenchError(
            f"contingency has shape {table.shape}: give one column per cluster and a last one "
            "for unassigned instances, as contingency_matrix does."
        )
    if table.min() < 0:
        raise BenchError(f"contingency holds {table.min()}: give counts, which are never negative.")
    if not table.any():
        raise BenchError("contingency counts no instance: give a table of at least one instance.")
    return table


def _table(y_true: Given, labels: Given, contingency: Given) -> IntArray:
    """The table a metric works on, from the arrays or as given."""
    if contingency is None and y_true is not None and labels is not None:
        return contingency_matrix(y_true, labels)
    if contingency is not None and y_true is None and labels is None:
        return _check_table(contingency)
    raise BenchError("Give either y_true and labels, or contingency alone.")


def contingency_matrix(
    y_true: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    n_classes: int | None = None,
    n_clusters: int | None = None,
) -> IntArray:
    """Count the instances of each class in each cluster.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True classes, integers from 0.
    labels : array-like of shape (n,)
        Cluster ids, integers from 0; -1 for an instance that belongs to no cluster.
    n_classes, n_clusters : int, optional
        Size of the table; by default just enough for the largest id.

    Returns
    -------
    ndarray of shape (n_classes, n_clusters + 1), int64
        Rows are classes, columns are clusters; the last column counts the label -1.

    Raises
    ------
    BenchError
        If the arrays are empty, not 1-D, not integer, of different length or out of range.

    Examples
    --------
    >>> contingency_matrix([0, 0, 1, 1], [1, 1, 0, -1])
    array([[0, 2, 0],
           [1, 0, 1]])
    """
    y_true, labels = _check_labels(y_true, labels, n_classes, n_clusters)
    rows = n_classes or int(y_true.max()) + 1
    unassigned = n_clusters or max(int(labels.max()) + 1, 1)  # the last column
    columns = unassigned + 1
    if rows * columns > MAX_CELLS:
        raise BenchError(
            f"A table of {rows:,} classes and {unassigned:,} clusters is too large: "
            "number classes and clusters 0, 1, 2, ... without gaps."
        )
    cells = y_true * columns + np.where(labels < 0, unassigned, labels)
    counts = np.bincount(cells, minlength=rows * columns)
    return counts.astype(np.int64, copy=False).reshape(rows, columns)


def best_mapping(contingency: npt.ArrayLike) -> IntArray:
    """Map clusters to classes one to one, so that most instances agree (Hungarian method).

    Returns
    -------
    ndarray of shape (n_clusters,), int64
        The class of each cluster; -1 for the surplus where there are more clusters than
        classes. An empty cluster may get a class that is left over.

    Examples
    --------
    >>> best_mapping(contingency_matrix([0, 0, 1, 1], [2, 2, 0, 1]))
    array([ 1, -1,  0])
    """
    from scipy.optimize import linear_sum_assignment  # heavy: only where it is needed

    clusters = _check_table(contingency)[:, :-1]
    classes, columns = linear_sum_assignment(clusters, maximize=True)
    mapping = np.full(clusters.shape[1], -1, dtype=np.int64)
    mapping[columns] = classes
    return mapping


def majority_mapping(contingency: npt.ArrayLike) -> IntArray:
    """Map each cluster to its most frequent class (the lowest of several).

    Returns
    -------
    ndarray of shape (n_clusters,), int64
        The class of each cluster, -1 for an empty one. Several clusters may share a class.

    Examples
    --------
    >>> majority_mapping(contingency_matrix([0, 0, 1], [0, 1, 3]))
    array([ 0,  0, -1,  1])
    """
    clusters = _check_table(contingency)[:, :-1]
    return np.where(clusters.any(axis=0), clusters.argmax(axis=0), -1).astype(np.int64)


def name_clusters(
    y_true_revealed: npt.ArrayLike, labels_revealed: npt.ArrayLike, n_classes: int, n_clusters: int
) -> IntArray:
    """Name clusters by a mapping fitted on revealed labels only.

    It is one to one (`best_mapping`): a cluster without a revealed label gets a class that is
    left over. With more clusters than classes each takes its majority (`majority_mapping`).

    Parameters
    ----------
    y_true_revealed, labels_revealed : array-like of shape (n_labels,)
        Class and cluster of the revealed instances alone; a BenchError if there are none.
    n_classes, n_clusters : int
        How many there are in all.

    Returns
    -------
    ndarray of shape (n_clusters,), int64
        The class of each cluster, -1 for a cluster without a name.

    Examples
    --------
    >>> name_clusters([0, 0, 1], [3, 2, 0], n_classes=2, n_clusters=4)
    array([ 1, -1,  0,  0])
    """
    sizes = {"n_classes": n_classes, "n_clusters": n_clusters}
    table = contingency_matrix(y_true_revealed, labels_revealed, **sizes)
    return majority_mapping(table) if n_clusters > n_classes else best_mapping(table)


def apply_mapping(labels: npt.ArrayLike, mapping: npt.ArrayLike) -> IntArray:
    """Translate cluster ids to classes.

    Parameters
    ----------
    labels : array-like of shape (n,)
        Cluster ids; -1 stays -1.
    mapping : array-like of shape (n_clusters,)
        The class of each cluster, -1 for a cluster without a name.

    Returns
    -------
    ndarray of shape (n,), int64
        Classes, -1 where there is none.

    Examples
    --------
    >>> apply_mapping([0, 1, 2, -1], [1, 0, -1])
    array([ 1,  0, -1, -1])
    """
    mapping = _ids("mapping", mapping, -1)
    labels = _ids("labels", labels, -1, len(mapping))
    return np.append(mapping, -1)[labels]  # label -1 reads the last entry, which is -1


def map_contingency(contingency: npt.ArrayLike, mapping: npt.ArrayLike) -> IntArray:
    """The table after the clusters are translated to classes.

    Same as the table of `apply_mapping(labels, mapping)`, without the labels.

    Parameters
    ----------
    contingency : array-like of shape (n_classes, n_clusters + 1)
    mapping : array-like of shape (n_clusters,)
        As for `apply_mapping`.

    Returns
    -------
    ndarray of shape (n_classes, n_classes + 1), int64
        The confusion matrix. Its last column counts what has no name, so it counts as wrong.

    Examples
    --------
    >>> map_contingency([[0, 2, 5, 0], [3, 0, 0, 1]], [1, 0, -1])
    array([[2, 0, 5],
           [0, 3, 1]])
    """
    table = _check_table(contingency)
    n_classes, n_clusters = table.shape[0], table.shape[1] - 1
    mapping = _ids("mapping", mapping, -1, n_classes)
    if len(mapping) != n_clusters:
        raise BenchError(
            f"mapping has {len(mapping)} entries for {n_clusters} clusters: "
            "give one class (or -1) for each cluster."
        )
    mapped = np.zeros((n_classes, n_classes + 1), dtype=np.int64)
    target = np.append(mapping, -1)  # -1 is the last column, also that of the new table
    np.add.at(mapped.T, target, table.T)
    return mapped


def acc(y_true: Given = None, labels: Given = None, *, contingency: Given = None) -> float:
    """ACC: share of agreement under the best one-to-one mapping (SS-DCEC eq. 7).

    It uses the truth to name the clusters. With more clusters than classes the surplus
    clusters count as wrong; with fewer, the classes that got no cluster do.

    Examples
    --------
    >>> acc([0, 0, 1, 1], [1, 1, 0, 0])
    1.0
    >>> acc([0, 0, 1, 1], [0, 1, 2, 2])  # the surplus cluster is wrong
    0.75
    >>> acc([0, 0, 1, 2], [0, 0, 0, 0])  # one cluster, one class right
    0.5
    >>> acc([0, 0, 1, 1], [1, 1, 0, -1])  # unassigned is wrong
    0.75
    """
    table = _table(y_true, labels, contingency)
    return accuracy(contingency=map_contingency(table, best_mapping(table)))


def accuracy(y_true: Given = None, labels: Given = None, *, contingency: Given = None) -> float:
    """Share of instances whose cluster is their class: no mapping, cluster j is class j.

    Examples
    --------
    >>> accuracy([0, 0, 1, 1], [0, 0, 1, -1])
    0.75
    """
    table = _table(y_true, labels, contingency)
    return int(np.trace(table[:, :-1])) / int(table.sum())


def nmi(y_true: Given = None, labels: Given = None, *, contingency: Given = None) -> float:
    """Normalised mutual information, arithmetic mean of the entropies (SS-DCEC eq. 8).

    Unassigned instances are one more cluster. Where an entropy is 0 the convention is
    scikit-learn's: one class in one cluster is 1.0; only one of them single is 0.0.

    Examples
    --------
    >>> nmi([0, 0, 1, 1], [1, 1, 0, 0])
    1.0
    >>> nmi([0, 0, 0], [0, 0, 0])
    1.0
    >>> nmi([0, 0, 1, 1], [0, 0, 0, 0])
    0.0
    """
    table = _table(y_true, labels, contingency)
    h_true, h_labels = _entropy(table.sum(axis=1)), _entropy(table.sum(axis=0))
    if h_true + h_labels == 0:
        return 1.0
    mutual_information = h_true + h_labels - _entropy(table.ravel())
    # Rounding may leave a hair below 0 or above 1.
    return min(max(2 * mutual_information / (h_true + h_labels), 0.0), 1.0)


def _entropy(counts: IntArray) -> float:
    """Entropy of a distribution given as counts, in nats."""
    p = counts[counts > 0] / counts.sum()
    # fsum rounds once, at the end: renumbering the clusters cannot change the last digit.
    return -math.fsum(p * np.log(p))


def ari(y_true: Given = None, labels: Given = None, *, contingency: Given = None) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985): 1 is perfect, 0 is chance, at least -0.5.

    Unassigned instances are one more cluster.

    Examples
    --------
    >>> ari([0, 0, 1, 1], [1, 1, 0, 0])
    1.0
    >>> ari([0, 0, 1, 1], [0, 1, 0, 1])
    -0.5
    """
    table = _table(y_true, labels, contingency)
    # Ordered pairs of instances. Python's integers: products of pair counts overflow int64.
    n = int(table.sum())
    both = int((table**2).sum()) - n  # same class, same cluster
    same_class = int((table.sum(axis=1) ** 2).sum()) - n
    same_cluster = int((table.sum(axis=0) ** 2).sum()) - n
    if both == same_class == same_cluster:  # perfect, also where the index would be 0 / 0
        return 1.0
    pairs = n * (n - 1)
    chance = same_class * same_cluster
    return 2 * (both * pairs - chance) / ((same_class + same_cluster) * pairs - 2 * chance)


def purity(y_true: Given = None, labels: Given = None, *, contingency: Given = None) -> float:
    """Share of instances that are of the most frequent class of their cluster.

    Several clusters may share a class, so purity grows with the number of clusters.

    Examples
    --------
    >>> purity([0, 0, 1, 1], [0, 1, 2, 2])
    1.0
    """
    table = _table(y_true, labels, contingency)
    return int(table[:, :-1].max(axis=0).sum()) / int(table.sum())


def recall(
    y_true: Given = None, labels: Given = None, *, contingency: Given = None
) -> npt.NDArray[np.float64]:
    """Per-class recall: share of each class that is in its cluster; cluster j is class j.

    Returns
    -------
    ndarray of shape (n_classes,), float64
        nan for a class without instances.

    Examples
    --------
    >>> recall([0, 0, 2, 2], [0, 1, 2, -1])
    array([0.5, nan, 0.5])
    """
    table = _table(y_true, labels, contingency)
    totals = table.sum(axis=1)
    hits = np.zeros(len(table))
    diagonal = np.diagonal(table[:, :-1])  # shorter where there are fewer clusters than classes
    hits[: len(diagonal)] = diagonal
    result = np.full(len(table), np.nan)
    np.divide(hits, totals, out=result, where=totals > 0)
    return result


def scores(contingency: npt.ArrayLike, *, named: bool) -> Scores:
    """All metrics of one subset, from its table.

    Parameters
    ----------
    contingency : array-like of shape (n_classes, n_clusters + 1)
        The table of `contingency_matrix`; for named clusters n_clusters is n_classes.
    named : bool
        Whether cluster j is class j. If not, `accuracy` is None and `recall` is taken
        under the best one-to-one mapping, as `acc`. If so, a table that is not of shape
        (n_classes, n_classes + 1) raises a BenchError.

    Examples
    --------
    >>> scores([[0, 2, 0], [1, 0, 1]], named=False)["recall"]
    [1.0, 0.5]
    """
    table = _check_table(contingency)
    n_classes, n_clusters = table.shape[0], table.shape[1] - 1
    if named and n_classes != n_clusters:
        raise BenchError(
            f"contingency has {n_classes} classes and {n_clusters} clusters: named clusters are "
            "as many as classes; name them with map_contingency first, or give named=False."
        )
    matched = table if named else map_contingency(table, best_mapping(table))
    return Scores(
        n=int(table.sum()),
        acc=acc(contingency=table),
        accuracy=accuracy(contingency=table) if named else None,
        nmi=nmi(contingency=table),
        ari=ari(contingency=table),
        purity=purity(contingency=table),
        recall=[None if math.isnan(r) else r for r in recall(contingency=matched).tolist()],
    )
