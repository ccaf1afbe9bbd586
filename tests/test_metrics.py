"""The metrics against scikit-learn, against brute force, and at their edges."""

from __future__ import annotations

import doctest
import itertools
import json

import numpy as np
import pytest
import sklearn.metrics
import sklearn.metrics.cluster
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bench.core import metrics
from bench.core.errors import BenchError

unhurried = settings(deadline=None)  # a slow machine is no failure
CLUSTERING_METRICS = [metrics.acc, metrics.nmi, metrics.ari, metrics.purity]
SCALAR_METRICS = [*CLUSTERING_METRICS, metrics.accuracy]


@st.composite
def clusterings(draw, lowest=0, max_classes=5, max_clusters=5):
    """(y_true, labels, n_classes, n_clusters); some classes and clusters may be empty."""
    n_classes = draw(st.integers(1, max_classes))
    n_clusters = draw(st.integers(1, max_clusters))
    n = draw(st.integers(1, 40))
    y_true = draw(st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(lowest, n_clusters - 1), min_size=n, max_size=n))
    return np.array(y_true), np.array(labels), n_classes, n_clusters


def one_to_one_mappings(n_classes, n_clusters):
    """Every one-to-one mapping that leaves no pair of a cluster and a class unused."""
    if n_clusters <= n_classes:
        yield from itertools.permutations(range(n_classes), n_clusters)
    else:
        for clusters in itertools.permutations(range(n_clusters), n_classes):
            mapping = [-1] * n_clusters
            for c, cluster in enumerate(clusters):
                mapping[cluster] = c
            yield tuple(mapping)


def agreement(y_true, labels, mapping):
    """How many instances agree under a mapping, counted one by one."""
    return sum(k >= 0 and mapping[k] == c for c, k in zip(y_true, labels, strict=True))


def test_docstring_examples():
    result = doctest.testmod(metrics)
    assert result.attempted > 0
    assert result.failed == 0


# Against scikit-learn


@unhurried
@given(clusterings())
def test_contingency_matrix_equals_sklearn(case):
    y_true, labels, _, _ = case
    table = metrics.contingency_matrix(y_true, labels)
    expected = sklearn.metrics.cluster.contingency_matrix(y_true, labels)
    # scikit-learn leaves out empty rows and columns
    assert np.array_equal(table[:, :-1][np.unique(y_true)][:, np.unique(labels)], expected)
    assert table.sum() == len(y_true)
    assert not table[:, -1].any()
    assert table.dtype == np.int64


@unhurried
@given(clusterings(lowest=-1))
def test_nmi_and_ari_equal_sklearn_also_with_unassigned(case):
    y_true, labels, _, _ = case
    expected_nmi = sklearn.metrics.normalized_mutual_info_score(
        y_true, labels, average_method="arithmetic"
    )
    expected_ari = sklearn.metrics.adjusted_rand_score(y_true, labels)
    assert metrics.nmi(y_true, labels) == pytest.approx(expected_nmi, abs=1e-9)
    assert metrics.ari(y_true, labels) == pytest.approx(expected_ari, abs=1e-12)


@unhurried
@given(clusterings(lowest=-1))
def test_accuracy_and_recall_equal_sklearn(case):
    y_true, labels, n_classes, _ = case
    expected = sklearn.metrics.accuracy_score(y_true, labels)
    assert metrics.accuracy(y_true, labels) == pytest.approx(expected)
    expected = sklearn.metrics.recall_score(
        y_true, labels, labels=range(n_classes), average=None, zero_division=np.nan
    )
    table = metrics.contingency_matrix(y_true, labels, n_classes=n_classes)
    np.testing.assert_allclose(metrics.recall(contingency=table), expected)


def test_confusion_matrix_is_the_table_of_named_clusters():
    y_true, labels = [0, 1, 2, 2, 1], [0, 2, 2, 1, 1]
    table = metrics.contingency_matrix(y_true, labels, n_classes=3, n_clusters=3)
    assert np.array_equal(table[:, :3], sklearn.metrics.confusion_matrix(y_true, labels))


