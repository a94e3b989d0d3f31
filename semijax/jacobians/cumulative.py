"""Cumulative reductions along an axis: a triangle of edges."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians import axis_labels
from semijax.jacobians.along_axis import AlongAxis, averaged_extrema_so_far
from semijax.jacobians.base import EVERY, LocalJacobian, Table, arrays, rule_for
from semijax.jacobians.compiled import compiled_on_numbers
from semijax.jacobians.complex import is_complex
from semijax.jacobians.dense import Dense
from semijax.jacobians.line import Line
from semijax.jacobians.pullback import Pullback
from semijax.jacobians.reduction import sign_of_extremum
from semijax.semirings.base import Semiring
from semijax.trace.graph import Equation


@arrays()
@dataclasses.dataclass(frozen=True)
class CumulativeSum(LocalJacobian):
    """Edges ∂o/∂i = 1 for i ≤ o along an axis (i ≥ o where it runs in reverse).

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> jacobian = sj.jacobians.CumulativeSum((3,), axis=0, reverse=False)
        >>> print(jacobian.pull(sj.SumProduct(), jnp.ones(3)))
        [3. 2. 1.]
    """

    in_shape: Shape
    axis: int
    reverse: bool

    kind: ClassVar[str] = "Window"

    @property
    def out_shape(self) -> Shape:
        """The input's shape."""
        return self.in_shape

    @property
    def edges(self) -> int:
        return el.size(self.in_shape) * (self.in_shape[self.axis] + 1) // 2

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        return self._scan(semiring, cotangent, not self.reverse)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        return self._scan(semiring, tangent, self.reverse)

    def _scan(self, semiring: Semiring, elements: Elements, reverse: bool) -> Elements:
        passed = semiring.pass_through(elements)
        return lax.associative_scan(semiring.add, passed, reverse=reverse, axis=self.axis)


@rule_for(
    "cumsum", axes=axis_labels.mixing_along("axis"), same_for_both_parts=True, linear_in=EVERY
)
def cumsum_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """Return ∂o/∂i = 1 for i ≤ o."""
    return [CumulativeSum(x.shape, equation.params["axis"], equation.params["reverse"])]


@compiled_on_numbers
def averaged_extrema(equation: Equation, line: Line) -> list[LocalJacobian]:
    """Return ∂o/∂i, the share of the line on which i is the largest up to o."""
    x, r = (sign_of_extremum(equation) * end for end in line.ends(0))
    axis, reverse = equation.params["axis"], equation.params["reverse"]
    present = _reached(x.shape[axis], reverse)
    weights = averaged_extrema_so_far(x, r, axis, reverse=reverse)
    return [AlongAxis(weights, x.shape, x.shape, axis, jnp.broadcast_to(present, weights.shape))]


def averaged_cumulative(equation: Equation, line: Line) -> Table:
    """Compute ∫ ∂o/∂i for i ≤ o, by quadrature."""
    return _triangle(equation, Pullback(equation, line.values, line))


@rule_for("cummax", "cummin", axes=axis_labels.mixing_along("axis"), average=averaged_extrema)
@rule_for(
    *("cumprod", "cumlogsumexp"),
    axes=axis_labels.mixing_along("axis"),
    knows_parts=True,
    average=averaged_cumulative,
)
def cumulative_jacobian(equation: Equation, x: Any) -> Table:
    """Compute ∂o/∂i for i ≤ o, by JAX's own derivative."""
    return _triangle(equation, Pullback(equation, (x,)))


def _triangle(equation: Equation, pullback: Pullback) -> Table:
    axis, reverse = equation.params["axis"], equation.params["reverse"]
    shape = equation.outputs[0].shape
    batch = tuple(a for a in range(len(shape)) if a != axis)
    present = _reached(shape[axis], reverse)
    if is_complex(equation.outputs[0]):  # every part of a product reads both parts of its factors
        present = present.repeat(2, 0).repeat(2, 1)
    derivatives = pullback.derivatives().items()
    return Table({pair: Dense(d, batch, batch, present) for pair, d in derivatives})


def _reached(n: int, reverse: bool) -> jax.Array:
    """Return the mask [output, input] of the inputs that each output reads."""
    triangle = jnp.tri(n, dtype=bool)
    return triangle.T if reverse else triangle
