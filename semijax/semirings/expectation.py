"""Expectations over the distribution of paths, p(path) = |weight of the path| / Z.

An element is ⟨log Z, m⟩: the logarithm of the mass of the paths, and a statistic of their
distribution. The mass itself overflows float32 for a 12-layer BERT; its logarithm never does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semijax import elements as el
from semijax import native
from semijax.elements import Shape
from semijax.semirings.base import Semiring
from semijax.semirings.blocks import DERIVATIVE_BLOCK, fold_sum
from semijax.semirings.real import matmul, sum_over_blocks


class Weighted(NamedTuple):
    """``log_mass`` = log Σ|w(path)|, in nats, and ``mean``, the statistic of the paths.

    Where ``log_mass`` is −∞ there is no distribution, and ``mean`` may be any number.
    """

    log_mass: jax.Array
    mean: jax.Array


@dataclasses.dataclass(frozen=True)
class LogMassSemiring(Semiring):
    """⟨log Z, m⟩ with ⊕ averaging ``m`` by mass and ⊗ adding it: the expectation semiring.

    With p₁ = Z₁/(Z₁+Z₂) and p₂ likewise, Z being carried as its logarithm:

        ⟨Z₁, m₁⟩ ⊕ ⟨Z₂, m₂⟩ = ⟨Z₁ + Z₂, p₁ (m₁ + s(p₁)) + p₂ (m₂ + s(p₂))⟩
        ⟨Z₁, m₁⟩ ⊗ ⟨Z₂, m₂⟩ = ⟨Z₁ Z₂, m₁ + m₂⟩

    s is 0 for the expectation of an additive feature, and the surprisal s(p) = −log p for the
    entropy (the chain rule of entropy). This is Eisner's semiring ⟨Z, Z·m⟩ in other coordinates.

    Source: Eisner 2002, §3; Li and Eisner 2009, §3.2.
    """

    surprisal: ClassVar[bool] = False
    additive = True

    @property
    def kernel(self) -> str:
        """The native kernel of this semiring's contraction."""
        return "entropy" if self.surprisal else "mean"

    def zero(self, shape: Shape, dtype: Any) -> Weighted:
        return Weighted(jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, dtype))

    def one(self, shape: Shape, dtype: Any) -> Weighted:
        return Weighted(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def lift(self, weights: jax.Array) -> Weighted:
        return Weighted(log_abs(weights), jnp.zeros_like(weights))

    def add(self, a: Weighted, b: Weighted) -> Weighted:
        return _add(self, a, b)

    def mul(self, a: Weighted, b: Weighted) -> Weighted:
        return Weighted(a.log_mass + b.log_mass, a.mean + b.mean)

    def scale(self, weights: jax.Array, elements: Weighted) -> Weighted:
        return Weighted(log_abs(weights) + elements.log_mass, elements.mean)

    def pass_through(self, elements: Weighted) -> Weighted:
        return elements

    def sum(self, elements: Weighted, axes: tuple[int, ...]) -> Weighted:
        by_xla = functools.partial(self._sum_by_xla, axes)
        return Weighted(*native.sum_on_cpu(self.kernel, by_xla, axes, *elements))

    def _sum_by_xla(self, axes: tuple[int, ...], logs: jax.Array, means: jax.Array) -> Weighted:
        largest = lax.stop_gradient(_finite(jnp.max(logs, axes, keepdims=True, initial=-jnp.inf)))
        logs = logs - largest
        masses = jnp.exp(logs)
        mass = masses.sum(axes)
        terms = means - _finite(logs) if self.surprisal else means
        total = jnp.sum(masses * terms, axes)
        return self._result(mass, total, largest.squeeze(axes))

    def contract(self, weights: jax.Array, elements: Weighted) -> Weighted:
        return _contract(self, weights, elements)

    def segment_sum(self, elements: Weighted, segments: jax.Array, count: int) -> Weighted:
        logs, means = elements
        kept = jnp.where((segments < 0) | (segments >= count), count, segments)
        zeros = jnp.zeros(count + 1, logs.dtype)
        largest = jnp.full(count + 1, -jnp.inf, logs.dtype).at[kept].max(logs)
        largest = lax.stop_gradient(_finite(largest))
        logs = logs - largest[kept]
        masses = jnp.exp(logs)
        terms = means - _finite(logs) if self.surprisal else means
        mass, total = zeros.at[kept].add(masses), zeros.at[kept].add(masses * terms)
        return self._result(mass[:count], total[:count], largest[:count])

    def readout(self, elements: Weighted) -> jax.Array:
        # A mass that is not a number must not hide behind a mean that is one; where there is no
        # mass the mean means nothing.
        log_mass, mean = elements
        return jnp.where(jnp.isnan(log_mass), log_mass, jnp.where(log_mass == -jnp.inf, 0, mean))

    def _result(self, mass: jax.Array, total: jax.Array, log_scale: jax.Array) -> Weighted:
        """From Σ mass and Σ mass · (m − log mass), or Σ mass · m, in units of a scale."""
        some = _or_one(mass)
        mean = _quotient(total, some)
        if self.surprisal:
            mean = mean + jnp.log(some)
        return Weighted(log_abs(mass) + log_scale, mean)

    def _scaled_contract(
        self, weights: jax.Array, elements: Weighted
    ) -> tuple[Weighted, jax.Array]:
        """Contract by matrix products, rows and columns scaled to have a largest entry of 1.

        Returns the result, and how far it can be trusted: where less than 1, the products may have
        lost a part of the mass to underflow that is not small against the whole.
        """
        logs, means = elements
        row, column = _scales(weights, logs)
        alive = (row > 0) & (column > -jnp.inf)
        row, column = _or_one(row), _finite(column)
        logs = logs - column
        masses = jnp.exp(logs)
        terms = masses * (means - _finite(logs) if self.surprisal else means)

        def products(w: jax.Array, elements: Any) -> tuple[jax.Array, jax.Array]:
            masses, terms = elements
            a = w * jnp.sign(w) / row  # |w|, with derivative 0 at 0
            mass, total = matmul(a, masses), matmul(a, terms)
            return mass, total + matmul(_surprisal(a), masses) if self.surprisal else total

        mass, total = sum_over_blocks(products, weights, (masses, terms))
        trusted = jnp.where(alive, mass / _least_trusted(weights), jnp.inf)
        return self._result(mass, total, jnp.log(row) + column), trusted

    def _looped_contract(self, weights: jax.Array, elements: Weighted, count: Any) -> Weighted:
        """The first ``count`` terms, one by one: slow, and there is no scale to fall below."""
        batch, rows, _ = weights.shape
        shape = (batch, rows, elements.log_mass.shape[2])

        def step(k: Any, total: Weighted) -> Weighted:
            w = lax.dynamic_slice_in_dim(weights, k, 1, 2)
            g = [lax.dynamic_slice_in_dim(leaf, k, 1, 1) for leaf in elements]
            w, log_mass, mean = (jnp.broadcast_to(leaf, shape) for leaf in (w, *g))
            return self.add(total, self.scale(w, Weighted(log_mass, mean)))

        return lax.fori_loop(0, count, step, self.zero(shape, weights.dtype))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _add(semiring: LogMassSemiring, a: Weighted, b: Weighted) -> Weighted:
    by_xla = functools.partial(_add_by_xla, semiring)
    return Weighted(*native.add_on_cpu(semiring.kernel, by_xla, a, b))


def _add_by_xla(semiring: LogMassSemiring, *numbers: jax.Array) -> Weighted:
    a, b = Weighted(*numbers[:2]), Weighted(*numbers[2:])
    # With e = exp(−|log Z₁ − log Z₂|) the shares are 1 / (1 + e) and e / (1 + e), the logarithm of
    # the sum is max(log Z₁, log Z₂) + log(1 + e), and the entropy of the two shares
    # log(1 + e) + |log Z₁ − log Z₂| · e / (1 + e).
    largest = jnp.maximum(a.log_mass, b.log_mass)
    t = _log_ratio(a, b)
    gap = jnp.abs(t)
    e = jnp.exp(-gap)
    more = 1 / (1 + e)
    less = e * more
    first = t > 0
    mean = jnp.where(first, more, less) * a.mean + jnp.where(first, less, more) * b.mean
    excess = jnp.log1p(e)
    if semiring.surprisal:
        mean = mean + excess + gap * less
    return Weighted(largest + excess, mean)


@_add.defjvp
def _add_jvp(semiring: LogMassSemiring, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (a, b), (da, db) = primals, tangents
    t = _log_ratio(a, b)
    p, q = lax.logistic(t), lax.logistic(-t)
    surplus = a.mean - b.mean - (t if semiring.surprisal else 0)
    dt = jnp.where(_neither(a, b), 0, da.log_mass - db.log_mass)
    mean = p * da.mean + q * db.mean + p * q * surplus * dt
    tangent = Weighted(p * da.log_mass + q * db.log_mass, mean)
    return _add(semiring, a, b), tangent


def _log_ratio(a: Weighted, b: Weighted) -> jax.Array:
    """The difference log Z₁ − log Z₂, bounded where one of them is 0; 0 where both are."""
    bound = -2 * np.log(jnp.finfo(a.log_mass.dtype).tiny)  # there the smaller share is 0
    t = lax.clamp(-bound, a.log_mass - b.log_mass, bound)
    return jnp.where(_neither(a, b), 0, t)


def _neither(a: Weighted, b: Weighted) -> jax.Array:
    """Where neither has a mass."""
    return jnp.maximum(a.log_mass, b.log_mass) == -jnp.inf


@jax.custom_jvp
def log_abs(weights: jax.Array) -> jax.Array:
    """log|w|; −∞ at 0 with derivative 0 there (the path has no mass, and no way to get any)."""
    return jnp.log(jnp.abs(weights))


@log_abs.defjvp
def _log_abs_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (weights,), (tangent,) = primals, tangents
    return log_abs(weights), jnp.where(weights == 0, 0, tangent) / _or_one(weights)


@jax.custom_jvp
def _quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    """``a / b``; JAX's own derivative would divide by b², which underflows long before b does."""
    return a / b


@_quotient.defjvp
def _quotient_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (a, b), (da, db) = primals, tangents
    quotient = _quotient(a, b)
    return quotient, (da - quotient * db) / b


def _surprisal(p: jax.Array) -> jax.Array:
    """−p log p, 0 at 0."""
    return -p * jnp.log(_or_one(p))


def _or_one(values: jax.Array) -> jax.Array:
    return jnp.where(values == 0, 1, values)


def _finite(logs: jax.Array) -> jax.Array:
    """0 in place of −∞: what it is multiplied with, or scales, is 0."""
    return jnp.where(logs == -jnp.inf, 0, logs)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _contract(semiring: LogMassSemiring, weights: jax.Array, elements: Weighted) -> Weighted:
    by_xla = functools.partial(_contract_by_xla, semiring)
    return Weighted(*native.on_cpu(semiring.kernel, by_xla, weights, *elements))


def _contract_by_xla(
    semiring: LogMassSemiring, weights: jax.Array, log_mass: jax.Array, mean: jax.Array
) -> Weighted:
    weights, elements = weights.astype(log_mass.dtype), Weighted(log_mass, mean)
    result, trusted = semiring._scaled_contract(weights, elements)
    if not (weights.size and mean.size):
        return result
    lost = lax.cond(
        trusted.min() >= 1,
        lambda: jnp.zeros((), bool),
        lambda: _lost(weights, elements, trusted),
    )
    # A loop of no steps, unless something was lost: unlike lax.cond, it stays so under vmap.
    again = semiring._looped_contract(weights, elements, jnp.where(lost, weights.shape[2], 0))
    # The loop would read an infinite weight as one, and there is no share of infinity.
    replaced = lost & ~jnp.isnan(result.log_mass)
    return jax.tree.map(functools.partial(jnp.where, replaced), again, result)


def _scales(weights: jax.Array, logs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest weight of every row, and the logarithm of the largest mass of every column."""
    row = jnp.max(weights, 2, keepdims=True, initial=0)
    row = jnp.maximum(row, -jnp.min(weights, 2, keepdims=True, initial=0))
    return lax.stop_gradient((row, jnp.max(logs, 1, keepdims=True, initial=-jnp.inf)))


def _least_trusted(weights: jax.Array) -> float:
    """The smallest sum, of terms of at most 1, beside which those that underflow don't matter."""
    info = jnp.finfo(weights.dtype)
    return float(info.tiny / info.eps) * max(1, weights.shape[2])


def _lost(weights: jax.Array, elements: Weighted, trusted: jax.Array) -> jax.Array:
    """Whether an entry that can't be trusted has any path at all."""
    edges = (weights != 0).astype(weights.dtype)
    paths = matmul(edges, (elements.log_mass != -jnp.inf).astype(weights.dtype))
    return jnp.max(jnp.where(trusted < 1, paths, 0), initial=0) > 0


@_contract.defjvp
def _contract_jvp(semiring: LogMassSemiring, primals: Any, tangents: Any) -> tuple[Any, Any]:
    weights, elements = primals
    result = _contract(semiring, weights, elements)
    dtype = result.log_mass.dtype  # the weights' may be narrower
    primals, tangents = ((x[0].astype(dtype), x[1]) for x in (primals, tangents))
    # What a derivative by products needs is as large as the weights: it is made again, not kept.
    tangent = jax.checkpoint(functools.partial(_contract_tangent, semiring))
    return result, tangent(tuple(primals), tuple(tangents), result)


def _contract_tangent(
    semiring: LogMassSemiring, primals: Any, tangents: Any, result: Weighted
) -> Weighted:
    def scaled(weights: jax.Array, elements: Weighted) -> Weighted:
        return semiring._scaled_contract(weights, elements)[0]

    weights, elements = primals
    row, column = _scales(weights, elements.log_mass)
    least = column + jnp.log(row) + np.log(_least_trusted(weights))
    return lax.cond(
        _anywhere((result.log_mass > -jnp.inf) & (result.log_mass < least)),
        lambda tangents: _looped_tangent(semiring, primals, tangents, result),
        lambda tangents: jax.jvp(scaled, primals, tangents)[1],
        tangents,
    )


@jax.custom_batching.custom_vmap
def _anywhere(flags: jax.Array) -> jax.Array:
    """Whether one of them holds; under vmap, whether one does in all of the batch.

    So a ``lax.cond`` stays one under vmap. JAX would make a select of it, which evaluates both
    branches, and whose operands, as tangents, can then not be transposed.
    """
    return jnp.any(flags)


@_anywhere.def_vmap
def _anywhere_in_batch(
    size: int, batched: Sequence[bool], flags: jax.Array
) -> tuple[jax.Array, bool]:
    return _anywhere(flags), False


def _looped_tangent(
    semiring: LogMassSemiring, primals: Any, tangents: Any, result: Weighted
) -> Weighted:
    """The derivative of a contraction, by terms.

    With s the logarithms of the terms' masses and p their shares of the mass:
    d log Z = Σ p ds, and dm = Σ p dmₖ + Σ p (mₖ − m [− log p, for the entropy]) ds.
    """
    log_mass, mean = (leaf[:, :, None] for leaf in result)

    def term(start: Any, size: int) -> Weighted:
        def block(w: jax.Array, e: Weighted) -> tuple[jax.Array, jax.Array]:
            lifted = semiring.lift(lax.dynamic_slice_in_dim(w, start, size, 2)[..., None])
            here = el.map_leaves(lambda leaf: leaf[:, None], el.slice_axis(e, start, size, 1))
            product = semiring.mul(lifted, here)
            return product.log_mass, product.mean

        (logs, means), (d_logs, d_means) = jax.jvp(block, primals, tangents)
        log_share = jnp.where(logs == -jnp.inf, -jnp.inf, logs - log_mass)
        share = jnp.exp(log_share)
        surplus = means - mean - (_finite(log_share) if semiring.surprisal else 0)
        d_logs = jnp.where(share == 0, 0, d_logs)
        return Weighted(
            jnp.sum(share * d_logs, 2), jnp.sum(share * (d_means + surplus * d_logs), 2)
        )

    return fold_sum(primals[0].shape[2], term, DERIVATIVE_BLOCK)


@dataclasses.dataclass(frozen=True)
class Entropy(LogMassSemiring):
    """The entropy, in nats, of the distribution of paths p(path) = |w(path)| / Z.

    H = −Σ p log p; 0 where there is one path, or none with any weight. Answers: does the gradient
    flow through a few strong paths, or many weak ones? exp(H) is the effective number of paths, and
    H ≤ ``PathCount``. The elements are ``Weighted(log_mass, mean)`` with mean = H.

    Source: Du et al. 2023, Eq. 6; the semiring is Eisner 2002's, see ``LogMassSemiring``.
    """

    units = "nats"
    surprisal: ClassVar[bool] = True

    def readout(self, elements: Weighted) -> jax.Array:
        entropy = super().readout(elements)
        return jnp.where(entropy < 0, 0, entropy)  # by rounding only


@dataclasses.dataclass(frozen=True)
class Expectation(LogMassSemiring):
    """The mean over paths, with p(path) = |w(path)| / Z, of the sum of a feature of their edges.

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

    units = "feature"

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
    """The mean number of edges of a path, with p(path) = |w(path)| / Z.

    ``Expectation`` of the feature 1; 0 where no path has weight. Answers: do the paths that carry
    the gradient cross the whole network, or its skip connections?
    """

    feature: Callable[[Any], float] = dataclasses.field(default=_one_per_edge, repr=False)

    units = "edges"


@dataclasses.dataclass(frozen=True)
class PathCount(Semiring):
    """The logarithm, in nats, of the number of paths of non-zero weight; −∞ where there is none.

    (log ℕ, logaddexp, +), lift(w) = 0 for every edge of non-zero weight. Answers: how many paths
    are there? Together with ``Entropy``: what share of them is used?

    Source: Mohri 2002, the counting semiring, in logarithms.
    """

    units = "nats"
    additive = True

    def zero(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.full(shape, -jnp.inf, dtype)

    def one(self, shape: Shape, dtype: Any) -> jax.Array:
        return jnp.zeros(shape, dtype)

    def lift(self, weights: jax.Array) -> jax.Array:
        return log_abs(_edges(weights))

    def add(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return native.add_on_cpu("count", lambda a, b: (jnp.logaddexp(a, b),), (a,), (b,))[0]

    def mul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return a + b

    def pass_through(self, elements: jax.Array) -> jax.Array:
        return elements

    def sum(self, elements: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        def by_xla(counts: jax.Array) -> tuple[jax.Array]:
            return (_weigh(lambda e: LogMassSemiring()._sum_by_xla(axes, *e), counts),)

        return native.sum_on_cpu("count", by_xla, axes, elements)[0]

    def contract(self, weights: jax.Array, elements: jax.Array) -> jax.Array:
        return _contract_counts(weights, elements)

    def segment_sum(self, elements: jax.Array, segments: jax.Array, count: int) -> jax.Array:
        return _weigh(lambda e: LogMassSemiring().segment_sum(e, segments, count), elements)


def _weigh(operation: Callable[[Weighted], Weighted], counts: jax.Array) -> jax.Array:
    """What becomes of counts, as the masses that they are."""
    return operation(Weighted(counts, jnp.zeros_like(counts))).log_mass


@jax.custom_jvp
def _contract_counts(weights: jax.Array, counts: jax.Array) -> jax.Array:
    return native.on_cpu("count", _contract_counts_by_xla, weights, counts)[0]


def _contract_counts_by_xla(weights: jax.Array, counts: jax.Array) -> tuple[jax.Array]:
    edges = _edges(weights.astype(counts.dtype))
    return (_weigh(lambda e: _contract_by_xla(LogMassSemiring(), edges, *e), counts),)


@_contract_counts.defjvp
def _contract_counts_jvp(primals: Any, tangents: Any) -> Any:
    (weights, counts), (_, d_counts) = primals, tangents
    edges = _edges(weights.astype(counts.dtype))

    def contract(counts: jax.Array) -> jax.Array:
        return _weigh(lambda e: LogMassSemiring().contract(edges, e), counts)

    return jax.jvp(contract, (counts,), (d_counts,))


def _edges(weights: jax.Array) -> jax.Array:
    """1 where there is an edge of non-zero weight, 0 where not, NaN where nobody knows."""
    return jnp.where(jnp.isnan(weights), weights, (weights != 0).astype(weights.dtype))
