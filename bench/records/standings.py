"""How the rows of a leaderboard stand to each other: ranks, gains, labels saved, areas.

All of it within one board; ranks and gains within one level of it. The numbers themselves come from
`bench.records.statistics`.

**Who is ranked.** Every method once at a level: by its own row or, where there is none, by one
whose only change is a precision that was asked for (bf16 before fp32). Other variants, of an
ablation say, have no rank: whoever tries ten and ranks the best of them has chosen it by the hidden
labels, and each would push the methods behind it a place down.

**Baselines** are the ranked methods of the family ``"supervised"``, which learn from the labelled
images alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.records import statistics
from bench.records.statistics import INTERVAL_FROM, VERDICT_FROM
from methods import registry

BOARD_KEYS = ["dataset", "protocol", "selection", "schedule"]
LEVEL_KEYS = [*BOARD_KEYS, "level"]
SUPERVISED = "supervised"
# fmt: off
STANDINGS = [
    "family", "uses_unlabelled", "rank", "rank_low", "rank_high", "win_rate", "win_rate_low",
    "win_rate_high", "tied_with_best", "in_top_group", "gain_mean", "gain_low", "gain_high",
    "gain_seeds", "gain_baseline", "labels_for_supervised", "labels_for_supervised_low",
    "labels_for_supervised_high", "labels_baseline", "area_mean", "area_low", "area_high",
    "area_from", "area_to",
]
# fmt: on
Found = dict[Hashable, dict[str, Any]]
Headlines = Mapping[Hashable, dict[int, float]]


def add_standings(table: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """`table` with the columns `STANDINGS`.

    Parameters
    ----------
    table : one row per board, level, method and variant, with the columns ``n_labels``,
        ``headline_mean`` and ``asked``, the precision that was asked for; no index twice.
    trials : the rows of `load_results` that it was aggregated from.
    """
    headlines = _headlines(table, trials)
    found: Found = {i: _kind(method) for i, method in table["method"].items()}
    families = pd.Series({i: values["family"] for i, values in found.items()}, dtype=object)
    ranked = _ranked(table)
    table = table.assign(_ranked=ranked, _baseline=ranked & (families == SUPERVISED))
    for _, rows in table.groupby(LEVEL_KEYS, observed=True):
        _add_ranks(rows, headlines, found)
        _add_gains(rows, headlines, found)
    for _, rows in table.groupby(BOARD_KEYS, observed=True):
        _add_labels_saved(rows, headlines, found, families)
        _add_areas(rows, headlines, found)
    columns = pd.DataFrame.from_dict(found, orient="index").reindex(columns=STANDINGS)
    for name in ("rank", "rank_low", "rank_high", "gain_seeds", "area_from", "area_to"):
        columns[name] = columns[name].astype("Int64")
    for name in ("uses_unlabelled", "in_top_group"):
        columns[name] = columns[name].astype("boolean")
    return table.drop(columns=["_ranked", "_baseline"]).join(columns)


def _kind(method: str) -> dict[str, Any]:
    """What a method says of itself; nothing of one that is not registered here, of a plugin say."""
    family = registry.get(method).tags.family if method in registry.names() else ""
    return {
        "family": family or None,
        "uses_unlabelled": family != SUPERVISED if family else None,
    }


def _headlines(table: pd.DataFrame, trials: pd.DataFrame) -> Headlines:
    """The headlines of each row of `table` that has one, by seed."""
    keys = [*LEVEL_KEYS, "method", "variant"]
    by_key: dict[Hashable, dict[int, float]] = {}
    for *key, seed, headline in trials.loc[
        trials["status"] == "ok", [*keys, "seed", "headline"]
    ].itertuples(index=False, name=None):
        by_key.setdefault(tuple(key), {})[seed] = headline
    scored = table[table["headline_mean"].notna()]
    rows = scored[keys].itertuples(name=None)
    return {i: by_key[tuple(key)] for i, *key in rows}


def _ranked(table: pd.DataFrame) -> pd.Series:
    """Whether each row is the one that its method is ranked by at its level."""
    plain = (table["variant"] == "") | (table["variant"] == "precision=" + table["asked"])
    first = table[plain].sort_values("variant").drop_duplicates([*LEVEL_KEYS, "method"])
    return pd.Series(table.index.isin(first.index), index=table.index)


def _best_first(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a headline, the highest first."""
    return rows[rows["headline_mean"].notna()].sort_values(
        ["headline_mean", "method"], ascending=[False, True], kind="stable"
    )


