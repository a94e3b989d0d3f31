"""Native kernels for the CPU: the contractions of semirings that are no matrix product.

XLA compiles a contraction with ``max`` to loops that keep their results in memory; the kernels keep
them in registers, as a matrix product does, and there is nothing to compile. They are an
accelerator, never a requirement: where the extension is missing, on other devices and for other
dtypes the XLA form computes the same numbers.

The environment variable ``SEMIJAX_NATIVE``, read when semijax is imported, is ``off`` to do without
the kernels, or the instruction set to use: ``avx512``, ``avx2`` or ``baseline`` (otherwise the best
that the processor has).
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import PartitionSpec

_ARITIES = {"largest": 1, "hull": 2, "count": 1, "mean": 2, "entropy": 2}
"""The kernels, and how many arrays their elements are."""

LONGEST_LIST = 32
"""How many numbers an element may have at most."""

Arrays = tuple[jax.Array, ...]


def _load() -> ctypes.CDLL | None:
    """The extension with its kernels registered, or None where it can't be had."""
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
    for kernel in _ARITIES:
        function = jax.ffi.pycapsule(getattr(library, f"semijax_{kernel}"))
        jax.ffi.register_ffi_target(f"semijax_{kernel}", function, platform="cpu")
    return library


_wanted = os.environ.get("SEMIJAX_NATIVE", "")
_library = None if _wanted == "off" else _load()


def target() -> str | None:
    """The instruction set in use; None where there are no native kernels."""
    return _library.semijax_target().decode() if _library else None


def use(target: str) -> bool:
    """Use this instruction set from now on, if the processor has it."""
    return _library is not None and _library.semijax_use(target.encode())


if _wanted not in ("", "off") and not use(_wanted):
    raise ValueError(
        f"SEMIJAX_NATIVE={_wanted!r} is no instruction set that there are kernels for here; "
        f"unset, it is {target()!r}."
    )


def on_cpu(
    kernel: str, other: Callable[..., Arrays], weights: jax.Array, *elements: jax.Array
) -> Arrays:
    """``other(weights, *elements)``, computed by a kernel where it runs on the CPU.

    Args:
        kernel: its name: one of the kinds of contraction in ``contraction.h``.
        other: the same in XLA's operations.
        weights: floating array of shape ``[B, M, K]``.
        elements: arrays of shape ``[B, K, N]`` or ``[B, K, N, numbers]``.

    Returns:
        Arrays of shape ``[B, M, N]`` or ``[B, M, N, numbers]``.
    """
    if _library is None or not _supported(weights, *elements) or _partly_manual():
        return other(weights, *elements)
    return lax.platform_dependent(
        weights, *elements, cpu=_batchable(kernel), default=lambda *args: tuple(other(*args))
    )


def _supported(weights: jax.Array, *elements: jax.Array) -> bool:
    wide = {jnp.dtype(jnp.float32), jnp.dtype(jnp.float64)}
    narrow = {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16)}
    dtypes = {e.dtype for e in elements}
    return (
        len(dtypes) == 1
        and dtypes <= wide
        and weights.dtype in dtypes | narrow | {jnp.dtype(jnp.float32)}
        and all(e.ndim == 3 or e.shape[3] <= LONGEST_LIST for e in elements)
    )


def _partly_manual() -> bool:
    """Whether this is in a ``shard_map`` over some of the axes: no call is partitioned there."""
    mesh = jax.sharding.get_abstract_mesh()
    return 0 < len(mesh.manual_axes) < len(mesh.axis_names)


@functools.cache
def _batchable(kernel: str) -> Callable[..., Arrays]:
    """The kernel with a rule for ``vmap`` that computes one larger contraction."""

    @custom_vmap
    def call(weights: jax.Array, *elements: jax.Array) -> Arrays:
        return _partitioned(kernel, elements[0].ndim)(weights, *elements)

    @call.def_vmap
    def batched(axis_size: int, in_batched: Any, weights: jax.Array, *elements: jax.Array) -> Any:
        weights_batched, *elements_batched = in_batched
        n = axis_size
        if not any(elements_batched):  # more rows
            _, batch, rows, depth = weights.shape
            merged = jnp.moveaxis(weights, 0, 1).reshape(batch, n * rows, depth)
            found = [
                jnp.moveaxis(x.reshape(batch, n, rows, *x.shape[2:]), 1, 0)
                for x in call(merged, *elements)
            ]
            return tuple(found), (True,) * len(found)
        elements = tuple(
            e if is_batched else jnp.broadcast_to(e, (n, *e.shape))
            for e, is_batched in zip(elements, elements_batched, strict=True)
        )
        batch, depth, columns, *numbers = elements[0].shape[1:]
        if weights_batched:  # a larger batch
            merged = [x.reshape(n * batch, *x.shape[2:]) for x in (weights, *elements)]
            found = [x.reshape(n, batch, *x.shape[1:]) for x in call(*merged)]
        else:  # more columns
            merged = [
                jnp.moveaxis(e, 0, 2).reshape(batch, depth, n * columns, *numbers) for e in elements
            ]
            found = [
                jnp.moveaxis(x.reshape(*x.shape[:2], n, columns, *numbers), 2, 0)
                for x in call(weights, *merged)
            ]
        return tuple(found), (True,) * len(found)

    return call


@functools.cache
def _partitioned(kernel: str, rank: int) -> Callable[..., Arrays]:
    """The kernel with a rule for sharded operands: all axes may be, but the contracted one."""
    arity = _ARITIES[kernel]

    def call(weights: jax.Array, *elements: jax.Array) -> Arrays:
        batch, rows, _ = weights.shape
        _, _, *rest = elements[0].shape
        result = jax.ShapeDtypeStruct((batch, rows, *rest), elements[0].dtype)
        return tuple(jax.ffi.ffi_call(f"semijax_{kernel}", [result] * arity)(weights, *elements))

    def shardings(mesh: Any, batch: Any, rows: Any, columns: Any) -> tuple[Any, Any]:
        """Of operands and results; each device has all of the contracted axis and whole lists."""
        weights, elements, result = (
            jax.NamedSharding(mesh, PartitionSpec(*spec))
            for spec in ((batch, rows), (batch, None, columns), (batch, rows, columns))
        )
        return (weights, *(elements,) * arity), (result,) * arity

    def partition(mesh: Any, operands: Any, results: Any) -> Any:
        del operands
        batch, rows, columns, *_ = _spec(results[0])
        of_operands, of_results = shardings(mesh, batch, rows, columns)
        return mesh, call, of_results, of_operands

    def infer(mesh: Any, operands: Any, results: Any) -> Any:
        del results
        weights, elements, *_ = (_spec(x) for x in operands)
        return shardings(mesh, weights[0], weights[1], elements[2])[1]

    partitioned = custom_partitioning(call)
    numbers = " p" if rank == 4 else ""
    operands = ", ".join(["b m k"] + [f"b k n{numbers}"] * arity)
    results = ", ".join([f"b m n{numbers}"] * arity)
    partitioned.def_partition(
        partition,
        infer_sharding_from_operands=infer,  # for GSPMD; the rule is for Shardy
        sharding_rule=f"{operands} -> {results}",
        need_replication_factors=("k", *numbers.split()),
    )
    return partitioned


def _spec(aval: Any) -> tuple[Any, ...]:
    """Over which mesh axes an array is sharded, for three axes at least; over none, if unknown."""
    return (*getattr(aval.sharding, "spec", ()), None, None, None)
