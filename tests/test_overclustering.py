"""More clusters than classes, from the fit to the leaderboard."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from bench.core import splits
from bench.core.metrics import contingency_matrix
from bench.core.trial import Grid
from bench.data import datasets
from bench.records.leaderboard import Board, aggregate, boards, leaderboard, markdown, write_csv
from bench.records.scoring import Record
from bench.records.store import Store, flatten_record
from bench.running.job import Job
from bench.running.stages import ArrayStore
from bench.running.worker import Worker
from methods import registry

LEVELS = ("0%", "20%")
K = 20  # clusters of the ten classes


@dataclass(frozen=True)
class Measured:
    """Records by method and level, the labels of their fits by the same, and the truth."""

    records: dict[tuple[str, str], Record]
    arrays: dict[tuple[str, str], dict[str, np.ndarray]]
    y: np.ndarray
    results: Path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Two methods with 20 clusters and one with ten, carried out as a run does, in this process."""
    assert registry.discover() == []
    folder = tmp_path_factory.mktemp("over")
    source, results, cache = folder / "digits.npz", folder / "results", folder / "cache"
    digits = load_digits()
    X = (digits.images[:240] * 15.9).astype(np.uint8)
    np.savez(source, X=X, y=digits.target[:240])
    data = datasets.load(str(source))
    entries = tuple(registry.get(name) for name in ("scan", "ss-scan", "kmeans"))
    changes = {name: {"n_clusters": K} for name in ("scan", "ss-scan")}
    grid = Grid(
        data.name, data.digest, data.n_classes, entries, LEVELS, schedule="smoke", changes=changes
    )
    records, arrays = {}, {}
    for trial in grid.trials():
        Worker(Job((trial,), str(source), str(results), str(cache)), lambda event: None).run()
        record = Store(results).read(trial)
        assert record is not None
        assert record["status"] == "ok", record
        records[trial.method, trial.level] = record
        found = ArrayStore(cache / "fits").read(record["fit"])
        assert found is not None
        arrays[trial.method, trial.level] = found[0]
    return Measured(records, arrays, data.y, results)


# --- A method that ignores labels ----------------------------------------------------------------


def test_without_labels_there_is_purity_and_no_headline(measured: Measured) -> None:
    record = measured.records["scan", "0%"]
    assert (record["headline"], record["headline_is"]) == (None, "purity, not ranked")
    assert record["cluster_names"] is None
    values = record["subsets"]["unlabelled"]
    table = contingency_matrix(measured.y, measured.arrays["scan", "0%"]["labels"], n_clusters=K)
    np.testing.assert_array_equal(values["contingency"], table)
    assert values["purity"] == pytest.approx(table.max(axis=0).sum() / len(measured.y), abs=1e-6)
    assert values["purity"] > values["acc"]
    assert values["accuracy"] is None


def test_with_labels_each_cluster_takes_the_class_of_most_of_its_labelled_members(
    measured: Measured,
) -> None:
    record = measured.records["scan", "20%"]
    clusters = measured.arrays["scan", "20%"]["labels"]
    labelled = splits.labelled_indices(measured.y, record["n_labels"], "stratified", 0)
    names = record["cluster_names"]
    assert len(names) == len(record["cluster_sizes"]) == K
    for cluster, name in enumerate(names):
        votes = np.bincount(measured.y[labelled][clusters[labelled] == cluster], minlength=10)
        assert name == (votes.argmax() if votes.any() else -1)
    used = [name for name in names if name >= 0]
    assert len(used) > len(set(used)), "clusters share a class"
    hidden = np.setdiff1d(np.arange(len(measured.y)), labelled)
    right = np.array(names)[clusters[hidden]] == measured.y[hidden]
    assert record["headline"] == pytest.approx(right.mean(), abs=1e-6)
    assert record["headline_is"] == "accuracy on unlabelled"


# --- A method that maps its clusters to classes itself -------------------------------------------


def test_ss_scan_maps_its_clusters_and_keeps_them(measured: Measured) -> None:
    record, arrays = measured.records["ss-scan", "20%"], measured.arrays["ss-scan", "20%"]
    clusters, classes = arrays["clusters"], arrays["labels"]
    assert clusters.max() >= 10
    assert set(classes.tolist()) <= set(range(10))
    for cluster in np.unique(clusters):
        assert len(np.unique(classes[clusters == cluster])) == 1
    assert record["cluster_names"] is None  # they have their names
    assert np.shape(record["subsets"]["all"]["contingency"]) == (10, 11)
    assert record["headline"] == record["subsets"]["unlabelled"]["accuracy"] > 0.2


