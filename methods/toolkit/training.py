"""What every training here needs: images on the device, seeded batches, precision, and one loop.

Randomness is stateless: the order of epoch 7 is drawn from (seed, "epoch", 7), never from the state
that six epochs left behind. So a loop that goes on after a kill draws what it would have drawn.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from methods.method import Arrays, Context
from methods.toolkit.draws import Draws, generator
from methods.toolkit.fast.compiled import compile_
from methods.toolkit.fast.cuda_graphs import Kind, Step, graphed

KERAS_EPSILON = 1e-7  # of Adam; torch's own default is 1e-8
WEIGHTS = "weights."

Parts = Mapping[str, nn.Module | torch.Tensor]

# From the rows (b,) of a batch and the number of the step: the loss to descend, or that loss and
# the parts of it that are watched instead; None skips the step.
Losses = Callable[[torch.Tensor, int], torch.Tensor | tuple[torch.Tensor, ...] | None]


# Images, precision, draws


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


def epoch_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    """The shuffled order ``(n,)`` of epoch number `epoch`."""
    return torch.randperm(n, generator=generator(seed, "epoch", epoch))


class Batches:
    """The rows of each batch, numbered on over all passes through n images.

    ``batches[i]`` is an int64 tensor on the device, and ``len(batches)`` how many make a pass. A
    batch depends on its number alone, so that a resumed loop goes on.

    Parameters
    ----------
    n : number of images.
    batch_size : images per batch.
    seed : of the order, a new one in every pass. None takes the images in their own order.
    device : where the rows are wanted.
    whole : True leaves out the short rest of a pass; n below `batch_size` is one batch.
    """

    def __init__(
        self, n: int, batch_size: int, seed: int | None, device: str, *, whole: bool = False
    ) -> None:
        self._n = n
        self._batch_size = min(batch_size, n)
        self._seed = seed
        self._device = device
        self._count = n // self._batch_size if whole else math.ceil(n / self._batch_size)
        self._order = torch.arange(n, device=device)
        self._pass: int | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> torch.Tensor:
        one_pass, position = divmod(number, self._count)
        if self._seed is not None and one_pass != self._pass:
            self._order = epoch_order(self._n, self._seed, one_pass).to(self._device)
            self._pass = one_pass
        return self._order[position * self._batch_size : (position + 1) * self._batch_size]


# Optimisers and what is checked


def adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Adam as Keras sets it up; on a CUDA device such that a graph can hold its steps."""
    parameters = list(parameters)
    on_cuda = any(parameter.is_cuda for parameter in parameters)
    return torch.optim.Adam(parameters, lr=lr, eps=KERAS_EPSILON, fused=True, capturable=on_cuda)


