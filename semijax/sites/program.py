"""A call whose intermediate arrays can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks, sweep
from semijax import elements as el
from semijax.elements import Elements
from semijax.jacobians.base import Collector
from semijax.semirings.base import Semiring
from semijax.semirings.jitted import Jitted
from semijax.sites.site import Place, marks
from semijax.sites.survey import Survey
from semijax.trace import compat
from semijax.trace.graph import Graph, build, reported_as, stage
from semijax.trace.module_scopes import naming_models

Argnums = int | Sequence[int] | None


class Program:
    """``fun(*args, **kwargs)`` as a jaxpr of its floating point arguments.

    What is traced decides which arrays there are, and so which array is called ``"sin#2"``: it is
    the same for every function that takes names of arrays, wherever paths start.

    Attributes:
        args: the arguments.
        closed: the jaxpr.
        leaves: the arrays it is to be run on.
        names: what they are called, as ``"[0]['w']"``.
        argnums: the positions of the arguments that they are from.
        axes: those mapped outside of the call over which it has collectives, so that its paths lead
            from and to other members.
        survey: its intermediate arrays.
        out_shapes: the tree of shapes of its output.
        caller: the function of this package that was called, for messages.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        traced: Argnums = None,
        *,
        caller: str,
    ) -> None:
        """Trace what is floating in all arguments, or in those at the positions ``traced``."""
        checks.check_callable(fun)
        chosen = list(range(len(args)))
        if traced is not None:
            chosen = checks.positions(checks.check_argnums(traced, "traced"), args, "traced")
        named = [(n, *leaf) for n in chosen for leaf in checks.named_leaves(n, args[n])]
        trees = [jax.tree.structure(args[n]) for n in chosen]

        @reported_as(fun)
        def of_traced(*arrays: Any) -> Any:
            given = iter(arrays)
            leaves = iter([next(given) if _is_floating(leaf) else leaf for *_, leaf in named])
            full = list(args)
            for n, tree in zip(chosen, trees, strict=True):
                full[n] = tree.unflatten([next(leaves) for _ in range(tree.num_leaves)])
            with naming_models(full):
                return fun(*full, **kwargs)

        floating = [leaf for leaf in named if _is_floating(leaf[2])]
        self.args, self.caller = args, caller
        self.argnums = [n for n, _, _ in floating]
        self.names = [name for _, name, _ in floating]
        self.leaves = [jnp.asarray(leaf) for *_, leaf in floating]
        try:
            self.closed, self.out_shapes = stage(of_traced, *self.leaves)
        except jax.errors.JAXTypeError as error:  # the function looks at a number
            error.add_note(f"{caller} traces all floating point arguments; traced=… says which.")
            raise
        exchanged = (names for _, names in compat.collectives(self.closed))
        self.axes = tuple(frozenset[Any]().union(*exchanged))
        self.survey = Survey(self.closed, self.names)
        self._values: dict[Graph, sweep.Values] = {}

    def graph(
        self, places: Sequence[Place | None] = (), starts: Mapping[Place, Any] | None = None
    ) -> Graph:
        """The graph with some arrays marked, and paths that start at some, see ``marks``."""
        active = [False] * len(self.leaves)
        return build(self.closed, active=active, marks=marks(places, starts or {}))

    def between(self, graph: Graph, semiring: Semiring, collect: Collector) -> dict[Any, Elements]:
        """What ``collect`` finds between where paths start and the output, which gets 1̄."""
        checks.check_scalar(self.out_shapes, self.caller)
        if graph not in self._values:  # side effects happen once, however often one looks
            self._values[graph] = sweep.evaluate(graph, self.leaves)
        values = self._values[graph]
        cotangent = semiring.one((), el.accumulation_dtype(self.out_shapes.dtype))
        return collect(graph, Jitted(semiring), values, [None] * len(self.leaves), [cotangent])


def _is_floating(leaf: Any) -> bool:
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return jnp.issubdtype(leaf.dtype, jnp.floating)
    return isinstance(leaf, float)
