"""What to use with so many labels: answers that follow from a leaderboard and its trials.

The rules are few, so that a page can follow them in its own language from `to_json`:

1. A budget of labels is answered at the measured level with the most labels that it pays for.
2. The best is the highest mean accuracy; equal ones are in the order of their names.
3. *Seconds* are those of the fit and of the shared stages together, as if nothing were shared.
   Those of a processor and of a GPU are not comparable: `choose` has choices for each device apart.
4. *The cheapest* is the one with the fewest seconds among those within .01 of the best, on the same
   device and within the same limit.
5. Where one method alone was measured, nothing is the best: the answer says so, and there are no
   choices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from bench.core.errors import BenchError
from bench.records.entries import (
    CLOSE,
    NEAR,
    ROUNDING,
    TIED,
    TOO_FEW,
    UNDECIDED,
    Cost,
    Entry,
    Needed,
    entries_of,
    is_board,
    levels_of,
    ranges_of,
)
from bench.records.standings import BOARD_KEYS

BUDGETS = (0, 10, 100, 700, 3_500, 35_000)
NOT_REACHED = "not reached"
MOST_NAMED = 3  # of a top group, in a sentence
DEVICES = {"cpu": "a processor", "cuda": "a GPU"}
Key = tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What there is to say with `asked` labels.

    Attributes
    ----------
    asked : the budget. level, n_labels : the measured level that it is answered at.
    entries : all methods there, best first. Copies of another method (``same_as``) and variants
        are left out.
    """

    asked: int
    level: str
    n_labels: int
    entries: tuple[Entry, ...]

    @property
    def group(self) -> tuple[Entry, ...]:
        """The best and those that are not told apart from it, best first; empty of one method."""
        return tuple(e for e in self.entries if e.standing) if len(self.entries) > 1 else ()

    @property
    def baseline(self) -> Entry | None:
        """The best supervised method at this level."""
        return next((entry for entry in self.entries if entry.supervised), None)


@dataclass(frozen=True)
class Choice:
    """An entry that is chosen, and what it costs on the device in question."""

    entry: Entry
    cost: Cost


@dataclass(frozen=True)
class Choices:
    """Three choices on one device; None where no method is left."""

    device: str
    best: Choice | None
    best_unlabelled: Choice | None
    cheapest: Choice | None


def main_board(table: pd.DataFrame) -> Key | None:
    """The dataset, protocol, selection and schedule with the most methods; None without any.

    Of several the one with the most rows, then the first by name.
    """
    scored = table[table["headline_mean"].notna()]
    if scored.empty:
        return None
    sizes = [
        (-rows["method"].nunique(), -len(rows), tuple(map(str, key)))
        for key, rows in scored.groupby(BOARD_KEYS, observed=True)
    ]
    return min(sizes)[-1]


def answer(
    table: pd.DataFrame,
    trials: pd.DataFrame,
    board: Sequence[str],
    asked: int,
    whole: pd.DataFrame | None = None,
) -> Answer:
    """What to use with `asked` labels on a board.

    Parameters
    ----------
    table : what `bench.records.leaderboard.aggregate` made of `trials`.
    trials : the rows of `load_results`.
    board : dataset, protocol, selection and schedule, as `main_board` gives them.
    whole : the leaderboard that `table` is some levels of; None where that is all of it.

    Raises
    ------
    BenchError : no such board, or nothing measured there with so few labels.
    """
    levels = levels_of(table, board)
    paid = [level for level in levels if level[0] <= asked]
    if not paid:
        fewest = f"the fewest measured are {levels[0][0]:,}" if levels else "nothing was measured"
        raise BenchError(
            f"there is no answer for {asked:,} labels on {' · '.join(board)}: {fewest}"
        )
    n_labels, level, rows = paid[-1]
    at = is_board(trials, board) & (trials["level"].astype(str) == level)
    ok = trials[at & (trials["status"] == "ok")]
    ranges = ranges_of(table if whole is None else whole, board)
    return Answer(asked, level, n_labels, entries_of(rows, ok, ranges))


def answers(
    table: pd.DataFrame,
    trials: pd.DataFrame,
    board: Sequence[str],
    budgets: Iterable[int] = BUDGETS,
    whole: pd.DataFrame | None = None,
) -> list[Answer]:
    """An answer for each budget, but for those that no level answers or the same as one before."""
    fewest = min((n for n, _, _ in levels_of(table, board)), default=math.inf)
    found: dict[int, Answer] = {}
    for asked in sorted(budgets):
        if asked >= fewest:
            one = answer(table, trials, board, asked, whole)
            found.setdefault(one.n_labels, one)
    return list(found.values())


def choose(entries: Iterable[Entry], seconds: float | None = None) -> list[Choices]:
    """On each device the best, the best that uses unlabelled images, the cheapest within .01.

    Parameters
    ----------
    entries : of one answer, best first.
    seconds : what a fit with its shared stages may take; None is no limit.

    Returns
    -------
    Choices for each device by name; none where one method alone was measured.
    """
    entries = list(entries)
    if len(entries) < 2:
        return []
    priced = [Choice(entry, cost) for entry in entries for cost in entry.costs]
    return [
        _choices(device, [one for one in priced if one.cost.device == device], seconds)
        for device in sorted({one.cost.device for one in priced})
    ]


