"""How good the best way on is from every node, to whoever orders paths, or weighs them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from semijax.elements import Elements
from semijax.jacobians.base import Structure
from semijax.jacobians.edges import numbers
from semijax.paths.run import Array, Run
from semijax.paths.sweeps import Kept, backward
from semijax.semirings import AbsSumProduct, MaxProduct, Semiring, SumProduct, as_semiring
from semijax.semirings.logarithmic import ZERO, LogAbsMaxProduct

DECIMALS = 10
"""Logarithms of sizes that agree to so many are equal: rounding alone makes no order."""


@dataclasses.dataclass(frozen=True)
class Order:
    """Which paths are better than others, or which nodes.

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
    """Of the interval of the weights ahead, the end that makes the product largest, or smallest."""

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
    """The logarithm of |w|; ``ZERO`` where w is 0."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(np.abs(weights)), ZERO)


class Scores:
    """The scores of all nodes of a run.

    Attributes:
        run: the run.
        end: where the paths end.
        order: whose scores.
    """

    def __init__(
        self, run: Run, end: Array, order: Order, passes: Callable[[Array], bool] | None = None
    ) -> None:
        self.run, self.end, self.order = run, end, order
        self._passes = passes
        everything = backward(run, order.semiring, end)
        self._kept: dict[bool, Kept] = {True: everything}
        if passes is not None:
            self._kept[False] = backward(run, order.semiring, end, passes, everything)

    def passes(self, array: Array) -> bool:
        """Whether who is at a node of the array has been where paths have to pass."""
        return self._passes is None or self._passes(array)

    def reached(self, array: Array) -> bool:
        """Whether any path leads from the array to the end."""
        return array in self._kept[True]

    def at(
        self, array: Array, index: np.ndarray | None, *, passed: bool = True, negative: Any = False
    ) -> np.ndarray:
        """The scores of some nodes, see ``Order``; −∞ where there is no way on.

        Args:
            array: the nodes' array.
            index: their positions in it; None for all.
            passed: whether the path has been where it has to pass.
            negative: whether its weight so far is.
        """
        if array not in self._kept[passed]:
            return np.full(math.prod(array.shape) if index is None else len(index), -np.inf)
        which = slice(None) if index is None else index
        return self.order.score(self._kept[passed][array], which, negative)


def beyond_float64(scores: Scores) -> str:
    """Where the weights ahead get too small or too large for float64, for a message."""
    strongest = Scores(scores.run, scores.end, STRONGEST)
    largest, smallest = math.log(np.finfo(float).max), math.log(np.finfo(float).tiny)
    for array in reversed(scores.run.arrays):
        logs = strongest.at(array, None)
        logs = logs[logs > ZERO / 2]
        if array.made_by is not None and ((logs > largest) | (logs < smallest)).any():
            return f", those from '{array.made_by.name}' {array.made_by.where()} among them"
    return ""