def _add_ranks(rows: pd.DataFrame, headlines: Headlines, found: Found) -> None:
    """Ranks of one level, their intervals, win rates, and who is tied with the best."""
    ranked = _best_first(rows[rows["_ranked"]])
    for i, rank in ranked["headline_mean"].rank(ascending=False, method="min").items():
        found[i]["rank"] = int(rank)
    if len(ranked) < 2:
        return
    best, *others = ranked.index
    for i in others:
        difference = statistics.paired(headlines[best], headlines[i])
        if difference.n >= VERDICT_FROM:
            found[best]["in_top_group"] = True
            found[i]["in_top_group"] = not difference.told_apart
        found[i]["tied_with_best"] = difference.verdict if found[i]["rank"] > 1 else None
    scores = statistics.together(*(headlines[i] for i in ranked.index))
    if scores.shape[1]:
        _fill(found, ranked.index, {"win_rate": statistics.win_rates(scores)})
    if scores.shape[1] >= INTERVAL_FROM:
        _fill(found, ranked.index, statistics.bootstrap_ranks(scores))


def _fill(found: Found, index: pd.Index, columns: Mapping[str, np.ndarray]) -> None:
    for name, values in columns.items():
        for i, value in zip(index, values.tolist(), strict=True):
            found[i][name] = value


def _add_gains(rows: pd.DataFrame, headlines: Headlines, found: Found) -> None:
    """What each row of one level has more than the best baseline there."""
    baselines = _best_first(rows[rows["_baseline"]])
    if baselines.empty:
        return
    best = baselines.index[0]
    for i in rows.index.intersection(list(headlines)):
        found[i]["gain_baseline"] = baselines.loc[best, "method"]
        difference = statistics.paired(headlines[i], headlines[best])
        if i != best and difference.n:
            found[i] |= {
                "gain_mean": difference.mean,
                "gain_low": difference.low,
                "gain_high": difference.high,
                "gain_seeds": difference.n,
            }


def _curve(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one method that have labels and a headline, from few labels to many."""
    scored = rows[rows["headline_mean"].notna() & (rows["n_labels"] > 0)]
    return scored.sort_values("n_labels", kind="stable").drop_duplicates("n_labels")


def _add_labels_saved(
    rows: pd.DataFrame, headlines: Headlines, found: Found, families: pd.Series
) -> None:
    """With how few labels a baseline of this board reaches what each other row has."""
    curves = {name: _curve(of) for name, of in rows[rows["_baseline"]].groupby("method")}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    if not curves:
        return
    for i in rows.index[families[rows.index] != SUPERVISED].intersection(list(headlines)):
        target = rows.loc[i, "headline_mean"]
        needed = functools.partial(_needed, target=target)
        name, curve = min(curves.items(), key=lambda one: (*needed(one[1]), one[0]))
        found[i] |= {"labels_for_supervised": needed(curve)[0], "labels_baseline": name}
        n_labels = curve["n_labels"].to_numpy()
        target_of, *curve_of = statistics.together(*(headlines[j] for j in (i, *curve.index)))
        low, high = statistics.labels_needed_interval(n_labels, np.transpose(curve_of), target_of)
        found[i] |= {"labels_for_supervised_low": low, "labels_for_supervised_high": high}


def _needed(curve: pd.DataFrame, target: float) -> tuple[float, float]:
    """Labels that a baseline needs; its highest headline, negative, to choose where none do."""
    accuracy = curve["headline_mean"].to_numpy()
    return statistics.labels_needed(curve["n_labels"].to_list(), accuracy, target), -accuracy.max()


def _add_areas(rows: pd.DataFrame, headlines: Headlines, found: Found) -> None:
    """The area under each method's curve, over the seeds that it has at all its levels."""
    for _, of_method in rows.groupby(["method", "variant"], observed=True):
        curve = _curve(of_method)
        if len(curve) < 2:
            continue
        n_labels = curve["n_labels"].to_list()
        seeds = statistics.together(*(headlines[i] for i in curve.index)).T
        areas = [statistics.area(n_labels, accuracy) for accuracy in seeds]
        low, high = statistics.t_interval(areas)
        area = {
            "area_mean": float(np.mean(areas)) if areas else math.nan,
            "area_low": low,
            "area_high": high,
            "area_from": n_labels[0],
            "area_to": n_labels[-1],
        }
        for i in of_method.index:
            found[i] |= area
