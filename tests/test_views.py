"""Views: what they hold, when a trial leaves them behind, and which images they point to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core import splits
from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.data import datasets
from bench.data.fashion_mnist import FASHION_MNIST
from bench.records import views
from bench.records.store import Merged, Store, merge
from bench.records.views import Cluster, Images, Reconstructed, View
from bench.running.job import Job
from bench.running.worker import Worker
from methods.method import Method
from methods.registry import Entry

MakeRecord = Callable[..., dict[str, Any]]
MakeTrial = Callable[..., Trial]
Entries = dict[str, Entry]

Y = np.array([0, 0, 1, 1, 1, 0])
SOFT = np.array(
    [[0.9, 0.1, 0], [0.95, 0.05, 0], [0.4, 0.6, 0], [0.3, 0.7, 0], [0.8, 0.2, 0], [0.95, 0.05, 0]]
)
CLASSES = ("cat", "dog")
VIEW = View(
    "abc",
    CLASSES,
    (
        Cluster(0, 0, 0.75, 4, (1, 5, 0, 4), (0.95, 0.95, 0.9, 0.8), (4,)),
        Cluster(1, 1, 1.0, 2, (3, 2), (0.7, 0.6)),
        Cluster(2, None, None, 0, (), ()),
    ),
)
TWO = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
WITH_RECONSTRUCTIONS = replace(VIEW, reconstructed=Reconstructed.of(np.array([1, 4]), TWO))


# --- What they hold ----------------------------------------------------------------------------


def test_a_view_counted_by_hand() -> None:
    """Cluster 0 has images 0, 1, 4, 5, three of them cats; 1 and 5 tie, the lower index first.

    Image 4 is the dog in it.
    """
    assert (
        views.make("abc", Y, {"soft": SOFT, "labels": SOFT.argmax(1)}, CLASSES, "clusters") == VIEW
    )
    assert [VIEW.name(one) for one in VIEW.clusters] == ["cat", "dog", ""]


DAMAGES: dict[str, Callable[[Any], Any]] = {
    "no list": lambda view: view.update(clusters=3),
    "no clusters": lambda view: view.update(clusters=[]),
    "no class names": lambda view: view.pop("classes"),
    "a size that is a text": lambda view: view["clusters"][0].update(size="4"),
    "an accuracy that is a text": lambda view: view["clusters"][0].update(accuracy="x"),
    "an image that is none": lambda view: view["clusters"][0].update(images=[None, 1, 2, 3]),
    "an image below 0": lambda view: view["clusters"][0].update(images=[-1, 0, 1, 2]),
    "more images than probabilities": lambda view: view["clusters"][0].update(probabilities=[]),
    "too many images": lambda view: view["clusters"][0].update(images=[0] * 10),
    "a label that is no class": lambda view: view["clusters"][0].update(label=2),
    "a wrong image below 0": lambda view: view["clusters"][0].update(wrong=[-1]),
    "too many wrong images": lambda view: view["clusters"][0].update(wrong=[0] * 10),
    "too few bytes": lambda view: view["reconstructed"].update(pixels="AAAA"),
    "no base64": lambda view: view["reconstructed"].update(pixels="?" * 64),
    "no images": lambda view: view["reconstructed"].update(images=[], pixels=""),
    "more images than are kept": lambda view: view["reconstructed"].update(images=[0] * 13),
    "images of no size": lambda view: view["reconstructed"].update(shape=[0, 2], pixels=""),
    "a shape of one number": lambda view: view["reconstructed"].update(shape=[4]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_view_is_one_sentence(damage: str) -> None:
    values = json.loads(json.dumps(WITH_RECONSTRUCTIONS.to_json()))
    assert View.from_json(values) == WITH_RECONSTRUCTIONS
    DAMAGES[damage](values)
    with pytest.raises(BenchError, match=r"the views file cannot be read .*; delete") as caught:
        View.from_json(values)
    assert "\n" not in str(caught.value)


def test_a_view_comes_back_from_json() -> None:
    assert View.from_json(json.loads(json.dumps(VIEW.to_json()))) == VIEW


def test_reconstructions_come_back_from_json() -> None:
    back = View.from_json(json.loads(json.dumps(WITH_RECONSTRUCTIONS.to_json())))
    assert back.reconstructed is not None
    assert back.reconstructed.images == (1, 4)
    assert np.array_equal(back.reconstructed.X, TWO)
    assert "reconstructed" not in VIEW.to_json()


def test_a_view_of_before_shows_nothing_wrong() -> None:
    values = json.loads(json.dumps(VIEW.to_json()))
    for one in values["clusters"]:
        del one["wrong"]
    assert [one.wrong for one in View.from_json(values).clusters] == [(), (), ()]


def test_at_most_nine_images() -> None:
    soft = np.linspace(0.5, 1, 30)[:, None]
    one = views.make(
        "", np.zeros(30, int), {"soft": soft, "labels": np.zeros(30, int)}, "ab", "clusters"
    )
    assert one.clusters[0].images == tuple(range(29, 20, -1))
    assert one.clusters[0].probabilities[0] == 1.0
    assert one.clusters[0].probabilities[-1] == round(0.5 + 21 / 58, 4)


def test_an_image_without_a_cluster_is_in_none() -> None:
    labels = SOFT.argmax(1)
    labels[1] = -1
    first = views.make("", Y, {"soft": SOFT, "labels": labels}, CLASSES, "clusters").clusters[0]
    assert (first.size, first.images) == (3, (5, 0, 4))
    assert first.accuracy == 0.6667


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(2, 4), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_a_view_against_a_plain_loop(k: int, n_classes: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, soft = rng.integers(0, n_classes, n), rng.dirichlet(np.ones(k), n)
    labels = soft.argmax(1)
    names = [str(c) for c in range(n_classes)]
    for one in views.make("", y, {"soft": soft, "labels": labels}, names, "clusters").clusters:
        members = [i for i in range(n) if labels[i] == one.cluster]
        surest = sorted(members, key=lambda i: (-soft[i, one.cluster], i))[:9]
        counts = [sum(y[i] == c for i in members) for c in range(n_classes)]
        assert list(one.images) == surest
        assert one.size == len(members)
        assert list(one.probabilities) == [round(soft[i, one.cluster], 4) for i in surest]
        if members:
            assert one.label == counts.index(max(counts))
            assert one.accuracy == round(max(counts) / len(members), 4)
            others = [i for i in members if y[i] != one.label]
            assert list(one.wrong) == sorted(others, key=lambda i: (-soft[i, one.cluster], i))[:9]
        else:
            assert (one.label, one.accuracy) == (None, None)


def test_columns_stand_for_clusters_or_for_classes() -> None:
    """SCAN with labels says clusters, k-means propagation classes, however many clusters it has."""
    likeliest = SOFT.argmax(1)
    arrays = {"soft": SOFT, "labels": np.array([1, 0, 1])[likeliest], "clusters": likeliest}
    assert views.make("abc", Y, arrays, CLASSES, "clusters") == VIEW
    others = {"soft": SOFT, "labels": likeliest, "clusters": np.arange(6) * 300}
    assert views.make("abc", Y, others, CLASSES, "classes") == VIEW


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"soft": SOFT[:, 0]}, r"probabilities_ is float64 with shape \(6,\); expected \(6, K\)"),
        ({"soft": SOFT[:5]}, r"shape \(5, 3\)"),
        ({"soft": SOFT > 0.5}, "probabilities_ is bool"),
        ({"soft": np.where(SOFT > 0.9, np.nan, SOFT)}, "no finite number"),
        ({"soft": np.ones((6, 101))}, "has 101 columns; views show 1 to 100"),
        ({"labels": np.full(6, 3)}, "labels_ holds 3, which is none of the 3 columns"),
        ({"clusters": np.zeros((6, 2))}, r"cluster_labels_ has shape \(6, 2\)"),
    ],
)
def test_what_cannot_be_shown_is_refused(changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        views.make("", Y, {"soft": SOFT, "labels": SOFT.argmax(1), **changes}, CLASSES, "clusters")


# --- On disk -----------------------------------------------------------------------------------


def test_views_lie_beside_their_record(
    tmp_path: Path, make_record: MakeRecord, make_trial: MakeTrial
) -> None:
    store, trial = Store(tmp_path), make_trial()
    path = store.write(make_record(), replace(VIEW, identity=trial.identity).to_json())
    assert sorted(file.name for file in path.parent.iterdir()) == ["0.json", "0.views.json"]
    assert len((path.parent / "0.views.json").read_text().splitlines()) == 8
    assert views.read(store, trial) == replace(VIEW, identity=trial.identity)
    assert views.read(store, make_trial(seed=1)) is None
    assert views.read(store, make_trial(params={"n_clusters": 9})) is None, "the same path"
    assert [record["headline"] for record in store] == [0.5]


def test_a_record_without_views_removes_older_ones(
    tmp_path: Path, make_record: MakeRecord, make_trial: MakeTrial
) -> None:
    store = Store(tmp_path)
    store.write(make_record(), VIEW.to_json())
    store.write(make_record(None))
    assert store.read_views(make_trial()) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"identity": "", "classes": ["a"], "clusters": [{"cluster": 0}]}',
        '{"identity": "", "classes": 3, "clusters": []}',
        json.dumps(VIEW.to_json() | {"classes": ["cat"]}),
    ],
)
def test_a_damaged_views_file_is_said_in_one_sentence(
    tmp_path: Path, make_record: MakeRecord, make_trial: MakeTrial, text: str
) -> None:
    store = Store(tmp_path)
    store.write(make_record())
    store.views_path(make_trial()).write_text(text)
    with pytest.raises(BenchError, match="delete it and run"):
        views.read(store, make_trial())


def test_merge_carries_views_along(
    tmp_path: Path, make_record: MakeRecord, make_true_record: MakeRecord, make_trial: MakeTrial
) -> None:
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    theirs.write(make_true_record(), VIEW.to_json())
    theirs.write(make_true_record(level="10%"))
    ours.write(make_record(None, level="10%"), VIEW.to_json())
    assert merge(ours.results, theirs.results) == Merged(adopted=2)
    assert ours.read_views(make_trial()) == json.loads(json.dumps(VIEW.to_json()))
    assert ours.read_views(make_trial(level="10%")) is None, "those of a failure of ours"


# --- The worker --------------------------------------------------------------------------------


class Soft(Method):
    """Says what it was told to say."""

    says: dict[str, Any] = {}

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: np.ndarray | None = None, context: Any = None) -> Soft:
        """Set the attributes of `says`."""
        if "error" in self.says:
            raise ValueError(self.says["error"])
        self.labels_ = np.arange(len(X)) % self.n_clusters
        for name, value in self.says.items():
            setattr(self, name, value)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Any classes."""
        return np.arange(len(X)) % self.n_clusters


