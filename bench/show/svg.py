"""From a matplotlib figure to a small SVG that serves light and dark, on its own or in a page.

A figure is drawn with the stand-in colours of `bench.show.style`. `write` gives its SVG as text:
selectable text, colours as CSS variables, ids of its own, numbers of one decimal, every style once.
The page that holds such figures has `css` among its own; `standalone` makes a file of one.
The same figure gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench.show.labels import FONT
from bench.show.style import COLOURS, DARK, LIGHT, MODES, PLAIN, colour, variable

SPACE = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
UNITS = 72  # of an SVG in an inch of matplotlib's
FONTS = "system-ui,'DejaVu Sans',sans-serif"  # none wider than matplotlib's, which is measured
SERIES = "series:"
SIZE = 11  # of text, in units
SMALL = 10
LEAST, MOST = 0.8, 1.3  # pixels of a screen for a unit
SETTINGS = PLAIN | {
    "svg.fonttype": "none",  # text stays text
    "font.family": FONT,
    "font.size": SIZE,
    "text.color": colour("ink"),
    "axes.labelcolor": colour("ink"),
    "axes.edgecolor": colour("faint"),
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": colour("grid"),
    "grid.linewidth": 0.8,
    "xtick.color": colour("faint"),
    "ytick.color": colour("faint"),
    "xtick.labelcolor": colour("ink"),
    "ytick.labelcolor": colour("ink"),
    "figure.facecolor": "none",
    "lines.solid_capstyle": "round",
}
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
STAND_IN = re.compile(r"#01fe[0-9a-f]{2}")
NEEDLESS = {  # what is so anyway, or said once at the root
    "stroke-linejoin: round",
    "stroke-linejoin: miter",
    "stroke-linecap: butt",
    "stroke-dashoffset: 0",
    "text-anchor: start",
    "stroke-width: 1",
}
TEXT = f"{{{SPACE}}}text"
GROUP = f"{{{SPACE}}}g"
USE = f"{{{SPACE}}}use"


@dataclass(frozen=True)
class About:
    """What a figure is called.

    Attributes
    ----------
    name : the only one of its kind in the page: what the ids of the figure begin with.
    title, description : what it shows, and what it says, for who does not see it.
    """

    name: str
    title: str
    description: str


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many units, and matplotlib's settings while it is drawn and written."""
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # Whoever reads the text has fonts of their own: what this one lacks does not matter.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(width / UNITS, height / UNITS), dpi=UNITS, frameon=False)
        FigureCanvasSVG(figure)
        yield figure


def write(figure: Figure, about: About) -> str:
    """The figure as an ``<svg>`` element, to stand in a page that has `css`.

    It scales with its width. It wants a frame that scrolls sideways where that is narrow.

    Parameters
    ----------
    figure : of `drawing`, in whose context this is called.
    """
    for axes in figure.axes:
        axes.patch.set_visible(False)  # a transparent shape of no use
    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": about.name}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(file.getvalue())
    prefix = "c" + hashlib.sha256(about.name.encode()).hexdigest()[:8]
    _drop(root, f"{{{SPACE}}}metadata", f"{{{SPACE}}}style")
    _merge_markers(root)
    _shorten_ids(root, prefix)
    rules = _shorten(root, prefix)
    _flatten(root)
    _gather(root)
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update(
        {"class": f"chart {prefix}", "viewBox": _rounded(box), "role": "img", "style": _widths(box)}
        | {"aria-labelledby": f"{prefix}-t {prefix}-d"}
    )
    heads = [("title", f"{prefix}-t", about.title), ("desc", f"{prefix}-d", about.description)]
    for place, (tag, key, text) in enumerate([*heads, ("style", "", rules)]):
        head = ElementTree.Element(f"{{{SPACE}}}{tag}", {"id": key} if key else {})
        head.text = plain(text) if key else text
        root.insert(place, head)
    ElementTree.register_namespace("", SPACE)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def standalone(svg: str) -> str:
    """An SVG file of what `write` gave: with its colours, its ground and its size."""
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()  # type: ignore
    used = set(re.findall(r"var\(--([\w-]+)\)", svg)) | {"ground", "ink"}
    rules = _variables("svg", LIGHT, used)
    rules += f"@media screen and (prefers-color-scheme:dark){{{_variables('svg', DARK, used)}}}"
    rules += "svg{background:var(--ground)}"
    svg = svg.replace("<svg ", f'<svg width="{width}" height="{height}" ', 1)
    return svg.replace("<style>", f"<style>{rules}", 1)


def css() -> str:
    """What a page needs to hold figures: the colours of both modes, and how wide a figure is.

    Dark where the reader's system is, unless ``data-theme`` of the root element says otherwise.
    """
    every = set(COLOURS)
    return (
        _variables(":root", LIGHT, every)
        + "@media screen and (prefers-color-scheme:dark){"
        + _variables(":root:not([data-theme=light])", DARK, every)
        + "}"
        + _variables(":root[data-theme=dark]", DARK, every)
        + "svg.chart{display:block;width:100%;height:auto}"
    )


def plain(text: str) -> str:
    """`text` with the codes of characters that no XML has: a line break as ``U+000A``."""
    return "".join(c if c.isprintable() else f"U+{ord(c):04X}" for c in text)


def _widths(box: str) -> str:
    """How small and how large a figure is shown: its text stays legible, and is no poster."""
    width = float(box.split(" ")[2])
    return f"min-width:{LEAST * width:.0f}px;max-width:{MOST * width:.0f}px"


