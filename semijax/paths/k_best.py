"""The k best paths: the Viterbi algorithm with k prefixes (Goodman 1999)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from semijax.jacobians.edges import pairs
from semijax.paths.backpointers import Backpointers, Bundle, Found, bundles
from semijax.paths.run import Array
from semijax.paths.scores import DECIMALS, Order, Reach, Scores, beyond_float64, log_size
from semijax.semirings.logarithmic import ZERO


class Rank(NamedTuple):
    """The rank of paths: their scores' signs, then sign · log |score|, compared in this order.

    Where the order is logarithmic the signs are 1, and the size of a score of 0 is ``ZERO``.
    """

    sign: np.ndarray
    size: np.ndarray


@dataclasses.dataclass
class _Prefixes:
    """Beginnings of paths, as arrays of one length.

    Attributes:
        array, index: where each has got to: the number of the array, and the position in it.
        log, negative: the logarithm of its weight's size, and whether the weight is negative.
        state: what has to be known about it so far, see ``Scores.arriving``.
        sign, size: the rank of the best path that begins like this.
        order: the order of the paths by their nodes: of equally good ones, the first wins.
        pointer: to its last edge.
        via, start, weight: the edge that is not in the tree yet: the number of its bundle, or −1,
            where it starts, and its weight.
    """

    array: np.ndarray
    index: np.ndarray
    log: np.ndarray
    negative: np.ndarray
    state: np.ndarray
    sign: np.ndarray
    size: np.ndarray
    order: np.ndarray
    pointer: np.ndarray
    via: np.ndarray
    start: np.ndarray
    weight: np.ndarray

    @property
    def rank(self) -> Rank:
        return Rank(self.sign, self.size)

    def take(self, which: np.ndarray) -> _Prefixes:
        return _Prefixes(*(column[which] for column in vars(self).values()))

    @staticmethod
    def join(parts: Sequence[_Prefixes]) -> _Prefixes:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return _Prefixes(*(np.concatenate(column) for column in columns))


def k_best(scores: Scores, k: int, sources: Mapping[Array, np.ndarray | None]) -> Found:
    """Find the k best paths from some nodes of some arrays, best first.

    At most k prefixes are kept. Each can be completed to a path as good as its score says; those k
    paths are different, so a prefix whose score is less than theirs begins none of the k best.

    Args:
        scores: of every node.
        k: how many.
        sources: the positions in each array; None for all.
    """
    search = _KBest(scores, k)
    prefixes = search.begin(sources)
    n = len(prefixes.order)
    if not n:
        return Found(search.tree, [])
    promised, worst = search.rank(prefixes, 1), search.rank(prefixes, n)
    done = len(scores.run.arrays)
    while (number := int(prefixes.array.min(initial=done))) < done:
        here = prefixes.array == number
        if number == scores.end.number:
            prefixes.array[here] = done
        else:
            prefixes = search.advance(prefixes, here)
    ranking = np.lexsort((prefixes.order, -prefixes.size, -prefixes.sign))
    found = prefixes.take(ranking)
    kept = len(ranking) >= n and _at_least(found.rank, worst)[n - 1]
    if not kept or not agree(Rank(found.sign[0], found.size[0]), promised):
        raise out_of_range(scores)
    return Found(search.tree, prefixes.pointer[ranking].tolist())


class _KBest:
    def __init__(self, scores: Scores, k: int) -> None:
        self._scores, self._k = scores, k
        self.tree = Backpointers()

    def begin(self, sources: Mapping[Array, np.ndarray | None]) -> _Prefixes:
        """Return the prefixes at the k best sources."""
        parts = [_none()]
        for array, index in sources.items():
            index = array.positions if index is None else index
            state = self._scores.starting(array, index)
            carried = array.carried_at(index)
            log, negative = log_size(carried), carried < 0
            score = self._scores.at(array, index, state=state, negative=negative)
            best = np.flatnonzero(score != -np.inf)
            if len(best) > self._k:
                ahead = rank_of(self._scores.order, score[best], log[best])
                size = score[best] * np.abs(carried[best])
                size = ahead.size if self._scores.order.logarithmic else size
                least = np.partition(size, -self._k)[-self._k]
                above, ties = np.flatnonzero(size > least), np.flatnonzero(size == least)
                best = best[np.sort(np.concatenate([above, ties[: self._k - len(above)]]))]
            index, score, state = index[best], score[best], state[best]
            log, negative = log[best], negative[best]
            n, pointer = len(index), self.tree.start(array, index)
            rank = rank_of(self._scores.order, score, log)
            prefixes = _Prefixes(
                array=np.full(n, array.number),
                index=index,
                log=log,
                negative=negative,
                state=state,
                sign=rank.sign,
                size=rank.size,
                order=pointer,
                pointer=pointer,
                via=np.full(n, -1),
                start=index,
                weight=np.ones(n),
            )
            parts.append(prefixes)
        return self._best(_Prefixes.join(parts))

    def advance(self, prefixes: _Prefixes, here: np.ndarray) -> _Prefixes:
        """Move on from the nodes of one array to those of the arrays that are made from it."""
        least = self.rank(prefixes, self._k) if len(prefixes.order) >= self._k else None
        leaving, parts = prefixes.take(here), [prefixes.take(~here)]
        nodes, node = np.unique(leaving.index, return_inverse=True)
        ways = bundles(self._scores, self._scores.run.arrays[leaving.array[0]], nodes)
        for via, bundle in enumerate(ways):
            for negative, state in itertools.product((False, True), np.unique(leaving.state)):
                alike = (leaving.negative == negative) & (leaving.state == state)
                if alike.any():
                    group = dataclasses.replace(leaving.take(alike), via=np.full(alike.sum(), via))
                    parts.append(self._extend(bundle, group, node[alike], least))
        prefixes = _Prefixes.join(parts)
        by_nodes = np.lexsort((prefixes.via, prefixes.index, prefixes.array, prefixes.order))
        prefixes = prefixes.take(by_nodes)
        prefixes.order = np.arange(len(by_nodes))
        prefixes = self._best(prefixes)
        for via, bundle in enumerate(ways):
            new = np.flatnonzero(prefixes.via == via)
            edges = prefixes.start[new], prefixes.index[new], prefixes.weight[new]
            prefixes.pointer[new] = self.tree.extend(prefixes.pointer[new], bundle, *edges)
        prefixes.via[:] = -1
        return prefixes

    def _extend(
        self, bundle: Bundle, prefixes: _Prefixes, node: np.ndarray, least: Rank | None
    ) -> _Prefixes:
        """Extend prefixes of one sign and one state by one edge.

        Args:
            bundle: the edges.
            prefixes: those at the nodes that the edges leave.
            node: which of the nodes each is at.
            least: the least rank that is kept.
        """
        owner, other, weight = bundle.edges
        negative = (weight < 0) ^ prefixes.negative[0]
        state = self._scores.arriving(bundle.target, other, int(prefixes.state[0]))
        score = self._scores.at(bundle.target, other, state=state, negative=negative)
        there = np.flatnonzero(score != -np.inf)
        owner, log = owner[there], log_size(weight[there])
        value = rank_of(self._scores.order, score[there], log)

        # An edge that is not good enough for the best prefix at its node is good enough for none,
        # and no prefix needs more than k.
        if least is not None:
            high, low = np.full((2, 1 + max(node.max(), owner.max(initial=0))), np.nan)
            np.fmax.at(high, node, prefixes.log)
            np.fmin.at(low, node, prefixes.log)
            best = np.where(value.sign < 0, low[owner], high[owner])
            kept = np.flatnonzero(
                _at_least(rank_of(self._scores.order, score[there], log + best), least)
            )
        else:
            kept = np.arange(len(there))
        kept = kept[_best_of_each(owner[kept], Rank(*(v[kept] for v in value)), self._k)]
        prefix, edge = pairs(node, owner[kept])
        edge = kept[edge]

        following, taken = prefixes.take(prefix), there[edge]
        log = extended(following.log, log[edge])
        rank = rank_of(self._scores.order, score[taken], log)
        return dataclasses.replace(
            following,
            array=np.full(len(edge), bundle.target.number),
            index=other[taken],
            log=log,
            negative=negative[taken],
            state=state[taken],
            sign=rank.sign,
            size=rank.size,
            start=following.index,
            weight=weight[taken],
        )

    def rank(self, prefixes: _Prefixes, k: int) -> Rank:
        """Return the rank of the k-th best prefix; there must be as many."""
        last = np.lexsort((-prefixes.size, -prefixes.sign))[k - 1]
        return Rank(prefixes.sign[last], prefixes.size[last])

    def _best(self, prefixes: _Prefixes) -> _Prefixes:
        best = np.lexsort((prefixes.order, -prefixes.size, -prefixes.sign))[: self._k]
        return prefixes.take(np.sort(best))


def rank_of(order: Order, score: np.ndarray, log: Any) -> Rank:
    """Return the rank of paths with these scores ahead, and weights of these sizes so far."""
    size = log + (score if order.logarithmic else log_size(score))
    # A weight of 0 is on the way, whatever else is. Whatever is not finite ahead was not selected.
    dead = (size < ZERO / 2) | ~np.isfinite(size)
    if order.logarithmic:
        return Rank(np.ones(len(score)), np.where(dead, ZERO, np.round(size, DECIMALS)))
    sign, size = np.where(dead, 0, np.sign(score)), np.where(dead, 0, size)
    return Rank(sign, np.round(sign * size, DECIMALS))


def extended(log: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Return the logarithms of weights times that of an edge; a weight of 0 remains."""
    return np.where(log < ZERO / 2, ZERO, log + edge)


