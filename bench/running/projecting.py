"""From embeddings in the cache to projections beside their records, as ``bench report`` needs them.

The pictures of a method follow one another from the lowest level on, each layout from that before
it. What has a projection already keeps it, and what comes after follows that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bench.core import machine, splits
from bench.core.errors import BenchError
from bench.core.files import said_if_unwritable
from bench.core.trial import Trial
from bench.data import datasets
from bench.records import projections
from bench.records.projections import MOST_CLASSES, Projection, Scores
from bench.records.scoring import Record, rounded
from bench.records.store import Store
from bench.records.views import Images
from bench.running import layout
from bench.running.stages import ArrayStore, array_digest
from methods import registry
from methods.registry import RegistryError

DIGITS = 16  # of a digest
MOST_NAMED = 6  # methods in a sentence
OF_THE_FIT = ("predict_seconds", "peak_memory_mib")  # the others hold what asking for labels took
Drawn = tuple[np.ndarray, Scores]


@dataclass(frozen=True)
class Step:
    """One embedding ``(m, d)`` to draw, or the places ``(m, 2)`` uint8 of one that is drawn."""

    embedding: np.ndarray | None
    places: np.ndarray | None = None


@dataclass
class Chain:
    """Different embeddings of one method in the order of levels, and whose pictures they are.

    Attributes
    ----------
    steps : by the digest of the embedding.
    targets : trials that have no projection yet, each with the digest of its embedding. Of several
        methods, where they work on the same features.
    y, classes, sample : classes ``(m,)`` of the points, their names, the digest of the sample.
    """

    y: np.ndarray
    classes: tuple[str, ...]
    sample: str
    steps: dict[str, Step] = field(default_factory=dict)
    targets: list[tuple[Trial, str]] = field(default_factory=list)

    @property
    def key(self) -> tuple[object, ...]:
        """What its pictures depend on."""
        steps = tuple((digest, step.places is None) for digest, step in self.steps.items())
        return self.sample, self.classes, self.y.tobytes(), steps


@dataclass
class Found:
    """What there is to draw; trials whose embedding is not at hand; what else is to be said."""

    chains: dict[tuple[object, ...], Chain] = field(default_factory=dict)
    lacking: list[Trial] = field(default_factory=list)
    remarks: dict[str, None] = field(default_factory=dict)

    def add(self, chain: Chain) -> None:
        """Take a chain, or only its targets where another one draws the same."""
        known = self.chains.setdefault(chain.key, chain)
        if known is not chain:
            known.targets += chain.targets


def project(
    results: str | Path, sources: Sequence[str] = (), console: Console | None = None
) -> list[str]:
    """Draw what the cache has an embedding of and the results folder no projection.

    Parameters
    ----------
    results : a results folder; projections are written beside its records.
    sources : files and folders of images of which there are records.
    console : where a bar shows how far it has come.

    Returns
    -------
    Sentences about what was drawn and what could not be.

    Raises
    ------
    BenchError : a record or projection cannot be read, a source is no dataset, or a file cannot be
        written.
    """
    store = Store(Path(results))
    records = list(store)
    found = find(records, store, Images(records, sources), datasets.cache_dir())
    n_drawn = 0
    for chain, drawn in _drawn(list(found.chains.values()), console or Console(stderr=True)):
        if isinstance(drawn, str):
            names = _listed(trial.title for trial, _ in chain.targets)
            found.remarks[f"no projection of {names}: {drawn}"] = None
            continue
        for trial, digest in chain.targets:
            _write(store, trial, chain, digest, drawn[digest])
            n_drawn += 1
    said = [f"projections drawn: {n_drawn}"] if n_drawn else []
    return [*said, *found.remarks, *_said_of(found.lacking)]


def find(records: Iterable[Record], store: Store, images: Images, cache: Path) -> Found:
    """What is to be drawn of these records, with the embeddings in the cache's folder."""
    found, fits = Found(), ArrayStore(cache / "fits")
    for of_it in projections.shown(records).values():
        trials = [Trial.from_json(record["trial"]) for record in of_it]
        if not _embeds(trials[0]):
            continue
        sample = _sample(of_it[0])
        there = [projections.read(store, trial) for trial in trials]
        if all(one is not None and one.sample == sample for one in there):
            continue
        embeddings = [_embedding(record, fits) for record in of_it]
        if all(embedding is None for embedding in embeddings):  # no need of the images
            pairs = zip(trials, there, strict=True)
            found.lacking += [t for t, one in pairs if one is None or one.sample != sample]
            continue
        points = _points(trials[0], sample, images, found)
        if points is None:
            continue
        for trial, known, embedding in zip(trials, there, embeddings, strict=True):
            _step(points, trial, known, embedding, found)
        if points.targets:
            found.add(points)
    return found


def _sample(record: Record) -> str:
    """The digest of the sample of as many images as a record's method was fitted on."""
    if "all" not in record["subsets"]:
        title = Trial.from_json(record["trial"]).title
        raise BenchError(f"the record of {title} has no subset all; delete it and run it again")
    n = record["subsets"]["all"]["n"]
    return splits.digest(projections.sample(n), n)


def _embeds(trial: Trial) -> bool:
    """Whether a method has an embedding; of a plugin that is not here nothing is known."""
    try:
        return hasattr(registry.get(trial.method).cls, "transform")
    except RegistryError:
        return False


