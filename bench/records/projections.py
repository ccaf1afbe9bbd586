"""Embeddings of methods that have ``transform``, and the pictures of them, as files.

A fit of seed 0 keeps the embedding of a fixed sample of the fitted images beside its labels in the
cache, as the array `EMBEDDING`. What is drawn of it, a `Projection`, lies beside the record as
``<seed>.projection.json``: places in the plane, classes, and how far the picture can be trusted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

import msgspec
import numpy as np

from bench.core.errors import BenchError
from bench.core.levels import Level
from bench.core.trial import Trial
from bench.records.scoring import Record
from bench.records.store import Store

SCHEMA = 1
LEVELS = ("0%", "1%", "10%", "50%")  # Figure 2 of SS-DCEC
N_POINTS = 3_000
SAMPLE_SEED = 2
EMBEDDING = "embedding"  # the array of a fit in the cache
WIDE = 32  # columns; of more than these half precision is kept
SIDE = 256  # places along each axis: a byte
MOST_CLASSES = 256  # a byte too

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


@dataclass(frozen=True)
class Scores:
    """How far a picture can be trusted, and how separable the classes are; 0 to 1, 1 is best.

    Attributes
    ----------
    trustworthiness : how seldom the picture has neighbours that the embedding does not have
        (`sklearn.manifold.trustworthiness`).
    neighbours : the share of the points whose class most of their nearest neighbours in the
        embedding have.
    kmeans : ACC of k-means on these points of the embedding, as many clusters as classes.
    """

    trustworthiness: Share
    neighbours: Share
    kmeans: Share


@dataclass(frozen=True)
class Projection:
    """The embedding of one fit in the plane.

    Attributes
    ----------
    identity : of the trial.
    sample : digest of the indices of the images shown.
    embedding : digest of the embedding; where two are equal, so are the pictures.
    columns : of the embedding.
    made_by : UMAP's version and parameters.
    scores : how far it can be trusted.
    classes : the names of the classes.
    labels : base64 of a byte for each point: its class.
    points : base64 of two bytes for each point: its place, from the left and from below.
    """

    identity: str
    sample: str
    embedding: str
    columns: int
    made_by: dict[str, str | int | float]
    scores: Scores
    classes: tuple[str, ...]
    labels: str
    points: str

    @classmethod
    def of(cls, places: np.ndarray, labels: np.ndarray, **others: Any) -> Projection:
        """The projection of `places` ``(m, 2)`` uint8 and of classes ``(m,)``, 0 to 255."""
        coded = [
            base64.b64encode(np.ascontiguousarray(part, np.uint8).tobytes()).decode()
            for part in (labels, places)
        ]
        return cls(labels=coded[0], points=coded[1], **others)

    @property
    def places(self) -> np.ndarray:
        """``(m, 2)`` uint8, from the left and from below."""
        return _bytes(self.points).reshape(-1, 2)

    @property
    def y(self) -> np.ndarray:
        """``(m,)`` uint8, the class of each point."""
        return _bytes(self.labels)

    def to_json(self) -> dict[str, Any]:
        """The projection as the file beside a record holds it."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Projection:
        """The projection that `to_json` gave, also after JSON made lists of its tuples.

        Raises
        ------
        BenchError : they are no projection.
        """
        try:
            found = msgspec.convert(values, cls)
            _check(found)
        except (msgspec.MsgspecError, ValueError) as error:
            raise BenchError(
                f"the projection file cannot be read ({error}); delete it and write the report "
                "again"
            ) from error
        return found


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), np.uint8)


def _check(found: Projection) -> None:
    """Raise ValueError for points and classes that do not belong together."""
    try:
        n_points, labels = len(_bytes(found.points)), found.y
    except binascii.Error as error:
        raise ValueError(f"points or labels are no base64: {error}") from error
    if n_points != 2 * len(labels) or not 1 <= len(labels) <= N_POINTS:
        raise ValueError(
            f"it has {n_points} bytes of points and {len(labels)} of labels; expected two and one "
            f"for each of 1 to {N_POINTS} points"
        )
    if labels.max() >= len(found.classes):
        raise ValueError(f"a label is none of the {len(found.classes)} classes")


def sample(n: int) -> np.ndarray:
    """Which of `n` fitted images are shown, ascending int64: `N_POINTS` of them, at most all.

    Drawn uniformly, without a look at labels or images; for one number of fitted images the same
    in every method, level and run.
    """
    order = np.random.default_rng(SAMPLE_SEED).permutation(n)
    return np.sort(order[:N_POINTS])


def kept(method: Any, by: str, level: str, seed: int) -> bool:
    """Whether a fit of `method` at `level` keeps what its function `by` gives, for a figure.

    Of a method that ignores labels the fit serves every level, so it does at each.
    """
    wanted = level in LEVELS or not method.tags.uses_labels
    return seed == 0 and wanted and hasattr(method, by)


def embed(method: Any, X: np.ndarray) -> np.ndarray:
    """The embedding ``(m, d)`` of the sampled ones among the images that `method` was fitted on.

    float32; of more than `WIDE` columns float16, where its error is below a thousandth of the
    largest value.

    Parameters
    ----------
    method : fitted, with ``transform``.
    X : ``(n, height, width[, channels])`` the fitted images.

    Raises
    ------
    BenchError : ``transform`` gives no d finite numbers for each image. It may raise anything else.
    """
    chosen = sample(len(X))
    found = np.asarray(method.transform(X[chosen]))
    expected = f"expected ({len(chosen)}, d) finite numbers, the embedding of each image"
    if found.ndim != 2 or len(found) != len(chosen) or found.dtype.kind not in "fiu":
        raise BenchError(f"transform gives {found.dtype} with shape {found.shape}; {expected}")
    with np.errstate(over="ignore"):
        rows = found.astype(np.float32)
        half = rows.astype(np.float16)
    if rows.shape[1] == 0 or not np.isfinite(rows).all():
        raise BenchError(f"transform gives no column, or numbers without end; {expected}")
    error = np.abs(half.astype(np.float32) - rows).max()
    return half if rows.shape[1] > WIDE and error <= np.abs(rows).max() / 1_000 else rows


def read(store: Store, trial: Trial) -> Projection | None:
    """The projection of exactly this trial; None if there is none or it is of another identity.

    Raises
    ------
    BenchError : the file is no projection; the message names the trial.
    """
    values = store.read_projection(trial)
    if values is None:
        return None
    try:
        found = Projection.from_json(values)
    except BenchError as error:
        raise BenchError(f"{trial.title}: {error}") from error
    return found if found.identity == trial.identity else None


def shown(records: Iterable[Record]) -> dict[PurePosixPath, list[Record]]:
    """The records whose embeddings are shown, if there are any: for each ``Trial.folder`` by level.

    Those of seed 0 at `LEVELS` that ended ``ok``; of a method that ignores labels, whose levels
    have one fit, the first alone.
    """
    found: dict[PurePosixPath, list[Record]] = {}
    for record in sorted(records, key=lambda one: Level.parse(one["trial"]["level"])):
        trial = Trial.from_json(record["trial"])
        if trial.seed == 0 and record["status"] == "ok":
            found.setdefault(trial.folder, []).append(record)
    for folder, of_it in found.items():
        fits = {record.get("fit", record["identity"]) for record in of_it}
        if len(fits) == 1 and (len(of_it) > 1 or of_it[0].get("cluster_names")):
            found[folder] = of_it[:1]
        else:
            found[folder] = [one for one in of_it if one["trial"]["level"] in LEVELS]
    return {folder: of_it for folder, of_it in sorted(found.items()) if of_it}
