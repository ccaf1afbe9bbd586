"""k-means against scikit-learn and faiss, from the same first centres."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.harness import WHOLE, Contestant, Ledger, Round
from benchmarks.ours import Stamps, precisions
from benchmarks.peers import is_installed
from methods.method import Context
from methods.toolkit.kmeans import as_rows, kmeans, nearest, seed_centres
from methods.toolkit.lloyd import Projection
from methods.toolkit.training import generator

MAX_ITER = 300
TOL = 1e-4
ROUNDS = {100: 2, 500: 1, 2_000: 1}  # a round of 2,000 clusters takes minutes
ITERATIONS = "iterations"  # the part of the work without the first centres


def inertia(rows: np.ndarray, centres: np.ndarray) -> float:
    """The sum of the squared distances to the nearest centre, in float64."""
    return float(np.square(nearest(rows, centres)[1], dtype=np.float64).sum())


def of_ours(X: np.ndarray, k: int, precision: str) -> Round:
    """Our k-means: the first centres, the iterations, and both together."""
    context = Stamps(precision)
    start = time.perf_counter()
    found = kmeans(X, random_state=0, context=context, n_clusters=k, max_iter=MAX_ITER, tol=TOL)
    whole = time.perf_counter() - start
    placed = [times for (what, _), times in context.stamps.items() if what == "centre"]
    seeding = max(max(times.values()) for times in placed) - start
    return Round(
        {"first centres": seeding, ITERATIONS: whole - seeding, "together": whole},
        {"inertia": float(found["inertia"]), "iterations": float(found["n_iter"])},
    )


def first_centres(X: np.ndarray, k: int) -> np.ndarray:
    """The first centres ``(k, d)`` of our only run with seed 0, for the peers."""
    rows = torch.from_numpy(as_rows(X))
    mean = rows.mean(0)
    rows -= mean
    seeding = generator(0, "run", 0)
    return (seed_centres(rows, k, seeding, Context(), Projection.of(rows)) + mean).numpy()


def of_sklearn(rows: np.ndarray, centres: np.ndarray, algorithm: str) -> Round:
    """scikit-learn, to the same tolerance."""
    from sklearn.cluster import KMeans

    method = KMeans(
        len(centres), init=centres, n_init=1, max_iter=MAX_ITER, tol=TOL, algorithm=algorithm
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
        return of_faiss(rows, centres, lloyd_iterations[-1])

    peers: dict[str, Contestant] = {"scikit-learn lloyd": lloyd}
    peers["scikit-learn elkan"] = partial(of_sklearn, rows, centres, "elkan")
    if is_installed(ledger, "faiss"):
        peers["faiss"] = faiss
    ours = {name: partial(of_ours, X, k, name) for name in precisions(ledger)}
    work = f"k-means, {len(X):,} x {rows.shape[1]}, k={k:,}"
    found = versus(work, ours, peers, rounds=ROUNDS.get(k, 1), at_least={ITERATIONS: 1.5})
    reached = [series.figures["inertia"] for series in (found.ours | found.peers).values()]
    assert max(reached) < 1.01 * min(reached), "the contestants did not do the same work"


def clustered_rows(n: int) -> np.ndarray:
    """Rows ``(n, 10)`` float32 in overlapping clusters, as an autoencoder's embedding has them."""
    rng = np.random.default_rng(0)
    means = 3 * rng.standard_normal((30, 10))
    return (means[np.arange(n) % 30] + rng.standard_normal((n, 10))).astype(np.float32)


def test_restarts_on_an_embedding(
    versus: Callable[..., Any], scale: Any, images: Any, ledger: Ledger
) -> None:
    """k = 10, the best of 20 runs, each contestant with first centres of its own."""
    rows, k, n_init = clustered_rows(len(images[0])), 10, scale.clusters(20)

    def ours(precision: str) -> Round:
        start = time.perf_counter()
        context = Context(precision=precision)
        found = kmeans(rows, random_state=0, context=context, n_clusters=k, n_init=n_init, tol=TOL)
        return Round(
            {WHOLE: time.perf_counter() - start}, {"inertia": inertia(rows, found["centres"])}
        )

    def sklearn(algorithm: str) -> Round:
        from sklearn.cluster import KMeans

        start = time.perf_counter()
        found = KMeans(k, n_init=n_init, tol=TOL, algorithm=algorithm, random_state=0).fit(rows)
        seconds = time.perf_counter() - start
        return Round({WHOLE: seconds}, {"inertia": inertia(rows, found.cluster_centers_)})

    versus(
        f"k-means, {len(rows):,} x 10, k={k}, {n_init} runs, first centres included",
        {name: partial(ours, name) for name in precisions(ledger)},
        {f"scikit-learn {name}": partial(sklearn, name) for name in ("lloyd", "elkan")},
        rounds=3,
        at_least={WHOLE: 1.5},
    )
