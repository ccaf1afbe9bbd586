"""What was replaced for speed equals what it replaced: layers, precision, graphs of steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from methods.dcec import DCEC, SSDCEC
from methods.method import Context
from methods.toolkit import training
from methods.toolkit.fast.cuda_graphs import WARM_UP, GraphedStep, graphed
from methods.toolkit.nets.cae import CAE
from methods.toolkit.nets.layers import MirroredConv, StridedConv, SubpixelConv, glorot_
from methods.toolkit.stages.autoencoder import autoencoder, reconstruction_loss
from methods.toolkit.training import adam, generator, image_tensor, pixels

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def gradients(function, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """The result of `function` and the gradients of a fixed weighting of it."""
    result = function(*inputs)
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result)
    return [result, *torch.autograd.grad((result * weights).sum(), inputs)]


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(5, 13), st.integers(5, 13)),
    channels=st.integers(1, 3),
    layer=st.sampled_from([MirroredConv, SubpixelConv]),
    seed=st.integers(0, 9),
)
def test_transposed_convolutions_equal_torch_s_plain_layer(size, channels, layer, seed):
    """Values, and gradients by input, weight and bias."""
    mirrored = StridedConv(channels, 4, 5, size)
    fast = layer(mirrored).double()
    drawing = generator(seed, "layer")
    for parameter in fast.parameters():
        parameter.data.normal_(generator=drawing)
    values = torch.randn(
        2, 4, *mirrored.out_size, dtype=torch.float64, generator=drawing, requires_grad=True
    )

    def plain(x, weight, bias):
        return F.conv_transpose2d(x, weight, bias, 2, fast.margins, fast.output_padding)

    expected = gradients(plain, values, fast.weight, fast.bias)
    found = gradients(lambda *_: fast(values), values, fast.weight, fast.bias)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def plain_layers(network: CAE) -> nn.Sequential:
    """`network` out of torch's own layers, with the same weights."""
    layers: list[nn.Module] = []
    for layer in [*network.encoder, *network.decoder]:
        if isinstance(layer, nn.ConvTranspose2d):
            plain = nn.ConvTranspose2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.output_padding,
            )
            plain.load_state_dict(layer.state_dict())
            layers.append(plain)
        else:
            layers.append(nn.ReLU() if isinstance(layer, nn.ReLU) else layer)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("shape", [(28, 28), (16, 24, 3), (11, 9)])
def test_the_network_equals_plain_layers(shape):
    network = glorot_(CAE(shape), generator(0, "weights"))
    x = torch.rand(4, shape[2] if len(shape) == 3 else 1, *shape[:2])
    torch.testing.assert_close(network(x), plain_layers(network)(x))


def test_bf16_gradients_are_those_of_fp32_to_its_rounding():
    """bf16 keeps 8 bits: each gradient points where that of fp32 does, within one per cent."""
    network = glorot_(CAE((28, 28)), generator(1, "weights"))
    x = torch.rand(64, 1, 28, 28, generator=generator(1, "x"))
    found = {}
    for precision in ("fp32", "bf16"):
        loss = reconstruction_loss(network, x, Context(precision=precision))
        found[precision] = torch.autograd.grad(loss, list(network.parameters()))
        assert loss.dtype == torch.float32
    for full, half in zip(found["fp32"], found["bf16"], strict=True):
        assert half.dtype == torch.float32
        assert F.cosine_similarity(full.flatten(), half.flatten(), dim=0) > 0.99


def test_bf16_keeps_master_weights_and_the_optimiser_in_fp32():
    network = glorot_(CAE((8, 8)), generator(0, "weights"))
    optimiser = adam(network.parameters(), 1e-3)
    reconstruction_loss(network, torch.rand(8, 1, 8, 8), Context(precision="bf16")).backward()
    optimiser.step()
    states = [value for state in optimiser.state.values() for value in state.values()]
    assert {value.dtype for value in [*network.parameters(), *states]} == {torch.float32}


def test_bf16_images_stay_uint8():
    images = image_tensor(np.zeros((5, 8, 8), np.uint8), "cpu")
    assert images.dtype == torch.uint8
    assert pixels(images[:2]).dtype == torch.float32


def recorded(calls: list[str]):
    """Stand-ins for a stream and a graph that note what they do: a replay calls the step again."""

    def warm_up(call):
        calls.append("plain")
        call()

    def capture(call):
        calls.append("capture")

        def replay():
            calls.append("replay")
            call()

        return replay

    return warm_up, capture


def test_a_captured_step_gets_the_rows_of_every_call():
    seen, calls = [], []
    step = GraphedStep(lambda rows: seen.append(rows.tolist()), *recorded(calls))
    batches = [torch.tensor([i, i + 1]) for i in range(WARM_UP + 3)]
    for rows in batches:
        step(rows)
    assert seen == [rows.tolist() for rows in batches]
    assert calls == ["plain"] * WARM_UP + ["capture"] + ["replay"] * 3
    assert batches[WARM_UP].tolist() == [WARM_UP, WARM_UP + 1]  # the captured rows are a copy


def test_every_size_of_batch_has_a_graph_of_its_own():
    seen, calls = [], []
    step = GraphedStep(lambda rows: seen.append(len(rows)), *recorded(calls))
    for _ in range(WARM_UP + 2):
        step(torch.arange(4))
        step(torch.arange(3))
    assert seen == [4, 3] * (WARM_UP + 2)
    assert calls.count("capture") == 2


def test_on_the_processor_a_step_stays_what_it_is():
    def step(rows):
        raise AssertionError("never called")

    assert graphed(step, Context()) is step


def digits(n: int = 70) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 8, 8), dtype=np.uint8)


def test_training_through_replays_equals_plain_training(monkeypatch):
    """The code path of an accelerator, with calls in the place of graphs."""
    X, y = digits(), np.where(np.arange(70) % 3 == 0, np.arange(70) % 2, -1)
    params = {"pretrain_epochs": 4, "max_iterations": 30, "update_interval": 10, "delta": 0.0}
    method = SSDCEC(2, batch_size=16, random_state=0, **params)
    plain = method.fit(X, y).probabilities_
    calls: list[str] = []
    monkeypatch.setattr(
        training, "graphed", lambda step, context: GraphedStep(step, *recorded(calls))
    )
    assert np.array_equal(method.fit(X, y).probabilities_, plain)
    assert calls.count("capture") == 4  # two sizes of batches, in the autoencoder and jointly


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_graphs_equal_plain_steps(monkeypatch, precision):
    X = digits(200)
    params = {"epochs": 4, "batch_size": 32, "random_state": 0}
    context = Context("cuda", precision)
    captured = autoencoder(X, context=context, **params)
    monkeypatch.setattr(training, "graphed", lambda step, context: step)
    plain = autoencoder(X, context=context, **params)
    np.testing.assert_allclose(captured["loss"], plain["loss"], rtol=1e-3)


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_captured_joint_phase_equals_the_plain_one(monkeypatch, precision):
    """A tensor that a step binds anew, instead of changing it, would be stale in a replay."""
    X = digits(200)
    method = DCEC(3, pretrain_epochs=2, max_iterations=40, update_interval=10, delta=0.0, n_init=2)
    method.set_params(batch_size=32, random_state=0)
    captured = method.fit(X, context=Context("cuda", precision)).probabilities_
    monkeypatch.setattr(training, "graphed", lambda step, context: step)
    plain = method.fit(X, context=Context("cuda", precision)).probabilities_
    assert method.n_iter_ == 40
    np.testing.assert_allclose(captured, plain, atol=1e-2)
