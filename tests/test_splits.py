"""Levels, protocols and splits: exact, nested, proportional, reproducible."""

from __future__ import annotations

import doctest
import random
from dataclasses import FrozenInstanceError
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.core import splits
from bench.core.choices import PROTOCOLS
from bench.core.errors import BenchError
from bench.core.levels import LEVELS, Level

unhurried = settings(deadline=None)  # a slow machine is no failure
SEEDED = ("stratified", "random")
ANSWERED = ("stratified", "random", "first")
BALANCED = np.tile(np.arange(10), 7_000)  # as many of each class as Fashion-MNIST has
GOLDEN = {  # a change here makes every record of another split: never adapt it lightly
    "stratified": "766ceb3b2b87473d",
    "random": "a58193044f961988",
    "first": "df8c4741dcfcc84b",
}
EIGHT_COUNTS = (0, 700, 2_100, 3_500, 7_000, 14_000, 21_000, 35_000)


@st.composite
def true_labels(draw, max_classes=6, max_size=14):
    """True labels of unequal classes, in any order; class ids may have gaps."""
    sizes = draw(st.lists(st.integers(0, max_size), min_size=1, max_size=max_classes))
    sizes[0] = max(sizes[0], 1)
    y = np.repeat(np.arange(len(sizes)), sizes)
    return np.array(draw(st.permutations(y.tolist())), dtype=np.int64)


def fair_shares(sizes, n_labels):
    """max(1, rate * size) for each class, with the rate at which they add up to `n_labels`."""
    ones = 0  # the smallest classes, whose share is 1
    ascending = sorted(sizes)
    while ones < len(sizes):
        rate = Fraction(n_labels - ones, sum(ascending[ones:]))
        if rate * ascending[ones] >= 1:
            break
        ones += 1
    shares = [max(Fraction(1), rate * int(size)) for size in sizes]
    assert sum(shares) == n_labels
    return shares


def test_docstring_examples():
    result = doctest.testmod(splits)
    assert result.attempted > 0
    assert result.failed == 0


# Levels


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("5%", "5%"),
        ("5 %", "5%"),
        (" 5% ", "5%"),
        ("05%", "5%"),
        ("5.0%", "5%"),
        ("0.50%", "0.5%"),
        ("10%", "10%"),
        ("100%", "100%"),
        ("0%", "0%"),
        ("0", "0%"),
        ("500", "500"),
        ("70000", "70000"),
        ("1", "1"),
    ],
)
def test_a_level_has_one_text_form(text, canonical):
    level = Level.parse(text)
    assert str(level) == canonical
    assert Level.parse(canonical) == level
    assert hash(Level.parse(canonical)) == hash(level)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "%",
        "abc",
        "0.05",
        ".05",
        ".5%",
        "5%%",
        "5 5%",
        "5\n%",
        "-1",
        "-5%",
        "+5%",
        "5.5",
        "500.0",
        "1,000",
        "7_000",
        "1e2",
        "1e2%",
        "nan",
        "inf%",
        "5‰",
        "٥%",
        "5percent",
        "1" * 5000,
        "1" * 5000 + "%",
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(BenchError, match=r"neither a share nor a count: write .*`5%`.*`500`"):
        Level.parse(text)


def test_more_than_all_is_refused():
    with pytest.raises(BenchError, match=r"'105%' is more than all instances.*`5%`.*`500`"):
        Level.parse("105%")


def test_a_level_made_by_hand_is_checked_too():
    assert Level(is_count=True, amount=Decimal(0)) == Level.parse("0%")
    for is_count, amount in ((True, "2.5"), (True, "-3"), (False, "-3")):
        with pytest.raises(BenchError, match="neither a share nor a count"):
            Level(is_count=is_count, amount=Decimal(amount))
    with pytest.raises(FrozenInstanceError):
        Level.parse("5%").amount = Decimal(6)


def test_the_levels_of_the_suite_give_the_eight_counts():
    levels = [Level.parse(text) for text in LEVELS]
    assert [str(level) for level in levels] == list(LEVELS)
    assert tuple(level.n_labels(70_000) for level in levels) == EIGHT_COUNTS
    assert levels == sorted(levels)


def test_shares_sort_before_counts_and_each_by_size():
    texts = ["500", "50%", "3%", "0%", "70", "10%", "0.5%"]
    ordered = [str(level) for level in sorted(map(Level.parse, texts))]
    assert ordered == ["0%", "0.5%", "3%", "10%", "50%", "70", "500"]


