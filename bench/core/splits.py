"""Which instances a method is fitted on, and which of them it sees the label of.

A split depends on the seed, the selection and the true labels (or only their number), never
on the method, so methods are compared in pairs. For one seed and selection there is one order
of all instances; a split with n labels is its first n. So splits are nested.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.core.choices import check_choices
from bench.core.errors import BenchError

IntArray = npt.NDArray[np.int64]
# Keeps the random numbers of one purpose apart from those of another with the same seed.
_STREAMS = {"stratified": 1, "random": 2}


@dataclass(frozen=True)
class Partition:
    """What a protocol does with the instances of a dataset.

    Attributes
    ----------
    fit, validation, test : slice
        Parts of the dataset, with explicit ends; slices, so that a memory-mapped array is not
        copied. A part that the protocol does not have is an empty slice.
    """

    fit: slice
    validation: slice
    test: slice

    @property
    def n_fit(self) -> int:
        """How many instances the method is fitted on."""
        return int(self.fit.stop - self.fit.start)

    @property
    def n_test(self) -> int:
        """How many instances are kept for the test, 0 without a test part."""
        return int(self.test.stop - self.test.start)


def partition(protocol: str, n: int, n_train: int) -> Partition:
    """Divide a dataset as the protocol says.

    `transductive`: fit on all. `inductive`: fit on the training part, test on the rest.
    `inductive-55k`: as `inductive`, but the last 1/12 of the training part is validation
    (of 60,000 it is 5,000).

    Parameters
    ----------
    protocol : str
        One of `choices.PROTOCOLS`.
    n : int
        Number of instances.
    n_train : int
        Number of them, from the start, that are the training part; n without a test part.

    Raises
    ------
    BenchError
        If the protocol is unknown, the numbers are no division, or a part would be empty.
    """
    check_choices(protocol=protocol)
    if not 1 <= n_train <= n:
        raise BenchError(
            f"A training part of {n_train:,} of {n:,} instances is impossible: "
            "give at least 1 and at most all."
        )
    if protocol == "transductive":
        return Partition(slice(0, n), validation=slice(n, n), test=slice(n, n))
    if n_train == n:
        raise BenchError(
            f"Protocol {protocol} needs a test part, but this dataset has none (all {n:,} "
            "instances are the training part): use protocol transductive."
        )
    n_validation = n_train // 12 if protocol == "inductive-55k" else 0
    if protocol == "inductive-55k" and n_validation == 0:
        raise BenchError(
            f"Protocol {protocol} needs a training part of at least 12 instances, but this "
            f"dataset has {n_train}: use protocol inductive."
        )
    n_fit = n_train - n_validation
    return Partition(slice(0, n_fit), slice(n_fit, n_train), slice(n_train, n))


def labelled_indices(y: npt.ArrayLike, n_labels: int, selection: str, seed: int) -> IntArray:
    """Choose the instances whose label is revealed.

    `stratified`: each class in proportion to its size, at least once. `random`: uniform.
    `first`: the first `n_labels`. For one `y`, selection and seed, fewer labels are always a
    subset of more.

    Parameters
    ----------
    y : array-like of shape (n,)
        True labels of the fitted instances, integers from 0.
    n_labels : int
        How many are revealed, from 0 to n.
    selection : str
        One of `choices.SELECTIONS`, but `representative`: there the method's `select` chooses.
    seed : int
        From 0. It has no effect on `first`.

    Returns
    -------
    ndarray of shape (n_labels,), int64
        Indices into `y`, ascending.

    Raises
    ------
    BenchError
        If an argument is not as above, or `stratified` has fewer labels than classes.
    """
    y = _true_labels(y)
    _check_request(n_labels, len(y), selection, seed)
    if n_labels == 0 or selection == "first":
        return np.arange(n_labels, dtype=np.int64)
    rng = np.random.default_rng([seed, _STREAMS[selection]])
    order = rng.permutation(len(y))
    if selection == "stratified":
        order = _stratified_order(y, n_labels, order)
    return np.sort(order[:n_labels]).astype(np.int64, copy=False)


def _stratified_order(y: IntArray, n_labels: int, shuffled: IntArray) -> IntArray:
    """The first `n_labels` instances of the stratified order; `shuffled` decides ties.

    It starts with one instance of every class. Then, with m labels, the fair share of a class
    of size s is max(1, rate * s), where the rate is such that the shares add up to m. The next
    instance is of a class that has less than its fair share, and among these of the one whose
    share first reaches its next whole number. So every class stays within 1 of its fair share
    (the quota method: Balinski and Young 1975; that such an order exists: Tijdeman 1980).
    Sorting by a key such as (j + 1/2) / s is simpler, but strays further with unequal classes.
    """
    classes, sizes = np.unique(y, return_counts=True)
    if n_labels < len(classes):
        raise BenchError(
            f"{n_labels} label(s) cannot be stratified over {len(classes)} classes: ask for at "
            f"least {len(classes)}, or use selection random (a share is written `5%`)."
        )
    order: list[int] = []  # positions in `shuffled`
    waiting: list[tuple[int, float, int]] = []
    for c, size in zip(classes, sizes, strict=True):
        positions = np.flatnonzero(y[shuffled] == c)
        j = np.arange(1, size)  # so many of the class come before
        # The fair share exceeds j at rate j / size, that is, after sum(max(1, j * sizes / size))
        # labels. Kept in integers: rounding here would let a class come one place early.
        earliest = np.maximum(size, np.outer(j, sizes)).sum(axis=1) // size + 1
        rate = (j + 1) / size
        order.append(int(positions[0]))
        waiting.extend(zip(earliest.tolist(), rate.tolist(), positions[1:].tolist(), strict=True))
    waiting.sort(reverse=True)
    eligible: list[tuple[float, int]] = []  # a heap: lowest rate first, then as shuffled
    for n_taken in range(len(classes) + 1, n_labels + 1):
        while waiting and waiting[-1][0] <= n_taken:
            heapq.heappush(eligible, waiting.pop()[1:])
        order.append(heapq.heappop(eligible)[1])
    return shuffled[order]


def check_selected(indices: npt.ArrayLike, budget: int, n: int) -> IntArray:
    """Check the instances that a method asked for in its `select`.

    Parameters
    ----------
    indices : array-like of shape (budget,)
        Different indices from 0 to n - 1, in any order.
    budget : int
        How many labels the method may see; it has to use all of them.
    n : int
        Number of fitted instances.

    Returns
    -------
    ndarray of shape (budget,), int64
        The indices, ascending.

    Raises
    ------
    BenchError
        If they are not exactly so many different integers in range.
    """
    chosen = _indices(indices, n)
    if len(chosen) != budget:
        raise BenchError(
            f"select() returned {len(chosen):,} indices for a budget of {budget:,} labels: "
            "return exactly as many."
        )
    return np.sort(chosen)


def reveal(y: npt.ArrayLike, indices: npt.ArrayLike) -> IntArray:
    """The labels a method sees: true at `indices`, -1 (unlabelled) elsewhere.

    Parameters
    ----------
    y : array-like of shape (n,)
        True labels, integers from 0.
    indices : array-like of shape (n_labels,)
        Different indices from 0 to n - 1.

    Returns
    -------
    ndarray of shape (n,), int64
        Always a new array.

    Raises
    ------
    BenchError
        If an argument is not as above.

    Examples
    --------
    >>> reveal([4, 5, 6], [0, 2])
    array([ 4, -1,  6])
    """
    y = _true_labels(y)
    chosen = _indices(indices, len(y))
    revealed = np.full(len(y), -1, dtype=np.int64)
    revealed[chosen] = y[chosen]
    return revealed


def require_fitted(
    y: npt.ArrayLike, part: Partition, protocol: str, *, class_names: Sequence[str] | None = None
) -> None:
    """Check that every class has an image that is fitted.

    Parameters
    ----------
    y : array-like of shape (n,)
        The classes of all instances of the dataset.
    part : Partition
        What `protocol` makes of them.
    class_names : sequence of str, optional
        Names for the message.

    Raises
    ------
    BenchError
        If a class has none. The message names these classes and says what to do.
    """
    y = _true_labels(y)
    missing = np.setdiff1d(y, y[part.fit]).tolist()
    if missing:
        raise BenchError(
            f"Protocol {protocol} leaves no image to fit of {_named(missing, class_names)}: the "
            "last twelfth of the training part is held out, and has all there are. Add images to "
            "it, or use protocol inductive."
        )


def require_every_class(
    y_revealed: npt.ArrayLike, n_classes: int, *, class_names: Sequence[str] | None = None
) -> None:
    """Check that every class has a revealed label.

    Parameters
    ----------
    y_revealed : array-like of shape (n,)
        As `reveal` returns it: -1 where unlabelled.
    n_classes : int
        Number of classes.
    class_names : sequence of n_classes str, optional
        Names for the message.

    Raises
    ------
    BenchError
        If a class has none. The message names these classes and says what to do.
    """
    missing = np.setdiff1d(np.arange(n_classes), _integers("y_revealed", y_revealed)).tolist()
    if missing:
        raise BenchError(
            f"No label is revealed for {len(missing)} of {n_classes} classes: "
            f"{_named(missing, class_names)}. "
            "Every class needs one: use selection stratified or a higher level."
        )


def _named(classes: Iterable[int], class_names: Sequence[str] | None) -> str:
    """Classes for a sentence: ``3 (Dress), 5``."""
    return ", ".join(f"{c} ({class_names[c]})" if class_names else str(c) for c in classes)


def digest(indices: npt.ArrayLike, n: int) -> str:
    """Short SHA-256 of a split: 16 hex digits, the same on every machine.

    Parameters
    ----------
    indices : array-like of shape (n_labels,)
        The labelled instances; their order does not matter.
    n : int
        Number of fitted instances.

    Raises
    ------
    BenchError
        If `indices` are not different integers from 0 to n - 1.
    """
    chosen = np.sort(_indices(indices, n)).astype("<i8")
    return hashlib.sha256(f"{n}:".encode() + chosen.tobytes()).hexdigest()[:16]


def _check_request(n_labels: int, n: int, selection: str, seed: int) -> None:
    check_choices(selection=selection)
    if selection == "representative":
        raise BenchError(
            "Selection representative is made by the method: take the indices from its select() "
            "and check them with check_selected."
        )
    if not 0 <= n_labels <= n:
        raise BenchError(
            f"{n_labels:,} labels of {n:,} instances are impossible: ask for 0 to {n} labels."
        )
    if seed < 0:
        raise BenchError(f"Seed {seed} is negative: give a seed from 0.")


def _integers(name: str, values: npt.ArrayLike) -> IntArray:
    array: npt.NDArray[Any] = np.asarray(values)
    if array.ndim != 1:
        raise BenchError(f"{name} has shape {array.shape}: give an array of one dimension.")
    if array.size and array.dtype.kind not in "iu":  # an empty list has numpy's default, float
        raise BenchError(f"{name} holds {array.dtype} values: give integers.")
    return array.astype(np.int64, copy=False)


def _true_labels(y: npt.ArrayLike) -> IntArray:
    labels = _integers("y", y)
    if labels.size == 0:
        raise BenchError("y is empty: give the true label of at least one instance.")
    if labels.min() < 0:
        raise BenchError(f"y holds {labels.min()}: give true labels, which start at 0.")
    return labels


def _indices(values: npt.ArrayLike, n: int) -> IntArray:
    indices = _integers("indices", values)
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise BenchError(
            f"indices reach from {indices.min()} to {indices.max()}: of {n:,} instances, "
            f"give indices from 0 to {n - 1}."
        )
    if len(np.unique(indices)) < len(indices):
        repeated = np.flatnonzero(np.bincount(indices) > 1)[0]
        raise BenchError(f"indices hold {repeated} more than once: give every instance once.")
    return indices
