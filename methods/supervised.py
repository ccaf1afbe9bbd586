"""What any semi-supervised method has to beat: classifiers that saw the labelled images alone."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from methods.method import UNLABELLED, Context, Tags
from methods.registry import register
from methods.toolkit.heads.table import ClassifierMethod


class Supervised(ClassifierMethod):
    """A classifier that learns from the labelled instances alone.

    Its parameters other than ``n_clusters`` and ``random_state`` are those of the classifier.
    """

    tags: ClassVar[Tags] = Tags(needs_labels=True, family="supervised", resumes=True)
    head: ClassVar[str]

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Learn from the images ``X`` ``(n, h, w[, c])`` uint8 with a label in ``y``.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used, or no label at all.
        """
        X, y, context = self._begin(X, y, context)
        labelled = y != UNLABELLED
        params = self.get_params(deep=False)
        own = {key: params[key] for key in params if key not in ("n_clusters", "random_state")}
        head = self._new_head(self.head, own)
        self.head_ = head.fit(X[labelled], y[labelled], context)
        self._label(X)
        return self


@register("supervised-lr")
@dataclass(eq=False, repr=False)
class SupervisedLR(Supervised):
    """Logistic regression on the pixels of the labelled instances.

    Parameters
    ----------
    n_clusters : number of classes.
    C, multi_class, tol, max_iter : as in `LogisticRegression` of the toolkit.
    random_state : not used; the solution is unique.
    """

    tags: ClassVar[Tags] = Tags(needs_labels=True, family="supervised")
    head: ClassVar[str] = "lr"
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"max_iter": 100},
        "smoke": {"max_iter": 20},
    }

    n_clusters: int = 10
    _: KW_ONLY
    C: float = 1.0
    multi_class: str = "ovr"
    tol: float = 1e-4
    max_iter: int = 5000
    random_state: int | None = None


@register("supervised-mlp")
@dataclass(eq=False, repr=False)
class SupervisedMLP(Supervised):
    """Multilayer perceptron 784-300-100-10 on the labelled instances.

    Parameters
    ----------
    n_clusters : number of classes.
    epochs, batch_size, lr : passes, images per step, Adam's learning rate.
    random_state : seed.
    """

    head: ClassVar[str] = "mlp"
    schedules: ClassVar[dict[str, dict[str, Any]]] = {"quick": {}, "smoke": {"epochs": 3}}

    n_clusters: int = 10
    _: KW_ONLY
    epochs: int = 20
    batch_size: int = 2000
    lr: float = 1e-3
    random_state: int | None = None


@register("supervised-nn", in_all=False)
@dataclass(eq=False, repr=False)
class SupervisedNN(Supervised):
    """The 7-layer network of Das and Thada on the labelled instances; it can die.

    Parameters
    ----------
    n_clusters : number of classes.
    epochs, patience, batch_size, lr : as in `NN` of the toolkit.
    random_state : seed.
    """

    head: ClassVar[str] = "nn"
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"epochs": 10},
        "smoke": {"epochs": 2},
    }

    n_clusters: int = 10
    _: KW_ONLY
    epochs: int = 100
    patience: int = 8
    batch_size: int = 32
    lr: float = 1e-3
    random_state: int | None = None


@register("supervised-cnn")
@dataclass(eq=False, repr=False)
class SupervisedCNN(Supervised):
    """Small augmented convolutional network on the labelled instances: the bar to clear.

    Parameters
    ----------
    n_clusters : number of classes.
    steps : optimiser steps, the same at every level.
    batch_size, lr, weight_decay, width, dropout : as in `CNN` of the toolkit.
    random_state : seed.
    """

    head: ClassVar[str] = "cnn"
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"steps": 500},
        "smoke": {"steps": 30, "width": 8},
    }

    n_clusters: int = 10
    _: KW_ONLY
    steps: int = 10_000
    batch_size: int = 128
    lr: float = 3e-3
    weight_decay: float = 0.05
    width: int = 32
    dropout: float = 0.3
    random_state: int | None = None
