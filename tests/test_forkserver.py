"""The process that forks workers: what a fork has and is told, and what if the server ends."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import warm
from plugins_for_tests import Place, wait_for

import bench
from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.data.datasets import load
from bench.records.store import read_record
from bench.running import api, execution, forkserver
from bench.running.execution import Outcome, execute
from bench.running.forkserver import Forked, ForkServer
from bench.running.job import Job
from bench.running.libraries import LIBRARIES
from bench.running.plan import Plan
from bench.running.runner import Summary

pytestmark = pytest.mark.skipif(not forkserver.is_available(), reason="forks are for Linux")

TEN_MINUTES = 600
NewServer = Callable[..., ForkServer]

# Imports all that the server does where asking anything of CUDA fails; a fork may use it then.
NO_CUDA = """
import os, weakref
import torch
from bench.running.forkserver import import_ours
from bench.running.libraries import import_libraries

def asked(*arguments):
    raise AssertionError("CUDA was asked before the fork")

own = weakref.finalize(asked, print)
kept = {name: getattr(torch.cuda, name) for name in ("is_available", "device_count", "_lazy_init")}
for name in kept:
    setattr(torch.cuda, name, asked)
import_libraries()
import_ours()
assert not torch.cuda.is_initialized()
assert not own.atexit, "forks would tidy up"
if os.fork() == 0:
    for name, function in kept.items():
        setattr(torch.cuda, name, function)
    assert not torch.cuda._is_in_bad_fork()
    if torch.cuda.is_available():
        torch.ones(1, device="cuda").item()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
for name, function in kept.items():
    setattr(torch.cuda, name, function)
"""

# Then fits a network, and says what that imported besides.
IMPORTED = """
import json, sys
before = set(sys.modules)
import bench.running.worker, numpy as np
from methods import registry
registry.discover(())
X, y = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8), np.arange(20) % 2
registry.get("supervised-mlp").cls(n_clusters=2, random_state=0, epochs=1).fit(X, y)
registry.get("kmeans").cls(n_clusters=1, random_state=0, n_init=1).fit(X)
ours = {"bench", "methods"} | sys.stdlib_module_names
json.dump([m for m in set(sys.modules) - before if m.partition(".")[0] not in ours], sys.stdout)
"""

# A script of a user who has not heard of ``if __name__ == "__main__"``.
UNGUARDED = """
import sys
import bench
print("the script runs")
summary = bench.run(methods=["kmeans"], levels=["0%"], dataset="digits", schedule="smoke",
                    results=sys.argv[1], quiet=True)
print(summary.counts)
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


def test_the_libraries_are_imported_before_and_leave_cuda_alone() -> None:
    """CUDA works in no fork of a process that has used it; to ask for devices is a use."""
    assert "torch" in LIBRARIES
    code = NO_CUDA + IMPORTED
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout)
    assert len(left) < 10, left  # scikit-learn alone has some five hundred modules


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes are what they are elsewhere than in tests: new ones, that import for long."""
    for module in (forkserver, execution):
        monkeypatch.setattr(module, "subprocess", subprocess)


EDITS = """
from pathlib import Path
import numpy as np
from methods.method import Method
from methods.registry import register
from methods.toolkit import votes

@register("edits")
class Edits(Method):
    def __init__(self, n_clusters=10, random_state=None):
        self.n_clusters, self.random_state = n_clusters, random_state

    def fit(self, X, y=None, context=None):
        seen = getattr(votes, "EDITED", False)
        with open("seen.txt", "a") as file:
            print(seen, file=file)
        if not seen:
            with open(votes.__file__, "a") as file:
                print("EDITED = True", file=file)
        self.labels_ = np.zeros(len(X), dtype=int)
        return self
