"""Semirings on the real numbers whose contraction is an ordinary matrix product."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from semijax.elements import Shape
from semijax.semirings.base import Semiring


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """``[B, K, M]`` and ``[B, K, N]`` to ``[B, M, N]``, in full precision on every device."""
    dimension_numbers = (((1,), (1,)), ((0,), (0,)))
    return lax.dot_general(a, b, dimension_numbers, precision=lax.Precision.HIGHEST)


class RealSemiring(Semiring):
    """(ℝ, +, ×) or a part of it; ``lift`` says which number an edge is."""

    units = "weight"

    def zero(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.zeros(shape, dtype)

    def one(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.ones(shape, dtype)

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a + b

    def mul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a * b

    def pass_through(self, elements: jax.Array) -> jax.Array:
        return elements

    def sum(self, elements: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        return elements.sum(axes)

    def contract(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        return matmul(self.lift(weights), elements)

    def segment_sum(self, elements: jax.Array, segments: jax.Array, count: int) -> jax.Array:
        kept = jnp.where(segments < 0, count, segments)
        return jnp.zeros(count, elements.dtype).at[kept].add(elements, mode="drop")


@dataclasses.dataclass(frozen=True)
class SumProduct(RealSemiring):
    """The gradient: the sum over paths of the product of the local derivatives.

    (ℝ, +, ×, 0, 1), lift(w) = w. Answers: how does the output change with this input?

    Source: Bauer 1974; Du et al. 2023, §2 and Eq. 4. Equal to ``jax.grad``.
    """

    def lift(self, weights: jax.Array) -> jax.Array:
        return weights


@dataclasses.dataclass(frozen=True)
class AbsSumProduct(RealSemiring):
    """The mass Z: the sum over paths of the product of the absolute local derivatives.

    ([0, ∞), +, ×, 0, 1), lift(w) = |w|. Answers: how much gradient flows from this input in all,
    before paths of opposite sign cancel? |gradient| ≤ Z always.

    Z grows exponentially with depth; where float32 overflows (a 12-layer BERT) it reads ``inf``.
    The first field of ``Entropy``'s elements is log Z, which doesn't.

    Source: the normaliser of Du et al. 2023, Eq. 6.
    """

    def lift(self, weights: jax.Array) -> jax.Array:
        return jnp.abs(weights)
