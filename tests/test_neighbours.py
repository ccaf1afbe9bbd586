"""The neighbours of SCAN, how one is drawn, and what is told of the assignments in the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contexts import Recording, killed_and_resumed

from methods.method import Context
from methods.scan.network import ClusterNetwork
from methods.scan.phases import (
    Training,
    assignment_summary,
    majority_classes,
    most_confident,
    train_phase,
)
from methods.toolkit.draws import Draws, generator
from methods.toolkit.stages import neighbours as toolkit
from methods.toolkit.stages.neighbours import NeighbourLists, neighbours
from methods.toolkit.training import load_weights, weight_arrays


def test_neighbours_are_the_most_similar_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "BLOCK", 32)  # 100 rows: three blocks and a short one
    X = np.random.default_rng(0).normal(size=(100, 6))
    found = neighbours(X.astype(np.float32), random_state=0, context=Context(), k=7)["indices"]
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    for i in range(len(X)):
        similarity = np.array([unit[i] @ unit[j] if j != i else -2 for j in range(len(X))])
        assert found[i].tolist() == np.argsort(-similarity)[:7].tolist()
    assert found.shape == (100, 7)
    assert found.dtype == np.int64


def test_an_instance_is_not_its_own_neighbour_even_among_copies() -> None:
    X = np.ones((5, 3), dtype=np.float32)
    X[4] = 0  # similar to none
    found = neighbours(X, random_state=0, context=Context(), k=4)["indices"]
    assert all(set(row) == set(range(5)) - {i} for i, row in enumerate(found))
    assert all(found[:4, 3] == 4)


@pytest.mark.parametrize("k", [0, 5])
def test_neighbours_refuses_a_number_that_is_not_there(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k} with 5 instances; expected 1 to 4"):
        neighbours(np.ones((5, 3)), random_state=0, context=Context(), k=k)


def test_neighbours_refuses_what_is_not_finite() -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        neighbours(np.array([[0.0], [np.nan]]), random_state=0, context=Context(), k=1)


def test_neighbours_known_to_be_of_another_class_are_removed() -> None:
    indices = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [2, 1, 0], [0, 1, 2]])
    y = np.array([0, 1, 1, -1, 0])
    lists = NeighbourLists.of(indices, y)
    kept = [
        row[:count].tolist()
        for row, count in zip(lists.indices, lists.counts.tolist(), strict=True)
    ]
    assert kept == [[3], [2, 3], [1, 3], [2, 1, 0], [0]]


def test_an_instance_without_a_neighbour_left_is_its_own() -> None:
    lists = NeighbourLists.of(np.array([[1, 2], [0, 2], [0, 1]]), np.array([0, 1, 2]))
    assert lists.draw(torch.arange(3), Draws(0, "cpu")).tolist() == [0, 1, 2]


def test_neighbours_are_drawn_evenly_from_those_that_are_kept() -> None:
    indices = np.array([[1, 2, 3, 4], [0, 2, 3, 4]] + [[0, 1, 2, 3]] * 3)
    lists = NeighbourLists.of(indices, np.array([0, -1, 1, -1, -1]))
    rows = torch.zeros(6000, dtype=torch.int64)
    drawn = lists.draw(rows, Draws(0, "cpu")).bincount(minlength=5)
    assert drawn[0] == 0
    assert drawn[2] == 0
    assert ((drawn[[1, 3, 4]] - 2000).abs() < 200).all()


# Assignments: their history, summaries, errors


def test_the_history_tells_how_clusters_are_used() -> None:
    module = torch.nn.Linear(1, 4)
    logits = torch.log(torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.5, 0.2, 0.2]]))

    def loss(rows: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return module.weight.square().sum(), logits[rows]

    training, context = Training(1, 2, 0.1), Recording()
    first = module.weight.square().sum().item()
    history = train_phase("test", module, loss, 2, 4, training, 0, context)
    mean = np.array([0.4, 0.3, 0.15, 0.15])
    expected = {"clusters_in_use": 2, "assignment_entropy": -(mean * np.log(mean)).sum()}
    expected |= {"loss": first, "confidence": 0.6, "epoch": 1}
    (row,) = history
    assert row.pop("phase") == "test"
    assert row == pytest.approx(expected, abs=1e-6)
    assert not module.training


def test_the_history_of_an_epoch_forgets_the_one_before() -> None:
    module = torch.nn.Linear(1, 3)

    def loss(rows: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        return module.weight.square().sum(), 50 * torch.eye(3)[[draws.step, draws.step]]

    history = train_phase("test", module, loss, 2, 3, Training(3, 2, 0.1), 0, Context())
    assert [row["clusters_in_use"] for row in history] == [1, 1, 1]
    assert [row["epoch"] for row in history] == [1, 2, 3]


def test_an_epoch_without_a_step_ends_the_training() -> None:
    """Killed in the last one or not."""

    def trained(context: Recording) -> list[dict[str, object]]:
        module = torch.nn.Linear(2, 3)
        torch.nn.init.ones_(module.weight)
        torch.nn.init.zeros_(module.bias)
        x = torch.randn(20, 2, generator=generator(0, "x"))

        def loss(rows: torch.Tensor, draws: Draws) -> tuple[torch.Tensor | None, torch.Tensor]:
            logits = module(x[rows])
            return (logits.square().mean() if draws.step < 4 else None), logits

        return train_phase("test", module, loss, 20, 3, Training(9, 5, 0.1), 0, context)

    undisturbed = Recording()
    history = trained(undisturbed)
    assert [row["loss"] is None for row in history] == [False, True]
    assert undisturbed.history == history
    for lives in (7, 13, 16):
        resumed, context = killed_and_resumed(trained, lives)
        assert resumed == context.history == history


def test_a_phase_whose_assignments_are_no_numbers_is_an_error() -> None:
    module = torch.nn.Linear(1, 2)

    def loss(rows: torch.Tensor, step: int) -> tuple[None, torch.Tensor]:
        return None, torch.full((len(rows), 2), torch.nan)

    with pytest.raises(FloatingPointError, match=r"the assignments of test became nan .*; lower"):
        train_phase("test", module, loss, 4, 2, Training(1, 2, 0.1), 0, Context())


def test_a_summary_sees_a_collapse_in_spite_of_strays() -> None:
    p = np.full((1000, 10), 0.01, dtype=np.float32)
    p[:, 0] = 0.91
    p[:9] = np.eye(10)[1:]  # one stray in every other cluster
    summary = assignment_summary(p)
    assert summary["clusters_in_use"] == 10
    assert summary["collapsed"]
    assert 1 < summary["effective_clusters"] < 1.1
    spread = assignment_summary(np.eye(10)[np.arange(1000) % 10])
    assert spread["effective_clusters"] == pytest.approx(10)
    assert not spread["collapsed"]
    assert spread["assignment_entropy"] == pytest.approx(np.log(10))


def test_clusters_take_the_class_of_most_labelled_members() -> None:
    clusters = np.array([0, 0, 0, 1, 2, 2, 3, 3, 4])
    y = np.array([1, 1, 0, -1, 1, 1, 0, 1, -1])
    # Cluster 0: class 1 by 2 to 1. 1: nothing known, so 1 mod 2. 3: a tie, so 3 mod 2. 4: 4 mod 2.
    assert majority_classes(clusters, y, 5).tolist() == [1, 1, 1, 1, 0]
    assert majority_classes(clusters, np.full(9, -1), 5).tolist() == [0, 1, 2, 3, 4]
    assert majority_classes(clusters, np.array([4, 3, 2, 1, 0, 0, 0, 0, 0]), 5).tolist() == [
        *range(5)
    ]


def test_the_most_confident_images_of_each_cluster() -> None:
    p = np.array([[0.6, 0.4, 0], [0.9, 0.1, 0], [0.3, 0.7, 0], [0.8, 0.2, 0]])
    assert most_confident(p, 2).tolist() == [[1, 3], [2, -1], [-1, -1]]


def test_weights_that_do_not_fit_are_refused() -> None:
    small = weight_arrays(ClusterNetwork((8, 8), 2, 16, 3))
    with pytest.raises(ValueError, match="do not fit a ClusterNetwork of this size"):
        load_weights(ClusterNetwork((8, 8), 2, 16, 4), small)


def test_assignments_that_are_no_numbers_are_an_error() -> None:
    network = ClusterNetwork((8, 8), 2, 16, 3)
    torch.nn.init.constant_(network.head.weight, torch.inf)
    with pytest.raises(FloatingPointError, match=r"soft assignments became nan .*; lower"):
        network.probabilities(torch.ones(5, 16))
