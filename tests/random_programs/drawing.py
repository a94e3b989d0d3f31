"""What operations are written with: random choices, literals, the families they belong to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

FAMILIES: dict[str, list[Callable[..., Any]]] = {}


def operation(family):
    """Declare an operation: ``write(draw, x, …)`` returns the source of an expression of arrays.

    It returns None where it does not fit the arrays. An expression may be a pair of arrays. How
    many arrays it takes is read off its signature.
    """

    def declare(write):
        FAMILIES.setdefault(family, []).append(write)
        return write

    return declare


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of the program, as operations see it: written into a string, it is its name."""

    name: str
    shape: tuple[int, ...]
    dtype: Any

    def __str__(self):
        return self.name

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def size(self):
        return int(np.prod(self.shape))

    @property
    def is_complex(self):
        return np.issubdtype(self.dtype, np.complexfloating)


class Draw:
    """A source of random choices, and of literals to write down."""

    def __init__(self, *seed):
        self.rng = np.random.default_rng(seed)

    def choose(self, options):
        options = list(options)
        return options[self.rng.integers(len(options))]

    def integer(self, low, high):
        """From low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability):
        return bool(self.rng.random() < probability)

    def axis(self, x):
        return self.integer(0, x.ndim - 1)

    def numbers(self, shape):
        """Of mixed sign and not near 0."""
        n = self.rng.uniform(0.3, 1.6, shape) * self.rng.choice([-1, 1], shape)
        return literal(np.round(n, 2))

    def grid(self, shape):
        """Few different numbers, some of them 0."""
        return literal(self.rng.choice([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0, 2.0], shape))

    def mask(self, shape):
        return literal(self.rng.random(shape) < 0.5)

    def indices(self, n, count, outside=False):
        """Into an axis of size n, with repetitions; some of them out of bounds if asked for."""
        low, high = (-n - 2, n + 2) if outside else (-n, n)
        return literal(self.rng.integers(low, max(high, low + 1), count))


def literal(array):
    """An array as source."""
    array = np.asarray(array)
    if array.ndim == 0:
        return repr(array.item())
    if array.size == 0:
        return f"np.zeros({array.shape}, {array.dtype.name!r})"
    return f"np.array({array.tolist()})"
