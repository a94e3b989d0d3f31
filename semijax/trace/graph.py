"""The flat graph of a function: a list of equations, each with its scope and source line.

A node is one scalar element of one array; an edge joins an element of an equation's input to an
element of its output. Functions that are merely called (``jit``, ``checkpoint``, …) are inlined;
a function with a custom derivative, or wrapped in ``atomic``, stays one equation.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util

from semijax.trace import compat, scope_names
from semijax.trace.members import called_jaxpr
from semijax.trace.module_scopes import naming_models
from semijax.trace.primitives import primitive, primitives
from semijax.trace.regions import Region, region_of

REFERENCES = {*primitives("new_ref", "get", "swap", "addupdate", "freeze", "free_ref")}
"""Primitives that read or write a mutable array, whose state is not a variable of the graph."""


def uses_references(eqn: Any) -> bool:
    """Tell whether an equation uses a mutable array, or anything inside it one from outside."""
    return eqn.primitive in REFERENCES or compat.acts_on_references(eqn)


STOP_GRADIENT = primitive("stop_gradient")
"""The primitive that cuts every path."""


@dataclasses.dataclass(frozen=True, eq=False)
class Variable:
    """An array of the graph: ``shape.size`` nodes."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def differentiable(self) -> bool:
        """True if it has nodes at all: integers, booleans and random keys have no derivative."""
        return jnp.issubdtype(self.dtype, jnp.inexact)

    def __repr__(self) -> str:
        return f"{np.dtype(self.dtype).name if self.differentiable else self.dtype}{[*self.shape]}"


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A literal in an equation."""

    value: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Module:
    """One use of a module: everything computed between entering its scope and leaving it.

    Attributes:
        scope: its name and those of the modules it lies in, joined by ``/``.
        outer: the use of a module it lies in; None for the whole function.
        loops: how many loops it lies in.
    """

    scope: str = ""
    outer: Module | None = None
    loops: int = 0

    @property
    def enclosing(self) -> tuple[Module, ...]:
        """All uses it lies in, and itself, from the outside in, except the whole function."""
        return (*self.outer.enclosing, self) if self.outer else ()

    def scope_at(self, iteration: Sequence[int]) -> str:
        """Return its scope in one iteration of each loop around it: ``"layers[3]/attention"``."""
        if self.outer is None:
            return ""
        outside = self.outer.scope_at(iteration)
        own = ", ".join(map(str, iteration[self.outer.loops : self.loops]))
        name = self.scope.rpartition("/")[2] + (f"[{own}]" if own else "")
        return f"{outside}/{name}" if outside else name


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """One call of ``jax.checkpoint``, inside which a reverse sweep computes values again.

    Attributes:
        eqn: JAX's equation of the call.
    """

    eqn: Any = dataclasses.field(repr=False)

    def keeps(self, equation: Equation) -> bool:
        """Tell whether what an equation computes is kept: by its policy, or for a side effect."""
        acts = equation.has_effects or uses_references(equation.eqn)
        return acts or compat.is_kept(self.eqn, equation.eqn)


Position = tuple[int | None, int]
"""The place where an array is made, as two positions.

