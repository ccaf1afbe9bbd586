"""What may be chosen, and what is said of anything else.

It costs nothing to import, and imports nothing of ``methods``, which something of the user's may
hide (`bench.core.shadows`), before that is asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path

from bench.core.errors import BenchError

PROTOCOLS: tuple[str, ...] = ("transductive", "inductive", "inductive-55k")
SELECTIONS: tuple[str, ...] = ("stratified", "random", "first", "representative")
SCHEDULES: tuple[str, ...] = ("paper", "quick", "smoke")
PRECISIONS: tuple[str, ...] = ("auto", "fp32", "bf16")
DEVICES: tuple[str, ...] = ("auto", "cpu", "cuda")
BACKENDS: tuple[str, ...] = ("local", "dask")
RERUNS: tuple[str, ...] = ("stale", "failed", "all")
CHOICES = {
    "protocol": PROTOCOLS,
    "selection": SELECTIONS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "device": DEVICES,
    "backend": BACKENDS,
    "rerun": RERUNS,
}
MOST_SEEDS = 1000
LARGEST_SEED = 2**32 - 1  # scikit-learn and numpy take no larger one
LONGEST_S = 20 * 24 * 3600  # the system counts a wait in milliseconds, up to 24 days
RESULTS = Path("my-results")
RESULTS_VARIABLE = "BENCH_RESULTS"


def results_folder(given: object = None) -> Path:
    """Where records lie: what is `given`, else ``$BENCH_RESULTS``, else ``my-results``.

    Not ``results``: in a checkout that is where the published records are. A leading ``~`` is the
    user's folder, as in a shell.

    Raises
    ------
    BenchError : it is no path.
    """
    path = os.environ.get(RESULTS_VARIABLE) or RESULTS if given is None else given
    if not isinstance(path, str | Path) or path == "":
        raise BenchError(f"results is {path!r}; expected the path of a folder")
    try:
        if "\0" in str(path):
            raise ValueError("it has a character that no path can have")
        return Path(path).expanduser()
    except (RuntimeError, ValueError) as error:
        raise BenchError(f"results is {str(path)!r}, which cannot be a path: {error}") from error


def check_choice(what: str, given: object, known: Iterable[str]) -> None:
    """Refuse what is none of the `known`.

    Raises
    ------
    BenchError : it is none; the message suggests the nearest.
    """
    known = list(known)
    if given not in known:
        from methods.names import did_you_mean

        near = did_you_mean(str(given), known)
        raise BenchError(f"{what} is {given!r}; expected one of {', '.join(known)}{near}")


def check_choices(**given: str | None) -> None:
    """`check_choice` for everything in `CHOICES`, by its name; nothing need be run again.

    Raises
    ------
    BenchError : one of them is none of its choices.
    """
    for what, one in given.items():
        if one is not None or what != "rerun":
            check_choice(what, one, CHOICES[what])


def seed_list(given: int | Sequence[int]) -> tuple[int, ...]:
    """The seeds that are meant: 3 are 0, 1 and 2; a sequence names each. numpy's numbers will do.

    Raises
    ------
    BenchError : no seed, one that is no whole number from 0 on, or one twice.
    """
    if isinstance(given, Integral) and not isinstance(given, bool):
        n_seeds = int(given)
        if not 1 <= n_seeds <= MOST_SEEDS:
            raise BenchError(
                f"seeds is {n_seeds}; expected at least 1 and at most {MOST_SEEDS:,}, or a list "
                "such as 0,3,4"
            )
        return tuple(range(n_seeds))
    found = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    fine = [isinstance(x, Integral) and not isinstance(x, bool) and x >= 0 for x in found]
    if not found or not all(fine) or len(set(found)) < len(found) or max(found) > LARGEST_SEED:
        raise BenchError(
            f"seeds is {given!r}; expected how many, or different whole numbers such as 0,3,4, "
            f"none above {LARGEST_SEED}"
        )
    return tuple(map(int, found))


def check_parameter(what: str, value: object) -> None:
    """Refuse a value of a parameter that a record cannot hold.

    Raises
    ------
    BenchError : it is a set, bytes, infinite, no valid text or nested too deep, say.
    """
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError):
        raise BenchError(
            f"{what} is {ascii(value)[:80]}; expected a value that a record can hold: finite "
            "numbers, texts, True, False, None, lists and dicts of these"
        ) from None


def check_seconds(what: str, given: object) -> None:
    """Refuse a limit that is neither None nor a number of seconds that can be waited for.

    Raises
    ------
    BenchError : it is neither.
    """
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if given is not None and not (number and 0 < given <= LONGEST_S):  # type: ignore[operator]
        raise BenchError(
            f"{what} is {given!r}; expected seconds above 0, at most {LONGEST_S:,} (20 days), or "
            "None for no limit"
        )
