"""Models that have learned nothing, to compare a trained model with."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Model = TypeVar("Model", bound=nnx.Module)

MODELS = ("trained", "untrained", "shuffled")
"""The models of a seed, as `controls` makes them."""


def untrained_like(model: Model, seed: int = 0) -> Model:
    """Make a model of the same architecture with random weights: what is left is not learnt."""
    return cast(Any, type(model))(cast(Any, model).config, rngs=nnx.Rngs(seed))


def shuffled_like(model: Model, seed: int = 0) -> Model:
    """Make a model with the same weights, each array's entries in random order.

    Trained weights are larger than untrained ones. These are of the right sizes, and in no relation
    to each other.
    """
    rng = np.random.default_rng(seed)
    shuffled = untrained_like(model)
    state = jax.tree.map(
        lambda leaf: jnp.asarray(rng.permutation(np.ravel(leaf)).reshape(leaf.shape)),
        nnx.state(model, nnx.Param),
    )
    nnx.update(shuffled, state)
    return shuffled


def controls(model: Model, seed: int) -> dict[str, Model]:
    """Return the model beside two that know nothing, of any class for ``untrained_like``."""
    untrained = untrained_like(model, seed=1000 + seed)
    return dict(zip(MODELS, (model, untrained, shuffled_like(model, seed)), strict=True))
