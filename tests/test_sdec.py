"""SDEC: the pairs' loss and its gradient by plain loops, the batches, the names, the training."""

from __future__ import annotations

import functools
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from contexts import Recording, killed_and_resumed
from fixed_fits import sample
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import methods.sdec
from methods.baselines import FeatureKMeans
from methods.dcec import DCEC
from methods.method import Context
from methods.registry import get
from methods.sdec import SDEC, PairedBatches, pairwise_loss
from methods.toolkit.naming import cluster_of_each_class
from methods.toolkit.training import Batches, Loop

SHORT = {
    "n_clusters": 3,
    "pretrain_epochs": 2,
    "max_iterations": 25,
    "update_interval": 10,
    "delta": 0.0,
    "batch_size": 16,
    "n_init": 2,
    "embedding_dim": 4,
    "random_state": 0,
}


def stripes(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of noisy images: bright above, bright on the left, bright all over."""
    y = np.arange(n) % 3
    X = np.random.default_rng(seed).integers(0, 100, (n, 8, 8))
    X[y == 0, :4] += 150
    X[y == 1, :, :4] += 150
    X[y == 2] += 120
    return X.astype(np.uint8), y


def reveal(y: np.ndarray, n: int) -> np.ndarray:
    """The first n labels; the others are -1."""
    return np.where(np.arange(len(y)) < n, y, -1)


def fitted(n_labels: int = 12, context: Context | None = None, **params: Any) -> SDEC:
    X, y = stripes()
    return SDEC(**(SHORT | params)).fit(X, reveal(y, n_labels), context)


def outcome(method: SDEC | DCEC) -> list[np.ndarray]:
    """Everything that a fit leaves, as arrays."""
    weights = [value.numpy() for value in method.network_.state_dict().values()]
    return [method.labels_, method.probabilities_, method.cluster_centers_, *weights]


def equal(a: SDEC | DCEC, b: SDEC | DCEC) -> bool:
    return all(np.array_equal(*pair) for pair in zip(outcome(a), outcome(b), strict=True))


# The loss of the pairs


Y = np.array([0, 1, 0, -1, 1, 2, -1])
Z = np.random.default_rng(0).normal(size=(7, 3))


def a(i: int, j: int) -> int:
    """The pairs of the paper: 1 must-link, -1 cannot-link, 0 not known."""
    if Y[i] < 0 or Y[j] < 0:
        return 0
    return 1 if Y[i] == Y[j] else -1


def test_pairwise_loss_is_the_sum_over_all_pairs():
    expected = sum(
        a(i, j) * ((Z[i] - Z[j]) ** 2).sum() for i, j in itertools.product(range(7), repeat=2)
    )
    found = pairwise_loss(torch.from_numpy(Z), torch.from_numpy(Y), 9)
    assert found.item() == pytest.approx(expected / 9)
    assert expected < 0  # there are more pairs of two classes than of one


def test_pairwise_loss_has_a_gradient():
    """Of z_i it is 4/n · sum over j of a_ij·(z_i - z_j), since a pair counts twice."""
    z = torch.from_numpy(Z).requires_grad_()
    pairwise_loss(z, torch.from_numpy(Y), 7).backward()
    expected = [sum(a(i, j) * (Z[i] - Z[j]) for j in range(7)) * 4 / 7 for i in range(7)]
    np.testing.assert_allclose(z.grad.numpy(), expected)
    assert (z.grad[[0, 1, 2, 4, 5]].abs().sum(1) > 0).all()
    assert (z.grad[[3, 6]] == 0).all()  # without label


def test_must_link_attracts_and_cannot_link_repels():
    z = torch.tensor([[0.0], [3.0]])
    assert pairwise_loss(z, torch.tensor([1, 1]), 2) == 9
    assert pairwise_loss(z, torch.tensor([1, 0]), 2) == -9
    assert pairwise_loss(z, torch.tensor([1, -1]), 2) == 0
    assert pairwise_loss(z[:0], torch.tensor([], dtype=torch.int64), 2) == 0


# The batches


def test_labelled_images_follow_each_batch():
    labelled = np.array([2, 3, 5, 7, 11, 13])
    plain, paired = Batches(20, 8, None, "cpu"), PairedBatches(20, 8, labelled, 4, 0, "cpu")
    assert len(paired) == len(plain) == 3
    draws = []
    for number in range(60):
        rows, last = paired[number].tolist(), plain[number].tolist()
        assert rows[:-4] == last
        assert len(set(rows[-4:])) == 4
        draws.append(rows[-4:])
    often = np.bincount(np.ravel(draws), minlength=20)
    assert set(np.flatnonzero(often)) == set(labelled)
    assert often[labelled].min() > 25  # of 40 expected
    again = PairedBatches(20, 8, labelled, 4, 0, "cpu")
    assert again[59].tolist()[-4:] == draws[59]  # whatever was drawn before
    other = PairedBatches(20, 8, labelled, 4, 1, "cpu")
    assert [other[number].tolist()[-4:] for number in range(60)] != draws


def test_without_labelled_images_they_are_the_plain_batches():
    none = PairedBatches(20, 8, np.array([], dtype=np.int64), 0, 0, "cpu")
    plain = Batches(20, 8, None, "cpu")
    assert [none[i].tolist() for i in range(7)] == [plain[i].tolist() for i in range(7)]


# The names


def test_clusters_are_named_such_that_most_labelled_instances_agree():
    rng = np.random.default_rng(0)
    for _ in range(20):
        y, clusters = rng.integers(-1, 4, 30), rng.integers(0, 4, 30)
        own = cluster_of_each_class(y, clusters, 4)
        assert sorted(own) == [0, 1, 2, 3]
        agreement = [
            sum(clusters[i] == order[y[i]] for i in range(30) if y[i] >= 0)
            for order in itertools.permutations(range(4))
        ]
        found = sum(clusters[i] == own[y[i]] for i in range(30) if y[i] >= 0)
        assert found == max(agreement) > min(agreement)


def test_a_class_without_labels_takes_a_cluster_that_is_left():
    y, clusters = np.array([0, 0, 1, -1, -1]), np.array([3, 3, 0, 1, 2])
    own = cluster_of_each_class(y, clusters, 4)
    assert own[:2].tolist() == [3, 0]
    assert sorted(own[2:]) == [1, 2]
    assert cluster_of_each_class(np.full(5, -1), clusters, 4).tolist() == [0, 1, 2, 3]


def test_cluster_j_is_class_j():
    X, y = stripes(90)
    params = SHORT | {"pretrain_epochs": 15, "max_iterations": 60}
    context = Recording()
    plain = SDEC(**params).fit(X, reveal(y, 12), context)
    assert np.mean(plain.labels_ == y) > 0.9
    for order in ([0, 2, 1], [2, 0, 1]):
        other = SDEC(**params).fit(X, np.take([*order, -1], reveal(y, 12)), context)
        assert np.array_equal(other.labels_, np.take(order, plain.labels_))
        assert np.array_equal(other.probabilities_[:, order], plain.probabilities_)
        assert np.array_equal(other.predict(X), other.labels_)


# The loss of a step


@pytest.fixture
def joint(monkeypatch):
    """``joint(lam=2.0)``: losses and parts of the joint phase before its first step."""
    seen = {}

    class Noting(Loop):
        def __init__(self, name, losses, optimiser, batches, context, parts, **more):
            seen[name] = losses, batches, parts
            super().__init__(name, losses, optimiser, batches, context, parts, **more)

    def make(**params):
        monkeypatch.setattr(methods.sdec, "Loop", Noting)
        fitted(max_iterations=0, **params)
        return seen["joint"]

    return make


@pytest.mark.parametrize("lam", [1e-5, 0.5])
def test_a_step_descends_dec_s_loss_and_that_of_the_pairs(joint, lam):
    """KL of the 16 images of the batch, pairs of the 5 labelled images after them, 21 in all."""
    X, y = stripes()
    losses, batches, parts = joint(lam=lam, pair_batch_size=5)
    rows = batches[1]
    assert len(rows) == 21
    assert (rows[16:] < 12).all()
    with torch.no_grad():
        z = parts["network"].encoder(torch.from_numpy(X[rows, None] / 255).float()).numpy()
    mu, p = parts["mu"].detach().numpy(), parts["p"].numpy()[rows]
    KL = 0.0
    for i in range(16):
        q = np.array([1 / (1 + ((z[i] - mu[j]) ** 2).sum()) for j in range(3)])
        KL += sum(p[i, j] * np.log(p[i, j] / (q[j] / q.sum())) for j in range(3)) / 16
    pairs = 0.0
    for i, j in itertools.product(range(16, 21), repeat=2):
        sign = 1 if y[rows[i]] == y[rows[j]] else -1
        pairs += sign * ((z[i] - z[j]) ** 2).sum() / 21
    loss, L_c, L_s = losses(rows, 0)
    assert L_c.item() == pytest.approx(KL, rel=1e-4)
    assert L_s.item() == pytest.approx(pairs, rel=1e-4)
    assert loss.item() == pytest.approx(KL + lam * pairs, rel=1e-4)


def test_both_losses_reach_the_encoder_and_none_the_decoder(joint):
    losses, batches, parts = joint()
    network, mu = parts["network"], parts["mu"]
    encoder, decoder = [*network.encoder.parameters()], [*network.decoder.parameters()]
    _, L_c, L_s = losses(batches[0], 0)
    for loss, reached, not_reached in ((L_c, [*encoder, mu], decoder), (L_s, encoder, [mu])):
        gradients = torch.autograd.grad(loss, reached, retain_graph=True)
        # nobody's distance depends on the last bias
        moved = [bool(gradient.abs().sum() > 1e-6) for gradient in gradients]
        assert moved == [True] * (len(encoder) - 1) + [loss is L_c] * (
            len(moved) - len(encoder) + 1
        )
        nothing = torch.autograd.grad(loss, not_reached, retain_graph=True, allow_unused=True)
        assert nothing == (None,) * len(not_reached)


def test_training_moves_encoder_and_centres_alone():
    untrained, trained = fitted(max_iterations=0), fitted()
    before, after = untrained.network_.state_dict(), trained.network_.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"encoder"}
    assert not np.array_equal(untrained.cluster_centers_, trained.cluster_centers_)


def test_it_starts_from_cae_kmeans():
    X, _ = stripes()
    same = {"n_clusters": 3, "n_init": 2, "embedding_dim": 4, "random_state": 0}
    start = FeatureKMeans(features="autoencoder", autoencoder_epochs=2, **same).fit(X)
    method = fitted(n_labels=0, max_iterations=0, batch_size=256)
    assert np.array_equal(method.cluster_centers_, start.cluster_centers_)
    assert np.array_equal(method.labels_, start.labels_)


def test_pairs_move_the_embedding():
    """Twelve images that are said to be of one class come nearer each other, three classes part."""
    X, _ = stripes()

    def size(y: np.ndarray, lam: float) -> float:
        """The mean distance of labelled images."""
        z = SDEC(**(SHORT | {"lam": lam})).fit(X, y).transform(X[:12])
        return float(np.linalg.norm(z[:, None] - z, axis=2).mean())

    one, three = (np.where(np.arange(60) < 12, np.arange(60) % k, -1) for k in (1, 3))
    without = size(one, 0.0)
    assert size(one, 0.02) < 0.7 * without
    assert size(three, 0.02) > 1.5 * without


# Without labels, and without pairs


def test_without_labels_it_is_dcec_without_reconstruction():
    X, _ = stripes()
    dec = DCEC(**SHORT, reconstruction=False).fit(X)
    assert dec.n_iter_ == 25
    assert equal(fitted(n_labels=0), dec)
    assert equal(SDEC(**SHORT).fit(X), dec)
    assert not equal(fitted(n_labels=12), dec)


def test_images_of_the_pairs_do_not_count_in_dec_s_loss():
    X, y = stripes()
    dec = DCEC(**SHORT, reconstruction=False).fit(X)
    method = fitted(lam=0.0)
    own = cluster_of_each_class(reveal(y, 12), dec.labels_, 3)
    np.testing.assert_allclose(method.cluster_centers_, dec.cluster_centers_[own], atol=1e-4)
    np.testing.assert_allclose(method.probabilities_, dec.probabilities_[:, own], atol=1e-4)


@pytest.mark.parametrize("n_labels", [1, 2, 60])
def test_few_and_all_labels(n_labels):
    method = fitted(n_labels=n_labels)
    assert method.labels_[0] == 0 or n_labels > 2
    assert np.isfinite(method.probabilities_).all()


# The loop


def test_history_tells_every_refresh():
    context = Recording()
    method = fitted(context=context)
    rows = [row for row in context.history if "iteration" in row]
    assert [row["iteration"] for row in rows] == [0, 10, 20, 25]
    assert rows[0]["clustering_loss"] is rows[0]["pairwise_loss"] is rows[0]["changed"] is None
    assert all(row["clustering_loss"] > 0 > row["pairwise_loss"] for row in rows[1:])
    assert all(row["changed"] is not None for row in rows[1:])
    assert rows[-1]["clusters_in_use"] == len(set(method.labels_))


def test_stops_at_the_second_refresh_at_the_earliest():
    method = fitted(delta=1.5)  # every change is smaller than that, the first refresh has none
    assert (method.n_iter_, method.stopped_) == (10, "converged")
    method = fitted(delta=0.0, lr=1e-30)  # nothing moves, nothing changes: 0 is not below 0
    assert (method.n_iter_, method.stopped_) == (25, "max_iterations")


@functools.cache
def undisturbed_fit() -> tuple[SDEC, Recording]:
    """A fit that nothing kills, and its context."""
    context = Recording()
    return fitted(context=context), context


@pytest.mark.parametrize("lives", [2, 17, 37, 52, 66])
def test_resumed_fit_equals_an_undisturbed_one(lives):
    """Killed in the 16 events of the pretraining, and in the 50 of the joint phase."""
    expected, undisturbed = undisturbed_fit()
    assert undisturbed.events == 66
    resumed, context = killed_and_resumed(lambda c: fitted(context=c), lives, every=3)
    assert equal(resumed, expected)
    assert (resumed.n_iter_, resumed.stopped_) == (expected.n_iter_, expected.stopped_)
    assert context.history == undisturbed.history


def test_divergence_is_an_error_with_advice():
    with pytest.raises(FloatingPointError, match=r"SDEC's soft assignments became .*lower the lea"):
        fitted(lr=1e30, pretrain_epochs=0)


def test_a_loss_that_is_not_finite_does_not_pass_a_refresh(monkeypatch):
    monkeypatch.setattr(methods.sdec, "pairwise_loss", lambda z, y, n: torch.tensor(math.nan))
    monkeypatch.setattr(methods.sdec, "check_finite", lambda values, what: None)
    with pytest.raises(FloatingPointError, match=r"the loss of joint became .* before step 10"):
        fitted()


# The method


def test_fit_gives_what_the_contract_asks_for():
    X, y, _ = sample()
    params = get("sdec").parameters("smoke", random_state=0)
    method = SDEC(**params).fit(X, y)
    assert method.labels_.shape == (300,)
    assert method.labels_.dtype == np.int64
    assert np.array_equal(method.predict(X), method.labels_)
    np.testing.assert_allclose(method.predict_proba(X), method.probabilities_, atol=1e-6)
    np.testing.assert_allclose(method.probabilities_.sum(1), 1, rtol=1e-5)
    assert method.transform(X[:7]).shape == (7, 10)
    assert method.cluster_centers_.shape == (10, 10)
    assert method.predict(255 - X[:9]).shape == (9,)


def test_labels_are_the_model_s_own_assignment():
    """Labels that contradict the images are not handed back."""
    X, _ = stripes()
    wrong = np.where(np.arange(60) < 30, np.random.default_rng(0).permutation(60) % 3, -1)
    method = SDEC(**SHORT).fit(X, wrong)
    assert (method.labels_[:30] != wrong[:30]).any()
    assert np.array_equal(method.labels_, method.predict(X))


def test_same_seed_same_labels_other_seed_not():
    assert equal(fitted(), fitted())
    assert not equal(fitted(), fitted(random_state=1))


@pytest.mark.parametrize("n_labels", [0, 12])
def test_it_asks_for_the_autoencoder_of_dcec(n_labels):
    context = Recording()
    method = fitted(n_labels, context)
    assert context.asked == [(request, 0) for request in method.stages(n_labels)]
    assert method.stages(n_labels) == DCEC(**SHORT).stages(n_labels)
    for schedule in ("paper", "quick", "smoke"):
        ours, theirs = get("sdec").build(schedule), get("dcec").build(schedule)
        assert ours.stages(5) == theirs.stages(5)


def test_registered_name_tags_and_defaults():
    entry = get("sdec")
    assert entry.cls is SDEC
    assert entry.tags.uses_labels
    assert entry.tags.in_all
    assert entry.tags.without_labels is None
    assert (entry.tags.family, entry.tags.columns) == ("dcec", "clusters")
    assert not entry.tags.needs_every_class
    paper = {"lam": 1e-5, "update_interval": 140, "delta": 0.001, "max_iterations": 20_000}
    assert (paper | {"batch_size": 256}).items() <= SDEC().get_params().items()


def test_each_image_is_in_two_pairs_on_average():
    """As the docstring says of the defaults."""
    m, b = SDEC().pair_batch_size, SDEC().batch_size
    assert m * (m - 1) / (m + b) == pytest.approx(2, abs=0.05)


def test_is_a_scikit_learn_estimator():
    X, y = stripes()
    method = clone(SDEC(**SHORT))
    with pytest.raises(NotFittedError):
        method.predict(X)
    labels = method.fit_predict(X, reveal(y, 12))
    assert np.array_equal(labels, fitted().labels_)
    assert np.array_equal(pickle.loads(pickle.dumps(method)).predict(X), labels)


def test_images_and_labels_are_checked():
    X, y = stripes()
    with pytest.raises(ValueError, match="expected uint8 images"):
        SDEC(**SHORT).fit(X / 255, y)
    with pytest.raises(ValueError, match="expected 60 integers"):
        SDEC(**SHORT).fit(X, y[:10])
    with pytest.raises(ValueError, match="set n_clusters to at least"):
        SDEC(**SHORT).fit(X, y + 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_clusters": 0},
        {"update_interval": 0},
        {"max_iterations": -1},
        {"lam": -1.0},
        {"delta": math.nan},
        {"n_init": 0},
        {"pair_batch_size": 1},
        {"batch_size": 0},
        {"lr": -1.0},
        {"pretrain_epochs": -1},
    ],
)
def test_parameters_out_of_range(wrong):
    name = next(iter(wrong)).removeprefix("pretrain_")
    with pytest.raises(ValueError, match=rf"^{name} is .*; expected"):
        fitted(**wrong)
