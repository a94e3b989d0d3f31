"""Small transformers that learn their tasks, all seeds at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from semijax.experiments.circuits import tasks
from semijax.experiments.circuits.model import Prompt, Weights, Wiring, read_sum, run
from semijax.experiments.circuits.tasks import LENGTH, VOCABULARY, Task

WIRING = Wiring(layers=2, heads=4, mlp=True, norm=True)

WIDTH, HEAD_WIDTH, HIDDEN = 32, 8, 64

TASKS = (tasks.INDUCTION, tasks.FIRST_AGAIN)

BATCH_SIZE, STEPS = 128, 1000

OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 5e-3, 100, STEPS), weight_decay=0.01),
)


def untrained(seed: int | jax.Array) -> Weights:
    """Draw the weights of a transformer; those of a linear map from n have a deviation of 1/√n."""
    layers, heads = WIRING.layers, WIRING.heads
    shapes = {
        "query": (layers, heads, WIDTH, HEAD_WIDTH),
        "key": (layers, heads, WIDTH, HEAD_WIDTH),
        "value": (layers, heads, WIDTH, HEAD_WIDTH),
        "out": (layers, heads, HEAD_WIDTH, WIDTH),
        "up": (layers, WIDTH, HIDDEN),
        "down": (layers, HIDDEN, WIDTH),
        "unembed": (WIDTH, VOCABULARY),
    }
    keys = jax.random.split(jax.random.key(seed), len(shapes) + 2)
    maps = {
        name: jax.random.normal(key, shape) / shape[-2] ** 0.5
        for key, (name, shape) in zip(keys[2:], shapes.items(), strict=True)
    }
    return Weights(
        token=jax.random.normal(keys[0], (VOCABULARY, WIDTH)),
        position=jax.random.normal(keys[1], (LENGTH, WIDTH)),
        query_bias=jnp.zeros((layers, heads, HEAD_WIDTH)),
        up_bias=jnp.zeros((layers, HIDDEN)),
        down_bias=jnp.zeros((layers, WIDTH)),
        **maps,
    )


def logits(weights: Weights, tokens: jax.Array) -> jax.Array:
    """Compute the logits of prompts in the order of their positions: of ``[n, T]``, ``[n, V]``."""

    def of_one(tokens: jax.Array) -> jax.Array:
        return run(WIRING, weights, Prompt(tokens, jnp.arange(LENGTH)), read_sum).logits

    return jax.vmap(of_one)(tokens)


def train(task: Task, seeds: Sequence[int], steps: int = STEPS) -> Weights:
    """Train a transformer for each seed, on examples that are never seen twice.

    Args:
        task: the task.
        seeds: of the weights and of the examples.
        steps: how many, of ``BATCH_SIZE`` examples.

    Returns:
        The weights, with an axis for the seeds in front.
    """
    weights = jax.vmap(untrained)(jnp.asarray(seeds))
    state = weights, jax.vmap(OPTIMIZER.init)(weights)
    rngs = [np.random.default_rng([seed, *task.name.encode()]) for seed in seeds]
    for _ in range(0, steps, CHUNK):
        drawn = [task.sample(rng, CHUNK * BATCH_SIZE) for rng in rngs]
        shape = len(seeds), CHUNK, BATCH_SIZE
        tokens = np.stack([own.tokens for own in drawn]).reshape(*shape, LENGTH)
        answers = np.stack([own.answers for own in drawn]).reshape(shape)
        state = _steps(state, tokens, answers)
    return state[0]


CHUNK = 50
"""How many steps are compiled into one program."""


@jax.jit
def _steps(state: Any, tokens: jax.Array, answers: jax.Array) -> Any:
    """Return the weights and the optimizer's state of all seeds after some batches."""

    def loss(weights: Weights, tokens: jax.Array, answers: jax.Array) -> jax.Array:
        found = logits(weights, tokens)
        return optax.softmax_cross_entropy_with_integer_labels(found, answers).mean()

    def step(state: Any, batch: Any) -> tuple[Any, None]:
        weights, moments = state
        updates, moments = OPTIMIZER.update(jax.grad(loss)(weights, *batch), moments, weights)
        return (optax.apply_updates(weights, updates), moments), None

    def of_seed(state: Any, *batches: jax.Array) -> Any:
        return jax.lax.scan(step, state, batches)[0]

    return jax.vmap(of_seed)(state, tokens, answers)
