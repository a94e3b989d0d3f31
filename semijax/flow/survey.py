"""All intermediate arrays of a program, by every name they have."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

from semijax.flow.sites import INPUT, Consumer, Place, RegionPath, Site, is_tap
from semijax.trace import scope_names
from semijax.trace.graph import (
    STOP_GRADIENT,
    Equation,
    Graph,
    Module,
    Variable,
    build,
    build_bodies,
)
from semijax.trace.regions import Region


class Survey:
    """All arrays of a program that have names, in the order of evaluation.

    Attributes:
        sites: them.
        outputs: where the outputs of the function are made; None for a constant.
        equations: all equations but regions, with the regions that each lies in.
    """

    def __init__(self, closed: Any, arguments: Sequence[str]) -> None:
        self.sites: list[Site] = []
        self.equations: list[tuple[Equation, RegionPath]] = []
        graph = build(closed)
        origins = dict.fromkeys(graph.inputs, ARGUMENT)
        places = self._visit(graph, (), (), Module(), origins, arguments)
        self.outputs = [places.get(v) for v in graph.outputs]
        total = collections.Counter(site.base for site in self.sites)
        counts: collections.Counter[str] = collections.Counter()
        for n, site in enumerate(self.sites):
            counts[site.base] += 1
            if total[site.base] > 1:
                self.sites[n] = dataclasses.replace(site, number=counts[site.base])

    def choose(self, patterns: str | Sequence[str]) -> list[Site]:
        """The sites that one of some patterns picks, in the order of evaluation.

        Raises:
            TypeError: if a pattern is no string.
            ValueError: if one picks none; the message names the nearest.
        """
        try:
            given = [patterns] if isinstance(patterns, str) else list(patterns)
        except TypeError:
            given = [patterns]
        if not given:
            raise ValueError("Expected the name of a site, or a glob, got none.")
        chosen = {site for pattern in given for site in self._picked(pattern)}
        return [site for site in self.sites if site in chosen]

    def _picked(self, pattern: Any) -> list[Site]:
        if not isinstance(pattern, str):
            raise TypeError(
                "A site is chosen by its name or a glob, a string, got "
                f"{pattern!r} of type {type(pattern).__name__}."
            )
        for own_name in ("name", "base"):
            exact = [site for site in self.sites if getattr(site, own_name) == pattern]
            if exact:
                return exact
        found = self._matching(pattern)
        if not found:
            names = dict.fromkeys(site.name for site in self.sites)
            likely = scope_names.listed(scope_names.nearest(pattern, names))
            hint = f"The nearest are {likely}." if likely else "The function has none."
            raise ValueError(
                f"No site matches {pattern!r}. {hint} semijax.list_sites(fun)(*args) lists all."
            )
        return found

    def _matching(self, pattern: str) -> list[Site]:
        """The sites that a glob picks: a tap by its own name too, and of modules the outermost.

        An argument is called by its own name only.
        A module that matches stands for what comes out of it, and hides what lies in it.
        """
        inputs = pattern.endswith(INPUT)
        kind = [site for site in self.sites if site.is_input == inputs and not site.is_argument]
        glob = re.compile(fnmatch.translate(pattern.removesuffix(INPUT)))
        scopes = {site.scoped for site in kind if site.module is not None}
        matching = {scope for scope in scopes if glob.match(scope)}

        def matches(site: Site) -> bool:
            if site.tap is not None and (site.tap == pattern or glob.match(site.tap)):
                return True
            *outer, own = scope_names.enclosing(site.scoped)
            named = glob.match(own) or glob.match(site.name.removesuffix(INPUT))
            return bool(named) and matching.isdisjoint(outer)

        return [site for site in kind if matches(site)]

    def _visit(
        self,
        graph: Graph,
        region: RegionPath,
        loops: tuple[Region, ...],
        within: Module,
        origins: dict[Variable, str],
        arguments: Sequence[str] = (),
    ) -> dict[Any, Place]:
        readers: dict[Variable, list[Consumer]] = collections.defaultdict(list)
        for number, equation in enumerate(graph.equations):
            if not equation.region:
                self.equations.append((equation, region))
            for i, v in enumerate(equation.inputs):
                if isinstance(v, Variable):
                    readers[v].append((equation, number, i))
        for n, v in enumerate(graph.outputs):
            if isinstance(v, Variable):
                readers[v].append((None, -1, n))
        modules = _Modules(graph, readers, within)
        places: dict[Any, Place] = {}

        def name(base: str, variable: Variable, module: Module | None = None) -> None:
            leading = (c for c in readers[variable] if c[0] is None or _leads_on(c[0]))
            self.sites.append(Site(base, 0, places[variable], tuple(leading), module))

        for n, v in enumerate(graph.inputs):
            places[v] = Place(region, None, n, v, loops, None)
            if v.differentiable and n < len(arguments):
                name(arguments[n], v)
        for number, equation in enumerate(graph.equations):
            for module in modules.first_entered(number):
                for v in modules.inputs(module, origins):
                    name(module.scope + INPUT, v, module)
            for n, v in enumerate(equation.outputs):
                places[v] = Place(region, number, n, v, loops, equation)
                origins[v] = _origin(equation, origins)
            if equation.region:
                for n, inner in enumerate(build_bodies(equation)):
                    inside = (*region, (number, n)), (*loops, equation.region)
                    read = _origins(equation, equation.region, inner, origins)
                    self._visit(inner, *inside, equation.module, read)
            for v in equation.outputs:
                if v.differentiable:
                    own = equation.params["name"] if is_tap(equation) else equation.name
                    name(f"{equation.scope}/{own}" if equation.scope else own, v)
                    for module in modules.left_by(v, equation):
                        name(module.scope, v, module)
        return places


COMPUTED, ARGUMENT, MADE, CONSTANT = "computed", "argument", "made", "constant"
"""Where an array comes from: of what a module reads, its inputs are of the first kind there is.

