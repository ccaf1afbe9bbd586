"""The unit of work: one method at one level with one seed, its identity, and the grid of many."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from bench.core.choices import check_choices, seed_list
from bench.core.errors import BenchError
from bench.core.levels import LEVELS, Level
from bench.core.texts import unstorable
from methods import registry
from methods.method import Method
from methods.names import LONGEST_NAME, can_name_a_folder
from methods.registry import Entry

WORD = re.compile(r"[^\W\d_][\w-]*")
OTHER_VALUES = ("None", "True", "False", "nan", "inf")  # of which a text shows the same letters


def canonical_digest(value: Any) -> str:
    """SHA-256 of `value` as JSON with sorted keys: equal values, equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def check_name(what: str, name: str) -> None:
    """Refuse a name that cannot be part of a path, or that would lead out of the folder.

    Raises
    ------
    BenchError : it is blank, ``.`` or ``..``, too long, or holds a slash, a backslash, a control
        character, or what no file name can hold.
    """
    if not can_name_a_folder(name):
        raise BenchError(
            f"the name of the {what} is {name[:80]!r}; expected a name that a folder can have: at "
            f"most {LONGEST_NAME} bytes, not blank, no slash, no control character"
        )


@dataclass(frozen=True)
class Trial:
    """One method (variant) × level × seed under one protocol, selection, schedule and data set.

    `params` are all hyperparameters but ``random_state``, which is `seed`. `variant` holds those
    among them that differ from what the method's name and schedule give. `precision` is what was
    asked for: two records made under ``auto`` on different processors are one trial.
    """

    dataset: str
    dataset_digest: str
    protocol: str
    selection: str
    schedule: str
    method: str
    level: str
    seed: int
    params: Mapping[str, Any] = field(default_factory=dict)
    variant: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_choices(
            protocol=self.protocol,
            selection=self.selection,
            schedule=self.schedule,
            precision=self.precision,
        )
        check_name("dataset", self.dataset)
        check_name("method", self.method)
        if str(Level.parse(self.level)) != self.level:
            raise BenchError(f"level is {self.level!r}; expected {str(Level.parse(self.level))!r}")
        if self.seed < 0:
            raise BenchError(f"seed is {self.seed}; expected 0 or more")
        bad = unstorable({**self.params, **self.variant})
        if bad:
            raise BenchError(
                f"{self.method}{bad[1:]} is no text that a file can hold; expected one of UTF-8"
            )

    @property
    def identity(self) -> str:
        """What makes two trials the same: SHA-256 over all fields."""
        return canonical_digest(asdict(self) | {"variant": None})

    @property
    def variant_changes(self) -> dict[str, Any]:
        """What distinguishes the variant, an explicit precision included."""
        explicit = {} if self.precision == "auto" else {"precision": self.precision}
        return dict(self.variant) | explicit

    @property
    def variant_text(self) -> str:
        """The variant for a table cell: ``lam=0.1``; empty for the method itself.

        Two variants never have one text: a text that would read as a number, as another value or
        as more than one stands in quotes.
        """
        changes = sorted(self.variant_changes.items())
        return " ".join(f"{name}={_shown(value)}" for name, value in changes)

    @property
    def folder(self) -> PurePosixPath:
        """Where the variant's records lie, relative to ``results/trials``."""
        changes = self.variant_changes
        suffix = f"@{canonical_digest(changes)[:8]}" if changes else ""
        group = f"{self.protocol}-{self.selection}-{self.schedule}"
        return PurePosixPath(self.dataset, group, f"{self.method}{suffix}")

    @property
    def path(self) -> PurePosixPath:
        """Where the record lies, relative to ``results/trials``."""
        return self.folder / self.level / f"{self.seed}.json"

    @property
    def title(self) -> str:
        """For a person: ``ss-dcec lam=0.1 · 5% · seed 0``."""
        name = f"{self.method} {self.variant_text}".strip()
        return f"{name} · {self.level} · seed {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """All fields, as a record holds them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Trial:
        """The trial that `to_json` gave."""
        return cls(**values)


