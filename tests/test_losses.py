"""The losses of SimCLR and of SCAN, SimCLR and the layers of its network.

Losses are compared with plain loops over the formulas in float64, layers with torch's own.
"""

from __future__ import annotations

import copy
import doctest
import math
from typing import Any

import numpy as np
import pytest
import torch
from contexts import Recording, killed_and_resumed
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from methods.method import Arrays, Context
from methods.scan import losses
from methods.scan.losses import labelled_loss, pseudo_labels, scan_loss, self_labelling_loss
from methods.toolkit.draws import generator
from methods.toolkit.nets.layers import ImageMean, PixelwiseConv
from methods.toolkit.nets.resnet import ResidualBlock, SmallResNet, he_
from methods.toolkit.stages import simclr as contrastive
from methods.toolkit.stages.simclr import SimCLR, cosine_schedule, nt_xent, simclr
from methods.toolkit.training import autocast, load_weights


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def softmax(row: list[float]) -> list[float]:
    terms = [math.exp(value) for value in row]
    return [term / sum(terms) for term in terms]


@pytest.mark.parametrize("module", [contrastive, losses])
def test_the_examples_in_the_docstrings(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


def plain_nt_xent(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> float:
    rows = [*z1.tolist(), *z2.tolist()]

    def similarity(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    total = 0.0
    for i, row in enumerate(rows):
        positive = (i + len(z1)) % len(rows)
        terms = [
            math.exp(similarity(row, other) / temperature) for k, other in enumerate(rows) if k != i
        ]
        total -= similarity(row, rows[positive]) / temperature - math.log(sum(terms))
    return total / len(rows)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_nt_xent_is_the_papers_double_loop(n: int, temperature: float) -> None:
    z1, z2 = random(n, 5, seed=1), random(n, 5, seed=2)
    expected = plain_nt_xent(z1, z2, temperature)
    assert nt_xent(z1, z2, temperature).item() == pytest.approx(expected, abs=1e-12)


def test_nt_xent_gradient() -> None:
    z1, z2 = random(4, 3, seed=1).requires_grad_(), random(4, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5), (z1, z2))


def test_nt_xent_does_not_depend_on_lengths() -> None:
    z1, z2 = random(6, 4, seed=1), random(6, 4, seed=2)
    lengths = torch.arange(1, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(nt_xent(z1 * lengths, z2 / lengths), nt_xent(z1, z2))


def test_nt_xent_of_half_precision_is_computed_in_fp32() -> None:
    z1, z2 = random(6, 4, seed=1).bfloat16(), random(6, 4, seed=2).bfloat16()
    loss = nt_xent(z1, z2)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, nt_xent(z1.float(), z2.float()))


@pytest.mark.parametrize(
    ("z1", "z2", "temperature", "message"),
    [
        (random(3, 2), random(4, 2), 0.1, r"z1 has shape \(3, 2\) and z2 \(4, 2\)"),
        (random(3), random(3), 0.1, r"expected the same \(n, d\)"),
        (random(0, 2), random(0, 2), 0.1, r"expected the same \(n, d\)"),
        (random(3, 2), random(3, 2), 0.0, "temperature is 0.0; expected a positive number"),
        (random(3, 2), random(3, 2), math.nan, "temperature is nan"),
    ],
)
def test_nt_xent_refuses(
    z1: torch.Tensor, z2: torch.Tensor, temperature: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        nt_xent(z1, z2, temperature)


def plain_scan_loss(anchors: torch.Tensor, others: torch.Tensor, weight: float) -> float:
    p = [softmax(row) for row in anchors.tolist()]
    q = [softmax(row) for row in others.tolist()]
    consistency, mean = 0.0, [0.0] * len(p[0])
    for p_row, q_row in zip(p, q, strict=True):
        dot = 0.0
        for j, (a, b) in enumerate(zip(p_row, q_row, strict=True)):
            dot += a * b
            mean[j] += a / len(p)
        consistency += math.log(dot) / len(p)
    return -consistency + weight * sum(m * math.log(m) for m in mean)


@pytest.mark.parametrize("weight", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("shape", [(1, 2), (5, 3), (8, 20)])
def test_scan_loss_is_the_papers_double_loop(shape: tuple[int, int], weight: float) -> None:
    anchors, others = random(*shape, seed=1, scale=3), random(*shape, seed=2, scale=3)
    expected = plain_scan_loss(anchors, others, weight)
    assert scan_loss(anchors, others, weight).item() == pytest.approx(expected, abs=1e-12)


def test_scan_loss_gradient_reaches_both() -> None:
    anchors, others = random(4, 3, seed=1).requires_grad_(), random(4, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(scan_loss, (anchors, others))


def test_scan_loss_where_probabilities_underflow() -> None:
    """exp(-10,000) is 0 in every precision; the log of the dot product is known all the same."""
    anchors = torch.tensor([[1e4, 0.0], [0.0, 1e4]], requires_grad=True)
    others = torch.tensor([[0.0, 1e4], [0.0, 1e4]], requires_grad=True)
    loss = scan_loss(anchors, others, entropy_weight=5.0)
    expected = (1e4 - math.log(2)) / 2 - 5 * math.log(2)  # the second pair agrees
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert anchors.grad is not None
    assert anchors.grad.isfinite().all()
    assert others.grad is not None
    assert others.grad.isfinite().all()
    assert others.grad[0].tolist() == pytest.approx([-0.25, 0.25], abs=1e-3)  # so it moves


def test_scan_loss_is_lowest_where_pairs_agree_and_all_clusters_are_used() -> None:
    sure = 50 * torch.eye(4)
    best = scan_loss(sure, sure)
    assert best.item() == pytest.approx(-5 * math.log(4), abs=1e-5)
    assert scan_loss(sure, sure.roll(1, 0)) > best  # pairs disagree
    assert scan_loss(sure[:1].repeat(4, 1), sure[:1].repeat(4, 1)) > best  # one cluster is used
    assert scan_loss(0 * sure, 0 * sure) > best  # nothing is sure


@pytest.mark.parametrize("shapes", [((3, 2), (3, 4)), ((3,), (3,)), ((0, 2), (0, 2))])
def test_scan_loss_refuses(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"expected the same \(n, K\)"):
        scan_loss(random(*shapes[0]), random(*shapes[1]))


def test_labelled_loss_is_the_cross_entropy_of_the_labelled() -> None:
    logits, y = random(6, 3), torch.tensor([-1, 2, -1, 0, 1, -1])
    expected = F.cross_entropy(logits[y >= 0], y[y >= 0])
    torch.testing.assert_close(labelled_loss(logits, y, 3), expected)


def test_labelled_loss_sums_over_the_clusters_of_a_class() -> None:
    """Of 7 clusters and 3 classes, class 0 has clusters 0, 3, 6, class 1 has 1, 4, class 2 2, 5."""
    logits, y = random(4, 7), torch.tensor([0, 1, -1, 2])
    expected = 0.0
    for row, members in ((0, [0, 3, 6]), (1, [1, 4]), (3, [2, 5])):
        p = softmax(logits[row].tolist())
        expected -= math.log(sum(p[j] for j in members)) / 3
    assert labelled_loss(logits, y, 3).item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: labelled_loss(x, y, 3), logits.requires_grad_())


def test_labelled_loss_without_labels_is_0_and_has_no_gradient() -> None:
    logits = random(4, 3).requires_grad_()
    loss = labelled_loss(logits, torch.full((4,), -1), 0) + 0 * logits.sum()
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_pseudo_labels_are_the_confident_predictions() -> None:
    p = torch.tensor([[0.6, 0.4], [0.25, 0.75], [0.5, 0.5], [0.0, 1.0]])
    logits = p.log().requires_grad_()
    assert pseudo_labels(logits, 0.7).tolist() == [-1, 1, -1, 1]
    assert pseudo_labels(torch.zeros(4, 2), 0.5).tolist() == [-1] * 4  # 0.5 is not above 0.5
    assert not pseudo_labels(logits, 0.7).requires_grad
    assert pseudo_labels(torch.full((1, 2), torch.nan), 0.0).tolist() == [-1]


def test_self_labelling_weighs_clusters_equally() -> None:
    targets, logits = torch.tensor([0, 0, 0, 1, -1]), random(5, 2)
    log_p = logits.log_softmax(1)
    first = -(log_p[0, 0] + log_p[1, 0] + log_p[2, 0]) / 3  # cluster 0 has three images
    expected = (first - log_p[3, 1]) / 2  # cluster 1 has one; the last image has no target
    torch.testing.assert_close(self_labelling_loss(logits, targets), expected)


def test_self_labelling_balances_the_clusters_that_are_targets_alone() -> None:
    logits, targets = random(3, 4), torch.tensor([2, 2, 0])
    log_p = logits.log_softmax(1)
    expected = -(log_p[0, 2] + log_p[1, 2]) / 4 - log_p[2, 0] / 2  # clusters 1 and 3: none
    torch.testing.assert_close(self_labelling_loss(logits, targets), expected)


def test_self_labelling_without_a_target_is_0_and_has_no_gradient() -> None:
    logits = random(4, 3).requires_grad_()
    loss = self_labelling_loss(logits, torch.full((4,), -1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


# The layers of the residual network against torch's own


def gradients(module: nn.Module, x: torch.Tensor, outer: torch.Tensor) -> list[torch.Tensor]:
    """Of ``(module(x) · outer).sum()``, by `x` and by all parameters."""
    x = x.clone().requires_grad_()
    return list(torch.autograd.grad((module(x) * outer).sum(), [x, *module.parameters()]))


def assert_same_function(ours: nn.Module, plain: nn.Module, x: torch.Tensor) -> None:
    """Equal outputs and gradients, up to rounding."""
    expected = plain(x)
    torch.testing.assert_close(ours(x), expected)
    outer = torch.randn(expected.shape, generator=generator(0, "outer"), dtype=expected.dtype)
    torch.testing.assert_close(gradients(ours, x, outer), gradients(plain, x, outer))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [(4, 4), (7, 5), (1, 6)])
def test_a_pixelwise_convolution_is_torch_s(stride: int, side: tuple[int, int]) -> None:
    x = torch.randn(3, 5, *side, generator=generator(0, "x"), dtype=torch.float64)
    ours = PixelwiseConv(5, 4, stride).double()
    plain = nn.Conv2d(5, 4, 1, stride, bias=False).double()
    plain.load_state_dict(ours.state_dict())
    assert_same_function(ours, plain, x)
    assert_same_function(ours, plain, x.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("side", [(4, 4), (7, 5), (1, 1)])
def test_the_mean_of_an_image_is_torch_s(side: tuple[int, int]) -> None:
    x = torch.randn(3, 5, *side, generator=generator(0, "x"), dtype=torch.float64)
    plain = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert_same_function(ImageMean(), plain, x)


def plain_layers(network: nn.Module) -> nn.Module:
    """A copy of `network` with torch's own layers, weights included."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, PixelwiseConv):
                size = (layer.in_channels, layer.out_channels, 1, layer.stride)
                plain = nn.Conv2d(*size, bias=False).to(layer.weight.dtype)
                plain.load_state_dict(layer.state_dict())
                setattr(parent, name, plain)
            if isinstance(layer, ImageMean):
                setattr(parent, name, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    return network


@pytest.mark.parametrize("shape", [(28, 28), (11, 9, 3)])
def test_the_residual_network_is_the_plain_one(shape: tuple[int, ...]) -> None:
    network = he_(SmallResNet(shape, 4, 6), generator(0, "weights")).double()
    for module in network.modules():  # not the identity with which the blocks start
        if isinstance(module, ResidualBlock):
            nn.init.ones_(module.last_norm.weight)
    plain = plain_layers(network)
    kinds = [type(module) for module in plain.modules()]
    assert PixelwiseConv not in kinds
    assert ImageMean not in kinds
    channels = shape[2] if len(shape) == 3 else 1
    x = torch.rand(6, channels, *shape[:2], generator=generator(0, "x"), dtype=torch.float64)
    assert_same_function(network, plain, x)


def test_bf16_stays_bf16_between_the_layers() -> None:
    network, kinds = SimCLR((12, 12), 4, 6, 5), {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, x, y, name=name: kinds.update({name: y.dtype}))
    with autocast(Context(precision="bf16")):
        network(torch.rand(4, 1, 12, 12))
    assert len(kinds) > 30
    assert set(kinds.values()) == {torch.bfloat16}


# SimCLR


def features_of(seed: int = 0, context: Context | None = None, **changes: Any) -> Arrays:
    params = {"epochs": 3, "batch_size": 32, "lr": 0.1, "feature_dim": 16, "projection_dim": 8}
    images = (load_digits().images[:100] * 15.9).astype(np.uint8)
    return simclr(
        images,
        random_state=seed,
        context=context or Context(),
        **{**params, "width": 2, **changes},
    )


def test_simclr_returns_features_weights_and_losses() -> None:
    arrays = features_of()
    assert arrays["features"].shape == (100, 16)
    assert arrays["features"].dtype == np.float32
    lengths = np.linalg.norm(arrays["features"], axis=1)
    assert np.isfinite(arrays["features"]).all()
    assert lengths.min() > 0
    assert arrays["loss"].shape == (3,)
    assert arrays["loss"].dtype == np.float64
    encoder = SmallResNet((8, 8), width=2, feature_dim=16)
    load_weights(encoder, arrays, "encoder.")
    assert any(name.startswith("weights.projection.") for name in arrays)


def test_simclr_learns() -> None:
    loss = features_of(epochs=25, width=8, feature_dim=32)["loss"]
    blind = np.log(2 * 32 - 1)  # the loss where all projections are the same
    assert loss[0] > blind
    assert loss[-3:].mean() < blind - 0.1


def test_simclr_follows_its_seed() -> None:
    first, again, other = features_of(0), features_of(0), features_of(1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["features"], other["features"])


def test_simclr_does_not_touch_torchs_own_generator() -> None:
    torch.manual_seed(1)
    first = features_of()
    torch.manual_seed(2)
    assert np.array_equal(first["features"], features_of()["features"])


def test_simclr_goes_on_after_a_kill() -> None:
    """In the second of three epochs; where else, see `test_training`."""
    undisturbed = Recording()
    expected = features_of(context=undisturbed)
    resumed, context = killed_and_resumed(lambda c: features_of(context=c), 9, every=2)
    assert all(np.array_equal(resumed[name], expected[name]) for name in expected)
    assert context.history == undisturbed.history
    assert context.steps[0] == ("step", 5, 9)


def test_simclr_without_epochs_gives_the_first_weights() -> None:
    arrays = features_of(epochs=0)
    assert arrays["loss"].shape == (0,)
    assert arrays["features"].shape == (100, 16)


def test_simclr_says_that_it_diverged() -> None:
    with pytest.raises(
        FloatingPointError, match=r"the loss of simclr became .*; lower the learning"
    ):
        features_of(lr=1e30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, "epochs is -1; expected 0 or more"),
        ({"temperature": 0}, "temperature is 0; expected a positive number"),
        ({"projection_dim": 0}, "projection_dim is 0; expected at least 1"),
        ({"width": 0}, "width is 0, feature_dim 16; expected at least 1"),
    ],
)
def test_simclr_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features_of(**changes)


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    factors = [cosine_schedule(step, 200) for step in range(200)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert max(factors) == 1
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert 0 < factors[-1] < 1e-3


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(7, 9\).*at least 8 pixels a side"):
        SmallResNet((7, 9), width=2, feature_dim=4)
