"""Which methods there are: ``@register("name")``, and where the registry looks for them.

Three ways lead here: a file in ``methods/``, an entry point in the group ``bench.methods`` of an
installed distribution, and a file named for one run (``--plugin FILE.py``). A file that does not
import, or that takes a name already taken, becomes a `Problem`; the others still run.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import pkgutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from methods import plugins as plugin_files
from methods.method import Method, StageRequest, Tags, stage_version
from methods.names import (
    ENTRY_POINT_GROUP,
    did_you_mean,
    is_plugin,
    said_of_bad_name,
    said_of_unknown,
)

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
    def module(self) -> str:
        """What `load` imports for it, where that is a plugin in this package; else empty."""
        package, name, *_ = [*self.cls.__module__.split("."), ""]
        return f"methods.{name}" if package == "methods" and is_plugin(name) else ""

    @property
    def summary(self) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(self.cls) or "").partition("\n")[0]

    def parameters(self, schedule: str, /, **changes: Any) -> dict[str, Any]:
        """All parameters: the constructor's, then the schedule's, the name's, the user's.

        They are copies: who changes one changes no default.

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
        return copy.deepcopy(params)

    def build(self, schedule: str = "paper", /, **changes: Any) -> Method:
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
    """A file or distribution that could not be used, and why.

    `error` is what it met. `entry` is the one class that cannot be used, where the rest of the file
    can.
    """

    origin: str
    message: str
    error: BaseException | None = None
    entry: Entry | None = None


_entries: dict[str, Entry] = {}


def register(
    name: str, /, *, in_all: bool | None = None, **params: Any
) -> Callable[[AnyMethod], AnyMethod]:
    """Class decorator: make the class known as `name`, with `params` other than its defaults.

    It may stand several times above one class: ``@register("kmeans-full-nn", in_all=False,
    head="nn")`` names a variant that is not part of ``--all``.

    Raises
    ------
    RegistryError : another class has that name already, or no method can have it.
    """
    if said := said_of_bad_name(name):
        raise RegistryError(said)

    def add(cls: AnyMethod) -> AnyMethod:
        module = sys.modules.get(cls.__module__)
        origin = getattr(module, "__file__", None) or cls.__module__
        taken = _entries.get(name)
        if taken is not None:
            raise RegistryError(
                f"two methods are called {name!r}: {taken.origin} and {origin}; rename one"
            )
        tags = getattr(cls, "tags", Tags())
        if in_all is not None and isinstance(tags, Tags):  # else `check_usable` says what they are
            tags = replace(tags, in_all=in_all)
        _entries[name] = Entry(name, cls, params, tags, origin)
        return cls

    return add


def discover(plugins: Iterable[str | Path] = ()) -> list[Problem]:
    """Import every plugin; the files and distributions that failed, in the order of discovery."""
    problems = []
    package = importlib.import_module("methods")
    for info in pkgutil.iter_modules(package.__path__):
        if is_plugin(info.name):
            problems += load(f"methods.{info.name}")
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        dist = point.dist.name if point.dist else "unknown distribution"
        problems += _attempt(f"{dist} (entry point {point.name})", partial(_load_point, point))
    for plugin in plugins:
        path = Path(plugin)
        with contextlib.suppress(ValueError, OSError):  # of its name: the import says so
            _forget_changed(path)
        problems += _attempt(str(path), partial(_load_file, path))
    return problems + _without_their_other()


def _forget_changed(path: Path) -> None:
    """Take out the methods of a file that was edited since this process has imported it."""
    if plugin_files.forget_changed(path):
        for name in names_from(path):
            del _entries[name]


def _without_their_other() -> list[Problem]:
    """Take out the methods whose ``tags.without_labels`` no method has, now that all are there."""
    problems: list[Problem] = []
    while lost := [e for e in _entries.values() if e.tags.without_labels not in (None, *_entries)]:
        for entry in lost:  # another one may be nothing without these
            del _entries[entry.name]
            message = f"{entry.name} of {entry.origin} cannot be used: {said_of_no_other(entry)}"
            problems.append(Problem(entry.origin, message, RegistryError(message), entry))
    return problems


