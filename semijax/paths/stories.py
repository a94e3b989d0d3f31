"""The k best stories: what paths say at a level, whatever else they do.

Many paths tell one story: through the same modules, at the same tokens, by other hidden units. A
story is grown from its end: the elements of all paths to the end that tell a suffix of it are kept,
and a sweep goes on back through what is told next. A sweep forward says how good the best way to a
node is. So the most promising suffix is always known, and a story that is complete is the best of
those that are not found yet. Each suffix of the k stories is swept once, through the nodes of one
label, and only where these are: where labels name tokens, through the rows of one token.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from semijax.elements import Elements
from semijax.jacobians.base import Structure
from semijax.jacobians.pins import Pins, part_of
from semijax.paths.k_best import rank_of
from semijax.paths.levels import UNTOLD, Labelling
from semijax.paths.run import Array, Run, Step
from semijax.paths.scores import LARGEST_LOG, Order
from semijax.paths.slabs import Slab, joined, only, pulled_slabs, whole
from semijax.paths.sweeps import (
    Kept,
    finished,
    forward_by_state,
    is_nan,
    mask_of,
    multiplied,
    started,
    total,
)
from semijax.semirings import Semiring, as_semiring
from semijax.semirings.logarithmic import ZERO

Suffix = tuple[int, ...]
"""The end of a story, by the numbers of what is told."""

Sources = Mapping[Array, np.ndarray | None]
"""The positions where paths start in each array; None for all."""

Slabs = dict[Array, Slab]
"""The elements at arrays that a sweep has reached."""


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """The paths to the end that tell a suffix of a story, from some node on.

    Attributes:
        suffix: what they tell.
        kept: their ⊕ at every node whose label is the first of the suffix, or that has none.
        arrived: their ⊕ at every node that an edge leads from to one of these, whatever its own
            label. Both by whether the path to the node has been where it has to pass.
    """

    suffix: Suffix
    kept: Mapping[bool, Slabs]
    arrived: Mapping[bool, Slabs]

    @property
    def first(self) -> int:
        """The first label of the suffix; ``UNTOLD`` if it is empty."""
        return self.suffix[0] if self.suffix else UNTOLD


class Suffixes:
    """The paths of a run by the ends of their stories, every suffix swept once.

    They are swept in two semirings together: that of an order, and any other.

    Args:
        run: the run.
        end: where paths end.
        order: what is best.
        of_all: the other semiring.
        told: what is told of every node.
        sources: where paths start.
        passes: whether a path has passed where it has to, once it is at a node of an array; None if
            it does not have to pass anywhere.
    """

    def __init__(
        self,
        run: Run,
        end: Array,
        order: Order,
        of_all: Semiring,
        told: Labelling,
        sources: Sources,
        passes: Callable[[Array], bool] | None,
    ) -> None:
        self.run: Run = run
        self.end: Array = end
        self.order: Order = order
        self.semiring: Semiring = as_semiring((order.semiring, of_all))
        self.told: Labelling = told
        self.sources: Sources = sources
        self.passes = passes
        self._parts: dict[Suffix, Part] = {}

    def after(self, state: bool, array: Array) -> bool:
        """Tell whether a path has been where it has to pass, once it has come to an array."""
        return state or self.passes is None or self.passes(array)

    @property
    def states(self) -> tuple[bool, ...]:
        """The possible answers to whether a path has been where it has to pass."""
        return (True,) if self.passes is None else (False, True)

    def part(self, suffix: Suffix) -> Part:
        """Return the paths that tell a suffix."""
        if suffix not in self._parts:
            if suffix:
                self._parts[suffix] = self._extended(self.part(suffix[1:]), suffix[0])
            else:
                ends = finished(self.semiring, self.end)
                done = {array: whole(e, len(array.shape)) for array, e in ends.items()}
                self._parts[suffix] = self._swept((), {}, {True: done})
        return self._parts[suffix]

    def whole(self, story: Suffix) -> tuple[Elements, Elements] | None:
        """Return the ⊕ over all paths that tell a story, in both semirings; None for no path."""
        found = [*self._starts(self.part(story), {story[0] if story else UNTOLD, UNTOLD})]
        if story:
            found += self._starts(self.part(story[1:]), {story[0]})
        return total(self.semiring, found) if found else None

    def starts(self, part: Part, array: Array) -> Slab | None:
        """Return the ⊕ of the paths that start at an array's nodes and then tell a suffix."""
        slab = part.arrived[self.after(False, array)].get(array)
        if slab is None:
            return None
        own = Slab(slab.pins, started(self.semiring, array, slab.elements, slab.pins))
        positions = self.sources[array]
        if positions is None:
            return own
        begins = mask_of(positions, array.shape)
        return only(self.semiring, own, part_of(begins, own.pins))

    def _starts(self, part: Part, labels: set[int]) -> Iterator[Elements]:
        for array in self.sources:
            slab = self.starts(part, array)
            if slab is not None:
                own = self._only(array, slab, self.told.at_start(array), labels)
                if own is not None:
                    yield own.elements

    def _extended(self, part: Part, label: int) -> Part:
        entering = {
            state: {
                array: own
                for array, slab in kept.items()
                if (own := self._only(array, slab, self.told.at(array), {label})) is not None
            }
            for state, kept in part.arrived.items()
        }
        return self._swept((label, *part.suffix), entering, {})

    def _swept(
        self, suffix: Suffix, entering: Mapping[bool, Slabs], arrived: Mapping[bool, Slabs]
    ) -> Part:
        """Sweep back through the nodes of a label, and those without, from where paths enter."""
        labels = {suffix[0] if suffix else UNTOLD, UNTOLD}
        part = Part(
            suffix, {s: {} for s in self.states}, {s: {**arrived.get(s, {})} for s in self.states}
        )
        pending: list[int] = []
        known: set[int] = set()

        def visit(array: Array) -> None:
            if array.step is not None and array.step not in known:
                known.add(array.step)
                heapq.heappush(pending, -array.step)

        for kept in (*entering.values(), *arrived.values()):
            for array in kept:
                visit(array)
        while pending:
            step = self.run.steps[-heapq.heappop(pending)]
            for made in step.outputs.values():
                for state in self.states:
                    self._keep(part, state, made, labels, entering.get(state, {}))
            for state in self.states:
                given = {}
                for o, made in step.outputs.items():
                    kept = part.kept[self.after(state, made)]
                    if made in kept:
                        given[o] = kept[made]
                for i, slab in self._pulled(step, given).items():
                    self._accumulate(part.arrived[state], step.inputs[i], slab)
                    visit(step.inputs[i])
        return part

    def _pulled(self, step: Step, given: Mapping[int, Slab]) -> dict[int, Slab]:
        """Pull slabs to a step's inputs; an edge that leads nowhere may weigh infinity."""
        found = pulled_slabs(self.semiring, step, given)
        if not is_nan([slab.elements for slab in found.values()]):
            return found
        somewhere = {o: Slab(s.pins, ~self.semiring.is_zero(s.elements)) for o, s in given.items()}
        leads = pulled_slabs(Structure(), step, somewhere)
        on = {i: only(self.semiring, s, np.asarray(leads[i].elements)) for i, s in found.items()}
        return {i: slab for i, slab in on.items() if slab is not None}

    def _keep(
        self, part: Part, state: bool, array: Array, labels: set[int], entering: Slabs
    ) -> None:
        """Keep what paths do from an array's nodes on, now that all that follow are known."""
        if array in entering:
            part.kept[state][array] = entering[array]
        arrived = part.arrived[state].get(array)
        if arrived is not None:
            own = self._only(array, arrived, self.told.at(array), labels)
            if own is not None:
                self._accumulate(part.kept[state], array, own)

    def _accumulate(self, found: Slabs, array: Array, slab: Slab) -> None:
        known = found.get(array)
        found[array] = slab if known is None else joined(self.semiring, known, slab, array.shape)

    def _only(self, array: Array, slab: Slab, told: Any, labels: set[int]) -> Slab | None:
        """Return the elements at nodes with one of these labels; None if there are none."""
        own = within(told, array, slab.pins)
        if np.ndim(told) == 0:
            return slab if int(told) in labels else None
        here = functools.reduce(np.logical_or, (own == label for label in labels))
        return only(self.semiring, slab, here)


