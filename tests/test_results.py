"""What is committed in ``results/`` follows from its records, and stays small."""

from __future__ import annotations

from pathlib import Path

from bench.records import findings, published
from bench.records.leaderboard import leaderboard, write_csv
from bench.records.scoring import MOST_ROWS
from bench.records.store import Store
from methods import registry

RESULTS = Path(__file__).parent.parent / "results"
MOST_BYTES = 12_000_000  # without the page and its figures


def test_the_leaderboard_is_that_of_the_records(tmp_path: Path) -> None:
    registry.discover()
    write_csv(leaderboard(RESULTS), tmp_path / "leaderboard.csv")
    assert (tmp_path / "leaderboard.csv").read_bytes() == (RESULTS / "leaderboard.csv").read_bytes()


def test_what_was_verified_is_that_of_the_records(tmp_path: Path) -> None:
    registry.discover()
    found = findings.verify(published.figures(), RESULTS)
    findings.write_csv(found, tmp_path / "verify.csv")
    assert (tmp_path / "verify.csv").read_bytes() == (RESULTS / "verify.csv").read_bytes()


def test_they_are_small() -> None:
    sizes = {path: path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()}
    assert sum(size for path, size in sizes.items() if "report" not in path.parts) < MOST_BYTES
    for record in Store(RESULTS):
        assert len(record.get("history", ())) <= MOST_ROWS, record["trial"]
