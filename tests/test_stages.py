"""Shared stages: computed once, whole or absent, whatever happens to who computes them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench.core.errors import BenchError
from bench.running import stages
from bench.running.context import SuiteContext
from bench.running.stages import (
    ArrayStore,
    DigestMemo,
    Stage,
    StageError,
    StageKey,
    StageStore,
    array_digest,
)
from methods.method import Arrays, Context, stage

DEADLINE_SECONDS = 60.0  # only a broken test waits so long
X = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
KEY = StageKey("counted", 1, "0123")
# Where it is possible one process imports what takes long, and is forked.
CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()
anew = multiprocessing.get_context("forkserver" if CAN_FORK else "spawn")
anew.set_forkserver_preload(["hypothesis", "pytest", "bench.running.context"])


@stage(version=1)
def counted(X: np.ndarray, *, random_state: int, context: Context, folder: str) -> Arrays:
    """A stage that leaves a line for each time it is computed."""
    with (Path(folder) / "calls").open("a") as calls:
        calls.write(f"{os.getpid()}\n")
    noise = np.random.default_rng(random_state).normal(size=3)
    return {"mean": X.mean((1, 2)), "noise": noise}


@stage(version=1)
def slow(X: np.ndarray, *, random_state: int, context: Context, folder: str) -> Arrays:
    """The same, slow enough for another process to ask for it meanwhile."""
    arrays = counted(X, random_state=random_state, context=context, folder=folder)
    time.sleep(0.3)
    return arrays


@stage(version=1)
def endless(X: np.ndarray, *, random_state: int, context: Context, folder: str) -> Arrays:
    """A stage that ends only if the file ``end`` is there."""
    arrays = counted(X, random_state=random_state, context=context, folder=folder)
    while not (Path(folder) / "end").exists():
        time.sleep(0.01)
    return arrays


@stage(version=1)
def broken(X: np.ndarray, *, random_state: int, context: Context, folder: str) -> Arrays:
    """A stage that fails until the file ``mended`` is there."""
    if (Path(folder) / "mended").exists():
        return counted(X, random_state=random_state, context=context, folder=folder)
    raise FloatingPointError("the loss is not finite")


@stage(version=1)
def outer(X: np.ndarray, *, random_state: int, context: Context, folder: str) -> Arrays:
    """A stage that asks for another one."""
    return context.stage(broken, X, random_state=random_state, folder=folder)


def suite(folder: Path) -> SuiteContext:
    """A context whose stages and checkpoints lie below `folder`."""
    return SuiteContext(
        StageStore(folder / "stages"), folder / "points" / "fit", lambda event: None
    )


def ask(function: Callable[..., Arrays], folder: Path) -> Arrays:
    return suite(folder).stage(function, X, random_state=0, folder=str(folder))


def ask_at_once(folder: Path, barrier: Any, answers: Any) -> None:
    """In a process of its own: wait for the others, then ask."""
    context = suite(folder)
    barrier.wait(DEADLINE_SECONDS)
    arrays = context.stage(slow, X, random_state=0, folder=str(folder))
    answers.put({name: array.tolist() for name, array in arrays.items()})


def ask_for_endless(folder: Path) -> None:
    ask(endless, folder)


def stop_before_the_rename(folder: Path) -> None:
    """In a process of its own: write a stage's files and stop before they get their name."""

    def wait_for_ever(*paths: Path) -> None:
        (folder / "written").touch()
        time.sleep(DEADLINE_SECONDS)

    stages.os.replace = wait_for_ever  # type: ignore[assignment]
    ask(counted, folder)


def calls(folder: Path) -> int:
    """How often the stage was computed."""
    return len((folder / "calls").read_text().splitlines())


def folders(folder: Path) -> list[str]:
    """The stages that the store holds; drafts have a dot before their name."""
    return [path.name for path in (folder / "stages").glob("*/[!.]*") if path.is_dir()]


def wait_for(file: Path, process: BaseProcess) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not file.exists():
        assert process.is_alive(), f"{file} did not appear"
        assert time.monotonic() < end, f"{file} did not appear"
        time.sleep(0.01)


def kill(process: BaseProcess) -> None:
    process.kill()  # SIGKILL: it cannot tidy up
    process.join(DEADLINE_SECONDS)
    assert process.exitcode == -signal.SIGKILL


# --- Once ----------------------------------------------------------------------------------------


