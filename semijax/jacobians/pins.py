"""Parts of arrays: those at one index of some of their axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from semijax.elements import Shape

Pins = tuple[int | None, ...]
"""For every axis of an array the one index that matters; None where all do."""


def pinned(shape: Shape, pins: Sequence[int | None]) -> Shape:
    """Return the shape of the part of an array: 1 along the pinned axes."""
    return tuple(n if pin is None else 1 for n, pin in zip(shape, pins, strict=True))


def part_of(arrays: Any, pins: Sequence[int | None]) -> Any:
    """Return the part of every array in a pytree, as views in NumPy; the rank stays the same.

    Axes behind the pinned ones are taken whole, and a size of 1 stands for all indices.
    """
    if all(pin is None for pin in pins):
        return arrays

    def taken(array: Any) -> np.ndarray:
        sizes = zip(pins, np.shape(array), strict=False)
        where = tuple(
            slice(None) if pin is None or n == 1 else slice(pin, pin + 1) for pin, n in sizes
        )
        return np.asarray(array)[where]

    return jax.tree.map(taken, arrays)
