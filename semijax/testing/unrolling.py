"""A function at a point as one long list of nodes and edges: the program runs once, on numbers.

A node is one element of one array; each equation that runs adds its edges. Calls are inlined, loops
are unrolled, and a ``cond`` is the branch that was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path, tree_leaves_with_path

from semijax import checks
from semijax.arguments import paired_leaves
from semijax.testing.edges import CUSTOM_DERIVATIVE, Index, edges_of, function_of, local_edges
from semijax.trace import compat
from semijax.trace.graph import STOP_GRADIENT, Equation, Module, Variable
from semijax.trace.members import as_vmap
from semijax.trace.regions import CondRegion, ScanRegion, WhileRegion
from semijax.trace.scope_names import of_modules
from semijax.weighting import DERIVATIVE, Derivative, Weighting

MAX_EDGES_PER_EQUATION = 2**24
"""The most pairs of one equation's input and output elements for a function to count as small."""


class Source(NamedTuple):
    """An input array that paths start from: its name, its nodes, its dtype."""

    name: str
    nodes: np.ndarray
    dtype: Any


class _Traced(NamedTuple):
    """A value of the running program, and the node of each of its elements (−1: a constant).

    ``other`` is its value in a second run: the same object where nothing can differ.
    """

    value: Any
    nodes: np.ndarray
    other: Any


