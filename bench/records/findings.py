"""What the records say of the published figures: the values, their verdicts, the dead networks.

`verify` reads records and never runs a method; the methods have to be registered before
(`methods.registry.discover`), because their parameters are part of what is compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.core.errors import BenchError
from bench.core.files import said_if_unwritable, write_text
from bench.core.trial import Trial
from bench.records.published import Data, Figure, Setting, known_data, records_of, trial_of
from bench.records.scoring import FAILURES, Record
from bench.records.statistics import t_interval
from bench.records.store import Store, is_stale
from methods.registry import RegistryError

NEEDS_DATA = "needs data: bench run --dataset FILE.npz"
TOLERANCE = 0.02
TOLERANCE_MOST = 0.03
ROUNDING = 1e-9  # 0.78 - 0.76 is a little more than 0.02
DIED_BELOW = 0.15  # a network that died names one class: accuracy 0.10
VERDICTS = ("reproduced", "above", "below", "died", "not run")
EXPLANATION = (
    "measured: mean ± standard deviation (seeds). reproduced: within 0.02 of the published figure, "
    "or within two standard deviations where that is more, at most 0.03; one seed has no standard "
    "deviation. failed: runs that failed, and seeds whose network died (a score below 0.15). The "
    "mean is over the seeds that ended as the published run did, dead or not. died: the network of "
    "every seed did, and the published one did not."
)


@dataclass(frozen=True)
class Finding:
    """A published figure and what was measured of it.

    `values` are the scores of the seeds that ended ``ok``. `n_failed` counts the others, `n_stale`
    the records made by an older version. `precision` is that of the networks' products, in
    the records. `reason` says why there is no value.
    """

    figure: Figure
    values: tuple[float, ...] = ()
    n_failed: int = 0
    n_stale: int = 0
    precision: str = ""
    reason: str = ""

    @property
    def counted(self) -> tuple[float, ...]:
        """The values that are compared: those of networks that ended as the published one did.

        A network died or it did not: a mean over both would describe neither. Where none ended as
        the published one did, all count.
        """
        died = self.figure.value < DIED_BELOW
        alike = tuple(value for value in self.values if (value < DIED_BELOW) == died)
        return alike or self.values

    @property
    def mean(self) -> float | None:
        """The mean of those counted; None without any."""
        return statistics.fmean(self.counted) if self.values else None

    @property
    def std(self) -> float | None:
        """The standard deviation of those counted; None for fewer than two seeds."""
        return statistics.stdev(self.counted) if len(self.counted) > 1 else None

    @property
    def difference(self) -> float | None:
        """Measured less published."""
        return None if self.mean is None else self.mean - self.figure.value

    @property
    def tolerance(self) -> float:
        """0.02, or twice the standard deviation where that is more, but at most 0.03."""
        return min(TOLERANCE_MOST, max(TOLERANCE, 2 * (self.std or 0.0)))

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        if self.difference is None:
            return "not run"
        if self.n_died == len(self.values) and self.figure.value >= DIED_BELOW:
            return "died"
        if abs(self.difference) <= self.tolerance + ROUNDING:
            return "reproduced"
        return "above" if self.difference > 0 else "below"

    @property
    def n_died(self) -> int:
        """How many seeds ended ``ok`` with a network that names one class."""
        return sum(value < DIED_BELOW for value in self.values)

    @property
    def n_runs(self) -> int:
        """How many seeds ran, whether or not they ended well."""
        return len(self.values) + self.n_failed

    @property
    def failure_rate(self) -> float | None:
        """The share of the runs that failed or died; None without a run."""
        return (self.n_failed + self.n_died) / self.n_runs if self.n_runs else None


def verify(
    given: Iterable[Figure], results: str | Path, data: Mapping[str, Data] | None = None
) -> list[Finding]:
    """What the records below `results` say of the figures, in their order.

    Parameters
    ----------
    data : the datasets that settings name; by default what `known_data` finds.

    Raises
    ------
    BenchError : no such folder, or a file in it that is not a record.
    """
    if not Path(results).is_dir():
        raise BenchError(
            f"there is no results folder {results}; `bench verify --run` or `bench run` makes one"
        )
    store = Store(Path(results))
    known = known_data(store) if data is None else data
    return [_find(figure, store, known) for figure in given]


def count(findings: Iterable[Finding]) -> dict[str, int]:
    """Figures per verdict; a second reading of a figure is not counted."""
    found = [finding.verdict for finding in findings if not finding.figure.other_reading]
    return {verdict: found.count(verdict) for verdict in VERDICTS}


def _find(figure: Figure, store: Store, known: Mapping[str, Data]) -> Finding:
    setting = figure.setting
    if setting.dataset not in known:
        return Finding(figure, reason=NEEDS_DATA)
    try:
        trial = trial_of(setting, known[setting.dataset])
    except RegistryError as error:
        return Finding(figure, reason=str(error))
    records = list(records_of(trial, store).values())
    good = [record for record in records if record["status"] == "ok"]
    failed = [record for record in records if record["status"] in FAILURES]
    return Finding(
        figure,
        values=tuple(_value(record, setting) for record in good),
        n_failed=len(failed),
        n_stale=sum(is_stale(record) for record in good),
        precision="/".join(sorted({str(r["environment"].get("precision", "?")) for r in good})),
        reason="" if good else _why_not(records),
    )


def _value(record: Record, setting: Setting) -> float:
    """The score that `setting` asks for, whether or not the trial is ranked by it."""
    subset: Mapping[str, Any] = record["subsets"].get(setting.subset, {})
    value = subset.get(setting.metric)
    if value is None:
        title = Trial.from_json(record["trial"]).title
        raise BenchError(
            f"the record of {title} has no {setting.metric} on {setting.subset}; run it again "
            "with --rerun all"
        )
    return float(value)


def _why_not(records: Sequence[Record]) -> str:
    if not records:
        return "no record; bench verify --run makes one"
    messages = dict.fromkeys(record["error"]["message"] for record in records)
    return f"{len(records)} without a result: {' | '.join(messages)}"


# fmt: off
COLUMNS = [
    "number", "other_reading", "source", "dataset", "method", "parameters", "protocol",
    "selection", "schedule", "level", "metric", "subset", "published", "measured_mean",
    "measured_std", "measured_low", "measured_high", "n_seeds", "precision", "difference",
    "tolerance", "verdict", "n_failed", "n_died", "failure_rate", "note", "published_note",
    "selection_rule",
]
# fmt: on
OF_SETTING = COLUMNS[3:12]


def note(finding: Finding) -> str:
    """What a reader has to know beside the numbers; empty if nothing."""
    values, parts = finding.values, [finding.reason] if finding.reason else []
    if values and finding.n_failed:
        parts.append(f"{finding.n_failed} of {finding.n_runs} runs failed and are not in the mean")
    if finding.n_died:
        died = f"{finding.n_died} of {len(values)} seeds died (below {DIED_BELOW})"
        alive = [value for value in values if value >= DIED_BELOW]
        if alive and finding.figure.value < DIED_BELOW:
            died += f", as the published run did; mean of the others {statistics.fmean(alive):.4f}"
        elif alive:
            died += ", not in the mean"
        parts.append(died)
    if "bf16" in finding.precision:
        parts.append("products in bf16")
    if finding.n_stale:
        parts.append(f"{finding.n_stale} of the records made by an older version (stale)")
    return "; ".join(parts)


def as_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """The findings with the `COLUMNS` of ``verify.csv``."""
    return pd.DataFrame([_row(finding) for finding in findings], columns=COLUMNS)


def write_csv(findings: Iterable[Finding], path: Path) -> None:
    """Write ``verify.csv``: `COLUMNS`, numbers as numbers, empty where nothing is.

    Raises
    ------
    WriteError : the file cannot be written.
    """
    table = as_table(findings)
    with said_if_unwritable(path):
        write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _row(finding: Finding) -> dict[str, Any]:
    figure = finding.figure
    low, high = t_interval(finding.counted)
    return {
        "number": figure.number,
        "other_reading": figure.other_reading,
        "source": figure.source,
        **{name: getattr(figure.setting, name) for name in OF_SETTING},
        "published": figure.value,
        "measured_mean": finding.mean,
        "measured_std": finding.std,
        "measured_low": low,
        "measured_high": high,
        "n_seeds": len(finding.counted),
        "precision": finding.precision or None,
        "difference": finding.difference,
        "tolerance": finding.tolerance if finding.values else None,
        "verdict": finding.verdict,
        "n_failed": finding.n_failed,
        "n_died": finding.n_died,
        "failure_rate": finding.failure_rate,
        "note": note(finding),
        "published_note": figure.note,
        "selection_rule": figure.selection_rule,
    }
