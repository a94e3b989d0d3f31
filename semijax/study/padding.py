"""The padding of batches to a few lengths, and its removal from a function's outputs."""

from __future__ import annotations

import bisect
import dataclasses
import inspect
import itertools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks

Observe = Callable[[Any], Mapping[str, np.ndarray]]
"""A function from an output on the host to its numbers, by statistic."""


@dataclasses.dataclass(frozen=True)
class Padding:
    """The way batches are padded.

    Attributes:
        pad: a pytree prefix of a batch: numbers, or None where a leaf stays as it is.
        axis: the axis that is padded, at its end.
        buckets: increasing lengths; powers of two from 8 for None.
    """

    pad: Any
    axis: int
    buckets: tuple[int, ...] | None

    @classmethod
    def checked(cls, pad: Any, axis: Any, buckets: Any) -> Padding:
        """Return a padding, or raise the error that says what is wrong with it."""
        checked = cls(_check_pad(pad), operator.index(axis), _check_buckets(buckets))
        if checked.pads or buckets is None:
            return checked
        raise ValueError(
            f"buckets={checked.buckets} are lengths to pad to, but pad=None pads nothing. pad=0 "
            "pads with zeros, and fn gets a mask."
        )

    @property
    def pads(self) -> bool:
        """True if any leaf is padded."""
        return bool(jax.tree.leaves(self.pad))

    def padded(self, batch: Any) -> tuple[Any, np.ndarray]:
        """Pad a batch to the smallest bucket that holds it; also tell which positions are its own.

        A leaf without the axis stays as it is. Boolean leaves get False, unless ``pad`` is True.

        Returns:
            The batch, whose padded leaves are NumPy arrays, and bool ``[bucket]``.

        Raises:
            ValueError: if ``pad`` is not a prefix of the batch; a number is not one of its leaf's
                dtype; no leaf has the axis; or leaves to pad differ in length, or are longer than
                the last bucket.
        """
        leaves, tree = jax.tree.flatten_with_path(batch)
        try:
            broadcast = jax.tree.broadcast(self.pad, batch, is_leaf=lambda leaf: leaf is None)
        except ValueError as error:
            raise ValueError(f"pad must be a pytree prefix of a batch: {error}") from error
        fills = tree.flatten_up_to(broadcast)
        lengths = {
            jax.tree_util.keystr(path): np.shape(leaf)[self.axis]
            for (path, leaf), fill in zip(leaves, fills, strict=True)
            if fill is not None and -np.ndim(leaf) <= self.axis < np.ndim(leaf)
        }
        if not lengths:
            raise ValueError(
                f"No leaf to pad has axis {self.axis}: the batch is a pytree {tree} of shapes "
                f"{[np.shape(leaf) for _, leaf in leaves]}. pad=None pads nothing."
            )
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"Leaves to pad differ in length along axis {self.axis}: {lengths}. None in pad "
                "leaves a leaf as it is."
            )
        (length,) = set(lengths.values())
        bucket = self._bucket(length)
        padded = tree.unflatten(
            self._leaf(leaf, fill, bucket - length)
            if jax.tree_util.keystr(path) in lengths
            else leaf
            for (path, leaf), fill in zip(leaves, fills, strict=True)
        )
        return padded, np.arange(bucket) < length

    def _bucket(self, length: int) -> int:
        if self.buckets is None:
            return max(8, 1 << (length - 1).bit_length())
        if length > self.buckets[-1]:
            raise ValueError(
                f"A batch of length {length} is longer than the largest bucket, {self.buckets[-1]}."
            )
        return self.buckets[bisect.bisect_left(self.buckets, length)]

    def _leaf(self, leaf: Any, fill: Any, extra: int) -> np.ndarray:
        array = np.asarray(leaf)
        if array.dtype == bool:
            fill = fill is True
        with np.errstate(invalid="ignore"):  # no integer is NaN: the comparison says so
            cast = np.asarray(fill).astype(array.dtype)
        if jnp.issubdtype(array.dtype, jnp.integer) and cast != fill:
            raise ValueError(f"pad={fill!r} is not a number of a leaf's dtype, {array.dtype}.")
        widths = [(0, 0)] * array.ndim
        widths[self.axis] = (0, extra)
        return np.pad(array, widths, constant_values=cast)


