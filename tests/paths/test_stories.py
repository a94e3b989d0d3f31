"""The k best stories are those of all paths, grouped by what they say."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.trace import scope_names

from ..weightings.programs import draw

ORDERS = ["abs", "max", "min"]
MAX_PATHS = 5_000


def by_module(depth=None):
    def label(node):
        if not node.primitive:
            return node.variable
        return scope_names.shorten(node.scope, depth)

    return label


def parity(node):
    """Tells something of some nodes only."""
    return sum(node.index) % 2 if len(node.index) == 1 else None


def primitive(node):
    return node.primitive if node.primitive in ("add", "mul", "dot_general", "tanh") else None


def everything(node):
    return node.variable, node.index


LEVELS = {
    "module": ("module", by_module()),
    "depth": (1, by_module(1)),
    "primitive": (primitive, primitive),
    "parity": (parity, parity),
    "both": (("module", parity), lambda node: (by_module()(node), parity(node))),
    "nothing": (lambda node: None, lambda node: None),
    "every node": (everything, everything),
}


def story_of(path, label):
    labels = [found for node in path.nodes if (found := label(node)) not in (None, (None, None))]
    return tuple(key for key, _ in itertools.groupby(labels))


def better(by):
    return {"abs": abs, "max": lambda w: w, "min": lambda w: -w}[by]


def check(function, *args, level, by="abs", k=20, **options):
    """The best path of each of the k best stories, and what all paths say together."""
    asked, label = LEVELS[level]
    everyone = sj.top_paths(function, MAX_PATHS, by=by, **options)(*args)
    if len(everyone) == MAX_PATHS:
        pytest.skip("too many paths to list")
    groups = {}
    for path in everyone:
        groups.setdefault(story_of(path, label), []).append(path)
    semiring = {"sum": sj.SumProduct(), "mass": sj.AbsSumProduct(), "paths": sj.PathCount()}
    found = sj.top_paths(function, k, by=by, distinct=asked, semiring=semiring, **options)(*args)
    assert len(found) == min(k, len(groups))
    assert len({path.story for path in found}) == len(found)
    size = better(by)
    best = sorted((size(paths[0].contribution) for paths in groups.values()), reverse=True)
    scale = max(map(abs, best), default=1)
    np.testing.assert_allclose(
        [size(path.contribution) for path in found], best[:k], rtol=1e-8, atol=1e-12 * scale
    )
    for path in found:
        assert path.story == story_of(path, label)
        own = groups[path.story]
        close = {"rel": 1e-8, "abs": 1e-10 * scale}
        assert path.contribution == pytest.approx(own[0].contribution, **close)
        amounts = [each.contribution for each in own]
        assert path.together["sum"] == pytest.approx(math.fsum(amounts), **close)
        assert path.together["mass"] == pytest.approx(math.fsum(map(abs, amounts)), **close)
        number = sum(amount != 0 for amount in amounts)
        assert math.exp(path.together["paths"]) == pytest.approx(number)  # it reads a logarithm
        assert path.verify() < 1e-9


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def small_numbers(rng, *shape):
    return jnp.asarray(rng.normal(size=shape).round(2))


def residual(x):
    rng = np.random.default_rng(0)
    with jax.named_scope("embed"):
        x = x @ small_numbers(rng, 2, 2)
    for layer in range(2):
        with jax.named_scope(f"layer_{layer}"):
            with jax.named_scope("attention"):
                weights = jnp.tanh(x @ x.T)
                mixed = weights @ x
            x = x + mixed
            with jax.named_scope("mlp"):
                hidden = jax.nn.relu(x @ small_numbers(rng, 2, 1))
            x = x + hidden.sum(-1, keepdims=True)
    return x[0, 0] * x[1, 1]


def scanned(x):
    def body(carry, row):
        with jax.named_scope("cell"):
            carry = jnp.tanh(carry * row) + 0.5 * carry
        return carry, carry[0] * row

    carry, rows = lax.scan(body, x[0], x)
    return carry.sum() + (rows * rows).sum()


def branches(x):
    def one(x):
        with jax.named_scope("one"):
            return x * x[::-1]

    y = lax.cond(x[0, 0] > 0, one, jnp.sin, x)
    return (y * x).sum() + sj.atomic(lambda z: (z * z).sum())(y)


FUNCTIONS = {
    "residual": (residual, (2, 2)),
    "scanned": (scanned, (3, 2)),
    "branches": (branches, (2, 2)),
}


@pytest.mark.parametrize("by", ORDERS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, level, by):
    function, shape = FUNCTIONS[name]
    x = small_numbers(np.random.default_rng(len(name)), *shape)
    check(function, x, level=level, by=by, k=12)


@pytest.mark.parametrize("seed", range(24))
def test_random_programs(seed):
    for program, args, _ in draw(seed):
        options = {"argnums": tuple(range(len(args))), "by": ORDERS[seed % 3]}
        check(program.scalar, *args, level=[*LEVELS][seed % len(LEVELS)], **options)
        return
