"""What the suite lends a method: checkpoints, stages and their cost, progress, a history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.running import context
from bench.running.context import FileCheckpoint, SuiteContext, request_key
from bench.running.stages import StageError, StageStore, array_digest
from methods.method import Arrays, Context, StageRequest, derive_seed, stage

X = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
STATE = {
    "step": 3,
    "name": "loop",
    "losses": [0.5, 0.25],
    "net": {"w": torch.arange(4, dtype=torch.float32), "rng": torch.get_rng_state()},
}
SIZE = {"size": 3, "inner_seed": 0}


class Clock:
    """Stands for the module time; it shows what the test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


CLOCK = Clock()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The suite's clock, and that of the stages below."""
    monkeypatch.setattr(context, "time", CLOCK)
    return CLOCK


@stage(version=1)
def inner(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
    """A stage that takes 2 s."""
    CLOCK.now += 2
    context.log(loss=0.5)
    return {"noise": np.random.default_rng(random_state).normal(size=2)}


@stage(version=1)
def around_inner(
    X: np.ndarray, *, random_state: int, context: Context, size: int, inner_seed: int
) -> Arrays:
    """A stage that takes 3 s, and asks in between for the inner one, as the fit would."""
    CLOCK.now += 1
    noise = context.stage(inner, X, random_state=inner_seed)["noise"]
    CLOCK.now += 2
    context.log(size=size)
    return {"noise": size * np.asarray(noise)}


@stage(version=1)
def resumable(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
    """A stage that fails after it has saved its first step, and goes on from there."""
    point = context.checkpoint("loop")
    state = point.load() or {"step": 0}
    if state["step"] == 0:
        CLOCK.now += 60  # so that it is due
        point.save(lambda: {"step": 1})
        raise RuntimeError("it was stopped")
    return {"step": np.array(state["step"])}


class Suite:
    """A place with contexts in it, and the events they emitted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[dict[str, Any]] = []
        self.points = folder / "checkpoints"

    def context(self, precision: str = "fp32") -> SuiteContext:
        stages = StageStore(self.folder / "stages")
        emit = self.events.append
        return SuiteContext(stages, self.points / "fit", emit, precision=precision, threads=2)

    def named(self, event: str) -> list[dict[str, Any]]:
        return [found for found in self.events if found["event"] == event]


@pytest.fixture
def suite(cache: Path) -> Suite:
    return Suite(cache)


# --- Checkpoints ---------------------------------------------------------------------------------


def test_a_checkpoint_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = FileCheckpoint(tmp_path / "deep" / "loop.pt", every_s=0)
    assert point.load() is None
    point.save(lambda: STATE)
    state = FileCheckpoint(point.path).load()
    assert state is not None
    assert {name: state[name] for name in ("step", "name", "losses")} == {
        name: STATE[name] for name in ("step", "name", "losses")
    }
    assert torch.equal(state["net"]["w"], STATE["net"]["w"])
    assert torch.equal(state["net"]["rng"], STATE["net"]["rng"])
    assert capsys.readouterr().out == "going on from checkpoint loop.pt\n"
    assert [path.name for path in point.path.parent.iterdir()] == ["loop.pt"]


def test_a_checkpoint_is_written_when_it_is_due(tmp_path: Path, clock: Clock) -> None:
    """And its state is not even built when it is not."""
    point = FileCheckpoint(tmp_path / "loop.pt", every_s=20)
    built: list[float] = []

    def state() -> dict[str, Any]:
        built.append(clock.now)
        return {"now": clock.now}

    start = clock.now
    for seconds in (0, 19.9, 20, 21, 39, 41):
        clock.now = start + seconds
        point.save(state)
    assert built == [start + 20, start + 41]
    assert point.load() == {"now": start + 41}


def test_without_a_pause_every_state_is_written(tmp_path: Path) -> None:
    point = FileCheckpoint(tmp_path / "loop.pt", every_s=0)
    for step in range(3):
        point.save(lambda step=step: {"step": step})
        assert point.load() == {"step": step}


def test_a_failing_state_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    point = FileCheckpoint(tmp_path / "loop.pt", every_s=0)
    point.save(lambda: {"step": 1})
    with pytest.raises(ZeroDivisionError):
        point.save(lambda: {"step": 1 // 0})
    assert point.load() == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["loop.pt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("unexpected pos")])
def test_a_disk_that_fails_leaves_the_old_checkpoint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    """And the loop goes on; torch's writer raises an error of its own."""
    point = FileCheckpoint(tmp_path / "loop.pt", every_s=0)
    point.save(lambda: {"step": 1})

    def full(*anything: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        point.save(lambda: {"step": 2})
    assert f"loop.pt cannot be written: {error}" in capsys.readouterr().out
    assert point.load() == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["loop.pt"]


@pytest.mark.parametrize("damage", ["empty", "half", "text", "a name overwritten", "noise"])
def test_a_damaged_checkpoint_is_said_and_the_loop_starts_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    point = FileCheckpoint(tmp_path / "loop.pt", every_s=0)
    point.save(lambda: STATE)
    whole = point.path.read_bytes()
    damaged = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "text": b"no checkpoint",
        "a name overwritten": whole.replace(b"losses", b"\xff" * 6),
        "noise": np.random.default_rng(0).bytes(300),
    }
    assert damaged[damage] != whole
    point.path.write_bytes(damaged[damage])
    assert point.load() is None
    said = capsys.readouterr().out
    assert said.startswith(f"checkpoint {point.path} cannot be read (")
    assert said.endswith("); starting from the beginning\n")


def test_a_checkpoint_does_not_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its file may hold tensors, numbers, strings, dicts and lists, and no objects."""
    point = FileCheckpoint(tmp_path / "loop.pt", every_s=0)
    point.save(lambda: {"object": Path("x")})
    assert point.load() is None
    assert "cannot be read" in capsys.readouterr().out


def test_a_loop_on_a_stage_of_another_version_starts_anew(
    suite: Suite, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else its end would be that of the older stage, under the version of the newer."""
    fit = suite.context()
    point = fit.checkpoint("loop")
    fit.stage(around_inner, X, random_state=0, **SIZE)
    clock.now += 60  # so that it is due
    point.save(lambda: {"step": 1})
    assert suite.context().checkpoint("loop").load() == {"step": 1}
    monkeypatch.setattr(inner, "version", 2)
    again = suite.context()
    assert again.checkpoint("loop").load() is None
    assert "is of stages of other versions; starting anew" in capsys.readouterr().out
    assert again.spent_before_s == 0, "what those seconds made is not used"


def test_the_end_of_a_fit_clears_its_checkpoints_and_no_others(suite: Suite, clock: Clock) -> None:
    fit = suite.context()
    own, other = fit.checkpoint("loop"), FileCheckpoint(suite.points / "other" / "loop.pt")
    clock.now += 60  # so that both are due
    own.save(lambda: {"step": 1})
    other.save(lambda: {"step": 2})
    fit.clear()
    assert fit.checkpoint("loop").load() is None
    assert other.load() == {"step": 2}
    fit.clear()  # nothing is there any more, which is as well


# --- Stages --------------------------------------------------------------------------------------


def test_a_stage_that_was_stopped_goes_on_from_its_checkpoint(suite: Suite, clock: Clock) -> None:
    with pytest.raises(StageError, match="stage resumable failed: it was stopped"):
        suite.context().stage(resumable, X, random_state=0)
    (folder,) = suite.points.iterdir()
    assert folder.name.startswith("stage-resumable-")
    assert suite.context().stage(resumable, X, random_state=0)["step"] == 1
    assert list(suite.points.iterdir()) == []  # it has ended


def test_the_seed_of_a_stage_is_derived_from_its_name(suite: Suite, clock: Clock) -> None:
    expected = np.random.default_rng(derive_seed(7, "inner")).normal(size=2)
    for lent in (suite.context(), Context()):
        np.testing.assert_array_equal(lent.stage(inner, X, random_state=7)["noise"], expected)


def test_what_a_stage_costs(suite: Suite, clock: Clock) -> None:
    """A stage within a stage is a row of its own, and its seconds are nobody else's."""
    fit = suite.context()
    clock.now += 10
    fit.stage(around_inner, X, random_state=0, **SIZE)
    assert [(cost["name"], cost["seconds"]) for cost in fit.stage_costs] == [
        ("inner", 2),
        ("around_inner", 3),
    ]
    assert [cost["params"] for cost in fit.stage_costs] == [{}, SIZE]
    assert all(cost["peak_memory_mib"] > 0 for cost in fit.stage_costs)
    assert fit.stage_wall_s == 5


def test_a_stage_from_the_cache_costs_what_it_did_afresh(suite: Suite, clock: Clock) -> None:
    first, second, third = suite.context(), suite.context(), suite.context()
    first.stage(around_inner, X, random_state=0, **SIZE)
    second.stage(around_inner, X, random_state=0, **SIZE)
    third.stage(inner, X, random_state=0)
    third.stage(around_inner, X, random_state=0, **SIZE)
    assert len(first.stage_costs) == 2
    assert json.loads(json.dumps(first.stage_costs)) == second.stage_costs == third.stage_costs
    assert (first.stage_wall_s, second.stage_wall_s, third.stage_wall_s) == (5, 0, 0)


def test_a_stage_asked_for_twice_is_one_cost(suite: Suite, clock: Clock) -> None:
    fit = suite.context()
    for _ in range(2):
        fit.stage(inner, X, random_state=0)
    assert [cost["name"] for cost in fit.stage_costs] == ["inner"]


INNER_ROW, OUTER_ROW = {"stage": "inner", "loss": 0.5}, {"stage": "around_inner", "size": 3}


def test_a_stage_from_the_cache_tells_the_history_that_it_had_afresh(
    suite: Suite, clock: Clock
) -> None:
    """Jobs of their own compute the stages, so that no fit would have their history otherwise."""
    suite.context().stage(inner, X, random_state=0)
    for _ in range(
        2
    ):  # the outer one afresh, its inner one from the cache; then both from the cache
        fit = suite.context()
        fit.log(start=True)
        fit.stage(around_inner, X, random_state=0, **SIZE)
        fit.log(end=True)
        assert fit.history == [{"start": True}, INNER_ROW, OUTER_ROW, {"end": True}]


@pytest.mark.parametrize(
    "order", [(inner, around_inner), (around_inner, inner), (around_inner, around_inner, inner)]
)
def test_the_history_of_a_stage_stands_once(suite: Suite, clock: Clock, order: Any) -> None:
    for _ in range(2):
        fit = suite.context()
        for function in order:
            fit.stage(function, X, random_state=0, **(SIZE if function is around_inner else {}))
        assert fit.history == [INNER_ROW, OUTER_ROW]


def test_two_stages_of_one_function_both_tell_their_history(suite: Suite, clock: Clock) -> None:
    fit = suite.context()
    for seed in (0, 1):
        fit.stage(inner, X, random_state=seed)
    assert fit.history == [INNER_ROW, INNER_ROW]


def test_the_plan_knows_the_key_before(suite: Suite, clock: Clock) -> None:
    request = StageRequest(around_inner, SIZE)
    fit = suite.context(precision="bf16")
    key = request_key(request, array_digest(X), 0, "bf16")
    assert not fit.stages.has(key)
    fit.stage(around_inner, X, random_state=0, **SIZE)
    assert fit.stages.has(key)
    assert not fit.stages.has(request_key(request, array_digest(X), 0, "fp32"))
    assert not fit.stages.has(request_key(request, array_digest(X), 1, "bf16"))


def test_a_stage_runs_with_what_the_fit_was_lent(suite: Suite) -> None:
    lent: list[Context] = []

    @stage(version=1)
    def look(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
        lent.append(context)
        return {}

    suite.context(precision="bf16").stage(look, X, random_state=0)
    assert [(c.device, c.precision, c.threads) for c in lent] == [("cpu", "bf16", 2)]


# --- Progress, history, digests ------------------------------------------------------------------


def test_progress_is_not_said_too_often(suite: Suite, clock: Clock) -> None:
    """But the last step always is."""
    fit = suite.context()
    for step in range(1, 101):
        clock.now += 0.05
        fit.progress("epoch", step, 100)
    said = [event["of"] for event in suite.named("progress")]
    assert said[0] == [1, 100]
    assert said[-1] == [100, 100]
    assert 20 <= len(said) <= 30


def test_progress_says_in_which_stage(suite: Suite) -> None:
    @stage(version=1)
    def counting(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
        context.progress("epoch", 1, 1)
        return {}

    fit = suite.context()
    fit.stage(counting, X, random_state=0)
    fit.progress("iteration", 1, 1)
    assert suite.named("stage") == [{"event": "stage", "name": "counting"}]
    assert suite.named("progress") == [
        {"event": "progress", "in": "counting", "what": "epoch", "of": [1, 1]},
        {"event": "progress", "in": None, "what": "iteration", "of": [1, 1]},
    ]


def test_numbers_of_numpy_and_torch_can_be_kept_in_a_record(suite: Suite) -> None:
    fit = suite.context()
    fit.log(loss=np.float32(0.5), n=np.int64(3), change=torch.tensor(0.25), note="ok", none=None)
    row = {"loss": 0.5, "n": 3, "change": 0.25, "note": "ok", "none": None}
    assert json.loads(json.dumps(fit.history)) == [row]
    fit.log(loss=float("nan"), far=np.float32("inf"))
    assert fit.history[1] == {"loss": None, "far": None}, "JSON has no such numbers"


class Unshown:
    """What Python cannot show."""

    shape = "square"

    def __repr__(self) -> str:
        raise ValueError("no")


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Path("x"), "x"),
        (b"1", "b'1'"),
        (np.arange(3), [0, 1, 2]),
        (np.array([0.5]), 0.5),
        (torch.tensor([[1.0, float("nan")]], requires_grad=True), [[1.0, None]]),
        ([np.float32(0.5), (1, float("inf"))], [0.5, [1, None]]),
        ({1: {"a": np.int64(2)}}, {"1": {"a": 2}}),
        (True, True),
        (10**400, str(10**400)[:200] + "…"),
        (np.zeros(1000), str(np.zeros(1000))[:200] + "…"),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (1 + 2j, "(1+2j)"),
        ("\udce9", "\\udce9"),
        (Unshown(), "a Unshown that cannot be shown (ValueError)"),
        (ENDLESS, [[[["[[...]]"]]]]),
    ],
)
def test_what_json_lacks_is_kept_as_text(suite: Suite, value: Any, kept: Any) -> None:
    fit = suite.context()
    fit.log(value=value)
    assert json.loads(json.dumps(fit.history, allow_nan=False)) == [{"value": kept}]
