"""The paths to the feature that matters, against those to others: Fig. 6b of Du et al. (2023)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import semijax as sj
from semijax import checks, zoo
from semijax.experiments.softmax import log_softmax

FEATURES = 4
POINTS = 14_000  # of 20,000, the released code trains on 0.7
BATCH_SIZE = 32

PUBLISHED = {
    4: (2.31, 2.29),
    8: (2.83, 2.85),
    16: (3.75, 3.61),
    32: (4.47, 4.31),
    64: (5.10, 4.95),
    128: (5.79, 5.60),
}
"""The entropies read off the figure, in nats by hidden units: relevant, irrelevant features."""


class FeatureEntropies(NamedTuple):
    """Path entropies in nats: of the feature that decides the label, and the others' mean."""

    relevant: float
    irrelevant: float


class MLP(nnx.Module):
    """A classifier with one hidden layer and leaky ReLUs, initialised as in the released code.

    Args:
        hidden: the number of hidden units.
        rngs: of the parameters.
    """

    def __init__(self, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.up = _linear(FEATURES, hidden, rngs)
        self.down = _linear(hidden, 2, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map float ``[..., 4]`` to logits ``[..., 2]``."""
        return self.down(jax.nn.leaky_relu(self.up(x), 0.01))


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(
        inputs,
        outputs,
        kernel_init=nnx.initializers.variance_scaling(1.0, "fan_avg", "normal"),
        bias_init=nnx.initializers.normal(outputs**-0.5),
        rngs=rngs,
    )


def sample(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw points whose label says whether their first coordinate is above one half.

    Args:
        n: how many.
        seed: equal arguments give equal data.

    Returns:
        Points float32 ``[n, 4]``, uniform from 0 to 1, and labels int32 ``[n]``.
    """
    points = np.random.default_rng(seed).random((n, FEATURES), np.float32)
    return points, (points[:, 0] > 0.5).astype(np.int32)


def cross_entropy(logits: jax.Array, labels: jax.Array, *, max_in_graph: bool = True) -> jax.Array:
    """Compute the mean cross-entropy, with the graph of the released code or with JAX's.

    Args:
        logits: float ``[n, classes]``.
        labels: int ``[n]``.
        max_in_graph: whether there are paths through the largest logit, see ``log_softmax``.

    Returns:
        A scalar, in nats.
    """
    log_p = log_softmax(logits, max_in_graph=max_in_graph)
    return -log_p[jnp.arange(len(labels)), labels].mean()


def feature_entropies(
    hidden: int,
    seed: int = 0,
    *,
    trained: bool = True,
    max_in_graph: bool = True,
    points: int = POINTS,
) -> FeatureEntropies:
    """Train an MLP on points of which one feature matters, and measure each feature's entropy.

    It is that of the distribution of the paths from one input element to the mean cross-entropy of
    a batch (Du et al. 2023, Eq. 6), averaged over the batch. Training is for one epoch, with Adam.

    Args:
        hidden: the number of hidden units.
        seed: of the points, the parameters and the order of the batches.
        trained: False for the control: the same network before training.
        max_in_graph: as for ``cross_entropy``.
        points: what the network is trained on; the last 32 are the batch.

    Raises:
        ValueError: if there is no hidden unit, or too few points to train on.

    Source: Du et al. 2023, Fig. 6b.

    Example:
        >>> before, after = (feature_entropies(16, trained=trained) for trained in (False, True))
        >>> before.relevant < after.relevant
        True
    """
    checks.check_positive("hidden", hidden)
    data = sample(points, seed=seed)
    model = MLP(hidden, rngs=nnx.Rngs(seed))

    def loss(model: MLP, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        inputs, labels = batch
        return cross_entropy(model(inputs), labels, max_in_graph=max_in_graph)

    if trained:
        zoo.train(model, loss, data, epochs=1, batch_size=BATCH_SIZE, seed=seed, progress=False)
    inputs, labels = (jnp.asarray(array[-BATCH_SIZE:]) for array in data)
    entropies = sj.semiring_grad(lambda x: loss(model, (x, labels)), sj.Entropy())
    relevant, *irrelevant = jax.jit(entropies)(inputs).mean(axis=0).tolist()
    return FeatureEntropies(relevant, float(np.mean(irrelevant)))
