"""What a figure needs of a fit beside its record: per cluster what it holds, and its surest images.

A trial of seed 0 whose method gives soft assignments leaves a `View` behind, as
``<seed>.views.json`` next to its record. The table and the images are those that SCAN's model card
shows of every cluster. `Images` finds the images that a view names.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from bench.core import metrics
from bench.core.errors import BenchError
from bench.core.levels import Level
from bench.core.trial import Trial
from bench.data import datasets
from bench.data.datasets import Dataset
from bench.data.fashion_mnist import FASHION_MNIST
from bench.records.scoring import Record
from bench.records.store import Store
from methods import registry
from methods.registry import RegistryError

SCHEMA = 1
N_IMAGES = 9
N_RECONSTRUCTED = 12
RECONSTRUCTION = "reconstruction"  # the array of a fit in the cache
MOST_CLUSTERS = 100  # more are no figure, and no small file
DIGITS = 4
REFERENCE = Decimal(5)  # percent


@dataclass(frozen=True)
class Cluster:
    """One cluster of a fit.

    Attributes
    ----------
    cluster : its id, the column of the soft assignments.
    label : the class of most of its images, by the truth (the lowest of several); None if empty.
    accuracy : the share of its images that are of that class, 0 to 1; None if empty.
    size : how many of the fitted images it has.
    images : the images that are most confidently in it, the surest first, at most `N_IMAGES`.
        Indices into the dataset: a method is fitted on the first images of it.
    probabilities : the soft assignment of each of `images` to the cluster.
    wrong : the images of other classes that are most confidently in it, the surest first, at most
        `N_IMAGES`; as `images` are given.
    """

    cluster: int
    label: int | None
    accuracy: float | None
    size: int
    images: tuple[int, ...]
    probabilities: tuple[float, ...]
    wrong: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reconstructed:
    """What an autoencoder makes of some images: their indices, their shape, base64 of the bytes."""

    images: tuple[int, ...]
    shape: tuple[int, ...]
    pixels: str

    @property
    def X(self) -> np.ndarray:
        """The reconstructions ``(m, height, width[, channels])`` uint8.

        Raises
        ------
        ValueError : the text is not that of so many bytes.
        """
        given = np.frombuffer(base64.b64decode(self.pixels, validate=True), dtype=np.uint8)
        return given.reshape(len(self.images), *self.shape)

    @classmethod
    def of(cls, images: np.ndarray, X: np.ndarray) -> Reconstructed:
        """Those ``X`` ``(m, height, width[, channels])`` uint8 of the images with these indices."""
        text = base64.b64encode(np.ascontiguousarray(X).tobytes()).decode()
        return cls(tuple(images.tolist()), X.shape[1:], text)


@dataclass(frozen=True)
class View:
    """The clusters of one fit; `identity` is its trial's, `classes` are the names of the labels.

    `reconstructed` has what its autoencoder makes of some images, if it has one.
    """

    identity: str
    classes: tuple[str, ...]
    clusters: tuple[Cluster, ...]
    reconstructed: Reconstructed | None = None

    def name(self, cluster: Cluster) -> str:
        """The name of the cluster's label; empty for an empty cluster."""
        return "" if cluster.label is None else self.classes[cluster.label]

    def to_json(self) -> dict[str, Any]:
        """The view as the file beside a record holds it."""
        values = asdict(self)
        if self.reconstructed is None:
            del values["reconstructed"]
        return {"schema": SCHEMA, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> View:
        """The view that `to_json` gave, also after JSON made lists of its tuples.

        Raises
        ------
        BenchError : they are no view.
        """
        try:
            view = msgspec.convert(values, cls)
            if not 1 <= len(view.clusters) <= MOST_CLUSTERS:
                raise ValueError(f"it has {len(view.clusters)} clusters")
            for one in view.clusters:
                _check_cluster(one, len(view.classes))
            if view.reconstructed is not None:
                _check_reconstructed(view.reconstructed)
        except (msgspec.MsgspecError, ValueError) as error:
            raise BenchError(
                f"the views file cannot be read ({error}); delete it and run the trial again"
            ) from error
        return view


def _check_cluster(one: Cluster, n_classes: int) -> None:
    """Raise ValueError for a label that is no class, or images that are none."""
    if one.label is not None and not 0 <= one.label < n_classes:
        raise ValueError(f"a label is none of the {n_classes} classes")
    if min((*one.wrong, 0)) < 0 or len(one.wrong) > N_IMAGES:
        raise ValueError(f"a cluster shows {list(one.wrong)} as wrong; expected {N_IMAGES} at most")
    if min(one.images, default=0) < 0 or not len(one.probabilities) == len(one.images) <= N_IMAGES:
        raise ValueError(
            f"a cluster shows the images {list(one.images)}; expected at most {N_IMAGES}, and a "
            "probability of each"
        )


def _check_reconstructed(one: Reconstructed) -> None:
    """Raise ValueError where the bytes are no images of its shape."""
    if not 0 < len(one.images) <= N_RECONSTRUCTED or min(one.images) < 0:
        raise ValueError(
            f"it has reconstructions of {list(one.images)}; expected 1 to {N_RECONSTRUCTED} images"
        )
    if len(one.shape) not in (2, 3) or min(one.shape) < 1:
        raise ValueError(f"its reconstructions have the shape {list(one.shape)}")
    _ = one.X


def reconstructed_sample(n: int) -> np.ndarray:
    """Which of `n` fitted images are reconstructed: evenly spaced, whatever they show."""
    return np.linspace(0, n - 1, min(n, N_RECONSTRUCTED)).astype(np.int64)


def reconstruct(method: Any, X: np.ndarray) -> np.ndarray:
    """What a fitted `method` with ``reconstruct`` makes of the sampled ones of ``X``, uint8.

    Raises
    ------
    BenchError : ``reconstruct`` gives no finite image for each. It may raise anything else.
    """
    images = X[reconstructed_sample(len(X))]
    found = np.asarray(method.reconstruct(images))
    if found.shape != images.shape or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise BenchError(
            f"reconstruct gives {found.dtype} with shape {found.shape}; expected {images.shape} "
            "finite numbers, pixels in [0, 1]"
        )
    return np.rint(found.clip(0, 1) * 255).astype(np.uint8)


def make(
    identity: str,
    y: np.ndarray,
    arrays: Mapping[str, np.ndarray],
    classes: Sequence[str],
    columns: str,
) -> View:
    """The view of a fit.

    Parameters
    ----------
    identity : of the trial.
    y : ``(n,)`` the true classes of the fitted images.
    arrays : of the fit: ``soft`` ``(n, K)``, the soft assignments; ``labels`` ``(n,)`` and, where
        the method has it, ``clusters`` ``(n,)`` and what `reconstruct` gave.
    classes : the name of every class.
    columns : what the columns of the soft assignments are, as the method's tags say: ``"classes"``
        or ``"clusters"``.

    Raises
    ------
    BenchError : the soft assignments are no K finite numbers for each image, K is above
        `MOST_CLUSTERS`, or an assignment is none of the K.
    """
    soft = arrays["soft"]
    _check_soft(soft, len(y))
    given = arrays.get("clusters")
    if given is not None and given.shape != y.shape:
        raise BenchError(
            f"cluster_labels_ has shape {given.shape}; expected ({len(y)},), the cluster of each "
            "image"
        )
    assigned = arrays["labels"] if columns == "classes" or given is None else given
    if assigned.max() >= soft.shape[1]:
        raise BenchError(
            f"labels_ holds {assigned.max()}, which is none of the {soft.shape[1]} columns of "
            "probabilities_; expected a column for every cluster"
        )
    found = clusters(y, soft, assigned, len(classes))
    return View(identity, tuple(classes), found, _reconstructed(arrays, len(y)))


def _reconstructed(arrays: Mapping[str, np.ndarray], n: int) -> Reconstructed | None:
    if RECONSTRUCTION not in arrays:
        return None
    return Reconstructed.of(reconstructed_sample(n), arrays[RECONSTRUCTION])


def clusters(
    y: np.ndarray, soft: np.ndarray, assigned: np.ndarray, n_classes: int
) -> tuple[Cluster, ...]:
    """Every cluster, with its table and its most confident images.

    Parameters
    ----------
    y : ``(n,)`` true classes, 0 to `n_classes` - 1.
    soft : ``(n, K)`` soft assignments.
    assigned : ``(n,)`` the cluster of each image, 0 to K - 1; -1 for none.
    """
    n_clusters = soft.shape[1]
    table = metrics.contingency_matrix(y, assigned, n_classes=n_classes, n_clusters=n_clusters)
    names = metrics.majority_mapping(table)
    found = []
    for j in range(n_clusters):
        size, label = int(table[:, j].sum()), int(names[j])
        members = np.flatnonzero(assigned == j)
        members = members[np.argsort(-soft[members, j], kind="stable")]  # the surest first
        surest = members[:N_IMAGES]
        found.append(
            Cluster(
                cluster=j,
                label=label if size else None,
                accuracy=round(int(table[label, j]) / size, DIGITS) if size else None,
                size=size,
                images=tuple(surest.tolist()),
                probabilities=tuple(round(float(p), DIGITS) for p in soft[surest, j]),
                wrong=tuple(members[y[members] != label][:N_IMAGES].tolist()),
            )
        )
    return tuple(found)


def _check_soft(soft: np.ndarray, n: int) -> None:
    expected = f"expected ({n}, K), the soft assignments of every image to each of K clusters"
    if soft.ndim != 2 or len(soft) != n or soft.dtype.kind != "f":
        raise BenchError(f"probabilities_ is {soft.dtype} with shape {soft.shape}; {expected}")
    if not 1 <= soft.shape[1] <= MOST_CLUSTERS:
        raise BenchError(
            f"probabilities_ has {soft.shape[1]} columns; views show 1 to {MOST_CLUSTERS} clusters"
        )
    if not np.isfinite(soft).all():
        raise BenchError(f"probabilities_ holds what is no finite number; {expected}")


def read(store: Store, trial: Trial) -> View | None:
    """The view of exactly this trial; None if there is none or it is of another identity.

    Raises
    ------
    BenchError : the file is no view; the message names the trial.
    """
    values = store.read_views(trial)
    if values is None:
        return None
    try:
        view = View.from_json(values)
    except BenchError as error:
        raise BenchError(f"{trial.title}: {error}") from error
    return view if view.identity == trial.identity else None


def reference_level(levels: Iterable[str]) -> str:
    """The level at which methods are compared: 5 % or the share nearest to it.

    Where there are counts alone, the middle one; without any label, ``0%``.
    """
    known = sorted(Level.parse(level) for level in set(levels))
    shares = [level for level in known if level.amount > 0 and not level.is_count]
    if shares:
        return str(min(shares, key=lambda level: (abs(level.amount - REFERENCE), level)))
    counts = [level for level in known if level.is_count]
    return str((counts or known)[(len(counts or known) - 1) // 2])


def shown(records: Iterable[Record], level: str) -> list[Trial]:
    """The trial of seed 0 of every clustering method whose clusters a reader looks at.

    That at `level`, or where there is none at the method's own `reference_level`; of a label-free
    method, whose clusters are named by the revealed labels (``cluster_names``), that at 0 %. One
    that does what another method does is left out.

    Parameters
    ----------
    records : those of one board.
    """
    by_name: dict[str, dict[str, Record]] = {}
    for record in records:
        trial = Trial.from_json(record["trial"])
        if _shows_clusters(trial.method) and trial.seed == 0 and record["status"] == "ok":
            by_name.setdefault(trial.folder.name, {})[trial.level] = record
    chosen = []
    for _, levels in sorted(by_name.items()):
        label_free = all(one.get("cluster_names") for x, one in levels.items() if x != "0%")
        wanted = level if level in levels else reference_level(levels)
        if label_free and "0%" in levels:
            wanted = "0%"
        if not levels[wanted].get("same_as"):
            chosen.append(Trial.from_json(levels[wanted]["trial"]))
    return chosen


def _shows_clusters(method: str) -> bool:
    """Whether soft assignments are to clusters; a plugin that is not here does not say."""
    try:
        return registry.get(method).tags.columns == "clusters"
    except RegistryError:
        return False


class Images:
    """The datasets of records, as far as they can be read here without a download.

    Parameters
    ----------
    records : their trials say which datasets there are.
    sources : paths of the `.npz` files of such datasets.

    Raises
    ------
    BenchError : a source cannot be read, or there is no record of it.
    """

    def __init__(self, records: Iterable[Record], sources: Sequence[str] = ()) -> None:
        self.names = sorted({str(record["trial"]["dataset"]) for record in records})
        self._known: dict[str, Dataset | str] = {}
        for source in sources:
            data = datasets.load(source)
            if data.name not in self.names:
                raise BenchError(
                    f"--dataset is {source}, which is {data.name}, and there are no records of it; "
                    f"expected a file of one of {', '.join(self.names)}"
                )
            self._known[data.name] = data

    def find(self, name: str) -> Dataset | str:
        """The dataset, or a sentence that says why its images are not shown."""
        if name not in self._known:
            self._known[name] = _load(name)
        return self._known[name]

    def of(self, trial: Trial) -> Dataset | str:
        """The dataset that a trial was run on, or why its images are not shown."""
        found = self.find(trial.dataset)
        if isinstance(found, Dataset) and found.digest != trial.dataset_digest:
            return f"The {trial.dataset} at hand has other images than this trial was run on."
        return found

    def class_names(self, name: str, n_classes: int) -> list[str]:
        """The names of a dataset's classes; their numbers where it is not at hand."""
        if name == FASHION_MNIST.name and n_classes == len(FASHION_MNIST.class_names):
            return list(FASHION_MNIST.class_names)
        found = self.find(name)
        if isinstance(found, Dataset) and found.n_classes == n_classes:
            return list(found.class_names)
        return [str(number) for number in range(n_classes)]


def _load(name: str) -> Dataset | str:
    """A built-in dataset, or why it is not at hand."""
    if name not in (FASHION_MNIST.name, "digits"):
        return f"The images of {name} are in a file of the user; --dataset FILE.npz shows them."
    copy = datasets.cache_dir() / "datasets" / FASHION_MNIST.name / "X.npy"
    here = os.environ.get("BENCH_DATA") or copy.exists() or FASHION_MNIST.system_folder.is_dir()
    if name == FASHION_MNIST.name and not here:
        return f"The images of {name} are not on this machine; `bench data` fetches them."
    try:
        return datasets.load(name)
    except BenchError as error:
        return f"The images of {name} are not shown: {error}"
