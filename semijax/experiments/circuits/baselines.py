"""What others score components by, from one pair of prompts.

A score is positive where a component raises the preference for the right answer, or not negative if
the method has no sign. A score that is not a number says that a method has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from semijax.experiments.circuits.model import (
    Weights,
    Wiring,
    embed,
    read_sum,
    run,
    run_embedded,
)
from semijax.experiments.circuits.patching import patched, preference
from semijax.experiments.circuits.tasks import Pair

EAP_STEPS = 5
"""The steps of EAP-IG, as many as in its paper."""

SITE_STEPS = 10
"""The steps of integrated gradients at sites."""


class Scores(NamedTuple):
    """The scores of edges, ``[W, R]``, and of writers, ``[W]``."""

    edges: jax.Array
    writers: jax.Array


def absolute_gradient(wiring: Wiring, weights: Weights, pair: Pair) -> Scores:
    """Score by Σ|derivative| over the elements of an array, which is the same for all writers."""
    read = _reader_gradients(wiring, weights, pair, embed(weights, pair.clean))
    edges = jnp.broadcast_to(jnp.abs(read).sum((1, 2)), wiring.edges.shape)
    written = jnp.einsum("wr,rtd->wtd", wiring.edges.astype(read.dtype), read)
    return Scores(edges, jnp.abs(written).sum((1, 2)))


def gradient_times_activation(wiring: Wiring, weights: Weights, pair: Pair) -> Scores:
    """Score by Σ derivative × value: what the first order says of replacing it by 0."""
    written = run(wiring, weights, pair.clean, read_sum).written
    return _first_order(wiring, weights, pair, jnp.zeros_like(written))


def attribution_patching(wiring: Wiring, weights: Weights, pair: Pair) -> Scores:
    """Score by Σ derivative × difference from the corrupted run.

    Source: Syed et al. 2023 (EAP) for edges; Nanda 2023 for nodes.
    """
    return _first_order(
        wiring, weights, pair, run(wiring, weights, pair.corrupted, read_sum).written
    )


def eap_ig(wiring: Wiring, weights: Weights, pair: Pair) -> Scores:
    """Score by Σ derivative × difference, derivatives averaged between the prompts' embeddings.

    Source: Hanna et al. 2024, EAP-IG (inputs).
    """
    here, there = (embed(weights, prompt) for prompt in (pair.clean, pair.corrupted))
    steps = jnp.arange(1, EAP_STEPS + 1) / EAP_STEPS

    def at(step: jax.Array) -> jax.Array:
        return _reader_gradients(wiring, weights, pair, there + step * (here - there))

    read = jax.vmap(at)(steps).mean(0)
    clean, other = (
        run(wiring, weights, prompt, read_sum).written for prompt in (pair.clean, pair.corrupted)
    )
    edges = jnp.einsum("wtd,rtd->wr", clean - other, read)
    return _of_edges(wiring, edges)


def integrated_gradients(wiring: Wiring, weights: Weights, pair: Pair) -> Scores:
    """Score nodes alone, by derivatives averaged while a node moves from the corrupted value.

    Source: Sundararajan et al. 2017, at each node as in Marks et al. 2025.
    """
    other = run(wiring, weights, pair.corrupted, read_sum).written
    steps = (jnp.arange(SITE_STEPS) + 0.5) / SITE_STEPS

    def slope(writer: jax.Array, step: jax.Array) -> jax.Array:
        def moved(step: jax.Array) -> jax.Array:
            kept = jnp.ones(wiring.edges.shape).at[writer].set(step)
            return preference(patched(wiring, weights, pair.clean, other, kept), pair)

        return jax.grad(moved)(step)

    every = jnp.arange(len(wiring.writers))
    slopes = jax.vmap(lambda writer: jax.vmap(lambda s: slope(writer, s))(steps))(every)
    return Scores(jnp.full(wiring.edges.shape, jnp.nan), slopes.mean(1))


def attention_rollout(wiring: Wiring, weights: Weights, pair: Pair) -> Scores:
    """Score heads alone: by the attention that gets through them from where the answer is.

    A layer's attention is the mean over its heads, and half of what a place has is its own. All the
    attention through a head is the same for all heads of a layer, as rows of patterns sum to 1;
    what starts at the places the answer can be seen at is not. It ends at the last place.

    Source: Abnar and Zuidema 2020, which scores tokens.
    """
    patterns = run(wiring, weights, pair.clean, read_sum).patterns
    layers, heads, length, _ = patterns.shape
    mixed = 0.5 * patterns.mean(1) + 0.5 * jnp.eye(length)
    before = [pair.told_at.astype(mixed.dtype)]
    after = [jnp.eye(length)[-1]]
    for layer in range(layers):
        before.append(mixed[layer] @ before[-1])
        after.insert(0, after[0] @ mixed[layers - 1 - layer])
    through = jnp.einsum(
        "lq,lhqk,lk->lh", jnp.stack(after[1:]), patterns, jnp.stack(before[:-1])
    ) / (2 * heads)
    scores = jnp.full(len(wiring.writers), jnp.nan)
    for layer in range(layers):
        start = wiring.seen_by_heads(layer)
        scores = scores.at[start : start + heads].set(through[layer])
    return Scores(jnp.full(wiring.edges.shape, jnp.nan), scores)


def information_flow_routes(wiring: Wiring, weights: Weights, pair: Pair) -> Scores:
    """Score by how near what is written is to all that is read there, in the L1 norm.

    Over the writers of a reader's input, the proximities max(‖x‖ − ‖x − writer's‖, 0) are made to
    sum to 1 at each place, and averaged over the places. A writer has the sum of its edges.

    Source: Ferrando and Voita 2024; for the edges of a circuit as in the code of Mueller et al.
    2025.
    """
    found = run(wiring, weights, pair.clean, read_sum)

    def norm(x: jax.Array) -> jax.Array:
        return jnp.abs(x).sum(-1)

    def of_reader(x: jax.Array, seen: jax.Array) -> jax.Array:
        near = jnp.maximum(norm(x) - norm(x - found.written), 0) * seen[:, None]
        total = near.sum(0)
        return jnp.where(total > 0, near / jnp.where(total > 0, total, 1), 0).mean(1)

    edges = jax.vmap(of_reader, out_axes=1)(found.read, jnp.asarray(wiring.edges).T)
    return _of_edges(wiring, edges)


METHODS: dict[str, Callable[[Wiring, Weights, Pair], Scores]] = {
    "|grad|": absolute_gradient,
    "gradient × activation": gradient_times_activation,
    "attribution patching (EAP)": attribution_patching,
    "EAP-IG": eap_ig,
    "integrated gradients": integrated_gradients,
    "attention rollout": attention_rollout,
    "information-flow routes": information_flow_routes,
}


def _reader_gradients(
    wiring: Wiring, weights: Weights, pair: Pair, embedded: jax.Array
) -> jax.Array:
    """Return the gradient of the preference at what is read, ``[R, T, D]``."""

    def moved(by: jax.Array) -> jax.Array:
        found = run_embedded(
            wiring, weights, embedded, lambda written, at: read_sum(written, at) + by[at]
        )
        return preference(found.logits, pair)

    shape = len(wiring.readers), *embedded.shape[1:]
    return jax.grad(moved)(jnp.zeros(shape, embedded.dtype))


def _first_order(wiring: Wiring, weights: Weights, pair: Pair, other: jax.Array) -> Scores:
    """Return the derivatives by how much is kept of what the edges carry, the rest being other."""

    def kept_preference(kept: jax.Array) -> jax.Array:
        return preference(patched(wiring, weights, pair.clean, other, kept), pair)

    return _of_edges(wiring, jax.grad(kept_preference)(jnp.ones(wiring.edges.shape)))


def _of_edges(wiring: Wiring, edges: jax.Array) -> Scores:
    """Return edges' scores, and their sums as those of the writers."""
    edges = jnp.where(wiring.edges, edges, 0)
    return Scores(edges, edges.sum(1))
