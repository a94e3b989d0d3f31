"""The softmax of the paper's code, whose maximum is part of the graph."""

import jax
import jax.numpy as jnp


def log_softmax(x: jax.Array, *, max_in_graph: bool = True) -> jax.Array:
    """Compute the logarithm of the softmax over the last axis, with the released code's graph.

    It subtracts the largest entry inside of the log-sum-exp and adds it outside, as JAX does. The
    gradients through it cancel, but the paths through it are paths; JAX cuts them.

    Args:
        x: float ``[..., n]``.
        max_in_graph: whether there are paths through the largest entry.

    Returns:
        float ``[..., n]``.
    """
    largest = x.max(-1, keepdims=True)
    if not max_in_graph:
        largest = jax.lax.stop_gradient(largest)
    return x - (jnp.log(jnp.exp(x - largest).sum(-1, keepdims=True)) + largest)
