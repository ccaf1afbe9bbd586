"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bench.core.errors import WriteError

YOUNG_S = 1.0
READABLE = 0o644  # what a temporary file is not, and others may want to read


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` in one step once it is on the disk.

    A reader sees the old content or the new, never half of it; an error leaves the old one. The
    folder is made where it is missing. The draft of a process that was killed while it wrote the
    same file is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_drafts(path)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            with contextlib.suppress(OSError):  # a file system without locks: drafts stay there
                fcntl.flock(file, fcntl.LOCK_EX)  # the system gives it back when this process dies
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, READABLE)
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


@contextmanager
def said_if_unwritable(path: Path, cure: str = "give another --results") -> Iterator[None]:
    """Turn the system's refusal to write `path` into one sentence with its cure, a `WriteError`."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{path} cannot be written ({error.strerror or error}); make room there, or {cure}"
        ) from error


def check_writable(folder: Path) -> None:
    """Make a folder where it is missing, and a file in it that is gone at once.

    Raises
    ------
    WriteError : that cannot be done.
    """
    with said_if_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=folder, prefix=".writable-")
        os.close(handle)
        os.unlink(draft)


def _remove_left_drafts(path: Path) -> None:
    """Delete the drafts of `path` that nobody is writing any more: nobody holds their lock.

    The writer of a young one may not have taken the lock yet. What is another user's, has just gone
    or cannot be locked stays.
    """
    for draft in path.parent.glob(f".{glob.escape(path.name)}-*"):
        with contextlib.suppress(OSError), draft.open("r+b") as file:  # NFS locks what can change
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(file.fileno()).st_mtime > YOUNG_S:
                draft.unlink()


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`, whole or not at all; what UTF-8 cannot hold is written out."""
    with written_whole(path) as file:
        file.write(text.encode(errors="backslashreplace"))
