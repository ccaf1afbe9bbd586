"""Published figures: how each is measured, which records count, the verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from published_records import (
    CARD,
    LR_500,
    NO_RECORD,
    README,
    REPORT,
    TABLE_1,
    Records,
    Stand,
    figure,
    put_stand_ins,
    subset,
)

from bench.core.errors import BenchError
from bench.core.levels import Level
from bench.records import findings, published
from bench.records.findings import NEEDS_DATA, Finding
from bench.records.published import CIFAR_10, FASHION, Data, Figure, Setting
from bench.records.store import Store
from methods.method import Method
from methods.registry import Entry

ROWS = published.read_published()
PARAMS = {name: value for name, value in Stand().get_params().items() if name != "random_state"}
HEAD = (
    "source,method,head,trained_on,selection,labels,clusters,percentile,metric,value,"
    "evaluated_on,note,selection_rule\n"
)


@pytest.fixture
def records(tmp_path: Path, entries: dict[str, Entry]) -> Records:
    put_stand_ins(entries)
    return Records(tmp_path / "results")


def finding(value: float, *measured: float, n_failed: int = 0) -> Finding:
    setting = Setting("m", "inductive", "first", "500", "test", "accuracy")
    return Finding(Figure(1, "s", value, setting), measured, n_failed)


# --- Rows and settings -------------------------------------------------------------------------


def test_every_row_is_there() -> None:
    assert [row.number for row in ROWS] == list(range(1, 51))
    counted = Counter(row.source for row in ROWS)
    assert counted == {TABLE_1: 16, CARD: 2, README: 28, REPORT: 4}
    assert all(0 < row.value < 1 for row in ROWS)


def test_every_row_has_a_setting() -> None:
    everything = published.figures()
    measured = [one for one in everything if not one.other_reading]
    assert [one.number for one in measured] == list(range(1, 52))
    assert [one.number for one in everything if one.other_reading] == [48]
    assert {one.setting.schedule for one in everything} == {"paper"}
    for one in everything:
        assert str(Level.parse(one.setting.level)) == one.setting.level


def test_rows_that_differ_have_settings_that_differ() -> None:
    numbers: dict[str, list[int]] = {}
    for one in published.figures():
        numbers.setdefault(repr(one.setting), []).append(one.number)
    # Table 1 and the model card both give DCEC's accuracy; the README gives percentile 25 with
    # 2000 labels in two of its tables.
    assert [same for same in numbers.values() if len(same) > 1] == [[1, 17], [41, 43]]


# By hand from the sources: number, published, method, parameters, protocol, selection, level,
# metric, subset.
BY_HAND = """
1 0.5847 dcec - transductive random 0% acc all
2 0.6294 dcec - transductive random 0% nmi all
3 0.7371 ss-dcec - transductive random 1% acc all
16 0.88 ss-dcec - transductive random 50% nmi all
17 0.58 dcec - transductive random 0% acc all
18 0.76 ss-dcec - transductive stratified 5% accuracy unlabelled
19 0.841 supervised-lr - inductive stratified 100% accuracy test
20 0.8968 supervised-nn - inductive stratified 100% accuracy test
22 0.8389 kmeans-distances k=200 inductive stratified 100% accuracy test
24 0.7852 supervised-lr - inductive first 500 accuracy test
25 0.7351 supervised-nn - inductive first 500 accuracy test
30 0.755 kmeans-centroid-nn - inductive representative 500 accuracy test
32 0.8146 kmeans-centroid - inductive representative 2000 accuracy test
36 0.8121 kmeans-full - inductive representative 2000 accuracy test
40 0.8044 kmeans-percentile percentile=25 inductive representative 2000 accuracy test
42 0.1 kmeans-percentile-nn percentile=20 inductive representative 2000 accuracy test
46 0.796 kmeans-percentile-nn percentile=75 inductive representative 2000 accuracy test
47 0.8853 supervised-mlp - inductive-55k stratified 100% accuracy test
48 0.72 kmeans-centroid-mlp train_on=instances inductive-55k representative 100 accuracy test
49 0.67 kmeans-full-mlp - inductive-55k representative 100 accuracy test
50 0.69 kmeans-percentile-mlp percentile=25 inductive-55k representative 100 accuracy test
"""


@pytest.mark.parametrize("line", BY_HAND.strip().splitlines())
def test_what_measures_a_row(line: str) -> None:
    number, value, method, changed, protocol, selection, level, metric, subset = line.split()
    row = ROWS[int(number) - 1]
    name, _, given = changed.partition("=")
    params = {name: int(given) if given.isdecimal() else given} if given else {}
    assert row.value == float(value)
    assert published.settings(row)[0] == Setting(
        method, protocol, selection, level, subset, metric, params, "paper", "fashion-mnist"
    )


def test_settings_ask_for_parameters_that_the_methods_have(entries: dict[str, Entry]) -> None:
    known = [one for one in published.figures() if one.setting.method in entries]
    assert {"dcec", "ss-dcec"} <= {one.setting.method for one in known}
    for one in known:
        trial = published.trial_of(one.setting, FASHION)
        assert dict(one.setting.params).items() <= dict(trial.params).items()


def test_a_figure_that_can_be_read_in_two_ways_has_two_settings() -> None:
    first, second = published.settings(ROWS[47])
    assert (first.params, second.params) == ({"train_on": "instances"}, {"train_on": "centres"})
    assert replace(second, params=first.params) == first


def test_the_scan_table_is_one_figure() -> None:
    # Summed apart (awk): share × size of the 20 clusters is 15,343.54 of 60,000 images.
    scan = figure(51)
    assert scan.value == pytest.approx(15_343.5368 / 60_000, abs=1e-9)
    assert scan.setting.params == {"n_clusters": 20, "n_neighbors": 5}
    assert (scan.setting.dataset, scan.setting.metric) == (CIFAR_10, "purity")


@pytest.mark.parametrize(
    ("number", "changed", "sentence"),
    [
        (1, {"trained_on": "some"}, "row 1 .* 'some'; expected trained_on to be one of all 70000"),
        (1, {"selection": "best"}, "'best'; expected selection"),
        (1, {"metric": "f1"}, "'f1'; expected metric"),
        (1, {"evaluated_on": "train"}, "'train'; expected evaluated_on"),
        (3, {"labels": "0.01"}, "neither a share nor a count"),
        (19, {"labels": "500"}, "'500'; expected all labels of 'train 60000'"),
        (30, {"clusters": 100}, "'100'; expected as many clusters as labels"),
    ],
)
def test_a_row_that_no_setting_stands_for(
    number: int, changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BenchError, match=sentence):
        published.settings(replace(ROWS[number - 1], **changed))


def test_every_figure_says_how_its_state_was_chosen() -> None:
    rules = Counter((one.source, one.selection_rule) for one in published.figures())
    assert rules == {
        (TABLE_1, "label-free"): 16,
        (CARD, "label-free"): 2,
        (README, "last"): 28,
        (REPORT, "last"): 1,
        (REPORT, "unknown"): 4,  # one of the four is read in two ways
        ("scan-model-card", "unknown"): 1,
    }
    assert {rule for _, rule in rules} <= set(published.SELECTION_RULES)


@pytest.mark.parametrize(
    "text",
    [
        "source,method\ns,m\n",
        HEAD + "s,m,,all 70000,none,0%,ten,,acc,0.5,all 70000,,last\n",
        HEAD + "s,m,,all 70000,none,0%,,,acc,half,all 70000,,last\n",
        HEAD + "s,m,,all 70000,none,0%,,,acc,0.5,all 70000,,last,more\n",
        HEAD + "s,m,,all 70000,none,0%,,,acc,0.5,,last\n",
        HEAD + "s,m,,all 70000,none,0%,,,acc,nan,all 70000,,last\n",
        HEAD + "s,m,,all 70000,none,0%,,,acc,58.5,all 70000,,last\n",
        HEAD + "s,m,,all 70000,none,0%,,,acc,0.5,all 70000,,best\n",
    ],
)
def test_a_file_of_figures_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "figures.csv").write_text(text)
    with pytest.raises(BenchError, match="row 1 of the published figures cannot be read"):
        published.read_published(tmp_path / "figures.csv")


@pytest.mark.parametrize("content", [b"\xff" + HEAD.encode(), b"a\n" + b"x" * 200_000])
def test_a_file_that_is_no_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "figures.csv").write_bytes(content)
    with pytest.raises(BenchError, match=r"figures.csv cannot be read .*; expected a table like"):
        published.read_published(tmp_path / "figures.csv")


# --- The verdict -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "measured", "tolerance", "verdict"),
    [
        (0.76, (0.76,), 0.02, "reproduced"),
        (0.76, (0.78,), 0.02, "reproduced"),
        (0.76, (0.7801,), 0.02, "above"),
        (0.76, (0.74,), 0.02, "reproduced"),
        (0.76, (0.7399,), 0.02, "below"),
        (0.76, (0.739, 0.739), 0.02, "below"),  # no spread: two seeds are no wider than one
        (0.76, (0.729, 0.745), 2 * 0.016 / 2**0.5, "below"),  # 0.023 off, 2 sd are 0.0226
        (0.76, (0.728, 0.746), 2 * 0.018 / 2**0.5, "reproduced"),  # as far off, 2 sd are 0.0255
        (0.76, (0.7, 0.76), 0.03, "reproduced"),  # 2 sd are 0.085: never more than 0.03
        (0.76, (0.69, 0.76), 0.03, "below"),
        (0.76, (0.76, 0.83), 0.03, "above"),
        (0.76, (), 0.02, "not run"),
    ],
)
def test_the_verdict(
    value: float, measured: tuple[float, ...], tolerance: float, verdict: str
) -> None:
    found = finding(value, *measured)
    assert found.tolerance == pytest.approx(tolerance)
    assert found.verdict == verdict


def test_one_seed_has_no_standard_deviation() -> None:
    one, two = finding(0.76, 0.75), finding(0.76, 0.75, 0.77)
    assert (one.mean, one.std) == (0.75, None)
    assert one.difference == pytest.approx(-0.01)
    assert (two.mean, two.std) == (pytest.approx(0.76), pytest.approx(0.02 / 2**0.5))


def test_networks_that_died_and_runs_that_failed_are_counted() -> None:
    found = finding(0.79, 0.1, 0.79, 0.8, n_failed=1)
    assert (found.mean, found.std) == (pytest.approx(0.795), pytest.approx(0.01 / 2**0.5))
    assert (found.n_died, found.failure_rate, found.verdict) == (1, 0.5, "reproduced")
    assert findings.note(found) == (
        "1 of 4 runs failed and are not in the mean; "
        "1 of 3 seeds died (below 0.15), not in the mean"
    )
    assert finding(0.79, 0.15).n_died == 0
    assert (finding(0.79, 0.1).mean, finding(0.79, 0.1).verdict) == (0.1, "died")
    assert findings.count([finding(0.79, 0.1), finding(0.79, 0.7)])["below"] == 1
    assert findings.note(finding(0.79, 0.1)) == "1 of 1 seeds died (below 0.15)"


def test_a_published_run_that_died_is_compared_with_those_that_died() -> None:
    found = finding(0.1, 0.1, 0.79, 0.1)
    assert (found.mean, found.std, found.verdict) == (0.1, 0.0, "reproduced")
    assert findings.note(found) == (
        "2 of 3 seeds died (below 0.15), as the published run did; mean of the others 0.7900"
    )
    assert finding(0.1, 0.79, 0.81).verdict == "above"
    assert finding(0.79).failure_rate is None


# --- Which records count -----------------------------------------------------------------------


def test_a_figure_is_measured_from_its_own_subset_and_metric(records: Records) -> None:
    records.add(1, 0.58)
    table_1, card = findings.verify([figure(1), figure(17)], records.results)
    assert table_1.values == card.values == (0.58,)
    assert records.find(18).verdict == "not run"


def test_every_seed_counts(records: Records) -> None:
    records.add(LR_500, 0.78, 0.79, None, 0.77)
    found = records.find(LR_500)
    assert found.values == (0.78, 0.79, 0.77)
    assert (found.n_failed, found.n_runs, found.verdict) == (1, 4, "reproduced")


@pytest.mark.parametrize(
    "fields",
    [
        {"schedule": "quick"},
        {"protocol": "inductive-55k"},
        {"selection": "stratified"},
        {"level": "1000"},
        {"dataset_digest": "0123"},
        {"dataset": "digits"},
        {"params": PARAMS | {"k": 21}},
    ],
)
def test_no_other_record_counts(records: Records, fields: dict[str, Any]) -> None:
    records.add(LR_500, 0.78, **fields)
    assert len(list(Store(records.results))) == 1
    found = records.find(LR_500)
    assert (found.verdict, found.reason) == ("not run", NO_RECORD)


def test_any_precision_counts_and_none_is_mixed_with_another(records: Records) -> None:
    records.add(19, 0.9, precision="bf16")
    assert (records.find(19).values, records.find(19).precision) == ((0.9,), "bf16")
    records.add(19, 0.8)
    assert (records.find(19).values, records.find(19).precision) == ((0.8,), "fp32")
    records.add(19, 0.9, 0.7, precision="bf16")
    assert (records.find(19).values, records.find(19).precision) == ((0.9, 0.7), "bf16")


def test_a_parameter_that_the_method_has_anyway_makes_no_variant(records: Records) -> None:
    default, changed = figure(41).setting, figure(42).setting
    trial = published.trial_of(default, FASHION)
    assert trial.variant == {}
    assert isinstance(trial.params["percentile"], float)  # as `bench run` without --set has it
    assert published.trial_of(changed, FASHION).variant == {"percentile": 20}
    records.add(42, 0.79)
    assert records.find(41).verdict == "not run"
    assert records.find(42).verdict == "above"


def test_a_figure_without_a_result_says_why(records: Records, entries: dict[str, Entry]) -> None:
    records.add(LR_500, None, None)
    assert records.find(LR_500).reason == "2 without a result: ValueError: it broke"
    assert records.find(LR_500).failure_rate == 1.0
    del entries["kmeans-full-nn"]
    assert "no method is called 'kmeans-full-nn'" in records.find(34).reason
    entries["kmeans-distances"] = Entry("kmeans-distances", Tiny, {}, Tiny.tags, "here")
    assert "kmeans-distances has no parameter 'k'" in records.find(21).reason
    assert {records.find(n).verdict for n in (LR_500, 34, 21)} == {"not run"}


class Tiny(Method):
    """Has no parameter of its own."""

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state


def test_records_made_by_other_code_are_said_so(
    records: Records, entries: dict[str, Entry]
) -> None:
    records.add(LR_500, 0.78)
    assert findings.note(records.find(LR_500)) == ""
    records.add(LR_500, 0.78, parts={"versions": {"method": 0, "stages": {}}})
    assert "1 of the records made by an older version" in findings.note(records.find(LR_500))


def test_a_record_without_the_score_is_no_silent_gap(records: Records) -> None:
    records.add(LR_500, 0.78, parts={"subsets": {"all": subset(accuracy=0.78)}})
    with pytest.raises(BenchError, match="supervised-lr · 500 · seed 0 has no accuracy on test"):
        records.find(LR_500)


def test_there_has_to_be_a_results_folder(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no results folder"):
        findings.verify(published.figures(), tmp_path / "nowhere")


@pytest.mark.parametrize(("size", "verdict"), [(6000, "reproduced"), (5000, "not run")])
def test_scan_is_measured_where_there_are_records_of_cifar_10(
    records: Records, size: int, verdict: str
) -> None:
    assert records.find(51).reason == NEEDS_DATA
    subsets = {"all": subset(purity=0.24, contingency=[[size, 0]] * 10)}
    records.add(51, 0.24, data=Data("my-images", "4567", 10), parts={"subsets": subsets})
    assert records.find(51).verdict == verdict
