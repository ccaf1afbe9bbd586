"""What a head answers: a column for every class, also for those that it has never seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from methods.method import Context, check_images
from methods.toolkit.training import image_tensor, in_batches

# Measured on two cores: above 250 images the largest activation is memory that the system has to
# hand out anew, zeroed, for each batch, and 70,000 images take three times as long.
PREDICT_BATCH = 250


def all_columns(probabilities: torch.Tensor, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Probabilities of the classes seen as columns of all `n_classes`; 0 elsewhere."""
    columns = np.zeros((len(probabilities), n_classes), dtype=np.float32)
    columns[:, classes] = probabilities.numpy()
    return columns


def network_probabilities(
    network: nn.Module, X: np.ndarray, classes: np.ndarray, n_classes: int, inference: Context
) -> np.ndarray:
    """The softmax ``(n, n_classes)`` float32 of a network's logits for uint8 images.

    Parameters
    ----------
    classes : the class of each of the network's outputs.
    inference : device and precision.
    """
    images = image_tensor(check_images(X), inference.device)
    logits = in_batches(network, images, inference, PREDICT_BATCH).cpu()
    return all_columns(logits.softmax(1), classes, n_classes)


@dataclass(frozen=True)
class NetworkPredictor:
    """A trained network whose output j stands for class j.

    Parameters
    ----------
    network : in evaluation mode, images ``(n, c, h, w)`` in [0, 1] to logits.
    n_classes : number of its outputs.
    inference : device and precision.
    """

    network: nn.Module
    n_classes: int
    inference: Context

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities ``(n, n_classes)`` float32 of uint8 images."""
        classes = np.arange(self.n_classes)
        return network_probabilities(self.network, X, classes, self.n_classes, self.inference)
