"""k-means as a shared, label-free stage, and the nearest centre of new instances.

k-means++ and Lloyd's algorithm as scikit-learn's `KMeans` has them (greedy seeding, the same
tolerance), but not its code, for three reasons. On float32 rows its seeding converts all of them to
float64 for every centre: 0.7 s each on 70,000 images, against 0.007 s here, and 2,000 centres are
wanted. With more than two threads it adds up the threads' sums in the order in which they end, so
that one seed gives several results. And with 1,000 centres its iterations take twice as long as
those of `methods.toolkit.fast.lloyd`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from methods.method import Arrays, Checkpoint, Context, stage
from methods.toolkit.draws import generator
from methods.toolkit.fast.lloyd import DIRECTIONS, Lloyd, Projection, distances, product_error
from methods.toolkit.rows import as_rows

BLOCK = 4096  # rows; their products with 2,000 centres are 33 MB
FEW = 0.3  # distances per row that cost less one by one than all of them in one product


@stage(version=1, resumes=True)
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
    tolerance = tol * float(rows.square().mean())
    rows = rows.to(context.device)
    projection = Projection.of(rows) if _worth_projecting(rows) else None
    checkpoint = context.checkpoint("kmeans")
    state = checkpoint.load() or {"first": [], "iteration": 0, "best": {}}
    for run in range(len(state["first"]), n_init):
        checkpoint.save(lambda: state)
        seeding = generator(random_state, "run", run)
        state["first"].append(seed_centres(rows, n_clusters, seeding, context, projection))
    _all_runs(Lloyd(rows, projection), state, checkpoint, context, max_iter, tolerance)
    return _result(X, mean, state["best"])


def _all_runs(
    lloyd: Lloyd,
    state: dict[str, Any],
    checkpoint: Checkpoint,
    context: Context,
    max_iter: int,
    tolerance: float,
) -> None:
    """Lloyd's iterations from all first centres together; the best run is ``state["best"]``."""
    if "running" in state:
        lloyd.go_on(state["lloyd"])
    else:
        lloyd.begin(torch.stack(state["first"]))
        state["running"] = list(range(len(state["first"])))
    while state["running"]:
        state["lloyd"] = lloyd.state
        checkpoint.save(lambda: state)
        shifts = lloyd.update()
        lloyd.assign()
        state["iteration"] += 1
        context.progress("iteration", state["iteration"], max_iter)
        last = state["iteration"] == max_iter
        ended = [i for i, shift in enumerate(shifts) if last or shift <= tolerance]
        if ended:
            _keep_best(state, lloyd, ended)
            running = [i for i in range(len(shifts)) if i not in ended]
            lloyd.keep(running)
            state["running"] = [state["running"][i] for i in running]


def _keep_best(state: dict[str, Any], lloyd: Lloyd, ended: list[int]) -> None:
    """Let the runs that have ended compete for ``state["best"]``; of equal ones the first wins."""
    for i, inertia in zip(ended, lloyd.inertias(ended), strict=True):
        rank = (inertia, state["running"][i])
        if rank < state["best"].get("rank", (math.inf, 0)):
            centres, labels = (lloyd.state[name][i].cpu() for name in ("centres", "labels"))
            n_iter = state["iteration"]
            state["best"] = {"rank": rank, "centres": centres, "labels": labels, "n_iter": n_iter}


def _worth_projecting(rows: torch.Tensor) -> bool:
    """Whether bounds save time: on a processor, where rows are long."""
    return rows.device.type == "cpu" and rows.shape[1] > 2 * DIRECTIONS


