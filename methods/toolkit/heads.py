"""The classifiers (heads) that methods put on labelled or propagated instances.

`HEADS` is the table of them. A head is made with the number of classes, a seed and parameters of
its own, learns from images, and gives probabilities for new ones. It may see some of the classes
only: the others get probability 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from methods.method import Context
from methods.toolkit.classifiers import CNN, MLP
from methods.toolkit.logistic import LogisticRegression
from methods.toolkit.seven_layers import NN


class Predictor(Protocol):
    """What says how probable each class is."""

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities ``(n, n_classes)`` float32 of uint8 images; 0 for a class never seen."""


class Head(Predictor, Protocol):
    """What every entry of `HEADS` does once it is made: ``HEADS[name](n_classes, seed, ...)``."""

    def fit(self, X: np.ndarray, y: np.ndarray, context: Context) -> Head:
        """Learn from uint8 images, or float ones in [0, 1], of classes ``y`` ``(n,)``."""


HEADS: dict[str, Callable[..., Head]] = {
    "lr": LogisticRegression,
    "mlp": MLP,
    "nn": NN,
    "cnn": CNN,
}
