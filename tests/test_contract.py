"""Every registered method keeps the contract: the checks of ``bench check``, one test each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench.checks import CHECKS, run_checks
from methods import registry
from methods.method import Method, Tags
from methods.registry import Entry

PROBLEMS = registry.discover()


def test_every_plugin_imports() -> None:
    assert PROBLEMS == []


@pytest.mark.parametrize("name", registry.names())
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_method(name: str, check: Callable[[Entry], None]) -> None:
    check(registry.get(name))


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
