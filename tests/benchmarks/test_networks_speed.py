"""Training steps that have no peer: SimCLR and the heads `mlp` and `nn`, in fp32 and in bf16."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.harness import Ledger
from benchmarks.ours import Stamps, precisions, step_of
from methods.toolkit.heads.table import HEADS
from methods.toolkit.stages.simclr import simclr

SIMCLR_BATCH = 512  # images, each in two views
MLP_BATCH = 2_000
NN_BATCH = 32
ROUNDS = 5


def compare_precisions(
    versus: Callable[..., Any],
    ledger: Ledger,
    work: str,
    train: Callable[[Stamps], object],
    every: int = 1,
) -> None:
    """Note the seconds of a step in every precision; see `step_of`."""
    ours = {
        precision: partial(step_of, train, every, precision) for precision in precisions(ledger)
    }
    versus(work, ours, rounds=ROUNDS)


def test_simclr_step(versus: Callable[..., Any], images: Any, scale: Any, ledger: Ledger) -> None:
    batch_size = scale.images(SIMCLR_BATCH) // (8 if scale.tiny else 1)
    X = images[0][: 8 * batch_size]

    def train(context: Stamps) -> None:
        simclr(X, random_state=0, context=context, epochs=1, batch_size=batch_size)

    work = f"SimCLR step, {batch_size} images in two views"
    compare_precisions(versus, ledger, work, train)


def test_mlp_step(versus: Callable[..., Any], images: Any, scale: Any, ledger: Ledger) -> None:
    X, y = (part[: scale.images(20_000)] for part in images)
    batch_size = min(MLP_BATCH, len(X))

    def train(context: Stamps) -> None:
        HEADS["mlp"](10, 0, epochs=4, batch_size=batch_size).fit(X, y, context)

    work = f"step of head mlp, batch {batch_size:,}"
    compare_precisions(versus, ledger, work, train, len(X) // batch_size)


def test_nn_step(versus: Callable[..., Any], images: Any, scale: Any, ledger: Ledger) -> None:
    X, y = (part[: scale.images(2_000)] for part in images)

    def train(context: Stamps) -> None:
        HEADS["nn"](10, 0, epochs=1, batch_size=NN_BATCH).fit(X, y, context)

    compare_precisions(versus, ledger, f"step of head nn, batch {NN_BATCH}", train)
