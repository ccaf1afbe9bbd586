"""A figure of the page: what is drawn, what it says, and the file beside the page."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes
    ----------
    name : the file's, ending in ``.svg`` or ``.png``.
    caption : what it shows and how to read it.
    alt : what it says, for who does not see it.
    content : the file's bytes: UTF-8 text of an SVG, or a PNG (photographs).
    """

    name: str
    caption: str
    alt: str
    content: bytes

    @property
    def inline(self) -> Markup:
        """The picture as it stands in the page, which needs no other file."""
        if self.name.endswith(".svg"):
            # Only what bench.show draws gets here; names in it are escaped where they are written.
            return Markup(svg_element(self.content.decode()))
        data = base64.b64encode(self.content).decode()
        return Markup('<img src="data:image/png;base64,{}" alt="{}" decoding="async">').format(
            data, escape(self.alt)
        )


def svg_element(text: str) -> str:
    """The element ``<svg>`` of an SVG file, without what stands before it."""
    return text[text.index("<svg") :].strip()


def slug(text: str) -> str:
    """`text` as a part of a file's name: what is no letter, digit, dot or _ becomes a dash."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")


def spaced(level: str) -> str:
    """A level as a reader expects it: ``5 %``, ``3,500``."""
    return f"{level[:-1]} %" if level.endswith("%") else f"{int(level):,}"
