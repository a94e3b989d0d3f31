"""Expectations over the distribution of paths, p(path) = |weight of the path| / Z."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from semijax.elements import Shape
from semijax.semirings.base import Semiring
from semijax.semirings.log_sum import Arrays, LogSumSemiring, log_abs
from semijax.semirings.mass import MASS


class Weighted(NamedTuple):
    """The pair of ``log_mass`` and ``mean``, the paths' statistic.

    ``log_mass`` is the logarithm of ``Σ |w(path)|``, in nats.
    Where ``log_mass`` is −∞ there is no distribution, and ``mean`` may be any number.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: 3 * x - jnp.sin(x)
        >>> pair = sj.semiring_grad(f, sj.Entropy(), raw=True)(0.0)
        >>> print(f"{jnp.exp(pair.log_mass):.2f} {pair.mean:.4f}")
        4.00 0.5623
    """

    log_mass: jax.Array
    mean: jax.Array


@dataclasses.dataclass(frozen=True)
class LogMassSemiring(LogSumSemiring):
    """The expectation semiring: ⟨log Z, m⟩ with ⊕ averaging ``m`` by mass and ⊗ adding it.

    With p₁ = Z₁/(Z₁+Z₂) and p₂ likewise, Z being carried as its logarithm:

        ⟨Z₁, m₁⟩ ⊕ ⟨Z₂, m₂⟩ = ⟨Z₁ + Z₂, p₁ (m₁ + s(p₁)) + p₂ (m₂ + s(p₂))⟩
        ⟨Z₁, m₁⟩ ⊗ ⟨Z₂, m₂⟩ = ⟨Z₁ Z₂, m₁ + m₂⟩

    s is 0 for the expectation of an additive feature, and the surprisal s(p) = −log p for the
    entropy (the chain rule of entropy). This is Eisner's semiring ⟨Z, Z·m⟩ in other coordinates.

    Source: Eisner 2002, §3; Li and Eisner 2009, §3.2.
    """

    size_of: ClassVar[str | None] = MASS
    kernel: ClassVar[str] = "mean"

    def zero(self, shape: Shape, dtype: Any) -> Weighted:
        return Weighted(jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, dtype))

    def one(self, shape: Shape, dtype: Any) -> Weighted:
        return Weighted(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def lift(self, weights: jax.Array) -> Weighted:
        return Weighted(log_abs(weights), jnp.zeros_like(weights))

    def readout(self, elements: Weighted) -> jax.Array:
        # A mass that is not a number must not hide behind a mean that is one; where there is no
        # mass the mean means nothing.
        log_mass, mean = elements
        return jnp.where(jnp.isnan(log_mass), log_mass, jnp.where(log_mass == -jnp.inf, 0, mean))

    def _arrays(self, elements: Weighted) -> Arrays:
        return tuple(elements)

    def _elements(self, arrays: Sequence[jax.Array]) -> Weighted:
        return Weighted(*arrays)


@dataclasses.dataclass(frozen=True)
class Entropy(LogMassSemiring):
    """The entropy, in nats, of the distribution of paths ``p(path) = |w(path)| / Z``.

    H = −Σ p log p; 0 where there is one path, or none with any weight. Answers: does the gradient
    flow through a few strong paths, or many weak ones? exp(H) is the effective number of paths, and
    H ≤ ``PathCount``. The elements are ``Weighted(log_mass, mean)`` with mean = H.

    Source: Du et al. 2023, Eq. 6; the semiring is Eisner 2002's, see ``LogMassSemiring``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> even = lambda x: jnp.sum(x * jnp.array([1.0, 1.0, 1.0, 1.0]))
        >>> uneven = lambda x: jnp.sum(x * jnp.array([97.0, 1.0, 1.0, 1.0]))
        >>> for f in (even, uneven):
        ...     entropy = sj.semiring_grad(f, sj.Entropy())(1.0)
        ...     print(f"{jnp.exp(entropy):.2f} effective paths of 4")
        4.00 effective paths of 4
        1.18 effective paths of 4
    """

    units: ClassVar[str | None] = "nats"
    surprisal: ClassVar[bool] = True
    kernel: ClassVar[str] = "entropy"

    def readout(self, elements: Weighted) -> jax.Array:
        entropy = super().readout(elements)
        return jnp.where(entropy < 0, 0, entropy)  # by rounding only


@dataclasses.dataclass(frozen=True)
class Expectation(LogMassSemiring):
    """The mean over paths, with ``p(path) = |w(path)| / Z``, of a feature summed over their edges.

    Args:
        feature: a function of the ``Equation`` an edge belongs to (its ``primitive``, ``params``,
            ``scope``, ``source``) that returns a number; hashable, as any function is.

    0 where no path has weight. Answers, for instance: how many of a path's edges lie in this
    module?

    Source: Eisner 2002, §3; Du et al. 2023 name it as an extension.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> sines = sj.Expectation(lambda equation: equation.primitive.name == "sin")
        >>> print(sj.semiring_grad(lambda x: jnp.sin(jnp.sin(x)), sines)(1.0))
        2.0
    """

    feature: Callable[[Any], float]

    units: ClassVar[str | None] = "feature"

    def at(self, equation: Any) -> Semiring:
        return _ExpectationAt(float(self.feature(equation)))


@dataclasses.dataclass(frozen=True)
class _ExpectationAt(LogMassSemiring):
    """``Expectation`` on the edges of one equation, where the feature has one value."""

    value: float

    def lift(self, weights: jax.Array) -> Weighted:
        return self._counted(super().lift(weights))

    def scale(self, weights: jax.Array, elements: Weighted) -> Weighted:
        return self._counted(super().scale(weights, elements))

    def pass_through(self, elements: Weighted) -> Weighted:
        return self._counted(elements)

    def contract(self, weights: jax.Array, elements: Weighted) -> Weighted:
        return self._counted(LogMassSemiring().contract(weights, elements))

    def _counted(self, elements: Weighted) -> Weighted:
        return Weighted(elements.log_mass, elements.mean + self.value)


def _one_per_edge(equation: Any) -> float:
    return 1.0


@dataclasses.dataclass(frozen=True)
class PathLength(Expectation):
    """The mean number of edges of a path, with ``p(path) = |w(path)| / Z``.

    ``Expectation`` of the feature 1; 0 where no path has weight. Answers: do the paths that carry
    the gradient cross the whole network, or its skip connections?

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: 3 * x + jnp.sin(x)
        >>> print(sj.semiring_grad(f, sj.PathLength())(0.0))
        2.0
        >>> g = lambda x: 3 * x + jnp.sin(jnp.sin(jnp.sin(x)))
        >>> print(f"{sj.semiring_grad(g, sj.PathLength())(0.0):.2f}")
        2.50
    """

    feature: Callable[[Any], float] = dataclasses.field(default=_one_per_edge, repr=False)

    units: ClassVar[str | None] = "edges"
