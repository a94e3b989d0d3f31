"""What lies ahead of every node, and what it is worth to whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from semijax.elements import Elements
from semijax.jacobians.base import Structure
from semijax.jacobians.edges import numbers
from semijax.paths.run import Array, Run, Step
from semijax.paths.survey import Survey, survey
from semijax.semirings import (
    AbsSumProduct,
    MaxProduct,
    Semiring,
    SumProduct,
    TopK,
    as_semiring,
)


@dataclasses.dataclass(frozen=True)
class Order:
    """Which paths are better than others.

    Attributes:
        semiring: what to survey: homogeneous, and able to tell no path from one of weight 0.
        worth: from its elements at some nodes, and whether the weight so far is negative, what is
            ahead of them: a number that the size of the weight so far is multiplied by, or −∞
            where there is no way.
    """

    semiring: Semiring
    worth: Callable[[Elements, np.ndarray, Any], np.ndarray]


def _size(elements: Elements, index: np.ndarray, negative: Any) -> np.ndarray:
    del negative
    return numbers(elements, index)


def _end(highest: bool) -> Callable[[Elements, np.ndarray, Any], np.ndarray]:
    """Of the interval of the weights ahead, the end that makes the product largest, or smallest."""

    def worth(elements: Elements, index: np.ndarray, negative: Any) -> np.ndarray:
        high, low = numbers(elements.max, index), numbers(elements.min, index)
        found = np.where(np.equal(negative, highest), -low, high)
        found = np.where(np.isinf(high) | np.isinf(low), np.nan, found)
        return np.where(high < low, -np.inf, found)

    return worth


def _gradient(elements: Elements, index: np.ndarray, negative: Any) -> np.ndarray:
    del negative
    gradient, reached = elements
    return np.where(numbers(reached, index) > 0, np.abs(numbers(gradient, index)), -np.inf)


STRONGEST = Order(TopK(1), _size)
LARGEST = Order(MaxProduct(), _end(highest=True))
SMALLEST = Order(MaxProduct(), _end(highest=False))
MASS = Order(AbsSumProduct(), _size)
GRADIENT = Order(as_semiring((SumProduct(), Structure())), _gradient)


class Landscape:
    """A run, surveyed for the paths to one of its arrays.

    Attributes:
        run: the run.
        end: where the paths end.
        restricted: whether they have to pass somewhere.
    """

    def __init__(
        self, run: Run, end: Array, order: Order, passes: Callable[[Step], bool] | None = None
    ) -> None:
        self.run, self.end, self._order = run, end, order
        self.restricted, self._passes = passes is not None, passes
        everything = survey(run, order.semiring, end)
        self._surveys: dict[bool, Survey] = {True: everything}
        if passes is not None:
            self._surveys[False] = survey(run, order.semiring, end, passes, everything)

    def passes(self, step: Step) -> bool:
        """Whether the step is where a path has to pass."""
        return self._passes is not None and self._passes(step)

    def reaches(self, array: Array) -> bool:
        """Whether there is any way from the array to the end."""
        return array.number in self._surveys[True]

    def ahead(
        self, array: Array, index: np.ndarray, *, passed: bool, negative: Any = False
    ) -> tuple[np.ndarray, int]:
        """What is ahead of some nodes: worth · 2^exponent, see ``Order``.

        Args:
            array: the nodes' array.
            index: their positions in it.
            passed: whether the path has been where it has to pass.
            negative: whether the weight so far is.
        """
        if array.number not in self._surveys[passed]:
            return np.full(len(index), -np.inf), 0
        elements, exponent = self._surveys[passed][array.number]
        return self._order.worth(elements, index, negative), exponent
