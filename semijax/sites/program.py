"""A call whose intermediate arrays can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from semijax import checks
from semijax import elements as el
from semijax.arguments import paired_leaves, replaced
from semijax.elements import Elements
from semijax.evaluation import Evaluation, Runs, check_finite, evaluate
from semijax.jacobians.base import Collector
from semijax.semirings.base import Semiring
from semijax.semirings.jitted import Jitted
from semijax.sites.axis_names import AxisNames, StatedAxes, stated_axes
from semijax.sites.site import Place, marks
from semijax.sites.survey import Survey
from semijax.trace import compat
from semijax.trace.graph import Graph, build, reported_as, stage
from semijax.trace.module_scopes import naming_models
from semijax.weighting import DERIVATIVE, Weighting, check_weighting

Argnums = int | Sequence[int] | None


class Program:
    """``fun(*args, **kwargs)`` as a jaxpr of its floating point arguments.

    What is traced decides which arrays exist, and so which array is called ``"sin#2"``: it is the
    same for every function that takes names of arrays, wherever paths start.

    Attributes:
        args: the arguments.
        closed: the jaxpr.
        leaves: the arrays it is to be run on.
        runs: the same, and those of the run it is compared with if the weighting compares two.
        names: what they are called, such as ``"[0]['w']"``.
        argnums: the positions of the arguments that they are from.
        axes: those mapped outside the call over which it has collectives, so that its paths lead
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
        weighting: Weighting = DERIVATIVE,
    ) -> None:
        """Trace what is floating in all arguments, or in those at the positions ``traced``.

        Trace whatever may differ in the run it is compared with, too.
        """
        checks.check_callable(fun)
        chosen = list(range(len(args)))
        if traced is not None:
            chosen = checks.positions(checks.check_argnums(traced, "traced"), args, "traced")
        everything = paired_leaves(args, check_weighting(weighting).reference, sorted(chosen))
        leaves = [
            leaf
            for leaf in everything
            if leaf.differs or (leaf.is_floating and leaf.argnum in chosen)
        ]

        @reported_as(fun)
        def of_traced(*arrays: Any) -> Any:
            given = {leaf.name: x for leaf, x in zip(leaves, arrays, strict=True)}
            full = replaced(args, everything, given)
            with naming_models(full):
                return fun(*full, **kwargs)

        self.args: tuple[Any, ...] = args
        self.caller: str = caller
        self.argnums: list[int] = [leaf.argnum for leaf in leaves]
        self.names: list[str] = [leaf.name for leaf in leaves]
        self.runs: Runs = Runs.of_arguments(leaves, weighting, backward=True)
        self.leaves: list[Any] = list(self.runs.inputs[0])
        try:
            staged = stage(of_traced, *self.leaves)
        except jax.errors.JAXTypeError as error:  # the function looks at a number
            error.add_note(f"{caller} traces all floating point arguments; traced=… says which.")
            raise
        self.closed: Any
        self.out_shapes: Any
        self.closed, self.out_shapes = staged
        exchanged = (names for _, names in compat.collectives(self.closed))
        self.axes: tuple[Any, ...] = tuple(frozenset[Any]().union(*exchanged))
        self.survey: Survey = Survey(self.closed, self.names)
        self._evaluated: dict[Graph, Evaluation] = {}

    def graph(
        self, places: Sequence[Place | None] = (), starts: Mapping[Place, Any] | None = None
    ) -> Graph:
        """Return the graph with some arrays marked, and paths that start at some, see ``marks``."""
        active = [False] * len(self.leaves)
        return build(self.closed, active=active, marks=marks(places, starts or {}))

    def axis_names(self, axes: StatedAxes = None) -> AxisNames:
        """Return the names of the axes of its arrays, with those that the user states."""
        return AxisNames(build(self.closed), stated_axes(self.survey, axes))

    def evaluation(self, graph: Graph) -> Evaluation:
        """Evaluate a graph; side effects happen once, however often this is called."""
        if graph not in self._evaluated:
            self._evaluated[graph] = evaluate(graph, self.runs)
        return self._evaluated[graph]

    def between(self, graph: Graph, semiring: Semiring, collect: Collector) -> dict[Any, Elements]:
        """Return what ``collect`` finds between paths' starts and the output, which gets 1̄."""
        checks.check_scalar(self.out_shapes, self.caller)
        at = self.evaluation(graph)
        cotangent = semiring.one((), el.accumulation_dtype(self.out_shapes.dtype))
        found = collect(graph, Jitted(semiring), at, [None] * len(self.leaves), [cotangent])
        check_finite(graph, semiring, at, found.values())
        return found
