"""Heat maps as SVG, their values written: recall per class, a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle

from bench.show import labels, svg
from bench.show.labels import MOST_WRITTEN, class_texts, named_every
from bench.show.lines import PITCH, n_lines
from bench.show.style import colour
from bench.show.svg import SIZE, SMALL, About, plain

N_TONES = 20  # colours are rounded to so many: nobody sees it, and a file has a class for each
COLOURS = "cividis"  # runs from dark to light in grey and for colour-blind readers too
CELL, ROW = 46, 19  # units of a cell of recalls
SQUARE = 30  # units of a cell of a confusion matrix, on either side
MOST_CELLS = 900  # units of all cells in a row
MARGIN = 10
HEAD = 0.72  # how much of its length a slanted name takes upwards and sideways
SLANT = 40  # degrees


def recalls(table: pd.DataFrame, about: About) -> str:
    """Per-class recall.

    Parameters
    ----------
    table : a row for each method, a column for each class, values 0 to 1, NaN for none. Of many
        classes some are named, and no values are written (`labels.axis_remark` says so).
    """
    rows = [plain(str(name)) for name in table.index]
    values = table.to_numpy(dtype=float)
    texts = [["" if np.isnan(x) else f"{x:.2f}".removeprefix("0") for x in row] for row in values]
    heights = [max(ROW, PITCH * n_lines(name)) for name in rows]
    cell = min(CELL, MOST_CELLS / max(1, values.shape[1]))
    return _map(values, texts, rows, [str(x) for x in table.columns], cell, heights, about)


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], about: About) -> str:
    """A confusion matrix: of each true class the share that is called what, in percent.

    Of ten classes it takes about 8 KB, so that a page may hold one for every method.

    Parameters
    ----------
    counts : ``(n_classes, n_classes + 1)``: true classes by what they are called, the last column
        what is called nothing (as `bench.core.metrics.map_contingency` gives it).
    classes : the name of every class.
    """
    table = np.asarray(counts, dtype=float)
    sizes = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, sizes, out=np.full_like(table, np.nan), where=sizes > 0)
    if not table[:, -1].any():
        shares = shares[:, :-1]
    texts = [[_percent(share) for share in row] for row in shares]
    columns = [*class_texts(classes)[0], "no class"][: shares.shape[1]]
    cell = min(SQUARE, MOST_CELLS / shares.shape[1])
    return _map(shares, texts, class_texts(classes)[0], columns, cell, [cell] * len(table), about)


def _percent(share: float) -> str:
    """Whole percent; less than a half is left out, so that errors are seen."""
    return "" if np.isnan(share) or share < 0.005 else f"{100 * share:.0f}"


def _map(
    values: np.ndarray,
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    cell: float,
    heights: Sequence[float],
    about: About,
) -> str:
    """Cells of one width and these heights, names to the left and, slanted, above."""
    named = class_texts(columns)[0]
    left = MARGIN + max(labels.width(x, SIZE) for name in rows for x in labels.lines(name))
    over = HEAD * max(labels.width(name, SIZE) for name in named) + MARGIN
    width = left + cell * len(named) + over + MARGIN
    height = over + sum(heights) + MARGIN
    with svg.drawing(width, height) as figure:
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        edges = over + np.cumsum([0, *heights])
        for i, (top, bottom) in enumerate(pairwise(edges)):
            _row(axes, left, top, bottom - top, cell, values[i], texts[i])
            middle = (top + bottom) / 2
            for j, line in enumerate(labels.lines(rows[i])):
                place = middle + PITCH * (j - (n_lines(rows[i]) - 1) / 2) + 0.35 * SIZE
                axes.text(left - 6, place, line, ha="right", va="baseline")
        for j in range(0, len(named), named_every(len(named))):
            x = left + cell * (j + 0.5)
            axes.text(x, over - 5, named[j], rotation=SLANT, rotation_mode="anchor")
        return svg.write(figure, about)


def _row(
    axes: Axes,
    left: float,
    top: float,
    height: float,
    cell: float,
    values: np.ndarray,
    texts: Sequence[str],
) -> None:
    tones = mpl.colormaps[COLOURS].resampled(N_TONES)
    gap = 1 if cell > 8 else 0
    written = len(values) <= MOST_WRITTEN + 1  # classes, and none
    for j, (value, text) in enumerate(zip(values, texts, strict=True)):
        x = left + cell * j
        box = (x, top), cell - gap, height - 1
        if np.isnan(value) or (written and not text):
            axes.add_patch(Rectangle(*box, fill=False, edgecolor=colour("grid"), clip_on=False))
            continue
        tone = to_hex(tones(float(value)))
        axes.add_patch(Rectangle(*box, facecolor=tone, linewidth=0, clip_on=False))
        if written:
            place = x + (cell - gap) / 2, top + height / 2 + 0.33 * SMALL
            ink = "#000000" if _luminance(tone) > EVEN else "#ffffff"
            axes.text(*place, text, ha="center", va="baseline", size=SMALL, color=ink)


EVEN = 0.179  # at this luminance black and white have the same contrast, 4.6:1


def _luminance(tone: str) -> float:
    """Relative luminance as WCAG defines it, 0 to 1."""
    parts = np.array(to_rgb(tone))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
