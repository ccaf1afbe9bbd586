"""One small fixed fit of every method and every stage, and how far two outcomes lie apart.

The outcomes are kept in ``tests/outcomes``. `test_outcomes` compares them with those of the code as
it is; `write_outcomes` writes new ones after a version was raised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from bench.core import splits
from bench.data import datasets
from methods import method, registry
from methods.method import Context, Method
from methods.registry import Entry
from methods.toolkit.naming import cluster_of_each_class

FOLDER = Path(__file__).parent / "outcomes"
# What rounding does to an outcome was measured when it was written: two threads against one, and an
# older instruction set (`OLDER`). It is kept with the outcome. Ten times that is no change yet, nor
# is as much as this: a machine with other instructions than both may round otherwise.
MARGIN = 10
LABELS_MOVED = 0.01  # share of the images
NUMBERS_MOVED = 0.001  # relative to the size of the array
OLDER = {
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NUMBA_CPU_NAME": "nehalem",
    "NUMBA_CPU_FEATURES": "",
}
# On 300 digits batch norm meets units that are nearly constant, and their rounding errors grow
# with every step: whole passes in one batch and few of them keep the outcome one of the code.
SHORT: dict[str, Any] = {
    "pretrain_epochs": 1,
    "pretrain_batch_size": 300,
    "batch_size": 300,
    "finetune_batch_size": 300,
    "selflabel_batch_size": 300,
    "selflabel_threshold": 0.2,
    "epochs": 5,
}
SHORT_FEATURES: dict[str, Any] = {"simclr_epochs": 1, "simclr_batch_size": 300}
# UMAP draws from the bits of its layout, so that rounding leads to another one: on pixels and after
# more passes clusters lie so far apart that hardly a label depends on it.
FAR_APART: dict[str, dict[str, Any]] = {
    "n2d": {"features": "pixels", "n_epochs": 300, "n_init": 20},
    "ss-umap": {"features": "pixels", "n_epochs": 500},
}
JOINTLY = {"max_iterations": 20, "update_interval": 10}  # enough steps for a change to show
SHORT_MATCHING = {"steps": 3, "batch_size": 60, "mu": 5, "threshold": 0.2}
UNANNOUNCED: dict[str, dict[str, Any]] = {"neighbours": {"k": 5}}  # their input is another stage's

Outcome = dict[str, Any]


def sample(n_labels: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """300 digits: images ``(300, 8, 8)``, labels with -1 where hidden, and the truth."""
    digits = datasets.load("digits")
    X, truth = np.array(digits.X[:300]), digits.y[:300]
    chosen = splits.labelled_indices(truth, n_labels, "stratified", 0)
    return X, splits.reveal(truth, chosen), truth


def names() -> list[str]:
    """``method/<name>`` and ``stage/<name>`` of all that is part of this project."""
    assert registry.discover() == []
    own = [n for n in registry.names() if registry.get(n).cls.__module__.startswith("methods.")]
    stages = [n for n, f in method._stages.items() if f.__module__.startswith("methods.")]
    return [f"method/{name}" for name in own] + [f"stage/{name}" for name in sorted(stages)]


def path_of(name: str) -> Path:
    return FOLDER / f"{name.replace('/', '-')}.json"


def outcome(name: str, threads: int = 1) -> Outcome:
    """The version and the outcome of the fixed fit ``method/<name>`` or ``stage/<name>``."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            kind, _, own = name.partition("/")
            return _of_method(own) if kind == "method" else _of_stage(own)
    finally:
        torch.set_num_threads(before)


def _images() -> tuple[np.ndarray, np.ndarray]:
    """300 digits of 16x16 pixels and the labels of 60 of them."""
    X, y, _ = sample()
    return X.repeat(2, axis=1).repeat(2, axis=2), y


def _built(entry: Entry) -> Method:
    """The method in ``smoke``; what learns from SimCLR's features trains still less."""
    params = entry.parameters("paper")
    scan, on_features = "pretrain_lr" in params, "simclr_epochs" in params
    short = SHORT if scan else SHORT_FEATURES if on_features else {}
    own = SHORT_MATCHING if "mu" in params else FAR_APART.get(entry.name, {})
    own = own | (JOINTLY if "max_iterations" in params else {})
    own = own | ({"ema": 0.5} if "ema" in params else {})
    return entry.build("smoke", n_clusters=10, random_state=0, **(short | own))


