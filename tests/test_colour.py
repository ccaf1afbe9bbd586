"""Colour images: every method takes them, and CIFAR-10's own files become a dataset."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contexts import Recording

import bench
from bench.core import splits
from bench.data import datasets
from bench.records.store import Store
from methods import registry

PROBLEMS = registry.discover()
N, K, LABELS = 120, 4, 24

METHODS = (Path(__file__).parents[1] / "methods" / "README.md").read_text()
RECIPE = METHODS.split("<!-- cifar-10 -->\n```python\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """120 noisy images of 32×32×3: four kinds of 8×8 coloured tiles, the classes."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(N) % K)
    tiles = rng.integers(0, 256, size=(K, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    noise = rng.integers(-40, 41, size=(N, 32, 32, 3))
    return np.clip(tiles[y] + noise, 0, 255).astype(np.uint8), y


def test_every_plugin_imports() -> None:
    assert PROBLEMS == []


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    """Those that the methods share: the autoencoder is trained once for all of them."""
    return {}


# With labels, unless these are ignored; without, what then is a method of its own.
CASES = [(name, LABELS if registry.get(name).tags.uses_labels else 0) for name in registry.names()]
CASES += [
    (name, 0)
    for name, tags in ((name, registry.get(name).tags) for name in registry.names())
    if tags.uses_labels and not tags.needs_labels and tags.without_labels is None
]


@pytest.mark.parametrize(("name", "n_labels"), CASES)
def test_every_method_takes_colour_images(
    images: tuple[np.ndarray, np.ndarray], stages: dict[str, Any], name: str, n_labels: int
) -> None:
    X, truth = images
    entry = registry.get(name)
    labelled = splits.labelled_indices(truth, n_labels, "stratified", 0) if n_labels else []
    y = splits.reveal(truth, np.array(labelled, dtype=np.int64))
    method = entry.build("smoke", n_clusters=K, random_state=0)
    method.fit(X, y, Recording(stages=stages))
    assert method.labels_.shape == (N,)
    assert method.labels_.dtype.kind in "iu"
    assert 0 <= method.labels_.min() <= method.labels_.max() < K
    if entry.tags.inductive:
        assert set(method.predict(X[:5]).tolist()) <= set(range(K))


def test_a_run_on_a_file_of_colour_images(
    images: tuple[np.ndarray, np.ndarray], cache: Path, tmp_path: Path
) -> None:
    """Label-free and with more clusters than classes, in the processes of a real run."""
    source, results = tmp_path / "tiles.npz", tmp_path / "results"
    np.savez(source, X=images[0], y=images[1])
    wishes = {"dataset": str(source), "schedule": "smoke", "results": results}
    changes = {"kmeans": {"n_clusters": 2 * K}}
    summary = bench.run(methods=["kmeans"], changes=changes, levels=["0%", "20%"], **wishes)
    assert summary.exit_status == 0, list(Store(results))
    free, named = sorted(Store(results), key=lambda record: record["n_labels"])
    assert free["trial"]["dataset"] == datasets.load(str(source)).name
    assert free["headline"] is None
    assert free["subsets"]["all"]["purity"] > 0.9
    assert len(named["cluster_names"]) == 2 * K
    assert named["headline"] > 0.9


# --- CIFAR-10 ------------------------------------------------------------------------------------


def batches(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Six tiny batch files with the keys, types and order of CIFAR-10's; all images and classes."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, size=(60, 32, 32, 3), dtype=np.uint8)
    y = np.arange(60) % 10
    folder.mkdir()
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name, rows in zip(names, np.arange(60).reshape(6, 10), strict=True):
        data = X[rows].transpose(0, 3, 1, 2).reshape(10, 3072)  # all red values, green, blue
        batch = {b"batch_label": name.encode(), b"labels": y[rows].tolist(), b"data": data}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"num_vis": 3072}, protocol=2))
    (folder / "readme.html").write_text("")
    return X, y


def test_the_recipe_makes_a_dataset_of_cifar_10s_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    X, y = batches(tmp_path / "cifar-10-batches-py")
    assert RECIPE.count("n_train=50_000") == 1
    exec(RECIPE.replace("50_000", "50"), {})
    data = datasets.load("cifar-10.npz")
    for part in (slice(50), slice(50, None)):
        given, found = (
            sorted((image.tobytes(), label) for image, label in zip(X[part], y[part], strict=True))
            for X, y in ((X, y), (data.X, data.y))
        )
        assert found == given
    assert (data.X.dtype, data.n_train, data.n_classes) == (np.uint8, 50, 10)
    assert data.name == f"cifar-10-{data.digest[:8]}"
