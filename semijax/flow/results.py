"""The base of an analysis's results: elements under names, and their provenance."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from semijax import tables
from semijax.elements import Elements
from semijax.semirings import Product, Semiring
from semijax.trace import scope_names
from semijax.weighting import DERIVATIVE

_Result = TypeVar("_Result", bound=type)


def result(*arrays: str) -> Callable[[_Result], _Result]:
    """Make a result a pytree of these fields, so that it passes through ``jit`` and ``vmap``."""

    def register(kind: _Result) -> _Result:
        static = [f.name for f in dataclasses.fields(kind) if f.name not in arrays]
        return jax.tree_util.register_dataclass(kind, list(arrays), static)

    return register


class Result(tables.Printed, Mapping[str, Any]):
    """A mapping from names to what a semiring reads there; prints as a table.

    Attributes:
        elements: the semiring's elements, by name.
        names: the names, in the order of the program.
        semiring: whose elements they are.
        granularity: ``"element"`` or ``"op"``.
        weighting: the name of what the edges weigh.
    """

    elements: Mapping[str, Any]
    names: tuple[str, ...]
    semiring: Semiring
    granularity: str
    weighting: str

    def __eq__(self, other: object) -> bool:
        return self is other  # arrays are neither equal nor not

    def __hash__(self) -> int:
        return id(self)

    def __getitem__(self, name: str) -> Any:
        return self.semiring.readout(self.elements[self.checked(name)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def checked(self, name: str) -> str:
        """Return a name if it is there; else raise a KeyError that lists those that are."""
        if name not in self.elements:
            raise KeyError(f"nothing is called {name!r}; there are: {scope_names.listed(self)}")
        return name

    @property
    def provenance(self) -> dict[str, str]:
        """The semiring, the granularity, the weighting and the versions it was computed with."""
        versions = {name: importlib.metadata.version(name) for name in ("semijax", "jax", "jaxlib")}
        made_with = {"granularity": self.granularity, "weighting": self.weighting}
        return {"semiring": str(self.semiring), **made_with, **versions}

    @property
    def conditions(self) -> str:
        """The granularity, and the weighting if it is not the derivative, for legends."""
        derivative = self.weighting == str(DERIVATIVE)
        weights = "" if derivative else f", weights of {self.weighting}"
        return f"granularity {self.granularity!r}{weights}"


TOTAL = ""
"""The key of the sum over everything; nothing else has this name."""


def fraction(logs: jax.Array, log_total: jax.Array) -> jax.Array:
    """Compute shares from logarithms: 0 of nothing at all, NaN of a total that is not finite."""
    nothing = log_total == -jnp.inf
    share = jnp.exp(logs - jnp.where(nothing, 0, log_total))
    return jnp.where(nothing | jnp.isfinite(log_total), share, jnp.nan)


def for_each_member(
    semiring: Semiring,
    build: Callable[[Semiring, dict[Any, Elements]], Any],
    found: Mapping[Any, Elements],
) -> Any:
    """Return ``build(semiring, found)``; for a container of semirings, that container of them."""
    if not isinstance(semiring, Product):
        return build(semiring, dict(found))
    parts = {key: semiring.split(elements) for key, elements in found.items()}
    return semiring.container.unflatten(
        [
            build(member, {key: part[n] for key, part in parts.items()})
            for n, member in enumerate(semiring.members)
        ]
    )


def is_traced(tree: Any) -> bool:
    """Tell whether the numbers are not known yet, as under ``jit``."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def check_concrete(tree: Any, caller: str) -> None:
    """Raise under a transformation, where no numbers are known."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.core.Tracer):
            raise jax.errors.ConcretizationTypeError(
                leaf, f"{caller} looks at the numbers. Call it outside of jit, vmap and grad."
            )


def shown(value: Any, log_size: Any = None) -> str:
    """Format a number for a table; one too large for its dtype by the logarithm of its size."""
    if log_size is not None and np.isposinf(value) and math.isfinite(log_size):
        return f"exp({log_size:.4g})"
    return f"{value:.4g}"


def reads_logs(semiring: Semiring) -> bool:
    """Tell whether a semiring carries weights as logarithms, so that only reading overflows."""
    return semiring.units == "weight" and semiring.size_of is not None


def of_what(semiring: Semiring) -> str:
    """Say what shares are shares of, for a legend."""
    return semiring.size_of or f"the absolute value of {semiring}"
