"""Records on disk: one JSON file per trial, written whole or not at all."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import msgspec

from bench.core import machine
from bench.core.errors import BenchError
from bench.core.files import said_if_unwritable, write_text
from bench.core.levels import Level
from bench.core.texts import unstorable
from bench.core.trial import Trial
from bench.records.derived import check_table, with_derived, without_derived
from bench.records.scoring import OF_OK, SCHEMA, Record, Versions, check_scores, error_message
from methods import registry
from methods.method import stage_version

if TYPE_CHECKING:
    import pandas as pd

VIEWS = ".views.json"
PROJECTION = ".projection.json"
BESIDE = (VIEWS, PROJECTION)  # what the names of files beside a record end in
COMMIT_DIGITS = 10
# fmt: off
SUBSETS = ("all", "labelled", "unlabelled", "test")
METRICS = ("acc", "accuracy", "nmi", "ari", "purity")
LIBRARIES = ("python", *machine.LIBRARIES)
TRIAL_COLUMNS = [
    "dataset", "dataset_digest", "protocol", "selection", "schedule", "method", "variant", "params",
    "level", "n_labels", "label_share", "seed", "status", "error", "headline", "headline_metric",
    "same_as", *(f"{metric}_{subset}" for subset in SUBSETS for metric in METRICS),
    "fit_seconds", "stage_seconds", "predict_seconds", "peak_memory_mib", "device", "accelerator",
    "processor", "cores", "threads", "concurrency", "precision", "precision_ran", "commit",
    "method_version", "stage_versions", "bench_version",
    *(f"{library.replace('-', '_')}_version" for library in LIBRARIES),
]
# fmt: on


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
        return _read_object(self.views_path(trial))

    def projection_path(self, trial: Trial) -> Path:
        """Where the projection of a trial lies, as ``<seed>.projection.json``."""
        return self.path(trial).with_suffix(PROJECTION)

    def read_projection(self, trial: Trial) -> dict[str, Any] | None:
        """The projection of the trial at this place (`bench.records.projections`), as `read_views`.

        Raises
        ------
        BenchError : the file is no JSON object; the message names it.
        """
        return _read_object(self.projection_path(trial))

    def write_projection(self, trial: Trial, projection: dict[str, Any]) -> Path:
        """Write the projection of a trial beside its record.

        Raises
        ------
        WriteError : the file cannot be written. BenchError : a link would lead elsewhere.
        """
        path = self.projection_path(trial)
        self.check_below(path)
        with said_if_unwritable(path):
            write_text(path, dump_views(projection))
        return path

    def write(
        self,
        record: Record,
        views: dict[str, Any] | None = None,
        projection: dict[str, Any] | None = None,
    ) -> Path:
        """Write `record` where its trial belongs, replacing an older one in one step.

        `views` and `projection` are what figures need of the trial (`bench.records.views`,
        `bench.records.projections`). Those of an older record go first: a kill in between leaves a
        record without them, never with another's.

        Raises
        ------
        WriteError : the file cannot be written. BenchError : a link would lead elsewhere.
        """
        trial = Trial.from_json(record["trial"])
        path = self.path(trial)
        beside = {self.views_path(trial): views, self.projection_path(trial): projection}
        self.check_below(path)
        text = file_text(record)
        with said_if_unwritable(path):
            for other in beside:
                other.unlink(missing_ok=True)
            write_text(path, text)
            for other, values in beside.items():
                if values is not None:
                    write_text(other, dump_views(values))
        return path

    def __iter__(self) -> Iterator[Record]:
        """Every record, ordered by path.

        Raises
        ------
        BenchError : a file is no record, or the copy of one: it would count as a further seed.
        """
        return map(self._read_at, self.paths())

    def _read_at(self, path: Path) -> Record:
        """The record of a path, which is where its trial belongs."""
        record = read_record(path)
        belongs = self.path(Trial.from_json(record["trial"]))
        if path != belongs:
            raise BenchError(f"{path} belongs to {belongs}; move it there or delete it")
        return record

    def paths(self) -> list[Path]:
        """Where records lie, ordered."""
        found = sorted(self.root.glob("*/*/*/*/*.json"))
        return [path for path in found if not path.name.endswith(BESIDE)]

    def check_below(self, path: Path) -> None:
        """Refuse to write anywhere but below the folder of the records.

        Names have been checked (`check_name`); a link in the folder could still lead elsewhere.

        Raises
        ------
        BenchError : one does.
        """
        parents = path.relative_to(self.root).parents
        links = [one for one in (self.root / parent for parent in parents) if one.is_symlink()]
        if links:
            raise BenchError(
                f"{links[0]} is a symbolic link; expected a folder: records are not written "
                "through links"
            )


def _read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object of a file beside a record; None if there is no such file."""
    if not path.exists():
        return None
    try:
        values = json.loads(read_regular(path))
    except (BenchError, OSError, ValueError, RecursionError) as error:
        raise BenchError(f"{path} is no JSON ({error}); delete it and run again") from error
    if not isinstance(values, dict):
        raise BenchError(f"{path} holds no JSON object; delete it and run again")
    return values


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
    """Compact JSON with one line per entry and per row of the history: small in a diff."""
    lines = []
    for key, value in cast(dict[str, Any], record).items():
        if key in ("history", "subsets") and value:
            rows = value.items() if isinstance(value, dict) else ((None, row) for row in value)
            body = ",\n".join(
                "  " + (f"{json.dumps(name)}: " if name else "") + _compact(row)
                for name, row in rows
            )
            opening, closing = "{}" if isinstance(value, dict) else "[]"
            lines.append(f"{json.dumps(key)}: {opening}\n{body}\n {closing}")
        else:
            lines.append(f"{json.dumps(key)}: {_compact(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def file_text(record: Record) -> str:
    """What the file of a record holds: all of it but what its reader derives (`derived`)."""
    return dump_record(without_derived(record))


def dump_views(views: dict[str, Any]) -> str:
    """Compact JSON with one line per entry of every list of objects."""
    lines = []
    for key, value in views.items():
        text = _compact(value)
        if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            rows = ",\n".join(map(_compact, value))
            text = f"[\n{rows}\n]"
        lines.append(f"{json.dumps(key)}:{text}")
    return "{" + ",\n".join(lines) + "}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def read_record(path: Path) -> Record:
    """One record, whose fields have the types of `Record` and whose identity is its trial's.

    Raises
    ------
    BenchError : the file is no record, or one of a newer version; the message names file and field.
    """
    try:
        content = read_regular(path)
    except (BenchError, OSError) as error:
        raise BenchError(f"{path} is not a record ({error}); delete it and run again") from error
    return parse_record(content, str(path))


class _Schema(TypedDict):
    schema: int


def parse_record(content: str | bytes, path: str) -> Record:
    """As `read_record`, of what was read from `path`, or came from there."""
    try:
        # As json reads it: with infinite parameters, which msgspec's decoder refuses, and with
        # further fields, which its copy would lack.
        values = json.loads(content)
        schema = msgspec.convert(values, _Schema)["schema"]
        if schema <= SCHEMA:
            return _checked(values)
    except (BenchError, ValueError, TypeError, msgspec.MsgspecError, RecursionError) as error:
        raise BenchError(f"{path} is not a record ({error}); delete it and run again") from error
    raise BenchError(
        f"{path} is a record of schema {schema}, and this version reads schemas up to {SCHEMA}: "
        "update fewlabels-bench"
    )


def _checked(values: Any) -> Record:
    """What was read, complete, if it is a record; else the error says what it lacks."""
    record: Record = with_derived(values)
    msgspec.convert(record, Record)
    _check_parts(record)
    if record["identity"] != Trial.from_json(record["trial"]).identity:
        raise BenchError(f"its identity {record['identity'][:12]!r} is not that of its trial")
    return record


def _check_parts(record: Record) -> None:
    """Refuse a record that lacks what its status promises, or holds what no command can show."""
    if bad := unstorable(record):
        raise BenchError(f"half of a surrogate pair at {bad}; expected text of UTF-8")
    status = record["status"]
    expected = OF_OK if status == "ok" else ("error",)
    missing = [name for name in expected if name not in record]
    if missing:
        raise BenchError(f"its status is {status} and it has no {', '.join(missing)}")
    if record.get("same_as") == record["trial"]["method"]:
        raise BenchError(f"its same_as is {record['same_as']!r}, its own method; expected another")
    subsets = record.get("subsets", {})
    sizes = {len(part[x]) for part in subsets.values() for x in ("recall", "contingency")}
    if len(sizes) > 1:
        raise BenchError(f"its subsets have {sorted(sizes)} classes; expected one number of them")
    for name, part in subsets.items():
        check_table(name, part["contingency"], record.get("cluster_names"))


def read_regular(path: Path) -> bytes:
    """The content of a regular file: a pipe would wait for ever, a link may lead anywhere.

    Raises
    ------
    BenchError : it is none. OSError : it cannot be read.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        raise BenchError("it is no regular file")
    return path.read_bytes()


def load_results(results: str | Path) -> pd.DataFrame:
    """The records below a results folder as a table, one row per trial, metrics as columns.

    ``level`` is an ordered categorical: it sorts as levels do, shares before counts, each by size.
    Every column is described in bench/README.md, under "The columns of load_results".

    Raises
    ------
    BenchError : no such folder, or a file in it that is not a record.
    """
    if not Path(results).is_dir():
        raise BenchError(f"there is no results folder {results}; `bench run` makes one")
    return tidy(map(flatten_record, Store(Path(results))))


def tidy(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The rows that `flatten_record` gave as the table that `load_results` returns."""
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=TRIAL_COLUMNS)
    levels = sorted(set(table["level"]), key=Level.parse)
    return table.astype({"level": pd.CategoricalDtype(levels, ordered=True)})


