"""Records: which instances are scored how, and by what names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core import metrics
from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.records import scoring as record
from bench.records.scoring import (
    FAILURES,
    MOST_STAGE_ROWS,
    SCHEMA,
    STATUSES,
    check_output,
    headline,
    headline_name,
    score,
    thinned,
)

# Class 0 is cluster 1, class 1 is cluster 2; of class 2 one is in each, and cluster 0 is empty.
Y = np.array([0, 0, 1, 1, 2, 2, 0, 1])
LABELS = np.array([1, 1, 2, 2, 1, 2, 1, 2])
NONE = np.array([], dtype=np.int64)


def scored(labelled: Any, names_needed: bool, **others: Any) -> dict[str, Any]:
    given_ = {"y": Y, "labels": LABELS, "n_classes": 3} | others
    return score(labelled=np.asarray(labelled), names_needed=names_needed, **given_)


def test_each_subset_is_scored_by_itself() -> None:
    subsets = scored([0, 4], names_needed=False)["subsets"]
    assert {name: values["n"] for name, values in subsets.items()} == {
        "all": 8,
        "labelled": 2,
        "unlabelled": 6,
    }
    tables = {name: np.array(values["contingency"]) for name, values in subsets.items()}
    np.testing.assert_array_equal(tables["labelled"], [[0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(tables["all"], tables["labelled"] + tables["unlabelled"])


def test_metrics_of_a_method_that_names_its_clusters() -> None:
    """Cluster j is class j: nothing is mapped but for ACC."""
    y = np.array([0, 0, 1, 1])
    labels = np.array([0, 1, 1, 1])
    values = scored([0], names_needed=False, y=y, labels=labels, n_classes=2)["subsets"]
    assert values["all"]["accuracy"] == values["all"]["acc"] == 0.75
    assert values["labelled"]["accuracy"] == 1.0
    assert values["unlabelled"]["accuracy"] == pytest.approx(2 / 3)
    assert values["all"]["recall"] == [0.5, 1.0]
    swapped = scored([0], names_needed=False, y=y, labels=1 - labels, n_classes=2)
    assert swapped["subsets"]["all"]["accuracy"] == 0.25
    assert swapped["subsets"]["all"]["acc"] == 0.75
    assert swapped["cluster_names"] is None


def test_clusters_are_named_by_the_revealed_labels() -> None:
    result = scored([0, 2], names_needed=True)
    assert result["cluster_names"] == [2, 0, 1]  # cluster 0 holds none and gets what is left
    values = result["subsets"]["all"]
    assert values["accuracy"] == 0.75
    assert values["recall"] == [1.0, 1.0, 0.0]
    unmapped = np.array(values["contingency"])  # the table keeps the method's own numbers
    np.testing.assert_array_equal(unmapped, metrics.contingency_matrix(Y, LABELS, n_classes=3))


def test_misleading_labels_name_misleadingly() -> None:
    """The truth of the others must not mend it: ACC does, accuracy does not."""
    result = scored([4, 5], names_needed=True)
    assert 2 in result["cluster_names"][1:]
    values = result["subsets"]["unlabelled"]
    assert values["acc"] == 1.0
    assert values["accuracy"] < 1.0


@given(hidden=st.lists(st.integers(0, 2), min_size=6, max_size=6), data=st.data())
def test_hidden_labels_do_not_name_clusters(hidden: list[int], data: st.DataObject) -> None:
    labels = np.array(data.draw(st.lists(st.integers(-1, 3), min_size=8, max_size=8)))
    other = Y.copy()
    other[2:] = hidden
    before = scored([0, 1], names_needed=True, labels=labels)
    after = scored([0, 1], names_needed=True, labels=labels, y=other)
    assert after["cluster_names"] == before["cluster_names"]
    assert after["cluster_sizes"] == before["cluster_sizes"]
    assert after["subsets"]["labelled"] == before["subsets"]["labelled"]


@pytest.mark.parametrize("names_needed", [True, False])
def test_without_labels_there_are_no_names(names_needed: bool) -> None:
    result = scored(NONE, names_needed)
    assert result["cluster_names"] is None
    assert sorted(result["subsets"]) == ["all", "unlabelled"]
    for values in result["subsets"].values():
        assert values["accuracy"] is None
        assert values["acc"] == 0.75


def test_where_all_is_labelled_nothing_is_unlabelled() -> None:
    assert sorted(scored(range(8), names_needed=False)["subsets"]) == ["all", "labelled"]


@pytest.mark.parametrize("names_needed", [True, False])
def test_what_is_assigned_to_no_cluster_is_wrong(names_needed: bool) -> None:
    labels = np.where(np.arange(8) < 6, Y, -1)
    result = scored([0, 2, 4], names_needed, labels=labels)
    values = result["subsets"]["all"]
    assert values["accuracy"] == values["acc"] == 0.75
    assert [row[-1] for row in values["contingency"]] == [1, 1, 0]
    assert result["cluster_sizes"] == [2, 2, 2]


def test_all_unassigned_is_still_a_result() -> None:
    labels = np.full(8, -1)
    for labelled in (NONE, [0, 2]):
        result = scored(labelled, names_needed=True, labels=labels)
        assert result["subsets"]["unlabelled"]["acc"] == 0.0
        assert result["cluster_sizes"] == [0, 0, 0]


# --- More clusters than classes ------------------------------------------------------------------

# Class 0 fills clusters 0 and 3, class 1 clusters 1 and 4; of class 2 one is in each of 2 and 4.
SPLIT = np.array([0, 3, 1, 4, 2, 4, 3, 1])


def test_more_clusters_than_classes_are_named_by_the_majority() -> None:
    """Several may share a class; without a revealed label there is no name, and all is wrong."""
    result = scored([0, 1, 2, 4], names_needed=True, labels=SPLIT)
    assert result["cluster_names"] == [0, 1, 2, 0, -1]
    assert result["cluster_sizes"] == [1, 2, 1, 2, 2]
    values = result["subsets"]["all"]
    assert values["accuracy"] == 6 / 8
    assert values["recall"] == [1.0, pytest.approx(2 / 3), 0.5]
    assert values["acc"] == 5 / 8  # one to one: 2 of class 0, 2 of class 1, 1 of class 2
    assert values["purity"] == 7 / 8


def test_as_many_clusters_as_classes_are_named_one_to_one() -> None:
    """Both clusters hold a label of class 0 only; one of them gets another class all the same."""
    labels = np.array([0, 1, 1, 1, 2, 2, 0, 1])
    names = scored([0, 1, 4], names_needed=True, labels=labels)["cluster_names"]
    assert sorted(names) == [0, 1, 2]
    names = scored([0, 1, 4], names_needed=True, labels=labels, n_clusters=4)["cluster_names"]
    assert names == [0, 0, 2, -1]


def test_clusters_count_that_were_asked_for_or_given_if_that_is_more() -> None:
    for asked, n in ((0, 5), (4, 5), (7, 7)):
        for labelled in (NONE, [0, 1, 2]):
            result = scored(labelled, names_needed=True, labels=SPLIT, n_clusters=asked)
            assert len(result["cluster_sizes"]) == n
            for values in result["subsets"].values():
                assert np.shape(values["contingency"]) == (3, n + 1)
    fewer = scored([0, 2], names_needed=True, labels=np.minimum(LABELS, 1), n_clusters=2)
    assert len(fewer["cluster_names"]) == 3


def test_a_method_that_knows_the_classes_has_as_many_clusters() -> None:
    """Whatever it was asked for: it mapped its clusters to the classes itself."""
    result = scored([0, 2], names_needed=False, labels=Y, n_clusters=20)
    assert result["cluster_names"] is None
    assert result["cluster_sizes"] == [3, 3, 2]
    assert result["subsets"]["unlabelled"]["accuracy"] == 1.0
    unlabelled = scored(NONE, names_needed=False, labels=SPLIT, n_clusters=20)
    assert len(unlabelled["cluster_sizes"]) == 20


def test_the_test_images_are_a_subset_of_their_own() -> None:
    y_test = np.array([2, 1, 0])
    result = scored([0, 2], names_needed=True, y_test=y_test, labels_test=np.array([0, 2, 2]))
    values = result["subsets"]["test"]
    assert values["n"] == 3
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert result["subsets"]["all"] == scored([0, 2], names_needed=True)["subsets"]["all"]


def test_a_cluster_that_only_test_images_are_in() -> None:
    y_test, labels_test = np.array([2, 1]), np.array([6, 2])
    result = scored([0, 2], names_needed=True, y_test=y_test, labels_test=labels_test)
    assert result["subsets"]["test"]["accuracy"] == 0.5
    assert len(result["cluster_names"]) == len(result["cluster_sizes"]) == 7


def test_named_clusters_beyond_the_classes_are_refused() -> None:
    with pytest.raises(BenchError, match="3 classes and 5 clusters"):
        scored([0, 2], names_needed=False, labels=np.where(LABELS == 1, 4, LABELS))


def test_scores_can_be_recomputed_from_the_table() -> None:
    """As the record keeps it, through JSON and back."""
    result = json.loads(json.dumps(scored([0, 2], names_needed=True)))
    for values in result["subsets"].values():
        table = np.array(values["contingency"])
        assert metrics.acc(contingency=table) == values["acc"]
        assert metrics.nmi(contingency=table) == values["nmi"]
        assert metrics.ari(contingency=table) == values["ari"]
        named = metrics.map_contingency(table, result["cluster_names"])
        assert metrics.accuracy(contingency=named) == values["accuracy"]


@pytest.mark.parametrize(
    ("protocol", "n_labels", "expected"),
    [
        ("transductive", 0, ("unlabelled", "acc")),
        ("transductive", 500, ("unlabelled", "accuracy")),
        ("inductive", 0, ("test", "acc")),
        ("inductive-55k", 500, ("test", "accuracy")),
    ],
)
def test_what_a_trial_is_ranked_by(protocol: str, n_labels: int, expected: tuple[str, str]) -> None:
    assert headline_name(protocol, n_labels) == expected


@pytest.mark.parametrize("names_needed", [True, False])
@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_the_headline_is_what_a_trial_is_ranked_by(protocol: str, names_needed: bool) -> None:
    test = {"y_test": np.array([2, 1, 0, 0]), "labels_test": np.array([0, 2, 2, 1])}
    for labelled in (NONE, [0, 4]):
        scores = scored(labelled, names_needed, n_clusters=3, **test)
        subset, metric = headline_name(protocol, len(labelled))
        assert headline(protocol, len(labelled), scores) == {
            "headline": scores["subsets"][subset][metric],
            "headline_is": f"{metric} on {subset}",
        }


@pytest.mark.parametrize("names_needed", [True, False])
def test_purity_is_no_headline(names_needed: bool) -> None:
    """More clusters than classes and no label: nothing to rank by, even if few are in use."""
    for labels, asked in ((SPLIT, 0), (LABELS, 4)):
        scores = scored(NONE, names_needed, labels=labels, n_clusters=asked)
        found = headline("transductive", 0, scores)
        assert found == {"headline": None, "headline_is": "purity, not ranked"}
    scores = scored([0, 1, 2, 4], True, labels=SPLIT)
    assert headline("transductive", 4, scores)["headline"] == 0.5  # 2 of 4 have no name


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0, 1], "the method's labels_ is int64 with shape (2,); expected 3 integers"),
        ([[0, 1, 2]], "the method's labels_ is int64 with shape (1, 3); expected 3 integers"),
        ([0.0, 1, 2], "the method's labels_ is float64 with shape (3,); expected 3 integers"),
        ([True, False, True], "the method's labels_ is bool with shape (3,); expected 3 integers"),
        (None, "the method's labels_ is object with shape (); expected 3 integers"),
        ([0, -2, 1], "the method's labels_ holds -2; expected 3 integers"),
    ],
)
def test_output_that_breaks_the_contract(labels: Any, sentence: str) -> None:
    with pytest.raises(BenchError) as refused:
        check_output(labels, 3, "labels_")
    assert str(refused.value) == (
        f"{sentence}, the cluster of each instance (-1 where it assigns none)"
    )


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64])
def test_output_that_keeps_it(dtype: type) -> None:
    labels = check_output(np.array([0, 2, 1], dtype=dtype), 3, "labels_")
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 2, 1]
    assert check_output([-1, 0, 0], 3, "labels_").tolist() == [-1, 0, 0]


def test_a_record_names_its_trial(make_trial: Callable[..., Trial]) -> None:
    trial = make_trial()
    made = record.make(trial, "ok", n_labels=5)
    assert made == {
        "schema": SCHEMA,
        "trial": trial.to_json(),
        "identity": trial.identity,
        "status": "ok",
        "n_labels": 5,
    }


def test_a_failure_has_a_message_and_a_traceback(make_trial: Callable[..., Trial]) -> None:
    made = record.failure(make_trial(), "timeout", "stopped", {"device": "cpu"}, n_labels=5)
    assert made["error"] == {"message": "stopped", "traceback": None}
    assert (made["status"], made["environment"], made["n_labels"]) == (
        "timeout",
        {"device": "cpu"},
        5,
    )
    made = record.failure(make_trial(), "failed", "it broke", {}, traceback="Traceback ...")
    assert made["error"] == {"message": "it broke", "traceback": "Traceback ..."}
    assert "traceback" not in made


def test_what_an_error_says_can_be_stored_and_is_not_endless(
    make_trial: Callable[..., Trial],
) -> None:
    long = "x" * 5_000_000 + "the end of \udce9"
    error = record.failure(make_trial(), "failed", long, {"x": ["\udce9"]}, traceback=long)
    for text in error["error"].values():
        assert text.startswith("… x")
        assert text.endswith("the end of \\udce9")
        assert len(text) < 50_000
    assert error["environment"] == {"x": ["\\udce9"]}


def test_statuses(make_trial: Callable[..., Trial]) -> None:
    assert set(STATUSES) - set(FAILURES) == {"ok", "n/a"}
    with pytest.raises(ValueError, match="status is 'done'; expected one of ok, failed, timeout"):
        record.make(make_trial(), "done")


@given(st.integers(0, 400), st.integers(2, 60))
def test_a_history_is_thinned_evenly(n: int, most: int) -> None:
    kept = [row["step"] for row in thinned([{"step": i} for i in range(n)], most)]
    assert len(kept) == min(n, most)
    if n:
        assert (kept[0], kept[-1]) == (0, n - 1)
    gaps = np.diff(kept)
    assert len(gaps) == 0 or (gaps.min() >= 1 and np.ptp(gaps) <= 1)


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=150), st.integers(2, 60))
def test_of_each_stage_ten_rows_are_left(stages: list[str | None], most: int) -> None:
    """The first and the last of each, and the method's own rows as they were, if there is room."""
    history = [{"i": i} | ({"stage": name} if name else {}) for i, name in enumerate(stages)]
    left = thinned(history, 1000)
    for name in ("a", "b"):
        rows, kept = ([row for row in x if row.get("stage") == name] for x in (history, left))
        assert len(kept) == min(len(rows), MOST_STAGE_ROWS)
        assert kept[:1] + kept[-1:] == rows[:1] + rows[-1:]
    assert [r for r in left if "stage" not in r] == [r for r in history if "stage" not in r]
    assert [r["i"] for r in left] == sorted(r["i"] for r in left)
    assert thinned(history, most) == thinned(left, most)
    assert thinned(left, 1000) == left


