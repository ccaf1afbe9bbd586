"""Projections: layouts that follow each other, their files, what is drawn when, pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

import bench
from bench.cli import app
from bench.core import machine
from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.data import datasets
from bench.records import projections
from bench.records.projections import MOST_CLASSES, N_POINTS, Projection, Scores
from bench.records.scoring import Record
from bench.records.store import Merged, Store, merge
from bench.running import layout, projecting
from bench.running.projecting import project
from bench.running.stages import ArrayStore
from bench.show import projections as show
from bench.show.style import CLASSES, COLOURS, MODES
from methods import registry

MakeRecord = Callable[..., Record]
MakeTrial = Callable[..., Trial]
RNG = np.random.default_rng(0)
Y = np.repeat(np.arange(4), 50)
BLOBS = RNG.standard_normal((200, 5)) + 8 * np.eye(5)[Y]
PLACED = layout.in_square(BLOBS[:, :2])
HOSTILE = '<b>&"$1_$2 [x]\u202e'


# --- Layouts -------------------------------------------------------------------------------------


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The median distance of a point in two pictures, in places."""
    return float(np.median(np.linalg.norm(a.astype(float) - b, axis=1)))


@pytest.mark.slow  # numba compiles UMAP
def test_a_layout_follows_the_one_before_and_is_always_the_same() -> None:
    made_by = layout.made_by()
    turned = np.linalg.qr(RNG.standard_normal((5, 5)))[0]
    later = (BLOBS + 0.3 * RNG.standard_normal(BLOBS.shape)) @ turned
    first = layout.places(BLOBS, None, made_by)
    after, alone = (layout.places(later, start, made_by) for start in (first, None))
    assert first.dtype == np.uint8
    assert distance(after, first) < 0.5 * distance(alone, first)
    assert distance(after, first) < 30
    assert np.array_equal(after, layout.places(later, first, made_by))
    for placed in (first, after):
        found = layout.scores(BLOBS, placed, Y, 4)
        assert found.trustworthiness > 0.85
        assert (found.neighbours, found.kmeans) == (1.0, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [np.zeros((100, 3)), np.repeat(RNG.random((10, 3)), 10, axis=0)])
def test_an_embedding_that_has_collapsed_is_laid_out_too(rows: np.ndarray) -> None:
    placed = layout.places(rows, None, layout.made_by())
    assert placed.shape == (100, 2)
    assert layout.scores(rows, placed, np.arange(100) % 4, 4).neighbours <= 1


def test_turned_is_the_best_of_all_turns_and_mirrors() -> None:
    points = RNG.standard_normal((40, 2)) * [3, 1]
    angle = 2.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirrored = points @ np.diag([1, -1]) @ turn + 7
    back = layout.turned(mirrored, points)
    np.testing.assert_allclose(back, points - points.mean(0), atol=1e-9)


def test_in_square_fills_it_and_keeps_the_shape() -> None:
    placed = layout.in_square(np.array([[0.0, 0.0], [10.0, 0.0], [5.0, 2.5]]))
    assert placed.tolist() == [[3, 97], [252, 97], [128, 159]] or placed.tolist() == [
        [3, 96],
        [252, 96],
        [128, 159],
    ]
    assert np.ptp(layout.in_square(np.ones((5, 2)))) <= 1


def test_scores_against_a_plain_loop() -> None:
    rows = RNG.standard_normal((80, 3))
    y = RNG.integers(0, 3, 80)
    found = layout.scores(rows, layout.in_square(rows[:, :2]), y, 3)
    right = 0
    for i in range(80):
        order = sorted(range(80), key=lambda j: float(np.sum((rows[i] - rows[j]) ** 2)))
        votes = [int(y[j]) for j in order if j != i][:15]
        right += max(range(3), key=lambda k: (votes.count(k), -k)) == y[i]
    assert found.neighbours == round(right / 80, 4)
    assert 0.3 <= found.kmeans < 0.6
    assert layout.scores(rows[:, :2], layout.in_square(rows[:, :2]), y, 3).trustworthiness > 0.99
    noise = layout.in_square(RNG.standard_normal((80, 2)))
    assert layout.scores(rows, noise, y, 3).trustworthiness < 0.7


# --- Files ---------------------------------------------------------------------------------------


