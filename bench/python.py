"""What ``bench`` offers in Python: ``bench.run(...)``, in scripts, at a prompt, in Jupyter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.commands.output import print_ran
from bench.core.choices import results_folder
from bench.running import api
from bench.running.runner import Summary


def run(
    methods: str | Sequence[str] | None = None,
    levels: str | Sequence[str] = ("shares",),
    seeds: int | Sequence[int] = 1,
    *,
    protocol: str = "transductive",
    selection: str = "stratified",
    schedule: str = "quick",
    dataset: str | Path = "fashion-mnist",
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    precision: str = "auto",
    plugins: str | Path | Sequence[str | Path] = (),
    results: str | Path | None = None,
    jobs: int | str = 1,
    timeout_s: float | None = None,
    for_s: float | None = None,
    memory: str | int | None = None,
    device: str = "auto",
    backend: str = "local",
    scheduler: str | None = None,
    rerun: str | None = None,
    dry_run: bool = False,
    quiet: bool = False,
    console: Console | None = None,
) -> Summary:
    """Run every trial that is asked for and missing, show the board, write ``leaderboard.csv``.

    Parameters
    ----------
    methods : names, or one; None stands for all that are part of ``--all``.
    levels : shares such as ``"5%"`` and numbers of labels such as ``"500"``; ``"few"`` stands for
        10 to 500 labels and ``"shares"`` for 0 to 50 %, as far as the data allow.
    seeds : how many (3: seeds 0, 1 and 2), or which: ``[0, 3, 4]``.
    protocol : ``transductive``, ``inductive`` or ``inductive-55k``.
    selection : how labelled images are chosen: ``stratified``, ``random``, ``first`` or
        ``representative``.
    schedule : how long methods train: ``paper``, ``quick`` or ``smoke``.
    dataset : ``fashion-mnist``, ``digits``, or the path of an ``.npz`` file or a folder.
    changes : per method the parameters other than its own: ``{"dcec": {"lam": 0.1}}``.
    precision : ``fp32``, ``bf16``, or ``auto``: bf16 where the device has it natively.
    plugins : files that register methods.
    results : folder of the records; None stands for ``$BENCH_RESULTS``, or ``my-results``.
    jobs : processes at a time, which share the threads of this machine; ``"auto"``: one for each
        core as far as memory allows.
    timeout_s : seconds after which a trial or stage is killed; None sets no limit.
    for_s : seconds that the whole run may take: nothing is started that is known to take longer and
        keeps no checkpoints; what runs then goes on another time. None sets no limit.
    memory : bytes, or a text such as ``"8G"``, at more than which a trial or stage is killed, with
        all that it has started; None sets no limit.
    device : ``auto``, ``cpu`` or ``cuda``.
    backend, scheduler : ``local``, or ``dask`` with the address of a scheduler.
    rerun : ``stale``, ``failed`` or ``all``: run again what has a record.
    dry_run : print the plan and stop.
    quiet : print nothing, neither plan nor progress nor board.
    console : where to print; None stands for this terminal, or the cell of a notebook.

    Returns
    -------
    Summary with the number of trials per status and the exit status.

    Raises
    ------
    BenchError, RegistryError : something asked for does not exist or does not fit together.
    """
    folder = results_folder(results)
    wish = api.Wish(
        methods=methods,
        levels=levels,
        seeds=seeds,
        protocol=protocol,
        selection=selection,
        schedule=schedule,
        dataset=dataset,  # type: ignore[arg-type]  # a path is taken for its text
        changes=changes,
        precision=precision,
        plugins=plugins,  # type: ignore[arg-type]  # one path is taken for a list of one
    )
    told = console or Console(quiet=quiet)
    summary = api.run(
        wish,
        results=folder,
        jobs=jobs,
        timeout_s=timeout_s,
        for_s=for_s,
        device=device,
        backend=backend,
        scheduler=scheduler,
        memory=memory,
        rerun=rerun,
        dry_run=dry_run,
        console=told,
    )
    if not dry_run and not told.quiet:
        print_ran(summary, folder, told, told, told)
    return summary
