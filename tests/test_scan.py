"""SCAN and its variants: stages, neighbours, training that goes on, collapse, labels, clusters."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError

from bench.running.context import SuiteContext
from bench.running.stages import StageStore
from methods import registry
from methods.method import UNLABELLED, Arrays, Context
from methods.scan import scan
from methods.scan.assignments import pseudo_labels
from methods.scan.scan import SCAN, SSSCAN

NAMES = ["scan", "scan-finetune", "scan-selflabel", "ss-scan"]
LABEL_FREE = NAMES[:3]
Fits = dict[str, tuple[SCAN, "Suite"]]


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


class Killed(Exception):
    """Stands for a kill: the process ends right after a checkpoint was written."""


class Kept:
    """A checkpoint in memory, passed through torch.save as the suite's is."""

    def __init__(self, files: dict[str, bytes], name: str, kill: Callable[[], None]) -> None:
        self.files, self.name, self.kill = files, name, kill

    def load(self) -> dict[str, Any] | None:
        if self.name not in self.files:
            return None
        return torch.load(io.BytesIO(self.files[self.name]), weights_only=True)

    def save(self, state: Callable[[], dict[str, Any]], *, force: bool = False) -> None:
        file = io.BytesIO()
        torch.save(state(), file)
        self.files[self.name] = file.getvalue()
        self.kill()


class Suite(Context):
    """Keeps stages, the fit's own history, and checkpoints; is killed after `lives` of these."""

    def __init__(self, lives: int | None = None, shared: Suite | None = None) -> None:
        super().__init__()
        self.lives = lives
        self.files: dict[str, bytes] = {}
        self.rows: list[dict[str, Any]] = []
        self.done: dict[str, Arrays] = {} if shared is None else shared.done
        self.computed: list[str] = [] if shared is None else shared.computed
        self.inside = ""

    def log(self, **values: Any) -> None:
        if not self.inside:
            self.rows.append(values)

    def checkpoint(self, name: str) -> Kept:
        return Kept(self.files, f"{self.inside}/{name}", self._count)

    def stage(
        self, function: Callable[..., Arrays], X: np.ndarray, *, random_state: Any, **params: Any
    ) -> Arrays:
        key = f"{function.__name__} {X.shape} {random_state} {sorted(params.items())}"
        if key not in self.done:
            outer, self.inside = self.inside, key
            try:
                self.done[key] = super().stage(function, X, random_state=random_state, **params)
            finally:
                self.inside = outer
            self.computed.append(function.__name__)
        return self.done[key]

    def _count(self) -> None:
        if self.lives is not None:
            self.lives -= 1
            if self.lives == 0:
                raise Killed


# The methods


@pytest.fixture(scope="module")
def fits() -> Fits:
    """All methods on digits, 60 of 200 labelled, sharing their stages as in the suite."""
    X, truth = digits()
    found, shared = {}, Suite()
    for name in NAMES:
        suite = Suite(shared=shared)
        found[name] = smoke(name).fit(X, hide(truth), suite), suite
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_on_digits(name: str, fits: Fits) -> None:
    X, _ = digits()
    method, suite = fits[name]
    assert method.labels_.shape == (200,) and method.labels_.dtype == np.int64
    assert set(np.unique(method.labels_)) <= set(range(10))
    assert np.array_equal(method.predict(X), method.labels_)
    probabilities = method.predict_proba(X)
    assert probabilities.shape == (200, 10) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, method.probabilities_, atol=1e-6)
    np.testing.assert_allclose(method.predict_proba(X[150:]), probabilities[150:], atol=1e-4)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert method.transform(X).shape == (200, 32)
    assert method.confident_.shape == (10, 9)
    first = method.confident_[method.labels_[7]]
    assert (method.labels_[first[first >= 0]] == method.labels_[7]).all()
    assert suite.rows[-1].get("note") or suite.rows[-1]["phase"] == "result"


@pytest.mark.parametrize("name", NAMES)
def test_the_history_has_a_row_for_every_epoch(name: str, fits: Fits) -> None:
    phases = {"simclr": 3, "head": 20}
    phases |= {"finetune": 1} if name in ("scan-finetune", "scan-selflabel") else {}
    phases |= {"selflabel": 1} if name == "scan-selflabel" else {}
    method, suite = fits[name]
    rows = [row for row in suite.rows if "epoch" in row]
    assert rows == [row for row in method.history_ if row["phase"] != "simclr"]  # a stage's own
    assert [(row["phase"], row["epoch"]) for row in method.history_] == [
        (phase, epoch + 1) for phase, n in phases.items() for epoch in range(n)
    ]
    for row in method.history_:
        assert np.isfinite(row["loss"])
        if row["phase"] != "simclr":
            assert 1 <= row["clusters_in_use"] <= 10
            assert 0 <= row["assignment_entropy"] <= np.log(10) + 1e-6
            assert 0.1 <= row["confidence"] <= 1


