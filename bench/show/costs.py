"""What accuracy costs: a chart of seconds or of memory, with the methods that nothing beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from bench.records.leaderboard import GPU
from bench.show import lines, svg
from bench.show.charts import short, spaced
from bench.show.lines import BOTTOM, PITCH, TOP
from bench.show.style import Style, colour
from bench.show.svg import About

LEAST_SECONDS = 0.01  # what takes less is drawn there: a logarithm has no place for 0
LARGE, RING = 6.5, 11.0  # of markers
Against = Literal["seconds", "memory"]
LABELS: dict[Against, str] = {
    "seconds": "seconds (log): hollow the fit alone, filled with stages; ringed, dashed front: GPU",
    "memory": "peak memory of the process in MiB (log); ringed, dashed front: GPU",
}


@dataclass(frozen=True)
class Point:
    """One method: what it costs, without and with what it shares with others, and its headline."""

    name: str
    least: float
    cost: float
    value: float
    gpu: bool


def costs(
    board: pd.DataFrame,
    level: str,
    order: Sequence[str],
    look: Mapping[str, Style],
    what: str,
    about: About,
    against: Against = "seconds",
) -> str:
    """What the headline at one level costs, with the Pareto fronts: one of CPUs, one of GPUs.

    On a front are the methods that no other one of their kind beats in both. Names stand at the
    right, ordered by the headline, those on a front bold.

    Parameters
    ----------
    board, order, look, what : as for `bench.show.charts.supervision`; ``fit_seconds_median``,
        ``stage_seconds_median``, ``peak_memory_mib`` and ``device`` are columns of the board.
    level : the level that is shown.
    against : the cost that is drawn.
    """
    points = _points(board[board["level"] == level], order, against)
    texts = [_label(point) for point in points]
    with svg.drawing(*lines.size_for(texts)) as figure:
        axes = lines.plot(figure, lines.label_room(texts))
        axes.set_xscale("log")
        axes.set_xlabel(LABELS[against])
        axes.set_ylabel(f"headline on {what} at {spaced(level)}")
        if points:
            lines.frame(axes, np.array([point.value for point in points]))
            for point in points:
                _draw(axes, point, look[point.name])
            for gpu in (False, True):
                _draw_front(axes, [point for point in points if point.gpu == gpu])
            _name(axes, points, look)
        _cost_ticks(axes)
        return svg.write(figure, about)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both, the cheapest first: whoever costs more is better."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cost, -one.value)):
        if not found or point.value > found[-1].value:
            found.append(point)
    return found


def _points(rows: pd.DataFrame, order: Sequence[str], against: Against) -> list[Point]:
    """The methods with a headline and a cost, in this order."""
    found = []
    for row in rows[rows["headline_mean"].notna()].to_dict("records"):
        if against == "seconds":
            fit, shared = (
                float(np.nan_to_num(row[f"{part}_seconds_median"])) for part in ("fit", "stage")
            )
            least, cost = max(fit, LEAST_SECONDS), max(fit + shared, LEAST_SECONDS)
        else:
            least = cost = float(row["peak_memory_mib"])
        if cost > 0:  # NaN is not
            gpu = row["device"] == "cuda"
            found.append(Point(row["name"], least, cost, float(row["headline_mean"]), gpu))
    known = [point for point in found if point.name in order]
    return sorted(known, key=lambda point: order.index(point.name))


def _cost_ticks(axes: Axes) -> None:
    """Powers of ten, and where there are few of them more."""
    low, high = axes.get_xlim()
    if high / low < 5:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    elif high / low < 200:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda number, _: f"{number:,g}")


def _draw(axes: Axes, point: Point, style: Style) -> None:
    look: dict[str, Any] = {
        "color": style.colour,
        "marker": style.marker,
        "linestyle": "",
        "markersize": LARGE,
        "gid": svg.series(point.name),
    }
    if point.least < point.cost:
        axes.plot(
            [point.least, point.cost],
            [point.value, point.value],
            color=style.colour,
            linewidth=0.9,
            gid=look["gid"],
        )
        axes.plot([point.least], [point.value], **look, markerfacecolor=colour("ground"))
    axes.plot([point.cost], [point.value], **look)
    if point.gpu:
        ring = look | {"marker": "o", "markersize": RING, "markerfacecolor": "none"}
        axes.plot([point.cost], [point.value], **ring, markeredgewidth=0.9)


def _draw_front(axes: Axes, points: Sequence[Point]) -> None:
    """The steps below which another method is better and cheaper."""
    best = front(points)
    if len(best) < 2:
        return
    dash: Any = (0, (4, 2)) if points[0].gpu else "-"
    xs, ys = [point.cost for point in best], [point.value for point in best]
    axes.step(xs, ys, where="post", color=colour("faint"), linewidth=1.2, linestyle=dash, zorder=1)


def _name(axes: Axes, points: Sequence[Point], look: Mapping[str, Style]) -> None:
    """The names at the right, each on the height of its point as far as there is room."""
    box = axes.get_window_extent()
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    best = {one.name for gpu in (False, True) for one in front([p for p in points if p.gpu == gpu])}
    wanted = np.array([axes.transData.transform((one.cost, one.value))[1] for one in points])
    heights = np.array([PITCH * lines.n_lines(_label(one)) for one in points], dtype=float)
    middles = lines.spread(wanted, heights, box.y0 - BOTTOM / 2, box.y1 + TOP / 2)
    start = box.x1 + lines.LEADER
    for point, end, middle in zip(points, wanted, middles, strict=True):
        lines.leader(figure, [box.x1 - 2, box.x1 + 4, start], [end, end, middle], look[point.name])
        lines.sample(figure, start, middle, look[point.name], joined=False)
        x, weight = start + lines.SAMPLE + lines.GAP, "bold" if point.name in best else "normal"
        lines.write_lines(figure, x, middle, _label(point), fontweight=weight)


def _label(point: Point) -> str:
    return f"{point.name}{GPU if point.gpu else ''} {short(point.value)}"
