"""The registry: three ways in, one method to a name, and what fails leaves nothing behind."""

from __future__ import annotations

import importlib
import importlib.metadata
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods import registry
from methods.method import Method, Tags
from methods.registry import Entry, Problem, RegistryError, did_you_mean, discover, register

Entries = dict[str, Entry]
Write = Callable[..., Path]
PLUGIN = '''
from methods.method import Method
from methods.registry import register

@register("{name}")
class {cls}(Method):
    """A method from a file."""

    def __init__(self, n_clusters=10, random_state=None):
        self.n_clusters = n_clusters
        self.random_state = random_state
'''
FIT = """
    def fit(self, X, y=None, context=None):
        self.labels_ = X.reshape(len(X), -1).argmax(1)
        return self
"""


class Tiny(Method):
    """A method with a few parameters.

    And more to say.
    """

    tags = Tags(uses_labels=False)
    schedules = {"quick": {"epochs": 3, "lam": 0.2}, "smoke": {"epochs": 1}}

    def __init__(
        self,
        n_clusters: int = 10,
        epochs: int = 100,
        lam: float = 0.1,
        random_state: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.epochs = epochs
        self.lam = lam
        self.random_state = random_state


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(file, name, more)``: a plugin that registers `name` and then does `more`."""

    def plugin(file: str, name: str, more: str = "") -> Path:
        path = tmp_path / file
        path.write_text(PLUGIN.format(name=name, cls="Plugin") + more)
        return path

    return plugin


def problems_of(*plugins: Path) -> list[Problem]:
    """What `discover` says of these plugins alone."""
    found = discover(plugins)
    return [problem for problem in found if problem.origin in {str(path) for path in plugins}]


# --- Names ---------------------------------------------------------------------------------------


def test_a_class_gets_its_name(entries: Entries) -> None:
    assert register("tiny")(Tiny) is Tiny
    entry = registry.get("tiny")
    assert (entry.name, entry.cls, entry.params, entry.tags) == ("tiny", Tiny, {}, Tiny.tags)
    assert entry.origin == __file__
    assert entry.summary == "A method with a few parameters."
    assert "tiny" in registry.names()
    assert registry.names() == sorted(entries)
    assert registry.names_from(__file__) == ["tiny"]


def test_a_class_may_have_several_names(entries: Entries) -> None:
    register("tiny")(register("tiny-strict", in_all=False, lam=0.9)(Tiny))
    assert registry.get("tiny").tags == Tiny.tags
    strict = registry.get("tiny-strict")
    assert strict.params == {"lam": 0.9}
    assert strict.tags == Tags(uses_labels=False, in_all=False)
    assert strict.build().lam == 0.9
    assert registry.get("tiny").build().lam == 0.1


def test_a_name_is_given_once(entries: Entries) -> None:
    register("tiny")(Tiny)
    with pytest.raises(RegistryError) as refused:
        register("tiny")(type("Other", (Tiny,), {"__module__": "elsewhere"}))
    assert (
        str(refused.value) == f"two methods are called 'tiny': {__file__} and elsewhere; rename one"
    )
    assert registry.get("tiny").cls is Tiny


def test_an_unknown_name_is_refused_with_the_nearest(entries: Entries) -> None:
    register("tiny-propagation")(Tiny)
    with pytest.raises(RegistryError) as refused:
        registry.get("tiny-propagatoin")
    assert str(refused.value) == (
        "no method is called 'tiny-propagatoin'; `bench list` shows all; "
        "did you mean 'tiny-propagation'?"
    )
    with pytest.raises(RegistryError, match=r"`bench list` shows all$"):
        registry.get("qqqqqqqqqqqqqqqqqq")


@given(known=st.sets(st.text(min_size=1), max_size=5), word=st.text())
def test_only_what_is_known_is_suggested(known: set[str], word: str) -> None:
    said = did_you_mean(word, known)
    assert said in {""} | {f"; did you mean {name!r}?" for name in known}
    for name in known:
        assert did_you_mean(name, known) == f"; did you mean {name!r}?"


# --- Parameters ----------------------------------------------------------------------------------


def test_which_parameters_win() -> None:
    """The constructor's, then the schedule's, then the name's, then the user's."""
    plain = Entry("tiny", Tiny, {}, Tiny.tags, "here")
    strict = Entry("tiny-strict", Tiny, {"lam": 0.9}, Tiny.tags, "here")
    assert plain.parameters("paper") == {
        "n_clusters": 10,
        "epochs": 100,
        "lam": 0.1,
        "random_state": None,
    }
    assert plain.parameters("quick")["epochs"] == 3
    assert [entry.parameters("quick")["lam"] for entry in (plain, strict)] == [0.2, 0.9]
    assert strict.parameters("quick", lam=0.5, n_clusters=4)["lam"] == 0.5
    built = strict.build("smoke", n_clusters=4, random_state=7)
    assert built.get_params() == {"n_clusters": 4, "epochs": 1, "lam": 0.9, "random_state": 7}
    assert not hasattr(built, "labels_")


def test_a_parameter_may_have_any_name() -> None:
    """Also one that the functions of the registry give their own."""

    class Named(Tiny):
        def __init__(
            self, n_clusters: int = 10, schedule: str = "", name: int = 1, random_state: int = 0
        ) -> None:
            super().__init__(n_clusters, random_state=random_state)
            self.schedule, self.name = schedule, name

    entry = Entry("named", Named, {}, Tags(), "here")
    assert entry.parameters("paper", schedule="linear", name=2)["schedule"] == "linear"
    assert entry.build("paper", schedule="linear").schedule == "linear"


def test_parameters_are_a_copy() -> None:
    entry = Entry("tiny", Tiny, {"lam": 0.9}, Tiny.tags, "here")
    entry.parameters("quick", epochs=7)["lam"] = 0.0
    assert entry.parameters("quick")["lam"] == 0.9
    assert Tiny.schedules["quick"] == {"epochs": 3, "lam": 0.2}


@pytest.mark.parametrize(
    ("params", "changes", "schedules"),
    [({}, {"epoch": 1}, {}), ({"epoch": 1}, {}, {}), ({}, {}, {"quick": {"epoch": 1}})],
    ids=["the user's", "the name's", "the schedule's"],
)
def test_a_parameter_that_the_method_lacks(
    monkeypatch: pytest.MonkeyPatch,
    params: dict[str, int],
    changes: dict[str, int],
    schedules: dict[str, dict[str, int]],
) -> None:
    monkeypatch.setattr(Tiny, "schedules", schedules)
    entry = Entry("tiny", Tiny, params, Tiny.tags, "here")
    with pytest.raises(RegistryError) as refused:
        entry.parameters("quick", **changes)
    assert str(refused.value) == (
        "tiny has no parameter 'epoch'; it has epochs, lam, n_clusters, random_state; "
        "did you mean 'epochs'?"
    )


# --- Files ---------------------------------------------------------------------------------------


def test_a_file_registers(entries: Entries, write: Write) -> None:
    path = write("plugin.py", "from-a-file")
    assert problems_of(path) == []
    assert registry.get("from-a-file").origin == str(path)
    assert registry.names_from(path) == ["from-a-file"]
    assert problems_of(path) == []  # asked for again, it is not a second method


def test_two_files_of_one_stem(entries: Entries, tmp_path: Path, write: Write) -> None:
    (tmp_path / "sub").mkdir()
    first, second = write("plugin.py", "one"), write("sub/plugin.py", "two")
    assert problems_of(first, second) == []
    assert registry.get("one").cls is not registry.get("two").cls


def test_two_files_of_one_name(entries: Entries, write: Write) -> None:
    first, second = write("a.py", "twice"), write("b.py", "twice")
    (problem,) = problems_of(first, second)
    assert problem.origin == str(second)
    assert problem.message == (
        f"{second} cannot be used: two methods are called 'twice': {first} and {second}; rename one"
    )
    assert registry.get("twice").origin == str(first)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(2)\n", "SystemExit: 2"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt (broken.py, line 12: raise Keyb"),
        ("import pytest\npytest.importorskip('no_such_module')\n", "Skipped: could not import"),
        ("register('my/method')(Plugin)", "the name of a method is 'my/method'; expected one"),
        ("register('a\\nb')(Plugin)", "the name of a method is 'a\\nb'; expected one that a"),
        ("register('  ')(Plugin)", "the name of a method is '  '; expected one that a folder"),
        ("register('n' * 201)(Plugin)", "the name of a method is 'nnnn"),
        ("register(5)(Plugin)", "the name of a method is 5; expected a text: @register('name')"),
        ("def half(:\n", "SyntaxError: "),
    ],
)
def test_a_file_that_fails_halfway(entries: Entries, write: Write, more: str, reason: str) -> None:
    """It leaves nothing behind, and the others still run."""
    before = set(entries)
    broken, good = write("broken.py", "halfway", more), write("good.py", "whole")
    (problem,) = problems_of(broken, good)
    assert problem.message.startswith(f"{broken} cannot be used: {reason}")
    assert set(entries) == before | {"whole"}
    assert not [name for name in sys.modules if ".plugins.broken_" in name]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard; what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_during_an_import_ends_all(entries: Entries, write: Write) -> None:
    """Also where the import turns it into another error."""
    press = "import signal\ntry: signal.raise_signal(signal.SIGINT)\nexcept BaseException: 1 / 0\n"
    with pytest.raises(KeyboardInterrupt):
        discover([write("pressed.py", "halfway", press)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_method_that_is_nothing_without_another(entries: Entries, write: Write) -> None:
    """What is one of these without labels goes with it; one that is imported later counts."""
    files = [write(f"{name}.py", name) for name in ("first", "second", "third")]
    for file, other in zip(files, ("second", "third", "fourth"), strict=True):
        file.write_text(f"{file.read_text()}\n    tags = Tags(without_labels='{other}')\n")
        file.write_text(f"from methods.method import Tags\n{file.read_text()}")
    fifth = write("fifth.py", "fifth", "    tags = Method.tags.__class__(without_labels='sixth')\n")
    found = problems_of(*files, fifth, write("sixth.py", "sixth"))
    assert [problem.entry.name for problem in found if problem.entry] == [
        "third",
        "second",
        "first",
    ]
    assert {"fifth", "sixth"} <= set(entries)
    assert not {"first", "second", "third"} & set(entries)


def test_an_edited_file_is_imported_anew(entries: Entries, write: Write) -> None:
    """As in a notebook, where no process ends between two runs; the edits are of one size."""
    path = write("nb.py", "nb", "    version = 1\n")
    assert discover([path]) == discover([path])
    first = entries["nb"].cls
    write("nb.py", "nb", "    version = 2\n")
    assert problems_of(path) == []
    assert (first.version, entries["nb"].cls.version) == (1, 2)
    write("nb.py", "nb", "    version = 0/0\n")
    assert "ZeroDivisionError" in problems_of(path)[0].message
    assert "nb" not in entries, "what it was is no longer there"
    write("nb.py", "renamed", "    version = 3\n")
    assert problems_of(path) == []
    assert entries["renamed"].cls.version == 3
    assert discover([path]) == discover([path])


def test_a_mended_file_can_be_used(entries: Entries, write: Write) -> None:
    path = write("plugin.py", "mended", "1 / 0\n")
    assert len(problems_of(path)) == 1
    write("plugin.py", "mended")
    assert problems_of(path) == []
    assert "mended" in entries


def test_a_failing_file_takes_no_other_with_it(
    entries: Entries, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had imported, whole, is imported once per process: it must stay registered."""
    monkeypatch.syspath_prepend(tmp_path)
    write("registry_test_neighbour.py", "neighbour")
    again = 'register("again")(registry_test_neighbour.Plugin)\n'
    broken = write("broken.py", "halfway", "import registry_test_neighbour\n1 / 0\n")
    assert len(problems_of(broken)) == 1
    assert "neighbour" in entries
    assert "halfway" not in entries
    later = write("later.py", "later", "import registry_test_neighbour\n" + again + "1 / 0\n")
    assert len(problems_of(later)) == 1
    assert not {"later", "again"} & set(entries)
    del sys.modules["registry_test_neighbour"]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("missing.py", "there is no file {path}"),
        ("folder.py", "{path} is a folder; name a file in it that ends in .py"),
        ("plugin.txt", "{path} is no Python file"),
    ],
)
def test_what_is_no_plugin(entries: Entries, tmp_path: Path, file: str, reason: str) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "plugin.txt").write_text("x = 1\n")
    path = tmp_path / file
    (problem,) = problems_of(path)
    assert problem.message == f"{path} cannot be used: {reason.format(path=path)}"