def test_all_four_share_one_simclr_and_each_other_s_phases(fits: Fits) -> None:
    assert sorted(fits["ss-scan"][1].computed) == [
        "finetuned_scan",
        "label_free_scan",
        "neighbours",
        "self_labelled_scan",
        "simclr",
    ]


def test_what_is_announced_is_a_chain_that_the_methods_share() -> None:
    chains = [smoke(name).stages(0) for name in LABEL_FREE]
    assert [[request.name for request in chain] for chain in chains] == [
        ["simclr", "label_free_scan"],
        ["simclr", "label_free_scan", "finetuned_scan"],
        ["simclr", "label_free_scan", "finetuned_scan", "self_labelled_scan"],
    ]
    assert chains[0] == chains[1][:2] == chains[2][:2] and chains[1] == chains[2][:3]
    assert smoke("ss-scan").stages(0) == chains[0]
    assert smoke("ss-scan").stages(60) == chains[0][:1]
    assert smoke("ss-scan", finetune=True).stages(0) == chains[1]
    assert smoke("ss-scan", selflabel=True).stages(0) == chains[2]
    later = smoke("scan-finetune", finetune_lr=0.5, selflabel_lr=0.5).stages(0)
    assert later[:2] == chains[0] and later[2] != chains[1][2]


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
    assert not method.collapsed_ and method.effective_clusters_ > 2.5
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
    suite = Suite(shared=fits[other][1])
    computed = list(suite.computed)
    method = smoke("ss-scan", **changes).fit(X, np.full_like(truth, UNLABELLED), suite)
    assert np.array_equal(method.labels_, fits[other][0].labels_)
    assert method.same_as_ == other
    method.fit(X, hide(truth), suite)
    assert method.same_as_ is None
    assert suite.computed == computed  # all stages were there


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
    suite = Suite()
    for name, same in (("scan", True), ("ss-scan", True), ("scan-finetune", False)):
        method = smoke(name).fit(X, hide(truth), Suite(shared=suite))
        features = next(x for key, x in suite.done.items() if key.startswith("simclr"))["features"]
        assert np.allclose(method.transform(X), features, atol=1e-5) == same


@pytest.mark.parametrize("lives", [2, 5, 9])
@pytest.mark.parametrize("name", ["scan-selflabel", "ss-scan"])
def test_training_goes_on_after_a_kill(name: str, lives: int) -> None:
    """Killed after a checkpoint of SimCLR (2), of the head (5) and of the last phase (9)."""
    X, truth = patterns(80)
    params: dict[str, Any] = {
        "n_clusters": 3,
        "epochs": 4,
        "finetune_epochs": 2,
        "selflabel_epochs": 2,
    }
    params |= {"finetune": True, "selflabel": True, "selflabel_threshold": 0.35}
    suite = Suite(lives)
    with pytest.raises(Killed):
        smoke(name, **params).fit(X, hide(truth), suite)
    suite.lives = None
    resumed = smoke(name, **params).fit(X, hide(truth), suite)
    undisturbed = smoke(name, **params).fit(X, hide(truth))
    assert {row["phase"] for row in resumed.history_} >= {"head", "finetune", "selflabel"}
    assert np.array_equal(resumed.probabilities_, undisturbed.probabilities_)
    assert resumed.history_ == undisturbed.history_


