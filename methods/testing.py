"""What every method must satisfy: small checks, for ``bench check`` and for any pytest.

Each check takes a registered `Entry` and raises `Unmet` with a message that tells the author what
to mend; where it does not apply it returns why. They fit the method's ``smoke`` schedule on 300
small images, built from parameters that have been through JSON, as a run builds it.

Authors of methods have them one by one in their own tests with `parametrize_with_checks`.
"""

from __future__ import annotations

import functools
import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from sklearn.base import clone

from methods import registry
from methods.method import UNLABELLED, Arrays, Context, Method, said_of_changes
from methods.registry import Entry, Problem, RegistryError
from methods.toolkit.naming import cluster_of_each_class, misnamed

if TYPE_CHECKING:
    import pytest

N_IMAGES = 300
N_LABELS = 60
NEEDS_LABELS = "it is tagged as one that needs labels"
NOT_INDUCTIVE = "it is tagged as one that labels no new images"
NO_PREDICT = "there is no predict(X) for new images: add it, or say tags = Tags(inductive=False)"
LONGEST_CONSTRUCTOR = 1.0  # seconds


class Unmet(Exception):
    """A method does not keep the contract; the message says what to mend."""


@dataclass(frozen=True)
class Outcome:
    """How one check ended.

    `message` says why it failed and is empty if it did not; `skipped` why it did not apply. `like`
    is the earlier check that failed in the same way. `traceback` is that of the method's own error.
    """

    name: str
    message: str = ""
    skipped: str = ""
    like: str = ""
    traceback: str = ""

    @property
    def verdict(self) -> str:
        """How it ended, in words; what was said before is not said again."""
        if self.skipped:
            return f"skipped: {self.skipped}"
        return (
            f"FAILED {f'as {self.like}' if self.like else self.message}" if self.message else "ok"
        )


def expect(condition: object, message: str) -> None:
    """Raise `Unmet` unless `condition` holds; an assert would vanish under ``python -O``."""
    if not condition:
        raise Unmet(message)


class Spy(Context):
    """A context that notes which stages are asked for, and what they gave."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.gave: dict[tuple[str, ...], Arrays] = {}  # by what the suite would share it by

    def stage(
        self, function: Callable[..., Arrays], X: np.ndarray, *, random_state: Any, **params: Any
    ) -> Arrays:
        """Note the request and compute in place."""
        self.asked.append((function, params))
        arrays = super().stage(function, X, random_state=random_state, **params)
        key = (
            function.__name__,
            repr(sorted(params.items())),
            str(random_state),
            X.tobytes().hex(),
        )
        self.gave[key] = {name: np.array(array) for name, array in arrays.items()}
        return arrays


def sample(n_labels: int = N_LABELS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """300 digits: images ``(300, 8, 8)``, labels with -1 where hidden, and the truth.

    They are the caller's own: a method may spoil what a check gives it.
    """
    from sklearn.model_selection import train_test_split

    X, truth = (array.copy() for array in _digits())
    chosen, _ = train_test_split(
        np.arange(N_IMAGES), train_size=n_labels, stratify=truth, random_state=0
    )
    y = np.full_like(truth, UNLABELLED)
    y[chosen] = truth[chosen]
    return X, y, truth


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """The images and their classes, read once: as text, which takes as long as a small fit."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    X = np.rint(digits.images[:N_IMAGES] * (255 / 16)).astype(np.uint8)  # published as 0 … 16
    return X, digits.target[:N_IMAGES]


def build(entry: Entry, n_clusters: int = 10, seed: int = 0) -> Method:
    """The method with its ``smoke`` parameters, which have been through JSON as in a run."""
    return entry.cls(**_parameters(entry, n_clusters), random_state=seed)


def _parameters(entry: Entry, n_clusters: int) -> dict[str, Any]:
    params = entry.parameters("smoke", n_clusters=n_clusters)
    params.pop("random_state", None)
    return dict(json.loads(json.dumps(params)))


def fitted(
    entry: Entry, X: np.ndarray, y: np.ndarray, context: Context | None = None, seed: int = 0
) -> Method:
    """What `build` gives, fitted."""
    return build(entry, seed=seed).fit(X, y, context=context)


def check_plan(entry: Entry) -> None:
    """A run can plan with it: its constructor, its parameters, its stages."""
    registry.check_usable(entry)