@pytest.fixture
def work(
    tmp_path: Path, cache: Path, entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., View | None]:
    """``work(says, **fields)``: run a trial of `Soft` on digits; the view that it leaves."""
    entries["soft"] = Entry("soft", Soft, {}, Soft.tags, "here")
    data = datasets.load("digits")

    def run(says: dict[str, Any], **fields: Any) -> View | None:
        monkeypatch.setattr(Soft, "says", says)
        place = {"dataset": "digits", "dataset_digest": data.digest, "method": "soft", "seed": 0}
        plain = {"protocol": "transductive", "selection": "stratified", "schedule": "smoke"}
        trial = Trial(**place | plain | {"level": "10%", "params": {"n_clusters": 10}} | fields)
        job = Job((trial,), "digits", str(tmp_path), str(cache), fresh=True)
        Worker(job, lambda event: None).run()
        store = Store(tmp_path)
        record = store.read(trial)
        assert record
        assert record["status"] == ("failed" if "error" in says else "ok")
        return views.read(store, trial)

    return run


def test_a_trial_of_seed_0_leaves_its_view(work: Callable[..., View | None]) -> None:
    soft = np.random.default_rng(0).dirichlet(np.ones(10), 1797).astype(np.float32)
    labels = soft.argmax(1)
    view = work({"labels_": labels, "probabilities_": soft})
    assert view is not None
    assert view.classes == tuple("0123456789")
    y = datasets.load("digits").y
    one = view.clusters[3]
    members = np.flatnonzero(labels == 3)
    assert one.size == len(members)
    assert list(one.images) == sorted(members, key=lambda i: -soft[i, 3])[:9]
    assert one.accuracy == round(np.bincount(y[members]).max() / len(members), 4)
    assert work({"labels_": labels, "probabilities_": soft}, seed=1) is None