"""


def test_a_fork_has_the_toolkit_as_it_is_when_the_job_starts(tmp_path: Path) -> None:
    """Though the server has it too; what it could not import is the trouble of who needs it."""
    root = Path(__file__).parent.parent
    for package in ("bench", "methods"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / package, tmp_path / package, ignore=ignore)
    (tmp_path / "methods" / "toolkit" / "broken.py").write_text("1 / 0")
    (tmp_path / "edits.py").write_text(EDITS)
    with Place(tmp_path) as place:
        place.environment["PYTHONPATH"] = str(tmp_path)
        ended = place.run("--method edits --level 1%,5% --jobs 1", tmp_path / "edits.py")
        assert ended.status == 0, ended.text
        assert place.read("seen.txt").split() == ["False", "True"]
        assert "EDITED" not in (root / "methods" / "toolkit" / "votes.py").read_text()


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


def test_a_script_without_a_guard_is_run_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    with Place(tmp_path) as place:
        root = str(Path(__file__).parent.parent)
        done = warm.run(
            [sys.executable, str(script), str(place.results)],
            tmp_path,
            place.environment | {"PYTHONPATH": root},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["the script runs", "{'ok': 1}"]
        assert list(place.statuses().values()) == ["ok"]
        assert not place.processes()


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[NewServer]:
    """``new_server(**variables)``: a fork server of the test's own, with these variables."""
    with contextlib.ExitStack() as stack:

        def make(**variables: str) -> ForkServer:
            environment = execution._environment(1) | {"BENCH_TEST_FOLDER": str(tmp_path)}
            own = ForkServer(environment | variables, tmp_path / "server.log")
            return stack.enter_context(contextlib.closing(own))

        yield make


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workers of the server that the tests share write."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[ForkServer]:
    """A server that has started and that tests leave as it is."""
    environment = execution._environment(1) | {"BENCH_TEST_FOLDER": str(folder)}
    with contextlib.closing(ForkServer(environment, folder / "server.log")) as server:
        yield server


@pytest.fixture
def server(new_server: NewServer) -> ForkServer:
    """A fork server of the test's own."""
    return new_server()


@pytest.fixture
def run_one(
    tmp_path: Path,
    folder: Path,
    make_trial: Callable[..., Trial],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Outcome]:
    """``run_one(server, method, limit_s, device, **params)``: a trial on digits, as in a run.

    What the plugin writes is in `tmp_path` where the server is the test's own, else in `folder`.
    """
    digest = load("digits").digest
    monkeypatch.setenv("BENCH_TEST_FOLDER", str(folder))
    plugin = str(Path(__file__).parent / "plugins" / "failing.py")

    def run(
        server: ForkServer | None,
        method: str,
        limit_s: float | None = None,
        device: str = "cpu",
        **params: Any,
    ) -> Outcome:
        params = {"n_clusters": 10} | params
        trial = make_trial(
            method=method, dataset="digits", dataset_digest=digest, params=params, precision="fp32"
        )
        places = (str(tmp_path), str(tmp_path / "cache"))
        job = Job((trial,), "digits", *places, (plugin,), device=device, fresh=True)
        return execute(job, str(tmp_path / "log"), limit_s, None, server)

    return run


def maps_of(process: psutil.Process) -> str:
    """The files that a process has in its memory."""
    return Path(f"/proc/{process.pid}/maps").read_text()


@contextlib.contextmanager
def beside(call: Callable[[], Outcome]) -> Iterator[list[Outcome]]:
    """Make the call in a thread; on leaving it has ended, and the list holds what it returned."""
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(call()))
    thread.start()
    try:
        yield outcomes
    finally:
        thread.join(60)
    assert not thread.is_alive()


