"""Methods on UMAP's layout: what they make of a layout by hand, then the layout itself.

Numba compiles UMAP in every process, which takes half a minute: most tests here stand on a layout
that is not UMAP's.
"""

from __future__ import annotations

import itertools
import pickle
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from contexts import Recording
from fixed_fits import sample
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from methods.manifold import N2D, SSUMAP, ManifoldMethod, digests
from methods.registry import get
from methods.toolkit.naming import cluster_of_each_class

X, Y, TRUTH = sample()  # 300 digits, 60 of them labelled
PIXELS = {"features": "pixels", "random_state": 0}
BOTH = pytest.mark.parametrize("cls", [N2D, SSUMAP])


class Columns:
    """Stands for `umap.UMAP`: it lays rows out by some of their columns, labels beside them.

    What it was given is in `seen`.
    """

    seen: dict[str, Any]
    columns = [20, 21, 27, 28, 29, 34, 36, 43, 44, 45]  # pixels in the middle of the digits

    def __init__(self, **params: Any) -> None:
        Columns.seen = params
        self.n_components = params["n_components"]

    def fit(self, z: np.ndarray, y: np.ndarray | None) -> Columns:
        Columns.seen |= {"z": z, "y": y}
        self.embedding_ = self.transform(z)
        return self

    def transform(self, z: np.ndarray) -> np.ndarray:
        Columns.seen["transformed"] = len(z)
        return z[:, [column % z.shape[1] for column in self.columns[: self.n_components]]]


@pytest.fixture
def columns(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Columns))


def fitted(
    cls: type[ManifoldMethod], y: np.ndarray | None = Y, images: np.ndarray = X, **params: Any
) -> Any:
    return cls(**(PIXELS | params)).fit(images, y)


# N2D


def test_n2d_s_probabilities_are_the_gaussians_responsibilities(columns):
    method = fitted(N2D)
    mixture, w = method.mixture_, method.transform(X)
    assert mixture.covariances_.shape == (10, 10, 10)
    expected = np.empty((300, 10))
    for j in range(10):
        density = multivariate_normal(mixture.means_[j], mixture.covariances_[j])
        expected[:, j] = mixture.weights_[j] * density.pdf(w)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(method.probabilities_, expected, atol=1e-6)
    assert np.array_equal(method.labels_, expected.argmax(1))


def test_n2d_s_mixture_is_where_em_stops(columns):
    """One more step of EM, by the formulas, moves it hardly."""
    method = fitted(N2D, n_components=2)
    mixture, w = method.mixture_, method.transform(X)
    r = mixture.predict_proba(w)
    for j in range(10):
        share = r[:, j].sum()
        mean = sum(r[i, j] * w[i] for i in range(300)) / share
        np.testing.assert_allclose(mixture.weights_[j], share / 300, atol=0.02)
        np.testing.assert_allclose(mixture.means_[j], mean, atol=0.02)
        covariance = sum(r[i, j] * np.outer(w[i] - mean, w[i] - mean) for i in range(300)) / share
        np.testing.assert_allclose(mixture.covariances_[j], covariance, atol=0.02)


def test_n2d_ignores_labels(columns):
    plain, given = fitted(N2D, None), fitted(N2D)
    assert np.array_equal(plain.probabilities_, given.probabilities_)


def test_n2d_lays_out_without_labels(columns):
    fitted(N2D)
    assert Columns.seen["y"] is None
    assert "target_weight" not in Columns.seen


def test_n2d_asks_umap_for_what_the_paper_has(columns):
    fitted(N2D, n_clusters=10)
    paper = {"n_neighbors": 20, "min_dist": 0.0, "n_components": 10, "n_epochs": None}
    assert paper.items() <= Columns.seen.items()
    assert get("n2d").build().features == "autoencoder"
    fitted(N2D, None, n_clusters=4)
    assert Columns.seen["n_components"] == 4  # the number of clusters


# ss-umap


