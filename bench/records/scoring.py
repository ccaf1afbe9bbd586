"""What a finished trial leaves behind: scores of every subset, cost, history, where it was made.

Scoring happens here, from the labels that a method returned; no method sees what this module sees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
    cast,
    get_args,
)

import msgspec
import numpy as np
import numpy.typing as npt

from bench.core import metrics
from bench.core.errors import BenchError
from bench.core.metrics import Count, Value
from bench.core.texts import ending, storable
from bench.core.trial import Trial, fitted_as
from methods.toolkit.naming import misnamed

SCHEMA = 2
Status = Literal["ok", "failed", "timeout", "out-of-memory", "crashed", "n/a"]
STATUSES: tuple[Status, ...] = get_args(Status)
MOST_ROWS = 50  # of a history
MOST_STAGE_ROWS = 5  # of each shared stage: they are in the record of every trial that used it
DIGITS = 6  # of scores, of what is logged and of what was spent
LONGEST_MESSAGE, LONGEST_TRACEBACK = 4_000, 40_000  # characters of an error, its last
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e9)]  # finite: 30 years, or a petabyte
Row = TypeVar("Row")
ROUNDED = ("headline", "subsets", "cost", "history")
OF_OK = ("n_labels", "headline", "subsets", "cluster_sizes", "cost", "environment", "history")


class TrialFields(TypedDict):
    """The fields of a `Trial`."""

    dataset: str
    dataset_digest: str
    protocol: str
    selection: str
    schedule: str
    method: str
    level: str
    seed: int
    params: dict[str, Any]
    variant: dict[str, Any]
    precision: str


class Subset(metrics.Scores):
    """The metrics of some of the images, and the table that they follow from."""

    contingency: list[list[Count]]


class Environment(TypedDict, total=False):
    """Where a record was made."""

    device: str
    accelerator: str | None
    cuda_graphs: str | None
    compiled: bool
    processor: str
    cores: int
    threads: int
    concurrency: int
    precision: str
    versions: dict[str, str]
    commit: str | None
    dirty: bool | None


class Failed(TypedDict):
    """Why a trial did not end ``ok``."""

    message: str
    traceback: str | None


class Versions(TypedDict):
    """The declared versions of the method that fitted and of the stages that it used, by name."""

    method: int
    stages: dict[str, int]


class Stage(TypedDict):
    """A shared stage that a fit used, and what it took; records of old have no version of it."""

    name: str
    version: NotRequired[int]
    key: str
    params: dict[str, Any]
    seconds: Amount
    peak_memory_mib: Amount


class Cost(TypedDict):
    """Seconds and memory of a fit; `stages` names the shared ones apart, each with its own."""

    fit_seconds: Amount
    stage_seconds: Amount
    predict_seconds: Amount
    stages: list[Stage]
    peak_memory_mib: Amount


class FittedAs(TypedDict):
    """The method whose fit it is (`whose_fit`)."""

    method: str
    variant: dict[str, Any]


class Record(TypedDict, total=False):
    """What is kept of a finished trial; which parts there are depends on the status.

    `trial` is `Trial.to_json`, `identity` its digest. Of a trial that ended ``ok``: the subsets
    with their metrics and contingency tables, the headline, the cost, the history of its fit. Of
    another one: the error's message and traceback.
    """

    schema: Required[int]
    trial: Required[TrialFields]
    identity: Required[str]
    status: Required[Status]
    n_labels: Count
    headline: Value | None
    headline_is: str
    subsets: dict[str, Subset]
    cluster_names: list[int] | None
    cluster_sizes: list[Count]
    same_as: str | None
    fitted_as: FittedAs | None
    fit: str
    cost: Cost
    environment: Environment
    history: list[dict[str, Any]]
    versions: Versions
    digests: dict[str, Any]
    error: Failed


FAILURES = ("failed", "timeout", "out-of-memory", "crashed")


def score(
    y: np.ndarray,
    labels: np.ndarray,
    labelled: np.ndarray,
    *,
    n_classes: int,
    names_needed: bool,
    n_clusters: int = 0,
    y_test: np.ndarray | None = None,
    labels_test: np.ndarray | None = None,
) -> dict[str, Any]:
    """Tables and metrics of the subsets ``all``, ``labelled``, ``unlabelled`` and ``test``.

    Parameters
    ----------
    y, labels : ``(n,)`` truth and assignment of the fitted instances.
    labelled : indices of the labelled ones.
    n_classes : classes in the data.
    names_needed : True for a method that ignores labels: its clusters get their names from a
        mapping fitted on the revealed labels only, see `metrics.name_clusters`.
    n_clusters : clusters that the method was asked for. It has as many as it was asked for, used
        or not, or as its ids (those of the test images too) need, if that is more.
    y_test, labels_test : ``(n_test,)`` truth and assignment of the test images, if there are any.

    Returns
    -------
    dict with ``subsets`` (per subset its metrics and ``contingency``), ``cluster_names`` (the class
    of each cluster, -1 for one without a name; None where nothing had to be named) and
    ``cluster_sizes``.
    """
    given = labels if labels_test is None else np.append(labels, labels_test)
    named = len(labelled) > 0
    asked = 0 if named and not names_needed else n_clusters  # with labels cluster j is class j
    n_clusters = max(n_classes, asked, int(given.max()) + 1)
    mapping = None
    if names_needed and named:
        mapping = metrics.name_clusters(y[labelled], labels[labelled], n_classes, n_clusters)
    hidden = np.ones(len(y), dtype=bool)
    hidden[labelled] = False
    parts = {
        "all": (y, labels),
        "labelled": (y[~hidden], labels[~hidden]),
        "unlabelled": (y[hidden], labels[hidden]),
    }
    if y_test is not None and labels_test is not None:
        parts["test"] = (y_test, labels_test)
    subsets = {
        name: _score_subset(truth, given, mapping, n_classes, n_clusters, named)
        for name, (truth, given) in parts.items()
        if len(truth)
    }
    return {
        "subsets": subsets,
        "cluster_names": None if mapping is None else mapping.tolist(),
        "cluster_sizes": np.bincount(labels[labels >= 0], minlength=n_clusters).tolist(),
    }


def _score_subset(
    y: np.ndarray,
    labels: np.ndarray,
    mapping: np.ndarray | None,
    n_classes: int,
    n_clusters: int,
    named: bool,
) -> dict[str, Any]:
    """Metrics of one subset; ``contingency`` counts classes × clusters before any naming.

    Its last column counts instances that the method left unassigned.
    """
    table = metrics.contingency_matrix(y, labels, n_classes=n_classes, n_clusters=n_clusters)
    return {**_scores_of(table, mapping, named), "contingency": table.tolist()}


def _scores_of(table: npt.ArrayLike, mapping: npt.ArrayLike | None, named: bool) -> metrics.Scores:
    """The metrics of a table ``(n_classes, n_clusters + 1)``, its clusters named by `mapping`."""
    values = metrics.scores(table, named=named and mapping is None)
    if mapping is not None:
        renamed = metrics.map_contingency(table, mapping)
        values["accuracy"] = metrics.accuracy(contingency=renamed)
        recall = metrics.recall(contingency=renamed).tolist()
        values["recall"] = [None if math.isnan(r) else r for r in recall]
    return values


def check_scores(record: Record) -> None:
    """Refuse a record whose scores do not follow from its contingency tables.

    Raises
    ------
    BenchError : a table that is none, or a score or headline of another value.
    """
    if record["status"] != "ok":
        return
    names, n_labels = record.get("cluster_names"), record["n_labels"]
    for subset, claimed in record["subsets"].items():
        values = _scores_of(claimed["contingency"], names, named=n_labels > 0)
        for metric in ("n", "acc", "accuracy", "nmi", "ari", "purity"):
            _check_claim(f"{metric} on {subset}", claimed[metric], values[metric])
    protocol = record["trial"]["protocol"]
    ranked_by, _ = headline_name(protocol, n_labels)
    if not {"all", ranked_by} <= set(record["subsets"]):
        raise BenchError(f"it has no subset {ranked_by}, by which it is ranked")
    found = headline(protocol, n_labels, record)
    _check_claim("headline", record["headline"], found["headline"])


def _check_claim(what: str, claimed: float | None, found: float | None) -> None:
    if claimed is None or found is None:
        same = claimed is found
    else:
        same = math.isclose(claimed, found, abs_tol=10**-DIGITS)
    if not same:
        raise BenchError(f"its {what} is {claimed}, but its contingency tables give {found}")


def _misnamed(table: npt.ArrayLike) -> str | None:
    """What `misnamed` says of a table ``(n_classes, n_clusters + 1)``, as `score` gives it."""
    return misnamed(metrics.accuracy(contingency=table), metrics.acc(contingency=table))


def misnamed_trial(record: Record) -> str | None:
    """What `misnamed` says of a record whose method has numbered its clusters itself.

    It has to hold on the labelled images too: a method that has learnt little from few labels knows
    at least these.
    """
    named = record.get("n_labels") and record.get("cluster_names") is None
    if record["status"] != "ok" or not named:
        return None
    subsets = record["subsets"]
    if "labelled" in subsets and not _misnamed(subsets["labelled"]["contingency"]):
        return None
    tables = [subsets[name]["contingency"] for name in ("all", "test") if name in subsets]
    return next(filter(None, map(_misnamed, tables)), None)


def headline_name(protocol: str, n_labels: int) -> tuple[str, str]:
    """The subset and the metric that a trial is ranked by (evaluation rules 2 and 3)."""
    subset = "unlabelled" if protocol == "transductive" else "test"
    return subset, "acc" if n_labels == 0 else "accuracy"


def headline(protocol: str, n_labels: int, scores: Mapping[str, Any]) -> dict[str, Any]:
    """The number that a trial is ranked by, and what it is.

    More clusters than classes and no label: there is no number. ACC would call the surplus wrong,
    and purity grows with the number of clusters, so it is shown but not ranked (evaluation rule 3).

    Parameters
    ----------
    scores : what `score` returned.

    Returns
    -------
    dict with ``headline`` (None where there is nothing to rank by) and ``headline_is``.
    """
    n_classes = len(scores["subsets"]["all"]["contingency"])
    if n_labels == 0 and len(scores["cluster_sizes"]) > n_classes:
        return {"headline": None, "headline_is": "purity, not ranked"}
    subset, metric = headline_name(protocol, n_labels)
    value = scores["subsets"][subset][metric]
    return {"headline": value, "headline_is": f"{metric} on {subset}"}


def check_output(labels: Any, n: int, what: str, n_classes: int | None = None) -> np.ndarray:
    """A method's labels as int64 ``(n,)``.

    Parameters
    ----------
    n_classes : given for a method that has seen labels: cluster j is class j, so ids end there.

    Raises
    ------
    BenchError : another shape, type or range of values: the method breaks the contract.
    """
    labels = np.asarray(labels)
    expected = f"expected {n} integers, the cluster of each instance (-1 where it assigns none)"
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise BenchError(
            f"the method's {what} is {labels.dtype} with shape {labels.shape}; {expected}"
        )
    if labels.min() < -1:
        raise BenchError(f"the method's {what} holds {labels.min()}; {expected}")
    if n_classes is not None and labels.max() >= n_classes:
        raise BenchError(
            f"the method's {what} holds {labels.max()} though it was given labels of {n_classes} "
            "classes; expected classes: map clusters to them in fit and keep the clusters in "
            "cluster_labels_"
        )
    return labels.astype(np.int64)


def whose_fit(trial: Trial) -> dict[str, Any]:
    """What a record says of the method whose fit it is, if that is another one (`fitted_as`).

    Returns
    -------
    ``fitted_as``, its name and variant, None where the fit is the trial's own; and ``same_as``, its
    name where nothing but the user's own changes distinguish it: then a reader finds it in a row of
    the board that has that name.
    """
    fitted = fitted_as(trial)
    if fitted.method == trial.method:
        return {"same_as": None, "fitted_as": None}
    other = {"method": fitted.method, "variant": dict(fitted.variant)}
    plain = set(fitted.variant) <= set(trial.variant)
    return {"same_as": fitted.method if plain else None, "fitted_as": other}


def make(trial: Trial, status: str, **parts: Any) -> Record:
    """A record of `trial`; `parts` are what its status gives (scores, cost, error, ...).

    Its history is `thinned`; that, its cost and scores are `rounded`; its texts are such as a file
    can hold.
    """
    if status not in STATUSES:
        raise ValueError(f"status is {status!r}; expected one of {', '.join(STATUSES)}")
    head = {
        "schema": SCHEMA,
        "trial": trial.to_json(),
        "identity": trial.identity,
        "status": status,
    }
    if "history" in parts:
        parts["history"] = thinned(parts["history"])
    parts |= {name: rounded(parts[name]) for name in ROUNDED if name in parts}
    return cast(Record, head | storable(parts))


def thinned(history: Sequence[dict[str, Any]], most: int = MOST_ROWS) -> list[dict[str, Any]]:
    """At most `most` rows of a history, evenly spaced, the first and the last among them.

    So with the rows of each shared stage before, of which `MOST_STAGE_ROWS` are left. Records are
    kept for good and read in diffs: a figure needs no more of a curve.
    """
    of_stages: dict[str, list[int]] = {}
    for i, row in enumerate(history):
        if "stage" in row:
            of_stages.setdefault(str(row["stage"]), []).append(i)
    kept = {i for rows in of_stages.values() for i in _spread(rows, MOST_STAGE_ROWS)}
    left = [row for i, row in enumerate(history) if "stage" not in row or i in kept]
    return _spread(left, most)


def _spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` of these, evenly spaced, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    kept = np.linspace(0, len(rows) - 1, most).round().astype(int)
    return [rows[i] for i in kept]


def rounded(value: Any) -> Any:
    """The same with numbers that are not whole to `DIGITS` digits; parameters stay as they were.

    A loss or a second has no more that mean anything, scores follow from the tables, and records
    are kept for good.
    """
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        return [rounded(one) for one in value]
    if isinstance(value, dict):
        return {x: one if x == "params" else rounded(one) for x, one in value.items()}
    return value


def error_message(record: Record) -> str | None:
    """Why the trial did not end ``ok``; None if it did."""
    return record["error"]["message"] if "error" in record else None


def taken_over(record: Record, trial: Trial) -> Record:
    """The record of another method as that of `trial`, which it serves (`fitted_as`)."""
    head = {"schema", "trial", "identity", "status"}
    parts = {name: part for name, part in record.items() if name not in head}
    return make(trial, record["status"], **parts | whose_fit(trial))


def failure(
    trial: Trial, status: str, message: str, environment: Mapping[str, Any], **parts: Any
) -> Record:
    """A record of a trial that did not end ``ok``: the message, and a traceback if there is one.

    Of long ones the end is kept: a message may hold all that a library has written.
    """
    traceback = parts.pop("traceback", None)
    error = {
        "message": ending(message, LONGEST_MESSAGE),
        "traceback": traceback and ending(traceback, LONGEST_TRACEBACK),
    }
    return make(trial, status, error=error, environment=dict(environment), **parts)
