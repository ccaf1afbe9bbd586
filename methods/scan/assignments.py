"""How SCAN learns soft assignments: the network, the losses, the loop of all phases, summaries.

References
----------
Van Gansbeke, Vandenhende, Georgoulis, Proesmans and Van Gool, SCAN: Learning to Classify Images
without Labels, ECCV 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import entropy
from torch import nn
from torch.nn import functional as F

from methods.method import UNLABELLED, Arrays, Context
from methods.toolkit.nets.resnet import SmallResNet, encode
from methods.toolkit.stages.neighbours import NeighbourLists
from methods.toolkit.stages.simclr import WEIGHT_DECAY, finite_mean, full_batches
from methods.toolkit.training import autocast, epoch_order, generator

PHASES = ("simclr", "head", "finetune", "selflabel")
HISTORY = ("loss", "clusters_in_use", "assignment_entropy", "confidence")
# By the last word of a parameter's name: every phase has its epochs, batch_size and lr.
AT_LEAST = dict(epochs=0, size=2, weight=0, dim=1, width=1, clusters=1, neighbors=1)
POSITIVE = ("lr", "temperature")
BatchLoss = Callable[[torch.Tensor, int], tuple[torch.Tensor | None, torch.Tensor]]
Inputs = Callable[[torch.Tensor, int], torch.Tensor]
Objective = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]


class ClusterNetwork(nn.Module):
    """Encoder, and a linear head that assigns its features to clusters.

    Parameters
    ----------
    image_shape, width, feature_dim : see `SmallResNet`.
    n_clusters : outputs of the head, the logits of the soft assignment.
    """

    def __init__(
        self, image_shape: tuple[int, ...], width: int, feature_dim: int, n_clusters: int
    ) -> None:
        super().__init__()
        self.encoder = SmallResNet(image_shape, width, feature_dim)
        self.head = ClusterHead(feature_dim, n_clusters)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(n, channels, height, width)`` to logits ``(n, n_clusters)``."""
        return self.head(self.encoder(images))

    def features(self, images: torch.Tensor, context: Context) -> torch.Tensor:
        """The features ``(n, feature_dim)``, on the CPU, of uint8 images on the device."""
        return encode(self.encoder, images, context)

    def probabilities(self, features: torch.Tensor) -> np.ndarray:
        """The soft assignments ``(n, n_clusters)`` float32 of features on the CPU.

        Raises
        ------
        FloatingPointError : the last step of the training has spoilt the weights.
        """
        device = self.head.weight.device
        with torch.inference_mode():
            logits = [self.head(block.to(device)).cpu() for block in features.split(10_000)]
            probabilities = torch.cat(logits).softmax(1)
        if not probabilities.isfinite().all():
            raise FloatingPointError("the soft assignments became nan; lower the learning rate")
        return probabilities.numpy()


