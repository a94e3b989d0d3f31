"""A semiring whose operations are functions under ``jax.jit``, as a sweep uses it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax

from semijax.elements import Elements, Shape
from semijax.semirings.base import Semiring


@dataclasses.dataclass(frozen=True)
class Jitted(Semiring):
    """The same semiring, every operation of which is traced once for the shapes it meets.

    The equations of a model have few shapes and each needs several operations: tracing them anew
    for each would take longer than tracing the model.
    """

    inner: Semiring

    def zero(self, shape: Shape, dtype: Any) -> Elements:
        return self.inner.zero(shape, dtype)

    def one(self, shape: Shape, dtype: Any) -> Elements:
        return self.inner.one(shape, dtype)

    def lift(self, weights: jax.Array) -> Elements:
        return _call(self.inner, "lift", (), weights)

    def add(self, a: Elements, b: Elements) -> Elements:
        return _call(self.inner, "add", (), a, b)

    def mul(self, a: Elements, b: Elements) -> Elements:
        return _call(self.inner, "mul", (), a, b)

    def at(self, equation: Any) -> Semiring:
        return Jitted(self.inner.at(equation))

    def settle(self, elements: Elements) -> Elements:
        return self.inner.settle(elements)

    def scale(self, weights: jax.Array, elements: Elements) -> Elements:
        return _call(self.inner, "scale", (), weights, elements)

    def pass_through(self, elements: Elements) -> Elements:
        return self.inner.pass_through(elements)

    def sum(self, elements: Elements, axes: tuple[int, ...]) -> Elements:
        return _call(self.inner, "sum", (axes,), elements)

    def contract(self, weights: jax.Array, elements: Elements) -> Elements:
        return self.inner.contract(weights, elements)  # staged by who calls it

    def segment_sum(self, elements: Elements, segments: jax.Array, count: int) -> Elements:
        return _call(self.inner, "segment_sum", (count,), elements, segments)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _call(semiring: Semiring, operation: str, options: tuple[Any, ...], *operands: Any) -> Any:
    return getattr(semiring, operation)(*operands, *options)
