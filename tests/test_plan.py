"""The plan: what is missing, what is shared, what comes first, what it may cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.core.trial import Grid, Trial
from bench.records.store import Store
from bench.running import costs as costs_module
from bench.running.api import describe
from bench.running.context import request_key
from bench.running.costs import OVERHEAD_SECONDS, Costs, Pace
from bench.running.job import Job
from bench.running.plan import Plan, Surroundings, is_stale, make_plan, without_stages
from bench.running.stages import StageStore
from methods import registry
from methods.method import Arrays, Context, Method, StageRequest, Tags, stage

Finish = Callable[..., dict[str, Any]]
LEVELS = ("0%", "5%", "10%")


@stage(version=1)
def features(X: np.ndarray, *, random_state: int, context: Context, size: int) -> Arrays:
    """The stage that several methods share; no plan computes it."""
    raise AssertionError("a plan computes nothing")


class Alone(Method):
    """A method that shares nothing."""

    def __init__(self, n_clusters: int = 2, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state


class Sharing(Method):
    """A method on shared features, and on labels where there are any."""

    def __init__(self, n_clusters: int = 2, size: int = 4, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.size = size
        self.random_state = random_state

    def stages(self, n_labels: int) -> list[StageRequest]:
        return [StageRequest(features, {"size": self.size})]


class Free(Sharing):
    """A method on shared features that ignores labels."""

    tags = Tags(uses_labels=False)


class Late(Sharing):
    """A method that needs the features only from ten labels on."""

    def stages(self, n_labels: int) -> list[StageRequest]:
        return super().stages(n_labels) if n_labels >= 10 else []


class Follower(Sharing):
    """A method that is `free` where nothing is labelled."""

    tags = Tags(without_labels="free")


METHODS = {"alone": Alone, "follower": Follower, "free": Free, "late": Late, "sharing": Sharing}


@pytest.fixture(autouse=True)
def registered(entries: dict[str, registry.Entry]) -> None:
    for name, cls in METHODS.items():
        registry.register(name)(cls)


@pytest.fixture
def around(tmp_path: Path, cache: Path) -> Surroundings:
    results = tmp_path / "results"
    return Surroundings(
        template=Job((), "toy", str(results), str(cache), threads=1, concurrency=2),
        n_fit=100,
        X_digest="0123",
        precision="fp32",
        store=Store(results),
        stages=StageStore(cache / "stages"),
    )


@pytest.fixture
def finish(around: Surroundings, make_record: Callable[..., dict[str, Any]]) -> Finish:
    """``finish(trial, headline, parts)``: the record of a trial that ran, in the store."""

    def write(
        trial: Trial, headline: float | None = 0.5, parts: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        record = make_record(headline, parts, **trial.to_json())
        around.store.write(record)
        return record

    return write


def costing(fit: float, stage: float | None = None, size: int = 4) -> dict[str, Any]:
    """What a record says of a fit of `fit` seconds, half a second of prediction, and a stage."""
    made = {"name": "features", "key": "0", "params": {"size": size}, "peak_memory_mib": 100.0}
    return {
        "cost": {
            "fit_seconds": fit,
            "stage_seconds": stage or 0.0,
            "predict_seconds": 0.5,
            "peak_memory_mib": 100.0,
            "stages": [] if stage is None else [made | {"seconds": stage}],
        }
    }


def trials(*names: str, levels: Iterable[str] = LEVELS, **fields: Any) -> list[Trial]:
    entries = tuple(registry.get(name) for name in names)
    return Grid("toy", "0123", 2, entries, levels=tuple(levels), **fields).trials()


def outline(plan: Plan) -> list[str]:
    """The plan's tasks in short: ``features`` for the stage, ``free 0%+5%`` for a fit."""
    return [
        task.job.stage.partition("/")[0]
        or f"{task.job.trials[0].method} {'+'.join(trial.level for trial in task.job.trials)}"
        for task in plan.tasks
    ]


# --- What is missing -----------------------------------------------------------------------------


def test_at_first_everything_is_missing(around: Surroundings) -> None:
    wanted = trials("alone", "free")
    plan = make_plan(wanted, around)
    assert sorted(t.title for t in plan.trials) == sorted(t.title for t in wanted)
    assert (plan.done, plan.stale, plan.failed_before) == ([], [], [])


def test_machines_that_share_nothing_have_no_stage_to_wait_for(around: Surroundings) -> None:
    plan = make_plan(trials("sharing", levels=["5%"]), around)
    assert outline(plan) == ["features", "sharing 5%"]
    alone = without_stages(plan)
    assert outline(alone) == ["sharing 5%"]
    assert alone.tasks[0].needs == ()
    assert (alone.shared, alone.trials) == ({}, plan.trials)


