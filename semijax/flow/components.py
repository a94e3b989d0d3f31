"""How much flows through each module, and how many edges of a path lie in it."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks, sweep, tables
from semijax.elements import Elements
from semijax.flow.ablation import program_from
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
from semijax.semirings import Semiring, as_semiring
from semijax.semirings.around_through import AroundThrough
from semijax.semirings.expectation import LogMassSemiring
from semijax.trace import scope_names
from semijax.trace.graph import Equation, Graph, Variable


@result("elements", "total", "edges")
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ComponentFlow(Result):
    """What flows through the components of a function; scalars by name of the component.

    A mapping from names to what the semiring reads of all complete paths that enter the component.
    It passes through ``jit`` and ``vmap``, which adds axes; it prints as a table.

    Attributes:
        elements: the semiring's elements, by component.
        total: the elements of all complete paths.
        edges: the expected number of edges in each component per path, float; the probability of a
            path is |weight| / Z. Together they are the mean length of a path.
        names: the components, in the order of evaluation.
        semiring: whose elements they are.
        granularity: ``"element"`` or ``"op"``; of ``edges`` always ``"element"``.
    """

    elements: Mapping[str, Elements]
    total: Elements
    edges: Mapping[str, jax.Array]
    names: tuple[str, ...]
    semiring: Semiring
    granularity: str

    def share(self) -> dict[str, jax.Array]:
        """The fraction of all complete paths that enter each component: of the mass, of the number.

        A path enters many components: the shares do not sum to 1. For max-like semirings it is the
        best path through the component over the best of all.

        Raises:
            TypeError: if the semiring has no shares.
        """
        total = log_size(self.semiring, self.total)
        return {
            name: fraction(log_size(self.semiring, self.elements[name]), total)
            for name in self.names
        }

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame``: ``component``, ``flow``, ``edges``, and ``share`` if any."""
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
        cells = [
            (name, _text(self[name]), _text(self.edges[name]), _text(share))
            for name, share in zip(self.names, shares, strict=True)
        ]
        legend = (
            f"{named(self.semiring)} over all paths that enter the component, and its share of all "
            f"paths; expected edges per path; granularity {self.granularity!r}"
        )
        header = ("component", "flow", "edges", "share")
        return tables.Table(header, cells, (1, 2, 3), legend=legend)


def _text(value: Any) -> str:
    if isinstance(value, str) or is_traced(value):
        return str(value)
    array = np.asarray(value)
    return shown(array[()]) if array.ndim == 0 else np.array2string(array, precision=4)


