"""What SCAN's phases share: the loop that watches the assignments, summaries, parameters.

References
----------
Van Gansbeke, Vandenhende, Georgoulis, Proesmans and Van Gool, SCAN: Learning to Classify Images
without Labels, ECCV 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import entropy
from torch import nn
from torch.nn import functional as F

from methods.method import Context
from methods.toolkit.draws import Draws
from methods.toolkit.fast.cuda_graphs import Kind
from methods.toolkit.training import Batches, Loop, Parts, check_finite
from methods.toolkit.votes import count_votes

WEIGHT_DECAY = 1e-4
# By the last word of a parameter's name: every phase has its epochs, batch_size and lr.
AT_LEAST = dict(epochs=0, size=2, weight=0, dim=1, width=1, clusters=1, neighbors=1)
POSITIVE = ("lr", "temperature")

# From the rows (b,) of a batch and what draws in this step: the loss, or None to skip the step, and
# the logits (b, K) of the instances that are watched.
BatchLoss = Callable[[torch.Tensor, Draws], tuple[torch.Tensor | None, torch.Tensor]]


@dataclass(frozen=True)
class Training:
    """How long and how fast a phase trains: passes, images per step, Adam's learning rate."""

    epochs: int
    batch_size: int
    lr: float


def train_phase(
    phase: str,
    module: nn.Module,
    batch_loss: BatchLoss,
    n: int,
    n_clusters: int,
    training: Training,
    seed: int,
    context: Context,
    captured: Kind | None = None,
) -> list[dict[str, Any]]:
    """Train `module` with Adam on batches of n instances in shuffled order; watch the assignments.

    Parameters
    ----------
    phase : its name in the history; also that of the checkpoint.
    module : left in evaluation mode.
    batch_loss : see `BatchLoss`.
    seed : of the order of the instances, and of what is drawn.
    captured : see `Loop`; not for a loss that is None at times.

    Returns
    -------
    The history, a row per epoch: mean loss, and what `told` says of the assignments. After an epoch
    without a single step (its loss is None) training stops.

    Raises
    ------
    FloatingPointError : a loss or an assignment is not finite.
    """
    draws = Draws(seed, context.device)
    watched = torch.zeros(3, n_clusters, dtype=torch.float64, device=context.device)

    def losses(rows: torch.Tensor, step: int) -> torch.Tensor | None:
        loss, logits = batch_loss(rows, draws)
        p = logits.detach().float().softmax(1)
        top = F.one_hot(p.argmax(1), p.shape[1])
        watched.add_(torch.stack((p.sum(0), top.sum(0).float(), (p * top).sum(0))))
        return loss

    optimiser = torch.optim.Adam(
        module.parameters(), lr=training.lr, weight_decay=WEIGHT_DECAY, fused=True
    )
    batches = Batches(n, training.batch_size, seed, context.device, whole=True)
    parts: Parts = {"module": module, "watched": watched}
    loop = Loop(phase, losses, optimiser, batches, context, parts, draws=draws, captured=captured)
    for steps in loop.epochs(training.epochs):
        module.train()
        for rows in steps:
            loop.descend(rows)
        loss = loop.mean()
        loop.log(phase=phase, epoch=loop.epoch, loss=loss, **told(watched, phase))
        watched.zero_()
        if loss is None:
            break
    module.eval()
    return loop.history


def told(watched: torch.Tensor, phase: str) -> dict[str, float]:
    """What the history tells of an epoch's assignments.

    Clusters that are the most probable one of an instance; entropy of the mean assignment in nats;
    mean probability of the most probable cluster.

    Parameters
    ----------
    watched : ``(3, K)``, sums over instances: of p, of being the most probable, of p where it is.
    """
    check_finite(watched, f"the assignments of {phase}")  # nan is never confident
    mean, top, confidence = watched.cpu() / watched[0].sum().cpu()
    return {
        "clusters_in_use": int((top > 0).sum()),
        "assignment_entropy": float(torch.special.entr(mean).sum()),
        "confidence": float(confidence.sum()),
    }


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
    votes = count_votes(y, cluster_labels, n_clusters)
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
