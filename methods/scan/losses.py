"""The losses of SCAN's phases, from logits.

References
----------
Van Gansbeke, Vandenhende, Georgoulis, Proesmans and Van Gool, SCAN: Learning to Classify Images
without Labels, ECCV 2020.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from methods.method import UNLABELLED


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
