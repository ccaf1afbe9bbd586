"""A user's own folder or file called ``methods``: said, instead of what follows from it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from plugins_for_tests import PLAIN

import bench
from bench.core import shadows
from bench.core.errors import BenchError

ROOT = Path(bench.__file__).parents[1]


def package(folder: Path) -> Path:
    (folder / "methods").mkdir()
    (folder / "methods" / "__init__.py").touch()
    return folder / "methods"


def module(folder: Path) -> Path:
    (folder / "methods.py").touch()
    return folder / "methods.py"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python in this folder; the project comes after it on the path, as when it is installed."""
    environment = PLAIN | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("make", [package, module])
@pytest.mark.parametrize("words", ["list", "run --method kmeans"])
def test_the_command_names_it(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    theirs = make(tmp_path)
    ended = run(tmp_path, "-m", "bench", *words.split())
    assert ended.returncode == 2
    assert ended.stderr == (
        f"error: {theirs} hides the package methods of this project, {ROOT / 'methods'}; rename "
        "it, or work in another folder\n"
    )
    assert ended.stdout == ""


def test_python_names_it(tmp_path: Path) -> None:
    theirs = module(tmp_path)
    ended = run(tmp_path, "-c", "import bench; bench.run(methods='kmeans')")
    assert ended.returncode == 1
    assert f"BenchError: {theirs} hides the package methods" in ended.stderr


def test_a_folder_that_hides_nothing(tmp_path: Path) -> None:
    """Without ``__init__.py`` it comes after any package."""
    (tmp_path / "methods").mkdir()
    assert run(tmp_path, "-m", "bench", "--help").returncode == 0


def test_a_folder_before_a_finder_of_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation in development may find the project last; then such a folder hides it."""
    (tmp_path / "methods").mkdir()
    without = [x for x in sys.path if Path(x or ".").resolve() != ROOT]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *without])
    monkeypatch.setattr(sys, "meta_path", [x for x in sys.meta_path if "editable" not in repr(x)])
    monkeypatch.delitem(sys.modules, "methods", raising=False)
    with pytest.raises(BenchError, match="hides the package methods"):
        shadows.check_methods()


def test_ours_is_ours() -> None:
    shadows.check_methods()
