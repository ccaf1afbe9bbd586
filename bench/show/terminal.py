"""What the terminal shows of boards, records and images."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.core.errors import BenchError
from bench.core.texts import printable
from bench.core.trial import Trial
from bench.data import datasets
from bench.data.datasets import Dataset
from bench.records.logs import log_path, shared_log_path
from bench.records.scoring import Record
from bench.records.store import Store, read_record

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from bench.records.leaderboard import Board, Cell

LOG_LINES = 40
LEAST_TEXT = 22  # columns of the terminal to which a text may be wrapped: most methods' names
EDGES, GUTTER = 2, 3  # columns that a table's frame takes, and what stands between two columns
# What `bench run` fills if nothing else is said: dataset, protocol-selection-schedule.
USUAL = ("fashion-mnist", "transductive-stratified-quick")
MOST_CLASSES = 20  # that are listed one by one


def as_tables(
    board: Board, width: int, new: Set[tuple[str, str]] = frozenset()
) -> list[Text | Table]:
    """A board for a terminal of so many columns; the best of each level is bold.

    Parameters
    ----------
    new : pairs of a row's name and a column, whose cells get a star.
    """
    rows = [
        [
            _emphasised(cell, (row[0].text, head) in new)
            for head, cell in zip(board.columns, row, strict=True)
        ]
        for row in board.rows
    ]
    return fitted(board.title, board.columns, rows, width, texts=["method"])


def fitted(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Text]],
    width: int,
    texts: Sequence[str] = (),
) -> list[Text | Table]:
    """A title, and rows as one table, or as several where they are wider than `width`.

    Every table begins with the first column. Nothing is cut: columns of `texts` are wrapped
    where that helps, others only where one alone is too wide.
    """
    from rich.table import Table
    from rich.text import Text

    needed = [
        max([len(head), *(row[i].cell_len for row in rows)]) for i, head in enumerate(columns)
    ]
    least = [
        min(n, LEAST_TEXT) if head in texts else n for n, head in zip(needed, columns, strict=True)
    ]
    room = width - least[0] - EDGES
    groups: list[list[int]] = [[]]
    for i in range(1, len(columns)):
        if groups[-1] and sum(least[j] + GUTTER for j in [*groups[-1], i]) > room:
            groups.append([])
        groups[-1].append(i)
    # Texts throughout: in a plain string what stands in brackets would be markup.
    made: list[Text | Table] = [Text(printable(title), "table.title")]
    for group in groups:
        table = Table(pad_edge=False)
        for i in [0, *group]:
            wraps = columns[i] in texts or least[i] + GUTTER > room
            table.add_column(
                Text(columns[i]),
                justify="left" if columns[i] in texts else "right",
                no_wrap=not wraps,
                overflow="fold",
            )
        for row in rows:
            table.add_row(row[0], *(row[i] for i in group))
        made.append(table)
    return made


def _emphasised(cell: Cell, new: bool) -> Text:
    from rich.text import Text

    star = ("*" if new else "", "bold cyan")
    return Text.assemble(
        (printable(cell.text), "bold green" if cell.best else ""), star, printable(cell.remark)
    )


def show(path: Path) -> str:
    """One record: its facts, the end of its log, its traceback.

    Raises
    ------
    BenchError : the file is no record.
    """
    record = read_record(path)
    trial = Trial.from_json(record["trial"])
    lines = [f"{trial.title}: {record['status']}", str(path)]
    for key in ("headline", "headline_is", "n_labels", "same_as", "cluster_sizes"):
        if record.get(key) is not None:
            lines.append(f"{key}: {record[key]}")
    for key in ("cost", "environment", "versions", "digests"):
        lines.append(f"{key}: {json.dumps(record.get(key))}")
    lines.append(f"params: {json.dumps(record['trial']['params'])}")
    for subset, values in (record.get("subsets") or {}).items():
        scores = {k: v for k, v in values.items() if isinstance(v, float)}
        lines.append(f"{subset}: " + ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    lines += _history(record.get("history") or [])
    error = record.get("error")
    if error:
        lines += [f"message: {error['message']}", error["traceback"] or "no traceback"]
    log = _log(record)
    if log is None:
        return "\n".join([*lines, "log: none on this machine"])
    return "\n".join([*lines, f"{log.whose} ({log.path}):", *log.lines])


def as_json(path: Path) -> dict[str, Any]:
    """What `show` shows: the record as it is, where it lies, and the end of its log or None.

    Raises
    ------
    BenchError : the file is no record.
    """
    record = read_record(path)
    log = _log(record)
    found = None if log is None else {"path": str(log.path), "lines": log.lines}
    return {"path": str(path), "record": record, "log": found}


@dataclass(frozen=True)
class Log:
    """The end of a log: whose it is, where it lies, its last lines."""

    whose: str
    path: Path
    lines: list[str]


def _log(record: Record) -> Log | None:
    """What was printed by the trial's process, or by the one that fits all levels."""
    trial = Trial.from_json(record["trial"])
    if other := record.get("fitted_as"):
        trial = replace(trial, **other)
    logs = datasets.cache_dir() / "logs"
    shared = f"log of {trial.method} with seed {trial.seed}, one fit for all levels"
    for whose, path in ((shared, shared_log_path(logs, trial)), ("log", log_path(logs, trial))):
        if path.exists():
            # A method may print any bytes, or be killed in the middle of a character.
            text = path.read_text(errors="replace")
            return Log(whose, path, text.splitlines()[-LOG_LINES:])
    return None


