"""The methods of a board, level by level, as `bench.records.advice` compares them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.records.standings import BOARD_KEYS, SUPERVISED
from bench.records.statistics import INTERVAL_FROM, BySeed, paired

NEAR = 0.01
ROUNDING = 1e-9  # .88 - .87 is a little more than .01
FIRST, TIED, UNDECIDED, TOO_FEW, CLOSE = "best", "tied", "undecided", "too few seeds", "close"
Ranges = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Cost:
    """Median seconds of a fit on one device: `fit` alone, `shared` of the stages that it used."""

    device: str
    fit: float
    shared: float

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.fit + self.shared


@dataclass(frozen=True)
class Gain:
    """What an entry has more than the best supervised baseline with the same labels.

    `low` and `high` are the ends of the 95 % interval over the `n_seeds` that both have; None for
    one seed.
    """

    baseline: str
    mean: float
    low: float | None
    high: float | None
    n_seeds: int


@dataclass(frozen=True)
class Needed:
    """How many labels a supervised baseline, the one that needs fewest, has the same accuracy with.

    `labels` is None where it does not get there: "not reached". `low` and `high` are the ends of
    the 95 % interval, both None where it has none, each inf for "not reached". The baseline was
    measured with `fewest` to `most` labels.
    """

    baseline: str
    labels: float | None
    low: float | None
    high: float | None
    fewest: int
    most: int

    @property
    def at_most(self) -> bool:
        """Whether the fewest labels measured are enough already: still fewer may be."""
        return self.labels is not None and self.labels <= self.fewest


@dataclass(frozen=True)
class Entry:
    """One method at one level.

    Attributes
    ----------
    accuracy : mean over `n_seeds`, 0 to 1. Without labels it is ACC, the best one-to-one mapping.
    low, high : ends of its 95 % interval; None for one seed.
    costs : one for each device that it was timed on, by name.
    uses_unlabelled : whether it learns from unlabelled images too; None where nobody knows.
    supervised : it is one of the baselines, which learn from labelled images alone.
    gain : None for the best baseline itself, and where there is none.
    needed : None for baselines, and where there is none.
    standing : ``"best"``, or how it stands to the best where it is not told apart from it:
        ``"tied"`` or ``"undecided"``, the verdicts of five seeds or more (`Paired`); ``"too few
        seeds"``, two to four whose paired interval holds 0 or lies within ±.005; ``"close"``,
        within .01 on the one seed that both have. Else ``""``.
    """

    method: str
    accuracy: float
    low: float | None
    high: float | None
    n_seeds: int
    costs: tuple[Cost, ...]
    uses_unlabelled: bool | None
    supervised: bool
    gain: Gain | None
    needed: Needed | None
    standing: str = ""


def levels_of(table: pd.DataFrame, board: Sequence[str]) -> list[tuple[int, str, pd.DataFrame]]:
    """The levels of a board, few labels first: labels, level, and the ranked rows there.

    Of a share and a count that are as many labels, the one with more methods.
    """
    here = table[is_board(table, board) & table["rank"].notna()]
    found: dict[int, tuple[str, pd.DataFrame]] = {}
    for level, rows in here.groupby("level", observed=True, sort=False):
        n_labels = int(rows["n_labels"].max())
        if n_labels not in found or len(found[n_labels][1]) < len(rows):
            found[n_labels] = (str(level), rows)
    return [(n, *found[n]) for n in sorted(found)]


def is_board(rows: pd.DataFrame, board: Sequence[str]) -> pd.Series:
    """Which rows, of a leaderboard or of trials, are of this board."""
    return (rows[BOARD_KEYS] == list(board)).all(axis=1)


def ranges_of(table: pd.DataFrame, board: Sequence[str]) -> Ranges:
    """The fewest and the most labels that each method was measured with; level 0 apart."""
    here = table[is_board(table, board) & table["rank"].notna() & (table["n_labels"] > 0)]
    ends = here.groupby("method")["n_labels"].agg(["min", "max"]).astype(int)
    return {str(name): (int(low), int(high)) for name, (low, high) in ends.T.items()}


def entries_of(rows: pd.DataFrame, trials: pd.DataFrame, ranges: Ranges) -> tuple[Entry, ...]:
    """The entries of one level, best first."""
    copies = rows["same_as"].isin(rows["method"])
    copies &= not copies.all()  # two that each say to be the other are none
    ranked = rows[~copies].sort_values(["headline_mean", "method"], ascending=[False, True])
    by_name = dict(list(trials.groupby(["method", "variant"])))
    found: list[Entry] = []
    for _, row in ranked.iterrows():
        own = by_name[row["method"], row["variant"]]
        headlines = dict(zip(own["seed"], own["headline"], strict=True))
        if not found:
            best = headlines
        standing = _standing(best, headlines) if found else FIRST
        found.append(_entry(row, _costs(own), ranges, standing))
    return tuple(found)


def _entry(row: pd.Series, costs: tuple[Cost, ...], ranges: Ranges, standing: str) -> Entry:
    unlabelled = row["uses_unlabelled"]
    return Entry(
        method=f"{row['method']} {row['variant']}".strip(),
        accuracy=float(row["headline_mean"]),
        low=_number(row["headline_low"]),
        high=_number(row["headline_high"]),
        n_seeds=int(row["n_seeds"]),
        costs=costs,
        uses_unlabelled=None if pd.isna(unlabelled) else bool(unlabelled),
        supervised=row["family"] == SUPERVISED,
        gain=_gain(row),
        needed=_needed(row, ranges),
        standing=standing,
    )


def _costs(trials: pd.DataFrame) -> tuple[Cost, ...]:
    timed = trials.dropna(subset=["device", "fit_seconds", "stage_seconds"])
    medians = timed.groupby("device")[["fit_seconds", "stage_seconds"]].median()
    return tuple(Cost(str(device), *map(float, row)) for device, row in medians.iterrows())


def _standing(best: BySeed, own: BySeed) -> str:
    """How a method other than the best stands to it, both headlines by seed."""
    difference = paired(best, own)
    if difference.n >= INTERVAL_FROM:
        return "" if difference.told_apart else difference.verdict or TOO_FEW
    return CLOSE if difference.mean <= NEAR + ROUNDING else ""


def _gain(row: pd.Series) -> Gain | None:
    if pd.isna(row["gain_mean"]):
        return None
    ends = _number(row["gain_low"]), _number(row["gain_high"])
    return Gain(row["gain_baseline"], float(row["gain_mean"]), *ends, int(row["gain_seeds"]))


def _needed(row: pd.Series, ranges: Ranges) -> Needed | None:
    labels, baseline = row["labels_for_supervised"], row["labels_baseline"]
    if pd.isna(labels):
        return None
    low, high = (_number(row[f"labels_for_supervised_{end}"]) for end in ("low", "high"))
    reached = None if math.isinf(labels) else float(labels)
    return Needed(baseline, reached, low, high, *ranges[baseline])


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
