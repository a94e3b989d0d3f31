"""Several semirings in one sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from semijax.semirings.base import Semiring
from semijax.semirings.wrapper import Wrapper


@dataclasses.dataclass(frozen=True)
class Product(Wrapper):
    """The direct product of semirings: every operation acts on each of them.

    The elements are the elements of the members, in the members' container.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> both = sj.semirings.as_semiring({"sum": sj.SumProduct(), "max": sj.MaxProduct()})
        >>> f = lambda x: 3 * x - jnp.sin(x)
        >>> found = sj.semiring_grad(f, both)(0.0)
        >>> print(found["sum"], found["max"])
        2.0 3.0
    """

    members: tuple[Semiring, ...]
    container: Any  # the PyTreeDef of the tuple, list or dict they came in

    def wrapped(self) -> tuple[Semiring, ...]:
        return self.members

    def rewrapped(self, semirings: tuple[Semiring, ...]) -> Semiring:
        return Product(semirings, self.container)

    def split(self, elements: Any) -> tuple[Any, ...]:
        """Return the members' parts of a container of elements, in the order of the members."""
        return tuple(self.container.flatten_up_to(elements))

    def join(self, parts: Sequence[Any]) -> Any:
        return self.container.unflatten(parts)


def as_semiring(semiring: Any, granularity: str = "element") -> Semiring:
    """Return a semiring, or the product of those in a tuple, list or dict (nested as you like).

    With granularity ``"op"``, what its ``by_operation`` returns.

    Raises:
        TypeError: if it is something else, or a semiring that is not hashable, or one that does
            not have the granularity.
        ValueError: if there is no such granularity.

    Example:
        >>> import semijax as sj
        >>> sj.semirings.as_semiring((sj.SumProduct(), sj.Entropy())).members
        (SumProduct(), Entropy())
    """
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity must be one of {GRANULARITIES}, got {granularity!r}.")
    found = _as_semiring(semiring)
    return found if granularity == "element" else found.by_operation()


GRANULARITIES = ("element", "op")
"""The kinds of edges: between elements of arrays, or whole equations."""


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
