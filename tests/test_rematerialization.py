"""Functions with jax.checkpoint: the same numbers, computed again where its policy says so."""

import functools

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import semijax as sj
from semijax import native
from semijax.evaluation import Inside, evaluate

POLICIES = {
    "nothing": None,
    "everything": jax.checkpoint_policies.everything_saveable,
    "products": jax.checkpoint_policies.dots_saveable,
    "named": jax.checkpoint_policies.save_only_these_names("hidden"),
    "moved": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["hidden"],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}
SEMIRINGS = {
    "sum": sj.SumProduct(),
    "max": sj.MaxProduct(),
    "entropy": sj.Entropy(),
    "count": sj.PathCount(),
    "top": sj.TopK(3),
}
W = np.random.default_rng(0).standard_normal((3, 6, 6)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)


def layer(x, w):
    hidden = checkpoint_name(jnp.sin(x @ w), "hidden")
    return x + jnp.tanh(hidden) @ w.T


def network(wrap):
    def f(x, w):
        for each in w:
            x = wrap(layer)(x, each)
        return jnp.sin(x).sum()

    return f


def scanned(wrap):
    def f(x, w):
        return jnp.sin(jax.lax.scan(lambda x, w: (wrap(layer)(x, w), None), x, w)[0]).sum()

    return f


def nested(wrap):
    def two(x, w):
        return wrap(layer)(wrap(layer)(x, w[0]), w[1])

    def f(x, w):
        return jnp.sin(wrap(layer)(wrap(two)(x, w[:2]), w[2])).sum()

    return f


def of_tuples(wrap):
    """A checkpoint with several results, one of them an input, and an integer among its inputs."""

    def part(x, n, w):
        return jnp.sin(x) * n, x, jnp.tanh(x @ w)

    def f(x, w):
        a, b, c = wrap(part)(x, jnp.arange(6), w[0])
        return wrap(lambda a, b: (a * b).sum())(a, c) + b.sum()

    return f


FUNCTIONS = {f.__name__: f for f in (network, scanned, nested, of_tuples)}


def remat(policy):
    return functools.partial(jax.checkpoint, policy=POLICIES[policy])


def operations(f, *args):
    """How many times a compiled function evaluates sin, cos and tanh."""
    return jax.jit(f).lower(*args).compile().cost_analysis()["transcendentals"]


@pytest.mark.parametrize("policy", ["nothing", "named"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_numbers_are_those_without(name, policy):
    f, g = FUNCTIONS[name](remat(policy)), FUNCTIONS[name](lambda f: f)
    for semiring in SEMIRINGS.values():
        expected = sj.semiring_grad(g, semiring, argnums=(0, 1))(X, W)
        for transform in (lambda f: f, jax.jit):
            found = transform(sj.semiring_grad(f, semiring, argnums=(0, 1)))(X, W)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), found, expected)


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "moved"])
@pytest.mark.parametrize("name", ["network", "nested", "of_tuples"])
def test_it_computes_again_what_the_gradient_computes_again(name, policy):
    f = FUNCTIONS[name](remat(policy))
    found = operations(sj.semiring_grad(f, sj.SumProduct()), X, W)
    assert found == operations(jax.grad(f), X, W)
    kept = operations(sj.semiring_grad(FUNCTIONS[name](lambda f: f), sj.SumProduct()), X, W)
    assert found > kept if policy == "nothing" else found >= kept


def test_what_a_policy_moves_elsewhere_is_kept():
    moved, named = (
        sj.semiring_grad(network(remat(p)), sj.MaxProduct()) for p in ("moved", "named")
    )
    assert operations(moved, X, W) == operations(named, X, W)


@pytest.mark.parametrize("prevent_cse", [False, (True, False)])
def test_what_need_not_be_kept_apart(prevent_cse):
    f = network(functools.partial(jax.checkpoint, prevent_cse=prevent_cse))
    found = operations(sj.semiring_grad(f, sj.SumProduct()), X, W)
    plain = operations(sj.semiring_grad(network(lambda f: f), sj.SumProduct()), X, W)
    assert found == operations(jax.grad(f), X, W)
    assert found > plain if prevent_cse else found == plain


def test_it_keeps_little():
    x, w = (jax.ShapeDtypeStruct(s, "float32") for s in ((256, 32), (12, 32, 32)))

    def temporary(transform, wrap):
        # As few instructions at once as on an accelerator; XLA's own order for a CPU keeps more.
        options = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
        program = jax.jit(transform(network(wrap))).lower(x, w).compile(options)
        return program.memory_analysis().temp_size_in_bytes

    # Without the kernels, the maxima of one contraction alone take more than all of this.
    by_kernels = [sj.AbsMaxProduct()] if native.target() else []
    for semiring in (sj.SumProduct(), *by_kernels):
        transform = functools.partial(sj.semiring_grad, semiring=semiring)
        bound = 1.3 * temporary(jax.grad, jax.checkpoint)
        assert temporary(transform, jax.checkpoint) <= bound < temporary(transform, lambda f: f)


