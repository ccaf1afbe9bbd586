"""The "7 layer deep neural network" of Das and Thada, a head beside those of `table`.

It is kept as their public code has it, oddities included: a single channel with ReLU before the
dense layers (which can die: then every image looks the same to what follows), sigmoid outputs under
a categorical cross entropy, and early stopping on the last tenth of whatever it is given.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import nn

from methods.method import Context, check_choice, check_images
from methods.toolkit.draws import generator
from methods.toolkit.nets.layers import glorot_, image_size
from methods.toolkit.training import (
    Batches,
    Loop,
    Parts,
    adam,
    autocast,
    check_training,
    image_tensor,
    in_batches,
    pixels,
)

HELD_OUT = 0.1
PREDICT_BATCH = 125  # measured on two cores: half the time of batches of 250 and of 1000
SMALLEST_SIDE = 7  # three 3×3 convolutions without padding take six pixels


class SevenLayerNetwork(nn.Module):
    """Convolutions of 32, 64 and 128 filters, one channel, 64 dense units, the outputs.

    Parameters
    ----------
    image_shape : (height, width) or (height, width, channels), both sides at least 7.
    n_classes : number of outputs.

    Raises
    ------
    ValueError : an image is too small.
    """

    def __init__(self, image_shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        height, width, channels = image_size(image_shape, SMALLEST_SIDE)
        self.one_channel = nn.Sequential(
            nn.Conv2d(channels, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3),
            nn.ReLU(),
            nn.Conv2d(128, 1, 1),
            nn.ReLU(),
        )
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear((height - 6) * (width - 6), 64),
            nn.ReLU(),
            nn.Linear(64, n_classes),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(n, c, h, w)`` to the sigmoids' logits ``(n, n_classes)``."""
        images = images.contiguous(memory_format=torch.channels_last)
        return self.dense(self.one_channel(images))


class NN:
    """`SevenLayerNetwork`, trained as in Das and Thada's code.

    Adam (Keras's epsilon) on shuffled batches of all but the last tenth of the images; it stops
    when the loss on that tenth has not fallen for `patience` epochs, and keeps the last weights.

    Parameters
    ----------
    n_classes : number of classes.
    seed : of the initial weights and of the order of the images.
    epochs : the most passes through the images.
    patience : passes without a smaller loss on the held-out images before it stops.
    batch_size, lr : images per step, Adam's learning rate.
    outputs : ``"sigmoid"``, scaled to sum 1, or ``"softmax"``.
    white : what the brightest pixel is to the network.
    keep : the ``"last"`` weights, or the ``"best"``, with the smallest loss on the held-out images.

    Attributes
    ----------
    network_ : the trained `SevenLayerNetwork`.
    active_ : share of the one channel's outputs above 0 on the held-out images; 0 means that the
        network has died.
    """

    def __init__(
        self,
        n_classes: int,
        seed: int = 0,
        *,
        epochs: int = 100,
        patience: int = 8,
        batch_size: int = 32,
        lr: float = 1e-3,
        outputs: str = "sigmoid",
        white: float = 1.0,
        keep: str = "last",
    ) -> None:
        check_training(epochs=epochs, batch_size=batch_size, lr=lr)
        if patience < 1:
            raise ValueError(f"patience is {patience}; expected at least 1")
        check_choice("outputs", outputs, ("sigmoid", "softmax"))
        check_choice("keep", keep, ("last", "best"))
        if not 0 < white < math.inf:
            raise ValueError(f"white is {white}; expected a positive number")
        self.n_classes = n_classes
        self.seed = seed
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.lr = lr
        self.outputs = outputs
        self.white = white
        self.keep = keep

    def fit(self, X: np.ndarray, y: np.ndarray, context: Context) -> NN:
        """Learn from uint8 images, or float ones in [0, 1], of classes ``y`` ``(n,)``.

        Raises
        ------
        ValueError : the images are too small.
        FloatingPointError : the loss is not finite.
        """
        images = image_tensor(X, context.device)
        targets = torch.from_numpy(np.asarray(y, dtype=np.int64)).to(context.device)
        self.seen_ = np.isin(np.arange(self.n_classes), y)
        n = max(1, math.floor(len(X) * (1 - HELD_OUT)))  # to learn from
        rest = slice(n, None) if n < len(X) else slice(None)  # a single image is all there is
        network = SevenLayerNetwork(X.shape[1:], self.n_classes)
        glorot_(network, generator(self.seed, "weights")).to(context.device)
        self.network_, self._inference = network, Context(context.device, context.precision)
        optimiser = adam(network.parameters(), self.lr)

        def loss(rows: torch.Tensor, step: int) -> torch.Tensor:
            return self._loss(images[rows], targets[rows])

        batches = Batches(n, self.batch_size, self.seed, context.device)
        best = copy.deepcopy(network) if self.keep == "best" else None
        parts: Parts = {"network": network} if best is None else {"network": network, "best": best}
        loop = Loop("nn", loss, optimiser, batches, context, parts)
        for steps in loop.epochs(self.epochs):
            for rows in steps:
                loop.descend(rows)
            held_out_loss, self.active_ = self._validate(images[rest], targets[rest])
            loop.log(
                epoch=loop.epoch,
                loss=loop.mean(),
                held_out_loss=held_out_loss,
                active=self.active_,
            )
            losses = [row["held_out_loss"] for row in loop.history]
            if best is not None and held_out_loss < min(losses[:-1], default=math.inf):
                best.load_state_dict(network.state_dict())
            if stalled(losses, self.patience):
                break
        self.network_ = network if best is None else best
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities ``(n, n_classes)`` float32 of uint8 images, which sum to 1."""
        images = image_tensor(check_images(X), self._inference.device)
        logits = in_batches(self._logits, images, self._inference, PREDICT_BATCH).cpu()
        logits[:, ~self.seen_] = -math.inf  # a class never seen has probability 0
        return self._scores(logits).softmax(1).numpy()

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        """What the network says of images ``(n, c, h, w)`` in [0, 1]."""
        return self.network_(images * self.white)

    def _scores(self, logits: torch.Tensor) -> torch.Tensor:
        """What the softmax of the probabilities is taken of: σ_j / Σσ is that of log σ."""
        return nn.functional.logsigmoid(logits) if self.outputs == "sigmoid" else logits

    def _loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean cross entropy; of sigmoids divided by their sum, as Keras computes it."""
        with autocast(self._inference):
            logits = self._logits(pixels(images))
        return nn.functional.cross_entropy(self._scores(logits.float()), targets)

    def _validate(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
        """Mean loss on held-out images, and the share of the one channel that is not 0 there."""
        total, active = 0.0, 0.0
        with torch.inference_mode():
            for batch, classes in zip(images.split(1000), targets.split(1000), strict=True):
                total += float(self._loss(batch, classes)) * len(batch)
                with autocast(self._inference):
                    channel = self.network_.one_channel(pixels(batch) * self.white)
                active += float((channel > 0).float().mean()) * len(batch)
        if not math.isfinite(total):
            raise FloatingPointError(f"the network's loss became {total}; lower the learning rate")
        return total / len(images), active / len(images)


def stalled(losses: list[float], patience: int) -> bool:
    """Whether the smallest loss is `patience` or more epochs old."""
    return len(losses) - 1 - int(np.argmin(losses)) >= patience
