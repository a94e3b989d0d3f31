"""Sums of sizes, carried as logarithms: nothing overflows or vanishes at any depth.

The mass of a 12-layer BERT's paths is beyond float32; its logarithm is 200. Contractions are
ordinary matrix products of numbers in a scale of their own; where a part of a sum falls below the
smallest number of that scale, the sum is computed again, term by term.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semijax import native
from semijax.elements import Elements, Shape
from semijax.semirings.base import Semiring
from semijax.semirings.blocks import DERIVATIVE_BLOCK, fold_sum
from semijax.semirings.devices import add_on_devices, sum_on_devices
from semijax.semirings.real import matmul, sum_over_blocks
from semijax.sharding import varying_like

Arrays = tuple[jax.Array, ...]
"""log Z, in nats, and, for semirings that have one, a statistic that ⊕ averages by the masses Z."""


class LogSumSemiring(Semiring):
    """The semiring (ℝ≥0, +, ×) in logarithms: ⊕ is log(e^a + e^b), ⊗ is +, 0̄ is −∞ and 1̄ is 0.

    The elements are an array, log Z in nats. A subclass that also carries a statistic has two,
    ⟨log Z, m⟩, see ``LogMassSemiring``; everything here is written for both.

    Attributes:
        kernel: the native kernel of its contraction.
        surprisal: whether ⊕ adds to the statistic the surprisal −log p of its share.
    """

    kernel: ClassVar[str]
    surprisal: ClassVar[bool] = False
    additive = True
    zero_weight_is_no_path = True

    def sizes(self, weights: jax.Array) -> jax.Array:
        """Return numbers whose absolute values are the edges' sizes: by default, the weights."""
        return weights

    def zero(self, shape: Shape, dtype: Any) -> Elements:
        return jnp.full(shape, -jnp.inf, dtype)

    def one(self, shape: Shape, dtype: Any) -> Elements:
        return jnp.zeros(shape, dtype)

    def lift(self, weights: jax.Array) -> Elements:
        return log_abs(self.sizes(weights))

    def add(self, a: Elements, b: Elements) -> Elements:
        arrays = self._arrays(a), self._arrays(b)
        if _by_kernel(self, *arrays):
            return add_on_devices(self, a, b)
        return self._elements(_add(self, *arrays))

    def add_here(self, a: Elements, b: Elements) -> Elements:
        return self._elements(_add(self, self._arrays(a), self._arrays(b)))

    def mul(self, a: Elements, b: Elements) -> Elements:
        return jax.tree.map(jnp.add, a, b)

    def scale(self, weights: jax.Array, elements: Elements) -> Elements:
        logs, *means = self._arrays(elements)
        return self._elements((log_abs(self.sizes(weights.astype(logs.dtype))) + logs, *means))

    def pass_through(self, elements: Elements) -> Elements:
        return elements

    def sum(self, elements: Elements, axes: tuple[int, ...]) -> Elements:
        arrays = self._arrays(elements)
        if native.sums(self.kernel, axes, *arrays):
            return sum_on_devices(self, elements, axes)
        return self._elements(_sum_by_xla(self, axes, *arrays))

    def sum_here(self, elements: Elements, axes: tuple[int, ...]) -> Elements:
        by_xla, arrays = functools.partial(_sum_by_xla, self, axes), self._arrays(elements)
        return self._elements(native.sum_on_cpu(self.kernel, by_xla, axes, *arrays))

    def contract(self, weights: jax.Array, elements: Elements) -> Elements:
        return self._elements(_contract(self, weights, self._arrays(elements)))

    def segment_sum(self, elements: Elements, segments: jax.Array, count: int) -> Elements:
        logs, *means = self._arrays(elements)
        kept = jnp.where((segments < 0) | (segments >= count), count, segments)
        largest = jnp.full(count + 1, -jnp.inf, logs.dtype).at[kept].max(logs)
        largest = lax.stop_gradient(_finite(largest))
        parts = _masses(self, logs - largest[kept], means)
        mass, *totals = (jnp.zeros(count + 1, logs.dtype).at[kept].add(x)[:count] for x in parts)
        return self._elements(_result(self, mass, totals, largest[:count]))

    def log_size(self, elements: Elements) -> jax.Array:
        return self._arrays(elements)[0]

    def is_zero(self, elements: Elements) -> jax.Array:
        return self.log_size(elements) == -jnp.inf

    def _arrays(self, elements: Elements) -> Arrays:
        return (elements,)

    def _elements(self, arrays: Sequence[jax.Array]) -> Elements:
        (logs,) = arrays
        return logs


