"""``bench report``: one self-contained page of what the records say, and its figures as files.

It reads records and views and never runs a method. Images are shown where the dataset is at hand;
nothing is downloaded for them. The same records give the same bytes.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from bench.core.errors import BenchError
from bench.core.files import write_text
from bench.core.levels import Level
from bench.core.trial import Trial
from bench.records import findings, leaderboard, published, views
from bench.records.findings import Finding
from bench.records.leaderboard import BOARD_KEYS, Board
from bench.records.published import Setting
from bench.records.scoring import FAILURES, Record, error_message
from bench.records.store import Store, flatten_record, is_stale
from bench.records.views import Images, View
from bench.show import figures, labels
from bench.show.figures import Style
from methods.registry import RegistryError

PAGE = "index.html"
MADE_BY = '<meta name="generator" content="bench report">'
MACHINE = ("device", "accelerator", "processor", "cores", "threads", "concurrency", "precision")
COMMIT_DIGITS = 10


@dataclass(frozen=True)
class Picture:
    """A figure: the file's name, what it shows, for who sees it and who does not, and the PNG."""

    name: str
    caption: str
    alt: str
    png: bytes

    @property
    def uri(self) -> str:
        """The whole picture as an address, so that the page needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Clusters:
    """The clusters of one trial: a table, and the most confident images or why there are none."""

    title: str
    view: View
    picture: Picture | None
    remark: str = ""


@dataclass
class Section:
    """All about one board."""

    board: Board
    anchor: str
    lead: str
    pictures: list[Picture] = field(default_factory=list)
    clusters: list[Clusters] = field(default_factory=list)


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
    sections = board_sections(records, store, images)
    sheets = [augmentation_sheet(name, images) for name in images.names]
    found = findings.verify(published.figures(), results)
    page = render(records, sections, sheets, found)
    shown = [sheet.picture for sheet in sheets]
    for section in sections:
        shown += [*section.pictures, *(clusters.picture for clusters in section.clusters)]
    return _write(folder, page, [picture for picture in shown if picture is not None])


def _write(folder: Path, page: str, pictures: Iterable[Picture]) -> Path:
    """Write the page last; figures of an older report that this one lacks are removed."""
    path = folder / PAGE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = path.read_text(encoding="utf-8", errors="replace") if path.exists() else MADE_BY
        if MADE_BY not in old:
            raise BenchError(f"{path} is a page of another kind; give another --output")
        for name in re.findall(r'<figure data-file="([\w.@-]+\.png)"', old):
            (folder / name).unlink(missing_ok=True)
        for picture in pictures:
            (folder / picture.name).write_bytes(picture.png)
        write_text(path, page)
    except OSError as error:
        raise BenchError(
            f"cannot write the report to {folder}: {error.strerror or error}; give another --output"
        ) from error
    return path


def augmentation_sheet(name: str, images: Images) -> Sheet:
    """SimCLR's augmentations on images of this dataset."""
    from methods.toolkit.augment import STRONG, WEAK

    found = images.find(name)
    if isinstance(found, str):
        return Sheet(name, None, found)
    bounds = [
        ", ".join(
            f"{one.name} {getattr(strength, one.name):.3g}"
            for one in fields(strength)
            if getattr(strength, one.name) != one.default
        )
        for strength in (WEAK, STRONG)
    ]
    caption = (
        f"Twelve images of {name}, drawn at random; below each a weak view, as self-labelling "
        f"takes its targets from, and three strong ones, as SimCLR learns from. Weak: {bounds[0]}. "
        f"Strong: {bounds[1]}. Area: the least share that a crop keeps; cutout: the largest side "
        "of the box; flip and grey: probabilities."
    )
    alt = f"Contact sheet of {name}: rows are the image, a weak view and three strong views."
    png = figures.augmentations(found.X)
    return Sheet(name, Picture(f"augmentations-{_slug(name)}.png", caption, alt, png))


