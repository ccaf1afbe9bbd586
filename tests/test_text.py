"""Names are data, never markup; what a terminal cannot show is replaced; figures are ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
import warm
from rich.console import Console
from typer.testing import CliRunner

from bench.cli import app
from bench.records.leaderboard import leaderboard
from bench.records.store import Store
from bench.running.progress import Display, result_line
from bench.show import charts
from bench.show.style import styles
from bench.show.svg import About

MakeRecord = Callable[..., dict[str, Any]]
ABOUT = About("a", "b", "c")
ODD = "shoes [v2] $1_$2 [/] [bold]x[/bold]"


@pytest.fixture
def odd(tmp_path: Path, make_record: MakeRecord) -> Path:
    """Records whose data set, method and parameter have names full of markup."""
    store = Store(tmp_path / "results")
    for level in ("5%", "10%"):
        fields = {"dataset": ODD.replace("/", "|"), "level": level}
        store.write(make_record(0.5, **fields, method="m [red]"))
        changed = {"how": "[relu]"}
        store.write(make_record(0.6, **fields, method="$a_$b", variant=changed, params=changed))
    return store.results


def test_a_board_shows_names_as_they_are(odd: Path) -> None:
    done = CliRunner().invoke(
        app, ["leaderboard", "--results", str(odd)], env={"COLUMNS": "200", "TERM": "dumb"}
    )
    assert done.exit_code == 0, done.output
    for name in ("m [red]", "$a_$b how='[relu]'", "shoes [v2] $1_$2 [|] [bold]x[|bold]"):
        assert name in done.output


@pytest.mark.parametrize("text", ["[/data/x]", "[red]x[/red]", "[/]", ODD])
def test_progress_shows_titles_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, width=150, color_system=None)
    with Display(console, 1, None) as display:
        display.start(0, text)
        display.event(0, text, {"event": "stage", "name": "[stage]"})
        display.line(result_line(text, "failed", None, f"no such file {text}"))
    said = capsys.readouterr().out
    assert f"failed {text}: no such file {text}" in said
    assert f"{text} · [stage]" in said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_cannot_be_shown_is_replaced(odd: Path, tmp_path: Path, encoding: str) -> None:
    """A board has ·, ≈ and ±; a run prints · in every line."""
    env = os.environ | {"PYTHONIOENCODING": encoding, "BENCH_CACHE": str(tmp_path / "cache")}
    wish = ["--method", "kmeans", "--dataset", "digits", "--level", "0%", "--schedule", "smoke"]
    for words in (["leaderboard", "--results", str(odd)], ["run", *wish, "--results", "here"]):
        new = encoding == "ascii" and words[0] == "leaderboard"  # Python's own start, once
        process = (subprocess if new else warm).Popen(
            [sys.executable, "-m", "bench", *words],
            cwd=tmp_path,
            env=env | {"PYTHONPATH": str(Path(__file__).parent.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        err = process.communicate()[1]
        assert process.returncode == 0, err
        assert b"Traceback" not in err


def test_figures_take_a_dollar_for_a_dollar(odd: Path) -> None:
    table = leaderboard(odd)
    table = table.assign(name=table["method"] + " " + table["variant"] + " $\\frac{$")
    order = sorted(set(table["name"]))
    drawn = charts.supervision(table, order, styles(order), "the $1_$2 images", ABOUT)
    assert "the $1_$2 images" in drawn
    assert "$\\frac{$" in drawn


def test_settings_of_the_user_change_no_figure(odd: Path) -> None:
    table = leaderboard(odd).assign(name=lambda rows: rows["method"])
    order = sorted(set(table["name"]))

    def draw() -> str:
        return charts.supervision(table, order, styles(order), "what", ABOUT)

    plain = draw()
    strange = {"axes.facecolor": "black", "font.size": 30, "savefig.dpi": 20, "text.usetex": True}
    with mpl.rc_context(strange), pd.option_context("display.precision", 1):
        assert draw() == plain
