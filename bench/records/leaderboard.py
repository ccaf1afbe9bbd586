"""The leaderboard: records aggregated over seeds, ranked, as a CSV file and as a table."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.core.errors import BenchError
from bench.core.files import said_if_unwritable, write_text
from bench.core.levels import Level
from bench.records.scoring import FAILURES
from bench.records.standings import BOARD_KEYS, STANDINGS, add_standings
from bench.records.statistics import VERDICT_FROM, t_half, t_interval
from bench.records.store import load_results
from methods import registry

# fmt: off
COLUMNS = [
    "dataset", "protocol", "selection", "schedule", "level", "n_labels", "method", "variant",
    "n_seeds", "n_failed", "rank", "tied_with_best", "headline_mean", "headline_std",
    "headline_low", "headline_high", "acc_all_mean", "acc_all_std", "acc_unlabelled_mean",
    "accuracy_unlabelled_mean", "accuracy_labelled_mean", "nmi_all_mean", "nmi_all_std",
    "nmi_unlabelled_mean", "ari_unlabelled_mean", "purity_mean", "accuracy_test_mean",
    "accuracy_test_std", "fit_seconds_median", "stage_seconds_median", "peak_memory_mib",
    "device",
    # added later, at the end: who reads columns by their place is not disturbed
    "family", "uses_unlabelled", "label_share", "headline_metric", "rank_low", "rank_high",
    "in_top_group", "win_rate", "win_rate_low", "win_rate_high", "gain_baseline", "gain_seeds",
    "gain_mean", "gain_low", "gain_high", "labels_baseline", "labels_for_supervised",
    "labels_for_supervised_low", "labels_for_supervised_high", "area_mean", "area_low",
    "area_high", "area_from", "area_to", "accelerator", "precision_ran", "threads", "concurrency",
    "commit", "method_version", "stage_versions", "bench_version", "python_version",
    "torch_version", "numpy_version", "scipy_version", "scikit_learn_version",
]
OF_MACHINE = COLUMNS[COLUMNS.index("accelerator"):]
# fmt: on
GPU = " gpu"
TrialRow = dict[Hashable, Any]


def leaderboard(results: str | Path) -> pd.DataFrame:
    """One row per board, level and method variant, with the columns of ``leaderboard.csv``.

    Which methods are baselines, they say themselves: those that are not registered yet are looked
    for. One that is not found, of a plugin that is not at hand, has no family.

    Raises
    ------
    BenchError : no results folder, a file in it that is not a record, or records of one row that
        differ in more than their seed.
    """
    trials = load_results(results)
    if not trials.empty and not set(trials["method"]) <= set(registry.names()):
        _discover()
    return aggregate(trials)


@functools.cache
def _discover() -> None:
    """Register the methods, once: what is not found then will not be found the next time."""
    registry.discover()


def aggregate(trials: pd.DataFrame) -> pd.DataFrame:
    """`load_results`'s rows, aggregated over seeds and ranked within each board and level.

    Its ``level`` is a text here, and the rows are in the order of levels. How they stand to each
    other: `bench.records.standings`.

    A row has no headline and no rank where the trial of one of its seeds has no headline
    (`bench.records.scoring.headline`): a mean over the other seeds would be of another kind.

    Raises
    ------
    BenchError : the trials of one row differ in their images or parameters.
    """
    if trials.empty:
        return pd.DataFrame(columns=[*COLUMNS, "same_as"])
    keys = [*BOARD_KEYS, "level", "method", "variant"]
    trials = trials.astype({"level": str})
    trials = trials.sort_values([*keys, "seed"])  # sums of floats depend on their order
    grouped = groupby(trials.to_dict("records"), key=itemgetter(*keys))
    rows = [_row(dict(zip(keys, key, strict=True)), list(group)) for key, group in grouped]
    table = pd.DataFrame(rows)
    order = {level: Level.parse(level) for level in table["level"].unique()}
    positions = {level: i for i, level in enumerate(sorted(order, key=lambda x: order[x]))}
    table["_level"] = table["level"].map(positions)
    table = add_standings(table, trials)
    table["_low"] = -table["headline_mean"]  # a row without rank among the others without
    table = table.sort_values([*BOARD_KEYS, "_level", "rank", "_low", "method", "variant"])
    return table[[*COLUMNS, "same_as"]].reset_index(drop=True)


def _row(key: dict[str, Any], trials: list[TrialRow]) -> dict[str, Any]:
    """One variant at one level: its trials of all seeds as one row."""
    _check_alike(key, trials)
    good = [trial for trial in trials if trial["status"] == "ok"]
    headline = _numbers(good, "headline")
    if len(headline) < len(good):
        headline = headline[:0]
    low, high = t_interval(headline)
    device = _commonest(_there(good, "device"))
    timed = [trial for trial in good if trial["device"] == device]
    row: dict[str, Any] = key | {
        "n_labels": max(_numbers(trials, "n_labels"), default=math.nan),
        "label_share": max(_numbers(trials, "label_share"), default=math.nan),
        "headline_metric": _first(good, "headline_metric"),
        "n_seeds": len(good),
        "n_failed": sum(trial["status"] in FAILURES for trial in trials),
        "headline_mean": _mean(headline),
        "headline_std": _std(headline),
        "headline_low": low,
        "headline_high": high,
        "purity_mean": _mean(_numbers(good, "purity_all")),
        "fit_seconds_median": _median(_numbers(timed, "fit_seconds")),
        "stage_seconds_median": _median(_numbers(timed, "stage_seconds")),
        "peak_memory_mib": _median(_numbers(timed, "peak_memory_mib")),
        "device": device,
        "same_as": _first(good, "same_as"),
        "asked": trials[0]["precision"],
    }
    row |= {name: "/".join(_different(good, name)) for name in OF_MACHINE}
    for name in COLUMNS:
        metric, _, statistic = name.rpartition("_")
        if name not in (*row, *STANDINGS) and statistic in STATISTICS:
            row[name] = STATISTICS[statistic](_numbers(good, metric))
    return row


def _there(trials: list[TrialRow], name: str) -> list[Any]:
    """What the trials have in a column, without those that have nothing."""
    return [trial[name] for trial in trials if not pd.isna(trial[name])]


def _first(trials: list[TrialRow], name: str) -> Any:
    return next(iter(_there(trials, name)), None)


def _commonest(devices: list[str]) -> str:
    """The device that occurs most often, of equals the first by name; empty where there is none.

    Seconds of a processor and of a GPU have no common median.
    """
    return max(sorted(set(devices)), key=devices.count, default="")


def _different(trials: list[TrialRow], name: str) -> list[str]:
    """What seeds have in a column, each once: 1 and 2, the threads of two machines."""
    values = (int(x) if isinstance(x, float) else x for x in _there(trials, name))
    return list(map(str, sorted(set(values))))


def _numbers(trials: list[TrialRow], name: str) -> np.ndarray:
    return np.array(_there(trials, name), dtype=float)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _std(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


STATISTICS = {"mean": _mean, "std": _std}


def _check_alike(key: dict[str, Any], trials: list[TrialRow]) -> None:
    """Refuse to average trials that differ in more than their seed."""
    params = [json.loads(trial["params"]) for trial in trials]
    images = [trial["dataset_digest"] for trial in trials]
    for what, values in (("images", images), ("parameters", params)):
        first, *seeds = (trial["seed"] for trial in trials)
        others = [seed for seed, value in zip(seeds, values[1:], strict=True) if value != values[0]]
        if not others:
            continue
        if what == "parameters":
            what += f" ({', '.join(_changed(params))})"
        board = "{dataset}/{protocol}-{selection}-{schedule}".format(**key)
        folder = f"{key['method']}@*" if key["variant"] else key["method"]
        name = f"{key['method']} {key['variant']}".strip()
        raise BenchError(
            f"the records of {name} at {key['level']} have no common mean: in trials/{board}/"
            f"{folder}/{key['level']} seed {', '.join(map(str, others))} differs from seed {first} "
            f"in its {what}; `bench run` for this method, level and number of seeds makes them "
            "alike, or delete those you do not want"
        )


def _changed(params: list[dict[str, Any]]) -> list[str]:
    """The names of the parameters that are not the same in all of `params`."""
    names = sorted({name for one in params for name in one})
    absent = object()  # None is a value
    columns = {name: [one.get(name, absent) for one in params] for name in names}
    return [name for name, values in columns.items() if any(v != values[0] for v in values)]


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write the leaderboard: the designed columns, numbers as numbers, empty where nothing is.

    Raises
    ------
    WriteError : the file cannot be written.
    """
    table = table[COLUMNS].assign(n_labels=table["n_labels"].astype("Int64"))
    with said_if_unwritable(path):
        write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


