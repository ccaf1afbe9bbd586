"""The heads: logistic regression against scikit-learn, the networks, what all of them promise."""

from __future__ import annotations

import functools
import math
import operator

import numpy as np
import pytest
import torch
from contexts import Recording, killed_and_resumed
from sklearn import linear_model
from sklearn.datasets import load_digits
from sklearn.multiclass import OneVsRestClassifier
from torch import nn
from torch.nn import functional as F

from methods.method import Context
from methods.toolkit import training
from methods.toolkit.augment import shift_and_flip
from methods.toolkit.draws import generator
from methods.toolkit.heads import cnn, logistic, outputs
from methods.toolkit.heads.cnn import CNN, SmallCNN
from methods.toolkit.heads.logistic import LogisticRegression
from methods.toolkit.heads.mlp import MLP
from methods.toolkit.heads.table import HEADS
from methods.toolkit.training import one_cycle

_digits = load_digits()
X = (_digits.images * 15.9).astype(np.uint8)  # (1797, 8, 8)
Y = _digits.target.astype(np.int64)
TRAIN, TEST = slice(0, 400), slice(400, 800)
SHORT = {
    "lr": {"max_iter": 30},
    "mlp": {"epochs": 5, "batch_size": 50},
    "cnn": {"steps": 40, "width": 16},
}
# nn has a file of its own: on few small images it can die.
each_head = pytest.mark.parametrize("name", sorted(SHORT))


def fitted(name: str, images=X[TRAIN], y=Y[TRAIN], seed=0, context=None, **params):
    head = HEADS[name](10, seed, **SHORT[name] | params)
    return head.fit(images, y, context or Context())


def rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255


# Logistic regression


