"""A small transformer whose residual stream is kept apart by who wrote it.

Every reader (a head's query, key or value, an MLP, the unembedding) sums the outputs of all writers
before it (the token and position embeddings, heads, MLPs). So there is one array for each edge of
the circuit, and any of them can be replaced, or asked for as a site.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import semijax as sj

EMBEDDINGS = ("token", "position")
"""The writers that come first."""

EPSILON = 1e-5

SOFTMAX = sj.atomic(jax.nn.softmax)
"""One node, so that it has a weight for `semijax.Relevance`: division by a sum of 0 has none."""


@dataclasses.dataclass(frozen=True)
class Wiring:
    """Which components a transformer has, and who can read from whom.

    Attributes:
        layers: how many.
        heads: in each layer.
        mlp: whether there is an MLP in each layer.
        norm: whether readers divide what they read by its root mean square (Zhang and Sennrich
            2019), without a learned gain.
    """

    layers: int
    heads: int
    mlp: bool = False
    norm: bool = False

    @functools.cached_property
    def writers(self) -> tuple[str, ...]:
        """The names of the writers, W of them: the embeddings, then layer by layer."""
        return (*EMBEDDINGS, *self.components)

    @functools.cached_property
    def components(self) -> tuple[str, ...]:
        """The writers that also read: heads and MLPs, ``"0.2"`` and ``"0.mlp"``."""
        own = [*map(str, range(self.heads)), *["mlp"] * self.mlp]
        return tuple(f"{layer}.{name}" for layer in range(self.layers) for name in own)

    @functools.cached_property
    def readers(self) -> tuple[str, ...]:
        """The names of the readers, R of them: ``"0.2.query"``, ``"0.mlp"``, last ``"logits"``."""
        names = []
        for layer in range(self.layers):
            for branch in ("query", "key", "value"):
                names += [f"{layer}.{head}.{branch}" for head in range(self.heads)]
            names += [f"{layer}.mlp"] * self.mlp
        return (*names, "logits")

    def readers_of_heads(self, layer: int) -> slice:
        """The readers that are a layer's queries, keys and values, in this order."""
        start = layer * (3 * self.heads + self.mlp)
        return slice(start, start + 3 * self.heads)

    def seen_by_heads(self, layer: int) -> int:
        """The number of writers before a layer."""
        return len(EMBEDDINGS) + layer * (self.heads + self.mlp)

    @functools.cached_property
    def edges(self) -> np.ndarray:
        """Who can read from whom: bool ``[W, R]``."""
        found = np.zeros((len(self.writers), len(self.readers)), bool)
        found[:, -1] = True
        for layer in range(self.layers):
            readers, seen = self.readers_of_heads(layer), self.seen_by_heads(layer)
            found[:seen, readers] = True
            if self.mlp:
                found[: seen + self.heads, readers.stop] = True
        return found

    @functools.cached_property
    def edge_names(self) -> tuple[str, ...]:
        """The names of the edges, in the order in which ``[W, R]`` arrays are masked."""
        return tuple(f"{self.writers[w]}→{self.readers[r]}" for w, r in np.argwhere(self.edges))


class Weights(NamedTuple):
    """The parameters of a transformer.

    It has L layers of width D, H heads of width K, and MLPs of width F, which may be 0, for V
    tokens and P positions.

    Attributes:
        token, position: ``[V, D]`` and ``[P, D]``.
        query, key, value: ``[L, H, D, K]``.
        query_bias: ``[L, H, K]``.
        out: ``[L, H, K, D]``.
        up, up_bias, down, down_bias: ``[L, D, F]``, ``[L, F]``, ``[L, F, D]`` and ``[L, D]``.
        unembed: ``[D, V]``.
    """

    token: jax.Array
    position: jax.Array
    query: jax.Array
    key: jax.Array
    value: jax.Array
    query_bias: jax.Array
    out: jax.Array
    up: jax.Array
    up_bias: jax.Array
    down: jax.Array
    down_bias: jax.Array
    unembed: jax.Array


class Prompt(NamedTuple):
    """A sequence of T tokens, stored in any order.

    Attention is not masked: what comes before what is known from the positions alone, so that
    prompts can differ in positions as they do in tokens. Logits are read at the last place.

    Attributes:
        tokens, positions: integers ``[T]``.
    """

    tokens: jax.Array
    positions: jax.Array


