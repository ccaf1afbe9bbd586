"""``bench run``: what is run, what is skipped, what a method is shown, and what is kept of it."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plugins_for_tests import DEADLINE_SECONDS, PLUGINS, Place
from rig import Rig

import bench
from bench.core import splits
from bench.core.trial import Trial
from bench.data import datasets
from bench.records.leaderboard import COLUMNS
from bench.records.store import Store
from bench.running import child, execution, runner
from bench.running.execution import Outcome
from bench.running.job import Job
from bench.running.runner import Limits
from bench.running.stages import ArrayStore

GRID = "--method blind,taught --level 0%,5%"


def test_a_second_run_does_nothing_and_two_jobs_give_the_same(tmp_path: Path) -> None:
    with Place(tmp_path / "one") as one, Place(tmp_path / "two") as two:
        with two.start(f"{GRID} --jobs 2", "simple") as beside:
            first = one.run(f"{GRID} --jobs 1", "simple")
            _out, err = beside.communicate(timeout=DEADLINE_SECONDS)
        assert (first.status, first.err) == (0, "")
        assert (beside.returncode, err) == (0, "")
        check_grid(one, first.out)
        same, other = one.records(), two.records()
        assert {name: record["status"] for name, record in same.items()} == two.statuses()
        for name, record in same.items():
            assert record.get("subsets") == other[name].get("subsets"), name
            assert record["environment"]["concurrency"] == 1
            assert other[name]["environment"]["concurrency"] == 2
            assert other[name]["environment"]["threads"] <= record["environment"]["threads"]
        check_nothing_more_to_do(one)


def check_grid(place: Place, out: str) -> None:
    """Four records, three of them scored; the method that ignores labels was fitted once."""
    statuses = place.statuses()
    assert statuses.pop("taught/0%/0") == "n/a"
    assert statuses == {"blind/0%/0": "ok", "blind/5%/0": "ok", "taught/5%/0": "ok"}
    assert "trials of this run: 1 n/a, 3 ok" in out
    assert re.search(r"it took \d+ s, \d+% of which went into fits and stages", out)
    logs = list((place.folder / "cache" / "logs").rglob("*.log"))
    records = place.records()
    threads = records["blind/5%/0"]["environment"]["threads"]
    fitted = [line for log in logs for line in log.read_text().splitlines() if "fitted" in line]
    assert fitted == [f"blind has fitted, OMP_NUM_THREADS={threads}"]
    assert records["blind/0%/0"]["fit"] == records["blind/5%/0"]["fit"]
    assert records["blind/0%/0"]["headline_is"] == "acc on unlabelled"
    assert records["taught/5%/0"]["headline_is"] == "accuracy on unlabelled"
    assert records["taught/5%/0"]["n_labels"] == 90
    assert records["taught/5%/0"]["headline"] > 0.7
    table = pd.read_csv(place.results / "leaderboard.csv")
    assert list(table.columns) == COLUMNS
    assert len(table) == 4
    row = table[(table["method"] == "taught") & (table["level"] == "5%")].iloc[0]
    assert row["headline_mean"] == pytest.approx(records["taught/5%/0"]["headline"], rel=1e-5)


def check_nothing_more_to_do(place: Place) -> None:
    """The same command runs nothing; a dry run only prints its plan."""
    plugin = str(PLUGINS / "simple.py")
    slow = ["--plugin", str(PLUGINS / "slow.py"), "--method", "slow"]
    words = ["run", *GRID.split(), "--dataset", "digits", "--schedule", "smoke"]
    before = place.stamps()
    again, dry, more, *shown = place.commands(
        [*words, "--plugin", plugin],
        [*words, "--plugin", plugin, "--dry-run", "--rerun", "all"],
        [*words, "--plugin", plugin, *slow, "--dry-run"],
        "show blind/0%/0",
        "show blind/5%/0",
        "show taught/5%/0",
    )
    assert (again.status, dry.status, more.status) == (0, 0, 0), again.err + dry.err + more.err
    assert "0 trials to run, 4 done before" in again.out
    assert "trials of this run: none" in again.out
    assert "4 trials to run, 4 done before" in dry.out
    assert "judged by earlier records" in dry.out
    assert "2 trials to run, 4 done before" in more.out
    assert "slow_centres once for 2 trials" in more.out
    assert place.stamps() == before
    assert not place.read("epochs.txt")
    check_logs_shown(*(ended.out for ended in shown))


def check_logs_shown(blind: str, blind_too: str, taught: str) -> None:
    """One fit of the method that ignores labels, one log: it is shown at each level."""
    for out in (blind, blind_too):
        assert "log of blind with seed 0, one fit for all levels (" in out
        assert out.count("blind has fitted, OMP_NUM_THREADS=") == 1
    assert "\nlog (" in taught
    assert "near was shown 90 labels" in taught


def test_rerun_all_and_stale(tmp_path: Path) -> None:
    plugin = tmp_path / "own.py"
    shutil.copy(PLUGINS / "simple.py", plugin)
    words = "--method near,blind --level 5%"
    with Place(tmp_path) as place:
        assert place.run(words, plugin).status == 0
        first = place.stamps()
        everything = place.run("--method blind --level 5% --rerun all", plugin)
        assert everything.status == 0, everything.text
        assert "1 trials to run, 1 done before" in everything.out
        second, before = place.stamps(), place.records()
        assert {name for name in first if first[name] != second[name]} == {"blind/5%/0"}
        code = plugin.read_text().replace("self.shrink * 0.1", "self.shrink * 1.9")
        raised = code.replace("class Near(Method):", "class Near(Method):\n    version = 2")
        assert "1.9" in code
        assert raised != code
        plugin.write_text(code)  # no version says so: nothing is stale
        unsaid = place.run(words, plugin)
        assert "0 trials to run, 2 done before" in unsaid.out
        plugin.write_text(raised)
        full = ["run", *words.split(), "--dataset", "digits", "--schedule", "smoke"]
        full += ["--plugin", str(plugin)]
        plain, stale = place.commands(full, [*full, "--rerun", "stale"])
        assert (plain.status, stale.status) == (0, 0), plain.err + stale.err
        assert "0 trials to run, 1 done before" in plain.out
        assert "1 have a record made by an older version" in plain.out
        assert "1 trials to run, 1 done before" in stale.out
        third, after = place.stamps(), place.records()
        assert {name for name in second if second[name] != third[name]} == {"near/5%/0"}
        assert after["near/5%/0"]["subsets"] != before["near/5%/0"]["subsets"]
        assert after["near/5%/0"]["digests"]["split"] == before["near/5%/0"]["digests"]["split"]


def test_broken_plugins_are_named_and_the_others_run(tmp_path: Path) -> None:
    broken, twin, absent = (tmp_path / name for name in ("broken.py", "twin.py", "absent.py"))
    broken.write_text("import a_package_that_nobody_has\n")
    twin.write_text((PLUGINS / "simple.py").read_text())
    unusable = tmp_path / "unusable.py"
    unusable.write_text(
        "from methods.method import Method\n"
        "from methods.registry import register\n"
        "@register('unusable')\nclass M(Method): version = '1.0'\n"
    )
    words = "--method near,unusable --set unusable.x=1 --level 5%"
    with Place(tmp_path / "place") as place:
        ended = place.run(words, broken, "simple", twin, absent, unusable)
        assert ended.status == 1, ended.text
        said = f"unusable of {unusable} cannot be used: its version is '1.0'; expected a whole"
        assert said in ended.out
        assert f"{broken} cannot be used: ModuleNotFoundError" in ended.out
        assert "a_package_that_nobody_has" in ended.out
        both = f"{PLUGINS / 'simple.py'} and {twin}"
        assert f"{twin} cannot be used: two methods are called 'near': {both}" in ended.out
        assert f"{absent} cannot be used: there is no file {absent}" in ended.out
        assert place.statuses() == {"near/5%/0": "ok"}
        assert "Traceback" not in ended.text


def colour_images(path: Path) -> None:
    """240 images of 8×6 pixels in three colours, of four classes; the last 60 are the test."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(240) % 4)
    prototypes = rng.integers(0, 256, size=(4, 8, 6, 3))
    noise = rng.integers(-60, 61, size=(240, 8, 6, 3))
    X = np.clip(prototypes[y] + noise, 0, 255).astype(np.uint8)
    np.savez(path, X=X, y=y, n_train=180, class_names=np.array(["red", "green", "blue", "grey"]))