def test_large_counts_do_not_overflow():
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 10, 70_000).astype(np.uint8)
    labels = np.where(rng.random(70_000) < 0.7, y_true, rng.integers(0, 10, 70_000))
    assert metrics.ari(y_true, labels) == pytest.approx(
        sklearn.metrics.adjusted_rand_score(y_true, labels), abs=1e-12
    )
    assert metrics.nmi(y_true, labels) == pytest.approx(
        sklearn.metrics.normalized_mutual_info_score(y_true, labels), abs=1e-9
    )


def test_small_unsigned_ids_do_not_wrap():
    y_true = np.arange(200, dtype=np.uint8)
    assert metrics.accuracy(y_true, y_true) == 1.0


# Against brute force


@settings(unhurried, max_examples=60)
@given(clusterings(lowest=-1))
@example((np.array([0, 0, 1]), np.array([2, 1, 0]), 2, 3))
@example((np.array([0, 1, 2]), np.array([0, 0, 0]), 3, 1))
def test_acc_is_the_best_of_all_one_to_one_mappings(case):
    y_true, labels, n_classes, n_clusters = case
    table = metrics.contingency_matrix(y_true, labels, n_classes=n_classes, n_clusters=n_clusters)
    best = max(
        agreement(y_true, labels, mapping) for mapping in one_to_one_mappings(n_classes, n_clusters)
    )
    assert metrics.acc(contingency=table) == pytest.approx(best / len(y_true))


@settings(unhurried, max_examples=60)
@given(clusterings(lowest=-1, max_classes=4, max_clusters=4), st.data())
def test_name_clusters_is_the_best_mapping_on_the_revealed(case, data):
    """One to one; of all mappings where there are more clusters than classes."""
    y_true, labels, n_classes, n_clusters = case
    revealed = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(y_true), max_size=len(y_true)))
    )
    assume(revealed.any())
    seen = y_true[revealed], labels[revealed]
    mapping = metrics.name_clusters(*seen, n_classes, n_clusters)
    if n_clusters > n_classes:
        candidates = list(itertools.product(range(-1, n_classes), repeat=n_clusters))
        assert [name >= 0 for name in mapping] == [k in seen[1] for k in range(n_clusters)]
    else:
        candidates = list(one_to_one_mappings(n_classes, n_clusters))
    assert tuple(mapping.tolist()) in candidates
    assert agreement(*seen, mapping) == max(agreement(*seen, other) for other in candidates)


def test_name_clusters_never_looks_beyond_the_revealed_labels():
    # The two revealed labels say that cluster 0 is class 1; nearly all of the hidden ones,
    # which acc uses, say the opposite.
    y_true = np.array([1, 0] + [0] * 50 + [1] * 50)
    labels = np.array([0, 1] + [0] * 50 + [1] * 50)
    mapping = metrics.name_clusters(y_true[:2], labels[:2], n_classes=2, n_clusters=2)
    assert mapping.tolist() == [1, 0]
    named = metrics.apply_mapping(labels, mapping)
    assert metrics.accuracy(y_true, named) == pytest.approx(2 / 102)
    assert metrics.acc(y_true, labels) == pytest.approx(100 / 102)


def test_clusters_may_share_a_name_only_where_they_outnumber_the_classes():
    y_true, labels = [0, 0, 0, 0, 1], [0, 0, 1, 1, 1]
    assert metrics.name_clusters(y_true, labels, n_classes=2, n_clusters=2).tolist() == [0, 1]
    assert metrics.name_clusters(y_true, labels, n_classes=2, n_clusters=3).tolist() == [0, 0, -1]
    unassigned = metrics.name_clusters([0, 1], [-1, -1], n_classes=2, n_clusters=3)
    assert unassigned.tolist() == [-1, -1, -1]


