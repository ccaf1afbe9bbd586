"""The contract: what the base class and its small helpers do, and what they refuse."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone, is_clusterer

from methods.method import (
    Arrays,
    Context,
    Method,
    NoCheckpoint,
    StageRequest,
    Tags,
    check_images,
    check_labels,
    derive_seed,
    flatten,
    stage,
    stage_version,
)

X = np.arange(3 * 2 * 2, dtype=np.uint8).reshape(3, 2, 2)


@stage(version=1)
def drawing(X: np.ndarray, *, random_state: int, context: Context, size: int) -> Arrays:
    """A stage that draws numbers."""
    return {"drawn": np.random.default_rng(random_state).normal(size=size), "n": np.array(len(X))}


class Echo(Method):
    """Remembers what it was fitted on; the shape of `labels_` is all that it answers."""

    def __init__(self, n_clusters: int = 3, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Echo:
        self.given = (X, y, context)
        self.labels_ = np.zeros(len(X), dtype=np.int64)
        return self


def test_fit_predict_passes_labels_and_context_on() -> None:
    """scikit-learn's own would drop them."""
    method, y, context = Echo(), np.array([0, -1, 2]), Context()
    assert method.fit_predict(X, y, context) is method.labels_
    assert method.given[0] is X
    assert method.given[1] is y
    assert method.given[2] is context


def test_a_method_is_a_scikit_learn_estimator() -> None:
    method = Echo(n_clusters=5, random_state=1).fit(X)
    copy = clone(method)
    assert copy.get_params() == {"n_clusters": 5, "random_state": 1}
    assert not hasattr(copy, "labels_")
    assert method.set_params(n_clusters=7).n_clusters == 7
    assert is_clusterer(method)


def test_what_a_method_is_unless_it_says_otherwise() -> None:
    assert Method.tags == Tags(
        uses_labels=True,
        needs_labels=False,
        needs_every_class=False,
        inductive=True,
        in_all=True,
        without_labels=None,
        family="",
        columns="classes",
    )
    assert Method.schedules == {}
    assert Echo().stages(0) == []


def test_a_method_has_to_fit() -> None:
    class Idle(Method):
        """Forgot fit."""

    with pytest.raises(NotImplementedError, match=r"Idle has to define fit\(X, y, context\)"):
        Idle().fit(X)


def test_a_request_has_the_name_of_its_function() -> None:
    assert StageRequest(drawing, {"size": 2}).name == "drawing"
    assert StageRequest(drawing).params == {}


def test_a_stage_s_name_is_the_only_one_of_its_kind() -> None:
    known = stage_version("drawing")
    with pytest.raises(
        ValueError, match=r"two stages are called 'drawing': .*; rename one"
    ) as told:

        @stage(version=9)
        def drawing(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
            """Another one."""
            return {}

    assert f"{__name__}.drawing and {__name__}.test_a_stage_s_name" in str(told.value)
    assert stage_version("drawing") == known == 1


def test_a_stage_that_is_imported_again_is_the_same_one() -> None:
    def place(function: Callable[..., Arrays]) -> Callable[..., Arrays]:
        function.__name__, function.__qualname__ = "imported_again", "imported_again"
        return function

    first = stage(version=1)(place(lambda X, **_: {}))
    second = stage(version=2)(place(lambda X, **_: {}))
    assert (stage_version(first), stage_version(second)) == (1, 2)
    assert stage_version("imported_again") == 2
    assert stage_version("nobody") is None


# --- The context that does nothing ---------------------------------------------------------------


def test_the_default_context_computes_in_place() -> None:
    arrays = Context().stage(drawing, X, random_state=7, size=4)
    expected = np.random.default_rng(derive_seed(7, "drawing")).normal(size=4)
    np.testing.assert_array_equal(arrays["drawn"], expected)
    assert arrays["n"] == 3


def test_the_default_context_keeps_nothing() -> None:
    context = Context()
    context.progress("epoch", 1, 2)
    context.log(loss=0.5)
    point = context.checkpoint("loop")
    assert isinstance(point, NoCheckpoint)
    point.save(lambda: pytest.fail("nobody wants the state"))
    assert point.load() is None


def test_what_a_context_says() -> None:
    context = Context()
    assert (context.device, context.precision, context.threads) == ("cpu", "fp32", None)
    context = Context("cuda", "bf16", 4)
    assert (context.device, context.precision, context.threads) == ("cuda", "bf16", 4)
    with pytest.raises(ValueError, match="precision is 'auto'; expected 'fp32' or 'bf16'"):
        Context(precision="auto")


# --- Seeds ---------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**64), name=st.text())
def test_a_derived_seed_suits_every_library(seed: int, name: str) -> None:
    derived = derive_seed(seed, name)
    assert 0 <= derived < 2**63
    assert derived == derive_seed(seed, name)


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.text()), unique=True, max_size=20))
def test_derived_seeds_differ(pairs: list[tuple[int, str]]) -> None:
    assert len({derive_seed(*pair) for pair in pairs}) == len(pairs)


