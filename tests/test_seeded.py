"""k-means with seeds, members and pairs: each beside a plain loop from its paper."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from contexts import Recording
from fixed_fits import sample
from scipy.spatial.distance import cdist
from sklearn.base import clone

from methods.baselines import FeatureKMeans
from methods.method import UNLABELLED, Context, derive_seed
from methods.registry import get
from methods.seeded import (
    ConstrainedKMeans,
    Pairs,
    PCKMeans,
    SeededKMeans,
    cluster_means,
    costs_of,
    draw_pairs,
    icm,
    large_and_apart,
    neighbourhoods,
)
from methods.toolkit.naming import cluster_of_each_class

PIXELS = {"features": "pixels", "random_state": 0, "n_init": 2}
WITH_LABELS = [SeededKMeans, ConstrainedKMeans, PCKMeans]
NAMES = {"seeded-kmeans": SeededKMeans, "constrained-kmeans": ConstrainedKMeans}
NAMES |= {"pckmeans": PCKMeans}


def wrongly_labelled() -> tuple[np.ndarray, np.ndarray]:
    """300 digits, and 60 labels of which every fourth is wrong."""
    X, y, _ = sample()
    wrong = np.flatnonzero(y != UNLABELLED)[::4]
    y[wrong] = (y[wrong] + 1) % 10
    return X, y


def rows_of(X: np.ndarray) -> np.ndarray:
    return X.reshape(len(X), -1) / 255


def greys(*values: int) -> np.ndarray:
    """8×8 images of one grey each."""
    return np.array(values, dtype=np.uint8)[:, None, None] * np.ones((8, 8), dtype=np.uint8)


def nearest_by_loop(x: np.ndarray, mu: np.ndarray) -> np.ndarray:
    return np.array([np.argmin([((row - centre) ** 2).sum() for centre in mu]) for row in x])


# Seeds and members


@pytest.mark.parametrize("constrained", [False, True])
def test_it_is_the_algorithm_of_the_paper(constrained: bool) -> None:
    """Basu et al. 2002, figures 1 and 2, until nothing moves."""
    X, y = wrongly_labelled()
    x, before = rows_of(X), None
    mu = [x[y == h].mean(0) for h in range(10)]
    while True:
        clusters = nearest_by_loop(x, np.array(mu))
        if constrained:
            for i in range(len(x)):
                if y[i] != UNLABELLED:
                    clusters[i] = y[i]
        if before is not None and (clusters == before).all():
            break
        mu = [x[clusters == h].mean(0) for h in range(10)]
        before = clusters
    cls = ConstrainedKMeans if constrained else SeededKMeans
    fitted = cls(**PIXELS, tol=0).fit(X, y)
    np.testing.assert_allclose(fitted.cluster_centers_, mu, atol=1e-5)
    np.testing.assert_array_equal(fitted.labels_, nearest_by_loop(x, np.array(mu)))
    if constrained:
        np.testing.assert_array_equal(fitted.constrained_labels_, clusters)
        assert (fitted.labels_ != clusters).any()  # the wrong labels do not stand
    else:
        np.testing.assert_array_equal(fitted.labels_, clusters)


def test_one_iteration_starts_from_the_means_of_the_classes() -> None:
    X, y = wrongly_labelled()
    x = rows_of(X)
    clusters = nearest_by_loop(x, np.array([x[y == h].mean(0) for h in range(10)]))
    fitted = SeededKMeans(**PIXELS, max_iter=1).fit(X, y)
    expected = [x[clusters == h].mean(0) for h in range(10)]
    np.testing.assert_allclose(fitted.cluster_centers_, expected, atol=1e-5)


def test_it_ends_when_the_centres_move_less_than_the_tolerance() -> None:
    X, y = wrongly_labelled()
    x, context = rows_of(X), Recording()
    SeededKMeans(**PIXELS, tol=0.02).fit(X, y, context)
    n_iter = len(context.history)
    centres = [
        SeededKMeans(**PIXELS, tol=0, max_iter=m).fit(X, y).cluster_centers_
        for m in range(1, n_iter + 1)
    ]
    moves = [np.square(b - a).sum() for a, b in pairwise(centres)]
    assert n_iter > 2
    assert moves[-1] <= 0.02 * x.var(0).mean() < min(moves[:-1])
    assert context.steps == [("iteration", i, 300) for i in range(1, n_iter + 1)]


@pytest.mark.parametrize("cls", WITH_LABELS)
def test_cluster_j_is_class_j(cls: type[SeededKMeans]) -> None:
    """Three greys in one order, their classes in another."""
    X = greys(*[10] * 5, *[120] * 5, *[240] * 5)
    truth = np.repeat([2, 0, 1], 5)
    y = np.where(np.arange(15) % 5 < 2, truth, UNLABELLED)
    fitted = cls(**PIXELS, n_clusters=3).fit(X, y)
    assert fitted.labels_.tolist() == truth.tolist()
    assert fitted.labels_.dtype == np.int64
    assert fitted.predict(greys(0, 130, 255)).tolist() == [2, 0, 1]
    centres = np.array([120, 240, 10])[:, None] / 255 * np.ones(64)
    np.testing.assert_allclose(fitted.cluster_centers_, centres, rtol=1e-5)


# Classes without labels


@pytest.mark.parametrize("cls", WITH_LABELS)
@pytest.mark.parametrize("seed", range(4))
def test_a_class_without_labels_starts_away_from_the_others(
    cls: type[SeededKMeans], seed: int
) -> None:
    X = greys(*[0] * 20, *[100] * 20, 255)
    y = np.full(41, UNLABELLED)
    y[:3], y[20:23] = 0, 2
    fitted = cls(**PIXELS | {"random_state": seed}, n_clusters=3).fit(X, y)
    assert fitted.labels_.tolist() == [0] * 20 + [2] * 20 + [1]


def test_it_is_drawn_in_proportion_to_the_squared_distance() -> None:
    """Unlabelled rows at distances 1 and 3 from the nearest centre: 1 to 9."""
    x = np.array([[0.0], [10], [1], [13]], dtype=np.float32)
    clusters = np.array([0, 2, -1, -1])
    drawn = [
        SeededKMeans(n_clusters=3, random_state=seed)._first_centres(x, clusters).ravel().tolist()
        for seed in range(400)
    ]
    assert {(a, c) for a, _, c in drawn} == {(0.0, 10.0)}
    counts = Counter(b for _, b, _ in drawn)
    assert counts.keys() == {1.0, 13.0}
    assert 0.85 < counts[13.0] / 400 < 0.95


def test_more_than_one_is_drawn_and_each_counts_for_the_next() -> None:
    """The second of two finds the first one's place taken."""
    x = np.array([[0.0], [5], [5], [5], [-5], [-5]], dtype=np.float32)
    clusters = np.array([1, -1, -1, -1, -1, -1])
    for seed in range(20):
        mu = SeededKMeans(n_clusters=3, random_state=seed)._first_centres(x, clusters)
        assert sorted(mu.ravel().tolist()) == [-5, 0, 5]


