"""Native kernels for the CPU: the semiring contractions that are not matrix products.

XLA compiles a contraction with ``max`` to loops that keep their results in memory; the kernels keep
them in registers, as a matrix product does, and there is nothing to compile. They are an
accelerator, never a requirement: where the extension is missing, on other devices and for other
dtypes, the XLA form computes the same numbers. Derivatives are those of the XLA form.

The environment variable ``SEMIJAX_NATIVE``, read when semijax is imported, is ``off`` to do without
the kernels, or the instruction set to use: ``avx512``, ``avx2`` or ``baseline`` (otherwise the best
that the processor has).
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import importlib.util
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from semijax.native.calls import KERNELS, ColumnsFirst, contraction, summation
from semijax.sharding import Arrays, partly_manual

LONGEST_LIST = 32
"""The most numbers that an element may have."""


def _load() -> ctypes.CDLL | None:
    """Load the extension and register its kernels, or return None where it can't be had."""
    found = importlib.util.find_spec(f"{__name__}._contractions")  # beside this file or not
    try:
        if found is None or found.origin is None:
            raise OSError("it was not built")
        library = ctypes.CDLL(found.origin)
    except OSError as error:
        logging.getLogger(__name__).warning(
            "semijax runs without its native kernels, and several times slower on the CPU (%s). "
            "Where there is a C++17 compiler, pip install --force-reinstall --no-cache-dir "
            "--no-deps semijax builds them; SEMIJAX_NATIVE=off does without.",
            error,
        )
        return None
    library.semijax_use.restype = ctypes.c_bool
    library.semijax_target.restype = ctypes.c_char_p
    for kernel in KERNELS:
        function = jax.ffi.pycapsule(getattr(library, f"semijax_{kernel}"))
        jax.ffi.register_ffi_target(f"semijax_{kernel}", function, platform="cpu")
    return library


_wanted = os.environ.get("SEMIJAX_NATIVE", "")
_library = None if _wanted == "off" else _load()


def target() -> str | None:
    """Return the instruction set in use; None where there are no native kernels."""
    return _library.semijax_target().decode() if _library else None


def use(target: str) -> bool:
    """Use this instruction set from now on, if the processor has it."""
    return _library is not None and _library.semijax_use(target.encode())


if _wanted not in ("", "off") and not use(_wanted):
    raise ValueError(
        f"SEMIJAX_NATIVE={_wanted!r} is no instruction set with kernels here; "
        f"unset, it is {target()!r}."
    )


_layout: contextvars.ContextVar[ColumnsFirst] = contextvars.ContextVar("layout")


@contextlib.contextmanager
def laid_out(layout: ColumnsFirst) -> Iterator[None]:
    """Let contractions read and write arrays in this layout within the context.

    Only what is copied depends on it: XLA transposes arrays that lie in memory otherwise.
    """
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def layout() -> ColumnsFirst:
    """Return the layout that operands of a contraction have here."""
    return _layout.get(ColumnsFirst())


_off: contextvars.ContextVar[bool] = contextvars.ContextVar("off")


@contextlib.contextmanager
def off() -> Iterator[None]:
    """Do without kernels in what is traced within the context."""
    token = _off.set(True)
    try:
        yield
    finally:
        _off.reset(token)


def wanted() -> bool:
    """Tell whether to use kernels in what is traced here, if there are any."""
    return _wanted != "off" and not _off.get(False)


def on_cpu(
    kernel: str, other: Callable[..., Arrays], weights: jax.Array, *elements: jax.Array
) -> Arrays:
    """Compute the contraction ``other(weights, *elements)``, by a kernel where it runs on the CPU.

    Args:
        kernel: its name: one of the kinds of contraction in ``contraction.h``.
        other: the same in XLA's operations.
        weights: floating array of shape ``[B, M, K]``.
        elements: arrays of shape ``[B, K, N]`` or ``[B, K, N, numbers]``.

    Returns:
        Arrays of shape ``[B, M, N]`` or ``[B, M, N, numbers]``.
    """
    numbers = elements[0].shape[3:]
    if not _supported(elements, numbers, weights.dtype):
        return other(weights, *elements)
    order = layout()
    contract = contraction(kernel, order, len(numbers))

    def in_order(weights: jax.Array, *elements: jax.Array) -> Arrays:
        def swap(x: jax.Array) -> jax.Array:
            return x.swapaxes(1, 2) if order.elements else x

        weights = weights.swapaxes(1, 2) if order.weights else weights
        return tuple(map(swap, contract(weights, *map(swap, elements))))

    return _platform_dependent(in_order, other, weights, *elements)


