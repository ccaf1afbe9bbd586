"""Fixtures that several test files share: a cache of their own, the registry, small records."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm
from hypothesis import settings
from rig import Rig

from bench.core.trial import Trial
from bench.records import scoring as record
from methods import plugins, registry
from methods.method import Method, Tags

warm.use_here()

settings.register_profile("unhurried", deadline=None)  # a slow machine is no failure
settings.register_profile("stress", deadline=None, max_examples=20 * settings().max_examples)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unhurried"))

TRIAL = {
    "dataset": "toy",
    "dataset_digest": "0123",
    "protocol": "transductive",
    "selection": "stratified",
    "schedule": "quick",
    "method": "tiny",
    "level": "5%",
    "seed": 0,
    "params": {"n_clusters": 2},
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that only this test uses."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def fixed_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU cuDNN adds up gradients in the same order every time, which it need not."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


discovered = functools.cache(registry.discover)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, registry.Entry]]:
    """The registered methods; what the test changes in the registry is forgotten after it.

    So are the plugins' files that it has imported: a module registers its methods once per process.
    """
    discovered()  # before the copy, for the same reason
    copy, before = dict(registry._entries), set(sys.modules)
    monkeypatch.setattr(registry, "_entries", copy)
    yield copy
    for name in set(sys.modules) - before:
        if name.startswith(f"{plugins.__name__}."):
            del sys.modules[name]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: dict[str, registry.Entry]) -> Rig:
    """A runner whose jobs are functions of the test; ``tiny`` and ``blind`` are registered."""
    entries["tiny"] = registry.Entry("tiny", Method, {}, Tags(), "here")
    entries["blind"] = registry.Entry("blind", Method, {}, Tags(uses_labels=False), "here")
    return Rig(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def make_trial() -> Callable[..., Trial]:
    """``make_trial(seed=3, ...)``: a trial with these fields and plain ones otherwise."""
    return lambda **fields: Trial(**TRIAL | fields)


@pytest.fixture(scope="session")
def make_record(make_trial: Callable[..., Trial]) -> Callable[..., dict[str, Any]]:
    """``make_record(headline, parts, seed=3, ...)``: a record of ``make_trial(seed=3, ...)``.

    Where the headline is None the trial failed. `parts` replace parts of the record.
    """

    def make(
        headline: float | None = 0.5, parts: dict[str, Any] | None = None, **fields: Any
    ) -> dict[str, Any]:
        trial = make_trial(**fields)
        values = {"n": 10, "acc": headline, "accuracy": headline, "nmi": 0.25, "ari": 0.125}
        scored = {
            "n_labels": 5,
            "same_as": None,
            "headline": headline,
            "headline_is": "accuracy on unlabelled",
            "subsets": {
                name: values
                | {"purity": 0.75, "recall": [0.5, None], "contingency": [[5, 0, 0], [0, 5, 0]]}
                for name in ("all", "labelled", "unlabelled")
            },
            "cluster_sizes": [5, 5],
            "cost": {
                "fit_seconds": 2.0,
                "predict_seconds": 0.5,
                "stage_seconds": 3.0,
                "peak_memory_mib": 100.0,
                "stages": [],
            },
            "history": [{"epoch": 1, "loss": 0.5}],
            "environment": {"device": "cpu"},
            "versions": {"method": 1, "stages": {}},
        }
        if headline is not None:
            return record.make(trial, "ok", **scored | (parts or {}))
        made = record.failure(
            trial, "failed", "ValueError: it broke", {"device": "cpu"}, n_labels=5
        )
        made["versions"] = {"method": 1, "stages": {}}
        return made | (parts or {})

    return make


@pytest.fixture(scope="session")
def make_true_record(make_record: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """``make_true_record(wrong=2, ...)``: a record whose scores follow from its tables."""
    y = np.repeat([0, 1], 10)

    def make(wrong: int = 2, **fields: Any) -> dict[str, Any]:
        labels = y.copy()
        labels[5 : 5 + wrong] = 1
        scores = record.score(
            y, labels, np.array([0, 10]), n_classes=2, names_needed=False, n_clusters=2
        )
        parts = scores | record.headline("transductive", 2, scores) | {"n_labels": 2}
        return make_record(0.5, parts, **fields)

    return make