def check_constructor(entry: Entry) -> None:
    """Hyperparameters are stored as given, nothing else happens in ``__init__``."""
    given = _parameters(entry, n_clusters=7)
    start = time.perf_counter()
    built = entry.cls(**given, random_state=3)
    took = time.perf_counter() - start
    expect(
        took < LONGEST_CONSTRUCTOR,
        f"__init__ took {took:.1f} s; expected less than {LONGEST_CONSTRUCTOR:g} s: store the "
        "parameters and do the work in fit",
    )
    expect(built.n_clusters == 7, "__init__ has to store n_clusters as self.n_clusters")
    copy = clone(built)
    expect(copy.get_params() == built.get_params(), "sklearn.base.clone changes the parameters")
    expect(
        not [name for name in vars(built) if name.endswith("_")],
        "__init__ sets attributes that end in '_': set them in fit",
    )


def check_labels(entry: Entry) -> None:
    """``fit`` returns self and sets ``labels_``: one integer for every instance."""
    X, y, _ = sample()
    method = build(entry)
    expect(method.fit(X, y) is method, "fit has to return self")
    expect(hasattr(method, "labels_"), "fit has to set labels_")
    labels = np.asarray(method.labels_)
    expect(labels.shape == (len(X),), f"labels_ has shape {labels.shape}; expected {(len(X),)}")
    expect(labels.dtype.kind in "iu", f"labels_ is {labels.dtype}; expected integers")
    expect(
        -1 <= labels.min() <= labels.max() < 10,
        f"labels_ runs from {labels.min()} to {labels.max()}; expected 0..n_clusters-1, or -1",
    )


def check_named_clusters(entry: Entry) -> str | None:
    """With labels, cluster j is class j.

    It has to be another one on the labelled images too: a method that has learnt little knows at
    least these.
    """
    if not entry.tags.uses_labels:
        return "it ignores labels: the suite names its clusters"
    X, y, truth = sample()
    labels = np.asarray(fitted(entry, X, y).labels_)
    said = [_misnamed(truth[rows], labels[rows]) for rows in (slice(None), y != UNLABELLED)]
    expect(not all(said), f"{said[0]}; give each cluster its class's number")
    return None


def _misnamed(truth: np.ndarray, labels: np.ndarray) -> str | None:
    """What `misnamed` says of labels ``(n,)``, -1 where an image has none, and their truth."""
    placed = labels != UNLABELLED
    best = cluster_of_each_class(truth[placed], labels[placed], 10)
    return misnamed(float((labels == truth).mean()), float((labels == best[truth]).mean()))


def check_parameters_unchanged(entry: Entry) -> None:
    """``fit`` leaves the parameters as they were given, and with them the defaults."""
    X, y, _ = sample()
    before = build(entry).get_params(deep=False)
    after = fitted(entry, X, y).get_params(deep=False)
    said = said_of_changes(before, after)
    expect(not said, said)


def check_inputs_unchanged(entry: Entry) -> None:
    """``fit`` leaves ``X`` and ``y`` as they were; the suite gives read-only memory maps."""
    X, y, _ = sample()
    before = X.copy(), y.copy()
    X.flags.writeable = y.flags.writeable = False
    fitted(entry, X, y)
    expect(np.array_equal(X, before[0]), "fit changes X")
    expect(np.array_equal(y, before[1]), "fit changes y")


def check_no_labels(entry: Entry) -> str | None:
    """With every label hidden, ``fit`` works, unless the tag says needs_labels."""
    if entry.tags.needs_labels:
        return NEEDS_LABELS
    X, y, _ = sample()
    labels = fitted(entry, X, np.full_like(y, UNLABELLED)).labels_
    expect(len(labels) == len(X), "labels_ has to hold one label per image, without labels too")
    return None


def check_without_labels(entry: Entry) -> str | None:
    """The method that ``tags.without_labels`` names is registered, and another one."""
    other = entry.tags.without_labels
    if other is None:
        return "tags.without_labels names no other method"
    expect(other != entry.name, f"tags.without_labels is {other!r} itself; name another method")
    expect(other in registry.names(), registry.said_of_no_other(entry))
    return None


def check_same_seed(entry: Entry) -> None:
    """The same seed gives the same labels twice."""
    X, y, _ = sample()
    first, second = fitted(entry, X, y).labels_, fitted(entry, X, y).labels_
    expect(
        np.array_equal(first, second),
        "two fits with random_state=0 differ: derive every random number from random_state",
    )


