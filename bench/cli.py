"""The command ``bench``: parses, calls, prints. Everything heavy is imported where it is used."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from bench.core.errors import BenchError, WriteError
from bench.core.shadows import check_methods
from bench.options import (
    All,
    Backend,
    Changes,
    DatasetName,
    Device,
    DryRun,
    Jobs,
    Levels,
    Memory,
    Methods,
    Names,
    Plugins,
    Precision,
    Protocol,
    Rerun,
    Results,
    Schedule,
    Scheduler,
    Seeds,
    Selection,
    Timeout,
    check_choice,
    parse_changes,
    parse_seeds,
    parse_timeout,
    split_commas,
)

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


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

    What a terminal or pipe cannot show is replaced: display never ends a run.
    """
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
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    raise SystemExit(0)


@app.command()
def run(
    names: Names = None,
    all_methods: All = False,
    method: Methods = None,
    level: Levels = None,
    seeds: Seeds = "1",
    protocol: Protocol = "transductive",
    selection: Selection = "stratified",
    schedule: Schedule = "quick",
    dataset: DatasetName = "fashion-mnist",
    change: Changes = None,
    jobs: Jobs = "auto",
    timeout: Timeout = "3h",
    memory: Memory = "none",
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "local",
    scheduler: Scheduler = None,
    rerun: Rerun = None,
    dry_run: DryRun = False,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Run every trial that is missing, then write the leaderboard."""
    methods = split_commas([*(names or []), *(method or [])])
    if all_methods == bool(methods):
        raise BenchError(
            "say what to run: either methods by name, or --all (`bench list` shows them)"
        )
    check_choice("--backend", backend, ("local", "dask"))
    check_choice("--rerun", rerun, (None, "stale", "failed", "all"))
    limit = parse_timeout(timeout)
    from rich.console import Console

    from bench.records.store import Store
    from bench.running import api

    wish = api.Wish(
        methods=None if all_methods else methods,
        levels=split_commas(level) if level else ["shares"],
        seeds=parse_seeds(seeds),
        protocol=protocol,
        selection=selection,
        schedule=schedule,
        dataset=dataset,
        changes=parse_changes(change or []),
        precision=precision,
        plugins=plugin or [],
    )
    summary = api.run(
        wish,
        results=results,
        jobs=jobs,
        timeout_s=limit,
        device=device,
        backend=backend,
        scheduler=scheduler,
        memory=memory,
        rerun=rerun,
        dry_run=dry_run,
        console=Console(soft_wrap=True),
    )
    if not dry_run:
        if any(Store(results).paths()):  # none when it was stopped before its first record
            _print_boards(results)
            if not summary.unwritten:
                typer.echo(f"written: {results / 'leaderboard.csv'}")
        _print_summary(summary)
    raise typer.Exit(summary.exit_status)


@app.command("list")
def list_methods(
    as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False,
    plugin: Plugins = None,
) -> None:
    """Methods with a line each, their parameters and where they come from."""
    from methods import registry

    problems = registry.discover(plugin or [])
    entries = [registry.get(name) for name in registry.names()]
    if as_json:
        rows = [
            {
                "name": entry.name,
                "summary": entry.summary,
                "parameters": entry.parameters("paper"),
                "schedules": {s: entry.parameters(s) for s in entry.cls.schedules},
                "tags": vars(entry.tags),
                "source": entry.origin,
            }
            for entry in entries
        ]
        typer.echo(json.dumps(rows, indent=1))
    else:
        for entry in entries:
            mark = "" if entry.tags.in_all else "  (not in --all)"
            typer.echo(f"{entry.name}{mark}\n    {entry.summary}\n    {entry.origin}")
            params = ", ".join(f"{k}={v!r}" for k, v in entry.parameters("paper").items())
            typer.echo(f"    {params}")
    for problem in problems:
        typer.echo(problem.message, err=True)
    raise typer.Exit(1 if problems else 0)


@app.command()
def leaderboard(
    results: Results = Path("results"),
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """The table in the terminal, and leaderboard.csv."""
    from bench.records import leaderboard as board

    table = board.leaderboard(results)
    if table.empty:
        raise BenchError(f"there are no records in {results}; `bench run --all` makes some")
    if as_markdown:
        typer.echo("\n\n".join(board.markdown(one) for one in board.boards(table)))
    else:
        _print_boards(results)
    with _a_failure_said():
        board.write_csv(table, results / "leaderboard.csv")
        if not as_markdown:
            typer.echo(f"written: {results / 'leaderboard.csv'}")


@app.command()
def report(
    results: Results = Path("results"),
    output: Annotated[
        Path | None, typer.Option(help="Folder of the page. [default: RESULTS/report]")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="FILE.npz or folder of which there are records; repeatable."),
    ] = None,
    plugin: Plugins = None,
    no_projections: Annotated[
        bool,
        typer.Option(
            "--no-projections", help="Lay out no embeddings of the cache; those laid out are shown."
        ),
    ] = False,
) -> None:
    """Figures and one self-contained HTML page."""
    from bench.running.projecting import project
    from bench.show.report import write_report
    from methods import registry

    for problem in registry.discover(plugin or []):
        typer.echo(problem.message, err=True)
    for said in [] if no_projections else project(results, dataset or []):
        typer.echo(said)
    typer.echo(f"written: {write_report(results, output, dataset or [])}")


@app.command()
def verify(
    run_missing: Annotated[
        bool, typer.Option("--run", help="First run what has no record yet.")
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="Only figures whose source begins so, e.g. ss-dcec-paper.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a figure falls below.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="With --run: how many seeds.")] = 1,
    jobs: Annotated[str, typer.Option(help="With --run: processes at a time, or auto.")] = "auto",
    timeout: Annotated[
        str, typer.Option(help="With --run: limit for one trial: 30m, 3h or none.")
    ] = "3h",
    device: Annotated[str, typer.Option(help="With --run: auto, cpu or cuda.")] = "auto",
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Published against measured, figure by figure; writes verify.csv."""
    from bench.records import findings, published
    from bench.running import missing
    from bench.show.verify import show as show_findings
    from methods import registry

    limit = parse_timeout(timeout)
    for problem in registry.discover(plugin or []):
        typer.echo(problem.message, err=True)
    everything = published.figures()
    wanted = published.of_source(everything, source)
    console = _console()
    good = True
    if run_missing:
        wishes = missing.wishes(wanted, results, seeds=seeds, plugins=plugin or [])
        options = {"results": results, "jobs": jobs, "timeout_s": limit, "device": device}
        good = missing.run_missing(wishes, console, **options)
    found = findings.verify(everything, results)
    shown = [finding for finding in found if finding.figure in wanted]
    show_findings(shown, console)
    with _a_failure_said():
        findings.write_csv(found, results / "verify.csv")
        typer.echo(f"written: {results / 'verify.csv'}")
    below = findings.count(shown)["below"] > 0
    raise typer.Exit(1 if not good or (strict and below) else 0)


@app.command()
def show(
    trial: Annotated[str, typer.Argument(help="A record's path, or METHOD/LEVEL/SEED.")],
    results: Results = Path("results"),
) -> None:
    """One record, its log and its traceback."""
    from bench.show import terminal

    typer.echo(terminal.show(trial, results))


@app.command()
def check(
    wanted: Annotated[str, typer.Argument(metavar="NAME|FILE.py", help="A method or its file.")],
    timeout: Annotated[str, typer.Option(help="Limit for one check: 90s, 5m or none.")] = "5m",
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show whole tracebacks.")
    ] = False,
) -> None:
    """Does this method keep the contract? One line per check."""
    limit = parse_timeout(timeout)
    from bench.checking import check as carry_out

    failed = False
    for method, outcome in carry_out(wanted, limit):
        failed |= bool(outcome.message)
        if method:
            typer.echo(f"{method}: {outcome.name}: {outcome.verdict}")
        elif outcome.message:
            typer.echo(outcome.message, err=True)
        if verbose and outcome.traceback and not outcome.like:
            typer.echo(outcome.traceback, err=True)
    raise typer.Exit(1 if failed else 0)


