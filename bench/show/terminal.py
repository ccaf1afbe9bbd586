"""What the terminal shows of boards, records and the machine."""

from __future__ import annotations

import glob
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core import machine
from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.data import datasets
from bench.records.logs import log_path, shared_log_path
from bench.records.store import Store, read_record

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table
    from rich.text import Text

    from bench.records.leaderboard import Board, Cell

LOG_LINES = 40


def as_table(board: Board) -> Table:
    """A board as a table for the terminal; the best of each level is bold."""
    from rich.table import Table
    from rich.text import Text

    # Texts throughout: in a plain string what stands in brackets would be markup.
    table = Table(title=Text(board.title), title_justify="left", pad_edge=False)
    for column in board.columns:
        side: JustifyMethod = "right" if table.columns else "left"
        table.add_column(Text(column), justify=side, no_wrap=True)
    for row in board.rows:
        table.add_row(*[_emphasised(cell) for cell in row])
    return table


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


def doctor() -> tuple[str, bool]:
    """What this machine offers, and whether a run can start."""
    import torch

    cache = datasets.cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    cuda = torch.cuda.is_available()
    lines = [
        f"processor   {machine.processor()}, {machine.core_count()} cores, "
        f"bf16 products: {'native' if machine.has_native_bf16() else 'no'}",
        f"memory      {machine.memory_gib():.1f} GiB",
        f"accelerator {machine.accelerator('cuda') if cuda else 'none'}",
        f"cache       {cache}, {shutil.disk_usage(cache).free / 2**30:.1f} GiB free",
        f"versions    {', '.join(f'{k} {v}' for k, v in machine.versions().items())}",
    ]
    try:
        data = datasets.load("fashion-mnist", log=lines.append)
    except BenchError as error:
        return "\n".join([*lines, f"data        not usable: {error}"]), False
    lines.append(f"data        {data.name}: {len(data.y)} images, sha256 {data.digest[:16]}")
    return "\n".join(lines), True
