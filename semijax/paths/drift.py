"""Paths that are chosen edge by edge: by chance, or greedily."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from semijax.jacobians import Edges
from semijax.paths.landscape import Landscape
from semijax.paths.run import Array
from semijax.paths.walk import Crossing, Trail, Trails, crossings, scaled


class Options(NamedTuple):
    """What walkers choose from, in groups.

    Attributes:
        value: what each option is worth; negative if it must not be taken.
        first: where each group begins, and the end of the last.
        group: the group that each walker chooses from; one that has an option.
    """

    value: np.ndarray
    first: np.ndarray
    group: np.ndarray


class Choice(NamedTuple):
    """A way to choose.

    Attributes:
        total: what a group of options is worth as an option: ``np.add`` or ``np.maximum``.
        choose: from options to the one that each walker takes.
    """

    total: np.ufunc
    choose: Callable[[Options], np.ndarray]


def _largest_of(options: Options) -> np.ndarray:
    value, first, group = options
    best = [np.argmax(value[a:b]) if b > a else 0 for a, b in itertools.pairwise(first.tolist())]
    return first[group] + np.array(best)[group]


LARGEST = Choice(np.maximum, _largest_of)
"""The option of the largest value; of equal ones, the first."""


def by_chance(rng: np.random.Generator) -> Choice:
    """An option with a probability in proportion to its value; in some group one is above 0."""

    def choose(options: Options) -> np.ndarray:
        value, first, group = options
        value = np.maximum(value, 0)
        full = np.flatnonzero(np.diff(first))
        sums = np.ones(len(first) - 1)
        sums[full] = np.add.reduceat(value, first[full])
        # Shares, so that a small group is not lost behind a large one.
        shares = value / np.repeat(np.where(sums > 0, sums, 1), np.diff(first))
        upto = np.concatenate([[0], np.cumsum(shares)])
        low, high = upto[first[group]], upto[first[group + 1]]
        drawn = low + rng.random(len(group)) * (high - low)
        possible = np.flatnonzero(value)
        last = possible[np.searchsorted(possible, first[group + 1]) - 1]  # rounding may exceed it
        return np.minimum(np.searchsorted(upto, drawn, side="right") - 1, last)

    return Choice(np.add, choose)


NODES_AT_ONCE = 256
"""A node may have thousands of edges, and all of them are looked at."""


def drift(landscape: Landscape, choice: Choice, sources: Mapping[Array, np.ndarray]) -> list[Trail]:
    """One path from each source, chosen edge by edge.

    Args:
        landscape: where to; what is ahead is never negative.
        choice: how to choose among the edges that leave a node, each being worth its size times
            what is ahead of it.
        sources: positions in arrays, one for each path; from each there is a way.
    """
    trails = Trails()
    n = sum(map(len, sources.values()))
    index = np.concatenate([np.zeros(0, int), *sources.values()])
    array = np.repeat([a.number for a in sources], [len(i) for i in sources.values()])
    hop = np.concatenate([np.zeros(0, int), *(trails.start(a, i) for a, i in sources.items())])
    passed = np.full(n, not landscape.restricted)
    done = len(landscape.run.arrays)
    while (number := int(array.min(initial=done))) < done:
        here = np.flatnonzero(array == number)
        if number == landscape.end.number:
            array[here] = done
            continue
        for which in _groups(here, index, passed):
            nodes, node = np.unique(index[which], return_inverse=True)
            ways = crossings(landscape, landscape.run.arrays[number], nodes)
            before = bool(passed[which[0]])
            for crossing, walkers, edge in _chosen(landscape, choice, ways, before, node):
                moved, edges = which[walkers], crossing.edges
                way = index[moved], edges.other[edge], edges.weight[edge]
                hop[moved] = trails.go(hop[moved], crossing, *way)
                array[moved], index[moved] = crossing.target.number, edges.other[edge]
                passed[moved] |= landscape.passes(crossing.step)
    return list(trails.follow(hop))


def _groups(here: np.ndarray, index: np.ndarray, passed: np.ndarray) -> Iterator[np.ndarray]:
    """Walkers that have been where they have to pass, or have not, at a few nodes at a time."""
    for before in np.unique(passed[here]):
        alike = here[passed[here] == before]
        _, node = np.unique(index[alike], return_inverse=True)
        for start in range(0, node.max() + 1, NODES_AT_ONCE):
            yield alike[(node >= start) & (node < start + NODES_AT_ONCE)]


def _chosen(
    landscape: Landscape, choice: Choice, ways: Sequence[Crossing], passed: bool, node: np.ndarray
) -> Iterator[tuple[Crossing, np.ndarray, np.ndarray]]:
    """Which of the walkers go each way, and by which of its edges.

    First each chooses a way by what its edges are worth together, then one of them.

    Args:
        landscape: where to.
        choice: how to choose.
        ways: from the nodes.
        passed: whether the walkers have been where they have to pass.
        node: which of the nodes each is at.
    """
    nodes = np.arange(node.max() + 2)
    values, firsts, totals, exponents = [], [], [], []
    ways = [crossing._replace(edges=_by_owner(crossing.edges)) for crossing in ways]
    for crossing in ways:
        owner, other, weight = crossing.edges
        here = passed or landscape.passes(crossing.step)
        worth, exponent = landscape.ahead(crossing.target, other, passed=here)
        values.append(np.where(worth == -np.inf, -1, np.abs(weight) * worth))
        firsts.append(np.searchsorted(owner, nodes))
        totals.append(_totals(choice, values[-1], firsts[-1]))
        exponents.append(exponent)
    unit = max(exponents)
    rows = [np.where(t < 0, t, scaled(t, e - unit)) for t, e in zip(totals, exponents, strict=True)]
    worth_of_ways = np.stack(rows, 1)  # [nodes, ways]
    begin = np.arange(len(nodes)) * len(ways)
    taken = choice.choose(Options(worth_of_ways.ravel(), begin, node)) % len(ways)
    for number, crossing in enumerate(ways):
        walkers = np.flatnonzero(taken == number)
        if len(walkers):
            options = Options(values[number], firsts[number], node[walkers])
            yield crossing, walkers, choice.choose(options)


def _by_owner(edges: Edges) -> Edges:
    if np.all(edges.owner[1:] >= edges.owner[:-1]):
        return edges
    order = np.argsort(edges.owner, kind="stable")
    return Edges(*(column[order] for column in edges))


def _totals(choice: Choice, value: np.ndarray, first: np.ndarray) -> np.ndarray:
    """What each group is worth as an option; −1 where it has none."""
    totals = np.full(len(first) - 1, -1.0)
    full = np.flatnonzero(np.diff(first))
    if len(full):
        possible = np.maximum.reduceat(value, first[full]) >= 0
        totals[full] = np.where(
            possible, choice.total.reduceat(np.maximum(value, 0), first[full]), -1
        )
    return totals