@app.command()
def data(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[FILE.npz|FOLDER]", help="Images of yours, to look at."),
    ] = None,
) -> None:
    """Fetch and verify Fashion-MNIST; or say what is understood of images of yours."""
    from bench.data import datasets

    if source is None:
        typer.echo(str(datasets.fetch(log=typer.echo)))
        return
    from bench.show import terminal

    found = datasets.load(source, log=typer.echo)  # warnings first
    typer.echo(terminal.facts(found))
    console = _console()
    for table in terminal.classes(found, console.width):
        console.print(table)


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Results folders.")],
    results: Results = Path("results"),
) -> None:
    """Adopt records from another machine, then write the leaderboard.

    Exits with 1 where a record conflicts with ours or was refused.
    """
    from bench.records import leaderboard as board
    from bench.records import store

    good = True
    for folder in folders:
        merged = store.merge(results, folder)
        typer.echo(f"{folder}: {merged.adopted} adopted, {merged.kept} of ours kept")
        for text in merged.conflicts:
            typer.echo(f"conflict, ours kept: {text}", err=True)
        for text in merged.refused:
            typer.echo(f"refused: {text}", err=True)
        good = good and not merged.conflicts and not merged.refused
    if any(store.Store(results).paths()):
        with _a_failure_said():
            board.write_csv(board.leaderboard(results), results / "leaderboard.csv")
    raise typer.Exit(0 if good else 1)


@app.command()
def doctor() -> None:
    """What this machine offers, and what is missing."""
    from bench.show import terminal

    text, healthy = terminal.doctor()
    typer.echo(text)
    raise typer.Exit(0 if healthy else 1)


def _console() -> Console:
    from rich.console import Console

    console = Console()
    # a file or a pipe has no width to keep to, unless somebody gives it one
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=160)


def _print_boards(results: Path) -> None:
    from bench.records import leaderboard as board
    from bench.show import terminal

    console = _console()
    table = board.leaderboard(results)
    for one in board.boards(table):
        for part in terminal.as_tables(one, console.width):
            console.print(part)
        for note in one.notes:
            console.print(note, style="dim", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _a_failure_said() -> Iterator[None]:
    """What follows from records cannot be written: they were shown, and the exit status is 1."""
    try:
        yield
    except WriteError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _print_summary(summary: Any) -> None:
    from bench.running.progress import duration

    counts = ", ".join(f"{n} {status}" for status, n in sorted(summary.counts.items()))
    typer.echo(f"trials of this run: {counts or 'none'}")
    if summary.work_seconds:
        share = summary.work_seconds / (summary.seconds * summary.jobs)
        took = duration(summary.seconds)
        typer.echo(f"it took {took}, {share:.0%} of which went into fits and stages")
    for warning in summary.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if summary.unwritten:
        typer.echo(f"error: {summary.unwritten}", err=True)
    if summary.stopped:
        why = f", because {summary.reason}," if summary.reason else ""
        typer.echo(
            f"stopped{why} with {summary.not_run} trials left; what is done is kept, and the same "
            "command goes on from there",
            err=True,
        )
