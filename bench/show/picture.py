"""A figure of the page: what is drawn, what it says, and the file beside the page."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup, escape

from bench.show import svg
from bench.show.svg import About


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes
    ----------
    name : the file's, ending in ``.svg`` or ``.png``.
    caption : what it shows and how to read it.
    alt : what it says, for who does not see it.
    content : an SVG as `bench.show.svg.write` gives it, or the bytes of a PNG (photographs).
    """

    name: str
    caption: str
    alt: str
    content: str | bytes

    @property
    def file(self) -> bytes:
        """What the file beside the page holds."""
        if isinstance(self.content, str):
            return svg.standalone(self.content).encode()
        return self.content

    @property
    def inline(self) -> Markup:
        """The picture as it stands in the page, which needs no other file."""
        if isinstance(self.content, str):
            return Markup(self.content)  # an element of an XML library: names in it are escaped
        data = base64.b64encode(self.content).decode()
        return Markup('<img src="data:image/png;base64,{}" alt="{}" decoding="async">').format(
            data, escape(self.alt)
        )


def drawn(name: str, title: str, alt: str, caption: str, draw: Callable[[About], str]) -> Picture:
    """A chart.

    Parameters
    ----------
    name : of the file, without its ending; the only one of the page.
    title, alt, caption : what it is called, what it says, how to read it.
    draw : gives the SVG of a figure that is called so.
    """
    return Picture(f"{name}.svg", caption, alt, draw(About(name, title, alt)))


def slug(text: str) -> str:
    """`text` as a part of a file's name: what is no letter, digit, dot or _ becomes a dash."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")
