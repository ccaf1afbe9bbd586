"""A limit of memory for a job: a watcher that adds up what its process and all it started hold.

Why not ``RLIMIT_AS``: it limits addresses, not memory. CUDA reserves many times the memory of the
machine when it starts, torch and OpenBLAS reserve more than they touch, and each process that a
method starts would have the whole limit for itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator

import psutil

from bench.core.errors import BenchError

EVERY_S = 0.1  # what is allocated in between is not seen in time
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def parse(given: str | int | None) -> int | None:
    """Bytes from ``"8G"`` or ``"512MiB"`` (K, M and G are powers of 1,024); an int is bytes.

    ``"none"`` and None set no limit.

    Raises
    ------
    BenchError : anything else.
    """
    if given is None or given == "none":
        return None
    size = 0.0
    if isinstance(given, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMG])(?:iB)?", given, re.IGNORECASE)
        if match:
            size = float(match[1]) * UNITS[match[2].upper()]
    elif isinstance(given, int) and not isinstance(given, bool):
        size = given
    if not 1 <= size < 2**60:
        raise BenchError(
            f"memory is {given!r}; expected a size such as 8G, 1.5GiB or 512M, or none"
        )
    return int(size)


def show(size: float) -> str:
    """``8 GiB``, ``1.5 GiB``, ``512 MiB``: a number of bytes for a person."""
    unit = "GiB" if size >= 2**30 else "MiB"
    return f"{round(size / (2**30 if unit == 'GiB' else 2**20), 2):g} {unit}"


def held_by(group: int) -> int:
    """Bytes that the processes of a process group hold together.

    Pages that several processes share count once: a worker shares the libraries with the process
    that it was forked from. To ask for that takes longer than `_resident`.
    """
    return sum(_proportional(process) for process in _processes(group))


def _resident(group: int) -> int:
    """At least what `held_by` says, found faster: each process with all that it shares."""
    total = 0
    for process in _processes(group):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def _proportional(process: psutil.Process) -> int:
    """The process' own memory and its part of what it shares; all of that where none can say."""
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
        try:
            full = process.memory_full_info()
            return int(getattr(full, "pss", full.rss))
        except psutil.AccessDenied:
            return int(process.memory_info().rss)
    return 0


def _processes(group: int) -> Iterator[psutil.Process]:
    """What belongs to a process group, orphans too."""
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getpgid(pid) == group:
                yield psutil.Process(pid)


class Watcher:
    """Calls `breach` once a process group holds more than `limit` bytes; a thread of its own.

    Used as a context manager around the life of the group.

    Attributes
    ----------
    message : what a record says of the breach; empty while there was none.
    """

    def __init__(self, group: int, limit: int | None, breach: Callable[[], None]) -> None:
        self.message = ""
        self._group = group
        self._limit = limit
        self._breach = breach
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watcher:
        if self._limit is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._limit is not None:
            self._thread.join()

    def _watch(self) -> None:
        assert self._limit is not None
        while not self._over.wait(EVERY_S):
            if (
                _resident(self._group) > self._limit
                and (held := held_by(self._group)) > self._limit
            ):
                self.message = (
                    f"stopped at the limit of {show(self._limit)} of memory: it held {show(held)} "
                    "with all that it had started"
                )
                self._breach()
                return
