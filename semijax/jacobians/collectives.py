"""Collectives over an axis that is mapped outside, by ``vmap``, ``pmap`` or ``shard_map``.

Each member of the axis runs the same program, and sweeps it. What is differentiated is all of them
together, with the outputs of all members; each member holds the elements of its own arrays. At a
collective, paths lead from one member to others, so the members exchange their elements: ⊕ over a
named axis is ``all_gather``, followed by the semiring's sum. The result is what a sweep through all
members would find; for the sum, what ``jax.vmap(jax.grad(f), axis_name=…)`` returns.

Where the axis is mapped *inside* the function, no collective is left: ``vmap`` has made it a sum,
a transposition and so on, over a positional axis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians.base import EVERY, LocalJacobian, arrays, rule_for
from semijax.jacobians.diagonal import Reduction, Transposed
from semijax.jacobians.edges import Edges
from semijax.jacobians.line import Line
from semijax.jacobians.reduction import shares_of_largest_over, sign_of_extremum
from semijax.semirings.base import Semiring
from semijax.trace import compat
from semijax.trace.graph import Equation
from semijax.trace.members import as_vmap, everyone

Names = tuple[Any, ...]
Groups = tuple[tuple[int, ...], ...] | None


class Collective(LocalJacobian):
    """Edges from an array of each member of a named axis to the arrays of all members.

    Attributes:
        names: the names of the axes, outermost first.
    """

    names: Names
    kind: ClassVar[str] = "Collective"

    def leaving(self, index: np.ndarray) -> Edges:
        self._refuse()

    def entering(self, index: np.ndarray) -> Edges:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(
            f"A path leads from one member of the axes {self.names} to others here, and each "
            "member sees only its own numbers. Search for paths outside of vmap, pmap and "
            "shard_map, in a function that maps the axes itself."
        )


def _gather(
    elements: Elements, names: Names, groups: Groups = None, *, common: bool = False
) -> Elements:
    """Gather the elements of all members, or of one's own group, along a new first axis."""

    def gather(leaf: jax.Array) -> jax.Array:
        if groups is not None:
            return lax.all_gather(leaf, names, axis_index_groups=groups)
        return everyone(leaf, names, common=common)

    return el.map_leaves(gather, elements)


def over_members(
    semiring: Semiring,
    elements: Elements,
    names: Names,
    groups: Groups = None,
    *,
    common: bool = False,
) -> Elements:
    """Sum (⊕) over the members of named axes, or over those of one's own group.

    With ``common``, ``shard_map`` is told that all members then have the same.
    """
    return semiring.sum(_gather(elements, names, groups, common=common), (0,))


def _exchange(
    elements: Elements, names: Names, split: int, concat: int, groups: Groups = None
) -> Elements:
    """Trade slices along an axis for those of the other members, and join them along an axis."""
    # Under vmap, what the members have in common has no axis for them; JAX's all_to_all wants one
    # there, and makes two.
    own = lax.axis_index(names) >= 0

    def exchange(leaf: jax.Array) -> jax.Array:
        leaf = jnp.where(own, leaf, leaf)
        return lax.all_to_all(leaf, names, split, concat, axis_index_groups=groups, tiled=True)

    return el.map_leaves(exchange, elements)


@arrays("local")
@dataclasses.dataclass(frozen=True)
class AllReduce(Collective):
    """An edge from each member's i to every member's o, of weight ∂o/∂i = w[i].

    Attributes:
        local: the edges within a member: of the axes that the array itself loses.
        names: the axes.
        groups: the members that are reduced together, if not all.
        common: whether there is one o, which all members have in common: in ``shard_map`` with
            ``check_vma``.
    """

    local: Reduction
    names: Names
    groups: Groups
    common: bool

    @property
    def in_shape(self) -> Shape:
        """The shape of one member's input."""
        return self.local.in_shape

    @property
    def out_shape(self) -> Shape:
        """The shape of one member's output."""
        return self.local.out_shape

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        if self.common:
            own = el.map_leaves(lambda leaf: lax.pcast(leaf, self.names, to="varying"), cotangent)
        else:
            own = self._join(semiring, cotangent)
        return self.local.pull(semiring, own)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        return self._join(semiring, self.local.push(semiring, tangent))

    def _join(self, semiring: Semiring, elements: Elements) -> Elements:
        return over_members(semiring, elements, self.names, self.groups, common=self.common)


