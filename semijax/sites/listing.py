"""All names of all arrays of a function, as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from semijax import checks, tables
from semijax.sites.program import Argnums, Program


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


def list_sites(fun: Callable[..., Any], traced: Argnums = None) -> Callable[..., SiteTable]:
    """List the intermediate arrays of a function: by which names they can be asked for.

    Args:
        fun: any function of arrays or pytrees of arrays.
        traced: the positions of the arguments that are traced; all by default. Only the floating
            point numbers in them are. Give it where others decide the control flow in Python.

    Returns:
        A function with the arguments of ``fun`` that returns a ``SiteTable``, without running it.
        Print it: for each floating point array its names, the scope and the primitive that make it,
        its shape and the line of the model. An array has several names:

        * ``scope/primitive``, as ``"Model/layer_0/query/dot_general"``;
        * that of a module it comes out of, ``"Model/layer_0/query"``;
        * that of a module that reads it, ``"Model/layer_1:input"``;
        * that of a ``tap``; and an argument's, ``"[0]['w']"``.

        Where several arrays have the same name, as those of a module that is used twice, they are
        numbered, ``"Model/shared#2"``; the name without the number means all of them. In a scan an
        array has one value per iteration, and a first axis for them.

        A name may be a glob, whose ``*`` matches slashes too: ``"*/query"``. A module that matches
        stands for what comes out of it, and what lies within it is not meant: ``"*/layer/*"`` are
        the layers, ``"*/query/add"`` the sums in the modules called query.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> sj.list_sites(lambda x: jnp.sin(jnp.cos(x)).sum())(jnp.ones(3)).names
        ('[0]', 'cos', 'sin', 'reduce_sum')
    """
    checks.check_callable(fun)

    def listed(*args: Any, **kwargs: Any) -> SiteTable:
        survey = Program(fun, args, kwargs, traced, caller="list_sites").survey
        names: dict[Any, list[str]] = {}
        for site in survey.sites:
            names.setdefault(site.place, []).append(site.name)
        return SiteTable(
            tuple(
                SiteRow(
                    tuple(own),
                    place.made_by.scope if place.made_by else "",
                    place.made_by.name if place.made_by else "argument",
                    place.shape,
                    str(place.variable.dtype),
                    place.made_by.source if place.made_by else "",
                )
                for place, own in names.items()
            )
        )

    return listed
