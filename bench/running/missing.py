"""What has to run so that every published figure has a record: ``bench verify --run``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.core.choices import seed_list
from bench.core.errors import BenchError
from bench.records.published import FASHION, Data, Figure, Setting, changes, records_of, trial_of
from bench.records.store import Store
from bench.running import api
from methods.registry import RegistryError


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
    `bench.records.findings.verify` says why. Methods of one board with the same levels are asked
    for together, so that they share a plan; two variants of one method cannot be.

    Parameters
    ----------
    data : the datasets that settings name; by default Fashion-MNIST alone.

    Raises
    ------
    BenchError : `seeds` is below 1, or more than anybody runs.
    """
    seed_list(seeds)
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
        for text in filter(None, (*summary.warnings, summary.unwritten)):
            console.print(text, style="red", markup=False, highlight=False)
        good = good and summary.exit_status == 0
        if summary.stopped:
            console.print("stopped; what is done is kept, the same command goes on from there")
            return False
    return good
