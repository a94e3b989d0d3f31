"""Operations on sharded arrays: each device computes a part, and the parts are joined."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import PartitionSpec

Arrays = tuple[jax.Array, ...]
Axes = tuple[str, ...]
"""A name for each axis of an array."""

NO_MESH = jax.sharding.AbstractMesh((), ())
"""The mesh of a program for one device."""

WIDE = [jax.numpy.dtype(name) for name in ("float64", "int64", "uint64", "complex128")]
"""The dtypes that JAX has in its 64-bit mode only."""


def partitioned(
    call: Callable[..., Arrays],
    operands: Sequence[Axes],
    results: Sequence[Axes],
    join: Callable[[Arrays, Any], Arrays],
    whole: Sequence[str] = (),
) -> Callable[..., Arrays]:
    """Say how an operation on arrays is computed on sharded ones.

    An axis that no result has is one that the operation sums over. Where it is sharded, each device
    sums over its own part.

    Args:
        call: the operation; it computes a part of the results from the parts of the operands.
        operands: the axes of each operand.
        results: those of each result.
        join: called with the sums over parts of an axis, and the mesh axes it is sharded over, on
            each of the devices. Returns the sums over the whole axis.
        whole: the axes that ``call`` needs whole.
    """

    def operation(*arrays: jax.Array) -> Arrays:
        program = jax.make_jaxpr(call)(*arrays)
        constants = program.consts  # JAX partitions nothing that closes over arrays

        def of_all(*everything: jax.Array) -> Arrays:
            own, given = everything[: len(constants)], everything[len(constants) :]
            closed = jax.extend.core.ClosedJaxpr(program.jaxpr, own)
            return tuple(jax.extend.core.jaxpr_as_fun(closed)(*given))

        def of_parts(*everything: jax.Array) -> Arrays:
            return call(*everything[len(constants) :])

        axes = [tuple(f"constant{n}x{a}" for a in range(c.ndim)) for n, c in enumerate(constants)]
        stays = (*whole, *itertools.chain(*axes))
        of_shards = _partitioned(of_all, of_parts, (*axes, *operands), results, join, stays)
        return of_shards(*constants, *arrays)

    return operation


def _partitioned(
    call: Callable[..., Arrays],
    of_parts: Callable[..., Arrays],
    operands: Sequence[Axes],
    results: Sequence[Axes],
    join: Callable[[Arrays, Any], Arrays],
    whole: Sequence[str],
) -> Callable[..., Arrays]:
    """Do the same for a ``call`` that closes over no array; ``of_parts`` computes it of parts."""
    kept = {axis for axes in results for axis in axes}
    lost = [axis for axis in dict.fromkeys(itertools.chain(*operands)) if axis not in kept]

    def shardings(mesh: Any, over: dict[str, Any]) -> tuple[Any, Any]:
        def of(axes: Axes) -> Any:
            return jax.NamedSharding(mesh, PartitionSpec(*(over.get(a) for a in axes)))

        return tuple(map(of, operands)), tuple(map(of, results))

    def partition(mesh: Any, given: Any, found: Any) -> Any:
        before = [_sharded(*each) for each in zip(operands, given, strict=True)]
        after = [_sharded(*each) for each in zip(results, found, strict=True)]
        sizes: dict[str, int] = {}
        for axes, array in zip(operands, given, strict=True):
            sizes |= zip(axes, array.shape, strict=True)

        def allowed(axis: str, mesh_axes: Any) -> bool:
            # What is summed over must not be padded.
            divides = sizes[axis] % math.prod(mesh.shape[a] for a in _names(mesh_axes)) == 0
            return axis not in whole and (axis not in lost or divides)

        # First what costs nothing to sum over: what lies in the same parts in all operands.
        alike = {}
        for axis in lost:
            own = [b.get(axis) for b, axes in zip(before, operands, strict=True) if axis in axes]
            if all(over == own[0] for over in own) and own[0] is not None:
                alike[axis] = own[0]
        over = _chosen([alike, *after, *before], allowed)
        summed = tuple(a for axis in lost for a in _names(over.get(axis)))

        def here(*parts: jax.Array) -> Arrays:
            # JAX calls this when it compiles, in whatever mode and under whatever mesh that is.
            wide = any(part.dtype in WIDE for part in parts)
            with jax.enable_x64(wide), jax.sharding.use_abstract_mesh(NO_MESH):
                sums = of_parts(*parts)
                return join(sums, summed) if summed else sums

        of_operands, of_results = shardings(mesh, over)
        return mesh, here, of_results, of_operands

    def infer(mesh: Any, given: Any, _: Any) -> Any:
        before = [_sharded(*each) for each in zip(operands, given, strict=True)]
        return shardings(mesh, _chosen(before, lambda axis, _: axis not in whole))[1]

    of_shards = custom_partitioning(call)
    rule = " -> ".join(", ".join(map(" ".join, side)) for side in (operands, results))
    of_shards.def_partition(
        partition,
        infer_sharding_from_operands=infer,  # for GSPMD; the rule is for Shardy
        sharding_rule=rule,
        need_replication_factors=tuple(whole),
    )
    return of_shards


def partly_manual() -> bool:
    """Tell whether this is in a ``shard_map`` over some axes: no call is partitioned there."""
    mesh = jax.sharding.get_abstract_mesh()
    return 0 < len(mesh.manual_axes) < len(mesh.axis_names)


def in_shard_map() -> bool:
    """Tell whether this is in a ``shard_map``."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def varying(array: Any) -> frozenset[Any]:
    """Return the mesh axes that an array varies over in ``shard_map``, as far as JAX checks it."""
    return frozenset(jax.typeof(array).mat.varying)


def varying_like(like: Any, arrays: Any) -> Any:
    """In ``shard_map``, let arrays vary over all mesh axes that any of the others varies over."""
    axes = frozenset().union(*map(varying, jax.tree.leaves(like)))

    def vary(array: Any) -> Any:
        missing = axes - varying(array)
        return lax.pcast(array, tuple(missing), to="varying") if missing else array

    return jax.tree.map(vary, arrays)


def _sharded(axes: Axes, array: Any) -> dict[str, Any]:
    """Return the mesh axes of each axis that is sharded."""
    spec = getattr(array.sharding, "spec", ())  # which may have fewer axes
    return {a: over for a, over in zip(axes, spec, strict=False) if over is not None}


def _chosen(
    wanted: Sequence[dict[str, Any]], allowed: Callable[[str, Any], bool]
) -> dict[str, Any]:
    """Shard each axis as the first who wants it does, and no two over one mesh axis."""
    chosen: dict[str, Any] = {}
    for each in wanted:
        for axis, over in each.items():
            used = {a for other in chosen.values() for a in _names(other)}
            if axis not in chosen and used.isdisjoint(_names(over)) and allowed(axis, over):
                chosen[axis] = over
    return chosen


def _names(mesh_axes: Any) -> tuple[str, ...]:
    if mesh_axes is None:
        return ()
    return mesh_axes if isinstance(mesh_axes, tuple) else (mesh_axes,)