def _step(
    chain: Chain,
    trial: Trial,
    there: Projection | None,
    embedding: np.ndarray | None,
    found: Found,
) -> None:
    """Add one trial to a chain: its projection, or else its embedding, or note that it has none."""
    if there is not None and there.sample == chain.sample:
        chain.steps.setdefault(there.embedding, Step(None, there.places))
    elif embedding is None or len(embedding) != len(chain.y):
        found.lacking.append(trial)
    else:
        digest = array_digest(embedding)[:DIGITS]
        known = chain.steps.setdefault(digest, Step(embedding))
        if known.embedding is None:  # the same is drawn already: only the scores are missing
            chain.steps[digest] = Step(embedding, known.places)
        chain.targets.append((trial, digest))


def _embedding(record: Record, fits: ArrayStore) -> np.ndarray | None:
    """The embedding of the fit that made a record; None if the cache lacks it.

    A fit under the same key that cost otherwise, to the digits of a record, is another one, of this
    machine perhaps.
    """
    key = record.get("fit", "")
    within = key.strip(".") != "" and Path(key).name == key  # a record may come from anyone
    kept = fits.read(key) if within else None
    if kept is None or projections.EMBEDDING not in kept[0]:
        return None
    arrays, facts = kept
    own, of_record = (rounded(dict(cost)) for cost in (facts["cost"], record["cost"]))
    if any(own[name] != of_record[name] for name in OF_THE_FIT):
        return None
    return np.array(arrays[projections.EMBEDDING])


def _points(trial: Trial, sample: str, images: Images, found: Found) -> Chain | None:
    """A chain without steps, of the points of a trial; None, and why, if that cannot be."""
    data = images.of(trial)
    if isinstance(data, str):
        found.remarks[f"no projections of {trial.dataset}: {data}"] = None
        return None
    y = data.y[splits.partition(trial.protocol, len(data.y), data.n_train).fit]
    chosen = projections.sample(len(y))
    why = ""
    if len(chosen) < layout.LEAST:
        why = f"{len(chosen)} images are fewer than {layout.LEAST}, too few for a picture"
    elif data.n_classes > MOST_CLASSES:
        why = f"{data.n_classes:,} classes are more than {MOST_CLASSES}, too many for a picture"
    if why:
        found.remarks[f"no projections of {trial.dataset}: {why}"] = None
        return None
    return Chain(y[chosen], tuple(data.class_names), sample)


def _drawn(chains: list[Chain], console: Console) -> Iterable[tuple[Chain, dict[str, Drawn] | str]]:
    """Every chain with what was drawn of it, or why nothing was, in the order in which they end."""
    if not chains:
        return
    folder = datasets.cache_dir() / "projections"
    with said_if_unwritable(folder, "name another cache with BENCH_CACHE"):
        folder.mkdir(parents=True, exist_ok=True)
        memory = joblib.Memory(folder, verbose=0)
    jobs = min(machine.core_count(), len(chains))
    tasks = (
        joblib.delayed(_draw)(number, chain, layout.made_by(), memory)
        for number, chain in enumerate(chains)
    )
    columns = TextColumn("projections (UMAP)"), BarColumn(bar_width=24), MofNCompleteColumn()
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar, joblib.parallel_config("loky", inner_max_num_threads=1):
        ended = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)
        for number, drawn in bar.track(ended, total=len(chains)):
            yield chains[number], drawn


def _draw(
    number: int, chain: Chain, made_by: dict[str, Any], memory: joblib.Memory
) -> tuple[int, dict[str, Drawn] | str]:
    """Draw the embeddings of a chain, in a process of its own; its number comes back with them."""
    place, judge = memory.cache(layout.places), memory.cache(layout.scores)
    found: dict[str, Drawn] = {}
    before = None
    try:
        for digest, step in chain.steps.items():
            placed = step.places
            if placed is None:
                placed = place(step.embedding, before, made_by)
            if step.embedding is not None:
                scores = judge(step.embedding, placed, chain.y, len(chain.classes))
                found[digest] = placed, scores
            before = placed
    except Exception as error:  # UMAP may fail in many ways; the other pictures are drawn
        return number, f"{type(error).__name__}: {error}"
    return number, found


def _write(store: Store, trial: Trial, chain: Chain, digest: str, drawn: Drawn) -> None:
    embedding = chain.steps[digest].embedding
    assert embedding is not None
    projection = Projection.of(
        *(drawn[0], chain.y),
        identity=trial.identity,
        sample=chain.sample,
        embedding=digest,
        columns=embedding.shape[1],
        made_by=layout.made_by(),
        scores=drawn[1],
        classes=chain.classes,
    )
    store.write_projection(trial, projection.to_json())


def _said_of(lacking: Sequence[Trial]) -> list[str]:
    """One sentence on all trials whose embeddings are not at hand."""
    if not lacking:
        return []
    names = _listed(dict.fromkeys(trial.method for trial in lacking))
    n = "1 record" if len(lacking) == 1 else f"{len(lacking)} records"
    return [
        f"no projection of {n} of {names}: the cache has no embedding of their fits; "
        "`bench run METHOD --level LEVEL --rerun all` makes it"
    ]


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(found[:MOST_NAMED]) + more
