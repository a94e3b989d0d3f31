"""All intermediate arrays of a program, by every name they have."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

from semijax.sites.mapped_axes import moved_to_front, seen_axes
from semijax.sites.site import INPUT, Consumer, Place, Site, is_tap
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
        sites: the arrays, once for each name.
        scopes: the scopes of all equations.
        inputs: where the arguments are.
        outputs: where the outputs of the function are made; None for a constant.
    """

    def __init__(self, closed: Any, arguments: Sequence[str]) -> None:
        self.sites: list[Site] = []
        self.scopes: dict[str, None] = {}  # a set in the order of the program
        graph = build(closed)
        origins = dict.fromkeys(graph.inputs, ARGUMENT)
        places = self._visit(graph, origins, arguments)
        self.inputs: list[Place] = [places[v] for v in graph.inputs]
        self.outputs: list[Place | None] = [places.get(v) for v in graph.outputs]
        total = collections.Counter(site.base for site in self.sites)
        counts: collections.Counter[str] = collections.Counter()
        for n, site in enumerate(self.sites):
            counts[site.base] += 1
            if total[site.base] > 1:
                self.sites[n] = dataclasses.replace(site, number=counts[site.base])

    def choose(self, patterns: str | Sequence[str]) -> list[Site]:
        """Return the sites that any of some patterns picks, in the order of evaluation.

        Raises:
            TypeError: if a pattern is not a string.
            ValueError: if one picks none (the message names the nearest), or if the order of a
                site's axes cannot be told.
        """
        try:
            given = [patterns] if isinstance(patterns, str) else list(patterns)
        except TypeError:
            given = [patterns]
        if not given:
            raise ValueError("Expected the name of a site, or a glob, got none.")
        picked = {site for pattern in given for site in self.picked(pattern)}
        chosen = [site for site in self.sites if site in picked]
        for site in chosen:
            site.check_axes()
        return chosen

    def picked(self, pattern: Any, what: str = "site") -> list[Site]:
        """Return the sites that one pattern picks, see ``choose``, with axes in any order.

        Args:
            pattern: a name or a glob.
            what: what it was to match, for the message where it matches nothing.
        """
        if not isinstance(pattern, str):
            raise TypeError(
                f"A {what} is chosen by its name or a glob, a string, got "
                f"{pattern!r} of type {type(pattern).__name__}."
            )
        for own_name in ("name", "base"):
            exact = [site for site in self.sites if getattr(site, own_name) == pattern]
            if exact:
                return exact
        found = self._matching(pattern)
        if not found:
            names = dict.fromkeys(site.name for site in self.sites)
            if what != "site":
                names |= self.scopes
            likely = scope_names.listed(scope_names.nearest(pattern, names))
            hint = f"The nearest are {likely}." if likely else "The function has none."
            if not any(self.scopes):
                hint += f" {scope_names.NO_SCOPES}"
            raise ValueError(
                f"No {what} matches {pattern!r}. {hint} semijax.list_sites(fun)(*args) lists all."
            )
        return found

    def _matching(self, pattern: str) -> list[Site]:
        """Return the sites that a glob picks: taps by their own names too, and outermost modules.

        An argument is picked by its own name only. A module that matches stands for what comes out
        of it, and hides what lies in it.
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
        origins: dict[Variable, str],
        arguments: Sequence[str] = (),
    ) -> dict[Any, Place]:
        readers: dict[Variable, list[Consumer]] = collections.defaultdict(list)
        for number, equation in enumerate(graph.equations):
            self.scopes[equation.scope] = None
            for i, v in enumerate(equation.inputs):
                if isinstance(v, Variable):
                    readers[v].append((equation, number, i))
        for n, v in enumerate(graph.outputs):
            if isinstance(v, Variable):
                readers[v].append((None, -1, n))
        modules = _Modules(graph, readers)
        axes = seen_axes(graph)
        moved = moved_to_front(graph, axes)
        regions = tuple(e.region for e, _ in graph.within if e.region)
        places: dict[Any, Place] = {}

        def place(v: Variable, equation: Equation | None, n: int) -> None:
            number = equation.number if equation else None
            own = axes.get(v, tuple(range(len(v.shape))))
            places[v] = Place(graph.path, number, n, v, regions, equation, own)

        def name(base: str, variable: Variable, module: Module | None = None) -> None:
            leading = (c for c in readers[variable] if c[0] is None or _leads_on(c[0]))
            self.sites.append(Site(base, 0, places[variable], tuple(leading), module))

        for n, v in enumerate(graph.inputs):
            place(v, None, n)
            if v.differentiable and n < len(arguments):
                name(arguments[n], v)
        for number, equation in enumerate(graph.equations):
            for module in modules.first_entered(number):
                for v in modules.inputs(module, origins):
                    name(module.scope + INPUT, v, module)
            for n, v in enumerate(equation.outputs):
                place(v, equation, n)
                origins[v] = _origin(equation, origins)
            if equation.region:
                for inner in build_bodies(equation):
                    self._visit(inner, _origins(equation, equation.region, inner, origins))
            for v in equation.outputs:
                if v.differentiable:
                    own = equation.params["name"] if is_tap(equation) else equation.name
                    name(f"{equation.scope}/{own}" if equation.scope else own, v)
                    if v in moved:
                        for module in modules.left_by(moved[v]):
                            name(module.scope, v, module)
                    for module in modules.left_by(v) if v not in moved.values() else ():
                        name(module.scope, v, module)
        return places


COMPUTED, ARGUMENT, MADE, CONSTANT = "computed", "argument", "made", "constant"
"""The origins of arrays; a module's inputs are what it reads of the first kind it reads at all.

