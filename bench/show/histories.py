"""What a fit went through: loss, label change and clusters in use, step by step, level by level."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from bench.core.levels import Level
from bench.show import lines, svg
from bench.show.charts import spaced
from bench.show.lines import Series
from bench.show.style import DASHES, HUES, LIGHTNESS, MARKERS, Style
from bench.show.svg import SIZE, About

LEVELS = ("0%", "1%", "10%", "50%")  # as Figure 2 of the SS-DCEC paper has them
N_LEVELS = len(LEVELS)
STEPS = ("iteration", "step", "epoch")
QUANTITIES = {"changed": "share of labels changed", "clusters_in_use": "clusters in use"}
COLUMNS = 3  # panels beside each other
LEFT, TOP, BOTTOM, HEIGHT = 60, 26, 40, 120  # units around a panel, and of it
WIDTH = 190
MOST_MARKED = 40  # points; of more the line alone is drawn


@dataclass(frozen=True)
class Panel:
    """One quantity of one part of a fit, over its steps.

    `curves` are x and y of each level. `from_zero`: its axis begins there.
    """

    title: str
    steps: str
    from_zero: bool
    curves: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]


def shown_levels(levels: Iterable[str]) -> list[str]:
    """The levels whose histories are drawn: `LEVELS`, or as many others from least to most."""
    known = [str(x) for x in sorted(Level.parse(level) for level in set(levels))]
    wanted = [level for level in LEVELS if level in known]
    if len(wanted) > 1 or len(known) <= len(wanted):
        return wanted
    places = np.unique(np.linspace(0, len(known) - 1, min(N_LEVELS, len(known))).round())
    return [known[int(place)] for place in places]


def histories(
    found: Mapping[str, Sequence[Mapping[str, Any]]], style: Style, about: About
) -> str | None:
    """The training of one method: a panel for each quantity of each part of it.

    Parts are shared stages, which most levels have in common, and the method's own; levels whose
    curves are the same are one line. None where no history has steps.

    Parameters
    ----------
    found : the ``history`` of one record for each level (`shown_levels` says which).
    style : of the method; levels are shades of its hue.
    """
    levels = [str(x) for x in sorted(Level.parse(level) for level in found)]
    drawn = panels({level: found[level] for level in levels})
    if not drawn:
        return None
    looks = dict(zip(levels, _shades(style, len(levels)), strict=True))
    room = lines.label_room(["0 % to 50 %"])
    columns, rows = min(COLUMNS, len(drawn)), -(-len(drawn) // COLUMNS)
    cell = LEFT + WIDTH + room, TOP + HEIGHT + BOTTOM
    width, height = columns * cell[0], rows * cell[1]
    with svg.drawing(width, height) as figure:
        for place, panel in enumerate(drawn):
            x = (place % COLUMNS) * cell[0] + LEFT
            y = height - (place // COLUMNS) * cell[1] - TOP - HEIGHT
            axes = figure.add_axes((x / width, y / height, WIDTH / width, HEIGHT / height))
            axes.set_title(panel.title, loc="left", fontsize=SIZE, pad=8)
            axes.set_xlabel(panel.steps)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
            series = _series(panel, looks)
            lines.draw(axes, series)
            if panel.from_zero:
                axes.set_ylim(0, 1.1 * max(float(one.y.max()) for one in series))
            axes.autoscale_view()
            lines.name_ends(axes, series)
        return svg.write(figure, about)


def panels(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Panel]:
    """The panels of these histories, part by part as they come; losses first, clusters last."""
    made: dict[tuple[str, str], Panel] = {}
    for level, history in found.items():
        for (part, quantity), (steps, points) in _curves(history).items():
            if len(points) < 2:
                continue
            title = QUANTITIES.get(quantity, quantity.replace("_", " "))
            title = f"{part}: {title}" if part else title
            panel = made.setdefault(
                (part, quantity), Panel(title, steps, quantity in QUANTITIES, {})
            )
            xs, ys = zip(*points, strict=True)
            panel.curves[level] = xs, ys
    parts, others = list(dict.fromkeys(part for part, _ in made)), list(QUANTITIES)

    def place(key: tuple[str, str]) -> tuple[int, int]:
        part, quantity = key
        return parts.index(part), others.index(quantity) if quantity in others else -1

    return [made[key] for key in sorted(made, key=place)]


def _curves(
    history: Sequence[Mapping[str, Any]],
) -> dict[tuple[str, str], tuple[str, list[tuple[float, float]]]]:
    """By part and quantity: what counts its steps, and its points."""
    found: dict[tuple[str, str], tuple[str, list[tuple[float, float]]]] = {}
    for row in history:
        steps = next((name for name in STEPS if _number(row.get(name)) is not None), None)
        part = str(row.get("stage") or row.get("phase") or "").replace("_", " ")
        for quantity, value in row.items():
            wanted = quantity.endswith("loss") or quantity in (*QUANTITIES, "objective")
            x, y = _number(row[steps]) if steps else None, _number(value)
            if steps and wanted and x is not None and y is not None:
                _, points = found.setdefault((part, quantity), (steps, []))
                points.append((x, y))
    return found


def _number(value: object) -> float | None:
    """A finite number of a history, where a method may have logged anything."""
    if not isinstance(value, int | float) or not -1e300 < value < 1e300:
        return None
    return float(value)


def _series(panel: Panel, looks: Mapping[str, Style]) -> list[Series]:
    """A line for each curve; levels whose curves nobody could tell apart share one."""
    every = [y for _, ys in panel.curves.values() for y in ys]
    seen = (max(every) - min(every) or 1.0) / HEIGHT
    alike: dict[Any, list[str]] = {}
    for level, (xs, ys) in panel.curves.items():
        alike.setdefault((xs, tuple(round(y / seen) for y in ys)), []).append(level)
    found = []
    for levels in alike.values():
        xs, ys = panel.curves[levels[0]]
        ends = list(dict.fromkeys((spaced(levels[0]), spaced(levels[-1]))))
        label = "all levels" if len(levels) == len(looks) > 1 else " to ".join(ends)
        none, style = np.full(len(xs), np.nan), looks[levels[0]]
        if len(xs) > MOST_MARKED:
            style = Style(style.variable, "", style.dash)
        found.append(Series(label, label, np.array(xs), np.array(ys), none, none, style))
    return found


def _shades(style: Style, n: int) -> list[Style]:
    """The hue of a style from its lightest shade, for the fewest labels, to its darkest."""
    hue = style.variable.split("-")[1]
    lightness = LIGHTNESS[HUES[hue][1][0]]
    order = sorted(range(len(lightness)), key=lambda i: -lightness[i])
    return [Style(f"c-{hue}-{order[i]}", MARKERS[i], DASHES[i]) for i in range(n)]
