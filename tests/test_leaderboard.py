"""The leaderboard: what is averaged, what is ranked, what is said to be uncertain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.records.leaderboard import Cell, aggregate, boards, leaderboard, markdown, write_csv
from bench.records.scoring import make
from bench.records.store import Store, flatten_record

MakeRecord = Callable[..., dict[str, Any]]
Build = Callable[..., pd.DataFrame]
COLUMNS = (  # as design.md has them: a change breaks whoever reads the file
    "dataset,protocol,selection,schedule,level,n_labels,method,variant,n_seeds,n_failed,rank,"
    "tied_with_best,headline_mean,headline_std,headline_low,headline_high,acc_all_mean,"
    "acc_all_std,acc_unlabelled_mean,accuracy_unlabelled_mean,accuracy_labelled_mean,"
    "nmi_all_mean,nmi_all_std,nmi_unlabelled_mean,ari_unlabelled_mean,purity_mean,"
    "accuracy_test_mean,accuracy_test_std,fit_seconds_median,stage_seconds_median,"
    "peak_memory_mib,device,"
    "family,uses_unlabelled,label_share,headline_metric,rank_low,rank_high,in_top_group,win_rate,"
    "win_rate_low,win_rate_high,gain_baseline,gain_seeds,gain_mean,gain_low,gain_high,"
    "labels_baseline,labels_for_supervised,labels_for_supervised_low,labels_for_supervised_high,"
    "area_mean,area_low,area_high,area_from,area_to,accelerator,precision_ran,threads,concurrency,"
    "commit,method_version,stage_versions,bench_version,python_version,torch_version,"
    "numpy_version,scipy_version,scikit_learn_version"
)
TEXTS = {
    *("dataset", "protocol", "selection", "schedule", "level", "method", "variant"),
    *("tied_with_best", "device", "headline_metric"),
}
BEST = [0.80, 0.82, 0.84, 0.81, 0.83]


@pytest.fixture
def build(make_record: MakeRecord) -> Build:
    """``build({"a": [.8, .9], "b": [.7, None]})``: their leaderboard; None is a failure."""

    def of(*groups: dict[str, list[float | None]], **fields: Any) -> pd.DataFrame:
        records = [
            make_record(value, method=method, seed=seed, **fields)
            for group in groups
            for method, values in group.items()
            for seed, value in enumerate(values)
        ]
        return table_of(records)

    return of


def table_of(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return aggregate(pd.DataFrame([flatten_record(record) for record in records]))


def row_of(table: pd.DataFrame, method: str, level: str = "5%") -> pd.Series:
    (found,) = (row for _, row in table.iterrows() if (row.method, row.level) == (method, level))
    return found


def not_applicable(trial: Trial) -> dict[str, Any]:
    error = {"message": "there are no labels", "traceback": None}
    return make(trial, "n/a", n_labels=0, error=error, environment={"device": "cpu"})


# --- Over seeds ----------------------------------------------------------------------------------


def test_a_row_over_seeds(build: Build) -> None:
    row = row_of(build({"a": BEST}), "a")
    assert row["n_seeds"] == 5
    assert row["n_failed"] == 0
    assert (row["n_labels"], row["label_share"]) == (5, 0.5)
    assert row["headline_metric"] == "accuracy on unlabelled"
    assert row["headline_mean"] == row["accuracy_unlabelled_mean"] == pytest.approx(0.82)
    assert row["headline_std"] == row["acc_all_std"] == pytest.approx(0.0158114)
    assert row["headline_high"] - row["headline_mean"] == pytest.approx(0.0196324, abs=1e-6)
    assert row["nmi_all_mean"] == 0.25
    assert row["nmi_all_std"] == 0
    assert (row["ari_unlabelled_mean"], row["purity_mean"]) == (0.125, 0.75)
    assert (row["fit_seconds_median"], row["stage_seconds_median"]) == (2, 3)
    assert (row["peak_memory_mib"], row["device"]) == (100, "cpu")
    assert math.isnan(row["accuracy_test_mean"])  # a transductive trial has no test images


def test_times_are_medians(make_record: MakeRecord) -> None:
    cost = {"stage_seconds": 0.0, "peak_memory_mib": 1.0}
    records = [
        make_record(parts={"cost": cost | {"fit_seconds": seconds}}, seed=seed)
        for seed, seconds in enumerate([1.0, 2.0, 90.0])
    ]
    assert row_of(table_of(records), "tiny")["fit_seconds_median"] == 2


def test_one_seed_is_said(build: Build) -> None:
    table = build({"a": [0.8], "b": [0.7]})
    assert table[["headline_low", "headline_high", "headline_std"]].isna().all(axis=None)
    assert table["tied_with_best"].isna().all()
    (board,) = boards(table)
    assert any(note.startswith("One seed: no intervals") for note in board.notes)
    assert [row[1] for row in board.rows] == [Cell(".800", best=True), Cell(".700")]


def test_a_failed_trial_is_counted_and_not_averaged(build: Build) -> None:
    table = build({"a": [0.8, None, 0.84], "b": [None, None]})
    row = row_of(table, "a")
    assert (row["n_seeds"], row["n_failed"]) == (2, 1)
    assert row["headline_mean"] == pytest.approx(0.82)
    lost = row_of(table, "b")
    assert (lost["n_seeds"], lost["n_failed"]) == (0, 2)
    assert pd.isna(lost[["headline_mean", "rank", "tied_with_best", "fit_seconds_median"]]).all()
    (board,) = boards(table)
    cells = {cells[0].text: cells[1] for cells in board.rows}
    assert cells["a"].remark == " (1 failed)"
    assert cells["b"] == Cell("failed (2)")


@pytest.mark.parametrize("status", ["failed", "timeout", "out-of-memory", "crashed"])
def test_every_kind_of_failure_is_counted(make_record: MakeRecord, status: str) -> None:
    table = table_of([make_record(None, {"status": status}), make_record(0.5, seed=1)])
    assert row_of(table, "tiny")["n_failed"] == 1


def test_what_does_not_apply_is_no_failure(
    make_record: MakeRecord, make_trial: Callable[..., Trial]
) -> None:
    records = [
        not_applicable(make_trial(method="supervised", level="0%")),
        make_record(method="supervised"),
        make_record(method="tiny", level="0%"),
        make_record(method="tiny"),
    ]
    table = table_of(records)
    row = row_of(table, "supervised", "0%")
    assert (row["n_seeds"], row["n_failed"]) == (0, 0)
    assert pd.isna(row["rank"])
    (board,) = boards(table)
    cells = {row[0].text: row[1:3] for row in board.rows}
    assert cells["supervised"][0] == Cell("n/a")
    assert board.columns[:3] == ["method", "0%", "5%"]


# --- Ranks ---------------------------------------------------------------------------------------


def test_ranks_and_ties(build: Build) -> None:
    """`best` is 0.82 on average; the differences to it are in test_statistics.py."""
    table = build(
        {
            "far": [0.70, 0.71, 0.72, 0.71, 0.71],
            "near": [0.799, 0.818, 0.837, 0.808, 0.828],
            "best": BEST,
            "unsure": [0.83, 0.78, 0.80, 0.81, 0.82],
            "twin": BEST,
        }
    )
    assert list(table["method"]) == ["best", "twin", "near", "unsure", "far"]
    assert list(table["rank"]) == [1, 1, 3, 4, 5]
    ties = [None if pd.isna(tie) else tie for tie in table["tied_with_best"]]
    assert ties == [None, None, "tied", "undecided", "no"]
    assert list(table["in_top_group"]) == [True, True, True, True, False]
    (board,) = boards(table)
    cells = {row[0].text: row[1] for row in board.rows}
    assert cells["best"] == Cell(".820±.020", best=True)
    assert (cells["near"].remark, cells["unsure"].remark) == ("≈", "?")
    assert cells["far"] == Cell(".710±.009")
    assert any("tied with the best" in note for note in board.notes)


def test_two_to_four_seeds_have_intervals_and_no_verdict(build: Build) -> None:
    table = build({"best": BEST[:4], "near": BEST[:4], "far": [0.1, 0.1, 0.1, 0.1]})
    assert table["headline_low"].notna().all()
    assert table[["tied_with_best", "in_top_group"]].isna().all(axis=None)
    (board,) = boards(table)
    assert [row[1].remark for row in board.rows] == ["", "", ""]
    assert any(note.startswith("± half") for note in board.notes)
    assert not any("tied" in note for note in board.notes)


def test_the_half_interval_of_a_cell_is_not_cut_where_the_interval_is(build: Build) -> None:
    """0.95 ± 0.635 (t(0.975, 1) = 12.7062) ends at 1."""
    table = build({"a": [0.9, 1.0]})
    assert (table["headline_low"][0], table["headline_high"][0]) == pytest.approx((0.31469, 1))
    (board,) = boards(table)
    assert board.rows[0][1].text == ".950±.635"


def test_levels_are_ranked_apart_and_ordered_by_size(make_record: MakeRecord) -> None:
    values = {"0%": (0.1, 0.2), "10%": (0.4, 0.3), "5%": (0.3, 0.2), "500": (0.1, 0.9)}
    records = [
        make_record(value, method=method, level=level)
        for level, pair in values.items()
        for method, value in zip("ab", pair, strict=True)
    ]
    table = table_of(records)
    order = [tuple(row) for row in table[["level", "method", "rank"]].to_numpy()]
    assert order == [
        ("0%", "b", 1),
        ("0%", "a", 2),
        ("5%", "a", 1),
        ("5%", "b", 2),
        ("10%", "a", 1),
        ("10%", "b", 2),
        ("500", "b", 1),
        ("500", "a", 2),
    ]


def test_numbers_of_labels_are_a_board_of_their_own(make_record: MakeRecord) -> None:
    values = {"0%": (0.1, 0.2), "5%": (0.4, 0.3), "10": (0.1, 0.9), "500": (0.2, 0.8)}
    records = [
        make_record(value, method=method, level=level)
        for level, pair in values.items()
        for method, value in zip("ab", pair, strict=True)
    ]
    shares, counts = boards(table_of(records))
    assert shares.columns[1:3] == ["0%", "5%"]
    assert counts.columns[1:3] == ["10", "500"]
    assert counts.title == f"{shares.title} · numbers of labels"
    assert [row[0].text for row in shares.rows] == ["a", "b"]
    assert [row[0].text for row in counts.rows] == ["b", "a"]
    (alone,) = boards(table_of(records[-2:]))
    assert alone.title == shares.title


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [
        ("dataset", "toy", "digits"),
        ("protocol", "transductive", "inductive"),
        ("selection", "stratified", "representative"),
        ("schedule", "quick", "paper"),
    ],
)
def test_settings_are_never_ranked_together(
    make_record: MakeRecord, field: str, one: str, other: str
) -> None:
    records = [
        make_record(value, method=method, seed=seed, **{field: setting})
        for setting, shift in ((one, 0.0), (other, 0.4))
        for method, mean in (("a", 0.3), ("b", 0.2))
        for seed, value in enumerate([mean + shift, mean + shift + 0.01])
    ]
    table = table_of(records)
    assert len(table) == 4
    for setting in (one, other):
        ranks = table[table[field] == setting].set_index("method")["rank"].to_dict()
        assert ranks == {"a": 1, "b": 2}
    found = boards(table)
    assert len(found) == 2
    assert all(len(board.rows) == 2 for board in found)
    words = [word for board in found for word in board.title.split() if word in (one, other)]
    assert sorted(words) == sorted([one, other])


def test_a_variant_is_a_row_without_rank(make_record: MakeRecord) -> None:
    """The best of many would be chosen by hidden labels, and push others down."""
    changed = {"variant": {"lam": 0.5}, "params": {"lam": 0.5}}
    table = table_of(
        make_record(value, method=method, **fields)
        for method, value, fields in (
            ("tiny", 0.5, {}),
            ("other", 0.4, {}),
            ("tiny", 0.6, changed),
            ("other", 0.45, changed),
        )
    )
    assert list(table["variant"]) == ["", "", "lam=0.5", "lam=0.5"]
    assert list(table["method"]) == ["tiny", "other", "tiny", "other"]
    assert list(table["rank"].astype(object)) == [1, 2, pd.NA, pd.NA]
    (board,) = boards(table)
    names = ["tiny", "other", "other lam=0.5", "tiny lam=0.5"]
    assert [row[0].text for row in board.rows] == names
    assert [row[1].best for row in board.rows] == [True, False, False, False]
    assert any(note.startswith("Variants are not ranked") for note in board.notes)


def test_a_method_of_an_explicit_precision_alone_is_ranked_by_it(make_record: MakeRecord) -> None:
    """``bench run --all --precision fp32`` gives no other rows."""
    records = [
        make_record(0.5, precision="fp32"),
        make_record(0.6, precision="bf16"),
        make_record(0.9, precision="bf16", variant={"lam": 1}, params={"lam": 1}),
        make_record(0.7, method="other", precision="fp32"),
        make_record(0.8, method="plain"),
        make_record(0.9, method="plain", precision="bf16"),
    ]
    table = table_of(records)
    ranked = table[table["rank"].notna()]
    assert list(ranked["method"]) == ["plain", "other", "tiny"]
    assert list(ranked["variant"]) == ["", "precision=fp32", "precision=bf16"]
    assert list(ranked["rank"]) == [1, 2, 3]


def test_seeds_of_different_trials_have_no_mean(make_record: MakeRecord) -> None:
    same = [make_record(), make_record(seed=1, params={"n_clusters": 2.0})]
    assert len(table_of(same)) == 1  # 2 and 2.0 are two identities, but equal
    for changes, what in (
        ({"dataset_digest": "4567"}, "images"),
        ({"params": {"n_clusters": 3, "lam": None}}, r"parameters \(lam, n_clusters\)"),
    ):
        others = [make_record(None, seed=seed, **changes) for seed in (2, 3)]
        sentence = f"-quick/tiny/5% seed 2, 3 differs from seed 0 in its {what}"
        with pytest.raises(BenchError, match=f"trials/toy/transductive-stratified{sentence}"):
            table_of([*others, *same])


def test_mean_ranks(make_record: MakeRecord) -> None:
    """Over the levels above 0, of those that have one at each of them and are no copies."""
    values: dict[str, dict[str, float | None]] = {
        "good": {"0%": 0.1, "5%": 0.9, "10%": 0.8},
        "better": {"0%": 0.2, "5%": 0.8, "10%": 0.9},
        "copy": {"0%": 0.3, "5%": 0.7, "10%": 0.7},
        "broken": {"0%": 0.4, "5%": None, "10%": 0.6},
        "worse": {"0%": 0.5, "5%": 0.5, "10%": 0.5},
    }
    records = [
        make_record(
            value, {"same_as": "good"} if (method, level) == ("copy", "5%") else {}, method=method,
            level=level,
        )
        for method, row in values.items()
        for level, value in row.items()
    ]  # fmt: skip
    (board,) = boards(table_of(records))
    place = board.columns.index("mean rank")
    assert [(row[0].text, row[place].text) for row in board.rows] == [
        ("better", "1.5"),
        ("good", "1.5"),
        ("worse", "4.5"),
        ("broken", ""),
        ("copy", ""),
    ]
    cells = {row[0].text: row[board.columns.index("5%")] for row in board.rows}
    assert cells["copy"] == Cell(".700", remark=" (= good)")
    assert cells["good"] == Cell(".900", best=True)
    assert any(note.startswith("(= x)") for note in board.notes)


def test_level_0_has_no_part_in_mean_ranks(make_record: MakeRecord) -> None:
    (board,) = boards(table_of([make_record(level="0%")]))
    assert board.rows[0][board.columns.index("mean rank")] == Cell()


# --- The file and the table ----------------------------------------------------------------------


def many(make_record: MakeRecord) -> list[dict[str, Any]]:
    """Records of two boards, three methods, two levels and four seeds, one of them failed."""
    noise = np.random.default_rng(0)
    return [
        make_record(
            None if (method, seed) == ("c", 2) else float(noise.uniform()),
            {"same_as": "a"} if (method, level) == ("b", "0%") else {},
            method=method,
            seed=seed,
            level=level,
            schedule=schedule,
        )
        for schedule in ("quick", "paper")
        for method in "abc"
        for level in ("0%", "5%")
        for seed in range(4)
    ]


@settings(max_examples=5)
@given(random=st.randoms(use_true_random=False))
def test_the_file_does_not_depend_on_the_order_of_records(
    make_record: MakeRecord, tmp_path_factory: pytest.TempPathFactory, random: Any
) -> None:
    folder = tmp_path_factory.mktemp("order")
    records = many(make_record)
    write_csv(table_of(records), folder / "one.csv")
    random.shuffle(records)
    write_csv(table_of(records), folder / "other.csv")
    assert (folder / "one.csv").read_bytes() == (folder / "other.csv").read_bytes()


def test_the_file_has_the_designed_columns_and_numbers(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    place = Store(tmp_path)
    for record in many(make_record):
        place.write(record)
    write_csv(leaderboard(tmp_path), tmp_path / "leaderboard.csv")
    text = (tmp_path / "leaderboard.csv").read_text()
    assert text.splitlines()[0] == COLUMNS
    assert "±" not in text
    assert "\r" not in text
    table = pd.read_csv(tmp_path / "leaderboard.csv", keep_default_na=False, na_values=[""])
    assert len(table) == 12
    for name in set(COLUMNS.split(",")) - TEXTS:
        assert pd.api.types.is_numeric_dtype(table[name]), name
    for name in ("n_labels", "n_seeds", "n_failed", "rank", "method_version"):
        assert pd.api.types.is_integer_dtype(table[name]), name
    assert list(table["headline_mean"]) == pytest.approx(
        list(leaderboard(tmp_path)["headline_mean"]), rel=1e-5
    )
    assert list(table["level"].unique()) == ["0%", "5%"]


def test_what_does_not_apply_is_empty(build: Build, tmp_path: Path) -> None:
    write_csv(build({"a": [None]}), tmp_path / "leaderboard.csv")
    header, row = (tmp_path / "leaderboard.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert {name for name, cell in cells.items() if cell} == {
        *("dataset", "protocol", "selection", "schedule", "level", "n_labels", "method"),
        *("n_seeds", "n_failed", "label_share"),
    }


def test_a_table_for_markdown(build: Build) -> None:
    (board,) = boards(build({"b": [0.7], "a": [0.8]}))
    lines = markdown(board).splitlines()
    assert lines[0] == "**toy · transductive · stratified labels · schedule quick**"
    assert lines[2:6] == [
        "| method | 5% | mean rank | fit s | shared s |",
        "| --- | --- | --- | --- | --- |",
        "| a | **.800** | 1.0 | 2.0 | 3.0 |",
        "| b | .700 | 2.0 | 2.0 | 3.0 |",
    ]
    assert lines[7:] == board.notes


def test_a_text_parameter_ends_no_column_of_markdown(build: Build) -> None:
    (board,) = boards(build({"a linkage='x|y'": [0.8]}))
    row = markdown(board).splitlines()[4]
    assert row == r"| a linkage='x\|y' | **.800** | 1.0 | 2.0 | 3.0 |"


def test_seconds_of_a_gpu_are_marked(build: Build) -> None:
    """Beside those of a processor they would be read as the method's own speed."""
    table = build({"b": [0.7], "a": [0.8]})
    table.loc[table["method"] == "a", "device"] = "cuda"
    (board,) = boards(table)
    assert markdown(board).splitlines()[4:6] == [
        "| a | **.800** | 1.0 | 2.0 gpu | 3.0 gpu |",
        "| b | .700 | 2.0 | 2.0 | 3.0 |",
    ]
    assert any(note.startswith("gpu: seconds of a GPU, not comparable") for note in board.notes)


