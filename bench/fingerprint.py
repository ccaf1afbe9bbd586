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
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from bench.errors import BenchError

NO_ALGORITHM = {"methods.method", "methods.registry"}
NOT_CODE = {"schedules", "tags"}  # in a class body
NO_RESULT = {"annotation", "returns", "type_comment", "kind", "ctx", "simple"}  # fields of syntax


def code_digest(thing: Any) -> str:
    """SHA-256 (16 hex) of a class or function and of all it uses in its package and in methods.

    Raises
    ------
    BenchError : no module's source defines it (a lambda, say), so a change could not be noticed.
    """
    packages = frozenset({"methods", thing.__module__.partition(".")[0]})
    seen: dict[tuple[str, str], str] = {}
    _follow(thing.__module__, thing.__qualname__.partition(".")[0], packages, seen)
    if not seen:
        raise BenchError(
            f"the source of {thing.__module__}.{thing.__qualname__} cannot be found; expected a "
            "class or function that a def or class statement of a Python file defines"
        )
    # The top-level package is left out: a plugin file's own name depends on where the file lies.
    codes = [(m.partition(".")[2], name, code) for (m, name), code in sorted(seen.items())]
    text = "\n".join(f"{module}:{name} {code}" for module, name, code in codes)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _follow(
    module: str, name: str, packages: frozenset[str], seen: dict[tuple[str, str], str]
) -> None:
    """Add definition `name` of `module` to `seen`, and whatever it names in turn."""
    if (module, name) in seen or module in NO_ALGORITHM:
        return
    source = _read(module, packages)
    nodes = source.definitions.get(name)
    if nodes is None:
        origin = source.imports.get(name)
        if origin is not None:
            whole = list(_read(origin[0], packages).definitions)
            for definition in [origin[1]] if origin[1] else whole:
                _follow(origin[0], definition, packages, seen)
        return
    seen[module, name] = repr(_canonical(nodes))
    for node in nodes:
        for dotted in _names(node):
            _follow(*_place(module, dotted, packages), packages, seen)


def _place(module: str, dotted: tuple[str, ...], packages: frozenset[str]) -> tuple[str, str]:
    """The module and the name in it that ``toolkit.kmeans.nearest``, said in `module`, means."""
    first, *rest = dotted
    origin = _read(module, packages).imports.get(first)
    if origin is None or origin[1] is not None:
        return module, first
    place = origin[0]
    while rest and _path(f"{place}.{rest[0]}", packages) is not None:
        place = f"{place}.{rest.pop(0)}"
    return (place, rest[0]) if rest else (module, first)


class _Source:
    """The top-level definitions of one module, and what it imports from its own package."""

    def __init__(self, module: str, packages: frozenset[str]) -> None:
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, tuple[str, str | None]] = {}
        path = _path(module, packages)
        if path is None:
            return
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._note_modules(node.names, packages)
            elif isinstance(node, ast.ImportFrom) and (package or not node.level):
                origin = "." * node.level + (node.module or "")
                self._note_import(resolve_name(origin, package), node.names, packages)
        for statement in tree.body:
            for name in _defined(statement):
                self.definitions.setdefault(name, []).append(statement)

    def _note_modules(self, names: list[ast.alias], packages: frozenset[str]) -> None:
        """Remember ``import package.module`` and ``import package.module as name``."""
        for alias in names:
            first = alias.name.partition(".")[0]
            if first in packages:
                self.imports[alias.asname or first] = (alias.name if alias.asname else first, None)

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
        file = getattr(sys.modules[module], "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(module)
        except ImportError:
            return None
        file = spec.origin if spec else None
    return Path(file) if file and file.endswith(".py") else None


def _defined(node: ast.stmt) -> list[str]:
    """The names that a top-level statement defines or changes, in any branch of it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    if isinstance(node, ast.If | ast.Try | ast.With | ast.For):
        inner = [n for n in ast.walk(node) if isinstance(n, ast.stmt) and n is not node]
        return list(dict.fromkeys(name for child in inner for name in _defined(child)))
    return []


def _names(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Every name used in `node`, with what is taken of it: ``kmeans.nearest`` as a pair."""
    dotted = _dotted(node)
    if dotted:
        yield dotted
        return
    for _, value in _parts(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _names(child)


def _dotted(node: ast.AST) -> tuple[str, ...]:
    """``a.b.c`` as ("a", "b", "c"); empty for anything but names with dots between them."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        start = _dotted(node.value)
        return (*start, node.attr) if start else ()
    return ()


def _canonical(value: Any) -> Any:
    """A syntax tree as nested tuples, the same on every Python version, without docstrings."""
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, ast.AnnAssign) and value.value is not None:
        value = ast.Assign(targets=[value.target], value=value.value)
    if isinstance(value, ast.AST):
        return (type(value).__name__, [(name, _canonical(v)) for name, v in _parts(value)])
    return repr(value)


def _parts(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The fields of a node that can change a result."""
    in_class = isinstance(node, ast.ClassDef)
    for name, value in ast.iter_fields(node):
        if name in NO_RESULT or (in_class and name == "decorator_list"):
            continue
        if isinstance(value, list):
            value = [v for v in value if not _is_text(v) and not (in_class and _is_table(v))]
        if value is not None and value != []:
            yield name, value


def _is_text(node: Any) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_table(node: Any) -> bool:
    """An assignment to ``schedules`` or ``tags``."""
    return isinstance(node, ast.stmt) and bool(NOT_CODE & set(_defined(node)))
