"""The figures of the report, each a PNG. The same numbers give the same bytes.

Charts are drawn from rows of the leaderboard with a column ``name`` (the method and its variant).
Every method keeps its colour, marker and line from figure to figure.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from bench.core.errors import BenchError
from bench.core.levels import Level
from bench.records.leaderboard import GPU
from bench.records.views import N_IMAGES, View
from bench.show.labels import FONT, MOST_WRITTEN, class_texts, named_every, wrapped
from bench.show.style import PLAIN

DPI = 100
COLOURS = 256  # of a PNG's palette: a third of the bytes, and nobody sees it
GREYS = 32  # the same of grey photographs: half the bytes again
LEAST_INCHES, MOST_INCHES = 6, 16  # of a heat map's width
CELL = 0.62  # inches of a heat map's column
MOST_PIXELS = 4000  # of a sheet of images, on either side
MOST_TILE = 128  # pixels of an image in a sheet: larger ones are thinned
GAP = 2  # pixels around a tile
PAPER = 255
LEAST_SECONDS = 0.01  # what takes less is drawn there: a logarithm has no place for 0
MARKERS = "osD^vPX<>*hp"
LINES = ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = PLAIN | {
    "font.family": FONT,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Style:
    """How a method is drawn, in every figure."""

    color: tuple[float, float, float]
    marker: str
    linestyle: str


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name, told apart without colour too: 60 differ in marker and colour.

    Colours are seaborn's for colour-blind readers.
    """
    palette = sns.color_palette("colorblind")
    return {
        name: Style(
            palette[i % len(palette)],
            MARKERS[i % len(MARKERS)],
            LINES[i // len(palette) % len(LINES)],
        )
        for i, name in enumerate(sorted(set(names)))
    }


def supervision(
    board: pd.DataFrame, order: Sequence[str], look: Mapping[str, Style], what: str
) -> bytes:
    """The headline against the level, a line for each method.

    Level 0 stands apart: its headline is another (ACC).

    Parameters
    ----------
    board : rows of one board, with the columns ``name``, ``level`` and ``headline_*``.
    order : the names as the legend has them.
    look : `styles` of the names.
    what : on which images the headline is, for the axis.
    """
    levels = [str(x) for x in sorted(Level.parse(level) for level in set(board["level"]))]
    scored = set(board.loc[board["headline_mean"].notna(), "name"])
    drawn = [name for name in order if name in scored]
    with mpl.rc_context(STYLE):
        figure, axes = _chart(len(drawn))
        for i, name in enumerate(drawn):
            rows = board[board["name"] == name].set_index("level").reindex(levels)
            shift = 0.24 * (i / max(1, len(drawn) - 1) - 0.5)
            _line(axes, rows, shift, look[name], name)
        axes.set_xticks(range(len(levels)), [_tick(level) for level in levels])
        axes.set_xlim(-0.5, len(levels) - 0.5)
        axes.set_xlabel("labelled (steps, not to scale)")
        axes.set_ylabel(f"headline on {what}")
        _frame(axes, board["headline_mean"])
        if "0%" in levels and len(levels) > 1:
            axes.axvline(0.5, color="0.6", linewidth=0.8, linestyle=(0, (4, 4)))
        _legend(axes)
        return _png(figure)


def _line(axes: Axes, rows: pd.DataFrame, shift: float, style: Style, name: str) -> None:
    """One method: means joined above level 0, intervals over seeds where there are several."""
    x = np.arange(len(rows)) + shift
    mean = rows["headline_mean"].to_numpy(dtype=float)
    above = rows.index.to_numpy() != "0%"
    plain: dict[str, Any] = {"color": style.color, "marker": style.marker, "markersize": 5}
    axes.plot(x[above], mean[above], linestyle=style.linestyle, linewidth=1.4, label=name, **plain)
    axes.plot(x[~above], mean[~above], linestyle="", **plain)
    low, high = (rows[f"headline_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
    several = ~np.isnan(low)
    if several.any():
        error = np.stack([mean - low, high - mean])[:, several]
        axes.errorbar(
            x[several], mean[several], error, fmt="none", color=style.color, capsize=2, linewidth=1
        )


def costs(
    board: pd.DataFrame, level: str, order: Sequence[str], look: Mapping[str, Style], what: str
) -> bytes:
    """What the headline at one level costs in seconds: the fit alone, and with shared stages.

    Other arguments as for `supervision`.
    """
    rows = board[(board["level"] == level) & board["headline_mean"].notna()].set_index("name")
    numbers = rows[["fit_seconds_median", "stage_seconds_median", "headline_mean"]].astype(float)
    drawn = [name for name in order if name in rows.index]
    on_gpu = set(rows.index[rows["device"].str.contains("cuda")])
    with mpl.rc_context(STYLE):
        figure, axes = _chart(len(drawn))
        for name in drawn:
            fit, shared, y = map(float, numbers.loc[name].fillna(0.0).to_numpy())
            start, end = max(fit, LEAST_SECONDS), max(fit + shared, LEAST_SECONDS)
            style = look[name]
            axes.plot([start, end], [y, y], color=style.color, linewidth=1, alpha=0.6)
            points: dict[str, Any] = {"color": style.color, "marker": style.marker, "linestyle": ""}
            known = name + GPU if name in on_gpu else name
            axes.plot([end], [y], markersize=7, label=known, **points)
            if start < end:
                axes.plot([start], [y], markersize=7, markerfacecolor="white", **points)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")  # no formula: see STYLE
        axes.set_xlabel("seconds (log): hollow the fit alone, filled with its shared stages")
        axes.set_ylabel(f"headline on {what} at {_spaced(level)}")
        _frame(axes, rows["headline_mean"])
        _legend(axes)
        return _png(figure)


def recalls(table: pd.DataFrame) -> bytes:
    """Per-class recall as a heat map.

    Parameters
    ----------
    table : a row for each method, a column for each class, values 0 to 1, NaN for none. Of many
        classes some are named, and no values are written (`labels.axis_remark` says so).
    """
    height, width = table.shape
    cell = min(CELL, (MOST_INCHES - 3.2) / width)
    names, step = class_texts(list(table.columns))[0], named_every(width)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = _figure(max(LEAST_INCHES, 3.2 + cell * width), 1.4 + 0.3 * height)
        axes = figure.add_subplot()
        sns.heatmap(
            table,
            ax=axes,
            vmin=0,
            vmax=1,
            cmap="cividis",
            annot=width <= MOST_WRITTEN,
            fmt=".2f",
            annot_kws={"size": 8},
            linewidths=0.5 if step == 1 else 0,
            xticklabels=False,
            yticklabels=False,
            cbar=False,
        )
        axes.set(xlabel="", ylabel="")
        axes.tick_params(length=0)
        axes.set_yticks(
            np.arange(height) + 0.5, [wrapped(name) for name in table.index], va="center"
        )
        axes.set_xticks(np.arange(0, width, step) + 0.5, names[::step])
        if max(map(len, names)) > 3 or step > 1:
            for text in axes.get_xticklabels():
                text.set(rotation=35, horizontalalignment="right")
        return _png(figure)


def confident_images(view: View, X: np.ndarray) -> bytes:
    """The images of each cluster that are most confidently in it: a row per cluster.

    Parameters
    ----------
    view : of the fit.
    X : ``(n, height, width[, channels])`` uint8, the images of the dataset.

    Raises
    ------
    BenchError : the view names an image that `X` does not have.
    """
    last = max((max(one.images) for one in view.clusters if one.images), default=-1)
    if last >= len(X):
        raise BenchError(
            f"a views file names image {last} of {len(X)}; delete it and run its trial again"
        )
    thin = -(-max(X.shape[1:3]) // MOST_TILE)
    X = X[:, ::thin, ::thin]  # a view of it
    blank = np.full(X.shape[1:], PAPER, dtype=np.uint8)
    rows = [
        [X[i] for i in one.images] + [blank] * (N_IMAGES - len(one.images)) for one in view.clusters
    ]
    names, _ = class_texts(view.classes)
    labels = ["empty" if one.label is None else names[one.label] for one in view.clusters]
    numbers = [one.cluster for one in view.clusters]
    return _sheet(tiled(rows), [f"{j}: {name}" for j, name in zip(numbers, labels, strict=True)])


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


def _sheet(sheet: np.ndarray, labels: Sequence[str]) -> bytes:
    """A picture of equally high rows, each with its label to the left; every pixel is a square.

    A large one is made smaller, to `MOST_PIXELS`.
    """
    height, width = sheet.shape[:2]
    scale = min(max(1, round(600 / width)), MOST_PIXELS / max(height, width))
    margin = 20 + 7 * max(map(len, labels))  # pixels; a character of the font is about 7 wide
    size = margin + round(scale * width), round(scale * height)
    with mpl.rc_context(STYLE | {"font.size": 9, "axes.grid": False}):
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
        # the better palette for photographs
        return _png(figure, Image.Quantize.MEDIANCUT, COLOURS if plain.ndim == 3 else GREYS)


def _figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches; no pyplot, whose figures outlive their use."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _chart(n_names: int) -> tuple[Figure, Axes]:
    """A figure with one plot, high enough for a legend of so many names."""
    figure = _figure(8.6, max(4.2, 0.9 + 0.22 * n_names))
    return figure, figure.add_subplot()


def _legend(axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        [wrapped(name) for name in names],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=9,
        handlelength=3,
    )


def _frame(axes: Axes, means: pd.Series) -> None:
    """Limits around the means: a long interval is cut rather than squeezing what is compared."""
    low, high = means.min(), means.max()
    room = max(0.02, 0.06 * (high - low))
    axes.set_ylim(max(0.0, low - room), min(1.0, high + room))


def _tick(level: str) -> str:
    return "0 %\n(ACC)" if level == "0%" else _spaced(level)


def _spaced(level: str) -> str:
    return level.replace("%", " %")


def _png(
    figure: Figure, how: Image.Quantize = Image.Quantize.MAXCOVERAGE, colours: int = COLOURS
) -> bytes:
    """The figure as a PNG with a palette, found in this way, without date or version."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    file = io.BytesIO()
    palette = drawn.quantize(colours, how, dither=Image.Dither.NONE)
    palette.save(file, "PNG", optimize=True)
    return file.getvalue()
