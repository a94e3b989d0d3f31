"""What semijax rests on in JAX's jaxprs, and every difference between versions of it.

The supported floor is 0.10.2; a difference that falls below it is deleted, not kept.
``tests/trace/test_jax_contracts.py`` pins all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.extend.core as jex_core

from semijax.trace.primitives import primitive, primitives

Literal = jex_core.Literal


def open_jaxpr(jaxpr: Any) -> tuple[Any, list[Any]]:
    """A jaxpr without constants and the values of its constants.

    0.12: ``ClosedJaxpr is Jaxpr``; it carries its constants itself. Before, an open jaxpr (the body
    of ``remat``) and a closed one (that of ``jit``) were two types.
    """
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    return inner, list(getattr(jaxpr, "consts", ()))


def bind(equation: Any, *values: Any) -> list[Any]:
    """Evaluate one equation of a jaxpr; one value per output."""
    params = equation.primitive.get_bind_params(equation.params)
    with equation.ctx.manager:
        outputs = equation.primitive.bind(*values, **params)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def scan_layout(params: dict[str, Any]) -> tuple[int, int]:
    """The numbers of constants and of carried values of a ``scan`` equation.

    0.12: ``num_consts`` and ``num_carry`` became the lengths of the first parts of ``ft_in``.
    """
    if "ft_in" in params:
        consts, carry, _ = params["ft_in"].elts
        return len(consts), len(carry)
    return params["num_consts"], params["num_carry"]


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
"""Primitives that only call a jaxpr, and the parameter it is in."""

ATOMIC = "sj.atomic:"
"""What the name of a jitted function begins with when it is to stay one node."""


def is_atomic(equation: Any) -> bool:
    """Whether an equation is a function that ``semijax.atomic`` made one node."""
    return equation.primitive is primitive("jit") and equation.params["name"].startswith(ATOMIC)


def called_jaxpr(equation: Any) -> Any | None:
    """The jaxpr that an equation merely calls; None if it does more, or is to stay one node."""
    if equation.primitive not in INLINED or is_atomic(equation):
        return None
    params = equation.params
    # 0.12: composite's parameter became call_jaxpr.
    keys = (INLINED[equation.primitive], "call_jaxpr", "jaxpr")
    return next(params[key] for key in keys if key in params)


def scopes_entered(equation: Any) -> Iterator[tuple[str, Any]]:
    """The names on the stack of an equation, from the outside in, but not the transformations'.

    Each comes with what tells one time that the scope was entered from the next.
    """
    for entry in equation.source_info.name_stack.stack:
        if type(entry).__name__ == "Scope":  # not a Transform: vmap(…), jvp(…)
            yield entry.name, id(entry)
