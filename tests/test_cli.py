"""The command: what it prints, what it refuses, and with which exit status it ends."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugins_for_tests import PLUGINS, Ended, Place
from rich.console import Console
from typer.testing import CliRunner

import bench
from bench.cli import app
from bench.core.choices import results_folder, seed_list
from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.options import parse_changes, parse_seeds, parse_timeout, split_commas
from bench.records.store import Store, read_record
from bench.running import api
from bench.running.plan import Plan, Surroundings
from bench.show import terminal as reading
from methods import registry
from methods.method import Method
from methods.registry import Entry

SIMPLE = ["--plugin", str(PLUGINS / "simple.py")]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("1.5m", 90.0), ("3h", 10_800.0), ("none", None)]
)
def test_parse_timeout(text: str, seconds: float | None) -> None:
    assert parse_timeout(text) == seconds


NO_TIMES = [
    "",
    "90",
    "3 h",
    "-1s",
    "0s",
    "0.0h",
    "1d",
    "h",
    "1e3s",
    "None",
    "720h",
    "9" * 400 + "h",
]


@pytest.mark.parametrize("text", NO_TIMES)
def test_parse_timeout_refuses(text: str) -> None:
    """The system cannot wait for a month: its count of milliseconds is an int of C."""
    with pytest.raises(BenchError, match="such as 90s, 30m or 3h, at most 480h, or none") as said:
        parse_timeout(text)
    assert len(str(said.value)) < 200


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", 3), ("0,3,4", (0, 3, 4)), ("2,", (2,)), (" 1, 2", (1, 2))]
)
def test_parse_seeds(text: str, seeds: int | tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", ",", "a", "1.5", "-1", "0,x", "²", "9" * 5000])
def test_parse_seeds_refuses(text: str) -> None:
    with pytest.raises(BenchError, match="expected how many, such as 3, or which"):
        parse_seeds(text)


def test_names_are_arguments_and_seeds_a_list(entries: dict[str, Entry]) -> None:
    words = ["run", "near", "blind", "--level", "5%", "--seeds", "0,3", "--dry-run"]
    ended = CliRunner().invoke(app, [*words, *SIMPLE, "--dataset", "digits"])
    assert ended.exit_code == 0, ended.output
    assert "4 trials to run" in ended.output


@pytest.mark.parametrize("words", [["--version"], ["run", "-h"], ["-h"]])
def test_what_people_type_by_habit(words: list[str]) -> None:
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 0
    assert ended.output.startswith("bench 0.1.0") or "Usage:" in ended.output


def test_parse_changes() -> None:
    texts = ["dcec.lam=0.1", "dcec.head=nn", "ss-dcec.sizes=(3, 4)", "dcec.lam=None", "a.b=c=d"]
    texts.append("net1.5.width=2")
    assert parse_changes(texts) == {
        "dcec": {"lam": None, "head": "nn"},
        "ss-dcec": {"sizes": (3, 4)},
        "a": {"b": "c=d"},
        "net1.5": {"width": 2},
    }
    assert parse_changes([]) == {}
    words = ["m.a=false", "m.b=True", "m.c=true", "m.d=null", "m.e=falsehood"]
    expected = {"a": False, "b": True, "c": True, "d": None, "e": "falsehood"}
    assert parse_changes(words) == {"m": expected}


@pytest.mark.parametrize("text", ["", "lam=0.1", "dcec.lam", "dcec=0.1", ".lam=1"])
def test_parse_changes_refuses(text: str) -> None:
    with pytest.raises(BenchError, match=r"expected METHOD.PARAM=VALUE"):
        parse_changes([text])


@pytest.mark.parametrize(
    "text", ["m.x={1, 2}", "m.x={1: 1, 'a': 2}", "m.x=b'1'", "m.x=[{1}]", "m.x=1j"]
)
def test_parse_changes_refuses_what_a_record_cannot_hold(text: str) -> None:
    with pytest.raises(BenchError, match="numbers, texts, True, False, None, lists"):
        parse_changes([text])


def test_split_commas() -> None:
    assert split_commas(["a,b", " c ", "d,,e,"]) == ["a", "b", "c", "d", "e"]
    assert split_commas([]) == []


def stripes(n: int) -> np.ndarray:
    """Images ``(n, 8, 8)``, each as bright as its number says."""
    return np.repeat(np.arange(n, dtype=np.uint8), 64).reshape(n, 8, 8)


# --- What the user got wrong: exit status 2, one sentence ----------------------------------------

NEAR = "--method near --level 5%"
REFUSED = {
    "": "either methods by name, or --all",
    "--all --method near": "either methods by name, or --all",
    "--all near": "either methods by name, or --all",
    "--method naer": "no method is called 'naer'; `bench list` shows all; did you mean 'near'?",
    "--method near --level 0.05": "Level '0.05' is neither a share nor a count",
    "--method near --level 101%": "more than all instances",
    "--method near --level 2000": "asks for 2,000 labels, but the method is fitted on 1,797",
    "--method near --level 0.01%": "less than one label",
    "--method near --level ,": "no level is given",
    "--method , --level 5%": "either methods by name, or --all",
    f"{NEAR} --set near.shrnk=1": "near has no parameter 'shrnk'; it has n_clusters",
    f"{NEAR} --set near.shrink=much": "near.shrink is 'much'; expected a number, as its default",
    f"{NEAR} --set near.shrink=True": "near.shrink is True; expected a number, as its default",
    f"{NEAR} --set naer.shrink=1": "no method is called 'naer'",
    f"{NEAR} --set blind.n_clusters=3": "blind, which is not among the methods of this run",
    f"{NEAR} --set shrink=1": "expected METHOD.PARAM=VALUE",
    f"{NEAR} --set near.shrink={{1}}": "--set near.shrink is {1}; expected a value that a record",
    f"{NEAR} --set near.shrink=1e999": "--set near.shrink is inf; expected a value that a record",
    f"{NEAR} --set near.shrink=\udcff": "--set near.shrink is '\\udcff'; expected a value that",
    f"{NEAR} --timeout 5": "--timeout is '5'; expected a time such as 90s",
    f"{NEAR} --memory 8": "memory is '8'; expected a size such as 8G, 1.5GiB or 512M, or none",
    f"{NEAR} --memory 8GB": "memory is '8GB'; expected a size",
    f"{NEAR} --memory 0G": "memory is '0G'; expected a size",
    f"{NEAR} --dataset fashion_mnist": "no dataset 'fashion_mnist'. Did you mean 'fashion-mnist'?",
    f"{NEAR} --dataset absent.npz": "absent.npz",
    f"{NEAR} --jobs 0": "jobs is 0",
    f"{NEAR} --jobs 99999999999": "jobs is 99999999999; expected at least 1 and at most 10,000",
    f"{NEAR} --seeds 3000000000": "seeds is 3000000000; expected at least 1 and at most 1,000",
    f"{NEAR} --seeds 0,4294967296": "seeds is (0, 4294967296); expected how many, or different",
    f"{NEAR} --seeds 0": "seeds is 0; expected at least 1",
    f"{NEAR} --seeds 1,1": "seeds is (1, 1); expected how many, or different whole numbers",
    f"{NEAR} --seeds -1": "--seeds is '-1'; expected how many, such as 3, or which",
    f"{NEAR} --schedule fast": "schedule is 'fast'; expected one of paper, quick, smoke",
    f"{NEAR} --protocol inductiv": "protocol is 'inductiv'; expected one of transductive",
    f"{NEAR} --schedule quik": "one of paper, quick, smoke; did you mean 'quick'?",
    f"{NEAR} --level fw": "or shares or few for those of a board; did you mean 'few'?",
    f"{NEAR} --selection best": "selection is 'best'; expected one of stratified",
    f"{NEAR} --precision fp16": "precision is 'fp16'; expected one of auto, fp32, bf16",
    f"{NEAR} --backend slurm": "backend is 'slurm'; expected one of local, dask",
    f"{NEAR} --rerun some": "rerun is 'some'; expected one of stale, failed, all",
    f"{NEAR} --device tpu": "device is 'tpu'; expected one of auto, cpu, cuda",
    f"{NEAR} --results a_file": "a_file, which is no folder",
    f"{NEAR} --protocol inductive --dataset no_test.npz": "needs a test part",
    "--method blind --level 5% --protocol inductive": "blind cannot label new images",
    "--method blind --level 5% --selection representative": "blind has no select()",
    f"{NEAR} --jobs two": "jobs is 'two'; expected a whole number, at least 1, or auto",
    f"{NEAR} --job 2": "No such option",
}
if importlib.util.find_spec("distributed") is None:
    REFUSED[f"{NEAR} --backend dask"] = "backend dask needs the package distributed"


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, dict[str, Ended]]]:
    """How every one of the commands `REFUSED` ended, all run in one process."""
    with Place(tmp_path_factory.mktemp("refused")) as place:
        (place.folder / "a_file").touch()
        np.savez(place.folder / "no_test.npz", X=stripes(20), y=np.arange(20) % 2)
        lists = []
        for words in REFUSED:
            defaults = [] if "--dataset" in words else ["--dataset", "digits"]
            defaults += [] if "--schedule" in words else ["--schedule", "smoke"]
            lists.append(["run", *words.split(), *defaults, *SIMPLE])
        yield place, dict(zip(REFUSED, place.commands(*lists), strict=True))


def plain(text: str) -> str:
    """Text without the frames and line breaks that the terminal's width brings."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("words", REFUSED)
