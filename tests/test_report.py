"""`bench report`: what the page holds, that it stands alone, and that it is the same each time."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugins_for_tests import Place
from published_records import LR_500, Records, put_stand_ins, subset
from typer.testing import CliRunner

from bench.cli import app
from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.data import datasets
from bench.records import views
from bench.records.store import Store
from bench.records.views import Cluster, Reconstructed, View
from bench.show.report import MADE_BY, write_report
from methods.registry import Entry

MakeRecord = Callable[..., dict[str, Any]]
VOID = {"meta", "img", "input", "br"}
HERE: dict[str, Any] = {"environment": {"device": "cpu", "precision": "fp32"}}


class Page(HTMLParser):
    """The page as a browser would take it: its tags, its text, its tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "tags close in the order in which they opened"

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def row(self, *start: str) -> list[str]:
        """The one row that begins so, its cells without line breaks; it may stand in two tables."""
        plain = {tuple(" ".join(cell.split()) for cell in row) for row in self.rows}
        (found,) = [row for row in plain if row[: len(start)] == start]
        return list(found)


def filled(folder: Path, make_record: MakeRecord) -> Path:
    """Two boards, three methods, a failure, two machines; no views, images of nobody's."""
    store = Store(folder)
    scored = {"subsets": {"unlabelled": subset(n=9, recall=[0.25, None, 0.75])}}
    for level, n_labels, shift in (("0%", 0, 0.0), ("1%", 700, 0.1), ("10%", 7000, 0.2)):
        n = {"n_labels": n_labels}
        for seed in (0, 1):
            of_good = make_record(0.6 + shift, scored | n, method="good", level=level, seed=seed)
            store.write(of_good)
            store.write(make_record(0.5 + shift, n, method="plain", level=level, seed=seed))
    n = {"n_labels": 700}
    changed = {"variant": {"lam": 2}, "params": {"lam": 2}}
    store.write(make_record(0.3, n, method="lam", level="1%", **changed))
    store.write(make_record(None, method="broken", level="1%"))
    found = {"device": "cuda", "processor": "A<B", "commit": "0123456789abcdef", "dirty": True}
    versions = {"versions": {"torch": "2.9", "python": "3.11"}}
    there = {"environment": found | versions} | n
    store.write(make_record(0.4, there, method="other", schedule="paper", selection="random"))
    return store.results


@pytest.fixture
def results(tmp_path: Path, make_record: MakeRecord) -> Path:
    return filled(tmp_path / "results", make_record)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, make_record: MakeRecord) -> Page:
    """The page of such results, for those that only look at it."""
    return Page(write_report(filled(tmp_path_factory.mktemp("seen") / "results", make_record)))


def shown(results: Path, **options: Any) -> Page:
    return Page(write_report(results, **options))


# --- The page ----------------------------------------------------------------------------------


def test_the_page_stands_alone(page: Page) -> None:
    assert {tag for tag, _ in page.tags} & {"link", "iframe", "object", "base"} == set()
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
    for name in ("src", "href"):
        given = [attributes[name] or "" for _, attributes in page.tags if name in attributes]
        assert all(one.startswith(("data:image/png;base64,", "#")) for one in given)
    plain = re.sub('"data:[^"]*"|xmlns(:xlink)?="[^"]*"', "", page.source)
    assert not re.findall(r"https?:|//[a-z]|url\((?!#)|@import", plain)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {one["href"] for one in page.all("a")} <= {f"#{one}" for one in ids}
    assert len(page.source) < 500_000


