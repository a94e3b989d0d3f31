"""Intermediate arrays and their names: what can be asked for in a function, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.extend import source_info_util

from semijax import elements as el
from semijax.elements import Elements
from semijax.trace.graph import Equation, Marks, Module, Position, Variable
from semijax.trace.primitives import primitive
from semijax.trace.regions import Region, ScanRegion

source_info_util.register_exclusion(__file__)  # the line of a tap is the user's

INPUT = ":input"
"""The ending of the name of an array that a module reads."""

TAP = primitive("name")
"""The primitive of ``tap``, which is that of ``jax.ad_checkpoint.checkpoint_name``."""

RegionPath = tuple[tuple[int, int], ...]
Consumer = tuple[Equation | None, int, int]


def tap(x: Any, name: str) -> Any:
    """Give intermediate arrays a name to ask for them by. The identity otherwise.

    It is ``jax.ad_checkpoint.checkpoint_name``: the identity under every JAX transformation, one
    node and one edge of weight 1 in the graph. Arrays that a model named with that function can
    be asked for too.

    Args:
        x: an array, or a pytree of arrays; each leaf gets the name.
        name: the name to ask for it by, or to match with a glob; inside a module's scope, the
            module's path followed by the name works too.

    Returns:
        The same arrays.

    Raises:
        TypeError: if the name is not a string.
        ValueError: if it is empty, or ends with ``:input``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> def f(x):
        ...     h = sj.tap(jnp.sin(x), "hidden")
        ...     return jnp.sum(h * h)
        >>> g = sj.site_grads(f, sj.SumProduct(), "hidden")(jnp.zeros(2))
        >>> print(g["hidden"])
        [0. 0.]
    """
    if not isinstance(name, str):
        raise TypeError(f"tap expects a name, got {name!r} of type {type(name).__name__}.")
    if not name or name.endswith(INPUT):
        raise ValueError(f"A tap's name must not be empty, or end with {INPUT!r}, got {name!r}.")
    return jax.tree.map(lambda leaf: checkpoint_name(leaf, name), x)


def is_tap(equation: Equation) -> bool:
    """Tell whether an equation does nothing but give an array a name."""
    return equation.primitive is TAP


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """The place in a program where an array is made.

    Attributes:
        region: the regions it lies in, each by its position among the equations and its body's.
        equation: the position of the equation that makes it; None for an input of the graph.
        output: its position among the outputs, or among the inputs.
        variable: the array, in one reading of the program; of the shape of one iteration.
        loops: what the regions it lies in run, from the outside in.
        made_by: the equation.
        axes: its axes in the order in which the model's author sees them: those that ``vmap`` has
            mapped first, wherever it has put them. None where that cannot be told.
    """

    region: RegionPath
    equation: int | None
    output: int
    variable: Variable
    loops: tuple[Region, ...]
    made_by: Equation | None
    axes: tuple[int, ...] | None

    @property
    def position(self) -> Position:
        """The position in its graph where it is made."""
        return self.equation, self.output

    @property
    def loop_shape(self) -> tuple[int, ...]:
        """The lengths of the scans around it, an axis for each."""
        return tuple(r.length for r in self.loops if isinstance(r, ScanRegion))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is found there, as the model's author sees it."""
        own = self.variable.shape
        return (*self.loop_shape, *(own if self.axes is None else (own[a] for a in self.axes)))

    def seen(self, found: Elements, loops: int | None = None) -> Elements:
        """Return what was found there, with the axes in the order in which the author sees them.

        Args:
            found: an array, or elements, with the axes in which the array was made.
            loops: how many axes in front are those of loops; by default one for each scan.
        """
        return self._transposed(found, self.axes, loops)

    def made(self, seen: Elements, loops: int | None = None) -> Elements:
        """Invert ``seen``."""
        inverse = None if self.axes is None else tuple(np.argsort(self.axes).tolist())
        return self._transposed(seen, inverse, loops)

    def _transposed(self, array: Elements, axes: Any, loops: int | None) -> Elements:
        if axes is None or axes == tuple(range(len(axes))):
            return array
        n = len(self.loop_shape) if loops is None else loops
        return el.transpose(array, (*range(n), *(n + a for a in axes)))

    @property
    def in_while(self) -> bool:
        """True if it lies in a loop whose length is known only after it has run."""
        return any(region.iterations is None for region in self.loops)


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """An intermediate array under a name.

    Attributes:
        base: the name of the module it comes out of, ``scope/primitive``, a tap's name, or the name
            of a module that reads it and ``:input``.
        number: which of the arrays of this name it is, from 1 on; 0 if it is the only one.
        place: where it is made.
        consumers: the equations that read it and may lead a path on, None for the outputs of the
            graph, with the position of the equation and of what it reads.
        module: the use of a module it is the output or input of; None for a single equation's.
    """

    base: str
    number: int
    place: Place
    consumers: tuple[Consumer, ...]
    module: Module | None

    @property
    def is_input(self) -> bool:
        """True if it is named after a module that reads it."""
        return self.base.endswith(INPUT)

    @property
    def is_argument(self) -> bool:
        """True if it is named as an argument of the function."""
        return self.place.made_by is None and self.module is None

    @property
    def scoped(self) -> str:
        """The name without the ending of an input: that of a module, or of an equation."""
        return self.base.removesuffix(INPUT)

    @property
    def scope(self) -> str:
        """The module it is seen in: for an input the one that reads it, else where it is made."""
        if self.is_input:
            return self.scoped
        return self.place.made_by.scope if self.place.made_by else ""

    @property
    def tap(self) -> str | None:
        """The name it was given by hand; None if this is another of its names."""
        maker = self.place.made_by
        named = maker is not None and self.module is None and is_tap(maker)
        return maker.params["name"] if named and maker else None

    @property
    def name(self) -> str:
        """The name that no other site has: with ``#2`` for the second of several."""
        return f"{self.base}#{self.number}" if self.number else self.base

    def check_axes(self) -> None:
        """Raise unless the order in which its author sees its axes is known."""
        if self.place.axes is None:
            shape = self.place.variable.shape
            raise ValueError(
                f"Site {self.name!r} lies in a function that vmap maps, and which of its axes, of "
                f"sizes {shape}, is the mapped one cannot be told. Ask for another array, or name "
                "what comes out of the mapped function, with semijax.tap."
            )


