"""Every command with a damaged results folder, an unwritable one, a missing cache: a sentence.

The commands are those of the application, so that a new one is not forgotten here.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.abc
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from plugins_for_tests import PLUGINS
from rig import Rig
from test_trust import DAMAGES, spoiled

from bench import checking, cli
from bench import show as bench_show
from bench.core import files
from bench.core.trial import Trial
from bench.records.store import Store
from bench.running import api, child, runner
from bench.running.execution import Outcome
from bench.running.job import Job
from bench.running.stages import ArrayStore
from bench.running.worker import Worker
from methods.registry import Entry

MakeRecord = Callable[..., dict[str, Any]]
SIMPLE = ["--plugin", str(PLUGINS / "simple.py")]
# What follows each command; {theirs} is the results folder of somebody else.
WORDS = {
    "run": ["--method=near", "--level=5%", "--dataset=digits", "--schedule=smoke", *SIMPLE],
    "list": SIMPLE,
    "leaderboard": [],
    "report": [],
    "verify": [],
    "show": ["tiny/5%/0"],
    "check": [str(PLUGINS / "simple.py")],
    "new": ["my-method"],
    "data": [],
    "merge": ["{theirs}"],
    "doctor": [],
}
NO_RESULTS = {"list", "check", "new", "data", "doctor"}  # they have no --results
NO_TRIALS = sorted(set(WORDS) - NO_RESULTS)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status and what it wrote."""

    status: int
    out: str
    err: str


@pytest.fixture
def results(tmp_path: Path, make_true_record: MakeRecord) -> Path:
    """A results folder with one good record."""
    Store(tmp_path / "results").write(make_true_record())
    return tmp_path / "results"


@pytest.fixture
def bench(
    tmp_path: Path,
    cache: Path,
    entries: dict[str, Entry],
    make_true_record: MakeRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Ended]:
    """``bench("run", results=...)``: the command, in this process, jobs and checks included."""
    Store(tmp_path / "theirs").write(make_true_record(seed=1))
    (tmp_path / "no images").mkdir()
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "no images"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "is_available", lambda: False)
    monkeypatch.setattr(runner, "execute", work)
    monkeypatch.setattr(checking, "_events", lambda request, _: checked(request, monkeypatch))

    def carry_out(
        command: str, results: Path | None = None, stdout: io.StringIO | None = None
    ) -> Ended:
        words = [word.format(theirs=tmp_path / "theirs") for word in WORDS[command]]
        if results is not None and command not in NO_RESULTS:
            words += ["--results", str(results)]
        monkeypatch.setattr(sys, "argv", ["bench", command, *words])
        out, err = stdout or io.StringIO(), io.StringIO()
        redirected = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with redirected[0], redirected[1], pytest.raises(SystemExit) as end:
            cli.main()
        return Ended(end.value.code, out.getvalue(), err.getvalue())

    return carry_out


def work(job: Job, *others: Any) -> Outcome:
    """Carry a job out here; a worker tells of an error as its process does."""
    try:
        Worker(job, lambda event: None).run()
    except Exception as error:
        return Outcome("failed", str(error))
    return Outcome("ok")