def test_every_job_takes_over_the_template(around: Surroundings) -> None:
    for task in make_plan(trials("alone", "sharing"), around).tasks:
        assert replace(task.job, trials=(), stage="") == around.template


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(done=st.sets(st.integers(0, 11)))
def test_what_is_done_is_skipped(around: Surroundings, finish: Finish, done: set[int]) -> None:
    wanted = trials("alone", "free", seeds=2)
    for path in around.store.root.rglob("*.json"):
        path.unlink()
    for i in done:
        finish(wanted[i])
    plan = make_plan(wanted, around)
    assert plan.done == [trial for i, trial in enumerate(wanted) if i in done]
    missing = [trial for i, trial in enumerate(wanted) if i not in done]
    assert sorted(plan.trials, key=wanted.index) == missing


def test_a_record_of_other_parameters_is_not_this_trial(
    around: Surroundings, finish: Finish
) -> None:
    (trial,) = trials("sharing", levels=["5%"])
    finish(replace(trial, params={**trial.params, "size": 9}))
    assert make_plan([trial], around).trials == [trial]


def test_what_does_not_apply_is_done(around: Surroundings, finish: Finish) -> None:
    (trial,) = trials("alone", levels=["0%"])
    finish(trial, None, {"status": "n/a"})
    plan = make_plan([trial], around)
    assert (plan.done, plan.tasks) == ([trial], [])


@pytest.mark.parametrize("status", ["failed", "timeout", "out-of-memory", "crashed"])
def test_what_failed_is_left_unless_asked_for(
    around: Surroundings, finish: Finish, status: str
) -> None:
    (trial,) = trials("alone", levels=["5%"])
    finish(trial, None, {"status": status})
    for rerun, expected in ((None, []), ("stale", []), ("failed", [trial]), ("all", [trial])):
        plan = make_plan([trial], around, rerun)
        assert plan.trials == expected, rerun
        assert plan.failed_before == [trial]
    text = describe(make_plan([trial], around), around)
    assert "1 failed before and are left as they are (--rerun failed runs them again)" in text


def test_what_is_stale_is_noticed(around: Surroundings, finish: Finish) -> None:
    """Its method has a newer version since; it is left as it is unless asked for."""
    old, new = trials("alone", levels=["5%", "10%"])
    assert is_stale(finish(old, parts={"versions": {"method": 0, "stages": {}}}))
    assert not is_stale(finish(new))
    for rerun, expected in ((None, []), ("failed", []), ("stale", [old]), ("all", [old, new])):
        plan = make_plan([old, new], around, rerun)
        assert plan.trials == expected, rerun
        assert (plan.stale, plan.done) == ([old], [new])
    text = describe(make_plan([old, new], around), around)
    assert "1 have a record made by an older version" in text


# --- What is shared ------------------------------------------------------------------------------


def test_a_method_that_ignores_labels_is_one_job_per_seed(around: Surroundings) -> None:
    plan = make_plan(trials("free", "sharing", seeds=2), around)
    fits = [task.job.trials for task in plan.tasks if not task.job.stage]
    free = [group for group in fits if group[0].method == "free"]
    assert [[(trial.seed, trial.level) for trial in group] for group in free] == [
        [(seed, level) for level in LEVELS] for seed in (0, 1)
    ]
    assert all(len(group) == 1 for group in fits if group[0].method == "sharing")


def test_variants_are_not_fitted_together(around: Surroundings) -> None:
    plain = trials("free", levels=["0%", "5%"])
    changed = trials("free", levels=["0%", "5%"], changes={"free": {"size": 8}})
    assert outline(make_plan(plain + changed, around)).count("free 0%+5%") == 2


def test_a_stage_comes_once_and_before_whoever_needs_it(around: Surroundings) -> None:
    plan = make_plan(trials("alone", "free", "sharing"), around)
    tasks = plan.tasks
    (stage,) = [i for i, task in enumerate(tasks) if task.job.stage]
    needing = [i for i, task in enumerate(tasks) if task.needs]
    assert stage < min(needing)
    assert {tasks[i].job.trials[0].method for i in needing} == {"free", "sharing"}
    assert {tasks[i].needs for i in needing} == {(tasks[stage].job.stage,)}
    assert len(needing) == 1 + len(LEVELS)