def test_name_clusters_needs_a_revealed_label():
    with pytest.raises(BenchError, match="empty"):
        metrics.name_clusters([], [], n_classes=2, n_clusters=2)
    with pytest.raises(BenchError, match="y_true holds -1"):
        metrics.name_clusters([0, -1], [0, 1], n_classes=2, n_clusters=2)


# Properties


@unhurried
@given(clusterings(lowest=-1))
def test_bounds_and_order(case):
    y_true, labels, _, _ = case
    acc, accuracy = metrics.acc(y_true, labels), metrics.accuracy(y_true, labels)
    assert 0 <= accuracy <= acc <= metrics.purity(y_true, labels) <= 1
    assert 0 <= metrics.nmi(y_true, labels) <= 1
    assert -0.5 - 1e-12 <= metrics.ari(y_true, labels) <= 1


@unhurried
@given(clusterings())
def test_symmetry(case):
    y_true, labels, _, _ = case
    for metric in (metrics.acc, metrics.nmi, metrics.ari):
        assert metric(y_true, labels) == pytest.approx(metric(labels, y_true), abs=1e-12)


@unhurried
@given(clusterings(lowest=-1), st.randoms(use_true_random=False))
def test_renumbering_the_clusters_changes_nothing(case, random):
    y_true, labels, _, n_clusters = case
    ids = list(range(n_clusters))
    random.shuffle(ids)
    renumbered = metrics.apply_mapping(labels, ids)
    for metric in CLUSTERING_METRICS:
        assert metric(y_true, renumbered) == pytest.approx(metric(y_true, labels), abs=1e-12)


@unhurried
@given(clusterings(), st.randoms(use_true_random=False))
def test_renumbered_classes_are_a_perfect_clustering(case, random):
    y_true, _, n_classes, _ = case
    ids = list(range(n_classes))
    random.shuffle(ids)
    labels = metrics.apply_mapping(y_true, ids)
    for metric in CLUSTERING_METRICS:
        assert metric(y_true, labels) == 1.0
    assert metrics.accuracy(y_true, y_true) == 1.0


@unhurried
@given(clusterings(lowest=-1))
def test_a_stored_table_gives_the_same_metrics(case):
    y_true, labels, n_classes, n_clusters = case
    table = metrics.contingency_matrix(
        y_true, labels, n_classes=n_classes + 2, n_clusters=n_clusters + 2
    )
    stored = json.loads(json.dumps(table.tolist()))
    for metric in SCALAR_METRICS:
        # two empty classes and clusters more, and still the same
        assert metric(contingency=stored) == pytest.approx(metric(y_true, labels), abs=1e-12)
    present = np.unique(y_true)
    np.testing.assert_array_equal(
        metrics.recall(contingency=stored)[present], metrics.recall(y_true, labels)[present]
    )


@unhurried
@given(clusterings(lowest=-1), st.data())
def test_mapping_the_table_equals_mapping_the_labels(case, data):
    y_true, labels, n_classes, n_clusters = case
    mapping = data.draw(
        st.lists(st.integers(-1, n_classes - 1), min_size=n_clusters, max_size=n_clusters)
    )
    sizes = {"n_classes": n_classes, "n_clusters": n_clusters}
    mapped = metrics.map_contingency(metrics.contingency_matrix(y_true, labels, **sizes), mapping)
    named = metrics.apply_mapping(labels, mapping)
    sizes["n_clusters"] = n_classes
    assert np.array_equal(mapped, metrics.contingency_matrix(y_true, named, **sizes))
    assert mapped.shape == (n_classes, n_classes + 1)
    assert metrics.accuracy(contingency=mapped) == metrics.accuracy(y_true, named)


@unhurried
@given(clusterings(lowest=-1))
def test_majority_mapping_explains_purity(case):
    y_true, labels, _, _ = case
    table = metrics.contingency_matrix(y_true, labels)
    mapping = metrics.majority_mapping(table)
    assert np.array_equal(mapping == -1, table[:, :-1].sum(axis=0) == 0)
    expected = agreement(y_true, labels, mapping) / len(y_true)
    assert metrics.purity(y_true, labels) == pytest.approx(expected)