def said_of_no_other(entry: Entry) -> str:
    """What to say of a method whose ``tags.without_labels`` is no method's name."""
    return (
        f"its tags.without_labels is {entry.tags.without_labels!r}, but no method is called so; "
        "`bench list` shows all"
    )


def load(module: str) -> list[Problem]:
    """Import one plugin of this package, ``methods.NAME``; what `discover` would say of it."""
    return _attempt(_file_of(module), partial(importlib.import_module, module))


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
        raise RegistryError(said_of_unknown(name, _entries))
    return _entries[name]


def _attempt(origin: str, load: Callable[[], object]) -> list[Problem]:
    """Run `load`; on failure take back what it had registered and say why.

    Another plugin that it imported, whole, before it failed is kept: no later import runs that
    file again.
    """
    names_before, modules_before = set(_entries), set(sys.modules)
    failed: BaseException | None = None
    unusable: list[Problem] = []
    with _interrupts_noted() as interrupts, kept_apart():
        try:
            load()
            unusable = _unusable(set(_entries) - names_before, origin)
        except BaseException as error:  # a plugin may fail in any way; the others still run
            failed = error
    if interrupts:
        raise KeyboardInterrupt from failed
    if failed is not None:
        whole = set(sys.modules) - modules_before
        for name in set(_entries) - names_before:
            if _entries[name].cls.__module__ not in whole:
                del _entries[name]
        own = isinstance(failed, RegistryError)
        reason = str(failed) if own else in_a_line(failed, origin)
        return [Problem(origin, f"{origin} cannot be used: {reason}", failed)]
    return unusable


def _unusable(names: Iterable[str], origin: str) -> list[Problem]:
    """Take out those of these methods that cannot be used; why they cannot."""
    problems = []
    for name in sorted(names):
        try:
            check_usable(_entries[name])
        except BaseException as error:
            entry = _entries.pop(name)
            if not isinstance(error, RegistryError):
                raise  # Ctrl-C, of the user or of the author's code
            message = f"{name} of {origin} cannot be used: {error}"
            problems.append(Problem(origin, message, error, entry))
    return problems


@contextlib.contextmanager
def kept_apart() -> Iterator[None]:
    """Come back to the working folder afterwards; what is printed is not the command's output."""
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was deleted
        here = None
    try:
        with contextlib.redirect_stdout(sys.stderr), _descriptor_kept():
            yield
    finally:
        if here is not None:
            os.chdir(here)


