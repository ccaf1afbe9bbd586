"""Kills, crashes and failures: what is done is kept, what is lost is said, nothing goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from plugins_for_tests import DEADLINE_SECONDS, Ended, Place, kill_9, wait_for

from bench.running import forkserver

EPOCHS, HELD_EPOCH = 25, 8  # of the plugin slow: in its stage, and in each fit


def epochs(place: Place, loop: str) -> dict[int, list[int]]:
    """The epochs of `loop` that were begun, by process, in order."""
    found: dict[int, list[int]] = {}
    for line in place.read("epochs.txt").splitlines():
        name, epoch, process = line.split()
        if name == loop:
            found.setdefault(int(process), []).append(int(epoch))
    return found


@contextlib.contextmanager
def run_until(place: Place, words: str, *loops: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command, and bring it into the middle of `loops`, where it stays."""
    holds = [place.folder / f"hold-{loop}" for loop in loops]
    for hold in holds:
        hold.touch()
    try:
        with place.start(words, "simple", "slow") as runner:
            for loop in loops:
                held = f"{loop} {HELD_EPOCH} "
                wait_for(f"epoch {held}", lambda line=held: line in place.read("epochs.txt"))
            yield runner
    finally:
        for hold in holds:
            hold.unlink()


def kill_in(place: Place, words: str, loop: str) -> None:
    """Kill the runner, and nothing else, with -9 in the middle of `loop`; see all of it end."""
    with run_until(place, words, loop) as runner:
        # The stage has started a process of its own; in a fit it is gone with the stage's worker.
        ours = 3 if forkserver.is_available() else 2
        assert len(place.processes()) == (ours + 1 if loop == "stage" else ours)
        kill_9(runner)
        wait_for("the end of the workers", lambda: not place.processes(), 30)


def assert_went_on(place: Place, loop: str) -> None:
    """Two processes shared the epochs; only the one that was cut short was begun twice."""
    begun = [list(range(HELD_EPOCH + 1)), list(range(HELD_EPOCH, EPOCHS))]
    assert list(epochs(place, loop).values()) == begun


def test_kill_9_in_a_stage_and_in_a_fit(tmp_path: Path) -> None:
    words = "--method blind,slow --level 1%,5% --jobs 1"
    with Place(tmp_path / "calm") as calm, Place(tmp_path / "killed") as place:
        with calm.start(words, "simple", "slow") as undisturbed:
            kill_in(place, words, "stage")
            before = place.stamps()
            assert set(before) == {"blind/1%/0", "blind/5%/0"}
            kill_in(place, words, "fit-18")
            assert place.stamps() == before
            ended = place.run(words, "simple", "slow")
            assert ended.status == 0, ended.text
            assert undisturbed.wait(DEADLINE_SECONDS) == 0
        assert_went_on(place, "stage")
        assert_went_on(place, "fit-18")
        for loop in ("stage", "fit-18", "fit-90"):
            assert list(epochs(calm, loop).values()) == [list(range(EPOCHS))]
        after = place.stamps()
        assert {name: after[name] for name in before} == before
        assert set(after) == set(calm.records()) == {*before, "slow/1%/0", "slow/5%/0"}
        for name, record in place.records().items():
            assert record["status"] == "ok"
            assert record["subsets"] == calm.records()[name]["subsets"], name
        assert not list(place.results.rglob(".*")), "drafts were left behind"
        assert not list((place.folder / "cache" / "checkpoints").rglob("*.pt"))


FAILURES = {
    "raises": ("failed", "ZeroDivisionError: as it was told to"),
    "wrong-shape": ("failed", "expected 1797 integers"),
    "hungry": ("out-of-memory", "Unable to allocate"),
    "aborts": ("crashed", "SIGABRT"),
    "leaves": ("crashed", "without a record"),
    "quits": ("failed", "SystemExit: as it was told to"),
    "victim": ("crashed", "SIGKILL"),
    "staged": ("failed", "stage broken_stage failed: the stage was told to fail"),
    "staged-too": ("failed", "stage broken_stage failed: the stage was told to fail"),
    "staged-vanishing": ("crashed", "stage vanishing_stage failed"),
    "staged-hungry": ("out-of-memory", "stage hungry_stage failed: Unable to allocate"),
}
FINE = ("near", "parent")


def test_every_failure_is_a_record_and_the_others_still_run(tmp_path: Path) -> None:
    words = f"--method {','.join([*FAILURES, *FINE])} --level 5%"
    plugins = ("simple", "failing")
    with Place(tmp_path) as place:
        began = time.monotonic()
        with place.start(f"{words} --jobs 2", *plugins) as runner:
            wait_for("victim", lambda: place.read("victim"))
            os.kill(int(place.read("victim")), signal.SIGKILL)
            out, err = runner.communicate(timeout=DEADLINE_SECONDS)
        seconds = time.monotonic() - began
        assert (runner.returncode, err) == (1, ""), out
        assert not place.processes()
        assert place.read("child"), "parent did fork"
        check_failures(place, out)
        check_stages_tried_once(place)
        check_shown(place)
        check_limit(place, max(5, round(seconds / 2)))
        check_rerun(place, words, plugins)


