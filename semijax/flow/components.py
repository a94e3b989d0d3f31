"""The flow through each module, and the number of a path's edges that lie in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks, tables
from semijax.elements import Elements
from semijax.flow.entering import Components, Crossing, Entering, all_paths
from semijax.flow.results import (
    TOTAL,
    Result,
    for_each_member,
    fraction,
    is_traced,
    reads_logs,
    result,
    shown,
)
from semijax.semirings import AbsSumProduct, Semiring, as_semiring
from semijax.sites.program import Argnums
from semijax.sites.starts import start_program
from semijax.weighting import DERIVATIVE, Weighting, check_weighting


@result("elements", "total_elements", "edges")
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ComponentFlow(Result):
    """The flow through the components of a function: scalars, by name of the component.

    A mapping from names to what the semiring reads of all complete paths that enter the component.
    It passes through ``jit`` and ``vmap``, which adds axes; it prints as a table.

    Attributes:
        elements: the semiring's elements, by component.
        total_elements: those of all complete paths.
        edges: the expected number of edges in each component per path, float; a path has the
            probability ``|weight| / Z``. Together they are the mean length of a path. NaN where
            the mass Z is infinite or not a number.
        names: the components, in the order of evaluation.
        semiring: whose elements they are.
        granularity: ``"element"`` or ``"op"``; of ``edges`` always ``"element"``.
        weighting: the name of what the edges weigh.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> def f(x):
        ...     with jax.named_scope("wave"):
        ...         y = jnp.sin(x)
        ...     return y + 3 * x
        >>> flow = sj.component_flow(f, sj.AbsSumProduct())(0.0)
        >>> print(flow["wave"], flow.share()["wave"])
        1.0 0.25
    """

    elements: Mapping[str, Elements]
    total_elements: Elements
    edges: Mapping[str, jax.Array]
    names: tuple[str, ...]
    semiring: Semiring
    granularity: str
    weighting: str

    @property
    def total(self) -> Any:
        """The semiring's reading of all complete paths."""
        return self.semiring.readout(self.total_elements)

    def share(self) -> dict[str, jax.Array]:
        """Return the fraction of all complete paths that enter each component: of mass, or number.

        A path enters many components, so the shares do not sum to 1. For max-like semirings, a
        share is the best path through the component divided by the best of all paths. Where there
        is no path, all shares are 0; where the total of all paths is infinite or not a number, they
        are NaN.

        Raises:
            TypeError: if the semiring has no shares, see ``Semiring.log_size``.
        """
        total = self.semiring.log_size(self.total_elements)
        return {
            name: fraction(self.semiring.log_size(self.elements[name]), total)
            for name in self.names
        }

    def to_dataframe(self) -> Any:
        """Return a ``pandas.DataFrame``: ``component``, ``flow``, ``edges``, ``share`` if any."""
        import pandas

        columns = {
            "component": self.names,
            "flow": [np.asarray(self[name])[()] for name in self.names],
            "edges": [np.asarray(self.edges[name])[()] for name in self.names],
        }
        shares = self._shares()
        return pandas.DataFrame(columns if shares is None else columns | {"share": shares})

    def _shares(self) -> list[Any] | None:
        if is_traced(self.elements):
            return None
        try:
            shares = self.share()
        except TypeError:
            return None
        return [np.asarray(shares[name])[()] for name in self.names]

    def _table(self) -> tables.Table:
        shares = self._shares() or [""] * len(self)
        size = self.semiring.log_size if reads_logs(self.semiring) else lambda _: None
        cells = [
            (
                name,
                _text(self[name], size(self.elements[name])),
                _text(self.edges[name]),
                _text(share),
            )
            for name, share in zip(self.names, shares, strict=True)
        ]
        legend = (
            f"{self.semiring} over all paths that enter the component, and its share of all "
            f"paths; expected edges per path; {self.conditions}"
        )
        header = ("component", "flow", "edges", "share")
        return tables.Table(header, cells, (1, 2, 3), legend=legend)


