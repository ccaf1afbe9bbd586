"""The workers of a dask cluster: what they offer, and jobs that are done there.

To the runner a cluster is a function that carries a job out, as `execute` does on this machine, in
a thread that waits for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.core import machine
from bench.core.errors import BenchError
from bench.data import datasets
from bench.running.execution import Outcome
from bench.running.job import Job
from bench.running.parcel import (
    Answer,
    Parcel,
    carry_out,
    marker_in,
    pack,
    receive,
    sees,
    with_data,
)

GPU = "GPU"  # the resource of a worker that has one: dask worker --resources GPU=1
DEVICES = ("auto", "cpu", "cuda")
CLOSE_S = 5.0
LOOK_S = 0.5  # how often a thread that waits for a job looks whether the run was stopped


class SchedulerLost(Exception):
    """The scheduler does not answer any more; what was running there is lost to this run."""


@dataclass(frozen=True)
class Node:
    """What a worker offers: jobs at a time, jobs with a GPU, cores of its machine, ...

    `sees` says whether it sees the folders of the run, `bf16` whether its processor has that.
    """

    version: str
    cores: int
    bf16: bool
    sees: bool
    slots: int = 1
    gpus: int = 0


Start = Callable[[Parcel], "Future[Answer]"]


class Cluster:
    """Carries jobs out elsewhere.

    Parameters
    ----------
    start : hands a parcel over.
    nodes : the workers that there were when the run began; more may join, and some may go.
    marker : of `marker_in`, for the folders of the run.
    """

    def __init__(self, start: Start, nodes: tuple[Node, ...], marker: str) -> None:
        self.nodes = nodes
        self._start = start
        self._marker = marker
        self._closed = threading.Event()

    def __str__(self) -> str:
        """For a person."""
        n, slots = len(self.nodes), sum(node.slots for node in self.nodes)
        if all(node.sees for node in self.nodes) and n:
            folders = "they share the folders of this run"
        else:
            folders = "they keep data and stages in caches of their own and send records back"
        return f"dask: {n} worker{'s' * (n != 1)}, {slots} jobs at a time; {folders}"

    def device(self, asked: str) -> str:
        """``cpu`` or ``cuda``; under ``auto`` cuda where a worker offers a GPU.

        Raises
        ------
        BenchError : an unknown device, or cuda where no worker offers one.
        """
        if asked not in DEVICES:
            raise BenchError(f"device is {asked!r}; expected auto, cpu or cuda")
        offered = any(node.gpus for node in self.nodes)
        if asked == "cuda" and self.nodes and not offered:
            raise BenchError(
                "device is 'cuda', but no dask worker offers a GPU; start some with `dask worker "
                "--resources GPU=1`, or use --device cpu"
            )
        return ("cuda" if offered else "cpu") if asked == "auto" else asked

    def jobs(self, asked: int | str, device: str) -> int:
        """How many jobs at a time; ``auto`` is what the workers take together.

        Raises
        ------
        BenchError : neither ``auto`` nor a whole number; ``auto`` where there is no worker yet.
        """
        if asked != "auto":
            return machine.resolve_jobs(asked, device)
        total = sum(node.gpus if device == "cuda" else node.slots for node in self.nodes)
        if not total:
            raise BenchError("jobs is 'auto', but no dask worker has joined; start some, or say 4")
        return total

    @property
    def threads(self) -> int:
        """How many threads each job may have on every worker; 1 before one has joined."""
        return max(1, min((node.cores // node.slots for node in self.nodes), default=1))

    def shares_stages(self, device: str) -> bool:
        """Whether what one worker keeps in the cache is what the others and this machine look for.

        Otherwise each fit finds or makes its stages where it runs.
        """
        if not self.nodes or not all(node.sees for node in self.nodes):
            return False
        if device == "cuda":
            import torch

            return torch.cuda.is_available()  # else nobody here knows the precision there
        return {node.bf16 for node in self.nodes} == {machine.has_native_bf16()}

    def execute(
        self,
        job: Job,
        log: str,
        timeout_s: float | None,
        on_event: object = None,
        server: object = None,
        memory: int | None = None,
    ) -> Outcome:
        """As `bench.running.execution.execute`, on a worker, which tells no events.

        Raises
        ------
        SchedulerLost : nobody will learn how the job ends.
        BenchError : what came back is not what was asked for.
        """
        parcel = pack(job, log, timeout_s, memory, self._marker)
        answer = self._answer(parcel)
        if answer.lacks_data:
            answer = self._answer(with_data(parcel))
        return receive(answer, parcel)

    def _answer(self, parcel: Parcel) -> Answer:
        try:
            future = self._start(parcel)
        except Exception as error:  # dask has no common class for what a lost scheduler ends in
            raise SchedulerLost(f"the dask scheduler is gone ({error})") from error
        while not future.done() and not self._closed.is_set():
            wait([future], timeout=LOOK_S)
        if future.cancelled() or not future.done():
            raise SchedulerLost("the dask scheduler is gone")
        return future.result()

    def close(self) -> None:
        """Wait for no job any more."""
        self._closed.set()


@contextmanager
def dask_cluster(address: str | None, results: Path) -> Iterator[Cluster]:
    """The workers of a scheduler; None asks dask's own settings for the address.

    `results` is the whole path of the folder of the records.

    Raises
    ------
    BenchError : dask is not installed, no scheduler answers, or a worker lacks this project.
    """
    try:
        import distributed
    except ImportError as error:
        raise BenchError(
            "backend dask needs the package distributed; install this project with [dask]"
        ) from error
    _silence()
    try:
        client = distributed.Client(address)
    except (OSError, ValueError) as error:
        raise BenchError(f"no dask scheduler answers at {address}: {error}") from error
    executor = client.get_executor(pure=False)
    with marker_in(results, datasets.cache_dir()) as marker:
        try:
            nodes = _ask(client, str(results), marker)
            cluster = Cluster(partial(_start, executor), nodes, marker)
            try:
                yield cluster
            finally:
                cluster.close()
        finally:
            # What waits there is dropped: nobody wants it any more. Of a lost scheduler nothing is
            # left to close, which dask says in one of several classes.
            with suppress(Exception):
                client.close(timeout=CLOSE_S)


def _start(executor: Any, parcel: Parcel) -> Future[Answer]:
    """Hand a parcel to a worker, to one with a free GPU where the job needs that."""
    resources = {"resources": {GPU: 1}} if parcel.job.device == "cuda" else {}
    future: Future[Answer] = executor.submit(carry_out, parcel, **resources)
    return future


def look(results: str, marker: str) -> Node:
    """What this machine offers; called on every worker."""
    return Node(
        machine.bench_version(),
        machine.core_count(),
        machine.has_native_bf16(),
        sees(results, marker),
    )


def _ask(client: Any, results: str, marker: str) -> tuple[Node, ...]:
    """What each worker says of itself, and the scheduler of it."""
    try:
        found: Mapping[str, Node] = client.run(look, results, marker)
        workers = client.scheduler_info(n_workers=-1)["workers"]
    except Exception as error:  # whatever goes wrong there, an ImportError above all, comes here
        raise BenchError(
            f"a dask worker cannot run this project ({type(error).__name__}: {error}); install "
            f"fewlabels-bench {machine.bench_version()} where the workers run"
        ) from error
    nodes = []
    for address, node in found.items():
        if node.version != machine.bench_version():
            raise BenchError(
                f"the dask worker {address} has fewlabels-bench {node.version}, this machine has "
                f"{machine.bench_version()}; install the same"
            )
        said = workers.get(address, {})
        gpus = int(said.get("resources", {}).get(GPU, 0))
        nodes.append(replace(node, slots=int(said.get("nthreads", 1)), gpus=gpus))
    return tuple(nodes)


def _silence() -> None:
    """Keep dask's own words on a lost scheduler, a traceback or two, off the terminal.

    The run says in one sentence that it is gone.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