def test_colour_images_inductive_with_the_methods_own_selection(tmp_path: Path) -> None:
    colour_images(tmp_path / "colours.npz")
    words = (
        f"--dataset {tmp_path / 'colours.npz'} --method near --level 12 --protocol inductive "
        "--selection representative --set near.shrink=0.25"
    )
    with Place(tmp_path) as place:
        ended = place.run(words, "simple")
        assert ended.status == 0, ended.text
        (record,) = place.records().values()
        (file,) = place.files().values()
        dataset = f"colours-{record['trial']['dataset_digest'][:8]}"
        group = place.results / "trials" / dataset / "inductive-representative-smoke"
        assert file.parent.parent.parent == group
        assert file.parent.parent.name.startswith("near@")
        assert record["trial"]["variant"] == {"shrink": 0.25}
        assert record["trial"]["params"] == {"n_clusters": 4, "shrink": 0.25}
        assert record["headline_is"] == "accuracy on test"
        assert record["headline"] == record["subsets"]["test"]["accuracy"] > 0.9
        sizes = {name: np.sum(s["contingency"]) for name, s in record["subsets"].items()}
        assert sizes == {"all": 180, "labelled": 12, "unlabelled": 168, "test": 60}
        asked_for = np.arange(12) * 15
        assert record["digests"]["split"] == splits.digest(asked_for, 180)


