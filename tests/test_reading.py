"""Reading records at a terminal or from a program: filters, JSON, the one record that is meant."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from bench.cli import app, main
from bench.commands.output import print_json, rows_of
from bench.core.errors import BenchError
from bench.data import datasets
from bench.records import findings
from bench.records.leaderboard import COLUMNS
from bench.records.logs import log_path
from bench.records.store import Store
from bench.show import terminal

MakeRecord = Callable[..., dict[str, Any]]
WIDE = {"COLUMNS": "200", "TERM": "dumb"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, make_record: MakeRecord) -> Path:
    """Three methods at shares and numbers of labels, under two schedules; one trial failed."""
    store = Store(tmp_path_factory.mktemp("reading") / "results")
    for at, level in enumerate(("0%", "1%", "5%", "10", "500")):
        for method in ("kmeans", "ss-dcec", "scan"):
            value = None if (method, level) == ("scan", "5%") else 0.5 + at / 10 - len(method) / 100
            store.write(make_record(value, method=method, level=level))
    store.write(make_record(0.25, method="scan", level="1%", schedule="paper"))
    changed = {"n_clusters": 2, "lam": math.inf}
    store.write(make_record(0.75, method="kmeans", level="1%", params=changed, variant=changed))
    return store.results


def bench(*words: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, list(words), env=WIDE | (env or {}))


# --- The leaderboard, some of it -----------------------------------------------------------------


def test_the_board_of_some(results: Path) -> None:
    """The file holds all of it, and a rank is a rank among all."""
    words = ["--method", "ss-dcec,scan", "--level", "1%", "--schedule", "quick"]
    shown = bench("leaderboard", "--results", str(results), *words)
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("schedule quick") == 1
    assert "schedule paper" not in shown.output
    (head,) = (line for line in shown.output.splitlines() if line.startswith("┃method"))
    assert "1%" in head
    assert "5%" not in head
    lines = [line for line in shown.output.splitlines() if line.startswith("│")]
    assert [line.split("│")[1].strip() for line in lines] == ["scan", "ss-dcec"]
    assert "Shown is what was asked for. Ranks are among all methods" in shown.output
    table = pd.read_csv(results / "leaderboard.csv")
    assert len(table) == 17
    assert set(table["schedule"]) == {"quick", "paper"}


def test_all_of_the_board_needs_no_such_remark(results: Path) -> None:
    shown = bench("leaderboard", "--results", str(results))
    assert "Shown is what" not in shown.output
    for words in ("schedule quick · numbers of labels", "schedule paper", "kmeans lam=inf"):
        assert words in shown.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--method scam", "method is 'scam'; expected one of kmeans, scan, ss-dcec; did you mean"),
        ("--dataset toys", "dataset is 'toys'; expected one of toy; did you mean 'toy'?"),
        ("--level 50%", "no record is of level 50%; `bench leaderboard` shows what there is"),
        ("--schedule smoke", "no record is of schedule smoke"),
        ("--method kmeans --schedule paper", "no record is of method kmeans, schedule paper"),
        ("--level 0.5", "neither a share nor a count"),
        ("--protocol both", "protocol is 'both'; expected one of transductive"),
        ("--json --markdown", "two formats; give one of them"),
    ],
)
def test_what_no_record_is_of(results: Path, words: str, message: str) -> None:
    ended = bench("leaderboard", "--results", str(results), *words.split())
    assert isinstance(ended.exception, BenchError)
    assert message in str(ended.exception)
    assert ended.output == ""


def test_some_as_markdown(results: Path) -> None:
    shown = bench("leaderboard", "--results", str(results), "--level", "few", "--markdown")
    assert shown.output.startswith("- With 10 labels (measured with 5), scan comes first with .760")
    assert "\n\n**toy · transductive" in shown.output
    assert "| method | 10 | 500 |" in shown.output


# --- JSON ----------------------------------------------------------------------------------------


def parsed(ended: Result) -> Any:
    """The one document on standard output, by the letter of JSON."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout, parse_constant=refuse)


def test_leaderboard_as_json(results: Path) -> None:
    (results / "leaderboard.csv").unlink(missing_ok=True)
    rows = parsed(bench("leaderboard", "--results", str(results), "--json"))
    assert [list(row) for row in rows] == [COLUMNS] * 17
    table = pd.read_csv(results / "leaderboard.csv", keep_default_na=False)
    assert [row["method"] for row in rows] == list(table["method"])
    (failed,) = (row for row in rows if row["n_failed"])
    assert (failed["method"], failed["headline_mean"], failed["rank"]) == ("scan", None, None)
    (variant,) = (row for row in rows if row["variant"])
    assert (variant["rank"], variant["headline_mean"], variant["n_labels"]) == (None, 0.75, 5)
    few = parsed(bench("leaderboard", "--results", str(results), "--json", "--level", "500"))
    assert {row["level"] for row in few} == {"500"}
    assert len(few) == 3


