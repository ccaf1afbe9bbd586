"""A job that travels to a worker of a cluster, what the worker does with it, and what comes back.

A worker that sees the folders of the run (a shared file system) works in them. Any other has the
cache of its own machine, for data, stages and fits; it is sent the plugins and, once, the user's
images as one file, and sends its records, their views and its log back.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from bench.core.errors import BenchError
from bench.core.files import written_whole
from bench.core.trial import fitted_as
from bench.data import datasets
from bench.records.store import Store, dump_record, dump_views, parse_record
from bench.running.execution import Outcome, execute
from bench.running.job import Job

MOST_OF_A_LOG = 2**20  # bytes from its end that come back


@dataclass(frozen=True)
class DataFile:
    """A file of images of the user's own; without its `content` until a worker asks for that."""

    name: str
    digest: str
    content: bytes | None = None


@dataclass(frozen=True)
class Parcel:
    """What a worker needs.

    Parameters
    ----------
    job, log, timeout_s, memory : as for `execute`; the paths are those of the run's machine.
    marker : the name of a file in the results and the cache folder: who sees both, shares them.
    plugins : the name and the content of each file, in the order of ``job.plugins``.
    records : those of other methods that trials of the job may take over.
    data : the images, where they are a file.
    """

    job: Job
    log: str
    timeout_s: float | None
    memory: int | None
    marker: str
    plugins: tuple[tuple[str, bytes], ...] = ()
    records: tuple[str, ...] = ()
    data: DataFile | None = None


@dataclass(frozen=True)
class Answer:
    """What comes back: how the job ended, each record with its views, and the log.

    All but the outcome is empty where the folders are shared. `lacks_data` asks for the content of
    the file of images; nothing was done then.
    """

    outcome: Outcome
    records: tuple[tuple[str, str | None], ...] = ()
    log: bytes = b""
    lacks_data: bool = False


@contextmanager
def marker_in(*folders: Path) -> Iterator[str]:
    """The name of a file that lies in each of the folders meanwhile.

    Raises
    ------
    BenchError : one of them cannot be written.
    """
    name = f".run-{uuid.uuid4().hex}"
    with ExitStack() as stack:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
            except OSError as error:
                message = f"{folder} cannot be written ({error}); name another folder"
                raise BenchError(message) from error
            stack.callback(_unmark, folder, name)
        yield name


def _unmark(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it is empty where nothing was run, and only then goes
        folder.rmdir()


def sees(results: str, marker: str) -> bool:
    """Whether this machine's cache, and the folder `results` as this machine sees it, are a run's.

    Parameters
    ----------
    marker : of `marker_in`.
    """
    return all((folder / marker).exists() for folder in (Path(results), datasets.cache_dir()))


# --- On the machine of the run -------------------------------------------------------------------


def pack(job: Job, log: str, timeout_s: float | None, memory: int | None, marker: str) -> Parcel:
    """The parcel of a job, without the content of a file of images."""
    store = Store(Path(job.results))
    others = [] if job.fresh or job.stage else [fitted_as(trial) for trial in job.trials]
    foreign = [other for other in others if other not in job.trials]
    records = [found for other in foreign if (found := store.read_current(other)) is not None]
    plugins = tuple((Path(path).name, Path(path).read_bytes()) for path in job.plugins)
    file = _file(job)
    data = None
    if file is not None:
        data = DataFile(file.name, _digest(file, file.stat().st_mtime_ns))
    texts = tuple(dump_record(record) for record in records)
    return Parcel(job, log, timeout_s, memory, marker, plugins, texts, data)


def _file(job: Job) -> Path | None:
    """The file that holds the user's own images; None for a dataset that any machine has."""
    if datasets.own_path(job.source) is None:
        return None
    return _as_file(Path(job.source), job.trials[0].dataset_digest)


@lru_cache
def _as_file(source: Path, digest: str) -> Path:  # digest: other images have another file
    return datasets.as_file(source)


@lru_cache
def _digest(path: Path, changed_ns: int) -> str:
    """SHA-256 of a file, read once as long as it does not change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def with_data(parcel: Parcel) -> Parcel:
    """The same with the content of the file of images."""
    file = _file(parcel.job)
    assert file is not None
    assert parcel.data is not None
    content = file.read_bytes()
    return replace(parcel, data=replace(parcel.data, content=content))


def receive(answer: Answer, parcel: Parcel) -> Outcome:
    """Write what came back where it belongs; the outcome as if the job had run on this machine.

    Raises
    ------
    BenchError : what came back is no record, or that of another job.
    """
    job, store = parcel.job, Store(Path(parcel.job.results))
    written = []
    for text, views in answer.records:
        record = parse_record(text, "what a worker of the cluster sent")
        if record["identity"] not in [trial.identity for trial in job.trials]:
            raise BenchError("a worker of the cluster sent the record of a trial that it had not")
        written.append(str(store.write(record, None if views is None else json.loads(views))))
    if answer.log:
        Path(parcel.log).parent.mkdir(parents=True, exist_ok=True)
        with Path(parcel.log).open("ab") as log:
            log.write(answer.log)
    return replace(answer.outcome, written=(*answer.outcome.written, *written))


# --- On the machine of the worker ----------------------------------------------------------------


def carry_out(parcel: Parcel) -> Answer:
    """Do the job, in the folders of the run where they are seen, else in this machine's own."""
    job = parcel.job
    if sees(job.results, parcel.marker):
        outcome = execute(job, parcel.log, parcel.timeout_s, memory=parcel.memory)
        return Answer(outcome)
    source = _own_source(parcel)
    if source is None:
        return Answer(Outcome("ok"), lacks_data=True)
    with tempfile.TemporaryDirectory(prefix="bench-job-") as name:
        folder = Path(name)
        store = Store(folder / "results")
        for text in parcel.records:
            store.write(parse_record(text, "what the run sent along"))
        here = replace(
            job,
            source=source,
            results=str(store.results),
            cache=str(datasets.cache_dir()),
            plugins=tuple(_unpacked(parcel.plugins, folder)),
        )
        log = folder / "log"
        outcome = execute(here, str(log), parcel.timeout_s, memory=parcel.memory)
        return _answer(outcome, here, store, log, parcel.log)


def _own_source(parcel: Parcel) -> str | None:
    """The data as this machine finds them; None where it needs the content of the file first."""
    if parcel.data is None:
        return parcel.job.source
    folder = datasets.cache_dir() / "datasets" / "sent" / parcel.data.digest
    path = folder / parcel.data.name
    if not path.exists():
        if parcel.data.content is None:
            return None
        with written_whole(path) as file:
            file.write(parcel.data.content)
    return str(path)


def _unpacked(plugins: tuple[tuple[str, bytes], ...], folder: Path) -> Iterator[str]:
    """Write each plugin to a folder of its own: two may have one name."""
    for number, (name, content) in enumerate(plugins):
        path = folder / "plugins" / str(number) / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        yield str(path)


def _answer(outcome: Outcome, job: Job, store: Store, log: Path, said_log: str) -> Answer:
    """What goes back of a job that was done in this machine's own folders."""
    records = []
    for trial in () if job.stage else job.trials:
        record, views = store.read(trial), store.read_views(trial)
        if record is not None:
            records.append((dump_record(record), None if views is None else dump_views(views)))
    return Answer(
        replace(
            outcome,
            message=outcome.message.replace(str(log), said_log),
            written=outcome.written if job.stage else (),
        ),
        tuple(records),
        log.read_bytes()[-MOST_OF_A_LOG:] if log.exists() else b"",
    )
