"""Texts from elsewhere: what can be kept of them, and shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench.cli import app
from bench.core.files import write_text
from bench.core.texts import printable, storable, unstorable
from bench.records.store import Store
from bench.running.progress import result_line
from methods import registry

CODES = "\x1b[31mred\x07 \x1b]0;title\x07"
WRITTEN_OUT = r"\x1b[31mred\x07 \x1b]0;title\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x07", r"a\x1b[31mb\x07"),
        ("\x9b2J\x00\r\x7f", r"\x9b2J\x00\r\x7f"),
        ("half \udcff", r"half \udcff"),
        ("two\nlines\tand é ひ 🙂", "two\nlines\tand é ひ 🙂"),
    ],
)
def test_control_codes_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.recursive(st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=9))
def test_what_utf_8_cannot_hold_is_written_out(value: object) -> None:
    assert unstorable(storable(value)) is None
    assert unstorable(value) is not None or storable(value) == value


def test_a_file_is_written_whatever_the_text(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x \udcff é")
    assert (tmp_path / "a").read_text(encoding="utf-8") == r"x \udcff é"


@pytest.fixture
def results(tmp_path: Path, make_record: Callable[..., dict[str, Any]]) -> Path:
    """A variant and an error with control codes."""
    store = Store(tmp_path / "results")
    store.write(make_record(0.5, method="plain"))
    store.write(make_record(0.5, variant={"x": CODES}, params={"x": CODES}))
    failed = make_record(None, seed=1)
    failed["error"]["message"] = failed["error"]["traceback"] = CODES
    store.write(failed)
    return store.results


def shown(*words: str) -> str:
    """What a command prints, which no terminal obeys."""
    ended = CliRunner().invoke(app, words, env={"COLUMNS": "300", "TERM": "dumb"})
    assert ended.exit_code == 0, ended.output
    assert not {"\x1b", "\x07"} & set(ended.output)
    return ended.output


@pytest.mark.parametrize(
    "words", [["leaderboard"], ["leaderboard", "--markdown"], ["show", "tiny/5%/1"]], ids=" ".join
)
def test_a_terminal_does_not_obey_records(results: Path, words: list[str]) -> None:
    assert WRITTEN_OUT in shown(*words, "--results", str(results))


def test_a_terminal_does_not_obey_classes(tmp_path: Path) -> None:
    X, y = np.arange(16, dtype=np.uint8).reshape(4, 2, 2), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "mine.npz", X=X, y=y, class_names=np.array(["cat", CODES]))
    assert WRITTEN_OUT in shown("data", str(tmp_path / "mine.npz"))


def test_a_terminal_does_not_obey_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = SimpleNamespace(
        name="x",
        summary=CODES,
        origin="x.py",
        tags=SimpleNamespace(in_all=True),
        parameters=lambda schedule: {},
    )
    monkeypatch.setattr(registry, "discover", lambda plugins: [])
    monkeypatch.setattr(registry, "names", lambda: ["x"])
    monkeypatch.setattr(registry, "get", lambda name: entry)
    assert WRITTEN_OUT in shown("list")


def test_a_terminal_does_not_obey_what_a_trial_says() -> None:
    assert WRITTEN_OUT in result_line("x", "failed", None, CODES).plain


def test_a_page_holds_no_control_codes(results: Path) -> None:
    shown("report", "--results", str(results))
    page = (results / "report" / "index.html").read_text()
    assert printable(page) == page
    assert WRITTEN_OUT in page
