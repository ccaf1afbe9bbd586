"""What to use with so many labels: by hand, in words, and by the rules that a page follows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from boards import register_kinds, trials_of
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import BenchError
from bench.records import advice
from bench.records.advice import Answer, Choices, answer, answers, choose, main_board, sentence
from bench.records.entries import Cost, Entry, is_board, levels_of
from bench.records.leaderboard import aggregate, leaderboard
from bench.records.store import load_results

MakeRecord = Callable[..., dict[str, Any]]
BOARD = ("toy", "transductive", "stratified", "quick")
RESULTS = Path(__file__).parent.parent / "results"
BEST = [0.80, 0.82, 0.84, 0.81, 0.83]


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    register_kinds(
        monkeypatch, plain="supervised", deep="supervised", ours="graph", other="k-means"
    )


def cost(fit: float, shared: float) -> dict[str, Any]:
    return {
        "fit_seconds": fit,
        "stage_seconds": shared,
        "predict_seconds": 0.0,
        "peak_memory_mib": 1.0,
        "stages": [],
    }


def ask(make_record: MakeRecord, scores: Any, asked: int, **fields: Any) -> Answer:
    trials = trials_of(make_record, scores, **fields)
    return answer(aggregate(trials), trials, BOARD, asked)


def names(entries: Any) -> list[str]:
    return [entry.method for entry in entries]


# --- The answer ----------------------------------------------------------------------------------


def test_a_budget_is_answered_at_the_level_that_it_pays_for(make_record: MakeRecord) -> None:
    scores = {"ours": {0: [0.1], 10: [0.5], 100: [0.7]}, "deep": {10: [0.6], 100: [0.6]}}
    found = [ask(make_record, scores, asked) for asked in (0, 9, 10, 99, 100, 5000)]
    assert [one.n_labels for one in found] == [0, 0, 10, 10, 100, 100]
    assert [one.level for one in found] == ["0%", "0%", "10", "10", "100", "100"]
    assert [names(one.entries)[0] for one in found] == ["ours", "ours", "deep", "deep"] + [
        "ours"
    ] * 2
    assert "measured with 10" in sentence(found[3])
    assert "measured" not in sentence(found[4])


def test_shares_and_counts_are_answered_together(make_record: MakeRecord) -> None:
    """Of a share and a count that are as many labels, the level with more methods."""
    trials = pd.concat(
        [
            trials_of(make_record, {"ours": {10: [0.5], 700: [0.8]}, "deep": {10: [0.4]}}),
            *(
                trials_of(make_record, {name: {700: [0.7]}}).assign(level="1%")
                for name in ("ours", "deep")
            ),
        ]
    )
    table = aggregate(trials)
    assert [answer(table, trials, BOARD, n).level for n in (10, 700)] == ["10", "1%"]
    assert [one.level for one in answers(table, trials, BOARD)] == ["10", "1%"]


def test_no_answer_is_said(make_record: MakeRecord) -> None:
    trials = trials_of(make_record, {"ours": {10: [0.5]}})
    table = aggregate(trials)
    with pytest.raises(BenchError, match=r"no answer for 5 labels .*: the fewest measured are 10"):
        answer(table, trials, BOARD, 5)
    with pytest.raises(BenchError, match="no answer for 5 labels on a · b · c · d: nothing was"):
        answer(table, trials, ("a", "b", "c", "d"), 5)
    assert answers(table, trials, ("a", "b", "c", "d")) == []


def test_an_entry_by_hand(make_record: MakeRecord) -> None:
    scores = {"ours": {10: [0.6]}, "deep": {10: [0.5], 1000: [0.7]}}
    first, second = ask(make_record, scores, 10, cost=cost(2, 3)).entries
    assert (first.method, first.accuracy, first.low, first.n_seeds) == ("ours", 0.6, None, 1)
    assert first.costs == (Cost("cpu", 2, 3),)
    assert first.costs[0].seconds == 5
    assert (first.uses_unlabelled, first.supervised) == (True, False)
    assert first.gain is not None
    assert (first.gain.baseline, first.gain.low, first.gain.n_seeds) == ("deep", None, 1)
    assert first.gain.mean == pytest.approx(0.1)
    assert first.needed is not None
    assert first.needed.labels == pytest.approx(100)
    assert (first.needed.fewest, first.needed.most, first.needed.at_most) == (10, 1000, False)
    assert (second.uses_unlabelled, second.supervised) == (False, True)
    assert second.gain is second.needed is None


def test_seconds_are_medians_of_each_device_apart(make_record: MakeRecord) -> None:
    trials = pd.concat(
        [
            trials_of(make_record, {"ours": {10: [0.5]}}, cost=cost(10, 20)),
            trials_of(
                make_record,
                {"ours": {10: [0.5, 0.5, 0.5, 0.5]}, "deep": {10: [0.4]}},
                cost=cost(1, 2),
                environment={"device": "cuda"},
            ).query("seed > 0 or method == 'deep'"),
        ]
    )
    found = answer(aggregate(trials), trials, BOARD, 10).entries[0]
    assert found.costs == (Cost("cpu", 10, 20), Cost("cuda", 1, 2))


def test_copies_and_variants_are_left_out(make_record: MakeRecord) -> None:
    changed = {"variant": {"lam": 0.5}, "params": {"lam": 0.5}}
    copies = trials_of(make_record, {"plain": {10: [0.7]}}).assign(same_as="ours")
    trials = pd.concat(
        [
            trials_of(make_record, {"ours": {10: [0.7]}, "other": {10: [0.6]}}),
            trials_of(make_record, {"ours": {10: [0.9]}}, **changed),
            copies,
        ]
    )
    assert names(answer(aggregate(trials), trials, BOARD, 10).entries) == ["ours", "other"]


def test_two_that_say_to_be_each_other_are_no_copies(make_record: MakeRecord) -> None:
    """As records from elsewhere may have it."""
    one, other = (trials_of(make_record, {name: {10: [0.7]}}) for name in ("ours", "other"))
    trials = pd.concat([one.assign(same_as="other"), other.assign(same_as="ours")])
    found = answer(aggregate(trials), trials, BOARD, 10)
    assert names(found.entries) == ["other", "ours"]


@pytest.mark.parametrize(
    ("ours", "other", "standing"),
    [
        ([0.82], [0.811], "close"),
        ([0.82], [0.805], ""),
        (BEST[:3], [0.83, 0.80, 0.80], "too few seeds"),
        (BEST[:3], [0.1, 0.1, 0.1], ""),
        (BEST, [x - 0.002 for x in BEST], "tied"),
        (BEST, [0.83, 0.78, 0.80, 0.81, 0.82], "undecided"),
        (BEST, [x - 0.02 for x in BEST], ""),
        (BEST, [0.795], "close"),  # on seed 0, which both have
    ],
)
def test_who_is_not_told_apart_from_the_best(
    make_record: MakeRecord, ours: list[float], other: list[float], standing: str
) -> None:
    found = ask(make_record, {"ours": {10: ours}, "other": {10: other}}, 10)
    assert [entry.standing for entry in found.entries] == ["best", standing]
    assert names(found.group) == (["ours", "other"] if standing else ["ours"])


def test_of_one_method_nothing_is_best(make_record: MakeRecord) -> None:
    found = ask(make_record, {"ours": {10: [0.7]}, "deep": {100: [0.5]}}, 10)
    assert found.group == ()
    assert choose(found.entries) == []
    assert sentence(found) == (
        "With 10 labels, only ours was measured, .700 (one seed): nothing is best."
    )


def test_the_main_board_has_the_most_methods(make_record: MakeRecord) -> None:
    many = {"ours": {10: [0.5]}, "deep": {10: [0.5]}}
    trials = pd.concat(
        [
            trials_of(make_record, {"ours": {n: [0.5] for n in (10, 20, 30)}}, schedule="paper"),
            trials_of(make_record, many),
            trials_of(make_record, many, protocol="inductive"),
            trials_of(make_record, many | {"plain": {20: [None]}}, protocol="inductive-55k"),
        ]
    )
    assert main_board(aggregate(trials)) == ("toy", "inductive", "stratified", "quick")
    assert main_board(aggregate(trials[:0])) is None


# --- The sentence --------------------------------------------------------------------------------


def test_a_sentence_with_seeds(make_record: MakeRecord) -> None:
    """Mean .82 ± .0497; .82 is reached by `deep` at 10^2.1 labels, to two digits 130."""
    scores = {
        "ours": {10: [0.80, 0.82, 0.84], 100: [0.9]},
        "deep": {10: [0.5, 0.5, 0.5], 100: [0.8], 1000: [1.0]},
        "other": {10: [0.83, 0.80, 0.80]},
    }
    assert sentence(ask(make_record, scores, 10, cost=cost(4.04, 0))) == (
        "With 10 labels, ours comes first with .820 (95 % interval .770 to .870, 3 seeds), in "
        "4.0 s on a processor; a plain supervised method (deep) needs about 130 labels for the "
        "same; its seeds are too few to tell it from other (.810)."
    )


def test_a_sentence_of_one_seed(make_record: MakeRecord) -> None:
    scores = {"ours": {0: [0.7]}, "other": {0: [0.1]}, "deep": {10: [0.8], 100: [0.9]}}
    fields: dict[str, Any] = {"cost": cost(1000, 500), "environment": {"device": "cuda"}}
    assert sentence(ask(make_record, scores, 0, **fields)) == (
        "Without labels, ours comes first with .700 (ACC, one seed), in 1,500 s on a GPU; a plain "
        "supervised method (deep) has the same with 10 labels or fewer; one seed cannot tell close "
        "ones apart."
    )


def test_a_sentence_of_a_supervised_method(make_record: MakeRecord) -> None:
    scores = {name: {3500: [0.8]} for name in ("deep", "m1", "m2", "m3", "m4", "m5")}
    found = ask(make_record, scores, 4000)
    assert sentence(found) == (
        "With 4,000 labels (measured with 3,500), deep comes first with .800 (one seed), in 5.0 s "
        "on a processor; it learns from the labelled images alone; one seed cannot tell it from m1 "
        "(.800), m2 (.800), m3 (.800) and 2 more."
    )


def test_a_sentence_of_verdicts(make_record: MakeRecord) -> None:
    scores = {
        "ours": {10: BEST},
        "near": {10: [x - 0.002 for x in BEST]},
        "unsure": {10: [0.83, 0.78, 0.80, 0.81, 0.82]},
        "deep": {10: [0.2] * 5, 500: [0.3]},
    }
    said = sentence(ask(make_record, scores, 10))
    assert "no plain supervised method has as much with up to 500 labels" in said
    assert said.endswith(
        "; tied with it: near (.818); its seeds do not tell it from unsure (.808)."
    )


# --- Choices, and the page -----------------------------------------------------------------------


def entry(name: str, accuracy: float, unlabelled: bool | None = True, **seconds: float) -> Entry:
    costs = tuple(Cost(device, value / 2, value / 2) for device, value in seconds.items())
    return Entry(name, accuracy, None, None, 1, costs, unlabelled, not unlabelled, None, None)


def chosen(choices: Choices) -> list[str | None]:
    three = (choices.best, choices.best_unlabelled, choices.cheapest)
    return [one.entry.method if one else None for one in three]


def test_three_choices_on_each_device() -> None:
    entries = [
        entry("a", 0.90, False, cpu=100),
        entry("b", 0.89, True, cpu=50, cuda=3),
        entry("c", 0.889, True, cpu=1, cuda=4),
        entry("d", 0.5, None, cuda=1),
    ]
    cpu, cuda = choose(entries)
    assert (cpu.device, chosen(cpu)) == ("cpu", ["a", "b", "b"])  # .889 is more than .01 below
    assert (cuda.device, chosen(cuda)) == ("cuda", ["b", "b", "b"])
    cpu, cuda = choose(entries, seconds=50)
    assert chosen(cpu) == ["b", "b", "c"]
    assert chosen(choose(entries, seconds=2)[0]) == ["c", "c", "c"]
    assert chosen(choose(entries, seconds=2)[1]) == ["d", None, "d"]  # nobody knows what d uses
    assert chosen(choose(entries, seconds=0.5)[0]) == [None, None, None]


def as_a_page_would(
    page: dict[str, Any], asked: int, seconds: float
) -> dict[str, list[str | None]]:
    """The rules of the module, followed on JSON with nothing but loops and comparisons."""
    level = [one for one in page["levels"] if one["n_labels"] <= asked][-1]
    found: dict[str, list[str | None]] = {}
    if len(level["entries"]) < 2:
        return found
    for device in {device for one in level["entries"] for device in one["costs"]}:
        left = [
            one
            for one in level["entries"]
            if device in one["costs"] and one["costs"][device]["seconds"] <= seconds
        ]
        best = left[0] if left else None
        unlabelled = [one for one in left if one["uses_unlabelled"] is True]
        cheapest = None
        for one in left:
            near = one["accuracy"] >= left[0]["accuracy"] - page["near"] - 1e-9
            cost = one["costs"][device]["seconds"]
            if near and (cheapest is None or cost < cheapest["costs"][device]["seconds"]):
                cheapest = one
        three = (best, unlabelled[0] if unlabelled else None, cheapest)
        found[device] = [one and one["method"] for one in three]
    return found


@pytest.fixture(scope="module")
def committed() -> tuple[pd.DataFrame, pd.DataFrame, advice.Key]:
    """The committed leaderboard and trials, and their main board."""
    table, trials = leaderboard(RESULTS), load_results(RESULTS)
    board = main_board(table)
    assert board is not None
    return table, trials, board


@pytest.fixture(scope="module")
def entries_by_labels(
    committed: tuple[pd.DataFrame, pd.DataFrame, advice.Key],
) -> dict[int, tuple[Entry, ...]]:
    """The entries of each level of the main board, few labels first."""
    table, trials, board = committed
    found = [answer(table, trials, board, n) for n, _, _ in levels_of(table, board)]
    return {one.n_labels: one.entries for one in found}


@pytest.fixture(scope="module")
def page(committed: tuple[pd.DataFrame, pd.DataFrame, advice.Key]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(advice.to_json(*committed), allow_nan=False))
    return found


@given(asked=st.integers(0, 100_000), seconds=st.floats(0, 10_000))
def test_a_page_can_follow_the_rules(
    entries_by_labels: dict[int, tuple[Entry, ...]],
    page: dict[str, Any],
    asked: int,
    seconds: float,
) -> None:
    entries = entries_by_labels[max(n for n in entries_by_labels if n <= asked)]
    found = {one.device: chosen(one) for one in choose(entries, seconds)}
    assert as_a_page_would(page, asked, seconds) == found


def test_the_committed_results_answer_every_budget(
    committed: tuple[pd.DataFrame, pd.DataFrame, advice.Key],
) -> None:
    """The first of each answer is the best of the leaderboard there, with its figures."""
    table, trials, board = committed
    assert board == ("fashion-mnist", "transductive", "stratified", "quick")
    found = answers(table, trials, board)
    assert [one.asked for one in found] == [one.n_labels for one in found] == list(advice.BUDGETS)
    rows = table[is_board(table, board)]
    for one in found:
        best = rows[(rows["level"] == one.level) & (rows["rank"] == 1)].iloc[0]
        assert one.entries[0].method == best["method"]
        assert f"{best['headline_mean']:.3f}".removeprefix("0") in sentence(one)
        assert [e.accuracy for e in one.entries] == sorted(
            (e.accuracy for e in one.entries), reverse=True
        )


def test_what_is_not_reached_is_a_text_for_the_page(make_record: MakeRecord) -> None:
    trials = trials_of(
        make_record,
        {"ours": {10: [0.9, 0.9]}, "deep": {10: [0.5, 0.5], 100: [0.8, 0.95]}},
    )
    page = advice.to_json(aggregate(trials), trials, BOARD)
    json.dumps(page, allow_nan=False)
    assert [(one["level"], one["n_labels"]) for one in page["levels"]] == [("10", 10), ("100", 100)]
    ours = page["levels"][0]["entries"][0]
    assert ours["needed"]["labels"] == ours["needed"]["high"] == "not reached"
    assert ours["needed"]["low"] == pytest.approx(10 ** (1 + 0.4 / 0.45))
    assert ours["needed"]["at_most"] is False
    assert ours["costs"] == {"cpu": {"fit": 2.0, "shared": 3.0, "seconds": 5.0}}
    assert tuple(page["board"].values()) == BOARD
