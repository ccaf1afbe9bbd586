"""Photographs: PNGs that are the same for the same images, show what there is, and stay small."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bench.core.errors import BenchError
from bench.records.views import Cluster, View
from bench.show import figures, labels


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures as they were when they became a PNG."""
    found: list[Figure] = []
    png = figures._png

    def keep(figure: Figure, *how: Any) -> bytes:
        found.append(figure)
        return png(figure, *how)

    monkeypatch.setattr(figures, "_png", keep)
    return found


def opened(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        assert not image.info
        return np.asarray(image.convert("RGB"))


def test_the_same_images_give_the_same_small_file() -> None:
    X = np.random.default_rng(0).integers(0, 256, (30, 9, 8), dtype=np.uint8)
    first = figures.augmentations(X)
    assert first == figures.augmentations(X)
    assert len(first) < 60_000
    assert opened(first).min() < 255, "it is not blank"


def test_tiles_lie_in_rows_with_white_gaps() -> None:
    images = [[np.full((2, 3), 10 * i + j, np.uint8) for j in range(2)] for i in range(2)]
    sheet = figures.tiled(images)
    g = figures.GAP
    assert sheet.shape == (2 * (2 + g) + g, 2 * (3 + g) + g)
    assert (sheet[g : g + 2, g + 3 + g : g + 3 + g + 3] == 1).all()
    assert (sheet[g + 2 + g : g + 2 + g + 2, g : g + 3] == 10).all()
    assert (sheet[:g] == 255).all()
    assert (sheet[:, -g:] == 255).all()
    assert (sheet == 255).sum() == sheet.size - 4 * 6


COLOURS = {(): 0, (1,): 0, (2,): 0, (3,): 1, (4,): 0}


@pytest.mark.parametrize("channels", COLOURS)
def test_confident_images_are_those_of_the_view(
    channels: tuple[int, ...], drawn: list[Figure]
) -> None:
    X = np.zeros((5, 8, 8, *channels), np.uint8)
    X[3] = 200
    first = Cluster(0, 1, 0.5, 2, (3, 0), (0.9, 0.8))
    view = View("", ("cat", "dog"), (first, Cluster(1, None, None, 0, (), ())))
    png = figures.confident_images(view, X)
    (axes,) = drawn[0].axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0: dog", "1: empty"]
    shown = np.asarray(axes.images[0].get_array())
    assert shown.ndim == 2 + COLOURS[channels]
    g, step = figures.GAP, 8 + figures.GAP
    tiles = [shown[g : g + 8, g + i * step : g + i * step + 8] for i in range(9)]
    assert [float(tile.mean()) for tile in tiles] == [200, 0] + [255] * 7
    assert (shown[g + step :] == 255).all(), "an empty cluster"
    pixels = opened(png)
    assert (pixels == 200).all(axis=2).sum() >= 64 * 5, "shown large"


@pytest.mark.parametrize("wrong", [(), (7,)])
def test_a_view_of_other_images_is_refused(wrong: tuple[int, ...]) -> None:
    view = View("", ("a",), (Cluster(0, 0, 1.0, 1, (0 if wrong else 7,), (1.0,), wrong),))
    with pytest.raises(BenchError, match="names image 7 of 5; delete it"):
        figures.confident_images(view, np.zeros((5, 8, 8), np.uint8))


def test_wrong_images_stand_behind_a_gap(drawn: list[Figure]) -> None:
    X = np.zeros((3, 8, 8), np.uint8)
    X[2] = 100
    clusters = (Cluster(0, 0, 0.5, 2, (0,), (0.9,), (2,)), Cluster(1, 0, 1.0, 1, (1,), (0.9,)))
    figures.confident_images(View("", ("a", "b"), clusters), X)
    shown = np.asarray(drawn[0].axes[0].images[0].get_array())
    g, step = figures.GAP, 8 + figures.GAP
    first = [shown[g : g + 8, g + i * step : g + i * step + 8].mean() for i in range(19)]
    assert first == [0] + [255] * 9 + [100] + [255] * 8
    assert (shown[g + step :, g + step :] == 255).all(), "nothing is wrong in the second"


def test_reconstructions_stand_below_their_images(drawn: list[Figure]) -> None:
    X = np.zeros((2, 8, 8), np.uint8)
    figures.reconstructions(X, {"1 %": X + 50, "50 %": X + 90})
    (axes,) = drawn[0].axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["image", "1 %", "50 %"]
    shown = np.asarray(axes.images[0].get_array())
    g, step = figures.GAP, 8 + figures.GAP
    assert [shown[g + i * step + 1, g + 1] for i in range(3)] == [0, 50, 90]


def test_the_contact_sheet_says_its_rows(drawn: list[Figure]) -> None:
    X = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    figures.augmentations(X)
    (axes,) = drawn[0].axes
    rows = [t.get_text() for t in axes.get_yticklabels()]
    assert rows == ["image", "weak", "strong 1", "strong 2", "strong 3"]
    assert np.asarray(axes.images[0].get_array()).shape == (5 * 10 + 2, 12 * 10 + 2, 3)


# --- Many classes, large images, other scripts --------------------------------------------------


def many(n: int) -> list[str]:
    return [f"class number {i}" for i in range(n)]


@pytest.mark.parametrize(("n", "step"), [(31, 1), (51, 2), (1200, 24)])
def test_captions_say_which_of_many_classes_are_named(n: int, step: int) -> None:
    said = labels.axis_remark(many(n))
    assert "Values are written for up to 30 classes" in said
    assert (f"Of {n:,} classes one in {step} is named" in said) == (step > 1)


def test_few_classes_need_no_remark() -> None:
    assert labels.axis_remark(many(30)) == ""


@pytest.mark.parametrize("side", [28, 300])
def test_a_sheet_of_many_clusters_is_of_bounded_size(side: int) -> None:
    X = np.zeros((9, side, side, 3), np.uint8)
    X[:, side // 2 :] = 200
    ones = [Cluster(j, j, 0.5, 9, tuple(range(9)), (0.5,) * 9) for j in range(100)]
    view = View("", tuple(f"class {'x' * 300} {j}" for j in range(100)), tuple(ones))
    pixels = opened(figures.confident_images(view, X))
    assert max(pixels.shape) <= figures.MOST_PIXELS
    assert (pixels == 200).all(axis=2).sum() > 9 * 100 * 200, "every image is there"


KANA = ["お", "き", "す"]


@pytest.mark.filterwarnings("error")
def test_classes_are_numbered_where_the_font_lacks_a_character(drawn: list[Figure]) -> None:
    one = Cluster(7, 2, 0.5, 1, (0,), (0.5,))
    empty = Cluster(8, None, None, 0, (), ())
    figures.confident_images(View("", tuple(KANA), (one, empty)), np.zeros((1, 8, 8), np.uint8))
    (sheet,) = drawn[0].axes
    assert [t.get_text() for t in sheet.get_yticklabels()] == ["7: 2", "8: empty"]
    assert labels.axis_remark(KANA) == (
        "Numbers stand for names that the font of the figures lacks: 0 お, 1 き, 2 す."
    )