def test_no_label_outside_the_split_reaches_a_method(tmp_path: Path) -> None:
    truth = datasets.load("digits").y
    common = ["run", "--method", "spy", "--dataset", "digits", "--schedule", "smoke"]
    common += ["--plugin", str(PLUGINS / "spy.py")]
    with Place(tmp_path) as place:
        ended = place.commands(
            [*common, "--level", "0%,10%", "--selection", "random"],
            [*common, "--level", "30", "--selection", "first", "--protocol", "inductive"],
        )
        assert [one.status for one in ended] == [0, 0], ended
        nothing = np.array([], dtype=int)
        check_spied(place, truth, nothing)
        check_spied(place, truth, splits.labelled_indices(truth, 180, "random", seed=0))
        check_spied(place, truth[:1297], np.arange(30))


def check_spied(place: Place, truth: np.ndarray, labelled: np.ndarray) -> None:
    """The method was given the truth at `labelled`, -1 elsewhere, and could reach no more."""
    with np.load(place.folder / f"spy-{len(labelled)}.npz") as spied:
        expected = np.full(len(truth), -1)
        expected[labelled] = truth[labelled]
        assert np.array_equal(spied["y"], expected)
        hiding_places = {"array['deep'][0].y", "list.y", "closure.__closure__[0]", "view.base"}
        assert set(spied["planted"].tolist()) == hiding_places, "the search itself is broken"
        assert spied["found"].tolist() == []


