"""`bench verify`: the table, verify.csv, the exit status, and what --run runs."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from published_records import (
    CARD,
    LR_500,
    NN_500,
    NO_RECORD,
    README,
    REPORT,
    TABLE_1,
    Records,
    figure,
    put_stand_ins,
)
from rich.console import Console
from typer.testing import CliRunner

from bench.cli import app
from bench.core.errors import BenchError
from bench.core.trial import Grid, Trial
from bench.data import datasets
from bench.records import findings, published
from bench.records.findings import NEEDS_DATA
from bench.records.published import FASHION, Data
from bench.running import api, missing
from bench.running.runner import Summary
from bench.show import verify
from methods import registry
from methods.registry import Entry

FIGURES = """\
source,method,head,trained_on,selection,labels,clusters,percentile,metric,value,evaluated_on,note,\
selection_rule
paper,nearest,nn,all 70000,stratified,10%,,25,accuracy,0.88,unlabelled,made up,last
"""


@pytest.fixture
def records(tmp_path: Path, entries: dict[str, Entry]) -> Records:
    put_stand_ins(entries)
    return Records(tmp_path / "results")


# --- What is shown and written -----------------------------------------------------------------


def test_the_csv_has_numbers_as_numbers(records: Records) -> None:
    records.add(LR_500, 0.78, 0.79)
    records.add(NN_500, 0.1)
    path = records.results / "verify.csv"
    findings.write_csv(findings.verify(published.figures(), records.results), path)
    table = pd.read_csv(path)
    assert list(table.columns) == findings.COLUMNS
    assert len(table) == 52
    assert table["other_reading"].sum() == 1
    numbers = ["published", "measured_mean", "measured_std", "measured_low", "measured_high"]
    numbers += ["n_seeds", "difference", "tolerance", "n_failed", "n_died", "failure_rate"]
    assert all(pd.api.types.is_numeric_dtype(table[name]) for name in numbers)
    by_number = table[~table["other_reading"]].set_index("number")
    lr, nn, never = by_number.loc[LR_500], by_number.loc[NN_500], by_number.loc[1]
    assert (lr["measured_mean"], lr["n_seeds"], lr["verdict"]) == (0.785, 2, "reproduced")
    assert lr["measured_low"] < 0.785 < lr["measured_high"]
    assert (lr["selection_rule"], never["selection_rule"]) == ("last", "label-free")
    assert (lr["method"], lr["level"], lr["subset"]) == ("supervised-lr", "500", "test")
    assert pd.isna(nn["measured_std"])
    assert (nn["n_died"], nn["failure_rate"]) == (1, 1)
    assert by_number.loc[42, "parameters"] == "percentile=20"
    assert never[["measured_mean", "difference", "tolerance", "failure_rate"]].isna().all()
    assert (never["verdict"], never["note"]) == ("not run", NO_RECORD)


def test_the_table_shows_published_against_measured(records: Records) -> None:
    records.add(LR_500, 0.78, 0.79)
    records.add(NN_500, 0.1)
    console = Console(width=160, record=True, file=io.StringIO())
    verify.show(findings.verify(published.figures(), records.results), console)
    text = console.export_text()
    for source in (TABLE_1, CARD, README, REPORT, "scan-model-card"):
        assert source in text
    (line,) = [line for line in text.splitlines() if line.startswith("│24")]
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "24",
        "supervised-lr",
        "500 first",
        "accuracy on test",
        "0.7852",
        "0.7850 ± 0.0071 (2)",
        "-0.0002",
        "reproduced",
        "",
    ]
    assert f"{README} · inductive" in text
    assert "#25: 1 of 1 seeds died (below 0.15)" in text
    assert "48b" in text
    assert f"#51: {NEEDS_DATA}" in text
    assert "51 figures: 1 reproduced, 0 above, 0 below, 1 died, 49 not run" in text


def test_a_source_is_named_by_its_beginning() -> None:
    everything = published.figures()
    assert published.of_source(everything, None) == everything
    assert {f.source for f in published.of_source(everything, "ss-dcec")} == {TABLE_1, CARD}
    with pytest.raises(BenchError, match="'nobody'; expected the beginning of one of ss-dcec-"):
        published.of_source(everything, "nobody")


def bench(*words: str) -> Any:
    return CliRunner().invoke(app, ["verify", *words])


@pytest.mark.parametrize(
    ("value", "words", "status"),
    [(0.7, (), 0), (0.7, ("--strict",), 1), (0.78, ("--strict",), 0), (0.9, ("--strict",), 0)],
)
def test_exit_status(records: Records, value: float, words: tuple[str, ...], status: int) -> None:
    records.add(LR_500, value)
    ended = bench("--results", str(records.results), *words)
    assert ended.exit_code == status, ended.output
    assert len(pd.read_csv(records.results / "verify.csv")) == 52


def test_a_second_reading_and_other_sources_do_not_make_it_strict(records: Records) -> None:
    records.add(48, 0.72)
    centres = published.trial_of(figure(48, other_reading=True).setting, FASHION)
    records.add(48, 0.5, params=centres.params, variant=centres.variant)
    both = findings.verify([figure(48), figure(48, True)], records.results)
    assert [one.verdict for one in both] == ["reproduced", "below"]
    assert bench("--results", str(records.results), "--strict").exit_code == 0
    records.add(LR_500, 0.5)
    words = ("--results", str(records.results), "--strict", "--source")
    assert bench(*words, REPORT).exit_code == 0
    assert bench(*words, README).exit_code == 1


# --- What is run -------------------------------------------------------------------------------


def spelt_out(wish: api.Wish) -> list[Trial]:
    """The trials of a wish on Fashion-MNIST, as `bench.run` spells them out."""
    return Grid(
        wish.dataset,
        FASHION.digest,
        FASHION.n_classes,
        tuple(registry.get(name) for name in wish.methods or ()),
        levels=tuple(wish.levels),
        seeds=wish.seeds,
        protocol=wish.protocol,
        selection=wish.selection,
        schedule=wish.schedule,
        changes=wish.changes or {},
    ).trials()


def test_wishes_are_exactly_what_is_missing(records: Records) -> None:
    records.add(LR_500, 0.78, 0.78)
    records.add(NN_500, 0.78)  # its second seed is missing
    records.add(1, None, None)  # a failure is a record
    wanted = missing.wishes(published.figures(), records.results, seeds=2)
    asked = [trial for wish in wanted for trial in spelt_out(wish)]
    measured = published.figures()[:-1]  # SCAN needs data
    expected = {
        replace(published.trial_of(one.setting, FASHION), seed=seed).identity
        for one in measured
        if one.number not in (LR_500, 1, 2, 17)
        for seed in range(2)
    }
    assert {trial.identity for trial in asked} == expected
    assert len(asked) == len(expected)
    assert len(wanted) < 20  # methods of one board share a plan


def test_what_cannot_run_is_not_wished_for(records: Records, entries: dict[str, Entry]) -> None:
    for name in [name for name in entries if name != "supervised-lr"]:
        del entries[name]
    wanted = missing.wishes(published.figures(), records.results, plugins=["p.py"])
    assert [(wish.methods, wish.levels, wish.selection) for wish in wanted] == [
        (["supervised-lr"], ["100%"], "stratified"),
        (["supervised-lr"], ["500", "1000", "2000"], "first"),
    ]
    assert {(wish.schedule, tuple(wish.plugins)) for wish in wanted} == {("paper", ("p.py",))}
    for seeds in (0, 3 * 10**9):
        with pytest.raises(BenchError, match=f"seeds is {seeds}; expected at least 1"):
            missing.wishes(published.figures(), records.results, seeds=seeds)


def runs(monkeypatch: pytest.MonkeyPatch, *ends: Summary | Exception) -> list[api.Wish]:
    """Let the runs end so, one after the other; the wishes that they were asked for."""
    asked: list[api.Wish] = []

    def run(wish: api.Wish, **options: Any) -> Summary:
        asked.append(wish)
        end = ends[len(asked) - 1]
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(api, "run", run)
    return asked


@pytest.mark.parametrize(
    ("ends", "n_asked", "good"),
    [
        ((Summary({"ok": 1}), Summary({"ok": 1})), 2, True),
        ((Summary({"failed": 1}), Summary({"ok": 1})), 2, False),
        ((BenchError("no [such] thing"), Summary({"ok": 1})), 2, False),
        ((Summary({}, stopped=True), Summary({"ok": 1})), 1, False),
    ],
)
def test_a_failure_does_not_keep_the_others_from_running(
    monkeypatch: pytest.MonkeyPatch,
    ends: tuple[Summary | Exception, ...],
    n_asked: int,
    good: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = runs(monkeypatch, *ends)
    wanted = [api.Wish(methods=["a"], levels=["1%"]), api.Wish(methods=["b"], levels=["3%"])]
    assert missing.run_missing(wanted, Console(width=160)) is good
    assert asked == wanted[:n_asked]
    out = capsys.readouterr().out
    assert "run 1 of 2: a at 1%, transductive, stratified" in out
    assert ("error: no [such] thing" in out) == isinstance(ends[0], BenchError)


def test_the_command_runs_what_is_missing_of_a_source(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = runs(monkeypatch, Summary({"failed": 1}), *[Summary({"ok": 1})] * 9)
    words = ["--results", str(records.results), "--run", "--source", REPORT, "--seeds", "3"]
    assert bench(*words).exit_code == 1  # a run failed
    assert {wish.protocol for wish in asked} == {"inductive-55k"}
    assert {wish.seeds for wish in asked} == {3}
    assert {name for wish in asked for name in wish.methods or ()} == {
        "supervised-mlp",
        "kmeans-centroid-mlp",
        "kmeans-full-mlp",
        "kmeans-percentile-mlp",
    }
    changed = [dict(wish.changes or {}) for wish in asked if wish.changes]
    assert changed == [{"kmeans-centroid-mlp": {"train_on": "centres"}}]


PLUGIN = '''
"""A method for a figure that nobody has published."""

import numpy as np

from methods.method import Method, Tags, flatten
from methods.registry import register


@register("nearest-nn", scale=2.0)
class Nearest(Method):
    """The class whose labelled images have the nearest mean."""

    tags = Tags(needs_labels=True)

    def __init__(self, n_clusters=10, scale=1.0, percentile=50, random_state=None):
        self.n_clusters, self.scale = n_clusters, scale
        self.percentile, self.random_state = percentile, random_state

    def fit(self, X, y=None, context=None):
        rows = flatten(X) * self.scale
        means = np.stack([rows[y == j].mean(0) for j in range(self.n_clusters)])
        self.labels_ = (rows @ means.T - np.square(means).sum(1) / 2).argmax(1)
        return self
'''


def test_a_figure_is_run_and_then_verified(
    tmp_path: Path, cache: Path, entries: dict[str, Entry]
) -> None:
    (tmp_path / "figures.csv").write_text(FIGURES)
    (tmp_path / "nearest.py").write_text(PLUGIN)
    plugins = [str(tmp_path / "nearest.py")]
    assert registry.discover(plugins) == []
    (one,) = published.figures(published.read_published(tmp_path / "figures.csv"))
    one = replace(one, setting=replace(one.setting, dataset="digits"))
    digits = datasets.load("digits")
    data = {"digits": Data("digits", digits.digest, digits.n_classes)}
    results = tmp_path / "results"
    wanted = missing.wishes([one], results, seeds=2, plugins=plugins, data=data)
    assert [wish.changes for wish in wanted] == [{"nearest-nn": {"percentile": 25}}]
    assert missing.run_missing(wanted, Console(quiet=True), results=results, jobs=2)
    (found,) = findings.verify([one], results, data)
    assert (len(found.values), found.verdict) == (2, "reproduced"), found
    assert missing.wishes([one], results, seeds=2, plugins=plugins, data=data) == []
