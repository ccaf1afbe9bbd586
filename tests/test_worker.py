"""Where a worker finds the methods of its job, and what it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from plugins_for_tests import PLUGINS

from bench.core.errors import BenchError
from bench.core.trial import Grid, Trial
from bench.data import datasets
from bench.records.store import Store
from bench.running.job import Job
from bench.running.plan import Surroundings, make_plan
from bench.running.stages import StageStore
from bench.running.worker import Worker
from methods import registry

ROOT = Path(__file__).parent.parent
FIND = """
import sys
from bench.core.errors import BenchError
from bench.running.job import Job
from bench.running.worker import Worker
try:
    worker = Worker(Job.loads(sys.argv[1]), lambda event: None)
    print(worker.entry.name, *sorted(name for name in sys.modules if name.startswith("methods.")))
except BenchError as error:
    print(error)
"""

LOAD = """
import json, os, sys
from bench.running.forkserver import import_ours
from methods import registry
import_ours()
assert not registry.names()
lost = []
for module, names in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        problems = registry.load(module)
        os._exit(bool(problems) or not {*names} <= {*registry.names()})
    if os.wait()[1] != 0:
        lost.append(module)
print(lost)
"""


def trials(*names: str, levels: tuple[str, ...] = ("5%",)) -> list[Trial]:
    data = datasets.load("digits")
    entries = tuple(map(registry.get, names))
    return Grid(data.name, data.digest, data.n_classes, entries, levels, schedule="smoke").trials()


def found_by(job: Job) -> list[str]:
    """In a process that has imported no method: the method of the job, then the modules."""
    process = warm.Popen(
        [sys.executable, "-P", "-c", FIND, job.dumps()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PYTHONPATH": str(ROOT), warm.ANEW: "1"},
    )
    said = str(process.communicate()[0])
    assert process.returncode == 0, said
    return said.split()


def job_of(trial: Trial, folder: Path, module: str, *plugins: str) -> Job:
    return Job((trial,), "digits", str(folder), str(folder / "cache"), plugins, module=module)


def test_the_file_of_each_method_alone_brings_it(entries: dict[str, registry.Entry]) -> None:
    """In forks of a process that has what the server of workers has: none of them."""
    own: dict[str, list[str]] = {}
    for name in registry.names():
        if module := registry.get(name).module:  # of this package
            own.setdefault(module, []).append(name)
    assert len(own) > 10
    done = warm.run(
        [sys.executable, "-P", "-c", LOAD, json.dumps(own)], ROOT, os.environ | {warm.ANEW: "1"}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize("name", ["supervised-lr", "dcec", "ss-scan", "kmeans-percentile"])
def test_a_planned_job_imports_the_file_of_its_method_alone(
    entries: dict[str, registry.Entry], tmp_path: Path, name: str
) -> None:
    around = Surroundings(
        template=Job((), "digits", str(tmp_path), str(tmp_path / "cache")),
        n_fit=1797,
        X_digest="0123",
        precision="fp32",
        store=Store(tmp_path),
        stages=StageStore(tmp_path / "stages"),
    )
    jobs = [task.job for task in make_plan(trials(name), around).tasks]
    assert jobs
    for job in jobs:
        assert registry.get(name).cls.__module__.startswith(job.module)
        found, *modules = found_by(job)
        assert found == name
        assert job.module in modules
        assert "methods.manifold" not in modules


def test_what_is_not_where_it_was_found_is_looked_for_everywhere(
    entries: dict[str, registry.Entry], tmp_path: Path
) -> None:
    (trial,) = trials("supervised-lr")
    for module in ("methods.dcec", "methods.no_such_file", ""):
        found, *modules = found_by(job_of(trial, tmp_path, module))
        assert found == "supervised-lr"
        assert "methods.manifold" in modules


def test_a_method_that_is_another_one_without_labels(
    entries: dict[str, registry.Entry], tmp_path: Path
) -> None:
    """That one may be in a file of its own."""
    (trial,) = trials("seeded-kmeans", levels=("0%",))
    without = registry.get("seeded-kmeans").tags.without_labels
    assert without is not None
    assert registry.get(without).module
    job = job_of(trial, tmp_path, registry.get("seeded-kmeans").module)
    assert found_by(job)[0] == without


def test_a_plugin_from_elsewhere_is_loaded_from_its_file(
    entries: dict[str, registry.Entry], tmp_path: Path
) -> None:
    plugin = str(PLUGINS / "simple.py")
    assert registry.discover([plugin]) == []
    (name,) = set(registry.names_from(plugin)) & {"near"}
    assert registry.get(name).module == ""
    (trial,) = trials(name)
    assert found_by(job_of(trial, tmp_path, "", plugin))[0] == name
    said = " ".join(found_by(job_of(trial, tmp_path, "", str(tmp_path / "gone.py"))))
    assert said.startswith(f"no method is called {name!r}; ")
    assert f"there is no file {tmp_path / 'gone.py'}" in said


def test_what_is_wrong_with_the_file_of_a_method_is_said(
    entries: dict[str, registry.Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its module is imported by then: `discover` alone would find nothing to complain about."""
    (trial,) = trials("supervised-lr")
    job = job_of(trial, tmp_path, "methods.supervised")
    del entries["supervised-lr"]
    problem = registry.Problem("supervised.py", "supervised.py cannot be used: it is broken")
    monkeypatch.setattr(registry, "load", lambda module: [problem])
    with pytest.raises(BenchError, match=r"^no method is called 'supervised-lr'.*it is broken$"):
        Worker(job, lambda event: None)
