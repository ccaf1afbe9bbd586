"""Datasets: what is loaded, kept in the cache, and refused.

A tiny dataset stands in for Fashion-MNIST.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from idx_files import (
    NAMES,
    TRAIN,
    Tiny,
    assert_nothing_half_written,
    expected_digest,
)

from bench.core.errors import BenchError
from bench.data import datasets
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


# What is loaded


@pytest.mark.parametrize("gzipped", [True, False])
def test_the_four_files_become_one_dataset_with_the_training_part_first(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gzipped: bool
) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tiny.write(tmp_path / "named", gzipped=gzipped)))
    data = load("fashion-mnist")
    np.testing.assert_array_equal(data.X, tiny.X)
    np.testing.assert_array_equal(data.y, tiny.y)
    assert (data.X.dtype, data.y.dtype, data.n_train) == (np.uint8, np.int64, TRAIN)
    assert isinstance(data.X, np.memmap)
    assert not data.X.flags.writeable
    assert not data.y.flags.writeable
    assert data.n_classes == 3
    assert data.class_names == ("a", "b", "c")
    assert data.digest == expected_digest(tiny.X, tiny.y, TRAIN)


def test_fetch_reports_origin_folder_and_digests(tiny: Tiny, tmp_path: Path) -> None:
    tiny.write(tiny.source.system_folder)
    fetched = fetch(tiny.source)
    assert str(tiny.source.system_folder) in fetched.origin
    assert fetched.files == tiny.source.sha256
    assert fetched.digest == tiny.source.digest
    for shown in (fetched.origin, fetched.digest, fetched.folder, *fetched.files.values(), *NAMES):
        assert str(shown) in str(fetched)
    np.testing.assert_array_equal(np.load(fetched.folder / "X.npy"), tiny.X)
    np.testing.assert_array_equal(np.load(fetched.folder / "y.npy"), tiny.y)
    assert sorted(path.name for path in fetched.folder.iterdir()) == ["X.npy", "y.npy"]


def test_what_is_tried_goes_to_the_logger_by_default(
    tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.write(tiny.source.system_folder)
    with caplog.at_level("INFO", logger="bench.data.datasets"):
        load("fashion-mnist")
    assert f"trying the system folder {tiny.source.system_folder}" in caplog.text


# The cached copy


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a pixel": lambda home: flip(home / "X.npy", -1),
    "a label": lambda home: flip(home / "y.npy", -8),
    "cut short": lambda home: os.truncate(home / "X.npy", 300),
    "empty": lambda home: os.truncate(home / "y.npy", 0),
    "header": lambda home: (home / "X.npy").write_bytes(b"\x93NUMPY\x01\0\x02\0(["),
    "huge": lambda home: (home / "y.npy").write_bytes(
        (home / "y.npy").read_bytes().replace(b"(40,), ", b"(4" + b"0" * 17 + b",),")
    ),
    "other shape": lambda home: np.save(home / "X.npy", np.load(home / "X.npy").swapaxes(1, 2)),
    "pickled": lambda home: np.save(home / "y.npy", np.array([{}]), allow_pickle=True),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_copy_is_noticed_said_and_built_again(tiny: Tiny, case: str) -> None:
    tiny.write(tiny.source.system_folder)
    home = fetch(tiny.source).folder
    DAMAGE[case](home)
    log: list[str] = []
    data = load("fashion-mnist", log=log.append)
    assert any(f"the cached copy in {home} is damaged" in line for line in log)
    np.testing.assert_array_equal(data.X, tiny.X)
    np.testing.assert_array_equal(data.y, tiny.y)
    log.clear()
    load("fashion-mnist", log=log.append)
    assert log == []


def test_a_copy_with_one_file_missing_is_built_again(tiny: Tiny) -> None:
    tiny.write(tiny.source.system_folder)
    (fetch(tiny.source).folder / "y.npy").unlink()
    np.testing.assert_array_equal(load("fashion-mnist").y, tiny.y)


def test_an_open_copy_survives_being_replaced(tiny: Tiny) -> None:
    tiny.write(tiny.source.system_folder)
    first = load("fashion-mnist")
    (cache_dir() / "datasets" / "fashion-mnist" / "y.npy").unlink()
    load("fashion-mnist")
    np.testing.assert_array_equal(first.X, tiny.X)


def test_a_disk_that_does_not_keep_what_is_written_is_reported(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(tiny.source.system_folder)
    save = np.save
    monkeypatch.setattr(np, "save", lambda file, array, **how: save(file, array ^ 1, **how))
    with pytest.raises(BenchError, match="does not read back as it was written"):
        load("fashion-mnist")


def test_a_full_disk_is_reported_and_leaves_nothing(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(tiny.source.system_folder)

    def full(*args: object, **how: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(BenchError, match=r"No space left on device.*BENCH_CACHE"):
        load("fashion-mnist")
    assert_nothing_half_written()


def test_a_cache_that_cannot_be_written_is_reported(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write(tiny.source.system_folder)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file"))
    said = r"cannot be written \(.*\); make room there, or set BENCH_CACHE"
    with pytest.raises(BenchError, match=said):
        load("fashion-mnist")


RACE = """
import os, pickle, sys, time
from pathlib import Path
from bench.data.datasets import fetch
source, base = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(40):
    os.environ["BENCH_CACHE"] = str(base / str(turn))
    print(fetch(source).digest)
