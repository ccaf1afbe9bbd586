"""Contexts that tests of several methods share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from methods.method import Arrays, Context, StageRequest


class Asked(Context):
    """A context that notes which stages are asked for, and hands them out read-only."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[StageRequest, object]] = []

    def stage(
        self, function: Callable[..., Arrays], X: np.ndarray, *, random_state: Any, **params: Any
    ) -> Arrays:
        self.asked.append((StageRequest(function, params), random_state))
        found = super().stage(function, X, random_state=random_state, **params)
        for array in found.values():
            array.flags.writeable = False
        return found
