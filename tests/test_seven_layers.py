"""The 7-layer network: its layers, its loss, when it stops, how it dies, how it goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contexts import Recording, killed_and_resumed
from sklearn.datasets import load_digits

from methods.method import Context
from methods.supervised import SupervisedNN
from methods.toolkit.heads.seven_layers import NN, SevenLayerNetwork, stalled

_digits = load_digits()
X = (_digits.images * 15.9).astype(np.uint8)[:300]  # (300, 8, 8)
Y = _digits.target.astype(np.int64)[:300]


def test_the_layers_of_the_source():
    network = SevenLayerNetwork((28, 28), 10)
    convolutions = 9 * 32 + 32 + 32 * 9 * 64 + 64 + 64 * 9 * 128 + 128 + 128 + 1
    dense = 22 * 22 * 64 + 64 + 64 * 10 + 10
    assert sum(p.numel() for p in network.parameters()) == convolutions + dense
    assert network.one_channel(torch.rand(2, 1, 28, 28)).shape == (2, 1, 22, 22)


def test_the_loss_is_the_categorical_cross_entropy_of_sigmoids():
    head = NN(10, epochs=1).fit(X, Y, Context())
    images, targets = torch.from_numpy(X[:, None]), torch.from_numpy(Y)
    with torch.no_grad():
        loss = float(head._loss(images, targets))
        sigmoids = head.network_(images.float() / 255).double().sigmoid().numpy()
    shares = sigmoids / sigmoids.sum(1, keepdims=True)
    assert loss == pytest.approx(-np.log(shares[np.arange(len(Y)), Y]).mean(), rel=1e-5)
    np.testing.assert_allclose(head.predict_proba(X), shares, atol=1e-5)


@pytest.mark.parametrize(
    ("losses", "stops"),
    [([3, 2, 1], False), ([1, 2, 3], True), ([1, 2], False), ([3, 1, 2, 1], True), ([1.0], False)],
)
def test_patience_counts_from_the_first_smallest_loss(losses, stops):
    assert stalled(losses, patience=2) is stops


def test_it_stops_early_and_keeps_the_last_weights():
    context = Recording()
    NN(10, epochs=200, patience=3, batch_size=16).fit(X, Y, context)
    losses = [row["held_out_loss"] for row in context.history]
    assert len(losses) < 200
    assert len(losses) - 1 - int(np.argmin(losses)) == 3
    same = NN(10, epochs=len(losses), patience=200, batch_size=16).fit(X, Y, Context())
    again = NN(10, epochs=200, patience=3, batch_size=16).fit(X, Y, Context())
    assert np.array_equal(same.predict_proba(X), again.predict_proba(X))


def test_the_best_weights_are_those_of_the_smallest_held_out_loss():
    context = Recording()
    arguments = {"patience": 3, "batch_size": 16}
    best = NN(10, epochs=200, keep="best", **arguments).fit(X, Y, context)
    losses = [row["held_out_loss"] for row in context.history]
    until = NN(10, epochs=int(np.argmin(losses)) + 1, **arguments).fit(X, Y, Context())
    assert np.array_equal(best.predict_proba(X), until.predict_proba(X))


def test_with_a_softmax_the_loss_is_the_cross_entropy_of_the_logits():
    head = NN(10, epochs=2, outputs="softmax", white=255.0).fit(X, Y, Context())
    images = torch.from_numpy(X[:, None])
    with torch.no_grad():
        soft = head.network_(images.float()).double().softmax(1).numpy()
        loss = float(head._loss(images, torch.from_numpy(Y)))
    assert loss == pytest.approx(-np.log(soft[np.arange(len(Y)), Y]).mean(), rel=1e-4)
    np.testing.assert_allclose(head.predict_proba(X), soft, atol=1e-5)


def test_the_last_tenth_teaches_nothing():
    wrong = Y.copy()
    wrong[270:] = (wrong[270:] + 1) % 10
    right = NN(10, epochs=2).fit(X, Y, Context())
    misled = NN(10, epochs=2).fit(X, wrong, Context())
    assert np.array_equal(right.predict_proba(X), misled.predict_proba(X))
    wrong[269] = (wrong[269] + 1) % 10
    taught = NN(10, epochs=2).fit(X, wrong, Context())
    assert not np.array_equal(right.predict_proba(X), taught.predict_proba(X))


def test_a_dead_network_names_one_class_and_the_history_says_so():
    context = Recording()
    head = NN(10, epochs=3, lr=10.0).fit(X, Y, context)  # so large a step silences the one channel
    assert head.active_ == 0
    assert context.history[-1]["active"] == 0
    assert len(np.unique(head.predict_proba(X).argmax(1))) == 1


def test_a_class_never_seen_has_probability_0():
    known = Y < 4
    head = NN(10, epochs=2).fit(X[known], Y[known], Context())
    assert not head.predict_proba(X)[:, 4:].any()
    np.testing.assert_allclose(head.predict_proba(X).sum(1), 1, atol=1e-5)


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        NN(10, epochs=3, lr=1e30).fit(X, Y, Context())


@pytest.mark.parametrize("keep", ["last", "best"])
def test_goes_on_where_it_was_killed(keep):
    """In the second epoch; `test_training` has all places. What stops it early is kept too."""
    undisturbed = Recording()
    whole = NN(10, epochs=3, patience=1, keep=keep).fit(X, Y, undisturbed).predict_proba(X)
    resumed, context = killed_and_resumed(
        lambda c: NN(10, epochs=3, patience=1, keep=keep).fit(X, Y, c), 29, every=4
    )
    assert np.array_equal(resumed.predict_proba(X), whole)
    assert context.history == undisturbed.history


def test_what_it_cannot_use():
    with pytest.raises(ValueError, match="patience is 0"):
        NN(10, patience=0)
    with pytest.raises(ValueError, match="white is 0"):
        NN(10, white=0)
    with pytest.raises(ValueError, match="keep is 'first'"):
        NN(10, keep="first")
    with pytest.raises(ValueError, match=r"shape \(6, 6\); .* at least 7 pixels a side"):
        NN(10).fit(X[:, :6, :6], Y, Context())


def test_as_a_baseline_it_learns_digits():
    y = np.full(len(X), -1)
    y[:200] = Y[:200]
    method = SupervisedNN(epochs=40, batch_size=16, random_state=0).fit(X, y)
    assert (method.labels_[200:] == Y[200:]).mean() > 0.6


def test_float_images_are_pixels_between_0_and_1():
    uint8 = NN(10, epochs=1).fit(X, Y, Context())
    floats = NN(10, epochs=1).fit(X.astype(np.float32) / 255, Y, Context())
    assert np.array_equal(uint8.predict_proba(X), floats.predict_proba(X))


def test_one_instance():
    head = NN(10, epochs=2).fit(X[:1], Y[:1], Context())
    assert head.predict_proba(X[:3])[:, Y[0]].tolist() == [1, 1, 1]
