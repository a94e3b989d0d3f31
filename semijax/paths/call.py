"""A call whose paths are asked for: the function traced and run, and its arrays named."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from semijax import checks
from semijax import elements as el
from semijax.paths.run import Array, Run
from semijax.sites.axis_names import AxisNames, Names, StatedAxes
from semijax.sites.program import Argnums
from semijax.sites.site import Place
from semijax.sites.starts import start_program
from semijax.trace import scope_names
from semijax.trace.regions import ScanRegion
from semijax.weighting import DERIVATIVE, Weighting


class Call:
    """``fun(*args, **kwargs)``, with paths from where they start to its scalar output.

    Attributes:
        fun, args, kwargs: the call.
        argnums: the positions of the arguments that paths start from, where no site is named.
        sites: the names of the sites that they start from; none if they start from the arguments.
        text: where they start, for a message.
        through: where they have to pass, as it was asked for.
        names: what the arrays where they start are called.
        sources: the positions in each of these arrays; None for all.
        passes: whether a path has passed where it has to, once it is at a node of an array; None if
            it does not have to pass anywhere.
        run: the steps.
        end: the array of the output; None where no path reaches it.
        weighting: what the edges weigh.
        whole: what all paths contribute, if they carry anything: the difference of the outputs.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        argnums: int | Sequence[int] = 0,
        source: Any = None,
        through: str | None = None,
        traced: Argnums = None,
        *,
        axes: StatedAxes = None,
        caller: str,
        weighting: Weighting = DERIVATIVE,
    ) -> None:
        self.weighting = weighting
        self.fun: Callable[..., Any] = fun
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs
        given = args, kwargs, weighting.reference
        self._check_concrete(caller, [*jax.tree.leaves(given), jnp.zeros(())])
        where = argnums, source, traced, caller
        program, starts = start_program(fun, args, kwargs, *where, weighting)
        checks.check_scalar(program.out_shapes, caller)
        numbers = checks.check_argnums(argnums)
        self.argnums: tuple[int, ...] = (
            () if starts.sites else tuple(checks.positions(numbers, args))
        )
        self.sites: tuple[str, ...] = starts.sites
        self.text: str = starts.text
        self.through: str | None = through
        through_scope = through is None or scope_names.any_match(through, program.survey.scopes)
        wanted = [] if through_scope else program.survey.picked(through, "scope or site")
        places = [start.place for start in starts.arrays] + [site.place for site in wanted]
        graph = program.graph(places, {start.place: None for start in starts.arrays})
        self._check_concrete(caller, graph.constants.values())
        self._program, self._axes = program, axes
        if axes is not None:
            _ = self.axes  # whether they are names of axes
        self.run: Run = Run(graph, program.runs)
        self.end: Array | None = self.run.outputs[0]
        whole = weighting.at_start(*(jnp.asarray(x) for x in self.run.results[0]))
        self.whole: float | None = None if whole is None else float(whole)
        self.names: dict[Array, str] = {}
        self.sources: dict[Array, np.ndarray | None] = {}
        for number, start in enumerate(starts.arrays):
            for iteration, array in self.run.marked.get(number, ()):
                self.names[array] = start.name
                positions = _positions(start.place, start.mask, iteration)
                if positions is None or len(positions):
                    self.sources[array] = positions
        self.passes: Callable[[Array], bool] | None = None
        if through is not None and through_scope:
            matches = scope_names.check_pattern(through, self.run.scopes)
            self.passes = lambda array: array.made_by is not None and matches(array.scope)
        elif through is not None:
            numbers = range(len(starts.arrays), len(places))
            on_the_way = {a for n in numbers for _, a in self.run.marked.get(n, ())}
            self.passes = on_the_way.__contains__

    @functools.cached_property
    def axes(self) -> AxisNames:
        """The names of the axes of all arrays."""
        return self._program.axis_names(self._axes)

    def axes_of(self, array: Array) -> tuple[Names, Names]:
        """Return the names of an array's axes, and what the iterations of loops around it count.

        There are none for rows that a loop reads or has written.
        """
        if array.made_by is None and array.step is not None:
            return (), ()
        number = None if array.made_by is None else array.made_by.number
        own = self.axes.of((array.path, number, array.output))
        return own, self.axes.of_iterations(array.path)

    def axis_of(self, array: Array, name: str) -> int | None:
        """Return the first axis of this name; of attention scores ``[query, key]`` the query's."""
        axes, _ = self.axes_of(array)
        return axes.index(name) if name in axes else None

    def indices(self, array: Array, name: str) -> np.ndarray | None:
        """Return each node's index along an axis of this name, else that of a loop over it.

        The result's shape broadcasts to the array's.
        """
        axis, (_, loops) = self.axis_of(array, name), self.axes_of(array)
        if axis is not None:
            apart = [n if a == axis else 1 for a, n in enumerate(array.shape)]
            return np.arange(array.shape[axis]).reshape(apart)
        return np.array(array.iteration[loops.index(name)]) if name in loops else None

    def along(self, array: Array, name: str) -> int | np.ndarray | None:
        """Return these indices for all nodes in a row, or one number if it is the same for all."""
        found = self.indices(array, name)
        if found is None or not found.ndim:
            return None if found is None else int(found)
        return np.broadcast_to(found, array.shape).ravel()

    def _check_concrete(self, caller: str, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, jax.core.Tracer):
                raise jax.errors.ConcretizationTypeError(
                    value,
                    f"{caller} returns Python objects that depend on the numbers. Call it outside "
                    "of jit, vmap and grad.",
                )


def _positions(place: Place, mask: Any, iteration: Sequence[int]) -> np.ndarray | None:
    """Return the positions where paths start in an array of one iteration; None for everywhere."""
    if mask is None:
        return None
    loops = [region for region in place.loops if region.is_loop]
    scans = zip(iteration, loops, strict=True)
    of_iteration = tuple(i for i, region in scans if isinstance(region, ScanRegion))
    made = np.asarray(place.made(np.asarray(mask)[of_iteration], 0))
    nodes = el.node_shape(place.variable)
    spread = made.reshape(made.shape + (1,) * (len(nodes) - made.ndim))
    return np.flatnonzero(np.broadcast_to(spread, nodes))
