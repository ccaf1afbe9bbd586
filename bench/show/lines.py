"""Lines over one axis, each with its name at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import IdentityTransform
from sklearn.isotonic import isotonic_regression

from bench.show import labels, svg
from bench.show.style import Style, colour
from bench.show.svg import SIZE, UNITS, plain

WIDTH = 920  # units of a figure, at least
LEFT, TOP, BOTTOM = 58, 22, 48  # around a plot
LEADER, SAMPLE, GAP = 26, 24, 6  # from a line's end to its name: how wide each part is
VALUE_WIDTH = 16  # characters of what stands behind a name
BOLD = 1.15  # how much wider bold text is, at most
PITCH = 14  # units from line to line of names
LEAST_WIDTH, LEAST_HEIGHT = 480, 300  # units of a plot
MANY = 14  # more lines than these are thin, but for the best of each family
THICK, MEDIUM, THIN = 2.2, 1.6, 1.1
MARKER = 5.5


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes
    ----------
    name : what it is of, whole; figures of one name belong together.
    label : what stands at its end.
    x, y, low, high : ``(n,)``, ordered by x; NaN in y breaks the line, in low and high there is no
        interval.
    style : how it looks.
    strong : drawn thick, where there are many.
    """

    name: str
    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    style: Style
    strong: bool = False

    @property
    def end(self) -> tuple[float, float]:
        """Its last point that there is."""
        last = np.flatnonzero(~np.isnan(self.y))[-1]
        return float(self.x[last]), float(self.y[last])


def label_room(texts: Sequence[str]) -> float:
    """Units that names at the ends of lines need to the right of a plot, were they bold."""
    longest = max(
        (labels.width(line, SIZE) for text in texts for line in name_lines(text)), default=0
    )
    return LEADER + SAMPLE + GAP + BOLD * longest


def size_for(texts: Sequence[str]) -> tuple[float, float]:
    """Width and height of a figure with one plot and these names, in units."""
    height = max(LEAST_HEIGHT, PITCH * sum(n_lines(text) for text in texts))
    return max(WIDTH, LEFT + LEAST_WIDTH + label_room(texts)), TOP + height + BOTTOM


def plot(figure: Figure, room: float, start: float = 0, wide: float | None = None) -> Axes:
    """The axes of a plot with so much room for names at its right.

    It takes `wide` units of the figure's width from `start` on, by default all of it.
    """
    width, height = figure.get_size_inches() * UNITS
    inner = ((wide or width) - LEFT - room) / width, (height - TOP - BOTTOM) / height
    return figure.add_axes(((start + LEFT) / width, BOTTOM / height, *inner))


def draw(axes: Axes, series: Sequence[Series]) -> None:
    """The lines with their intervals over seeds: bands, and bars where neighbours have none.

    Of many lines the strong ones alone have theirs: more bands than these are a fog.
    """
    many = len(series) > MANY
    for one in series:
        width = (THICK if one.strong else THIN) if many else MEDIUM
        group = svg.series(one.name)
        several = ~np.isnan(one.low) & ~np.isnan(one.high)
        if several.any() and (one.strong or not many):
            paint: dict[str, Any] = {"color": one.style.colour, "gid": group}
            axes.fill_between(one.x, one.low, one.high, alpha=0.1, linewidth=0, **paint)
            axes.vlines(one.x[several], one.low[several], one.high[several], linewidth=1, **paint)
        axes.plot(
            one.x,
            one.y,
            color=one.style.colour,
            linestyle=one.style.dash,
            linewidth=width,
            marker=one.style.marker,
            markersize=MARKER,
            markeredgewidth=0.8,
            gid=group,
        )


