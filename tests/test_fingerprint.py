"""Digests of code: what changes them, and what does not."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import fingerprint
from bench.errors import BenchError
from bench.fingerprint import code_digest
from methods import registry
from methods.toolkit import kmeans

PACKAGE = "fingerprint_example"
FILES = {
    "__init__.py": "",
    "model.py": '''"""A model."""

import fingerprint_example.deep.inner
import fingerprint_example.distances as far
from fingerprint_example import tables
from fingerprint_example.base import Base

from .start import first_centres as start

RATE = 0.1
STEPS, SIZE = 10, 20
TABLE = {}
TABLE["a"] = 1
QUICK = 3
if SIZE > 10:
    LIMIT = 7
else:
    LIMIT = 8


class Model(Base):
    """What it is."""

    schedules = {"quick": {"n": QUICK}}
    tags = "some"

    def fit(self, X):
        """Fit."""
        rate = RATE * SIZE
        tags = rate + LIMIT
        self.centres = start(X, TABLE)
        return far.nearest(X, self.centres) * tags + tables.WEIGHTS[0]

    def predict(self, X):
        return fingerprint_example.deep.inner.assign(X)


def unrelated(X):
    return X
''',
    "base.py": """class Base:
    def score(self, X):
        return 1

class Other:
    pass
""",
    "start.py": """from . import tables as known
from .deep import inner

def first_centres(X, table):
    return known.WEIGHTS, inner.seed_of(X)

def unrelated(X):
    return X
""",
    "distances.py": """def squared(a, b):
    return (a - b) ** 2

def nearest(X, centres):
    return squared(X, centres)

def farthest(X, centres):
    return -1
""",
    "tables.py": "WEIGHTS: list = [1, 2]\nUNUSED = 5\n",
    "deep/__init__.py": "",
    "deep/inner.py": """def assign(X):
    return X + 1

def seed_of(X):
    return 2

def unrelated(X):
    return X
""",
}
PLUGIN = '''"""A plugin in one file."""

from methods.method import Method
from methods.registry import register
from methods.toolkit import kmeans

FACTOR = 2


def twice(x):
    return FACTOR * x


@register("fingerprint-plugin")
class Plugin(Method):
    """Twice."""

    def __init__(self, n_clusters=2, random_state=None):
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(self, X, y=None, context=None):
        self.labels_ = kmeans.nearest(X, twice(1))
        return self
'''
Digest = Callable[..., str]


def forget() -> None:
    """Have the example and its source read again."""
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    fingerprint._read.cache_clear()
    fingerprint._path.cache_clear()
    importlib.invalidate_caches()


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Digest]:
    """``digest(file, old, new)``: of the example's Model after `old` in `file` became `new`."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions within one second
    monkeypatch.syspath_prepend(tmp_path)

    def of(file: str = "model.py", old: str = "", new: str = "") -> str:
        assert old in FILES[file]
        for path, text in FILES.items():
            place = tmp_path / PACKAGE / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text.replace(old, new) if path == file and old else text)
        forget()
        return code_digest(importlib.import_module(f"{PACKAGE}.model").Model)

    yield of
    forget()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("model.py", "return far", "return -far", id="the body of the class"),
        pytest.param("model.py", "tags = rate", "tags = -rate", id="a local variable named tags"),
        pytest.param("model.py", "RATE = 0.1", "RATE = 0.2", id="a constant"),
        pytest.param("model.py", "SIZE = 10, 20", "SIZE = 10, 21", id="one of two constants"),
        pytest.param("model.py", '["a"] = 1', '["a"] = 2', id="a constant filled later"),
        pytest.param("model.py", "LIMIT = 7", "LIMIT = 9", id="a constant in a branch"),
        pytest.param("model.py", "if SIZE > 10", "if SIZE > 11", id="the condition of the branch"),
        pytest.param("model.py", "Model(Base)", "Model", id="no base class"),
        pytest.param("base.py", "return 1", "return 2", id="the base class"),
        pytest.param("distances.py", "squared(X, c", "-squared(X, c", id="module as a name"),
        pytest.param("distances.py", "** 2", "** 3", id="what the helper calls"),
        pytest.param("tables.py", "[1, 2]", "[1, 3]", id="a constant of another module"),
        pytest.param("start.py", "known.WEIGHTS", "known.UNUSED", id="from-import, relative"),
        pytest.param("deep/inner.py", "X + 1", "X + 2", id="package.module.function"),
        pytest.param("deep/inner.py", "return 2", "return 3", id="from .package import module"),
    ],
)
def test_what_changes_the_digest(digest: Digest, file: str, old: str, new: str) -> None:
    assert digest() != digest(file, old, new)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("model.py", '"""What it is."""', '"""Or was."""', id="a docstring"),
        pytest.param("model.py", '"""A model."""', "", id="no docstring of the module"),
        pytest.param("model.py", '        """Fit."""\n', "", id="no docstring of a function"),
        pytest.param("model.py", "rate = RATE", "# why\n        rate = RATE", id="a comment"),
        pytest.param("model.py", "RATE * SIZE", "(RATE\n * SIZE)", id="formatting"),
        pytest.param("model.py", "RATE = 0.1", "RATE = 1e-1", id="a number written otherwise"),
        pytest.param("model.py", "fit(self, X)", "fit(self, X: far) -> start", id="annotations"),
        pytest.param("model.py", "RATE = 0.1", "RATE: float = 0.1", id="a constant's annotation"),
        pytest.param("model.py", '{"n": QUICK}', '{"n": 9}', id="schedules"),
        pytest.param("model.py", "QUICK = 3", "QUICK = 4", id="a constant of the schedules"),
        pytest.param("model.py", 'tags = "some"', 'tags = "other"', id="tags"),
        pytest.param("model.py", "    return X\n", "    return -X\n", id="an unrelated function"),
        pytest.param("base.py", "pass", "x = 1", id="an unrelated class"),
        pytest.param("distances.py", "return -1", "return -2", id="unrelated, module as a name"),
        pytest.param("deep/inner.py", "return X\n", "return -X\n", id="unrelated, deep"),
        pytest.param("start.py", "return X\n", "return -X\n", id="unrelated, relative"),
        pytest.param("tables.py", "UNUSED = 5", "UNUSED = 6", id="an unrelated constant"),
        pytest.param("tables.py", ": list", "", id="no annotation of a constant"),
    ],
)
def test_what_does_not(digest: Digest, file: str, old: str, new: str) -> None:
    assert digest() == digest(file, old, new)