@pytest.mark.parametrize(
    ("text", "n_fit", "n_labels"),
    [
        ("0.5%", 70_000, 350),
        ("1%", 1_797, 18),
        ("0.5%", 100, 1),  # a half is rounded up
        ("2.5%", 100, 3),
        ("0.29%", 10_000, 29),  # 28.999... in binary
        ("100%", 1_797, 1_797),
        ("500", 60_000, 500),
        ("500", 500, 500),
        ("0%", 1, 0),
    ],
)
def test_number_of_labels(text, n_fit, n_labels):
    assert Level.parse(text).n_labels(n_fit) == n_labels


def test_levels_that_do_not_fit_the_dataset_are_refused():
    with pytest.raises(BenchError, match="501 labels, but the method is fitted on 500 instances"):
        Level.parse("501").n_labels(500)
    with pytest.raises(BenchError, match="Level 1% of 40 instances is less than one label"):
        Level.parse("1%").n_labels(40)
    with pytest.raises(BenchError, match="give at least one instance"):
        Level.parse("1%").n_labels(0)


@unhurried
@given(st.integers(50, 10**6), st.integers(0, 100), st.integers(0, 100))
def test_a_larger_share_is_never_fewer_labels(n_fit, a, b):
    fewer, more = (Level.parse(f"{share}%").n_labels(n_fit) for share in sorted((a, b)))
    assert 0 <= fewer <= more <= n_fit
    assert abs(more - Fraction(max(a, b) * n_fit, 100)) <= Fraction(1, 2)


# Protocols


@pytest.mark.parametrize(
    ("protocol", "fit", "validation", "test"),
    [
        ("transductive", range(70_000), range(0), range(0)),
        ("inductive", range(60_000), range(0), range(60_000, 70_000)),
        ("inductive-55k", range(55_000), range(55_000, 60_000), range(60_000, 70_000)),
    ],
)
def test_partition_of_fashion_mnist(protocol, fit, validation, test):
    instances = np.arange(70_000)
    parts = splits.partition(protocol, 70_000, 60_000)
    assert np.array_equal(instances[parts.fit], fit)
    assert np.array_equal(instances[parts.validation], validation)
    assert np.array_equal(instances[parts.test], test)
    assert (parts.n_fit, parts.n_test) == (len(fit), len(test))
    assert np.shares_memory(instances[parts.fit], instances)  # a view, no copy


@unhurried
@given(st.integers(13, 500), st.data(), st.sampled_from(PROTOCOLS))
def test_every_instance_is_in_one_part(n, data, protocol):
    n_train = data.draw(st.integers(12, n - 1))
    parts = splits.partition(protocol, n, n_train)
    instances = np.arange(n)
    together = [instances[part] for part in (parts.fit, parts.validation, parts.test)]
    assert np.array_equal(np.concatenate(together), instances)
    if protocol == "inductive-55k":
        assert len(together[1]) == n_train // 12


def test_partition_of_other_sizes():
    parts = splits.partition("inductive-55k", 1_500, 1_200)
    assert (parts.fit, parts.validation) == (slice(0, 1_100), slice(1_100, 1_200))
    assert splits.partition("transductive", 1_797, 1_797).n_fit == 1_797


@pytest.mark.parametrize(
    ("protocol", "n", "n_train", "message"),
    [
        ("inductive", 100, 100, "needs a test part.*use protocol transductive"),
        ("inductive-55k", 100, 100, "needs a test part.*use protocol transductive"),
        ("inductive-55k", 100, 11, "at least 12 instances.*use protocol inductive"),
        ("transductive", 100, 0, "0 of 100 instances is impossible"),
        ("inductive", 100, 101, "101 of 100 instances is impossible"),
        ("deductive", 100, 50, "protocol is 'deductive'; expected one of transductive, inductive"),
    ],
)
def test_impossible_partitions_are_refused(protocol, n, n_train, message):
    with pytest.raises(BenchError, match=message):
        splits.partition(protocol, n, n_train)


# Splits


