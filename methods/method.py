"""The contract between a method and whoever fits it.

A method is a scikit-learn estimator that takes uint8 images and labels in which ``-1`` means
"not labelled". It is useful without the suite::

    from methods.dcec import SSDCEC
    labels = SSDCEC(n_clusters=10, random_state=0).fit(X, y).labels_

What the suite lends it on top (a device, shared stages, checkpoints, progress) arrives through a
`Context`; the default `Context` does nothing and computes in place.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

UNLABELLED = -1
COLUMNS = ("classes", "clusters")
Arrays = dict[str, np.ndarray]
StageFunction = TypeVar("StageFunction", bound=Callable[..., Arrays])

_stages: dict[str, Callable[..., Arrays]] = {}


@dataclass(frozen=True)
class Tags:
    """What the suite has to know of a method before it fits it.

    Parameters
    ----------
    uses_labels : False means that `fit` ignores ``y``: fitted once per seed, scored at every level.
    needs_labels : True for a supervised method, which reads ``n/a`` where nothing is labelled.
    needs_every_class : True when `fit` needs a labelled instance of every class (or none at all).
    inductive : True when `predict` accepts images that `fit` has not seen.
    in_all : part of ``bench run --all``.
    without_labels : the registered name of the method that this one is where nothing is labelled,
        because it has nothing better to do. The suite then takes that method's fit, with the
        parameters of this one that were asked for and that both have.
    family : a word that methods of one kind share: ``"dcec"``, ``"scan"``, ... Those of
        ``"supervised"`` learn from the labelled images alone: the suite takes them as baselines.
        Of one without a family it does not know whether it learns from unlabelled images.
    resumes : a fit that was killed goes on from `Context.checkpoint`.
    columns : what the columns of ``probabilities_`` are, ``"classes"`` or ``"clusters"``: of
        clusters the report shows what each holds.
    """

    uses_labels: bool = True
    needs_labels: bool = False
    needs_every_class: bool = False
    inductive: bool = True
    in_all: bool = True
    without_labels: str | None = None
    family: str = ""
    resumes: bool = False
    columns: str = "classes"

    def __post_init__(self) -> None:
        if self.columns not in COLUMNS:
            raise ValueError(f"columns is {self.columns!r}; expected one of {', '.join(COLUMNS)}")


def stage(*, version: int, resumes: bool = False) -> Callable[[StageFunction], StageFunction]:
    """Decorator of a stage: ``function(X, *, random_state, context, **params) -> dict of arrays``.

    A stage is label-free work that several trials share. Its name and version are part of the key
    under which its arrays are kept, so the name has to be the only one of its kind.

    Parameters
    ----------
    version : 1 at first; raised whenever the function returns something else for the same input.
        What was computed with an older version is stale.
    resumes : one that was killed goes on from `Context.checkpoint`.

    Raises
    ------
    ValueError : another function is a stage of that name already.
    """

    def declare(function: StageFunction) -> StageFunction:
        name, known = function.__name__, _stages.get(function.__name__)
        there = known is not None and known.__module__ in sys.modules  # no import that failed
        if known is not None and there and _place(known) != _place(function):
            raise ValueError(
                f"two stages are called {name!r}: {_place(known)} and {_place(function)}; rename "
                "one"
            )
        _stages[name] = function
        function.version = version  # type: ignore[attr-defined]  # functions take attributes
        function.resumes = resumes  # type: ignore[attr-defined]
        return function

    return declare


def _place(function: Callable[..., Arrays]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def stage_version(stage: Callable[..., Arrays] | str) -> int | None:
    """The declared version of a stage function, or of the stage of this name; None if unknown."""
    function = _stages.get(stage) if isinstance(stage, str) else stage
    return getattr(function, "version", None)


def stage_resumes(name: str) -> bool:
    """Whether the stage of this name, where it is known, keeps checkpoints."""
    return getattr(_stages.get(name), "resumes", False)


@dataclass(frozen=True)
class StageRequest:
    """One label-free stage that a method will ask for: a stage function and its parameters."""

    function: Callable[..., Arrays]
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__


class Checkpoint(Protocol):
    """Where a long loop keeps its state, so that it can go on after it was killed."""

    def load(self) -> dict[str, Any] | None:
        """The state saved last, or None at the start."""

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Offer the state (built only if it is due); tensors, numbers, strings, dicts and lists."""


