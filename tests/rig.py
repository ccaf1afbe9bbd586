"""A runner by itself: its jobs are functions of the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.core.trial import Trial
from bench.records.store import Store
from bench.running import runner
from bench.running.execution import Outcome
from bench.running.job import Job
from bench.running.plan import Plan, Task
from bench.running.progress import Display
from bench.running.runner import Limits, Runner

Execute = Callable[..., Outcome]


class Rig:
    """A runner whose jobs are carried out by `execute`, in this process.

    What a worker would say of the job that is carried out, a test says by `tell`.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache = folder / "cache"
        self.store = Store(folder / "results")
        self.patch = monkeypatch
        self.logs: list[str] = []
        self.tell: Callable[[dict[str, Any]], None]

    def task(
        self,
        *trials: Trial,
        stage: str = "",
        needs: tuple[str, ...] = (),
        seconds: float | None = None,
    ) -> Task:
        results, cache = str(self.store.results), str(self.cache)
        return Task(Job(trials, "digits", results, cache, stage=stage), needs, seconds)

    def runner(self, tasks: list[Task], execute: Execute) -> Runner:
        def carry_out(job: Job, log: str, limit: float | None, tell: Any, *others: Any) -> Outcome:
            self.logs.append(log)
            self.tell = tell
            return execute(job)

        self.patch.setattr(runner, "execute", carry_out)
        plan = Plan(tasks, [], [], [])
        display = Display(Console(quiet=True), len(plan.trials), None)
        logs = self.cache / "logs"
        return Runner(plan, Limits(), self.store, logs, display, refresh=lambda: None)

    def statuses(self) -> dict[str, str]:
        return {record["trial"]["level"]: record["status"] for record in self.store}
