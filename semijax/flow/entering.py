"""The components that complete paths enter, and where in a program they lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax import sweep
from semijax.elements import Elements
from semijax.flow.collectors import Swept
from semijax.flow.results import TOTAL
from semijax.jacobians.control_flow import equations_within
from semijax.semirings import Semiring
from semijax.semirings.around_through import AroundThrough, Parts
from semijax.semirings.jitted import Jitted
from semijax.trace import scope_names
from semijax.trace.graph import Equation, Graph, Module, Variable

Path = tuple[tuple[int, int], ...]
"""The place of a graph in a program, see ``Graph.path``."""


@dataclasses.dataclass(frozen=True, order=True)
class Component:
    """A module, in each iteration of the loops that it lies in or in all of them.

    Attributes:
        scope: its name.
        loops: in how many loops each iteration is another component.
    """

    scope: str
    loops: int


@dataclasses.dataclass(frozen=True)
class Naming:
    """The rule that says in which component the edges of an equation lie.

    Attributes:
        depth: by how many names of a scope components are told apart; None for all.
        iterations: whether each iteration of a loop is another component.
        together: the scopes where it is not, such as those of modules that two loops run.
    """

    depth: int | None
    iterations: bool
    together: frozenset[str] = frozenset()

    def component(self, equation: Equation) -> Component:
        """Return the component in which the equation's edges lie."""
        module = self.module(equation)
        if module is None:
            return Component(scope_names.OUTSIDE, 0)
        apart = self.iterations and module.scope not in self.together
        return Component(module.scope, module.loops if apart else 0)

    def module(self, equation: Equation) -> Module | None:
        """Return the module that the component is named after; None for what lies in none."""
        modules = equation.module.enclosing[: self.depth]
        return modules[-1] if modules else None


@dataclasses.dataclass(frozen=True)
class Home:
    """The place where all edges of a component lie.

    Attributes:
        path: the innermost graph that has all of them.
        lengths: the numbers of iterations of the loops in which they are told apart.
        regions: whether some of them lie in regions of that graph.
        module: one use of the module; None for what lies in none.
    """

    path: Path
    lengths: tuple[int, ...]
    regions: bool
    module: Module | None


class Components:
    """The components of a graph.

    Attributes:
        naming: in which of them an equation lies.
        homes: where each lies, in the order of evaluation.
    """

    def __init__(self, graph: Graph, depth: int | None, iterations: bool) -> None:
        crossed = [e for e in equations_within(graph) if e.wrt and e.region is None]
        naming = Naming(depth, iterations)
        paths: dict[Component, set[Path]] = {}
        for equation in crossed:
            component = naming.component(equation)
            paths.setdefault(component, set()).add(_home(equation, component.loops))
        several = frozenset(c.scope for c, own in paths.items() if len(own) > 1)
        naming = dataclasses.replace(naming, together=several)
        self.naming: Naming = naming
        self.homes: dict[Component, Home] = {}
        for equation in crossed:
            component = naming.component(equation)
            path = _home(equation, component.loops)
            known = self.homes.get(component)
            regions = len(path) < len(equation.within) or bool(known and known.regions)
            lengths = _lengths(equation)[: component.loops]
            self.homes[component] = Home(path, lengths, regions, naming.module(equation))

    def living_in(self, graph: Graph, *, regions: bool) -> list[Component]:
        """List the components whose home is a graph, with or without edges in regions."""
        return [
            component
            for component, home in self.homes.items()
            if home.path == graph.path and home.regions == regions
        ]

    def any_within(self, region: Equation) -> bool:
        """Tell whether the home of any component lies in a region."""
        path = region.path
        return any(
            home.path[: len(path)] == path
            and len(home.path) > len(path)
            and home.path[len(path)][0] == region.number
            for home in self.homes.values()
        )

    def by_name(
        self, semiring: Semiring, found: Mapping[Component, Elements]
    ) -> dict[str, Elements]:
        """Return elements by the names of components, one iteration after the other.

        Args:
            semiring: whose elements.
            found: the elements, with an axis for each loop in which iterations are told apart;
                none for a component that no path enters.
        """
        together: dict[Path, list[Component]] = {}
        for component, home in self.homes.items():
            together.setdefault(home.path, []).append(component)
        names: dict[str, Elements] = {}
        for own in together.values():
            for iteration in np.ndindex(self.homes[own[0]].lengths):
                for component in own:
                    names[self._name(component, iteration)] = (
                        el.map_leaves(lambda leaf, i=iteration: leaf[i], found[component])
                        if component in found
                        else semiring.zero((), jnp.float32)
                    )
        return names

    def _name(self, component: Component, iteration: tuple[int, ...]) -> str:
        module = self.homes[component].module
        return module.scope_at(iteration) if module and component.loops else component.scope


def _home(equation: Equation, loops: int) -> Path:
    """Find the graph of one iteration of the first loops around an equation."""
    path: Path = ()
    for region, body in equation.within:
        if not loops:
            break
        path = (*path, (region.number, body))
        loops -= bool(region.region and region.region.is_loop)
    return path


def _lengths(equation: Equation) -> tuple[int, ...]:
    regions = [region.region for region, _ in equation.within if region.region]
    return tuple(region.iterations or 0 for region in regions if region.is_loop)


