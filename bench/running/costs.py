"""What trials and stages may cost, judged by those that ran before."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from bench.core.trial import Trial, canonical_digest
from bench.records.scoring import Record
from bench.records.store import Store
from bench.running.job import Job

OVERHEAD_SECONDS = 4.0  # a job's process: interpreter, imports, data (typical)


class Costs:
    """Seconds that trials and stages took: from the results at hand, else from the shipped table.

    What a GPU took says nothing of a processor: only records of the same device count. The shipped
    table ``bench/running/costs.csv`` was derived from this project's committed records of the
    processor by ``python -m bench.running.costs RESULTS``; its first line names the machine.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.seconds: dict[tuple[str, ...], float] = {}

    @classmethod
    def load(cls, store: Store | None, device: str = "cpu") -> Costs:
        """The shipped costs on a processor, and over them those of the records at hand."""
        costs = cls(device)
        table = resources.files("bench.running").joinpath("costs.csv")
        if table.is_file() and device == "cpu":
            lines = [x for x in table.read_text().splitlines() if not x.startswith("#")]
            for row in csv.reader(lines[1:]):
                costs.seconds[tuple(row[:-1])] = float(row[-1])
        if store is not None:
            costs.learn(store)
        return costs

    def learn(self, records: Iterable[Record]) -> None:
        """Take the costs of finished trials over, of those on the same device."""
        for record in records:
            if record.get("environment", {}).get("device") != self.device:
                continue
            cost = record.get("cost")
            trial = Trial.from_json(record["trial"])
            if record["status"] == "n/a":
                self.seconds[_trial_key(trial)] = 0.0
            if record["status"] != "ok" or not cost:
                continue
            self.seconds[_trial_key(trial)] = cost["fit_seconds"] + cost["predict_seconds"]
            for stage in cost["stages"]:
                key = _stage_key(trial, stage["name"], stage["params"])
                self.seconds[key] = stage["seconds"]

    def job(self, job: Job) -> float | None:
        """Seconds of a job with its process; None if one of its trials is unknown."""
        known = [self.seconds.get(_trial_key(trial)) for trial in job.trials]
        return None if None in known else max(x for x in known if x is not None) + OVERHEAD_SECONDS

    def stage(self, trial: Trial, name: str, params: Mapping[str, Any]) -> float | None:
        """Seconds of a stage with its process; None if it is unknown."""
        seconds = self.seconds.get(_stage_key(trial, name, params))
        return None if seconds is None else seconds + OVERHEAD_SECONDS


def _trial_key(trial: Trial) -> tuple[str, ...]:
    variant = canonical_digest(dict(trial.params))[:8]
    return ("trial", trial.dataset, trial.protocol, trial.method, variant, trial.level)


def _stage_key(trial: Trial, name: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    return ("stage", trial.dataset, trial.protocol, name, canonical_digest(dict(params))[:8], "")


def _print_costs(results: str) -> None:
    """The cost table of a results folder as CSV, with a line that names the machines."""
    from pathlib import Path

    store = Store(Path(results))
    costs = Costs()
    costs.learn(store)
    measured = [
        record["environment"]
        for record in store
        if record["status"] == "ok" and record["environment"]["device"] == costs.device
    ]
    machines = {f"{m['processor']}, {m['threads']} threads, {m['device']}" for m in measured}
    print("#", "; ".join(sorted(machines)))
    print("kind,dataset,protocol,name,params,level,seconds")
    for key, seconds in sorted(costs.seconds.items()):
        print(",".join([*key, f"{seconds:.1f}"]))


if __name__ == "__main__":
    import sys

    _print_costs(sys.argv[1])