def component_flow(
    fun: Callable[..., Any],
    semiring: Any,
    depth: int | None = None,
    argnums: int | Sequence[int] = 0,
    *,
    source: str | Sequence[str] | None = None,
    granularity: str = "element",
) -> Callable[..., Any]:
    """What flows through each module on its way from the inputs to the output.

    For each component: the ⊕ over all complete paths that enter it, each once however often it
    comes back, and the expected number of edges in it per path: DuSell's importance of a component
    to a gradient, over the whole distribution of paths instead of one.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        semiring: a ``Semiring``, or a tuple, list or dict of them.
        depth: components are modules, told apart by so many names of their scope, counted from the
            outside; by all names for None. Each edge lies in one: the module whose equation makes
            the node it leads to. What lies in none is ``"(outside)"``.
        argnums: the positional argument(s) where paths start.
        source: names or globs of arrays where paths start in place of the arguments, see
            ``site_flow``.
        granularity: ``"element"`` or ``"op"``, see ``semiring_grad``.

    Returns:
        A function with the arguments of ``fun`` that returns a ``ComponentFlow``; for a container
        of semirings, that container of them.

    Raises:
        TypeError, ValueError, NotImplementedError: as ``semiring_grad``; ValueError if ``depth`` is
            less than 1.

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

    def flow(*args: Any, **kwargs: Any) -> Any:
        call = program_from(fun, source, args, kwargs, argnums, "component_flow")
        graph = call.graph((), from_arguments=True)
        crossed = [(equation, region) for equation, region in call.survey.equations if equation.wrt]
        names = dict.fromkeys(_component(equation, depth) for equation, _ in crossed)
        nested = dict.fromkeys(
            _component(equation, depth) for equation, inside in crossed if inside
        )
        between = functools.partial(call.between, graph, from_arguments=True)

        found = {name: checked.zero((), jnp.float32) for name in names}
        flat = [name for name in names if name not in nested]
        found |= between(checked, functools.partial(_entering, depth, flat))
        apart = checked if granularity == "element" else checked.by_operation(absent=True)
        for name in nested:
            passing = AroundThrough(apart, _Inside(name, depth))
            found[name] = between(passing, _all).get(TOTAL, passing.zero((), jnp.float32)).through
        found[TOTAL] = between(checked, _all).get(TOTAL, checked.zero((), jnp.float32))

        masses = LogMassSemiring()
        logs = between(masses, functools.partial(_masses, depth))
        total = between(masses, _all).get(TOTAL, masses.zero((), jnp.float32)).log_mass
        edges = {
            name: fraction(logs[name].log_mass, total) if name in logs else jnp.zeros(())
            for name in names
        }

        def build(member: Semiring, elements: dict[Any, Elements]) -> ComponentFlow:
            of_all = elements.pop(TOTAL)
            return ComponentFlow(elements, of_all, edges, tuple(names), member, granularity)

        return for_each_member(checked, build, found)

    return flow


def _component(equation: Equation, depth: int | None) -> str:
    return scope_names.component(equation.scope, depth)


@dataclasses.dataclass(frozen=True)
class _Inside:
    """Whether an equation lies in a component."""

    component: str
    depth: int | None

    def __call__(self, equation: Equation) -> bool:
        return _component(equation, self.depth) == self.component


def _whole(semiring: Semiring, elements: Elements) -> Elements:
    """⊕ over all axes."""
    return semiring.sum(elements, tuple(range(len(semiring.shape(elements)))))


def _all(
    graph: Graph, semiring: Semiring, values: Any, tangents: Any, cotangents: Any
) -> dict[str, Elements]:
    """⊕ over all paths from the inputs that have tangents to the outputs."""
    pulled = sweep.pull(graph, semiring, values, cotangents)
    parts = [
        _whole(semiring, element)
        for element, tangent in zip(pulled, tangents, strict=True)
        if element is not None and tangent is not None
    ]
    return {TOTAL: functools.reduce(semiring.add, parts)} if parts else {}


def _masses(
    depth: int | None, graph: Graph, semiring: Semiring, values: Any, tangents: Any, cotangents: Any
) -> dict[str, Elements]:
    """⊕ over all edges of each component, and the paths through each: forward ⊗ edge ⊗ backward."""
    found: dict[str, Elements] = {}

    def add(name: str, element: Elements) -> None:
        part = _whole(semiring, element)
        found[name] = semiring.add(found[name], part) if name in found else part

    visits = {v.equation: v for v in sweep.forward(graph, semiring, values, tangents)}
    for equation, jacobian, arrived, _ in sweep.backward(graph, semiring, values, cotangents):
        if equation is None or equation not in visits or jacobian is None:
            continue
        forward = visits[equation]
        if jacobian.bodies:
            departing = {i: e for i, e in enumerate(forward.arrived) if e is not None}
            collect = functools.partial(_masses, depth)
            inside = jacobian.inside(semiring, departing, arrived, collect) if departing else {}
            for name, element in inside.items():
                add(name, element)
            continue
        for o, part in forward.sent.items():
            if arrived[o] is not None:
                add(_component(equation, depth), semiring.mul(part, arrived[o]))
    return found


def _entering(
    depth: int | None,
    names: Collection[str],
    graph: Graph,
    semiring: Semiring,
    values: Any,
    tangents: Any,
    cotangents: Any,
) -> dict[str, Elements]:
    """⊕ over all paths that enter a component, for each of some that lie in no region.

    A path enters for the first time by one edge: up to there it is among those that have kept
    outside, from there on it is any.
    """
    ahead: dict[Variable, Elements] = {}
    for equation, _, arrived, _ in sweep.backward(graph, semiring, values, cotangents):
        if equation is not None:
            ahead.update(
                (v, e) for v, e in zip(equation.outputs, arrived, strict=True) if e is not None
            )
    behind = {v: t for v, t in zip(graph.inputs, tangents, strict=True) if t is not None}
    for equation, _, _, sent in sweep.forward(graph, semiring, values, tangents):
        if equation is not None:
            behind.update((equation.outputs[o], part) for o, part in sent.items())
    spans: dict[str, list[int]] = collections.defaultdict(list)
    for number, equation in enumerate(graph.equations):
        if equation.wrt and not equation.region:
            spans[_component(equation, depth)].append(number)
    found: dict[str, Elements] = {}
    for name in names:
        members = set(spans[name])
        outside = dict(behind)  # over the paths that have not entered
        changed: set[Variable] = set()
        for number in range(min(members), max(members) + 1):
            equation = graph.equations[number]
            if not (number in members or changed.intersection(equation.inputs)):
                continue
            sent = sweep.push_through(equation, semiring, values, outside).sent
            for o, v in enumerate(equation.outputs):
                outside.pop(v, None)
                changed.add(v)
                if o not in sent:
                    continue
                if number not in members:
                    outside[v] = sent[o]
                elif v in ahead:
                    part = _whole(semiring, semiring.mul(sent[o], ahead[v]))
                    found[name] = semiring.add(found[name], part) if name in found else part
    return found