def projection(trial: Trial, **changes: Any) -> Projection:
    values: dict[str, Any] = {
        "identity": trial.identity,
        "sample": "0123",
        "embedding": "4567",
        "columns": 5,
        "made_by": {"umap": "0.5"},
        "scores": Scores(0.9, 0.8, 0.7),
        "classes": ("cat", "dog", HOSTILE, "owl"),
    }
    return Projection.of(PLACED, Y, **values | changes)


def test_a_projection_comes_back_from_its_file(
    tmp_path: Path, make_record: MakeRecord, make_trial: MakeTrial
) -> None:
    store, trial = Store(tmp_path), make_trial()
    store.write(make_record())
    assert projections.read(store, trial) is None
    given = projection(trial)
    path = store.write_projection(trial, given.to_json())
    assert path.name == "0.projection.json"
    assert path.stat().st_size < 2_000
    found = projections.read(store, trial)
    assert found == given
    assert found is not None
    assert np.array_equal(found.places, PLACED)
    assert np.array_equal(found.y, Y)
    assert projections.read(store, make_trial(params={"n_clusters": 9})) is None, "the same path"
    assert [record["headline"] for record in store] == [0.5], "it is no record"
    store.write(make_record(0.75))
    assert projections.read(store, trial) is None, "that of an older record"


def test_a_file_of_3000_points_is_small(make_trial: MakeTrial) -> None:
    many = Projection.of(np.zeros((3000, 2), np.uint8), np.zeros(3000, int), **vars_of(make_trial))
    assert len(json.dumps(many.to_json())) < 13_000


def vars_of(make_trial: MakeTrial) -> dict[str, Any]:
    known = vars(projection(make_trial()))
    return {name: value for name, value in known.items() if name not in ("points", "labels")}


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no points": lambda values: values.pop("points"),
    "points that are no base64": lambda values: values.update(points="é!"),
    "cut points": lambda values: values.update(points=values["points"][:-8]),
    "cut base64": lambda values: values.update(labels=values["labels"][:-1]),
    "nothing at all": lambda values: values.update(points="", labels=""),
    "a label that is no class": lambda values: values.update(classes=["cat"]),
    "classes that are no names": lambda values: values.update(classes=[1, 2, 3, 4]),
    "a score above 1": lambda values: values["scores"].update(kmeans=1.5),
    "a score that is a text": lambda values: values["scores"].update(kmeans="x"),
    "scores that are none": lambda values: values.update(scores=[]),
    "columns that are no number": lambda values: values.update(columns=None),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_projection_is_one_sentence(
    damage: str, tmp_path: Path, make_record: MakeRecord, make_trial: MakeTrial
) -> None:
    store, trial = Store(tmp_path), make_trial()
    store.write(make_record())
    values = json.loads(json.dumps(projection(trial).to_json()))
    DAMAGES[damage](values)
    store.write_projection(trial, values)
    with pytest.raises(
        BenchError, match=r"the projection file cannot be read .*; delete"
    ) as caught:
        projections.read(store, trial)
    assert str(caught.value).startswith(trial.title)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "nonsense"])
def test_what_is_no_object_is_one_sentence(
    text: str, tmp_path: Path, make_record: MakeRecord, make_trial: MakeTrial
) -> None:
    store = Store(tmp_path)
    store.write(make_record())
    store.projection_path(make_trial()).write_text(text)
    with pytest.raises(BenchError, match="delete it and run again"):
        projections.read(store, make_trial())


def test_merge_carries_projections_along(
    tmp_path: Path, make_true_record: MakeRecord, make_trial: MakeTrial
) -> None:
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    for level in ("1%", "10%", "50%"):
        trial = make_trial(level=level)
        theirs.write(make_true_record(level=level), None, projection(trial).to_json())
    ours.write(make_true_record(level="10%"))
    ours.write(make_true_record(3, level="50%"))
    assert merge(ours.results, theirs.results).adopted == 1
    found = {x: projections.read(ours, make_trial(level=x)) for x in ("1%", "10%", "50%")}
    assert found["1%"] == projection(make_trial(level="1%"))
    assert found["10%"] == projection(make_trial(level="10%")), "of an equal record"
    assert found["50%"] is None, "ours is another fit"


def test_merge_refuses_a_projection_that_is_no_object(
    tmp_path: Path, make_true_record: MakeRecord, make_trial: MakeTrial
) -> None:
    theirs = Store(tmp_path / "theirs")
    theirs.write(make_true_record())
    theirs.projection_path(make_trial()).write_text("[]")
    found = merge(tmp_path / "ours", theirs.results)
    assert isinstance(found, Merged)
    assert (found.adopted, len(found.refused)) == (0, 1)


