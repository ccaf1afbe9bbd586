"""What this machine is and offers: for every record, and for `bench doctor`."""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.core import cgroup
from bench.core.choices import check_choices
from bench.core.errors import BenchError

NVIDIA = Path("/dev/nvidiactl")  # there where its driver is loaded
MPS_PIPES = "/tmp/nvidia-mps"  # the default of NVIDIA's daemon
MOST_JOBS = 10_000
MEMORY_OF_A_JOB = 3  # GiB; fits of 70,000 images take 1 to 3
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn")


def core_count() -> int:
    """Processor cores that this process may use: in a container those of its quota, rounded up."""
    affinity = hasattr(os, "sched_getaffinity")
    there = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    quota = cgroup.cores()
    return there if quota is None else max(1, min(there, math.ceil(quota)))


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_gib() -> float:
    """Memory in GiB: of the machine, or what its container leaves this process."""
    import psutil

    total, limit = psutil.virtual_memory().total, cgroup.memory()
    return (total if limit is None else min(total, limit)) / 2**30


@functools.cache
def has_native_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices natively (Linux tells; elsewhere False)."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text()


def has_mps() -> bool:
    """Whether NVIDIA's Multi-Process Service takes the processes of this user.

    Without it processes on one GPU take turns; with it they run at the same time. Its daemon
    listens in the folder that ``CUDA_MPS_PIPE_DIRECTORY`` names.
    """
    return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", MPS_PIPES)) / "control").exists()


def resolve_device(device: str) -> str:
    """``"cpu"`` or ``"cuda"`` for ``auto``, ``cpu`` or ``cuda``.

    Raises
    ------
    BenchError : an unknown device, or cuda where torch finds none.
    """
    import torch

    check_choices(device=device)
    if device == "cuda" and not torch.cuda.is_available():
        raise BenchError("device is 'cuda', but torch finds no CUDA device; use --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def parse_jobs(jobs: int | str) -> int | None:
    """The number of processes that is meant; None for ``"auto"``.

    Raises
    ------
    BenchError : neither ``"auto"`` nor a whole number from 1 on.
    """
    if jobs == "auto":
        return None
    if isinstance(jobs, str) and re.fullmatch("[0-9]{1,19}", jobs):
        jobs = int(jobs)
    if not isinstance(jobs, int) or isinstance(jobs, bool):
        raise BenchError(f"jobs is {repr(jobs)[:80]}; expected a whole number, at least 1, or auto")
    if not 1 <= jobs <= MOST_JOBS:
        raise BenchError(f"jobs is {jobs}; expected at least 1 and at most {MOST_JOBS:,}")
    return jobs


def resolve_jobs(jobs: int | str, device: str) -> int:
    """How many processes run at a time; ``"auto"`` is one for each core, and one on a GPU.

    On two cores two jobs of one thread did 14 % more than one of two. Each has 3 GiB of memory at
    least.

    Raises
    ------
    BenchError : neither ``"auto"`` nor a whole number from 1 on.
    """
    if (number := parse_jobs(jobs)) is not None:
        return number
    no_gpu = device == "cpu" or not NVIDIA.exists()  # cheaper than to import torch and ask it
    if no_gpu or resolve_device(device) == "cpu":
        return max(1, min(core_count(), int(memory_gib() / MEMORY_OF_A_JOB)))
    return 1


def resolve_precision(precision: str, device: str) -> str:
    """``"fp32"`` or ``"bf16"``; ``auto`` is bf16 where the resolved `device` has it natively."""
    if precision != "auto":
        return precision
    if device == "cpu":
        return "bf16" if has_native_bf16() else "fp32"
    import torch

    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def accelerator(device: str) -> str | None:
    """The name of the CUDA device, or None on the processor."""
    if device == "cpu":
        return None
    import torch

    return torch.cuda.get_device_name()


def peak_memory_mib() -> float:
    """The largest resident memory of this process so far, in MiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def versions() -> dict[str, str]:
    """Python's version and those of the numerical libraries."""
    found = {"python": platform.python_version(), "bench": bench_version()}
    return found | {name: importlib.metadata.version(name) for name in LIBRARIES}


def bench_version() -> str:
    """The version of this distribution."""
    return importlib.metadata.version("fewlabels-bench")


@functools.cache
def commit(folders: tuple[str, ...] = ("bench", "methods")) -> dict[str, Any]:
    """The commit of the checkout that this code runs from, and whether `folders` differ from it.

    Outside a checkout (an installed wheel) the commit is None.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        sha = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", *folders)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the commit is unknown: {error}", file=sys.stderr)
        return {"commit": None, "dirty": None}
    return {"commit": sha, "dirty": bool(changed)}


def _git(root: Path, *words: str) -> str:
    """What git says; it takes no lock, which a killed worker would leave in the checkout."""
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _graphs_wanted(device: str) -> str | None:
    """Which training steps are to be CUDA graphs; None on a processor, which has none."""
    if device != "cuda":
        return None
    from methods.toolkit.fast import cuda_graphs

    return cuda_graphs.wanted()


def describe(device: str, precision: str, threads: int, concurrency: int) -> dict[str, Any]:
    """What a record says of where it was made.

    Raises
    ------
    ValueError : ``BENCH_TORCH_COMPILE`` or, on a GPU, ``BENCH_CUDA_GRAPHS`` has a value that it
        cannot have.
    """
    from methods.toolkit.fast import compiled

    return {
        "device": device,
        "accelerator": accelerator(device),
        "cuda_graphs": _graphs_wanted(device),
        "compiled": compiled.wanted(),
        "processor": processor(),
        "cores": core_count(),
        "threads": threads,
        "concurrency": concurrency,
        "precision": precision,
        "versions": versions(),
        **commit(),
    }
