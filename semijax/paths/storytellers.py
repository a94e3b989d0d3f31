"""The best path that tells each of some stories."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from semijax.jacobians.edges import pairs
from semijax.paths.backpointers import Backpointers, Bundle, Found, bundles
from semijax.paths.k_best import Rank, agree, extended, out_of_range, rank_of
from semijax.paths.levels import UNTOLD
from semijax.paths.run import Array, Run
from semijax.paths.scores import Order, by_state, log_size
from semijax.paths.stories import Suffix, Suffixes

AT_ONCE = 64
"""The number of stories whose paths are followed together: a node may have thousands of edges."""


def best_storytellers(suffixes: Suffixes, stories: Sequence[Suffix]) -> Iterator[Found]:
    """Find the best path that tells each story, a few at a time.

    Args:
        suffixes: the paths of the run.
        stories: what they tell; some path tells each of them.

    Raises:
        FloatingPointError: if weights are too small or too large to be compared.
    """
    for start in range(0, len(stories), AT_ONCE):
        yield _followed(StoryScores(suffixes, stories[start : start + AT_ONCE]))


def _followed(scores: StoryScores) -> Found:
    """Follow a path for each story, all together, edge by edge, always on to where the best way is.

    Of equally good edges, the first is followed: to the earlier array, then to the lower index.
    """
    tree, sources = Backpointers(), scores.sources
    last = _Steps.best(scores.order, [*_first_steps(scores, sources)])
    array = np.array([sources[via].number for via in last.via])
    starts = [tree.start(sources[via], last.index[[n]]) for n, via in enumerate(last.via)]
    pointer = np.concatenate(starts)
    promised, done = last.rank(scores.order), len(scores.run.arrays)
    while (number := int(array.min(initial=done))) < done:
        here = np.flatnonzero(array == number)
        if number == scores.end.number:
            array[here] = done
            continue
        nodes, node = np.unique(last.index[here], return_inverse=True)
        ways, leaving = bundles(scores, scores.run.arrays[number], nodes), last.take(here)
        options = [_steps(scores, leaving, node, via, way) for via, way in enumerate(ways)]
        taken = _Steps.best(scores.order, options)
        if len(taken.path) < len(here):
            raise out_of_range(scores)
        for via, way in enumerate(ways):
            own = taken.via == via
            edges = last.index[here[own]], taken.index[own], taken.weight[own]
            pointer[here[own]] = tree.extend(pointer[here[own]], way, *edges)
            array[here[own]] = way.target.number
        last.put(here, taken)
    if not agree(last.rank(scores.order), promised):
        raise out_of_range(scores)
    return Found(tree, pointer.tolist())


@dataclasses.dataclass
class _Steps:
    """Steps that paths may take, or have taken, as arrays of one length.

    Attributes:
        path: the number of the path.
        via: the number of the edge's bundle, of those that leave its node; of a start, that of the
            source.
        index, weight: where the edge leads to, and its local derivative.
        state: what is known of the path then.
        log, negative: the logarithm of the size of its weight, and whether the weight is negative.
        score: how good the best way on is.
    """

    path: np.ndarray
    via: np.ndarray
    index: np.ndarray
    weight: np.ndarray
    state: np.ndarray
    log: np.ndarray
    negative: np.ndarray
    score: np.ndarray

    def rank(self, order: Order) -> Rank:
        return rank_of(order, self.score, self.log)

    def take(self, which: np.ndarray) -> _Steps:
        return _Steps(*(column[which] for column in vars(self).values()))

    def put(self, which: np.ndarray, steps: _Steps) -> None:
        for column, new in zip(vars(self).values(), vars(steps).values(), strict=True):
            column[which] = new

    @staticmethod
    def best(order: Order, options: Sequence[_Steps]) -> _Steps:
        """Return the best of each path's options, in the order of the paths."""
        columns = zip(*(vars(option).values() for option in options), strict=True)
        steps = _Steps(*(np.concatenate(column) for column in columns))
        steps = steps.take(np.flatnonzero(steps.score != -np.inf))
        for key in (0, 1):  # the sign counts most, then the size
            value = steps.rank(order)[key]
            best = np.full(steps.path.max(initial=0) + 1, -np.inf)
            np.fmax.at(best, steps.path, value)
            steps = steps.take(np.flatnonzero(value == best[steps.path]))
        ranking = np.lexsort((steps.index, steps.via, steps.path))
        return steps.take(ranking[np.flatnonzero(np.diff(steps.path[ranking], prepend=-1))])


def _first_steps(scores: StoryScores, sources: Sequence[Array]) -> Iterator[_Steps]:
    """Yield, for each story, the best node of each source for a path to start at, if any."""
    for via, array in enumerate(sources):
        index = scores.begins(array)
        carried = array.carried_at(index)
        log, negative, same = log_size(carried), carried < 0, np.ones(len(index), int)
        for path in range(scores.count):
            state = scores.starting(array, index, path)
            score = scores.at(array, index, state=state, negative=negative)
            columns = path * same, via * same, index, 1.0 * same, state, log, negative, score
            yield _Steps.best(scores.order, [_Steps(*columns)])


