"""Ablation: a function run with some of its arrays replaced."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from semijax import checks
from semijax.flow.replay import replay, run_changed
from semijax.sites.axis_names import StatedAxes
from semijax.sites.program import Argnums, Program
from semijax.sites.site import Site
from semijax.trace import scope_names

VALUES = ("zero", "mean")
"""The replacements that have a name."""


def site_values(
    fun: Callable[..., Any], sites: str | Sequence[str], traced: Argnums = None
) -> Callable[..., dict[str, jax.Array]]:
    """Read the values of intermediate arrays of a function: its activations.

    Args:
        fun: a function of arrays, or pytrees of arrays.
        sites: names or globs, see ``list_sites``.
        traced: the positions of the arguments that are traced, see ``list_sites``; all by default.

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
        call = Program(fun, args, kwargs, traced, caller="site_values")
        chosen = call.survey.choose(sites)
        found = _values(call, chosen)
        return {site.name: value for site, value in zip(chosen, found, strict=True)}

    return values


def ablate(
    fun: Callable[..., Any],
    sites: str | Sequence[str],
    value: Any = "zero",
    traced: Argnums = None,
    *,
    where: Any = None,
) -> Callable[..., Any]:
    """Replace some intermediate arrays of a function and recompute everything that reads them.

    Args:
        fun: a function of arrays, or pytrees of arrays.
        sites: names or globs, see ``list_sites``; ``"*/layer_3"`` is what comes out of a module.
        value: the replacement: ``"zero"``; ``"mean"``, the array's mean in the same call over all
            its axes but the last, so each hidden unit is averaged over examples, tokens and
            iterations; an array that broadcasts to the site, such as a mean over a data set; or a
            mapping from names to any of these.
        traced: the positions of the arguments that are traced, see ``list_sites``; all by default.
            Arguments that decide Python's control flow must not be among them.
        where: which elements to replace: a boolean array whose axes are the site's first, True
            where to replace, or a mapping from names to such arrays. Everything by default.

    Returns:
        A function with the arguments and the result of ``fun``, under every JAX transformation.

    Raises:
        TypeError: if ``value`` or ``where`` is something else.
        ValueError: if a name or glob matches nothing, a mapping lacks a site or names another one,
            an array does not fit its site, or there is no mean to compute: of a single vector, or
            in a ``while_loop``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sin(x) + 3 * x
        >>> print(sj.ablate(f, "sin")(1.0), sj.ablate(f, "sin", jnp.float32(10))(1.0))
        3.0 13.0
    """
    checks.check_callable(fun)
    check_value(value)

    def ablated(*args: Any, **kwargs: Any) -> Any:
        call = Program(fun, args, kwargs, traced, caller="ablate")
        chosen = call.survey.choose(sites)
        if len({site.place for site in chosen}) < len(chosen) and isinstance(value, Mapping):
            raise ValueError("Two of the sites are the same array, which can have only one value.")
        values = of_sites(value, chosen, "value")
        masks = of_sites(where, chosen, "where")
        return run_ablated(call, chosen, replacements(call, chosen, values), masks)

    return functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"))(ablated)


def ablation_effects(
    fun: Callable[..., Any],
    sites: str | Sequence[str],
    by: str,
    value: Any = "zero",
    traced: Argnums = None,
    *,
    axes: StatedAxes = None,
) -> Callable[..., dict[str, jax.Array]]:
    """Measure how much the output drops when one head or token at a time is ablated.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        sites: names or globs, see ``list_sites``, of arrays with that axis.
        by: the name of the axis along which to replace one index at a time: ``"head"``,
            ``"token"``, or another, see ``top_paths``.
        value: what to replace it with, as for ``ablate``.
        traced: as for ``ablate``.
        axes: names of axes, where ``by`` is not known, see ``top_paths``.

    Returns:
        A function with the arguments of ``fun`` that returns a dict from the sites' names to arrays
        of f(x) − f(x with one index ablated): one number per index, with a first axis for each
        ``scan`` that the site lies in.

    Raises:
        TypeError, ValueError: as ``ablate``; ValueError if a site has no axis of that name.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x: jnp.sum(jnp.square(x))
        >>> x = {"[0]": ("token",)}
        >>> print(sj.ablation_effects(f, "square", "token", axes=x)(jnp.arange(3.0))["square"])
        [0. 1. 4.]
    """
    checks.check_callable(fun)
    check_value(value)

    def effects(*args: Any, **kwargs: Any) -> dict[str, jax.Array]:
        call = Program(fun, args, kwargs, traced, caller="ablation_effects")
        checks.check_scalar(call.out_shapes, "ablation_effects")
        chosen = call.survey.choose(sites)
        arrays = replacements(call, chosen, of_sites(value, chosen, "value"))
        names = call.axis_names(axes)
        whole = run_ablated(call, (), (), ())

        def of(site: Site, array: jax.Array) -> jax.Array:
            named, looped = names.axis(site, by), site.place.loop_shape
            rank = max(named.axis + 1, len(looped))
            apart = [n if a < len(looped) else 1 for a, n in enumerate(site.place.shape[:rank])]
            kept = [*looped]
            numbers = jnp.arange(math.prod(looped)).reshape(apart)
            if named.axis >= len(looped):
                before, count, behind = named.sizes
                index = jnp.tile(jnp.repeat(jnp.arange(count), behind), before)
                numbers, kept = numbers * count + index, [*looped, count]
            spread = jnp.broadcast_to(numbers, site.place.shape[:rank])
            lost = lax.map(
                lambda number: whole - run_ablated(call, [site], [array], [spread == number]),
                jnp.arange(math.prod(kept)),
            )
            return lost.reshape(kept)

        return {site.name: of(site, own) for site, own in zip(chosen, arrays, strict=True)}

    return effects


