"""Colours, markers and dashes: seen on their ground, told apart, by colour-blind readers too."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from charts_for_tests import (
    ABOUT,
    declared,
    elements,
)
from matplotlib.colors import to_rgb

from bench.show import heatmaps, style, svg
from methods import registry
from methods.method import Method, Tags
from methods.registry import Entry


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    return float(linear(colour) @ (0.2126, 0.7152, 0.0722))


def linear(colour: str) -> np.ndarray:
    parts = np.array(to_rgb(colour))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


MADE_UP = [f"plugin-{i:02}" for i in range(30)]


@pytest.fixture
def plugins(entries: dict[str, Entry]) -> list[str]:
    """All that is registered and 30 plugins, in a family for every three and in none."""
    for i, name in enumerate(MADE_UP):
        tags = Tags(family="" if i % 5 == 0 else f"family {i // 3}")
        entries[name] = Entry(name, Method, {}, tags, "here")
    return [*entries, *(f"{name} k=3" for name in MADE_UP[:5])]


@pytest.mark.parametrize("mode", style.MODES)
def test_every_line_stands_out_from_its_ground(mode: str, plugins: list[str]) -> None:
    place = style.MODES.index(mode)
    ground = style.COLOURS["ground"][place]
    shown = {one.variable for one in style.styles(plugins).values()}
    shown |= {*style.OF_VERDICT.values(), *(name for name in style.COLOURS if name[:2] == "c-")}
    assert len(shown) > 40
    least = min(shown, key=lambda name: contrast(style.COLOURS[name][place], ground))
    assert contrast(style.COLOURS[least][place], ground) >= 3, least
    for name in ("ink", "faint"):  # text
        assert contrast(style.COLOURS[name][place], ground) >= 4.5


def test_methods_are_told_apart_without_colour(plugins: list[str]) -> None:
    look = style.styles(plugins)
    assert look == style.styles(reversed(plugins))
    assert 60 < len(look) <= len(style.MARKERS) * len(style.DASHES)
    assert len({(one.marker, one.dash) for one in look.values()}) == len(look)


def test_a_family_has_a_hue_and_baselines_none(plugins: list[str]) -> None:
    look = style.styles(registry.names())
    hues = {name: one.variable.split("-")[1] for name, one in look.items()}
    assert {hues[name] for name in hues if name.startswith("supervised")} == {"grey"}
    assert hues["dcec"] == hues["ss-dcec"] != hues["scan"] == hues["ss-scan"]
    assert look["dcec"].variable != look["ss-dcec"].variable
    for name in registry.names():
        assert hues[name] != "grey" or style.family_of(name) == "supervised"
    assert set(style.OF_FAMILY) >= {style.family_of(name) for name in registry.names()} - {
        style.family_of(name) for name in MADE_UP
    }, "every family of the project has a hue of its own"


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
SEEN = {
    "all": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab(colour: str, reader: str) -> np.ndarray:
    """CIELAB of what a reader sees; colours of the families are far from its dark end."""
    x, y, z = np.cbrt(XYZ @ np.clip(SEEN[reader] @ linear(colour), 0, 1) / (0.95047, 1, 1.08883))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("mode", style.MODES)
@pytest.mark.parametrize("reader", SEEN)
def test_families_differ_for_colour_blind_readers(mode: str, reader: str) -> None:
    place = style.MODES.index(mode)
    colours = {hue: style.COLOURS[f"c-{hue}-0"][place] for hue in style.OF_FAMILY.values()}
    for one, other in itertools.combinations(colours, 2):
        apart = np.linalg.norm(lab(colours[one], reader) - lab(colours[other], reader))
        assert apart > 10, (one, other)


def test_values_are_legible_on_every_tone() -> None:
    text = heatmaps.recalls(pd.DataFrame([np.linspace(0, 1, 20)], ["m"]), ABOUT)
    cells = [one for one in elements(text, "path") if one.get("class")]
    tones = {one.get("d", "").count("z"): declared(one, text) for one in cells}
    assert len(cells) == 20
    assert set(tones) == {1}
    fills = [re.findall(r"fill:(#\w{6})", declared(one, text))[0] for one in cells]
    groups = [one for one in elements(text, "g") if "font-size" in declared(one, text)]
    inks = [re.findall(r"fill:(#\w{6})", declared(one, text)) for one in groups]
    white, black = (len(group) for group in groups[:2])
    assert [inks[0], inks[1], white + black] == [["#ffffff"], [], 20]  # black is the default
    fills.sort(key=luminance)
    assert min(contrast(fill, "#ffffff") for fill in fills[:white]) >= 4.5
    assert min(contrast(fill, "#000000") for fill in fills[white:]) >= 4.5
    assert not any(svg.STAND_IN.fullmatch(fill) for fill in fills)