def test_refused(refused: tuple[Place, dict[str, Ended]], words: str) -> None:
    place, all_ended = refused
    ended = all_ended[words]
    assert ended.status == 2, ended
    assert REFUSED[words] in plain(ended.err)
    assert "Traceback" not in ended.text
    if not ended.err.startswith("Usage:"):  # the parser's own way to say it
        assert ended.err.startswith("error: ")
        assert ended.err.count("\n") == 1
    assert not place.files(), "nothing may have been run"


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "a_file"))
    message = "nothing can be kept in the cache folder: .* set BENCH_CACHE to a folder of yours"
    with pytest.raises(BenchError, match=message):
        bench.run(methods=["kmeans"], dataset="digits", results=tmp_path / "results")


def test_refusal_in_a_process_of_its_own(tmp_path: Path) -> None:
    with Place(tmp_path) as place:
        ended = place.run("--method near --timeout soon")
    assert ended.status == 2
    assert ended.out == ""
    said = "expected a time such as 90s, 30m or 3h, at most 480h, or none"
    assert ended.err == f"error: --timeout is 'soon'; {said}\n"


def test_check_of_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with Place(tmp_path) as place:
        (ended,) = place.commands(["check", "missing.py"])
    assert ended.status == 2
    assert ended.out == ""
    assert ended.err == "error: missing.py cannot be used: there is no file missing.py\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rerun": "some"}, "rerun is 'some'; expected one of stale, failed, all"),
        ({"backend": "slurm"}, "backend is 'slurm'; expected one of local, dask"),
        ({"jobs": 0}, "jobs is 0; expected at least 1"),
        (
            {"timeout_s": 0.0},
            r"timeout_s is 0.0; expected seconds above 0, at most 1,728,000 .*None",
        ),
        ({"timeout_s": -1.0}, "timeout_s is -1.0; expected seconds above 0"),
        ({"timeout_s": "3h"}, "timeout_s is '3h'; expected seconds above 0"),
        ({"timeout_s": 10**12}, "timeout_s is 1000000000000; expected seconds above 0, at most"),
        ({"for_s": "9m"}, "for_s is '9m'; expected seconds above 0"),
        ({"levels": 5}, "levels is 5; expected a text, or a list of texts"),
        ({"levels": ["5%", 5]}, r"levels is \['5%', 5\]; expected a text, or a list"),
        ({"methods": 3}, "methods is 3; expected a text, or a list of texts"),
        ({"plugins": [None]}, r"plugins is \[None\]; expected"),
        ({"dataset": 5}, "dataset is 5; expected its name or path"),
        ({"changes": {"kmeans": None}}, "changes is .*; expected .* the parameters by name"),
        ({"changes": {1: {"n_init": 1}}}, "changes is .*; expected .* the parameters by name"),
        ({"changes": [("kmeans", 1)]}, "changes is .*; expected .* the parameters by name"),
        (
            {"changes": {"kmeans": {"n_init": {1}}}},
            "changes: kmeans.n_init is .1.; expected a value",
        ),
        ({"results": 5}, "results is 5; expected the path of a folder"),
        ({"results": ""}, "results is ''; expected the path of a folder"),
        ({"results": "a\0b"}, r"results is 'a\\x00b', which cannot be a path: it has a character"),
        ({"results": "~nobody-there/x"}, "results is '~nobody-there/x', which cannot be a path"),
    ],
)
def test_run_from_python_refuses_too(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        bench.run(**{"dataset": "digits", "results": tmp_path} | options)


def test_an_empty_name_is_no_results_folder() -> None:
    """Such as a shell makes of a variable that is not set: it is not the working folder."""
    done = CliRunner().invoke(app, ["leaderboard", "--results", ""])
    assert isinstance(done.exception, BenchError)
    assert str(done.exception) == "results is ''; expected the path of a folder"


def test_what_a_run_from_python_understands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Levels that are made while they are read, numpy's numbers, a path with ``~``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    wish = api.Wish(
        levels=(level for level in ["5%", "10%"]),  # type: ignore[arg-type]
        plugins=None,  # type: ignore[arg-type]
        changes={"kmeans": {"n_init": np.int64(3)}},
    )
    assert (wish.levels, wish.plugins) == (["5%", "10%"], [])
    assert type((wish.changes or {})["kmeans"]["n_init"]) is int
    assert results_folder("~/x") == tmp_path / "x"
    assert seed_list(np.int64(2)) == (0, 1)
    seeds = seed_list([np.int64(3), 1])
    assert seeds == (3, 1)
    assert all(type(seed) is int for seed in seeds)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[list[Trial]]:
    """The trials of each plan that is made; none of them runs."""
    found: list[list[Trial]] = []

    def plan(trials: list[Trial], around: Surroundings, rerun: str | None) -> Plan:
        found.append(trials)
        return Plan([], [], [], [])

    monkeypatch.setattr(api, "make_plan", plan)
    return found


