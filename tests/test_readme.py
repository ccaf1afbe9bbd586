"""README is true: its plugin runs as written, its tables name what there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from methods import registry

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def plugin() -> tuple[str, str]:
    """The path and the code of README's example of a method."""
    found = re.search(r"<!-- plugin (\S+) -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found, "README has no plugin example"
    return found[1], found[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the code into which README's example was dropped."""
    for package in ("bench", "methods"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignore)
    path, code = plugin()
    (tmp_path / path).write_text(code)
    return tmp_path


def bench(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(checkout), "BENCH_CACHE": str(checkout / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=checkout,
        env=env,
        capture_output=True,
        text=True,
    )


def test_the_plugin_is_short() -> None:
    assert len(plugin()[1].splitlines()) <= 25


def test_the_plugin_dropped_into_methods_keeps_the_contract_and_runs(checkout: Path) -> None:
    checked = bench(checkout, "check", "nearest-mean")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    ran = bench(
        checkout, "run", "--method", "nearest-mean", "--dataset", "digits", "--level", "10%"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (record,) = (checkout / "results" / "trials").rglob("*.json")
    assert json.loads(record.read_text())["headline"] > 0.8
    listed = bench(checkout, "list")
    assert "nearest-mean" in listed.stdout


def test_every_method_of_all_is_described() -> None:
    assert registry.discover() == []
    table = README.partition("## What is compared")[2].partition("## Rules")[0]
    written = set()
    for cell in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        family = first.rsplit("-", 1)[0]
        written |= {first} | {family + name if name[0] == "-" else name for name in others}
    in_all = {name for name in registry.names() if registry.get(name).tags.in_all}
    assert written == in_all


def test_no_placeholder_is_left() -> None:
    assert not re.findall(r"@[A-Z]+@", README)