@arrays()
@dataclasses.dataclass(frozen=True)
class AllGather(Collective):
    """An edge of weight 1 from each member's i to its place in every member's output.

    Attributes:
        in_shape: of one member.
        axis: the axis of the output along which the members lie.
        size: the number of members.
        tiled: whether the output's axis is one of the input's, which has grown.
        names: the axes.
        groups: the members that are gathered together, if not all.
    """

    in_shape: Shape
    axis: int
    size: int
    tiled: bool
    names: Names
    groups: Groups

    @property
    def out_shape(self) -> Shape:
        """The shape of one member's output."""
        before, after = self.in_shape[: self.axis], self.in_shape[self.axis :]
        if not self.tiled:
            return (*before, self.size, *after)
        return (*before, self.size * after[0], *after[1:])

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        passed = el.reshape(semiring.pass_through(cotangent), self.out_shape, self._stacked)
        order = (self.axis, *(a for a in range(len(self._stacked)) if a != self.axis))
        received = _exchange(el.transpose(passed, order), self.names, 0, 0, self.groups)
        return semiring.sum(received, (0,))

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        def gather(leaf: jax.Array) -> jax.Array:
            options: dict[str, Any] = {"axis": self.axis, "tiled": self.tiled}
            return lax.all_gather(leaf, self.names, axis_index_groups=self.groups, **options)

        return el.map_leaves(gather, semiring.pass_through(tangent))

    @property
    def _stacked(self) -> Shape:
        """The shape of the output with a separate axis for the members."""
        return (*self.in_shape[: self.axis], self.size, *self.in_shape[self.axis :])


@arrays()
@dataclasses.dataclass(frozen=True)
class Exchange(Collective):
    """An edge of weight 1 from each element of a member to the place where some member receives it.

    Attributes:
        in_shape: of one member.
        out_shape: of one member.
        split: the axis of the input that is split among the members.
        concat: the axis of the output along which what arrives is joined.
        names: the axes.
        groups: the members that exchange, if not all.
    """

    in_shape: Shape
    out_shape: Shape
    split: int
    concat: int
    names: Names
    groups: Groups

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        return self._exchange(semiring, cotangent, self.concat, self.split)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        return self._exchange(semiring, tangent, self.split, self.concat)

    def _exchange(self, semiring: Semiring, elements: Elements, split: int, concat: int) -> Any:
        passed = semiring.pass_through(elements)
        return _exchange(passed, self.names, split, concat, self.groups)


@arrays()
@dataclasses.dataclass(frozen=True)
class Permute(Collective):
    """An edge of weight 1 from each element of a member to the same element of the receiver.

    Attributes:
        in_shape: of one member.
        pairs: members, each with the one it sends to; no member is twice on a side.
        names: the axes.
    """

    in_shape: Shape
    pairs: tuple[tuple[int, int], ...]
    names: Names

    @property
    def out_shape(self) -> Shape:
        """The shape of one member's output."""
        return self.in_shape

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        return self._send(semiring, cotangent, [(target, source) for source, target in self.pairs])

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        return self._send(semiring, tangent, self.pairs)

    def _send(
        self, semiring: Semiring, elements: Elements, pairs: Sequence[tuple[int, int]]
    ) -> Elements:
        passed = semiring.pass_through(elements)
        sent = el.map_leaves(lambda leaf: lax.ppermute(leaf, self.names, pairs), passed)
        receivers = jnp.array([target for _, target in pairs], int)
        receives = (receivers == lax.axis_index(self.names)).any()
        return el.where(receives, sent, semiring.zero(self.in_shape, semiring.dtype(sent)))


def _names(equation: Equation) -> Names:
    names = equation.params["axis_name"]
    return names if isinstance(names, tuple) else (names,)


def _split_axes(axes: Sequence[Any]) -> tuple[Names, tuple[int, ...]]:
    """Split axes into the named and the positional ones."""
    named = tuple(axis for axis in axes if not isinstance(axis, int))
    return named, tuple(axis for axis in axes if isinstance(axis, int))


