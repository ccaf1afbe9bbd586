"""What every training loop here needs: images on the device, seeded draws, precision, batches.

Randomness is stateless: the order of epoch 7 is drawn from (seed, "epoch", 7), never from the state
that six epochs left behind. So a loop that goes on after a kill draws what it would have drawn.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from methods.method import Arrays, Context, derive_seed

KERAS_EPSILON = 1e-7  # of Adam; torch's own default is 1e-8


def image_tensor(X: np.ndarray, device: str) -> torch.Tensor:
    """Images ``(n, h, w)`` or ``(n, h, w, c)`` as a uint8 tensor ``(n, c, h, w)`` on `device`.

    They stay uint8 (70,000 images are 55 MB); `pixels` converts one batch at a time.
    """
    images = torch.from_numpy(np.array(X, copy=True))  # own copy: a map is read-only
    images = images.unsqueeze(1) if images.ndim == 3 else images.movedim(3, 1)
    return images.contiguous().to(device)


def pixels(images: torch.Tensor) -> torch.Tensor:
    """A batch of uint8 images as float32 in [0, 1]; float images are there already."""
    return images / 255 if images.dtype == torch.uint8 else images


def generator(seed: int, *words: object) -> torch.Generator:
    """A CPU generator for one purpose: a function of `seed` and `words` alone."""
    name = "/".join(str(word) for word in words)
    return torch.Generator().manual_seed(derive_seed(seed, name))


def epoch_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    """The shuffled order ``(n,)`` of epoch number `epoch`."""
    return torch.randperm(n, generator=generator(seed, "epoch", epoch))


class Batches:
    """The rows of each batch, numbered on over all passes through n images.

    ``Batches(...)[i]`` is an int64 tensor on the device. The last batch of a pass is the short
    rest. It depends on the number i alone, so that a resumed loop goes on.

    Parameters
    ----------
    n : number of images.
    batch_size : images per batch.
    seed : of the order, a new one in every pass. None takes the images in their own order.
    device : where the rows are wanted.
    """

    def __init__(self, n: int, batch_size: int, seed: int | None, device: str) -> None:
        self._n = n
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self._order = torch.arange(n, device=device)
        self._pass: int | None = None

    def __getitem__(self, iteration: int) -> torch.Tensor:
        number, position = divmod(iteration, math.ceil(self._n / self._batch_size))
        if self._seed is not None and number != self._pass:
            self._order = epoch_order(self._n, self._seed, number).to(self._device)
            self._pass = number
        return self._order[position * self._batch_size : (position + 1) * self._batch_size]


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
    """``function(pixels)`` of all `images`, without gradients: float32 rows on their device."""
    rows = []
    with torch.inference_mode(), autocast(context):
        for batch in images.split(batch_size):
            rows.append(function(pixels(batch)).float())
    return torch.cat(rows)


def adam(parameters: Iterable[torch.nn.Parameter], lr: float) -> torch.optim.Adam:
    """Adam as Keras sets it up; on a CUDA device such that a graph can hold its steps."""
    parameters = list(parameters)
    on_cuda = any(parameter.is_cuda for parameter in parameters)
    return torch.optim.Adam(parameters, lr=lr, eps=KERAS_EPSILON, fused=True, capturable=on_cuda)


def check_training(*, epochs: int, batch_size: int, lr: float) -> None:
    """Raise ValueError for a parameter of a training loop that is out of range."""
    if epochs < 0:
        raise ValueError(f"epochs is {epochs}; expected 0 or more")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"lr is {lr}; expected a positive number")


WEIGHTS = "weights."


def weight_arrays(network: nn.Module) -> Arrays:
    """The weights of `network`, one array per entry of its ``state_dict``, under prefixed names."""
    return {
        WEIGHTS + name: np.array(value.detach().cpu().numpy(), order="C")
        for name, value in network.state_dict().items()
    }


def load_weights(network: nn.Module, arrays: Mapping[str, np.ndarray], part: str = "") -> None:
    """Set the weights of `network` from those that `weight_arrays` gave, or from a part of them.

    Parameters
    ----------
    part : ``"encoder."`` takes the weights of the attribute ``encoder`` of the saved network.

    Raises
    ------
    ValueError : the weights do not fit the network, or some are missing.
    """
    prefix = WEIGHTS + part
    state: dict[str, Any] = {
        name.removeprefix(prefix): torch.from_numpy(np.array(array))  # a copy: maps are read-only
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"the stored weights do not fit a {type(network).__name__} of this size: {error}"
        ) from error


class Resumable:
    """A training loop that goes on after it was killed: its parts, its history, its checkpoint.

    Parameters
    ----------
    name : of the checkpoint.
    context : whose checkpoint and history are used.
    parts : by name, what has a ``state_dict``: modules and the optimiser.
    """

    def __init__(self, name: str, context: Context, parts: Mapping[str, Any]) -> None:
        self.history: list[dict[str, Any]] = []
        self._parts = parts
        self._context = context
        self._checkpoint = context.checkpoint(name)

    def restore(self) -> dict[str, Any]:
        """Bring the parts back to the state saved last; the ``values`` saved with it, or nothing.

        The history that a killed process had logged died with it, so that it is logged again.
        """
        state = self._checkpoint.load()
        if state is None:
            return {}
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        for row in state["history"]:
            self.log(**row)
        return state["values"]

    def log(self, **row: float | int | str | None) -> None:
        """Add a row to the history."""
        self._context.log(**row)
        self.history.append(row)

    def save(self, **values: Any) -> None:
        """Offer the parts, the history and further `values` to the checkpoint."""
        self._checkpoint.save(
            lambda: {
                **{name: part.state_dict() for name, part in self._parts.items()},
                "history": list(self.history),
                "values": values,
            }
        )


def finite(loss: torch.Tensor, what: str) -> float:
    """The value of a scalar; a FloatingPointError where it is not finite."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(f"{what} became {value}; lower the learning rate")
    return value
