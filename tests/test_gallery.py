"""What stands below figures, what cards say of a method, what confusion matrices count."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from published_records import subset

from bench.core.trial import Trial
from bench.records.leaderboard import aggregate
from bench.records.store import flatten_record
from bench.records.views import Cluster, View
from bench.show import confusion, gallery, report
from bench.show.cards import anchors, references
from bench.show.sections import board_sections
from methods.registry import Entry

MakeRecord = Callable[..., dict[str, Any]]


def test_recall_is_the_mean_over_seeds_of_the_headlines_images(
    make_record: MakeRecord,
) -> None:
    one = {"unlabelled": subset(recall=[0.2, None, 1.0]), "all": subset(recall=[0, 0, 0])}
    two = {"unlabelled": subset(recall=[0.4, None, 0.5])}
    records = [
        make_record(parts={"subsets": one}, level="5%", method="b"),
        make_record(parts={"subsets": two}, level="5%", method="b", seed=1),
        make_record(parts={"subsets": two}, level="5%", method="a"),
        make_record(parts={"subsets": one}, level="1%", method="a"),
        make_record(None, level="5%", method="a", seed=1),
    ]
    table = gallery.recall_table(records, "5%", ["b", "a"])
    assert list(table.index) == ["b", "a"]
    np.testing.assert_allclose(table.to_numpy(), [[0.3, np.nan, 0.75], [0.4, np.nan, 0.5]])
    assert gallery.recall_table(records, "50%", ["a"]).empty
    inductive = make_record(parts={"subsets": one}, protocol="inductive")
    assert gallery.recall_table([inductive], "5%", ["tiny"]).empty, "no test images"


@pytest.mark.parametrize(
    ("n", "first", "said"),
    [(60, "class 0", "Of 60 classes one in 2 is named."), (3, "x" * 40, "Names are cut after")],
)
def test_the_caption_says_what_a_figure_leaves_out(
    make_record: MakeRecord, n: int, first: str, said: str
) -> None:
    names = [first, *(f"class {j}" for j in range(1, n))]
    part = {"n": 10, "recall": [0.5] * n, "contingency": [[1] * (n + 1)] * n}
    records = [make_record(0.5, {"subsets": {"all": part, "unlabelled": part}})]
    table = report.named(aggregate(pd.DataFrame([flatten_record(one) for one in records])))
    (section,) = board_sections(records, table, anchors(table["name"]))
    images = SimpleNamespace(class_names=lambda dataset, n_classes: names)
    assert said in gallery.recall(section, images).caption


def test_clusters_are_numbered_where_the_font_lacks_their_names(make_record: MakeRecord) -> None:
    view = View("", ("お", "b"), (Cluster(0, 0, 0.5, 1, (0,), (0.5,)),))
    trial = Trial.from_json(make_record()["trial"])
    data = SimpleNamespace(X=np.zeros((1, 4, 4), np.uint8))
    assert "Numbers stand for names" in gallery.clusters(trial, view, data, "a").caption


def test_anchors_and_paragraphs_and_sources(entries: dict[str, Entry]) -> None:
    found = anchors(["a b", "a-b", "|"])
    assert found == {"a b": "card-a-b", "a-b": "card-a-b.2", "|": "card-method"}
    assert references(entries["scan"])[0].startswith("Van Gansbeke")
    assert references(entries["supervised-lr"]) == []


def test_confusion_matrices_are_named_and_summed(make_record: MakeRecord) -> None:
    part = {"n": 4, "recall": [0.5, 0.5], "contingency": [[1, 2, 0], [3, 0, 1]]}
    subsets = {"subsets": {"unlabelled": part}}
    records = [make_record(0.5, subsets, level="0%", seed=seed) for seed in (0, 1)]
    records.append(make_record(0.5, subsets))
    records.append(make_record(0.5, subsets | {"cluster_names": [1, 1]}, method="other"))
    records.append(make_record(None, method="broken"))
    found = confusion.tables(records)
    assert found == {
        "tiny": {"0%": [[4, 2, 0], [0, 6, 2]], "5%": [[1, 2, 0], [3, 0, 1]]},
        "other": {"5%": [[0, 3, 0], [0, 3, 1]]},
    }