def flatten_record(record: Record) -> dict[str, Any]:
    """One record as one row of `load_results`; None where it says nothing."""
    trial = Trial.from_json(record["trial"])
    row: dict[str, Any] = dict.fromkeys(TRIAL_COLUMNS)
    row |= record["trial"] | {
        "variant": trial.variant_text,
        "params": json.dumps(record["trial"]["params"], sort_keys=True),
        "status": record["status"],
        "n_labels": record.get("n_labels"),
        "label_share": _label_share(record),
        "same_as": record.get("same_as"),
        "headline": record.get("headline"),
        "headline_metric": record.get("headline_is"),
        "error": error_message(record),
    }
    cost: dict[str, Any] = dict(record.get("cost", {}))
    seconds = ("fit_seconds", "stage_seconds", "predict_seconds")
    row |= {name: cost.get(name) for name in (*seconds, "peak_memory_mib")}
    for subset, values in record.get("subsets", {}).items():
        row |= {f"{metric}_{subset}": values.get(metric) for metric in METRICS}
    return row | _made_by(record)


def _label_share(record: Record) -> float | None:
    """Which part of the fitted images was labelled, from 0 to 1; None where nothing says it."""
    level, n_labels = Level.parse(record["trial"]["level"]), record.get("n_labels")
    subsets: dict[str, Any] = dict(record.get("subsets", {}))
    n = subsets.get("all", {}).get("n")
    if n_labels is not None and n:  # a record from elsewhere may count no image at all
        return n_labels / n
    return None if level.is_count else float(level.amount) / 100


