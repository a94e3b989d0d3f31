"""Control flow: an equation whose edges are a graph of their own.

The Jacobian of a region is the sweep through its body: over the iterations of a ``scan``, the
branch of a ``cond`` that was taken, the iterations of a ``while`` (forward only).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from semijax import _compat, sweep
from semijax import elements as el
from semijax.elements import Elements
from semijax.graph import Equation, Graph, Variable, build
from semijax.jacobians.base import EquationJacobian, rule_for
from semijax.semirings.base import Semiring


def _cast(semiring: Semiring, variable: Variable, elements: Elements | None) -> Elements:
    zero = sweep.zero(semiring, variable)
    return zero if elements is None else el.cast_like(elements, zero)


def _placed(n: int, places: Sequence[int], elements: Sequence[Elements]) -> list[Elements | None]:
    """``n`` elements: these at their places, 0̄ elsewhere."""
    found = dict(zip(places, elements, strict=True))
    return [found.get(i) for i in range(n)]


def _loop_body(
    closed: Any, equation: Equation, active: Sequence[bool], first: int, carries: int
) -> Graph:
    """The graph of a loop's body; what one iteration makes active is active in the next.

    The carried values are its inputs from ``first`` on, and its first outputs.
    """
    while True:
        body = build(closed, within=equation, active=active)
        grown = list(active)
        for j, v in enumerate(body.outputs[:carries]):
            grown[first + j] |= isinstance(v, Variable) and v in body.active
        if grown == list(active):
            return body
        active = grown


@dataclasses.dataclass(frozen=True)
class Scan(EquationJacobian):
    """The paths through all iterations; the same as those through the unrolled loop.

    The reverse sweep keeps what every iteration started from and evaluates its body again.
    """

    equation: Equation
    body: Graph
    values: tuple[Any, ...]
    consts: int
    carries: int

    kind = "scan"

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        consts, carry, xs = self._parts(self.values)
        c, k = self.consts, self.carries
        live = [v in self.body.active for v in self.body.inputs]
        inputs = self.body.inputs
        live_carry = [j for j in range(k) if live[c + j]]

        def keep(carry: Any, x: Any) -> tuple[Any, Any]:
            values = sweep.evaluate(self.body, [*consts, *carry, *x])
            return sweep.output_values(self.body, values)[:k], carry

        reverse, length = self.equation.params["reverse"], self.equation.params["length"]
        _, starts = lax.scan(keep, carry, xs, length, reverse)

        def step(state: Any, x: Any) -> tuple[Any, Any]:
            to_consts, to_carry = state
            start, x, to_ys = x
            values = sweep.evaluate(self.body, [*consts, *start, *x])
            arrived = _placed(k, live_carry, to_carry)
            pulled = sweep.pull(self.body, semiring, values, [*arrived, *to_ys])
            full = [
                _cast(semiring, v, e) if a else None
                for v, e, a in zip(inputs, pulled, live, strict=True)
            ]
            more = [e for e in full[:c] if e is not None]
            to_consts = [semiring.add(a, b) for a, b in zip(to_consts, more, strict=True)]
            return (to_consts, [full[c + j] for j in live_carry]), full[c + k :]

        to_consts = [sweep.zero(semiring, v) for v, a in zip(inputs[:c], live, strict=False) if a]
        to_carry = [_cast(semiring, inputs[c + j], cotangents[j]) for j in live_carry]
        scanned = (starts, xs, list(cotangents[k:]))
        (to_consts, to_carry), to_xs = lax.scan(
            step, (to_consts, to_carry), scanned, length, not reverse
        )
        positions = [i for i in range(c) if live[i]] + [c + j for j in live_carry]
        pulled = dict(zip(positions, [*to_consts, *to_carry], strict=True))
        pulled.update({c + k + i: e for i, e in enumerate(to_xs) if e is not None})
        return {i: e for i, e in pulled.items() if i in self.equation.wrt}

    def push(
        self, semiring: Semiring, tangents: Mapping[int, Elements]
    ) -> Sequence[Elements | None]:
        consts, carry, xs = self._parts(self.values)
        c, k = self.consts, self.carries
        inputs, outputs = self.body.inputs, self.body.outputs
        live = [v in self.body.active for v in inputs]
        live_carry = [j for j in range(k) if live[c + j]]
        ys = [isinstance(v, Variable) and v in self.body.active for v in outputs[k:]]
        from_consts = [tangents.get(i) for i in range(c)]
        from_carry = [_cast(semiring, inputs[c + j], tangents.get(c + j)) for j in live_carry]
        from_xs = [tangents.get(c + k + i) for i in range(len(xs))]

        def step(state: Any, x: Any) -> tuple[Any, Any]:
            carry, moving = state
            x, from_x = x
            values = sweep.evaluate(self.body, [*consts, *carry, *x])
            arriving = _placed(k, live_carry, moving)
            pushed = sweep.push(self.body, semiring, values, [*from_consts, *arriving, *from_x])
            moving = [_cast(semiring, inputs[c + j], pushed[j]) for j in live_carry]
            to_ys = [
                _cast(semiring, v, e)
                for v, e, a in zip(outputs[k:], pushed[k:], ys, strict=True)
                if a and isinstance(v, Variable)
            ]
            return (sweep.output_values(self.body, values)[:k], moving), to_ys

        params = self.equation.params
        (_, to_carry), to_ys = lax.scan(
            step, (carry, from_carry), (xs, from_xs), params["length"], params["reverse"]
        )
        pushed: list[Elements | None] = [None] * len(outputs)
        for j, element in zip(live_carry, to_carry, strict=True):
            pushed[j] = element
        for i, element in zip([i for i, a in enumerate(ys) if a], to_ys, strict=True):
            pushed[k + i] = element
        return pushed

    def _parts(self, values: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        c, k = self.consts, self.carries
        return list(values[:c]), list(values[c : c + k]), list(values[c + k :])


@rule_for("scan")
def scan_jacobian(equation: Equation, *values: Any) -> EquationJacobian:
    """The paths through all iterations."""
    consts, carries = _compat.scan_layout(equation.params)
    active = [i in equation.wrt for i in range(len(values))]
    body = _loop_body(equation.params["jaxpr"], equation, active, consts, carries)
    return Scan(equation, body, values, consts, carries)


@dataclasses.dataclass(frozen=True)
class Cond(EquationJacobian):
    """The paths through the branch that was taken."""

    equation: Equation
    branches: tuple[Graph, ...]
    values: tuple[Any, ...]

    kind = "cond"

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return self.branches

    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        index, *operands = self.values
        variables = [self.equation.inputs[i] for i in self.equation.wrt]

        def pull_branch(branch: Graph, cotangents: Any) -> list[Elements]:
            values = sweep.evaluate(branch, operands)
            pulled = sweep.pull(branch, semiring, values, cotangents)
            return [
                _cast(semiring, v, pulled[i - 1])
                for i, v in zip(self.equation.wrt, variables, strict=True)
                if isinstance(v, Variable)
            ]

        pulled = self._switch(index, pull_branch, list(cotangents))
        return dict(zip(self.equation.wrt, pulled, strict=True))

    def push(
        self, semiring: Semiring, tangents: Mapping[int, Elements]
    ) -> Sequence[Elements | None]:
        index, *operands = self.values
        live = [v.differentiable for v in self.equation.outputs]

        def push_branch(branch: Graph, tangents: Any) -> list[Elements]:
            values = sweep.evaluate(branch, operands)
            pushed = sweep.push(branch, semiring, values, tangents)
            return [
                _cast(semiring, v, e)
                for v, e, a in zip(self.equation.outputs, pushed, live, strict=True)
                if a
            ]

        arriving = [tangents.get(i + 1) for i in range(len(operands))]
        pushed = iter(self._switch(index, push_branch, arriving))
        return [next(pushed) if a else None for a in live]

    def _switch(self, index: Any, function: Any, elements: Any) -> Any:
        # cond_p's index was clamped where it was traced.
        def bound(branch: Graph) -> Any:
            return lambda elements: function(branch, elements)

        branches = [bound(branch) for branch in self.branches]
        return lax.switch(jnp.asarray(index, jnp.int32), branches, elements)


@rule_for("cond")
def cond_jacobian(equation: Equation, *values: Any) -> EquationJacobian:
    """The paths through the branch that was taken."""
    active = [i in equation.wrt for i in range(1, len(values))]
    branches = tuple(
        build(branch, within=equation, active=active) for branch in equation.params["branches"]
    )
    return Cond(equation, branches, values)


@dataclasses.dataclass(frozen=True)
class While(EquationJacobian):
    """The paths through the iterations of a loop whose length is known only when it has run."""

    equation: Equation
    test: Graph
    body: Graph
    values: tuple[Any, ...]
    test_consts: int
    body_consts: int

    kind = "while"

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        raise ValueError(
            "The reverse sweep does not work for lax.while_loop or lax.fori_loop with dynamic "
            f"start/stop values, {self.equation.where()}. Try lax.scan, or fori_loop with static "
            "start/stop; or use semijax.semiring_jvp, whose forward sweep runs along with the loop."
        )

    def push(
        self, semiring: Semiring, tangents: Mapping[int, Elements]
    ) -> Sequence[Elements | None]:
        t, b = self.test_consts, self.body_consts
        test_consts, body_consts = self.values[:t], self.values[t : t + b]
        carries = self.body.inputs[b:]
        live = [j for j, v in enumerate(carries) if v in self.body.active]
        from_consts = [tangents.get(t + i) for i in range(b)]

        def run(graph: Graph, *inputs: Any) -> list[Any]:
            return sweep.output_values(graph, sweep.evaluate(graph, inputs))

        def again(state: Any) -> Any:
            return run(self.test, *test_consts, *state[0])[0]

        def step(state: Any) -> Any:
            carry, moving = state
            values = sweep.evaluate(self.body, [*body_consts, *carry])
            arriving = _placed(len(carries), live, moving)
            pushed = sweep.push(self.body, semiring, values, [*from_consts, *arriving])
            moving = [_cast(semiring, carries[j], pushed[j]) for j in live]
            return sweep.output_values(self.body, values), moving

        moving = [_cast(semiring, carries[j], tangents.get(t + b + j)) for j in live]
        _, moving = lax.while_loop(again, step, (list(self.values[t + b :]), moving))
        pushed: list[Elements | None] = [None] * len(carries)
        for j, element in zip(live, moving, strict=True):
            pushed[j] = element
        return pushed


@rule_for("while")
def while_jacobian(equation: Equation, *values: Any) -> EquationJacobian:
    """The paths through all iterations, forward only."""
    params = equation.params
    t, b = params["cond_nconsts"], params["body_nconsts"]
    active = [i in equation.wrt for i in range(t, len(values))]
    body = _loop_body(params["body_jaxpr"], equation, active, b, len(equation.outputs))
    test = build(params["cond_jaxpr"], within=equation)
    return While(equation, test, body, values, t, b)
