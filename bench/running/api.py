"""From a wish (methods, levels, seeds) to records and a leaderboard."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.core import machine, splits
from bench.core.choices import (
    check_choices,
    check_parameter,
    check_seconds,
    results_folder,
    seed_list,
)
from bench.core.errors import BenchError
from bench.core.files import check_writable
from bench.core.levels import said_of_count, suitable_levels
from bench.core.texts import printable
from bench.core.trial import Grid, check_suitable
from bench.data import datasets
from bench.records.store import Store
from bench.running.cluster import Cluster, dask_cluster
from bench.running.context import seconds_between_checkpoints
from bench.running.execution import fork_server
from bench.running.forkserver import ForkServer, is_available
from bench.running.job import Job
from bench.running.memory import parse as parse_memory
from bench.running.plan import Plan, Shared, Surroundings, make_plan, without_stages
from bench.running.progress import Display, duration
from bench.running.runner import Limits, Runner, Summary
from bench.running.stages import StageStore, array_digest
from methods import registry
from methods.registry import Entry, Problem
from methods.toolkit.fast import compiled, cuda_graphs


@dataclass(frozen=True)
class Wish:
    """What a run is asked for; the fields are the options of ``bench run``.

    `methods` None stands for all that are part of ``--all``. Among `levels`, ``"few"`` stands for
    10 to 500 labels and ``"shares"`` for 0 to 50 %, as far as the data allow. `changes` gives, per
    method, the parameters other than its own.
    """

    methods: Sequence[str] | None = None
    levels: Sequence[str] = ("shares",)
    seeds: int | Sequence[int] = 1
    protocol: str = "transductive"
    selection: str = "stratified"
    schedule: str = "quick"
    dataset: str = "fashion-mnist"
    changes: Mapping[str, Mapping[str, Any]] | None = None
    precision: str = "auto"
    plugins: Sequence[str | Path] = ()

    def __post_init__(self) -> None:
        """Take one method, level or plugin for a list of one, and a dataset's path for its text.

        Raises
        ------
        BenchError : something is of a type that has no such meaning.
        """
        found: dict[str, Any] = {
            "levels": _listed("levels", self.levels, str),
            "plugins": _listed("plugins", self.plugins or (), str, Path),
            "changes": _checked_changes(self.changes),
        }
        if self.methods is not None:
            found["methods"] = _listed("methods", self.methods, str)
        if not isinstance(self.dataset, str | Path):
            raise BenchError(f"dataset is {self.dataset!r}; expected its name or path")
        for name, value in found.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "dataset", str(self.dataset))


def _listed(what: str, given: Any, *kinds: type) -> list[Any]:
    """One, or some of these kinds, as a list."""
    try:
        found = [given] if isinstance(given, kinds) else list(given)
    except TypeError:
        found = [None]
    if not all(isinstance(one, kinds) for one in found):
        raise BenchError(f"{what} is {given!r}; expected a text, or a list of texts")
    return found


def _checked_changes(changes: Any) -> dict[str, dict[str, Any]]:
    """The changed parameters of each method; numpy's numbers as Python's."""
    expected = 'expected {"dcec": {"lam": 0.1}}, say: for each method the parameters by name'
    if not isinstance(changes, Mapping | None):
        raise BenchError(f"changes is {changes!r}; {expected}")
    found: dict[str, dict[str, Any]] = {}
    for method, params in (changes or {}).items():
        named = isinstance(params, Mapping) and all(isinstance(x, str) for x in (method, *params))
        if not named:
            raise BenchError(f"changes is {changes!r}; {expected}")
        plain = {name: x.item() if isinstance(x, np.generic) else x for name, x in params.items()}
        for name, value in plain.items():
            check_parameter(f"changes: {method}.{name}", value)
        found[method] = plain
    return found


def run(
    wish: Wish,
    *,
    results: str | Path,
    jobs: int | str = 1,
    timeout_s: float | None = None,
    for_s: float | None = None,
    device: str = "auto",
    backend: str = "local",
    scheduler: str | None = None,
    memory: str | int | None = None,
    rerun: str | None = None,
    dry_run: bool = False,
    console: Console,
) -> Summary:
    """Run every trial that is asked for and missing, then write ``leaderboard.csv``.

    Parameters
    ----------
    wish : what to run.
    results : folder of the records.
    jobs : processes at a time; the threads of this machine are divided among them. ``"auto"``:
        see `machine.resolve_jobs`, `Cluster.jobs`.
    timeout_s : seconds after which a trial or stage is killed; None sets no limit.
    for_s : seconds that the whole run may take (`Limits.until`); None: as long as it needs.
    device : ``auto``, ``cpu`` or ``cuda``.
    backend, scheduler : ``local``, or ``dask`` with the address of a scheduler.
    memory : bytes, or a text such as ``"8G"``, at more than which a trial or stage is killed, with
        all that it has started; None sets no limit.
    rerun : ``stale``, ``failed`` or ``all``: run again what has a record.
    dry_run : print the plan and stop.
    console : where to print the plan and the progress.

    Returns
    -------
    Summary with the number of trials per status and the exit status.

    Raises
    ------
    BenchError, RegistryError : something asked for does not exist or does not fit together.
    """
    start = time.monotonic()
    limit = parse_memory(memory)
    folder = results_folder(results)
    _check_options(wish, folder, {"timeout_s": timeout_s, "for_s": for_s}, device, backend, rerun)
    until = None if for_s is None else start + for_s
    on_dask = dask_cluster(scheduler, folder.resolve()) if backend == "dask" else None
    with _means(jobs, device, on_dask, console, dry_run=dry_run) as means:
        problems = registry.discover(wish.plugins)
        for problem in problems:
            _say(console, problem.message, "red")
        wish = _without_unusable(wish, problems)
        plan, around = _plan(wish, _template(wish, folder, means, rerun), rerun, means, console)
        if not dry_run and plan.tasks:
            check_writable(folder)
            for trial in plan.trials:
                around.store.check_below(around.store.path(trial))
        if means.server is not None and not plan.tasks:
            means.server.close()
        summary = Summary({})
        if not dry_run:
            limits = Limits(means.jobs, timeout_s, limit, until)
            summary = _carry_out(plan, limits, around, console, means)
        summary.asked = plan.asked
    summary.broken_plugins = len(problems)
    summary.seconds, summary.jobs = time.monotonic() - start, means.jobs
    return summary


def _without_unusable(wish: Wish, problems: Iterable[Problem]) -> Wish:
    """The wish for the other methods, where some of those that it names cannot be used."""
    lost = {problem.entry.name for problem in problems if problem.entry}
    changes = {name: x for name, x in (wish.changes or {}).items() if name not in lost}
    left = [name for name in wish.methods or () if name not in lost]
    return replace(wish, methods=left or wish.methods, changes=changes)


@dataclass(frozen=True)
class Means:
    """What a run has: jobs at a time, threads of each, the device, and who starts its workers.

    On this machine the device is still as asked for, ``auto`` say: to resolve it imports torch.
    """

    jobs: int
    threads: int
    device: str
    server: ForkServer | None = None
    cluster: Cluster | None = None

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise BenchError(f"jobs is {self.jobs}; expected at least 1")

    def precision(self, asked: str, device: str) -> str:
        """``fp32`` or ``bf16``; as it was asked for where each worker resolves that for itself."""
        if self.cluster is not None and not self.cluster.shares_stages(device):
            return asked
        return machine.resolve_precision(asked, device)


@contextlib.contextmanager
def _means(
    jobs: int | str,
    device: str,
    on_dask: AbstractContextManager[Cluster] | None,
    console: Console,
    *,
    dry_run: bool,
) -> Iterator[Means]:
    """What the options come to on this machine, or on a dask cluster.

    Raises
    ------
    BenchError : one of them cannot be had.
    """
    if on_dask is not None:
        with on_dask as cluster:
            _say(console, str(cluster))
            on = cluster.device(device)
            yield Means(cluster.jobs(jobs, on), cluster.threads, on, cluster=cluster)
        return
    n = machine.resolve_jobs(jobs, device)
    alone = Means(n, max(1, machine.core_count() // max(1, n)), device)
    if dry_run or not is_available():
        yield alone
        return
    with _server(alone.threads) as server:
        yield replace(alone, server=server)


def _server(threads: int) -> AbstractContextManager[ForkServer]:
    """What is going to fork workers; it imports their libraries while the run is planned."""
    return fork_server(threads, str(datasets.cache_dir() / "logs" / "workers.log"))


def _plan(
    wish: Wish, template: Job, rerun: str | None, means: Means, console: Console
) -> tuple[Plan, Surroundings]:
    """What there is to do, told to `console`, and where it is done."""
    entries = choose(wish, console)
    _say(console, f"loading {wish.dataset} …")
    data = datasets.load(wish.dataset, log=lambda text: _say(console, text))
    part = splits.partition(wish.protocol, len(data.y), data.n_train)
    splits.require_fitted(data.y, part, wish.protocol, class_names=data.class_names)
    around = Surroundings(
        template=template,
        n_fit=part.n_fit,
        X_digest=array_digest(data.X[part.fit]),
        precision=means.precision(wish.precision, template.device),
        store=Store(Path(template.results)),
        stages=StageStore(Path(template.cache) / "stages"),
    )
    n_classes = len(np.unique(data.y[part.fit]))
    for reading in filter(None, map(said_of_count, wish.levels)):
        _say(console, reading)
    levels, left_out = suitable_levels(
        wish.levels, wish.protocol, wish.selection, part.n_fit, n_classes
    )
    for reason in left_out:
        _say(console, f"left out: {reason}")
    trials = _grid(wish, entries, levels, data).trials()
    plan = make_plan(trials, around, rerun)
    if means.cluster is not None and not means.cluster.shares_stages(template.device):
        plan = without_stages(plan)
    _say(console, describe(plan, around))
    return plan, around


def _say(console: Console, text: str, style: str = "") -> None:
    """Print text as it is: what stands in brackets is no markup, and nothing commands."""
    console.print(printable(text), style=style, markup=False, highlight=False)


def _source(dataset: str) -> str:
    """The dataset as a worker in any folder finds it: a file or folder by its whole path."""
    path = datasets.own_path(dataset)
    return dataset if path is None else str(path.absolute())


def _template(wish: Wish, results: Path, means: Means, rerun: str | None) -> Job:
    """What all jobs of the run have in common."""
    return Job(
        trials=(),
        source=_source(wish.dataset),
        results=str(results.resolve()),
        cache=str(datasets.cache_dir().resolve()),
        plugins=tuple(str(Path(plugin).resolve()) for plugin in wish.plugins),
        device=means.device if means.cluster else machine.resolve_device(means.device),
        threads=means.threads,
        concurrency=means.jobs,
        fresh=rerun == "all",
    )


def _check_options(
    wish: Wish,
    results: Path,
    times: Mapping[str, float | None],
    device: str,
    backend: str,
    rerun: str | None,
) -> None:
    """Refuse what would otherwise be found wrong too late, or not at all."""
    check_choices(
        protocol=wish.protocol,
        selection=wish.selection,
        schedule=wish.schedule,
        precision=wish.precision,
        device=device,
        backend=backend,
        rerun=rerun,
    )
    seed_list(wish.seeds)
    for name, given in times.items():
        check_seconds(name, given)
    if not wish.levels:
        raise BenchError("no level is given; expected some such as 5% or 500")
    seconds_between_checkpoints()
    try:
        cuda_graphs.wanted()
        compiled.wanted()
    except ValueError as error:
        raise BenchError(str(error)) from error
    if results.exists() and not results.is_dir():
        raise BenchError(f"results is {results}, which is no folder; name another one")
    try:
        (datasets.cache_dir() / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"nothing can be kept in the cache folder: {error}"
        raise BenchError(f"{message}; set BENCH_CACHE to a folder of yours") from error


def choose(wish: Wish, console: Console) -> tuple[Entry, ...]:
    """The methods asked for; under ``--all`` those that do not fit the protocol are left out.

    Raises
    ------
    BenchError : a method asked for by name does not fit, or none is left.
    RegistryError : no such method.
    """
    if wish.methods is not None:
        entries = [registry.get(name) for name in dict.fromkeys(wish.methods)]
        reasons = check_suitable(entries, wish.protocol, wish.selection)
        if reasons:
            raise BenchError("; ".join(reasons))
    else:
        everything = [registry.get(name) for name in registry.names()]
        entries = []
        for entry in (e for e in everything if e.tags.in_all):
            reasons = check_suitable([entry], wish.protocol, wish.selection)
            for reason in reasons:
                _say(console, f"left out: {reason}")
            if not reasons:
                entries.append(entry)
    for name in wish.changes or {}:
        if registry.get(name) not in entries:
            raise BenchError(f"--set names {name}, which is not among the methods of this run")
    if not entries:
        raise BenchError("no method is left to run; `bench list` shows all")
    return tuple(entries)


def describe(plan: Plan, around: Surroundings) -> str:
    """The plan for a person: how many trials, what they share, how long it may take."""
    template = around.template
    lines = [
        f"{len(plan.trials)} trials to run, {len(plan.done)} done before; "
        f"{template.concurrency} at a time with {template.threads} "
        f"thread{'s' if template.threads > 1 else ''} each, "
        f"on {template.device} in {around.precision}; records in {template.results}"
    ]
    for trials, why, option in (
        (plan.stale, "have a record made by an older version", "--rerun stale"),
        (plan.failed_before, "failed before", "--rerun failed"),
    ):
        left = [trial for trial in trials if trial not in plan.trials]
        if left:
            lines.append(f"{len(left)} {why} and are left as they are ({option} runs them again)")
    if plan.replaced:
        lines.append(
            f"{len(plan.replaced)} have a record of other parameters or images, which is replaced"
        )
    lines += plan.notes
    for shared in plan.shared.values():
        there = ", there already" if shared.there else ""
        which = _which(shared, plan)
        lines.append(f"  {shared.name}{which} once for {shared.n_trials} trials{there}")
    if plan.tasks:
        lines.append(_estimate(plan, template.concurrency))
    return "\n".join(lines)


def _which(shared: Shared, plan: Plan) -> str:
    """What tells a stage from the others of its name: `` (n_clusters=700)``; nothing if alone."""
    alike = [other.params for other in plan.shared.values() if other.name == shared.name]
    own = [
        f"{name}={value}"
        for name, value in shared.params.items()
        if any(name not in other or other[name] != value for other in alike)
    ]
    return f" ({', '.join(own)})" if own else ""


def _estimate(plan: Plan, jobs: int) -> str:
    if plan.unknown == len(plan.tasks):
        return "no estimate: nothing like this was measured before"
    text = f"about {duration(plan.seconds / jobs)}, judged by earlier records"
    return text + (f", and {plan.unknown} tasks of unknown length" if plan.unknown else "")


def _grid(
    wish: Wish, entries: tuple[Entry, ...], levels: Sequence[str], data: datasets.Dataset
) -> Grid:
    return Grid(
        dataset=data.name,
        dataset_digest=data.digest,
        n_classes=data.n_classes,
        entries=entries,
        levels=tuple(levels),
        seeds=wish.seeds,
        protocol=wish.protocol,
        selection=wish.selection,
        schedule=wish.schedule,
        precision=wish.precision,
        changes=wish.changes or {},
    )


def _carry_out(
    plan: Plan, limits: Limits, around: Surroundings, console: Console, means: Means
) -> Summary:
    """Run the plan and write the leaderboard, now and then and at the end."""
    results = around.store.results

    def refresh() -> None:
        from bench.records.leaderboard import leaderboard, write_csv

        write_csv(leaderboard(results), results / "leaderboard.csv")

    def refresh_meanwhile() -> None:
        """Seeds of one row may differ while records are replaced, a disk be full: go on."""
        try:
            refresh()
        except (BenchError, OSError) as error:
            _say(console, f"no leaderboard yet: {error}")

    logs = Path(around.template.cache) / "logs"
    seconds = None if plan.unknown else plan.seconds / limits.jobs
    with Display(console, len(plan.trials), seconds) as display:
        who = means.server, means.cluster
        summary = Runner(plan, limits, around.store, logs, display, refresh_meanwhile, *who).run()
    try:
        if any(around.store.paths()):
            refresh()
    except BenchError as error:  # the records are there, whether or not they have a board
        summary.unwritten = summary.unwritten or str(error)
    summary.not_run = len(plan.trials) - sum(summary.counts.values())
    summary.failed_before = len([t for t in plan.failed_before if t not in plan.trials])
    return summary
