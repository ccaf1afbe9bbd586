"""What the terminal shows of boards, records and the machine."""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.core import machine
from bench.core.errors import BenchError, WriteError
from bench.core.files import check_writable
from bench.core.trial import Trial
from bench.data import datasets
from bench.data.datasets import Dataset
from bench.records.logs import log_path, shared_log_path
from bench.records.store import Store, read_record

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from bench.records.leaderboard import Board, Cell

LOG_LINES = 40
LEAST_TEXT = 22  # columns of the terminal to which a text may be wrapped: most methods' names
EDGES, GUTTER = 2, 3  # columns that a table's frame takes, and what stands between two columns
MOST_CLASSES = 20  # that are listed one by one


def as_tables(board: Board, width: int) -> list[Text | Table]:
    """A board for a terminal of so many columns; the best of each level is bold."""
    rows = [[_emphasised(cell) for cell in row] for row in board.rows]
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
    made: list[Text | Table] = [Text(title, "table.title")]
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


def _emphasised(cell: Cell) -> Text:
    from rich.text import Text

    return Text.assemble((cell.text, "bold green" if cell.best else ""), cell.remark)


def show(wanted: str, results: Path) -> str:
    """One record: its facts, the end of its log, its traceback.

    Raises
    ------
    BenchError : no such record, or several that fit.
    """
    path = _find(wanted, results)
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
    if other := record.get("fitted_as"):
        trial = replace(trial, **other)
    return "\n".join(lines + _log(trial))


def _log(trial: Trial) -> list[str]:
    """The end of what was printed by the trial's process, or by the one that fits all levels."""
    logs = datasets.cache_dir() / "logs"
    shared = f"log of {trial.method} with seed {trial.seed}, one fit for all levels"
    for whose, path in ((shared, shared_log_path(logs, trial)), ("log", log_path(logs, trial))):
        if path.exists():
            # A method may print any bytes, or be killed in the middle of a character.
            text = path.read_text(errors="replace")
            return [f"{whose} ({path}):", *text.splitlines()[-LOG_LINES:]]
    return ["log: none on this machine"]


def _history(history: list[dict[str, Any]]) -> list[str]:
    return [f"history ({len(history)} rows):"] + [f"  {json.dumps(row)}" for row in history[-10:]]


def _find(wanted: str, results: Path) -> Path:
    """The record that a person names by its path or by METHOD/LEVEL/SEED."""
    if Path(wanted).is_file():
        return Path(wanted)
    root = Store(results).root
    found = sorted(root.glob(f"*/*/{glob.escape(wanted.removesuffix('.json'))}.json"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise BenchError(
            f"there is no record {wanted!r} in {results}; expected a path or METHOD/LEVEL/SEED "
            "such as ss-dcec/5%/0"
        )
    paths = ", ".join(str(path) for path in found)
    raise BenchError(f"{wanted!r} fits {len(found)} records; give one path of {paths}")


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
        [Text(str(j)), Text(name), *(Text(f"{of_part[j]:,}") for of_part in counts.values())]
        for j, name in enumerate(data.class_names[:MOST_CLASSES])
    ]
    more = data.n_classes > MOST_CLASSES
    title = f"the first {MOST_CLASSES} of {data.n_classes:,} classes" if more else "classes"
    return fitted(title, ["class", "name", *counts], rows, width, texts=["name"])


def doctor() -> tuple[str, bool]:
    """What this machine offers, and whether a run can start."""
    import torch

    cuda = torch.cuda.is_available()
    lines = [
        f"processor   {machine.processor()}, {machine.core_count()} cores, "
        f"bf16 products: {'native' if machine.has_native_bf16() else 'no'}",
        f"memory      {machine.memory_gib():.1f} GiB",
        f"accelerator {machine.accelerator('cuda') if cuda else 'none'}",
        f"versions    {', '.join(f'{k} {v}' for k, v in machine.versions().items())}",
    ]
    cache = datasets.cache_dir()
    try:
        check_writable(cache)
        lines.append(f"cache       {cache}, {shutil.disk_usage(cache).free / 2**30:.1f} GiB free")
        healthy = True
    except WriteError as error:
        lines.append(
            f"cache       not usable: {error.__cause__}; set BENCH_CACHE to another folder"
        )
        healthy = False
    try:
        data = datasets.load("fashion-mnist", log=lines.append)
    except BenchError as error:
        return "\n".join([*lines, f"data        not usable: {error}"]), False
    lines.append(f"data        {data.name}: {len(data.y)} images, sha256 {data.digest[:16]}")
    return "\n".join(lines), healthy