def has_ended(process: psutil.Process) -> bool:
    """Whether it is over, its exit status known to anybody or not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def victim_of(folder: Path) -> psutil.Process:
    """The worker of the method victim, which waits to be killed."""
    told = folder / "victim"  # which exists before its line is in it
    wait_for("victim", lambda: told.exists() and told.read_text().endswith("\n"))
    return psutil.Process(int(told.read_text()))


@pytest.mark.usefixtures("cold")
def test_a_server_imports_while_the_run_is_planned_and_its_forks_give_what_a_new_process_gives(
    run_one: Callable[..., Outcome], folder: Path, tmp_path: Path
) -> None:
    with execution.fork_server(1, str(tmp_path / "server")) as server:
        first = psutil.Process(server.pid)
        wait_for("the import of torch", lambda: "libtorch_cpu" in maps_of(first), 60)
        subsets = []
        for one in (server, None):
            outcome = run_one(one, "supervised-mlp", epochs=2)
            assert outcome.status == "ok", outcome
            (path,) = outcome.written
            subsets.append(read_record(Path(path))["subsets"])
        assert subsets[0] == subsets[1]
        (folder / "tidied").unlink(missing_ok=True)
        assert run_one(server, "tidies").status == "ok"
        assert len((folder / "tidied").read_text().splitlines()) == 1
        assert run_one(server, "aborts").message.startswith("the process was ended by SIGABRT")
        assert run_one(server, "leaves") == Outcome("ok")
        assert server.pid == first.pid
    assert server.pid is None
    assert not first.is_running()


def test_a_worker_that_is_no_fork_ends_as_python_does(
    run_one: Callable[..., Outcome], folder: Path
) -> None:
    (folder / "tidied").unlink(missing_ok=True)
    assert run_one(None, "tidies").status == "ok"
    assert len((folder / "tidied").read_text().splitlines()) == 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("method", ["parent", "stray"])
def test_what_a_worker_leaves_behind_ends_though_the_runner_is_gone(
    method: str,
    run_one: Callable[..., Outcome],
    shared: ForkServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The runner may be killed when a worker has just ended, and before it ended the rest."""
    monkeypatch.setattr(execution, "end_group", lambda process: None)
    assert run_one(shared, method).status == "ok"
    child = int((folder / "child").read_text().split()[-1])
    wait_for("the end of the child", lambda: not psutil.pid_exists(child), 10)


@pytest.mark.filterwarnings("always::ResourceWarning")
def test_no_pipe_of_a_worker_stays_open(
    run_one: Callable[..., Outcome], shared: ForkServer, recwarn: pytest.WarningsRecorder
) -> None:
    """They would be told one by one to who runs Python with ``-W error``, or ``-X dev``."""
    for server in (shared, None):
        assert run_one(server, "parent").status == "ok"
    gc.collect()
    said = [str(warning.message) for warning in recwarn]
    assert not [one for one in said if one.startswith("unclosed file")]


def test_a_method_that_asks_for_input_is_told_that_there_is_none(
    run_one: Callable[..., Outcome], shared: ForkServer
) -> None:
    (path,) = run_one(shared, "asks", 60).written
    assert read_record(Path(path))["error"]["message"].startswith("EOFError")


def test_a_job_on_an_accelerator_is_forked_too(
    run_one: Callable[..., Outcome], server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fork(log: Any, limit_s: float) -> Any:
        asked.append(limit_s)
        raise TimeoutError

    monkeypatch.setattr(server, "fork", fork)
    assert run_one(server, "supervised-mlp", 5.0, "cuda").status == "crashed"
    assert asked == [execution.STARTING_S]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_forks_can_use_cuda(run_one: Callable[..., Outcome], server: ForkServer) -> None:
    for _ in range(2):  # the second one is forked by a server whose fork has used it
        outcome = run_one(server, "supervised-mlp", device="cuda", epochs=2)
        assert outcome.status == "ok", outcome
        (path,) = outcome.written
        record = read_record(Path(path))
        assert (record["status"], record["environment"]["device"]) == ("ok", "cuda")


@pytest.mark.parametrize("why", ["an error", "nothing to do"])
def test_a_run_that_needs_no_server_keeps_none(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int | None] = []
    given: list[ForkServer | None] = []

    @contextlib.contextmanager
    def noted(threads: int, log: str) -> Iterator[ForkServer]:
        with execution.fork_server(threads, log) as server:
            started.append(server.pid)
            yield server

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(api, "fork_server", noted)
    if why == "nothing to do":
        monkeypatch.setattr(api, "make_plan", lambda *_: Plan([], [], [], []))

    def carried_out(*arguments: Any) -> Summary:
        server = arguments[-1].server
        assert server.pid is None
        given.append(server)
        return Summary({})

    monkeypatch.setattr(api, "_carry_out", carried_out)
    dataset = "nowhere.npz" if why == "an error" else "digits"
    with contextlib.suppress(BenchError):
        bench.run(methods=["kmeans"], dataset=dataset, results=tmp_path / "results")
    (pid,) = started
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert len(given) == (why != "an error")


def test_a_run_on_an_accelerator_keeps_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(api.machine, "resolve_device", lambda _: "cuda")
    kept = []

    def carried_out(plan: Plan, *others: Any) -> Summary:
        assert {task.job.device for task in plan.tasks} == {"cuda"}
        kept.append(psutil.Process(others[-1].server.pid).is_running())
        return Summary({})

    monkeypatch.setattr(api, "_carry_out", carried_out)
    bench.run(methods=["kmeans"], dataset="digits", device="cuda", results=tmp_path / "results")
    assert kept == [True]


def test_when_the_server_is_killed_its_workers_end_and_it_is_replaced(
    run_one: Callable[..., Outcome], server: ForkServer, tmp_path: Path
) -> None:
    with beside(lambda: run_one(server, "victim")) as outcomes:
        victim = victim_of(tmp_path)
        assert victim.ppid() == server.pid
        first = psutil.Process(server.pid)
        first.kill()
    message = "it was killed because the process that forks workers had ended"
    assert outcomes == [Outcome("crashed", message)]
    wait_for("the end of the worker", lambda: not victim.is_running(), 10)
    for _ in range(2):  # the second time it has died with nothing to do
        assert run_one(server, "parent").status == "ok"
        again = psutil.Process(server.pid)
        assert again.pid != first.pid
        again.kill()
        wait_for("its end", lambda one=again: has_ended(one), 10)
        first = again


def test_where_there_is_no_room_for_a_fork_the_others_go_on(
    run_one: Callable[..., Outcome], shared: ForkServer, folder: Path
) -> None:
    with beside(lambda: run_one(shared, "victim")) as outcomes:
        victim = victim_of(folder)
        process = psutil.Process(shared.pid)
        limits = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 2, limits[1]))
        with pytest.raises(OSError, match="the process that forks workers failed; its output: "):
            run_one(shared, "parent")
        process.rlimit(psutil.RLIMIT_NOFILE, limits)
        assert run_one(shared, "parent").status == "ok"
        victim.kill()
    assert [outcome.status for outcome in outcomes] == ["crashed"]
    assert "SIGKILL" in outcomes[0].message
    assert process.pid == shared.pid
    assert process.num_fds() < 8, "descriptors were kept"