@pytest.mark.parametrize("selection", ANSWERED)
def test_the_eight_splits_of_70000_are_exact_and_nested(selection):
    smaller = np.empty(0, dtype=np.int64)
    for n_labels in EIGHT_COUNTS:
        split = splits.labelled_indices(BALANCED, n_labels, selection, seed=0)
        assert len(split) == len(np.unique(split)) == n_labels
        assert np.isin(smaller, split).all()
        if selection == "stratified":
            counts = np.bincount(BALANCED[split], minlength=10)
            assert (counts == n_labels // 10).all()
        smaller = split
    few = splits.labelled_indices(BALANCED, 500, selection, seed=0)
    assert np.isin(few, splits.labelled_indices(BALANCED, 3_500, selection, seed=0)).all()


@unhurried
@given(true_labels(), st.sampled_from(ANSWERED), st.integers(0, 2**40))
def test_splits_are_exact_sorted_and_nested(y, selection, seed):
    lowest = len(np.unique(y)) if selection == "stratified" else 0
    smaller = splits.labelled_indices(y, 0, selection, seed)
    for n_labels in range(lowest, len(y) + 1):
        split = splits.labelled_indices(y, n_labels, selection, seed)
        assert split.dtype == np.int64
        assert len(split) == n_labels
        assert (np.diff(split) > 0).all()
        assert np.isin(smaller, split).all()
        smaller = split
    assert np.array_equal(smaller, np.arange(len(y)))


@settings(unhurried, max_examples=200)
@given(true_labels(), st.integers(0, 2**40))
@example(np.repeat(np.arange(11), [90] + [1] * 10), 0)  # the giant waits for the tiny ones
@example(np.repeat(np.arange(6), [31, 17, 7, 3, 2, 1]), 1)
def test_stratified_splits_are_proportional(y, seed):
    classes, sizes = np.unique(y, return_counts=True)
    for n_labels in range(len(classes), len(y) + 1):
        split = splits.labelled_indices(y, n_labels, "stratified", seed)
        counts = [int((y[split] == c).sum()) for c in classes]
        assert min(counts) >= 1
        shares = fair_shares(sizes, n_labels)
        assert all(abs(a - b) < 1 for a, b in zip(counts, shares, strict=True))
        proportional = [Fraction(n_labels * int(size), len(y)) for size in sizes]
        if min(proportional) >= 1:  # then the first of each class is no exception
            assert all(abs(a - b) < 1 for a, b in zip(counts, proportional, strict=True))


def test_stratified_gives_ties_to_no_class_in_particular():
    y = np.repeat(np.arange(3), 20)
    chosen = {
        int(np.bincount(y[splits.labelled_indices(y, 4, "stratified", seed)]).argmax())
        for seed in range(30)
    }
    assert chosen == {0, 1, 2}


@pytest.mark.parametrize("selection", SEEDED)
def test_every_instance_is_as_likely_as_its_neighbour(selection):
    y = np.tile([0, 1], 10)
    times = np.zeros(20)
    for seed in range(400):
        times[splits.labelled_indices(y, 10, selection, seed)] += 1
    assert times.sum() == 4_000
    assert (np.abs(times - 200) < 60).all()  # 6 standard deviations


def test_seeds_and_selections_differ():
    drawn = [splits.labelled_indices(BALANCED, 700, s, seed) for s in SEEDED for seed in range(4)]
    assert len({tuple(split.tolist()) for split in drawn}) == 8


def test_first_takes_the_first():
    for seed in (0, 1):
        split = splits.labelled_indices([2, 2, 0, 1, 0], 3, "first", seed)
        assert split.tolist() == [0, 1, 2]
        assert split.dtype == np.int64


def test_random_needs_only_the_number_of_instances():
    a = splits.labelled_indices(np.zeros(50, dtype=int), 20, "random", seed=3)
    b = splits.labelled_indices(np.arange(50), 20, "random", seed=3)
    assert np.array_equal(a, b)


@pytest.mark.parametrize("selection", ANSWERED)
def test_splits_are_pure(selection):
    y = np.random.default_rng(5).integers(0, 4, 60)
    before = y.copy()
    np.random.seed(0)
    random.seed(0)
    first = splits.labelled_indices(y, 25, selection, seed=7)
    np.random.seed(1)
    random.seed(1)
    state = np.random.get_state()[1].copy()
    again = splits.labelled_indices(y.astype(np.uint8), 25, selection, seed=7)
    assert np.array_equal(first, again)
    assert np.array_equal(state, np.random.get_state()[1])
    assert np.array_equal(y, before)


def test_splits_of_a_fixed_case_never_change():
    y = np.arange(60) % 4
    digests = {
        selection: splits.digest(splits.labelled_indices(y, 25, selection, seed=7), len(y))
        for selection in ANSWERED
    }
    assert digests == GOLDEN


def test_stratified_skips_class_numbers_without_instances():
    assert splits.labelled_indices([0, 5, 5, 0], 2, "stratified", seed=0).shape == (2,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1, 2], 2, "stratified", 0), "2 .* over 3 classes: ask for at least 3"),
        (([0, 1, 2], 2, "representative", 0), r"made by the method.*select\(\)"),
        (([0, 1, 2], 2, "best", 0), "selection is 'best'; expected one of stratified, random"),
        (([0, 1, 2], 4, "random", 0), "4 labels of 3 instances are impossible"),
        (([0, 1, 2], -1, "random", 0), "-1 labels of 3 instances are impossible"),
        (([0, 1, 2], 2, "random", -1), "Seed -1 is negative"),
        (([], 0, "random", 0), "y is empty"),
        (([0, -1], 1, "random", 0), "y holds -1: give true labels"),
        (([0.0, 1.0], 1, "random", 0), "y holds float64 values: give integers"),
        (([[0, 1]], 1, "random", 0), r"y has shape \(1, 2\)"),
    ],
)
def test_impossible_splits_are_refused(arguments, message):
    with pytest.raises(BenchError, match=message):
        splits.labelled_indices(*arguments)


