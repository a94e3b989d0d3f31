"""Control flow: an equation whose edges are a graph of their own.

The Jacobian of a region is the sweep through its body: over the iterations of a ``scan``, the
branch of a ``cond`` that was taken, the iterations of a ``while`` (forward only).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jax
from jax import lax

from semijax import elements as el
from semijax import sweep
from semijax.elements import Elements
from semijax.jacobians.base import Collector, EquationJacobian, rule_for
from semijax.semirings.base import Semiring
from semijax.trace.graph import Equation, Graph, Variable, build, build_bodies, build_body
from semijax.trace.regions import CondRegion, ScanRegion, WhileRegion


def _cast(semiring: Semiring, variable: Variable, elements: Elements | None) -> Elements:
    zero = sweep.zero(semiring, variable)
    return zero if elements is None else el.cast_like(elements, zero)


def _placed(n: int, places: Sequence[int], elements: Sequence[Elements]) -> list[Elements | None]:
    """``n`` elements: these at their places, 0̄ elsewhere."""
    found = dict(zip(places, elements, strict=True))
    return [found.get(i) for i in range(n)]


def _loop_body(equation: Equation, active: Sequence[bool]) -> Graph:
    """The graph of a loop's body; what one iteration makes active is active in the next."""
    assert equation.region is not None
    first, carries = equation.region.carried
    while True:
        body = build_body(equation, 0, active)
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
    region: ScanRegion
    body: Graph
    values: tuple[Any, ...]

    kind = "scan"

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        found, _ = self._backward(semiring, cotangents)
        return {i: e for i, e in found.items() if i in self.equation.wrt}

    def push(
        self, semiring: Semiring, tangents: Mapping[int, Elements]
    ) -> Sequence[Elements | None]:
        found, _ = self._forward(semiring, tangents)
        return found

    def inside(
        self,
        semiring: Semiring,
        tangents: Mapping[int, Elements],
        cotangents: Sequence[Elements | None],
        collect: Collector,
    ) -> dict[Any, Elements]:
        consts, _, xs = self.region.operands(self.values)
        c, k = self.region.carried
        starts = self._starts()
        _, to_carry = self._backward(semiring, cotangents, keep=True)
        from_carry = self._forward(semiring, tangents, keep=True)[1] if tangents else None
        from_consts = [tangents.get(i) for i in range(c)]
        from_xs = [tangents.get(c + k + i) for i in range(len(xs))]

        def step(_: None, x: Any) -> tuple[None, dict[Any, Elements]]:
            start, x, from_x, moving, arrived, to_ys = x
            values = sweep.evaluate(self.body, [*consts, *start, *x])
            moved = [None] * k if moving is None else _placed(k, self._live_carry, moving)
            departed = _placed(k, self._live_carry, arrived)
            elements = [*from_consts, *moved, *from_x], [*departed, *to_ys]
            return None, collect(self.body, semiring, values, *elements)

        to_ys = list(cotangents[k:])
        _, found = self.region.run(step, None, (starts, xs, from_xs, from_carry, to_carry, to_ys))
        return found

    @property
    def _live_carry(self) -> list[int]:
        """Which carried values paths lead through."""
        carry = self.region.operands(self.body.inputs).carry
        return [j for j, v in enumerate(carry) if v in self.body.active]

    def _starts(self) -> list[Any]:
        """What every iteration started from."""
        consts, carry, xs = self.region.operands(self.values)

        def keep(carry: Any, x: Any) -> tuple[Any, Any]:
            values = sweep.evaluate(self.body, [*consts, *carry, *x])
            return sweep.output_values(self.body, values)[: len(carry)], carry

        return self.region.run(keep, list(carry), list(xs))[1]

    def _backward(
        self, semiring: Semiring, cotangents: Sequence[Elements | None], keep: bool = False
    ) -> tuple[dict[int, Elements], list[Elements] | None]:
        """The elements of every input, and those at the end of every iteration if they are kept."""
        consts, _, xs = self.region.operands(self.values)
        c, k = self.region.carried
        inputs, live_carry = self.body.inputs, self._live_carry
        live = [v in self.body.active for v in inputs]

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
            state = to_consts, [full[c + j] for j in live_carry]
            return state, (full[c + k :], to_carry if keep else None)

        to_consts = [sweep.zero(semiring, v) for v, a in zip(inputs[:c], live, strict=False) if a]
        to_carry = [_cast(semiring, inputs[c + j], cotangents[j]) for j in live_carry]
        scanned = (self._starts(), list(xs), list(cotangents[k:]))
        (to_consts, to_carry), (to_xs, kept) = self.region.run(
            step, (to_consts, to_carry), scanned, against=True
        )
        positions = [i for i in range(c) if live[i]] + [c + j for j in live_carry]
        pulled = dict(zip(positions, [*to_consts, *to_carry], strict=True))
        pulled.update({c + k + i: e for i, e in enumerate(to_xs) if e is not None})
        return pulled, kept

    def _forward(
        self, semiring: Semiring, tangents: Mapping[int, Elements], keep: bool = False
    ) -> tuple[list[Elements | None], list[Elements] | None]:
        """The elements of every output, and those every iteration starts with if they are kept."""
        consts, carry, xs = self.region.operands(self.values)
        c, k = self.region.carried
        inputs, outputs, live_carry = self.body.inputs, self.body.outputs, self._live_carry
        ys = [isinstance(v, Variable) and v in self.body.active for v in outputs[k:]]
        from_consts = [tangents.get(i) for i in range(c)]
        from_carry = [_cast(semiring, inputs[c + j], tangents.get(c + j)) for j in live_carry]
        from_xs = [tangents.get(c + k + i) for i in range(len(xs))]

        def step(state: Any, x: Any) -> tuple[Any, Any]:
            carry, start = state
            x, from_x = x
            values = sweep.evaluate(self.body, [*consts, *carry, *x])
            arriving = _placed(k, live_carry, start)
            pushed = sweep.push(self.body, semiring, values, [*from_consts, *arriving, *from_x])
            end = [_cast(semiring, inputs[c + j], pushed[j]) for j in live_carry]
            to_ys = [
                _cast(semiring, v, e)
                for v, e, a in zip(outputs[k:], pushed[k:], ys, strict=True)
                if a and isinstance(v, Variable)
            ]
            state = sweep.output_values(self.body, values)[:k], end
            return state, (to_ys, start if keep else None)

        (_, to_carry), (to_ys, kept) = self.region.run(
            step, (list(carry), from_carry), (list(xs), from_xs)
        )
        pushed: list[Elements | None] = [None] * len(outputs)
        for j, element in zip(live_carry, to_carry, strict=True):
            pushed[j] = element
        for i, element in zip([i for i, a in enumerate(ys) if a], to_ys, strict=True):
            pushed[k + i] = element
        return pushed, kept


