"""What any semi-supervised method has to beat.

`kmeans` and `cae-kmeans` use no label at all. The supervised baselines learn from the labelled
instances and from nothing else.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from methods.method import (
    UNLABELLED,
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
from methods.toolkit.autoencoder import autoencoder, load_autoencoder
from methods.toolkit.heads import HEADS, Head, Predictor
from methods.toolkit.kmeans import kmeans, nearest
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


class Supervised(ClassifierMethod):
    """A classifier that learns from the labelled instances alone.

    Its parameters other than ``n_clusters`` and ``random_state`` are those of the classifier.
    """

    tags: ClassVar[Tags] = Tags(needs_labels=True)
    head: ClassVar[str]

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Supervised:
        """Learn from the images ``X`` ``(n, h, w[, c])`` uint8 with a label in ``y``.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used, or no label at all.
        """
        X = check_images(X)
        y = check_labels(y, len(X), self.n_clusters)
        labelled = y != UNLABELLED
        if not labelled.any():
            raise ValueError(
                f"{type(self).__name__} learns from labelled instances alone and y holds none (all "
                "-1): label some, or choose a method that needs no labels"
            )
        params = self.get_params(deep=False)
        own = {key: params[key] for key in params if key not in ("n_clusters", "random_state")}
        head = self._new_head(self.head, own)
        self.image_shape_ = X.shape[1:]
        self.head_ = head.fit(X[labelled], y[labelled], context or Context())
        self._label(X)
        return self


@register("supervised-lr")
class SupervisedLR(Supervised):
    """Logistic regression on the pixels of the labelled instances.

    Parameters
    ----------
    n_clusters : number of classes.
    C, multi_class, tol, max_iter : as in `LogisticRegression` of the toolkit.
    random_state : not used; the solution is unique.
    """

    head: ClassVar[str] = "lr"
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"max_iter": 100},
        "smoke": {"max_iter": 20},
    }

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        C: float = 1.0,
        multi_class: str = "ovr",
        tol: float = 1e-4,
        max_iter: int = 5000,
        random_state: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.C = C
        self.multi_class = multi_class
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state


@register("supervised-mlp")
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

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        epochs: int = 20,
        batch_size: int = 2000,
        lr: float = 1e-3,
        random_state: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state


@register("supervised-nn", in_all=False)
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

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        epochs: int = 100,
        patience: int = 8,
        batch_size: int = 32,
        lr: float = 1e-3,
        random_state: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state


@register("supervised-cnn")
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

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        steps: int = 10_000,
        batch_size: int = 128,
        lr: float = 3e-3,
        weight_decay: float = 0.05,
        width: int = 32,
        dropout: float = 0.3,
        random_state: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.width = width
        self.dropout = dropout
        self.random_state = random_state