def _masses(
    semiring: LogSumSemiring, logs: jax.Array, means: Sequence[jax.Array]
) -> Sequence[jax.Array]:
    """Return what is added up: Z, and Z · (m − log Z) or Z · m."""
    masses = jnp.exp(logs)
    surprisals = _finite(logs) if semiring.surprisal else 0
    return [masses, *(masses * (mean - surprisals) for mean in means)]


def _result(
    semiring: LogSumSemiring, mass: jax.Array, totals: Sequence[jax.Array], log_scale: jax.Array
) -> Arrays:
    """Turn sums of ``_masses``, in units of a scale, into log Z and m."""
    some = or_one(mass)
    means = [_quotient(total, some) for total in totals]
    if semiring.surprisal:
        means = [mean + jnp.log(some) for mean in means]
    return (log_abs(mass) + log_scale, *means)


def _sum_by_xla(semiring: LogSumSemiring, axes: tuple[int, ...], *arrays: jax.Array) -> Arrays:
    logs, *means = arrays
    largest = lax.stop_gradient(_finite(jnp.max(logs, axes, keepdims=True, initial=-jnp.inf)))
    mass, *totals = (x.sum(axes) for x in _masses(semiring, logs - largest, means))
    return _result(semiring, mass, totals, largest.squeeze(axes))


# ⊕ of two.


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _add(semiring: LogSumSemiring, a: Arrays, b: Arrays) -> Arrays:
    by_xla = functools.partial(_add_by_xla, semiring)
    if not _by_kernel(semiring, a, b):
        return by_xla(*a, *b)
    return native.add_on_cpu(semiring.kernel, by_xla, a, b)


def _by_kernel(semiring: LogSumSemiring, a: Arrays, b: Arrays) -> bool:
    """Tell whether a kernel adds these; what adds two single arrays, XLA fuses."""
    return len(a) > 1 and native.adds(semiring.kernel, a, b)


def _add_by_xla(semiring: LogSumSemiring, *numbers: jax.Array) -> Arrays:
    count = len(numbers) // 2
    (a, *means), (b, *others) = numbers[:count], numbers[count:]
    # With e = exp(−|log Z₁ − log Z₂|) the shares are 1 / (1 + e) and e / (1 + e), the logarithm of
    # the sum is max(log Z₁, log Z₂) + log(1 + e), and the entropy of the two shares
    # log(1 + e) + |log Z₁ − log Z₂| · e / (1 + e).
    t = _log_ratio(a, b)
    gap, first = jnp.abs(t), t > 0
    e = jnp.exp(-gap)
    more = 1 / (1 + e)
    less = e * more
    excess = jnp.log(1 + e)  # as exact as log1p, beside the maximum, and faster
    averaged = [
        jnp.where(first, more, less) * m + jnp.where(first, less, more) * n
        for m, n in zip(means, others, strict=True)
    ]
    if semiring.surprisal:
        averaged = [mean + excess + gap * less for mean in averaged]
    return (jnp.maximum(a, b) + excess, *averaged)


@_add.defjvp
def _add_jvp(semiring: LogSumSemiring, primals: Any, tangents: Any) -> tuple[Arrays, Arrays]:
    (a, *means), (b, *others) = primals
    (da, *d_means), (db, *d_others) = tangents
    t = _log_ratio(a, b)
    p, q = lax.logistic(t), lax.logistic(-t)
    dt = jnp.where(jnp.maximum(a, b) == -jnp.inf, 0, da - db)
    averaged = []
    for m, n, dm, dn in zip(means, others, d_means, d_others, strict=True):
        surplus = m - n - (t if semiring.surprisal else 0)
        averaged.append(p * dm + q * dn + p * q * surplus * dt)
    return _add(semiring, *primals), (p * da + q * db, *averaged)


