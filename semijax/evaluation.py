"""The primal values of a graph, in one run of the function or in two that are compared.

Side effects (callbacks, prints) happen when the function is evaluated. The values inside a loop or
a branch are not kept: a sweep through it computes them again, without the side effects, and with
what these returned the first time.
"""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax.arguments import Leaf
from semijax.elements import Elements
from semijax.jacobians import EquationJacobian
from semijax.jacobians.base import declaration
from semijax.jacobians.complex import as_real
from semijax.semirings.base import Semiring
from semijax.semirings.product import Product
from semijax.trace.graph import (
    STOP_GRADIENT,
    Constant,
    Equation,
    Graph,
    Variable,
    build_bodies,
    build_test,
)
from semijax.trace.regions import CondRegion, ScanRegion, WhileRegion
from semijax.weighting import DERIVATIVE, Derivative, Weighting

Values = MutableMapping[Any, Any]
"""The primal values of variables, and what is kept from inside a region, by its equation."""

Seen = Mapping[tuple[int, ...], Any]
"""The results of side effects, by the positions of the equation, of one inside it, …, the output.

Each scan adds a first axis.
"""


class Inside(NamedTuple):
    """What is kept from inside a region that was evaluated, besides its outputs.

    Attributes:
        seen: what side effects inside returned.
        starts: for a scan through which a reverse sweep will come, what every iteration started
            from, along a first axis; None otherwise.
    """

    seen: Seen
    starts: Sequence[Any] | None = None


@dataclasses.dataclass(frozen=True)
class Unknown:
    """A stand-in for a value that cannot be computed a second time.

    Attributes:
        equation: the one with a side effect that made the value, or something it depends on.
    """

    equation: Equation


class Runs(NamedTuple):
    """The inputs of one run or of two, on which a graph or a region is evaluated.

    Attributes:
        inputs: for each run, the first of which is the point, one value per input. What cannot
            differ is the same object in all of them.
        seen: for each run what side effects returned the first time, to compute the values again
            without them; None where they are to happen.
        weighting: what the edges weigh.
        backward: whether a reverse sweep follows, for which scans keep what iterations start from.
        starts: for each run of a scan, what every iteration starts from, if that is known.
    """

    inputs: Sequence[Sequence[Any]]
    seen: Sequence[Seen | None]
    weighting: Weighting = DERIVATIVE
    backward: bool = False
    starts: Sequence[Sequence[Any] | None] = ()

    @classmethod
    def of_arguments(
        cls, leaves: Sequence[Leaf], weighting: Weighting, *, backward: bool = False
    ) -> Runs:
        """Return the runs of a call: its own, and any that the weighting compares it with."""
        count = 1 if weighting.reference is None else 2
        pairs = [leaf.arrays() for leaf in leaves]
        inputs = [[pair[k] for pair in pairs] for k in range(count)]
        return cls(inputs, [None] * count, weighting, backward)

    @classmethod
    def once(cls, inputs: Sequence[Any], seen: Seen | None = None) -> Runs:
        """Return one run, whose edges weigh the derivative."""
        return cls([inputs], [seen])

    def again(self, inputs: Sequence[Sequence[Any]], seen: Sequence[Seen | None]) -> Runs:
        """Return the same runs with the inputs of something inside."""
        return Runs(inputs, seen, self.weighting, self.backward)


