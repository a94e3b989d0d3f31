"""Intermediate arrays and their names: what can be asked for in a function, and how."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

from semijax import _compat, scope_names, tables
from semijax.graph import Equation, Graph, Marks, Module, Variable, bodies, build

INPUT = ":input"
"""What the name of an array that a module reads ends with."""

TAP = "name"
"""The primitive of ``tap``, which is that of ``jax.ad_checkpoint.checkpoint_name``."""

Region = tuple[tuple[int, int], ...]
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
    return jax.tree.map(lambda leaf: checkpoint_name(leaf, name), x)


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """Where in a program an array is made.

    Attributes:
        region: the regions it lies in, each by its position among the equations and its body's.
        equation: the position of the equation that makes it; None for an input of the graph.
        output: its position among the outputs, or among the inputs.
        variable: the array, in one reading of the program; of the shape of one iteration.
        loops: the lengths of the scans it lies in, from the outside in; None for a cond, −1 for a
            while_loop.
        made_by: the equation.
    """

    region: Region
    equation: int | None
    output: int
    variable: Variable
    loops: tuple[int | None, ...]
    made_by: Equation | None

    @property
    def loop_shape(self) -> tuple[int, ...]:
        """An axis for each scan."""
        return tuple(n for n in self.loops if n is not None and n >= 0)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is found there."""
        return (*self.loop_shape, *self.variable.shape)

    @property
    def in_while(self) -> bool:
        """Whether it lies in a loop whose length is known only when it has run."""
        return -1 in self.loops


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
    def scope(self) -> str:
        """The module it is seen in: for an input the one that reads it, else where it is made."""
        if self.base.endswith(INPUT):
            return self.base.removesuffix(INPUT)
        return self.place.made_by.scope if self.place.made_by else ""

    @property
    def name(self) -> str:
        """What no other site is called: the name, and ``#2`` for the second of several."""
        return f"{self.base}#{self.number}" if self.number else self.base


class Survey:
    """All arrays of a program that have names, in the order of evaluation.

    Attributes:
        sites: them.
        outputs: where the outputs of the function are made; None for a constant.
        equations: all equations but regions, with the regions that each lies in.
    """

    def __init__(self, closed: Any, arguments: Sequence[str]) -> None:
        self.sites: list[Site] = []
        self.equations: list[tuple[Equation, Region]] = []
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
        given = [patterns] if isinstance(patterns, str) else list(patterns)
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
        exact = [site for site in self.sites if site.name == pattern]
        if exact:
            return exact
        matches = _matcher(pattern)
        found = [site for site in self.sites if matches(site)]
        if not found:
            names = dict.fromkeys(site.name for site in self.sites)
            likely = ", ".join(map(repr, scope_names.nearest(pattern, names)))
            hint = f"The nearest are {likely}." if likely else "The function has none."
            raise ValueError(
                f"No site matches {pattern!r}. {hint} semijax.list_sites(fun)(*args) lists all."
            )
        return found

    def _visit(
        self,
        graph: Graph,
        region: Region,
        loops: tuple[int | None, ...],
        within: Module,
        origins: dict[Variable, str],
        arguments: Sequence[str] = (),
    ) -> dict[Any, Place]:
        readers: dict[Variable, list[Consumer]] = collections.defaultdict(list)
        for number, equation in enumerate(graph.equations):
            if not bodies(equation):
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
                origins[v] = COMPUTED
            for n, body in enumerate(bodies(equation)):
                inner = build(body, within=equation)
                length = -1 if equation.name == "while" else equation.params.get("length")
                inside = (*region, (number, n)), (*loops, length)
                self._visit(inner, *inside, equation.module, _origins(equation, inner, origins))
            for v in equation.outputs:
                if v.differentiable:
                    own = equation.params["name"] if equation.name == TAP else equation.name
                    name(f"{equation.scope}/{own}" if equation.scope else own, v)
                    for module in modules.left_by(v, equation):
                        name(module.scope, v, module)
        return places


ARGUMENT, COMPUTED, CONSTANT = "argument", "computed", "constant"


def _origins(equation: Equation, body: Graph, outer: Mapping[Any, str]) -> dict[Variable, str]:
    """Where the inputs of a body come from; what a loop carries is computed."""
    skipped = len(equation.inputs) - len(body.inputs)  # the test of a loop, the index of a cond
    operands = equation.inputs[skipped:]
    origins = {
        v: outer.get(operand, CONSTANT) for v, operand in zip(body.inputs, operands, strict=True)
    }
    carries = len(body.outputs) if equation.name == "while" else 0
    first = len(body.inputs) - carries
    if equation.name == "scan":
        first, carries = _compat.scan_layout(equation.params)
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
        """What it reads of what was computed before; of the arguments, if there is none.

        Of these, what a path to an output leads from: not a mask that is only compared.
        """
        read = [v for v in self._read[module] if v.differentiable and not self._made_in(v, module)]
        of_origin = ([v for v in read if origins.get(v) == o] for o in (COMPUTED, ARGUMENT))
        found = next(filter(None, of_origin), [])
        return [v for v in found if v in self._leading] or found

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
    return equation.name != "stop_gradient" and any(v.differentiable for v in equation.outputs)


def _leading(graph: Graph) -> set[Any]:
    """The variables from which a path may lead to an output."""
    found: set[Any] = {v for v in graph.outputs if isinstance(v, Variable) and v.differentiable}
    for equation in reversed(graph.equations):
        if _leads_on(equation) and any(v in found for v in equation.outputs):
            found |= {v for v in equation.inputs if isinstance(v, Variable) and v.differentiable}
    return found


def _matcher(pattern: str) -> Callable[[Site], bool]:
    """Whether a site is picked by a glob.

    A module that matches stands for what comes out of it, and hides what lies in it.
    """
    wants_input = pattern.endswith(INPUT)
    glob = re.compile(fnmatch.translate(pattern.removesuffix(INPUT)))

    def matches(site: Site) -> bool:
        if site.base.endswith(INPUT) != wants_input:
            return False
        base = site.base.removesuffix(INPUT)
        *outer, last = scope_names.enclosing(base)
        made_by = site.place.made_by
        if made_by is not None and made_by.name == TAP and glob.match(made_by.params["name"]):
            return site.module is None
        return bool(glob.match(last)) and not any(map(glob.match, outer))

    return matches


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
        scope: the module whose equation makes it; the argument's name for one.
        primitive: what makes it.
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


@dataclasses.dataclass(frozen=True)
class SiteTable:
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

    def __str__(self) -> str:
        cells = []
        for row in self.rows:
            name, *others = row.names or (f"({row.primitive})",)
            shape = f"{row.dtype}[{', '.join(map(str, row.shape))}]"
            cells.append((name, row.primitive, shape, row.source, ", ".join(others)))
        return tables.text(("site", "primitive", "shape", "source", "also called"), cells)

    __repr__ = __str__