def _log_ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute log Z₁ − log Z₂, bounded where one of them is infinite; 0 where both are."""
    bound = -2 * np.log(jnp.finfo(a.dtype).tiny)  # there the smaller share is 0
    return jnp.where(a == b, 0, lax.clamp(-bound, a - b, bound))


# Contractions.


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _contract(semiring: LogSumSemiring, weights: jax.Array, arrays: Arrays) -> Arrays:
    by_xla = functools.partial(_contract_by_xla, semiring)
    return native.on_cpu(semiring.kernel, by_xla, weights, *arrays)


def _contract_by_xla(semiring: LogSumSemiring, weights: jax.Array, *arrays: jax.Array) -> Arrays:
    logs, *means = arrays
    weights = semiring.sizes(weights.astype(logs.dtype))
    result, trusted = _scaled_contract(semiring, weights, arrays)
    if not (weights.size and logs.size):
        return result
    again = lax.cond(
        trusted.min() >= 1,
        lambda: trusted.min() < 1,  # False
        lambda: _lost(weights, logs, trusted),
    )
    # An infinite mass has no scale, and reads as NaN; term by term it is infinite. There is no
    # mean of infinite masses: there NaN is right, and the terms would give a number.
    unknown = jnp.isnan(result[0])
    again = again if means else again | unknown.any()
    # A loop of no steps, unless something was lost: unlike lax.cond, it stays so under vmap.
    exact = _looped_contract(semiring, weights, arrays, jnp.where(again, weights.shape[2], 0))
    replaced = again & ~unknown if means else again
    return tuple(jnp.where(replaced, x, y) for x, y in zip(exact, result, strict=True))


def _scaled_contract(
    semiring: LogSumSemiring, weights: jax.Array, arrays: Arrays
) -> tuple[Arrays, jax.Array]:
    """Contract by matrix products, rows and columns scaled to have a largest entry of 1.

    Returns the result, and how far it can be trusted: where less than 1, the products may have
    lost a part of the mass to underflow that is not small against the whole.
    """
    logs, *means = arrays
    row, column = _scales(weights, logs)
    alive = (row > 0) & (column > -jnp.inf)
    row, column = or_one(row), _finite(column)

    def products(w: jax.Array, parts: Sequence[jax.Array]) -> Sequence[jax.Array]:
        a = w * jnp.sign(w) / row  # |w|, with derivative 0 at 0
        mass, *totals = (matmul(a, x) for x in parts)
        if semiring.surprisal:
            totals = [total + matmul(_surprisal(a), parts[0]) for total in totals]
        return [mass, *totals]

    mass, *totals = sum_over_blocks(products, weights, _masses(semiring, logs - column, means))
    trusted = jnp.where(alive, mass / _least_trusted(weights), jnp.inf)
    return _result(semiring, mass, totals, jnp.log(row) + column), trusted


def _looped_contract(
    semiring: LogSumSemiring, weights: jax.Array, arrays: Arrays, count: Any
) -> Arrays:
    """Sum the first ``count`` terms one by one: slow, but there is no scale to fall below."""
    batch, rows, _ = weights.shape
    shape = (batch, rows, arrays[0].shape[2])

    def step(k: Any, total: Arrays) -> Arrays:
        w = lax.dynamic_slice_in_dim(weights, k, 1, 2)
        row = [lax.dynamic_slice_in_dim(leaf, k, 1, 1) for leaf in arrays]
        logs, *means = (jnp.broadcast_to(leaf, shape) for leaf in row)
        return _add(semiring, total, (log_abs(w) + logs, *means))

    nothing = jnp.full(shape, -jnp.inf, weights.dtype)
    nothing = varying_like((weights, arrays), nothing)
    means = [jnp.zeros_like(nothing)] * (len(arrays) - 1)
    return lax.fori_loop(0, count, step, (nothing, *means))


def _scales(weights: jax.Array, logs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return every row's largest weight, and the logarithm of every column's largest mass."""
    row = jnp.max(weights, 2, keepdims=True, initial=0)
    row = jnp.maximum(row, -jnp.min(weights, 2, keepdims=True, initial=0))
    return lax.stop_gradient((row, jnp.max(logs, 1, keepdims=True, initial=-jnp.inf)))


def _least_trusted(weights: jax.Array) -> float:
    """Return the least sum of terms of at most 1 beside which those that underflow don't matter."""
    info = jnp.finfo(weights.dtype)
    return float(info.tiny / info.eps) * max(1, weights.shape[2])


def _lost(weights: jax.Array, logs: jax.Array, trusted: jax.Array) -> jax.Array:
    """Tell whether an entry that can't be trusted has any path at all."""
    edges = (weights != 0).astype(weights.dtype)
    paths = matmul(edges, (logs != -jnp.inf).astype(weights.dtype))
    return jnp.max(jnp.where(trusted < 1, paths, 0), initial=0) > 0