def test_dask_gives_the_same_records(tmp_path: Path, cache: Path) -> None:
    """Its worker has the cache of this test, the run one of its own."""
    distributed = pytest.importorskip("distributed")
    words = "--method near,wrong-shape --level 5%"
    options = {"n_workers": 1, "processes": False, "protocol": "tcp", "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, Place(tmp_path / "dask") as place:
        address = cluster.scheduler_address
        dask = place.run(f"{words} --backend dask --scheduler {address}", "simple", "failing")
        assert dask.status == 1, dask.text
        assert place.statuses() == {"near/5%/0": "ok", "wrong-shape/5%/0": "failed"}
        with Place(tmp_path / "local") as here:
            assert here.run(words, "simple", "failing").status == 1
            for name, record in here.records().items():
                assert record.get("subsets") == place.records()[name].get("subsets")


# --- The runner by itself: its jobs are functions of the test ------------------------------------

MESSAGE = "stopped after the limit of 1 s"
MakeTrial = Callable[..., Trial]
MakeRecord = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(("takes_s", "made"), [(0.0, 5), (0.3, 1)])
def test_a_board_that_takes_long_is_made_less_often(
    rig: Rig,
    make_trial: Callable[..., Trial],
    monkeypatch: pytest.MonkeyPatch,
    takes_s: float,
    made: int,
) -> None:
    """At most a twentieth of the time: after .3 s six pass, and five jobs take a second each."""
    now, begun = [100.0], []
    monkeypatch.setattr(runner, "REFRESH_SECONDS", 0.5)
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])

    def execute(job: Job) -> Outcome:
        now[0] += 1.0
        return Outcome("failed", "for the test")

    def refresh() -> None:
        begun.append(now[0])
        now[0] += takes_s

    tasks = [rig.task(make_trial(level=level)) for level in ("1%", "3%", "5%", "10%", "20%")]
    ran = rig.runner(tasks, execute)
    ran.refresh = refresh
    ran.run()
    assert len(begun) == made


@pytest.mark.parametrize("status", ["timeout", "crashed", "out-of-memory"])
@pytest.mark.parametrize("before", [None, 0.25], ids=["first run", "run again"])
def test_a_record_written_before_the_kill_is_kept(
    rig: Rig, make_trial: MakeTrial, make_record: MakeRecord, status: str, before: float | None
) -> None:
    """The worker was killed after it had written the record, and before it could say so."""
    if before is not None:
        for level in ("5%", "10%"):
            rig.store.write(make_record(before, level=level))

    def execute(job: Job) -> Outcome:
        rig.store.write(make_record(0.75, level="5%"))
        return Outcome(status, MESSAGE)

    ran = rig.runner([rig.task(make_trial(level="5%"), make_trial(level="10%"))], execute)
    summary = ran.run()
    assert rig.statuses() == {"5%": "ok", "10%": status}
    kept, failed = (rig.store.read(make_trial(level=level)) for level in ("5%", "10%"))
    assert kept is not None
    assert kept["headline"] == 0.75
    assert failed is not None
    assert failed["error"]["message"] == MESSAGE
    assert summary.counts == {"ok": 1, status: 1}
    assert summary.exit_status == 1


@pytest.mark.parametrize(
    ("left", "message"),
    [
        ("x", "the process wrote a record that cannot be read: Expecting value: line 1"),
        ("{}", "the process wrote a record that cannot be read: Object missing required"),
        (None, "the process ended with exit status 0 and without a record: the method, or what"),
    ],
)
def test_a_job_that_ends_well_without_a_record(
    rig: Rig, make_trial: MakeTrial, make_record: MakeRecord, left: str | None, message: str
) -> None:
    """The method ended the process, or broke what writes the record: the others run."""

    def execute(job: Job) -> Outcome:
        path = rig.store.write(make_record(0.75, level=job.trials[0].level))
        if path.parent.name == "5%":
            path.unlink() if left is None else path.write_text(left)
        return Outcome("ok")

    tasks = [rig.task(make_trial(level=level)) for level in ("5%", "10%")]
    summary = rig.runner(tasks, execute).run()
    assert rig.statuses() == {"5%": "crashed", "10%": "ok"}
    assert summary.counts == {"crashed": 1, "ok": 1}
    record = rig.store.read(tasks[0].job.trials[0])
    assert record is not None
    said = record["error"]["message"]
    assert said.startswith(message)
    assert left is not None or said.endswith(f"its output: {rig.logs[0]}")


