"""Intermediate arrays and their names: what can be asked for in a function, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend import source_info_util

from semijax import tables
from semijax.trace.graph import Equation, Marks, Module, Variable
from semijax.trace.primitives import primitive
from semijax.trace.regions import Region, ScanRegion

source_info_util.register_exclusion(__file__)  # the line of a tap is the user's

INPUT = ":input"
"""What the name of an array that a module reads ends with."""

TAP = primitive("name")
"""The primitive of ``tap``, which is that of ``jax.ad_checkpoint.checkpoint_name``."""

RegionPath = tuple[tuple[int, int], ...]
Consumer = tuple[Equation | None, int, int]


def tap(x: Any, name: str) -> Any:
    """Give intermediate arrays a name, to ask for them by it. The identity otherwise.

    It is ``jax.ad_checkpoint.checkpoint_name``: the identity under every JAX transformation, one
    node and one edge of weight 1 in the graph. Arrays that a model named with that function can
    be asked for too.

    Args:
        x: an array, or a pytree of arrays; each leaf gets the name.
        name: by which to find it: this name, or a glob; within the scope of a module also its path.

    Returns:
        The same arrays.

    Raises:
        TypeError: if the name is no string.
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
    """Whether an equation does nothing but give an array a name."""
    return equation.primitive is TAP


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """Where in a program an array is made.

    Attributes:
        region: the regions it lies in, each by its position among the equations and its body's.
        equation: the position of the equation that makes it; None for an input of the graph.
        output: its position among the outputs, or among the inputs.
        variable: the array, in one reading of the program; of the shape of one iteration.
        loops: what the regions it lies in run, from the outside in.
        made_by: the equation.
    """

    region: RegionPath
    equation: int | None
    output: int
    variable: Variable
    loops: tuple[Region, ...]
    made_by: Equation | None

    @property
    def loop_shape(self) -> tuple[int, ...]:
        """An axis for each scan."""
        return tuple(r.length for r in self.loops if isinstance(r, ScanRegion))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is found there."""
        return (*self.loop_shape, *self.variable.shape)

    @property
    def in_while(self) -> bool:
        """Whether it lies in a loop whose length is known only when it has run."""
        return any(region.iterations is None for region in self.loops)


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """An intermediate array under a name.

    Attributes:
        base: that of the module it comes out of, ``scope/primitive``, a tap's, or that of a module
            that reads it and ``:input``.
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
        """Whether it is named after a module that reads it."""
        return self.base.endswith(INPUT)

    @property
    def is_argument(self) -> bool:
        """Whether it is named as an argument of the function."""
        return self.place.made_by is None and self.module is None

    @property
    def scoped(self) -> str:
        """The name without what says that it is an input: that of a module, or of an equation."""
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
        """What no other site is called: the name, and ``#2`` for the second of several."""
        return f"{self.base}#{self.number}" if self.number else self.base


def marks(places: Sequence[Place | None]) -> Marks:
    """What to tell ``build``, so that arrays are known by their positions here."""
    return _marks([(n, place) for n, place in enumerate(places) if place], 0)


def _marks(numbered: Sequence[tuple[int, Place]], depth: int) -> Marks:
    arrays: dict[tuple[int | None, int], tuple[int, ...]] = {}
    inside: dict[int, dict[int, list[tuple[int, Place]]]] = {}
    for number, place in numbered:
        if len(place.region) == depth:
            here = place.equation, place.output
            arrays[here] = (*arrays.get(here, ()), number)
        else:
            equation, body = place.region[depth]
            inside.setdefault(equation, {}).setdefault(body, []).append((number, place))
    return Marks(
        arrays,
        {
            equation: {body: _marks(own, depth + 1) for body, own in by_body.items()}
            for equation, by_body in inside.items()
        },
    )


@dataclasses.dataclass(frozen=True)
class SiteRow:
    """One intermediate array.

    Attributes:
        names: by any of which to ask for it.
        scope: the module whose equation makes it; ``""`` for an argument.
        primitive: what makes it; ``"argument"`` for one.
        shape: its shape, with a first axis for each loop it lies in.
        dtype: its dtype.
        source: the line of the model that makes it.
    """

    names: tuple[str, ...]
    scope: str
    primitive: str
    shape: tuple[int, ...]
    dtype: str
    source: str


@dataclasses.dataclass(frozen=True, repr=False)
class SiteTable(tables.Printed):
    """The rows, in order of evaluation; prints as a table."""

    rows: tuple[SiteRow, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of every array."""
        return tuple(name for row in self.rows for name in row.names)

    def __iter__(self) -> Iterator[SiteRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def _table(self) -> tables.Table:
        cells = [
            (
                row.names[0],
                row.primitive,
                f"{row.dtype}[{', '.join(map(str, row.shape))}]",
                row.source,
                ", ".join(row.names[1:]),
            )
            for row in self.rows
        ]
        return tables.Table(("site", "primitive", "shape", "source", "also called"), cells)
