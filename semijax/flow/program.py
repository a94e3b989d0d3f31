"""A call whose intermediate arrays can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks, sweep
from semijax import elements as el
from semijax.elements import Elements
from semijax.flow.sites import Place, marks
from semijax.flow.survey import Survey
from semijax.jacobians.base import Collector
from semijax.semirings.base import Semiring
from semijax.semirings.jitted import Jitted
from semijax.trace.graph import Graph, build, stage
from semijax.trace.module_scopes import naming_models

Argnums = int | Sequence[int] | None


class Program:
    """``fun(*args, **kwargs)`` as a jaxpr of its floating point arguments.

    Attributes:
        closed: the jaxpr.
        leaves: the arrays it is to be run on.
        survey: its intermediate arrays.
        out_shapes: the tree of shapes of its output.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        argnums: Argnums = None,
        *,
        caller: str,
    ) -> None:
        """Trace it with respect to ``argnums``, or to all that is floating for None."""
        checks.check_callable(fun)
        if argnums is None:
            chosen = list(range(len(args)))
        else:
            chosen = checks.positions(checks.check_argnums(argnums), args)
            checks.check_inputs(caller, tuple(args[i] for i in chosen))
        named = [leaf for n in chosen for leaf in checks.named_leaves(n, args[n])]
        traced = [(name, leaf) for name, leaf in named if _is_floating(leaf)]
        trees = [jax.tree.structure(args[n]) for n in chosen]

        def of_traced(*arrays: Any) -> Any:
            given = iter(arrays)
            leaves = iter([next(given) if _is_floating(leaf) else leaf for _, leaf in named])
            full = list(args)
            for n, tree in zip(chosen, trees, strict=True):
                full[n] = tree.unflatten([next(leaves) for _ in range(tree.num_leaves)])
            with naming_models(full):
                return fun(*full, **kwargs)

        self.leaves = [jnp.asarray(leaf) for _, leaf in traced]
        self.closed, self.out_shapes = stage(of_traced, *self.leaves)
        self.survey = Survey(self.closed, [name for name, _ in traced])
        self._caller = caller

    def graph(self, places: Sequence[Place | None], *, from_arguments: bool = False) -> Graph:
        """The graph, for paths from some arrays, or from the arguments."""
        active = [from_arguments] * len(self.leaves)
        return build(self.closed, active=active, marks=marks(places))

    def between(
        self, graph: Graph, semiring: Semiring, collect: Collector, *, from_arguments: bool = False
    ) -> dict[Any, Elements]:
        """What ``collect`` finds between the arguments and the output, which gets 1̄."""
        checks.check_scalar(self.out_shapes, self._caller)
        values = sweep.evaluate(graph, self.leaves)
        cotangent = semiring.one((), el.accumulation_dtype(self.out_shapes.dtype))
        tangents: list[Elements | None] = [None] * len(self.leaves)
        if from_arguments:
            tangents = [
                semiring.one(el.node_shape(leaf), el.accumulation_dtype(leaf.dtype))
                for leaf in self.leaves
            ]
        return collect(graph, Jitted(semiring), values, tangents, [cotangent])


def _is_floating(leaf: Any) -> bool:
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return jnp.issubdtype(leaf.dtype, jnp.floating)
    return isinstance(leaf, float)
