"""Methods that fail, each in a way of its own, and one that only looks as if it would.

They mend themselves once ``$BENCH_TEST_FOLDER/mended`` exists.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np

from methods.method import Arrays, Context, Method, StageRequest, Tags, stage
from methods.registry import register

TEN_MINUTES = 600


def folder() -> Path:
    """Where the test wants to be told things."""
    return Path(os.environ["BENCH_TEST_FOLDER"])


def tell(name: str) -> None:
    """Leave a line with this process's number in the file `name`."""
    with (folder() / name).open("a") as file:
        file.write(f"{os.getpid()}\n")


class Failing(Method):
    """What the methods of this file share: a fit that calls `fail` first."""

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fail(self, X: np.ndarray, context: Context) -> None:
        """Do not return."""
        raise NotImplementedError

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Failing:
        """Fail, or put every image into cluster 0."""
        if not (folder() / "mended").exists():
            self.fail(X, context or Context())
        self.labels_ = np.zeros(len(X), dtype=int)
        return self


@register("raises")
class Raises(Failing):
    """Raises, after it has printed."""

    def fail(self, X: np.ndarray, context: Context) -> NoReturn:
        """Raise."""
        print("last words of raises")
        raise ZeroDivisionError("as it was told to")


@register("quits")
class Quits(Failing):
    """Ends its process as a script does."""

    def fail(self, X: np.ndarray, context: Context) -> NoReturn:
        """End it."""
        sys.exit("as it was told to")


@register("hungry")
class Hungry(Failing):
    """Runs out of memory."""

    def fail(self, X: np.ndarray, context: Context) -> None:
        """Ask for more memory than there is."""
        np.empty(2**55, dtype=np.uint8)


@register("greedy-family", in_all=False, processes=3)
@register("greedy-staged", in_all=False, staged=True)
class Greedy(Failing):
    """Takes memory, 40 MiB at a time, and keeps it: itself or in processes that it starts."""

    def __init__(
        self,
        n_clusters: int = 10,
        processes: int = 1,
        staged: bool = False,
        random_state: int | None = None,
    ) -> None:
        super().__init__(n_clusters, random_state)
        self.processes = processes
        self.staged = staged

    def stages(self, n_labels: int) -> list[StageRequest]:
        """A stage that takes it, if asked for."""
        return [StageRequest(greedy_stage)] if self.staged else []

    def fail(self, X: np.ndarray, context: Context) -> None:
        """Take it."""
        if self.staged:
            context.stage(greedy_stage, X, random_state=0)
        for _ in range(self.processes - 1):
            if os.fork() == 0:
                break
        take_memory(5 * 2**30 // self.processes)


def take_memory(most: int) -> None:
    """Take memory slowly, up to `most` bytes, with a line in a file for each 40 MiB; then wait."""
    kept: list[np.ndarray] = []
    for _ in range(0, most, 40 * 2**20):
        kept.append(np.ones(40 * 2**20, dtype=np.uint8))
        tell(f"taken-{os.getpid()}")
        time.sleep(0.05)
    time.sleep(TEN_MINUTES)


@stage(version=1)
def greedy_stage(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
    """A stage that takes memory."""
    take_memory(5 * 2**30)
    return {}


@register("asks")
class Asks(Failing):
    """Asks for input, which nobody gives."""

    def fail(self, X: np.ndarray, context: Context) -> None:
        """Ask."""
        input()


@register("aborts")
class Aborts(Failing):
    """Ends as a fault in compiled code does."""

    def fail(self, X: np.ndarray, context: Context) -> NoReturn:
        """Abort."""
        print("last words of aborts")
        os.abort()


@register("leaves")
class Leaves(Failing):
    """Ends its process as if all were well."""

    def fail(self, X: np.ndarray, context: Context) -> NoReturn:
        """Leave."""
        os._exit(0)


@register("victim")
class Victim(Failing):
    """Waits to be killed."""

    def fail(self, X: np.ndarray, context: Context) -> None:
        """Tell its number and wait."""
        tell("victim")
        time.sleep(TEN_MINUTES)


@register("stubborn")
class Stubborn(Failing):
    """Takes no notice of signals that can be ignored, and neither does what it starts."""

    def fail(self, X: np.ndarray, context: Context) -> None:
        """Wait, with a child that waits."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({TEN_MINUTES})"])
        tell("stubborn")
        time.sleep(TEN_MINUTES)


@register("parent")
class Parent(Failing):
    """Ends well, but leaves a forked child behind, which holds all that it had open."""

    def fail(self, X: np.ndarray, context: Context) -> None:
        """Fork, and go on."""
        if os.fork() == 0:
            tell("child")
            time.sleep(TEN_MINUTES)
            os._exit(0)


@register("stray")
class Stray(Failing):
    """Ends well, but leaves a process behind that has a session of its own, and no parent."""

    def fail(self, X: np.ndarray, context: Context) -> None:
        """Fork twice, as a daemon does, and go on once it is there."""
        there, said = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                tell("child")
                os.close(said)
                time.sleep(TEN_MINUTES)
            os._exit(0)
        os.close(said)
        os.read(there, 1)


@register("tidies")
class Tidies(Failing):
    """Ends well, and has something to be done when its process ends."""

    def fail(self, X: np.ndarray, context: Context) -> None:
        """Have it done later."""
        atexit.register(tell, "tidied")


@register("wrong-shape")
class WrongShape(Failing):
    """Returns labels of the wrong shape."""

    tags = Tags(in_all=False)

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> WrongShape:
        """Set labels that break the contract."""
        self.labels_ = np.zeros((len(X), 2), dtype=int)
        return self


@stage(version=1)
def broken_stage(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
    """A stage that raises."""
    tell("broken_stage")
    if not (folder() / "mended").exists():
        raise RuntimeError("the stage was told to fail")
    return {"nothing": np.zeros(1)}


@stage(version=1)
def vanishing_stage(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
    """A stage that ends its process as if all were well."""
    tell("vanishing_stage")
    if not (folder() / "mended").exists():
        os._exit(0)
    return {"nothing": np.zeros(1)}


@stage(version=1)
def hungry_stage(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
    """A stage that runs out of memory."""
    tell("hungry_stage")
    return {"nothing": np.empty(1 if (folder() / "mended").exists() else 2**55, dtype=np.uint8)}


@register("staged", in_all=False)
@register("staged-too", in_all=False)
@register("staged-vanishing", in_all=False, stage="vanishing_stage")
@register("staged-hungry", in_all=False, stage="hungry_stage")
class Staged(Failing):
    """Needs a stage that fails."""

    def __init__(
        self,
        n_clusters: int = 10,
        stage: str = "broken_stage",
        random_state: int | None = None,
    ) -> None:
        super().__init__(n_clusters, random_state)
        self.stage = stage

    def stages(self, n_labels: int) -> list[StageRequest]:
        """Its one stage."""
        return [StageRequest(globals()[self.stage])]

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Staged:
        """Ask for the stage, then put every image into cluster 0."""
        context = context or Context()
        context.stage(globals()[self.stage], X, random_state=self.random_state)
        self.labels_ = np.zeros(len(X), dtype=int)
        return self
