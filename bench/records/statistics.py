"""What several seeds say: intervals, comparisons in pairs, curves over labels, ranks.

Seeds are paired: a seed fixes the split, and two methods are compared on the seeds that both have.

How much is said depends on how many seeds there are (`INTERVAL_FROM`, `VERDICT_FROM`). One has no
interval. Two to four have one, but no verdict in words: with two the t-interval is 12.7 standard
errors wide on either side, so that "undecided" would be said of nearly everything. Five or more
have a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TIED_WITHIN = 0.005
CONFIDENCE = 0.95
INTERVAL_FROM = 2  # seeds
VERDICT_FROM = 5
N_RESAMPLES = 2000
BOOTSTRAP_SEED = 0  # the same records give the same intervals
NAN = math.nan
Interval = tuple[float, float]
BySeed = Mapping[int, float]


def t_half(std: float, n: int) -> float:
    """Half the 95 % t-interval of the mean of `n` values; NaN for fewer than two."""
    from scipy import stats

    if n < INTERVAL_FROM:
        return NAN
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * std / math.sqrt(n))


def t_interval(values: Iterable[float], least: float = 0, most: float = 1) -> Interval:
    """The 95 % t-interval of the mean over seeds; NaN for fewer than two.

    A mean of scores lies between `least` and `most`, 0 and 1 unless told otherwise, and so does the
    interval: what is beyond is cut off, which loses no value that the mean could have.
    """
    sample = np.fromiter(values, dtype=float)
    if len(sample) < INTERVAL_FROM:
        return NAN, NAN
    mean, half = float(sample.mean()), t_half(float(sample.std(ddof=1)), len(sample))
    return max(least, mean - half), min(most, mean + half)


@dataclass(frozen=True)
class Paired:
    """One method less another, over the `n` seeds that both have.

    `low` and `high` are the ends of the 95 % t-interval of the mean difference, NaN for one seed.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def told_apart(self) -> bool | None:
        """Whether the interval is beyond ±0.005 and does not hold 0; None for one seed."""
        if math.isnan(self.low):
            return None
        return max(-self.low, self.high) > TIED_WITHIN and not self.low <= 0 <= self.high

    @property
    def verdict(self) -> str | None:
        """``"tied"``, ``"undecided"`` or ``"no"``; None for fewer than five seeds.

        Tied: the interval lies within ±0.005. Undecided: it is wider and holds 0.
        """
        if self.n < VERDICT_FROM:
            return None
        if max(-self.low, self.high) <= TIED_WITHIN:
            return "tied"
        return "no" if self.told_apart else "undecided"


def paired(one: BySeed, other: BySeed) -> Paired:
    """`one` less `other` on the seeds that both have."""
    first, second = together(one, other)
    low, high = t_interval(first - second, -1, 1)
    mean = float((first - second).mean()) if len(first) else NAN
    return Paired(mean, low, high, len(first))


def together(*scores: BySeed) -> np.ndarray:
    """The scores of the seeds that all have: ``(len(scores), seeds)``."""
    seeds = sorted(set.intersection(*map(set, scores)))
    return np.array([[one[seed] for seed in seeds] for one in scores], dtype=float)


def labels_needed(n_labels: npt.ArrayLike, accuracy: npt.ArrayLike, target: float) -> float:
    """With how few labels a curve first reaches `target`, interpolated on the log scale of labels.

    It is the first crossing of the measured curve, not of a curve made monotone: no point is moved,
    and a later dip, a level's noise, does not take back what fewer labels did.

    Parameters
    ----------
    n_labels : positive, ascending. accuracy : at each of them.

    Returns
    -------
    The number of labels, not rounded; the fewest measured where these are enough already (still
    fewer may be); inf where no measured level is enough.

    Examples
    --------
    >>> labels_needed([10, 1000], [0.5, 0.7], 0.6)
    100.0
    >>> labels_needed([10, 1000], [0.5, 0.7], 0.8)
    inf
    """
    curve, targets = np.asarray(accuracy, dtype=float), np.array([target], dtype=float)
    return float(_first_crossings(np.asarray(n_labels, dtype=float), curve[None], targets)[0])


