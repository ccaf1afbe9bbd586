"""Published figures against measured ones: a chart of dots and intervals, source by source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from bench.records.findings import TOLERANCE, Finding
from bench.records.statistics import t_interval
from bench.show import labels, svg
from bench.show.charts import short, spaced
from bench.show.style import OF_VERDICT, colour
from bench.show.svg import SIZE, SMALL, About, plain

PITCH, HEAD = 17, 26  # units of a row, of a source's title
PLOT = 260  # units of the axis of differences
MOST = 0.06  # the largest difference on the axis; a larger one stands at its end
GAP, MARGIN, FOOT = 14, 10, 46
MARKERS = {"reproduced": "o", "above": "^", "below": "v", "died": "X"}
HEADS = ("method", "labels", "score", "published", "", "measured", "verdict", "published state")
AT = HEADS.index("")  # where the dots are


def verdicts(findings: Sequence[Finding], about: About) -> str:
    """How far every published figure is from the mean measured of it, with its 95 % interval.

    The line in the middle is the published figure, the grey field what counts as reproduced with
    one seed. The shape of a mark says the verdict, and so does its colour, but that *died* has that
    of *below*. The last column says by which rule the source chose the state that it published.

    Parameters
    ----------
    findings : what `bench.records.findings.verify` gives; those of a source stand together.
    """
    groups = [(key, list(found)) for key, found in groupby(findings, lambda x: x.figure.source)]
    cells = [[_cells(one) for one in found] for _, found in groups]
    every = [HEADS, *(row for found in cells for row in found)]
    widths = [max(labels.width(row[i], SIZE) for row in every) for i in range(len(HEADS))]
    widths[AT] = PLOT
    starts = MARGIN + np.cumsum([0, *(width + GAP for width in widths[:-1])])
    width = float(starts[-1] + widths[-1] + MARGIN)
    height = HEAD * (len(groups) + 1) + PITCH * len(findings) + FOOT
    middle = float(starts[AT]) + PLOT / 2
    with svg.drawing(width, height) as figure:
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        _axis(axes, middle, height - FOOT)
        for start, head in zip(starts, HEADS, strict=True):
            _text(axes, start, HEAD - 10, head, color=colour("faint"), size=SMALL)
        y = float(HEAD)
        for (source, found), rows in zip(groups, cells, strict=True):
            _text(axes, MARGIN, y + HEAD - 8, plain(source), fontweight="bold")
            y += HEAD
            for finding, row in zip(found, rows, strict=True):
                for start, cell in zip(starts, row, strict=True):
                    _text(axes, start, y + PITCH / 2 + 0.35 * SIZE, cell)
                _dot(axes, finding, middle, y + PITCH / 2)
                y += PITCH
        _legend(axes, float(starts[AT]), height - 8)
        return svg.write(figure, about)


def _cells(finding: Finding) -> list[str]:
    """What stands in the columns, left and right of the dot."""
    setting, mean = finding.figure.setting, finding.mean
    seeds = f" ({len(finding.counted)})" if len(finding.counted) > 1 else ""
    return [
        plain(f"{setting.method} {setting.parameters}".strip()),
        f"{spaced(setting.level)} {setting.selection}",
        f"{setting.metric} on {setting.subset}",
        short(finding.figure.value),
        "",
        "" if mean is None else short(mean) + seeds,
        finding.verdict,
        finding.figure.selection_rule,
    ]


def _axis(axes: Axes, middle: float, bottom: float) -> None:
    """The axis of differences, and the field of what counts as reproduced."""
    head = {"ha": "center", "size": SMALL, "color": colour("faint")}
    _text(axes, middle, HEAD - 10, "measured less published", **head)
    wide = _units(TOLERANCE)
    field = Rectangle((middle - wide, HEAD), 2 * wide, bottom - HEAD, facecolor=colour("grid"))
    field.set(alpha=0.6, zorder=0)
    axes.add_patch(field)
    for tick in np.arange(-3, 4) * TOLERANCE:
        x, heavy = middle + _units(tick), abs(tick) < TOLERANCE / 2
        shade = colour("ink" if heavy else "grid")
        axes.plot([x, x], [HEAD, bottom], color=shade, linewidth=0.8, zorder=0)
        text = "0" if heavy else f"{tick:+.2f}".replace("-", "−")
        _text(axes, x, bottom + 14, text, ha="center", size=SMALL)


def _units(difference: float) -> float:
    """Where a difference stands, from the middle; a large one stands at the end."""
    return PLOT / 2 * max(-1.0, min(1.0, difference / MOST))


def _dot(axes: Axes, finding: Finding, middle: float, y: float) -> None:
    """The measured mean less the published figure and, over several seeds, its interval."""
    difference, published = finding.difference, finding.figure.value
    if difference is None:
        return
    low, high = (x - published for x in t_interval(finding.counted))
    shade = colour(OF_VERDICT[finding.verdict])
    x = middle + _units(difference)
    if not math.isnan(low):
        ends = [middle + _units(low), middle + _units(high)]
        axes.plot(ends, [y, y], color=shade, linewidth=2)
    axes.plot([middle, x], [y, y], color=shade, linewidth=0.8)
    _mark(axes, x, y, finding.verdict)
    if abs(difference) > MOST:
        to, side = (-10, "right") if difference > 0 else (10, "left")
        _text(axes, x + to, y - 3, short(difference, "+"), ha=side, size=SMALL)


def _mark(axes: Axes, x: float, y: float, verdict: str) -> None:
    shade = colour(OF_VERDICT[verdict])
    axes.plot([x], [y], color=shade, linestyle="", marker=MARKERS[verdict], markersize=6)


def _legend(axes: Axes, x: float, y: float) -> None:
    """What the marks mean, on one line."""
    for verdict in MARKERS:
        _mark(axes, x + 4, y - 4, verdict)
        _text(axes, x + 12, y, verdict, size=SMALL)
        x += 12 + labels.width(verdict, SMALL) + 16


def _text(axes: Axes, x: float, y: float, text: str, **look: Any) -> None:
    axes.text(x, y, text, va="baseline", **look)
