"""k-means as a shared, label-free stage, and the nearest centre of new instances.

k-means++ and Lloyd's algorithm as scikit-learn's `KMeans` has them (greedy seeding, the same
tolerance), but not its code, for two reasons. On float32 rows its seeding converts all of them to
float64 for every centre: 0.7 s each on 70,000 images, against 0.03 s here, and 2,000 centres are
wanted. And with more than two threads it adds up the threads' sums in the order in which they end,
so that one seed gives several results.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from methods.method import Arrays, Context, check_images, flatten
from methods.toolkit.training import generator

BLOCK = 4096  # rows; their products with 2,000 centres are 33 MB


def kmeans(
    X: np.ndarray,
    *,
    random_state: int,
    context: Context,
    n_clusters: int,
    n_init: int = 1,
    max_iter: int = 300,
    tol: float = 1e-4,
) -> Arrays:
    """k-means: of `n_init` runs, the one with the smallest inertia.

    Parameters
    ----------
    X : uint8 images ``(n, h, w[, c])``, used as rows of pixels in [0, 1], or ``(n, d)`` float rows.
    random_state : seed of the first centres.
    context : device, checkpoint, and progress (``"centre"`` while seeding, then ``"iteration"``).
    n_clusters : number of clusters k, at most n.
    n_init : runs, each from first centres of its own.
    max_iter : most iterations of a run.
    tol : a run ends when the squared moves of all centres add up to at most `tol` times the mean
        variance of the columns.

    Returns
    -------
    ``"centres"`` ``(k, d)`` float32; ``"labels"`` ``(n,)`` int64, each instance's nearest centre;
    ``"distances"`` ``(n,)`` float32, Euclidean, to that centre; ``"inertia"`` ``()`` float64, the
    sum of their squares; ``"n_iter"`` ``()`` int64, the iterations of the best run.

    Raises
    ------
    ValueError : a parameter out of range, or rows that are not finite numbers.

    References
    ----------
    Lloyd, Least squares quantization in PCM, IEEE Transactions on Information Theory 28, 1982.
    """
    _check_parameters(len(X), n_clusters, n_init, max_iter, tol)
    rows = torch.from_numpy(as_rows(X))
    mean = rows.mean(0)
    rows -= mean  # smaller numbers, smaller rounding errors
    on_device = rows.to(context.device)
    tolerance = tol * float(rows.square().mean())
    checkpoint = context.checkpoint("kmeans")
    state = checkpoint.load() or {"run": 0, "iteration": 0, "centres": None, "best": {}}
    while state["run"] < n_init:
        if state["centres"] is None:
            seeding = generator(random_state, "run", state["run"])
            state["centres"] = seed_centres(on_device, n_clusters, seeding, context)
        checkpoint.save(lambda: state)
        centres = _lloyd_step(rows, on_device, state["centres"])
        shift = float((centres - state["centres"]).square().sum())
        state.update(centres=centres, iteration=state["iteration"] + 1)
        done = state["run"] * max_iter + state["iteration"]
        context.progress("iteration", done, n_init * max_iter)
        if shift <= tolerance or state["iteration"] == max_iter:
            centres += mean
            inertia = _inertia(nearest(X, centres.numpy())[1])
            if inertia < state["best"].get("inertia", math.inf):
                found = {"inertia": inertia, "centres": centres, "n_iter": state["iteration"]}
                state["best"] = found
            state.update(run=state["run"] + 1, iteration=0, centres=None)
    return _result(X, state["best"]["centres"].numpy(), state["best"]["n_iter"])


def seed_centres(
    rows: torch.Tensor, k: int, seeding: torch.Generator, context: Context
) -> torch.Tensor:
    """First centres ``(k, d)`` on the CPU, out of `rows` ``(n, d)``, by greedy k-means++.

    Each next centre is a row, drawn with a probability proportional to its squared distance from
    the nearest centre so far: the best of 2 + log k draws, as in scikit-learn.
    """
    n_draws = 2 + int(math.log(k))
    squared_norms = rows.square().sum(1)
    chosen = torch.randint(len(rows), (1,), generator=seeding).to(rows.device)
    closest = _squared_distances(rows, squared_norms, chosen)[0]  # (n,)
    for done in range(1, k):
        cumulated = closest.double().cumsum(0)
        draws = torch.rand(n_draws, generator=seeding, dtype=torch.float64).to(rows.device)
        candidates = torch.searchsorted(cumulated, draws * cumulated[-1])
        candidates.clamp_(max=len(rows) - 1)  # rounding may lead past the end
        # (n_draws, n): what the nearest centre would be for each draw
        would_be = _squared_distances(rows, squared_norms, candidates).minimum(closest)
        best = int(would_be.sum(1, dtype=torch.float64).argmin())
        closest = would_be[best]
        chosen = torch.cat([chosen, candidates[best : best + 1]])
        context.progress("centre", done + 1, k)
    return rows[chosen].cpu()


def nearest(
    X: np.ndarray, centres: np.ndarray, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of `centres` ``(k, d)`` for each instance, `block` instances at a time.

    Parameters
    ----------
    X : images or rows, as in `kmeans`.

    Returns
    -------
    labels ``(n,)`` int64 and Euclidean distances ``(n,)`` float32.

    Raises
    ------
    ValueError : instances and centres have different numbers of values.
    """
    to = torch.tensor(np.asarray(centres, dtype=np.float32))  # a copy: maps are read-only
    labels, distances = [], []
    for start in range(0, len(X), block):
        rows = torch.from_numpy(as_rows(X[start : start + block]))
        if rows.shape[1] != to.shape[1]:
            raise ValueError(
                f"instances of {rows.shape[1]} values and centres of {to.shape[1]}; expected the "
                "same number: give images of the shape that the centres were found on"
            )
        label = _nearest_centres(rows, to)[0]
        labels.append(label)
        distances.append((rows - to[label]).norm(dim=1))  # exact: no difference of large squares
    return torch.cat(labels).numpy(), torch.cat(distances).numpy()


