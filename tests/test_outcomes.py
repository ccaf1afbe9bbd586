"""What every method and stage makes of one small fixed fit; versions say when that changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fixed_fits
import pytest
import warm

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", fixed_fits.names())
def test_outcome_is_that_of_the_declared_version(name: str) -> None:
    assert not fixed_fits.complaint(name, fixed_fits.read(name), fixed_fits.outcome(name))


def test_every_kept_outcome_is_of_something() -> None:
    kept = {path.name for path in fixed_fits.FOLDER.glob("*.json")}
    assert kept == {fixed_fits.path_of(name).name for name in fixed_fits.names()}


# --- Provocations: does it notice what it is for? ------------------------------------------------

COMPLAIN = """
import sys, fixed_fits
name, known = sys.argv[1], fixed_fits.names()
print(fixed_fits.complaint(name, fixed_fits.read(name), fixed_fits.outcome(name)))
"""


def complaint_after(folder: Path, file: str, old: str, new: str, name: str) -> str:
    """What is said of `name` where every `old` of a file is `new`, in a copy of the code."""
    for package in ("bench", "methods"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignore)
    code = (folder / file).read_text()
    assert old in code
    (folder / file).write_text(code.replace(old, new))
    path = os.pathsep.join([str(folder), str(Path(__file__).parent)])
    process = warm.Popen(
        [sys.executable, "-P", "-c", COMPLAIN, name],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.splitlines()[-1].strip() if out.strip() else ""


def test_a_changed_learning_rate_is_noticed(tmp_path: Path) -> None:
    said = complaint_after(
        tmp_path, "methods/toolkit/training.py", "lr=lr", "lr=1.1 * lr", "method/ss-dcec"
    )
    assert said.startswith("method/ss-dcec: ")
    assert "raise the version" in said
    assert said.endswith("`python tests/write_outcomes.py method/ss-dcec`")


def test_a_renamed_variable_is_not(tmp_path: Path) -> None:
    said = complaint_after(
        tmp_path, "methods/dcec.py", "squared_distance", "d_squared", "method/ss-dcec"
    )
    assert said == ""


def test_a_raised_version_asks_for_its_outcome(tmp_path: Path) -> None:
    said = complaint_after(
        tmp_path,
        "methods/toolkit/stages/neighbours.py",
        "@stage(version=1)",
        "@stage(version=2)",
        "stage/neighbours",
    )
    assert "has version 2, its kept outcome is of version 1" in said


def test_outcomes_of_another_shape_are_far_apart() -> None:
    kept = json.loads(fixed_fits.path_of("stage/kmeans").read_text())
    other = kept | {"arrays": {}}
    assert fixed_fits.distance(kept, other) == (float("inf"), float("inf"))
    assert fixed_fits.distance(kept, kept) == (0, 0)
