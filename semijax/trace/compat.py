"""Everything in JAX's jaxprs that semijax relies on, with all differences between versions.

The supported floor is 0.10.2; a difference that falls below it is deleted, not kept.
``tests/trace/test_jax_contracts.py`` pins all of it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.core
import jax.extend.core as jex_core
import numpy as np
from jax.sharding import NamedSharding

from semijax.trace.primitives import primitive, primitives

Literal = jex_core.Literal

_JAX_FILES = os.path.dirname(jax.__file__)


def open_jaxpr(jaxpr: Any) -> tuple[Any, list[Any]]:
    """Split a jaxpr into one without constants and the values of its constants.

    0.12: ``ClosedJaxpr is Jaxpr``; it carries its constants itself. Before, an open jaxpr (the body
    of ``remat``) and a closed one (that of ``jit``) were two types.
    """
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    return inner, list(getattr(jaxpr, "consts", ()))


def bind(equation: Any, *values: Any, mesh: Any = None) -> list[Any]:
    """Evaluate one equation of a jaxpr; return one value per output.

    It runs on the mesh of devices that it was traced for, or on another.
    """
    params, elsewhere = equation.params, contextlib.nullcontext()
    if mesh is not None:
        elsewhere = jax.sharding.use_abstract_mesh(mesh)
        params = {k: None if isinstance(v, NamedSharding) else v for k, v in params.items()}
    params = equation.primitive.get_bind_params(params)
    with equation.ctx.manager, elsewhere:
        outputs = equation.primitive.bind(*values, **params)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


_ENDED: weakref.WeakSet[Any] = weakref.WeakSet()
"""Traces that have ended but are still referred to: a rule closes over one of their arrays."""


def trace_of(tracers: Sequence[Any]) -> Any:
    """Return the trace that JAX traces a function with, given the function's arguments."""
    return next((getattr(t, "_trace", None) for t in tracers if _is_tracer(t)), None)


def end(trace: Any) -> None:
    """Remember that a trace has ended, for as long as anything refers to it."""
    if trace is not None:
        _ENDED.add(trace)


def is_left_over(value: Any) -> bool:
    """Tell whether a value is an array of a trace that has ended: it never had a number."""
    return bool(_ENDED) and _is_tracer(value) and getattr(value, "_trace", None) in _ENDED


def any_left_over() -> bool:
    """Tell whether anything may still refer to such a value."""
    return bool(_ENDED)


