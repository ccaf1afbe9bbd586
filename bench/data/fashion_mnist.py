"""Fashion-MNIST's four IDX files: where they are looked for, and how they are verified.

Every byte is verified, whatever its origin. `bench.data.datasets` keeps the uncompressed copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.core.errors import BenchError
from bench.data import idx

Log = Callable[[str], None]
Arrays = tuple[np.ndarray, np.ndarray]
_CONNECT_SECONDS, _READ_SECONDS, _APT_SECONDS = 10, 30, 600


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


# The four files: where they are looked for


def named_folder(source: IdxSource) -> tuple[Arrays, str] | None:
    """The arrays from the folder that `$BENCH_DATA` names, and its name; None where unset."""
    if not (folder := os.environ.get("BENCH_DATA")):
        return None
    try:
        return _read_folder(source, Path(folder).expanduser()), f"BENCH_DATA={folder}"
    except (BenchError, RuntimeError) as error:  # also a user that there is not
        raise BenchError(
            f"BENCH_DATA={folder} cannot be used: {error}. Put the four files of {source.name} "
            "there, or unset BENCH_DATA to have them found or downloaded."
        ) from error


def search(source: IdxSource, work: Path, say: Log) -> tuple[Arrays, str]:
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
        name: _read_idx(idx.find(folder, name), name, shape, source.sha256[name])
        for name, shape in source.shapes.items()
    }
    X = [parts["train-images-idx3-ubyte"], parts["t10k-images-idx3-ubyte"]]
    y = [parts["train-labels-idx1-ubyte"], parts["t10k-labels-idx1-ubyte"]]
    return np.concatenate(X), np.concatenate(y).astype(np.int64)


def _read_idx(path: Path, name: str, shape: tuple[int, ...], sha256: str) -> np.ndarray:
    """One IDX file, gzipped or not, usually called `name`, as a uint8 array of `shape`.

    The SHA-256 is that of the decompressed content: the same bytes come in gzip files that
    differ (the Debian package's are not the publisher's).
    """
    # Type code 8 (unsigned byte), number of dimensions, dimensions; then the values.
    header = struct.pack(f">I{len(shape)}I", 0x0800 + len(shape), *shape)
    n_values = int(np.prod(shape))
    with idx.opened(path) as file:
        content = file.read(len(header) + n_values + 1)  # one more than there should be
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BenchError(f"{path} {_whats_wrong(name, header, n_values, content)}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _whats_wrong(name: str, header: bytes, n_values: int, content: bytes) -> str:
    """Why a file's SHA-256 is not the expected one."""
    start = content[:4].hex(" ") or "nothing"
    if content[:4] != header[:4]:
        return f"is not an IDX file: it starts with {start}, expected {header[:4].hex(' ')}"
    plain = _PLAIN_MNIST.get(name)
    if plain and content[len(header) :].startswith(plain):
        return "is plain MNIST (handwritten digits), which has the same file names"
    expected = len(header) + n_values
    if len(content) != expected:
        size = f"{len(content):,}" if len(content) < expected else "more"
        return f"has {size} bytes when decompressed, expected {expected:,}"
    return f"has other content than expected (SHA-256 {hashlib.sha256(content).hexdigest()})"
