"""Label spreading: the graph, the iteration and the fallback by hand, then the method."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from contexts import Recording, SmallBatches
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn import semi_supervised
from sklearn.base import clone
from sklearn.datasets import load_digits, make_moons
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from methods.baselines import FeatureKMeans
from methods.method import Context
from methods.registry import get
from methods.spreading import LabelSpreading, fill_from_nearest, neighbour_graph, spread
from methods.toolkit.graph import nearest_others
from methods.toolkit.stages.autoencoder import autoencoder

_digits = load_digits()
X = (_digits.images * 15.9).astype(np.uint8)[:400]  # (400, 8, 8)
TRUTH = _digits.target.astype(np.int64)[:400]
SHORT = {"autoencoder_epochs": 3, "n_init": 2, "random_state": 0}
EXACT = {"max_iter": 1000, "tol": 1e-12}


def reveal(n: int) -> np.ndarray:
    y = np.full(len(X), -1)
    y[:n] = TRUTH[:n]
    return y


def fitted(
    y: np.ndarray | None = None,
    images: np.ndarray = X,
    context: Context | None = None,
    **params: Any,
) -> LabelSpreading:
    return LabelSpreading(**SHORT | params).fit(images, y, context)


def graph_of(z: np.ndarray, k: int) -> sparse.csr_array:
    return neighbour_graph(nearest_others(z.astype(np.float32), k)[0])


def on_embedding(z: np.ndarray, y: np.ndarray, **params: Any) -> tuple[LabelSpreading, Recording]:
    """The method on an embedding ``(n, 10)`` of n images that do not matter."""
    embedding = np.pad(z, ((0, 0), (0, 10 - z.shape[1]))).astype(np.float32)
    images = np.zeros((len(z), 8, 8), dtype=np.uint8)
    untrained = autoencoder(images, random_state=0, context=Context(), epochs=0)
    context = Recording(answers={"autoencoder": untrained | {"embedding": embedding}})
    return fitted(y, images, context, **params), context


# The graph


def test_the_graph_joins_an_instance_with_its_nearest_others():
    z = np.random.default_rng(0).normal(size=(50, 3))
    distances = cdist(z, z)
    np.fill_diagonal(distances, np.inf)
    directed = distances.argsort(1).argsort(1) < 4
    graph = graph_of(z, 4)
    assert sparse.issparse(graph)
    assert np.array_equal(graph.toarray(), directed | directed.T)


def test_the_graph_has_no_self_loops_where_instances_coincide():
    graph = graph_of(np.zeros((20, 2)), 3)
    assert (graph.diagonal() == 0).all()
    assert (abs(graph - graph.T) > 0).nnz == 0
    assert (graph.sum(1) >= 3).all()


def test_nothing_dense_is_made_of_all_pairs():
    n, k = 4000, 7
    z = np.random.default_rng(0).normal(size=(n, 10)).astype(np.float32)
    y = np.full(n, -1)
    y[:40] = np.arange(40) % 10
    on_embedding(z[:100], y[:100])  # what is imported or set up at first is not counted
    tracemalloc.start()
    method, context = on_embedding(z, y)
    method.predict(np.zeros((100, 8, 8), dtype=np.uint8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    [logged] = context.history
    assert n * k / 2 <= logged["graph_edges"] <= n * k
    assert peak < n * n  # bytes: less than one for each pair


# The iteration


@pytest.mark.parametrize("alpha", [0.2, 0.9])
def test_it_converges_to_the_closed_form(alpha):
    """F* is (I - alpha·S)^-1·Y up to the scale of its rows (Zhou et al., equation 4)."""
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(60, 3)), np.full(60, -1)
    y[:6] = [0, 2, 3, 0, 2, 3]
    graph = graph_of(z, 5)
    W = graph.toarray()
    S = W / np.sqrt(np.outer(W.sum(1), W.sum(1)))
    Y = np.eye(4)[y] * (y >= 0)[:, None]
    expected = np.linalg.solve(np.eye(60) - alpha * S, Y)
    expected /= expected.sum(1, keepdims=True)
    F, n_iter = spread(graph, y, 4, alpha, **EXACT)
    np.testing.assert_allclose(F, expected, atol=1e-9)
    assert (F[:, 1] == 0).all()  # no instance of that class is labelled
    assert n_iter < 1000


def test_a_label_reaches_those_who_have_it_for_no_neighbour():
    """Unlike in scikit-learn's graph, whose edges have a direction."""
    z = np.array([[0.0], [0.1], [0.2], [1.0]])  # three near each other, and a labelled one
    y = np.array([-1, -1, -1, 1])
    theirs = semi_supervised.LabelSpreading(kernel="knn", n_neighbors=3).fit(z, y)
    assert (theirs.label_distributions_[:3] == 0).all()
    F, _ = spread(graph_of(z, 2), y, 2, 0.2, **EXACT)
    np.testing.assert_allclose(F, [[0, 1]] * 4)


