"""Datasets: labelled images whose content is verified.

`load("fashion-mnist")` is the default dataset, `load("digits")` serves tests, and
`load("images.npz")` takes a user's own images. Environment variables:

BENCH_DATA      folder with the four Fashion-MNIST files; nothing else is tried when it is set
BENCH_DATA_URL  address of a mirror, used instead of the project's own
BENCH_CACHE     folder for what is kept between runs, instead of the user's cache folder
"""

from __future__ import annotations

import difflib
import gzip
import hashlib
import logging
import os
import shutil
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.errors import BenchError

Log = Callable[[str], None]
Arrays = tuple[np.ndarray, np.ndarray]

_LOGGER = logging.getLogger(__name__)
_CONNECT_SECONDS, _READ_SECONDS, _APT_SECONDS = 10, 30, 600


@dataclass(frozen=True, eq=False)  # == on arrays has no single truth value
class Dataset:
    """Images and their classes.

    name : "fashion-mnist", "digits", or the file name of an `.npz` without its ending.
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
class IdxSource:
    """A dataset published as four IDX files, as MNIST was, and where these can be had."""

    name: str
    n_train: int
    n_test: int
    image_shape: tuple[int, int]
    sha256: dict[str, str]  # file name (without .gz) -> SHA-256 of its decompressed content
    digest: str  # of the `Dataset` they make
    class_names: tuple[str, ...]
    url: str
    system_folder: Path
    package: str  # Debian package that installs the files in `system_folder`
    package_folder: str  # the same folder inside the package

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """File name -> shape. Labels first: they are small, and tell plain MNIST from others."""
        return {
            "train-labels-idx1-ubyte": (self.n_train,),
            "t10k-labels-idx1-ubyte": (self.n_test,),
            "train-images-idx3-ubyte": (self.n_train, *self.image_shape),
            "t10k-images-idx3-ubyte": (self.n_test, *self.image_shape),
        }


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


_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_CLASSES = "T-shirt/top|Trouser|Pullover|Dress|Coat|Sandal|Shirt|Sneaker|Bag|Ankle boot"
FASHION_MNIST = IdxSource(
    name="fashion-mnist",
    n_train=60_000,
    n_test=10_000,
    image_shape=(28, 28),
    sha256=_SHA256,
    digest="06798200b026eb3df4427fb8f4ba8ce337b0ea2cf1e55311954c0fd85387ca2c",
    class_names=tuple(_CLASSES.split("|")),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    system_folder=Path("/usr/share/datasets/fashion-mnist"),
    package="dataset-fashion-mnist",
    package_folder="usr/share/datasets/fashion-mnist",
)
_PLAIN_MNIST = {  # has the same file names; its label files begin like this
    "train-labels-idx1-ubyte": bytes([5, 0, 4, 1, 9, 2, 1, 3, 1, 4]),
    "t10k-labels-idx1-ubyte": bytes([7, 2, 1, 0, 4, 1, 4, 9, 5, 9]),
}


def cache_dir() -> Path:
    """Folder for what is kept between runs: `$BENCH_CACHE`, or below the user's cache folder."""
    if given := os.environ.get("BENCH_CACHE"):
        return Path(given).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("fewlabels"))


