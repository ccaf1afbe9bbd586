"""k-means on pixels and on an autoencoder's embedding: what uses no label at all."""

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
)
from methods.registry import register
from methods.toolkit.rows import kmeans_of_rows
from methods.toolkit.stages.autoencoder import autoencoder, load_autoencoder
from methods.toolkit.stages.kmeans import kmeans, nearest
from methods.toolkit.training import image_tensor, in_batches


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

    def stages(self, n_labels: int) -> list[StageRequest]:
        """k-means, whatever is labelled."""
        params = {"n_clusters": self.n_clusters, "n_init": self.n_init, "max_iter": self.max_iter}
        return [StageRequest(kmeans, params)]


@register("cae-kmeans")
@dataclass(eq=False, repr=False)
class AutoencoderKMeans(Method):
    """k-means on the embedding of DCEC's convolutional autoencoder; ignores labels.

    It is where DCEC starts: the same autoencoder (the same stage), the same runs of k-means.

    Parameters
    ----------
    n_clusters : number of clusters.
    pretrain_epochs : epochs of the autoencoder.
    batch_size, lr, embedding_dim : of the autoencoder.
    n_init : runs of k-means, of which the one with the smallest inertia counts.
    random_state : seed.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the cluster of each image.
    cluster_centers_ : ``(n_clusters, embedding_dim)`` float32.
    network_ : the trained `CAE`.

    References
    ----------
    Guo, Liu, Zhu and Yin, Deep Clustering with Convolutional Autoencoders, ICONIP 2017.
    """

    version: ClassVar[int] = 2  # scikit-learn's k-means
    tags: ClassVar[Tags] = Tags(uses_labels=False, family="k-means")
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"pretrain_epochs": 20},
        "smoke": {"pretrain_epochs": 2, "n_init": 2},
    }

    n_clusters: int = 10
    _: KW_ONLY
    pretrain_epochs: int = 200
    batch_size: int = 256
    lr: float = 1e-3
    embedding_dim: int = 10
    n_init: int = 20
    random_state: int | None = None

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8, h and w at least 8; ``y`` is not used.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        """
        X, y, context = self._begin(X, y, context)
        z = self._embed(X, context)
        seed = derive_seed(self.random_state, "kmeans")
        found = kmeans_of_rows(z, self.n_clusters, self.n_init, seed)
        self.labels_, self.cluster_centers_ = found.labels, found.centres
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The nearest centre ``(n,)`` int64 of each image's embedding."""
        return nearest(self.transform(X), self.cluster_centers_)[0]

    def transform(self, X: np.ndarray) -> np.ndarray:
        """The embedding ``(n, embedding_dim)`` float32."""
        images = image_tensor(check_like_fitted(self, X), self._inference.device)
        return in_batches(self.network_.encoder, images, self._inference).cpu().numpy()

    def stages(self, n_labels: int) -> list[StageRequest]:
        """The autoencoder that DCEC asks for, whatever is labelled."""
        params = {
            "epochs": self.pretrain_epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "embedding_dim": self.embedding_dim,
        }
        return [StageRequest(autoencoder, params)]

    def _embed(self, X: np.ndarray, context: Context) -> np.ndarray:
        """The embedding ``(n, d)`` of the shared autoencoder, which becomes this method's own."""
        pretrained = self._ask(self.stages(0)[0], X, context)
        self.network_ = load_autoencoder(pretrained, self.image_shape_).to(context.device)
        return np.array(pretrained["embedding"])  # a copy: the stage's arrays are memory maps