def _made_by(record: Record) -> dict[str, Any]:
    """Of what the record was made: machine, precision, commit, versions."""
    environment: dict[str, Any] = dict(record.get("environment", {}))
    libraries = environment.get("versions", {})
    versions: dict[str, Any] = dict(record.get("versions", {}))
    commit = environment.get("commit")
    mark = "-dirty" if environment.get("dirty") else ""  # as git describe has it
    stages = sorted(versions.get("stages", {}).items())
    names = ("device", "accelerator", "processor", "cores", "threads", "concurrency")
    return {name: environment.get(name) for name in names} | {
        "precision_ran": environment.get("precision"),
        "commit": commit and commit[:COMMIT_DIGITS] + mark,
        "method_version": versions.get("method"),
        "stage_versions": " ".join(f"{name}={version}" for name, version in stages) or None,
        "bench_version": libraries.get("bench"),
        **{f"{name.replace('-', '_')}_version": libraries.get(name) for name in LIBRARIES},
    }


@dataclass
class Merged:
    """What became of the records of another folder.

    Attributes
    ----------
    adopted, kept : how many of theirs were taken over, and of ours stayed.
    conflicts : both ended ``ok``, with different tables or of different identities; ours stayed.
    refused : files that are no records, or claim what their tables do not say.
    """

    adopted: int = 0
    kept: int = 0
    conflicts: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def check_records(folder: Path) -> list[Path]:
    """Where the records of a results folder lie.

    Raises
    ------
    BenchError : there is no such folder, or there are none in it.
    """
    paths = Store(folder).paths() if folder.is_dir() else []
    if not paths:
        raise BenchError(
            f"there are no records in {folder}; expected a results folder of bench run"
        )
    return paths


def merge(results: Path, other: Path) -> Merged:
    """Adopt the records of another results folder, from another machine say.

    A record is taken over, with its views and its projection, where there is none here, or where
    ours did not end ``ok`` and theirs did; otherwise ours stays. Where the two came to the same and
    ours has no projection, theirs is taken.

    Raises
    ------
    BenchError : no such folder, or no records in it; a record of ours that cannot be read.
    """
    paths = check_records(other)
    merged = Merged()
    for path in paths:
        try:
            record = read_record(path)
            check_scores(record)
            trial = Trial.from_json(record["trial"])
            beside = Store(other).read_views(trial), Store(other).read_projection(trial)
        except BenchError as error:
            merged.refused.append(f"{path}: {error}" if str(path) not in str(error) else str(error))
        else:
            _take_over(record, beside, Store(results), merged)
    return merged


Beside = tuple[dict[str, Any] | None, dict[str, Any] | None]  # views, projection


def _take_over(record: Record, beside: Beside, store: Store, merged: Merged) -> None:
    """Write one record of theirs, or keep ours; `merged` counts it."""
    trial = Trial.from_json(record["trial"])
    path = store.path(trial)
    ours = read_record(path) if os.path.lexists(path) else None
    if ours is None or (ours["status"] != "ok" and record["status"] == "ok"):
        store.write(record, *beside)
        merged.adopted += 1
        return
    merged.kept += 1
    same = _tables(ours) == _tables(record)
    if same and beside[1] is not None and not store.projection_path(trial).exists():
        store.write_projection(trial, beside[1])
    if not ours["status"] == record["status"] == "ok":
        return
    if ours["identity"] != record["identity"]:
        merged.conflicts.append(f"{trial.title}: of other parameters or images there")
    elif not same:
        merged.conflicts.append(f"{trial.title}: {_headline(ours)} here, {_headline(record)} there")


def _tables(record: Record) -> Any:
    """What a trial came to, whatever schema its scores are of."""
    tables = {name: part["contingency"] for name, part in record.get("subsets", {}).items()}
    return record["identity"], tables, record.get("cluster_names")


def _headline(record: Record) -> str:
    value = record.get("headline")
    return "no headline" if value is None else f"{value:.4f}"
