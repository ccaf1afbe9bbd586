"""Clusters and classes on the manifold that UMAP finds in label-free features.

UMAP joins every image with its nearest neighbours and lays this graph out in few dimensions. There
`n2d` fits a mixture of Gaussians without labels; `ss-umap` lets labels take part in the layout and
then asks the nearest labelled images.

Notation: features ``z`` ``(n, d)``, places on the manifold ``w`` ``(n, n_components)``.

References
----------
McInnes, Healy and Melville, UMAP: Uniform Manifold Approximation and Projection for Dimension
Reduction, arXiv:1802.03426, 2018.
McConville, Santos-Rodríguez, Piechocki and Craddock, N2D: (Not Too) Deep Clustering via Clustering
the Local Manifold of an Autoencoded Embedding, ICPR 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from methods.method import UNLABELLED, Context, Tags, check_like_fitted, derive_seed
from methods.registry import register
from methods.toolkit.features import FeatureMethod

FEWEST_EPOCHS = 3  # a new image has a third of them


@dataclass(eq=False, repr=False, kw_only=True)
class ManifoldMethod(FeatureMethod):
    """What both methods share: UMAP's layout of the features, and where a new image is in it.

    Parameters
    ----------
    n_clusters : number of classes.
    features : see `FeatureMethod`, as are the parameters of its stages.
    n_neighbors : images that each one is joined with, itself among them.
    min_dist : how near each other UMAP lays images out, from 0 to 1.
    n_components : dimensions of the layout; None takes `n_clusters`.
    n_epochs : passes of the layout; None leaves it to UMAP: 500 for up to 10,000 images, else 200.
    random_state : seed. With one UMAP has a single thread.

    Attributes
    ----------
    labels_ : ``(n,)`` int64.
    probabilities_ : ``(n, n_clusters)`` float32.
    umap_ : the fitted `umap.UMAP`.
    """

    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": FeatureMethod.schedules["quick"],
        "smoke": FeatureMethod.schedules["smoke"] | {"n_epochs": 10},
    }

    n_neighbors: int = 15
    min_dist: float = 0.1
    n_components: int | None = 2
    n_epochs: int | None = None

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most probable class ``(m,)`` int64 of each image."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Soft assignments ``(m, n_clusters)`` float32 of images of the fitted shape."""
        return self._soft(self.transform(X))

    def transform(self, X: np.ndarray) -> np.ndarray:
        """The places ``(m, n_components)`` float64 of images of the fitted shape.

        An image that is equal to a fitted one, pixel by pixel, is where that one is. All others are
        laid out together by UMAP's own `transform`: their places depend a little on each other.
        """
        X = check_like_fitted(self, X)
        fitted = np.array([self._fitted.get(digest, -1) for digest in digests(X)])
        w = self._w[fitted]
        new = fitted == -1
        if new.any():
            w[new] = self.umap_.transform(super().transform(X[new]))
        return w

    def _soft(self, w: np.ndarray) -> np.ndarray:
        """Soft assignments ``(m, n_clusters)`` float32 of places ``(m, n_components)``."""
        raise NotImplementedError

    def _lay_out(
        self, X: np.ndarray, context: Context, y: np.ndarray | None = None, **labelled: Any
    ) -> np.ndarray:
        """The places ``(n, n_components)`` float64 of the fitted images; sets `umap_`.

        Equal images have one place, that of the first of them.

        Parameters
        ----------
        y : ``(n,)`` labels that take part, -1 where there is none; None lets none take part.
        labelled : UMAP's parameters that say how.
        """
        from umap import UMAP  # numba compiles it, which takes up to a minute

        z = self._learn_features(X, context)
        model = UMAP(
            n_neighbors=self.n_neighbors,
            min_dist=self.min_dist,
            n_components=self._n_components,
            n_epochs=self.n_epochs,
            random_state=self._seed("umap"),
            transform_seed=self._seed("new images"),
            n_jobs=1,
            **labelled,
        )
        with threadpool_limits(1):  # so that no sum depends on the number of threads
            self.umap_ = model.fit(z, y)
        self._fitted: dict[bytes, int] = {}
        first = [self._fitted.setdefault(digest, i) for i, digest in enumerate(digests(X))]
        self._w = self.umap_.embedding_.astype(np.float64)[first]
        return self._w

    @property
    def _n_components(self) -> int:
        return self.n_clusters if self.n_components is None else self.n_components

    def _seed(self, name: str) -> int:
        return derive_seed(self.random_state, name) % 2**32

    def _check_parameters(self, n: int) -> None:
        """Raise ValueError for a parameter that n images cannot be laid out with."""
        super()._check_parameters(n)
        if not 2 <= self.n_neighbors < n:
            raise ValueError(
                f"n_neighbors is {self.n_neighbors} with {n} images; expected 2 to {n - 1}"
            )
        if not 0 <= self.min_dist <= 1:
            raise ValueError(f"min_dist is {self.min_dist}; expected 0 to 1")
        if not 1 <= self._n_components < n - 1:
            raise ValueError(
                f"n_components is {self._n_components} with {n} images; expected 1 to {n - 2}"
            )
        if self.n_epochs is not None and not self.n_epochs >= FEWEST_EPOCHS:
            raise ValueError(f"n_epochs is {self.n_epochs}; expected at least {FEWEST_EPOCHS}")


