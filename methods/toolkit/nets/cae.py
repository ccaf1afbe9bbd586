"""The convolutional autoencoder (CAE) of DCEC, shaped and initialised as Keras does it.

Keras and torch differ in three ways that matter here. With stride 2, Keras' "same" padding puts
the odd pixel on the right and at the bottom, torch's on the left and at the top: so the network
works on images turned by 180°, where the two are the same layer. Keras flattens with the channels
last. And Keras starts from Glorot-uniform weights, which are as likely turned, and zero biases.
"""

from __future__ import annotations

import torch
from torch import nn

from methods.toolkit.nets.layers import (
    MirroredConv,
    Permute,
    StridedConv,
    SubpixelConv,
    Turn,
    image_size,
)

FILTERS = (32, 64, 128)
KERNELS = (5, 5, 3)


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
        height, width, channels = image_size(image_shape)
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim is {embedding_dim}; expected at least 1")
        multiple_of_8 = (height % 8 == 0, width % 8 == 0)
        conv1 = StridedConv(channels, FILTERS[0], KERNELS[0], (height, width))
        conv2 = StridedConv(FILTERS[0], FILTERS[1], KERNELS[1], conv1.out_size)
        conv3 = StridedConv(FILTERS[1], FILTERS[2], KERNELS[2], conv2.out_size, multiple_of_8)
        features = (*conv3.out_size, FILTERS[2])
        n_features = conv3.out_size[0] * conv3.out_size[1] * FILTERS[2]  # 1152 for 28x28
        self.encoder = nn.Sequential(
            Turn(),
            conv1,
            nn.ReLU(inplace=True),
            conv2,
            nn.ReLU(inplace=True),
            conv3,
            nn.ReLU(inplace=True),
            Permute(0, 2, 3, 1),
            nn.Flatten(),
            nn.Linear(n_features, embedding_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(embedding_dim, n_features),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, features),
            Permute(0, 3, 1, 2),
            MirroredConv(conv3),
            nn.ReLU(inplace=True),
            MirroredConv(conv2),
            nn.ReLU(inplace=True),
            SubpixelConv(conv1),
            Turn(),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The reconstruction of `images` ``(n, channels, height, width)``, of the same shape."""
        return self.decoder(self.encoder(images))
