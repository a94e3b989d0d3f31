"""The semiring's einsum of weights and elements: ⊕ of lift(w) ⊗ g over what the result lacks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from semijax import elements as el
from semijax import native
from semijax.elements import Elements
from semijax.jacobians.base import accumulated
from semijax.native import ColumnsFirst
from semijax.semirings.base import Semiring
from semijax.semirings.devices import Operation

Letters = tuple[str, str, str]
"""The letters of the axes of the weights, of the elements and of the result."""


def einsum(semiring: Semiring, letters: str, weights: jax.Array, elements: Elements) -> Elements:
    """Compute ⊕ of ``lift(weights) ⊗ elements`` over the axes that the result does not have.

    The elements get at least the weights' dtype. Traced once for each shape.

    Args:
        semiring: any.
        letters: those of the axes of the weights, the elements and the result, as in
            ``"bmk,bkn->bmn"``. Each is in two of them, or in all three.
        weights: floating array.
        elements: the elements of an array.
    """
    operands, result = letters.split("->")
    of_weights, of_elements = operands.split(",")
    return _einsum(semiring, (of_weights, of_elements, result), weights, elements)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _einsum(
    semiring: Semiring, letters: Letters, weights: jax.Array, elements: Elements
) -> Elements:
    if weights.dtype.itemsize < 2 or not jnp.issubdtype(weights.dtype, jnp.inexact):
        weights = accumulated(weights)  # JAX does not promote 8-bit numbers
    dtype = jnp.promote_types(weights.dtype, semiring.dtype(elements))

    def cast(leaf: jax.Array) -> jax.Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    *operands, result = letters
    operation = Operation(_by_matrices, semiring, tuple(operands), result, arrays=1)
    return operation(weights, el.map_leaves(cast, elements))


def _by_matrices(
    semiring: Semiring, letters: Letters, weights: jax.Array, elements: Elements
) -> Elements:
    """Contract matrices of merged axes; one whose last axis would not be last is transposed."""
    of_weights, of_elements, of_result = letters
    batch = [a for a in of_weights if a in of_elements and a in of_result]
    rows = [a for a in of_weights if a not in of_elements]
    summed = [a for a in of_weights if a not in of_result]
    columns = [a for a in of_elements if a not in of_weights]
    layout = ColumnsFirst(
        weights=of_weights[-1:] in rows,
        elements=of_elements[-1:] in summed,
    )

    def matrix(elements: Elements, letters: str, shape: Any, groups: Sequence[list[str]]) -> Any:
        order = [letters.index(a) for group in groups for a in group]
        merged = [el.size([shape[letters.index(a)] for a in group]) for group in groups]
        transposed = tuple(shape[axis] for axis in order)
        return el.reshape(el.transpose(elements, order), transposed, tuple(merged))

    def swapped(first: list[str], second: list[str], swap: bool) -> list[list[str]]:
        return [batch, second, first] if swap else [batch, first, second]

    shape = semiring.shape(elements)
    sizes = dict(zip(of_weights, weights.shape, strict=True))
    sizes |= dict(zip(of_elements, shape, strict=True))
    weights = matrix(weights, of_weights, weights.shape, swapped(rows, summed, layout.weights))
    elements = matrix(elements, of_elements, shape, swapped(summed, columns, layout.elements))

    def swap(elements: Elements) -> Elements:
        return el.transpose(elements, (0, 2, 1)) if layout.elements else elements

    weights = weights.swapaxes(1, 2) if layout.weights else weights
    with native.laid_out(layout):
        found = swap(semiring.contract(weights, swap(elements)))
    order = [a for group in swapped(rows, columns, layout.elements) for a in group]
    merged = semiring.shape(found)
    found = el.reshape(found, merged, tuple(sizes[a] for a in order))
    return el.transpose(found, [order.index(a) for a in of_result])
