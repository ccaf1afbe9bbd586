"""``bench check``: the checks in a process of their own, which is killed when one does not end.

The process (``python -m bench.checking``) is told what to check in one line of JSON and answers
with events (`bench.running.child`). Where a check does not end, or takes its process with it,
another process goes on with the next method.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError
from bench.running import child, execution
from methods import registry
from methods.registry import Entry, Problem, RegistryError
from methods.testing import NAMES, Outcome, run_checks, traceback_of

LOADING = "import"  # what the process does before its first check
LAST_SECONDS = 5.0  # for a process that tells nothing more to come to its end
Told = tuple[str, Outcome]


def check(wanted: str, timeout_s: float | None) -> Iterator[Told]:
    """The checks of a method, or of every method of a file, each with its method's name.

    The name is empty, and the outcome's ``import``, for a file that cannot be used.

    Parameters
    ----------
    wanted : a method's name, or the path of a file that ends in ``.py``.
    timeout_s : seconds for each check; None sets no limit.

    Raises
    ------
    BenchError : there is no such method, or no method in the file.
    """
    done: list[str] | None = []
    while done is not None:
        done = yield from _go_on(wanted, done, timeout_s)


def _go_on(
    wanted: str, done: list[str], timeout_s: float | None
) -> Generator[Told, None, list[str] | None]:
    """The checks of all methods but those `done`, in one process.

    Returns the methods that are done where the process was lost before the last of them.
    """
    methods, method, at = [""], "", LOADING
    for event in _events({"wanted": wanted, "done": done}, timeout_s):
        match event["event"]:
            case "error":
                yield "", Outcome(LOADING, traceback=event["traceback"])
                raise BenchError(event["message"])
            case "methods":
                methods = event["methods"]
            case "begin":
                method, at = event["method"], event["check"]
            case "outcome":
                yield event["method"], Outcome(**event["outcome"])
            case "lost" if at == LOADING:
                raise BenchError(f"{wanted} cannot be used: on import, {event['message']}")
            case "lost":
                yield method, Outcome(at, event["message"])
                for name in NAMES[NAMES.index(at) + 1 :]:
                    yield method, Outcome(name, skipped=f"see {at}")
                return None if method == methods[-1] else methods[: methods.index(method) + 1]
    return None


def _events(request: dict[str, Any], timeout_s: float | None) -> Iterator[dict[str, Any]]:
    """What a new process tells; at last ``lost``, and how, unless it came to its end."""
    process = execution.start("bench.checking", threads=1)
    assert process.stdin is not None
    assert process.stdout is not None
    expired, done, timer = threading.Event(), False, threading.Timer(0, lambda: None)

    def expire() -> None:
        expired.set()
        execution.end_group(process)  # what it has started may hold its output open

    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            timer.cancel()
            if not line.endswith("\n"):  # it was killed in the middle of the line
                break
            event = json.loads(line)
            done = event["event"] == "done"
            if event["event"] == "begin" and timeout_s is not None:
                timer = threading.Timer(timeout_s, expire)
                timer.start()
            yield event
            if done:
                break
        if not done and not expired.is_set():
            _let_end(process)
    finally:
        timer.cancel()
        execution.end_group(process)
        code = process.wait()
    if expired.is_set():
        yield {"event": "lost", "message": f"it did not come to an end within {timeout_s:g} s"}
    elif not done:
        yield {"event": "lost", "message": f"its process {execution.ending(code)}"}


def _let_end(process: subprocess.Popen[str]) -> None:
    """Wait a little for a process that has said its last: how it ends says why."""
    with contextlib.suppress(subprocess.TimeoutExpired):  # it said so, or closed its output
        process.wait(LAST_SECONDS)


def main() -> int:
    """Check what standard input names, and tell how each check ended."""
    emit, line = child.begin()
    request = json.loads(line)
    wanted = request["wanted"]
    problems = registry.discover()
    emit({"event": "begin", "method": "", "check": LOADING})
    if wanted.endswith(".py"):
        known = {problem.message for problem in problems}
        problems += [p for p in registry.discover([wanted]) if p.message not in known]
    try:
        entries = _entries(wanted, problems)
    except RegistryError as error:
        whole = traceback_of(error.__cause__)
        emit({"event": "error", "message": str(error), "traceback": whole})
        return 0
    for problem in () if request["done"] else problems:
        if problem.entry is None or problem.entry not in entries.values():
            told = Outcome(LOADING, problem.message, traceback=traceback_of(problem.error))
            emit({"event": "outcome", "method": "", "outcome": asdict(told)})
    emit({"event": "methods", "methods": list(entries)})
    for name in (name for name in entries if name not in request["done"]):

        def begin(check: str, method: str = name) -> None:
            emit({"event": "begin", "method": method, "check": check})

        for outcome in run_checks(entries[name], begin):
            emit({"event": "outcome", "method": name, "outcome": asdict(outcome)})
    emit({"event": "done"})
    return 0


def _entries(wanted: str, problems: list[Problem]) -> dict[str, Entry]:
    """The methods to check, by name: also those that no run could plan with.

    Raises
    ------
    RegistryError : there are none.
    """
    unusable = {problem.entry.name: problem.entry for problem in problems if problem.entry}
    if not wanted.endswith(".py"):
        return {wanted: unusable[wanted] if wanted in unusable else registry.get(wanted)}
    origin = str(Path(wanted).resolve())
    found = {name: entry for name, entry in unusable.items() if entry.origin == origin}
    found |= {name: registry.get(name) for name in registry.names_from(wanted)}
    if not found:
        broken = [problem for problem in problems if problem.origin == str(Path(wanted))]
        none = f"{wanted} registers no method; decorate a class with @register('name')"
        raise RegistryError(broken[0].message if broken else none) from (
            broken[0].error if broken else None
        )
    return dict(sorted(found.items()))


if __name__ == "__main__":
    child.leave(main())
