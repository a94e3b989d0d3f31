"""Calls of native kernels as JAX operations, with rules for ``vmap`` and for sharded arrays."""

from __future__ import annotations

import functools
import math
import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import PartitionSpec

KERNELS = {"largest": 1, "hull": 2, "count": 1, "mass": 1, "mean": 2, "entropy": 2}
"""The kernels, and the number of arrays that hold their elements."""

Arrays = tuple[jax.Array, ...]


class ColumnsFirst(NamedTuple):
    """The operands of a contraction that are transposed in memory.

    That is, the weights are ``[B, K, M]`` there, or the elements ``[B, N, K]`` and the result
    ``[B, N, M]``.
    """

    weights: bool = False
    elements: bool = False


def _call(kernel: str, layout: ColumnsFirst, weights: jax.Array, elements: Arrays) -> Arrays:
    """Call the kernel itself: operands and result are as in memory."""
    batch, *of_weights = weights.shape
    _, *of_elements = elements[0].shape
    rows, columns = of_weights[layout.weights], of_elements[not layout.elements]
    matrix = (columns, rows) if layout.elements else (rows, columns)
    result = jax.ShapeDtypeStruct((batch, *matrix, *of_elements[2:]), elements[0].dtype)
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
    call = _sharded(
        lambda weights, *elements: _call(kernel, layout, weights, elements),
        [weights_axes] + [elements_axes] * KERNELS[kernel],
        [result_axes] * KERNELS[kernel],
        "kp"[: 1 + lists],
    )
    contract = custom_vmap(call)

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

    letters, arity = string.ascii_letters[:ndim], KERNELS[kernel]
    left, whole = (
        "".join(letters[a] for a in (*group, *range(own, ndim))) for group in (kept, axes)
    )
    add = custom_vmap(_sharded(call, [letters] * arity, [left] * arity, whole))

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


def _sharded(
    call: Callable[..., Arrays], operands: Sequence[str], results: Sequence[str], whole: str
) -> Callable[..., Arrays]:
    """Give ``call`` a rule for sharded operands.

    Args:
        call: computes a part of the results from the parts of the operands.
        operands: a letter for each of an operand's axes.
        results: the same for the results.
        whole: the axes that ``call`` needs whole.
    """

    def shardings(mesh: Any, axes: dict[str, Any]) -> tuple[Any, Any]:
        def of(letters: str) -> Any:
            return jax.NamedSharding(mesh, PartitionSpec(*(axes.get(a) for a in letters)))

        return tuple(map(of, operands)), tuple(map(of, results))

    def partition(mesh: Any, _: Any, found: Any) -> Any:
        of_operands, of_results = shardings(mesh, _over(results[0], found[0]))
        return mesh, call, of_results, of_operands

    def infer(mesh: Any, given: Any, _: Any) -> Any:
        axes: dict[str, Any] = {}
        for letters, operand in zip(operands, given, strict=True):
            for axis, over in _over(letters, operand).items():
                if over is not None and axis not in whole and over not in axes.values():
                    axes.setdefault(axis, over)
        return shardings(mesh, axes)[1]

    sharded = custom_partitioning(call)
    rule = " -> ".join(", ".join(map(" ".join, side)) for side in (operands, results))
    sharded.def_partition(
        partition,
        infer_sharding_from_operands=infer,  # for GSPMD; the rule is for Shardy
        sharding_rule=rule,
        need_replication_factors=tuple(whole),
    )
    return sharded


def _over(letters: str, aval: Any) -> dict[str, Any]:
    """Map an array's axes to the mesh axes they are sharded over; a spec may have fewer axes."""
    return dict(zip(letters, getattr(aval.sharding, "spec", ()), strict=False))