@dataclass(frozen=True)
class Cell:
    """A cell of a board: a text that stands out if it is the best, and a remark that does not."""

    text: str = ""
    best: bool = False
    remark: str = ""


@dataclass(frozen=True)
class Board:
    """One board for a reader: a title, column heads, a row of cells per method, notes below."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str]


def settings(table: pd.DataFrame) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """The rows of each board: its dataset, protocol, selection and schedule, and those rows.

    Where a setting has both shares and numbers of labels, the latter are a board of their own,
    whose key ends in ``"numbers of labels"``: a mean rank is over levels seen side by side.
    """
    found = []
    for key, rows in table.groupby(BOARD_KEYS, sort=True):
        levels = {text: Level.parse(text) for text in rows["level"].unique()}
        counts = rows["level"].map(lambda text, known=levels: known[text].is_count)
        both = counts.any() and any(not x.is_count and x.amount > 0 for x in levels.values())
        found.append((tuple(map(str, key)), rows[~counts] if both else rows))
        if both:
            found.append(((*map(str, key), "numbers of labels"), rows[counts]))
    return found


def boards(table: pd.DataFrame) -> list[Board]:
    """A board of methods × levels for each of `settings`, methods with the best mean rank first."""
    return [_board(list(key), rows) for key, rows in settings(table)]


def _board(key: list[str], board: pd.DataFrame) -> Board:
    levels = list(dict.fromkeys(board["level"]))
    names = board["method"] + board["variant"].map(lambda v: f" {v}" if v else "")
    board = board.assign(name=names)
    ranks = _mean_ranks(board, [level for level in levels if Level.parse(level).amount > 0])
    order = sorted(dict.fromkeys(names), key=lambda name: (ranks.get(name, math.inf), name))
    cells = {(row["name"], row["level"]): _cell(row) for _, row in board.iterrows()}
    timed = board.dropna(subset=["fit_seconds_median"])
    device = timed.groupby("name")["device"].agg(lambda found: _commonest(list(found)))
    timed = timed[timed["device"] == timed["name"].map(device)]
    seconds = timed.groupby("name")[["fit_seconds_median", "stage_seconds_median"]].median()
    seconds = seconds.reindex(order)
    rows = [
        [Cell(name)]
        + [cells.get((name, level), Cell()) for level in levels]
        + [Cell(f"{ranks[name]:.1f}" if name in ranks else "")]
        + [_seconds(value, device.get(name) == "cuda") for value in seconds.loc[name]]
        for name in order
    ]
    dataset, protocol, selection, schedule, *which = key
    what = "the unlabelled images" if protocol == "transductive" else "the test images"
    settings = [dataset, protocol, f"{selection} labels", f"schedule {schedule}", *which]
    title = " · ".join(settings)
    return Board(
        title, ["method", *levels, "mean rank", "fit s", "shared s"], rows, _notes(board, what)
    )


def _cell(row: pd.Series) -> Cell:
    """What a reader sees of one method at one level.

    The headline with its interval; how it stands to the best, and what else there is to say of it.
    """
    if not row["n_seeds"]:
        return Cell(f"failed ({row['n_failed']})" if row["n_failed"] else "n/a")
    remark = {"tied": "≈", "undecided": "?"}.get(row["tied_with_best"], "")
    remark += f" ({row['n_failed']} failed)" if row["n_failed"] else ""
    remark += "" if pd.isna(row["same_as"]) else f" (= {row['same_as']})"
    if pd.isna(row["headline_mean"]):
        return Cell(f"({_short(row['purity_mean'])} purity)", remark=remark)
    text = _short(row["headline_mean"])
    if row["n_seeds"] > 1:
        text += "±" + _short(t_half(row["headline_std"], row["n_seeds"]))
    return Cell(text, pd.notna(row["rank"]) and bool(row["rank"] == 1), remark)


def _seconds(value: float, on_gpu: bool) -> Cell:
    return Cell("" if pd.isna(value) else f"{value:.1f}", remark=GPU if on_gpu else "")


def _short(value: float) -> str:
    """``.749``: three digits tell methods apart, and eight levels fit on a line."""
    return f"{value:.3f}".removeprefix("0")


def _mean_ranks(board: pd.DataFrame, levels: list[str]) -> dict[str, float]:
    """Mean rank over the levels above 0, of the variants that have a rank at all of them."""
    ranked = board[board["level"].isin(levels) & board["same_as"].isna() & board["rank"].notna()]
    groups = ranked.groupby("name")["rank"]
    return {str(name): ranks.mean() for name, ranks in groups if len(ranks) == len(levels)}


def _notes(board: pd.DataFrame, what: str) -> list[str]:
    """What a reader has to know to read the board."""
    notes = [
        f"Headline: at level 0 ACC (best one-to-one mapping), above it accuracy (cluster j is "
        f"class j), both on {what}. The best of each level stands out. Mean rank: over the levels "
        "above 0.",
        "fit s: median seconds of a fit without its shared stages; shared s: those stages, which "
        "several trials use but compute once.",
    ]
    if (board["device"] == "cuda").any():
        notes.append(
            f"{GPU.strip()}: seconds of a GPU, not comparable with those of a processor. A method "
            "that ran on both has those of the one where it ran at most levels."
        )
    seeds = board["n_seeds"].max()
    if seeds == 1:
        notes.append("One seed: no intervals, no ties; small differences mean nothing.")
    elif seeds > 1:
        notes.append("± half the 95 % t-interval over seeds; none where there is one seed.")
    if seeds >= VERDICT_FROM:
        notes.append(
            f"From {VERDICT_FROM} seeds on: ≈ tied with the best (paired interval within ±0.005); "
            "? undecided (the paired interval holds 0)."
        )
    if (board["variant"].ne("") & board["rank"].isna()).any():
        notes.append("Variants are not ranked: the best of many would be chosen by hidden labels.")
    if (board["headline_mean"].isna() & (board["n_seeds"] > 0)).any():
        notes.append(
            "(x purity): more clusters than classes, and no label to name them by. Purity, over "
            "all images that the method was fitted on, grows with the number of clusters: it is "
            "not ranked."
        )
    if board["same_as"].notna().any():
        notes.append("(= x): has nothing better to do at this level and does what x does.")
    return notes


def markdown(board: Board) -> str:
    """A board as a Markdown table."""
    lines = [f"| {' | '.join(board.columns)} |", f"|{' --- |' * len(board.columns)}"]
    lines += [f"| {' | '.join(map(_bold_if_best, row))} |" for row in board.rows]
    return "\n".join([f"**{board.title}**", "", *lines, "", *board.notes])


def _bold_if_best(cell: Cell) -> str:
    text = cell.text.replace("|", "\\|")  # a text parameter may hold what ends a column
    return (f"**{text}**" if cell.best else text) + cell.remark
