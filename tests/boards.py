"""Small boards for tests: trials of methods of which some are supervised baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import pytest

from bench.records.leaderboard import aggregate
from bench.records.store import flatten_record, tidy
from methods import registry
from methods.method import Method, Tags

Scores = Mapping[str, Mapping[int, Sequence[float | None]]]


def register_kinds(monkeypatch: pytest.MonkeyPatch, **families: str) -> None:
    """Make these the only methods there are, each of its family; ``_`` stands for ``-``."""
    entries = {
        name: registry.Entry(name, Method, {}, Tags(family=family), "here")
        for name, family in ((name.replace("_", "-"), of) for name, of in families.items())
    }
    monkeypatch.setattr(registry, "_entries", entries)


def trials_of(
    make_record: Callable[..., dict[str, Any]], scores: Scores, **fields: Any
) -> pd.DataFrame:
    """The rows of `load_results` of ``{method: {number of labels: scores by seed}}``.

    None is a trial that failed; ``environment`` and ``cost`` among `fields` are those of all.
    """
    own = {name: fields.pop(name) for name in ("environment", "cost") if name in fields}
    records = [
        make_record(
            score,
            own | {"n_labels": n_labels} if score is not None else {"n_labels": n_labels},
            method=method,
            level=str(n_labels) if n_labels else "0%",
            seed=seed,
            **fields,
        )
        for method, curve in scores.items()
        for n_labels, by_seed in curve.items()
        for seed, score in enumerate(by_seed)
    ]
    return tidy([flatten_record(record) for record in records])


def board_of(
    make_record: Callable[..., dict[str, Any]], scores: Scores, **fields: Any
) -> pd.DataFrame:
    """The leaderboard of `trials_of`, its rows by method and number of labels."""
    table = aggregate(trials_of(make_record, scores, **fields))
    return table.set_index(["method", "n_labels"]).sort_index()
