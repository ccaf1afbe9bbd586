"""Kills at random moments of a run, which goes on each time as if nothing had been.

``BENCH_STRESS_KILLS`` says how many, ``BENCH_STRESS_SEED`` seeds the moments.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
from plugins_for_tests import Place, wait_for
from undisturbed import check_kept, outcomes, run_to_the_end

KILLS = int(os.environ.get("BENCH_STRESS_KILLS", "50"))
SEED = int(os.environ.get("BENCH_STRESS_SEED", "0"))
WORDS = "--method kmeans,kmeans-full,ss-dcec,supervised-mlp,slow,near --level 0%,1%,5% --jobs 2"
PLUGINS = ("simple", "slow")
SHARE = 0.5  # of the time of an undisturbed run: the longest that a run may take before its kill


def kill_once(place: Place, rng: random.Random, longest: float) -> str:
    """Kill a run within so many seconds, the runner alone or all of it; which, "" if it had ended.

    Nothing may go on working after that.
    """
    alone = rng.random() < 0.5
    with place.start(WORDS, *PLUGINS) as runner:
        with contextlib.suppress(subprocess.TimeoutExpired):
            runner.wait(rng.uniform(0, longest))
        runner.kill()
        if runner.wait(10) != -signal.SIGKILL:  # it had ended, if only just now
            return ""
        while not alone and (found := place.processes()):  # again: some may just be starting
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    try:
        wait_for("the end of the workers", lambda: not place.processes(), 60)
    except AssertionError as error:
        left = [
            process.as_dict(["pid", "ppid", "status", "cmdline"]) for process in place.processes()
        ]
        raise AssertionError(f"{error}; left after a kill of {alone=}: {left}") from error
    return "the runner" if alone else "everything"


def test_kills_at_random_moments(tmp_path: Path) -> None:
    began, rng = time.monotonic(), random.Random(SEED)
    killed: list[str] = []
    read, runs = 0, 1
    with contextlib.ExitStack() as stack:
        calm = run_to_the_end(stack.enter_context(Place(tmp_path / "calm")), WORDS, PLUGINS)
        longest = SHARE * (time.monotonic() - began)
        place = stack.enter_context(Place(tmp_path / "1"))
        while len(killed) < KILLS:
            if outcomes(place).keys() == calm.keys():
                run_to_the_end(place, WORDS, PLUGINS, calm)
                runs += 1
                place = stack.enter_context(Place(tmp_path / str(runs)))
            if what := kill_once(place, rng, longest):
                killed.append(what)
                read += check_kept(place, calm)
        run_to_the_end(place, WORDS, PLUGINS, calm)
    print(
        f"\nkills: {KILLS}, {killed.count('the runner')} of them of the runner alone; {runs} runs "
        f"of {len(calm)} files, {read} files read in between, all as undisturbed; "
        f"{time.monotonic() - began:.0f} s"
    )
