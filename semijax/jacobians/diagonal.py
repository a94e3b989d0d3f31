"""The kinds of local Jacobian whose edges join equal indices: diagonals and reductions."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians.base import LocalJacobian, accumulated, arrays
from semijax.jacobians.edges import Edges, at_most_one, numbers, ravel, spread, unravel
from semijax.jacobians.pins import Pins, part_of, pinned
from semijax.semirings.base import Semiring


@arrays("weights", "present", "selected")
@dataclasses.dataclass(frozen=True)
class Diagonal(LocalJacobian):
    """An edge from i to o wherever broadcasting joins them, of weight ∂o/∂i = w[o].

    Attributes:
        weights: array of shape ``out_shape``, or None where every weight is 1.
        in_shape: the input's shape.
        out_shape: the output's shape.
        dimensions: the axis of the output that each axis of the input becomes, as for
            ``jax.lax.broadcast_in_dim``; by default the last ones, as NumPy broadcasts.
        present: mask of shape ``out_shape`` of the edges that are there; all, by default.
        selected: mask of shape ``out_shape``, False where the weight is 0 because something else
            was selected: whatever arrives there, even infinite or NaN, becomes 0. By default a
            weight of 0 multiplies like any other.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> jacobian = sj.jacobians.Diagonal(jnp.array([2.0, 5.0]), in_shape=(), out_shape=(2,))
        >>> print(jacobian.pull(sj.AbsMaxProduct(), jnp.ones(2)))
        5.0
    """

    weights: jax.Array | None
    in_shape: Shape
    out_shape: Shape
    dimensions: tuple[int, ...] | None = None
    present: jax.Array | None = None
    selected: jax.Array | None = None

    kind: ClassVar[str] = "Diagonal"

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        scaled = self._scale(semiring, cotangent)
        if self.in_shape == self.out_shape:
            return scaled
        sizes = dict(zip(self._dimensions(), self.in_shape, strict=True))
        stretched = tuple(a for a, n in enumerate(self.out_shape) if sizes.get(a) != n)
        kept = tuple(n for a, n in enumerate(self.out_shape) if a not in stretched)
        return el.reshape(semiring.sum(scaled, stretched), kept, self.in_shape)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        if self.in_shape != self.out_shape:
            tangent = el.broadcast_in_dim(tangent, self.out_shape, self._dimensions())
        return self._scale(semiring, tangent)

    def leaving(self, index: np.ndarray) -> Edges:
        indices = unravel(index, self.in_shape)
        joined = zip(self._dimensions(), self.in_shape, indices, strict=True)
        fixed = {d: i for d, n, i in joined if n == self.out_shape[d]}
        targets = spread(fixed, self.out_shape, len(index))
        edges = at_most_one(*self._weigh(targets.ravel()))
        return edges._replace(owner=edges.owner // max(1, targets.shape[1]))

    def entering(self, index: np.ndarray) -> Edges:
        indices = unravel(index, self.out_shape)
        source = [
            indices[d] if n == self.out_shape[d] else np.zeros_like(index)
            for d, n in zip(self._dimensions(), self.in_shape, strict=True)
        ]
        _, weight, present = self._weigh(index)
        return at_most_one(ravel(source, self.in_shape, index), weight, present)

    def restricted(self, pins: Pins) -> tuple[Diagonal, Pins]:
        own = tuple(
            pins[d] if n == self.out_shape[d] else None
            for d, n in zip(self._dimensions(), self.in_shape, strict=True)
        )
        arrays = _of_shape(self.out_shape, self.weights, self.present, self.selected)
        weights, present, selected = part_of(arrays, pins)
        shapes = pinned(self.in_shape, own), pinned(self.out_shape, pins)
        return Diagonal(weights, *shapes, self.dimensions, present, selected), own

    def _weigh(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, Any]:
        weight = None if self.weights is None else numbers(self.weights, outputs)
        present = True if self.present is None else np.asarray(self.present).ravel()[outputs]
        return outputs, weight, present

    def _dimensions(self) -> tuple[int, ...]:
        n = len(self.out_shape)
        return (
            tuple(range(n - len(self.in_shape), n)) if self.dimensions is None else self.dimensions
        )

    def _scale(self, semiring: Semiring, elements: Elements) -> Elements:
        scaled = scaled_by(semiring, self.weights, self.selected, elements)
        if self.present is None:
            return scaled
        return el.where(self.present, scaled, semiring.zero(self.out_shape, semiring.dtype(scaled)))


def _of_shape(shape: Shape, *arrays: Any) -> list[Any]:
    """Give arrays that broadcast to a shape that shape."""
    whole = (a is None or np.shape(a) == shape for a in arrays)
    return [a if same else np.broadcast_to(a, shape) for a, same in zip(arrays, whole, strict=True)]


def scaled_by(
    semiring: Semiring,
    weights: jax.Array | None,
    selected: jax.Array | None,
    elements: Elements,
) -> Elements:
    """Compute ``lift(weights) ⊗ elements``; by default the weights are 1 and all is selected."""
    if weights is None:
        return semiring.pass_through(elements)
    if selected is None:
        return semiring.scale(accumulated(weights), elements)
    return semiring.scale_selected(accumulated(weights), selected, elements)


@arrays("weights", "selected")
@dataclasses.dataclass(frozen=True)
class Reduction(LocalJacobian):
    """An edge from every i to the one o that it is reduced to, of weight ∂o/∂i = w[i].

    Attributes:
        weights: array of shape ``in_shape``, or None where every weight is 1.
        in_shape: the input's shape.
        out_shape: the output's shape.
        axes: the axes of the input that the output does not have.
        selected: mask of shape ``in_shape``, as for ``Diagonal``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> total = sj.jacobians.Reduction(None, in_shape=(2, 3), out_shape=(2,), axes=(1,))
        >>> print(total.push(sj.SumProduct(), jnp.ones((2, 3))))
        [3. 3.]
    """

    weights: jax.Array | None
    in_shape: Shape
    out_shape: Shape
    axes: tuple[int, ...]
    selected: jax.Array | None = None

    kind: ClassVar[str] = "Reduction"

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        return self._transposed().push(semiring, cotangent)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        return self._transposed().pull(semiring, tangent)

    def leaving(self, index: np.ndarray) -> Edges:
        return self._transposed().entering(index)

    def entering(self, index: np.ndarray) -> Edges:
        return self._transposed().leaving(index)

    def restricted(self, pins: Pins) -> tuple[Reduction, Pins]:
        kept = dict(zip(self._kept, pins, strict=True))
        own = tuple(kept.get(axis) for axis in range(len(self.in_shape)))
        arrays = _of_shape(self.in_shape, self.weights, self.selected)
        weights, selected = part_of(arrays, own)
        shapes = pinned(self.in_shape, own), pinned(self.out_shape, pins)
        return Reduction(weights, *shapes, self.axes, selected), own

    @property
    def _kept(self) -> tuple[int, ...]:
        """The axes of the input that the output has too."""
        return tuple(a for a in range(len(self.in_shape)) if a not in self.axes)

    def _transposed(self) -> Diagonal:
        sides = self.out_shape, self.in_shape
        return Diagonal(self.weights, *sides, self._kept, selected=self.selected)


@arrays("inner")
@dataclasses.dataclass(frozen=True)
class Transposed(LocalJacobian):
    """The same edges the other way round: ⊗ is commutative, so pull and push swap places.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> total = sj.jacobians.Reduction(None, in_shape=(2, 3), out_shape=(2,), axes=(1,))
        >>> copies = sj.jacobians.Transposed(total)
        >>> copies.in_shape, copies.out_shape
        ((2,), (2, 3))
    """

    inner: LocalJacobian

    @property
    def kind(self) -> str:
        """The kind of the inner Jacobian."""
        return self.inner.kind

    @property
    def in_shape(self) -> Shape:
        """The shape of the inner Jacobian's output."""
        return self.inner.out_shape

    @property
    def out_shape(self) -> Shape:
        """The shape of the inner Jacobian's input."""
        return self.inner.in_shape

    @property
    def edges(self) -> int:
        return self.inner.edges

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        return self.inner.push(semiring, cotangent)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        return self.inner.pull(semiring, tangent)

    def leaving(self, index: np.ndarray) -> Edges:
        return self.inner.entering(index)

    def entering(self, index: np.ndarray) -> Edges:
        return self.inner.leaving(index)
