"""DCEC and SS-DCEC: each equation against numbers worked out by hand, and the training loop."""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from contexts import Recording, killed_and_resumed
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics.cluster import contingency_matrix
from torch.nn.functional import mse_loss

import methods.dcec
from methods.dcec import (
    DCEC,
    SSDCEC,
    class_means,
    clustering_loss,
    inject_labels,
    student_t,
    target_distribution,
)
from methods.method import Context
from methods.registry import get
from methods.toolkit.assignments import compared
from methods.toolkit.nets.cae import CAE
from methods.toolkit.training import Loop

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


def stripes(n: int = 60, shape: tuple[int, ...] = (8, 8), seed: int = 0):
    """Three classes of noisy images: bright above, bright on the left, bright all over."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    X = rng.integers(0, 100, (n, *shape))
    X[y == 0, : shape[0] // 2] += 150
    X[y == 1, :, : shape[1] // 2] += 150
    X[y == 2] += 120
    return X.astype(np.uint8), y


def reveal(y: np.ndarray, n: int) -> np.ndarray:
    """The first n labels; the others are -1."""
    return np.where(np.arange(len(y)) < n, y, -1)


def fitted(cls: type = SSDCEC, n_labels: int = 12, context: Context | None = None, **params):
    X, y = stripes()
    return cls(**(SHORT | params)).fit(X, reveal(y, n_labels), context)


def outcome(method: DCEC) -> list[np.ndarray]:
    """Everything that a fit leaves, as arrays."""
    weights = [value.numpy() for value in method.network_.state_dict().values()]
    return [method.labels_, method.probabilities_, method.cluster_centers_, *weights]


def equal(a: DCEC, b: DCEC) -> bool:
    return all(np.array_equal(*pair) for pair in zip(outcome(a), outcome(b), strict=True))


# The equations


def test_equation_1_student_t():
    """Distances 0, 1, 2 give 1, 1/2, 1/5, which add up to 17/10."""
    mu = torch.tensor([[3.0, 1.0], [4.0, 1.0], [3.0, 3.0]])
    q = student_t(torch.tensor([[3.0, 1.0]]), mu)
    np.testing.assert_allclose(q.numpy(), [[10 / 17, 5 / 17, 2 / 17]], rtol=1e-6)


def test_equation_1_far_away():
    q = student_t(torch.tensor([[1e15, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1e15, 0.0]]))
    np.testing.assert_allclose(q.numpy(), [[0, 1], [1, 0]], atol=1e-12)
    between = student_t(torch.tensor([[1e15, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(between.numpy(), [[0.5, 0.5]])


def test_equation_2_target_distribution():
    """Frequencies 5/4 and 3/4: rows 1/5 : 1/3 and 9/20 : 1/12."""
    q = torch.tensor([[0.5, 0.5], [0.75, 0.25]])
    expected = [[3 / 8, 5 / 8], [27 / 32, 5 / 32]]
    np.testing.assert_allclose(target_distribution(q).numpy(), expected, rtol=1e-6)


def test_equation_2_needs_the_whole_data_set():
    q = torch.tensor([[0.5, 0.5], [0.75, 0.25]])
    assert target_distribution(q[:1])[0].tolist() == [0.5, 0.5]  # what a batch alone would say


def test_equation_2_a_dead_cluster_stays_finite():
    p = target_distribution(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert p.tolist() == [[1, 0], [1, 0]]


def test_equation_3_sums_over_clusters_and_averages_over_rows():
    """Rows: log 2, and 1/2 log 2 + 1/2 log 2/3 = 1/2 log 4/3."""
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    q = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    expected = (0.69314718 + 0.14384104) / 2
    assert clustering_loss(p, q).item() == pytest.approx(expected, rel=1e-6)
    assert clustering_loss(p, p).item() == 0


def test_equation_3_q_of_exactly_0_and_1():
    q = torch.tensor([[0.0, 1.0]], requires_grad=True)
    loss = clustering_loss(torch.tensor([[1.0, 0.0]]), q)
    assert loss.item() == pytest.approx(7 * math.log(10), rel=1e-6)
    loss.backward()
    assert q.grad.isfinite().all()


def test_equation_5_one_hot_rows_for_labelled_instances():
    p = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    injected = inject_labels(p, torch.tensor([1, -1, 0]))
    assert injected.tolist() == [[0, 1, 0], p[1].tolist(), [1, 0, 0]]
    assert p[0].tolist() == pytest.approx([0.2, 0.3, 0.5])  # the argument is left alone
    assert torch.equal(inject_labels(p, torch.full((3,), -1)), p)


def test_equation_6_means_of_the_labelled():
    z = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 5.0], [100.0, 100.0]])
    means = class_means(z, torch.tensor([1, 1, 0, -1]), 2)
    assert means.tolist() == [[5, 5], [2, 2]]
    assert means.dtype == torch.float32


def test_equation_6_needs_every_class():
    with pytest.raises(ValueError, match=r"no labelled instance of class 0, 3; .* at least one"):
        class_means(torch.zeros(3, 2), torch.tensor([1, 2, -1]), 4)


# The loss of a step, and its gradient


class Joint(NamedTuple):
    """The joint phase before its first step: what it descends, from which tensors."""

    losses: Callable[[torch.Tensor, int], tuple[torch.Tensor, ...]]
    network: CAE
    mu: torch.Tensor
    p: torch.Tensor
    x: torch.Tensor

    def by_hand(self, rows: torch.Tensor) -> tuple[float, float]:
        """Mean squared error, and divergence, in float64."""
        with torch.no_grad():
            z = self.network.encoder(self.x[rows])
            x_hat = self.network.decoder(z)
        L_r = (x_hat.double() - self.x[rows]).square().sum().item() / self.x[rows].numel()
        closeness = 1 / (1 + np.square(z.numpy()[:, None] - self.mu.detach().numpy()).sum(2))
        q, p = closeness / closeness.sum(1, keepdims=True), self.p[rows].numpy()
        divergence = np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0)
        return L_r, float(divergence.sum(1).mean())


@pytest.fixture
def joint(monkeypatch) -> Callable[..., Joint]:
    """``joint(lam=2.0)``: the joint phase of SS-DCEC with these parameters."""
    seen = {}

    class Noting(Loop):
        def __init__(self, name, losses, optimiser, batches, context, parts, **more):
            seen[name] = losses, parts
            super().__init__(name, losses, optimiser, batches, context, parts, **more)

    def make(**params) -> Joint:
        monkeypatch.setattr(methods.dcec, "Loop", Noting)
        fitted(max_iterations=0, **params)
        losses, parts = seen["joint"]
        x = torch.from_numpy(stripes()[0][:, None] / 255).float()
        return Joint(losses, parts["network"], parts["mu"], parts["p"], x)

    return make


ROWS = torch.tensor([0, 1, 2, 20, 30, 59])  # labelled ones and others


@pytest.mark.parametrize("lam", [0.1, 1.0])
def test_equation_4_weighs_the_clustering_loss(joint, lam):
    found = joint(lam=lam)
    loss, L_r, L_c = found.losses(ROWS, 0)
    assert (L_r.item(), L_c.item()) == pytest.approx(found.by_hand(ROWS), rel=1e-4)
    assert loss.item() == pytest.approx(L_r.item() + lam * L_c.item(), rel=1e-6)


def test_without_reconstruction_the_clustering_loss_is_all(joint):
    found = joint(lam=0.5, reconstruction=False)
    loss, L_r, L_c = found.losses(ROWS, 0)
    assert L_c.item() == pytest.approx(found.by_hand(ROWS)[1], rel=1e-4)
    assert (loss.item(), L_r.item()) == (pytest.approx(0.5 * L_c.item()), 0)


@pytest.mark.parametrize("reconstruction", [True, False])
def test_gradient_reaches_encoder_centres_and_decoder_only_with_reconstruction(
    joint, reconstruction
):
    found = joint(lam=2.0, reconstruction=reconstruction)
    found.losses(ROWS, 0)[0].backward()
    assert found.mu.grad.abs().min() > 0
    assert all(weight.grad.abs().sum() > 0 for weight in found.network.encoder.parameters())
    decoder = [weight.grad for weight in found.network.decoder.parameters()]
    if reconstruction:
        assert all(gradient.abs().sum() > 0 for gradient in decoder)
    else:
        assert decoder == [None] * len(decoder)


def test_each_loss_trains_the_encoder_by_itself(joint):
    found = joint()
    network, mu = found.network, found.mu
    encoder, decoder = ([*part.parameters()] for part in (network.encoder, network.decoder))
    for loss, reached, not_reached in zip(
        found.losses(ROWS, 0)[1:],
        ([*encoder, *decoder], [*encoder, mu]),
        ([mu], decoder),
        strict=True,
    ):
        gradients = torch.autograd.grad(loss, reached, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)
        nothing = torch.autograd.grad(loss, not_reached, retain_graph=True, allow_unused=True)
        assert nothing == (None,) * len(not_reached)


@pytest.mark.parametrize("reconstruction", [True, False])
def test_training_moves_the_decoder_only_with_reconstruction(reconstruction):
    untrained = fitted(max_iterations=0, reconstruction=reconstruction)
    trained = fitted(reconstruction=reconstruction)
    assert not np.array_equal(untrained.cluster_centers_, trained.cluster_centers_)
    before, after = untrained.network_.state_dict(), trained.network_.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == ({"encoder", "decoder"} if reconstruction else {"encoder"})


# The loop


def test_targets_are_computed_from_all_images_at_every_refresh(monkeypatch):
    rows = []

    def recording(q: torch.Tensor) -> torch.Tensor:
        rows.append(len(q))
        return target_distribution(q)

    monkeypatch.setattr(methods.dcec, "target_distribution", recording)
    fitted()
    assert rows == [60, 60, 60, 60]  # at iterations 0, 10 and 20, and where it ends


def test_labelled_instances_are_trained_towards_their_class(monkeypatch):
    """Every batch gets the one-hot rows of (5), of the images that are in it."""
    X, y = stripes()
    inputs, targets = [], []

    def divergence(p, q):
        targets.append(p)
        return clustering_loss(p, q)

    def error(x_hat, x):
        inputs.append(x)
        return mse_loss(x_hat, x)

    monkeypatch.setattr(methods.dcec, "clustering_loss", divergence)
    method = SSDCEC(**(SHORT | {"max_iterations": 4, "pretrain_epochs": 0}))
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "mse_loss", error)
        method.fit(X, reveal(y, 12))
    assert [len(p) for p in targets] == [16, 16, 16, 12]  # one pass, its last batch the rest
    x, p = torch.cat(inputs), torch.cat(targets)
    np.testing.assert_allclose(x[:, 0].numpy(), X / 255, rtol=1e-6)  # in the images' order
    assert p[:12].tolist() == np.eye(3)[y[:12]].tolist()
    assert ((p[12:] > 0) & (p[12:] < 1)).all()
    np.testing.assert_allclose(p.sum(1).numpy(), 1, rtol=1e-5)


def test_history_tells_every_refresh():
    context = Recording()
    method = fitted(context=context)
    rows = [row for row in context.history if "iteration" in row]
    assert [row["iteration"] for row in rows] == [0, 10, 20, 25]
    assert rows[0]["clustering_loss"] is rows[0]["changed"] is None
    assert all(row["reconstruction_loss"] > 0 and row["clustering_loss"] > 0 for row in rows[1:])
    last = rows[-1]
    assert last["clusters_in_use"] == len(set(method.labels_))
    assert last["labelled_agreement"] == np.mean(method.labels_[:12] == np.arange(12) % 3)
    pretraining = [("step", done, 8) for done in range(1, 9)]
    assert context.steps == pretraining + [("step", done, 25) for done in range(1, 26)]


def test_history_without_reconstruction_or_labels():
    context = Recording()
    fitted(DCEC, context=context, reconstruction=False)
    rows = [row for row in context.history if "iteration" in row]
    assert all(row["reconstruction_loss"] is row["labelled_agreement"] is None for row in rows)


def test_history_has_the_mean_losses_over_images_since_the_last_refresh(joint):
    """One pass of the batches 16, 16, 16 and 12 with weights that do not move."""
    context = Recording()
    fitted(context=context, max_iterations=4, update_interval=4, lr=1e-30)
    found = joint(lr=1e-30)
    L_r, L_c = found.by_hand(torch.arange(60))
    [_, row] = [row for row in context.history if "iteration" in row]
    assert row["reconstruction_loss"] == pytest.approx(L_r, rel=1e-4)
    assert row["clustering_loss"] == pytest.approx(L_c, rel=1e-4)


def test_assignments_are_compared_with_those_of_the_refresh_before(monkeypatch):
    """By hand: `test_training`."""
    seen = []

    def recording(q, before, y):
        seen.append((q.argmax(1), before.clone(), y))
        return compared(q, before, y)

    monkeypatch.setattr(methods.dcec, "compared", recording)
    fitted(lr=1e-2)
    assigned, previous, labels = zip(*seen, strict=True)
    assert not torch.equal(assigned[0], assigned[-2])  # else any earlier refresh would do
    assert (previous[0] == -1).all()
    assert all(torch.equal(*pair) for pair in zip(assigned[:-1], previous[1:], strict=True))
    assert labels[0].tolist() == reveal(stripes()[1], 12).tolist()


def test_shuffle_runs_through_the_images_in_another_order():
    unshuffled = fitted(max_iterations=1, delta=0)
    assert not equal(fitted(max_iterations=1, delta=0, shuffle=True), unshuffled)


def test_stops_at_the_second_refresh_at_the_earliest():
    method = fitted(delta=1.5)  # every change is smaller than that, the first refresh has none
    assert (method.n_iter_, method.stopped_) == (10, "converged")


def test_stops_at_the_first_refresh_with_few_changes():
    context = Recording()
    params = {"max_iterations": 40, "update_interval": 4}
    fitted(context=context, **params)
    changed = {
        row["iteration"]: row["changed"]
        for row in context.history
        if row.get("changed") is not None
    }
    delta = sorted(changed.values())[len(changed) // 2] + 1e-9
    first = next(iteration for iteration, share in changed.items() if share < delta)
    method = fitted(delta=delta, **params)
    assert (method.n_iter_, method.stopped_) == (first, "converged")


def test_a_share_of_exactly_delta_goes_on():
    method = fitted(delta=0.0, lr=1e-30)  # nothing moves, nothing changes: 0 is not below 0
    assert (method.n_iter_, method.stopped_) == (25, "max_iterations")


def test_no_step_after_max_iterations():
    method = fitted(max_iterations=0, pretrain_epochs=1)
    assert (method.n_iter_, method.stopped_) == (0, "max_iterations")
    z = method.transform(stripes()[0])
    np.testing.assert_allclose(method.cluster_centers_[0], z[:12:3].mean(0), rtol=1e-5)


@functools.cache
def undisturbed_fit(cls, shuffle):
    """A fit that nothing kills, and its context."""
    context = Recording()
    return fitted(cls, context=context, shuffle=shuffle), context


@pytest.mark.parametrize("lives", [2, 15, 17, 36, 37, 38, 52, 66])
@pytest.mark.parametrize(("cls", "shuffle"), [(DCEC, False), (SSDCEC, True)])
def test_resumed_fit_equals_an_undisturbed_one(cls, shuffle, lives):
    """Killed in the 16 events of the pretraining, and in the 50 of the joint phase.

    At event 36, the tenth step is done; at 37, the state before the second refresh is kept; at 66,
    all is done but the last refresh. Other places: `test_training`.
    """
    expected, undisturbed = undisturbed_fit(cls, shuffle)
    assert undisturbed.events == 66
    resumed, context = killed_and_resumed(
        lambda c: fitted(cls, context=c, shuffle=shuffle), lives, every=3
    )
    assert equal(resumed, expected)
    assert (resumed.n_iter_, resumed.stopped_) == (expected.n_iter_, expected.stopped_)
    assert context.history == undisturbed.history
    assert context.computed == (["autoencoder"] if lives <= 16 else [])


def test_divergence_is_an_error_with_advice():
    with pytest.raises(FloatingPointError, match=r"DCEC's soft assignments became .*lower the lea"):
        fitted(lr=1e30, pretrain_epochs=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_does_not_pass_a_refresh(monkeypatch, value):
    """Nor does an assignment (above): here all weights stay finite."""
    monkeypatch.setattr(methods.dcec, "clustering_loss", lambda p, q: torch.tensor(value))
    with pytest.raises(
        FloatingPointError, match=r"the loss of joint became .* before step 10; low"
    ):
        fitted()


# The methods


def test_fit_gives_what_the_contract_asks_for():
    X, _ = stripes()
    method = fitted()
    assert method.labels_.shape == (60,)
    assert method.labels_.dtype == np.int64
    assert np.array_equal(method.predict(X), method.labels_)
    assert np.array_equal(method.predict_proba(X), method.probabilities_)
    np.testing.assert_allclose(method.probabilities_.sum(1), 1, rtol=1e-5)
    assert method.transform(X[:7]).shape == (7, 4)
    assert method.transform(X).dtype == np.float32
    assert method.cluster_centers_.shape == (3, 4)
    new, _ = stripes(9, seed=5)
    assert method.predict(new).shape == (9,)


def test_clusters_are_classes_where_there_are_labels():
    X, y = stripes(90)
    params = SHORT | {"pretrain_epochs": 15, "max_iterations": 60}
    method = SSDCEC(**params).fit(X, reveal(y, 12))
    assert np.mean(method.labels_ == y) > 0.9


def test_labels_are_the_model_s_own_assignment():
    """Labels that contradict the images are not handed back."""
    X, _y = stripes()
    wrong = np.where(np.arange(60) < 30, np.random.default_rng(0).permutation(60) % 3, -1)
    method = SSDCEC(**SHORT).fit(X, wrong)
    assert (method.labels_[:30] != wrong[:30]).any()
    assert np.array_equal(method.labels_, method.predict(X))


@pytest.mark.parametrize("cls", [DCEC, SSDCEC])
def test_same_seed_same_labels_other_seed_not(cls):
    first = fitted(cls)
    assert equal(first, fitted(cls))
    assert not equal(first, fitted(cls, random_state=1))


def test_dcec_ignores_labels():
    assert equal(fitted(DCEC, n_labels=0), fitted(DCEC, n_labels=30))


@pytest.mark.parametrize("reconstruction", [True, False])
def test_without_labels_ss_dcec_is_dcec(reconstruction):
    method = fitted(n_labels=0, reconstruction=reconstruction)
    assert equal(method, fitted(DCEC, reconstruction=reconstruction))
    assert not equal(method, fitted(DCEC, reconstruction=not reconstruction))
    assert not equal(method, fitted(n_labels=12, reconstruction=reconstruction))


@pytest.mark.parametrize(("cls", "n_labels"), [(DCEC, 0), (DCEC, 12), (SSDCEC, 0), (SSDCEC, 12)])
def test_fit_asks_for_the_stages_that_it_declares(cls, n_labels):
    context = Recording()
    method = fitted(cls, n_labels, context)
    # The seed is the one that is declared too: levels and methods share.
    assert context.asked == [(request, 0) for request in method.stages(n_labels)]
    assert equal(method, fitted(cls, n_labels))


def test_every_level_asks_for_the_same_autoencoder():
    requests = [cls(**SHORT).stages(n)[0] for cls in (DCEC, SSDCEC) for n in (0, 12)]
    assert all(request == requests[0] for request in requests)
    assert requests[0].params == {"epochs": 2, "batch_size": 16, "lr": 1e-3, "embedding_dim": 4}


def test_registered_names():
    assert get("dcec").cls is DCEC
    assert not get("dcec").tags.uses_labels
    assert get("ss-dcec").cls is SSDCEC
    assert get("ss-dcec").tags.needs_every_class
    assert get("ss-dcec").tags.without_labels == get("ss-dcec-kl").tags.without_labels == "dcec"
    assert get("ss-dcec").build().reconstruction
    assert not get("ss-dcec-kl").build("quick").reconstruction


def test_defaults_are_the_paper_s():
    params = SSDCEC().get_params()
    assert {
        "lam": 1.0,
        "update_interval": 140,
        "delta": 0.001,
        "max_iterations": 20_000,
        "pretrain_epochs": 200,
        "batch_size": 256,
        "n_init": 20,
        "lr": 1e-3,
        "embedding_dim": 10,
        "shuffle": False,
        "reconstruction": True,
    }.items() <= params.items()


def test_is_a_scikit_learn_estimator():
    X, y = stripes()
    method = clone(SSDCEC(**SHORT))
    with pytest.raises(NotFittedError):
        method.predict(X)
    labels = method.fit_predict(X, reveal(y, 12))
    assert np.array_equal(labels, fitted().labels_)
    again = pickle.loads(pickle.dumps(method))
    assert np.array_equal(again.predict(X), labels)


def test_supervision_helps_on_digits():
    digits = load_digits()
    X, y = (digits.images * 15).astype(np.uint8), digits.target
    params = {"pretrain_epochs": 8, "max_iterations": 80, "update_interval": 40, "n_init": 5}
    params |= {"batch_size": 64, "lr": 3e-3, "random_state": 0}
    given = reveal(y, len(y) // 5)
    hidden, first = given < 0, Recording()
    supervised = SSDCEC(**params).fit(X, given, first)
    plain = DCEC(**params).fit(X, None, Recording(stages=first.stages))
    best = linear_sum_assignment(-contingency_matrix(y, plain.labels_))  # the mapping of eq. 7
    acc = contingency_matrix(y, plain.labels_)[best].sum() / len(y)
    assert acc > 0.6
    assert np.mean(supervised.labels_[hidden] == y[hidden]) > acc + 0.05


def test_colour_images():
    X, y = stripes(24, (32, 32, 3))
    method = SSDCEC(**(SHORT | {"max_iterations": 3})).fit(X, reveal(y, 6))
    assert np.array_equal(method.predict(X), method.labels_)
    with pytest.raises(ValueError, match=r"shape \(32, 32\); .* fitted on \(32, 32, 3\)"):
        method.predict(X[..., 0])


@pytest.mark.parametrize("cls", [DCEC, SSDCEC])
def test_images_and_labels_are_checked(cls):
    X, y = stripes()
    with pytest.raises(ValueError, match="expected uint8 images"):
        cls(**SHORT).fit(X / 255, y)
    with pytest.raises(ValueError, match="expected 60 integers"):
        cls(**SHORT).fit(X, y[:10])
    with pytest.raises(ValueError, match="set n_clusters to at least"):
        cls(**SHORT).fit(X, y + 5)
    with pytest.raises(ValueError, match="at least 8 pixels"):
        cls(**SHORT).fit(X[:, :6])


def test_a_class_without_labels_is_named():
    X, y = stripes()
    with pytest.raises(ValueError, match="no labelled instance of class 2"):
        SSDCEC(**SHORT).fit(X, np.where(y == 2, -1, y))


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_clusters": 0},
        {"update_interval": 0},
        {"max_iterations": -1},
        {"lam": -1.0},
        {"delta": math.nan},
        {"n_init": 0},
        {"batch_size": 0},
        {"lr": -1.0},
        {"pretrain_epochs": -1},
    ],
)
def test_parameters_out_of_range(wrong):
    X, _ = stripes()
    name = next(iter(wrong)).removeprefix("pretrain_")
    with pytest.raises(ValueError, match=rf"{name} is .*; expected"):
        DCEC(**(SHORT | wrong)).fit(X)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_reconstructions_are_the_decoders(shape: tuple[int, ...]) -> None:
    X = np.random.default_rng(0).integers(0, 256, (40, *shape), dtype=np.uint8)
    model = get("dcec").build("smoke", n_clusters=3, random_state=0).fit(X)
    made = model.reconstruct(X[:5])
    assert (made.shape, made.dtype) == ((5, *shape), np.float32)
    with torch.no_grad():
        z = torch.from_numpy(model.transform(X[:5]))
        plain = model.network_.decoder(z).numpy()  # (5, c, h, w)
    assert np.allclose(made.reshape(5, 8, 8, -1), np.moveaxis(plain, 1, 3), atol=1e-5)
