"""What the file of a record leaves out comes back when it is read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import BenchError
from bench.records import scoring
from bench.records.derived import without_derived
from bench.records.store import file_text, parse_record

MakeRecord = Callable[..., dict[str, Any]]


def scored(y: np.ndarray, labels: np.ndarray, n_labelled: int, ignores: bool) -> dict[str, Any]:
    """The parts of a record that `scoring.score` gives."""
    shown = np.arange(n_labelled)
    parts = scoring.score(y, labels, shown, n_classes=3, names_needed=ignores, n_clusters=4)
    headline = scoring.headline("transductive", n_labelled, parts)
    return parts | headline | {"n_labels": n_labelled}


@given(data=st.data(), n_labelled=st.integers(0, 11), ignores=st.booleans())
def test_it_comes_back(
    make_record: MakeRecord, data: st.DataObject, n_labelled: int, ignores: bool
) -> None:
    """Whatever was assigned, to clusters or to classes, or to nothing."""
    n_clusters = 3 if n_labelled and not ignores else 4
    y = np.array(data.draw(st.lists(st.integers(0, 2), min_size=12, max_size=12)))
    ids = st.lists(st.integers(-1, n_clusters - 1), min_size=12, max_size=12)
    parts = scored(y, np.array(data.draw(ids)), n_labelled, ignores)
    record = make_record(0.5, parts)
    text = file_text(record)
    kept = json.loads(text)
    assert "cluster_sizes" not in kept
    assert "contingency" not in kept["subsets"]["all"]
    assert not any("recall" in part for part in kept["subsets"].values())
    assert parse_record(text, "here") == record


@pytest.fixture
def record(make_true_record: MakeRecord) -> dict[str, Any]:
    return make_true_record()


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another recall": lambda r: r["subsets"]["labelled"].update(recall=[0.25, 1.0]),
    "another table": lambda r: r["subsets"]["all"].update(contingency=[[9, 1, 0], [0, 10, 0]]),
    "other sizes": lambda r: r.update(cluster_sizes=[1, 2]),
    "other images": lambda r: r.update(digests={"dataset": "x", "split": "y"}),
    "an older schema": lambda r: r.update(schema=1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_does_not_follow_stays(
    record: dict[str, Any], change: Callable[[dict[str, Any]], Any]
) -> None:
    change(record)
    before = copy.deepcopy(record)
    assert parse_record(file_text(record), "here") == before
    assert record == before, "it was not changed itself"


@pytest.mark.parametrize("parts", [(), ("labelled",), ("unlabelled",)])
def test_half_of_the_subsets_are_written(record: dict[str, Any], parts: tuple[str, ...]) -> None:
    """Such a record may come from elsewhere, of a trial that failed."""
    record["subsets"] = {name: record["subsets"][name] for name in parts}
    del record["cluster_sizes"]
    record |= {"status": "failed", "error": {"message": "it broke", "traceback": ""}}
    assert parse_record(file_text(record), "here") == record


def test_an_older_file_keeps_all(record: dict[str, Any]) -> None:
    assert without_derived(record | {"schema": 1}) == record | {"schema": 1}


def test_a_table_that_is_missing_and_follows_from_nothing_is_named(record: dict[str, Any]) -> None:
    del record["subsets"]["unlabelled"]["contingency"]
    del record["subsets"]["all"]["contingency"]
    with pytest.raises(BenchError, match="contingency"):
        parse_record(json.dumps(record), "here")
