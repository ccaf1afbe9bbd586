"""How figures look: matplotlib's settings, and the colour, marker and dash of every method.

**Colours** are names of CSS variables, so that one figure serves light and dark. One hue stands
for a family (`Tags.family`), baselines are grey, methods of a family differ in shade. Hues and
shades are of HUSL, whose lightness alone decides the contrast to white or black (WCAG): every
colour here has at least 3:1 against its ground. The first shades of the named hues differ for
readers with protanopia or deuteranopia, too; what is alike, markers and dashes tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.colors import to_hex

from methods import registry
from methods.registry import RegistryError

PLAIN: dict[Any, Any] = {  # matplotlib's own settings, whatever the user's file says
    name: value
    for name, value in mpl.rcParamsDefault.items()
    if not name.startswith(("backend", "interactive", "toolbar", "webagg", "tk."))
} | {"text.parse_math": False}  # names are data: $1_$2 is no formula

LIGHT, DARK = "light", "dark"
MODES = (LIGHT, DARK)
FIXED = {  # variable: its colour in each mode
    "ground": ("#ffffff", "#15181d"),
    "ink": ("#1a1a1a", "#e9e7e4"),
    "faint": ("#595959", "#a9aeb6"),
    "grid": ("#e4e4e4", "#2d323a"),
}
GREY = "grey"
HUES = {  # a hue of HUSL in degrees, and the lightness of its first shade, 0 to 100, in each mode
    GREY: (0, (34, 58)),
    "blue": (250, (34, 70)),
    "vermilion": (20, (34, 58)),
    "green": (140, (34, 58)),
    "purple": (285, (34, 58)),
    "amber": (50, (46, 84)),
    "teal": (200, (46, 84)),
    "magenta": (330, (58, 58)),
    "olive": (95, (58, 84)),
    "cyan": (225, (46, 70)),
    "mint": (165, (46, 70)),
    "violet": (308, (46, 70)),
    "lime": (118, (46, 70)),
}
OF_FAMILY = {
    "supervised": GREY,
    "consistency": "blue",
    "dcec": "vermilion",
    "graph": "green",
    "scan": "purple",
    "k-means": "amber",
    "manifold": "teal",
    "probe": "magenta",
    "k-means propagation": "olive",
}
SPARE = ("cyan", "mint", "violet", "lime")  # for families of plugins
LIGHTNESS = {34: (34, 58, 46, 52, 40), 46: (46, 58, 34, 52, 40), 58: (58, 34, 46, 40, 52)}
LIGHTNESS_DARK = {58: (58, 84, 70, 77, 64), 70: (70, 84, 58, 77, 64), 84: (84, 58, 70, 64, 77)}
N_SHADES = 5
SATURATION = 0.9
MARKERS = "osD^vPX<>*p"
DASHES: tuple[Any, ...] = (  # as matplotlib has them; `MARKERS` and these have no common divisor
    "-",
    (0, (5, 2)),
    (0, (1.5, 1.5)),
    (0, (6, 2, 1.5, 2)),
    (0, (10, 2)),
    (0, (4, 1.5, 1.5, 1.5, 1.5, 1.5)),
    (0, (2, 3.5)),
)


def _series_colours() -> dict[str, tuple[str, str]]:
    """Every shade of every hue: the variable and its colour in each mode."""
    found = {}
    for name, (hue, (light, dark)) in HUES.items():
        saturation = 0.0 if name == GREY else SATURATION
        pairs = zip(LIGHTNESS[light], LIGHTNESS_DARK[dark], strict=True)
        for shade, pair in enumerate(pairs):
            one, other = (_husl(hue, saturation, lightness) for lightness in pair)
            found[f"c-{name}-{shade}"] = one, other
    return found


def _husl(hue: float, saturation: float, lightness: float) -> str:
    (colour,) = sns.husl_palette(1, h=hue / 359, s=saturation, l=lightness / 99)
    return to_hex(colour)


CLASSES = {  # of points in the plane: far apart for readers with protanopia or deuteranopia, too
    f"k-{number}": pair
    for number, pair in enumerate(
        [
            ("#1e96ff", "#2d87b4"),
            ("#780f00", "#e12d78"),
            ("#009678", "#5ae1ff"),
            ("#e1690f", "#ffa5a5"),
            ("#2d1eb4", "#694be1"),
            ("#875a00", "#b49600"),
            ("#f05ab4", "#f0f0c3"),
            ("#4b5a87", "#0f7800"),
            ("#784be1", "#a596ff"),
            ("#690069", "#a5e100"),
        ]
    )
}
COLOURS = FIXED | CLASSES | _series_colours()
_PLACES = {name: place for place, name in enumerate(COLOURS)}
OF_VERDICT = {  # of a published figure
    "reproduced": "c-teal-0",
    "above": "c-blue-0",
    "below": "c-vermilion-0",
    "died": "c-vermilion-0",
    "not run": "c-grey-2",
}


def colour(name: str) -> str:
    """What stands for the variable while matplotlib draws: a colour that nothing else has.

    `bench.show.svg` puts the variable in its place.
    """
    return f"#01fe{_PLACES[name]:02x}"


def variable(stand_in: str) -> str:
    """The variable that a colour of `colour` stands for."""
    return list(COLOURS)[int(stand_in[5:], 16)]


@dataclass(frozen=True)
class Style:
    """How a method is drawn, in every figure.

    Attributes
    ----------
    variable : of its colour, a key of `COLOURS`.
    marker, dash : as matplotlib has them.
    """

    variable: str
    marker: str
    dash: Any

    @property
    def colour(self) -> str:
        """Its colour while matplotlib draws."""
        return colour(self.variable)


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name (a method and its variant): hue by family, the rest by their order.

    Up to 77 names no two have the same marker and dash, so that they are told apart in grey.

    Parameters
    ----------
    names : all that the figures of one page show, in any order.
    """
    ordered = sorted({(family_of(name.split(" ")[0]), name) for name in names})
    others = sorted({family for family, _ in ordered} - set(OF_FAMILY))
    hues = OF_FAMILY | {family: SPARE[i % len(SPARE)] for i, family in enumerate(others)}
    used: dict[str, int] = {}
    found = {}
    for i, (family, name) in enumerate(ordered):
        hue = hues[family]
        shade = used[hue] = used.get(hue, -1) + 1
        found[name] = Style(
            f"c-{hue}-{shade % N_SHADES}",
            MARKERS[i % len(MARKERS)],
            DASHES[(i + i // len(MARKERS)) % len(DASHES)],
        )
    return found


def family_of(method: str) -> str:
    """The family that a method names; empty for one that names none, or is not registered here."""
    try:
        return registry.get(method).tags.family
    except RegistryError:
        return ""
