"""What the timings share: options, images, contestants that take turns, and the tables at the end.

Options (``tox -e bench -- ...``): ``--tables DIR`` for the tables' folder, ``--rounds N`` for
other numbers of rounds, ``--tiny`` to see within a minute that all of them work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench.core import machine
from bench.data import datasets
from benchmarks import tables
from benchmarks.harness import Comparison, Contestant, Growth, Ledger, Race

TABLES = Path("results/benchmarks")
LEDGER = pytest.StashKey[Ledger]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("timings of this project")
    group.addoption("--tables", metavar="DIR", help=f"folder of the tables; default {TABLES}")
    group.addoption("--rounds", type=int, metavar="N", help="rounds of every comparison")
    group.addoption(
        "--tiny",
        action="store_true",
        help="see that all timings work: few random images, one round, nothing saved unless "
        "--tables is given",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger()
    machine.commit(
        tables.CODE
    )  # kept from now on: what is measured is the code that the session starts with
    rounds = config.getoption("rounds", None)
    if rounds is not None and rounds < 1:
        raise pytest.UsageError(f"--rounds is {rounds}; expected at least 1")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the tables and save them."""
    ledger = config.stash[LEDGER]
    if not (ledger.comparisons or ledger.growths):
        return
    tiny, folder = config.getoption("tiny"), config.getoption("tables")
    terminalreporter.ensure_newline()
    tables.show(ledger, Console(width=200))
    if tiny and not folder:
        terminalreporter.write_line("--tiny: nothing saved")
        return
    facts = tables.describe_session(rounds=config.getoption("rounds"), tiny=tiny)
    paths = tables.save(ledger, facts, Path(folder) if folder else config.rootpath / TABLES)
    for path in paths:
        terminalreporter.write_line(f"written: {path}")


@dataclass(frozen=True)
class Scale:
    """Sizes and rounds as the options want them."""

    tiny: bool
    forced_rounds: int | None

    def images(self, n: int) -> int:
        """The number of images where the full size is n."""
        return min(n, 1000) if self.tiny else n

    def clusters(self, k: int) -> int:
        """The number of clusters, or of any other repeated thing, where the full number is k."""
        return min(k, 20) if self.tiny else k

    def rounds(self, n: int) -> int:
        """The number of rounds where n are usual."""
        return self.forced_rounds or (1 if self.tiny else n)


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    return Scale(request.config.getoption("tiny"), request.config.getoption("rounds"))


@pytest.fixture(scope="session")
def ledger(request: pytest.FixtureRequest) -> Ledger:
    return request.config.stash[LEDGER]


@pytest.fixture(scope="session")
def images(scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST in memory, X ``(70000, 28, 28)`` uint8 and y; random images if tiny."""
    if scale.tiny:
        n = scale.images(70_000)
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), np.arange(n) % 10
    data = datasets.load("fashion-mnist")
    return np.array(data.X), data.y


@pytest.fixture
def versus(benchmark: Any, ledger: Ledger, scale: Scale) -> Callable[..., Comparison]:
    """``versus(work, ours, peers, rounds=3, ...)`` lets all take turns and notes the comparison.

    pytest-benchmark times the rounds of the first of ours; all others run in its setup, so that
    every round of one is followed by a round of the next.
    """

    def run(
        work: str,
        ours: Mapping[str, Contestant],
        peers: Mapping[str, Contestant] | None = None,
        *,
        rounds: int = 3,
        at_least: Mapping[str, float] | None = None,
        at_most: Mapping[str, float] | None = None,
        reference: str = "",
    ) -> Comparison:
        race = Race({**(peers or {}), **ours})
        first, *others = ours
        take_turns(benchmark, race, [*(peers or {}), *others], first, scale.rounds(rounds))
        found = Comparison(
            work,
            {name: race.series[name] for name in ours},
            {name: race.series[name] for name in peers or {}},
            at_least or {},
            at_most or {},
            reference,
        )
        ledger.comparisons.append(found)
        return found

    return run


@pytest.fixture
def growth(benchmark: Any, ledger: Ledger, scale: Scale) -> Callable[..., Growth]:
    """``growth(work, contestants, amounts, rounds=2)`` times one work at several sizes, in turn.

    `contestants` and `amounts` are by the size as a person reads it; without amounts the cost is
    meant not to depend on the size.
    """

    def run(
        work: str,
        contestants: Mapping[str, Contestant],
        amounts: Mapping[str, float] | None = None,
        *,
        rounds: int = 2,
    ) -> Growth:
        race = Race(contestants)
        *others, last = contestants
        take_turns(benchmark, race, others, last, scale.rounds(rounds))
        found = Growth(work, race.series, amounts or {})
        ledger.growths.append(found)
        return found

    return run


def take_turns(benchmark: Any, race: Race, others: list[str], timed: str, rounds: int) -> None:
    """Run all contestants in turn; the benchmark's own table shows the rounds of `timed`."""
    benchmark.pedantic(
        race.run, args=(timed,), setup=lambda: race.run(*others), rounds=rounds, iterations=1
    )
    for name, series in race.series.items():
        assert len(series.rounds) == rounds, f"{name} had {len(series.rounds)} rounds of {rounds}"
        assert all(min(series.all_seconds(part)) > 0 for part in series.parts), name
        seconds = {part: series.all_seconds(part) for part in series.parts}
        benchmark.extra_info[name] = {"seconds": seconds, "figures": series.figures}