def board_sections(records: Sequence[Record], store: Store, images: Images) -> list[Section]:
    """A section for every board, the largest one first."""
    table = leaderboard.aggregate(pd.DataFrame([flatten_record(record) for record in records]))
    variants = table["variant"].map(lambda variant: f" {variant}" if variant else "")
    table = table.assign(name=table["method"] + variants)
    look = figures.styles(table["name"])
    pairs = list(zip(leaderboard.settings(table), leaderboard.boards(table), strict=True))
    sections = []
    for (key, rows), board in sorted(pairs, key=lambda pair: -len(pair[0][1])):
        levels = set(rows["level"])
        of_it = [r for r in records if _key(r) == key[:4] and r["trial"]["level"] in levels]
        anchor = _slug("-".join(key))
        sections.append(_section(anchor, board, rows, of_it, look, store, images))
    return sections


def _key(record: Record) -> tuple[str, ...]:
    trial: Mapping[str, Any] = record["trial"]
    return tuple(trial[name] for name in BOARD_KEYS)


def _section(
    anchor: str,
    board: Board,
    rows: pd.DataFrame,
    records: Sequence[Record],
    look: Mapping[str, Style],
    store: Store,
    images: Images,
) -> Section:
    good = rows[rows["headline_mean"].notna()]
    level = views.reference_level((rows if good.empty else good)["level"])
    section = Section(board, anchor, _lead(good, level))
    if not good.empty:
        order = [row[0].text for row in board.rows]
        section.pictures = _charts(anchor, good, level, order, look)
        recall = _recall_chart(anchor, records, level, order, images)
        section.pictures += [recall] if recall else []
    for trial in views.shown(records, level):
        view = views.read(store, trial)
        if view is not None:
            section.clusters.append(_clusters(trial, view, images, anchor))
    return section


def _lead(good: pd.DataFrame, level: str) -> str:
    """What to take at the level at which methods are compared, in a sentence."""
    if good.empty:
        return "No trial of this board has a headline."
    best = good[good["level"] == level].sort_values(["rank", "name"]).iloc[0]
    seconds = best[["fit_seconds_median", "stage_seconds_median"]].astype(float).sum()
    return (
        f"At {_spaced(level)} labels the best is {best['name']} with {best['headline_mean']:.3f}, "
        f"in {seconds:,.{0 if seconds >= 10 else 1}f} s with all that it needs."
    )


def _charts(
    anchor: str,
    good: pd.DataFrame,
    level: str,
    order: Sequence[str],
    look: Mapping[str, Style],
) -> list[Picture]:
    """The headline against supervision, and what it costs."""
    what = headline_images(str(good.iloc[0]["protocol"]))
    at, charts = _spaced(level), []
    at_level = good[good["level"] == level].sort_values(["rank", "name"])
    scores = ", ".join(f"{r['name']} {r['headline_mean']:.3f}" for _, r in at_level.iterrows())
    alt = f"At {at}, best first: {scores}."
    if good["level"].nunique() > 1:
        charts.append(
            Picture(
                f"supervision-{anchor}.png",
                f"The headline (on {what}) against supervision, methods in the order of their mean "
                "rank. Level 0 stands apart, its headline is ACC. Bars are 95 % intervals over "
                "seeds, where there are several.",
                f"Chart of the headline against the share of labels. {alt}",
                figures.supervision(good, order, look, what),
            )
        )
    charts.append(
        Picture(
            f"cost-{anchor}.png",
            f"What the headline at {at} costs: seconds of the fit alone (hollow) and with its "
            "shared stages, which several trials use but compute once (filled); gpu: seconds of a "
            "GPU, not comparable.",
            f"Chart of seconds against the headline at {at}. {alt}",
            figures.costs(good, level, order, look, what),
        )
    )
    return charts


