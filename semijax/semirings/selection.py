"""Contractions of semirings whose ⊕ selects: of all products, the largest, or the k largest.

The products are compared a block at a time and never stored. Numbers that are not negative have the
order of their bits read as unsigned integers, and there a NaN is larger than all of them: comparing
the bits takes one instruction where a comparison that keeps NaN takes several.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from semijax.semirings.blocks import DERIVATIVE_BLOCK, fold, fold_sum

Arrays = tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class Selected:
    """What a number of the answer is: a product of one of these planes, or the size of one."""

    planes: tuple[int, ...]
    absolute: bool


@dataclasses.dataclass(frozen=True)
class Selection:
    """What to select of the products of weights with several planes of numbers.

    Attributes:
        numbers: of the answer; for its derivative.
        absent: for each plane, what counts as a product where the plane has no number; None for
            the product with what stands there.
        start: the state of no products, scalars, for the dtype of the products.
        of_block: from each plane's products ``[B, M, k, N]`` to a state, arrays ``[B, M, N]``.
        merge: of two states.
        answer: from the state of all products to the numbers, arrays ``[B, M, N]``.
    """

    numbers: tuple[Selected, ...]
    absent: tuple[float | None, ...]
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
    theirs, as for ``jax.numpy.max``; 0 where none was, and NaN where it is not finite.

    Args:
        selection: which products.
        weights: array of shape ``[B, M, K]``.
        planes: arrays of shape ``[B, K, N]``.
        present: for each plane a mask of the numbers that are there, or None for all.

    Returns:
        The numbers selected, arrays of shape ``[B, M, N]``.
    """
    batch, rows, depth = weights.shape
    shape = (batch, rows, planes[0].shape[2])
    products = _products(weights, planes, present, selection.absent)
    state = fold(
        depth,
        lambda start, count: selection.of_block(products(start, count)),
        selection.merge,
        tuple(jnp.full(shape, value) for value in selection.start(weights.dtype)),
    )
    return selection.answer(state)


@select.defjvp
def _select_jvp(selection: Selection, primals: Any, tangents: Any) -> tuple[Arrays, Arrays]:
    weights, planes, present = primals
    d_weights, d_planes, _ = tangents
    found = select(selection, weights, planes, present)
    nothing = (math.nan,) * len(planes)  # which equals no number
    products = _products(weights, planes, present, nothing)
    # A factor that is not finite may not touch the derivatives of the products of others.
    finite = [jnp.where(jnp.isfinite(x), x, 0) for x in (weights, *planes)]
    absent = (0.0,) * len(planes)
    by_weights = _products(d_weights, tuple(finite[1:]), present, absent)
    by_planes = _products(finite[0], d_planes, present, absent)

    def signs(start: Any, count: int) -> list[list[jax.Array]]:
        """For every number, and every product it may be: 1 if it is, −1 if minus it, or 0."""
        here = products(start, count)
        return [
            [_sign(here[p], value[:, :, None], number.absolute) for p in number.planes]
            for number, value in zip(selection.numbers, found, strict=True)
        ]

    def how_many(start: Any, count: int) -> list[Any]:
        return [sum(jnp.abs(s).sum(2) for s in of) for of in signs(start, count)]

    def tangent(start: Any, count: int) -> list[Any]:
        a, b = by_weights(start, count), by_planes(start, count)
        return [
            sum((s * (a[p] + b[p])).sum(2) for p, s in zip(number.planes, of, strict=True))
            for number, of in zip(selection.numbers, signs(start, count), strict=True)
        ]

    # Two sums: the second is linear in the tangents, and is transposed by a reverse derivative.
    depth = weights.shape[2]
    counts = fold_sum(depth, how_many, DERIVATIVE_BLOCK)
    totals = fold_sum(depth, tangent, DERIVATIVE_BLOCK)

    def derivative(value: jax.Array, total: jax.Array, n: jax.Array) -> jax.Array:
        unknown = jnp.isnan(value) | ((n > 0) & jnp.isinf(value))
        return jnp.where(unknown, jnp.nan, total / jnp.maximum(n, 1))

    return found, tuple(map(derivative, found, totals, counts))