def all_paths(
    graph: Graph, semiring: Semiring, at: Any, tangents: Any, cotangents: Any
) -> dict[str, Elements]:
    """Collect the ⊕ over all paths to the outputs, from their starts and inputs with tangents."""
    found: dict[str, Elements] = {}
    for equation, jacobian, arrived, _ in sweep.backward(graph, semiring, at, cotangents):
        variables = graph.inputs if equation is None else equation.outputs
        for v, element in zip(variables, arrived, strict=True):
            if v in graph.starts and element is not None:
                carried = at.started(semiring, v, element)
                begun = sweep.at_starts(graph, semiring, v, carried)
                _add(semiring, found, TOTAL, _whole(semiring, begun))
        if equation is None:
            for tangent, element in zip(tangents, arrived, strict=True):
                if tangent is not None and element is not None:
                    _add(semiring, found, TOTAL, _whole(semiring, semiring.mul(tangent, element)))
        elif equation.starts_inside and jacobian is not None:
            inside = jacobian.inside(semiring, None, arrived, all_paths)  # others started elsewhere
            for part in inside.values():
                _add(semiring, found, TOTAL, _whole(semiring, part))
    return found


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A collector of the ⊕ over each component's edges and all complete paths that cross them."""

    components: Components

    def __call__(
        self, graph: Graph, semiring: Semiring, at: Any, tangents: Any, cotangents: Any
    ) -> dict[Component, Elements]:
        """Collect by component, with an axis for each loop in which iterations are told apart."""
        swept = Swept(graph, semiring, at, tangents, cotangents)
        found: dict[Component, Elements] = {}
        for equation, inside in swept.inside(self, lambda _: True):
            _add_inside(semiring, found, equation, inside)
        for equation, visit in swept.visits.items():
            for o, part in {} if equation.region else visit.sent.items():
                if equation.outputs[o] in swept.after:
                    crossing = semiring.mul(part, swept.after[equation.outputs[o]])
                    component = self.components.naming.component(equation)
                    _add(semiring, found, component, _whole(semiring, crossing))
        return found


@dataclasses.dataclass(frozen=True)
class Entering:
    """A collector of the ⊕ over all complete paths that enter each component.

    Attributes:
        components: the components.
        apart: the semiring for paths through and around a component, see ``AroundThrough``.
    """

    components: Components
    apart: Semiring

    def __call__(
        self, graph: Graph, semiring: Semiring, at: Any, tangents: Any, cotangents: Any
    ) -> dict[Component, Elements]:
        """Collect by component, with an axis for each loop in which iterations are told apart."""
        found: dict[Component, Elements] = {}
        swept = Swept(graph, semiring, at, tangents, cotangents)
        for equation, inside in swept.inside(self, self.components.any_within):
            _add_inside(semiring, found, equation, inside)
        for component in self.components.living_in(graph, regions=False):
            entering = self._first_entering(component, graph, semiring, at, swept)
            if entering is not None:
                found[component] = entering
        for component in self.components.living_in(graph, regions=True):
            passing = AroundThrough(self.apart, _Inside(component, self.components.naming))
            ends = ([_not_yet(passing, e) for e in end] for end in (tangents, cotangents))
            through = all_paths(graph, Jitted(passing), at, *ends)
            if through:
                found[component] = through[TOTAL].through
        return found

    def _first_entering(
        self, component: Component, graph: Graph, semiring: Semiring, at: Any, swept: Swept
    ) -> Elements | None:
        """Return the ⊕ over all complete paths that enter a component that lies in no region.

        A path enters for the first time by one edge: up to there it has kept outside, from there
        on it may go anywhere.
        """
        naming, found = self.components.naming, {}
        members = {
            equation.number
            for equation in graph.equations
            if not equation.region and equation.wrt and naming.component(equation) == component
        }
        outside = dict(swept.before)  # over the paths that have not entered
        changed: set[Variable] = set()
        for equation in graph.equations[min(members) : max(members) + 1]:
            is_member = equation.number in members
            if not (is_member or changed.intersection(equation.inputs)):
                continue
            sent = sweep.push_through(equation, semiring, at, outside).sent
            for o, v in enumerate(equation.outputs):
                outside.pop(v, None)
                changed.add(v)
                kept = None if is_member else sent.get(o)
                going = sweep.departing(graph, semiring, at, v, kept)
                if going is not None:
                    outside[v] = going
                if is_member and o in sent and v in swept.after:
                    entering = semiring.mul(sent[o], swept.after[v])
                    _add(semiring, found, TOTAL, _whole(semiring, entering))
        return found.get(TOTAL)


@dataclasses.dataclass(frozen=True)
class _Inside:
    """The test whether an equation lies in a component."""

    component: Component
    naming: Naming

    def __call__(self, equation: Equation) -> bool:
        return self.naming.component(equation) == self.component


def _not_yet(semiring: AroundThrough, elements: Elements | None) -> Parts | None:
    """Return elements as those of paths that have not been in the component."""
    if elements is None:
        return None
    of = semiring.of
    return Parts(elements, of.zero(of.shape(elements), of.dtype(elements)))


def _whole(semiring: Semiring, elements: Elements) -> Elements:
    """Return the ⊕ over all axes."""
    return semiring.sum(elements, tuple(range(len(semiring.shape(elements)))))


def _add(semiring: Semiring, found: dict[Any, Elements], key: Any, part: Elements) -> None:
    found[key] = semiring.add(found[key], part) if key in found else part


def _add_inside(
    semiring: Semiring,
    found: dict[Component, Elements],
    region: Equation,
    inside: Mapping[Component, Elements],
) -> None:
    """Add what was found in a region: over its iterations, unless these are told apart."""
    for component, part in inside.items():
        is_loop = region.region is not None and region.region.is_loop
        if is_loop and component.loops <= region.loops:
            part = semiring.sum(part, (0,))
        _add(semiring, found, component, part)