class NoCheckpoint:
    """Keeps nothing: the loop starts from the beginning."""

    def load(self) -> dict[str, Any] | None:
        """None: nothing was kept."""
        return None

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Keep nothing."""
        return None


class Context:
    """What a method may use while it fits. This one does nothing and computes in place.

    Parameters
    ----------
    device : a torch device, ``"cpu"`` or ``"cuda"``.
    precision : ``"fp32"`` or ``"bf16"``: the arithmetic of the networks' products. Losses and
        Student's t are computed in fp32 whatever it says.
    threads : processor threads that the method may use; None leaves the libraries' own choice.
    """

    def __init__(
        self, device: str = "cpu", precision: str = "fp32", threads: int | None = None
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision is {precision!r}; expected 'fp32' or 'bf16'")
        self.device = device
        self.precision = precision
        self.threads = threads

    def progress(self, what: str, done: int, total: int) -> None:
        """Say that `done` of `total` steps of `what` (``"epoch"``, ``"iteration"``) are over."""

    def log(self, **values: float | int | str | None) -> None:
        """Add one row to the history that the record keeps (loss, label change, ...)."""

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint of the loop `name` of this fit or stage."""
        return NoCheckpoint()

    def stage(
        self, function: Callable[..., Arrays], X: np.ndarray, *, random_state: Any, **params: Any
    ) -> Arrays:
        """What the label-free stage ``function(X, *, random_state, context, **params)`` returns.

        The function is declared with the decorator `stage`. The suite computes a stage once per key
        and shares it among levels, methods and processes. Its randomness is derived from
        (`random_state`, the stage's name), so that a stage read from the cache and one computed
        afresh agree.
        """
        seed = derive_seed(random_state, function.__name__)
        return function(X, random_state=seed, context=self, **params)


