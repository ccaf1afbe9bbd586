"""Datasets: labelled images whose content is verified.

`load("fashion-mnist")` is the default dataset, `load("digits")` serves tests, and
`load("images.npz")` or `load("folder")` takes a user's own images. Environment variables:

BENCH_DATA      folder with the four Fashion-MNIST files; nothing else is tried when it is set
BENCH_DATA_URL  address of a mirror, used instead of the project's own
BENCH_CACHE     folder for what is kept between runs, instead of the user's cache folder
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.core.errors import BenchError
from bench.core.files import said_if_unwritable, written_whole
from bench.data import content, folder, idx, npz
from bench.data.fashion_mnist import FASHION_MNIST, IdxSource, Log, named_folder, search

ADDRESS = re.compile(r"\w+://")
CACHE_CURE = "set BENCH_CACHE to a folder that can be written"

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)  # == on arrays has no single truth value
class Dataset:
    """Images and their classes.

    name : "fashion-mnist", "digits", or for a user's own its file's or folder's name without the
        ending `.npz` and the first 8 digits of `digest` (``shoes-1f2e3d4c``): another content is
        another dataset.
    X : (n, height, width) or (n, height, width, channels) uint8, read-only; memory-mapped for
        Fashion-MNIST.
    y : (n,) int64, read-only: the class of every image, 0 … n_classes - 1.
    n_train : the first `n_train` images are the training part, the others the test part;
        equal to n when there is no test part.
    class_names : one name per class.
    digest : SHA-256 (hexadecimal) of X and y (types, shapes, bytes) and of `n_train`; the same
        on every machine and however the data were loaded.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    n_train: int
    class_names: tuple[str, ...]
    digest: str

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


@dataclass(frozen=True)
class Fetched:
    """What `fetch` found: where it came from, where the copy lies, and what was verified."""

    name: str
    origin: str
    folder: Path  # holds X.npy and y.npy
    files: dict[str, str]  # file name -> SHA-256 of its decompressed content
    digest: str

    def __str__(self) -> str:
        """What `bench data` prints."""
        verified = "".join(f"  {sha256}  {name}\n" for name, sha256 in self.files.items())
        return (
            f"{self.name}: from {self.origin}\nSHA-256 of the decompressed files, all as "
            f"published:\n{verified}Uncompressed copy: {self.folder}\nDigest: {self.digest}"
        )


def cache_dir() -> Path:
    """Folder for what is kept between runs: `$BENCH_CACHE`, or below the user's cache folder."""
    if given := os.environ.get("BENCH_CACHE"):
        try:
            return Path(given).expanduser().absolute()
        except RuntimeError as error:  # a user that there is not
            raise BenchError(
                f"BENCH_CACHE={given} cannot be used: {error}; set it to a folder that can be made"
            ) from error
    import platformdirs

    return Path(platformdirs.user_cache_dir("fewlabels"))