That of the equation, None for an input of the graph, and the array's among the outputs or inputs.
"""


@dataclasses.dataclass(frozen=True)
class Marks:
    """Marks on the arrays of a graph that were asked for, and on those where paths start.

    Attributes:
        arrays: the numbers given to an array.
        starts: the arrays where paths start, each with a boolean array that says at which of its
            elements; None for all.
        inside: those inside regions, by the region's position and that of its body.
    """

    arrays: Mapping[Position, tuple[int, ...]]
    starts: Mapping[Position, Any]
    inside: Mapping[int, Mapping[int, Marks]]

    @property
    def any_start(self) -> bool:
        """True if a path starts here or in a region."""
        bodies = itertools.chain.from_iterable(own.values() for own in self.inside.values())
        return bool(self.starts) or any(body.any_start for body in bodies)


NO_MARKS = Marks({}, {}, {})


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """One primitive applied once.

    Attributes:
        inputs: what it reads, variables or constants.
        outputs: the variables it defines.
        module: the use of a module it was written in.
        active: the positions in ``inputs`` through which paths may come.
        has_effects: whether something outside the function would notice if it ran twice: a
            callback, a print, a mutable array that was not made here.
        eqn: JAX's own equation.
        calls: JAX's equations whose lines to report: its own, unless it was written in JAX, and the
            calls it lies in, from the inside out.
        marks: the arrays asked for inside it, by the position of its body.
        number: its position among the equations of its graph.
        within: the regions that its graph lies in, see ``Graph``.
        maps: the calls of ``vmap`` that it lies in, from the outside in.
        checkpoints: the same of ``jax.checkpoint``, as far as the next region.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> def is_sine(equation):
        ...     return equation.primitive.name == "sin"
        >>> f = lambda x: jnp.sin(x) + 3 * x
        >>> print(sj.semiring_grad(f, sj.Expectation(is_sine))(0.0))  # 1 of the mass 4
        0.25
    """

    inputs: tuple[Variable | Constant, ...]
    outputs: tuple[Variable, ...]
    module: Module
    active: tuple[int, ...]
    has_effects: bool
    eqn: Any = dataclasses.field(repr=False)
    calls: tuple[Any, ...] = dataclasses.field(repr=False)
    marks: Mapping[int, Marks] = dataclasses.field(default_factory=dict, repr=False)
    number: int = dataclasses.field(default=0, repr=False)
    within: Regions = dataclasses.field(default=(), repr=False)
    maps: tuple[Any, ...] = dataclasses.field(default=(), repr=False)
    checkpoints: tuple[Checkpoint, ...] = dataclasses.field(default=(), repr=False)

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
        """The primitive's name, or the name of the function that is this one node.

        That is an ``atomic`` function, or one with a derivative of its own, such as ``"relu"``.
        """
        if self.is_atomic:
            return self.params["name"].removeprefix(compat.ATOMIC)
        return compat.custom_derivative_name(self.eqn) or self.primitive.name

    @functools.cached_property
    def region(self) -> Region | None:
        """The control flow it runs; None for any other equation."""
        return region_of(self.eqn)

    @property
    def bodies(self) -> tuple[Any, ...]:
        """The jaxprs it runs, where paths go on; empty unless it is control flow."""
        return self.region.bodies if self.region else ()

    @functools.cached_property
    def sources(self) -> tuple[frozenset[int], ...]:
        """The positions in ``inputs`` from which a path may lead to each output."""
        if self.region is not None:
            bodies = build_bodies(self, active=False)
            found = self.region.sources([body.sources for body in bodies])
            skipped = len(self.inputs) - len(bodies[0].inputs)  # of a cond the index, …
            return tuple(frozenset(skipped + i for i in each) for each in found)
        ends = self.primitive is STOP_GRADIENT
        inputs = frozenset(i for i, v in enumerate(self.inputs) if _has_nodes(v) and not ends)
        return tuple(inputs if v.differentiable else frozenset() for v in self.outputs)

    def reached_from(self, positions: Collection[int]) -> set[int]:
        """Return the positions of outputs that inputs at positions lead to, or starts inside."""
        if not positions and not self.starts_inside:
            return set()
        started, inside = set(positions), set[int]()
        if self.starts_inside and self.region is not None:
            bodies = build_bodies(self, active=False)
            inside = {o for body in bodies for o in range(len(body.outputs)) if body.is_fed(o)}
            first, carries = self.region.carried
            carried = len(self.inputs) - len(bodies[0].inputs) + first
            started |= {carried + j for j in inside if j < carries}  # to the next iteration
        return inside | {o for o, each in enumerate(self.sources) if not each.isdisjoint(started)}

    @functools.cached_property
    def wrt(self) -> tuple[int, ...]:
        """The positions in ``inputs`` by which paths may enter that leave again."""
        return tuple(i for i in self.active if any(i in each for each in self.sources))

    @property
    def is_on_a_path(self) -> bool:
        """True if paths enter it that leave again, or start inside it."""
        return bool(self.wrt) or self.starts_inside

    @property
    def is_atomic(self) -> bool:
        """True if it is a function that ``atomic`` made one node."""
        return compat.is_atomic(self.eqn)

    @property
    def loops(self) -> int:
        """The number of loops it lies in."""
        return count_loops(self.within)

    @property
    def path(self) -> tuple[tuple[int, int], ...]:
        """The ``path`` of the graph it is in."""
        return _path(self.within)

    @property
    def starts_inside(self) -> bool:
        """True if it is a region and paths start in it."""
        return any(body.any_start for body in self.marks.values())

    def bind(self, *values: Any) -> list[Any]:
        """Evaluate it on primal values, one per input; return one value per output."""
        return compat.bind(self.eqn, *values)

    def where(self) -> str:
        """Return its place in the program, for error messages."""
        scope = f" in scope '{self.scope}'" if self.scope else ""
        return f"at {self.source}{scope}"


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """The equations of a function in the order of evaluation.

    Attributes:
        within: the regions it lies in, from the outside in: each equation, with the position of the
            body.
        inputs: the variables that stand for the function's arguments.
        outputs: what it returns.
        constants: the variables with a value of their own.
        active: the variables that a path can reach, from the differentiated inputs or from an array
            where paths start.
        marked: the numbers of the arrays that were asked for.
        starts: the arrays where paths start, as in ``Marks``.
        fed: the variables that such a path can reach.
        module: the use of a module that all of it lies in.
    """

    within: Regions
    inputs: tuple[Variable, ...]
    outputs: tuple[Variable | Constant, ...]
    equations: tuple[Equation, ...]
    constants: dict[Variable, Any]
    active: frozenset[Variable]
    marked: Mapping[Variable, tuple[int, ...]]
    starts: Mapping[Variable, Any]
    fed: frozenset[Variable]
    module: Module

    @functools.cached_property
    def checkpointed(self) -> Mapping[Checkpoint, Sequence[Equation]]:
        """The equations in each call of ``jax.checkpoint``, in the order of evaluation."""
        found: dict[Checkpoint, list[Equation]] = {}
        for equation in self.equations:
            for checkpoint in equation.checkpoints:
                found.setdefault(checkpoint, []).append(equation)
        return found

    @functools.cached_property
    def sources(self) -> tuple[frozenset[int], ...]:
        """The inputs from which a path may lead to each output, active or not."""
        known = {v: frozenset({n}) for n, v in enumerate(self.inputs) if v.differentiable}
        nothing = frozenset[int]()

        def of(atom: Variable | Constant) -> frozenset[int]:
            return known.get(atom, nothing) if isinstance(atom, Variable) else nothing

        for equation in self.equations:
            for v, inputs in zip(equation.outputs, equation.sources, strict=True):
                known[v] = nothing.union(*(of(equation.inputs[i]) for i in inputs))
            if uses_references(equation.eqn):  # what is written may be read later
                written = nothing.union(*map(of, equation.inputs))
                known.update((v, written) for v in equation.inputs if isinstance(v, Variable))
        return tuple(of(v) for v in self.outputs)

    def is_fed(self, output: int) -> bool:
        """Tell whether a path that starts inside leads to the output at a position."""
        return self.outputs[output] in self.fed

    @property
    def path(self) -> tuple[tuple[int, int], ...]:
        """The regions it lies in, by the positions of equations and bodies."""
        return _path(self.within)


Regions = tuple[tuple[Equation, int], ...]


def _path(within: Regions) -> tuple[tuple[int, int], ...]:
    return tuple((equation.number, body) for equation, body in within)


def count_loops(within: Regions) -> int:
    """Count the loops among some regions."""
    return sum(1 for equation, _ in within if equation.region and equation.region.is_loop)


def trace(function: Callable[..., Any], *args: Any) -> tuple[Graph, Any]:
    """Return the graph of ``function`` at the leaves of ``args``, and its output's shape tree."""
    closed, shapes = stage(function, *args)
    return build(closed), shapes


