"""What every training loop here needs: images on the device, seeded draws, precision, batches.

Randomness is stateless: the order of epoch 7 is drawn from (seed, "epoch", 7), never from the state
that six epochs left behind. So a loop that goes on after a kill draws what it would have drawn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import torch

from methods.method import Context, derive_seed


def image_tensor(X: np.ndarray, device: str) -> torch.Tensor:
    """Images ``(n, h, w)`` or ``(n, h, w, c)`` as a uint8 tensor ``(n, c, h, w)`` on `device`.

    They stay uint8 (70,000 images are 55 MB); `pixels` converts one batch at a time.
    """
    images = torch.from_numpy(np.array(X, copy=True))  # own copy: a map is read-only
    images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(3, 1)
    return images.contiguous().to(device)


def pixels(images: torch.Tensor) -> torch.Tensor:
    """A batch of uint8 images as float32 in [0, 1]."""
    return images.float().div_(255)


def generator(seed: int, *words: object) -> torch.Generator:
    """A CPU generator for one purpose: a function of `seed` and `words` alone."""
    name = "/".join(str(word) for word in words)
    return torch.Generator().manual_seed(derive_seed(seed, name))


def epoch_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    """The shuffled order ``(n,)`` of epoch number `epoch`."""
    return torch.randperm(n, generator=generator(seed, "epoch", epoch))


def autocast(context: Context) -> contextlib.AbstractContextManager[object]:
    """Matrix products in bf16 where the context asks for it; weights and losses stay fp32."""
    if context.precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(context.device).type, dtype=torch.bfloat16)


def in_batches(
    function: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    context: Context,
    batch_size: int = 1000,
) -> torch.Tensor:
    """``function(pixels)`` of all `images`, without gradients: float32 rows on the CPU."""
    rows = []
    with torch.inference_mode(), autocast(context):
        for batch in images.split(batch_size):
            rows.append(function(pixels(batch)).float().cpu())
    return torch.cat(rows)
