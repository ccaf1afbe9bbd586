"""The autoencoder's layers against Keras' rules, worked out in plain numpy; its training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from contexts import Recording, killed_and_resumed
from torch import nn

from methods.method import Context
from methods.toolkit.draws import generator
from methods.toolkit.nets.cae import CAE
from methods.toolkit.nets.layers import MirroredConv, StridedConv, SubpixelConv, Turn, glorot_
from methods.toolkit.stages.autoencoder import autoencoder, load_autoencoder
from methods.toolkit.training import image_tensor, pixels, weight_arrays


def keras_margins(size: int, kernel: int) -> tuple[int, int, int]:
    """(output size, pixels before, pixels after): TensorFlow's rule for "same", stride 2."""
    total = max(kernel - 2, 0) if size % 2 == 0 else max(kernel - 1, 0)
    return math.ceil(size / 2), total // 2, total - total // 2


def keras_conv(image: np.ndarray, weight: np.ndarray, same: bool) -> np.ndarray:
    """Conv2D of stride 2 in loops: image (c, h, w), weight (out, c, k, k)."""
    kernel = weight.shape[2]
    if same:
        rows, columns = (keras_margins(side, kernel)[1:] for side in image.shape[1:])
        image = np.pad(image, ((0, 0), rows, columns))
    height, width = ((side - kernel) // 2 + 1 for side in image.shape[1:])
    result = np.zeros((len(weight), height, width))
    for out, row, column in np.ndindex(*result.shape):
        window = image[:, 2 * row : 2 * row + kernel, 2 * column : 2 * column + kernel]
        result[out, row, column] = (window * weight[out]).sum()
    return result


def keras_conv_transpose(values: np.ndarray, weight: np.ndarray, same: bool) -> np.ndarray:
    """Conv2DTranspose of stride 2 in loops: values (c, h, w), weight (c, out, k, k).

    Every value adds its multiple of the kernel at twice its place; "same" keeps 2h x 2w pixels of
    that, "valid" all 2h + k - 2.
    """
    kernel = weight.shape[2]
    channels, height, width = values.shape
    full = np.zeros((weight.shape[1], 2 * height + kernel - 2, 2 * width + kernel - 2))
    for channel, row, column in np.ndindex(channels, height, width):
        place = full[:, 2 * row : 2 * row + kernel, 2 * column : 2 * column + kernel]
        place += values[channel, row, column] * weight[channel]
    before = (kernel - 2) // 2
    if same:
        full = full[:, before : before + 2 * height, before : before + 2 * width]
    return full


def set_weights(layer: nn.Module, weight: np.ndarray, bias: list[float]) -> None:
    """Give `layer` these weights, in double precision."""
    layer.weight.data = torch.tensor(weight)
    layer.bias.data = torch.tensor(bias, dtype=torch.float64)


def turned(values: np.ndarray) -> np.ndarray:
    """Turned by 180°: the layers work on images, and have kernels, that are turned."""
    return values[..., ::-1, ::-1].copy()


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(
    ("size", "same"),
    [((8, 8), True), ((7, 7), True), ((6, 9), True), ((7, 7), False), ((5, 9), False)],
)
def test_convolution_is_keras(size, kernel, same):
    rng = np.random.default_rng(0)
    layer = StridedConv(2, 3, kernel, size, (same, same))
    image, weight = rng.normal(size=(2, *size)), rng.normal(size=(3, 2, kernel, kernel))
    set_weights(layer, turned(weight), [0, 1, -2])
    expected = keras_conv(image, weight, same) + np.array([0, 1, -2])[:, None, None]
    result = layer(torch.tensor(turned(image))[None])[0].detach().numpy()
    assert result.shape[1:] == layer.out_size
    np.testing.assert_allclose(turned(result), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "kernel", "same", "layer"),
    [
        ((8, 8), 5, True, MirroredConv),
        ((14, 28), 5, True, MirroredConv),
        ((4, 8), 3, True, MirroredConv),
        ((7, 7), 3, False, MirroredConv),
        ((9, 7), 3, False, MirroredConv),
        ((8, 8), 5, True, SubpixelConv),
        ((14, 28), 5, True, SubpixelConv),
        ((7, 7), 3, False, SubpixelConv),
    ],
)
def test_transposed_convolution_is_keras(size, kernel, same, layer):
    rng = np.random.default_rng(1)
    layer = layer(StridedConv(2, 3, kernel, size, (same, same)))
    weight = rng.normal(size=(3, 2, kernel, kernel))
    set_weights(layer, turned(weight), [0.5, -1])
    values = rng.normal(size=(3, *StridedConv(2, 3, kernel, size, (same, same)).out_size))
    expected = keras_conv_transpose(values, weight, same) + np.array([0.5, -1])[:, None, None]
    result = layer(torch.tensor(turned(values))[None])[0].detach().numpy()
    assert result.shape[1:] == size
    np.testing.assert_allclose(turned(result), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (9, 11), (10, 7), (15, 8)])
