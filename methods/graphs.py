"""Labels that spread over a graph of nearest neighbours: Laplace and Poisson learning.

The graph joins every image with those nearest in features that were learnt without labels. On it
each method solves an equation whose solution says, for every image and class, how near the image is
to the labelled ones of that class.

Notation: graph ``W`` ``(n, n)``, degrees ``d``, Laplacian L = D - W, labels ``Y`` ``(n, K)``
one-hot (0 where unlabelled), solution ``u`` ``(n, K)`` of n images and K classes.

References
----------
Zhu, Ghahramani and Lafferty, Semi-Supervised Learning Using Gaussian Fields and Harmonic Functions,
ICML 2003.
Calder, Cook, Thorpe and Slepčev, Poisson Learning: Graph Based Semi-Supervised Learning at Very Low
Label Rates, ICML 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy import sparse

from methods.method import Context, Tags, check_choice
from methods.registry import register
from methods.toolkit.features import FeatureMethod
from methods.toolkit.graph import (
    NeighbourMethod,
    connected,
    degrees,
    gaussian_graph,
    in_order_of_neighbours,
    solve,
)

PRIORS = ("labels", "uniform")
BALANCED = 1e-3  # largest error of a class's share after `with_volumes`
Progress = Callable[[int, int], None]


def laplace(
    graph: sparse.csr_array, Y: np.ndarray, solver: Callable[..., np.ndarray]
) -> np.ndarray:
    """The u ``(n, K)`` that is Y on labelled images and the mean of its neighbours on all others.

    L_UU u_U = W_UL Y_L, with U the unlabelled and L the labelled images.

    References
    ----------
    Zhu, Ghahramani and Lafferty, ICML 2003, equation 5.
    """
    labelled = Y.sum(1) > 0
    u = Y.copy()
    if not labelled.all():
        W = graph[~labelled]  # (|U|, n)
        L_UU = (sparse.diags_array(degrees(graph)[~labelled]) - W[:, ~labelled]).tocsr()
        u[~labelled] = solver(L_UU, W[:, labelled] @ Y[labelled])
    return u


def sources(Y: np.ndarray) -> np.ndarray:
    """The right side ``(n, K)`` of Poisson's equation: y_i - ȳ on labelled images, 0 elsewhere."""
    labelled = Y.sum(1) > 0
    source = np.zeros_like(Y)
    source[labelled] = Y[labelled] - Y[labelled].mean(0)
    return source


def poisson(
    graph: sparse.csr_array, Y: np.ndarray, solver: Callable[..., np.ndarray]
) -> np.ndarray:
    """The u ``(n, K)`` with L u = `sources` and sum over i of d_i u_i = 0.

    Labels of one class alone make no source; that class then has 1 everywhere.

    Parameters
    ----------
    graph : W, connected.

    References
    ----------
    Calder et al., ICML 2020, section 2.
    """
    present = Y.any(0)
    if present.sum() == 1:
        return np.tile(present.astype(Y.dtype), (len(Y), 1))
    d = degrees(graph)
    u = solver((sparse.diags_array(d) - graph).tocsr(), sources(Y))
    return u - (d @ u) / d.sum()


def with_volumes(u: np.ndarray, priors: np.ndarray, n_steps: int = 300) -> np.ndarray:
    """Scores ``(n, K)`` of which class j is the largest in a share priors_j of all rows.

    They are s_j (u_ij - min u), with weights s_j > 0: a class that wins too little gets a larger
    one, log s ← log s + φ (priors - shares), with a φ that falls from 10 as 1 / (1 + step / 20).
    Of all steps the one counts whose largest error is smallest: 0 is out of reach where rows are
    alike.

    References
    ----------
    Calder et al., ICML 2020, algorithm 2, whose weights lie between 1/2 and 2: on digits they left
    errors of .02, where these leave .001.
    """
    u = u - u.min()
    log_s = best = np.zeros(len(priors))
    smallest = np.inf
    for step in range(n_steps):
        shares = np.bincount((u * np.exp(log_s)).argmax(1), minlength=len(priors)) / len(u)
        error = float(np.abs(shares - priors).max())
        if error < smallest:
            smallest, best = error, log_s
        if error <= BALANCED:
            break
        log_s = log_s + 10 / (1 + step / 20) * (priors - shares)
    return u * np.exp(best)


def poisson_mbo(
    graph: sparse.csr_array,
    Y: np.ndarray,
    u: np.ndarray,
    priors: np.ndarray,
    n_outer: int,
    n_inner: int,
    progress: Progress = lambda done, total: None,
) -> np.ndarray:
    """Poisson's solution sharpened: diffuse with sources, decide with class priors, in turn.

    A step of diffusion is u ← u - Δt (L u - sources) with Δt = 1 / max d; a decision makes each row
    one-hot, such that class j has a share priors_j of all images (`with_volumes`).

    Parameters
    ----------
    u : ``(n, K)`` Poisson's solution.
    n_outer, n_inner : decisions after the first, that of `u` itself, and steps of diffusion before
        each.

    Returns
    -------
    ``(n, K)``, the scores of the last decision.

    References
    ----------
    Calder et al., ICML 2020, algorithm 2, with fidelity μ = 1.
    """
    d = degrees(graph)
    step = 1 / d.max()
    stay = (sparse.diags_array(1 - step * d) + step * graph).tocsr()
    added = step * sources(Y)
    decided = with_volumes(u, priors)
    for outer in range(n_outer):
        u = np.eye(Y.shape[1])[decided.argmax(1)]
        for _ in range(n_inner):
            u = stay @ u + added
        decided = with_volumes(u, priors)
        progress(outer + 1, n_outer)
    return decided


