"""Runs on other machines: what travels, what comes back, what becomes of a run that loses them.

Here a node is a process with a cache of its own that sees no folder of the run; what dask itself
does is in test_dask.py and stress/test_dask_deaths.py.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from PIL import Image
from plugins_for_tests import PLUGINS
from rich.console import Console

import bench
from bench.commands.output import print_summary
from bench.core import machine
from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.records.store import Store, dump_record, dump_views
from bench.running import api, cluster, parcel
from bench.running.cluster import Cluster, Node, SchedulerLost, Start
from bench.running.execution import Outcome
from bench.running.job import Job
from bench.running.parcel import Answer, Parcel, carry_out, pack, receive
from bench.running.plan import Plan, Task
from bench.running.progress import Display
from bench.running.runner import Limits, Runner
from methods.method import Method, Tags
from methods.registry import Entry

MakeTrial = Callable[..., Trial]
MakeRecord = Callable[..., dict[str, Any]]
NODE = Node("0", cores=8, bf16=True, sees=False, slots=4)


def become_node(folder: str, address: str) -> None:
    """In a new process: have a home and a cache of one's own; workers are forked at `address`."""
    os.environ.update(BENCH_CACHE=f"{folder}/cache", HOME=folder, WARM_PYTHON=address)
    for known in (parcel._as_file, parcel._digest):
        known.cache_clear()
    warm.use_here()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """A new process, which gets what it is given as bytes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        yield executor


@pytest.fixture
def node(elsewhere: ProcessPoolExecutor, tmp_path: Path) -> Callable[[Parcel], Future[Answer]]:
    """Hands parcels over to a node whose folders are new: its home is ``tmp_path / "there"``."""
    address = os.environ.get("WARM_PYTHON") or warm.address()
    elsewhere.submit(become_node, str(tmp_path / "there"), address).result()
    return lambda parcel: elsewhere.submit(carry_out, parcel)


def shoes(path: Path) -> None:
    """120 images of three classes, as bright as their class; as a file or as a folder."""
    y = np.arange(120) % 3
    noise = np.random.default_rng(0).integers(0, 60, (120, 8, 8))
    X = (y[:, None, None] * 90 + noise).astype(np.uint8)
    if path.suffix:
        np.savez(path, X=X, y=y)
        return
    for i, image in enumerate(X):
        place = path / f"class {y[i]}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shoes.npz", "shoes"])
def test_without_shared_folders_all_travels(
    tmp_path: Path,
    cache: Path,
    entries: dict[str, Entry],
    node: Callable[[Parcel], Future[Answer]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Data and plugins go there, records and logs come back; the outcomes are those of here."""
    shoes(tmp_path / name)
    there = tmp_path / "there"
    wish = {
        "methods": ["near", "kmeans-full"],
        "levels": ["10%"],
        "schedule": "smoke",
        "dataset": tmp_path / name,
        "plugins": [PLUGINS / "simple.py"],
    }
    sent: list[Parcel] = []

    @contextmanager
    def two_slots(address: str | None, results: Path) -> Iterator[Cluster]:
        def noted(given: Parcel) -> Future[Answer]:
            sent.append(given)
            return node(given)

        with parcel.marker_in(results, cache) as marker:
            yield Cluster(noted, (NODE,), marker)

    monkeypatch.setattr(api, "dask_cluster", two_slots)
    far = bench.run(**wish, backend="dask", jobs="auto", results=tmp_path / "far")
    assert (far.counts, far.exit_status, far.jobs) == ({"ok": 2}, 0, 4)
    brought = [given.data.content is not None for given in sent if given.data]
    assert not brought[0], "the node may have the data"
    assert 1 <= sum(brought) <= 2, "it had not; the second trial may have asked meanwhile"
    here = bench.run(**wish, jobs=1, results=tmp_path / "here")
    assert here.counts == {"ok": 2}
    records, same = ({r["identity"]: r for r in Store(tmp_path / x)} for x in ("far", "here"))
    assert len(records) == 2
    for identity, record in records.items():
        assert record.get("subsets") == same[identity].get("subsets")
        assert record["environment"]["threads"] == 2
    check_folders(tmp_path, there, cache)


