"""Structural operations on semiring elements, which move elements without combining them.

The elements of an array of shape ``S`` are a pytree of arrays whose shapes begin with ``S``; a
statistic that needs several numbers per element owns trailing axes (``TopK(k)`` has one of size
``k``). Everything here acts on the leading axes, leaf by leaf, and leaves the trailing ones alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Elements = Any
Shape = tuple[int, ...]


def accumulation_dtype(dtype: Any) -> Any:
    """Return the real dtype that carries statistics of an array of ``dtype``: at least float32."""
    if not jnp.issubdtype(dtype, jnp.inexact):  # integers are weights too, as in a mask's product
        return jnp.dtype(jnp.float32)
    real = jnp.finfo(dtype)  # for a complex dtype, that of its parts
    return real.dtype if real.bits > 32 else jnp.dtype(jnp.float32)


def node_shape(aval: Any) -> Shape:
    """Return the shape of an array's nodes; a complex number is two, real and imaginary part."""
    return (*aval.shape, 2) if jnp.issubdtype(aval.dtype, jnp.complexfloating) else aval.shape


def map_leaves(function: Callable[..., jax.Array], *elements: Elements) -> Elements:
    """Apply ``function`` to every leaf."""
    return jax.tree.map(function, *elements)


def reshape(elements: Elements, old: Shape, new: Shape) -> Elements:
    """Reshape the leading axes from ``old`` to ``new``."""
    return map_leaves(lambda leaf: leaf.reshape(*new, *leaf.shape[len(old) :]), elements)


def transpose(elements: Elements, permutation: Sequence[int]) -> Elements:
    """Permute the leading axes, like ``jax.numpy.transpose``."""
    n = len(permutation)
    return map_leaves(
        lambda leaf: leaf.transpose(*permutation, *range(n, leaf.ndim)),
        elements,
    )


def broadcast_in_dim(elements: Elements, shape: Shape, dimensions: Sequence[int]) -> Elements:
    """Broadcast the leading axes, like ``jax.lax.broadcast_in_dim``."""
    n = len(dimensions)

    def broadcast(leaf: jax.Array) -> jax.Array:
        trailing = leaf.shape[n:]
        kept = tuple(range(len(shape), len(shape) + len(trailing)))
        return lax.broadcast_in_dim(leaf, (*shape, *trailing), (*dimensions, *kept))

    return map_leaves(broadcast, elements)


def broadcast_to(elements: Elements, old: Shape, shape: Shape) -> Elements:
    """Broadcast size-1 leading axes; ``old`` and ``shape`` have the same rank."""
    if old == shape:
        return elements
    return map_leaves(
        lambda leaf: jnp.broadcast_to(leaf, (*shape, *leaf.shape[len(old) :])), elements
    )


def where(mask: jax.Array, chosen: Elements, other: Elements) -> Elements:
    """Return ``chosen`` where the mask is true, else ``other``; the mask has the leading shape."""
    return map_leaves(
        lambda a, b: jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b),
        chosen,
        other,
    )


def pad(elements: Elements, zero: Elements, config: Sequence[tuple[int, int, int]]) -> Elements:
    """Pad the leading axes with the scalar elements ``zero``, like ``jax.lax.pad``.

    Only a leaf without trailing axes can be padded with one number, and only if it is alone: where
    arrays are sharded, XLA pads one array with two numbers as with the first (jaxlib 0.10 to 0.12).
    Otherwise all leaves are padded with 0, which is then replaced.
    """
    alone = len(jax.tree.leaves(elements)) == 1

    def pad_leaf(leaf: jax.Array, fill: jax.Array) -> jax.Array:
        extra = leaf.ndim - len(config)
        full = [*config, *[(0, 0, 0)] * extra]
        if alone and extra == 0:
            return lax.pad(leaf, fill.astype(leaf.dtype), full)
        shape = leaf.shape[: len(config)]
        inside = lax.pad(jnp.ones(shape, bool), jnp.zeros((), bool), config)
        padded = lax.pad(leaf, jnp.zeros((), leaf.dtype), full)
        return jnp.where(inside.reshape(inside.shape + (1,) * extra), padded, fill)

    return map_leaves(pad_leaf, elements, zero)


def unpad(
    elements: Elements, zero: Elements, config: Sequence[tuple[int, int, int]], shape: Shape
) -> Elements:
    """Undo ``pad``: return the elements of ``shape`` it padded, with ``zero`` where it cropped."""
    elements = pad(elements, zero, [(-low, -high, 0) for low, high, _ in config])
    strides = tuple(interior + 1 for _, _, interior in config)

    def unpad_leaf(leaf: jax.Array) -> jax.Array:
        n = leaf.ndim - len(config)
        stops = tuple(
            min(s, m * step) for s, m, step in zip(leaf.shape, shape, strides, strict=False)
        )
        starts = (0,) * leaf.ndim
        return lax.slice(leaf, starts, (*stops, *leaf.shape[len(config) :]), (*strides, *(1,) * n))

    return map_leaves(unpad_leaf, elements)


def flip(elements: Elements, axes: Sequence[int]) -> Elements:
    """Reverse leading axes."""
    return map_leaves(lambda leaf: lax.rev(leaf, tuple(axes)), elements) if axes else elements


def dynamic_slice(elements: Elements, starts: Sequence[Any], sizes: Shape) -> Elements:
    """Slice the leading axes, like ``jax.lax.dynamic_slice``."""

    def slice_leaf(leaf: jax.Array) -> jax.Array:
        trailing = leaf.shape[len(sizes) :]
        return lax.dynamic_slice(leaf, _indices(starts, len(trailing)), (*sizes, *trailing))

    return map_leaves(slice_leaf, elements)


def dynamic_update_slice(elements: Elements, update: Elements, starts: Sequence[Any]) -> Elements:
    """Update a slice of the leading axes, like ``jax.lax.dynamic_update_slice``."""

    def update_leaf(leaf: jax.Array, part: jax.Array) -> jax.Array:
        return lax.dynamic_update_slice(leaf, part, _indices(starts, leaf.ndim - len(starts)))

    return map_leaves(update_leaf, elements, update)


def _indices(starts: Sequence[Any], trailing: int) -> list[jax.Array]:
    """Return indices of one type, with 0 for the trailing axes."""
    dtype = jax.dtypes.canonicalize_dtype(jnp.int64)
    return [jnp.asarray(start).astype(dtype) for start in (*starts, *(0,) * trailing)]


def take(elements: Elements, indices: jax.Array) -> Elements:
    """Pick along the first axis; out-of-range indices must be masked by the caller."""
    return map_leaves(lambda leaf: jnp.asarray(leaf).at[indices].get(mode="clip"), elements)


def slice_axis(elements: Elements, start: Any, size: int, axis: int) -> Elements:
    """Return ``size`` elements from ``start`` along one leading axis."""
    return map_leaves(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, size, axis), elements)


def concatenate(parts: Sequence[Elements], axis: int) -> Elements:
    """Join along one leading axis."""
    return map_leaves(lambda *leaves: jnp.concatenate(leaves, axis), *parts)


def cast_like(elements: Elements, template: Elements) -> Elements:
    """Give every leaf the dtype of its counterpart in ``template``."""
    return map_leaves(lambda leaf, like: jnp.asarray(leaf).astype(like.dtype), elements, template)


def size(shape: Sequence[int]) -> int:
    """Return the number of elements of an array of this shape."""
    return math.prod(shape)
