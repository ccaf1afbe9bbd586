"""Charts of a board, each an SVG as text (`bench.show.svg`): supervision, gain, costs.

They are drawn from rows of the leaderboard with a column ``name`` (the method and its variant).
``order`` are the names as tables have them, ``look`` is `bench.show.style.styles` of them, and
``what`` says on which images the headline is. What has no value is not drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from bench.core.levels import Level
from bench.records.published import Figure as PublishedFigure
from bench.records.standings import SUPERVISED
from bench.records.statistics import CONFIDENCE
from bench.show import lines, svg
from bench.show.lines import Series
from bench.show.style import Style, family_of
from bench.show.svg import About

PUBLISHED = Style("ink", "o", (0, (3, 2)))
ZERO = Style("ink", "", "-")
MOST_BEHIND = 0.25
PANEL = 290  # units of one plot of several
DODGE = 0.3  # of a step: lines stand beside each other rather than on one another
TICK_ROOM = 34  # units that a share takes above a plot
ZERO_APART = 0.35  # decades left of the fewest labels, where 0 stands


def supervision(
    board: pd.DataFrame,
    order: Sequence[str],
    look: Mapping[str, Style],
    what: str,
    about: About,
    published: Iterable[PublishedFigure] = (),
) -> str:
    """The headline against the level, steps of one width, with 95 % intervals over seeds.

    Level 0 stands apart: its headline is another (ACC).

    Parameters
    ----------
    board : rows of one board: ``name``, ``level``, ``headline_mean``, ``_low`` and ``_high``.
    published : figures measured as this board's are; their sources' curves are dashed.
    """
    axis = _steps(board)
    series = _measured(board, order, look, axis, "headline") + _published(published, axis)
    return _figure(series, axis, f"headline on {what}", about)


def supervision_to_scale(
    board: pd.DataFrame,
    order: Sequence[str],
    look: Mapping[str, Style],
    what: str,
    about: About,
    published: Iterable[PublishedFigure] = (),
) -> str:
    """As `supervision`, against the number of labels on a log scale.

    `board` may have shares and numbers of labels together; it has the column ``n_labels``.
    """
    axis = _scale(board)
    series = _measured(board, order, look, axis, "headline") + _published(published, axis)
    return _figure(series, axis, f"headline on {what}", about)


def gains(
    board: pd.DataFrame, order: Sequence[str], look: Mapping[str, Style], about: About
) -> str:
    """What each method gains over the best supervised baseline with as many labels.

    What falls behind by more than `MOST_BEHIND` leaves the frame: the rest would be too flat.

    Parameters
    ----------
    board : as for `supervision_to_scale`, with the columns ``gain_mean``, ``gain_low`` and
        ``gain_high`` of the leaderboard.
    """
    board = board[(board["n_labels"] > 0) & ~board["method"].map(family_of).eq(SUPERVISED)]
    axis = _scale(board)
    series = _measured(board, order, look, axis, "gain", "+")
    if series:
        ends = np.array([min(axis.places.values()), max(axis.places.values())])
        none = np.full(2, np.nan)
        level = np.zeros(2)
        series.append(Series("", "best supervised baseline", ends, level, none, none, ZERO, True))
    cut = any(np.nanmin(one.y) < -MOST_BEHIND for one in series)
    what = "gain over the best supervised baseline" + f" (cut at −{MOST_BEHIND})" * cut
    return _figure(series, axis, what, about, least=-MOST_BEHIND, most=1.0)


def replication(
    board: pd.DataFrame,
    order: Sequence[str],
    look: Mapping[str, Style],
    about: About,
    published: Iterable[PublishedFigure],
) -> str:
    """Figure 1 of the SS-DCEC paper: ACC and NMI on all images, ours beside its own.

    Parameters
    ----------
    board : rows of the board that repeats the paper's setting, with the columns ``n_seeds``,
        ``acc_all_mean``, ``acc_all_std``, ``nmi_all_mean`` and ``nmi_all_std``.
    published : the figures of the paper.
    """
    axis, given = _steps(board, zero="0 %"), list(published)
    panels = []
    for metric in ("acc", "nmi"):
        rows = _with_intervals(board, f"{metric}_all")
        theirs = [f for f in given if (f.setting.metric, f.setting.subset) == (metric, "all")]
        series = _measured(rows, order, look, axis, f"{metric}_all")
        panels.append((f"{metric.upper()} on all images", series + _published(theirs, axis, "")))
    texts = max(([one.label for one in series] for _, series in panels), key=len)
    room, (_, height) = lines.label_room(texts), lines.size_for(texts)
    each = lines.LEFT + PANEL + room
    with svg.drawing(len(panels) * each, height) as figure:
        for i, (what, series) in enumerate(panels):
            axes = lines.plot(figure, room, i * each, each)
            _draw(axes, series, axis, what)
        return svg.write(figure, about)


def _with_intervals(board: pd.DataFrame, column: str) -> pd.DataFrame:
    """`board` with the ends of the 95 % t-interval of a mean, from its standard deviation."""
    from scipy import stats

    n = board["n_seeds"].astype(float)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * board[f"{column}_std"] / np.sqrt(n)
    mean = board[f"{column}_mean"]
    return board.assign(**{f"{column}_low": mean - half, f"{column}_high": mean + half})


@dataclass(frozen=True)
class _Axis:
    """Where the levels of a board stand, and how they are called there."""

    places: Mapping[str, float]
    ticks: Mapping[float, str]
    above: Mapping[float, str]
    label: str
    dodge: float
    zero: float | None


def _steps(board: pd.DataFrame, zero: str = "0 %\n(ACC)") -> _Axis:
    levels = [str(x) for x in sorted(Level.parse(level) for level in set(board["level"]))]
    places = {level: float(i) for i, level in enumerate(levels)}
    ticks = {at: zero if level == "0%" else spaced(level) for level, at in places.items()}
    apart = 0.5 if "0%" in places and len(places) > 1 else None
    return _Axis(places, ticks, {}, "labelled (steps, not to scale)", DODGE, apart)


def _scale(board: pd.DataFrame) -> _Axis:
    known = board.dropna(subset=["n_labels"]).drop_duplicates("level")
    counts = {
        str(level): int(n) for level, n in zip(known["level"], known["n_labels"], strict=True)
    }
    places = {level: float(np.log10(n)) for level, n in counts.items() if n > 0}
    ends = (min(places.values(), default=0.0), max(places.values(), default=1.0))
    decades = range(int(np.floor(ends[0])), int(np.ceil(ends[1])) + 1)
    ticks = {float(d): f"{10**d:,}" for d in decades if ends[0] - 0.1 <= d <= ends[1] + 0.1}
    above = {at: spaced(level) for level, at in places.items() if level.endswith("%")}
    zero = None
    if "0%" in counts:
        places["0%"] = ends[0] - 2 * ZERO_APART
        ticks[places["0%"]], zero = "0 %\n(ACC)", ends[0] - ZERO_APART
    return _Axis(places, ticks, above, "labels (log scale)", 0.0, zero)


def _measured(
    board: pd.DataFrame,
    order: Sequence[str],
    look: Mapping[str, Style],
    axis: _Axis,
    column: str,
    sign: str = "",
) -> list[Series]:
    """The methods that have a value, a line each."""
    ends = [f"{column}_{end}" for end in ("mean", "low", "high")]
    scored = board.loc[board[ends[0]].notna(), ["name", "level", *ends]]
    scored = scored.assign(place=scored["level"].map(axis.places)).dropna(subset=["place"])
    rows = {str(name): rows for name, rows in scored.sort_values("place").groupby("name")}
    names = [name for name in order if name in rows]
    strong = _best_of_families({name: float(rows[name][ends[0]].mean()) for name in names})
    found = []
    for name, shift in zip(names, _shifts(len(names), axis.dodge), strict=True):
        parts = [rows[name][part].to_numpy(dtype=float) for part in ("place", *ends)]
        zero = int((rows[name]["level"] == "0%").sum())
        if 0 < zero < len(parts[0]):  # level 0 stands apart
            parts = [np.insert(part, zero, np.nan) for part in parts]
        x, y, low, high = parts
        last = str(rows[name]["level"].iloc[-1])
        label = f"{name} {short(y[-1], sign)}{_early(last, axis)}"
        found.append(Series(name, label, x + shift, y, low, high, look[name], name in strong))
    return found


def _figure(
    series: Sequence[Series],
    axis: _Axis,
    what: str,
    about: About,
    least: float = 0.0,
    most: float = 1.0,
) -> str:
    """A figure with one plot."""
    texts = [one.label for one in series]
    with svg.drawing(*lines.size_for(texts)) as figure:
        _draw(lines.plot(figure, lines.label_room(texts)), series, axis, what, least, most)
        return svg.write(figure, about)


def _draw(
    axes: Axes,
    series: Sequence[Series],
    axis: _Axis,
    what: str,
    least: float = 0.0,
    most: float = 1.0,
) -> None:
    """Lines over levels with their axes and names."""
    _ticks(axes, axis)
    axes.set_ylabel(what)
    if series:
        lines.draw(axes, series)
        lines.frame(axes, np.concatenate([one.y for one in series]), least, most)
        lines.name_ends(axes, series)


def _shifts(n: int, dodge: float) -> list[float]:
    return [dodge * (i / max(1, n - 1) - 0.5) for i in range(n)]


def _best_of_families(means: Mapping[str, float]) -> set[str]:
    """Of each family the method with the highest mean."""
    best: dict[str, str] = {}
    for name, mean in means.items():
        family = family_of(name.split(" ")[0])
        if family not in best or mean > means[best[family]]:
            best[family] = name
    return set(best.values())


def _published(
    figures: Iterable[PublishedFigure], axis: _Axis, score: str = " ({} on {})"
) -> list[Series]:
    """The curves of the sources, one for each score that they give."""
    by_source: dict[str, dict[str, float]] = {}
    for figure in figures:
        if figure.setting.level in axis.places:
            key = figure.source + score.format(figure.setting.metric, figure.setting.subset)
            by_source.setdefault(key, {})[figure.setting.level] = figure.value
    found = []
    for key, values in by_source.items():
        pairs = sorted((axis.places[level], value) for level, value in values.items())
        x, y = (np.array(part) for part in zip(*pairs, strict=True))
        if "0%" in values and len(values) > 1:
            x, y = np.insert(x, 1, np.nan), np.insert(y, 1, np.nan)
        last = max(values, key=lambda level: axis.places[level])
        label, none = f"{key} {short(y[-1])}{_early(last, axis)}", np.full(len(x), np.nan)
        found.append(Series(key, label, x, y, none, none, PUBLISHED))
    return found


def _early(last: str, axis: _Axis) -> str:
    """Where a line ends that ends before the others: its value is no neighbour of theirs."""
    ends_early = axis.places[last] < max(axis.places.values())
    return f" ({spaced(last)})" if ends_early else ""


def short(value: float, sign: str = "") -> str:
    """``.749``; ``+.021`` and ``−.004`` where the sign matters."""
    value = round(float(value), 3) + 0.0  # no −.000
    return f"{value:{sign}.3f}".replace("-", "−").replace("0.", ".", 1)


def _ticks(axes: Axes, axis: _Axis) -> None:
    places = [*axis.places.values()]
    room = 0.5 if axis.dodge else 0.1
    axes.set_xlim(min(places, default=0.0) - room, max(places, default=1.0) + room)
    axes.set_xticks(list(axis.ticks), list(axis.ticks.values()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(axis.label)
    if axis.zero is not None:
        lines.apart(axes, axis.zero)
    if axis.above:
        top = axes.secondary_xaxis("top")
        shown = _with_room(axes, sorted(axis.above))
        top.set_xticks(shown, [axis.above[place] for place in shown])
        top.tick_params(length=2, pad=2)
        top.grid(visible=False)
        top.spines["top"].set_visible(False)


def _with_room(axes: Axes, places: Sequence[float]) -> list[float]:
    """Those of `places` that have room for their text, the last one among them."""
    shown: list[float] = []
    for place in reversed(places):
        x = axes.transData.transform((place, 0))[0]
        if not shown or axes.transData.transform((shown[-1], 0))[0] - x >= TICK_ROOM:
            shown.append(place)
    return shown[::-1]


def spaced(level: str) -> str:
    """A level as a reader expects it: ``5 %``, ``3,500``."""
    return f"{level[:-1]} %" if level.endswith("%") else f"{int(level):,}"
