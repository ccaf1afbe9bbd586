"""Tables of the terminal: from 60 columns on every cell is there, and no line is longer."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from bench.cli import app
from bench.records import leaderboard
from bench.records.findings import Finding
from bench.records.leaderboard import Board
from bench.records.published import figures
from bench.records.store import Store
from bench.show import terminal, verify

MakeRecord = Callable[..., dict[str, Any]]
WIDTHS = (60, 71, 80, 100, 160, 300)
LEVELS = ("0%", "1%", "3%", "5%", "10%", "20%", "30%", "50%")
LONG = "kmeans-percentile-mlp"


def cells(lines: Sequence[str], names: set[str]) -> list[list[str]]:
    """The rows of tables, their first cells (`names`, without blanks) put together again."""
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("│"):
            continue
        row = [cell.replace(" ", "") for cell in line.strip("│").split("│")]
        if rows and rows[-1][0] not in names:
            rows[-1][0] += row[0]
        else:
            rows.append(row)
    return rows


def printed(tables: Sequence[Any], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    for table in tables:
        console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(cell_len, lines)) <= width
    assert "…" not in "".join(lines)
    return lines


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, make_record: MakeRecord) -> Path:
    """Three seeds of three methods at eight levels, one with a long name of its variant."""
    store = Store(tmp_path_factory.mktemp("tables"))
    changed = {"max_clusters": 2000, "train_on": "centres"}
    for level in LEVELS:
        for seed in range(3):
            score = 0.5 + seed / 100
            for method in (LONG, "scan"):
                store.write(make_record(score, level=level, seed=seed, method=method))
            store.write(make_record(None, level=level, seed=seed, method="sdec"))
            many = {"variant": changed, "params": changed}
            store.write(make_record(score, level=level, seed=seed, method="kmeans", **many))
    return store.results


@pytest.fixture(scope="module")
def board(results: Path) -> Board:
    (board,) = leaderboard.boards(leaderboard.leaderboard(results))
    return board


@pytest.mark.parametrize("width", WIDTHS)
def test_a_board_keeps_every_cell(board: Board, width: int) -> None:
    rows = [[(cell.text + cell.remark).replace(" ", "") for cell in row] for row in board.rows]
    found = cells(printed(terminal.as_tables(board, width), width), {row[0] for row in rows})
    strips = [found[i : i + len(rows)] for i in range(0, len(found), len(rows))]
    for i, expected in enumerate(rows):
        shown = [strip[i] for strip in strips]
        assert {one[0] for one in shown} == {expected[0]}
        assert [cell for one in shown for cell in one[1:]] == expected[1:]
    assert (len(strips) == 1) == (width >= 160)


def test_the_command_keeps_to_the_width_that_it_is_given(results: Path) -> None:
    done = CliRunner().invoke(
        app, ["leaderboard", "--results", str(results)], env={"COLUMNS": "60", "TERM": "dumb"}
    )
    assert done.exit_code == 0, done.output
    table = [line for line in done.output.splitlines() if line[0] in "┏┃┡│└"]
    assert 50 < max(map(cell_len, table)) <= 60
    assert done.output.count(".510±.025") == 3 * len(LEVELS)


@pytest.mark.parametrize("width", WIDTHS)
def test_published_figures_keep_every_number(width: int) -> None:
    findings = [Finding(figure=one) for one in figures()]
    console = Console(file=io.StringIO(), width=width)
    verify.show(findings, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line for line in text.splitlines() if line.startswith(("┏", "┃", "│"))]
    assert max(map(cell_len, lines)) <= width
    assert "…" not in "".join(lines)
    for finding in findings:
        assert f" {finding.figure.value:.4f}" in "".join(lines)
    assert "".join(lines).count("not run") == len(findings)


def test_a_column_that_is_too_wide_alone_is_wrapped() -> None:
    rows = [[Text("a"), Text("x" * 90)]]
    lines = printed(terminal.fitted("title", ["name", "value"], rows, 60, ["name"]), 60)
    assert "".join(lines).count("x") == 90


def test_a_title_is_as_wide_as_the_terminal() -> None:
    rows = [[Text("a"), Text("b")]]
    title = "a title that is much wider than [its] table"
    assert printed(terminal.fitted(title, ["name", "v"], rows, 60), 60)[0].strip() == title