def _shown(value: Any) -> str:
    """A parameter's value, as it reads the same before and after it has been in a record."""
    if isinstance(value, str) and (value in OTHER_VALUES or not WORD.fullmatch(value)):
        return repr(value)
    return str(list(value) if isinstance(value, tuple) else value)


def fitted_as(trial: Trial) -> Trial:
    """The trial whose fit serves `trial`: its own, or another method's where nothing is labelled.

    A method says with ``tags.without_labels`` which method it is then. That one has its own
    parameters for this schedule, except for those that were asked for (by the name of the method or
    by the user) and that both have.

    Raises
    ------
    RegistryError : one of the methods is not registered.
    """
    entry = registry.get(trial.method)
    if entry.tags.without_labels is None or Level.parse(trial.level).amount > 0:
        return trial
    other = registry.get(entry.tags.without_labels)
    plain = other.parameters(trial.schedule, n_clusters=trial.params["n_clusters"])
    plain.pop("random_state", None)
    asked = entry.params | dict(trial.variant)
    changed = {x: asked[x] for x in asked if x in plain and asked[x] != plain[x]}
    return replace(trial, method=other.name, params=plain | changed, variant=changed)


def method_of(trial: Trial) -> Method:
    """The method of a trial, unfitted, with parameters of its own: it may do to them what it likes.

    Raises
    ------
    RegistryError : it is not registered.
    """
    params = copy.deepcopy(dict(trial.params))
    return registry.get(trial.method).cls(**params, random_state=trial.seed)


@dataclass(frozen=True)
class Grid:
    """What one run asks for; `trials` spells it out."""

    dataset: str
    dataset_digest: str
    n_classes: int
    entries: tuple[Entry, ...]
    levels: tuple[str, ...] = LEVELS
    seeds: int | Sequence[int] = 1
    protocol: str = "transductive"
    selection: str = "stratified"
    schedule: str = "quick"
    precision: str = "auto"
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def trials(self) -> list[Trial]:
        """All trials, seed by seed: the first seed's leaderboard is complete before the next."""
        levels = [str(Level.parse(level)) for level in self.levels]
        return [
            self._trial(entry, level, seed)
            for seed in seed_list(self.seeds)
            for entry in self.entries
            for level in dict.fromkeys(levels)
        ]

    def _trial(self, entry: Entry, level: str, seed: int) -> Trial:
        plain = entry.parameters(self.schedule, n_clusters=self.n_classes)
        changes = self.changes.get(entry.name, {})
        if "random_state" in changes:
            raise BenchError(f"{entry.name}.random_state is the trial's seed; give --seeds instead")
        params = entry.parameters(self.schedule, **{"n_clusters": self.n_classes, **changes})
        variant = {name: params[name] for name in changes if params[name] != plain[name]}
        params = plain | variant  # 1 and 1.0 are equal, and yet two identities
        params.pop("random_state", None)
        return Trial(
            dataset=self.dataset,
            dataset_digest=self.dataset_digest,
            protocol=self.protocol,
            selection=self.selection,
            schedule=self.schedule,
            method=entry.name,
            level=level,
            seed=seed,
            params=params,
            variant=variant,
            precision=self.precision,
        )


def check_suitable(entries: Iterable[Entry], protocol: str, selection: str) -> list[str]:
    """Why each unsuitable method cannot take part: one sentence each, none if all can."""
    reasons = []
    for entry in entries:
        if protocol != "transductive" and not entry.tags.inductive:
            reasons.append(f"{entry.name} cannot label new images, which protocol {protocol} asks")
        if selection == "representative" and not hasattr(entry.cls, "select"):
            reasons.append(f"{entry.name} has no select(), which selection representative asks")
    return reasons
