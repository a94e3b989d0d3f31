"""The k best paths: the Viterbi algorithm with k walkers."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from semijax.paths.landscape import Landscape
from semijax.paths.run import Array
from semijax.paths.walk import Crossing, Trail, Trails, crossings, scaled


@dataclasses.dataclass
class _Walkers:
    """Arrays of one length, a number for every walker.

    Attributes:
        array, index: the number of the array, and the position in it.
        size, exponent, negative: of the weight so far, ± size · 2^exponent.
        passed: whether the path has been where it has to pass.
        score: how good the best path is that begins like this.
        order: the order of the paths by their nodes: between equally good ones, the first wins.
        hop: the last one that is noted.
        via, start, weight: the edge that is not noted yet: which crossing, or −1, where it starts,
            and its weight.
    """

    array: np.ndarray
    index: np.ndarray
    size: np.ndarray
    exponent: np.ndarray
    negative: np.ndarray
    passed: np.ndarray
    score: np.ndarray
    order: np.ndarray
    hop: np.ndarray
    via: np.ndarray
    start: np.ndarray
    weight: np.ndarray

    def take(self, which: np.ndarray) -> _Walkers:
        return _Walkers(*(column[which] for column in vars(self).values()))

    @staticmethod
    def join(parts: Sequence[_Walkers]) -> _Walkers:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return _Walkers(*(np.concatenate(column) for column in columns))


ROUNDING = 1e-12
"""How far, relatively, the weight of a path and what was said of it before may differ."""


def best(landscape: Landscape, k: int, sources: Mapping[Array, np.ndarray]) -> list[Trail]:
    """The k best paths from some nodes of some arrays, best first.

    All of them begin like one of at most k walkers: the score of a walker is that of a path, so the
    k walkers stand for k paths, and whoever falls behind them stands for none that is better.

    Args:
        landscape: where to.
        k: how many.
        sources: positions in arrays.
    """
    search = _Search(landscape, k)
    walkers = search.begin(sources)
    done = len(landscape.run.arrays)
    while (number := int(walkers.array.min(initial=done))) < done:
        here = walkers.array == number
        if number == landscape.end.number:
            walkers.array[here] = done
        else:
            walkers = search.advance(walkers, here)
    ranking = np.lexsort((walkers.order, -walkers.score))
    return list(search.trails.follow(walkers.hop[ranking]))


class _Search:
    """The search for the k best.

    Attributes:
        trails: how the walkers went.
    """

    def __init__(self, landscape: Landscape, k: int) -> None:
        self._landscape, self._k = landscape, k
        self._unit = 0  # the exponent of scores
        self.trails = Trails()

    def begin(self, sources: Mapping[Array, np.ndarray]) -> _Walkers:
        """A walker at each of the k best sources."""
        passed = not self._landscape.restricted
        found = []
        for array, index in sources.items():
            worth, exponent = self._landscape.ahead(array, index, passed=passed)
            kept = np.flatnonzero(worth != -np.inf)
            kept = kept[_largest(worth[kept], self._k)]
            found.append((array, index[kept], worth[kept], exponent))
        sizes = [(np.abs(worth).max(initial=0), exponent) for _, _, worth, exponent in found]
        exponents = [math.frexp(size)[1] + exponent for size, exponent in sizes if size > 0]
        self._unit = max(exponents, default=0)
        parts = [_nobody()]
        for array, index, worth, exponent in found:
            n, hop = len(index), self.trails.start(array, index)
            walkers = _Walkers(
                array=np.full(n, array.number),
                index=index,
                size=np.ones(n),
                exponent=np.zeros(n, int),
                negative=np.zeros(n, bool),
                passed=np.full(n, passed),
                score=scaled(worth, exponent - self._unit),
                order=hop,
                hop=hop,
                via=np.full(n, -1),
                start=index,
                weight=np.ones(n),
            )
            parts.append(walkers)
        return self._best(_Walkers.join(parts))

    def advance(self, walkers: _Walkers, here: np.ndarray) -> _Walkers:
        """From the nodes of one array to those of the arrays that are made of it."""
        least = np.sort(walkers.score)[-self._k] if len(walkers.score) >= self._k else -np.inf
        if np.isfinite(least):
            least -= abs(least) * ROUNDING
        leaving, parts = walkers.take(here), [walkers.take(~here)]
        nodes, node = np.unique(leaving.index, return_inverse=True)
        ways = crossings(self._landscape, self._landscape.run.arrays[leaving.array[0]], nodes)
        for via, crossing in enumerate(ways):
            for negative, passed in itertools.product((False, True), repeat=2):
                alike = (leaving.negative == negative) & (leaving.passed == passed)
                if alike.any():
                    group = dataclasses.replace(leaving.take(alike), via=np.full(alike.sum(), via))
                    parts.append(self._cross(crossing, group, node[alike], least))
        walkers = _Walkers.join(parts)
        by_nodes = np.lexsort((walkers.via, walkers.index, walkers.array, walkers.order))
        walkers = walkers.take(by_nodes)
        walkers.order = np.arange(len(by_nodes))
        walkers = self._best(walkers)
        for via, crossing in enumerate(ways):
            new = np.flatnonzero(walkers.via == via)
            columns = walkers.start[new], walkers.index[new], walkers.weight[new]
            walkers.hop[new] = self.trails.go(walkers.hop[new], crossing, *columns)
        walkers.via[:] = -1
        return walkers

    def _best(self, walkers: _Walkers) -> _Walkers:
        return walkers.take(np.sort(_largest(walkers.score, self._k)))

    def _cross(
        self, crossing: Crossing, walkers: _Walkers, node: np.ndarray, least: float
    ) -> _Walkers:
        """Where walkers get to that are alike in sign and in where they have been.

        Args:
            crossing: from the nodes to another array.
            walkers: those at the nodes.
            node: which of the nodes each is at.
            least: what a score must be at least.
        """
        passed = bool(walkers.passed[0]) or self._landscape.passes(crossing.step)
        owner, other, weight = crossing.edges
        negative = (weight < 0) ^ walkers.negative[0]
        worth, exponent = self._landscape.ahead(
            crossing.target, other, passed=passed, negative=negative
        )
        value = np.abs(weight) * np.where(worth == -np.inf, 0, worth)

        # An edge that is not good enough for the best walker at its node is for none, and none
        # needs more than k.
        scale = scaled(walkers.size, walkers.exponent + (exponent - self._unit))
        high, low = np.full((2, 1 + max(node.max(), owner.max(initial=0))), np.nan)
        np.fmax.at(high, node, scale)
        np.fmin.at(low, node, scale)
        bound = value * np.where(value > 0, high[owner], low[owner])
        kept = np.flatnonzero((bound >= least) & (worth != -np.inf))
        kept = kept[_largest_of_each(owner[kept], value[kept], self._k)]

        walker, edge = _pairs(node, owner[kept])
        edge = kept[edge]
        score = scale[walker] * value[edge]
        good = score >= least
        walker, edge, score = walker[good], edge[good], score[good]
        arriving = walkers.take(walker)
        size, shift = np.frexp(arriving.size * np.abs(weight[edge]))
        return dataclasses.replace(
            arriving,
            array=np.full(len(edge), crossing.target.number),
            index=other[edge],
            start=arriving.index,
            size=size,
            exponent=arriving.exponent + shift,
            negative=negative[edge],
            passed=np.full(len(edge), passed),
            score=score,
            weight=weight[edge],
        )


def _nobody() -> _Walkers:
    kinds = {"size": float, "score": float, "weight": float, "negative": bool, "passed": bool}
    fields = dataclasses.fields(_Walkers)
    return _Walkers(*(np.zeros(0, kinds.get(field.name, int)) for field in fields))


def _largest(numbers: np.ndarray, k: int) -> np.ndarray:
    """Where the k largest are; of equal ones the first."""
    if len(numbers) <= k:
        return np.arange(len(numbers))
    least = np.partition(numbers, -k)[-k]
    above = np.flatnonzero(numbers > least)
    return np.concatenate([above, np.flatnonzero(numbers == least)[: k - len(above)]])


def _largest_of_each(group: np.ndarray, numbers: np.ndarray, k: int) -> np.ndarray:
    """Where the k largest of each group are; of equal ones the first."""
    if len(group) <= k:
        return np.arange(len(group))
    order = np.lexsort((-numbers, group))
    rank = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    return np.sort(order[rank < k])


def _pairs(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of positions at which the two have the same number."""
    order = np.argsort(right, kind="stable")
    first = np.searchsorted(right[order], left, "left")
    counts = np.searchsorted(right[order], left, "right") - first
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(np.arange(len(left)), counts), order[np.repeat(first, counts) + within]
