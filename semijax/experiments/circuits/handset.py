"""Transformers whose weights are set by hand, so that their mechanisms are known.

Each writer of a mechanism writes into a subspace of its own, and its readers read that one only.
The other heads are distractors: they attend by random weights to all there is, and write into
directions that nobody in the mechanism reads; half of them leak a little into all others.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semijax.experiments.circuits import tasks
from semijax.experiments.circuits.model import Weights, Wiring
from semijax.experiments.circuits.tasks import LENGTH, TOKENS, VOCABULARY, Task

WIRING = Wiring(layers=3, heads=4)

HEAD_WIDTH = TOKENS
SPACES = ("previous", "hop", "answer")
"""The subspaces between the embeddings' and that of the distractors, of ``TOKENS`` dimensions."""

WIDTH = VOCABULARY + LENGTH + (len(SPACES) + 1) * TOKENS

SHARPNESS = (4.0, 8.0)
"""The range of the margin by which the right key's score leads, in nats."""

NOISE = 0.1
"""What is added to the mechanism's weights, as a fraction of their root mean square."""

LEAK = 0.3
"""The part that half of the distractors write into all directions."""


class Head(NamedTuple):
    """A head of a mechanism.

    Attributes:
        query: where it reads its query: ``"token"``, one of ``SPACES``, ``"position"`` for a map of
            positions to positions, or ``"bias"`` for a fixed position.
        key: where it reads its keys: ``"position"``, ``"token"`` or one of ``SPACES``.
        out: the space that it writes the tokens into that it has found.
        targets: for each position, the position to attend to; for ``"bias"`` there is one.
    """

    query: str
    key: str
    out: str
    targets: tuple[int, ...] = ()


PREVIOUS = Head("position", "position", "previous", (0, *range(LENGTH - 1)))
"""Attends to the token before, and writes which one it is."""

KEY_OF_PAIR = PREVIOUS._replace(
    targets=tuple(p - 1 if p and p % 2 == 0 else 0 for p in range(LENGTH))
)
"""The same at even positions; at odd ones it attends to the start, and writes nothing."""


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """A task and the heads that do it.

    Attributes:
        task: the task.
        heads: the heads by name; each lies in a later layer than the one before.
        edges: all edges that carry something the answer depends on, by the names of heads.
    """

    task: Task
    heads: dict[str, Head]
    edges: tuple[tuple[str, str], ...]


MECHANISMS = (
    Mechanism(
        tasks.INDUCTION,
        {"previous": PREVIOUS, "match": Head("token", "previous", "answer")},
        (
            ("position", "previous.query"),
            ("position", "previous.key"),
            ("token", "previous.value"),
            ("token", "match.query"),
            ("previous", "match.key"),
            ("token", "match.value"),
            ("match", "logits"),
        ),
    ),
    Mechanism(
        tasks.COPY_FIRST,
        {"first": Head("bias", "position", "answer", (1,))},
        (("position", "first.key"), ("token", "first.value"), ("first", "logits")),
    ),
    Mechanism(
        tasks.TWO_HOPS,
        {
            "previous": KEY_OF_PAIR,
            "first hop": Head("token", "previous", "hop"),
            "second hop": Head("hop", "previous", "answer"),
        },
        (
            ("position", "previous.query"),
            ("position", "previous.key"),
            ("token", "previous.value"),
            ("token", "first hop.query"),
            ("previous", "first hop.key"),
            ("token", "first hop.value"),
            ("first hop", "second hop.query"),
            ("previous", "second hop.key"),
            ("token", "second hop.value"),
            ("second hop", "logits"),
        ),
    ),
)


class Handset(NamedTuple):
    """A transformer with its mechanism.

    Attributes:
        weights: the transformer's.
        writers: which of them the mechanism needs, bool ``[W]``.
        edges: likewise, bool ``[W, R]``.
    """

    weights: Weights
    writers: np.ndarray
    edges: np.ndarray


