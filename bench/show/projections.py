"""Embeddings in the plane, a panel for each level, as SVG; and how far to trust what is seen.

A panel has a path for each class and layer, of subpaths without length whose round ends are the
points: 3,000 of them take 20 kB, and stay vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree import ElementTree

import numpy as np

from bench.core.trial import Trial
from bench.records import projections
from bench.records.leaderboard import BOARD_KEYS
from bench.records.projections import SIDE, Projection
from bench.records.scoring import Record
from bench.records.store import Store
from bench.show.charts import spaced
from bench.show.confusion import name_of
from bench.show.labels import class_texts, width
from bench.show.picture import Picture, drawn, slug
from bench.show.style import CLASSES
from bench.show.svg import FONTS, SIZE, SPACE, About, plain
from methods import registry
from methods.registry import RegistryError

SCALE = 1.25  # units of a place
LEAST_WIDTH = 500  # pixels of two panels
PANEL = SCALE * SIDE
HEAD = 40  # units above a panel, for its texts
GAP = 14
POINT = 2.3  # places: the diameter of a point
LAYERS = 4  # in which the classes take turns, so that none hides another
MOST_NAMED = 20  # classes
BASELINE = "kmeans"  # on pixels: what the others are compared with
SWATCH = "●"


@dataclass(frozen=True)
class Panel:
    """One level of one method."""

    trial: Trial
    projection: Projection


@dataclass(frozen=True)
class Shown:
    """The projections of a method or variant in one setting: a picture, or why there is none."""

    name: str
    picture: Picture | None
    remark: str = ""


def shown(records: Iterable[Record], store: Store) -> list[Shown]:
    """The projections that lie beside these records, setting by setting.

    A method whose embeddings are all that of another one, which works on the same features, says so
    instead of showing them again.

    Raises
    ------
    BenchError : a file is no projection.
    """
    settings: dict[PurePosixPath, list[list[Panel]]] = {}
    for folder, of_it in projections.shown(records).items():
        trials = [Trial.from_json(record["trial"]) for record in of_it]
        found = [(trial, projections.read(store, trial)) for trial in trials]
        panels = [Panel(trial, one) for trial, one in found if one is not None]
        if panels:
            settings.setdefault(folder.parent, []).append(panels)
    return [one for methods in settings.values() for one in _of_setting(methods)]


def _of_setting(methods: list[list[Panel]]) -> Iterable[Shown]:
    """Every method of one setting; those that ignore labels are asked first for what they show."""
    known: dict[str, str] = {}
    pixels = next((m[0] for m in methods if m[0].trial.folder.name == BASELINE), None)
    for panels in sorted(methods, key=lambda m: (len(m), m[0].trial.folder)):
        name = name_of(panels[0].trial)
        digests = {panel.projection.embedding for panel in panels}
        every = len(digests) == 1 and (len(panels) > 1 or _ignores_labels(panels[0].trial))
        first = panels[0].projection.embedding
        if len(digests) == 1 and first in known:
            remark = f"{_setting(panels[0].trial)}: the embedding is that of {known[first]}."
            yield Shown(name, None, remark)
            continue
        if every:
            known[first] = name
        yield Shown(name, picture(panels[:1] if every else panels, pixels, every))


def _ignores_labels(trial: Trial) -> bool:
    """Whether a method does; a plugin that is not here does not say."""
    try:
        return not registry.get(trial.method).tags.uses_labels
    except RegistryError:
        return False


def picture(panels: Sequence[Panel], pixels: Panel | None, every: bool) -> Picture:
    """The panels of a method, in the order of levels.

    Parameters
    ----------
    pixels : the panel that the others are compared with, if there is one.
    every : whether the one panel stands for all levels.
    """
    trial, first = panels[0].trial, panels[0].projection
    name = name_of(trial)
    heads = ["at every level" if every else spaced(panel.trial.level) for panel in panels]
    levels = heads[0] if every else f"at {', '.join(heads)}"
    said = "; ".join(
        f"{head}: {_scores(panel.projection)}" for head, panel in zip(heads, panels, strict=True)
    )
    return drawn(
        f"projection-{_file(trial)}",
        f"The embedding of {name} in the plane, {levels}",
        f"Points of {len(first.classes)} classes. {said}.",
        _caption(name, panels, pixels),
        lambda about: _svg(panels, heads, about),
    )


def _file(trial: Trial) -> str:
    """A part of a file's name, of each method, variant and setting another one."""
    folder = "-".join(trial.folder.parts)
    plain_folder = slug(folder)
    if plain_folder == folder:
        return folder
    return f"{plain_folder}-{hashlib.sha256(folder.encode()).hexdigest()[:6]}"


