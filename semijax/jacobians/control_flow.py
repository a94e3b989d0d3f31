"""Control flow: an equation whose edges are a graph of their own.

The Jacobian of a region is the sweep through its body: over the iterations of a ``scan``, the
branch of a ``cond`` that was taken, the iterations of a ``while`` (forward only). A sweep follows
only those carried values at which something arrives; what leads nowhere is no obstacle.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
from jax import lax

from semijax import elements as el
from semijax import sweep
from semijax.elements import Elements
from semijax.evaluation import Evaluation, Runs, evaluate, output_values
from semijax.jacobians.base import Collector, EquationJacobian, rule_for
from semijax.semirings.base import Semiring
from semijax.trace import compat
from semijax.trace.graph import Equation, Graph, Variable, build_bodies, build_body, build_test
from semijax.trace.regions import CondRegion, ScanRegion, WhileRegion


def _cast(semiring: Semiring, variable: Variable, elements: Elements | None) -> Elements:
    zero = sweep.zero(semiring, variable)
    return zero if elements is None else el.cast_like(elements, zero)


def _placed(n: int, places: Sequence[int], elements: Sequence[Elements]) -> list[Elements | None]:
    """Return ``n`` elements: these at their places, 0̄ elsewhere."""
    found = dict(zip(places, elements, strict=True))
    return [found.get(i) for i in range(n)]


def _loop_body(equation: Equation, active: Sequence[bool]) -> Graph:
    """Build the graph of a loop's body; what one iteration makes active is active in the next."""
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


def region_bodies(equation: Equation) -> tuple[Graph, ...]:
    """Build the graphs of a region's bodies; paths enter them where they enter the equation."""
    assert equation.region is not None
    n = len(compat.open_jaxpr(equation.bodies[0])[0].invars)
    operands = range(len(equation.inputs))[len(equation.inputs) - n :]
    active = [i in equation.wrt for i in operands]
    if equation.region.is_loop:
        return (_loop_body(equation, active),)
    return build_bodies(equation, active)


def equations_within(graph: Graph) -> Iterator[Equation]:
    """Yield all equations, including those inside regions that paths lead through."""
    for equation in graph.equations:
        yield equation
        if equation.region is not None and equation.is_on_a_path:
            for body in region_bodies(equation):
                yield from equations_within(body)


def _leading(cotangents: Sequence[Elements | None]) -> frozenset[int]:
    """Return the positions of the outputs at which anything arrives."""
    return frozenset(o for o, e in enumerate(cotangents) if e is not None)


def _carries_behind(equation: Equation, body: Graph, arrived: Collection[int]) -> list[int]:
    """Find the carried values of a loop that lead to its outputs at some positions."""
    first, carries = equation.region.carried if equation.region else (0, 0)
    found = {j for j in range(carries) if j in arrived}
    while True:
        outputs = found | {o for o in arrived if o >= carries}
        behind = {i - first for o in outputs for i in body.sources[o]}
        grown = found | {j for j in behind if 0 <= j < carries}
        if grown == found:
            return [j for j in sorted(found) if body.inputs[first + j] in body.active]
        found = grown


def _carries_ahead(equation: Equation, body: Graph, departed: Collection[int]) -> list[int]:
    """Find the carried values that a loop body's inputs at some positions, or starts, lead to."""
    first, carries = equation.region.carried if equation.region else (0, 0)
    found = {*departed, *(first + j for j in range(carries) if body.is_fed(j))}
    while True:
        ahead = {first + j for j in range(carries) if not body.sources[j].isdisjoint(found)}
        if ahead <= found:
            carried = range(first, first + carries)
            return [i - first for i in carried if i in found and body.inputs[i] in body.active]
        found |= ahead