def _choices(device: str, priced: Sequence[Choice], seconds: float | None) -> Choices:
    left = [one for one in priced if seconds is None or one.cost.seconds <= seconds]
    best = left[0] if left else None
    near = [
        one for one in left if best and one.entry.accuracy >= best.entry.accuracy - NEAR - ROUNDING
    ]
    return Choices(
        device,
        best,
        next((one for one in left if one.entry.uses_unlabelled), None),
        min(near, key=lambda one: one.cost.seconds, default=None),
    )


def sentences(table: pd.DataFrame, trials: pd.DataFrame, whole: pd.DataFrame) -> list[str]:
    """What to use with each of `BUDGETS`, on the main board; empty without any headline.

    `table` has some levels of the leaderboard `whole`, or all.
    """
    board = main_board(table)
    found = [] if board is None else answers(table, trials, board, whole=whole)
    return [sentence(one) for one in found]


def sentence(answer: Answer) -> str:
    """An answer as one sentence of plain English."""
    labels = f"With {answer.asked:,} label{'s' if answer.asked > 1 else ''}"
    labels = labels if answer.asked else "Without labels"
    if answer.n_labels != answer.asked:
        labels += f" (measured with {answer.n_labels:,})"
    if len(answer.entries) == 1:
        (only,) = answer.entries
        return (
            f"{labels}, only {only.method} was measured, {_score(only, answer)}: nothing is best."
        )
    best, *others = answer.group
    parts = [f"{labels}, {best.method} comes first with {_score(best, answer)}, {_spent(best)}"]
    if best.supervised:
        parts.append("it learns from the labelled images alone")
    elif best.needed is not None:
        parts.append(_supervised(best.needed))
    parts += [said for word in SAID if (said := _rivals(word, others))]
    if best.n_seeds == 1 and not others:
        parts.append("one seed cannot tell close ones apart")
    return f"{'; '.join(parts)}."


SAID = {
    TIED: "tied with it: {}",
    UNDECIDED: "its seeds do not tell it from {}",
    TOO_FEW: "its seeds are too few to tell it from {}",
    CLOSE: "one seed cannot tell it from {}",
}


def _rivals(standing: str, others: Iterable[Entry]) -> str:
    """Who else is in the group for this reason; empty if nobody."""
    named = [f"{e.method} ({_short(e.accuracy)})" for e in others if e.standing == standing]
    more = len(named) - MOST_NAMED
    if more > 0:
        named[MOST_NAMED:] = [f"{more} more"]
    if not named:
        return ""
    *first, last = named
    return SAID[standing].format(f"{', '.join(first)} and {last}" if first else last)


def _score(entry: Entry, answer: Answer) -> str:
    """``.770 (95 % interval .735 to .805, 3 seeds)``."""
    remarks = [] if answer.n_labels else ["ACC"]
    if entry.low is not None and entry.high is not None:
        remarks += [f"95 % interval {_short(entry.low)} to {_short(entry.high)}"]
    remarks += ["one seed" if entry.n_seeds == 1 else f"{entry.n_seeds} seeds"]
    return f"{_short(entry.accuracy)} ({', '.join(remarks)})"


def _spent(entry: Entry) -> str:
    """``12 s on a processor or 4.1 s on a GPU``."""
    each = [f"{_seconds(c.seconds)} s on {DEVICES.get(c.device, c.device)}" for c in entry.costs]
    return "in " + " or ".join(each) if each else "its time was not kept"


def _supervised(needed: Needed) -> str:
    plain = f"a plain supervised method ({needed.baseline})"
    if needed.labels is None:
        return f"no plain supervised method has as much with up to {needed.most:,} labels"
    if needed.at_most:
        return f"{plain} has the same with {needed.fewest:,} labels or fewer"
    return f"{plain} needs about {_about(needed.labels):,} labels for the same"


def _about(number: float) -> int:
    """A number to two digits: an interpolated one has no more."""
    return int(round(number, 1 - math.floor(math.log10(number))))


def _seconds(value: float) -> str:
    return f"{value:,.{0 if value >= 10 else 1}f}"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def to_json(table: pd.DataFrame, trials: pd.DataFrame, board: Sequence[str]) -> dict[str, Any]:
    """A board with all its levels, for a page that answers by the rules above; values of JSON.

    Returns
    -------
    ``board`` (its four keys), ``near`` (.01) and ``levels``, few labels first. Each level has
    ``level``, ``n_labels`` and ``entries``, best first, each with the fields of `Entry`; in
    ``costs`` each device has also ``seconds``, of fit and shared stages together. In ``needed`` the
    text "not reached" stands where no number of labels is enough.
    """
    levels = []
    for n_labels, level, _ in levels_of(table, board):
        entries = answer(table, trials, board, n_labels).entries
        levels.append(
            {"level": level, "n_labels": n_labels, "entries": [_entry_json(e) for e in entries]}
        )
    return {"board": dict(zip(BOARD_KEYS, board, strict=True)), "near": NEAR, "levels": levels}


def _entry_json(entry: Entry) -> dict[str, Any]:
    values = asdict(entry)
    values["costs"] = {
        cost.device: {"fit": cost.fit, "shared": cost.shared, "seconds": cost.seconds}
        for cost in entry.costs
    }
    if entry.needed is not None:
        values["needed"] = {
            name: NOT_REACHED
            if value == math.inf or (name == "labels" and value is None)
            else value
            for name, value in asdict(entry.needed).items()
        } | {"at_most": entry.needed.at_most}
    return values
