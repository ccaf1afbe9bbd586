"""One job, start to end, in a process of its own: load, split, fit, score, record.

``python -m bench.running.worker`` reads a `Job` as one line of JSON from standard input, writes
events as lines of JSON to standard output, and everything that a method prints goes to standard
error, which the runner keeps in a log. When that input closes, the runner is gone and the worker
ends; what a method reads as standard input is empty.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.core import machine, splits
from bench.core.errors import BenchError
from bench.core.levels import Level
from bench.core.trial import Trial, canonical_digest, fitted_as, method_of
from bench.data import datasets
from bench.records import projections, scoring, views
from bench.records.scoring import Record
from bench.records.store import Store
from bench.records.views import View
from bench.running import stages
from bench.running.child import begin, leave
from bench.running.context import Emit, SuiteContext, request_key
from bench.running.job import Job
from bench.running.libraries import import_libraries
from bench.running.stages import ArrayStore, DigestMemo, StageKey, StageStore
from methods import registry
from methods.method import Arrays, Method, StageRequest, said_of_changes


@dataclass(frozen=True)
class Asked:
    """What it took to ask a method for the images to label: its own seconds, and its stages."""

    seconds: float = 0.0
    stages: Sequence[Mapping[str, Any]] = ()


@dataclass
class Fit:
    """What one fit gave: arrays for the cache, facts for the record."""

    arrays: Arrays
    facts: dict[str, Any] = field(default_factory=dict)

    def after(self, asked: Asked) -> Fit:
        """The same, which cost also what came before it: a kept fit may serve another asking."""
        cost = self.facts["cost"]
        known = {stage["key"] for stage in cost["stages"]}
        used = [*(s for s in asked.stages if s["key"] not in known), *cost["stages"]]
        own = {
            "fit_seconds": cost["fit_seconds"] + asked.seconds,
            "stage_seconds": sum(stage["seconds"] for stage in used),
            "stages": used,
        }
        return Fit(self.arrays, self.facts | {"cost": cost | own})


class Worker:
    """Carries one `Job` out.

    Parameters
    ----------
    job : what to do.
    emit : takes events for the runner.
    """

    def __init__(self, job: Job, emit: Emit) -> None:
        self.job = job
        self.emit = emit
        self.trial = job.trials[0]
        _register_methods(job)
        self.fitted = fitted_as(self.trial)  # of all trials of the job
        self.entry = registry.get(self.fitted.method)
        self.precision = machine.resolve_precision(self.trial.precision, job.device)
        self.environment = machine.describe(
            job.device, self.precision, job.threads, job.concurrency
        )
        self.data = datasets.load(job.source, log=print)
        if self.data.digest != self.trial.dataset_digest:
            raise BenchError(
                f"{job.source} has changed since the run was planned; start the run again"
            )
        self.parts = splits.partition(self.trial.protocol, len(self.data.y), self.data.n_train)
        self.X = self.data.X[self.parts.fit]
        self.y = self.data.y[self.parts.fit]
        self.cache = Path(job.cache)
        self.work_seconds = 0.0
        self.fresh: set[str] = set()  # the fits that this job has made anew
        self.digests = DigestMemo()

    def run(self) -> None:
        """Compute the stage, or fit once and write a record for every trial of the job.

        The last event says how long the method itself worked; the rest is what the suite costs.
        """
        if self.job.stage:
            self._compute_stage()
        else:
            for trial in self.job.trials:
                self.emit({"event": "trial", "title": trial.title})
                self._write(*self._record_of(trial))
        self.emit({"event": "worked", "seconds": self.work_seconds})

    def _compute_stage(self) -> None:
        context = self._context("stages")
        method = self._method()
        for request in method.stages(self._n_labels(self.trial)):
            if self._key(request).text == self.job.stage:
                start = time.perf_counter()
                context.stage(
                    request.function, self.X, random_state=self.trial.seed, **request.params
                )
                self.work_seconds += time.perf_counter() - start
                self.emit({"event": "record", "path": self.job.stage})

    def _key(self, request: StageRequest) -> StageKey:
        return request_key(request, self.digests(self.X), self.trial.seed, self.precision)

    def _method(self) -> Method:
        return method_of(self.fitted)

    def _n_labels(self, trial: Trial) -> int:
        return Level.parse(trial.level).n_labels(len(self.y))

    def _record_of(self, trial: Trial) -> tuple[Record, View | None]:
        """Fit (or take the fit from the cache), score, and say how it went."""
        n_labels = self._n_labels(trial)
        tags = registry.get(trial.method).tags
        if tags.needs_labels and n_labels == 0:
            message = f"{trial.method} learns from labels alone; there are none at {trial.level}"
            return self._failure(trial, "n/a", message), None
        taken = self._taken_over(trial)
        if taken is not None:
            return taken, None
        try:
            labelled, asked = self._labelled(trial, n_labels)
            y = splits.reveal(self.y, labelled)
            if tags.needs_every_class and n_labels:
                splits.require_every_class(y, self.data.n_classes)
            if not self.entry.tags.uses_labels:  # one fit serves all levels: it sees none of them
                y = splits.reveal(self.y, np.array([], dtype=np.int64))
            fit = self._fit(fitted_as(trial), y).after(asked)
            return self._success(trial, fit, labelled), self._view(trial, fit)
        except KeyboardInterrupt:  # of the user: no record says that the trial failed
            raise
        except BaseException as error:  # whatever a method raises becomes its record; sys.exit too
            traceback.print_exc()
            status = _status_of(error)
            text = str(error) or type(error).__name__
            message = text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"
            failed = self._failure(trial, status, message, traceback=traceback.format_exc())
            return failed, None

    def _taken_over(self, trial: Trial) -> Record | None:
        """The record of the method that this one is without labels, if there is one, as its own."""
        fitted = fitted_as(trial)
        if fitted.method == trial.method or self.job.fresh:
            return None
        record = Store(Path(self.job.results)).read_current(fitted)
        return None if record is None else scoring.taken_over(record, trial)

    def _labelled(self, trial: Trial, n_labels: int) -> tuple[np.ndarray, Asked]:
        """The indices whose labels are revealed; under ``representative`` the method asks."""
        if trial.selection != "representative" or n_labels == 0:
            selection = "stratified" if n_labels == 0 else trial.selection
            return splits.labelled_indices(self.y, n_labels, selection, trial.seed), Asked()
        parts = [trial.to_json(), n_labels, self.entry.cls.version, self.precision, self.job.device]
        context = self._context("select-" + canonical_digest(parts)[:24])
        start = time.perf_counter()
        wanted = self._method().select(self.X, n_labels, context=context)
        seconds = time.perf_counter() - start - context.stage_wall_s + context.spent_before_s
        self.work_seconds += seconds
        context.clear()
        labelled = splits.check_selected(wanted, n_labels, len(self.y))
        return labelled, Asked(seconds, context.stage_costs)

    def _fit_key(self, trial: Trial, y: np.ndarray) -> str:
        """What a fit depends on: of the selection and the level, what they reveal.

        The versions of the stages that it used are compared when a kept fit is read. Two files of
        two authors may both call a method theirs, and a file is edited before anybody thinks of
        versions: what is not of this package has its content in the key.
        """
        parts = [
            stages.FORMAT,
            trial.method,
            self.entry.cls.version,
            dict(trial.params),
            trial.dataset_digest,
            trial.protocol,
            trial.seed,
            self.precision,
            self.job.device,
            splits.digest(np.flatnonzero(y >= 0), len(y)),
        ]
        return canonical_digest([*parts, *_content_of_plugin(self.entry)])[:24]

    def _fit(self, trial: Trial, y: np.ndarray) -> Fit:
        """The fit of this trial, computed once and kept in the cache."""
        key = self._fit_key(trial, y)
        store = ArrayStore(self.cache / "fits")
        with store.lock(key):
            if self.job.fresh and key not in self.fresh:
                self.fresh.add(key)
                store.remove(key)
                self._context(key).clear()
            found = store.read(key)
            if found is not None and stages.are_current(found[1]["cost"]["stages"]):
                return Fit(*found)
            fit = self._compute(key, y)
            try:
                store.write(key, fit.arrays, fit.facts)
            except OSError as error:  # the fit is there, and its record counts
                print(f"the fit cannot be kept in {store.root}: {error.strerror or error}")
        return fit

    def _compute(self, key: str, y: np.ndarray) -> Fit:
        """Fit the method on the images and the revealed labels, and time it."""
        context = self._context(key)
        method = self._method()
        given = method.get_params(deep=False)
        before = copy.deepcopy(given)
        start = time.perf_counter()
        method.fit(self.X, y, context=context)
        fitted = time.perf_counter()
        if said := said_of_changes(before, given):
            raise BenchError(said)
        known = self.data.n_classes if (y >= 0).any() and self.entry.tags.uses_labels else None
        arrays = {"labels": scoring.check_output(method.labels_, len(y), "labels_", known)}
        if self.parts.n_test:
            X_test = self.data.X[self.parts.test]
            given = method.predict(X_test)
            arrays["labels_test"] = scoring.check_output(given, len(X_test), "predict(X)", known)
        predicted = time.perf_counter()
        self.work_seconds += predicted - start
        arrays |= self._optional(method)
        facts: dict[str, Any] = {
            "fit": key,
            "cost": {
                "fit_seconds": fitted - start - context.stage_wall_s + context.spent_before_s,
                "predict_seconds": predicted - fitted,
                "stages": context.stage_costs,
                "peak_memory_mib": max(
                    [machine.peak_memory_mib()]
                    + [stage["peak_memory_mib"] for stage in context.stage_costs]
                ),
            },
            "environment": self.environment,
            "history": context.history,
        }
        # last: no part of what the fit costs
        arrays |= self._for_figures(method, projections.EMBEDDING, "transform", projections.embed)
        arrays |= self._for_figures(method, views.RECONSTRUCTION, "reconstruct", views.reconstruct)
        context.clear()
        return Fit(arrays, facts)

    def _optional(self, method: Method) -> Arrays:
        """The attributes that a method need not have; what cannot be kept is left out, and said."""
        arrays = {}
        for name, attribute in (("clusters", "cluster_labels_"), ("soft", "probabilities_")):
            try:
                given = getattr(method, attribute, None)
                if given is not None:
                    arrays[name] = _numbers(given)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # whatever a method has there: its labels are scored
                traceback.print_exc()
                said = f"{type(error).__name__}: {error}"
                print(f"warning: {self.fitted.title} is scored without its {attribute}: {said}")
        return arrays

    def _for_figures(
        self, method: Method, name: str, by: str, give: Callable[[Method, np.ndarray], np.ndarray]
    ) -> Arrays:
        """What a figure needs of some fitted images; empty where none is kept or can be."""
        fitted = self.fitted
        try:
            if not projections.kept(method, by, fitted.level, fitted.seed):
                return {}
            return {name: give(method, self.X)}
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a method raises: a figure less loses no trial
            traceback.print_exc()
            print(f"warning: {fitted.title} keeps no {name}: {type(error).__name__}: {error}")
            return {}

    def _success(self, trial: Trial, fit: Fit, labelled: np.ndarray) -> Record:
        tested = "labels_test" in fit.arrays
        scores = scoring.score(
            self.y,
            fit.arrays["labels"],
            labelled,
            n_classes=self.data.n_classes,
            names_needed=not self.entry.tags.uses_labels,
            n_clusters=trial.params["n_clusters"],
            y_test=self.data.y[self.parts.test] if tested else None,
            labels_test=fit.arrays["labels_test"] if tested else None,
        )
        return scoring.make(
            trial,
            "ok",
            n_labels=len(labelled),
            **scoring.headline(trial.protocol, len(labelled), scores),
            **scores,
            **scoring.whose_fit(trial),
            **fit.facts,
            versions=self._versions(fit.facts["cost"]["stages"]),
            digests=self._digests(labelled),
        )

    def _view(self, trial: Trial, fit: Fit) -> View | None:
        """What figures show of the clusters: of seed 0, where there are soft assignments."""
        if trial.seed != 0 or "soft" not in fit.arrays:
            return None
        try:
            columns = self.entry.tags.columns
            return views.make(trial.identity, self.y, fit.arrays, self.data.class_names, columns)
        except BenchError as error:  # a figure less is no reason to lose the trial
            print(f"{trial.title} has no views: {error}")
            return None

    def _failure(self, trial: Trial, status: str, message: str, **parts: Any) -> Record:
        return scoring.failure(
            trial,
            status,
            message,
            self.environment,
            n_labels=self._n_labels(trial),
            **scoring.whose_fit(trial),
            versions=self._versions(()),
            digests=self._digests(None),
            **parts,
        )

    def _digests(self, labelled: np.ndarray | None) -> dict[str, Any]:
        split = None if labelled is None else splits.digest(labelled, len(self.y))
        return {"dataset": self.data.digest, "split": split}

    def _versions(self, used: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """The declared versions of the method and of the stages that it used."""
        by_name = {stage["name"]: stage["version"] for stage in used}
        return {"method": self.entry.cls.version, "stages": by_name}

    def _context(self, name: str) -> SuiteContext:
        return SuiteContext(
            StageStore(self.cache / "stages"),
            self.cache / "checkpoints" / name,
            self.emit,
            device=self.job.device,
            precision=self.precision,
            threads=self.job.threads,
            digests=self.digests,
        )

    def _write(self, finished: Record, view: View | None) -> None:
        shown = None if view is None else view.to_json()
        path = Store(Path(self.job.results)).write(finished, shown)
        self.emit(
            {
                "event": "record",
                "path": str(path),
                "status": finished["status"],
                "headline": finished.get("headline"),
                "message": scoring.error_message(finished),
            }
        )


def _numbers(given: Any) -> np.ndarray:
    """An array that can be kept.

    Raises
    ------
    ValueError : it is none, or not of numbers.
    """
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"it is an array of {array.dtype}; expected numbers")
    return array


def _content_of_plugin(entry: registry.Entry) -> list[str]:
    """The digest of the file that a method comes from, where that is no file of this package."""
    path = Path(entry.origin)
    if entry.module or not path.is_file():
        return []
    return [hashlib.sha256(path.read_bytes()).hexdigest()]


def _register_methods(job: Job) -> None:
    """Register the methods of a job.

    To import all methods is most of what a short trial costs, so it is done only where the module
    that the job names does not have them all.

    Raises
    ------
    BenchError : there is no such method any more; what is wrong with a plugin is said with it.
    """
    problems = registry.load(job.module) if job.module else []
    with contextlib.suppress(registry.RegistryError):
        for trial in job.trials:
            fitted_as(trial)
        return
    problems += registry.discover(job.plugins)
    try:
        fitted_as(job.trials[0])
    except registry.RegistryError as error:
        said = dict.fromkeys([str(error), *(problem.message for problem in problems)])
        raise BenchError("; ".join(said)) from error


def _status_of(error: BaseException) -> str:
    """``out-of-memory`` where `error`, or what made a stage fail, says so; else ``failed``.

    torch has an exception of its own for the memory of the accelerator.
    """
    errors = (error, error.__cause__)
    if any(isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError" for e in errors):
        return "out-of-memory"
    return "failed"


def main() -> int:
    """Carry out the job given on standard input; 0 even if trials failed (their records say so)."""
    emit, line = begin()
    job = Job.loads(line)
    import_libraries()  # at once in a fork; in a new process before any clock runs
    import torch

    torch.set_num_threads(job.threads)
    try:
        Worker(job, emit).run()
    except Exception as error:  # the runner turns it into the records of the whole job
        traceback.print_exc()
        emit(
            {
                "event": "error",
                "status": _status_of(error),
                "message": str(error) or type(error).__name__,
                "traceback": traceback.format_exc(),
            }
        )
        return 1
    return 0


if __name__ == "__main__":
    leave(main())
