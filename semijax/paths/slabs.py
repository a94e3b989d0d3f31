"""Slabs: the elements of an array at one index of some of its axes, where the rest is 0̄.

The paths that tell the end of a story pass, in most arrays, at a single token: a sweep over them
needs no other rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from semijax.elements import Elements, Shape
from semijax.jacobians.base import Table
from semijax.jacobians.pins import Pins, part_of, pinned
from semijax.paths.run import Step
from semijax.paths.sweeps import add, masked, no_path, pulled
from semijax.semirings import Semiring


class Slab(NamedTuple):
    """The elements of an array that may differ from 0̄.

    Attributes:
        pins: the index they have along each axis; None along an axis where they are everywhere.
        elements: theirs; an axis with one index has size 1.
    """

    pins: Pins
    elements: Elements

    def places(self, index: np.ndarray, shape: Shape) -> tuple[np.ndarray, Any]:
        """Return where in the slab some nodes of the array are, and whether they are in it.

        Args:
            index: their positions in the flattened array.
            shape: the array's.
        """
        if not any(pin is not None for pin in self.pins):
            return index, True
        indices, inside = [*np.unravel_index(index, shape)], np.ones(len(index), bool)
        for axis, pin in enumerate(self.pins):
            if pin is not None:
                inside &= indices[axis] == pin
                indices[axis] = np.zeros_like(index)
        return np.ravel_multi_index(indices, pinned(shape, self.pins)), inside


def whole(elements: Elements, rank: int) -> Slab:
    """Return the slab of all elements of an array."""
    return Slab((None,) * rank, elements)


def only(semiring: Semiring, slab: Slab, mask: np.ndarray) -> Slab | None:
    """Return the smallest slab of the elements where a mask is true; None if it is nowhere.

    Args:
        semiring: theirs.
        slab: the elements.
        mask: Booleans in the shape of the slab.
    """
    if mask.all():
        return slab
    if not mask.any():
        return None
    pins: list[int | None] = []
    for axis, n in enumerate(mask.shape):
        there = np.flatnonzero(mask.any(tuple(a for a in range(mask.ndim) if a != axis)))
        pins.append(int(there[0]) if n > 1 and len(there) == 1 else None)
    mask, elements = part_of(mask, pins), part_of(slab.elements, pins)
    if not mask.all():
        elements = masked(semiring, elements, mask)
    both = zip(slab.pins, pins, strict=True)
    return Slab(tuple(new if old is None else old for old, new in both), elements)


def joined(semiring: Semiring, a: Slab, b: Slab, shape: Shape) -> Slab:
    """Return the ⊕ of two slabs of an array of this shape."""
    pins = tuple(x if x == y else None for x, y in zip(a.pins, b.pins, strict=True))
    parts = (expanded(semiring, slab, pins, shape) for slab in (a, b))
    with jax.enable_x64(True):
        return Slab(pins, add(semiring, *parts))


def expanded(semiring: Semiring, slab: Slab, pins: Pins, shape: Shape) -> Elements:
    """Return the elements of a larger slab, that with these pins; 0̄ outside of the smaller one."""
    if pins == slab.pins:
        return slab.elements
    size = pinned(shape, pins)
    inside = [p if q is None else None for p, q in zip(slab.pins, pins, strict=True)]

    def expand(leaf: Any, absent: np.ndarray) -> np.ndarray:
        found = np.broadcast_to(absent, (*size, *absent.shape)).copy()
        part_of(found, inside)[...] = leaf
        return found

    return jax.tree.map(expand, slab.elements, no_path(semiring))


def pulled_slabs(semiring: Semiring, step: Step, given: Mapping[int, Slab]) -> dict[int, Slab]:
    """Pull the slabs at a step's outputs, by position, to its inputs."""
    found: dict[int, Slab] = {}

    def add_to(inputs: Mapping[int, Slab]) -> None:
        for i, own in inputs.items():
            if i in step.inputs:
                shape = step.inputs[i].shape
                found[i] = joined(semiring, found[i], own, shape) if i in found else own

    others: dict[int, Elements] = {}
    for o, slab in given.items():
        smaller = _restricted(step, o, slab.pins)
        if smaller is None:
            shape = step.outputs[o].shape
            others[o] = expanded(semiring, slab, (None,) * len(shape), shape)
        else:
            jacobian, pins = smaller
            arrived = pulled(semiring, step, {o: slab.elements}, jacobian)
            arrived = jax.tree.map(np.asarray, arrived)
            add_to({i: Slab(pins[i], elements) for i, elements in arrived.items()})
    arrived = pulled(semiring, step, others)
    add_to({i: whole(e, len(semiring.shape(e))) for i, e in arrived.items()})
    return found


def _restricted(step: Step, o: int, pins: Pins) -> tuple[Table, dict[int, Pins]] | None:
    """Return the edges that enter a slab of an output, and the slabs that they come from."""
    if not isinstance(step.jacobian, Table) or not any(pin is not None for pin in pins):
        return None
    entries, found = {}, {}
    for (i, output), jacobian in step.jacobian.entries.items():
        if output == o:
            smaller = jacobian.restricted(pins)
            if smaller is None:
                return None
            entries[i, o], found[i] = smaller
    return Table(entries), found
