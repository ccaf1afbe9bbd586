"""What a run has to do: which trials are missing, which stages they share, what it may cost."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from bench.core.levels import Level
from bench.core.trial import Trial, canonical_digest, fitted_as, method_of
from bench.records.scoring import FAILURES
from bench.records.store import Store, is_stale
from bench.running.context import request_key
from bench.running.costs import Costs
from bench.running.job import Job
from bench.running.stages import StageStore
from methods import registry
from methods.method import StageRequest, stage_resumes


@dataclass(frozen=True)
class Task:
    """One job with its place in the plan: the stages it waits for, what it may cost."""

    job: Job
    needs: tuple[str, ...] = ()
    seconds: float | None = None

    @property
    def resumes(self) -> bool:
        """Whether it goes on from a checkpoint after it was killed."""
        if self.job.stage:
            return stage_resumes(self.job.stage.partition("/")[0])
        return registry.get(fitted_as(self.job.trials[0]).method).tags.resumes

    @property
    def title(self) -> str:
        """For a person: the stage, or the trials with all their levels."""
        if self.job.stage:
            return f"stage {self.job.stage.partition('/')[0]}"
        first, *others = self.job.trials
        if not others:
            return first.title
        levels = ", ".join(trial.level for trial in self.job.trials)
        return first.title.replace(f" · {first.level} · ", f" · {levels} · ")


@dataclass
class Shared:
    """A stage of the plan: what it computes, for how many trials, whether it is there already."""

    name: str
    params: dict[str, Any]
    there: bool
    n_trials: int = 0


@dataclass
class Plan:
    """Tasks in the order they should start, and what was found before them.

    `replaced` are trials that will run though there is a record at their place: of other
    parameters, an older default say, or other images. `notes` are sentences for whoever runs it.
    """

    tasks: list[Task]
    done: list[Trial]
    stale: list[Trial]
    failed_before: list[Trial]
    shared: dict[str, Shared] = field(default_factory=dict)
    replaced: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def trials(self) -> list[Trial]:
        """The trials that will run."""
        return [t for task in self.tasks if not task.job.stage for t in task.job.trials]

    @property
    def asked(self) -> list[Trial]:
        """All trials that it was made for: those that will run, and those that have a record."""
        found = [*self.trials, *self.done, *self.stale, *self.failed_before]
        return list({trial.identity: trial for trial in found}.values())

    @property
    def seconds(self) -> float:
        """The estimate, of the tasks for which there is one."""
        return sum(task.seconds for task in self.tasks if task.seconds is not None)

    @property
    def unknown(self) -> int:
        """How many tasks there is no estimate for."""
        return sum(task.seconds is None for task in self.tasks)


@dataclass(frozen=True)
class Surroundings:
    """What a plan depends on besides the trials.

    Parameters
    ----------
    template : a job whose fields other than trials and stage every job takes over.
    n_fit, X_digest : number and digest of the images that methods are fitted on.
    precision : resolved, ``fp32`` or ``bf16``.
    store, stages : the records and the shared stages there are.
    """

    template: Job
    n_fit: int
    X_digest: str
    precision: str
    store: Store
    stages: StageStore


def make_plan(trials: Iterable[Trial], around: Surroundings, rerun: str | None = None) -> Plan:
    """What has to be done so that every one of `trials` has a record, cheapest first.

    Without `rerun` that is what has no record yet; ``stale``, ``failed`` or ``all`` add those
    whose record an older version made, that failed, or every one.
    """
    plan = Plan([], [], [], [])
    pending = [trial for trial in trials if _is_pending(trial, around.store, rerun, plan)]
    job = around.template
    costs = Costs.load(around.store, job.device, around.precision, job.threads)
    tasks = [_task(job, around, costs, plan.notes) for job in _jobs(pending, around.template)]
    tasks.sort(key=lambda task: _order(*task))
    placed: set[str] = set()
    for task, requests in tasks:
        needs: list[str] = []
        for key, wanted in requests.items():
            shared = plan.shared.setdefault(key, wanted.shared)
            shared.n_trials += wanted.n_trials
            if key not in placed and not shared.there:
                placed.add(key)
                # A method names its stages in the order in which they build on each other.
                plan.tasks.append(Task(wanted.job, tuple(needs), wanted.seconds))
            if key in placed:
                needs.append(key)
        plan.tasks.append(Task(task.job, tuple(needs), task.seconds))
    return plan


def without_stages(plan: Plan) -> Plan:
    """The same plan for machines that do not share what they keep: each fit sees to its stages."""
    fits = [replace(task, needs=()) for task in plan.tasks if not task.job.stage]
    return replace(plan, tasks=fits, shared={})


def _is_pending(trial: Trial, store: Store, rerun: str | None, plan: Plan) -> bool:
    """Whether `trial` has to run; notes in `plan` what was found of it."""
    record = store.read(trial)
    if record is None:
        if store.path(trial).exists():
            plan.replaced.append(trial)
        return True
    if record["status"] in FAILURES:
        plan.failed_before.append(trial)
        return rerun in ("failed", "all")
    if is_stale(record):
        plan.stale.append(trial)
        return rerun in ("stale", "all")
    plan.done.append(trial)
    return rerun == "all"


def _jobs(pending: list[Trial], template: Job) -> list[Job]:
    """One job per fit: the levels of a method that ignores labels share one.

    So does the level without labels of a method that is that one then.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in pending:
        fitted = fitted_as(trial)
        shared = not registry.get(fitted.method).tags.uses_labels
        fields = fitted.to_json() | {"level": None if shared else trial.level}
        groups.setdefault(canonical_digest(fields), []).append(trial)
    return [
        replace(template, trials=tuple(group), module=registry.get(group[0].method).module)
        for group in groups.values()
    ]