class Observed(NamedTuple):
    """The input that a function ran on, its output, and the output's numbers by statistic."""

    ran_on: Any
    output: Any
    numbers: Mapping[str, np.ndarray]


class Exact:
    """A runner of a function on batches as they are."""

    def __init__(self, run: Callable[..., Any]):
        self.run = run

    def __call__(self, batch: Any, observe: Observe) -> Observed:
        """Return the batch, the output and its numbers."""
        output = jax.device_get(self.run(batch))
        return Observed(batch, output, observe(output))


class Padded:
    """A runner of a function on padded batches that gives its outputs for unpadded ones.

    One batch, run both padded and as it is, shows which axes of the output are padded, and whether
    padding changes the numbers.
    """

    def __init__(self, run: Callable[..., Any], padding: Padding, tolerance: float):
        self.run: Callable[..., Any] = run
        self.padding: Padding = padding
        self.tolerance: float = tolerance
        self.known: _Shapes | None = None

    def __call__(self, batch: Any, observe: Observe) -> Observed:
        """Return the padded batch, the output without the padding's positions, and its numbers."""
        padded, mask = self.padding.padded(batch)
        output = jax.device_get(self.run(padded, mask=mask))
        length, bucket = int(mask.sum()), mask.size
        if length == bucket:
            return Observed(padded, output, observe(output))
        if self.known is None or not self.known.describe(output, bucket):
            try:
                output, numbers = self._compared(batch, output, length, bucket, observe)
            except Exception as error:
                error.add_note(
                    f"While comparing a batch padded from {length} to {bucket} with the same batch "
                    "without padding. pad=None, the default, pads nothing."
                )
                raise
            return Observed(padded, output, numbers)
        output = self.known.without_padding(output, bucket - length)
        return Observed(padded, output, observe(output))

    def _compared(
        self, batch: Any, output: Any, length: int, bucket: int, observe: Observe
    ) -> tuple[Any, Mapping[str, np.ndarray]]:
        """Return an output without padding, and its numbers; raise if padding changes these."""
        exact = jax.device_get(self.run(batch, mask=np.ones(length, bool)))
        self.known = _Shapes.of(output, exact, bucket, length)
        output = self.known.without_padding(output, bucket - length)
        numbers = observe(output)
        _check_same(numbers, observe(exact), self.tolerance)
        return output, numbers


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """The shapes of an output's leaves, by the length of the batch.

    Attributes:
        tree: the output's structure.
        leaves: for each axis of each leaf, whether it grows with the batch, and its size, less the
            batch's length if it does.
    """

    tree: Any
    leaves: tuple[tuple[tuple[bool, int], ...], ...]

    @classmethod
    def of(cls, padded: Any, exact: Any, bucket: int, length: int) -> _Shapes:
        """Infer the shapes from a function's outputs for a batch padded and as it is."""
        tree = jax.tree.structure(padded)
        if tree != jax.tree.structure(exact):
            raise ValueError(
                f"Padding changes the structure of fn's output, from {jax.tree.structure(exact)} "
                f"to {tree}."
            )
        found = []
        for (path, leaf), other in zip(
            jax.tree_util.tree_leaves_with_path(padded), jax.tree.leaves(exact), strict=True
        ):
            sizes, own = np.shape(leaf), np.shape(other)
            if len(sizes) != len(own) or any(
                a - b not in (0, bucket - length) for a, b in zip(sizes, own, strict=True)
            ):
                raise ValueError(
                    f"output{jax.tree_util.keystr(path)} has shape {sizes} where the batch is "
                    f"padded and {own} where it is not. Which part is padding can be told only if "
                    f"an axis is longer by the padding, {bucket - length}, or not at all."
                )
            found.append(
                tuple((a != b, a - bucket * (a != b)) for a, b in zip(sizes, own, strict=True))
            )
        return cls(tree, tuple(found))

    def describe(self, output: Any, bucket: int) -> bool:
        """Tell whether an output, of a batch padded to a bucket, has these shapes."""
        shapes = tuple(tuple(size + bucket * grows for grows, size in axes) for axes in self.leaves)
        return self.tree == jax.tree.structure(output) and shapes == tuple(
            map(np.shape, jax.tree.leaves(output))
        )

    def without_padding(self, output: Any, extra: int) -> Any:
        """Return an output without the last positions of the axes that grow with the batch."""
        cropped = [
            leaf[tuple(slice(-extra if grows else None) for grows, _ in axes)]
            if any(grows for grows, _ in axes)
            else leaf
            for leaf, axes in zip(jax.tree.leaves(output), self.leaves, strict=True)
        ]
        return self.tree.unflatten(cropped)