def reported_as(fun: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Call a function by the name and the line of another one in JAX's messages."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return functools.wraps(fun, updated=())(function)
        except Exception:  # an object that looks its attributes up in a way of its own
            return function

    return decorate


def stage(function: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """Return the jaxpr of ``function`` at the leaves of ``args``, and its output's shape tree."""
    leaves, tree = jax.tree.flatten(args)
    by = None

    @functools.wraps(function)
    def flat(*leaves: Any) -> Any:
        nonlocal by
        by = compat.trace_of(leaves)
        given = tree.unflatten(leaves)
        with naming_models(given):
            return function(*given)

    try:
        staged = jax.make_jaxpr(flat, return_shape=True)(*leaves)
    except Exception as error:
        if type(error).__name__ == "TraceContextError":  # Flax's
            error.add_note(
                "A function under nnx.jit can't be traced from outside, not by jax.make_jaxpr "
                "either, and the model that it was given is left without its attributes. Call the "
                "model itself, or use jax.jit with nnx.split outside and nnx.merge inside."
            )
        raise
    compat.end(by)
    if axes := compat.explicit_axes(staged[0].jaxpr):
        raise NotImplementedError(
            f"The types of arrays say here that they are sharded over {axes}, explicit axes of the "
            "mesh, and semijax needs automatic ones. Within auto_axes they are automatic: "
            "jax.sharding.auto_axes(jax.jit(sj.semiring_grad(f, semiring)), out_sharding=…)(x)."
        )
    return staged


def build(
    closed: Any,
    *,
    within: Regions = (),
    active: bool | Sequence[bool] = True,
    marks: Marks = NO_MARKS,
) -> Graph:
    """Build the graph of a jaxpr.

    Args:
        closed: a closed jaxpr.
        within: the regions it lies in, the last of which has it for a body.
        active: which inputs paths may come from, of those that have nodes, or whether all.
        marks: the arrays asked for, and where paths start.
    """
    jaxpr, consts = compat.open_jaxpr(closed)
    builder = _Builder(marks, within)
    for var, value in zip(jaxpr.constvars, as_arrays(consts), strict=True):
        builder.constants[builder.define(var)] = value
    inputs = tuple(builder.define(var, (None, n)) for n, var in enumerate(jaxpr.invars))
    flags = [active] * len(inputs) if isinstance(active, bool) else active
    builder.active |= {v for v, a in zip(inputs, flags, strict=True) if a and v.differentiable}
    around = _Surroundings(Module())
    if within:
        region, _ = within[-1]
        around = _Surroundings(region.module, region.calls, region.maps)
    builder.inline(jaxpr, around)
    return Graph(
        within,
        inputs,
        tuple(builder.read(atom) for atom in jaxpr.outvars),
        tuple(builder.equations),
        builder.constants,
        frozenset(builder.active),
        builder.marked,
        builder.starts,
        frozenset(builder.fed),
        around.module,
    )


def build_body(equation: Equation, number: int, active: bool | Sequence[bool] = True) -> Graph:
    """Build the graph of one body of a region, with the arrays that were asked for in it."""
    marks = equation.marks.get(number, NO_MARKS)
    within = (*equation.within, (equation, number))
    return build(equation.bodies[number], within=within, active=active, marks=marks)


def build_bodies(equation: Equation, active: bool | Sequence[bool] = True) -> tuple[Graph, ...]:
    """Build the graphs of all bodies of a region."""
    return tuple(build_body(equation, n, active) for n in range(len(equation.bodies)))


def build_test(equation: Equation) -> Graph:
    """Build the graph of the test that says whether a ``while`` goes on."""
    assert equation.region is not None and equation.region.test is not None
    return build(equation.region.test, within=(*equation.within, (equation, -1)), active=False)


class _Surroundings(NamedTuple):
    """What an equation lies in; the attributes are those of ``Equation``."""

    module: Module
    calls: tuple[Any, ...] = ()
    maps: tuple[Any, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()


class _Builder:
    def __init__(self, marks: Marks, within: Regions) -> None:
        self.marks = marks
        self.within = within
        self.loops = count_loops(within)
        self.names: dict[Any, Variable | Constant] = {}
        self.equations: list[Equation] = []
        self.constants: dict[Variable, Any] = {}
        self.active: set[Variable] = set()
        self.made: set[Variable] = set()  # by an equation
        self.marked: dict[Variable, tuple[int, ...]] = {}
        self.starts: dict[Variable, Any] = {}
        self.fed: set[Any] = set()
        # By the use of a module around it, the number of the jaxpr, and the scope entered.
        self.modules: dict[tuple[Module, int, Any], Module] = {}
        self.inlined = 0

    def define(self, var: Any, place: Position | None = None) -> Variable:
        self.names[var] = variable = Variable(
            tuple(getattr(var.aval, "shape", ())), getattr(var.aval, "dtype", np.dtype(object))
        )
        if place is not None and place in self.marks.arrays:
            self.marked[variable] = self.marks.arrays[place]
        if place is not None and place in self.marks.starts and variable.differentiable:
            self.starts[variable] = self.marks.starts[place]
            self.fed.add(variable)
            self.active.add(variable)
        return variable

    def read(self, atom: Any) -> Variable | Constant:
        return (
            Constant(compat.literal(atom)) if isinstance(atom, compat.Literal) else self.names[atom]
        )

    def inline(self, jaxpr: Any, outer: _Surroundings) -> None:
        # The lines of a function of JAX's own are not informative; the line that called it is.
        own_lines = not outer.calls or not compat.is_internal_to_jax(jaxpr)
        self.inlined += 1
        here = self.inlined
        for eqn in jaxpr.eqns:
            inputs = tuple(self.read(atom) for atom in eqn.invars)
            around = _Surroundings(
                self.enter(outer.module, here, eqn),
                (eqn, *outer.calls) if own_lines else outer.calls,
                (*outer.maps, *((here, call) for call in compat.maps_entered(eqn))),
                outer.checkpoints,
            )
            called = called_jaxpr(eqn)
            if called is None:
                self.append(eqn, inputs, around)
                continue
            if compat.is_checkpoint(eqn):
                inside = (*around.checkpoints, Checkpoint(eqn))
                around = around._replace(checkpoints=inside)
            self.call(called, eqn.outvars, inputs, around)

    def enter(self, module: Module, jaxpr: int, eqn: Any) -> Module:
        """Return the use of a module that an equation of a jaxpr lies in, itself within another."""
        for name, key in scope_names.of_modules(compat.scopes_entered(eqn)):
            place = module, jaxpr, key
            if place not in self.modules:
                scope = f"{module.scope}/{name}" if module.scope else name
                self.modules[place] = Module(scope, module, self.loops)
            module = self.modules[place]
        return module

    def append(
        self, eqn: Any, inputs: tuple[Variable | Constant, ...], around: _Surroundings
    ) -> None:
        if uses_references(eqn) and any(v in self.active for v in inputs):
            raise NotImplementedError(
                f"Primitive '{eqn.primitive.name}' acts on a mutable array reference, and paths "
                f"through one are not followed; at {_source(around.calls)}. Write the function "
                "without it."
            )
        number = len(self.equations)
        outputs = tuple(self.define(var, (number, n)) for n, var in enumerate(eqn.outvars))
        marks = self.marks.inside.get(number, {})
        active = tuple(i for i, v in enumerate(inputs) if v in self.active)
        has_effects = compat.has_effects(eqn, lambda var: self.names[var] in self.made)
        equation = Equation(
            *(inputs, outputs, around.module, active, has_effects, eqn, around.calls, marks),
            *(number, self.within, around.maps, around.checkpoints),
        )
        self.equations.append(equation)
        self.made.update(outputs)
        fed = [i for i, v in enumerate(inputs) if v in self.fed]
        self.active |= {outputs[o] for o in equation.reached_from(active)}
        self.fed |= {outputs[o] for o in equation.reached_from(fed)}

    def call(self, closed: Any, outvars: Sequence[Any], inputs: Any, around: _Surroundings) -> None:
        jaxpr, consts = compat.open_jaxpr(closed)
        # The names of a jaxpr that is called twice stand for two sets of variables.
        caller, self.names = self.names, {}
        for var, value in zip(jaxpr.constvars, as_arrays(consts), strict=True):
            self.constants[self.define(var)] = value
        self.names.update(zip(jaxpr.invars, inputs, strict=True))
        self.inline(jaxpr, around)
        results = [self.read(atom) for atom in jaxpr.outvars]
        self.names = caller
        self.names.update(zip(outvars, results, strict=True))


def _has_nodes(atom: Variable | Constant) -> bool:
    return isinstance(atom, Variable) and atom.differentiable


def _source(calls: Sequence[Any]) -> str:
    lines = (source_info_util.summarize(eqn.source_info) for eqn in calls)
    return next((line for line in lines if line), "an unknown line")


def as_arrays(values: Sequence[Any]) -> list[Any]:
    """Return values as a rule gets them from JAX: a jaxpr's NumPy arrays become JAX arrays."""

    def as_array(value: Any) -> Any:
        if isinstance(value, jax.Array) or not hasattr(value, "__array__"):
            return value
        with jax.ensure_compile_time_eval():  # it stays a constant where a function is traced
            return jnp.asarray(value)

    return [as_array(value) for value in values]
