"""SCAN and its variants: stages, neighbours, training that goes on, collapse, labels, clusters."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contexts import Recording, killed_and_resumed
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.nn import functional as F

from bench.running.context import SuiteContext
from bench.running.stages import StageStore
from methods import registry
from methods.method import UNLABELLED, Context
from methods.scan import SCAN, SSSCAN, scan
from methods.scan.losses import pseudo_labels, scan_loss
from methods.scan.network import ClusterHead
from methods.toolkit.draws import Draws, generator

NAMES = ["scan", "scan-finetune", "scan-selflabel", "ss-scan"]
LABEL_FREE = NAMES[:3]
WATCHED = ("clusters_in_use", "assignment_entropy", "confidence")  # of every epoch
Fits = dict[str, tuple[SCAN, Recording]]

# These fits train too little to be sure of all clusters.
pytestmark = pytest.mark.filterwarnings("ignore:SCAN collapsed")


def digits(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return (data.images[:n] * 15.9).astype(np.uint8), data.target[:n].astype(np.int64)


def hide(truth: np.ndarray, n_labels: int = 60) -> np.ndarray:
    return np.where(np.arange(len(truth)) < n_labels, truth, UNLABELLED)


def patterns(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images of three kinds that nobody confuses: rows, columns, and a bright middle."""
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 3
    y, x = np.mgrid[:16, :16]
    kinds = np.stack([y // 2 % 2, x // 2 % 2, ((y - 7.5) ** 2 + (x - 7.5) ** 2 < 25)])
    X = 40 + 150 * kinds[truth] + rng.integers(0, 60, (n, 16, 16))
    return X.astype(np.uint8), truth.astype(np.int64)


def smoke(name: str, **changes: Any) -> SCAN:
    return registry.get(name).build("smoke", **{"random_state": 0, **changes})


# The methods


@pytest.fixture(scope="module")
def fits() -> Fits:
    """All methods on digits, 60 of 200 labelled, sharing their stages as in the suite."""
    X, truth = digits()
    found, first = {}, Recording()
    for name in NAMES:
        suite = Recording(stages=first.stages)
        found[name] = smoke(name).fit(X, hide(truth), suite), suite
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_on_digits(name: str, fits: Fits) -> None:
    X, _ = digits()
    method, suite = fits[name]
    assert method.labels_.shape == (200,)
    assert method.labels_.dtype == np.int64
    assert set(np.unique(method.labels_)) <= set(range(10))
    assert np.array_equal(method.predict(X), method.labels_)
    probabilities = method.predict_proba(X)
    assert probabilities.shape == (200, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, method.probabilities_, atol=1e-6)
    np.testing.assert_allclose(method.predict_proba(X[150:]), probabilities[150:], atol=1e-4)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert method.transform(X).shape == (200, 32)
    assert method.confident_.shape == (10, 9)
    first = method.confident_[method.labels_[7]]
    assert (method.labels_[first[first >= 0]] == method.labels_[7]).all()
    assert suite.history[-1].get("note") or suite.history[-1]["phase"] == "result"


@pytest.mark.parametrize("name", NAMES)
def test_the_history_has_a_row_for_every_epoch(name: str, fits: Fits) -> None:
    phases = {"simclr": 3, "head": 20}
    phases |= {"finetune": 1} if name in ("scan-finetune", "scan-selflabel") else {}
    phases |= {"selflabel": 1} if name == "scan-selflabel" else {}
    method, suite = fits[name]
    rows = [row for row in suite.history if "epoch" in row]
    own = [row for row in method.history_ if row["phase"] != "simclr"]
    assert [row for row in rows if "stage" not in row] == own
    stage = [row for row in method.history_ if row["phase"] == "simclr"]
    assert [row for row in rows if "stage" in row] == [
        {"stage": "simclr", "epoch": row["epoch"], "loss": row["loss"]} for row in stage
    ]
    assert [(row["phase"], row["epoch"]) for row in method.history_] == [
        (phase, epoch + 1) for phase, n in phases.items() for epoch in range(n)
    ]
    for row in method.history_:
        assert np.isfinite(row["loss"])
        if row["phase"] == "simclr":
            assert set(row) == {"phase", "epoch", "loss"}
        else:
            assert set(row) == {"phase", "epoch", "loss", *WATCHED}
            assert 1 <= row["clusters_in_use"] <= 10
            assert 0 <= row["assignment_entropy"] <= np.log(10) + 1e-6
            assert 0.1 <= row["confidence"] <= 1


def test_all_four_share_one_simclr_and_its_neighbours(fits: Fits) -> None:
    assert fits["scan"][1].computed == ["simclr", "neighbours"]
    for name in NAMES:
        method, suite = fits[name]
        assert name == "scan" or suite.computed == []
        assert [request.name for request, _ in suite.asked] == ["simclr", "neighbours"]
        assert suite.asked[0] == (method.stages(0)[0], 0)
        assert suite.asked[1][0].params == {"k": 5}


def test_every_method_begins_with_the_phases_of_the_one_before(fits: Fits) -> None:
    head, finetuned, self_labelled = (fits[name][0].history_ for name in LABEL_FREE)
    labelled = fits["ss-scan"][0].history_
    assert head == finetuned[:-1]
    assert finetuned == self_labelled[:-1]
    assert head[:3] == labelled[:3]  # SimCLR
    assert all(row != other for row, other in zip(head[3:], labelled[3:], strict=True))


def test_what_is_announced_is_shared_whatever_follows() -> None:
    announced = [smoke(name).stages(n) for name in NAMES for n in (0, 60)]
    announced.append(smoke("scan-finetune", finetune_lr=0.5, selflabel_lr=0.5).stages(0))
    assert all(requests == announced[0] for requests in announced)
    [request] = announced[0]
    assert request.name == "simclr"
    assert request.params == {
        "epochs": 3,
        "batch_size": 64,
        "lr": 0.1,
        "temperature": 0.1,
        "feature_dim": 32,
        "projection_dim": 16,
        "width": 4,
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_labels(name: str, fits: Fits) -> None:
    X, truth = digits()
    alone = smoke(name).fit(X, hide(truth))  # stages computed in place
    assert np.array_equal(alone.labels_, fits[name][0].labels_)
    assert np.array_equal(alone.probabilities_, fits[name][0].probabilities_)
    other = smoke(name, random_state=1).fit(X, hide(truth))
    assert not np.array_equal(alone.labels_, other.labels_)


def easy(name: str, **changes: Any) -> SCAN:
    """A method that has learnt the three patterns in a second."""
    params = {"n_clusters": 3, "pretrain_epochs": 6, "width": 8, "epochs": 30, "batch_size": 30}
    return smoke(name, **params | {"finetune_epochs": 3, "finetune_lr": 1e-3} | changes)


@pytest.mark.parametrize("name", NAMES)
def test_patterns_that_nobody_confuses_become_clusters(name: str) -> None:
    X, truth = patterns(150)
    method = easy(name).fit(X, hide(truth, 9))
    named = method.labels_
    if name != "ss-scan":
        names = [np.bincount(truth[named == j], minlength=3).argmax() for j in range(3)]
        named = np.array(names)[named]
    assert (named == truth).mean() > 0.95
    assert not method.collapsed_
    assert method.effective_clusters_ > 2.5
    new, _ = patterns(30)
    assert (method.predict(new) == method.labels_[:30]).mean() > 0.9


def test_colour_images_of_32_pixels() -> None:
    X = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    y = hide(np.arange(40) % 3, 12)
    for name in NAMES:
        method = smoke(name, n_clusters=3, pretrain_epochs=1, epochs=2).fit(X, y)
        assert method.labels_.shape == (40,)
        assert method.predict_proba(X[:5]).shape == (5, 3)


@pytest.mark.parametrize("name", LABEL_FREE)
def test_methods_without_labels_ignore_them(name: str, fits: Fits) -> None:
    X, truth = digits()
    assert not registry.get(name).tags.uses_labels
    assert np.array_equal(smoke(name).fit(X, (truth + 1) % 10).labels_, fits[name][0].labels_)
    assert np.array_equal(smoke(name).fit(X).labels_, fits[name][0].labels_)


@pytest.mark.parametrize(
    ("changes", "other"),
    [({}, "scan"), ({"finetune": True}, "scan-finetune"), ({"selflabel": True}, "scan-selflabel")],
)
def test_without_labels_ss_scan_is_scan(changes: dict[str, bool], other: str, fits: Fits) -> None:
    X, truth = digits()
    stages = fits[other][1].stages
    method = smoke("ss-scan", **changes)
    method.fit(X, np.full_like(truth, UNLABELLED), Recording(stages=stages))
    assert np.array_equal(method.labels_, fits[other][0].labels_)
    assert np.array_equal(method.probabilities_, fits[other][0].probabilities_)
    assert np.array_equal(method.cluster_labels_, method.labels_)
    assert registry.get("ss-scan").tags.without_labels == "scan"
    suite = Recording(stages=stages)
    method.fit(X, hide(truth), suite)
    assert suite.computed == []  # all stages were there
    assert not np.array_equal(method.probabilities_, fits[other][0].probabilities_)


@pytest.mark.parametrize("changes", [{}, {"finetune": True}, {"selflabel": True}])
def test_labels_are_the_models_own(changes: dict[str, bool]) -> None:
    """Wrong labels do not come back: the pattern wins."""
    X, truth = patterns(150)
    y = hide(truth, 60)
    wrong = np.arange(0, 60, 10)
    y[wrong] = (y[wrong] + 1) % 3
    method = easy("ss-scan", **changes).fit(X, y)
    assert (method.labels_[wrong] == truth[wrong]).mean() > 0.8
    assert np.array_equal(method.predict(X), method.labels_)


def test_finetuning_changes_the_encoder_and_the_frozen_head_does_not() -> None:
    X, truth = digits(100)
    suite = Recording()
    for name, same in (("scan", True), ("ss-scan", True), ("scan-finetune", False)):
        method = smoke(name).fit(X, hide(truth), Recording(stages=suite.stages))
        [features] = [x[0]["features"] for k, x in suite.stages.items() if k.startswith("simclr")]
        assert np.allclose(method.transform(X), features, atol=1e-5) == same


def test_images_are_paired_with_all_neighbours_but_those_of_another_class() -> None:
    """And the loss is that of the pairs, with the cross entropy of the labelled images."""
    y = np.array([0, 0, 1, 1, 2, -1, -1, -1])
    indices = np.array([[j for j in range(8) if j != i] for i in range(8)])
    logits = torch.randn(8, 3, generator=generator(0, "logits"))
    labelled = F.cross_entropy(logits[:5], torch.from_numpy(y[:5]))
    asked = []

    def inputs(rows: torch.Tensor, draws: Draws) -> torch.Tensor:
        asked.append((rows.tolist(), draws.step))
        return logits[rows]

    params = {"n_clusters": 3, "entropy_weight": 2.0}
    for method, given, weight in (
        (SCAN(**params), np.full(8, UNLABELLED), 0.0),
        (SSSCAN(**params, label_weight=0.5), np.full(8, UNLABELLED), 0.0),
        (SSSCAN(**params, label_weight=0.5), y, 0.5),
    ):
        asked.clear()
        loss = method._pair_loss(nn.Identity(), inputs, indices, given, Context())
        draws = Draws(7, "cpu")
        for step in range(100):
            draws.begin(step, 8)
            value, watched = loss(torch.arange(8), draws)
            rows, of_step = asked[-1]
            assert (rows[:8], of_step) == (list(range(8)), step)
            assert torch.equal(watched, logits)
            expected = scan_loss(logits, logits[rows[8:]], 2.0) + weight * labelled
            assert value.item() == pytest.approx(expected.item(), abs=1e-6)
        draws.begin(3, 8)
        loss(torch.arange(8), draws)
        assert asked[-1] == asked[3]  # a function of the step: a resumed phase draws the same
        pairs = {(i, j) for rows, _ in asked for i, j in enumerate(rows[8:])}
        assert pairs == {
            (i, j)
            for i in range(8)
            for j in range(8)
            if i != j and (given[i] == given[j] or UNLABELLED in (given[i], given[j]))
        }


@pytest.mark.parametrize("name", ["scan-finetune", "ss-scan"])
def test_head_and_finetuning_pair_the_neighbours_with_the_labels_that_are_used(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, truth = patterns(60)
    y, seen, pair_loss = hide(truth, 30), [], SCAN._pair_loss

    def noting(self: SCAN, module: Any, inputs: Any, indices: Any, y: Any, *args: Any) -> Any:
        seen.append((indices, y))
        return pair_loss(self, module, inputs, indices, y, *args)

    monkeypatch.setattr(SCAN, "_pair_loss", noting)
    suite = Recording()
    smoke(name, n_clusters=3, finetune=True, epochs=1).fit(X, y, suite)
    [near] = [arrays for key, (arrays, _) in suite.stages.items() if key.startswith("neighbours")]
    assert len(seen) == 2
    for indices, labels in seen:
        assert np.array_equal(indices, near["indices"])
        assert np.array_equal(labels, y if name == "ss-scan" else np.full(60, UNLABELLED))


@pytest.mark.parametrize("name", ["scan-selflabel", "ss-scan"])
def test_training_goes_on_after_a_kill(name: str) -> None:
    """Of every third state that it is offered; how many steps are left tells where it went on.

    SimCLR has 10 steps of two events each, the neighbours have one event, the head has 20 steps,
    fine-tuning and self-labelling have 16 each. Other places: `test_training`.
    """
    X, truth = patterns(80)
    params: dict[str, Any] = {"n_clusters": 3, "pretrain_batch_size": 8, "pretrain_epochs": 1}
    params |= {"epochs": 4, "batch_size": 16, "finetune_epochs": 2, "finetune_batch_size": 10}
    params |= {"selflabel_epochs": 2, "selflabel_batch_size": 10}
    params |= {"finetune": True, "selflabel": True, "selflabel_threshold": 0.35}

    def fit(context: Recording) -> SCAN:
        return smoke(name, **params).fit(X, hide(truth), context)

    suite = Recording()
    undisturbed = fit(suite)
    assert (suite.events, len(suite.steps)) == (125, 63)
    places = (
        (15, 4 + 1 + 20 + 16 + 16),  # SimCLR, in the middle of its epoch
        (21, 1 + 20 + 16 + 16),  # the neighbours
        (40, 11 + 16 + 16),  # the head, as all below in the middle of an epoch
        (80, 2 + 7 + 16),  # fine-tuning; the head's last state is the one before its 19th step
        (110, 2 + 1 + 10),  # self-labelling
        (125, 2 + 1 + 1),  # self-labelling, after its last step
    )
    for lives, left in places if name == "scan-selflabel" else places[2:5]:
        resumed, context = killed_and_resumed(fit, lives, every=3)
        assert len(context.steps) == left, lives
        assert np.array_equal(resumed.probabilities_, undisturbed.probabilities_), lives
        assert np.array_equal(resumed.transform(X), undisturbed.transform(X)), lives
        assert resumed.history_ == undisturbed.history_, lives
        assert context.history == suite.history, lives


def test_a_collapse_is_in_the_history_that_the_record_keeps(tmp_path: Path) -> None:
    """Of the fit that computes the stages and of the next one; there is nothing to find here."""
    X = np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8)
    collapse = {"entropy_weight": 0, "epochs": 60, "lr": 0.05, "batch_size": 50, "n_neighbors": 99}
    store = StageStore(tmp_path / "stages")
    for changes, low in ((collapse, True), (collapse, True), ({}, False)):
        context = SuiteContext(store, tmp_path / "fit", lambda event: None)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            method = smoke("scan", **changes).fit(X, context=context)
        context.clear()  # as at the end of a fit
        rows = json.loads(json.dumps(context.history))
        entropies = [row["assignment_entropy"] for row in rows if row.get("phase") == "head"]
        assert entropies[0] > 1
        assert (entropies[-1] < 0.5) == low
        assert rows[-1]["phase"] == "result"
        assert rows[-1]["collapsed"] is method.collapsed_ is low
        assert rows[-1]["clusters_in_use"] == len(np.unique(method.labels_))
        assert rows[-1]["effective_clusters"] == method.effective_clusters_
        assert (rows[-1]["clusters_in_use"] < 5) == (method.effective_clusters_ < 2) == low
        told = [w for w in said if "SCAN collapsed: its 10 clusters are as" in str(w.message)]
        assert len(told) == low


def test_self_labelling_stops_where_nothing_is_confident(fits: Fits) -> None:
    X, _ = digits()
    suite = Recording()
    said = "self-labelling stopped after 0 of 1 epochs: no prediction is above the threshold"
    with pytest.warns(UserWarning, match=said):
        method = smoke("scan-selflabel", selflabel_threshold=0.9999999).fit(X, context=suite)
    assert np.array_equal(method.labels_, fits["scan-finetune"][0].labels_)
    assert suite.history[-1]["phase"] == "selflabel"
    assert said in suite.history[-1]["note"]


def test_self_labelling_stops_once_nothing_is_confident(
    fits: Fits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one epoch of three: the model is what one epoch gives."""
    thresholds = iter([0.5, 1.0])  # nothing is above 1

    def fading(logits: torch.Tensor, threshold: float) -> torch.Tensor:
        return pseudo_labels(logits, next(thresholds))

    monkeypatch.setattr(scan, "pseudo_labels", fading)
    suite = Recording()
    with pytest.warns(UserWarning, match="self-labelling stopped after 1 of 3 epochs"):
        method = smoke("scan-selflabel", selflabel_epochs=3).fit(digits()[0], context=suite)
    own = [row for row in suite.history if row.get("phase") == "selflabel" and "epoch" in row]
    losses = [row["loss"] for row in own]
    assert len(losses) == 2
    assert losses[0] is not None
    assert losses[1] is None
    assert "self-labelling stopped after 1 of 3 epochs" in suite.history[-1]["note"]
    assert np.array_equal(method.probabilities_, fits["scan-selflabel"][0].probabilities_)


@pytest.mark.filterwarnings("error:self-labelling stopped")
def test_self_labelling_makes_assignments_surer() -> None:
    X, _truth = patterns(150)
    params = {"selflabel_threshold": 0.6, "selflabel_epochs": 8, "selflabel_batch_size": 50}
    unsure = {"epochs": 4, "lr": 2e-3, "finetune_epochs": 0}
    suite = Recording()
    before = easy("scan-finetune", **unsure).fit(X, context=suite)
    after = easy("scan-selflabel", selflabel_lr=1e-3, **unsure, **params)
    after.fit(X, context=Recording(stages=suite.stages))
    assert 0.6 < before.probabilities_.max(1).mean() < 0.95
    assert after.probabilities_.max(1).mean() > before.probabilities_.max(1).mean()
    own = [row for row in after.history_ if row["phase"] == "selflabel"]
    assert len(own) == 8
    assert all(row["loss"] is not None for row in own)


@pytest.mark.parametrize("name", NAMES)
def test_more_clusters_than_classes(name: str) -> None:
    X, truth = patterns(150)
    method = easy(name, n_clusters=20).fit(X, hide(truth, 30))
    assert method.predict_proba(X).shape == (150, 20)
    assert method.confident_.shape == (20, 9)
    clusters = method.cluster_labels_ if isinstance(method, SSSCAN) else method.labels_
    assert len(np.unique(clusters)) > 3
    assert np.array_equal(method.predict(X), method.labels_)
    votes = np.zeros((20, 3))
    np.add.at(votes, (clusters, truth), 1)
    assert votes.max(1).sum() / len(X) > 0.95  # purity
    if isinstance(method, SSSCAN):
        assert np.array_equal(method.labels_, method.cluster_classes_[clusters])
        assert set(method.cluster_classes_) == {0, 1, 2}
        assert (method.labels_ == truth).mean() > 0.95


def test_labels_decide_which_cluster_is_which_class() -> None:
    X, truth = patterns(150)
    suite = Recording()
    for order in ([0, 1, 2], [2, 0, 1]):
        classes = np.array(order)[truth]
        method = easy("ss-scan").fit(X, hide(classes, 9), Recording(stages=suite.stages))
        assert (method.labels_ == classes).mean() > 0.95
        assert np.array_equal(method.cluster_labels_, method.labels_)


def test_without_a_seed_simclr_is_trained_once() -> None:
    X, _ = digits(60)
    first, second = Recording(), Recording()
    params = {"random_state": None, "selflabel_threshold": 0}  # always confident
    a = smoke("scan-selflabel", **params).fit(X, context=first)
    b = smoke("scan-selflabel", **params).fit(X, context=second)
    assert [request.name for request, _ in first.asked] == ["simclr", "neighbours"]
    assert np.array_equal(a.predict(X), a.labels_)
    assert a.random_state is None
    assert not np.array_equal(a.transform(X), b.transform(X))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("scan", {"n_clusters": 0}, "n_clusters is 0; expected at least 1"),
        ("scan", {"n_neighbors": 0}, "n_neighbors is 0; expected at least 1"),
        ("scan", {"n_neighbors": 60}, "n_neighbors is 60 with 60 images; expected at most 59"),
        ("scan", {"pretrain_epochs": -1}, "pretrain_epochs is -1; expected at least 0"),
        ("scan", {"batch_size": 1}, "batch_size is 1; expected at least 2"),
        ("scan", {"lr": 0}, "lr is 0; expected a positive number"),
        ("scan", {"temperature": float("nan")}, "temperature is nan; expected a positive"),
        ("scan", {"entropy_weight": float("nan")}, "entropy_weight is nan; expected at least 0"),
        ("scan-selflabel", {"selflabel_threshold": 1}, "selflabel_threshold is 1; expected a prob"),
        ("ss-scan", {"label_weight": -1}, "label_weight is -1; expected at least 0"),
        ("ss-scan", {"n_clusters": 5}, "y holds labels from -1 to 9"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    X, truth = digits(60)
    with pytest.raises(ValueError, match=message):
        smoke(name, **changes).fit(X, hide(truth, 50))


def test_a_class_without_a_label_is_refused() -> None:
    X, truth = digits(60)
    y = np.where(np.isin(truth, [3, 7]), UNLABELLED, truth)
    with pytest.raises(ValueError, match="no labelled instance of class 3, 7; SS-SCAN learns"):
        smoke("ss-scan").fit(X, y)
    assert registry.get("ss-scan").tags.needs_every_class


@pytest.mark.parametrize("phase", ["", "finetune_", "selflabel_"])
def test_a_loss_that_is_not_finite_is_an_error(phase: str) -> None:
    X, _ = digits(60)
    changes: dict[str, Any] = {f"{phase}lr": 2e37, f"{phase}epochs": 30}
    changes |= {"selflabel_threshold": 0, "batch_size": 20, "finetune_batch_size": 20}
    name = {"": "head", "finetune_": "finetune", "selflabel_": "selflabel"}[phase]
    with pytest.raises(
        FloatingPointError, match=f"the (loss|assignments) of {name} became .*; lower"
    ):
        smoke("scan-selflabel", **changes).fit(X)


def test_new_images_have_to_have_the_fitted_shape(fits: Fits) -> None:
    with pytest.raises(ValueError, match=r"shape \(9, 9\); SCAN was fitted on \(8, 8\)"):
        fits["scan"][0].predict(np.zeros((2, 9, 9), dtype=np.uint8))
    with pytest.raises(NotFittedError):
        SSSCAN().predict(np.zeros((2, 8, 8), dtype=np.uint8))


def test_the_constructors_defaults_are_the_papers() -> None:
    params = SCAN().get_params()
    assert params["pretrain_epochs"] == 500
    assert params["epochs"] == 100
    assert params["n_neighbors"] == 20
    assert params["entropy_weight"] == 5
    assert params["feature_dim"] == 512
    assert params["projection_dim"] == 128
    assert params["temperature"] == 0.1
    assert params["selflabel_threshold"] == 0.99
    assert SSSCAN().get_params() == params | {"label_weight": 1.0, "start_weight": 3.0}


def test_a_head_starts_on_any_device() -> None:
    """The features and the draws are on the processor, the head is where it trains."""
    features = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    here, there = ClusterHead(6, 3), ClusterHead(6, 3).to("meta")  # a device without memory
    for head in (here, there):
        head.start_(features, torch.Generator().manual_seed(0))
    assert there.weight.device.type == "meta"
    torch.testing.assert_close(here.mean, features.mean(0))
    expected = torch.empty(3, 6).uniform_(
        -(6**-0.5), 6**-0.5, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(here.weight.data, expected)
    there.lean_(features, torch.arange(20) % 3, 3.0)


@pytest.mark.parametrize("n_clusters", [3, 5])
def test_a_head_leans_towards_the_means_of_the_labelled(n_clusters: int) -> None:
    """To the logits come 3 times the cosines: of an image's features and the mean of each class."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 6)).astype(np.float32) + np.arange(6, dtype=np.float32)
    y = np.where(np.arange(40) < 13, np.arange(40) % 3, UNLABELLED)
    head = ClusterHead(6, n_clusters)
    features = torch.from_numpy(z)
    head.start_(features, torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = head(features).numpy()
        head.lean_(features, torch.from_numpy(y), 3.0)
        added = head(features).numpy() - before
    means = np.stack([z[y == c].mean(0) for c in range(3)])
    towards = means - means.mean(0)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    centred = z - z.mean(0)
    lengths = np.linalg.norm(centred, axis=1)
    cosines = centred @ towards.T / lengths[:, None]
    typical = np.sqrt(np.square(lengths).mean())
    expected = 3 * cosines * lengths[:, None] / typical
    np.testing.assert_allclose(added, expected[:, np.arange(n_clusters) % 3], atol=1e-5)


def test_the_start_alone_says_which_cluster_is_which_class() -> None:
    """Few labels are seldom in a batch: from random weights the clusters have any numbers."""
    X, pattern = patterns(150)
    suite = Recording()
    for shift in range(3):  # the same images, their classes called otherwise
        truth = (pattern + shift) % 3
        method = easy("ss-scan", label_weight=0)
        method.fit(X, hide(truth, 3), Recording(stages=suite.stages))
        assert np.array_equal(method.cluster_labels_, truth)


def test_a_weight_of_0_is_the_start_of_scan() -> None:
    features = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    plain, leaning = ClusterHead(6, 3), ClusterHead(6, 3)
    for head in (plain, leaning):
        head.start_(features, torch.Generator().manual_seed(0))
    leaning.lean_(features, torch.arange(20) % 3, 0.0)
    assert torch.equal(plain.weight, leaning.weight)