# Edges


def test_one_cluster_for_two_classes():
    y_true, labels = [0, 0, 0, 1], [0, 0, 0, 0]
    assert [m(y_true, labels) for m in CLUSTERING_METRICS] == [0.75, 0.0, 0.0, 0.75]


def test_one_cluster_for_one_class():
    assert [m([0, 0], [3, 3]) for m in CLUSTERING_METRICS] == [1.0, 1.0, 1.0, 1.0]


def test_every_instance_a_cluster_of_its_own():
    y_true, labels = [0, 0, 1, 1], [0, 1, 2, 3]
    assert metrics.acc(y_true, labels) == 0.5  # two clusters named, two surplus
    assert metrics.purity(y_true, labels) == 1.0
    assert metrics.ari(y_true, labels) == 0.0


def test_nothing_assigned():
    y_true, labels = [0, 0, 1, 1], [-1, -1, -1, -1]
    assert [m(y_true, labels) for m in SCALAR_METRICS] == [0.0, 0.0, 0.0, 0.0, 0.0]
    assert metrics.recall(y_true, labels).tolist() == [0.0, 0.0]


def test_a_surplus_cluster_in_the_last_column_is_not_taken_for_unassigned():
    table = metrics.contingency_matrix([0, 1, 1], [0, 2, 2], n_classes=2, n_clusters=3)
    assert table.tolist() == [[1, 0, 0, 0], [0, 0, 2, 0]]
    assert metrics.acc(contingency=table) == 1.0
    # the same counts one column later are instances without a cluster
    assert metrics.acc(contingency=[[1, 0, 0, 0], [0, 0, 0, 2]]) == pytest.approx(1 / 3)


def test_recall_of_a_class_without_cluster_or_without_instances():
    recall = metrics.recall([0, 3, 3], [0, 0, 1])
    assert recall[[0, 3]].tolist() == [1.0, 0.0]
    assert np.isnan(recall[[1, 2]]).all()


# scores


def test_scores_of_named_clusters():
    y_true, labels = [0, 0, 1, 1, 2], [0, 1, 1, -1, 0]
    table = metrics.contingency_matrix(y_true, labels, n_classes=4, n_clusters=4)
    scores = metrics.scores(table, named=True)
    assert scores == {
        "n": 5,
        "acc": metrics.acc(y_true, labels),
        "accuracy": 0.4,
        "nmi": pytest.approx(metrics.nmi(y_true, labels)),
        "ari": metrics.ari(y_true, labels),
        "purity": metrics.purity(y_true, labels),
        "recall": [0.5, 0.5, 0.0, None],
    }
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_scores_of_clusters_without_names():
    table = metrics.contingency_matrix([0, 0, 0, 1, 1], [1, 1, 2, 0, 0])
    scores = metrics.scores(table, named=False)
    assert scores["accuracy"] is None
    assert scores["acc"] == 0.8
    assert scores["recall"] == [pytest.approx(2 / 3), 1.0]
    assert scores["purity"] == 1.0


def test_scores_after_naming_count_what_has_no_name_as_wrong():
    table = metrics.contingency_matrix([0, 0, 1, 1, 1], [0, 0, 1, 2, 2])
    mapping = metrics.name_clusters([0, 1], [0, 1], n_classes=2, n_clusters=3)
    scores = metrics.scores(metrics.map_contingency(table, mapping), named=True)
    assert scores["accuracy"] == scores["acc"] == 0.6
    assert scores["recall"] == [1.0, pytest.approx(1 / 3)]


def test_scores_refuses_clusters_that_cannot_be_classes():
    table = metrics.contingency_matrix([0, 1, 1], [0, 1, 2])
    with pytest.raises(BenchError, match=r"2 classes and 3 clusters.*map_contingency"):
        metrics.scores(table, named=True)


