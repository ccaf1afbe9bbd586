"""When a kept fit serves a trial: only where it saw the same labels; and what asking costs."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core import splits
from bench.core.trial import Grid, Trial
from bench.data import datasets
from bench.records.scoring import Record
from bench.records.store import Store, is_stale
from bench.running import worker
from bench.running.job import Job
from bench.running.worker import Worker
from methods import registry
from methods.method import Arrays, Context, Method, stage

N = 1797
SECONDS = 0.2


@stage(version=1)
def order(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
    """What the method asks by."""
    time.sleep(SECONDS)
    return {"order": np.arange(len(X))}


class Memory(Method):
    """It knows the labels that it was given by heart, and names the rest 0."""

    last = False  # what it asks for
    fits = 0

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def select(self, X: np.ndarray, n_labels: int, context: Context | None = None) -> np.ndarray:
        assert context is not None
        rows = context.stage(order, X, random_state=0)["order"]
        kept = context.checkpoint("asking")
        assert kept.load() is None, "another trial's"
        kept.save(lambda: {"asked": n_labels})
        time.sleep(SECONDS)
        return rows[-n_labels:] if self.last else rows[:n_labels]

    def fit(self, X: np.ndarray, y: np.ndarray, context: Context | None = None) -> Memory:
        type(self).fits += 1
        self.labels_ = np.maximum(y, 0)
        return self


@pytest.fixture
def memory(entries: dict[str, registry.Entry], monkeypatch: pytest.MonkeyPatch) -> type[Memory]:
    registry.register("memory")(Memory)
    monkeypatch.setattr(Memory, "last", False)
    monkeypatch.setattr(Memory, "fits", 0)
    return Memory


def trial(level: str, selection: str) -> Trial:
    data = datasets.load("digits")
    entries = (registry.get("memory"),)
    (one,) = Grid(
        data.name, data.digest, data.n_classes, entries, (level,), selection=selection
    ).trials()
    return one


def run(folder: Path, cache: Path, level: str, selection: str = "representative") -> Record:
    """The record that a worker writes in `folder`, keeping fits in `cache`."""
    one = trial(level, selection)
    Worker(Job((one,), "digits", str(folder), str(cache)), lambda event: None).run()
    record = Store(folder).read(one)
    assert record is not None
    return record


def accuracy(record: Record, subset: str) -> Any:
    return record["subsets"][subset]["accuracy"]


def test_a_fit_that_saw_other_labels_is_not_taken(
    memory: type[Memory], tmp_path: Path, cache: Path
) -> None:
    """Else what it saw would be scored as unlabelled."""
    first = run(tmp_path / "a", cache, "800")
    memory.last = True
    second = run(tmp_path / "b", cache, "800")
    assert first["digests"]["split"] != second["digests"]["split"]
    assert first["fit"] != second["fit"]
    for record in (first, second):
        assert accuracy(record, "labelled") == 1
        assert accuracy(record, "unlabelled") < 0.2  # zeros alone
    assert memory.fits == 2


def test_a_fit_that_saw_the_same_labels_is_taken(
    memory: type[Memory], tmp_path: Path, cache: Path
) -> None:
    """A tenth of 1,797 images are 180, under whatever name."""
    share, count = (run(tmp_path, cache, level, "stratified") for level in ("10%", "180"))
    assert share["fit"] == count["fit"]
    assert memory.fits == 1
    other = run(tmp_path, cache, "180", "random")
    assert other["fit"] != count["fit"]


def test_a_fit_of_another_file_is_not_taken(
    memory: type[Memory], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two authors may call their methods alike, and both begin with version 1."""
    file = tmp_path / "plugin.py"
    entry = dataclasses.replace(registry.get("memory"), origin=str(file))
    monkeypatch.setitem(registry._entries, "memory", entry)
    fits = []
    for content in ("argmax", "argmin", "argmin", "argmax"):
        file.write_text(content)
        fits.append(run(tmp_path / str(len(fits)), cache, "180", "stratified")["fit"])
    assert fits[0] == fits[3] != fits[1] == fits[2]
    assert memory.fits == 2
    assert worker._content_of_plugin(registry.get("kmeans")) == [], "versions decide"


def test_what_asking_costs_is_in_the_record(
    memory: type[Memory], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its seconds, and its stage: also where the fit was kept. What it had kept is gone."""
    monkeypatch.setenv("BENCH_CHECKPOINT_SECONDS", "0")
    for folder in (tmp_path / "a", tmp_path / "b"):
        record = run(folder, cache, "20")
        cost = record["cost"]
        assert [stage["name"] for stage in cost["stages"]] == ["order"]
        assert cost["stage_seconds"] >= SECONDS
        assert cost["fit_seconds"] >= SECONDS
        assert record["versions"]["stages"] == {"order": 1}
        assert not is_stale(record)
    assert memory.fits == 1
    assert not list((cache / "checkpoints").rglob("asking*"))
    monkeypatch.setattr("bench.records.store.stage_version", lambda name: 2)
    assert is_stale(record)


def test_for_labels_that_are_drawn_nobody_is_asked(
    memory: type[Memory], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "select", None)
    record = run(tmp_path, cache, "20", "stratified")
    assert record["cost"]["stages"] == []
    assert record["status"] == "ok"
    expected = splits.labelled_indices(datasets.load("digits").y, 20, "stratified", 0)
    assert record["digests"]["split"] == splits.digest(expected, N)
