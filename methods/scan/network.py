"""SCAN's network: the encoder of SimCLR, and a linear head that assigns features to clusters."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from methods.method import UNLABELLED, Context
from methods.toolkit.nets.resnet import SmallResNet, encode
from methods.toolkit.training import check_finite


class ClusterNetwork(nn.Module):
    """Encoder, and a linear head that assigns its features to clusters.

    Parameters
    ----------
    image_shape, width, feature_dim : see `SmallResNet`.
    n_clusters : outputs of the head, the logits of the soft assignment.
    """

    def __init__(
        self, image_shape: tuple[int, ...], width: int, feature_dim: int, n_clusters: int
    ) -> None:
        super().__init__()
        self.encoder = SmallResNet(image_shape, width, feature_dim)
        self.head = ClusterHead(feature_dim, n_clusters)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(n, channels, height, width)`` to logits ``(n, n_clusters)``."""
        return self.head(self.encoder(images))

    def features(self, images: torch.Tensor, context: Context) -> torch.Tensor:
        """The features ``(n, feature_dim)``, on the CPU, of uint8 images on the device."""
        return encode(self.encoder, images, context)

    def probabilities(self, features: torch.Tensor) -> np.ndarray:
        """The soft assignments ``(n, n_clusters)`` float32 of features on the CPU.

        Raises
        ------
        FloatingPointError : the last step of the training has spoilt the weights.
        """
        device = self.head.weight.device
        with torch.inference_mode():
            logits = [self.head(block.to(device)).cpu() for block in features.split(10_000)]
            probabilities = torch.cat(logits).softmax(1)
        check_finite(probabilities, "the soft assignments")
        return probabilities.numpy()


class ClusterHead(nn.Linear):
    """Linear layer on features minus their mean, divided by one scale for all of them."""

    mean: torch.Tensor  # (feature_dim,)
    scale: torch.Tensor  # ()

    def __init__(self, feature_dim: int, n_clusters: int) -> None:
        super().__init__(feature_dim, n_clusters)
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("scale", torch.ones(()))

    def start_(self, features: torch.Tensor, generator: torch.Generator) -> None:
        """Draw the weights as torch does, and take mean and scale from features ``(n, d)``.

        The scale is the root mean square of all features, not one per feature: a feature that
        hardly varies here may vary once the encoder is trained on.
        """
        bound = 1 / math.sqrt(self.in_features)
        drawn = torch.empty(self.weight.shape)  # where the generator is, wherever the head may be
        self.weight.data.copy_(drawn.uniform_(-bound, bound, generator=generator))
        nn.init.zeros_(self.bias)
        mean = features.mean(0)
        self.mean.copy_(mean)
        scale = (features - mean).square().mean().sqrt()
        self.scale.copy_(scale.clamp_min(torch.finfo(scale.dtype).tiny))

    def lean_(self, features: torch.Tensor, y: torch.Tensor, weight: float) -> None:
        """Add to the weights what draws the images of a class to its cluster; after `start_`.

        To the logits of an image it adds about `weight` times the cosines between its features,
        taken from the mean of all images, and the labelled mean of each class, taken from the mean
        of these means.

        Parameters
        ----------
        features, y : ``(n, d)``, and the classes ``(n,)`` int64, -1 = unlabelled. Each class has a
            label; with more clusters than classes, cluster j is drawn to class j modulo these.
        """
        known = y != UNLABELLED
        classes = F.one_hot(y[known]).float()  # (m, classes)
        means = classes.T @ features[known] / classes.sum(0).unsqueeze(1)  # (classes, d)
        towards = F.normalize(means - means.mean(0), dim=1)
        cluster = torch.arange(self.out_features) % len(towards)
        # Features that are divided by their scale have a length of about the root of their number.
        towards = towards[cluster] * (weight / math.sqrt(self.in_features))
        self.weight.data.add_(towards.to(self.weight.device))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features ``(n, feature_dim)`` to logits ``(n, n_clusters)``."""
        return super().forward((features - self.mean) / self.scale)
