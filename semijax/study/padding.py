"""Padding batches to a few lengths, so that a function compiles once for each of these."""

from __future__ import annotations

import bisect
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks


def pad_batch(batch: Any, pad: Any, axis: int, buckets: tuple[int, ...] | None) -> Any:
    """A batch with its leaves padded along an axis to the smallest bucket that holds them.

    Args:
        batch: a pytree of arrays.
        pad: a pytree prefix of it, as ``check_pad`` returns it: numbers, or None where a leaf stays
            as it is. A leaf without the axis does, too. Boolean leaves get False, unless pad is
            True.
        axis: the axis that is padded, at its end.
        buckets: increasing lengths; powers of two from 8 for None.

    Returns:
        The batch; its padded leaves are NumPy arrays.

    Raises:
        ValueError: if ``pad`` is no prefix; a number is not one of its leaf's dtype; no leaf has
            the axis; or leaves to pad differ in length, or are longer than the last bucket.
    """
    leaves, tree = jax.tree.flatten_with_path(batch)
    try:
        broadcast = jax.tree.broadcast(pad, batch, is_leaf=lambda leaf: leaf is None)
    except ValueError as error:
        raise ValueError(f"pad must be a pytree prefix of a batch: {error}") from error
    fills = tree.flatten_up_to(broadcast)
    if all(fill is None for fill in fills):
        return batch
    lengths = {
        jax.tree_util.keystr(path): np.shape(leaf)[axis]
        for (path, leaf), fill in zip(leaves, fills, strict=True)
        if fill is not None and -np.ndim(leaf) <= axis < np.ndim(leaf)
    }
    if not lengths:
        raise ValueError(
            f"No leaf to pad has axis {axis}: the batch is a pytree {tree} of shapes "
            f"{[np.shape(leaf) for _, leaf in leaves]}. pad=None pads nothing."
        )
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"Leaves to pad differ in length along axis {axis}: {lengths}. None in pad leaves a "
            "leaf as it is."
        )
    (length,) = set(lengths.values())
    extra = _bucket(length, buckets) - length
    return tree.unflatten(
        _padded(leaf, fill, axis, extra) if jax.tree_util.keystr(path) in lengths else leaf
        for (path, leaf), fill in zip(leaves, fills, strict=True)
    )


def _bucket(length: int, buckets: tuple[int, ...] | None) -> int:
    if buckets is None:
        return max(8, 1 << (length - 1).bit_length())
    if length > buckets[-1]:
        raise ValueError(
            f"A batch of length {length} is longer than the largest bucket, {buckets[-1]}."
        )
    return buckets[bisect.bisect_left(buckets, length)]


def _padded(leaf: Any, fill: Any, axis: int, extra: int) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype == bool:
        fill = fill is True
    with np.errstate(invalid="ignore"):  # no integer is NaN: the comparison says so
        cast = np.asarray(fill).astype(array.dtype)
    if jnp.issubdtype(array.dtype, jnp.integer) and cast != fill:
        raise ValueError(f"pad={fill!r} is not a number of a leaf's dtype, {array.dtype}.")
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, extra)
    return np.pad(array, widths, constant_values=cast)


def check_pad(pad: Any) -> Any:
    """A pytree of Python's numbers and None."""
    for leaf in jax.tree.leaves(pad):
        if not isinstance(leaf, (int, float, np.number, np.bool_)):
            raise TypeError(f"pad must be a pytree of numbers and None, got {leaf!r} in it.")
    return jax.tree.map(lambda leaf: leaf.item() if isinstance(leaf, np.generic) else leaf, pad)


def check_buckets(buckets: Any) -> tuple[int, ...] | None:
    """Increasing positive integers, or None."""
    if buckets is None:
        return None
    try:
        lengths = tuple(checks.check_positive("A length in buckets", b) for b in buckets)
    except TypeError:
        raise TypeError(f"buckets must be a sequence of lengths, got {buckets!r}.") from None
    if not lengths or any(b <= a for a, b in itertools.pairwise(lengths)):
        raise ValueError(
            f"buckets must be increasing lengths, at least one, got {buckets!r}. pad=None pads "
            "nothing."
        )
    return lengths
