"""What several commands print: boards, how a run ended, JSON; and what they refuse."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

import typer

from bench.core.errors import BenchError, WriteError
from bench.core.texts import printable

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from bench.core.trial import Trial
    from bench.running.runner import Summary

GOES_ON = "what is done is kept, and the same command goes on from there"
COMMITTED = Path("results")  # of a checkout
NEW = "*: new in this run."
ALL_NEW = "All that is shown is new in this run."
NOTHING_NEW = "Nothing here is new: it was all there before this run."


@contextmanager
def without_backend() -> Iterator[None]:
    """For the import of matplotlib, which fails where ``$MPLBACKEND`` names none that is there.

    Jupyter gives its own to whatever is started from it. Figures are drawn to files, without any.
    """
    given = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if given is not None:
            os.environ["MPLBACKEND"] = given


def give_up(stream: IO[str]) -> None:
    """Send what a stream still holds, and what is yet to come, nowhere: Python flushes it last."""
    with suppress(OSError, ValueError):  # no file of the system's is behind it: nothing to redirect
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class Lasting:
    """A stream that drops what cannot be written: the reader has gone, the disk is full."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write it, or drop it."""
        return self._try(lambda: self._stream.write(text)) or len(text)

    def flush(self) -> None:
        """Flush it, or give the stream up."""
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], Any]) -> Any:
        if self._lost:
            return None
        try:
            return act()
        except OSError:
            self._lost = True
            give_up(self._stream)
            return None


def wide_console(stream: Lasting | None = None) -> Console:
    """Standard output; a file or a pipe has no width to keep to, unless somebody gives it one."""
    from rich.console import Console

    file = cast(TextIO | None, stream)
    console = Console(file=file)
    wide = console.is_terminal or "COLUMNS" in os.environ
    return console if wide else Console(file=file, width=160)


def tell(text: str, err: bool = False) -> None:
    """Print text of others, of method authors and files: a terminal does not obey it."""
    typer.echo(printable(text), err=err)


def say(console: Console, text: str, style: str = "") -> None:
    """Print text as it is: what stands in brackets is no markup, and nothing is wrapped."""
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)


def check_there(results: Path) -> None:
    """Refuse to read a results folder that is not there.

    Raises
    ------
    BenchError : it is not there; the message says where else records are.
    """
    if not results.is_dir():
        here = results != COMMITTED and (COMMITTED / "trials").is_dir()
        other = f", and --results {COMMITTED} reads the one that is here" if here else ""
        raise BenchError(f"there is no results folder {results}; `bench run` makes one{other}")


def print_json(value: Any) -> None:
    """One JSON document on standard output.

    What JSON has no number for, in parameters say, is a text: ``"inf"``, ``"nan"``.
    """
    typer.echo(json.dumps(_finite(value), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as JSON has it: a row each, numbers as numbers, null where nothing is.

    What has no end, labels that are never enough, is the text of `print_json`.
    """
    found: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=15))
    for column in table.select_dtypes("float"):
        for row, value in zip(found, table[column], strict=True):
            if math.isinf(value):
                row[str(column)] = str(value)
    return found


def print_boards(table: pd.DataFrame, console: Console, summary: Summary | None = None) -> None:
    """The boards of a table; those of a run alone, with what is new marked, where one is given."""
    from bench.records import leaderboard as board
    from bench.show import terminal

    found = zip(board.settings(table), board.boards(table), strict=True)
    for (_, rows), one in found:
        new: set[tuple[str, str]] = set()
        notes = list(one.notes)
        if summary is not None:
            there = {tuple(row) for row in rows[_CELL].to_numpy()}
            if not there & _cells(summary.asked):
                continue
            made = there & _cells(summary.new)
            notes.append(ALL_NEW if made == there else NEW if made else NOTHING_NEW)
            new = set() if made == there else {(f"{m} {v}".strip(), at) for *_, at, m, v in made}
        for part in terminal.as_tables(one, console.width, new):
            console.print(part)
        for note in notes:
            say(console, note, style="dim")


_CELL = ["dataset", "protocol", "selection", "schedule", "level", "method", "variant"]


def _cells(trials: Sequence[Trial]) -> set[tuple[str, ...]]:
    """The cells of the leaderboard that these trials stand in, by the columns `_CELL`."""
    return {
        (t.dataset, t.protocol, t.selection, t.schedule, t.level, t.method, t.variant_text)
        for t in trials
    }


def print_ran(summary: Summary, results: Path, out: Console, err: Console, boards: Console) -> None:
    """What a run ends with: its boards, on `boards`, and how it went."""
    from bench.records.leaderboard import leaderboard
    from bench.records.store import Store

    if any(Store(results).paths()):  # none when it was stopped before its first record
        try:
            print_boards(leaderboard(results), boards, summary)
        except BenchError as error:  # records of old and new parameters, say: these are kept
            summary.unwritten = summary.unwritten or str(error)
        if not summary.unwritten:
            say(out, f"written: {results / 'leaderboard.csv'}")
    print_summary(summary, out, err)


def print_summary(summary: Summary, out: Console, err: Console) -> None:
    """How a run went, on `out`, and what went wrong in it, on `err`."""
    from bench.running.progress import duration

    counts = ", ".join(f"{n} {status}" for status, n in sorted(summary.counts.items()))
    say(out, f"trials of this run: {counts or 'none'}")
    if summary.work_seconds:
        share = summary.work_seconds / (summary.seconds * summary.jobs)
        took = duration(summary.seconds)
        say(out, f"it took {took}, {share:.0%} of which went into fits and stages")
    for warning in summary.warnings:
        say(err, f"warning: {warning}")
    if summary.unwritten:
        say(err, f"error: {summary.unwritten}")
    if summary.out_of_time:
        say(out, f"the time is up with {summary.not_run} trials left; {GOES_ON}")
    if summary.stopped and not summary.not_run:
        say(err, "stopped when all trials were done")
    elif summary.stopped:
        why = f", because {summary.reason}," if summary.reason else ""
        say(
            err,
            f"stopped{why} with {summary.not_run} trials left; {GOES_ON}",
        )


@contextmanager
def a_failure_said() -> Iterator[None]:
    """What follows from records cannot be written: they were shown, and the exit status is 1."""
    try:
        yield
    except WriteError as error:
        tell(f"error: {error}", err=True)
        raise typer.Exit(1) from None