def check_uses_labels(entry: Entry) -> str | None:
    """A method tagged ``uses_labels=False`` gives the same labels whatever ``y`` is."""
    if entry.tags.uses_labels:
        return "it is tagged as one that uses labels"
    X, y, _ = sample()
    hidden = np.full_like(y, UNLABELLED)
    same = np.array_equal(fitted(entry, X, y).labels_, fitted(entry, X, hidden).labels_)
    expect(same, "tagged uses_labels=False, but y changes labels_: it would be scored unfairly")
    return None


def check_labels_are_the_models_own(entry: Entry) -> str | None:
    """``labels_`` is the model's assignment: `predict` agrees with it on the fitted images.

    Some of the labels given are wrong, so a method that copies ``y`` into ``labels_`` is seen.
    """
    if not entry.tags.inductive:
        return NOT_INDUCTIVE
    expect(hasattr(entry.cls, "predict"), NO_PREDICT)
    X, y, _ = sample()
    wrong = np.flatnonzero(y != UNLABELLED)[::4]
    y[wrong] = (y[wrong] + 1) % 10
    method = fitted(entry, X, y)
    differ = int((method.predict(X) != method.labels_).sum())
    expect(
        differ == 0,
        f"labels_ and predict(X) differ on {differ} of the {len(X)} fitted images: labels_ has to "
        "be the model's own assignment, never copied from y",
    )
    return None


def check_predict(entry: Entry) -> str | None:
    """``predict`` labels new images; ``predict_proba`` and ``transform`` have the right shapes."""
    if not entry.tags.inductive:
        return NOT_INDUCTIVE
    X, y, _ = sample()
    method = fitted(entry, X[:250], y[:250]) if _covers(y[:250]) else fitted(entry, X, y)
    new = X[250:]
    expect(hasattr(method, "predict"), NO_PREDICT)
    expect(np.shape(method.predict(new)) == (len(new),), "predict(X) needs one label per image")
    if hasattr(method, "predict_proba"):
        proba = np.asarray(method.predict_proba(new))
        expect(
            proba.shape == (len(new), 10),
            f"predict_proba gives {proba.shape}; expected {(len(new), 10)}: (n, n_clusters)",
        )
        expect(np.allclose(proba.sum(1), 1, atol=1e-3), "rows of predict_proba do not sum to 1")
    if hasattr(method, "transform"):
        expect(len(method.transform(new)) == len(new), "transform(X) needs one row per image")
    return None


def check_fit_predict(entry: Entry) -> None:
    """``fit_predict(X, y)`` uses ``y`` and equals ``fit(X, y).labels_``."""
    X, y, _ = sample()
    same = np.array_equal(build(entry).fit_predict(X, y), fitted(entry, X, y).labels_)
    expect(same, "fit_predict(X, y) differs from fit(X, y).labels_; derive from methods.Method")


def check_stages(entry: Entry) -> str | None:
    """What ``stages(n_labels)`` announces, `fit` asks for; labels change nothing of what it gives.

    The suite computes a stage once for all levels: one that saw labels would carry those of one
    level to another.
    """
    X, y, _ = sample()
    other = np.where(y == UNLABELLED, y, (y + 1) % 10)
    given = [y, other] if entry.tags.needs_labels else [y, np.full_like(y, UNLABELLED)]
    if not any(build(entry).stages(int((labels != UNLABELLED).sum())) for labels in given):
        return "it announces no stages"
    gave: dict[tuple[str, ...], Arrays] = {}
    for labels in given:
        n_labels = int((labels != UNLABELLED).sum())
        spy = Spy()
        method = fitted(entry, X, labels, spy)
        for key in gave.keys() & spy.gave.keys():
            expect(
                _equal(gave[key], spy.gave[key]),
                f"the stage {key[0]} gives something else where fit sees other labels: "
                "the suite shares it among levels, so it may depend on X, its parameters and "
                "random_state alone",
            )
        gave |= spy.gave
        for request in method.stages(n_labels):
            expect(
                (request.function, dict(request.params)) in spy.asked,
                f"stages({n_labels}) announces {request.name} with {dict(request.params)}, but fit "
                f"asks for {[(f.__name__, p) for f, p in spy.asked]}",
            )
    return None


