"""What the records say of the published figures: the values, their verdicts, the dead networks.

`verify` reads records and never runs a method; the methods have to be registered before
(`methods.registry.discover`), because their parameters are part of what is compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.published import Data, Figure, Setting, known_data, records_of, trial_of
from bench.record import FAILURES
from bench.store import Record, Store, is_stale
from bench.trial import Trial
from methods.registry import RegistryError

NEEDS_DATA = "needs data: bench run --dataset FILE.npz"
TOLERANCE = 0.02
TOLERANCE_MOST = 0.03
ROUNDING = 1e-9  # 0.78 - 0.76 is a little more than 0.02
DIED_BELOW = 0.15  # a network that died names one class: accuracy 0.10
VERDICTS = ("reproduced", "above", "below", "not run")


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
        if abs(self.difference) <= self.tolerance + ROUNDING:
            return "reproduced"
        return "above" if self.difference > 0 else "below"

    @property
    def n_died(self) -> int:
        """How many seeds ended ``ok`` with a network that names one class."""
        return sum(value < DIED_BELOW for value in self.values)

    @property
    def n_runs(self) -> int:
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
        precision="/".join(sorted({record["environment"]["precision"] for record in good})),
        reason="" if good else _why_not(records),
    )


def _value(record: Record, setting: Setting) -> float:
    """The score that `setting` asks for, whether or not the trial is ranked by it."""
    value = record["subsets"].get(setting.subset, {}).get(setting.metric)
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
