"""Trials: what is refused, what makes two of them the same, where records lie, the grid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.core.choices import PRECISIONS, PROTOCOLS, SCHEDULES, SELECTIONS
from bench.core.errors import BenchError
from bench.core.levels import LEVELS
from bench.core.trial import (
    Grid,
    Trial,
    canonical_digest,
    check_suitable,
    fitted_as,
)
from bench.records import scoring
from methods.method import Method, Tags
from methods.registry import Entry, RegistryError

MakeTrial = Callable[..., Trial]
OTHER_VALUES: dict[str, Any] = {
    "dataset": "digits",
    "dataset_digest": "4567",
    "protocol": "inductive",
    "selection": "random",
    "schedule": "paper",
    "method": "other",
    "level": "500",
    "seed": 1,
    "params": {"n_clusters": 2, "lam": 0.2},
    "precision": "bf16",
}
hyperparameters = st.dictionaries(
    st.text(min_size=1),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
)


class Tiny(Method):
    """A method with a few parameters."""

    schedules = {"quick": {"epochs": 3}, "smoke": {"epochs": 1}}

    def __init__(
        self,
        n_clusters: int = 10,
        epochs: int = 100,
        lam: float = 0.1,
        random_state: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.epochs = epochs
        self.lam = lam
        self.random_state = random_state


class Chooser(Tiny):
    """A method that asks for labels and cannot label new images."""

    tags = Tags(inductive=False)

    def select(self, X: Any, budget: int, context: Any = None) -> list[int]:
        return list(range(budget))


TINY = Entry("tiny", Tiny, {}, Tiny.tags, "here")
CHOOSER = Entry("chooser", Chooser, {}, Chooser.tags, "here")
STRICT = Entry("tiny-strict", Tiny, {"lam": 0.9}, Tiny.tags, "here")


def grid(*entries: Entry, **fields_: Any) -> Grid:
    return Grid("toy", "0123", n_classes=4, entries=entries or (TINY,), **fields_)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("protocol", "both", f"protocol is 'both'; expected one of {', '.join(PROTOCOLS)}"),
        ("selection", "best", f"selection is 'best'; expected one of {', '.join(SELECTIONS)}"),
        ("schedule", "fast", f"schedule is 'fast'; expected one of {', '.join(SCHEDULES)}"),
        ("precision", "fp8", f"precision is 'fp8'; expected one of {', '.join(PRECISIONS)}"),
        ("seed", -1, "seed is -1; expected 0 or more"),
        ("level", "5 %", "level is '5 %'; expected '5%'"),
        ("level", "0", "level is '0'; expected '0%'"),
    ],
)
def test_what_a_trial_refuses(make_trial: MakeTrial, field: str, value: Any, sentence: str) -> None:
    with pytest.raises(BenchError) as refused:
        make_trial(**{field: value})
    assert str(refused.value) == sentence


@pytest.mark.parametrize("level", ["0.05", "five", "../elsewhere", ""])
def test_a_trial_refuses_what_is_no_level(make_trial: MakeTrial, level: str) -> None:
    with pytest.raises(BenchError, match="neither a share nor a count"):
        make_trial(level=level)


def test_a_trial_cannot_be_changed(make_trial: MakeTrial) -> None:
    with pytest.raises(FrozenInstanceError):
        make_trial().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("field", OTHER_VALUES)
def test_identity_depends_on(make_trial: MakeTrial, field: str) -> None:
    assert make_trial().identity != make_trial(**{field: OTHER_VALUES[field]}).identity


def test_identity_depends_on_nothing_else(make_trial: MakeTrial) -> None:
    assert {field.name for field in fields(Trial)} - set(OTHER_VALUES) == {"variant"}
    assert make_trial().identity == make_trial(variant={"n_clusters": 2}).identity


def test_identity_does_not_depend_on_the_order_of_parameters(make_trial: MakeTrial) -> None:
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert list(one) != list(other)
    assert make_trial(params=one).identity == make_trial(params=other).identity


def test_identity_is_for_ever() -> None:
    """A change here makes every record of the world another trial's: never adapt it lightly."""
    trial = Trial("toy", "0123", "transductive", "random", "quick", "tiny", "5%", 0, {"a": 0.5})
    text = (
        '{"dataset": "toy", "dataset_digest": "0123", "level": "5%", "method": "tiny", '
        '"params": {"a": 0.5}, "precision": "auto", "protocol": "transductive", '
        '"schedule": "quick", "seed": 0, "selection": "random", "variant": null}'
    )
    assert trial.identity == hashlib.sha256(text.encode()).hexdigest()