def _first_crossings(x: np.ndarray, curves: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`labels_needed` ``(m,)`` of curves ``(m, levels)`` over labels ``x``, each has a target."""
    if not curves.shape[1]:
        return np.full(len(curves), math.inf)
    above = curves >= targets[:, None]
    rows, i = np.arange(len(curves)), above.argmax(1)
    before = np.maximum(i - 1, 0)
    low, high = curves[rows, before], curves[rows, i]
    inside = above.any(1) & (i > 0)
    share = np.divide(targets - low, high - low, out=np.zeros(len(curves)), where=inside)
    return np.where(above.any(1), x[before] * (x[i] / x[before]) ** share, math.inf)


def labels_needed_interval(
    n_labels: npt.ArrayLike, curves: np.ndarray, targets: np.ndarray
) -> Interval:
    """The 95 % interval of `labels_needed`, by bootstrap over seeds.

    Seeds are drawn again, each with its curve and its target; inf is an end as any number is.

    Parameters
    ----------
    curves : ``(seeds, levels)``. targets : ``(seeds,)``.

    Returns
    -------
    Both ends; NaN for fewer than two seeds.
    """
    if len(curves) < INTERVAL_FROM:
        return NAN, NAN
    drawn = _resamples(len(curves))
    x = np.asarray(n_labels, dtype=float)
    return _percentiles(_first_crossings(x, curves[drawn].mean(1), targets[drawn].mean(1)))


def area(n_labels: npt.ArrayLike, accuracy: npt.ArrayLike) -> float:
    """The area under accuracy against log labels, divided by the width: a mean accuracy, 0 to 1.

    Every factor of labels counts the same: 10 to 100 as much as 1,000 to 10,000. NaN for fewer than
    two levels.

    Examples
    --------
    >>> area([10, 100, 10_000], [0.5, 0.7, 0.9])  # (0.6 × 1 + 0.8 × 2) / 3
    0.7333333333333334
    """
    from scipy import integrate

    x, y = np.log10(np.asarray(n_labels, dtype=float)), np.asarray(accuracy, dtype=float)
    return float(integrate.trapezoid(y, x) / (x[-1] - x[0])) if len(x) > 1 else NAN


def win_rates(scores: np.ndarray) -> np.ndarray:
    """How often each method is ahead of another one on a seed, an equal score counting half.

    Parameters
    ----------
    scores : ``(methods, seeds)``, at least two methods.

    Returns
    -------
    ``(methods,)`` from 0 to 1: the mean over all others and all seeds.
    """
    one, other = scores[:, None], scores[None]
    won = (one > other) + 0.5 * (one == other)
    return (won.mean(2).sum(1) - 0.5) / (len(scores) - 1)  # each was level with itself


def bootstrap_ranks(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Intervals of ranks and of win rates by bootstrap over seeds, the same draws for all methods.

    Ranks are by mean, 1 is best, equals share the better place.

    Parameters
    ----------
    scores : ``(methods, seeds)``, at least two of each.

    Returns
    -------
    ``rank_low``, ``rank_high``, ``win_rate_low``, ``win_rate_high``: ``(methods,)`` each, the ends
    of 95 % intervals.
    """
    drawn = _resamples(scores.shape[1])
    ranks = _ranks(scores[:, drawn].mean(2))  # methods, resamples
    one, other = scores[:, None], scores[None]
    won = ((one > other) + 0.5 * (one == other)).sum(1) - 0.5  # methods, seeds
    rates = won[:, drawn].mean(2) / (len(scores) - 1)
    low, high = np.array([_percentiles(row) for row in ranks]).T
    win_low, win_high = np.array([_percentiles(row) for row in rates]).T
    return {
        "rank_low": low.astype(int),
        "rank_high": high.astype(int),
        "win_rate_low": win_low,
        "win_rate_high": win_high,
    }


def _ranks(means: np.ndarray) -> np.ndarray:
    """Ranks ``(methods, resamples)`` within each column."""
    from scipy import stats

    return stats.rankdata(-means.round(12), method="min", axis=0)  # sums of floats: equals are near


def _resamples(n: int) -> np.ndarray:
    """Which of `n` seeds each resample holds: ``(N_RESAMPLES, n)``, the same whenever asked."""
    return np.random.default_rng(BOOTSTRAP_SEED).integers(0, n, (N_RESAMPLES, n))


def _percentiles(values: np.ndarray) -> Interval:
    """The middle 95 % of resamples: values among them, because inf has no mean with another."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
