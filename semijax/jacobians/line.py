"""The straight line from a reference to a point, and functions averaged along it.

A local Jacobian averaged along the line that an equation's inputs move on divides the difference of
its outputs among its inputs: Σ_a w_ba (x_a − r_a) = F_b(x) − F_b(r) for the weights
w_ba = ∫₀¹ ∂F_b/∂a (r + t (x − r)) dt, by the fundamental theorem of calculus (Aumann and Shapley
1974; of a whole function, the integrated gradients of Sundararajan et al. 2017). What has no
derivative, such as an index or a mask, does not move: all along, it is what it is at the point.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax import lax

from semijax import elements as el
from semijax.jacobians.linearity import dependences


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """The line along which an equation's inputs move.

    Attributes:
        values: at the point, one for each input.
        others: at the reference, by the position of the inputs that may differ there.
        points: the number used for an integral without a closed form.

    Example:
        >>> import semijax as sj
        >>> from semijax.trace.graph import trace
        >>> graph, _ = trace(lambda x: x**2, 3.0)
        >>> line = sj.jacobians.Line([3.0], {0: 1.0}, points=4)
        >>> table = sj.jacobians.averaged_jacobian(graph.equations[0], line)
        >>> print(table.pull(sj.SumProduct(), [1.0])[0])  # (9 − 1) / (3 − 1)
        4.0
    """

    values: Sequence[Any]
    others: Mapping[int, Any]
    points: int

    @functools.cached_property
    def moving(self) -> frozenset[int]:
        """The positions of the inputs that may differ and have a derivative."""
        return frozenset(n for n in self.others if has_derivative(self.values[n]))

    def at(self, t: Any, left: Any = None) -> list[Any]:
        """Return the inputs at ``t``, from 0 at the reference to 1 at the point.

        ``left`` is 1 − t, for callers that know it to more digits.
        """
        inputs, left = list(self.values), 1 - t if left is None else left
        for n in self.moving:
            x, r = self.ends(n)
            dtype = jnp.finfo(x.dtype).dtype
            # Exact at both ends, however different their sizes are.
            between = jnp.asarray(left, dtype) * r + jnp.asarray(t, dtype) * x
            between = jnp.where(x == r, x, between)
            inputs[n] = between.astype(jnp.result_type(self.values[n]))
        return inputs

    def middle(self) -> list[Any]:
        """Return the inputs half way, in at least float32."""
        inputs = list(self.values)
        for n in self.moving:
            x, r = self.ends(n)
            inputs[n] = x / 2 + r / 2
        return inputs

    def ends(self, position: int) -> tuple[jax.Array, jax.Array]:
        """Return an input at the point and at the other end, in at least float32."""
        x = _wide(self.values[position])
        return x, _wide(self.others[position]) if position in self.moving else x

    def average(self, function: Callable[..., Any], times: int = 1) -> Any:
        """Compute ∫₀¹ of a function of the inputs, by the rule of Gauss and Legendre.

        Args:
            function: returns a pytree of arrays. Booleans become whether they are true anywhere.
            times: how many times the number of points to use.

        Raises:
            ValueError: if an integer that it returns depends on where the inputs are.
        """
        tree = None

        def leaves_at(t: Any) -> list[jax.Array]:
            nonlocal tree
            leaves, tree = jax.tree.flatten(function(*self.at(t)))
            return list(map(jnp.asarray, leaves))

        ts, weights = _nodes(times * self.points)
        program = jax.make_jaxpr(leaves_at)(ts[0])
        for found, aval in zip(dependences(program), program.out_avals, strict=True):
            if found.origins and jnp.issubdtype(aval.dtype, jnp.integer):
                raise ValueError("an integer in the local Jacobian depends on the values")

        def step(sums: list[jax.Array], node: Any) -> tuple[list[jax.Array], None]:
            t, weight = node
            leaves = jax.extend.core.jaxpr_as_fun(program)(t)
            return [_add(s, x, weight) for s, x in zip(sums, leaves, strict=True)], None

        nothing = [jnp.zeros(v.shape, _sum_dtype(v.dtype)) for v in program.out_avals]
        sums, _ = lax.scan(step, nothing, (ts, weights))
        return jax.tree.unflatten(tree, sums)


jax.tree_util.register_dataclass(Line, ["values", "others"], ["points"])


def difference(x: Any, r: Any) -> jax.Array:
    """Return ``x − r``; 0 where they are equal, even if both are infinite."""
    return jnp.where(x == r, 0, x - r)


def has_derivative(value: Any) -> bool:
    """Tell whether a value consists of real or complex numbers."""
    return jnp.issubdtype(getattr(value, "dtype", None) or jnp.result_type(value), jnp.inexact)


def _wide(value: Any) -> jax.Array:
    x = jnp.asarray(value)
    return x if jnp.iscomplexobj(x) else x.astype(el.accumulation_dtype(x.dtype))


def _sum_dtype(dtype: Any) -> Any:
    real = jnp.issubdtype(dtype, jnp.floating)
    return el.accumulation_dtype(dtype) if real else dtype


def _add(total: jax.Array, x: jax.Array, weight: jax.Array) -> jax.Array:
    if total.dtype == bool:
        return total | x
    if not jnp.issubdtype(total.dtype, jnp.inexact):
        return x  # the same everywhere
    return total + weight.astype(jnp.finfo(total.dtype).dtype) * x.astype(total.dtype)


def _nodes(points: int) -> tuple[jax.Array, jax.Array]:
    """Return abscissas in [0, 1] and weights that sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    dtype = jnp.result_type(float)
    return jnp.asarray((nodes + 1) / 2, dtype), jnp.asarray(weights / 2, dtype)