def check_failures(place: Place, out: str) -> None:
    """The records say how each ended; so does the terminal."""
    records = place.records()
    assert set(records) == {f"{name}/5%/0" for name in [*FAILURES, *FINE]}
    for name, (status, message) in FAILURES.items():
        record = records[f"{name}/5%/0"]
        assert record["status"] == status, (name, record["error"])
        assert message in record["error"]["message"], name
        assert record["environment"]["device"] == "cpu"
        assert f"{status} {name} · 5% · seed 0: {record['error']['message']}" in out
    for name in FINE:
        assert records[f"{name}/5%/0"]["status"] == "ok", name
    traceback = records["raises/5%/0"]["error"]["traceback"]
    assert "failing.py" in traceback
    assert "ZeroDivisionError: as it was told to" in traceback
    assert "trials of this run: 4 crashed, 5 failed, 2 ok, 2 out-of-memory" in out


def check_stages_tried_once(place: Place) -> None:
    """A stage that fails is not tried again by every trial that needs it."""
    for stage in ("broken_stage", "vanishing_stage", "hungry_stage"):
        assert len(place.read(stage).splitlines()) == 1, stage


def check_shown(place: Place) -> None:
    """What a method printed before it failed can be read."""
    raised, aborted = place.commands("show raises/5%/0", "show aborts/5%/0")
    assert raised.status == aborted.status == 0, raised.err + aborted.err
    for words in ("last words of raises", "raises · 5% · seed 0: failed", "Traceback"):
        assert words in raised.out
    assert "last words of aborts" in aborted.out
    assert "no traceback" in aborted.out


def check_rerun(place: Place, words: str, plugins: tuple[str, ...]) -> None:
    """The same command leaves failures alone, and says so; ``--rerun failed`` tries them again."""
    before = place.stamps()
    again = place.run(words, *plugins)
    assert again.status == 1, "not every trial that was asked for ended well"
    assert "0 trials to run, 2 done before" in again.out
    assert "11 failed before and are left as they are (--rerun failed" in again.out
    assert place.stamps() == before
    (place.folder / "mended").touch()
    mended = place.run("--method near,raises,staged --level 5% --rerun failed", *plugins)
    assert mended.status == 0, mended.text
    assert "2 trials to run, 1 done before" in mended.out
    after = place.stamps()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"raises/5%/0", "staged/5%/0"}
    assert {place.statuses()[name] for name in changed} == {"ok"}


def check_limit(place: Place, limit: int) -> None:
    """A method that outlives its limit is killed, with its child and whatever it ignores.

    The limit counts from the start of the process, so it is taken from how long others took.
    """
    ended = place.run(f"--method stubborn --level 5% --timeout {limit}s", "failing")
    assert (ended.status, ended.err) == (1, ""), ended.out
    assert place.read("stubborn"), "it was killed before it could be stubborn"
    assert not place.processes()
    record = place.records()["stubborn/5%/0"]
    assert record["status"] == "timeout"
    assert record["error"]["message"] == f"stopped after the limit of {limit} s"


def interrupt(place: Place, words: str, loops: tuple[str, ...], number: signal.Signals) -> Ended:
    """Signal the runner once it is in the middle of `loops`; see that nothing is left of it."""
    with run_until(place, words, *loops) as runner:
        runner.send_signal(number)
        out, err = runner.communicate(timeout=60)
    assert not place.processes()
    return Ended(runner.returncode, out, err)


def test_interrupted_run_stops_and_goes_on(tmp_path: Path) -> None:
    words = "--method blind,slow --level 1%,5% --jobs 2"
    left = "trials left; what is done is kept, and the same command goes on from there"
    with Place(tmp_path) as place:
        ended = interrupt(place, words.replace("blind,", ""), ("stage",), signal.SIGINT)
        assert (ended.status, ended.err) == (1, f"stopped with 2 {left}\n"), ended.out
        assert not place.records()
        ended = interrupt(place, words, ("fit-18", "fit-90"), signal.SIGTERM)
        assert (ended.status, ended.err) == (1, f"stopped with 2 {left}\n"), ended.out
        before = place.stamps()
        assert set(before) == {"blind/1%/0", "blind/5%/0"}
        assert (place.results / "leaderboard.csv").exists()
        ended = place.run(words, "simple", "slow")
        assert ended.status == 0, ended.text
        assert "2 trials to run, 2 done before" in ended.out
        after = place.stamps()
        assert {name: after[name] for name in before} == before
        assert set(after) == {*before, "slow/1%/0", "slow/5%/0"}
        assert set(place.statuses().values()) == {"ok"}
        for loop in ("stage", "fit-18", "fit-90"):
            assert_went_on(place, loop)
