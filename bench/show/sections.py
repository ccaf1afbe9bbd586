"""A section of the page for every board: its table as the page has it, its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from bench.core.levels import Level
from bench.core.trial import Trial
from bench.records import leaderboard, published, views
from bench.records.leaderboard import BOARD_KEYS, Board, Cell
from bench.records.published import Figure as PublishedFigure
from bench.records.scoring import Record
from bench.records.views import Images
from bench.show import charts, figures, labels
from bench.show.confusion import headline_subset, name_of
from bench.show.picture import Picture, drawn, slug, spaced
from bench.show.style import Style
from methods import registry
from methods.registry import RegistryError


@dataclass(frozen=True)
class Column:
    """A column of a board: its head, and the level that it is about, if it is about one."""

    head: str
    level: str = ""
    n_labels: str = ""


@dataclass(frozen=True)
class Entry:
    """A cell as the page has it: what is read, and the numbers that it is sorted and filtered by.

    `value` is None where nothing was measured, `seeds` where the cell is about no level.
    """

    cell: Cell
    level: str = ""
    value: float | None = None
    seeds: int | None = None


@dataclass(frozen=True)
class Line:
    """A row of a board: the method and its variant, its family, its card, its other cells."""

    name: str
    family: str
    card: str
    entries: list[Entry]


@dataclass
class Section:
    """All about one board.

    `key` is dataset, protocol, selection, schedule, and perhaps which levels. `level` is that at
    which methods are compared.
    """

    key: tuple[str, ...]
    board: Board
    anchor: str
    rows: pd.DataFrame
    records: list[Record]
    level: str
    lead: str = ""
    folded: bool = False
    columns: list[Column] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    @property
    def order(self) -> list[str]:
        """The names, as the board has them."""
        return [row[0].text for row in self.board.rows]

    @property
    def good(self) -> pd.DataFrame:
        """The rows that have a headline."""
        return self.rows[self.rows["headline_mean"].notna()]


def board_sections(
    records: Sequence[Record], table: pd.DataFrame, cards: Mapping[str, str]
) -> list[Section]:
    """A section for every board, the largest one first; without figures yet.

    Parameters
    ----------
    table : rows of the leaderboard, with a column ``name``.
    cards : the anchor of each name's card.
    """
    pairs = zip(leaderboard.settings(table), leaderboard.boards(table), strict=True)
    return [
        _section(key, board, rows, records, cards)
        for (key, rows), board in sorted(pairs, key=lambda pair: -len(pair[0][1]))
    ]


def _section(
    key: tuple[str, ...],
    board: Board,
    rows: pd.DataFrame,
    records: Sequence[Record],
    cards: Mapping[str, str],
) -> Section:
    levels = set(rows["level"])
    of_it = [r for r in records if _key(r) == key[:4] and r["trial"]["level"] in levels]
    good = rows[rows["headline_mean"].notna()]
    level = views.reference_level((rows if good.empty else good)["level"])
    section = Section(key, board, slug("-".join(key)), rows, of_it, level)
    section.folded = is_replication(key, rows)
    section.columns = [_column(head, rows) for head in board.columns]
    numbers = rows.set_index(["name", "level"])
    compared = rows[rows["rank"].notna()].groupby("level")["name"].nunique()
    for first, *cells in board.rows:
        entries = [
            _entry(first.text, column, cell, numbers, compared.get(column.level, 0) > 1)
            for column, cell in zip(section.columns[1:], cells, strict=True)
        ]
        family = family_of(str(rows.loc[rows["name"] == first.text, "method"].iloc[0]))
        section.lines.append(Line(first.text, family, cards[first.text], entries))
    return section


def is_replication(key: Sequence[str], rows: pd.DataFrame) -> bool:
    """Whether at least half of a board's rows are there to measure a published figure."""
    figures = [one.setting for one in published.figures()]
    keys = ("dataset", "protocol", "selection", "schedule", "method", "level")
    known = {tuple(getattr(setting, x) for x in keys) for setting in figures}
    at = zip(rows["method"], rows["level"], strict=True)
    return 2 * sum((*key[:4], *row) in known for row in at) >= len(rows)


