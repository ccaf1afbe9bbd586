"""``bench report``: one self-contained page of what the records say, and its figures as files.

It reads records and views and never runs a method. Images are shown where the dataset is at hand;
nothing is downloaded for them. The same records give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from bench.core.errors import BenchError
from bench.core.files import write_text
from bench.core.texts import printable
from bench.records import findings, leaderboard, published
from bench.records.findings import Finding
from bench.records.published import Setting
from bench.records.scoring import Record
from bench.records.store import Store, flatten_record
from bench.records.views import Images
from bench.show import (
    answers,
    cards,
    confusion,
    facts,
    gallery,
    projections,
    sections,
    style,
    svg,
)
from bench.show.cards import Card
from bench.show.charts import spaced
from bench.show.confusion import Table
from bench.show.picture import Picture
from bench.show.sections import Section

PAGE = "index.html"
MADE_BY = '<meta name="generator" content="bench report">'


@dataclass(frozen=True)
class Sheet:
    """The augmentations on the images of one dataset, or why they are not shown."""

    dataset: str
    picture: Picture | None
    remark: str = ""


def write_report(
    results: str | Path, output: str | Path | None = None, sources: Sequence[str] = ()
) -> Path:
    """Write the page and its figures.

    Parameters
    ----------
    results : a results folder.
    output : the folder to write to; by default ``<results>/report``.
    sources : `.npz` files of which there are records, for their images.

    Returns
    -------
    The path of the page.

    Raises
    ------
    BenchError : no such folder, no records in it, a file in it that cannot be read, a source that
        is no dataset, or `output` cannot be written or holds another page.
    """
    store = Store(Path(results))
    if not store.results.is_dir():
        raise BenchError(f"there is no results folder {results}; `bench run` makes one")
    records = list(store)
    if not records:
        raise BenchError(f"there are no records in {results}; `bench run --all` makes some")
    folder = store.results / "report" if output is None else Path(output)
    images = Images(records, sources)
    trials = pd.DataFrame([flatten_record(record) for record in records])
    content = contents(records, trials, store, images)
    found = findings.verify(published.figures(), results)
    content["verdict_chart"] = gallery.verdict_chart(found)
    page = render(records, content, found)
    return _write(folder, page, pictures(content))


def contents(
    records: Sequence[Record], trials: pd.DataFrame, store: Store, images: Images
) -> dict[str, Any]:
    """What the templates show, but for published figures and machines."""
    table = named(leaderboard.aggregate(trials))
    anchors = cards.anchors(dict.fromkeys(table["name"]))
    boards = sections.board_sections(records, table, anchors)
    look = style.styles(table["name"])
    tables = [confusion.tables(board.records) for board in boards]
    for board, found in zip(boards, tables, strict=True):
        board.pictures = gallery.of_board(board, look, images, found)
        board.lead = answers.lead(table, trials, board)
    given = answers.first_screen(table, trials, anchors)
    method_cards = _cards(records, boards, tables, anchors, store, images)
    for card in method_cards:
        card.pictures[:0] = _card_pictures(card, boards, look)
    main = [board for board in boards if board.key[:4] == given.board]
    return {
        "first": given,
        "main_figure": given.board and gallery.main_figure(given.board, boards, look),
        "sections": boards,
        "filters": sections.filters(boards),
        "cards": method_cards,
        "gaps": [
            gap
            for board in boards
            if not board.folded
            for gap in facts.gaps(board.board.title, board.rows, board.order)
        ],
        "absent": facts.absent({str(name) for board in main for name in board.rows["method"]}),
        "sheets": [augmentation_sheet(name, images) for name in images.names],
        "data": {
            "advice": given.data,
            "boards": [
                _confusion_data(board, found, images)
                for board, found in zip(boards, tables, strict=True)
            ],
            "levels": {level: spaced(level) for level in dict.fromkeys(table["level"])},
        },
        "rerun": "\n".join(facts.rerun_command(board.key, board.rows) for board in boards),
    }


def _confusion_data(board: Section, tables: dict[str, dict[str, Table]], images: Images) -> Any:
    return {
        "anchor": board.anchor,
        "title": board.board.title,
        "classes": _classes(board, tables, images),
        "confusion": tables,
    }


def _classes(board: Section, tables: dict[str, dict[str, Table]], images: Images) -> list[str]:
    sizes = {len(table) for levels in tables.values() for table in levels.values()}
    return images.class_names(board.key[0], max(sizes)) if sizes else []


def named(table: pd.DataFrame) -> pd.DataFrame:
    """The leaderboard with a column ``name``: the method and what distinguishes its variant."""
    variants = table["variant"].map(lambda variant: f" {variant}" if variant else "")
    return table.assign(name=table["method"] + variants)


def pictures(content: dict[str, Any]) -> list[Picture]:
    """Every picture of the page, each once."""
    shown: list[Picture | None] = [content["main_figure"], content["verdict_chart"]]
    shown += [sheet.picture for sheet in content["sheets"]]
    for section in content["sections"]:
        shown += section.pictures
    for card in content["cards"]:
        shown += [*card.pictures, *(one.picture for one in card.clusters)]
    return [picture for picture in shown if picture is not None]


def _write(folder: Path, page: str, pictures: Iterable[Picture]) -> Path:
    """Write the page last; figures of an older report that this one lacks are removed."""
    path = folder / PAGE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = path.read_text(encoding="utf-8", errors="replace") if path.exists() else MADE_BY
        if MADE_BY not in old:
            raise BenchError(f"{path} is a page of another kind; give another --output")
        for name in re.findall(r'<figure data-file="([\w.@-]+\.(?:png|svg))"', old):
            (folder / name).unlink(missing_ok=True)
        for picture in pictures:
            (folder / picture.name).write_bytes(picture.file)
        write_text(path, page)
    except OSError as error:
        raise BenchError(
            f"cannot write the report to {folder}: {error.strerror or error}; give another --output"
        ) from error
    return path


def _cards(
    records: Sequence[Record],
    boards: Sequence[Section],
    tables: Sequence[dict[str, dict[str, Table]]],
    anchors: dict[str, str],
    store: Store,
    images: Images,
) -> list[Card]:
    """A card for every method and variant, by family and name."""
    by_name: dict[str, list[Record]] = {name: [] for name in anchors}
    for record in records:
        by_name[confusion.name_of_record(record)].append(record)
    made = {
        name: cards.describe(name, of_it[0]["trial"]["method"], anchors[name], of_it)
        for name, of_it in by_name.items()
    }
    shown: set[str] = set()
    for board, found in zip(boards, tables, strict=True):
        classes = _classes(board, found, images)
        for name in board.order:
            card = made[name]
            card.scores.append(cards.scores(board, name))
            card.confusion = card.confusion or cards.confusion_of(board, name, found, classes)
        for trial, clusters in cards.clusters_of(board, store, images):
            if trial.identity not in shown:  # boards of one setting may share it
                made[confusion.name_of(trial)].clusters.append(clusters)
                shown.add(trial.identity)
    for one in projections.shown(records, store):
        if one.picture:
            made[one.name].pictures.append(one.picture)
        else:
            made[one.name].notes.append(one.remark)
    for name, picture in cards.reconstructions_of(records, store, images):
        made[name].pictures.append(picture)
    return sorted(made.values(), key=lambda card: (card.family, card.name))


def _card_pictures(card: Card, boards: Sequence[Section], look: gallery.Look) -> list[Picture]:
    """The curve and the training of a method, each on the first board that has it."""
    anchor = card.anchor.removeprefix("card-")
    theirs = [board for board in boards if card.name in board.order]
    rows = pd.concat([board.rows for board in boards if board.key[:4] == theirs[0].key[:4]])
    trainings = (
        gallery.training(
            card.name,
            anchor,
            [one for one in board.records if confusion.name_of_record(one) == card.name],
            look[card.name],
        )
        for board in theirs
    )
    first = next(filter(None, trainings), None)
    return [one for one in (gallery.curve(card.name, anchor, rows, look), first) if one]


def augmentation_sheet(name: str, images: Images) -> Sheet:
    """SimCLR's augmentations on images of this dataset."""
    found = images.find(name)
    if isinstance(found, str):
        return Sheet(name, None, found)
    return Sheet(name, gallery.augmentations(found))


def render(
    records: Sequence[Record],
    content: dict[str, Any],
    found: Sequence[Finding],
) -> str:
    """The page as HTML, control codes written out."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.show", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"setting": _setting, "spaced": spaced}
    script = _template("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    statuses = Counter(record["status"] for record in records)
    page = environment.get_template("report.html").render(
        **content,
        style=Markup(svg.css() + "\n" + _template("page.css")),
        script=Markup(script),
        script_digest=digest,
        findings=[f for f in found if f.mean is not None],
        not_run=[f for f in found if f.mean is None],
        verdicts=findings.count(found),
        explanation=findings.EXPLANATION,
        note=findings.note,
        failures=facts.failures(records),
        score_heads=cards.HEADS,
        citation=facts.citation(),
        statuses=sorted(statuses.items()),
        n_methods=len({record["trial"]["method"] for record in records}),
        measured=facts.measured(records),
    )
    return printable(page)


def _template(name: str) -> str:
    return (resources.files("bench.show") / "templates" / name).read_text(encoding="utf-8")


def _setting(setting: Setting) -> str:
    """How a published figure is measured, in words."""
    method = f"{setting.method} {setting.parameters}".strip()
    return f"{method} · {spaced(setting.level)} {setting.selection} · {setting.protocol}"