def test_only_our_script_runs(page: Page) -> None:
    data, script = page.all("script")
    assert data == {"type": "application/json", "id": "data"}
    assert script == {}
    (code,) = re.findall("<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    (policy,) = [x["content"] or "" for x in page.all("meta") if "http-equiv" in x]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_the_committed_page_is_small() -> None:
    page = Path(__file__).parents[1] / "results" / "report" / "index.html"
    assert page.stat().st_size < 6_000_000


def test_the_page_can_be_read_by_everybody(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert all(one.get("scope") in ("row", "col") for one in page.all("th"))
    assert all(len(one.get("alt") or "") > 20 for one in page.all("img"))
    assert page.all("svg")
    assert all(one.get("role") == "img" and one.get("aria-labelledby") for one in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table")) > 4
    assert any(one.get("name") == "viewport" for one in page.all("meta"))
    assert "@media print" in page.source


def test_every_method_level_and_best_are_in_the_board(page: Page) -> None:
    of_good = [".600±.000", ".700±.000", ".800±.000", "1.0", "2.0", "3.0"]
    assert page.row("good", ".600±.000") == ["good", *of_good]
    assert page.row("lam lam=2", "")[:4] == ["lam lam=2", "", ".300", ""]
    assert page.row("broken", "")[2] == "failed (1)"
    for method in ("good", "plain", "lam lam=2", "broken", "other"):
        assert method in page.text
    strong = re.findall(r"<strong>([^<]*)</strong>", page.source)
    assert strong == [".600±.000", ".700±.000", ".800±.000"], "one method alone is not the best"
    assert "With 35,000 labels (measured with 7,000), good comes first with .800" in page.text
    assert "With 700 labels, good comes first with .700 (95 % interval .700 to .700" in page.text
    assert "With 700 labels, only other was measured, .400 (one seed): nothing is" in page.text
    assert "5 methods, 15 trials: 1 failed, 14 ok." in page.text
    for title in ("transductive · random labels · schedule paper", "stratified labels · schedule"):
        assert title in page.text
    assert "± half the 95 % t-interval over seeds" in page.text


def test_figures_lie_beside_the_page(page: Page) -> None:
    names = {one["data-file"] or "" for one in page.all("figure")}
    board, other = "toy-transductive-stratified-quick", "toy-transductive-random-paper"
    kinds = ("supervision", "cost", "memory", "recall", "confusion", "labels")
    expected = {f"{kind}-{board}.svg" for kind in kinds}
    expected |= {f"{kind}-{other}.svg" for kind in ("cost", "memory", "recall")}
    expected |= {"curve-good.svg", "curve-plain.svg"}
    assert names == expected, "a chart over levels needs two of them"
    files = {path.name for path in page.path.parent.iterdir()}
    assert files == names | {"index.html"}
    for name in names:
        file = (page.path.parent / name).read_text(encoding="utf-8")
        assert file.startswith("<svg ")
        assert "prefers-color-scheme:dark" in file
    assert "At 1 %, best first: good 0.700, plain 0.600, lam lam=2 0.300." in page.text


def test_what_is_missing_is_said(page: Page) -> None:
    board = "toy · transductive · stratified labels · schedule quick"
    assert not [row for row in page.rows if row[:2] == ["lam lam=2", board]], "a variant"
    assert page.row("broken", board) == ["broken", board, "0 %, 10 %"]
    assert "random" not in [row[1] for row in page.rows if len(row) == 3]


def test_it_says_how_to_cite_and_rerun(page: Page) -> None:
    assert "@software{fewlabels-bench, author = {{The fewlabels-bench contributors}}" in page.text
    assert "bench run broken good plain --dataset FILE --level 0%,1%,10% --seeds 2" in page.text
    assert "--selection random --schedule paper" in page.text


def test_a_card_for_every_method(
    results: Path, make_record: MakeRecord, entries: dict[str, Entry]
) -> None:
    Store(results).write(make_record(0.5, method="ss-dcec", level="1%"))
    page = shown(results)
    anchors = [one["id"] for one in page.all("div") if (one.get("id") or "").startswith("card-")]
    assert sorted(anchors) == sorted(
        ["card-broken", "card-good", "card-lam-lam-2", "card-other", "card-plain", "card-ss-dcec"]
    )
    assert "A plugin that is not here" in page.text
    assert "DCEC whose targets and first centres come from the labelled instances" in page.text
    assert "Fiorentino, Semi-Supervised Deep Clustering" in page.text
    assert page.row("n_clusters", "2")


def test_what_failed_is_listed_with_its_message(results: Path, make_record: MakeRecord) -> None:
    error = {"message": "<b>out</b> of disk & luck", "traceback": None}
    Store(results).write(make_record(None, {"error": error}, method="worse"))
    page = shown(results)
    board = "toy · transductive · stratified · quick"
    assert page.row("broken · 1% · seed 0")[1:] == [board, "failed", "ValueError: it broke"]
    assert page.row("worse · 5% · seed 0")[3] == "<b>out</b> of disk & luck"
    assert not page.all("b"), "a message is text"


def test_how_it_was_measured(page: Page) -> None:
    assert page.row("cuda") == ["cuda", "", "A<B", "", "", "", "", "1"]
    assert page.row("python 3.11, torch 2.9")[1] == "1"
    assert page.row("0123456789") == ["0123456789", "with changes", "1"]
    assert page.row("toy") == ["toy", "0123", "15"]
    assert "0 of the records were made by an older version" in page.text


def test_stale_records_are_counted(tmp_path: Path, entries: dict[str, Entry]) -> None:
    put_stand_ins(entries)
    records = Records(tmp_path / "results")
    records.add(LR_500, 0.7, parts=HERE | {"versions": {"method": 0, "stages": {}}})
    records.add(LR_500, 0.7, parts=HERE, selection="random")
    assert "1 of the records were made by an older version" in shown(records.results).text


def test_without_records_of_its_settings_no_figure_is_measured(page: Page) -> None:
    counts = "0 reproduced, 0 above, 0 below, 0 died, 51 not run."
    assert f"51 figures of the sources: {counts}" in page.text
    assert "Figures that were measured" not in page.text
    assert page.row("1", "ss-dcec-paper Table 1")[4] == "0.5847"


def test_published_against_measured(tmp_path: Path, entries: dict[str, Entry]) -> None:
    put_stand_ins(entries)
    records = Records(tmp_path / "results")
    records.add(LR_500, 0.7, 0.72, parts=HERE)
    page = shown(records.results)
    assert page.row(str(LR_500)) == [
        str(LR_500),
        "kmeans-propagation-readme",
        "supervised-lr · 500 first · inductive",
        "accuracy on test",
        "0.7852",
        "0.7100 ± 0.0141 (2)",
        "-0.0752",
        "below",
        "",
    ]
    assert "0 reproduced, 0 above, 1 below, 0 died, 50 not run" in page.text
    assert "within 0.02 of the published figure" in page.text


# --- Clusters and images -----------------------------------------------------------------------


@pytest.fixture
def digits(tmp_path: Path, make_record: MakeRecord, entries: dict[str, Entry]) -> Path:
    """Records of SCAN on digits, one with views, one with another method's."""
    store = Store(tmp_path / "results")
    data = datasets.load("digits")
    fields = {"dataset": "digits", "dataset_digest": data.digest, "schedule": "smoke"}
    for method, level in (("scan", "0%"), ("scan", "5%"), ("ss-scan", "5%"), ("near", "5%")):
        parts = {"cluster_names": [0, 1]} if (method, level) == ("scan", "5%") else {}
        record = make_record(0.5, parts, method=method, level=level, **fields)
        clusters = (
            Cluster(0, 7, 0.8125, 16, tuple(range(9)), (0.5,) * 9),
            Cluster(1, None, None, 0, (), ()),
        )
        made = np.full((2, 8, 8), 9, np.uint8)
        view = View(
            record["identity"],
            data.class_names,
            clusters,
            Reconstructed.of(np.array([0, 5]), made) if method == "scan" else None,
        )
        store.write(record, None if method == "ss-scan" else view.to_json())
    return store.results


def test_the_clusters_of_a_trial_with_views(digits: Path) -> None:
    page = shown(digits)
    assert page.row("cluster 0") == ["cluster 0", "7", "81.25", "16"]
    assert page.row("cluster 1") == ["cluster 1", "empty", "", "0"]
    heads = ["cluster", "label", "accuracy %", "size"]
    assert heads in page.rows
    assert "scan at 0 %" in page.text
    for other in ("scan at 5 %", "ss-scan at", "near at"):
        assert other not in page.text.replace("Chart of", "")
    board = "digits-transductive-stratified-smoke"
    pictures = [one["data-file"] for one in page.all("figure")]
    assert f"clusters-{board}-scan.png" in pictures
    assert f"reconstructed-{board}-scan.png" in pictures
    assert "what the autoencoder makes of their embedding after training with 0 % labels" in (
        page.text
    )
    assert "augmentations-digits.png" in pictures
    assert "Weak: area 0.8, flip 0.5. Strong: area 0.3" in page.text


def test_without_images_the_page_says_so(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise BenchError("the disk is empty.")

    monkeypatch.setattr(views.datasets, "load", none)
    page = shown(digits)
    assert page.text.count("The images of digits are not shown: the disk is empty.") == 2
    assert page.row("cluster 0")[1] == "7", "the table needs no images"
    assert not [one for one in page.all("figure") if "clusters" in str(one)]


def test_other_images_are_not_shown(digits: Path, make_record: MakeRecord) -> None:
    for record in list(store := Store(digits)):
        seen = store.read_views(Trial.from_json(record["trial"]))
        trial = Trial.from_json(record["trial"] | {"dataset_digest": "0123"})
        other = {"trial": trial.to_json(), "identity": trial.identity}
        store.write(record | other, seen and {**seen, "identity": trial.identity})
    assert "The digits at hand has other images than this trial was run on." in shown(digits).text


# --- Writing -----------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_records_give_the_same_bytes(results: Path, digits: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "deep" / "elsewhere"
    write_report(results, elsewhere)
    found = contents(elsewhere)
    shutil.copytree(elsewhere, results / "report")
    for name in found:
        (results / "report" / name).write_text(f"{MADE_BY} of another day")
    write_report(results)
    assert found == contents(results / "report")


def test_figures_that_are_gone_are_removed_and_nothing_else(results: Path) -> None:
    write_report(results)
    folder = results / "report"
    (folder / "mine.png").write_text("mine")
    for path in (results / "trials").rglob("transductive-random-paper/*/*/*.json"):
        path.unlink()
    write_report(results)
    names = set(contents(folder))
    assert {"index.html", "mine.png", "cost-toy-transductive-stratified-quick.svg"} < names
    assert not [name for name in names if "random-paper" in name]


def test_a_page_of_somebody_else_is_left_alone(results: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<title>my page</title>")
    with pytest.raises(BenchError, match=r"index.html is a page of another kind; give another"):
        write_report(results, tmp_path)
    assert (tmp_path / "index.html").read_text() == "<title>my page</title>"


def test_what_cannot_be_reported_is_one_sentence(results: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="there is no results folder nowhere; `bench run` makes"):
        write_report("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match=r"there are no records in .*; `bench run --all` makes"):
        write_report(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match=r"cannot write the report to .*file: File exists"):
        write_report(results, tmp_path / "file")
    with pytest.raises(BenchError, match=r"no file absent.npz"):
        write_report(results, tmp_path / "out", ["absent.npz"])


def test_a_board_without_a_headline_is_shown(tmp_path: Path, make_record: MakeRecord) -> None:
    store = Store(tmp_path / "results")
    store.write(make_record(None, method="broken"))
    page = shown(store.results)
    assert page.row("broken")[1] == "failed (1)"
    assert "No trial of this board has a headline." in page.text
    assert not page.all("figure")


# --- The command -------------------------------------------------------------------------------


def test_the_command_says_where_the_page_is(results: Path, entries: dict[str, Entry]) -> None:
    ended = CliRunner().invoke(app, ["report", "--results", str(results)])
    assert ended.exit_code == 0, ended.output
    assert ended.output == f"written: {results / 'report' / 'index.html'}\n"
    ended = CliRunner().invoke(app, ["report", "--results", "nowhere"])
    assert isinstance(ended.exception, BenchError)


def test_the_package_is_not_imported_for_help() -> None:
    code = (
        "import sys, contextlib\nfrom bench.cli import main\nsys.argv = ['bench', 'report', "
        "'--help']\nwith contextlib.suppress(SystemExit):\n    main()\n"
        "print(sorted({'seaborn', 'matplotlib', 'jinja2', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_report_of_a_real_run(tmp_path: Path) -> None:
    """A trial with soft assignments leaves views; the page is about all that ran."""
    with Place(tmp_path) as place:
        ended = place.run("--method kmeans-full,raises --level 10%", "failing")
        assert ended.status == 1, ended.text
        seen = {name for name in place.files() if name.endswith(".views")}
        assert seen == {"kmeans-full/10%/0.views"}
        assert all(len(place.files()[name].read_bytes()) < 2500 for name in seen)
        (ended,) = place.commands("report")
        expected = (0, "written: results/report/index.html\n")
        assert (ended.status, ended.out) == expected, ended.text
        page = Page(place.results / "report" / "index.html")
    assert re.fullmatch(r"\.9\d\d", page.row("kmeans-full")[1])
    assert page.row("raises")[1] == "failed (1)"
    assert page.row("raises · 10% · seed 0")[2] == "failed"
    assert "as it was told to" in page.text
