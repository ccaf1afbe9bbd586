"""What the file of a record leaves out, since its contingency tables say it too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Required, TypedDict, cast

import msgspec
import numpy as np

from bench.core import metrics
from bench.core.errors import BenchError
from bench.core.metrics import Count
from bench.records.scoring import Record, rounded

SINCE = 2  # the schema from which on files leave it out
PARTS = ("labelled", "unlabelled")  # which make up ``all``
Table = list[list[Count]]


class _Part(TypedDict, total=False):
    """What is needed of a subset here; the others of its fields are looked at later."""

    contingency: Table


class _Scored(TypedDict, total=False):
    schema: Required[int]
    trial: Required[dict[str, Any]]
    n_labels: Count
    cluster_names: list[int] | None
    subsets: dict[str, _Part]
    digests: dict[str, Any]


def without_derived(record: Record) -> Record:
    """`record` without what `with_derived` gives back.

    Whatever differs from that is left in it, so that nothing is lost.
    """
    if record["schema"] < SINCE or "subsets" not in record:
        return record
    scored = cast(_Scored, record)
    kept: dict[str, Any] = {}
    for name, part in record["subsets"].items():
        derived: dict[str, Any] = {"recall": _recall(scored, name, part["contingency"])}
        if name == "all":
            derived["contingency"] = _total(scored["subsets"])
        kept[name] = _without(part, derived)
    bare: dict[str, Any] = {**record, "subsets": kept}
    if "cluster_sizes" in bare and bare["cluster_sizes"] == _sizes(scored["subsets"]):
        del bare["cluster_sizes"]
    if "digests" in bare:
        bare["digests"] = _without(bare["digests"], _digests(scored))
    return cast(Record, bare)


def with_derived(record: Any) -> Any:
    """What was read, completed in place.

    The table of ``all`` is the sum of those of its parts, sizes of clusters are those of its
    columns, recalls follow from each table, and the images are those of the trial.

    Raises
    ------
    BenchError, msgspec.ValidationError : a table that none can follow from.
    """
    scored = msgspec.convert(record, _Scored)
    if scored["schema"] < SINCE or "subsets" not in scored:
        return record
    for name, part in record["subsets"].items():
        if name == "all" and (total := _total(scored["subsets"])):
            part.setdefault("contingency", total)
        if "contingency" not in part:
            raise BenchError(f"{name} has no contingency table, nor have its parts any to add up")
        if "recall" not in part:
            part["recall"] = _recall(scored, name, part["contingency"])
    if sizes := _sizes(record["subsets"]):
        record.setdefault("cluster_sizes", sizes)
    if "digests" in record:
        record["digests"] = _digests(scored) | record["digests"]
    return record


def check_table(subset: str, table: Table, names: list[int] | None) -> None:
    """Refuse a table that no metric can be of, or names of clusters that do not fit it.

    Raises
    ------
    BenchError : it is one.
    """
    lengths = sorted({len(row) for row in table})
    if len(lengths) > 1:
        found = " and ".join(map(str, lengths))
        raise BenchError(f"the contingency table of {subset} has rows of {found}")
    if not lengths or lengths[0] < 2 or not any(map(any, table)):
        raise BenchError(
            f"the contingency table of {subset} counts nothing; expected a row for each class, a "
            "column for each cluster and one more"
        )
    if len(table) * max(len(table) + 1, lengths[0]) > metrics.MAX_CELLS:
        raise BenchError(f"the contingency table of {subset} has {len(table):,} classes: too many")
    if names is not None and (
        len(names) != lengths[0] - 1 or not all(-1 <= name < len(table) for name in names)
    ):
        raise BenchError(
            f"its cluster_names do not fit the contingency table of {subset}; expected a class, or "
            f"-1, for each of {lengths[0] - 1} clusters"
        )


def _total(subsets: dict[str, _Part]) -> Table | None:
    """The table of all fitted images, from those of its parts; None if these are none."""
    parts = {name: subsets[name].get("contingency") for name in PARTS if name in subsets}
    if not parts or not all(parts.values()):
        return None
    first, *others = (_counts(name, table) for name, table in parts.items())
    if any(other.shape != first.shape for other in others):
        return None
    return sum(others, start=first).tolist()


def _sizes(subsets: dict[str, _Part]) -> list[int] | None:
    """How many of all fitted images each cluster has; None without a table."""
    table = subsets.get("all", {}).get("contingency")
    return _counts("all", table)[:, :-1].sum(0).tolist() if table else None


def _digests(scored: _Scored) -> dict[str, Any]:
    return {"dataset": scored["trial"].get("dataset_digest")}


def _without(values: Mapping[str, Any], derived: Mapping[str, Any]) -> dict[str, Any]:
    return {x: value for x, value in values.items() if x not in derived or derived[x] != value}


def _recall(scored: _Scored, name: str, table: Table) -> list[float | None]:
    """Of each class, in the clusters that stand for it (`metrics.scores`), as records have it."""
    names = scored.get("cluster_names")
    counts = _counts(name, table, names)
    square = counts.shape[1] == len(counts) + 1
    if names is None and not (scored.get("n_labels") and square):
        names = metrics.best_mapping(counts).tolist()
    if names is not None:
        counts = metrics.map_contingency(counts, names)
    found = metrics.recall(contingency=counts).tolist()
    return rounded([None if math.isnan(value) else value for value in found])


def _counts(name: str, table: Table | None, names: list[int] | None = None) -> np.ndarray:
    check_table(name, table or [], names)
    return np.array(table, dtype=np.int64)
