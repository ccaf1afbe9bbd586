"""Our side of the timings, through what any user may call."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np

from bench.core import machine
from benchmarks.harness import WHOLE, Ledger, Round
from methods.dcec import SSDCEC
from methods.method import Arrays, Context
from methods.toolkit.stages.autoencoder import autoencoder

BATCH_SIZE = 256
INTERVAL = 140  # steps between two refreshes of p


class Stamps(Context):
    """A context that notes when a loop said how far it is.

    stamps : for every loop, known by what it counts and by its total, the seconds on a clock at
        which each number of steps was done.
    first : for what a loop counts, the seconds at which it was first heard of.
    """

    def __init__(self, precision: str = "fp32") -> None:
        super().__init__(precision=precision)
        self.stamps: dict[tuple[str, int], dict[int, float]] = {}
        self.first: dict[str, float] = {}

    def progress(self, what: str, done: int, total: int) -> None:
        """Note the time."""
        now = time.perf_counter()
        self.first.setdefault(what, now)
        self.stamps.setdefault((what, total), {})[done] = now

    def span(self, what: str) -> float:
        """The seconds from the first to the last time that a loop spoke of `what`."""
        stamps = [times for (counted, _), times in self.stamps.items() if counted == what]
        return max(max(times.values()) for times in stamps) - self.first[what]


class Primed(Stamps):
    """`Stamps` that hands out an autoencoder made before, so that it costs no time here."""

    def __init__(self, pretrained: Arrays, precision: str) -> None:
        super().__init__(precision)
        self._pretrained = pretrained

    def stage(
        self, function: Callable[..., Arrays], X: np.ndarray, *, random_state: Any, **params: Any
    ) -> Arrays:
        """The ready autoencoder; any other stage is computed in place."""
        if function is autoencoder:
            return self._pretrained
        return super().stage(function, X, random_state=random_state, **params)


def precisions(ledger: Ledger) -> list[str]:
    """``fp32``, and ``bf16`` where the processor has it; the ledger says so where it has not."""
    if machine.has_native_bf16():
        return ["fp32", "bf16"]
    ledger.note("bf16: this processor does not multiply it natively, so only fp32 is timed")
    return ["fp32"]


def unit_seconds(stamps: Mapping[int, float]) -> float:
    """The median seconds of one step, from the times at which numbers of steps were done.

    Raises
    ------
    ValueError : fewer than two times.
    """
    done = sorted(stamps)
    if len(done) < 2:
        raise ValueError(f"the loop reported its progress {len(done)} times; expected at least 2")
    pairs = itertools.pairwise(done)
    return median((stamps[b] - stamps[a]) / (b - a) for a, b in pairs)


def joint_parts(stamps: Mapping[int, float], interval: int) -> dict[str, float]:
    """The seconds of a step, of a refresh of p, and of a cycle: `interval` steps and one refresh.

    Parameters
    ----------
    stamps : when each number of steps was done. p was refreshed right after number `interval`.

    Raises
    ------
    ValueError : no two times are `interval` steps apart with the refresh between them.
    """
    starts = [a for a in sorted(stamps) if a <= interval < a + interval and a + interval in stamps]
    if not starts:
        raise ValueError(
            f"the joint phase reported no two times {interval} steps apart, around its refresh "
            f"after step {interval}; run it for some more steps"
        )
    step = unit_seconds(stamps)
    before = max(done for done in stamps if done <= interval)
    after = min(done for done in stamps if done > interval)
    refresh = stamps[after] - stamps[before] - (after - before) * step
    cycle = stamps[starts[0] + interval] - stamps[starts[0]]
    return {"step": step, "refresh": refresh, "cycle": cycle}


def untrained(X: np.ndarray) -> Arrays:
    """What the stage `autoencoder` gives for the initial weights."""
    return autoencoder(X, random_state=0, context=Context(), epochs=0)


def joint_phase(
    X: np.ndarray, y: np.ndarray, pretrained: Arrays, precision: str, interval: int = INTERVAL
) -> Round:
    """The joint phase of SS-DCEC over a whole cycle and some steps more; see `joint_parts`.

    It starts at class means, without the k-means of DCEC; the steps are the same.

    Parameters
    ----------
    X, y : uint8 images ``(n, 28, 28)`` and labels ``(n,)``, -1 = unlabelled, all classes present.
    """
    n_steps = interval + max(5, interval // 7)
    context = Primed(pretrained, precision)
    method = SSDCEC(
        n_clusters=10,
        pretrain_epochs=0,
        max_iterations=n_steps,
        update_interval=interval,
        delta=0,
        random_state=0,
    )
    method.fit(X, y, context)
    return Round(joint_parts(context.stamps["step", n_steps], interval))


def step_of(train: Callable[[Stamps], object], every: int, precision: str) -> Round:
    """The median seconds of a step of a training, from the times after `every` steps each.

    Where these are a pass through the images, a short last batch and the next order count too.
    """
    context = Stamps(precision)
    train(context)
    ((_, stamps),) = [item for item in context.stamps.items() if item[0][0] == "step"]
    return Round({WHOLE: unit_seconds({n: at for n, at in stamps.items() if n % every == 0})})


def some_labels(y: np.ndarray, share: float) -> np.ndarray:
    """``y`` with -1 but for every ``1 / share``-th instance of each class."""
    shown = np.full_like(y, -1)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        kept = members[:: round(1 / share)]
        shown[kept] = label
    return shown
