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

from methods.method import derive_seed

# From a generator of the step, the number of the step, and what is the same in every step: a tensor
# on the processor, always of the same shape.
Make = Callable[[torch.Generator, int], torch.Tensor]


def generator(seed: int, *words: object) -> torch.Generator:
    """A CPU generator for one purpose: a function of `seed` and `words` alone."""
    name = "/".join(str(word) for word in words)
    return torch.Generator().manual_seed(derive_seed(seed, name))


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
    keep : fill the tensors of the first step of as many rows anew, instead of making others. Then
        every step draws the same names in the same order.
    step : the number of the step.
    """

    seed: int
    device: str
    keep: bool = False
    step: int = -1
    _generators: dict[str, torch.Generator] = field(init=False, default_factory=dict)
    _all_kept: dict[int, list[_Kept]] = field(init=False, default_factory=dict)
    _making: list[_Kept] = field(init=False, default_factory=list)
    _filled: Iterator[_Kept] | None = field(init=False, default=None)  # None: tensors are made

    def begin(self, step: int, n_rows: int) -> None:
        """From here on it is this step, of a batch of so many rows."""
        self.step, self._filled, self._making = step, None, []
        self._generators.clear()
        if self.keep and n_rows in self._all_kept:
            kept = self._all_kept[n_rows]
            made = [one.make(self._generator(one.name), step) for one in kept]
            for one, values in zip(kept, made, strict=True):
                one.tensor.copy_(values)
            self._filled = iter(kept)
        elif self.keep:
            self._all_kept[n_rows] = self._making

    def __call__(self, name: str, make: Make) -> torch.Tensor:
        """The next tensor of this step, on the device.

        Raises
        ------
        ValueError : tensors are kept, and the first step of as many rows drew something else here.
        """
        if self._filled is not None:
            kept = next(self._filled, None)
            if kept is None or kept.name != name:
                first = "nothing more" if kept is None else repr(kept.name)
                raise ValueError(f"step {self.step} draws {name!r}; the first step drew {first}")
            return kept.tensor
        made = make(self._generator(name), self.step).to(self.device)
        if self.keep:
            self._making.append(_Kept(name, make, made))
        return made

    def _generator(self, name: str) -> torch.Generator:
        if name not in self._generators:
            self._generators[name] = generator(self.seed, name, self.step)
        return self._generators[name]