@rule_for("scan")
def scan_jacobian(equation: Equation, *values: Any) -> EquationJacobian:
    """The paths through all iterations."""
    assert isinstance(equation.region, ScanRegion)
    active = [i in equation.wrt for i in range(len(values))]
    return Scan(equation, equation.region, _loop_body(equation, active), values)


@dataclasses.dataclass(frozen=True)
class Cond(EquationJacobian):
    """The paths through the branch that was taken."""

    equation: Equation
    region: CondRegion
    branches: tuple[Graph, ...]
    values: tuple[Any, ...]

    kind = "cond"

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return self.branches

    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        index, operands = self.region.operands(self.values)
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
        index, operands = self.region.operands(self.values)
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

    def inside(
        self,
        semiring: Semiring,
        tangents: Mapping[int, Elements],
        cotangents: Sequence[Elements | None],
        collect: Collector,
    ) -> dict[Any, Elements]:
        index, operands = self.region.operands(self.values)

        def collect_in(branch: Graph, elements: Any) -> dict[Any, Elements]:
            return collect(branch, semiring, sweep.evaluate(branch, operands), *elements)

        elements = [tangents.get(i + 1) for i in range(len(operands))], list(cotangents)
        expected: dict[Any, Elements] = {}
        for branch in self.branches:
            expected |= jax.eval_shape(functools.partial(collect_in, branch), elements)

        def filled(branch: Graph, elements: Any) -> list[Elements]:
            found = collect_in(branch, elements)
            return [
                found[key] if key in found else semiring.zero(semiring.shape(e), semiring.dtype(e))
                for key, e in expected.items()
            ]

        return dict(zip(expected, self._switch(index, filled, elements), strict=True))

    def _switch(self, index: Any, function: Any, elements: Any) -> Any:
        branches = [functools.partial(function, branch) for branch in self.branches]
        return self.region.switch(index, branches, elements)


@rule_for("cond")
def cond_jacobian(equation: Equation, *values: Any) -> EquationJacobian:
    """The paths through the branch that was taken."""
    assert isinstance(equation.region, CondRegion)
    active = [i in equation.wrt for i in range(1, len(values))]
    return Cond(equation, equation.region, build_bodies(equation, active), values)


@dataclasses.dataclass(frozen=True)
class While(EquationJacobian):
    """The paths through the iterations of a loop whose length is known only when it has run."""

    equation: Equation
    region: WhileRegion
    test: Graph
    body: Graph
    values: tuple[Any, ...]

    kind = "while"

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        self._refuse()

    def inside(
        self,
        semiring: Semiring,
        tangents: Mapping[int, Elements],
        cotangents: Sequence[Elements | None],
        collect: Collector,
    ) -> dict[Any, Elements]:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            "The reverse sweep does not work for lax.while_loop or lax.fori_loop with dynamic "
            f"start/stop values, {self.equation.where()}. Try lax.scan, or fori_loop with static "
            "start/stop; or use semijax.semiring_jvp, whose forward sweep runs along with the loop."
        )

    def push(
        self, semiring: Semiring, tangents: Mapping[int, Elements]
    ) -> Sequence[Elements | None]:
        t, (b, _) = self.region.test_consts, self.region.carried
        test_consts, body_consts, start = self.region.operands(self.values)
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
        _, moving = lax.while_loop(again, step, (list(start), moving))
        pushed: list[Elements | None] = [None] * len(carries)
        for j, element in zip(live, moving, strict=True):
            pushed[j] = element
        return pushed


@rule_for("while")
def while_jacobian(equation: Equation, *values: Any) -> EquationJacobian:
    """The paths through all iterations, forward only."""
    region = equation.region
    assert isinstance(region, WhileRegion)
    active = [i in equation.wrt for i in range(region.test_consts, len(values))]
    test = build(region.test, within=equation)
    return While(equation, region, test, _loop_body(equation, active), values)