@dataclasses.dataclass(frozen=True)
class Scan(EquationJacobian):
    """The paths through all iterations, the same as those through the unrolled loop.

    The reverse sweep keeps what every iteration started from and evaluates its body again.
    """

    equation: Equation
    region: ScanRegion
    body: Graph
    runs: Runs

    kind = "scan"

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        behind = _carries_behind(self.equation, self.body, _leading(cotangents))
        found, _ = self._backward(semiring, cotangents, behind)
        return {i: e for i, e in found.items() if i in self.equation.wrt}

    def push(
        self, semiring: Semiring, tangents: Mapping[int, Elements]
    ) -> Sequence[Elements | None]:
        ahead = _carries_ahead(self.equation, self.body, tangents)
        return self._forward(semiring, tangents, ahead)[0]

    def inside(
        self,
        semiring: Semiring,
        tangents: Mapping[int, Elements] | None,
        cotangents: Sequence[Elements | None],
        collect: Collector,
    ) -> dict[Any, Elements]:
        c, k = self.region.carried
        behind = _carries_behind(self.equation, self.body, _leading(cotangents))
        _, to_carry = self._backward(semiring, cotangents, behind, keep=True)
        reached = tangents is not None and (tangents or self.equation.starts_inside)
        tangents = tangents or {}
        ahead = _carries_ahead(self.equation, self.body, tangents) if reached else []
        from_carry = self._forward(semiring, tangents, ahead, keep=True)[1] if reached else []
        from_consts = [tangents.get(i) for i in range(c)]
        from_xs = [tangents.get(i) for i in range(c + k, len(self.equation.inputs))]

        def step(_: None, x: Any) -> tuple[None, dict[Any, Elements]]:
            start, row, from_x, moving, arrived, to_ys = x
            at = self._evaluate(start, row)
            moved = _placed(k, ahead, moving)
            departed = _placed(k, behind, arrived)
            elements = [*from_consts, *moved, *from_x], [*departed, *to_ys]
            return None, collect(self.body, semiring, at, *elements)

        to_ys = list(cotangents[k:])
        rows = (self._starts(), self._rows(), from_xs, from_carry, to_carry, to_ys)
        return self.region.run(step, None, rows)[1]

    def _carry(self) -> list[list[Any]]:
        """Return what the first iteration starts from, in each run."""
        return [list(self.region.operands(own).carry) for own in self.runs.inputs]

    def _rows(self) -> Any:
        """Return what the iterations read in turn; for later runs, only what differs."""
        first, *others = (self.region.operands(own).xs for own in self.runs.inputs)
        differing = [
            {n: x for n, (x, same) in enumerate(zip(own, first, strict=True)) if x is not same}
            for own in others
        ]
        return list(first), differing, list(self.runs.seen)

    def _evaluate(self, start: Any, row: Any) -> Evaluation:
        """Evaluate one iteration in each run, given what it starts from and what it reads."""
        first, differing, seen = row
        xs = [first, *([own.get(n, x) for n, x in enumerate(first)] for own in differing)]
        consts = (self.region.operands(own).consts for own in self.runs.inputs)
        inputs = [[*c, *s, *x] for c, s, x in zip(consts, start, xs, strict=True)]
        return evaluate(self.body, self.runs.again(inputs, seen))

    def _starts(self) -> list[Any]:
        """Return what every iteration started from, in each run."""
        known = [own for own in self.runs.starts if own is not None]
        if known and len(known) == len(self.runs.inputs):
            return [list(own) for own in known]
        ends = self.body.outputs[: self.region.carried[1]]

        def keep(start: Any, row: Any) -> tuple[Any, Any]:
            return self._evaluate(start, row).read(ends), start

        return self.region.run(keep, self._carry(), self._rows())[1]

    def _backward(
        self,
        semiring: Semiring,
        cotangents: Sequence[Elements | None],
        behind: Sequence[int],
        *,
        keep: bool = False,
    ) -> tuple[dict[int, Elements], list[Elements]]:
        """Compute the inputs' elements, and those at the end of every iteration if they are kept.

        Args:
            semiring: the statistic.
            cotangents: those of the outputs.
            behind: the carried values at which any arrive.
            keep: whether to keep those of every iteration.
        """
        c, k = self.region.carried
        inputs, outputs = self.body.inputs, [*behind, *(o for o in _leading(cotangents) if o >= k)]
        reached = frozenset[int]().union(*(self.body.sources[o] for o in outputs))
        live = [v in self.body.active and i in reached for i, v in enumerate(inputs)]

        def step(state: Any, x: Any) -> tuple[Any, Any]:
            to_consts, to_carry = state
            start, row, to_ys = x
            arrived = _placed(k, behind, to_carry)
            at = self._evaluate(start, row)
            pulled = sweep.pull(self.body, semiring, at, [*arrived, *to_ys])
            full = [
                _cast(semiring, v, e) if a else None
                for v, e, a in zip(inputs, pulled, live, strict=True)
            ]
            more = [e for e in full[:c] if e is not None]
            to_consts = [semiring.add(a, b) for a, b in zip(to_consts, more, strict=True)]
            state = to_consts, [_cast(semiring, inputs[c + j], full[c + j]) for j in behind]
            return state, (full[c + k :], to_carry if keep else [])

        to_consts = [sweep.zero(semiring, v) for v, a in zip(inputs[:c], live, strict=False) if a]
        to_carry = [_cast(semiring, inputs[c + j], cotangents[j]) for j in behind]
        scanned = (self._starts(), self._rows(), list(cotangents[k:]))
        (to_consts, to_carry), (to_xs, kept) = self.region.run(
            step, (to_consts, to_carry), scanned, against=True
        )
        positions = [i for i in range(c) if live[i]] + [c + j for j in behind]
        pulled = dict(zip(positions, [*to_consts, *to_carry], strict=True))
        pulled.update({c + k + i: e for i, e in enumerate(to_xs) if e is not None})
        return pulled, kept

    def _forward(
        self,
        semiring: Semiring,
        tangents: Mapping[int, Elements],
        ahead: Sequence[int],
        *,
        keep: bool = False,
    ) -> tuple[list[Elements | None], list[Elements]]:
        """Compute the elements of every output, and those every iteration starts with if kept.

        Args:
            semiring: the statistic.
            tangents: those of the inputs.
            ahead: the carried values at which any arrive.
            keep: whether to keep those of every iteration.
        """
        c, k = self.region.carried
        inputs, outputs = self.body.inputs, self.body.outputs
        departed = {*tangents, *(c + j for j in ahead)}
        ys = {
            o: v
            for o, v in enumerate(outputs)
            if o >= k and isinstance(v, Variable)
            if self.body.is_fed(o) or not self.body.sources[o].isdisjoint(departed)
        }
        from_consts = [tangents.get(i) for i in range(c)]
        from_carry = [_cast(semiring, inputs[c + j], tangents.get(c + j)) for j in ahead]
        from_xs = [tangents.get(i) for i in range(c + k, len(self.equation.inputs))]

        def step(state: Any, x: Any) -> tuple[Any, Any]:
            carry, start = state
            row, from_x = x
            at = self._evaluate(carry, row)
            arriving = _placed(k, ahead, start)
            pushed = sweep.push(self.body, semiring, at, [*from_consts, *arriving, *from_x])
            end = [_cast(semiring, inputs[c + j], pushed[j]) for j in ahead]
            to_ys = [_cast(semiring, v, pushed[o]) for o, v in ys.items()]
            return (at.read(outputs[:k]), end), (to_ys, start if keep else [])

        (_, to_carry), (to_ys, kept) = self.region.run(
            step, (self._carry(), from_carry), (self._rows(), from_xs)
        )
        pushed = _placed(len(outputs), [*ahead, *ys], [*to_carry, *to_ys])
        return pushed, kept


