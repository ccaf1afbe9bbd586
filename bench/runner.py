"""Many jobs: at most so many at a time, stages before what needs them, every failure a record."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import machine, record
from bench.errors import BenchError
from bench.execution import Outcome, execute, kill_all
from bench.plan import Plan, Task
from bench.progress import Display, result_line
from bench.store import Record, Store, read_record
from bench.trial import Trial

BACKENDS = ("local", "dask")
REFRESH_SECONDS = 20.0


@dataclass(frozen=True)
class Limits:
    """How a plan is carried out.

    Parameters
    ----------
    jobs : how many processes at a time.
    timeout_s : seconds after which a job is killed; None sets no limit.
    backend : ``local`` (this machine) or ``dask`` (the workers of `scheduler`, which have to see
        the results and cache folders under the same paths).
    """

    jobs: int = 1
    timeout_s: float | None = None
    backend: str = "local"
    scheduler: str | None = None


@dataclass
class Summary:
    """How a run ended: trials per status, and whether it was stopped before `not_run` trials.

    `failed_before` counts trials that were asked for, failed in an earlier run and were left so.
    """

    counts: dict[str, int]
    failed_before: int = 0
    stopped: bool = False
    not_run: int = 0
    broken_plugins: int = 0

    @property
    def exit_status(self) -> int:
        bad = self.failed_before or any(self.counts.get(status) for status in record.FAILURES)
        return 1 if bad or self.stopped or self.broken_plugins else 0


class Runner:
    """Carries a plan out.

    Parameters
    ----------
    plan, limits : what to do and how.
    store : where records go.
    logs : folder for what the workers print.
    display : what a person sees.
    refresh : called now and then while records come in (writes the leaderboard).
    """

    def __init__(
        self,
        plan: Plan,
        limits: Limits,
        store: Store,
        logs: Path,
        display: Display,
        refresh: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.limits = limits
        self.store = store
        self.logs = logs
        self.display = display
        self.refresh = refresh
        self.summary = Summary({})
        self._waiting = list(plan.tasks)
        self._outcomes: dict[str, Outcome] = {}
        self._running: dict[Future[Outcome], tuple[int, Task]] = {}
        self._seconds_left = plan.seconds
        self._refreshed = time.monotonic()

    def run(self) -> Summary:
        """Run everything; Ctrl-C (or a termination signal) kills the workers and returns."""
        executor = make_executor(self.limits)
        try:
            with _termination_as_interrupt():
                self._loop(executor)
        except KeyboardInterrupt:
            self.summary.stopped = True
            for future in self._running:
                future.cancel()
            while not all(future.done() for future in self._running):
                kill_all()  # again and again: a worker may just have been starting
                time.sleep(0.05)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
        return self.summary

    def _loop(self, executor: Executor) -> None:
        while self._waiting or self._running:
            while len(self._running) < self.limits.jobs and (task := self._next()) is not None:
                self._submit(executor, task)
            done, _ = wait(self._running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                number, task = self._running.pop(future)
                self.display.finish(number)
                self._finish(task, _outcome(future))

    def _next(self) -> Task | None:
        """The first task that can start; tasks whose stage failed are recorded as failed."""
        for task in list(self._waiting):
            ended = [self._outcomes[key] for key in task.needs if key in self._outcomes]
            failed = [outcome for outcome in ended if outcome.status != "ok"]
            if failed:
                self._waiting.remove(task)
                self._finish(task, failed[0])
            elif len(ended) == len(task.needs):
                self._waiting.remove(task)
                return task
        return None

    def _submit(self, executor: Executor, task: Task) -> None:
        number = id(task)
        self.display.start(number, task.title)
        arguments = (task.job, str(self._log(task)), self.limits.timeout_s)
        if self.limits.backend == "local":
            future = executor.submit(execute, *arguments, lambda e: self._event(number, task, e))
        else:
            future = executor.submit(execute, *arguments)
        self._running[future] = (number, task)

    def _log(self, task: Task) -> Path:
        if task.job.stage:
            return self.logs / "stages" / f"{task.job.stage}.log"
        return log_path(self.logs, task.job.trials[0])

    def _event(self, number: int, task: Task, event: dict[str, Any]) -> None:
        """An event of a worker; called from the thread that watches it."""
        if event["event"] != "record":
            self.display.event(number, task.title, event)

    def _finish(self, task: Task, outcome: Outcome) -> None:
        """Count and show what a job left behind, and write the records that it could not write."""
        self._seconds_left -= task.seconds or 0.0
        if task.job.stage:
            self._finish_stage(task, outcome)
            return
        for trial in task.job.trials:
            if str(self.store.path(trial)) in outcome.written:
                written = read_record(self.store.path(trial))
            else:
                written = self._write_failure(task, trial, outcome)
            status = written["status"]
            message = (written.get("error") or {}).get("message")
            self.summary.counts[status] = self.summary.counts.get(status, 0) + 1
            self.display.line(result_line(trial.title, status, written.get("headline"), message))
        over = sum(self.summary.counts.values())
        left = None if self.plan.unknown else self._seconds_left / self.limits.jobs
        self.display.whole(over, left)
        if time.monotonic() - self._refreshed > REFRESH_SECONDS:
            self.refresh()
            self._refreshed = time.monotonic()

    def _finish_stage(self, task: Task, outcome: Outcome) -> None:
        name = task.job.stage.partition("/")[0]
        if outcome.status == "ok" and task.job.stage not in outcome.written:
            outcome = Outcome("crashed", "the process ended without a result")
        if outcome.status != "ok" and not outcome.message.startswith(f"stage {name} "):
            message = f"stage {name} failed: {outcome.message}"
            outcome = replace(outcome, message=message)
        self._outcomes[task.job.stage] = outcome
        self.display.line(result_line(f"stage {name}", outcome.status, None, outcome.message))

    def _write_failure(self, task: Task, trial: Trial, outcome: Outcome) -> Record:
        """The record of a trial whose process wrote none."""
        job = task.job
        environment = machine.describe(
            job.device, machine.resolve_precision(trial.precision), job.threads, job.concurrency
        )
        status = "crashed" if outcome.status == "ok" else outcome.status
        message = outcome.message or "the process ended without a record"
        failed = record.failure(trial, status, message, environment, traceback=outcome.traceback)
        self.store.write(failed)
        return failed


def _outcome(future: Future[Outcome]) -> Outcome:
    """How a job ended; a backend that broke (a lost worker of a cluster) is a crash of the job."""
    try:
        return future.result()
    except Exception as error:
        return Outcome("crashed", f"{type(error).__name__}: {error}", traceback.format_exc())


def log_path(logs: Path, trial: Trial) -> Path:
    """Where the output of a trial's process is kept."""
    return logs / trial.path.with_suffix(".log")


def make_executor(limits: Limits) -> Executor:
    """Threads that each watch one process, or the workers of a dask cluster.

    Raises
    ------
    BenchError : dask is not installed, or no scheduler answers.
    """
    if limits.backend == "local":
        return ThreadPoolExecutor(limits.jobs)
    try:
        from distributed import Client
    except ImportError as error:
        raise BenchError(
            "backend dask needs the package distributed; install this project with [dask]"
        ) from error
    try:
        return Client(limits.scheduler).get_executor(pure=False)
    except OSError as error:
        raise BenchError(f"no dask scheduler answers at {limits.scheduler}: {error}") from error


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Treat a termination signal as Ctrl-C; only the main thread may say so to Python."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
