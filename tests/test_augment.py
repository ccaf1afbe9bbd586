"""Random views: what each bound of a `Strength` does, seeds, and the contact sheet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from methods.toolkit.augment import GAP, STRONG, WEAK, Strength, contact_sheet, views
from methods.toolkit.draws import generator
from methods.toolkit.training import pixels


def noise(n: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    shape = (n, channels, height, width)
    return torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)


def seeded(step: int = 0) -> torch.Generator:
    return generator(0, "views", step)


@pytest.mark.parametrize("strength", [WEAK, STRONG])
@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (5, 3, 32, 32), (1, 1, 8, 8), (4, 2, 9, 14)])
def test_views_are_images_of_the_same_shape(
    shape: tuple[int, int, int, int], strength: Strength
) -> None:
    images = noise(*shape)
    before = images.clone()
    out = views(images, strength, seeded())
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)
    assert not torch.equal(out, pixels(images))


def test_the_seed_decides() -> None:
    images = noise(6, 1, 28, 28)
    assert torch.equal(views(images, STRONG, seeded(3)), views(images, STRONG, seeded(3)))
    assert not torch.equal(views(images, STRONG, seeded(3)), views(images, STRONG, seeded(4)))


def test_a_view_does_not_depend_on_the_other_images() -> None:
    images = noise(6, 3, 16, 16)
    changed = images.clone()
    changed[0] = 255 - changed[0]
    first, second = views(images, STRONG, seeded()), views(changed, STRONG, seeded())
    assert torch.equal(first[1:], second[1:])
    assert not torch.equal(first[0], second[0])


def test_two_copies_of_an_image_get_two_views() -> None:
    images = noise(4, 1, 28, 28)
    one, other = views(images.repeat(2, 1, 1, 1), STRONG, seeded()).chunk(2)
    assert not torch.isclose(one, other).all(dim=(1, 2, 3)).any()


def test_no_strength_leaves_the_image() -> None:
    images = noise(4, 3, 11, 17)
    torch.testing.assert_close(views(images, Strength(), seeded()), pixels(images))


def test_flip_mirrors_left_to_right() -> None:
    images = noise(4, 1, 11, 17)
    torch.testing.assert_close(
        views(images, Strength(flip=1), seeded()), pixels(images).flip(3), atol=1e-5, rtol=0
    )
    some = views(images[:1].repeat(400, 1, 1, 1), Strength(flip=0.25), seeded())
    mirrored = torch.isclose(some, pixels(images[:1]).flip(3), atol=1e-4).all(dim=(1, 2, 3))
    assert 0.15 < mirrored.double().mean() < 0.35


def test_a_crop_shows_its_share_of_the_image_and_stays_inside() -> None:
    ramp = torch.arange(0, 250, 10, dtype=torch.uint8).repeat(25, 1)  # brightness is the column
    images = ramp.repeat(300, 1, 1, 1)
    out = views(images, Strength(area=0.25), seeded())[:, 0] * 25.5  # in columns
    span = out.amax((1, 2)) - out.amin((1, 2))
    assert span.max() <= 24.01  # the whole image, from the first pixel's middle to the last's
    assert span.min() >= 24 / 2 - 0.51  # half of the side
    assert span.min() < 15
    assert span.max() > 21
    assert out.min() >= 0
    assert out.max() <= 24.01
    centre = out.mean((1, 2))
    assert centre.min() < 9
    assert centre.max() > 15


def test_the_ratio_stretches_one_side() -> None:
    ramp = torch.arange(0, 250, 10, dtype=torch.uint8).repeat(25, 1)
    images = ramp.repeat(300, 1, 1, 1)
    strength = Strength(area=0.5, ratio=2.0)
    across = views(images, strength, seeded())[:, 0] * 25.5
    down = views(images.mT.contiguous(), strength, seeded())[:, 0] * 25.5

    def span(x: torch.Tensor) -> torch.Tensor:
        return x.amax((1, 2)) - x.amin((1, 2))

    assert (span(across) / span(down)).max() > 1.5
    assert (span(across) / span(down)).min() < 1 / 1.5


def test_rotation_keeps_a_disc_round_in_an_image_that_is_not_square() -> None:
    y, x = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(40) - 19.5, indexing="ij")
    radius = (x**2 + y**2).sqrt()
    disc = (255 * torch.sigmoid(8 - radius)).to(torch.uint8)
    bar = (255 * ((y.abs() < 2) & (x.abs() < 10))).to(torch.uint8)
    near = radius < 11  # beyond it, a turned view sees reflections

    def turned(image: torch.Tensor) -> torch.Tensor:
        return views(image.repeat(20, 1, 1, 1), Strength(degrees=180), seeded())[:, 0, near]

    discs = turned(disc)
    torch.testing.assert_close(discs, pixels(disc)[near].expand_as(discs), atol=0.06, rtol=0)
    bars, original = turned(bar), pixels(bar)[near]
    assert (bars - original).abs().amax(1).max() > 0.9
    area = bars.sum(1) / original.sum()
    assert area.min() > 0.95
    assert area.max() < 1.05


def test_cutout_fills_a_box_with_the_mean() -> None:
    images = noise(200, 1, 20, 30)
    out = views(images, Strength(cutout=0.5), seeded())
    mean = pixels(images).mean((1, 2, 3))
    sizes = []
    for image, view, fill in zip(pixels(images), out, mean, strict=True):
        changed = (view - image).abs()[0] > 1e-4
        if not changed.any():
            continue
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert height <= 11
        assert width <= 16
        box = view[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        torch.testing.assert_close(box, fill.expand_as(box), atol=1e-4, rtol=0)
        sizes.append(height * width)
    assert len(sizes) > 150
    assert max(sizes) > 80


def test_brightness_is_a_factor_and_contrast_keeps_the_mean() -> None:
    images = noise(50, 1, 12, 12) // 4 + 64  # so that nothing is cut off
    images[:, :, 0] = 0
    bright = views(images, Strength(brightness=0.4), seeded())
    assert bright[:, :, 0].max() < 1e-6
    factor = bright.sum((1, 2, 3)) / pixels(images).sum((1, 2, 3))
    assert 0.6 <= factor.min() < 0.7
    assert 1.3 < factor.max() <= 1.4
    contrast = views(noise(50, 1, 12, 12) // 4 + 96, Strength(contrast=0.4), seeded())
    original = pixels(noise(50, 1, 12, 12) // 4 + 96)
    torch.testing.assert_close(contrast.mean((1, 2, 3)), original.mean((1, 2, 3)))
    ratio = contrast.std((1, 2, 3)) / original.std((1, 2, 3))
    assert 0.6 <= ratio.min() < 0.7
    assert 1.3 < ratio.max() <= 1.4


def test_saturation_and_grey_change_colour_images_alone() -> None:
    colour = noise(50, 3, 8, 8) // 4 + 96
    grey = views(colour, Strength(grey=1), seeded())
    torch.testing.assert_close(grey, pixels(colour).mean(1, keepdim=True).expand_as(grey))
    pale = views(colour, Strength(saturation=0.4), seeded())
    torch.testing.assert_close(pale.mean(1), pixels(colour).mean(1))
    spread = pale.std(1).mean((1, 2)) / pixels(colour).std(1).mean((1, 2))
    assert 0.6 <= spread.min() < 0.7
    assert 1.3 < spread.max() <= 1.4
    one_channel = noise(5, 1, 8, 8)
    same = views(one_channel, Strength(saturation=0.4, grey=1), seeded())
    torch.testing.assert_close(same, pixels(one_channel))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"area": 0}, "area is 0; expected a share"),
        ({"area": 1.1}, "area is 1.1"),
        ({"ratio": 0.5}, "ratio is 0.5; expected at least 1"),
        ({"degrees": 181}, "degrees is 181; expected 0 to 180"),
        ({"flip": 1.5}, "flip is 1.5; expected a probability"),
        ({"grey": -0.1}, "grey is -0.1; expected a probability"),
        ({"cutout": 1}, "cutout is 1; expected 0 or more, below 1"),
        ({"contrast": float("nan")}, "contrast is nan"),
    ],
)
def test_strength_refuses(bounds: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Strength(**bounds)


def test_the_contact_sheet_shows_originals_above_their_views() -> None:
    X = noise(30, 1, 10, 14)[:, 0].numpy()
    sheet = contact_sheet(X, 0, n_images=4, n_strong=2)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (4 * (10 + GAP) + GAP, 4 * (14 + GAP) + GAP)
    assert (sheet[:GAP] == 255).all()
    assert (sheet[:, :GAP] == 255).all()
    assert (sheet[-GAP:] == 255).all()
    assert (sheet[:, -GAP:] == 255).all()
    tiles = [
        [sheet[top : top + 10, left : left + 14] for left in range(GAP, sheet.shape[1] - GAP, 16)]
        for top in range(GAP, sheet.shape[0] - GAP, 12)
    ]
    for original, *seen in zip(*tiles, strict=True):
        assert any(np.array_equal(original, x) for x in X)
        assert all(tile.shape == original.shape for tile in seen)
        assert len({tile.tobytes() for tile in (original, *seen)}) == 4


def test_the_contact_sheet_follows_the_seed() -> None:
    X = noise(30, 1, 8, 8)[:, 0].numpy()
    assert np.array_equal(contact_sheet(X, 0), contact_sheet(X, 0))
    assert not np.array_equal(contact_sheet(X, 0), contact_sheet(X, 1))


def test_the_contact_sheet_of_colour_images_and_of_few() -> None:
    X = noise(3, 3, 8, 8).movedim(1, 3).numpy()
    sheet = contact_sheet(X, 0, n_images=12, n_strong=1)
    assert sheet.shape == (3 * (8 + GAP) + GAP, 3 * (8 + GAP) + GAP, 3)


def test_the_contact_sheet_refuses() -> None:
    with pytest.raises(ValueError, match="expected uint8 images"):
        contact_sheet(np.zeros((3, 8, 8)), 0)
    with pytest.raises(ValueError, match="n_images is 0 and n_strong 3"):
        contact_sheet(np.zeros((3, 8, 8), dtype=np.uint8), 0, n_images=0)