Computed in a module, or from what was; an argument, or made of arguments outside of all modules;
made so of constants: the latter two may well be weights.
"""


def _origin(equation: Equation, origins: Mapping[Any, str]) -> str:
    read = {origins.get(v, CONSTANT) for v in equation.inputs}
    if equation.scope or COMPUTED in read:
        return COMPUTED
    return ARGUMENT if ARGUMENT in read else MADE


def _origins(
    equation: Equation, region: Region, body: Graph, outer: Mapping[Any, str]
) -> dict[Variable, str]:
    """Where the inputs of a body come from; what a loop carries is computed."""
    skipped = len(equation.inputs) - len(body.inputs)  # the test of a loop, the index of a cond
    operands = equation.inputs[skipped:]
    origins = {
        v: outer.get(operand, CONSTANT) for v, operand in zip(body.inputs, operands, strict=True)
    }
    first, carries = region.carried
    return origins | dict.fromkeys(body.inputs[first : first + carries], COMPUTED)


class _Modules:
    """What goes into and comes out of the uses of modules that a graph enters itself."""

    def __init__(
        self, graph: Graph, readers: Mapping[Variable, list[Consumer]], within: Module
    ) -> None:
        self._readers = readers
        self._leading = _leading(graph)
        outside = {*within.enclosing}
        self._makers: dict[Any, Equation] = {}
        self._read: dict[Module, dict[Variable, None]] = {}
        self._first: dict[int, list[Module]] = collections.defaultdict(list)
        self._own: dict[Module, tuple[Module, ...]] = {}
        for number, equation in enumerate(graph.equations):
            if equation.module not in self._own:
                own = tuple(m for m in equation.module.enclosing if m not in outside)
                self._own[equation.module] = own
            for module in self._own[equation.module]:
                if module not in self._read:
                    self._read[module] = {}
                    self._first[number].append(module)
                read = (v for v in equation.inputs if isinstance(v, Variable))
                self._read[module].update(dict.fromkeys(read))
            self._makers.update(dict.fromkeys(equation.outputs, equation))

    def first_entered(self, number: int) -> list[Module]:
        """The uses of modules that begin with an equation, from the outside in."""
        return self._first[number]

    def inputs(self, module: Module, origins: Mapping[Variable, str]) -> list[Variable]:
        """What it reads of what was computed before, see ``COMPUTED``.

        Of that, what a path to an output leads from, if anything: not a mask that is compared.
        """
        read = [v for v in self._read[module] if v.differentiable and not self._made_in(v, module)]
        leading = [v for v in read if v in self._leading] or read
        kinds = ([v for v in leading if origins.get(v) == o] for o in (COMPUTED, ARGUMENT, MADE))
        return next(filter(None, kinds), [])

    def left_by(self, variable: Variable, maker: Equation) -> list[Module]:
        """The uses of modules that an array comes out of, from the inside out."""
        readers = [equation for equation, *_ in self._readers[variable]]
        return [
            module
            for module in reversed(self._own[maker.module])
            if any(e is None or module not in self._own[e.module] for e in readers)
        ]

    def _made_in(self, variable: Variable, module: Module) -> bool:
        maker = self._makers.get(variable)
        return maker is not None and module in self._own[maker.module]


def _leads_on(equation: Equation) -> bool:
    """Whether a path may lead through it: not through a comparison, for instance."""
    return equation.primitive is not STOP_GRADIENT and any(
        v.differentiable for v in equation.outputs
    )


def _leading(graph: Graph) -> set[Any]:
    """The variables from which a path may lead to an output."""
    found: set[Any] = {v for v in graph.outputs if isinstance(v, Variable) and v.differentiable}
    for equation in reversed(graph.equations):
        if _leads_on(equation) and any(v in found for v in equation.outputs):
            found |= {v for v in equation.inputs if isinstance(v, Variable) and v.differentiable}
    return found
