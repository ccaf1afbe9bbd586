"""Records on disk: one JSON file per trial, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bench.core.errors import BenchError
from bench.core.files import write_text
from bench.core.trial import Trial
from bench.records.scoring import Record, Versions
from methods import registry
from methods.method import stage_version

if TYPE_CHECKING:
    import pandas as pd

VIEWS = ".views.json"


class Store:
    """The records below ``<results>/trials``.

    Parameters
    ----------
    results : the results folder; it is made when the first record is written.
    """

    def __init__(self, results: Path) -> None:
        self.results = Path(results)
        self.root = self.results / "trials"

    def path(self, trial: Trial) -> Path:
        """Where the record of a trial lies."""
        return self.root / trial.path

    def read(self, trial: Trial) -> Record | None:
        """The record of exactly this trial; None if there is none or it is of another identity."""
        path = self.path(trial)
        if not path.exists():
            return None
        record = read_record(path)
        return record if record["identity"] == trial.identity else None

    def read_current(self, trial: Trial) -> Record | None:
        """The record of exactly this trial, if it ended ``ok`` and is not stale."""
        record = self.read(trial)
        good = record is not None and record["status"] == "ok" and not is_stale(record)
        return record if good else None

    def views_path(self, trial: Trial) -> Path:
        """Where the views of a trial lie: beside its record, as ``<seed>.views.json``."""
        return self.path(trial).with_suffix(VIEWS)

    def read_views(self, trial: Trial) -> dict[str, Any] | None:
        """What `write` was given as `views` of the trial at this place; None if nothing.

        Raises
        ------
        BenchError : the file is no JSON object; the message names it.
        """
        path = self.views_path(trial)
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text())
        except ValueError as error:
            raise BenchError(f"{path} is no JSON ({error}); delete it and run again") from error
        if not isinstance(values, dict):
            raise BenchError(f"{path} holds no JSON object; delete it and run again")
        return values

    def write(self, record: Record, views: dict[str, Any] | None = None) -> Path:
        """Write `record` where its trial belongs, replacing an older one in one step.

        `views` are what figures need of the trial (`bench.records.views`). Those of an older record
        go first: a kill in between leaves a record without views, never with another's.
        """
        trial = Trial.from_json(record["trial"])
        path, beside = self.path(trial), self.views_path(trial)
        beside.unlink(missing_ok=True)
        write_text(path, dump_record(record))
        if views is not None:
            write_text(beside, dump_views(views))
        return path

    def __iter__(self) -> Iterator[Record]:
        """Every record, ordered by path."""
        for path in sorted(self.root.glob("*/*/*/*/*.json")):
            if not path.name.endswith(VIEWS):
                yield read_record(path)


def is_stale(record: Record) -> bool:
    """Whether an older version of its method, or of a stage that it used, made the record.

    A record without versions is older than any. A stage that is not declared here, of a plugin
    say, cannot be compared.

    Raises
    ------
    RegistryError : the method is not registered here.
    """
    made: Versions = record.get("versions") or {"method": 0, "stages": {}}
    fitted = record.get("fitted_as") or record["trial"]  # where another method has fitted
    of_method = registry.get(fitted["method"]).cls.version
    return made["method"] < of_method or any(
        version < (stage_version(name) or 0) for name, version in made["stages"].items()
    )


def dump_record(record: Record) -> str:
    """JSON with one line per entry and per row of the history: readable, and small in a diff."""
    lines = []
    for key, value in cast(dict[str, Any], record).items():
        if key in ("history", "subsets") and value:
            rows = value.items() if isinstance(value, dict) else ((None, row) for row in value)
            body = ",\n".join(
                "  " + (f"{json.dumps(name)}: " if name else "") + json.dumps(row)
                for name, row in rows
            )
            opening, closing = "{}" if isinstance(value, dict) else "[]"
            lines.append(f"{json.dumps(key)}: {opening}\n{body}\n {closing}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def dump_views(views: dict[str, Any]) -> str:
    """Compact JSON with one line per entry of every list of objects."""
    lines = []
    for key, value in views.items():
        text = json.dumps(value, separators=(",", ":"))
        if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in value)
            text = f"[\n{rows}\n]"
        lines.append(f"{json.dumps(key)}:{text}")
    return "{" + ",\n".join(lines) + "}\n"


def read_record(path: Path) -> Record:
    """One record.

    Raises
    ------
    BenchError : the file is no record; the message names it.
    """
    try:
        record = json.loads(path.read_text())
        Trial.from_json(record["trial"])
        record["status"], record["identity"]
    except (BenchError, ValueError, KeyError, TypeError) as error:
        raise BenchError(
            f"{path} is not a record ({type(error).__name__}: {error}); delete it and run again"
        ) from error
    return record


def load_results(results: str | Path) -> pd.DataFrame:
    """The records below a results folder as a table, one row per trial.

    Columns: the trial's fields (``dataset``, ``protocol``, ``method``, ``variant``, ``level``,
    ``seed``, ...), ``status``, ``n_labels``, ``same_as``, every metric of every subset as
    ``<metric>_<subset>``, ``headline``, ``fit_seconds``, ``stage_seconds``, ``peak_memory_mib``,
    ``device`` and ``error``.

    Raises
    ------
    BenchError : no such folder, or a file in it that is not a record.
    """
    import pandas as pd

    if not Path(results).is_dir():
        raise BenchError(f"there is no results folder {results}; `bench run` makes one")
    return pd.DataFrame([flatten_record(record) for record in Store(Path(results))])


def flatten_record(record: Record) -> dict[str, Any]:
    """One record as one row of `load_results`."""
    trial = Trial.from_json(record["trial"])
    row: dict[str, Any] = record["trial"] | {
        "variant": trial.variant_text,
        "params": json.dumps(record["trial"]["params"], sort_keys=True),
        "status": record["status"],
        "n_labels": record.get("n_labels"),
        "same_as": record.get("same_as"),
        "headline": record.get("headline"),
        "error": (record.get("error") or {}).get("message"),
        "device": (record.get("environment") or {}).get("device"),
    }
    cost: dict[str, Any] = dict(record.get("cost") or {})
    row |= {name: cost.get(name) for name in ("fit_seconds", "stage_seconds", "peak_memory_mib")}
    for subset, values in (record.get("subsets") or {}).items():
        for metric in ("acc", "accuracy", "nmi", "ari", "purity"):
            row[f"{metric}_{subset}"] = values.get(metric)
    return row


def merge(results: Path, other: Path) -> dict[str, int]:
    """Adopt the records of another results folder, from another machine say, with their views.

    A record is taken over where there is none here, or where ours did not end ``ok`` and theirs
    did; otherwise ours stays.

    Returns
    -------
    How many were ``adopted``, and how many of ours were ``kept``.

    Raises
    ------
    BenchError : no such folder, no records in it, or a file in it that is not a record.
    """
    theirs = list(Store(other)) if other.is_dir() else []
    if not theirs:
        raise BenchError(f"there are no records in {other}; expected a results folder of bench run")
    store = Store(results)
    counts = {"adopted": 0, "kept": 0}
    for record in theirs:
        trial = Trial.from_json(record["trial"])
        path = store.path(trial)
        ours = read_record(path) if path.exists() else None
        better = ours is None or (ours["status"] != "ok" and record["status"] == "ok")
        if better:
            store.write(record, Store(other).read_views(trial))
        counts["adopted" if better else "kept"] += 1
    return counts