@dataclass
class Wanted:
    """A stage that one task asks for: the job that computes it, its cost, for how many trials."""

    job: Job
    seconds: float | None
    shared: Shared
    n_trials: int = 0


Requests = dict[str, Wanted]


def _task(job: Job, around: Surroundings, costs: Costs, notes: list[str]) -> tuple[Task, Requests]:
    """A job with the stages that it will ask for (key, the job that computes it, its cost)."""
    requests: Requests = {}
    for trial in job.trials:
        fitted = fitted_as(trial)
        taken = fitted.method != trial.method and not job.fresh
        if taken and around.store.read_current(fitted) is not None:
            continue  # that record becomes this trial's own
        n_labels = Level.parse(trial.level).n_labels(around.n_fit)
        for request in _stages_of(fitted, n_labels, notes):
            key = request_key(request, around.X_digest, trial.seed, around.precision)
            if key.text not in requests:
                requests[key.text] = Wanted(
                    replace(job, trials=(trial,), stage=key.text),
                    costs.stage(trial, request.name, request.params),
                    Shared(request.name, dict(request.params), around.stages.has(key)),
                )
            requests[key.text].n_trials += 1
    return Task(job, seconds=costs.job(job)), requests


def _stages_of(fitted: Trial, n_labels: int, notes: list[str]) -> Iterable[StageRequest]:
    """What the method says that it will ask for; where it fails nothing, and a note."""
    try:
        return list(method_of(fitted).stages(n_labels))
    except Exception as error:  # a plugin's own: its fit may still go well
        said = registry.in_a_line(error, inspect.getfile(type(method_of(fitted))))
        notes.append(f"{fitted.title} is planned without stages: stages({n_labels}) raises {said}")
        return []


def _order(task: Task, requests: Requests) -> tuple[int, bool, float]:
    """Cheapest first, seed by seed; a task of unknown cost comes after the known ones."""
    missing = [wanted for wanted in requests.values() if not wanted.shared.there]
    parts = [task.seconds, *(wanted.seconds for wanted in missing)]
    known = [seconds for seconds in parts if seconds is not None]
    return task.job.trials[0].seed, len(known) < len(parts), sum(known)
