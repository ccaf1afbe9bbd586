"""Figures: PNGs that are the same for the same numbers, show what there is, and stay small."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from bench.core.errors import BenchError
from bench.records.views import Cluster, View
from bench.show import figures, labels

NAMES = [f"method-{i:02}" for i in range(17)]
LEVELS = ["0%", "1%", "10%"]


def board(n: int = 17, several: bool = False) -> pd.DataFrame:
    """A board of `n` methods; the last one has no headline at level 0."""
    rows = []
    for i, name in enumerate(NAMES[:n]):
        for j, level in enumerate(LEVELS):
            mean = 0.3 + 0.02 * i + 0.1 * j
            if i == n - 1 and level == "0%":
                mean = np.nan
            half = 0.05 if several else np.nan
            rows.append(
                {
                    "name": name,
                    "level": level,
                    "headline_mean": mean,
                    "headline_low": mean - half,
                    "headline_high": mean + half,
                    "fit_seconds_median": 0.0 if i == 0 else 10.0**i / 1e6,
                    "stage_seconds_median": np.nan if i == 1 else 5.0,
                    "device": "cpu",
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures as they were when they became a PNG."""
    found: list[Figure] = []
    png = figures._png

    def keep(figure: Figure, *how: Any) -> bytes:
        found.append(figure)
        return png(figure, *how)

    monkeypatch.setattr(figures, "_png", keep)
    return found


