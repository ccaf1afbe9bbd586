"""Files named for one run (``--plugin FILE.py``) as modules that every process can import.

A file becomes the module ``methods.plugins.<stem>_<8 hex digits>``: two files of one name do not
meet. What a method starts (`multiprocessing`, joblib) asks for its functions by that name, so the
name has to lead back to the file in a process that knows nothing of the run: to import it imports
this package, whose finder looks the file up in the environment variable ``BENCH_PLUGIN_FILES``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

FILES = "BENCH_PLUGIN_FILES"  # a list in JSON: a path may hold any separator
_imported: dict[str, str] = {}  # the content of files at their import, by the modules' names


def load(path: Path) -> ModuleType:
    """The file as a module, imported once per process; processes started later can import it too.

    Files beside it are found where no library has their name. See `forget_changed`, too.
    """
    path = path.resolve()
    if str(path) not in (files := _files()):
        os.environ[FILES] = json.dumps([*files, str(path)])
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last: a neighbour must not hide a library
    _imported.setdefault(name_of(path), _digest(path))
    return importlib.import_module(name_of(path))


def forget_changed(path: Path) -> bool:
    """Whether the file was imported before with another content: the next `load` imports it anew.

    So does a notebook whose author edits the file between two runs. What it imports from files
    beside it stays as it was.
    """
    path = path.resolve()
    name = name_of(path)
    if name not in _imported or _imported[name] == _digest(path):
        return False
    del _imported[name]
    sys.modules.pop(name, None)
    return True


def name_of(path: Path) -> str:
    """The name of the module that a file, given by its whole path, becomes."""
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()
    stem = re.sub(r"\W", "_", path.stem)
    return f"{__name__}.{stem}_{digest[:8]}"


def _digest(path: Path) -> str:
    """Of the content of a file; empty where the import will say that it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _files() -> list[str]:
    files: list[str] = json.loads(os.environ.get(FILES, "[]"))
    return files


class _Finder:
    """Leads from the name of a module to its file."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As `importlib.abc.MetaPathFinder` asks; None for what is no plugin's file."""
        if not name.startswith(f"{__name__}."):
            return None
        named = (file for file in map(Path, _files()) if name_of(file) == name)
        file = next(named, None)
        if file is None:
            return None
        loader = _FromSource(name, str(file))
        return importlib.util.spec_from_file_location(name, file, loader=loader)


class _FromSource(SourceFileLoader):
    """Compiles the file as it is: Python's cache takes two edits of one second for the same."""

    def get_code(self, fullname: str) -> CodeType:
        """The compiled content."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


sys.meta_path.append(_Finder)
