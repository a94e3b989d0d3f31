"""Contractions of semirings whose ⊕ selects: of all products, the largest, or the k largest.

The products are compared a block at a time and never stored. Numbers that are not negative have the
order of their bits read as unsigned integers, and there a NaN is larger than all of them: comparing
the bits takes one instruction where a comparison that keeps NaN takes several.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from semijax.semirings.blocks import fold

Arrays = tuple[jax.Array, ...]

DERIVATIVE_BLOCK = 4
"""Derivatives do store the products of a block, so theirs are smaller."""


@dataclasses.dataclass(frozen=True)
class Selected:
    """What a number of the answer is: a product of one of these planes, or the size of one."""

    planes: tuple[int, ...]
    size: bool


@dataclasses.dataclass(frozen=True)
class Selection:
    """What to select of the products of weights with several planes of numbers.

    Attributes:
        numbers: of the answer; for its derivative.
        start: the state of no products, scalars, for the dtype of the products.
        of_block: from each plane's products ``[B, M, k, N]`` to a state, arrays ``[B, M, N]``.
        merge: of two states.
        answer: from the state of all products to the numbers, arrays ``[B, M, N]``.
    """

    numbers: tuple[Selected, ...]
    start: Callable[[Any], Arrays]
    of_block: Callable[[Sequence[jax.Array]], Arrays]
    merge: Callable[[Arrays, Arrays], Arrays]
    answer: Callable[[Arrays], Arrays]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def select(
    selection: Selection, weights: jax.Array, planes: Arrays, present: tuple[Any, ...]
) -> Arrays:
    """Select among the products ``weights[b, m, k] · plane[b, k, n]`` of all k.

    Its derivative is that of the product that was selected, and where several are equal the mean of
    theirs, as for ``jax.numpy.max``.

    Args:
        selection: which products.
        weights: array of shape ``[B, M, K]``.
        planes: arrays of shape ``[B, K, N]``.
        present: for each plane None, or a mask: where false, the plane has a 0, and the products
            are 0 even if the weight is infinite.

    Returns:
        The numbers selected, arrays of shape ``[B, M, N]``.
    """
    products = _products(weights, planes, present)
    batch, rows, depth = weights.shape
    shape = (batch, rows, planes[0].shape[2])
    state = fold(
        depth,
        lambda start, size: selection.of_block(products(start, size)),
        selection.merge,
        tuple(jnp.full(shape, value) for value in selection.start(weights.dtype)),
    )
    return selection.answer(state)


@select.defjvp
def _select_jvp(selection: Selection, primals: Any, tangents: Any) -> tuple[Arrays, Arrays]:
    weights, planes, present = primals
    d_weights, d_planes, _ = tangents
    found = select(selection, weights, planes, present)
    products = _products(weights, planes, present, fill=jnp.nan)  # which equals nothing
    by_weights = _products(d_weights, planes, present)
    by_planes = _products(weights, d_planes, present)

    def signs(start: Any, size: int) -> list[list[jax.Array]]:
        """For every number, and every product it may be: 1 if it is, −1 if minus it, or 0."""
        here = products(start, size)
        return [
            [_sign(here[p], value[:, :, None], number.size) for p in number.planes]
            for number, value in zip(selection.numbers, found, strict=True)
        ]

    def count(start: Any, size: int) -> list[Any]:
        return [sum(jnp.abs(s).sum(2) for s in of) for of in signs(start, size)]

    def tangent(start: Any, size: int) -> list[Any]:
        a, b = by_weights(start, size), by_planes(start, size)
        return [
            sum((s * (a[p] + b[p])).sum(2) for p, s in zip(number.planes, of, strict=True))
            for number, of in zip(selection.numbers, signs(start, size), strict=True)
        ]

    def add(a: list[Any], b: list[Any]) -> list[Any]:
        return [x + y for x, y in zip(a, b, strict=True)]

    depth, nothing = weights.shape[2], [jnp.zeros_like(value) for value in found]
    counts = fold(depth, count, add, nothing, DERIVATIVE_BLOCK)
    moved = fold(depth, tangent, add, nothing, DERIVATIVE_BLOCK)
    return found, tuple(
        jnp.where(jnp.isnan(value), value, total / jnp.maximum(n, 1))
        for value, total, n in zip(found, moved, counts, strict=True)
    )


def _products(
    weights: jax.Array, planes: Arrays, present: tuple[Any, ...], fill: float = 0
) -> Callable[[Any, int], list[jax.Array]]:
    """The products of each plane at some of the indices k, ``[B, M, k, N]``."""

    def products(start: Any, size: int) -> list[jax.Array]:
        w = lax.dynamic_slice_in_dim(weights, start, size, 2)[..., None]

        def of(plane: jax.Array, mask: Any) -> jax.Array:
            product = w * lax.dynamic_slice_in_dim(plane, start, size, 1)[:, None]
            if mask is None:
                return product
            return jnp.where(lax.dynamic_slice_in_dim(mask, start, size, 1)[:, None], product, fill)

        return [of(plane, mask) for plane, mask in zip(planes, present, strict=True)]

    return products


def _sign(product: jax.Array, value: jax.Array, size: bool) -> jax.Array:
    if size:
        return jnp.where(jnp.abs(product) == value, jnp.sign(product), 0)
    return (product == value).astype(product.dtype)


def unsigned_bits(values: jax.Array) -> jax.Array:
    """In the order of the values for those that are not negative, with NaN the largest.

    Negative values are larger than those, and the larger the more negative they are.
    """
    return lax.bitcast_convert_type(values, jnp.dtype(f"uint{8 * values.dtype.itemsize}"))


def signed_bits(values: jax.Array) -> jax.Array:
    """In the order of the values for those that are not negative; negative values are smaller."""
    return lax.bitcast_convert_type(values, jnp.dtype(f"int{8 * values.dtype.itemsize}"))


def of_bits(bits: jax.Array) -> jax.Array:
    """The floating point numbers of these bits."""
    return lax.bitcast_convert_type(bits, jnp.dtype(f"float{8 * bits.dtype.itemsize}"))