def test_side_effects_happen_once():
    calls = []

    def noisy(x):
        noise = jax.experimental.io_callback(
            lambda: calls.append(0) or np.float32(2 * len(calls)), jax.ShapeDtypeStruct((), x.dtype)
        )
        return jnp.sin(x * noise)

    f = jax.checkpoint(noisy)
    for transform in (lambda f: f, jax.jit):
        calls.clear()
        gradient = transform(sj.semiring_grad(lambda x: f(f(x)), sj.SumProduct()))(0.3)
        jax.effects_barrier()
        assert len(calls) == 2
        np.testing.assert_allclose(gradient, 8 * np.cos(0.6) * np.cos(4 * np.sin(0.6)), 1e-5)


def test_a_mutable_array_is_written_once():
    def counted(x):
        count = jax.new_ref(jnp.zeros((), jnp.int32))
        count[...] = jnp.array(3, jnp.int32)
        return jnp.sin(x * count[...])

    for f in (jax.checkpoint(counted), counted):
        gradient = jax.jit(sj.semiring_grad(lambda x, f=f: f(f(x)), sj.SumProduct()))(0.3)
        np.testing.assert_allclose(gradient, 9 * np.cos(0.9) * np.cos(3 * np.sin(0.9)), 1e-5)


def test_two_runs_are_compared_inside():
    other = X[::-1]
    for weighting in (sj.Contrast(other, W), sj.Relevance()):
        found, expected = (
            jax.jit(sj.semiring_grad(network(wrap), sj.MaxProduct(), weighting=weighting))(X, W)
            for wrap in (jax.checkpoint, lambda f: f)
        )
        np.testing.assert_allclose(found, expected, 1e-4, 1e-5)


def test_it_composes():
    expected = jax.vmap(sj.semiring_grad(network(lambda f: f), sj.Entropy()), (0, None))(X, W)
    gradient = sj.semiring_grad(network(jax.checkpoint), sj.Entropy())
    found = jax.jit(jax.vmap(gradient, (0, None)))(X, W)
    np.testing.assert_allclose(found, expected, 1e-4, 1e-5)

    def penalty(w, wrap):
        return sj.semiring_grad(network(wrap), sj.Entropy())(X, w).sum()

    found, expected = (
        jax.jit(jax.grad(functools.partial(penalty, wrap=wrap)))(W)
        for wrap in (jax.checkpoint, lambda f: f)
    )
    np.testing.assert_allclose(found, expected, 1e-3, 1e-4)


@pytest.mark.parametrize("check_vma", [False, True])
def test_in_shard_map(check_vma):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec

    def gradient(x, w):
        return sj.semiring_grad(network(jax.checkpoint), sj.MaxProduct())(x, w)

    mapped = jax.shard_map(
        gradient, mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"), check_vma=check_vma
    )
    expected = sj.semiring_grad(network(lambda f: f), sj.MaxProduct())(X, W)
    np.testing.assert_allclose(jax.jit(mapped)(X, W), expected, 1e-4, 1e-5)


@pytest.mark.parametrize("policy", ["nothing", "products"])
def test_around_what_shard_map_maps(policy):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec

    def mapped(wrap):
        def f(x, w):
            each = jax.shard_map(wrap(layer), mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"))
            return each(each(x, w[0]), w[1]).sum()

        return f

    found, plain = (
        operations(sj.semiring_grad(mapped(wrap), sj.SumProduct()), X, W)
        for wrap in (remat(policy), lambda f: f)
    )
    again = operations(sj.semiring_grad(stacked(remat(policy)), sj.SumProduct()), X, W)
    assert found == again != plain


def test_all_of_a_checkpoints_results_have_arrived_before_it_computes_again():
    def f(x, w):
        y, extra = jax.checkpoint(lambda x: (layer(x, w), jnp.tanh(x).sum()))(x)
        return jnp.sin(y).sum() + 3 * extra

    jaxpr = jax.make_jaxpr(sj.semiring_grad(f, sj.SumProduct()))(X, W[0])
    (barrier,) = (e for e in equations_in(jaxpr) if e.primitive.name == "optimization_barrier")
    shapes = [v.aval.shape for v in barrier.invars]
    assert sorted(shapes) == [(), X.shape, X.shape, W[0].shape]  # extra's and y's, x and w
    np.testing.assert_allclose(
        sj.semiring_grad(f, sj.SumProduct())(X, W[0]), jax.grad(f)(X, W[0]), 1e-5, 1e-5
    )


def stacked(wrap):
    return lambda x, w: wrap(layer)(wrap(layer)(x, w[0]), w[1]).sum()


def test_numbers_that_stay_are_not_computed_again():
    """Outside of jit, where the values of the forward pass stay."""
    count = 0

    def counted(x):
        nonlocal count
        count += 1
        return np.asarray(x)

    def noisy(x, w):
        seen = jax.lax.stop_gradient(x)
        return layer(x, w) * jax.pure_callback(counted, seen, seen)

    def times(wrap):
        nonlocal count
        count = 0
        sj.semiring_grad(lambda x: wrap(noisy)(x, W[0]).sum(), sj.SumProduct())(jnp.asarray(X))
        return count

    assert times(jax.checkpoint) == times(lambda f: f) > 0


def test_verbs_other_than_the_reverse_sweep():
    f, g = network(jax.checkpoint), network(lambda f: f)
    for semiring in (sj.MaxProduct(), sj.Entropy()):
        tangents = (semiring.lift(jnp.asarray(X)),)
        found, expected = (
            sj.semiring_jvp(functools.partial(h, w=W), (X,), tangents, semiring) for h in (f, g)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4), found, expected)
    assert sj.top_paths(f, 3)(X, W)[0].weight == pytest.approx(sj.top_paths(g, 3)(X, W)[0].weight)
    sites = [sj.list_sites(h)(X, W).names for h in (f, g)]
    assert sites[0] == sites[1]
    found, expected = (sj.site_flow(h, sj.AbsSumProduct(), "hidden")(X, W) for h in (f, g))
    for a, b in zip(jax.tree.leaves(dict(found)), jax.tree.leaves(dict(expected)), strict=True):
        np.testing.assert_allclose(a, b, 1e-4)