def _caption(name: str, panels: Sequence[Panel], pixels: Panel | None) -> str:
    trial, first = panels[0].trial, panels[0].projection
    turned = (
        ""
        if len(panels) == 1
        else " Each panel is laid out from the one before and turned onto it."
    )
    compared = ""
    if pixels is not None and pixels.trial.folder != trial.folder:
        compared = f" Pixels of the same images: {_scores(pixels.projection)}."
    return (
        f"{_setting(trial)}: UMAP of the embedding of {name} ({first.columns:,} columns) on "
        f"{len(first.y):,} of the fitted images, the same for all methods, labelled ones among "
        f"them, seed {trial.seed}.{turned} Directions and distances between groups mean little. "
        "Above each panel stands how far to trust it. Trustworthiness: how seldom the picture has "
        "neighbours that the embedding does not have. In the embedding itself: 15-NN, the share "
        "of images whose class most of their 15 nearest neighbours have; k-means, the ACC of "
        f"as many clusters as classes.{compared} {_remark(first.classes)}"
    ).strip()


def _remark(classes: Sequence[str]) -> str:
    """What a caption says of classes that are too many or have long names."""
    said = [class_texts(classes)[1]] if len(classes) <= MOST_NAMED else []
    if len(classes) > len(CLASSES):
        said.append(f"Of {len(classes)} classes every {len(CLASSES)}th has the same colour.")
    if len(classes) > MOST_NAMED:
        said.append(f"More than {MOST_NAMED} are not named.")
    return " ".join(said)


def _setting(trial: Trial) -> str:
    return " · ".join(getattr(trial, key) for key in BOARD_KEYS)


def _scores(found: Projection) -> str:
    scores = found.scores
    return (
        f"trustworthiness {_share(scores.trustworthiness)}, 15-NN {_share(scores.neighbours)}, "
        f"k-means {_share(scores.kmeans)}"
    )


def _share(value: float) -> str:
    """Two digits after the point, as tables have it: ``.84``."""
    return f"{value:.2f}".removeprefix("0")


