"""Random views of small images: whole batches at once, on the device where they are trained on.

One affine map per image crops, resizes, mirrors and rotates it in one interpolation. Then contrast,
brightness and, in colour, saturation change, and a box is cut out. All draws come from a generator
of the processor (in a training step, from `Draws`), so that a view depends on nothing but the seed,
the step and the image's place in the batch: the same on every device, and after a kill.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from methods.method import check_images
from methods.toolkit.draws import Draws, generator
from methods.toolkit.training import image_tensor, pixels

GAP = 2  # pixels between the tiles of a contact sheet


@dataclass(frozen=True)
class Strength:
    """How far a view may be from its image; everything is drawn uniformly within these bounds.

    Parameters
    ----------
    area : the smallest share of the image's area that a crop keeps, in (0, 1].
    ratio : the largest aspect ratio of a crop, either way, relative to the image's; at least 1.
    flip : probability that the view is mirrored left to right.
    degrees : the largest rotation, either way.
    cutout : the largest side of the box that is cut out, as a share of the image's side, below 1.
        The box is filled with the view's mean.
    brightness, contrast, saturation : factors are drawn from 1 ± this; below 1. Saturation has no
        effect on images of one channel.
    grey : probability that a colour image loses its colour.

    Raises
    ------
    ValueError : a bound out of its range.
    """

    area: float = 1.0
    ratio: float = 1.0
    flip: float = 0.0
    degrees: float = 0.0
    cutout: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    grey: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.area <= 1:
            raise ValueError(f"area is {self.area}; expected a share of the image in (0, 1]")
        if not 1 <= self.ratio < math.inf:
            raise ValueError(f"ratio is {self.ratio}; expected at least 1")
        if not 0 <= self.degrees <= 180:
            raise ValueError(f"degrees is {self.degrees}; expected 0 to 180")
        for name in ("flip", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a probability")
        for name in ("cutout", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more, below 1")


WEAK = Strength(area=0.8, flip=0.5)
STRONG = Strength(
    area=0.3,
    ratio=4 / 3,
    flip=0.5,
    degrees=10,
    cutout=0.4,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    grey=0.2,
)


def shift_and_flip(images: torch.Tensor, drawing: torch.Generator) -> torch.Tensor:
    """Each of `images` ``(n, c, h, w)`` flipped left to right or not, then shifted a little.

    Shifts are whole pixels, up to 1/14 of the shorter side and at least 1, along both axes; what
    comes in from outside is 0. `drawing` is a CPU generator: all devices draw the same.
    """
    return shifted(images, shifts(len(images), images.shape[2:], drawing).to(images.device))


def shifts(n: int, size: Sequence[int], drawing: torch.Generator) -> torch.Tensor:
    """Draws of `shift_and_flip`: ``(n, h + w)`` int64, which row and column every pixel is from."""
    height, width = size
    flipped = torch.rand(n, 1, generator=drawing) < 0.5
    down, right = torch.randint(2 * _reach(size) + 1, (2, n, 1), generator=drawing)
    columns = torch.arange(width).expand(n, width)
    columns = torch.where(flipped, columns.flip(1), columns) + right  # (n, w)
    return torch.cat([torch.arange(height) + down, columns], 1)


def shifted(images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """`shift_and_flip` of images ``(n, c, h, w)`` by the `shifts` drawn, on the same device."""
    n, _, height, _ = images.shape
    reach = _reach(images.shape[2:])
    padded = F.pad(images, (reach, reach, reach, reach))
    each = torch.arange(n, device=images.device)[:, None, None]
    rows, columns = drawn[:, :height, None], drawn[:, None, height:]
    return padded[each, :, rows, columns].movedim(3, 1)


def _reach(size: Sequence[int]) -> int:
    return max(1, round(min(size) / 14))


def views(images: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """One random view of each image.

    Parameters
    ----------
    images : uint8 ``(n, channels, height, width)``, on any device.
    strength : how far a view may be from its image.
    generator : a CPU generator; give it a seed of its own in every step.

    Returns
    -------
    float32 in [0, 1] of the same shape and on the same device, in the memory order that
    convolutions are fastest in (channels last).
    """
    return viewed(images, strength, view_draws(len(images), generator).to(images.device))


def drawn_views(
    images: torch.Tensor, strength: Strength, draws: Draws, name: str = "views"
) -> torch.Tensor:
    """`views` in a training step, drawn under this name."""
    n = len(images)
    return viewed(images, strength, draws(name, lambda drawing, _: view_draws(n, drawing)))


def view_draws(n: int, generator: torch.Generator) -> torch.Tensor:
    """Draws of `views` of n images: ``(13, n)`` in [0, 1)."""
    return torch.rand(13, n, generator=generator)


def viewed(images: torch.Tensor, strength: Strength, draws: torch.Tensor) -> torch.Tensor:
    """`views` by what `view_draws` drew, on the device of the images."""
    geometry, colour, box = draws[:6], draws[6:10], draws[10:13]
    with torch.no_grad():
        matrices = _crop_matrices(geometry, strength, images.shape[2:])
        grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
        # Rotation looks beyond the edges: a reflection goes with any background.
        out = F.grid_sample(pixels(images), grid, padding_mode="reflection", align_corners=False)
        out = _cut_out(_change_colours(out, colour, strength), box, strength)
        return out.contiguous(memory_format=torch.channels_last)


def _crop_matrices(u: torch.Tensor, strength: Strength, size: torch.Size) -> torch.Tensor:
    """Affine maps ``(n, 2, 3)`` from a view's coordinates to its image's, both in [-1, 1].

    `u` ``(6, n)`` are uniform draws. The crop's centre is such that an unrotated crop lies inside.
    """
    height, width = size
    area = strength.area + (1 - strength.area) * u[0]
    ratio = torch.exp(math.log(strength.ratio) * (2 * u[1] - 1))
    across, down = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (1 - across) * (2 * u[2] - 1), (1 - down) * (2 * u[3] - 1)
    across = torch.where(u[4] < strength.flip, -across, across)
    angle = math.radians(strength.degrees) * (2 * u[5] - 1)
    cos, sin = angle.cos(), angle.sin()
    rows = [
        torch.stack((across * cos, -down * sin * (height / width), x), 1),
        torch.stack((across * sin * (width / height), down * cos, y), 1),
    ]
    return torch.stack(rows, 1)


def _change_colours(images: torch.Tensor, u: torch.Tensor, strength: Strength) -> torch.Tensor:
    """Contrast around the image's mean, brightness as a factor; in colour also saturation.

    `u` ``(4, n)`` are uniform draws. Brightness is a factor and not an addition, so that a black
    background stays black.
    """
    u = u[:, :, None, None, None]  # against (n, channels, height, width)
    if images.shape[1] > 1:
        grey = images.mean(1, keepdim=True)
        saturation = 1 + strength.saturation * (2 * u[2] - 1)
        saturation = saturation * (u[3] >= strength.grey)
        images = grey + (images - grey) * saturation
    contrast = 1 + strength.contrast * (2 * u[0] - 1)
    brightness = 1 + strength.brightness * (2 * u[1] - 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    return (mean + (images - mean) * contrast).mul_(brightness).clamp_(0, 1)


def _cut_out(images: torch.Tensor, u: torch.Tensor, strength: Strength) -> torch.Tensor:
    """Fill a box of random size and centre with the image's mean; `u` ``(3, n)`` uniform draws."""
    if strength.cutout == 0:
        return images
    height, width = images.shape[2:]
    half = strength.cutout * u[0] / 2

    def inside(centre: torch.Tensor, side: int) -> torch.Tensor:
        place = (torch.arange(side, device=images.device) + 0.5) / side
        return (place - centre[:, None]).abs() < half[:, None]  # (n, side)

    box = inside(u[1], height)[:, None, :, None] & inside(u[2], width)[:, None, None, :]
    return torch.where(box, images.mean((1, 2, 3), keepdim=True), images)