def _steps(
    scores: StoryScores, paths: _Steps, node: np.ndarray, via: int, bundle: Bundle
) -> _Steps:
    """Return the steps that paths may take in a bundle, given which of its nodes each is at."""
    which, edge = pairs(node, bundle.edges.owner)
    index, weight = bundle.edges.other[edge], bundle.edges.weight[edge]
    before = paths.take(which)
    negative, log = before.negative ^ (weight < 0), extended(before.log, log_size(weight))
    state = scores.arriving(bundle.target, index, before.state)
    score = scores.at(bundle.target, index, state=state, negative=negative)
    own = np.full(len(index), via)
    return _Steps(before.path, own, index, weight, state, log, negative, score)


class StoryScores:
    """The scores of all nodes for paths of which each tells one of some stories.

    The state of a path says which one, how much of it has been told, whether the path has been
    where it has to pass, and whether it has only started.

    Args:
        suffixes: the paths of the run.
        stories: what they tell.
    """

    def __init__(self, suffixes: Suffixes, stories: Sequence[Suffix]) -> None:
        self.run: Run = suffixes.run
        self.end: Array = suffixes.end
        self.order: Order = suffixes.order
        self.count: int = len(stories)
        self._suffixes = suffixes
        self._parts = [[suffixes.part(s[n:]) for n in range(len(s) + 1)] for s in stories]
        self._nowhere = 1 + max(map(len, stories), default=0)  # a place that nothing leads on from
        self._labels = np.full((len(stories), self._nowhere + 2), UNTOLD)
        for own, story in zip(self._labels, stories, strict=True):
            own[: len(story)] = story
        parts = itertools.chain(*self._parts)
        self._reached = {array for part in parts for kept in part.kept.values() for array in kept}

    def reached(self, array: Array) -> bool:
        """Tell whether any path leads from the array to the end."""
        return array in self._reached

    @property
    def sources(self) -> list[Array]:
        """The arrays where paths start."""
        return [*self._suffixes.sources]

    def begins(self, array: Array) -> np.ndarray:
        """Return the positions in a source where paths start."""
        positions = self._suffixes.sources[array]
        return array.positions if positions is None else positions

    def starting(self, array: Array, index: np.ndarray, story: int) -> np.ndarray:
        """Return the states of paths that start at some nodes of an array and tell a story."""
        told = _labels_at(self._suffixes.told.at_start(array), index)
        place = np.where(told == self._labels[story, 0], 0, self._nowhere)
        place = np.where(told == UNTOLD, -1, place)
        return self._state(story, place, self._suffixes.after(False, array), True)

    def arriving(self, array: Array, index: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Return the states of paths that come to some nodes, given that of each before."""
        story, place, passed, _ = self._read(state)
        told = _labels_at(self._suffixes.told.at(array), index)
        moves = (told == self._labels[story, place + 1]) & (told != UNTOLD)
        return self._state(story, place + moves, passed | self._suffixes.after(False, array), False)

    def at(
        self, array: Array, index: np.ndarray, *, state: np.ndarray, negative: np.ndarray
    ) -> np.ndarray:
        """Return how good the best way on is from each of some nodes, see ``Scores.at``."""
        return by_state(functools.partial(self._of_state, array), index, state, negative)

    def _of_state(self, array: Array, state: int, index: np.ndarray, negative: Any) -> np.ndarray:
        story, place, passed, starts = self._read(state)
        told = _labels_at(self._suffixes.told.at(array), index)
        parts = self._parts[story]
        ahead = [parts[n] for n in (place, place + 1) if 0 <= n < len(parts)]
        found = np.full(len(index), -np.inf)
        for part in ahead:
            slab = (part.arrived if starts else part.kept)[bool(passed)].get(array)
            if slab is None:
                continue
            places, inside = slab.places(index, array.shape)
            score = np.where(inside, self.order.score(slab.elements[0], places, negative), -np.inf)
            if not starts:  # a node that tells nothing may still lead on to either
                own = self._labels[story, place] if part is ahead[0] and place >= 0 else UNTOLD
                score = np.where((told == own) | (told == UNTOLD), score, -np.inf)
            both = np.where(score == -np.inf, found, np.fmax(found, score))  # one may be NaN
            found = np.where(found == -np.inf, score, both)
        return found

    def _state(self, story: Any, place: Any, passed: Any, starts: bool) -> np.ndarray:
        told = story * (self._nowhere + 2) + place + 1
        return (np.asarray(told) * 2 + passed) * 2 + starts

    def _read(self, state: Any) -> tuple[Any, Any, Any, Any]:
        story, place = np.divmod(state // 4, self._nowhere + 2)
        return story, place - 1, state // 2 % 2, state % 2


def _labels_at(told: Any, index: np.ndarray) -> np.ndarray:
    """Return the labels of some nodes of an array."""
    return np.full(len(index), told) if np.ndim(told) == 0 else told[index]
