"""Paths that are chosen edge by edge: greedily, or by chance (ancestral sampling)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from semijax.paths.backpointers import Backpointers, Bundle, Found, bundles
from semijax.paths.run import Array
from semijax.paths.scores import DECIMALS, Scores, log_size
from semijax.semirings.logarithmic import ZERO

NODES_AT_ONCE = 256
"""The number of nodes looked at together; each may have thousands of edges."""

Choose = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""A choice of an option for each path.

From the logarithms of the values of options, the first option of each group (and the end of the
last), and the group that each path chooses from, to the options that are chosen.
"""


def largest(log: np.ndarray, first: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Choose the option of the largest value; of equal ones, the first."""
    rounded = np.round(log, DECIMALS)
    return np.array([first[g] + np.argmax(rounded[first[g] : first[g + 1]]) for g in group])


def by_chance(rng: np.random.Generator) -> Choose:
    """Choose an option at random, in proportion to its value; one of each group is not 0."""

    def choose(log: np.ndarray, first: np.ndarray, group: np.ndarray) -> np.ndarray:
        sizes = np.diff(first)
        value = np.exp(log - np.repeat(np.maximum.reduceat(log, first[:-1]), sizes))
        upto = np.concatenate([[0], np.cumsum(value)])
        low, high = upto[first[group]], upto[first[group + 1]]
        drawn = low + rng.random(len(group)) * (high - low)
        possible = np.flatnonzero(value)
        last = possible[np.searchsorted(possible, first[group + 1]) - 1]  # rounding may exceed it
        return np.minimum(np.searchsorted(upto, drawn, side="right") - 1, last)

    return choose


def descend(scores: Scores, choose: Choose, sources: Mapping[Array, np.ndarray]) -> Found:
    """Follow one path from each source, chosen edge by edge.

    Args:
        scores: of every node; logarithmic.
        choose: among the edges that leave a node, each of the value |weight| · exp(score).
        sources: positions in arrays, one for each path; from each there is a way.
    """
    tree = Backpointers()
    index = np.concatenate([*sources.values()])
    array = np.repeat([a.number for a in sources], [len(i) for i in sources.values()])
    pointer = np.concatenate([tree.start(a, i) for a, i in sources.items()])
    state = np.concatenate([scores.starting(a, i) for a, i in sources.items()])
    done = len(scores.run.arrays)
    while (number := int(array.min())) < done:
        here = np.flatnonzero(array == number)
        if number == scores.end.number:
            array[here] = done
            continue
        for which in list(_groups(here, index, state)):  # before any of them moves
            nodes, node = np.unique(index[which], return_inverse=True)
            ways = bundles(scores, scores.run.arrays[number], nodes)
            before = int(state[which[0]])
            options = _Options(scores, ways, before)
            first = np.searchsorted(options.owner, np.arange(len(nodes) + 1))
            way, edge = options.origin(choose(options.log, first, node))
            for w in np.unique(way):
                bundle, moved, taken = ways[w], which[way == w], edge[way == w]
                end, weight = bundle.edges.other[taken], bundle.edges.weight[taken]
                pointer[moved] = tree.extend(pointer[moved], bundle, index[moved], end, weight)
                array[moved], index[moved] = bundle.target.number, end
                state[moved] = scores.arriving(bundle.target, end, before)
    return Found(tree, pointer.tolist())


def _groups(here: np.ndarray, index: np.ndarray, state: np.ndarray) -> Iterator[np.ndarray]:
    """Yield groups of paths of one state, at a few nodes at a time."""
    for before in np.unique(state[here]):
        alike = here[state[here] == before]
        _, node = np.unique(index[alike], return_inverse=True)
        for start in range(0, node.max() + 1, NODES_AT_ONCE):
            yield alike[(node >= start) & (node < start + NODES_AT_ONCE)]


class _Options:
    """The edges to choose from, sorted by the node they leave, then by bundle and place in it.

    Attributes:
        owner: which node each leaves.
        log: the logarithm of what it is worth.
    """

    def __init__(self, scores: Scores, ways: Sequence[Bundle], state: int) -> None:
        self._kept, owners, logs = [], [], []
        for bundle in ways:
            owner, other, weight = bundle.edges
            after = scores.arriving(bundle.target, other, state)
            score = scores.at(bundle.target, other, state=after)
            kept = np.flatnonzero(score != -np.inf)
            if len(kept) < len(score):
                owner, weight, score = owner[kept], weight[kept], score[kept]
            self._kept.append(kept)
            owners.append(owner)
            logs.append(np.where(weight == 0, ZERO, log_size(weight) + score))
        owner, log = (x[0] if len(ways) == 1 else np.concatenate(x) for x in (owners, logs))
        self._order = None
        if np.any(owner[1:] < owner[:-1]):
            self._order = np.argsort(owner, kind="stable")
            owner, log = owner[self._order], log[self._order]
        self.owner, self.log = owner, log

    def origin(self, options: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of the bundle that each option is from, and its place there."""
        position = options if self._order is None else self._order[options]
        ends = np.cumsum([len(kept) for kept in self._kept])
        way = np.searchsorted(ends, position, side="right")
        place = position - (ends[way] - [len(self._kept[w]) for w in way])
        return way, np.array([self._kept[w][p] for w, p in zip(way, place, strict=True)], int)
