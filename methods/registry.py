"""Which methods there are: ``@register("name")``, and where the registry looks for them.

Three ways lead here: a file in ``methods/``, an entry point in the group ``bench.methods`` of an
installed distribution, and a file named for one run (``--plugin FILE.py``). A file that does not
import, or that takes a name already taken, becomes a `Problem`; the others still run.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from methods.method import Method, StageRequest, Tags

ENTRY_POINT_GROUP = "bench.methods"
NOT_PLUGINS = {"method", "registry", "toolkit"}
AnyMethod = TypeVar("AnyMethod", bound=type)


class RegistryError(ValueError):
    """An unknown or doubly taken name; the message says which and what to do."""


@dataclass(frozen=True)
class Entry:
    """A registered method: its name, its class, and the parameters that the name fixes."""

    name: str
    cls: type[Method]
    params: dict[str, Any]
    tags: Tags
    origin: str

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.cls) or "").partition("\n")[0]

    def parameters(self, schedule: str, **changes: Any) -> dict[str, Any]:
        """All parameters: the constructor's, then the schedule's, the name's, the user's.

        Raises
        ------
        RegistryError : a parameter that the method does not have, or a change of another kind.
        """
        params = self.cls().get_params(deep=False)
        scheduled = {} if schedule == "paper" else self.cls.schedules.get(schedule, {})
        for given in (scheduled, self.params, changes):
            for name in given:
                if name not in params:
                    raise RegistryError(
                        f"{self.name} has no parameter {name!r}; it has {', '.join(sorted(params))}"
                        + did_you_mean(name, params)
                    )
            if given is changes:
                _check_kinds(self.name, params, changes)
            params |= given
        return params

    def build(self, schedule: str = "paper", **changes: Any) -> Method:
        """An unfitted estimator with the parameters of `schedule` and `changes`."""
        return self.cls(**self.parameters(schedule, **changes))


def _check_kinds(name: str, params: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Refuse a text for a number or a truth value, and the like: ``"false"`` would count as true.

    None, lists and dicts are the method's to judge.
    """
    for key, value in changes.items():
        kinds = [_KINDS.get(type(one)) for one in (params[key], value)]
        if None not in kinds and kinds[0] != kinds[1]:
            raise RegistryError(
                f"{name}.{key} is {value!r}; expected {kinds[0]}, as its default {params[key]!r}"
            )


_KINDS = {bool: "True or False", int: "a number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Problem:
    """A file or distribution that could not be used, and why."""

    origin: str
    message: str


_entries: dict[str, Entry] = {}


def register(
    name: str, *, in_all: bool | None = None, **params: Any
) -> Callable[[AnyMethod], AnyMethod]:
    """Class decorator: make the class known as `name`, with `params` other than its defaults.

    It may stand several times above one class: ``@register("kmeans-full-nn", in_all=False,
    head="nn")`` names a variant that is not part of ``--all``.

    Raises
    ------
    RegistryError : another class has that name already.
    """

    def add(cls: AnyMethod) -> AnyMethod:
        module = sys.modules.get(cls.__module__)
        origin = getattr(module, "__file__", None) or cls.__module__
        taken = _entries.get(name)
        if taken is not None:
            raise RegistryError(
                f"two methods are called {name!r}: {taken.origin} and {origin}; rename one"
            )
        tags = getattr(cls, "tags", Tags())
        if in_all is not None:
            tags = replace(tags, in_all=in_all)
        _entries[name] = Entry(name, cls, params, tags, origin)
        return cls

    return add


def discover(plugins: Iterable[str | Path] = ()) -> list[Problem]:
    """Import every plugin; the files and distributions that failed, in the order of discovery."""
    problems = []
    package = importlib.import_module("methods")
    for info in pkgutil.iter_modules(package.__path__):
        if info.name not in NOT_PLUGINS:
            module = f"methods.{info.name}"
            problems += _attempt(_file_of(module), partial(importlib.import_module, module))
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        dist = point.dist.name if point.dist else "unknown distribution"
        problems += _attempt(f"{dist} (entry point {point.name})", partial(_load_point, point))
    for plugin in plugins:
        path = Path(plugin)
        problems += _attempt(str(path), partial(_load_file, path))
    return problems


def names() -> list[str]:
    """Every registered name, sorted."""
    return sorted(_entries)


def names_from(file: str | Path) -> list[str]:
    """The names that a file has registered, sorted."""
    origin = str(Path(file).resolve())
    return sorted(name for name, entry in _entries.items() if entry.origin == origin)


def get(name: str) -> Entry:
    """The entry registered as `name`.

    Raises
    ------
    RegistryError : no such method; the message suggests the nearest name.
    """
    if name not in _entries:
        raise RegistryError(
            f"no method is called {name!r}; `bench list` shows all" + did_you_mean(name, _entries)
        )
    return _entries[name]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known word nearest to `word`, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _attempt(origin: str, load: Callable[[], object]) -> list[Problem]:
    """Run `load`; on failure take back what it had registered and say why.

    Another plugin that it imported, whole, before it failed is kept: no later import runs that
    file again.
    """
    names_before, modules_before = set(_entries), set(sys.modules)
    try:
        load()
    except (Exception, SystemExit) as error:  # a plugin may fail in any way; the others still run
        whole = set(sys.modules) - modules_before
        for name in set(_entries) - names_before:
            if _entries[name].cls.__module__ not in whole:
                del _entries[name]
        reason = str(error) if isinstance(error, RegistryError) else f"{_kind(error)}: {error}"
        return [Problem(origin, f"{origin} cannot be used: {reason}")]
    problems = []
    for name in sorted(set(_entries) - names_before):
        if unusable := _unusable(_entries[name]):
            del _entries[name]
            problems.append(Problem(origin, f"{name} of {origin} cannot be used: {unusable}"))
    return problems


def _unusable(entry: Entry) -> str | None:
    """Why a registered class cannot be planned with, in a sentence; None if it can.

    A plan builds the method, keeps its parameters in records and asks for its stages: a method that
    fails there must not end a run of others.
    """
    if not (inspect.isclass(entry.cls) and issubclass(entry.cls, Method)):
        return "it does not derive from methods.method.Method; make that its base class"
    doing = "its constructor without arguments"
    try:
        for schedule in ("paper", *entry.cls.schedules):
            doing = f"its parameters under {schedule}"
            params = entry.parameters(schedule)
            if json.loads(json.dumps(params)) != params:
                return (
                    f"its parameters {params} do not come back from JSON as they were; use "
                    "numbers, texts, True, False, None, lists and dicts of these"
                )
        for n_labels in (0, 100):
            doing = f"its stages({n_labels})"
            for request in entry.build().stages(n_labels):
                if not isinstance(request, StageRequest):
                    return f"{doing} holds {request!r}; expected StageRequests"
    except RegistryError as error:
        return str(error)
    except Exception as error:  # the author's code may fail in any way
        return f"{doing} failed with {_kind(error)}: {error}"
    return None


def _kind(error: BaseException) -> str:
    return type(error).__name__


def _file_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    return (spec.origin if spec else None) or module


def _load_point(point: importlib.metadata.EntryPoint) -> None:
    """Load an entry point: a module that registers, or a class that is registered by its name."""
    loaded = point.load()
    if inspect.isclass(loaded) and not any(e.cls is loaded for e in _entries.values()):
        register(point.name)(loaded)


def _load_file(path: Path) -> ModuleType | None:
    """Import one file as a module of its own (once per process)."""
    if not path.is_file():
        raise RegistryError(f"there is no file {path}")
    path = path.resolve()
    name = f"bench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RegistryError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