def test_what_a_server_takes_to_import_is_no_part_of_a_trial_s_time(
    run_one: Callable[..., Outcome], server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cold disk would make a trial of a tenth of a second one that took too long."""
    fork, watch, limits = server.fork, execution._watch, []

    def late(*given: Any) -> Forked:
        time.sleep(0.2)
        return fork(*given)

    def watched(job: Job, process: Any, limit_s: float, *others: Any) -> Any:
        limits.append(limit_s)
        return watch(job, process, limit_s, *others)

    monkeypatch.setattr(server, "fork", late)
    monkeypatch.setattr(execution, "_watch", watched)
    assert run_one(server, "raises", 60.0).status == "ok"  # the record says that it failed
    assert limits == [60.0]


@pytest.mark.usefixtures("cold")
def test_a_limit_and_an_end_come_through_while_the_libraries_are_imported(
    run_one: Callable[..., Outcome],
    new_server: NewServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "torch.py").write_text(f"import time; time.sleep({TEN_MINUTES})")
    path = execution._environment(1)["PYTHONPATH"]
    server = new_server(PYTHONPATH=os.pathsep.join([path, str(slow)]))
    with monkeypatch.context() as patched:
        patched.setattr(execution, "STARTING_S", 1.0)
        said = "no process of it had begun after 1 s"
        assert run_one(server, "parent", TEN_MINUTES) == Outcome("crashed", said)

    def attempt() -> Outcome:
        with pytest.raises(OSError, match="the process that forks workers failed"):
            run_one(server, "parent")
        return Outcome("crashed")

    def end() -> list[Outcome]:
        server.close()  # again and again, as the runner does: it may just have been starting
        return outcomes

    with beside(attempt) as outcomes:
        wait_for("the end of the attempt", end, 30)


@pytest.mark.usefixtures("cold")
def test_a_server_that_cannot_start_says_where_its_output_is(
    new_server: NewServer, tmp_path: Path
) -> None:
    server = new_server(PYTHONHOME=str(tmp_path))
    message = f"failed; its output: {tmp_path / 'server.log'}"
    with (tmp_path / "log").open("ab") as log, pytest.raises(OSError, match=message):
        server.fork(log)
    assert (tmp_path / "server.log").read_text()