def _recall_chart(
    anchor: str, records: Sequence[Record], level: str, order: Sequence[str], images: Images
) -> Picture | None:
    """The recall of every class; None where no record has it."""
    table = recall_table(records, level, order)
    if table.empty:
        return None
    trial = records[0]["trial"]
    table.columns = pd.Index(images.class_names(trial["dataset"], table.shape[1]))
    at, what = _spaced(level), headline_images(trial["protocol"])
    remark = labels.axis_remark(list(table.columns))
    return Picture(
        f"recall-{anchor}.png",
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
        if record["status"] != "ok" or trial.level != level:
            continue
        subset = "unlabelled" if trial.protocol == "transductive" else "test"
        if subset in record["subsets"]:
            recall = record["subsets"][subset]["recall"]
            name = f"{trial.method} {trial.variant_text}".strip()
            found.setdefault(name, []).append(recall)
    means = {n: pd.DataFrame(found[n], dtype=float).mean() for n in order if n in found}
    return pd.DataFrame(means).T


def _clusters(trial: Trial, view: View, images: Images, anchor: str) -> Clusters:
    title = f"{trial.method} {trial.variant_text}".strip() + f" at {_spaced(trial.level)}"
    found = images.of(trial)
    if isinstance(found, str):
        return Clusters(title, view, None, found)
    picture = Picture(
        f"clusters-{anchor}-{trial.folder.name}.png",
        f"{title}: of every cluster the images that are most confidently in it, the surest first. "
        f"{labels.class_texts(view.classes)[1]}".strip(),
        f"Images of {len(view.clusters)} clusters, a row for each, labelled with its majority.",
        figures.confident_images(view, found.X),
    )
    return Clusters(title, view, picture)


def render(
    records: Sequence[Record],
    sections: Sequence[Section],
    sheets: Sequence[Sheet],
    found: Sequence[Finding],
) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.show", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["setting"] = _setting
    statuses = Counter(record["status"] for record in records)
    return environment.get_template("report.html").render(
        sections=sections,
        sheets=sheets,
        findings=[f for f in found if f.mean is not None],
        not_run=[f for f in found if f.mean is None],
        verdicts=findings.count(found),
        explanation=findings.EXPLANATION,
        note=findings.note,
        failures=[_failure(record) for record in records if record["status"] in FAILURES],
        statuses=sorted(statuses.items()),
        n_methods=len({record["trial"]["method"] for record in records}),
        measured=measured(records),
    )


def _setting(setting: Setting) -> str:
    """How a published figure is measured, in words."""
    method = f"{setting.method} {setting.parameters}".strip()
    return f"{method} · {_spaced(setting.level)} {setting.selection} · {setting.protocol}"


def _failure(record: Record) -> dict[str, str]:
    trial = Trial.from_json(record["trial"])
    board = " · ".join(getattr(trial, key) for key in BOARD_KEYS)
    message = error_message(record) or "no message"
    return {"trial": trial.title, "board": board, "status": record["status"], "message": message}


def measured(records: Iterable[Record]) -> dict[str, Any]:
    """Where and with what the records were made: each kind with its number of records.

    Returns
    -------
    dict with ``machines`` (in the order of ``machine_heads``), ``versions``, ``commits`` and
    ``data``, each a list of a kind and its number of records; and ``stale``: how many records an
    older version of their method or of a stage has made.
    """
    machines: Counter[tuple[str, ...]] = Counter()
    versions: Counter[tuple[tuple[str, str], ...]] = Counter()
    commits: Counter[tuple[str, str]] = Counter()
    data: Counter[tuple[str, str]] = Counter()
    stale = 0
    for record in records:
        found = record.get("environment") or {}
        machines[tuple(_text(found.get(name)) for name in MACHINE)] += 1
        versions[tuple(sorted((found.get("versions") or {}).items()))] += 1
        sha = found.get("commit")
        state = "with changes" if found.get("dirty") else "as committed"
        commits[(sha[:COMMIT_DIGITS], state) if sha else ("unknown", "")] += 1
        data[(record["trial"]["dataset"], record["trial"]["dataset_digest"][:16])] += 1
        stale += _is_ok(record) and _is_stale(record)
    return {
        "machine_heads": MACHINE,
        "machines": sorted(machines.items()),
        "versions": [
            (", ".join(f"{name} {number}" for name, number in one) or "unknown", n)
            for one, n in sorted(versions.items())
        ],
        "commits": sorted(commits.items()),
        "data": sorted(data.items()),
        "stale": stale,
    }


def _is_stale(record: Record) -> bool:
    try:
        return is_stale(record)
    except RegistryError:  # a plugin that is not here: its version is not known
        return False


def _is_ok(record: Record) -> bool:
    return bool(record["status"] == "ok")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _spaced(level: str) -> str:
    return f"{level[:-1]} %" if level.endswith("%") else f"{Level.parse(level).amount:,}"


def _slug(text: str) -> str:
    """`text` as a part of a file's name: what is no letter, digit, dot or _ becomes a dash."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")
