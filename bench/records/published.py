"""The sources' figures as data, and what the records say of each: the basis of ``bench verify``.

``published/fashion_mnist.csv`` holds one published figure a row. `settings` says how the suite
measures it: `Setting` names a trial but for its seed. Only records of exactly that trial
count: the source's own protocol and selection, schedule ``paper``, these parameters, these images.
This module reads records and never runs a method; the methods have to be registered before
(`methods.registry.discover`), because their parameters are part of what is compared.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from bench.core.choices import PRECISIONS
from bench.core.errors import BenchError
from bench.core.levels import Level
from bench.core.trial import Grid, Trial
from bench.data.fashion_mnist import FASHION_MNIST
from bench.records.scoring import Record
from bench.records.store import BESIDE, Store, read_record
from methods import registry

PROTOCOLS = {
    "all 70000": "transductive",
    "train 60000": "inductive",
    "train 55000": "inductive-55k",
}
SELECTIONS = {  # with no label or with all of them there is nothing to select
    "none": "random",  # as in the rest of Table 1; SS-DCEC's card has the same figure
    "all": "stratified",
    "random": "random",
    "stratified": "stratified",
    "first n": "first",
    "representative": "representative",
}
SUBSETS = {"all 70000": "all", "unlabelled": "unlabelled", "test 10000": "test"}
SELECTION_RULES = ("best on test", "last", "label-free", "unknown")
METRICS = {"acc": "acc", "accuracy": "accuracy", "nmi": "nmi"}
CIFAR_10 = "cifar-10"
CIFAR_10_IMAGES_PER_CLASS = 6000


@dataclass(frozen=True)
class Published:
    """One row of ``fashion_mnist.csv``, in the words of its source.

    `number` is its place in the file, from 1. `clusters` and `percentile` are None where the
    source has none. `value` lies between 0 and 1. `selection` says how labels were chosen,
    `selection_rule`, one of `SELECTION_RULES`, which state of which run was published:

    - ``best on test``: the one with the best score on the images that are reported;
    - ``last``: that at the end, of a length or a stop that the reported images have no part in;
    - ``label-free``: that at a stop which needs no labels, as few changes of assignments;
    - ``unknown``: the source does not say.
    """

    number: int
    source: str
    method: str
    head: str
    trained_on: str
    selection: str
    labels: str
    clusters: int | None
    percentile: int | None
    metric: str
    value: float
    evaluated_on: str
    note: str
    selection_rule: str


def read_published(path: Path | Traversable | None = None) -> list[Published]:
    """The published figures, in the order of their file.

    Parameters
    ----------
    path : another file with the same columns; by default the one that belongs to the project.

    Raises
    ------
    BenchError : it is no table, or a row lacks a column, holds text where a number belongs, a
        value beyond 0 to 1, or a selection rule that is none of `SELECTION_RULES`.
    """
    read = []
    for number, row in enumerate(_rows(path or _shipped("fashion_mnist.csv")), start=1):
        try:
            numbers = {
                "clusters": int(row["clusters"]) if row["clusters"] else None,
                "percentile": int(row["percentile"]) if row["percentile"] else None,
                "value": float(row["value"]),
            }
            if None in row.values() or not 0 <= float(row["value"]) <= 1:
                raise ValueError("a cell is missing, or the value is not between 0 and 1")
            if row["selection_rule"] not in SELECTION_RULES:
                raise ValueError(f"its selection_rule is none of {', '.join(SELECTION_RULES)}")
            read.append(Published(number=number, **{**row, **numbers}))  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError) as error:
            raise BenchError(
                f"row {number} of the published figures cannot be read ({error}); expected the "
                "columns of bench/records/published/fashion_mnist.csv"
            ) from error
    return read


def _shipped(name: str) -> Traversable:
    return resources.files("bench.records").joinpath("published", name)


def _rows(path: Path | Traversable) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, csv.Error) as error:
        raise BenchError(
            f"{path} cannot be read ({error}); expected a table like "
            "bench/records/published/fashion_mnist.csv"
        ) from error


@dataclass(frozen=True)
class Setting:
    """What measures a figure: a trial but for its seed, and which score of it.

    `params` are the parameters that the source gives and that the method's name does not.
    """

    method: str
    protocol: str
    selection: str
    level: str
    subset: str
    metric: str
    params: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "paper"
    dataset: str = FASHION_MNIST.name

    @property
    def parameters(self) -> str:
        """`params` for a table cell: ``percentile=25``."""
        return " ".join(f"{name}={value}" for name, value in sorted(self.params.items()))


@dataclass(frozen=True)
class Figure:
    """One published figure and the setting that measures it.

    `other_reading` marks a second setting for a figure whose source can be read in two ways; it is
    measured beside the first and not counted. `selection_rule` is as in `Published`.
    """

    number: int
    source: str
    value: float
    setting: Setting
    note: str = ""
    other_reading: bool = False
    selection_rule: str = "unknown"


def settings(row: Published) -> tuple[Setting, ...]:
    """The setting that measures `row`; further ones where the source can be read otherwise.

    Raises
    ------
    BenchError : the row holds a word that no setting stands for.
    """
    level = str(Level.parse(row.labels))
    if row.selection == "all":
        level = "100%"
        if row.trained_on.split()[-1:] != [row.labels]:
            raise BenchError(_cannot(row, f"all labels of {row.trained_on!r}", row.labels))
    if row.selection == "representative" and str(row.clusters) != row.labels:
        raise BenchError(_cannot(row, "as many clusters as labels", str(row.clusters)))
    first = Setting(
        method=_method(row),
        protocol=_known(row, "trained_on", row.trained_on, PROTOCOLS),
        selection=_known(row, "selection", row.selection, SELECTIONS),
        level=level,
        subset=_known(row, "evaluated_on", row.evaluated_on, SUBSETS),
        metric=_known(row, "metric", row.metric, METRICS),
        params=_params(row),
    )
    if first.method == "kmeans-centroid-mlp":
        # The report gives the figure where it says "the data points closest to the cluster
        # centroids" (6.2); its section 4.3 returns "the cluster centers". Measured: both.
        trained_on = ("instances", "centres")
        return tuple(replace(first, params={**first.params, "train_on": x}) for x in trained_on)
    return (first,)


def _method(row: Published) -> str:
    """The registered name: a method's own head is ``lr``, others are named variants."""
    if row.method == "supervised":
        return f"supervised-{row.head}"
    return row.method if row.head in ("", "lr") else f"{row.method}-{row.head}"


