"""What ours costs at several sizes: images, clusters, labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.harness import Contestant, Round, timed
from benchmarks.ours import INTERVAL, joint_phase, some_labels, untrained
from methods.method import Context
from methods.toolkit.heads.logistic import LogisticRegression
from methods.toolkit.stages.kmeans import kmeans

IMAGES = (10_000, 20_000, 40_000, 70_000)
CLUSTERS = (100, 200, 500, 1_000, 2_000)
LEVELS = {"1%": 0.01, "10%": 0.1, "50%": 0.5}
ITERATIONS = 10  # of k-means and of logistic regression: the same number at every size


def by_images(
    scale: Any, contestant: Callable[[int], Contestant]
) -> tuple[dict[str, Contestant], dict[str, float]]:
    """A contestant for every number of images, and these numbers, both by their names."""
    sizes = {f"{n:,} images": min(n, scale.images(n)) for n in IMAGES}
    return {name: contestant(n) for name, n in sizes.items()}, dict(sizes)


def ten_iterations(X: np.ndarray, k: int) -> None:
    """First centres and ten iterations, whatever the tolerance."""
    context = Context()
    kmeans(X, random_state=0, context=context, n_clusters=k, max_iter=ITERATIONS, tol=0)


def test_refresh_by_images(growth: Callable[..., Any], images: Any, scale: Any) -> None:
    """Of a cycle only the refresh grows: a step and the number of steps are the same."""
    interval = scale.clusters(INTERVAL)

    def contestant(n: int) -> Contestant:
        X, y = images[0][:n], some_labels(images[1][:n], 0.05)
        pretrained = untrained(X)

        def refresh() -> Round:
            seconds = joint_phase(X, y, pretrained, "fp32", interval).seconds
            return Round({"refresh": seconds["refresh"]})

        return refresh

    growth("DCEC, fp32", *by_images(scale, contestant), rounds=1)


def test_kmeans_by_images(growth: Callable[..., Any], images: Any, scale: Any) -> None:
    k = scale.clusters(500)

    def contestant(n: int) -> Contestant:
        return timed(lambda: ten_iterations(images[0][:n], k))

    work = f"k-means, k={k}, first centres and {ITERATIONS} iterations, fp32"
    growth(work, *by_images(scale, contestant), rounds=1)


def test_regression_by_images(growth: Callable[..., Any], images: Any, scale: Any) -> None:
    def contestant(n: int) -> Contestant:
        model = LogisticRegression(10, max_iter=ITERATIONS, tol=1e-12)
        return timed(lambda: model.fit(images[0][:n], images[1][:n], Context()))

    work = f"logistic regression, one-vs-rest, {ITERATIONS} iterations"
    growth(work, *by_images(scale, contestant))


def test_kmeans_by_clusters(growth: Callable[..., Any], images: Any, scale: Any) -> None:
    X = images[0]
    sizes = {f"k={k:,}": scale.clusters(k) for k in CLUSTERS}
    contestants = {name: timed(partial(ten_iterations, X, k)) for name, k in sizes.items()}
    work = f"k-means, {len(X):,} images, first centres and {ITERATIONS} iterations, fp32"
    growth(work, contestants, sizes, rounds=1)


def test_cycle_by_level(growth: Callable[..., Any], images: Any, scale: Any) -> None:
    """Labels change numbers, not work: the cost does not depend on the level."""
    X, y = images
    pretrained, interval = untrained(X), scale.clusters(INTERVAL)

    def contestant(share: float) -> Callable[[], Round]:
        return partial(joint_phase, X, some_labels(y, share), pretrained, "fp32", interval)

    contestants = {level: contestant(share) for level, share in LEVELS.items()}
    growth("SS-DCEC, fp32", contestants, rounds=2)
