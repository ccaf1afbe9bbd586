"""A process that has imported the libraries once, and forks itself for every job.

To import torch and scikit-learn takes a new process some three seconds; a fork has them at once.
``python -m bench.forkserver`` reads requests from the socket that is its standard input and ends
when the other end of it is closed and its forks are over. What belongs to this project or to a
plugin is imported by each fork for itself, so it is as it stands in the files when the job starts.

Linux only: elsewhere a process that has loaded the system's libraries is not safely forked.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any


def _is_available() -> bool:
    """Whether this is Linux, new enough (5.3) to let a process wait for others by descriptors."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


AVAILABLE = _is_available()
LIBRARIES = (
    "torch",
    "scipy.optimize",
    "scipy.sparse",
    "scipy.stats",
    "sklearn.cluster",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.neighbors",
    "sklearn.semi_supervised",
)
REQUEST = b"f"
N_DESCRIPTORS = 4  # a worker's standard input, output and error; where its end is told


class Forked:
    """A worker that a `ForkServer` has started; it looks like `subprocess.Popen`.

    Parameters
    ----------
    stdin, stdout, ends : descriptors of our ends of its pipes; `ends` tells its number, then its
        exit status.
    """

    def __init__(self, stdin: int, stdout: int, ends: int) -> None:
        self._ends = os.fdopen(ends, "r")
        self._lock = threading.Lock()
        self.stdin = os.fdopen(stdin, "w")
        self.stdout = os.fdopen(stdout, "r")
        self.returncode: int | None = None
        number = self._ends.readline()
        if not number:
            raise EOFError
        self.pid = int(number)

    def wait(self) -> int:
        """Its exit status, once it has ended; the negative number of the signal that ended it."""
        with self._lock:
            if self.returncode is None:
                self.returncode = int(self._ends.readline() or self._abandoned())
                self._ends.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit status, or None while it runs (or while another thread waits for its end)."""
        if self._lock.acquire(blocking=False):
            try:
                told = self.returncode is not None or select.select([self._ends], [], [], 0)[0]
            finally:
                self._lock.release()
            return self.wait() if told else None
        return self.returncode

    def _abandoned(self) -> int:
        """The server is gone and nobody will tell how the worker ends: end it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return -signal.SIGKILL


class ForkServer:
    """The server's other end.

    Parameters
    ----------
    environment : the environment variables of the server and of all workers.
    log : an open file for what the server itself writes.
    """

    def __init__(self, environment: Mapping[str, str], log: Any) -> None:
        self._log = log.name
        self._requests, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-P", "-m", "bench.forkserver"],
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                env=dict(environment),
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it can still be asked for workers."""
        return self._process.poll() is None

    def fork(self, log: Any) -> Forked:
        """A new worker, whose standard error goes to the open file `log`.

        Raises
        ------
        OSError : the server has ended.
        """
        stdin, to_stdin = os.pipe()
        from_stdout, stdout = os.pipe()
        ends, tell_end = os.pipe()
        given = [stdin, stdout, log.fileno(), tell_end]
        try:
            with contextlib.suppress(BrokenPipeError):  # then nobody tells a number either
                socket.send_fds(self._requests, [REQUEST], given)
        finally:
            for descriptor in (stdin, stdout, tell_end):
                os.close(descriptor)
        try:
            return Forked(to_stdin, from_stdout, ends)
        except EOFError as error:
            message = f"the process that forks workers has ended; its output: {self._log}"
            raise OSError(message) from error

    def close(self) -> None:
        """End the server, once the workers that it has started have ended."""
        self._requests.close()
        self._process.wait()


def main() -> int:
    """Fork until the other end is closed; in a fork, be a worker and return its exit status."""
    import_libraries()
    if not _serve(socket.socket(fileno=os.dup(0))):
        return 0
    _reseed()
    from bench import worker

    return worker.main()


def import_libraries() -> None:
    """Import what workers are going to need, and nothing that starts a thread of its own.

    The first optimiser imports torch's compiler, which takes as long as torch itself.
    """
    for name in LIBRARIES:
        importlib.import_module(name)
    import torch

    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    gc.freeze()  # a collection in a fork would copy all these pages


def _serve(requests: socket.socket) -> bool:
    """Fork for every request and tell how each fork ends; True in a fork, False at the end."""
    running: dict[int, tuple[int, int]] = {}  # descriptor of the process: its number, who is told
    asked = [requests.fileno()]
    while asked or running:
        for ready in select.select([*asked, *running], [], [])[0]:
            if ready in running:
                _tell_end(ready, *running.pop(ready))
                continue
            _, given, _, _ = socket.recv_fds(requests, len(REQUEST), N_DESCRIPTORS)
            if not given:  # the other end is closed
                asked.clear()
                continue
            number = os.fork()
            if number == 0:
                others = [d for process, (_, told) in running.items() for d in (process, told)]
                _become_worker(requests, given, others)
                return True
            running[os.pidfd_open(number)] = number, given.pop()
            for descriptor in given:
                os.close(descriptor)
    return False


def _become_worker(requests: socket.socket, given: list[int], others: list[int]) -> None:
    """Take what was `given`, let go of all that is the server's, and say that it has begun."""
    os.setsid()  # whatever it starts ends with it
    *standard, tell_end = given
    for target, descriptor in enumerate(standard):
        os.dup2(descriptor, target)
    requests.close()
    _tell(tell_end, os.getpid())
    for descriptor in (*given, *others):
        os.close(descriptor)


def _tell_end(process: int, number: int, told: int) -> None:
    """A fork has ended: tell its exit status, and let go of the descriptors that it had here."""
    _, status = os.waitpid(number, 0)
    _tell(told, os.waitstatus_to_exitcode(status))
    for descriptor in (process, told):
        os.close(descriptor)


def _tell(descriptor: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the runner was killed; the fork will notice
        os.write(descriptor, f"{number}\n".encode())


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
