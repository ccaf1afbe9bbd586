"""FixMatch and what is built on it: the loss, the running mean, kills, seeds and their weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from contexts import Recording, killed_and_resumed
from torch import nn
from torch.nn import functional as F

from bench.checks import sample
from methods.fixmatch import FixMatch
from methods.method import UNLABELLED
from methods.spread_and_match import SpreadAndMatch, surest, training_rows
from methods.toolkit.matching import Matching, average_, consistency_loss

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


# --- FixMatch ------------------------------------------------------------------------------------


def test_learns_from_few_labels() -> None:
    X, y, truth = sample()
    X = X.repeat(2, axis=1).repeat(2, axis=2)
    fitted = FixMatch(random_state=0, **SMOKE | {"steps": 80, "width": 8}).fit(X, y)
    assert (fitted.labels_ == truth)[y == UNLABELLED].mean() > 0.6
    np.testing.assert_array_equal(fitted.predict(X), fitted.labels_)


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


def test_labelled_images_are_half_while_they_are_few() -> None:
    y = np.array([0, 1, -1, -1, -1, -1, -1, -1])
    rows = training_rows(y, np.arange(2, 8))
    assert np.bincount(rows).tolist() == [3, 3, 1, 1, 1, 1, 1, 1]
    assert training_rows(np.array([0, 1, 1, -1]), np.array([3])).tolist() == [0, 1, 2, 3]
    assert training_rows(np.full(4, -1), np.array([1])).tolist() == [1]


def test_seeds_have_the_classes_that_were_spread_and_the_labelled_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y, _ = sample()
    taught: list[tuple[np.ndarray, np.ndarray]] = []
    original = SpreadAndMatch._match

    def noting(self: SpreadAndMatch, X: np.ndarray, rows: np.ndarray, *rest: object) -> object:
        taught.append((rows, rest[0]))
        return original(self, X, rows, *rest)

    monkeypatch.setattr(SpreadAndMatch, "_match", noting)
    fitted = SpreadAndMatch(random_state=0, **OURS).fit(X, y)
    rows, classes = taught[0]
    known = y[rows] != UNLABELLED
    assert 0.3 < known.mean() < 0.7
    np.testing.assert_array_equal(classes[known], y[rows][known])
    np.testing.assert_array_equal(classes[~known], fitted.scores_.argmax(1)[rows[~known]])


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


def test_other_features_are_refused() -> None:
    X, y, _ = sample()
    with pytest.raises(ValueError, match="features is 'autoencoder'; expected one of simclr"):
        SpreadAndMatch(features="autoencoder").fit(X, y)