@pytest.mark.parametrize("k", [1, 5, 9])
def test_ss_umap_asks_the_nearest_labelled_images(columns, k):
    method = fitted(SSUMAP, k=k, n_components=3)
    w, labelled = method.transform(X), np.flatnonzero(Y >= 0)
    told_apart = 0
    for i in range(300):
        distances = [np.linalg.norm(w[i] - w[j]) for j in labelled]
        voters = labelled[np.argsort(distances, kind="stable")[:k]]
        if np.diff(np.sort(distances)[: k + 1]).min() < 1e-9:
            continue  # who is nearer, and whose the last vote is, is anybody's guess
        told_apart += 1
        votes = np.bincount(Y[voters], minlength=10)
        weights = 1 + np.arange(len(voters), 0, -1) / (len(voters) * (len(voters) + 1))
        shares = np.bincount(Y[voters], weights, minlength=10) / weights.sum()
        np.testing.assert_allclose(method.probabilities_[i], shares, atol=1e-6)
        assert votes[method.labels_[i]] == votes.max()
        if votes.max() == 1:
            assert method.labels_[i] == Y[voters[0]], "the nearest decides"
    assert told_apart > 50


def test_more_votes_than_labels_are_those_of_all(columns):
    more, all_vote = (fitted(SSUMAP, k=k, n_components=3) for k in (400, 60))
    assert np.array_equal(more.probabilities_, all_vote.probabilities_)
    assert more.voters_.n_neighbors == 60 == (Y >= 0).sum()


def test_with_a_label_of_each_class_the_nearest_decides(columns):
    one_each = np.full(300, -1)
    for c in range(10):
        one_each[np.flatnonzero(c == TRUTH)[0]] = c
    few = fitted(SSUMAP, one_each, n_components=3)
    assert np.array_equal(few.labels_, fitted(SSUMAP, one_each, n_components=3, k=1).labels_)
    assert len(np.unique(few.labels_)) > 5


def test_ss_umap_s_labels_are_the_votes_and_not_the_labels_given(columns):
    wrong = Y.copy()
    given = np.flatnonzero(Y >= 0)[::4]
    wrong[given] = (wrong[given] + 1) % 10
    method = fitted(SSUMAP, wrong, n_components=10)
    assert (method.labels_[given] != wrong[given]).any()
    alone = fitted(SSUMAP, wrong, n_components=10, k=1)  # each is the nearest to itself
    assert np.array_equal(alone.labels_[wrong >= 0], wrong[wrong >= 0])


def test_ss_umap_shows_umap_the_revealed_labels_alone(columns):
    fitted(SSUMAP, target_weight=0.7)
    assert np.array_equal(Columns.seen["y"], Y)
    assert (Columns.seen["y"] == -1).sum() == 240
    defaults = {"n_neighbors": 15, "min_dist": 0.1, "n_components": 2, "target_weight": 0.7}
    assert defaults.items() <= Columns.seen.items()
    assert get("ss-umap").build().features == "simclr"


def test_a_class_without_labels_has_no_votes(columns):
    y = np.where((Y == 3) | (Y == 8), -1, Y)
    method = fitted(SSUMAP, y)
    assert (method.probabilities_[:, [3, 8]] == 0).all()
    assert (method.predict_proba(255 - X)[:, [3, 8]] == 0).all()
    one = fitted(SSUMAP, np.where(np.arange(300) == 7, 6, -1))
    assert (one.labels_ == 6).all()


def test_ss_umap_needs_a_label(columns):
    assert get("ss-umap").tags.needs_labels
    with pytest.raises(ValueError, match="SSUMAP learns from labelled instances and y holds none"):
        fitted(SSUMAP, None)


# Both, on any layout


@BOTH
def test_fitted_images_keep_their_place(columns, cls):
    """Whatever UMAP says of new ones, and in any order or part."""
    method = fitted(cls)
    some = np.random.default_rng(0).permutation(300)[:70]
    method.umap_.columns = [0] * 10  # from now on it lays out otherwise
    del Columns.seen["transformed"]
    assert np.array_equal(method.predict(X), method.labels_)
    assert np.array_equal(method.predict(X[some]), method.labels_[some])
    assert np.array_equal(method.predict_proba(X[some]), method.probabilities_[some])
    assert "transformed" not in Columns.seen
    mixed = np.concatenate([255 - X[:5], X[:5]])
    assert np.array_equal(method.predict(mixed)[5:], method.labels_[:5])
    assert Columns.seen["transformed"] == 5


