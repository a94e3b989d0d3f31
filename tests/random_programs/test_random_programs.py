"""Random programs against all of their paths; and the oracle against what is known by hand.

The same for many more: ``python -m tests.random_programs --seeds 0:1000 --shrink 60``.
"""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from . import functions as fn
from . import in_numpy
from .comparison import SEARCHES, check_seed, compiled
from .drawing import FAMILIES
from .generator import program
from .oracle import Graph
from .statistics import count_paths, paths_to


def check(seed, run=in_numpy.run, searches=SEARCHES):
    drawn, differences = check_seed(seed, run, searches)
    text = "\n".join(map(str, differences))
    assert not differences, f"seed {seed}\n{text}\n{drawn}"
    return drawn


@pytest.mark.parametrize("seed", range(12))
def test_program(seed):
    check(seed, searches=[SEARCHES[seed % 4]])


def test_compiled_program():
    check(3, compiled, searches=[])


@pytest.mark.slow
def test_many_programs():
    """For ten minutes, or RANDOM_PROGRAMS_SECONDS, from RANDOM_PROGRAMS_FIRST on."""
    seconds = float(os.environ.get("RANDOM_PROGRAMS_SECONDS", 600))
    first = int(os.environ.get("RANDOM_PROGRAMS_FIRST", 1000))
    begun, seed, failures = time.monotonic(), first, []
    while time.monotonic() - begun < seconds:
        try:
            check(seed, compiled if seed % 20 == 0 else in_numpy.run)
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
        if seed % 50 == 49:
            jax.clear_caches()  # what was compiled for shapes of long ago
        seed += 1
    print(f"seeds {first} to {seed - 1}")
    assert seed > first
    assert not failures, f"{len(failures)} of {seed - first}\n" + "\n\n".join(failures)


def test_same_seed_same_program():
    with jax.enable_x64(True):
        assert str(program(7)) == str(program(7)) != str(program(8))


def test_shorter_program_is_beginning():
    with jax.enable_x64(True):
        whole, short = program(11), program(11, length=2)
    assert whole.steps[:2] == short.steps[:2]


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_drawn(family):
    with jax.enable_x64(True):
        assert family in program(0, families=[family], length=2).families


X = np.array([1.0, -2.0, 0.0])
KNOWN = {  # a function of X, its sum's paths by element: how many there are, and their weights' sum
    "dead edges are edges": (lambda x: jnp.where(x > 0, x, 0.0), [1, 1, 1], [1, 0, 0]),
    "both cases of one array": (lambda x: jnp.where(x > 0, x, -x), [2, 2, 2], [1, -1, -1]),
    "relu": (jax.nn.relu, [1, 1, 1], [1, 0, 0]),
    "maximum at a tie": (lambda x: jnp.maximum(x, 0.0), [1, 1, 1], [1, 0, 0.5]),
    "left out": (lambda x: x[1:], [0, 1, 1], [0, 1, 1]),
    "twice": (lambda x: x[np.array([0, 0, 5])], [2, 0, 1], [2, 0, 1]),
    "filled": (lambda x: x.at[np.array([0, 5])].get(mode="fill"), [1, 0, 0], [1, 0, 0]),
    "overwritten": (lambda x: x.at[0].set(3.0), [0, 1, 1], [0, 1, 1]),
    "padded and cropped": (lambda x: lax.pad(x, 0.5, [(-1, 2, 1)]), [0, 1, 1], [0, 1, 1]),
    "sorted": (lambda x: jnp.sort(x)[:1], [0, 1, 0], [0, 1, 0]),
    "losers of a maximum": (jnp.max, [1, 1, 1], [1, 0, 0]),
    "triangle": (lambda x: lax.cummax(x), [3, 2, 1], [3, 0, 0]),
    "triangle, reversed": (lambda x: lax.cumsum(x, reverse=True), [1, 2, 3], [1, 2, 3]),
    "windows": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID"),
        [1, 2, 1],
        [1, 0, 1],
    ),
    "zero factors": (lambda x: x @ np.array([[0.0, 1], [2, 0], [0, 0]]), [2, 2, 2], [1, 2, 0]),
    "square": (jnp.square, [1, 1, 1], [2, -4, 0]),
    "product": (lambda x: x * x, [2, 2, 2], [2, -4, 0]),
    "one node": (fn.running, [3, 2, 1], [-2, -4, -2]),
    "rule with zeros": (fn.weighted, [3, 3, 0], [1, 2, 0]),
    "rule that ignores an input": (lambda x: fn.gated(x, x), [1, 1, 1], [1, -2, 0]),
    "neighbours": (fn.neighbours, [2, 2, 2], [-2, 1, -1]),
    "no gradient": (lambda x: lax.stop_gradient(x) * x, [1, 1, 1], [1, -2, 0]),
    "rounded": (jnp.round, [1, 1, 1], [0, 0, 0]),
    "loop": (lambda x: lax.scan(lambda c, s: (c * s, c), x, X[:2])[0], [1, 1, 1], [-2, -2, -2]),
    "branch": (lambda x: lax.cond(True, jnp.negative, lambda x: x * x, x), [1, 1, 1], [-1] * 3),
    "complex": (lambda x: jnp.real((x * (1 + 2j)) ** 2), [2, 2, 2], [-6, 12, 0]),
    "complex, twice": (lambda x: jnp.real(x * (2j + x)), [2, 2, 2], [2, -4, 0]),
    "diagonal system": (
        lambda x: jnp.linalg.solve(2 * jnp.eye(3), x),
        [1, 1, 1],  # in linear algebra an edge that weighs 0 cannot be told from none
        [0.5, 0.5, 0.5],
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_oracle(name):
    function, counts, sums = KNOWN[name]
    with jax.enable_x64(True):
        graph = Graph(lambda x: jnp.sum(function(x)), X)
        (end,) = graph.outputs[0]
        found = [paths_to(graph, end)[node] for node in graph.sources[0]]
        assert [len(paths) for paths in found] == counts
        assert [count_paths(graph, [end])[node] for node in graph.sources[0]] == counts
        np.testing.assert_allclose([paths.weight.sum() for paths in found], sums, 1e-12)
