"""``bench check`` where Python optimises: assertions are nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from test_check import PLUGIN


def test_it_finds_what_it_finds_without(tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    plain, *optimised = (
        subprocess.run(
            [sys.executable, "-m", "bench", "check", str(path)],
            env=os.environ | {"PYTHONOPTIMIZE": level},  # its own process heeds that too
            capture_output=True,
            text=True,
        )
        for level in ("", "1", "2")
    )
    assert plain.returncode == 1
    assert plain.stdout.count("FAILED") > 2
    for one in optimised:
        assert (one.returncode, one.stdout) == (plain.returncode, plain.stdout)
