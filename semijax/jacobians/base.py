"""The interface of local Jacobians, and the registry of the rules that make them.

A rule maps an equation and its primal values to one ``LocalJacobian`` per pair of an input and an
output. The semiring acts on it through two verbs, ``pull`` and ``push``; no rule knows a semiring
and no semiring knows a primitive. To follow paths, ask for the edges ``leaving`` a node.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.jacobians.edges import Edges, probed
from semijax.jacobians.pins import Pins
from semijax.semirings.base import Semiring
from semijax.semirings.real import SumProduct
from semijax.trace.graph import Equation, Graph, Variable
from semijax.trace.primitives import primitives

_Kind = TypeVar("_Kind", bound=type)


def arrays(*names: str) -> Callable[[_Kind], _Kind]:
    """Declare which fields of a kind of Jacobian hold arrays; the others are static and hashable.

    A semiring's operations on it are then compiled once for all with the same static fields.
    """

    def register(kind: _Kind) -> _Kind:
        static = [f.name for f in dataclasses.fields(kind) if f.name not in names]
        return jax.tree_util.register_dataclass(kind, names, static)

    return register


class LocalJacobian(abc.ABC):
    """The edges from the elements of one input of an equation to the elements of one output.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> jacobian = sj.jacobians.Diagonal(jnp.array([2.0, 5.0]), (2,), (2,))
        >>> print(jacobian.pull(sj.SumProduct(), jnp.array([1.0, 10.0])))
        [ 2. 50.]
        >>> weights, present = jacobian.dense()
        >>> print(weights)
        [[2. 0.]
         [0. 5.]]
    """

    in_shape: Shape
    out_shape: Shape

    @abc.abstractmethod
    def pull(self, semiring: Semiring, cotangent: Elements) -> Elements:
        """Compute g_in[i] = ⊕ₒ lift(∂o/∂i) ⊗ g_out[o], over the edges i → o."""

    @abc.abstractmethod
    def push(self, semiring: Semiring, tangent: Elements) -> Elements:
        """Compute t_out[o] = ⊕ᵢ t_in[i] ⊗ lift(∂o/∂i), over the edges i → o."""

    # Single edges, on concrete numbers. A kind that knows them need not ask its verbs.

    def leaving(self, index: np.ndarray) -> Edges:
        """Return the edges that leave distinct input elements, given by flattened position."""
        return probed(self, "push", index)

    def entering(self, index: np.ndarray) -> Edges:
        """Return the edges that enter distinct output elements, given by flattened position."""
        return probed(self, "pull", index)

    def restricted(self, pins: Pins) -> tuple[LocalJacobian, Pins] | None:
        """Return the edges that enter a part of the output, as a smaller Jacobian.

        Args:
            pins: the indices of the outputs that count.

        Returns:
            The Jacobian from a part of the input to that part of the output, in both of which the
            pinned axes have size 1, and the indices of the inputs; None if a kind does not know
            them.
        """
        del pins
        return None

    @property
    def kind(self) -> str:
        """The name of this kind of Jacobian, as ``explain`` prints it."""
        return type(self).__name__

    @property
    def edges(self) -> int:
        """The number of possible edges."""
        return max(el.size(self.in_shape), el.size(self.out_shape))

    def dense(self) -> tuple[jax.Array, jax.Array]:
        """Return the matrix of shape ``out_shape + in_shape`` and a mask of the existing edges."""
        n = el.size(self.out_shape)
        rows = jnp.eye(n).reshape(n, *self.out_shape)
        shape = (*self.out_shape, *self.in_shape)
        weights = jax.vmap(lambda row: self.pull(SumProduct(), row))(rows)
        present = jax.vmap(lambda row: self.pull(Structure(), row > 0))(rows)
        return weights.reshape(shape), present.reshape(shape)


@dataclasses.dataclass(frozen=True)
class Structure(Semiring):
    """The Boolean semiring: it tells which edges exist, whatever they weigh."""

    def zero(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.zeros(shape, bool)

    def one(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.ones(shape, bool)

    def lift(self, weights: jax.Array) -> jax.Array:
        return jnp.ones(weights.shape, bool)

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a | b

    def mul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a & b


Collector = Callable[..., dict[Any, Elements]]
"""``collect(body, semiring, at, tangents, cotangents)``: elements found in a graph, by key.