# --- What is drawn when --------------------------------------------------------------------------


def test_which_records_are_shown(make_record: MakeRecord) -> None:
    free = {"fit": "one", "cluster_names": [0, 1]}
    records = [
        make_record(0.5, {"fit": level}, method="seeing", level=level)
        for level in ("50%", "0%", "5%", "1%", "100")
    ]
    records += [make_record(0.5, free, method="free", level=x) for x in ("5%", "0%", "10%")]
    records += [make_record(0.5, free, method="once", level="5%")]
    records += [make_record(0.5, {"fit": "x"}, method="elsewhere", level="5%")]
    records += [make_record(0.5, {"fit": "s"}, method="seed", level="1%", seed=1)]
    records += [make_record(None, method="broken", level="1%")]
    found = {
        folder.name: [record["trial"]["level"] for record in of_it]
        for folder, of_it in projections.shown(records).items()
    }
    assert found == {"seeing": ["0%", "1%", "50%"], "free": ["0%"], "once": ["5%"]}


LAID_OUT: list[tuple[int, bool]] = []


def plain_places(embedding: np.ndarray, start: Any, made_by: Any) -> np.ndarray:
    """Stands for UMAP: the first two columns, and remembers what it was asked for."""
    LAID_OUT.append((embedding.shape[1], start is not None))
    if embedding.shape[1] == 13:
        raise ValueError("UMAP broke")
    return layout.in_square(np.asarray(embedding[:, :2], float))


class Bench:
    """A results folder and a cache with embeddings, of digits."""

    def __init__(self, folder: Path, cache: Path, make_record: MakeRecord) -> None:
        self.store = Store(folder / "results")
        self.cache = cache
        self.make_record = make_record
        self.data = datasets.load("digits")

    def fit(
        self, method: str, level: str, columns: int | None, key: str = "", **fields: Any
    ) -> Trial:
        """A record and, where there are `columns`, the embedding of its fit in the cache."""
        key = key or f"{method}-{level}"
        cost = {"fit_seconds": 1.5, "stages": [], "stage_seconds": 0.0, "predict_seconds": 0.0}
        cost |= {"peak_memory_mib": 1.0}
        values = {"n": 1797, "acc": 0.5, "accuracy": 0.5, "nmi": 0.5, "ari": 0.5, "purity": 0.5}
        values |= {"recall": [0.5] * 10, "contingency": np.eye(10, 11, dtype=int).tolist()}
        subsets = {"all": values, "unlabelled": values}
        place = {"dataset": "digits", "dataset_digest": self.data.digest}
        record = self.make_record(
            0.5,
            {"fit": key, "cost": cost, "subsets": subsets},
            **place | {"method": method, "level": level, "params": {"n_clusters": 10}} | fields,
        )
        self.store.write(record)
        if columns is not None:
            chosen = projections.sample(1797)
            rows = self.data.X[chosen].reshape(len(chosen), -1)[:, 18 : 18 + columns]
            arrays = {"labels": self.data.y, "embedding": rows.astype(np.float32)}
            facts = {"fit": key, "cost": cost}
            ArrayStore(self.cache / "fits").write(key, arrays, facts)
        return Trial.from_json(record["trial"])

    def drawn(self, trial: Trial) -> Projection | None:
        return projections.read(self.store, trial)