def test_what_a_file_does_while_it_is_imported_stays_there(
    entries: Entries,
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Else a relative ``--results`` is another folder, and ``--json`` no JSON."""
    monkeypatch.chdir(tmp_path)
    code = "import os; os.chdir('/'); print('hello')\n"
    first, second = write("first.py", "moves", code), write("second.py", "after")
    assert problems_of(first.relative_to(tmp_path), second.relative_to(tmp_path)) == []
    assert {"moves", "after"} <= set(entries)
    assert Path.cwd() == tmp_path
    assert capsys.readouterr() == ("", "hello\n")


# --- The folder methods/ and installed distributions ----------------------------------------------


def test_the_methods_folder(
    entries: Entries, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file there is a plugin; one that fails is named, and the others still run."""
    package = importlib.import_module("methods")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    broken = write("registry_test_broken.py", "halfway", "1 / 0\n")
    write("registry_test_whole.py", "whole")
    write("test_registry_test_whole.py", "whole")  # as `bench new --folder methods` puts one there
    problems = discover()
    assert [problem.message for problem in problems] == [
        f"{broken} cannot be used: ZeroDivisionError: division by zero "
        "(registry_test_broken.py, line 12: 1 / 0)"
    ]
    assert entries["whole"].cls.__module__ == "methods.registry_test_whole"
    assert "halfway" not in entries
    del sys.modules["methods.registry_test_whole"], package.registry_test_whole


def test_the_contract_and_the_toolkit_are_no_plugins(
    entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[str] = []
    real = importlib.import_module

    def note(name: str) -> ModuleType:
        imported.append(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", note)
    assert discover() == []
    assert "methods.dcec" in imported
    assert not {"methods.method", "methods.registry", "methods.toolkit"} & set(imported)


def install(folder: Path, name: str, points: dict[str, str]) -> None:
    """Metadata as an installer leaves them."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{point} = {value}" for point, value in points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[bench.methods]", *lines, ""]))


def test_an_installed_distribution(
    entries: Entries, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry point is a module that registers, or a class that gets the entry point's name."""
    monkeypatch.syspath_prepend(tmp_path)
    write("registry_test_module.py", "by-decorator")
    plain = PLUGIN.replace('@register("{name}")\n', "").format(cls="Plugin")
    (tmp_path / "registry_test_class.py").write_text(plain)
    install(
        tmp_path,
        "whole",
        {
            "anything": "registry_test_module",
            "by-entry-point": "registry_test_class:Plugin",
            "not-again": "registry_test_module:Plugin",
        },
    )
    install(
        tmp_path,
        "broken",
        {"gone": "registry_test_nowhere", "less": "registry_test_class:Missing"},
    )
    messages = sorted(problem.message for problem in discover())
    assert len(messages) == 2
    assert messages[0].startswith(
        "broken (entry point gone) cannot be used: ModuleNotFoundError: No module named"
    )
    assert messages[1].startswith("broken (entry point less) cannot be used: AttributeError: ")
    assert entries["by-decorator"].cls.__module__ == "registry_test_module"
    assert entries["by-entry-point"].cls.__module__ == "registry_test_class"
    assert not {"anything", "not-again", "gone", "less"} & set(entries)
    del sys.modules["registry_test_module"], sys.modules["registry_test_class"]


def test_an_entry_point_of_a_taken_name(entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    register("tiny")(Tiny)
    other = type("Other", (Tiny,), {"__module__": "elsewhere"})
    point = SimpleNamespace(name="tiny", dist=SimpleNamespace(name="afar"), load=lambda: other)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    (problem,) = discover()
    assert problem.origin == "afar (entry point tiny)"
    assert f"two methods are called 'tiny': {__file__} and elsewhere" in problem.message
    assert entries["tiny"].cls is Tiny


def test_what_is_registered_can_be_fitted(entries: Entries, write: Write) -> None:
    path = write("plugin.py", "fits", FIT)
    assert problems_of(path) == []
    labels = registry.get("fits").build(n_clusters=4).fit_predict(np.eye(4).reshape(4, 2, 2))
    assert labels.tolist() == [0, 1, 2, 3]