def filters(sections: Sequence[Section]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """What boards can be narrowed to: the name of each choice, its label, values and their texts.

    A choice of one value is none.
    """
    levels = {column.level for section in sections for column in section.columns if column.level}
    seeds = {int(n) for section in sections for n in section.rows["n_seeds"] if n > 1}
    found = [("level", "level", [(x, spaced(x)) for x in sorted(levels, key=Level.parse)])]
    for name in ("protocol", "selection", "schedule"):
        place = BOARD_KEYS.index(name)
        values = sorted({section.key[place] for section in sections})
        found.append((name, name, [(x, x) for x in values]))
    families = sorted({line.family for section in sections for line in section.lines} - {""})
    found.append(("family", "family", [(x, x) for x in families]))
    choices = [choice for choice in found if len(choice[2]) > 1]
    most = [(str(n), f"{n} or more") for n in sorted(seeds)]
    return choices + ([("seeds", "seeds", most)] if most else [])


def _key(record: Record) -> tuple[str, ...]:
    trial: Mapping[str, Any] = record["trial"]
    return tuple(trial[name] for name in BOARD_KEYS)


def _column(head: str, rows: pd.DataFrame) -> Column:
    at = rows[rows["level"] == head]
    if at.empty:
        return Column(head)
    counts = at["n_labels"].dropna()
    known = "" if counts.empty or Level.parse(head).is_count else f"{int(counts.max()):,}"
    return Column(spaced(head), head, known)


def _entry(
    name: str, column: Column, cell: Cell, numbers: pd.DataFrame, compared: bool
) -> Entry:
    """A cell of a row; where one method alone was measured, none is the best."""
    if not column.level:
        text = cell.text.replace(",", "")
        return Entry(cell, value=float(text) if text else None)
    if (name, column.level) not in numbers.index:
        return Entry(cell, column.level, seeds=0)
    row = numbers.loc[(name, column.level)]
    value = None if pd.isna(row["headline_mean"]) else float(row["headline_mean"])
    return Entry(replace(cell, best=compared and row["rank"] is not pd.NA and bool(cell.best)), column.level, value, int(row["n_seeds"]))


def family_of(method: str) -> str:
    """The family that a method says it is of; empty where it says none, or is not here."""
    try:
        return registry.get(method).tags.family
    except RegistryError:  # a plugin that is not here
        return ""


def draw(section: Section, look: Mapping[str, Style], images: Images) -> None:
    """Put the figures of a board into its section."""
    if section.good.empty:
        return
    section.pictures = [*_curves(section, look), *_costs(section)]
    recall = recall_chart(section, images)
    section.pictures += [recall] if recall else []


def _curves(section: Section, look: Mapping[str, Style]) -> list[Picture]:
    """The headline against supervision, and what is gained over supervised methods."""
    good, order = section.good, section.order
    if good["level"].nunique() < 2:
        return []
    what = headline_images(section.key[1])
    curves = published_curves(section.key)
    sources = " Dashed: what the sources publish." if curves else ""
    found = [
        drawn(
            f"supervision-{section.anchor}",
            f"Headline against supervision, {section.board.title}",
            _said(section),
            f"The headline (on {what}) against supervision; level 0 stands apart, its headline is "
            f"ACC. Bands and bars are 95 % intervals over seeds, where there are several.{sources}",
            lambda about: charts.supervision(good, order, look, what, about, curves),
        )
    ]
    if good["gain_mean"].notna().any():
        found.append(
            drawn(
                f"gain-{section.anchor}",
                f"Gain over supervised methods, {section.board.title}",
                _said(section),
                "What each method gains over the best supervised method with the same labels, "
                "paired by seed; 95 % intervals where there are several seeds.",
                lambda about: charts.gains(good, order, look, about),
            )
        )
    return found


def _said(section: Section) -> str:
    """The headlines at the level at which methods are compared, for who does not see a figure."""
    at = section.good[section.good["level"] == section.level]
    best_first = at.sort_values(["headline_mean", "name"], ascending=[False, True])
    scores = ", ".join(f"{r['name']} {r['headline_mean']:.3f}" for _, r in best_first.iterrows())
    return f"At {spaced(section.level)}, best first: {scores}."


def published_curves(key: Sequence[str]) -> list[PublishedFigure]:
    """The published figures that are curves on this board: one value at each of several levels."""
    by_curve: dict[tuple[str, ...], list[PublishedFigure]] = {}
    for figure in published.figures():
        at = figure.setting
        here = (at.dataset, at.protocol, at.selection, at.schedule) == tuple(key[:4])
        if here and at.metric in ("acc", "accuracy") and not figure.other_reading:
            by_curve.setdefault((figure.source, at.metric, at.subset), []).append(figure)
    return [
        figure
        for of_it in by_curve.values()
        if 1 < len(of_it) == len({figure.setting.level for figure in of_it})
        for figure in of_it
    ]


def main_figure(key: Sequence[str], sections: Sequence[Section], look: Mapping[str, Style]) -> Picture | None:
    """The headline against the number of labels, of all levels of one setting."""
    here = [section for section in sections if section.key[:4] == tuple(key)]
    rows = pd.concat([section.rows for section in here])
    good = rows[rows["rank"].notna()]
    if good["level"].nunique() < 2:
        return None
    order = list(dict.fromkeys(name for section in here for name in section.order))
    what = headline_images(key[1])
    return drawn(
        "labels-" + slug("-".join(key)),
        "Headline against the number of labels",
        _said(here[0]),
        f"The headline (on {what}) against the number of labels, to scale. Without labels it is "
        "ACC. Bands and bars are 95 % intervals over seeds, where there are several. Variants, which "
        "are not ranked, are left out.",
        lambda about: charts.supervision_to_scale(good, order, look, what, about),
    )


def _costs(section: Section) -> list[Picture]:
    """What the headline costs."""
    good, level, order = section.good, section.level, section.order
    what, at = headline_images(section.key[1]), spaced(section.level)
    look = figures.styles(order)
    return [
        Picture(
            f"cost-{section.anchor}.png",
            f"What the headline at {at} costs: seconds of the fit alone (hollow) and with its "
            "shared stages, which several trials use but compute once (filled); gpu: seconds of a "
            "GPU, not comparable.",
            f"Chart of seconds against the headline at {at}. {_said(section)}",
            figures.costs(good, level, order, look, what),
        )
    ]


def recall_chart(section: Section, images: Images) -> Picture | None:
    """The recall of every class; None where no record has it."""
    table = recall_table(section.records, section.level, section.order)
    if table.empty:
        return None
    table.columns = pd.Index(images.class_names(section.key[0], table.shape[1]))
    at, what = spaced(section.level), headline_images(section.key[1])
    remark = labels.axis_remark(list(table.columns))
    return Picture(
        f"recall-{section.anchor}.png",
        f"Recall of every class at {at}, on {what}, mean over seeds. {remark}".strip(),
        f"Heat map of recall, methods by classes. On average {table.mean().idxmin()} is lowest.",
        figures.recalls(table),
    )


def headline_images(protocol: str) -> str:
    """On which images the headline of a protocol is."""
    return "the unlabelled images" if protocol == "transductive" else "the test images"


def recall_table(records: Iterable[Record], level: str, order: Sequence[str]) -> pd.DataFrame:
    """Recall ``(methods, classes)`` at a level, on the headline's images, mean over seeds.

    Rows are in this order, as far as there is a record with recall; columns are classes. Empty
    where there is none.
    """
    found: dict[str, list[list[float | None]]] = {}
    for record in records:
        trial = Trial.from_json(record["trial"])
        subset = headline_subset(trial.protocol)
        if record["status"] == "ok" and trial.level == level and subset in record["subsets"]:
            recall = record["subsets"][subset]["recall"]
            found.setdefault(name_of(trial), []).append(recall)
    means = {n: pd.DataFrame(found[n], dtype=float).mean() for n in order if n in found}
    return pd.DataFrame(means).T