@rule_for("scan")
def scan_jacobian(equation: Equation, runs: Runs) -> EquationJacobian:
    """Return the paths through all iterations."""
    assert isinstance(equation.region, ScanRegion)
    (body,) = region_bodies(equation)
    return Scan(equation, equation.region, body, runs)


@dataclasses.dataclass(frozen=True)
class Cond(EquationJacobian):
    """The paths through the branch that was taken at the point, in every run."""

    equation: Equation
    region: CondRegion
    branches: tuple[Graph, ...]
    runs: Runs

    kind = "cond"

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return self.branches

    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        sources = frozenset[int]().union(*(self.equation.sources[o] for o in _leading(cotangents)))
        reached = [i for i in self.equation.wrt if i in sources]
        variables = [self.equation.inputs[i] for i in reached]

        def pull_branch(branch: Graph, cotangents: Any) -> list[Elements]:
            pulled = sweep.pull(branch, semiring, self._evaluate(branch), cotangents)
            return [
                _cast(semiring, v, pulled[i - 1])
                for i, v in zip(reached, variables, strict=True)
                if isinstance(v, Variable)
            ]

        pulled = self._switch(pull_branch, list(cotangents))
        return dict(zip(reached, pulled, strict=True))

    def push(
        self, semiring: Semiring, tangents: Mapping[int, Elements]
    ) -> Sequence[Elements | None]:
        sources, outputs = self.equation.sources, self.equation.outputs
        reached = [
            o
            for o in range(len(outputs))
            if not sources[o].isdisjoint(tangents) or any(b.is_fed(o) for b in self.branches)
        ]

        def push_branch(branch: Graph, tangents: Any) -> list[Elements]:
            pushed = sweep.push(branch, semiring, self._evaluate(branch), tangents)
            return [_cast(semiring, outputs[o], pushed[o]) for o in reached]

        arriving = [tangents.get(i) for i in range(1, len(self.equation.inputs))]
        return _placed(len(outputs), reached, self._switch(push_branch, arriving))

    def inside(
        self,
        semiring: Semiring,
        tangents: Mapping[int, Elements] | None,
        cotangents: Sequence[Elements | None],
        collect: Collector,
    ) -> dict[Any, Elements]:
        tangents = tangents or {}

        def collect_in(branch: Graph, elements: Any) -> dict[Any, Elements]:
            return collect(branch, semiring, self._evaluate(branch), *elements)

        operands = range(1, len(self.equation.inputs))
        elements = [tangents.get(i) for i in operands], list(cotangents)
        expected: dict[Any, Elements] = {}
        for branch in self.branches:
            expected |= jax.eval_shape(functools.partial(collect_in, branch), elements)

        def filled(branch: Graph, elements: Any) -> list[Elements]:
            found = collect_in(branch, elements)
            return [
                found[key] if key in found else semiring.zero(semiring.shape(e), semiring.dtype(e))
                for key, e in expected.items()
            ]

        return dict(zip(expected, self._switch(filled, elements), strict=True))

    def _evaluate(self, branch: Graph) -> Evaluation:
        inputs = [self.region.operands(own).operands for own in self.runs.inputs]
        return evaluate(branch, self.runs.again(inputs, self.runs.seen))

    def _switch(self, function: Any, elements: Any) -> Any:
        branches = [functools.partial(function, branch) for branch in self.branches]
        index = self.region.operands(self.runs.inputs[0]).index
        return self.region.switch(index, branches, elements)