class Evaluation(NamedTuple):
    """The values of a graph's variables in each run; for the rest see ``Runs``."""

    runs: Sequence[Values]
    weighting: Weighting
    backward: bool = False

    @property
    def values(self) -> Values:
        """The values at the point."""
        return self.runs[0]

    def read(self, atoms: Sequence[Variable | Constant]) -> list[list[Any]]:
        """Return the values of variables and constants in each run."""
        return [read(values, atoms) for values in self.runs]

    def jacobian(self, equation: Equation) -> EquationJacobian:
        """Return the edges of an equation; for a region, those of its bodies."""
        inputs = self.read(equation.inputs)
        if equation.region is None:
            return self.weighting.jacobian(equation, *inputs)
        kept = [values.get(equation, Inside({})) for values in self.runs]
        seen, starts = zip(*kept, strict=True)
        runs = Runs(inputs, seen, self.weighting, self.backward, starts)
        return region_jacobian(equation, runs)

    def at_start(self, semiring: Semiring, variable: Variable) -> Elements:
        """Return the elements of paths that have just begun, at all nodes of an array."""
        carried = self.carried(variable)
        dtype = el.accumulation_dtype(variable.dtype)
        if carried is None:
            return semiring.one(el.node_shape(variable), dtype)
        return semiring.lift(carried.astype(dtype))

    def started(self, semiring: Semiring, variable: Variable, elements: Elements) -> Elements:
        """Add up paths that start in an array, given what they do from there on.

        A path that carries 0 at the start carries 0, whatever it weighs.
        """
        carried = self.carried(variable)
        if carried is None:
            return elements
        weights = carried.astype(semiring.dtype(elements))
        return semiring.scale_selected(weights, weights != 0, elements)

    def carried(self, variable: Variable) -> Any:
        """Return what paths that start in an array carry, as an array of its nodes; None for 1."""
        found = self.weighting.at_start(*(values[variable] for values in self.runs))
        return None if found is None else as_real(jnp.asarray(found))


def check_finite(
    graph: Graph, semiring: Semiring, at: Evaluation, found: Collection[Elements | None]
) -> None:
    """Raise if contributions are not finite, and say in which equation that begins.

    Nothing is checked where anything is traced, or for derivatives, which are what JAX says.

    Raises:
        FloatingPointError: if they are not.
    """
    if isinstance(at.weighting, Derivative):
        return
    elements = [e for e in found if e is not None]
    known = (elements, [list(values.values()) for values in at.runs])
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(known))
    if traced or all(_are_finite(semiring, e) for e in elements):
        return
    for equation in graph.equations:
        ends = [v for v in (*equation.inputs, *equation.outputs) if isinstance(v, Variable)]
        ends = [v for v in ends if v in graph.active]
        if not equation.wrt:
            continue
        wrong = None
        if not all(np.isfinite(x).all() for x in jax.tree.leaves([at.carried(v) for v in ends])):
            wrong = "what paths carry, such as the difference between two runs,"
        elif equation.region is None and not _has_finite_weights(at.jacobian(equation)):
            wrong = "a weight"
        if wrong:
            raise FloatingPointError(
                f"{at.weighting}: {wrong} is infinite or not a number in '{equation.name}' "
                f"{equation.where()}. semijax.freeze closes an array to paths."
            )
    raise FloatingPointError(
        f"{at.weighting}: contributions are infinite or not numbers, in a loop or a branch, or "
        "products of weights are too large for their dtype."
    )


def _are_finite(semiring: Semiring, elements: Elements) -> bool:
    """Tell whether all statistics are finite, except those read where there is no path."""
    if isinstance(semiring, Product):
        parts = zip(semiring.members, semiring.split(elements), strict=True)
        return all(_are_finite(member, part) for member, part in parts)
    none = semiring.is_zero(elements)
    return all(
        bool((jnp.isfinite(x) | none.reshape(none.shape + (1,) * (x.ndim - none.ndim))).all())
        for x in jax.tree.leaves(semiring.readout(elements))
        if x.shape[: none.ndim] == none.shape and jnp.issubdtype(x.dtype, jnp.inexact)
    )


def _has_finite_weights(jacobian: EquationJacobian) -> bool:
    leaves = (x for x in jax.tree.leaves(jacobian) if isinstance(x, jax.Array))
    floating = (x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating))
    return all(bool(jnp.isfinite(x).all()) for x in floating)


def region_jacobian(equation: Equation, runs: Runs) -> EquationJacobian:
    """Return the edges of a loop or a branch."""
    rule = declaration(equation.primitive).rule
    assert rule is not None
    return rule(equation, runs)


def evaluate(graph: Graph, runs: Runs) -> Evaluation:
    """Compute the primal value of every variable, in each run.

    Runs are evaluated side by side. What ``stop_gradient`` cuts is a constant of the graph: in
    every run it has its value at the point, inside scans and branches too.
    """
    found: list[Values] = [
        {**graph.constants, **dict(zip(graph.inputs, inputs, strict=True))}
        for inputs in runs.inputs
    ]
    _evaluate_all(graph.equations, found, runs.seen, runs.backward)
    return Evaluation(found, runs.weighting, runs.backward)


