"""The store of shared stages: label-free work that several trials need, computed once per key.

A stage is a folder ``<root>/<function>/<key>/`` with one ``.npy`` file per array (no pickle, memory
mapped when read) and ``facts.json`` with its cost and history. It is written under another name and
renamed, so a folder that exists is whole. A lock file makes a second process wait for the first;
the operating system gives the lock back when its holder is killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import BenchError
from bench.core.files import write_text, written_whole
from bench.core.trial import canonical_digest
from methods.method import Arrays, stage_version

# What is kept with a stage or a fit; 3 brought the versions. It is part of every key, so that what
# an older format holds is computed anew, instead of being read as if it lacked nothing.
FORMAT = 3


class StageError(RuntimeError):
    """A stage failed; the message names it and says why."""


@dataclass(frozen=True)
class StageKey:
    """What a stage's result depends on: its name and version, parameters, data, seed, precision."""

    name: str
    version: int
    digest: str

    @classmethod
    def of(
        cls,
        function: Callable[..., Arrays],
        params: Mapping[str, Any],
        X_digest: str,
        seed: int,
        precision: str,
    ) -> StageKey:
        """The key of a stage function for these parameters, data, seed and precision.

        Raises
        ------
        BenchError : the function does not declare its version.
        """
        name, version = function.__name__, stage_version(function)
        if version is None:
            raise BenchError(
                f"the stage {name} of {function.__module__} does not declare its version; decorate "
                "the function with @stage(version=1) from methods.method"
            )
        parts = [FORMAT, name, version, dict(params), X_digest, seed, precision]
        return cls(name, version, canonical_digest(parts)[:24])

    @property
    def text(self) -> str:
        """Name and digest, for a path."""
        return f"{self.name}/{self.digest}"


@dataclass(frozen=True)
class Stage:
    """What a stage returned, and the facts kept with it (its cost, its history, ...)."""

    arrays: Arrays
    facts: dict[str, Any]


def are_current(stages: Iterable[Mapping[str, Any]]) -> bool:
    """Whether all these stages, each with its name and version, are of the versions of today.

    One that is not declared here (a plugin's) cannot be compared and counts as current.
    """
    return all(stage_version(s["name"]) in (None, s["version"]) for s in stages)


def array_digest(X: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and bytes."""
    digest = hashlib.sha256(f"{X.dtype.str}{X.shape}".encode())
    digest.update(np.ascontiguousarray(X).reshape(-1).view(np.uint8).data)  # no copy
    return digest.hexdigest()


ARRAYS = "arrays"  # names of a folder's arrays, in facts.json


class ArrayStore:
    """Folders of arrays below `root`, each whole or absent, with a lock for each."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def lock(self, name: str) -> Any:
        """A lock for folder `name`, held by one process at a time until released or killed."""
        from filelock import FileLock

        path = self.root / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def read(self, name: str) -> tuple[Arrays, dict[str, Any]] | None:
        """The arrays (memory-mapped) and facts of folder `name`, or None if it is not there.

        Nor is one that cannot be read, or has lost an array: that is said in the log.
        """
        folder = self.root / name
        if not folder.is_dir():
            return None
        try:
            facts = json.loads((folder / "facts.json").read_text())
            arrays = self.arrays(name)
            missing = {*facts.pop(ARRAYS, arrays)} - {*arrays}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            said = str(error)
        else:
            if not missing:
                return arrays, facts
            said = f"without {', '.join(sorted(missing))}"
        print(f"{folder} is damaged ({said}); it is made anew")
        return None

    def arrays(self, name: str) -> Arrays:
        """The arrays of folder `name`, memory-mapped."""
        files = sorted((self.root / name).glob("*.npy"))
        return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in files}

    def write(self, name: str, arrays: Mapping[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Write folder `name` whole, replacing an older one; the writer holds its lock.

        So the draft of another writer is that of one who was killed, and is deleted.

        Raises
        ------
        StageError : an array of Python objects, which would need pickle.
        """
        final = self.root / name
        final.parent.mkdir(parents=True, exist_ok=True)
        for left in final.parent.glob(f".{final.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
        try:
            for key, array in arrays.items():
                values = np.asarray(array)
                if values.dtype.hasobject:
                    raise StageError(f"array {key!r} of {name} holds objects; expected numbers")
                if Path(key).name != key:
                    raise StageError(f"array {key!r} of {name} needs a name that a file can have")
                with written_whole(draft / f"{key}.npy") as file:
                    np.save(file, values, allow_pickle=False)
            write_text(draft / "facts.json", json.dumps(facts | {ARRAYS: sorted(arrays)}))
            self.remove(name)
            os.replace(draft, final)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def has(self, name: str) -> bool:
        """Whether it is there, whole."""
        return (self.root / name).is_dir()

    def remove(self, name: str) -> None:
        """Delete folder `name`, if it is there: whole at once, whenever this process is killed."""
        folder = self.root / name
        if folder.exists():
            gone = tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)
            os.replace(folder, gone)  # an empty folder can be replaced
            shutil.rmtree(gone, ignore_errors=True)


class StageStore:
    """Computes each stage once, whoever asks for it first."""

    def __init__(self, root: Path) -> None:
        self.store = ArrayStore(root)

    def has(self, key: StageKey) -> bool:
        """Whether it is there, whole."""
        return self._found(key) is not None

    def get(self, key: StageKey, compute: Callable[[], tuple[Arrays, dict[str, Any]]]) -> Stage:
        """The stored stage, or the arrays and facts of ``compute()`` stored under `key`.

        A second process waits for the first. The arrays are read back from the store, so that who
        computes a stage gets what everybody else gets: memory-mapped arrays that none can change.

        Raises
        ------
        StageError : `compute` failed or gave what cannot be stored; its exception is the cause.
        """
        found = self._found(key)
        if found is not None:
            return found
        with self.store.lock(key.text):
            found = self._found(key)
            if found is not None:  # another process computed it while this one waited
                return found
            try:
                arrays, facts = compute()
                self.store.write(key.text, arrays, facts)
            except MemoryError:
                raise
            except Exception as error:
                raise StageError(f"stage {key.name} failed: {error}") from error
            stored = self.store.arrays(key.text)
        return Stage(stored, facts)

    def _found(self, key: StageKey) -> Stage | None:
        """The stored stage, unless a stage within it was of another version than today's."""
        found = self.store.read(key.text)
        if found is None or not are_current(found[1].get("stages", ())):
            return None
        return Stage(*found)


class DigestMemo:
    """Digests of arrays, remembered per object: the images are asked about once per fit."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[np.ndarray, str]] = {}

    def __call__(self, X: np.ndarray) -> str:
        """The digest of an array, computed once per object."""
        known = self._known.get(id(X))
        if known is None or known[0] is not X:
            known = (X, array_digest(X))  # holding X keeps its id from being used again
            self._known[id(X)] = known
        return known[1]
