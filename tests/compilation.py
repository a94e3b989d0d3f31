"""How to compile what runs once."""

from collections.abc import Callable
from typing import Any

import jax


def _quick_compilation() -> dict[str, Any]:
    # The second option halves the time where XLA still has it.
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:
        del options["xla_cpu_use_fusion_emitters"]
    return options


QUICK = _quick_compilation()


def quick_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.jit`` with little optimization."""
    return jax.jit(function, compiler_options=QUICK)