def name_ends(axes: Axes, series: Sequence[Series]) -> None:
    """The name of each line at its end, none on another, with a sample of the line before it.

    Call it when the axes have their limits: it reads where the lines end.
    """
    ends = np.array([axes.transData.transform(one.end) for one in series])
    box = axes.get_window_extent()
    order = np.argsort(np.argsort(ends[:, 1], kind="stable"))
    ends[:, 1] = np.clip(ends[:, 1], box.y0, box.y1) + 1e-6 * order  # also of what is out of frame
    heights = np.array([PITCH * n_lines(one.label) for one in series], dtype=float)
    middles = spread(ends[:, 1], heights, box.y0 - BOTTOM / 2, box.y1 + TOP / 2)
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    start = box.x1 + LEADER
    for one, end, middle in zip(series, ends, middles, strict=True):
        xs = [end[0] + MARKER, max(end[0] + MARKER, box.x1 + 4), start]
        leader(figure, xs, [end[1], end[1], middle], one.style)
        sample(figure, start, middle, one.style)
        write_lines(figure, start + SAMPLE + GAP, middle, one.label, gid=svg.series(one.name))


def leader(figure: Figure, xs: Sequence[float], ys: Sequence[float], style: Style) -> None:
    """A thin line through these places, in units, from a line's end to its name."""
    found = Line2D(xs, ys, color=style.colour, linewidth=0.6)
    found.set_transform(IdentityTransform())
    figure.add_artist(found)


def sample(figure: Figure, x: float, y: float, style: Style, joined: bool = True) -> None:
    """A piece of a line with its marker, or the marker alone, from `x` on."""
    figure.add_artist(
        Line2D(
            [x, x + SAMPLE / 2, x + SAMPLE],
            [y, y, y],
            color=style.colour,
            linestyle=style.dash if joined else "",
            linewidth=MEDIUM,
            marker=style.marker,
            markersize=MARKER,
            markevery=[1],
            transform=None,
        )
    )


def write_lines(figure: Figure, x: float, y: float, text: str, **look: Any) -> None:
    """A text on the lines that it takes, from `x` on, its middle at `y`, in units."""
    found = name_lines(text)
    for i, line in enumerate(found):
        place = y + PITCH * ((len(found) - 1) / 2 - i) - 0.35 * SIZE
        figure.text(x, place, line, transform=None, va="baseline", **look)


def spread(wanted: np.ndarray, heights: np.ndarray, low: float, high: float) -> np.ndarray:
    """Where boxes of these heights stand so that none is on another: as near as can be to `wanted`.

    Least squares under the order of `wanted`, which is isotonic regression once the heights of the
    boxes below are taken off.

    Parameters
    ----------
    wanted : ``(n,)`` the middle of each box.
    low, high : no box reaches beyond, as long as there is room for all.

    Examples
    --------
    >>> spread(np.array([5.0, 5.0, 50.0]), np.array([10.0, 10.0, 10.0]), 0, 100).tolist()
    [5.0, 15.0, 50.0]
    """
    order = np.argsort(wanted, kind="stable")
    below = np.cumsum(heights[order]) - heights[order] / 2
    most = max(low, high - heights.sum())
    placed = isotonic_regression(wanted[order] - below, y_min=low, y_max=most) + below
    found = np.empty(len(wanted))
    found[order] = placed
    return found


def frame(axes: Axes, values: np.ndarray, least: float = 0.0, most: float = 1.0) -> None:
    """Limits around the values: a long interval is cut rather than squeezing what is compared."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = max(0.01, 0.04 * (high - low))
    axes.set_ylim(max(least, low - room), min(most, high + room))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.2f}".replace("-", "−"))


def apart(axes: Axes, x: float) -> None:
    """A dashed line at `x`: what is left of it is another thing."""
    axes.axvline(x, color=colour("faint"), linewidth=0.8, linestyle=(0, (4, 4)))


def n_lines(text: str) -> int:
    """How many lines a name takes."""
    return len(name_lines(text))


def name_lines(text: str) -> list[str]:
    """The lines of a name and of the value behind it."""
    return labels.lines(plain(text), labels.NAME_WIDTH + VALUE_WIDTH)
