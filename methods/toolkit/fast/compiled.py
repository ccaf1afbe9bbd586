"""Networks whose kernels `torch.compile` makes, where ``BENCH_TORCH_COMPILE=on`` asks for it.

It makes one kernel of what lies between a network's products, and on an accelerator such kernels
can be part of a CUDA graph like all others. Off unless asked for: on one core (AMD EPYC, Zen 3)
SimCLR's step of 128 images in two views took .96 of its time, after more than a minute of
compiling, and on an accelerator it has not been timed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

VARIABLE = "BENCH_TORCH_COMPILE"


def wanted() -> bool:
    """Whether the environment variable ``BENCH_TORCH_COMPILE`` is ``on``; ``off`` if it is not set.

    Raises
    ------
    ValueError : the variable has another value.
    """
    given = os.environ.get(VARIABLE) or "off"
    if given not in ("on", "off"):
        raise ValueError(f"{VARIABLE} is {given!r}; expected on or off")
    return given == "on"


def compile_(parts: Iterable[object]) -> None:
    """Have the networks among these compiled when they are first called, if that is `wanted`.

    They stay the same objects with the same weights, and can be saved as before.

    Raises
    ------
    ValueError : see `wanted`.
    """
    from torch import nn  # `wanted` is asked where there may be no torch yet

    if wanted():
        for part in parts:
            if isinstance(part, nn.Module):
                part.compile()
