"""What happens without it: a function run with some of its arrays replaced."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from semijax import checks
from semijax.flow.program import Argnums, Program
from semijax.flow.replay import replay
from semijax.flow.sites import Site

VALUES = ("zero", "mean")


def site_values(
    fun: Callable[..., Any], sites: str | Sequence[str], argnums: Argnums = None
) -> Callable[..., dict[str, jax.Array]]:
    """The values of intermediate arrays of a function: its activations.

    Args:
        fun: a function of arrays, or pytrees of arrays.
        sites: names or globs, see ``list_sites``.
        argnums: which arguments are traced; all floating point numbers by default.

    Returns:
        A function with the arguments of ``fun`` that returns a dict from names to arrays, with a
        first axis for each ``scan`` they lie in; zeros in a branch that was not taken.

    Raises:
        TypeError, ValueError: if a name or glob matches nothing; ValueError too for an array in a
            ``while_loop``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> print(sj.site_values(lambda x: jnp.exp(jnp.sin(x)), "sin")(0.0)["sin"])
        0.0
    """
    checks.check_callable(fun)

    def values(*args: Any, **kwargs: Any) -> dict[str, jax.Array]:
        call = Program(fun, args, kwargs, argnums, caller="site_values")
        chosen = call.survey.choose(sites)
        found = _values(call, chosen)
        return {site.name: found[n] for n, site in enumerate(chosen)}

    return values


def ablate(
    fun: Callable[..., Any],
    sites: str | Sequence[str],
    value: Any = "zero",
    argnums: Argnums = None,
    *,
    where: Any = None,
) -> Callable[..., Any]:
    """A function with some of its intermediate arrays replaced; all that reads them is run anew.

    Args:
        fun: a function of arrays, or pytrees of arrays.
        sites: names or globs, see ``list_sites``; ``"*/layer_3"`` is what comes out of a module.
        value: what to replace them with: ``"zero"``; ``"mean"``, the mean over all axes of the
            array but the last, in the same call: of every hidden unit over examples, tokens and
            iterations; an array that broadcasts to the site, as a mean over a data set; or a
            mapping from names to any of these.
        argnums: which arguments are traced; all floating point numbers by default. What decides the
            control flow in Python must not be.
        where: what to replace of them: a boolean array, or a mapping from names to such, whose axes
            are the site's first; True where to replace. Everything by default.

    Returns:
        A function with the arguments and the result of ``fun``, under every JAX transformation.

    Raises:
        TypeError: if ``value`` or ``where`` is something else.
        ValueError: if a name or glob matches nothing, an array does not fit its site, or the mean
            is asked for where there is nothing to average: of a single vector, or in a
            ``while_loop``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sin(x) + 3 * x
        >>> print(sj.ablate(f, "sin")(1.0), sj.ablate(f, "sin", jnp.float32(10))(1.0))
        3.0 13.0
    """
    checks.check_callable(fun)
    _check_value(value)

    def ablated(*args: Any, **kwargs: Any) -> Any:
        call = Program(fun, args, kwargs, argnums, caller="ablate")
        chosen = call.survey.choose(sites)
        values = [_of_site(value, site, "value") for site in chosen]
        masks = [_of_site(where, site, "where") for site in chosen]
        return run_ablated(call, chosen, replacements(call, chosen, values), masks)

    return functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"))(ablated)


def replacements(call: Program, sites: Sequence[Site], values: Sequence[Any]) -> list[jax.Array]:
    """The arrays to put in place of sites, of their shape or with axes of size 1."""
    wants_mean = [isinstance(value, str) and value == "mean" for value in values]
    found = _values(call, [s for s, w in zip(sites, wants_mean, strict=True) if w])
    means = iter(found[n] for n in sorted(found))
    arrays = []
    for site, value, is_mean in zip(sites, values, wants_mean, strict=True):
        shape = site.place.shape
        if is_mean:
            if len(shape) < 2:
                raise ValueError(
                    f"Site {site.name!r} has shape {shape}: there is nothing to average over in "
                    "one call. Give the mean over your data as an array."
                )
            array = next(means).mean(tuple(range(len(shape) - 1)), keepdims=True)
        elif isinstance(value, str):
            array = jnp.zeros(())
        else:
            array = jnp.asarray(value)
            if jnp.broadcast_shapes(array.shape, shape) != shape:
                raise ValueError(
                    f"The value of site {site.name!r} has shape {array.shape}, which does not "
                    f"broadcast to {shape}."
                )
        arrays.append(array.reshape((1,) * (len(shape) - array.ndim) + array.shape))
    return arrays


def run_ablated(
    call: Program, sites: Sequence[Site], arrays: Sequence[jax.Array], masks: Sequence[Any]
) -> Any:
    """The output of a call with sites replaced by arrays, where masks say so (None: everywhere)."""
    checked = [_mask(mask, site) for mask, site in zip(masks, sites, strict=True)]
    graph = call.graph([site.place for site in sites])

    def change(number: int, iterations: tuple[Any, ...], value: jax.Array) -> jax.Array:
        array, mask = arrays[number], checked[number]
        for iteration in iterations:
            array = array[jnp.minimum(iteration, array.shape[0] - 1)]
            mask = mask[jnp.minimum(iteration, mask.shape[0] - 1)]
        mask = mask.reshape(mask.shape + (1,) * (value.ndim - mask.ndim))
        return jnp.where(mask, array.astype(value.dtype), value)

    outputs, _ = replay(graph, call.leaves, change)
    tree = jax.tree.structure(call.out_shapes)
    return jax.tree.unflatten(tree, [jnp.asarray(output) for output in outputs])


def _values(call: Program, sites: Sequence[Site]) -> dict[int, jax.Array]:
    if not sites:
        return {}
    for site in sites:
        if site.place.in_while:
            raise ValueError(
                f"Site {site.name!r} lies in a while_loop: it has as many values as there are "
                "iterations, which is known only when the loop has run."
            )
    graph = call.graph([site.place for site in sites])
    return replay(graph, call.leaves, lambda number, iterations, value: value)[1]


def _check_value(value: Any) -> None:
    for each in value.values() if isinstance(value, Mapping) else [value]:
        if isinstance(each, str) and each not in VALUES:
            raise ValueError(f"value must be one of {VALUES} or an array, got {each!r}.")


def _of_site(given: Any, site: Site, what: str) -> Any:
    """What a mapping has for a site, by its name or without its number."""
    if not isinstance(given, Mapping):
        return given
    for name in (site.name, site.base):
        if name in given:
            return given[name]
    raise ValueError(
        f"{what} has nothing for site {site.name!r}; it has {', '.join(map(repr, given))}."
    )


def _mask(mask: Any, site: Site) -> jax.Array:
    """A mask with an axis for each loop at least."""
    shape = site.place.shape
    loops = len(site.place.loop_shape)
    array = jnp.asarray(True if mask is None else mask)
    if array.dtype != bool:
        raise TypeError(f"The mask of site {site.name!r} must be boolean, got {array.dtype}.")
    if array.ndim and array.shape != shape[: array.ndim]:
        raise ValueError(
            f"The mask of site {site.name!r} must have the first axes of its shape {shape}, got "
            f"shape {array.shape}."
        )
    if array.ndim < loops:
        array = array.reshape(array.shape + (1,) * (loops - array.ndim))
    return array
