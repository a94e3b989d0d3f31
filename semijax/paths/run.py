"""A function run on numbers: every equation that ran, one after the other, loops unrolled.

The graph of a function is nested: the body of a ``scan`` is a graph of its own. A run is flat: each
equation that ran is a step, once for every iteration, with the local Jacobian that it had there; of
a ``cond`` there is the branch that was taken. Anything that follows single paths does so here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.evaluation import Runs, evaluate, evaluate_equation, output_values, region_jacobian
from semijax.jacobians import Edges, EquationJacobian, Table
from semijax.jacobians.complex import as_real
from semijax.jacobians.control_flow import Cond, Scan, While
from semijax.jacobians.edges import at_most_one, numbers
from semijax.semirings import Semiring
from semijax.trace.graph import Constant, Equation, Graph, Module, Variable


@dataclasses.dataclass(frozen=True, eq=False)
class Array:
    """An array that paths pass through.

    Attributes:
        number: its place in the order of creation.
        shape: that of its nodes: a complex number is two, on a last axis.
        dtype: the array's.
        value: what it held.
        carried: what a path carries that starts at each node, if it is not 1.
        step: the number of the step that made it; None where no path leads to it.
        output: which of that step's outputs it is; of an input, which input of the function.
        scope: the modules it was made in, with the iterations of loops; of joined rows, those of
            the first.
        iteration: that of every loop around it, from the outside in.
        made_by: the equation that made it; None for an input, and for rows that were joined.
        path: the regions around the graph that it was made in, see ``Graph.path``.
    """

    number: int
    shape: Shape
    dtype: Any
    value: Any = dataclasses.field(repr=False)
    carried: Any = dataclasses.field(repr=False)
    step: int | None
    output: int
    scope: str = ""
    iteration: tuple[int, ...] = ()
    made_by: Equation | None = dataclasses.field(default=None, repr=False)
    path: tuple[tuple[int, int], ...] = ()

    @property
    def positions(self) -> np.ndarray:
        """The positions of all its nodes."""
        return np.arange(el.size(self.shape))

    def carried_at(self, index: np.ndarray | None) -> np.ndarray:
        """Return what paths starting at some nodes, or at all of them, carry, in float64."""
        positions = self.positions if index is None else index
        if self.carried is None:
            return np.ones(len(positions))
        return numbers(as_real(jnp.asarray(self.carried)), positions)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One equation that ran.

    Attributes:
        number: its place in the order of evaluation.
        equation: the equation; None for a step that only splits an array into the rows a loop
            reads, or joins those it wrote: what passes there stays the same node.
        iteration: that of every loop around it, from the outside in.
        inputs: the arrays read, by position; those that paths come through.
        outputs: the arrays made, by position.
        jacobian: its edges.
        runs: what the equation read, all of it, in each run.
        scope: the modules it was written in, with the iterations of loops.
    """

    number: int
    equation: Equation | None
    iteration: tuple[int, ...]
    inputs: Mapping[int, Array] = dataclasses.field(repr=False)
    outputs: dict[int, Array] = dataclasses.field(repr=False)
    jacobian: EquationJacobian = dataclasses.field(repr=False)
    runs: tuple[Sequence[Any], ...] = dataclasses.field(repr=False)
    scope: str = ""