"""


def test_two_processes_may_load_for_the_first_time_at_once(tiny: Tiny, tmp_path: Path) -> None:
    tiny.write(tiny.source.system_folder)
    (tmp_path / "source.pickle").write_bytes(pickle.dumps(tiny.source))
    command = [sys.executable, "-c", RACE, str(tmp_path / "source.pickle"), str(tmp_path / "race")]
    root = Path(datasets.__file__).parents[1]
    racers = [
        subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        out, err = racer.communicate(timeout=60)
        assert racer.returncode == 0, err
        assert out.split() == [tiny.source.digest] * 40
    left = {path.name for path in (tmp_path / "race").rglob("*") if path.is_file()}
    assert left == {"X.npy", "y.npy"}
    assert not list((tmp_path / "race").rglob(".part-*"))


# digits


def test_digits_are_scaled_to_bytes_with_500_test_images() -> None:
    from sklearn.datasets import load_digits

    data = load("digits")
    bunch = load_digits()
    scaled = [round(value * 255 / 16) for value in bunch.images.ravel().tolist()]
    assert data.X.shape == (1797, 8, 8)
    assert data.X.dtype == np.uint8
    assert data.X.ravel().tolist() == scaled
    np.testing.assert_array_equal(data.y, bunch.target)
    assert (data.n_train, data.n_classes, data.y.dtype) == (1297, 10, np.int64)
    assert set(data.y[: data.n_train]) == set(data.y[data.n_train :]) == set(range(10))
    assert not data.X.flags.writeable
    assert not data.y.flags.writeable
    assert data.digest == expected_digest(data.X, data.y, 1297) == load("digits").digest


# A user's own images

IMAGES = np.arange(6 * 2 * 3, dtype=np.uint8).reshape(6, 2, 3)
CLASSES = np.array([0, 1, 2, 0, 1, 2])


def by_hash(X: np.ndarray) -> list[int]:
    """The indices of images in the order in which a user's own are kept."""
    return sorted(range(len(X)), key=lambda i: hashlib.sha256(X[i].tobytes()).hexdigest())


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("X", [IMAGES, np.stack([IMAGES] * 3, axis=-1), np.asfortranarray(IMAGES)])
def test_an_npz_is_loaded(tmp_path: Path, X: np.ndarray, compressed: bool) -> None:
    write = np.savez_compressed if compressed else np.savez
    write(tmp_path / "shoes.npz", X=X, y=CLASSES.astype(np.uint8))
    data = load(str(tmp_path / "shoes.npz"))
    assert data.name == f"shoes-{data.digest[:8]}"
    assert (data.n_train, data.class_names) == (6, ("0", "1", "2"))
    order = by_hash(X)
    np.testing.assert_array_equal(data.X, X[order])
    np.testing.assert_array_equal(data.y, CLASSES[order])
    assert data.X.dtype == np.uint8
    assert data.y.dtype == np.int64
    assert not data.X.flags.writeable
    assert not data.y.flags.writeable
    assert data.digest == expected_digest(X[order], CLASSES[order], 6)


