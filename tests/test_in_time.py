"""A run that is given some time: what it starts, what it stops, how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rig import Rig

import bench
from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.options import parse_timeout
from bench.running import runner
from bench.running.costs import OVERHEAD_SECONDS
from bench.running.execution import Outcome
from bench.running.job import Job
from bench.running.runner import Limits
from methods import registry
from methods.method import Method, Tags

MakeTrial = Callable[..., Trial]
LONG = 1000.0  # seconds


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set as soon as the runner kills what runs."""
    event = threading.Event()
    monkeypatch.setattr(runner, "kill_workers_of", lambda jobs: event.set())
    yield event
    event.set()


def test_what_would_not_end_is_not_started(
    rig: Rig, make_trial: MakeTrial, killed: threading.Event
) -> None:
    """A short task, one of unknown length; the long one waits for another run."""
    begun = []

    def execute(job: Job) -> Outcome:
        begun.append(job.trials[0].level)
        return Outcome("failed", "for the test")

    levels = {"1%": LONG, "3%": 0.1, "5%": None}
    tasks = [rig.task(make_trial(level=k), seconds=v) for k, v in levels.items()]
    ran = rig.runner(tasks, execute)
    ran.limits = Limits(until=time.monotonic() + 60)
    summary = ran.run()
    assert begun == ["3%", "5%"]
    assert (summary.out_of_time, summary.stopped) == (True, False)
    assert set(rig.statuses()) == {"3%", "5%"}


def test_what_takes_longer_than_expected_tells_of_what_is_left(
    rig: Rig, make_trial: MakeTrial, killed: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty seconds became 136 with their process: two minutes are too few for sixty more."""
    begun: list[str] = []

    def execute(job: Job) -> Outcome:
        begun.append(job.trials[0].level)
        rig.tell({"event": "worked", "seconds": 136.0 - OVERHEAD_SECONDS})
        return Outcome("failed", "for the test")

    tasks = [rig.task(make_trial(level=k), seconds=v) for k, v in {"1%": 20.0, "3%": 60.0}.items()]
    ran = rig.runner(tasks, execute)
    left: list[float | None] = []
    monkeypatch.setattr(ran.display, "whole", lambda over, seconds: left.append(seconds))
    ran.limits = Limits(until=time.monotonic() + 120)
    assert ran.run().out_of_time
    assert begun == ["1%"]
    assert left == [pytest.approx(60 * (60 + 136) / (60 + 20))]  # 147 s


def test_what_keeps_checkpoints_is_started_and_stopped(
    rig: Rig,
    make_trial: MakeTrial,
    killed: threading.Event,
    entries: dict[str, registry.Entry],
) -> None:
    """It leaves no record: it has not failed."""
    entries["long"] = registry.Entry("long", Method, {}, Tags(resumes=True), "here")

    def execute(job: Job) -> Outcome:
        assert killed.wait(60)
        return Outcome("crashed")

    ran = rig.runner([rig.task(make_trial(method="long"), seconds=LONG)], execute)
    ran.limits = Limits(until=time.monotonic() + 0.3)
    summary = ran.run()
    assert (summary.out_of_time, summary.exit_status, summary.counts) == (True, 0, {})
    assert rig.statuses() == {}


def test_a_stage_that_keeps_none_is_not_started(
    rig: Rig, make_trial: MakeTrial, killed: threading.Event
) -> None:
    """Nor are the trials that need it."""
    begun = []

    def execute(job: Job) -> Outcome:
        begun.append(job.stage)
        return Outcome("failed", "for the test")

    stages = [
        rig.task(make_trial(), stage=f"{x}/1", seconds=LONG) for x in ("neighbours", "kmeans")
    ]
    trial = rig.task(make_trial(), needs=("neighbours/1",))
    ran = rig.runner([*stages, trial], execute)
    ran.limits = Limits(until=time.monotonic() + 60)
    assert ran.run().out_of_time
    assert begun == ["kmeans/1"]


def test_a_run_ends_in_time(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too little for anything: it says what is left, and that is no failure."""
    ran = bench.run("kmeans", "5%", dataset="digits", results=tmp_path / "r", for_s=1e-3)
    assert (ran.exit_status, ran.counts, ran.not_run, ran.out_of_time) == (0, {}, 1, True)
    said = " ".join(capsys.readouterr().out.split())
    assert "the time is up with 1 trials left; what is done is kept" in said
    assert not list((tmp_path / "r").rglob("*.json"))


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="for_s is 0; expected seconds above 0"):
        bench.run("kmeans", dataset="digits", results=tmp_path, for_s=0)
    with pytest.raises(BenchError, match="--for is 'soon'; expected a time such as 90s"):
        parse_timeout("soon", "--for")


def test_with_time_enough_all_is_as_without(rig: Rig, make_trial: MakeTrial) -> None:
    ran = rig.runner([rig.task(make_trial(), seconds=1.0)], lambda job: Outcome("failed", "so"))
    ran.limits = Limits(until=time.monotonic() + 60)
    summary = ran.run()
    assert (summary.out_of_time, summary.exit_status) == (False, 1)
