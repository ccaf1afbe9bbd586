"""SimCLR: features that two random views of one image share. A label-free stage.

References
----------
Chen, Kornblith, Norouzi and Hinton, A Simple Framework for Contrastive Learning of Visual
Representations, ICML 2020.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from methods.method import Arrays, Context, check_images, stage
from methods.toolkit.augment import STRONG, drawn_views
from methods.toolkit.draws import Draws, generator
from methods.toolkit.fast.cuda_graphs import MEASURED
from methods.toolkit.nets.resnet import SmallResNet, encode, he_
from methods.toolkit.training import (
    Batches,
    Loop,
    Losses,
    Parts,
    autocast,
    check_training,
    image_tensor,
    weight_arrays,
)

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
WARM_UP = 0.02  # of all steps: 10 of 500 epochs, as Chen et al.


def nt_xent(z1: torch.Tensor, z2: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """NT-Xent: the normalised, temperature-scaled cross entropy of SimCLR.

    Each of the 2n rows has one positive, the other view of its image; the other 2n - 2 rows are its
    negatives. The loss of a row is the cross entropy of its positive among all rows but itself, on
    cosine similarities divided by the temperature. Computed at least in fp32.

    Parameters
    ----------
    z1, z2 : projections ``(n, d)`` of two views of the same n images, in the same order.
    temperature : divides the similarities; positive.

    Returns
    -------
    The mean loss over the 2n rows, a scalar.

    Raises
    ------
    ValueError : shapes that differ or are not ``(n, d)``, or a temperature that is not positive.

    References
    ----------
    Chen, Kornblith, Norouzi and Hinton, ICML 2020, equation 1 and algorithm 1.

    Examples
    --------
    >>> import torch
    >>> z = torch.eye(2)
    >>> round(nt_xent(z, z, temperature=1.0).item(), 4)  # log(1 + 2 / e)
    0.5514
    >>> round(nt_xent(z, z.flip(0), temperature=1.0).item(), 4)  # log(e + 2)
    1.5514
    """
    if z1.ndim != 2 or z1.shape != z2.shape or len(z1) == 0:
        raise ValueError(
            f"z1 has shape {tuple(z1.shape)} and z2 {tuple(z2.shape)}; expected the same (n, d)"
        )
    check_temperature(temperature)
    z = torch.cat([z1, z2])
    z = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1)
    similarity = z @ z.T / temperature  # (2n, 2n)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = similarity.masked_fill(itself, -torch.inf)
    positive = torch.arange(len(z), device=z.device).roll(len(z1))
    return F.cross_entropy(similarity, positive)


class SimCLR(nn.Module):
    """Encoder, and the projection head on which the contrastive loss is computed.

    Parameters
    ----------
    image_shape, width, feature_dim : see `SmallResNet`.
    projection_dim : outputs of the head, which has one hidden layer as wide as the features, with
        batch norm: without it small networks collapsed to one projection for all images.
    """

    def __init__(
        self, image_shape: tuple[int, ...], width: int, feature_dim: int, projection_dim: int
    ) -> None:
        super().__init__()
        if projection_dim < 1:
            raise ValueError(f"projection_dim is {projection_dim}; expected at least 1")
        self.encoder = SmallResNet(image_shape, width, feature_dim)
        self.projection = nn.Sequential(
            nn.Linear(feature_dim, feature_dim, bias=False),
            nn.BatchNorm1d(feature_dim),
            nn.ReLU(inplace=True),
            nn.Linear(feature_dim, projection_dim),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(n, channels, height, width)`` to projections ``(n, projection_dim)``."""
        return self.projection(self.encoder(images))


@stage(version=1, resumes=True)
def simclr(
    X: np.ndarray,
    *,
    random_state: int,
    context: Context,
    epochs: int,
    batch_size: int = 512,
    lr: float = 0.4,
    feature_dim: int = 512,
    projection_dim: int = 128,
    temperature: float = 0.1,
    width: int = 32,
) -> Arrays:
    """Train a `SimCLR` on two strong views of each image: SGD, one warm-up, then half a cosine.

    Parameters
    ----------
    X : uint8 images ``(n, height, width)`` or ``(n, height, width, channels)``, n at least 2.
    random_state : seed of the initial weights, of the order of the images and of their views.
    context : device, precision, progress, history and checkpoint.
    epochs : passes through the images; 0 leaves the initial weights.
    batch_size : images per step, each in two views. What is left over of a pass waits for the next.
    lr : the largest learning rate.
    feature_dim, projection_dim, width : sizes of the network.
    temperature : of the loss, see `nt_xent`.

    Returns
    -------
    ``"features"`` ``(n, feature_dim)`` float32 of all images in order, before the projection;
    ``"weights.<name>"`` for every entry of the network's ``state_dict``; ``"loss"`` ``(epochs,)``
    float64, the mean loss of each epoch.

    Raises
    ------
    ValueError : images or a parameter that cannot be used.
    FloatingPointError : the loss is not finite.

    References
    ----------
    Chen, Kornblith, Norouzi and Hinton, ICML 2020. Batch, rates, decay and temperature as the
    authors of SCAN (Van Gansbeke et al., ECCV 2020) set them; Nesterov's momentum is ours.
    """
    check_training(epochs=epochs, batch_size=batch_size, lr=lr)
    check_temperature(temperature)
    images = image_tensor(check_images(X), context.device)
    network = SimCLR(X.shape[1:], width, feature_dim, projection_dim)
    he_(network, generator(random_state, "weights")).to(context.device)
    optimiser = _sgd(network, lr)
    batches = Batches(len(images), batch_size, random_state, context.device, whole=True)
    n_steps = epochs * len(batches)
    draws = Draws(random_state, context.device)
    loss = _two_view_loss(network, images, temperature, draws, context)

    def rate(step: int) -> float:
        return lr * cosine_schedule(step, n_steps)

    parts: Parts = {"network": network}
    loop = Loop(
        "simclr",
        loss,
        optimiser,
        batches,
        context,
        parts,
        schedule=rate,
        draws=draws,
        captured=MEASURED,
    )
    network.train()
    losses = loop.train(epochs)
    features = encode(network.encoder, images, context).numpy()
    return weight_arrays(network) | {"features": features, "loss": losses}


def _sgd(network: SimCLR, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(
        network.parameters(),
        lr=lr,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        nesterov=True,
        fused=True,
    )


def _two_view_loss(
    network: SimCLR, images: torch.Tensor, temperature: float, draws: Draws, context: Context
) -> Losses:
    """`nt_xent` of two strong views of each image of a batch."""

    def loss(rows: torch.Tensor, step: int) -> torch.Tensor:
        both = images[rows].repeat(2, 1, 1, 1)
        x = drawn_views(both, STRONG, draws)
        with autocast(context):
            z1, z2 = network(x).chunk(2)
        return nt_xent(z1, z2, temperature)

    return loss


def cosine_schedule(step: int, n_steps: int) -> float:
    """The factor of the learning rate in a step: a linear warm-up, then half a cosine to 0.

    References
    ----------
    Loshchilov and Hutter, SGDR, ICLR 2017, without restarts.
    """
    warm_up = math.ceil(WARM_UP * n_steps)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(n_steps - warm_up, 1)))


def check_temperature(temperature: float) -> None:
    """Raise ValueError for a temperature that is not a positive number."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; expected a positive number")
