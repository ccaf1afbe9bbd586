"""A tiny dataset in four IDX files, a server and an `apt-get` that offer it."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from bench.data.datasets import cache_dir
from bench.data.fashion_mnist import IdxSource

TRAIN, TEST, SHAPE = 30, 10, (4, 5)
NAMES = (
    "train-labels-idx1-ubyte",
    "t10k-labels-idx1-ubyte",
    "train-images-idx3-ubyte",
    "t10k-images-idx3-ubyte",
)
LABELS = NAMES[0]


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of a uint8 array, written as the format's description says."""
    sizes = b"".join(struct.pack(">I", size) for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def expected_digest(X: np.ndarray, y: np.ndarray, n_train: int) -> str:
    """The digest of a dataset, spelt out."""
    text = b"|u1" + str(X.shape).encode() + X.tobytes()
    text += b"<i8" + str(y.shape).encode() + y.astype("<i8").tobytes() + str(n_train).encode()
    return hashlib.sha256(text).hexdigest()


class Tiny:
    """The tiny dataset, its source, and a folder with its gzipped files."""

    def __init__(self, root: Path) -> None:
        rng = np.random.default_rng(0)
        self.X = rng.integers(0, 256, (TRAIN + TEST, *SHAPE), dtype=np.uint8)
        self.y = np.arange(TRAIN + TEST) % 3
        labels = self.y.astype(np.uint8)
        parts = (labels[:TRAIN], labels[TRAIN:], self.X[:TRAIN], self.X[TRAIN:])
        self.content = {name: idx_bytes(part) for name, part in zip(NAMES, parts, strict=True)}
        self.source = IdxSource(
            name="fashion-mnist",
            n_train=TRAIN,
            n_test=TEST,
            image_shape=SHAPE,
            sha256={n: hashlib.sha256(c).hexdigest() for n, c in self.content.items()},
            digest=expected_digest(self.X, self.y, TRAIN),
            class_names=("a", "b", "c"),
            url="http://127.0.0.1:1/",  # nothing listens there
            system_folder=root / "system",
            package="dataset-tiny",
            package_folder="usr/share/datasets/tiny",
        )

    def write(self, folder: Path, *, gzipped: bool = True) -> Path:
        folder.mkdir(parents=True)
        for name, content in self.content.items():
            data, ending = (gzip.compress(content), ".gz") if gzipped else (content, "")
            (folder / f"{name}{ending}").write_bytes(data)
        return folder


def assert_nothing_half_written() -> None:
    home = cache_dir() / "datasets" / "fashion-mnist"
    assert [path.name for path in home.glob("*")] == []


class Server:
    """Serves `files` (path -> bytes); what it does wrong is set by the test."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.break_after: int | None = None  # close the connection after so many bytes
        self.tell_length = True
        self.hold = threading.Event()  # set: answer; cleared: keep the client waiting
        self.hold.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                server.hold.wait(20)
                if self.path not in server.files:
                    self.send_error(404)
                    return
                content = server.files[self.path]
                self.send_response(200)
                if server.tell_length:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: server.break_after])

            def log_message(self, *args: object) -> None:
                """Keep the test's output clean."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def offer(self, tiny: Tiny) -> None:
        self.files = {f"/data/{n}.gz": gzip.compress(c) for n, c in tiny.content.items()}


# Programs that stand in for apt-get and dpkg-deb


def program(tmp_path: Path, name: str, body: str) -> None:
    path = tmp_path / "bin" / name
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
    path.chmod(0o755)


def apt_programs(
    tmp_path: Path, tiny: Tiny, *, on_update: str = ":", on_download: str = ""
) -> Path:
    """Fake `apt-get` and `dpkg-deb`; returns the file in which apt-get's arguments are kept."""
    tiny.write(tmp_path / "files")
    with tarfile.open(tmp_path / "tiny.tar", "w") as tar:
        tar.add(tmp_path / "files", tiny.source.package_folder)
    download = on_download or f"cp '{tmp_path}/tiny.tar' ./dataset-tiny_1_all.deb"
    program(
        tmp_path,
        "apt-get",
        f"""echo "$PWD $*" >> '{tmp_path}/calls'
case "$*" in
  *update) {on_update} ;;
  *"download dataset-tiny") {download} ;;
  *) echo "E: unexpected arguments" >&2; exit 100 ;;
esac""",
    )
    program(tmp_path, "dpkg-deb", 'mkdir -p "$3" && tar -xf "$2" -C "$3"')
    return tmp_path / "calls"