def test_the_iterations_of_a_scan_are_computed_as_often_as_in_a_checkpoint():
    """The forward pass keeps what each starts from; the sweep computes the body once more."""
    f, g = scanned(lambda f: f), scanned(functools.partial(jax.checkpoint, prevent_cse=False))

    def whole(wrapped):  # whose sweep needs the value that the scan returns
        return lambda x, w: jnp.tanh(wrapped(x, w))

    found = operations(sj.semiring_grad(whole(f), sj.SumProduct()), X, W)
    assert found == operations(jax.grad(whole(g)), X, W)


def test_a_scan_runs_once_each_way_and_is_unrolled_as_written():
    def f(x, w):
        return jax.lax.scan(lambda x, w: (layer(x, w), None), x, w, unroll=3)[0].sum()

    def scans(g):
        jaxpr = jax.make_jaxpr(g)(X, W)
        return [e.params["unroll"] for e in equations_in(jaxpr) if e.primitive.name == "scan"]

    assert scans(sj.semiring_grad(f, sj.SumProduct())) == [3, 3]
    # One forward pass; without what it keeps, each of three sweeps would run another one first.
    flow = functools.partial(sj.site_flow, semiring=sj.SumProduct(), sites="hidden")
    assert len(scans(lambda x, w: flow(f)(x, w)["hidden"])) == 6


def equations_in(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations_in(inner)


def test_a_forward_sweep_keeps_no_iterations():
    x = jnp.ones(2**16)

    def f(x):
        return jax.lax.fori_loop(0, 64, lambda _, x: jnp.sin(x), x).sum()

    kept = []

    def keep(graph, runs):
        found = evaluate(graph, runs)
        kept.append([value for value in found.values.values() if isinstance(value, Inside)])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semijax.transforms.evaluate", keep)
        sj.semiring_jvp(f, (x,), (x,), sj.SumProduct())
        sj.semiring_grad(f, sj.SumProduct())(x)
    assert kept[0] == []
    assert [start.shape for start in kept[1][0].starts if start.size > 64] == [(64, 2**16)]


def shapes_in(jaxpr):
    """The shapes of all arrays that a program computes, those inside of loops too."""
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars if hasattr(v.aval, "shape"))
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from shapes_in(inner)


def test_attention_by_blocks_makes_no_whole_matrix():
    """Softmax over one block of keys after another, as flash attention does it."""
    tokens, width, block = 256, 8, 32

    def attention(x):
        def more(state, keys):
            largest, total, mixed = state
            scores = x @ keys.T  # [token, block]
            new = jnp.maximum(largest, scores.max(-1))
            weights, before = jnp.exp(scores - new[:, None]), jnp.exp(largest - new)
            total = total * before + weights.sum(-1)
            return (new, total, mixed * before[:, None] + weights @ keys), None

        start = jnp.full(tokens, -1e30), jnp.zeros(tokens), jnp.zeros_like(x)
        (_, total, mixed), _ = jax.lax.scan(more, start, x.reshape(-1, block, width))
        return mixed / total[:, None]

    x = jnp.asarray(np.random.default_rng(0).standard_normal((tokens, width)), jnp.float32)
    expected = jax.grad(lambda x: (jax.nn.softmax(x @ x.T) @ x)[3, 0])(x)
    found = sj.semiring_grad(lambda x: attention(x)[3, 0], sj.SumProduct())(x)
    np.testing.assert_allclose(found, expected, 1e-3, 1e-4)
    for semiring in SEMIRINGS.values():
        program = jax.make_jaxpr(sj.semiring_grad(lambda x: attention(x)[3, 0], semiring))(x)
        shapes = {*shapes_in(program.jaxpr)}
        assert any({tokens, block} <= {*shape} for shape in shapes)
        assert not any(shape.count(tokens) > 1 for shape in shapes)