def replacements(call: Program, sites: Sequence[Site], values: Sequence[Any]) -> list[jax.Array]:
    """Return the arrays to put in place of sites, of their shape or with axes of size 1.

    Raises:
        ValueError: if one does not fit, or there is nothing to average.
    """
    averaged = [site for site, v in zip(sites, values, strict=True) if _is(v, "mean")]
    clean = dict(zip(averaged, _values(call, averaged), strict=True))
    return [
        _mean(site, clean[site]) if site in clean else _array(site, value)
        for site, value in zip(sites, values, strict=True)
    ]


def _mean(site: Site, value: jax.Array) -> jax.Array:
    if value.ndim < 2:
        raise ValueError(
            f"Site {site.name!r} has shape {value.shape}: there is nothing to average over in one "
            "call. Give the mean over your data as an array."
        )
    return value.mean(tuple(range(value.ndim - 1)), keepdims=True)


def _array(site: Site, value: Any) -> jax.Array:
    array, shape = jnp.zeros(()) if _is(value, "zero") else jnp.asarray(value), site.place.shape
    padded = (1,) * (len(shape) - array.ndim) + array.shape
    if len(padded) > len(shape) or any(n not in (1, m) for n, m in zip(padded, shape, strict=True)):
        raise ValueError(
            f"The value of site {site.name!r} has shape {array.shape}, which does not broadcast to "
            f"{shape}."
        )
    return array.reshape(padded)


def _is(value: Any, name: str) -> bool:
    return isinstance(value, str) and value == name


def run_ablated(
    call: Program, sites: Sequence[Site], arrays: Sequence[jax.Array], masks: Sequence[Any]
) -> Any:
    """Run a call with arrays in place of sites, where masks say so (None: everywhere)."""
    checked = [
        None if mask is None else _mask(mask, site) for mask, site in zip(masks, sites, strict=True)
    ]
    places = [site.place for site in sites]
    graph = call.graph(places)

    def change(number: int, iterations: tuple[Any, ...], made: jax.Array) -> jax.Array:
        array, mask, value = arrays[number], checked[number], places[number].seen(made, 0)
        for iteration in iterations:
            array = array[jnp.minimum(iteration, array.shape[0] - 1)]
            mask = None if mask is None else mask[jnp.minimum(iteration, mask.shape[0] - 1)]
        array = array.astype(value.dtype)
        if mask is None:
            return places[number].made(jnp.broadcast_to(array, value.shape), 0)
        mask = mask.reshape(mask.shape + (1,) * (value.ndim - mask.ndim))
        return places[number].made(jnp.where(mask, array, value), 0)

    return run_changed(call, graph, change)


def _values(call: Program, sites: Sequence[Site]) -> list[jax.Array]:
    if not sites:
        return []
    for site in sites:
        if site.place.in_while:
            raise ValueError(
                f"Site {site.name!r} lies in a while_loop: it has one value per iteration, and the "
                "number of iterations is known only after the loop has run."
            )
    graph = call.graph([site.place for site in sites])
    found = replay(graph, call.leaves, lambda number, iterations, value: value)[1]
    return [site.place.seen(found[n]) for n, site in enumerate(sites)]


def check_value(value: Any) -> None:
    """Raise unless ``ablate`` can put the value in place of an array."""
    for each in value.values() if isinstance(value, Mapping) else [value]:
        if isinstance(each, str):
            if each not in VALUES:
                raise ValueError(f"value must be one of {VALUES} or an array, got {each!r}.")
        elif not isinstance(each, (int, float)) and not hasattr(each, "__array__"):
            raise TypeError(
                f"value must be one of {VALUES} or an array, got {each!r} of type "
                f"{type(each).__name__}."
            )


def of_sites(given: Any, sites: Sequence[Site], what: str) -> list[Any]:
    """Look up each site in a mapping, by name with or without number; else repeat what is given.

    Raises:
        ValueError: if the mapping lacks a site, or has a name that is none of the sites.
    """
    if not isinstance(given, Mapping):
        return [given] * len(sites)
    used = [next((n for n in (s.name, s.base) if n in given), None) for s in sites]
    known = scope_names.listed(given)
    for site, name in zip(sites, used, strict=True):
        if name is None:
            raise ValueError(f"{what} has nothing for site {site.name!r}; it has {known}.")
    for name in given:
        if name not in used:
            likely = scope_names.listed(scope_names.nearest(str(name), [s.name for s in sites]))
            raise ValueError(f"{what} has {name!r}, which is none of the sites. Near: {likely}.")
    return [given[name] for name in used]


def _mask(mask: Any, site: Site) -> jax.Array:
    """Return a mask with at least an axis for each loop."""
    shape = site.place.shape
    loops = len(site.place.loop_shape)
    array = jnp.asarray(mask)
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
