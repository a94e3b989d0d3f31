"""Semirings made of other semirings: every operation is theirs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from semijax.elements import Elements, Shape
from semijax.semirings.base import Names, Semiring


class Wrapper(Semiring):
    """A semiring whose elements are parts, each an element of another semiring.

    Every operation is forwarded to the semirings of the parts, and so is whatever they override for
    speed. A subclass says which these are and how elements are taken apart; it overrides what it
    does differently.
    """

    def wrapped(self) -> tuple[Semiring, ...]:
        """Return the semiring of each part."""
        raise NotImplementedError

    def rewrapped(self, semirings: tuple[Semiring, ...]) -> Semiring:
        """Return the same wrapper around others."""
        raise NotImplementedError

    def split(self, elements: Elements) -> Sequence[Elements]:
        """Return the parts of elements."""
        raise NotImplementedError

    def join(self, parts: Sequence[Any]) -> Any:
        """Join the parts to elements, or to what is made of them."""
        raise NotImplementedError

    def _call(self, semiring: Semiring, operation: str, operands: Any, static: int) -> Any:
        """Call an operation of one semiring; the last ``static`` operands are not arrays."""
        del static
        return getattr(semiring, operation)(*operands)

    def _forward(
        self, operation: str, *operands: Any, elements: Sequence[int] = (), static: int = 0
    ) -> Sequence[Any]:
        """Return what each of the semirings makes of its part of the operands.

        Args:
            operation: the method.
            *operands: its arguments.
            elements: the positions of those that are elements.
            static: how many, at the end, are not arrays.
        """
        columns = [
            self.split(operand) if n in elements else [operand] * len(self.wrapped())
            for n, operand in enumerate(operands)
        ]
        rows = zip(*columns, strict=True)
        return [
            self._call(s, operation, row, static)
            for s, row in zip(self.wrapped(), rows, strict=True)
        ]

    def zero(self, shape: Shape, dtype: Any) -> Elements:
        return self.join(self._forward("zero", shape, dtype, static=2))

    def one(self, shape: Shape, dtype: Any) -> Elements:
        return self.join(self._forward("one", shape, dtype, static=2))

    def lift(self, weights: jax.Array) -> Elements:
        return self.join(self._forward("lift", weights))

    def add(self, a: Elements, b: Elements) -> Elements:
        return self.join(self._forward("add", a, b, elements=(0, 1)))

    def mul(self, a: Elements, b: Elements) -> Elements:
        return self.join(self._forward("mul", a, b, elements=(0, 1)))

    def readout(self, elements: Elements) -> Any:
        return self.join(self._forward("readout", elements, elements=(0,)))

    def log_size(self, elements: Elements) -> Any:
        return self.join(self._forward("log_size", elements, elements=(0,)))

    def is_zero(self, elements: Elements) -> jax.Array:
        return functools.reduce(jnp.logical_and, self._forward("is_zero", elements, elements=(0,)))

    def at(self, equation: Any) -> Semiring:
        return self.rewrapped(tuple(self._forward("at", equation, static=1)))

    def settle(self, elements: Elements) -> Elements:
        return self.join(self._forward("settle", elements, elements=(0,)))

    def by_operation(self, absent: bool = False) -> Semiring:
        return self.rewrapped(tuple(self._forward("by_operation", absent, static=1)))

    def scale(self, weights: jax.Array, elements: Elements) -> Elements:
        return self.join(self._forward("scale", weights, elements, elements=(1,)))

    def scale_selected(
        self, weights: jax.Array, selected: jax.Array, elements: Elements
    ) -> Elements:
        operands = weights, selected, elements
        return self.join(self._forward("scale_selected", *operands, elements=(2,)))

    def pass_through(self, elements: Elements) -> Elements:
        return self.join(self._forward("pass_through", elements, elements=(0,)))

    def sum(self, elements: Elements, axes: tuple[int, ...]) -> Elements:
        return self.join(self._forward("sum", elements, axes, elements=(0,), static=1))

    def contract(self, weights: jax.Array, elements: Elements) -> Elements:
        return self.join(self._forward("contract", weights, elements, elements=(1,)))

    def all_reduce(self, elements: Elements, names: Names) -> Elements:
        return self.join(self._forward("all_reduce", elements, names, elements=(0,), static=1))

    def segment_sum(self, elements: Elements, segments: jax.Array, count: int) -> Elements:
        operands = elements, segments, count
        return self.join(self._forward("segment_sum", *operands, elements=(0,), static=1))

    # What holds for all of them; where they differ, the default.

    def _common(self, attribute: str) -> Any:
        found = {getattr(semiring, attribute) for semiring in self.wrapped()}
        return found.pop() if len(found) == 1 else getattr(Semiring, attribute)

    @property
    def units(self) -> str | None:
        return self._common("units")

    @property
    def additive(self) -> bool:
        return self._common("additive")

    @property
    def zero_weight_is_no_path(self) -> bool:
        return self._common("zero_weight_is_no_path")

    @property
    def best(self) -> Any:
        return self._common("best")

    @property
    def size_of(self) -> str | None:
        return self._common("size_of")
