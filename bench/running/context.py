"""What the suite lends a method while it fits: shared stages, checkpoints, progress, a history."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import BenchError
from bench.core.files import written_whole
from bench.core.machine import peak_memory_mib
from bench.core.texts import storable
from bench.running.stages import DigestMemo, StageKey, StageStore, are_current
from methods.method import Arrays, Checkpoint, Context, StageRequest, derive_seed


def seconds_between_checkpoints() -> float:
    """The least seconds between two checkpoints, as ``$BENCH_CHECKPOINT_SECONDS`` says it.

    Raises
    ------
    BenchError : it is no number of seconds.
    """
    given = os.environ.get("BENCH_CHECKPOINT_SECONDS", "20")
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise BenchError(
            f"BENCH_CHECKPOINT_SECONDS is {given!r}; expected a number of seconds, 0 or more"
        )
    return seconds


PROGRESS_SECONDS = 0.2
DEEPEST = 4  # lists and dicts in each other, of what a method logs
LARGEST = 100  # elements of an array that a row of the history keeps
LONGEST_TEXT = 200  # characters of what is kept as text because JSON lacks it
Emit = Callable[[dict[str, Any]], None]


class FileCheckpoint:
    """A loop's state in one file, written whole or not at all, at most every `every_s` seconds.

    None of these are `seconds_between_checkpoints`.

    The file also tells how many seconds the loop had taken; once loaded, `spent_before_s` has them.
    And it tells the versions of the stages that the loop stands on, `stages` (what `SuiteContext`
    notes of each): what another version gave it is no state to go on from.
    """

    def __init__(
        self,
        path: Path,
        every_s: float | None = None,
        stages: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.path = path
        self.every_s = seconds_between_checkpoints() if every_s is None else every_s
        self.stages = stages
        self.spent_before_s = 0.0
        self._began = self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state saved last.

        An unreadable file, or one on stages of other versions, is said in the log, and the loop
        starts anew.
        """
        if not self.path.exists():
            return None
        import torch

        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            state, seconds = saved["state"], float(saved["seconds"])
            current = are_current(saved.get("stages", ()))  # older files lack it
        except Exception as error:  # damaged bytes fail in many ways, ValueError and KeyError too
            print(f"checkpoint {self.path} cannot be read ({error}); starting from the beginning")
            return None
        if not current:
            print(f"checkpoint {self.path} is of stages of other versions; starting anew")
            return None
        self.spent_before_s = seconds
        print(f"going on from checkpoint {self.path.name}")
        return state

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Write ``state()`` if the last one is older than `every_s` seconds.

        What finds no room is said in the log, and tried again as late: the loop goes on.
        """
        if time.monotonic() - self._last < self.every_s:
            return
        import torch

        seconds = self.spent_before_s + time.monotonic() - self._began
        stages = [{"name": stage["name"], "version": stage["version"]} for stage in self.stages]
        kept = {"state": state(), "seconds": seconds, "stages": stages}
        try:
            with written_whole(self.path) as file:
                torch.save(kept, file)
        except (OSError, RuntimeError) as error:  # torch says of a full disk what it likes
            print(f"checkpoint {self.path} cannot be written: {error}")
        self._last = time.monotonic()


class SuiteContext(Context):
    """The context of one fit, or of one stage.

    Parameters
    ----------
    stages : the store of shared stages.
    checkpoints : folder of this fit's own checkpoints; stages keep theirs beside it.
    emit : takes progress events (dicts) for whoever watches.
    within : the stage whose context this is; None in a fit.
    """

    def __init__(
        self,
        stages: StageStore,
        checkpoints: Path,
        emit: Emit,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        threads: int | None = None,
        digests: DigestMemo | None = None,
        within: StageKey | None = None,
    ) -> None:
        super().__init__(device, precision, threads)
        self.stages = stages
        self.checkpoints = checkpoints
        self.emit = emit
        self.stage_costs: list[dict[str, Any]] = []
        self.stage_wall_s = 0.0
        self._digests = digests or DigestMemo()
        self._within = within
        self._rows: list[tuple[str | None, dict[str, Any]]] = []  # with the key of their stage
        self._checkpoints: list[FileCheckpoint] = []
        self._last_progress = 0.0

    def progress(self, what: str, done: int, total: int) -> None:
        """Emit an event, unless the last one was a moment ago."""
        now = time.monotonic()
        if now - self._last_progress < PROGRESS_SECONDS and done < total:
            return
        self._last_progress = now
        stage = None if self._within is None else self._within.name
        self.emit({"event": "progress", "in": stage, "what": what, "of": [int(done), int(total)]})

    def log(self, **values: float | int | str | None) -> None:
        """Add one row to the history, with the name of the stage that is running."""
        row = {name: _plain(value) for name, value in values.items()}
        if self._within is None:
            self._rows.append((None, row))
        else:
            self._rows.append((self._within.digest, {"stage": self._within.name} | row))

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, in order; rows of a stage name it as ``stage``."""
        return [row for _, row in self._rows]

    def checkpoint(self, name: str) -> Checkpoint:
        """The file that keeps the state of the loop `name`."""
        path = self.checkpoints / f"{name}.pt"
        self._checkpoints.append(FileCheckpoint(path, stages=self.stage_costs))
        return self._checkpoints[-1]

    @property
    def spent_before_s(self) -> float:
        """Seconds that a process which was killed had spent on what this one went on with."""
        return sum(checkpoint.spent_before_s for checkpoint in self._checkpoints)

    def clear(self) -> None:
        """Delete this fit's checkpoints: it has ended."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def stage(
        self, function: Callable[..., Arrays], X: np.ndarray, *, random_state: Any, **params: Any
    ) -> Arrays:
        """The stored stage, or a stage computed and stored; its cost and history are noted."""
        seed = derive_seed(random_state, function.__name__)
        key = StageKey.of(function, params, self._digests(X), seed, self.precision)
        start = time.perf_counter()
        folder = self.checkpoints.parent / f"stage-{key.name}-{key.digest}"
        inner = SuiteContext(
            self.stages,
            folder,
            self.emit,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            digests=self._digests,
            within=key,
        )
        self.emit({"event": "stage", "name": key.name})

        own = {"name": key.name, "version": key.version, "key": key.digest, "params": params}

        def compute() -> tuple[Arrays, dict[str, Any]]:
            began = time.perf_counter()
            arrays = function(X, random_state=seed, context=inner, **params)
            seconds = time.perf_counter() - began - inner.stage_wall_s + inner.spent_before_s
            cost = {"seconds": seconds, "peak_memory_mib": peak_memory_mib()}
            facts = {"cost": own | cost, "stages": inner.stage_costs, "history": inner._rows}
            return arrays, facts

        stage = self.stages.get(key, compute)
        inner.clear()
        self.stage_wall_s += time.perf_counter() - start
        self._adopt(stage.facts)
        return stage.arrays

    def _adopt(self, facts: dict[str, Any]) -> None:
        """Add a stage's cost and history, each once however often the stage is asked for.

        A cached stage reports the same costs and history as a fresh one.
        """
        known = {cost["key"] for cost in self.stage_costs}
        costs = [*facts["stages"], facts["cost"]]
        self.stage_costs += [cost for cost in costs if cost["key"] not in known]
        self._rows += [(key, row) for key, row in facts["history"] if key not in known]


def _plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON holds it: a fit must not be lost over what it logs.

    A number of numpy or torch is Python's own, a small array a list, a number that is not finite
    None; what JSON lacks is the text that Python shows of it, cut off where it is long.
    """
    if hasattr(value, "shape"):
        value = _of_array(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int) and abs(value) < 2**63:
        return int(value)
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list | tuple) and depth < DEEPEST:
        return [_plain(one, depth + 1) for one in value]
    if isinstance(value, dict) and depth < DEEPEST:
        return {_text(key): _plain(one, depth + 1) for key, one in value.items()}
    return _text(value)


def _of_array(value: Any) -> Any:
    """An array or tensor of one number as that number, a small one as a list; else itself."""
    try:
        size = math.prod(value.shape)
        if size == 1:
            return value.item()
        return value.tolist() if size <= LARGEST else value
    except Exception:  # it only looks like an array: `_text` says what it is
        return value


def _text(value: Any) -> str:
    """What Python shows of a value, at most so many characters of it."""
    try:
        text = str(value)
    except Exception as error:  # the author's code may fail in any way
        text = f"a {type(value).__name__} that cannot be shown ({type(error).__name__})"
    text = storable(text)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def request_key(
    request: StageRequest, X_digest: str, random_state: int, precision: str
) -> StageKey:
    """The key of a stage that a method says it will ask for, without computing anything."""
    seed = derive_seed(random_state, request.name)
    return StageKey.of(request.function, request.params, X_digest, seed, precision)
