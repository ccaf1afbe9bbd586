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
    return all_columns(_logits(network, X, inference).softmax(1), classes, n_classes)


def _logits(network: nn.Module, X: np.ndarray, inference: Context) -> torch.Tensor:
    images = image_tensor(check_images(X), inference.device)
    return in_batches(network, images, inference, PREDICT_BATCH).cpu()


@dataclass(frozen=True)
class NetworkPredictor:
    """A trained network whose output j stands for class j.

    Parameters
    ----------
    network : in evaluation mode, images ``(n, c, h, w)`` in [0, 1] to logits.
    classes : which of its outputs count; the others were never taught.
    n_classes : number of its outputs.
    inference : device and precision.
    """

    network: nn.Module
    classes: np.ndarray
    n_classes: int
    inference: Context

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities ``(n, n_classes)`` float32 of uint8 images."""
        logits = _logits(self.network, X, self.inference)[:, self.classes]
        return all_columns(logits.softmax(1), self.classes, self.n_classes)
