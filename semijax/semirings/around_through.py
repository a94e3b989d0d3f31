"""Paths told apart: those with an edge in a part of the graph, and those without."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from semijax.elements import Elements, Shape
from semijax.semirings.base import Semiring
from semijax.semirings.wrapper import Wrapper


class Parts(NamedTuple):
    """The elements of the paths with no edge in the part, and of those with at least one."""

    around: Elements
    through: Elements


@dataclasses.dataclass(frozen=True)
class AroundThrough(Wrapper):
    """Another semiring, with an automaton of two states: not yet inside, and has been inside.

    An element is the pair ⟨a, t⟩ of what the paths around a part of the graph add up to, and those
    through it, each counted once however often it enters:

        ⟨a₁, t₁⟩ ⊕ ⟨a₂, t₂⟩ = ⟨a₁ ⊕ a₂, t₁ ⊕ t₂⟩
        ⟨a₁, t₁⟩ ⊗ ⟨a₂, t₂⟩ = ⟨a₁ ⊗ a₂, a₁ ⊗ t₂ ⊕ t₁ ⊗ (a₂ ⊕ t₂)⟩

    An edge of weight w is ⟨lift(w), 0̄⟩ outside the part and ⟨0̄, lift(w)⟩ inside.

    Attributes:
        of: the semiring.
        inside: whether an equation belongs to the part; hashable.

    Source: the intersection of a weighted graph with a finite automaton, Mohri 2002.
    """

    of: Semiring
    inside: Callable[[Any], bool]

    def wrapped(self) -> tuple[Semiring, ...]:
        return (self.of, self.of)

    def rewrapped(self, semirings: tuple[Semiring, ...]) -> Semiring:
        return dataclasses.replace(self, of=semirings[0])

    def split(self, elements: Parts) -> Sequence[Elements]:
        return elements

    def join(self, parts: Sequence[Any]) -> Parts:
        return Parts(*parts)

    def one(self, shape: Shape, dtype: Any) -> Parts:
        return Parts(self.of.one(shape, dtype), self.of.zero(shape, dtype))

    def lift(self, weights: jax.Array) -> Parts:
        return Parts(self.of.lift(weights), self.of.zero(weights.shape, weights.dtype))

    def mul(self, a: Parts, b: Parts) -> Parts:
        s = self.of
        through = s.add(s.mul(a.around, b.through), s.mul(a.through, s.add(*b)))
        return Parts(s.mul(a.around, b.around), through)

    def readout(self, elements: Parts) -> Any:
        return self.of.readout(elements.through)

    def log_size(self, elements: Parts) -> Any:
        return self.of.log_size(elements.through)

    def at(self, equation: Any) -> Semiring:
        there = self.of.at(equation)
        if not self.inside(equation):
            return AroundThrough(there, self.inside)
        return _Within(there, self.inside, outside=self.of)


@dataclasses.dataclass(frozen=True)
class _Within(AroundThrough):
    """The same on edges inside: any path that takes one has been there.

    Attributes:
        outside: the semiring whose 0̄ then stands for the paths around.
    """

    outside: Semiring = dataclasses.field(kw_only=True)

    def lift(self, weights: jax.Array) -> Parts:
        return self._entered(self.of.lift(weights))

    def scale(self, weights: jax.Array, elements: Parts) -> Parts:
        return self._entered(self.of.scale(weights, self.of.add(*elements)))

    def scale_selected(self, weights: jax.Array, selected: jax.Array, elements: Parts) -> Parts:
        together = self.of.add(*elements)
        return self._entered(self.of.scale_selected(weights, selected, together))

    def pass_through(self, elements: Parts) -> Parts:
        return self._entered(self.of.pass_through(self.of.add(*elements)))

    def contract(self, weights: jax.Array, elements: Parts) -> Parts:
        return self._entered(self.of.contract(weights, self.of.add(*elements)))

    def _entered(self, elements: Elements) -> Parts:
        none = self.outside.zero(self.of.shape(elements), self.of.dtype(elements))
        return Parts(none, elements)