def _of_method(name: str) -> Outcome:
    """Labels and soft assignments of the images."""
    entry = registry.get(name)
    X, y = _images()
    fitted = _built(entry).fit(X, y, context=Context())
    labels, soft = fitted.labels_, getattr(fitted, "probabilities_", None)
    if name in FAR_APART:  # rounding changes the ids of its clusters too
        own = cluster_of_each_class(y, labels, 10)
        labels, soft = own.argsort()[labels], soft[:, own]
    arrays = {} if soft is None else {"probabilities": soft}
    return {
        "version": entry.cls.version,
        "labels": " ".join(map(str, labels)),
        "arrays": summaries(arrays),
    }


def _of_stage(name: str) -> Outcome:
    """What a stage makes of the same images, with the parameters that methods ask with."""
    X, _ = _images()
    if name in UNANNOUNCED:
        rows, params = X.reshape(len(X), -1).astype(np.float32), UNANNOUNCED[name]
    else:
        rows, params = X, _asked_params(name)
    arrays = Context().stage(method._stages[name], rows, random_state=0, **params)
    return {"version": method.stage_version(name), "labels": "", "arrays": summaries(arrays)}


def _asked_params(name: str) -> dict[str, Any]:
    """The parameters with which the first method that announces the stage asks for it."""
    for one in registry.names():
        built = _built(registry.get(one))
        for request in [*built.stages(60), *built.stages(0)]:
            if request.name == name:
                return dict(request.params)
    raise AssertionError(f"no method announces the stage {name}: name its input in UNANNOUNCED")


def summaries(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Of each array its shape and a few numbers that depend on every value and on its place."""
    return {name: _summary(np.asarray(array)) for name, array in sorted(arrays.items())}


def _summary(array: np.ndarray) -> dict[str, Any]:
    values = array.astype(np.float64).ravel()
    weights = np.random.default_rng(0).standard_normal((3, values.size))
    size = float(np.sqrt(np.square(values).mean())) if values.size else 0.0
    scale = 1 / max(1.0, np.sqrt(values.size))  # a mean of n draws is about 1/sqrt(n) of their size
    numbers = [float(values.mean()) if values.size else 0.0, size, *(weights @ values * scale)]
    return {"shape": list(array.shape), "numbers": [float(f"{x:.7g}") for x in numbers]}


def distance(kept: Outcome, now: Outcome) -> tuple[float, float]:
    """The share of labels that differ, and the largest relative difference of the numbers.

    Other shapes, or other arrays, are infinitely far apart.
    """
    a, b = kept["labels"].split(), now["labels"].split()
    if len(a) != len(b) or _shapes(kept) != _shapes(now):
        return float("inf"), float("inf")
    moved = sum(x != y for x, y in zip(a, b, strict=True)) / max(1, len(a))
    numbers = [_moved(kept["arrays"][name], now["arrays"][name]) for name in kept["arrays"]]
    return moved, max(numbers, default=0.0)


def _shapes(one: Outcome) -> dict[str, list[int]]:
    return {name: summary["shape"] for name, summary in one["arrays"].items()}


def _moved(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    size = max(a["numbers"][1], b["numbers"][1]) or 1.0
    return max(abs(x - y) for x, y in zip(a["numbers"], b["numbers"], strict=True)) / size


def complaint(name: str, kept: Outcome, now: Outcome) -> str:
    """What is wrong with the outcome `now` beside the one that is `kept`; empty if nothing."""
    write = f"`python tests/write_outcomes.py {name}`"
    if kept["version"] != now["version"]:
        return (
            f"{name} has version {now['version']}, its kept outcome is of version "
            f"{kept['version']}: write the new one with {write}"
        )
    labels, numbers = distance(kept, now)
    rounding = kept["rounding"]
    if labels > max(LABELS_MOVED, MARGIN * rounding["labels"]) or numbers > max(
        NUMBERS_MOVED, MARGIN * rounding["numbers"]
    ):
        return (
            f"{name}: {labels:.1%} of the labels of its fixed fit moved, and its numbers by "
            f"{numbers:.2g} of their size, which rounding does not do: mend the change, or raise "
            f"the version of this {name.partition('/')[0]} and write the new outcome with {write}"
        )
    return ""


def read(name: str) -> Outcome:
    """The kept outcome."""
    kept: Outcome = json.loads(path_of(name).read_text())
    return kept


def write(name: str, made: Outcome) -> None:
    """Keep an outcome."""
    FOLDER.mkdir(exist_ok=True)
    path_of(name).write_text(json.dumps(made, indent=1) + "\n")
