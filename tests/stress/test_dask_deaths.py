"""Workers and schedulers of a dask cluster that die in the middle of a run.

Nodes have a cache, a home and a working folder of their own, as machines without a shared file
system do; one test gives them the cache of the run.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from plugins_for_tests import DEADLINE_SECONDS, Place, wait_for
from undisturbed import Outcomes, check_kept, outcomes, run_to_the_end

pytest.importorskip("distributed")

WORDS = "--method near,blind,kmeans,slow --level 1%,5% --seeds 3"
PLUGINS = ("simple", "slow")
STAGES = 2 * 3  # one of kmeans, one of slow, for each seed


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What a run on this machine gives."""
    with Place(tmp_path_factory.mktemp("calm")) as place:
        return run_to_the_end(place, WORDS, PLUGINS)


@contextlib.contextmanager
def started(place: Place, program: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler or a worker of dask, which works for `place` as its environment says."""
    home = {"HOME": str(place.folder), "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s"}
    with (place.folder / f"{program}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{program}", *words, "--no-dashboard"],
            cwd=place.folder,
            env=place.environment | home,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def cluster(folder: Path, *nodes: Place) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The options of a run on a scheduler with a worker for each node, and that scheduler."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(Place(folder / "scheduler"))
        options = ("--host", "127.0.0.1", "--port", str(port))
        scheduler = stack.enter_context(started(own, "dask_scheduler", *options))
        for node in nodes:
            only = ("--nthreads", "1", "--no-nanny", "--memory-limit", "0")
            stack.enter_context(started(node, "dask_worker", address, *only))
        wait_for("the workers", lambda: all(is_registered(node) for node in nodes), 60)
        yield f"--backend dask --scheduler {address}", scheduler


def is_registered(node: Place) -> bool:
    return "Registered to" in node.read("dask_worker.log")


def test_nodes_that_share_nothing_give_the_same_though_one_dies(
    tmp_path: Path, calm: Outcomes
) -> None:
    began = time.monotonic()
    with (
        Place(tmp_path / "run") as place,
        Place(tmp_path / "a") as a,
        Place(tmp_path / "b") as b,
        cluster(tmp_path, a, b) as (options, _),
        place.start(f"{WORDS} {options}", *PLUGINS) as runner,
    ):
        wait_for("two records", lambda: len(place.files()) >= 2)
        for process in a.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # one worker is left, which starts a new process for each of the jobs
        out, err = runner.communicate(timeout=4 * DEADLINE_SECONDS)
        assert (runner.returncode, err) == (0, ""), out + err
        assert (
            "2 workers, 2 jobs at a time; they keep data and stages in caches of their own" in out
        )
        assert outcomes(place) == calm
        assert not (place.folder / "cache" / "fits").exists()
        assert len(list((b.folder / "cache" / "fits").glob("*/facts.json"))) > 0
    print(f"\ndeath of a dask worker: all {len(calm)} files; {time.monotonic() - began:.0f} s")


def test_a_scheduler_that_dies_ends_the_run_in_a_sentence(tmp_path: Path, calm: Outcomes) -> None:
    began = time.monotonic()
    with Place(tmp_path / "run") as place, Place(tmp_path / "a") as a:
        with (
            cluster(tmp_path, a) as (options, scheduler),
            place.start(f"{WORDS} {options}", *PLUGINS) as runner,
        ):
            wait_for("two records", lambda: len(place.files()) >= 2)
            scheduler.kill()
            out, err = runner.communicate(timeout=DEADLINE_SECONDS)
        assert runner.returncode == 1, out + err
        assert err.startswith("stopped, because the dask scheduler is gone"), err
        assert err.endswith("the same command goes on from there\n")
        assert err.count("\n") == 1
        kept = check_kept(place, calm)
        assert 2 <= kept < len(calm)
        run_to_the_end(place, WORDS, PLUGINS, calm)
    print(
        f"\ndeath of the dask scheduler: {kept} of {len(calm)} files kept, the others made "
        f"afterwards; {time.monotonic() - began:.0f} s"
    )


def test_nodes_that_share_the_folders_make_each_stage_once(tmp_path: Path, calm: Outcomes) -> None:
    with (
        Place(tmp_path / "run") as place,
        Place(tmp_path / "a") as a,
        Place(tmp_path / "b") as b,
    ):
        for node in (a, b):
            node.environment["BENCH_CACHE"] = place.environment["BENCH_CACHE"]
        with cluster(tmp_path, a, b) as (options, _):
            ended = place.run(f"{WORDS} {options}", *PLUGINS)
        assert ended.status == 0, ended.text
        assert "they share the folders of this run" in ended.out
        assert outcomes(place) == calm
        stages = (place.folder / "cache" / "stages").glob("*/*/facts.json")
        assert len(list(stages)) == STAGES
        assert list((place.folder / "cache" / "fits").glob("*/facts.json"))
