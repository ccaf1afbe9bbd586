"""A process that has imported the libraries once, and forks itself for every job.

To import torch and scikit-learn takes a new process some three seconds; a fork has them at once.
``python -m bench.forkserver`` reads requests from the socket that is its standard input and ends
when the other end of it is closed and its forks are over; ``ps`` shows the forks by its name. What
belongs to this project or to a plugin is imported by each fork for itself, so it is as it stands in
the files when the job starts.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

from bench.libraries import import_libraries

REQUEST = b"f"
N_DESCRIPTORS = 4  # a worker's standard input, output and error; where its life is told
BEGAN, ENDED = "began", "ended"  # what is told: with the process id, with the exit status


def is_available() -> bool:
    """Whether this is Linux, new enough (5.3) to let a process wait for others by descriptors.

    Elsewhere a process that has loaded the system's libraries is not safely forked.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


class Forked:
    """A worker that a `ForkServer` has started; it looks like `subprocess.Popen`.

    Parameters
    ----------
    stdin, stdout : our ends of its pipes.
    life : tells that it began, with its process id, then that it ended, with its exit status.
    limit_s : how long to wait for the beginning; None waits for ever.

    Attributes
    ----------
    pid : its process id, also that of its process group.
    returncode : as of `subprocess.Popen`; None while it runs.
    abandoned : the server ended before the worker did, which then was killed.

    Raises
    ------
    EOFError : it never began.
    TimeoutError : it has not begun within the limit; should it begin later, it will end at once.
    """

    def __init__(
        self, stdin: TextIO, stdout: TextIO, life: TextIO, limit_s: float | None = None
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self.abandoned = False
        self._life = life
        self._lock = threading.Lock()
        begun = select.poll()
        begun.register(life, select.POLLIN)
        if not begun.poll(None if limit_s is None else 1000 * limit_s):
            raise TimeoutError
        word, _, number = life.readline().partition(" ")
        if word != BEGAN:
            raise EOFError
        self.pid = int(number)

    def wait(self) -> int:
        """Its exit status, once it has ended; the negative number of the signal that ended it."""
        with self._lock:
            if self.returncode is None:
                word, _, status = self._life.readline().partition(" ")
                self.returncode = int(status) if word == ENDED else self._abandon()
                self._life.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit status as soon as somebody has waited for it; None before."""
        return self.returncode

    def _abandon(self) -> int:
        """The server is gone and nobody will tell how the worker ends: end it."""
        self.abandoned = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return -signal.SIGKILL


class ForkServer:
    """The server's other end. It starts when it is first asked, and again should it have ended.

    `start` asks for nothing but lets it import while its owner does something else.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._log = ""

    @property
    def pid(self) -> int | None:
        """The server's process id; None when there is none."""
        return None if self._process is None else self._process.pid

    def start(self, environment: Mapping[str, str], log: Any) -> None:
        """Start it without waiting for it; the arguments are those of `fork`."""
        with self._lock:
            self._ensure_started(environment, log)

    def fork(
        self, environment: Mapping[str, str], log: Any, limit_s: float | None = None
    ) -> Forked:
        """A new worker, as soon as the libraries are imported.

        Parameters
        ----------
        environment : the environment variables of the server, if it has to start.
        log : an open file for what the worker prints; the server prints into its first one.
        limit_s : how many seconds to wait; None waits for ever.

        Raises
        ------
        OSError : the server has ended, or could not fork.
        TimeoutError : nothing has begun within the limit.
        """
        (stdin, our_stdin), (our_stdout, stdout), (our_life, life) = _pipe(), _pipe(), _pipe()
        with stdin, stdout, life, self._lock:
            requests = self._ensure_started(environment, log)
            given = [stdin.fileno(), stdout.fileno(), log.fileno(), life.fileno()]
            with contextlib.suppress(OSError):  # it has just ended: then nobody tells of a life
                socket.send_fds(requests, [REQUEST], given)
        try:
            return Forked(our_stdin, our_stdout, our_life, limit_s)
        except EOFError as error:
            message = f"the process that forks workers failed; its output: {self._log}"
            raise OSError(message) from error

    def close(self) -> None:
        """End the server; whoever waits for a worker of it will kill that worker."""
        with self._lock:
            self._end()

    def _ensure_started(self, environment: Mapping[str, str], log: Any) -> socket.socket:
        """The socket that a running server listens to."""
        if self._requests is not None and self._process is not None:
            if self._process.poll() is None:
                return self._requests
            self._end()
        self._requests, theirs = socket.socketpair()
        self._log = log.name
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-P", "-m", "bench.forkserver"],
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                env=dict(environment),
                start_new_session=True,
            )
        return self._requests

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._requests is not None:
            self._requests.close()
        self._process = self._requests = None


