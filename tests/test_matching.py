"""FixMatch and what is built on it: the loss, the running mean, kills, seeds and their weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from contexts import Recording, killed_and_resumed
from fixed_fits import sample
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from methods.fixmatch import FixMatch
from methods.method import UNLABELLED
from methods.spread_and_match import SpreadAndMatch, seeds_in, surest
from methods.toolkit.matching import (
    Classifier,
    Lesson,
    Matching,
    Pool,
    _Taught,
    average_,
    consistency_loss,
    match,
)

SMOKE = FixMatch.schedules["smoke"]
OURS = SpreadAndMatch.schedules["smoke"] | {"simclr_epochs": 1, "n_outer": 2, "head_epochs": 2}


# --- The loss ------------------------------------------------------------------------------------


def test_consistency_loss_is_the_plain_loop() -> None:
    draws = torch.Generator().manual_seed(0)
    weak, strong = 4 * torch.randn(2, 50, 3, generator=draws)
    loss, share = consistency_loss(weak, strong, 0.8)
    total, confident = 0.0, 0
    for a, b in zip(weak.tolist(), strong.tolist(), strict=True):
        p = [math.exp(x) / sum(math.exp(v) for v in a) for x in a]
        if max(p) >= 0.8:
            confident += 1
            q = [math.exp(x) / sum(math.exp(v) for v in b) for x in b]
            total -= math.log(q[p.index(max(p))])
    assert 0 < confident < 50
    assert loss.item() == pytest.approx(total / 50, rel=1e-5)
    assert share.item() == pytest.approx(confident / 50)


def test_targets_get_no_gradient() -> None:
    weak = torch.tensor([[9.0, 0.0]], requires_grad=True)
    strong = torch.zeros(1, 2, requires_grad=True)
    consistency_loss(weak, strong, 0.5)[0].backward()
    assert weak.grad is None
    assert strong.grad is not None


def test_nothing_confident_is_no_loss() -> None:
    loss, share = consistency_loss(torch.zeros(4, 3), torch.randn(4, 3), 0.95)
    assert loss.item() == 0
    assert share.item() == 0


def test_the_running_mean_is_one_of_weights_and_takes_statistics_as_they_are() -> None:
    mean, now = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    before = mean[0].weight.clone()
    now[1].running_mean.fill_(3.0)
    average_(mean, now, 0.9)
    torch.testing.assert_close(mean[0].weight, 0.9 * before + 0.1 * now[0].weight)
    assert (mean[1].running_mean == 3).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mu": 0}, "mu is 0; expected at least 1"),
        ({"lr": -1.0}, "lr is -1.0; expected a positive"),
        ({"threshold": 1.0}, "threshold is 1.0; expected 0 or more, below 1"),
        ({"weight": math.nan}, "weight is nan; expected 0 or more"),
    ],
)
def test_refuses(wrong: dict[str, float], message: str) -> None:
    fine = dict(steps=1, batch_size=1, mu=1, lr=1.0, weight_decay=0.0, threshold=0.9, weight=1.0)
    with pytest.raises(ValueError, match=message):
        Matching(**(fine | {"ema": 0.9} | wrong))


# --- Lessons -------------------------------------------------------------------------------------


def test_each_lesson_is_taught_until_its_step_in_full_batches() -> None:
    images = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 1, 8, 8)
    seen: list[list[int]] = []

    class Watched(Classifier):
        """Notes the images of the labelled part of a batch by their brightness."""

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if len(batch) == 4 + 8:  # the labelled and the strong views, not the weak ones
                seen.append(batch[:4].amax((1, 2, 3)).mul(255).round().int().tolist())
            return super().forward(batch)

    lessons = [
        Lesson(2, [Pool(np.array([3, 5, 7, 9, 11]), np.array([0, 1, 0, 1, 0]), 4)]),
        Lesson(5, [Pool(np.array([4, 6]), np.array([0, 1]), 4)]),
    ]
    matching = Matching(5, 4, 2, 0.01, 0.0, 0.9, 1.0, 0.9)
    match(Watched((8, 8), 2, 4, 2), images, lessons, matching, 0, Recording())
    assert len(seen) == 5
    assert all(set(rows) <= {3, 5, 7, 9, 11} for rows in seen[:2])
    assert all(sorted(rows) == [4, 4, 6, 6] for rows in seen[2:])


def test_pools_are_drawn_from_without_replacement_and_have_their_places() -> None:
    own, seeds = np.arange(0, 12, 2), np.arange(1, 8, 2)
    pools = [Pool(own, own % 3, 2), Pool(seeds, seeds % 3 + 5, 4), Pool(np.array([11]), own[:1], 3)]
    taught = _Taught(Lesson(9, pools), seed=0)
    steps = [taught[step] for step in range(6)]
    assert all(step.shape == (2, 9) for step in steps)
    images, classes = torch.stack(steps, 1)
    for at in (0, 3):  # a pass through the first pool is three steps
        assert sorted(images[at : at + 3, :2].flatten().tolist()) == own.tolist()
    assert images[:3, :2].tolist() != images[3:, :2].tolist()
    for step in images[:, 2:6]:  # one through the second is one step
        assert sorted(step.tolist()) == seeds.tolist()
    assert (images[:, 6:] == 11).all()
    assert (classes[:, :2] == images[:, :2] % 3).all()
    assert (classes[:, 2:6] == images[:, 2:6] % 3 + 5).all()


# --- FixMatch ------------------------------------------------------------------------------------


def test_learns_from_few_labels() -> None:
    X, y, truth = sample()
    X = X.repeat(2, axis=1).repeat(2, axis=2)
    fitted = FixMatch(random_state=0, **SMOKE | {"steps": 80, "width": 8}).fit(X, y)
    assert (fitted.labels_ == truth)[y == UNLABELLED].mean() > 0.6
    np.testing.assert_array_equal(fitted.predict(X), fitted.labels_)


def test_fixmatch_gives_a_class_without_a_label_no_probability() -> None:
    X, y, _ = sample()
    y = np.where(y == 3, UNLABELLED, y)
    fitted = FixMatch(random_state=0, **SMOKE).fit(X, y)
    assert (fitted.probabilities_[:, 3] == 0).all()
    np.testing.assert_allclose(fitted.probabilities_.sum(1), 1, rtol=1e-5)


def test_a_killed_training_goes_on_as_if_it_had_not_been() -> None:
    X, y, _ = sample()

    def fit(context: Recording) -> FixMatch:
        return FixMatch(random_state=0, **SMOKE).fit(X, y, context)

    undisturbed = Recording()
    expected = fit(undisturbed)
    resumed, context = killed_and_resumed(fit, 25, every=3)
    assert context.steps[0][1] > 1
    assert context.history == undisturbed.history
    np.testing.assert_array_equal(resumed.probabilities_, expected.probabilities_)


def test_the_mean_of_the_weights_is_what_counts() -> None:
    """With a decay of 0 it is the last state, and another result."""
    X, y, _ = sample()
    with_mean, last = (
        FixMatch(random_state=0, **SMOKE | {"ema": ema}).fit(X, y) for ema in (0.999, 0.0)
    )
    assert not np.allclose(with_mean.probabilities_, last.probabilities_)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_without_a_running_mean_the_network_itself_is_scored(ema: float) -> None:
    images = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 1, 8, 8)
    network = Classifier((8, 8), 2, 4, 2)
    lesson = Lesson(3, [Pool(np.array([3, 5]), np.array([0, 1]), 4)])
    matching = Matching(3, 4, 2, 0.01, 0.0, 0.9, 1.0, ema)
    scored = match(network, images, [lesson], matching, 0, Recording())
    assert (scored is network) == (ema == 0)
    assert not scored.training
    assert not any(weight.requires_grad for weight in scored.parameters())


def test_labels_are_needed() -> None:
    X, _, _ = sample()
    with pytest.raises(ValueError, match="FixMatch learns from labelled instances"):
        FixMatch(**SMOKE).fit(X)


# --- Spread and match ----------------------------------------------------------------------------


def test_seeds_are_the_surest_of_each_class() -> None:
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.45, 0.55], [1.0, 0.0]])
    y = np.array([-1, -1, -1, -1, -1, 0])
    np.testing.assert_array_equal(surest(scores, 0.5, y), [0, 2, 3])  # 2 of 3, 1 of 2
    np.testing.assert_array_equal(surest(scores, 0.0, y), [])
    assert set(surest(scores, 0.0, np.full(6, -1))) == {5, 3}  # without labels one of each


@pytest.mark.parametrize(
    ("n_labels", "n_seeds"), [(0, 64), (1, 32), (50, 32), (100, 21), (700, 4), (7000, 0)]
)
def test_seeds_are_half_while_labels_are_few_then_ever_less(n_labels: int, n_seeds: int) -> None:
    assert seeds_in(64, n_labels, seed_labels=50) == n_seeds


def lessons_of(monkeypatch: pytest.MonkeyPatch, **changed: float) -> tuple[SpreadAndMatch, list]:
    """A fit, and what its network was taught."""
    X, y, _ = sample()
    taught: list[list[Lesson]] = []
    original = SpreadAndMatch._match

    def noting(self: SpreadAndMatch, X: np.ndarray, lessons: list[Lesson], *rest: object) -> object:
        taught.append(lessons)
        return original(self, X, lessons, *rest)

    monkeypatch.setattr(SpreadAndMatch, "_match", noting)
    return SpreadAndMatch(random_state=0, **OURS | changed).fit(X, y), taught[0]


def test_seeds_have_the_classes_that_were_spread_and_the_labelled_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, y, _ = sample()
    fitted, (first, _) = lessons_of(monkeypatch)
    own, seeds = first.pools
    np.testing.assert_array_equal(own.images, np.flatnonzero(y != UNLABELLED))
    np.testing.assert_array_equal(own.classes, y[own.images])
    np.testing.assert_array_equal(seeds.images, fitted.seeds_)
    np.testing.assert_array_equal(seeds.classes, fitted.scores_.argmax(1)[seeds.images])
    assert seeds.size == seeds_in(fitted.batch_size, len(own.images), fitted.seed_labels) > 0
    assert own.size + seeds.size == fitted.batch_size


def test_later_the_labelled_images_are_taught_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, y, _ = sample()
    fitted, (first, second) = lessons_of(monkeypatch, seed_time=0.25)
    assert (first.until, second.until) == (fitted.steps // 4, fitted.steps)
    (alone,) = second.pools
    np.testing.assert_array_equal(alone.images, np.flatnonzero(y != UNLABELLED))
    np.testing.assert_array_equal(alone.classes, y[alone.images])
    assert alone.size == fitted.batch_size


def test_without_seeds_only_the_labelled_images_are_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, (first, _) = lessons_of(monkeypatch, seed_share=0.0)
    assert len(fitted.seeds_) == 0
    assert [pool.size for pool in first.pools] == [fitted.batch_size]


def test_without_labels_the_seeds_are_taught_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    X, _, _ = sample()
    monkeypatch.setattr("test_matching.sample", lambda: (X, np.full(len(X), UNLABELLED), None))
    fitted, lessons = lessons_of(monkeypatch)
    assert len(lessons) == 1
    (only,) = lessons[0].pools
    np.testing.assert_array_equal(only.images, fitted.seeds_)


def test_the_start_is_simclr_s_network_or_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a step of training worth the name the features are still those of the start."""
    X, y, _ = sample()
    still = OURS | {"steps": 1, "lr": 1e-9}
    warm, cold = (
        SpreadAndMatch(random_state=0, warm_start=warm, **still).fit(X, y) for warm in (True, False)
    )
    name = "0.0.weight"  # the first convolution
    weights = [fit.head_.network.state_dict()[name] for fit in (warm, cold)]
    torch.testing.assert_close(weights[0], warm.encoder_.state_dict()["0.weight"])
    assert not torch.allclose(weights[0], weights[1])


