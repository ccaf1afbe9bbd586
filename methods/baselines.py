"""k-means on pixels and on features that were learnt without labels: what uses no label at all."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from methods.method import (
    Context,
    Method,
    StageRequest,
    Tags,
    check_like_fitted,
    derive_seed,
    flatten,
)
from methods.registry import register
from methods.toolkit.features import FeatureMethod
from methods.toolkit.rows import Clustered, kmeans_of_rows
from methods.toolkit.stages.kmeans import kmeans, nearest


@register("kmeans")
@dataclass(eq=False, repr=False)
class PixelKMeans(Method):
    """k-means on the pixels; ignores labels.

    Parameters
    ----------
    n_clusters : number of clusters.
    n_init : runs, of which the one with the smallest inertia counts.
    max_iter : most iterations of a run.
    random_state : seed.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the cluster of each image.
    cluster_centers_ : ``(n_clusters, h·w·c)`` float32, pixels in [0, 1].
    inertia_, n_iter_ : sum of squared distances, and the iterations of the best run.
    """

    tags: ClassVar[Tags] = Tags(uses_labels=False, family="k-means")
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"n_init": 5},
        "smoke": {"n_init": 2},
    }

    n_clusters: int = 10
    _: KW_ONLY
    n_init: int = 20
    max_iter: int = 300
    random_state: int | None = None

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8; ``y`` is not used.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        """
        X, y, context = self._begin(X, y, context)
        found = self._ask(self.stages(0)[0], X, context)
        self.labels_ = np.array(found["labels"])  # copies: the stage's arrays are memory maps
        self.cluster_centers_ = np.array(found["centres"])
        self.inertia_, self.n_iter_ = float(found["inertia"]), int(found["n_iter"])
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The nearest centre ``(n,)`` int64 of each image."""
        return nearest(check_like_fitted(self, X), self.cluster_centers_)[0]

    def transform(self, X: np.ndarray) -> np.ndarray:
        """What is clustered: the pixels ``(m, h·w·c)`` float32 in [0, 1]."""
        return flatten(check_like_fitted(self, X))

    def stages(self, n_labels: int) -> list[StageRequest]:
        """k-means, whatever is labelled."""
        params = {"n_clusters": self.n_clusters, "n_init": self.n_init, "max_iter": self.max_iter}
        return [StageRequest(kmeans, params)]


@register("cae-kmeans", features="autoencoder")
@register("simclr-kmeans")
@dataclass(eq=False, repr=False, kw_only=True)
class FeatureKMeans(FeatureMethod):
    """k-means on features that were learnt without labels; ignores labels.

    ``cae-kmeans`` is where DCEC starts: the same autoencoder (the same stage), the same runs of
    k-means.

    Parameters
    ----------
    n_init : runs, of which the one with the smallest inertia counts.
    All others: see `FeatureMethod`.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the nearest centre of each image.
    cluster_centers_ : ``(n_clusters, d)`` float32.
    """

    version: ClassVar[int] = 2  # scikit-learn's k-means
    tags: ClassVar[Tags] = Tags(uses_labels=False, family="k-means")
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": FeatureMethod.schedules["quick"],
        "smoke": FeatureMethod.schedules["smoke"] | {"n_init": 2},
    }

    n_init: int = 20

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled.

        Height and width are at least 8, except for the features ``"pixels"``.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        """
        X, y, context = self._begin(X, y, context)
        x = self._learn_features(X, context)
        self.cluster_centers_ = self._cluster(x, y, context).centres
        self.labels_ = nearest(x, self.cluster_centers_)[0]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The nearest centre ``(n,)`` int64 of each image's features."""
        return nearest(self.transform(X), self.cluster_centers_)[0]

    def _cluster(self, x: np.ndarray, y: np.ndarray, context: Context) -> Clustered:
        """The centres, and the clusters of the features ``(n, d)`` when they were found."""
        seed = derive_seed(self.random_state, "kmeans")
        return kmeans_of_rows(x, self.n_clusters, self.n_init, seed)

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        if not 1 <= self.n_clusters <= n:
            raise ValueError(
                f"n_clusters is {self.n_clusters} for {n} images; expected 1 to {n}: ask for fewer"
            )
        if self.n_init < 1:
            raise ValueError(f"n_init is {self.n_init}; expected at least 1")