@dataclass(eq=False, repr=False, kw_only=True)
class GraphMethod(NeighbourMethod):
    """What Laplace and Poisson learning share: the graph, and the solver.

    An image that is not in the graph takes the mean scores of the images of it that are nearest.

    Parameters
    ----------
    tol : of the solver: end when the residual is this share of the right side.
    max_iter : most iterations of the solver for a class.
    All others: see `NeighbourMethod`.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the class with the largest score, of labelled images too: in Laplace
        learning, whose solution is fixed there, always the given one.
    scores_ : ``(n, n_clusters)`` float64, the solution u; of `PoissonMBO`, what its last decision
        weighed.
    """

    tags: ClassVar[Tags] = Tags(needs_labels=True, family="graph")

    tol: float = 1e-5
    max_iter: int = 2000

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled.

        Height and width are at least 8, except for the features ``"pixels"``.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used, or no label at all.
        """
        X, y, context = self._begin(X, y, context)
        graph = gaussian_graph(*self._find_neighbours(X, context))
        graph = connected(graph, self._rows)
        context.log(graph_edges=graph.nnz // 2)
        Y = np.eye(self.n_clusters + 1)[y, : self.n_clusters]  # a row of 0 for -1
        order = in_order_of_neighbours(graph)
        self.scores_ = np.empty_like(Y)
        self.scores_[order] = self.propagate(graph[order][:, order], Y[order], context)
        self.labels_ = self.scores_.argmax(1)
        return self

    def propagate(self, graph: sparse.csr_array, Y: np.ndarray, context: Context) -> np.ndarray:
        """The scores ``(n, K)`` that the labels ``Y`` have on a connected graph ``(n, n)``."""
        raise NotImplementedError(f"{type(self).__name__} has to define propagate(graph, Y, ...)")

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The class ``(n,)`` int64 with the largest score of each image."""
        return self._mean_of_nearest(X, self.scores_).argmax(1)

    def _solver(self, context: Context) -> Callable[..., np.ndarray]:
        def progress(done: int, total: int) -> None:
            context.progress("class", done, total)

        return lambda A, B: solve(A, B, self.tol, self.max_iter, progress)

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        if not (0 < self.tol < 1 and self.max_iter >= 1):
            raise ValueError(
                f"tol is {self.tol}, max_iter is {self.max_iter}; expected between 0 and 1, and at "
                "least 1"
            )


@register("laplace")
@dataclass(eq=False, repr=False, kw_only=True)
class Laplace(GraphMethod):
    """Laplace learning: every unlabelled image is the mean of its neighbours in the graph.

    With very few labels the solution is nearly constant away from them, and one class wins nearly
    everywhere. Parameters and attributes are those of `GraphMethod`.

    References
    ----------
    Zhu, Ghahramani and Lafferty, ICML 2003, without their class mass normalisation.
    """

    def propagate(self, graph: sparse.csr_array, Y: np.ndarray, context: Context) -> np.ndarray:
        """The harmonic function of the labels: see `laplace`."""
        return laplace(graph, Y, self._solver(context))


@register("poisson")
@dataclass(eq=False, repr=False, kw_only=True)
class Poisson(GraphMethod):
    """Poisson learning: labelled images are sources and sinks on the graph.

    Parameters and attributes are those of `GraphMethod`.

    References
    ----------
    Calder, Cook, Thorpe and Slepčev, ICML 2020.
    """

    def propagate(self, graph: sparse.csr_array, Y: np.ndarray, context: Context) -> np.ndarray:
        """The solution of Poisson's equation: see `poisson`."""
        return poisson(graph, Y, self._solver(context))


@register("poisson-mbo")
@dataclass(eq=False, repr=False, kw_only=True)
class PoissonMBO(Poisson):
    """Poisson learning, then graph cuts that give each class its share of all images.

    Other parameters and attributes are those of `GraphMethod`.

    Parameters
    ----------
    priors : ``"labels"``, the shares that the classes have among the labelled images, or
        ``"uniform"``.
    n_outer, n_inner : decisions after the first, and diffusion steps before each (`poisson_mbo`).

    References
    ----------
    Calder, Cook, Thorpe and Slepčev, ICML 2020, algorithm 2.
    """

    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": FeatureMethod.schedules["quick"],
        "smoke": FeatureMethod.schedules["smoke"] | {"n_outer": 5},
    }

    priors: str = "labels"
    n_outer: int = 20
    n_inner: int = 40

    def propagate(self, graph: sparse.csr_array, Y: np.ndarray, context: Context) -> np.ndarray:
        """Poisson's solution, sharpened: see `poisson_mbo`."""
        u = super().propagate(graph, Y, context)
        K = Y.shape[1]
        priors = Y.sum(0) / Y.sum() if self.priors == "labels" else np.full(K, 1 / K)

        def progress(done: int, total: int) -> None:
            context.progress("decision", done, total)

        return poisson_mbo(graph, Y, u, priors, self.n_outer, self.n_inner, progress)

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        check_choice("priors", self.priors, PRIORS)
        if self.n_outer < 1 or self.n_inner < 1:
            raise ValueError(
                f"n_outer is {self.n_outer}, n_inner {self.n_inner}; expected at least 1 of each"
            )