def load(name: str, *, log: Log | None = None) -> Dataset:
    """Load a dataset by its name, from an `.npz` file or from a folder.

    Parameters
    ----------
    name : "fashion-mnist", "digits", or a path ending in `.npz` with the arrays
        `X` (n, h, w) or (n, h, w, c) uint8, `y` (n,) integers 0 … k-1 with every class present,
        and optionally `n_train` (an integer) and `class_names` (k strings). Files laid out as those
        of Keras (`x_train`, `y_train`, `x_test`, `y_test`) and MedMNIST (`train_images`,
        `train_labels`, ...) are taken too; validation images count as training images. Or the path
        of a folder, with a folder of images for each class (below ``train`` and ``test`` where both
        are there), or with four IDX files. Each part of these images is put in the order of a hash
        of their pixels, which tells nothing of their classes.
    log : told what is being tried, and warnings about a user's images; the logger
        `bench.data.datasets` when not given.

    Raises
    ------
    BenchError
        The name is unknown, the file cannot be used, or the dataset cannot be had.

    Sources: Xiao, Rasul and Vollgraf (2017), "Fashion-MNIST", arXiv:1708.07747;
    `sklearn.datasets.load_digits`.
    """
    if (path := own_path(name)) is not None:
        return _load_own(path, log or _LOGGER.warning)
    if name == "digits":
        return _load_digits()
    if name == FASHION_MNIST.name:
        return _prepare(FASHION_MNIST, log or _LOGGER.info)[0]
    near = difflib.get_close_matches(name.lower(), [FASHION_MNIST.name, "digits"], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if ADDRESS.match(name):
        hint = " Addresses are not fetched: download it, and give the path."
    elif Path(name).is_file():
        hint = f" That is a file, but none that is read. {npz.CURE}"
    raise BenchError(
        f"There is no dataset {name!r}.{hint} Expected {FASHION_MNIST.name!r}, 'digits', or "
        "the path of a file that ends in .npz or of a folder of images."
    )


def fetch(source: IdxSource = FASHION_MNIST, *, log: Log | None = None) -> Fetched:
    """Find or download Fashion-MNIST, verify it, and keep an uncompressed copy in the cache.

    Looked for in this order: `$BENCH_DATA` (nothing else when it is set), the cache, the folder
    of the Debian package, the project's own address, the Debian package by `apt-get download`
    (no root needed, the system stays as it is).

    Raises
    ------
    BenchError
        `$BENCH_DATA` lacks the files or holds others; no way led to them (each is listed with
        its reason); or the cache cannot be written.
    """
    dataset, origin = _prepare(source, log or _LOGGER.info)
    return Fetched(source.name, origin, _home(source), dict(source.sha256), dataset.digest)


# The uncompressed copy in the cache


def _home(source: IdxSource) -> Path:
    return cache_dir() / "datasets" / source.name


def _prepare(source: IdxSource, say: Log) -> tuple[Dataset, str]:
    """The dataset, read from its verified copy, and where it came from."""
    home = _home(source)
    found = named_folder(source)  # read even when there is a copy: what is named must be right
    dataset = _open_copy(source, home, say)
    if dataset is not None:
        return dataset, found[1] if found else f"the verified copy in {home}"
    if found is None:
        with _workplace(home) as work:
            found = search(source, work, say)
    (X, y), origin = found
    say(f"{source.name}: verified, from {origin}; writing an uncompressed copy to {home}")
    _write_copy(home, X, y)
    dataset = _open_copy(source, home, say)
    if dataset is None:
        raise BenchError(
            f"The copy of {source.name} in {home} does not read back as it was written: "
            "check that disk, or set BENCH_CACHE to a folder on another one."
        )
    return dataset, origin


def _open_copy(source: IdxSource, home: Path, say: Log) -> Dataset | None:
    """The cached copy, or None where there is none or its content is wrong."""
    if not ((home / "X.npy").exists() and (home / "y.npy").exists()):
        return None
    try:
        X = np.load(home / "X.npy", mmap_mode="r", allow_pickle=False)
        y = np.array(np.load(home / "y.npy", mmap_mode="r", allow_pickle=False))
        damage = "" if _digest(X, y, source.n_train) == source.digest else "its SHA-256 is wrong"
    except Exception as error:  # a damaged header makes numpy's parser fail in many ways
        damage = str(error) or type(error).__name__
    if damage:
        say(f"{source.name}: the cached copy in {home} is damaged ({damage}); building it again")
        return None
    y.setflags(write=False)
    return Dataset(source.name, X, y, source.n_train, source.class_names, source.digest)


def _write_copy(home: Path, X: np.ndarray, y: np.ndarray) -> None:
    """Write X.npy and y.npy, each whole or not at all.

    Two processes may do this at once: both write the same content, and a reader that has
    already mapped the older file keeps it.
    """
    with said_if_unwritable(home, CACHE_CURE):
        for name, array in (("X.npy", X), ("y.npy", y)):
            with written_whole(home / name) as file:
                np.save(file, array, allow_pickle=False)


@contextmanager
def _workplace(home: Path) -> Iterator[Path]:
    """A temporary folder on the same disk as `home`, gone afterwards.

    A killed process leaves its folder behind, where nothing ever reads it.
    """
    with said_if_unwritable(home, CACHE_CURE):
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=home) as work:
            yield Path(work)


def _digest(X: np.ndarray, y: np.ndarray, n_train: int) -> str:
    digest = hashlib.sha256()
    for array in (X, y.astype("<i8", copy=False)):  # little-endian on every machine
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(str(n_train).encode())
    return digest.hexdigest()


# digits, and a user's own images


