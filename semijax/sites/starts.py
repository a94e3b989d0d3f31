"""The starts of paths: what ``source`` and ``argnums`` mean, in every function that has them."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from semijax import checks
from semijax.sites.program import Argnums, Program
from semijax.sites.site import Place, Site, marks
from semijax.trace import scope_names
from semijax.trace.graph import STOP_GRADIENT, Constant, Graph, Variable, build, build_bodies
from semijax.weighting import DERIVATIVE, Weighting


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """An array where paths start.

    Attributes:
        name: the site's, or the argument's.
        place: where the array is made.
        mask: at which of its elements paths start, a boolean array of the site's shape; None for
            all of them.
    """

    name: str
    place: Place
    mask: Any = None


@dataclasses.dataclass(frozen=True)
class Starts:
    """All arrays where paths start.

    Attributes:
        arrays: the starts; no two are the same array.
        sites: the names of those that were asked for by name; none if paths start at the arguments
            at ``argnums``.
        text: what to call them in a message.
    """

    arrays: tuple[Start, ...]
    sites: tuple[str, ...]
    text: str

    def masks(self) -> dict[Place, Any]:
        """Return the masks by place, in the axes in which the arrays were made.

        Raises:
            NotImplementedError: if paths start at some elements of an array in a loop.
        """
        for start in self.arrays:
            if start.mask is not None and start.place.loops:
                raise NotImplementedError(
                    f"Source {start.name!r} lies in a loop or a conditional, where paths can start "
                    "at all of its elements only."
                )
        return {
            start.place: None if start.mask is None else start.place.made(start.mask)
            for start in self.arrays
        }


def start_program(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    argnums: int | Sequence[int],
    source: Any,
    traced: Argnums,
    caller: str,
    weighting: Weighting = DERIVATIVE,
) -> tuple[Program, Starts]:
    """Return the program of a call, and where its paths start.

    Args:
        fun: the function that is called.
        args: its arguments.
        kwargs: its keyword arguments.
        argnums: the positions of the arguments that paths start from, unless arrays are named.
        source: the arrays or elements, see ``top_paths``; None for these arguments.
        traced: see ``list_sites``.
        caller: the function of this package that was called.
        weighting: what the edges weigh.

    Raises:
        TypeError, ValueError, IndexError: if paths cannot start there, or nothing has that name.
    """
    checks.check_callable(fun)
    if _is_names(source) or _is_pair(source):
        program = Program(fun, args, kwargs, traced, caller=caller, weighting=weighting)
        return program, _at_names(program, source)
    given = checks.check_argnums(argnums)
    chosen = checks.positions(given, args)
    primals = tuple(args[n] for n in chosen)
    checks.check_inputs(caller, primals, INSTEAD)
    program = Program(fun, args, kwargs, traced, caller=caller, weighting=weighting)
    like = primals[0] if isinstance(given, int) else primals
    return program, _at_arguments(program, chosen, source, jax.tree.structure(like))


def _at_names(program: Program, source: Any) -> Starts:
    if _is_pair(source):
        start = _element(program, *source)
        return Starts((start,), (start.name,), repr(source))
    patterns = [source] if isinstance(source, str) else list(source)
    if not patterns:
        raise ValueError("source must name an array where paths start, got no name.")
    chosen: dict[Place, Site] = {}
    for pattern in patterns:
        picked = program.survey.picked(pattern)
        _check_uses(program, pattern, picked)
        for site in picked:
            chosen.setdefault(site.place, site)
    _check_apart(program, [*chosen.values()])
    names = tuple(site.name for site in chosen.values())
    arrays = (Start(site.name, site.place) for site in chosen.values())
    return Starts(tuple(arrays), names, repr(source))


def _at_arguments(program: Program, argnums: Sequence[int], mask: Any, structure: Any) -> Starts:
    """Start at all leaves of arguments, or where a mask of their structure is true."""
    leaves = [
        Start(program.names[i], program.survey.inputs[i])
        for n in argnums
        for i, of in enumerate(program.argnums)
        if of == n
    ]
    if len(leaves) != structure.num_leaves:
        raise ValueError("The arguments that paths start from must be among those that are traced.")
    if mask is None:
        return Starts(tuple(leaves), (), "the arguments")
    given = jax.tree.structure(mask)
    text = f"a mask of structure {given}"
    if given != structure:
        raise ValueError(
            "source must be the name of an array, a pair of such a name and an index, or a boolean "
            f"mask with the structure of the differentiated argument, {structure}; got {text}."
        )
    pairs = zip(leaves, jax.tree.leaves(mask), strict=True)
    return Starts(tuple(_masked(leaf, own) for leaf, own in pairs), (), text)


INSTEAD = "Paths may start at an intermediate array too: give its name as source, like '*/embed'."
"""The hint for arguments that no path can start from."""


def _masked(start: Start, mask: Any) -> Start:
    array = mask if isinstance(mask, jax.Array) else np.asarray(mask)
    if array.dtype != bool:
        raise TypeError(f"The mask of {start.name} must be boolean, got {array.dtype}.")
    if array.shape != start.place.shape:
        raise ValueError(
            f"The mask of {start.name} must have shape {start.place.shape}, got {array.shape}."
        )
    return dataclasses.replace(start, mask=array)


def _element(program: Program, leaf: Any, index: Any) -> Start:
    """Start at one element of an argument's leaf, or of a site."""
    keys = leaf if isinstance(leaf, tuple) else (leaf,)
    name = leaf if isinstance(leaf, str) else _name(keys)
    if name in program.names:
        place = program.survey.inputs[program.names.index(name)]
    elif isinstance(leaf, str):
        picked = program.survey.choose(leaf)
        if len({site.place for site in picked}) > 1:
            raise ValueError(
                f"source must name one array, and {leaf!r} are several: "
                f"{scope_names.listed(site.name for site in picked)}."
            )
        name, place = picked[0].name, picked[0].place
    else:
        likely = scope_names.listed(scope_names.nearest(name, program.names))
        hint = f" The nearest are {likely}." if likely else f" There is none. {INSTEAD}"
        raise ValueError(f"No floating point argument is called {name!r}.{hint}")
    shape = place.shape
    wanted = tuple(index) if isinstance(index, (tuple, list)) else (index,)
    inside = len(wanted) == len(shape) and all(
        _is_integer(i) and -n <= i < n for i, n in zip(wanted, shape, strict=True)
    )
    if not inside:
        raise IndexError(
            f"source index {index} is out of range for {name}, which has shape {shape}."
        )
    mask = np.zeros(shape, bool)
    mask[tuple(map(operator.index, wanted))] = True
    return Start(name, place, mask)