# What cannot be scored


@pytest.mark.parametrize(
    ("y_true", "labels", "message"),
    [
        ([], [], "y_true is empty"),
        ([0, 1], [0], "y_true has 2 elements and labels 1"),
        ([[0, 1]], [0, 1], r"y_true has shape \(1, 2\)"),
        ([0, 1], 0, r"labels has shape \(\)"),
        ([0.0, 1.0], [0, 1], "y_true holds float64 values"),
        ([0, 1], [True, False], "labels holds bool values"),
        ([0, 1], ["a", "b"], "labels holds <U1 values"),
        ([0, -1], [0, 1], "y_true holds -1: the lowest value it may hold is 0"),
        ([0, 1], [0, -2], "labels holds -2: the lowest value it may hold is -1"),
        ([0, 1], [0, 10**12], "too large: number classes and clusters"),
    ],
)
@pytest.mark.parametrize("metric", [*SCALAR_METRICS, metrics.recall], ids=lambda m: m.__name__)
def test_bad_labels_are_refused_with_a_sentence(metric, y_true, labels, message):
    with pytest.raises(BenchError, match=message):
        metric(y_true, labels)


@pytest.mark.parametrize(
    ("contingency", "message"),
    [
        ([1, 2], r"contingency has shape \(2,\)"),
        ([[1], [2]], r"contingency has shape \(2, 1\): give one column per cluster and a last one"),
        ([[1, -1]], "contingency holds -1"),
        ([[0.5, 1.0]], "contingency holds float64 values"),
        ([[0, 0], [0, 0]], "contingency counts no instance"),
        ([[]], "contingency is empty"),
    ],
)
def test_a_bad_table_is_refused_with_a_sentence(contingency, message):
    for metric in [*SCALAR_METRICS, metrics.recall]:
        with pytest.raises(BenchError, match=message):
            metric(contingency=contingency)
    with pytest.raises(BenchError, match=message):
        metrics.scores(contingency, named=False)


def test_either_arrays_or_a_table():
    for arguments in ({}, {"y_true": [0]}, {"labels": [0]}):
        with pytest.raises(BenchError, match="Give either y_true and labels, or contingency"):
            metrics.acc(**arguments)
    with pytest.raises(BenchError, match="Give either y_true and labels, or contingency"):
        metrics.acc([0], [0], contingency=[[1, 0]])


def test_ids_beyond_the_given_sizes_are_refused():
    with pytest.raises(BenchError, match="y_true holds 3: give ids below 3"):
        metrics.contingency_matrix([0, 3], [0, 0], n_classes=3)
    with pytest.raises(BenchError, match="labels holds 5: give ids below 2"):
        metrics.contingency_matrix([0, 1], [0, 5], n_clusters=2)
    with pytest.raises(BenchError, match="give ids below 0"):
        metrics.contingency_matrix([0, 1], [-1, -1], n_clusters=0)


def test_bad_mappings_are_refused():
    with pytest.raises(BenchError, match="labels holds 2: give ids below 2"):
        metrics.apply_mapping([0, 2], [0, 1])
    with pytest.raises(BenchError, match="mapping holds -2"):
        metrics.apply_mapping([0, 1], [0, -2])
    with pytest.raises(BenchError, match="mapping has 1 entries for 2 clusters"):
        metrics.map_contingency([[1, 0, 0]], [0])
    with pytest.raises(BenchError, match="mapping holds 1: give ids below 1"):
        metrics.map_contingency([[1, 0, 0]], [0, 1])


def test_arguments_are_left_alone():
    y_true, labels = np.array([0, 1, 1]), np.array([1, -1, 0])
    table = metrics.contingency_matrix(y_true, labels)
    before = table.copy()
    metrics.scores(table, named=True)
    metrics.apply_mapping(labels, [1, 0])
    assert np.array_equal(table, before)
    assert labels.tolist() == [1, -1, 0]