def check_folders(folder: Path, there: Path, cache: Path) -> None:
    """The node kept data, stages and fits; the run's folders have what their owner looks at."""
    assert list((there / "cache" / "datasets" / "sent").glob("*/shoes.npz"))
    assert list((there / "cache" / "stages" / "kmeans").glob("*/facts.json"))
    assert list((there / "cache" / "fits").glob("*/facts.json"))
    far = {x.relative_to(folder / "far") for x in (folder / "far").rglob("*")}
    assert far == {x.relative_to(folder / "here") for x in (folder / "here").rglob("*")}
    assert not [x for x in [*cache.iterdir(), *(folder / "far").rglob(".*")] if "run-" in x.name]
    logs = [log.read_text() for log in (cache / "logs").rglob("near/10%/0.log")]
    assert [log.count("near was shown 12 labels") for log in logs] == [2]


@pytest.fixture
def job(tmp_path: Path, make_trial: MakeTrial, entries: dict[str, Entry]) -> Job:
    entries["tiny"] = Entry("tiny", Method, {}, Tags(), "here")
    results, its_cache = str(tmp_path / "results"), str(tmp_path / "cache")
    return Job((make_trial(),), "digits", results, its_cache)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch, make_true_record: MakeRecord) -> list[Job]:
    """The jobs that were executed: each leaves a record with views and a log."""
    found: list[Job] = []

    def execute(job: Job, log: str, timeout_s: Any, memory: Any) -> Outcome:
        assert (timeout_s, memory) == (5.0, 2**30)
        found.append(job)
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        Path(log).write_text("last words\n")
        path = Store(Path(job.results)).write(make_true_record(), {"clusters": []})
        return Outcome("crashed", f"its output: {log}", written=(str(path),))

    monkeypatch.setattr(parcel, "execute", execute)
    return found


def test_who_sees_both_folders_works_in_them(job: Job, done: list[Job], cache: Path) -> None:
    log = str(cache / "logs" / "log")
    with parcel.marker_in(Path(job.results), cache) as marker:
        answer = carry_out(pack(job, log, 5.0, 2**30, marker))
        assert parcel.sees(job.results, marker)
        assert not parcel.sees(job.results, "other")
        assert not parcel.sees("elsewhere", marker)
    assert done == [job]
    path = Store(Path(job.results)).path(job.trials[0])
    assert answer == Answer(Outcome("crashed", f"its output: {log}", written=(str(path),)))
    assert receive(answer, pack(job, log, None, None, marker)) == answer.outcome


def test_a_folder_that_cannot_be_marked_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(BenchError, match=r"file/results cannot be written .*; name another folder"),
        parcel.marker_in(tmp_path / "cache", tmp_path / "file" / "results"),
    ):
        pass
    assert not (tmp_path / "cache").exists()


def test_who_does_not_sends_back_what_it_made(job: Job, done: list[Job], cache: Path) -> None:
    log = str(cache / "logs" / "log")
    given = pack(job, log, 5.0, 2**30, "nowhere")
    answer = pickle.loads(pickle.dumps(carry_out(pickle.loads(pickle.dumps(given)))))
    assert done[0].results != job.results
    assert not Path(done[0].results).exists(), "it was left behind"
    assert not Path(job.results).exists()
    outcome = receive(answer, given)
    store = Store(Path(job.results))
    path = store.path(job.trials[0])
    assert outcome == Outcome("crashed", f"its output: {log}", written=(str(path),))
    assert store.read_views(job.trials[0]) == {"clusters": []}
    assert Path(log).read_text() == "last words\n"


@pytest.mark.parametrize("kind", ["of another trial", "no record"])
def test_what_was_not_asked_for_is_not_written(
    job: Job, make_true_record: MakeRecord, kind: str
) -> None:
    record = make_true_record(seed=7)
    text = dump_record(record) if kind == "of another trial" else "{}"
    answer = Answer(Outcome("ok"), ((text, dump_views({})),))
    with pytest.raises(BenchError, match="worker of the cluster sent"):
        receive(answer, pack(job, "log", None, None, "nowhere"))
    assert not Path(job.results).exists()


