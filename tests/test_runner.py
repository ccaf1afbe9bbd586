"""``bench run``: what is run, what is skipped, what a method is shown, and what is kept of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from plugins_for_tests import DEADLINE_SECONDS, PLUGINS, Place

from bench import datasets, splits
from bench.leaderboard import COLUMNS

GRID = "--method blind,taught --level 0%,5%"


def test_a_second_run_does_nothing_and_two_jobs_give_the_same(tmp_path: Path) -> None:
    with Place(tmp_path / "one") as one, Place(tmp_path / "two") as two:
        with two.start(f"{GRID} --jobs 2", "simple") as beside:
            first = one.run(GRID, "simple")
            out, err = beside.communicate(timeout=DEADLINE_SECONDS)
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
    again, dry, more = place.commands(
        [*words, "--plugin", plugin],
        [*words, "--plugin", plugin, "--dry-run", "--rerun", "all"],
        [*words, "--plugin", plugin, *slow, "--dry-run"],
    )
    assert (again.status, dry.status, more.status) == (0, 0, 0), again.err + dry.err + more.err
    assert "0 trials to run, 4 done before" in again.out
    assert "trials of this run: none" in again.out
    assert "4 trials to run, 4 done before" in dry.out
    assert "judged by earlier records" in dry.out
    assert "2 trials to run, 4 done before" in more.out
    assert "slow_centres once for 2 trials (epochs=25, n_clusters=10)" in more.out
    assert place.stamps() == before
    assert not place.read("epochs.txt")


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
        code = plugin.read_text()
        plugin.write_text(code.replace("self.shrink * 0.1", "self.shrink * 1.9") + "\n# later\n")
        assert plugin.read_text().count("1.9") == 1
        full = ["run", *words.split(), "--dataset", "digits", "--schedule", "smoke"]
        full += ["--plugin", str(plugin)]
        plain, stale = place.commands(full, [*full, "--rerun", "stale"])
        assert (plain.status, stale.status) == (0, 0), plain.err + stale.err
        assert "0 trials to run, 1 done before" in plain.out
        assert "1 have a record made by other code of the method" in plain.out
        assert "1 trials to run, 1 done before" in stale.out
        third, after = place.stamps(), place.records()
        assert {name for name in second if second[name] != third[name]} == {"near/5%/0"}
        assert after["near/5%/0"]["subsets"] != before["near/5%/0"]["subsets"]
        assert after["near/5%/0"]["digests"]["split"] == before["near/5%/0"]["digests"]["split"]


def test_broken_plugins_are_named_and_the_others_run(tmp_path: Path) -> None:
    broken, twin, absent = (tmp_path / name for name in ("broken.py", "twin.py", "absent.py"))
    broken.write_text("import a_package_that_nobody_has\n")
    twin.write_text((PLUGINS / "simple.py").read_text())
    with Place(tmp_path / "place") as place:
        ended = place.run("--method near --level 5%", broken, "simple", twin, absent)
        assert ended.status == 1
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
        group = place.results / "trials" / "colours" / "inductive-representative-smoke"
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


def test_dask_gives_the_same_records(tmp_path: Path) -> None:
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
