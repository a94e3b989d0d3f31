"""From positions in the arrays of a run to nodes and paths that know their names."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from semijax import scopes
from semijax.graph import Equation
from semijax.paths.call import Call
from semijax.paths.path import Edge, Model, Node, Path
from semijax.paths.run import Array, Run, Step
from semijax.paths.walk import Trail


class Labels:
    """The nodes of a call. Paths that meet share theirs."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._model = Model(call.fun, call.args, call.kwargs)
        self.node = functools.cache(self._node)
        self._array = functools.cache(self._describe)
        self._source = functools.cache(_source)
        self._is_skip = functools.cache(functools.partial(_is_skip, call.run))

    def paths(self, trails: Iterable[Trail]) -> list[Path]:
        """What walkers noted, as objects."""
        return [self._path(trail) for trail in trails]

    def _path(self, trail: Trail) -> Path:
        nodes, edges = [self.node(*trail.start)], []
        for step, i, o, start, end, weight in trail.hops:
            nodes.append(self.node(step.outputs[o], end))
            index = _unravelled(start, step.inputs[i].shape)
            edges.append(Edge(weight, step.number, i, o, index, self._is_skip(step, i)))
        return Path(tuple(nodes), tuple(edges), self._call.argnums, self._model)

    def _node(self, array: Array, position: int) -> Node:
        values, common = self._array(array)
        index = _unravelled(position, array.shape)
        return Node(index=index, value=float(values[index]), **common)

    def _describe(self, array: Array) -> tuple[np.ndarray, dict[str, Any]]:
        """The values of the nodes, and what they have in common."""
        values = np.asarray(array.value)
        if np.iscomplexobj(values):
            values = np.stack([np.real(values), np.imag(values)], -1)
        common = {"shape": array.shape, "dtype": str(array.dtype)}
        if array.step is None:
            return values, {"variable": self._call.names[array.output], **common}
        equation = array.step.equation
        assert equation is not None  # rows are the nodes of the array they are of
        made = {
            "primitive": equation.name,
            "scope": equation.scope,
            "source": self._source(equation),
            "iteration": array.step.iteration,
        }
        return values, {"variable": f"v{array.number}", **common, **made}


def _unravelled(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for n in reversed(shape):
        position, i = divmod(position, n)
        index.append(i)
    return tuple(reversed(index))


def _source(equation: Equation) -> str:
    return equation.source


def _is_skip(run: Run, step: Step, i: int) -> bool:
    """Whether an edge is a residual connection.

    It adds what also goes elsewhere, and was made outside of the module, to what was made inside.
    """
    assert step.equation is not None
    here, array = step.equation.scope, step.inputs[i]
    if not here or step.equation.primitive.name not in ("add", "add_any"):
        return False
    others = [a for j, a in step.inputs.items() if j != i]
    outside = not scopes.is_within(array.scope, here)
    meets_inside = any(scopes.is_within(a.scope, here) for a in others)
    return outside and meets_inside and len(run.readers[array.number]) > 1
