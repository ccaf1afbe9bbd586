"""The documents are true: the plugin runs as written, tables and links name what there is."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import warm

from methods import registry

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MOST_BYTES = 9000
DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "bench/README.md",
    "methods/README.md",
    "results/README.md",
    "results/benchmarks/README.md",
]


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
    return warm.run([sys.executable, "-m", "bench", *words], checkout, env)


def test_the_plugin_is_short() -> None:
    assert len(plugin()[1].splitlines()) <= 25


def test_the_plugin_dropped_into_methods_keeps_the_contract_and_runs(checkout: Path) -> None:
    checked = bench(checkout, "check", "nearest-mean")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    ran = bench(
        checkout, "run", "--method", "nearest-mean", "--dataset", "digits", "--level", "10%"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (record,) = (checkout / "my-results" / "trials").rglob("*.json")
    assert json.loads(record.read_text())["headline"] > 0.8
    listed = bench(checkout, "list")
    assert "nearest-mean" in listed.stdout


def test_every_method_of_all_is_described() -> None:
    assert registry.discover() == []
    text = (ROOT / "methods" / "README.md").read_text()
    table = text.partition("## What is compared")[2].partition("\n## ")[0]
    written = set()
    for cell in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        family = first.rsplit("-", 1)[0]
        written |= {first} | {family + name if name[0] == "-" else name for name in others}
    in_all = {name for name in registry.names() if registry.get(name).tags.in_all}
    assert written == in_all


def test_readme_is_short() -> None:
    assert len(README.encode()) <= MOST_BYTES


def anchors(document: Path) -> set[str]:
    """What a link can point to in a document: its headings, as GitHub writes them."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_what_exists(name: str) -> None:
    document = ROOT / name
    text = re.sub(r"```.*?```|`[^`\n]*`", "", document.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^()\s]+)\)", text)
    for link in links:
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), f"{name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{name} links to {link}: no such heading"


def test_readme_links_to_all_other_documents() -> None:
    for name in DOCUMENTS[1:]:
        assert f"]({name})" in README


def leaderboard() -> list[dict[str, str]]:
    """The rows of the committed leaderboard."""
    with (ROOT / "results" / "leaderboard.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_data_dictionary_has_the_columns_of_the_csv() -> None:
    text = (ROOT / "bench" / "README.md").read_text()
    table = text.partition("<!-- data dictionary -->")[2].partition("<!-- end -->")[0]
    described = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert described == list(leaderboard()[0])


@pytest.mark.parametrize("name", ["README.md", "results/README.md"])
def test_the_table_says_what_the_leaderboard_says(name: str) -> None:
    """The first table of the document, of which README has some rows."""
    board = ["fashion-mnist", "transductive", "stratified", "quick"]
    measured = {
        (row["method"], row["level"]): row["headline_mean"]
        for row in leaderboard()
        if list(row.values())[:4] == board and not row["variant"]
    }
    table = re.search(r"^\| method \|.*?\n\n", (ROOT / name).read_text(), re.M | re.S)
    assert table, f"{name} has no table of methods"
    head, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].split("\n") if line
    )
    for method, *cells in rows:
        for level, cell in zip(head[1:], cells, strict=True):
            if level.endswith("%"):
                given = re.split("[ ±≈?]", cell.replace("*", ""))[0]
                expected = measured[method, level]
                assert (given == "n/a") == (expected == ""), f"{name}: {method} at {level}"
                if expected:
                    assert abs(float(given) - float(expected)) <= 0.000501, f"{method} at {level}"


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\n## {project['version']} - " in (ROOT / "CHANGELOG.md").read_text()
