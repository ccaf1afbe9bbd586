"""A small residual network, the encoder of SimCLR and SCAN."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from methods.method import Context
from methods.toolkit.nets.layers import ImageMean, PixelwiseConv, image_size
from methods.toolkit.training import in_batches

ENCODE_BATCH = 250  # its activations stay in memory that is used again, and near the cache


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their input (He et al. 2016)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        self.last_norm = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                PixelwiseConv(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, in_channels, h, w)`` to ``(n, out_channels, h / stride, w / stride)``."""
        return F.relu(self.last_norm(self.residual(x)).add_(self.shortcut(x)), inplace=True)


class SmallResNet(nn.Sequential):
    """A ResNet for small images, for two processor cores: pixels in [0, 1] to features.

    A 5x5 convolution of stride 2, three residual blocks of width w, 2w and 4w, the second and third
    of stride 2, a 1x1 convolution to the features, and the mean over what is left of the image.
    A forward pass of a 28x28 image takes 23 MFLOP at width 32.

    Parameters
    ----------
    image_shape : (height, width) or (height, width, channels), both sides at least 8 pixels.
    width : channels of the first block.
    feature_dim : number of features.

    Raises
    ------
    ValueError : `image_shape` is no image shape or too small, or a size is below 1.
    """

    def __init__(self, image_shape: tuple[int, ...], width: int, feature_dim: int) -> None:
        channels = image_size(image_shape)[2]
        if width < 1 or feature_dim < 1:
            raise ValueError(f"width is {width}, feature_dim {feature_dim}; expected at least 1")
        super().__init__(
            nn.Conv2d(channels, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            ResidualBlock(width, width, 1),
            ResidualBlock(width, 2 * width, 2),
            ResidualBlock(2 * width, 4 * width, 2),
            PixelwiseConv(4 * width, feature_dim),
            nn.BatchNorm2d(feature_dim),
            nn.ReLU(inplace=True),
            ImageMean(),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it


def encode(encoder: nn.Module, images: torch.Tensor, context: Context) -> torch.Tensor:
    """The features ``(n, feature_dim)`` float32, on the CPU, of uint8 images on the device."""
    encoder.eval()

    def features(batch: torch.Tensor) -> torch.Tensor:
        return encoder(batch.contiguous(memory_format=torch.channels_last))

    return in_batches(features, images, context, ENCODE_BATCH).cpu()


def he_(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Start all dense and convolution layers of `module` in place as He et al. do; returns it.

    Weights are normal with variance 2 / fan_out; biases are 0. Batch norm starts as torch starts
    it, except that each residual block starts as the identity: its last scale is 0.

    References
    ----------
    He, Zhang, Ren and Sun, Delving Deep into Rectifiers, ICCV 2015. The zero scale: Goyal et al.,
    Accurate, Large Minibatch SGD, 2017, section 5.1.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(
                layer.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if isinstance(layer, ResidualBlock):
            nn.init.zeros_(layer.last_norm.weight)
    return module
