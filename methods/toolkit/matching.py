"""Consistency training: a prediction on a weak view is the target of a strong view.

Symbols: labelled images with classes p, unlabelled images u, weak views α, strong views A, the
network's softmax p_m; B labelled and μB unlabelled images a step; threshold τ, weight λ_u.

References
----------
Sohn, Berthelot, Li, Zhang, Carlini, Cubuk, Kurakin, Zhang and Raffel, FixMatch: Simplifying
Semi-Supervised Learning with Consistency and Confidence, NeurIPS 2020.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from methods.method import Context, Method, derive_seed
from methods.toolkit.augment import Strength, drawn_views, shifted, shifts
from methods.toolkit.draws import Draws
from methods.toolkit.fast.cuda_graphs import MEASURED
from methods.toolkit.nets.resnet import SmallResNet
from methods.toolkit.training import (
    Batches,
    Loop,
    Losses,
    Parts,
    autocast,
    one_cycle,
    pixels,
)

Network = TypeVar("Network", bound=nn.Module)

LOGGED_LOSSES = 20
# A garment stays what it is when it is seen from nearer by, tilted, lit otherwise or half covered.
STRONG = Strength(
    area=0.5, ratio=4 / 3, flip=0.5, degrees=15, cutout=0.5, brightness=0.4, contrast=0.4
)


@dataclass(frozen=True)
class Matching:
    """How a network is trained on labelled and unlabelled images.

    Parameters
    ----------
    steps : optimiser steps, whatever the number of images.
    batch_size, mu : labelled images a step, one several times where there are fewer, and how many
        times as many unlabelled ones, at most all.
    lr, weight_decay : AdamW's; the rate is the peak of `one_cycle`.
    threshold : τ, from which probability on a prediction is a target.
    weight : λ_u, of the loss of the unlabelled images.
    ema : decay of the running mean of the weights, which is what is scored; 0 for the last weights.
        Early on it is (1 + step) / (10 + step), so that a short training is not a mean of its
        beginnings.

    Raises
    ------
    ValueError : a parameter out of its range.
    """

    steps: int
    batch_size: int
    mu: int
    lr: float
    weight_decay: float
    threshold: float
    weight: float
    ema: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "mu"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr is {self.lr}; expected a positive number")
        for name in ("weight_decay", "weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        for name in ("threshold", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more, below 1")


class Pool(NamedTuple):
    """`size` of these images are taught in each step; `images` and `classes` are ``(m,)`` int64."""

    images: np.ndarray
    classes: np.ndarray
    size: int


class Lesson(NamedTuple):
    """What is taught until a step; the sizes of its pools add up to the labelled batch."""

    until: int
    pools: Sequence[Pool]


@dataclass(eq=False, repr=False, kw_only=True)
class MatchingMethod(Method):
    """A method that trains a network by consistency. Parameters: see `Matching`."""

    steps: int = 10_000
    batch_size: int = 64
    mu: int = 7
    lr: float = 3e-3
    weight_decay: float = 0.05
    threshold: float = 0.95
    weight: float = 1.0

    def _matching(self) -> Matching:
        """What the parameters say, without a running mean."""
        names = [one.name for one in fields(Matching) if one.name != "ema"]
        return Matching(**{name: getattr(self, name) for name in names})

    def _check_parameters(self, n: int) -> None:
        """Raise ValueError for a parameter that is out of range."""
        super()._check_parameters(n)
        self._matching()


class Classifier(nn.Sequential):
    """A `SmallResNet` and a linear layer on its features.

    Parameters
    ----------
    image_shape, width, feature_dim : see `SmallResNet`.
    n_classes : number of outputs.
    """

    def __init__(
        self, image_shape: tuple[int, ...], width: int, feature_dim: int, n_classes: int
    ) -> None:
        super().__init__(
            SmallResNet(image_shape, width, feature_dim), nn.Linear(feature_dim, n_classes)
        )

    @property
    def last(self) -> nn.Linear:
        """The last layer."""
        return cast(nn.Linear, self[1])

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(n, c, h, w)`` to what the last layer takes, ``(n, feature_dim)``."""
        return self[0](images.contiguous(memory_format=torch.channels_last))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(n, c, h, w)`` to logits ``(n, n_classes)``."""
        return self.last(self.features(images))


def consistency_loss(
    weak: torch.Tensor, strong: torch.Tensor, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of unlabelled images, and the share of them that have a target.

    The class that is most probable in the weak view is the target of the strong view where its
    probability is at least `threshold`; the others count as 0.

    Parameters
    ----------
    weak, strong : logits ``(m, K)`` of the views; no gradient goes to `weak`.

    Returns
    -------
    Two scalars.

    References
    ----------
    Sohn et al., NeurIPS 2020, equation 4.

    Examples
    --------
    >>> import torch
    >>> weak = torch.tensor([[9.0, 0.0], [0.1, 0.0]])  # the second is not confident
    >>> loss, share = consistency_loss(weak, torch.zeros(2, 2), threshold=0.95)
    >>> round(loss.item(), 4), share.item()  # log(2) / 2
    (0.3466, 0.5)
    """
    confidence, target = weak.detach().softmax(1).max(1)
    confident = (confidence >= threshold).float()
    loss = (F.cross_entropy(strong, target, reduction="none") * confident).mean()
    return loss, confident.mean()