@pytest.mark.parametrize("cls", WITH_LABELS)
def test_it_is_drawn_from_all_if_all_are_labelled_or_alike(cls: type[SeededKMeans]) -> None:
    X, _, truth = sample()
    y = np.minimum(truth, 7)
    fitted = cls(**PIXELS).fit(X, y)
    assert set(y[fitted.labels_ >= 8]) <= set(range(8))
    same = cls(**PIXELS, n_clusters=3).fit(greys(*[7] * 9), np.repeat([0, -1, -1], 3))
    np.testing.assert_allclose(same.cluster_centers_, 7 / 255, rtol=1e-6)


def test_a_cluster_without_members_keeps_its_centre() -> None:
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    mu = np.full((4, 2), 99.0)
    clusters = np.array([3, 0, -1, 3, 0, 3])
    expected = [x[[1, 4]].mean(0), [99, 99], [99, 99], x[[0, 3, 5]].mean(0)]
    assert cluster_means(x, clusters, mu).tolist() == np.array(expected).tolist()
    assert cluster_means(x, np.full(6, -1), mu).tolist() == mu.tolist()


# Pairs


def pairs_of(y: np.ndarray) -> list[tuple[int, int, bool]]:
    """All pairs of labelled instances."""
    return [(i, j, y[i] == y[j]) for i, j in combinations(np.flatnonzero(y >= 0), 2)]


def as_pairs(listed: list[tuple[int, int, bool]]) -> Pairs:
    return Pairs(*(np.array(column) for column in zip(*listed, strict=True)))


