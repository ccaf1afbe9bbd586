"""Training steps as CUDA graphs: on an accelerator a step is launched as one piece of work.

The networks here are small. An accelerator computes a kernel of theirs faster than the processor
launches the next one, so that a step costs what its launches cost. A CUDA graph records the
launches once and replays them all with a single call. On an H100 in bf16 a step of SimCLR (512
images, width 64) took 3.2 ms instead of 11.0, one of `matching` (128 and 256 images) 2.2 instead of
15.0; the last losses were the same to five digits.

References
----------
PyTorch, CUDA semantics, section "CUDA Graphs".
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Literal

import torch

from methods.method import Context

VARIABLE = "BENCH_CUDA_GRAPHS"
Kind = Literal["measured", "untimed"]
MEASURED: Kind = "measured"
UNTIMED: Kind = "untimed"
WARM_UP = 3  # plain calls before the capture: libraries choose their kernels in them
Step = Callable[[torch.Tensor], None]
Call = Callable[[], None]


def graphed(step: Step, context: Context, kind: Kind = MEASURED) -> Step | None:
    """The `GraphedStep` of a step on a CUDA device, if `wanted` has its kind; else None.

    Raises
    ------
    ValueError : see `wanted`.
    """
    on_cuda = torch.device(context.device).type == "cuda"
    if wanted() not in (kind, "all") or not on_cuda:
        return None
    return GraphedStep(step, warm_up=on_side_stream, capture=cuda_graph)


def wanted() -> str:
    """Which steps are to be graphs, as the environment variable ``BENCH_CUDA_GRAPHS`` says.

    - ``measured`` (where it is not set): those whose graphs were run and timed on a GPU.
    - ``all``: those, too, whose graphs were run on a GPU, but not timed there.
    - ``off``: none.

    Raises
    ------
    ValueError : the variable has another value.
    """
    given = os.environ.get(VARIABLE) or MEASURED
    if given not in (MEASURED, "all", "off"):
        raise ValueError(f"{VARIABLE} is {given!r}; expected measured, all or off")
    return given


class GraphedStep:
    """A training step that is captured once for each size of batch, and then replayed.

    The step may read and change only tensors that stay where they are: weights, the optimiser's
    state, targets, sums. What differs from call to call is the rows of its batch; a replay gets
    them copied into the tensor that was captured. The calls before the capture, and the one that
    is captured, are steps like all others.

    Parameters
    ----------
    step : called with the rows ``(b,)`` int64 of a batch.
    warm_up : runs a call that is not captured yet.
    capture : captures a call without running it, and returns what runs it.
    """

    def __init__(
        self, step: Step, warm_up: Callable[[Call], None], capture: Callable[[Call], Call]
    ) -> None:
        self._step = step
        self._warm_up = warm_up
        self._capture = capture
        self._calls: Counter[int] = Counter()
        self._captured: dict[int, tuple[torch.Tensor, Call]] = {}

    def __call__(self, rows: torch.Tensor) -> None:
        """Run the step on the rows ``(b,)`` of a batch."""
        size = len(rows)
        self._calls[size] += 1
        if self._calls[size] <= WARM_UP:
            self._warm_up(lambda: self._step(rows))
            return
        if size not in self._captured:
            fixed = rows.clone()
            self._captured[size] = fixed, self._capture(lambda: self._step(fixed))
        fixed, replay = self._captured[size]
        fixed.copy_(rows)
        replay()


def on_side_stream(call: Call) -> None:
    """Run a call on a stream of its own, as a later capture of it asks for."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)


def cuda_graph(call: Call) -> Call:
    """What replays the kernels that `call` launches; capturing them does not run them."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