def _products(
    weights: jax.Array, planes: Arrays, present: tuple[Any, ...], absent: tuple[float | None, ...]
) -> Callable[[Any, int], list[jax.Array]]:
    """The products of each plane at some of the indices k, ``[B, M, k, N]``."""

    def products(start: Any, count: int) -> list[jax.Array]:
        w = lax.dynamic_slice_in_dim(weights, start, count, 2)[..., None]

        def of(plane: jax.Array, mask: Any, fill: float | None) -> jax.Array:
            product = w * lax.dynamic_slice_in_dim(plane, start, count, 1)[:, None]
            if mask is None or fill is None:
                return product
            return jnp.where(
                lax.dynamic_slice_in_dim(mask, start, count, 1)[:, None], product, fill
            )

        return [of(*each) for each in zip(planes, present, absent, strict=True)]

    return products


def _sign(product: jax.Array, value: jax.Array, absolute: bool) -> jax.Array:
    if absolute:
        return jnp.where(jnp.abs(product) == value, jnp.sign(product), 0)
    return (product == value).astype(product.dtype)


# What is selected.


def largest_product(weights: jax.Array, numbers: jax.Array) -> jax.Array:
    """The largest size of a product: maxₖ |weights[b, m, k] · numbers[b, k, n]|.

    Args:
        weights: array of shape ``[B, M, K]``.
        numbers: array of shape ``[B, K, N]``.

    Returns:
        Array of shape ``[B, M, N]``, NaN where a product is.
    """
    return select(_LARGEST, weights, (numbers,), (None,))[0]


def hull_of_products(
    weights: jax.Array, high: jax.Array, low: jax.Array, sizes: jax.Array, present: jax.Array
) -> Arrays:
    """The hull of 0 and all products with two ends, and the smallest size of a product.

    Args:
        weights: array of shape ``[B, M, K]``.
        high: array of shape ``[B, K, N]``.
        low: array of shape ``[B, K, N]``.
        sizes: array of shape ``[B, K, N]``, not negative; ∞ where there is no number.
        present: mask of shape ``[B, K, N]`` of the numbers that are there; other ends are 0, which
            an infinite weight makes NaN. (To mask the products would cost as much as to select.)

    Returns:
        The largest and the smallest product or 0, one of them at least NaN where a product is, and
        minₖ |weights[b, m, k]| · sizes[b, k, n], ∞ where there is none; all ``[B, M, N]``.
    """
    return select(_HULL, weights, (high, low, sizes), (present,) * 3)


def largest_products(weights: jax.Array, lists: Arrays, present: Arrays) -> Arrays:
    """The largest sizes of products, descending, as many as there are lists.

    Args:
        weights: array of shape ``[B, M, K]``.
        lists: arrays of shape ``[B, K, N]``, the larger ones first, not negative.
        present: masks of the numbers that are there; the others are finite.

    Returns:
        Arrays of shape ``[B, M, N]``, 0 where there are fewer products.
    """
    return select(_largest_sizes(len(lists)), weights, lists, present)


_LARGEST = Selection(
    (Selected((0,), absolute=True),),
    (0.0,),
    lambda dtype: (_unsigned_bits(jnp.zeros((), dtype)),),
    lambda products: (_unsigned_bits(jnp.abs(products[0])).max(2),),
    lambda a, b: (jnp.maximum(a[0], b[0]),),
    lambda state: (_of_bits(state[0]),),
)
"""The largest size of a product."""


def _hull_of_block(products: Sequence[jax.Array]) -> Arrays:
    a, b, size = products
    return (
        jnp.maximum(_signed_bits(a), _signed_bits(b)).max(2),
        jnp.maximum(_unsigned_bits(a), _unsigned_bits(b)).max(2),
        _unsigned_bits(jnp.abs(size)).min(2),
    )


