"""k-means label propagation: every rule by hand, then the three methods."""

from __future__ import annotations

import numpy as np
import pytest
from contexts import Recording
from sklearn.base import clone
from sklearn.datasets import load_digits

from methods.baselines import PixelKMeans
from methods.method import Context
from methods.propagation import (
    KMeansCentroid,
    KMeansFull,
    KMeansPercentile,
    cluster_classes,
    fill_from_nearest_cluster,
    nearest_labelled_members,
    within_percentile,
)
from methods.registry import get
from methods.toolkit.asking import nearest_members
from methods.toolkit.heads.table import HEADS

_digits = load_digits()
X = (_digits.images * 15.9).astype(np.uint8)[:600]  # (600, 8, 8)
TRUTH = _digits.target.astype(np.int64)[:600]
ALL = (KMeansFull, KMeansPercentile, KMeansCentroid)
each_method = pytest.mark.parametrize("cls", ALL)


def reveal(n: int, seed: int = 0) -> np.ndarray:
    """The labels of n random instances, -1 elsewhere."""
    y = np.full(len(X), -1)
    known = np.random.default_rng(seed).permutation(len(X))[:n]
    y[known] = TRUTH[known]
    return y


def fitted(cls: type, y: np.ndarray, context: Context | None = None, **params):
    return cls(**{"random_state": 0, "lr_max_iter": 50} | params).fit(X, y, context)


class Taught:
    """A classifier that only remembers what it was taught."""

    def __init__(self, n_classes: int, seed: int, **params: object) -> None:
        self.n_classes = n_classes

    def fit(self, images: np.ndarray, y: np.ndarray, context: Context) -> Taught:
        self.images, self.y = np.array(images), np.array(y)
        return self

    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        return np.eye(self.n_classes, dtype=np.float32)[np.zeros(len(images), int)]


def clustered(labels: list[int], distances: list[float], centres: list[float]) -> Recording:
    """A context whose k-means has found what the test says."""
    found = {
        "labels": np.array(labels),
        "distances": np.array(distances, np.float32),
        "centres": np.array(centres, np.float32).reshape(-1, 1),
    }
    return Recording(answers={"kmeans": found})


# Three clusters on a line: 0 at 0.1, 1 at 0.2, 2 at 0.9. Cluster 1 has no labelled member.
SMALL = np.arange(10, dtype=np.uint8).reshape(10, 1, 1)
CLUSTERS = clustered(
    labels=[0, 0, 0, 0, 1, 1, 2, 2, 2, 2],
    distances=[0.4, 0.2, 0.3, 0.1, 0.1, 0.2, 0.4, 0.3, 0.2, 0.1],
    centres=[0.1, 0.2, 0.9],
)
SMALL_Y = np.array([1, 0, 1, -1, -1, -1, 2, 2, -1, -1])


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch):
    """``taught(cls, **params)``: what `cls` teaches its classifier, as (image number, class)."""
    monkeypatch.setitem(HEADS, "lr", Taught)

    def teach(cls: type, y: np.ndarray = SMALL_Y, **params: object) -> dict[float, int]:
        method = cls(n_clusters=3, random_state=0, **params).fit(SMALL, y, CLUSTERS)
        images = np.round(method.head_.images.ravel().astype(float), 3).tolist()
        return dict(zip(images, method.head_.y.tolist(), strict=True))

    return teach


# The rules


def test_nearest_members():
    clusters = np.array([2, 0, 2, 0, 2, 3])
    distances = np.array([0.5, 0.3, 0.1, 0.2, 0.1, 9.0])
    assert nearest_members(clusters, distances, 5).tolist() == [3, -1, 2, 5, -1]


def test_nearest_labelled_members():
    clusters = np.array([0, 0, 1, 1, 2])
    distances = np.array([0.1, 0.2, 0.4, 0.3, 0.0])
    y = np.array([-1, 7, 4, 5, -1])
    assert nearest_labelled_members(y, clusters, distances, 3).tolist() == [1, 3, -1]


@pytest.mark.parametrize(
    ("vote", "expected"),
    [
        # a majority of two against the nearest one; a tie that the nearest decides; nobody;
        # a tie in which the nearest has no part goes to the lowest class
        ("majority", [4, 6, -1, 1]),
        ("nearest", [2, 6, -1, 3]),
    ],
)
def test_a_cluster_takes_a_class(vote, expected):
    clusters = np.array([0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3])
    distances = np.array([0.1, 0.2, 0.3, 0.0, 0.2, 0.1, 0.1, 0.0, 0.1, 0.2, 0.3, 0.4])
    y = np.array([2, 4, 4, -1, 5, 6, -1, 3, 8, 8, 1, 1])
    assert cluster_classes(y, clusters, distances, 4, vote).tolist() == expected


