"""What a process that runs methods does with its input, its output and its end.

Whoever started it (the runner, ``bench check``) writes one line of JSON to its standard input and
keeps that open as a sign of life; what comes back on its standard output are events, lines of JSON.
"""

from __future__ import annotations

import atexit
import errno
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn, cast


def begin() -> tuple[Callable[[dict[str, Any]], None], str]:
    """What takes events for whoever started this process, and the line that it was given."""
    emit, runner = _redirect_output(), _redirect_input()
    with open(runner, closefd=False) as request:
        line = request.readline()
    threading.Thread(target=_end_with_the_runner, args=(runner,), daemon=True).start()
    return emit, line


def _end_with_the_runner(runner: int) -> None:
    """Leave at once when `runner` closes: the runner was killed or wants no more of the worker."""
    os.read(runner, 1)  # the bare descriptor: a thread in a file's lock breaks Python's exit
    if os.getpgrp() == os.getpid():  # as the runner starts it: whatever the method started ends too
        os.killpg(0, signal.SIGKILL)
    os._exit(3)


def _redirect_input() -> int:
    """Give methods an empty standard input; the descriptor returned is for what the runner says.

    A method that asks for input would otherwise wait for the runner for ever.
    """
    runner = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    return runner


class Log(io.FileIO):
    """Where methods print: what a full disk has no room for is lost, which must end no trial."""

    def write(self, data: Any) -> int:
        """How much was written, or would have been."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return len(data)


def _redirect_output() -> Callable[[dict[str, Any]], None]:
    """Send what is printed to the log (standard error); the real standard output is for events."""
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    log = Log(2, "w", closefd=False)
    sys.stdout = sys.stderr = io.TextIOWrapper(
        cast(Any, log), errors="backslashreplace", write_through=True
    )

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    return emit


def leave(status: int) -> NoReturn:
    """End this process as `multiprocessing` ends its forks, without taking all modules apart.

    A fork would copy the pages of every object that it lets go of: two thirds of what a short trial
    costs. Nothing waits in standard output and error, which are unbuffered (``python -u``).

    Processes that the method has left are ended first: the exit functions would wait for joblib's,
    which stay for five minutes in case there is more to do.
    """
    for process in multiprocessing.active_children():
        process.kill()
    atexit._run_exitfuncs()  # what libraries want to be done, such as removing temporary files
    os._exit(status)
