"""How much is labelled: shares and numbers of labels, and the sets of them that have a name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from bench.core.errors import BenchError

LEVELS: tuple[str, ...] = ("0%", "1%", "3%", "5%", "10%", "20%", "30%", "50%")
FEW: tuple[str, ...] = ("10", "20", "40", "100", "250", "500")
NAMED_LEVELS: dict[str, tuple[str, ...]] = {"shares": LEVELS, "few": FEW}
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%")
_COUNT = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, order=True)
class Level:
    """How much is labelled: a share of the fitted instances (`5%`) or a count (`500`).

    Shares sort before counts, each by size. No labels is one level, `0%`, however written.

    Attributes
    ----------
    is_count : bool
        Whether `amount` is a number of labels; otherwise it is a percentage.
    amount : Decimal
        Percent from 0 to 100, or a whole number of labels. Decimal, because shares are exact.

    Examples
    --------
    >>> str(Level.parse("5 %")), Level.parse("5%").n_labels(70_000)
    ('5%', 3500)
    >>> Level.parse("500").n_labels(70_000)
    500
    """

    is_count: bool
    amount: Decimal

    def __post_init__(self) -> None:
        whole = self.amount == self.amount.to_integral_value()
        if self.amount < 0 or (self.is_count and not whole):
            raise BenchError(_neither_share_nor_count(str(self.amount)))
        if not self.is_count and self.amount > 100:
            raise BenchError(
                f"Level '{self.amount}%' is more than all instances: write a share from 0% to "
                "100% such as `5%`, or a number of labels such as `500`."
            )
        if self.amount == 0:
            object.__setattr__(self, "is_count", False)

    @classmethod
    def parse(cls, text: str) -> Level:
        """Read `5%`, `0.5%`, `5 %` or `500`.

        Raises
        ------
        BenchError
            If the text is anything else, among it a bare `0.05`, or more than 100 %.
        """
        stripped = str(text).strip()
        share = _SHARE.fullmatch(stripped)
        if share:
            return cls(is_count=False, amount=Decimal(share[1]))
        if _COUNT.fullmatch(stripped):
            return cls(is_count=True, amount=Decimal(stripped))
        raise BenchError(_neither_share_nor_count(str(text)))

    def __str__(self) -> str:
        return f"{self.amount.normalize():f}" + ("" if self.is_count else "%")

    def n_labels(self, n_fit: int) -> int:
        """How many of `n_fit` fitted instances are labelled; a half is rounded up.

        Raises
        ------
        BenchError
            If a count is above `n_fit`, or a share above 0 rounds to no label.
        """
        if n_fit < 1:
            raise BenchError(f"Level {self} of {n_fit} instances: give at least one instance.")
        if self.is_count:
            if self.amount > n_fit:
                raise BenchError(
                    f"Level {self} asks for {int(self.amount):,} labels, but the method is fitted "
                    f"on {n_fit:,} instances: ask for at most {n_fit}."
                )
            return int(self.amount)
        n_labels = int((self.amount * n_fit / 100).to_integral_value(ROUND_HALF_UP))
        if n_labels == 0 and self.amount > 0:
            raise BenchError(
                f"Level {self} of {n_fit:,} instances is less than one label: "
                "use a larger share, a count such as `500`, or 0% for no labels."
            )
        return n_labels


def suitable_levels(
    levels: Sequence[str], protocol: str, selection: str, n_fit: int, n_classes: int
) -> tuple[list[str], list[str]]:
    """`levels` with names such as ``"few"`` spelt out, and why some of these are left out.

    Parameters
    ----------
    levels : levels, and names of `NAMED_LEVELS`.
    n_fit, n_classes : fitted instances, and their classes.

    Returns
    -------
    The levels that the data allow, and a sentence for each that a name stands for and they do not.

    Raises
    ------
    BenchError : a level that was asked for itself is not possible.

    Examples
    --------
    >>> suitable_levels(["few"], "transductive", "stratified", 60, 10)[0]
    ['10', '20', '40']
    """
    found: list[str] = []
    reasons = []
    for given in levels:
        for level in NAMED_LEVELS.get(given, (given,)):
            try:
                _check_level(level, protocol, selection, n_fit, n_classes)
            except BenchError as error:
                if given not in NAMED_LEVELS:
                    raise
                reasons.append(str(error))
            else:
                found.append(level)
    return list(dict.fromkeys(found)), reasons


def said_of_count(level: str) -> str:
    """What to say of a number of labels that could have been meant as a share; else nothing.

    Examples
    --------
    >>> said_of_count("5"), said_of_count("5%"), said_of_count("few")
    ('level 5: 5 labels (for 5 % write 5%)', '', '')
    """
    if level in NAMED_LEVELS or not (parsed := Level.parse(level)).is_count or parsed.amount > 100:
        return ""
    labels = "label" if parsed.amount == 1 else "labels"
    return f"level {parsed}: {parsed} {labels} (for {parsed} % write {parsed}%)"


def _check_level(level: str, protocol: str, selection: str, n_fit: int, n_classes: int) -> None:
    """Raise BenchError for a level that cannot be, or that leaves no image to score."""
    n_labels = Level.parse(level).n_labels(n_fit)
    if protocol == "transductive" and n_labels == n_fit:
        raise BenchError(
            f"level {level} labels all {n_fit:,} images, so none is left to score; use "
            "--protocol inductive or a lower level"
        )
    if selection == "stratified" and 0 < n_labels < n_classes:
        raise BenchError(
            f"level {level} of {n_fit:,} images is {n_labels} label(s), which cannot be stratified "
            f"over {n_classes} classes; ask for at least {n_classes}, or use --selection random"
        )


def _neither_share_nor_count(text: str) -> str:
    from methods.names import did_you_mean  # not before `bench.core.shadows` has looked

    return (
        f"Level {text!r} is neither a share nor a count: write a share of the instances as `5%`, "
        "a number of labels as `500`, or shares or few for those of a board"
        + did_you_mean(text, NAMED_LEVELS)
    )
