"""What methods/README.md says that each part of spread-and-match earns is what the records say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from bench.records.store import load_results
from methods.spread_and_match import SpreadAndMatch

ROOT = Path(__file__).parent.parent
LEVELS = ("100", "1%", "10%")
PARTS = ("seed_share=0", "weight=0", "warm_start=False", "relearn=False")


def records(folder: str, method: str = "spread-and-match") -> pd.DataFrame:
    """Its trials at `quick`, seeds 0 to 2: level, seed, headline, device, variant, version."""
    table = load_results(ROOT / "results" / folder)
    wanted = table["method"].eq(method) & table["schedule"].eq("quick") & table["seed"].lt(3)
    return table[wanted & table["level"].isin(LEVELS) & table["selection"].eq("stratified")]


def shown(values: pd.Series) -> str:
    """Their mean and half of its 95 % interval, as the table has them."""
    assert len(values) == 3
    half = stats.t.ppf(0.975, 2) * values.std() / math.sqrt(3)
    return f"{values.mean():.3f} ± {half:.3f}".replace("0.", ".")


def table_rows() -> dict[str, list[str]]:
    """The rows of the table by their first cell."""
    text = (ROOT / "methods" / "README.md").read_text(encoding="utf-8")
    part = text.split("### What each part earns")[1].split("\n### ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line[:2] == "| "]
    return {row[0]: row[1:] for row in rows}


def row_of(words: str) -> list[str]:
    (row,) = (cells for first, cells in table_rows().items() if words in first)
    return row


@pytest.mark.parametrize("part", PARTS)
def test_a_part_left_out(part: str) -> None:
    found = records("ablation")
    found = found[found["variant"].eq(part)]
    for level, cell in zip(LEVELS, row_of(part), strict=True):
        values = found[found["level"].eq(level)].sort_values("seed")["headline"]
        if cell.startswith("the same"):
            assert (part, level) == ("seed_share=0", "10%")
        else:
            assert cell == shown(values), level


@pytest.mark.parametrize(
    ("words", "folder", "method"),
    [
        ("H100", "ablation", "spread-and-match"),
        ("Zen 3", ".", "spread-and-match"),
        ("no network", ".", "poisson-mbo"),
    ],
)
def test_nothing_left_out_and_no_network(words: str, folder: str, method: str) -> None:
    found = records(folder, method)
    found = found[found["variant"].isna() | found["variant"].eq("")]
    for level, cell in zip(LEVELS, row_of(words), strict=True):
        assert cell == shown(found[found["level"].eq(level)]["headline"]), level


def test_the_records_are_of_the_method_as_it_is() -> None:
    fields = set(SpreadAndMatch().get_params()) - {"random_state"}
    table = records("ablation")
    assert set(table["method_version"]) == {SpreadAndMatch.version}
    assert all(set(json.loads(params)) == fields for params in table["params"])