def set_rate_(group: dict[str, Any], rate: float) -> None:
    """Set the learning rate of a group of an optimiser; a tensor, which graphs read, in place."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def one_cycle(step: int, steps: int, peak: float) -> float:
    """The learning rate of a step: up to `peak` in the first 30 % of all steps, then down.

    Half cosines, from peak/25 and to peak/250,000.

    References
    ----------
    Smith and Topin, Super-convergence: Very fast training of neural networks using large learning
    rates, 2018.
    """
    top = 0.3 * steps
    if step < top:
        start, end, share = peak / 25, peak, step / top
    else:
        start, end, share = peak, peak / 250_000, (step - top) / (steps - top)
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def check_training(*, epochs: int, batch_size: int, lr: float) -> None:
    """Raise ValueError for a parameter of a training that is out of range."""
    if epochs < 0:
        raise ValueError(f"epochs is {epochs}; expected 0 or more")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"lr is {lr}; expected a positive number")


def check_finite(values: torch.Tensor, what: str) -> None:
    """Raise FloatingPointError where a value is not finite."""
    if not bool(values.isfinite().all()):
        raise FloatingPointError(f"{what} became nan or infinite; lower the learning rate")


# The loop


class Loop:
    """Every training loop here: descends the loss of one batch after the other.

    It keeps the history, says how far it has come, and goes on after it was killed: its parts are
    offered to the context's checkpoint before every step. Whoever takes rows from it descends::

        loop = Loop("cnn", losses, optimiser, batches, context, {"network": network})
        for steps in loop.epochs(10):  # or, if that is all: loop.train(10)
            for rows in steps:
                loop.descend(rows)
            loop.log(epoch=loop.epoch, loss=loop.mean())

    Parameters
    ----------
    name : of the checkpoint; errors name it.
    losses : see `Losses`. What it draws depends on nothing but a seed and the number of the step.
    optimiser : of what is trained.
    batches : the rows of each step.
    context : device, progress (``"step"``), history and checkpoint.
    parts : by name, what is saved besides the optimiser: modules, and tensors that `losses` or the
        method changes in place.
    schedule : the learning rate of each step, instead of the optimiser's own.
    draws : what `losses` draws from; it has to be the loop's own.
    captured : ``"measured"`` or ``"untimed"``: on a CUDA device the steps are replayed as CUDA
        graphs, see `graphed`. Then `losses` may read and change nothing but tensors that stay where
        they are, draws from `draws` alone, and ignores the number of the step.

    Attributes
    ----------
    done : how many steps are behind.
    history : the rows that were logged.
    """

    def __init__(
        self,
        name: str,
        losses: Losses,
        optimiser: torch.optim.Optimizer,
        batches: Batches,
        context: Context,
        parts: Parts,
        *,
        schedule: Callable[[int], float] | None = None,
        draws: Draws | None = None,
        captured: Kind | None = None,
    ) -> None:
        self.done = 0
        self._last = 0
        self.history: list[dict[str, Any]] = []
        self._name = name
        self._losses = losses
        self._optimiser = optimiser
        self._batches = batches
        self._context = context
        self._schedule = schedule
        self._draws = draws
        self._parts = parts
        self._sums = torch.zeros(8, dtype=torch.float64, device=context.device)  # rows, then losses
        self._n_watched = 1
        self._step: Step = self._plain_step
        self._checkpoint = context.checkpoint(name)
        self._restore()
        compile_(parts.values())
        step = None if captured is None else graphed(self._plain_step, context, captured)
        if step is not None:
            self._capture(step)

    def steps(self, last: int) -> Iterator[torch.Tensor]:
        """The rows ``(b,)`` of each step that is left until `last` are done."""
        yield from self._rows(last, last)

    def epochs(self, n_epochs: int) -> Iterator[Iterator[torch.Tensor]]:
        """For each epoch that is left, the one that a kill broke off first: `rows` of its steps."""
        size = len(self._batches)
        for epoch in range(self.done // size, n_epochs):
            yield self._rows((epoch + 1) * size, n_epochs * size)

    def train(self, n_epochs: int) -> np.ndarray:
        """All epochs that are left; the mean loss ``(n_epochs,)`` float64 of each is logged."""
        for steps in self.epochs(n_epochs):
            for rows in steps:
                self.descend(rows)
            self.log(epoch=self.epoch, loss=self.mean())
        return np.array([row["loss"] for row in self.history], dtype=np.float64)

    @property
    def epoch(self) -> int:
        """How many epochs are behind."""
        return self.done // len(self._batches)

    def _rows(self, until: int, last: int) -> Iterator[torch.Tensor]:
        """The rows of each step until so many are done; `last` is what is aimed at in the end."""
        self._last = last
        while self.done < until:
            self._checkpoint.save(self._state)
            yield self._batches[self.done]

    def descend(self, rows: torch.Tensor) -> None:
        """One step down the gradient of the loss of a batch."""
        if self._schedule is not None:
            for group in self._optimiser.param_groups:
                set_rate_(group, self._schedule(self.done))
        if self._draws is not None:
            self._draws.begin(self.done, len(rows))
        self._step(rows)
        self.done += 1
        self._context.progress("step", self.done, self._last)

    def _capture(self, step: Step) -> None:
        """Take a graphed step: what changes from step to step has to lie in tensors that stay."""
        self._step = step
        if self._draws is not None:
            self._draws.keep = True
        for group in self._optimiser.param_groups:
            if "capturable" in group:
                group["capturable"] = True
            if self._schedule is not None:
                group["lr"] = torch.tensor(float(group["lr"]), device=self._context.device)

    def means(self) -> list[float]:
        """The mean over images of what is watched, since the last call; empty without a step.

        Raises
        ------
        FloatingPointError : it is not finite.
        """
        n, *sums = self._sums[: 1 + self._n_watched].tolist()  # the one thing the host waits for
        self._sums.zero_()
        if n == 0:
            return []
        if not all(map(math.isfinite, sums)):
            raise FloatingPointError(
                f"the loss of {self._name} became nan or infinite before step {self.done}; lower "
                "the learning rate"
            )
        return [total / n for total in sums]

    def mean(self) -> float | None:
        """The mean loss over images since the last call; None without a step."""
        return next(iter(self.means()), None)

    def log(self, **row: float | int | str | None) -> None:
        """Add a row to the history."""
        self._context.log(**row)
        self.history.append(row)

    def _plain_step(self, rows: torch.Tensor) -> None:
        found = self._losses(rows, self.done)
        if found is None:
            return
        loss, *watched = found if isinstance(found, tuple) else (found,)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        watched = watched or [loss]
        self._n_watched = len(watched)
        weighted = len(rows) * torch.stack([torch.ones_like(loss), *watched]).detach().double()
        self._sums[: len(weighted)] += weighted  # stays on the device

    def _state(self) -> dict[str, Any]:
        parts = {"optimiser": self._optimiser, **self._parts}
        return {
            "done": self.done,
            "history": list(self.history),
            "sums": self._sums,
            "n_watched": self._n_watched,
            "parts": {
                name: part if isinstance(part, torch.Tensor) else part.state_dict()
                for name, part in parts.items()
            },
        }

    def _restore(self) -> None:
        """Go back to the state saved last, if there is one.

        The history that a killed process had logged died with it, so that it is logged again.
        """
        state = self._checkpoint.load()
        if state is None:
            return
        for name, part in {"optimiser": self._optimiser, **self._parts}.items():
            saved = state["parts"][name]
            if isinstance(part, torch.Tensor):
                part.data.copy_(saved)
            else:
                part.load_state_dict(saved)
        self.done, self._n_watched = state["done"], state["n_watched"]
        self._sums.copy_(state["sums"])
        for row in state["history"]:
            self.log(**row)


# Networks as arrays


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
