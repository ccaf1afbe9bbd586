"""Whether ``methods`` is our package, and not a folder or file of the user's of that name."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from bench.core.errors import BenchError

NAME = "methods"


def check_methods() -> None:
    """Refuse to go on where something else called ``methods`` would be imported.

    It lies beside the package ``bench``, which is what found this code.

    Raises
    ------
    BenchError : it is hidden; the message says by what.
    """
    ours = Path(__file__).resolve().parents[2] / NAME
    loaded = sys.modules.get(NAME)
    spec = importlib.util.find_spec(NAME) if loaded is None else loaded.__spec__
    if spec is None:
        raise BenchError(f"there is no package {NAME} in {ours.parent}; install this project again")
    places = list(spec.submodule_search_locations or [spec.origin or ""])
    if Path(places[0]).resolve() != ours:
        raise BenchError(
            f"{Path(places[0]).resolve()} hides the package {NAME} of this project, {ours}; rename "
            "it, or work in another folder"
        )
