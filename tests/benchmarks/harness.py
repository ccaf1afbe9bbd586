"""Timing several contestants in turn, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

WHOLE = ""  # the part of a work that is timed as one


@dataclass(frozen=True)
class Round:
    """What one round of one contestant gave.

    seconds : by part of the work; a work of one part calls it `WHOLE`.
    figures : what else tells of the round, such as the inertia that was reached.
    """

    seconds: Mapping[str, float]
    figures: Mapping[str, float] = field(default_factory=dict)


Contestant = Callable[[], Round]


def timed(function: Callable[[], object]) -> Contestant:
    """`function` as a contestant whose rounds are its calls, each timed as a whole."""

    def one_round() -> Round:
        start = time.perf_counter()
        function()
        return Round({WHOLE: time.perf_counter() - start})

    return one_round


@dataclass
class Series:
    """All rounds of one contestant."""

    rounds: list[Round] = field(default_factory=list)

    def add(self, one_round: Round) -> None:
        """Add a round.

        Raises
        ------
        ValueError : it has other parts than the rounds before.
        """
        if self.rounds and one_round.seconds.keys() != self.rounds[0].seconds.keys():
            raise ValueError(
                f"a round of the parts {', '.join(one_round.seconds)} after rounds of "
                f"{', '.join(self.rounds[0].seconds)}; expected the same parts in every round"
            )
        self.rounds.append(one_round)

    @property
    def parts(self) -> list[str]:
        """The parts of the work that this contestant was timed on."""
        return list(self.rounds[0].seconds) if self.rounds else []

    def all_seconds(self, part: str) -> list[float]:
        """The seconds of every round, in order."""
        return [one.seconds[part] for one in self.rounds]

    def seconds(self, part: str) -> float:
        """The median over the rounds."""
        return median(self.all_seconds(part))

    @property
    def figures(self) -> dict[str, float]:
        """The median of every figure over the rounds."""
        names = self.rounds[0].figures if self.rounds else {}
        return {name: median(one.figures[name] for one in self.rounds) for name in names}


class Race:
    """Contestants that run in turn: the first, the second, ..., the first again.

    Parameters
    ----------
    contestants : by name.
    """

    def __init__(self, contestants: Mapping[str, Contestant]) -> None:
        self._contestants = dict(contestants)
        self.series = {name: Series() for name in contestants}

    def run(self, *names: str) -> None:
        """One round of each of the named contestants."""
        for name in names:
            self.series[name].add(self._contestants[name]())


@dataclass(frozen=True)
class Comparison:
    """One work, done by ours in one or several ways and by the peers, if there are any.

    work : what was done, with its size.
    ours, peers : the series of every contestant, by its name.
    at_least : by part, how many times as fast as the reference ours is meant to be.
    at_most : by part, the seconds that ours is meant to take at most.
    reference : the peer that `at_least` is about; without one, the fastest on the part.
    """

    work: str
    ours: Mapping[str, Series]
    peers: Mapping[str, Series] = field(default_factory=dict)
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    reference: str = ""

    @property
    def parts(self) -> list[str]:
        """The parts of the work, in the order in which ours names them."""
        return list(dict.fromkeys(part for one in self.ours.values() for part in one.parts))

    def ranked_peers(self, part: str) -> list[str]:
        """The peers that were timed on a part, the fastest first."""
        timed_peers = [name for name, series in self.peers.items() if part in series.parts]
        return sorted(timed_peers, key=lambda name: self.peers[name].seconds(part))

    def ratio(self, part: str, ours: str, peer: str) -> float:
        """How many times as fast as a peer ours is: the quotient of the medians."""
        return self.peers[peer].seconds(part) / self.ours[ours].seconds(part)

    def verdict(self, part: str, ours: str) -> bool | None:
        """Whether ours is as fast as it is meant to be; None where nothing was set or compared."""
        ranked = self.ranked_peers(part)
        verdicts = []
        if part in self.at_least and ranked:
            reference = self.reference or ranked[0]
            verdicts.append(self.ratio(part, ours, reference) >= self.at_least[part])
        if part in self.at_most:
            verdicts.append(self.ours[ours].seconds(part) <= self.at_most[part])
        return all(verdicts) if verdicts else None


@dataclass(frozen=True)
class Growth:
    """The cost of one work at several sizes.

    work : what was done.
    sizes : the series at each size, by the size as a person reads it.
    amounts : each size as a number, for a cost that is meant to grow in proportion; empty for one
        that is meant not to depend on the size.
    """

    work: str
    sizes: Mapping[str, Series]
    amounts: Mapping[str, float] = field(default_factory=dict)

    @property
    def parts(self) -> list[str]:
        """The parts of the work."""
        return next(iter(self.sizes.values())).parts

    def relative(self, part: str, size: str) -> float:
        """The cost at a size, divided by what the smallest size lets expect: 1 is as expected."""
        first = next(iter(self.sizes))
        expected = self.sizes[first].seconds(part)
        if self.amounts:
            expected *= self.amounts[size] / self.amounts[first]
        return self.sizes[size].seconds(part) / expected


@dataclass
class Ledger:
    """What one session has measured, and what it left out and why."""

    comparisons: list[Comparison] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a remark, once."""
        if text not in self.notes:
            self.notes.append(text)
