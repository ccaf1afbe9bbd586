"""A section of the page for every board, with its table as the page has it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from bench.core.levels import Level
from bench.records import leaderboard, published, views
from bench.records.leaderboard import BOARD_KEYS, Board, Cell
from bench.records.scoring import Record
from bench.show.charts import spaced
from bench.show.picture import Picture, slug
from bench.show.style import family_of

Numbers = Mapping[tuple[str, str], Mapping[Hashable, Any]]


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
    numbers = {(row["name"], row["level"]): row for row in rows.to_dict("records")}
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


def _entry(name: str, column: Column, cell: Cell, numbers: Numbers, compared: bool) -> Entry:
    """A cell of a row; where one method alone was measured, none is the best."""
    if not column.level:
        text = cell.text.replace(",", "")
        return Entry(cell, value=float(text) if text else None)
    row = numbers.get((name, column.level))
    if row is None:
        return Entry(cell, column.level, seeds=0)
    mean = float(row["headline_mean"])
    value = None if math.isnan(mean) else mean
    best = replace(cell, best=cell.best and compared)
    return Entry(best, column.level, value, int(row["n_seeds"]))


def headline_images(protocol: str) -> str:
    """On which images the headline of a protocol is."""
    return "the unlabelled images" if protocol == "transductive" else "the test images"
