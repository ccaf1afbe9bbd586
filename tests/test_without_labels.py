"""What a method is without labels: the suite takes the other's record, or its fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.core.trial import Grid, Trial, fitted_as
from bench.data import datasets
from bench.records import scoring
from bench.records.store import Record, Store
from bench.running.job import Job
from bench.running.worker import Worker
from methods import registry

Run = Callable[..., Record]


@pytest.fixture
def trial(entries: dict[str, registry.Entry]) -> Trial:
    """kmeans-full on the digits without labels, which is kmeans."""
    data = datasets.load("digits")
    grid = Grid(
        dataset=data.name,
        dataset_digest=data.digest,
        n_classes=data.n_classes,
        entries=(entries["kmeans-full"],),
        levels=("0%",),
        schedule="smoke",
    )
    (found,) = grid.trials()
    return found


@pytest.fixture
def run(tmp_path: Path, cache: Path) -> Run:
    """``run(trial, ...)``: the record of the first of these trials, which one job has made."""

    def carry_out(*trials: Trial, fresh: bool = False) -> Record:
        job = Job(trials, "digits", str(tmp_path), str(cache), fresh=fresh)
        Worker(job, lambda event: None).run()
        record = Store(tmp_path).read(trials[0])
        assert record is not None
        assert record["status"] == "ok", record
        return record

    return carry_out


def test_one_fit_serves_both(trial: Trial, run: Run, tmp_path: Path) -> None:
    other = fitted_as(trial)
    ours = run(trial, other)
    theirs = Store(tmp_path).read(other)
    assert theirs is not None
    assert (ours["same_as"], theirs["same_as"]) == ("kmeans", None)
    assert (ours["fit"], ours["subsets"]) == (theirs["fit"], theirs["subsets"])
    assert ours["trial"] == trial.to_json()


def test_a_record_that_is_there_is_taken(trial: Trial, run: Run, tmp_path: Path) -> None:
    """Nothing is fitted; with ``--rerun all`` it is."""
    other = fitted_as(trial)
    made = run(other)
    marked = made | {"headline": 0.125}
    Store(tmp_path).write(marked)  # type: ignore[arg-type]  # a record with another headline
    ours = run(trial)
    assert ours["headline"] == 0.125
    assert (ours["same_as"], ours["identity"]) == ("kmeans", trial.identity)
    assert run(trial, fresh=True)["headline"] == made["headline"]


def test_a_stale_or_failed_one_is_not(trial: Trial, run: Run, tmp_path: Path) -> None:
    other = fitted_as(trial)
    store = Store(tmp_path)
    made = run(other)
    stale = made | {"headline": 0.125, "versions": {"method": 0, "stages": {}}}
    store.write(stale)  # type: ignore[arg-type]  # an older record
    assert run(trial)["headline"] == made["headline"]
    store.write(scoring.failure(other, "failed", "it broke", {"device": "cpu"}))
    assert run(replace(trial, seed=0))["headline"] == made["headline"]
