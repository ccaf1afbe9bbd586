"""A user's images in an `.npz` file: its layouts, read without pickle."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from bench.core.errors import BenchError
from bench.data.content import PACKED, Own, check_size, listed, require

# Arrays of images and classes by part, the test part last: of keras.datasets, of MedMNIST.
LAYOUTS = (
    (("x_train", "y_train"), ("x_val", "y_val"), ("x_test", "y_test")),
    (
        ("train_images", "train_labels"),
        ("val_images", "val_labels"),
        ("test_images", "test_labels"),
    ),
)
CURE = "Write it with np.savez(path, X=images, y=classes)."
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read(path: Path) -> Own:
    """The arrays of the file, whatever they hold.

    Raises
    ------
    BenchError : no such file, it is damaged, or lacks images or classes.
    """
    require(path.is_file(), f"There is no file {path}: check the path of the .npz file.")
    try:
        with zipfile.ZipFile(path) as archive:
            found = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            parts = _parts(path, found)
            taken = [name for pair in parts for name in pair] if parts else list(_plain(found))
            for name in taken:
                _check_header(path, name, archive)
        with np.load(path, allow_pickle=False) as arrays:
            read = {name: arrays[name] for name in taken}
    except BenchError:
        raise
    except zipfile.BadZipFile as error:
        raise BenchError(f"{path} is damaged, or not an .npz file ({error}). {CURE}") from error
    except Exception as error:  # zip, zlib and numpy's headers each fail in their own ways
        raise BenchError(f"Cannot read {path}: {error}. {CURE}") from error
    if parts:
        return _joined(path, [(read[X], read[y]) for X, y in parts])
    missing = " and no ".join(name for name in ("X", "y") if name not in read)
    require(not missing, f"{path} has no {missing}, only {listed(found, 20) or 'nothing'}. {CURE}")
    return Own(path, read["X"], read["y"], read.get("n_train"), read.get("class_names"))


def _plain(names: list[str]) -> list[str]:
    """Those of our own layout."""
    return [name for name in ("X", "y", "n_train", "class_names") if name in names]


def _parts(path: Path, names: list[str]) -> list[tuple[str, str]]:
    """The arrays of images and classes, part by part, of a file laid out as by Keras or MedMNIST.

    Empty for a file of another layout.

    Raises
    ------
    BenchError : a part has images and no classes, or classes and no images.
    """
    for layout in LAYOUTS:
        parts = [pair for pair in layout if set(pair) <= set(names)]
        if "X" not in names and layout[0] in parts:
            for pair in layout:
                missing, there = sorted(pair, key=names.__contains__)
                require(
                    (there in names) == (missing in names),
                    f"{path} has {there} and no {missing}; save it with both, or without {there}.",
                )
            return parts
    return []


def _check_header(path: Path, name: str, archive: zipfile.ZipFile) -> None:
    """Refuse objects, and an array whose size its file does not bear out."""
    member = f"{name}.npy" if f"{name}.npy" in archive.namelist() else name
    info = archive.getinfo(member)
    with archive.open(member) as file:
        shape, dtype = _header(file)
    if dtype.hasobject:
        cure = {
            "y": "For texts, save class_names, y = np.unique(y.astype(str), return_inverse=True); "
            "for numbers, y.astype(int).",
            "class_names": "Save class_names.astype(str).",
        }
        images = "For images of one size, save np.stack(list(X)); others have to be resized first."
        raise BenchError(
            f"{path}: {name} holds Python objects, which are never unpickled; expected numbers or "
            f"texts. {cure.get(name, images)}"
        )
    n_bytes = math.prod(shape) * dtype.itemsize
    check_size(path, n_bytes)
    require(
        n_bytes <= min(info.file_size, PACKED * info.compress_size),
        f"{path} is damaged: {name} of shape {shape} has {n_bytes:,} bytes, its file "
        f"{info.file_size:,}. {CURE}",
    )


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array that follows in `file`."""
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"arrays of format {version} are not known")
    shape, _, dtype = HEADERS[version](file)
    return shape, dtype


def _joined(path: Path, parts: list[tuple[np.ndarray, np.ndarray]]) -> Own:
    """Parts that follow each other as one; the last of several is the test.

    MedMNIST's classes are a column.
    """
    for X, y in parts:
        require(
            min(X.ndim, y.ndim) > 0 and len(X) == len(y),
            f"{path}: a part has images of shape {X.shape} and classes of shape {y.shape}; "
            "expected as many classes as images.",
        )
    images, columns = zip(*parts, strict=True)
    classes = [y.ravel() if y.shape == (len(y), 1) else y for y in columns]
    n_train = sum(len(X) for X in images[: max(1, len(parts) - 1)])
    try:
        X, y = np.concatenate(images), np.concatenate(classes)
    except (ValueError, TypeError) as error:
        raise BenchError(
            f"{path}: its parts cannot be put together ({error}); expected images of one size and "
            "classes of one kind in all of them."
        ) from error
    cure = "Shuffle each part into both."
    return Own(path, X, y, np.array(n_train), parts_cure=cure)