class UnrolledGraph:
    """The nodes and edges of a function at a point.

    Attributes:
        labels: for each node, what made it (an input's name or a primitive's) and its index there.
        sources: the inputs; their nodes come first.
        source_count: the number of their nodes.
        outputs: the name, the index and the node of each element of the output that has one.
        equations: those that have edges, once for each time they ran.
        tails, heads, weights, equation_of: for each edge, where it begins and ends, the local
            derivative, and the number of its equation; what leads to a node comes before what
            leaves it.
        selected: for each edge, False where its weight is 0 because something else was selected.
        carried: for each input, by name, what paths from its elements carry; None for 1.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...],
        argnums: Any,
        weighting: Weighting = DERIVATIVE,
    ) -> None:
        if argnums is None:
            chosen = range(len(args))
        else:
            argnums = checks.check_argnums(argnums)
            chosen = checks.positions(argnums, args)
        self._args, self._argnums, self._weighting = args, argnums, weighting
        self.carried: dict[str, np.ndarray | None] = {}
        self.labels: list[tuple[str, Index]] = []
        self.sources: list[Source] = []
        self.equations: list[Equation] = []
        none = np.zeros(0, int)
        self._bundles: list[tuple[np.ndarray, ...]] = [(*(none,) * 4, none.astype(bool))]

        inputs = []
        paired = paired_leaves(args, weighting.reference)
        for (path, _), leaf in zip(tree_leaves_with_path(args), paired, strict=True):
            name, (value, other) = keystr(path), leaf.arrays()
            floating = jnp.issubdtype(value.dtype, jnp.floating)
            if floating and path[0].idx in chosen:
                source = Source(name, self._new_nodes(name, value.shape), value.dtype)
                self.sources.append(source)
                inputs.append(_Traced(value, source.nodes, other))
                carried = weighting.at_start(*self._runs(inputs[-1]))
                self.carried[name] = None if carried is None else np.asarray(carried, float)
            elif argnums is not None and path[0].idx in chosen:
                raise TypeError(
                    f"paths start from real floating point arrays; argument {name} has "
                    f"dtype {value.dtype}"
                )
            else:
                inputs.append(_constant(value, other))
        self.source_count: int = len(self.labels)

        closed, shapes = jax.make_jaxpr(fun, return_shape=True)(*args)
        outputs = self._run(closed, inputs)
        self.outputs: list[tuple[str, Index, int]] = [
            (keystr(path), index, int(output.nodes[index]))
            for (path, _), output in zip(tree_flatten_with_path(shapes)[0], outputs, strict=True)
            for index in np.ndindex(output.nodes.shape)
            if output.nodes[index] >= 0
        ]
        columns = [np.concatenate(column) for column in zip(*self._bundles, strict=True)]
        self.tails: np.ndarray
        self.heads: np.ndarray
        self.weights: np.ndarray
        self.equation_of: np.ndarray
        self.selected: np.ndarray
        self.tails, self.heads, self.weights, self.equation_of, self.selected = columns

    def like_arguments(self, values: Mapping[str, Any]) -> Any:
        """Arrange values, by the sources' names, like the arguments asked for; None elsewhere."""
        everything = jax.tree_util.tree_map_with_path(
            lambda path, _: values.get(keystr(path)), self._args
        )
        if self._argnums is None:
            return everything
        if isinstance(self._argnums, int):
            return everything[self._argnums]
        return tuple(everything[i] for i in self._argnums)

    def _runs(self, x: _Traced) -> list[Any]:
        return [x.value] if self._weighting.reference is None else [x.value, x.other]

    def _run(
        self, jaxpr: Any, inputs: Sequence[_Traced], within: Equation | None = None
    ) -> list[_Traced]:
        inner, constants = compat.open_jaxpr(jaxpr)
        environment = dict(zip(inner.constvars, map(_constant, constants), strict=True))
        environment.update(zip(inner.invars, inputs, strict=True))

        def read(atom: Any) -> _Traced:
            if isinstance(atom, compat.Literal):
                aval: Any = atom.aval
                return _constant(np.asarray(atom.val, aval.dtype))
            return environment[atom]

        scope, calls = (within.scope, within.calls) if within else ("", ())
        own_lines = not calls or not compat.is_internal_to_jax(inner)
        for eqn in inner.eqns:
            operands = [read(atom) for atom in eqn.invars]
            entered = [name for name, _ in of_modules(compat.scopes_entered(eqn))]
            equation = Equation(
                inputs=tuple(Variable(atom.aval.shape, atom.aval.dtype) for atom in eqn.invars),
                outputs=tuple(Variable(atom.aval.shape, atom.aval.dtype) for atom in eqn.outvars),
                module=Module("/".join(([scope] if scope else []) + entered)),
                active=tuple(p for p, x in enumerate(operands) if (x.nodes >= 0).any()),
                has_effects=False,
                eqn=eqn,
                calls=(eqn, *calls) if own_lines else calls,
            )
            environment.update(zip(eqn.outvars, self._step(equation, operands), strict=True))
        return [read(atom) for atom in inner.outvars]

    def _step(self, equation: Equation, inputs: list[_Traced]) -> Sequence[_Traced]:
        is_mapped = equation.primitive is compat.SHARD_MAP
        called = as_vmap(equation.eqn) if is_mapped else compat.called_jaxpr(equation.eqn)
        if called is not None:
            return self._run(called, inputs, equation)
        match equation.region:
            case ScanRegion() as region:
                return self._scan(region, equation, inputs)
            case CondRegion() as region:
                index, operands = region.operands(inputs)
                taken = min(max(int(index.value), 0), len(region.bodies) - 1)
                outputs = self._run(region.bodies[taken], operands, equation)
                return _by_itself(equation, inputs, outputs)
            case WhileRegion() as region:
                return self._while(region, equation, inputs)
        return self._node(equation, inputs)

    def _while(
        self, region: WhileRegion, equation: Equation, inputs: list[_Traced]
    ) -> Sequence[_Traced]:
        test_constants, constants, carry = region.operands(inputs)
        while True:
            known = [_constant(x.value) for x in (*test_constants, *carry)]
            if not self._run(region.test, known, equation)[0].value:
                return _by_itself(equation, inputs, carry)
            carry = self._run(region.bodies[0], [*constants, *carry], equation)

    def _scan(self, region: ScanRegion, equation: Equation, inputs: list[_Traced]) -> list[_Traced]:
        constants, carry, xs = region.operands(inputs)
        length, n_carry = region.length, len(carry)
        rows: list[list[_Traced]] = [[] for _ in range(length)]
        for i in reversed(range(length)) if region.reverse else range(length):
            row = [_row(x, i) for x in xs]
            outputs = self._run(region.bodies[0], [*constants, *carry, *row], equation)
            carry, rows[i] = outputs[:n_carry], outputs[n_carry:]
        if length == 0:
            ys = [_constant(jnp.zeros(y.shape, y.dtype)) for y in equation.outputs[n_carry:]]
        else:
            ys = [_stacked(column) for column in zip(*rows, strict=True)]
        return [*carry, *ys]

    def _node(self, equation: Equation, inputs: list[_Traced]) -> list[_Traced]:
        name = equation.name
        values = [x.value for x in inputs]
        results = equation.bind(*values)
        others = results
        if equation.primitive is not STOP_GRADIENT and _differ(inputs):
            others = equation.bind(*(x.other for x in inputs))
        outputs = [_constant(*pair) for pair in zip(results, others, strict=True)]
        if not equation.wrt or equation.primitive is STOP_GRADIENT:
            return outputs
        for value in results:
            if jnp.issubdtype(value.dtype, jnp.complexfloating):
                raise TypeError(
                    f"the equation {name!r} makes complex numbers of shape {value.shape}; paths "
                    "are enumerated through real arrays only. Put semijax.atomic around the part "
                    "of the function that is complex inside and real outside."
                )
        made = [k for k, value in enumerate(results) if jnp.issubdtype(value.dtype, jnp.floating)]
        if not made:
            return outputs
        pairs = max(results[k].size for k in made) * max(inputs[p].nodes.size for p in equation.wrt)
        if pairs > MAX_EDGES_PER_EQUATION:
            raise ValueError(
                f"the equation {name!r} may have {pairs} edges, more than the "
                f"{MAX_EDGES_PER_EQUATION} that are possible here. Enumeration is for small "
                "functions: make the arrays smaller."
            )
        nodes = {k: self._new_nodes(equation.name, results[k].shape) for k in made}
        if isinstance(self._weighting, Derivative):
            connected = _connected(equation, values, results, made)
            found = local_edges(equation, values, results, made, connected)
        else:
            runs = zip(*map(self._runs, inputs), strict=True)
            jacobian = self._weighting.jacobian(equation, *map(list, runs))
            found = edges_of(jacobian, equation, values)
        for (k, p), edges in found.items():
            o, i, weights, selected = edges
            tails, heads = inputs[p].nodes.ravel()[i], nodes[k].ravel()[o]
            live = tails >= 0
            numbers = np.full(len(o), len(self.equations))
            columns = tails, heads, weights, numbers, selected
            self._bundles.append(tuple(x[live] for x in columns))
            outputs[k].nodes.ravel()[o[live]] = heads[live]
        self.equations.append(equation)
        return outputs

    def _new_nodes(self, name: str, shape: Index) -> np.ndarray:
        first = len(self.labels)
        self.labels += [(name, index) for index in np.ndindex(shape)]
        return np.arange(first, len(self.labels)).reshape(shape)