def test_a_part_without_label_stays_at_0():
    z = np.concatenate([np.linspace(0, 1, 10), np.linspace(9, 10, 10)])[:, None]
    y = np.full(20, -1)
    y[0] = 1
    F, _ = spread(graph_of(z, 3), y, 2, 0.2, **EXACT)
    assert (F[:10] == [0, 1]).all()
    assert (F[10:] == 0).all()


def test_two_moons():
    """One label a moon suffices, where the nearest labelled instance misleads (Zhou's figure 1)."""
    z, truth = make_moons(400, noise=0.05, random_state=0)
    y = np.full(400, -1)
    ends = [int(z[:, 0].argmin()), int(z[:, 0].argmax())]
    y[ends] = truth[ends]
    F, _ = spread(graph_of(z, 7), y, 2, 0.99, max_iter=5000, tol=1e-9)
    nearest = truth[ends][cdist(z, z[ends]).argmin(1)]
    assert (nearest == truth).mean() < 0.9
    assert (F.argmax(1) == truth).mean() > 0.99


def test_rows_of_0_are_filled_from_the_nearest_instance_that_has_another():
    F = np.array([[1.0, 0], [0, 0], [0.25, 0.75], [0, 0]])
    z = np.array([[0.0], [1], [3], [9]])
    filled = fill_from_nearest(F, z)
    assert filled.tolist() == [[1, 0], [1, 0], [0.25, 0.75], [0.25, 0.75]]
    assert F[1].tolist() == [0, 0]  # what was given stays


# The method


def test_registered_name_and_tags():
    entry = get("label-spreading")
    assert entry.cls is LabelSpreading
    assert entry.tags.uses_labels
    assert entry.tags.in_all
    assert entry.tags.inductive
    assert not entry.tags.needs_labels


def test_same_seed_same_labels():
    y = reveal(100)
    first, second = fitted(y), fitted(y)
    assert np.array_equal(first.labels_, second.labels_)
    assert np.array_equal(first.probabilities_, second.probabilities_)
    assert not np.array_equal(first.probabilities_, fitted(y, random_state=1).probabilities_)


def test_it_learns():
    params = SHORT | {"autoencoder_epochs": 30}
    method = LabelSpreading(**params).fit(X[:300], reveal(100)[:300], SmallBatches())
    assert (method.labels_[100:] == TRUTH[100:300]).mean() > 0.65
    assert (method.predict(X[300:]) == TRUTH[300:]).mean() > 0.5
    assert method.labels_.shape == (300,)
    assert method.labels_.dtype == np.int64
    assert method.probabilities_.shape == (300, 10)
    assert method.probabilities_.dtype == np.float32
    np.testing.assert_allclose(method.probabilities_.sum(1), 1, rtol=1e-6)


def test_it_is_scikit_learn_s_on_the_embedding():
    y = reveal(100)
    method = fitted(y)
    z = method.transform(X)
    graph = graph_of(z, 7)
    theirs = semi_supervised.LabelSpreading(kernel=lambda a, b: graph, **EXACT).fit(z, y)
    assert np.array_equal(method.labels_, theirs.transduction_)
    np.testing.assert_allclose(method.probabilities_, theirs.label_distributions_, atol=1e-6)
    assert method.n_iter_ == theirs.n_iter_


