"""Trials of plugins: what their processes can import, and parameters that do not stay."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from plugins_for_tests import DEADLINE_SECONDS, PLUGINS, Place

from bench.core.trial import Grid, Trial
from bench.data import datasets
from bench.records.store import Store
from bench.running.job import Job
from bench.running.worker import Worker
from methods import registry


@pytest.fixture
def trials(entries: dict[str, registry.Entry]) -> Callable[[str], list[Trial]]:
    """``trials("grows")``: those of the plugin of this name on the digits, at two levels."""

    def plan(name: str) -> list[Trial]:
        assert registry.discover([PLUGINS / f"{name}.py"]) == []
        data = datasets.load("digits")
        return Grid(
            dataset=data.name,
            dataset_digest=data.digest,
            n_classes=data.n_classes,
            entries=(registry.get(name),),
            levels=("1%", "5%"),
            schedule="smoke",
        ).trials()

    return plan


def test_a_default_that_grows_is_a_failure_with_a_sentence(
    tmp_path: Path, cache: Path, trials: Callable[[str], list[Trial]]
) -> None:
    """Its list was also the trial's: the record was filed as another trial's and not found."""
    planned = trials("grows")
    for trial in planned:
        Worker(Job((trial,), "digits", str(tmp_path), str(cache)), lambda event: None).run()
        record = Store(tmp_path).read(trial)
        assert record is not None
        assert record["status"] == "failed"
        assert record["trial"]["params"]["sizes"] == []
        assert record["error"]["message"] == (
            "fit changes sizes from [] to [1797]: leave parameters as they were given and work on "
            "copies"
        )


@pytest.mark.slow
def test_what_a_plugin_starts_can_import_it(tmp_path: Path) -> None:
    """And the trial ends with its fit, though joblib's processes stay for five minutes."""
    assert DEADLINE_SECONDS < 300
    with Place(tmp_path) as place:
        ended = place.run("--method starts --level 5% --timeout none", "starts")
        assert ended.status == 0, ended.text


def test_a_function_of_a_plugin_leads_back_to_its_file(
    tmp_path: Path, entries: dict[str, registry.Entry]
) -> None:
    """By its name alone, also where two files share their name and the paths hold separators."""
    for number, folder in enumerate(("a:b", "c,d é")):
        path = tmp_path / folder / "twin.py"
        path.parent.mkdir()
        path.write_text(f"def which(): return {number}\n")
        assert registry.discover([path]) == []
    found = [m for name, m in sys.modules.items() if name.startswith("methods.plugins.twin_")]
    twins = sorted(found, key=lambda module: module.which())
    assert [module.which() for module in twins] == [0, 1]
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)())"
    for number, module in enumerate(twins):
        done = subprocess.run(
            [sys.executable, "-c", code], input=pickle.dumps(module.which), capture_output=True
        )
        assert done.stdout == f"{number}\n".encode(), done.stderr


def test_a_neighbour_hides_no_library(tmp_path: Path, entries: dict[str, registry.Entry]) -> None:
    (tmp_path / "wave.py").write_text("raise RuntimeError('hides the library')\n")
    path = tmp_path / "plugin.py"
    path.write_text("import wave\nwave.open\n")
    sys.modules.pop("wave", None)
    assert registry.discover([path]) == []