@pytest.mark.parametrize("stored", [True, False])
def test_a_stage_stored_before_the_kill_is_used(
    rig: Rig, make_trial: MakeTrial, make_record: MakeRecord, stored: bool
) -> None:
    def execute(job: Job) -> Outcome:
        if not job.stage:
            rig.store.write(make_record(0.75))
            return Outcome("ok")
        if stored:
            ArrayStore(rig.cache / "stages").write(job.stage, {"a": np.zeros(1)}, {})
        return Outcome("timeout", MESSAGE)

    trial = make_trial()
    tasks = [rig.task(trial, stage="cut/0123"), rig.task(trial, needs=("cut/0123",))]
    rig.runner(tasks, execute).run()
    assert rig.statuses() == {"5%": "ok" if stored else "timeout"}
    record = rig.store.read(trial)
    assert record is not None
    assert stored or record["error"]["message"] == f"stage cut failed: {MESSAGE}"


def test_the_levels_of_one_fit_share_a_log(
    rig: Rig, make_trial: MakeTrial, make_record: MakeRecord
) -> None:
    trials = [make_trial(method=m, level=x) for m in ("tiny", "blind") for x in ("5%", "10%")]
    rig.runner([rig.task(trial) for trial in trials], lambda job: Outcome("crashed")).run()
    places = [Path(log).relative_to(rig.cache / "logs").parts[2:] for log in rig.logs]
    own, shared = [("tiny", "5%", "0.log"), ("tiny", "10%", "0.log")], ("blind", "0.log")
    assert places == [*own, shared, shared]


