"""DCEC in Keras on TensorFlow, written from the papers: the peer of `methods.dcec`.

The network and its sizes are Guo et al.'s, the losses Fiorentino's equations 1 to 4. How Keras is
called is a choice, so that it is timed in several ways: as both authors' code calls it, and as
fast as we could get it.

References
----------
Guo, Liu, Zhu and Yin, Deep Clustering with Convolutional Autoencoders, ICONIP 2017.
Fiorentino, Semi-Supervised Deep Clustering with Convolutional Autoencoders, 2022.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported

import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

BATCH_SIZE = 256
BATCH_SIZES = (32, 256, 1024, 4096)  # to refresh with; the fastest differs between machines
LEARNING_RATE = 1e-3
UNTIMED_STEPS = 5  # tracing and compiling


class ClusteringLayer(layers.Layer):
    """Soft assignments q ``(n, K)`` of embeddings ``(n, d)`` by Student's t, equation 1."""

    def __init__(self, n_clusters: int) -> None:
        super().__init__()
        self.n_clusters = n_clusters

    def build(self, input_shape: tuple[int | None, int]) -> None:
        """The centres ``(K, d)``."""
        self.centres = self.add_weight(
            shape=(self.n_clusters, input_shape[-1]), initializer="glorot_uniform", name="centres"
        )

    def call(self, z: tf.Tensor) -> tf.Tensor:
        """Q of a batch of embeddings."""
        squares = keras.ops.square(keras.ops.expand_dims(z, 1) - self.centres)  # (n, K, d)
        similarity = 1 / (1 + keras.ops.sum(squares, axis=2))
        return similarity / keras.ops.sum(similarity, axis=1, keepdims=True)


def build_models(n_clusters: int = 10) -> tuple[keras.Model, keras.Model, keras.Model]:
    """Three models of the same weights, for images ``(n, 28, 28, 1)`` with pixels in [0, 1].

    Returns
    -------
    The autoencoder, images to reconstructions; the joint model, images to q and reconstructions;
    the assigner, images to q alone. The first two are compiled.
    """
    images = keras.Input((28, 28, 1))
    h = layers.Conv2D(32, 5, strides=2, padding="same", activation="relu")(images)  # 14x14
    h = layers.Conv2D(64, 5, strides=2, padding="same", activation="relu")(h)  # 7x7
    h = layers.Conv2D(128, 3, strides=2, padding="valid", activation="relu")(h)  # 3x3
    z = layers.Dense(10, name="embedding")(layers.Flatten()(h))
    h = layers.Dense(1152, activation="relu")(z)
    h = layers.Reshape((3, 3, 128))(h)
    h = layers.Conv2DTranspose(64, 3, strides=2, padding="valid", activation="relu")(h)
    h = layers.Conv2DTranspose(32, 5, strides=2, padding="same", activation="relu")(h)
    reconstruction = layers.Conv2DTranspose(1, 5, strides=2, padding="same")(h)
    q = ClusteringLayer(n_clusters)(z)
    autoencoder = keras.Model(images, reconstruction)
    autoencoder.compile(loss="mse", optimizer=keras.optimizers.Adam(LEARNING_RATE))
    joint = keras.Model(images, [q, reconstruction])
    joint.compile(loss=["kld", "mse"], optimizer=keras.optimizers.Adam(LEARNING_RATE))
    return autoencoder, joint, keras.Model(images, q)


def target_distribution(q: np.ndarray) -> np.ndarray:
    """The targets p ``(n, K)`` of all soft assignments q, equation 2."""
    weight = q**2 / q.sum(0)
    return weight / weight.sum(1, keepdims=True)


