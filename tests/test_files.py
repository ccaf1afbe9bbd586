"""Files that are written whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bench.core import files
from bench.core.files import write_text, written_whole


def test_a_file_is_swapped_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then a reader sees the old text, although the new one is complete beside it."""
    path = tmp_path / "file"
    write_text(path, "old")
    seen: list[str] = []
    replace = files.os.replace

    def look(draft: str, final: Path) -> None:
        seen.extend([Path(draft).read_text(), Path(final).read_text()])
        replace(draft, final)

    monkeypatch.setattr(files.os, "replace", look)
    write_text(path, "new")
    assert seen == ["new", "old"]
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # others may read it


def test_an_error_leaves_the_old_content_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_text(path, "old")

    def broken() -> None:
        with written_whole(path) as file:
            file.write(b"half of")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
