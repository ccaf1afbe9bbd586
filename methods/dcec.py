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

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from methods.method import (
    UNLABELLED,
    Arrays,
    Context,
    Method,
    StageRequest,
    Tags,
    check_images,
    check_labels,
    check_like_fitted,
    derive_seed,
    stage,
)
from methods.registry import register
from methods.toolkit.fast.cuda_graphs import Step, graphed
from methods.toolkit.nets.cae import CAE
from methods.toolkit.stages.autoencoder import autoencoder, load_autoencoder
from methods.toolkit.stages.kmeans import kmeans
from methods.toolkit.training import (
    Batches,
    Resumable,
    adam,
    autocast,
    check_training,
    image_tensor,
    in_batches,
    pixels,
    weight_arrays,
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


def joint_objective(
    reconstruction_loss: torch.Tensor, clustering_loss: torch.Tensor, lam: float
) -> torch.Tensor:
    """L = L_r + lambda · L_c (4)."""
    return reconstruction_loss + lam * clustering_loss


def inject_labels(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """p ``(n, K)`` with the one-hot of its class in the row of every labelled instance (5)."""
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
    counts = torch.bincount(y[labelled], minlength=n_clusters)
    if (counts == 0).any():
        missing = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(
            f"no labelled instance of class {', '.join(map(str, missing))}; SS-DCEC starts each of "
            f"its {n_clusters} centres at the mean of a class: label at least one instance of "
            "every class, or none at all"
        )
    sums = torch.zeros(n_clusters, z.shape[1], dtype=torch.float64)
    sums.index_add_(0, y[labelled], z[labelled].double())
    return (sums / counts.unsqueeze(1)).to(z.dtype)


def batch_losses(
    network: CAE,
    mu: torch.Tensor,
    x: torch.Tensor,
    p: torch.Tensor,
    context: Context,
    reconstruction: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """L_r and L_c of a batch; without `reconstruction` the decoder does not run and L_r is 0."""
    with autocast(context):
        z = network.encoder(x)
        x_hat = network.decoder(z) if reconstruction else None
    L_c = clustering_loss(p, student_t(z.float(), mu))
    L_r = torch.zeros_like(L_c) if x_hat is None else F.mse_loss(x_hat.float(), x)
    return L_r, L_c


def refresh_row(
    iteration: int,
    q: torch.Tensor,
    previous: torch.Tensor | None,
    y: torch.Tensor,
    sums: torch.Tensor,
    reconstruction: bool,
) -> dict[str, Any]:
    """What the history tells when p is recomputed from q; None where there is nothing to tell.

    `previous` are the assignments of the time before; `sums` those of L_r, L_c and 1 since then.

    Raises
    ------
    FloatingPointError : a loss or q is not finite.
    """
    steps = int(sums[2])
    L_r, L_c = (sums[:2] / max(steps, 1)).tolist()
    if not (math.isfinite(L_r + L_c) and bool(q.isfinite().all())):
        raise FloatingPointError(
            f"DCEC diverged before iteration {iteration} (mean reconstruction loss {L_r}, "
            f"clustering loss {L_c}); lower the learning rate lr or the weight lam"
        )
    assigned = q.argmax(1)
    labelled = y != UNLABELLED
    return {
        "iteration": iteration,
        "reconstruction_loss": L_r if steps and reconstruction else None,
        "clustering_loss": L_c if steps else None,
        "changed": None if previous is None else _share(assigned != previous),
        "clusters_in_use": len(assigned.unique()),
        "labelled_agreement": _share(assigned[labelled] == y[labelled]),
    }


def _share(condition: torch.Tensor) -> float | None:
    """The share of True; None where there is nothing to count."""
    return float(condition.double().mean()) if len(condition) else None


@stage(version=1)
def label_free_dcec(
    X: np.ndarray,
    *,
    random_state: int,
    context: Context,
    pretraining_seed: int | None,
    **params: Any,
) -> Arrays:
    """The stage that is DCEC without labels: pretraining, k-means, joint phase.

    Parameters
    ----------
    X : uint8 images ``(n, height, width[, channels])``.
    pretraining_seed : the seed with which the shared stage `autoencoder` is asked for.
    params : the other parameters of `DCEC`.

    Returns
    -------
    The network's weights (as `weight_arrays` names them), ``"centres"`` ``(K, d)`` float32,
    ``"probabilities"`` ``(n, K)`` float32, ``"n_iter"`` ``()`` int64, ``"converged"`` ``()`` bool.
    """
    method = DCEC(random_state=pretraining_seed, **params)
    pretrained = method._pretrain(X, context)
    centres = kmeans(
        pretrained["embedding"],
        random_state=derive_seed(random_state, "centres"),
        context=context,
        n_clusters=method.n_clusters,
        n_init=method.n_init,
    )["centres"]
    y = np.full(len(X), UNLABELLED)
    return method._train_jointly(X, y, centres, pretrained, context)


@register("dcec")
class DCEC(Method):
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

    References
    ----------
    Guo, Liu, Zhu and Yin, Deep Clustering with Convolutional Autoencoders, ICONIP 2017.
    """

    tags: ClassVar[Tags] = Tags(uses_labels=False)
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"pretrain_epochs": 20, "max_iterations": 840},
        "smoke": {"pretrain_epochs": 2, "max_iterations": 20, "update_interval": 10, "n_init": 2},
    }

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        pretrain_epochs: int = 200,
        max_iterations: int = 20_000,
        lam: float = 1.0,
        update_interval: int = 140,
        delta: float = 0.001,
        batch_size: int = 256,
        lr: float = 1e-3,
        n_init: int = 20,
        embedding_dim: int = 10,
        reconstruction: bool = True,
        shuffle: bool = False,
        random_state: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.pretrain_epochs = pretrain_epochs
        self.max_iterations = max_iterations
        self.lam = lam
        self.update_interval = update_interval
        self.delta = delta
        self.batch_size = batch_size
        self.lr = lr
        self.n_init = n_init
        self.embedding_dim = embedding_dim
        self.reconstruction = reconstruction
        self.shuffle = shuffle
        self.random_state = random_state

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> DCEC:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8, h and w at least 8; ``y`` is not used.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        FloatingPointError : a loss is not finite.
        """
        X, _ = self._checked(X, y)
        context = context or Context()
        params = self._label_free()
        fitted = context.stage(label_free_dcec, X, random_state=self.random_state, **params)
        return self._adopt(fitted, X, context)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most probable cluster ``(n,)`` int64 of each image."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """The soft assignments q ``(n, n_clusters)`` float32."""
        z = torch.from_numpy(self.transform(X))
        return student_t(z, torch.from_numpy(self.cluster_centers_)).numpy()

    def transform(self, X: np.ndarray) -> np.ndarray:
        """The embedding ``(n, embedding_dim)`` float32 of images of the fitted shape."""
        images = image_tensor(check_like_fitted(self, X), self._inference.device)
        return in_batches(self.network_.encoder, images, self._inference).cpu().numpy()

    def stages(self, n_labels: int) -> list[StageRequest]:
        """The autoencoder, and the label-free fit, which asks for the autoencoder too."""
        return [
            StageRequest(autoencoder, self._pretraining()),
            StageRequest(label_free_dcec, self._label_free()),
        ]

    def _pretraining(self) -> dict[str, Any]:
        return {
            "epochs": self.pretrain_epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "embedding_dim": self.embedding_dim,
        }

    def _label_free(self) -> dict[str, Any]:
        params = self.get_params(deep=False)
        return params | {"pretraining_seed": params.pop("random_state")}

    def _pretrain(self, X: np.ndarray, context: Context) -> Arrays:
        return context.stage(autoencoder, X, random_state=self.random_state, **self._pretraining())

    def _train_jointly(
        self, X: np.ndarray, y: np.ndarray, mu0: np.ndarray, pretrained: Arrays, context: Context
    ) -> Arrays:
        """The joint phase of all variants from centres `mu0`; what `label_free_dcec` returns."""
        images, labels = image_tensor(X, context.device), torch.from_numpy(y).to(context.device)
        network = load_autoencoder(pretrained, X.shape[1:]).to(context.device)
        mu = nn.Parameter(torch.tensor(mu0, device=context.device))  # (K, d)
        p = torch.zeros(len(images), len(mu), device=context.device)  # (n, K)
        sums = torch.zeros(3, device=context.device)  # of L_r, L_c and 1 over steps
        optimiser = adam([*network.parameters(), mu], self.lr)
        step = graphed(self._step(network, mu, optimiser, images, p, sums, context), context)
        parts = {"network": network, "mu": nn.ParameterList([mu]), "optimiser": optimiser}
        run = Resumable("joint", context, parts)
        saved = run.restore() or {"iteration": 0, "previous": None, "sums": sums}
        previous = saved["previous"]  # assignments (n,)
        sums.copy_(saved["sums"])
        seed = derive_seed(self.random_state, "batches") if self.shuffle else None
        batches = Batches(len(images), self.batch_size, seed, context.device)
        for iteration in range(saved["iteration"], self.max_iterations + 1):
            due, last = iteration % self.update_interval == 0, iteration == self.max_iterations
            if due or last:
                # Saved before the refresh, which follows from the weights: p needs no saving.
                run.save(iteration=iteration, previous=previous, sums=sums)
                q = student_t(in_batches(network.encoder, images, context), mu.detach())  # (n, K)
                row = refresh_row(iteration, q, previous, labels, sums, self.reconstruction)
                run.log(**row)
                converged = due and previous is not None and row["changed"] < self.delta
                if converged or last:
                    break
                p.copy_(inject_labels(target_distribution(q), labels))
                previous = q.argmax(1)
                sums.zero_()
            step(batches[iteration])
            context.progress("iteration", iteration + 1, self.max_iterations)
        return weight_arrays(network) | {
            "centres": mu.detach().cpu().numpy(),
            "probabilities": q.cpu().numpy(),
            "n_iter": np.array(iteration),
            "converged": np.array(converged),
        }

    def _step(
        self,
        network: CAE,
        mu: nn.Parameter,
        optimiser: torch.optim.Optimizer,
        images: torch.Tensor,
        p: torch.Tensor,
        sums: torch.Tensor,
        context: Context,
    ) -> Step:
        """One step of the joint phase on the given rows; it adds L_r, L_c and 1 to `sums`."""

        def step(rows: torch.Tensor) -> None:
            x = pixels(images[rows])
            L_r, L_c = batch_losses(network, mu, x, p[rows], context, self.reconstruction)
            optimiser.zero_grad()
            joint_objective(L_r, L_c, self.lam).backward()
            optimiser.step()
            sums.add_(torch.stack((L_r, L_c, torch.ones_like(L_c))).detach())  # read at refreshes

        return step

    def _adopt(self, fitted: Arrays, X: np.ndarray, context: Context) -> DCEC:
        """Set the fitted attributes from the arrays of the joint phase."""
        self._inference = Context(context.device, context.precision)
        self.image_shape_ = X.shape[1:]
        self.network_ = load_autoencoder(fitted, self.image_shape_).to(context.device)
        self.cluster_centers_ = np.array(fitted["centres"])
        self.probabilities_ = np.array(fitted["probabilities"])
        self.labels_ = self.probabilities_.argmax(1)
        self.n_iter_ = int(fitted["n_iter"])
        self.stopped_ = "converged" if fitted["converged"] else "max_iterations"
        return self

    def _checked(self, X: np.ndarray, y: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels as `fit` uses them; a ValueError for what it cannot use."""
        X = check_images(X)
        y = check_labels(y, len(X), self.n_clusters)
        check_training(epochs=self.pretrain_epochs, batch_size=self.batch_size, lr=self.lr)
        for name, least in AT_LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")
        return X, y


@register("ss-dcec")
@register("ss-dcec-kl", reconstruction=False)
class SSDCEC(DCEC):
    """DCEC whose targets and first centres come from the labelled instances (Fiorentino 2022).

    The target of a labelled instance is its class (5), and each centre starts at the mean embedding
    of its class (6): cluster j is class j. Without labels it is DCEC. ``ss-dcec-kl`` is the method
    with ``reconstruction=False``, as in the author's code. Parameters and attributes: see `DCEC`.

    References
    ----------
    Fiorentino, Semi-Supervised Deep Clustering with Convolutional Autoencoders, 2022, section 4.2.
    """

    tags: ClassVar[Tags] = Tags(needs_every_class=True)

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> SSDCEC:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used; a class without a labelled
            instance.
        FloatingPointError : a loss is not finite.
        """
        X, y = self._checked(X, y)
        context = context or Context()
        if (y == UNLABELLED).all():
            super().fit(X, y, context)
            self.same_as_ = "dcec" if self.reconstruction else None
            return self
        pretrained = self._pretrain(X, context)
        z = torch.from_numpy(np.array(pretrained["embedding"]))
        centres = class_means(z, torch.from_numpy(y), self.n_clusters).numpy()
        self.same_as_ = None
        self._adopt(self._train_jointly(X, y, centres, pretrained, context), X, context)
        return self

    def stages(self, n_labels: int) -> list[StageRequest]:
        """The autoencoder; without labels, DCEC's label-free fit as well."""
        return super().stages(n_labels)[: 1 if n_labels else None]
