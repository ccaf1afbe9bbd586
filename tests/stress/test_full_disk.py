"""A disk that is full: what is there is kept, and one sentence says what is the matter."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugins_for_tests import Place
from undisturbed import check_kept, run_to_the_end

WORDS = "--method near,blind,kmeans --level 0%,1%,5% --seeds 2 --jobs 2"
PLUGINS = ("simple",)
SMALL = {"results": "40k", "cache": "40k"}  # some of the records, and of what is kept, fit in


def mount(*words: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    """A file system of that size at `folder`."""
    folder.mkdir(parents=True)
    mount("-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux mounts a tmpfs"
)
@pytest.mark.parametrize("what", SMALL)
def test_a_full_disk_keeps_what_there_is(tmp_path: Path, what: str) -> None:
    with (
        Place(tmp_path / "calm") as undisturbed,
        tmpfs(tmp_path / "full" / what, SMALL[what]),
        Place(tmp_path / "full") as place,
    ):
        calm = run_to_the_end(undisturbed, WORDS, PLUGINS)
        ended = place.run(WORDS, *PLUGINS)
        assert ended.status == 1, ended.text
        assert "Traceback" not in ended.text
        assert "No space left on device" in ended.text
        assert not place.processes()
        kept = list(place.statuses().values()).count("ok")
        if what == "results":
            assert check_kept(place, calm) == kept > 0
            reason, *more = ended.err.splitlines()
            assert reason.startswith("error: "), ended.err
            assert [line[:8] for line in more] in ([], ["stopped "]), ended.err
        failed = [name for name, status in place.statuses().items() if status == "failed"]
        mount("-o", "remount,size=10m", "tmpfs", str(tmp_path / "full" / what))
        run_to_the_end(place, f"{WORDS} --rerun failed", PLUGINS, calm)
    print(
        f"\nfull disk under {what}: {kept} of {len(calm)} records kept, {len(failed)} failed, and "
        "all there once it had room"
    )
