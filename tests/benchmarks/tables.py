"""A session's measurements as tables (terminal, Markdown) and as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import re
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.core import machine
from bench.core.files import write_text
from benchmarks.harness import WHOLE, Comparison, Growth, Ledger, Series

SCHEMA = 1
CODE = ("bench", "methods", "tests/benchmarks")  # what a measurement depends on
PEER_PACKAGES = ("tensorflow-cpu", "tensorflow", "keras", "faiss-cpu")  # scikit-learn: a dependency
COLUMNS = ("work", "ours", "time", "fastest peer", "its time", "ratio", "target", "also timed")
Rows = list[list[str]]


def comparison_rows(comparison: Comparison) -> Rows:
    """A row of cells, as `COLUMNS` heads them, for every part and every way of ours."""
    rows = []
    for part in comparison.parts:
        for name, series in comparison.ours.items():
            peers = comparison.ranked_peers(part)
            fastest = comparison.peers[peers[0]] if peers else None
            compared = bool(peers) or not comparison.peers  # elsewhere figures say nothing
            rows.append(
                [
                    f"{comparison.work}: {part}" if part != WHOLE else comparison.work,
                    name,
                    _time(series, part) + (_figures(series) if compared else ""),
                    peers[0] if peers else "",
                    _time(fastest, part) + _figures(fastest) if fastest else "",
                    f"{comparison.ratio(part, name, peers[0]):.2f}" if peers else "",
                    _target(comparison, part, name),
                    "; ".join(_also(comparison, part, name, peer) for peer in peers[1:]),
                ]
            )
    return rows


def growth_tables(growths: list[Growth]) -> list[tuple[list[str], Rows]]:
    """A table for every set of sizes: its column heads and, for every part of every work, a row.

    Each cell has the time and, in brackets, what it is times what the smallest size lets expect.
    """
    tables: dict[tuple[str, ...], Rows] = {}
    for growth in growths:
        for part in growth.parts:
            cells = [f"{growth.work}: {part}" if part != WHOLE else growth.work]
            for size, series in growth.sizes.items():
                cells.append(f"{_time(series, part)} ({growth.relative(part, size):.2f})")
            tables.setdefault(tuple(growth.sizes), []).append(cells)
    return [(["work", *sizes], rows) for sizes, rows in tables.items()]


def markdown(ledger: Ledger, facts: dict[str, Any]) -> str:
    """The tables as Markdown, with what they were measured on."""
    blocks = [f"# Timings of {facts['date'][:10]}", _machine_text(facts)]
    if ledger.comparisons:
        rows = [row for one in ledger.comparisons for row in comparison_rows(one)]
        blocks += [_markdown_table(list(COLUMNS), rows), *EXPLANATIONS]
    if ledger.growths:
        blocks += ["## Cost against size", GROWTH_EXPLANATION]
        blocks += [_markdown_table(heads, rows) for heads, rows in growth_tables(ledger.growths)]
    if ledger.notes:
        blocks += ["## Left out", "\n".join(f"- {note}" for note in ledger.notes)]
    return "\n\n".join(blocks) + "\n"


EXPLANATIONS = (
    "Times are medians over rounds in which all contestants of a row took turns; ± is half the "
    "range of the rounds. ratio: how many times as fast as the fastest peer; in brackets under "
    "“also timed”, as the other peers. Targets: against the fastest peer or the one that is named.",
)
GROWTH_EXPLANATION = (
    "In brackets: the time divided by what the first column lets expect, for growth in proportion "
    "to the size, or for none where the size is a level. 1 is as expected, below 1 is cheaper."
)


def show(ledger: Ledger, console: Console) -> None:
    """Print the tables."""
    if ledger.comparisons:
        table = Table(title="Against peers", title_justify="left", show_lines=True)
        for column in COLUMNS:
            table.add_column(column)
        for comparison in ledger.comparisons:
            for row in comparison_rows(comparison):
                table.add_row(*row)
        console.print(table)
    for heads, rows in growth_tables(ledger.growths):
        table = Table(title="Cost against size", title_justify="left")
        for column in heads:
            table.add_column(column)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for note in ledger.notes:
        console.print(note, markup=False, highlight=False)


def describe_session(**options: Any) -> dict[str, Any]:
    """When, where and with which versions a session measured; `options` are its own settings."""
    import torch

    facts = machine.describe("cpu", "fp32", torch.get_num_threads(), 1)
    del facts["precision"]  # every row says its own
    facts |= machine.commit(CODE)
    facts["versions"] |= _peer_versions()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": facts
        | {"memory_gib": machine.memory_gib(), "native_bf16": machine.has_native_bf16()},
        "options": options,
    }


def to_json(ledger: Ledger, facts: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, every round of it."""
    return {
        "schema": SCHEMA,
        **facts,
        "comparisons": [
            {
                "work": one.work,
                "ours": {name: _series_json(series) for name, series in one.ours.items()},
                "peers": {name: _series_json(series) for name, series in one.peers.items()},
                "ratios": {
                    part: {
                        name: {p: one.ratio(part, name, p) for p in one.ranked_peers(part)}
                        for name in one.ours
                    }
                    for part in one.parts
                },
                "at_least": dict(one.at_least),
                "at_most": dict(one.at_most),
                "reference": one.reference,
            }
            for one in ledger.comparisons
        ],
        "growth": [
            {
                "work": one.work,
                "sizes": {size: _series_json(series) for size, series in one.sizes.items()},
                "amounts": dict(one.amounts),
            }
            for one in ledger.growths
        ],
        "left_out": ledger.notes,
    }


