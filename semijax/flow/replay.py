"""A function run again with some of its arrays changed, wherever they are made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import source_info_util

from semijax.evaluation import read
from semijax.sites.program import Program
from semijax.trace.graph import Equation, Graph, Module, Variable, build_bodies, build_test
from semijax.trace.regions import Found
from semijax.trace.scope_names import Given

Change = Callable[[int, tuple[Any, ...], jax.Array], jax.Array]
"""A function, ``change(number, iterations, value)``, that replaces a marked array's value.

The iterations are those of the scans that it lies in, from the outside in.
"""


def replay(
    graph: Graph, inputs: Sequence[Any], change: Change, iterations: tuple[Any, ...] = ()
) -> tuple[list[Any], Found]:
    """Run a graph; return its outputs, and its marked arrays as they were before the change.

    The latter are by number, with a first axis for each scan they lie in.
    """
    values: dict[Variable, Any] = {**graph.constants}
    found: dict[int, jax.Array] = {}

    def define(variable: Variable, value: Any) -> None:
        for number in graph.marked.get(variable, ()):
            found[number] = jnp.asarray(value)
            value = change(number, iterations, jnp.asarray(value))
        values[variable] = value

    for variable, value in zip(graph.inputs, inputs, strict=True):
        define(variable, value)
    with _Scopes(graph.module) as scopes:
        for equation in graph.equations:
            scopes.enter(equation.module)
            operands = read(values, equation.inputs)
            if equation.marks:
                results, inside = _region(equation, operands, change, iterations)
                found |= inside
            else:
                with source_info_util.user_context(equation.eqn.source_info.traceback):
                    results = equation.bind(*operands)
            for variable, value in zip(equation.outputs, results, strict=True):
                define(variable, value)
    return read(values, graph.outputs), found


def run_changed(call: Program, graph: Graph, change: Change) -> Any:
    """Run a call with its marked arrays changed."""
    outputs, _ = replay(graph, call.leaves, change)
    tree = jax.tree.structure(call.out_shapes)
    return jax.tree.unflatten(tree, [jnp.asarray(output) for output in outputs])


class _Scopes:
    """The scopes of the equations that run, so that a trace of them finds the modules again."""

    def __init__(self, outside: Module) -> None:
        self._outside = len(outside.enclosing)
        self._entered: list[tuple[Module, Any]] = []

    def __enter__(self) -> _Scopes:
        return self

    def __exit__(self, *error: Any) -> None:
        self._leave(0)

    def enter(self, module: Module) -> None:
        """Enter this use of a module, leaving and entering what that takes."""
        wanted = module.enclosing[self._outside :]
        both = zip(self._entered, wanted, strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0][0] is pair[1], both))
        self._leave(common)
        for inner in wanted[common:]:
            scope = jax.named_scope(Given(inner.scope.rpartition("/")[2]))
            scope.__enter__()
            self._entered.append((inner, scope))

    def _leave(self, kept: int) -> None:
        while len(self._entered) > kept:
            self._entered.pop()[1].__exit__(None, None, None)


def _region(
    equation: Equation, operands: Sequence[Any], change: Change, iterations: tuple[Any, ...]
) -> tuple[list[Any], Found]:
    """Run a region, whose bodies are run again in the same way."""
    assert equation.region is not None
    graphs: dict[int | None, Graph] = dict(enumerate(build_bodies(equation, active=False)))

    def run(body: int | None, inputs: Sequence[Any], iteration: Any) -> tuple[list[Any], Found]:
        graph = build_test(equation) if body is None else graphs[body]
        inner = iterations if iteration is None else (*iterations, iteration)
        return replay(graph, inputs, change, inner)

    return equation.region.interpret(run, operands)