def test_where_an_image_stands_tells_nothing_of_its_class(tmp_path: Path) -> None:
    """A file sorted by class would give classes away, and batches of one class to train on."""
    X = np.random.default_rng(0).integers(0, 256, (900, 3, 2), dtype=np.uint8)
    y = np.concatenate([np.arange(600) // 60, np.arange(300) // 30])
    np.savez(tmp_path / "sorted.npz", X=X, y=y, n_train=600)
    data = load(str(tmp_path / "sorted.npz"))
    for part, of_each in ((data.y[:600], 60), (data.y[600:], 30)):
        assert np.bincount(part).tolist() == [of_each] * 10, "each part for itself"
        assert (part[1:] == part[:-1]).mean() < 0.2, "a tenth by chance"
    classes = {image.tobytes(): label for image, label in zip(X, y, strict=True)}
    assert [classes[image.tobytes()] for image in data.X] == data.y.tolist()
    shuffled = np.r_[np.arange(600)[::-1], 600:900]
    np.savez(tmp_path / "otherwise.npz", X=X[shuffled], y=y[shuffled], n_train=600)
    assert load(str(tmp_path / "otherwise.npz")).digest == data.digest, "nor does the file's order"


def test_an_npz_may_name_its_training_part_and_its_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "a.npz", X=IMAGES, y=CLASSES, n_train=4, class_names=["x", "y", "z"])
    data = load("~/a.npz")
    assert data.n_train == 4
    assert data.class_names == ("x", "y", "z")
    assert data.n_classes == 3


def test_the_digest_tells_datasets_apart(tmp_path: Path) -> None:
    variants: tuple[dict[str, Any], ...] = (
        {"X": IMAGES, "y": CLASSES},
        {"X": IMAGES.reshape(6, 3, 2), "y": CLASSES},
        {"X": IMAGES ^ 1, "y": CLASSES},
        {"X": IMAGES, "y": CLASSES[::-1]},
        {"X": IMAGES, "y": CLASSES, "n_train": 5},
    )
    digests = set()
    for i, arrays in enumerate(variants):
        np.savez(tmp_path / f"{i}.npz", **arrays)
        digests.add(load(str(tmp_path / f"{i}.npz")).digest)
    assert len(digests) == len(variants)


@pytest.mark.parametrize(
    ("names", "n_train"),
    [
        ("x_train y_train x_test y_test", 3),
        ("x_train y_train", 3),
        ("x_train y_train x_val y_val x_test y_test", 6),
        ("train_images train_labels test_images test_labels", 3),
        ("train_images train_labels val_images val_labels test_images test_labels", 6),
    ],
)
def test_layouts_of_keras_and_medmnist_are_taken(tmp_path: Path, names: str, n_train: int) -> None:
    arrays: dict[str, np.ndarray] = {}
    for i, name in enumerate(names.split()):
        column = name.endswith("labels")
        classes = CLASSES[:3, None] if column else CLASSES[:3]
        arrays[name] = classes if i % 2 else IMAGES[:3] + 10 * i
    np.savez(tmp_path / "theirs.npz", **arrays)
    data = load(str(tmp_path / "theirs.npz"))
    parts = len(arrays) // 2
    assert (len(data.X), data.n_train) == (3 * parts, n_train)
    expected = np.concatenate([IMAGES[:3] + 20 * i for i in range(parts)])
    order = by_hash(expected[:n_train]) + [n_train + i for i in by_hash(expected[n_train:])]
    np.testing.assert_array_equal(data.X, expected[order])
    assert data.y.tolist() == [i % 3 for i in order]


def test_half_a_part_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=IMAGES, y_train=CLASSES, x_test=IMAGES)
    with pytest.raises(
        BenchError, match=r"has x_test and no y_test; save it with both, or without"
    ):
        load(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("https://example.com/x.npz", "no dataset 'https.*Addresses are not fetched: download it"),
        ("x.npy", "no dataset 'x.npy'. That is a file, but none that is read. Write it with np.s"),
    ],
)
def test_what_is_no_dataset_has_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").touch()
    with pytest.raises(BenchError, match=said):
        load(name)


