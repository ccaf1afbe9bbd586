"""The real Fashion-MNIST: 70,000 images, from wherever this machine can have them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.data import datasets
from bench.data.datasets import FASHION_MNIST, Dataset, cache_dir, fetch, load

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Loaded once, into a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        first = load("fashion-mnist")
        again = load("fashion-mnist", log=lambda line: pytest.fail(f"not from the copy: {line}"))
        assert again.digest == first.digest
        return again


def test_there_are_70_000_images_7_000_of_each_class_training_part_first(data: Dataset) -> None:
    assert data.X.shape == (70_000, 28, 28)
    assert data.X.dtype == np.uint8
    assert data.y.shape == (70_000,)
    assert data.y.dtype == np.int64
    assert data.n_train == 60_000
    assert np.bincount(data.y).tolist() == [7_000] * 10
    assert np.bincount(data.y[: data.n_train]).tolist() == [6_000] * 10
    assert data.y[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]  # as published
    assert data.y[60_000:60_005].tolist() == [9, 2, 1, 1, 6]


def test_classes_have_their_published_names(data: Dataset) -> None:
    assert data.n_classes == 10
    assert data.class_names[0] == "T-shirt/top"
    assert data.class_names[9] == "Ankle boot"
    # Trousers leave the outer columns dark, which bags do not.
    border = data.X[:, :, :4].mean(axis=(1, 2))
    trousers, bags = (data.y == data.class_names.index(name) for name in ("Trouser", "Bag"))
    assert border[trousers].mean() < border[bags].mean()


def test_the_images_are_mapped_from_the_copy_and_read_only(data: Dataset) -> None:
    assert isinstance(data.X, np.memmap)
    assert data.X.mode == "r"
    with pytest.raises(ValueError, match="read-only"):
        data.X[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        data.y[0] = 1


@pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="needs apt-get and dpkg-deb"
)
def test_apt_brings_the_real_package_without_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "a folder"))  # with a space in its name
    monkeypatch.setenv("BENCH_DATA_URL", "http://127.0.0.1:1/")  # nothing listens there
    monkeypatch.delenv("BENCH_DATA", raising=False)
    source = replace(FASHION_MNIST, system_folder=tmp_path / "nowhere")
    log: list[str] = []
    fetched = fetch(source, log=log.append)
    assert fetched.origin == "apt-get download dataset-fashion-mnist", log
    assert fetched.digest == datasets.FASHION_MNIST.digest
    home = cache_dir() / "datasets" / "fashion-mnist"
    assert sorted(path.name for path in home.iterdir()) == ["X.npy", "y.npy"]
