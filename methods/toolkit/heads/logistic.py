"""Logistic regression on pixels, one of the heads."""

from __future__ import annotations

from itertools import count
from typing import Protocol

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController
from torch.nn import functional as F

from methods.method import Context
from methods.toolkit.heads.outputs import all_columns
from methods.toolkit.rows import as_rows

MULTI_CLASS = ("ovr", "multinomial")
PREDICT_BLOCK = 10_000  # images as float32 rows: 31 MB
BLOCK = 2048  # rows of 784 pixels are 6 MB
WHITEN_AT_MOST = 4096  # features: then the matrices of `Whitening` take 0.5 GB
RIDGE = 1e-7


class LogisticRegression:
    """L2-regularised logistic regression on pixels, as scikit-learn defines it.

    Minimises ``sum of losses + |W|² / (2 C)`` over weights W and intercepts, which are not
    penalised. The problem is convex, so that the solver decides only the time: here L-BFGS-B over
    all classes at once, on centred rows, which changes the intercepts alone, and in the variables
    of `Whitening`. The products are in float32, the sum of the losses in float64.

    Parameters
    ----------
    n_classes : number of classes.
    seed : not used; the solution is unique.
    C : inverse strength of the penalty.
    multi_class : ``"ovr"``, one binary problem for each class, probabilities scaled to sum 1, or
        ``"multinomial"``, one softmax over all.
    tol : stop when no entry of the gradient, of the objective divided by n, exceeds it.
    max_iter : most iterations.

    Attributes
    ----------
    coef_, intercept_ : ``(k, d)`` and ``(k,)`` float32, of the k classes in `classes_`.
    n_iter_, converged_ : iterations, and whether the gradient reached `tol`.

    Raises
    ------
    ValueError : a parameter out of range.
    """

    def __init__(
        self,
        n_classes: int,
        seed: int = 0,
        *,
        C: float = 1.0,
        multi_class: str = "ovr",
        tol: float = 1e-4,
        max_iter: int = 5000,
    ) -> None:
        if multi_class not in MULTI_CLASS:
            raise ValueError(f"multi_class is {multi_class!r}; expected 'ovr' or 'multinomial'")
        for name, value in (("C", C), ("tol", tol), ("max_iter", max_iter)):
            if not value > 0:
                raise ValueError(f"{name} is {value}; expected above 0")
        self.n_classes = n_classes
        self.C = C
        self.multi_class = multi_class
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: np.ndarray, y: np.ndarray, context: Context) -> LogisticRegression:
        """Learn from images, or float rows ``(n, d)``, of classes ``y`` ``(n,)``."""
        self.classes_, targets = np.unique(y, return_inverse=True)
        k = len(self.classes_)
        rows = torch.from_numpy(_float_rows(X)).to(context.device)
        one_hot = F.one_hot(torch.from_numpy(targets), k).float().to(context.device)
        mean = rows.mean(0)
        whitening = Whitening(rows, mean, 1 / (self.C * len(rows)))
        steepest = np.inf
        iterations = count(1)

        def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal steepest
            W, b = whitening.weights(flat.reshape(k, -1))
            objective, gradient = self._objective(rows, mean, one_hot, W, b)
            steepest = float(gradient.abs().max())
            return objective, whitening.gradient(gradient)

        def after_iteration(_: np.ndarray) -> None:
            context.progress("iteration", next(iterations), self.max_iter)
            if steepest <= self.tol:  # of the weights themselves: the solver sees V's
                raise StopIteration

        options = {"maxiter": self.max_iter, "maxfun": 50 * self.max_iter, "maxls": 50}
        # Pin SciPy's OpenBLAS to one thread: its spinning threads doubled the time of torch's
        # products.
        with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
            found = minimize(
                evaluate,
                np.zeros(k * (rows.shape[1] + 1)),
                jac=True,
                method="L-BFGS-B",
                callback=after_iteration,
                options=options | {"gtol": 0.0, "ftol": 0.0},
            )
        evaluate(found.x)  # where a line search failed, the last evaluation was elsewhere
        W, b = whitening.weights(found.x.reshape(k, -1))
        self.coef_ = W.cpu().numpy()
        self.intercept_ = (b - W @ mean).cpu().numpy()
        self.n_iter_ = int(found.nit)
        self.converged_ = steepest <= self.tol
        context.log(lr_iterations=self.n_iter_, lr_objective=float(found.fun), lr_gradient=steepest)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities ``(n, n_classes)`` float32 of images or float rows."""
        W, b = torch.from_numpy(self.coef_), torch.from_numpy(self.intercept_)
        blocks = []
        for start in range(0, len(X), PREDICT_BLOCK):
            rows = torch.from_numpy(_float_rows(X[start : start + PREDICT_BLOCK]))
            logits = torch.addmm(b, rows, W.T)
            # The logarithm keeps sigmoids that are all nearly 0 apart: their sum is no 0.
            scores = F.logsigmoid(logits) if self.multi_class == "ovr" else logits
            blocks.append(scores.softmax(1))
        return all_columns(torch.cat(blocks), self.classes_, self.n_classes)

    def _objective(
        self,
        rows: torch.Tensor,
        mean: torch.Tensor,
        one_hot: torch.Tensor,
        W: torch.Tensor,
        b: torch.Tensor,
    ) -> tuple[float, torch.Tensor]:
        """The objective divided by n, and its gradient ``(k, d + 1)``, the intercepts' last.

        The intercepts `b` are those of the centred rows. A block of rows is used for both products
        while it is in the cache: memory is what limits them.
        """
        n, penalty = len(rows), 1 / (self.C * len(rows))
        offset = b - W @ mean
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        slope, W_gradient = torch.zeros_like(b), torch.zeros_like(W)
        for x, hot in zip(rows.split(BLOCK), one_hot.split(BLOCK), strict=True):
            losses, residual = self._losses(torch.addmm(offset, x, W.T), hot)
            total += losses.sum(dtype=torch.float64)
            slope += residual.sum(0)
            W_gradient.addmm_(residual.T, x)
        W_gradient = (W_gradient - slope.outer(mean)) / n + penalty * W
        objective = total / n + penalty / 2 * W.square().sum(dtype=torch.float64)
        return float(objective), torch.cat([W_gradient, slope.unsqueeze(1) / n], 1)

    def _losses(
        self, logits: torch.Tensor, one_hot: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses ``(m, k)``, and their derivatives by the logits ``(m, k)``."""
        if self.multi_class == "ovr":
            return F.softplus(logits) - one_hot * logits, logits.sigmoid() - one_hot
        log_probabilities = logits.log_softmax(1)
        return -one_hot * log_probabilities, log_probabilities.exp() - one_hot


