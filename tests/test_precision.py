"""bf16 gives no less than fp32: the committed records of both, seed by seed, on the real images.

They are of the versions that they name; the fast tests of bf16 are of the code as it is now.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy import stats

from bench.records.store import Store, load_results

RECORDS = Path(__file__).parent.parent / "results" / "precision"
MARGIN = 0.01  # what the 90 % interval of the mean difference has to stay within
N_SEEDS = 5


def test_both_precisions_are_of_the_same_versions_and_parameters() -> None:
    kinds: dict[tuple[str, str], set[str]] = {}
    for record in Store(RECORDS):
        trial = record["trial"]
        what = json.dumps([record["versions"], trial["params"]], sort_keys=True)
        kinds.setdefault((trial["method"], trial["level"]), set()).add(what)
    assert {len(found) for found in kinds.values()} == {1}, kinds


def interval(method: str, level: str) -> tuple[float, float]:
    """The 90 % interval of the mean of what bf16 gains over fp32, over paired seeds."""
    table = load_results(RECORDS)
    table = table[(table["method"] == method) & (table["level"] == level)]
    assert set(table["status"]) == {"ok"}
    pairs = table.pivot(index="seed", columns="precision", values="headline")
    assert list(pairs.index) == list(range(len(pairs)))
    assert len(pairs) >= N_SEEDS
    more = pairs["bf16"] - pairs["fp32"]
    low, high = stats.t.interval(0.9, len(more) - 1, more.mean(), stats.sem(more))
    return float(low), float(high)


def test_bf16_changes_ss_dcec_by_less_than_the_margin() -> None:
    low, high = interval("ss-dcec", "5%")
    assert -MARGIN < low < high < MARGIN


@pytest.mark.parametrize("method", ["cae-kmeans", "dcec"])
def test_bf16_is_no_loss_without_labels(method: str) -> None:
    """It came out ahead; that it changes nothing is not claimed."""
    low, _ = interval(method, "0%")
    assert low > -MARGIN