def test_a_cluster_without_a_class_takes_that_of_the_nearest_one():
    centres = np.array([[0.0, 0], [1, 0], [5, 0], [9, 0], [5, 1]], np.float32)
    classes = np.array([7, -1, -1, 3, -1])
    assert fill_from_nearest_cluster(classes, centres).tolist() == [7, 7, 3, 3, 3]
    assert classes.tolist() == [7, -1, -1, 3, -1]
    assert fill_from_nearest_cluster(np.array([1, 2]), centres[:2]).tolist() == [1, 2]


def test_within_the_percentile_of_its_own_cluster():
    clusters = np.array([0, 1, 0, 1, 0, 0, 0, 2])
    distances = np.array([5.0, 100, 1, 200, 2, 3, 4, 7])
    near = within_percentile(clusters, distances, 25)
    assert np.flatnonzero(near).tolist() == [1, 2, 4, 7]  # 25 % of 1..5 is 2, of 100, 200 is 125
    assert within_percentile(clusters, distances, 100).all()


# What the three teach their classifier


def test_full_teaches_every_instance(taught):
    assert taught(KMeansFull) == {
        0: 1, 1: 0, 2: 1, 3: 1,  # known labels are kept; the majority of 1, 0, 1 is 1
        4: 1, 5: 1,  # cluster 1 is nearer to cluster 0 than to 2
        6: 2, 7: 2, 8: 2, 9: 2,
    }  # fmt: skip


def test_full_with_the_nearest_vote(taught):
    nearest = taught(KMeansFull, vote="nearest")
    assert [nearest[i] for i in range(6)] == [1, 0, 1, 0, 0, 0]  # instance 1 is nearest, class 0


def test_percentile_teaches_near_and_labelled_instances(taught):
    near = taught(KMeansPercentile, percentile=25)
    assert near == {0: 1, 1: 0, 2: 1, 3: 1, 4: 1, 6: 2, 7: 2, 9: 2}
    assert taught(KMeansPercentile, percentile=100) == taught(KMeansFull)


def test_centroid_teaches_one_labelled_instance_of_each_cluster(taught):
    assert taught(KMeansCentroid) == {1: 0, 7: 2}


def test_centroid_on_the_centres_themselves(taught):
    assert taught(KMeansCentroid, train_on="centres") == {0.1: 1, 0.9: 2}


def test_labels_of_the_representatives_become_their_cluster_s():
    method = KMeansFull(n_clusters=3, random_state=0)
    chosen = method.select(SMALL, 9, CLUSTERS)
    [left_out] = np.setdiff1d(np.arange(10), chosen)
    assert left_out not in (3, 4, 9)  # the representatives
    y = np.zeros(10, int)
    y[[3, 4, 9]] = [1, 2, 2]  # outvoted in clusters 0 and 2
    y[left_out] = -1
    assert method.fit(SMALL, y, CLUSTERS).cluster_classes_.tolist() == [1, 2, 2]
    y[left_out], y[8 if left_out == 7 else 7] = 0, -1  # not what it asked for: the majority
    assert method.fit(SMALL, y, CLUSTERS).cluster_classes_[[0, 2]].tolist() == [0, 0]


def test_the_vote_counts_where_everything_is_labelled():
    """All that there is was not asked for."""
    y = np.zeros(10, int)
    y[[3, 4, 9]] = [1, 2, 2]  # the representatives
    for vote, expected in (("majority", [0, 0]), ("nearest", [1, 2])):
        fitted = KMeansFull(n_clusters=3, vote=vote, random_state=0).fit(SMALL, y, CLUSTERS)
        assert fitted.cluster_classes_[[0, 2]].tolist() == expected


# The methods


def test_registered_names():
    assert [get(f"kmeans-{n}").cls for n in ("full", "percentile", "centroid")] == list(ALL)
    assert all(get(f"kmeans-{n}").tags.in_all for n in ("full", "percentile", "centroid"))
    assert get("kmeans-percentile").build().percentile == 25


@each_method
def test_it_learns_from_few_labels(cls):
    y = reveal(60)
    method = fitted(cls, y)
    hidden = y < 0
    assert (method.labels_[hidden] == TRUTH[hidden]).mean() > 0.7
    assert len(np.unique(method.cluster_labels_)) == 60
    assert np.array_equal(method.labels_, method.predict(X))
    assert np.array_equal(method.labels_, method.predict_proba(X).argmax(1))
    assert np.array_equal(method.probabilities_, method.predict_proba(X))