def _params(row: Published) -> dict[str, Any]:
    if row.method == "kmeans-distances":
        return {"k": row.clusters}
    return {} if row.percentile is None else {"percentile": row.percentile}


def _known(row: Published, column: str, word: str, table: Mapping[str, str]) -> str:
    if word not in table:
        raise BenchError(_cannot(row, f"{column} to be one of {', '.join(table)}", word))
    return table[word]


def _cannot(row: Published, expected: str, given: str) -> str:
    return f"row {row.number} of the published figures has {given!r}; expected {expected}"


def scan_figure() -> Figure:
    """The SCAN model card's clusters as one figure: the purity, which is their mean by size.

    Cluster ids are arbitrary, so clusters cannot be compared one by one. The card gives each
    cluster the label of its majority, and its sizes add up to all 60,000 images of CIFAR-10.
    """
    clusters = list(_rows(_shipped("scan_cifar10_clusters.csv")))
    sizes = [int(cluster["size"]) for cluster in clusters]
    shares = [float(cluster["accuracy_percent"]) / 100 for cluster in clusters]
    purity = sum(s * n for s, n in zip(shares, sizes, strict=True)) / sum(sizes)
    setting = Setting(
        method="scan",
        protocol="transductive",
        selection="stratified",
        level="0%",
        subset="all",
        metric="purity",
        params={"n_clusters": len(clusters), "n_neighbors": 5},
        dataset=CIFAR_10,
    )
    note = f"mean accuracy of the card's {len(clusters)} clusters, weighted by their size"
    (rule,) = {cluster["selection_rule"] for cluster in clusters}
    return Figure(0, "scan-model-card", purity, setting, note, selection_rule=rule)


