"""From a function to its graph: a flat list of equations, each with its scope and source line.

A node is one scalar element of one array; an edge joins an element of an equation's input to an
element of its output. Functions that are merely called (``jit``, ``checkpoint``, …) are inlined;
a function with a custom derivative, or wrapped in ``atomic``, stays one equation.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util

from semijax.trace import compat, scope_names
from semijax.trace.module_scopes import naming_models
from semijax.trace.primitives import primitive, primitives
from semijax.trace.regions import Region, region_of

_JAX_FILES = os.path.dirname(jax.__file__)

REFERENCES = {*primitives("new_ref", "get", "swap", "addupdate", "freeze", "free_ref")}
"""Primitives that read or write a mutable array: its state is no variable of the graph."""

STOP_GRADIENT = primitive("stop_gradient")
"""The primitive that cuts every path."""


@dataclasses.dataclass(frozen=True, eq=False)
class Variable:
    """An array of the graph: ``shape.size`` nodes."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def differentiable(self) -> bool:
        """Whether it has nodes at all: integers, booleans and random keys have no derivative."""
        return jnp.issubdtype(self.dtype, jnp.inexact)

    def __repr__(self) -> str:
        return f"{np.dtype(self.dtype).name if self.differentiable else self.dtype}{[*self.shape]}"


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A literal in an equation."""

    value: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Module:
    """One use of a module: what was computed between entering its scope and leaving it.

    Attributes:
        scope: its name and those of the modules it lies in, joined by ``/``.
        outer: the use of a module it lies in; None for the whole function.
    """

    scope: str = ""
    outer: Module | None = None

    @property
    def enclosing(self) -> tuple[Module, ...]:
        """All that it lies in and itself, from the outside in, but for the whole function."""
        return (*self.outer.enclosing, self) if self.outer else ()


@dataclasses.dataclass(frozen=True)
class Marks:
    """Which arrays of a graph somebody asked for, by number.

    Attributes:
        arrays: the numbers given to an array, by the position in ``equations`` of the one that
            makes it, None for an input of the graph, and its position among outputs or inputs.
        inside: those inside of regions, by the region's position and that of its body.
    """

    arrays: Mapping[tuple[int | None, int], tuple[int, ...]]
    inside: Mapping[int, Mapping[int, Marks]]


NO_MARKS = Marks({}, {})


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """One primitive applied once.

    Attributes:
        inputs: what it reads, variables or constants.
        outputs: the variables it defines.
        module: the use of a module it was written in.
        wrt: the positions in ``inputs`` through which paths may come; none where nothing can
            leave again.
        eqn: JAX's own equation.
        calls: JAX's equations whose lines to report: its own, unless it was written in JAX, and the
            calls it lies in, from the inside out.
        marks: the arrays asked for inside of it, by the position of its body.
    """

    inputs: tuple[Variable | Constant, ...]
    outputs: tuple[Variable, ...]
    module: Module
    wrt: tuple[int, ...]
    eqn: Any = dataclasses.field(repr=False)
    calls: tuple[Any, ...] = dataclasses.field(repr=False)
    marks: Mapping[int, Marks] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def scope(self) -> str:
        """The names of the modules it was written in, joined by ``/``."""
        return self.module.scope

    @property
    def primitive(self) -> Any:
        """The JAX primitive."""
        return self.eqn.primitive

    @property
    def params(self) -> dict[str, Any]:
        """The primitive's parameters."""
        return self.eqn.params

    @property
    def source(self) -> str:
        """The user's line that made it, as JAX reports it: ``file:line (function)``."""
        return _source(self.calls)

    @property
    def name(self) -> str:
        """The primitive's name, or for a called function the function's."""
        if self.is_atomic:
            return self.params["name"].removeprefix(compat.ATOMIC)
        return self.primitive.name

    @functools.cached_property
    def region(self) -> Region | None:
        """What it runs, if it is control flow; None for any other equation."""
        return region_of(self.eqn)

    @property
    def bodies(self) -> tuple[Any, ...]:
        """The jaxprs it runs, where paths go on; none unless it is control flow."""
        return self.region.bodies if self.region else ()

    @property
    def is_atomic(self) -> bool:
        """Whether it is a function that ``atomic`` made one node."""
        return compat.is_atomic(self.eqn)

    def bind(self, *values: Any) -> list[Any]:
        """Evaluate it on primal values, one per input; one value per output."""
        return compat.bind(self.eqn, *values)

    def where(self) -> str:
        """Its place in the program, for error messages."""
        scope = f" in scope '{self.scope}'" if self.scope else ""
        return f"at {self.source}{scope}"


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """The equations of a function in the order of evaluation.

    Attributes:
        inputs: the variables that stand for the function's arguments.
        outputs: what it returns.
        constants: the variables with a value of their own.
        active: the variables that a path from the differentiated inputs, or from an array that was
            asked for, can reach.
        marked: the numbers of the arrays that were asked for.
        module: the use of a module that all of it lies in.
    """

    inputs: tuple[Variable, ...]
    outputs: tuple[Variable | Constant, ...]
    equations: tuple[Equation, ...]
    constants: dict[Variable, Any]
    active: frozenset[Variable]
    marked: Mapping[Variable, tuple[int, ...]]
    module: Module


