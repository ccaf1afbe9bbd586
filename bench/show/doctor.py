"""``bench doctor``: what this machine offers, and whether a run can start."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from bench.core import machine
from bench.core.errors import BenchError, WriteError
from bench.core.files import check_writable
from bench.data import datasets

MPS = {  # several processes at a time did 340 trials in 7 minutes, one at a time take turns
    True: ", with MPS: several jobs at a time are worth it",
    False: ", without MPS: jobs would take turns; for more than one start NVIDIA's daemon "
    "(nvidia-cuda-mps-control -d)",
}


def examine(log: Callable[[str], None]) -> dict[str, Any]:
    """All that there is to know, as ``bench doctor --json`` prints it.

    Parameters
    ----------
    log : is told what the search for the images has to say.
    """
    import torch

    cache, images = _cache(), _images(log)
    return {
        "healthy": cache["error"] is None and images["error"] is None,
        "processor": machine.processor(),
        "cores": machine.core_count(),
        "native_bf16": machine.has_native_bf16(),
        "memory_gib": round(machine.memory_gib(), 1),
        "accelerator": machine.accelerator("cuda") if torch.cuda.is_available() else None,
        "mps": machine.has_mps() if torch.cuda.is_available() else None,
        "versions": machine.versions(),
        "cache": cache,
        "data": images,
    }


def _cache() -> dict[str, Any]:
    folder = datasets.cache_dir()
    try:
        check_writable(folder)
    except WriteError as error:
        said = f"{error.__cause__}; set BENCH_CACHE to another folder"
        return {"folder": str(folder), "free_gib": None, "error": said}
    free = shutil.disk_usage(folder).free / 2**30
    return {"folder": str(folder), "free_gib": round(free, 1), "error": None}


def _images(log: Callable[[str], None]) -> dict[str, Any]:
    try:
        found = datasets.load("fashion-mnist", log=log)
    except BenchError as error:
        return {"name": "fashion-mnist", "images": None, "sha256": None, "error": str(error)}
    return {"name": found.name, "images": len(found.y), "sha256": found.digest, "error": None}


def as_text(found: dict[str, Any]) -> str:
    """What `examine` found, a line for each thing."""
    cache, images = found["cache"], found["data"]
    bf16 = "native" if found["native_bf16"] else "no"
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    usable = cache["error"] is None
    kept = f"{cache['folder']}, {cache['free_gib']} GiB free" if usable else cache["error"]
    if images["error"] is None:
        data = f"{images['name']}: {images['images']} images, sha256 {images['sha256'][:16]}"
    else:
        data = f"not usable: {images['error']}"
    return "\n".join(
        [
            f"processor   {found['processor']}, {found['cores']} cores, bf16 products: {bf16}",
            f"memory      {found['memory_gib']} GiB",
            f"accelerator {found['accelerator'] or 'none'}{MPS.get(found['mps'], '')}",
            f"versions    {versions}",
            f"cache       {'' if usable else 'not usable: '}{kept}",
            f"data        {data}",
        ]
    )
