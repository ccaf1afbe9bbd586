"""What a training step draws: on the processor, from the seed and the number of the step alone.

So a step is the same on every device and after a kill. A step that is captured as a CUDA graph
launches the same kernels again and again and draws nothing: what it reads are tensors that stay
where they are, and that are filled anew before each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from methods.toolkit.training import generator

# From a generator of the step, and the number of the step: a tensor on the processor, of the same
# shape in every step.
Make = Callable[[torch.Generator, int], torch.Tensor]


class _Kept(NamedTuple):
    name: str
    make: Make
    tensor: torch.Tensor


@dataclass
class Draws:
    """The draws of every step of one `Loop`, which calls `begin` before each.

    Within a step all draws of one name come from one generator, one after the other.

    Parameters
    ----------
    seed : of all steps.
    device : where the tensors are wanted.
    keep : fill the tensors of the first step of so many rows anew, instead of making others.
    step : the number of the step.
    """

    seed: int
    device: str
    keep: bool = False
    step: int = -1
    _generators: dict[str, torch.Generator] = field(default_factory=dict)
    _all_kept: dict[int, list[_Kept]] = field(default_factory=dict)
    _filled: Iterator[_Kept] | None = None  # None: this step makes its tensors
    _making: list[_Kept] = field(default_factory=list)

    def begin(self, step: int, n_rows: int) -> None:
        """From here on it is this step, of a batch of so many rows."""
        self.step, self._filled, self._making = step, None, []
        self._generators.clear()
        if self.keep and n_rows in self._all_kept:
            for name, make, tensor in self._all_kept[n_rows]:
                tensor.copy_(make(self._generator(name), step))
            self._filled = iter(self._all_kept[n_rows])
        elif self.keep:
            self._all_kept[n_rows] = self._making

    def __call__(self, name: str, make: Make) -> torch.Tensor:
        """The next tensor of this step, on the device."""
        if self._filled is not None:
            return next(self._filled).tensor
        made = make(self._generator(name), self.step).to(self.device)
        self._making.append(_Kept(name, make, made))
        return made

    def _generator(self, name: str) -> torch.Generator:
        if name not in self._generators:
            self._generators[name] = generator(self.seed, name, self.step)
        return self._generators[name]
