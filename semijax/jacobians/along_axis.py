"""Edges between all elements along one axis, with weights given as numbers."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians.base import LocalJacobian, accumulated, arrays
from semijax.jacobians.line import Line, shares_of_largest, shares_of_ranks
from semijax.semirings.base import Semiring


@arrays("weights", "present")
@dataclasses.dataclass(frozen=True)
class AlongAxis(LocalJacobian):
    """Edges ∂o[…, k]/∂i[…, j] = w[…, k, j] along an axis; the other axes are carried along.

    Attributes:
        weights: array of the other axes, those before the axis and those after it, then ``[k, j]``.
        in_shape: the input's shape.
        out_shape: the output's shape: the same but for the size of the axis.
        axis: counted from the first.
        present: mask of the edges that are there, of the shape of the weights. The others weigh 0.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> weights = jnp.array([[1.0, 0.0], [1.0, 2.0], [0.0, 3.0]])  # [k, j]
        >>> jacobian = sj.jacobians.AlongAxis(weights, (2,), (3,), 0, weights != 0)
        >>> print(jacobian.pull(sj.SumProduct(), jnp.ones(3)))
        [2. 5.]
    """

    weights: jax.Array
    in_shape: Shape
    out_shape: Shape
    axis: int
    present: jax.Array

    kind: ClassVar[str] = "AlongAxis"

    @property
    def edges(self) -> int:
        return self.weights.size

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        n = self.weights.ndim
        return self._combine(semiring, cotangent, tuple(range(n - 1)), n - 2)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        n = self.weights.ndim
        return self._combine(semiring, tangent, (*range(n - 2), n - 1), n - 1)

    def _combine(
        self, semiring: Semiring, elements: Elements, axes: tuple[int, ...], summed: int
    ) -> Elements:
        """Sum (⊕) the elements along an axis of the weights, each ⊗ its weight."""
        weights, rank = accumulated(self.weights), len(self.in_shape)
        last = (*(a for a in range(rank) if a != self.axis), self.axis)
        moved = el.transpose(elements, last)
        terms = semiring.scale(weights, el.broadcast_in_dim(moved, weights.shape, axes))
        none = semiring.zero(weights.shape, semiring.dtype(terms))
        found = semiring.sum(el.where(self.present, terms, none), (summed,))
        back = (*range(self.axis), rank - 1, *range(self.axis, rank - 1))
        return el.transpose(found, back)


def averaged_order(line: Line, axis: int, *, largest: int | None = None) -> jax.Array:
    """Return the weights of a sort by the first operand, averaged along the line.

    Args:
        line: the operands.
        axis: the one that is sorted.
        largest: how many are kept, of those sorted from the largest on; by default all, from the
            smallest on.
    """
    ends = line.ends(0)
    if largest is not None:
        ends = -ends[0], -ends[1]
    lines = [jnp.moveaxis(end, axis, -1) for end in ends]
    shares = jnp.vectorize(shares_of_ranks, signature="(n),(n)->(n,n)")(*lines)
    return shares if largest is None else shares[..., :largest, :]


def averaged_extrema_so_far(x: jax.Array, r: jax.Array, axis: int, *, reverse: bool) -> jax.Array:
    """Return the weights of a cumulative maximum, averaged along the line from r to x."""
    n = x.shape[axis]
    triangle = jnp.tri(n, dtype=bool)
    before = triangle.T if reverse else triangle
    x, r = (jnp.moveaxis(end, axis, -1)[..., None, :] for end in (x, r))
    ends = (jnp.where(before, end, -jnp.inf) for end in (x, r))
    return jnp.where(before, shares_of_largest(*ends), 0)
