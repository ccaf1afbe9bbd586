"""What was replaced for speed equals what it replaced: layers, precision, graphs of steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fixed_fits import sample
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from methods import registry
from methods.dcec import DCEC, SSDCEC
from methods.method import Context
from methods.toolkit import training
from methods.toolkit.draws import Draws, generator
from methods.toolkit.fast.cuda_graphs import MEASURED, UNTIMED, WARM_UP, GraphedStep, graphed
from methods.toolkit.nets.cae import CAE
from methods.toolkit.nets.layers import MirroredConv, StridedConv, SubpixelConv, glorot_
from methods.toolkit.stages.autoencoder import autoencoder, reconstruction_loss
from methods.toolkit.training import adam, image_tensor, pixels, set_rate_


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    """Whatever the user's own setting is."""
    monkeypatch.delenv("BENCH_CUDA_GRAPHS", raising=False)


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


def no_step(rows):
    raise AssertionError("never called")


def test_on_the_processor_a_step_stays_what_it_is():
    assert graphed(no_step, Context()) is None


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [(None, {MEASURED}), ("measured", {MEASURED}), ("all", {MEASURED, UNTIMED}), ("off", set())],
)
def test_the_user_chooses_which_steps_are_graphs(monkeypatch, wanted, kinds):
    if wanted is not None:
        monkeypatch.setenv("BENCH_CUDA_GRAPHS", wanted)
    context = Context("cuda")
    assert {kind for kind in (MEASURED, UNTIMED) if graphed(no_step, context, kind)} == kinds


def test_what_the_user_misspelt_is_said(monkeypatch):
    monkeypatch.setenv("BENCH_CUDA_GRAPHS", "on")
    with pytest.raises(
        ValueError, match="BENCH_CUDA_GRAPHS is 'on'; expected measured, all or off"
    ):
        graphed(no_step, Context())


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
    monkeypatch.setattr(training, "graphed", lambda step, *_: GraphedStep(step, *recorded(calls)))
    assert np.array_equal(method.fit(X, y).probabilities_, plain)
    assert calls.count("capture") == 4  # two sizes of batches, in the autoencoder and jointly


