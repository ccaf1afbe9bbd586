"""The house: arrows point down, and a chain of them from the command to the core is short."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
ROOMS = ("bench.show", "bench.running", "bench.records", "bench.data", "bench.core", "methods")
MOST_FLOORS = 8


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the code in a folder, by the contracts of pyproject.toml."""
    command = [sys.executable, "-P", "-c", "from importlinter.cli import *; lint_imports_command()"]
    env = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [*command, "--no-cache"], cwd=folder, env=env, capture_output=True, text=True
    )


def test_no_arrow_points_up_and_there_is_no_circle() -> None:
    found = lint(ROOT)
    assert found.returncode == 0, found.stdout


def test_an_arrow_that_points_up_is_noticed(tmp_path: Path) -> None:
    for package in ("bench", "methods"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "bench" / "records" / "logs.py").open("a") as file:
        file.write("\nfrom bench.show import figures  # noqa\n")
    found = lint(tmp_path)
    assert found.returncode == 1
    assert "bench.records.logs -> bench.show.figures" in found.stdout


def test_it_is_not_far_from_the_command_to_the_core() -> None:
    graph = grimp.build_graph("bench", "methods", exclude_type_checking_imports=True)
    for room in ROOMS:
        graph.squash_module(room)

    @cache
    def floors(module: str) -> int:
        """How many floors a room and all below it make."""
        below = graph.find_modules_directly_imported_by(module)
        return 1 + max((floors(one) for one in below), default=0)

    assert 2 < floors("bench.cli") <= MOST_FLOORS
