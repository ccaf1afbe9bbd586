"""Confusion matrices from the contingency tables of records: one per method and level."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bench.core import metrics
from bench.core.trial import Trial
from bench.records.scoring import Record

MOST_CLASSES = 30  # a wider table is neither read nor small
Table = list[list[int]]


def headline_subset(protocol: str) -> str:
    """The images that the headline of a protocol is on."""
    return "unlabelled" if protocol == "transductive" else "test"


def name_of(trial: Trial) -> str:
    """The method and what distinguishes its variant."""
    return f"{trial.method} {trial.variant_text}".strip()


def name_of_record(record: Record) -> str:
    """`name_of` the record's trial."""
    return name_of(Trial.from_json(record["trial"]))


def tables(records: Iterable[Record]) -> dict[str, dict[str, Table]]:
    """The confusion matrices of one board, by name and level, summed over seeds.

    On the images that the headline is on. Rows are the true classes. Columns are the classes that
    clusters stand for, and last the images without one. Where clusters have no name (no label was
    revealed) they are named by the best one-to-one mapping, as ACC counts.

    Parameters
    ----------
    records : of one dataset, protocol, selection and schedule; those without a table are left out.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for record in records:
        trial = Trial.from_json(record["trial"])
        part = record.get("subsets", {}).get(headline_subset(trial.protocol))
        if part is None or len(part["contingency"]) > MOST_CLASSES:
            continue
        table = _named(record, part["contingency"])
        levels = found.setdefault(name_of(trial), {})
        levels[trial.level] = levels[trial.level] + table if trial.level in levels else table
    return {
        name: {level: table.tolist() for level, table in levels.items()}
        for name, levels in found.items()
    }


def _named(record: Record, contingency: Sequence[Sequence[int]]) -> np.ndarray:
    """``(n_classes, n_classes + 1)``: the clusters of a table as the classes they stand for."""
    table = np.asarray(contingency, dtype=np.int64)
    names = record.get("cluster_names")
    if names is not None:
        mapping = np.asarray(names, dtype=np.int64)
    elif record["trial"]["level"] == "0%":
        mapping = metrics.best_mapping(table)
    else:
        mapping = np.arange(table.shape[1] - 1)
        mapping[len(table) :] = -1  # cluster j is class j; there is no class for more
    return metrics.map_contingency(table, mapping)
