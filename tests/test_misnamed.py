"""Clusters that are right but for their numbers: ``bench run`` says so at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rig import Rig

from bench.commands.output import print_summary
from bench.core.trial import Trial
from bench.records import scoring
from bench.running.execution import Outcome
from bench.running.job import Job

MakeRecord = Callable[..., dict[str, Any]]
TRUTH = np.repeat(np.arange(4), 10)


@pytest.fixture
def scored(make_record: MakeRecord) -> Callable[..., dict[str, Any]]:
    """``scored(labels, level="10%")``: the record of these labels; four of them were revealed."""

    def make(labels: np.ndarray, names_needed: bool = False, **fields: Any) -> dict[str, Any]:
        known = np.array([], dtype=int) if fields.get("level") == "0%" else np.arange(0, 40, 10)
        scores = scoring.score(TRUTH, labels, known, n_classes=4, names_needed=names_needed)
        head = scoring.headline("transductive", len(known), scores)
        return make_record(0.5, scores | head | {"n_labels": len(known)}, **fields)

    return make


def test_what_is_said_and_of_what(scored: Callable[..., dict[str, Any]]) -> None:
    shifted, noisy = (TRUTH + 1) % 4, np.where(np.arange(40) % 3, TRUTH, 0)
    said = scoring.misnamed_trial(scored(shifted))  # type: ignore[arg-type]
    assert said == (
        "cluster j is not class j: accuracy is 0.000, but 1.000 under the best one-to-one mapping"
    )
    weak = np.where(np.isin(np.arange(40), range(0, 40, 10)), TRUTH, shifted)
    for fine in (
        scored(TRUTH),
        scored(weak),  # right where it knows the class: it has learnt little, and names well
        scored(noisy),
        scored(shifted, level="0%"),  # without labels numbers mean nothing
        scored(shifted, names_needed=True),  # the suite names these
    ):
        assert scoring.misnamed_trial(fine) is None  # type: ignore[arg-type]


def test_a_run_ends_with_a_warning(
    rig: Rig,
    make_trial: Callable[..., Trial],
    make_record: MakeRecord,
    scored: Callable[..., dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    trials = [make_trial(level=level) for level in ("5%", "10%", "20%")]

    def execute(job: Job) -> Outcome:
        rig.store.write(make_record(None, level="5%"))
        for level in ("10%", "20%"):
            rig.store.write(scored((TRUTH + 1) % 4, level=level))
        return Outcome("ok")

    summary = rig.runner([rig.task(*trials)], execute).run()
    print_summary(summary, Console(), Console(stderr=True))
    assert capsys.readouterr().err == (
        "warning: tiny · 10% · seed 0: cluster j is not class j: accuracy is 0.000, but 1.000 "
        "under the best one-to-one mapping; so it is in 2 of its trials. Above level 0 nothing is "
        "mapped: give each cluster its class's number\n"
    )
