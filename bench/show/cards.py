"""The card of a method: what it is, where it comes from, what the records say of it alone."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.core.trial import Trial
from bench.records import projections, views
from bench.records.scoring import Record
from bench.records.standings import SUPERVISED
from bench.records.store import Store
from bench.records.views import Images, View
from bench.show import facts, gallery
from bench.show.charts import spaced
from bench.show.confusion import Table, name_of
from bench.show.picture import Picture, slug
from bench.show.sections import Section
from methods import registry
from methods.registry import Entry, RegistryError

HEADS = ("level", "labels", "seeds", "headline", "95 %", "fit s", "shared s", "MiB", "device")


@dataclass(frozen=True)
class Clusters:
    """The clusters of one trial: a table, and the most confident images or why there are none."""

    title: str
    level: str
    board: str
    view: View
    picture: Picture | None
    remark: str = ""


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix of one trial, all its seeds together, as a page without a script has it.

    `board` and `level` say which of the tables of the page it is.
    """

    board: str
    title: str
    level: str
    classes: list[str]
    table: Table


@dataclass(frozen=True)
class Scores:
    """What a method did and cost on one board: a row of texts for each level, under `HEADS`."""

    board: str
    anchor: str
    rows: list[list[str]]


@dataclass
class Card:
    """All about one method, or one variant of it."""

    name: str
    anchor: str
    family: str
    summary: str
    text: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    takes: str = ""
    origin: str = ""
    params: list[tuple[str, list[str]]] = field(default_factory=list)
    schedules: list[str] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    confusion: Confusion | None = None
    clusters: list[Clusters] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)


def anchors(names: Iterable[str]) -> dict[str, str]:
    """A different anchor for the card of every name."""
    seen: Counter[str] = Counter()
    found = {}
    for name in names:
        plain = f"card-{slug(name) or 'method'}"
        seen[plain] += 1
        found[name] = plain if seen[plain] == 1 else f"{plain}.{seen[plain]}"
    return found


def describe(name: str, method: str, anchor: str, records: Sequence[Record]) -> Card:
    """What a method is, by itself and by the parameters that its records have."""
    try:
        entry = registry.get(method)
    except RegistryError:
        missing = "A plugin that is not here: its records are, its code is not."
        card = Card(name, anchor, "", missing)
    else:
        first, *text = paragraphs(inspect.getdoc(entry.cls) or "")
        card = Card(name, anchor, entry.tags.family, first, text, references(entry))
        card.takes = takes(entry)
        card.origin = entry.cls.__module__
    card.schedules, card.params = parameters(records)
    card.failures = facts.failures(records)
    return card


def takes(entry: Entry) -> str:
    """What a method learns from, in words; empty where nobody knows."""
    tags = entry.tags
    if not tags.uses_labels:
        return "unlabelled images alone"
    if not tags.family:  # as `bench.records.standings` has it: nobody knows
        return ""
    alone = tags.family == SUPERVISED
    return "labelled images alone" if alone else "labelled and unlabelled images"


def paragraphs(doc: str) -> list[str]:
    r"""The text of a numpy docstring before its first section, each paragraph as one line.

    Examples
    --------
    >>> paragraphs("Says it.\n\nMore\nof it.\n\nParameters\n----------\nx : y")
    ['Says it.', 'More of it.']
    """
    before = re.split(r"\n[A-Z][\w ]+\n-{3,}\n", doc)[0]
    found = [" ".join(part.split()) for part in before.split("\n\n")]
    return [part.replace("``", "").replace("`", "") for part in found if part] or [""]


def references(entry: Entry) -> list[str]:
    """The sources that the class names, or its module: the section References of the docstring."""
    module = sys.modules.get(entry.cls.__module__)
    for doc in (inspect.getdoc(entry.cls) or "", inspect.getdoc(module) or ""):
        section = re.search(
            r"(?:^|\n)References\n-+\n(.*?)(?:\n\n[A-Z]\w+\n-+\n|$)", doc, re.DOTALL
        )
        if section:
            lines = section[1].replace("\n\n", "\n")
            return [" ".join(one.split()) for one in re.split(r"(?<=\.)\n", lines) if one.strip()]
    return []


def parameters(records: Sequence[Record]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The schedules that there are records of, and every parameter with its value in each.

    Where records of one schedule differ, as a number of clusters may, all values are named.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    for record in records:
        trial = record["trial"]
        for name, value in trial["params"].items():
            text = value if isinstance(value, str) else json.dumps(value)
            found.setdefault(name, {}).setdefault(trial["schedule"], {})[text] = None
    schedules = sorted({record["trial"]["schedule"] for record in records})
    rows = [
        (name, [", ".join(values.get(schedule, {})) for schedule in schedules])
        for name, values in sorted(found.items())
    ]
    return schedules, rows


def scores(section: Section, name: str) -> Scores:
    """What the method of this name did on one board, and what it cost there."""
    rows = section.rows[section.rows["name"] == name]
    return Scores(section.board.title, section.anchor, [_score(row) for _, row in rows.iterrows()])


def _score(row: pd.Series) -> list[str]:
    def text(value: Any, form: str) -> str:
        return "" if pd.isna(value) else format(float(value), form)

    interval = [text(row[f"headline_{end}"], ".3f") for end in ("low", "high")]
    return [
        spaced(row["level"]),
        text(row["n_labels"], ",.0f"),
        str(row["n_seeds"]),
        text(row["headline_mean"], ".4f"),
        " to ".join(interval) if all(interval) else "",
        text(row["fit_seconds_median"], ",.1f"),
        text(row["stage_seconds_median"], ",.1f"),
        text(row["peak_memory_mib"], ",.0f"),
        row["device"] or "",
    ]


def confusion_of(
    section: Section, name: str, tables: Mapping[str, Mapping[str, Table]], classes: Sequence[str]
) -> Confusion | None:
    """The confusion matrix of a method at the board's level, or at the first that it has."""
    levels = tables.get(name)
    if not levels:
        return None
    level = section.level if section.level in levels else next(iter(levels))
    title = section.board.title
    return Confusion(section.anchor, title, level, list(classes), levels[level])


def clusters_of(section: Section, store: Store, images: Images) -> list[tuple[Trial, Clusters]]:
    """The clusters of a board's methods, each with its trial."""
    found = []
    for trial in views.shown(section.records, section.level):
        view = views.read(store, trial)
        if view is not None:
            found.append((trial, _clusters(trial, view, images, section)))
    return found


def reconstructions_of(
    records: Iterable[Record], store: Store, images: Images
) -> Iterator[tuple[str, Picture]]:
    """What the autoencoders of methods reconstruct, each picture with the name of its card."""
    for of_it in projections.shown(records).values():
        trials = [Trial.from_json(record["trial"]) for record in of_it]
        there = {trial.level: views.read(store, trial) for trial in trials}
        found = {level: view for level, view in there.items() if view and view.reconstructed}
        data = images.of(trials[0])
        if found and not isinstance(data, str):
            yield name_of(trials[0]), gallery.reconstructions(found, trials[0], data)


def _clusters(trial: Trial, view: View, images: Images, section: Section) -> Clusters:
    title, board = f"{name_of(trial)} at {spaced(trial.level)}", section.board.title
    found = images.of(trial)
    if isinstance(found, str):
        return Clusters(title, trial.level, board, view, None, found)
    picture = gallery.clusters(trial, view, found, section.anchor)
    return Clusters(title, trial.level, board, view, picture)
