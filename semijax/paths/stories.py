"""The k best stories: what paths say at a level, whatever else they do.

Many paths tell one story: through the same modules, at the same tokens, by other hidden units. A
story is grown from its end: the elements of all paths to the end that tell a suffix of it are kept,
and a sweep goes on back through what is told next. A sweep forward says how good the best way to a
node is. So the most promising suffix is always known, and a story that is complete is the best of
those that are not found yet. Each suffix of the k stories is swept once, through the nodes of one
label: where labels are modules, a story costs about as much as a sweep through everything.
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
from semijax.paths.backpointers import Found
from semijax.paths.k_best import k_best, rank_of
from semijax.paths.levels import UNTOLD, Labelling
from semijax.paths.run import Array, Run, Step
from semijax.paths.scores import LARGEST_LOG, Order, by_state
from semijax.paths.sweeps import (
    Kept,
    accumulate,
    finished,
    forward_by_state,
    is_nan,
    multiplied,
    only_at,
    pulled,
    started,
    total,
)
from semijax.semirings import Semiring, as_semiring
from semijax.semirings.logarithmic import ZERO

Suffix = tuple[int, ...]
"""The end of a story, by the numbers of what is told."""

Sources = Mapping[Array, np.ndarray | None]
"""The positions where paths start in each array; None for all."""


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
    kept: Mapping[bool, Kept]
    arrived: Mapping[bool, Kept]

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
                self._parts[suffix] = self._swept((), {}, {True: finished(self.semiring, self.end)})
        return self._parts[suffix]

    def whole(self, story: Suffix) -> tuple[Elements, Elements] | None:
        """Return the ⊕ over all paths that tell a story, in both semirings; None for no path."""
        found = [*self._starts(self.part(story), {story[0] if story else UNTOLD, UNTOLD})]
        if story:
            found += self._starts(self.part(story[1:]), {story[0]})
        return total(self.semiring, found) if found else None

    def starts(self, part: Part, array: Array) -> Elements | None:
        """Return the ⊕ of the paths that start at an array's nodes and then tell a suffix."""
        elements = part.arrived[self.after(False, array)].get(array)
        return None if elements is None else started(self.semiring, array, elements)

    def _starts(self, part: Part, labels: set[int]) -> Iterator[Elements]:
        for array, positions in self.sources.items():
            elements = self.starts(part, array)
            if elements is not None:
                here = _positions(self.told.at_start(array), labels, array)
                if positions is not None:
                    here = np.intersect1d(here, positions)
                if len(here):
                    yield only_at(self.semiring, elements, here)

    def _extended(self, part: Part, label: int) -> Part:
        entering = {
            state: {
                array: only
                for array, elements in kept.items()
                if (only := self._masked(array, elements, {label})) is not None
            }
            for state, kept in part.arrived.items()
        }
        return self._swept((label, *part.suffix), entering, {})

    def _swept(
        self, suffix: Suffix, entering: Mapping[bool, Kept], arrived: Mapping[bool, Kept]
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
                for i, elements in self._pulled(step, given).items():
                    if i in step.inputs:
                        accumulate(self.semiring, part.arrived[state], step.inputs[i], elements)
                        visit(step.inputs[i])
        return part

    def _pulled(self, step: Step, given: dict[int, Elements]) -> dict[int, Elements]:
        """Pull elements to a step's inputs; an edge that leads nowhere may weigh infinity."""
        found = pulled(self.semiring, step, given)
        if not is_nan(found):
            return found
        somewhere = {o: ~self.semiring.is_zero(elements) for o, elements in given.items()}
        leads_on = pulled(Structure(), step, somewhere)
        return {i: only_at(self.semiring, e, np.flatnonzero(leads_on[i])) for i, e in found.items()}

    def _keep(
        self, part: Part, state: bool, array: Array, labels: set[int], entering: Kept
    ) -> None:
        """Keep what paths do from an array's nodes on, now that all that follow are known."""
        if array in entering:
            part.kept[state][array] = entering[array]
        arrived = part.arrived[state].get(array)
        if arrived is not None:
            only = self._masked(array, arrived, labels)
            if only is not None:
                accumulate(self.semiring, part.kept[state], array, only)

    def _masked(self, array: Array, elements: Elements, labels: set[int]) -> Elements | None:
        """Return the elements at nodes with one of these labels; None if there are none."""
        told = self.told.at(array)
        if np.ndim(told) == 0:
            return elements if int(told) in labels else None
        here = _positions(told, labels, array)
        return only_at(self.semiring, elements, here) if len(here) else None


def _positions(told: Any, labels: set[int], array: Array) -> np.ndarray:
    """Return the positions of an array's nodes that have one of some labels."""
    if np.ndim(told) == 0:
        return array.positions if int(told) in labels else np.zeros(0, int)
    return np.flatnonzero(functools.reduce(np.logical_or, (told == label for label in labels)))


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
        there = np.flatnonzero(scores != -np.inf)
        if not len(there):
            return
        labels = np.broadcast_to(told, scores.shape)[there]
        own, which = np.unique(labels, return_inverse=True)
        best, promised = np.full(len(own), -np.inf), scores[there]
        # All that comes to the end is finite: what is not, here, is not selected further on.
        np.maximum.at(best, which, np.where(np.isfinite(promised), promised, dead))
        for label, score in zip(own.tolist(), best.tolist(), strict=True):
            if label not in (UNTOLD, part.first):
                found[label] = max(found.get(label, -np.inf), score)

    for state, kept in part.arrived.items():
        for array, (elements, _) in kept.items():
            if array in before[state]:
                both = multiplied(order.semiring, before[state][array], elements)
                if not order.logarithmic:
                    _check_range(before[state][array], elements)
                add(suffixes.told.at(array), order.score(both, slice(None), False))
    for array, positions in suffixes.sources.items():
        elements = suffixes.starts(part, array)
        if elements is not None:
            index = array.positions if positions is None else positions
            told = np.broadcast_to(suffixes.told.at_start(array), array.positions.shape)
            add(told[index], order.score(elements[0], index, False))
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


def best_path(suffixes: Suffixes, story: Suffix) -> Found:
    """Find the best path that tells a story."""
    return k_best(StoryScores(suffixes, story), 1, suffixes.sources)


class StoryScores:
    """The scores of all nodes for paths that tell one story, see ``Guide``.

    The state of a path says how much of the story it has told, whether it has been where it has to
    pass, and whether it has only started.

    Args:
        suffixes: the paths of the run.
        story: what they tell.
    """

    def __init__(self, suffixes: Suffixes, story: Suffix) -> None:
        self.run: Run = suffixes.run
        self.end: Array = suffixes.end
        self.order: Order = suffixes.order
        self._suffixes, self._story = suffixes, story
        self._parts = [suffixes.part(story[n:]) for n in range(len(story) + 1)]
        self._nowhere = len(self._parts)  # a place in the story from which nothing leads on

    def reached(self, array: Array) -> bool:
        """See ``Guide``."""
        return any(array in kept for part in self._parts for kept in part.kept.values())

    def starting(self, array: Array, index: np.ndarray) -> np.ndarray:
        """See ``Guide``."""
        told = np.broadcast_to(self._suffixes.told.at_start(array), array.positions.shape)[index]
        first = self._story[0] if self._story else UNTOLD
        place = np.where(told == UNTOLD, -1, np.where(told == first, 0, self._nowhere))
        return _state(place, self._suffixes.after(False, array), True)

    def arriving(self, array: Array, index: np.ndarray, state: int) -> np.ndarray:
        """See ``Guide``."""
        place, passed, _ = _read(state)
        told = np.broadcast_to(self._suffixes.told.at(array), array.positions.shape)[index]
        following = self._story[place + 1] if place + 1 < len(self._story) else UNTOLD
        moves = (told == following) & (told != UNTOLD)
        return _state(place + moves, self._suffixes.after(passed, array), False)

    def at(
        self, array: Array, index: np.ndarray | None, *, state: Any = 0, negative: Any = False
    ) -> np.ndarray:
        """See ``Guide``."""
        index = array.positions if index is None else index
        of_state = functools.partial(self._of_state, array)
        return by_state(of_state, index, state, negative)

    def _of_state(self, array: Array, state: int, index: np.ndarray, negative: Any) -> np.ndarray:
        place, passed, starts = _read(state)
        told = np.broadcast_to(self._suffixes.told.at(array), array.positions.shape)[index]
        ahead = [self._parts[n] for n in (place, place + 1) if 0 <= n < len(self._parts)]
        found = np.full(len(index), -np.inf)
        for part in ahead:
            kept = (part.arrived if starts else part.kept)[passed].get(array)
            if kept is None:
                continue
            score = self.order.score(kept[0], index, negative)
            if not starts:  # a node that tells nothing may still lead on to either
                own = self._story[place] if part is ahead[0] and place >= 0 else UNTOLD
                score = np.where((told == own) | (told == UNTOLD), score, -np.inf)
            found = np.where(found == -np.inf, score, np.fmax(found, score))
        return found


def _state(place: Any, passed: Any, starts: bool) -> np.ndarray:
    return ((np.asarray(place) + 1) * 2 + np.asarray(passed)) * 2 + starts


def _read(state: int) -> tuple[int, bool, bool]:
    return state // 4 - 1, bool(state // 2 % 2), bool(state % 2)