def test_a_record_that_can_be_taken_over_goes_along(
    job: Job, make_true_record: MakeRecord, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of dcec for ss-dcec without labels: the node would have to fit it again."""
    there: list[list[str]] = []

    def execute(job: Job, *others: Any, **options: Any) -> Outcome:
        there.append([record["trial"]["method"] for record in Store(Path(job.results))])
        return Outcome("ok")

    other = make_trial(method="base")
    monkeypatch.setattr(parcel, "execute", execute)
    monkeypatch.setattr(parcel, "fitted_as", lambda trial: other)
    store = Store(Path(job.results))
    store.write(make_true_record(method="base"))
    monkeypatch.setattr(Store, "read_current", Store.read)
    for given in (job, replace(job, fresh=True)):
        carry_out(pack(given, "log", None, None, "nowhere"))
    assert there == [["base"], []]


def test_a_stage_that_was_made_elsewhere_is_made(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever needs it and does not have it makes it again."""
    stage = Outcome("ok", written=("cut/0123",))
    monkeypatch.setattr(parcel, "execute", lambda *_, **__: stage)
    given = pack(replace(job, stage="cut/0123"), "log", None, None, "nowhere")
    assert receive(carry_out(given), given) == stage


def test_plugins_of_one_name_stay_apart(tmp_path: Path, job: Job) -> None:
    files = [tmp_path / folder / "own.py" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text(f"# {file.parent.name}\n")
    given = pack(replace(job, plugins=tuple(map(str, files))), "log", None, None, "nowhere")
    unpacked = [Path(path) for path in parcel._unpacked(given.plugins, tmp_path / "there")]
    assert [path.read_text() for path in unpacked] == ["# a\n", "# b\n"]
    assert {path.name for path in unpacked} == {"own.py"}


# --- What a cluster offers -----------------------------------------------------------------------


def never(given: Parcel) -> Future[Answer]:
    """A job that does not end."""
    return Future()


@pytest.mark.parametrize(
    ("asked", "gpus", "device", "jobs"),
    [("auto", 0, "cpu", 8), ("auto", 1, "cuda", 2), ("cpu", 1, "cpu", 8), ("cuda", 3, "cuda", 6)],
)
def test_gpus_are_slots_of_workers(asked: str, gpus: int, device: str, jobs: int) -> None:
    two = Cluster(never, (replace(NODE, gpus=gpus),) * 2, "m")
    assert two.device(asked) == device
    assert two.jobs("auto", device) == jobs
    assert two.jobs(3, device) == two.jobs("3", device) == 3
    assert two.threads == 2


def test_what_a_cluster_cannot_do_is_one_sentence() -> None:
    with pytest.raises(BenchError, match="no dask worker offers a GPU; start some"):
        Cluster(never, (NODE,), "m").device("cuda")
    with pytest.raises(BenchError, match="device is 'tpu'; expected auto, cpu or cuda"):
        Cluster(never, (NODE,), "m").device("tpu")
    with pytest.raises(BenchError, match="no dask worker has joined"):
        Cluster(never, (), "m").jobs("auto", "cpu")


def test_a_cluster_that_grows_later_is_taken_at_its_word() -> None:
    empty = Cluster(never, (), "m")
    assert (empty.device("cuda"), empty.device("auto"), empty.jobs("5", "cpu")) == (
        "cuda",
        "cpu",
        5,
    )
    assert empty.threads == 1
    assert not empty.shares_stages("cpu")


@pytest.mark.parametrize(
    ("seen", "alike", "shares"),
    [((True, True), True, True), ((True, False), True, False), ((True, True), False, False)],
)
def test_stages_are_shared_where_all_look_for_the_same(
    seen: tuple[bool, bool], alike: bool, shares: bool
) -> None:
    native = machine.has_native_bf16()
    nodes = (
        replace(NODE, sees=seen[0], bf16=native),
        replace(NODE, sees=seen[1], bf16=alike is native),
    )
    assert Cluster(never, nodes, "m").shares_stages("cpu") is shares
    said = "share the folders" if all(seen) else "send records back"
    assert said in str(Cluster(never, nodes, "m"))


def test_what_a_worker_says_of_itself(tmp_path: Path, cache: Path) -> None:
    with parcel.marker_in(tmp_path / "results", cache) as marker:
        found = cluster.look(str(tmp_path / "results"), marker)
    assert found == Node(
        machine.bench_version(), machine.core_count(), machine.has_native_bf16(), sees=True
    )


class Client:
    """As much of dask's client as is asked before a run."""

    def __init__(self, answers: dict[str, Node] | Exception) -> None:
        self.answers = answers

    def run(self, function: Any, *arguments: Any) -> dict[str, Node]:
        assert function is cluster.look
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {"a": {"nthreads": 2, "resources": {"GPU": 1.0}}, "b": {"nthreads": 3}}}


def test_slots_and_gpus_are_what_the_scheduler_says() -> None:
    own = replace(NODE, version=machine.bench_version(), slots=1)
    nodes = cluster._ask(Client({"a": own, "b": own}), "results", "m")
    assert nodes == (replace(own, slots=2, gpus=1), replace(own, slots=3))


def test_a_worker_that_cannot_run_this_is_named() -> None:
    with pytest.raises(BenchError, match=r"worker a has fewlabels-bench 0, .* install the same"):
        cluster._ask(Client({"a": NODE}), "results", "m")
    with pytest.raises(BenchError, match=r"cannot run this project .*No module named 'bench'"):
        cluster._ask(Client(ModuleNotFoundError("No module named 'bench'")), "results", "m")


# --- A scheduler that is lost --------------------------------------------------------------------


def cancelled(given: Parcel) -> Future[Answer]:
    """What dask makes of its jobs when the scheduler is gone."""
    future: Future[Answer] = Future()
    future.cancel()
    return future


def refused(given: Parcel) -> Future[Answer]:
    raise ConnectionError("closed")


@pytest.mark.parametrize("start", [cancelled, refused])
def test_a_lost_scheduler_is_no_crash_of_the_job(job: Job, start: Any) -> None:
    with pytest.raises(SchedulerLost, match="the dask scheduler is gone"):
        Cluster(start, (NODE,), "m").execute(job, "log", None)


def test_nobody_waits_for_a_job_once_the_run_is_over(job: Job) -> None:
    waiting = Cluster(never, (NODE,), "m")
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(waiting.execute, job, "log", None)
        waiting.close()
        with pytest.raises(SchedulerLost):
            future.result(timeout=10)


def test_a_lost_scheduler_ends_a_run_as_ctrl_c_does(
    tmp_path: Path, job: Job, make_trial: MakeTrial, make_record: MakeRecord, capsys: Any
) -> None:
    """What came back is kept, what did not has no record, and one sentence says so."""
    levels = ("5%", "10%", "20%", "30%")

    def start(given: Parcel) -> Future[Answer]:
        future: Future[Answer] = Future()
        level = given.job.trials[0].level
        if level == "5%":
            record = dump_record(make_record(0.75, level=level))
            future.set_result(Answer(Outcome("ok"), ((record, None),)))
        else:
            future.cancel()
        return future

    tasks = [Task(replace(job, trials=(make_trial(level=level),))) for level in levels]
    plan = Plan(tasks, [], [], [])
    store = Store(Path(job.results))
    with Display(Console(quiet=True), len(levels), None) as display:
        ran = runner_on(start, plan, store, display)
        summary = ran.run()
    assert (summary.counts, summary.stopped, summary.exit_status) == ({"ok": 1}, True, 1)
    assert [record["trial"]["level"] for record in store] == ["5%"]
    summary.not_run = 3
    print_summary(summary, Console(), Console(stderr=True))
    assert capsys.readouterr().err == (
        "stopped, because the dask scheduler is gone, with 3 trials left; what is done is kept, "
        "and the same command goes on from there\n"
    )
    summary.not_run = 0
    print_summary(summary, Console(), Console(stderr=True))
    assert capsys.readouterr().err == "stopped when all trials were done\n"


def runner_on(start: Start, plan: Plan, store: Store, display: Display) -> Runner:
    """A runner whose jobs are handed over by `start`."""
    cluster = Cluster(start, (NODE,), "m")
    logs = store.results.parent / "logs"
    return Runner(plan, Limits(), store, logs, display, lambda: None, cluster=cluster)


def test_a_job_that_was_lost_there_is_a_crash(
    tmp_path: Path, job: Job, make_trial: MakeTrial
) -> None:
    """A worker that dies again and again; this machine says nothing of itself in the record."""

    def start(given: Parcel) -> Future[Answer]:
        future: Future[Answer] = Future()
        future.set_exception(RuntimeError("killed worker"))
        return future

    plan = Plan([Task(replace(job, device="cuda"))], [], [], [])
    store = Store(Path(job.results))
    with Display(Console(quiet=True), 1, None) as display:
        ran = runner_on(start, plan, store, display)
        assert ran.run().counts == {"crashed": 1}
    (record,) = store
    assert record["error"]["message"] == "RuntimeError: killed worker"
    assert record["environment"] == {"device": "cuda", "threads": 1, "concurrency": 1}


def test_without_dask_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(BenchError, match="needs the package distributed"),
        cluster.dask_cluster(None, tmp_path),
    ):
        pass
