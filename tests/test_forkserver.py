"""The process that forks workers: what a fork has and is told, and what if the server ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from plugins_for_tests import Place, wait_for

from bench import execution, forkserver
from bench.datasets import load
from bench.execution import Outcome, execute
from bench.trial import Trial
from bench.worker import Job

pytestmark = pytest.mark.skipif(not forkserver.AVAILABLE, reason="forks are for Linux")

# Fits a network in a process that has imported the libraries, and says what that imported besides.
IMPORTED = """
import json, sys
from bench import forkserver
forkserver.import_libraries()
before = set(sys.modules)
import bench.worker, numpy as np
from methods import registry
registry.discover(())
X, y = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8), np.arange(20) % 2
registry.get("supervised-mlp").cls(n_clusters=2, random_state=0, epochs=1).fit(X, y)
registry.get("kmeans").cls(n_clusters=1, random_state=0, n_init=1).fit(X)
ours = {"bench", "methods"} | sys.stdlib_module_names
json.dump([m for m in set(sys.modules) - before if m.partition(".")[0] not in ours], sys.stdout)
"""

# Writes its parent's number and what the process-wide random numbers are.
RANDOM = """
import os, random
from pathlib import Path
import numpy as np, torch
from methods.method import Method
from methods.registry import register

@register("random-numbers")
class RandomNumbers(Method):
    def __init__(self, n_clusters=10, random_state=None):
        self.n_clusters, self.random_state = n_clusters, random_state

    def fit(self, X, y=None, context=None):
        numbers = [random.random(), np.random.random(), torch.rand(1).item()]
        with (Path(os.environ["BENCH_TEST_FOLDER"]) / "numbers").open("a") as file:
            file.write(repr([os.getppid(), *numbers]) + "\\n")
        self.labels_ = np.zeros(len(X), dtype=int)
        return self
"""


def test_the_libraries_that_workers_need_are_imported_before() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout)
    assert len(left) < 10, left  # torch alone has some two thousand modules


def test_forks_of_one_process_have_random_numbers_of_their_own(tmp_path: Path) -> None:
    plugin = tmp_path / "random_numbers.py"
    plugin.write_text(RANDOM)
    with Place(tmp_path) as place:
        ended = place.run("--method random-numbers --level 1%,5%,10%", plugin)
        assert ended.status == 0, ended.text
        rows = [json.loads(line) for line in place.read("numbers").splitlines()]
        parents, *numbers = zip(*rows, strict=True)
        assert len(set(parents)) == 1, "one process has forked them all"
        for of_one_kind in numbers:
            assert len(set(of_one_kind)) == 3


@pytest.fixture
def run_one(
    tmp_path: Path, make_trial: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Outcome]]:
    """``run_one(plugin, method)``: carry one trial on digits out, as the runner does."""
    digest = load("digits").digest
    monkeypatch.setenv("BENCH_TEST_FOLDER", str(tmp_path))

    def run(plugin: str, method: str) -> Outcome:
        trial = make_trial(
            method=method, dataset="digits", dataset_digest=digest, params={"n_clusters": 10}
        )
        file = str(Path(__file__).parent / "plugins" / f"{plugin}.py")
        job = Job((trial,), "digits", str(tmp_path), str(tmp_path / "cache"), plugins=(file,))
        return execute(job, str(tmp_path / "log"), None)

    yield run
    execution.end_servers()


def server() -> psutil.Process:
    """The one fork server of this process."""
    (found,) = execution._servers.values()
    return psutil.Process(found._process.pid)


def test_a_new_process_gives_what_a_fork_gives(
    run_one: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    for available in (True, False):
        monkeypatch.setattr(forkserver, "AVAILABLE", available)
        outcome = run_one("failing", "parent")
        assert outcome.status == "ok" and len(outcome.written) == 1, outcome
        assert run_one("failing", "aborts").message.startswith("the process was ended by SIGABRT")
        assert run_one("failing", "leaves") == Outcome("ok")
        assert bool(execution._servers) == available
        execution.end_servers()


def test_a_server_that_has_ended_is_replaced(run_one: Callable[..., Outcome]) -> None:
    assert run_one("failing", "parent").status == "ok"
    first = server()
    first.kill()
    wait_for("the end of the server", lambda: first.status() == psutil.STATUS_ZOMBIE, 10)
    assert run_one("failing", "parent").status == "ok"
    assert server().pid != first.pid


def test_when_the_server_is_killed_its_workers_end(
    run_one: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcomes: list[Outcome] = []
    running = threading.Thread(target=lambda: outcomes.append(run_one("failing", "victim")))
    running.start()
    wait_for("victim", lambda: (tmp_path / "victim").exists())
    victim = psutil.Process(int((tmp_path / "victim").read_text()))
    assert victim.ppid() == server().pid
    server().kill()
    running.join(30)
    assert [outcome.status for outcome in outcomes] == ["crashed"]
    wait_for("the end of the worker", lambda: not victim.is_running(), 10)


def test_a_server_that_cannot_start_says_where_its_output_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "log").open("ab") as log:
        environment = dict(os.environ) | {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)}
        server = forkserver.ForkServer(environment, log)
        with pytest.raises(OSError, match=f"has ended; its output: {tmp_path / 'log'}"):
            server.fork(log)
        assert not server.running
        server.close()
    assert (tmp_path / "log").read_text()