@rule_for("cond")
def cond_jacobian(equation: Equation, runs: Runs) -> EquationJacobian:
    """Return the paths through the branch that was taken."""
    assert isinstance(equation.region, CondRegion)
    return Cond(equation, equation.region, region_bodies(equation), runs)


@dataclasses.dataclass(frozen=True)
class While(EquationJacobian):
    """The paths through the iterations of a loop whose length is known only once it has run.

    It runs as often as at the point, in every run. Backward, only what the loop carries along
    unchanged can be followed.
    """

    equation: Equation
    region: WhileRegion
    test: Graph
    body: Graph
    runs: Runs

    kind = "while"

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        del semiring
        arrived = {j: e for j, e in enumerate(cotangents) if e is not None}
        self._check_unchanged(arrived)
        first = self.region.test_consts + self.region.carried[0]
        return {first + j: e for j, e in arrived.items()}

    def inside(
        self,
        semiring: Semiring,
        tangents: Mapping[int, Elements] | None,
        cotangents: Sequence[Elements | None],
        collect: Collector,
    ) -> dict[Any, Elements]:
        self._check_unchanged(_leading(cotangents))
        return {}  # what is only carried along passes nothing inside

    def _check_unchanged(self, arrived: Collection[int]) -> None:
        first, _ = self.region.carried
        if any(self.body.outputs[j] is not self.body.inputs[first + j] for j in arrived):
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
        operands = [self.region.operands(own) for own in self.runs.inputs]
        carries = self.body.inputs[b:]
        into_body = {i - t: e for i, e in tangents.items() if i >= t}
        ahead = _carries_ahead(self.equation, self.body, into_body)
        from_consts = [into_body.get(i) for i in range(b)]
        nothing_seen = [{} for _ in operands]

        def again(state: Any) -> Any:
            at_point = [*operands[0].test_consts, *state[0][0]]
            values = evaluate(self.test, Runs.once(at_point, {})).values
            return output_values(self.test, values)[0]

        def step(state: Any) -> Any:
            carry, moving = state
            inputs = [[*o.body_consts, *own] for o, own in zip(operands, carry, strict=True)]
            at = evaluate(self.body, self.runs.again(inputs, nothing_seen))
            arriving = _placed(len(carries), ahead, moving)
            pushed = sweep.push(self.body, semiring, at, [*from_consts, *arriving])
            moving = [_cast(semiring, carries[j], pushed[j]) for j in ahead]
            return at.read(self.body.outputs), moving

        moving = [_cast(semiring, carries[j], into_body.get(b + j)) for j in ahead]
        start = [list(o.carry) for o in operands]
        _, moving = lax.while_loop(again, step, (start, moving))
        return _placed(len(carries), ahead, moving)


@rule_for("while")
def while_jacobian(equation: Equation, runs: Runs) -> EquationJacobian:
    """Return the paths through all iterations, forward only."""
    assert isinstance(equation.region, WhileRegion)
    (body,) = region_bodies(equation)
    return While(equation, equation.region, build_test(equation), body, runs)
