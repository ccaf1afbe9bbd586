"""Figures as SVG: small, the same for the same numbers, safe for any name, in light and dark."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from charts_for_tests import (
    ABOUT,
    FIGURES,
    NAMES,
    ODD,
    drawings,
    elements,
    texts,
)

from bench.show import labels, lines, style, svg
from bench.show.svg import SIZE, SPACE


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """Every figure of 28 methods."""
    return {name: draw() for name, draw in drawings().items()}


@pytest.fixture(scope="module")
def odd() -> dict[str, str]:
    """Every figure of methods with odd names."""
    return {name: draw() for name, draw in drawings(ODD).items()}


# --- The file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_numbers_give_the_same_small_text(name: str, made: dict[str, str]) -> None:
    text = made[name]
    few = drawings(NAMES[:3])[name]
    assert few() == few()
    assert len(text) < 60_000
    assert texts(text), "text is text"
    assert "#01fe" not in text, "a stand-in is left"
    assert not re.search(r"(?i)\bnan\b|matplotlib|\d{4}-\d\d-\d\d|<!--|<image|xlink", text)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_it_is(name: str, made: dict[str, str]) -> None:
    root = ElementTree.fromstring(made[name])
    assert root.get("role") == "img"
    heads = [root[0], root[1]]
    assert root.get("aria-labelledby") == " ".join(str(one.get("id")) for one in heads)
    assert [one.text for one in heads] == ["A figure", "It says <this> & that."]
    assert "width" not in root.attrib, "it scales"


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_one_page_share_no_id_and_no_class(name: str) -> None:
    abouts = [ABOUT, replace(ABOUT, name="figure 2")]
    both = [drawings(NAMES[:2], about)[name]() for about in abouts]
    pages = [ElementTree.fromstring(text) for text in both]
    ids = [{one.get("id") for one in page.iter()} - {None} for page in pages]
    assert not ids[0] & ids[1]
    for text, page, known in zip(both, pages, ids, strict=True):
        referred = re.findall(r'(?:url\(|href=")#([\w-]+)', text)
        assert set(referred) <= known
        scope = str(page.get("class")).split(" ")[1]
        rules = "".join(one.text or "" for one in page.iter(f"{{{SPACE}}}style"))
        assert all(rule.startswith(f".{scope}") for rule in re.findall(r"[^{}]+(?={)", rules))
    assert pages[0].get("class") != pages[1].get("class")


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_names_are_text_never_markup(name: str, odd: dict[str, str]) -> None:
    assert not elements(odd[name], "b")
    if name in ("histories", "replication"):  # the first has no names, the second these in part
        return
    shown = "".join(texts(odd[name])).replace(" ", "")
    wanted = ODD[:2] if name == "confusion" else ODD[:-1]
    wanted = [*ODD[:2], *ODD[3:-1]] if name == "memory" else wanted  # the third has none
    assert all(one.replace(" ", "") in shown for one in wanted)
    if name not in ("confusion", "verdicts"):
        assert "aU+0000bU+000AcU+D800" in shown


def test_a_page_has_the_colours_of_both_modes() -> None:
    page = svg.css()
    light, dark, forced = re.findall(r"(:root[^{]*){([^}]*--ink[^}]*)}", page)
    assert [light[0], dark[0], forced[0]] == [
        ":root",
        ":root:not([data-theme=light])",
        ":root[data-theme=dark]",
    ]
    assert dark[1] == forced[1] != light[1]
    assert all(f"--{name}:" in rules for _, rules in (light, dark) for name in style.COLOURS)
    assert "screen and (prefers-color-scheme:dark){:root:not" in page


def test_a_file_of_its_own_brings_its_colours_and_its_size(made: dict[str, str]) -> None:
    text = svg.standalone(made["supervision"])
    root = ElementTree.fromstring(text)
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    assert used > {"ground", "ink", "grid"}
    for name in used:
        assert len(re.findall(f"[;{{]--{name}:#", text)) == 2, name
    assert len(text) - len(made["supervision"]) < 6_000


# --- Names at the ends of lines ---------------------------------------------------------------


def boxes(text: str, names: list[str]) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of every line of text that is part of one of these names."""
    parts = {part for name in names for part in lines.name_lines(name)}
    found = []
    for one in elements(text, "text"):
        shown = one.text or ""
        if any(shown.startswith(part[:20]) or part.startswith(shown[:20]) for part in parts):
            x, y = float(one.get("x", 0)), float(one.get("y", 0))
            found.append((x, y - 0.8 * SIZE, x + labels.width(shown, SIZE), y + 0.2 * SIZE))
    return found


@pytest.mark.parametrize("name", ["supervision", "to scale", "gains", "seconds", "memory"])
def test_names_do_not_lie_on_each_other(name: str) -> None:
    names = [*ODD, *NAMES]
    text = drawings(names)[name]()
    found = boxes(text, names)
    assert len(found) >= len(names) - 1  # one has no memory
    _, _, width, height = map(float, ElementTree.fromstring(text).get("viewBox", "").split())
    for left, top, right, bottom in found:
        assert (left > 0, top > 0, right < width, bottom < height) == (True,) * 4
    for one, other in itertools.combinations(found, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_boxes_are_spread_no_more_than_needed() -> None:
    heights = np.array([10.0, 30.0, 10.0, 10.0])
    found = lines.spread(np.array([50.0, 50.0, 90.0, -5.0]), heights, 0, 100)
    assert found.tolist() == [40, 60, 90, 5]
    crowded = lines.spread(np.full(10, 99.0), np.full(10, 10.0), 0, 100)
    np.testing.assert_allclose(crowded, 5 + 10 * np.arange(10))