def reference(multi_class: str, C: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients, intercepts and test probabilities of scikit-learn, to high precision."""
    model = linear_model.LogisticRegression(C=C, solver="newton-cholesky", tol=1e-9, max_iter=200)
    if multi_class == "multinomial":
        model.fit(rows(X[TRAIN]), Y[TRAIN])
        return model.coef_, model.intercept_, model.predict_proba(rows(X[TEST]))
    many = OneVsRestClassifier(model).fit(rows(X[TRAIN]), Y[TRAIN])
    coefficients = np.vstack([e.coef_ for e in many.estimators_])
    intercepts = np.concatenate([e.intercept_ for e in many.estimators_])
    return coefficients, intercepts, many.predict_proba(rows(X[TEST]))


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("multi_class", ["ovr", "multinomial"])
def test_the_same_solution_as_scikit_learn(multi_class, C):
    head = LogisticRegression(10, multi_class=multi_class, C=C, tol=2e-6)
    head.fit(X[TRAIN], Y[TRAIN], Context())
    coefficients, intercepts, probabilities = reference(multi_class, C)
    np.testing.assert_allclose(head.coef_, coefficients, atol=5e-3)
    # Softmax is blind to what is added to all intercepts.
    shift = (head.intercept_ - intercepts).mean() if multi_class == "multinomial" else 0
    np.testing.assert_allclose(head.intercept_ - shift, intercepts, atol=5e-3)
    np.testing.assert_allclose(head.predict_proba(X[TEST]), probabilities, atol=1e-3)


@pytest.mark.parametrize("multi_class", ["ovr", "multinomial"])
def test_the_gradient_is_the_objective_s(multi_class):
    head = LogisticRegression(3, multi_class=multi_class, C=0.1)
    draws = np.random.default_rng(0)
    data = torch.from_numpy(draws.normal(size=(40, 4))).float()
    one_hot = F.one_hot(torch.arange(40) % 3, 3).float()

    def at(v: np.ndarray) -> tuple[float, np.ndarray]:
        both = torch.from_numpy(v.reshape(3, 5)).float()
        value, gradient = head._objective(data, data.mean(0), one_hot, both[:, :-1], both[:, -1])
        return value, gradient.numpy().ravel()

    start = draws.normal(size=15)
    slopes = [(at(start + h)[0] - at(start - h)[0]) / 0.02 for h in 0.01 * np.eye(15)]
    np.testing.assert_allclose(at(start)[1], slopes, atol=1e-4)


def test_two_classes_are_one_binary_problem():
    two = Y[TRAIN] < 2
    head = LogisticRegression(2, tol=2e-6).fit(X[TRAIN][two], Y[TRAIN][two], Context())
    theirs = linear_model.LogisticRegression(tol=1e-9, solver="newton-cholesky")
    theirs.fit(rows(X[TRAIN][two]), Y[TRAIN][two])
    np.testing.assert_allclose(head.coef_[1:], theirs.coef_, atol=5e-3)
    np.testing.assert_allclose(head.coef_[0], -head.coef_[1], atol=5e-3)
    np.testing.assert_allclose(
        head.predict_proba(X[TEST]), theirs.predict_proba(rows(X[TEST])), atol=1e-3
    )


def test_it_stops_at_the_gradient_or_at_max_iter():
    loose, tight = (fitted("lr", tol=tol, max_iter=500) for tol in (1e-2, 1e-4))
    assert loose.converged_
    assert tight.converged_
    assert loose.n_iter_ < tight.n_iter_ < 500
    context = Recording()
    stopped = fitted("lr", tol=1e-6, max_iter=3, context=context)
    assert not stopped.converged_
    assert stopped.n_iter_ == 3
    assert context.steps == [("iteration", i, 3) for i in (1, 2, 3)]
    assert context.history[0]["lr_gradient"] > 1e-6


def test_one_versus_rest_far_from_every_class():
    """All sigmoids underflow to 0 there; their normalised values are still probabilities."""
    head = fitted("lr")
    head.intercept_ = head.intercept_ - 500
    probabilities = head.predict_proba(X[TEST])
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert len(set(probabilities.argmax(1))) == 10


@pytest.mark.parametrize("multi_class", ["ovr", "multinomial"])
def test_blocks_of_rows_add_up(multi_class, monkeypatch):
    head = LogisticRegression(3, multi_class=multi_class)
    draws = np.random.default_rng(0)
    data, W, b = (torch.from_numpy(draws.normal(size=s)).float() for s in ((40, 4), (3, 4), 3))
    args = (data, data.mean(0), F.one_hot(torch.arange(40) % 3, 3).float(), W, b)
    value, gradient = head._objective(*args)
    monkeypatch.setattr(logistic, "BLOCK", 7)
    blocks_value, blocks_gradient = head._objective(*args)
    assert blocks_value == pytest.approx(value, rel=1e-6)
    torch.testing.assert_close(blocks_gradient, gradient)


def test_whitened_variables_make_the_bound_of_the_hessian_the_identity(monkeypatch):
    monkeypatch.setattr(logistic, "BLOCK", 150)
    data = torch.from_numpy(rows(X[TRAIN])).float()
    whitening = logistic.Whitening(data, data.mean(0), penalty=0.01)
    V = np.random.default_rng(0).normal(size=(3, 65))
    W, b = whitening.weights(V)
    hessian = np.cov(rows(X[TRAIN]).T, bias=True) / 4 + 0.01 * np.eye(64)
    W64 = W.double().numpy()
    np.testing.assert_allclose(W64 @ hessian @ W64.T, V[:, :-1] @ V[:, :-1].T, rtol=1e-4)
    np.testing.assert_allclose(b**2 / 4, V[:, -1] ** 2, rtol=1e-5)
    # The gradient by V is the transpose of the map to the weights.
    by_weights = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 65))).float()
    by_V = whitening.gradient(by_weights)
    change = (torch.cat([W, b.unsqueeze(1)], 1) * by_weights).sum()
    assert by_V @ V.ravel() == pytest.approx(float(change), rel=1e-4)


@pytest.mark.parametrize("multi_class", ["ovr", "multinomial"])
def test_too_many_features_to_whiten_have_the_same_solution(multi_class, monkeypatch):
    whitened = fitted("lr", tol=1e-5, max_iter=500, multi_class=multi_class)
    monkeypatch.setattr(logistic, "WHITEN_AT_MOST", 63)  # the digits have 64 pixels
    plain = fitted("lr", tol=1e-5, max_iter=500, multi_class=multi_class)
    assert whitened.converged_
    assert plain.converged_
    assert whitened.n_iter_ != plain.n_iter_
    theirs = plain.predict_proba(X[TEST])
    np.testing.assert_allclose(whitened.predict_proba(X[TEST]), theirs, atol=2e-3)


def test_hardly_any_penalty_and_pixels_that_never_change():
    head = fitted("lr", C=1e12, max_iter=50)  # without the ridge the Hessian would be singular
    assert (head.predict_proba(X[TEST]).argmax(1) == Y[TEST]).mean() > 0.7


def test_the_seed_does_not_matter_to_a_unique_solution():
    first, second = (fitted("lr", seed=seed).predict_proba(X[TEST]) for seed in (0, 1))
    assert np.array_equal(first, second)


# All heads


@each_head
def test_it_learns(name):
    longer = {"lr": {}, "mlp": {"epochs": 20}, "cnn": {"steps": 120}}[name]
    probabilities = fitted(name, X[:900], Y[:900], **longer).predict_proba(X[900:])
    assert (probabilities.argmax(1) == Y[900:]).mean() > 0.8


@each_head
def test_probabilities(name):
    probabilities = fitted(name).predict_proba(X[TEST])
    assert probabilities.shape == (400, 10)
    assert probabilities.dtype == np.float32
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


@each_head
@pytest.mark.parametrize("classes", [[2, 5, 7], [4]])
def test_a_class_it_has_not_seen_has_probability_0(name, classes):
    some = np.isin(Y[TRAIN], classes)
    probabilities = fitted(name, X[TRAIN][some], Y[TRAIN][some]).predict_proba(X[TEST])
    absent = np.setdiff1d(np.arange(10), classes)
    assert (probabilities[:, absent] == 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    seen = np.isin(Y[TEST], classes)
    assert (probabilities.argmax(1)[seen] == Y[TEST][seen]).mean() > 0.6


@each_head
def test_float_images_are_pixels_between_0_and_1(name):
    uint8 = fitted(name).predict_proba(X[TEST])
    floats = fitted(name, X[TRAIN].astype(np.float32) / 255).predict_proba(X[TEST])
    assert np.array_equal(uint8, floats)


@each_head
def test_colour_images(name):
    colour = np.stack([X, X[::-1], 255 - X], axis=3)
    probabilities = fitted(name, colour[TRAIN]).predict_proba(colour[TEST])
    assert (probabilities.argmax(1) == Y[TEST]).mean() > 0.4


@each_head
def test_one_instance(name):
    probabilities = fitted(name, X[:1], Y[:1]).predict_proba(X[:3])
    assert probabilities[:, Y[0]].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_seed_decides_whatever_torch_s_state(name):
    torch.manual_seed(1)
    first = fitted(name).predict_proba(X[TEST])
    torch.manual_seed(2)
    assert np.array_equal(first, fitted(name).predict_proba(X[TEST]))
    assert not np.array_equal(first, fitted(name, seed=1).predict_proba(X[TEST]))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_network_predicts_from_uint8_images_alone(name):
    with pytest.raises(ValueError, match="expected uint8 images"):
        fitted(name).predict_proba(X[TEST] / 255)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("lr", {"multi_class": "ovo"}),
        ("lr", {"C": 0}),
        ("lr", {"tol": 0}),
        ("lr", {"max_iter": 0}),
        ("mlp", {"epochs": -1}),
        ("mlp", {"batch_size": 0}),
        ("mlp", {"lr": 0}),
        ("cnn", {"steps": 0}),
        ("cnn", {"batch_size": 0}),
        ("cnn", {"lr": -1}),
        ("cnn", {"dropout": 1}),
        ("cnn", {"width": 0}),
    ],
)
def test_parameters_out_of_range(name, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        HEADS[name](10, 0, **wrong)


# The multilayer perceptron


def test_the_mlp_is_784_300_100_10():
    images = np.zeros((20, 28, 28), np.uint8)
    head = MLP(10, epochs=0).fit(images, np.arange(20) % 10, Context())
    weights = [p for n, p in head.network_.named_parameters() if n.endswith("weight")]
    assert [tuple(w.shape) for w in weights] == [(300, 784), (100, 300), (10, 100)]
    assert sum(p.numel() for p in head.network_.parameters()) == 266_610
    for weight in weights:  # as Keras starts them
        limit = math.sqrt(6 / sum(weight.shape))
        assert 0.99 * limit < weight.abs().max() <= limit


def test_the_mlp_steps_through_every_epoch():
    context = Recording()
    fitted("mlp", epochs=3, context=context)
    assert context.steps == [("step", i, 24) for i in range(1, 25)]  # 8 an epoch
    losses = [row["loss"] for row in context.history]
    assert losses[2] < losses[0]


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(FloatingPointError, match=r"the loss of mlp became .*; lower the learning"):
        fitted("mlp", lr=1e30)
    with pytest.raises(FloatingPointError, match=r"the loss of cnn became .*; lower the learning"):
        fitted("cnn", lr=1e30)


# The convolutional network


def test_pooling_before_relu_is_pooling_after_it():
    network = SmallCNN((14, 12), 10, width=4, dropout=0.5)
    for layer in network.features:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight)  # of either sign
    layers = list(network.features)
    for pool in range(2, len(layers) - 1, 4):
        assert isinstance(layers[pool], nn.MaxPool2d)
        assert isinstance(layers[pool + 1], nn.ReLU)
        layers[pool : pool + 2] = nn.ReLU(), layers[pool]
    images, outer = torch.rand(6, 1, 14, 12), torch.rand(6, 16)
    weights = list(network.features.parameters())
    ours, plain = network.features(images), nn.Sequential(*layers)(images)
    assert torch.equal(ours, plain)
    for mine, theirs in zip(
        torch.autograd.grad((ours * outer).sum(), weights),
        torch.autograd.grad((plain * outer).sum(), weights),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


def test_images_are_predicted_the_same_in_batches_of_any_size(monkeypatch):
    head = fitted("cnn")
    expected = head.predict_proba(X[TEST])
    monkeypatch.setattr(outputs, "PREDICT_BATCH", 7)
    np.testing.assert_allclose(head.predict_proba(X[TEST]), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_resumed_training_equals_an_undisturbed_one(name):
    """Killed in the middle; where else, see `test_training`."""
    undisturbed = Recording()
    expected = fitted(name, context=undisturbed)
    head, context = killed_and_resumed(lambda c: fitted(name, context=c), 39, every=3)
    assert context.steps[0] == ("step", 19, 40)  # killed in step 20, from the state of 18 steps
    assert context.history == undisturbed.history
    mine, theirs = head.network_.state_dict(), expected.network_.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)  # batch norm's too
    assert np.array_equal(head.predict_proba(X[TEST]), expected.predict_proba(X[TEST]))


def test_the_cnn_uses_every_image_once_an_epoch(monkeypatch):
    """Batches of 5 of 15 images; with fewer images than a batch, all of them in each step."""
    drawn = []

    class Noting(training.Batches):
        def __getitem__(self, number):
            drawn.append(super().__getitem__(number).tolist())
            return super().__getitem__(number)

    monkeypatch.setattr(cnn, "Batches", Noting)
    fitted("cnn", X[:15], Y[:15], steps=9, batch_size=5)
    epochs = [functools.reduce(operator.iadd, drawn[e : e + 3], []) for e in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(15)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    drawn.clear()
    fitted("cnn", X[:20], Y[:20], steps=2, batch_size=128)
    assert [sorted(rows) for rows in drawn] == [list(range(20))] * 2


@pytest.mark.parametrize("shape", [(8, 8), (9, 14, 2), (28, 28), (32, 32, 3)])
def test_images_of_many_sizes(shape):
    images = np.random.default_rng(0).integers(256, size=(12, *shape), dtype=np.uint8)
    head = CNN(10, 0, steps=2, width=4).fit(images, np.arange(12) % 10, Context())
    assert head.predict_proba(images).shape == (12, 10)


def test_images_that_are_too_small():
    with pytest.raises(ValueError, match=r"shape \(7, 9\); .* at least 8 pixels a side"):
        fitted("cnn", np.zeros((5, 7, 9), np.uint8), np.arange(5))


def test_dropout_is_drawn_while_training_alone():
    network = SmallCNN((8, 8), 10, width=4, dropout=0.5).eval()
    images = torch.rand(6, 1, 8, 8)
    assert torch.equal(network(images), network(images))
    u = torch.rand(2000, 6, network.output.in_features, generator=generator(0))
    dropped = network(images, u[0])
    assert not torch.equal(dropped, network(images))
    assert torch.equal(dropped, network(images, u[0]))
    mean = torch.stack([network(images, one) for one in u]).mean(0)
    torch.testing.assert_close(mean, network(images), atol=0.1, rtol=0)


@pytest.mark.parametrize(("shape", "reach"), [((1, 28, 28), 2), ((3, 8, 12), 1)])
def test_augmented_images_are_flipped_and_shifted_ones(shape, reach):
    image = torch.arange(1, math.prod(shape) + 1).reshape(shape)
    many = shift_and_flip(image.expand(600, *shape), generator(0))
    size = shape[1:]
    expected = {}
    for flip in (False, True):
        source = F.pad(image.flip(2) if flip else image, (reach,) * 4)
        for down in range(2 * reach + 1):
            for right in range(2 * reach + 1):
                seen = source[:, down : down + size[0], right : right + size[1]]
                expected[tuple(seen.flatten().tolist())] = (flip, down, right)
    counts = dict.fromkeys(expected.values(), 0)
    for one in many:
        counts[expected[tuple(one.flatten().tolist())]] += 1
    assert min(counts.values()) > 0
    flips = sum(count for (flip, *_), count in counts.items() if flip)
    assert 240 < flips < 360


def test_augment_keeps_the_type_and_the_draws():
    images = torch.from_numpy(X[:50]).unsqueeze(1)
    once, again, other = (shift_and_flip(images, generator(seed)) for seed in (0, 0, 1))
    assert once.dtype == torch.uint8
    assert once.shape == images.shape
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_one_cycle():
    rates = [one_cycle(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.004)
    assert rates[30] == max(rates) == pytest.approx(0.1)
    assert rates[15] == pytest.approx((0.004 + 0.1) / 2)
    assert all(np.diff(rates[:31]) > 0)
    assert all(np.diff(rates[30:]) < 0)
    assert 0 < rates[-1] < 1e-4
    assert one_cycle(0, 1, 0.1) == pytest.approx(0.004)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_bf16(name):
    context = Context(precision="bf16")
    half = fitted(name, context=context).predict_proba(X[TEST])
    full = fitted(name).predict_proba(X[TEST])
    assert half.dtype == np.float32
    assert not np.array_equal(half, full)
    assert (half.argmax(1) == full.argmax(1)).mean() > 0.8
