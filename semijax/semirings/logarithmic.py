"""The strongest path and the mass in logarithms: nothing overflows, and nothing vanishes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from semijax.elements import Shape
from semijax.semirings.base import Semiring
from semijax.semirings.order import TopK
from semijax.semirings.real import AbsSumProduct

ZERO = -1e12
"""What stands for log 0, the weight of a path over a dead edge: no path at all is −∞."""

RANGE = 600.0
"""How far, in nats, what a matrix product adds up may be apart: not everything else underflows."""


class LogSemiring(Semiring):
    """log |w|, with ⊗ adding; a subclass says what ⊕ does. To be carried in float64."""

    units = "nats"

    def zero(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.full(shape, -jnp.inf, dtype)

    def one(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.zeros(shape, dtype)

    def mul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a + b

    def scale(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        return self.lift(weights.astype(elements.dtype)) + elements

    def pass_through(self, elements: jax.Array) -> jax.Array:
        return elements

    def contract(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        """By products of numbers that are scaled to 1 at most, where that loses nothing."""
        largest = jnp.max(elements, 1, keepdims=True, initial=-jnp.inf)
        some = jnp.where(jnp.isfinite(elements) & (elements > ZERO / 2), elements, jnp.inf)
        smallest = jnp.min(some, 1, keepdims=True, initial=jnp.inf)
        return lax.cond(
            jnp.any(largest - smallest > RANGE),
            lambda w, e: Semiring.contract(self, w, e),
            lambda w, e: self._scaled_contract(w, e, jnp.where(jnp.isinf(largest), 0, largest)),
            weights,
            elements,
        )

    def _scaled_contract(
        self, weights: jax.Array, elements: jax.Array, largest: jax.Array
    ) -> jax.Array:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LogAbsMaxProduct(LogSemiring):
    """log of the largest |weight|; ``ZERO`` and less where it is 0, −∞ where there is no path."""

    def lift(self, weights: jax.Array) -> jax.Array:
        dead = weights == 0
        return jnp.where(dead, ZERO, jnp.log(jnp.abs(jnp.where(dead, 1, weights))))

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.maximum(a, b)

    def sum(self, elements: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        return jnp.max(elements, axes, initial=-jnp.inf)

    def segment_sum(self, elements: jax.Array, segments: jax.Array, count: int) -> jax.Array:
        kept = jnp.where(segments < 0, count, segments)
        return self.zero((count,), elements.dtype).at[kept].max(elements, mode="drop")

    def _scaled_contract(
        self, weights: jax.Array, elements: jax.Array, largest: jax.Array
    ) -> jax.Array:
        # TopK(1) knows no path, −∞, from a path of weight 0.
        sizes = jnp.where(elements == -jnp.inf, -jnp.inf, jnp.exp(elements - largest))
        found = TopK(1).contract(weights, sizes[..., None])[..., 0]
        logs = jnp.where(found == 0, ZERO, jnp.log(jnp.where(found > 0, found, 1)))
        return jnp.where(found < 0, -jnp.inf, jnp.where(jnp.isnan(found), found, logs + largest))


@dataclasses.dataclass(frozen=True)
class LogAbsSumProduct(LogSemiring):
    """log Z, of the mass Z = Σ |weight|; −∞ where it is 0."""

    def lift(self, weights: jax.Array) -> jax.Array:
        return jnp.log(jnp.abs(weights))

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.logaddexp(a, b)

    def sum(self, elements: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        largest = jnp.max(elements, axes, keepdims=True, initial=-jnp.inf)
        largest = jnp.where(jnp.isinf(largest), 0, largest)
        return jnp.log(jnp.sum(jnp.exp(elements - largest), axes)) + largest.squeeze(axes)

    def segment_sum(self, elements: jax.Array, segments: jax.Array, count: int) -> jax.Array:
        kept = jnp.where((segments < 0) | (segments >= count), count, segments)
        largest = jnp.full(count + 1, -jnp.inf, elements.dtype).at[kept].max(elements)
        largest = jnp.where(jnp.isinf(largest), 0, largest)
        masses = (
            jnp.zeros(count + 1, elements.dtype).at[kept].add(jnp.exp(elements - largest[kept]))
        )
        return (jnp.log(masses) + largest)[:count]

    def _scaled_contract(
        self, weights: jax.Array, elements: jax.Array, largest: jax.Array
    ) -> jax.Array:
        mass = AbsSumProduct().contract(weights, jnp.exp(elements - largest))
        return jnp.log(mass) + largest
