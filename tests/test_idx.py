"""Fashion-MNIST's files: which are found, in which order, and what is refused.

A tiny dataset stands in for Fashion-MNIST. No test leaves this machine: downloads come from a
server on the loopback address.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from idx_files import (
    LABELS,
    NAMES,
    TEST,
    TRAIN,
    Server,
    Tiny,
    apt_programs,
    assert_nothing_half_written,
    idx_bytes,
    program,
)

from bench.core.errors import BenchError
from bench.data import datasets
from bench.data import fashion_mnist as idx
from bench.data.datasets import cache_dir, fetch, load


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, none of the user's settings, and no program on PATH."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    for name in ("BENCH_DATA", "BENCH_DATA_URL", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The tiny dataset in the place of Fashion-MNIST, in no folder yet."""
    tiny = Tiny(tmp_path)
    monkeypatch.setattr(datasets, "FASHION_MNIST", tiny.source)
    return tiny


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setenv("BENCH_DATA_URL", server.url)
    yield server
    server.hold.set()
    server.http.shutdown()
    server.http.server_close()


# Where it is looked for


def test_each_place_is_used_only_when_those_before_it_fail(
    tiny: Tiny, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = apt_programs(tmp_path, tiny)
    server.offer(tiny)
    tiny.write(tiny.source.system_folder)
    named = tiny.write(tmp_path / "named")

    def origin(cache: str) -> str:
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / cache))
        return fetch(tiny.source).origin

    monkeypatch.setenv("BENCH_DATA", str(named))
    assert origin("1") == f"BENCH_DATA={named}"
    assert origin("1") == f"BENCH_DATA={named}"  # though there is a copy now
    monkeypatch.delenv("BENCH_DATA")
    assert "the verified copy" in origin("1")
    assert "system folder" in origin("2")
    assert server.asked == []
    os.rename(tiny.source.system_folder, tmp_path / "gone")
    assert origin("3") == f"download from {server.url}"
    assert server.asked == [f"/data/{name}.gz" for name in NAMES]
    assert not calls.exists()
    server.files = {}
    assert origin("4") == "apt-get download dataset-tiny"


def test_a_damaged_system_folder_is_said_and_passed_over(tiny: Tiny, server: Server) -> None:
    server.offer(tiny)
    tiny.write(tiny.source.system_folder)
    (tiny.source.system_folder / f"{LABELS}.gz").write_bytes(b"rubbish")
    log: list[str] = []
    fetched = fetch(tiny.source, log=log.append)
    assert fetched.origin == f"download from {server.url}"
    assert any(f"{LABELS}.gz is not an IDX file" in line for line in log)


def test_when_every_way_fails_each_is_listed_with_its_reason(tiny: Tiny) -> None:
    with pytest.raises(BenchError) as caught:
        load("fashion-mnist")
    message = str(caught.value)
    assert f"there is no folder {tiny.source.system_folder}" in message
    assert "download from http://127.0.0.1:1/: train-labels-idx1-ubyte.gz: Failed" in message
    assert "Connection refused" in message
    assert "object at 0x" not in message
    assert "apt-get download dataset-tiny: this machine has no apt-get" in message
    assert "BENCH_DATA" in message
    assert all(name in message for name in NAMES)
    assert_nothing_half_written()


