"""How the tests run the command: real processes, in a place of their own, with the plugins."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import warm

from bench.records.store import read_record

PLUGINS = Path(__file__).parent / "plugins"
DEADLINE_SECONDS = 240.0  # far more than anything takes; hanging is what it is for
COLOURS = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS")  # these colour what is no terminal
PLAIN = {name: value for name, value in os.environ.items() if name not in COLOURS}
# Carries out many commands in one process, because importing torch takes seconds.
DRIVER = """
import contextlib, io, json, sys, traceback
from bench.cli import main

def carry_out(words):
    sys.argv = ["bench", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
            status = 1
    return status, out.getvalue(), err.getvalue()

json.dump([carry_out(words) for words in json.load(sys.stdin)], sys.stdout)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that it wrote."""
        return self.out + self.err


class Place:
    """A folder to run the command in, with results and a cache of its own.

    As a context manager it ends, on leaving, every process that still works for it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results = folder / "results"
        self.environment = PLAIN | {
            "BENCH_CACHE": str(folder / "cache"),
            "BENCH_RESULTS": "results",
            "BENCH_CHECKPOINT_SECONDS": "0",
            "BENCH_TEST_FOLDER": str(folder),
        }

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def command(self, words: Sequence[str], plugins: Sequence[str | Path] = ()) -> list[str]:
        """``bench WORDS`` as an argument list; a plugin is a file or a name in ``plugins/``."""
        files = [p if isinstance(p, Path) else PLUGINS / f"{p}.py" for p in plugins]
        options = [word for file in files for word in ("--plugin", str(file))]
        return [sys.executable, "-m", "bench", *words, *options]

    def run(self, words: str, *plugins: str | Path) -> Ended:
        """``bench run`` on digits with the schedule ``smoke``, to its end."""
        with self.start(words, *plugins) as process:
            out, err = process.communicate(timeout=DEADLINE_SECONDS)
        return Ended(process.returncode, out, err)

    @contextlib.contextmanager
    def start(self, words: str, *plugins: str | Path) -> Iterator[subprocess.Popen[str]]:
        """The same, while it runs; it is killed on leaving if it still does."""
        process = warm.Popen(
            self.command(self._words(words), plugins),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def _words(self, words: str) -> list[str]:
        given = words.split()
        for option, value in (("--dataset", "digits"), ("--schedule", "smoke")):
            if option not in given:
                given += [option, value]
        return ["run", *given]

    def commands(self, *all_words: str | Sequence[str]) -> list[Ended]:
        """Several commands one after the other in one process."""
        lists = [words.split() if isinstance(words, str) else list(words) for words in all_words]
        process = warm.Popen(
            [sys.executable, "-c", DRIVER],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        out, err = process.communicate(json.dumps(lists), DEADLINE_SECONDS)
        assert process.returncode == 0, err
        return [Ended(*answer) for answer in json.loads(out)]

    def files(self) -> dict[str, Path]:
        """The records' files, by ``method/level/seed``."""
        found = sorted(self.results.rglob("trials/*/*/*/*/*.json"))
        return {"/".join(file.with_suffix("").parts[-3:]): file for file in found}

    def records(self) -> dict[str, dict[str, Any]]:
        """The records, by ``method/level/seed``; every file must be whole."""
        return {name: dict(read_record(file)) for name, file in self.files().items()}

    def statuses(self) -> dict[str, str]:
        """The status of every record."""
        return {name: record["status"] for name, record in self.records().items()}

    def stamps(self) -> dict[str, tuple[int, bytes]]:
        """When each record was written, and its bytes."""
        return {
            name: (file.stat().st_mtime_ns, file.read_bytes())
            for name, file in self.files().items()
        }

    def read(self, name: str) -> str:
        """What plugins wrote into the file `name`; empty where there is none."""
        file = self.folder / name
        return file.read_text() if file.exists() else ""

    def processes(self) -> list[psutil.Process]:
        """Every process that works for this place, known by its folder; no zombies."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # not ours, or it has just ended
                ours = Path(process.cwd()).is_relative_to(self.folder)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def wait_for(what: str, condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    """Return once `condition` holds; fail, saying `what`, when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for: {what}"
        time.sleep(0.05)


def kill_9(process: subprocess.Popen[str]) -> None:
    """What ``kill -9`` does to this one process."""
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
