"""DCEC and SS-DCEC: an autoencoder's embedding and cluster centres, trained together.

Equation numbers are those of Fiorentino 2022, whose equations 1 to 4 are DCEC's. Symbols: images
``x`` ``(n, c, h, w)`` in [0, 1], embeddings ``z`` ``(n, d)``, centres ``mu`` ``(K, d)``, soft
assignments ``q`` and their targets ``p`` ``(n, K)``, labels ``y`` ``(n,)`` with -1 = unlabelled.

References
----------
Guo, Liu, Zhu and Yin, Deep Clustering with Convolutional Autoencoders, ICONIP 2017.
Fiorentino, Semi-Supervised Deep Clustering with Convolutional Autoencoders, 2022.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from methods.method import (
    UNLABELLED,
    Context,
    Tags,
    check_like_fitted,
    derive_seed,
    require_every_class,
)
from methods.registry import register
from methods.toolkit.assignments import compared, descend_until_settled
from methods.toolkit.fast.cuda_graphs import MEASURED
from methods.toolkit.features import AutoencoderMethod
from methods.toolkit.nets.cae import CAE
from methods.toolkit.rows import kmeans_of_rows
from methods.toolkit.training import (
    Batches,
    Loop,
    Parts,
    adam,
    autocast,
    check_finite,
    check_training,
    image_tensor,
    in_batches,
    pixels,
)

AT_LEAST = dict(n_clusters=1, max_iterations=0, update_interval=1, n_init=1, lam=0, delta=0)
SMALLEST_Q = 1e-7  # Keras' epsilon: what log q is cut off at


def student_t(z: torch.Tensor, mu: torch.Tensor) -> torch.Tensor:
    """Soft assignments q of embeddings to centres, by Student's t with one degree of freedom (1).

    ``z`` ``(n, d)`` and ``mu`` ``(K, d)`` give ``(n, K)``; rows sum to 1.
    """
    squared_distance = (z.unsqueeze(1) - mu).square().sum(2)  # (n, K)
    similarity = 1 / (1 + squared_distance)
    return similarity / similarity.sum(1, keepdim=True)


def target_distribution(q: torch.Tensor) -> torch.Tensor:
    """The sharpened targets p of all soft assignments q ``(n, K)`` of a data set (2).

    The cluster frequencies are sums over all n rows: give it the whole data set, not a batch. A
    cluster of frequency 0 has target 0.
    """
    frequency = q.sum(0).clamp_min(torch.finfo(q.dtype).tiny)  # (K,)
    weight = q.square() / frequency
    return weight / weight.sum(1, keepdim=True)


def clustering_loss(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(P || Q), summed over clusters and averaged over the rows of a batch (3).

    0·log 0 is 0, and q counts as at least 1e-7, so that the loss is finite for a q of exactly 0.
    """
    log_q = q.clamp_min(SMALLEST_Q).log()
    return (torch.xlogy(p, p) - p * log_q).sum(1).mean()