def _check_same(
    found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], tolerance: float
) -> None:
    """Raise if padding changes a number by more than the tolerance."""
    if math.isinf(tolerance):
        return
    if found.keys() != wanted.keys():
        raise ValueError(f"Padding changes the statistics from {[*wanted]} to {[*found]}.")
    largest = max((np.nanmax(np.abs(x), initial=0) for x in wanted.values()), default=0)
    for name, numbers in wanted.items():
        if found[name].shape != numbers.shape:
            raise ValueError(
                f"Padding changes the observations of {name!r} from shape {numbers.shape} to "
                f"{found[name].shape}."
            )
        with np.errstate(over="ignore"):
            change = np.abs(found[name] - numbers)
            # What adds up to nothing, like some gradients, is all rounding.
            allowed = tolerance * np.nansum(np.maximum(np.abs(numbers), largest / 1000))
        if (np.isnan(found[name]) != np.isnan(numbers)).any() or np.nansum(change) > allowed:
            before, after = (np.array2string(x, threshold=8) for x in (numbers, found[name]))
            raise ValueError(
                f"Padding changes the observations of {name!r} from {before} to {after}. fn must "
                "disregard the positions where mask is False. If this is rounding, a larger "
                f"pad_tolerance than {tolerance} allows it."
            )


def check_takes_mask(fn: Callable[..., Any]) -> None:
    """Raise unless a function can be called as ``fn(batch, mask=mask)``."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # as of some builtins: the call will tell
        return
    try:
        signature.bind(None, mask=None)
    except TypeError as error:
        raise TypeError(
            f"With pad, fn is called as fn(batch, mask=mask), where mask says which positions are "
            f"the batch's own, but {getattr(fn, '__qualname__', fn)}{signature} cannot be: "
            f"{error}. pad=None, the default, pads nothing."
        ) from None


def check_tolerance(tolerance: Any) -> float:
    """Return a number that is not negative, perhaps infinity, or raise."""
    if isinstance(tolerance, (int, float, np.number)) and tolerance >= 0:
        return float(tolerance)
    raise ValueError(f"pad_tolerance must be a number of at least 0, got {tolerance!r}.")


def _check_pad(pad: Any) -> Any:
    """Return a pytree of Python's numbers and None, or raise."""
    for leaf in jax.tree.leaves(pad):
        if not isinstance(leaf, (int, float, np.number, np.bool_)):
            raise TypeError(f"pad must be a pytree of numbers and None, got {leaf!r} in it.")
    return jax.tree.map(lambda leaf: leaf.item() if isinstance(leaf, np.generic) else leaf, pad)


def _check_buckets(buckets: Any) -> tuple[int, ...] | None:
    """Return increasing positive integers, or None, or raise."""
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
