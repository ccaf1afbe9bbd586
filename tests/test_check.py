"""``bench check``: what it finds, what it says of it, and that it comes to an end."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bench import checking
from bench.cli import app
from bench.commands import authors
from bench.core.errors import BenchError
from bench.running import child, execution
from methods import testing
from methods.method import Arrays, Context, Method, StageRequest, Tags, flatten, stage
from methods.registry import Entry
from methods.testing import Outcome, run_checks

PLUGIN = '''
import numpy as np
from methods.method import Method
from methods.registry import register


class Base(Method):
    def __init__(self, n_clusters=10, random_state=None):
        self.n_clusters, self.random_state = n_clusters, random_state


@register("no-default")
class NoDefault(Base):
    def __init__(self, n_clusters, random_state=None):
        super().__init__(n_clusters, random_state)


@register("raises")
class Raises(Base):
    def fit(self, X, y=None, context=None):
        """Fail in a line of its own, then in numpy's code."""
        return np.zeros(3).reshape(7, -1)

'''
STAYS = """
import time
from methods.method import Method
from methods.registry import register


@register("stays")
class Stays(Method):
    def __init__(self, n_clusters=10, random_state=None):
        self.n_clusters, self.random_state = n_clusters, random_state

    def fit(self, X, y=None, context=None):
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass
"""


class Brightness(Method):
    """Classes by mean brightness, with numbers that `named` gives."""

    shift: ClassVar[int] = 0

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: np.ndarray | None = None, context: Any = None) -> Method:
        rows = flatten(X)
        y = np.zeros(len(X), dtype=int) if y is None or (y < 0).all() else y
        means = [rows[y == k].mean(0) if (y == k).any() else rows[0] - 9 for k in range(10)]
        self.means_ = np.array(means)
        self.labels_ = self.predict(X)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        far = ((flatten(X)[:, None] - self.means_) ** 2).sum(-1)
        return (far.argmin(1) + self.shift) % self.n_clusters


class Permuted(Brightness):
    """Right but for the numbers of its clusters."""

    shift = 1


class Grows(Brightness):
    """A default that grows from fit to fit."""

    def __init__(
        self,
        n_clusters: int = 10,
        random_state: int | None = None,
        sizes: list[int] = [],  # noqa: B006  the mistake that is to be found
    ) -> None:
        super().__init__(n_clusters, random_state)
        self.sizes = sizes

    def fit(self, X: np.ndarray, y: np.ndarray | None = None, context: Any = None) -> Method:
        self.sizes.append(3)
        return super().fit(X, y)


class GrowsAtOnce(Brightness):
    """A default that grows with every object."""

    def __init__(
        self,
        n_clusters: int = 10,
        random_state: int | None = None,
        sizes: list[int] = [],  # noqa: B006
    ) -> None:
        super().__init__(n_clusters, random_state)
        self.sizes = sizes
        self.sizes.append(3)


class NoLicence(BaseException):
    """What is no Exception, as what pytest.skip raises."""


class Unlicensed(Brightness):
    """Whose fit raises what is no Exception."""

    def fit(self, X: np.ndarray, y: np.ndarray | None = None, context: Any = None) -> Method:
        raise NoLicence("it has run out")


class Idles(Brightness):
    """Whose constructor takes its time."""

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        super().__init__(n_clusters, random_state)
        time.sleep(0.05)


class Pair(Brightness):
    """A default that JSON does not hold as it is."""

    def __init__(
        self,
        n_clusters: int = 10,
        random_state: int | None = None,
        sizes: tuple[int, ...] = (1, 2),
    ) -> None:
        super().__init__(n_clusters, random_state)
        self.sizes = sizes


def asks_alone(
    self: Any, X: np.ndarray, y: np.ndarray | None = None, context: Any = None
) -> Method:
    """A `fit` that asks for the stage, and tells it nothing."""
    X, y, context = self._begin(X, y, context)
    self._ask(StageRequest(looks_at_labels), X, context)
    return Brightness.fit(self, X, y)


SEEN: list[np.ndarray] = []  # a module's state, through which labels can reach a stage


@stage(version=1)
def looks_at_labels(X: np.ndarray, *, random_state: int, context: Context) -> Arrays:
    """A stage of which the suite would share what the first level's labels made of it."""
    return {"weights": 1.0 + SEEN[-1]}


class Smuggles(Brightness):
    """Hands its labels to a stage on a way that no key of the suite holds."""

    def stages(self, n_labels: int) -> list[StageRequest]:
        return [StageRequest(looks_at_labels)]

    def fit(self, X: np.ndarray, y: np.ndarray | None = None, context: Any = None) -> Method:
        X, y, context = self._begin(X, y, context)
        SEEN.append(y)
        self._ask(StageRequest(looks_at_labels), X, context)
        return super().fit(X, y)


def outcomes(cls: type[Method]) -> dict[str, Outcome]:
    """How each check of the class ended."""
    return {found.name: found for found in run_checks(Entry("example", cls, {}, cls.tags, "here"))}


def failures(cls: type[Method]) -> dict[str, str]:
    """What was said of it, by check."""
    return {name: found.message for name, found in outcomes(cls).items() if found.message}


def test_a_good_one_passes_and_what_does_not_apply_is_skipped() -> None:
    found = outcomes(Brightness)
    assert [outcome.verdict for outcome in found.values() if outcome.message] == []
    assert {name: one.verdict for name, one in found.items() if one.verdict != "ok"} == {
        "without_labels": "skipped: tags.without_labels names no other method",
        "uses_labels": "skipped: it is tagged as one that uses labels",
        "stages": "skipped: it announces no stages",
    }


@pytest.mark.parametrize("tags", [Tags(), Tags(needs_labels=True)])
def test_a_stage_that_labels_reach(monkeypatch: pytest.MonkeyPatch, tags: Tags) -> None:
    monkeypatch.setattr(Smuggles, "tags", tags)
    found = failures(Smuggles)
    assert set(found) == {"stages"}
    assert found["stages"].startswith("the stage looks_at_labels gives something else where fit ")
    monkeypatch.setattr(sys.modules[__name__], "SEEN", [np.zeros(3)])
    monkeypatch.setattr(Smuggles, "fit", asks_alone)
    assert failures(Smuggles) == {}


def test_permuted_numbers() -> None:
    found = failures(Permuted)
    assert set(found) == {"named_clusters"}
    assert found["named_clusters"].startswith("cluster j is not class j: accuracy is 0.")
    assert "under the best one-to-one mapping" in found["named_clusters"]


def test_a_default_that_grows() -> None:
    found = failures(Grows)
    assert set(found) == {"parameters_unchanged"}
    assert found["parameters_unchanged"].startswith("fit changes sizes from [] to [3]: ")
    assert "its constructor changes a default; store a copy" in failures(GrowsAtOnce)["plan"]


def test_what_is_raised_and_no_exception() -> None:
    found = failures(Unlicensed)
    assert found.pop("labels_are_the_models_own") == found["labels"]
    assert found["labels"].startswith("NoLicence: it has run out")


def test_a_slow_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert testing.LONGEST_CONSTRUCTOR < 6
    monkeypatch.setattr(testing, "LONGEST_CONSTRUCTOR", 0.05)
    found = failures(Idles)
    assert set(found) == {"constructor"}
    assert "store the parameters and do the work in fit" in found["constructor"]


def test_what_no_run_could_plan_with_is_said_once() -> None:
    found = outcomes(Pair)
    assert "do not come back from JSON as they were" in found.pop("plan").message
    assert {one.skipped for one in found.values()} == {"no run could plan with it"}


def test_what_is_checked_does_not_depend_on_how_python_optimises() -> None:
    """With ``python -O`` an assertion is nothing."""
    for module in (testing, child):
        tree = ast.parse(Path(module.__file__).read_text())
        assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """`PLUGIN`, checked in a process of its own."""
    path = tmp_path_factory.mktemp("checked") / "plugin.py"
    path.write_text(PLUGIN)
    return path, CliRunner().invoke(app, ["check", str(path), "-v"])


def lines(result: Result, method: str) -> dict[str, str]:
    """What was said of each check of the method."""
    found = [line.split(": ", 2) for line in result.stdout.splitlines()]
    return {check: said for name, check, said in found if name == method}


def test_the_command_finds_what_ends_a_plan(checked: tuple[Path, Result]) -> None:
    _, result = checked
    assert result.exit_code == 1, result.output
    said = lines(result, "no-default")
    assert said.pop("plan").startswith(
        "FAILED its parameters under paper failed with TypeError: "
    ), result.output
    assert set(said.values()) == {"skipped: no run could plan with it"}


def test_the_author_s_own_line_is_shown_once(checked: tuple[Path, Result]) -> None:
    _, result = checked
    said = lines(result, "raises")
    code = "return np.zeros(3).reshape(7, -1)"
    number = next(n for n, line in enumerate(PLUGIN.splitlines(), start=1) if code in line)
    own = f"(plugin.py, line {number}: {code})"
    assert said["labels"].startswith("FAILED ValueError: cannot reshape array of size 3")
    assert said["labels"].endswith(own)
    assert said["labels_are_the_models_own"] == (
        "FAILED there is no predict(X) for new images: add it, or say tags = Tags(inductive=False)"
    )
    assert said["colour"] == said["same_seed"] == "FAILED as labels"
    assert result.stdout.count(own) == 1
    assert result.stderr.count(f'plugin.py", line {number}, in fit') == 1  # the whole traceback: -v


@pytest.mark.slow
def test_an_endless_loop_ends_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "stays.py"
    path.write_text(STAYS)
    result = CliRunner().invoke(app, ["check", str(path), "--timeout", "3s"])
    said = lines(result, "stays")
    assert said["plan"] == said["constructor"] == "ok"
    assert said["labels"] == "FAILED it did not come to an end within 3 s"
    assert said["colour"] == "skipped: see labels"


def test_an_import_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process tells of an import when it begins, as of any check."""
    told = [
        {"event": "begin", "method": "", "check": checking.LOADING},
        {"event": "lost", "message": "it did not come to an end within 1 s"},
    ]
    monkeypatch.setattr(checking, "_events", lambda request, timeout_s: iter(told))
    with pytest.raises(BenchError, match=r"x\.py cannot be used: on import, it did not come to an"):
        list(checking.check("x.py", 1.0))


def test_how_a_process_ended_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the kill that ends what it has started."""
    told = '{"event": "begin", "method": "one", "check": "labels"}\n'
    code = f"import os, time; os.write(1, {told.encode()!r}); os.close(1); "
    code += "time.sleep(0.2); os._exit(3)"

    def start(module: str, threads: int) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        words = [sys.executable, "-S", "-c", code]
        return subprocess.Popen(words, **pipes, start_new_session=True)

    monkeypatch.setattr(execution, "start", start)
    *_, last = checking._events({"wanted": "x.py", "done": []}, None)
    assert last == {"event": "lost", "message": "its process ended with exit status 3"}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("own", "own is a folder; expected the name of a method, or a file that ends in .py"),
        ("own.py/", "own.py/ is a folder; expected"),
        ("own/x.npz", "own/x.npz is no Python file; expected"),
        ("own/gone", "own/gone does not exist; expected"),
        ("dcec2", "no method is called 'dcec2'"),
    ],
)
def test_what_is_no_method_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("own", "own.py", "dcec"):
        (tmp_path / folder).mkdir()
    (tmp_path / "own" / "x.npz").touch()
    error = CliRunner().invoke(app, ["check", wanted]).exception
    assert isinstance(error, BenchError)
    assert str(error).startswith(said)
    authors._refuse_path("dcec")  # a method, though there is a folder of that name


def test_after_a_lost_process_another_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def events(request: dict[str, Any], timeout_s: float | None) -> Iterator[dict[str, Any]]:
        asked.append(request["done"])
        method = ["one", "two"][len(request["done"])]
        yield {"event": "methods", "methods": ["one", "two"]}
        yield {"event": "begin", "method": method, "check": "predict"}
        yield {"event": "lost", "message": "its process was ended by SIGSEGV"}

    monkeypatch.setattr(checking, "_events", events)
    found = [(method, one.name, one.verdict) for method, one in checking.check("x.py", None)]
    assert asked == [[], ["one"]]
    assert [said for method, _, said in found if method == "one"] == (
        [said for method, _, said in found if method == "two"]
    )
    assert found[0] == ("one", "predict", "FAILED its process was ended by SIGSEGV")
    assert found[1] == ("one", "fit_predict", "skipped: see predict")


def test_a_file_that_does_not_import(
    tmp_path: Path, entries: dict[str, Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the line; ``-v`` has the traceback."""
    path = tmp_path / "broken.py"
    path.write_text("x = 1\n1 / 0\n")
    told: list[dict[str, Any]] = []
    request = json.dumps({"wanted": str(path), "done": []})
    monkeypatch.setattr(child, "begin", lambda: (told.append, request))
    assert checking.main() == 0
    said = f"{path} cannot be used: ZeroDivisionError: division by zero (broken.py, line 2: 1 / 0)"
    assert told[-1]["event"] == "error"
    assert told[-1]["message"] == said
    assert 'broken.py", line 2, in <module>' in told[-1]["traceback"]
