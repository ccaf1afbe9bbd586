"""Layers that networks here are made of, and how their weights start."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

STRIDE = 2
SMALLEST_SIDE = 8  # three halvings leave one pixel
Size = tuple[int, int]


class Turn(nn.Module):
    """Images ``(n, channels, height, width)`` turned by 180°."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(n, channels, height, width)``, turned; of the same shape."""
        return images.flip(2, 3)


class Permute(nn.Module):
    """A tensor with its axes in another order."""

    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The values, their axes in the other order."""
        return values.permute(self.axes)


class StridedConv(nn.Conv2d):
    """Convolution of stride 2 with an odd kernel, over images of one size.

    On turned images it is Keras' layer, but for one thing: where "valid" meets an even side, the
    row that is left over is the first and not the last. It does not happen at 28 pixels or
    multiples of 8.

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
        rows, columns = (kernel_size // 2 if axis else 0 for axis in same)
        super().__init__(in_channels, out_channels, kernel_size, STRIDE, (rows, columns))
        self.size = size
        self.out_size: Size = (
            (size[0] + 2 * rows - kernel_size) // STRIDE + 1,
            (size[1] + 2 * columns - kernel_size) // STRIDE + 1,
        )


class MirroredConv(nn.ConvTranspose2d):
    """Transposed convolution that undoes the change of shape of a `StridedConv`: its adjoint.

    Where Keras' ``Conv2DTranspose`` gives the size back (28 and all multiples of 8), it is the same
    operation on images turned by 180°.

    Parameters
    ----------
    mirrored : the convolution whose change of shape is undone.
    """

    def __init__(self, mirrored: StridedConv) -> None:
        kernel = mirrored.kernel_size[0]
        margins = (int(mirrored.padding[0]), int(mirrored.padding[1]))
        missing = [
            side - ((out - 1) * STRIDE + kernel - 2 * margin)
            for side, out, margin in zip(mirrored.size, mirrored.out_size, margins, strict=True)
        ]
        super().__init__(
            mirrored.out_channels,
            mirrored.in_channels,
            kernel,
            stride=STRIDE,
            padding=margins,
            output_padding=(missing[0], missing[1]),
        )
        self.size = mirrored.size
        self.margins: Size = margins

    def forward(self, values: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Values ``(n, in_channels, h, w)`` to images ``(n, out_channels, *size)``."""
        return self._add_bias(
            F.conv_transpose2d(values, self.weight, None, STRIDE, self.margins, self.output_padding)
        )

    def _add_bias(self, images: torch.Tensor) -> torch.Tensor:
        # Apart from the convolution: with a bias oneDNN takes a plain loop, which was measured to
        # be up to 10 times as slow in bf16.
        assert self.bias is not None
        return images.add_(self.bias.to(images.dtype).view(-1, 1, 1))


class SubpixelConv(MirroredConv):
    """The same layer with the same weights, computed as a plain convolution and a pixel shuffle.

    Of the kernel's entries only those of one parity meet in an output pixel of a given parity. So a
    plain convolution at the size that comes in can compute the four parities ("phases") as
    channels of their own. It multiplies more zeros, but for few output channels torch's transposed
    convolution is slower still (28x28, one channel, bf16: 4.2 ms against 1.8 ms).

    References
    ----------
    Shi et al., Is the deconvolution layer the same as a convolutional layer?, 2016.
    """

    def __init__(self, mirrored: StridedConv) -> None:
        super().__init__(mirrored)
        if any(margin % STRIDE for margin in self.margins):
            raise ValueError(f"the padding is {self.margins}; the four phases need an even one")

    def forward(self, values: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Values ``(n, in_channels, h, w)`` to images ``(n, out_channels, *size)``."""
        kernel = self.kernel_size[0]
        taps = (kernel + 1) // STRIDE  # of a phase, along an axis
        # Pixel 2i + a of the padded image is the sum over j of value i - j times entry 2j + a: a
        # convolution with the entries of parity a, in reverse. Of an odd kernel one is missing.
        even = F.pad(self.weight, (0, kernel % STRIDE, 0, kernel % STRIDE))
        phases = even.unflatten(3, (taps, STRIDE)).unflatten(2, (taps, STRIDE)).flip(2, 4)
        phases = phases.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)  # (4 · out, in, taps, taps)
        padding = [taps - 1 - margin // STRIDE for margin in self.margins]
        images = F.pixel_shuffle(F.conv2d(values, phases, padding=padding), STRIDE)
        return self._add_bias(images[..., : self.size[0], : self.size[1]])


class PixelwiseConv(nn.Conv2d):
    """A 1x1 convolution without padding and bias, as one matrix product over all pixels.

    The same layer with the same weights. On two cores in bf16, forward and backward take 60 % of
    the plain layer's time for 1024 x 4 x 4 pixels, 128 to 512 channels, and 30 % with stride 2.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, in_channels, h, w)`` to ``(n, out_channels, h / stride, w / stride)``."""
        rows, columns = self.stride
        pixels = x.permute(0, 2, 3, 1)[:, ::rows, ::columns]
        return F.linear(pixels, self.weight.flatten(1)).permute(0, 3, 1, 2)


class ImageMean(nn.Module):
    """The mean of each channel over the image: ``(n, c, h, w)`` to ``(n, c)``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, c, h, w)`` to ``(n, c)``."""
        # As a product with ones: mean()'s gradient is an expanded view, which made the preceding
        # layer's backward slower than its convolution.
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (n, h·w, c)
        ones = pixels.new_ones(1, 1, pixels.shape[1]).expand(len(pixels), -1, -1)
        return torch.bmm(ones, pixels).squeeze(1) / pixels.shape[1]


def image_size(image_shape: tuple[int, ...], smallest: int = SMALLEST_SIDE) -> tuple[int, int, int]:
    """(height, width, channels) of images, whose channels may have been left out.

    Parameters
    ----------
    image_shape : (height, width) or (height, width, channels).
    smallest : pixels that a network needs at least on each side.

    Raises
    ------
    ValueError : no image shape, or an image that is too small.
    """
    shape = tuple(image_shape)
    if len(shape) not in (2, 3) or min(shape[:2]) < smallest or shape[-1] < 1:
        raise ValueError(
            f"the images have shape {shape}; the network expects (height, width) or (height, "
            f"width, channels) with at least {smallest} pixels a side: enlarge or pad them"
        )
    return shape[0], shape[1], shape[2] if len(shape) == 3 else 1


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