Computed in a module, or from what was; an argument, or made from arguments outside all modules;
made there from constants: the latter two may well be weights.
"""


def _origin(equation: Equation, origins: Mapping[Any, str]) -> str:
    read = {origins.get(v, CONSTANT) for v in equation.inputs}
    if equation.scope or COMPUTED in read:
        return COMPUTED
    return ARGUMENT if ARGUMENT in read else MADE


def _origins(
    equation: Equation, region: Region, body: Graph, outer: Mapping[Any, str]
) -> dict[Variable, str]:
    """Return where the inputs of a body come from; what a loop carries is computed."""
    skipped = len(equation.inputs) - len(body.inputs)  # the test of a loop, the index of a cond
    operands = equation.inputs[skipped:]
    origins = {
        v: outer.get(operand, CONSTANT) for v, operand in zip(body.inputs, operands, strict=True)
    }
    first, carries = region.carried
    return origins | dict.fromkeys(body.inputs[first : first + carries], COMPUTED)


class _Modules:
    """The inputs and outputs of the uses of modules that a graph enters itself."""

    def __init__(self, graph: Graph, readers: Mapping[Variable, list[Consumer]]) -> None:
        self._readers = readers
        self._leading = _leading(graph)
        outside = {*graph.module.enclosing}
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
        """Return the uses of modules that begin with an equation, from the outside in."""
        return self._first[number]

    def inputs(self, module: Module, origins: Mapping[Variable, str]) -> list[Variable]:
        """Return what a module reads of what was computed before, see ``COMPUTED``.

        Only what a path to an output leads from is returned, if there is any: not a mask that is
        compared.
        """
        read = [v for v in self._read[module] if v.differentiable and not self._made_in(v, module)]
        leading = [v for v in read if v in self._leading] or read
        kinds = ([v for v in leading if origins.get(v) == o] for o in (COMPUTED, ARGUMENT, MADE))
        return next(filter(None, kinds), [])

    def left_by(self, variable: Variable) -> list[Module]:
        """Return the uses of modules that an array comes out of, from the inside out."""
        maker = self._makers.get(variable)
        readers = [equation for equation, *_ in self._readers[variable]]
        return [
            module
            for module in reversed(self._own[maker.module] if maker else ())
            if any(e is None or module not in self._own[e.module] for e in readers)
        ]

    def _made_in(self, variable: Variable, module: Module) -> bool:
        maker = self._makers.get(variable)
        return maker is not None and module in self._own[maker.module]


def _leads_on(equation: Equation) -> bool:
    """Tell whether a path may lead through it: not through a comparison, for instance."""
    return equation.primitive is not STOP_GRADIENT and any(
        v.differentiable for v in equation.outputs
    )


def _leading(graph: Graph) -> set[Any]:
    """Return the variables from which a path may lead to an output."""
    found: set[Any] = {v for v in graph.outputs if isinstance(v, Variable) and v.differentiable}
    for equation in reversed(graph.equations):
        if _leads_on(equation) and any(v in found for v in equation.outputs):
            found |= {v for v in equation.inputs if isinstance(v, Variable) and v.differentiable}
    return found