def sum_on_cpu(
    kernel: str, other: Callable[..., Arrays], axes: tuple[int, ...], *elements: jax.Array
) -> Arrays:
    """Compute ``other(*elements)``, the ⊕ over some axes, by a kernel where it runs on the CPU.

    Args:
        kernel: that of the contraction which this is with weights of 1.
        other: the same in XLA's operations.
        axes: those axes, in ascending order.
        elements: arrays of any shape; those of ``"largest"`` have one more axis.
    """
    if not sums(kernel, axes, *elements):
        return other(*elements)
    lists = int(kernel == "largest")
    return _platform_dependent(summation(kernel, axes, elements[0].ndim, lists), other, *elements)


def sums(kernel: str, axes: tuple[int, ...], *elements: jax.Array) -> bool:
    """Tell whether a kernel sums over these axes of arrays of any shape, were it on the CPU."""
    own = elements[0].ndim - (kernel == "largest")
    columns = [n for a, n in enumerate(elements[0].shape[:own]) if a not in axes]
    return bool(axes) and _worthwhile(columns) and _supported(elements, elements[0].shape[own:])


def add_on_cpu(kernel: str, other: Callable[..., Arrays], a: Arrays, b: Arrays) -> Arrays:
    """Compute ``other(*a, *b)``, the ⊕ of two, by a kernel where it runs on the CPU."""
    if not adds(kernel, a, b):
        return other(*a, *b)
    add = summation(kernel, (0,), 1 + a[0].ndim, int(kernel == "largest"))

    def stacked(*both: jax.Array) -> Arrays:
        return add(*(jnp.stack(pair) for pair in zip(both[: len(a)], both[len(a) :], strict=True)))

    return _platform_dependent(stacked, other, *a, *b)


def adds(kernel: str, a: Arrays, b: Arrays) -> bool:
    """Tell whether a kernel adds these, were it on the CPU."""
    own = a[0].ndim - (kernel == "largest")
    same = [x.shape for x in a] == [x.shape for x in b]
    return same and _worthwhile(a[0].shape) and _supported((*a, *b), a[0].shape[own:])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _platform_dependent(
    kernel: Callable[..., Arrays], other: Callable[..., Arrays], *operands: jax.Array
) -> Arrays:
    if _library is None or _off.get(False) or partly_manual():
        return _in_xla(other, *operands)
    return lax.platform_dependent(*operands, cpu=kernel, default=functools.partial(_in_xla, other))


@_platform_dependent.defjvp
def _platform_dependent_jvp(kernel: Any, other: Any, primals: Any, tangents: Any) -> Any:
    _, derivative = jax.jvp(functools.partial(_in_xla, other), primals, tangents)
    return _platform_dependent(kernel, other, *primals), derivative


def _in_xla(other: Callable[..., Arrays], *operands: jax.Array) -> Arrays:
    with off():  # also what it calls
        return tuple(other(*operands))


def _worthwhile(columns: Sequence[int]) -> bool:
    """Tell whether there are enough columns for a vector of them."""
    return math.prod(columns) >= 8


def _supported(elements: Arrays, numbers: tuple[int, ...], weights: Any = jnp.float32) -> bool:
    dtypes = {e.dtype for e in elements}
    narrower = {jnp.dtype(t) for t in (jnp.float32, jnp.bfloat16, jnp.float16)}
    return (
        len(dtypes) == 1
        and dtypes <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.float64)}
        and jnp.dtype(weights) in dtypes | narrower
        and all(n <= LONGEST_LIST for n in numbers)
    )
