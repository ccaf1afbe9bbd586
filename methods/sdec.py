"""SDEC: deep embedded clustering in which pairs of labelled images attract or repel each other.

Symbols: images ``x`` ``(n, c, h, w)`` in [0, 1], embeddings ``z`` ``(n, d)``, centres ``mu``
``(K, d)``, soft assignments ``q`` and their targets ``p`` ``(n, K)``, labels ``y`` ``(n,)`` with
-1 = unlabelled, pairs ``a`` ``(n, n)``.

References
----------
Ren, Hu, Dai, Pan, Hoi and Xu, Semi-supervised deep embedded clustering, Neurocomputing 325, 2019.
Xie, Girshick and Farhadi, Unsupervised Deep Embedding for Clustering Analysis (DEC), ICML 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from methods.dcec import clustering_loss, student_t, target_distribution
from methods.method import UNLABELLED, Context, Tags, derive_seed
from methods.registry import register
from methods.toolkit.assignments import compared, descend_until_settled
from methods.toolkit.draws import generator
from methods.toolkit.fast.cuda_graphs import MEASURED
from methods.toolkit.features import AutoencoderMethod
from methods.toolkit.naming import cluster_of_each_class
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

AT_LEAST = dict(n_clusters=1, n_init=1, max_iterations=0, update_interval=1, lam=0, delta=0)
AT_LEAST |= dict(pair_batch_size=2)


def pairwise_loss(z: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
    """L_s = 1/n · sum over i and j of a_ij·|z_i - z_j|², what the pairs add to DEC's loss.

    a_ij is 1 for a pair of one class (must-link), -1 for one of two classes (cannot-link), and 0
    where i or j has no label. A pair counts in both directions. It has no lower bound: what
    cannot-link repels, it repels the more the farther it is.

    Parameters
    ----------
    z, y : embeddings ``(m, d)`` and labels ``(m,)``, -1 where there is none.
    n : how many instances there are, with those not in `z`, which are in no pair.
    """
    known = y != UNLABELLED
    a = torch.where(y.unsqueeze(1) == y, 1, -1) * known.unsqueeze(1) * known  # (m, m)
    squared_distance = (z.unsqueeze(1) - z).square().sum(2)  # (m, m)
    return (a * squared_distance).sum() / n


class PairedBatches(Batches):
    """`Batches` of all images in their order, each followed by labelled ones, drawn without return.

    Parameters
    ----------
    n, batch_size, device : see `Batches`.
    labelled : the rows of the labelled images.
    n_paired : how many of them follow each batch.
    seed : of the draws, new ones for every batch.
    """

    def __init__(
        self, n: int, batch_size: int, labelled: np.ndarray, n_paired: int, seed: int, device: str
    ) -> None:
        super().__init__(n, batch_size, None, device)
        self._labelled = torch.from_numpy(labelled)
        self._n_paired = n_paired
        self._draws = seed

    def __getitem__(self, number: int) -> torch.Tensor:
        rows = super().__getitem__(number)
        order = torch.randperm(len(self._labelled), generator=generator(self._draws, number))
        return torch.cat([rows, self._labelled[order[: self._n_paired]].to(rows.device)])


@register("sdec")
@dataclass(eq=False, repr=False, kw_only=True)
class SDEC(AutoencoderMethod):
    """DEC with must-link and cannot-link pairs (Ren et al. 2019); here it does not beat DCEC.

    k-means on the embedding of DCEC's convolutional autoencoder gives the first centres. Then
    encoder and centres are trained together, without the decoder, on DEC's divergence between soft
    assignments and their sharpened targets and on `pairwise_loss`. The labels serve as pairs alone;
    at the end clusters are named by their labelled members, one to one, so that cluster j is
    class j. Without labels it is DEC, which is DCEC with ``reconstruction=False``.

    Where it differs from the paper: the autoencoder is convolutional and the optimiser Adam, as
    DCEC's. The paper draws its pairs once, of any of the n images. Here few images are labelled,
    and a batch of all images holds hardly a pair of them; so `pair_batch_size` labelled images,
    drawn anew for each step, are added to its batch, and all pairs of these count. With 24 of them
    beside 256 images each image is in two pairs on average, as with n pairs of n images. The
    authors' code computes the distances outside the network, so that they have no gradient; here
    they have one.

    Parameters
    ----------
    n_clusters : number of clusters K.
    lam : weight of the pairwise loss, lambda in the paper.
    pair_batch_size : labelled images that are added to each batch, at most all.
    max_iterations : most steps of the joint phase.
    update_interval : steps between two computations of the targets p.
    delta : stop when fewer than this share of all assignments changed within one interval.
    pretrain_epochs : epochs of the autoencoder.
    batch_size, lr : images per step and Adam's learning rate, in both phases.
    n_init : restarts of k-means.
    embedding_dim : size of the embedding.
    random_state : seed.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the cluster of each image after the last step, labelled ones too.
    probabilities_ : ``(n, n_clusters)`` float32, the soft assignments that it is the largest of.
    cluster_centers_ : ``(n_clusters, embedding_dim)`` float32.
    network_ : the trained `CAE`; its decoder is that of the autoencoder alone.
    n_iter_ : steps of the joint phase.
    stopped_ : ``"converged"`` or ``"max_iterations"``.
    """

    tags: ClassVar[Tags] = Tags(family="dcec", columns="clusters", resumes=True)
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"pretrain_epochs": 20, "max_iterations": 840},
        "smoke": {"pretrain_epochs": 2, "max_iterations": 10, "update_interval": 5, "n_init": 2},
    }

    lam: float = 1e-5
    pair_batch_size: int = 24
    max_iterations: int = 20_000
    update_interval: int = 140
    delta: float = 0.001
    n_init: int = 20

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled.

        Height and width are at least 8.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        FloatingPointError : a loss or an assignment is not finite.
        """
        X, y, context = self._begin(X, y, context)
        z = self._embed(X, context)
        seed = derive_seed(self.random_state, "kmeans")  # those that `cae-kmeans` ends with
        centres = kmeans_of_rows(z, self.n_clusters, self.n_init, seed).centres
        mu = nn.Parameter(torch.from_numpy(centres).to(context.device))  # (K, d)
        q = self._train_jointly(X, y, self.network_, mu, context).cpu().numpy()
        own = cluster_of_each_class(y, q.argmax(1), self.n_clusters)  # (K,)
        self.cluster_centers_ = mu.detach().cpu().numpy()[own]
        self.probabilities_ = q[:, own]
        self.labels_ = self.probabilities_.argmax(1)
        return self

    def _train_jointly(
        self, X: np.ndarray, y: np.ndarray, network: CAE, mu: nn.Parameter, context: Context
    ) -> torch.Tensor:
        """Train the encoder and `mu` together, in place; q ``(n, K)`` of all images at the end."""
        images, labels = image_tensor(X, context.device), torch.from_numpy(y).to(context.device)
        p = torch.zeros(len(images), len(mu), device=context.device)  # (n, K)
        assigned = torch.full_like(labels, UNLABELLED)  # (n,), by q
        unnamed = assigned.clone()  # no cluster has a class yet, so that none agrees with labels
        labelled = np.flatnonzero(y != UNLABELLED)
        n_paired = min(self.pair_batch_size, len(labelled))

        def losses(rows: torch.Tensor, step: int) -> tuple[torch.Tensor, ...]:
            b = len(rows) - n_paired
            with autocast(context):
                z = network.encoder(pixels(images[rows])).float()  # (b + n_paired, d)
            L_c = clustering_loss(p[rows[:b]], student_t(z[:b], mu))
            L_s = pairwise_loss(z[b:], labels[rows[b:]], len(rows))
            return L_c + self.lam * L_s, L_c, L_s

        seed = derive_seed(self.random_state, "pairs")
        batches = PairedBatches(
            len(images), self.batch_size, labelled, n_paired, seed, context.device
        )
        optimiser = adam([*network.encoder.parameters(), mu], self.lr)
        state: Parts = {"network": network, "mu": mu, "p": p, "assigned": assigned}
        loop = Loop("joint", losses, optimiser, batches, context, state, captured=MEASURED)

        def refresh() -> torch.Tensor:
            q = student_t(in_batches(network.encoder, images, context), mu.detach())
            check_finite(q, "SDEC's soft assignments")
            L_c, L_s = loop.means() or (None, None)  # since the last refresh
            told = compared(q, assigned, unnamed)
            loop.log(iteration=loop.done, clustering_loss=L_c, pairwise_loss=L_s, **told)
            p.copy_(target_distribution(q))
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

    def _check_parameters(self, n: int) -> None:
        """Raise ValueError for a parameter that is out of range."""
        check_training(epochs=self.pretrain_epochs, batch_size=self.batch_size, lr=self.lr)
        for name, least in AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")