def digests(X: np.ndarray) -> Iterator[bytes]:
    """16 bytes for each image of ``X`` ``(n, ...)``: the same for equal images alone."""
    return (blake2b(image.tobytes(), digest_size=16).digest() for image in X)


@register("n2d")
@dataclass(eq=False, repr=False, kw_only=True)
class N2D(ManifoldMethod):
    """Gaussians on the manifold of an autoencoder's embedding (McConville et al. 2020).

    The embedding is that of DCEC's convolutional autoencoder, where the paper's is fully connected.
    It ignores labels, as the paper: the suite names its components by the revealed ones.

    Parameters
    ----------
    n_clusters : number of Gaussians, each with a covariance of its own.
    n_init : starts of the mixture, of which the likeliest end counts.
    features, n_neighbors, min_dist, n_components, n_epochs, random_state : see `ManifoldMethod`.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the most probable component of each image.
    probabilities_ : ``(n, n_clusters)`` float32, the components' responsibilities.
    mixture_ : the fitted `sklearn.mixture.GaussianMixture`.
    umap_ : the fitted `umap.UMAP`.
    """

    tags: ClassVar[Tags] = Tags(
        uses_labels=False, family="manifold", columns="clusters", in_all=False
    )

    features: str = "autoencoder"
    n_neighbors: int = 20
    min_dist: float = 0.0
    n_components: int | None = None
    n_init: int = 1

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8; ``y`` is not used.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        """
        X, y, context = self._begin(X, y, context)
        w = self._lay_out(X, context)
        seed = self._seed("mixture")
        mixture = GaussianMixture(self.n_clusters, n_init=self.n_init, random_state=seed)
        with threadpool_limits(1):
            self.mixture_ = mixture.fit(w)
        context.log(mixture_iterations=mixture.n_iter_, log_likelihood=float(mixture.lower_bound_))
        self.probabilities_ = self._soft(w)
        self.labels_ = self.probabilities_.argmax(1)
        return self

    def _soft(self, w: np.ndarray) -> np.ndarray:
        return self.mixture_.predict_proba(w).astype(np.float32)

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        if not 1 <= self.n_clusters <= n:
            raise ValueError(f"n_clusters is {self.n_clusters} for {n} images; expected 1 to {n}")
        if not self.n_init >= 1:
            raise ValueError(f"n_init is {self.n_init}; expected at least 1")


@register("ss-umap")
@dataclass(eq=False, repr=False, kw_only=True)
class SSUMAP(ManifoldMethod):
    """UMAP that knows the labels, then a vote of the nearest labelled images.

    umap-learn's own semi-supervised layout: an edge between images of two classes counts less, by
    `target_weight`, than one between images of one class. Where one of the two is unlabelled, the
    edge is as the features have it, up to a factor.

    A labelled image is the nearest to itself; so its own label has one of its `k` votes. Where
    classes have as many votes, as all have with a label each, nearness decides (`vote_weights`).

    Parameters
    ----------
    n_clusters : number of classes.
    k : labelled images that vote, at most all.
    target_weight : what labels weigh against features in the layout, from 0 to 1.
    features, n_neighbors, min_dist, n_components, n_epochs, random_state : see `ManifoldMethod`.
        The defaults are umap-learn's.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the class with most votes, for labelled images too.
    probabilities_ : ``(n, n_clusters)`` float32, the share of the weights of the votes; 0 for a
        class that had no label.
    voters_ : the fitted `sklearn.neighbors.KNeighborsClassifier`.
    umap_ : the fitted `umap.UMAP`.

    References
    ----------
    umap-learn's documentation, "UMAP for Supervised Dimension Reduction and Metric Learning", whose
    data is Fashion-MNIST.
    """

    version: ClassVar[int] = 2  # nearness decides ties
    tags: ClassVar[Tags] = Tags(needs_labels=True, family="manifold", in_all=False)

    k: int = 5
    target_weight: float = 0.5

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
        w = self._lay_out(X, context, y=y, target_weight=self.target_weight)
        voters = KNeighborsClassifier(min(self.k, int(labelled.sum())), weights=vote_weights)
        self.voters_ = voters.fit(w[labelled], y[labelled])
        self.probabilities_ = self._soft(w)
        self.labels_ = self.probabilities_.argmax(1)
        return self

    def _soft(self, w: np.ndarray) -> np.ndarray:
        shares = np.zeros((len(w), self.n_clusters), dtype=np.float32)
        shares[:, self.voters_.classes_] = self.voters_.predict_proba(w)
        return shares

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        if not self.k >= 1:
            raise ValueError(f"k is {self.k}; expected at least 1")
        if not 0 <= self.target_weight <= 1:
            raise ValueError(f"target_weight is {self.target_weight}; expected 0 to 1")


def vote_weights(distances: np.ndarray) -> np.ndarray:
    """What the votes of the k nearest weigh, ``(n, k)`` as their `distances`, the nearest first.

    One each, and a little more the nearer they are. All that is more adds up to half a vote, so
    that it decides between classes with as many votes and never else.

    Examples
    --------
    >>> import numpy as np
    >>> vote_weights(np.array([[0.1, 0.4]])).round(3)
    array([[1.333, 1.167]])
    """
    n, k = distances.shape
    return np.tile(1 + np.arange(k, 0, -1) / (k * (k + 1)), (n, 1))
