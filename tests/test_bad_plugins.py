"""Plugins that a plan would stumble over: one sentence, and the others run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import warm
from plugins_for_tests import Place
from typer.testing import CliRunner

from bench.cli import app
from methods import registry
from methods.registry import Entry

HEAD = """
from methods.method import Method, StageRequest, Tags, stage
from methods.registry import register

"""
PLAIN = """class M(Method):
    def __init__(self, n_clusters=10, random_state=None):
        self.n_clusters, self.random_state = n_clusters, random_state
"""
BODIES = {
    "no default": (
        "class M(Method):\n    def __init__(self, n_clusters): self.n_clusters = n_clusters\n",
        "its parameters under paper failed with TypeError",
    ),
    "no JSON": (
        "class M(Method):\n    def __init__(self, n_clusters=10, random_state=None, f={1, 2}):\n"
        "        self.n_clusters, self.random_state, self.f = n_clusters, random_state, f\n",
        "not JSON serializable",
    ),
    "a tuple": (
        "class M(Method):\n    def __init__(self, n_clusters=10, random_state=None, f=(1, 2)):\n"
        "        self.n_clusters, self.random_state, self.f = n_clusters, random_state, f\n",
        "do not come back from JSON as they were",
    ),
    "raises": (
        "class M(Method):\n    def __init__(self, n_clusters=10, random_state=None):\n"
        "        raise RuntimeError('no licence')\n",
        "failed with RuntimeError: no licence",
    ),
    "stages raise": (
        "class M(Method):\n    def __init__(self, n_clusters=10, random_state=None):\n"
        "        self.n_clusters, self.random_state = n_clusters, random_state\n"
        "    def stages(self, n_labels): return [1 / n_labels]\n",
        "its stages(0) failed with ZeroDivisionError",
    ),
    "stages are none": (
        "class M(Method):\n    def __init__(self, n_clusters=10, random_state=None):\n"
        "        self.n_clusters, self.random_state = n_clusters, random_state\n"
        "    def stages(self, n_labels): return ['kmeans']\n",
        "its stages(0) holds 'kmeans'; expected StageRequests",
    ),
    "a schedule of another parameter": (
        "class M(Method):\n    schedules = {'quick': {'epochs': 1}}\n"
        "    def __init__(self, n_clusters=10, random_state=None):\n"
        "        self.n_clusters, self.random_state = n_clusters, random_state\n",
        "has no parameter 'epochs'",
    ),
    "another base": ("class M:\n    pass\n", "does not derive from methods.method.Method"),
    "no n_clusters": (
        "class M(Method):\n    def __init__(self, random_state=None):\n"
        "        self.random_state = random_state\n",
        "__init__ has no parameter n_clusters; the suite sets it: add it",
    ),
    "no random_state": (
        "class M(Method):\n    def __init__(self, n_clusters=10):\n"
        "        self.n_clusters = n_clusters\n",
        "__init__ has no parameter random_state; the suite sets it: add it",
    ),
    "n_clusters in words": (
        "class M(Method):\n    def __init__(self, n_clusters='ten', random_state=None):\n"
        "        self.n_clusters, self.random_state = n_clusters, random_state\n",
        "n_clusters is 10; expected a text, as its default 'ten'",
    ),
    "no tags": (PLAIN + "    tags = None\n", "its tags are None; expected methods.method.Tags("),
    "tags of another kind": (
        PLAIN + "    tags = {'needs_labels': True}\n",
        "its tags are {'needs_labels': True}; expected methods.method.Tags(",
    ),
    "a family in figures": (
        PLAIN + "    tags = Tags(family=5)\n",
        "its tags.family is 5; expected a text",
    ),
    "a version in words": (
        PLAIN + "    version = '1.0'\n",
        "its version is '1.0'; expected a whole number of at least 1",
    ),
    "half a version": (PLAIN + "    version = 1.5\n", "its version is 1.5; expected a whole"),
    "no version": (PLAIN + "    version = None\n", "its version is None; expected a whole"),
    "no such method without labels": (
        PLAIN + "    tags = Tags(without_labels='nope')\n",
        "its tags.without_labels is 'nope', but no method is called so",
    ),
    "a stage that is not declared": (
        PLAIN + "    def stages(self, n_labels): return [StageRequest(print)]\n",
        "its stages(0) holds <built-in function print> of version None; expected a function that",
    ),
    "a stage with a set": (
        "@stage(version=1)\ndef of_a_set(X, *, random_state, context): return {}\n"
        + PLAIN
        + "    def stages(self, n_labels):\n"
        "        return [StageRequest(of_a_set, {'x': {1}})]\n",
        "its stages(0) failed with TypeError: Object of type set is not JSON serializable",
    ),
}


@pytest.fixture
def plugin(
    request: pytest.FixtureRequest, tmp_path: Path, entries: dict[str, Entry]
) -> tuple[Path, str]:
    """A file that registers a method that cannot be used, and what is to be said of it."""
    body, said = BODIES[request.param]
    path = tmp_path / f"plugin_{list(BODIES).index(request.param)}.py"
    name = f"@register('bad-{path.stem}')\n"
    path.write_text(HEAD + body.replace("class M", name + "class M"))
    return path, said


every = pytest.mark.parametrize("plugin", BODIES, indirect=True)


@every
def test_it_is_one_sentence_and_the_method_is_not_there(plugin: tuple[Path, str]) -> None:
    path, said = plugin
    (problem,) = registry.discover([path])
    assert said in problem.message
    assert f"bad-{path.stem} of {path} cannot be used: " in problem.message
    assert "\n" not in problem.message
    assert f"bad-{path.stem}" not in registry.names()
    assert "kmeans" in registry.names()


@every
def test_list_shows_the_others(plugin: tuple[Path, str]) -> None:
    path, said = plugin
    done = CliRunner().invoke(app, ["list", "--json", "--plugin", str(path)])
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    assert said in done.stderr
    assert "kmeans" in {row["name"] for row in json.loads(done.stdout)}


@pytest.mark.parametrize("name", ["x" * 300 + ".py", "a\0b.py"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    (problem,) = registry.discover([name])
    assert problem.message.startswith(f"{name} cannot be used: ")


LOUD = """
import os
print("imported")
os.system("echo by a child")

