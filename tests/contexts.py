"""The context that tests fit in: it remembers what it is told, and it can be killed."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from methods.method import Arrays, Context, StageRequest

Rows = list[dict[str, Any]]
Result = TypeVar("Result")


class Killed(Exception):
    """Stands for a kill: the process ends there."""


class SmallBatches(Context):
    """Computes stages with batches of 32 images, so that few epochs are many steps."""

    def stage(
        self, function: Callable[..., Arrays], X: np.ndarray, *, random_state: Any, **params: Any
    ) -> Arrays:
        if "batch_size" in params:
            params["batch_size"] = 32
        return super().stage(function, X, random_state=random_state, **params)


class Recording(Context):
    """Does in memory what the suite's context does, and remembers what it is told.

    A stage is computed once; its arrays are read-only memory maps, its history is kept with it.

    Parameters
    ----------
    lives : it is killed at this event. Events are the states that it is offered, each right after
        it was kept, and the progress that it is told.
    every : which of the states offered to a checkpoint it keeps: all, every second one, ...
    states, stages : the checkpoints and the stages that another one has left.
    answers : what stages of these names return, instead of being computed.

    Attributes
    ----------
    events : how many there were.
    history : the rows that were logged; those of a stage name it as ``stage``.
    steps : the progress that was told, as (what, done, total).
    asked : the stages that were asked for, with the seed, in order.
    computed : the names of those that were computed.
    """

    def __init__(
        self,
        lives: int | None = None,
        every: int = 1,
        *,
        states: dict[str, bytes] | None = None,
        stages: dict[str, tuple[Arrays, Rows]] | None = None,
        answers: Mapping[str, Arrays] | None = None,
        precision: str = "fp32",
    ) -> None:
        super().__init__(precision=precision)
        self.lives = lives
        self.every = every
        self.states = {} if states is None else states
        self.stages = {} if stages is None else stages
        self.answers = answers or {}
        self.events = 0
        self.history: Rows = []
        self.steps: list[tuple[str, int, int]] = []
        self.asked: list[tuple[StageRequest, object]] = []
        self.computed: list[str] = []
        self._within: list[str] = []  # the keys of the stages that are being computed

    def event(self) -> None:
        """Count one, and end here if it is the last."""
        self.events += 1
        if self.events == self.lives:
            raise Killed

    def progress(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))
        self.event()

    def log(self, **values: float | int | str | None) -> None:
        stage = {"stage": self._within[-1].partition(" ")[0]} if self._within else {}
        self.history.append(stage | values)

    def checkpoint(self, name: str) -> _Kept:
        return _Kept(self, "/".join([*self._within, name]))

    def stage(
        self, function: Callable[..., Arrays], X: np.ndarray, *, random_state: Any, **params: Any
    ) -> Arrays:
        name = function.__name__
        self.asked.append((StageRequest(function, params), random_state))
        if name in self.answers:
            return {key: _mapped(array) for key, array in self.answers[name].items()}
        key = f"{name} {X.shape} {random_state} {sorted(params.items())}"
        if key not in self.stages:
            before = len(self.history)
            self._within.append(key)
            try:
                found = super().stage(function, X, random_state=random_state, **params)
            finally:
                self._within.pop()
            self.computed.append(name)
            arrays = {key: _mapped(array) for key, array in found.items()}
            self.stages[key] = arrays, self.history[before:]
        else:
            self.history += self.stages[key][1]
        return self.stages[key][0]


class _Kept:
    """A checkpoint that goes through bytes, as one in a file does."""

    def __init__(self, context: Recording, name: str) -> None:
        self._context = context
        self._name = name
        self._offered = 0

    def load(self) -> dict[str, Any] | None:
        saved = self._context.states.get(self._name)
        return None if saved is None else torch.load(io.BytesIO(saved), weights_only=True)

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        self._offered += 1
        if (self._offered - 1) % self._context.every == 0:
            file = io.BytesIO()
            torch.save(state(), file)
            self._context.states[self._name] = file.getvalue()
        self._context.event()


def _mapped(array: np.ndarray) -> np.ndarray:
    """The array as the suite hands it out: a read-only map of a file."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, array)
        file.flush()
        return np.load(file.name, mmap_mode="r")


def killed_and_resumed(
    fit: Callable[[Recording], Result], lives: int, every: int = 1
) -> tuple[Result, Recording]:
    """What `fit` gives after its first process was killed, and the context of the second one.

    Parameters
    ----------
    lives, every : see `Recording`.
    """
    first = Recording(lives, every)
    with pytest.raises(Killed):
        fit(first)
    second = Recording(states=first.states, stages=first.stages)
    return fit(second), second
