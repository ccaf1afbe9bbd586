"""Records on disk: whole or not at all, found again by their trial, read as a table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core import files
from bench.core.errors import BenchError, WriteError
from bench.core.trial import Trial
from bench.records.store import (
    TRIAL_COLUMNS,
    Store,
    dump_record,
    flatten_record,
    is_stale,
    load_results,
    read_record,
)
from methods.method import Arrays, Method, Tags, stage
from methods.registry import Entry

MakeRecord = Callable[..., dict[str, Any]]
MakeTrial = Callable[..., Trial]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def broken_disk(*anything: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_record_comes_back(tmp_path: Path, make_record: MakeRecord) -> None:
    record = make_record(seed=3)
    path = Store(tmp_path).write(record)
    trial = Trial.from_json(record["trial"])
    assert path == tmp_path / "trials" / trial.path
    assert Store(tmp_path).read(trial) == record
    assert read_record(path) == record


def test_a_record_replaces_the_older_one(tmp_path: Path, make_record: MakeRecord) -> None:
    place = Store(tmp_path)
    place.write(make_record(None))
    place.write(make_record(0.75))
    assert [record["headline"] for record in place] == [0.75]


def test_there_is_no_record_of_another_trial(
    tmp_path: Path, make_record: MakeRecord, make_trial: MakeTrial
) -> None:
    place = Store(tmp_path)
    place.write(make_record())
    assert place.read(make_trial(seed=1)) is None
    other = make_trial(params={"n_clusters": 9})  # the same path, another identity
    assert place.path(other) == place.path(make_trial())
    assert place.read(other) is None
    assert place.read(make_trial()) is not None


@pytest.mark.parametrize("to", ["0 (copy).json", "7.json", "../../../copies/5%/0.json"])
def test_a_copy_of_a_record_is_no_further_seed(
    tmp_path: Path, make_record: MakeRecord, to: str
) -> None:
    place = Store(tmp_path)
    path = place.write(make_record())
    copy = path.parent / "x" / ".." / to if to[0] != "." else path.parents[2] / "copies/5%/0.json"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy = copy.resolve()
    copy.write_bytes(path.read_bytes())
    with pytest.raises(BenchError) as refused:
        load_results(tmp_path)
    assert str(refused.value) == f"{copy} belongs to {path}; move it there or delete it"


def test_records_come_ordered_and_views_are_none(tmp_path: Path, make_record: MakeRecord) -> None:
    place = Store(tmp_path)
    assert list(place) == []
    for method, seed in (("b", 0), ("a", 1), ("a", 0)):
        path = place.write(make_record(method=method, seed=seed))
    (path.parent / "0.views.json").write_text("{}")
    found = [(record["trial"]["method"], record["trial"]["seed"]) for record in place]
    assert found == [("a", 0), ("a", 1), ("b", 0)]


@pytest.mark.parametrize("call", ["replace", "fsync", "chmod"])
def test_a_write_that_fails_leaves_the_old_record_and_no_draft(
    tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    place = Store(tmp_path)
    path = place.write(make_record(0.25))
    monkeypatch.setattr(files.os, call, broken_disk)
    with pytest.raises(WriteError, match="No space left"):
        place.write(make_record(0.75))
    assert read_record(path)["headline"] == 0.25
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_is_no_json_leaves_the_old_record(tmp_path: Path, make_record: MakeRecord) -> None:
    place = Store(tmp_path)
    old = make_record(0.25)
    path = place.write(old, {"clusters": [1]})
    with pytest.raises(TypeError):
        place.write(make_record(0.75, {"cluster_sizes": {1, 2}}))
    assert read_record(path)["headline"] == 0.25
    views = place.views_path(Trial.from_json(old["trial"]))
    assert {*path.parent.iterdir()} == {path, views}, "what is beside it stays too, and no draft"


@given(
    history=st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=3),
    subsets=st.dictionaries(st.text(min_size=1), json_values, max_size=3),
    others=st.dictionaries(st.text(), json_values, max_size=3),
)
def test_a_dump_is_json_of_the_same_record(
    history: list[Any], subsets: dict[str, Any], others: dict[str, Any]
) -> None:
    record = others | {"history": history, "subsets": subsets}
    assert json.loads(dump_record(record)) == record
    assert list(json.loads(dump_record(record))) == list(record)


def test_a_dump_has_a_line_per_row(make_record: MakeRecord) -> None:
    short = make_record(parts={"history": [{"epoch": 1}]})
    long = make_record(parts={"history": [{"epoch": 1}, {"epoch": 2}]})
    lines, more = dump_record(short).splitlines(), dump_record(long).splitlines()
    assert len(more) == len(lines) + 1
    assert '  {"epoch":2}' in more
    assert sum(line.startswith('  "unlabelled": {') for line in lines) == 1


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: text[: len(text) // 2], id="half"),
        pytest.param(lambda text: "[]", id="a list"),
        pytest.param(lambda text: "\x00\xff", id="bytes"),
        pytest.param(lambda text: text.replace('"status"', '"state"'), id="no status"),
        pytest.param(lambda text: text.replace('"identity"', '"id"'), id="no identity"),
        pytest.param(lambda text: text.replace('"dataset":', '"data":'), id="other fields"),
        pytest.param(lambda text: text.replace("stratified", "best"), id="no selection"),
        pytest.param(lambda text: text.replace('"level":"5%"', '"level":"x"'), id="no level"),
    ],
)
def test_a_damaged_record_is_said_in_one_sentence(
    tmp_path: Path, make_record: MakeRecord, damage: Callable[[str], str]
) -> None:
    record = make_record()
    path = Store(tmp_path).write(record)
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_bytes(damaged.encode("latin-1"))
    for read in (
        lambda: read_record(path),
        lambda: Store(tmp_path).read(Trial.from_json(record["trial"])),
        lambda: load_results(tmp_path),
    ):
        with pytest.raises(BenchError) as refused:
            read()
        assert str(refused.value).startswith(f"{path} is not a record (")
        assert str(refused.value).endswith("); delete it and run again")


def test_results_as_a_table(tmp_path: Path, make_record: MakeRecord) -> None:
    place = Store(tmp_path)
    place.write(make_record(0.75, variant={"lam": 0.5}, params={"lam": 0.5}))
    place.write(make_record(None, seed=1))
    table = load_results(tmp_path).sort_values("seed")
    assert len(table) == 2
    good, failed = (row for _, row in table.iterrows())
    expected = {
        "dataset": "toy",
        "protocol": "transductive",
        "selection": "stratified",
        "schedule": "quick",
        "method": "tiny",
        "variant": "lam=0.5",
        "params": '{"lam": 0.5}',
        "level": "5%",
        "seed": 0,
        "status": "ok",
        "n_labels": 5,
        "headline": 0.75,
        "fit_seconds": 2.0,
        "stage_seconds": 3.0,
        "peak_memory_mib": 100.0,
        "device": "cpu",
    }
    assert {name: good[name] for name in expected} == expected
    for subset in ("all", "labelled", "unlabelled"):
        metrics = {"acc": 0.75, "accuracy": 0.75, "nmi": 0.25, "ari": 0.125, "purity": 0.75}
        assert {name: good[f"{name}_{subset}"] for name in metrics} == metrics
    assert (failed["status"], failed["error"]) == ("failed", "ValueError: it broke")
    empty = ["headline", "acc_all", "fit_seconds", "same_as"]
    assert failed[empty].isna().all()
    assert good[["same_as", "error"]].isna().all()


def test_a_row_says_how_it_was_made(make_record: MakeRecord) -> None:
    """The precision that ran is another thing than the one asked for, which may be "auto"."""
    environment = {
        "device": "cuda",
        "accelerator": "NVIDIA X",
        "processor": "AMD Y",
        "cores": 16,
        "threads": 2,
        "concurrency": 3,
        "precision": "bf16",
        "commit": "0123456789abcdef",
        "dirty": True,
        "versions": {
            "python": "3.11.7",
            "bench": "0.1.0",
            "torch": "2.9+cu",
            "scikit-learn": "1.7",
        },
    }
    versions = {"method": 2, "stages": {"simclr": 1, "neighbours": 3}}
    row = flatten_record(make_record(0.5, {"environment": environment, "versions": versions}))
    expected = {
        "accelerator": "NVIDIA X",
        "processor": "AMD Y",
        "cores": 16,
        "threads": 2,
        "concurrency": 3,
        "precision": "auto",
        "precision_ran": "bf16",
        "commit": "0123456789-dirty",
        "method_version": 2,
        "stage_versions": "neighbours=3 simclr=1",
        "bench_version": "0.1.0",
        "python_version": "3.11.7",
        "torch_version": "2.9+cu",
        "numpy_version": None,
        "scikit_learn_version": "1.7",
    }
    assert {name: row[name] for name in expected} == expected
    clean = environment | {"dirty": False}
    assert flatten_record(make_record(0.5, {"environment": clean}))["commit"] == "0123456789"


def test_a_row_says_what_share_was_labelled(make_record: MakeRecord) -> None:
    """Of the fitted images (10 here, 5 of them labelled); of a failure what its level says."""
    assert flatten_record(make_record(level="5"))["label_share"] == 0.5
    assert flatten_record(make_record(None, level="5%"))["label_share"] == 0.05
    assert flatten_record(make_record(None, level="5"))["label_share"] is None
    nobody = make_record(level="5")
    nobody["subsets"]["all"]["n"] = 0  # as a file from elsewhere may have it
    assert flatten_record(nobody)["label_share"] is None


def test_levels_sort_as_a_person_would(tmp_path: Path, make_record: MakeRecord) -> None:
    for level in ("10%", "500", "3%", "0%", "20", "0.5%"):
        Store(tmp_path).write(make_record(level=level))
    levels = load_results(tmp_path).sort_values("level")["level"]
    assert list(levels) == ["0%", "0.5%", "3%", "10%", "20", "500"]
    assert (levels > "3%").sum() == 3


def test_the_columns_are_always_the_same_and_described(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    assert set(make_record()["trial"]) <= set(TRIAL_COLUMNS)
    assert set(flatten_record(make_record(None))) == set(TRIAL_COLUMNS)
    assert list(load_results(tmp_path)) == TRIAL_COLUMNS
    text = (Path(__file__).parent.parent / "bench" / "README.md").read_text()
    table = text.partition("<!-- columns of load_results -->")[2].partition("<!-- end -->")[0]
    described = [
        name
        for cell in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    ]
    assert described == TRIAL_COLUMNS


def test_results_that_are_not_there() -> None:
    with pytest.raises(BenchError, match="there is no results folder nowhere; `bench run` makes"):
        load_results("nowhere")


def test_results_without_records(tmp_path: Path) -> None:
    assert load_results(tmp_path).empty


@pytest.mark.parametrize(
    ("versions", "stale"),
    [
        ({"method": 2, "stages": {"counted_here": 3, "of_a_plugin": 1}}, False),
        ({"method": 3, "stages": {"counted_here": 4}}, False),
        ({"method": 1, "stages": {}}, True),
        ({"method": 2, "stages": {"counted_here": 2}}, True),
        (None, True),
    ],
)
def test_stale_is_what_an_older_version_made(
    entries: dict[str, Entry],
    make_record: MakeRecord,
    monkeypatch: pytest.MonkeyPatch,
    versions: Any,
    stale: bool,
) -> None:
    @stage(version=3)
    def counted_here(X: Any, *, random_state: int, context: Any) -> Arrays:
        return {}

    class Versioned(Method):
        version = 2

    entries["tiny"] = Entry("tiny", Versioned, {}, Tags(), "here")
    assert is_stale(make_record(parts={"versions": versions})) is stale


def test_the_version_that_counts_is_that_of_the_method_that_fitted(
    entries: dict[str, Entry], make_record: MakeRecord
) -> None:
    class Second(Method):
        version = 2

    entries["tiny"] = Entry("tiny", Method, {}, Tags(), "here")
    entries["other"] = Entry("other", Second, {}, Tags(), "here")
    parts = {"fitted_as": {"method": "other", "variant": {}}}
    assert is_stale(make_record(parts=parts | {"versions": {"method": 1, "stages": {}}}))
    assert not is_stale(make_record(parts=parts | {"versions": {"method": 2, "stages": {}}}))