class KerasDCEC:
    """The steps and refreshes of DCEC on some images, timed.

    Each training step and each refresh comes in several ways, see `steps` and `refresh`.

    Parameters
    ----------
    X : uint8 images ``(n, 28, 28)``, n at least 256.
    """

    def __init__(self, X: np.ndarray) -> None:
        keras.utils.set_random_seed(0)
        self.images = (X[..., np.newaxis] / 255).astype(np.float32)
        self.autoencoder, self.joint, self.assigner = build_models()
        self.compiled_pretraining = compiled_step(self.autoencoder, reconstruction_loss)
        self.compiled_joint = compiled_step(self.joint, joint_loss)
        self.compiled_assigner = tf.function(self.assigner, reduce_retracing=True)
        without_xla = keras.Model(self.joint.inputs, self.joint.outputs)
        without_xla.compile(jit_compile=False)
        self._predictors = {"XLA": self.joint, "no XLA": without_xla}  # Keras' default is XLA
        self._step = 0
        self.p = np.full((len(X), 10), 0.1, dtype=np.float32)
        self._best = fastest(self._predict, product(BATCH_SIZES, self._predictors))
        (self._best_alone,) = fastest(self._assign, product(BATCH_SIZES))
        for phase in ("pretraining", "joint"):
            for way in ("train_on_batch", "compiled"):
                self.steps(phase, way, UNTIMED_STEPS)

    def n_parameters(self) -> int:
        """The number of weights that the joint phase trains, centres included."""
        return self.joint.count_params()

    def best_ways(self) -> str:
        """How all images are assigned fastest."""
        size, compiler = self._best
        return f"both outputs in batches of {size:,} ({compiler}), q alone of {self._best_alone:,}"

    def steps(self, phase: str, way: str, n_steps: int) -> float:
        """The median seconds of `n_steps` steps, batch after batch in the order of the images.

        Parameters
        ----------
        phase : ``"pretraining"`` or ``"joint"``.
        way : ``"train_on_batch"``, or ``"compiled"``, one `tf.function` of our own.
        """
        train = self._trainer(phase, way)
        seconds = []
        for _ in range(n_steps):
            start = time.perf_counter()
            train(self._next_batch())
            seconds.append(time.perf_counter() - start)
        return median(seconds)

    def refresh(self, way: str) -> float:
        """The seconds of q of all images and of p from it; p is kept for the next steps.

        Parameters
        ----------
        way : ``"authors"``, both outputs in Keras' own batches of 32; ``"best"``, both as it is
            fastest; ``"encoder"``, q alone, compiled, with the batch size best for it.
        """
        ways: dict[str, Callable[[], np.ndarray]] = {
            "authors": partial(self._predict, 32, "XLA"),
            "best": partial(self._predict, *self._best),
            "encoder": partial(self._assign, self._best_alone),
        }
        if way not in ways:
            raise ValueError(f"way is {way!r}; expected one of {', '.join(ways)}")
        start = time.perf_counter()
        self.p = target_distribution(ways[way]())
        return time.perf_counter() - start

    def cycle(self, step_way: str, refresh_way: str, n_steps: int) -> dict[str, float]:
        """The seconds of one refresh and of `n_steps` joint steps after it, and of their parts."""
        start = time.perf_counter()
        refresh = self.refresh(refresh_way)
        step = self.steps("joint", step_way, n_steps)
        return {"step": step, "refresh": refresh, "cycle": time.perf_counter() - start}

    def _predict(self, batch_size: int, compiler: str) -> np.ndarray:
        """Q of all images, computed with the reconstructions, as the authors' code does."""
        model = self._predictors[compiler]
        q: np.ndarray = model.predict(self.images, batch_size=batch_size, verbose=0)[0]
        return q

    def _assign(self, batch_size: int) -> np.ndarray:
        """Q of all images alone, by one `tf.function` of our own."""
        starts = range(0, len(self.images), batch_size)
        blocks = (self.images[i : i + batch_size] for i in starts)
        return np.concatenate([self.compiled_assigner(block).numpy() for block in blocks])

    def _trainer(self, phase: str, way: str) -> Callable[[slice], object]:
        """What does one step on the rows it is given, and waits for its end."""
        x, p = self.images, self.p
        trainers: dict[tuple[str, str], Callable[[slice], object]] = {
            ("pretraining", "train_on_batch"): lambda s: self.autoencoder.train_on_batch(
                x[s], x[s]
            ),
            ("joint", "train_on_batch"): lambda s: self.joint.train_on_batch(x[s], [p[s], x[s]]),
            ("pretraining", "compiled"): lambda s: self.compiled_pretraining(x[s], p[s]).numpy(),
            ("joint", "compiled"): lambda s: self.compiled_joint(x[s], p[s]).numpy(),
        }
        if (phase, way) not in trainers:
            known = ", ".join(" ".join(words) for words in trainers)
            raise ValueError(f"there is no step {phase} {way}; expected one of {known}")
        return trainers[phase, way]

    def _next_batch(self) -> slice:
        """The rows of the next whole batch."""
        start = self._step % (len(self.images) // BATCH_SIZE) * BATCH_SIZE
        self._step += 1
        return slice(start, start + BATCH_SIZE)


def fastest(function: Callable[..., object], ways: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The arguments with which a second call is fastest; the first traces and compiles."""

    def seconds(way: tuple[Any, ...]) -> float:
        function(*way)
        start = time.perf_counter()
        function(*way)
        return time.perf_counter() - start

    return min(ways, key=seconds)


Loss = Callable[[keras.Model, tf.Tensor, tf.Tensor], tf.Tensor]


def reconstruction_loss(autoencoder: keras.Model, x: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
    """The mean squared error over pixels; `p` is not used."""
    return tf.reduce_mean(tf.square(autoencoder(x, training=True) - x))


def joint_loss(joint: keras.Model, x: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
    """L_r + L_c, equations 3 and 4 with lambda = 1."""
    q, reconstruction = joint(x, training=True)
    clustering = tf.reduce_mean(keras.losses.kl_divergence(p, q))
    return clustering + tf.reduce_mean(tf.square(reconstruction - x))


def compiled_step(model: keras.Model, loss: Loss) -> Callable[[np.ndarray, np.ndarray], tf.Tensor]:
    """One Adam step as a single graph, without what `train_on_batch` does around it."""
    optimiser = keras.optimizers.Adam(LEARNING_RATE)
    optimiser.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(x: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(model, x, p)
        gradients = tape.gradient(value, model.trainable_variables)
        optimiser.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return value

    return step
