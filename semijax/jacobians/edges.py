"""Single edges as concrete numbers: those that leave a node, or enter it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.semirings.base import Semiring
from semijax.semirings.blocks import BLOCK_BYTES
from semijax.semirings.order import Interval, MaxProduct


class Edges(NamedTuple):
    """The edges at some nodes that were asked for: NumPy arrays of the same length.

    Attributes:
        owner: integers: which of those nodes each edge is at.
        other: integers: the node at its other end, a position in the flattened array.
        weight: float64.

    Example:
        >>> import jax.numpy as jnp, numpy as np, semijax as sj
        >>> weights = jnp.array([2.0, 5.0])
        >>> total = sj.jacobians.Reduction(weights, in_shape=(2,), out_shape=(), axes=(0,))
        >>> edges = total.entering(np.array([0]))
        >>> print(edges.owner, edges.other, edges.weight)
        [0 0] [0 1] [2. 5.]
    """

    owner: np.ndarray
    other: np.ndarray
    weight: np.ndarray


NO_EDGES = Edges(np.zeros(0, int), np.zeros(0, int), np.zeros(0))


def joined(parts: Sequence[Edges]) -> Edges:
    """Concatenate edges."""
    return Edges(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class _Jacobian(Protocol):
    in_shape: Shape
    out_shape: Shape

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements: ...
    def push(self, semiring: Semiring, tangent: Elements) -> Elements: ...


def at_most_one(other: np.ndarray, weight: np.ndarray | None, present: Any = True) -> Edges:
    """Return at most one edge per node, given its other end, its weight (or 1) and its presence."""
    owner = np.flatnonzero(np.broadcast_to(present, other.shape))
    found = np.ones(len(owner)) if weight is None else weight[owner]
    return Edges(owner, other[owner], found)


def numbers(array: Any, index: np.ndarray | slice) -> np.ndarray:
    """Return the elements at positions in the flattened array, in float64."""
    return np.asarray(array).ravel()[index].astype(np.float64, copy=False)


def unravel(index: np.ndarray, shape: Shape) -> list[np.ndarray]:
    """Return one array of indices per axis."""
    return list(np.unravel_index(index, shape)) if shape else []


def ravel(indices: list[np.ndarray], shape: Shape, like: np.ndarray) -> np.ndarray:
    """Return positions in the flattened array, shaped like ``like`` where there are no axes."""
    return np.ravel_multi_index(indices, shape) if shape else np.zeros_like(like)


def spread(fixed: Mapping[int, np.ndarray], shape: Shape, count: int) -> np.ndarray:
    """Return positions ``[count, others]``: some axes have an index per node, the others all."""
    first, others = np.zeros(count, int), np.zeros(1, int)
    for axis, n in enumerate(shape):
        stride = el.size(shape[axis + 1 :])
        if axis in fixed:
            first = first + fixed[axis] * stride
        else:
            others = np.add.outer(others, np.arange(n) * stride).ravel()
    return np.add.outer(first, others)


def pairs(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs of positions at which the two have the same number."""
    order = np.argsort(right, kind="stable")
    first = np.searchsorted(right[order], left, "left")
    counts = np.searchsorted(right[order], left, "right") - first
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(np.arange(len(left)), counts), order[np.repeat(first, counts) + within]


def probed(jacobian: _Jacobian, verb: str, index: np.ndarray) -> Edges:
    """Find edges by where 1̄ at a single node arrives, and as what: this works for any Jacobian.

    It uses the hull semiring, which tells 0̄ from 0.

    Args:
        jacobian: a local Jacobian.
        verb: ``"push"`` for the edges that leave, ``"pull"`` for those that enter.
        index: the nodes.
    """
    nodes = max(1, el.size(jacobian.in_shape), el.size(jacobian.out_shape))
    block = max(1, min(BLOCK_BYTES // (16 * nodes), 1 << max(0, len(index) - 1).bit_length()))
    probe = _jitted_probe if is_static(jacobian) else _probe
    parts = [NO_EDGES]
    for start in range(0, len(index), block):
        asked = index[start : start + block]
        padded = np.concatenate([asked, np.full(block - len(asked), -1)])  # of one size
        arrived = np.asarray(probe(verb, jacobian, padded), np.float64)[: len(asked)]
        owner, other = np.nonzero(arrived != -np.inf)
        parts.append(Edges(owner + start, other, arrived[owner, other]))
    return joined(parts)


def _probe(verb: str, jacobian: _Jacobian, index: Any) -> jax.Array:
    semiring = MaxProduct()
    shape = jacobian.in_shape if verb == "push" else jacobian.out_shape
    nodes = jnp.arange(el.size(shape)).reshape(shape)
    dtype = jax.dtypes.canonicalize_dtype(jnp.float64)

    def arrived(node: jax.Array) -> jax.Array:
        alone = el.where(nodes == node, semiring.one(shape, dtype), semiring.zero(shape, dtype))
        found: Interval = getattr(jacobian, verb)(semiring, alone)
        return found.max.ravel()

    return jax.vmap(arrived)(jnp.asarray(index))


_jitted_probe = functools.partial(jax.jit, static_argnums=0)(_probe)


def is_static(jacobian: Any) -> bool:
    """Tell whether it is a pytree of arrays, so that what acts on it can be compiled."""
    return all(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in jax.tree.leaves(jacobian))
