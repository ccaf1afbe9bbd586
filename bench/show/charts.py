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
from matplotlib.ticker import FixedLocator, NullLocator

from bench.core.levels import Level
from bench.records.published import Figure as PublishedFigure
from bench.show import lines, svg
from bench.show.lines import BOTTOM, TOP, WIDTH, Series
from bench.show.style import Style, colour, family_of
from bench.show.svg import About

PUBLISHED = Style("ink", "o", (0, (3, 2)))
DODGE = 0.3  # of a step: lines stand beside each other rather than on one another
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
    return _curves(board, order, look, about, axis, f"headline on {what}", "headline", published)


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
    return _curves(board, order, look, about, axis, f"headline on {what}", "headline", published)


def gains(
    board: pd.DataFrame, order: Sequence[str], look: Mapping[str, Style], about: About
) -> str:
    """What each method gains over the best supervised baseline with as many labels.

    Parameters
    ----------
    board : as for `supervision_to_scale`, with the columns ``gain_mean``, ``gain_low`` and
        ``gain_high`` of the leaderboard.
    """
    board = board[(board["n_labels"] > 0) & ~board["method"].map(family_of).eq("supervised")]
    axis = _scale(board)
    what = "gain over the best supervised baseline"
    return _curves(board, order, look, about, axis, what, "gain", ())


@dataclass(frozen=True)
class _Axis:
    """Where the levels of a board stand, and how they are called there."""

    places: Mapping[str, float]
    ticks: Mapping[float, str]
    above: Mapping[float, str]
    label: str
    dodge: float
    zero: float | None


def _steps(board: pd.DataFrame) -> _Axis:
    levels = [str(x) for x in sorted(Level.parse(level) for level in set(board["level"]))]
    places = {level: float(i) for i, level in enumerate(levels)}
    ticks = {place: _tick(level) for level, place in places.items()}
    zero = 0.5 if "0%" in places and len(places) > 1 else None
    return _Axis(places, ticks, {}, "labelled (steps, not to scale)", DODGE, zero)


def _scale(board: pd.DataFrame) -> _Axis:
    known = board.dropna(subset=["n_labels"]).drop_duplicates("level")
    counts = {
        str(level): int(n) for level, n in zip(known["level"], known["n_labels"], strict=True)
    }
    places = {level: float(np.log10(n)) for level, n in counts.items() if n > 0}
    ends = (min(places.values(), default=0.0), max(places.values(), default=1.0))
    decades = range(int(np.floor(ends[0])), int(np.ceil(ends[1])) + 1)
    ticks = {float(d): f"{10**d:,}" for d in decades if ends[0] - 0.1 <= d <= ends[1] + 0.1}
    above = {place: _tick(level) for level, place in places.items() if level.endswith("%")}
    zero = None
    if "0%" in counts:
        places["0%"] = ends[0] - 2 * ZERO_APART
        ticks[places["0%"]], zero = _tick("0%"), ends[0] - ZERO_APART
    return _Axis(places, ticks, above, "labels (log scale)", 0.0, zero)


def _curves(
    board: pd.DataFrame,
    order: Sequence[str],
    look: Mapping[str, Style],
    about: About,
    axis: _Axis,
    what: str,
    column: str,
    published: Iterable[PublishedFigure],
) -> str:
    """Lines over levels, the published ones last."""
    scored = board[board[f"{column}_mean"].notna() & board["level"].isin(list(axis.places))]
    names = [name for name in order if name in set(scored["name"])]
    strong = _best_of_families(scored, names, column)
    series = [
        _series(scored[scored["name"] == name], column, axis, look[name], name in strong, shift)
        for name, shift in zip(names, _shifts(len(names), axis.dodge), strict=True)
    ]
    series += _published(published, axis)
    texts = [one.label for one in series]
    height = lines.height_for(texts)
    with svg.drawing(WIDTH, TOP + height + BOTTOM) as figure:
        axes = lines.plot(figure, lines.label_room(texts))
        _ticks(axes, axis)
        axes.set_ylabel(what)
        if series:
            lines.draw(axes, series)
            values = np.concatenate([one.y for one in series])
            lines.frame(axes, values, *((-1.0, 1.0) if column == "gain" else (0.0, 1.0)))
            lines.name_ends(axes, series)
        if column == "gain":
            axes.axhline(0, color=colour("ink"), linewidth=1.2)
        return svg.write(figure, about)


def _shifts(n: int, dodge: float) -> list[float]:
    return [dodge * (i / max(1, n - 1) - 0.5) for i in range(n)]


def _best_of_families(scored: pd.DataFrame, names: Sequence[str], column: str) -> set[str]:
    """Of each family the method with the highest mean."""
    means = scored.groupby("name")[f"{column}_mean"].mean()
    best: dict[str, str] = {}
    for name in names:
        family = family_of(name.split(" ")[0])
        if family not in best or means[name] > means[best[family]]:
            best[family] = name
    return set(best.values())


def _series(
    rows: pd.DataFrame, column: str, axis: _Axis, style: Style, strong: bool, shift: float
) -> Series:
    """One method, its level 0 apart from the rest."""
    at = rows.assign(_place=rows["level"].map(axis.places)).sort_values("_place")
    x, y, low, high = (
        at[name].to_numpy(dtype=float)
        for name in ("_place", *(f"{column}_{end}" for end in ("mean", "low", "high")))
    )
    zero = int((at["level"] == "0%").sum())
    if 0 < zero < len(at):
        x, y, low, high = (np.insert(part, zero, np.nan) for part in (x, y, low, high))
    name, sign = str(rows["name"].iloc[0]), "+" if column == "gain" else ""
    label = f"{name} {y[-1]:{sign}.3f}".replace("-0.", "−.").replace("0.", ".", 1)
    return Series(name, label, x + shift, y, low, high, style, strong)


def _published(figures: Iterable[PublishedFigure], axis: _Axis) -> list[Series]:
    """The curves of the sources, one for each score that they give."""
    by_source: dict[str, dict[str, float]] = {}
    for figure in figures:
        if figure.setting.level in axis.places:
            key = f"{figure.source} ({figure.setting.metric} on {figure.setting.subset})"
            by_source.setdefault(key, {})[figure.setting.level] = figure.value
    found = []
    for key, values in by_source.items():
        pairs = sorted((axis.places[level], value) for level, value in values.items())
        x, y = (np.array(part) for part in zip(*pairs, strict=True))
        none = np.full(len(x), np.nan)
        found.append(Series(key, key, x, y, none, none, PUBLISHED))
    return found


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
        top.xaxis.set_major_locator(FixedLocator(list(axis.above)))
        top.set_xticks(list(axis.above), list(axis.above.values()))
        top.tick_params(length=2, pad=2)
        top.spines["top"].set_visible(False)


def _tick(level: str) -> str:
    return "0 %\n(ACC)" if level == "0%" else spaced(level)


def spaced(level: str) -> str:
    """A level as a reader expects it: ``5 %``, ``3,500``."""
    return f"{level[:-1]} %" if level.endswith("%") else f"{int(level):,}"