@pytest.fixture
def heed() -> Iterator[Callable[[signal.Signals, Any], Any]]:
    """``heed(number, handler)`` until the end of the test."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield signal.signal
    for number, handler in before.items():
        signal.signal(number, handler)


def signalling(number: signal.Signals, started: threading.Event) -> type[ThreadPoolExecutor]:
    """The signal comes when a job has begun, and before the runner can note that it runs."""

    class Signalling(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(*args, **kwargs)
            assert started.wait(DEADLINE_SECONDS)
            signal.raise_signal(number)
            return future

    return Signalling


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_has_just_been_handed_over_is_killed_too(
    rig: Rig, make_trial: MakeTrial, heed: Any, number: signal.Signals
) -> None:
    heed(number, signal.default_int_handler)
    started, killed, ended = threading.Event(), threading.Event(), []
    rig.patch.setattr(runner, "kill_workers_of", lambda jobs: killed.set())
    rig.patch.setattr(runner, "ThreadPoolExecutor", signalling(number, started))

    def execute(job: Job) -> Outcome:
        started.set()
        ended.append("killed" if killed.wait(10) else "nobody killed it")
        return Outcome("crashed")

    summary = rig.runner([rig.task(make_trial(level=x)) for x in ("5%", "10%")], execute).run()
    assert ended == ["killed"]
    assert summary.stopped
    assert summary.counts == {}
    assert rig.statuses() == {}
    assert signal.getsignal(number) is signal.default_int_handler


def test_ctrl_c_that_was_ignored_from_the_start_still_is(
    rig: Rig, make_trial: MakeTrial, heed: Any
) -> None:
    """As under nohup, or in the background of a shell without job control."""
    heed(signal.SIGINT, signal.SIG_IGN)
    started = threading.Event()
    rig.patch.setattr(runner, "ThreadPoolExecutor", signalling(signal.SIGINT, started))

    def execute(job: Job) -> Outcome:
        started.set()
        return Outcome("crashed")

    summary = rig.runner([rig.task(make_trial())], execute).run()
    assert not summary.stopped
    assert summary.counts == {"crashed": 1}


def test_an_error_of_the_runner_leaves_no_job_running(
    rig: Rig, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, killed, ended = threading.Event(), threading.Event(), []
    monkeypatch.setattr(runner, "kill_workers_of", lambda jobs: killed.set())

    def execute(job: Job) -> Outcome:
        if job.trials[0].level == "5%":
            assert started.wait(DEADLINE_SECONDS)
        else:
            started.set()
            ended.append("killed" if killed.wait(10) else "nobody killed it")
        return Outcome("crashed")

    def broken(record: dict[str, Any], views: Any = None) -> Path:
        raise ZeroDivisionError

    ran = rig.runner([rig.task(make_trial(level=x)) for x in ("5%", "10%")], execute)
    ran.limits = Limits(jobs=2)
    monkeypatch.setattr(rig.store, "write", broken)
    with pytest.raises(ZeroDivisionError):
        ran.run()
    assert ended == ["killed"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_what_the_log_has_no_room_for_is_lost() -> None:
    with child.Log("/dev/full", "w") as log:
        assert log.write(b"last words") == 10
    with child.Log(os.pipe()[0], "r") as log, pytest.raises(io.UnsupportedOperation):
        log.write(b"last words")


@pytest.mark.parametrize("ending", ["", '{"event": "rec'], ids=["a line", "half a line"])
def test_a_worker_that_is_cut_short_while_it_speaks(
    tmp_path: Path, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    said = '{"event": "record", "path": "here"}\n' + ending
    code = f"import os; os.write(1, {said.encode()!r}); os.kill(os.getpid(), 9)"

    def spawn(job: Job, *others: Any) -> subprocess.Popen[str]:
        words = [sys.executable, "-S", "-c", code]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)

    monkeypatch.setattr(execution, "_spawn", spawn)
    job = Job((make_trial(),), "digits", str(tmp_path), str(tmp_path))
    outcome = execution.execute(job, str(tmp_path / "log"), None)
    assert outcome.status == "crashed"
    assert "SIGKILL" in outcome.message
    assert outcome.written == ("here",)


def test_a_run_that_ends_kills_its_own_workers_alone(
    tmp_path: Path, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread of this process may run other trials, which would be recorded as crashed."""

    def spawn(job: Job, *others: Any) -> subprocess.Popen[str]:
        words = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
        pipes = {"stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen(words, **pipes, start_new_session=True)

    monkeypatch.setattr(execution, "_spawn", spawn)
    ours, theirs = (
        Job((make_trial(),), "digits", str(tmp_path), str(tmp_path / "cache")) for _ in range(2)
    )
    assert ours == theirs, "of one folder, even"
    with ThreadPoolExecutor(2) as executor:
        futures = [
            executor.submit(execution.execute, job, str(tmp_path / name), None)
            for job, name in ((ours, "a"), (theirs, "b"))
        ]
        while len(execution._running) < 2:
            time.sleep(0.01)
        execution.kill_workers_of([ours])
        assert "SIGKILL" in futures[0].result(60).message
        assert not futures[1].done()
        execution.kill_workers_of([theirs])
        assert "SIGKILL" in futures[1].result(60).message


def test_a_worker_that_dies_before_it_hears_of_its_job(
    tmp_path: Path, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(module: str, threads: int, log: Any) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        words = [sys.executable, "-S", "-c", "raise SystemExit(7)"]
        process = subprocess.Popen(words, **pipes, start_new_session=True)
        process.wait()
        return process

    monkeypatch.setattr(execution, "start", start)
    job = Job((make_trial(),), "digits", str(tmp_path), str(tmp_path))
    log = str(tmp_path / "log")
    message = (
        "the process ended with exit status 7: the method, or what it calls, may have called "
        f"sys.exit or os._exit; its output: {log}"
    )
    assert execution.execute(job, log, None) == Outcome("crashed", message)


def test_a_run_says_how_much_of_its_time_methods_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that two seeds compute each, and their fits; a second run finds all of it done."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    wish = {"methods": ["kmeans"], "levels": ["0%"], "dataset": "digits", "schedule": "smoke"}
    first, second = (bench.run(**wish, seeds=2, results=tmp_path / "results") for _ in range(2))
    costs = [record["cost"] for record in Store(tmp_path / "results")]
    assert len(costs) == 2
    work = sum(cost["fit_seconds"] + cost["stage_seconds"] for cost in costs)
    assert work <= first.work_seconds < first.seconds
    assert second.work_seconds == 0 < second.seconds
