"""A function with some of its arrays closed to paths."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from jax import lax

from semijax import checks
from semijax.flow.replay import run_changed
from semijax.sites.program import Argnums, Program


def freeze(
    fun: Callable[..., Any], sites: str | Sequence[str], traced: Argnums = None
) -> Callable[..., Any]:
    """Block all paths through some arrays of a function; the arrays keep their values.

    ``freeze`` applies ``jax.lax.stop_gradient`` to arrays by name, without editing the model. With
    attention patterns and the scales of norms frozen, paths lead through values only and every
    layer is linear but for its activations, as in attribution graphs (Ameisen et al. 2025), AttnLRP
    (Achtibat et al. 2024) and RelP (Jafari et al. 2025).

    Args:
        fun: a function of arrays, or pytrees of arrays.
        sites: names or globs, see ``list_sites``: ``"*/attention/softmax"``, a ``tap``'s name.
        traced: the positions of the arguments that are traced, see ``list_sites``; all by default.
            Arguments that decide Python's control flow must not be among them.

    Returns:
        A function with the arguments and the result of ``fun``; it works under every JAX
        transformation, and its arrays keep their names. Between two runs (``Contrast``), a frozen
        array has the point's value in both; ``residuals`` reports the part of the difference that
        no path carries because of this.

    Raises:
        TypeError, ValueError: if a name or glob matches nothing.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sin(x) * x
        >>> print(sj.semiring_grad(sj.freeze(f, "sin"), sj.SumProduct())(2.0) == jnp.sin(2.0))
        True
    """
    checks.check_callable(fun)

    def frozen(*args: Any, **kwargs: Any) -> Any:
        call = Program(fun, args, kwargs, traced, caller="freeze")
        graph = call.graph([site.place for site in call.survey.choose(sites)])
        return run_changed(call, graph, lambda number, iterations, x: lax.stop_gradient(x))

    return functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"))(frozen)