def save(ledger: Ledger, facts: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``<date>-<processor>.json`` and ``.md`` into `folder`, which is made if it is missing.

    An older file is never replaced: the second of a day ends in ``-2``.
    """
    stem = f"{facts['date'][:10]}-{slug(facts['machine']['processor'])}"
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    name = next(name for name in names if not (folder / f"{name}.json").exists())
    paths = [folder / f"{name}.json", folder / f"{name}.md"]
    write_text(paths[0], json.dumps(to_json(ledger, facts), indent=1) + "\n")
    write_text(paths[1], markdown(ledger, facts))
    return paths


def slug(text: str) -> str:
    """Small letters and digits with hyphens between them, for a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"


def in_words(seconds: float) -> str:
    """``42.1 ms``, ``3.25 s`` or ``104 s``: three digits."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def _time(series: Series, part: str) -> str:
    """The median, and half the range where there were several rounds."""
    every = series.all_seconds(part)
    text = in_words(series.seconds(part))
    return f"{text} ± {in_words((max(every) - min(every)) / 2)}" if len(every) > 1 else text


def _figures(series: Series) -> str:
    words = ", ".join(f"{name} {value:.7g}" for name, value in series.figures.items())
    return f" ({words})" if words else ""


def _target(comparison: Comparison, part: str, ours: str) -> str:
    """What was aimed at, and whether it was reached; empty where nothing was."""
    aims = []
    if part in comparison.at_least:
        of = f" × {comparison.reference}" if comparison.reference else ""
        aims.append(f"≥ {comparison.at_least[part]:g}{of}")
    if part in comparison.at_most:
        aims.append(f"≤ {in_words(comparison.at_most[part])}")
    verdict = comparison.verdict(part, ours)
    outcome = {True: " met", False: " missed", None: ""}[verdict]
    return ", ".join(aims) + outcome


def _also(comparison: Comparison, part: str, ours: str, peer: str) -> str:
    """Another peer than the fastest: its time, and how many times as fast ours is."""
    series = comparison.peers[peer]
    ratio = comparison.ratio(part, ours, peer)
    return f"{peer} {_time(series, part)}{_figures(series)} ({ratio:.2f})"


def _markdown_table(heads: list[str], rows: Rows) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _machine_text(facts: dict[str, Any]) -> str:
    on = facts["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
    dirty = " with changes" if on["dirty"] else ""
    bf16 = "native bf16" if on["native_bf16"] else "no native bf16"
    return (
        f"{on['processor']}, {on['cores']} cores ({bf16}), {on['memory_gib']:.0f} GiB, "
        f"{on['threads']} threads; commit {on['commit'] or 'unknown'}{dirty}; {versions}."
    )


def _peer_versions() -> dict[str, str]:
    """The versions of the installed peers."""
    found = {}
    for name in PEER_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # the ledger's notes say which peers are missing
    return found


def _series_json(series: Series) -> dict[str, Any]:
    return {
        "seconds": {part: series.all_seconds(part) for part in series.parts},
        "median_seconds": {part: series.seconds(part) for part in series.parts},
        "figures": series.figures,
    }