def _text(value: Any, log_size: Any = None) -> str:
    if isinstance(value, str) or is_traced(value):
        return str(value)
    array = np.asarray(value)
    return shown(array[()], log_size) if array.ndim == 0 else np.array2string(array, precision=4)


def component_flow(
    fun: Callable[..., Any],
    semiring: Any,
    depth: int | None = None,
    argnums: int | Sequence[int] = 0,
    *,
    source: Any = None,
    traced: Argnums = None,
    iterations: bool = True,
    granularity: str = "element",
    weighting: Weighting = DERIVATIVE,
) -> Callable[..., Any]:
    """Compute the flow through each module on the way from the inputs to the output.

    The flow through a component is the ⊕ over all complete paths that enter it; a path that enters
    more than once counts once. The result also has the expected number of a path's edges in each
    component: DuSell's importance of a component to a gradient, over the whole distribution of
    paths instead of one path.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        semiring: a ``Semiring``, or a tuple, list or dict of them.
        depth: how many names of a scope, from the outside in, tell components apart; all of them
            for None. A component is a module. Each edge lies in one component: the module whose
            equation makes the node that the edge leads to. Edges outside all modules lie in
            ``"(outside)"``.
        argnums: the positional argument(s) where paths start.
        source: where they start in place of these arguments, see ``site_flow``.
        traced: as for ``site_grads``.
        iterations: whether a module inside a loop is a separate component in each iteration,
            ``"layers[3]/attention"``, or the same in all iterations, ``"layers/attention"``. A
            module that runs in two loops is always the same component.
        granularity: ``"element"`` or ``"op"``, see ``semiring_grad``.
        weighting: what the edges weigh, and what a path carries where it starts, see
            ``semiring_grad``.

    Returns:
        A function with the arguments of ``fun`` that returns a ``ComponentFlow``; for a container
        of semirings, that container of them.

    Raises:
        TypeError, ValueError, IndexError, NotImplementedError: as ``site_flow``; ValueError if
            ``depth`` is less than 1.

    Source: the expected counts are those of the expectation semiring, by forward and backward
    weights as in Li and Eisner 2009, §4.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> def f(x):
        ...     with jax.named_scope("wave"):
        ...         y = jnp.sin(x)
        ...     return y + 3 * x
        >>> flow = sj.component_flow(f, sj.AbsSumProduct())(0.0)
        >>> float(flow["wave"]), float(flow.edges["wave"])  # 1 of the mass 4; 1 edge on 1/4
        (1.0, 0.25)
    """
    checks.check_callable(fun)
    checks.check_depth(depth)
    checked = as_semiring(semiring, granularity)
    check_weighting(weighting)

    def flow(*args: Any, **kwargs: Any) -> Any:
        where = argnums, source, traced, "component_flow"
        call, starts = start_program(fun, args, kwargs, *where, weighting)
        if call.axes:
            raise NotImplementedError(
                "component_flow counts a path once for each module it enters, but here paths also "
                f"lead through the modules of the other members of the axes {call.axes}, which are "
                "mapped outside of component_flow. Map these axes inside of the function."
            )
        graph = call.graph((), starts.masks())
        components = Components(graph, depth, iterations)
        apart = checked if granularity == "element" else checked.by_operation(absent=True)
        entering = call.between(graph, checked, Entering(components, apart))
        found = components.by_name(checked, entering)
        names = tuple(found)
        found[TOTAL] = call.between(graph, checked, all_paths).get(TOTAL, _none(checked))

        mass = AbsSumProduct()
        crossing = call.between(graph, mass, Crossing(components))
        whole = call.between(graph, mass, all_paths).get(TOTAL, _none(mass))
        edges = {
            name: fraction(mass.log_size(each), mass.log_size(whole))
            for name, each in components.by_name(mass, crossing).items()
        }

        def build(member: Semiring, elements: dict[Any, Elements]) -> ComponentFlow:
            of_all = elements.pop(TOTAL)
            how = granularity, str(weighting)
            return ComponentFlow(elements, of_all, edges, names, member, *how)

        return for_each_member(checked, build, found)

    return flow


def _none(semiring: Semiring) -> Elements:
    return semiring.zero((), jnp.float32)
