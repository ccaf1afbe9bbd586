"""bf16 gives what fp32 gives: the committed records of both, seed by seed, on the real images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from bench.store import load_results

RECORDS = Path(__file__).parent.parent / "results" / "precision"
MARGIN = 0.01  # what the 90 % interval of the mean difference has to stay within
N_SEEDS = 5


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    """The headlines: a row per method, level and seed, a column per precision."""
    table = load_results(RECORDS)
    assert set(table["status"]) == {"ok"}
    return table.pivot(index=["method", "level", "seed"], columns="precision", values="headline")


def difference(pairs: pd.DataFrame, method: str, level: str) -> pd.Series:
    """What bf16 gives more than fp32, for each seed."""
    chosen = pairs.loc[(method, level)]
    assert list(chosen.index) == list(range(len(chosen))) and len(chosen) >= N_SEEDS
    return chosen["bf16"] - chosen["fp32"]


def test_ss_dcec_with_labels_is_the_same_within_the_margin(pairs: pd.DataFrame) -> None:
    more = difference(pairs, "ss-dcec", "5%")
    low, high = stats.t.interval(0.9, len(more) - 1, more.mean(), stats.sem(more))
    assert -MARGIN < low < high < MARGIN
