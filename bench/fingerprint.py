"""Digests of code: has what computed this result changed since?

The digest of a class or function covers its own source and, followed by name, every function, class
and constant of the same top-level package that it uses. Comments, docstrings, formatting and the
``schedules`` table do not count: they change no result (parameters are part of a trial's identity).
The contract and the registry do not count either; they hold no algorithm.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

NO_ALGORITHM = {"methods.method", "methods.registry"}
NOT_CODE = {"schedules", "tags", "__all__"}


def code_digest(thing: Any) -> str:
    """SHA-256 (16 hex) of a class or function and of all it uses in its package and in methods."""
    packages = frozenset({"methods", thing.__module__.partition(".")[0]})
    seen: dict[tuple[str, str], str] = {}
    _follow(thing.__module__, thing.__qualname__.partition(".")[0], packages, seen)
    text = "\n".join(f"{module}:{name} {code}" for (module, name), code in sorted(seen.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _follow(
    module: str, name: str, packages: frozenset[str], seen: dict[tuple[str, str], str]
) -> None:
    """Add definition `name` of `module` to `seen`, and whatever it names in turn."""
    if (module, name) in seen or module in NO_ALGORITHM:
        return
    source = _read(module, packages)
    node = source.definitions.get(name)
    if node is None:
        origin = source.imports.get(name)
        if origin is not None:
            whole = list(_read(origin[0], packages).definitions)
            for definition in [origin[1]] if origin[1] else whole:
                _follow(origin[0], definition, packages, seen)
        return
    seen[module, name] = repr(_canonical(node))
    for used, attribute in _names(node):
        origin = source.imports.get(used)
        if origin is not None and origin[1] is None and attribute:
            _follow(origin[0], attribute, packages, seen)  # kmeans.nearest of a module kmeans
        else:
            _follow(module, used, packages, seen)


class _Source:
    """The top-level definitions of one module, and what it imports from its own package."""

    def __init__(self, module: str, packages: frozenset[str]) -> None:
        self.definitions: dict[str, ast.AST] = {}
        self.imports: dict[str, tuple[str, str | None]] = {}
        path = _path(module, packages)
        if path is None:
            return
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self._note_import(node.module, node.names, packages)
        for node in tree.body:
            for name in _defined(node):
                self.definitions[name] = node

    def _note_import(self, module: str, names: list[ast.alias], packages: frozenset[str]) -> None:
        """Remember ``from module import names``: modules with None, definitions by their name."""
        for alias in names:
            whole = f"{module}.{alias.name}"
            name = alias.asname or alias.name
            if _path(whole, packages) is not None:
                self.imports[name] = (whole, None)
            elif _path(module, packages) is not None:
                self.imports[name] = (module, alias.name)


@cache
def _read(module: str, packages: frozenset[str]) -> _Source:
    return _Source(module, packages)


@cache
def _path(module: str, packages: frozenset[str]) -> Path | None:
    """The source file of a module in one of `packages`; None for every other module."""
    if module.partition(".")[0] not in packages:
        return None
    if module in sys.modules:  # a plugin loaded from a file is known to no finder
        return Path(sys.modules[module].__file__ or "")
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _defined(node: ast.stmt) -> list[str]:
    """The names that a top-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _names(node: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Every name used in `node`, with the attribute taken of it where there is one."""
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name):
            yield child.value.id, child.attr
        elif isinstance(child, ast.Name):
            yield child.id, None


def _canonical(value: Any) -> Any:
    """A syntax tree as nested tuples, the same on every Python version, without docstrings."""
    if isinstance(value, list):
        return [_canonical(v) for v in value if not _is_text(v) and not _is_table(v)]
    if isinstance(value, ast.AST):
        fields = [
            (name, _canonical(v))
            for name, v in ast.iter_fields(value)
            if v not in (None, []) and not _skipped(value, name)
        ]
        return (type(value).__name__, fields)
    return repr(value)


def _skipped(node: ast.AST, name: str) -> bool:
    """Fields that change no result: annotations, kinds of literals, decorators of a class."""
    return name in {"annotation", "returns", "type_comment", "kind", "ctx"} or (
        name == "decorator_list" and isinstance(node, ast.ClassDef)
    )


def _is_text(node: Any) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_table(node: Any) -> bool:
    """An assignment to ``schedules`` or ``tags`` in a class body."""
    return isinstance(node, ast.stmt) and bool(NOT_CODE & set(_defined(node)))
