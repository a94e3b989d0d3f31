"""Paths chosen edge by edge: samples follow the distribution, a trace the largest contribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.testing import enumerate_paths

from .oracle import place
from .test_top_paths import FUNCTIONS, scalar_program

# From the χ² distribution: p = 10⁻⁴ is below mean + 4.5 standard deviations from 5 degrees on.
LIMIT = 4.5


def check_distribution(fun, *args, n=4000, passes=None, **options):
    """A χ² test of samples against |weight|/Z; rare paths are one bin."""
    argnums = tuple(range(len(args)))
    paths = [p for p in enumerate_paths(fun, *args) if passes is None or passes(p)]
    mass = {}
    for path in paths:
        where = (path.source, path.nodes)
        mass[where] = mass.get(where, 0) + abs(path.weight)
    total = sum(mass.values())
    samples = sj.sample_paths(fun, n, argnums=argnums, **options)(jax.random.key(0), *args)
    if total == 0:
        assert samples == []
        return
    assert len(samples) == n
    counts = dict.fromkeys(mass, 0)
    for sample in samples:
        counts[place(sample)] += 1
    expected = np.array([n * mass[where] / total for where in mass])
    seen = np.array([counts[where] for where in mass])
    assert not seen[expected == 0].any()
    common = expected >= 5
    expected = np.append(expected[common], expected[~common].sum())
    seen = np.append(seen[common], seen[~common].sum())
    expected, seen = expected[expected > 0], seen[expected > 0]
    degrees = len(expected) - 1
    statistic = ((seen - expected) ** 2 / expected).sum()
    assert statistic <= degrees + LIMIT * np.sqrt(2 * max(degrees, 5))


SAMPLED = [name for name in FUNCTIONS if name not in ("no path at all", "all negative")]


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_follow_the_distribution(name):
    check_distribution(*FUNCTIONS[name])


@pytest.mark.parametrize("seed", range(12))
def test_samples_of_random_programs(seed):
    function, args = scalar_program(seed)
    check_distribution(function, *args)


def test_samples_through_a_scope_and_from_a_source():
    x = jnp.array([0.7, -1.2, 0.4])

    def function(x):
        with jax.named_scope("sines"):
            a = jnp.sin(x)
        return a @ jnp.cos(a * x)

    check_distribution(function, x, through="sines", passes=lambda p: "sin" in p.primitives)
    one = sj.sample_paths(function, 30, source=(0, 1))(jax.random.key(1), x)
    assert {path.nodes[0].index for path in one} == {(1,)}


def test_a_scope_that_is_passed_twice():
    def function(x, y):
        with jax.named_scope("a"):
            u = x * 2.0
        v = u + y
        with jax.named_scope("a"):
            return v * 3.0 * 5.0

    draw = sj.sample_paths(function, 300, argnums=(0, 1), through="a")
    drawn = draw(jax.random.key(0), 1.0, 1.0)
    assert {path.weight for path in drawn} == {30.0, 15.0}
    assert max(path.verify() for path in drawn[:20]) == 0


def test_of_equal_contributions_the_first_is_followed():
    def function(x):
        a, b = 3.0, 7.0
        return x * (a * b) + (x * a) * b

    path = sj.trace_gradient(function, source=(0, ()))(1.0)
    assert path.length == 2 and path.weight == 21


def test_the_test_sees_another_distribution():
    x = jnp.array([1.0, 2.0])
    draw = sj.sample_paths(lambda x: x @ jnp.array([1.0, 1.3]), 4000)
    samples = draw(jax.random.key(0), x)
    counts = np.bincount([path.nodes[0].index[0] for path in samples])
    assert ((counts - 2000) ** 2 / 2000).sum() > 1 + LIMIT * np.sqrt(10)


def test_keys():
    def draw(key, n=40):
        return sj.sample_paths(lambda x: jnp.sum(jnp.sin(x)), n)(key, jnp.arange(9.0))

    assert draw(jax.random.key(0)) == draw(jax.random.key(0)) == draw(jax.random.PRNGKey(0))
    assert draw(jax.random.key(0)) != draw(jax.random.key(1))
    with pytest.raises(TypeError, match="JAX random key"):
        draw(0)
    with pytest.raises(TypeError, match="one JAX random key"):
        draw(jax.random.split(jax.random.key(0)))
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        draw(jax.random.key(0), 0)


def trace_by_hand(fun, x, index):
    """Gradient tracing as its author describes it, on the list of all paths."""
    paths = [p for p in enumerate_paths(fun, x) if p.source[1] == index]
    done = 0
    while len({p.edges for p in paths}) > 1:
        contributions = {}
        for path in paths:
            if len(path.edges) > done:
                edge = path.edges[done]
                rest = np.prod(path.weights[done:])
                contributions[edge] = contributions.get(edge, 0) + rest
        best = max(contributions, key=lambda e: abs(contributions[e]))
        paths = [p for p in paths if p.edges[done : done + 1] == (best,)]
        done += 1
    return paths[0]


@pytest.mark.parametrize("seed", range(40))
def test_trace_of_random_programs(seed):
    function, args = scalar_program(seed)
    args = [jnp.asarray(arg) for arg in args]
    x = args[0]
    index = tuple(int(i) for i in np.unravel_index(x.size // 2, x.shape))

    def of_first(x):
        return function(x, *args[1:])

    if not any(p.source[1] == index for p in enumerate_paths(of_first, x)):
        with pytest.raises(ValueError, match="no path leads from"):
            sj.trace_gradient(of_first, source=(0, index))(x)
        return
    path = sj.trace_gradient(of_first, source=(0, index))(x)
    wanted = trace_by_hand(of_first, x, index)
    assert path.weight == pytest.approx(wanted.weight, rel=1e-4, abs=1e-6)
    assert path.nodes[0].index == index


def test_the_trace_is_greedy():
    def function(x):
        crowd = jnp.sum(jnp.ones(5) * jnp.tanh(x))
        return crowd + 3 * x

    trace = sj.trace_gradient(function, source=(0, ()))(0.0)
    (top,) = sj.top_paths(function)(0.0)
    assert trace.weight == 1 and "tanh" in [node.primitive for node in trace.nodes]
    assert top.weight == 3 and "tanh" not in [node.primitive for node in top.nodes]
    assert trace.verify() == 0


def test_the_trace_does_not_run_into_a_dead_end():
    def function(x):
        rows = jnp.stack([x, x * 0.0])
        return lax.slice(rows, (1,), (2,))[0] * 0.0

    path = sj.trace_gradient(function, source=(0, ()))(1.0)
    assert path.weight == 0 and path.nodes[-1].primitive == "mul"


def test_one_source_only():
    x = jnp.ones(3)
    assert sj.trace_gradient(jnp.sum, source=jnp.array([False, True, False]))(x).weight == 1
    with pytest.raises(ValueError, match=r"starts from one element.* has 2"):
        sj.trace_gradient(jnp.sum, source=jnp.array([True, True, False]))(x)