@BOTH
def test_new_images_are_laid_out_by_umap(columns, cls):
    method = fitted(cls, Y[:250], X[:250])
    places = X[250:].reshape(50, 64)[:, Columns.columns[: method.umap_.n_components]] / 255
    np.testing.assert_allclose(method.transform(X[250:]), places, rtol=1e-6)
    assert method.predict(X[250:]).shape == (50,)
    np.testing.assert_allclose(method.predict_proba(X[250:]).sum(1), 1, rtol=1e-5)


@BOTH
def test_equal_images_have_one_place(columns, monkeypatch, cls):
    """Also where UMAP lays them out apart, and whatever their labels are."""
    images, y = X.copy(), Y.copy()
    images[[11, 12, 200]] = images[5]
    y[[5, 11, 200]] = 0, 1, -1
    noise = np.random.default_rng(0).normal(size=(300, 10))

    def fit(self: Columns, z: np.ndarray, y: np.ndarray | None) -> Columns:
        self.embedding_ = z[:, self.columns][:, : self.n_components]
        self.embedding_ = self.embedding_ + noise[:, : self.n_components]
        return self

    monkeypatch.setattr(Columns, "fit", fit)
    method = fitted(cls, y, images)
    assert len({*method.labels_[[5, 11, 12, 200]]}) == 1
    assert np.array_equal(method.predict(images), method.labels_)


def test_digests_tell_images_apart():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (200, 2, 2, 1), dtype=np.uint8)  # of 16 different ones
    found = list(digests(images))
    for i, j in itertools.combinations(range(200), 2):
        assert (found[i] == found[j]) == np.array_equal(images[i], images[j])
    assert list(digests(np.asfortranarray(images))) == found
    assert len(found[0]) == 16


@BOTH
def test_seeds(columns, cls):
    fitted(cls)
    first = {name: Columns.seen[name] for name in ("random_state", "transform_seed")}
    fitted(cls)
    assert first.items() <= Columns.seen.items()
    fitted(cls, random_state=1)
    assert all(Columns.seen[name] != seed for name, seed in first.items())
    assert Columns.seen["n_jobs"] == 1


@BOTH
@pytest.mark.parametrize("features", ["autoencoder", "simclr"])
def test_it_asks_for_the_stage_of_its_features(columns, cls, features):
    context = Recording()
    short = cls.schedules["smoke"] | {"simclr_epochs": 1, "random_state": 0}
    method = cls(**short, features=features).fit(X, Y, context)
    assert context.asked == [(request, 0) for request in method.stages(60)]
    assert [request.name for request, _ in context.asked] == [features]
    assert np.array_equal(method.predict(X), method.labels_)
    assert cls(features="pixels").stages(60) == []


@BOTH
def test_registered_name_and_tags(cls):
    entry = get("n2d" if cls is N2D else "ss-umap")
    assert entry.cls is cls
    assert entry.tags.inductive
    assert entry.tags.uses_labels is (cls is SSUMAP)
    assert not entry.tags.in_all  # 70,000 images take more than three minutes
    assert entry.tags.family == "manifold"
    assert entry.build("smoke").n_epochs == 10
    assert entry.build("quick").n_epochs is None


@BOTH
def test_is_a_scikit_learn_estimator(columns, cls):
    method = clone(cls(**PIXELS))
    with pytest.raises(NotFittedError):
        method.predict(X)
    labels = method.fit_predict(X, Y)
    assert np.array_equal(labels, fitted(cls).labels_)
    assert labels.dtype == np.int64
    assert method.probabilities_.dtype == np.float32


@BOTH
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"n_neighbors": 1}, "n_neighbors is 1 with 300 images; expected 2 to 299"),
        ({"n_neighbors": 300}, "n_neighbors is 300 with 300 images; expected 2 to 299"),
        ({"min_dist": -0.1}, "min_dist is -0.1; expected 0 to 1"),
        ({"min_dist": float("nan")}, "min_dist is nan; expected 0 to 1"),
        ({"n_components": 0}, "n_components is 0 with 300 images; expected 1 to 298"),
        ({"n_components": 299}, "n_components is 299 with 300 images; expected 1 to 298"),
        ({"n_epochs": 2}, "n_epochs is 2; expected at least 3"),
        ({"features": "colours"}, "features is 'colours'; expected one of simclr, auto"),
    ],
)
def test_parameters_out_of_range(cls, wrong, expected):
    with pytest.raises(ValueError, match=f"^{expected}"):
        fitted(cls, **wrong)