def secant(
    function: Callable[[jax.Array], jax.Array],
    derivative: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    r: jax.Array,
) -> jax.Array:
    """Average an elementwise function's derivative between two points: a secant's slope.

    Where the points are so close that a difference quotient is mostly rounding, it is the
    derivative half way, if the two differ by no more than rounding explains: an error of at most
    2e-5 in float32, and 1e-11 in float64, for a function whose scale is 1.
    """
    step = difference(x, r)
    low, high = function(r), function(x)
    half_way = derivative(r + step / 2)
    eps = jnp.finfo(high.dtype).eps
    low, high = _wide(low), _wide(high)
    apart = jnp.where(step == 0, 1, step)
    slope = difference(high, low) / apart
    rounding = 4 * eps * (jnp.abs(high) + jnp.abs(low)) / jnp.abs(apart)
    close = jnp.isfinite(slope) & (jnp.abs(half_way - slope) <= rounding)
    return jnp.where((step == 0) | close, half_way, slope)


def between_crossings(
    lines: Sequence[tuple[jax.Array, jax.Array]],
) -> tuple[jax.Array, jax.Array]:
    """Return the stretches of [0, 1] in which numbers that move on lines keep their order.

    Args:
        lines: for each number its array at the point and at the reference; they broadcast.

    Returns:
        The middle of each stretch and its length, along a new first axis; a stretch may be empty.
    """
    times = []
    for n, (x, r) in enumerate(lines):
        for other_x, other_r in lines[:n]:
            times.append(crossing(x - other_x, r - other_r, otherwise=1.0))
    shape = jnp.broadcast_shapes(*(jnp.shape(end) for line in lines for end in line))
    inner = [jnp.broadcast_to(t, shape) for t in times]
    none, all_ = jnp.zeros(shape, inner[0].dtype), jnp.ones(shape, inner[0].dtype)
    edges = jnp.stack([none, *inner, all_])
    edges = edges if len(inner) == 1 else jnp.sort(edges, 0)
    return (edges[1:] + edges[:-1]) / 2, edges[1:] - edges[:-1]


def crossing(x: jax.Array, r: jax.Array, otherwise: Any) -> jax.Array:
    """Return when a number moving from r at 0 to x at 1 changes its sign; else ``otherwise``."""
    crosses = ((x > 0) & (r < 0)) | ((x < 0) & (r > 0))
    return jnp.where(crosses, r / jnp.where(crosses, r - x, 1), otherwise)


class _AlongLastAxis:
    """Numbers along the last axis of arrays; a fact about all of them has size 1 there."""

    def __init__(self, size: int) -> None:
        self.numbers = jnp.arange(size)

    def each(self, of_all: jax.Array) -> jax.Array:
        return of_all

    def at(self, array: jax.Array, number: jax.Array) -> jax.Array:
        return jnp.take_along_axis(array, number, -1)

    def max(self, array: jax.Array) -> jax.Array:
        return array.max(-1, keepdims=True)

    def sum(self, array: jax.Array) -> jax.Array:
        return array.sum(-1, keepdims=True)

    def argmax(self, array: jax.Array) -> jax.Array:
        return jnp.argmax(array, -1, keepdims=True)


