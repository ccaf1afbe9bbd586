"""``bench run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO, cast

import typer

from bench.commands.output import Lasting, print_ran, say, wide_console
from bench.core.choices import RESULTS, check_choices, seed_list
from bench.core.errors import BenchError
from bench.core.machine import parse_jobs
from bench.options import (
    All,
    Backend,
    Changes,
    DatasetName,
    Device,
    DryRun,
    For,
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
    check_levels,
    check_methods_known,
    parse_changes,
    parse_seeds,
    parse_timeout,
    split_commas,
)


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
    time: For = "none",
    memory: Memory = "none",
    device: Device = "auto",
    precision: Precision = "auto",
    backend: Backend = "local",
    scheduler: Scheduler = None,
    rerun: Rerun = None,
    dry_run: DryRun = False,
    results: Results = RESULTS,
    plugin: Plugins = None,
) -> None:
    """Run every trial that is missing, then show the board and write the leaderboard."""
    methods = split_commas([*(names or []), *(method or [])])
    if all_methods == bool(methods):
        raise BenchError(
            "say what to run: either methods by name, or --all (`bench list` shows them)"
        )
    levels = ["shares"] if level is None else split_commas(level)
    wanted, changes = parse_seeds(seeds), parse_changes(change or [])
    limit, whole = parse_timeout(timeout), parse_timeout(time, "--for")
    check_choices(
        protocol=protocol,
        selection=selection,
        schedule=schedule,
        precision=precision,
        device=device,
        backend=backend,
        rerun=rerun,
    )
    seed_list(wanted)
    parse_jobs(jobs)
    check_levels(levels)
    check_methods_known([*methods, *changes], plugin or [])
    from bench.running.memory import parse as parse_memory

    most = parse_memory(memory)
    from rich.console import Console

    shown, told = Lasting(sys.stdout), cast(TextIO, Lasting(sys.stderr))
    console = Console(file=cast(TextIO, shown), soft_wrap=True)
    say(console, "importing torch and the methods …")
    from bench.running import api

    wish = api.Wish(
        methods=None if all_methods else methods,
        levels=levels,
        seeds=wanted,
        protocol=protocol,
        selection=selection,
        schedule=schedule,
        dataset=dataset,
        changes=changes,
        precision=precision,
        plugins=plugin or [],
    )
    summary = api.run(
        wish,
        results=results,
        jobs=jobs,
        timeout_s=limit,
        for_s=whole,
        device=device,
        backend=backend,
        scheduler=scheduler,
        memory=most,
        rerun=rerun,
        dry_run=dry_run,
        console=console,
    )
    if not dry_run:
        print_ran(summary, Path(results), console, Console(file=told), wide_console(shown))
    raise typer.Exit(summary.exit_status)
