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
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

FILES = "BENCH_PLUGIN_FILES"  # a list in JSON: a path may hold any separator


def load(path: Path) -> ModuleType:
    """The file as a module, imported once per process; processes started later can import it too.

    Files beside it are found where no library has their name.
    """
    path = path.resolve()
    if str(path) not in (files := _files()):
        os.environ[FILES] = json.dumps([*files, str(path)])
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last: a neighbour must not hide a library
    return importlib.import_module(name_of(path))


def name_of(path: Path) -> str:
    """The name of the module that a file, given by its whole path, becomes."""
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()
    stem = re.sub(r"\W", "_", path.stem)
    return f"{__name__}.{stem}_{digest[:8]}"


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
        return None if file is None else importlib.util.spec_from_file_location(name, file)


sys.meta_path.append(_Finder)