def test_two_processes_compute_a_stage_once(cache: Path) -> None:
    cache.mkdir()
    barrier, answers = anew.Barrier(2), anew.Queue()
    arguments = (cache, barrier, answers)
    processes = [anew.Process(target=ask_at_once, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    try:
        first, second = (answers.get(timeout=DEADLINE_SECONDS) for _ in processes)
    finally:
        for process in processes:
            process.join(DEADLINE_SECONDS)
            process.kill()
    assert first == second
    assert calls(cache) == 1
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_stored_stage_is_not_computed_again(cache: Path) -> None:
    cache.mkdir()
    fresh, cached = ask(counted, cache), ask(counted, cache)
    assert calls(cache) == 1
    for arrays in (fresh, cached):
        assert sorted(arrays) == ["mean", "noise"]
    for name in fresh:
        np.testing.assert_array_equal(fresh[name], cached[name])
        assert fresh[name].dtype == cached[name].dtype
        assert type(fresh[name]) is type(cached[name])


def test_with_and_without_the_suite_a_stage_gives_the_same(cache: Path) -> None:
    cache.mkdir()
    alone = Context().stage(counted, X, random_state=0, folder=str(cache))
    stored = ask(counted, cache)
    assert calls(cache) == 2
    for name in alone:
        np.testing.assert_array_equal(alone[name], stored[name])


@pytest.mark.parametrize("arrays_of", ["fresh", "cached"])
def test_the_arrays_are_memory_mapped_and_cannot_be_changed(cache: Path, arrays_of: str) -> None:
    """Whoever computed them included: else a method could work once and fail from the cache."""
    cache.mkdir()
    arrays = ask(counted, cache)
    if arrays_of == "cached":
        arrays = ask(counted, cache)
    for array in arrays.values():
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


# --- Whole or absent -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "sign"), [(ask_for_endless, "calls"), (stop_before_the_rename, "written")]
)
def test_who_is_killed_leaves_no_stage(
    cache: Path, target: Callable[[Path], None], sign: str
) -> None:
    """Kill -9 while a stage computes, and while its files are written."""
    cache.mkdir()
    process = anew.Process(target=target, args=(cache,))
    process.start()
    try:
        wait_for(cache / sign, process)
        assert folders(cache) == []
    finally:
        kill(process)
    assert folders(cache) == []
    (cache / "end").touch()
    before = calls(cache)
    function = endless if target is ask_for_endless else counted
    assert sorted(ask(function, cache)) == ["mean", "noise"]
    assert calls(cache) == before + 1
    assert len(folders(cache)) == 1
    assert not [path for path in cache.rglob(".*") if path.is_dir()], "a draft was left behind"


def test_a_failure_names_the_stage_and_leaves_nothing(cache: Path) -> None:
    cache.mkdir()
    with pytest.raises(StageError) as failed:
        ask(broken, cache)
    assert str(failed.value) == "stage broken failed: the loss is not finite"
    assert isinstance(failed.value.__cause__, FloatingPointError)
    assert folders(cache) == []
    (cache / "mended").touch()
    ask(broken, cache)  # the next one asks anew
    assert calls(cache) == 1


def test_a_failure_within_a_stage_names_both(cache: Path) -> None:
    cache.mkdir()
    with pytest.raises(StageError, match=r"^stage outer failed: stage broken failed: the loss is"):
        ask(outer, cache)
    assert folders(cache) == []


def test_want_of_memory_is_said_as_such(cache: Path) -> None:
    def compute() -> tuple[Arrays, dict[str, Any]]:
        raise MemoryError

    with pytest.raises(MemoryError):
        StageStore(cache).get(KEY, compute)
    assert not StageStore(cache).has(KEY)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"good": X, "bad": np.array([{}, None])}, "array 'bad' of .* holds objects"),
        ({"good": X, "a/b": X}, "array 'a/b' of .* a name that a file can have"),
        (None, "NoneType"),
    ],
)
def test_what_cannot_be_stored_fails_and_leaves_nothing(
    cache: Path, arrays: Any, reason: str
) -> None:
    with pytest.raises(StageError, match=f"^stage counted failed: .*{reason}"):
        StageStore(cache).get(KEY, lambda: (arrays, {"seconds": 0.0}))
    assert [path.name for path in cache.rglob("*") if path.suffix != ".lock"] == ["counted"]


@pytest.mark.parametrize("failing", ["a.npy", "facts.json"])
def test_a_disk_that_fails_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    real = os.fsync

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2].startswith(f".{failing}-"):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(stages.os, "fsync", full)
    with pytest.raises(StageError, match=r"stage counted failed: .*No space left on device"):
        StageStore(cache).get(KEY, lambda: ({"a": X}, {"seconds": 0.0}))
    assert [path.name for path in cache.rglob("*") if path.suffix != ".lock"] == ["counted"]


def test_writing_again_replaces_the_folder(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path)
    store.write("fit", {"a": X, "b": X}, {"run": 1})
    store.write("fit", {"a": X + 1}, {"run": 2})
    found = store.read("fit")
    assert found is not None
    assert found[1] == {"run": 2}
    assert list(found[0]) == ["a"]
    np.testing.assert_array_equal(found[0]["a"], X + 1)
    store.remove("fit")
    assert not store.has("fit")
    assert store.read("fit") is None