def test_parameters_of_one_of_them_out_of_range():
    with pytest.raises(ValueError, match=r"^k is 0; expected at least 1"):
        fitted(SSUMAP, k=0)
    with pytest.raises(ValueError, match=r"^target_weight is 2; expected 0 to 1"):
        fitted(SSUMAP, target_weight=2)
    with pytest.raises(ValueError, match=r"^n_clusters is 301 for 300 images; expected 1 to 300"):
        fitted(N2D, n_clusters=301, n_components=2)
    with pytest.raises(ValueError, match=r"^n_init is 0; expected at least 1"):
        fitted(N2D, n_init=0)


@BOTH
def test_images_and_labels_are_checked(cls):
    with pytest.raises(ValueError, match="expected uint8 images"):
        fitted(cls, Y, X / 255)
    with pytest.raises(ValueError, match="expected 300 integers"):
        fitted(cls, Y[1:])
    with pytest.raises(ValueError, match="labels from -1 to 14"):
        fitted(cls, np.where(Y < 0, -1, Y + 5))


# UMAP itself


@pytest.mark.slow
def test_n2d_finds_the_digits():
    params = {"n_neighbors": 10, "n_epochs": 100}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of n_jobs, say
        method = fitted(N2D, Y[:270], X[:270], **params)
    clusters = cluster_of_each_class(TRUTH[:270], method.labels_, 10)
    assert (clusters[TRUTH[:270]] == method.labels_).mean() > 0.75
    assert (clusters[TRUTH[270:]] == method.predict(X[270:])).mean() > 0.6
    assert np.array_equal(method.predict(X[:270]), method.labels_)
    again = fitted(N2D, Y[:270], X[:270], **params)
    assert np.array_equal(again.probabilities_, method.probabilities_)
    assert np.array_equal(again.predict_proba(X[270:]), method.predict_proba(X[270:]))
    loaded = pickle.loads(pickle.dumps(method))
    assert np.array_equal(loaded.predict_proba(X[260:]), method.predict_proba(X[260:]))
    other = fitted(N2D, Y[:270], X[:270], **params, random_state=1)
    assert not np.array_equal(other.transform(X[:270]), method.transform(X[:270]))


@pytest.mark.slow
def test_ss_umap_finds_the_digits():
    params = {"n_epochs": 200}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of n_jobs, say
        method = fitted(SSUMAP, Y[:270], X[:270], **params)
    hidden = Y[:270] < 0
    assert (method.labels_ == TRUTH[:270])[hidden].mean() > 0.85
    assert (method.predict(X[270:]) == TRUTH[270:]).mean() > 0.75
    assert np.array_equal(method.predict(X[:270]), method.labels_)
    again = fitted(SSUMAP, Y[:270], X[:270], **params)
    assert np.array_equal(again.transform(X), method.transform(X))
    with_all = fitted(SSUMAP, TRUTH, **params, k=1)
    unlabelled_layout = fitted(N2D, TRUTH, **params, n_components=2, n_neighbors=15, min_dist=0.1)

    def spread(w: np.ndarray) -> float:
        """Squared distances from the class's mean, as a share of those from the mean of all."""
        within = sum(np.square(w[c == TRUTH] - w[c == TRUTH].mean(0)).sum() for c in range(10))
        return within / np.square(w - w.mean(0)).sum()

    assert spread(with_all.transform(X)) < 0.7 * spread(unlabelled_layout.transform(X))


@pytest.mark.slow
@BOTH
def test_fewest_epochs_suffice_for_new_images(cls):
    """UMAP gives new images a third of them; below one it fails."""
    method = fitted(cls, Y[:270], X[:270], n_epochs=3)
    assert np.isfinite(method.transform(X)).all()