def test_an_isolated_part_takes_the_labels_of_the_nearest_known_instance():
    """Never a silent class 0: the part at 10 is nearest to class 2."""
    z = np.concatenate([np.linspace(0, 1, 10), np.linspace(4, 5, 10), np.linspace(9, 10, 10)])
    y = np.full(30, -1)
    y[[5, 15]] = 1, 2
    method, context = on_embedding(z[:, None], y, n_clusters=3, n_neighbors=3)
    assert method.labels_.tolist() == [1] * 10 + [2] * 20
    assert (method.probabilities_[20:] == [0, 0, 1]).all()
    assert context.history[0]["unreached"] == 10


def test_a_wrong_label_gives_way_to_its_neighbours():
    z, truth = make_moons(200, noise=0.05, random_state=0)
    y = np.where(np.arange(200) < 150, truth, -1)
    y[7] = 1 - truth[7]
    labels = on_embedding(z, y, n_clusters=2, alpha=0.9)[0].labels_
    assert labels[7] == truth[7]
    assert (labels == truth).mean() > 0.98


def test_a_class_without_labels_is_never_predicted():
    y = reveal(200)
    y[(y == 3) | (y == 8)] = -1
    method = fitted(y)
    assert not np.isin(method.labels_, [3, 8]).any()
    assert (method.probabilities_[:, [3, 8]] == 0).all()
    assert (method.predict_proba(255 - X)[:, [3, 8]] == 0).all()


def test_one_labelled_instance_suffices():
    y = np.full(400, -1)
    y[11] = 6
    assert (fitted(y).labels_ == 6).all()


def test_too_few_iterations_are_told_and_leave_nobody_out():
    y = reveal(10)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 was reached"):
        method = fitted(y, max_iter=1)
    np.testing.assert_allclose(method.probabilities_.sum(1), 1, rtol=1e-6)


def test_what_is_not_labelled_is_no_class():
    y = reveal(100)
    y.flags.writeable = False
    method = fitted(y)
    assert (method.labels_ >= 0).all()
    assert np.array_equal(method.labels_, fitted(y.astype(np.int8)).labels_)


# Without any label


@pytest.mark.parametrize("y", [None, np.full(400, -1)])
def test_without_labels_it_is_cae_kmeans(y):
    method, baseline = fitted(y), FeatureKMeans(features="autoencoder", **SHORT).fit(X)
    assert get("cae-kmeans").cls is FeatureKMeans
    assert get("label-spreading").tags.without_labels == "cae-kmeans"
    assert np.array_equal(method.labels_, baseline.labels_)
    assert np.array_equal(method.probabilities_, np.eye(10)[baseline.labels_])
    new = 255 - X
    assert np.array_equal(method.predict(new), baseline.predict(new))
    assert np.array_equal(method.predict_proba(new).argmax(1), baseline.predict(new))


def test_a_second_fit_forgets_the_first():
    method = fitted(reveal(100))
    method.fit(X)
    assert np.array_equal(
        method.labels_, FeatureKMeans(features="autoencoder", **SHORT).fit(X).labels_
    )
    assert np.array_equal(method.predict(X), method.labels_)
    method.fit(X, reveal(100))
    assert np.array_equal(method.labels_, fitted(reveal(100)).labels_)


@pytest.mark.parametrize("schedule", ["paper", "quick", "smoke"])
def test_it_is_cae_kmeans_with_the_same_parameters(schedule):
    ours, theirs = get("label-spreading").build(schedule), get("cae-kmeans").build(schedule)
    assert theirs.get_params().items() <= ours.get_params().items()
    assert ours.stages(0) == ours.stages(700) == theirs.stages(0)


@pytest.mark.parametrize("n_labels", [0, 100])
def test_it_asks_for_the_stages_that_it_declares(n_labels):
    context = Recording()
    method = fitted(reveal(n_labels), context=context)
    assert context.asked == [(request, 0) for request in method.stages(n_labels)]
    method.labels_[0] = 3  # its own copy
    method.probabilities_[0] = 0


# New images


def test_fitted_images_keep_their_labels():
    y = reveal(100)
    y[::10] = (TRUTH[::10] + 1) % 10  # wrong ones, so that neighbours disagree
    method = fitted(y)
    assert np.array_equal(method.predict(X), method.labels_)
    assert np.array_equal(method.predict(X[150:157]), method.labels_[150:157])
    np.testing.assert_allclose(method.predict_proba(X), method.probabilities_, atol=1e-6)
    again = pickle.loads(pickle.dumps(method))
    assert np.array_equal(again.predict(X[:7]), method.labels_[:7])


