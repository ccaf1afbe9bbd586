"""A user's images and classes: what no method could use, and what is worth a warning.

All that can be known on loading is said on loading, in a sentence with the cure that helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.core.errors import BenchError
from bench.core.texts import storable

MOST_CHANNELS = 4
BLOCK = 1000  # images that are looked at a time
PACKED = 1032  # deflate makes no more bytes of one
SPAN = 192  # of pixels: less than three quarters of 0 to 255 is said
RENUMBER = "Renumber them with np.unique(y, return_inverse=True)[1]."
LEAVE_OUT = (
    "Images without a class cannot be scored: leave them out with keep = {}; X, y = X[keep], "
    "y[keep]. How many labels a method sees is what --level says."
)


@dataclass
class Own:
    """A user's images as they were read.

    path : where they lie, for sentences.
    X, y, n_train, class_names : the arrays that `bench.data.datasets.load` describes, of any shape
        and type; None where there is none.
    warnings : what was noticed in reading them, a sentence each.
    parts_cure : what helps against a class that only the test part has.
    """

    path: Path
    X: np.ndarray
    y: np.ndarray
    n_train: np.ndarray | None = None
    class_names: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    parts_cure: str = "Shuffle each part into both, or set n_train anew."


def checked(own: Own) -> tuple[int, tuple[str, ...]]:
    """The size of the training part and the names of the classes.

    Raises
    ------
    BenchError : no method could use the images or the classes; one sentence says why.
    """
    _check_shape(own.path, own.X)
    _check_pixels(own.path, own.X)
    _check_shape_of_classes(own.path, own.y, len(own.X))
    _check_classes(own.path, own.y)
    n_train = _check_n_train(own)
    names = _check_names(own)
    unseen = np.setdiff1d(own.y, own.y[:n_train]).tolist()
    known = [str(j) if names[j] == str(j) else f"{j} ({names[j]})" for j in unseen]
    require(
        not unseen,
        f"{own.path}: class {listed(known)} has no image among the first {n_train:,}, "
        f"which are the training part; expected some of every class there. {own.parts_cure}",
    )
    require(
        any((block != own.X[:1]).any() for block in _blocks(own.X)),
        f"{own.path}: all {len(own.X):,} images are the same; check how X was made.",
    )
    return n_train, names


def remarks(own: Own) -> list[str]:
    """What is worth a warning in images that can be used, a sentence each."""
    found = list(own.warnings)
    low, high = int(own.X.min()), int(own.X.max())
    if high - low < SPAN:
        found.append(
            f"{own.path}: the pixels run from {low} to {high}, and methods take them as parts of "
            f"255: stretch them with X = np.interp(X, ({low}, {high}), (0, 255)).round()"
            ".astype(np.uint8), and save them as an .npz file"
        )
    plain = np.flatnonzero(np.concatenate([_constant(block) for block in _blocks(own.X)])).tolist()
    if plain:
        found.append(
            f"{own.path}: {len(plain):,} of {len(own.X):,} images are of one colour throughout "
            f"({listed(plain, 5)}, counted from 0): check them, or leave them out with keep = "
            "(X != X[:, :1, :1]).reshape(len(X), -1).any(1); X, y = X[keep], y[keep]"
        )
    return found


def check_size(path: Path, n_bytes: int) -> None:
    """Refuse what does not fit into the memory of this machine, before any of it is taken.

    Raises
    ------
    BenchError : it is more than the machine has.
    """
    from bench.core import machine

    memory = machine.memory_gib()
    require(
        n_bytes < memory * 2**30,
        f"{path} needs {n_bytes / 2**30:,.1f} GiB of memory, and this machine has {memory:,.1f}; "
        "take fewer or smaller images.",
    )


def require(fulfilled: bool, sentence: str) -> None:
    """Raise BenchError with this sentence unless `fulfilled`."""
    if not fulfilled:
        raise BenchError(sentence)


def listed(values: Sequence[object], most: int = 10) -> str:
    """The first of `values` for a sentence, and whether there are more."""
    return ", ".join(map(str, values[:most])) + ", …" * (len(values) > most)


def _blocks(X: np.ndarray) -> Iterator[np.ndarray]:
    return (X[start : start + BLOCK] for start in range(0, len(X), BLOCK))


def _constant(X: np.ndarray) -> np.ndarray:
    """Of each image whether all of its pixels are alike."""
    same: np.ndarray = (X[:, :1, :1] == X).reshape(len(X), -1).all(1)
    return same


def _check_shape(path: Path, X: np.ndarray) -> None:
    """Refuse arrays that are no images, or have their channels first."""
    side = round(np.sqrt(X.shape[1])) if X.ndim == 2 else 0
    flat = f"X.reshape(-1, {side}, {side})" if side and side**2 == X.shape[1] else "X.reshape"
    require(
        X.ndim in (3, 4),
        f"{path}: X has shape {X.shape}; expected (n, height, width) or (n, height, width, "
        f"channels). Give the images their shape with {flat}.",
    )
    require(X.size > 0, f"{path}: X has shape {X.shape}, so it is empty; give it images.")
    require(
        X.ndim == 3 or X.shape[3] <= MOST_CHANNELS or X.shape[1] > MOST_CHANNELS,
        f"{path}: X has shape {X.shape}, which is (n, channels, height, width); expected the "
        "channels last. Move them with "
        f"{'X[:, 0]' if X.shape[1:2] == (1,) else 'np.moveaxis(X, 1, 3)'}.",
    )


def _check_pixels(path: Path, X: np.ndarray) -> None:
    """Refuse pixels of another type, with the conversion that these values need."""
    if X.dtype == np.uint8:
        return
    cure = "Give numbers."
    if X.dtype.kind in "biuf":
        low, high = X.min(), X.max()
        if not np.isfinite([low, high]).all():
            cure = "Some are no finite numbers: look how they were made, or use np.nan_to_num(X)."
        elif low >= 0 and high <= 1:
            factor = "255" if X.dtype.kind == "f" else "255.0"  # an int8 has no 255
            cure = f"Values from 0 to 1: convert them with (X * {factor}).round().astype(np.uint8)."
        elif low >= 0 and high <= 255:
            rounded = ".round()" if X.dtype.kind == "f" else ""
            cure = f"Values from 0 to 255: convert them with X{rounded}.astype(np.uint8)."
        else:
            cure = (
                f"Values from {low} to {high}: convert them with np.interp(X, ({low}, {high}), "
                "(0, 255)).round().astype(np.uint8)."
            )
    raise BenchError(f"{path}: X holds {X.dtype}; expected uint8 from 0 to 255. {cure}")


def _check_shape_of_classes(path: Path, y: np.ndarray, n: int) -> None:
    """Refuse what is not one class for each image, with the cure that helps."""
    cure = "Give one for each."
    if y.shape == (n, 1):
        cure = "Take y.ravel()."
    elif y.ndim == 2 and len(y) == n and y.dtype.kind in "biuf":
        alone = (y != 0).sum(1) == 1
        cure = (
            "Take y.argmax(1)."
            if alone.all()
            else f"Image {alone.argmin()} has not exactly one class; several of one image cannot "
            "be scored. If they are shares, take y.argmax(1)."
        )
    require(
        y.shape == (n,),
        f"{path}: y has shape {y.shape}; expected ({n},), one class for each image in X. {cure}",
    )


def _check_classes(path: Path, y: np.ndarray) -> None:
    """Refuse classes that cannot be scored, with the cure that helps."""
    text = y.dtype.kind in "US"
    missing = int(np.isnan(y).sum()) if y.dtype.kind == "f" else 0
    require(
        not missing,
        f"{path}: y holds nan for {missing:,} images; expected 0 to k-1. "
        f"{LEAVE_OUT.format('~np.isnan(y)')}",
    )
    names = "Save class_names, y = np.unique(y, return_inverse=True)."
    if y.dtype.kind == "S":
        names = names.replace("(y,", "(y.astype(str),")
    require(
        y.dtype.kind in "iu",
        f"{path}: y holds {y.dtype}; expected integers. {names if text else RENUMBER}",
    )
    require(
        y.min() >= 0,
        f"{path}: y holds {y.min()} for {(y < 0).sum():,} images; expected 0 to k-1. "
        f"{LEAVE_OUT.format('y >= 0')}",
    )
    present = np.unique(y).tolist()
    require(
        len(present) > 1,
        f"{path}: y holds {present[0]} alone; expected at least two classes: add images of others.",
    )
    require(
        present[-1] == len(present) - 1,
        f"{path}: y holds the classes {listed(present)}; expected 0 to k-1, all present. "
        f"{RENUMBER}",
    )


def _check_n_train(own: Own) -> int:
    n, n_train = len(own.X), own.n_train
    if n_train is None:
        return n
    require(
        n_train.ndim == 0 and n_train.dtype.kind in "iu" and 1 <= int(n_train) <= n,
        f"{own.path}: n_train is {repr(n_train.tolist())[:80]}; expected one integer from 1 to "
        f"{n}, the number of images, counted from the first, that are the training part.",
    )
    return int(n_train)


def _check_names(own: Own) -> tuple[str, ...]:
    """The names of the classes; their numbers where none are given."""
    n_classes, names = int(own.y.max()) + 1, own.class_names
    if names is None:
        return tuple(map(str, range(n_classes)))
    cure = " Take class_names.astype(str)." if names.dtype.kind == "S" else ""
    require(
        names.dtype.kind == "U" and names.shape == (n_classes,),
        f"{own.path}: class_names holds {names.dtype} of shape {names.shape}; expected "
        f"{n_classes} strings, one per class.{cure}",
    )
    try:
        found = tuple(names.tolist())
    except ValueError as error:  # what is no character at all
        raise BenchError(
            f"{own.path}: class_names holds what is no text ({error}); expected names."
        ) from error
    for name in found:
        require(
            storable(name) == name,
            f"{own.path}: the name of class {name!a} is no text in UTF-8; rename it.",
        )
    twice = sorted({name for name in found if found.count(name) > 1})
    require(
        not twice,
        f"{own.path}: class_names holds {listed(list(map(repr, twice)), 5)} more than once; "
        "expected a name of its own for each class.",
    )
    return found
