"""Complex arrays: every number is two nodes, its real and its imaginary part.

Only then is every edge real: JAX's derivative of ``abs`` or ``conj`` at a complex number is
linear over the reals, not over the complex numbers. What moves or adds complex numbers has the same
edges for both parts. Elementwise functions and products join the parts in pairs, each of which has
the edges that real numbers would have; anything else goes through a dense Jacobian of the parts.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians import axis_labels
from semijax.jacobians.base import (
    Declaration,
    EquationJacobian,
    LocalJacobian,
    Rule,
    Table,
    arrays,
)
from semijax.jacobians.diagonal import Diagonal, Transposed
from semijax.jacobians.edges import NO_EDGES, Edges, joined, pairs
from semijax.jacobians.elementwise import SELECTIONS, STEPS
from semijax.semirings.base import Semiring
from semijax.trace.graph import Equation, Variable
from semijax.trace.primitives import primitives


@arrays("inner")
@dataclasses.dataclass(frozen=True)
class BothParts(LocalJacobian):
    """The same edges for the real and the imaginary part, which form a last axis of size 2.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> double = sj.jacobians.Diagonal(jnp.full(3, 2.0), (3,), (3,))
        >>> both = sj.jacobians.BothParts(double)
        >>> both.in_shape, both.pull(sj.SumProduct(), jnp.ones((3, 2))).shape
        ((3, 2), (3, 2))
    """

    inner: LocalJacobian

    @property
    def kind(self) -> str:
        """The kind of the inner Jacobian."""
        return self.inner.kind

    @property
    def in_shape(self) -> Shape:
        """The inner input shape, and the parts."""
        return (*self.inner.in_shape, 2)

    @property
    def out_shape(self) -> Shape:
        """The inner output shape, and the parts."""
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


@arrays("pairs")
@dataclasses.dataclass(frozen=True)
class PartByPart(LocalJacobian):
    """A Jacobian from each part of the input to each part of the output, where there are edges.

    Attributes:
        pairs: by part of the input and part of the output, 0 for the real and 1 for the imaginary
            one; a real array has only part 0.
        in_parts, out_parts: the parts' axis of each side: ``(2,)`` if it is complex, ``()`` if not.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> same = sj.jacobians.Diagonal(None, (), ())
        >>> negated = sj.jacobians.Diagonal(jnp.array(-1.0), (), ())
        >>> conjugate = sj.jacobians.PartByPart({(0, 0): same, (1, 1): negated}, (2,), (2,))
        >>> print(conjugate.pull(sj.SumProduct(), jnp.array([1.0, 1.0])))
        [ 1. -1.]
    """

    pairs: Mapping[tuple[int, int], LocalJacobian]
    in_parts: Shape
    out_parts: Shape

    @property
    def kind(self) -> str:
        """The kinds of the pairs."""
        return ", ".join(dict.fromkeys(jacobian.kind for jacobian in self.pairs.values()))

    @property
    def in_shape(self) -> Shape:
        """The pairs' input shape, and the parts."""
        return (*self._one.in_shape, *self.in_parts)

    @property
    def out_shape(self) -> Shape:
        """The pairs' output shape, and the parts."""
        return (*self._one.out_shape, *self.out_parts)

    @property
    def edges(self) -> int:
        return sum(jacobian.edges for jacobian in self.pairs.values())

    @property
    def _one(self) -> LocalJacobian:
        return next(iter(self.pairs.values()))

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        arrived = _split(cotangent, self._one.out_shape, self.out_parts)
        pulled: dict[int, Elements] = {}
        for (a, b), jacobian in self.pairs.items():
            part = jacobian.pull(semiring, arrived[b])
            pulled[a] = semiring.add(pulled[a], part) if a in pulled else part
        return self._joined(semiring, pulled, self._one.in_shape, self.in_parts)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        return self._transposed().pull(semiring, tangent)

    def leaving(self, index: np.ndarray) -> Edges:
        here, there = el.size(self.in_parts), el.size(self.out_parts)
        parts = [NO_EDGES]
        for (a, b), jacobian in self.pairs.items():
            mine = np.flatnonzero(index % here == a)
            edges = jacobian.leaving(index[mine] // here)
            parts.append(Edges(mine[edges.owner], edges.other * there + b, edges.weight))
        return joined(parts)

    def entering(self, index: np.ndarray) -> Edges:
        return self._transposed().leaving(index)

    def _transposed(self) -> PartByPart:
        turned = {(b, a): Transposed(jacobian) for (a, b), jacobian in self.pairs.items()}
        return PartByPart(turned, self.out_parts, self.in_parts)

    def _joined(
        self, semiring: Semiring, found: Mapping[int, Elements], shape: Shape, parts: Shape
    ) -> Elements:
        if not parts:
            return found[0]
        none = semiring.zero(shape, semiring.dtype(next(iter(found.values()))))
        both = [found.get(part, none) for part in range(2)]
        return el.map_leaves(lambda *leaves: jnp.stack(leaves, len(shape)), *both)


def _split(elements: Elements, shape: Shape, parts: Shape) -> list[Elements]:
    if not parts:
        return [elements]
    axis = len(shape)
    return [el.map_leaves(lambda x, p=p: x.take(p, axis), elements) for p in range(2)]


def _of_parts(edges_at: Callable[[np.ndarray], Edges], index: np.ndarray) -> Edges:
    """Return the edges of each number asked for, at the part asked for."""
    numbers, which = np.unique(index // 2, return_inverse=True)
    edges = edges_at(numbers)
    owner, edge = pairs(which, edges.owner)
    return Edges(owner, 2 * edges.other[edge] + index[owner] % 2, edges.weight[edge])


def is_complex(variable: object) -> bool:
    """Tell whether a variable holds complex numbers."""
    return isinstance(variable, Variable) and jnp.issubdtype(variable.dtype, jnp.complexfloating)


def involves_complex(equation: Equation) -> bool:
    """Tell whether any path through the equation meets a complex number."""
    return any(map(is_complex, (*(equation.inputs[i] for i in equation.wrt), *equation.outputs)))


def both_parts(table: EquationJacobian) -> EquationJacobian:
    """Return the edges of an equation that treats real and imaginary parts alike."""
    assert isinstance(table, Table)
    return Table({key: BothParts(jacobian) for key, jacobian in table.entries.items()})


def part_by_part(
    equation: Equation, known: Declaration, values: Sequence[Any]
) -> EquationJacobian | None:
    """Return the edges of an elementwise function or a product; None for any other equation."""
    if known.axes is axis_labels.elementwise and len(equation.outputs) == 1:
        pairs_of = _elementwise_pairs
    elif known.rule is not None and known.bilinear:
        pairs_of = functools.partial(_pairs_of_factor, known.rule)
    else:
        return None
    entries = {}
    for i in equation.wrt:
        parts = [(2,) if is_complex(v) else () for v in (equation.inputs[i], equation.outputs[0])]
        entries[i, 0] = PartByPart(pairs_of(equation, i, values), *parts)
    return Table(entries)


Pairs = dict[tuple[int, int], LocalJacobian]

PART_TO_PART = {
    *primitives("real", "conj", "convert_element_type", "reduce_precision", "name"),
    *primitives("sharding_constraint", "reshard", "neg", "sub", "select_n", "max", "min"),
}
"""Elementwise primitives in which real parts meet only real parts, imaginary only imaginary."""

SELECTING = {*primitives(*SELECTIONS, *STEPS)}
"""Primitives whose derivative is 0 because of a selection, or because they are steps."""

IMAG, COMPLEX = primitives("imag", "complex")


def _elementwise_pairs(equation: Equation, i: int, values: Sequence[Any]) -> Pairs:
    """Compute the pairs by a tangent of ones, and one of imaginary ones."""
    out = equation.outputs[0].shape
    x = jnp.asarray(values[i])

    def function(x: Any) -> Any:
        return equation.bind(*values[:i], x, *values[i + 1 :])[0]

    found: Pairs = {}
    for a, unit in enumerate((1, 1j) if is_complex(equation.inputs[i]) else (1,)):
        _, derivative = jax.jvp(function, (x,), (jnp.full_like(x, unit),))
        parts = (derivative.real, derivative.imag)[: 2 if jnp.iscomplexobj(derivative) else 1]
        for b, weights in enumerate(parts):
            if _meet(equation.primitive, i, a, b):
                selected = weights != 0 if equation.primitive in SELECTING else None
                found[a, b] = Diagonal(weights, x.shape, out, selected=selected)
    return found


def _meet(primitive: Any, i: int, a: int, b: int) -> bool:
    """Tell whether part b of an elementwise function's result reads part a of its input i."""
    if primitive is IMAG:
        return a == 1
    if primitive is COMPLEX:
        return b == i
    return a == b or primitive not in PART_TO_PART


def _pairs_of_factor(rule: Rule, equation: Equation, i: int, values: Sequence[Any]) -> Pairs:
    """Return one factor's pairs in (x + iy)(u + iv) = xu − yv + i(xv + yu)."""
    parts = [(jnp.real(v), jnp.imag(v)) for v in values]
    other = parts[1 - i]

    def weighed_by(weights: jax.Array) -> LocalJacobian:
        factors = [parts[i][0], parts[i][0]]
        factors[1 - i] = weights
        return rule(equation, *factors)[i]

    real, imag, minus_imag = map(weighed_by, (other[0], other[1], -other[1]))
    pairs = {(0, 0): real, (0, 1): imag, (1, 0): minus_imag, (1, 1): real}
    ins, outs = (is_complex(equation.inputs[i]), is_complex(equation.outputs[0]))
    return {(a, b): j for (a, b), j in pairs.items() if a <= ins and b <= outs}


def as_real(x: jax.Array) -> jax.Array:
    """Return a complex array as its nodes, and a real array as it is."""
    return jnp.stack([x.real, x.imag], -1) if jnp.iscomplexobj(x) else x


def as_complex(nodes: jax.Array) -> jax.Array:
    """Return the complex array that has these nodes."""
    return lax.complex(nodes[..., 0], nodes[..., 1])
