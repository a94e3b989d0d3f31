"""Semiring elements of intermediate arrays: from there to the output, or all the way through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from semijax import checks, pictures, tables
from semijax import elements as el
from semijax.elements import Elements, Shape
from semijax.flow import collectors
from semijax.flow.results import (
    TOTAL,
    Result,
    for_each_member,
    fraction,
    is_traced,
    of_what,
    reads_logs,
    result,
    shown,
)
from semijax.jacobians.collectives import over_members
from semijax.semirings import Semiring, as_semiring
from semijax.sites.axis_names import StatedAxes
from semijax.sites.program import Argnums, Program
from semijax.sites.site import Site
from semijax.sites.starts import start_program
from semijax.trace import scope_names
from semijax.weighting import DERIVATIVE, Weighting, check_weighting


@result("elements", "total_elements")
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SiteValues(Result):
    """The semiring's readout at some intermediate arrays, by the names of their sites.

    A mapping from the names of the sites to arrays, in the order of the program; it passes through
    ``jit`` and ``vmap``, which adds axes in front. It prints as a table: a few numbers for each
    site as they are, of more the smallest, the mean and the largest.

    Attributes:
        elements: the semiring's elements, by name.
        total_elements: those of all complete paths together, for ``site_flow``; else None.
        names: the names.
        loops: for each site, whether each of its axes counts the iterations of a loop; axes that
            ``vmap`` has added are left out.
        semiring: whose elements they are.
        granularity: ``"element"`` or ``"op"``.
        weighting: the name of what the edges weigh.
        by: the names of the axes that were kept, in the order of the arrays' axes, such as
            ``("token", "head")``; empty if they were not asked for by name, or sites differ.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sin(x) @ jnp.array([1.0, 2.0])
        >>> flow = sj.site_flow(f, sj.AbsSumProduct(), "sin")(jnp.zeros(2))
        >>> print(flow["sin"], flow.semiring)
        [1. 2.] AbsSumProduct()
        >>> [f"{share:.2f}" for share in flow.share()["sin"]]
        ['0.33', '0.67']
    """

    elements: Mapping[str, Elements]
    total_elements: Elements | None
    names: tuple[str, ...]
    loops: tuple[tuple[bool, ...], ...]
    semiring: Semiring
    granularity: str
    weighting: str
    by: tuple[str, ...] = ()

    @property
    def total(self) -> Any:
        """The semiring's reading of all complete paths, for ``site_flow``; else None."""
        total = self.total_elements
        return None if total is None else self.semiring.readout(total)

    def share(self) -> dict[str, jax.Array]:
        """Return the fraction of all complete paths that pass each element: of mass, or of number.

        For ``AbsSumProduct``, ``Entropy`` and the expectations, the fraction is of the gradient's
        mass, at any depth; for max-like semirings, it is the best path through each element divided
        by the best of all paths. Where there is no path, all shares are 0; where the total of all
        paths is infinite or not a number, they are NaN.

        Raises:
            ValueError: for the result of ``site_grads``, whose paths are not complete.
            TypeError: if the semiring has no shares, see ``Semiring.log_size``.
        """
        if self.total_elements is None:
            raise ValueError("Only complete paths have shares: use semijax.site_flow.")
        size = self.semiring.log_size
        total = size(self.total_elements)
        return {
            name: fraction(size(e), _behind(total, self.semiring.shape(e)))
            for name, e in ((name, self.elements[name]) for name in self.names)
        }

    def to_dataframe(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row per number: ``site``, ``index``, ``value``."""
        import pandas

        return pandas.DataFrame(
            [
                {"site": name, "index": index, "value": value}
                for name, array in self.items()
                for index, value in np.ndenumerate(np.asarray(array))
            ]
        )

    def plot(
        self, tokens: Sequence[str] | None = None, *, share: bool = False, **options: Any
    ) -> pictures.Picture:
        """Draw a heat map: a row per site (in a loop, per iteration), a column per token or head.

        With ``by=("token", "head")``, a site has a row for each of its tokens.

        Args:
            tokens: their labels; numbers by default.
            share: draw ``share()`` instead of the numbers themselves.
            **options: those of ``pictures.heat_map``.

        Raises:
            ValueError: if the sites do not all have one number per token, as with
                ``aggregate=-1`` (leading axes of size 1 don't matter); or a number is infinite
                though there is a path: infinite numbers are drawn as no path.
        """
        drawn = self.share() if share else self
        values = [np.asarray(drawn[name]) for name in self.names]
        labels = scope_names.without_common(self.names) if len(self) > 1 else self.names
        rows: dict[str, np.ndarray | None] = {}
        for name, label, value, loops in zip(self.names, labels, values, self.loops, strict=True):
            shape = self.semiring.shape(self.elements[name])
            added = len(shape) - len(loops)  # by vmap
            if value.shape != shape:  # several numbers for each element
                rows[label] = None
                continue
            for i in np.ndindex(shape[added : added + sum(loops)]):
                row = value[(*(slice(None),) * added, *i)]
                index = f"[{', '.join(map(str, i))}]" if i else ""
                kept = row.shape[-max(1, len(self.by)) :] if row.ndim > added else ()
                if len(kept) not in (1, 2) or row.size != el.size(kept):
                    rows[label + index] = None
                    continue
                for n, numbers in enumerate(row.reshape(-1, row.shape[-1])):
                    more = f", {self.by[0]} {n}" if len(kept) == 2 else ""
                    rows[label + index + more] = numbers
        known = [row for row in rows.values() if row is not None]
        if len(known) < len(rows) or len({*map(len, known)}) > 1:
            raise ValueError(
                "A heat map needs the same number of tokens at every site and one number for each, "
                f"got shapes {[v.shape for v in values]}: aggregate the other axes, or draw one "
                f"site, by pictures.heat_map(flow[{self.names[0]!r}])."
            )
        for name, numbers in zip(self.names, values, strict=True):
            if (np.isinf(numbers) & ~np.asarray(self.semiring.is_zero(self.elements[name]))).any():
                raise ValueError(
                    f"{self.semiring} is infinite at {name!r}, too large for its dtype: there is "
                    "no colour for that. plot(share=True) draws shares, which never overflow where "
                    "sizes are carried as logarithms, as the masses are."
                )
        unit = f"share of {of_what(self.semiring)}" if share else self.semiring.units
        normalisation = "all complete paths = 1; " if share else ""
        given: dict[str, Any] = {
            "rows": [*rows],
            "columns": [*map(str, range(len(known[0])))] if tokens is None else tokens,
            "unit": unit or str(self.semiring),
            "normalisation": f"{normalisation}{self._legend()}",
            "row_label": "site",
            "column_label": self.by[-1] if self.by else "token",
        }
        return pictures.heat_map(np.stack(known), **(given | options))

    def _table(self) -> tables.Table:
        if few := self._few():
            lines, count = few
            each = f"{self.by[-1]} {{}}" if self.by else "[{}]"
            columns = [each.format(i) for i in range(count)] if few != (1, 1) else ["value"]
            header = ("site", *self.by[:1]) if lines > 1 else ("site",)
            rows = [
                (name, *[str(line)][: lines - 1], *cells[line * count : (line + 1) * count])
                for name in self.names
                for cells in [self._cells(name)]
                for line in range(lines)
            ]
            right = range(1, len(header) + count)
            return tables.Table((*header, *columns), rows, right, legend=self._legend())
        rows = []
        for name in self.names:
            elements = self.elements[name]
            if is_traced(elements):
                rows.append((name, str(self.semiring.shape(elements)), "", "", ""))
                continue
            values = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(self[name])]
            flat = np.concatenate([v.ravel() for v in values])
            stats = [f(flat) for f in (np.min, np.mean, np.max)] if flat.size else []
            logs: list[Any] = [None] * len(stats)
            if stats and reads_logs(self.semiring):
                own = np.asarray(self.semiring.log_size(elements), np.float64).ravel()
                logs = [own.min(), np.logaddexp.reduce(own) - np.log(own.size), own.max()]
            cells = map(shown, stats, logs) if stats else [""] * 3
            rows.append((name, "×".join(map(str, values[0].shape)) or "scalar", *cells))
        header = ("site", "shape", "min", "mean", "max")
        return tables.Table(header, rows, right=(2, 3, 4), legend=self._legend())

    def _few(self) -> tuple[int, int] | None:
        """Return how many lines and columns show every number of a site; None if they are many."""
        if is_traced(self.elements):
            return None
        numbers = [jax.tree.leaves(self[name]) for name in self.names]
        shapes = {np.shape(leaf) for own in numbers for leaf in own}
        if len(shapes) != 1 or any(len(own) > 1 for own in numbers):
            return None
        (shape,) = shapes
        if any(self.semiring.shape(self.elements[name]) != shape for name in self.names):
            return None
        lines, columns = shape if len(shape) == len(self.by) == 2 else (1, max((1, *shape)))
        few = columns <= FEW and (lines == 1 or lines * len(self) <= LINES)
        return (lines, columns) if few and lines * columns == el.size(shape) else None

    def _cells(self, name: str) -> list[str]:
        values = np.ravel(np.asarray(self[name], np.float64))
        logs: Any = [None] * len(values)
        if reads_logs(self.semiring):
            logs = np.ravel(self.semiring.log_size(self.elements[name]))
        return [shown(value, log) for value, log in zip(values, logs, strict=True)]

    def _legend(self) -> str:
        return f"{self.semiring}, {self.conditions}"


FEW = 8
"""The most numbers in a line that are printed one by one."""

LINES = 40
"""The most lines of a table whose sites have several."""


def _behind(total: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Append axes of size 1 to those that vmap added in front."""
    return total.reshape(*total.shape, *(1,) * (len(shape) - total.ndim))


def site_grads(
    fun: Callable[..., Any],
    semiring: Any,
    sites: str | Sequence[str],
    traced: Argnums = None,
    *,
    aggregate: int | Sequence[int] | None = None,
    by: str | Sequence[str] | None = None,
    axes: StatedAxes = None,
    granularity: str = "element",
    weighting: Weighting = DERIVATIVE,
) -> Callable[..., Any]:
    """Compute the semiring gradient at intermediate arrays of a function, without editing it.

    The gradient at an element of a site is the ⊕ over all paths from that element to the output.
    Nothing before the sites needs to be differentiable: the arguments may be the integers that an
    embedding looks up.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        semiring: a ``Semiring``, or a tuple, list or dict of them.
        sites: names or globs, see ``list_sites``; ``"*/layer/*"`` are the outputs of the layers.
        traced: the positions of the arguments that are traced, see ``list_sites``; all by default.
            Arguments that decide Python's control flow must not be among them.
        aggregate: axes of every site to ⊕-combine, as for ``semiring_grad``; -1 for a number per
            token instead of one per hidden unit.
        by: in place of ``aggregate``, the axes to keep: ``"head"``, ``"token"`` or another name of
            an axis, or several names. All other axes are ⊕-combined, except those of loops. Those
            kept stay in the order of the array's axes.
        axes: names of axes, where ``by`` needs one that is not known, see ``top_paths``.
        granularity: ``"element"`` or ``"op"``, see ``semiring_grad``.
        weighting: what the edges weigh, and what a path carries where it starts, see
            ``semiring_grad``.

    Returns:
        A function with the arguments of ``fun`` that returns ``SiteValues``, a mapping from names
        to arrays of the site's shape less the aggregated axes (in front, one axis per ``scan`` that
        the site lies in), float32 at least; 0̄ where no path leads to the output. For a container of
        semirings, that container of them.

    Raises:
        TypeError, ValueError, NotImplementedError: as ``semiring_grad``, and ValueError where a
            name or glob matches nothing, ``by`` and ``aggregate`` are both given, or a site has no
            axis known by that name.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sum(jnp.sin(x) ** 2)
        >>> print(sj.site_grads(f, sj.SumProduct(), "sin")(jnp.zeros(2))["sin"])
        [0. 0.]
    """
    checks.check_callable(fun)

    checked = as_semiring(semiring, granularity)
    check_weighting(weighting)

    def values(*args: Any, **kwargs: Any) -> Any:
        call = Program(fun, args, kwargs, traced, caller="site_grads", weighting=weighting)
        chosen = call.survey.choose(sites)
        places = [site.place for site in chosen]
        graph = call.graph(places, dict.fromkeys(places))
        gone = _combined(call, chosen, aggregate, by, axes)
        found = call.between(graph, checked, collectors.from_sites)
        elements = collectors.at_places(checked, places, found)
        return _results(checked, chosen, elements, gone, granularity, {}, weighting)

    return values


def site_flow(
    fun: Callable[..., Any],
    semiring: Any,
    sites: str | Sequence[str],
    argnums: int | Sequence[int] = 0,
    *,
    source: Any = None,
    traced: Argnums = None,
    aggregate: int | Sequence[int] | None = None,
    by: str | Sequence[str] | None = None,
    axes: StatedAxes = None,
    granularity: str = "element",
    weighting: Weighting = DERIVATIVE,
) -> Callable[..., Any]:
    """Compute the flow through intermediate arrays on the way from the inputs to the output.

    The flow through an element of a site is the ⊕ over all complete paths that pass it. A complete
    path leads from any element of the arguments at ``argnums``, or of the arrays named as
    ``source``, to the output. By distributivity, the flow is forward ⊗ backward, with one sweep for
    each direction. For max-like semirings it is the best path through each element, for
    ``AbsSumProduct`` the gradient's mass that passes it.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        semiring: a ``Semiring``, or a tuple, list or dict of them.
        sites: names or globs, see ``list_sites``.
        argnums: the positional argument(s) where paths start.
        source: the arrays where paths start in place of these arguments, which may then be
            integers: ``"*/embeddings"``, see ``top_paths``. Every path starts at an element of one
            of these arrays, and may pass through another of them. Arrays computed before the source
            have no paths. In a loop, paths start in each iteration.
        traced: as for ``site_grads``.
        aggregate: axes to ⊕-combine, as for ``site_grads``.
        by: the axes to keep, as for ``site_grads``: ``by="head"`` gives the flow through each head
            of each layer, and ``plot()`` draws it.
        axes: names of axes, as for ``site_grads``.
        granularity: ``"element"`` or ``"op"``, see ``semiring_grad``.
        weighting: what the edges weigh, and what a path carries where it starts, see
            ``semiring_grad``.

    Returns:
        As ``site_grads``, of complete paths; ``share()`` of the result is the fraction of all that
        passes each element.

    Raises:
        TypeError, ValueError, IndexError, NotImplementedError: as ``site_grads``, and of the source
            as ``top_paths``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sin(x) + 3 * x
        >>> flow = sj.site_flow(f, sj.AbsSumProduct(), ["sin", "mul"])(0.0)
        >>> {name: float(share) for name, share in flow.share().items()}
        {'sin': 0.25, 'mul': 0.75}
    """
    checks.check_callable(fun)

    checked = as_semiring(semiring, granularity)
    check_weighting(weighting)

    def values(*args: Any, **kwargs: Any) -> Any:
        where = argnums, source, traced, "site_flow"
        call, starts = start_program(fun, args, kwargs, *where, weighting)
        chosen = call.survey.choose(sites)
        places = [*(site.place for site in chosen), *call.survey.outputs]
        gone = _combined(call, chosen, aggregate, by, axes)
        graph = call.graph(places, starts.masks())
        found = call.between(graph, checked, collectors.through_sites)
        *elements, whole = collectors.at_places(checked, places, found)
        # All complete paths end in the output; those of all members of an axis, in each one's.
        total = {TOTAL: over_members(checked, whole, call.axes) if call.axes else whole}
        return _results(checked, chosen, elements, gone, granularity, total, weighting)

    return values


@dataclasses.dataclass(frozen=True)
class _Combined:
    """The axes of a site that are ⊕-combined: of its array, or of a view of it.

    Attributes:
        axes: which.
        shape: the array's.
        view: the shape that these are axes of.
        by: the names of the axes that are left, in the array's order, if they were asked for.
    """

    axes: tuple[int, ...]
    shape: Shape
    view: Shape
    by: tuple[str, ...] = ()

    def of(self, semiring: Semiring, elements: Elements) -> Elements:
        """Return the elements that are left."""
        if not self.axes:
            return elements
        return semiring.sum(el.reshape(elements, self.shape, self.view), self.axes)


def _combined(
    call: Program,
    sites: Sequence[Site],
    aggregate: int | Sequence[int] | None,
    by: str | Sequence[str] | None,
    axes: StatedAxes,
) -> list[_Combined]:
    """Choose the axes to combine at each site."""
    if by is not None and aggregate is not None:
        raise ValueError("by names the axes to keep, aggregate those to combine: give one of them.")
    shapes = [
        s.place.shape + el.node_shape(s.place.variable)[len(s.place.variable.shape) :]
        for s in sites
    ]
    if by is None:
        given = () if aggregate is None else aggregate
        return [_Combined(checks.normalise_axes(given, len(s)), s, s) for s in shapes]
    names = call.axis_names(axes)
    wanted = [*dict.fromkeys([by] if isinstance(by, str) else by)]
    found = []
    for site, shape in zip(sites, shapes, strict=True):
        loops = len(site.place.loop_shape)
        kept = [names.axis(site, name) for name in wanted]
        if len({named.axis for named in kept}) < len(kept):
            raise ValueError(
                f"In {site.name!r} one axis belongs to several of {wanted}: ask for one."
            )
        view, gone = list(shape[:loops]), []
        for axis in range(loops, len(shape)):
            named = next((k for k in kept if k.axis == axis), None)
            sizes = (shape[axis],) if named is None or named.is_whole else named.sizes
            stays = None if named is None else len(view) + len(sizes) // 2
            gone += [a for a in range(len(view), len(view) + len(sizes)) if a != stays]
            view += sizes
        order = sorted(range(len(kept)), key=lambda n: kept[n].axis)
        left = tuple(wanted[n] for n in order)
        found.append(_Combined(tuple(gone), shape, tuple(view), left))
    return found


def _results(
    semiring: Semiring,
    sites: Sequence[Site],
    elements: Sequence[Elements],
    combined: Sequence[_Combined],
    granularity: str,
    total: Mapping[str, Elements],
    weighting: Weighting,
) -> Any:
    names = tuple(site.name for site in sites)
    orders = {own.by for own in combined}
    by = orders.pop() if len(orders) == 1 else ()
    loops = tuple(map(_loops_left, sites, combined))
    by_name = {
        name: own.of(semiring, element)
        for name, element, own in zip(names, elements, combined, strict=True)
    }

    def build(member: Semiring, elements: dict[Any, Elements]) -> SiteValues:
        total = elements.pop(TOTAL, None)
        how = granularity, str(weighting)
        return SiteValues(elements, total, names, loops, member, *how, by)

    return for_each_member(semiring, build, {**by_name, **total})


def _loops_left(site: Site, combined: _Combined) -> tuple[bool, ...]:
    """Tell, of the axes that are left at a site, which are those of loops."""
    loops = len(site.place.loop_shape)
    return tuple(a < loops for a in range(len(combined.view)) if a not in combined.axes)
