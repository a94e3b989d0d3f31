"""The ends of paths: the range of the numbers that lie there."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from semijax.elements import Shape
from semijax.semirings.order import Interval, SignedSemiring


@dataclasses.dataclass(frozen=True)
class Extent(SignedSemiring):
    """The largest and the smallest of the numbers at the ends of all paths, whatever they weigh.

    Elements are intervals: ⊕ is the hull of the union, ⊗ adds the ends, and every edge is 1̄ =
    [0, 0]. Pulled back from numbers at the outputs, it tells which of them each input leads to.
    """

    units: ClassVar[str | None] = None

    def one(self, shape: Shape, dtype: Any) -> Interval:
        return Interval(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def lift(self, weights: jax.Array) -> Interval:
        return self.one(weights.shape, weights.dtype)

    def mul(self, a: Interval, b: Interval) -> Interval:
        return Interval(a.max + b.max, a.min + b.min)

    def scale(self, weights: jax.Array, elements: Interval) -> Interval:
        return elements

    def contract(self, weights: jax.Array, elements: Interval) -> Interval:
        shape = (*weights.shape[:2], elements.max.shape[2])
        found = self.sum(Interval(*(end.swapaxes(1, 2) for end in elements)), (2,))
        return Interval(*(jnp.broadcast_to(end[:, None], shape) for end in found))
