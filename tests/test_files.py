"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
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


WRITE_HALF = """
import os, signal, sys, pathlib
from bench.core.files import written_whole
with written_whole(pathlib.Path(sys.argv[1])) as file:
    file.write(b"half of")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_writer_removes_the_draft_of_one_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "file[1]"
    write_text(path, "old")
    done = subprocess.run([sys.executable, "-c", WRITE_HALF, str(path)])
    assert done.returncode == -9
    (draft,) = tmp_path.glob(".file*")
    (tmp_path / ".file[1]er-0").touch()  # of another file
    write_text(path, "new")
    assert draft.exists(), "it is so young that its writer may just be starting"
    for left in tmp_path.glob(".file*"):
        os.utime(left, (0, 0))
    write_text(path, "newer")
    assert path.read_text() == "newer"
    assert sorted(x.name for x in tmp_path.iterdir()) == [".file[1]er-0", "file[1]"]


def test_a_draft_that_is_being_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with written_whole(path) as file:
        (draft,) = tmp_path.iterdir()
        os.utime(draft, (0, 0))
        write_text(path, "of another")
        file.write(b"mine")
        os.utime(draft, (0, 0))
        write_text(path, "of a third")
    assert path.read_text() == "mine"
