"""``bench.run(...)``: its arguments, what it shows in a terminal and in a notebook, its board."""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
import types
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

import bench
from bench.commands import output
from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.records.leaderboard import leaderboard
from bench.records.store import Store
from bench.running import api, progress
from bench.running.progress import Display
from bench.running.runner import Runner, Summary

MakeRecord = Callable[..., dict[str, Any]]
WISH = {"methods": "kmeans", "levels": ["0%", "5%"], "dataset": "digits", "schedule": "smoke"}


def test_every_argument_has_a_name_and_is_described() -> None:
    parameters = inspect.signature(bench.run).parameters
    assert all(one.kind is not one.VAR_KEYWORD for one in parameters.values())
    assert {one.name for one in fields(api.Wish)} <= set(parameters)
    told = inspect.signature(api.run).parameters
    assert set(told) - {"wish"} <= set(parameters)
    described = inspect.getdoc(bench.run) or ""
    for name in parameters:
        assert f"{name} : " in described or f"{name}, " in described or f", {name} :" in described


def test_an_argument_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'level'"):
        bench.run(level="5%")  # type: ignore[call-arg]


@pytest.mark.parametrize("seeds", [0, -1, "3", [], [1, 1], [0.5], [True], None])
def test_seeds_that_are_none(tmp_path: Path, seeds: Any) -> None:
    with pytest.raises(BenchError, match=r"^seeds is "):
        bench.run("kmeans", seeds=seeds, results=tmp_path)


# --- A run, twice --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory, make_record: MakeRecord
) -> tuple[Path, list[Summary], list[str]]:
    """A run of two seeds, the same again with a level more, and once more in silence.

    A record of another board lies in the folder.
    """
    folder = tmp_path_factory.mktemp("ran")
    Store(folder / "results").write(make_record(method="another"))
    said, summaries = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(folder / "cache"))
        patch.setenv("BENCH_RESULTS", str(folder / "results"))
        patch.setenv("COLUMNS", "160")
        for changed in ({}, {"levels": ["5%", "10%"]}, {"levels": ["10%"], "quiet": True}):
            text = io.StringIO()
            with contextlib.redirect_stdout(text):
                summaries.append(bench.run(**WISH | {"seeds": [0, 3]} | changed))
            said.append(text.getvalue())
    return folder / "results", summaries, said


Ran = tuple[Path, list[Summary], list[str]]


def test_the_seeds_that_were_named_are_run(ran: Ran) -> None:
    results, (first, *_), _ = ran
    assert first.counts == {"ok": 4}
    found = {path.parent.name + "/" + path.stem for path in Store(results).paths()}
    assert {"0%/0", "0%/3", "5%/0", "5%/3"} <= found
    assert len(first.asked) == len(first.new) == 4
    assert "Trial(" not in repr(first)


def test_the_board_of_the_run_is_shown_alone(ran: Ran) -> None:
    _, _, (first, second, _) = ran
    for text in (first, second):
        assert text.count("schedule smoke") == 1
        assert "another" not in text
        assert "written: " in text
    for words in ("loading digits …", "4 trials to run", "ok kmeans · 5% · seed 3"):
        assert words in first
    assert output.ALL_NEW in first


def test_what_is_new_on_it_is_marked(ran: Ran) -> None:
    _, _, (_, second, _) = ran
    (row,) = (line for line in second.splitlines() if line.startswith("│kmeans"))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert [("*" in cell) for cell in cells[:4]] == [False, False, False, True]
    assert output.NEW in second


def test_nothing_new_is_said_so(ran: Ran) -> None:
    results, (*_, third), _ = ran
    console = Console(file=io.StringIO(), width=160)
    output.print_boards(leaderboard(results), console, third)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert output.NOTHING_NEW in shown
    assert "*" not in shown.partition("Headline")[0]


def test_quiet_is_silent(ran: Ran) -> None:
    _, (*_, third), (*_, text) = ran
    assert text == ""
    assert (third.counts, third.exit_status) == ({}, 0)


