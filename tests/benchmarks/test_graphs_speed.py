"""Laplace and Poisson learning against graphlearning: the same graph, labels and tolerance."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from benchmarks.harness import WHOLE, Round
from benchmarks.peers import is_installed
from methods.graphs import laplace, poisson, poisson_mbo
from methods.method import flatten
from methods.toolkit.graph import (
    connected,
    gaussian_graph,
    in_order_of_neighbours,
    nearest_others,
    solve,
)

N = 70_000
N_COLUMNS = 10  # of a random projection of the pixels: as many as an embedding has
PER_CLASS = 10
NEIGHBOURS = 10
TOL = 1e-5
MAX_ITER = 2000


def solver(A: sparse.csr_array, B: np.ndarray) -> np.ndarray:
    return solve(A, B, TOL, MAX_ITER)


def of_ours(name: str, graph: sparse.csr_array, Y: np.ndarray) -> np.ndarray:
    """The class ``(n,)`` of each image; the nodes in the order of neighbours, as in a fit."""
    order = in_order_of_neighbours(graph)
    classes = np.empty(len(Y), dtype=np.int64)
    classes[order] = classes_of(name, graph[order][:, order], Y[order])
    return classes


def classes_of(name: str, graph: sparse.csr_array, Y: np.ndarray) -> np.ndarray:
    """The same, in the order of this graph."""
    if name == "laplace":
        return laplace(graph, Y, solver).argmax(1)
    u = poisson(graph, Y, solver)
    if name == "poisson-mbo":
        u = poisson_mbo(graph, Y, u, np.full(Y.shape[1], 1 / Y.shape[1]), 20, 40)
    return u.argmax(1)


def of_peer(
    name: str, graph: sparse.csr_matrix, labelled: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """The same by graphlearning."""
    from graphlearning import ssl

    models = {
        "laplace": lambda: ssl.laplace(graph, tol=TOL),
        "poisson": lambda: ssl.poisson(graph, tol=TOL),
        "poisson-mbo": lambda: ssl.poisson_mbo(graph, np.full(10, 0.1), tol=TOL),
    }
    return models[name]().fit_predict(labelled, classes)


@dataclass(frozen=True)
class Problem:
    """A graph ``(n, n)`` of images, their classes ``(n,)``, and which of them are labelled."""

    graph: sparse.csr_array
    y: np.ndarray
    labelled: np.ndarray


@pytest.fixture(scope="module")
def problem(images: Any, scale: Any) -> Problem:
    n = scale.images(N)
    X, y = (part[:n] for part in images)
    draws = np.random.default_rng(0)
    directions = draws.standard_normal((flatten(X[:1]).shape[1], N_COLUMNS)).astype(np.float32)
    rows = flatten(X) @ directions
    graph = connected(gaussian_graph(*nearest_others(rows, NEIGHBOURS)), rows)
    labelled = np.concatenate([np.flatnonzero(y == c)[:PER_CLASS] for c in range(10)])
    return Problem(graph, y, labelled)


@pytest.mark.parametrize("name", ["laplace", "poisson", "poisson-mbo"])
def test_graphs(versus: Callable[..., Any], ledger: Any, problem: Problem, name: str) -> None:
    graph, y, labelled = problem.graph, problem.y, problem.labelled
    Y = np.zeros((len(y), 10))
    Y[labelled, y[labelled]] = 1

    def one_round(classify: Callable[[], np.ndarray]) -> Round:
        start = time.perf_counter()
        said = classify()
        return Round({WHOLE: time.perf_counter() - start}, {"accuracy": float((said == y).mean())})

    there = is_installed(ledger, "graphlearning")
    ways = {"fp64": partial(one_round, partial(of_ours, name, graph, Y))}
    peer = partial(of_peer, name, sparse.csr_matrix(graph), labelled, y[labelled])
    peers = {"graphlearning": partial(one_round, peer)} if there else {}
    work = f"{name}, {len(y):,} images, {NEIGHBOURS} neighbours, {len(labelled)} labels"
    found = versus(work, ways, peers, rounds=2)
    if name != "poisson-mbo":  # whose decisions by volume are another algorithm
        accuracies = [s.figures["accuracy"] for s in (found.ours | found.peers).values()]
        assert max(accuracies) - min(accuracies) < 0.005
