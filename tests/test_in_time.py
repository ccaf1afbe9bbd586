"""A run that is given some time: what it starts, what it stops, how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from rig import Rig

from bench import checks
from bench.core.trial import Trial
from bench.running import runner
from bench.running.execution import Outcome
from bench.running.job import Job
from bench.running.runner import Limits
from methods import registry
from methods.method import Arrays, Checkpoint, Context, Method, Tags

MakeTrial = Callable[..., Trial]
LONG = 1000.0  # seconds
registry.discover()


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set as soon as the runner kills what runs."""
    event = threading.Event()
    monkeypatch.setattr(runner, "kill_all", event.set)
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


@pytest.mark.filterwarnings("ignore:SCAN collapsed", "ignore:self-labelling stopped")
@pytest.mark.parametrize("name", [n for n in registry.names() if registry.get(n).tags.resumes])
def test_who_says_that_it_resumes_keeps_checkpoints(name: str) -> None:
    asked = []

    class Noting(Context):
        def checkpoint(self, name: str) -> Checkpoint:
            asked.append(name)
            return super().checkpoint(name)

        def stage(self, function: Any, X: np.ndarray, **params: Any) -> Arrays:
            return Context().stage(function, X, **params)  # a stage has checkpoints of its own

    X, y, _ = checks.sample()
    checks.fitted(registry.get(name), X, y, Noting())
    assert asked


def test_with_time_enough_all_is_as_without(rig: Rig, make_trial: MakeTrial) -> None:
    ran = rig.runner([rig.task(make_trial(), seconds=1.0)], lambda job: Outcome("failed", "so"))
    ran.limits = Limits(until=time.monotonic() + 60)
    summary = ran.run()
    assert (summary.out_of_time, summary.exit_status) == (False, 1)
