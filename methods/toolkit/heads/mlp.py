"""A multilayer perceptron, one of the heads."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from methods.method import Context
from methods.toolkit.draws import generator
from methods.toolkit.heads.outputs import network_probabilities
from methods.toolkit.nets.layers import glorot_
from methods.toolkit.training import (
    Batches,
    Loop,
    adam,
    autocast,
    check_training,
    image_tensor,
    pixels,
)


class MLP:
    """Multilayer perceptron d-300-100-k, ReLU, softmax, as the sources train it in Keras.

    Parameters
    ----------
    n_classes : number of classes.
    seed : of the initial weights and of the order of the images.
    epochs, batch_size, lr : passes, images per step, Adam's learning rate (its epsilon is 1e-7).
    """

    def __init__(
        self,
        n_classes: int,
        seed: int = 0,
        *,
        epochs: int = 20,
        batch_size: int = 2000,
        lr: float = 1e-3,
    ) -> None:
        check_training(epochs=epochs, batch_size=batch_size, lr=lr)
        self.n_classes = n_classes
        self.seed = seed
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr

    def fit(self, X: np.ndarray, y: np.ndarray, context: Context) -> MLP:
        """Learn from uint8 images, or float ones in [0, 1], of classes ``y`` ``(n,)``.

        Raises
        ------
        FloatingPointError : the loss is not finite.
        """
        self.classes_, targets = np.unique(y, return_inverse=True)
        images = image_tensor(X, context.device)
        classes = torch.from_numpy(targets).to(context.device)
        self.network_ = nn.Sequential(
            nn.Flatten(),
            nn.Linear(images[0].numel(), 300),
            nn.ReLU(),
            nn.Linear(300, 100),
            nn.ReLU(),
            nn.Linear(100, len(self.classes_)),
        )
        glorot_(self.network_, generator(self.seed, "weights")).to(context.device)
        self._inference = Context(context.device, context.precision)
        optimiser = adam(self.network_.parameters(), self.lr)

        def loss(rows: torch.Tensor, step: int) -> torch.Tensor:
            with autocast(context):
                logits = self.network_(pixels(images[rows]))
            return F.cross_entropy(logits.float(), classes[rows])

        batches = Batches(len(images), self.batch_size, self.seed, context.device)
        loop = Loop("mlp", loss, optimiser, batches, context, {"network": self.network_})
        loop.train(self.epochs)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities ``(n, n_classes)`` float32 of uint8 images."""
        return network_probabilities(
            self.network_, X, self.classes_, self.n_classes, self._inference
        )