def match(
    network: Network,
    images: torch.Tensor,
    lessons: Sequence[Lesson],
    matching: Matching,
    seed: int,
    context: Context,
) -> Network:
    """Train `network` on images of known classes, and on all images by consistency.

    Parameters
    ----------
    network : on the device of the images; images ``(n, c, h, w)`` in [0, 1] to logits ``(n, K)``.
    images : uint8 ``(n, c, h, w)``, labelled ones included, as in the paper.
    lessons : what is taught, one after the other; the last one until the end.
    seed : of the order of the images and of the views.

    Returns
    -------
    The running mean of the network over the steps, or the network itself where ``ema`` is 0, in
    evaluation mode.

    Raises
    ------
    FloatingPointError : a loss that is logged is not finite.

    References
    ----------
    Sohn et al., NeurIPS 2020, algorithm 1. The targets come from a pass of their own, so that the
    weak views are not in one batch norm with the strong ones. The optimiser is that of
    `supervised-cnn`, not SGD as there: few steps have to do.
    """
    mean = copy.deepcopy(network).eval().requires_grad_(False) if matching.ema else None
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=matching.lr, weight_decay=matching.weight_decay, fused=True
    )
    draws = Draws(seed, context.device)
    loss = _match_losses(network, images, lessons, matching, draws, context)
    size = matching.mu * matching.batch_size
    batches = Batches(len(images), size, seed, context.device, whole=True)

    def rate(step: int) -> float:
        return one_cycle(step, matching.steps, matching.lr)

    parts: Parts = {"network": network} if mean is None else {"network": network, "mean": mean}
    loop = Loop(
        "matching",
        loss,
        optimiser,
        batches,
        context,
        parts,
        schedule=rate,
        draws=draws,
        captured=MEASURED,
    )
    log_every = max(1, matching.steps // LOGGED_LOSSES)
    network.train()
    for rows in loop.steps(matching.steps):
        loop.descend(rows)
        if mean is not None:
            average_(mean, network, min(matching.ema, (1 + loop.done) / (10 + loop.done)))
        if loop.done % log_every == 0:
            supervised, unsupervised, confident = loop.means()
            loop.log(
                step=loop.done,
                loss=supervised,
                consistency_loss=unsupervised,
                confident=confident,
            )
    return network.eval().requires_grad_(False) if mean is None else mean


def _match_losses(
    network: nn.Module,
    images: torch.Tensor,
    lessons: Sequence[Lesson],
    matching: Matching,
    draws: Draws,
    context: Context,
) -> Losses:
    """The loss of a step, ℓ_s + λ_u ℓ_u, and what is watched: both parts, and the confident."""
    taught = [_Taught(lesson, draws.seed) for lesson in lessons]
    size, n_known = images.shape[2:], matching.batch_size

    def known_in(step: int) -> torch.Tensor:
        return next((one for one in taught if step < one.until), taught[-1])[step]

    def losses(rows: torch.Tensor, step: int) -> tuple[torch.Tensor, ...]:
        known, y = draws("known", lambda _, number: known_in(number))
        n = len(rows)
        moved = draws("views", lambda drawing, _: shifts(n, size, drawing))
        with torch.no_grad(), autocast(context):
            weak_logits = network(pixels(shifted(images[rows], moved))).float()  # (μB, K)
        moved = draws("views", lambda drawing, _: shifts(n_known, size, drawing))
        strong = drawn_views(images[rows], STRONG, draws)
        both = torch.cat([pixels(shifted(images[known], moved)), strong])
        with autocast(context):
            logits = network(both).float()
        supervised = F.cross_entropy(logits[: len(known)], y)  # equation 3
        unsupervised, confident = consistency_loss(
            weak_logits, logits[len(known) :], matching.threshold
        )
        total = supervised + matching.weight * unsupervised
        return total, supervised, unsupervised, confident

    return losses


class _Taught:
    """The images and classes of each step of a lesson.

    Every pool gives each step as many images, in an order of its own, pass after pass. It does so
    however few it has, as in the authors' code: otherwise ten labels would make a step of ten.
    """

    def __init__(self, lesson: Lesson, seed: int) -> None:
        self.until = lesson.until
        self._pools: list[tuple[torch.Tensor, Batches]] = []
        for number, pool in enumerate(lesson.pools):
            times = math.ceil(pool.size / len(pool.images))
            taught = np.tile(np.stack([pool.images, pool.classes]), times)
            # The first has the order that a lesson of one pool always had: FixMatch's is of it.
            of_pool = derive_seed(seed, f"pool {number}") if number else seed
            batches = Batches(taught.shape[1], pool.size, of_pool, "cpu", whole=True)
            self._pools.append((torch.from_numpy(taught), batches))

    def __getitem__(self, step: int) -> torch.Tensor:
        """The images and their classes, ``(2, batch_size)`` int64, on the processor."""
        return torch.cat([taught[:, batches[step]] for taught, batches in self._pools], 1)


@torch.no_grad()
def average_(mean: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the weights of `mean` towards those of `network`: w ← decay·w + (1 - decay)·w_now.

    Batch norm's running statistics are means already: they are taken as they are.
    """
    torch._foreach_lerp_(list(mean.parameters()), list(network.parameters()), 1 - decay)
    for own, other in zip(mean.buffers(), network.buffers(), strict=True):
        own.copy_(other)
