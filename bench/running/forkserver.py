"""A process that has imported the libraries once, and forks itself for every job.

To import torch and scikit-learn takes a new process some three seconds, and many times as long
where several do so at once; a fork has them at once, for the processor and for CUDA alike.
``python -m bench.running.forkserver`` reads requests from the socket that is its standard input and
ends when the other end of it is closed and its forks are over; ``ps`` shows the forks by its name.
It has the suite and the toolkit too; a fork that finds their files changed since imports them anew,
so that each job is of one state of the code, which its record names. What may be a user's is
imported by each fork for itself: a method's file may start threads or CUDA, or fail.

Why not the server of `multiprocessing`: it ends, and with it every exit status that it owes, when
the system has no room for one more fork; whoever asks it for a process waits without a limit while
it imports; and its output goes to the terminal of the runner.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

import psutil

from bench.running.libraries import import_libraries

WORKER = ("bench.running.child", "bench.running.worker")  # above this module
REQUEST = b"f"
N_DESCRIPTORS = 4  # a worker's standard input, output and error; where its life is told
PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl


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
    life : tells its process id when it begins, and its exit status when it has ended.
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
        self, stdin: TextIO, stdout: TextIO, life: Connection, limit_s: float | None = None
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self.abandoned = False
        self._life = life
        self._lock = threading.Lock()
        if not life.poll(limit_s):
            raise TimeoutError
        self.pid = int(life.recv_bytes())

    def wait(self) -> int:
        """Its exit status, once it has ended; the negative number of the signal that ended it."""
        with self._lock:
            if self.returncode is None:
                try:
                    self.returncode = int(self._life.recv_bytes())
                except EOFError:  # the server is gone, and nobody will tell how the worker ends
                    self.returncode = self._abandon()
                self._life.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit status as soon as somebody has waited for it; None before."""
        return self.returncode

    def _abandon(self) -> int:
        """End a worker whose end nobody could tell."""
        self.abandoned = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return -signal.SIGKILL


class ForkServer:
    """The server's other end. It starts when it is first asked, and again should it have ended.

    `start` asks for nothing but lets it import while its owner does something else.

    Parameters
    ----------
    environment : the environment variables of the server and of its workers.
    log : file to which the server's own output is appended.
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id; None when there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it without waiting for it."""
        with self._lock:
            self._ensure_started()

    def fork(self, log: Any, limit_s: float | None = None) -> Forked:
        """A new worker, as soon as all that it needs is imported.

        Parameters
        ----------
        log : an open file for what the worker prints.
        limit_s : how many seconds to wait; None waits for ever.

        Raises
        ------
        OSError : the server has ended, or could not fork.
        TimeoutError : nothing has begun within the limit.
        """
        (stdin, our_stdin), (our_stdout, stdout) = _pipe(), _pipe()
        our_life, life = Pipe(duplex=False)
        with stdin, stdout, life, self._lock:
            requests = self._ensure_started()
            given = [file.fileno() for file in (stdin, stdout, log, life)]
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

    def _ensure_started(self) -> socket.socket:
        """The socket that a running server listens to."""
        if self._requests is not None and self._process is not None:
            if self._process.poll() is None:
                return self._requests
            self._end()
        self._requests, theirs = socket.socketpair()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with theirs, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-P", "-m", "bench.running.forkserver"],
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                env=dict(self._environment),
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


def main() -> None:
    """Fork until the other end is closed; in a fork, be a worker to its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if ignored, nobody could wait for a fork
    import_libraries()
    imported = import_ours()
    gc.freeze()  # a collection in a fork would copy all these pages
    _adopt()
    if _serve(socket.socket(fileno=os.dup(0))):
        _reseed()
        if imported != _files_of_ours():
            _forget_ours()
        from bench.running import child, worker

        child.leave(worker.main())


def import_ours() -> dict[str, int]:
    """Import what each worker needs of this project, which takes it longer than a small fit.

    What cannot be imported is left to those who need it, and say so. Returns `_files_of_ours`.
    """
    from methods import toolkit

    modules = pkgutil.walk_packages(toolkit.__path__, f"{toolkit.__name__}.", onerror=_say_why)
    for name in (*WORKER, *(module.name for module in modules)):
        try:
            importlib.import_module(name)
        except Exception:
            _say_why(name)
    return _files_of_ours()


def _say_why(name: str) -> None:
    print(f"{name} cannot be imported:")
    traceback.print_exc()


def _files_of_ours() -> dict[str, int]:
    """When the files of this project's imported modules were changed, in nanoseconds; 0: gone."""
    changed = {}
    for _, module in _modules_of_ours():
        if file := getattr(module, "__file__", None):
            changed[file] = 0
            with contextlib.suppress(FileNotFoundError):  # an editor is writing it, say
                changed[file] = os.stat(file).st_mtime_ns
    return changed


