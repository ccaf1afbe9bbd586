"""How rows of a leaderboard stand to each other: gains, labels saved, areas, win rates, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from boards import board_of, register_kinds, trials_of

from bench.records.leaderboard import aggregate

MakeRecord = Callable[..., dict[str, Any]]
T_2 = 4.302653  # t(0.975, 2)


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    register_kinds(
        monkeypatch, plain="supervised", deep="supervised", ours="graph", other="k-means"
    )


def test_gains_by_hand(make_record: MakeRecord) -> None:
    """Differences of `ours` to `deep`: .2, .22, .24; the standard deviation .02."""
    table = board_of(
        make_record,
        {
            "ours": {100: [0.80, 0.82, 0.84]},
            "deep": {100: [0.60, 0.60, 0.60]},
            "plain": {100: [0.50, 0.70, 0.30]},
        },
    )
    ours, deep, plain = (table.loc[name, 100] for name in ("ours", "deep", "plain"))
    assert (ours["gain_baseline"], ours["gain_seeds"]) == ("deep", 3)
    assert ours["gain_mean"] == pytest.approx(0.22)
    assert ours["gain_low"] == pytest.approx(0.22 - T_2 * 0.02 / math.sqrt(3))
    assert ours["gain_high"] == pytest.approx(0.22 + T_2 * 0.02 / math.sqrt(3))
    assert plain["gain_mean"] == pytest.approx(-0.1)
    assert deep["gain_baseline"] == "deep"
    assert pd.isna(deep["gain_mean"])


def test_gains_are_paired_by_seed(make_record: MakeRecord) -> None:
    """On the seeds that both have: .9 less .8, whatever other seeds give."""
    table = board_of(
        make_record, {"ours": {100: [0.9, None]}, "deep": {100: [0.8, 0.2]}, "plain": {10: [0.1]}}
    )
    ours = table.loc["ours", 100]
    assert (ours["gain_mean"], ours["gain_seeds"]) == (pytest.approx(0.1), 1)
    assert pd.isna(ours[["gain_low", "gain_high"]]).all()


def test_without_a_baseline_there_is_no_gain(make_record: MakeRecord) -> None:
    table = board_of(make_record, {"ours": {0: [0.5], 100: [0.9]}, "unknown": {100: [0.8]}})
    ours, unknown = table.loc["ours", 100], table.loc["unknown", 100]
    assert pd.isna(ours[["gain_mean", "gain_baseline", "labels_for_supervised"]]).all()
    assert (ours["family"], ours["uses_unlabelled"]) == ("graph", True)
    assert pd.isna(unknown[["family", "uses_unlabelled"]]).all()


def test_nobody_knows_what_a_method_without_family_uses(
    make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_kinds(monkeypatch, ours="", deep="supervised")
    table = board_of(make_record, {"ours": {100: [0.9]}, "deep": {100: [0.8]}})
    assert pd.isna(table.loc[("ours", 100), ["family", "uses_unlabelled"]]).all()
    assert table.loc[("ours", 100), "gain_mean"] == pytest.approx(0.1)
    assert not table.loc[("deep", 100), "uses_unlabelled"]


def test_failures_alone_stand_nowhere(make_record: MakeRecord) -> None:
    """Not even the number of labels is known of a trial whose split could not be drawn."""
    trials = trials_of(make_record, {"ours": {10: [None]}}).assign(n_labels=None, label_share=None)
    table = aggregate(trials)
    stands = ["n_labels", "rank", "gain_mean", "labels_for_supervised", "area_mean", "win_rate"]
    assert table[stands].isna().all(axis=None)
    assert list(table["n_failed"]) == [1]


def test_labels_saved_by_hand(make_record: MakeRecord) -> None:
    """Halfway, on the log scale, from .5 at 10 to .7 at 1,000 are 100 labels; `plain` needs more.

    Without labels .55 stand for 10^1.5 labels. More than .7 nobody reaches.
    """
    table = board_of(
        make_record,
        {
            "ours": {0: [0.55], 10: [0.6], 1000: [0.71]},
            "other": {10: [0.1]},
            "deep": {10: [0.5], 1000: [0.7]},
            "plain": {10: [0.5], 1000: [0.6]},
        },
    )
    ours = table.loc["ours"]
    assert list(ours["labels_for_supervised"]) == pytest.approx([10**1.5, 100, math.inf])
    assert list(ours["labels_baseline"]) == ["deep"] * 3
    assert ours[["labels_for_supervised_low", "labels_for_supervised_high"]].isna().all(axis=None)
    assert table.loc[("other", 10), "labels_for_supervised"] == 10
    assert table.loc[["deep", "plain"], "labels_for_supervised"].isna().all()


def test_labels_saved_have_an_interval_over_common_seeds(make_record: MakeRecord) -> None:
    """Each seed alone: `deep` needs 10^1.5, 100 and 10^2.5 labels for what `ours` has with 10."""
    table = board_of(
        make_record,
        {
            "ours": {10: [0.55, 0.55, 0.55]},
            "deep": {10: [0.5, 0.45, 0.4], 100: [0.6, 0.55, 0.5], 1000: [0.7, 0.65, 0.6, 0.65]},
        },
    )
    ours = table.loc["ours", 10]
    assert ours["labels_for_supervised"] == pytest.approx(100)
    assert ours["labels_for_supervised_low"] == pytest.approx(10**1.5)
    assert ours["labels_for_supervised_high"] == pytest.approx(10**2.5)


def test_baselines_are_of_the_same_board(make_record: MakeRecord) -> None:
    trials = pd.concat(
        [
            trials_of(make_record, {"ours": {10: [0.6]}}, schedule="quick"),
            trials_of(make_record, {"deep": {10: [0.5], 1000: [0.7]}}, schedule="paper"),
        ]
    )
    table = aggregate(trials)
    assert table[["gain_mean", "labels_for_supervised"]].isna().all(axis=None)


def test_a_variant_is_no_baseline_but_has_gains(make_record: MakeRecord) -> None:
    changed = {"variant": {"lam": 0.5}, "params": {"lam": 0.5}}
    trials = pd.concat(
        [
            trials_of(make_record, {"deep": {10: [0.5], 1000: [0.7]}, "ours": {10: [0.6]}}),
            trials_of(make_record, {"deep": {10: [0.9]}, "ours": {10: [0.65]}}, **changed),
        ]
    )
    table = aggregate(trials).set_index(["method", "variant", "n_labels"])
    assert table.loc[("ours", "", 10), "gain_mean"] == pytest.approx(0.1)
    variant = table.loc["ours", "lam=0.5", 10]
    assert (variant["gain_mean"], variant["gain_baseline"]) == (pytest.approx(0.15), "deep")
    assert variant["labels_for_supervised"] == pytest.approx(10**2.5)
    assert pd.isna(variant["rank"])
    assert pd.isna(variant["win_rate"])


def test_areas_by_hand(make_record: MakeRecord) -> None:
    """Seeds 0 and 1 are there at all levels: areas (.6 + 2 × .8) / 3 and .1 less; level 0 is apart.

    t(0.975, 1) = 12.7062 times .05 is more than there is room above.
    """
    curve = {0: [0.9], 10: [0.5, 0.4], 100: [0.7, 0.6, 0.9], 10_000: [0.9, 0.8]}
    table = board_of(make_record, {"ours": curve, "other": {10: [0.5]}})
    ours = table.loc["ours", 100]
    assert ours["area_mean"] == pytest.approx(2.2 / 3 - 0.05)
    assert ours["area_low"] == pytest.approx(2.2 / 3 - 0.05 - 12.7062 * 0.05, abs=1e-5)
    assert ours["area_high"] == 1
    assert (ours["area_from"], ours["area_to"]) == (10, 10_000)
    assert table.loc["ours", "area_mean"].nunique() == 1
    assert pd.isna(table.loc[("other", 10), "area_mean"])


def test_ranks_have_intervals_over_the_seeds_that_all_have(make_record: MakeRecord) -> None:
    """`ours` wins on each common seed; `deep` and `other` change places."""
    table = board_of(
        make_record,
        {
            "ours": {10: [0.9, 0.9, 0.9, 0.9]},
            "deep": {10: [0.5, 0.6, 0.5, 0.6, 0.1]},
            "other": {10: [0.6, 0.5, 0.6, 0.5]},
        },
    )
    ranks = table[["rank_low", "rank_high"]].droplevel("n_labels")
    assert ranks.loc["ours"].tolist() == [1, 1]
    assert ranks.loc["deep"].tolist() == ranks.loc["other"].tolist() == [2, 3]
    assert table["win_rate"].droplevel("n_labels").to_dict() == {
        "ours": 1,
        "deep": 0.25,
        "other": 0.25,
    }
    assert table.loc[("deep", 10), "win_rate_high"] == 0.5


def test_one_common_seed_has_win_rates_and_no_interval(make_record: MakeRecord) -> None:
    scores = {"ours": {10: [0.9, 0.8]}, "deep": {10: [0.5]}}
    table = board_of(make_record, scores)
    assert table["win_rate"].tolist() == [0, 1]
    assert table[["rank_low", "rank_high", "win_rate_low"]].isna().all(axis=None)
    alone = board_of(make_record, {"ours": {10: [0.9, 0.8]}})
    assert alone[["win_rate", "rank_low", "in_top_group"]].isna().all(axis=None)
    assert alone["rank"].tolist() == [1]


def test_the_top_group_is_told_from_five_seeds_on(make_record: MakeRecord) -> None:
    best = [0.80, 0.82, 0.84, 0.81, 0.83]
    scores = {"ours": {10: best}, "deep": {10: [x - 0.1 for x in best]}, "other": {10: best[:4]}}
    group = board_of(make_record, scores)["in_top_group"].droplevel("n_labels")
    assert (group["ours"], group["deep"]) == (True, False)
    assert pd.isna(group["other"])
