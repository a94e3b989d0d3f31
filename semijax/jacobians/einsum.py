"""The semiring's einsum of weights and elements: ⊕ of lift(w) ⊗ g over what the result lacks."""

from __future__ import annotations

import functools

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
    layout = ColumnsFirst(weights=of_weights[-1:] in rows, elements=of_elements[-1:] in summed)
    sizes = dict(zip(of_weights, weights.shape, strict=True))
    sizes |= zip(of_elements, semiring.shape(elements), strict=True)

    def groups(first: list[str], second: list[str], swapped: bool) -> list[list[str]]:
        return [batch, second, first] if swapped else [batch, first, second]

    def matrices(elements: Elements, letters: str, of_axes: list[list[str]]) -> Elements:
        order = [a for group in of_axes for a in group]
        merged = tuple(el.size([sizes[a] for a in group]) for group in of_axes)
        elements = el.transpose(elements, [letters.index(a) for a in order])
        return el.reshape(elements, tuple(sizes[a] for a in order), merged)

    def swap(elements: Elements) -> Elements:
        return el.transpose(elements, (0, 2, 1)) if layout.elements else elements

    weights = matrices(weights, of_weights, groups(rows, summed, layout.weights))
    weights = weights.swapaxes(1, 2) if layout.weights else weights
    elements = matrices(elements, of_elements, groups(summed, columns, layout.elements))
    contract = semiring.contract if weights.shape[2] != 1 else functools.partial(_outer, semiring)
    with native.laid_out(layout):
        found = swap(contract(weights, swap(elements)))
    order = [a for group in groups(rows, columns, layout.elements) for a in group]
    found = el.reshape(found, semiring.shape(found), tuple(sizes[a] for a in order))
    return el.transpose(found, [order.index(a) for a in of_result])


def _outer(semiring: Semiring, weights: jax.Array, elements: Elements) -> Elements:
    """Contract a depth of 1, where there is nothing to ⊕: an outer product of ``lift(weights)``."""
    batch, _, columns = given = semiring.shape(elements)
    shape = (batch, weights.shape[1], columns)
    repeated = el.broadcast_to(elements, given, shape)
    return semiring.scale(jnp.broadcast_to(weights, shape), repeated)