@_contract.defjvp
def _contract_jvp(semiring: LogSumSemiring, primals: Any, tangents: Any) -> tuple[Arrays, Arrays]:
    (weights, arrays), (d_weights, d_arrays) = primals, tangents
    result = _contract(semiring, weights, arrays)
    dtype = result[0].dtype  # the weights' may be narrower
    sizes = jax.jvp(lambda w: semiring.sizes(w.astype(dtype)), (weights,), (d_weights,))
    # What a derivative by products needs is as large as the weights: it is made again, not kept.
    tangent = jax.checkpoint(functools.partial(_contract_tangent, semiring))
    return result, tangent((sizes[0], arrays), (sizes[1], d_arrays), result)


def _contract_tangent(
    semiring: LogSumSemiring, primals: Any, tangents: Any, result: Arrays
) -> Arrays:
    def scaled(weights: jax.Array, arrays: Arrays) -> Arrays:
        return _scaled_contract(semiring, weights, arrays)[0]

    weights, (logs, *_) = primals
    row, column = _scales(weights, logs)
    least = column + jnp.log(row) + np.log(_least_trusted(weights))
    return lax.cond(
        _anywhere((result[0] > -jnp.inf) & (result[0] < least)),
        lambda tangents: _looped_tangent(semiring, primals, tangents, result),
        lambda tangents: jax.jvp(scaled, primals, tangents)[1],
        tangents,
    )


@jax.custom_batching.custom_vmap
def _anywhere(flags: jax.Array) -> jax.Array:
    """Tell whether one of them holds; under vmap, whether one does anywhere in the batch.

    A ``lax.cond`` thus stays one under vmap. JAX would turn it into a select, which evaluates both
    branches and whose operands, being tangents, could then not be transposed.
    """
    return jnp.any(flags)


@_anywhere.def_vmap
def _anywhere_in_batch(
    size: int, batched: Sequence[bool], flags: jax.Array
) -> tuple[jax.Array, bool]:
    return _anywhere(flags), False


def _looped_tangent(
    semiring: LogSumSemiring, primals: Any, tangents: Any, result: Arrays
) -> Arrays:
    """Compute the derivative of a contraction term by term.

    With s the logarithms of the terms' masses and p their shares of the mass:
    d log Z = Σ p ds, and dm = Σ p dmₖ + Σ p (mₖ − m [− log p, for the entropy]) ds.
    """
    log_mass, *means = (x[:, :, None] for x in result)

    def term(start: Any, size: int) -> Sequence[jax.Array]:
        def block(w: jax.Array, arrays: Arrays) -> Arrays:
            w = lax.dynamic_slice_in_dim(w, start, size, 2)[..., None]
            here = (lax.dynamic_slice_in_dim(x, start, size, 1)[:, None] for x in arrays)
            logs, *means = here
            return (log_abs(w) + logs, *means)

        (logs, *own), (d_logs, *d_own) = jax.jvp(block, primals, tangents)
        log_share = jnp.where(logs == -jnp.inf, -jnp.inf, logs - log_mass)
        share = jnp.exp(log_share)
        surprisal = _finite(log_share) if semiring.surprisal else 0
        d_logs = jnp.where(share == 0, 0, d_logs)
        found = [share * d_logs]
        for mean, m, dm in zip(means, own, d_own, strict=True):
            found.append(share * (dm + (m - mean - surprisal) * d_logs))
        return [x.sum(2) for x in found]

    return tuple(fold_sum(primals[0].shape[2], term, DERIVATIVE_BLOCK))


# Numbers.


@jax.custom_jvp
def log_abs(weights: jax.Array) -> jax.Array:
    """Compute log|w|; −∞ at 0 with derivative 0 there (no mass, and no way to get any)."""
    return jnp.log(jnp.abs(weights))


@log_abs.defjvp
def _log_abs_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (weights,), (tangent,) = primals, tangents
    return log_abs(weights), jnp.where(weights == 0, 0, tangent) / or_one(weights)


@jax.custom_jvp
def _quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute ``a / b``; JAX's own derivative divides by b², which underflows long before b."""
    return a / b


@_quotient.defjvp
def _quotient_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (a, b), (da, db) = primals, tangents
    quotient = _quotient(a, b)
    return quotient, (da - quotient * db) / b


def _surprisal(p: jax.Array) -> jax.Array:
    """Compute −p log p, 0 at 0."""
    return -p * jnp.log(or_one(p))


def or_one(values: jax.Array) -> jax.Array:
    """Put 1 in place of 0: a divisor for where nothing is to be divided."""
    return jnp.where(values == 0, 1, values)


def _finite(logs: jax.Array) -> jax.Array:
    """Put 0 in place of ±∞: what −∞ is multiplied with, or scales, is 0, and ∞ has no scale."""
    return jnp.where(jnp.isinf(logs), 0, logs)