def test_a_derived_seed_is_for_ever() -> None:
    """A change here changes every result: never adapt it lightly."""
    digest = hashlib.sha256(b"0/autoencoder").hexdigest()
    expected = int(digest[:16], 16) >> 1
    assert derive_seed(0, "autoencoder") == derive_seed(np.int64(0), "autoencoder") == expected


def test_without_a_seed_it_is_drawn() -> None:
    drawn = {derive_seed(None, "autoencoder") for _ in range(8)}
    assert len(drawn) == 8
    assert all(0 <= seed < 2**63 for seed in drawn)


# --- Images and labels ---------------------------------------------------------------------------


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=4, max_side=4)))
def test_images_pass_as_they_are(images: np.ndarray) -> None:
    assert check_images(images) is images


def test_memory_mapped_images_stay_so(tmp_path: Any) -> None:
    np.save(tmp_path / "images.npy", X)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert check_images(mapped) is mapped


@pytest.mark.parametrize(
    "images",
    [
        X.astype(np.float32),
        X.astype(np.int64),
        X[0],
        X.reshape(1, 1, 3, 2, 2),
        X[:0],
        [[0, 1]],
        None,
    ],
    ids=["float", "int", "one image", "5-D", "no image", "a list", "None"],
)
def test_what_are_no_images(images: Any) -> None:
    given_ = np.asanyarray(images)
    with pytest.raises(ValueError, match="expected uint8 images of shape") as refused:
        check_images(images)
    assert str(refused.value).startswith(f"X is {given_.dtype} with shape {given_.shape}; ")
    assert "X.astype('uint8')" in str(refused.value)


@given(st.lists(st.integers(-1, 4), min_size=1), st.sampled_from([np.int8, np.int32, np.int64]))
def test_labels_come_back_as_int64(labels: list[int], dtype: Any) -> None:
    checked = check_labels(np.array(labels, dtype=dtype), len(labels), 5)
    assert checked.dtype == np.int64
    assert checked.tolist() == labels


def test_checked_labels_are_a_copy() -> None:
    """A method may write into them; nobody else's change."""
    y = np.array([0, -1, 1])
    check_labels(y, 3, 2)[:] = 1
    assert y.tolist() == [0, -1, 1]


def test_no_labels() -> None:
    assert check_labels(None, 3, 2).tolist() == [-1, -1, -1]
    assert check_labels(None, 3, 2).dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0, 1], "y is int64 with shape (2,); expected 3 integers, -1 where unlabelled"),
        ([[0, 1, 1]], "y is int64 with shape (1, 3); expected 3 integers, -1 where unlabelled"),
        ([0.0, 1, 1], "y is float64 with shape (3,); expected 3 integers, -1 where unlabelled"),
        (
            [0, 1, 2],
            "y holds labels from 0 to 2; expected -1 (unlabelled) or 0..1: set n_clusters to at "
            "least the number of classes",
        ),
        (
            [0, 1, -2],
            "y holds labels from -2 to 1; expected -1 (unlabelled) or 0..1: set n_clusters to at "
            "least the number of classes",
        ),
    ],
)
def test_what_are_no_labels(labels: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        check_labels(np.array(labels), 3, 2)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=4, max_side=4)))
def test_images_as_rows(images: np.ndarray) -> None:
    rows = flatten(images)
    assert rows.dtype == np.float32
    assert rows.shape == (len(images), images[0].size)
    np.testing.assert_array_equal((rows * 255).round().astype(np.uint8).ravel(), images.ravel())
    assert flatten(np.full((1, 2, 2), 255, np.uint8)).tolist() == [[1.0, 1.0, 1.0, 1.0]]
