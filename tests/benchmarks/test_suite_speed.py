"""What the suite itself costs: the command, a trial, the leaderboard. No peer, but limits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.levels import LEVELS
from bench.core.trial import Trial
from bench.records.leaderboard import leaderboard, write_csv
from bench.records.store import Store, file_text
from benchmarks.harness import WHOLE, Round, timed

TRIVIAL = Path(__file__).with_name("trivial_method.py")
N_TRIALS = 3  # of the longer of two runs
N_SEEDS = 50
N_RECORDS = 10_000


def bench(*words: str, cache: Path | None = None) -> None:
    """Run the command; a failure shows what it wrote."""
    environment = os.environ | ({"BENCH_CACHE": str(cache)} if cache else {})
    command = [sys.executable, "-m", "bench", *words]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_help(versus: Callable[..., Any]) -> None:
    bench("--help")  # files that are read for the first time are no cost of ours
    versus("bench --help", {"": timed(lambda: bench("--help"))}, rounds=10, at_most={WHOLE: 0.4})


@pytest.mark.parametrize("dataset", ["digits", "fashion-mnist"])
def test_trial(
    versus: Callable[..., Any], scale: Any, tmp_path: Path, request: Any, dataset: str
) -> None:
    """A trial more costs what runs of 1 and of `N_TRIALS` trials differ by, for each of them."""
    if scale.tiny and dataset != "digits":
        pytest.skip("--tiny: digits stands for all data")
    words = ["run", "--plugin", str(TRIVIAL), "--method", "trivial", "--level", "5%"]
    words += ["--dataset", dataset]
    bench(*words, "--results", str(tmp_path / "first"), cache=tmp_path)  # copies the images

    def run(n_seeds: int) -> float:
        results = tmp_path / f"{n_seeds}-{time.monotonic_ns()}"
        start = time.perf_counter()
        more = ["--seeds", str(n_seeds), "--rerun", "all", "--results", str(results)]
        bench(*words, *more, cache=tmp_path)
        return time.perf_counter() - start

    def one_round() -> Round:
        one, several = run(1), run(N_TRIALS)
        each = (several - one) / (N_TRIALS - 1)
        return Round({"a run of one trial": one, "every further trial": each})

    versus(
        f"the suite's part of a trial on {dataset}",
        {"": one_round},
        rounds=3,
        at_most={"every further trial": 5},
    )


def test_leaderboard(
    versus: Callable[..., Any], scale: Any, tmp_path: Path, make_record: Callable[..., Any]
) -> None:
    n_records = write_records(tmp_path, make_record, 2 if scale.tiny else N_SEEDS)

    def one_leaderboard() -> None:
        write_csv(leaderboard(tmp_path), tmp_path / "leaderboard.csv")

    work = f"leaderboard of {n_records:,} records"
    versus(work, {"": timed(one_leaderboard)}, rounds=5, at_most={WHOLE: 3})


def write_records(folder: Path, make_record: Callable[..., Any], n_seeds: int) -> int:
    """Records of as many methods as make `N_RECORDS` of `N_SEEDS` seeds at all levels.

    They are as long as real ones: ten classes, and a history of 60 rows.
    """
    rng, store = np.random.default_rng(0), Store(folder)
    values = {"n": 70_000, "acc": 0.5, "accuracy": 0.5, "nmi": 0.5, "ari": 0.25, "purity": 0.75}
    values |= {"recall": [0.1] * 10, "contingency": [[700] * 11] * 10}
    parts = {"subsets": {name: values for name in ("all", "labelled", "unlabelled")}}
    parts["history"] = [{"stage": "autoencoder", "epoch": i, "loss": 0.0125} for i in range(60)]
    places = [
        (f"method-{i}", level, seed)
        for i in range(N_RECORDS // N_SEEDS // len(LEVELS))
        for level in LEVELS
        for seed in range(n_seeds)
    ]
    for method, level, seed in places:
        record = make_record(rng.random(), parts, method=method, level=level, seed=seed)
        path = store.path(Trial.from_json(record["trial"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file_text(record))  # `Store.write` would wait for the disk each time
    return len(places)
