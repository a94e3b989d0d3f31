"""What the results of an analysis have in common: elements under names, and where they are from."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp

from semijax import tables
from semijax.elements import Elements
from semijax.semirings import AbsSumProduct, PathCount, Product, Semiring
from semijax.semirings.expectation import LogMassSemiring
from semijax.semirings.order import OperationGranularity
from semijax.trace import scope_names

_Result = TypeVar("_Result", bound=type)


def result(*arrays: str) -> Callable[[_Result], _Result]:
    """Declare a result a pytree of these fields, so that it passes through ``jit`` and ``vmap``."""

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
    """

    elements: Mapping[str, Any]
    names: tuple[str, ...]
    semiring: Semiring
    granularity: str

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
        """A name that is there; a KeyError that names those that are, if it is not."""
        if name not in self.elements:
            raise KeyError(f"nothing is called {name!r}; there are: {scope_names.listed(self)}")
        return name

    @property
    def provenance(self) -> dict[str, str]:
        """The semiring, the granularity and the versions it was computed with."""
        versions = {name: importlib.metadata.version(name) for name in ("semijax", "jax", "jaxlib")}
        return {"semiring": named(self.semiring), "granularity": self.granularity, **versions}


TOTAL = ""
"""The key of what is summed over everything; nothing else is called so."""


def as_given(semiring: Semiring) -> Semiring:
    """A semiring as it was before it was given a granularity."""
    return semiring.of if isinstance(semiring, OperationGranularity) else semiring


def named(semiring: Semiring) -> str:
    """A semiring as it was given; the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(as_given(semiring)))


def log_size(semiring: Semiring, elements: Elements) -> jax.Array:
    """The logarithm of the size of elements, |weight|, mass or number of paths; −∞ for none.

    Raises:
        TypeError: where elements cannot be compared by size.
    """
    if isinstance(semiring, LogMassSemiring):
        return elements.log_mass
    if isinstance(semiring, PathCount):
        return elements
    weights = semiring.readout(elements)
    if semiring.units != "weight" or jax.tree.structure(weights) != jax.tree.structure(0):
        raise _no_share(semiring)
    if weights.ndim != len(semiring.shape(elements)):
        raise _no_share(semiring)
    return jnp.where(is_no_path(semiring, elements), -jnp.inf, jnp.log(jnp.abs(weights)))


def fraction(logs: jax.Array, log_total: jax.Array) -> jax.Array:
    """From logarithms; 0 where there is nothing at all."""
    return jnp.exp(logs - jnp.where(log_total == -jnp.inf, 0, log_total))


def is_no_path(semiring: Semiring, elements: Elements) -> jax.Array:
    """Where elements are 0̄."""
    zero = semiring.zero((), semiring.dtype(elements))
    ndim = len(semiring.shape(elements))
    same = [
        (a == b).all(tuple(range(ndim, a.ndim)))
        for a, b in zip(jax.tree.leaves(elements), jax.tree.leaves(zero), strict=True)
    ]
    return jnp.stack(same).all(0)


def _no_share(semiring: Semiring) -> TypeError:
    return TypeError(
        f"{type(semiring).__name__} has no shares: they are of weights, masses and counts. "
        "AbsSumProduct() gives the shares of the mass, Entropy() the same in logarithms."
    )


def for_each_member(
    semiring: Semiring,
    build: Callable[[Semiring, dict[Any, Elements]], Any],
    found: Mapping[Any, Elements],
) -> Any:
    """``build(semiring, found)``, for a container of semirings in that container."""
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
    """Whether the numbers are not known yet, as under ``jit``."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def check_concrete(tree: Any, caller: str) -> None:
    """Raise under a transformation, where no numbers are known."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.core.Tracer):
            raise jax.errors.ConcretizationTypeError(
                leaf, f"{caller} looks at the numbers. Call it outside of jit, vmap and grad."
            )


def shown(value: Any) -> str:
    """A number in a table."""
    return f"{value:.4g}"


def of_what(semiring: Semiring) -> str:
    """What the sizes of elements are sizes of, for a legend."""
    if isinstance(semiring, (LogMassSemiring, AbsSumProduct)):
        return "the gradient's mass Z = Σ|path weight|"
    if isinstance(semiring, PathCount):
        return "the number of paths"
    return f"the absolute value of {named(semiring)}"
