"""Many jobs: at most so many at a time, stages before what needs them, every failure a record."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.core import machine
from bench.core.errors import BenchError
from bench.core.trial import Trial, fitted_as
from bench.records import scoring
from bench.records.logs import log_path, shared_log_path
from bench.records.scoring import Record
from bench.records.store import Store
from bench.running.cluster import Cluster, SchedulerLost
from bench.running.costs import Pace
from bench.running.execution import Outcome, execute, kill_workers_of
from bench.running.forkserver import ForkServer
from bench.running.plan import Plan, Task
from bench.running.progress import Display, result_line
from bench.running.stages import StageStore
from methods import registry

REFRESH_SECONDS = 20.0  # between two refreshes of the leaderboard, at least
REFRESH_SHARE = 0.05  # of the time they may take: a board of a thousand records takes seconds


@dataclass(frozen=True)
class Limits:
    """How a plan is carried out.

    Parameters
    ----------
    jobs : how many processes at a time.
    timeout_s : seconds after which a job is killed; None sets no limit.
    memory : bytes at more than which a job is killed, with all that it has started; None: no limit.
    until : when the time for all is up, as `time.monotonic` counts; None: never. What is known to
        take longer and keeps no checkpoints is not started; what runs then is stopped.
    """

    jobs: int = 1
    timeout_s: float | None = None
    memory: int | None = None
    until: float | None = None

    @property
    def left_s(self) -> float:
        """Seconds until the time is up."""
        return math.inf if self.until is None else self.until - time.monotonic()


@dataclass
class Summary:
    """How a run ended: trials per status, and whether it was stopped before `not_run` trials.

    `reason` says why it was stopped, if it was not a person who did. A run whose time is up is not
    stopped, but `out_of_time`: it ended as it was asked to.
    `failed_before` counts trials that were asked for, failed in an earlier run and were left so.
    `seconds` is what the run took, `work_seconds` what methods took in fits and stages that ended,
    all processes together, `jobs` at a time; 0 under dask, which tells nothing of that. `misnamed`
    has the trials whose clusters are right but for their numbers, and what is to be said of each.
    `unwritten` says which file could not be written, if one could not. `asked` are all trials that
    were asked for, `new` those among them that have come to an end in this run.
    """

    counts: dict[str, int]
    failed_before: int = 0
    stopped: bool = False
    out_of_time: bool = False
    reason: str = ""
    not_run: int = 0
    broken_plugins: int = 0
    seconds: float = 0.0
    work_seconds: float = 0.0
    jobs: int = 1
    unwritten: str = ""
    misnamed: list[tuple[Trial, str]] = field(default_factory=list)
    asked: list[Trial] = field(default_factory=list, repr=False)
    new: list[Trial] = field(default_factory=list, repr=False)

    @property
    def warnings(self) -> list[str]:
        """A sentence for each method that numbers its clusters otherwise than the classes."""
        found: dict[str, list[tuple[Trial, str]]] = {}
        for trial, said in self.misnamed:
            found.setdefault(trial.method, []).append((trial, said))
        return [
            f"{trials[0][0].title}: {trials[0][1]}"
            + (f"; so it is in {len(trials)} of its trials" if len(trials) > 1 else "")
            + ". Above level 0 nothing is mapped: give each cluster its class's number"
            for trials in found.values()
        ]

    @property
    def exit_status(self) -> int:
        """0 if every trial that was asked for ended well, else 1."""
        bad = self.failed_before or any(self.counts.get(status) for status in scoring.FAILURES)
        return 1 if bad or self.stopped or self.broken_plugins or self.unwritten else 0


@dataclass(frozen=True)
class Running:
    """A job that has been handed over, and each trial's record as it was before (None: none)."""

    number: int
    task: Task
    earlier: Mapping[Path, bytes | None]


