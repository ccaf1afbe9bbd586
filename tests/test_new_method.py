"""``bench new``, and the checks in the pytest of whoever writes a method."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import warm
from plugins_for_tests import PLAIN, PLUGINS
from typer.testing import CliRunner, Result

from bench.cli import app
from bench.core.errors import BenchError, WriteError
from methods import names, registry
from methods.method import Method
from methods.registry import Entry, RegistryError
from methods.testing import CHECKS, NAMES, Unmet, parametrize_with_checks, run_checks

Cases = list[tuple[Entry, Callable[[Entry], None]]]


def new(*words: str) -> Result:
    return CliRunner().invoke(app, ["new", *words])


def cases(*methods: str | Path | type[Method]) -> Cases:
    """What pytest would call the test with."""
    mark = parametrize_with_checks(methods).mark
    assert mark.args[0] == ("entry", "check")
    return [case.values for case in mark.args[1]]


# --- bench new -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two files of ``bench new two-means``."""
    folder = tmp_path_factory.mktemp("new")
    ended = new("two-means", "--folder", str(folder))
    assert ended.exit_code == 0, ended.output
    assert {path.name for path in folder.iterdir()} == {"two_means.py", "test_two_means.py"}
    for path in (folder / "two_means.py", folder / "test_two_means.py"):
        assert f"written: {path}\n" in ended.output
    return folder


def test_the_method_passes_every_check_and_what_it_says_is_true(
    written: Path, entries: dict[str, Entry]
) -> None:
    path = written / "two_means.py"
    assert registry.discover([path]) == []
    assert names.scan_files([path]).names == ("two-means",)
    entry = registry.get("two-means")
    assert entry.cls.__name__ == "TwoMeans"
    assert [outcome for outcome in run_checks(entry) if outcome.message] == []
    assert "bench check two_means.py" in path.read_text()
    assert "$" not in path.read_text()


def test_its_test_passes(written: Path) -> None:
    done = warm.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_two_means.py"],
        written,
        PLAIN | {"PYTHONPATH": str(Path(registry.__file__).parents[1]), "PYTEST_ADDOPTS": ""},
    )
    assert done.returncode == 0, done.stdout
    counts = {word: int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", done.stdout)}
    assert set(counts) == {"passed", "skipped"}  # no warnings
    assert sum(counts.values()) == len(NAMES) + 1


def test_it_is_no_worse_by_the_lint_of_this_project(written: Path) -> None:
    """Unless ruff is not there."""
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("the extra lint is not installed")
    config = Path(registry.__file__).parents[1] / "pyproject.toml"
    done = subprocess.run(
        [ruff, "check", "--config", config, "--ignore", "D", written],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("there", ["two_means.py", "test_two_means.py"])
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    ended = new("two-means", "--folder", str(tmp_path))
    assert isinstance(ended.exception, BenchError)
    assert f"{tmp_path / there} is there already; choose another name" in str(ended.exception)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Two Means", "'Two Means'; expected at most 60 small letters and digits, words joined"),
        ("2means", "expected at most 60"),
        ("../two", "expected at most 60"),
        ("two_means", "expected at most 60"),
        ("two--means", "expected at most 60"),
        ("é", "expected at most 60"),
        ("x" * 61, "expected at most 60"),
        ("", "expected at most 60"),
        ("dcec", "there is a method 'dcec' already; choose another name"),
        ("random", "a file random.py would hide what Python calls so; choose another name"),
        ("class", "a file class.py would hide"),
        ("numpy", "a file numpy.py would hide"),
    ],
)
def test_names_that_no_new_method_can_have(tmp_path: Path, name: str, message: str) -> None:
    ended = new("--folder", str(tmp_path), "--", name)
    assert isinstance(ended.exception, BenchError)
    assert message in str(ended.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    ended = new("three-means", "--folder", str(tmp_path / "absent"))
    assert isinstance(ended.exception, WriteError)
    assert "three_means.py cannot be written: No such file or directory" in str(ended.exception)


# --- parametrize_with_checks ---------------------------------------------------------------------


def test_a_method_by_name_by_class_and_by_file(entries: dict[str, Entry]) -> None:
    by_name = cases("kmeans")
    assert [entry.name for entry, _ in by_name] == ["kmeans"] * len(CHECKS)
    assert [check.__name__ for _, check in by_name] == [check.__name__ for check in CHECKS]
    by_file = cases(PLUGINS / "simple.py", "kmeans")
    assert {entry.name for entry, _ in by_file} > {"near", "blind", "kmeans"}
    assert cases(str(PLUGINS / "simple.py"), "kmeans")[0][0] is by_file[0][0]
    near = entries["near"]
    assert {entry.name for entry, _ in cases(near.cls)} == {"near"}


def test_the_tests_pass_skip_and_fail_as_the_checks_do(entries: dict[str, Entry]) -> None:
    ended = {}
    for entry, check in cases(PLUGINS / "simple.py"):
        try:
            check(entry)
        except pytest.skip.Exception as skipped:
            ended[entry.name, check.__name__] = f"skipped: {skipped.msg}"
        except Unmet as unmet:
            ended[entry.name, check.__name__] = f"FAILED {unmet}"
        else:
            ended[entry.name, check.__name__] = "ok"
    for name in {entry for entry, _ in ended}:
        said = {f"check_{one.name}": one.verdict for one in run_checks(entries[name])}
        assert {check: text for (who, check), text in ended.items() if who == name} == said
    assert "ok" in ended.values()
    assert any(text.startswith("skipped") for text in ended.values())


def test_what_a_check_finds_fails_the_test(entries: dict[str, Entry], tmp_path: Path) -> None:
    path = tmp_path / "careless.py"
    path.write_text(
        "from methods.method import Method\nfrom methods.registry import register\n"
        "@register('careless')\nclass Careless(Method):\n"
        "    def __init__(self, n_clusters=10, random_state=None):\n"
        "        self.n_clusters, self.random_state = n_clusters, random_state\n"
        "    def fit(self, X, y=None, context=None):\n        return self\n"
    )
    found = {check.__name__: (entry, check) for entry, check in cases(path)}
    entry, check = found["check_labels"]
    with pytest.raises(Unmet, match="fit has to set labels_"):
        check(entry)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", r"registers no method; decorate a class with @register\('name'\)"),
        ("1 / 0", "cannot be used: ZeroDivisionError: division by zero"),
        (
            "from methods.registry import register\n@register('none')\nclass A: ...",
            "none of .* cannot be used: it does not derive from methods.method.Method",
        ),
    ],
)
def test_files_that_cannot_be_checked(
    entries: dict[str, Entry], tmp_path: Path, code: str, message: str
) -> None:
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(RegistryError, match=message):
        parametrize_with_checks([tmp_path / "bad.py"])


def test_what_is_not_there(entries: dict[str, Entry], tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"no method is called 'kmean'.*did you mean 'kmeans'"):
        parametrize_with_checks(["kmean"])
    with pytest.raises(RegistryError, match=r"there is no file .*absent.py"):
        parametrize_with_checks([tmp_path / "absent.py"])

    class Mine(Method):
        """It has no name."""

    with pytest.raises(RegistryError, match="Mine is not registered; decorate it with"):
        parametrize_with_checks([Mine])