def test_it_is_the_same_in_another_process(digest: Digest, tmp_path: Path) -> None:
    here = digest()
    code = (
        f"from bench.fingerprint import code_digest; from {PACKAGE}.model import Model; "
        "print(code_digest(Model))"
    )
    root = str(Path(fingerprint.__file__).parent.parent)
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONPATH": f"{root}:{tmp_path}", "PYTHONHASHSEED": seed}
        there = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert there.stdout.strip() == here


def test_a_package_of_an_installed_distribution(
    digest: Digest, entries: dict[str, registry.Entry], tmp_path: Path
) -> None:
    expected = digest()
    metadata = tmp_path / "fingerprint_example-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
    point = f"[{registry.ENTRY_POINT_GROUP}]\nfrom-afar = {PACKAGE}.model:Model\n"
    (metadata / "entry_points.txt").write_text(point)
    registry.discover()
    forget()
    assert code_digest(entries["from-afar"].cls) == expected


def plugin_digest(file: Path, text: str) -> str:
    """The digest of the method that a plugin file registers."""
    file.parent.mkdir()
    file.write_text(text)
    registry._entries.pop("fingerprint-plugin", None)
    assert [p for p in registry.discover([file]) if p.origin == str(file)] == []
    return code_digest(registry.get("fingerprint-plugin").cls)


def test_a_plugin_file(entries: dict[str, registry.Entry], tmp_path: Path) -> None:
    first = plugin_digest(tmp_path / "a" / "plugin.py", PLUGIN)
    moved = plugin_digest(tmp_path / "b" / "plugin.py", PLUGIN)
    assert first == moved, "where the file lies must not matter: records travel"
    for old, new in (("* x", "* x + 1"), ("FACTOR = 2", "FACTOR = 3"), ("twice(1)", "twice(2)")):
        assert old in PLUGIN
        assert plugin_digest(tmp_path / new / "plugin.py", PLUGIN.replace(old, new)) != first
    same = PLUGIN.replace('"""Twice."""', '"""Two times."""')
    assert plugin_digest(tmp_path / "c" / "plugin.py", same) == first


@pytest.mark.parametrize(("where", "stale"), [("nearest", True), ("kmeans", False)])
def test_a_plugin_follows_the_toolkit(
    entries: dict[str, registry.Entry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    stale: bool,
) -> None:
    """A change of the toolkit's function that the plugin uses counts, and of no other."""
    before = plugin_digest(tmp_path / "a" / "plugin.py", PLUGIN)
    source = Path(kmeans.__file__).read_text()
    head, definition, body = source.partition(f"\ndef {where}(")
    assert definition
    changed = tmp_path / "kmeans.py"
    changed.write_text(head + definition + body.replace("    return ", "    return 2 * ", 1))
    with monkeypatch.context() as patch:
        patch.setattr(kmeans, "__file__", str(changed))
        forget()
        after = code_digest(registry.get("fingerprint-plugin").cls)
    forget()
    assert (after != before) == stale


def test_what_no_file_defines_is_refused() -> None:
    """Its changes could not be noticed."""
    with pytest.raises(BenchError, match=r"Made cannot be found; expected a class or function"):
        code_digest(type("Made", (), {}))
