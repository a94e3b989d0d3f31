"""The flow between groups of nodes: the paths that take an edge from one group to another.

Each node of a run belongs to a group, such as a module, or a token in a module. What flows from one
group to another is the ⊕ over the complete paths of what crosses there: what comes to the start of
an edge, times its weight, times what leads on from its end. That is exact in any semiring, and
costs a sweep forward, a sweep backward and one more pull for every equation. Only an equation that
sends one node to several groups, as attention sends a key to all tokens that look at it, is pulled
through once for each of these.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import elements as el
from semijax.elements import Elements
from semijax.jacobians.pins import Pins, part_of
from semijax.paths.run import Array, Rows, Run, Step
from semijax.paths.slabs import Slab, only, pulled_slabs, whole
from semijax.paths.sweeps import backward, forward, multiplied, only_at, pulled, read_out, started
from semijax.semirings import Semiring
from semijax.semirings.extent import Extent
from semijax.semirings.order import Interval

Groups = Mapping[Array, np.ndarray]
"""The numbers of the groups of an array's nodes, in a shape that broadcasts to the array's."""


def group_nodes(run: Run, group: Callable[[Array], Any]) -> Groups:
    """Group the nodes of all arrays; rows that a loop reads and writes keep their groups.

    Args:
        run: the run.
        group: from an array to the number of its nodes' group, or an array of such numbers that
            broadcasts to its shape.
    """
    found: dict[Array, np.ndarray] = {}
    for array in run.arrays:
        rows = None if array.step is None else run.steps[array.step].jacobian
        if not isinstance(rows, Rows):
            found[array] = np.asarray(group(array), int)
            continue
        inputs = run.steps[array.step or 0].inputs
        if rows.joined:
            own = [
                np.broadcast_to(found[inputs[t]], rows.row)
                if t in inputs
                else np.full(rows.row, -1)
                for t in range(rows.count)
            ]
            found[array] = np.stack(own)
        else:
            (whole,) = inputs.values()
            found[array] = np.broadcast_to(found[whole], whole.shape)[array.output]
    return found


@dataclasses.dataclass(frozen=True)
class Flow:
    """The flow between groups in one semiring.

    Attributes:
        semiring: the semiring.
        pairs: the groups that paths cross between, ``[n, 2]``: from one, to another.
        crossing: elements ``[n]``: the ⊕ over all paths that cross there, once for each time.
        starts: the groups where paths start, ``[m]``.
        starting: elements ``[m]``: the ⊕ over all paths that start there.
        watched: for some arrays the ⊕ over the paths through each node.
    """

    semiring: Semiring
    pairs: np.ndarray
    crossing: Elements
    starts: np.ndarray
    starting: Elements
    watched: Mapping[Array, Elements]

    def log_size(self) -> float:
        """Return the logarithm of the size of all paths, see ``Semiring.log_size``."""
        with jax.enable_x64(True):
            return float(self.semiring.log_size(self.whole()))

    def shares(self, elements: Elements) -> np.ndarray:
        """Return the size of some elements over that of all paths; 0 where the latter is 0."""
        with jax.enable_x64(True):
            logs, whole = np.asarray(self.semiring.log_size(elements)), self.log_size()
        return np.exp(logs - whole) if whole > -math.inf else np.zeros(logs.shape)

    def numbers(self, elements: Elements) -> np.ndarray:
        """Return the statistic of some elements.

        Raises:
            TypeError: if there are several for each.
        """
        found = jax.tree.leaves(read_out(self.semiring, elements))
        if len(found) != 1 or found[0].shape != self.semiring.shape(elements):
            raise TypeError(
                f"An edge between modules has one number, and {self.semiring} reads out several."
            )
        return np.asarray(found[0], float)

    def whole(self) -> Elements:
        """Return the elements of all paths together."""
        with jax.enable_x64(True):
            return self.semiring.sum(self.starting, (0,))

    def through(self, count: int) -> Elements:
        """Return the ⊕ of what comes to each of ``count`` groups, or starts there."""
        with jax.enable_x64(True):
            where = np.concatenate([self.pairs[:, 1], self.starts])
            elements = el.concatenate([self.crossing, self.starting], 0)
            return self.semiring.segment_sum(elements, jnp.asarray(where), count)


class Crossings:
    """The places where the paths of a run cross from group to group.

    Args:
        run: the run.
        begin: where paths start: the positions in each array; None for all.
        end: where they end.
        groups: the groups of all nodes.
    """

    def __init__(
        self, run: Run, begin: Mapping[Array, np.ndarray | None], end: Array, groups: Groups
    ) -> None:
        self._run, self._begin, self._end, self._groups = run, begin, end, groups
        self._targets: dict[Step, dict[int, np.ndarray]] = {}
        self._pairs: np.ndarray | None = None

    def flow(self, semiring: Semiring, watch: Iterable[Array] = ()) -> Flow:
        """Compute the flow in a semiring, and what passes through each node of some arrays.

        The pairs of groups, and the groups where paths start, are the same in every semiring.
        """
        with jax.enable_x64(True):
            from_begin = forward(self._run, semiring, self._begin)
            to_end = backward(self._run, semiring, self._end)
            crossing, starting = _Sums(semiring, 2), _Sums(semiring, 1)
            for step in self._run.steps:
                arrived = {o: to_end[a] for o, a in step.outputs.items() if a in to_end}
                departed = {i: a for i, a in step.inputs.items() if a in from_begin}
                if step.equation is None or not departed or not arrived:
                    continue
                for given, targets in self._pulls(semiring, step, arrived):
                    for i, (pins, ahead) in pulled_slabs(semiring, step, given).items():
                        if i in departed:
                            array = departed[i]
                            come = part_of(from_begin[array], pins)
                            both = multiplied(semiring, come, ahead)
                            crossing.add(both, pins, self._groups[array], targets[i])
            for array, positions in self._begin.items():
                if array in to_end:
                    elements = started(semiring, array, to_end[array])
                    own = only_at(semiring, elements, positions)
                    starting.add(own, (None,) * len(array.shape), self._groups[array])
            pairs, crossed = crossing.total()
            starts, begun = starting.total()
            self._pairs = pairs if self._pairs is None else self._pairs
            assert np.array_equal(pairs, self._pairs)
            watched = {
                array: multiplied(semiring, from_begin[array], to_end[array])
                for array in watch
                if array in from_begin and array in to_end
            }
            return Flow(semiring, pairs, crossed, starts[:, 0], begun, watched)

    def _pulls(
        self, semiring: Semiring, step: Step, arrived: dict[int, Elements]
    ) -> Iterator[tuple[dict[int, Slab], Mapping[int, np.ndarray]]]:
        """Yield what to pull through a step, and the group each input node then leads to."""
        if step not in self._targets:
            self._targets[step] = self._reached(step, arrived)
        targets = self._targets[step]
        slabs = {o: whole(e, len(step.outputs[o].shape)) for o, e in arrived.items()}
        if targets:
            yield slabs, targets
            return
        shapes = {o: step.outputs[o].shape for o in arrived}
        groups = {o: np.broadcast_to(self._groups[step.outputs[o]], s) for o, s in shapes.items()}
        for group in np.unique(np.concatenate([own.ravel() for own in groups.values()])):
            given = {
                o: slab
                for o, own in groups.items()
                if (slab := only(semiring, slabs[o], own == group)) is not None
            }
            yield given, {i: group for i in step.inputs}

    def _reached(self, step: Step, arrived: Iterable[int]) -> dict[int, np.ndarray]:
        """Return the one group each node of an input leads to; nothing if some lead to several."""
        own = {o: self._groups[step.outputs[o]] for o in arrived}
        values = {int(g.ravel()[0]) if g.size else -1 for g in own.values()}
        if len(values) == 1 and all((g == g.ravel()[:1]).all() for g in own.values()):
            return dict.fromkeys(step.inputs, np.asarray(values.pop()))
        labels = {
            o: jnp.broadcast_to(jnp.asarray(g, float), step.outputs[o].shape)
            for o, g in own.items()
        }
        reach = pulled(Extent(), step, {o: Interval(label, label) for o, label in labels.items()})
        if any((found.max > found.min).any() for found in reach.values()):
            return {}
        return {i: _one_each(*map(np.asarray, found)) for i, found in reach.items()}


def _one_each(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Return the number in each interval, −1 if empty, without the axes it does not vary along."""
    for axis in range(high.ndim):
        widest = (
            high.max(axis, keepdims=True, initial=-np.inf),
            low.min(axis, keepdims=True, initial=np.inf),
        )
        if not (widest[0] > widest[1]).any():
            high, low = widest
    return np.where(high < low, -1, high).astype(int)


