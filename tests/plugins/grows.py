"""A method with a mistake: its default grows from fit to fit."""

from __future__ import annotations

import numpy as np

from methods.method import Context, Method, Tags
from methods.registry import register


@register("grows")
class Grows(Method):
    """One cluster for all, and a list that grows."""

    tags = Tags(inductive=False)

    def __init__(
        self,
        n_clusters: int = 10,
        random_state: int | None = None,
        sizes: list[int] = [],  # noqa: B006  the mistake
    ) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state
        self.sizes = sizes

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Grows:
        """Fit images ``(n, h, w[, c])``."""
        self.sizes.append(len(X))
        self.labels_ = np.zeros(len(X), dtype=int)
        return self
