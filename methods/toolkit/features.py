"""Features that were learnt without labels, and the base of the methods that start from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from methods.method import (
    Arrays,
    Context,
    Method,
    StageRequest,
    check_choice,
    check_images,
    check_like_fitted,
    derive_seed,
    flatten,
)
from methods.toolkit.asking import check_budget, representatives
from methods.toolkit.nets.resnet import SmallResNet, encode
from methods.toolkit.stages.autoencoder import autoencoder, load_autoencoder
from methods.toolkit.stages.kmeans import kmeans
from methods.toolkit.stages.simclr import simclr
from methods.toolkit.training import image_tensor, in_batches, load_weights

FEATURES = ("simclr", "autoencoder", "pixels")
MOST_CLUSTERS, ASKING_ITERATIONS = 2000, 100  # of k-means for the labels that are asked for


@dataclass(eq=False, repr=False, kw_only=True)
class FeatureMethod(Method):
    """A method that works on features of the images instead of the images.

    Parameters
    ----------
    n_clusters : number of classes.
    features : ``"simclr"``, rows of length 1, as SimCLR compares them; ``"autoencoder"``, the
        embedding of DCEC's; or ``"pixels"`` in [0, 1].
    autoencoder_epochs, embedding_dim : of the stage `autoencoder`; not used by other features.
    simclr_epochs, simclr_batch_size, simclr_lr, width, feature_dim, projection_dim : of the stage
        `simclr`; not used by other features.
    random_state : seed.
    """

    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"autoencoder_epochs": 20, "simclr_epochs": 8, "width": 32},
        "smoke": {"autoencoder_epochs": 2, "simclr_epochs": 3, "simclr_batch_size": 64}
        | {"simclr_lr": 0.1, "width": 4, "feature_dim": 32, "projection_dim": 16},
    }

    n_clusters: int = 10
    features: str = "simclr"
    autoencoder_epochs: int = 200
    embedding_dim: int = 10
    simclr_epochs: int = 500
    simclr_batch_size: int = 512
    simclr_lr: float = 0.4
    width: int = 64
    feature_dim: int = 512
    projection_dim: int = 128
    random_state: int | None = None

    def transform(self, X: np.ndarray) -> np.ndarray:
        """The features ``(m, d)`` float32 of images of the fitted shape."""
        X = check_like_fitted(self, X)
        if self.features == "pixels":
            return flatten(X)
        images = image_tensor(X, self._inference.device)
        if self.features == "autoencoder":
            return in_batches(self.encoder_, images, self._inference).cpu().numpy()
        return self._scaled(encode(self.encoder_, images, self._inference).numpy())

    def stages(self, n_labels: int) -> list[StageRequest]:
        """What the features come from, whatever is labelled."""
        request = self._feature_stage()
        return [] if request is None else [request]

    def select(self, X: np.ndarray, budget: int, context: Context | None = None) -> np.ndarray:
        """The sorted indices ``(budget,)`` of the instances whose labels the method asks for.

        Those nearest the centres of k-means on the features (at most 100 iterations), with as many
        clusters as the budget, at most 2,000; what is left of the budget is drawn at random.

        Raises
        ------
        ValueError : the budget is not between 1 and the number of images.
        """
        X, context = check_images(X), context or Context()
        self._check_parameters(len(X))
        check_budget(budget, len(X))
        request = self._feature_stage()
        features = flatten(X)
        if request is not None:
            features = self._features_in(self._ask(request, X, context))
        params = {"n_clusters": min(budget, MOST_CLUSTERS), "max_iter": ASKING_ITERATIONS}
        clusters = self._ask(StageRequest(kmeans, params), self._scaled(features), context)
        return representatives(clusters, budget, derive_seed(self.random_state, "select"))

    def _learn_features(self, X: np.ndarray, context: Context) -> np.ndarray:
        """The features ``(n, d)`` float32 of the fitted images; sets `encoder_`, their network."""
        return self._scaled(self._stage_features(X, context))

    def _stage_features(self, X: np.ndarray, context: Context) -> np.ndarray:
        """The same as the stage has them; sets `encoder_`."""
        request = self._feature_stage()
        if request is None:
            return flatten(X)
        arrays = self._ask(request, X, context)
        self.encoder_ = self._encoder(arrays).to(context.device)
        return self._features_in(arrays)

    def _features_in(self, arrays: Arrays) -> np.ndarray:
        """The features of the fitted images among what the stage returned."""
        name = "embedding" if self.features == "autoencoder" else "features"
        return np.array(arrays[name])  # a copy: the stage's arrays are memory maps

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        """Those of SimCLR have length 1: it compares them by the cosine."""
        return unit_rows(features) if self.features == "simclr" else features

    def _feature_stage(self) -> StageRequest | None:
        """The stage that the features come from; None for pixels."""
        if self.features == "autoencoder":
            params = {"epochs": self.autoencoder_epochs, "batch_size": 256, "lr": 1e-3}
            return StageRequest(autoencoder, params | {"embedding_dim": self.embedding_dim})
        if self.features == "simclr":
            renamed = {name: getattr(self, f"simclr_{name}") for name in ("epochs", "batch_size")}
            same = {
                name: getattr(self, name) for name in ("feature_dim", "projection_dim", "width")
            }
            return StageRequest(simclr, renamed | {"lr": self.simclr_lr, "temperature": 0.1} | same)
        return None

    def _encoder(self, arrays: Arrays) -> torch.nn.Module:
        """The network that gives the features of new images."""
        if self.features == "autoencoder":
            return load_autoencoder(arrays, self.image_shape_).encoder
        network = SmallResNet(self.image_shape_, self.width, self.feature_dim)
        load_weights(network, arrays, "encoder.")
        return network.eval()

    def _check_parameters(self, n: int) -> None:
        """Raise ValueError for a parameter that is out of range."""
        check_choice("features", self.features, FEATURES)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows ``(n, d)`` scaled to length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, np.finfo(rows.dtype).tiny)


@dataclass(eq=False, repr=False, kw_only=True)
class AutoencoderMethod(Method):
    """A method that starts from DCEC's autoencoder and trains it on.

    Parameters
    ----------
    n_clusters : number of clusters.
    pretrain_epochs : epochs of the autoencoder alone.
    batch_size, lr : images per step and Adam's learning rate.
    embedding_dim : size of the embedding.
    random_state : seed.
    """

    n_clusters: int = 10
    pretrain_epochs: int = 200
    batch_size: int = 256
    lr: float = 1e-3
    embedding_dim: int = 10
    random_state: int | None = None

    def transform(self, X: np.ndarray) -> np.ndarray:
        """The embedding ``(n, embedding_dim)`` float32."""
        images = image_tensor(check_like_fitted(self, X), self._inference.device)
        return in_batches(self.network_.encoder, images, self._inference).cpu().numpy()

    def stages(self, n_labels: int) -> list[StageRequest]:
        """The autoencoder that DCEC asks for, whatever is labelled."""
        params = {"epochs": self.pretrain_epochs, "batch_size": self.batch_size, "lr": self.lr}
        return [StageRequest(autoencoder, params | {"embedding_dim": self.embedding_dim})]

    def _embed(self, X: np.ndarray, context: Context) -> np.ndarray:
        """The embedding ``(n, d)`` of the shared autoencoder, which becomes this method's own."""
        pretrained = self._ask(self.stages(0)[0], X, context)
        self.network_ = load_autoencoder(pretrained, self.image_shape_).to(context.device)
        return np.array(pretrained["embedding"])  # a copy: the stage's arrays are memory maps
