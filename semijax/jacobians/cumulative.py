"""Cumulative reductions along an axis: a triangle of edges."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import lax

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians import axis_labels
from semijax.jacobians.base import LocalJacobian, arrays, rule_for
from semijax.jacobians.dense import Dense
from semijax.jacobians.pullback import Pullback
from semijax.semirings.base import Semiring
from semijax.trace.graph import Equation


@arrays()
@dataclasses.dataclass(frozen=True)
class CumulativeSum(LocalJacobian):
    """∂o/∂i = 1 for i ≤ o along an axis (i ≥ o where it runs in reverse)."""

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


@rule_for("cumsum", axes=axis_labels.mixing_along("axis"), same_for_both_parts=True)
def cumsum_jacobian(equation: Equation, x: Any) -> list[LocalJacobian]:
    """∂o/∂i = 1 for i ≤ o."""
    return [CumulativeSum(x.shape, equation.params["axis"], equation.params["reverse"])]


@rule_for(*("cumprod", "cummax", "cummin", "cumlogsumexp"), axes=axis_labels.mixing_along("axis"))
def cumulative_jacobian(equation: Equation, x: Any) -> list[LocalJacobian | None]:
    """∂o/∂i for i ≤ o, by JAX's own derivative."""
    axis, reverse = equation.params["axis"], equation.params["reverse"]
    triangle = jnp.tri(x.shape[axis], dtype=bool)  # [output, input]
    batch = tuple(a for a in range(x.ndim) if a != axis)
    present = triangle.T if reverse else triangle
    derivatives = Pullback(equation, (x,)).derivatives()
    return [Dense(d, batch, batch, present) for d in derivatives.values()]