def within(told: Any, array: Array, pins: Pins) -> Any:
    """Return the labels of the nodes of a part of an array: one for all, or in its shape."""
    return told if np.ndim(told) == 0 else part_of(told.reshape(array.shape), pins)


def best_stories(suffixes: Suffixes, k: int) -> list[Suffix]:
    """Find the k stories whose best paths are best, best first.

    Args:
        suffixes: the paths of the run.
        k: how many; there may be fewer.

    Raises:
        ValueError: if there are too many ways on to remember.
    """
    order = suffixes.order
    before = forward_by_state(suffixes.run, order.semiring, suffixes.sources, suffixes.passes)
    count = itertools.count()
    pending: list[tuple[float, float, bool, int, Suffix]] = []

    def remember(score: float, story: Suffix, *, complete: bool) -> None:
        if score > -np.inf:
            sign, size = rank_of(order, np.array([score]), 0.0)
            entry = -float(sign[0]), -float(size[0]), not complete, next(count), story
            heapq.heappush(pending, entry)

    def look_beyond(story: Suffix) -> None:
        part = suffixes.part(story)
        whole = suffixes.whole(story)
        if whole is not None:
            remember(float(order.score(whole[0], slice(None), False)[0]), story, complete=True)
        for label, score in _promises(suffixes, part, before).items():
            remember(score, (label, *story), complete=False)
        if len(pending) > MAX_PENDING:
            raise ValueError(
                f"There are more than {MAX_PENDING:,} ways to go on with a story: at this level "
                "almost every node tells something of its own. A coarser level tells less."
            )

    found: list[Suffix] = []
    look_beyond(())
    while pending and len(found) < k:
        *_, continues, _, story = heapq.heappop(pending)
        if continues:
            look_beyond(story)
        else:
            found.append(story)
    return found


