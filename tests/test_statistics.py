"""Intervals, comparisons, curves and ranks: by hand, and beside other implementations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import optimize, stats
from sklearn.metrics import auc
from statsmodels.stats.weightstats import DescrStatsW

from bench.records.statistics import (
    Paired,
    area,
    bootstrap_ranks,
    labels_needed,
    labels_needed_interval,
    paired,
    t_half,
    t_interval,
    together,
    win_rates,
)

SCORES = st.floats(0, 1)


def by_seed(values: list[float]) -> dict[int, float]:
    return dict(enumerate(values))


# --- Intervals and pairs -------------------------------------------------------------------------


def test_the_interval_by_hand() -> None:
    """Mean 0.82, standard deviation 0.02, t(0.975, 2) = 4.302653: 4.302653 x 0.02 / sqrt(3)."""
    low, high = t_interval([0.80, 0.82, 0.84])
    assert low == pytest.approx(0.82 - 0.0496827, abs=1e-6)
    assert high == pytest.approx(0.82 + 0.0496827, abs=1e-6)
    assert t_half(0.02, 3) == pytest.approx(0.0496827, abs=1e-6)


@given(st.lists(SCORES, min_size=2, max_size=8).filter(lambda v: np.std(v) > 1e-6))
def test_the_interval_is_that_of_statsmodels_within_0_and_1(values: list[float]) -> None:
    low, high = DescrStatsW(values).tconfint_mean(alpha=0.05)
    assert t_interval(values) == pytest.approx((max(low, 0), min(high, 1)))


@given(st.lists(SCORES, min_size=2, max_size=8))
def test_an_interval_of_scores_lies_within_0_and_1_and_holds_the_mean(values: list[float]) -> None:
    low, high = t_interval(values)
    assert 0 <= low <= np.mean(values) + 1e-12
    assert np.mean(values) - 1e-12 <= high <= 1


@pytest.mark.parametrize("values", [[], [0.5]])
def test_one_seed_has_no_interval(values: list[float]) -> None:
    assert all(math.isnan(end) for end in t_interval(values))
    assert math.isnan(t_half(math.nan, len(values)))


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert t_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.001, 0.002, 0.003, 0.002, 0.002], "tied"),  # 0.002 ± 0.0009
        ([0.003] * 5, "tied"),  # does not hold 0, but is too small to matter
        ([0.004, 0.005, 0.006, 0.005, 0.005], "no"),  # 0.005 ± 0.0009: ends beyond, without 0
        ([0.0, 0.004, 0.008, -0.004, 0.012], "undecided"),  # 0.004 ± 0.0079
        ([-0.02, 0.03, 0.04, 0.01, 0.02], "undecided"),  # 0.016 ± 0.029
        ([0.10, 0.11, 0.12, 0.11, 0.11], "no"),
        ([0.006] * 5, "no"),  # a small difference, but a sure one
    ],
)
def test_what_five_seeds_say(differences: list[float], expected: str) -> None:
    best = np.array([0.6, 0.7, 0.8, 0.9, 0.5])
    found = paired(by_seed(list(best)), by_seed(list(best - differences)))
    assert found.mean == pytest.approx(np.mean(differences))
    assert (found.n, found.verdict) == (5, expected)
    assert found.told_apart == (expected == "no")


@pytest.mark.parametrize("n", [2, 3, 4])
def test_two_to_four_seeds_have_an_interval_and_no_verdict(n: int) -> None:
    found = paired(by_seed([0.9, 0.8, 0.85, 0.87][:n]), by_seed([0.1] * n))
    assert found.low < found.mean < found.high
    assert found.verdict is None
    assert found.told_apart is True


def test_one_seed_tells_nothing_apart() -> None:
    found = paired({0: 0.9}, {0: 0.1, 1: 0.2})
    assert (found.mean, found.n) == (pytest.approx(0.8), 1)
    assert math.isnan(found.low)
    assert found.verdict is found.told_apart is None


def test_only_seeds_that_both_have_are_compared() -> None:
    best, other = {0: 0.9, 1: 0.5, 2: 0.5, 3: 0.5}, {3: 0.5, 2: 0.5, 1: 0.5, 4: 0.1}
    assert paired(best, other) == Paired(0, 0, 0, 3)
    none = paired(best, {7: 0.5})
    assert none.n == 0
    assert math.isnan(none.mean)
    assert together(best, other, {2: 0.1, 3: 0.2, 9: 1.0}).tolist() == [
        [0.5, 0.5],
        [0.5, 0.5],
        [0.1, 0.2],
    ]


@given(st.lists(st.tuples(SCORES, SCORES), min_size=5, max_size=8))
def test_a_comparison_follows_its_definition_and_statsmodels(
    pairs: list[tuple[float, float]],
) -> None:
    one, other = zip(*pairs, strict=True)
    assume(np.std(np.subtract(one, other)) > 1e-6)
    low, high = DescrStatsW(np.subtract(one, other)).tconfint_mean()
    assume(min(abs(low), abs(high), abs(abs(low) - 0.005), abs(abs(high) - 0.005)) > 1e-9)
    found = paired(by_seed(list(one)), by_seed(list(other)))
    if low >= -0.005 and high <= 0.005:
        assert found.verdict == "tied"
    else:
        assert found.verdict == ("undecided" if low <= 0 <= high else "no")
    back = paired(by_seed(list(other)), by_seed(list(one)))
    assert back.verdict == found.verdict
    assert back.mean == pytest.approx(-found.mean)


# --- Curves over labels --------------------------------------------------------------------------


def test_labels_needed_by_hand() -> None:
    """From 10 to 1,000 labels the logarithm grows from 1 to 3: half of the way is 100."""
    assert labels_needed([10, 1000], [0.5, 0.7], 0.6) == pytest.approx(100)
    assert labels_needed([10, 1000], [0.5, 0.7], 0.7) == pytest.approx(1000)
    assert labels_needed([10, 1000], [0.5, 0.7], 0.5) == 10
    assert labels_needed([10, 1000], [0.5, 0.7], 0.4) == 10
    assert labels_needed([10, 1000], [0.5, 0.7], 0.71) == math.inf


def test_the_first_crossing_counts() -> None:
    """.6 is reached between 10 and 100 labels, lost at 1,000, and reached again."""
    curve = [0.5, 0.7, 0.4, 0.8]
    assert labels_needed([10, 100, 1000, 10_000], curve, 0.6) == pytest.approx(10**1.5)
    # no point is moved: between .4 and .8 at 1,000 and 10,000 labels .75 is seven eighths on
    assert labels_needed([10, 100, 1000, 10_000], curve, 0.75) == pytest.approx(10 ** (3 + 7 / 8))


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=8),
    st.sets(st.integers(1, 100_000), min_size=8, max_size=8),
    st.floats(0, 1),
)
def test_labels_needed_is_where_the_curve_is_at_the_target(
    accuracy: list[float], labels: set[int], target: float
) -> None:
    x = np.array(sorted(labels)[: len(accuracy)], dtype=float)
    found = labels_needed(x, accuracy, target)
    if math.isinf(found):
        assert max(accuracy) < target
        return
    assert x[0] <= found <= x[-1] * (1 + 1e-9)
    if accuracy[0] < target:
        assert np.interp(np.log(found), np.log(x), accuracy) == pytest.approx(target, abs=1e-6)
        fewer = np.exp(np.linspace(np.log(x[0]), np.log(found) - 1e-6, 50))
        assert (np.interp(np.log(fewer), np.log(x), accuracy) < target + 1e-6).all()
    else:
        assert found == x[0]


@given(st.lists(st.floats(0.01, 0.1), min_size=3, max_size=7), st.floats(0.05, 0.95))
def test_labels_needed_is_the_root_of_a_rising_curve(rises: list[float], share: float) -> None:
    accuracy = np.cumsum(rises)
    x = 10.0 ** np.arange(1, len(accuracy) + 1)
    target = accuracy[0] + share * (accuracy[-1] - accuracy[0])

    def above(log: float) -> float:
        return float(np.interp(log, np.log(x), accuracy)) - target

    root = optimize.brentq(above, np.log(x[0]), np.log(x[-1]), xtol=1e-13)
    assert labels_needed(x, accuracy, target) == pytest.approx(np.exp(root))


def test_the_interval_of_labels_needed() -> None:
    """Alone, seeds need 10^1.5, 100 and 10^2.5 labels; all three the same gives the ends."""
    curves = np.array([[0.5, 0.6, 0.7], [0.45, 0.55, 0.65], [0.4, 0.5, 0.6]])
    low, high = labels_needed_interval([10, 100, 1000], curves, np.full(3, 0.55))
    assert (low, high) == pytest.approx((10**1.5, 10**2.5))
    assert labels_needed_interval([10, 100, 1000], curves, np.full(3, 0.55)) == (low, high)


def test_an_interval_may_end_at_not_reached() -> None:
    curves = np.array([[0.5, 0.7], [0.5, 0.5]])
    low, high = labels_needed_interval([10, 1000], curves, np.full(2, 0.6))
    assert low == pytest.approx(100)
    assert high == math.inf


def test_one_seed_has_no_interval_of_labels() -> None:
    found = labels_needed_interval([10, 1000], np.array([[0.5, 0.7]]), np.array([0.6]))
    assert all(math.isnan(end) for end in found)


def test_the_area_by_hand() -> None:
    """One factor of ten at .6 on average, two at .8."""
    assert area([10, 100, 10_000], [0.5, 0.7, 0.9]) == pytest.approx(2.2 / 3)
    assert math.isnan(area([10], [0.5]))


@given(
    st.lists(
        st.tuples(st.integers(1, 10**6), SCORES), min_size=2, max_size=9, unique_by=lambda p: p[0]
    )
)
def test_the_area_is_that_of_scikit_learn(points: list[tuple[int, float]]) -> None:
    x, y = zip(*sorted(points), strict=True)
    found = area(x, y)
    assert found == pytest.approx(auc(np.log(x), y) / np.log(x[-1] / x[0]))
    assert min(y) - 1e-9 <= found <= max(y) + 1e-9


# --- Ranks ---------------------------------------------------------------------------------------


def test_win_rates_by_hand() -> None:
    """On seed 0 the order is a, b = c; on seed 1 it is b, a, c."""
    scores = np.array([[0.9, 0.6], [0.5, 0.8], [0.5, 0.4]])
    assert win_rates(scores) == pytest.approx([(1 + 1 + 0 + 1) / 4, (0 + 0.5 + 1 + 1) / 4, 0.5 / 4])


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.lists(st.lists(SCORES, min_size=3, max_size=3), min_size=n, max_size=n)
    )
)
def test_win_rates_are_those_of_mann_and_whitney_on_each_seed(values: list[list[float]]) -> None:
    scores = np.array(values)
    expected = []
    for i, own in enumerate(scores):
        others = np.delete(scores, i, axis=0)
        u = [stats.mannwhitneyu([own[s]], others[:, s]).statistic for s in range(3)]
        expected.append(np.mean(u) / len(others))
    assert win_rates(scores) == pytest.approx(expected)
    assert win_rates(scores).mean() == pytest.approx(0.5)


def test_intervals_of_ranks() -> None:
    """`a` is always first; `b` and `c` change places with the seed."""
    scores = np.array([[0.9, 0.9, 0.9, 0.9], [0.5, 0.6, 0.5, 0.6], [0.6, 0.5, 0.6, 0.5]])
    found = bootstrap_ranks(scores)
    assert found["rank_low"].tolist() == [1, 2, 2]
    assert found["rank_high"].tolist() == [1, 3, 3]
    assert found["win_rate_low"].tolist() == [1, 0, 0]
    assert found["win_rate_high"].tolist() == [1, 0.5, 0.5]


def test_intervals_of_ranks_are_those_of_all_resamples() -> None:
    """Three seeds have 27 resamples, which can be written down; the bootstrap draws from them."""
    scores = np.random.default_rng(5).uniform(0.4, 0.6, (4, 3))
    drawn = np.array(list(itertools.product(range(3), repeat=3)))
    ranks = stats.rankdata(-scores[:, drawn].mean(2), axis=0)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=1, method="inverted_cdf")
    found = bootstrap_ranks(scores)
    assert found["rank_low"].tolist() == low.tolist()
    assert found["rank_high"].tolist() == high.tolist()


@given(st.integers(2, 5), st.integers(2, 6), st.integers(0, 10**6))
def test_an_interval_of_ranks_holds_a_rank(n: int, seeds: int, state: int) -> None:
    scores = np.random.default_rng(state).uniform(size=(n, seeds)).round(1)
    found = bootstrap_ranks(scores)
    assert (found["rank_low"] >= 1).all()
    assert (found["rank_low"] <= found["rank_high"]).all()
    assert (found["rank_high"] <= n).all()
    assert (found["win_rate_low"] <= win_rates(scores) + 1e-12).all()
    assert (found["win_rate_high"] >= win_rates(scores) - 1e-12).all()
    again = bootstrap_ranks(scores)
    assert all((found[name] == again[name]).all() for name in found)


def test_equal_methods_share_the_better_rank_whatever_is_drawn() -> None:
    scores = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.1, 0.2, 0.3]])
    found = bootstrap_ranks(np.vstack([scores, scores[1]]))
    assert found["rank_low"].tolist() == [1, 1, 1, 1]
    assert found["rank_high"].tolist() == [3, 3, 3, 3]