def test_a_record_keeps_a_thinned_history(make_trial: Callable[..., Trial]) -> None:
    history = [{"step": i} for i in range(200)]
    made = record.make(make_trial(), "ok", history=history)
    assert made["history"] == thinned(history)
    assert len(made["history"]) == record.MOST_ROWS
    assert len(history) == 200


def test_a_history_has_six_digits(make_trial: Callable[..., Trial]) -> None:
    row = {"loss": 1 / 3, "step": 1234567, "phase": "joint", "sizes": [2e-9 / 3, 7], "none": None}
    made = record.make(make_trial(), "ok", history=[row])
    assert made["history"] == [
        {"loss": 0.333333, "step": 1234567, "phase": "joint", "sizes": [6.66667e-10, 7]}
        | {"none": None}
    ]
    assert row["loss"] == 1 / 3


def test_scores_and_costs_have_six_digits_and_parameters_all(
    make_trial: Callable[..., Trial],
) -> None:
    third = 1 / 3
    stage = {"name": "half", "params": {"lr": third}, "seconds": 100 * third}
    cost = {"fit_seconds": 10 * third, "stages": [stage]}
    made = record.make(
        make_trial(),
        "ok",
        subsets={"all": {"acc": third, "recall": [third, None]}},
        headline=third,
        cost=cost,
    )
    assert made["subsets"]["all"] == {"acc": 0.333333, "recall": [0.333333, None]}
    assert made["headline"] == 0.333333
    assert made["cost"] == {
        "fit_seconds": 3.33333,
        "stages": [{"name": "half", "params": {"lr": third}, "seconds": 33.3333}],
    }
    assert cost["fit_seconds"] == 10 * third, "what was given stays as it was"