def seed_centres(
    rows: torch.Tensor,
    k: int,
    seeding: torch.Generator,
    context: Context,
    projection: Projection | None = None,
) -> torch.Tensor:
    """First centres ``(k, d)`` on the CPU, out of `rows` ``(n, d)``, by greedy k-means++.

    Each next centre is a row, drawn with a probability proportional to its squared distance from
    the nearest centre so far: the best of 2 + log k draws, as in scikit-learn. With a `projection`
    of the rows, distances are computed only where a draw may be nearer than the centres so far.
    """
    n_draws = 2 + int(math.log(k))
    squared_norms = rows.square().sum(1)
    chosen = torch.randint(len(rows), (1,), generator=seeding).to(rows.device)
    closest = _squared_distances(rows, squared_norms, chosen)[0]  # (n,)
    for done in range(1, k):
        cumulated = closest.cpu().double().cumsum(0)  # a GPU adds up in no fixed order
        draws = torch.rand(n_draws, generator=seeding, dtype=torch.float64)
        candidates = torch.searchsorted(cumulated, draws * cumulated[-1]).to(rows.device)
        candidates.clamp_(max=len(rows) - 1)  # rounding may lead past the end
        best = _best_draw(rows, squared_norms, projection, candidates, closest)
        chosen = torch.cat([chosen, candidates[best : best + 1]])
        context.progress("centre", done + 1, k)
    return rows[chosen].cpu()


def _best_draw(
    rows: torch.Tensor,
    squared_norms: torch.Tensor,
    projection: Projection | None,
    candidates: torch.Tensor,
    closest: torch.Tensor,
) -> int:
    """Which candidate ``(m,)`` lowers the sum of `closest` ``(n,)`` most; `closest` is updated."""
    near = _within_reach(squared_norms, projection, candidates, closest) if projection else None
    if near is None or len(near[0]) > FEW * len(rows):
        # (m, n): what the nearest centre would be for each draw
        would_be = _squared_distances(rows, squared_norms, candidates).minimum(closest)
        best = int(would_be.sum(1, dtype=torch.float64).argmin())
        closest.copy_(would_be[best])
        return best
    at, row = near
    squared = distances(rows, row, rows, candidates[at]).square()
    gains = (closest[row] - squared).clamp_min_(0)
    best = int(torch.bincount(at, weights=gains.double(), minlength=len(candidates)).argmax())
    own = at == best
    closest[row[own]] = closest[row[own]].minimum(squared[own])
    return best


def _within_reach(
    squared_norms: torch.Tensor,
    projection: Projection,
    candidates: torch.Tensor,
    closest: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs (place in `candidates`, row) whose distance may be less than `closest`, in order."""
    short = projection.rows  # (n, p + 1)
    error = product_error(short.shape[1], 2 * float(squared_norms.max()) ** 0.5)
    # ‖x‖² - closest - 2x·c or less: below -‖c‖² where the candidate may be nearer
    bounds = torch.addmm(squared_norms - closest, short[candidates], short.T, alpha=-2)
    close = (bounds < error - squared_norms[candidates].unsqueeze(1)).nonzero()
    return close[:, 0], close[:, 1]


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
    half_norms = to.square().sum(1) / 2
    labels, own = [], []
    for start in range(0, len(X), block):
        rows = torch.from_numpy(as_rows(X[start : start + block]))
        if rows.shape[1] != to.shape[1]:
            raise ValueError(
                f"instances of {rows.shape[1]} values and centres of {to.shape[1]}; expected the "
                "same number: give images of the shape that the centres were found on"
            )
        label = torch.addmm(half_norms, rows, to.T, alpha=-1).argmin(1)  # of ½‖c‖² - x·c
        labels.append(label)
        own.append(distances(rows, torch.arange(len(rows)), to, label))
    return torch.cat(labels).numpy(), torch.cat(own).numpy()


def _squared_distances(
    rows: torch.Tensor, squared_norms: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """Squared distances ``(m, n)`` from the m chosen rows to all of them."""
    products = rows[chosen] @ rows.T
    distances = squared_norms + squared_norms[chosen].unsqueeze(1) - 2 * products
    return distances.clamp_min_(0)


def _result(X: np.ndarray, mean: torch.Tensor, best: dict[str, Any]) -> Arrays:
    """What `kmeans` returns for its best run, whose centres lack the `mean` of the rows."""
    centres, labels = best["centres"] + mean, best["labels"]
    own = []
    for start in range(0, len(X), BLOCK):
        rows = torch.from_numpy(as_rows(X[start : start + BLOCK]))
        own.append(distances(rows, torch.arange(len(rows)), centres, labels[start : start + BLOCK]))
    found = torch.cat(own).numpy()
    return {
        "centres": centres.numpy(),
        "labels": labels.numpy(),
        "distances": found,
        "inertia": np.array(np.square(found, dtype=np.float64).sum()),
        "n_iter": np.array(best["n_iter"]),
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