def _is_names(source: Any) -> bool:
    """Tell whether it is a name of arrays, or several."""
    if isinstance(source, str):
        return True
    return isinstance(source, (list, tuple)) and all(isinstance(name, str) for name in source)


def _is_pair(source: Any) -> bool:
    """Tell whether it is a leaf and an index, not a mask of a pair of arguments."""
    if not isinstance(source, tuple) or len(source) != 2 or isinstance(source[1], str):
        return False
    keys = source[0] if isinstance(source[0], tuple) else (source[0],)
    return all(isinstance(key, str) or _is_integer(key) for key in keys)


def _is_integer(key: Any) -> bool:
    return hasattr(key, "__index__") and not isinstance(key, (bool, np.ndarray, jax.Array))


def _name(keys: tuple[Any, ...]) -> str:
    return "".join(
        f"[{key!r}]" if isinstance(key, str) else f"[{operator.index(key)}]" for key in keys
    )


def _check_uses(program: Program, pattern: str, sites: Sequence[Site]) -> None:
    """Raise if two arrays have one name, and one of them is computed from the other."""
    of_name: dict[str, list[Site]] = {}
    for site in sites:
        of_name.setdefault(site.base, []).append(site)
    for uses in of_name.values():
        if len(uses) > 1 and any(_behind(program, uses, through_edges=True)):
            raise ValueError(
                f"Source {pattern!r} means several arrays, one of which is computed from another: "
                f"{scope_names.listed(site.name for site in uses)}. Name those where paths are to "
                "start."
            )


def _check_apart(program: Program, sites: Sequence[Site]) -> None:
    """Raise if two names refer to the same nodes, such as what a loop carries in and out."""
    same = _behind(program, sites, through_edges=False) if len(sites) > 1 else []
    for site, before in zip(sites, same, strict=False):
        for other in before:
            raise ValueError(
                f"Sources {other.name!r} and {site.name!r} have elements in common, from which "
                "paths would start twice. Name one of the two."
            )


def _behind(program: Program, sites: Sequence[Site], *, through_edges: bool) -> list[list[Site]]:
    """Return, for each of some sites, the others that a path may come from.

    Args:
        program: the call.
        sites: the sites.
        through_edges: whether along any edges; else only as the same nodes, in and out of regions.
    """
    places = [site.place for site in sites]
    closed, active = program.closed, [False] * len(program.leaves)
    graph = build(closed, active=active, marks=marks(places, {}))
    found: dict[int, int] = dict.fromkeys(range(len(sites)), 0)
    _reach(graph, [0] * len(graph.inputs), found, through_edges)
    return [
        [other for m, other in enumerate(sites) if m != n and found[n] >> m & 1]
        for n in range(len(sites))
    ]


def _reach(graph: Graph, arriving: Sequence[int], found: dict[int, int], edges: bool) -> list[int]:
    """Follow marked arrays, sets of numbers as bits, from a graph's inputs to its outputs."""
    known: dict[Variable, int] = {}

    def define(v: Variable, numbers: int) -> None:
        known[v] = numbers if v.differentiable else 0
        for number in graph.marked.get(v, ()):
            found[number] |= known[v]
        for number in graph.marked.get(v, ()):
            known[v] |= 1 << number

    def read(v: Variable | Constant) -> int:
        return known.get(v, 0) if isinstance(v, Variable) else 0

    for v, numbers in zip(graph.inputs, arriving, strict=True):
        define(v, numbers)
    for equation in graph.equations:
        operands = [read(v) for v in equation.inputs]
        results = [0] * len(equation.outputs)
        if equation.region:
            first, carries = equation.region.carried
            for body in build_bodies(equation):
                inputs = operands[len(operands) - len(body.inputs) :]
                while True:
                    outputs = _reach(body, inputs, found, edges)
                    grown = list(inputs)
                    for j in range(carries):
                        grown[first + j] |= outputs[j]
                    if grown == inputs:
                        break
                    inputs = grown
                results = [a | b for a, b in zip(results, outputs, strict=True)]
        elif edges and equation.primitive is not STOP_GRADIENT:
            together = 0
            for numbers in operands:
                together |= numbers
            results = [together] * len(results)
        for v, numbers in zip(equation.outputs, results, strict=True):
            define(v, numbers)
    return [read(v) for v in graph.outputs]