@register("loud")
class Loud(Method):
    \"\"\"Loud.\"\"\"

    def __init__(self, n_clusters=10, random_state=None):
        print("built")
        self.n_clusters, self.random_state = n_clusters, random_state
"""


def test_what_a_plugin_prints_is_not_the_commands_output(tmp_path: Path) -> None:
    """Whoever prints it: its import, a child process of that, its constructor."""
    path = tmp_path / "loud.py"
    path.write_text(HEAD + LOUD)
    with Place(tmp_path) as place:
        done = warm.run(place.command(["list", "--json"], [path]), tmp_path, place.environment)
    assert done.returncode == 0, done.stderr
    assert "loud" in {row["name"] for row in json.loads(done.stdout)}
    for said in ("imported", "by a child", "built"):
        assert said in done.stderr


QUITS = {"SystemExit(0)": "failed with SystemExit: 0", "GeneratorExit": "failed with GeneratorExit"}


@pytest.mark.parametrize("raised", QUITS)
def test_a_constructor_that_ends_the_command(
    tmp_path: Path, entries: dict[str, Entry], raised: str
) -> None:
    path = tmp_path / "quits.py"
    path.write_text(HEAD + LOUD.replace('print("built")', f"raise {raised}"))
    (problem,) = registry.discover([path])
    assert "loud of " in problem.message
    assert QUITS[raised] in problem.message
    assert "loud" not in registry.names()


def test_a_constructor_that_interrupts_ends_nothing_but_itself(
    tmp_path: Path, entries: dict[str, Entry]
) -> None:
    path = tmp_path / "interrupts.py"
    path.write_text(HEAD + LOUD.replace('print("built")', "raise KeyboardInterrupt"))
    (problem,) = registry.discover([path])
    assert "cannot be used: KeyboardInterrupt" in problem.message
    assert "loud" not in registry.names()
