"""Operations on elements on one device, under ``vmap``, and on arrays sharded over several.

A kernel, or a loop over blocks, is opaque to XLA: it would copy sharded operands to all devices. So
an operation says what its axes are, by letters as in ``jax.numpy.einsum``. An axis may be sharded
in any way; ⊕ over one that the result does not have is computed by each device over its part, and
the semiring's ``all_reduce`` joins the parts.
"""

from __future__ import annotations

import dataclasses
import functools
import string
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from semijax import elements as el
from semijax import native
from semijax.elements import Elements, Shape
from semijax.semirings.base import Semiring
from semijax.sharding import Arrays, partitioned, partly_manual


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation on the elements of arrays, and on arrays of weights.

    Attributes:
        compute: called with the semiring, the letters and the operands. It computes the result from
            all of the operands or, on one of several devices, from parts of them. Hashable.
        semiring: that of the elements.
        operands: the letters of the axes of each operand, without the trailing ones of elements.
        result: those of the result, which is elements. ⊕ is over the letters that it lacks.
        arrays: how many operands are arrays of weights; they come first, before elements.
    """

    compute: Callable[..., Elements]
    semiring: Semiring
    operands: tuple[str, ...]
    result: str
    arrays: int = 0

    def __call__(self, *operands: Any) -> Elements:
        """Compute the result."""
        return _on_devices(self, *operands)

    def here(self, *operands: Any) -> Elements:
        """Compute it where the operands are."""
        return self.compute(self.semiring, (*self.operands, self.result), *operands)

    def mapped(self, over: tuple[bool, ...]) -> Operation:
        """Return the operation with one more axis, the first one of the operands that have it."""
        letter = next(a for a in string.ascii_letters if all(a not in o for o in self.operands))
        operands = zip(over, self.operands, strict=True)
        return dataclasses.replace(
            self,
            operands=tuple(letter * has + letters for has, letters in operands),
            result=letter + self.result,
        )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _on_devices(operation: Operation, *operands: Any) -> Elements:
    if partly_manual() or not native.wanted():  # a program without kernels can be exported
        return operation.here(*operands)
    structures = tuple(map(jax.tree.structure, operands))
    return _partitioned(operation, structures)(*operands)


@_on_devices.defjvp
def _on_devices_jvp(operation: Operation, primals: Any, tangents: Any) -> Any:
    with native.off():  # XLA partitions its own operations
        _, derivative = jax.jvp(operation.here, primals, tangents)
    return _on_devices(operation, *primals), derivative


@functools.lru_cache(4096)
def _partitioned(operation: Operation, structures: tuple[Any, ...]) -> Callable[..., Elements]:
    elements, tree = jax.tree.flatten(operation.semiring.element_type())
    own = [tuple(f"own{n}x{a}" for a in range(x.ndim)) for n, x in enumerate(elements)]

    def axes(letters: str) -> list[tuple[str, ...]]:
        """Name the axes of the leaves of elements, also those that each owns."""
        return [(*letters, *names) for names in own]

    def call(*leaves: jax.Array) -> Arrays:
        parts = iter(leaves)
        operands = [s.unflatten([next(parts) for _ in range(s.num_leaves)]) for s in structures]
        return tuple(jax.tree.leaves(operation.here(*operands)))

    def join(parts: Arrays, names: Any) -> Arrays:
        joined = operation.semiring.all_reduce(tree.unflatten(parts), names)
        return tuple(jax.tree.leaves(joined))

    of_operands: list[tuple[str, ...]] = []
    for n, letters in enumerate(operation.operands):
        of_operands += [(*letters,)] if n < operation.arrays else axes(letters)
    whole = [name for names in own for name in names]
    of_leaves = partitioned(call, of_operands, axes(operation.result), join, whole)

    @custom_vmap
    def of_arrays(*operands: Any) -> Elements:
        return tree.unflatten(of_leaves(*jax.tree.leaves(operands)))

    @of_arrays.def_vmap
    def mapped(size: int, in_batched: Any, *operands: Any) -> Any:
        over = tuple(any(jax.tree.leaves(batched)) for batched in in_batched)

        def along_all(x: jax.Array, batched: bool, has: bool) -> jax.Array:
            return jnp.broadcast_to(x, (size, *x.shape)) if has and not batched else x

        operands = tuple(
            jax.tree.map(functools.partial(along_all, has=has), operand, batched)
            for operand, batched, has in zip(operands, in_batched, over, strict=True)
        )
        found = _partitioned(operation.mapped(over), structures)(*operands)
        return found, jax.tree.map(lambda _: True, found)

    return of_arrays


def sum_on_devices(semiring: Semiring, elements: Elements, axes: tuple[int, ...]) -> Elements:
    """Compute the ⊕ over some axes by the semiring's ``sum_here``."""
    letters = string.ascii_letters[: len(semiring.shape(elements))]
    left = "".join(a for n, a in enumerate(letters) if n not in axes)
    return Operation(_sum, semiring, (letters,), left)(elements)


def _sum(semiring: Any, letters: tuple[str, str], elements: Elements) -> Elements:
    before, after = letters
    return semiring.sum_here(elements, tuple(n for n, a in enumerate(before) if a not in after))


def add_on_devices(semiring: Semiring, a: Elements, b: Elements) -> Elements:
    """Compute the ⊕ of two by the semiring's ``add_here``."""
    letters = string.ascii_letters[: len(semiring.shape(a))]
    return Operation(_add, semiring, (letters, letters), letters)(a, b)


def scale_on_devices(semiring: Semiring, weights: jax.Array, elements: Elements) -> Elements:
    """Compute ``lift(weights) ⊗ elements`` by the semiring's ``scale_here``.

    XLA decides how to shard an array before it looks through the broadcast that gives the weights
    the trailing axes of elements. This tells it at once.
    """
    letters = string.ascii_letters[: weights.ndim]
    return Operation(_scale, semiring, (letters, letters), letters, arrays=1)(weights, elements)


def _add(semiring: Any, letters: tuple[str, ...], a: Elements, b: Elements) -> Elements:
    shapes = semiring.shape(a), semiring.shape(b)
    return semiring.add_here(*_repeated(letters, shapes, (a, b)))


def _scale(semiring: Any, letters: tuple[str, ...], w: jax.Array, elements: Elements) -> Elements:
    shapes = w.shape, semiring.shape(elements)
    return semiring.scale_here(*_repeated(letters, shapes, (w, elements)))


def _repeated(letters: tuple[str, ...], shapes: tuple[Shape, ...], operands: Any) -> list[Elements]:
    """Repeat each operand along the axes of the result that it does not have."""
    *given, result = letters
    sizes: dict[str, int] = {}
    for own, shape in zip(given, shapes, strict=True):
        sizes |= zip(own, shape, strict=True)
    repeated = []
    for own, shape, operand in zip(given, shapes, operands, strict=True):
        apart = tuple(sizes[letter] if letter in own else 1 for letter in result)
        whole = tuple(sizes[letter] for letter in result)
        repeated.append(el.broadcast_to(el.reshape(operand, shape, apart), apart, whole))
    return repeated