def test_without_labels_the_head_with_the_lowest_loss_counts() -> None:
    X, _, _ = sample()
    context = Recording()
    fitted = SpreadAndMatch(random_state=0, **OURS | {"n_heads": 3}).fit(X, None, context)
    losses = [row["loss"] for row in context.history if "head" in row]
    assert len(losses) == 3
    alone = Recording(stages=context.stages)
    best = SpreadAndMatch(random_state=0, **OURS | {"n_heads": 3})
    best._begin(X, None, alone)
    features = torch.from_numpy(best._stage_features(X, alone))
    indices = next(a["indices"] for a, _ in context.stages.values() if "indices" in a)
    head = best._train_head(features, indices, int(np.argmin(losses)), alone)
    with torch.no_grad():
        expected = F.softmax(head(features), 1).numpy()
    np.testing.assert_allclose(fitted.scores_, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["C", "lr_tol", "lr_max_iter"])
def test_a_wrong_parameter_of_the_last_layer_has_its_own_name(name: str) -> None:
    X, y, _ = sample()
    with pytest.raises(ValueError, match=f"^{name} is 0; expected above 0"):
        SpreadAndMatch(**{name: 0}).fit(X, y)


def test_other_features_are_refused() -> None:
    X, y, _ = sample()
    with pytest.raises(ValueError, match="features is 'autoencoder'; expected one of simclr"):
        SpreadAndMatch(features="autoencoder").fit(X, y)


