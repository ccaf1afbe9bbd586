"""The tables that results/README.md has beside the boards are what the records say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bench.records.store import load_results

RESULTS = Path(__file__).parent.parent / "results"
TEXT = (RESULTS / "README.md").read_text(encoding="utf-8")
Table = list[tuple[str, dict[str, str]]]
Headlines = Callable[..., pd.Series]


def written(first: str, after: str) -> Table:
    """The first table after the words `after` whose head starts with `first`: rows by column."""
    lines = TEXT.partition(after)[2].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    columns = cells(lines[start])
    rows: Table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *values = cells(line)
        rows.append((name, dict(zip(columns[1:], values, strict=True))))
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def shown(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


@pytest.fixture(scope="module")
def trials() -> pd.DataFrame:
    drawn = load_results(RESULTS / "drawn")
    return pd.concat([load_results(RESULTS), drawn], ignore_index=True)


@pytest.fixture(scope="module")
def headlines(trials: pd.DataFrame) -> Headlines:
    """``headlines(column, method="scan", level="1%", ...)``: of these trials, by seed.

    Of no variant, unless one is named.
    """
    ok = trials[trials["status"].eq("ok") & trials["protocol"].eq("transductive")]

    def find(column: str, **wanted: str) -> pd.Series:
        found = ok
        for name, value in ({"variant": ""} | wanted).items():
            found = found[found[name].fillna("").eq(value)]
        return found.set_index("seed")[column].sort_index()

    return find


def test_what_a_chosen_label_is_worth(headlines: Headlines) -> None:
    """Means over the seeds that asked for labels."""
    rows = written("labels", "**What a chosen label is worth.**")
    selections = {"asked for": "representative", "drawn": "stratified"}
    method = ""
    for name, row in rows:
        named = re.fullmatch(r"(?:`(.+)`, )?(asked for|drawn)", name)
        assert named, name
        method = named[1] or method
        for level, cell in row.items():
            of = {"method": method, "level": level.replace(",", ""), "schedule": "quick"}
            asked = headlines("headline", selection="representative", **of)
            found = headlines("headline", selection=selections[named[2]], **of)
            assert cell == shown(found[asked.index].mean()), (method, name, level)
    assert len(rows) == 14


def epochs(method: str, number: str) -> dict[str, str]:
    """The schedule and the variant with so many epochs of SimCLR."""
    if number == "500":
        return {"schedule": "paper"}
    name = "simclr_epochs" if method == "simclr-lr" else "pretrain_epochs"
    return {"schedule": "quick"} | ({"variant": f"{name}=50"} if number == "50" else {})


def test_longer_simclr(headlines: Headlines) -> None:
    """Seed 0."""
    method, n_cells = "", 0
    for name, row in written("SimCLR epochs", "**Longer SimCLR.**"):
        named = re.fullmatch(r"(?:`(.+)`, )?(8|50|500)(?: \(.*\))?", name)
        assert named, name
        method = named[1] or method
        for level, cell in row.items():
            of = {"method": method, "level": level, "selection": "stratified"}
            if cell:
                found = headlines("headline", **of, **epochs(method, named[2]))
                assert cell == shown(found[0]), (method, name, level)
                n_cells += 1
    assert n_cells > 50


def test_table_1(headlines: Headlines) -> None:
    """Means of two seeds; without labels those of `dcec`, which `ss-dcec` is there."""
    rows = dict(written("over all images", "## Table 1 of SS-DCEC"))
    for metric in ("ACC", "NMI"):
        for method in ("ss-dcec", "ss-dcec-kl"):
            row = rows[f"{metric}, " + (f"`{method}`" if "kl" in method else "mean of two seeds")]
            for level, cell in row.items():
                of = {"method": method, "level": level, "schedule": "paper", "selection": "random"}
                values = headlines(f"{metric.lower()}_all", **of)
                assert [*values.index] == [0, 1], (method, level)
                assert cell == shown(values.mean(), 4), (metric, method, level)


def test_the_other_figures() -> None:
    """As in ``verify.csv``, with standard deviations to four digits."""
    verified = pd.read_csv(RESULTS / "verify.csv", dtype={"number": str})
    rows = written("#", "## The other figures")
    assert len({number for number, _ in rows}) == len(rows) > 30
    for number, row in rows:
        numbered = verified[verified["number"].eq(number.removesuffix("b"))]
        reading = numbered[numbered["other_reading"].eq(number.endswith("b"))]
        (found,) = reading.to_dict("records")
        several = f" ± {shown(found['measured_std'], 4)}" if found["n_seeds"] > 1 else ""
        assert row["measured (seeds)"] == (
            f"{shown(found['measured_mean'], 4)}{several} ({found['n_seeds']:.0f})"
        )
        assert row["published"] == shown(found["published"], 4)
        assert row["verdict"] == found["verdict"]
        assert row["method"].startswith(f"`{found['method']}`")
