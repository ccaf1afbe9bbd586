"""Texts of others, method authors' and files': what of them can be kept, and be shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# Category Cc of Unicode, but for newline and tab, and what UTF-8 has no bytes for.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    r"""A text that a terminal shows and does not obey: control codes are written out, ``\x1b``.

    Newlines and tabs stay.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def storable(value: Any) -> Any:
    r"""A value of JSON whose texts UTF-8 can hold: half a surrogate pair as ``\udcff``.

    Such texts come from names of files that are not UTF-8.
    """
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {storable(name): storable(one) for name, one in value.items()}
    return [storable(one) for one in value] if isinstance(value, list | tuple) else value


def unstorable(value: Any) -> str | None:
    r"""Where in a value of JSON a text is that UTF-8 cannot hold, as ``$.params.x``; None if none.

    Examples
    --------
    >>> unstorable({"params": {"x": [1, "\udcff"]}})
    '$.params.x[1]'
    """
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return next(_unstorable(value, "$"), "$")
    return None


def _unstorable(value: Any, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _unstorable(str(name), at)
            yield from _unstorable(one, f"{at}.{name}")
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            yield from _unstorable(one, f"{at}[{i}]")
    elif storable(value) != value:
        yield str(storable(at))


def ending(text: str, most: int) -> str:
    """The last `most` characters of a text, where an error says what it is about."""
    return text if len(text) <= most else f"… {text[-most:]}"