def test_what_is_being_deleted_is_gone_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is killed while files go one by one leaves nothing that counts as whole."""
    store = ArrayStore(tmp_path)
    store.write("fit", {"a": X}, {})
    monkeypatch.setattr(stages.shutil, "rmtree", lambda *a, **k: None)
    store.remove("fit")
    assert not store.has("fit")
    assert store.read("fit") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "facts.json").unlink(),
        lambda folder: (folder / "facts.json").write_text(""),
        lambda folder: (folder / "facts.json").write_text("[]"),
        lambda folder: (folder / "a.npy").unlink(),
        lambda folder: (folder / "a.npy").write_bytes(b"x"),
    ],
)
def test_a_damaged_folder_is_made_anew(
    cache: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    def compute() -> tuple[Arrays, dict[str, Any]]:
        return {"a": X, "b": X + 1}, {"seconds": 1.0}

    kept = StageStore(cache)
    kept.get(KEY, compute)
    damage(cache / KEY.text)
    assert not kept.has(KEY)
    assert f"{cache / KEY.text} is damaged (" in capsys.readouterr().out
    again = kept.get(KEY, compute)
    assert (sorted(again.arrays), again.facts) == (["a", "b"], {"seconds": 1.0})
    assert kept.has(KEY)


@settings(max_examples=50)
@given(
    array=hnp.arrays(
        st.sampled_from(["u1", "i8", "f4", "f8", "c8", "?", "U5", ">i2"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    fortran=st.booleans(),
)
def test_every_array_of_numbers_comes_back(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, fortran: bool
) -> None:
    store = ArrayStore(tmp_path_factory.mktemp("store"))
    array = np.array(array, order="F" if fortran else "C")
    store.write("fit", {"a": array}, {})
    found = store.read("fit")
    assert found is not None
    assert (found[0]["a"].dtype, found[0]["a"].shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found[0]["a"], array)


# --- The key -------------------------------------------------------------------------------------


def key(**changes: Any) -> StageKey:
    plain = {
        "function": counted,
        "params": {"k": 1, "init": "random"},
        "X_digest": array_digest(X),
        "seed": 0,
        "precision": "fp32",
    }
    return StageKey.of(**plain | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"function": slow},
        {"params": {"k": 2, "init": "random"}},
        {"params": {"k": 1}},
        {"X_digest": array_digest(X + 1)},
        {"X_digest": array_digest(X.astype(np.int8))},
        {"X_digest": array_digest(X.reshape(3, 2, 3))},
        {"seed": 1},
        {"precision": "bf16"},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_the_key_depends_on(changes: dict[str, Any]) -> None:
    assert key().digest != key(**changes).digest


def test_the_key_depends_on_the_version_and_not_on_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = key()

    def counted(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
        return {}

    counted.version = 1  # type: ignore[attr-defined]
    assert key(function=counted) == before
    counted.version = 2  # type: ignore[attr-defined]
    assert key(function=counted).digest != before.digest


def test_a_stage_without_a_version_is_refused() -> None:
    def plain(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
        return {}

    with pytest.raises(BenchError, match=r"stage plain of test_stages .*@stage\(version=1\)"):
        key(function=plain)


def test_the_key_depends_on_what_is_kept_with_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that an older version stored without a history is not taken for one of ours."""
    before = key()
    monkeypatch.setattr(stages, "FORMAT", stages.FORMAT + 1)
    assert key().digest != before.digest


def test_the_key_depends_on_nothing_else() -> None:
    again = key(params={"init": "random", "k": 1}, X_digest=array_digest(X.copy()))
    assert again == key()
    assert again.text == f"counted/{again.digest}"


def test_two_seeds_are_two_stages(cache: Path) -> None:
    cache.mkdir()
    context = suite(cache)
    first, second = (context.stage(counted, X, random_state=s, folder=str(cache)) for s in (0, 1))
    assert calls(cache) == 2
    assert not np.array_equal(first["noise"], second["noise"])


@given(
    hnp.arrays(st.sampled_from([np.uint8, np.float32]), hnp.array_shapes(max_side=4), elements={})
)
def test_a_digest_is_of_values_not_of_memory(array: np.ndarray) -> None:
    assert array_digest(np.array(array, order="F")) == array_digest(array)
    assert array_digest(np.repeat(array, 2, axis=0)[::2]) == array_digest(array)


def test_an_array_is_digested_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = array_digest
    monkeypatch.setattr(stages, "array_digest", lambda X: (asked.append(id(X)), real(X))[1])
    memo, twin = DigestMemo(), X.copy()
    assert memo(X) == memo(X) == memo(twin)
    assert asked == [id(X), id(twin)]


def test_the_facts_are_kept_with_the_arrays(cache: Path) -> None:
    store = StageStore(cache)
    made = store.get(KEY, lambda: ({"a": X}, {"seconds": 1.5, "stages": []}))
    found = store.get(KEY, lambda: pytest.fail("it is stored"))
    assert isinstance(found, Stage)
    assert found.facts == made.facts == {"seconds": 1.5, "stages": []}