def marks(places: Sequence[Place | None], starts: Mapping[Place, Any]) -> Marks:
    """Return the marks to give to ``build``.

    Args:
        places: the arrays asked for, which are then known by their positions here.
        starts: the arrays where paths start, each with a mask of its elements in the axes in which
            it was made; None for all.
    """
    return _marks([(n, place) for n, place in enumerate(places) if place], [*starts.items()], 0)


def _marks(
    numbered: Sequence[tuple[int, Place]], starts: Sequence[tuple[Place, Any]], depth: int
) -> Marks:
    arrays: dict[Position, tuple[int, ...]] = {}
    starting: dict[Position, Any] = {}
    inside: dict[int, dict[int, tuple[list[Any], list[Any]]]] = {}

    def deeper(place: Place) -> tuple[list[Any], list[Any]]:
        equation, body = place.region[depth]
        return inside.setdefault(equation, {}).setdefault(body, ([], []))

    for number, place in numbered:
        if len(place.region) == depth:
            arrays[place.position] = (*arrays.get(place.position, ()), number)
        else:
            deeper(place)[0].append((number, place))
    for place, mask in starts:
        if len(place.region) == depth:
            starting[place.position] = mask
        else:
            deeper(place)[1].append((place, mask))
    return Marks(
        arrays,
        starting,
        {
            equation: {body: _marks(*own, depth + 1) for body, own in by_body.items()}
            for equation, by_body in inside.items()
        },
    )