def test_how_many_trials_share_a_stage(around: Surroundings) -> None:
    """The levels of one fit are as many trials."""
    plan = make_plan(trials("alone", "free", "sharing"), around)
    (shared,) = plan.shared.values()
    assert (shared.name, shared.params, shared.there) == ("features", {"size": 4}, False)
    assert shared.n_trials == 6
    assert "  features once for 6 trials" in describe(plan, around).splitlines()


def test_only_trials_that_still_have_to_run_share(around: Surroundings, finish: Finish) -> None:
    wanted = trials("sharing")
    finish(wanted[0])
    (shared,) = make_plan(wanted, around).shared.values()
    assert shared.n_trials == 2
    finish(wanted[1])
    finish(wanted[2])
    assert make_plan(wanted, around).shared == {}


def test_the_key_is_that_of_the_fit(around: Surroundings) -> None:
    request = StageRequest(features, {"size": 4})
    expected = [request_key(request, "0123", seed, "fp32").text for seed in (0, 1)]
    plan = make_plan(trials("sharing", seeds=2), around)
    assert list(plan.shared) == expected
    assert [task.job.stage for task in plan.tasks if task.job.stage] == expected


def test_other_parameters_are_another_stage(around: Surroundings) -> None:
    both = trials("sharing") + trials("sharing", changes={"sharing": {"size": 8}})
    plan = make_plan(both, around)
    assert [shared.params for shared in plan.shared.values()] == [{"size": 4}, {"size": 8}]
    assert outline(plan).count("features") == 2
    lines = describe(plan, around).splitlines()
    assert lines[1:3] == [f"  features (size={size}) once for 3 trials" for size in (4, 8)]


def test_a_stage_that_is_there_is_not_computed(around: Surroundings) -> None:
    key = request_key(StageRequest(features, {"size": 4}), "0123", 0, "fp32")
    around.stages.get(key, lambda: ({"a": np.zeros(1)}, {}))
    plan = make_plan(trials("sharing"), around)
    assert outline(plan) == ["sharing 0%", "sharing 5%", "sharing 10%"]
    assert all(task.needs == () for task in plan.tasks)
    (shared,) = plan.shared.values()
    assert (shared.there, shared.n_trials) == (True, 3)
    assert "features once for 3 trials, there already" in describe(plan, around)


def test_a_stage_may_depend_on_the_number_of_labels(around: Surroundings) -> None:
    plan = make_plan(trials("late"), around)
    assert outline(plan) == ["late 0%", "late 5%", "features", "late 10%"]
    assert [bool(task.needs) for task in plan.tasks] == [False, False, False, True]


def test_a_record_of_other_parameters_is_replaced_and_said(
    around: Surroundings, finish: Finish
) -> None:
    """As a default has changed since."""
    (trial,) = trials("sharing", levels=["5%"])
    finish(replace(trial, params=trial.params | {"size": 9}))
    plan = make_plan([trial], around)
    assert (plan.trials, plan.replaced) == ([trial], [trial])
    assert "1 have a record of other parameters or images, which is replaced" in describe(
        plan, around
    )


