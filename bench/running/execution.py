"""One job in a process of its own, with hard limits of time and memory, its output kept in a log.

This is what a backend calls, on this machine or on another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.running.forkserver import Forked, ForkServer
from bench.running.job import Job
from bench.running.memory import Watcher

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OnEvent = Callable[[dict[str, Any]], None]
# glibc gives large blocks back to the system when they are freed, and pays page faults for them
# when the next training step asks for them again: 5 to 10 % of a step of SimCLR. Other C libraries
# ignore it.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
Process = subprocess.Popen[str] | Forked
STARTING_S = 600.0  # longest wait for a server's imports: a cold disk, a network's
_running: dict[Process, Job] = {}


@dataclass(frozen=True)
class Outcome:
    """How a job's process ended: a status of `bench.records.scoring` and, unless ``ok``, a message.

    `written` are the paths of the records that it wrote before, or the stage that it stored.
    """

    status: str
    message: str = ""
    traceback: str | None = None
    written: tuple[str, ...] = ()


def execute(
    job: Job,
    log: str,
    timeout_s: float | None,
    on_event: OnEvent | None = None,
    server: ForkServer | None = None,
    memory: int | None = None,
) -> Outcome:
    """Run `job` to its end, or kill it after `timeout_s` seconds or at more than `memory` bytes.

    Its process is a fork of `server`; without one it is a new process. What a server takes to
    import libraries before it forks is no part of that time; after `STARTING_S` it is given up.
    """
    kills = _oom_kills()
    with _log_file(Path(log)) as log_file:
        try:
            process = _spawn(job, log_file, server)
        except TimeoutError:
            return Outcome("crashed", f"no process of it had begun after {STARTING_S:g} s")
    events, expired, breach = _watch(job, process, timeout_s, memory, on_event)
    code = process.wait()
    written = tuple(event["path"] for event in events if event["event"] == "record")
    errors = [event for event in events if event["event"] == "error"]
    if expired:
        return _expired(timeout_s, written)
    if breach:
        return Outcome("out-of-memory", breach, None, written)
    if errors:
        error = errors[0]
        return Outcome(error["status"], error["message"], error["traceback"], written)
    if isinstance(process, Forked) and process.abandoned:
        message = "it was killed because the process that forks workers had ended"
        return Outcome("crashed", message, None, written)
    return Outcome("ok", written=written) if code == 0 else _death(code, kills, written, log)


@contextlib.contextmanager
def fork_server(threads: int, log: str) -> Iterator[ForkServer]:
    """A server of workers with so many threads each, which has begun to import their libraries."""
    with contextlib.closing(ForkServer(_environment(threads), Path(log))) as server:
        server.start()
        yield server


def _watch(
    job: Job,
    process: Process,
    limit_s: float | None,
    memory: int | None,
    on_event: OnEvent | None,
) -> tuple[list[dict[str, Any]], bool, str]:
    """Read events until the worker exits or a limit kills it.

    Returns its error and record events, whether its time was over, and what is said of its memory.
    """
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        kill(process)

    timer = threading.Timer(limit_s or 0, expire)
    if limit_s is not None:
        timer.start()
    _running[process] = job
    threading.Thread(target=_end_what_it_started, args=(process,), daemon=True).start()
    watcher = Watcher(process.pid, memory, partial(kill, process))
    try:
        with watcher:
            events = list(_events(process, on_event))
            process.wait()
    finally:
        timer.cancel()
        kill(process)
        _running.pop(process, None)
        for pipe in filter(None, (process.stdin, process.stdout)):
            with contextlib.suppress(BrokenPipeError):  # what it did not read is lost with it
                pipe.close()
    return events, expired.is_set(), watcher.message


def _events(process: Process, on_event: OnEvent | None) -> Iterator[dict[str, Any]]:
    """The error and record events of a worker, as they come; the others go to `on_event`."""
    assert process.stdout is not None
    for line in process.stdout:
        if not line.endswith("\n"):  # it was killed in the middle of the line
            return
        event = json.loads(line)
        if event["event"] in ("error", "record"):
            yield event
        elif on_event is not None:
            on_event(event)


def kill(process: Process) -> None:
    """Kill a worker and whatever it has started; nothing happens if it has ended."""
    if process.poll() is None:
        end_group(process)
        process.wait()


def _end_what_it_started(process: Process) -> None:
    """Wait for a worker's end, then kill what it left behind.

    A forked child holds the pipe of the events open: the runner would wait for it for ever.
    """
    process.wait()
    end_group(process)


def end_group(process: Process) -> None:
    """Kill a process that leads a group, and the group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left, or zombies
        os.killpg(process.pid, signal.SIGKILL)


def kill_workers_of(jobs: Sequence[Job]) -> None:
    """Kill the workers that carry out these very jobs: another run in this process has its own."""
    for process, carried_out in list(_running.items()):
        if any(carried_out is job for job in jobs):
            kill(process)


def _spawn(job: Job, log_file: Any, server: ForkServer | None) -> Process:
    """Start a worker and hand it the job; its standard input stays open as a sign of life."""
    process: Process
    if server is None:
        process = start("bench.running.worker", job.threads, log_file)
    else:
        process = server.fork(log_file, STARTING_S)
    assert process.stdin is not None
    try:
        process.stdin.write(job.dumps() + "\n")
        process.stdin.flush()
    except BrokenPipeError:  # it has died already; whoever waits for it learns how
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    return process


def _environment(threads: int) -> dict[str, str]:
    """The environment variables of a worker with so many threads."""
    code = str(Path(__file__).parents[2])
    path = os.pathsep.join(x for x in (code, os.environ.get("PYTHONPATH")) if x)
    numbers = {name: str(threads) for name in THREAD_VARIABLES}
    return KEEP_MEMORY | os.environ | numbers | {"PYTHONPATH": path}


def start(module: str, threads: int, log_file: Any = None) -> subprocess.Popen[str]:
    """A module as a new process that heeds `bench.running.child`, in a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-u", "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log_file,
        text=True,
        env=_environment(threads),
        start_new_session=True,
    )


def _log_file(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def _expired(timeout_s: float | None, written: tuple[str, ...] = ()) -> Outcome:
    return Outcome("timeout", f"stopped after the limit of {timeout_s:g} s", None, written)


def _death(code: int, kills_before: int, written: tuple[str, ...], log: str) -> Outcome:
    """What an exit status other than 0 means."""
    if -code == signal.SIGKILL and _oom_kills() > kills_before:
        return Outcome("out-of-memory", "the system killed it: memory ran out", None, written)
    left = ": the method, or what it calls, may have called sys.exit or os._exit"
    why = left if code > 0 else ""
    return Outcome("crashed", f"the process {ending(code)}{why}; its output: {log}", None, written)


def ending(code: int) -> str:
    """What an exit status says of its process."""
    if code >= 0:
        return f"ended with exit status {code}"
    return f"was ended by {signal.Signals(-code).name}"


def _oom_kills() -> int:
    """How many processes this system has killed for want of memory (Linux; else 0)."""
    counters = Path("/proc/vmstat")
    if counters.exists():
        for line in counters.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
