"""Photographs in the report: sheets of images, each a PNG. The same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from bench.core.errors import BenchError
from bench.records.views import N_IMAGES, View
from bench.show.labels import FONT, class_texts
from bench.show.style import PLAIN

DPI = 100
COLOURS = 256  # of a PNG's palette: a third of the bytes, and nobody sees it
GREYS = 32  # the same of grey photographs: half the bytes again
MOST_PIXELS = 4000  # of a sheet of images, on either side
MOST_TILE = 128  # pixels of an image in a sheet: larger ones are thinned
NARROW, WIDE = 600, 1140  # pixels of a sheet, about
GAP = 2  # pixels around a tile
PAPER = 255
STYLE: dict[Any, Any] = PLAIN | {"font.family": FONT, "font.size": 9, "axes.grid": False}


def confident_images(view: View, X: np.ndarray) -> bytes:
    """The images of each cluster that are most confidently in it: a row per cluster.

    Behind a gap those of other classes than the cluster's label, where the view has any.

    Parameters
    ----------
    view : of the fit.
    X : ``(n, height, width[, channels])`` uint8, the images of the dataset.

    Raises
    ------
    BenchError : the view names an image that `X` does not have.
    """
    taken(X, [i for one in view.clusters for i in (*one.images, *one.wrong)])
    X = _thinned(X)
    blank = np.full(X.shape[1:], PAPER, dtype=np.uint8)

    def nine(images: Sequence[int]) -> list[np.ndarray]:
        return [X[i] for i in images] + [blank] * (N_IMAGES - len(images))

    wrong = any(one.wrong for one in view.clusters)
    rows = [
        nine(one.images) + ([blank, *nine(one.wrong)] if wrong else []) for one in view.clusters
    ]
    names, _ = class_texts(view.classes)
    labels = ["empty" if one.label is None else names[one.label] for one in view.clusters]
    numbers = [one.cluster for one in view.clusters]
    texts = [f"{j}: {name}" for j, name in zip(numbers, labels, strict=True)]
    return _sheet(tiled(rows), texts, WIDE if wrong else NARROW)


def reconstructions(X: np.ndarray, made: Mapping[str, np.ndarray]) -> bytes:
    """Images ``(m, height, width[, channels])`` uint8, and below them what was made of each.

    Parameters
    ----------
    made : by the label of their row, as many images of the same shape.
    """
    rows = [list(_thinned(one)) for one in (X, *made.values())]
    return _sheet(tiled(rows), ["image", *made])


def taken(X: np.ndarray, images: Sequence[int]) -> np.ndarray:
    """The images with these indices.

    Raises
    ------
    BenchError : `X` lacks one of them.
    """
    if (last := max(images, default=-1)) >= len(X):
        raise BenchError(
            f"a views file names image {last} of {len(X)}; delete it and run its trial again"
        )
    return X[list(images)]


def _thinned(X: np.ndarray) -> np.ndarray:
    """Large images with fewer pixels: a view of them."""
    thin = -(-max(X.shape[1:3]) // MOST_TILE)
    return X[:, ::thin, ::thin]


def augmentations(X: np.ndarray, n_strong: int = 3) -> bytes:
    """The contact sheet of SimCLR's views: a column per image, drawn at random with a fixed seed.

    Parameters
    ----------
    X : ``(n, height, width[, channels])`` uint8.
    """
    from methods.toolkit.augment import contact_sheet  # torch: only where it is needed

    sheet = contact_sheet(X, random_state=0, n_strong=n_strong)
    return _sheet(sheet, ["image", "weak", *(f"strong {i + 1}" for i in range(n_strong))])


def tiled(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Images ``(height, width[, channels])``, all alike, as one picture with white gaps."""
    tiles = np.array(rows, dtype=np.uint8)
    gaps = [(0, 0), (0, 0), (GAP, 0), (GAP, 0), *[(0, 0)] * (tiles.ndim - 4)]
    tiles = np.pad(tiles, gaps, constant_values=PAPER)
    n_rows, n_columns, height, width, *channels = tiles.shape
    sheet = tiles.swapaxes(1, 2).reshape(n_rows * height, n_columns * width, *channels)
    return np.pad(sheet, [(0, GAP), (0, GAP), *[(0, 0)] * len(channels)], constant_values=PAPER)


def _sheet(sheet: np.ndarray, labels: Sequence[str], wide: int = NARROW) -> bytes:
    """A picture of equally high rows, each with its label to the left; every pixel is a square.

    It is about `wide` pixels wide; a large one is made smaller, to `MOST_PIXELS`.
    """
    height, width = sheet.shape[:2]
    scale = min(max(1, round(wide / width)), MOST_PIXELS / max(height, width))
    margin = 20 + 7 * max(map(len, labels))  # pixels; a character of the font is about 7 wide
    size = margin + round(scale * width), round(scale * height)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((margin / size[0], 0, 1 - margin / size[0], 1))
        plain = sheet if sheet.shape[2:] in ((), (3,)) else sheet.mean(2)  # no colours: grey
        axes.imshow(plain, cmap="gray", vmin=0, vmax=PAPER, aspect="auto", interpolation="nearest")
        each = height / len(labels)
        axes.set_yticks([each * (i + 0.5) for i in range(len(labels))], labels)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return _png(figure, COLOURS if plain.ndim == 3 else GREYS)


def _png(figure: Figure, colours: int) -> bytes:
    """The figure as a PNG with a palette, without date or version."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    file = io.BytesIO()
    how = Image.Quantize.MEDIANCUT  # the better palette for photographs
    palette = drawn.quantize(colours, how, dither=Image.Dither.NONE)
    palette.save(file, "PNG", optimize=True)
    return file.getvalue()
