"""Images of the user's own: folders, IDX files, what is said of them, and `bench data FILE`."""

from __future__ import annotations

import gzip
import io
import os
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from idx_files import NAMES, Tiny, idx_bytes
from PIL import Image
from typer.testing import CliRunner, Result

import bench
from bench.cli import app, main
from bench.core import machine
from bench.core.errors import BenchError
from bench.data import folder
from bench.data.datasets import cache_dir, fetch, load

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 5, 4), dtype=np.uint8)
CLASSES = np.arange(12) % 3


@pytest.fixture(autouse=True)
def alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)


def saved(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "mine.npz", **{"X": IMAGES, "y": CLASSES} | arrays)
    return str(folder / "mine.npz")


def warnings_of(path: str) -> list[str]:
    said: list[str] = []
    load(path, log=said.append)
    return said


def images(folder: Path, names: str, n: int = 3, **how: Any) -> Path:
    """`n` images in each of the folders `names` below `folder`, all different."""
    rng = np.random.default_rng(1)
    for name in names.split():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 256, how.get("shape", (5, 4)), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


# --- What is said of images that can be used -----------------------------------------------------


@pytest.mark.parametrize("high", [1, 16, 127])
def test_pixels_that_do_not_use_their_range_are_said_with_the_cure(
    tmp_path: Path, high: int
) -> None:
    X = (IMAGES % (high + 1)).astype(np.uint8)
    (said,) = warnings_of(saved(tmp_path, X=X))
    assert f"the pixels run from 0 to {high}" in said
    cure = f"np.interp(X, (0, {high}), (0, 255)).round().astype(np.uint8)"
    assert cure in said
    stretched = eval(cure, {"np": np, "X": X})
    assert warnings_of(saved(tmp_path, X=stretched)) == []


def test_images_of_one_colour_are_said_with_the_cure(tmp_path: Path) -> None:
    X = np.stack([IMAGES, 255 - IMAGES, IMAGES], axis=-1)
    X[[2, 7]] = (9, 200, 3)
    (said,) = warnings_of(saved(tmp_path, X=X))
    assert "2 of 12 images are of one colour throughout (2, 7, counted from 0)" in said
    names = {"X": X, "y": CLASSES}
    exec(said[said.index("keep = ") :], names)
    assert warnings_of(saved(tmp_path, X=names["X"], y=names["y"])) == []