def check_colour(entry: Entry) -> None:
    """Colour images ``(n, h, w, 3)`` work as grey ones do."""
    X, y, _ = sample()
    colour = np.stack([X, 255 - X, X // 2], axis=-1)
    expect(len(fitted(entry, colour, y).labels_) == len(X), "labels_ of colour images")


def _equal(first: Arrays, second: Arrays) -> bool:
    names = first.keys() | second.keys()
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in names
    )


def _covers(y: np.ndarray) -> bool:
    return len(np.unique(y[y != UNLABELLED])) == 10


Check = Callable[[Entry], str | None]
CHECKS: tuple[Check, ...] = (
    check_plan,
    check_constructor,
    check_labels,
    check_named_clusters,
    check_parameters_unchanged,
    check_inputs_unchanged,
    check_no_labels,
    check_without_labels,
    check_same_seed,
    check_uses_labels,
    check_labels_are_the_models_own,
    check_predict,
    check_fit_predict,
    check_stages,
    check_colour,
)
NAMES = tuple(check.__name__.removeprefix("check_") for check in CHECKS)


def parametrize_with_checks(methods: Iterable[str | Path | type[Method]]) -> pytest.MarkDecorator:
    """A decorator for pytest: one test for each method and check, as scikit-learn's of that name.

    The test that it decorates takes ``entry`` and ``check`` and calls ``check(entry)``.

    Parameters
    ----------
    methods : of each its registered name, its class, or a ``.py`` file for all that it registers.

    Raises
    ------
    RegistryError : there is no such method, or it cannot be used.
    """
    import pytest

    wanted = list(methods)
    problems = registry.discover(one for one in wanted if _is_file(one))
    cases = [
        pytest.param(entry, _with_skips(check), id=f"{entry.name}-{name}")
        for one in wanted
        for entry in _entries_of(one, problems)
        for name, check in zip(NAMES, CHECKS, strict=True)
    ]
    return pytest.mark.parametrize(("entry", "check"), cases)


def _is_file(method: object) -> TypeGuard[str | Path]:
    return isinstance(method, Path) or (isinstance(method, str) and method.endswith(".py"))


def _entries_of(method: str | Path | type[Method], problems: Iterable[Problem]) -> list[Entry]:
    """The entries that one element of `parametrize_with_checks` stands for."""
    if isinstance(method, type):
        found = [entry for entry in map(registry.get, registry.names()) if entry.cls is method]
        none = f"{method.__name__} is not registered; decorate it with @register('name')"
    elif _is_file(method):
        origins = {str(Path(method)), str(Path(method).resolve())}
        for problem in problems:
            if {problem.origin, problem.entry and problem.entry.origin} & origins:
                raise RegistryError(problem.message) from problem.error
        found = [registry.get(name) for name in registry.names_from(method)]
        none = f"{method} registers no method; decorate a class with @register('name')"
    else:
        return [registry.get(str(method))]
    if not found:
        raise RegistryError(none)
    return found


def _with_skips(check: Check) -> Callable[[Entry], None]:
    """The check as a test: where it does not apply, pytest says why."""

    @functools.wraps(check)
    def carry_out(entry: Entry) -> None:
        import pytest

        if reason := check(entry):
            pytest.skip(reason)

    return carry_out


def run_checks(
    entry: Entry, begin: Callable[[str], object] = lambda name: None
) -> Iterator[Outcome]:
    """Every check in turn; `begin` is told its name before it starts.

    An exception of the method itself fails the check that met it. Where no run could plan with the
    method, the others are skipped.
    """
    met: dict[str, str] = {}  # what was said before, and by which check
    for name, check in zip(NAMES, CHECKS, strict=True):
        if met.get("") == "plan":
            yield Outcome(name, skipped="no run could plan with it")
            continue
        begin(name)
        try:
            skipped = check(entry)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # pytest.skip, say, raises no Exception
            message, told = _reason(error, entry)
            yield Outcome(name, message, like=met.get(message, ""), traceback=told)
            met.setdefault(message, name)
            met.setdefault("", name)
        else:
            yield Outcome(name, skipped=skipped or "")


def _reason(error: BaseException, entry: Entry) -> tuple[str, str]:
    """Why a check failed, with the author's own last line; and the traceback of their error."""
    if isinstance(error, Unmet):
        return str(error), ""
    if isinstance(error, RegistryError):
        return str(error), traceback_of(error.__cause__)
    return registry.in_a_line(error, entry.origin), traceback_of(error)


def traceback_of(error: BaseException | None) -> str:
    """The whole traceback of an error; empty without one."""
    return "" if error is None else "".join(traceback.format_exception(error))
