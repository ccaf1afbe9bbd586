"""Lloyd's iterations: exact, for all restarts together, with few distances computed.

From the second iteration on almost every instance keeps its centre. On a processor two bounds say
so without a distance to the centre, and what they leave open is computed exactly, so that the
labels are those of the plain algorithm:

- The triangle inequality. Of each instance an upper bound of the distance to its own centre is
  kept, and a lower bound of the distance to all others. Centres that have moved loosen them by
  their moves (Hamerly's bounds). The centres that moved little loosen the second one little, so
  most instances are compared with the others alone.
- A projection. In a basis of the rows' leading principal directions, with ``x = (x_P, x_R)``,
  Cauchy and Schwarz give ``x·c <= x_P·c_P + ‖x_R‖ ‖c_R‖``: a lower bound of the distance from a
  product of `DIRECTIONS` + 1 numbers instead of 784. About three of 2,000 centres stay candidates.

With bounds the restarts advance together, each with the rows that its own bounds leave open. On an
accelerator, and for rows too short to gain from bounds, the distances are simply computed, in one
matrix product for the centres of all restarts.

References
----------
Lloyd, Least squares quantization in PCM, IEEE Transactions on Information Theory 28, 1982.
Hamerly, Making k-means even faster, SIAM International Conference on Data Mining, 2010.
Ding et al., Yinyang k-means, ICML 2015: groups of centres, and sums of those that changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

DIRECTIONS = 64  # of the projection: 88 % of the variance of Fashion-MNIST
EXACT = 1024  # columns up to which they are computed exactly; eigenvectors of 3,072 took 6 s
BLOCK = 2**21  # products at a time: 8 MB, which the cache holds
PAIRS = 1024  # rows at a time that are looked up: 3 MB of 784 numbers, for the same reason
MANY = 256  # centres: to compare a row with all of them costs more than its distance to one
MARGIN = 3e-3  # other centres are looked at up to this much beyond the own one
STAYING = 0.3  # the share of centres counted as those that moved little
UNIT = 2.0**-24  # rounding error of float32


@dataclass(frozen=True)
class Projection:
    """Rows along a few orthonormal directions, and how much of each lies outside them.

    Parameters
    ----------
    basis : ``(d, p)`` float64.
    rows : ``(n, p + 1)`` float32: coordinates, then the norm of the rest, rounded up.
    """

    basis: torch.Tensor
    rows: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor) -> Projection:
        """The leading principal directions of (some of) the rows ``(n, d)``, and all rows there.

        The bounds hold in any orthonormal directions, so that for long rows near ones will do.
        """
        exact = rows.shape[1] <= EXACT
        sample = rows[:: max(1, len(rows) // (4096 if exact else 1024))].double()
        if exact:
            basis = torch.linalg.eigh(sample.T @ sample).eigenvectors[:, -DIRECTIONS:]
        else:
            basis = near_leading_directions(sample, DIRECTIONS)
        return cls(basis, project(rows, basis))


def near_leading_directions(rows: torch.Tensor, p: int) -> torch.Tensor:
    """Orthonormal directions ``(d, p)`` that hold nearly as much of the rows as any p can.

    For rows ``(m, d)`` float64 no matrix is larger than they are; p is at most m.

    References
    ----------
    Halko, Martinsson and Tropp, Finding structure with randomness, SIAM Review 53, 2011, algorithms
    4.4 and 5.1.
    """
    draws = torch.Generator().manual_seed(0)
    test = torch.randn(rows.shape[1], p + 8, generator=draws, dtype=rows.dtype)
    Q = torch.linalg.qr(rows @ test.to(rows.device)).Q
    for _ in range(2):
        Q = torch.linalg.qr(rows @ torch.linalg.qr(rows.T @ Q).Q).Q
    return torch.linalg.svd(rows.T @ Q, full_matrices=False).U[:, :p]


def project(rows: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Rows ``(m, d)`` in orthonormal directions ``(d, p)``: ``(m, p + 1)`` float32.

    The last number is at least the norm of what the directions leave out. It is computed in float64
    and enlarged by more than the rounding errors, so that products of two results are never smaller
    than the products of the rows by more than float32 rounds.
    """
    found = []
    for block in rows.split(PAIRS // 2):  # float64, and several copies
        exact = block.double()
        inside = exact @ basis
        squared = exact.square().sum(1)
        rest = (squared - inside.square().sum(1)).clamp_min(0) + 1e-12 * squared
        found.append(torch.cat([inside, rest.sqrt().unsqueeze(1) * (1 + 1e-7)], 1).float())
    return torch.cat(found)


def distances(
    rows: torch.Tensor, which: torch.Tensor, centres: torch.Tensor, to: torch.Tensor
) -> torch.Tensor:
    """Euclidean distances ``(m,)`` from rows number `which` ``(m,)`` to centres number `to`."""
    found = rows.new_empty(len(which))
    # Used again and again: fresh memory for each block would cost more than the arithmetic.
    both = rows.new_empty(2, min(PAIRS, len(which)), rows.shape[1])
    for start in range(0, len(which), PAIRS):
        block = slice(start, start + PAIRS)
        x, c = both[:, : len(which[block])]
        torch.index_select(rows, 0, which[block], out=x)
        torch.index_select(centres, 0, to[block], out=c)
        torch.linalg.vector_norm(x.sub_(c), dim=1, out=found[block])  # no large squares
    return found


def product_error(length: int, radius: float) -> float:
    """How far rounding may push ‖x‖² + ‖c‖² - 2x·c, for products of `length` float32 numbers.

    `radius` is at least ‖x‖ + ‖c‖.
    """
    return 4 * UNIT * (length + 8) * radius**2


class Lloyd:
    """Lloyd's iterations of R restarts over the same rows.

    Parameters
    ----------
    rows : ``(n, d)`` float32 on the device; best centred, for small rounding errors.
    projection : of the rows, or None: then distances are computed plainly.

    Attributes
    ----------
    state : tensors, enough to go on and get the same results: ``"centres"`` ``(R, k, d)``;
        ``"before"``, where they were when rows were last assigned; of then, ``"labels"``
        ``(R, n)``, the nearest centres (-1: none yet), ``"upper"`` and ``"lower"`` ``(R, n)``,
        bounds of the distances to the own and to all other centres; ``"sums"`` ``(R, k, d)``
        float64 and ``"counts"`` ``(R, k)`` of the rows with each label.
    """

    def __init__(self, rows: torch.Tensor, projection: Projection | None = None) -> None:
        self.rows = rows
        self.projection = projection
        self.squared_norms = rows.square().sum(1)
        self.state: dict[str, torch.Tensor] = {}

    def begin(self, centres: torch.Tensor) -> None:
        """Start from first centres ``(R, k, d)``."""
        runs, k, d = centres.shape
        n = len(self.rows)
        self.go_on(
            {
                "centres": centres,
                "before": centres,
                "labels": torch.full((runs, n), -1),
                "upper": torch.full((runs, n), torch.inf),
                "lower": torch.zeros(runs, n),
                "sums": torch.zeros(runs, k, d, dtype=torch.float64),
                "counts": torch.zeros(runs, k, dtype=torch.int64),
            }
        )
        self.assign()

    def go_on(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from the `state` of another Lloyd over the same rows."""
        self.state = {name: tensor.to(self.rows.device) for name, tensor in state.items()}

    def assign(self) -> None:
        """Give each row the nearest centre of each restart, and add up the rows of each centre."""
        before = self.state["labels"].clone()
        if self.projection is None:
            self.state["labels"] = self._nearest_plainly()
        else:
            for run in range(len(before)):
                self._nearest_by_bounds(run)
        self._add_up(before)
        self.state["before"] = self.state["centres"]

    def update(self) -> list[float]:
        """Move each centre to the mean of its rows; the sum of the squared moves of each restart.

        A centre that no row is nearest to moves to one of the rows farthest from theirs, as in
        scikit-learn.
        """
        means, facts = self._means()
        numbers = facts.tolist()  # the one thing that the host waits for
        if any(empty for _, empty in numbers):
            for run in [run for run, (_, empty) in enumerate(numbers) if empty]:
                self._fill_empty(run)
            means, facts = self._means()
            numbers = facts.tolist()
        self.state["centres"] = means
        return [shift for shift, _ in numbers]

    def inertias(self, which: list[int]) -> list[float]:
        """The sum of the squared distances to the own centres, of these restarts."""
        everything = torch.arange(len(self.rows), device=self.rows.device)
        centres, labels = self.state["centres"], self.state["labels"]
        own = [distances(self.rows, everything, centres[i], labels[i]) for i in which]
        return torch.stack(own).double().square().sum(1).tolist()

    def keep(self, running: list[int]) -> None:
        """Go on with these restarts alone."""
        self.state = {name: tensor[running] for name, tensor in self.state.items()}

    def _nearest_plainly(self) -> torch.Tensor:
        """Labels ``(R, n)`` from ½‖c‖² - x·c, one product for the centres of all restarts."""
        centres = self.state["centres"]
        runs, k, _ = centres.shape
        half_norms = centres.square().sum(2).flatten() / 2
        labels = [
            torch.addmm(half_norms, block, centres.flatten(0, 1).T, alpha=-1)
            .view(-1, runs, k)
            .argmin(2)
            for block in self.rows.split(max(1, BLOCK // (runs * k)))
        ]
        return torch.cat(labels).T.contiguous()

    def _nearest_by_bounds(self, run: int) -> None:
        """The same labels for one restart, and its bounds."""
        state = {name: tensor[run] for name, tensor in self.state.items()}
        assert self.projection is not None
        search = Search(self.rows, self.squared_norms, self.projection, state["centres"])
        if state["labels"][0] < 0:
            state["labels"].copy_(search.guess())
        search.update(state["before"], state["labels"], state["upper"], state["lower"])

    def _add_up(self, before: torch.Tensor) -> None:
        """Sums and counts of the rows with each label; on entry they are of those `before`."""
        if self.rows.device.type == "cpu":
            self._add_what_changed(before)
        else:
            self._add_all()

    def _add_what_changed(self, before: torch.Tensor) -> None:
        """Sums and counts from those of the labels `before`: exact to float64, in one order."""
        labels, k = self.state["labels"], self.state["counts"].shape[1]
        sums, counts = self.state["sums"].view(-1, self.rows.shape[1]), self.state["counts"]
        run, row = (labels != before).nonzero(as_tuple=True)
        for a, b in zip(run.split(PAIRS), row.split(PAIRS), strict=True):
            moved = self.rows.index_select(0, b).double()
            sums.index_add_(0, a * k + labels[a, b], moved)
            left = before[a, b] >= 0
            sums.index_add_(0, (a * k + before[a, b])[left], moved[left], alpha=-1)
        for number, own in enumerate(labels):
            counts[number] = torch.bincount(own, minlength=k)

    def _add_all(self) -> None:
        """Sums and counts by products, which are deterministic where atomic additions are not."""
        labels, counts = self.state["labels"], self.state["counts"]
        runs, k = counts.shape
        columns = labels + k * torch.arange(runs, device=labels.device).unsqueeze(1)
        sums = torch.zeros_like(self.state["sums"]).view(runs * k, -1)
        total = torch.zeros(runs * k, dtype=torch.float64, device=labels.device)
        size = max(1, BLOCK // (runs * k))
        for rows, column in zip(self.rows.split(size), columns.T.split(size), strict=True):
            member = torch.zeros(len(rows), runs * k, device=labels.device).scatter_(1, column, 1)
            sums += (member.T @ rows).double()
            total += member.sum(0)
        self.state["sums"] = sums.view_as(self.state["sums"])
        self.state["counts"] = total.long().view(runs, k)

    def _means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The means ``(R, k, d)``; ``(R, 2)``: sum of squared moves and number of empty clusters.

        The mean of no rows is the centre as it was.
        """
        counts = self.state["counts"].unsqueeze(2)
        means = (self.state["sums"] / counts.clamp_min(1)).float()
        means = torch.where(counts > 0, means, self.state["centres"])
        shifts = (means - self.state["centres"]).double().square().sum((1, 2))
        return means, torch.stack([shifts, (counts == 0).double().sum((1, 2))], 1)

    def _fill_empty(self, run: int) -> None:
        """Make the rows farthest from their centres the only members of the empty clusters."""
        state = {name: tensor[run : run + 1] for name, tensor in self.state.items()}
        labels = state["labels"][0]
        before = self.state["labels"].clone()
        empty = (state["counts"][0] == 0).nonzero().flatten()
        own = distances(
            self.rows, torch.arange(len(labels), device=labels.device), state["centres"][0], labels
        )
        far = own.topk(len(empty)).indices
        labels[far] = empty
        state["upper"][0, far], state["lower"][0, far] = torch.inf, 0
        self._add_up(before)


class Search:
    """The nearest of the centres ``(k, d)`` of one restart, exactly, by bounds."""

    def __init__(
        self,
        rows: torch.Tensor,
        squared_norms: torch.Tensor,
        projection: Projection,
        centres: torch.Tensor,
    ) -> None:
        self.rows = rows
        self.squared_norms = squared_norms
        self.projection = projection
        self.centres = centres
        self.short_centres = project(centres, projection.basis)
        self.half_norms = centres.square().sum(1) / 2
        longest = float(squared_norms.max()) ** 0.5, float(2 * self.half_norms.max()) ** 0.5
        self.radius = sum(longest)  # no distance is larger
        # How far rounding may push a squared distance that comes from a product, ...
        self.squared_error = product_error(self.short_centres.shape[1], self.radius)
        # ... and, relatively, one that is computed directly.
        self.relative_error = UNIT * (rows.shape[1] + 8)

    def guess(self) -> torch.Tensor:
        """A good label ``(n,)`` for each row, to begin with."""
        every = torch.arange(len(self.centres))
        return torch.cat([self._half_bounds(b, every).argmin(1) for b in self._blocks(every)])

    def update(
        self,
        before: torch.Tensor,
        labels: torch.Tensor,
        upper: torch.Tensor,
        lower: torch.Tensor,
    ) -> None:
        """Nearest centres, in place, from those of the centres `before` ``(k, d)``.

        `labels`, `upper` and `lower` ``(n,)`` hold for the centres before; when this returns, they
        hold for the centres now. An upper bound may be infinite.
        """
        moves = (self.centres - before).norm(dim=1)
        moves = torch.where(moves > 0, moves * (1 + 1e-6) + 4 * UNIT * self.radius, 0)
        most, little = moves.max(), moves.quantile(STAYING)
        old_upper = upper.clone()
        upper += moves[labels]
        lower -= most
        loose = 1 + 4 * self.relative_error  # so much larger, rounding makes no difference
        unsure = (upper * loose >= lower).nonzero().flatten()
        by_product = self._moved_upper(before, unsure, labels[unsure], old_upper[unsure])
        upper[unsure] = upper[unsure].minimum(by_product)
        staying = lower[unsure] + (most - little)  # a bound for the centres that moved little
        exactly = upper[unsure].isinf()
        if len(moves) > MANY:
            exactly |= upper[unsure] * loose >= staying
        which = unsure[exactly]
        upper[which] = distances(self.rows, which, self.centres, labels[which])
        anywhere = upper[unsure] * loose >= staying
        by_moved = ~anywhere & (upper[unsure] * loose >= lower[unsure])
        self._search(unsure[anywhere], torch.arange(len(moves)), labels, upper, lower)
        self._search(unsure[by_moved], (moves > little).nonzero().flatten(), labels, upper, lower)
        lower[unsure[by_moved]] = lower[unsure[by_moved]].minimum(staying[by_moved])

    def _moved_upper(
        self, before: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor, upper: torch.Tensor
    ) -> torch.Tensor:
        """Upper bounds after the own centres' moves δ: ‖x-c-δ‖² = ‖x-c‖² + ‖c+δ‖² - ‖c‖² - 2x·δ.

        Cauchy and Schwarz are needed only for the part of δ outside the projection, so that much
        less is lost than by adding ‖δ‖.
        """
        change = self.centres.double() - before
        grown = (change * (self.centres.double() + before)).sum(1).float()
        short = project(change, self.projection.basis)
        short[:, :-1].neg_()
        error = 8 * UNIT * (short.shape[1] + 8) * self.radius * short.norm(dim=1).max()
        found = []
        for row, label, bound in zip(*(t.split(PAIRS) for t in (rows, labels, upper)), strict=True):
            x = self.projection.rows.index_select(0, row)
            product = x.mul_(short.index_select(0, label)).sum(1)
            squared = bound.square() + grown[label] + 2 * product
            found.append(((squared + error).clamp_min(0) * (1 + 8 * UNIT)).sqrt())
        return torch.cat(found)

    def _search(
        self,
        rows: torch.Tensor,
        among: torch.Tensor,
        labels: torch.Tensor,
        upper: torch.Tensor,
        lower: torch.Tensor,
    ) -> None:
        """Nearest of the own centre and those numbered `among`, for the rows numbered `rows`.

        `lower` becomes a bound of the distances to all of `among` but the nearest.
        """
        lower[rows] = torch.inf
        if not len(among):
            return
        column = torch.full((len(self.centres),), -1)
        column[among] = torch.arange(len(among))
        for block in rows.split(max(1, BLOCK // len(among))):
            halves = self._half_bounds(block, among)
            own = column[labels[block]]
            inside = (own >= 0).nonzero().flatten()
            halves[inside, own[inside]] = torch.inf
            least = halves.amin(1, keepdim=True)
            squared = 2 * least[:, 0] + self.squared_norms[block] - self.squared_error
            lower[block] = squared.clamp_min(0).sqrt()
            close = (least <= self._limit(upper[block], block))[:, 0].nonzero().flatten()
            halves, block = halves.index_select(0, close), block[close]
            upper[block] = distances(self.rows, block, self.centres, labels[block])
            at, to = (halves <= self._limit(upper[block], block)).nonzero(as_tuple=True)
            self._choose(block, at, among[to], labels, upper, lower)

    def _choose(
        self,
        rows: torch.Tensor,
        at: torch.Tensor,
        candidates: torch.Tensor,
        labels: torch.Tensor,
        upper: torch.Tensor,
        lower: torch.Tensor,
    ) -> None:
        """The nearest of each row's own centre and its candidates, exactly; ties: the first.

        Candidate number i is one of row ``rows[at[i]]``; all others are out of reach.
        """
        exact = distances(self.rows, rows[at], self.centres, candidates)
        own, own_label = upper[rows], labels[rows]
        best = own.clone().scatter_reduce_(0, at, exact, "amin")
        wins = exact == best[at]
        none = len(self.centres)
        label = torch.where(own == best, own_label, none)
        label.scatter_reduce_(0, at, torch.where(wins, candidates, none), "amin")
        second = torch.where(label == own_label, own * (1 + MARGIN), own)
        second.scatter_reduce_(0, at, exact.masked_fill(candidates == label[at], torch.inf), "amin")
        labels[rows], upper[rows], lower[rows] = label, best, second

    def _limit(self, upper: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """What the `_half_bounds` ``(m, 1)`` of a centre must exceed for it to be out of reach."""
        reach = (upper * (1 + MARGIN)).square() + self.squared_error
        return ((reach - self.squared_norms[rows]) / 2).unsqueeze(1)

    def _half_bounds(self, block: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
        """½‖c‖² - x·c or less, ``(len(block), len(among))``."""
        short = self.short_centres[among].T
        return torch.addmm(
            self.half_norms[among], self.projection.rows.index_select(0, block), short, alpha=-1
        )

    def _blocks(self, among: torch.Tensor) -> Iterator[torch.Tensor]:
        """The numbers of all rows, so many at a time that the products stay in the cache."""
        yield from torch.arange(len(self.rows)).split(max(1, BLOCK // len(among)))
