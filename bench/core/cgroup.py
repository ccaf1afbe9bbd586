"""What the control groups of this process leave it: a container's cores and memory, a job's.

The machine may have 64 cores and 256 GiB where the container has two cores and 4 GiB. Linux tells
so in files below ``/sys/fs/cgroup``, in two layouts (v2 and v1), for the group of this process and
for each group around it: the smallest limit on the way up counts. `joblib.cpu_count` looks at the
outermost group alone, and at no memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
GROUPS = Path("/proc/self/cgroup")
UNIFIED = ""  # where GROUPS names controllers, v2 names none


def cores(root: Path = ROOT, groups: Path = GROUPS) -> float | None:
    """How many cores' time the smallest quota grants, 1.5 say; None where there is none."""
    found = [_quota(path.read_text()) for path in _files(UNIFIED, "cpu.max", root, groups)]
    for path in _files("cpu", "cpu.cfs_quota_us", root, groups):
        period = path.with_name("cpu.cfs_period_us")
        if period.is_file():
            found.append(_quota(f"{path.read_text()} {period.read_text()}"))
    return min((quota for quota in found if quota is not None), default=None)


def memory(root: Path = ROOT, groups: Path = GROUPS) -> int | None:
    """The smallest limit of memory in bytes; None where there is none.

    The first version says that there is none by a number which no machine reaches.
    """
    files = [
        *_files(UNIFIED, "memory.max", root, groups),
        *_files("memory", "memory.limit_in_bytes", root, groups),
    ]
    texts = [path.read_text().strip() for path in files]
    return min((int(text) for text in texts if text.isdigit()), default=None)


def _quota(text: str) -> float | None:
    """Cores from microseconds granted and the period: ``50000 100000``; ``max`` or -1 is none."""
    match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s*", text)
    return int(match[1]) / int(match[2]) if match and int(match[2]) else None


def _files(controller: str, name: str, root: Path, groups: Path) -> Iterator[Path]:
    """The files `name` of the group of this process and of those around it, which exist.

    A container may see its own group as the root while `groups` names it as the machine does: what
    is not there is passed over. The outermost group is always looked at.
    """
    if not groups.is_file():
        return
    for line in groups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        for mount in dict.fromkeys((controllers, controller)):  # "cpu,cpuacct", "cpu"
            if (root / mount).is_dir():
                group = root / mount / path.lstrip("/")
                inside = [group, *group.parents] if ".." not in group.parts else [root / mount]
                for folder in inside[: inside.index(root / mount) + 1]:
                    if (folder / name).is_file():
                        yield folder / name
                break
