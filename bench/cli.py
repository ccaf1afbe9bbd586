"""The command ``bench``: what there is to call. Everything heavy is imported where it is used."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from typing import Annotated, NoReturn

import typer

from bench.commands.authors import check, list_methods, new
from bench.commands.machine import data, doctor
from bench.commands.output import give_up, tell
from bench.commands.records import leaderboard, merge, report, show, verify
from bench.commands.run import run
from bench.core.errors import BenchError
from bench.core.shadows import check_methods

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for command in (run, leaderboard, report, verify, show, new, check, data, merge, doctor):
    app.command()(command)
app.command("list")(list_methods)


def _show_version(wanted: bool) -> None:
    if wanted:
        from bench.core import machine

        typer.echo(f"bench {machine.bench_version()}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version)
    ] = False,
) -> None:
    """Compare semi-supervised clustering methods at every level of supervision."""


def main() -> NoReturn:
    """Run the command; what the user got wrong becomes one sentence and exit status 2.

    What a terminal or pipe cannot show is replaced, and what `run` cannot write there is dropped:
    display never ends a run. No display is less than one column wide.
    """
    columns = os.environ.get("COLUMNS", "1")
    if not re.fullmatch("[1-9][0-9]{0,5}", columns):
        del os.environ["COLUMNS"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        check_methods()
        app()
    except Exception as error:
        if not isinstance(error, BenchError | OSError):
            from methods.registry import RegistryError  # costs a second: not without need

            if not isinstance(error, RegistryError):
                raise
        tell(f"error: {_unwritten(error) or error}", err=True)
        raise SystemExit(2) from None
    raise SystemExit(0)


def _unwritten(error: Exception) -> str | None:
    """What to say where it was standard output that had no room; None of any other error."""
    if not isinstance(error, OSError) or error.errno != errno.ENOSPC or error.filename:
        return None
    try:
        sys.stdout.write("\n")  # the error does not say which file it is of
        sys.stdout.flush()
    except OSError as refused:
        give_up(sys.stdout)
        return (
            f"standard output cannot be written ({refused.strerror}); make room there, or send it "
            "elsewhere"
        )
    return None
