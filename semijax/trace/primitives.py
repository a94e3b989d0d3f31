"""JAX's primitives, as objects.

Everything semijax knows about a primitive is tied to the object. A name alone says nothing: a
user's own primitive may well be called ``neg``, or ``scan``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.extend.core as jex_core
import jax.extend.core.primitives as jex_primitives
import jax.numpy as jnp
from jax import lax, ref
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

Primitive = jex_core.Primitive


def _reshard(x: Any) -> Any:
    mesh = AbstractMesh((1,), ("x",), axis_types=(AxisType.Explicit,))
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.sharding.reshard(x, PartitionSpec("x"))


def _custom_vmap(x: Any) -> Any:
    function = jax.custom_batching.custom_vmap(jnp.sin)
    function.def_vmap(lambda size, batched, x: (jnp.sin(x), True))
    return function(x)


def _reference(x: Any) -> Any:
    reference = jax.new_ref(x)
    ref.addupdate(reference, ..., x)
    frozen = jax.freeze(reference)
    jax.free_ref(jax.new_ref(x))
    return frozen


def _over_a_mesh(x: Any) -> Any:
    mesh = AbstractMesh((1,), ("i",), axis_types=(AxisType.Auto,))

    def checked(x: Any) -> Any:
        everyone = lax.all_gather(x, "i", to="invarying")
        return lax.pcast(lax.psum(x, "i") + everyone[0], "i", to="varying")

    def unchecked(x: Any) -> Any:
        return lax.psum_scatter(lax.pbroadcast(x, "i", 0), "i", tiled=True)

    specs: dict[str, Any] = {"in_specs": PartitionSpec("i"), "out_specs": PartitionSpec("i")}
    y = jax.shard_map(checked, mesh=mesh, **specs)(x)
    return jax.shard_map(unchecked, mesh=mesh, check_vma=False, **specs)(y)


_EXAMPLES: Mapping[str, Callable[[Any], Any]] = {
    "addupdate": _reference,
    "all_gather_invariant": _over_a_mesh,
    "composite": lambda x: lax.composite(jnp.sin, "example")(x),
    "custom_vmap_call": _custom_vmap,
    "free_ref": _reference,
    "freeze": _reference,
    "log2": jnp.log2,
    "new_ref": _reference,
    "one_minus_square": lambda x: jax.vjp(jnp.tanh, x)[1](x),
    "ragged_dot_general": lambda x: lax.ragged_dot(x[:, None], x[None, None], jnp.array([3])),
    "pbroadcast": _over_a_mesh,
    "psum_invariant": _over_a_mesh,
    "pvary": _over_a_mesh,
    "reduce_scatter": _over_a_mesh,
    "reshard": _reshard,
    "shard_map": _over_a_mesh,
}
"""Functions whose jaxprs contain primitives that JAX gives no public name."""

ONE_VERSION_ONLY = {
    "call",  # gone in 0.12
    "closed_call",  # 0.12: eval_jaxpr
    "eval_jaxpr",
    "log2",  # from 0.12 on; before, jnp.log2 was a quotient
    "one_minus_square",  # from 0.12 on, in the derivative of tanh
}
"""Names that only one of the supported versions of JAX has."""


def _public() -> Iterator[tuple[str, Primitive]]:
    for module in (lax, jex_primitives):
        for value in vars(module).values():
            if isinstance(value, Primitive):
                yield value.name, value


def _found_in_examples() -> Iterator[tuple[str, Primitive]]:
    x = jax.ShapeDtypeStruct((3,), jnp.float32)

    def examples(x: Any) -> Any:  # traced together, which is faster
        return [function(x) for function in dict.fromkeys(_EXAMPLES.values())]

    for equation in _all_equations(jax.make_jaxpr(examples)(x)):
        if equation.primitive.name in _EXAMPLES:
            yield equation.primitive.name, equation.primitive


def _all_equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jex_core.jaxprs_in_params(equation.params):
            yield from _all_equations(inner)


_BY_NAME: dict[str, Primitive] = {**dict(_found_in_examples()), **dict(_public())}


def primitives(*names: str) -> tuple[Primitive, ...]:
    """Return JAX's primitives of these names, except those this version of JAX does not have."""
    missing = [name for name in names if name not in _BY_NAME and name not in ONE_VERSION_ONLY]
    assert not missing, missing
    return tuple(_BY_NAME[name] for name in names if name in _BY_NAME)


def primitive(name: str) -> Primitive:
    """Return JAX's primitive of this name."""
    return _BY_NAME[name]