@contextlib.contextmanager
def _descriptor_kept() -> Iterator[None]:
    """Lead to standard error what a C library or a child process prints, past `sys.stdout`."""
    if sys.__stdout__ is None or sys.__stderr__ is None:  # closed: another file may have its number
        yield
        return
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _interrupts_noted() -> Iterator[list[int]]:
    """A list that is no longer empty once Ctrl-C was pressed, of which only the main thread hears.

    A plugin may raise a KeyboardInterrupt of its own, which ends nothing but itself, or turn a real
    one into another error.
    """
    noted: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield noted
        return

    def note(signum: int, frame: Any) -> None:
        noted.append(signum)
        handler(signum, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        if signal.getsignal(signal.SIGINT) is note:  # else the plugin has set its own
            signal.signal(signal.SIGINT, handler)


def check_usable(entry: Entry) -> None:
    """Refuse a registered class that cannot be planned with.

    A plan builds the method, keeps its parameters in records and asks for its stages: a method that
    fails there must not end a run of others.

    Raises
    ------
    RegistryError : it cannot; a sentence that says why. What the class raised itself is the cause.
    """
    _check_class(entry)
    doing = "its constructor without arguments"
    try:
        for schedule in ("paper", *entry.cls.schedules):
            doing = f"its parameters under {schedule}"
            _check_parameters(entry, schedule)
        method = entry.build()
        for n_labels in (0, 100):
            doing = f"its stages({n_labels})"
            for request in method.stages(n_labels):
                _check_request(request, doing)
    except RegistryError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the author's code may fail in any way, or call sys.exit()
        reason = in_a_line(error, entry.origin)
        raise RegistryError(f"{doing} failed with {reason}") from error


def _check_class(entry: Entry) -> None:
    """Refuse what is no method, tags of another kind, and a version that no record can hold."""
    if not (inspect.isclass(entry.cls) and issubclass(entry.cls, Method)):
        raise RegistryError(
            "it does not derive from methods.method.Method; make that its base class"
        )
    if not isinstance(entry.tags, Tags):
        raise RegistryError(f"its tags are {entry.tags!r}; expected methods.method.Tags(...)")
    for name, default in vars(Tags()).items():
        value = getattr(entry.tags, name)
        kind = str if default is None else type(default)
        if not (isinstance(value, kind) or value is default):
            raise RegistryError(f"its tags.{name} is {value!r}; expected {_KINDS[kind]}")
    if not _is_version(version := entry.cls.version):
        raise RegistryError(f"its version is {version!r}; expected a whole number of at least 1")


def _is_version(value: object) -> bool:
    """Whether it can be compared with that of a record."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**63


def _check_request(request: object, where: str) -> None:
    """Refuse a stage that no plan can place."""
    if not isinstance(request, StageRequest):
        raise RegistryError(f"{where} holds {request!r}; expected StageRequests")
    version = stage_version(request.function) if callable(request.function) else None
    if not _is_version(version):
        raise RegistryError(
            f"{where} holds {request.function!r} of version {version}; expected a function that is "
            "decorated with @stage(version=1), or a higher whole number"
        )
    json.dumps(dict(request.params))


def _check_parameters(entry: Entry, schedule: str) -> None:
    """Refuse parameters that a record could not hold, or that differ from one time to the next."""
    params = entry.parameters(schedule)
    for needed in ("n_clusters", "random_state"):
        if needed not in params:
            raise RegistryError(f"__init__ has no parameter {needed}; the suite sets it: add it")
    entry.parameters(schedule, n_clusters=10)
    if json.loads(json.dumps(params)) != params:
        raise RegistryError(
            f"its parameters {params} do not come back from JSON as they were; use numbers, texts, "
            "True, False, None, lists and dicts of these"
        )
    if (again := entry.parameters(schedule)) != params:
        raise RegistryError(
            f"its parameters {params} are {again} the next time: its constructor changes a "
            "default; store a copy"
        )


def in_a_line(error: BaseException, file: str) -> str:
    """An error of an author's code: its kind, its message, and the last line of theirs."""
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return said + _own_line(error, file)


def _own_line(error: BaseException, file: str) -> str:
    """`` (plugin.py, line 3: return 1 / n)``: the last line of `file`, or of one beside it.

    Empty where the error passed none of them.
    """
    if isinstance(error, SyntaxError) or not os.path.isfile(file):
        return ""  # a SyntaxError says itself where it is
    folder = Path(file).resolve().parent
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parent == folder]
    if not own:
        return ""
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno}: {own[-1].line})"


def _file_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    return (spec.origin if spec else None) or module


def _load_point(point: importlib.metadata.EntryPoint) -> None:
    """Load an entry point: a module that registers, or a class that is registered by its name."""
    loaded = point.load()
    if inspect.isclass(loaded) and not any(e.cls is loaded for e in _entries.values()):
        register(point.name)(loaded)


def _load_file(path: Path) -> ModuleType:
    if path.is_dir():
        raise RegistryError(f"{path} is a folder; name a file in it that ends in .py")
    if not path.is_file():
        raise RegistryError(f"there is no file {path}")
    if path.suffix != ".py":
        raise RegistryError(f"{path} is no Python file")
    return plugin_files.load(path)
