"""The k-means stage: what any k-means must satisfy, and what this one promises on top."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from test_networks import Killed, Recording

from methods.method import Context
from methods.toolkit.kmeans import _lloyd_step, as_rows, kmeans, nearest, seed_centres
from methods.toolkit.training import generator

DIGITS = (load_digits().images * 15.9).astype(np.uint8)[:400]  # (400, 8, 8)


def cluster(X: np.ndarray = DIGITS, seed: int = 0, context: Context | None = None, **params):
    return kmeans(X, random_state=seed, context=context or Context(), **{"n_clusters": 8} | params)


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def all_distances(X: np.ndarray, centres: np.ndarray) -> np.ndarray:
    rows = as_rows(X).astype(np.float64)
    return np.linalg.norm(rows[:, None] - centres.astype(np.float64), axis=2)  # (n, k)


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
    tensor = torch.from_numpy(rows)
    ours = _lloyd_step(tensor, tensor, tensor[:8])
    np.testing.assert_allclose(ours, theirs.cluster_centers_, atol=1e-5)


def test_an_empty_cluster_moves_to_the_instance_farthest_from_its_centre():
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 8.0], [1.0, 1.0]])
    centres = torch.tensor([[0.0, 0.0], [90.0, 90.0]])
    moved = _lloyd_step(rows, rows, centres)
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


@pytest.mark.parametrize("kill_at", [9, 30, 41, 52])
def test_a_resumed_run_equals_an_undisturbed_one(kill_at):
    params = {"n_init": 3, "max_iter": 20, "tol": 0.02}
    states: dict[str, list[bytes]] = {}
    undisturbed = Recording()
    expected = cluster(context=undisturbed, **params)
    done = [step[1] for step in undisturbed.steps if step[0] == "iteration"]
    kill_at = max(d for d in done if d <= kill_at)  # a run that stops early leaves some out
    with pytest.raises(Killed):
        cluster(context=Recording(states, kill_at), **params)
    assert states["kmeans"]
    resumed = Recording(states)
    assert equal(cluster(context=resumed, **params), expected)
    iterations = [step for step in resumed.steps if step[0] == "iteration"]
    assert iterations[0][1] == kill_at  # it went on, it did not start again


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