def test_k_is_the_number_of_labels_up_to_a_limit():
    assert KMeansFull(max_iter=7).stages(700)[0].params == {"n_clusters": 700, "max_iter": 7}
    assert KMeansFull().stages(35_000)[0].params["n_clusters"] == 2000
    assert KMeansFull(max_clusters=50).stages(60)[0].params["n_clusters"] == 50
    assert KMeansFull(k=33).stages(60)[0].params["n_clusters"] == 33


def test_all_three_and_all_levels_share_a_stage():
    requests = [cls().stages(n)[0] for cls in ALL for n in (2000, 2100, 35_000)]
    assert all(request == requests[0] for request in requests)


@each_method
@pytest.mark.parametrize("n_labels", [0, 30])
def test_it_asks_for_the_stages_that_it_declares(cls, n_labels):
    context = Recording()
    method = fitted(cls, reveal(n_labels), context)
    assert context.asked == [(request, 0) for request in method.stages(n_labels)]


@each_method
def test_without_labels_it_is_the_baseline(cls):
    """Also after a fit with labels, of which nothing may be left."""
    method = fitted(cls, reveal(40)).fit(X, np.full(len(X), -1))
    baseline = PixelKMeans(random_state=0)
    assert method.tags.without_labels == "kmeans"
    assert get("kmeans").cls is PixelKMeans
    assert method.stages(0) == baseline.stages(0)
    assert np.array_equal(method.labels_, baseline.fit(X).labels_)
    assert np.array_equal(method.cluster_labels_, method.labels_)
    assert method.cluster_classes_.tolist() == [-1] * 10
    assert np.array_equal(method.predict(X[:9]), method.labels_[:9])
    assert method.predict_proba(X[:9]).sum(1).tolist() == [1] * 9


@each_method
def test_without_labels_its_stage_is_the_baseline_s_whatever_its_parameters(cls):
    assert cls(max_iter=7, k=3).stages(0) == PixelKMeans().stages(0)
    assert cls(n_clusters=4).stages(0) == PixelKMeans(4).stages(0)


@each_method
def test_labels_are_the_classifier_s_own(cls):
    """Labels that are wrong on purpose do not come back."""
    y = reveal(300)
    wrong = np.flatnonzero(y >= 0)[:15]
    y[wrong] = (TRUTH[wrong] + 5) % 10
    method = fitted(cls, y, C=0.1, k=30)
    assert (method.labels_[wrong] == y[wrong]).mean() < 0.3
    assert (method.labels_[wrong] == TRUTH[wrong]).mean() > 0.5


@each_method
def test_same_seed_same_labels_other_seed_not(cls):
    y = reveal(60)
    first = fitted(cls, y)
    assert np.array_equal(first.probabilities_, fitted(cls, y).probabilities_)
    other = fitted(cls, y, random_state=1)
    assert not np.array_equal(first.probabilities_, other.probabilities_)
    assert not np.array_equal(first.cluster_labels_, other.cluster_labels_)


@each_method
def test_a_class_without_labels_is_never_predicted(cls):
    y = reveal(80)
    y[(y == 3) | (y == 8)] = -1
    method = fitted(cls, y)
    assert not np.isin(method.labels_, [3, 8]).any()
    assert (method.predict_proba(X)[:, [3, 8]] == 0).all()


@each_method
@pytest.mark.parametrize("n_labels", [1, 600])
def test_one_label_and_all_labels(cls, n_labels):
    y = reveal(n_labels)
    method = fitted(cls, y, max_clusters=30)
    if n_labels == 1:
        assert set(method.labels_) == {y.max()}
    else:
        assert (method.labels_ == TRUTH).mean() > 0.8


@each_method
def test_colour_images(cls):
    colour = np.stack([X, 255 - X, X], axis=3)
    y = reveal(60)
    method = cls(random_state=0, lr_max_iter=50).fit(colour, y)
    assert (method.labels_[y < 0] == TRUTH[y < 0]).mean() > 0.7
    with pytest.raises(ValueError, match="was fitted on \\(8, 8, 3\\)"):
        method.predict(X)


@pytest.mark.parametrize("head", ["mlp", "nn", "cnn"])
def test_other_heads(head, monkeypatch):
    short = {
        "mlp": {"epochs": 60},
        "nn": {"epochs": 20, "patience": 20, "batch_size": 8},
        "cnn": {"steps": 30, "width": 8},
    }[head]
    original = HEADS[head]
    monkeypatch.setitem(HEADS, head, lambda n, seed, **_: original(n, seed, **short))
    y = reveal(300 if head == "nn" else 60)  # nn dies on few of these small images
    for params in ({}, {"train_on": "centres"}):
        method = fitted(KMeansCentroid, y, head=head, **params)
        assert (method.labels_ == TRUTH).mean() > 0.2