@pytest.mark.parametrize("few", [False, True])
def test_the_last_layer_is_the_logistic_regression_of_what_is_known(few: bool) -> None:
    """scikit-learn's on the features; the network below it is the same with and without.

    Of the labelled images, or, while they are few, of all with the classes spread to them.
    """
    X, y, _ = sample()
    labelled = y != UNLABELLED
    n_labels = int(labelled.sum())
    ours = OURS | {"steps": 20, "lr_max_iter": 500, "lr_tol": 1e-6}
    ours |= {"seed_labels": n_labels - (not few)}
    fitted, plain = (
        SpreadAndMatch(random_state=0, relearn=relearn, **ours).fit(X, y)
        for relearn in (True, False)
    )
    with torch.inference_mode():
        images = torch.from_numpy(X)[:, None].float() / 255
        rows, others = (one.head_.network.features(images).numpy() for one in (fitted, plain))
    np.testing.assert_array_equal(rows, others)
    classes = np.where(labelled, y, fitted.scores_.argmax(1))
    taught = labelled | few
    scaled = rows / np.sqrt(np.square(rows[taught]).mean())
    theirs = LogisticRegression(C=1.0, max_iter=2000, tol=1e-8).fit(scaled[taught], classes[taught])
    expected = theirs.predict_proba(scaled)
    np.testing.assert_allclose(fitted.probabilities_, expected, atol=5e-3)
    assert np.abs(plain.probabilities_ - expected).max() > 0.05


@pytest.mark.parametrize(("few", "relearn"), [(False, True), (True, True), (True, False)])
def test_a_class_without_a_label_gets_no_probability(few: bool, relearn: bool) -> None:
    """Though with uniform priors the graph gives it its share of the images."""
    X, y, _ = sample()
    y = np.where(y == 3, UNLABELLED, y)
    ours = OURS | {"priors": "uniform", "seed_labels": len(y) if few else 1}
    ours |= {"relearn": relearn}
    fitted = SpreadAndMatch(random_state=0, **ours).fit(X, y)
    assert (fitted.scores_.argmax(1) == 3).any()
    assert (fitted.probabilities_[:, 3] == 0).all()
    np.testing.assert_allclose(fitted.probabilities_.sum(1), 1, rtol=1e-5)