class HasProbe(Protocol):
    """A method with a logistic regression on features; parameters as of `LogisticRegression`."""

    n_clusters: int
    C: float
    lr_max_iter: int


def new_probe(method: HasProbe, tol: str = "tol") -> LogisticRegression:
    """The multinomial regression of a method, with the parameters that the method has for it.

    Its tolerance is the method's parameter of the name `tol`.

    Raises
    ------
    ValueError : a parameter out of range, by the name that the method has for it.
    """
    for name in ("C", tol, "lr_max_iter"):
        if not getattr(method, name) > 0:
            raise ValueError(f"{name} is {getattr(method, name)}; expected above 0")
    return LogisticRegression(
        method.n_clusters,
        C=method.C,
        multi_class="multinomial",
        tol=getattr(method, tol),
        max_iter=method.lr_max_iter,
    )


class Whitening:
    """Variables V in which the objective is nearly round: the weights are V times a fixed matrix.

    A Hessian of the objective, divided by n, is at most H = rows' covariance / 4 + penalty (in one
    class; Böhning 1992). With H = L Lᵀ the weights are ``W = V L⁻¹``: in V that bound is the
    identity. On 60,000 images of Fashion-MNIST, L-BFGS-B then comes within 1 % of the optimum in a
    quarter of the iterations. With more than `WHITEN_AT_MOST` features, where H would be large, V
    is W.

    Parameters
    ----------
    rows : ``(n, d)`` float32, not centred.
    mean : ``(d,)``, their mean.
    penalty : 1 / (C n).

    References
    ----------
    Böhning, Multinomial logistic regression algorithm, Annals of the Institute of Statistical
    Mathematics 44, 1992.
    """

    def __init__(self, rows: torch.Tensor, mean: torch.Tensor, penalty: float) -> None:
        self._device = rows.device
        self._inverse: torch.Tensor | None = None  # of L, (d, d)
        if len(mean) > WHITEN_AT_MOST:
            return
        hessian = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=rows.device)
        for block in rows.split(BLOCK):
            centred = block - mean
            hessian += centred.T @ centred  # each in float32, their sum in float64
        hessian /= 4 * len(rows)
        # The second is well above the rounding error of the products.
        ridge = max(penalty, RIDGE * float(hessian.trace()))
        hessian.diagonal().add_(ridge)
        identity = torch.eye(len(mean), dtype=torch.float64, device=rows.device)
        L = torch.linalg.cholesky(hessian)
        self._inverse = torch.linalg.solve_triangular(L, identity, upper=False).float()

    def weights(self, V: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights ``(k, d)`` and intercepts ``(k,)``, float32, of the solver's ``(k, d + 1)``."""
        both = torch.from_numpy(V).float().to(self._device)
        W, b = both[:, :-1].contiguous(), both[:, -1]
        return (W, b) if self._inverse is None else (W @ self._inverse, 2 * b)

    def gradient(self, gradient: torch.Tensor) -> np.ndarray:
        """The gradient by V, flat, of a gradient ``(k, d + 1)`` by weights and intercepts."""
        if self._inverse is not None:
            W, b = gradient[:, :-1] @ self._inverse.T, 2 * gradient[:, -1:]
            gradient = torch.cat([W, b], 1)
        return gradient.double().cpu().numpy().ravel()


def _float_rows(X: np.ndarray) -> np.ndarray:
    """uint8 images, or float ones in [0, 1] (or rows), as float32 rows."""
    return as_rows(X if X.dtype == np.uint8 else X.reshape(len(X), -1))
