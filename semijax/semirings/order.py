"""Semirings whose ⊕ selects: the strongest path, the k strongest."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from semijax import elements as el
from semijax import native
from semijax.elements import Shape
from semijax.semirings.base import Names, Semiring
from semijax.semirings.devices import add_on_devices, scale_on_devices, sum_on_devices
from semijax.semirings.real import SumProduct
from semijax.semirings.selection import (
    HULL,
    LARGEST,
    Arrays,
    largest_of_members,
    largest_sizes,
    select,
)


class Interval(NamedTuple):
    """The largest and the smallest path weight; no path at all is (−∞, +∞), the empty interval.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: x * jnp.array([2.0, -5.0]) @ jnp.array([1.0, 1.0])
        >>> both = sj.semiring_grad(f, sj.MaxProduct(), raw=True)(1.0)
        >>> print(both.max, both.min)
        2.0 -5.0
    """

    max: jax.Array
    min: jax.Array


class SignedSemiring(Semiring):
    """The interval hull of the path weights.

    (max, ×) on signed numbers is not a semiring: a negative factor turns the largest product into
    the smallest, so × does not distribute over max. The hull [min, max] is one: ⊕ is the hull of
    the union, ⊗ the hull of the four products of the ends, 0̄ the empty interval and 1̄ = [1, 1].
    """

    units: ClassVar[str | None] = "weight"
    best: ClassVar[Literal["size", "largest", "smallest"]] = "largest"

    def zero(self, shape: Shape, dtype: Any) -> Interval:
        return Interval(jnp.full(shape, -jnp.inf, dtype), jnp.full(shape, jnp.inf, dtype))

    def one(self, shape: Shape, dtype: Any) -> Interval:
        return Interval(jnp.ones(shape, dtype), jnp.ones(shape, dtype))

    def lift(self, weights: jax.Array) -> Interval:
        return Interval(weights, weights)

    def add(self, a: Interval, b: Interval) -> Interval:
        return Interval(jnp.maximum(a.max, b.max), jnp.minimum(a.min, b.min))

    def mul(self, a: Interval, b: Interval) -> Interval:
        empty = _is_empty(a) | _is_empty(b)
        products = [x * y for x in _ends_or_0(empty, a) for y in _ends_or_0(empty, b)]
        high, low = functools.reduce(jnp.maximum, products), functools.reduce(jnp.minimum, products)
        return Interval(jnp.where(empty, -jnp.inf, high), jnp.where(empty, jnp.inf, low))

    def by_operation(self, absent: bool = False) -> Semiring:
        return OperationGranularity(self, absent)

    def scale(self, weights: jax.Array, elements: Interval) -> Interval:
        return _scale(weights, elements)

    def pass_through(self, elements: Interval) -> Interval:
        return elements

    def sum(self, elements: Interval, axes: tuple[int, ...]) -> Interval:
        none = self.zero((), elements.max.dtype)
        return Interval(
            lax.reduce(elements.max, none.max, lax.max, axes),
            lax.reduce(elements.min, none.min, lax.min, axes),
        )

    def contract(self, weights: jax.Array, elements: Interval) -> Interval:
        return Interval(*select(HULL, weights, tuple(elements)))

    def all_reduce(self, elements: Interval, names: Names) -> Interval:
        high = largest_of_members(elements.max, names)
        return Interval(high, -largest_of_members(-elements.min, names))

    def segment_sum(self, elements: Interval, segments: jax.Array, count: int) -> Interval:
        kept = jnp.where(segments < 0, count, segments)
        zero = self.zero((count,), elements.max.dtype)
        return Interval(
            zero.max.at[kept].max(elements.max, mode="drop"),
            zero.min.at[kept].min(elements.min, mode="drop"),
        )


@jax.custom_jvp
def _scale(weights: jax.Array, interval: Interval) -> Interval:
    return el.where(_is_empty(interval), interval, _scaled(weights, interval))


@_scale.defjvp
def _scale_jvp(primals: Any, tangents: Any) -> tuple[Interval, Interval]:
    # The ends of an empty interval times a weight of 0 are NaN, as is any derivative there.
    (weights, interval), (_, d_interval) = primals, tangents
    empty = _is_empty(interval)
    finite = weights, Interval(*_ends_or_0(empty, interval))
    return _scale(*primals), el.where(empty, d_interval, jax.jvp(_scaled, finite, tangents)[1])


def _scaled(weights: jax.Array, interval: Interval) -> Interval:
    a, b = weights * interval.max, weights * interval.min
    return Interval(jnp.maximum(a, b), jnp.minimum(a, b))


def _is_empty(interval: Interval) -> jax.Array:
    return interval.max < interval.min


def _ends_or_0(empty: jax.Array, interval: Interval) -> Sequence[jax.Array]:
    """Return the ends to multiply: 0 where empty, as they are infinite there and 0 · ∞ is NaN."""
    return [jnp.where(empty, 0, end) for end in interval]


@dataclasses.dataclass(frozen=True)
class MaxProduct(SignedSemiring):
    """The largest path weight, with its sign; −∞ where there is no path.

    The elements are ``Interval(max, min)``, see ``SignedSemiring``; this reads the max. Answers:
    what does the strongest positive path contribute?

    Source: Du et al. 2023, Eq. 5 (there with + and × swapped for max and ×).

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x, y: jnp.exp(x) + (x - y) * y
        >>> print(sj.semiring_grad(f, sj.MaxProduct())(0.0, 3.0))
        3.0
    """

    def readout(self, elements: Interval) -> jax.Array:
        return elements.max


@dataclasses.dataclass(frozen=True)
class MinProduct(SignedSemiring):
    """The smallest path weight, with its sign; +∞ where there is no path.

    The same elements as ``MaxProduct``, read at the other end. Answers: what does the strongest
    negative path contribute?

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: x * jnp.array([2.0, -5.0]) @ jnp.array([1.0, 1.0])
        >>> print(sj.semiring_grad(f, sj.MinProduct())(1.0))
        -5.0
    """

    best: ClassVar[Literal["size", "largest", "smallest"]] = "smallest"

    def readout(self, elements: Interval) -> jax.Array:
        return elements.min


@dataclasses.dataclass(frozen=True)
class OperationGranularity(SignedSemiring):
    """The largest and the smallest weight, with whole equations for edges.

    This is what the public code of Du et al. 2023 computes for its max: a pair of numbers per
    element goes through an equation as through a linear map, each number by itself; the larger and
    the smaller of the two then compete where branches of arrays meet. Entries of 0 in the linear
    map, such as those of elements that a slice leaves out, are weights of 0.

    It is not a dynamic programme over paths of any graph: a sum over a maximum is no path's weight.

    Attributes:
        of: the semiring whose statistic it reads: a signed maximum or ``AbsMaxProduct``.
        absent: whether to look for arrays that no path leads on from, which takes time. A sweep
            leaves them out by itself, except one over ``AroundThrough``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: (x * jnp.array([2.0, 3.0])).sum()
        >>> sj.semirings.as_semiring(sj.MaxProduct(), "op")
        OperationGranularity(of=MaxProduct(), absent=False)
        >>> print(sj.semiring_grad(f, sj.MaxProduct())(1.0))  # the larger of 2 and 3
        3.0
        >>> print(sj.semiring_grad(f, sj.MaxProduct(), granularity="op")(1.0))  # their sum
        5.0
    """

    of: Semiring
    absent: bool = False

    @property
    def units(self) -> str | None:
        return self.of.units

    @property
    def best(self) -> Any:
        return self.of.best

    @property
    def size_of(self) -> str | None:
        return self.of.size_of

    def __str__(self) -> str:
        return str(self.of)  # tables say the granularity themselves

    def at(self, equation: Any) -> Semiring:
        return _Linear(self.absent)

    def settle(self, elements: Interval) -> Interval:
        hull = Interval(jnp.maximum(*elements), jnp.minimum(*elements))
        return el.where(_is_no_path(elements), elements, hull)

    def by_operation(self, absent: bool = False) -> Semiring:
        return OperationGranularity(self.of, absent)

    def readout(self, elements: Interval) -> jax.Array:
        if isinstance(self.of, SignedSemiring):
            return self.of.readout(elements)
        ends = jnp.maximum(jnp.abs(elements.max), jnp.abs(elements.min))
        return jnp.where(_is_empty(elements), 0, ends)


@dataclasses.dataclass(frozen=True)
class _Linear(Semiring):
    """Two vectors that a linear map acts on; an element that no path has reached is 0.

    Attributes:
        absent: whether no path leads on from an array where none of its elements is reached.
    """

    absent: bool

    zero_weight_is_no_path = True

    def zero(self, shape: Shape, dtype: Any) -> Interval:
        return Interval(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def one(self, shape: Shape, dtype: Any) -> Interval:
        return Interval(jnp.ones(shape, dtype), jnp.ones(shape, dtype))

    def lift(self, weights: jax.Array) -> Interval:
        return Interval(weights, weights)

    def add(self, a: Interval, b: Interval) -> Interval:
        return self._each(jnp.add, a, b)

    def mul(self, a: Interval, b: Interval) -> Interval:
        return self._each(jnp.multiply, a, b)

    def scale_selected(
        self, weights: jax.Array, selected: jax.Array, elements: Interval
    ) -> Interval:
        kept = selected | _is_no_path(elements)  # an array that no path has reached stays one
        zero = self.zero((), elements.max.dtype)
        return self.scale(weights, el.where(kept, elements, zero))

    def pass_through(self, elements: Interval) -> Interval:
        return self._each(lambda end: end, elements)

    def sum(self, elements: Interval, axes: tuple[int, ...]) -> Interval:
        return self._each(lambda end: end.sum(axes), elements)

    def contract(self, weights: jax.Array, elements: Interval) -> Interval:
        return self._each(lambda end: SumProduct().contract(weights, end), elements)

    def segment_sum(self, elements: Interval, segments: jax.Array, count: int) -> Interval:
        return self._each(lambda end: SumProduct().segment_sum(end, segments, count), elements)

    def _each(self, operation: Callable[..., jax.Array], *elements: Interval) -> Interval:
        missing = [_is_no_path(e) for e in elements]
        ends = [_ends_or_0(*pair) for pair in zip(missing, elements, strict=True)]
        high, low = (operation(*of_each) for of_each in zip(*ends, strict=True))
        if not self.absent:
            return Interval(high, low)
        # All summands must be missing, but only one factor.
        both = jnp.logical_or if operation is jnp.multiply else jnp.logical_and
        none = functools.reduce(both, [m.all() for m in missing])
        return Interval(jnp.where(none, -jnp.inf, high), jnp.where(none, jnp.inf, low))


def _is_no_path(interval: Interval) -> jax.Array:
    """Tell where it is 0̄ exactly: after a linear map an interval may be the other way round."""
    return (interval.max == -jnp.inf) & (interval.min == jnp.inf)


@dataclasses.dataclass(frozen=True)
class AbsMaxProduct(Semiring):
    """The largest absolute path weight; 0 where there is no path.

    ([0, ∞), max, ×, 0, 1), ``lift(w) = |w|``. Answers: how strong is the strongest path, whatever
    its sign? It is at most ``AbsSumProduct``'s mass.

    Source: the influence paths of Lu et al. 2021, without enumerating them.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: x * jnp.array([2.0, -5.0]) @ jnp.array([1.0, 1.0])
        >>> print(sj.semiring_grad(f, sj.AbsMaxProduct())(1.0))
        5.0
    """

    units: ClassVar[str | None] = "weight"
    zero_weight_is_no_path = True

    def zero(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.zeros(shape, dtype)

    def one(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.ones(shape, dtype)

    def lift(self, weights: jax.Array) -> jax.Array:
        return jnp.abs(weights)

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.maximum(a, b)

    def mul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a * b

    def by_operation(self, absent: bool = False) -> Semiring:
        return OperationGranularity(self, absent)

    def pass_through(self, elements: jax.Array) -> jax.Array:
        return elements

    def sum(self, elements: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        return jnp.max(elements, axes, initial=0)

    def contract(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        return select(LARGEST, weights, (elements,))[0]

    def all_reduce(self, elements: jax.Array, names: Names) -> jax.Array:
        return largest_of_members(elements, names)

    def segment_sum(self, elements: jax.Array, segments: jax.Array, count: int) -> jax.Array:
        kept = jnp.where(segments < 0, count, segments)
        return jnp.zeros(count, elements.dtype).at[kept].max(elements, mode="drop")


MERGED_ONE_BY_ONE = 4
"""The length of the longest lists that XLA's form of a contraction merges number by number."""


