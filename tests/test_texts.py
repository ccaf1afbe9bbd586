"""Texts from elsewhere: what can be kept of them, and shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.files import write_text
from bench.core.texts import printable, storable, unstorable


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
