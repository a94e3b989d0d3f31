"""Complex arrays: every number is two nodes, its real and its imaginary part.

Only so is every edge a real number: JAX's derivative of ``abs`` or ``conj`` at a complex number is
linear over the reals, not over the complex numbers. What moves or adds complex numbers has the same
edges for both parts; anything else goes through a dense Jacobian of the parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semijax.elements import Elements, Shape
from semijax.jacobians.base import EquationJacobian, LocalJacobian, Table, arrays
from semijax.jacobians.edges import Edges, pairs
from semijax.semirings.base import Semiring
from semijax.trace.graph import Equation, Variable


@arrays("inner")
@dataclasses.dataclass(frozen=True)
class BothParts(LocalJacobian):
    """The same edges for the real and the imaginary part, which are a last axis of size 2."""

    inner: LocalJacobian

    @property
    def kind(self) -> str:
        """That of the inner one."""
        return self.inner.kind

    @property
    def in_shape(self) -> Shape:
        """The inner one's, and the parts."""
        return (*self.inner.in_shape, 2)

    @property
    def out_shape(self) -> Shape:
        """The inner one's, and the parts."""
        return (*self.inner.out_shape, 2)

    @property
    def edges(self) -> int:
        return 2 * self.inner.edges

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        ins, outs = len(self.inner.in_shape), len(self.inner.out_shape)
        return jax.vmap(lambda g: self.inner.pull(semiring, g), outs, ins)(cotangent)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        ins, outs = len(self.inner.in_shape), len(self.inner.out_shape)
        return jax.vmap(lambda t: self.inner.push(semiring, t), ins, outs)(tangent)

    def leaving(self, index: np.ndarray) -> Edges:
        return _of_parts(self.inner.leaving, index)

    def entering(self, index: np.ndarray) -> Edges:
        return _of_parts(self.inner.entering, index)


def _of_parts(edges_at: Callable[[np.ndarray], Edges], index: np.ndarray) -> Edges:
    """Those of each number asked for, at the part asked for."""
    numbers, which = np.unique(index // 2, return_inverse=True)
    edges = edges_at(numbers)
    owner, edge = pairs(which, edges.owner)
    return Edges(owner, 2 * edges.other[edge] + index[owner] % 2, edges.weight[edge])


def is_complex(variable: object) -> bool:
    """Whether a variable holds complex numbers."""
    return isinstance(variable, Variable) and jnp.issubdtype(variable.dtype, jnp.complexfloating)


def involves_complex(equation: Equation) -> bool:
    """Whether any path through the equation meets a complex number."""
    return any(map(is_complex, (*(equation.inputs[i] for i in equation.wrt), *equation.outputs)))


def both_parts(table: EquationJacobian) -> EquationJacobian:
    """The edges of an equation that treats real and imaginary parts alike."""
    assert isinstance(table, Table)
    return Table({key: BothParts(jacobian) for key, jacobian in table.entries.items()})


def as_real(x: jax.Array) -> jax.Array:
    """A complex array as its nodes; a real array as it is."""
    return jnp.stack([x.real, x.imag], -1) if jnp.iscomplexobj(x) else x


def as_complex(nodes: jax.Array) -> jax.Array:
    """The complex array that has these nodes."""
    return lax.complex(nodes[..., 0], nodes[..., 1])
