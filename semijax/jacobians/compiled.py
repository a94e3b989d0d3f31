"""Rules compiled on numbers, once for all equations that are alike."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.core

from semijax.trace.graph import Equation


class _SameOperation:
    """An equation that equals those with the same primitive, parameters and paths."""

    def __init__(self, equation: Equation) -> None:
        self.equation = equation
        self._key = equation.primitive, tuple(equation.params.items()), equation.wrt

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameOperation) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def compiled_on_numbers(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function from an equation and pytrees of arrays to a pytree of arrays.

    Where anything is already traced, it is just called.
    """

    @functools.partial(jax.jit, static_argnums=0)
    def compiled(alike: _SameOperation, *args: Any) -> Any:
        return rule(alike.equation, *args)

    @functools.wraps(rule)
    def on_numbers(equation: Equation, *args: Any) -> Any:
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args))
        alike = None if traced else _SameOperation(equation)
        if alike is None or not _is_hashable(alike):
            return rule(equation, *args)
        return compiled(alike, *args)

    return on_numbers


def _is_hashable(alike: _SameOperation) -> bool:
    """Tell whether all parameters are hashable."""
    try:
        hash(alike)
    except TypeError:
        return False
    return True
