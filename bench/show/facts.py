"""What the page says beside scores: what is missing, what failed, how it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pandas as pd

from bench.core import machine
from bench.core.levels import LEVELS
from bench.core.trial import Trial
from bench.data.fashion_mnist import FASHION_MNIST
from bench.records.leaderboard import BOARD_KEYS
from bench.records.scoring import FAILURES, Record, error_message
from bench.records.store import is_stale
from methods import registry
from methods.registry import RegistryError

MACHINE = ("device", "accelerator", "processor", "cores", "threads", "concurrency", "precision")
COMMIT_DIGITS = 10


@dataclass(frozen=True)
class Gap:
    """What a board lacks: `levels` of a method have no record while others have one there."""

    board: str
    method: str
    levels: tuple[str, ...]


def gaps(title: str, rows: pd.DataFrame, order: Sequence[str]) -> list[Gap]:
    """The levels of a board at which a method has no record; variants need not be at all levels.

    Parameters
    ----------
    title : of the board.
    rows : those of the leaderboard, with the columns ``name``, ``variant`` and ``level``.
    order : the names of the board.
    """
    levels = list(dict.fromkeys(rows["level"]))
    there = set(zip(rows["name"], rows["level"], strict=True))
    plain = set(rows.loc[rows["variant"] == "", "name"])
    missing = {
        name: tuple(level for level in levels if (name, level) not in there)
        for name in order
        if name in plain
    }
    return [Gap(title, name, absent) for name, absent in missing.items() if absent]


def absent(there: Iterable[str]) -> list[str]:
    """The methods that are part of ``--all`` and are not `there`."""
    known = {name for name in registry.names() if registry.get(name).tags.in_all}
    return sorted(known - set(there))


def citation() -> str:
    """The benchmark as a BibTeX entry; author and title are those of CITATION.cff."""
    title = metadata.metadata("fewlabels-bench")["Summary"]
    fields = {
        "author": "{{The fewlabels-bench contributors}}",
        "title": f"{{fewlabels-bench: {title[0].lower()}{title[1:]}}}",
        "version": f"{{{machine.bench_version()}}}",
    }
    lines = ",\n".join(f"  {name} = {value}" for name, value in fields.items())
    return f"@software{{fewlabels-bench,\n{lines}\n}}"


def rerun_command(key: Sequence[str], rows: pd.DataFrame) -> str:
    """The command that makes the records of a board, but for those of variants.

    Parameters
    ----------
    key : dataset, protocol, selection, schedule of the board.
    rows : those of the leaderboard.
    """
    dataset, protocol, selection, schedule = key[:4]
    built_in = dataset in (FASHION_MNIST.name, "digits")
    options = {
        "dataset": (dataset if built_in else "FILE", FASHION_MNIST.name),
        "protocol": (protocol, "transductive"),
        "selection": (selection, "stratified"),
        "schedule": (schedule, "quick"),
        "level": (",".join(dict.fromkeys(rows["level"])), ",".join(LEVELS)),
        "seeds": (str(max(1, rows["n_seeds"].max())), "1"),
    }
    methods = sorted(set(rows.loc[rows["variant"] == "", "method"]))
    words = [f"--{name} {value}" for name, (value, usual) in options.items() if value != usual]
    return " ".join(["bench run", *methods, *words])


def failures(records: Iterable[Record]) -> list[dict[str, str]]:
    """Every trial that failed: ``method`` and its variant, ``trial``, board, status, message."""
    return [_failure(record) for record in records if record["status"] in FAILURES]


def _failure(record: Record) -> dict[str, str]:
    trial = Trial.from_json(record["trial"])
    return {
        "method": trial.method,
        "trial": trial.title,
        "board": " · ".join(getattr(trial, key) for key in BOARD_KEYS),
        "status": record["status"],
        "message": error_message(record) or "no message",
    }


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
        stale += record["status"] == "ok" and _is_stale(record)
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


def _text(value: Any) -> str:
    return "" if value is None else str(value)
