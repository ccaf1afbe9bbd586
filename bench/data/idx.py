"""IDX files, as MNIST and those like it are published: four of them, by any of their usual names.

``train-images-idx3-ubyte``, ``train-images.idx3-ubyte``, with ``.gz`` or without, with something
before it (``emnist-letters-train-images-idx3-ubyte.gz``); ``t10k`` is also called ``test``.
"""

from __future__ import annotations

import gzip
import math
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from bench.core.errors import BenchError
from bench.data.content import PACKED, Own, check_size, require

_NAME = re.compile(
    r"(.+[-_.])?(train|t10k|test)[-_.](images|labels)[-_.]idx[13][-_.]ubyte(\.gz)?", re.IGNORECASE
)
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIPPED = b"\x1f\x8b"


def is_folder(folder: Path) -> bool:
    """Whether one of the four files lies in `folder`."""
    return any(_NAME.fullmatch(path.name) for path in _entries(folder))


def read_folder(folder: Path) -> Own:
    """The images and classes of the four files, training part first.

    Raises
    ------
    BenchError : a file is missing, is no IDX file, or does not fit the others.
    """
    X, y = [], []
    for part in ("train", "t10k"):
        X.append(_read(find(folder, f"{part}-images-idx3-ubyte"), 3))
        y.append(_read(find(folder, f"{part}-labels-idx1-ubyte"), 1))
        require(
            len(X[-1]) == len(y[-1]),
            f"{folder}: {len(X[-1]):,} images and {len(y[-1]):,} labels are in the files of "
            f"{part}; expected as many labels as images.",
        )
    require(
        X[0].shape[1:] == X[1].shape[1:],
        f"{folder}: images of {X[0].shape[1:]} pixels in the training part and of "
        f"{X[1].shape[1:]} in the test part; expected one size.",
    )
    cure = "Join the parts, shuffle them, and save X, y and n_train as an .npz file."
    n_train = np.array(len(X[0]))
    return Own(folder, np.concatenate(X), np.concatenate(y), n_train, parts_cure=cure)


def find(folder: Path, name: str) -> Path:
    """The file that is usually called `name`, or as one of its other names, gzipped or not.

    Raises
    ------
    BenchError : there is none, or there are several of different names.
    """
    for usual in (name, f"{name}.gz"):
        if (folder / usual).exists():
            return folder / usual
    wanted = _role(name)
    found = sorted(path for path in _entries(folder) if _role(path.name) == wanted)
    if not found:
        raise BenchError(f"there is no {name}.gz (nor {name}) in {folder}")
    if len({path.name.removesuffix(".gz") for path in found}) > 1:
        names = ", ".join(path.name for path in found)
        raise BenchError(f"{folder} has several files for {name}: {names}; give each a folder")
    return found[0]  # the one that is not gzipped


def _role(name: str) -> tuple[str, str] | None:
    """Part and content that a file's name stands for; None if it is no such name."""
    match = _NAME.fullmatch(name)
    return match and (match[2].lower().replace("test", "t10k"), match[3].lower())


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise BenchError(f"{folder} cannot be read: {error.strerror or error}") from error


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The decompressed content of a file, gzipped or not.

    Raises
    ------
    BenchError : it cannot be read, is no regular file, or is damaged.
    """
    try:
        mode = path.stat().st_mode
        require(
            stat.S_ISREG(mode) or stat.S_ISDIR(mode),  # that a folder is one is said by open
            f"{path} cannot be read: it is no regular file",
        )
        with path.open("rb") as raw:
            gzipped = raw.read(2) == _GZIPPED
            raw.seek(0)
            yield cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if gzipped else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BenchError(f"{path} is a truncated or damaged gzip file ({error})") from error
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror or error}") from error


def _read(path: Path, ndim: int) -> np.ndarray:
    """One IDX file as an array of so many dimensions, of the type that it declares."""
    with opened(path) as file:
        head = file.read(4 + 4 * ndim)
        require(
            len(head) == 4 + 4 * ndim and head[:2] == b"\0\0" and head[2] in _TYPES,
            f"{path} is not an IDX file: it starts with {head[:4].hex(' ') or 'nothing'}, expected "
            f"00 00 08 {ndim:02x}",
        )
        require(
            head[3] == ndim,
            f"{path} holds an array of {head[3]} dimensions; expected {ndim}: were files of images "
            "and labels mixed up?",
        )
        shape, dtype = struct.unpack(f">{ndim}I", head[4:]), np.dtype(_TYPES[head[2]])
        n_bytes = math.prod(shape) * dtype.itemsize
        check_size(path, n_bytes)
        require(
            n_bytes <= PACKED * path.stat().st_size,
            f"{path} is damaged: it says that it holds {n_bytes:,} bytes, which its size rules out",
        )
        body = file.read(n_bytes + 1)
    require(
        len(body) == n_bytes,
        f"{path} is damaged: it says that it holds {n_bytes:,} bytes, and has "
        f"{'more' if len(body) > n_bytes else f'{len(body):,}'}",
    )
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))