WRONG_FILES = {
    "truncated gzip": (LABELS, lambda c: gzip.compress(c)[:-9], "truncated or damaged gzip"),
    "damaged gzip": (LABELS, lambda c: gzip.compress(c)[:12] + b"\xff" * 40, "damaged gzip"),
    "a web page": (LABELS, lambda c: b"<html>not here</html>", "not an IDX file"),
    "empty": (NAMES[3], lambda c: b"", "starts with nothing"),
    "labels for images": (
        NAMES[2],
        lambda c: b"\0\0\x08\x01" + c[4:],
        "starts with 00 00 08 01, expected 00 00 08 03",
    ),
    "cut short": (NAMES[2], lambda c: c[:-1], "has 615 bytes when decompressed, expected 616"),
    "one bit": (NAMES[3], lambda c: c[:-1] + bytes([c[-1] ^ 1]), "other content than expected"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_file_is_refused_by_name_even_when_there_is_a_copy(
    tiny: Tiny, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    folder = tiny.write(tmp_path / "named")
    monkeypatch.setenv("BENCH_DATA", str(folder))
    load("fashion-mnist")
    server.offer(tiny)
    name, spoil, sentence = WRONG_FILES[case]
    (folder / f"{name}.gz").write_bytes(spoil(tiny.content[name]))
    with pytest.raises(BenchError) as caught:
        load("fashion-mnist")
    assert str(folder / f"{name}.gz") in str(caught.value)
    assert sentence in str(caught.value)
    assert "unset BENCH_DATA" in str(caught.value)
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "n", "start"),
    [
        ("train-labels-idx1-ubyte", TRAIN, [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]),
        ("t10k-labels-idx1-ubyte", TEST, [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]),
    ],
)
def test_plain_mnist_is_recognised(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, n: int, start: list[int]
) -> None:
    folder = tiny.write(tmp_path / "named")
    monkeypatch.setenv("BENCH_DATA", str(folder))
    mnist = idx_bytes(np.resize(np.array(start, np.uint8), n))
    (folder / f"{name}.gz").write_bytes(gzip.compress(mnist))
    with pytest.raises(BenchError, match=f"{name}.gz is plain MNIST .handwritten digits."):
        load("fashion-mnist")


def test_a_file_that_cannot_be_read_is_reported(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.write(tmp_path / "named")
    monkeypatch.setenv("BENCH_DATA", str(folder))
    (folder / f"{NAMES[2]}.gz").unlink()
    (folder / NAMES[2]).mkdir()
    with pytest.raises(BenchError, match=f"{NAMES[2]} cannot be read: Is a directory"):
        load("fashion-mnist")


def test_bench_data_without_folder_or_file_is_reported(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(tiny.source.system_folder)  # must not be fallen back to
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "named"))
    with pytest.raises(BenchError, match=r"BENCH_DATA=.*there is no folder"):
        load("fashion-mnist")
    (tiny.write(tmp_path / "named") / f"{NAMES[1]}.gz").unlink()
    with pytest.raises(BenchError, match=rf"there is no {NAMES[1]}.gz \(nor {NAMES[1]}\) in "):
        load("fashion-mnist")


# Downloads


def test_a_download_shows_its_progress_on_a_terminal(
    tiny: Tiny,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server.offer(tiny)
    fetch(tiny.source)
    assert capfd.readouterr().err == ""  # not a terminal: no bar in a log file
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("BENCH_CACHE", str(cache_dir() / "other"))
    monkeypatch.setenv("COLUMNS", "120")
    fetch(tiny.source)
    shown = capfd.readouterr().err
    assert all(f"{name}.gz" in shown for name in NAMES)
    assert "100%" in shown


@pytest.mark.parametrize("tell_length", [True, False])
def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(
    tiny: Tiny, server: Server, tell_length: bool
) -> None:
    server.offer(tiny)
    server.break_after, server.tell_length = 40, tell_length
    with pytest.raises(BenchError) as caught:
        load("fashion-mnist")
    sentence = "broke off in the middle" if tell_length else "truncated or damaged gzip"
    assert sentence in str(caught.value)
    assert_nothing_half_written()
    server.break_after = None
    np.testing.assert_array_equal(load("fashion-mnist").X, tiny.X)


def test_a_mirror_with_other_content_is_refused(tiny: Tiny, server: Server) -> None:
    server.offer(tiny)
    other = gzip.compress(idx_bytes(255 - tiny.X[:TRAIN]))
    server.files[f"/data/{NAMES[2]}.gz"] = other
    with pytest.raises(BenchError, match=f"{NAMES[2]}.gz has other content than expected"):
        load("fashion-mnist")
    assert_nothing_half_written()


@pytest.mark.parametrize(
    ("url", "reason"),
    [(None, "HTTP status 404"), ("nonsense", "Invalid URL 'nonsense/train-labels")],
)
def test_a_wrong_address_is_told_in_few_words(
    tiny: Tiny, server: Server, monkeypatch: pytest.MonkeyPatch, url: str | None, reason: str
) -> None:
    if url:
        monkeypatch.setenv("BENCH_DATA_URL", url)
    with pytest.raises(BenchError, match=f"train-labels-idx1-ubyte.gz: {reason}"):
        load("fashion-mnist")


def test_a_server_that_does_not_answer_is_given_up(
    tiny: Tiny, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx, "_READ_SECONDS", 0.2)
    server.offer(tiny)
    server.hold.clear()
    with pytest.raises(BenchError, match=r"train-labels-idx1-ubyte.gz: no answer within"):
        load("fashion-mnist")
    assert len(server.asked) == 1  # no second attempt, no other file


# The Debian package


def test_the_package_is_unpacked_without_touching_apts_own_folders(
    tiny: Tiny, tmp_path: Path
) -> None:
    calls = apt_programs(tmp_path, tiny, on_update=f"cp apt.conf '{tmp_path}/conf'")
    np.testing.assert_array_equal(load("fashion-mnist").X, tiny.X)
    assert "#clear APT::Update::Post-Invoke;" in (tmp_path / "conf").read_text()
    lines = calls.read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["update", "dataset-tiny"]
    work = lines[0].split()[0]
    assert work.startswith(str(cache_dir()))
    for line in lines:
        assert f"-oDir::State={work}/state" in line
        assert f"-oDir::Cache={work}/cache" in line
        assert "-c apt.conf" in line
    assert not Path(work).exists()


def test_a_failing_update_does_not_matter_when_the_download_works(
    tiny: Tiny, tmp_path: Path
) -> None:
    apt_programs(tmp_path, tiny, on_update="echo 'E: one source of many' >&2; exit 100")
    np.testing.assert_array_equal(load("fashion-mnist").X, tiny.X)


@pytest.mark.parametrize(
    ("on_update", "on_download", "reason"),
    [
        (
            "echo 'E: Could not resolve host' >&2; exit 100",
            "echo 'W: so' >&2; echo 'E: Unable to locate package' >&2; echo 'more' >&2; exit 100",
            "E: Could not resolve host; apt-get failed: E: Unable to locate package",
        ),
        (":", "exit 3", "dataset-tiny: apt-get failed: exit status 3"),
        (":", ":", "dpkg-deb failed"),
        (":", "echo rubbish > a.deb", "dpkg-deb failed"),
    ],
)
def test_why_the_package_cannot_be_had(
    tiny: Tiny, tmp_path: Path, on_update: str, on_download: str, reason: str
) -> None:
    apt_programs(tmp_path, tiny, on_update=on_update, on_download=on_download)
    with pytest.raises(BenchError) as caught:
        load("fashion-mnist")
    assert reason in str(caught.value)
    assert_nothing_half_written()


def test_programs_that_are_missing_broken_or_hang(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt_programs(tmp_path, tiny)
    (tmp_path / "bin" / "dpkg-deb").unlink()
    with pytest.raises(BenchError, match="this machine has no dpkg-deb"):
        load("fashion-mnist")
    program(tmp_path, "apt-get", "exec sleep 20")
    monkeypatch.setattr(idx, "_APT_SECONDS", 0.1)
    with pytest.raises(BenchError, match=r"apt-get was not done after 0.1 s"):
        load("fashion-mnist")
    (tmp_path / "bin" / "apt-get").write_bytes(b"\x7fELF, but not a program")
    with pytest.raises(BenchError, match="apt-get does not start"):
        load("fashion-mnist")
