"""The best of all paths, from the list of all paths."""

import jax
import jax.numpy as jnp
import numpy as np

import semijax as sj
from semijax.testing import enumerate_paths

RANKS = {"abs": np.abs, "max": lambda w: w, "min": lambda w: -w}
RTOL = 1e-5


def place(path):
    """Where a path goes: its source and its nodes."""
    source, *nodes = path.nodes
    return (source.variable, source.index), tuple((n.primitive, n.index) for n in nodes)


def check_best(fun, *args, k=20, by=("abs", "max", "min"), limit=20_000, passes=None, **options):
    """``top_paths`` against the best of all paths, in weight and, but for ties, in nodes.

    Args:
        fun: a function of arrays with a scalar output.
        *args: its arguments; paths start from all that are floating.
        k: how many.
        by: the orders to check.
        limit: how many paths there may be.
        passes: which of the brute force's paths count; all by default.
        **options: for ``top_paths``.
    """
    argnums = tuple(
        i
        for i, arg in enumerate(args)
        if all(jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating) for x in jax.tree.leaves(arg))
    )
    everything = enumerate_paths(fun, *args, argnums=argnums, limit=limit)
    paths = [path for path in everything if passes is None or passes(path)]
    weights = np.array([path.weight for path in paths])
    known = {}
    for path in paths:
        known.setdefault((path.source, path.nodes), []).append(path.weight)
    tolerance = 1e-6 * np.abs(weights).max(initial=0)
    for order in by:
        found = sj.top_paths(fun, k, by=order, argnums=argnums, **options)(*args)
        rank = RANKS[order]
        best = np.sort(rank(weights))[::-1][:k]
        got = rank(np.array([path.weight for path in found]))
        assert got.shape == best.shape, f"{order}: {len(got)} paths, there are {len(best)}"
        np.testing.assert_allclose(got, best, RTOL, tolerance, err_msg=order)
        # Each is a path, with this weight, and no two are the same: where nodes agree, the edges
        # differ, as the two of x * x do.
        for path in found:
            weights_there = known.get(place(path), [])
            close = np.isclose(path.weight, weights_there, RTOL, tolerance)
            assert close.any(), f"{order}: {path!r} weighs {weights_there}"
        assert len({(place(path), path.edges) for path in found}) == len(found), order
    return paths