class Runner:
    """Carries a plan out.

    Parameters
    ----------
    plan, limits : what to do and how.
    store : where records go.
    logs : folder for what the workers print.
    display : what a person sees.
    refresh : called now and then while records come in (writes the leaderboard).
    server : forks the workers; it is closed at the end. Without one each is a new process.
    cluster : where jobs are carried out; None stands for this machine. What has begun there goes on
        there, to its end or its limit, when the run is stopped.
    """

    def __init__(
        self,
        plan: Plan,
        limits: Limits,
        store: Store,
        logs: Path,
        display: Display,
        refresh: Callable[[], None],
        server: ForkServer | None = None,
        cluster: Cluster | None = None,
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
        self._running: dict[Future[Outcome], Running] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._server = server
        self._cluster = cluster
        self._seconds_left = plan.seconds  # as expected when it was planned
        self._pace = Pace()
        self._refresh_at = time.monotonic() + REFRESH_SECONDS

    def run(self) -> Summary:
        """Run everything; Ctrl-C (or a termination signal) kills the workers and returns."""
        executor = ThreadPoolExecutor(self.limits.jobs)  # each thread watches one job
        with _interrupts_set(self._stop):
            try:
                self._loop(executor)
            finally:
                self._end_running()
                executor.shutdown(wait=False)  # all is over
        self.summary.stopped = self._stop.is_set()
        return self.summary

    def _loop(self, executor: Executor) -> None:
        """Start what can start and finish what has ended, until all is over or `_stop` is set."""
        while (self._waiting or self._running) and not self._stop.is_set():
            while self._has_room() and (task := self._next()) is not None:
                self._submit(executor, task)
            if self._stop.is_set():
                return
            if self.limits.left_s <= 0 or (not self._running and self._waiting):
                self.summary.out_of_time = True
                return
            left_s = max(0.0, min(0.5, self.limits.left_s))
            done, _ = wait(self._running, timeout=left_s, return_when=FIRST_COMPLETED)
            for future in done:
                running = self._running.pop(future)
                self.display.finish(running.number)
                if isinstance(lost := future.exception(), SchedulerLost):
                    self._stop_because(str(lost))
                    continue
                self._finish(running.task, _outcome(future), running.earlier)

    def _stop_because(self, reason: str) -> None:
        """End the run as Ctrl-C does."""
        self.summary.reason = self.summary.reason or reason
        self._stop.set()

    def _has_room(self) -> bool:
        return len(self._running) < self.limits.jobs and not self._stop.is_set()

    def _end_running(self) -> None:
        """Kill what still runs, and wait for its end."""
        for future in self._running:
            future.cancel()
        while not all(future.done() for future in self._running):
            # again and again: a worker may just have been starting
            kill_workers_of([running.task.job for running in self._running.values()])
            if self._cluster is not None:
                self._cluster.close()
            self._end_server()
            time.sleep(0.05)
        self._end_server()

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.close()

    def _next(self) -> Task | None:
        """The first task that can start; tasks whose stage failed are recorded as failed.

        What is known not to end in time, nor to go on another time, cannot start.
        """
        for task in list(self._waiting):
            ended = [self._outcomes[key] for key in task.needs if key in self._outcomes]
            failed = [outcome for outcome in ended if outcome.status != "ok"]
            if failed:
                self._waiting.remove(task)
                self._finish(task, failed[0], self._records_of(task))
            elif len(ended) == len(task.needs) and (task.resumes or self._ends_in_time(task)):
                self._waiting.remove(task)
                return task
        return None

    def _ends_in_time(self, task: Task) -> bool:
        """Whether it is not known to take longer than there is time."""
        return self._pace(task.seconds or 0.0) <= self.limits.left_s

    def _submit(self, executor: Executor, task: Task) -> None:
        number, earlier = id(task), self._records_of(task)
        self.display.start(number, task.title)
        arguments = (task.job, str(self._log(task)), self.limits.timeout_s)
        watch = partial(self._event, number, task)
        function = execute if self._cluster is None else self._cluster.execute
        future = executor.submit(function, *arguments, watch, self._server, self.limits.memory)
        self._running[future] = Running(number, task, earlier)

    def _records_of(self, task: Task) -> dict[Path, bytes | None]:
        """The content of the record of each trial that `task` fits; None where there is none."""
        trials = () if task.job.stage else task.job.trials
        return {path: _content(path) for path in map(self.store.path, trials)}

    def _log(self, task: Task) -> Path:
        if task.job.stage:
            return self.logs / "stages" / f"{task.job.stage}.log"
        fitted = fitted_as(task.job.trials[0])
        if registry.get(fitted.method).tags.uses_labels:
            return log_path(self.logs, fitted)
        return shared_log_path(self.logs, fitted)

    def _event(self, number: int, task: Task, event: dict[str, Any]) -> None:
        """An event of a worker; called from the thread that watches it."""
        if event["event"] == "worked":
            with self._lock:
                self.summary.work_seconds += event["seconds"]
                self._pace.learn(task.seconds, event["seconds"])
        elif event["event"] != "record":
            self.display.event(number, task.title, event)

    def _finish(self, task: Task, outcome: Outcome, earlier: Mapping[Path, bytes | None]) -> None:
        """Note what a job left behind, or stop as Ctrl-C does, where a full disk takes no more."""
        try:
            self._note(task, outcome, earlier)
        except BenchError as error:  # no room, say, or a link instead of a folder
            self.summary.unwritten = str(error)
            self._stop.set()

    def _note(self, task: Task, outcome: Outcome, earlier: Mapping[Path, bytes | None]) -> None:
        """Count and show what a job left behind, and write the records that it could not write.

        A job may be killed after it has written a record and before it could say so; then the
        record differs from the `earlier` one.
        """
        self._seconds_left -= task.seconds or 0.0
        if task.job.stage:
            self._finish_stage(task, outcome)
            return
        for trial in task.job.trials:
            path = self.store.path(trial)
            found = str(path) in outcome.written or _content(path) != earlier[path]
            written, unreadable = self._read(trial) if found else (None, "")
            if written is None:
                written = self._write_failure(task, trial, outcome, unreadable)
            status = written["status"]
            message = scoring.error_message(written)
            if said := scoring.misnamed_trial(written):
                self.summary.misnamed.append((trial, said))
            self.summary.counts[status] = self.summary.counts.get(status, 0) + 1
            self.summary.new.append(trial)
            self.display.line(result_line(trial.title, status, written.get("headline"), message))
        over = sum(self.summary.counts.values())
        left = None if self.plan.unknown else self._pace(self._seconds_left) / self.limits.jobs
        self.display.whole(over, left)
        if (began := time.monotonic()) > self._refresh_at:
            self.refresh()
            ended = time.monotonic()
            self._refresh_at = ended + max(REFRESH_SECONDS, (ended - began) / REFRESH_SHARE)

    def _read(self, trial: Trial) -> tuple[Record | None, str]:
        """The record that a worker has written; None, and why, where it cannot be read."""
        try:
            return self.store.read(trial), ""
        except BenchError as error:
            why = error.__cause__ or error
            return None, f"the process wrote a record that cannot be read: {why}"

    def _finish_stage(self, task: Task, outcome: Outcome) -> None:
        """Note how a stage ended: well if it is in the store, whole, whatever happened after."""
        name = task.job.stage.partition("/")[0]
        stored = StageStore(Path(task.job.cache) / "stages").store.has(task.job.stage)
        if stored or task.job.stage in outcome.written:
            outcome = Outcome("ok")
        elif outcome.status == "ok":
            outcome = Outcome("crashed", self._said_of_no("result", task))
        if outcome.status != "ok" and not outcome.message.startswith(f"stage {name} "):
            message = f"stage {name} failed: {outcome.message}"
            outcome = replace(outcome, message=message)
        self._outcomes[task.job.stage] = outcome
        self.display.line(result_line(f"stage {name}", outcome.status, None, outcome.message))

    def _write_failure(
        self, task: Task, trial: Trial, outcome: Outcome, unreadable: str = ""
    ) -> Record:
        """The record of a trial whose process wrote none, or one that cannot be read."""
        job = task.job
        environment: dict[str, Any] = {
            "device": job.device,
            "threads": job.threads,
            "concurrency": job.concurrency,
        }
        if self._cluster is None:  # else it ended on a machine that nobody here knows
            precision = machine.resolve_precision(trial.precision, job.device)
            environment = machine.describe(job.device, precision, job.threads, job.concurrency)
        status = "crashed" if outcome.status == "ok" or unreadable else outcome.status
        message = unreadable or outcome.message or self._said_of_no("record", task)
        failed = scoring.failure(
            trial,
            status,
            message,
            environment,
            traceback=outcome.traceback,
            **scoring.whose_fit(trial),
        )
        self.store.write(failed)
        return failed

    def _said_of_no(self, what: str, task: Task) -> str:
        return (
            f"the process ended with exit status 0 and without a {what}: the method, or what it "
            f"calls, may have called sys.exit or os._exit; its output: {self._log(task)}"
        )


def _outcome(future: Future[Outcome]) -> Outcome:
    """How a job ended; what broke outside it (a lost worker of a cluster) is a crash of the job."""
    try:
        return future.result()
    except Exception as error:
        return Outcome("crashed", f"{type(error).__name__}: {error}", traceback.format_exc())


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@contextlib.contextmanager
def _interrupts_set(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and a termination signal set `stop`; only the main thread may ask Python for that.

    A KeyboardInterrupt could land between starting a job and recording it, orphaning the process;
    so the handler only sets a flag. Ctrl-C that was ignored from the start (``nohup``, a job in the
    background) still is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(signum: int, frame: object) -> None:
        stop.set()

    heeded = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    previous = {number: signal.signal(number, note) for number in heeded}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