def derive_seed(random_state: int | np.integer | None, name: str) -> int:
    """A 63-bit seed for the part `name` of a computation seeded with `random_state`.

    ``None`` draws fresh entropy, as scikit-learn does.
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(1))
    digest = hashlib.sha256(f"{int(random_state)}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Method(ClusterMixin, BaseEstimator):
    """Base class of the methods, and the whole contract.

    A method is a scikit-learn estimator. Its hyperparameters are the fields of a dataclass
    (``@dataclass(eq=False, repr=False)``; a hand-written ``__init__`` that stores them does too),
    among them ``n_clusters`` and ``random_state``; nothing else happens before `fit`. The defaults
    are the published ones, the schedule ``paper``.

    What a method has to have:

    - `fit(X, y, context)`, which returns self and sets ``labels_`` ``(n,)``: the model's own
      assignment, never copied from ``y``. With labels, cluster j is class j.

    What it may have, and what the suite makes of it:

    - ``version``, raised whenever `fit` gives something else for the same input: records made by an
      older version are stale.
    - ``tags``, see `Tags`: for what it is fit, and what it means.
    - ``schedules``: the parameters that a shorter schedule changes, ``quick`` (minutes) and
      ``smoke`` (seconds, for tests).
    - ``predict(X)`` ``(m,)`` for new images, as ``tags.inductive`` says: scored on the test images.
      On the fitted images it gives ``labels_`` (of equal images one answer).
    - ``predict_proba(X)`` ``(m, n_clusters)``: soft assignments, rows sum to 1.
    - ``transform(X)`` ``(m, d)``: the embedding of images.
    - ``reconstruct(X)``: what an autoencoder makes of images, of their shape, pixels in [0, 1].
    - ``select(X, budget, context)`` ``(budget,)``: the indices whose labels it asks for, under the
      selection ``representative``.
    - ``stages(n_labels)``: the shared stages that `fit` will ask its context for.
    - ``probabilities_`` ``(n, K)``: soft assignments of the fitted images, whose columns are what
      ``tags.columns`` says. A view of the clusters is kept with the record of seed 0.
    - ``cluster_labels_`` ``(n,)``: the clusters of a method that over-clusters and maps them to
      classes itself, where there are labels.
    """

    version: ClassVar[int] = 1
    tags: ClassVar[Tags] = Tags()
    schedules: ClassVar[dict[str, dict[str, Any]]] = {}

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Method:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled."""
        raise NotImplementedError(f"{type(self).__name__} has to define fit(X, y, context)")

    def fit_predict(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> np.ndarray:
        """`fit`, then ``labels_``. Unlike ClusterMixin's own, it passes ``y`` on."""
        return self.fit(X, y, context).labels_

    def stages(self, n_labels: int) -> list[StageRequest]:
        """The stages that `fit` will ask for on ``X`` with `n_labels` labelled instances.

        They stand in the order in which they build on each other, with the parameters of `fit`.
        """
        return []

    def _begin(
        self, X: np.ndarray, y: np.ndarray | None, context: Context | None
    ) -> tuple[np.ndarray, np.ndarray, Context]:
        """Checked images and labels, and a context; what `predict` needs of both is remembered.

        What an earlier fit has left is forgotten. Labels are all -1 for a method that ignores them.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used, or no label where the tags
            say that the method needs some.
        """
        X = check_images(X)
        self._check_parameters(len(X))
        y = check_labels(y, len(X), self.n_clusters)
        if self.tags.needs_labels and (y == UNLABELLED).all():
            raise ValueError(
                f"{type(self).__name__} learns from labelled instances and y holds none (all -1): "
                "label some, or choose a method that needs no labels"
            )
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        context = context or Context()
        self.image_shape_ = X.shape[1:]
        self._inference = Context(context.device, context.precision)
        return X, y if self.tags.uses_labels else np.full_like(y, UNLABELLED), context

    def _ask(self, request: StageRequest, X: np.ndarray, context: Context) -> Arrays:
        """What a stage returns for this method's seed."""
        seed = self.random_state
        return context.stage(request.function, X, random_state=seed, **request.params)

    def _check_parameters(self, n: int) -> None:
        """Raise ValueError for a parameter that n images cannot be fitted with."""


def check_images(X: np.ndarray) -> np.ndarray:
    """``X`` as it is if it is a uint8 array ``(n, height, width[, channels])``.

    Raises
    ------
    ValueError : the array has another type or shape, or is empty.
    """
    X = np.asanyarray(X)
    if X.dtype != np.uint8 or X.ndim not in (3, 4) or X.size == 0:
        raise ValueError(
            f"X is {X.dtype} with shape {X.shape}; expected uint8 images of shape "
            "(n, height, width) or (n, height, width, channels): scale pixels to 0..255 and "
            "convert with X.astype('uint8')"
        )
    return X


def check_labels(y: np.ndarray | None, n: int, n_clusters: int) -> np.ndarray:
    """``y`` as int64 ``(n,)`` with -1 for unlabelled; None is all -1.

    Raises
    ------
    ValueError : wrong length or type, or a label outside -1..n_clusters-1.
    """
    if y is None:
        return np.full(n, UNLABELLED, dtype=np.int64)
    y = np.asarray(y)
    if y.shape != (n,) or y.dtype.kind not in "iu":
        raise ValueError(
            f"y is {y.dtype} with shape {y.shape}; expected {n} integers, -1 where unlabelled"
        )
    if y.min() < UNLABELLED or y.max() >= n_clusters:
        raise ValueError(
            f"y holds labels from {y.min()} to {y.max()}; expected -1 (unlabelled) or 0.."
            f"{n_clusters - 1}: set n_clusters to at least the number of classes"
        )
    return y.astype(np.int64)


def require_every_class(y: np.ndarray, n_classes: int, why: str) -> None:
    """Raise ValueError if a class has no labelled instance in ``y``; `why` says what needs it."""
    missing = sorted(set(range(n_classes)) - set(y.tolist()))
    if missing:
        raise ValueError(
            f"no labelled instance of class {', '.join(map(str, missing))}; {why}: label at least "
            "one instance of every class, or none at all"
        )


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise ValueError if a parameter is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def check_like_fitted(method: Any, X: np.ndarray) -> np.ndarray:
    """``X`` if it holds uint8 images of the shape that `method` was fitted on.

    Raises
    ------
    ValueError : other images; `sklearn.exceptions.NotFittedError` before `fit`.
    """
    check_is_fitted(method)
    X = check_images(X)
    if X.shape[1:] != method.image_shape_:
        raise ValueError(
            f"X holds images of shape {X.shape[1:]}; {type(method).__name__} was fitted on "
            f"{method.image_shape_}: give it images of that shape"
        )
    return X


def flatten(X: np.ndarray) -> np.ndarray:
    """Images as float32 rows ``(n, height·width·channels)`` with pixels in [0, 1]."""
    return X.reshape(len(X), -1).astype(np.float32) / 255


def said_of_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What to say of a fit that has changed its parameters, a default that grows; else nothing.

    The record tells the parameters, and the next fit would have others.
    """
    changed = [name for name in before if repr(before[name]) != repr(after[name])]
    said = "; ".join(f"fit changes {x} from {before[x]!r} to {after[x]!r}" for x in changed)
    return said and f"{said}: leave parameters as they were given and work on copies"
