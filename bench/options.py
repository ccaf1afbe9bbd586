"""The options of the commands, what is typed behind them as values, and what a shell completes.

Nothing here imports a method: what is misspelt is said at once.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.core.choices import (
    CHOICES,
    LONGEST_S,
    RESULTS_VARIABLE,
    check_parameter,
    results_folder,
)
from bench.core.errors import BenchError
from bench.core.levels import FEW, LEVELS, NAMED_LEVELS, Level


def _complete(words: Callable[[typer.Context], Iterable[str]]) -> Callable[..., list[str]]:
    """What a shell offers of `words` for the last one of a list with commas."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{word}" for word in words(ctx) if word.startswith(last)]

    return complete


def _known_methods(ctx: typer.Context) -> tuple[str, ...]:
    """The names that the files tell: completion must not wait for torch."""
    from methods.names import scan  # not before `bench.core.shadows` has looked

    return scan(ctx.params.get("plugin") or ()).names


def choice(what: str, help: str, *names: str) -> Any:
    """An option that takes one of `choices.CHOICES`, which a shell completes."""
    return typer.Option(*names, help=help, autocompletion=_complete(lambda _: CHOICES[what]))


METHODS = _complete(_known_methods)
LEVEL_NAMES = _complete(lambda _: (*NAMED_LEVELS, *LEVELS, *FEW))

Results = Annotated[
    Path,
    typer.Option(
        envvar=RESULTS_VARIABLE,
        help="Folder of the records and the leaderboard.",
        parser=results_folder,
        metavar="PATH",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For a program.")]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", help="A file that registers methods; repeatable.")
]
All = Annotated[bool, typer.Option("--all", help="Every method.")]
Methods = Annotated[
    list[str] | None,
    typer.Option(help="A method; repeat or use commas.", autocompletion=METHODS),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="METHOD", help="Methods, as with --method.", autocompletion=METHODS),
]
Levels = Annotated[
    list[str] | None,
    typer.Option(
        help="5% (a share) or 500 (labels); few: 10 to 500 labels, shares: 0 to 50 %; repeat or "
        "use commas; shares unless given.",
        autocompletion=LEVEL_NAMES,
    ),
]
Seeds = Annotated[str, typer.Option(help="How many (3: 0, 1 and 2), or which: 0,3,4.")]
Protocol = Annotated[str, choice("protocol", "transductive, inductive or inductive-55k.")]
Selection = Annotated[str, choice("selection", "stratified, random, first or representative.")]
Schedule = Annotated[str, choice("schedule", "paper, quick or smoke.")]
DatasetName = Annotated[str, typer.Option(help="fashion-mnist, digits, FILE.npz or a folder.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="METHOD.PARAM=VALUE; repeatable.")]
Jobs = Annotated[
    str, typer.Option(help="Processes at a time, which share the threads; auto: one for each core.")
]
Timeout = Annotated[str, typer.Option(help="Limit for one trial: 90s, 30m, 3h or none.")]
For = Annotated[
    str,
    typer.Option(
        "--for",
        help="Time for the whole run: 9m, 2h or none. What is known to take longer, and keeps no "
        "checkpoints, is not started; what runs at the end goes on another time.",
    ),
]
Memory = Annotated[
    str, typer.Option(help="Limit for one trial, with all that it starts: 512M, 8G or none.")
]
Device = Annotated[str, choice("device", "auto, cpu or cuda.")]
Precision = Annotated[
    str, choice("precision", "fp32, bf16 or auto: bf16 where the device has it natively.")
]
Backend = Annotated[str, choice("backend", "local or dask.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of the dask scheduler.")]
Rerun = Annotated[str | None, choice("rerun", "stale, failed or all.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]

_AS_PYTHON = {"true": "True", "false": "False", "null": "None", "none": "None"}


def split_commas(values: list[str]) -> list[str]:
    """``["a,b", "c"]`` as ``["a", "b", "c"]``."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def check_methods_known(names: Iterable[str], plugins: Sequence[str | Path] = ()) -> None:
    """Refuse a name that no method can have, before anything is imported.

    Raises
    ------
    BenchError : there is none; the message suggests the nearest name.
    """
    from methods.names import said_of_unknown, scan

    found = scan(plugins)
    for name in names:
        if found.complete and name not in found.names:
            raise BenchError(said_of_unknown(name, found.names))


def check_levels(levels: Iterable[str]) -> None:
    """Refuse what is neither a level nor the name of some.

    Raises
    ------
    BenchError : it is neither, or there is none.
    """
    given = list(levels)
    if not given:
        raise BenchError("no level is given; expected some such as 5% or 500")
    for level in given:
        if level not in NAMED_LEVELS:
            Level.parse(level)


def parse_timeout(text: str, option: str = "--timeout") -> float | None:
    """``90s``, ``30m`` or ``3h`` as seconds; ``none`` sets no limit."""
    if text == "none":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_S:
        raise BenchError(
            f"{option} is {text[:80]!r}; expected a time such as 90s, 30m or 3h, at most "
            f"{LONGEST_S // 3600}h, or none"
        )
    return seconds


def parse_seeds(text: str) -> int | tuple[int, ...]:
    """``3``: how many; ``0,3,4`` (or ``2,``): these."""
    parts = split_commas([text])
    if not parts or not all(re.fullmatch("[0-9]{1,19}", part) for part in parts):
        raise BenchError(
            f"--seeds is {text[:80]!r}; expected how many, such as 3, or which, such as 0,3,4"
        )
    return int(parts[0]) if "," not in text else tuple(map(int, parts))


def parse_changes(texts: list[str]) -> dict[str, dict[str, Any]]:
    """``["dcec.lam=0.1"]`` as ``{"dcec": {"lam": 0.1}}``; a value that is no literal is text.

    ``true``, ``false`` and ``null`` are read as in JSON.
    """
    changes: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = re.fullmatch(r"([^=\s]+)\.(\w+)=(.*)", text)
        if not match:
            raise BenchError(f"--set is {text!r}; expected METHOD.PARAM=VALUE, e.g. dcec.lam=0.1")
        method, name, value = match.groups()
        try:
            parsed = ast.literal_eval(_AS_PYTHON.get(value, value))
        except (ValueError, SyntaxError):
            parsed = value
        except (RecursionError, MemoryError):
            raise BenchError(f"--set is {text[:80]!r}…, which is nested too deep") from None
        check_parameter(f"--set {method}.{name}", parsed)
        changes.setdefault(method, {})[name] = parsed
    return changes