def _connected(
    equation: Equation, values: Sequence[Any], results: Sequence[Any], made: Sequence[int]
) -> dict[tuple[int, int], np.ndarray] | None:
    """Return the pairs (o, i) that paths join inside a function that is one node, by (k, p).

    Inside an atomic function they are followed as written; where a function's derivative is its
    author's, in what pulls cotangents back. Return None for other equations, and where paths can't
    be followed: through complex numbers, or a callback.
    """
    try:
        if equation.is_atomic:
            inside = jax.extend.core.jaxpr_as_fun(equation.params["jaxpr"])
            joined = _reached(inside, values)
            return {(k, p): joined[k, p] for k in made for p in equation.wrt}
        if equation.primitive in CUSTOM_DERIVATIVE:
            point = [values[p] for p in equation.wrt]
            _, pull = jax.vjp(function_of(equation, values, equation.wrt, made), *point)
            joined = _reached(lambda *cts: pull([*cts]), [jnp.ones_like(results[k]) for k in made])
            places = list(enumerate(equation.wrt))
            return {(k, p): joined[m, n].T for n, k in enumerate(made) for m, p in places}
    except (NotImplementedError, TypeError, ValueError):
        pass
    return None


def _reached(fun: Callable[..., Any], args: Sequence[Any]) -> dict[tuple[int, int], np.ndarray]:
    """Return the pairs of elements that a path joins, by output and argument."""
    graph = UnrolledGraph(fun, tuple(args), None)
    reached = np.eye(len(graph.labels), graph.source_count, dtype=bool)
    for tail, head in zip(graph.tails, graph.heads, strict=True):
        reached[head] |= reached[tail]
    shapes = [jnp.shape(x) for x in jax.tree.leaves(jax.eval_shape(fun, *args))]
    sources = {source.name: source.nodes.ravel() for source in graph.sources}
    ends: dict[str, dict[Index, int]] = {}
    for name, index, node in graph.outputs:
        ends.setdefault(name, {})[index] = node
    joined = {}
    for k, shape in enumerate(shapes):
        found = ends.get(f"[{k}]", {})
        nothing = np.zeros(graph.source_count, bool)
        rows = [reached[found[i]] if i in found else nothing for i in np.ndindex(shape)]
        matrix = np.array(rows, bool).reshape(len(rows), graph.source_count)
        for p in range(len(args)):
            joined[k, p] = matrix[:, sources.get(f"[{p}]", np.zeros(0, int))]
    return joined


def _constant(value: Any, other: Any = None) -> _Traced:
    return _Traced(value, np.full(np.shape(value), -1), value if other is None else other)


def _differ(inputs: Sequence[_Traced]) -> bool:
    return any(x.other is not x.value for x in inputs)


def _by_itself(
    equation: Equation, inputs: Sequence[_Traced], outputs: Sequence[_Traced]
) -> list[_Traced]:
    """Return what was followed at the point, with the second run's own results."""
    if not _differ(inputs):
        return list(outputs)
    others = equation.bind(*(x.other for x in inputs))
    return [x._replace(other=other) for x, other in zip(outputs, others, strict=True)]


def _row(x: _Traced, i: int) -> _Traced:
    value = x.value[i]
    return _Traced(value, x.nodes[i], value if x.other is x.value else x.other[i])


def _stacked(column: Sequence[_Traced]) -> _Traced:
    value = jnp.stack([y.value for y in column])
    other = jnp.stack([y.other for y in column]) if _differ(column) else value
    return _Traced(value, np.stack([y.nodes for y in column]), other)