@pytest.mark.parametrize("same", [(True, True), (False, False), (True, False)])
def test_transposed_convolution_is_the_adjoint_for_every_size(size, same):
    conv = StridedConv(2, 3, 5, size, same).double()
    mirror = MirroredConv(conv).double()
    with torch.no_grad():
        conv.bias.zero_()
        mirror.bias.zero_()
        mirror.weight.copy_(conv.weight)
    x = torch.randn(1, 2, *size, dtype=torch.float64, generator=generator(0, "x"))
    y = torch.randn(1, 3, *conv.out_size, dtype=torch.float64, generator=generator(0, "y"))
    assert (conv(x) * y).sum().item() == pytest.approx((x * mirror(y)).sum().item(), abs=1e-10)


def test_kernel_lands_where_keras_puts_it():
    """One white pixel, a kernel of ones: Keras' windows start at rows -1, 1, 3 and 5."""
    layers = nn.Sequential(Turn(), StridedConv(1, 1, 5, (8, 8)), Turn())
    nn.init.ones_(layers[1].weight)
    nn.init.zeros_(layers[1].bias)
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 0, 0] = 1  # only the first window sees row 0
    assert layers(image)[0, 0].nonzero().tolist() == [[0, 0]]
    image.zero_()
    image[0, 0, 7, 7] = 1  # the last window covers rows 5 to 9, the one before rows 3 to 7
    assert layers(image)[0, 0].nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_parameters_of_the_paper_s_network():
    network = CAE((28, 28))
    encoder = (25 * 1 * 32 + 32) + (25 * 32 * 64 + 64) + (9 * 64 * 128 + 128) + (1152 * 10 + 10)
    decoder = (10 * 1152 + 1152) + (9 * 128 * 64 + 64) + (25 * 64 * 32 + 32) + (25 * 32 * 1 + 1)
    assert sum(p.numel() for p in network.encoder.parameters()) == encoder == 137_482
    assert sum(p.numel() for p in network.decoder.parameters()) == decoder == 138_497
    assert sum(p.numel() for p in network.parameters()) == 275_979


@pytest.mark.parametrize(
    ("shape", "deepest"),
    [
        ((28, 28), (3, 3)),
        ((8, 8), (1, 1)),
        ((32, 32, 3), (4, 4)),
        ((28, 16, 3), (3, 2)),
        ((30, 9, 2), (3, 1)),
        ((12, 31), (1, 3)),
        ((96, 64, 1), (12, 8)),
    ],
)
def test_shapes_come_back(shape, deepest):
    network = CAE(shape, embedding_dim=7)
    channels = shape[2] if len(shape) == 3 else 1
    x = torch.rand(2, channels, *shape[:2])
    assert network.encoder[:7](x).shape == (2, 128, *deepest)
    assert network.encoder(x).shape == (2, 7)
    assert network(x).shape == x.shape


def test_embedding_and_output_are_linear():
    network = glorot_(CAE((8, 8)), generator(0))
    assert isinstance(network.encoder[-1], nn.Linear)
    assert [type(layer) for layer in network.decoder[-2:]] == [SubpixelConv, Turn]
    x = torch.rand(64, 1, 8, 8)
    assert (network.encoder(x) < 0).any()
    assert (network(x) < 0).any()


@pytest.mark.parametrize("shape", [(7, 28), (28, 7, 3), (28,), (28, 28, 3, 1), (28, 28, 0)])
def test_unusable_image_shapes_are_named(shape):
    with pytest.raises(ValueError, match=r"images have shape .* at least 8 pixels"):
        CAE(shape)


def test_embedding_dim_must_be_positive():
    with pytest.raises(ValueError, match="embedding_dim is 0; expected at least 1"):
        CAE((8, 8), embedding_dim=0)


def test_glorot_bounds_and_zero_biases():
    network = glorot_(CAE((28, 28)), generator(3, "weights"))
    fans = {
        "encoder.1": 25 * (1 + 32),
        "encoder.3": 25 * (32 + 64),
        "encoder.5": 9 * (64 + 128),
        "encoder.9": 1152 + 10,
        "decoder.0": 10 + 1152,
        "decoder.4": 9 * (128 + 64),
        "decoder.6": 25 * (64 + 32),
        "decoder.8": 25 * (32 + 1),
    }
    for name, fan in fans.items():
        layer = network.get_submodule(name)
        limit = math.sqrt(6 / fan)
        largest = layer.weight.abs().max().item()
        assert 0.97 * limit < largest <= limit, name
        assert layer.weight.var().item() == pytest.approx(limit**2 / 3, rel=0.1), name
        assert not layer.bias.any(), name


