"""Laplace and Poisson learning: the graph, the equations, the decisions, and how they fit."""

from __future__ import annotations

import numpy as np
import pytest
from contexts import Recording
from fixed_fits import sample
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from methods.graphs import (
    Laplace,
    Poisson,
    PoissonMBO,
    laplace,
    poisson,
    poisson_mbo,
    sources,
    with_volumes,
)
from methods.method import UNLABELLED
from methods.toolkit.graph import (
    connected,
    degrees,
    gaussian_graph,
    nearest_others,
    nearest_rows,
    solve,
)

SMOKE = Laplace.schedules["smoke"] | {"features": "autoencoder"}


def two_moons(n: int = 60, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed)
    angle = np.pi * draws.random(n)
    moon = np.c_[np.cos(angle), np.sin(angle)]
    moon[n // 2 :] = [1.0, 0.5] - moon[n // 2 :]
    return (moon + 0.05 * draws.standard_normal((n, 2))).astype(np.float32)


def graph_of(rows: np.ndarray, k: int = 6) -> sparse.csr_array:
    return connected(gaussian_graph(*nearest_others(rows, k)), rows)


def labels_of(n: int, labelled: dict[int, int], K: int = 2) -> np.ndarray:
    Y = np.zeros((n, K))
    for i, label in labelled.items():
        Y[i, label] = 1
    return Y


def solver(A: sparse.csr_array, B: np.ndarray) -> np.ndarray:
    return solve(A, B, tol=1e-10, max_iter=1000)


# --- The graph -----------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [5, 40])
def test_nearest_rows_are_those_of_all_distances(d: int) -> None:
    draws = np.random.default_rng(0)
    queries, rows = (draws.standard_normal((n, d)).astype(np.float32) for n in (7, 40))
    indices, distances = nearest_rows(queries, rows, 3)
    all_of_them = np.linalg.norm(queries[:, None] - rows, axis=2)
    np.testing.assert_array_equal(indices, all_of_them.argsort(1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(all_of_them, 1)[:, :3], rtol=1e-5)


@pytest.mark.parametrize("d", [2, 20])
def test_nobody_is_its_own_neighbour_even_among_copies(d: int) -> None:
    rows = np.zeros((6, d), np.float32)
    indices, distances = nearest_others(rows, 5)
    assert indices.shape == (6, 5)
    assert (indices != np.arange(6)[:, None]).all()
    assert (distances == 0).all()


def test_weights_are_those_of_the_formula() -> None:
    rows = two_moons(20)
    indices, distances = nearest_others(rows, 4)
    W = gaussian_graph(indices, distances).toarray()
    expected = np.zeros((20, 20))
    for i in range(20):
        for j in indices[i]:
            ratio = np.sum((rows[i] - rows[j]) ** 2) / np.sum((rows[i] - rows[indices[i][-1]]) ** 2)
            expected[i, j] += np.exp(-4 * ratio) / 2
            expected[j, i] += np.exp(-4 * ratio) / 2
    np.testing.assert_allclose(W, expected, rtol=1e-4)


def test_components_are_joined_where_they_are_nearest() -> None:
    rows = np.r_[np.arange(8.0), 20 + np.arange(4.0), -30 - np.arange(3.0)][:, None]
    rows = rows.astype(np.float32)
    apart = gaussian_graph(*nearest_others(rows, 2))
    assert connected_components(apart, directed=False)[0] == 3
    joined = connected(apart, rows)
    assert connected_components(joined, directed=False)[0] == 1
    added = sparse.triu(joined - apart).tocoo()
    pairs = {(i, j) for i, j, w in zip(*added.coords, added.data, strict=True) if w}
    assert pairs == {(7, 8), (0, 12)}


# --- The equations -------------------------------------------------------------------------------


def test_laplace_solves_the_dense_system() -> None:
    W = graph_of(two_moons())
    Y = labels_of(60, {0: 0, 5: 0, 40: 1})
    L = np.diag(degrees(W)) - W.toarray()
    known = Y.any(1)
    u = laplace(W, Y, solver)
    expected = np.linalg.solve(L[np.ix_(~known, ~known)], -L[np.ix_(~known, known)] @ Y[known])
    np.testing.assert_allclose(u[~known], expected, atol=1e-7)
    np.testing.assert_array_equal(u[known], Y[known])
    np.testing.assert_allclose(u.sum(1), 1, atol=1e-7)


def test_poisson_solves_its_equation() -> None:
    W = graph_of(two_moons())
    Y = labels_of(60, {0: 0, 5: 0, 40: 1})
    u = poisson(W, Y, solver)
    L = np.diag(degrees(W)) - W.toarray()
    source = np.zeros((60, 2))
    mean = np.array([2 / 3, 1 / 3])
    source[0], source[5], source[40] = ([1, 0] - mean), ([1, 0] - mean), ([0, 1] - mean)
    np.testing.assert_allclose(sources(Y), source)
    np.testing.assert_allclose(L @ u, source, atol=1e-7)
    np.testing.assert_allclose(degrees(W) @ u, 0, atol=1e-7)


def test_one_label_a_class_tells_the_moons_better_apart_than_distance_does() -> None:
    rows, truth = two_moons(400), np.repeat([0, 1], 200)
    labelled = [10, 245]
    nearest = np.linalg.norm(rows[:, None] - rows[labelled], axis=2).argmin(1)
    W, Y = graph_of(rows, k=5), labels_of(400, {10: 0, 245: 1})
    spread = poisson(W, Y, solver).argmax(1)
    assert (spread == truth).mean() > (nearest == truth).mean() + 0.05


def test_all_labelled_is_what_laplace_gives_back() -> None:
    W, Y = graph_of(two_moons(20)), labels_of(20, {i: i % 2 for i in range(20)})
    np.testing.assert_array_equal(laplace(W, Y, solver), Y)


def test_a_solver_that_is_late_says_so() -> None:
    W, Y = graph_of(two_moons()), labels_of(60, {0: 0, 40: 1})
    with pytest.warns(UserWarning, match="within 1 iterations for 2 of 2 classes"):
        laplace(W, Y, lambda A, B: solve(A, B, 1e-9, 1))


# --- The decisions -------------------------------------------------------------------------------


@pytest.mark.parametrize("priors", [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
def test_volumes_are_the_priors(priors: list[float]) -> None:
    u = np.random.default_rng(0).normal([1.0, 0.0, 0.0], size=(5000, 3))
    won = with_volumes(u, np.array(priors)).argmax(1)
    np.testing.assert_allclose(np.bincount(won, minlength=3) / 5000, priors, atol=2e-3)


def test_weights_keep_the_order_within_a_class() -> None:
    u = np.random.default_rng(1).random((200, 3))
    scores = with_volumes(u, np.full(3, 1 / 3))
    for j in range(3):
        np.testing.assert_array_equal(scores[:, j].argsort(), u[:, j].argsort())


def test_mbo_is_the_plain_loop() -> None:
    W, Y, priors = graph_of(two_moons()), labels_of(60, {10: 0, 45: 1}), np.array([0.5, 0.5])
    u = poisson(W, Y, solver)
    found = poisson_mbo(W, Y, u, priors, n_outer=3, n_inner=4)
    L = np.diag(degrees(W)) - W.toarray()
    scores = with_volumes(u, priors)
    for _ in range(3):
        v = (scores == scores.max(1, keepdims=True)).astype(float)
        for _ in range(4):
            v = v - (L @ v - sources(Y)) / degrees(W).max()
        scores = with_volumes(v, priors)
    np.testing.assert_allclose(found, scores, atol=1e-9)


# --- As methods ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [Laplace, Poisson, PoissonMBO])
def test_fits_and_keeps_its_word(cls: type[Laplace]) -> None:
    X, y, truth = sample()
    fitted = cls(random_state=0, **SMOKE).fit(X, y)
    assert (fitted.labels_ == truth)[y == UNLABELLED].mean() > 0.4
    np.testing.assert_array_equal(fitted.predict(X), fitted.labels_)


@pytest.mark.parametrize("cls", [Laplace, Poisson, PoissonMBO])
def test_labels_of_one_class_alone_name_all_images(cls: type[Laplace]) -> None:
    """Poisson's sources would be zero, and so would be every score."""
    X, y, _ = sample()
    y = np.where(y == 3, 3, UNLABELLED)
    assert (cls(random_state=0, features="pixels").fit(X, y).labels_ == 3).all()


def test_simclr_graphs_share_the_search_with_scan() -> None:
    X, y, _ = sample()
    context = Recording()
    Laplace(random_state=0, **Laplace.schedules["smoke"]).fit(X, y, context)
    assert [(request.name, dict(request.params).get("k")) for request, _ in context.asked] == [
        ("simclr", None),
        ("neighbours", 20),
    ]


def test_priors_come_from_the_labels_or_are_equal() -> None:
    X, y, _ = sample()
    y = y.copy()
    y[np.flatnonzero(y == 0)[2:]] = UNLABELLED  # few of class 0
    shares = {}
    for priors in ("labels", "uniform"):
        fitted = PoissonMBO(random_state=0, priors=priors, **SMOKE).fit(X, y)
        shares[priors] = np.mean(fitted.labels_ == 0)
    assert shares["labels"] < shares["uniform"]
    assert abs(shares["uniform"] - 0.1) < 0.03


def test_needs_a_label() -> None:
    X, y, _ = sample()
    with pytest.raises(ValueError, match="Poisson learns from labelled instances and y holds none"):
        Poisson(**SMOKE).fit(X, np.full_like(y, UNLABELLED))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": "sift"}, "features is 'sift'; expected one of simclr, autoencoder, pixels"),
        ({"n_neighbors": 300}, "n_neighbors is 300 with 300 images; expected 1 to 299"),
        ({"tol": 0.0}, "tol is 0.0, max_iter is 2000; expected"),
        ({"priors": "true"}, "priors is 'true'; expected one of labels, uniform"),
        ({"n_inner": 0}, "n_outer is 20, n_inner 0; expected at least 1"),
    ],
)
def test_refuses(wrong: dict[str, object], message: str) -> None:
    X, y, _ = sample()
    with pytest.raises(ValueError, match=message):
        PoissonMBO(**(wrong)).fit(X, y)


# --- The peer ------------------------------------------------------------------------------------


def test_same_accuracy_as_graphlearning() -> None:
    peer = pytest.importorskip(
        "graphlearning", reason="the peer: pip install graphlearning (it is compiled)"
    ).ssl
    rows, truth = sample_rows()
    W = graph_of(rows, k=10)
    labelled = np.concatenate([np.flatnonzero(truth == c)[:3] for c in range(10)])
    Y = labels_of(len(rows), {i: truth[i] for i in labelled}, K=10)
    theirs = sparse.csr_matrix(W)
    u = poisson(W, Y, solver)
    for model, ours in ((peer.laplace(theirs), laplace(W, Y, solver)), (peer.poisson(theirs), u)):
        said = model.fit_predict(labelled, truth[labelled])
        assert (said == ours.argmax(1)).mean() > 0.995
    priors = np.full(10, 0.1)
    mbo = poisson_mbo(W, Y, u, priors, 20, 40).argmax(1)
    said = peer.poisson_mbo(theirs, priors).fit_predict(labelled, truth[labelled])
    assert abs((mbo == truth).mean() - (said == truth).mean()) < 0.03


def sample_rows() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y
