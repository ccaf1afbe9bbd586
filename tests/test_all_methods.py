"""Every method of ``--all`` through the suite: on digits, and one on the real images."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
import pytest

import bench
from bench.running import forkserver
from bench.running.runner import Summary
from methods import registry

# The whole of ``--all``, and some of it twice more: more processes than the usual limit allows for.
pytestmark = pytest.mark.timeout(1200)
LEVELS = ["0%", "10%"]
# Of five families; some share stages with others, some do not.
ONE_OF_EACH = ["ss-scan", "poisson-mbo", "kmeans-percentile", "ss-dcec", "spread-and-match"]
TABLES = ["acc_all", "nmi_all", "acc_unlabelled", "accuracy_unlabelled", "accuracy_labelled"]


def run(folder: Path, cache: Path, **wishes: object) -> tuple[Summary, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(cache))
        summary = bench.run(results=folder, **wishes)
    return summary, bench.load_results(folder)


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, pd.DataFrame, Path]:
    folder = tmp_path_factory.mktemp("two-seeds")
    wishes = {"dataset": "digits", "schedule": "smoke"}
    several = {"methods": ONE_OF_EACH, "levels": LEVELS[1:], "seeds": 2}
    run(folder / "results", folder / "cache", **several, **wishes)
    summary, table = run(folder / "results", folder / "cache", levels=LEVELS, **wishes)
    return summary, table, folder


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Some once more, with labels, in an empty cache, another order, and with another hash seed."""
    folder = tmp_path_factory.mktemp("again")
    wishes = {"dataset": "digits", "levels": LEVELS[1:], "schedule": "smoke"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forkserver, "subprocess", subprocess)  # a new process, not a warm one
        patch.setenv("PYTHONHASHSEED", "1")
        return run(folder / "results", folder / "cache", methods=ONE_OF_EACH, **wishes)[1]


def by_trial(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    one = table[(table["seed"] == seed) & (table["status"] == "ok")]
    return one.set_index(["method", "level"])[TABLES].sort_index()


@pytest.mark.slow
def test_all_end_well(two_seeds: tuple[Summary, pd.DataFrame, Path]) -> None:
    summary, table, _ = two_seeds
    assert summary.exit_status == 0
    needing = {n for n in registry.names() if registry.get(n).tags.needs_labels}
    absent = table[table["status"] == "n/a"]
    assert set(zip(absent["method"], absent["level"], strict=True)) == {
        (name, "0%") for name in needing if registry.get(name).tags.in_all
    }
    assert (table[table["status"] == "ok"]["headline"] > 0.1).all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_labels(
    two_seeds: tuple[Summary, pd.DataFrame, Path], again: pd.DataFrame
) -> None:
    first, second = (by_trial(table, 0).xs("10%", level="level") for table in (two_seeds[1], again))
    assert len(second) == len(ONE_OF_EACH)
    pd.testing.assert_frame_equal(first.loc[second.index], second)


@pytest.mark.slow
def test_another_seed_gives_others(two_seeds: tuple[Summary, pd.DataFrame, Path]) -> None:
    """Of the methods that are run twice."""
    first, second = (by_trial(two_seeds[1], seed).xs("10%", level="level") for seed in (0, 1))
    assert len(second) == len(ONE_OF_EACH)
    assert (first.loc[second.index, "nmi_all"] != second["nmi_all"]).all()


@pytest.mark.slow
def test_the_autoencoder_is_trained_once_per_seed(
    two_seeds: tuple[Summary, pd.DataFrame, Path],
) -> None:
    stages = two_seeds[2] / "cache" / "stages"
    assert len([path for path in (stages / "autoencoder").iterdir() if path.is_dir()]) == 2


@pytest.mark.slow
def test_what_has_nothing_better_says_so(two_seeds: tuple[Summary, pd.DataFrame, Path]) -> None:
    table = two_seeds[1]
    unlabelled = table[table["level"] == "0%"].set_index(["method", "seed"])
    same = unlabelled["same_as"].dropna()
    assert same["ss-dcec"].tolist() == ["dcec"]
    for (method, seed), other in same.items():
        pair = unlabelled.loc[[(method, seed), (other, seed)], "acc_all"]
        assert pair.nunique() == 1


@pytest.mark.real
def test_a_number_people_know(tmp_path: Path) -> None:
    """Logistic regression on 700 labels of the real images; sketches measured 0.798."""
    wishes = {"methods": ["supervised-lr"], "levels": ["1%"], "seeds": 1}
    summary, table = run(tmp_path / "results", tmp_path / "cache", **wishes)
    assert summary.exit_status == 0
    assert table["n_labels"].tolist() == [700]
    assert 0.77 < table["accuracy_unlabelled"].item() < 0.82
