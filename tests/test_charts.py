"""Figures as SVG: the same for the same numbers, safe for any name, legible in light and dark."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from bench.records import published
from bench.records.findings import Finding
from bench.records.published import Figure, Setting
from bench.show import charts, costs, heatmaps, histories, labels, lines, style, svg, verdicts
from bench.show.costs import Point
from bench.show.svg import SIZE, SPACE, About
from methods import registry
from methods.method import Method, Tags
from methods.registry import Entry

NAMES = [f"method-{i:02}" for i in range(28)]
ODD = [
    "$1_$2",
    "<b>&amp;</b> \"x\" 'y'",
    "[red]x[/red]",
    "ひらがな たんご",
    "kmeans-centroid k=500 max_clusters=2000 train_on=centres vote=nearest",
    "x" * 60,
    "a\x00b\nc\ud800",
]
LEVELS = {"0%": 0, "10": 10, "500": 500, "1%": 700, "10%": 7000}
SHARES = ["0%", "1%", "10%"]
ABOUT = About("figure", "A figure", "It says <this> & that.")


def board(names: list[str] = NAMES, levels: tuple[str, ...] = tuple(LEVELS)) -> pd.DataFrame:
    """A board; the last method has no headline at level 0, the first an interval everywhere."""
    rows = []
    for i, name in enumerate(names):
        for j, level in enumerate(levels):
            mean = 0.3 + 0.01 * i + 0.04 * j
            mean = np.nan if i == len(names) - 1 and level == "0%" else mean
            half = 0.03 if i == 0 else np.nan
            rows.append(
                {
                    "name": name,
                    "method": name.split(" ")[0],
                    "level": level,
                    "n_labels": LEVELS[level],
                    "n_seeds": 3,
                    "headline_mean": mean,
                    "headline_low": mean - half,
                    "headline_high": mean + half,
                    "gain_mean": mean - 0.5,
                    "gain_low": mean - 0.5 - half,
                    "gain_high": mean - 0.5 + half,
                    "acc_all_mean": mean,
                    "acc_all_std": 0.01,
                    "nmi_all_mean": mean - 0.1,
                    "nmi_all_std": np.nan,
                    "fit_seconds_median": 0.0 if i == 0 else 10.0**i / 1e6,
                    "stage_seconds_median": np.nan if i == 1 else 5.0,
                    "peak_memory_mib": np.nan if i == 2 else 500.0 + i,
                    "device": "cuda" if i == 3 else "cpu",
                }
            )
    return pd.DataFrame(rows)


def finding(value: float, *measured: float, method: str = "ss-dcec", source: str = "s") -> Finding:
    setting = Setting(method, "transductive", "random", "1%", "all", "acc")
    return Finding(Figure(1, source, value, setting, selection_rule="label-free"), measured)


HISTORY = [
    *({"stage": "autoencoder", "epoch": i, "loss": 1 / i} for i in (1, 2, 3)),
    {"iteration": 0, "clustering_loss": None, "changed": None, "clusters_in_use": 10},
    {"iteration": 140, "clustering_loss": 0.5, "changed": 0.2, "clusters_in_use": 9},
    {"iteration": 280, "clustering_loss": 0.4, "changed": 0.1, "clusters_in_use": 10},
    {"graph_edges": 7},
]
LATER = [dict(row, clustering_loss=2.0) if "iteration" in row else row for row in HISTORY]
TABLE = [[8, 2, 0], [1, 1, 0]]
TABLE_1 = [one for one in published.figures() if one.source.startswith("ss-dcec-paper")]


def drawings(names: list[str] = NAMES, about: About = ABOUT) -> dict[str, Callable[[], str]]:
    """Every figure of these methods."""
    rows, look = board(names), style.styles(names)
    shares, one = rows[rows["level"].isin(SHARES)], look[names[0]]
    recalls = pd.DataFrame({"a": np.linspace(0, 1, len(names)), "b": np.nan}, names)
    history = {"0%": HISTORY, "10%": LATER}
    found = [finding(0.7, 0.69, 0.71, method=name, source=name) for name in names]
    return {
        "supervision": lambda: charts.supervision(shares, names, look, "x", about, TABLE_1[2:3]),
        "to scale": lambda: charts.supervision_to_scale(rows, names, look, "x", about),
        "gains": lambda: charts.gains(rows, names, look, about),
        "replication": lambda: charts.replication(shares, names, look, about, TABLE_1),
        "seconds": lambda: costs.costs(rows, "10%", names, look, "x", about),
        "memory": lambda: costs.costs(rows, "10%", names, look, "x", about, "memory"),
        "recalls": lambda: heatmaps.recalls(recalls, about),
        "confusion": lambda: heatmaps.confusion(TABLE, names[:2], about),
        "histories": lambda: histories.histories(history, one, about) or "",
        "verdicts": lambda: verdicts.verdicts(found, about),
    }


FIGURES = list(drawings())


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """Every figure of 28 methods."""
    return {name: draw() for name, draw in drawings().items()}


@pytest.fixture(scope="module")
def odd() -> dict[str, str]:
    """Every figure of methods with odd names."""
    return {name: draw() for name, draw in drawings(ODD).items()}


def elements(text: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(text).iter(f"{{{SPACE}}}{tag}"))


def texts(text: str) -> list[str]:
    return [one.text or "" for one in elements(text, "text")]


def series(text: str, name: str, tag: str) -> list[ElementTree.Element]:
    groups = [g for g in elements(text, "g") if g.get("data-series") == name]
    return [one for group in groups for one in group.iter(f"{{{SPACE}}}{tag}")]


# --- The file ----------------------------------------------------------------------------------


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
    assert "(prefers-color-scheme:dark){:root:not" in page


def test_a_file_of_its_own_brings_its_colours_and_its_size(made: dict[str, str]) -> None:
    text = svg.standalone(made["supervision"])
    root = ElementTree.fromstring(text)
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    assert used > {"ground", "ink", "grid"}
    for name in used:
        assert len(re.findall(f"[;{{]--{name}:#", text)) == 2, name
    assert len(text) - len(made["supervision"]) < 6_000


# --- Colours -----------------------------------------------------------------------------------


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


# --- Names at the ends of lines ----------------------------------------------------------------


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


# --- What is drawn -----------------------------------------------------------------------------


def rules(text: str) -> dict[str, str]:
    """The declarations of each class."""
    return dict(re.findall(r"\.(\w+){([^}]*)}", text))


def declared(one: ElementTree.Element, text: str) -> str:
    known = rules(text)
    return ";".join(known[name] for name in one.get("class", "").split())


def heights(text: str) -> Callable[[float], float]:
    """From units to values: the horizontal lines of the grid and the texts of their ticks."""
    found = [one for one in elements(text, "path") if "var(--grid)" in declared(one, text)]
    ends = [re.findall(r"[ML]([\d.]+) ([\d.]+)", one.get("d", "")) for one in found]
    places = sorted({float(y) for (_, y), (_, other) in ends if y == other}, reverse=True)
    ticks = [one for one in texts(text) if re.fullmatch(r"−?0\.\d\d", one)]
    values = [float(one.replace("−", "-")) for one in ticks]
    slope, start = np.polyfit(places, sorted(values), 1)
    return lambda place: slope * place + start


def points(text: str, name: str) -> np.ndarray:
    """``(n, 2)`` of the line of a method: the places of its markers."""
    uses = series(text, name, "use")
    return np.array([[float(one.get("x", 0)), float(one.get("y", 0))] for one in uses])


@pytest.mark.parametrize("name", ["supervision", "to scale"])
def test_every_headline_is_drawn(name: str, made: dict[str, str]) -> None:
    value = heights(made[name])
    for one, rows in board().groupby("name"):
        if name == "supervision":
            rows = rows[rows["level"].isin(SHARES)]
        wanted = rows["headline_mean"].dropna().to_numpy()
        drawn = [value(y) for _, y in points(made[name], str(one))]
        np.testing.assert_allclose(drawn, wanted, atol=3e-3)


def test_labels_are_to_scale(made: dict[str, str]) -> None:
    x = points(made["to scale"], NAMES[0])[:, 0]
    assert len(x) == len(LEVELS)
    steps = np.diff(x[1:]) / np.diff(np.log10([10, 500, 700, 7000]))
    np.testing.assert_allclose(steps, steps[0], rtol=0.02)
    assert x[0] < x[1] - 0.5 * steps[0], "0 stands apart"
    assert {"10", "100", "1,000", "1 %", "10 %", "0 %"} <= set(texts(made["to scale"]))


def test_levels_are_steps_and_level_0_stands_apart(made: dict[str, str]) -> None:
    shown = texts(made["supervision"])
    assert [x for x in shown if x in ("0 %", "1 %", "10 %", "(ACC)")] == [
        "0 %",
        "(ACC)",
        "1 %",
        "10 %",
    ]
    (line,) = [one for one in series(made["supervision"], NAMES[5], "path") if one.get("clip-path")]
    assert line.get("d", "").count("M") == 2, "no line from 0 to the rest"


def test_a_line_that_ends_early_says_where() -> None:
    rows = board(NAMES[:2])
    early = rows[(rows["name"] == NAMES[0]) | (rows["level"] != "10%")]
    shown = texts(charts.supervision_to_scale(early, NAMES, style.styles(NAMES), "x", ABOUT))
    assert {"method-00 .460", "method-01 .430 (1 %)"} <= set(shown)


def test_intervals_are_bands(made: dict[str, str]) -> None:
    value = heights(made["to scale"])
    bars = [x for x in series(made["to scale"], NAMES[0], "path") if x.get("d", "").count("L") == 1]
    ends = [sorted(value(float(y)) for y in re.findall(r" ([\d.]+)", x.get("d", ""))) for x in bars]
    wanted = [[0.3 + 0.04 * j - 0.03, 0.3 + 0.04 * j + 0.03] for j in range(5)]
    np.testing.assert_allclose(ends, wanted, atol=3e-3)
    assert any("opacity:0.1" in rule for rule in rules(made["to scale"]).values()), "a band"
    assert len(series(made["to scale"], NAMES[1], "path")) == 2, "a line and what leads to its name"


def test_published_curves_are_dashed_beside_ours(made: dict[str, str]) -> None:
    name = "ss-dcec-paper Table 1 (acc on all)"
    ((_, y),) = points(made["supervision"], name)  # at 1 % alone
    assert heights(made["supervision"])(y) == pytest.approx(0.7371, abs=3e-3)
    assert f"{name} .737" in texts(made["supervision"])
    both = texts(made["replication"])
    assert both.count("ACC on all images") == both.count("NMI on all images") == 1
    assert {"ss-dcec-paper Table 1 .802", "ss-dcec-paper Table 1 .725"} <= set(both)
    assert not points(made["replication"], "ss-dcec-paper Table 1 (nmi on all)").size
    assert len(points(made["replication"], "ss-dcec-paper Table 1")) == 2 * len(SHARES)


def test_gains_are_from_the_baselines_and_without_them(entries: dict[str, Entry]) -> None:
    entries[NAMES[1]] = Entry(NAMES[1], Method, {}, Tags(family="supervised"), "here")
    text = drawings(NAMES[:4])["gains"]()
    shown = texts(text)
    assert not [x for x in shown if x.startswith(NAMES[1])]
    assert {"method-00 −.040", "method-03 −.010"} <= set(shown)
    assert "best supervised baseline" in shown
    value = heights(text)
    drawn = [value(y) for _, y in points(text, NAMES[3])]
    np.testing.assert_allclose(drawn, np.array([0.37, 0.41, 0.45, 0.49]) - 0.5, atol=3e-3)
    assert not any(x.startswith("0 %") for x in shown), "nothing to gain from without labels"


def test_what_is_far_behind_leaves_the_frame(made: dict[str, str]) -> None:
    far = board(NAMES[:2]).assign(gain_mean=[-0.6] * 5 + [-0.1] * 5)
    text = charts.gains(far, NAMES, style.styles(NAMES), ABOUT)
    assert any("cut at −0.25" in x for x in texts(text))
    assert "method-00 −.600" in texts(text)
    assert not any("cut at" in x for x in texts(made["gains"]))


def test_costs_show_the_fit_and_its_stages(made: dict[str, str]) -> None:
    hollow = {name: len(series(made["seconds"], name, "use")) for name in NAMES}
    assert hollow[NAMES[0]] == 2, "no time at all for the fit, 5 s of stages"
    assert hollow[NAMES[1]] == 1, "no stage"
    assert hollow[NAMES[3]] == 3, "a ring around what ran on a GPU"
    assert "method-03 gpu .490" in texts(made["seconds"])
    assert NAMES[2] not in "".join(texts(made["memory"])), "no memory is known"
    ticks = scale_of_logs(made["seconds"])
    ends = [10 ** ticks(x) for x, _ in points(made["seconds"], NAMES[8])]
    np.testing.assert_allclose(sorted(ends), [100, 105], rtol=0.2)


def scale_of_logs(text: str) -> Callable[[float], float]:
    ticks = [x for x in elements(text, "text") if re.fullmatch(r"[\d,.]+(e\+\d+)?", x.text or "")]
    lowest = max(float(x.get("y", 0)) for x in ticks)
    ticks = [x for x in ticks if float(x.get("y", 0)) == lowest]
    logs = [np.log10(float((x.text or "").replace(",", ""))) for x in ticks]
    slope, start = np.polyfit([float(x.get("x", 0)) for x in ticks], logs, 1)
    return lambda place: slope * place + start


def test_the_front_holds_what_no_other_beats() -> None:
    given = [(1, 0.5), (2, 0.4), (2, 0.6), (3, 0.6), (9, 0.7)]
    points = [Point(str(i), cost, cost, value, False) for i, (cost, value) in enumerate(given)]
    assert [one.name for one in costs.front(points)] == ["0", "2", "4"]
    assert costs.front([]) == []


def test_recalls_are_written_into_their_cells() -> None:
    table = pd.DataFrame([[0.25, 1.0], [np.nan, 0.5]], ["one", "two"], ["Trouser", "Bag"])
    shown = texts(heatmaps.recalls(table, ABOUT))
    assert sorted(shown) == sorted([".25", "1.00", ".50", "one", "two", "Trouser", "Bag"])


@pytest.mark.parametrize(("n", "step"), [(31, 1), (51, 2), (1200, 24)])
def test_of_many_classes_some_are_named_and_no_value_is_written(n: int, step: int) -> None:
    names = [f"class number {i}" for i in range(n)]
    text = heatmaps.recalls(pd.DataFrame(np.full((2, n), 0.5), NAMES[:2], names), ABOUT)
    assert texts(text) == [*NAMES[:2], *names[::step]]
    assert len(text) < 20_000
    assert float(ElementTree.fromstring(text).get("viewBox", "").split()[2]) < 1_200


def test_a_confusion_matrix_is_in_percent_of_each_class() -> None:
    text = heatmaps.confusion([[8, 2, 0, 0], [1, 1, 0, 2], [0] * 4], ["cat", "dog", "eel"], ABOUT)
    written = [x for x in texts(text) if x.isdecimal()]
    assert sorted(written) == ["20", "25", "25", "50", "80"]
    assert [x for x in texts(text) if x == "no class"] == ["no class"]
    assert "no class" not in texts(heatmaps.confusion(TABLE, ["cat", "dog"], ABOUT))


def test_a_matrix_of_many_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="31 classes"):
        heatmaps.confusion([[1] * 32] * 31, [str(i) for i in range(31)], ABOUT)


def test_a_page_may_hold_many_confusion_matrices() -> None:
    counts = np.random.default_rng(0).integers(50, 700, (10, 11))
    assert len(heatmaps.confusion(counts.tolist(), NAMES[:10], ABOUT)) < 15_000


def test_a_history_has_a_panel_for_each_quantity_of_each_part() -> None:
    found = histories.panels({"0%": HISTORY, "10%": LATER})
    assert [(one.title, one.steps) for one in found] == [
        ("autoencoder: loss", "epoch"),
        ("clustering loss", "iteration"),
        ("share of labels changed", "iteration"),
        ("clusters in use", "iteration"),
    ]
    assert found[1].curves == {"0%": ((140, 280), (0.5, 0.4)), "10%": ((0, 140, 280), (2, 2, 2))}
    assert found[3].curves["0%"] == ((0, 140, 280), (10, 9, 10))


def test_levels_with_one_curve_share_a_line(made: dict[str, str]) -> None:
    shown = texts(made["histories"])
    assert shown.count("all levels") == 3
    assert (shown.count("0 %"), shown.count("10 %")) == (1, 1)


def test_a_fit_without_steps_has_no_figure() -> None:
    assert histories.histories({"0%": [{"graph_edges": 7}], "1%": []}, LOOK, ABOUT) is None


LOOK = style.styles(["m"])["m"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["50%", "0%", "3%", "1%", "10%"], ["0%", "1%", "10%", "50%"]),
        (["10", "500", "20", "40", "100", "250"], ["10", "40", "100", "500"]),
        (["0%"], ["0%"]),
        ([], []),
    ],
)
def test_histories_are_shown_at_few_levels(given: list[str], wanted: list[str]) -> None:
    assert histories.shown_levels(given) == wanted


def test_verdicts_say_the_difference_and_how_the_state_was_chosen() -> None:
    given = [
        finding(0.7, 0.69, 0.70, 0.71),
        finding(0.7, 0.75, method="two"),
        finding(0.7, 0.66, source="t"),
        finding(0.1, 0.79, source="t"),
        finding(0.8, source="t"),
    ]
    text = verdicts.verdicts(given, ABOUT)
    shown = texts(text)
    words = ["reproduced", "above", "below", "not run"]
    assert [shown.count(word) for word in words] == [2, 3, 2, 1]  # a key beside the rows
    assert shown.count("label-free") == 5
    assert {"s", "t", ".700 (3)", ".750", "+.690", "1 % random", "acc on all"} <= set(shown)
    marks = elements(text, "use")
    assert len(marks) == 4 + 3
    assert len({mark.get("href") for mark in marks}) == 3, "a shape for each verdict"


# --- Boards with little in them ----------------------------------------------------------------

EMPTY = ["supervision", "to scale", "gains", "replication", "seconds", "memory", "verdicts"]


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("what", ["one method", "one level", "no value", "no row"])
@pytest.mark.filterwarnings("error")
def test_boards_with_little_in_them_are_drawn(
    name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {
        "one method": lambda rows: rows[rows["name"] == NAMES[0]],
        "one level": lambda rows: rows[rows["level"] == "10%"],
        "no value": lambda rows: rows.assign(**dict.fromkeys(NUMBERS, np.nan)),
        "no row": lambda rows: rows[:0],
    }
    rows = kept[what](board(NAMES[:2]))
    monkeypatch.setattr("test_charts.board", lambda *_: rows)
    root = ElementTree.fromstring(drawings(NAMES[:2])[name]())
    assert root.get("viewBox")


NUMBERS: list[Any] = [
    *(f"headline_{end}" for end in ("mean", "low", "high")),
    *(f"gain_{end}" for end in ("mean", "low", "high")),
    *("acc_all_mean", "nmi_all_mean", "peak_memory_mib", "n_labels"),
]


def test_nothing_to_verify_is_drawn_too() -> None:
    assert "verdict" in texts(verdicts.verdicts([], ABOUT))
