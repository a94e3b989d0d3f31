"""Rankings of a model's components, and the curves that test them.

A component is a token at a site. Its scores come from the paths through it, from the gradient, or
from its effect; the curves are the value of a quantity while components are replaced, one after
the other, in the order of a ranking. ``sj.faithfulness`` tests one example; here hundreds are one
program, which models of the same structure share.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import semijax as sj

SOURCE = "*/embeddings"
"""The arrays where complete paths start."""

COMPLETE: dict[str, sj.Semiring] = {
    "mass": sj.Entropy(),  # which is computed from the mass
    "strongest path": sj.AbsMaxProduct(),
    "largest path": sj.MaxProduct(),
}
"""The semirings of complete paths, by ranking."""

BY_PATHS = (*COMPLETE, "entropy", "mass onwards")
"""The rankings by paths."""

BY_GRADIENT = ("|grad|", "gradient × activation", "|gradient × activation|")
"""The rankings by the gradient, the usual ones."""

CONTROLS = ("untrained", "random")
"""The rankings that know nothing of the trained model: an untrained model's mass, and chance."""

TOLD = ("first order", "each alone")
"""The rankings that are told the replacement."""

RANKINGS = (*BY_PATHS, *BY_GRADIENT, *CONTROLS, *TOLD)
"""All rankings."""

REPLACEMENTS = ("zero", "mean", "another example")
"""What is put in a component's place."""

CURVES = ("deletion", "insertion")
"""The two curves of a ranking."""


@dataclasses.dataclass(frozen=True)
class Components:
    """The tokens at some sites of models of one structure.

    Attributes:
        quantity: a function of a model and an example that returns a real scalar.
        sites: the names of arrays ``[tokens, units]``, in the order of the scores' axis.
        structure: the models', by ``nnx.split``.
    """

    quantity: Callable[[Any, Any], jax.Array]
    sites: tuple[str, ...]
    structure: Any

    def of(self, state: Any) -> Callable[[Any], jax.Array]:
        """Return the quantity of the model with this state, as a function of an example."""
        from flax import nnx

        model = nnx.merge(self.structure, state)

        def value(example: Any) -> jax.Array:
            with sj.scopes(model):
                return self.quantity(model, example)

        return value

    def stack(self, by_site: Mapping[str, jax.Array]) -> jax.Array:
        """Stack a number per token of each site: ``[sites, tokens]``."""
        return jnp.stack([by_site[site] for site in self.sites])


@functools.partial(jax.jit, static_argnums=0)
def reachable(components: Components, state: Any, example: Any) -> jax.Array:
    """Tell which components have a path to the quantity: bool ``[sites, tokens]``."""
    fun, sites = components.of(state), components.sites
    found = sj.site_grads(fun, sj.Reachability(), sites, aggregate=-1)(example)
    return components.stack(found)


@functools.partial(jax.jit, static_argnums=0)
def blind_scores(components: Components, state: Any, examples: Any) -> dict[str, jax.Array]:
    """Score components without being told what will replace them.

    Args:
        components: to be scored.
        state: the model's.
        examples: a pytree of arrays ``[examples, ...]``.

    Returns:
        By ranking, float ``[examples, sites, tokens]``: ``"mass"``, the share of Σ|w| of all
        complete paths, from the embeddings to the quantity, that pass the component; ``"strongest
        path"``, their max |w|; ``"largest path"``, their max w; ``"entropy"``, in nats; ``"mass
        onwards"``, Σ|w| of the paths that start at the component; ``"|grad|"``, the sum of absolute
        derivatives over its units; ``"gradient × activation"``, the sum of the products, and its
        absolute value.
    """
    fun, sites = components.of(state), components.sites
    onwards = {"gradient": sj.SumProduct(), "mass onwards": sj.AbsSumProduct()}

    def of_one(example: Any) -> dict[str, jax.Array]:
        flow = sj.site_flow(fun, COMPLETE, sites, source=SOURCE, aggregate=-1)(example)
        grads = sj.site_grads(fun, onwards, sites)(example)
        values = sj.site_values(fun, sites)(example)
        gradient, mass = grads["gradient"], grads["mass onwards"]
        product = components.stack({s: (gradient[s] * values[s]).sum(-1) for s in sites})
        return {
            **{name: components.stack(of) for name, of in flow.items()},
            "mass": components.stack(flow["mass"].share()),
            "entropy": components.stack(flow["mass"]),
            "mass onwards": components.stack({s: mass[s].sum(-1) for s in sites}),
            "|grad|": components.stack({s: jnp.abs(gradient[s]).sum(-1) for s in sites}),
            "gradient × activation": product,
            "|gradient × activation|": jnp.abs(product),
        }

    return jax.vmap(of_one)(examples)


