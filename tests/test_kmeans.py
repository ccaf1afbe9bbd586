"""The k-means stage: what any k-means must satisfy, and what this one promises on top."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from contexts import Recording, killed_and_resumed
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from methods.method import Context
from methods.toolkit.draws import generator
from methods.toolkit.fast import lloyd
from methods.toolkit.fast.lloyd import (
    Lloyd,
    Projection,
    distances,
    near_leading_directions,
    project,
)
from methods.toolkit.rows import as_rows, kmeans_of_rows
from methods.toolkit.stages.kmeans import kmeans, nearest, seed_centres

DIGITS = (load_digits().images * 15.9).astype(np.uint8)[:400]  # (400, 8, 8)


def cluster(X: np.ndarray = DIGITS, seed: int = 0, context: Context | None = None, **params):
    return kmeans(X, random_state=seed, context=context or Context(), **{"n_clusters": 8} | params)


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def all_distances(X: np.ndarray, centres: np.ndarray) -> np.ndarray:
    rows = as_rows(X).astype(np.float64)
    return np.linalg.norm(rows[:, None] - centres.astype(np.float64), axis=2)  # (n, k)


def begun(rows: torch.Tensor, centres: torch.Tensor, projected: bool) -> Lloyd:
    """Lloyd's iterations from first centres ``(R, k, d)``, with or without bounds."""
    found = Lloyd(rows, Projection.of(rows) if projected else None)
    found.begin(centres)
    return found


def step(rows: torch.Tensor, centres: torch.Tensor, projected: bool = False) -> torch.Tensor:
    found = begun(rows, centres[None], projected)
    found.update()
    return found.state["centres"][0]