def trace(function: Callable[..., Any], *args: Any) -> tuple[Graph, Any]:
    """The graph of ``function`` at the leaves of ``args``, and the tree of shapes of its output."""
    closed, shapes = stage(function, *args)
    return build(closed), shapes


def stage(function: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """The jaxpr of ``function`` at the leaves of ``args``, and the tree of its output's shapes."""
    leaves, tree = jax.tree.flatten(args)

    @functools.wraps(function)
    def flat(*leaves: Any) -> Any:
        given = tree.unflatten(leaves)
        with naming_models(given):
            return function(*given)

    return jax.make_jaxpr(flat, return_shape=True)(*leaves)


def build(
    closed: Any,
    *,
    within: Equation | None = None,
    active: Sequence[bool] | None = None,
    marks: Marks = NO_MARKS,
) -> Graph:
    """The graph of a jaxpr.

    Args:
        closed: a closed jaxpr.
        within: the equation whose body it is.
        active: which inputs paths may come from; by default all that have nodes.
        marks: the arrays asked for; paths may start there too.
    """
    jaxpr, consts = compat.open_jaxpr(closed)
    builder = _Builder(marks)
    for var, value in zip(jaxpr.constvars, consts, strict=True):
        builder.constants[builder.define(var)] = value
    inputs = tuple(builder.define(var, (None, n)) for n, var in enumerate(jaxpr.invars))
    flags = [True] * len(inputs) if active is None else active
    builder.active |= {v for v, a in zip(inputs, flags, strict=True) if a and v.differentiable}
    module, calls = (within.module, within.calls) if within else (Module(), ())
    builder.inline(jaxpr, module, calls)
    return Graph(
        inputs,
        tuple(builder.read(atom) for atom in jaxpr.outvars),
        tuple(builder.equations),
        builder.constants,
        frozenset(builder.active),
        builder.marked,
        module,
    )


def build_body(equation: Equation, number: int, active: Sequence[bool] | None = None) -> Graph:
    """The graph of one body of a region, with the arrays that were asked for in it."""
    marks = equation.marks.get(number, NO_MARKS)
    return build(equation.bodies[number], within=equation, active=active, marks=marks)


def build_bodies(equation: Equation, active: Sequence[bool] | None = None) -> tuple[Graph, ...]:
    """The graphs of all bodies of a region."""
    return tuple(build_body(equation, n, active) for n in range(len(equation.bodies)))


class _Builder:
    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.names: dict[Any, Variable | Constant] = {}
        self.equations: list[Equation] = []
        self.constants: dict[Variable, Any] = {}
        self.active: set[Variable] = set()
        self.marked: dict[Variable, tuple[int, ...]] = {}
        # By the use of a module it lies in, the jaxpr's, and the scope entered.
        self.modules: dict[tuple[Module, int, Any], Module] = {}
        self.inlined = 0

    def define(self, var: Any, place: tuple[int | None, int] | None = None) -> Variable:
        self.names[var] = variable = Variable(
            tuple(getattr(var.aval, "shape", ())), getattr(var.aval, "dtype", np.dtype(object))
        )
        if place is not None and place in self.marks.arrays:
            self.marked[variable] = self.marks.arrays[place]
            if variable.differentiable:
                self.active.add(variable)
        return variable

    def read(self, atom: Any) -> Variable | Constant:
        return Constant(_typed(atom)) if isinstance(atom, compat.Literal) else self.names[atom]

    def inline(self, jaxpr: Any, outer: Module, calls: tuple[Any, ...]) -> None:
        # The lines of a function of JAX's own are not informative; the line that called it is.
        own_lines = not calls or not is_internal_to_jax(jaxpr)
        self.inlined += 1
        here = self.inlined
        for eqn in jaxpr.eqns:
            inputs = tuple(self.read(atom) for atom in eqn.invars)
            module = self.enter(outer, here, eqn)
            lines = (eqn, *calls) if own_lines else calls
            called = compat.called_jaxpr(eqn)
            if called is None:
                self.append(eqn, inputs, module, lines)
            else:
                self.call(called, eqn.outvars, inputs, module, lines)

    def enter(self, module: Module, jaxpr: int, eqn: Any) -> Module:
        """The use of a module that an equation of a jaxpr lies in, itself within another."""
        for name, key in scope_names.of_modules(compat.scopes_entered(eqn)):
            place = module, jaxpr, key
            if place not in self.modules:
                scope = f"{module.scope}/{name}" if module.scope else name
                self.modules[place] = Module(scope, module)
            module = self.modules[place]
        return module

    def append(
        self,
        eqn: Any,
        inputs: tuple[Variable | Constant, ...],
        module: Module,
        calls: tuple[Any, ...],
    ) -> None:
        if eqn.primitive in REFERENCES and any(v in self.active for v in inputs):
            raise NotImplementedError(
                f"Primitive '{eqn.primitive.name}' acts on a mutable array reference, and paths "
                f"through one are not followed; at {_source(calls)}. Write the function without."
            )
        number = len(self.equations)
        outputs = tuple(self.define(var, (number, n)) for n, var in enumerate(eqn.outvars))
        marks = self.marks.inside.get(number, {})
        wrt: tuple[int, ...] = ()
        if eqn.primitive is not STOP_GRADIENT and any(v.differentiable for v in outputs):
            wrt = tuple(i for i, v in enumerate(inputs) if v in self.active)
        self.equations.append(Equation(inputs, outputs, module, wrt, eqn, calls, marks))
        if wrt or marks:
            self.active |= {v for v in outputs if v.differentiable}

    def call(
        self,
        closed: Any,
        outvars: Sequence[Any],
        inputs: Any,
        module: Module,
        calls: tuple[Any, ...],
    ) -> None:
        jaxpr, consts = compat.open_jaxpr(closed)
        # The names of a jaxpr that is called twice stand for two sets of variables.
        caller, self.names = self.names, {}
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            self.constants[self.define(var)] = value
        self.names.update(zip(jaxpr.invars, inputs, strict=True))
        self.inline(jaxpr, module, calls)
        results = [self.read(atom) for atom in jaxpr.outvars]
        self.names = caller
        self.names.update(zip(outvars, results, strict=True))


def _source(calls: Sequence[Any]) -> str:
    lines = (source_info_util.summarize(eqn.source_info) for eqn in calls)
    return next((line for line in lines if line), "an unknown line")


def is_internal_to_jax(jaxpr: Any) -> bool:
    """Whether a jaxpr is of one of the functions that JAX itself consists of."""
    return _JAX_FILES in str(getattr(jaxpr.debug_info, "func_src_info", ""))


def _typed(literal: Any) -> Any:
    # A literal may hold a Python number; outside of its jaxpr that would be weakly typed.
    if isinstance(literal.val, (bool, int, float, complex, np.ndarray, np.generic)):
        return np.asarray(literal.val, literal.aval.dtype)
    return literal.val
