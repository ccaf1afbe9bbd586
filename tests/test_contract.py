"""Every registered method keeps the contract: the checks of ``bench check``, one test each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from bench.core.trial import Trial, fitted_as
from methods import registry
from methods import testing as checks
from methods.method import Arrays, Checkpoint, Context, Method, Tags
from methods.registry import Entry
from methods.testing import CHECKS, run_checks

PROBLEMS = registry.discover()
# These fit anew, stages and all: whether two fits agree, and what a fit leaves of its input.
AFRESH = {"check_same_seed", "check_inputs_unchanged"}


def test_every_plugin_imports() -> None:
    assert PROBLEMS == []


class Lent:
    """What one check has computed, lent to the others: fits as `checks.fitted` gives, and stages.

    A check that asks twice for a fit gets another one the second time. Where a check has a context
    of its own it fits anew; its stages may be lent. The arrays of stages are read-only, as in the
    suite. `asked` has the checkpoints that a fit asked for, its stages' own left out, and `keeping`
    the methods that asked for any.
    """

    def __init__(self) -> None:
        self.fits: dict[object, Method] = {}
        self.stages: dict[object, Arrays] = {}
        self.given: set[object] = set()  # to the check that is running
        self.asked: list[str] = []
        self.keeping: set[str] = set()
        self._fitted = checks.fitted
        self._stage = Context.stage

    def fitted(
        self,
        entry: Entry,
        X: np.ndarray,
        y: np.ndarray,
        context: Context | None = None,
        seed: int = 0,
    ) -> Method:
        key = entry.name, X.shape, X.tobytes(), y.tobytes(), seed
        if context is not None or not X.flags.writeable or key in self.given:
            return self._fitted(entry, X, y, context, seed)
        if key not in self.fits:
            self.asked.clear()
            self.fits[key] = self._fitted(entry, X, y, context, seed)
            self.keeping |= {entry.name} if self.asked else set()
        self.given.add(key)
        return self.fits[key]

    def stage(
        self,
        context: Context,
        function: Callable[..., Arrays],
        X: np.ndarray,
        *,
        random_state: Any,
        **params: Any,
    ) -> Arrays:
        key = function, X.shape, X.tobytes(), random_state, repr(sorted(params.items()))
        if key not in self.stages:
            before = len(self.asked)
            found = self._stage(context, function, X, random_state=random_state, **params)
            for array in found.values():
                array.flags.writeable = False
            self.stages[key] = found
            del self.asked[before:]
        return self.stages[key]


@pytest.fixture(scope="module")
def all_lent() -> Lent:
    return Lent()


@pytest.fixture
def lent(all_lent: Lent, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lent]:
    """The checks fit through it; the stages are lent unless the test takes that back."""
    all_lent.given.clear()
    monkeypatch.setattr(checks, "fitted", all_lent.fitted)
    monkeypatch.setattr(Context, "stage", lambda self, *a, **more: all_lent.stage(self, *a, **more))
    checkpoint = Context.checkpoint

    def noted(self: Context, name: str) -> Checkpoint:
        all_lent.asked.append(name)
        return checkpoint(self, name)

    monkeypatch.setattr(Context, "checkpoint", noted)
    return all_lent


@pytest.mark.filterwarnings("ignore:SCAN collapsed", "ignore:self-labelling stopped")
@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_method(
    name: str, check: Callable[[Entry], None], lent: Lent, monkeypatch: pytest.MonkeyPatch
) -> None:
    if check.__name__ in AFRESH:
        monkeypatch.setattr(Context, "stage", lent._stage)
    check(registry.get(name))


@pytest.mark.filterwarnings("ignore:SCAN collapsed", "ignore:self-labelling stopped")
@pytest.mark.parametrize("name", [n for n in registry.names() if registry.get(n).tags.resumes])
def test_who_says_that_it_resumes_keeps_checkpoints(name: str, lent: Lent) -> None:
    X, y, _ = checks.sample()
    lent.fitted(registry.get(name), X, y)
    assert name in lent.keeping


@pytest.mark.filterwarnings("ignore:SCAN collapsed")
@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("ss-dcec", "smoke"),
        ("ss-dcec-kl", "smoke"),
        ("ss-scan", "smoke"),
        ("label-spreading", "smoke"),
        ("kmeans-full", "paper"),  # it falls back on the baseline with its own defaults
        ("kmeans-percentile", "paper"),
        ("kmeans-centroid", "paper"),
    ],
)
def test_standing_alone_without_labels_it_is_the_method_that_it_names(
    name: str, schedule: str, lent: Lent, make_trial: Callable[..., Trial]
) -> None:
    """The suite takes the fit of the other method: `fit` without labels gives the same."""
    X, _, _ = checks.sample()
    params = registry.get(name).parameters(schedule, n_clusters=10)
    params.pop("random_state")
    other = fitted_as(make_trial(method=name, level="0%", schedule=schedule, params=params))
    assert other.method == registry.get(name).tags.without_labels != name
    theirs = registry.get(other.method).cls(**other.params, random_state=0).fit(X)
    alone = registry.get(name).build(schedule, n_clusters=10, random_state=0)
    assert np.array_equal(alone.fit(X).labels_, theirs.labels_)
    if name == "ss-dcec-kl":
        assert not other.params["reconstruction"]


class Honest(Method):
    """Gives every image the cluster of its mean brightness."""

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(self, X, y=None, context=None):  # type: ignore[no-untyped-def]
        self.labels_ = self.predict(X)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        brightness = X.reshape(len(X), -1).mean(1).astype(int)
        return np.minimum(brightness * self.n_clusters // 256, self.n_clusters - 1)


class Copier(Honest):
    """Copies the labels it was given."""

    def fit(self, X, y=None, context=None):  # type: ignore[no-untyped-def]
        self.labels_ = np.where(y >= 0, y, self.predict(X))
        return self


class Peeker(Copier):
    """Uses labels though it says that it does not."""

    tags = Tags(uses_labels=False)


class Restless(Honest):
    """Differs from fit to fit."""

    tags = Tags(inductive=False)

    def fit(self, X, y=None, context=None):  # type: ignore[no-untyped-def]
        self.labels_ = np.random.default_rng().integers(0, 10, len(X))
        return self


class Greedy(Honest):
    """Changes the images that it is given."""

    def fit(self, X, y=None, context=None):  # type: ignore[no-untyped-def]
        X += 1
        return super().fit(X)


@pytest.mark.parametrize(
    ("cls", "failing"),
    [
        (Honest, set()),
        (Copier, {"labels_are_the_models_own"}),
        (Peeker, {"labels_are_the_models_own", "uses_labels"}),
        (Restless, {"same_seed", "fit_predict"}),
        (Greedy, {"inputs_unchanged", "same_seed", "fit_predict"}),
    ],
)
def test_the_checks_see_what_is_wrong(cls: type[Method], failing: set[str]) -> None:
    entry = Entry("example", cls, {}, cls.tags, "here")
    assert {outcome.name for outcome in run_checks(entry) if outcome.message} == failing
