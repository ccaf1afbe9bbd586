"""The harness of the timings: turns, medians, ratios, tables. What is fast is not tested here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from benchmarks import ours, tables
from benchmarks.harness import WHOLE, Comparison, Growth, Ledger, Race, Round, Series, timed
from benchmarks.peers import PeerProcess, is_installed

ROOT = Path(__file__).parent.parent
FACTS: dict[str, Any] = {
    "date": "2024-02-29T12:00:00+00:00",
    "machine": {
        "processor": "Some (R) CPU @ 2 GHz",
        "cores": 2,
        "threads": 2,
        "memory_gib": 24.0,
        "native_bf16": False,
        "commit": "abc",
        "dirty": True,
        "versions": {"python": "3.11"},
    },
    "options": {},
}


def series(*seconds: float, part: str = WHOLE, **figures: float) -> Series:
    return Series([Round({part: one}, figures) for one in seconds])


@pytest.fixture
def comparison() -> Comparison:
    """Ours 2 s and 1 s, peers 3 s and 6 s; one round of each was disturbed."""
    return Comparison(
        "sorting",
        {"plain": series(2, 90, 2), "new": series(1, 1, 80)},
        {"slow peer": series(6, 6, 70), "fast peer": series(3, 60, 3, inertia=0.5)},
        at_least={WHOLE: 1.5},
    )


def test_contestants_take_turns() -> None:
    order: list[str] = []

    def contestant(name: str) -> Any:
        return lambda: (order.append(name), Round({WHOLE: len(order)}))[1]

    race = Race({name: contestant(name) for name in "abc"})
    for _ in range(2):
        race.run("b", "c")
        race.run("a")
    assert order == list("bcabca")
    assert race.series["a"].all_seconds(WHOLE) == [3, 6]
    assert race.series["a"].seconds(WHOLE) == 4.5


def test_timed_times_each_call() -> None:
    calls: list[int] = []
    one_round = timed(lambda: calls.append(1))
    assert one_round().seconds.keys() == {WHOLE}
    assert one_round().seconds[WHOLE] >= 0
    assert calls == [1, 1]


def test_a_round_of_other_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="parts step after rounds of cycle"):
        series(1, part="cycle").add(Round({"step": 1}))


def test_ratios_are_of_medians_and_to_the_fastest_peer(comparison: Comparison) -> None:
    assert comparison.ranked_peers(WHOLE) == ["fast peer", "slow peer"]
    assert comparison.ratio(WHOLE, "plain", "fast peer") == 1.5
    assert comparison.ratio(WHOLE, "new", "slow peer") == 6
    assert comparison.verdict(WHOLE, "plain") is True
    more = replace(comparison, at_least={WHOLE: 2.5})
    assert more.verdict(WHOLE, "plain") is False
    assert replace(more, reference="slow peer").verdict(WHOLE, "plain") is True
    assert (
        Comparison("", {"x": series(2.1)}, comparison.peers, {WHOLE: 1.5}).verdict(WHOLE, "x")
        is False
    )


def test_limits_in_seconds() -> None:
    def verdict(**aims: Any) -> bool | None:
        return Comparison("help", {"": series(0.3)}, **aims).verdict(WHOLE, "")

    assert verdict(at_most={WHOLE: 0.4}) is True
    assert verdict(at_most={WHOLE: 0.2}) is False
    assert verdict() is None
    assert verdict(at_least={WHOLE: 2}) is None  # no peer is installed
    assert verdict(at_least={WHOLE: 2}, at_most={WHOLE: 0.2}) is False


def test_rows_of_the_table(comparison: Comparison) -> None:
    plain, new = tables.comparison_rows(comparison)
    assert dict(zip(tables.COLUMNS, plain, strict=True)) == {
        "work": "sorting",
        "ours": "plain",
        "time": "2 s ± 44 s",
        "fastest peer": "fast peer",
        "its time": "3 s ± 28.5 s (inertia 0.5)",
        "ratio": "1.50",
        "target": "≥ 1.5 met",
        "also timed": "slow peer 6 s ± 32 s (3.00)",
    }
    assert new[1:3] == ["new", "1 s ± 39.5 s"]
    assert new[5] == "3.00"


def test_parts_that_no_peer_has_stand_alone() -> None:
    both = Series([Round({"seeding": 1, "iterations": 2}, {"inertia": 7})])
    one = Comparison("k-means", {"fp32": both}, {"peer": series(4, part="iterations")})
    rows = tables.comparison_rows(one)
    assert [row[0] for row in rows] == ["k-means: seeding", "k-means: iterations"]
    assert rows[0][2:] == ["1 s", "", "", "", "", ""]
    assert rows[1][2:6] == ["2 s (inertia 7)", "peer", "4 s", "2.00"]


def test_growth_in_proportion_and_none() -> None:
    sizes = {"10": series(1), "30": series(6)}
    assert Growth("lr", sizes, {"10": 10, "30": 30}).relative(WHOLE, "30") == 2
    assert Growth("lr", sizes).relative(WHOLE, "30") == 6
    other = Growth("levels", {"1%": series(1), "5%": series(1)})
    by_size, by_level = tables.growth_tables([Growth("lr", sizes, {"10": 10, "30": 30}), other])
    assert by_size == (["work", "10", "30"], [["lr", "1 s (1.00)", "6 s (2.00)"]])
    assert by_level == (["work", "1%", "5%"], [["levels", "1 s (1.00)", "1 s (1.00)"]])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00042, "0.42 ms"), (0.0421, "42.1 ms"), (1.5, "1.5 s"), (99.9, "99.9 s"), (1234, "1234 s")],
)
def test_seconds_in_words(seconds: float, text: str) -> None:
    assert tables.in_words(seconds) == text


def test_saved_tables_never_replace_older_ones(comparison: Comparison, tmp_path: Path) -> None:
    ledger = Ledger([comparison], [Growth("lr", {"10": series(1)})])
    ledger.note("faiss: not installed")
    ledger.note("faiss: not installed")
    written = [path.name for _ in range(3) for path in tables.save(ledger, FACTS, tmp_path)]
    stem = "2024-02-29-some-r-cpu-2-ghz"
    names = [stem, f"{stem}-2", f"{stem}-3"]
    assert written == [f"{name}.{ending}" for name in names for ending in ("json", "md")]
    saved = json.loads((tmp_path / f"{stem}.json").read_text())
    (one,) = saved["comparisons"]
    assert one["ours"]["plain"]["seconds"] == {WHOLE: [2, 90, 2]}
    assert one["ratios"][WHOLE]["new"] == {"fast peer": 3, "slow peer": 6}
    assert saved["left_out"] == ["faiss: not installed"]
    assert saved["machine"]["cores"] == 2
    text = (tmp_path / f"{stem}.md").read_text()
    assert "| sorting | plain | 2 s ± 44 s | fast peer |" in text
    assert "no native bf16" in text
    assert "commit abc with changes" in text
    assert text.endswith("## Left out\n\n- faiss: not installed\n")


def test_the_session_says_where_it_measured() -> None:
    facts = tables.describe_session(tiny=True)
    assert facts["options"] == {"tiny": True}
    assert {"processor", "cores", "memory_gib", "native_bf16", "commit"} <= facts["machine"].keys()
    assert "torch" in facts["machine"]["versions"]
    assert f"torch {facts['machine']['versions']['torch']}" in tables.markdown(Ledger(), facts)


def test_a_missing_peer_is_said_with_its_extra() -> None:
    ledger = Ledger()
    assert is_installed(ledger, "json", "collections")
    assert ledger.notes == []
    assert not is_installed(ledger, "json", "no_such_peer")
    (note,) = ledger.notes
    assert note.startswith("no_such_peer: not installed")
    assert "[test,peers]" in note


def test_a_peer_in_a_process_of_its_own() -> None:
    peer = PeerProcess("collections:deque", [1, 2, 2])
    try:
        assert peer.call("count", 2) == 2
        with pytest.raises(RuntimeError, match="ValueError: 9 is not in deque"):
            peer.call("index", 9)
        assert peer.call("count", 1) == 1  # it goes on after an error
    finally:
        peer.close()
    assert peer.process.exitcode == 0


def test_a_peer_that_cannot_be_made_or_dies() -> None:
    with pytest.raises(RuntimeError, match="No module named 'no_such_peer'"):
        PeerProcess("no_such_peer:Thing")
    with pytest.raises(RuntimeError, match="ended with status 3"):
        PeerProcess("os:_exit", 3)


def test_parts_of_the_joint_phase() -> None:
    """Steps of 2 s; a refresh of 30 s comes after step 4."""
    clock = {done: 2.0 * done + (30 if done > 4 else 0) for done in range(1, 14)}
    assert ours.unit_seconds(clock) == 2
    assert ours.joint_parts(clock, 4) == {"step": 2, "refresh": 30, "cycle": 38}
    every_second = {done: at for done, at in clock.items() if done % 2 == 0}
    assert ours.joint_parts(every_second, 4) == {"step": 2, "refresh": 30, "cycle": 38}


def test_a_joint_phase_that_says_too_little() -> None:
    with pytest.raises(ValueError, match="no two times 4 steps apart"):
        ours.joint_parts({1: 1.0, 2: 2.0, 4: 4.0}, 4)
    with pytest.raises(ValueError, match="progress 1 times"):
        ours.unit_seconds({1: 1.0})


def test_our_joint_phase_is_timed() -> None:
    X = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    y = np.arange(60) % 10
    found = ours.joint_phase(X, y, ours.untrained(X), "fp32", interval=6)
    assert found.seconds.keys() == {"step", "refresh", "cycle"}
    assert found.seconds["cycle"] > found.seconds["step"] > 0


def test_some_labels_of_every_class() -> None:
    y = np.arange(1000) % 10
    shown = ours.some_labels(y, 0.05)
    assert np.bincount(shown[shown >= 0]).tolist() == [5] * 10
    assert (shown[shown >= 0] == y[shown >= 0]).all()


def timings(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the cheapest timing as `tox -e bench` does, but tiny."""
    file = str(ROOT / "tests/benchmarks/test_metrics_speed.py")
    options = ["--benchmark-only", "-o", "addopts=", "-p", "no:cacheprovider", "--tiny", *words]
    command = [sys.executable, "-m", "pytest", file, *options]
    # pytest-xdist tells its workers' children that they are workers too, and then nothing is timed.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return warm.run(command, ROOT, plain)


def test_a_session_prints_and_saves_its_tables(tmp_path: Path) -> None:
    done = timings(tmp_path, "--tables", str(tmp_path), "--rounds", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all metrics of 70,000 labels" in done.stdout
    (path,) = tmp_path.glob("*.json")
    assert f"written: {path}" in done.stdout
    saved = json.loads(path.read_text())
    (one,) = saved["comparisons"]
    assert len(one["ours"][""]["seconds"][WHOLE]) == 2
    assert saved["options"] == {"rounds": 2, "tiny": True}
    assert path.with_suffix(".md").exists()


def test_rounds_must_be_a_number_of_rounds(tmp_path: Path) -> None:
    done = timings(tmp_path, "--rounds", "0")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--rounds is 0; expected at least 1" in done.stderr