@given(params=hyperparameters, variant=hyperparameters, seed=st.integers(0))
def test_json_round_trip(
    make_trial: MakeTrial, params: dict[str, Any], variant: dict[str, Any], seed: int
) -> None:
    trial = make_trial(params=params, variant=variant, seed=seed)
    again = Trial.from_json(json.loads(json.dumps(trial.to_json())))
    assert again == trial
    assert again.identity == trial.identity
    assert again.path == trial.path


def test_sequences_come_back_as_lists_with_the_same_identity(make_trial: MakeTrial) -> None:
    trial = make_trial(params={"hidden": (32, 64)}, variant={"hidden": (32, 64)})
    again = Trial.from_json(json.loads(json.dumps(trial.to_json())))
    assert (again.identity, again.path) == (trial.identity, trial.path)


def test_where_the_record_lies(make_trial: MakeTrial) -> None:
    trial = make_trial(selection="random", schedule="smoke", seed=7)
    assert str(trial.path) == "toy/transductive-random-smoke/tiny/5%/7.json"
    assert trial.title == "tiny · 5% · seed 7"
    assert trial.variant_text == ""


def test_a_variant_lies_in_a_folder_of_its_own(make_trial: MakeTrial) -> None:
    trial = make_trial(variant={"lam": 0.5, "epochs": 3})
    suffix = canonical_digest({"epochs": 3, "lam": 0.5})[:8]
    assert str(trial.path) == f"toy/transductive-stratified-quick/tiny@{suffix}/5%/0.json"
    assert trial.variant_text == "epochs=3 lam=0.5"
    assert trial.title == "tiny epochs=3 lam=0.5 · 5% · seed 0"


@pytest.mark.parametrize(
    ("one", "other"),
    [(20, "20"), (20, 20.0), (None, "None"), (True, "True"), (0.5, "0.5"), ([1], "[1]")],
)
def test_two_variants_never_have_one_text(make_trial: MakeTrial, one: Any, other: Any) -> None:
    """They have folders of their own, and a board's row would be a mean of both."""
    first, second = (make_trial(variant={"k": value}) for value in (one, other))
    assert first.folder != second.folder
    assert first.variant_text != second.variant_text


def test_a_text_of_several_words_stands_in_quotes(make_trial: MakeTrial) -> None:
    assert make_trial(variant={"a": "x b=y"}).variant_text == "a='x b=y'"
    assert make_trial(variant={"a": "x", "b": "ward-2"}).variant_text == "a=x b=ward-2"


def test_a_variant_reads_as_its_record_does(make_trial: MakeTrial) -> None:
    """In which a tuple is a list: the plan's row and the board's are one."""
    assert make_trial(variant={"k": (1, 2)}).variant_text == "k=[1, 2]"


def test_an_explicit_precision_is_a_variant(make_trial: MakeTrial) -> None:
    folders = {make_trial(precision=precision).folder for precision in PRECISIONS}
    assert len(folders) == 3
    assert make_trial(precision="bf16").variant_text == "precision=bf16"
    assert make_trial().folder.name == "tiny"


def test_trials_come_seed_by_seed() -> None:
    trials = grid(TINY, STRICT, levels=("0%", "5%"), seeds=2).trials()
    assert [(trial.seed, trial.method, trial.level) for trial in trials] == [
        (0, "tiny", "0%"),
        (0, "tiny", "5%"),
        (0, "tiny-strict", "0%"),
        (0, "tiny-strict", "5%"),
        (1, "tiny", "0%"),
        (1, "tiny", "5%"),
        (1, "tiny-strict", "0%"),
        (1, "tiny-strict", "5%"),
    ]