def opened(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        assert not image.info
        return np.asarray(image.convert("RGB"))


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


CHARTS: dict[str, Callable[[], bytes]] = {
    "supervision": lambda: figures.supervision(board(), NAMES, figures.styles(NAMES), "x"),
    "costs": lambda: figures.costs(board(), "10%", NAMES, figures.styles(NAMES), "x"),
    "recalls": lambda: figures.recalls(pd.DataFrame({"a": [0.5, np.nan], "b": [1, 0]}, NAMES[:2])),
    "sheet": lambda: figures.augmentations(
        np.random.default_rng(0).integers(0, 256, (30, 9, 8), dtype=np.uint8)
    ),
}


@pytest.mark.parametrize("name", CHARTS)
def test_the_same_numbers_give_the_same_small_file(name: str) -> None:
    first = CHARTS[name]()
    assert first == CHARTS[name]()
    assert len(first) < 60_000
    assert opened(first).min() < 255, "it is not blank"


def test_styles_differ_and_do_not_depend_on_order() -> None:
    look = figures.styles(NAMES)
    assert look == figures.styles(reversed(NAMES))
    assert len({(one.color, one.linestyle) for one in look.values()}) == len(NAMES)
    assert len({(one.marker, one.color) for one in look.values()}) == len(NAMES)
    grey = {(one.marker, one.linestyle) for one in look.values()}
    assert len(grey) == len(NAMES), "told apart without colour"


def test_supervision_has_a_line_for_each_method_in_the_order_given(drawn: list[Figure]) -> None:
    order = NAMES[::-1]
    figures.supervision(board(), order, figures.styles(NAMES), "the unlabelled images")
    (axes,) = drawn[0].axes
    assert legend(axes) == order
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0 %\n(ACC)", "1 %", "10 %"]
    line = next(one for one in axes.lines if one.get_label() == "method-03")
    np.testing.assert_allclose(line.get_ydata(), [0.46, 0.56])  # level 0 stands apart
    assert not axes.containers, "one seed: no bars"
    assert axes.get_ylim() == pytest.approx((0.3 - 0.0306, 0.82 + 0.0306), abs=2e-3)


def test_supervision_shows_intervals_over_seeds(drawn: list[Figure]) -> None:
    figures.supervision(board(3, several=True), NAMES, figures.styles(NAMES), "x")
    (axes,) = drawn[0].axes
    assert legend(axes) == NAMES[:3]
    assert len(axes.containers) == 3
    (segments,) = axes.containers[0][2]
    ends = np.array([part[:, 1] for part in segments.get_segments()])
    np.testing.assert_allclose(ends, [[0.25, 0.35], [0.35, 0.45], [0.45, 0.55]])


def test_levels_may_be_counts(drawn: list[Figure]) -> None:
    given = board(2).replace({"level": {"0%": "2000", "1%": "500", "10%": "1000"}})
    figures.supervision(given, NAMES, figures.styles(NAMES), "x")
    labels = [t.get_text() for t in drawn[0].axes[0].get_xticklabels()]
    assert labels == ["500", "1000", "2000"]


def test_a_long_name_is_wrapped_not_cut(drawn: list[Figure]) -> None:
    name = "kmeans-centroid k=500 max_clusters=2000 train_on=centres vote=nearest"
    given = board(1).assign(name=name)
    figures.supervision(given, [name], figures.styles([name]), "x")
    (found,) = legend(drawn[0].axes[0])
    assert found.replace("\n", " ") == name
    assert max(map(len, found.split("\n"))) <= labels.NAME_WIDTH


def test_costs_show_the_fit_and_its_stages(drawn: list[Figure]) -> None:
    figures.costs(board(4), "10%", NAMES, figures.styles(NAMES), "x")
    (axes,) = drawn[0].axes
    assert axes.get_xscale() == "log"
    assert legend(axes) == NAMES[:4]
    ends = {line.get_label(): line.get_xdata()[0] for line in axes.lines}
    assert ends["method-00"] == 5.0  # no time at all for the fit
    assert ends["method-01"] == figures.LEAST_SECONDS  # no stage, and a fit of 0.00001 s
    assert ends["method-03"] == pytest.approx(5.001)
    drawn[0].canvas.draw()
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert "0.1" in ticks
    assert not any("$" in tick for tick in ticks)
    figures.costs(board(4), "0%", NAMES, figures.styles(NAMES), "x")
    assert legend(drawn[1].axes[0]) == NAMES[:3], "the last has no headline at 0 %"


def test_seconds_of_a_gpu_are_told_apart(drawn: list[Figure]) -> None:
    given = board(4)
    given.loc[given["name"] == NAMES[1], "device"] = "cuda"
    figures.costs(given, "10%", NAMES, figures.styles(NAMES), "x")
    assert legend(drawn[0].axes[0]) == [NAMES[0], f"{NAMES[1]} gpu", *NAMES[2:4]]


def test_recalls_are_written_into_their_cells(drawn: list[Figure]) -> None:
    table = pd.DataFrame([[0.25, 1.0], [np.nan, 0.5]], ["one", "two"], ["Trouser", "Bag"])
    figures.recalls(table)
    (axes,) = drawn[0].axes
    assert [t.get_text() for t in axes.texts] == ["0.25", "1.00", "0.50"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["one", "two"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["Trouser", "Bag"]


# --- Pictures ----------------------------------------------------------------------------------


def test_tiles_lie_in_rows_with_white_gaps() -> None:
    images = [[np.full((2, 3), 10 * i + j, np.uint8) for j in range(2)] for i in range(2)]
    sheet = figures.tiled(images)
    g = figures.GAP
    assert sheet.shape == (2 * (2 + g) + g, 2 * (3 + g) + g)
    assert (sheet[g : g + 2, g + 3 + g : g + 3 + g + 3] == 1).all()
    assert (sheet[g + 2 + g : g + 2 + g + 2, g : g + 3] == 10).all()
    assert (sheet[:g] == 255).all()
    assert (sheet[:, -g:] == 255).all()
    assert (sheet == 255).sum() == sheet.size - 4 * 6


COLOURS = {(): 0, (1,): 0, (2,): 0, (3,): 1, (4,): 0}


@pytest.mark.parametrize("channels", COLOURS)
def test_confident_images_are_those_of_the_view(
    channels: tuple[int, ...], drawn: list[Figure]
) -> None:
    X = np.zeros((5, 8, 8, *channels), np.uint8)
    X[3] = 200
    first = Cluster(0, 1, 0.5, 2, (3, 0), (0.9, 0.8))
    view = View("", ("cat", "dog"), (first, Cluster(1, None, None, 0, (), ())))
    png = figures.confident_images(view, X)
    (axes,) = drawn[0].axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0: dog", "1: empty"]
    shown = np.asarray(axes.images[0].get_array())
    assert shown.ndim == 2 + COLOURS[channels]
    g, step = figures.GAP, 8 + figures.GAP
    tiles = [shown[g : g + 8, g + i * step : g + i * step + 8] for i in range(9)]
    assert [float(tile.mean()) for tile in tiles] == [200, 0] + [255] * 7
    assert (shown[g + step :] == 255).all(), "an empty cluster"
    pixels = opened(png)
    assert (pixels == 200).all(axis=2).sum() >= 64 * 5, "shown large"


def test_a_view_of_other_images_is_refused() -> None:
    view = View("", ("a",), (Cluster(0, 0, 1.0, 1, (7,), (1.0,)),))
    with pytest.raises(BenchError, match="names image 7 of 5; delete it"):
        figures.confident_images(view, np.zeros((5, 8, 8), np.uint8))


def test_the_contact_sheet_says_its_rows(drawn: list[Figure]) -> None:
    X = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    figures.augmentations(X)
    (axes,) = drawn[0].axes
    rows = [t.get_text() for t in axes.get_yticklabels()]
    assert rows == ["image", "weak", "strong 1", "strong 2", "strong 3"]
    assert np.asarray(axes.images[0].get_array()).shape == (5 * 10 + 2, 12 * 10 + 2, 3)


# --- Many classes, large images, other scripts --------------------------------------------------


def many(n: int) -> list[str]:
    return [f"class number {i}" for i in range(n)]


@pytest.mark.parametrize(("n", "step"), [(31, 1), (51, 2), (1200, 24)])
def test_recalls_of_many_classes_are_of_bounded_size(
    n: int, step: int, drawn: list[Figure]
) -> None:
    table = pd.DataFrame(np.full((3, n), 0.5), NAMES[:3], many(n))
    assert opened(figures.recalls(table)).shape[1] <= 100 * figures.MOST_INCHES
    (axes,) = drawn[0].axes
    assert [t.get_text() for t in axes.get_xticklabels()] == many(n)[::step]
    assert list(axes.get_xticks()) == [i + 0.5 for i in range(0, n, step)]
    assert not axes.texts, "values"
    said = labels.axis_remark(many(n))
    assert "Values are written for up to 30 classes" in said
    assert (f"Of {n:,} classes one in {step} is named" in said) == (step > 1)


def test_few_classes_need_no_remark() -> None:
    assert labels.axis_remark(many(30)) == ""


@pytest.mark.parametrize("side", [28, 300])
def test_a_sheet_of_many_clusters_is_of_bounded_size(side: int) -> None:
    X = np.zeros((9, side, side, 3), np.uint8)
    X[:, side // 2 :] = 200
    ones = [Cluster(j, j, 0.5, 9, tuple(range(9)), (0.5,) * 9) for j in range(100)]
    view = View("", tuple(f"class {'x' * 300} {j}" for j in range(100)), tuple(ones))
    pixels = opened(figures.confident_images(view, X))
    assert max(pixels.shape) <= figures.MOST_PIXELS
    assert (pixels == 200).all(axis=2).sum() > 9 * 100 * 200, "every image is there"


KANA = ["お", "き", "す"]


@pytest.mark.filterwarnings("error")
def test_classes_are_numbered_where_the_font_lacks_a_character(drawn: list[Figure]) -> None:
    figures.recalls(pd.DataFrame(np.full((2, 3), 0.5), ["m", "ニューロン"], KANA))
    one = Cluster(7, 2, 0.5, 1, (0,), (0.5,))
    empty = Cluster(8, None, None, 0, (), ())
    figures.confident_images(View("", tuple(KANA), (one, empty)), np.zeros((1, 8, 8), np.uint8))
    (recalls,), (sheet,) = (figure.axes for figure in drawn)
    assert [t.get_text() for t in recalls.get_xticklabels()] == ["0", "1", "2"]
    assert recalls.get_yticklabels()[1].get_text() == "U+30CBU+30E5U+30FCU+30EDU+30F3"
    assert [t.get_text() for t in sheet.get_yticklabels()] == ["7: 2", "8: empty"]
    assert labels.axis_remark(KANA) == (
        "Numbers stand for names that the font of the figures lacks: 0 お, 1 き, 2 す."
    )


@pytest.mark.filterwarnings("error")
def test_methods_of_any_name_are_drawn(drawn: list[Figure]) -> None:
    given = board(1).assign(name="近い how=あ")
    look = figures.styles(given["name"])
    figures.supervision(given, ["近い how=あ"], look, "x")
    figures.costs(given, "10%", ["近い how=あ"], look, "x")
    for figure in drawn:
        assert legend(figure.axes[0]) == ["U+8FD1U+3044 how=U+3042"]
