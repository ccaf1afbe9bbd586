"""Timings of this project's code, beside peers that do the same work; see `tox -e bench`."""