def test_new_images_take_the_mean_of_their_neighbours():
    method = LabelSpreading(**SHORT).fit(X[:300], reveal(100)[:300])
    new = X[300:]
    z, z_new = method.transform(X[:300]), method.transform(new)
    members = cdist(z_new, z).argsort(1)[:, :7]
    expected = method.probabilities_[members].mean(1)
    found = method.predict_proba(new)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.shape == (100, 10)
    assert found.dtype == np.float32
    assert np.array_equal(method.predict(new), found.argmax(1))


def test_an_image_between_equal_fitted_ones_takes_their_mean():
    """Three fitted images are the same and two of their labels differ: all three count alike."""
    images = X[:50].copy()
    images[1] = images[2] = images[0]
    y = reveal(50)[:50]
    y[:3] = 4, 5, -1
    method = LabelSpreading(**SHORT).fit(images, y)
    expected = method.probabilities_[:3].mean(0)
    np.testing.assert_allclose(method.predict_proba(images[:1])[0], expected, atol=1e-6)


def test_colour_images():
    colour = np.stack([X, 255 - X, X], axis=3)
    method = fitted(reveal(100), colour)
    assert method.transform(colour).shape == (400, 10)
    assert method.predict(colour[:5]).tolist() == method.labels_[:5].tolist()
    with pytest.raises(ValueError, match=r"was fitted on \(8, 8, 3\): give it images of that"):
        method.predict(X)


# What it is given


def test_images_and_labels_are_checked():
    with pytest.raises(ValueError, match="expected uint8 images"):
        fitted(reveal(50), X / 255)
    with pytest.raises(ValueError, match="expected 400 integers"):
        fitted(reveal(50)[1:])
    with pytest.raises(ValueError, match="labels from -1 to 10"):
        fitted(np.where(reveal(9) < 0, -1, 10))
    with pytest.raises(NotFittedError):
        LabelSpreading().predict(X)


@pytest.mark.parametrize("n_labels", [0, 50])
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"n_neighbors": 0}, "n_neighbors is 0 with 400 images; expected 1 to 399"),
        ({"n_neighbors": 400}, "n_neighbors is 400 with 400 images; expected 1 to 399"),
        ({"alpha": 0}, "alpha is 0; expected above 0 and below 1"),
        ({"alpha": 1.0}, "alpha is 1.0; expected above 0 and below 1"),
        ({"max_iter": 0}, "max_iter is 0; expected at least 1"),
        ({"tol": -1}, "tol is -1; expected at least 0"),
        ({"tol": float("nan")}, "tol is nan; expected at least 0"),
        ({"autoencoder_epochs": -1}, "epochs is -1; expected 0 or more"),
    ],
)
def test_parameters_out_of_range(n_labels, wrong, expected):
    with pytest.raises(ValueError, match=expected):
        fitted(reveal(n_labels), **wrong)


def test_it_is_a_scikit_learn_estimator():
    method = LabelSpreading(**SHORT | {"random_state": 3}, n_clusters=7, alpha=0.5, n_neighbors=4)
    assert clone(method).get_params() == method.get_params()
    assert method.get_params()["n_clusters"] == 7
    y = reveal(100)
    method = LabelSpreading(**SHORT)
    assert np.array_equal(method.fit_predict(X, y), method.fit(X, y).labels_)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.usefixtures("fixed_sums")
def test_on_an_accelerator():
    y = reveal(200)
    method = fitted(y, context=Context(device="cuda"))
    assert np.array_equal(method.predict(X), method.labels_)
    assert np.array_equal(fitted(y, context=Context(device="cuda")).labels_, method.labels_)


def test_a_second_fit_keeps_nothing_of_the_first() -> None:
    method = fitted(reveal(40), features="pixels")
    assert {"label_distributions_", "n_iter_"} <= {*vars(method)}
    method.fit(X)
    assert "cluster_centers_" in vars(method)
    assert not {"label_distributions_", "n_iter_"} & {*vars(method)}
    method.fit(X, reveal(40))
    assert "cluster_centers_" not in vars(method)