def _forget_ours() -> None:
    for name, _ in _modules_of_ours():
        del sys.modules[name]


def _modules_of_ours() -> list[tuple[str, ModuleType]]:
    return [x for x in sys.modules.items() if x[0].partition(".")[0] in ("bench", "methods")]


def _serve(requests: socket.socket) -> bool:
    """Fork for every request and tell how each fork ends; True in a fork, False at the end."""
    running: dict[int, tuple[int, int]] = {}  # descriptor of the process: its id, where to tell
    asked = [requests.fileno()]
    own = _children()  # what the libraries have started
    while asked or running:
        for ready in wait([*asked, *running]):
            if ready in running:
                ended = running.pop(ready)
                _tell_end(ready, *ended, own | {other for other, _ in running.values()})
                continue
            request, given, _, _ = socket.recv_fds(requests, len(REQUEST), N_DESCRIPTORS)
            if not request:  # the other end is closed
                asked.clear()
                continue
            pid = _fork(given)
            if pid == 0:
                lives = [life for _, life in running.values()]
                requests.close()
                _become_worker(given, [*running, *lives])
                return True
            if pid is not None:
                running[os.pidfd_open(pid)] = pid, given.pop()
            _close(given)
    return False


def _fork(given: list[int]) -> int | None:
    """What `os.fork` returns; None, with the reason in the log, where the system has no room."""
    try:
        os.close(os.dup(given[N_DESCRIPTORS - 1]))  # room for the descriptor of the process
        return os.fork()
    except (OSError, IndexError):  # descriptors that did not fit did not come
        traceback.print_exc()
        return None


def _become_worker(given: list[int], others: list[int]) -> None:
    """In a fork: take what was `given`, close what is the server's, and say that it has begun."""
    os.setsid()  # whatever it starts ends with it
    _adopt()  # what it leaves behind is then the server's, and known not to be of another worker
    *standard, life = given
    for target, descriptor in enumerate(standard):
        os.dup2(descriptor, target)
    _close([*standard, *others])
    _tell(life, os.getpid())


def _tell_end(process: int, pid: int, life: int, others: set[int]) -> None:
    """A fork has ended: end what it left behind, tell its exit status, close its descriptors here.

    The runner ends its group too, unless it was killed just now. Until `waitpid` nobody else has
    the number of the group. `others` are the children of this process that are to stay.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left, or zombies
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    try:
        _end_orphans(others)
    except (OSError, psutil.Error):  # no room for a descriptor, say: the next end finds them
        traceback.print_exc()
    _tell(life, os.waitstatus_to_exitcode(status))
    os.close(process)


def _adopt() -> None:
    """Make what any descendant leaves behind a child of this process, instead of process 1's."""
    words = [ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, *words) != 0:
        why = os.strerror(ctypes.get_errno())
        print(f"what a method starts in a session of its own may outlive it: prctl: {why}")


def _end_orphans(others: set[int]) -> None:
    """Kill all children but `others`: what ended workers have left in sessions of their own.

    What one of these has started becomes a child in turn.
    """
    others = set(others)
    while orphans := _children() - others:
        for pid in orphans:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except PermissionError as error:  # it runs as another user
                print(f"process {pid}, which a method has started, cannot be ended: {error}")
                others.add(pid)


def _children() -> set[int]:
    """The processes whose parent this one is, those that have ended included.

    psutil reads the status of every process there is: milliseconds, for each fork that ends.
    """
    try:
        files = [task / "children" for task in Path("/proc/self/task").iterdir()]
        return {int(pid) for file in files for pid in file.read_text().split()}
    except (FileNotFoundError, ProcessLookupError):  # not of this kernel, or a thread has ended
        return {child.pid for child in psutil.Process().children()}


def _tell(life: int, number: int) -> None:
    """Tell the runner a number about a worker, and close `life`."""
    with Connection(life, readable=False) as runner, contextlib.suppress(BrokenPipeError):
        runner.send_bytes(str(number).encode())  # unless it was killed; the fork will notice


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _reseed() -> None:
    """Give this fork global random numbers of its own, as a new process has them.

    Python's own are reseeded at every fork.
    """
    import numpy as np
    import torch

    np.random.seed()
    torch.seed()


if __name__ == "__main__":
    main()