MAX_PENDING = 1_000_000
"""The most suffixes of stories to remember that have not been looked into."""


def _promises(suffixes: Suffixes, part: Part, before: Mapping[bool, Kept]) -> dict[int, float]:
    """Return, by label, how good the best path is that tells this label and then a suffix."""
    found: dict[int, float] = {}
    order = suffixes.order
    dead = ZERO if order.logarithmic else 0.0

    def add(told: Any, scores: np.ndarray) -> None:
        # All that comes to the end is finite: what is not, here, is not selected further on.
        promised = np.where(np.isfinite(scores) | (scores == -np.inf), scores, dead)
        best = np.full(np.max(told, initial=UNTOLD) + 2, -np.inf)  # the last of what is untold
        if np.ndim(told) == 0:
            best[told] = promised.max(initial=-np.inf)
        else:
            np.maximum.at(best, told.ravel(), promised)
        for label in np.flatnonzero(best[:-1] > -np.inf).tolist():
            if label != part.first:
                found[label] = max(found.get(label, -np.inf), float(best[label]))

    for state, arrived in part.arrived.items():
        for array, (pins, (ahead, _)) in arrived.items():
            told = within(suffixes.told.at(array), array, pins)
            if array in before[state] and not np.isin(told, (UNTOLD, part.first)).all():
                come = part_of(before[state][array], pins)
                if not order.logarithmic:
                    _check_range(come, ahead)
                both = multiplied(order.semiring, come, ahead)
                add(told, order.score(both, slice(None), False))
    for array in suffixes.sources:
        slab = suffixes.starts(part, array)
        if slab is not None:
            told = within(suffixes.told.at_start(array), array, slab.pins)
            add(told, order.score(slab.elements[0], slice(None), False))
    return found


def _check_range(before: Elements, ahead: Elements) -> None:
    """Raise if the product of a way to a node and a way on may be too large for float64.

    Raises:
        FloatingPointError: if so.
    """
    with np.errstate(all="ignore"):
        sizes = [
            np.where(np.asarray(e.max) < np.asarray(e.min), 0, np.maximum(abs(e.max), abs(e.min)))
            for e in (before, ahead)
        ]
        logs = [np.where(size > 0, np.log(size), np.nan) for size in sizes]
        too_large = (logs[0] + logs[1] > LARGEST_LOG).any()  # not where either is 0, or no number
    if too_large:
        raise FloatingPointError(
            "The weights of some paths are too large for float64, in which they are compared with "
            "their signs. by='abs' compares logarithms."
        )
