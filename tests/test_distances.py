"""Logistic regression on the distances to the centres of k-means."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from contexts import Recording
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from methods import distances
from methods.distances import KMeansDistances, distances_to
from methods.method import Context, derive_seed
from methods.propagation import KMeansFull
from methods.registry import get
from methods.toolkit.stages.kmeans import kmeans

_digits = load_digits()
X = (_digits.images * 15.9).astype(np.uint8)[:400]  # (400, 8, 8)
TRUTH = _digits.target.astype(np.int64)[:400]
SHORT = {"k": 20, "random_state": 0}


def reveal(n: int) -> np.ndarray:
    y = np.full(len(X), -1)
    y[:n] = TRUTH[:n]
    return y


def fitted(
    y: np.ndarray | None,
    images: np.ndarray = X,
    context: Context | None = None,
    **params: Any,
) -> KMeansDistances:
    return KMeansDistances(**SHORT | params).fit(images, y, context)


def test_registered_name_and_tags():
    entry = get("kmeans-distances")
    assert entry.cls is KMeansDistances
    assert entry.tags.needs_labels
    assert entry.tags.inductive
    assert not entry.tags.in_all
    assert entry.build("paper").get_params().items() >= {"k": 100, "lr_max_iter": 5000}.items()
    assert entry.build("smoke").lr_max_iter == 20


@pytest.mark.parametrize("block", [4096, 30])
def test_distances_are_euclidean_between_pixels_in_the_unit_range(monkeypatch, block):
    monkeypatch.setattr(distances, "BLOCK", block)
    centres = np.concatenate([X[:3], 255 - X[:3]]).reshape(6, 64).astype(np.float32) / 255
    found = distances_to(centres, X)
    assert found.shape == (400, 6)
    assert found.dtype == np.float32
    expected = cdist(X.reshape(400, 64) / 255, centres)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_the_centres_are_those_of_the_stage():
    seed = derive_seed(0, "kmeans")
    found = kmeans(X, random_state=seed, context=Context(), n_clusters=20, max_iter=300)
    method = fitted(reveal(100))
    assert np.array_equal(method.cluster_centers_, found["centres"])
    np.testing.assert_allclose(method.transform(X).min(1), found["distances"], atol=1e-5)
    assert np.array_equal(method.transform(X).argmin(1), found["labels"])


@pytest.mark.parametrize("multi_class", ["ovr", "multinomial"])
def test_it_is_logistic_regression_on_the_distances(multi_class):
    """scikit-learn's, with another solver: the solution is unique."""
    method = fitted(reveal(200), C=0.5, multi_class=multi_class, tol=1e-5)
    rows = method.transform(X).astype(np.float64)
    direct = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-8)
    if multi_class == "ovr":
        direct = OneVsRestClassifier(direct)
    direct.fit(rows[:200], TRUTH[:200])
    np.testing.assert_allclose(method.probabilities_, direct.predict_proba(rows), atol=1e-3)


def test_the_classifier_stops_after_lr_max_iter():
    assert fitted(reveal(200), lr_max_iter=3).head_.n_iter_ == 3


def test_it_learns():
    method = fitted(reveal(200))
    assert (method.labels_[200:] == TRUTH[200:]).mean() > 0.8
    assert method.labels_.shape == (400,)
    assert method.labels_.dtype == np.int64
    np.testing.assert_allclose(method.probabilities_.sum(1), 1, rtol=1e-5)


def test_predict_is_the_rule_that_was_fitted():
    method = fitted(reveal(100))
    assert np.array_equal(method.predict(X), method.labels_)
    again = pickle.loads(pickle.dumps(method))
    assert np.array_equal(again.predict(X[:7]), method.labels_[:7])


def test_new_images():
    method = KMeansDistances(**SHORT).fit(X[:300], TRUTH[:300])
    assert (method.predict(X[300:]) == TRUTH[300:]).mean() > 0.8
    assert method.predict_proba(X[300:]).shape == (100, 10)
    assert method.transform(X[300:]).shape == (100, 20)