def series(name: str) -> str:
    """The `gid` of all that is drawn of a method: ``data-series`` of its groups in the SVG."""
    return SERIES + plain(name)


def _variables(selector: str, mode: str, used: Iterable[str]) -> str:
    place = MODES.index(mode)
    pairs = (f"--{name}:{COLOURS[name][place]}" for name in COLOURS if name in set(used))
    return f"{selector}{{color-scheme:{mode};{';'.join(pairs)}}}"


def _drop(root: ElementTree.Element, *tags: str) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in tags]:
            parent.remove(child)


def _merge_markers(root: ElementTree.Element) -> None:
    """One path for all markers of a shape, without a style: each of its uses has one."""
    first: dict[str, str] = {}
    same: dict[str, str] = {}
    for defs in root.iter(f"{{{SPACE}}}defs"):
        for path in defs.findall(f"{{{SPACE}}}path"):
            shape, key = path.get("d", ""), path.get("id", "")
            path.attrib.pop("style", None)
            same[key] = first.setdefault(shape, key)
            if same[key] != key:
                defs.remove(path)
    for use in root.iter(USE):
        key = use.get(LINK, "")[1:]
        use.set(LINK, f"#{same.get(key, key)}")


def _shorten_ids(root: ElementTree.Element, prefix: str) -> None:
    """Short ids that begin with `prefix` for what is referred to, none for the rest."""
    pattern = re.compile(r"url\(#([^)]+)\)")
    new: dict[str, str] = {}
    for element in root.iter():
        found = [element.get(LINK, "")[1:], *pattern.findall(element.get("clip-path", ""))]
        for key in filter(None, found):
            new.setdefault(key, f"{prefix}-{len(new)}")
    for element in root.iter():
        key = element.attrib.pop("id", None)
        if key in new:
            element.set("id", new[key])
        elif key and key.startswith(SERIES):
            element.set("data-series", key.removeprefix(SERIES))
        if LINK in element.attrib:
            element.set("href", f"#{new[element.attrib.pop(LINK)[1:]]}")
        if "clip-path" in element.attrib:
            (key,) = pattern.findall(element.attrib["clip-path"])
            element.set("clip-path", f"url(#{new[key]})")


def _shorten(root: ElementTree.Element, prefix: str) -> str:
    """Numbers of one decimal, declarations as classes; the rules of these."""
    classes: dict[str, str] = {}
    for element in root.iter():
        for name in ("d", "x", "y", "width", "height", "transform", "points"):
            if name in element.attrib:
                element.set(name, _rounded(element.attrib[name]))
        if element.get("transform", "").startswith("rotate(0 "):
            del element.attrib["transform"]
        style = _declarations(element.attrib.pop("style", ""))
        if style:
            found = [classes.setdefault(one, _letters(len(classes))) for one in style]
            element.set("class", " ".join(found))
        if element.tag != TEXT and element.text is not None:
            element.text = None
        element.tail = None
    rules = [f".{prefix} .{name}{{{style}}}" for style, name in classes.items()]
    return "".join([f".{prefix}{{font-family:{FONTS};stroke-linejoin:round}}", *rules])


def _declarations(style: str) -> list[str]:
    """Declarations in their shortest form, a colour of ours as what it is and as its variable."""
    found = []
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        name, _, value = declaration.partition(": ")
        if declaration in NEEDLESS or name == "font-family":
            continue
        if name == "font":  # the family is the root's
            name, value = "font-size", value.split(" ")[0]
        value = _rounded(value).replace(", ", ",")
        if STAND_IN.fullmatch(value):
            ours = variable(value)
            # the first for who knows no variables
            found.append(f"{name}:{COLOURS[ours][0]};{name}:var(--{ours})")
        else:
            found.append(f"{name}:{value}")
    return found


def _rounded(text: str) -> str:
    text = NUMBER.sub(lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), text)
    text = re.sub(r"-0(?![\d.])", "0", text)
    return re.sub(r"\s*\n\s*|\s*([MLCQz])\s*", r"\1", text).strip()


def _letters(number: int) -> str:
    """The class of a number: a to z, then ba, bb."""
    digits = ""
    while True:
        number, digit = divmod(number, 26)
        digits = chr(ord("a") + digit) + digits
        if not number:
            return digits


def _flatten(element: ElementTree.Element) -> None:
    """Put the children of groups that say nothing in their place."""
    for child in list(element):
        _flatten(child)
        if child.tag == GROUP and not child.attrib:
            place = list(element).index(child)
            element.remove(child)
            for offset, inner in enumerate(list(child)):
                element.insert(place + offset, inner)
        elif child.tag == f"{{{SPACE}}}defs" and not len(child):
            element.remove(child)


def _gather(element: ElementTree.Element) -> None:
    """Say the classes of neighbours that are alike once, in a group around them."""
    for child in element:
        _gather(child)
    children = list(element)
    for child in children:
        element.remove(child)
    for (tag, classes), run in itertools.groupby(children, lambda x: (x.tag, x.get("class"))):
        alike = list(run)
        if tag in (TEXT, USE) and classes and len(alike) > 1:
            group = ElementTree.SubElement(element, GROUP, {"class": classes})
            for child in alike:
                del child.attrib["class"]
            group.extend(alike)
        else:
            element.extend(alike)