@pytest.fixture
def lab(
    tmp_path: Path, cache: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    """An empty `Bench`; UMAP is `plain_places`, in this process."""
    registry.discover()
    monkeypatch.setattr(machine, "core_count", lambda: 1)
    monkeypatch.setattr(layout, "places", plain_places)
    monkeypatch.setattr(projections, "N_POINTS", 150)
    LAID_OUT.clear()
    return Bench(tmp_path, cache, make_record)


def test_what_the_cache_has_is_drawn_once(lab: Bench) -> None:
    trials = [lab.fit("ss-dcec", level, n) for level, n in (("0%", 3), ("1%", 4), ("10%", 5))]
    lab.fit("ss-dcec", "5%", 6)
    lab.fit("supervised-lr", "1%", None)
    assert project(lab.store.results) == ["projections drawn: 3"]
    assert LAID_OUT == [(3, False), (4, True), (5, True)]
    found = [lab.drawn(trial) for trial in trials]
    chosen = projections.sample(1797)
    for one, columns in zip(found, (3, 4, 5), strict=True):
        assert one is not None
        assert one.columns == columns
        assert one.y.tolist() == lab.data.y[chosen].tolist()
        assert one.classes == tuple("0123456789")
        assert one.made_by == layout.made_by()
        assert 0.3 < one.scores.trustworthiness <= 1
    assert project(lab.store.results) == []
    assert len(LAID_OUT) == 3
    texts = [lab.store.projection_path(trial).read_text() for trial in trials]
    for trial in trials:
        lab.store.projection_path(trial).unlink()
    assert project(lab.store.results) == ["projections drawn: 3"]
    assert len(LAID_OUT) == 3, "joblib.Memory remembers them"
    assert [lab.store.projection_path(trial).read_text() for trial in trials] == texts


@pytest.mark.parametrize("selection", ["stratified", "representative"])
def test_what_a_run_has_fitted_is_drawn(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, selection: str
) -> None:
    """The record says what asking for labels took, too, which the kept fit does not know."""
    monkeypatch.setattr(machine, "core_count", lambda: 1)
    monkeypatch.setattr(layout, "places", plain_places)
    results = tmp_path / "results"
    wishes = {"dataset": "digits", "schedule": "smoke", "selection": selection}
    bench.run(methods=["simclr-lr"], levels=["1%", "10%"], results=results, **wishes)
    assert project(results) == ["projections drawn: 2"]


def test_a_level_that_comes_later_follows_the_one_before(lab: Bench) -> None:
    lab.fit("ss-dcec", "1%", 4)
    project(lab.store.results)
    first, last = lab.fit("ss-dcec", "0%", 3), lab.fit("ss-dcec", "50%", 6)
    assert project(lab.store.results) == ["projections drawn: 2"]
    assert LAID_OUT[1:] == [(3, False), (6, True)]
    assert lab.drawn(first)
    assert lab.drawn(last)


def test_methods_on_the_same_features_are_laid_out_once(lab: Bench) -> None:
    for method, levels in (("simclr-lr", ("1%", "10%")), ("poisson", ("1%", "50%"))):
        for level in levels:
            lab.fit(method, level, 5)
    lab.fit("scan", "0%", 5, key="free")
    lab.fit("scan", "1%", 5, key="free")
    assert project(lab.store.results) == ["projections drawn: 5"]
    assert LAID_OUT == [(5, False)]


def test_what_has_no_embedding_is_said_in_one_sentence(lab: Bench) -> None:
    lab.fit("ss-dcec", "1%", None)
    lab.fit("sdec", "1%", None)
    lab.fit("sdec", "10%", None)
    (said,) = project(lab.store.results)
    assert said.startswith(
        "no projection of 3 records of sdec, ss-dcec: the cache has no embedding"
    )
    assert "--rerun all" in said
    assert not LAID_OUT


@pytest.mark.parametrize("key", ["../secret", "..", "/tmp", "."])
def test_a_fit_outside_the_cache_is_not_read(lab: Bench, key: str) -> None:
    lab.fit("ss-dcec", "1%", 4, key="secret")
    (lab.cache / "fits" / "secret").rename(lab.cache / "secret")
    lab.fit("ss-dcec", "1%", None, key=key)
    (said,) = project(lab.store.results)
    assert said.startswith("no projection of 1 record of ss-dcec")


def test_the_embedding_of_another_fit_is_not_taken(lab: Bench) -> None:
    trial = lab.fit("ss-dcec", "1%", 4)
    record = lab.store.read(trial)
    assert record is not None
    record["cost"]["predict_seconds"] += 1
    lab.store.write(record)
    (said,) = project(lab.store.results)
    assert said.startswith("no projection of 1 record of ss-dcec")
    assert lab.drawn(trial) is None


def test_what_umap_cannot_do_is_said_and_the_rest_is_drawn(lab: Bench) -> None:
    bad, good = lab.fit("ss-dcec", "1%", 13), lab.fit("sdec", "1%", 5)
    said = project(lab.store.results)
    assert said == [
        "projections drawn: 1",
        "no projection of ss-dcec · 1% · seed 0: ValueError: UMAP broke",
    ]
    assert lab.drawn(bad) is None
    assert lab.drawn(good)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dataset_digest": "0123"}, "has other images than this trial was run on"),
        ({"dataset": "mine-01234567"}, "--dataset FILE.npz shows them"),
    ],
)
def test_without_the_images_it_is_said(lab: Bench, changes: dict[str, str], why: str) -> None:
    lab.fit("ss-dcec", "1%", 4, **changes)
    lab.fit("sdec", "1%", 4, **changes)
    (said,) = project(lab.store.results)
    assert said.startswith("no projections of ")
    assert why in said


