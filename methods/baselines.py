"""k-means on pixels and on an autoencoder's embedding: what uses no label at all."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from methods.method import (
    Context,
    Method,
    StageRequest,
    Tags,
    check_images,
    check_labels,
    check_like_fitted,
    derive_seed,
)
from methods.registry import register
from methods.toolkit.stages.autoencoder import autoencoder, load_autoencoder
from methods.toolkit.stages.kmeans import kmeans, nearest
from methods.toolkit.training import image_tensor, in_batches


@register("kmeans")
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

    tags: ClassVar[Tags] = Tags(uses_labels=False)
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"n_init": 5},
        "smoke": {"n_init": 2},
    }

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        n_init: int = 20,
        max_iter: int = 300,
        random_state: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> PixelKMeans:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8; ``y`` is not used.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        """
        X = check_images(X)
        check_labels(y, len(X), self.n_clusters)
        [request] = self.stages(0)
        found = (context or Context()).stage(
            request.function, X, random_state=self.random_state, **request.params
        )
        self.image_shape_ = X.shape[1:]
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
class AutoencoderKMeans(Method):
    """k-means on the embedding of DCEC's convolutional autoencoder; ignores labels.

    It is where DCEC starts: the same autoencoder (the same stage), the same number of runs.

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

    tags: ClassVar[Tags] = Tags(uses_labels=False)
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"pretrain_epochs": 20},
        "smoke": {"pretrain_epochs": 2, "n_init": 2},
    }

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        pretrain_epochs: int = 200,
        batch_size: int = 256,
        lr: float = 1e-3,
        embedding_dim: int = 10,
        n_init: int = 20,
        random_state: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.pretrain_epochs = pretrain_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.embedding_dim = embedding_dim
        self.n_init = n_init
        self.random_state = random_state

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> AutoencoderKMeans:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8, h and w at least 8; ``y`` is not used.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        """
        X = check_images(X)
        check_labels(y, len(X), self.n_clusters)
        context = context or Context()
        found = kmeans(
            self._embed(X, context),
            random_state=derive_seed(self.random_state, "kmeans"),
            context=context,
            n_clusters=self.n_clusters,
            n_init=self.n_init,
        )
        self.labels_, self.cluster_centers_ = found["labels"], found["centres"]
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
        [request] = self.stages(0)
        pretrained = context.stage(
            request.function, X, random_state=self.random_state, **request.params
        )
        self.image_shape_ = X.shape[1:]
        self.network_ = load_autoencoder(pretrained, self.image_shape_).to(context.device)
        self._inference = Context(context.device, context.precision)
        return np.array(pretrained["embedding"])  # a copy: the stage's arrays are memory maps