def load(name: str, *, log: Log | None = None) -> Dataset:
    """Load a dataset by its name, or from an `.npz` file.

    Parameters
    ----------
    name : "fashion-mnist", "digits", or a path ending in `.npz` with the arrays
        `X` (n, h, w) or (n, h, w, c) uint8, `y` (n,) integers 0 … k-1 with every class present,
        and optionally `n_train` (an integer) and `class_names` (k strings).
    log : told what is being tried; the logger `bench.datasets` when not given.

    Raises
    ------
    BenchError
        The name is unknown, the file cannot be used, or the dataset cannot be had.

    Sources: Xiao, Rasul and Vollgraf (2017), "Fashion-MNIST", arXiv:1708.07747;
    `sklearn.datasets.load_digits`.
    """
    if name.endswith(".npz"):
        return _load_npz(Path(name).expanduser())
    if name == "digits":
        return _load_digits()
    if name == FASHION_MNIST.name:
        return _prepare(FASHION_MNIST, log or _LOGGER.info)[0]
    near = difflib.get_close_matches(name.lower(), [FASHION_MNIST.name, "digits"], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise BenchError(
        f"There is no dataset {name!r}.{hint} Expected {FASHION_MNIST.name!r}, 'digits', "
        "or the path of a file that ends in .npz."
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
    found = _named_folder(source)  # read even when there is a copy: what is named must be right
    dataset = _open_copy(source, home, say)
    if dataset is not None:
        return dataset, found[1] if found else f"the verified copy in {home}"
    if found is None:
        with _workplace(home) as work:
            found = _search(source, work, say)
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
    with _workplace(home) as work:
        for name, array in (("X.npy", X), ("y.npy", y)):
            with open(work / name, "wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(work / name, home / name)


@contextmanager
def _workplace(home: Path) -> Iterator[Path]:
    """A temporary folder on the same disk as `home`, gone afterwards.

    A killed process leaves its folder behind, where nothing ever reads it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=home) as work:
            yield Path(work)
    except OSError as error:
        raise BenchError(
            f"Cannot write to the cache folder {home}: {error.strerror or error}. "
            "Make room there, or set BENCH_CACHE to a folder that can be written."
        ) from error


def _digest(X: np.ndarray, y: np.ndarray, n_train: int) -> str:
    digest = hashlib.sha256()
    for array in (X, y.astype("<i8", copy=False)):  # little-endian on every machine
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(str(n_train).encode())
    return digest.hexdigest()


# The four files: where they are looked for


def _named_folder(source: IdxSource) -> tuple[Arrays, str] | None:
    """The arrays from the folder that `$BENCH_DATA` names, and its name; None where unset."""
    if not (folder := os.environ.get("BENCH_DATA")):
        return None
    try:
        return _read_folder(source, Path(folder).expanduser()), f"BENCH_DATA={folder}"
    except BenchError as error:
        raise BenchError(
            f"BENCH_DATA={folder} cannot be used: {error}. Put the four files of {source.name} "
            "there, or unset BENCH_DATA to have them found or downloaded."
        ) from error


def _search(source: IdxSource, work: Path, say: Log) -> tuple[Arrays, str]:
    """The arrays by the first way that leads to them, and that way's name.

    `work` is an empty folder for what is downloaded.
    """
    url = os.environ.get("BENCH_DATA_URL") or source.url
    ways: dict[str, Callable[[Path], Path]] = {
        f"the system folder {source.system_folder}": lambda work: source.system_folder,
        f"download from {url}": partial(_download, source, url),
        f"apt-get download {source.package}": partial(_apt_download, source),
    }
    failures = ""
    for way, get in ways.items():
        say(f"{source.name}: trying {way}")
        try:
            return _read_folder(source, get(work)), way
        except BenchError as error:
            say(f"{source.name}: {error}")
            failures += f"  - {way}: {error}\n"
    raise BenchError(
        f"{source.name} was not found, and could not be fetched. Tried:\n{failures}"
        f"Put {', '.join(source.shapes)} (gzipped or not) in a folder and set BENCH_DATA to it, "
        "set BENCH_DATA_URL to a mirror that can be reached, or install the Debian package "
        f"{source.package}."
    )


def _download(source: IdxSource, url: str, work: Path) -> Path:
    """Download the four files into `work`. Their content is verified by the caller."""
    import pooch
    import requests
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for name in (f"{name}.gz" for name in source.shapes):
            get = pooch.HTTPDownloader(
                progressbar=_pooch_bar(progress, name),
                chunk_size=2**16,
                timeout=(_CONNECT_SECONDS, _READ_SECONDS),
            )
            try:
                get(f"{url.rstrip('/')}/{name}", str(work / name), None)
            except requests.RequestException as error:
                raise BenchError(f"{name}: {_in_few_words(error)}") from error
    return work


def _pooch_bar(progress: Any, name: str) -> SimpleNamespace:
    """A new bar of a rich `progress`, with the members that pooch asks of a progress bar."""
    task = progress.add_task(name, total=None)
    bar = SimpleNamespace(total=0)  # set by pooch; stays 0 where the server tells no size
    bar.update = lambda n: progress.update(task, advance=n, total=bar.total or None)
    bar.reset = lambda: progress.update(task, completed=0)
    bar.close = lambda: progress.stop_task(task)
    return bar


def _in_few_words(error: Exception) -> str:
    """Why a request failed, without the layers that requests and urllib3 wrap around it."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {_CONNECT_SECONDS} s ({_READ_SECONDS} s once connected)"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off in the middle of the file"
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", inner)).split("): ", 1)[-1]


def _apt_download(source: IdxSource, work: Path) -> Path:
    """Download the Debian package with apt and unpack it below `work`, without root.

    apt's lists and cache are redirected to `work`, so the system's own stay as they are.
    """
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    # Distributions hang clean-up commands on an update, which would touch the system's cache.
    hooks = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
    (work / "apt.conf").write_text("".join(f"#clear APT::Update::{hook};\n" for hook in hooks))
    options = [f"-oDir::State={work}/state", f"-oDir::Cache={work}/cache", "-c", "apt.conf"]
    options += ["-q", "-oAcquire::Retries=0", "-oAcquire::Languages=none"]
    options += [f"-oAcquire::{scheme}::Timeout={_CONNECT_SECONDS}" for scheme in ("http", "https")]
    # An update fails as a whole when one of many sources is out of reach, which need not be
    # the one that has the package: so the download decides.
    update_failure = _failure(work, "apt-get", *options, "update")
    download_failure = _failure(work, "apt-get", *options, "download", source.package)
    if download_failure:
        raise BenchError("; ".join(filter(None, (update_failure, download_failure))))
    packages = [path.name for path in work.glob("*.deb")]
    if failure := _failure(work, "dpkg-deb", "-x", *packages, "unpacked"):
        raise BenchError(failure)
    return work / "unpacked" / source.package_folder


def _failure(folder: Path, program: str, *arguments: str) -> str:
    """Run a program in `folder`: empty when it succeeds, else why it failed, in one line."""
    if (path := shutil.which(program)) is None:
        return f"this machine has no {program}"
    try:
        done = subprocess.run(
            [path, *arguments],
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_APT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"{program} was not done after {_APT_SECONDS} s"
    except OSError as error:
        return f"{program} does not start: {error.strerror}"
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("E:")] or lines
    return f"{program} failed: {told[-1] if told else f'exit status {done.returncode}'}"


# The four files: reading and verifying


def _read_folder(source: IdxSource, folder: Path) -> Arrays:
    """Images (n, h, w) uint8 and classes (n,) int64, training part first, all verified."""
    if not folder.is_dir():
        raise BenchError(f"there is no folder {folder}")
    parts = {
        name: _read_idx(folder / name, shape, source.sha256[name])
        for name, shape in source.shapes.items()
    }
    X = [parts["train-images-idx3-ubyte"], parts["t10k-images-idx3-ubyte"]]
    y = [parts["train-labels-idx1-ubyte"], parts["t10k-labels-idx1-ubyte"]]
    return np.concatenate(X), np.concatenate(y).astype(np.int64)


def _read_idx(path: Path, shape: tuple[int, ...], sha256: str) -> np.ndarray:
    """One IDX file, at `path` or gzipped beside it, as a uint8 array of `shape`.

    The SHA-256 is that of the decompressed content: the same bytes come in gzip files that
    differ (the Debian package's are not the publisher's).
    """
    if not path.exists():
        path = path.with_name(f"{path.name}.gz")
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise BenchError(f"there is no {path.name} (nor {path.stem}) in {path.parent}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BenchError(f"{path} is a truncated or damaged gzip file ({error})") from error
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror or error}") from error
    # Type code 8 (unsigned byte), number of dimensions, dimensions; then the values.
    header = struct.pack(f">I{len(shape)}I", 0x0800 + len(shape), *shape)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BenchError(f"{path} {_whats_wrong(path, header, int(np.prod(shape)), content)}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _whats_wrong(path: Path, header: bytes, n_values: int, content: bytes) -> str:
    """Why a file's SHA-256 is not the expected one."""
    start = content[:4].hex(" ") or "nothing"
    if content[:4] != header[:4]:
        return f"is not an IDX file: it starts with {start}, expected {header[:4].hex(' ')}"
    plain = _PLAIN_MNIST.get(path.name.removesuffix(".gz"))
    if plain and content[len(header) :].startswith(plain):
        return "is plain MNIST (handwritten digits), which has the same file names"
    if len(content) != len(header) + n_values:
        expected = len(header) + n_values
        return f"has {len(content):,} bytes when decompressed, expected {expected:,}"
    return f"has other content than expected (SHA-256 {hashlib.sha256(content).hexdigest()})"


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


def _load_npz(path: Path) -> Dataset:
    """A user's own images; see `load` for the arrays."""
    _require(
        path.stem not in (FASHION_MNIST.name, "digits"),
        f"{path} has the name of a built-in dataset, under which its results would be filed: "
        "rename the file.",
    )
    arrays = _read_npz(path)
    X, y = arrays["X"], arrays["y"]
    _check_images(path, X)
    _check_classes(path, y, len(X))
    n_classes = int(y.max()) + 1
    n_train = arrays.get("n_train", np.array(len(X)))
    _require(
        n_train.ndim == 0 and n_train.dtype.kind in "iu" and 1 <= int(n_train) <= len(X),
        f"{path}: n_train is {n_train.tolist()!r}; expected one integer from 1 to {len(X)}, "
        "the number of images, counted from the first, that are the training part.",
    )
    names = arrays.get("class_names", np.arange(n_classes).astype(str))
    _require(
        names.dtype.kind == "U" and names.shape == (n_classes,),
        f"{path}: class_names holds {names.dtype} of shape {names.shape}; expected {n_classes} "
        "strings, one per class.",
    )
    return _dataset(path.stem, X, y, int(n_train), tuple(names.tolist()))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays that `load` knows, read without pickle; X and y are among them."""
    cure = "Write it with np.savez(path, X=images, y=classes)."
    _require(path.is_file(), f"There is no file {path}: check the path of the .npz file.")
    _require(zipfile.is_zipfile(path), f"{path} is damaged, or not an .npz file. {cure}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = archive.files
            known = [key for key in ("X", "y", "n_train", "class_names") if key in found]
            arrays = {key: archive[key] for key in known}
    except Exception as error:  # zip, zlib and numpy's headers each fail in their own ways
        raise BenchError(
            f"Cannot read {path}: {error}. Expected arrays of numbers or strings, not of Python "
            f"objects. {cure}"
        ) from error
    missing = " and no ".join(key for key in ("X", "y") if key not in arrays)
    _require(not missing, f"{path} has no {missing}, only {', '.join(found) or 'nothing'}. {cure}")
    return arrays


def _check_images(path: Path, X: np.ndarray) -> None:
    _require(
        X.dtype == np.uint8,
        f"{path}: X holds {X.dtype}; expected uint8 from 0 to 255. Convert it: values from 0 to 1 "
        "with (X * 255).round().astype(np.uint8), values from 0 to 255 with X.astype(np.uint8).",
    )
    _require(
        X.ndim in (3, 4),
        f"{path}: X has shape {X.shape}; expected (n, height, width) or (n, height, width, "
        "channels). Give the images their shape with X.reshape.",
    )
    _require(X.size > 0, f"{path}: X has shape {X.shape}, so it is empty; give it images.")


def _check_classes(path: Path, y: np.ndarray, n: int) -> None:
    _require(
        y.shape == (n,),
        f"{path}: y has shape {y.shape}; expected ({n},), one class for each image in X.",
    )
    cure = "Renumber them with np.unique(y, return_inverse=True)[1]."
    _require(y.dtype.kind in "iu", f"{path}: y holds {y.dtype}; expected integers. {cure}")
    present = np.unique(y).tolist()
    _require(
        len(present) > 1 and present == list(range(len(present))),
        f"{path}: y holds the classes {str(present[:10])[1:-1]}{', …' * (len(present) > 10)}; "
        f"expected 0 to k-1, all present, at least two, no image without a class. {cure}",
    )


def _require(fulfilled: bool, sentence: str) -> None:
    if not fulfilled:
        raise BenchError(sentence)