def test_a_plugin_whose_stages_fail_is_planned_without(around: Surroundings) -> None:
    """For some numbers of labels alone: `check_usable` tries two. Its fit may still go well."""

    class Odd(Sharing):
        def stages(self, n_labels: int) -> list[StageRequest]:
            return super().stages(n_labels // (n_labels - 5))

    registry.register("odd")(Odd)
    plan = make_plan(trials("odd", "alone", levels=["5%", "10%"]), around)
    assert sorted(outline(plan)) == ["alone 10%", "alone 5%", "features", "odd 10%", "odd 5%"]
    (note,) = plan.notes
    assert note.startswith(
        "odd · 5% · seed 0 is planned without stages: stages(5) raises ZeroDivisionError: "
    )
    assert note in describe(plan, around)


# --- What comes first, and what it costs ---------------------------------------------------------


def second_seed(*names: str) -> list[Trial]:
    """Trials at 5% whose like the records of the first seed tell the cost of."""
    return [trial for trial in trials(*names, levels=["5%"], seeds=2) if trial.seed == 1]


@pytest.fixture
def measured(finish: Finish) -> None:
    """Records of seed 0: 13.5 s alone; 5 s sharing and 5.5 s free, after 9 s of features."""
    for name, fit, shared in (("alone", 9.0, None), ("free", 1.0, 5.0), ("sharing", 0.5, 5.0)):
        finish(trials(name, levels=["5%"])[0], parts=costing(fit, shared))
    assert OVERHEAD_SECONDS == 4


@pytest.mark.usefixtures("measured")
def test_cheapest_first_with_the_stages_it_needs(around: Surroundings) -> None:
    plan = make_plan(second_seed("late", "free", "alone", "sharing"), around)
    assert outline(plan) == ["alone 5%", "features", "sharing 5%", "free 5%", "late 5%"]
    assert [task.seconds for task in plan.tasks] == [13.5, 9.0, 5.0, 5.5, None]
    assert (plan.seconds, plan.unknown) == (33.0, 1)
    assert describe(plan, around).endswith(
        "judged by earlier records, and 1 tasks of unknown length"
    )


@pytest.mark.usefixtures("measured")
def test_a_stage_that_is_there_costs_nothing(around: Surroundings) -> None:
    key = request_key(StageRequest(features, {"size": 4}), "0123", 1, "fp32")
    around.stages.get(key, lambda: ({"a": np.zeros(1)}, {}))
    plan = make_plan(second_seed("alone", "free", "sharing"), around)
    assert outline(plan) == ["sharing 5%", "free 5%", "alone 5%"]


@pytest.mark.usefixtures("measured")
def test_the_first_seed_comes_first(around: Surroundings) -> None:
    """Its leaderboard is complete before the next one's begins, whatever it costs."""
    both = trials("alone", "sharing", levels=["5%"], seeds=2)
    tasks = make_plan(both, around, "all").tasks
    assert [task.job.trials[0].seed for task in tasks] == [0, 0, 0, 1, 1, 1]


def test_without_records_there_is_no_estimate(around: Surroundings) -> None:
    plan = make_plan(trials("alone", "sharing"), around)
    assert plan.unknown == len(plan.tasks) == 7
    assert "no estimate" in describe(plan, around)


def test_a_job_of_several_levels_costs_one_fit(around: Surroundings, finish: Finish) -> None:
    first, second = trials("free", levels=["0%", "5%"])
    finish(first, parts=costing(3.0))
    later = [replace(trial, seed=1) for trial in (first, second)]
    costs = Costs.load(around.store)
    assert costs.job(replace(around.template, trials=tuple(later))) is None  # 5% is unknown
    finish(second, parts=costing(2.0))
    assert Costs.load(around.store).job(replace(around.template, trials=tuple(later))) == 7.5


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"seed": 7}, True),
        ({"selection": "random"}, True),
        ({"level": "10%"}, False),
        ({"params": {"n_clusters": 2, "size": 8}}, False),
        ({"protocol": "inductive"}, False),
        ({"dataset": "digits"}, False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_a_cost_depends_on(
    around: Surroundings, finish: Finish, changes: dict[str, Any], known: bool
) -> None:
    (trial,) = trials("sharing", levels=["5%"])
    finish(trial, parts=costing(3.0))
    job = replace(around.template, trials=(replace(trial, **changes),))
    assert Costs.load(around.store).job(job) == (7.5 if known else None)


def test_a_failure_teaches_no_cost(around: Surroundings, finish: Finish) -> None:
    (trial,) = trials("alone", levels=["5%"])
    finish(trial, None, costing(3.0))
    assert Costs.load(around.store).job(replace(around.template, trials=(trial,))) is None


def test_what_a_gpu_took_is_no_estimate_for_a_processor(
    around: Surroundings, finish: Finish
) -> None:
    (trial,) = trials("alone", levels=["5%"])
    job = replace(around.template, trials=(trial,))
    finish(trial, parts=costing(3.0) | {"environment": {"device": "cuda"}})
    assert Costs.load(around.store).job(job) is None
    assert Costs.load(around.store, "cuda").job(job) == 7.5
    assert Costs.load(around.store, "cuda", threads=7).job(job) == 7.5  # no threads of a GPU


def on(threads: int, precision: str) -> dict[str, Any]:
    return {"environment": {"device": "cpu", "threads": threads, "precision": precision}}


def test_seconds_of_two_threads_are_twice_those_of_one(
    around: Surroundings, finish: Finish
) -> None:
    (trial,) = trials("alone", levels=["5%"])
    job = replace(around.template, trials=(trial,))
    finish(trial, parts=costing(3.5) | on(2, "fp32"))
    assert Costs.load(around.store, threads=2).job(job) == 8.0
    assert Costs.load(around.store, threads=1).job(job) == 12.0
    assert Costs.load(around.store, threads=4).job(job) == 6.0


def test_of_several_seeds_the_median_counts(around: Surroundings, finish: Finish) -> None:
    seeds = trials("alone", levels=["5%"], seeds=4)
    for trial, seconds in zip(seeds, (2.5, 99.5, 1.5), strict=False):
        finish(trial, parts=costing(seconds))
    assert Costs.load(around.store).job(replace(around.template, trials=(seeds[3],))) == 7.0


def learned(around: Surroundings, precision: str) -> Costs:
    """What the records alone tell, without the shipped table."""
    costs = Costs(precision=precision)
    costs.learn(around.store)
    return costs


def test_the_other_precision_counts_by_what_was_measured_in_both(
    around: Surroundings, finish: Finish
) -> None:
    """9 and 3 s in fp32, 1 and 3 in bf16: three times as long; of the last bf16 alone is known."""
    of_both = ((9, 1), (3, 3), (None, 2))
    for trial, took in zip(trials("alone", levels=("1%", "5%", "20%")), of_both, strict=True):
        for seed, (seconds, precision) in enumerate(zip(took, ("fp32", "bf16"), strict=True)):
            if seconds:
                finish(replace(trial, seed=seed), parts=costing(seconds - 0.5) | on(1, precision))
    job = replace(around.template, trials=tuple(trials("alone", levels=["20%"])))
    assert learned(around, "bf16").job(job) == 6.0
    assert learned(around, "fp32").job(job) == 10.0


def test_the_other_precision_counts_as_it_is_where_nothing_has_both(
    around: Surroundings, finish: Finish
) -> None:
    (trial,) = trials("alone", levels=["5%"])
    finish(trial, parts=costing(1.5) | on(1, "bf16"))
    job = replace(around.template, trials=(trial,))
    assert learned(around, "fp32").job(job) == 6.0


def test_the_pace_of_what_ended() -> None:
    pace = Pace()
    assert pace(100) == 100
    pace.learn(30, 80)  # and its process
    assert pace(100) == pytest.approx(100 * (60 + 84) / (60 + 30))
    before = pace(100)
    pace.learn(None, 80)
    pace.learn(30, 0)  # its fit was there already
    assert pace(100) == before


def test_the_shipped_table(
    around: Surroundings,
    finish: Finish,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What `python -m bench.running.costs RESULTS` prints, it reads; own records come first."""
    monkeypatch.setattr(costs_module.resources, "files", lambda package: tmp_path)
    (trial,) = trials("sharing", levels=["5%"])
    job = replace(around.template, trials=(trial,))
    machine = {"processor": "a", "threads": 1, "device": "cpu", "precision": "fp32"}
    gpu = machine | {"device": "cuda", "accelerator": "g"}
    finish(trial, parts=costing(3.0, 6.0) | {"environment": machine})
    finish(replace(trial, seed=1), parts=costing(0.5) | {"environment": gpu})
    learned = Costs.load(around.store)
    costs_module._print_costs(str(around.store.results))
    printed = capsys.readouterr().out
    assert printed.startswith("# a in fp32; g in fp32\ndevice,kind,")
    (tmp_path / "costs.csv").write_text(printed)
    shipped = Costs.load(None)
    assert shipped.work == learned.work
    assert shipped.job(job) == 7.5
    assert Costs.load(None, "cuda").job(job) == 5.0
    assert shipped.stage(trial, "features", {"size": 4}) == 10.0
    finish(trial, parts=costing(1.0))
    assert Costs.load(around.store).job(job) == 5.5


def test_titles_of_tasks(around: Surroundings) -> None:
    tasks = make_plan(trials("free", "alone", levels=["0%", "5%"]), around).tasks
    assert sorted(task.title for task in tasks) == [
        "alone · 0% · seed 0",
        "alone · 5% · seed 0",
        "free · 0%, 5% · seed 0",
        "stage features",
    ]


def test_without_labels_one_job_fits_for_both(around: Surroundings) -> None:
    plan = make_plan(trials("follower", "free", levels=["0%", "5%"]), around)
    fits = [task.job.trials for task in plan.tasks if not task.job.stage]
    assert sorted(len(group) for group in fits) == [1, 3]  # follower at 5 %, and all the others
    assert {t.method for group in fits if len(group) == 3 for t in group} == {"follower", "free"}


def test_what_takes_a_record_over_needs_no_stage(around: Surroundings, finish: Finish) -> None:
    (other,) = trials("free", levels=["0%"])
    finish(other)
    (task,) = make_plan(trials("follower", levels=["0%"]), around).tasks
    assert (task.job.stage, task.needs) == ("", ())
    fresh = replace(around, template=replace(around.template, fresh=True))
    assert [
        t.job.stage != "" for t in make_plan(trials("follower", levels=["0%"]), fresh).tasks
    ] == [
        True,
        False,
    ]
