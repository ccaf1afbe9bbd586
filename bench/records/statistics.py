"""What several seeds say: intervals of means, and comparisons in pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

TIED_WITHIN = 0.005
CONFIDENCE = 0.95


def t_interval(values: Iterable[float]) -> tuple[float, float]:
    """The 95 % t-interval of the mean over seeds; NaN for fewer than two."""
    from scipy import stats

    sample = pd.Series(list(values), dtype=float)
    if len(sample) < 2:
        return math.nan, math.nan
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(sample) - 1) * sample.sem()
    return sample.mean() - half, sample.mean() + half


def compare(best: pd.Series, other: pd.Series) -> str | None:
    """How `other` stands to `best`, both headlines indexed by seed, compared in pairs.

    Returns
    -------
    ``"tied"`` when the paired interval lies within ±0.005, ``"undecided"`` when it is wider and
    holds 0, ``"no"`` otherwise; None when fewer than two seeds are in both.
    """
    difference = (best - other).dropna()
    low, high = t_interval(difference)
    if math.isnan(low):
        return None
    if max(-low, high) <= TIED_WITHIN:
        return "tied"
    return "undecided" if low <= 0 <= high else "no"
