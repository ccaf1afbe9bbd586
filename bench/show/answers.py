"""The first screen: what to use with so many labels, in sentences and as data for the form."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.core.errors import BenchError
from bench.records import advice
from bench.records.advice import DEVICES, Answer
from bench.show.sections import Section, headline_images


@dataclass(frozen=True)
class Part:
    """A part of a sentence: a text, and the anchor of the card if it is the name of a method."""

    text: str
    card: str = ""


@dataclass(frozen=True)
class FirstScreen:
    """Answers of the main board.

    Attributes
    ----------
    board : its dataset, protocol, selection and schedule; None without any headline.
    answers : with the sentence of each, in parts (`linked`).
    devices : what methods were timed on, with its words, that of most methods first.
    data : for the form of the page, as `bench.records.advice.to_json` gives it.
    """

    board: tuple[str, ...] | None = None
    answers: list[tuple[Answer, list[Part]]] = field(default_factory=list)
    devices: list[tuple[str, str]] = field(default_factory=list)
    data: dict[str, Any] | None = None

    @property
    def basis(self) -> str:
        """What the answers are about."""
        if self.board is None:
            return ""
        dataset, protocol, selection, schedule = self.board
        return (
            f"Measured on {dataset} ({protocol}, {selection} labels, schedule {schedule}). "
            f"Accuracy is that on {headline_images(protocol)}; seconds are those of a "
            "fit with all that it needs."
        )


def first_screen(
    table: pd.DataFrame, trials: pd.DataFrame, cards: Mapping[str, str]
) -> FirstScreen:
    """What the page begins with.

    Parameters
    ----------
    table : what `bench.records.leaderboard.aggregate` made of `trials`.
    trials : the rows of `load_results`.
    cards : the anchor of each name's card.
    """
    board = advice.main_board(table)
    if board is None:
        return FirstScreen()
    found = advice.answers(table, trials, board)
    data = advice.to_json(table, trials, board)
    timed = Counter(
        device for level in data["levels"] for one in level["entries"] for device in one["costs"]
    )
    by_use = [device for device, _ in timed.most_common()]
    devices = [(device, DEVICES.get(device, device)) for device in by_use]
    parts = [(one, linked(advice.sentence(one), cards)) for one in found]
    return FirstScreen(board, parts, devices, data | {"cards": dict(cards), "devices": by_use})


def linked(sentence: str, cards: Mapping[str, str]) -> list[Part]:
    """A sentence in parts, the names of methods in it apart, each with the anchor of its card.

    Examples
    --------
    >>> linked("With ab, not with a.", {"a": "card-a", "ab": "card-ab"})[1:3]
    [Part(text='ab', card='card-ab'), Part(text=', not with ', card='')]
    """
    longest = sorted(cards, key=len, reverse=True)
    names = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, longest))})(?![\w-])")
    return [Part(text, cards.get(text, "")) for text in names.split(sentence) if text]


def lead(table: pd.DataFrame, trials: pd.DataFrame, section: Section) -> str:
    """What to take at the level at which the methods of a board are compared, in a sentence."""
    at = section.good[section.good["level"] == section.level]
    if at.empty:
        return "No trial of this board has a headline."
    n_labels = int(at["n_labels"].max())
    try:
        return advice.sentence(advice.answer(table, trials, section.key[:4], n_labels))
    except BenchError:  # only variants were measured, which are not ranked
        return "No method of this board is ranked."