def checked(request: dict[str, Any], patch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the process of ``bench check`` tells, from this process."""
    told: list[dict[str, Any]] = []
    patch.setattr(child, "begin", lambda: (told.append, json.dumps(request)))
    checking.main()
    return iter(told)


def assert_said(ended: Ended, *statuses: int) -> None:
    """It ended with one of these; what was wrong is a sentence."""
    assert ended.status in statuses, ended.out + ended.err
    assert "Traceback" not in ended.out + ended.err
    if ended.status == 2:
        assert ended.err.splitlines()[-1].startswith("error: "), ended.err


def test_no_command_is_forgotten() -> None:
    found = [(command.name, command.callback) for command in cli.app.registered_commands]
    assert {name or callback.__name__ for name, callback in found if callback} == set(WORDS)


@pytest.mark.parametrize("command", WORDS)
def test_as_it_should_be(bench: Callable[..., Ended], results: Path, command: str) -> None:
    """The cache is not there yet; only the images are missing."""
    ended = bench(command, results)
    assert_said(ended, {"data": 2, "doctor": 1}.get(command, 0))


# --- Damaged results -----------------------------------------------------------------------------


READING_ONE = {"show": 0, "verify": 0}  # they read the records that they are about


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_malformed_record(
    bench: Callable[..., Ended], results: Path, tmp_path: Path, damage: str
) -> None:
    """Of two commands in turn: all read records by one function, which has tests of its own."""
    bad = spoiled(Store(results), DAMAGES[damage])
    good = bad.with_name("0.json").read_bytes()
    number = list(DAMAGES).index(damage)
    for command in (NO_TRIALS[(2 * number + i) % len(NO_TRIALS)] for i in range(2)):
        ended = bench(command, results)
        assert_said(ended, READING_ONE.get(command, 2))
        assert command in READING_ONE or str(bad) in ended.err, (command, ended)
    assert bad.with_name("0.json").read_bytes() == good


@pytest.mark.parametrize("command", NO_TRIALS)
@pytest.mark.parametrize("kind", ["fifo", "folder", "no text"])
def test_what_is_no_record(
    bench: Callable[..., Ended], results: Path, command: str, kind: str
) -> None:
    path = Store(results).paths()[0].with_name("1.json")
    {"fifo": lambda: os.mkfifo(path), "folder": path.mkdir, "no text": path.touch}[kind]()
    assert_said(bench(command, results), READING_ONE.get(command, 2))


# --- Unwritable results --------------------------------------------------------------------------


@pytest.mark.parametrize("command", NO_TRIALS)
@pytest.mark.parametrize("place", ["a_file", "a_file/results", "/proc/self/results", "x" * 300])
def test_no_folder_can_be_there(
    bench: Callable[..., Ended], tmp_path: Path, command: str, place: str
) -> None:
    (tmp_path / "a_file").touch()
    assert_said(bench(command, Path(place)), 2)
    assert (tmp_path / "a_file").read_bytes() == b""


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    """Nothing more can be written below the results folder."""
    make = files.tempfile.mkstemp

    def refuse(dir: Path, **options: Any) -> tuple[int, str]:
        if results.resolve() in (dir.resolve(), *dir.resolve().parents):
            raise OSError(errno.ENOSPC, "No space left on device", str(dir))
        return make(dir=dir, **options)

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)


FULL = {
    "run": (2, "error: "),
    "leaderboard": (1, "tiny"),
    "report": (2, "cannot write the report to"),
    "verify": (1, "ss-dcec-paper"),
    "show": (0, "tiny · 5% · seed 0: ok"),
    "merge": (2, "error: "),
}


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("command", NO_TRIALS)
def test_a_full_disk(bench: Callable[..., Ended], results: Path, command: str) -> None:
    """What there is is shown, and stays."""
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    status, said = FULL[command]
    ended = bench(command, results)
    assert_said(ended, status)
    assert said in ended.out + ended.err
    assert command == "show" or "No space left on device" in ended.err
    assert "written: " not in ended.out
    assert {path: path.read_bytes() for path in before} == before


# --- A terminal or pipe that takes nothing -------------------------------------------------------


class Refusing(io.StringIO):
    """A standard output that cannot be written, for the reason of this number."""

    def __init__(self, number: int, file: Path) -> None:
        super().__init__()
        self.number, self.file = number, file.open("w")

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None:
        """Nothing is left to be written: it is not buffered."""

    def fileno(self) -> int:
        return self.file.fileno()


GONE, NO_ROOM = errno.EPIPE, errno.ENOSPC


@pytest.mark.parametrize("number", [GONE, NO_ROOM])
def test_display_never_ends_a_run(
    bench: Callable[..., Ended],
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    def apart(job: Job, *others: Any) -> Outcome:
        with contextlib.redirect_stdout(io.StringIO()):  # its process has a log
            return work(job)

    monkeypatch.setattr(runner, "execute", apart)
    ended = bench("run", results, Refusing(number, tmp_path / "out"))
    assert ended.status == 0, ended.err
    assert not ended.err
    assert len(Store(results).paths()) == 2
    assert "near" in (results / "leaderboard.csv").read_text()


@pytest.mark.parametrize("command", ["leaderboard", "show", "list"])
@pytest.mark.parametrize(("number", "status"), [(GONE, 1), (NO_ROOM, 2)])
def test_what_only_shows_says_where_there_is_no_room(
    bench: Callable[..., Ended],
    results: Path,
    tmp_path: Path,
    command: str,
    number: int,
    status: int,
) -> None:
    ended = bench(command, results, Refusing(number, tmp_path / "out"))
    said = "error: standard output cannot be written (No space left on device); make room"
    assert ended.status == status
    assert ended.err.startswith(said) if number == NO_ROOM else not ended.err


@pytest.mark.parametrize("columns", ["0", "-3", "", "wide"])
def test_no_display_is_without_columns(
    bench: Callable[..., Ended], results: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert "tiny" in bench("leaderboard", results).out


# --- Settings of the surroundings ----------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "data", "doctor"])
@pytest.mark.parametrize("variable", ["BENCH_CACHE", "BENCH_DATA"])
def test_a_folder_of_a_user_that_there_is_not(
    bench: Callable[..., Ended],
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    command: str,
) -> None:
    monkeypatch.delenv("BENCH_DATA")
    monkeypatch.setenv(variable, "~nosuch/x")
    needless = command == "run" and variable == "BENCH_DATA"  # its images are digits
    ended = bench(command, results)
    assert_said(ended, *([0] if needless else [1, 2]))
    assert needless or f"{variable}=~nosuch/x cannot be used" in ended.out + ended.err


@pytest.mark.parametrize("given", ["abc", "-1", "nan", ""])
def test_what_is_no_number_of_seconds(
    given: str, bench: Callable[..., Ended], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CHECKPOINT_SECONDS", given)
    ended = bench("run", results)
    assert_said(ended, 2)
    assert f"BENCH_CHECKPOINT_SECONDS is {given!r}; expected a number of seconds" in ended.err


def test_the_page_needs_no_backend_of_jupyter(
    bench: Callable[..., Ended], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matplotlib reads the variable when it is imported, and may not find what it names."""
    seen: list[str | None] = []

    class Watching(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "bench.show.report":
                seen.append(os.environ.get("MPLBACKEND"))

    monkeypatch.setattr(bench_show, "report", importlib.import_module("bench.show.report"))
    monkeypatch.delitem(sys.modules, "bench.show.report")
    monkeypatch.setattr(sys, "meta_path", [Watching(), *sys.meta_path])
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert_said(bench("report", results), 0)
    assert seen == [None]
    assert os.environ["MPLBACKEND"].startswith("module://")


# --- The cache -----------------------------------------------------------------------------------

NO_CACHE = {"run": (2, "set BENCH_CACHE"), "doctor": (1, "set BENCH_CACHE"), "data": (2, "Set")}


@pytest.mark.parametrize("command", WORDS)
@pytest.mark.parametrize("place", ["a_file/cache", "/proc/self/cache"])
def test_a_cache_that_cannot_be_made(
    bench: Callable[..., Ended],
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    place: str,
) -> None:
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / place))
    monkeypatch.delenv("BENCH_DATA")
    status, said = NO_CACHE.get(command, (0, ""))
    ended = bench(command, results)
    assert_said(ended, status)
    assert said.lower() in (ended.out + ended.err).lower()


