"""A method whose stage and whose fit are long loops that write checkpoints.

Every epoch begins with one line ``<loop> <epoch> <pid>`` in ``$BENCH_TEST_FOLDER/epochs.txt``.
While ``hold-<loop>`` exists there, the loop stays in the middle of epoch 8.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from methods.method import Arrays, Context, Method, StageRequest, check_labels, flatten, stage
from methods.registry import register

HELD_EPOCH = 8
TEN_MINUTES = 600


def begin(loop: str, epoch: int) -> None:
    """Write the line of an epoch, and wait as long as the test wants it to."""
    folder = Path(os.environ["BENCH_TEST_FOLDER"])
    with (folder / "epochs.txt").open("a") as file:
        file.write(f"{loop} {epoch} {os.getpid()}\n")
    end = time.monotonic() + TEN_MINUTES
    while epoch == HELD_EPOCH and (folder / f"hold-{loop}").exists():
        if time.monotonic() > end:  # the test itself was killed
            raise TimeoutError(f"nobody lets {loop} go on")
        time.sleep(0.02)


def run_epochs(
    loop: str, rows: np.ndarray, centres: np.ndarray, epochs: int, seed: int, context: Context
) -> np.ndarray:
    """Move each centre towards random rows, so that a lost or doubled epoch changes the result."""
    checkpoint = context.checkpoint(loop)
    state = checkpoint.load() or {"epoch": 0, "centres": torch.from_numpy(centres)}
    for epoch in range(state["epoch"], epochs):
        begin(loop, epoch)
        centres = state["centres"].numpy().copy()
        rng = np.random.default_rng([seed, epoch])
        for row in rows[rng.integers(len(rows), size=50)]:
            k = np.argmin(((centres - row) ** 2).sum(axis=1))
            centres[k] += 0.3 * (row - centres[k])
        state = {"epoch": epoch + 1, "centres": torch.from_numpy(centres)}
        checkpoint.save(lambda now=state: now)
        context.progress("epoch", epoch + 1, epochs)
    return state["centres"].numpy()


@stage(version=1)
def slow_centres(
    X: np.ndarray, *, random_state: int, context: Context, epochs: int, n_clusters: int
) -> Arrays:
    """The stage; it also starts a process that would live for ten minutes."""
    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({TEN_MINUTES})"])
    rows = flatten(X)
    start = rows[:n_clusters].copy()
    return {"centres": run_epochs("stage", rows, start, epochs, random_state, context)}


@register("slow")
class Slow(Method):
    """Online k-means in a stage, then again from the means of the labelled images."""

    def __init__(
        self, n_clusters: int = 10, epochs: int = 25, random_state: int | None = None
    ) -> None:
        self.n_clusters = n_clusters
        self.epochs = epochs
        self.random_state = random_state

    def stages(self, n_labels: int) -> list[StageRequest]:
        """Its one stage, the same for all levels."""
        params = {"epochs": self.epochs, "n_clusters": self.n_clusters}
        return [StageRequest(slow_centres, params)]

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Slow:
        """Fit images ``(n, h, w[, c])`` with labels ``(n,)``, -1 = unlabelled."""
        context = context or Context()
        y = check_labels(y, len(X), self.n_clusters)
        rows, params = flatten(X), self.stages(0)[0].params
        stage = context.stage(slow_centres, X, random_state=self.random_state, **params)
        centres = np.array(stage["centres"])
        for k in np.unique(y[y >= 0]):
            centres[k] = rows[y == k].mean(axis=0)
        loop = f"fit-{np.sum(y >= 0)}"
        seed = self.random_state or 0
        centres = run_epochs(loop, rows, centres, self.epochs, seed, context)
        self.labels_ = np.argmin(((rows[:, None] - centres[None]) ** 2).sum(axis=2), axis=1)
        return self
