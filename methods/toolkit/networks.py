"""The convolutional autoencoder (CAE) of DCEC, shaped and initialised as Keras does it.

Keras and torch differ in two ways that matter here. With stride 2, Keras' "same" padding puts the
odd pixel on the right and at the bottom. And Keras starts from Glorot-uniform weights and zero
biases.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

STRIDE = 2
FILTERS = (32, 64, 128)
KERNELS = (5, 5, 3)
SMALLEST_SIDE = 8  # three halvings leave one pixel
Size = tuple[int, int]


class CAE(nn.Module):
    """Convolutional autoencoder: pixels in [0, 1] to an embedding and back.

    conv 32 5x5, conv 64 5x5, conv 128 3x3, all of stride 2, then dense to the embedding, which is
    linear. The decoder mirrors the encoder. ReLU between layers, linear output. The first two
    convolutions pad "same". The third does so along an axis whose side is a multiple of 8, and
    does not pad ("valid") along any other (28 pixels: 14, 7, 3).

    Parameters
    ----------
    image_shape : (height, width) or (height, width, channels), both sides at least 8 pixels.
    embedding_dim : size of the embedding.

    Attributes
    ----------
    encoder : images ``(n, channels, height, width)`` to embeddings ``(n, embedding_dim)``.
    decoder : embeddings to images of the same shape.

    Raises
    ------
    ValueError : `image_shape` is no image shape or too small, or `embedding_dim` is below 1.

    Notes
    -----
    Weights start as torch starts them; `glorot_` starts them as the source does. 28x28x1 images and
    10 dimensions make 275,979 parameters.

    References
    ----------
    Guo, Liu, Zhu and Yin, Deep Clustering with Convolutional Autoencoders, ICONIP 2017, section 3.
    """

    def __init__(self, image_shape: tuple[int, ...], embedding_dim: int = 10) -> None:
        super().__init__()
        height, width, channels = _checked_shape(image_shape)
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim is {embedding_dim}; expected at least 1")
        multiple_of_8 = (height % 8 == 0, width % 8 == 0)
        conv1 = StridedConv(channels, FILTERS[0], KERNELS[0], (height, width))
        conv2 = StridedConv(FILTERS[0], FILTERS[1], KERNELS[1], conv1.out_size)
        conv3 = StridedConv(FILTERS[1], FILTERS[2], KERNELS[2], conv2.out_size, multiple_of_8)
        features = (FILTERS[2], *conv3.out_size)
        n_features = conv3.out_size[0] * conv3.out_size[1] * FILTERS[2]  # 1152 for 28x28
        self.encoder = nn.Sequential(
            conv1,
            nn.ReLU(),
            conv2,
            nn.ReLU(),
            conv3,
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(n_features, embedding_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(embedding_dim, n_features),
            nn.ReLU(),
            nn.Unflatten(1, features),
            MirroredConv(conv3),
            nn.ReLU(),
            MirroredConv(conv2),
            nn.ReLU(),
            MirroredConv(conv1),
        )
        # Measured on two cores, batches of 256 28x28 images, fp32: 57 ms a step instead of 78.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The reconstruction of `images` ``(n, channels, height, width)``, of the same shape."""
        return self.decoder(self.encoder(images))


class StridedConv(nn.Conv2d):
    """Convolution of stride 2 over images of one size, padded as Keras does it.

    Parameters
    ----------
    in_channels, out_channels, kernel_size : as in `torch.nn.Conv2d`.
    size : (height, width) of the images that come in.
    same : for each axis, True pads "same", False does not pad ("valid").

    Attributes
    ----------
    out_size : (height, width) of what comes out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        size: Size,
        same: tuple[bool, bool] = (True, True),
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=STRIDE)
        rows = same_padding(size[0], kernel_size) if same[0] else (0, 0)
        columns = same_padding(size[1], kernel_size) if same[1] else (0, 0)
        self.size = size
        self.margins = (*columns, *rows)  # left, right, top, bottom: the order of F.pad
        self.out_size: Size = (
            (size[0] + sum(rows) - kernel_size) // STRIDE + 1,
            (size[1] + sum(columns) - kernel_size) // STRIDE + 1,
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(n, in_channels, *size)`` to ``(n, out_channels, *out_size)``."""
        return super().forward(F.pad(images, self.margins))


class MirroredConv(nn.ConvTranspose2d):
    """Transposed convolution that undoes the change of shape of a `StridedConv`.

    It is the adjoint of that convolution: every value adds a multiple of its kernel to the padded
    image, and what lies in the margins is cut off. Where Keras' ``Conv2DTranspose`` gives the size
    back (28 and all multiples of 8), it is the same operation.

    Parameters
    ----------
    mirrored : the convolution whose change of shape is undone.
    """

    def __init__(self, mirrored: StridedConv) -> None:
        kernel = mirrored.kernel_size[0]
        left, _, top, _ = mirrored.margins
        # torch cuts as many pixels after as before. So it cuts what lies before; at the end too
        # much is left, which forward slices off, or, where "valid" skipped a pixel, one is missing.
        missing = [
            max(side - ((out - 1) * STRIDE + kernel - 2 * before), 0)
            for side, out, before in zip(mirrored.size, mirrored.out_size, (top, left), strict=True)
        ]
        super().__init__(
            mirrored.out_channels,
            mirrored.in_channels,
            kernel,
            stride=STRIDE,
            padding=(top, left),
            output_padding=(missing[0], missing[1]),
        )
        self.size = mirrored.size

    def forward(self, values: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Values ``(n, in_channels, h, w)`` to images ``(n, out_channels, *size)``."""
        height, width = self.size
        return super().forward(values, output_size)[..., :height, :width]


def same_padding(size: int, kernel: int, stride: int = STRIDE) -> Size:
    """Pixels that Keras' "same" padding puts before and after an axis of `size` pixels.

    The output then has ``ceil(size / stride)`` pixels. Of an odd number, the larger part is after.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def glorot_(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Start all dense and convolution layers of `module` in place as Keras does; returns `module`.

    Weights are uniform in ±sqrt(6 / (fan_in + fan_out)), where a convolution's fans are its
    channels times its kernel's pixels; biases are 0. Other layers stay as they are.

    Parameters
    ----------
    module : a network on the CPU, in fp32.
    generator : a CPU generator; the layers are drawn in the order of ``module.modules()``.

    References
    ----------
    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks,
    AISTATS 2010, equation 16.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            # A transposed convolution swaps the two fans, in Keras as here: the sum is the same.
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def _checked_shape(image_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(height, width, channels), where channels may have been left out."""
    shape = tuple(image_shape)
    if len(shape) not in (2, 3) or min(shape[:2]) < SMALLEST_SIDE or shape[-1] < 1:
        raise ValueError(
            f"the images have shape {shape}; the convolutional autoencoder expects (height, width) "
            f"or (height, width, channels) with at least {SMALLEST_SIDE} pixels a side: enlarge or "
            "pad them"
        )
    return shape[0], shape[1], shape[2] if len(shape) == 3 else 1
