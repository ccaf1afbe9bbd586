"""The unit of work of a process: one fit and the trials that are scored from it, or one stage."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from bench.core.trial import Trial


@dataclass(frozen=True)
class Job:
    """One fit and the trials that are scored from it, or the stages that they need.

    `trials` differ at most in their level, and in more than one level only where the method
    ignores labels. `stage` names the one stage that the job computes instead of fitting. `module`
    is where in `methods` the run found the first trial's method; empty where that was elsewhere.
    """

    trials: tuple[Trial, ...]
    source: str
    results: str
    cache: str
    plugins: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int = 1
    concurrency: int = 1
    fresh: bool = False
    stage: str = ""
    module: str = ""

    def dumps(self) -> str:
        """One line of JSON, for `loads`."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Job:
        """The job that `dumps` wrote."""
        values = json.loads(text)
        trials = tuple(Trial.from_json(trial) for trial in values.pop("trials"))
        return cls(trials=trials, **{**values, "plugins": tuple(values["plugins"])})
