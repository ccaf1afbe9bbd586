"""The classifiers (heads) that methods put on labelled or propagated instances.

`HEADS` is the table of them. A head is made with the number of classes, a seed and parameters of
its own, learns from images, and gives probabilities for new ones. It may see some of the classes
only: the others get probability 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from methods.method import Context, Method, check_like_fitted, derive_seed
from methods.toolkit.heads.cnn import CNN
from methods.toolkit.heads.logistic import LogisticRegression
from methods.toolkit.heads.mlp import MLP
from methods.toolkit.heads.seven_layers import NN


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


class ClassifierMethod(Method):
    """A method that ends in a classifier: what it says of an image is the classifier's word.

    Attributes
    ----------
    head_ : the trained classifier.
    labels_ : ``(n,)`` int64, the classifier's prediction, for labelled instances too.
    probabilities_ : ``(n, n_clusters)`` float32, 0 for a class that had no label.
    """

    n_clusters: int
    random_state: int | None
    head_: Predictor

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most probable class ``(n,)`` int64 of each image."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """The classifier's probabilities ``(n, n_clusters)`` float32."""
        X = check_like_fitted(self, X)
        return self.head_.predict_proba(X)

    def _new_head(self, name: str, params: dict[str, Any]) -> Head:
        return HEADS[name](self.n_clusters, derive_seed(self.random_state, "head"), **params)

    def _label(self, X: np.ndarray) -> None:
        """Set `labels_` and `probabilities_` of the images that the method is fitted on."""
        self.probabilities_ = self.predict_proba(X)
        self.labels_ = self.probabilities_.argmax(1)