def largest(shares: np.ndarray, enough: float) -> np.ndarray:
    """Return the positions of the largest shares, in order, that together are enough of all.

    Ties are kept or dropped together.
    """
    order = np.argsort(-shares, kind="stable")
    own = shares[order]
    before = np.cumsum(own) - own
    least = own[before < enough * own.sum()].min(initial=math.inf)
    return order[(own >= least * (1 - 1e-9)) & (own > 0)]


class _Sums:
    """The ⊕ of elements by the groups that they belong to."""

    def __init__(self, semiring: Semiring, columns: int) -> None:
        self._semiring = semiring
        self._keys: list[np.ndarray] = [np.zeros((0, columns), int)]
        self._elements: list[Elements] = [semiring.zero((0,), jnp.float64)]

    def add(self, elements: Elements, pins: Pins, *groups: np.ndarray) -> None:
        """Add an array's elements, each to its groups; what stays in one group is left out.

        Args:
            elements: those of a part of the array.
            pins: which part it is.
            groups: the groups of the array's nodes, in shapes that broadcast to the array's.
        """
        shape, rank = self._semiring.shape(elements), len(pins)
        columns = [
            part_of(np.reshape(g, (1,) * (rank - np.ndim(g)) + np.shape(g)), pins) for g in groups
        ]
        varies = [any(g.shape[axis] != 1 for g in columns) for axis in range(len(shape))]
        sums = tuple(axis for axis, v in enumerate(varies) if not v)
        elements = _sum(self._semiring, elements, sums)
        rest = tuple(n for n, v in zip(shape, varies, strict=True) if v)
        keys = np.stack([np.broadcast_to(np.squeeze(g, sums), rest).ravel() for g in columns], -1)
        kept = (keys >= 0).all(1)
        if len(columns) == 2:
            kept &= keys[:, 0] != keys[:, 1]
        if kept.any():
            flat = el.reshape(elements, rest, (len(keys),))
            self._keys.append(keys[kept])
            self._elements.append(el.take(flat, jnp.asarray(np.flatnonzero(kept))))

    def total(self) -> tuple[np.ndarray, Elements]:
        """Return the distinct keys, in order, and the ⊕ for each."""
        keys, which = np.unique(np.concatenate(self._keys), axis=0, return_inverse=True)
        elements = el.concatenate(self._elements, 0)
        return keys, self._semiring.segment_sum(elements, jnp.asarray(which.ravel()), len(keys))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _sum(semiring: Semiring, elements: Elements, axes: Sequence[int]) -> Elements:
    return semiring.sum(elements, tuple(axes))
