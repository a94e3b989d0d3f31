"""What paths say: a label for every node, at the level of modules, or another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from semijax.paths.call import Call
from semijax.paths.labels import Labels
from semijax.paths.run import Array
from semijax.trace import scope_names

UNTOLD = -1
"""The number of a node's label where it has none."""

Labelled = Any
"""The numbers of the labels of an array's nodes: one for all, or an array with one for each."""

Level = Callable[[Array, bool], Any]
"""From an array, and whether paths start at its nodes, to the label that all nodes share, or an
array of objects with one for each; None for what tells nothing."""


class Told:
    """The label of every node of a call, as a number.

    Attributes:
        labels: by their numbers.
    """

    def __init__(self, call: Call, level: Any) -> None:
        self.labels: list[Hashable] = []
        self._number: dict[Hashable, int] = {}
        self._of = _level(call, level)
        self._known: dict[tuple[Array, bool], Labelled] = {}

    def at(self, array: Array) -> Labelled:
        """Of the nodes of an array, where paths pass."""
        return self._labelled(array, False)

    def at_start(self, array: Array) -> Labelled:
        """Of the nodes of an array, where paths start."""
        return self._labelled(array, True)

    def _labelled(self, array: Array, start: bool) -> Labelled:
        if (array, start) not in self._known:
            found = self._of(array, start)
            if isinstance(found, np.ndarray):
                numbers = [self._numbered(label) for label in found.ravel().tolist()]
                found = np.array(numbers, int)
            else:
                found = self._numbered(found)
            self._known[array, start] = found
        return self._known[array, start]

    def _numbered(self, label: Hashable) -> int:
        if label is None:
            return UNTOLD
        if label not in self._number:
            self._number[label] = len(self.labels)
            self.labels.append(label)
        return self._number[label]


def check_level(level: Any) -> Any:
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
                "distinct must be 'module', a number of names of a scope, the name of an axis as "
                f"'token', a function of a Node, or a tuple of these; got {each!r}."
            )
    if not levels:
        raise ValueError("distinct must name a level, got ().")
    return level


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
        return found.astype(object) if isinstance(found, np.ndarray) else found

    return label


def _by_function(call: Call, function: Callable[[Any], Hashable]) -> Level:
    nodes = Labels(call).nodes

    def label(array: Array, start: bool) -> Any:
        if array.made_by is None and not start:
            return None
        found = np.empty(len(array.positions), object)
        for position, node in enumerate(nodes(array, array.positions, start=start)):
            found[position] = function(node)
        return found

    return label


def _together(levels: Sequence[Level]) -> Level:
    def label(array: Array, start: bool) -> Any:
        parts = [level(array, start) for level in levels]
        if not any(isinstance(part, np.ndarray) for part in parts):
            return None if all(part is None for part in parts) else tuple(parts)
        found = np.empty(len(array.positions), object)
        columns = [
            part.tolist() if isinstance(part, np.ndarray) else [part] * len(found) for part in parts
        ]
        for position, labels in enumerate(zip(*columns, strict=True)):
            found[position] = None if all(x is None for x in labels) else labels
        return found

    return label
