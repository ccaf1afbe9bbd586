"""Figures show what the numbers are: every value, where it belongs; and boards with little."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from charts_for_tests import (
    ABOUT,
    HISTORY,
    LATER,
    LEVELS,
    NAMES,
    SHARES,
    TABLE,
    board,
    drawings,
    elements,
    finding,
    heights,
    points,
    rules,
    series,
    texts,
)
from matplotlib.figure import Figure

from bench.show import charts, costs, heatmaps, histories, lines, style, verdicts
from bench.show.costs import Point
from bench.show.lines import Series
from methods.method import Method, Tags
from methods.registry import Entry


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """Every figure of 28 methods."""
    return {name: draw() for name, draw in drawings().items()}


# --- What is drawn ----------------------------------------------------------------------------
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


def test_intervals_are_bands() -> None:
    text = drawings(NAMES[:4])["to scale"]()
    value = heights(text)
    bars = [x for x in series(text, NAMES[0], "path") if x.get("d", "").count("L") == 1]
    ends = [sorted(value(float(y)) for y in re.findall(r" ([\d.]+)", x.get("d", ""))) for x in bars]
    wanted = [[0.3 + 0.04 * j - 0.03, 0.3 + 0.04 * j + 0.03] for j in range(5)]
    np.testing.assert_allclose(ends, wanted, atol=3e-3)
    assert any("opacity:0.1" in rule for rule in rules(text).values()), "a band"
    assert len(series(text, NAMES[1], "path")) == 2, "a line and what leads to its name"


@pytest.mark.parametrize(("n", "with_intervals"), [(lines.MANY, lines.MANY), (lines.MANY + 1, 1)])
def test_of_many_lines_the_strong_ones_have_intervals(n: int, with_intervals: int) -> None:
    """More bands than that would be a fog."""
    x, low, high = np.arange(3.0), np.full(3, 0.1), np.full(3, 0.9)
    look = style.styles(["a"])["a"]
    axes = Figure().add_subplot()
    lines.draw(axes, [Series(str(i), "", x, low, low, high, look, i == 0) for i in range(n)])
    assert len(axes.lines) == n
    assert len(axes.collections) == 2 * with_intervals  # a band and bars


def test_published_curves_are_dashed_beside_ours(made: dict[str, str]) -> None:
    name = "ss-dcec-paper Table 1 (acc on all)"
    ((_, y),) = points(made["supervision"], name)  # at 1 % alone
    assert heights(made["supervision"])(y) == pytest.approx(0.7371, abs=3e-3)
    assert f"{name} .737 (1 %)" in texts(made["supervision"])
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
    odd = [{"epoch": "first", "loss": 1.0}, {"epoch": 1, "loss": [2.0]}, {"epoch": 10**400}]
    assert histories.histories({"0%": odd}, LOOK, ABOUT) is None


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
        finding(0.8, 0.1, source="t"),
    ]
    text = verdicts.verdicts(given, ABOUT)
    shown = texts(text)
    words = ["reproduced", "above", "below", "died", "not run"]
    assert [shown.count(word) for word in words] == [2, 3, 2, 2, 1]  # a key beside the rows
    assert shown.count("label-free") == 6
    assert {"s", "t", ".700 (3)", ".750", "+.690", "1 % random", "acc on all"} <= set(shown)
    marks = elements(text, "use")
    assert len(marks) == 5 + 4
    assert len({mark.get("href") for mark in marks}) == 4, "a shape for each verdict"


# --- Boards with little in them ---------------------------------------------------------------

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
    monkeypatch.setattr("charts_for_tests.board", lambda *_: rows)
    root = ElementTree.fromstring(drawings(NAMES[:2])[name]())
    assert root.get("viewBox")


NUMBERS: list[Any] = [
    *(f"headline_{end}" for end in ("mean", "low", "high")),
    *(f"gain_{end}" for end in ("mean", "low", "high")),
    *("acc_all_mean", "nmi_all_mean", "peak_memory_mib", "n_labels"),
]


def test_nothing_to_verify_is_drawn_too() -> None:
    assert "verdict" in texts(verdicts.verdicts([], ABOUT))
