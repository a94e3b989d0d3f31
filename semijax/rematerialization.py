"""What ``jax.checkpoint`` wraps is computed again when a reverse sweep comes to it.

Inside it, nothing that is needed once more is kept meanwhile, but for what its policy keeps. An
optimization barrier holds XLA back from computing it early, or only once, as in JAX's own reverse
mode.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import jax
import jax.core
from jax import lax

from semijax import sharding
from semijax.elements import Elements
from semijax.evaluation import Evaluation, evaluate_again
from semijax.trace.graph import Checkpoint, Equation, Graph, Variable

Arrived = Sequence[Elements | None]

Pending = MutableMapping[Variable, Elements]
"""The elements of variables that a reverse sweep has reached, and not come to yet."""


class Rematerialization:
    """The values that a reverse sweep reads: inside of ``jax.checkpoint``, recomputed ones.

    Args:
        graph: the function.
        at: its values and what its edges weigh.
    """

    def __init__(self, graph: Graph, at: Evaluation) -> None:
        self._graph = graph
        self._at = at
        # Numbers that are not traced stay anyway: computing them again would save nothing.
        known = [list(values.values()) for values in at.runs] if graph.checkpointed else []
        self._saves = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(known))
        self._inside: list[tuple[Checkpoint, Evaluation]] = []

    def enter(
        self, equation: Equation, arrived: Arrived, pending: Pending
    ) -> tuple[Evaluation, Arrived]:
        """Return the values at an equation, and what has arrived there.

        Args:
            equation: the next one, in reverse order.
            arrived: the elements of its outputs.
            pending: those of other variables. If a checkpoint begins here, its values are computed
                after all of its results' elements, which are replaced by the same numbers.
        """
        if not self._saves:
            return self._at, arrived
        inside = self._inside
        while inside and inside[-1][0] not in equation.checkpoints:
            inside.pop()
        for checkpoint in equation.checkpoints[len(inside) :]:
            at = inside[-1][1] if inside else self._at
            at, arrived = _entered(self._graph, checkpoint, at, arrived, pending)
            inside.append((checkpoint, at))
        return (inside[-1][1] if inside else self._at), arrived


def _entered(
    graph: Graph, checkpoint: Checkpoint, at: Evaluation, arrived: Arrived, pending: Pending
) -> tuple[Evaluation, Arrived]:
    """Compute values inside a checkpoint again, once elements have arrived there."""
    again: list[Equation] = []
    needed: dict[Variable, None] = {}  # a set, in the same order every time
    for equation in reversed(graph.checkpointed[checkpoint]):
        inside = equation.region is not None and equation.is_on_a_path
        read = inside or any(v in needed for v in equation.outputs)
        recomputed = read and not checkpoint.keeps(equation)
        if recomputed:
            again.append(equation)
            for v in equation.outputs:
                needed.pop(v, None)
        if recomputed or equation.is_on_a_path:
            needed.update((v, None) for v in equation.inputs if isinstance(v, Variable))
    if not again:
        return at, arrived
    given = [[values[v] for v in needed] for values in at.runs]
    made = [v for equation in graph.checkpointed[checkpoint] for v in equation.outputs]
    others = [v for v in made if v in pending]
    given, arrived, after = _after((given, arrived, [pending[v] for v in others]))
    pending.update(zip(others, after, strict=True))
    known = [dict(zip(needed, own, strict=True)) for own in given]
    return evaluate_again(again[::-1], at, known), arrived


def _after(everything: Any) -> Any:
    """Put an optimization barrier behind arrays: what reads one is computed after all of them.

    An array that occurs twice still does. In ``shard_map`` there is a barrier for those that vary
    over the same axes of the mesh; JAX has none for all.
    """
    leaves = jax.tree.leaves(everything)
    arrays = {id(leaf): leaf for leaf in leaves if isinstance(leaf, jax.Array)}
    kinds: dict[Any, dict[int, Any]] = {}
    for key, array in arrays.items():
        kinds.setdefault(sharding.varying(array), {})[key] = array
    for kind in kinds.values():
        arrays.update(zip(kind, lax.optimization_barrier([*kind.values()]), strict=True))
    return jax.tree.map(lambda leaf: arrays.get(id(leaf), leaf), everything)
