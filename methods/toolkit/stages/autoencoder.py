"""The convolutional autoencoder, trained without labels: a stage that several methods share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from methods.method import Arrays, Context, check_images, stage
from methods.toolkit.draws import generator
from methods.toolkit.fast.cuda_graphs import MEASURED
from methods.toolkit.nets.cae import CAE
from methods.toolkit.nets.layers import glorot_
from methods.toolkit.training import (
    WEIGHTS,
    Batches,
    Loop,
    adam,
    autocast,
    check_training,
    image_tensor,
    in_batches,
    load_weights,
    pixels,
    weight_arrays,
)


@stage(version=1, resumes=True)
def autoencoder(
    X: np.ndarray,
    *,
    random_state: int,
    context: Context,
    epochs: int,
    batch_size: int = 256,
    lr: float = 1e-3,
    embedding_dim: int = 10,
) -> Arrays:
    """Train a `CAE` to reconstruct the images: mean squared error over pixels, Adam, shuffled.

    Parameters
    ----------
    X : uint8 images ``(n, height, width)`` or ``(n, height, width, channels)``.
    random_state : seed of the initial weights and of the order of the images.
    context : device, precision, progress, history and checkpoint.
    epochs : passes through the images; 0 leaves the initial weights.
    batch_size, lr, embedding_dim : images per step, Adam's learning rate, size of the embedding.

    Returns
    -------
    ``"weights.<name>"`` for every entry of the network's ``state_dict``, for `load_autoencoder`;
    ``"embedding"`` ``(n, embedding_dim)`` float32 of all images in order; ``"loss"`` ``(epochs,)``
    float64, the mean loss of each epoch.

    Raises
    ------
    ValueError : a parameter out of range.
    FloatingPointError : the loss is not finite.

    References
    ----------
    Guo, Liu, Zhu and Yin, Deep Clustering with Convolutional Autoencoders, ICONIP 2017.
    """
    check_training(epochs=epochs, batch_size=batch_size, lr=lr)
    images = image_tensor(check_images(X), context.device)
    network = CAE(X.shape[1:], embedding_dim)
    glorot_(network, generator(random_state, "weights")).to(context.device)
    optimiser = adam(network.parameters(), lr)

    def loss(rows: torch.Tensor, step: int) -> torch.Tensor:
        return reconstruction_loss(network, pixels(images[rows]), context)

    batches = Batches(len(images), batch_size, random_state, context.device)
    loop = Loop(
        "autoencoder", loss, optimiser, batches, context, {"network": network}, captured=MEASURED
    )
    losses = loop.train(epochs)
    embedding = in_batches(network.encoder, images, context).cpu().numpy()
    return weight_arrays(network) | {"embedding": embedding, "loss": losses}


def reconstruction_loss(network: CAE, x: torch.Tensor, context: Context) -> torch.Tensor:
    """The mean squared error over pixels, in fp32, of a batch ``x`` ``(n, c, h, w)`` in [0, 1]."""
    with autocast(context):
        x_hat = network(x)
    return F.mse_loss(x_hat.float(), x)


def load_autoencoder(arrays: Mapping[str, np.ndarray], image_shape: tuple[int, ...]) -> CAE:
    """The network on the CPU whose weights `weight_arrays` gave.

    Parameters
    ----------
    arrays : what `autoencoder` returned; entries that are no weights are left alone.
    image_shape : shape of one image, ``X.shape[1:]``.

    Raises
    ------
    ValueError : the weights belong to images of another shape, or some are missing.
    """
    first = WEIGHTS + "decoder.0.weight"
    if first not in arrays:
        raise ValueError(
            f"no autoencoder among the arrays {', '.join(sorted(arrays)) or '(none)'}; expected "
            "what the stage `autoencoder` returns"
        )
    network = CAE(image_shape, embedding_dim=arrays[first].shape[1])
    load_weights(network, arrays)
    return network