def objective(
    x: np.ndarray,
    mu: np.ndarray,
    clusters: np.ndarray,
    pairs: list[tuple[int, int, bool]],
    w: float,
) -> float:
    """That of PCKMeans (Basu et al. 2004), with all weights w."""
    total = sum(((x[i] - mu[clusters[i]]) ** 2).sum() / 2 for i in range(len(x)))
    for i, j, must in pairs:
        if must and clusters[i] != clusters[j]:
            total += w
        if not must and clusters[i] == clusters[j]:
            total += w
    return total


def test_all_pairs_are_drawn_where_there_are_no_more() -> None:
    y = np.array([-1, 2, 0, -1, 2, 1, 2])
    drawn = draw_pairs(y, 10, np.random.default_rng(0))
    assert {(j, i, must) for i, j, must in zip(*drawn, strict=True)} == set(pairs_of(y))
    assert len(drawn.i) == 10


def test_otherwise_all_are_equally_likely() -> None:
    y, drawing = np.array([0, 1, 0, -1, 1, 0]), np.random.default_rng(0)
    counts: Counter[tuple[int, int, bool]] = Counter()
    for _ in range(2000):
        drawn = draw_pairs(y, 3, drawing)
        one = {(int(j), int(i), bool(must)) for i, j, must in zip(*drawn, strict=True)}
        assert len(one) == 3
        counts.update(one)
    assert counts.keys() == set(pairs_of(y))
    assert max(abs(count / 2000 - 0.3) for count in counts.values()) < 0.05


def test_pairs_of_many_are_pairs_of_two() -> None:
    y = np.zeros(70_000, dtype=int)
    drawn = draw_pairs(y, 1000, np.random.default_rng(0))
    assert ((drawn.j >= 0) & (drawn.j < drawn.i) & (drawn.i < 70_000)).all()
    assert len(set(zip(drawn.i.tolist(), drawn.j.tolist(), strict=True))) == 1000
    assert drawn.i.max() > 69_000


def test_neighbourhoods_are_what_must_links_connect() -> None:
    links = [(1, 3, True), (3, 8, True), (2, 4, True), (1, 2, False), (6, 8, False)]
    found = neighbourhoods(as_pairs(links), 10)
    assert found.tolist() == [-1, 0, 1, 0, 1, -1, 2, -1, 0, -1]


def test_large_neighbourhoods_that_are_apart_are_chosen() -> None:
    """By hand: 2 is the largest; then 4·5 of 0 is most; then 1·14 of 1, before 3·1 of 3."""
    members = np.array([2] * 5 + [0] * 4 + [3] * 3 + [1] + [-1] * 2)
    x = np.repeat([0.0, 5, 1, 19, 50], [5, 4, 3, 1, 2])[:, None].astype(np.float32)
    expected = np.array([0] * 5 + [1] * 4 + [-1] * 3 + [2] + [-1] * 2)
    assert large_and_apart(x, members, 3).tolist() == expected.tolist()
    assert large_and_apart(x, members, 4) is members
    assert large_and_apart(np.zeros((15, 1), np.float32), members, 3).max() == 2


@pytest.mark.parametrize("start", ["none", "some", "all"])
@pytest.mark.parametrize("w", [0.0, 0.3, 5.0])
def test_icm_is_the_loop_of_the_paper(start: str, w: float) -> None:
    """Assignment in PCKMeans, one after the other; pairs with a row of no cluster do not count."""
    drawing = np.random.default_rng(3)
    costs = drawing.random((40, 4))
    y = np.where(np.arange(40) < 25, drawing.integers(4, size=40), UNLABELLED)
    pairs = [pairs_of(y)[number] for number in drawing.choice(300, 90, replace=False)]
    order = drawing.permutation(sorted({i for pair in pairs for i in pair[:2]}))
    before = drawing.integers(4, size=40)
    before[{"none": slice(None), "some": slice(0, 40, 2), "all": slice(0, 0)}[start]] = -1
    expected = before.copy()
    expected[np.setdiff1d(np.arange(40), order)] = -1
    for i in [*order, *np.setdiff1d(np.arange(40), order)]:
        total = []
        for h in range(4):
            cost = costs[i, h]
            for a, b, must in pairs:
                other = expected[b if a == i else a]
                if i in (a, b) and other != -1:
                    cost += w * (must and other != h) + w * (not must and other == h)
            total.append(cost)
        expected[i] = np.argmin(total)
    given = before.copy()
    found = icm(costs, given, as_pairs(pairs).links(40), w, order)
    assert found.tolist() == expected.tolist()
    assert (given == before).all()  # what was given stays


