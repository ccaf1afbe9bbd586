"""How the tests are run: by several workers of pytest-xdist, each on a core of its own.

The process that shares the tests out imports nothing of what they need: the workers wait for it.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest

CAN_PIN = hasattr(os, "sched_setaffinity")  # on Linux

# Numba compiles UMAP anew in every process, which takes half a minute of a processor: what needs it
# goes to one worker.
UMAP_FILES = tuple(
    f"test_{name}.py"
    for name in ("colour", "contract", "manifold", "outcomes", "projections", "report")
)
# A worker that begins one of these last is waited for: they take ten seconds and more.
LONG_FILES = (
    *UMAP_FILES,
    *("test_all_methods.py", "test_dcec.py", "test_page.py", "test_forkserver.py", "test_scan.py"),
    *("test_crash.py", "test_every_command.py", "test_fuzz.py", "test_wheel.py", "test_sdec.py"),
    *("test_plugin_trials.py", "test_matching.py", "test_runner.py", "test_baselines.py"),
    *("test_stages.py", "test_spreading.py", "test_cluster.py", "test_text.py", "test_advice.py"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Prepare this process for what it does: it tests, or it shares the tests out."""
    if hasattr(config, "workerinput") and CAN_PIN:
        _keep_to_one_core(int(config.workerinput["workerid"].removeprefix("gw")))
    # As xdist decides it: without workers (-n) this process tests, whatever --dist says.
    options = config.option
    distributes = getattr(options, "dist", "no") != "no" and bool(getattr(options, "tx", None))
    named = getattr(options, "hypothesis_profile", None)  # which the plugin registers
    if hasattr(config, "workerinput") or not distributes or options.collectonly or named:
        config.pluginmanager.import_plugin("fixtures_for_tests")
    elif CAN_PIN:
        _share_one_warm_process()


def _keep_to_one_core(worker: int) -> None:
    """Keep a worker, and the processes that its tests start, to one core.

    Workers that all use all cores mostly wait for each other's threads.
    """
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[worker % len(cores)]})


def _share_one_warm_process() -> None:
    """Start the process that forks warm ones, for all workers; its libraries see one core too."""
    import warm

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    os.environ["WARM_PYTHON"] = warm.address()
    os.sched_setaffinity(0, cores)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, in their order; all others after them as they were."""
    places = {name: place for place, name in enumerate(LONG_FILES)}
    assert all((Path(__file__).parent / name).exists() for name in places)
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """Look for garbage less often: it is a tenth of what thousands of small tests take."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.hookimpl(optionalhook=True)  # without xdist there is no such hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By file, as ``--dist loadfile`` does, and the files that need UMAP as one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            return "umap" if file.endswith(UMAP_FILES) else file

    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # not by the number of tests: as they were sorted
    return Scheduling(config, log)