def _all_reduce(equation: Equation, x: Any, weights: Any = None) -> list[LocalJacobian]:
    names, axes = _split_axes(equation.params["axes"])
    local = Reduction(weights, x.shape, equation.outputs[0].shape, axes)
    if not names:
        return [local]
    common = compat.has_in_common(equation.eqn, names)
    return [AllReduce(local, names, equation.params["axis_index_groups"], common)]


@rule_for("psum", same_for_both_parts=True, linear_in=EVERY)
def psum_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1, for the o of every member."""
    return _all_reduce(equation, x)


def averaged_pmax(equation: Equation, line: Line) -> list[LocalJacobian]:
    """Return ∂o/∂i, the share of the line on which i is the largest of all members."""
    x, r = line.ends(0)
    return _extremum_of_members(equation, x, r)


@rule_for("pmax", "pmin", average=averaged_pmax)
def pmax_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return the ∂o/∂i of a reduction over all members; n winners of a tie share, 1/n each."""
    return _extremum_of_members(equation, x, x)


def _extremum_of_members(equation: Equation, x: Any, r: Any) -> list[LocalJacobian]:
    names, axes = _split_axes(equation.params["axes"])
    groups, sign = equation.params["axis_index_groups"], sign_of_extremum(equation)
    lost = (0, *(axis + 1 for axis in axes))

    def members(end: jax.Array) -> jax.Array:
        return sign * (_gather(end, names, groups) if names else end[None])

    weights = shares_of_largest_over(members(x), members(r), lost)
    if not names:
        return _all_reduce(equation, x, weights[0])
    me = lax.axis_index(names)
    own = el.where(_gather(me, names, groups) == me, weights, jnp.zeros_like(weights))
    return _all_reduce(equation, x, own.sum(0))


def _all_gather(equation: Equation, part: Shape, axis: str) -> AllGather:
    params, names = equation.params, _names(equation)
    size, tiled, groups = params["axis_size"], params["tiled"], params["axis_index_groups"]
    return AllGather(part, params[axis], size, tiled, names, groups)


@rule_for("all_gather", same_for_both_parts=True, linear_in=EVERY)
def all_gather_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1, for the o of every member that is this member's i."""
    return [_all_gather(equation, x.shape, "all_gather_dimension")]


@rule_for("reduce_scatter", same_for_both_parts=True, linear_in=EVERY)
def psum_scatter_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return the transpose of ``all_gather``'s: a sum over all members, each having a part."""
    return [Transposed(_all_gather(equation, equation.outputs[0].shape, "scatter_dimension"))]


@rule_for("all_to_all", same_for_both_parts=True, linear_in=EVERY)
def all_to_all_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1, for the o that i becomes."""
    params, out_shape = equation.params, equation.outputs[0].shape
    axes = params["split_axis"], params["concat_axis"]
    return [Exchange(x.shape, out_shape, *axes, _names(equation), params["axis_index_groups"])]


@rule_for("ppermute", same_for_both_parts=True, linear_in=EVERY)
def ppermute_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1, for the o that i becomes; a member that receives nothing has no edge."""
    return [Permute(x.shape, tuple(equation.params["perm"]), _names(equation))]


@rule_for("psum_invariant", same_for_both_parts=True, linear_in=EVERY)
def psum_invariant_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1, for the one o that all members have in common."""
    return [_common(equation, x)]


@rule_for("pvary", same_for_both_parts=True, linear_in=EVERY)
def pvary_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return the transpose of ``psum_invariant``'s: ∂o/∂i = 1, for the o of every member."""
    return [Transposed(_common(equation, x))]


def _common(equation: Equation, x: Any) -> AllReduce:
    names, axes = _split_axes(equation.params["axes"])
    return AllReduce(Reduction(None, x.shape, x.shape, axes), names, None, common=True)


@rule_for("shard_map")
def shard_map_jacobian(equation: Equation, *values: Any) -> NoReturn:
    """Refuse a ``shard_map`` that stands for no ``vmap``; any other is read as its ``vmap``."""
    del values
    as_vmap(equation.eqn)
    raise AssertionError(equation)
