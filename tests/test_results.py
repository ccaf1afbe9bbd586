"""What is committed in ``results/``, and said of it, follows from its records, and stays small."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench.records import advice, findings, published
from bench.records.leaderboard import leaderboard, write_csv
from bench.records.scoring import MOST_ROWS
from bench.records.store import Store, load_results

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
MOST_BYTES = 12_000_000  # without the page and its figures


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return leaderboard(RESULTS)


def test_the_leaderboard_is_that_of_the_records(table: pd.DataFrame, tmp_path: Path) -> None:
    write_csv(table, tmp_path / "leaderboard.csv")
    assert (tmp_path / "leaderboard.csv").read_bytes() == (RESULTS / "leaderboard.csv").read_bytes()


def test_what_was_verified_is_that_of_the_records(tmp_path: Path) -> None:
    findings.write_csv(findings.verify(published.figures(), RESULTS), tmp_path / "verify.csv")
    assert (tmp_path / "verify.csv").read_bytes() == (RESULTS / "verify.csv").read_bytes()


def test_readme_begins_with_what_the_records_answer(table: pd.DataFrame) -> None:
    """As `bench leaderboard --markdown --results results` prints it."""
    readme = (ROOT / "README.md").read_text()
    written = readme.partition("<!-- answers -->\n")[2].partition("\n<!-- end -->")[0]
    answers = advice.sentences(table, load_results(RESULTS), table)
    assert len(answers) == len(advice.BUDGETS)
    assert written == "\n".join(f"- {one}" for one in answers)


def test_they_are_small() -> None:
    sizes = {path: path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()}
    assert sum(size for path, size in sizes.items() if "report" not in path.parts) < MOST_BYTES
    for record in Store(RESULTS):
        assert len(record.get("history", ())) <= MOST_ROWS, record["trial"]
