"""The strongest path in logarithms: nothing overflows, and nothing vanishes."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from semijax.elements import Shape
from semijax.semirings.base import Semiring
from semijax.semirings.order import TopK

ZERO = -1e12
"""The stand-in for log 0, the weight of a path over a dead edge; no path at all is −∞."""

RANGE = 600.0
"""The widest spread, in nats, of what a matrix product adds up: beyond it, the rest underflows."""


@dataclasses.dataclass(frozen=True)
class LogAbsMaxProduct(Semiring):
    """The log of the largest |weight|; ``ZERO`` where it is 0, −∞ where there is no path.

    It is to be carried in float64.
    """

    units: ClassVar[str | None] = "nats"
    size_of: ClassVar[str | None] = "the strongest path's |weight|"

    def zero(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.full(shape, -jnp.inf, dtype)

    def one(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.zeros(shape, dtype)

    def lift(self, weights: jax.Array) -> jax.Array:
        dead = weights == 0
        return jnp.where(dead, ZERO, jnp.log(jnp.abs(jnp.where(dead, 1, weights))))

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.maximum(a, b)

    def mul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        none = (a == -jnp.inf) | (b == -jnp.inf)  # no path, however steep the other way is
        found = jnp.where(none, -jnp.inf, a + b)
        dead = ~none & ((a < ZERO / 2) | (b < ZERO / 2))
        return jnp.where(dead, jnp.where(jnp.isfinite(found), ZERO, jnp.nan), found)  # 0 · ∞ is NaN

    def scale(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        return self.mul(self.lift(weights.astype(elements.dtype)), elements)

    def pass_through(self, elements: jax.Array) -> jax.Array:
        return elements

    def sum(self, elements: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        return jnp.max(elements, axes, initial=-jnp.inf)

    def segment_sum(self, elements: jax.Array, segments: jax.Array, count: int) -> jax.Array:
        kept = jnp.where(segments < 0, count, segments)
        return self.zero((count,), elements.dtype).at[kept].max(elements, mode="drop")

    def contract(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        """Contract by products of numbers scaled to at most 1, where that loses nothing."""
        largest = jnp.max(elements, 1, keepdims=True, initial=-jnp.inf)
        some = jnp.where(jnp.isfinite(elements) & (elements > ZERO / 2), elements, jnp.inf)
        smallest = jnp.min(some, 1, keepdims=True, initial=jnp.inf)
        return lax.cond(
            jnp.any(largest - smallest > RANGE),
            super().contract,
            lambda w, e: self._scaled_contract(w, e, jnp.where(jnp.isinf(largest), 0, largest)),
            weights,
            elements,
        )

    def log_size(self, elements: jax.Array) -> jax.Array:
        return elements

    def _scaled_contract(
        self, weights: jax.Array, elements: jax.Array, largest: jax.Array
    ) -> jax.Array:
        # TopK(1) tells no path, −∞, from a path of weight 0.
        sizes = jnp.where(elements == -jnp.inf, -jnp.inf, jnp.exp(elements - largest))
        found = TopK(1).contract(weights, sizes[..., None])[..., 0]
        logs = jnp.log(jnp.where(found > 0, found, 1)) + largest
        logs = jnp.where(found == 0, ZERO, jnp.where(jnp.isnan(found), found, logs))
        return jnp.where(found < 0, -jnp.inf, logs)