def figures(rows: Iterable[Published] | None = None) -> list[Figure]:
    """Every published figure with its settings, in the order of `rows`.

    Without `rows`: those of the project, and after them the SCAN model card's.
    """
    found = [
        Figure(
            row.number, row.source, row.value, setting, row.note, position > 0, row.selection_rule
        )
        for row in (read_published() if rows is None else rows)
        for position, setting in enumerate(settings(row))
    ]
    if rows is None:
        found.append(replace(scan_figure(), number=found[-1].number + 1))
    return found


def of_source(given: Sequence[Figure], source: str | None) -> list[Figure]:
    """The figures whose source begins with `source`; all of them for None.

    Raises
    ------
    BenchError : no source begins so.
    """
    found = [figure for figure in given if figure.source.startswith(source or "")]
    if not found:
        known = ", ".join(dict.fromkeys(figure.source for figure in given))
        raise BenchError(f"--source is {source!r}; expected the beginning of one of {known}")
    return found


@dataclass(frozen=True)
class Data:
    """A dataset as far as a trial's identity depends on it (`bench.data.datasets.Dataset`)."""

    name: str
    digest: str
    n_classes: int


FASHION = Data(FASHION_MNIST.name, FASHION_MNIST.digest, len(FASHION_MNIST.class_names))


def known_data(store: Store) -> dict[str, Data]:
    """The datasets that settings name: Fashion-MNIST, and CIFAR-10 where there are records of it.

    A user's file is CIFAR-10 if a record of it counts ten classes of 6,000 images.
    """
    known = {FASHION_MNIST.name: FASHION}
    for path in sorted(store.root.glob("*/transductive-*-paper/scan*/0%/*.json")):
        if path.name.endswith(BESIDE):
            continue
        record = read_record(path)
        everything = record.get("subsets", {}).get("all")
        table = everything["contingency"] if everything else []
        if [sum(row) for row in table] == [CIFAR_10_IMAGES_PER_CLASS] * 10:
            trial = Trial.from_json(record["trial"])
            known.setdefault(CIFAR_10, Data(trial.dataset, trial.dataset_digest, len(table)))
    return known


def changes(setting: Setting) -> dict[str, Any]:
    """The parameters of `setting` other than those that the method's name gives anyway.

    25 and 25.0 are equal and yet two identities, so what is equal is left as the method has it.

    Raises
    ------
    RegistryError : no such method.
    """
    plain = registry.get(setting.method).parameters(setting.schedule)
    return {k: v for k, v in setting.params.items() if k not in plain or plain[k] != v}


def trial_of(setting: Setting, data: Data) -> Trial:
    """The trial of seed 0 that measures `setting`.

    Raises
    ------
    RegistryError : no such method, or it has no such parameter.
    """
    grid = Grid(
        dataset=data.name,
        dataset_digest=data.digest,
        n_classes=data.n_classes,
        entries=(registry.get(setting.method),),
        levels=(setting.level,),
        protocol=setting.protocol,
        selection=setting.selection,
        schedule=setting.schedule,
        changes={setting.method: changes(setting)},
    )
    return grid.trials()[0]


def records_of(trial: Trial, store: Store) -> dict[int, Record]:
    """The records of `trial` and of its other seeds, by seed; other parameters do not count.

    No source says in what precision it computed, so that any precision will do; they are not mixed.
    Of several, that with the most seeds counts, and the first of `PRECISIONS` in a tie.
    """
    found = [_of_all_seeds(replace(trial, precision=name), store) for name in PRECISIONS]
    return max(found, key=len)


def _of_all_seeds(trial: Trial, store: Store) -> dict[int, Record]:
    seeds = [path.stem for path in store.path(trial).parent.glob("*.json")]
    numbers = sorted(int(seed) for seed in seeds if seed.isdecimal())
    read = {seed: store.read(replace(trial, seed=seed)) for seed in numbers}
    return {seed: record for seed, record in read.items() if record is not None}