``at`` is the graph's evaluation; tangents and cotangents are the elements of its inputs and its
outputs, None for 0̄.
"""


class EquationJacobian(abc.ABC):
    """All edges of one equation. ``None`` stands for 0̄ of any shape.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> from semijax.trace.graph import trace
        >>> x = jnp.array(3.0)
        >>> graph, _ = trace(lambda x: x * x, x)
        >>> edges = sj.jacobians.equation_jacobian(graph.equations[0], x, x)
        >>> {i: float(x) for i, x in edges.pull(sj.SumProduct(), [1.0]).items()}  # x twice
        {0: 3.0, 1: 3.0}
    """

    @abc.abstractmethod
    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        """Map one cotangent per output to the cotangents of the inputs that have any."""

    @abc.abstractmethod
    def push(
        self, semiring: Semiring, tangents: Mapping[int, Elements]
    ) -> Sequence[Elements | None]:
        """Map the tangents of inputs to one tangent per output."""

    kind: str
    """The kinds of local Jacobian it consists of."""

    def leaving(self, position: int, index: np.ndarray) -> Iterator[tuple[int, Edges]]:
        """Yield the edges from elements of the input at a position to each output that has any."""
        raise NotImplementedError(f"a {self.kind} has no edges of its own, only its bodies do")

    def inside(
        self,
        semiring: Semiring,
        tangents: Mapping[int, Elements] | None,
        cotangents: Sequence[Elements | None],
        collect: Collector,
    ) -> dict[Any, Elements]:
        """Return what ``collect`` finds in the bodies of a region, between tangents and cotangents.

        Without tangents, it is not told what came in before. Elements from every iteration of a
        loop are stacked along a new first axis; those of a branch that was not taken are 0̄.
        """
        raise NotImplementedError(f"a {self.kind} has no bodies to look into")

    @property
    def edges(self) -> int | None:
        """The number of possible edges; None for a region, which has those of its bodies."""
        return None

    @property
    def bodies(self) -> tuple[Graph, ...]:
        """The graphs inside a region."""
        return ()


@arrays("entries")
@dataclasses.dataclass(frozen=True)
class Table(EquationJacobian):
    """The local Jacobians of an equation, by (position of the input, position of the output).

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> double = sj.jacobians.Diagonal(jnp.full(2, 2.0), (2,), (2,))
        >>> table = sj.jacobians.Table({(0, 0): double})  # of the first input and the first output
        >>> print(table.pull(sj.SumProduct(), [jnp.ones(2)])[0])
        [2. 2.]
    """

    entries: Mapping[tuple[int, int], LocalJacobian]

    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        pulled: dict[int, Elements] = {}
        for (i, o), jacobian in self.entries.items():
            if cotangents[o] is not None:
                part = jacobian.pull(semiring, cotangents[o])
                pulled[i] = semiring.add(pulled[i], part) if i in pulled else part
        return pulled

    def push(
        self, semiring: Semiring, tangents: Mapping[int, Elements]
    ) -> Sequence[Elements | None]:
        pushed: list[Elements | None] = [None] * (1 + max((o for _, o in self.entries), default=-1))
        for (i, o), jacobian in self.entries.items():
            if i in tangents:
                part = jacobian.push(semiring, tangents[i])
                pushed[o] = part if pushed[o] is None else semiring.add(pushed[o], part)
        return pushed

    def leaving(self, position: int, index: np.ndarray) -> Iterator[tuple[int, Edges]]:
        for (i, o), jacobian in self.entries.items():
            if i == position:
                yield o, jacobian.leaving(index)

    @property
    def kind(self) -> str:
        return ", ".join(dict.fromkeys(jacobian.kind for jacobian in self.entries.values()))

    @property
    def edges(self) -> int:
        return sum(jacobian.edges for jacobian in self.entries.values())


Rule = Callable[..., Any]
AxisRule = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Declaration:
    """All that is known about one of JAX's primitives.

    Attributes:
        rule: from an equation and its primal values to its local Jacobians; None for a primitive
            that goes through a dense Jacobian, or has no derivative.
        axes: how the axes of its inputs become those of its outputs, see
            ``jacobians.axis_labels``; None where everything mixes.
        same_for_both_parts: whether the real and the imaginary parts of complex numbers have the
            edges that real numbers have, each by itself.
        knows_parts: whether the rule itself handles the parts of complex numbers.
        linear_in: the operands that it is linear in, taken together, whatever the others are.
        bilinear: whether it is linear in each of its first two operands.
        average: the rule for its local Jacobians averaged along a line, see ``jacobians.line``;
            None where linearity says what they are, or where the rule is to be integrated.
    """

    rule: Rule | None = None
    axes: AxisRule | None = None
    same_for_both_parts: bool = False
    knows_parts: bool = False
    linear_in: slice | None = None
    bilinear: bool = False
    average: Rule | None = None

    def is_linear_in(self, operands: Collection[int]) -> bool:
        """Tell whether the primitive is linear in these operands, taken together."""
        if self.linear_in is None:
            return not operands
        return {*operands} <= {*range(max(operands, default=0) + 1)[self.linear_in]}


EVERY, FIRST = slice(None), slice(0, 1)
"""The operands that a primitive is linear in."""


NOTHING_KNOWN = Declaration()

_DECLARED: dict[Any, Declaration] = {}
_USER_RULES: dict[Any, Rule] = {}


def declare(*names: str, **facts: Any) -> None:
    """Declare facts, the fields of ``Declaration``, about the JAX primitives of these names."""
    for known in primitives(*names):
        assert known not in _DECLARED, known
        _DECLARED[known] = Declaration(**facts)


def rule_for(*names: str, **facts: Any) -> Callable[[Rule], Rule]:
    """Declare the JAX primitives of these names: return a decorator for their rule."""

    def decorate(rule: Rule) -> Rule:
        declare(*names, rule=rule, **facts)
        return rule

    return decorate


def declaration(primitive: Any) -> Declaration:
    """Return what is known about a primitive."""
    return _DECLARED.get(primitive, NOTHING_KNOWN)


def register_jacobian(primitive: Any) -> Callable[[Rule], Rule]:
    """Give a primitive its local Jacobian: a decorator for the rule.

    The rule is called with the ``Equation`` and the primal value of each of its inputs. It returns
    one local Jacobian per input, ``None`` for an input without edges (``equation.wrt`` lists the
    positions that are needed). For a primitive with several outputs it returns a dict from
    (position of input, position of output) to local Jacobian. Build local Jacobians from the kinds
    in ``semijax.jacobians``.

    Primitives that JAX can differentiate work without a rule, through a dense Jacobian; a rule
    makes them faster, and says which edges of weight 0 are there.

    Args:
        primitive: the ``jax.extend.core.Primitive``. A rule for one of JAX's own replaces the
            rule that is built in.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> from jax.extend.core import Primitive
        >>> from jax.interpreters import ad
        >>> double_p = Primitive("double")
        >>> _ = double_p.def_impl(lambda x: 2 * x)
        >>> _ = double_p.def_abstract_eval(lambda x: x)
        >>> @sj.register_jacobian(double_p)
        ... def double_jacobian(equation, x):
        ...     return [sj.jacobians.Diagonal(jnp.full_like(x, 2), x.shape, x.shape)]
        >>> print(sj.semiring_grad(lambda x: double_p.bind(x).sum(), sj.SumProduct())(jnp.ones(2)))
        [2. 2.]
    """
    if not isinstance(primitive, jax.extend.core.Primitive):
        raise TypeError(
            "register_jacobian expects a jax.extend.core.Primitive, "
            f"got {primitive!r} of type {type(primitive).__name__}."
        )

    def declare(rule: Rule) -> Rule:
        _USER_RULES[primitive] = rule
        return rule

    return declare


def user_rule(primitive: Any) -> Rule | None:
    """Return the rule that ``register_jacobian`` declared, if any."""
    return _USER_RULES.get(primitive)


def as_table(equation: Equation, jacobians: Any) -> EquationJacobian:
    """Check what a rule returned, and drop the edges that nobody asked for."""
    if isinstance(jacobians, EquationJacobian):
        return jacobians
    if isinstance(jacobians, LocalJacobian):
        jacobians = [jacobians]
    if not isinstance(jacobians, Mapping):
        jacobians = {(i, 0): jacobian for i, jacobian in enumerate(jacobians)}
    entries = {}
    for (i, o), jacobian in jacobians.items():
        if jacobian is None or i not in equation.wrt:
            continue
        variable, output = equation.inputs[i], equation.outputs[o]
        assert isinstance(variable, Variable)
        expected = variable.shape, output.shape
        if (jacobian.in_shape, jacobian.out_shape) != expected:
            raise ValueError(
                f"The rule of primitive '{equation.name}' returned a local Jacobian from "
                f"{jacobian.in_shape} to {jacobian.out_shape} for input {i} and output {o}, "
                f"whose shapes are {expected[0]} and {expected[1]}; {equation.where()}."
            )
        entries[i, o] = jacobian
    return Table(entries)


def no_derivative(equation: Equation, error: Exception) -> NotImplementedError:
    """Make the error for a primitive that JAX has no derivative of."""
    reason = str(error).strip().split("\n")[0]
    return NotImplementedError(
        f"No local Jacobian for primitive '{equation.name}' {equation.where()}: JAX could not "
        f"differentiate it ({type(error).__name__}: {reason}). If the primitive is yours, give it "
        "one with semijax.register_jacobian; if no gradient should pass here, use "
        "jax.lax.stop_gradient."
    )


def accumulated(weights: Any) -> jax.Array:
    """Return weights in the dtype in which statistics are carried."""
    weights = jnp.asarray(weights)
    return weights.astype(el.accumulation_dtype(weights.dtype))