def test_parts_of_different_images_are_refused(tmp_path: Path) -> None:
    arrays = {"x_train": IMAGES, "y_train": CLASSES, "x_test": IMAGES[:, :1], "y_test": CLASSES}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BenchError, match=r"its parts cannot be put together .*must match exactly"):
        load(str(tmp_path / "a.npz"))


WRONG_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no y": ({"X": IMAGES}, "has no y, only X"),
    "neither": ({"x": IMAGES}, "has no X and no y, only x"),
    "float X": ({"X": IMAGES / 255}, r"X holds float64.*\(X \* 255\)"),
    "int64 X": ({"X": IMAGES.astype(int)}, r"X holds int64.*X.astype\(np.uint8\)"),
    "flat X": ({"X": IMAGES.reshape(6, 6)}, r"X has shape \(6, 6\).*X.reshape"),
    "X from -1 to 1": ({"X": IMAGES / 17.5 - 1}, r"Values from -1.0 to 1.0: .*np.interp\(X, \(-1"),
    "X of two bytes": ({"X": IMAGES * np.uint16(999)}, r"np.interp\(X, \(0, 34965\), \(0, 255\)\)"),
    "X of truth values": ({"X": IMAGES > 9}, r"X holds bool.*\(X \* 255.0\)"),
    "X with nan": ({"X": np.where(IMAGES > 9, np.nan, 1)}, "no finite numbers.*np.nan_to_num"),
    "squares in a row": ({"X": IMAGES[:, :, 1:].reshape(6, 4)}, r"X.reshape\(-1, 2, 2\)"),
    "no images": ({"X": IMAGES[:0], "y": CLASSES[:0]}, "so it is empty"),
    "object X": ({"X": np.array([None] * 6)}, r"X holds Python objects.*np.stack\(list\(X\)\)"),
    "y too short": ({"y": CLASSES[:5]}, r"y has shape \(5,\); expected \(6,\)"),
    "one-hot y": ({"y": np.eye(6)}, r"y has shape \(6, 6\); expected \(6,\).*y.argmax\(1\)"),
    "column y": ({"y": CLASSES[:, None]}, r"y has shape \(6, 1\).*Take y.ravel\(\)"),
    "several classes": ({"y": np.ones((6, 3))}, "Image 0 has not exactly one class"),
    "object y": (
        {"y": CLASSES.astype(object)},
        r"y holds Python objects.*np.unique\(y.astype\(str\), .*y.astype\(int\)",
    ),
    "bytes y": ({"y": CLASSES.astype("S")}, r"np.unique\(y.astype\(str\), return_inverse=True\)"),
    "nan y": ({"y": np.where(CLASSES, CLASSES, np.nan)}, r"y holds nan for 2 images.*~np.isnan"),
    "channels first": (
        {"X": np.arange(6 * 3 * 64).reshape(6, 3, 8, 8).astype(np.uint8)},
        r"is \(n, channels, height, width\).*np.moveaxis\(X, 1, 3\)",
    ),
    "one channel first": (
        {"X": np.arange(6 * 64).reshape(6, 1, 8, 8).astype(np.uint8)},
        r"is \(n, channels, height, width\).*Move them with X\[:, 0\]",
    ),
    "all the same": ({"X": np.full((6, 6, 1), 7, np.uint8)}, "all 6 images are the same"),
    "a class of the test part alone": (
        {"y": np.array([0, 1, 0, 1, 2, 2]), "n_train": 4},
        "class 2 has no image among the first 4",
    ),
    "a named class of the test part alone": (
        {"y": np.array([0, 1, 0, 1, 2, 2]), "n_train": 4, "class_names": ["a", "b", "c"]},
        r"class 2 \(c\) has no image among the first 4",
    ),
    "float y": ({"y": CLASSES / 1}, "y holds float64; expected integers"),
    "text y": (
        {"y": CLASSES.astype(str)},
        "y holds <U21; expected integers. Save class_names",
    ),
    "unlabelled y": ({"y": CLASSES - 1}, "y holds -1 for .* images.*leave them out with keep"),
    "gap in y": ({"y": CLASSES * 2}, "y holds the classes 0, 2, 4;"),
    "from 1": ({"y": CLASSES + 1}, "y holds the classes 1, 2, 3;.*Renumber"),
    "one class": ({"y": CLASSES * 0}, "y holds 0 alone; expected at least two classes"),
    "n_train 0": ({"n_train": 0}, "n_train is 0; expected one integer from 1 to 6"),
    "n_train 7": ({"n_train": 7}, "n_train is 7"),
    "n_train 0.5": ({"n_train": 0.5}, "n_train is 0.5"),
    "n_train list": ({"n_train": [1, 2]}, r"n_train is \[1, 2\]"),
    "two names": ({"class_names": ["a", "b"]}, "class_names holds <U1 of shape .2,.; expected 3"),
    "bytes as names": ({"class_names": [b"a", b"b", b"c"]}, "Take class_names.astype"),
    "a name twice": ({"class_names": ["a", "b", "a"]}, "class_names holds 'a' more than once"),
    "half a character": (
        {"class_names": ["a", "b", "\ud800"]},
        r"the name of class '.ud800' is no text in UTF-8; rename it",
    ),
    "object names": ({"class_names": np.array(["a", "b", None])}, "Save class_names.astype.str"),
    "name numbers": ({"class_names": [1, 2, 3]}, "class_names holds int64"),
}


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_a_wrong_npz_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    arrays, sentence = WRONG_ARRAYS[case]
    whole: dict[str, Any] = {} if case in ("no y", "neither") else {"X": IMAGES, "y": CLASSES}
    np.savez(tmp_path / "mine.npz", **{**whole, **arrays})
    with pytest.raises(BenchError, match=sentence) as caught:
        load(str(tmp_path / "mine.npz"))
    assert str(tmp_path / "mine.npz") in str(caught.value)