HALF = {"probabilities_": np.eye(10, dtype=np.float32)[np.arange(1797) % 10]}


def test_what_an_autoencoder_makes_of_images_is_in_the_view(
    work: Callable[..., View | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evenly spaced ones, clipped; at the levels of the figure alone."""
    monkeypatch.setattr(Soft, "reconstruct", lambda self, X: X / 510 - 0.01, raising=False)
    view = work(HALF)
    assert view is not None
    assert view.reconstructed is not None
    images = view.reconstructed.images
    assert (images[0], images[-1], len(images)) == (0, 1796, 12)
    X = datasets.load("digits").X[list(images)]
    expected = np.rint((X / 510 - 0.01).clip(0, 1) * 255)
    assert np.abs(view.reconstructed.X - expected).max() <= 1
    other = work(HALF, level="20%")
    assert other is not None
    assert other.reconstructed is None


@pytest.mark.parametrize(
    "gives",
    [lambda self, X: X, lambda self, X: X[:1] / 255, lambda self, X: X / 0.0, lambda self, X: None],
    ids=["bytes", "another shape", "no numbers", "nothing"],
)
def test_a_reconstruction_that_is_none_loses_no_trial(
    work: Callable[..., View | None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gives: Callable[..., Any],
) -> None:
    monkeypatch.setattr(Soft, "reconstruct", gives, raising=False)
    with np.errstate(all="ignore"):
        view = work(HALF)
    assert view is not None
    assert view.reconstructed is None
    assert "warning: soft · 10% · seed 0 keeps no reconstruction" in capsys.readouterr().out


@pytest.mark.parametrize("attribute", ["probabilities_", "cluster_labels_"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, ""),
        ([[1], [1, 2]], "ValueError: setting an array element with a sequence"),
        ([None] * 1797, "ValueError: it is an array of object; expected numbers"),
    ],
    ids=["None", "ragged", "objects"],
)
def test_an_attribute_that_cannot_be_kept_loses_no_trial(
    work: Callable[..., View | None],
    capsys: pytest.CaptureFixture[str],
    attribute: str,
    given: Any,
    said: str,
) -> None:
    assert (work(HALF | {attribute: given}) is None) == (attribute == "probabilities_")
    out = capsys.readouterr().out
    warning = f"warning: soft · 10% · seed 0 is scored without its {attribute}: {said}"
    assert warning in out if said else "warning" not in out


def test_a_rerun_without_soft_assignments_or_that_fails_leaves_none(
    work: Callable[..., View | None],
) -> None:
    good = {"probabilities_": np.eye(10, dtype=np.float32)[np.arange(1797) % 10]}
    for after in ({}, {"error": "it broke"}):
        assert work(good) is not None
        assert work(after) is None


def test_soft_assignments_that_cannot_be_shown_are_said_and_lose_no_trial(
    work: Callable[..., View | None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert work({"probabilities_": np.ones(1797)}) is None
    assert "soft · 10% · seed 0 has no views: probabilities_ is float64" in capsys.readouterr().out


@pytest.mark.parametrize("protocol", ["inductive", "inductive-55k"])
def test_indices_are_those_of_the_dataset(work: Callable[..., View | None], protocol: str) -> None:
    data = datasets.load("digits")
    part = splits.partition(protocol, len(data.y), data.n_train)
    soft = np.eye(10, dtype=np.float32)[data.y[: part.n_fit]]  # the classes themselves
    view = work({"labels_": soft.argmax(1), "probabilities_": soft}, protocol=protocol)
    assert view is not None
    assert sum(one.size for one in view.clusters) == part.n_fit
    for one in view.clusters:
        assert one.accuracy == 1.0
        assert one.label == one.cluster
        assert (data.y[list(one.images)] == one.cluster).all()


# --- Which are shown ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "level"),
    [
        (["0%", "1%", "3%", "10%"], "3%"),
        (["0%", "5%", "500"], "5%"),
        (["0%", "50%", "500"], "50%"),
        (["500", "1000", "2000"], "1000"),
        (["2000", "500"], "500"),
        (["0%"], "0%"),
        (["0%", "100%"], "100%"),
    ],
)
def test_reference_level(levels: list[str], level: str) -> None:
    assert views.reference_level(levels) == level
    assert views.reference_level(reversed(levels)) == level


def test_clustering_methods_are_shown_at_their_level(make_record: MakeRecord) -> None:
    named = {"cluster_names": [1, 0]}
    records = [
        make_record(method="scan", level="0%"),
        make_record(parts=named, method="scan", level="5%"),
        make_record(method="ss-scan", level="0%", parts={"same_as": "scan"}),
        make_record(method="ss-scan", level="5%"),
        make_record(method="ss-scan", level="5%", seed=1),
        make_record(method="ss-scan", level="10%", variant={"n_clusters": 20}),
        make_record(None, method="dcec", level="5%"),
        make_record(method="supervised-lr", level="5%"),
        make_record(method="ss-dcec", level="0%", parts={"same_as": "dcec"}),
    ]
    found = views.shown(records, "5%")
    assert [(trial.method, trial.level, trial.seed) for trial in found] == [
        ("scan", "0%", 0),
        ("ss-scan", "5%", 0),
        ("ss-scan", "10%", 0),
    ]


# --- Images ------------------------------------------------------------------------------------


def test_images_at_hand_are_those_of_the_trial(
    make_record: MakeRecord, make_trial: MakeTrial
) -> None:
    data = datasets.load("digits")
    images = Images([make_record(dataset="digits", dataset_digest=data.digest)])
    found = images.of(make_trial(dataset="digits", dataset_digest=data.digest))
    assert not isinstance(found, str)
    assert found.digest == data.digest
    other = images.of(make_trial(dataset="digits", dataset_digest="0123"))
    assert other == "The digits at hand has other images than this trial was run on."
    assert images.class_names("digits", 10) == list("0123456789")


def test_fashion_mnist_is_not_downloaded(
    cache: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    absent = replace(FASHION_MNIST, system_folder=tmp_path / "absent")
    monkeypatch.setattr(views, "FASHION_MNIST", absent)
    images = Images([make_record(dataset="fashion-mnist")])
    assert "are not on this machine; `bench data` fetches them" in str(images.find("fashion-mnist"))
    assert not cache.exists()
    assert images.class_names("fashion-mnist", 10)[9] == "Ankle boot"
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "nothing"))
    said = Images([]).find("fashion-mnist")
    assert str(said).startswith("The images of fashion-mnist are not shown: BENCH_DATA=")


def test_a_file_of_the_user_is_given(tmp_path: Path, make_record: MakeRecord) -> None:
    y = np.arange(20) % 2
    path = str(tmp_path / "mine.npz")
    np.savez(
        path,
        X=np.arange(20 * 192).reshape(20, 8, 8, 3).astype(np.uint8),
        y=y,
        class_names=np.array(["a", "b"]),
    )
    name = datasets.load(path).name
    records = [make_record(dataset=name)]
    assert "--dataset FILE.npz shows them" in str(Images(records).find(name))
    assert Images(records).class_names(name, 2) == ["0", "1"]
    found = Images(records, [path])
    assert not isinstance(found.find(name), str)
    assert found.class_names(name, 2) == ["a", "b"]
    with pytest.raises(BenchError, match="there are no records of it; expected a file of one of"):
        Images([make_record()], [path])