def test_glorot_returns_the_module_and_follows_its_generator():
    def weights(seed: int) -> torch.Tensor:
        mlp = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))
        assert glorot_(mlp, generator(seed, "weights")) is mlp
        assert bool((mlp[1].weight == 1).all())  # other layers stay as they are
        return torch.cat([mlp[0].weight.flatten(), mlp[2].weight.flatten()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def images(n: int = 60, shape: tuple[int, ...] = (8, 8), seed: int = 0) -> np.ndarray:
    """Smooth random images, so that there is something to learn."""
    ramp = np.linspace(0, 255, shape[0])[:, None] * np.ones(shape[1])
    tilt = np.random.default_rng(seed).random((n, 1, 1))
    X = (tilt * ramp + (1 - tilt) * ramp.T).astype(np.uint8)
    return X if len(shape) == 2 else np.repeat(X[..., None], shape[2], axis=3)


def train(X: np.ndarray, context: Context | None = None, seed: int = 0, **params):
    params = {"epochs": 3, "batch_size": 16} | params
    return autoencoder(X, random_state=seed, context=context or Context(), **params)


def test_training_returns_what_it_says():
    X, context = images(), Recording()
    result = train(X, context, epochs=6, embedding_dim=3)
    assert result["embedding"].shape == (60, 3)
    assert result["embedding"].dtype == np.float32
    assert result["loss"].shape == (6,)
    assert result["loss"][-1] < 0.5 * result["loss"][0]
    assert context.steps == [("step", step, 24) for step in range(1, 25)]  # 4 an epoch
    assert [row["epoch"] for row in context.history] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in context.history] == result["loss"].tolist()
    network = load_autoencoder(result, X.shape[1:])
    z = network.encoder(pixels(image_tensor(X, "cpu"))).detach().numpy()
    np.testing.assert_allclose(z, result["embedding"], atol=1e-5)


def test_loss_is_the_mean_square_over_pixels():
    """Of one epoch of one batch, the loss is that of the initial network."""
    X = images(12)
    result = train(X, epochs=1, batch_size=12)
    network = load_autoencoder(train(X, epochs=0), X.shape[1:])
    x = X[:, None].astype(np.float32) / 255
    squares = (network(torch.from_numpy(x)).detach().numpy() - x) ** 2
    assert result["loss"][0] == pytest.approx(squares.sum() / (12 * 64), rel=1e-5)


def test_epoch_loss_weighs_images_not_batches(monkeypatch):
    X = images(10)
    with monkeypatch.context() as patch:  # weights that do not move: the batches' size is all
        patch.setattr(torch.optim.Adam, "step", lambda self: None)
        whole, split = train(X, batch_size=10), train(X, batch_size=7)
    np.testing.assert_allclose(whole["loss"], split["loss"], rtol=1e-5)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_same_seed_same_network_other_seed_not():
    X = images()
    first = train(X)
    assert same(first, train(X))
    assert not same(first, train(X, seed=1))


def test_resumed_training_equals_an_undisturbed_one():
    """Killed in the third of four epochs; where else, see `test_training`."""
    undisturbed = Recording()
    expected = train(images(), undisturbed, epochs=4)
    resumed, context = killed_and_resumed(lambda c: train(images(), c, epochs=4), 21, every=2)
    assert same(resumed, expected)
    assert context.history == undisturbed.history
    assert context.steps[0] == ("step", 11, 16)


def test_loading_refuses_what_does_not_fit():
    arrays = train(images())
    with pytest.raises(ValueError, match="do not fit a CAE of this size"):
        load_autoencoder(arrays, (32, 32))
    with pytest.raises(ValueError, match="no autoencoder among the arrays embedding"):
        load_autoencoder({"embedding": arrays["embedding"]}, (8, 8))


def test_loading_leaves_read_only_arrays_alone(tmp_path):
    arrays = train(images())
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in arrays}
    network = load_autoencoder(mapped, (8, 8))
    with torch.no_grad():
        network.encoder[1].bias.add_(1)
    assert np.array_equal(mapped["weights.encoder.1.bias"], arrays["weights.encoder.1.bias"])
    again = weight_arrays(load_autoencoder(mapped, (8, 8)))
    assert all(np.array_equal(again[name], arrays[name]) for name in again)


def test_divergence_is_an_error_with_advice():
    with pytest.raises(
        FloatingPointError, match=r"the loss of autoencoder became .*; lower the learn"
    ):
        train(images(), lr=1e30, epochs=20)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"epochs": -1}, "epochs is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": 0.0}, "lr"),
        ({"lr": math.nan}, "lr is nan"),
    ],
)
def test_parameters_out_of_range(params, message):
    with pytest.raises(ValueError, match=message):
        train(images(), **params)


def test_images_must_be_uint8():
    with pytest.raises(ValueError, match="expected uint8 images"):
        train(images().astype(np.float32))


def test_colour_images_train():
    result = train(images(20, (32, 32, 3)), epochs=1)
    assert result["embedding"].shape == (20, 10)
    assert np.isfinite(result["loss"]).all()


def test_bf16_trains_to_a_similar_loss():
    X = images()
    full, half = train(X), train(X, Context(precision="bf16"))
    assert half["embedding"].dtype == np.float32
    np.testing.assert_allclose(half["loss"], full["loss"], rtol=0.1)
    assert not np.array_equal(half["loss"], full["loss"])