def test_show_as_json(results: Path, cache: Path) -> None:
    store = Store(results)
    (record,) = (r for r in store if r["trial"]["variant"])
    words = ["show", str(store.path(terminal.Trial.from_json(record["trial"]))), "--json"]
    found = parsed(bench(*words, "--results", str(results)))
    assert found["log"] is None
    assert found["record"]["trial"]["params"] == {"n_clusters": 2, "lam": "inf"}
    assert {k: v for k, v in found["record"].items() if k not in ("trial", "identity")} == {
        k: v for k, v in record.items() if k not in ("trial", "identity")
    }
    path = log_path(datasets.cache_dir() / "logs", terminal.Trial.from_json(record["trial"]))
    path.parent.mkdir(parents=True)
    path.write_text("first\nlast [x]\n")
    again = parsed(bench(*words, "--results", str(results)))
    assert again["log"] == {"path": str(path), "lines": ["first", "last [x]"]}


def test_verify_as_json(results: Path) -> None:
    rows = parsed(bench("verify", "--results", str(results), "--json"))
    assert {tuple(row) for row in rows} == {tuple(findings.COLUMNS)}
    assert len(rows) > 50
    assert {row["verdict"] for row in rows} == {"not run"}
    assert all(isinstance(row["published"], float) for row in rows)
    assert all(row["measured_mean"] is None for row in rows)
    assert len(pd.read_csv(results / "verify.csv")) == len(rows)


def test_doctor_as_json(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    ended = bench("doctor", "--json")
    assert ended.exit_code == 1
    found = json.loads(ended.stdout)
    assert found["healthy"] is False
    assert str(tmp_path) in found["data"]["error"]
    assert found["cache"]["folder"] == str(cache)
    assert found["cache"]["error"] is None
    assert found["cores"] >= 1
    assert "torch" in found["versions"]


def test_an_error_leaves_standard_output_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "leaderboard", "--json", "--results", "nowhere"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: there is no results folder nowhere; `bench run` makes one\n"


def test_what_json_has_no_number_for_is_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [math.inf, -math.inf, 1.5], "b": (math.nan, None, True), 3: "x"})
    assert json.loads(capsys.readouterr().out) == {
        "a": ["inf", "-inf", 1.5],
        "b": ["nan", None, True],
        "3": "x",
    }


# --- The record that is meant --------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path, make_record: MakeRecord) -> Path:
    """One name for records of three boards, among them that of a bare ``bench run``."""
    store = Store(tmp_path / "results")
    for fields in (
        {"dataset": "fashion-mnist"},
        {"dataset": "fashion-mnist", "schedule": "paper"},
        {"dataset": "fashion-mnist", "variant": {"lam": 1}, "params": {"lam": 1}},
        {"dataset": "digits"},
    ):
        store.write(make_record(**fields, method="ss-dcec"))
    return store.results


def test_of_several_the_usual_one_is_shown(many: Path, cache: Path) -> None:
    shown = bench("show", "ss-dcec/5%/0", "--results", str(many))
    assert shown.exit_code == 0, shown.output
    usual = "fashion-mnist/transductive-stratified-quick/ss-dcec/5%/0"
    assert str(many / "trials" / f"{usual}.json") in shown.stdout
    assert shown.stderr == (
        f"{usual} is shown; the name fits these too:\n"
        "  digits/transductive-stratified-quick/ss-dcec/5%/0\n"
        "  fashion-mnist/transductive-stratified-paper/ss-dcec/5%/0\n"
    )
    for name in shown.stderr.split()[-2:]:
        other = bench("show", name, "--results", str(many))
        assert (other.exit_code, other.stderr) == (0, "")
        assert f"{name}.json" in other.stdout
    assert parsed(bench("show", "ss-dcec/5%/0", "--json", "--results", str(many)))["record"]


@pytest.mark.parametrize(
    "name", ["transductive-stratified-paper/ss-dcec/5%/0", "ss-dcec/5%/0.json"]
)
def test_part_of_a_name(many: Path, name: str) -> None:
    assert terminal.find(name, many).path.name == "0.json"


def test_of_several_unusual_ones_none_is_chosen(many: Path, make_record: MakeRecord) -> None:
    for dataset in ("one", "two"):
        Store(many).write(make_record(dataset=dataset, method="scan"))
    with pytest.raises(BenchError, match=r"fits 2 records; give one of one/trans.*, two/trans"):
        terminal.find("scan/5%/0", many)


# --- Which folder --------------------------------------------------------------------------------


def test_the_folder_is_the_same_for_every_command(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_RESULTS", raising=False)
    (tmp_path / "results" / "trials").mkdir(parents=True)
    for words in ("leaderboard", "report", "verify", "show ss-dcec/5%/0"):
        ended = bench(*words.split())
        assert str(ended.exception) == (
            "there is no results folder my-results; `bench run` makes one, and --results results "
            "reads the one that is here"
        )
    named = bench("leaderboard", env={"BENCH_RESULTS": str(results)})
    assert "ss-dcec" in named.stdout
    (tmp_path / "my-results").symlink_to(results)
    assert "ss-dcec" in bench("leaderboard").stdout


def test_what_has_no_end_is_a_text_in_json() -> None:
    """Labels that are never enough are not the same as a column that does not apply."""
    table = pd.DataFrame({"method": ["a", "b", "c"], "labels": [math.inf, math.nan, 2.5]})
    assert [row["labels"] for row in rows_of(table)] == ["inf", None, 2.5]