def evaluate_again(
    equations: Sequence[Equation], at: Evaluation, given: Sequence[Values]
) -> Evaluation:
    """Compute what some equations compute once more, in each run.

    Args:
        equations: in the order of evaluation; none with a side effect.
        at: the values of everything else.
        given: for each run, values to read in place of those.
    """
    pairs = zip(given, at.runs, strict=True)
    found: list[Values] = [ChainMap({**own}, known) for own, known in pairs]
    _evaluate_all(equations, found, [None] * len(found), at.backward)
    return Evaluation(found, at.weighting, at.backward)


def _evaluate_all(
    equations: Sequence[Equation],
    found: Sequence[Values],
    seen: Sequence[Seen | None],
    backward: bool,
) -> None:
    """Add to the values that are found in each run those that some equations compute."""
    for equation in equations:
        operands = [_look_up(values, equation.inputs) for values in found]
        own_seen = [None if own is None else _within(own, equation.number) for own in seen]
        results, rest = _evaluate_each(equation, operands, own_seen, backward)
        for values, outputs, kept in zip(found, results, rest, strict=True):
            values.update(zip(equation.outputs, outputs, strict=True))
            if kept is not None:
                values[equation] = kept


def evaluate_equation(equation: Equation, operands: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Compute the outputs of an equation in each run, given its inputs in each."""
    return _evaluate_each(equation, operands, [None] * len(operands), False)[0]


def _evaluate_each(
    equation: Equation,
    operands: Sequence[Sequence[Any]],
    seen: Sequence[Seen | None],
    backward: bool,
) -> tuple[list[Sequence[Any]], list[Inside | None]]:
    """Compute, for each run, an equation's outputs and what is kept of a region."""
    differ = [not _same(own, operands[0]) for own in operands]
    if any(differ) and _holds_inside(equation):
        outputs, returned = _interpret(equation, operands, seen)
        kept = _is_kept(equation)
        return outputs, [Inside(own) if kept else None for own in returned]
    results: list[Any] = []
    for own, own_seen, differs in zip(operands, seen, differ, strict=True):
        if results and (not differs or equation.primitive is STOP_GRADIENT):
            results.append(results[0])
        else:
            results.append(_evaluate_one(equation, own, own_seen, backward))
    return [outputs for outputs, _ in results], [kept for _, kept in results]


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return all(x is y for x, y in zip(a, b, strict=True))


def _within(seen: Seen, number: int) -> Seen:
    return {key[1:]: value for key, value in seen.items() if key[0] == number}


def _evaluate_one(
    equation: Equation, operands: Sequence[Any], seen: Seen | None, backward: bool
) -> tuple[Sequence[Any], Inside | None]:
    """Compute an equation's outputs in one run, and what is kept of a region."""
    unknown = next((x for x in operands if isinstance(x, Unknown)), None)
    if unknown is not None:
        return [unknown] * len(equation.outputs), None
    if not equation.has_effects or (seen is None and not _is_kept(equation)):
        keeps = backward and equation.is_on_a_path and not equation.has_effects
        if keeps and isinstance(equation.region, ScanRegion):
            outputs, starts = equation.region.evaluate(operands)
            return outputs, Inside({}, starts)
        return equation.bind(*operands), None
    if equation.region is not None:
        (outputs,), (returned,) = _interpret(equation, [operands], [seen])
        return outputs, Inside(returned)
    assert seen is not None
    return [seen.get((o,), Unknown(equation)) for o in range(len(equation.outputs))], None


def _is_kept(equation: Equation) -> bool:
    """Tell whether results of side effects inside are kept: not if their number is unknown."""
    if equation.region is None or isinstance(equation.region, WhileRegion):
        return False
    inside = (each for body in build_bodies(equation, active=False) for each in body.equations)
    return any(each.has_effects and each.outputs for each in inside)


def holds(graph: Graph) -> bool:
    """Tell whether anything is the same in every run because ``stop_gradient`` cuts it."""
    return any(e.primitive is STOP_GRADIENT or _holds_inside(e) for e in graph.equations)


def _holds_inside(equation: Equation) -> bool:
    """Tell the same of the bodies of a scan or a branch.

    A while loop is evaluated in each run by itself, for the number of iterations may differ.
    """
    if not isinstance(equation.region, ScanRegion | CondRegion):
        return False
    return any(map(holds, build_bodies(equation, active=False)))


def _interpret(
    equation: Equation, operands: Sequence[Sequence[Any]], seen: Sequence[Seen | None]
) -> tuple[list[Any], list[Any]]:
    """Evaluate a region in all runs together; return the results of side effects in each, too.

    The branch is the one taken at the point; a run that takes another is evaluated by itself.
    """
    region, bodies = equation.region, build_bodies(equation, active=False)
    assert region is not None
    count, skipped = len(operands), len(equation.inputs) - len(bodies[0].inputs)
    first, carries = region.carried

    def run(body: int | None, inputs: Sequence[Any], iteration: Any) -> tuple[list[Any], Seen]:
        graph = build_test(equation) if body is None else bodies[body]
        rows = [
            row if row is None or iteration is None else {k: v[iteration] for k, v in row.items()}
            for row in seen
        ]
        own = [[_of_run(k, x) for x in inputs] for k in range(count)]
        if body is None:
            values = evaluate(graph, Runs.once(own[0], rows[0])).values
            return output_values(graph, values), {}
        found = evaluate(graph, Runs(own, rows)).runs
        outputs = zip(*(output_values(graph, values) for values in found), strict=True)
        returned = {
            (k, *key): value
            for k, values in enumerate(found)
            for key, value in _returned(graph, values).items()
        }
        return [tuple(each) for each in outputs], returned

    together: list[Any] = list(operands[0][:skipped])
    for n, each in enumerate(zip(*(own[skipped:] for own in operands), strict=True)):
        carried = first <= n < first + carries
        together.append(each if carried or not _same(each, each[:1] * count) else each[0])
    outputs, returned = region.interpret(run, together)
    results = [[_of_run(k, x) for x in outputs] for k in range(count)]
    for own, result in zip(operands[1:], results[1:], strict=True):
        if isinstance(region, CondRegion) and own[0] is not operands[0][0]:
            apart = equation.bind(*own)
            same = jnp.asarray(own[0] == operands[0][0])
            result[:] = [jnp.where(same, a, b) for a, b in zip(result, apart, strict=True)]
    kept = [{key[1:]: x for key, x in returned.items() if key[0] == k} for k in range(count)]
    return results, kept


def _of_run(number: int, value: Any) -> Any:
    """Return a run's part of a value that may have one part for each run."""
    return value[number] if isinstance(value, tuple) else value


def _returned(graph: Graph, values: Values) -> Seen:
    """Return what the side effects in a graph that was evaluated returned."""
    found: dict[tuple[int, ...], Any] = {}
    for n, equation in enumerate(graph.equations):
        if equation in values:
            found.update({(n, *key): value for key, value in values[equation].seen.items()})
        elif equation.has_effects and equation.region is None:
            results = enumerate(values[v] for v in equation.outputs)
            found.update({(n, o): x for o, x in results if not isinstance(x, Unknown)})
    return found


def output_values(graph: Graph, values: Values) -> list[Any]:
    """Return the primal values of the graph's outputs."""
    return read(values, graph.outputs)


def read(values: Values, atoms: Sequence[Variable | Constant]) -> list[Any]:
    """Return the primal values of variables and constants.

    Raises:
        NotImplementedError: if one is ``Unknown``.
    """
    found = _look_up(values, atoms)
    for value in found:
        if isinstance(value, Unknown):
            raise NotImplementedError(
                f"A sweep through a loop or a branch computes the values inside it again, and "
                f"'{value.equation.name}' has a side effect and must not run again; "
                f"{value.equation.where()}. Call it outside of the loop or branch and pass on what "
                "it returns."
            )
    return found


def _look_up(values: Values, atoms: Sequence[Variable | Constant]) -> list[Any]:
    return [values[v] if isinstance(v, Variable) else v.value for v in atoms]