def test_a_board_of_labels_and_one_of_shares_are_two(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    store = Store(tmp_path)
    for level in ("1%", "5%", "10", "500"):
        store.write(make_record(method="m [x]", level=level))
    (asked,) = (Trial.from_json(r["trial"]) for r in store if r["trial"]["level"] == "500")
    console = Console(file=io.StringIO(), width=160)
    output.print_boards(leaderboard(tmp_path), console, Summary({}, asked=[asked], new=[asked]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "numbers of labels" in shown
    assert "1%" not in shown
    (row,) = (line for line in shown.splitlines() if line.startswith("│m [x]"))
    assert row.count("*") == 1


def test_five_labels_are_not_five_per_cent(tmp_path: Path, cache: Path) -> None:
    for levels, said in ((["5"], True), (["100"], True), (["101", "5%", "few"], False)):
        console = Console(file=io.StringIO(), width=160)
        bench.run(
            **WISH | {"levels": levels, "selection": "random"},
            results=tmp_path,
            dry_run=True,
            console=console,
        )
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("% write " in shown) == said
    assert api.said_of_count("5") == "level 5: 5 labels (for 5 % write 5%)"


# --- A notebook ----------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What a notebook is sent: (identity, object) for bars, ("", object) for what is printed."""
    sent: list[tuple[str, Any]] = []

    def display(thing: Any, display_id: str = "") -> None:
        sent.append((display_id, thing))

    module = types.ModuleType("IPython.display")
    module.display = module.update_display = display  # type: ignore[attr-defined]
    package = types.ModuleType("IPython")
    package.display = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    return sent


def text_of(thing: Any) -> str:
    """The text of what a notebook would render as HTML."""
    assert isinstance(thing, Table | Text)
    bundle = thing._repr_mimebundle_([], [])
    assert bundle["text/html"].startswith("<pre")
    return bundle["text/plain"]


def test_bars_in_a_notebook(shown: list[tuple[str, Any]]) -> None:
    console = Console(force_jupyter=True, width=100)
    with Display(console, 2, 60.0) as display:
        display.start(0, "kmeans [x] · 5%")
        display.event(0, "kmeans [x] · 5%", {"event": "progress", "what": "epoch", "of": (3, 10)})
        bars = text_of(shown[-1][1])
        assert "0/2 trials" in bars
        assert "kmeans [x] · 5%" in bars
        assert "3/10 epoch" in bars
        display.line(Text("ok kmeans"))
        display.finish(0)
        display.whole(1, 30.0)
        last = text_of(shown[-1][1])
        assert "1/2 trials" in last
        assert "kmeans" not in last
    assert text_of(shown[-1][1]).strip() == ""
    bars_sent = {identity for identity, _ in shown if identity}
    assert len(bars_sent) == 1  # one place in the cell, replaced
    (line,) = (thing for identity, thing in shown if not identity)
    assert "ok kmeans" in line._repr_mimebundle_([], [])["text/html"]


def test_a_quiet_run_shows_no_bars_in_a_notebook(shown: list[tuple[str, Any]]) -> None:
    with Display(Console(force_jupyter=True, quiet=True), 2, None) as display:
        display.start(0, "kmeans")
        display.finish(0)
    assert shown == []


def test_a_board_in_a_notebook(
    shown: list[tuple[str, Any]], tmp_path: Path, make_record: MakeRecord
) -> None:
    Store(tmp_path).write(make_record(method="m <b>"))
    output.print_boards(leaderboard(tmp_path), Console(force_jupyter=True, width=100))
    html = "".join(thing._repr_mimebundle_([], [])["text/html"] for _, thing in shown)
    assert "m &lt;b&gt;" in html
    assert "toy · transductive" in html


@pytest.mark.parametrize(
    ("name", "expected"),
    [("BENCH_CUDA_GRAPHS", "measured, all or off"), ("BENCH_TORCH_COMPILE", "on or off")],
)
def test_a_setting_that_is_none_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setenv(name, "yes")
    with pytest.raises(BenchError, match=f"{name} is 'yes'; expected {expected}"):
        bench.run(**WISH | {"results": tmp_path / "results"})
    assert not (tmp_path / "results").exists()


def test_a_damaged_record_that_appears_during_a_run_costs_no_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    results = tmp_path / "results"

    def ran(self: Runner) -> Summary:
        damaged = results / "trials" / "digits" / "x" / "kmeans" / "5%" / "0.json"
        damaged.parent.mkdir(parents=True)
        damaged.write_text("{")
        return Summary({"ok": 1})

    monkeypatch.setattr(Runner, "run", ran)
    summary = bench.run(
        methods=["kmeans"], levels="5%", dataset="digits", results=results, quiet=True
    )
    assert summary.counts == {"ok": 1}
    assert str(results) in summary.unwritten
