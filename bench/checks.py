"""What every method must satisfy: small checks, shared by ``bench check`` and the tests.

Each check takes a registered `Entry` and raises AssertionError with a message that tells the author
what to mend. They fit the method's ``smoke`` schedule on 300 small images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from bench.core import splits
from bench.data import datasets
from methods import registry
from methods.method import UNLABELLED, Arrays, Context, Method
from methods.registry import Entry

N_IMAGES = 300
N_LABELS = 60
NO_PREDICT = "there is no predict(X) for new images: add it, or say tags = Tags(inductive=False)"


@dataclass(frozen=True)
class Outcome:
    """How one check ended; `message` is empty if it passed."""

    name: str
    message: str


class Spy(Context):
    """A context that notes which stages are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Any, dict[str, Any]]] = []

    def stage(
        self, function: Callable[..., Arrays], X: np.ndarray, *, random_state: Any, **params: Any
    ) -> Arrays:
        """Note the request and compute in place."""
        self.asked.append((function, params))
        return super().stage(function, X, random_state=random_state, **params)


def sample(n_labels: int = N_LABELS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """300 digits: images ``(300, 8, 8)``, labels with -1 where hidden, and the truth."""
    digits = datasets.load("digits")
    X, truth = np.array(digits.X[:N_IMAGES]), digits.y[:N_IMAGES]
    chosen = splits.labelled_indices(truth, n_labels, "stratified", 0)
    return X, splits.reveal(truth, chosen), truth


def fitted(
    entry: Entry, X: np.ndarray, y: np.ndarray, context: Context | None = None, seed: int = 0
) -> Method:
    """The method with its ``smoke`` parameters, fitted."""
    return entry.build("smoke", n_clusters=10, random_state=seed).fit(X, y, context=context)


def check_constructor(entry: Entry) -> None:
    """Hyperparameters are stored as given, nothing else happens in ``__init__``."""
    params = entry.parameters("paper")
    for needed in ("n_clusters", "random_state"):
        assert needed in params, f"__init__ has no parameter {needed}; the suite sets it: add it"
    built = entry.build("smoke", n_clusters=7, random_state=3)
    assert built.n_clusters == 7, "__init__ has to store n_clusters as self.n_clusters"
    copy = clone(built)
    assert copy.get_params() == built.get_params(), "sklearn.base.clone changes the parameters"
    assert not [name for name in vars(built) if name.endswith("_")], (
        "__init__ sets attributes that end in '_': set them in fit"
    )


def check_labels(entry: Entry) -> None:
    """``fit`` returns self and sets ``labels_``: one integer for every instance."""
    X, y, _ = sample()
    method = entry.build("smoke", n_clusters=10, random_state=0)
    assert method.fit(X, y) is method, "fit has to return self"
    labels = np.asarray(method.labels_)
    assert labels.shape == (len(X),), f"labels_ has shape {labels.shape}; expected {(len(X),)}"
    assert labels.dtype.kind in "iu", f"labels_ is {labels.dtype}; expected integers"
    assert -1 <= labels.min() <= labels.max() < 10, (
        f"labels_ runs from {labels.min()} to {labels.max()}; expected 0..n_clusters-1, or -1"
    )


def check_inputs_unchanged(entry: Entry) -> None:
    """``fit`` leaves ``X`` and ``y`` as they were; the suite gives read-only memory maps."""
    X, y, _ = sample()
    before = X.copy(), y.copy()
    X.flags.writeable = y.flags.writeable = False
    fitted(entry, X, y)
    assert np.array_equal(X, before[0]), "fit changes X"
    assert np.array_equal(y, before[1]), "fit changes y"


def check_no_labels(entry: Entry) -> None:
    """With every label hidden, ``fit`` works, unless the tag says needs_labels."""
    if entry.tags.needs_labels:
        return
    X, y, _ = sample()
    labels = fitted(entry, X, np.full_like(y, UNLABELLED)).labels_
    assert len(labels) == len(X), "labels_ has to hold one label per image, without labels too"


def check_without_labels(entry: Entry) -> None:
    """The method that ``tags.without_labels`` names is registered, and another one."""
    other = entry.tags.without_labels
    if other is not None:
        assert other != entry.name, f"tags.without_labels is {other!r} itself; name another method"
        assert other in registry.names(), (
            f"tags.without_labels is {other!r}, but no method is called so; `bench list` shows all"
        )


def check_same_seed(entry: Entry) -> None:
    """The same seed gives the same labels twice."""
    X, y, _ = sample()
    first, second = fitted(entry, X, y).labels_, fitted(entry, X, y).labels_
    assert np.array_equal(first, second), (
        "two fits with random_state=0 differ: derive every random number from random_state"
    )


def check_uses_labels(entry: Entry) -> None:
    """A method tagged ``uses_labels=False`` gives the same labels whatever ``y`` is."""
    if entry.tags.uses_labels:
        return
    X, y, _ = sample()
    hidden = np.full_like(y, UNLABELLED)
    same = np.array_equal(fitted(entry, X, y).labels_, fitted(entry, X, hidden).labels_)
    assert same, "tagged uses_labels=False, but y changes labels_: it would be scored unfairly"


def check_labels_are_the_models_own(entry: Entry) -> None:
    """``labels_`` is the model's assignment: `predict` agrees with it on the fitted images.

    Some of the labels given are wrong, so a method that copies ``y`` into ``labels_`` is seen.
    """
    if not entry.tags.inductive:
        return
    assert hasattr(entry.cls, "predict"), NO_PREDICT
    X, y, _ = sample()
    wrong = np.flatnonzero(y != UNLABELLED)[::4]
    y[wrong] = (y[wrong] + 1) % 10
    method = fitted(entry, X, y)
    differ = int((method.predict(X) != method.labels_).sum())
    assert differ == 0, (
        f"labels_ and predict(X) differ on {differ} of the {len(X)} fitted images: labels_ has to "
        "be the model's own assignment, never copied from y"
    )


def check_predict(entry: Entry) -> None:
    """``predict`` labels new images; ``predict_proba`` and ``transform`` have the right shapes."""
    if not entry.tags.inductive:
        return
    X, y, _ = sample()
    method = fitted(entry, X[:250], y[:250]) if _covers(y[:250]) else fitted(entry, X, y)
    new = X[250:]
    assert hasattr(method, "predict"), NO_PREDICT
    assert np.shape(method.predict(new)) == (len(new),), "predict(X) needs one label per image"
    if hasattr(method, "predict_proba"):
        proba = np.asarray(method.predict_proba(new))
        assert proba.shape == (len(new), 10), (
            f"predict_proba gives {proba.shape}; expected {(len(new), 10)}: (n, n_clusters)"
        )
        assert np.allclose(proba.sum(1), 1, atol=1e-3), "rows of predict_proba do not sum to 1"
    if hasattr(method, "transform"):
        assert len(method.transform(new)) == len(new), "transform(X) needs one row per image"


def check_fit_predict(entry: Entry) -> None:
    """``fit_predict(X, y)`` uses ``y`` and equals ``fit(X, y).labels_``."""
    X, y, _ = sample()
    method = entry.build("smoke", n_clusters=10, random_state=0)
    same = np.array_equal(method.fit_predict(X, y), fitted(entry, X, y).labels_)
    assert same, "fit_predict(X, y) differs from fit(X, y).labels_; derive from methods.Method"


def check_stages(entry: Entry) -> None:
    """What ``stages(n_labels)`` announces, `fit` asks for, with the same parameters."""
    X, y, _ = sample()
    for labels in (y, np.full_like(y, UNLABELLED)):
        n_labels = int((labels != UNLABELLED).sum())
        if entry.tags.needs_labels and n_labels == 0:
            continue
        spy = Spy()
        method = fitted(entry, X, labels, spy)
        for request in method.stages(n_labels):
            assert (request.function, dict(request.params)) in spy.asked, (
                f"stages({n_labels}) announces {request.name} with {dict(request.params)}, but fit "
                f"asks for {[(f.__name__, p) for f, p in spy.asked]}"
            )


def check_colour(entry: Entry) -> None:
    """Colour images ``(n, h, w, 3)`` work as grey ones do."""
    X, y, _ = sample()
    colour = np.stack([X, 255 - X, X // 2], axis=-1)
    assert len(fitted(entry, colour, y).labels_) == len(X), "labels_ of colour images"


def _covers(y: np.ndarray) -> bool:
    return len(np.unique(y[y != UNLABELLED])) == 10


CHECKS: tuple[Callable[[Entry], None], ...] = (
    check_constructor,
    check_labels,
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


def run_checks(entry: Entry) -> Iterator[Outcome]:
    """Every check in turn; an exception of the method itself fails the check that met it."""
    for check in CHECKS:
        name = check.__name__.removeprefix("check_")
        try:
            check(entry)
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            yield Outcome(name, f"{kind}{error}")
        else:
            yield Outcome(name, "")
