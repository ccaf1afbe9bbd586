"""Which names methods are registered under, read from their files without importing any.

To import all methods takes seconds: for a misspelt name, or to complete one, that is too long.
"""

from __future__ import annotations

import ast
import difflib
import importlib.metadata
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ENTRY_POINT_GROUP = "bench.methods"
NOT_PLUGINS = {"method", "names", "plugins", "registry", "testing", "toolkit"}

LONGEST_NAME = 200  # bytes; file systems take 255, and a variant adds ten


def is_plugin(name: str) -> bool:
    """Whether a module or folder of this package holds methods; the test of one holds none."""
    return name not in NOT_PLUGINS and not name.startswith("test_")


@dataclass(frozen=True)
class Scan:
    """The names that were found, sorted; and whether no file can register another one."""

    names: tuple[str, ...]
    complete: bool


def scan(plugins: Iterable[str | Path] = ()) -> Scan:
    """The names that `registry.discover` would register, as far as the files tell them.

    A file of `plugins` and an installed distribution may import others that register methods: with
    these nothing is complete. Nor is it with a file that computes a name or cannot be parsed.
    """
    own, others = scan_files(_own_files()), scan_files(map(Path, plugins))
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    names = {*own.names, *others.names, *points.names}
    return Scan(tuple(sorted(names)), own.complete and not list(plugins) and not points)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known word nearest to `word`, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def said_of_unknown(name: str, known: Iterable[str]) -> str:
    """What to say of a name that no method has."""
    return f"no method is called {name!r}; `bench list` shows all" + did_you_mean(name, known)


def can_name_a_folder(name: str) -> bool:
    """Whether a name can be part of a path, and leads nowhere but below its folder."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    bad = [c for c in name if c in "/\\" or unicodedata.category(c) == "Cc"]
    return name.strip() not in ("", ".", "..") and size <= LONGEST_NAME and not bad


def said_of_bad_name(name: object) -> str:
    """What to say of a name that no method can have; empty if it can."""
    if not isinstance(name, str):
        return f"the name of a method is {name!r}; expected a text: @register('name')"
    if can_name_a_folder(name) and name == name.strip() and "," not in name:
        return ""
    return (
        f"the name of a method is {name[:80]!r}; expected one that a folder can have: at most "
        f"{LONGEST_NAME} bytes, no slash, no control character, no comma, no blank at its ends"
    )


def _own_files() -> Iterator[Path]:
    """The files of this package that `registry.discover` imports, those of folders included."""
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        if is_plugin(path.relative_to(package).parts[0].removesuffix(".py")):
            yield path


def scan_files(paths: Iterable[Path]) -> Scan:
    """The names that these files register; a file that cannot be parsed may have any."""
    names: set[str] = set()
    complete = True
    for path in paths:
        try:
            text = path.read_text()
            tree = ast.parse(text) if "register" in text else ast.Module([], [])
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            complete = False  # to import it says what is wrong with it
            continue
        found, unclear = _registered(tree)
        names |= found
        complete &= not unclear
    return Scan(tuple(sorted(names)), complete)


def _registered(tree: ast.Module) -> tuple[set[str], bool]:
    """The literal names that a file registers, and whether it may register others."""
    called = {
        one.asname or one.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for one in node.names
        if one.name == "register"
    }
    names, uses = set(), 0
    for node in ast.walk(tree):
        uses += _is_register(node, called)
        if isinstance(node, ast.Call) and _is_register(node.func, called):
            match node.args:
                case [ast.Constant(str(name)), *_]:
                    names.add(name)
                    uses -= 1
    return names, uses > 0


def _is_register(node: ast.AST, called: set[str]) -> bool:
    """Whether this is the function `register`, under one of the names it is `called` by."""
    if isinstance(node, ast.Attribute):
        return node.attr == "register"
    return isinstance(node, ast.Name) and node.id in called
