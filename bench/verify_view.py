"""What ``bench verify`` shows and writes, and what it has run first under ``--run``."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from bench import api
from bench.errors import BenchError
from bench.findings import DIED_BELOW, VERDICTS, Finding
from bench.leaderboard import t_interval
from bench.published import FASHION, Data, Figure, Setting, changes, records_of, trial_of
from bench.store import Store, write_atomically
from methods.registry import RegistryError

# fmt: off
COLUMNS = [
    "number", "other_reading", "source", "dataset", "method", "parameters", "protocol",
    "selection", "schedule", "level", "metric", "subset", "published", "measured_mean",
    "measured_std", "measured_low", "measured_high", "n_seeds", "precision", "difference",
    "tolerance", "verdict", "n_failed", "n_died", "failure_rate", "note", "published_note",
]
# fmt: on
OF_SETTING = COLUMNS[3:12]
STYLES = {"reproduced": "green", "above": "cyan", "below": "red", "not run": "dim"}
EXPLANATION = (
    "measured: mean ± standard deviation (seeds). reproduced: within 0.02 of the published figure, "
    "or within two standard deviations where that is more, at most 0.03; one seed has no standard "
    "deviation. failed: runs that failed, and seeds whose network died (a score below 0.15). The "
    "mean is over the seeds that ended as the published run did, dead or not."
)


def of_source(given: Sequence[Figure], source: str | None) -> list[Figure]:
    """The figures whose source begins with `source`; all of them for None.

    Raises
    ------
    BenchError : no source begins so.
    """
    found = [figure for figure in given if figure.source.startswith(source or "")]
    if not found:
        known = ", ".join(dict.fromkeys(figure.source for figure in given))
        raise BenchError(f"--source is {source!r}; expected the beginning of one of {known}")
    return found


# --- Showing -----------------------------------------------------------------------------------


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print a table per source with its notes, and how many figures have which verdict."""
    for source in dict.fromkeys(finding.figure.source for finding in findings):
        of_it = [finding for finding in findings if finding.figure.source == source]
        console.print(_table(source, of_it))
        for line in _notes(of_it):
            console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
    console.print(EXPLANATION, style="dim", markup=False, highlight=False, soft_wrap=True)
    counts = count(findings)
    words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    console.print(f"{sum(counts.values())} figures: {words}", markup=False, highlight=False)


def count(findings: Iterable[Finding]) -> dict[str, int]:
    """Figures per verdict; a second reading of a figure is not counted."""
    found = [finding.verdict for finding in findings if not finding.figure.other_reading]
    return {verdict: found.count(verdict) for verdict in VERDICTS}