@pytest.mark.parametrize("w", [0.05, 1.0, 30.0])
def test_the_objective_never_rises(w: float) -> None:
    """After assignments it is logged; after the centres moved it is computed here."""
    X, y = wrongly_labelled()
    x, context = rows_of(X), Recording()
    params = PIXELS | {"tol": 0, "w": w, "n_pairs": 500}
    PCKMeans(**params).fit(X, y, context)
    logged = [row["objective"] for row in context.history]
    drawing = np.random.default_rng(derive_seed(0, "pairs"))
    pairs = list(zip(*draw_pairs(y, 500, drawing), strict=True))
    assert len(logged) > 2
    sequence = []
    for m, value in enumerate(logged[:4], start=1):
        fitted = PCKMeans(**params, max_iter=m).fit(X, y)
        moved = objective(x, fitted.cluster_centers_, fitted.constrained_labels_, pairs, w)
        sequence += [value, moved]
    sequence += logged[4:]
    assert all(b <= a * (1 + 1e-6) for a, b in pairwise(sequence))
    # The last assignment moved nothing: what was logged is the objective of what is left.
    fitted = PCKMeans(**params).fit(X, y)
    last = objective(x, fitted.cluster_centers_, fitted.constrained_labels_, pairs, w)
    assert logged[-1] == pytest.approx(last, rel=1e-5)


def test_nor_does_that_of_the_other_two() -> None:
    X, y = wrongly_labelled()
    for cls in (SeededKMeans, ConstrainedKMeans):
        context = Recording()
        fitted = cls(**PIXELS, tol=0).fit(X, y, context)
        logged = [row["objective"] for row in context.history]
        assert all(b <= a * (1 + 1e-6) for a, b in pairwise(logged))
        own = getattr(fitted, "constrained_labels_", fitted.labels_)
        last = objective(rows_of(X), fitted.cluster_centers_, own, [], 0)
        assert logged[-1] == pytest.approx(last, rel=1e-5)


def test_expensive_pairs_are_kept_and_cheap_ones_do_not_matter() -> None:
    X, y, _ = sample()
    labelled = y != UNLABELLED
    strict = PCKMeans(**PIXELS, w=1e4).fit(X, y)
    np.testing.assert_array_equal(strict.constrained_labels_[labelled], y[labelled])
    assert (strict.labels_[labelled] != y[labelled]).any()
    free = PCKMeans(**PIXELS, w=0, tol=0).fit(X, y)
    np.testing.assert_array_equal(free.constrained_labels_, free.labels_)
    # All pairs of a class connect it: free of pairs it is seeded k-means.
    np.testing.assert_array_equal(free.labels_, SeededKMeans(**PIXELS, tol=0).fit(X, y).labels_)


def test_a_class_does_not_follow_its_first_instances() -> None:
    """Its two instances on the other's side are led back by the four that started at home."""
    X = greys(*[50] * 4, 140, 141, *[200] * 6, *[40] * 9, *[210] * 9)
    y = np.array([0] * 6 + [1] * 6 + [-1] * 18)
    for seed in range(10):
        fitted = PCKMeans(**PIXELS | {"random_state": seed}, n_clusters=2, w=100).fit(X, y)
        assert fitted.constrained_labels_.tolist() == [0] * 6 + [1] * 6 + [0] * 9 + [1] * 9


@pytest.mark.parametrize("given", [{"n_pairs": 0}, {"n_pairs": 1}, {"n_pairs": 40}])
def test_few_pairs_are_possible(given: dict[str, int]) -> None:
    X, y, truth = sample()
    fitted = PCKMeans(**PIXELS, **given).fit(X, y)
    assert (fitted.labels_ == truth).mean() > 0.5
    own = cluster_of_each_class(y, fitted.labels_, 10)
    assert own.tolist() == list(range(10))  # no other names fit better
    one = np.full_like(y, UNLABELLED)
    one[5] = truth[5]
    fitted = PCKMeans(**PIXELS, **given).fit(X, one)
    assert fitted.labels_[5] == truth[5]


