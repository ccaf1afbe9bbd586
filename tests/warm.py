"""Python processes that have the libraries already: forks of one process that imported them once.

To import torch and scikit-learn costs a new process some six seconds of a processor. The tests
start the command some hundred times, and each run starts a server of workers. `Popen` is
`subprocess.Popen` for command lines that begin with this interpreter; what it starts has its own
environment, folder, input and output. It has this project's modules too, unless its path leads to
others of these names or its environment has `ANEW`; none of them reads the environment when it is
imported. What a process is started with (the flags of Python, its hash seed, what the C library
reads from the environment) is not as the command line says, output is not buffered, and what Python
does at its very end is left out: tests of that start a process of their own, with `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import importlib.machinery
import io
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LONGEST = 2**18  # bytes of a request
OURS = ("bench", "methods")
ANEW = "WARM_ANEW"  # in the environment of a process that is to import our modules itself
COMMAND = ("jinja2", "joblib", "pandas", "psutil", "rich.live", "rich.markup", "typer", "typing")


# --- Where tests start processes -----------------------------------------------------------------


@functools.cache
def address() -> str:
    """Where the process that forks listens; it starts when it is first asked for.

    It imports the libraries while its first requests wait.
    """
    path = str(Path(tempfile.mkdtemp(prefix="warm-")) / "socket")
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([sys.executable, "-P", __file__, path], stdin=theirs, cwd=ROOT)
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()
        shutil.rmtree(Path(path).parent)

    atexit.register(end)
    assert ours.recv(1), "it ended before it listened"
    return path


class Popen(subprocess.Popen[Any]):
    """A fork of the process that has imported the libraries, and all else as its base class."""

    def _execute_child(
        self,
        args: Any,
        executable: Any,
        preexec: Any,
        close: Any,
        passed: Any,
        cwd: Any,
        env: Any,
        *others: Any,
    ) -> None:
        assert args[0] == sys.executable, args
        assert preexec is None, "nothing can be carried out before"
        pipes = others[3:9]
        nothing = os.open(os.devnull, os.O_RDWR)
        given = [nothing if one == -1 else one for one in (pipes[0], pipes[3], pipes[5])]
        request = {
            "words": [str(word) for word in args[1:]],
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
            "cores": sorted(os.sched_getaffinity(0)),
        }
        self._life = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._life.connect(os.environ.get("WARM_PYTHON") or address())
            socket.send_fds(self._life, [json.dumps(request).encode()], given)
            told = self._life.recv(32)
            assert told, "the process that forks has ended; what it said stands above all tests"
            self.pid = int(told)
        finally:
            os.close(nothing)
            self._close_pipe_fds(*pipes)
        self._child_created = True

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        with self._waitpid_lock:
            if self.returncode is None:
                pid, status = self._try_wait(os.WNOHANG)
                if pid == self.pid:
                    self._handle_exitstatus(status)
        return self.returncode

    def _try_wait(self, flags: int) -> tuple[int, int]:
        try:
            told = self._life.recv(32, socket.MSG_DONTWAIT if flags & os.WNOHANG else 0)
        except BlockingIOError:
            return 0, 0
        return self.pid, int(told)


def run(
    command: list[str], cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with its output captured as text."""
    process = Popen(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


# --- The process that forks ----------------------------------------------------------------------


def serve(path: str) -> None:
    """Fork for every request until standard input is closed; the forks that are left go on."""
    from bench.running.libraries import import_libraries

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen()
    os.write(0, b".")
    gc.disable()
    for name in COMMAND:
        importlib.import_module(name)
    parse_once()
    import_libraries()
    import_ours()
    gc.set_threshold(50_000, 20, 20)  # as in conftest
    sys.dont_write_bytecode = False  # what a fork has compiled, the next one has
    sys.pycache_prefix = str(Path(path).parent / "bytecode")
    gc.collect()
    gc.freeze()
    gc.enable()
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == 0:
                return
            if key.fileobj is listener:
                life, _address = listener.accept()
                message, given, _flags, _ = socket.recv_fds(life, LONGEST, 3)
                pid = os.fork()
                if pid == 0:
                    inherited = [one.fd for one in selector.get_map().values() if one.fd > 2]
                    lives = [
                        one.data[1].detach() for one in selector.get_map().values() if one.data
                    ]
                    become(path, json.loads(message), given, [*inherited, *lives, life.detach()])
                for number in given:
                    os.close(number)
                life.send(str(pid).encode())
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, life))
            else:
                pid, life = key.data
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(BrokenPipeError), life:
                    life.send(str(status).encode())
                selector.unregister(key.fileobj)
                os.close(key.fd)