def test_a_collapse_is_in_the_history_that_the_record_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the fit that computes the stages and of the next one; there is nothing to find here."""
    X = np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8)
    collapse = {"entropy_weight": 0, "epochs": 60, "lr": 0.05, "batch_size": 50, "n_neighbors": 99}
    store = StageStore(tmp_path / "stages")
    for changes, low in ((collapse, True), (collapse, True), ({}, False)):
        context = SuiteContext(store, tmp_path / "fit", lambda event: None)
        method = smoke("scan", **changes).fit(X, context=context)
        rows = json.loads(json.dumps(context.history))
        entropies = [row["assignment_entropy"] for row in rows if row.get("phase") == "head"]
        assert entropies[0] > 1 and (entropies[-1] < 0.5) == low
        assert rows[-1]["phase"] == "result" and rows[-1]["collapsed"] is method.collapsed_ is low
        assert rows[-1]["clusters_in_use"] == len(np.unique(method.labels_))
        assert rows[-1]["effective_clusters"] == method.effective_clusters_
        assert (rows[-1]["clusters_in_use"] < 5) == (method.effective_clusters_ < 2) == low
        assert ("SCAN collapsed: its 10 clusters are as" in capsys.readouterr().out) == low


def test_self_labelling_stops_where_nothing_is_confident(
    fits: Fits, capsys: pytest.CaptureFixture[str]
) -> None:
    X, _ = digits()
    suite = Suite()
    method = smoke("scan-selflabel", selflabel_threshold=0.9999999).fit(X, context=suite)
    assert np.array_equal(method.labels_, fits["scan-finetune"][0].labels_)
    said = "self-labelling stopped after 0 of 1 epochs: no prediction is above the threshold"
    assert said in capsys.readouterr().out
    assert suite.rows[-1]["phase"] == "selflabel" and said in suite.rows[-1]["note"]


def test_self_labelling_stops_once_nothing_is_confident(
    fits: Fits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one epoch of three: the model is what one epoch gives."""
    thresholds = iter([0.5, 1.0])  # nothing is above 1

    def fading(logits: torch.Tensor, threshold: float) -> torch.Tensor:
        return pseudo_labels(logits, next(thresholds))

    monkeypatch.setattr(scan, "pseudo_labels", fading)
    suite = Suite()
    method = smoke("scan-selflabel", selflabel_epochs=3).fit(digits()[0], context=suite)
    losses = [row["loss"] for row in suite.rows if row.get("epoch") and row["phase"] == "selflabel"]
    assert len(losses) == 2 and losses[0] is not None and losses[1] is None
    assert "self-labelling stopped after 1 of 3 epochs" in suite.rows[-1]["note"]
    assert np.array_equal(method.probabilities_, fits["scan-selflabel"][0].probabilities_)


def test_self_labelling_makes_assignments_surer(capsys: pytest.CaptureFixture[str]) -> None:
    X, truth = patterns(150)
    params = {"selflabel_threshold": 0.6, "selflabel_epochs": 8, "selflabel_batch_size": 50}
    unsure = {"epochs": 4, "lr": 2e-3, "finetune_epochs": 0}
    suite = Suite()
    before = easy("scan-finetune", **unsure).fit(X, context=suite)
    after = easy("scan-selflabel", selflabel_lr=1e-3, **unsure, **params).fit(X, context=suite)
    assert 0.6 < before.probabilities_.max(1).mean() < 0.95
    assert after.probabilities_.max(1).mean() > before.probabilities_.max(1).mean()
    assert [row["phase"] for row in after.history_].count("selflabel") == 8
    assert "stopped" not in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_more_clusters_than_classes(name: str) -> None:
    X, truth = patterns(150)
    method = easy(name, n_clusters=20).fit(X, hide(truth, 30))
    assert method.predict_proba(X).shape == (150, 20) and method.confident_.shape == (20, 9)
    clusters = method.cluster_labels_ if isinstance(method, SSSCAN) else method.labels_
    assert len(np.unique(clusters)) > 3 and np.array_equal(method.predict(X), method.labels_)
    votes = np.zeros((20, 3))
    np.add.at(votes, (clusters, truth), 1)
    assert votes.max(1).sum() / len(X) > 0.95  # purity
    if isinstance(method, SSSCAN):
        assert np.array_equal(method.labels_, method.cluster_classes_[clusters])
        assert set(method.cluster_classes_) == {0, 1, 2} and (method.labels_ == truth).mean() > 0.95


def test_labels_decide_which_cluster_is_which_class() -> None:
    X, truth = patterns(150)
    suite = Suite()
    for order in ([0, 1, 2], [2, 0, 1]):
        classes = np.array(order)[truth]
        method = easy("ss-scan").fit(X, hide(classes, 9), Suite(shared=suite))
        assert (method.labels_ == classes).mean() > 0.95
        assert np.array_equal(method.cluster_labels_, method.labels_)


def test_without_a_seed_simclr_is_trained_once() -> None:
    X, _ = digits(60)
    first, second = Suite(), Suite()
    a = smoke("scan-selflabel", random_state=None).fit(X, context=first)
    b = smoke("scan-selflabel", random_state=None).fit(X, context=second)
    assert first.computed.count("simclr") == 1
    assert a.random_state is None and not np.array_equal(a.transform(X), b.transform(X))


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
    with pytest.raises(ValueError, match="no labelled image of class 3, 7; SS-SCAN learns"):
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
    assert params["pretrain_epochs"] == 500 and params["epochs"] == 100
    assert params["n_neighbors"] == 20 and params["entropy_weight"] == 5
    assert params["feature_dim"] == 512 and params["projection_dim"] == 128
    assert params["temperature"] == 0.1 and params["selflabel_threshold"] == 0.99
    assert SSSCAN().get_params() == params | {"label_weight": 1.0}
