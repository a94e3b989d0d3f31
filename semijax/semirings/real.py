"""The gradient's semiring, whose contraction is an ordinary matrix product."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from semijax import elements as el
from semijax import native
from semijax.elements import Shape
from semijax.semirings.base import Names, Semiring
from semijax.semirings.blocks import BLOCK, LIFTED_BYTES, fold_sum

FEW_COLUMNS = 32
"""The most columns for which transposing a product beats computing its transpose."""


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """Multiply two matrices in full precision on every device."""
    if native.layout().elements and b.shape[2] > FEW_COLUMNS:  # write its transpose to memory
        dimensions = (((2,), (2,)), ((0,), (0,)))
        return lax.dot_general(b.mT, a, dimensions, precision=lax.Precision.HIGHEST).mT
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def sum_over_blocks(
    product: Callable[[jax.Array, Any], Any], weights: jax.Array, elements: Any
) -> Any:
    """Sum matrix products with something made of the weights, which is made in blocks.

    Args:
        product: from a block of the weights, ``[B, M, k]``, and of the elements, ``[B, k, N]``, to
            arrays to be summed.
        weights: array of shape ``[B, M, K]``.
        elements: a pytree of arrays of shape ``[B, K, N]``.
    """
    batch, rows, depth = weights.shape
    column_bytes = max(1, batch * rows * weights.dtype.itemsize)
    block = max(BLOCK, LIFTED_BYTES // column_bytes)

    def term(start: Any, size: int) -> Any:
        w = lax.dynamic_slice_in_dim(weights, start, size, 2)
        return product(w, el.slice_axis(elements, start, size, 1))

    return fold_sum(depth, term, block, column_bytes)


@dataclasses.dataclass(frozen=True)
class SumProduct(Semiring):
    """The gradient: the sum over paths of the product of the local derivatives.

    (ℝ, +, ×, 0, 1), lift(w) = w. Answers: how does the output change with this input?

    Source: Bauer 1974; Du et al. 2023, Eq. 1. Equal to ``jax.grad``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x, y: jnp.exp(x) + (x - y) * y
        >>> print(sj.semiring_grad(f, sj.SumProduct())(0.0, 3.0))
        4.0
    """

    units: ClassVar[str | None] = "weight"
    additive = True
    zero_weight_is_no_path = True

    def zero(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.zeros(shape, dtype)

    def one(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.ones(shape, dtype)

    def lift(self, weights: jax.Array) -> jax.Array:
        return weights

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a + b

    def mul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a * b

    def pass_through(self, elements: jax.Array) -> jax.Array:
        return elements

    def sum(self, elements: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        return elements.sum(axes)

    def segment_sum(self, elements: jax.Array, segments: jax.Array, count: int) -> jax.Array:
        kept = jnp.where(segments < 0, count, segments)
        return jnp.zeros(count, elements.dtype).at[kept].add(elements, mode="drop")

    def contract(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        return matmul(weights, elements)

    def all_reduce(self, elements: jax.Array, names: Names) -> jax.Array:
        return lax.psum(elements, names)