def _svg(panels: Sequence[Panel], heads: Sequence[str], about: About) -> str:
    """The panels in rows of two, as a page or a file holds it."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    size = [columns * (PANEL + GAP) - GAP, rows * (PANEL + HEAD + GAP) - GAP]
    key = "c" + hashlib.sha256(about.name.encode()).hexdigest()[:6]
    least = LEAST_WIDTH if columns > 1 else 0  # narrower it scrolls: its texts stay legible
    root = ElementTree.Element(
        "svg",
        {"xmlns": SPACE, "class": f"chart {key}", "viewBox": f"0 0 {size[0]:g} {size[1]:g}"}
        | {
            "role": "img",
            "aria-labelledby": f"{key}-t {key}-d",
            "style": f"max-width:{size[0]:g}px;min-width:{least}px",
        },
    )
    _add(root, "title", {"id": f"{key}-t"}, plain(about.title))
    _add(root, "desc", {"id": f"{key}-d"}, plain(about.description))
    n_classes = max(len(panel.projection.classes) for panel in panels)
    _add(root, "style", {}, _rules(key, n_classes))
    for i, (panel, head) in enumerate(zip(panels, heads, strict=True)):
        x, y = i % columns * (PANEL + GAP), i // columns * (PANEL + HEAD + GAP)
        group = _add(root, "g", {"transform": f"translate({x:g} {y:g})"})
        _panel(group, panel, head)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _rules(key: str, n_classes: int) -> str:
    """The style of all panels of a figure."""
    used = list(CLASSES.items())[:n_classes]
    colours = (
        f".{key} .{name}{{stroke:{light};stroke:var(--{name})}}"
        f".{key} .{name}t{{fill:{light};fill:var(--{name})}}"
        for name, (light, _) in used
    )
    return (
        f".{key}{{font-family:{FONTS};font-size:{SIZE}px}}"
        f".{key} text{{fill:#1a1a1a;fill:var(--ink)}}"
        f".{key} .h{{font-weight:600;font-size:{SIZE + 2}px}}"
        f".{key} .f{{fill:none;stroke:#e4e4e4;stroke:var(--grid)}}"
        f".{key} .p{{stroke-linecap:round;stroke-width:{POINT};fill:none}}"
        f".{key} .l{{paint-order:stroke;stroke:#fff;stroke:var(--ground);stroke-width:3px;"
        "stroke-linejoin:round}" + "".join(colours)
    )


def _panel(group: ElementTree.Element, panel: Panel, head: str) -> None:
    """Draw one panel: its texts, its points, the names of the classes."""
    found = panel.projection
    _add(group, "text", {"class": "h", "y": f"{SIZE + 2}"}, head)
    _add(group, "text", {"y": f"{2 * SIZE + 8}"}, _scores(found))
    shifted = _add(group, "g", {"transform": f"translate(0 {HEAD})"})
    _add(shifted, "rect", {"class": "f", "width": f"{PANEL:g}", "height": f"{PANEL:g}"})
    scaled = _add(shifted, "g", {"class": "p", "transform": f"scale({SCALE:g})"})
    places = found.places.astype(int)
    places[:, 1] = SIDE - 1 - places[:, 1]  # from above, as SVG counts
    layer = np.arange(len(places)) % LAYERS
    for number in range(LAYERS):
        for k in range(len(found.classes)):
            of_class = places[(found.y == k) & (layer == number)]
            if len(of_class):
                _add(scaled, "path", {"class": f"k-{k % len(CLASSES)}", "d": dots(of_class)})
    if len(found.classes) <= MOST_NAMED:
        for k, name, x, y in _names(found, places):
            text = _add(shifted, "text", {"class": "l", "x": f"{x:.0f}", "y": f"{y:.0f}"})
            _add(text, "tspan", {"class": f"k-{k % len(CLASSES)}t"}, SWATCH).tail = plain(
                f" {name}"
            )


def dots(places: np.ndarray) -> str:
    """A path of a point at each of `places` ``(m, 2)`` int, each place once.

    Examples
    --------
    >>> dots(np.array([[3, 4], [1, 2], [3, 4]]))
    'M1 2zm2 2z'
    """
    different = np.unique(places[:, ::-1], axis=0)[:, ::-1]  # by rows: the next is near
    (x, y), steps = different[0], np.diff(different, axis=0)
    moves = (f"m{dx}{'' if dy < 0 else ' '}{dy}z" for dx, dy in steps.tolist())
    return f"M{x} {y}z" + "".join(moves)


def _names(found: Projection, places: np.ndarray) -> list[tuple[int, str, float, float]]:
    """Class, name and where it begins (units): at the point of the class nearest to its median.

    Names that would lie on one another are moved up and down.
    """
    texts = class_texts(found.classes)[0]
    named: list[tuple[int, str, float, float]] = []
    for k, name in enumerate(texts):
        mine = places[found.y == k]
        if not len(mine):
            continue
        x, y = mine[np.abs(mine - np.median(mine, axis=0)).sum(1).argmin()] * SCALE
        room = width(f"{SWATCH} {name}", SIZE)
        left = float(np.clip(x - room / 2, 2, max(2.0, PANEL - room - 2)))
        named.append((k, name, left, float(y)))
    return _apart(sorted(named, key=lambda one: one[3]))


def _apart(named: list[tuple[int, str, float, float]]) -> list[tuple[int, str, float, float]]:
    """The same with every name below those that it would lie on."""
    line = SIZE + 2
    placed: list[tuple[int, str, float, float]] = []
    for k, name, x, y in named:
        y = max(y, line)
        right = x + width(f"{SWATCH} {name}", SIZE)
        for _, other, left, taken in placed:  # from above
            beside = right < left or x > left + width(f"{SWATCH} {other}", SIZE)
            if not beside and abs(y - taken) < line:
                y = taken + line
        placed = sorted([*placed, (k, name, x, y)], key=lambda one: one[3])
    over = max([y for *_, y in placed], default=0) - (PANEL - 4)
    return [
        (k, name, x, min(y, PANEL - 4) if over <= line else y - over) for k, name, x, y in placed
    ]


def _add(
    parent: ElementTree.Element, tag: str, attributes: dict[str, str], text: str = ""
) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag, attributes)
    child.text = text or None
    return child