GRAPHS = {  # method: its parameters besides those of smoke, and how many graphs there are
    "simclr-lr": ({}, 1),
    "scan-finetune": ({"finetune_epochs": 4}, 3),  # SimCLR, head, fine-tuning
    "supervised-cnn": ({"steps": 20}, 1),
    "fixmatch": ({"steps": 20}, 1),
    "spread-and-match": ({"steps": 20, "seed_time": 0.5}, 2),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_what_a_step_draws_is_drawn_anew_for_every_replay(monkeypatch, name):
    """The tensors that a graph has captured stay where they are; all that is in them changes."""
    assert registry.discover() == []
    X, y, _ = sample()
    changed, n_graphs = GRAPHS[name]
    method = registry.get(name).build("smoke", n_clusters=10, random_state=0, **changed)
    plain = method.fit(X, y).probabilities_
    calls, drawn = [], {}

    def stand_in(step, *_):
        return GraphedStep(step, *recorded(calls))

    original = Draws.__call__

    def noted(draws, name, make):
        found = original(draws, name, make)
        if draws.keep:
            drawn.setdefault((id(draws), draws.step), []).append(found)
        return found

    monkeypatch.setattr(training, "graphed", stand_in)
    monkeypatch.setattr(Draws, "__call__", noted)
    # Rates that a graph reads are in fp32.
    np.testing.assert_allclose(method.fit(X, y).probabilities_, plain, atol=1e-3)
    assert calls.count("capture") == n_graphs
    assert calls.count("replay") > 5
    same = 0
    for (loop, step), tensors in drawn.items():
        first = next(kept for (other, _), kept in drawn.items() if other == loop)
        same += step > 0
        assert list(map(id, tensors)) == list(map(id, first)), "a graph would read another tensor"
    assert same > 5


def test_draws_of_a_step_depend_on_nothing_but_seed_name_and_step():
    def three(drawing, step):
        return torch.rand(3, generator=drawing) + step

    plain, kept = Draws(5, "cpu"), Draws(5, "cpu", keep=True)
    places = set()
    for step in (0, 1, 7, 3):
        for draws in (plain, kept):
            draws.begin(step, n_rows=4)
        for name in ("views", "views", "order"):
            expected, found = plain(name, three), kept(name, three)
            assert torch.equal(expected, found)
            places.add(found.data_ptr())
    assert len(places) == 3
    again = Draws(5, "cpu")
    again.begin(7, n_rows=9)
    drawing = generator(5, "views", 7)
    for _ in range(2):  # one after the other from one generator
        assert torch.equal(again("views", three), torch.rand(3, generator=drawing) + 7)


def test_a_step_that_draws_something_else_is_refused():
    draws = Draws(0, "cpu", keep=True)
    draws.begin(0, 4)
    draws("views", lambda drawing, _: torch.rand(4, generator=drawing))
    for name in ("order", "views"):
        draws.begin(1, 4)
        if name == "views":
            draws(name, no_step)
        with pytest.raises(ValueError, match=f"step 1 draws '{name}'; the first step drew "):
            draws(name, no_step)


@pytest.mark.parametrize("optimiser", [torch.optim.AdamW, torch.optim.SGD])
def test_a_captured_optimiser_reads_its_rate_from_a_tensor(monkeypatch, optimiser):
    network = nn.Linear(2, 1)

    def loss(rows, step):
        return network.weight.square().sum()

    monkeypatch.setattr(training, "graphed", lambda step, *_: GraphedStep(step, *recorded([])))
    batches = training.Batches(4, 2, 0, "cpu")
    made = optimiser(network.parameters(), lr=0.5, fused=True)
    loop = training.Loop(
        "toy", loss, made, batches, Context(), {}, schedule=lambda step: 0.25, captured=UNTIMED
    )
    for rows in loop.steps(2):
        loop.descend(rows)
    (group,) = made.param_groups
    assert isinstance(group["lr"], torch.Tensor)
    assert group["lr"].item() == 0.25
    assert group.get("capturable", True) is True


def test_every_size_of_batch_has_draws_of_its_own():
    draws = Draws(0, "cpu", keep=True)
    for step, n in enumerate((4, 3, 4, 3)):
        draws.begin(step, n)
        assert len(draws("views", lambda drawing, _, n=n: torch.rand(n, generator=drawing))) == n


def test_a_rate_that_a_graph_reads_stays_where_it_is():
    group = {"lr": torch.tensor(0.5)}
    place = group["lr"].data_ptr()
    set_rate_(group, 0.25)
    assert (group["lr"].item(), group["lr"].data_ptr()) == (0.25, place)
    plain = {"lr": 0.5}
    set_rate_(plain, 0.25)
    assert plain == {"lr": 0.25}


@needs_cuda
@pytest.mark.usefixtures("fixed_sums")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_graphs_equal_plain_steps(monkeypatch, precision):
    X = digits(200)
    params = {"epochs": 4, "batch_size": 32, "random_state": 0}
    context = Context("cuda", precision)
    captured = autoencoder(X, context=context, **params)
    monkeypatch.setenv("BENCH_CUDA_GRAPHS", "off")
    plain = autoencoder(X, context=context, **params)
    np.testing.assert_allclose(captured["loss"], plain["loss"], rtol=1e-3)


@needs_cuda
@pytest.mark.usefixtures("fixed_sums")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_captured_joint_phase_equals_the_plain_one(monkeypatch, precision):
    """A tensor that a step binds anew, instead of changing it, would be stale in a replay."""
    X = digits(200)
    method = DCEC(3, pretrain_epochs=2, max_iterations=40, update_interval=10, delta=0.0, n_init=2)
    method.set_params(batch_size=32, random_state=0)
    captured = method.fit(X, context=Context("cuda", precision)).probabilities_
    monkeypatch.setenv("BENCH_CUDA_GRAPHS", "off")
    plain = method.fit(X, context=Context("cuda", precision)).probabilities_
    assert method.n_iter_ == 40
    np.testing.assert_allclose(captured, plain, atol=1e-2)


@needs_cuda
@pytest.mark.usefixtures("fixed_sums")
@pytest.mark.parametrize("name", [*GRAPHS, "ss-scan"])
def test_graphs_of_what_draws_equal_plain_steps(monkeypatch, name):
    assert registry.discover() == []
    X, y, _ = sample()
    changed, _ = GRAPHS.get(name, ({}, 0))
    method = registry.get(name).build("smoke", n_clusters=10, random_state=0, **changed)
    found = {}
    for graphs in ("off", "all"):
        monkeypatch.setenv("BENCH_CUDA_GRAPHS", graphs)
        found[graphs] = method.fit(X, y, Context("cuda")).probabilities_
    np.testing.assert_allclose(found["all"], found["off"], atol=2e-2)
