"""The options of ``bench run``, and what is typed behind them as values: lists, times, changes."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.core.errors import BenchError

Results = Annotated[Path, typer.Option(help="Folder of the records and the leaderboard.")]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", help="A file that registers methods; repeatable.")
]
All = Annotated[bool, typer.Option("--all", help="Every method.")]
Methods = Annotated[list[str] | None, typer.Option(help="A method; repeat or use commas.")]
Names = Annotated[
    list[str] | None, typer.Argument(metavar="METHOD", help="Methods, as with --method.")
]
Levels = Annotated[
    list[str] | None,
    typer.Option(
        help="5% or 500; few: 10 to 500 labels, shares: 0 to 50 %; repeat or use commas. "
        "[default: shares]"
    ),
]
Seeds = Annotated[str, typer.Option(help="How many (3: 0, 1 and 2), or which: 0,3,4.")]
Protocol = Annotated[str, typer.Option(help="transductive, inductive or inductive-55k.")]
Selection = Annotated[str, typer.Option(help="stratified, random, first or representative.")]
Schedule = Annotated[str, typer.Option(help="paper, quick or smoke.")]
DatasetName = Annotated[str, typer.Option(help="fashion-mnist, digits, FILE.npz or a folder.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="METHOD.PARAM=VALUE; repeatable.")]
Jobs = Annotated[
    str, typer.Option(help="Processes at a time, which share the threads; auto: one for each core.")
]
Timeout = Annotated[str, typer.Option(help="Limit for one trial: 90s, 30m, 3h or none.")]
Memory = Annotated[
    str, typer.Option(help="Limit for one trial, with all that it starts: 512M, 8G or none.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[
    str, typer.Option(help="fp32, bf16 or auto: bf16 where the device has it natively.")
]
Backend = Annotated[str, typer.Option(help="local or dask.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of the dask scheduler.")]
Rerun = Annotated[str | None, typer.Option(help="stale, failed or all.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]

_AS_PYTHON = {"true": "True", "false": "False", "null": "None", "none": "None"}


def split_commas(values: list[str]) -> list[str]:
    """``["a,b", "c"]`` as ``["a", "b", "c"]``."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def check_choice(option: str, given: str | None, known: tuple[str | None, ...]) -> None:
    """Refuse a value that an option does not have."""
    if given not in known:
        words = ", ".join(word for word in known if word)
        raise BenchError(f"{option} is {given!r}; expected one of {words}")


def parse_timeout(text: str) -> float | None:
    """``90s``, ``30m`` or ``3h`` as seconds; ``none`` sets no limit."""
    if text == "none":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or float(match[1]) == 0:
        raise BenchError(f"--timeout is {text!r}; expected a time such as 90s, 30m or 3h, or none")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def parse_seeds(text: str) -> int | tuple[int, ...]:
    """``3``: how many; ``0,3,4`` (or ``2,``): these."""
    parts = split_commas([text])
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise BenchError(
            f"--seeds is {text!r}; expected how many, such as 3, or which, such as 0,3,4"
        )
    return int(parts[0]) if "," not in text else tuple(map(int, parts))


def parse_changes(texts: list[str]) -> dict[str, dict[str, Any]]:
    """``["dcec.lam=0.1"]`` as ``{"dcec": {"lam": 0.1}}``; a value that is no literal is text.

    ``true``, ``false`` and ``null`` are read as in JSON.
    """
    changes: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = re.fullmatch(r"([^.=\s]+)\.(\w+)=(.*)", text)
        if not match:
            raise BenchError(f"--set is {text!r}; expected METHOD.PARAM=VALUE, e.g. dcec.lam=0.1")
        method, name, value = match.groups()
        try:
            parsed = ast.literal_eval(_AS_PYTHON.get(value, value))
        except (ValueError, SyntaxError):
            parsed = value
        except (RecursionError, MemoryError):
            raise BenchError(f"--set is {text[:80]!r}…, which is nested too deep") from None
        try:
            json.dumps(parsed)
        except (TypeError, ValueError, RecursionError):  # a set, bytes, a complex number
            raise BenchError(
                f"--set is {text!r}; expected a value that a record can hold: numbers, texts, "
                "True, False, None, lists and dicts of these"
            ) from None
        changes.setdefault(method, {})[name] = parsed
    return changes
