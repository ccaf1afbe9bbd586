"""The one exception that the command line turns into one clear sentence."""

from __future__ import annotations


class BenchError(Exception):
    """Something the user gave cannot be used.

    The message says what was given, what was expected and what to do; the command line
    prints it without a traceback and exits with a non-zero status.
    """


class WriteError(BenchError):
    """What is to be kept cannot be written: no right to, no room, no folder."""