def _load_digits() -> Dataset:
    """The 1,797 images of 8×8 pixels that come with scikit-learn; the last 500 are the test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    X = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # published as 0 … 16
    return _dataset("digits", X, bunch.target, len(X) - 500, tuple("0123456789"))


def _dataset(
    name: str, X: np.ndarray, y: np.ndarray, n_train: int, class_names: tuple[str, ...]
) -> Dataset:
    X, y = np.ascontiguousarray(X), y.astype(np.int64)
    X.setflags(write=False)
    y.setflags(write=False)
    return Dataset(name, X, y, n_train, class_names, _digest(X, y, n_train))


def own_path(name: str) -> Path | None:
    """The file or folder of a user's own images that `name` is; None for another name."""
    if name in ("", "digits", FASHION_MNIST.name) or ADDRESS.match(name):
        return None
    try:
        path = Path(name).expanduser()
        return path if path.is_dir() or name.endswith(".npz") else None
    except (OSError, RuntimeError) as error:  # a name too long, a user that there is not
        raise BenchError(f"{name[:80]!r} cannot be a path: {error}") from error


def as_file(path: Path) -> Path:
    """A user's own images as one `.npz` file: `path` itself, or of a folder a copy in the cache.

    `load` gives the same dataset for the copy as for the folder, name and digest included.

    Raises
    ------
    BenchError
        The folder cannot be used, or the cache cannot be written.
    """
    if not path.is_dir():
        return path
    data = load(str(path), log=_LOGGER.debug)  # its warnings were said when the run began
    copy = cache_dir() / "datasets" / "whole" / data.digest[:24] / f"{path.resolve().name}.npz"
    if not copy.exists():
        arrays = {"X": data.X, "y": data.y, "n_train": data.n_train}
        names = np.array(data.class_names, dtype=str)
        with said_if_unwritable(copy.parent, CACHE_CURE), written_whole(copy) as file:
            np.savez(file, **arrays, class_names=names)  # type: ignore[arg-type]
    return copy


def _read_images(path: Path, say: Log) -> content.Own:
    """A folder of images, which are decoded once: every trial of a run loads them again."""
    copy = cache_dir() / "datasets" / f"folder-{folder.fingerprint(path)[:24]}.npz"
    if copy.exists():
        try:
            with np.load(copy, allow_pickle=False) as kept:
                fields = {name: kept[name] for name in ("X", "y", "n_train", "class_names")}
                warnings = tuple(kept["warnings"].tolist())
                return content.Own(path, **fields, warnings=warnings, parts_cure=folder.CURE)
        except Exception as error:  # zip, zlib and numpy's headers each fail in their own ways
            say(f"the copy {copy} of {path} is damaged ({error}); reading the images again")
    own = folder.read(path)
    arrays = {"X": own.X, "y": own.y, "n_train": own.n_train, "class_names": own.class_names}
    with said_if_unwritable(copy.parent, CACHE_CURE), written_whole(copy) as file:
        np.savez(file, **arrays, warnings=np.array(own.warnings, dtype=str))  # type: ignore[arg-type]
    return own


def _load_own(path: Path, say: Log) -> Dataset:
    """A user's own images; see `load` for the layouts.

    Results are filed under the dataset's name, and two files of one name may hold different
    images: the digest makes it unique.
    """
    from bench.core.trial import check_name

    if not path.is_dir():
        own = npz.read(path)
    elif idx.is_folder(path):
        own = idx.read_folder(path)
    else:
        own = _read_images(path, say)
    n_train, names = content.checked(own)
    for remark in content.remarks(own):
        say(f"warning: {remark}")
    order = _order_without_classes(own.X, n_train)
    data = _dataset("", own.X[order], own.y[order], n_train, names)
    stem = path.resolve().name if path.is_dir() else path.stem
    name = f"{stem}-{data.digest[:8]}"
    check_name("dataset", name)
    return replace(data, name=name)


def _order_without_classes(X: np.ndarray, n_train: int) -> list[int]:
    """Each part's indices in the order of the SHA-256 of its images; equal images as they came.

    Folders are read class by class, and many files are sorted so: a method that sees where an image
    stands, or takes its batches in that order, would see more of the classes than its labels.
    """
    keys = [hashlib.sha256(image.tobytes()).digest() for image in X]
    parts = range(n_train), range(n_train, len(X))
    return [i for part in parts for i in sorted(part, key=keys.__getitem__)]
