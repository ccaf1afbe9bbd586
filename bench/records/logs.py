"""Where the output of a trial's process is kept."""

from __future__ import annotations

from pathlib import Path

from bench.core.trial import Trial


def log_path(logs: Path, trial: Trial) -> Path:
    """Where the output of a trial's process is kept, unless `shared_log_path` has it."""
    return logs / trial.path.with_suffix(".log")


def shared_log_path(logs: Path, trial: Trial) -> Path:
    """Where the output is kept of the one fit of a method that ignores labels, for all levels."""
    return logs / trial.folder / f"{trial.seed}.log"