class Run:
    """A function's steps at a point.

    Attributes:
        arrays: in the order of creation.
        steps: in the order of evaluation: what a step reads, an earlier one made.
        inputs: the array of each input of the graph; None for one that has no nodes.
        outputs: the array of each output; None for one that no path reaches.
        readers: for each array by number, the steps that read it and the position at which they do.
        results: the values of the outputs, in each run.
        marked: the arrays that were asked for, by the number they have in the graph: the iteration,
            and the array.
        scopes: all that there are, with the iterations of loops and without, and with those of
            branches that were not taken.
    """

    def __init__(self, graph: Graph, runs: Runs) -> None:
        self.arrays: list[Array] = []
        self.steps: list[Step] = []
        self.readers: list[list[tuple[Step, int]]] = []
        self.scopes: dict[str, None] = {}  # a set in the order of the program
        self.marked: dict[int, list[tuple[tuple[int, ...], Array]]] = {}
        self._regions: dict[Equation, Any] = {}
        self._scope_names: dict[tuple[Module, tuple[int, ...]], str] = {}
        self._weighting = runs.weighting
        slots = []
        for position, (variable, *values) in enumerate(
            zip(graph.inputs, *runs.inputs, strict=True)
        ):
            has_nodes = variable in graph.active
            slots.append(_Slot(values, self._array(values, None, position) if has_nodes else None))
        self.inputs: list[Array | None] = [slot.array for slot in slots]
        results = self._graph(graph, slots, ())
        self.outputs: list[Array | None] = [slot.array for slot in results]
        self.results: list[Sequence[Any]] = [slot.values for slot in results]

    def _array(
        self,
        values: Sequence[Any],
        step: Step | None,
        output: int,
        equation: Equation | None = None,
        iteration: tuple[int, ...] = (),
        path: tuple[tuple[int, int], ...] = (),
    ) -> Array:
        """Create an array; a step, if there is one, determines its equation and iteration."""
        if step is not None:
            equation, iteration = step.equation, step.iteration
        scope = self._scope(equation, iteration)
        if step is not None and equation is None:
            scope = next(iter(step.inputs.values())).scope
        number, made_in = len(self.arrays), None if step is None else step.number
        value, carried = values[0], self._weighting.at_start(*values)
        what = el.node_shape(value), value.dtype, value, carried
        path = path if equation is None else equation.path
        made = Array(number, *what, made_in, output, scope, iteration, equation, path)
        self.arrays.append(made)
        self.readers.append([])
        return made

    def _scope(self, equation: Equation | None, iteration: tuple[int, ...]) -> str:
        if equation is None:
            return ""
        key = equation.module, iteration[: equation.module.loops]
        if key not in self._scope_names:
            self._scope_names[key] = equation.module.scope_at(iteration)
        return self._scope_names[key]

    def _defined(
        self,
        graph: Graph,
        variable: Variable,
        slot: _Slot,
        iteration: tuple[int, ...],
        equation: Equation | None = None,
        output: int = 0,
    ) -> _Slot:
        """Return a value of the graph, with nodes if paths start there; note it if it is marked."""
        if variable in graph.starts and slot.array is None:
            values = [jnp.asarray(own[0]) for own in self._runs([slot])]
            made = self._array(values, None, output, equation, iteration, graph.path)
            slot = _Slot(values, made)
        if slot.array is not None:
            for number in graph.marked.get(variable, ()):
                self.marked.setdefault(number, []).append((iteration, slot.array))
        return slot

    def origin(self, array: Array, index: tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
        """Trace a node to the array it was made in: rows are split and joined without an edge."""
        while array.step is not None and isinstance(rows := self.steps[array.step].jacobian, Rows):
            inputs = self.steps[array.step].inputs
            if rows.joined:
                array, index = inputs[index[0]], index[1:]
            else:
                array, index = inputs[0], (array.output, *index)
        return array, index

    def _step(
        self,
        equation: Equation | None,
        iteration: tuple[int, ...],
        inputs: Mapping[int, Array],
        jacobian: EquationJacobian,
        runs: Sequence[Sequence[Any]] = (),
    ) -> Step:
        scope, number = self._scope(equation, iteration), len(self.steps)
        step = Step(number, equation, iteration, inputs, {}, jacobian, tuple(runs), scope)
        self.steps.append(step)
        for position, array in inputs.items():
            self.readers[array.number].append((step, position))
        return step

    def _graph(
        self, graph: Graph, inputs: Sequence[_Slot], iteration: tuple[int, ...]
    ) -> list[_Slot]:
        for equation in graph.equations:
            self.scopes[equation.scope] = None
            self.scopes[self._scope(equation, iteration)] = None
        known = {variable: _same(value) for variable, value in graph.constants.items()}
        for n, (variable, slot) in enumerate(zip(graph.inputs, inputs, strict=True)):
            known[variable] = self._defined(graph, variable, slot, iteration, output=n)

        def read(atom: Variable | Constant) -> _Slot:
            return known[atom] if isinstance(atom, Variable) else _same(atom.value)

        for equation in graph.equations:
            results = self._equation(equation, [read(v) for v in equation.inputs], iteration)
            for o, (variable, slot) in enumerate(zip(equation.outputs, results, strict=True)):
                known[variable] = self._defined(graph, variable, slot, iteration, equation, o)
        return [read(v) for v in graph.outputs]

    def _equation(
        self, equation: Equation, inputs: list[_Slot], iteration: tuple[int, ...]
    ) -> Sequence[_Slot]:
        through = {i: a for i in equation.wrt if (a := inputs[i].array) is not None}
        if not through and not equation.starts_inside:
            return [_Slot(values) for values in self._bind(equation, inputs)]
        runs = self._runs(inputs)
        if equation.region is not None:
            known = self._regions.get(equation)
            region = known or region_jacobian(equation, Runs(runs, [{} for _ in runs]))
            self._regions[equation] = region  # its bodies are the same whenever it runs
            return _REGIONS[type(region)](self, region, equation, inputs, iteration)
        jacobian = self._weighting.jacobian(equation, *runs)
        if not isinstance(jacobian, Table):
            raise NotImplementedError(
                f"Paths are followed through a table of local Jacobians, and '{equation.name}' has "
                f"a {type(jacobian).__name__}; {equation.where()}."
            )
        step = self._step(equation, iteration, through, jacobian, runs)
        results = [_Slot(values) for values in self._bind(equation, inputs)]
        for o in sorted({o for i, o in jacobian.entries if i in through}):
            made = self._array(results[o].values, step, o)
            step.outputs[o], results[o] = made, _Slot(results[o].values, made)
        return results

    def _runs(self, inputs: Sequence[_Slot]) -> list[list[Any]]:
        """Return what is read, in each run."""
        count = 1 if self._weighting.reference is None else 2
        return [[slot.of_run(k) for slot in inputs] for k in range(count)]

    def _bind(self, equation: Equation, inputs: Sequence[_Slot]) -> list[Sequence[Any]]:
        """Compute the values of each output, in each run."""
        if not equation.outputs:
            equation.bind(*(slot.values[0] for slot in inputs))
            return []
        at = evaluate_equation(equation, self._runs(inputs))
        return [list(values) for values in zip(*at, strict=True)]

    # Regions: their bodies, as often as they run.

    def _scan(
        self, scan: Scan, equation: Equation, inputs: list[_Slot], iteration: tuple[int, ...]
    ) -> list[_Slot]:
        consts, carry, xs = scan.region.operands(inputs)
        k, length = len(carry), scan.region.length
        rows = [self._split(slot, length, iteration) for slot in xs]
        written: list[list[_Slot]] = [[_same(None)] * length for _ in equation.outputs[k:]]
        for t in reversed(range(length)) if scan.region.reverse else range(length):
            here = [*consts, *carry, *(row[t] for row in rows)]
            results = self._graph(scan.body, here, (*iteration, t))
            carry = results[:k]
            for column, slot in zip(written, results[k:], strict=True):
                column[t] = slot
        ys = zip(written, equation.outputs[k:], strict=True)
        return [*carry, *(self._join(column, v, iteration) for column, v in ys)]

    def _split(self, slot: _Slot, length: int, iteration: tuple[int, ...]) -> list[_Slot]:
        wholes = [_with_rows(value) for value in slot.values]
        rows = [[whole[t] for whole in wholes] for t in range(length)]
        if slot.array is None or not length:
            return [_Slot(values) for values in rows]
        step = self._step(
            None, iteration, {0: slot.array}, Rows(length, slot.array.shape[1:], joined=False)
        )
        for t, values in enumerate(rows):
            step.outputs[t] = self._array(values, step, t)
        return [_Slot(rows[t], row) for t, row in step.outputs.items()]

    def _join(self, column: list[_Slot], like: Variable, iteration: tuple[int, ...]) -> _Slot:
        if not column:
            return _same(jnp.zeros(like.shape, like.dtype))
        values = [jnp.stack([jnp.asarray(x) for x in own]) for own in self._runs(column)]
        inputs = {t: slot.array for t, slot in enumerate(column) if slot.array is not None}
        if not inputs:
            return _Slot(values)
        row = next(iter(inputs.values())).shape
        step = self._step(None, iteration, inputs, Rows(len(column), row, joined=True))
        step.outputs[0] = self._array(values, step, 0)
        return _Slot(values, step.outputs[0])

    def _cond(
        self, cond: Cond, equation: Equation, inputs: list[_Slot], iteration: tuple[int, ...]
    ) -> list[_Slot]:
        for branch in cond.branches:
            self.scopes.update(dict.fromkeys(each.scope for each in branch.equations))
        index, operands = cond.region.operands(inputs)
        taken = min(max(int(index.values[0]), 0), len(cond.branches) - 1)
        results = self._graph(cond.branches[taken], operands, iteration)
        if all(int(number) == int(index.values[0]) for number in index.values):
            return results
        return self._as_by_themselves(equation, inputs, results)

    def _while(
        self, loop: While, equation: Equation, inputs: list[_Slot], iteration: tuple[int, ...]
    ) -> Sequence[_Slot]:
        test_consts, consts, carry = loop.region.operands(inputs)
        count = 0
        while True:
            read = [slot.values[0] for slot in (*test_consts, *carry)]
            (again,) = output_values(loop.test, evaluate(loop.test, Runs.once(read)).values)
            if np.ndim(again):
                raise NotImplementedError(
                    "Paths are not followed through a while_loop under vmap whose examples end at "
                    f"different times; {equation.where()}. Follow those of one example at a time."
                )
            if not again:
                return self._as_by_themselves(equation, inputs, carry)
            carry = self._graph(loop.body, [*consts, *carry], (*iteration, count))
            count += 1

    def _as_by_themselves(
        self, equation: Equation, inputs: Sequence[_Slot], results: Sequence[_Slot]
    ) -> list[_Slot]:
        """Join what a region makes, followed at the point, with what it makes in another run."""
        if len(self._runs(inputs)) == 1:
            return list(results)
        outputs = self._bind(equation, inputs)
        pairs = zip(results, outputs, strict=True)
        return [_Slot([slot.values[0], *own[1:]], slot.array) for slot, own in pairs]


_REGIONS: dict[type, Callable[..., Sequence[_Slot]]] = {
    Scan: Run._scan,
    Cond: Run._cond,
    While: Run._while,
}


class _Slot(NamedTuple):
    """A value of the running program in each run, and the array of its nodes, if it has any.

    A single value is the same in all runs.
    """

    values: Sequence[Any]
    array: Array | None = None

    def of_run(self, number: int) -> Any:
        """Return the value in one of the runs."""
        return self.values[number] if len(self.values) > 1 else self.values[0]


def _same(value: Any) -> _Slot:
    """Return the slot of a value that is the same in all runs and has no nodes."""
    return _Slot([value])


def _with_rows(value: Any) -> Any:
    """Return an array whose rows are views, where possible."""
    extended = jnp.issubdtype(value.dtype, jax.dtypes.extended)
    return value if extended else np.asarray(value)


@dataclasses.dataclass(frozen=True)
class Rows(EquationJacobian):
    """An array and its rows: the same nodes, split, or joined.

    Attributes:
        count: how many rows there are.
        row: the shape of a row.
        joined: whether the rows are the inputs.
    """

    count: int
    row: Shape
    joined: bool

    kind = "rows"

    def pull(
        self, semiring: Semiring, cotangents: Sequence[Elements | None]
    ) -> Mapping[int, Elements]:
        return dict(enumerate(self._move(semiring, cotangents, self.joined)))

    def push(
        self, semiring: Semiring, tangents: Mapping[int, Elements]
    ) -> Sequence[Elements | None]:
        n = self.count if self.joined else 1
        return self._move(semiring, [tangents.get(t) for t in range(n)], not self.joined)

    def leaving(self, position: int, index: np.ndarray) -> Iterator[tuple[int, Edges]]:
        size = el.size(self.row)
        if self.joined:
            yield 0, at_most_one(index + position * size, None)
        else:
            for t in np.unique(index // size):
                yield int(t), at_most_one(index - t * size, None, index // size == t)

    def _move(
        self, semiring: Semiring, elements: Sequence[Elements | None], split: bool
    ) -> list[Elements]:
        # In NumPy: XLA would compile it anew for every number of rows.
        if split:
            whole = jax.tree.map(np.asarray, elements[0])
            return [jax.tree.map(lambda leaf, t=t: leaf[t], whole) for t in range(self.count)]
        known = next(e for e in elements if e is not None)
        none = semiring.zero(self.row, semiring.dtype(known))
        rows = [none if e is None else e for e in elements]
        return [jax.tree.map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *rows)]