@pytest.mark.parametrize("method", ["kmeans-full", "kmeans-percentile", "kmeans-centroid"])
@pytest.mark.parametrize("head", ["mlp", "nn"])
def test_named_variants(method, head):
    entry = get(f"{method}-{head}")
    assert entry.cls is get(method).cls
    assert entry.parameters("paper")["head"] == head
    assert not entry.tags.in_all
    assert get(method).tags.in_all


@pytest.mark.parametrize(("head", "epochs"), [("mlp", "mlp_epochs"), ("nn", "nn_epochs")])
def test_the_networks_train_as_long_as_they_are_told(head, epochs):
    y = reveal(60)
    method = fitted(KMeansCentroid, y, head=head, **{epochs: 2})
    assert method.head_.epochs == 2
    assert fitted(KMeansCentroid, y, head="lr").head_.max_iter == 50


def test_it_is_a_scikit_learn_estimator():
    for cls in ALL:
        method = cls(k=17, vote="nearest", C=3.0, random_state=9)
        assert clone(method).get_params() == method.get_params()
        assert method.get_params() | {"k": 17, "vote": "nearest", "C": 3.0} == method.get_params()
    y = reveal(30)
    method = KMeansFull(random_state=0, lr_max_iter=20)
    assert np.array_equal(method.fit_predict(X, y), method.fit(X, y).labels_)


# Active selection


@pytest.mark.parametrize("budget", [1, 20, 75, 600])
def test_select_fills_the_budget(budget):
    chosen = KMeansFull(max_clusters=50, random_state=0).select(X, budget)
    assert chosen.shape == (budget,)
    assert chosen.dtype == np.int64
    assert len(set(chosen)) == budget
    assert chosen.min() >= 0
    assert chosen.max() < len(X)


def test_select_asks_for_the_instances_nearest_the_centres():
    method = KMeansFull(max_clusters=50, random_state=0)
    context = Recording()
    chosen = method.select(X, 75, context)
    [(request, seed)] = context.asked
    assert request == method.stages(75)[0]
    assert seed == 0
    found = Context().stage(request.function, X, random_state=0, **request.params)
    for cluster in range(50):
        members = np.flatnonzero(found["labels"] == cluster)
        assert members[found["distances"][members].argmin()] in chosen


def test_select_follows_the_seed():
    one, again, other = (
        KMeansFull(max_clusters=50, random_state=seed).select(X, 75) for seed in (0, 0, 1)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@each_method
def test_selected_labels_serve_better_than_random_ones(cls):
    accuracy = []
    for seed in range(3):
        method = cls(random_state=seed, lr_max_iter=50)
        y = np.full(len(X), -1)
        chosen = method.select(X, 30)
        y[chosen] = TRUTH[chosen]
        random = cls(random_state=seed, lr_max_iter=50).fit(X, reveal(30, seed))
        accuracy.append([(m.labels_ == TRUTH).mean() for m in (method.fit(X, y), random)])
    selected, drawn = np.mean(accuracy, axis=0)
    assert selected > drawn


# What cannot be used


@pytest.mark.parametrize(
    ("cls", "wrong", "message"),
    [
        (KMeansFull, {"vote": "loudest"}, "vote is 'loudest'; expected one of majority, nearest"),
        (KMeansFull, {"head": "svm"}, "head is 'svm'; expected one of lr, mlp, nn, cnn"),
        (KMeansFull, {"k": 0}, "k is 0; expected at least 1"),
        (KMeansFull, {"k": 601}, "n_clusters is 601 for 600 instances"),
        (KMeansFull, {"max_clusters": 0}, "max_clusters is 0; expected at least 1"),
        (KMeansFull, {"multi_class": "ovo"}, "multi_class is 'ovo'"),
        (KMeansPercentile, {"percentile": 0}, "percentile is 0; expected above 0, at most 100"),
        (KMeansPercentile, {"percentile": 101}, "percentile is 101"),
        (KMeansCentroid, {"train_on": "both"}, "train_on is 'both'; expected one of instances"),
    ],
)
def test_parameters_out_of_range(cls, wrong, message):
    with pytest.raises(ValueError, match=message):
        fitted(cls, reveal(20), **wrong)


@pytest.mark.parametrize("budget", [0, 601])
def test_a_budget_out_of_range(budget):
    with pytest.raises(ValueError, match=f"budget is {budget}; expected 1 to 600"):
        KMeansFull().select(X, budget)


def test_labels_and_images_are_checked():
    with pytest.raises(ValueError, match="labels from -1 to 10"):
        KMeansFull().fit(X, np.where(reveal(9) < 0, -1, 10))
    with pytest.raises(ValueError, match="expected uint8 images"):
        KMeansFull().fit(X / 255, reveal(9))
