"""What is typed behind options, as values: lists, choices, times, parameters of methods."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from bench.core.errors import BenchError

_AS_PYTHON = {"true": "True", "false": "False", "null": "None", "none": "None"}


def split_commas(values: list[str]) -> list[str]:
    """``["a,b", "c"]`` as ``["a", "b", "c"]``."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def check_choice(option: str, given: str | None, known: tuple[str | None, ...]) -> None:
    """Refuse a value that an option does not have."""
    if given not in known:
        words = ", ".join(word for word in known if word)
        raise BenchError(f"{option} is {given!r}; expected one of {words}")


def parse_timeout(text: str) -> float | None:
    """``90s``, ``30m`` or ``3h`` as seconds; ``none`` sets no limit."""
    if text == "none":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or float(match[1]) == 0:
        raise BenchError(f"--timeout is {text!r}; expected a time such as 90s, 30m or 3h, or none")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def parse_seeds(text: str) -> int | tuple[int, ...]:
    """``3``: how many; ``0,3,4`` (or ``2,``): these."""
    parts = split_commas([text])
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise BenchError(
            f"--seeds is {text!r}; expected how many, such as 3, or which, such as 0,3,4"
        )
    return int(parts[0]) if "," not in text else tuple(map(int, parts))


def parse_changes(texts: list[str]) -> dict[str, dict[str, Any]]:
    """``["dcec.lam=0.1"]`` as ``{"dcec": {"lam": 0.1}}``; a value that is no literal is text.

    ``true``, ``false`` and ``null`` are read as in JSON.
    """
    changes: dict[str, dict[str, Any]] = {}
    for text in texts:
        match = re.fullmatch(r"([^.=\s]+)\.(\w+)=(.*)", text)
        if not match:
            raise BenchError(f"--set is {text!r}; expected METHOD.PARAM=VALUE, e.g. dcec.lam=0.1")
        method, name, value = match.groups()
        try:
            parsed = ast.literal_eval(_AS_PYTHON.get(value, value))
        except (ValueError, SyntaxError):
            parsed = value
        except (RecursionError, MemoryError):
            raise BenchError(f"--set is {text[:80]!r}…, which is nested too deep") from None
        try:
            json.dumps(parsed)
        except (TypeError, ValueError, RecursionError):  # a set, bytes, a complex number
            raise BenchError(
                f"--set is {text!r}; expected a value that a record can hold: numbers, texts, "
                "True, False, None, lists and dicts of these"
            ) from None
        changes.setdefault(method, {})[name] = parsed
    return changes