def parse_once() -> None:
    """Let typer import what it needs for a first command line."""
    import typer
    from typer.testing import CliRunner

    app = typer.Typer()
    app.command()(lambda number=0: None)
    CliRunner().invoke(app, ["--number", "1"])


def import_ours() -> None:
    """Import what commands and workers do, and the methods."""
    from methods import registry

    for name in ("bench.cli", "bench.running.api", "bench.running.worker"):
        importlib.import_module(name)
    assert registry.discover() == []


def forget_others() -> None:
    """Where this process is to have other modules of our packages' names, it imports them anew."""
    specs = {name: importlib.machinery.PathFinder.find_spec(name) for name in OURS}
    same = all(
        spec is None or spec.origin == sys.modules[name].__file__ for name, spec in specs.items()
    )  # None: it is installed as a checkout, which is found in another way
    if same and ANEW not in os.environ:
        return
    for name in list(sys.modules):
        if name.partition(".")[0] in OURS:
            del sys.modules[name]
    finders = [x for x in sys.meta_path if type(x).__module__.partition(".")[0] not in OURS]
    sys.meta_path[:] = finders


def become(path: str, request: dict[str, Any], given: list[int], inherited: list[int]) -> None:
    """In a fork: be what ``python WORDS`` is, to its end."""
    import numpy as np
    import torch

    status = 1
    try:
        os.setsid()
        for target, number in enumerate(given):
            os.dup2(number, target)
        for number in {*given, *inherited}:
            os.close(number)
        os.sched_setaffinity(0, request["cores"])
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"] | {"WARM_PYTHON": path})
        sys.stdin = os.fdopen(0, closefd=False)
        encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0] or None
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(os.fdopen(n, "wb", 0, closefd=False), encoding, write_through=True)
            for n in (1, 2)
        )
        signal.signal(signal.SIGINT, signal.default_int_handler)
        tempfile.tempdir = None
        np.random.seed()
        torch.seed()
        status = carry_out(request["words"], request["env"].get("PYTHONPATH", ""))
    except BaseException:
        traceback.print_exc()
    finally:
        import threading

        with contextlib.suppress(BaseException):
            threading._shutdown()  # waits for threads, as the end of a process does
            atexit._run_exitfuncs()
        os._exit(status)


def carry_out(words: list[str], search: str) -> int:
    """Run ``-m MODULE``, ``-c CODE`` or a script with its arguments; its exit status."""
    flags = []
    while words[0] in ("-u", "-P"):
        flags.append(words.pop(0))
    if words[0].endswith(".py"):
        words = ["", *words]
    how, what, *rest = words
    first = "" if how else str(Path(what).parent)
    sys.path[:0] = ([] if "-P" in flags else [first]) + [x for x in search.split(os.pathsep) if x]
    sys.argv = ["-c" if how == "-c" else what, *rest]
    forget_others()
    use_here()
    try:
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        elif not how:
            runpy.run_path(what, run_name="__main__")
        else:
            main = types.ModuleType("__main__")
            sys.modules["__main__"] = main
            exec(compile(what, "<string>", "exec"), main.__dict__)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def use_here() -> None:
    """Let what this process starts of the suite be warm, too: servers of workers, and workers."""
    from bench.running import execution, forkserver

    if not forkserver.is_available():  # no Linux, or too old a one: all processes are new ones
        return
    warm = types.SimpleNamespace(Popen=Popen, PIPE=subprocess.PIPE)
    forkserver.subprocess = execution.subprocess = warm


if not hasattr(os, "pidfd_open"):
    Popen = subprocess.Popen  # type: ignore[misc]  # the same elsewhere than on Linux

if __name__ == "__main__":
    serve(sys.argv[1])