def test_ss_scan_without_labels_is_scan(measured: Measured) -> None:
    record, other = measured.records["ss-scan", "0%"], measured.records["scan", "0%"]
    assert record["same_as"] == "scan"
    assert record["subsets"] == other["subsets"]
    assert (record["headline"], record["headline_is"]) == (None, "purity, not ranked")


# --- The leaderboard -----------------------------------------------------------------------------


def cells_of(board: Board) -> dict[str, dict[str, str]]:
    """By method and column what a cell says, with its remark."""
    rows = [[cell.text + cell.remark for cell in row] for row in board.rows]
    return {row[0]: dict(zip(board.columns, row, strict=True)) for row in rows}


def test_the_leaderboard_shows_purity_and_does_not_rank_it(measured: Measured) -> None:
    write_csv(leaderboard(measured.results), measured.results / "leaderboard.csv")
    table = pd.read_csv(measured.results / "leaderboard.csv").set_index(["method", "level"])
    free = table.loc["scan", "0%"]
    assert free[["rank", "tied_with_best", "headline_mean", "headline_std"]].isna().all()
    purity = measured.records["scan", "0%"]["subsets"]["all"]["purity"]
    assert free["purity_mean"] == pytest.approx(purity, rel=1e-5)
    assert free["n_seeds"] == 1
    assert table.loc["kmeans", "0%"]["rank"] == 1
    ranks = table.xs("20%", level="level")["rank"]
    assert ranks["kmeans"] == 1
    assert ranks[["scan", "ss-scan"]].isna().all(), "variants"
    (board,) = boards(leaderboard(measured.results))
    cells = cells_of(board)
    shown = f"({purity:.3f} purity)".replace("0.", ".")
    assert cells["scan n_clusters=20"]["0%"] == shown
    assert cells["ss-scan n_clusters=20"]["0%"] == f"{shown} (= scan)"
    assert board.rows[[row[0].text for row in board.rows].index("kmeans")][1].best
    assert (cells["scan n_clusters=20"]["mean rank"], cells["kmeans"]["mean rank"]) == ("", "1.0")
    assert f"| {shown} |" in markdown(board)
    assert any(note.startswith("(x purity): more clusters than classes") for note in board.notes)


def table_of(records: list[dict[str, Any]]) -> pd.DataFrame:
    return aggregate(pd.DataFrame([flatten_record(record) for record in records]))


@pytest.mark.parametrize("headlines", [(None, None), (None, 0.9), (0.9, None)])
def test_a_row_with_a_seed_that_is_not_ranked_is_not(
    make_record: Callable[..., dict[str, Any]], headlines: tuple[float | None, ...]
) -> None:
    """A plugin may give more clusters than it was asked for with one seed and not with another."""
    records = [
        make_record(0.9, {"headline": headline}, seed=seed, level="0%")
        for seed, headline in enumerate(headlines)
    ]
    others = [make_record(value, method="other", level="0%", seed=seed) for seed, value in
              enumerate((0.5, 0.6))]  # fmt: skip
    table = table_of([*records, *others]).set_index("method")
    columns = ["headline_mean", "headline_std", "headline_low", "headline_high", "rank"]
    assert table.loc["tiny", columns].isna().all()
    assert table.loc["tiny", "purity_mean"] == 0.75
    assert table.loc["other", "rank"] == 1
    (board,) = boards(table_of([*records, *others]))
    assert cells_of(board)["tiny"]["0%"] == "(.750 purity)"


def test_failures_are_counted_beside_purity(make_record: Callable[..., dict[str, Any]]) -> None:
    records = [make_record(0.9, {"headline": None}, level="0%"), make_record(None, seed=1)]
    records.append(make_record(None, level="0%", seed=1))
    table = table_of(records)
    assert math.isnan(table["headline_mean"].iloc[0])
    (board,) = boards(table)
    assert cells_of(board)["tiny"]["0%"] == "(.750 purity) (1 failed)"


def test_boards_without_purity_do_not_explain_it(
    make_record: Callable[..., dict[str, Any]],
) -> None:
    (board,) = boards(table_of([make_record(0.5), make_record(None, method="lost")]))
    assert not any("purity" in note for note in board.notes)
