"""FixMatch: confident predictions on weak views are the targets of strong views.

References
----------
Sohn, Berthelot, Li, Zhang, Carlini, Cubuk, Kurakin, Zhang and Raffel, FixMatch: Simplifying
Semi-Supervised Learning with Consistency and Confidence, NeurIPS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from methods.method import UNLABELLED, Context, Tags, derive_seed
from methods.registry import register
from methods.toolkit.draws import generator
from methods.toolkit.heads.outputs import NetworkPredictor
from methods.toolkit.heads.table import ClassifierMethod
from methods.toolkit.matching import Classifier, Lesson, Matching, MatchingMethod, Pool, match
from methods.toolkit.nets.resnet import he_
from methods.toolkit.training import image_tensor


@register("fixmatch")
@dataclass(eq=False, repr=False, kw_only=True)
class FixMatch(MatchingMethod, ClassifierMethod):
    """FixMatch, weak and strong views of all images; at `quick` no better than supervised-cnn.

    There it is level with that at 100 labels, and behind it at every other level. Weak views are
    flipped and shifted, strong ones cropped, tilted, lit otherwise and half covered. The running
    mean of the weights is what is scored, after the last step.

    Parameters
    ----------
    n_clusters : number of classes.
    steps : optimiser steps, the same at every level; 2^20 in the paper.
    batch_size, mu : labelled images a step (B), and how many times as many unlabelled ones (μ).
    lr, weight_decay, threshold, weight, ema : see `Matching`.
    width, feature_dim : of the `SmallResNet`.
    random_state : seed.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the most probable class, for labelled instances too.
    probabilities_ : ``(n, n_clusters)`` float32, 0 for a class that had no label.
    head_ : the trained network.

    References
    ----------
    Sohn et al., NeurIPS 2020: B, μ, τ, the weight of the unlabelled and the last decay of the mean
    as there for CIFAR-10. Length, network, views, optimiser, rate, its decay and the normalisation
    of batches are ours: see `match`.
    """

    tags: ClassVar[Tags] = Tags(needs_labels=True, family="consistency", resumes=True)
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"steps": 300, "mu": 2, "lr": 0.01},
        "smoke": {"steps": 20, "mu": 2, "lr": 1e-2, "width": 4, "feature_dim": 32},
    }

    ema: float = 0.999
    n_clusters: int = 10
    width: int = 32
    feature_dim: int = 512
    random_state: int | None = None

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled.

        Height and width are at least 8.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used, or no label at all.
        FloatingPointError : a loss that is logged is not finite.
        """
        X, y, context = self._begin(X, y, context)
        labelled = np.flatnonzero(y != UNLABELLED)
        seed = derive_seed(self.random_state, "fixmatch")
        network = Classifier(X.shape[1:], self.width, self.feature_dim, self.n_clusters)
        he_(network, generator(seed, "weights")).to(context.device)
        images = image_tensor(X, context.device)
        lesson = Lesson(self.steps, [Pool(labelled, y[labelled], self.batch_size)])
        trained = match(network, images, [lesson], self._matching(), seed, context)
        seen = np.unique(y[labelled])
        self.head_ = NetworkPredictor(trained, seen, self.n_clusters, self._inference)
        self._label(X)
        return self

    def _matching(self) -> Matching:
        return replace(super()._matching(), ema=self.ema)