class _InGroups:
    """Numbers in one row, each in a group; a fact about groups has an entry for each."""

    def __init__(self, groups: jax.Array, count: int) -> None:
        self.groups, self.count = groups, count
        self.numbers = jnp.arange(groups.size)

    def each(self, of_all: jax.Array) -> jax.Array:
        return of_all[self.groups]

    def at(self, array: jax.Array, number: jax.Array) -> jax.Array:
        return array[number]

    def max(self, array: jax.Array) -> jax.Array:
        return jax.ops.segment_max(array, self.groups, self.count)

    def sum(self, array: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(array.astype(int), self.groups, self.count)

    def argmax(self, array: jax.Array) -> jax.Array:
        largest = array == self.each(self.max(array))
        return -self.max(jnp.where(largest, -self.numbers, -self.groups.size))


def shares_of_largest(x: jax.Array, r: jax.Array, *, ties: bool = True) -> jax.Array:
    """Return the share of [0, 1] on which each of some numbers moving on lines is the largest.

    Args:
        x: at the point, an array of shape ``[..., n]``.
        r: at the reference.
        ties: whether those that are the same all along share; else the first takes it.

    Returns:
        Numbers of the same shape that sum to 1.
    """
    return _shares_of_largest(x, r, _AlongLastAxis(x.shape[-1]), ties=ties)


def shares_of_largest_in_groups(
    x: jax.Array, r: jax.Array, groups: jax.Array, count: int
) -> jax.Array:
    """Return the share of [0, 1] on which each number is the largest of its group.

    Args:
        x: at the point, an array of shape ``[n]``.
        r: at the reference.
        groups: integers of shape ``[n]``, from 0 to ``count`` − 1.
        count: the number of groups.

    Returns:
        Numbers of shape ``[n]`` that sum to 1 in each group.
    """
    return _shares_of_largest(x, r, _InGroups(groups, count), ties=True)


def _shares_of_largest(
    x: jax.Array, r: jax.Array, rivals: _AlongLastAxis | _InGroups, *, ties: bool
) -> jax.Array:
    # Numbers are compared as they are: XLA may compute a difference to another precision than
    # that of its terms.
    end, begin = lax.stop_gradient((x, r))
    each, numbers = rivals.each, rivals.numbers

    def ahead_of(array: jax.Array, number: jax.Array) -> jax.Array:
        return each(rivals.at(array, number)) - array

    def highest(among: jax.Array) -> jax.Array:
        """Return, of some equal now, the number of the one that will be the largest, or first."""
        return rivals.argmax(jnp.where(among, end, -jnp.inf))

    def alike(winner: jax.Array) -> jax.Array:
        """Mark those that equal a winner all along: itself, and others at a tie."""
        if not ties:
            return numbers == each(winner)
        return (begin == each(rivals.at(begin, winner))) & (end == each(rivals.at(end, winner)))

    def joined(together: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(new, each(rivals.sum(new)), together)

    def overtaken(state: Any) -> Any:
        """Go on from the largest to the first that overtakes it."""
        winner, goes_on, together, before, after = state
        overtakes = end > each(rivals.at(end, winner))
        ahead, behind = ahead_of(begin, winner), -ahead_of(end, winner)
        when = ahead / jnp.where(overtakes, ahead + behind, 1)
        when = jnp.where(overtakes & ~jnp.isnan(when), when, jnp.inf)
        first = -rivals.max(-when)
        goes_on = goes_on & (first < jnp.inf)
        following = highest(when == each(first))
        after = jnp.where(each(goes_on) & alike(winner), each(following), after)
        before = jnp.where(each(goes_on) & alike(following), each(winner), before)
        together = joined(together, each(goes_on) & alike(following))
        return jnp.where(goes_on, following, winner), goes_on, together, before, after

    winner = highest(begin == each(rivals.max(begin)))
    # Of the numbers' type in every respect: in a ``shard_map`` a constant varies over no axis.
    nobody = jnp.where(begin == begin, -1, -1)
    together = joined(nobody + 1, alike(winner))
    state = winner, winner >= 0, together, nobody, nobody
    *_, together, before, after = lax.while_loop(lambda s: s[1].any(), overtaken, state)

    def meets(other: jax.Array, otherwise: float) -> jax.Array:
        alone, known = other < 0, jnp.maximum(other, 0)
        ahead_x, ahead_r = x - rivals.at(x, known), r - rivals.at(r, known)
        return jnp.where(alone, otherwise, ahead_r / jnp.where(alone, 1, ahead_r - ahead_x))

    share = (meets(after, 1.0) - meets(before, 0.0)) / jnp.maximum(1, together)
    return jnp.where(together > 0, share, 0)


def shares_of_ranks(x: jax.Array, r: jax.Array) -> jax.Array:
    """Return the share of [0, 1] on which each of some numbers moving on lines is k-th smallest.

    Args:
        x: at the point, an array of shape ``[n]``.
        r: at the reference.

    Returns:
        Shares of shape ``[n, n]``, by rank and number; of equal numbers the first is the smaller.
    """
    n = x.shape[-1]
    above_x, above_r = x[:, None] > x, r[:, None] > r  # each over each, compared as they are
    equal_x, equal_r = x[:, None] == x, r[:, None] == r
    later = jnp.arange(n)[:, None] > jnp.arange(n)
    behind = above_r | (equal_r & (above_x | (equal_x & later)))
    rank = behind.sum(-1)
    crosses = (above_r & above_x.T) | (above_r.T & above_x)
    ahead_x, ahead_r = x[:, None] - x, r[:, None] - r
    when = jnp.clip(ahead_r / jnp.where(crosses, ahead_r - ahead_x, 1), 0, 1)
    when = jnp.where(crosses, when, 1)
    order = jnp.argsort(when, -1)
    change = jnp.where(crosses, jnp.where(above_x, 1, -1), 0)
    change = jnp.take_along_axis(change, order, -1)
    ranks = jnp.concatenate([rank[:, None], rank[:, None] + jnp.cumsum(change, -1)], -1)
    ends = jnp.ones((n, 1), when.dtype)
    edges = jnp.concatenate([0 * ends, jnp.take_along_axis(when, order, -1), ends], -1)
    number = jnp.broadcast_to(jnp.arange(n)[:, None], ranks.shape)
    return jnp.zeros((n, n), when.dtype).at[ranks, number].add(edges[:, 1:] - edges[:, :-1])