def _history(history: list[dict[str, Any]]) -> list[str]:
    return [f"history ({len(history)} rows):"] + [f"  {json.dumps(row)}" for row in history[-10:]]


@dataclass(frozen=True)
class Found:
    """The record that somebody means, and the others that its name fits."""

    path: Path
    others: tuple[Path, ...] = ()

    def said_of_others(self) -> str:
        """Which of them is shown, and what names another one."""
        names = "\n".join(f"  {_name(path)}" for path in self.others)
        return f"{_name(self.path)} is shown; the name fits these too:\n{names}"


def find(wanted: str, results: Path) -> Found:
    """The record that a person names by its path or by METHOD/LEVEL/SEED, of whatever board.

    Of several it is the one of the board that ``bench run`` fills by itself.

    Raises
    ------
    BenchError : no such record, or several that fit and none is of that board.
    """
    if Path(wanted).is_file():
        return Found(Path(wanted))
    found = _fitting(wanted.removesuffix(".json"), Store(results).root)
    usual = [path for path in found if path.parts[-5:-3] == USUAL]
    if len(found) == 1 or usual:
        path = (usual or found)[0]
        return Found(path, tuple(other for other in found if other != path))
    if not found:
        raise BenchError(
            f"there is no record {wanted!r} in {results}; expected a path or METHOD/LEVEL/SEED "
            "such as ss-dcec/5%/0"
        )
    names = ", ".join(map(_name, found))
    raise BenchError(f"{wanted!r} fits {len(found)} records; give one of {names}")


def _fitting(wanted: str, root: Path) -> list[Path]:
    """The records whose names end so: DATASET/PROTOCOL-SELECTION-SCHEDULE/METHOD/LEVEL/SEED."""
    parts = wanted.split("/")
    if not 3 <= len(parts) <= 5 or {"", ".", ".."} & set(parts):
        return []
    pattern = [*["*"] * (5 - len(parts)), *map(glob.escape, parts)]
    return sorted(root.glob("/".join(pattern) + ".json"))


def _name(path: Path) -> str:
    """What names this record and no other."""
    return "/".join(path.with_suffix("").parts[-5:])


def facts(data: Dataset) -> str:
    """What was understood of images: their number, size, parts, pixels and classes."""
    n, height, width, *channels = data.X.shape
    kind = f"{channels[0]} channels" if channels else "grey"
    n_test = n - data.n_train
    parts = f"{data.n_train:,} training, {n_test:,} test" if n_test else "no test part"
    sizes = np.bincount(data.y, minlength=data.n_classes)
    return "\n".join(
        [
            f"name     {data.name}",
            f"images   {n:,} of {height}×{width} pixels, {kind}, {data.X.dtype}",
            f"parts    {parts}",
            f"pixels   {data.X.min()} to {data.X.max()}",
            f"classes  {data.n_classes:,}, of {sizes.min():,} to {sizes.max():,} images",
        ]
    )


def classes(data: Dataset, width: int) -> list[Text | Table]:
    """The size of every class in each part; of many classes those of the first."""
    from rich.text import Text

    parts = {"training": data.y[: data.n_train], "test": data.y[data.n_train :]}
    counts = {name: np.bincount(y, minlength=data.n_classes) for name, y in parts.items() if len(y)}
    rows = [
        [
            Text(str(j)),
            Text(printable(name)),
            *(Text(f"{of_part[j]:,}") for of_part in counts.values()),
        ]
        for j, name in enumerate(data.class_names[:MOST_CLASSES])
    ]
    more = data.n_classes > MOST_CLASSES
    title = f"the first {MOST_CLASSES} of {data.n_classes:,} classes" if more else "classes"
    return fitted(title, ["class", "name", *counts], rows, width, texts=["name"])