def test_pairs_depend_on_the_seed() -> None:
    X, y = wrongly_labelled()
    params = PIXELS | {"n_pairs": 100}
    first = PCKMeans(**params).fit(X, y)
    other = PCKMeans(**params | {"random_state": 1}).fit(X, y)
    assert (first.constrained_labels_ != other.constrained_labels_).any()


# Without any label


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("y", [None, np.full(300, UNLABELLED)])
def test_without_labels_it_is_k_means(name: str, y: np.ndarray | None) -> None:
    X, labels, _ = sample()
    assert get(name).cls is NAMES[name]
    assert get(name).tags.without_labels == "simclr-kmeans"
    assert get("simclr-kmeans").cls is FeatureKMeans
    theirs = FeatureKMeans(**PIXELS).fit(X)
    ours = NAMES[name](**PIXELS).fit(X, labels).fit(X, y)  # it forgets what it was fitted on before
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_array_equal(ours.cluster_centers_, theirs.cluster_centers_)
    np.testing.assert_array_equal(ours.predict(255 - X), theirs.predict(255 - X))
    if name != "seeded-kmeans":
        np.testing.assert_array_equal(ours.constrained_labels_, theirs.labels_)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schedule", ["paper", "quick", "smoke"])
def test_it_is_k_means_with_the_same_parameters(name: str, schedule: str) -> None:
    ours, theirs = get(name).build(schedule), get("simclr-kmeans").build(schedule)
    assert theirs.get_params().items() <= ours.get_params().items()
    assert ours.stages(0) == ours.stages(700) == theirs.stages(0)


# Features, new images, parameters


@pytest.mark.parametrize("cls", [FeatureKMeans, *WITH_LABELS])
@pytest.mark.parametrize("features", ["simclr", "autoencoder", "pixels"])
def test_new_images_go_to_the_nearest_centre(cls: type[FeatureKMeans], features: str) -> None:
    X, y, _ = sample()
    params = get("pckmeans").parameters("smoke", features=features, random_state=0)
    params |= {"autoencoder_epochs": 1, "simclr_epochs": 1}
    params = {name: params[name] for name in cls().get_params()}
    fitted = cls(**params).fit(X[:250], y[:250])
    np.testing.assert_array_equal(fitted.predict(X[:250]), fitted.labels_)
    distances = cdist(fitted.transform(X[250:]), fitted.cluster_centers_)
    chosen = distances[np.arange(50), fitted.predict(X[250:])]
    np.testing.assert_allclose(chosen, distances.min(1), rtol=1e-5)


def test_costs_are_half_the_squared_distances() -> None:
    drawing = np.random.default_rng(0)
    x, mu = drawing.normal(size=(30, 5)), drawing.normal(size=(4, 5))
    np.testing.assert_allclose(costs_of(x, mu), cdist(x, mu) ** 2 / 2, rtol=1e-10)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": "sift"}, "features is 'sift'; expected one of simclr, autoencoder, pixels"),
        ({"n_clusters": 301}, "n_clusters is 301 for 300 images; expected 1 to 300"),
        ({"n_init": 0}, "n_init is 0; expected at least 1"),
        ({"max_iter": 0}, "max_iter is 0; expected a finite number, at least 1"),
        ({"tol": -0.1}, "tol is -0.1; expected a finite number, at least 0"),
        ({"w": float("nan")}, "w is nan; expected a finite number, at least 0"),
        ({"w": float("inf")}, "w is inf; expected a finite number, at least 0"),
        ({"n_pairs": -1}, "n_pairs is -1; expected a finite number, at least 0"),
    ],
)
def test_refuses(wrong: dict[str, Any], message: str) -> None:
    X, y, _ = sample()
    with pytest.raises(ValueError, match=message):
        PCKMeans(**PIXELS | wrong).fit(X, y)


def test_refuses_labels_of_other_clusters() -> None:
    X, y, _ = sample()
    with pytest.raises(ValueError, match="labels from -1 to 9"):
        SeededKMeans(**PIXELS, n_clusters=5).fit(X, y, Context())


def test_it_is_a_scikit_learn_estimator() -> None:
    method = PCKMeans(**PIXELS, w=0.5, n_pairs=7, n_clusters=4)
    assert clone(method).get_params() == method.get_params()
