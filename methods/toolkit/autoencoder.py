"""The convolutional autoencoder, trained without labels: a stage that several methods share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from methods.method import Arrays, Context, check_images
from methods.toolkit.networks import CAE, glorot_
from methods.toolkit.training import (
    autocast,
    epoch_order,
    generator,
    image_tensor,
    in_batches,
    pixels,
)

KERAS_EPSILON = 1e-7  # of Adam; torch's own default is 1e-8
WEIGHTS = "weights."


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
    context : device, precision, progress (``"epoch"``), history and checkpoint (one per epoch).
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
    run = Resumable("autoencoder", context, {"network": network, "optimiser": optimiser})
    run.restore()
    for epoch in range(len(run.history), epochs):
        order = epoch_order(len(images), random_state, epoch).to(images.device)
        loss = _train_epoch(network, optimiser, images, order.split(batch_size), context)
        run.log(epoch=epoch + 1, loss=loss)
        context.progress("epoch", epoch + 1, epochs)
        run.save()
    losses = np.array([row["loss"] for row in run.history], dtype=np.float64)
    embedding = in_batches(network.encoder, images, context).numpy()
    return network_arrays(network) | {"embedding": embedding, "loss": losses}


def load_autoencoder(arrays: Mapping[str, np.ndarray], image_shape: tuple[int, ...]) -> CAE:
    """The network on the CPU whose weights `network_arrays` gave.

    Parameters
    ----------
    arrays : what `autoencoder` returned; entries that are no weights are left alone.
    image_shape : shape of one image, ``X.shape[1:]``.

    Raises
    ------
    ValueError : the weights belong to images of another shape, or some are missing.
    """
    weights = {
        name.removeprefix(WEIGHTS): torch.from_numpy(np.array(array))  # a copy: maps are read-only
        for name, array in arrays.items()
        if name.startswith(WEIGHTS)
    }
    if "decoder.0.weight" not in weights:
        raise ValueError(
            f"no autoencoder among the arrays {', '.join(sorted(arrays)) or '(none)'}; expected "
            "what the stage `autoencoder` returns"
        )
    network = CAE(image_shape, embedding_dim=weights["decoder.0.weight"].shape[1])
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"the autoencoder's weights do not fit images of shape {tuple(image_shape)}: {error}"
        ) from error
    return network


def network_arrays(network: CAE) -> Arrays:
    """The weights of `network`, one array per entry of its ``state_dict``, under prefixed names."""
    return {
        WEIGHTS + name: np.ascontiguousarray(value.detach().cpu().numpy())
        for name, value in network.state_dict().items()
    }


class Resumable:
    """A training loop that goes on after it was killed: its parts, its history, its checkpoint.

    Parameters
    ----------
    name : of the checkpoint.
    context : whose checkpoint and history are used.
    parts : by name, what has a ``state_dict``: modules and the optimiser.
    """

    def __init__(self, name: str, context: Context, parts: Mapping[str, Any]) -> None:
        self.history: list[dict[str, Any]] = []
        self._parts = parts
        self._context = context
        self._checkpoint = context.checkpoint(name)

    def restore(self) -> dict[str, Any]:
        """Bring the parts back to the state saved last; the ``values`` saved with it, or nothing.

        The history that a killed process had logged died with it, so that it is logged again.
        """
        state = self._checkpoint.load()
        if state is None:
            return {}
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        for row in state["history"]:
            self.log(**row)
        return state["values"]

    def log(self, **row: float | int | str | None) -> None:
        """Add a row to the history."""
        self._context.log(**row)
        self.history.append(row)

    def save(self, **values: Any) -> None:
        """Offer the parts, the history and further `values` to the checkpoint."""
        self._checkpoint.save(
            lambda: {
                **{name: part.state_dict() for name, part in self._parts.items()},
                "history": list(self.history),
                "values": values,
            }
        )


def adam(parameters: Any, lr: float) -> torch.optim.Adam:
    """Adam as Keras sets it up."""
    return torch.optim.Adam(parameters, lr=lr, eps=KERAS_EPSILON)


def batch_rows(
    iteration: int, n: int, batch_size: int, seed: int | None = None
) -> slice | torch.Tensor:
    """The rows of n that make batch number `iteration`, counted on over all passes.

    In the order of the images or, with a seed, in a new order in every pass. The last batch of a
    pass is the short rest. A function of its arguments alone, so that a resumed loop goes on.
    """
    number, position = divmod(iteration, math.ceil(n / batch_size))
    rows = slice(position * batch_size, (position + 1) * batch_size)
    return rows if seed is None else epoch_order(n, seed, number)[rows]


def check_training(*, epochs: int, batch_size: int, lr: float) -> None:
    """Raise ValueError for a parameter of a training loop that is out of range."""
    if epochs < 0:
        raise ValueError(f"epochs is {epochs}; expected 0 or more")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"lr is {lr}; expected a positive number")


def _train_epoch(
    network: CAE,
    optimiser: torch.optim.Optimizer,
    images: torch.Tensor,
    order: tuple[torch.Tensor, ...],
    context: Context,
) -> float:
    """One pass; the mean loss over the images."""
    total = torch.zeros((), device=images.device)  # read once, at the end: no wait in each step
    for rows in order:
        batch = pixels(images[rows])
        with autocast(context):
            reconstruction = network(batch)
        loss = F.mse_loss(reconstruction.float(), batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(rows)
    mean = float(total) / len(images)
    if not math.isfinite(mean):
        raise FloatingPointError(
            f"the autoencoder's reconstruction loss became {mean}; lower the learning rate lr"
        )
    return mean