class Run(NamedTuple):
    """What a transformer computes of a prompt.

    Attributes:
        logits: at the last place, ``[V]``.
        written: by each writer, ``[W, T, D]``.
        read: by each reader, before it is normalised, ``[R, T, D]``.
        patterns: attention, from queries to keys, ``[L, H, T, T]``.
    """

    logits: jax.Array
    written: jax.Array
    read: jax.Array
    patterns: jax.Array


Read = Callable[[jax.Array, slice], jax.Array]
"""Of what has been written, ``[w, T, D]``, what some r readers read, ``[r, T, D]``."""


def read_edges(written: jax.Array, readers: slice) -> jax.Array:
    """Read the sum of what has been written, one site for the edges of some readers."""
    count = readers.stop - readers.start
    edges = jnp.broadcast_to(written, (count, *written.shape))
    return sj.tap(edges, f"edges/{readers.start}").sum(1)  # named by the first reader


def read_sum(written: jax.Array, readers: slice) -> jax.Array:
    """Read the sum of what has been written."""
    total = written.sum(0)
    return jnp.broadcast_to(total, (readers.stop - readers.start, *total.shape))


def embed(weights: Weights, prompt: Prompt) -> jax.Array:
    """Return what the token and the position embeddings write, ``[2, T, D]``."""
    return jnp.stack([weights.token[prompt.tokens], weights.position[prompt.positions]])


def run(wiring: Wiring, weights: Weights, prompt: Prompt, read: Read = read_edges) -> Run:
    """Run the transformer on one prompt, see `run_embedded`."""
    return run_embedded(wiring, weights, embed(weights, prompt), read)


def run_embedded(
    wiring: Wiring, weights: Weights, embedded: jax.Array, read: Read = read_edges
) -> Run:
    """Run the transformer on what the embeddings write, ``[2, T, D]``.

    Its sites are ``nodes/…``, what writers write, ``[w, T, D]`` for those of a layer; ``edges/…``,
    see `read_edges`; ``patterns/…`` and ``scales/…``, which `semijax.freeze` may close.
    """
    heads = wiring.heads
    inputs: list[jax.Array] = []
    patterns: list[jax.Array] = []

    def normalised(x: jax.Array, name: str) -> jax.Array:
        inputs.append(x)
        if not wiring.norm:
            return x
        scale = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + EPSILON)
        return x * sj.tap(scale, f"scales/{name}")

    written = sj.tap(embedded, "nodes/embeddings")
    for layer in range(wiring.layers):
        readers = wiring.readers_of_heads(layer)
        x = normalised(read(written, readers), f"{layer}.heads")
        query = jnp.einsum("htd,hdk->htk", x[:heads], weights.query[layer])
        query = query + weights.query_bias[layer][:, None]
        key = jnp.einsum("htd,hdk->htk", x[heads : 2 * heads], weights.key[layer])
        value = jnp.einsum("htd,hdk->htk", x[2 * heads :], weights.value[layer])
        scores = jnp.einsum("hqk,hpk->hqp", query, key) / key.shape[-1] ** 0.5
        pattern = sj.tap(SOFTMAX(scores), f"patterns/{layer}")
        patterns.append(pattern)
        mixed = jnp.einsum("hqp,hpk->hqk", pattern, value)
        out = jnp.einsum("hqk,hkd->hqd", mixed, weights.out[layer])
        written = jnp.concatenate([written, sj.tap(out, f"nodes/{layer}.heads")])
        if wiring.mlp:
            readers = slice(readers.stop, readers.stop + 1)
            x = normalised(read(written, readers), f"{layer}.mlp")
            hidden = jax.nn.relu(x @ weights.up[layer] + weights.up_bias[layer])
            out = hidden @ weights.down[layer] + weights.down_bias[layer]
            written = jnp.concatenate([written, sj.tap(out, f"nodes/{layer}.mlp")])
    last = slice(len(wiring.readers) - 1, len(wiring.readers))
    x = normalised(read(written, last), "logits")
    return Run(x[0, -1] @ weights.unembed, written, jnp.concatenate(inputs), jnp.stack(patterns))