@functools.partial(jax.jit, static_argnums=0)
def replacements(components: Components, state: Any, others: Any) -> dict[str, Any]:
    """Return what to put in place of components, by kind and site: float ``[n, tokens, units]``.

    Args:
        components: to be replaced.
        state: the model's.
        others: a pytree of arrays ``[n, ...]``: examples to take values from.
    """
    values = jax.vmap(sj.site_values(components.of(state), components.sites))(others)
    zeros = jax.tree.map(jnp.zeros_like, dict(values))
    means = jax.tree.map(lambda a: jnp.broadcast_to(a.mean((0, 1)), a.shape), dict(values))
    return dict(zip(REPLACEMENTS, (zeros, means, dict(values)), strict=True))


@functools.partial(jax.jit, static_argnums=0)
def told_scores(
    components: Components, state: Any, examples: Any, replaced_by: Any
) -> dict[str, jax.Array]:
    """Score components by their effects when replaced.

    Args:
        components: to be scored.
        state: the model's.
        examples: a pytree of arrays ``[examples, ...]``.
        replaced_by: by site, float ``[examples, tokens, units]``.

    Returns:
        By ranking, float ``[examples, sites, tokens]``: ``"first order"``, gradient × (value −
        replacement), summed over units, and ``"each alone"``, by how much the quantity falls when
        this component alone is replaced.
    """
    fun, sites = components.of(state), components.sites

    def of_one(given: tuple[Any, Any]) -> dict[str, jax.Array]:
        example, replacement = given
        grads = sj.site_grads(fun, sj.SumProduct(), sites)(example)
        values = sj.site_values(fun, sites)(example)
        change = {s: (grads[s] * (values[s] - replacement[s])).sum(-1) for s in sites}
        first_order = components.stack(change)
        alone = jnp.eye(first_order.size, dtype=bool).reshape(-1, *first_order.shape)
        value = functools.partial(_without, components, fun, example, replacement)
        effect = fun(example) - jax.vmap(value)(alone).reshape(first_order.shape)
        return {"first order": first_order, "each alone": effect}

    return jax.lax.map(of_one, (examples, replaced_by))  # faster than all at once


@functools.partial(jax.jit, static_argnums=0)
def curves(
    components: Components,
    state: Any,
    examples: Any,
    replaced_by: Any,
    candidates: jax.Array,
    counts: jax.Array,
    scores: jax.Array,
) -> jax.Array:
    """Compute the quantity by deletion and by insertion.

    Args:
        components: to be replaced.
        state: the model's.
        examples: a pytree of arrays ``[examples, ...]``.
        replaced_by: by site, float ``[examples, tokens, units]``.
        candidates: those that are ranked; the others are never replaced. Bool
            ``[examples, sites, tokens]``.
        counts: how many to replace (deletion) or to leave (insertion), int ``[counts]``.
        scores: the highest first; equal ones keep their order. Float
            ``[examples, sites, tokens]``.

    Returns:
        Float ``[examples, 2, counts]``.
    """
    fun = components.of(state)

    def of_one(given: tuple[Any, ...]) -> jax.Array:
        example, replacement, candidates, scores = given
        order = jnp.argsort(-jnp.where(candidates, scores, -jnp.inf), axis=None)
        ranks = jnp.argsort(order).reshape(scores.shape)
        first = ranks < counts[:, None, None]
        value = functools.partial(_without, components, fun, example, replacement)
        return jax.vmap(jax.vmap(value))(jnp.stack([first, ~first]) & candidates)

    return jax.lax.map(of_one, (examples, replaced_by, candidates, scores))


def areas(curves: Any, counts: Any) -> np.ndarray:
    """Return the areas under curves ``[..., counts]``: their mean values on the way."""
    counts = np.asarray(counts)
    return np.trapezoid(np.asarray(curves, np.float64), counts / counts[-1])


def _without(
    components: Components, fun: Any, example: Any, replacement: Any, replaced: jax.Array
) -> jax.Array:
    """Return the quantity when components are replaced, bool ``[sites, tokens]``."""
    where = dict(zip(components.sites, replaced, strict=True))
    return sj.ablate(fun, components.sites, replacement, where=where)(example)