def _pipe() -> tuple[TextIO, TextIO]:
    """The end to read from and the end to write to."""
    read, write = os.pipe()
    return os.fdopen(read), os.fdopen(write, "w")


def main() -> int:
    """Fork until the other end is closed; in a fork, be a worker and return its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if ignored, nobody could wait for a fork
    import_libraries()
    gc.freeze()  # a collection in a fork would copy all these pages
    if not _serve(socket.socket(fileno=os.dup(0))):
        return 0
    _reseed()
    from bench import worker

    return worker.main()


def _serve(requests: socket.socket) -> bool:
    """Fork for every request and tell how each fork ends; True in a fork, False at the end."""
    running: dict[int, tuple[int, int]] = {}  # descriptor of the process: process id, who is told
    asked = [requests.fileno()]
    while asked or running:
        for ready in _readable([*asked, *running]):
            if ready in running:
                _tell_end(ready, *running.pop(ready))
                continue
            request, given, _, _ = socket.recv_fds(requests, len(REQUEST), N_DESCRIPTORS)
            if not request:  # the other end is closed
                asked.clear()
                continue
            pid = _fork(given)
            if pid == 0:
                others = [d for process, (_, life) in running.items() for d in (process, life)]
                _become_worker(requests, given, others)
                return True
            if pid is not None:
                running[os.pidfd_open(pid)] = pid, given.pop()
            for descriptor in given:
                os.close(descriptor)
    return False


def _readable(descriptors: list[int]) -> list[int]:
    """Wait until some of the descriptors have something to tell."""
    waiting = select.poll()
    for descriptor in descriptors:
        waiting.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in waiting.poll()]


def _fork(given: list[int]) -> int | None:
    """What `os.fork` returns; None, with the reason in the log, where the system has no room."""
    try:
        os.close(os.dup(given[N_DESCRIPTORS - 1]))  # room for the descriptor of the process
        return os.fork()
    except (OSError, IndexError):  # descriptors that did not fit did not come
        traceback.print_exc()
        return None


def _become_worker(requests: socket.socket, given: list[int], others: list[int]) -> None:
    """Take what was `given`, let go of all that is the server's, and say that it has begun."""
    os.setsid()  # whatever it starts ends with it
    *standard, life = given
    for target, descriptor in enumerate(standard):
        os.dup2(descriptor, target)
    requests.close()
    _tell(life, BEGAN, os.getpid())
    for descriptor in (*given, *others):
        os.close(descriptor)


def _tell_end(process: int, pid: int, life: int) -> None:
    """A fork has ended: tell its exit status, and let go of the descriptors that it had here."""
    _, status = os.waitpid(pid, 0)
    _tell(life, ENDED, os.waitstatus_to_exitcode(status))
    for descriptor in (process, life):
        os.close(descriptor)


def _tell(life: int, word: str, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the runner was killed; the fork will notice
        os.write(life, f"{word} {number}\n".encode())


def _reseed() -> None:
    """Give this fork global random numbers of its own, as a new process has them.

    Python's own are reseeded at every fork.
    """
    import numpy as np
    import torch

    np.random.seed()
    torch.seed()


if __name__ == "__main__":
    sys.exit(main())
