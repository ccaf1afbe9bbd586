"""Images described by their distances to the centres of k-means, and a classifier on top.

References
----------
Das and Thada, Semi-Supervised Learning on Fashion-MNIST dataset (the pipeline with 100, 200 and 300
clusters).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

from methods.method import (
    UNLABELLED,
    Context,
    StageRequest,
    Tags,
    check_like_fitted,
)
from methods.registry import register
from methods.toolkit.heads.table import ClassifierMethod
from methods.toolkit.rows import as_rows
from methods.toolkit.stages.kmeans import kmeans

BLOCK = 4096  # images as float32 rows: 13 MB


def distances_to(centres: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Euclidean distances ``(n, k)`` float32 of images to `centres` ``(k, h·w·c)``.

    Of pixels in [0, 1], `BLOCK` images at a time; the sums are in float64.

    Parameters
    ----------
    X : uint8 images ``(n, h, w[, c])``.
    """
    found = np.empty((len(X), len(centres)), dtype=np.float32)
    for start in range(0, len(X), BLOCK):
        rows = as_rows(X[start : start + BLOCK])
        found[start : start + BLOCK] = euclidean_distances(rows, centres)
    return found


@register("kmeans-distances", in_all=False)
@dataclass(eq=False, repr=False)
class KMeansDistances(ClassifierMethod):
    """Logistic regression on the distances to the centres of k-means.

    k-means finds k clusters in all images, without labels. Each image is replaced by its distances
    to their centres, unscaled, as in the source. Logistic regression learns from those of the
    labelled instances.

    Parameters
    ----------
    n_clusters : number of classes.
    k : clusters of k-means; 100, 200 and 300 in the source.
    C, multi_class, tol, lr_max_iter : of logistic regression: inverse strength of the penalty,
        ``"ovr"`` or ``"multinomial"``, largest gradient at the end, most iterations.
    max_iter : most iterations of k-means.
    random_state : seed of k-means.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the classifier's prediction, for labelled instances too.
    probabilities_ : ``(n, n_clusters)`` float32, 0 for a class that had no label.
    cluster_centers_ : ``(k, h·w·c)`` float32, pixels in [0, 1].
    head_ : the trained `LogisticRegression`; it takes rows of k distances.

    References
    ----------
    Das and Thada, Semi-Supervised Learning on Fashion-MNIST dataset.
    """

    tags: ClassVar[Tags] = Tags(needs_labels=True, family="k-means")
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"max_iter": 20, "lr_max_iter": 100},
        "smoke": {"max_iter": 5, "lr_max_iter": 20},
    }

    n_clusters: int = 10
    _: KW_ONLY
    k: int = 100
    C: float = 1.0
    multi_class: str = "ovr"
    tol: float = 1e-4
    lr_max_iter: int = 5000
    max_iter: int = 300
    random_state: int | None = None

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used, or no label at all.
        """
        X, y, context = self._begin(X, y, context)
        labelled = y != UNLABELLED
        lr = {"C": self.C, "multi_class": self.multi_class, "tol": self.tol}
        head = self._new_head("lr", lr | {"max_iter": self.lr_max_iter})
        found = self._ask(self.stages(0)[0], X, context)
        self.cluster_centers_ = np.array(found["centres"])  # a copy: the stage's is a memory map
        distances = distances_to(self.cluster_centers_, X[labelled])
        self.head_ = head.fit(distances, y[labelled], context)
        self._label(X)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """The classifier's probabilities ``(n, n_clusters)`` float32."""
        distances = self.transform(X)
        return self.head_.predict_proba(distances)

    def transform(self, X: np.ndarray) -> np.ndarray:
        """The distances ``(n, k)`` float32 of images to the centres."""
        X = check_like_fitted(self, X)
        return distances_to(self.cluster_centers_, X)

    def stages(self, n_labels: int) -> list[StageRequest]:
        """k-means with k clusters, whatever is labelled; shared with k-means label propagation."""
        return [StageRequest(kmeans, {"n_clusters": self.k, "max_iter": self.max_iter})]

    def _check_parameters(self, n: int) -> None:
        if not 1 <= self.k <= n:
            raise ValueError(
                f"k is {self.k} with {n} images; expected 1 to {n} centres: ask for fewer"
            )
