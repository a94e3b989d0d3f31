"""Calls of native kernels as JAX operations, with rules for ``vmap``."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from semijax.sharding import Arrays, varying_like

KERNELS = {"largest": 1, "hull": 2, "count": 1, "mass": 1, "mean": 2, "entropy": 2}
"""The kernels, and the number of arrays that hold their elements."""


class ColumnsFirst(NamedTuple):
    """The operands of a contraction that are transposed in memory.

    That is, the weights are ``[B, K, M]`` there, or the elements ``[B, N, K]`` and the result
    ``[B, N, M]``.
    """

    weights: bool = False
    elements: bool = False


def _call(
    kernel: str, layout: ColumnsFirst, weights: jax.Array, elements: Sequence[jax.Array]
) -> Arrays:
    """Call the kernel itself: operands and result are as in memory."""
    batch, *of_weights = weights.shape
    _, *of_elements = elements[0].shape
    rows, columns = of_weights[layout.weights], of_elements[not layout.elements]
    matrix = (columns, rows) if layout.elements else (rows, columns)
    operands = weights, elements
    weights, elements = varying_like(operands, operands)
    shape, aval = (batch, *matrix, *of_elements[2:]), jax.typeof(weights)
    varying = {}  # in shard_map, the result's type says over what, as the operands' do
    if aval.mat.varying:
        replicated = jax.NamedSharding(aval.sharding.mesh, jax.P())
        varying = {"sharding": replicated, "manual_axis_type": aval.mat}
    result = jax.ShapeDtypeStruct(shape, elements[0].dtype, **varying)
    call = jax.ffi.ffi_call(f"semijax_{kernel}", [result] * len(elements))
    flags = {"weights_columns_first": layout.weights, "columns_first": layout.elements}
    return tuple(call(weights, *elements, **flags))


@functools.cache
def contraction(kernel: str, layout: ColumnsFirst, lists: int) -> Callable[..., Arrays]:
    """Make a kernel of arrays that are as in memory; ``vmap`` makes it one larger contraction.

    Args:
        kernel: its name.
        layout: which of the operands come transposed.
        lists: how many axes follow the elements' three: 1 for lists of numbers.
    """
    weights_axes = "bkm" if layout.weights else "bmk"
    elements_axes = ("bnk" if layout.elements else "bkn") + "p" * lists
    result_axes = ("bnm" if layout.elements else "bmn") + "p" * lists
    contract = custom_vmap(lambda weights, *elements: _call(kernel, layout, weights, elements))

    @contract.def_vmap
    def batched(axis_size: int, in_batched: Any, weights: jax.Array, *elements: jax.Array) -> Any:
        weights_batched, *elements_batched = in_batched
        sizes = dict(zip(weights_axes, weights.shape[weights_batched:], strict=True))
        of_first = elements[0].shape[elements_batched[0] :]
        sizes |= dict(zip(elements_axes, of_first, strict=True))
        if not any(elements_batched):
            axis = "m"
        elif not weights_batched:
            axis = "n"
        else:
            axis = "b"
        if axis != "n":
            weights = _merge(weights, weights_axes.index(axis))
        if axis != "m":
            elements = _all_batched(axis_size, elements, elements_batched)
            elements = tuple(_merge(e, elements_axes.index(axis)) for e in elements)
        found = contract(weights, *elements)
        at = result_axes.index(axis)
        split = tuple(_split(x, at, axis_size, sizes[axis]) for x in found)
        return split, (True,) * len(split)

    return contract


def _merge(x: jax.Array, axis: int) -> jax.Array:
    """Merge the first axis, which is mapped over, into ``axis``."""
    n, *shape = x.shape
    shape[axis] *= n
    return jnp.moveaxis(x, 0, axis).reshape(shape)


def _split(x: jax.Array, axis: int, n: int, size: int) -> jax.Array:
    """Undo ``_merge`` of ``n`` arrays of this size along ``axis``."""
    shape = [*x.shape]
    shape[axis : axis + 1] = n, size
    return jnp.moveaxis(x.reshape(shape), axis, 0)


@functools.cache
def summation(kernel: str, axes: tuple[int, ...], ndim: int, lists: int) -> Callable[..., Arrays]:
    """Make the kernel with weights of 1: ⊕ over some axes.

    Args:
        kernel: its name.
        axes: those axes, ascending.
        ndim: how many axes the elements' arrays have.
        lists: how many of them are not the elements' own: 1 for lists of numbers.
    """
    own = ndim - lists
    kept = tuple(a for a in range(own) if a not in axes)
    layout = ColumnsFirst(elements=axes[-1] == own - 1)  # as they are

    def call(*elements: jax.Array) -> Arrays:
        shape = elements[0].shape
        depth, columns = math.prod(shape[a] for a in axes), math.prod(shape[a] for a in kept)
        groups, merged = [(kept, columns), (axes, depth)], shape[own:]
        if not layout.elements:
            groups.reverse()

        def matrix(leaf: jax.Array) -> jax.Array:
            order = [a for group, _ in groups for a in group]
            leaf = leaf.transpose(*order, *range(own, ndim))
            return leaf.reshape(1, *(size for _, size in groups), *merged)

        ones = jnp.ones((1, 1, depth), jnp.float32)
        found = _call(kernel, layout, ones, tuple(map(matrix, elements)))
        return tuple(x.reshape(*(shape[a] for a in kept), *merged) for x in found)

    arity = KERNELS[kernel]
    add = custom_vmap(call)

    @add.def_vmap
    def batched(axis_size: int, in_batched: Any, *elements: jax.Array) -> Any:
        larger = summation(kernel, tuple(a + 1 for a in axes), ndim + 1, lists)
        return larger(*_all_batched(axis_size, elements, in_batched)), (True,) * arity

    return add


def _all_batched(size: int, arrays: Arrays, batched: Any) -> Arrays:
    """Batch all of them along the first axis."""
    return tuple(
        x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
        for x, is_batched in zip(arrays, batched, strict=True)
    )
