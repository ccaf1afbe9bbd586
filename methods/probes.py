"""Classifiers on features that were learnt without labels: the plainest use of unlabelled images.

References
----------
Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of Visual
Representations, ICML 2020 (linear evaluation).
Yarowsky, Unsupervised Word Sense Disambiguation Rivaling Supervised Methods, ACL 1995.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.semi_supervised import SelfTrainingClassifier

from methods.method import UNLABELLED, Context, Tags
from methods.registry import register
from methods.toolkit.features import FeatureMethod
from methods.toolkit.heads.logistic import LogisticRegression, new_probe


@register("simclr-lr")
@dataclass(eq=False, repr=False, kw_only=True)
class LinearProbe(FeatureMethod):
    """Logistic regression on the features of the labelled images, which no label has shaped.

    Features are scaled such that their mean square is 1.

    Parameters
    ----------
    C, tol, lr_max_iter : of the multinomial `LogisticRegression`: inverse strength of the penalty,
        largest gradient at the end, most iterations.
    All others: see `FeatureMethod`.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the classifier's prediction, for labelled images too.
    probabilities_ : ``(n, n_clusters)`` float32, 0 for a class that had no label.
    head_ : the trained `LogisticRegression`; it takes rows of scaled features.

    References
    ----------
    Chen et al., ICML 2020, section 2.3 (linear evaluation).
    """

    tags: ClassVar[Tags] = Tags(needs_labels=True, family="probe")
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": FeatureMethod.schedules["quick"] | {"lr_max_iter": 100},
        "smoke": FeatureMethod.schedules["smoke"] | {"lr_max_iter": 20},
    }

    C: float = 1.0
    tol: float = 1e-4
    lr_max_iter: int = 5000

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled.

        Height and width are at least 8.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used, or no label at all.
        """
        X, y, context = self._begin(X, y, context)
        rows = self._learn_features(X, context)
        self._scale = float(1 / np.sqrt(np.square(rows).mean() or 1.0))
        self.head_ = self._learn(rows * self._scale, y, context)
        self.probabilities_ = self.head_.predict_proba(rows * self._scale)
        self.labels_ = self.probabilities_.argmax(1)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most probable class ``(n,)`` int64 of each image."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """The classifier's probabilities ``(n, n_clusters)`` float32."""
        return self.head_.predict_proba(self.transform(X) * self._scale)

    def _learn(self, rows: np.ndarray, y: np.ndarray, context: Context) -> LogisticRegression:
        """The classifier, from scaled features ``(n, d)`` and labels ``y``, -1 = unlabelled."""
        labelled = y != UNLABELLED
        return new_probe(self).fit(rows[labelled], y[labelled], context)

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        new_probe(self)


@register("self-training")
@dataclass(eq=False, repr=False, kw_only=True)
class SelfTraining(LinearProbe):
    """The linear probe, taught again with the predictions that it is sure of, in turn.

    scikit-learn's `SelfTrainingClassifier` around the classifier of `simclr-lr`.

    Parameters
    ----------
    threshold : probability above which a prediction becomes a label.
    n_rounds : most rounds.
    All others: see `LinearProbe`.

    References
    ----------
    Yarowsky, ACL 1995.
    """

    threshold: float = 0.9
    n_rounds: int = 5

    def _learn(self, rows: np.ndarray, y: np.ndarray, context: Context) -> LogisticRegression:
        """The classifier of the last round."""

        def learn(rows: np.ndarray, y: np.ndarray) -> LogisticRegression:
            return new_probe(self).fit(rows, y, context)

        model = SelfTrainingClassifier(
            _Estimator(learn), threshold=self.threshold, max_iter=self.n_rounds
        )
        model.fit(rows, y)
        context.log(
            rounds=int(model.n_iter_), taught=int((model.transduction_ != UNLABELLED).sum())
        )
        return model.estimator_.head_

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold is {self.threshold}; expected 0 or more, below 1")
        if self.n_rounds < 1:
            raise ValueError(f"n_rounds is {self.n_rounds}; expected at least 1")


class _Estimator(ClassifierMixin, BaseEstimator):
    """A head as a scikit-learn classifier; `learn` is a function, which clones share."""

    def __init__(self, learn: Callable[[np.ndarray, np.ndarray], LogisticRegression]) -> None:
        self.learn = learn

    def fit(self, rows: np.ndarray, y: np.ndarray) -> _Estimator:
        """Learn from rows ``(n, d)`` of classes ``y``."""
        self.head_ = self.learn(rows, y)
        self.classes_ = self.head_.classes_
        return self

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        """Probabilities ``(n, number of classes seen)``."""
        return self.head_.predict_proba(rows)[:, self.classes_]
