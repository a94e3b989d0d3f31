"""A semiring whose operations are functions under ``jax.jit``, as a sweep uses it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax

from semijax.elements import Elements
from semijax.semirings.base import Semiring
from semijax.semirings.wrapper import Wrapper

STAGED = {"lift", "add", "mul", "scale", "scale_selected", "sum", "segment_sum"}
"""The operations to trace once.

The others are constants or cost next to nothing, and contractions are staged by their callers.
"""


@dataclasses.dataclass(frozen=True)
class Jitted(Wrapper):
    """The same semiring, with every operation traced once for the shapes it meets.

    The equations of a model have few shapes and each needs several operations: tracing them anew
    for each would take longer than tracing the model.
    """

    inner: Semiring

    def wrapped(self) -> tuple[Semiring, ...]:
        return (self.inner,)

    def rewrapped(self, semirings: tuple[Semiring, ...]) -> Semiring:
        return Jitted(*semirings)

    def split(self, elements: Elements) -> Sequence[Elements]:
        return (elements,)

    def join(self, parts: Sequence[Any]) -> Any:
        (only,) = parts
        return only

    def __str__(self) -> str:
        return str(self.inner)

    def _call(self, semiring: Semiring, operation: str, operands: Any, static: int) -> Any:
        if operation not in STAGED:
            return super()._call(semiring, operation, operands, static)
        arrays = len(operands) - static
        return _staged(semiring, operation, operands[arrays:], *operands[:arrays])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _staged(semiring: Semiring, operation: str, options: tuple[Any, ...], *operands: Any) -> Any:
    return getattr(semiring, operation)(*operands, *options)
