"""``python tests/write_outcomes.py NAME…``: keep new outcomes after a version was raised.

A name is ``method/ss-dcec`` or ``stage/kmeans``, as `test_outcomes` says it; ``--all`` writes every
one. Each is computed three times, to see what rounding does to it: with one thread, with two, and
in a process that is kept from newer instructions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import fixed_fits


def main(wanted: list[str]) -> int:
    """Write the outcomes of these names; 2 for a name that does not exist."""
    if wanted[:1] == ["--print"]:  # how this script asks another process
        fixed_fits.names()
        print(json.dumps({name: fixed_fits.outcome(name) for name in wanted[1:]}))
        return 0
    known = fixed_fits.names()
    chosen = known if wanted == ["--all"] else wanted
    unknown = sorted(set(chosen) - set(known))
    if unknown or not chosen:
        print(f"no such name: {', '.join(unknown) or 'none given'}; known: {', '.join(known)}")
        return 2
    older = _with_older_instructions(chosen)
    for name in chosen:
        made = fixed_fits.outcome(name)
        others = (fixed_fits.outcome(name, threads=2), older[name])
        labels, numbers = zip(*[fixed_fits.distance(made, o) for o in others], strict=True)
        made["rounding"] = {"labels": max(labels), "numbers": float(f"{max(numbers):.2g}")}
        fixed_fits.write(name, made)
        print(f"written: {fixed_fits.path_of(name).name}, rounding {made['rounding']}")
    return 0


def _with_older_instructions(names: list[str]) -> dict[str, fixed_fits.Outcome]:
    done = subprocess.run(
        [sys.executable, __file__, "--print", *names],
        env=os.environ | fixed_fits.OLDER,
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, fixed_fits.Outcome] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
