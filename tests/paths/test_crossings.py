"""What flows between groups of nodes is what all paths have that cross from one to the other."""

import collections
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.paths.call import Call
from semijax.paths.crossings import Crossings, group_nodes, largest

from .test_stories import FUNCTIONS, finite_program, small_numbers

MAX_PATHS = 5_000

# From the contributions of the paths that cross, once for each time, to the number.
SEMIRINGS = {
    "sum": (sj.SumProduct(), math.fsum),
    "mass": (sj.AbsSumProduct(), lambda amounts: math.fsum(map(abs, amounts))),
    "strongest": (sj.AbsMaxProduct(), lambda amounts: max(map(abs, amounts))),
    "largest": (sj.MaxProduct(), max),
}


def one_each(rng, shape):
    return rng.integers(0, 4, shape)


def along_an_axis(rng, shape):
    if not shape:
        return rng.integers(0, 4)
    axis = rng.integers(len(shape))
    return rng.integers(0, 4, [n if a == axis else 1 for a, n in enumerate(shape)])


def one_for_all(rng, shape):
    return rng.integers(0, 4)


GROUPS = [one_each, along_an_axis, one_for_all]


def check(function, *args, seed, grouping, **options):
    paths = sj.top_paths(function, MAX_PATHS, **options)(*args)
    if len(paths) == MAX_PATHS:
        pytest.skip("too many paths to list")
    call = Call(function, args, {}, caller="test", **options)
    rng = np.random.default_rng(seed)
    groups = group_nodes(call.run, lambda array: grouping(rng, array.shape))
    if not paths:
        return
    array_of = {f"v{array.number}": array for array in call.run.arrays}
    array_of |= {(name, array.iteration): array for array, name in call.names.items()}

    def group(node, start):
        key = (node.variable, node.iteration) if start else node.variable
        array = array_of[key]
        return int(np.broadcast_to(groups[array], array.shape)[node.index])

    crossing, starting = collections.defaultdict(list), collections.defaultdict(list)
    for path in paths:
        visited = [group(node, n == 0) for n, node in enumerate(path.nodes)]
        starting[visited[0]].append(path.contribution)
        for pair in itertools.pairwise(visited):
            if pair[0] != pair[1]:
                crossing[pair].append(path.contribution)
    found = Crossings(call.run, call.sources, call.end, groups)
    scale = max(abs(path.contribution) for path in paths) * len(paths)
    for semiring, expected in SEMIRINGS.values():
        flow = found.flow(semiring)
        pairs = [tuple(pair) for pair in flow.pairs.tolist()]
        assert len(set(pairs)) == len(pairs) and crossing.keys() <= set(pairs)
        numbers = dict(zip(pairs, flow.numbers(flow.crossing), strict=True))
        for pair, number in numbers.items():
            if pair in crossing:
                assert number == pytest.approx(expected(crossing[pair]), abs=1e-10 * scale)
            else:  # where no path crosses there is none
                assert number in (0, -math.inf)
        begun = dict(zip(flow.starts.tolist(), flow.numbers(flow.starting), strict=True))
        for start, amounts in starting.items():
            assert begun[start] == pytest.approx(expected(amounts), abs=1e-10 * scale)
        amounts = [path.contribution for path in paths]
        whole = flow.numbers(flow.whole())
        assert float(whole) == pytest.approx(expected(amounts), abs=1e-10 * scale)
        through = flow.numbers(flow.through(4))
        for n in range(4):
            coming = [a for (_, head), own in crossing.items() if head == n for a in own]
            coming += starting.get(n, [])
            if coming:
                amount = expected(coming)
                assert through[n] == pytest.approx(amount, abs=1e-10 * scale)


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("grouping", GROUPS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, grouping):
    function, shape = FUNCTIONS[name]
    x = small_numbers(np.random.default_rng(len(name)), *shape)
    for seed in range(2):
        check(function, x, seed=seed, grouping=grouping)


def check_random(seed):
    program, args, argnums = finite_program(seed)
    check(program.scalar, *args, seed=seed, grouping=GROUPS[seed % 3], argnums=argnums)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed):
    check_random(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 300))
def test_many_random_programs(seed):
    check_random(seed)


def test_contributions_of_a_difference():
    function, shape = FUNCTIONS["scanned"]
    x, r = small_numbers(np.random.default_rng(4), 2, *shape)
    check(function, x, seed=1, grouping=one_each, weighting=sj.Contrast(r))


def test_an_equation_that_sends_nodes_to_several_groups():
    """A key goes to each token that looks at it, and the paths there are told apart."""

    def mixed(x):
        return (jnp.tanh(x @ x.T) @ x).sum()

    def by_row(rng, shape):
        return np.arange(shape[0]).reshape([-1] + [1] * (len(shape) - 1)) if shape else 3

    check(mixed, small_numbers(np.random.default_rng(7), 3, 2), seed=0, grouping=by_row)


def test_rows_of_a_loop_are_where_they_were_made():
    def running(x):
        _, sums = lax.scan(lambda c, row: (c + row, c * row), 0.0, x * 2)
        return (sums * x).sum()

    check(running, small_numbers(np.random.default_rng(8), 4), seed=0, grouping=one_each)


@pytest.mark.parametrize("semiring", [sj.SumProduct(), sj.MaxProduct(), sj.TopK(2), sj.Entropy()])
def test_what_was_not_selected_is_worth_nothing(semiring):
    """Across an infinite edge that follows, too, forward and where the two sweeps meet."""

    def f(x):
        with jax.named_scope("root"):
            root = jnp.sqrt(jax.nn.relu(x))
        return (root * jnp.array([2.0, 3.0])).sum()

    call = Call(f, (jnp.array([4.0, -1.0]),), {}, caller="test")
    groups = group_nodes(call.run, lambda array: len(array.scope))
    flow = Crossings(call.run, call.sources, call.end, groups).flow(semiring)
    for leaf in jax.tree.leaves([flow.crossing, flow.starting, flow.through(5)]):
        assert not np.isnan(leaf).any()
    first = np.ravel(jax.tree.leaves(semiring.readout(flow.whole()))[0])[0]
    assert first == pytest.approx(0.0 if isinstance(semiring, sj.Entropy) else 0.5)


def test_the_largest_that_are_enough():
    shares = np.array([0.1, 0.4, 0.0, 0.1, 0.4])
    assert sorted(largest(shares, 0.5)) == [1, 4]
    assert sorted(largest(shares, 0.3)) == [1, 4]  # equal ones stay together
    assert sorted(largest(shares, 0.85)) == [0, 1, 3, 4]
    assert sorted(largest(shares, 1.0)) == [0, 1, 3, 4]
    assert len(largest(np.zeros(3), 1.0)) == 0