def test_too_few_images_or_too_many_classes_are_said(
    lab: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projections, "N_POINTS", layout.LEAST - 1)
    lab.fit("ss-dcec", "1%", 4)
    (said,) = project(lab.store.results)
    assert said == "no projections of digits: 59 images are fewer than 60, too few for a picture"
    monkeypatch.setattr(projections, "N_POINTS", 150)
    monkeypatch.setattr(projecting, "MOST_CLASSES", 9)
    (said,) = project(lab.store.results)
    assert said == "no projections of digits: 10 classes are more than 9, too many for a picture"


def test_a_record_without_all_its_images_is_one_sentence(lab: Bench) -> None:
    record = lab.store.read(lab.fit("ss-dcec", "1%", 4))
    assert record is not None
    del record["subsets"]["all"]
    lab.store.write(record)
    with pytest.raises(BenchError, match=r"ss-dcec · 1% · seed 0 has no subset all; delete it"):
        project(lab.store.results)


def test_the_command_draws_unless_it_is_told_not_to(lab: Bench) -> None:
    trial = lab.fit("ss-dcec", "1%", 4)
    command = ["report", "--results", str(lab.store.results)]
    ended = CliRunner().invoke(app, [*command, "--no-projections"])
    assert ended.exit_code == 0, ended.output
    assert lab.drawn(trial) is None
    page = lab.store.results / "report" / "index.html"
    assert "trustworthiness" not in page.read_text()
    ended = CliRunner().invoke(app, command)
    assert "projections drawn: 1\n" in ended.output
    assert lab.drawn(trial)
    assert page.read_text().count("15-NN .") >= 2
    drawn = page.read_text()
    assert '<figure data-file="projection-digits-' in drawn
    ended = CliRunner().invoke(app, [*command, "--no-projections"])
    assert page.read_text() == drawn, "what is drawn is shown"


# --- Pictures ------------------------------------------------------------------------------------


def read_svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


SVG = "{http://www.w3.org/2000/svg}"


def places_of(path: str) -> set[tuple[int, int]]:
    """The points that a path of `dots` draws."""
    steps = [(int(a), int(b)) for a, b in re.findall(r"[Mm](-?\d+) ?(-?\d+)z", path)]
    return {(int(x), int(y)) for x, y in np.cumsum(steps, axis=0)}


def test_a_picture_has_every_point_and_every_name(make_trial: MakeTrial) -> None:
    panels = [
        show.Panel(make_trial(level=x), projection(make_trial(level=x)))
        for x in ("0%", "1%", "50%")
    ]
    found = show.picture(panels, None, False)
    assert found.name == "projection-toy-transductive-stratified-quick-tiny.svg"
    root = read_svg(str(found.content))
    texts = ["".join(one.itertext()) for one in root.iter(f"{SVG}text")]
    assert [text for text in texts if "%" in text] == ["0 %", "1 %", "50 %"]
    for name in ("cat", "dog", "owl"):
        assert texts.count(f"● {name}") == 3
    assert texts.count("trustworthiness .90, 15-NN .80, k-means .70") == 3
    (first, *_) = [one for one in root.iter(f"{SVG}g") if one.get("class") == "p"]
    for k in range(4):
        paths = [one.get("d", "") for one in first if one.get("class") == f"k-{k}"]
        expected = {(int(x), 255 - int(y)) for x, y in PLACED[np.equal(Y, k)]}
        assert set.union(*map(places_of, paths)) == expected


def test_names_are_data(make_trial: MakeTrial) -> None:
    trial = make_trial(method=HOSTILE.replace("\u202e", ""))
    found = show.picture([show.Panel(trial, projection(trial))], None, True)
    root = read_svg(str(found.content))
    shown = "".join(root.itertext())
    assert "<b>" not in str(found.content)
    assert "U+202E" in shown
    assert '<b>&"$1_$2 [x]' in shown
    assert re.fullmatch(r"[\w.-]+\.svg", found.name)