def contact_sheet(
    X: np.ndarray, random_state: int, n_images: int = 12, n_strong: int = 3
) -> np.ndarray:
    """A picture by which a person can judge the augmentation.

    One column per image, drawn at random; rows are the original, a weak view and strong views, with
    white gaps between the tiles.

    Parameters
    ----------
    X : uint8 images ``(n, height, width)`` or ``(n, height, width, channels)``.
    random_state : seed of the choice of the images and of the views.
    n_images, n_strong : columns (at most n are shown) and rows of strong views.

    Returns
    -------
    uint8 ``(rows, columns)``, or ``(rows, columns, channels)`` where `X` has channels.

    Raises
    ------
    ValueError : `X` is no array of uint8 images, or there is nothing to show.
    """
    X = check_images(X)
    if n_images < 1 or n_strong < 0:
        raise ValueError(
            f"n_images is {n_images} and n_strong {n_strong}; expected at least 1 and 0"
        )
    order = torch.randperm(len(X), generator=generator(random_state, "contact sheet"))
    original = image_tensor(X[order[:n_images].numpy()], "cpu")
    rows = [pixels(original), views(original, WEAK, generator(random_state, "weak"))]
    for number in range(n_strong):
        rows.append(views(original, STRONG, generator(random_state, "strong", number)))
    tiles = F.pad(torch.stack(rows), (GAP, 0, GAP, 0), value=1.0)  # left of and above each tile
    n_rows, n_columns, channels, height, width = tiles.shape
    sheet = tiles.permute(0, 3, 1, 4, 2).reshape(n_rows * height, n_columns * width, channels)
    sheet = F.pad(sheet, (0, 0, 0, GAP, 0, GAP), value=1.0)
    values = sheet.mul(255).round().to(torch.uint8).numpy()
    return values if X.ndim == 4 else values[:, :, 0]
