"""Heat maps as SVG, their values written: recall per class, a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from bench.show import labels, svg
from bench.show.labels import MOST_WRITTEN, class_texts, classes_per_column, named_every
from bench.show.lines import PITCH, n_lines, name_lines
from bench.show.style import colour
from bench.show.svg import SIZE, SMALL, About, plain

N_TONES = 20  # colours are rounded to so many: nobody sees it, and a file has a class for each
COLOURS = "cividis"  # runs from dark to light in grey and for colour-blind readers too
CELL, ROW = 46, 19  # units of a cell of recalls
SQUARE = 30  # units of a cell of a confusion matrix, on either side
MOST_CELLS = 900  # units of all cells in a row
MARGIN = 14
BLANK = "none"
HEAD = 0.72  # how much of its length a slanted name takes upwards and sideways
SLANT = 40  # degrees
EVEN = 0.179  # at this luminance black and white have the same contrast, 4.6:1


def recalls(table: pd.DataFrame, about: About) -> str:
    """Per-class recall.

    Parameters
    ----------
    table : a row for each method, a column for each class, values 0 to 1, NaN for none. Of many
        classes some are named, no values are written, and of very many a column is the mean of
        several (`labels.axis_remark` says so).
    """
    rows, step = [plain(str(name)) for name in table.index], classes_per_column(table.shape[1])
    means = table.T.groupby(np.arange(table.shape[1]) // step).mean().T
    values, columns = means.to_numpy(dtype=float), [str(name) for name in table.columns[::step]]
    texts = [["" if np.isnan(x) else f"{x:.2f}".removeprefix("0") for x in row] for row in values]
    heights = [max(ROW, PITCH * n_lines(name)) for name in rows]
    cell = min(CELL, MOST_CELLS / max(1, values.shape[1]))
    if len(columns) > MOST_WRITTEN:
        texts = []
    return _map(values, texts, rows, columns, cell, heights, about)


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], about: About) -> str:
    """A confusion matrix: of each true class the share that is called what, in percent.

    Of ten classes it takes about 8 KB, so that a page may hold one for every method.

    Parameters
    ----------
    counts : ``(n_classes, n_classes + 1)``: true classes by what they are called, the last column
        what is called nothing (as `bench.core.metrics.map_contingency` gives it).
    classes : the name of every class.

    Raises
    ------
    ValueError : there are more than `labels.MOST_WRITTEN` classes, whose values have no room.
    """
    if len(classes) > MOST_WRITTEN:
        raise ValueError(f"{len(classes)} classes; a matrix is drawn of up to {MOST_WRITTEN}")
    table = np.asarray(counts, dtype=float)
    sizes = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, sizes, out=np.full_like(table, np.nan), where=sizes > 0)
    if not table[:, -1].any():
        shares = shares[:, :-1]
    texts = [[_percent(share) for share in row] for row in shares]
    columns = [*class_texts(classes)[0], "no class"][: shares.shape[1]]
    rows = class_texts(classes)[0]
    return _map(shares, texts, rows, columns, SQUARE, [SQUARE] * len(rows), about)


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
    """Cells of one width and these heights, names to the left and, slanted, above.

    Without `texts` there are no values in them.
    """
    named = class_texts(columns)[0]
    left = MARGIN + max(labels.width(x, SIZE) for name in rows for x in name_lines(name))
    over = HEAD * max(labels.width(name, SIZE) for name in named) + MARGIN
    width = left + cell * len(named) + over + MARGIN
    height = over + sum(heights) + MARGIN
    with svg.drawing(width, height) as figure:
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        xs = left + cell * np.arange(len(named) + 1)
        ys = over + np.cumsum([0, *heights])
        _cells(axes, values, texts, xs, ys)
        for name, (top, bottom) in zip(rows, pairwise(ys), strict=True):
            for j, line in enumerate(name_lines(name)):
                place = (top + bottom) / 2 + PITCH * (j - (n_lines(name) - 1) / 2) + 0.35 * SIZE
                axes.text(left - 6, place, line, ha="right", va="baseline")
        for j in range(0, len(named), named_every(len(named))):
            axes.text(
                (xs[j] + xs[j + 1]) / 2, over - 5, named[j], rotation=SLANT, rotation_mode="anchor"
            )
        return svg.write(figure, about)


def _cells(
    axes: Axes,
    values: np.ndarray,
    texts: Sequence[Sequence[str]],
    xs: np.ndarray,
    ys: np.ndarray,
) -> None:
    """The cells between these edges: one path for each tone, with a gap where there is room."""
    tones = [to_hex(tone) for tone in mpl.colormaps[COLOURS](np.linspace(0, 1, N_TONES))]
    gap = 1 if xs[1] - xs[0] > 8 else 0
    boxes: dict[str, list[Path]] = {}
    written: dict[str, list[tuple[float, float, str]]] = {}
    for (i, j), value in np.ndenumerate(values):
        left, top, right, bottom = xs[j], ys[i], xs[j + 1] - gap, ys[i + 1] - 1
        blank = np.isnan(value) or (texts and not texts[i][j])
        tone = BLANK if blank else tones[round(float(value) * (N_TONES - 1))]
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        boxes.setdefault(tone, []).append(Path(corners, closed=True))
        if texts and not blank:
            ink = "#000000" if _luminance(tone) > EVEN else "#ffffff"
            middle = (left + right) / 2, (top + bottom) / 2 + 0.33 * SMALL
            written.setdefault(ink, []).append((*middle, texts[i][j]))
    for tone, paths in sorted(boxes.items()):
        patch = PathPatch(Path.make_compound_path(*paths), facecolor=tone, linewidth=0)
        if tone == BLANK:
            patch.set(facecolor="none", edgecolor=colour("grid"), linewidth=1)
        patch.set_clip_on(False)
        axes.add_artist(patch)
    for ink, found in written.items():
        for x, y, text in found:
            axes.text(x, y, text, ha="center", va="baseline", size=SMALL, color=ink)


def _luminance(tone: str) -> float:
    """Relative luminance as WCAG defines it, 0 to 1."""
    parts = np.array(to_rgb(tone))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
