"""The labels of nodes that make up what paths say, at the level of modules or another."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from semijax.paths.call import Call
from semijax.paths.labels import Labels
from semijax.paths.run import Array
from semijax.trace import scope_names

UNTOLD = -1
"""The number that stands for a node without a label."""


class Coded(NamedTuple):
    """The labels of an array's nodes, one for each.

    Attributes:
        labels: some labels; None for what tells nothing.
        codes: for each node the position of its label among these.
    """

    labels: Sequence[Hashable]
    codes: np.ndarray


Level = Callable[[Array, bool], Any]
"""A function of an array, and of whether paths start at its nodes, to their label or ``Coded``."""


class Labelling(Protocol):
    """A label for every node of a run, as a number."""

    @property
    def labels(self) -> Sequence[Hashable]:
        """The labels, by their numbers."""
        ...

    def at(self, array: Array) -> int | np.ndarray:
        """Return the labels of an array's nodes where paths pass: one for all, or one for each."""
        ...

    def at_start(self, array: Array) -> int | np.ndarray:
        """Return the same for paths that start at the nodes of an array."""
        ...


class Told:
    """The label that a level gives every node of a call, see ``Labelling``."""

    def __init__(self, call: Call, level: Any) -> None:
        self.labels: list[Hashable] = []
        self._number: dict[Hashable, int] = {}
        self._of = _level(call, level)
        self._known: dict[tuple[Array, bool], Any] = {}

    def at(self, array: Array) -> int | np.ndarray:
        """See ``Labelling``."""
        return self._labelled(array, False)

    def at_start(self, array: Array) -> int | np.ndarray:
        """See ``Labelling``."""
        return self._labelled(array, True)

    def _labelled(self, array: Array, start: bool) -> int | np.ndarray:
        if (array, start) not in self._known:
            found = self._of(array, start)
            if isinstance(found, Coded):
                numbers = np.array([self._numbered(label) for label in found.labels], int)
                self._known[array, start] = numbers[found.codes]
            else:
                self._known[array, start] = self._numbered(found)
        return self._known[array, start]

    def _numbered(self, label: Hashable) -> int:
        if label is None:
            return UNTOLD
        if label not in self._number:
            self._number[label] = len(self.labels)
            self.labels.append(label)
        return self._number[label]


def check_level(level: Any) -> None:
    """Raise unless it is a level.

    Raises:
        TypeError: if it is something else.
        ValueError: if it is an empty tuple.
    """
    levels = level if isinstance(level, tuple) else (level,)
    for each in levels:
        depth = isinstance(each, int) and not isinstance(each, bool) and each > 0
        if not (isinstance(each, str) or callable(each) or depth):
            raise TypeError(
                "distinct must be 'module', a number of names of a scope, the name of an axis such "
                f"as 'token', a function of a Node, or a tuple of these; got {each!r}."
            )
    if not levels:
        raise ValueError("distinct must name a level, got ().")


def _level(call: Call, level: Any) -> Level:
    if isinstance(level, tuple):
        return _together([_level(call, each) for each in level])
    if isinstance(level, str):
        return _modules(call, None) if level == "module" else _along_axis(call, level)
    if callable(level):
        return _by_function(call, level)
    return _modules(call, level)


def _modules(call: Call, depth: int | None) -> Level:
    def label(array: Array, start: bool) -> Hashable:
        if start:
            return call.names[array]
        return None if array.made_by is None else scope_names.shorten(array.scope, depth)

    return label


def _along_axis(call: Call, name: str) -> Level:
    known = call.axes.known
    if name not in known:
        raise ValueError(
            f"No axis is known as {name!r} on the way from {call.text}; known are: "
            f"{scope_names.listed(sorted(known)) or 'none'}. axes={{'[0]': ('token', None)}} names "
            "those of an argument, or of another array, and so of all that are computed from it."
        )

    def label(array: Array, start: bool) -> Any:
        if array.made_by is None and not start:
            return None
        found = call.along(array, name)
        if isinstance(found, np.ndarray):
            return Coded(range(1 + int(found.max(initial=0))), found)
        return found

    return label


def _by_function(call: Call, function: Callable[[Any], Hashable]) -> Level:
    nodes = Labels(call).nodes

    def label(array: Array, start: bool) -> Any:
        if array.made_by is None and not start:
            return None
        own = [function(node) for node in nodes(array, array.positions, start=start)]
        number = {each: n for n, each in enumerate(dict.fromkeys(own))}
        return Coded([*number] or [None], np.array([number[each] for each in own], int))

    return label


def _distinct(codes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes that occur, of ``count`` in all, and which of them each is."""
    if count > len(codes):
        return np.unique(codes, return_inverse=True)
    occurs = np.bincount(codes, minlength=count) > 0  # much faster than to sort them
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[codes]


def _together(levels: Sequence[Level]) -> Level:
    def label(array: Array, start: bool) -> Any:
        parts = [level(array, start) for level in levels]
        if not any(isinstance(part, Coded) for part in parts):
            return None if all(part is None for part in parts) else tuple(parts)
        coded = [
            part if isinstance(part, Coded) else Coded([part], np.zeros((), int)) for part in parts
        ]
        sizes = [len(part.labels) for part in coded]
        codes = np.zeros(len(array.positions), int)
        for part, size in zip(coded, sizes, strict=True):
            codes = codes * size + part.codes
        used, codes = _distinct(codes, math.prod(sizes))
        chosen = np.unravel_index(used, sizes)
        columns = [
            [part.labels[n] for n in own.tolist()] for part, own in zip(coded, chosen, strict=True)
        ]
        labels = [
            None if all(x is None for x in row) else row for row in zip(*columns, strict=True)
        ]
        return Coded(labels, codes)

    return label
