"""The baselines: two that ignore labels, three that know nothing else."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from contexts import Recording, SmallBatches
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics.cluster import contingency_matrix

from methods.baselines import FeatureKMeans, PixelKMeans
from methods.dcec import DCEC
from methods.method import Context, derive_seed
from methods.registry import get
from methods.supervised import SupervisedCNN, SupervisedLR, SupervisedMLP
from methods.toolkit.heads.cnn import CNN
from methods.toolkit.heads.logistic import LogisticRegression
from methods.toolkit.heads.mlp import MLP
from methods.toolkit.stages.kmeans import kmeans, nearest

_digits = load_digits()
X = (_digits.images * 15.9).astype(np.uint8)[:400]  # (400, 8, 8)
TRUTH = _digits.target.astype(np.int64)[:400]
SHORT = {
    PixelKMeans: {"n_init": 2},
    FeatureKMeans: {"features": "autoencoder", "autoencoder_epochs": 1, "n_init": 2},
    SupervisedLR: {"max_iter": 50},
    SupervisedMLP: {"epochs": 60},
    SupervisedCNN: {"steps": 40, "width": 16},
}
CLUSTERING = [PixelKMeans, FeatureKMeans]
SUPERVISED = [SupervisedLR, SupervisedMLP, SupervisedCNN]
each_method = pytest.mark.parametrize("cls", list(SHORT))
each_clustering = pytest.mark.parametrize("cls", CLUSTERING)
each_supervised = pytest.mark.parametrize("cls", SUPERVISED)


def reveal(n: int) -> np.ndarray:
    y = np.full(len(X), -1)
    y[:n] = TRUTH[:n]
    return y


def fitted(cls: type, y=None, images=X, context=None, **params):
    return cls(**SHORT[cls] | {"random_state": 0} | params).fit(images, y, context)


def test_registered_names_and_tags():
    classes = {name: get(name).cls for name in ("kmeans", "cae-kmeans", "supervised-lr")}
    assert list(classes.values()) == [PixelKMeans, FeatureKMeans, SupervisedLR]
    assert get("supervised-mlp").cls is SupervisedMLP
    assert get("supervised-cnn").cls is SupervisedCNN
    assert not any(cls.tags.uses_labels or cls.tags.needs_labels for cls in CLUSTERING)
    assert all(cls.tags.uses_labels and cls.tags.needs_labels for cls in SUPERVISED)


# What all of them do


@each_method
def test_predict_is_the_rule_that_was_fitted(cls):
    method = fitted(cls, reveal(100))
    assert method.labels_.shape == (400,)
    assert method.labels_.dtype == np.int64
    assert np.array_equal(method.predict(X), method.labels_)
    again = pickle.loads(pickle.dumps(method))
    assert np.array_equal(again.predict(X[:7]), method.labels_[:7])


@each_method
def test_same_seed_same_labels(cls):
    y = reveal(100)
    assert np.array_equal(fitted(cls, y).labels_, fitted(cls, y).labels_)


@pytest.mark.parametrize("cls", [c for c in SHORT if c is not SupervisedLR])
def test_another_seed_another_result(cls):
    y = reveal(100)
    assert not np.array_equal(fitted(cls, y).labels_, fitted(cls, y, random_state=1).labels_)


@each_method
def test_colour_images(cls):
    colour = np.stack([X, 255 - X, X], axis=3)
    method = fitted(cls, reveal(100), colour)
    assert method.predict(colour[:5]).tolist() == method.labels_[:5].tolist()
    with pytest.raises(ValueError, match=r"was fitted on \(8, 8, 3\): give it images of that"):
        method.predict(X)


@each_method
def test_images_and_labels_are_checked(cls):
    with pytest.raises(ValueError, match="expected uint8 images"):
        fitted(cls, reveal(50), X / 255)
    with pytest.raises(ValueError, match="expected 400 integers"):
        fitted(cls, reveal(50)[1:])
    with pytest.raises(ValueError, match="labels from -1 to 10"):
        fitted(cls, np.where(reveal(9) < 0, -1, 10))
    with pytest.raises(NotFittedError):
        cls().predict(X)


@each_method
def test_it_is_a_scikit_learn_estimator(cls):
    method = cls(**SHORT[cls], n_clusters=7, random_state=3)
    assert clone(method).get_params() == method.get_params()
    assert method.get_params()["n_clusters"] == 7
    y = reveal(100)
    method = cls(**SHORT[cls], random_state=0)
    assert np.array_equal(method.fit_predict(X, y), method.fit(X, y).labels_)


@each_method
@pytest.mark.parametrize("schedule", ["quick", "smoke"])
def test_schedules_name_parameters_that_there_are(cls, schedule):
    assert cls.schedules[schedule].keys() <= cls().get_params().keys()


# Those that ignore labels


@each_clustering
def test_labels_do_not_matter(cls):
    assert np.array_equal(fitted(cls, reveal(300)).labels_, fitted(cls).labels_)


@each_clustering
@pytest.mark.parametrize("n_labels", [0, 100])
def test_it_asks_for_the_stages_that_it_declares(cls, n_labels):
    context = Recording()
    method = fitted(cls, reveal(n_labels), context=context)
    assert context.asked == [(request, 0) for request in method.stages(n_labels)]
    method.labels_[0] = 3  # its own copy
    method.cluster_centers_[0] = 0


@pytest.mark.parametrize(
    ("cls", "params"), [(PixelKMeans, {}), (FeatureKMeans, {"autoencoder_epochs": 30})]
)
def test_clusters_are_better_than_chance(cls, params):
    table = contingency_matrix(TRUTH, fitted(cls, context=SmallBatches(), **params).labels_)
    rows, columns = linear_sum_assignment(table, maximize=True)
    assert table[rows, columns].sum() / 400 > 0.5


def test_kmeans_is_the_stage():
    method = fitted(PixelKMeans, n_init=3)
    seed = derive_seed(0, "kmeans")
    found = kmeans(X, random_state=seed, context=Context(), n_clusters=10, n_init=3)
    assert np.array_equal(method.labels_, found["labels"])
    assert np.array_equal(method.cluster_centers_, found["centres"])
    assert (method.inertia_, method.n_iter_) == (found["inertia"], found["n_iter"])


def test_kmeans_clusters_the_pixels():
    method = fitted(PixelKMeans)
    pixels = method.transform(X)
    assert np.array_equal(pixels, X.reshape(400, 64).astype(np.float32) / 255)
    distances = np.linalg.norm(pixels[:, None] - method.cluster_centers_, axis=2)
    assert np.array_equal(distances.argmin(1), method.labels_)


def test_cae_kmeans_clusters_the_embedding():
    method = fitted(FeatureKMeans)
    embedding = method.transform(X)
    assert embedding.shape == (400, 10)
    assert np.array_equal(nearest(embedding, method.cluster_centers_)[0], method.labels_)
    means = [embedding[method.labels_ == j].mean(0) for j in range(10)]
    scale = embedding.std()
    np.testing.assert_allclose(method.cluster_centers_, means, atol=0.05 * scale)


@pytest.mark.parametrize("schedule", ["paper", "quick", "smoke"])
def test_cae_kmeans_shares_the_autoencoder_of_dcec(schedule):
    [request] = get("cae-kmeans").build(schedule).stages(0)
    assert request == get("dcec").build(schedule).stages(0)[0]
    assert FeatureKMeans().n_init == DCEC().n_init


# The supervised ones


@each_supervised
@pytest.mark.parametrize("y", [None, np.full(400, -1)])
def test_without_labels_there_is_nothing_to_learn(cls, y):
    with pytest.raises(ValueError, match=f"{cls.__name__} learns from labelled .* label some"):
        fitted(cls, y)


@each_supervised
def test_unlabelled_images_teach_nothing(cls):
    """Whatever the unlabelled images are, the classifier is that of the labelled ones."""
    y = reveal(100)
    other = X.copy()
    other[100:] = 255 - other[100:]
    expected = fitted(cls, y).predict_proba(X)
    assert np.array_equal(fitted(cls, y, other).predict_proba(X), expected)
    alone = fitted(cls, TRUTH[:100], X[:100]).predict_proba(X)
    np.testing.assert_allclose(alone, expected, atol=1e-5)


@each_supervised
def test_it_is_the_head_with_its_parameters(cls):
    seed = derive_seed(0, "head")
    head = {SupervisedLR: LogisticRegression, SupervisedMLP: MLP, SupervisedCNN: CNN}[cls]
    head = head(10, seed, **SHORT[cls]).fit(X[:100], TRUTH[:100], Context())
    method = fitted(cls, reveal(100))
    assert np.array_equal(method.probabilities_, head.predict_proba(X))
    assert np.array_equal(method.labels_, method.probabilities_.argmax(1))


@each_supervised
def test_it_learns(cls):
    longer = {"steps": 120} if cls is SupervisedCNN else {}
    method = fitted(cls, reveal(200), **longer)
    assert (method.labels_[200:] == TRUTH[200:]).mean() > 0.7


def test_labels_are_the_classifier_s_own():
    """Labels that are wrong on purpose do not come back from a regularised classifier."""
    y = reveal(300)
    wrong = np.arange(0, 300, 20)
    y[wrong] = (TRUTH[wrong] + 5) % 10
    labels = fitted(SupervisedLR, y, C=0.01).labels_
    assert (labels[wrong] == y[wrong]).mean() < 0.3
    assert (labels[wrong] == TRUTH[wrong]).mean() > 0.6


@each_supervised
def test_a_class_without_labels_is_never_predicted(cls):
    y = reveal(200)
    y[(y == 3) | (y == 8)] = -1
    method = fitted(cls, y)
    assert not np.isin(method.labels_, [3, 8]).any()
    assert (method.predict_proba(X)[:, [3, 8]] == 0).all()
    assert method.probabilities_.shape == (400, 10)


def test_the_cnn_trains_for_the_same_number_of_steps_at_every_level():
    for n_labels in (20, 350):
        context = Recording()
        fitted(SupervisedCNN, reveal(n_labels), context=context)
        assert [step[1] for step in context.steps] == list(range(1, 41))


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (PixelKMeans, {"n_init": 0}),
        (PixelKMeans, {"n_clusters": 401}),
        (FeatureKMeans, {"autoencoder_epochs": -1}),
        (SupervisedLR, {"C": -1}),
        (SupervisedMLP, {"batch_size": 0}),
        (SupervisedCNN, {"steps": 0}),
    ],
)
def test_parameters_out_of_range(cls, wrong):
    name = next(iter(wrong)).removeprefix("autoencoder_")
    with pytest.raises(ValueError, match=f"{name} is {next(iter(wrong.values()))}"):
        fitted(cls, reveal(50), **wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.usefixtures("fixed_sums")
@each_method
def test_on_an_accelerator(cls):
    y = reveal(200)
    method = fitted(cls, y, context=Context(device="cuda"))
    assert np.array_equal(method.predict(X), method.labels_)
    assert np.array_equal(fitted(cls, y, context=Context(device="cuda")).labels_, method.labels_)