def as_rows(X: np.ndarray) -> np.ndarray:
    """A new float32 array ``(n, d)``: pixels in [0, 1] of uint8 images, or a copy of float rows.

    Raises
    ------
    ValueError : neither images nor rows, or rows with values that are not finite.
    """
    X = np.asanyarray(X)
    if X.dtype.kind != "f" or X.ndim != 2:
        return flatten(check_images(X))
    if not np.isfinite(X).all():
        raise ValueError(
            "the rows hold NaN or infinity; expected finite numbers: mend their source"
        )
    return np.array(X, dtype=np.float32)


def _lloyd_step(rows: torch.Tensor, on_device: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """The means ``(k, d)`` of the instances nearest to each centre.

    A centre that no instance is nearest to moves to one of the instances farthest from theirs, as
    in scikit-learn. The products are taken on the device, the sums on the CPU, where they are added
    up in one order whatever the number of threads.
    """
    labels, scores = _nearest_centres(on_device, centres.to(on_device.device))
    labels, scores = labels.cpu(), scores.cpu()
    counts = torch.bincount(labels, minlength=len(centres))
    empty = (counts == 0).nonzero().flatten()
    if len(empty):
        squared_distances = rows.square().sum(1) + 2 * scores
        labels[squared_distances.topk(len(empty)).indices] = empty
        counts = torch.bincount(labels, minlength=len(centres))
    sums = torch.zeros_like(centres).index_add_(0, labels, rows)
    means = sums / counts.clamp_min(1).unsqueeze(1)
    return torch.where(counts.unsqueeze(1) > 0, means, centres)


def _nearest_centres(
    rows: torch.Tensor, centres: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest centre ``(n,)`` of each row, and ½‖c‖² − x·c, which orders as distance does."""
    half_norms = centres.square().sum(1) / 2
    found = [
        torch.addmm(half_norms, block, centres.T, alpha=-1).min(1) for block in rows.split(BLOCK)
    ]
    return torch.cat([f.indices for f in found]), torch.cat([f.values for f in found])


def _squared_distances(
    rows: torch.Tensor, squared_norms: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """Squared distances ``(m, n)`` from the m chosen rows to all of them."""
    products = rows[chosen] @ rows.T
    distances = squared_norms + squared_norms[chosen].unsqueeze(1) - 2 * products
    return distances.clamp_min_(0)


def _inertia(distances: np.ndarray) -> float:
    return float(np.square(distances, dtype=np.float64).sum())


def _result(X: np.ndarray, centres: np.ndarray, n_iter: int) -> Arrays:
    """What `kmeans` returns for its best centres."""
    labels, distances = nearest(X, centres)
    return {
        "centres": centres,
        "labels": labels,
        "distances": distances,
        "inertia": np.array(_inertia(distances)),
        "n_iter": np.array(n_iter),
    }


def _check_parameters(n: int, n_clusters: int, n_init: int, max_iter: int, tol: float) -> None:
    """Raise ValueError for a parameter of `kmeans` that is out of range."""
    if not 1 <= n_clusters <= n:
        raise ValueError(
            f"n_clusters is {n_clusters} for {n} instances; expected 1 to {n}: ask for fewer"
        )
    for name, value, least in (("n_init", n_init, 1), ("max_iter", max_iter, 1), ("tol", tol, 0)):
        if not value >= least:
            raise ValueError(f"{name} is {value}; expected at least {least}")
