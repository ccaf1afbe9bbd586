"""Networks as arrays, and training loops that go on after they were killed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from methods.method import Arrays, Context

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