def test_same_seed_same_labels():
    y = reveal(100)
    first = fitted(y)
    assert np.array_equal(first.probabilities_, fitted(y).probabilities_)
    assert not np.array_equal(first.probabilities_, fitted(y, random_state=1).probabilities_)


def test_labels_are_the_classifier_s_own():
    y = reveal(300)
    wrong = np.arange(0, 300, 20)
    y[wrong] = (TRUTH[wrong] + 5) % 10
    labels = fitted(y, C=0.1).labels_
    assert (labels[wrong] == y[wrong]).mean() < 0.3
    assert (labels[wrong] == TRUTH[wrong]).mean() > 0.6


def test_a_class_without_labels_is_never_predicted():
    y = reveal(200)
    y[(y == 3) | (y == 8)] = -1
    method = fitted(y)
    assert not np.isin(method.labels_, [3, 8]).any()
    assert (method.predict_proba(X)[:, [3, 8]] == 0).all()


def test_colour_images():
    colour = np.stack([X, 255 - X, X], axis=3)
    method = fitted(reveal(100), colour)
    assert method.cluster_centers_.shape == (20, 192)
    assert method.predict(colour[:5]).tolist() == method.labels_[:5].tolist()
    with pytest.raises(ValueError, match=r"was fitted on \(8, 8, 3\): give it images of that"):
        method.predict(X)


def test_it_asks_for_the_stage_that_it_declares():
    context = Recording()
    method = fitted(reveal(100), context=context)
    assert context.asked == [(request, 0) for request in method.stages(100)]
    method.cluster_centers_[0] = 0  # its own copy


@pytest.mark.parametrize("schedule", ["paper", "quick", "smoke"])
def test_it_shares_k_means_with_label_propagation(schedule):
    ours = get("kmeans-distances").build(schedule, k=500)
    theirs = get("kmeans-full").build(schedule, k=500)
    assert isinstance(theirs, KMeansFull)
    assert ours.stages(600) == theirs.stages(600)


@pytest.mark.parametrize("y", [None, np.full(400, -1)])
def test_without_labels_there_is_nothing_to_learn(y):
    with pytest.raises(ValueError, match=r"KMeansDistances learns .* holds none .* label some"):
        fitted(y)


def test_images_and_labels_are_checked():
    with pytest.raises(ValueError, match="expected uint8 images"):
        fitted(reveal(50), X / 255)
    with pytest.raises(ValueError, match="expected 400 integers"):
        fitted(reveal(50)[1:])
    with pytest.raises(ValueError, match="labels from -1 to 10"):
        fitted(np.where(reveal(9) < 0, -1, 10))
    for ask in (KMeansDistances().predict, KMeansDistances().transform):
        with pytest.raises(NotFittedError):
            ask(X)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"k": 401}, "k is 401 with 400 images; expected 1 to 400 centres: ask for fewer"),
        ({"k": 0}, "k is 0 with 400 images; expected 1 to 400 centres"),
        ({"C": -1}, "C is -1; expected above 0"),
        ({"tol": 0}, "tol is 0; expected above 0"),
        ({"multi_class": "ovo"}, "multi_class is 'ovo'; expected 'ovr' or 'multinomial'"),
        ({"max_iter": 0}, "max_iter is 0; expected at least 1"),
    ],
)
def test_parameters_out_of_range(wrong, expected):
    with pytest.raises(ValueError, match=expected):
        fitted(reveal(50), **wrong)


def test_it_is_a_scikit_learn_estimator():
    method = KMeansDistances(7, k=30, C=2.0, random_state=3)
    assert clone(method).get_params() == method.get_params()
    y = reveal(100)
    method = KMeansDistances(**SHORT)
    assert np.array_equal(method.fit_predict(X, y), method.fit(X, y).labels_)
