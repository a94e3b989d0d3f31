"""Semiring elements of intermediate arrays: from there to the output, or all the way through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from semijax import checks, pictures, tables
from semijax.elements import Elements
from semijax.flow import collectors
from semijax.flow.ablation import program_from
from semijax.flow.program import Argnums, Program
from semijax.flow.results import (
    TOTAL,
    Result,
    for_each_member,
    fraction,
    is_traced,
    log_size,
    named,
    result,
    shown,
)
from semijax.flow.sites import SiteRow, SiteTable
from semijax.semirings import Semiring, as_semiring
from semijax.trace import scope_names


def list_sites(fun: Callable[..., Any], argnums: Argnums = None) -> Callable[..., SiteTable]:
    """List the intermediate arrays of a function: by which names they can be asked for.

    Args:
        fun: any function of arrays or pytrees of arrays.
        argnums: which arguments are traced; all floating point numbers in them by default.

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
        survey = Program(fun, args, kwargs, argnums, caller="list_sites").survey
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


@result("elements", "total")
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SiteValues(Result):
    """A number, or several, for every element of some intermediate arrays.

    A mapping from the names of the sites to arrays, in the order of the program; it passes through
    ``jit`` and ``vmap``, which adds axes in front. It prints as a table.

    Attributes:
        elements: the semiring's elements, by name.
        total: the elements of all complete paths together, for ``site_flow``; else None.
        names: the names.
        semiring: whose elements they are.
        granularity: ``"element"`` or ``"op"``.
    """

    elements: Mapping[str, Elements]
    total: Elements | None
    names: tuple[str, ...]
    semiring: Semiring
    granularity: str

    def share(self) -> dict[str, jax.Array]:
        """How much of all complete paths pass each element: of the mass, of their number.

        For ``AbsSumProduct`` the share of the gradient's mass; for ``Entropy`` the same number, by
        logarithms that never overflow; for max-like semirings the best path through each element
        over the best of all.

        Raises:
            ValueError: for the result of ``site_grads``, whose paths are not complete.
            TypeError: if the semiring has no shares.
        """
        if self.total is None:
            raise ValueError("Only complete paths have shares, those of semijax.site_flow.")
        total = log_size(self.semiring, self.total)
        return {
            name: fraction(log_size(self.semiring, e), _behind(total, self.semiring.shape(e)))
            for name, e in ((name, self.elements[name]) for name in self.names)
        }

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame`` with a row per number: ``site``, ``index``, ``value``."""
        import pandas

        return pandas.DataFrame(
            [
                {"site": name, "index": index, "value": value}
                for name, array in self.items()
                for index, value in np.ndenumerate(np.asarray(array))
            ]
        )

    def plot(self, tokens: Sequence[str] | None = None, **options: Any) -> pictures.Picture:
        """A heat map, a row per site and a column per token.

        Args:
            tokens: their labels; numbers by default.
            **options: those of ``pictures.heat_map``.

        Raises:
            ValueError: if the sites do not all have one number per token, as with
                ``aggregate=-1``; leading axes of size 1 don't matter.
        """
        values = [np.asarray(self[name]) for name in self.names]
        rows = [v.reshape(v.shape[-1:]) if v.size == v.shape[-1] else v for v in values if v.ndim]
        shapes = {row.shape for row in rows}
        if len(rows) < len(values) or len(shapes) > 1 or len(rows[0].shape) != 1:
            raise ValueError(
                "A heat map needs the same number of tokens at every site and one number for each, "
                f"got shapes {[v.shape for v in values]}: aggregate the other axes."
            )
        given: dict[str, Any] = {
            "rows": scope_names.without_common([*self.names]) if len(rows) > 1 else self.names,
            "columns": [*map(str, range(rows[0].size))] if tokens is None else tokens,
            "unit": self.semiring.units or named(self.semiring),
            "normalisation": f"none; {self._legend()}",
            "row_label": "site",
        }
        return pictures.heat_map(np.stack(rows), **(given | options))

    def _table(self) -> tables.Table:
        rows = []
        for name in self.names:
            if is_traced(self.elements[name]):
                rows.append((name, str(self.semiring.shape(self.elements[name])), "", "", ""))
                continue
            values = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(self[name])]
            flat = np.concatenate([v.ravel() for v in values])
            stats = [shown(f(flat)) for f in (np.min, np.mean, np.max)] if flat.size else [""] * 3
            rows.append((name, "×".join(map(str, values[0].shape)) or "scalar", *stats))
        header = ("site", "shape", "min", "mean", "max")
        return tables.Table(header, rows, right=(2, 3, 4), legend=self._legend())

    def _legend(self) -> str:
        return f"{named(self.semiring)}, granularity {self.granularity!r}"


def _behind(total: jax.Array, shape: Sequence[int]) -> jax.Array:
    """With axes of size 1 behind those that vmap added in front."""
    return total.reshape(*total.shape, *(1,) * (len(shape) - total.ndim))


def site_grads(
    fun: Callable[..., Any],
    semiring: Any,
    sites: str | Sequence[str],
    argnums: Argnums = None,
    *,
    aggregate: int | Sequence[int] | None = None,
    granularity: str = "element",
) -> Callable[..., Any]:
    """The semiring gradient at intermediate arrays of a function, which is not touched for it.

    For every element of the sites: the ⊕ over all paths from it to the output. Nothing needs to be
    differentiable before them: the arguments may be the integers that an embedding looks up.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        semiring: a ``Semiring``, or a tuple, list or dict of them.
        sites: names or globs, see ``list_sites``; ``"*/layer/*"`` are the outputs of the layers.
        argnums: which arguments are traced; by default all floating point numbers. What decides the
            control flow in Python must not be.
        aggregate: axes of every site to ⊕-combine, as for ``semiring_grad``; -1 for a number per
            token instead of one per hidden unit.
        granularity: ``"element"`` or ``"op"``, see ``semiring_grad``.

    Returns:
        A function with the arguments of ``fun`` that returns ``SiteValues``, a mapping from names
        to arrays of the site's shape less the aggregated axes (in front, one axis per ``scan`` that
        the site lies in), float32 at least; 0̄ where no path leads to the output. For a container of
        semirings, that container of them.

    Raises:
        TypeError, ValueError, NotImplementedError: as ``semiring_grad``, and ValueError where a
            name or glob matches nothing.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sum(jnp.sin(x) ** 2)
        >>> print(sj.site_grads(f, sj.SumProduct(), "sin")(jnp.zeros(2))["sin"])
        [0. 0.]
    """
    checks.check_callable(fun)

    def program(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        return Program(fun, args, kwargs, argnums, caller="site_grads")

    return _at_sites(program, semiring, sites, aggregate, granularity, complete=False)


def site_flow(
    fun: Callable[..., Any],
    semiring: Any,
    sites: str | Sequence[str],
    argnums: int | Sequence[int] = 0,
    *,
    source: str | Sequence[str] | None = None,
    aggregate: int | Sequence[int] | None = None,
    granularity: str = "element",
) -> Callable[..., Any]:
    """What flows through intermediate arrays on its whole way from the inputs to the output.

    For every element of the sites: the ⊕ over all complete paths, from any element of the
    arguments at ``argnums`` to the output, that pass it. By distributivity that is forward ⊗
    backward, one sweep each. For max-like semirings it is the best path through each unit, for
    ``AbsSumProduct`` the gradient's mass that passes it.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        semiring: a ``Semiring``, or a tuple, list or dict of them.
        sites: names or globs, see ``list_sites``.
        argnums: the positional argument(s) where paths start; only these are traced.
        source: names or globs of arrays where paths start in place of the arguments, which may be
            integers then: ``"*/embeddings"``. What is computed before them has no paths.
        aggregate: axes to ⊕-combine, as for ``site_grads``.
        granularity: ``"element"`` or ``"op"``, see ``semiring_grad``.

    Returns:
        As ``site_grads``, of complete paths; ``share()`` of the result is the fraction of all that
        passes each element.

    Raises:
        TypeError, ValueError, NotImplementedError: as ``site_grads``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sin(x) + 3 * x
        >>> flow = sj.site_flow(f, sj.AbsSumProduct(), ["sin", "mul"])(0.0)
        >>> {name: float(share) for name, share in flow.share().items()}
        {'sin': 0.25, 'mul': 0.75}
    """
    checks.check_callable(fun)

    def program(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        return program_from(fun, source, args, kwargs, argnums, "site_flow")

    return _at_sites(program, semiring, sites, aggregate, granularity, complete=True)


def _at_sites(
    program: Callable[[tuple[Any, ...], dict[str, Any]], Program],
    semiring: Any,
    sites: str | Sequence[str],
    aggregate: int | Sequence[int] | None,
    granularity: str,
    *,
    complete: bool,
) -> Callable[..., Any]:
    checked = as_semiring(semiring, granularity)

    def values(*args: Any, **kwargs: Any) -> Any:
        call = program(args, kwargs)
        chosen = call.survey.choose(sites)
        places = [site.place for site in chosen]
        wanted = [*places, *call.survey.outputs[:complete]]  # all complete paths end in the output
        graph = call.graph(wanted, from_arguments=complete)
        collect = collectors.through_sites if complete else collectors.from_sites
        found = call.between(graph, checked, collect, from_arguments=complete)
        elements = [
            found[n] if n in found else collectors.zero_at(checked, place)
            for n, place in enumerate(wanted)
        ]
        names = tuple(site.name for site in chosen)
        by_name = {
            name: element if aggregate is None else _sum(checked, element, aggregate)
            for name, element in zip(names, elements, strict=False)
        }
        total = {TOTAL: elements[-1]} if complete else {}

        def build(member: Semiring, elements: dict[Any, Elements]) -> SiteValues:
            return SiteValues(elements, elements.pop(TOTAL, None), names, member, granularity)

        return for_each_member(checked, build, by_name | total)

    return values


def _sum(semiring: Semiring, elements: Elements, axes: int | Sequence[int]) -> Elements:
    return semiring.sum(elements, checks.normalise_axes(axes, len(semiring.shape(elements))))
