"""What trials and stages may cost, judged by those that ran before."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from bench.core.trial import Trial, canonical_digest
from bench.records.scoring import Record
from bench.records.store import Store
from bench.running.job import Job

OVERHEAD_SECONDS = 4.0  # a job's process: interpreter, imports, data (typical)
TRUSTED_SECONDS = 60.0  # this long estimates are believed more than what tasks then took
COLUMNS = ("kind", "dataset", "protocol", "name", "params", "level")  # a key
DEVICES = ("cpu", "cuda")

Key = tuple[str, ...]


class Costs:
    """Seconds that trials and stages took: from the results at hand, else from the shipped table.

    What a GPU took says nothing of a processor: only records of the same device count. A processor
    is taken to be twice as fast with two threads as with one. What was measured in the other
    precision alone counts, times the ratio of all that was measured in both. The shipped table
    ``bench/running/costs.csv`` was derived from this project's committed records
    by ``python -m bench.running.costs RESULTS``; its first line names the machines. Its seconds are
    those of `work`; of a GPU they are high, since some fifteen processes used it at a time.

    Parameters
    ----------
    device, precision, threads : those of the jobs to come; the precision resolved.

    Attributes
    ----------
    work : seconds of one thread (of a GPU: seconds) by key and precision.
    """

    def __init__(self, device: str = "cpu", precision: str = "fp32", threads: int = 1) -> None:
        self.device = device
        self.precision = precision
        self.threads = threads if device == "cpu" else 1
        self.work: dict[Key, dict[str, float]] = defaultdict(dict)

    @classmethod
    def load(
        cls,
        store: Store | None,
        device: str = "cpu",
        precision: str = "fp32",
        threads: int = 1,
    ) -> Costs:
        """The shipped costs of this device, and over them those of the records at hand."""
        costs = cls(device, precision, threads)
        table = resources.files("bench.running").joinpath("costs.csv")
        if table.is_file():
            lines = [x for x in table.read_text().splitlines() if not x.startswith("#")]
            for of_device, *key, in_precision, seconds in csv.reader(lines[1:]):
                if of_device == device:
                    costs.work[tuple(key)][in_precision] = float(seconds)
        if store is not None:
            costs.learn(store)
        return costs

    def learn(self, records: Iterable[Record]) -> None:
        """Take over what finished trials took on the same device: the median of several."""
        found: dict[tuple[Key, str], list[float]] = defaultdict(list)
        for record in records:
            environment = record.get("environment", {})
            if environment.get("device") != self.device:
                continue
            precision = environment.get("precision", "fp32")
            threads = environment.get("threads", 1) if self.device == "cpu" else 1
            for key, seconds in _seconds(record).items():
                found[key, precision].append(seconds * threads)
        for (key, precision), work in found.items():
            self.work[key][precision] = statistics.median(work)

    def job(self, job: Job) -> float | None:
        """Seconds of a job with its process; None if one of its trials is unknown."""
        known = [self._known(_trial_key(trial)) for trial in job.trials]
        return None if None in known else max(x for x in known if x is not None) + OVERHEAD_SECONDS

    def stage(self, trial: Trial, name: str, params: Mapping[str, Any]) -> float | None:
        """Seconds of a stage with its process; None if it is unknown."""
        seconds = self._known(_stage_key(trial, name, params))
        return None if seconds is None else seconds + OVERHEAD_SECONDS

    def _known(self, key: Key) -> float | None:
        """Seconds that `key` takes with these threads in this precision."""
        measured = self.work.get(key, {})
        if self.precision in measured:
            return measured[self.precision] / self.threads
        for other, work in measured.items():
            return work * self._ratio(other) / self.threads
        return None

    def _ratio(self, other: str) -> float:
        """How many times as long this precision takes as the `other`; 1 if nothing has both.

        Of sums: what takes long is what precision matters to, and what an estimate is made of.
        """
        both = [x for x in self.work.values() if self.precision in x and other in x]
        own, others = (sum(work[name] for work in both) for name in (self.precision, other))
        return own / others if own and others else 1.0


@dataclass
class Pace:
    """How much longer tasks take here and now than was expected, told by those that ended.

    The records may be of another machine, and other work may slow this one. `TRUSTED_SECONDS`
    count as if they had gone as expected, so that the first short tasks do not decide.
    """

    expected: float = TRUSTED_SECONDS
    took: float = TRUSTED_SECONDS

    def learn(self, expected: float | None, took: float) -> None:
        """Note seconds of a task; one that nothing was known of, or had no work to do, tells none.

        `expected` is with the process, `took` what the method itself took.
        """
        if expected is not None and took > 0:
            self.expected += expected
            self.took += took + OVERHEAD_SECONDS

    def __call__(self, seconds: float) -> float:
        """What `seconds` that are expected will become."""
        return seconds * self.took / self.expected


def _seconds(record: Record) -> dict[Key, float]:
    """What the fit of a trial and each stage of it took; nothing if it failed."""
    trial, cost = Trial.from_json(record["trial"]), record.get("cost")
    if record["status"] == "n/a":
        return {_trial_key(trial): 0.0}
    if record["status"] != "ok" or not cost:
        return {}
    stages = {
        _stage_key(trial, stage["name"], stage["params"]): stage["seconds"]
        for stage in cost["stages"]
    }
    return stages | {_trial_key(trial): cost["fit_seconds"] + cost["predict_seconds"]}


def _trial_key(trial: Trial) -> Key:
    variant = canonical_digest(dict(trial.params))[:8]
    return ("trial", trial.dataset, trial.protocol, trial.method, variant, trial.level)


def _stage_key(trial: Trial, name: str, params: Mapping[str, Any]) -> Key:
    return ("stage", trial.dataset, trial.protocol, name, canonical_digest(dict(params))[:8], "")


def _print_costs(results: str) -> None:
    """The cost table of a results folder as CSV, with a line that names the machines."""
    from pathlib import Path

    store = Store(Path(results))
    measured = [record["environment"] for record in store if record["status"] == "ok"]
    machines = {f"{m.get('accelerator') or m['processor']} in {m['precision']}" for m in measured}
    print("#", "; ".join(sorted(machines)))
    print(",".join(["device", *COLUMNS, "precision", "seconds"]))
    for device in DEVICES:
        costs = Costs(device)
        costs.learn(store)
        for key, work in sorted(costs.work.items()):
            for precision, seconds in sorted(work.items()):
                print(",".join([device, *key, precision, f"{seconds:.1f}"]))


if __name__ == "__main__":
    import sys

    _print_costs(sys.argv[1])
