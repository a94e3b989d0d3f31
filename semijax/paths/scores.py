"""The scores by which paths are ordered or weighed: how good the best way on is from every node."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from semijax.elements import Elements
from semijax.jacobians.base import Structure
from semijax.jacobians.edges import numbers
from semijax.paths.run import Array, Run
from semijax.paths.sweeps import Kept, backward
from semijax.semirings import AbsSumProduct, MaxProduct, Semiring, SumProduct, as_semiring
from semijax.semirings.logarithmic import ZERO, LogAbsMaxProduct

LARGEST_LOG = math.log(np.finfo(float).max)
"""The logarithm of the largest number of float64."""

DECIMALS = 10
"""The decimals to which logarithms of sizes are compared: rounding alone makes no order."""


@dataclasses.dataclass(frozen=True)
class Order:
    """An order of paths, or of nodes: which are better than others.

    Attributes:
        semiring: that of the backward sweep.
        score: from its elements, the positions of some nodes, and whether the weight so far is
            negative, to the score of the best way on; −∞ where there is none.
        logarithmic: whether a score is the logarithm of a size, or a signed number that the size of
            the weight so far is to be multiplied by.
    """

    semiring: Semiring
    score: Callable[[Elements, Any, Any], np.ndarray]
    logarithmic: bool = True


def _log(elements: Elements, index: Any, negative: Any) -> np.ndarray:
    del negative
    return numbers(elements, index)


def _end(highest: bool) -> Callable[[Elements, Any, Any], np.ndarray]:
    """Score by the end of the interval of weights ahead with the largest, or smallest, product."""

    def score(elements: Elements, index: Any, negative: Any) -> np.ndarray:
        high, low = numbers(elements.max, index), numbers(elements.min, index)
        found = np.where(np.equal(negative, highest), -low, high)
        found = np.where(np.isinf(high) | np.isinf(low), np.nan, found)
        return np.where(high < low, -np.inf, found)

    return score


def _log_gradient(elements: Elements, index: Any, negative: Any) -> np.ndarray:
    del negative
    gradient, reached = elements
    return np.where(numbers(reached, index) > 0, log_size(numbers(gradient, index)), -np.inf)


STRONGEST = Order(LogAbsMaxProduct(), _log)
LARGEST = Order(MaxProduct(), _end(highest=True), logarithmic=False)
SMALLEST = Order(MaxProduct(), _end(highest=False), logarithmic=False)
MASS = Order(AbsSumProduct(), _log)
GRADIENT = Order(as_semiring((SumProduct(), Structure())), _log_gradient)


def log_size(weights: np.ndarray) -> np.ndarray:
    """Return the logarithm of |w|; ``ZERO`` where w is 0."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(np.abs(weights)), ZERO)


class Reach(Protocol):
    """The arrays that lead to where paths end.

    Attributes:
        run: the run.
        end: where the paths end.
    """

    run: Run
    end: Array

    def reached(self, array: Array) -> bool:
        """Tell whether any path leads from the array to the end."""
        ...


class Scores:
    """The scores of all nodes of a run: how good the best way on is, for a path in some state.

    The state of a path is what has to be known about it so far: 1 if it has been where it has to
    pass, else 0.

    Attributes:
        run: the run.
        end: where the paths end.
        order: the order that the scores are for.
    """

    def __init__(
        self, run: Run, end: Array, order: Order, passes: Callable[[Array], bool] | None = None
    ) -> None:
        self.run: Run = run
        self.end: Array = end
        self.order: Order = order
        self._passes = passes
        everything = backward(run, order.semiring, end)
        self._kept: dict[bool, Kept] = {True: everything}
        if passes is not None:
            self._kept[False] = backward(run, order.semiring, end, passes, everything)

    def starting(self, array: Array, index: np.ndarray) -> np.ndarray:
        """Return the states of paths that start at some nodes of an array."""
        return self.arriving(array, index, 0)

    def arriving(self, array: Array, index: np.ndarray, state: int) -> np.ndarray:
        """Return the states of paths that come to some nodes, each from a node with this state."""
        passed = state or self._passes is None or self._passes(array)
        return np.full(len(index), int(passed))

    def reached(self, array: Array) -> bool:
        """Tell whether any path leads from the array to the end."""
        return array in self._kept[True]

    def at(
        self, array: Array, index: np.ndarray | None, *, state: Any = 1, negative: Any = False
    ) -> np.ndarray:
        """Return the scores of some nodes, see ``Order``; −∞ where there is no way on.

        Args:
            array: the nodes' array.
            index: their positions in it; None for all.
            state: that of the path there: one, or one for each node.
            negative: whether its weight so far is.
        """
        index = array.positions if index is None else index

        def of_state(state: int, index: np.ndarray, negative: Any) -> np.ndarray:
            if array not in self._kept[bool(state)]:
                return np.full(len(index), -np.inf)
            return self.order.score(self._kept[bool(state)][array], index, negative)

        return by_state(of_state, index, state, negative)


def by_state(
    score: Callable[[int, np.ndarray, Any], np.ndarray],
    index: np.ndarray,
    state: Any,
    negative: Any,
) -> np.ndarray:
    """Ask for scores state by state: of one state, or of one for each node."""
    if np.ndim(state) == 0:
        return score(int(state), index, negative)
    states = np.unique(state)
    if len(states) == 1:
        return score(int(states[0]), index, negative)
    found = np.full(len(index), -np.inf)
    for each in states:
        here = state == each
        own = negative[here] if np.ndim(negative) else negative
        found[here] = score(int(each), index[here], own)
    return found


def beyond_float64(scores: Reach) -> str:
    """Say where the weights ahead get too small or too large for float64, for a message."""
    strongest = Scores(scores.run, scores.end, STRONGEST)
    smallest = math.log(np.finfo(float).tiny)
    for array in reversed(scores.run.arrays):
        logs = strongest.at(array, None)
        logs = logs[logs > ZERO / 2]
        if array.made_by is not None and ((logs > LARGEST_LOG) | (logs < smallest)).any():
            return f", those from '{array.made_by.name}' {array.made_by.where()} among them"
    return ""
