"""Published figures against measured ones, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.core.texts import printable
from bench.records.findings import EXPLANATION, VERDICTS, Finding, count, note
from bench.records.published import Figure
from bench.show.terminal import fitted

TEXTS = ["method", "labels", "score", "verdict", "failed"]
COLUMNS = ["#", *TEXTS[:3], "published", "measured", "difference", *TEXTS[3:]]
STYLES = {"reproduced": "green", "above": "cyan", "below": "red", "died": "red", "not run": "dim"}


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print a table per source with its notes, and how many figures have which verdict."""
    for source in dict.fromkeys(finding.figure.source for finding in findings):
        of_it = [finding for finding in findings if finding.figure.source == source]
        for table in _tables(source, of_it, console.width):
            console.print(table)
        for line in _notes(of_it):
            console.print(
                printable(line), style="dim", markup=False, highlight=False, soft_wrap=True
            )
    console.print(EXPLANATION, style="dim", markup=False, highlight=False, soft_wrap=True)
    counts = count(findings)
    words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    console.print(f"{sum(counts.values())} figures: {words}", markup=False, highlight=False)


def _tables(source: str, findings: Sequence[Finding], width: int) -> list[Text | Table]:
    protocols = dict.fromkeys(finding.figure.setting.protocol for finding in findings)
    rows = [_cells(finding) for finding in findings]
    return fitted(f"{source} · {', '.join(protocols)}", COLUMNS, rows, width, TEXTS)


def _cells(finding: Finding) -> list[Text]:
    """A figure as one row of its table; texts, since in a string brackets would be markup."""
    setting, bad = finding.figure.setting, finding.n_failed + finding.n_died
    cells = [
        _number(finding.figure),
        f"{setting.method} {setting.parameters}".strip(),
        f"{setting.level} {setting.selection}",
        f"{setting.metric} on {setting.subset}",
        f"{finding.figure.value:.4f}",
        _measured(finding),
        "" if finding.difference is None else f"{finding.difference:+.4f}",
        finding.verdict,
        f"{bad} of {finding.n_runs}" if bad else "",
    ]
    return [
        Text(cell, STYLES[finding.verdict] if cell == finding.verdict else "") for cell in cells
    ]


def _number(figure: Figure) -> str:
    return f"{figure.number}b" if figure.other_reading else str(figure.number)


def _measured(finding: Finding) -> str:
    if finding.mean is None:
        return ""
    spread = "" if finding.std is None else f" ± {finding.std:.4f}"
    return f"{finding.mean:.4f}{spread} ({len(finding.counted)})"


def _notes(findings: Sequence[Finding]) -> list[str]:
    """The notes of a table, each once, with the numbers of the figures that it is about."""
    about: dict[str, list[str]] = {}
    for finding in findings:
        if text := note(finding):
            about.setdefault(text, []).append(_number(finding.figure))
    return [f"#{', '.join(numbers)}: {text}" for text, numbers in about.items()]
