"""The meaning of arrays' axes: which one counts the tokens, and which one the heads of attention.

Nobody has to state it. An embedding is a row of a table for each token; from there the labels of
the axes are followed through the equations (``AxisLabels``), as they are to find the batch axes of
a Jacobian. Where two arrays with tokens are contracted head by head, as queries and keys are, the
axis they share is that of the heads. Any other name may be stated for one array, and is then known
for all arrays computed from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from semijax.jacobians.axis_labels import AxisLabels, Labels, elementwise, shapes, unchanged
from semijax.jacobians.base import declaration
from semijax.jacobians.control_flow import region_bodies
from semijax.sites.site import Place, Site
from semijax.sites.survey import Survey
from semijax.trace import scope_names
from semijax.trace.graph import Constant, Equation, Graph, Variable
from semijax.trace.primitives import primitive
from semijax.trace.regions import CondRegion, ScanRegion, WhileRegion

TOKEN, HEAD, BATCH = "token", "head", "batch"

Names = tuple[str | None, ...]
"""A name for every axis of an array; None for one without a name."""

Key = tuple[tuple[tuple[int, int], ...], int | None, int]
"""An array, by the regions it is made in and two numbers.

The equation that makes it, and which of its outputs it is; or which of the inputs, for None.
"""

NO_KEY: Key = ((), None, -1)
"""The key of a constant."""

StatedAxes = Mapping[str, Sequence[str | None]] | None
"""A user's statement of axes: from an array's name, or a glob, to the names of its axes."""

GATHER, DOT, RESHAPE = primitive("gather"), primitive("dot_general"), primitive("reshape")
BROADCAST = primitive("broadcast_in_dim")


class NamedAxis(NamedTuple):
    """An axis that a name belongs to, or a part of an axis.

    Before a reshape splits hidden units into heads, and after another joins them, the axis of
    hidden units is that of heads times what each head has.

    Attributes:
        axis: which axis.
        sizes: the sizes of what lies before the part, of the part itself and of what lies behind;
            their product is the axis's size. A whole axis has 1 before and behind.
    """

    axis: int
    sizes: tuple[int, int, int]

    @property
    def is_whole(self) -> bool:
        """True if it is the whole axis."""
        return self.sizes[0] == self.sizes[2] == 1


def stated_axes(survey: Survey, axes: StatedAxes) -> dict[Key, Names]:
    """Return what a user states about the axes of some arrays of a program.

    Raises:
        TypeError: if it is not a mapping from names to tuples of names.
        ValueError: if a name matches nothing, or an array has fewer axes than it is given names.
    """
    fine = axes is None or isinstance(axes, Mapping)
    if not fine or not all(_are_names(names) for names in (axes or {}).values()):
        raise TypeError(
            "axes must be a dict from an array's name to a tuple of the names of its axes, such as "
            f"{{'[0]': ('token', None)}}; got {axes!r}."
        )
    found: dict[Key, Names] = {}
    for pattern, names in (axes or {}).items():
        for site in survey.picked(pattern):
            place, rank = site.place, len(site.place.variable.shape)
            if len(names) > rank:
                raise ValueError(f"{site.name!r} has {rank} axes, and axes names {len(names)}.")
            in_order = list(names)
            if place.axes is not None:
                own = {a: name for a, name in zip(place.axes, names, strict=False)}
                in_order = [own.get(a) for a in range(len(place.axes))]
            found[place.region, *place.position] = tuple(in_order)
    return found


def _reads_rows(equation: Equation) -> bool:
    """Tell whether a gather reads whole rows of a table, or whole columns."""
    sizes, batched = shapes(equation)[0], equation.params["dimension_numbers"].operand_batching_dims
    if len(sizes) != 2 or batched:
        return False
    return equation.params["slice_sizes"] in ((1, sizes[1]), (sizes[0], 1))


Part = tuple[int | None, tuple[int, int, int]]
"""The label of a part of an axis, and the sizes of what lies before it, its own, and behind."""


def _products(
    parts: Sequence[tuple[int | None, int]], wholes: Sequence[tuple[int | None, int]]
) -> Iterator[tuple[int, list[Part]]]:
    """Yield axes of one shape, each with the axes of another shape that it is the product of.

    Both are labels and sizes, and have the same number of elements.
    """
    if any(size == 0 for _, size in wholes):
        return
    waiting = [part for part in parts if part[1] != 1]
    for axis, (_, whole) in enumerate(wholes):
        own, size = [], 1
        while waiting and size < whole:
            label, length = waiting.pop(0)
            own.append((label, (size, length, whole // (size * length))))
            size *= length
        if size != whole:
            return  # some are taken apart and joined at once
        if len(own) > 1:
            yield axis, own


def _are_names(names: Any) -> bool:
    several = isinstance(names, (tuple, list))
    return several and all(name is None or isinstance(name, str) for name in names)


class AxisNames:
    """The names of the axes of a graph's arrays, also inside loops and branches.

    Args:
        graph: the graph.
        stated: the names that the user gives the axes of some arrays. An axis that is given None
            has no name, whatever it seems to be.
    """

    def __init__(self, graph: Graph, stated: Mapping[Key, Sequence[str | None]]) -> None:
        self._labels = AxisLabels()
        self._of: dict[Key, Labels] = {}
        self._iterations: dict[tuple[tuple[int, int], ...], int | None] = {}
        self._embedded: list[tuple[int, str]] = []
        self._contractions: list[tuple[list[tuple[int | None, int]], Labels]] = []
        self._parts: dict[Key, dict[int, list[Part]]] = {}
        self._follow(graph, [self._labels.fresh(v.shape) for v in graph.inputs])
        names: dict[int, str | None] = {}
        for last in (BATCH, TOKEN):
            names |= {self._find(label): name for label, name in self._embedded if name == last}
        for key, given in stated.items():
            labels = (*self._of[key], *(None for _ in given))[: len(given)]
            names |= {self._find(x): n for x, n in zip(labels, given, strict=True) if x is not None}
        self._names = names | self._heads(names)

    def of(self, key: Key) -> Names:
        """Return the names of an array's axes, in the order in which the program has them."""
        return tuple(map(self._name, self._of.get(key, ())))

    def axis(self, site: Site, name: str) -> NamedAxis:
        """Return the first axis of a site with a name, preferring its own axes to those of loops.

        Where no axis has the name, return a part of the first axis with a part that has.

        Raises:
            ValueError: if no part has it either.
        """
        own, loops = self.seen(site.place), len(site.place.loop_shape)
        if name in own:
            axis = own.index(name, loops) if name in own[loops:] else own.index(name)
            return NamedAxis(axis, (1, site.place.shape[axis], 1))
        for axis, parts in enumerate(self._parts_seen(site.place), loops):
            for label, sizes in parts:
                if self._name(label) == name:
                    return NamedAxis(axis, sizes)
        known = scope_names.listed(self.within(site.place)) or "none"
        raise ValueError(
            f"{site.name!r} has no axis known as {name!r}, of {len(own)} axes; known are: {known}. "
            f"axes={{{site.name!r}: (…)}} names them; list_sites(fun, axis={name!r}) lists the "
            "arrays that have one."
        )

    def within(self, place: Place) -> tuple[str, ...]:
        """Return the names of the axes of ``place.shape`` that have one, and of their parts."""
        parts = (self._name(label) for own in self._parts_seen(place) for label, _ in own)
        return tuple(dict.fromkeys(name for name in (*self.seen(place), *parts) if name))

    def _parts_seen(self, place: Place) -> list[Sequence[Part]]:
        """Return the parts of each axis but those of loops, in the order its author sees."""
        parts = self._parts.get((place.region, *place.position), {})
        in_order = range(len(place.variable.shape)) if place.axes is None else place.axes
        return [parts.get(axis, ()) for axis in in_order]

    def seen(self, place: Place) -> Names:
        """Return the names of the axes of ``place.shape``: of scans, and those its author sees."""
        names = self.of((place.region, *place.position))
        loops = [region for region in place.loops if region.is_loop]
        counted = zip(loops, self.of_iterations(place.region), strict=True)
        scans = (name for region, name in counted if isinstance(region, ScanRegion))
        return *scans, *(names if place.axes is None else (names[a] for a in place.axes))

    def of_iterations(self, path: tuple[tuple[int, int], ...]) -> Names:
        """Return what the iterations of the loops around a graph count, from the outside in."""
        around = (path[: n + 1] for n in range(len(path)))
        labels = [self._iterations[outer] for outer in around if outer in self._iterations]
        return tuple(map(self._name, labels))

    @property
    def known(self) -> frozenset[str]:
        """All names that any axis has."""
        return frozenset(name for name in self._names.values() if name)

    def _name(self, label: int | None) -> str | None:
        return None if label is None else self._names.get(self._find(label))

    def _find(self, label: int) -> int:
        return self._labels.find(label)

    def _heads(self, names: Mapping[int, str | None]) -> dict[int, str | None]:
        """Find the axes shared where arrays with tokens are contracted, if they are nothing else.

        An axis of length 1 beside it stands for a batch that is missing. Where a batch and heads
        are one axis, the heads are the other part of it.
        """
        found: dict[int, str | None] = {}
        with_batch = self._joined_with_a_batch(names)
        for shared, everything in self._contractions:
            if TOKEN in {names.get(self._find(x)) for x in everything if x is not None}:
                roots = {
                    part: size
                    for label, size in shared
                    if label is not None
                    for part in with_batch.get(self._find(label), [self._find(label)])
                }
                others = {root: size for root, size in roots.items() if root not in names}
                longer = {root for root, size in others.items() if size > 1}
                found |= dict.fromkeys(longer or others, HEAD)
        return found

    def _joined_with_a_batch(self, names: Mapping[int, str | None]) -> dict[int, list[int]]:
        """Return the parts of each axis that has a batch for a part."""
        found = {}
        for key, axes in self._parts.items():
            for axis, parts in axes.items():
                whole, roots = (
                    self._of[key][axis],
                    [self._find(x) for x, _ in parts if x is not None],
                )
                if whole is not None and BATCH in map(names.get, roots):
                    found[self._find(whole)] = roots
        return found

    # Through the equations.

    def _follow(self, graph: Graph, inputs: Sequence[Labels]) -> list[Labels]:
        """Return the labels of a graph's outputs; those of all that is made on the way are kept."""
        known: dict[Variable, Labels] = {
            v: self._labels.fresh(np.shape(value)) for v, value in graph.constants.items()
        }
        keys: dict[Variable, Key] = dict.fromkeys(graph.constants, NO_KEY)
        for n, (variable, labels) in enumerate(zip(graph.inputs, inputs, strict=True)):
            keys[variable] = graph.path, None, n
            known[variable] = self._of[keys[variable]] = labels

        def read(atom: Variable | Constant) -> Labels:
            if isinstance(atom, Variable):
                return known[atom]
            return self._labels.fresh(np.shape(atom.value))

        for equation in graph.equations:
            outputs = self._through(equation, [read(v) for v in equation.inputs])
            for o, (variable, own) in enumerate(zip(equation.outputs, outputs, strict=True)):
                fresh = self._labels.fresh(variable.shape)
                labels = tuple(b if a is None else a for a, b in zip(own, fresh, strict=True))
                keys[variable] = equation.path, equation.number, o
                known[variable] = self._of[keys[variable]] = labels
            self._note(equation, [known[v] for v in equation.outputs], read)
        self._divide(graph, known, keys)
        return [read(v) for v in graph.outputs]

    def _divide(
        self, graph: Graph, known: Mapping[Variable, Labels], keys: Mapping[Variable, Key]
    ) -> None:
        """Note the parts of axes, from a reshape on, as far as one array is followed alone.

        Where two arrays are added, each may have parts of its own; a bias is spread over all rows.
        """
        spread: set[Variable] = set()
        for equation in (*graph.equations, *reversed(graph.equations)):
            inputs = {v for v in equation.inputs if isinstance(v, Variable)}
            made = equation.outputs[0] if equation.outputs else None
            if equation.primitive is RESHAPE and inputs and made is not None:
                (read,) = inputs
                old, new = (list(zip(known[v], v.shape, strict=True)) for v in (read, made))
                self._note_parts(keys[made], dict(_products(old, new)))
                self._note_parts(keys[read], dict(_products(new, old)))
            elif equation.primitive is BROADCAST:
                spread |= {*equation.outputs}
            elif made and declaration(equation.primitive).axes in (elementwise, unchanged):
                alike = [v for v in inputs if v.shape == made.shape and v not in spread]
                if not alike:
                    spread.add(made)
                elif len(alike) == 1:
                    one, other = keys[alike[0]], keys[made]
                    self._note_parts(one, self._parts.get(other, {}))
                    self._note_parts(other, self._parts.get(one, {}))

    def _note_parts(self, key: Key, parts: Mapping[int, list[Part]]) -> None:
        """Add parts of an array's axes; an axis with other parts already then has none."""
        if key == NO_KEY:
            return
        own = self._parts.setdefault(key, {})
        for axis, found in parts.items():
            own[axis] = found if own.get(axis, found) == found else []

    def _note(self, equation: Equation, outputs: Sequence[Labels], read: Any) -> None:
        """Note where tokens are embedded, and what may be heads."""
        if equation.primitive is GATHER and _reads_rows(equation):
            offset = equation.params["dimension_numbers"].offset_dims
            rows = [label for axis, label in enumerate(outputs[0]) if axis not in offset]
            # One row after another of what paths come through may be anything.
            if rows and (0 not in equation.active or len(rows) > 1):
                what = (TOKEN, *(BATCH for _ in rows[1:]))
                pairs = zip(reversed(rows), what, strict=True)
                self._embedded += [(label, name) for label, name in pairs if label is not None]
        if equation.primitive is DOT:
            (summed, _), (batch, _) = equation.params["dimension_numbers"]
            if summed:  # or it scales one by the other
                lhs, rhs = map(read, equation.inputs)
                sizes = shapes(equation)[0]
                self._contractions.append(([(lhs[a], sizes[a]) for a in batch], (*lhs, *rhs)))

    def _through(self, equation: Equation, inputs: list[Labels]) -> Sequence[Labels]:
        region = equation.region
        if region is None:
            return self._labels.step(equation, inputs)
        bodies = region_bodies(equation)
        if isinstance(region, ScanRegion):
            return self._scan(region, bodies[0], inputs)
        if isinstance(region, CondRegion):
            _, operands = region.operands(inputs)
            branches = (self._follow(body, operands) for body in bodies)
            return [self._labels.unify(*each) for each in zip(*branches, strict=True)]
        assert isinstance(region, WhileRegion)
        _, consts, carry = region.operands(inputs)
        self._iterations[bodies[0].path] = None  # not along any axis
        results = self._follow(bodies[0], [*consts, *carry])
        return [self._labels.unify(*each) for each in zip(carry, results, strict=True)]

    def _scan(self, region: ScanRegion, body: Graph, inputs: list[Labels]) -> list[Labels]:
        consts, carry, xs = region.operands(inputs)
        (iteration,) = self._labels.fresh([region.length])
        assert iteration is not None
        self._iterations[body.path] = iteration
        for own in xs:
            self._labels.unify((iteration,), own[:1])
        results = self._follow(body, [*consts, *carry, *(own[1:] for own in xs)])
        carried = zip(carry, results[: len(carry)], strict=True)
        made = [(iteration, *own) for own in results[len(carry) :]]
        return [*(self._labels.unify(*each) for each in carried), *made]
