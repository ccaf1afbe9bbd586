"""k-means against scikit-learn and faiss, from the same first centres."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.harness import Comparison, Contestant, Ledger, Round
from benchmarks.ours import Stamps, precisions
from benchmarks.peers import is_installed
from methods.method import Context
from methods.toolkit.draws import generator
from methods.toolkit.fast.lloyd import DIRECTIONS, Projection
from methods.toolkit.rows import as_rows, kmeans_of_rows
from methods.toolkit.stages.kmeans import kmeans, nearest, seed_centres

MAX_ITER = 300
TOL = 1e-4
ROUNDS = {100: 2, 500: 1, 2_000: 1}  # a round of 2,000 clusters takes minutes
ITERATIONS = "iterations"  # the part of the work without the first centres
SAME = 1.001  # times the best inertia: who ends within that has done the same work


def inertia(rows: np.ndarray, centres: np.ndarray) -> float:
    """The sum of the squared distances to the nearest centre, in float64."""
    return float(np.square(nearest(rows, centres)[1], dtype=np.float64).sum())


def of_ours(X: np.ndarray, k: int, precision: str, n_init: int = 1) -> Round:
    """Our k-means: the first centres, all else (from pixels to labels), and both together."""
    context = Stamps(precision)
    start = time.perf_counter()
    found = kmeans(
        X,
        random_state=0,
        context=context,
        n_clusters=k,
        n_init=n_init,
        max_iter=MAX_ITER,
        tol=TOL,
    )
    whole = time.perf_counter() - start
    seeding = context.span("centre")
    return Round(
        {"first centres": seeding, ITERATIONS: whole - seeding, "together": whole},
        {"inertia": float(found["inertia"]), "iterations": float(found["n_iter"])},
    )


def first_centres(X: np.ndarray, k: int, n_init: int = 1) -> list[np.ndarray]:
    """The first centres ``(k, d)`` of each of our runs with seed 0, for the peers."""
    rows = torch.from_numpy(as_rows(X))
    mean = rows.mean(0)
    rows -= mean
    projection = Projection.of(rows) if rows.shape[1] > 2 * DIRECTIONS else None
    seedings = (generator(0, "run", run) for run in range(n_init))
    found = [seed_centres(rows, k, seeding, Context(), projection) for seeding in seedings]
    return [(centres + mean).numpy() for centres in found]


def of_sklearn(rows: np.ndarray, centres: list[np.ndarray], algorithm: str) -> Round:
    """scikit-learn from the given centres of each run, to the same tolerance."""
    from sklearn.cluster import KMeans

    mean = rows.mean(0)
    centred = iter([one - mean for one in centres])  # it asks for centres of centred rows
    method = KMeans(
        len(centres[0]),
        init=lambda X, n_clusters, random_state: next(centred),
        n_init=len(centres),
        max_iter=MAX_ITER,
        tol=TOL,
        algorithm=algorithm,
    )
    start = time.perf_counter()
    method.fit(rows)
    seconds = time.perf_counter() - start
    figures = {"inertia": inertia(rows, method.cluster_centers_), "iterations": method.n_iter_}
    return Round({ITERATIONS: seconds}, figures)


def of_faiss(rows: np.ndarray, centres: np.ndarray, n_iter: int) -> Round:
    """faiss, which has no tolerance and does `n_iter` iterations."""
    import faiss

    method = faiss.Kmeans(
        rows.shape[1],
        len(centres),
        niter=n_iter,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),  # it would learn from a sample otherwise
    )
    start = time.perf_counter()
    method.train(rows, init_centroids=centres)
    seconds = time.perf_counter() - start
    figures = {"inertia": inertia(rows, method.centroids), "iterations": n_iter}
    return Round({ITERATIONS: seconds}, figures)


@pytest.mark.parametrize("k", list(ROUNDS))
def test_pixels(
    versus: Callable[..., Any], images: Any, scale: Any, ledger: Ledger, k: int
) -> None:
    X, k = images[0], scale.clusters(k)
    rows, centres = as_rows(X), first_centres(X, k)
    lloyd_iterations: list[int] = []

    def lloyd() -> Round:
        found = of_sklearn(rows, centres, "lloyd")
        lloyd_iterations.append(int(found.figures["iterations"]))
        return found

    def faiss() -> Round:  # from the same centres, as many iterations as scikit-learn just took
        return of_faiss(rows, centres[0], lloyd_iterations[-1])

    peers: dict[str, Contestant] = {"scikit-learn lloyd": lloyd}
    peers["scikit-learn elkan"] = partial(of_sklearn, rows, centres, "elkan")
    if is_installed(ledger, "faiss"):
        peers["faiss"] = faiss
    ours = {name: partial(of_ours, X, k, name) for name in precisions(ledger)}
    work = f"k-means, {len(X):,} x {rows.shape[1]}, k={k:,}"
    found = versus(work, ours, peers, rounds=ROUNDS.get(k, 1), at_least={ITERATIONS: 1.5})
    check_same_work(found)


def check_same_work(found: Comparison) -> None:
    """All ended as well: rounding alone, in ties and in where to stop, told them apart."""
    everybody = (found.ours | found.peers).values()
    reached = [one.figures["inertia"] for one in everybody if ITERATIONS in one.parts]
    assert max(reached) < SAME * min(reached), f"the contestants ended at inertias of {reached}"


def clustered_rows(n: int) -> np.ndarray:
    """Rows ``(n, 10)`` float32 in overlapping clusters, as an autoencoder's embedding has them."""
    rng = np.random.default_rng(0)
    means = 3 * rng.standard_normal((30, 10))
    return (means[np.arange(n) % 30] + rng.standard_normal((n, 10))).astype(np.float32)


def test_restarts_on_an_embedding(
    versus: Callable[..., Any], scale: Any, images: Any, ledger: Ledger
) -> None:
    """K = 10, the best of 20 runs: from the same first centres, and with those of each its own.

    There is no aim: methods cluster an embedding with scikit-learn's, on one thread.
    """
    rows, k, n_init = clustered_rows(len(images[0])), 10, scale.clusters(20)
    centres = first_centres(rows, k, n_init)

    def with_its_own_centres() -> Round:
        from sklearn.cluster import KMeans

        start = time.perf_counter()
        KMeans(k, n_init=n_init, max_iter=MAX_ITER, tol=TOL, random_state=0).fit(rows)
        return Round({"together": time.perf_counter() - start})

    def as_methods_do() -> Round:
        start = time.perf_counter()
        kmeans_of_rows(rows, k, n_init, seed=0)
        return Round({"together": time.perf_counter() - start})

    peers: dict[str, Contestant] = {
        f"scikit-learn {name}": partial(of_sklearn, rows, centres, name)
        for name in ("lloyd", "elkan")
    }
    peers["scikit-learn lloyd, first centres of its own"] = with_its_own_centres
    peers["the same on one thread, as methods have it"] = as_methods_do
    ours = {name: partial(of_ours, rows, k, name, n_init) for name in precisions(ledger)}
    work = f"k-means, {len(rows):,} x 10, k={k}, {n_init} runs"
    check_same_work(versus(work, ours, peers, rounds=5))