def test_many_wrong_classes_are_not_all_shown(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.zeros((99, 2, 2), np.uint8), y=np.arange(99) * 2)
    with pytest.raises(BenchError, match="0, 2, 4, 6, 8, 10, 12, 14, 16, 18, …; expected"):
        load(str(tmp_path / "a.npz"))


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with pytest.raises(BenchError, match=r"There is no file .*mine.npz"):
        load(str(path))
    path.write_bytes(b"not an archive")
    with pytest.raises(BenchError, match=r"mine.npz is damaged, or not an .npz file"):
        load(str(path))
    np.savez(path, X=IMAGES, y=CLASSES)
    flip(path, 200)  # inside an array: the archive's own checksum tells
    with pytest.raises(BenchError, match=r"mine.npz is damaged, or not an .npz file .Bad CRC"):
        load(str(path))


def test_the_name_of_an_npz_tells_its_content(tmp_path: Path) -> None:
    """Results are filed by it: two files of one name are two datasets, a copy is the same."""
    for folder, X in (("a", IMAGES), ("b", IMAGES ^ 1), ("c", IMAGES)):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "digits.npz", X=X, y=CLASSES)
    a, b, c = (load(str(tmp_path / folder / "digits.npz")).name for folder in "abc")
    assert a != b
    assert a == c
    for name in (a, b):
        assert len(name) == len("digits-01234567")
        assert name.startswith("digits-")


# Names, folders, imports


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("fashion_mnist", "fashion-mnist"),
        ("Fashion-MNIST", "fashion-mnist"),
        ("digit", "digits"),
    ],
)
def test_a_near_miss_is_suggested(name: str, near: str) -> None:
    with pytest.raises(BenchError, match=f"no dataset '{name}'. Did you mean '{near}'"):
        load(name)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(BenchError, match=r"'imagenet21k'. Expected 'fashion-mnist', 'digits', or"):
        load("imagenet21k")


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BENCH_CACHE", "~/mine")
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("BENCH_CACHE")
    assert "fewlabels" in cache_dir().parts
    assert cache_dir().is_absolute()


def test_importing_the_module_is_cheap() -> None:
    code = "import sys, bench.data.datasets; print(*sys.modules)"
    root = Path(datasets.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    dear = {"pooch", "requests", "sklearn", "rich", "torch", "pandas", "platformdirs", "scipy"}
    assert dear.isdisjoint(done.stdout.split())
