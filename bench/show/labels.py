"""Names in figures: what the font can draw, in the room that there is."""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Sequence

from matplotlib.font_manager import findfont, get_font

FONT = "DejaVu Sans"  # comes with matplotlib: the same on every machine
NAME_WIDTH = 36  # characters of a name in one line
CLASS_WIDTH = 24  # characters of a class's name
MOST_NAMED = 50  # classes along one axis
MOST_COLUMNS = 100  # of a heat map
MOST_WRITTEN = 30  # classes for whose values there is room
MOST_LISTED = 20  # names in a caption


@functools.cache
def _known() -> frozenset[int]:
    """The characters that the font has."""
    return frozenset(get_font(findfont(FONT)).get_charmap())


def drawable(text: str) -> str:
    """`text` with the codes of characters that the font lacks: ``あ`` as ``U+3042``."""
    return "".join(c if ord(c) in _known() else f"U+{ord(c):04X}" for c in text)


def wrapped(name: str) -> str:
    """A long name, of a variant with many parameters, on several lines."""
    return "\n".join(lines(drawable(name)))


def lines(name: str, most: int = NAME_WIDTH) -> list[str]:
    """The lines that a name takes, of at most so many characters."""
    return textwrap.wrap(name, most) or [name]


def width(text: str, size: float) -> float:
    """How wide a text of this size is, in the size's unit, as the font has it.

    A character that it lacks is as wide as high: no other font has a wider one.
    """
    font = get_font(findfont(FONT))
    font.set_size(size, 72)
    font.set_text("".join(c for c in text if ord(c) in _known()))
    lacking = sum(ord(c) not in _known() for c in text)
    return font.get_width_height()[0] / 64 + lacking * size


def class_texts(names: Sequence[str]) -> tuple[list[str], str]:
    """How figures call the classes, and what a caption has to say of that.

    Their numbers where the font lacks a character of one of them; a long name is cut.

    Examples
    --------
    >>> class_texts(["cat", "dog"])
    (['cat', 'dog'], '')
    >>> class_texts(["い", "ろ"])
    (['0', '1'], 'Numbers stand for names that the font of the figures lacks: 0 い, 1 ろ.')
    """
    if any(drawable(name) != name for name in names):
        listed = ", ".join(f"{j} {name}" for j, name in enumerate(names[:MOST_LISTED]))
        more = ", …" if len(names) > MOST_LISTED else ""
        remark = f"Numbers stand for names that the font of the figures lacks: {listed}{more}."
        return [str(j) for j in range(len(names))], remark
    cut = [name if len(name) <= CLASS_WIDTH else f"{name[: CLASS_WIDTH - 1]}…" for name in names]
    remark = f"Names are cut after {CLASS_WIDTH} characters." if cut != list(names) else ""
    return cut, remark


def named_every(n: int) -> int:
    """Of so many classes along an axis every which has its name there."""
    return math.ceil(n / MOST_NAMED)


def classes_per_column(n: int) -> int:
    """Of so many classes how many share a column of a heat map."""
    return math.ceil(n / MOST_COLUMNS)


def axis_remark(names: Sequence[str]) -> str:
    """What the caption of a figure says of the classes along its axis; empty if they are plain."""
    n, step, shared = len(names), named_every(len(names)), classes_per_column(len(names))
    said = [
        class_texts(names)[1],
        f"Of {n:,} classes one in {step} is named." if step > 1 else "",
        f"Values are written for up to {MOST_WRITTEN} classes." if n > MOST_WRITTEN else "",
        f"A column is the mean of {shared} classes." if shared > 1 else "",
    ]
    return " ".join(filter(None, said))