def inject_labels(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """P ``(n, K)`` with the one-hot of its class in the row of every labelled instance (5)."""
    labelled = y != UNLABELLED
    p = p.clone()
    p[labelled] = F.one_hot(y[labelled], p.shape[1]).to(p.dtype)
    return p


def class_means(z: torch.Tensor, y: torch.Tensor, n_clusters: int) -> torch.Tensor:
    """Centres ``(K, d)``: the mean embedding of each class's labelled instances (6).

    Raises
    ------
    ValueError : a class has no labelled instance.
    """
    labelled = y != UNLABELLED
    require_every_class(y.numpy(), n_clusters, "SS-DCEC starts each centre at the mean of a class")
    counts = torch.bincount(y[labelled], minlength=n_clusters)
    sums = torch.zeros(n_clusters, z.shape[1], dtype=torch.float64)
    sums.index_add_(0, y[labelled], z[labelled].double())
    return (sums / counts.unsqueeze(1)).to(z.dtype)


@register("dcec")
@dataclass(eq=False, repr=False)  # writes __init__: every field is a hyperparameter
class DCEC(AutoencoderMethod):
    """Deep clustering with a convolutional autoencoder; ignores labels (Guo et al. 2017).

    The autoencoder learns to reconstruct the images. k-means on its embedding gives the first
    centres. Then network and centres are trained together, on reconstruction and on the divergence
    between soft assignments and their sharpened targets.

    Parameters
    ----------
    n_clusters : number of clusters K.
    pretrain_epochs : epochs of the autoencoder alone.
    max_iterations : most steps of the joint phase.
    lam : weight of the clustering loss. 1 in Fiorentino 2022, 0.1 in Guo et al.'s code.
    update_interval : steps between two computations of the targets p, T in the papers.
    delta : stop when fewer than this share of all assignments changed within one interval.
    batch_size, lr : images per step and Adam's learning rate, in both phases.
    n_init : restarts of k-means.
    embedding_dim : size of the embedding.
    reconstruction : False leaves the decoder out of the joint phase, whose loss then is lam · L_c.
    shuffle : False runs the joint phase through the images in their order, as both authors' code.
    random_state : seed.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the cluster of each image after the last step.
    probabilities_ : ``(n, n_clusters)`` float32, the soft assignments that it is the largest of.
    cluster_centers_ : ``(n_clusters, embedding_dim)`` float32.
    network_ : the trained `CAE`.
    n_iter_ : steps of the joint phase.
    stopped_ : ``"converged"`` or ``"max_iterations"``.

    """

    version: ClassVar[int] = 2  # first centres by scikit-learn's k-means
    tags: ClassVar[Tags] = Tags(uses_labels=False, family="dcec", columns="clusters", resumes=True)
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"pretrain_epochs": 20, "max_iterations": 840},
        "smoke": {"pretrain_epochs": 2, "max_iterations": 10, "update_interval": 5, "n_init": 2},
    }

    n_clusters: int = 10
    _: KW_ONLY
    pretrain_epochs: int = 200
    max_iterations: int = 20_000
    lam: float = 1.0
    update_interval: int = 140
    delta: float = 0.001
    batch_size: int = 256
    lr: float = 1e-3
    n_init: int = 20
    embedding_dim: int = 10
    reconstruction: bool = True
    shuffle: bool = False
    random_state: int | None = None

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8, h and w at least 8.

        `DCEC` does not use ``y``; for `SSDCEC` it holds the labels ``(n,)``, -1 = unlabelled.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used; with some labels, a class
            without any.
        FloatingPointError : a loss or an assignment is not finite.
        """
        X, y, context = self._begin(X, y, context)
        z = self._embed(X, context)
        centres = self.first_centres(z, y)
        mu = nn.Parameter(torch.from_numpy(centres).to(context.device))  # (K, d)
        q = self._train_jointly(X, y, self.network_, mu, context)
        self.cluster_centers_ = mu.detach().cpu().numpy()
        self.probabilities_ = q.cpu().numpy()
        self.labels_ = self.probabilities_.argmax(1)
        return self

    def first_centres(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The centres ``(K, d)`` float32 that the joint phase starts from: k-means' on ``z``."""
        seed = derive_seed(self.random_state, "kmeans")  # those that `cae-kmeans` ends with
        return kmeans_of_rows(z, self.n_clusters, self.n_init, seed).centres

    def targets(self, q: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What all soft assignments ``(n, K)`` are to become: p ``(n, K)``."""
        return target_distribution(q)

    def _train_jointly(
        self, X: np.ndarray, y: np.ndarray, network: CAE, mu: nn.Parameter, context: Context
    ) -> torch.Tensor:
        """Train `network` and `mu` together, in place; q ``(n, K)`` of all images at the end."""
        images, labels = image_tensor(X, context.device), torch.from_numpy(y).to(context.device)
        p = torch.zeros(len(images), len(mu), device=context.device)  # (n, K)
        assigned = torch.full((len(images),), UNLABELLED, device=context.device)  # (n,), by q

        def losses(rows: torch.Tensor, step: int) -> tuple[torch.Tensor, ...]:
            x = pixels(images[rows])  # (b, c, h, w)
            with autocast(context):
                z = network.encoder(x)  # (b, d)
                x_hat = network.decoder(z) if self.reconstruction else None
            L_c = clustering_loss(p[rows], student_t(z.float(), mu))  # (3)
            if x_hat is None:
                return self.lam * L_c, torch.zeros_like(L_c), L_c
            L_r = F.mse_loss(x_hat.float(), x)
            return L_r + self.lam * L_c, L_r, L_c  # (4)

        seed = derive_seed(self.random_state, "batches") if self.shuffle else None
        batches = Batches(len(images), self.batch_size, seed, context.device)
        optimiser = adam([*network.parameters(), mu], self.lr)
        state: Parts = {"network": network, "mu": mu, "p": p, "assigned": assigned}
        loop = Loop("joint", losses, optimiser, batches, context, state, captured=MEASURED)

        def refresh() -> torch.Tensor:
            q = student_t(in_batches(network.encoder, images, context), mu.detach())  # (1)
            check_finite(q, "DCEC's soft assignments")
            L_r, L_c = loop.means() or (None, None)  # since the last refresh
            told = {"reconstruction_loss": L_r if self.reconstruction else None}
            told |= {"clustering_loss": L_c} | compared(q, assigned, labels)
            loop.log(iteration=loop.done, **told)
            p.copy_(self.targets(q, labels))  # (2), in SSDCEC also (5)
            assigned.copy_(q.argmax(1))
            return q

        q, self.stopped_ = descend_until_settled(
            loop, refresh, self.max_iterations, self.update_interval, self.delta
        )
        self.n_iter_ = loop.done
        return q

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most probable cluster ``(n,)`` int64 of each image."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """The soft assignments q ``(n, n_clusters)`` float32."""
        z = torch.from_numpy(self.transform(X))
        return student_t(z, torch.from_numpy(self.cluster_centers_)).numpy()

    def reconstruct(self, X: np.ndarray) -> np.ndarray:
        """What the decoder makes of the embedding: images of the shape of ``X``, float32.

        Its output is linear: pixels are near [0, 1], not within. Without `reconstruction` the joint
        phase does not train it, and it knows the embedding of the autoencoder alone.
        """
        images = image_tensor(check_like_fitted(self, X), self._inference.device)
        x_hat = in_batches(self.network_, images, self._inference).cpu().numpy()
        return x_hat[:, 0] if X.ndim == 3 else np.moveaxis(x_hat, 1, 3)

    def _check_parameters(self, n: int) -> None:
        check_training(epochs=self.pretrain_epochs, batch_size=self.batch_size, lr=self.lr)
        for name, least in AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")


@register("ss-dcec")
@register("ss-dcec-kl", reconstruction=False)
class SSDCEC(DCEC):
    """DCEC whose targets and first centres come from the labelled instances (Fiorentino 2022).

    The target of a labelled instance is its class (5), and each centre starts at the mean embedding
    of its class (6): cluster j is class j. Without labels it is DCEC. ``ss-dcec-kl`` is the method
    with ``reconstruction=False``, as in the author's code. Section 4.2 of the paper. Parameters and
    attributes: see `DCEC`.
    """

    version: ClassVar[int] = 1
    tags: ClassVar[Tags] = Tags(
        needs_every_class=True,
        without_labels="dcec",
        family="dcec",
        columns="clusters",
        resumes=True,
    )

    def first_centres(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The mean embedding of each class (6); without labels, k-means' centres."""
        if (y == UNLABELLED).all():
            return super().first_centres(z, y)
        return class_means(torch.from_numpy(z), torch.from_numpy(y), self.n_clusters).numpy()

    def targets(self, q: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The sharpened assignments (2), and the class of every labelled instance (5)."""
        return inject_labels(target_distribution(q), y)
