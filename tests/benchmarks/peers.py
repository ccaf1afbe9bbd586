"""Peers: which are installed, and a process of its own for one that must not disturb ours."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import traceback
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.harness import Ledger

EXTRA = "peers"


def is_installed(ledger: Ledger, *modules: str) -> bool:
    """Whether all of `modules` can be imported; if not, the ledger says how to get them."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        ledger.note(
            f"{', '.join(missing)}: not installed, so this peer is left out; it comes with the "
            f"extra {EXTRA!r}: pip install -e '.[test,{EXTRA}]'"
        )
    return not missing


class PeerProcess:
    """An object in a process of its own, whose methods are called from here.

    TensorFlow and torch each keep a pool of threads and an allocator of their own; apart, neither
    changes what the other is given. Between calls the process waits on its pipe and uses no core.

    Parameters
    ----------
    factory : what makes the object there, as ``"package.module:Class"``.
    args : what it is called with; they travel by pickle.
    """

    def __init__(self, factory: str, *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self.process = context.Process(target=serve, args=(there, factory), daemon=True)
        self.process.start()
        there.close()
        self._exchange(args)

    def call(self, method: str, *args: Any) -> Any:
        """What ``object.method(*args)`` returns there.

        Raises
        ------
        RuntimeError : it raised something, shown with its traceback, or the process has ended.
        """
        return self._exchange((method, args))

    def _exchange(self, message: Any) -> Any:
        try:
            self._pipe.send(message)
            good, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join(10)
            raise RuntimeError(
                f"the peer's process ended with status {self.process.exitcode}; its output says why"
            ) from error
        if not good:
            raise RuntimeError(f"the peer failed in its process:\n{answer}")
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()  # it reads the end of the pipe and leaves
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def serve(pipe: Connection, factory: str) -> None:
    """The other side of a `PeerProcess`: make the object, then answer calls until the pipe ends."""
    thing: Any = None
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        try:
            if thing is None:
                module, _, name = factory.partition(":")
                thing = getattr(importlib.import_module(module), name)(*message)
                pipe.send((True, None))
            else:
                method, args = message
                pipe.send((True, getattr(thing, method)(*args)))
        except Exception:  # whatever it is, it is told to whoever called
            pipe.send((False, traceback.format_exc()))
