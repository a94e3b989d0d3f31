"""Exact effects: what becomes of the answer when some edges carry what they do in another run."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from semijax.experiments.circuits.model import Prompt, Weights, Wiring, run
from semijax.experiments.circuits.tasks import Pair


def preference(logits: jax.Array, pair: Pair) -> jax.Array:
    """Return the right answer's logit less that of the wrong one."""
    return logits[pair.right] - logits[pair.wrong]


def patched(
    wiring: Wiring, weights: Weights, prompt: Prompt, other: jax.Array, kept: jax.Array
) -> jax.Array:
    """Run on a prompt while some edges carry what their writers wrote in another run.

    Args:
        wiring: the transformer's.
        weights: the transformer's.
        prompt: the prompt.
        other: what was written in the other run, ``[W, T, D]``.
        kept: which edges carry what is written in this one, ``[W, R]``; or how much of it, from 0
            to 1.

    Returns:
        The logits, ``[V]``.
    """

    def read(written: jax.Array, readers: slice) -> jax.Array:
        own = kept[: len(written), readers].astype(written.dtype)
        replaced = other[: len(written)]
        return jnp.einsum("wr,wtd->rtd", own, written - replaced) + replaced.sum(0)

    return run(wiring, weights, prompt, read).logits


@functools.partial(jax.jit, static_argnums=0)
def circuit_preferences(
    wiring: Wiring, weights: Weights, pairs: Pair, circuits: jax.Array
) -> jax.Array:
    """Compute the preference of circuits: all other edges carry the corrupted run's values.

    Args:
        wiring: the transformer's.
        weights: the transformer's.
        pairs: n pairs.
        circuits: the edges of c circuits, bool ``[c, W, R]``.

    Returns:
        float ``[n, c]``.
    """

    def of_pair(pair: Pair) -> jax.Array:
        other = run(wiring, weights, pair.corrupted).written

        def of_circuit(kept: jax.Array) -> jax.Array:
            return preference(patched(wiring, weights, pair.clean, other, kept), pair)

        return jax.lax.map(of_circuit, circuits, batch_size=64)

    return jax.lax.map(of_pair, pairs)


class Effects(NamedTuple):
    """What each component is worth, in logits, for n pairs.

    Attributes:
        edges: of each edge that there can be, ``[n, E]``.
        writers: of all that a writer writes, ``[n, W]``.
    """

    edges: jax.Array
    writers: jax.Array


def one_by_one(wiring: Wiring) -> jax.Array:
    """Return the circuits without one edge, then those without one writer, ``[E + W, W, R]``."""
    edges = jnp.eye(wiring.edges.size, dtype=bool)[wiring.edges.ravel()]
    writers = jnp.broadcast_to(
        jnp.eye(len(wiring.writers), dtype=bool)[:, :, None],
        (len(wiring.writers), *wiring.edges.shape),
    )
    return ~jnp.concatenate([edges.reshape(-1, *wiring.edges.shape), writers])


def noising(wiring: Wiring, weights: Weights, pairs: Pair) -> Effects:
    """Compute what the preference loses when one component alone is corrupted."""
    found = circuit_preferences(wiring, weights, pairs, one_by_one(wiring))
    whole = circuit_preferences(wiring, weights, pairs, jnp.ones((1, *wiring.edges.shape), bool))
    count = int(wiring.edges.sum())
    return Effects(*jnp.split(whole - found, [count], axis=1))


def denoising(wiring: Wiring, weights: Weights, pairs: Pair) -> Effects:
    """Compute what the corrupted run's preference gains when one component alone is restored."""
    swapped = pairs._replace(
        clean=pairs.corrupted, corrupted=pairs.clean, right=pairs.wrong, wrong=pairs.right
    )
    return noising(wiring, weights, swapped)
