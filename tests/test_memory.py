"""A limit of memory for each trial: what it counts, what becomes of who breaks it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from plugins_for_tests import Place, wait_for

from bench.core.errors import BenchError
from bench.running import memory

MIB = 2**20
# Keeps so many MiB, in so many forked processes, which share what the first one has; tells once it
# has all; stays until its standard input closes.
HOLD = """
import os, sys
kept = bytearray(os.urandom({mib} * 2**20))
for _ in range({processes} - 1):
    if os.fork() == 0:
        break
os.write(1, b"ready\\n")
sys.stdin.read()
"""


@contextmanager
def holding(mib: int, processes: int = 1) -> Iterator[subprocess.Popen[str]]:
    code = HOLD.format(mib=mib, processes=processes)
    started = subprocess.Popen(
        [sys.executable, "-S", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert started.stdout is not None
    try:
        for _ in range(processes):
            assert started.stdout.readline() == "ready\n"
        yield started
    finally:
        os.killpg(started.pid, 9)
        started.communicate()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8G", 8 * 2**30),
        ("8GiB", 8 * 2**30),
        ("8 gib", 8 * 2**30),
        ("1.5G", 3 * 2**29),
        ("512M", 512 * MIB),
        ("512MiB", 512 * MIB),
        ("300000K", 300_000 * 1024),
        (2**30, 2**30),
        ("none", None),
        (None, None),
    ],
)
def test_a_size_is_read(text: str | int | None, size: int | None) -> None:
    assert memory.parse(text) == size


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "8", "G", "-8G", "0G", "0.0001K", "8GB", "8T", "8e3G", "²G", "٣G", "9" * 30 + "G"),
        *(0, -1, True, False, 2.5, 2**70),
    ],
)
def test_a_wrong_size_is_one_sentence(wrong: str | int) -> None:
    with pytest.raises(BenchError, match="expected a size such as 8G"):
        memory.parse(wrong)


@pytest.mark.parametrize(
    ("size", "text"), [(8 * 2**30, "8 GiB"), (3 * 2**29, "1.5 GiB"), (400 * MIB, "400 MiB")]
)
def test_a_size_is_shown(size: int, text: str) -> None:
    assert memory.show(size) == text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who shares what")
def test_shared_pages_count_once() -> None:
    with holding(100) as one, holding(100, processes=4) as four:
        assert 100 * MIB < memory.held_by(one.pid) < 130 * MIB
        assert 100 * MIB < memory.held_by(four.pid) < 160 * MIB
        assert memory._resident(four.pid) > 400 * MIB


def test_what_its_parent_left_behind_still_counts() -> None:
    with holding(50, processes=2) as group:
        orphans = psutil.Process(group.pid).children()
        group.kill()
        group.wait()
        assert len(orphans) == 1
        assert memory.held_by(group.pid) > 50 * MIB


def test_nothing_is_held_by_what_has_ended() -> None:
    with holding(1) as group:
        pass
    assert memory.held_by(group.pid) == 0


def test_a_breach_is_called_once_and_none_below_the_limit() -> None:
    breaches: list[str] = []
    with holding(100) as group:
        with memory.Watcher(group.pid, 300 * MIB, lambda: breaches.append("300")) as calm:
            calm._over.wait(3 * memory.EVERY_S)
        with memory.Watcher(group.pid, 80 * MIB, lambda: breaches.append("80")) as watcher:
            wait_for("the breach", lambda: breaches, 20)
            watcher._over.wait(3 * memory.EVERY_S)
    assert breaches == ["80"]
    assert calm.message == ""
    assert watcher.message.startswith("stopped at the limit of 80 MiB of memory: it held 1")


def test_who_breaks_the_limit_is_out_of_memory_and_the_others_run(tmp_path: Path) -> None:
    """One takes memory in three processes, one in a stage."""
    words = "--method greedy-family,greedy-staged,near --level 5% --memory 700M --jobs 2"
    with Place(tmp_path) as place:
        ended = place.run(words, "failing", "simple")
        assert (ended.status, ended.err) == (1, ""), ended.text
        assert "trials of this run: 1 ok, 2 out-of-memory" in ended.out
        assert not place.processes()
        records = place.records()
        said = "stopped at the limit of 700 MiB of memory: it held "
        for name, before in (("family", ""), ("staged", "stage greedy_stage failed: ")):
            record = records[f"greedy-{name}/5%/0"]
            assert record["status"] == "out-of-memory"
            assert record["error"]["message"].startswith(before + said)
            assert record["error"]["traceback"] is None
        assert records["near/5%/0"]["status"] == "ok"
        taken = [place.read(file.name).count("\n") for file in tmp_path.glob("taken-*")]
        assert len(taken) == 3 + 1
        assert max(taken) * 40 < 1000, "it was stopped too late"
