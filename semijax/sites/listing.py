"""All names of all arrays of a function, as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from semijax import checks, tables
from semijax.sites.program import Argnums, Program
from semijax.sites.site import Place
from semijax.trace import scope_names


@dataclasses.dataclass(frozen=True)
class SiteRow:
    """One intermediate array.

    Attributes:
        names: the names by which to ask for it.
        scope: the module whose equation makes it; ``""`` for an argument.
        primitive: what makes it; ``"argument"`` for one.
        shape: its shape, with a first axis for each loop it lies in.
        dtype: its dtype.
        source: the line of the model that makes it.
        axes: what its axes are known to count, such as ``"token"`` and ``"head"``, see
            ``top_paths``; None for one of which nothing is known. As many as ``shape`` has.
    """

    names: tuple[str, ...]
    scope: str
    primitive: str
    shape: tuple[int, ...]
    dtype: str
    source: str
    axes: tuple[str | None, ...]

    @property
    def shape_text(self) -> str:
        """The dtype and the shape, with what the axes count: ``"float32[token 7, 24]"``."""
        pairs = zip(self.axes, self.shape, strict=True)
        return f"{self.dtype}[{', '.join(f'{a} {n}' if a else str(n) for a, n in pairs)}]"


@dataclasses.dataclass(frozen=True, repr=False)
class SiteTable(tables.Printed):
    """The rows, in order of evaluation, printed as a table."""

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
        within = scope_names.enclosing_all(self.names) if len(self.rows) > 1 else ""
        return self._without(within)

    def _whole_table(self) -> tables.Table:
        return self._without("")

    def _without(self, within: str) -> tables.Table:
        start = len(within) + 1 if within else 0

        def short(names: Sequence[str]) -> list[str]:
            return [name[start:] or name for name in names]

        cells = [
            (
                *short(row.names[:1]),
                row.primitive,
                row.shape_text,
                tables.line_text(row.source),
                ", ".join(short(row.names[1:])),
            )
            for row in self.rows
        ]
        header = "site", "primitive", "shape", "source", "also called"
        legend = f"All names begin with '{within}/', which is left out here." if within else ""
        return tables.Table(header, cells, legend=legend)


def list_sites(
    fun: Callable[..., Any],
    traced: Argnums = None,
    *,
    match: str | Sequence[str] | None = None,
    axis: str | None = None,
) -> Callable[..., SiteTable]:
    """List the intermediate arrays of a function, with the names by which to ask for them.

    Args:
        fun: any function of arrays or pytrees of arrays.
        traced: the positions of the arguments that are traced; all by default. Only their floating
            point numbers are traced. Set ``traced`` if other arguments decide Python's control
            flow.
        match: list only the arrays that one of these names or globs means: ``"*/attention*"``.
        axis: list only the arrays that have an axis of this name, or an axis that contains it, such
            as queries with all heads side by side. These are the arrays for which ``by=`` works
            with this name.

    Returns:
        A function with the arguments of ``fun`` that returns a ``SiteTable``, without running it.
        Print it: for each floating point array its names, the scope and the primitive that make it,
        its shape and the line of the model. An array has several names:

        * ``scope/primitive``, such as ``"Model/layer_0/query/dot_general"``;
        * the name of a module whose output it is, ``"Model/layer_0/query"``;
        * the name of a module that reads it, ``"Model/layer_1:input"``;
        * the name of a ``tap``, or of an argument, ``"[0]['w']"``.

        Where several arrays have the same name, such as those of a module that is used twice, they
        are numbered, ``"Model/shared#2"``; the name without the number means all of them. In a scan
        an array has one value per iteration, and a first axis for them.

        A name may be a glob, whose ``*`` matches slashes too: ``"*/query"``. A module that matches
        stands for its outputs, not for the arrays inside it: ``"*/layer/*"`` picks the outputs of
        the layers, ``"*/query/add"`` the sums in the modules called query.

    Raises:
        ValueError: if ``match`` means nothing, or no array has such an axis.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> sj.list_sites(lambda x: jnp.sin(jnp.cos(x)).sum())(jnp.ones(3)).names
        ('[0]', 'cos', 'sin', 'reduce_sum')
    """
    checks.check_callable(fun)

    def listed(*args: Any, **kwargs: Any) -> SiteTable:
        program = Program(fun, args, kwargs, traced, caller="list_sites")
        survey, axes = program.survey, program.axis_names()
        patterns = [match] if isinstance(match, str) else match or ()
        wanted = {site.place for pattern in patterns for site in survey.picked(pattern)}
        names: dict[Place, list[str]] = {}
        for site in survey.sites:
            if match is None or site.place in wanted:
                names.setdefault(site.place, []).append(site.name)
        if axis is not None:
            names = {place: own for place, own in names.items() if axis in axes.within(place)}
            if not names:
                known = scope_names.listed(sorted(axes.known)) or "none"
                inside = "" if match is None else " A matching module stands for its output alone."
                raise ValueError(
                    f"No array that would be listed has an axis known as {axis!r}.{inside} In the "
                    f"whole function, axes are known as: {known}."
                )
        return SiteTable(
            tuple(
                SiteRow(
                    tuple(own),
                    place.made_by.scope if place.made_by else "",
                    place.made_by.name if place.made_by else "argument",
                    place.shape,
                    str(place.variable.dtype),
                    place.made_by.source if place.made_by else "",
                    axes.seen(place),
                )
                for place, own in names.items()
            )
        )

    return listed