# What a method asks for, and what it sees


def test_selected_instances_are_sorted():
    chosen = np.array([7, 0, 3], dtype=np.int32)
    checked = splits.check_selected(chosen, budget=3, n=8)
    assert checked.tolist() == [0, 3, 7]
    assert checked.dtype == np.int64
    assert chosen.tolist() == [7, 0, 3]
    assert splits.check_selected([], budget=0, n=8).tolist() == []


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 1], "returned 2 indices for a budget of 3 labels"),
        ([0, 1, 2, 3], "returned 4 indices for a budget of 3 labels"),
        ([0, 5, 5], "hold 5 more than once"),
        ([0, 1, 8], "from 0 to 8: of 8 instances, give indices from 0 to 7"),
        ([-1, 0, 1], "from -1 to 1"),
        ([0.0, 1.0, 2.0], "hold.* float64 values: give integers"),
        ([True, False, True], "bool values: give integers"),
        ([[0, 1, 2]], r"shape \(1, 3\)"),
    ],
)
def test_bad_selections_of_a_method_are_refused(indices, message):
    with pytest.raises(BenchError, match=message):
        splits.check_selected(indices, budget=3, n=8)


@unhurried
@given(true_labels(), st.data())
def test_reveal_shows_the_truth_there_and_nowhere_else(y, data):
    indices = data.draw(st.lists(st.integers(0, len(y) - 1), unique=True))
    before = y.copy()
    revealed = splits.reveal(y, indices)
    hidden = np.setdiff1d(np.arange(len(y)), indices)
    assert revealed.dtype == np.int64
    assert revealed.shape == y.shape
    assert np.array_equal(revealed[indices], y[indices])
    assert (revealed[hidden] == -1).all()
    revealed[:] = 99
    assert np.array_equal(y, before)


def test_reveal_of_all_is_a_copy_too():
    y = np.array([0, 1, 2])
    assert not np.shares_memory(splits.reveal(y, [0, 1, 2]), y)


def test_reveal_refuses_indices_that_wrap_around_or_repeat():
    for indices in ([-1], [3], [0, 0], [True, False, False]):
        with pytest.raises(BenchError, match="indices"):
            splits.reveal([0, 1, 2], indices)


def test_classes_without_a_label_are_named():
    revealed = [-1, 0, -1, 2, -1]
    with pytest.raises(BenchError, match=r"for 2 of 4 classes: 1, 3. .*selection stratified or"):
        splits.require_every_class(revealed, 4)
    with pytest.raises(BenchError, match=r"1 of 3 classes: 1 \(Trouser\)\."):
        splits.require_every_class(revealed, 3, class_names=["T-shirt/top", "Trouser", "Pullover"])
    with pytest.raises(BenchError, match="3 of 3 classes"):
        splits.require_every_class([-1, -1], 3)


@unhurried
@given(true_labels(), st.integers(0, 1_000))
def test_stratified_leaves_no_class_without_a_label(y, seed):
    y = np.unique(y, return_inverse=True)[1]  # no gaps
    n_classes = int(y.max()) + 1
    split = splits.labelled_indices(y, n_classes, "stratified", seed)
    revealed = splits.reveal(y, split)
    splits.require_every_class(revealed, n_classes)
    with pytest.raises(BenchError, match=f"1 of {n_classes + 1} classes: {n_classes}"):
        splits.require_every_class(revealed, n_classes + 1)


def test_digest_is_of_the_set_and_of_the_number():
    digest = splits.digest([3, 1], 10)
    assert digest == splits.digest(np.array([1, 3], dtype=np.int32), 10)
    others = {splits.digest([1, 2], 10), splits.digest([1, 3], 11), splits.digest([], 10)}
    assert len(others | {digest}) == 4
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    with pytest.raises(BenchError, match="from 3 to 3"):
        splits.digest([3], 3)
