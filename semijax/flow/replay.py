"""A function run again with some of its arrays changed, wherever they are made."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import source_info_util

from semijax import sweep
from semijax.trace.graph import Equation, Graph, Module, Variable, build, build_bodies
from semijax.trace.regions import (
    CondOperands,
    CondRegion,
    ScanOperands,
    ScanRegion,
    WhileOperands,
    WhileRegion,
)
from semijax.trace.scope_names import Given

Change = Callable[[int, tuple[Any, ...], jax.Array], jax.Array]
"""``change(number, iterations, value)``: what to go on with in place of a marked array's value.

The iterations are those of the scans that it lies in, from the outside in.
"""

Found = dict[int, jax.Array]
"""The values that marked arrays had, by number; with a first axis for each scan."""


def replay(
    graph: Graph, inputs: Sequence[Any], change: Change, iterations: tuple[Any, ...] = ()
) -> tuple[list[Any], Found]:
    """Run a graph; what it returns, and what its marked arrays were before they were changed."""
    values: dict[Variable, Any] = {**graph.constants}
    found: Found = {}

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
            operands = sweep.read(values, equation.inputs)
            if equation.marks:
                results, inside = _region(equation, operands, change, iterations)
                found |= inside
            else:
                with source_info_util.user_context(equation.eqn.source_info.traceback):
                    results = equation.bind(*operands)
            for variable, value in zip(equation.outputs, results, strict=True):
                define(variable, value)
    return sweep.read(values, graph.outputs), found


class _Scopes:
    """The scopes of the equations that run, so that who traces them finds the modules again."""

    def __init__(self, outside: Module) -> None:
        self._outside = len(outside.enclosing)
        self._entered: list[tuple[Module, Any]] = []

    def __enter__(self) -> _Scopes:
        return self

    def __exit__(self, *error: Any) -> None:
        self._leave(0)

    def enter(self, module: Module) -> None:
        """Be in this use of a module: leave and enter what that takes."""
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


def _region(equation: Equation, operands: Sequence[Any], change: Change, iterations: Any) -> Any:
    region, bodies = equation.region, build_bodies(equation)
    if isinstance(region, ScanRegion):
        return _scan(region, bodies[0], region.operands(operands), change, iterations)
    if isinstance(region, CondRegion):
        return _cond(region, bodies, region.operands(operands), change, iterations)
    assert isinstance(region, WhileRegion)
    test = build(region.test, within=equation)
    return _while(test, bodies[0], region.operands(operands), change, iterations)


def _scan(
    region: ScanRegion, body: Graph, operands: ScanOperands, change: Change, iterations: Any
) -> Any:
    consts, carry, xs = operands

    def step(carry: Any, x: Any) -> Any:
        number, x = x
        results, found = replay(body, [*consts, *carry, *x], change, (*iterations, number))
        return results[: len(carry)], (results[len(carry) :], found)

    numbered = jnp.arange(region.length), list(xs)
    carry, (ys, found) = region.run(step, list(carry), numbered)
    return [*carry, *ys], found


def _cond(
    region: CondRegion,
    branches: Sequence[Graph],
    operands: CondOperands,
    change: Change,
    iterations: Any,
) -> Any:
    index, inputs = operands
    shapes: dict[int, Any] = {}
    for branch in branches:
        shapes |= jax.eval_shape(lambda *x, b=branch: replay(b, x, change, iterations), *inputs)[1]

    def run(branch: Graph, *inputs: Any) -> Any:
        results, found = replay(branch, inputs, change, iterations)
        rest = {n: jnp.zeros(s.shape, s.dtype) for n, s in shapes.items() if n not in found}
        return results, found | rest

    return region.switch(index, [functools.partial(run, branch) for branch in branches], *inputs)


def _while(
    test: Graph, body: Graph, operands: WhileOperands, change: Change, iterations: Any
) -> Any:
    test_consts, body_consts, carry = operands

    def again(carry: Any) -> Any:
        return sweep.output_values(test, sweep.evaluate(test, [*test_consts, *carry]))[0]

    def step(carry: Any) -> Any:
        # How many values an array has in there is known only when the loop has run: none is kept.
        return replay(body, [*body_consts, *carry], change, iterations)[0]

    return lax.while_loop(again, step, list(carry)), {}
