"""The libraries that workers need, imported together: that takes seconds, and a fork has them."""

from __future__ import annotations

import importlib
import weakref

LIBRARIES = (
    "torch",
    "filelock",
    "msgspec",
    "platformdirs",
    "scipy.optimize",
    "scipy.sparse.csgraph",
    "scipy.sparse.linalg",
    "scipy.stats",
    "sklearn.cluster",
    "sklearn.datasets",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.mixture",
    "sklearn.neighbors",
    "sklearn.semi_supervised",
)


def import_libraries() -> None:
    """Import what workers are going to need, so that forks of this process can use it.

    Of threads it starts only OpenBLAS', which that library ends before a fork. It never asks
    whether there is CUDA: the answer would start CUDA, which then works in no fork. The first
    optimiser imports torch's compiler, which takes as long as torch itself.

    What the libraries would tidy up at the end of this process is left to the system: each fork
    would do it too, for 40 ms, and copy the pages that it takes apart.
    """
    for name in LIBRARIES:
        importlib.import_module(name)
    import torch

    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    # Without the registry forks are slower. It may lose members to a collection meanwhile.
    for finalizer in tuple(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False