# --- A disk that fills up in the middle of a run -------------------------------------------------


def test_a_run_whose_disk_fills_up(
    rig: Rig, make_trial: Callable[..., Trial], make_record: MakeRecord
) -> None:
    """It stops, and what is done is kept: nobody could know how the others ended."""
    trials = [make_trial(level=level) for level in ("5%", "10%", "20%")]
    begun = []

    def execute(job: Job) -> Outcome:
        (trial,) = job.trials
        begun.append(trial.level)
        if trial.level == "5%":
            rig.store.write(make_record(0.75, level="5%"))
            return Outcome("ok")
        rig.patch.setattr(files.tempfile, "mkstemp", refuse_all)
        return Outcome("failed", "there was no room for the record")

    summary = rig.runner([rig.task(trial) for trial in trials], execute).run()
    assert begun == ["5%", "10%"]
    assert rig.statuses() == {"5%": "ok"}
    assert (summary.stopped, summary.exit_status) == (True, 1)
    assert "cannot be written (No space left on device); make room there" in summary.unwritten


def refuse_all(**options: Any) -> tuple[int, str]:
    """In place of `tempfile.mkstemp`."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_fit_that_the_cache_has_no_room_for_is_scored(
    bench: Callable[..., Ended], results: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: ArrayStore, name: str, *others: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ArrayStore, "write", refuse)
    ended = bench("run", results)
    assert ended.status == 0
    assert "trials of this run: 1 ok" in ended.out
