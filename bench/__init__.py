"""The suite: runs methods on datasets at several levels of supervision, and reports.

In Python, ``bench.run(...)`` is what the command ``bench run`` calls, and
``bench.load_results(folder)`` gives the records as a pandas DataFrame.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.python import run
    from bench.records.store import load_results

__all__ = ["load_results", "run"]


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: ``bench --help`` must not wait for torch."""
    if name in __all__:
        from bench.core.shadows import check_methods

        check_methods()
    if name == "run":
        from bench.python import run

        return run
    if name == "load_results":
        from bench.records.store import load_results

        return load_results
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