def _merged_hulls(a: Arrays, b: Arrays) -> Arrays:
    return jnp.maximum(a[0], b[0]), jnp.maximum(a[1], b[1]), jnp.minimum(a[2], b[2])


def _hull(state: Arrays) -> Arrays:
    high, low, smallest = map(_of_bits, state)
    # Bits of the other sign say that there is none of this one; and ∞ · 0 is no path's size.
    return (
        jnp.where(state[0] < 0, 0, high),
        jnp.where(low > 0, 0, low),
        jnp.where(jnp.isnan(smallest), jnp.inf, smallest),
    )


_HULL = Selection(
    (
        Selected((0, 1), absolute=False),
        Selected((0, 1), absolute=False),
        Selected((2,), absolute=True),
    ),
    (None, None, None),
    lambda dtype: (
        _signed_bits(jnp.zeros((), dtype)),
        _unsigned_bits(jnp.zeros((), dtype)),
        _unsigned_bits(jnp.full((), jnp.inf, dtype)),
    ),
    _hull_of_block,
    _merged_hulls,
    _hull,
)
"""Of the ends of intervals: the largest product or 0, the smallest or 0; and the smallest size."""


@functools.cache
def _largest_sizes(k: int) -> Selection:
    """The ``k`` largest sizes of products of ``k`` planes, each no larger than the one before."""

    def of_block(products: Sequence[jax.Array]) -> Arrays:
        # Whatever is selected of plane i, i larger products of the same weight are selected too.
        lists = [_sorted_sizes(product, k // (i + 1)) for i, product in enumerate(products)]
        return functools.reduce(_merged_lists, lists)

    return Selection(
        tuple(Selected(tuple(range(i + 1)), absolute=True) for i in range(k)),
        (0.0,) * k,
        lambda dtype: (_unsigned_bits(jnp.zeros((), dtype)),) * k,
        of_block,
        _merged_lists,
        lambda state: tuple(map(_of_bits, state)),
    )


def _sorted_sizes(product: jax.Array, count: int) -> Arrays:
    """The bits of the ``count`` largest sizes over axis 2, descending."""
    bits = _unsigned_bits(jnp.abs(product))
    if count == 1:
        return (bits.max(2),)
    largest: list[jax.Array] = [jnp.zeros_like(bits[:, :, 0])] * count
    for j in range(bits.shape[2]):
        new = bits[:, :, j]
        above = [None, *largest]
        largest = [
            jnp.maximum(x, new if y is None else jnp.minimum(y, new))
            for x, y in zip(largest, above, strict=False)
        ]
    return tuple(largest)


def _merged_lists(a: Arrays, b: Arrays) -> Arrays:
    """The largest of two descending lists, as many as the first has."""

    def place(r: int) -> jax.Array:
        # In place r stands the largest of what is at least matched by r numbers before it.
        pairs = [(r - 1 - j, j) for j in range(min(r + 1, len(b)))]
        candidates = [b[j] if i < 0 else jnp.minimum(a[i], b[j]) for i, j in pairs]
        return functools.reduce(jnp.maximum, candidates, a[r])

    return tuple(place(r) for r in range(len(a)))


def _unsigned_bits(values: jax.Array) -> jax.Array:
    """In the order of the values for those that are not negative, with NaN the largest.

    Negative values are larger than those, and the larger the more negative they are.
    """
    return lax.bitcast_convert_type(values, jnp.dtype(f"uint{8 * values.dtype.itemsize}"))


def _signed_bits(values: jax.Array) -> jax.Array:
    """In the order of the values for those that are not negative; negative values are smaller."""
    return lax.bitcast_convert_type(values, jnp.dtype(f"int{8 * values.dtype.itemsize}"))


def _of_bits(bits: jax.Array) -> jax.Array:
    """The floating point numbers of these bits."""
    return lax.bitcast_convert_type(bits, jnp.dtype(f"float{8 * bits.dtype.itemsize}"))