def agree(found: Rank, promised: Rank) -> bool:
    """Tell whether paths rank as the scores at their beginnings promised."""
    both = zip(found, promised, strict=True)
    return all(np.allclose(own, one, rtol=1e-9, atol=SLACK) for own, one in both)


def out_of_range(scores: Reach) -> FloatingPointError:
    """Make the error for paths that are not as good as their beginnings promised."""
    return FloatingPointError(
        "The weights of some paths are too small or too large for float64, in which they are "
        f"compared with their signs{beyond_float64(scores)}. by='abs' compares logarithms."
    )


SLACK = 1e-5
"""The most, in nats, that rounding may set a score apart from the weights it is made of.

Whatever seems only this much worse than the k best is looked at all the same.
"""


def _at_least(rank: Rank, least: Rank) -> np.ndarray:
    close = (rank.sign == least.sign) & (rank.size >= least.size - SLACK)
    return (rank.sign > least.sign) | close


def _none() -> _Prefixes:
    kinds = {"log": float, "sign": float, "size": float, "weight": float}
    kinds |= {"negative": bool}
    names = [field.name for field in dataclasses.fields(_Prefixes)]
    return _Prefixes(*(np.zeros(0, kinds.get(name, int)) for name in names))


def _best_of_each(group: np.ndarray, rank: Rank, k: int) -> np.ndarray:
    """Return the positions of the k best of each group; of equal ones, the first."""
    if len(group) <= k:
        return np.arange(len(group))
    order = np.lexsort((-rank.size, -rank.sign, group))
    place = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    return np.sort(order[place < k])
