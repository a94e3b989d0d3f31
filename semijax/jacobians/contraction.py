"""Matrix products: dense over the contracted axes, batched elsewhere."""

from __future__ import annotations

import dataclasses
import string
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians import axis_labels
from semijax.jacobians.base import LocalJacobian, arrays, declare, rule_for
from semijax.jacobians.edges import NO_EDGES, Edges, spread, unravel
from semijax.jacobians.einsum import einsum
from semijax.jacobians.pins import Pins, part_of, pinned
from semijax.semirings.base import Semiring
from semijax.trace.graph import Equation

Axes = tuple[int, ...]
Groups = tuple[Axes, Axes, Axes]


@arrays("weights")
@dataclasses.dataclass(frozen=True)
class Contraction(LocalJacobian):
    """The edges of o[b, f, g] = Σ_c i[b, c, f] w[b, c, g], so ∂o[b, f, g]/∂i[b, c, f] = w[b, c, g].

    Attributes:
        weights: the other operand, of any shape.
        in_dims, weight_dims: the (batch, contracted, free) axes of each operand; the batch and
            contracted axes of the two pair off in order.
        out_free: the axes of the output that are the input's and the weights' free axes; its first
            axes are the batch axes.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> w = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # o[g] = Σ_c i[c] w[c, g]
        >>> dims = {"in_dims": ((), (0,), ()), "weight_dims": ((), (0,), (1,))}
        >>> jacobian = sj.jacobians.Contraction(w, (2,), (3,), out_free=((), (0,)), **dims)
        >>> print(jacobian.pull(sj.AbsMaxProduct(), jnp.ones(3)))
        [3. 6.]
    """

    weights: jax.Array
    in_shape: Shape
    out_shape: Shape
    in_dims: Groups
    weight_dims: Groups
    out_free: tuple[Axes, Axes]

    kind: ClassVar[str] = "Contraction"

    @property
    def edges(self) -> int:
        batch, contracted, free = (self._sizes(self.in_shape, d) for d in self.in_dims)
        others = self._sizes(self.weights.shape, self.weight_dims[2])
        return el.size((*batch, *contracted, *free, *others))

    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        weights, inputs, outputs = self._letters
        return einsum(semiring, f"{weights},{outputs}->{inputs}", self.weights, cotangent)

    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        weights, inputs, outputs = self._letters
        return einsum(semiring, f"{weights},{inputs}->{outputs}", self.weights, tangent)

    def leaving(self, index: np.ndarray) -> Edges:
        indices = unravel(index, self.in_shape)
        batch, contracted, free = (tuple(indices[a] for a in axes) for axes in self.in_dims)
        order = [axis for group in self.weight_dims for axis in group]
        weights = np.asarray(self.weights).transpose(order)
        met = weights[(*batch, *contracted)] if batch or contracted else weights
        axes_of_batch, _, axes_of_free = self._out_dims
        fixed = dict(zip((*axes_of_batch, *axes_of_free), (*batch, *free), strict=True))
        targets = spread(fixed, self.out_shape, len(index))
        if not targets.size:
            return NO_EDGES
        met = np.broadcast_to(met.reshape(-1, targets.shape[1]), targets.shape)
        owner = np.arange(len(index)).repeat(targets.shape[1])
        return Edges(owner, targets.ravel(), met.ravel().astype(np.float64))

    def restricted(self, pins: Pins) -> tuple[Contraction, Pins]:
        batch, of_weights, of_input = self._out_dims
        weights = _operand_pins(self.weight_dims, batch, of_weights, pins)
        own = _operand_pins(self.in_dims, batch, of_input, pins)
        smaller = dataclasses.replace(
            self,
            weights=part_of(self.weights, weights),
            in_shape=pinned(self.in_shape, own),
            out_shape=pinned(self.out_shape, pins),
        )
        return smaller, own

    @property
    def _letters(self) -> tuple[str, str, str]:
        """The letters of the axes of the weights, of the input and of the output."""
        letters = iter(string.ascii_letters)
        weights, inputs, outputs = {}, {}, {}

        def pair(*groups: tuple[dict[int, str], Axes]) -> None:
            """Give one letter to the first axes of some groups, one to the second, and so on."""
            for axes in zip(*(axes for _, axes in groups), strict=True):
                letter = next(letters)
                for (names, _), axis in zip(groups, axes, strict=True):
                    names[axis] = letter

        of_input, of_weights, of_output = self.in_dims, self.weight_dims, self._out_dims
        pair((inputs, of_input[0]), (weights, of_weights[0]), (outputs, of_output[0]))
        pair((inputs, of_input[1]), (weights, of_weights[1]))
        pair((weights, of_weights[2]), (outputs, of_output[1]))
        pair((inputs, of_input[2]), (outputs, of_output[2]))

        def word(names: dict[int, str]) -> str:
            return "".join(names[axis] for axis in range(len(names)))

        return word(weights), word(inputs), word(outputs)

    @property
    def _out_dims(self) -> Groups:
        """The axes of the output: batch, the weights' free, the input's free."""
        return tuple(range(len(self.in_dims[0]))), self.out_free[1], self.out_free[0]

    def _sizes(self, shape: Shape, dims: tuple[int, ...]) -> Shape:
        return tuple(shape[d] for d in dims)


@rule_for("dot_general", axes=axis_labels.contracted, bilinear=True)
def dot_general_jacobian(equation: Equation, lhs: Any, rhs: Any) -> list[LocalJacobian | None]:
    """Return ∂o[b, f, g]/∂lhs[b, f, c] = rhs[b, c, g], and the same with the operands swapped."""
    (lhs_contracted, rhs_contracted), (lhs_batch, rhs_batch) = equation.params["dimension_numbers"]
    lhs, rhs = jnp.asarray(lhs), jnp.asarray(rhs)
    lhs_free = _others(lhs.ndim, lhs_batch, lhs_contracted)
    rhs_free = _others(rhs.ndim, rhs_batch, rhs_contracted)
    lhs_dims = (tuple(lhs_batch), tuple(lhs_contracted), lhs_free)
    rhs_dims = (tuple(rhs_batch), tuple(rhs_contracted), rhs_free)
    out = equation.outputs[0].shape
    split = len(lhs_batch) + len(lhs_free)
    of_lhs, of_rhs = tuple(range(len(lhs_batch), split)), tuple(range(split, len(out)))
    return [
        Contraction(rhs, lhs.shape, out, lhs_dims, rhs_dims, (of_lhs, of_rhs)),
        Contraction(lhs, rhs.shape, out, rhs_dims, lhs_dims, (of_rhs, of_lhs)),
    ]


declare("ragged_dot_general", bilinear=True)


def _operand_pins(dims: Groups, batch: Axes, free: Axes, pins: Pins) -> Pins:
    """Return an operand's pins, given what axes of the output its batch and free axes become."""
    own = dict.fromkeys(dims[1]) | {
        a: pins[d] for a, d in zip(dims[0] + dims[2], batch + free, strict=True)
    }
    return tuple(own[axis] for axis in range(len(own)))


def _others(ndim: int, *groups: Any) -> tuple[int, ...]:
    taken = {axis for group in groups for axis in group}
    return tuple(axis for axis in range(ndim) if axis not in taken)