def brute_force(rows: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Labels by the distances that the bounds are to save, all of them; of equal ones the first."""
    n, k = len(rows), len(centres)
    which, to = torch.arange(n).repeat_interleave(k), torch.arange(k).repeat(n)
    return distances(rows, which, centres, to).view(n, k).argmin(1)


def test_shapes_and_types():
    found = cluster()
    facts = {name: (array.shape, array.dtype) for name, array in found.items()}
    assert facts == {
        "centres": ((8, 64), np.float32),
        "labels": ((400,), np.int64),
        "distances": ((400,), np.float32),
        "inertia": ((), np.float64),
        "n_iter": ((), np.int64),
    }


@pytest.mark.parametrize("params", [{}, {"max_iter": 1}, {"n_clusters": 1}, {"n_clusters": 90}])
def test_labels_are_the_nearest_centres(params):
    found = cluster(**params)
    distances = all_distances(DIGITS, found["centres"])
    own = distances[np.arange(len(DIGITS)), found["labels"]]
    np.testing.assert_allclose(own, distances.min(1), atol=1e-5)
    np.testing.assert_allclose(found["distances"], own, atol=1e-5)
    np.testing.assert_allclose(found["inertia"], (own**2).sum(), rtol=1e-5)


def test_centres_are_means_where_it_has_converged():
    found = cluster(tol=0)
    rows = as_rows(DIGITS)
    means = [rows[found["labels"] == j].mean(0) for j in range(8)]
    np.testing.assert_allclose(found["centres"], means, atol=1e-5)
    assert found["n_iter"] < 300


def test_inertia_falls_with_every_iteration():
    inertia = [cluster(max_iter=t, tol=0)["inertia"] for t in range(1, 12)]
    assert (np.diff(inertia) <= 1e-6 * inertia[0]).all()
    assert inertia[-1] < 0.99 * inertia[0]


def test_inertia_falls_with_more_clusters():
    inertia = [cluster(n_clusters=k, n_init=2)["inertia"] for k in (1, 2, 4, 8, 16, 32, 64)]
    assert (np.diff(inertia) < 0).all()


def test_no_run_of_several_is_better_than_the_result():
    best = cluster(n_init=4)["inertia"]
    assert best <= cluster(n_init=1)["inertia"]
    assert best < max(cluster(n_init=1, seed=seed)["inertia"] for seed in range(6))


def test_finds_clusters_that_lie_apart():
    truth = np.repeat(np.arange(5), 40)
    points = np.random.default_rng(0).normal(size=(200, 3)) + 100 * truth[:, None]
    found = cluster(points, n_clusters=5)["labels"]
    assert len({(a, b) for a, b in zip(truth, found, strict=True)}) == 5


def test_as_good_as_scikit_learn():
    theirs = KMeans(8, n_init=10, random_state=0).fit(as_rows(DIGITS)).inertia_
    assert cluster(n_init=10)["inertia"] == pytest.approx(theirs, rel=0.01)


def test_from_the_same_centres_a_step_is_scikit_learn_s():
    rows = as_rows(DIGITS)
    theirs = KMeans(8, init=rows[:8], n_init=1, max_iter=1).fit(rows)
    ours = step(torch.from_numpy(rows), torch.from_numpy(rows[:8]))
    np.testing.assert_allclose(ours, theirs.cluster_centers_, atol=1e-5)


@pytest.mark.parametrize("projected", [False, True])
def test_an_empty_cluster_moves_to_the_instance_farthest_from_its_centre(projected):
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 8.0], [1.0, 1.0]])
    centres = torch.tensor([[0.0, 0.0], [90.0, 90.0]])
    moved = step(rows, centres, projected)
    torch.testing.assert_close(moved, torch.tensor([[2 / 3, 1 / 3], [0.0, 8.0]]))


def test_fewer_distinct_instances_than_clusters():
    found = cluster(DIGITS[[0, 1, 2] * 5], n_clusters=6)
    assert np.isfinite(found["centres"]).all()
    assert found["inertia"] == pytest.approx(0, abs=1e-8)


def test_every_instance_a_cluster():
    found = cluster(DIGITS[:30], n_clusters=30)
    assert sorted(found["labels"]) == list(range(30))
    assert found["inertia"] == pytest.approx(0, abs=1e-8)


def test_images_are_rows_of_pixels_between_0_and_1():
    rows = DIGITS.reshape(400, -1).astype(np.float64) / 255
    assert equal(cluster(), cluster(rows))
    colour = np.repeat(DIGITS[..., None], 3, axis=3)
    assert cluster(colour)["centres"].shape == (8, 192)


def test_first_centres_are_distinct_instances():
    rows = torch.from_numpy(as_rows(DIGITS))
    centres = seed_centres(rows, 20, generator(0), Context())
    which, distances = nearest(centres.numpy(), rows.numpy())
    assert (distances == 0).all()
    assert len(set(which)) == 20


def test_first_centres_lie_better_than_random_instances():
    rows = torch.from_numpy(as_rows(DIGITS))

    def potential(centres: torch.Tensor) -> float:
        return float(torch.cdist(rows, centres).min(1).values.square().sum())

    chosen = potential(seed_centres(rows, 20, generator(0), Context()))
    assert chosen < min(
        potential(rows[torch.randperm(400, generator=generator(i))[:20]]) for i in range(20)
    )


def test_a_far_instance_is_drawn_as_a_first_centre():
    rows = torch.zeros(1000, 2)
    rows[77] = 1e3  # all others lie on the first centre: their probability is 0
    for seed in range(5):
        assert 1e3 in seed_centres(rows, 2, generator(seed), Context())


@pytest.fixture(params=[1, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_the_same_seed_gives_the_same_result(threads):
    rows = np.random.default_rng(0).random((3000, 16), dtype=np.float32)
    first = cluster(rows, n_clusters=20, max_iter=20, tol=0)
    assert all(equal(first, cluster(rows, n_clusters=20, max_iter=20, tol=0)) for _ in range(3))


def test_another_seed_gives_another_result():
    assert not np.array_equal(cluster(seed=0)["labels"], cluster(seed=1)["labels"])


def test_it_leaves_the_state_of_torch_and_numpy_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    cluster()
    assert (torch.rand(1), np.random.rand()) == expected


def test_progress_counts_centres_then_iterations():
    context = Recording()
    cluster(context=context, max_iter=3, tol=0)
    seeding = [("centre", i, 8) for i in range(2, 9)]
    assert context.steps == seeding + [("iteration", i, 3) for i in (1, 2, 3)]


@given(
    rows=arrays.arrays(np.float32, (17, 3), elements=st.floats(-8, 8, width=32)),
    centres=arrays.arrays(np.float32, (4, 3), elements=st.floats(-8, 8, width=32)),
    block=st.integers(1, 20),
)
def test_nearest(rows, centres, block):
    labels, distances = nearest(rows, centres, block)
    by_hand = all_distances(rows, centres)
    np.testing.assert_allclose(by_hand[np.arange(17), labels], by_hand.min(1), atol=5e-3)
    np.testing.assert_allclose(distances, by_hand[np.arange(17), labels], atol=1e-5)


def test_nearest_of_new_images():
    found = cluster(DIGITS[:300])
    labels, distances = nearest(DIGITS[:300], found["centres"])
    assert np.array_equal(labels, found["labels"])
    assert np.array_equal(distances, found["distances"])
    new = nearest(DIGITS[300:], found["centres"])[0]
    assert np.array_equal(new, all_distances(DIGITS[300:], found["centres"]).argmin(1))


def test_read_only_input_stays_as_it_is():
    rows = as_rows(DIGITS)
    rows.flags.writeable = False
    before = rows.copy()
    cluster(rows)
    assert np.array_equal(rows, before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_clusters": 401}, "n_clusters is 401 for 400 instances; expected 1 to 400"),
        ({"n_clusters": 0}, "n_clusters is 0 for 400 instances"),
        ({"n_init": 0}, "n_init is 0; expected at least 1"),
        ({"max_iter": 0}, "max_iter is 0; expected at least 1"),
        ({"tol": -1e-4}, "tol is -0.0001; expected at least 0"),
        ({"tol": float("nan")}, "tol is nan; expected at least 0"),
    ],
)
def test_parameters_out_of_range(wrong, message):
    with pytest.raises(ValueError, match=message):
        cluster(**wrong)


def test_rows_that_are_no_finite_numbers():
    rows = as_rows(DIGITS)
    rows[3, 5] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        cluster(rows)
    with pytest.raises(ValueError, match="expected uint8 images"):
        cluster(DIGITS.astype(int))


def test_centres_of_another_shape():
    with pytest.raises(ValueError, match="instances of 64 values and centres of 49"):
        nearest(DIGITS, np.zeros((3, 49)))


# ---- The bounds, the projection and the restarts: nothing but time may depend on them.

IMAGES = torch.from_numpy(as_rows(DIGITS) - as_rows(DIGITS).mean(0))


def few_values(draw_from: tuple[float, ...], shape: tuple[int, int]) -> st.SearchStrategy:
    return arrays.arrays(np.float32, shape, elements=st.sampled_from(draw_from))


@pytest.fixture(params=[2, 16, 64])
def directions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(lloyd, "DIRECTIONS", request.param)
    return request.param


@pytest.mark.parametrize("many", [0, 256])
@pytest.mark.parametrize("k", [1, 2, 9, 60])
def test_labels_by_bounds_are_those_of_all_distances(directions, k, many, monkeypatch):
    monkeypatch.setattr(lloyd, "MANY", many)
    found = begun(IMAGES, IMAGES[None, :k], projected=True)
    assert found.projection.basis.shape == (64, directions)
    for _ in range(12):
        centres, labels = found.state["centres"][0], found.state["labels"][0]
        assert torch.equal(labels, brute_force(IMAGES, centres))
        every = torch.cdist(IMAGES.double(), centres.double())
        own = every.gather(1, labels[:, None])[:, 0]
        others = every.scatter(1, labels[:, None], torch.inf).min(1).values
        assert (found.state["upper"][0] >= own - 1e-4).all()
        assert (found.state["lower"][0] <= others + 1e-4).all()
        found.update()
        found.assign()


@given(
    rows=few_values((-2.0, 0.0, 1.0, 1.5, 3.0), (24, 5)),
    first=st.lists(st.integers(0, 23), min_size=1, max_size=24),
    p=st.integers(1, 5),
)
@example(rows=np.ones((24, 5), np.float32), first=list(range(24)), p=2)
@example(rows=np.zeros((24, 5), np.float32), first=[0, 0, 0], p=1)
def test_bounds_hold_with_equal_rows_equal_centres_and_empty_clusters(rows, first, p):
    tensor = torch.from_numpy(rows)
    basis = torch.linalg.qr(torch.rand(5, p, generator=generator(p), dtype=torch.float64)).Q
    bounded = Lloyd(tensor, Projection(basis, project(tensor, basis)))
    bounded.begin(tensor[first][None])
    for _ in range(6):
        centres = bounded.state["centres"][0]
        assert torch.equal(bounded.state["labels"][0], brute_force(tensor, centres))
        bounded.update()
        members = torch.bincount(bounded.state["labels"][0], minlength=len(first))
        assert torch.equal(members, bounded.state["counts"][0])
        bounded.assign()


@settings(max_examples=40)
@given(
    rows=arrays.arrays(np.float32, (30, 4), elements=st.floats(-8, 8, width=16), unique=True),
    k=st.integers(1, 30),
    projected=st.booleans(),
    constant=st.booleans(),
)
def test_from_the_same_centres_the_result_is_scikit_learn_s(rows, k, projected, constant):
    rows[:, 0] = 1 if constant else rows[:, 0]
    tensor = torch.from_numpy(rows)
    theirs = KMeans(k, init=rows[:k], n_init=1, max_iter=40, tol=0).fit(rows)
    found = begun(tensor, tensor[None, :k], projected)
    for _ in range(theirs.n_iter_):
        found.update()
        found.assign()
    assert found.inertias([0])[0] == pytest.approx(theirs.inertia_, rel=1e-4, abs=1e-4)


def test_the_projection_never_makes_a_product_smaller(directions):
    short = Projection.of(IMAGES).rows.double()
    products = IMAGES.double() @ IMAGES.double().T
    assert (short @ short.T >= products - 1e-5).all()
    torch.testing.assert_close(short.norm(dim=1), IMAGES.double().norm(dim=1))


def test_the_bounds_save_most_distances(monkeypatch):
    looked_up = []

    def counting(rows, which, centres, to):
        looked_up.append(len(which))
        return distances(rows, which, centres, to)

    monkeypatch.setattr(lloyd, "distances", counting)
    found = begun(IMAGES, IMAGES[None, :40], projected=True)
    for _ in range(10):
        found.update()
        found.assign()
    assert 0 < sum(looked_up) < 0.2 * 11 * 400 * 40


@pytest.mark.parametrize("projected", [False, True])
def test_restarts_together_are_restarts_one_by_one(projected):
    first = torch.stack([IMAGES[i : i + 70 : 10] for i in range(5)])  # (5, 7, 64)
    together = begun(IMAGES, first, projected)
    alone = [begun(IMAGES, centres[None], projected) for centres in first]
    running = list(range(5))
    for t in range(8):
        shifts = together.update()
        together.assign()
        for place, run in enumerate(running):
            assert alone[run].update()[0] == pytest.approx(shifts[place], rel=1e-4)
            alone[run].assign()
            assert torch.equal(together.state["labels"][place], alone[run].state["labels"][0])
        if t in (2, 4):
            running.pop(1)
            together.keep([i for i in range(len(shifts)) if i != 1])
    assert together.inertias([0, 1, 2]) == pytest.approx(
        [alone[run].inertias([0])[0] for run in running]
    )


@pytest.mark.parametrize("projected", [False, True])
def test_sums_by_products_are_the_sums_by_addition(projected):
    first = torch.stack([IMAGES[:9], IMAGES[9:18]])
    found = begun(IMAGES, first, projected)
    by_addition = {name: found.state[name].clone() for name in ("sums", "counts")}
    found._add_all()  # what accelerators do
    torch.testing.assert_close(found.state["sums"], by_addition["sums"], atol=1e-4, rtol=1e-5)
    assert torch.equal(found.state["counts"], by_addition["counts"])


@pytest.mark.parametrize("n_clusters", [2, 30, 150])
def test_first_centres_do_not_depend_on_the_projection(n_clusters, directions):
    plain = seed_centres(IMAGES, n_clusters, generator(3), Context())
    quick = seed_centres(IMAGES, n_clusters, generator(3), Context(), Projection.of(IMAGES))
    assert torch.equal(plain, quick)


LONG = np.repeat(np.repeat(DIGITS, 2, axis=1), 2, axis=2)[:300]  # (300, 16, 16): long enough


def test_precision_makes_no_difference():
    for X in (DIGITS, LONG):
        bf16 = cluster(X, context=Context(precision="bf16"), n_clusters=20)
        assert equal(bf16, cluster(X, n_clusters=20))


@pytest.mark.parametrize("lives", [63, 66, 70])
def test_a_resumed_run_with_bounds_equals_an_undisturbed_one(lives):
    """Killed after 62 events of seeding: states of 2 runs and 60 centres, then 2 an iteration."""
    params = {"n_init": 2, "max_iter": 9, "tol": 0, "n_clusters": 31}
    expected = cluster(LONG, **params)
    found, context = killed_and_resumed(lambda c: cluster(LONG, context=c, **params), lives)
    assert equal(found, expected)
    assert context.steps[0] == ("iteration", (lives - 62 + 1) // 2, 9)


def test_a_run_killed_while_seeding_keeps_the_first_centres_that_it_has():
    """In the second of three runs: a state and four centres each."""
    params = {"n_init": 3, "n_clusters": 5}
    found, context = killed_and_resumed(lambda c: cluster(context=c, **params), 10)
    assert equal(found, cluster(**params))
    assert sum(what == "centre" for what, _, _ in context.steps) == 2 * 4


# ---- k-means on rows of few columns, an embedding say.


@pytest.mark.parametrize("seed", [0, 2**62])
def test_k_means_of_rows_does_not_depend_on_threads(seed):
    rows = np.random.default_rng(0).random((3000, 10), dtype=np.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 4, 4, 3):
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                found.append(kmeans_of_rows(rows, 20, 2, seed))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert np.array_equal(found[0].centres, other.centres)
        assert np.array_equal(found[0].labels, other.labels)
    assert not np.array_equal(found[0].centres, kmeans_of_rows(rows, 20, 2, seed + 1).centres)


def test_k_means_of_rows_gives_centres_and_the_nearest_of_them():
    rows = as_rows(DIGITS)
    before = rows.copy()
    found = kmeans_of_rows(rows, 8, 5, seed=0)
    assert (found.centres.dtype, found.labels.dtype) == (np.float32, np.int64)
    assert np.array_equal(found.labels, nearest(rows, found.centres)[0])
    inertia = np.square(rows - found.centres[found.labels]).sum()
    assert inertia == pytest.approx(cluster(n_init=5)["inertia"], rel=0.02)
    assert np.array_equal(rows, before)


@pytest.mark.parametrize("n_clusters", [0, 401])
def test_k_means_of_rows_refuses_a_number_of_clusters(n_clusters):
    with pytest.raises(ValueError, match=f"n_clusters is {n_clusters} for 400 instances"):
        kmeans_of_rows(as_rows(DIGITS), n_clusters, 1, 0)


# Medium images


def medium(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows ``(n, d)`` of five clusters in a space of twenty directions, and noise."""
    draws = np.random.default_rng(seed)
    centres, directions = draws.normal(size=(5, 20)), draws.normal(size=(20, d))
    places = centres[np.arange(n) % 5] + 0.3 * draws.normal(size=(n, 20))
    return (places @ directions + 0.1 * draws.normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize("shape", [(60, 3072), (300, 3072), (1500, 3072), (40, 27_648)])
def test_long_rows_take_no_square_matrix(shape, monkeypatch):
    """Eigenvectors of d × d took 23 s for 300 images of 32×32×3, and were stopped at 96×96×3."""
    rows = medium(*shape)

    def refuse(*args: object) -> None:
        raise AssertionError("a d × d eigendecomposition")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    found = cluster(rows, n_clusters=5, n_init=3)
    assert np.array_equal(found["labels"], nearest(rows, found["centres"])[0])
    assert all(len(np.unique(found["labels"][j::5])) == 1 for j in range(5))


@pytest.mark.parametrize("n", [3, 64, 200])
def test_directions_of_long_rows_are_orthonormal(n):
    rows = torch.from_numpy(medium(n, 2000))
    basis = Projection.of(rows).basis
    assert basis.shape == (2000, min(n, 64))
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))


def test_directions_of_long_rows_hold_nearly_as_much_as_the_best():
    rows = torch.from_numpy(medium(500, 1500)).double()
    rows -= rows.mean(0)
    held = (rows @ near_leading_directions(rows, 30)).square().sum()
    best = torch.linalg.svdvals(rows)[:30].square().sum()
    assert 0.999 < held / best <= 1 + 1e-9


def test_constant_long_rows():
    found = cluster(np.zeros((70, 2000), np.float32), n_clusters=2)
    assert found["inertia"] == 0
