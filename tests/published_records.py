"""Made-up records of what measures the published figures."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.records import findings, published
from bench.records import scoring as record
from bench.records.findings import Finding
from bench.records.published import FASHION, Data, Figure
from bench.records.store import Store
from methods.method import Method
from methods.registry import Entry

TABLE_1, CARD = "ss-dcec-paper Table 1", "ss-dcec-model-card"
README, REPORT = "kmeans-propagation-readme", "kmeans-seeding-report"
NO_RECORD = "no record; bench verify --run makes one"
LR_500 = 24  # supervised-lr, the first 500 labels: 0.7852
NN_500 = 25
COST = {
    "fit_seconds": 2.0,
    "stage_seconds": 3.0,
    "predict_seconds": 0.5,
    "stages": [],
    "peak_memory_mib": 100.0,
}


def subset(**values: Any) -> dict[str, Any]:
    """The scores of some images as a record holds them; those that are not given do not matter."""
    plain = {name: 0.5 for name in ("acc", "accuracy", "nmi", "ari", "purity")}
    k = len(values.get("recall", values.get("contingency", [0] * 10)))
    table = [[int(row == column) for column in range(k + 1)] for row in range(k)]
    return {"n": 10, **plain, "recall": [0.5] * k, "contingency": table} | values


class Stand(Method):
    """Stands in for every method that measures a figure; it is never fitted."""

    def __init__(
        self,
        n_clusters: int = 10,
        k: int = 20,
        percentile: float = 25.0,
        train_on: str = "instances",
        n_neighbors: int = 20,
        random_state: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.k = k
        self.percentile = percentile
        self.train_on = train_on
        self.n_neighbors = n_neighbors
        self.random_state = random_state

    def select(self, X: Any, budget: int, context: Any = None) -> list[int]:
        return list(range(budget))


def put_stand_ins(entries: MutableMapping[str, Entry]) -> None:
    """A stand-in for every method that the figures name."""
    for name in {figure.setting.method for figure in published.figures()}:
        entries[name] = Entry(name, Stand, {}, Stand.tags, "here")


class Records:
    """Writes made-up records of what measures a figure."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.results.mkdir()

    def add(
        self,
        number: int,
        *values: float | None,
        data: Data = FASHION,
        parts: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """A record per seed of figure `number`; None is a failure, `fields` change the trial."""
        setting = figure(number).setting
        for seed, value in enumerate(values):
            trial = replace(published.trial_of(setting, data), **{"seed": seed, **fields})
            if value is None:
                made = record.failure(trial, "failed", "ValueError: it broke", {"device": "cpu"})
            else:
                subsets = {setting.subset: subset(**{setting.metric: value}), "other": subset()}
                computed = "bf16" if trial.precision == "bf16" else "fp32"
                scored = {"subsets": subsets, "versions": {"method": 1, "stages": {}}}
                scored |= {"n_labels": 5, "cluster_sizes": [5, 5], "history": [], "cost": COST}
                scored["environment"] = {"precision": computed}
                made = record.make(trial, "ok", headline=0.5, **scored | (parts or {}))
            Store(self.results).write(made)

    def find(self, number: int) -> Finding:
        (finding,) = findings.verify([figure(number)], self.results)
        return finding


def figure(number: int, other_reading: bool = False) -> Figure:
    (found,) = [
        one
        for one in published.figures()
        if one.number == number and one.other_reading == other_reading
    ]
    return found