def build(mechanism: Mechanism, seed: int, *, aligned: bool = False) -> Handset:
    """Set the weights of a transformer.

    Args:
        mechanism: what it does.
        seed: of the bases of all subspaces, of the places of the heads, of how sharply they
            attend, of the noise in their weights, and of the distractors.
        aligned: whether each token and position has an element of the residual stream, and of the
            mechanism's heads, to itself. By default the bases are random, as nothing else makes
            one better than another in a transformer.
    """
    rng = np.random.default_rng([seed, *mechanism.task.name.encode()])
    draw = _permutation if aligned else _rotation
    basis = draw(rng, WIDTH)
    sizes = {"token": VOCABULARY, "position": LENGTH} | dict.fromkeys(SPACES, TOKENS)
    starts = np.cumsum([0, *sizes.values()])
    spaces = {
        name: basis[start : start + size]
        for (name, size), start in zip(sizes.items(), starts[:-1], strict=True)
    }
    unread = basis[starts[-1] :]

    places = _places(rng, len(mechanism.heads))
    query, key, value, out = (
        np.zeros((WIRING.layers, WIRING.heads, *shape))
        for shape in [(WIDTH, HEAD_WIDTH)] * 3 + [(HEAD_WIDTH, WIDTH)]
    )
    bias = np.zeros((WIRING.layers, WIRING.heads, HEAD_WIDTH))
    for head, place in zip(mechanism.heads.values(), places, strict=True):
        inside, carried = draw(rng, HEAD_WIDTH), draw(rng, HEAD_WIDTH)
        sharpness = rng.uniform(*SHARPNESS) * HEAD_WIDTH**0.5
        keys = spaces[head.key][:HEAD_WIDTH]
        key[place] = keys.T @ inside[: len(keys)]
        if head.query == "bias":
            bias[place] = sharpness * inside[head.targets[0]]
        elif head.query == "position":
            query[place] = sharpness * spaces["position"].T @ inside[list(head.targets)]
        else:
            query[place] = sharpness * spaces[head.query][:TOKENS].T @ inside
        value[place] = spaces["token"][:TOKENS].T @ carried
        out[place] = carried.T @ spaces[head.out]
        for array in (query, key, value):
            array[place] += NOISE * array[place].std() * rng.standard_normal(array[place].shape)
    distractors = [p for p in np.ndindex(WIRING.layers, WIRING.heads) if p not in places]
    for number, place in enumerate(rng.permutation(distractors)):
        place = tuple(place)
        for array, size in ((query, 2.0), (key, 1.0), (value, 1.0)):
            array[place] = size * rng.standard_normal((WIDTH, HEAD_WIDTH)) / HEAD_WIDTH**0.5
        mixed = rng.standard_normal((HEAD_WIDTH, len(unread))) @ unread
        if number % 2:
            mixed += LEAK * rng.standard_normal((HEAD_WIDTH, WIDTH))
        out[place] = rng.uniform(0.5, 2) * mixed / HEAD_WIDTH

    unembed = np.zeros((WIDTH, VOCABULARY))
    unembed[:, :TOKENS] = 4 * spaces["answer"].T
    no_mlp = jnp.zeros((WIRING.layers, WIDTH, 0))
    weights = Weights(
        token=_float32(spaces["token"]),
        position=_float32(spaces["position"]),
        query=_float32(query),
        key=_float32(key),
        value=_float32(value),
        query_bias=_float32(bias),
        out=_float32(out),
        up=no_mlp,
        up_bias=no_mlp[:, 0],
        down=no_mlp.swapaxes(1, 2),
        down_bias=jnp.zeros((WIRING.layers, WIDTH)),
        unembed=_float32(unembed),
    )
    return Handset(weights, *_truth(mechanism, places))


def _float32(array: np.ndarray) -> jax.Array:
    return jnp.asarray(array, jnp.float32)


def _rotation(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw an orthogonal matrix."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.sign(np.diag(r))


def _permutation(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw the matrix of a permutation."""
    return np.eye(size)[rng.permutation(size)]


def _places(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Draw a layer and a head for each of some heads, layers ascending."""
    layers = sorted(rng.permutation(WIRING.layers)[:count].tolist())
    return [(layer, int(rng.integers(WIRING.heads))) for layer in layers]


def _truth(mechanism: Mechanism, places: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the writers and the edges that a mechanism needs."""
    named = dict(zip(mechanism.heads, (f"{layer}.{head}" for layer, head in places), strict=True))
    edges = np.zeros(WIRING.edges.shape, bool)
    for writer, reader in mechanism.edges:
        head, dot, branch = reader.partition(".")
        at = WIRING.readers.index(named.get(head, head) + dot + branch)
        edges[WIRING.writers.index(named.get(writer, writer)), at] = True
    return np.asarray(edges.any(1)), edges