def test_a_run_and_a_log_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(tmp_path, X=IMAGES // 9)
    load(path)
    assert "the pixels run from 0 to 28" in caplog.text
    from rich.console import Console

    console = Console(file=io.StringIO(), width=300)
    wish = {"methods": "kmeans", "levels": "50%", "dataset": path, "dry_run": True}
    bench.run(console=console, results=tmp_path / "results", **wish)
    assert "the pixels run from 0 to 28" in console.file.getvalue()  # type: ignore[attr-defined]


# --- A file's sizes are looked at before memory is taken ------------------------------------------


def declared(path: Path, shape: str) -> str:
    """An archive whose images claim this shape, and have a few bytes."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    content = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(60)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X.npy", content)
        archive.writestr("y.npy", content)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("(10000000, 1000, 1000)", r"needs 9,313.2 GiB of memory, and this machine has [\d.]+;"),
        ("(10, 1000, 1000)", r"X of shape \(10, 1000, 1000\) has 10,000,000 bytes, its file 1"),
        ("(-3, 5, 4)", "Cannot read|is damaged"),
    ],
)
def test_a_size_that_the_file_does_not_bear_out(tmp_path: Path, shape: str, said: str) -> None:
    with pytest.raises(BenchError, match=said):
        load(declared(tmp_path / "a.npz", shape))


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("X.npy", b"plain text")
        archive.writestr("y.npy", b"plain text")
    with pytest.raises(BenchError, match=r"Cannot read .*a.npz: the magic string is not correct"):
        load(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000 + ".npz", "~nobody-there/x", "x" * 5000])
def test_a_name_that_cannot_be_a_path(name: str) -> None:
    with pytest.raises(BenchError, match=r"cannot be a path|There is no dataset"):
        load(name)


# --- A folder of images --------------------------------------------------------------------------


def test_a_folder_for_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = images(tmp_path / "pets", "dog cat")
    data = load(str(folder))
    assert data.X.shape == (6, 5, 4)
    assert data.class_names == ("cat", "dog")
    assert (np.bincount(data.y).tolist(), data.n_train) == ([3, 3], 6)
    with Image.open(folder / "dog" / "2.png") as image:
        (its_class,) = data.y[(np.asarray(image) == data.X).all((1, 2))]
    assert its_class == 1
    monkeypatch.chdir(folder)
    assert load(".").name == data.name == f"pets-{data.digest[:8]}"


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = images(tmp_path / "pets", "dog cat")
    (place / "notes.txt").write_text("x")
    said: list[str] = []
    first = load(str(place), log=said.append)
    with monkeypatch.context() as patched:
        patched.setattr(folder, "read", None)
        again = load(str(place), log=said.append)
    assert (again.digest, again.name, again.n_train) == (first.digest, first.name, first.n_train)
    assert again.class_names == first.class_names
    assert said[0] == said[1], "warnings too"
    (copy,) = (cache_dir() / "datasets").iterdir()
    copy.write_bytes(copy.read_bytes()[:99])
    assert load(str(place), log=said.append).digest == first.digest
    assert "is damaged" in said[2]
    Image.new("L", (4, 5), 9).save(place / "dog" / "2.png")
    assert load(str(place), log=said.append).digest != first.digest


def test_two_folders_whose_files_have_the_same_names_sizes_and_times(tmp_path: Path) -> None:
    """As archives with fixed times, or `cp -p`, make them; and a file that keeps its time."""
    places = [tmp_path / name / "pets" for name in ("first", "second")]
    for place in places:
        for name in ("cat", "dog"):
            (place / name).mkdir(parents=True)
            pixels = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / "0.bmp")
            os.utime(place / name / "0.bmp", (0, 0))
    first, second = (load(str(place)).digest for place in places)
    assert first != second
    Image.new("L", (8, 8), 9).save(places[0] / "dog" / "0.bmp")
    os.utime(places[0] / "dog" / "0.bmp", (0, 0))
    assert load(str(places[0])).digest not in (first, second)


def test_a_held_out_end_that_is_a_class_of_its_own_is_refused(tmp_path: Path) -> None:
    """The last twelfth of the training part may be all that there is of a rare class."""
    names = [f"{i:02}" for i in range(13)]
    place = images(tmp_path / "many", " ".join(f"train/{n} test/{n}" for n in names), n=1)
    with pytest.raises(BenchError, match=r"inductive-55k leaves no image to fit of (\d+) \(0?\1\)"):
        bench.run("kmeans", "20", dataset=str(place), protocol="inductive-55k")


def test_train_and_test_are_the_parts(tmp_path: Path) -> None:
    images(tmp_path, "train/a train/b val/a test/a test/b", 2)
    data = load(str(tmp_path))
    assert np.bincount(data.y[:6]).tolist() == [4, 2]
    assert np.bincount(data.y[6:]).tolist() == [2, 2]
    assert (data.n_train, data.class_names) == (6, ("a", "b"))


@pytest.mark.parametrize(
    ("names", "n_train"),
    [
        ("train/a train/b val/a val/b", 6),
        ("Train/a Train/b Test/a Test/b", 6),
        ("training/a training/b validation/a validation/b Testing/a Testing/b", 12),
    ],
)
def test_parts_by_their_other_names(tmp_path: Path, names: str, n_train: int) -> None:
    """As ImageNet has it, and as others write them: else every score would be of two classes."""
    data = load(str(images(tmp_path, names)))
    assert (data.n_train, data.class_names) == (n_train, ("a", "b"))


def test_train_alone_is_a_class(tmp_path: Path) -> None:
    assert load(str(images(tmp_path, "train validation"))).class_names == ("train", "validation")


def test_a_class_of_the_test_part_alone_is_named(tmp_path: Path) -> None:
    images(tmp_path, "train/a train/b test/c")
    with pytest.raises(BenchError, match=r"class 2 \(c\) has no image .*Move some .* into train/"):
        load(str(tmp_path))


def test_images_in_deeper_folders_belong_to_their_class(tmp_path: Path) -> None:
    data = load(str(images(tmp_path, "a/images b/images/more")))
    assert (len(data.X), data.class_names) == (6, ("a", "b"))


def test_one_image_in_colour_makes_all_of_them_so(tmp_path: Path) -> None:
    images(tmp_path, "a b")
    Image.fromarray(RNG.integers(0, 256, (5, 4, 3), dtype=np.uint8)).save(tmp_path / "a" / "x.bmp")
    data = load(str(tmp_path))
    assert data.X.shape == (7, 5, 4, 3)
    assert (data.X[0] == data.X[0][..., :1]).all()


def test_transparent_images_are_laid_on_white_and_said(tmp_path: Path) -> None:
    images(tmp_path, "a b", shape=(5, 4, 3))
    Image.new("RGBA", (4, 5), (9, 9, 9, 0)).save(tmp_path / "a" / "x.png")
    Image.new("RGBA", (4, 5), (9, 9, 9, 255)).save(tmp_path / "b" / "x.png")
    said: list[str] = []
    data = load(str(tmp_path), log=said.append)
    (on_white,) = np.flatnonzero((data.X == 255).all((1, 2, 3)))
    (opaque,) = np.flatnonzero((data.X == 9).all((1, 2, 3)))
    assert (data.y[on_white], data.y[opaque]) == (0, 1)
    assert "1 images are partly transparent and were laid on white" in said[0]


def test_other_files_are_left_out_and_said(tmp_path: Path) -> None:
    images(tmp_path, "a b")
    for name in ("notes.txt", "a/labels.csv", "a/.hidden", ".DS_Store"):
        (tmp_path / name).write_text("x")
    (said,) = warnings_of(str(tmp_path))
    assert "left out 2 files that are no images" in said
    assert "the first is notes.txt" in said


def two_frames(path: Path) -> None:
    frames = [Image.fromarray(IMAGES[i]) for i in range(2)]
    frames[0].save(path.with_suffix(".gif"), save_all=True, append_images=frames[1:])


WRONG_IMAGES = {
    "another size": (
        lambda path: Image.new("L", (5, 4)).save(path),
        r"x.png has 5 × 4 pixels, and .*0.png has 4 × 5; expected images of one size",
    ),
    "no image": (lambda path: path.write_text("x"), "x.png is damaged or no image"),
    "cut short": (
        lambda path: path.write_bytes((path.parent / "0.png").read_bytes()[:60]),
        "x.png (cannot be read|is damaged)",
    ),
    "two bytes": (
        lambda path: Image.fromarray(IMAGES[0].astype(np.uint16)).save(path),
        "x.png has more than 8 bits for a pixel",
    ),
    "a film": (two_frames, "x.gif has several frames"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "it is no regular file"),
    "a pipe": (os.mkfifo, "x.png cannot be read: it is no regular file"),
}


@pytest.mark.parametrize("case", WRONG_IMAGES)
def test_a_wrong_image_is_named(tmp_path: Path, case: str) -> None:
    spoil, said = WRONG_IMAGES[case]
    images(tmp_path, "a b")
    spoil(tmp_path / "b" / "x.png")
    with pytest.raises(BenchError, match=said) as caught:
        load(str(tmp_path))
    assert str(tmp_path / "b") in str(caught.value)


def test_images_that_do_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory_gib", lambda: 1e-8)
    with pytest.raises(BenchError, match="of memory, and this machine has"):
        load(str(images(tmp_path, "a b")))


def test_folders_that_hold_no_classes(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no images in folders; expected a folder for each"):
        load(str(tmp_path))
    images(tmp_path, "a")
    with pytest.raises(BenchError, match=r"has one class, the folder 'a'; .* name that folder"):
        load(str(tmp_path))
    (tmp_path / "b").mkdir()
    with pytest.raises(BenchError, match="the folder of class b holds no image"):
        load(str(tmp_path))


def test_what_lies_there_instead_of_images_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.heic").touch()
    (tmp_path / "y.JPG").touch()
    with pytest.raises(
        BenchError, match=r"no images in folders, only \.heic, \.jpg \(read are bmp"
    ):
        load(str(tmp_path))


def test_a_run_finds_the_folder_from_any_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.running import api

    monkeypatch.chdir(images(tmp_path / "pets", "dog cat").parent)
    assert api._source("pets") == str(tmp_path / "pets")
    assert api._source("digits") == "digits"


# --- Four IDX files ------------------------------------------------------------------------------

CALLED = {
    "as published": lambda name: f"{name}.gz",
    "with dots": lambda name: name.replace("-idx", ".idx"),
    "with dots, gzipped": lambda name: name.replace("-idx", ".idx") + ".gz",
    "with a prefix": lambda name: f"emnist-digits-{name.replace('t10k', 'test')}.gz",
}


def written(folder: Path, tiny: Tiny, called: str) -> Path:
    folder.mkdir()
    for name, content in tiny.content.items():
        path = folder / CALLED[called](name)
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return folder


@pytest.mark.parametrize("called", CALLED)
def test_idx_files_by_their_usual_names(tmp_path: Path, called: str) -> None:
    tiny = Tiny(tmp_path)
    data = load(str(written(tmp_path / "four", tiny, called)))
    given, found = (
        sorted((image.tobytes(), label) for image, label in zip(X, y, strict=True))
        for X, y in ((tiny.X, tiny.y), (data.X, data.y))
    )
    assert (found, data.n_train) == (given, 30)


@pytest.mark.parametrize("called", CALLED)
def test_bench_data_takes_them_by_those_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: str
) -> None:
    tiny = Tiny(tmp_path)
    monkeypatch.setenv("BENCH_DATA", str(written(tmp_path / "four", tiny, called)))
    assert fetch(tiny.source).digest == tiny.source.digest


TWO_BYTES = struct.pack(">4I", 0xB03, 10, 4, 5) + bytes(400)
WRONG_IDX = {
    "missing": (None, f"there is no {NAMES[3]}"),
    "no idx": (b"<html>", "is not an IDX file: it starts with 3c 68 74 6d, expected 00 00 08 03"),
    "labels": (idx_bytes(np.zeros(999, np.uint8)), "holds an array of 1 dimensions; expected 3"),
    "fewer": (idx_bytes(np.zeros((9, 4, 5), np.uint8)), "9 images and 10 labels are in the files"),
    "another size": (idx_bytes(np.zeros((10, 5, 5), np.uint8)), "expected one size"),
    "cut short": (struct.pack(">4I", 0x803, 10, 4, 5) + bytes(9), "holds 200 bytes, and has 9"),
    "too long": (struct.pack(">4I", 0x803, 10, 4, 5) + bytes(201), "200 bytes, and has more"),
    "huge": (struct.pack(">4I", 0x803, *[2**32 - 1] * 3), "needs .* GiB of memory"),
    "large": (struct.pack(">4I", 0x803, 2**16, 2**8, 1), "which its size rules out"),
    "two bytes": (TWO_BYTES, "X holds int16; expected uint8"),
    "damaged gzip": (b"\x1f\x8b\x08" + bytes(50), "truncated or damaged gzip"),
}


@pytest.mark.parametrize("case", WRONG_IDX)
def test_a_wrong_idx_file_is_one_sentence(tmp_path: Path, case: str) -> None:
    content, said = WRONG_IDX[case]
    folder = Tiny(tmp_path).write(tmp_path / "four", gzipped=False)
    (folder / NAMES[3]).unlink()
    if content is not None:
        (folder / NAMES[3]).write_bytes(content)
    with pytest.raises(BenchError, match=said):
        load(str(folder))


def test_two_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "four", Tiny(tmp_path), "with a prefix")
    (folder / f"other-{NAMES[0]}").write_bytes(b"")
    with pytest.raises(BenchError, match=r"has several files for train-labels.*give each a folder"):
        load(str(folder))


# --- bench data FILE -----------------------------------------------------------------------------


def data_of(path: Path | str) -> Result:
    return CliRunner().invoke(app, ["data", str(path)], env={"COLUMNS": "60", "TERM": "dumb"})


def test_the_command_shows_what_was_understood(tmp_path: Path) -> None:
    X = IMAGES // 9
    X[4] = 7
    done = data_of(saved(tmp_path, X=X, n_train=9, class_names=["ひらがな", "[b]x", "c"]))
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert [line.partition(": ")[0] for line in lines[:2]] == ["warning", "warning"]
    assert [line[9:] for line in lines[3:7]] == [
        "12 of 5×4 pixels, grey, uint8",
        "9 training, 3 test",
        "0 to 28",
        "3, of 4 to 4 images",
    ]
    rows = [line.replace("│", " ").split() for line in lines if line.startswith("│")]
    assert rows == [["0", "ひらがな", "3", "1"], ["1", "[b]x", "3", "1"], ["2", "c", "3", "1"]]


def test_of_many_classes_the_first_are_shown(tmp_path: Path) -> None:
    X = RNG.integers(0, 256, (2400, 3, 3, 3), dtype=np.uint8)
    done = data_of(saved(tmp_path, X=X, y=np.arange(2400) % 1200))
    assert "the first 20 of 1,200 classes" in done.output
    assert "2,400 of 3×3 pixels, 3 channels, uint8" in done.output
    assert "no test part" in done.output
    assert done.output.count("\n│") == 20


def test_what_cannot_be_used_ends_the_command_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "data", saved(tmp_path, y=CLASSES - 1)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "y holds -1 for 4 images" in said.err
    assert said.err.count("\n") == 1
