"""Records from elsewhere: what a stranger's file may claim, and where it may be written."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.core.errors import BenchError
from bench.core.trial import Trial, check_name
from bench.records.scoring import MOST_ROWS
from bench.records.store import Store, file_text, merge, read_record

MakeRecord = Callable[..., dict[str, Any]]
NOWHERE = [
    "",
    "  ",
    ".",
    "..",
    "../../x",
    "/somewhere/else",
    "a/b",
    "a\\b",
    "a\0b",
    "\ud800",
    "x" * 300,
]
STAGE = {"name": "x", "key": "0", "params": {}, "seconds": 1.0, "peak_memory_mib": 1.0}
# Each is one way in which a record was damaged that ended commands in a traceback.
DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "history is an object": lambda r: r.update(history={}),
    "versions is a list": lambda r: r.update(versions=[]),
    "error is a text": lambda r: r.update(error="x"),
    "digests is a number": lambda r: r.update(digests=3),
    "status is a list": lambda r: r.update(status=["ok"]),
    "status is unknown": lambda r: r.update(status="fine"),
    "seed is a fraction": lambda r: r["trial"].update(seed=0.5),
    "params is null": lambda r: r["trial"].update(params=None),
    "commit is a number": lambda r: r["environment"].update(commit=3),
    "seconds are a text": lambda r: r["cost"].update(fit_seconds="2 s"),
    "a subset is null": lambda r: r["subsets"].update(all=None),
    "a table is a text": lambda r: r["subsets"]["all"].update(contingency="x"),
    "no subsets": lambda r: r.pop("subsets"),
    "no trial": lambda r: r.pop("trial"),
    "a table of too many classes": lambda r: r["subsets"]["labelled"].update(
        contingency=[[1, 0]] * 10_000
    ),
    "a table that none follows from": lambda r: (
        r["subsets"].pop("labelled") and r["subsets"].pop("unlabelled")
    ),
    "no history": lambda r: r.pop("history"),
    "a further field of the trial": lambda r: r["trial"].update(colour="red"),
    "no schema": lambda r: r.pop("schema"),
    "another number of classes": lambda r: r["subsets"]["all"].update(recall=[0.5]),
    "another identity": lambda r: r.update(identity="0" * 64),
    "a stage without a name": lambda r: r["cost"].update(stages=[{"x": 1}]),
    "a stage's params are a number": lambda r: r["cost"].update(stages=[STAGE | {"params": 3}]),
    "seconds without end": lambda r: r["cost"].update(fit_seconds=math.inf),
    "seconds that are none": lambda r: r["cost"].update(fit_seconds=math.nan),
    "seconds below 0": lambda r: r["cost"].update(fit_seconds=-1.0),
    "fitted as nothing": lambda r: r.update(fitted_as={"x": 1}),
    "fitted as a number": lambda r: r.update(fitted_as={"method": 5, "variant": 3}),
    "the same as itself": lambda r: r.update(same_as="tiny"),
    "labels without number": lambda r: r.update(n_labels=10**30),
    "a headline without end": lambda r: r.update(headline=math.inf),
    "a recall that is none": lambda r: r["subsets"]["all"].update(recall=[math.nan] * 2),
    "a recall beyond 1": lambda r: r["subsets"]["all"].update(recall=[5e300] * 2),
    "a count below 0": lambda r: r["subsets"]["all"].update(contingency=[[-1, 1, 0]] * 2),
    "tables of no class": lambda r: [
        part.update(contingency=[], recall=[]) for part in r["subsets"].values()
    ],
    "a table that counts nothing": lambda r: r["subsets"]["all"].update(contingency=[[0, 0]] * 2),
    "names of too few clusters": lambda r: r.update(cluster_names=[0]),
    "a name that is no class": lambda r: r.update(cluster_names=[0, 99]),
    "half a character in a variant": lambda r: r["trial"].update(variant={"x": "\ud800"}),
    "half a character": lambda r: r["environment"].update(accelerator="\ud800"),
    "half a character in a name": lambda r: r["history"].append({"\udcff": 1}),
    "a blank method": lambda r: r["trial"].update(method="  "),
}


@pytest.fixture
def theirs(tmp_path: Path, make_true_record: MakeRecord) -> Store:
    """A results folder of somebody else, with one good record."""
    store = Store(tmp_path / "theirs")
    store.write(make_true_record())
    return store


def spoiled(store: Store, change: Callable[[dict[str, Any]], Any], name: str = "1") -> Path:
    """A changed copy of the good record beside it, as seed `name`."""
    (good,) = (path for path in store.paths() if path.stem == "0")
    record = copy.deepcopy(json.loads(good.read_text()))
    change(record)
    path = good.with_name(f"{name}.json")
    path.write_text(json.dumps(record))
    return path


# --- Where something is written ------------------------------------------------------------------


@pytest.mark.parametrize("name", NOWHERE)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(BenchError, match="expected a name that a folder can have"):
        check_name("dataset", name)


@pytest.mark.parametrize(
    "name", ["fashion-mnist", "shoes [v2]-1f2e3d4c", "ひらがな", ".hidden", "$1_$2"]
)
def test_other_names_are_data(name: str) -> None:
    check_name("dataset", name)


@pytest.mark.parametrize("field", ["dataset", "method"])
def test_merge_writes_nothing_outside_the_results(
    tmp_path: Path, theirs: Store, field: str
) -> None:
    for number, name in enumerate((str(tmp_path / "elsewhere"), "../../../escaped"), start=1):
        spoiled(theirs, lambda r, name=name: r["trial"].update({field: name}), str(number))
    before = {path for path in tmp_path.rglob("*") if "ours" not in path.parts}
    merged = merge(tmp_path / "ours", theirs.results)
    assert merged.adopted == 1
    assert len(merged.refused) == 2
    assert all(f"the name of the {field} is" in text for text in merged.refused)
    assert {path for path in tmp_path.rglob("*") if "ours" not in path.parts} == before
    assert not (tmp_path.parent / "escaped").exists()


def test_records_are_not_written_through_a_link(
    tmp_path: Path, make_true_record: MakeRecord
) -> None:
    store, elsewhere = Store(tmp_path / "ours"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    store.root.mkdir(parents=True)
    (store.root / "toy").symlink_to(elsewhere)
    with pytest.raises(BenchError, match="toy is a symbolic link"):
        store.write(make_true_record())
    assert list(elsewhere.iterdir()) == []


# --- What is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_malformed_record_is_one_sentence(theirs: Store, damage: str) -> None:
    path = spoiled(theirs, DAMAGES[damage])
    with pytest.raises(BenchError) as refused:
        read_record(path)
    assert str(refused.value).startswith(f"{path} is not a record (")
    assert "\n" not in str(refused.value)


def test_the_field_is_named(theirs: Store) -> None:
    path = spoiled(theirs, DAMAGES["seed is a fraction"])
    with pytest.raises(BenchError, match=r"Expected `int`, got `float` - at `\$.trial.seed`"):
        read_record(path)


def test_a_record_of_a_newer_schema_asks_for_an_update(theirs: Store) -> None:
    path = spoiled(theirs, lambda r: (r.update(schema=99), r.pop("subsets")))
    with pytest.raises(BenchError, match=r"schema 99.*: update fewlabels-bench"):
        read_record(path)


def test_deep_nesting_is_no_record(theirs: Store) -> None:
    path = theirs.paths()[0].with_name("1.json")
    path.write_text('{"schema": ' + "[" * 100_000)
    with pytest.raises(BenchError, match="is not a record"):
        read_record(path)


@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling link", "link"])
def test_what_is_no_regular_file_is_refused_at_once(theirs: Store, kind: str) -> None:
    good = theirs.paths()[0]
    path = good.with_name("1.json")
    make = {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "dangling link": lambda: path.symlink_to("nowhere"),
        "link": lambda: path.symlink_to(good),
    }
    make[kind]()
    with pytest.raises(BenchError, match="it is no regular file"):
        read_record(path)
    merged = merge(theirs.results.parent / "ours", theirs.results)
    assert (merged.adopted, len(merged.refused)) == (1, 1)


def test_further_fields_stay(theirs: Store) -> None:
    path = spoiled(theirs, lambda r: (r.update(remark="x"), r["environment"].update(site="y")))
    record = read_record(path)
    assert record["remark"] == "x"
    assert record["environment"]["site"] == "y"


def test_committed_records_are_read_as_they_are_written() -> None:
    for path in Store(Path(__file__).parent.parent / "results").paths():
        record = read_record(path)
        assert file_text(record) == path.read_text()
        assert len(record.get("history", [])) <= MOST_ROWS


# --- Merging -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        (lambda r: r.update(headline=0.99), "its headline is 0.99, but its contingency tables"),
        (lambda r: r["subsets"]["all"].update(nmi=1.0), "its nmi on all is 1.0, but"),
        (lambda r: r["subsets"].pop("unlabelled"), "its n on all is 20, but"),
        (
            lambda r: (
                r["subsets"].pop("unlabelled"),
                r["subsets"]["all"].update(contingency=[[8, 2, 0], [0, 10, 0]]),
            ),
            "it has no subset unlabelled, by which",
        ),
        (lambda r: r["subsets"]["all"].update(n=21), "its n on all is 21, but"),
        (lambda r: r["subsets"]["all"].update(contingency=[[1, 2], [3]]), "rows of 1 and 2"),
        (lambda r: r["subsets"]["all"].update(contingency=[[-1, 0, 0], [0, 1, 0]]), "contingency"),
        (lambda r: r["subsets"]["all"].update(contingency=[]), "counts nothing"),
    ],
)
def test_an_invented_score_is_refused(
    tmp_path: Path, theirs: Store, claim: Callable[[dict[str, Any]], Any], said: str
) -> None:
    spoiled(theirs, claim, "0")
    merged = merge(tmp_path / "ours", theirs.results)
    assert merged.adopted == 0
    assert said in merged.refused[0]


def test_committed_scores_follow_from_their_tables() -> None:
    """All records of this repository would be adopted."""
    results = Path(__file__).parent.parent / "results"
    if not (results / "trials").is_dir():
        pytest.skip("no records here")
    from bench.records.scoring import check_scores

    for record in Store(results):
        check_scores(record)


def test_two_results_under_one_identity_are_a_conflict(
    tmp_path: Path, theirs: Store, make_true_record: MakeRecord
) -> None:
    ours = Store(tmp_path / "ours")
    ours.write(make_true_record(wrong=4))
    merged = merge(ours.results, theirs.results)
    assert (merged.adopted, merged.kept) == (0, 1)
    assert merged.conflicts == ["tiny · 5% · seed 0: 0.7778 here, 0.8889 there"]
    again = merge(ours.results, ours.results)
    assert (again.kept, again.conflicts) == (1, [])


def test_a_record_of_an_older_schema_is_no_conflict(
    tmp_path: Path, theirs: Store, make_true_record: MakeRecord
) -> None:
    """It has all digits of its scores."""
    older = make_true_record() | {"schema": 1}
    older["subsets"]["all"]["nmi"] += 1e-9
    Store(tmp_path / "ours").write(older)
    merged = merge(tmp_path / "ours", theirs.results)
    assert (merged.kept, merged.conflicts, merged.refused) == (1, [], [])


def test_a_record_of_other_parameters_is_a_conflict(
    tmp_path: Path, theirs: Store, make_true_record: MakeRecord
) -> None:
    """At the same place, of an older default say: it is not dropped without a word."""
    ours = Store(tmp_path / "ours")
    ours.write(make_true_record(params={"n_clusters": 9}))
    merged = merge(ours.results, theirs.results)
    assert (merged.adopted, merged.kept) == (0, 1)
    assert merged.conflicts == ["tiny · 5% · seed 0: of other parameters or images there"]


def test_nothing_is_merged_where_a_folder_has_no_records(tmp_path: Path, theirs: Store) -> None:
    (tmp_path / "empty").mkdir()
    words = ["merge", str(theirs.results), str(tmp_path / "empty")]
    done = CliRunner().invoke(app, [*words, "--results", str(tmp_path / "ours")])
    assert isinstance(done.exception, BenchError)
    assert str(done.exception).startswith(f"there are no records in {tmp_path / 'empty'};")
    assert not (tmp_path / "ours").exists()


def test_the_command_says_so_and_ends_with_1(tmp_path: Path, theirs: Store) -> None:
    bad = spoiled(theirs, DAMAGES["history is an object"])
    done = CliRunner().invoke(
        app, ["merge", str(theirs.results), "--results", str(tmp_path / "ours")]
    )
    assert done.exit_code == 1
    assert "1 adopted, 0 of ours kept" in done.output
    assert f"refused: {bad} is not a record" in done.output.replace("\n", "")
    assert (tmp_path / "ours" / "leaderboard.csv").exists()


def test_a_good_record_reads_back(theirs: Store, make_true_record: MakeRecord) -> None:
    record = read_record(theirs.paths()[0])
    assert record == make_true_record()
    assert file_text(record) == theirs.paths()[0].read_text()
    assert Trial.from_json(record["trial"]).identity == record["identity"]


def test_a_parameter_may_be_infinite(tmp_path: Path, make_record: MakeRecord) -> None:
    store = Store(tmp_path)
    path = store.write(make_record(params={"alpha": float("inf"), "beta": float("nan")}))
    assert read_record(path)["trial"]["params"]["alpha"] == float("inf")
