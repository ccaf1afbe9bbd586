"""What the command says before it imports anything: help, completion, what is misspelt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from plugins_for_tests import PLAIN
from typer.testing import CliRunner

from bench.cli import app
from methods import names, registry

HEAVY = ("torch", "sklearn", "pandas", "scipy", "numpy", "matplotlib")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
# Commands in a process of their own, each with how it ended; and all that was imported for them.
DRIVER = """
import contextlib, io, json, sys
from bench.cli import main

ended = []
for words in json.load(sys.stdin):
    sys.argv = ["bench", *words]
    out, err, status = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code
    ended.append([status, out.getvalue(), err.getvalue()])
json.dump({"ended": ended, "modules": sorted(sys.modules)}, sys.stdout)
"""
MISSPELT = {
    "run dcek": "no method is called 'dcek'; `bench list` shows all; did you mean 'dcec'?",
    "run dcec --set dcek.lam=1": "no method is called 'dcek'",
    "run dcec --protocol inductiv": "protocol is 'inductiv'; expected one of transductive",
    "run dcec --selection randm": "did you mean 'random'?",
    "run dcec --schedule quik": "did you mean 'quick'?",
    "run dcec --precision bf32": "precision is 'bf32'; expected one of auto, fp32, bf16",
    "run dcec --device gpu": "device is 'gpu'; expected one of auto, cpu, cuda",
    "run dcec --backend dusk": "did you mean 'dask'?",
    "run dcec --rerun stail": "did you mean 'stale'?",
    "run dcec --level shars": "Level 'shars' is neither a share nor a count",
    "run dcec --seeds 1,1": "seeds is (1, 1); expected how many",
    "run dcec --jobs two": "jobs is 'two'; expected a whole number",
    "run dcec --memory 8": "memory is '8'; expected a size",
    "run dcec --timeout 5": "--timeout is '5'; expected a time",
    "check dcek": "did you mean 'dcec'?",
    "leaderboard --schedule quik": "did you mean 'quick'?",
    "verify --device gpu": "device is 'gpu'",
}


def test_help_and_what_is_misspelt_wait_for_nothing_heavy(tmp_path: Path) -> None:
    lists = [*([name, "--help"] for name in COMMANDS), *(words.split() for words in MISSPELT)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([["--help"], *lists]),
        cwd=tmp_path,
        env=PLAIN,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    first, *ended = answer["ended"]
    for name, (status, out, _) in zip(COMMANDS, ended, strict=False):
        assert name in first[1]
        assert status == 0
        assert f"Usage: bench {name}" in out
    for words, (status, out, err) in zip(MISSPELT, ended[len(COMMANDS) :], strict=True):
        assert (status, out) == (2, ""), words
        assert err.startswith("error: ")
        assert MISSPELT[words] in err
    assert set(HEAVY) & set(answer["modules"]) == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_help_text_is_shown_as_it_is_written(command: str) -> None:
    """What stands in brackets was taken for markup once, and not shown."""
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "300", "TERM": "dumb"})
    words = " ".join(shown.output.replace("│", " ").split())
    texts = [COMMANDS[command].help, *(one.help for one in COMMANDS[command].params)]
    assert len(texts) > 1
    for text in filter(None, texts):
        assert " ".join(text.split()) in words
    for one in COMMANDS[command].params:
        if isinstance(one.default, str) and one.default:
            assert f"[default: {one.default}]" in words


# --- Completion ----------------------------------------------------------------------------------


def completed(line: str) -> list[str]:
    """What bash would be offered at the end of this line."""
    *before, _ = line.split(" ")
    ended = CliRunner().invoke(
        app,
        [],
        prog_name="bench",
        env={
            "_BENCH_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(before)),
        },
    )
    return ended.output.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("bench lea", ["leaderboard"]),
        ("bench run ss-d", ["ss-dcec", "ss-dcec-kl"]),
        ("bench run --method kmeans,scan-s", ["kmeans,scan-selflabel"]),
        ("bench check spread", ["spread-and-match"]),
        ("bench run --schedule ", ["paper", "quick", "smoke"]),
        ("bench run --protocol inductive-", ["inductive-55k"]),
        ("bench leaderboard --level fe", ["few"]),
        ("bench run --level 5%,f", ["5%,few"]),
        ("bench run --device cu", ["cuda"]),
    ],
)
def test_a_shell_completes(line: str, offered: list[str]) -> None:
    assert completed(line) == offered


def test_completion_of_methods_imports_none(tmp_path: Path) -> None:
    code = "from bench.cli import app\nimport atexit, sys\n"
    code += (
        f"atexit.register(lambda: print(set({HEAVY}) & set(sys.modules)))\napp(prog_name='bench')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=PLAIN
        | {"_BENCH_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "bench run --method fix"},
        capture_output=True,
        text=True,
    )
    assert "fixmatch" in done.stdout, done.stderr
    assert done.stdout.endswith("set()\n")


def test_a_script_for_the_shell_is_there() -> None:
    ended = CliRunner().invoke(app, [], prog_name="bench", env={"_BENCH_COMPLETE": "source_bash"})
    assert "complete -o default -F _bench_completion bench" in ended.output


# --- The names that files tell -------------------------------------------------------------------


def test_the_files_tell_the_names_that_are_registered(entries: dict[str, registry.Entry]) -> None:
    ours = Path(registry.__file__).parent
    there = {name for name, entry in entries.items() if ours in Path(entry.origin).parents}
    found = names.scan()
    assert found.complete
    assert set(found.names) == there
    assert len(there) > 30


@pytest.mark.parametrize(
    ("code", "found", "complete"),
    [
        ("from methods.registry import register\n@register('a', x=1)\nclass A: ...", ["a"], True),
        ("from methods.registry import register as r\n@r('a')\nclass A: ...", ["a"], True),
        ("from methods import registry\n@registry.register('a')\nclass A: ...", ["a"], True),
        ("from methods.registry import register\nfor x in 'ab': register(x)(A)", [], False),
        ("from methods.registry import register\nmine = register", [], False),
        ("from methods.registry import register\nregister(*['a'])(A)", [], False),
        ("register = 'a name of theirs'", [], True),
        ("@register('a'", [], False),
        ("x = 1", [], True),
    ],
)
def test_what_a_file_tells(tmp_path: Path, code: str, found: list[str], complete: bool) -> None:
    path = tmp_path / "some.py"
    path.write_text(code)
    assert names.scan_files([path]) == names.Scan(tuple(found), complete)


def test_with_a_plugin_nothing_is_refused_before_it_is_imported(tmp_path: Path) -> None:
    """It may import others that register methods."""
    path = tmp_path / "some.py"
    path.write_text("from methods.registry import register\n@register('mine')\nclass A: ...")
    found = names.scan([path])
    assert "mine" in found.names
    assert not found.complete
