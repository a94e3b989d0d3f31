"""Several semirings in one sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from semijax.elements import Elements, Shape
from semijax.semirings.base import Semiring


@dataclasses.dataclass(frozen=True)
class Product(Semiring):
    """The direct product of semirings: every operation acts on each of them.

    The elements are the elements of the members, in the members' container.
    """

    members: tuple[Semiring, ...]
    container: Any  # the PyTreeDef of the tuple, list or dict they came in

    def zero(self, shape: Shape, dtype: Any) -> Elements:
        return self._each(lambda s: s.zero(shape, dtype))

    def one(self, shape: Shape, dtype: Any) -> Elements:
        return self._each(lambda s: s.one(shape, dtype))

    def lift(self, weights: jax.Array) -> Elements:
        return self._each(lambda s: s.lift(weights))

    def add(self, a: Elements, b: Elements) -> Elements:
        return self._each(lambda s, x, y: s.add(x, y), a, b)

    def mul(self, a: Elements, b: Elements) -> Elements:
        return self._each(lambda s, x, y: s.mul(x, y), a, b)

    def readout(self, elements: Elements) -> Any:
        return self._each(lambda s, x: s.readout(x), elements)

    def at(self, equation: Any) -> Semiring:
        return Product(tuple(s.at(equation) for s in self.members), self.container)

    def settle(self, elements: Elements) -> Elements:
        return self._each(lambda s, x: s.settle(x), elements)

    def by_operation(self, absent: bool = False) -> Semiring:
        return Product(tuple(s.by_operation(absent) for s in self.members), self.container)

    def scale(self, weights: jax.Array, elements: Elements) -> Elements:
        return self._each(lambda s, x: s.scale(weights, x), elements)

    def pass_through(self, elements: Elements) -> Elements:
        return self._each(lambda s, x: s.pass_through(x), elements)

    def sum(self, elements: Elements, axes: tuple[int, ...]) -> Elements:
        return self._each(lambda s, x: s.sum(x, axes), elements)

    def contract(self, weights: jax.Array, elements: Elements) -> Elements:
        return self._each(lambda s, x: s.contract(weights, x), elements)

    def segment_sum(self, elements: Elements, segments: jax.Array, count: int) -> Elements:
        return self._each(lambda s, x: s.segment_sum(x, segments, count), elements)

    def split(self, tree: Any) -> tuple[Any, ...]:
        """The members' parts of a container of elements, in the order of the members."""
        return tuple(self.container.flatten_up_to(tree))

    def _each(self, operation: Callable[..., Any], *elements: Elements) -> Elements:
        parts = [self.split(e) for e in elements]
        return self.container.unflatten(
            [operation(s, *part) for s, *part in zip(self.members, *parts, strict=True)]
        )


def as_semiring(semiring: Any, granularity: str = "element") -> Semiring:
    """A semiring, or the product of the semirings in a tuple, list or dict (nested as you like).

    With granularity ``"op"``, what its ``by_operation`` returns.

    Raises:
        TypeError: where there is something else, or a semiring that is not hashable, or one that
            does not have the granularity.
        ValueError: if there is no such granularity.
    """
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity must be one of {GRANULARITIES}, got {granularity!r}.")
    found = _as_semiring(semiring)
    return found if granularity == "element" else found.by_operation()


GRANULARITIES = ("element", "op")
"""What an edge is: between elements of arrays, or a whole equation."""


def _as_semiring(semiring: Any) -> Semiring:
    if isinstance(semiring, Semiring):
        try:
            hash(semiring)
        except TypeError as error:
            raise TypeError(
                f"Semirings must be hashable, and {semiring!r} is not: make its class a frozen "
                "dataclass whose fields are hashable."
            ) from error
        return semiring
    if isinstance(semiring, type) and issubclass(semiring, Semiring):
        raise TypeError(
            f"Expected a semiring, got the class {semiring.__name__}: "
            f"write {semiring.__name__}() to make one."
        )
    if not isinstance(semiring, (tuple, list, dict)) or not semiring:
        raise TypeError(
            "Expected a semiring or a non-empty tuple, list or dict of semirings, "
            f"got {semiring!r} of type {type(semiring).__name__}."
        )
    members, container = jax.tree.flatten(
        semiring, is_leaf=lambda x: not isinstance(x, (tuple, list, dict))
    )
    return Product(tuple(_as_semiring(member) for member in members), container)
