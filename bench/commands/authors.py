"""``bench list``, ``check`` and ``new``: for those who look at methods or write one."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.output import print_json, tell
from bench.core.errors import BenchError, WriteError
from bench.options import METHODS, AsJson, Plugins, check_methods_known, parse_timeout

if TYPE_CHECKING:
    from methods.registry import Entry

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 60


def list_methods(as_json: AsJson = False, plugin: Plugins = None) -> None:
    """Methods with a line each, their parameters and where they come from."""
    from methods import registry

    problems = registry.discover(plugin or [])
    entries = [registry.get(name) for name in registry.names()]
    with registry.kept_apart():  # parameters are those of an object: a constructor may print
        parameters = [entry.parameters("paper") for entry in entries]
        rows = _rows(entries, parameters) if as_json else []
    if as_json:
        print_json(rows)
    else:
        for entry, values in zip(entries, parameters, strict=True):
            mark = "" if entry.tags.in_all else "  (not in --all)"
            tell(f"{entry.name}{mark}\n    {entry.summary}\n    {entry.origin}")
            tell("    " + ", ".join(f"{k}={v!r}" for k, v in values.items()))
    for problem in problems:
        tell(problem.message, err=True)
    raise typer.Exit(1 if problems else 0)


def _rows(entries: list[Entry], parameters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What ``--json`` says of each method."""
    return [
        {
            "name": entry.name,
            "summary": entry.summary,
            "parameters": values,
            "schedules": {s: entry.parameters(s) for s in entry.cls.schedules},
            "tags": vars(entry.tags),
            "source": entry.origin,
        }
        for entry, values in zip(entries, parameters, strict=True)
    ]


def _refuse_path(wanted: str) -> None:
    """Refuse a folder, or a file that is not Python's, where no method has that name.

    Raises
    ------
    BenchError : it is one.
    """
    from methods.names import scan

    if os.sep not in wanted and (not os.path.exists(wanted) or wanted in scan().names):
        return
    what = "is a folder" if os.path.isdir(wanted) else "is no Python file"
    what = what if os.path.exists(wanted) else "does not exist"
    raise BenchError(f"{wanted} {what}; expected the name of a method, or a file that ends in .py")


def check(
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE.py", help="A method or its file.", autocompletion=METHODS
        ),
    ],
    timeout: Annotated[str, typer.Option(help="Limit for one check: 90s, 5m or none.")] = "5m",
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show whole tracebacks.")
    ] = False,
) -> None:
    """Does this method keep the contract? One line per check."""
    limit = parse_timeout(timeout)
    if not wanted.endswith(".py"):
        _refuse_path(wanted)
        check_methods_known([wanted])
    from bench.checking import check as carry_out

    failed = False
    for method, outcome in carry_out(wanted, limit):
        failed |= bool(outcome.message)
        if method:
            tell(f"{method}: {outcome.name}: {outcome.verdict}")
        elif outcome.message:
            tell(outcome.message, err=True)
        if verbose and outcome.traceback and not outcome.like:
            tell(outcome.traceback, err=True)
    raise typer.Exit(1 if failed else 0)


def new(
    name: Annotated[str, typer.Argument(help="What the method will be called: my-method.")],
    folder: Annotated[Path, typer.Option(help="Where to write the two files.")] = Path("."),
) -> None:
    """Write a method's file and its test, which pass `bench check` and pytest as they are."""
    _check_new(name)
    module = name.replace("-", "_")
    method, test = folder / f"{module}.py", folder / f"test_{module}.py"
    values = {
        "name": name,
        "title": name.replace("-", " ").capitalize(),
        "cls": "".join(part.capitalize() for part in name.split("-")),
        "file": method.name,
        "test": test.name,
    }
    for path in (method, test):
        if path.exists() or path.is_symlink():
            raise BenchError(f"{path} is there already; choose another name, or move it away")
    if keyword.iskeyword(module) or importlib.util.find_spec(module):
        raise BenchError(
            f"the method's name is {name!r}, and a file {module}.py would hide what Python calls "
            "so; choose another name"
        )
    for path, template in ((method, "method.txt"), (test, "test_method.txt")):
        text = Template((TEMPLATES / template).read_text()).substitute(values)
        try:
            with path.open("x") as file:
                file.write(text)
        except OSError as error:
            raise WriteError(f"{path} cannot be written: {error.strerror}") from error
        typer.echo(f"written: {path}")
    typer.echo(
        f"next: bench check {method}\n"
        f"      python -m pytest {test}\n"
        f"      bench run {name} --plugin {method} --dataset digits"
    )


def _check_new(name: str) -> None:
    """Refuse what no new method can be called.

    Raises
    ------
    BenchError : it is no such name, or a method has it.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > LONGEST:
        raise BenchError(
            f"the method's name is {name!r}; expected at most {LONGEST} small letters and digits, "
            "words joined by '-', as in my-method"
        )
    from methods.names import scan

    if name in scan().names:
        raise BenchError(f"there is a method {name!r} already; choose another name")
