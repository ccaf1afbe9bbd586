"""What may be chosen, and what is said of anything else.

It costs nothing to import, and imports nothing of ``methods``, which something of the user's may
hide (`bench.core.shadows`), before that is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
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
RESULTS = Path("my-results")
RESULTS_VARIABLE = "BENCH_RESULTS"


def results_folder() -> Path:
    """Where records lie unless something else is said: ``$BENCH_RESULTS``, or ``my-results``.

    Not ``results``: in a checkout that is where the published records are.
    """
    return Path(os.environ.get(RESULTS_VARIABLE) or RESULTS)


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
    """The seeds that are meant: 3 are 0, 1 and 2; a sequence names each.

    Raises
    ------
    BenchError : no seed, one that is no whole number from 0 on, or one twice.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 1:
            raise BenchError(f"seeds is {given}; expected at least 1, or a list such as 0,3,4")
        return tuple(range(given))
    found = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    whole = [isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in found]
    if not found or not all(whole) or len(set(found)) < len(found):
        raise BenchError(
            f"seeds is {given!r}; expected how many, or different whole numbers such as 0,3,4"
        )
    return found