@pytest.mark.parametrize(("given", "seeds"), [(2, [0, 1]), ([4, 0], [4, 0]), ((7,), [7])])
def test_seeds_are_so_many_or_these(given: object, seeds: list[int]) -> None:
    assert [trial.seed for trial in grid(TINY, levels=("5%",), seeds=given).trials()] == seeds


@pytest.mark.parametrize("given", [0, -1, [], [0, 0], [-1], [0.5], [True], True, "3", None])
def test_seeds_that_cannot_be(given: object) -> None:
    with pytest.raises(BenchError, match=r"seeds is .*; expected"):
        grid(TINY, levels=("5%",), seeds=given).trials()


def test_the_grid_takes_all_levels_unless_told() -> None:
    assert tuple(trial.level for trial in grid().trials()) == LEVELS


def test_levels_are_written_one_way_and_taken_once() -> None:
    trials = grid(levels=("5 %", "5%", "0", "500", "0%")).trials()
    assert [trial.level for trial in trials] == ["5%", "0%", "500"]


def test_the_grid_refuses_what_is_no_level() -> None:
    with pytest.raises(BenchError, match=r"'0.05' is neither a share nor a count"):
        grid(levels=("0.05",)).trials()


def test_parameters_of_a_trial() -> None:
    trial = grid(schedule="quick", levels=("5%",)).trials()[0]
    assert trial.params == {"n_clusters": 4, "epochs": 3, "lam": 0.1}  # random_state is the seed
    assert trial.variant == {}
    fields_ = ("dataset", "dataset_digest", "protocol", "selection", "schedule", "precision")
    assert [getattr(trial, name) for name in fields_] == [
        "toy",
        "0123",
        "transductive",
        "stratified",
        "quick",
        "auto",
    ]


def test_a_variant_holds_only_what_differs() -> None:
    changes = {"tiny": {"lam": 0.1, "epochs": 100}}
    trial = grid(schedule="quick", levels=("5%",), changes=changes).trials()[0]
    assert trial.variant == {"epochs": 100}
    assert trial.params["epochs"] == 100


def test_what_changes_nothing_is_the_method_itself() -> None:
    plain = grid(levels=("5%",)).trials()[0]
    same = grid(levels=("5%",), changes={"tiny": {"epochs": 3, "lam": 0.1}}).trials()[0]
    assert same == plain
    assert same.path == plain.path


def test_an_equal_number_of_another_type_changes_nothing() -> None:
    """Else it would be another trial at the same place, and replace the record there."""
    plain = grid(levels=("5%",)).trials()[0]
    same = grid(levels=("5%",), changes={"tiny": {"epochs": 3.0}}).trials()[0]
    assert same == plain
    assert type(same.params["epochs"]) is int
    assert same.identity == plain.identity


def test_what_a_name_fixes_is_no_variant() -> None:
    strict = grid(STRICT, levels=("5%",)).trials()[0]
    assert strict.params["lam"] == 0.9
    assert strict.variant == {}
    changed = grid(STRICT, levels=("5%",), changes={"tiny-strict": {"lam": 0.1}}).trials()[0]
    assert changed.variant == {"lam": 0.1}


def test_changes_reach_only_their_method() -> None:
    trials = grid(TINY, STRICT, levels=("5%",), changes={"tiny": {"lam": 0.5}}).trials()
    assert [trial.params["lam"] for trial in trials] == [0.5, 0.9]


def test_an_unknown_parameter_is_refused_with_the_nearest() -> None:
    with pytest.raises(RegistryError) as refused:
        grid(changes={"tiny": {"epoch": 3}}).trials()
    assert str(refused.value) == (
        "tiny has no parameter 'epoch'; it has epochs, lam, n_clusters, random_state; "
        "did you mean 'epochs'?"
    )