def _is_tracer(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def literal(atom: Any) -> Any:
    """Return the value of a literal, in the literal's dtype.

    It may hold a Python number, which would be weakly typed outside its jaxpr.
    """
    if isinstance(atom.val, (bool, int, float, complex, np.ndarray, np.generic)):
        return np.asarray(atom.val, atom.aval.dtype)
    return atom.val


def is_internal_to_jax(jaxpr: Any) -> bool:
    """Tell whether a jaxpr belongs to one of the functions that JAX itself consists of."""
    return _JAX_FILES in str(getattr(open_jaxpr(jaxpr)[0].debug_info, "func_src_info", ""))


def scan_layout(params: dict[str, Any]) -> tuple[int, int]:
    """Return the numbers of constants and of carried values of a ``scan`` equation.

    0.12: ``num_consts`` and ``num_carry`` became the lengths of the first parts of ``ft_in``.
    """
    if "ft_in" in params:
        consts, carry, _ = params["ft_in"].unpack()
        return len(consts), len(carry)
    return params["num_consts"], params["num_carry"]


SHARD_MAP = primitive("shard_map")

_WITHOUT_EFFECT = primitives("ppermute", "pbroadcast")
"""Collectives whose equations name their axis only in a parameter."""

_UNNOTICED = {
    "NamedAxisEffect",  # a collective: it has to run wherever the axis is mapped
    "InternalMutableArrayEffect",  # an array reference is made or frozen
}
"""Effects that are JAX's own bookkeeping."""


def has_effects(equation: Any, made_here: Callable[[Any], bool]) -> bool:
    """Tell whether an equation has effects that would be noticed if it ran twice.

    Args:
        equation: an equation of a jaxpr.
        made_here: whether a variable, a mutable array reference, was made in that jaxpr.
    """
    return any(
        not made_here(effect.input)
        if hasattr(effect, "input")  # reading or writing of a reference
        else type(effect).__name__ not in _UNNOTICED
        for effect in equation.effects
    )


def acts_on_references(equation: Any) -> bool:
    """Tell whether an equation reads or writes mutable array references that it is given."""
    return any(hasattr(effect, "input") for effect in equation.effects)


def varies_over(aval: Any, mesh: Any) -> tuple[Any, ...]:
    """Return the mesh axes that an array in a ``shard_map`` varies over, according to its type."""
    return tuple(name for name in mesh.axis_names if name in aval.mat.varying)


def explicit_axes(jaxpr: Any) -> tuple[Any, ...]:
    """Return the mesh axes that arrays of a jaxpr are sharded over by their types."""
    variables = [*jaxpr.invars, *(v for equation in jaxpr.eqns for v in equation.outvars)]
    specs = [getattr(variable.aval, "sharding", None) for variable in variables]
    axes = [axis for sharding in specs if sharding is not None for axis in sharding.spec]
    names = [a if isinstance(a, tuple) else (a,) for a in axes if a is not None]
    return tuple(dict.fromkeys(itertools.chain(*names)))


def has_in_common(equation: Any, names: Iterable[Any]) -> bool:
    """Tell whether the members of named axes have an output in common, but not the input.

    JAX knows this where the axes are mapped by ``shard_map`` with ``check_vma``.
    """
    before, after = (v[0].aval.mat.varying for v in (equation.invars, equation.outvars))
    return not before.isdisjoint(names) and after.isdisjoint(names)


def collectives(
    jaxpr: Any, bound: frozenset[Any] = frozenset()
) -> Iterator[tuple[str, frozenset[Any]]]:
    """Yield the equations by which members of axes that are mapped outside exchange anything.

    Args:
        jaxpr: where to look.
        bound: the axes that are mapped within, and not outside.

    Yields:
        The name of each one's primitive, and those axes.
    """
    for equation in open_jaxpr(jaxpr)[0].eqns:
        inner = list(jex_core.jaxprs_in_params(equation.params))
        mapped = equation.params["newly_manual_axes"] if equation.primitive is SHARD_MAP else ()
        for each in inner:
            yield from collectives(each, bound.union(mapped))
        if not inner and equation.primitive is not primitive("axis_index"):
            names = {e.name for e in equation.effects if type(e).__name__ == "NamedAxisEffect"}
            if equation.primitive in _WITHOUT_EFFECT:
                own = equation.params["axis_name"]
                names.update(own if isinstance(own, tuple) else (own,))
            if not names <= bound:
                yield equation.primitive.name, frozenset(names - bound)


INLINED = {
    known: parameter
    for name, parameter in {
        "jit": "jaxpr",
        "closed_call": "call_jaxpr",
        "eval_jaxpr": "jaxpr",  # 0.12: the new name of closed_call
        "call": "call_jaxpr",
        "remat2": "jaxpr",
        "composite": "jaxpr",
        "custom_vmap_call": "call",
    }.items()
    for known in primitives(name)
}
"""Primitives that only call a jaxpr, each with the parameter it is in."""


def is_checkpoint(equation: Any) -> bool:
    """Tell whether an equation calls what ``jax.checkpoint`` wraps, kept apart from the rest.

    With ``prevent_cse=False``, XLA may find that a value is computed twice, and keeps it instead.
    """
    if equation.primitive not in primitives("remat2"):
        return False
    prevent_cse = equation.params["prevent_cse"]  # of everything, or of each operand
    return any(prevent_cse) if isinstance(prevent_cse, tuple) else prevent_cse


def is_kept(checkpoint: Any, equation: Any) -> bool:
    """Tell whether the policy of a call of ``jax.checkpoint`` keeps what an equation computes.

    What it moves to other memory counts as kept.
    """
    policy = checkpoint.params["policy"]
    if policy is None:
        return False
    found = policy(equation.primitive, *(v.aval for v in equation.invars), **equation.params)
    return found if isinstance(found, bool) else type(found).__name__ != "RecomputeType"


ATOMIC = "sj.atomic:"
"""The beginning of the name of a jitted function that is to stay one node."""


def is_atomic(equation: Any) -> bool:
    """Tell whether an equation is a function that ``semijax.atomic`` made one node."""
    return equation.primitive is primitive("jit") and equation.params["name"].startswith(ATOMIC)


def called_jaxpr(equation: Any) -> Any | None:
    """Return the jaxpr an equation merely calls; None if it does more or is to stay one node."""
    if equation.primitive not in INLINED or is_atomic(equation):
        return None
    params = equation.params
    # 0.12: composite's parameter became call_jaxpr.
    keys = (INLINED[equation.primitive], "call_jaxpr", "jaxpr")
    return next(params[key] for key in keys if key in params)


CUSTOM_DERIVATIVES = primitives("custom_jvp_call", "custom_vjp_call")
"""The primitives of functions with a derivative of their own."""


def custom_derivative_name(equation: Any) -> str | None:
    """Return the name of a function with a derivative of its own, where it has one; else None."""
    if equation.primitive not in CUSTOM_DERIVATIVES:
        return None
    name = open_jaxpr(equation.params["call_jaxpr"])[0].debug_info.func_name
    return name if name.isidentifier() else None  # not "<lambda>"


def scopes_entered(equation: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names on the stack of an equation, from the outside in, without transformations.

    Each comes with a key that tells one entry of the scope from the next.
    """
    for entry in equation.source_info.name_stack.stack:
        if type(entry).__name__ == "Scope":  # not a Transform: vmap(…), jvp(…)
            yield entry.name, id(entry)


def maps_entered(equation: Any) -> Iterator[int]:
    """Yield the calls of ``vmap`` on the stack of an equation, from the outside in.

    Each is a key that tells one call from the next.
    """
    for entry in equation.source_info.name_stack.stack:
        if type(entry).__name__ == "Transform" and entry.name == "vmap":
            yield id(entry)
