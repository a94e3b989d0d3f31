"""Contractions of semirings whose ⊕ selects: of all products, the largest, or the k largest.

On the CPU a native kernel computes them. The XLA form compares the products a block at a time and
never stores them. Numbers that are not negative have the order of their bits read as integers, and
there a NaN is larger than all of them: comparing the bits takes one instruction where a comparison
that keeps NaN takes several.
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

from semijax import native
from semijax.semirings.blocks import DERIVATIVE_BLOCK, fold, fold_sum

Arrays = tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class Selected:
    """The origin of a number of the answer: a product of one of these planes, or its size."""

    planes: tuple[int, ...]
    absolute: bool


@dataclasses.dataclass(frozen=True)
class Selection:
    """A choice of what to select among products of weights with elements of several numbers.

    Attributes:
        kernel: the native kernel.
        numbers: what each number of an element is in the answer, for its derivative.
        present: from the planes to masks of the numbers that are there, or None for all.
        by_blocks: the XLA form, from weights and planes to planes.
        stacked: whether the numbers of an element are a trailing axis, not arrays of their own.
    """

    kernel: str
    numbers: tuple[Selected, ...]
    present: Callable[[Arrays], Sequence[Any]]
    by_blocks: Callable[[jax.Array, Arrays], Arrays]
    stacked: bool = False

    def planes(self, elements: Arrays) -> Arrays:
        """Return the numbers of the elements, each an array of its own."""
        if not self.stacked:
            return elements
        (stack,) = elements
        return tuple(stack[..., i] for i in range(len(self.numbers)))

    def elements(self, planes: Arrays) -> Arrays:
        """Undo ``planes``."""
        return (jnp.stack(planes, -1),) if self.stacked else planes


def select(selection: Selection, weights: jax.Array, elements: Arrays) -> Arrays:
    """Select among the products ``weights[b, m, k] ⊗ elements[b, k, n]`` of all k.

    Its derivative is that of the product that was selected, and where several are equal the mean of
    theirs, as for ``jax.numpy.max``; 0 where none was, and NaN where it is not finite.

    Args:
        selection: which products.
        weights: array of shape ``[B, M, K]``.
        elements: arrays of shape ``[B, K, N]``; or one that is ``stacked``, ``[B, K, N, numbers]``.

    Returns:
        The elements selected, arrays of shape ``[B, M, N]``, or ``[B, M, N, numbers]``.
    """
    return _select(selection, weights, elements)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _select(selection: Selection, weights: jax.Array, elements: Arrays) -> Arrays:
    def by_xla(weights: jax.Array, *elements: jax.Array) -> Arrays:
        return selection.elements(selection.by_blocks(weights, selection.planes(elements)))

    return native.on_cpu(selection.kernel, by_xla, weights, *elements)


@_select.defjvp
def _select_jvp(selection: Selection, primals: Any, tangents: Any) -> tuple[Arrays, Arrays]:
    weights, elements = primals
    d_weights, d_elements = tangents
    found = _select(selection, weights, elements)
    planes, d_planes = selection.planes(elements), selection.planes(d_elements)
    present = selection.present(planes)
    products = _products(weights, planes, present, math.nan)  # NaN equals no number
    # A factor that is not finite must not touch the derivatives of the products of others.
    finite = [jnp.where(jnp.isfinite(x), x, 0) for x in (weights, *planes)]
    by_weights = _products(d_weights, finite[1:], present, 0)
    by_planes = _products(finite[0], d_planes, present, 0)
    values = selection.planes(found)

    def signs(start: Any, count: int) -> list[list[jax.Array]]:
        """Return, for every number and product it may be: 1 if it is, −1 if minus it, or 0."""
        here = products(start, count)
        return [
            [_sign(here[p], value[:, :, None], number.absolute) for p in number.planes]
            for number, value in zip(selection.numbers, values, strict=True)
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

    return found, selection.elements(tuple(map(derivative, values, totals, counts)))


def _products(
    weights: jax.Array,
    planes: Sequence[jax.Array],
    present: Sequence[Any],
    absent: float,
    absolute: bool = False,
) -> Callable[[Any, int], list[jax.Array]]:
    """Return a function for each plane's products at some k, or their sizes: ``[B, M, k, N]``.

    Where a plane has no number, ``absent`` stands instead.
    """

    def products(start: Any, count: int) -> list[jax.Array]:
        w = lax.dynamic_slice_in_dim(weights, start, count, 2)[..., None]

        def of(plane: jax.Array, mask: Any) -> jax.Array:
            product = w * lax.dynamic_slice_in_dim(plane, start, count, 1)[:, None]
            product = jnp.abs(product) if absolute else product
            if mask is None:
                return product
            there = lax.dynamic_slice_in_dim(mask, start, count, 1)[:, None]
            return jnp.where(there, product, absent)

        return [of(*each) for each in zip(planes, present, strict=True)]

    return products


def _sign(product: jax.Array, value: jax.Array, absolute: bool) -> jax.Array:
    if absolute:
        return jnp.where(jnp.abs(product) == value, jnp.sign(product), 0)
    return (product == value).astype(product.dtype)


# What is selected, in XLA's operations.


def _largest_by_blocks(nothing: float, weights: jax.Array, planes: Arrays) -> Arrays:
    """Return the largest sizes of products, descending, one for each plane; or ``nothing``.

    The planes descend, so with whatever is selected from plane i, i larger products of the same
    weight are selected too.
    """
    k = len(planes)
    present = _numbers_there(planes) if nothing else (None,) * k
    products = _products(weights, planes, present, -1.0, absolute=True)

    def of_block(start: Any, count: int) -> Arrays:
        lists = [
            _sorted(_signed_bits(x), k // (i + 1)) for i, x in enumerate(products(start, count))
        ]
        return functools.reduce(_merged, lists)

    batch, rows, depth = weights.shape
    none = jnp.full((batch, rows, planes[0].shape[2]), -1.0, planes[0].dtype)
    at_once = none.nbytes if k == 1 else None  # lists are merged number by number
    state = fold(depth, of_block, _merged, (_signed_bits(none),) * k, index_bytes=at_once)
    found = [jnp.where(bits < 0, nothing, _from_bits(bits)) for bits in state]
    # Where one is not a number, the places of the others are unknown.
    unknown = jnp.isnan(found[0])
    return (found[0], *(jnp.where(unknown, jnp.nan, x) for x in found[1:]))


def _numbers_there(planes: Arrays) -> Sequence[Any]:
    return [plane != -jnp.inf for plane in planes]


def _sorted(bits: jax.Array, count: int) -> Arrays:
    """Return the ``count`` largest over axis 2, descending."""
    if count == 1:
        return (bits.max(2),)
    largest: list[jax.Array] = [jnp.full_like(bits[:, :, 0], -1)] * count
    for j in range(bits.shape[2]):
        new = bits[:, :, j]
        above = [None, *largest]
        largest = [
            jnp.maximum(x, new if y is None else jnp.minimum(y, new))
            for x, y in zip(largest, above, strict=False)
        ]
    return tuple(largest)


def _merged(a: Arrays, b: Arrays) -> Arrays:
    """Return the largest of two descending lists, as many as the first has."""

    def place(r: int) -> jax.Array:
        # In place r stands the largest of what is at least matched by r numbers before it.
        pairs = [(r - 1 - j, j) for j in range(min(r + 1, len(b)))]
        candidates = [b[j] if i < 0 else jnp.minimum(a[i], b[j]) for i, j in pairs]
        return functools.reduce(jnp.maximum, candidates, a[r])

    return tuple(place(r) for r in range(len(a)))


def _hull_by_blocks(weights: jax.Array, planes: Arrays) -> Arrays:
    """Return the largest and the smallest product of weights with the two ends of intervals.

    The hull of the products and 0 comes from comparing bits of one sign. Where all products have
    the same sign, the size of the smallest is the other end.
    """
    high, low = planes
    present, _ = _intervals_there(planes)
    crossing = (high >= 0) & (low <= 0)
    smaller = jnp.minimum(jnp.abs(high), jnp.abs(low))
    size = jnp.where(present, jnp.where(crossing, 0, smaller), jnp.inf)
    # Masking the products would cost as much as selecting: an end that is absent is 0, which an
    # infinite weight makes NaN.
    ends = [jnp.where(present, end, 0) for end in planes]
    products = _products(weights, (*ends, size), (None,) * 3, 0)

    def of_block(start: Any, count: int) -> Arrays:
        a, b, size = products(start, count)
        return (
            jnp.maximum(_signed_bits(a), _signed_bits(b)).max(2),
            jnp.maximum(_unsigned_bits(a), _unsigned_bits(b)).max(2),
            _unsigned_bits(jnp.abs(size)).min(2),
        )

    def merge(a: Arrays, b: Arrays) -> Arrays:
        return jnp.maximum(a[0], b[0]), jnp.maximum(a[1], b[1]), jnp.minimum(a[2], b[2])

    batch, rows, depth = weights.shape
    zeros = jnp.zeros((batch, rows, high.shape[2]), high.dtype)
    start = (_signed_bits(zeros), _unsigned_bits(zeros), _unsigned_bits(zeros + jnp.inf))
    state = fold(depth, of_block, merge, start, index_bytes=3 * zeros.nbytes)
    largest, lowest, smallest = map(_from_bits, state)
    unknown = jnp.isnan(largest) | jnp.isnan(lowest)
    # Bits of the other sign say that there is none of this one; and ∞ · 0 is no path's size.
    smallest = jnp.where(jnp.isnan(smallest), jnp.inf, smallest)
    any_zero = smallest == 0
    largest = jnp.where(state[0] > 0, largest, jnp.where(any_zero, 0, -smallest))
    lowest = jnp.where(lowest < 0, lowest, jnp.where(any_zero, 0, smallest))
    return jnp.where(unknown, jnp.nan, largest), jnp.where(unknown, jnp.nan, lowest)


def _intervals_there(planes: Arrays) -> Sequence[Any]:
    high, low = planes
    return [~(high < low)] * 2


def _unsigned_bits(values: jax.Array) -> jax.Array:
    """Return bits in the order of the values that are not negative, with NaN the largest.

    Negative values are larger than those, and the larger the more negative they are.
    """
    return lax.bitcast_convert_type(values, jnp.dtype(f"uint{8 * values.dtype.itemsize}"))


def _signed_bits(values: jax.Array) -> jax.Array:
    """Return bits in the order of the values that are not negative; negative ones are smaller."""
    return lax.bitcast_convert_type(values, jnp.dtype(f"int{8 * values.dtype.itemsize}"))


def _from_bits(bits: jax.Array) -> jax.Array:
    """Return the floating point numbers of these bits."""
    return lax.bitcast_convert_type(bits, jnp.dtype(f"float{8 * bits.dtype.itemsize}"))


def largest_of_members(values: jax.Array, names: Any) -> jax.Array:
    """Compute ``pmax`` over named axes, but NaN where a member has NaN.

    The all-reduce of XLA for the CPU compares floating point numbers, and loses NaN.
    """
    bits = _signed_bits(values)
    top = jnp.iinfo(bits.dtype).max  # the bits of a NaN, larger than those of infinity

    def reordered(bits: jax.Array) -> jax.Array:
        return jnp.where(bits < 0, bits ^ top, bits)  # negative numbers too in their order

    largest = lax.pmax(jnp.where(jnp.isnan(values), top, reordered(bits)), names)
    return _from_bits(reordered(largest))


LARGEST = Selection(
    "largest",
    (Selected((0,), absolute=True),),
    lambda planes: (None,),
    functools.partial(_largest_by_blocks, 0.0),
)
"""The selection of the largest size of a product: for arrays, 0 where there is none."""


@functools.cache
def largest_sizes(k: int) -> Selection:
    """Make the selection of the ``k`` largest sizes, in descending lists, −∞ after the last."""
    return Selection(
        "largest",
        tuple(Selected(tuple(range(i + 1)), absolute=True) for i in range(k)),
        _numbers_there,
        functools.partial(_largest_by_blocks, -math.inf),
        stacked=True,
    )


HULL = Selection(
    "hull",
    (Selected((0, 1), absolute=False),) * 2,
    _intervals_there,
    _hull_by_blocks,
)
"""The selection of the hull of intervals, the higher end first; the empty one is (−∞, ∞)."""