@dataclasses.dataclass(frozen=True)
class TopK(Semiring):
    """The k largest absolute path weights, descending; 0 where there are fewer than k paths.

    The elements of an array of shape S have shape S + (k,), sorted, and are −∞ where there are
    fewer paths. ⊕ merges two lists and keeps the best k, ⊗ keeps the best k of the k² products.
    Answers: is the strongest path alone, or one of many? ``TopK(1)`` is ``AbsMaxProduct`` with a
    trailing axis of size 1.

    Source: Goodman 1999, §2 (the Viterbi-n-best semiring).

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: x * jnp.array([2.0, -5.0]) @ jnp.array([1.0, 1.0])
        >>> print(sj.semiring_grad(f, sj.TopK(3))(1.0).round(3))
        [5. 2. 0.]
    """

    k: int

    units: ClassVar[str | None] = "weight"

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"TopK needs k to be an integer of at least 1, got k={self.k!r}.")

    def zero(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.full((*shape, self.k), -jnp.inf, dtype)

    def one(self, shape: Shape, dtype: Any) -> jax.Array:
        return self.lift(jnp.ones(shape, dtype))

    def lift(self, weights: jax.Array) -> jax.Array:
        return self._padded(jnp.abs(weights)[..., None], self.k)

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        if native.adds("largest", (a,), (b,)):
            return add_on_devices(self, a, b)
        return self._add_by_xla(a, b)[0]

    def add_here(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return native.add_on_cpu("largest", self._add_by_xla, (a,), (b,))[0]

    def _add_by_xla(self, a: jax.Array, b: jax.Array) -> Arrays:
        # Of two descending lists, the larger of a[i] and b[k-1-i] for every i are the k largest of
        # both, and they form a bitonic sequence: Batcher's merger sorts it in log₂ k steps.
        size = 1 << (self.k - 1).bit_length()
        best = jnp.maximum(self._padded(a, size), jnp.flip(self._padded(b, size), -1))
        stride = size // 2
        while stride:
            pairs = best.reshape(*best.shape[:-1], size // (2 * stride), 2, stride)
            high, low = pairs[..., 0, :], pairs[..., 1, :]
            pairs = jnp.stack([jnp.maximum(high, low), jnp.minimum(high, low)], -2)
            best = pairs.reshape(best.shape)
            stride //= 2
        return (best[..., : self.k],)

    def mul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        products = self._times(jnp.maximum(a, 0)[..., :, None], b[..., None, :])
        products = jnp.where((a == -jnp.inf)[..., :, None], -jnp.inf, products)
        products = products.reshape(*products.shape[:-2], self.k**2)
        # Where one is not a number, the places of the others are unknown.
        unknown = jnp.isnan(products).any(-1, keepdims=True)
        return jnp.where(unknown, jnp.nan, lax.top_k(products, self.k)[0])

    def scale(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        return scale_on_devices(self, weights, elements)

    def scale_here(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        return self._times(jnp.abs(weights)[..., None], elements)

    def scale_selected(
        self, weights: jax.Array, selected: jax.Array, elements: jax.Array
    ) -> jax.Array:
        kept = selected[..., None] | (elements == -jnp.inf)  # as many paths as there are
        return self.scale(weights, jnp.where(kept, elements, 0))

    def pass_through(self, elements: jax.Array) -> jax.Array:
        return elements

    def contract(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        if self.k <= MERGED_ONE_BY_ONE:
            return select(largest_sizes(self.k), weights, (elements,))[0]
        return native.on_cpu("largest", self._contract_by_xla, weights, elements)[0]

    def _contract_by_xla(self, weights: jax.Array, elements: jax.Array) -> Arrays:
        found = super().contract(weights, elements)
        # Where one is not a number, the places of the others are unknown.
        return (jnp.where(jnp.isnan(found[..., :1]), jnp.nan, found),)

    def sum(self, elements: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        if native.sums("largest", axes, elements):
            return sum_on_devices(self, elements, axes)
        return super().sum(elements, axes)

    def sum_here(self, elements: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        def by_xla(elements: jax.Array) -> Arrays:
            return (super(TopK, self).sum(elements, axes),)

        return native.sum_on_cpu("largest", by_xla, axes, elements)[0]

    def readout(self, elements: jax.Array) -> jax.Array:
        return jnp.where(elements == -jnp.inf, 0, elements)

    def _times(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        # No path stays no path, whatever the weight; 0 · ∞ would not be a number.
        missing = elements == -jnp.inf
        return jnp.where(missing, -jnp.inf, weights * jnp.where(missing, 0, elements))

    def _padded(self, values: jax.Array, size: int) -> jax.Array:
        missing = [(0, 0)] * (values.ndim - 1) + [(0, size - values.shape[-1])]
        return jnp.pad(values, missing, constant_values=-jnp.inf)


@dataclasses.dataclass(frozen=True)
class Reachability(Semiring):
    """True where any path of non-zero weight leads to the output.

    ({False, True}, or, and), lift(w) = (w ≠ 0). Answers: can this input influence the output at
    all, here? A NaN weight is not known to be 0 and counts as an edge.

    Source: Mohri 2002, the Boolean semiring.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sum(jnp.maximum(x, 0.0))
        >>> print(sj.semiring_grad(f, sj.Reachability())(jnp.array([-1.0, 2.0])))
        [False  True]
    """

    additive = True
    zero_weight_is_no_path = True

    def zero(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.zeros(shape, bool)

    def one(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.ones(shape, bool)

    def lift(self, weights: jax.Array) -> jax.Array:
        return weights != 0

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a | b

    def mul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a & b

    def pass_through(self, elements: jax.Array) -> jax.Array:
        return elements

    def sum(self, elements: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        return elements.any(axes)

    def contract(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        # Every term is 0 or 1, so no sum of them can round to 0.
        edges = self.lift(weights).astype(jnp.float32)
        return jnp.matmul(edges, elements.astype(jnp.float32)) > 0

    def segment_sum(self, elements: jax.Array, segments: jax.Array, count: int) -> jax.Array:
        kept = jnp.where(segments < 0, count, segments)
        return jnp.zeros(count, bool).at[kept].max(elements, mode="drop")
