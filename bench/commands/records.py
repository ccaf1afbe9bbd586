"""``bench leaderboard``, ``report``, ``verify``, ``show``, ``merge``: what records say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.output import (
    Lasting,
    a_failure_said,
    check_there,
    print_boards,
    print_json,
    rows_of,
    say,
    tell,
    wide_console,
    without_backend,
)
from bench.core.choices import RESULTS, check_choice, check_choices
from bench.core.errors import BenchError
from bench.core.levels import NAMED_LEVELS, Level
from bench.options import (
    LEVEL_NAMES,
    AsJson,
    Device,
    Jobs,
    Methods,
    Plugins,
    Results,
    Timeout,
    check_levels,
    choice,
    parse_timeout,
    split_commas,
)

if TYPE_CHECKING:
    import pandas as pd

FILTERED = (
    "Shown is what was asked for. Ranks are among all methods, mean ranks over the levels shown."
)
NOT_AT_HAND = (
    "no method here: {}; without a family, and no baseline of others. Name the file with --plugin."
)
OnlyLevels = Annotated[
    list[str] | None,
    typer.Option(help="Only this level, as of `run`; repeatable.", autocompletion=LEVEL_NAMES),
]


def leaderboard(
    results: Results = RESULTS,
    method: Methods = None,
    level: OnlyLevels = None,
    protocol: Annotated[str | None, choice("protocol", "Only this protocol.")] = None,
    selection: Annotated[str | None, choice("selection", "Only this selection.")] = None,
    schedule: Annotated[str | None, choice("schedule", "Only this schedule.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown; first what to use.")
    ] = False,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """The table in the terminal, and leaderboard.csv, which always holds all of it.

    What is no method here (a plugin's, without its --plugin) has no family, is no baseline, and is
    named.
    """
    if as_markdown and as_json:
        raise BenchError("--markdown and --json are two formats; give one of them")
    wanted: dict[str, str | None] = {
        "protocol": protocol,
        "selection": selection,
        "schedule": schedule,
    }
    check_choices(**{what: given for what, given in wanted.items() if given is not None})
    levels, methods = split_commas(level or []), split_commas(method or [])
    if level:
        check_levels(levels)
    check_there(results)
    from bench.records import leaderboard as board
    from methods import registry

    _register(plugin)
    table = board.leaderboard(results)
    if table.empty:
        raise BenchError(f"there are no records in {results}; `bench run --all` makes some")
    few = _filtered(table, methods, levels, {**wanted, "dataset": dataset})
    if as_json:
        print_json(rows_of(few[board.COLUMNS]))
    elif as_markdown:
        # nothing is the best of methods that were picked
        answers = [] if methods else _answers(few, table, results)
        parts = ["\n".join(answers), *map(board.markdown, board.boards(few))]
        tell("\n\n".join(filter(None, parts)))
    else:
        console = wide_console()
        print_boards(few, console)
        if len(few) < len(table):
            say(console, FILTERED, style="dim")
    with a_failure_said():
        board.write_csv(table, results / "leaderboard.csv")
        if not as_markdown and not as_json:
            tell(f"written: {results / 'leaderboard.csv'}")
    unknown = sorted(set(table["method"]) - set(registry.names()))
    if unknown:
        tell(NOT_AT_HAND.format(", ".join(unknown)), err=True)


def _answers(few: pd.DataFrame, table: pd.DataFrame, results: Path) -> list[str]:
    """What to use, as items of a list in Markdown."""
    from bench.records.advice import sentences
    from bench.records.store import load_results

    return [f"- {one}" for one in sentences(few, load_results(results), table)]


def _register(plugin: list[str] | None) -> None:
    """Register all methods and those of these files; what cannot be used is said."""
    from methods import registry

    for problem in registry.discover(plugin or []):
        tell(problem.message, err=True)


def _filtered(
    table: pd.DataFrame, methods: list[str], levels: list[str], settings: dict[str, str | None]
) -> pd.DataFrame:
    """The rows of these methods, levels and settings; none of a kind stands for all of it.

    Raises
    ------
    BenchError : there is nothing of the kind.
    """
    spelt = [str(Level.parse(x)) for given in levels for x in NAMED_LEVELS.get(given, (given,))]
    wanted = {"method": methods, "level": spelt}
    wanted |= {what: [given] for what, given in settings.items() if given is not None}
    for what, values in wanted.items():
        for value in values if what in ("method", "dataset") else ():
            check_choice(what, value, sorted(table[what].unique()))
    few = table
    for what, values in wanted.items():
        few = few[few[what].isin(values)] if values else few
    if few.empty:
        said = ", ".join(f"{what} {' or '.join(x)}" for what, x in wanted.items() if x)
        raise BenchError(f"no record is of {said}; `bench leaderboard` shows what there is")
    return few


def report(
    results: Results = RESULTS,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the page; RESULTS/report unless given.")
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
    check_there(results)
    from bench.running.projecting import project

    with without_backend():
        from bench.show.report import write_report

    _register(plugin)
    for said in [] if no_projections else project(results, dataset or []):
        tell(said)
    tell(f"written: {write_report(results, output, dataset or [])}")


def verify(
    run_missing: Annotated[
        bool, typer.Option("--run", help="First run what has no record yet.")
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="Only figures whose source begins so, e.g. ss-dcec-paper.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a figure is below, or its runs died.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="With --run: how many seeds.")] = 1,
    jobs: Jobs = "auto",
    timeout: Timeout = "3h",
    device: Device = "auto",
    as_json: AsJson = False,
    results: Results = RESULTS,
    plugin: Plugins = None,
) -> None:
    """Published against measured, figure by figure; writes verify.csv.

    --jobs, --timeout and --device are of the runs that --run makes.
    """
    limit = parse_timeout(timeout)
    check_choices(device=device)
    if not run_missing:
        check_there(results)
    from rich.console import Console

    from bench.records import findings, published
    from bench.running import missing
    from bench.show.verify import show as show_findings

    _register(plugin)
    everything = published.figures()
    wanted = published.of_source(everything, source)
    lasting = Lasting(sys.stdout) if run_missing else None  # display never ends a run
    console = Console(stderr=True) if as_json else wide_console(lasting)
    good = True
    if run_missing:
        wishes = missing.wishes(wanted, results, seeds=seeds, plugins=plugin or [])
        options = {"results": results, "jobs": jobs, "timeout_s": limit, "device": device}
        good = missing.run_missing(wishes, console, **options)
    found = findings.verify(everything, results)
    shown = [finding for finding in found if finding.figure in wanted]
    if as_json:
        print_json(rows_of(findings.as_table(shown)))
    else:
        show_findings(shown, console)
    with a_failure_said():
        findings.write_csv(found, results / "verify.csv")
        if not as_json:
            tell(f"written: {results / 'verify.csv'}")
    counts = findings.count(shown)
    bad = counts["below"] + counts["died"] > 0
    raise typer.Exit(1 if not good or (strict and bad) else 0)


def show(
    trial: Annotated[
        str,
        typer.Argument(
            help="A record's path, or METHOD/LEVEL/SEED; before it perhaps DATASET/ and "
            "PROTOCOL-SELECTION-SCHEDULE/."
        ),
    ],
    as_json: AsJson = False,
    results: Results = RESULTS,
) -> None:
    """One record, its log and its traceback.

    Of several that fit it is the one that `bench run` makes by itself: Fashion-MNIST,
    transductive, stratified, quick.
    """
    if not Path(trial).is_file():
        check_there(results)
    from bench.show import terminal

    found = terminal.find(trial, results)
    if found.others:
        tell(found.said_of_others(), err=True)
    if as_json:
        print_json(terminal.as_json(found.path))
    else:
        tell(terminal.show(found.path))


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Results folders.")],
    results: Results = RESULTS,
) -> None:
    """Adopt records from another machine, then write the leaderboard.

    Exits with 1 where a record conflicts with ours or was refused.
    """
    from bench.records import leaderboard as board
    from bench.records import store

    good = True
    for folder in folders:
        store.check_records(folder)
    for folder in folders:
        merged = store.merge(results, folder)
        tell(f"{folder}: {merged.adopted} adopted, {merged.kept} of ours kept")
        for text in merged.conflicts:
            tell(f"conflict, ours kept: {text}", err=True)
        for text in merged.refused:
            tell(f"refused: {text}", err=True)
        good = good and not merged.conflicts and not merged.refused
    if any(store.Store(results).paths()):
        with a_failure_said():
            board.write_csv(board.leaderboard(results), results / "leaderboard.csv")
    raise typer.Exit(0 if good else 1)
