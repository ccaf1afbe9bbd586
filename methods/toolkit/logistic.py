"""Logistic regression on pixels, one of the heads."""

from __future__ import annotations

from functools import partial
from itertools import count

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from methods.method import Context
from methods.toolkit.kmeans import as_rows

MULTI_CLASS = ("ovr", "multinomial")
PREDICT_BLOCK = 10_000  # images as float32 rows: 31 MB


class LogisticRegression:
    """L2-regularised logistic regression on pixels, as scikit-learn defines it.

    Minimises ``sum of losses + |W|² / (2 C)`` over weights W and intercepts, which are not
    penalised. The problem is convex, so that the solver decides only the time: here L-BFGS-B over
    all classes at once, on centred rows, which changes the intercepts alone. The products are in
    float32, the sum of the losses in float64.

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
        iterations = count(1)
        options = {
            "maxiter": self.max_iter,
            "maxfun": 50 * self.max_iter,
            "maxls": 50,
            "gtol": self.tol,
            "ftol": 0.0,  # the gradient alone decides
        }
        found = minimize(
            partial(self._objective, rows, mean, one_hot),
            np.zeros(k * (rows.shape[1] + 1)),
            jac=True,
            method="L-BFGS-B",
            callback=lambda _: context.progress("iteration", next(iterations), self.max_iter),
            options=options,
        )
        W, b = _split(found.x, k, context.device)
        self.coef_ = W.cpu().numpy()
        self.intercept_ = (b - W @ mean).cpu().numpy()
        self.n_iter_ = int(found.nit)
        steepest = float(np.abs(found.jac).max())
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
        self, rows: torch.Tensor, mean: torch.Tensor, one_hot: torch.Tensor, flat: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """The objective divided by n, and its gradient, at the solver's vector ``(k·(d + 1),)``.

        Its intercepts are those of the centred rows.
        """
        n, k = one_hot.shape
        W, b = _split(flat, k, str(rows.device))
        penalty = 1 / (self.C * n)
        logits = torch.addmm(b - W @ mean, rows, W.T)  # (n, k)
        loss, residual = self._loss(logits, one_hot)
        slope = residual.sum(0)
        W_gradient = (residual.T @ rows - slope.outer(mean)) / n + penalty * W
        gradient = torch.cat([W_gradient, slope.unsqueeze(1) / n], 1)  # (k, d + 1)
        squares = float(W.square().sum(dtype=torch.float64))
        return loss / n + penalty / 2 * squares, gradient.double().cpu().numpy().ravel()

    def _loss(self, logits: torch.Tensor, one_hot: torch.Tensor) -> tuple[float, torch.Tensor]:
        """The summed loss, and its derivative ``(n, k)`` by the logits."""
        if self.multi_class == "ovr":
            losses = F.softplus(logits) - one_hot * logits
            residual = logits.sigmoid() - one_hot
        else:
            log_probabilities = logits.log_softmax(1)
            losses = -one_hot * log_probabilities
            residual = log_probabilities.exp() - one_hot
        return float(losses.sum(dtype=torch.float64)), residual


def all_columns(probabilities: torch.Tensor, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Probabilities of the classes seen as columns of all `n_classes`; 0 elsewhere."""
    columns = np.zeros((len(probabilities), n_classes), dtype=np.float32)
    columns[:, classes] = probabilities.numpy()
    return columns


def _float_rows(X: np.ndarray) -> np.ndarray:
    """uint8 images, or float ones in [0, 1] (or rows), as float32 rows."""
    return as_rows(X if X.dtype == np.uint8 else X.reshape(len(X), -1))


def _split(flat: np.ndarray, k: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``(k, d)`` and intercepts ``(k,)``, float32, out of the solver's flat vector."""
    both = torch.from_numpy(flat.reshape(k, -1)).float().to(device)
    return both[:, :-1].contiguous(), both[:, -1]
