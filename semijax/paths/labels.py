"""Nodes and paths that know their names, from positions in the arrays of a run."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from semijax.paths.backpointers import Bundle, Found
from semijax.paths.call import Call
from semijax.paths.path import Edge, Node, Path, Variable
from semijax.paths.run import Array, Run, Step
from semijax.trace import scope_names
from semijax.trace.primitives import primitives


class Labels:
    """The nodes of a call. Paths that meet share theirs."""

    def __init__(self, call: Call) -> None:
        self._call, self._run = call, call.run
        self._arrays: dict[tuple[Array, bool], tuple[Variable, np.ndarray, dict[int, Node]]] = {}
        self._sources: dict[Any, str] = {}
        self._arounds: dict[tuple[Step, int], tuple[str, ...]] = {}

    def paths(self, found: Found) -> list[Path]:
        """Return the paths of a search as objects."""
        if not found.ends:
            return []
        previous, place, start, end, weight = found.tree.columns()
        chains = []
        for pointer in found.ends:
            chain = []
            while pointer >= 0:
                chain.append(pointer)
                pointer = previous[pointer]
            chains.append(chain[::-1])
        used = np.unique([pointer for chain in chains for pointer in chain])
        places = np.array(place)[used]
        nodes: dict[int, Node] = {}
        edges: dict[int, Edge] = {}
        for number in np.unique(places):
            here, there = used[places == number], found.tree.places[number]
            is_edge = isinstance(there, Bundle)
            array = there.target if is_edge else there
            own = self.nodes(array, end[here], start=not is_edge)
            nodes.update(zip(here.tolist(), own, strict=True))
            if isinstance(there, Bundle):
                step, i, o, _ = there
                index = _indices(start[here], step.inputs[i].shape)
                around = self._around(step, i)
                for pointer, w, at in zip(here.tolist(), weight[here].tolist(), index, strict=True):
                    edges[pointer] = Edge(w, step.number, i, o, at, around)
        call = self._call
        fun = functools.partial(call.fun, *call.args, **call.kwargs)

        def path(chain: list[int]) -> Path:
            return Path(
                tuple([nodes[pointer] for pointer in chain]),
                tuple([edges[pointer] for pointer in chain[1:]]),
                call.argnums,
                call.sites,
                fun,
                **carried(chain[0]),
            )

        def carried(pointer: int) -> dict[str, Any]:
            if call.whole is None:
                return {"weighting": call.weighting}
            array = found.tree.places[place[pointer]]
            assert isinstance(array, Array)
            (amount,) = array.carried_at(np.array([end[pointer]])).tolist()
            return {"carried": amount, "whole": call.whole, "weighting": call.weighting}

        return [path(chain) for chain in chains]

    def nodes(self, array: Array, positions: np.ndarray, *, start: bool) -> list[Node]:
        """Return the nodes at these positions of an array.

        Args:
            array: the array.
            positions: the positions.
            start: whether paths start there: the array then has the name it was asked for by.
        """
        if (array, start) not in self._arrays:
            self._arrays[array, start] = (*self._describe(array, start), {})
        variable, values, known = self._arrays[array, start]
        new = np.array([p for p in np.unique(positions).tolist() if p not in known], int)
        numbers = values.ravel()[new].astype(float).tolist()
        for position, index, value in zip(
            new.tolist(), _indices(new, array.shape), numbers, strict=True
        ):
            known[position] = Node(variable, index, value)
        return [known[position] for position in positions.tolist()]

    def _describe(self, array: Array, start: bool) -> tuple[Variable, np.ndarray]:
        """Return what the nodes of an array have in common, and their values."""
        values = np.asarray(array.value)
        if np.iscomplexobj(values):
            values = np.stack([np.real(values), np.imag(values)], -1)
        name = self._call.names[array] if start else f"v{array.number}"
        equation = array.made_by
        if equation is None:
            assert start  # rows are nodes of the array that they are of
            primitive, source = "", ""
        else:
            if equation not in self._sources:
                self._sources[equation] = equation.source
            primitive, source = "" if start else equation.name, self._sources[equation]
        made = primitive, array.scope, source, array.iteration, *self._call.axes_of(array)
        return Variable(name, array.shape, str(array.dtype), *made), values

    def _around(self, step: Step, i: int) -> tuple[str, ...]:
        if (step, i) not in self._arounds:
            self._arounds[step, i] = around(self._run, step, i)
        return self._arounds[step, i]


SUMS = primitives("add", "add_any")
"""The primitives that join a residual connection and what it leads around."""

FAR = 3000
"""The largest number of steps that a residual connection spans."""


def around(run: Run, step: Step, i: int) -> tuple[str, ...]:
    """Return the modules that a residual connection leads around, if there is one.

    It adds an array to what was computed from that same array, in modules other than the sum's.
    """
    assert step.equation is not None
    array = step.inputs[i]
    while len(run.readers[array.number]) == 1 and array.step is not None:
        inputs = [*run.steps[array.step].inputs.values()]
        if len(inputs) != 1 or array.scope != step.scope:
            break
        array = inputs[0]  # where the sum is, it was only scaled or converted before
    others = [a for j, a in step.inputs.items() if j != i]
    first = min((reader.number for reader, _ in run.readers[array.number]), default=step.number)
    is_sum = step.equation.primitive in SUMS
    if not (is_sum and others) or not first < step.number <= first + FAR:
        return ()
    between = run.steps[first : step.number]
    computed = {array}
    for each in between:
        if any(a in computed for a in each.inputs.values()):
            computed.update(each.outputs.values())
    needed, visited = set(others), []
    for each in reversed(between):
        if any(a in needed for a in each.outputs.values()):
            through = [a for a in each.inputs.values() if a in computed]
            needed.update(a for a in through if a is not array)
            if through and each.equation is not None:
                visited.append(each.scope)
    return scope_names.branches(visited[::-1], step.scope)


def _indices(positions: np.ndarray, shape: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
    if not shape:
        return [()] * len(positions)
    return [*zip(*(axis.tolist() for axis in np.unravel_index(positions, shape)), strict=True)]