def test_the_same_features_are_shown_once(tmp_path: Path, make_record: MakeRecord) -> None:
    store = Store(tmp_path)
    registry.discover()
    given = [("kmeans", "0%", "a"), ("head", "1%", "b"), ("head", "10%", "b"), ("scan", "0%", "b")]
    given += [("ss-scan", "0%", "b"), ("ss-scan", "1%", "c"), ("sdec", "1%", "d")]
    for method, level, digest in given:
        record = make_record(0.5, {"fit": method + level}, method=method, level=level)
        trial = Trial.from_json(record["trial"])
        store.write(record, None, projection(trial, embedding=digest).to_json())
    found = {one.name: one for one in show.shown(list(store), store)}
    assert found["head"].picture is None
    remark = "toy · transductive · stratified · quick: the embedding is that of scan."
    assert found["head"].remark == remark
    pictures = {name: one.picture for name, one in found.items() if one.picture}
    assert set(pictures) == {"kmeans", "scan", "ss-scan", "sdec"}
    assert "at every level" in str(pictures["scan"].content)
    assert "0 %" in str(pictures["ss-scan"].content)
    assert "at every level" not in str(pictures["sdec"].content), "one level of several"
    assert "Pixels of the same images: trustworthiness .90" in pictures["ss-scan"].caption
    assert "Pixels of" not in pictures["kmeans"].caption


def test_without_projections_there_is_nothing(tmp_path: Path, make_record: MakeRecord) -> None:
    store = Store(tmp_path)
    store.write(make_record(level="1%"))
    assert show.shown(list(store), store) == []


def test_many_classes_are_not_named(make_trial: MakeTrial) -> None:
    classes = tuple(f"class {k}" for k in range(40))
    given = Projection.of(
        PLACED,
        np.arange(200) % 40,
        **vars_of(make_trial) | {"classes": classes},
    )
    found = show.picture([show.Panel(make_trial(), given)], None, True)
    assert "class 1" not in str(found.content)
    assert "More than 20 are not named." in found.caption
    assert "every 10th has the same colour" in found.caption
    assert len(classes) < MOST_CLASSES


def test_names_do_not_lie_on_each_other() -> None:
    names = [(k, f"name {k}", 10.0 + k, 5.0) for k in range(8)]
    placed = sorted(y for *_, y in show._apart(names))
    assert (np.diff(placed) >= show.SIZE).all()
    low = show._apart([(k, "name", 10.0, show.PANEL) for k in range(8)])
    assert max(y for *_, y in low) <= show.PANEL
    assert (np.diff(sorted(y for *_, y in low)) >= show.SIZE).all()


def test_a_picture_of_3000_points_is_small(make_trial: MakeTrial) -> None:
    spread = RNG.integers(0, 256, (N_POINTS, 2)).astype(np.uint8)
    given = Projection.of(spread, RNG.integers(0, 4, N_POINTS), **vars_of(make_trial))
    panels = [show.Panel(make_trial(level=x), given) for x in projections.LEVELS]
    assert len(show.picture(panels, None, False).content) < 110_000


def _linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _contrast(one: str, other: str) -> float:
    high, low = sorted(_linear(x) @ [0.2126, 0.7152, 0.0722] + 0.05 for x in (one, other))[::-1]
    return float(high / low)


# Machado, Oliveira and Fernandes 2009, full protanopia and deuteranopia
SEEN_BY = {
    "everybody": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}


def _oklab(linear: np.ndarray) -> np.ndarray:
    """Ottosson 2020: distances there are as large as they look."""
    to_cones = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.63]]
    to_lab = [[0.2105, 0.7936, -0.0041], [1.978, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ np.clip(linear, 0, 1))


@pytest.mark.parametrize("mode", range(len(MODES)), ids=MODES)
def test_classes_are_told_apart_by_everybody(mode: int) -> None:
    ground = COLOURS["ground"][mode]
    colours = [pair[mode] for pair in CLASSES.values()]
    assert min(_contrast(colour, ground) for colour in colours) >= 3
    for who, matrix in SEEN_BY.items():
        seen = np.array([_oklab(np.array(matrix) @ _linear(colour)) for colour in colours])
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=2) + np.eye(len(colours))
        assert apart.min() > (0.14 if who == "everybody" else 0.09), who