def _table(source: str, findings: Sequence[Finding]) -> Table:
    protocols = dict.fromkeys(finding.figure.setting.protocol for finding in findings)
    title = f"{source} · {', '.join(protocols)}"
    table = Table(title=title, title_justify="left", pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True)
    for name in ("method", "labels", "score"):
        table.add_column(name, overflow="fold")
    for name in ("published", "measured", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("verdict", "failed"):
        table.add_column(name, no_wrap=True)
    for finding in findings:
        table.add_row(*_cells(finding))
    return table


def _cells(finding: Finding) -> list[str]:
    """A figure as one row of its table."""
    setting, bad = finding.figure.setting, finding.n_failed + finding.n_died
    return [
        _number(finding.figure),
        f"{setting.method} {setting.parameters}".strip(),
        f"{setting.level} {setting.selection}",
        f"{setting.metric} on {setting.subset}",
        f"{finding.figure.value:.4f}",
        _measured(finding),
        "" if finding.difference is None else f"{finding.difference:+.4f}",
        f"[{STYLES[finding.verdict]}]{finding.verdict}[/]",
        f"{bad} of {finding.n_runs}" if bad else "",
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


def note(finding: Finding) -> str:
    """What a reader has to know beside the numbers; empty if nothing."""
    values, parts = finding.values, [finding.reason] if finding.reason else []
    if values and finding.n_failed:
        parts.append(f"{finding.n_failed} of {finding.n_runs} runs failed and are not in the mean")
    if finding.n_died:
        died = f"{finding.n_died} of {len(values)} seeds died (below {DIED_BELOW})"
        alive = [value for value in values if value >= DIED_BELOW]
        if alive and finding.figure.value < DIED_BELOW:
            died += f", as the published run did; mean of the others {statistics.fmean(alive):.4f}"
        elif alive:
            died += ", not in the mean"
        parts.append(died)
    if "bf16" in finding.precision:
        parts.append("products in bf16")
    if finding.n_stale:
        parts.append(f"{finding.n_stale} of the records made by an older version (stale)")
    return "; ".join(parts)


# --- Writing -----------------------------------------------------------------------------------


def write_csv(findings: Iterable[Finding], path: Path) -> None:
    """Write ``verify.csv``: `COLUMNS`, numbers as numbers, empty where nothing is."""
    table = pd.DataFrame([_row(finding) for finding in findings], columns=COLUMNS)
    write_atomically(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _row(finding: Finding) -> dict[str, Any]:
    figure = finding.figure
    low, high = t_interval(finding.counted)
    return {
        "number": figure.number,
        "other_reading": figure.other_reading,
        "source": figure.source,
        **{name: getattr(figure.setting, name) for name in OF_SETTING},
        "published": figure.value,
        "measured_mean": finding.mean,
        "measured_std": finding.std,
        "measured_low": low,
        "measured_high": high,
        "n_seeds": len(finding.counted),
        "precision": finding.precision or None,
        "difference": finding.difference,
        "tolerance": finding.tolerance if finding.values else None,
        "verdict": finding.verdict,
        "n_failed": finding.n_failed,
        "n_died": finding.n_died,
        "failure_rate": finding.failure_rate,
        "note": note(finding),
        "published_note": figure.note,
    }


# --- Running what is missing -------------------------------------------------------------------


def wishes(
    figures: Iterable[Figure],
    results: str | Path,
    *,
    seeds: int = 1,
    plugins: Sequence[str] = (),
    data: Mapping[str, Data] | None = None,
) -> list[api.Wish]:
    """What `bench.run` has to be asked for so that each figure has a record of every seed.

    A setting that cannot run here (no such method, data that only the user has) is left out:
    `bench.findings.verify` says why. Methods of one board with the same levels are asked for
    together, so that they share a plan; two variants of one method cannot be.

    Parameters
    ----------
    data : the datasets that settings name; by default Fashion-MNIST alone.

    Raises
    ------
    BenchError : `seeds` is below 1.
    """
    if seeds < 1:
        raise BenchError(f"--seeds is {seeds}; expected at least 1")
    store = Store(Path(results))
    known = {FASHION.name: FASHION} if data is None else data
    variants: dict[tuple[str, ...], list[Setting]] = {}
    for setting in (figure.setting for figure in figures):
        if _is_missing(setting, store, known, seeds):
            board = (setting.dataset, setting.protocol, setting.selection, setting.schedule)
            variants.setdefault((*board, setting.method, setting.parameters), []).append(setting)
    found: list[api.Wish] = []
    for group in variants.values():
        _join(found, _wish(group, seeds, plugins))
    return found


def _is_missing(setting: Setting, store: Store, known: Mapping[str, Data], seeds: int) -> bool:
    """Whether `setting` could run here and a seed of it has no record yet, not even a failure."""
    if setting.dataset not in known:
        return False
    try:
        trial = trial_of(setting, known[setting.dataset])
    except RegistryError:
        return False
    return not set(range(seeds)) <= set(records_of(trial, store))


def _wish(group: Sequence[Setting], seeds: int, plugins: Sequence[str]) -> api.Wish:
    """The wish for one variant of a method under one board, at all its levels."""
    first = group[0]
    changed = changes(first)
    return api.Wish(
        methods=[first.method],
        levels=list(dict.fromkeys(setting.level for setting in group)),
        seeds=seeds,
        protocol=first.protocol,
        selection=first.selection,
        schedule=first.schedule,
        dataset=first.dataset,
        changes={first.method: changed} if changed else {},
        plugins=plugins,
    )


def _join(found: list[api.Wish], wish: api.Wish) -> None:
    """Add `wish` to one of `found` that differs in its methods alone, or at the end."""
    methods, changed = list(wish.methods or ()), dict(wish.changes or {})
    for place, other in enumerate(found):
        alike = replace(other, methods=methods, changes=changed) == wish
        if alike and not set(methods) & set(other.methods or ()):
            found[place] = replace(
                other,
                methods=[*(other.methods or ()), *methods],
                changes={**(other.changes or {}), **changed},
            )
            return
    found.append(wish)


def run_missing(wanted: Sequence[api.Wish], console: Console, **options: Any) -> bool:
    """Carry the wishes out one after the other; a failure does not keep the others from running.

    Parameters
    ----------
    options : ``results``, ``jobs``, ``timeout_s``, ``device``, as for `bench.run`.

    Returns
    -------
    Whether every trial ended ``ok`` or ``n/a``; False as well when the run was stopped.
    """
    good = True
    for number, wish in enumerate(wanted, start=1):
        methods, levels = ", ".join(wish.methods or ()), ", ".join(wish.levels)
        console.print(
            f"run {number} of {len(wanted)}: {methods} at {levels}, {wish.protocol}, "
            f"{wish.selection}",
            markup=False,
            highlight=False,
        )
        try:
            summary = api.run(wish, console=console, **options)
        except (BenchError, RegistryError) as error:
            console.print(f"error: {error}", style="red", markup=False, highlight=False)
            good = False
            continue
        good = good and summary.exit_status == 0
        if summary.stopped:
            console.print("stopped; what is done is kept, the same command goes on from there")
            return False
    return good
