"""The neighbours of SCAN: which they are, which labels remove, and how one is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from methods.method import Context
from methods.toolkit import neighbours as toolkit
from methods.toolkit.neighbours import NeighbourLists, neighbours


def test_neighbours_are_the_most_similar_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "BLOCK", 32)  # 100 rows: three blocks and a short one
    X = np.random.default_rng(0).normal(size=(100, 6))
    found = neighbours(X.astype(np.float32), random_state=0, context=Context(), k=7)["indices"]
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    for i in range(len(X)):
        similarity = np.array([unit[i] @ unit[j] if j != i else -2 for j in range(len(X))])
        assert found[i].tolist() == np.argsort(-similarity)[:7].tolist()
    assert found.shape == (100, 7) and found.dtype == np.int64


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
    assert lists.draw(torch.arange(3), torch.Generator().manual_seed(0)).tolist() == [0, 1, 2]


def test_neighbours_are_drawn_evenly_from_those_that_are_kept() -> None:
    indices = np.array([[1, 2, 3, 4], [0, 2, 3, 4]] + [[0, 1, 2, 3]] * 3)
    lists = NeighbourLists.of(indices, np.array([0, -1, 1, -1, -1]))
    rows = torch.zeros(6000, dtype=torch.int64)
    drawn = lists.draw(rows, torch.Generator().manual_seed(0)).bincount(minlength=5)
    assert drawn[0] == 0 and drawn[2] == 0
    assert ((drawn[[1, 3, 4]] - 2000).abs() < 200).all()