def test_one_of_a_thing_and_a_path_are_taken_as_they_are_meant(
    tmp_path: Path, cache: Path, planned: list[list[Trial]]
) -> None:
    path = tmp_path / "stripes.npz"
    np.savez(path, X=stripes(20), y=np.arange(20) % 2)
    bench.run(methods="kmeans", levels="50%", dataset=path, dry_run=True)
    ((trial,),) = planned
    assert (trial.method, trial.level) == ("kmeans", "50%")
    assert trial.dataset.startswith("stripes-")


def test_levels_that_small_data_do_not_allow(
    tmp_path: Path, cache: Path, planned: list[list[Trial]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 60 images in ten classes, 1 % to 10 % cannot be stratified: left out, unless asked for."""
    path = tmp_path / "few.npz"
    np.savez(path, X=stripes(60), y=np.arange(60) % 10)
    wishes = {"methods": "kmeans", "dataset": path, "dry_run": True}
    bench.run(console=Console(width=200), **wishes)
    assert [trial.level for trial in planned[-1]] == ["0%", "20%", "30%", "50%"]
    said = capsys.readouterr().out
    assert said.count("left out: ") == 4
    assert "level 5% of 60 images is 3 label(s), which cannot be stratified over 10 classes" in said
    bench.run(levels="few", **wishes)
    assert [trial.level for trial in planned[-1]] == ["10", "20", "40"]
    bench.run(selection="random", **wishes)
    assert [trial.level for trial in planned[-1]][:3] == ["0%", "1%", "3%"]
    with pytest.raises(BenchError, match="level 5% of 60 images is 3 label"):
        bench.run(levels=["5%"], **wishes)
    with pytest.raises(BenchError, match="asks for 100 labels"):
        bench.run(levels=["few", "100"], **wishes)


def test_a_file_is_found_from_any_folder_and_its_path_is_in_no_identity(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may run in another folder than the command, on a cluster say."""
    planned: list[tuple[list[Trial], Surroundings]] = []

    def plan(trials: list[Trial], around: Surroundings, rerun: str | None) -> Plan:
        planned.append((trials, around))
        return Plan([], [], [], [])

    monkeypatch.setattr(api, "make_plan", plan)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        np.savez("stripes.npz", X=stripes(20), y=np.arange(20) % 2)
        bench.run(methods=["kmeans"], levels=["50%"], dataset="stripes.npz", dry_run=True)
        (trial,), around = planned[-1]
        assert around.template.source == str(tmp_path / name / "stripes.npz")
        assert trial.identity == planned[0][0][0].identity
        assert str(tmp_path) not in str(trial.to_json())


@pytest.mark.parametrize("wanted", ["**", "near/5%/[0]", "/etc/0", ""])
def test_show_takes_what_it_is_given_as_a_name(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(BenchError, match="expected a path or METHOD/LEVEL/SEED"):
        reading.find(wanted, tmp_path)


# --- Reading -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, dict[str, Ended]]]:
    """What every reading command said of two records, one of them a failure."""
    with Place(tmp_path_factory.mktemp("shown")) as place:
        place.environment["BENCH_DATA"] = str(place.folder)  # Fashion-MNIST is not there
        ended = place.run("--method near,raises --level 5%", "simple", "failing")
        assert ended.status == 1, ended.text
        record = read_record(place.files()["near/5%/0"])
        record["trial"] |= {"selection": "random"}
        record["identity"] = Trial.from_json(record["trial"]).identity
        store = Store(place.results)
        random = store.write(record)
        commands = [
            "list",
            "list --json",
            "leaderboard",
            "leaderboard --markdown",
            "leaderboard --results absent",
            "show raises/5%/0",
            "show near/5%/0",
            f"show {random.relative_to(place.folder)}",
            "show digits/transductive-random-smoke/near/5%/0",
            "show near/5%/7",
            "show near/5%/0 --results absent",
            "doctor",
            "data",
            "nonsense",
        ]
        lists = [one.split() + SIMPLE * one.startswith("list") for one in commands]
        yield place, dict(zip(commands, place.commands(*lists), strict=True))


Shown = tuple[Place, dict[str, Ended]]


def test_list(shown: Shown) -> None:
    _, ended = shown
    assert ended["list"].status == 0
    lines = ended["list"].out.splitlines()
    start = lines.index("near")
    assert lines[start + 1].strip().startswith("The nearest mean of the labelled images")
    assert lines[start + 2].strip() == str(PLUGINS / "simple.py")
    assert lines[start + 3].strip() == "n_clusters=10, random_state=None, shrink=0.0"
    rows = {row["name"]: row for row in json.loads(ended["list --json"].out)}
    assert rows["near"]["parameters"] == {"n_clusters": 10, "random_state": None, "shrink": 0.0}
    assert rows["near"]["schedules"]["smoke"]["shrink"] == 0.5
    assert rows["blind"]["tags"]["uses_labels"] is False
    assert rows["near"]["source"] == str(PLUGINS / "simple.py")
    assert list(rows) == sorted(rows)


def test_leaderboard(shown: Shown) -> None:
    place, ended = shown
    headline = f"{place.records()['near/5%/0']['headline']:.3f}".removeprefix("0")
    terminal = ended["leaderboard"]
    assert terminal.status == 0
    assert "digits · transductive · stratified labels · schedule smoke" in plain(terminal.out)
    assert "failed (1)" in terminal.out
    assert headline in terminal.out
    assert "written: results/leaderboard.csv" in terminal.out
    assert (place.results / "leaderboard.csv").read_text().count("\n") == 4
    markdown = ended["leaderboard --markdown"]
    assert markdown.status == 0
    assert f"| near | **{headline}** |" in markdown.out
    assert "| raises | failed (1) |" in markdown.out
    absent = ended["leaderboard --results absent"]
    assert absent.status == 2
    assert absent.err == (
        "error: there is no results folder absent; `bench run` makes one, and --results results "
        "reads the one that is here\n"
    )


def test_show(shown: Shown) -> None:
    _, ended = shown
    failed = ended["show raises/5%/0"]
    assert failed.status == 0
    for words in ("raises · 5% · seed 0: failed", "as it was told to", "last words of raises"):
        assert words in failed.out
    by_path = next(one for words, one in ended.items() if words.endswith(".json"))
    assert by_path.status == 0
    for words in ("near · 5% · seed 0: ok", "headline_is: accuracy on unlabelled", "nmi 0."):
        assert words in by_path.out
    assert "log: none on this machine" in by_path.out
    ambiguous = ended["show near/5%/0"]
    assert ambiguous.status == 2
    assert "'near/5%/0' fits 2 records; give one of digits/transductive-random" in ambiguous.err
    assert "digits/transductive-stratified-smoke/near/5%/0" in ambiguous.err
    by_name = ended["show digits/transductive-random-smoke/near/5%/0"]
    assert (by_name.status, by_name.out, by_name.err) == (0, by_path.out, "")
    assert ended["show near/5%/7"].status == 2
    assert "expected a path or METHOD/LEVEL/SEED" in ended["show near/5%/7"].err
    assert ended["show near/5%/0 --results absent"].status == 2
    assert "there is no results folder absent" in ended["show near/5%/0 --results absent"].err


def test_doctor_and_data_without_the_images(shown: Shown) -> None:
    place, ended = shown
    assert ended["doctor"].status == 1
    for words in ("processor ", "memory ", "torch 2.", "data        not usable: "):
        assert words in ended["doctor"].out
    assert ended["data"].status == 2
    assert ended["data"].err.startswith("error: ")
    assert str(place.folder) in ended["data"].err
    for words in ("doctor", "data", "nonsense"):
        assert "Traceback" not in ended[words].text
    assert ended["nonsense"].status == 2
    assert "No such command 'nonsense'" in ended["nonsense"].err


# --- What has come apart -------------------------------------------------------------------------


def test_a_run_ends_with_its_summary_though_there_is_no_board(
    tmp_path: Path, entries: dict[str, Entry], cache: Path
) -> None:
    """Seed 1 is of an older default: the seeds have no common mean until it is made again."""
    words = ["run", "kmeans", "--level", "10%", "--dataset", "digits", "--schedule", "smoke"]
    words += ["--results", str(tmp_path), "--jobs", "1"]
    assert CliRunner().invoke(app, [*words, "--seeds", "2"]).exit_code == 0
    (path,) = tmp_path.rglob("1.json")
    record = read_record(path)
    record["trial"]["params"]["n_init"] += 1
    record["identity"] = Trial.from_json(record["trial"]).identity
    Store(tmp_path).write(record)
    done = CliRunner().invoke(app, [*words, "--rerun", "all"])
    assert (done.exit_code, done.exception.__class__) == (1, SystemExit)
    assert "ok kmeans · 10% · seed 0" in done.output
    assert "trials of this run: 1 ok" in done.output
    assert "error: the records of kmeans at 10% have no common mean" in done.output


def test_a_link_below_the_records_is_said_before_anything_is_fitted(
    tmp_path: Path, entries: dict[str, Entry], cache: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "r" / "trials").mkdir(parents=True)
    (tmp_path / "r" / "trials" / "digits").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BenchError, match="trials/digits is a symbolic link; expected a folder"):
        bench.run("kmeans", "10%", dataset="digits", schedule="smoke", results=tmp_path / "r")
    assert not (cache / "stages").exists()


def test_a_board_of_some_methods_has_no_answers(
    tmp_path: Path, entries: dict[str, Entry], make_record: Callable[..., dict[str, Any]]
) -> None:
    """The one that a sentence compares with may not be among them."""
    for method, headline in (("supervised-lr", 0.6), ("ss-dcec", 0.7)):
        for level in ("1%", "5%", "10%"):
            Store(tmp_path).write(make_record(headline, method=method, level=level))
    words = ["leaderboard", "--markdown", "--results", str(tmp_path)]
    whole, some, level = (
        CliRunner().invoke(app, [*words, *more])
        for more in ((), ("--method", "ss-dcec"), ("--level", "5%"))
    )
    assert "ss-dcec comes first" in whole.output
    assert (whole.exit_code, some.exit_code, level.exit_code) == (0, 0, 0)
    assert "| ss-dcec |" in some.output
    assert "comes first" not in some.output
    (sentence,) = [line for line in level.output.splitlines() if "comes first" in line]
    assert sentence in whole.output


def test_the_list_is_json_whatever_a_default_is(entries: dict[str, Entry]) -> None:
    """JSON has no infinity, and Python's would be no JSON to other programs."""

    @registry.register("endless")
    class Endless(Method):
        def __init__(
            self, n_clusters: int = 10, most: float = math.inf, random_state: int | None = None
        ) -> None:
            self.n_clusters, self.most, self.random_state = n_clusters, most, random_state

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    done = CliRunner().invoke(app, ["list", "--json"])
    rows = {row["name"]: row for row in json.loads(done.stdout, parse_constant=refuse)}
    assert rows["endless"]["parameters"]["most"] == "inf"


def test_a_board_names_methods_that_are_not_at_hand(
    entries: dict[str, Entry], tmp_path: Path, make_record: Callable[..., dict[str, Any]]
) -> None:
    """Their family would go from the file without a word."""
    Store(tmp_path).write(make_record(0.6, method="near", level="5%"))
    words = ["leaderboard", "--results", str(tmp_path)]
    without = CliRunner().invoke(app, words)
    assert "no method here: near; without a family" in without.stderr
    known = CliRunner().invoke(app, [*words, "--plugin", str(PLUGINS / "simple.py")])
    assert known.stderr == ""
    assert (without.exit_code, known.exit_code) == (0, 0)