class ClusterHead(nn.Linear):
    """Linear layer on features minus their mean, divided by one scale for all of them."""

    mean: torch.Tensor  # (feature_dim,)
    scale: torch.Tensor  # ()

    def __init__(self, feature_dim: int, n_clusters: int) -> None:
        super().__init__(feature_dim, n_clusters)
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("scale", torch.ones(()))

    def start_(self, features: torch.Tensor, generator: torch.Generator) -> None:
        """Draw the weights as torch does, and take mean and scale from features ``(n, d)``.

        The scale is the root mean square of all features, not one per feature: a feature that
        hardly varies here may vary once the encoder is trained on.
        """
        bound = 1 / math.sqrt(self.in_features)
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.bias)
        self.mean.copy_(features.mean(0))
        scale = (features - self.mean).square().mean().sqrt()
        self.scale.copy_(scale.clamp_min(torch.finfo(scale.dtype).tiny))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features ``(n, feature_dim)`` to logits ``(n, n_clusters)``."""
        return super().forward((features - self.mean) / self.scale)


def scan_loss(
    anchors: torch.Tensor, others: torch.Tensor, entropy_weight: float = 5.0
) -> torch.Tensor:
    """The SCAN loss: -mean log⟨p(x), p(neighbour)⟩ - entropy_weight · H(mean p(x)).

    The first term is 0 where an image and its neighbour are surely in the same cluster. The second
    is lowest where the mean assignment of the batch is uniform. Both are computed from logits, so
    that they are finite where a probability underflows.

    Parameters
    ----------
    anchors, others : logits ``(n, K)`` of n images, and of one neighbour of each.
    entropy_weight : lambda in the paper.

    Returns
    -------
    A scalar.

    Raises
    ------
    ValueError : shapes that differ or are not ``(n, K)``.

    References
    ----------
    Van Gansbeke et al., ECCV 2020, equation 2.

    Examples
    --------
    >>> import torch
    >>> sure = 1000 * torch.eye(2)  # two images, each surely in a cluster of its own
    >>> round(scan_loss(sure, sure).item(), 4)  # 0 - 5 log 2
    -3.4657
    """
    if anchors.ndim != 2 or anchors.shape != others.shape or anchors.numel() == 0:
        raise ValueError(
            f"the anchors' logits have shape {tuple(anchors.shape)}, their neighbours' "
            f"{tuple(others.shape)}; expected the same (n, K)"
        )
    log_p, log_q = anchors.log_softmax(1), others.log_softmax(1)
    agreement = (log_p + log_q).logsumexp(1).mean()  # the log of a dot product
    log_mean = log_p.logsumexp(0) - math.log(len(log_p))  # (K,)
    entropy = -(log_mean.exp() * log_mean).sum()
    return -agreement - entropy_weight * entropy


def labelled_loss(logits: torch.Tensor, y: torch.Tensor, n_classes: int) -> torch.Tensor:
    """The mean cross entropy of the labelled images of a batch; 0 if there are none.

    Cluster j stands for class j; with more clusters than classes, for class j modulo `n_classes`,
    and the probability of a class is the sum over its clusters.

    Parameters
    ----------
    logits : ``(n, K)``, K at least `n_classes`.
    y : ``(n,)`` int64, classes, -1 = unlabelled.
    """
    labelled = y != UNLABELLED
    if not labelled.any():
        return logits.new_zeros(())
    class_of = torch.arange(logits.shape[1], device=logits.device) % n_classes  # (K,)
    other = class_of != y[labelled].unsqueeze(1)  # (m, K)
    log_p = logits[labelled].log_softmax(1)
    return -log_p.masked_fill(other, -torch.inf).logsumexp(1).mean()


def pseudo_labels(logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """The most probable cluster ``(n,)`` int64 of each of n images; -1 where it is not confident.

    Parameters
    ----------
    logits : ``(n, K)``. No gradient goes to them.
    threshold : a prediction is confident where its probability is above this.
    """
    confidence, target = logits.detach().softmax(1).max(1)
    return target.where(confidence > threshold, UNLABELLED)


def self_labelling_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The cross entropy of images with a target; 0 if there are none.

    Every cluster that is a target has the same weight, however many images it is the target of.

    Parameters
    ----------
    logits : ``(n, K)`` of strong views.
    targets : ``(n,)`` int64, `pseudo_labels` of weak views of the same images; -1 = no target.

    References
    ----------
    Van Gansbeke et al., ECCV 2020, section 2.3.
    """
    confident = targets != UNLABELLED
    target = targets[confident]
    counts = torch.bincount(target, minlength=logits.shape[1])
    weight = 1 / (counts[target] * (counts > 0).sum())  # sums to 1
    return (F.cross_entropy(logits[confident], target, reduction="none") * weight).sum()


