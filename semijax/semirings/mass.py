"""The mass that flows, and the number of paths: sums that are carried as logarithms."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from semijax.semirings.log_sum import LogSumSemiring

MASS = "the gradient's mass Z = Σ|path weight|"
"""The quantity that shares of masses divide."""


@dataclasses.dataclass(frozen=True)
class AbsSumProduct(LogSumSemiring):
    """The mass Z: the sum over paths of the product of the absolute local derivatives.

    ([0, ∞), +, ×, 0, 1), ``lift(w) = |w|``. Answers: how much gradient flows from this input in
    all, before paths of opposite sign cancel? ``|gradient| ≤ Z`` always.

    Z grows exponentially with depth: that of a 12-layer BERT is beyond float32. The elements are
    log Z, and shares, winners and pictures compare these logarithms. Only the readout overflows, to
    ``inf``, if Z itself is too large for the dtype; ``raw=True`` returns the logarithm instead.
    Since the logarithm is what is rounded, a large Z has a few fewer correct digits. The derivative
    of ``|w|`` at 0 is 0.

    Source: the normaliser of Du et al. 2023, Eq. 6.

    Example:
        A path of weight 2, 200 times over: 2²⁰⁰ is beyond float32.

        >>> import jax, semijax as sj
        >>> f = lambda x: jax.lax.fori_loop(0, 200, lambda _, c: 2 * c, x)
        >>> print(sj.semiring_grad(f, sj.AbsSumProduct())(1.0))
        inf
        >>> print(f"{sj.semiring_grad(f, sj.AbsSumProduct(), raw=True)(1.0):.2f}")
        138.63
    """

    units: ClassVar[str | None] = "weight"
    size_of: ClassVar[str | None] = MASS
    kernel = "mass"

    def readout(self, elements: jax.Array) -> jax.Array:
        return jnp.exp(elements)


@dataclasses.dataclass(frozen=True)
class PathCount(LogSumSemiring):
    """The logarithm, in nats, of the number of paths of non-zero weight; −∞ where there is none.

    (log ℕ, logaddexp, +), lift(w) = 0 for every edge of non-zero weight. Answers: how many paths
    are there? Together with ``Entropy``: what share of them is used?

    Source: Mohri 2002, the counting semiring, in logarithms.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sum(jnp.outer(x, jnp.ones(4)) @ jnp.ones((4, 5)))
        >>> paths = sj.semiring_grad(f, sj.PathCount())(jnp.ones(2))
        >>> print(jnp.exp(paths).round(3))
        [20. 20.]
    """

    units: ClassVar[str | None] = "nats"
    size_of: ClassVar[str | None] = "the number of paths"
    kernel = "count"

    def sizes(self, weights: jax.Array) -> jax.Array:
        """Return 1 where there is an edge of non-zero weight, 0 where not, NaN where unknown."""
        weights = lax.stop_gradient(weights)
        return jnp.where(jnp.isnan(weights), weights, (weights != 0).astype(weights.dtype))