@pytest.mark.parametrize(
    ("devices", "expected"), [("cgg", ("cuda", 30)), ("ccg", ("cpu", 1)), ("gc", ("cpu", 1))]
)
def test_seconds_are_of_one_device(
    make_record: MakeRecord, devices: str, expected: tuple[str, float]
) -> None:
    """A row's, and a board's over its levels: of the one that is there most often."""
    seconds, names = {"c": 1.0, "g": 30.0}, {"c": "cpu", "g": "cuda"}

    def made(one: str, **fields: Any) -> dict[str, Any]:
        cost = {"fit_seconds": seconds[one], "stage_seconds": 0.0, "peak_memory_mib": seconds[one]}
        parts = {"cost": cost, "environment": {"device": names[one]}}
        return make_record(0.5, parts, **fields)

    row = row_of(table_of(made(one, seed=seed) for seed, one in enumerate(devices)), "tiny")
    assert (row["device"], row["fit_seconds_median"]) == expected
    assert row["peak_memory_mib"] == expected[1]
    levels = [made(one, level=f"{5 + i}%") for i, one in enumerate(devices)]
    (board,) = boards(table_of(levels))
    gpu = " gpu" if expected[0] == "cuda" else ""
    assert board.rows[0][-2] == Cell(f"{expected[1]:.1f}", remark=gpu)


@pytest.mark.parametrize(
    ("protocol", "images"), [("transductive", "unlabelled"), ("inductive", "test")]
)
def test_the_notes_say_what_the_headline_is(build: Build, protocol: str, images: str) -> None:
    (board,) = boards(build({"a": [0.8]}, protocol=protocol))
    assert f"both on the {images} images" in board.notes[0]


def test_an_empty_store_has_an_empty_leaderboard(tmp_path: Path) -> None:
    table = leaderboard(tmp_path)
    assert table.empty
    assert boards(table) == []
    write_csv(table, tmp_path / "leaderboard.csv")
    assert (tmp_path / "leaderboard.csv").read_text() == COLUMNS + "\n"


def test_no_results_no_leaderboard() -> None:
    with pytest.raises(BenchError, match="there is no results folder"):
        leaderboard("nowhere")