@pytest.mark.parametrize(
    ("protocol", "selection", "reasons"),
    [
        ("transductive", "stratified", []),
        ("inductive", "stratified", ["chooser cannot label new images"]),
        ("inductive-55k", "stratified", ["chooser cannot label new images"]),
        ("transductive", "representative", ["tiny has no select()"]),
        ("inductive", "representative", ["tiny has no select()", "chooser cannot label new"]),
    ],
)
def test_which_methods_cannot_take_part(protocol: str, selection: str, reasons: list[str]) -> None:
    found = check_suitable([TINY, CHOOSER], protocol, selection)
    assert len(found) == len(reasons)
    for sentence, start in zip(found, reasons, strict=True):
        assert sentence.startswith(start)
        assert (protocol if "label new" in sentence else selection) in sentence


# --- Whose fit serves a trial --------------------------------------------------------------------


class Follower(Tiny):
    """A method that is `tiny` where nothing is labelled."""

    tags = Tags(without_labels="tiny")

    def __init__(
        self, n_clusters: int = 10, epochs: int = 50, weight: float = 1.0, random_state: Any = None
    ) -> None:
        self.n_clusters, self.epochs, self.random_state = n_clusters, epochs, random_state
        self.weight = weight


def followed(entries: dict[str, Entry], level: str, params: Any, **changes: Any) -> tuple[Any, Any]:
    """The trial of `Follower` and the one whose fit serves it; `params` belong to its name."""
    entries["tiny"] = Entry("tiny", Tiny, {}, Tiny.tags, "here")
    entries["follower"] = Entry("follower", Follower, params, Follower.tags, "here")
    grid = Grid(
        dataset="toy",
        dataset_digest="0123",
        n_classes=3,
        entries=(entries["follower"],),
        levels=(level,),
        changes={"follower": changes},
    )
    (trial,) = grid.trials()
    return trial, fitted_as(trial)


def test_with_labels_a_fit_is_the_trials_own(entries: dict[str, Entry]) -> None:
    trial, fitted = followed(entries, "5%", {}, epochs=7)
    assert fitted is trial


def test_without_labels_it_is_that_of_the_other_method(entries: dict[str, Entry]) -> None:
    """With the parameters that the other one has in this schedule."""
    trial, fitted = followed(entries, "0%", {})
    assert fitted.method == "tiny"
    assert fitted.variant == {}
    assert fitted.params == {"n_clusters": 3, "epochs": 3, "lam": 0.1}
    same = {field.name for field in fields(Trial)} - {"method", "params", "variant"}
    assert all(getattr(fitted, name) == getattr(trial, name) for name in same)
    assert scoring.whose_fit(trial) == {
        "same_as": "tiny",
        "fitted_as": {"method": "tiny", "variant": {}},
    }


def test_what_was_asked_for_is_shared_where_both_have_it(entries: dict[str, Entry]) -> None:
    trial, fitted = followed(entries, "0%", {}, epochs=7, weight=2.0)
    assert fitted.params == {"n_clusters": 3, "epochs": 7, "lam": 0.1}
    assert fitted.variant == {"epochs": 7}
    assert scoring.whose_fit(trial)["same_as"] == "tiny"


def test_a_parameter_of_the_name_makes_it_a_fit_that_no_row_shows(
    entries: dict[str, Entry],
) -> None:
    trial, fitted = followed(entries, "0%", {"epochs": 9})
    assert fitted.params["epochs"] == 9
    assert scoring.whose_fit(trial) == {
        "same_as": None,
        "fitted_as": {"method": "tiny", "variant": {"epochs": 9}},
    }


@pytest.mark.parametrize("field", ["params", "variant"])
def test_a_parameter_that_no_file_can_hold_is_refused(
    make_trial: Callable[..., Trial], field: str
) -> None:
    with pytest.raises(BenchError, match=r"^tiny\.x\[0\] is no text that a file can hold"):
        make_trial(**{field: {"x": ["\udcff"]}})