def pair_loss(
    module: nn.Module,
    inputs: Inputs,
    indices: np.ndarray,
    y: np.ndarray,
    objective: Objective,
    seed: int,
    context: Context,
) -> BatchLoss:
    """The loss of a batch of instances, each paired with one of its neighbours.

    Parameters
    ----------
    module : gives logits for `inputs` of rows ``(m,)`` in a step.
    indices, y : neighbours ``(n, k)`` and labels ``(n,)``, see `NeighbourLists.of`.
    objective : the loss, from the logits of instances, those of their neighbours, the labels of the
        instances, and the number of classes that are labelled.
    seed : of the choice of the neighbour.
    """
    lists, n_classes = NeighbourLists.of(indices, y), int(y.max()) + 1
    labels = torch.from_numpy(y).to(context.device)

    def loss(rows: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        partners = lists.draw(rows, generator(seed, "neighbours", step))
        with autocast(context):
            logits = module(inputs(torch.cat([rows, partners]), step))
        anchors, others = logits.float().chunk(2)
        return objective(anchors, others, labels[rows], n_classes), anchors

    return loss


@dataclass(frozen=True)
class Training:
    """How long and how fast a phase trains: passes, images per step, Adam's learning rate."""

    epochs: int
    batch_size: int
    lr: float


def train_assignments(
    phase: str,
    module: nn.Module,
    batch_loss: BatchLoss,
    n: int,
    training: Training,
    order_seed: int,
    context: Context,
) -> np.ndarray:
    """Train `module` with Adam on batches of n instances in shuffled order; watch the assignments.

    Parameters
    ----------
    phase : its name in the history; also that of the checkpoint, one per epoch.
    module : left in evaluation mode.
    batch_loss : from the rows of a batch and the number of the step, the loss and the logits
        ``(m, K)`` of the instances that are watched. A loss of None skips the step. It has to draw
        from nothing but seeds, rows and step.
    order_seed : seed of the order of the instances.

    Returns
    -------
    ``(epochs, 4)`` float64, a row per epoch with the columns of `HISTORY`: mean loss; clusters that
    are the most probable one of an instance; entropy of the mean assignment in nats; mean
    probability of the most probable cluster. After an epoch without a single step (loss nan)
    training stops.

    Raises
    ------
    FloatingPointError : a loss is not finite.
    """
    optimiser = torch.optim.Adam(
        module.parameters(), lr=training.lr, weight_decay=WEIGHT_DECAY, fused=True
    )
    parts: dict[str, Any] = {"module": module, "optimiser": optimiser}
    checkpoint = context.checkpoint(phase)
    state = checkpoint.load() or {"history": []}
    for name, part in parts.items() if state["history"] else ():
        part.load_state_dict(state[name])
    history: list[list[float]] = state["history"]
    while len(history) < training.epochs and not (history and math.isnan(history[-1][0])):
        epoch = len(history)
        module.train()
        watch = _Watch(phase)
        batches = full_batches(epoch_order(n, order_seed, epoch), training.batch_size)
        for step, rows in enumerate(batches, start=epoch * len(batches)):
            loss, logits = batch_loss(rows, step)
            if loss is not None:
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            watch.add(loss, logits)
            context.progress("iteration", step + 1, training.epochs * len(batches))
        history.append(watch.row())
        checkpoint.save(
            lambda: {name: part.state_dict() for name, part in parts.items()} | {"history": history}
        )
    module.eval()
    return np.array(history, dtype=np.float64).reshape(-1, len(HISTORY))


def history_rows(arrays: Arrays) -> Iterator[dict[str, Any]]:
    """The arrays ``history.<phase>`` as a dict per epoch; None for what a phase does not tell."""
    for phase in PHASES:
        for epoch, values in enumerate(arrays.get(f"history.{phase}", ()), start=1):
            known = dict(zip(HISTORY, values, strict=False))
            row = {name: None if math.isnan(x) else float(x) for name, x in known.items()}
            if "clusters_in_use" in row:
                row["clusters_in_use"] = int(known["clusters_in_use"])
            yield {"phase": phase, "epoch": epoch, **row}


class _Watch:
    """Sums over an epoch, kept on the device, and the row of the history that they give."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.losses: list[torch.Tensor] = []
        self.sums: list[torch.Tensor] = []  # (3, K): p, times most probable, p where most probable
        self.n = 0

    def add(self, loss: torch.Tensor | None, logits: torch.Tensor) -> None:
        if loss is not None:
            self.losses.append(loss.detach())
        p = logits.detach().float().softmax(1)
        top = F.one_hot(p.argmax(1), p.shape[1])
        self.sums.append(torch.stack((p.sum(0), top.sum(0).float(), (p * top).sum(0))))
        self.n += len(p)

    def row(self) -> list[float]:
        """The columns of `HISTORY`."""
        mean, top, confidence = torch.stack(self.sums).double().sum(0).cpu() / self.n
        finite_mean([mean.sum()], f"the assignments of {self.phase}")  # nan is never confident
        loss = finite_mean(self.losses, f"the loss of {self.phase}") if self.losses else math.nan
        columns = ((top > 0).sum(), torch.special.entr(mean).sum(), confidence.sum())
        return [loss, *(float(value) for value in columns)]


def assignment_summary(probabilities: np.ndarray) -> dict[str, Any]:
    """How soft assignments ``(n, K)`` use the clusters, and whether they have collapsed.

    ``clusters_in_use`` counts clusters that are the most probable one of an instance.
    ``effective_clusters`` is exp of the entropy of their sizes: K where all are equally large, and
    hardly more for a few strays. ``collapsed`` is whether that is below K / 2.
    ``assignment_entropy`` is the entropy of the mean assignment, in nats.
    """
    n_clusters = probabilities.shape[1]
    sizes = np.bincount(probabilities.argmax(1), minlength=n_clusters)
    effective = float(np.exp(entropy(sizes)))
    return {
        "clusters_in_use": int((sizes > 0).sum()),
        "assignment_entropy": float(entropy(probabilities.mean(0, dtype=np.float64))),
        "effective_clusters": effective,
        "collapsed": effective < n_clusters / 2,
    }


def most_confident(probabilities: np.ndarray, n_images: int = 9) -> np.ndarray:
    """The images most confidently in each cluster, among those whose most probable one it is.

    Probabilities ``(n, K)`` give indices ``(K, n_images)``, the surest first; -1 where there are
    fewer.
    """
    labels = probabilities.argmax(1)
    surest_first = np.argsort(-probabilities.max(1), kind="stable")
    found = np.full((probabilities.shape[1], n_images), -1)
    for cluster, row in enumerate(found):
        members = surest_first[labels[surest_first] == cluster][:n_images]
        row[: len(members)] = members
    return found


def majority_classes(cluster_labels: np.ndarray, y: np.ndarray, n_clusters: int) -> np.ndarray:
    """The class of each cluster ``(K,)``: that of most of its labelled members.

    With as many clusters as classes (0 to ``max(y)``), or without labels, cluster j is class j.
    Otherwise class j modulo the number of classes wins a tie, and a cluster without labelled
    members.
    """
    clusters, n_classes = np.arange(n_clusters), int(y.max()) + 1
    if n_classes in (0, n_clusters):
        return clusters
    votes = np.zeros((n_clusters, n_classes))
    labelled = y != UNLABELLED
    np.add.at(votes, (cluster_labels[labelled], y[labelled]), 1)
    votes[clusters, clusters % n_classes] += 0.5
    return votes.argmax(1)


def check_parameters(params: Mapping[str, Any], n_images: int) -> None:
    """Raise ValueError for a hyperparameter of SCAN that is out of range, for so many images."""
    for name, value in params.items():
        word = name.rpartition("_")[2]
        if word in AT_LEAST and not AT_LEAST[word] <= value < math.inf:
            raise ValueError(f"{name} is {value}; expected at least {AT_LEAST[word]}")
        if word in POSITIVE and not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; expected a positive number")
        if word == "threshold" and not 0 <= value < 1:
            raise ValueError(f"{name} is {value}; expected a probability below 1")
    if params["n_neighbors"] >= n_images:
        raise ValueError(
            f"n_neighbors is {params['n_neighbors']} with {n_images} images; expected at most "
            f"{n_images - 1}, since an image is not its own neighbour"
        )
