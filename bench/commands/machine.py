"""``bench data`` and ``bench doctor``: images, and what this machine offers."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.commands.output import print_json, tell, wide_console
from bench.options import AsJson


def data(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[FILE.npz|FOLDER]", help="Images of yours, to look at."),
    ] = None,
) -> None:
    """Fetch and verify Fashion-MNIST; or say what is understood of images of yours."""
    from bench.data import datasets

    if source is None:
        typer.echo(str(datasets.fetch(log=tell)))
        return
    from bench.show import terminal

    found = datasets.load(source, log=tell)  # warnings first
    tell(terminal.facts(found))
    console = wide_console()
    for table in terminal.classes(found, console.width):
        console.print(table)


def doctor(as_json: AsJson = False) -> None:
    """What this machine offers, and what is missing."""
    from bench.show import doctor as looking

    found = looking.examine(log=lambda text: tell(text, err=True))
    if as_json:
        print_json(found)
    else:
        tell(looking.as_text(found))
    raise typer.Exit(0 if found["healthy"] else 1)
