"""Where paths start: at the arrays that ``source`` names, and nowhere else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

from ..compilation import quick_jit
from ..flow.oracle import ALL, Brute, by_semiring, close, keys_of, shapes_of
from ..flow.test_exact import CASES, W, X

SOME = {name: ALL[name] for name in ("sum", "abs sum", "max", "entropy", "count", "top")}

FROM = {  # a case, where paths start, and at which arrays the flow is asked for
    "residual": (["h"], ("h", "f")),
    "residual, two": (["h", "f"], ("h", "f")),
    "used twice": (["h#1"], ("h#1", "h#2")),
    "used twice, both": (["h#1", "h#2"], ("h#1", "h#2")),
    "scan": (["h"], ("h", "g")),
    "scan in reverse": (["g"], ("h", "g")),
    "nested scans": (["h"], ("h", "o")),
    "cond": (["h"], ("h", "k")),
    "cond in scan": (["odd"], ("odd", "ys")),
    "vmap": (["h"], ("h",)),
    "embedding": (["h"], ("h",)),
}


def full(name, known):
    return next(site for site in known if site == name or site.endswith(f"/{name}"))


def started(brute, case, names):
    """All paths from the elements of some arrays, each with the node that it starts from."""
    for name in names:
        key = keys_of(case, name)
        for index in np.ndindex(shapes_of(case)[name]):
            node, paths = brute.beyond.get(key(index), (None, []))
            yield from ((node, path) for path in paths)


@pytest.mark.parametrize("name", FROM)
def test_flow_is_that_of_all_paths_from_there(name):
    case = CASES[name.partition(",")[0]]
    known = shapes_of(case)
    sources, sites = ([full(name, known) for name in names] for names in FROM[name])
    brute = Brute(case.fun, case.args, case.argnums)
    paths = [*started(brute, case, sources)]
    some = (
        SOME if "scan" not in name and "cond" not in name else {k: SOME[k] for k in ("sum", "top")}
    )

    def measured(*args):
        found = sj.site_flow(case.fun, some, list(sites), source=sources)(*args)
        return found, sj.component_flow(case.fun, some, source=sources, iterations=False)(*args)

    found, components = quick_jit(measured)(*case.args)
    everything = brute.of([path for _, path in paths])
    for flow in (found, components):
        close({k: f.total for k, f in flow.items()}, everything, "total")
    for site in sites:
        key = keys_of(case, site)

        def passing(index, key=key):
            node = brute.beyond.get(key(index), (-1, []))[0]
            return [
                p for start, p in paths if node == start or (brute.graph.heads[p] == node).any()
            ]

        close(by_semiring(found, site), brute.table(shapes_of(case)[site], passing), site)
    counts = [(path, brute.components(path, None)) for _, path in paths]
    for component in next(iter(components.values())).names:
        entering = [path for path, own in counts if component in own]
        close(by_semiring(components, component), brute.of(entering), component)


def chain(x):
    """Two arrays, one behind the other, with a way around each."""
    a = sj.tap(x * 2, "a")
    b = sj.tap(jnp.sin(a), "b")
    return (jnp.tanh(b) + 3 * a).sum()


def total(source, **options):
    return float(sj.site_flow(chain, sj.SumProduct(), "tanh", source=source, **options)(X[0]).total)


def test_paths_start_at_every_source():
    assert total(["a", "b"]) == pytest.approx(total("a") + total("b"), rel=1e-6)
    assert total(["a", "a"]) == total("a")
    a = 2 * X[0]
    flow = sj.site_flow(chain, sj.SumProduct(), "b", source=["a", "b"])(X[0])["b"]
    np.testing.assert_allclose(flow, (jnp.cos(a) + 1) / jnp.cosh(jnp.sin(a)) ** 2, rtol=1e-5)


def test_all_paths_pass_where_they_start():
    flow = sj.site_flow(chain, sj.AbsSumProduct(), ["a", "[0]"], source="a")(X[0])
    grads = sj.site_grads(chain, sj.AbsSumProduct(), "a")(X[0])["a"]
    np.testing.assert_allclose(flow["a"], grads, rtol=1e-6)
    assert sum(flow.share()["a"]) == pytest.approx(1)
    np.testing.assert_array_equal(flow["[0]"], 0)  # before the source there are no paths


def test_an_argument_is_a_source_too():
    fun = lambda x, w: jnp.sin(x) @ w  # noqa: E731
    by_name = sj.site_flow(fun, sj.AbsSumProduct(), "sin", source="[0]")(X[0], W[0])["sin"]
    default = sj.site_flow(fun, sj.AbsSumProduct(), "sin")(X[0], W[0])["sin"]
    np.testing.assert_array_equal(by_name, default)
    both = sj.site_flow(fun, sj.AbsSumProduct(), "sin", source=["[0]", "[1]"])(X[0], W[0])
    assert float(both.total) > float(sum(default))


def test_elements_of_arrays():
    grads = sj.site_grads(chain, sj.AbsSumProduct(), ["a", "[0]"])(X[0])
    for source, wanted in [
        (("a", 1), grads["a"][1]),
        (("a", -2), grads["a"][1]),
        ((0, (2,)), grads["[0]"][2]),
        (("[0]", 2), grads["[0]"][2]),
        (jnp.array([True, False, True]), grads["[0]"][0] + grads["[0]"][2]),
    ]:
        run = lambda x, s=source: sj.site_flow(chain, sj.AbsSumProduct(), "b", source=s)(x)  # noqa: E731
        for flow in (run(X[0]), jax.jit(run)(X[0])):
            np.testing.assert_allclose(flow.total, wanted, rtol=1e-6)
        component = sj.component_flow(chain, sj.AbsSumProduct(), source=source)(X[0])
        np.testing.assert_allclose(component.total, wanted, rtol=1e-6)
    masked = jax.jit(lambda m: sj.site_flow(chain, sj.SumProduct(), "b", source=m)(X[0]).total)
    np.testing.assert_allclose(masked(jnp.zeros(3, bool)), 0)


def test_the_element_of_a_scalar():
    fun = lambda x: jnp.sin(sj.tap(x * 2, "a")) + x  # noqa: E731
    for source, wanted in [((0, ()), 1 + 2 * np.cos(2)), (("a", ()), np.cos(2))]:
        flow = sj.site_flow(fun, sj.SumProduct(), "a", source=source)(1.0)
        np.testing.assert_allclose(flow.total, wanted, rtol=1e-5)
        assert sum(p.weight for p in sj.top_paths(fun, 9, source=source)(1.0)) == pytest.approx(
            wanted
        )


def test_under_jit_and_vmap():
    run = lambda x: sj.site_flow(chain, sj.Entropy(), "b", source="a")(x)["b"]  # noqa: E731
    np.testing.assert_allclose(jax.jit(run)(X[0]), run(X[0]), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(run)(X), jnp.stack([run(x) for x in X]), rtol=1e-6)


def layer(x):
    with jax.named_scope("layer"):
        return x + jnp.tanh(x @ W)


def shared(x):
    """A layer that is used four times."""
    return (layer(layer(layer(layer(x)))) * X).sum()


def test_a_name_means_one_array_whatever_paths_start_from():
    values = sj.site_values(shared, "layer")(X)
    assert list(values) == [f"layer#{n}" for n in (1, 2, 3, 4)]
    to_third = lambda y: layer(layer(y))  # noqa: E731
    _, forward = jax.jvp(to_third, (values["layer#1"],), (jnp.ones_like(X),))
    backward = jax.grad(lambda y: (layer(y) * X).sum())(values["layer#3"])
    found = sj.site_flow(shared, sj.SumProduct(), "layer#3", source="layer#1")(X)
    np.testing.assert_allclose(found["layer#3"], forward * backward, rtol=1e-4, atol=1e-6)
    every = sj.site_flow(shared, sj.SumProduct(), "layer", source="layer#1")(X)
    assert list(every) == list(values)


def test_a_function_is_traced_once():
    calls = []

    def counted(x):
        calls.append(1)
        return chain(x)

    for run in (
        lambda: sj.site_flow(counted, sj.SumProduct(), "b", source="a")(X[0]),
        lambda: sj.component_flow(counted, sj.SumProduct(), source="a")(X[0]),
        lambda: sj.top_paths(counted, source="a")(X[0]),
    ):
        calls.clear()
        run()
        assert len(calls) == 1


def test_a_source_behind_itself_is_refused():
    for call in (
        sj.site_flow(shared, sj.SumProduct(), "layer#4", source="layer"),
        sj.component_flow(shared, sj.SumProduct(), source="lay*"),
        sj.top_paths(shared, source=["layer"]),
    ):
        with pytest.raises(
            ValueError, match=r"computed from another: 'layer#1', .*, 'layer#4'\. Na"
        ):
            call(X)

    def siamese(x):
        with jax.named_scope("one"):
            a = jnp.sin(x[0])
        with jax.named_scope("one"):
            b = jnp.sin(x[1])
        return (a * b).sum()

    flow = sj.site_flow(siamese, sj.SumProduct(), "mul", source="one")(X)
    assert float(flow.total) == pytest.approx(
        float((jnp.sin(X[0]) + jnp.sin(X[1])).sum()), rel=1e-5
    )


def carried(x):
    def step(c, w):
        with jax.named_scope("cell"):
            return jnp.tanh(c * w), None

    return lax.scan(step, x, jnp.asarray(W))[0].sum()


def test_sources_with_elements_in_common_are_refused():
    with pytest.raises(ValueError, match="'cell' and 'cell:input' have elements in common"):
        sj.site_flow(carried, sj.SumProduct(), "cell", source=["cell:input", "cell"])(X[0])
    one = sj.site_flow(carried, sj.SumProduct(), "cell", source="cell:input")(X[0])
    grads = sj.site_grads(carried, sj.SumProduct(), "cell:input")(X[0])["cell:input"]
    assert float(one.total) == pytest.approx(float(grads.sum()), rel=1e-5)


def test_elements_of_an_array_in_a_loop():
    with pytest.raises(NotImplementedError, match="'cell' lies in a loop"):
        sj.site_flow(carried, sj.SumProduct(), "cell", source=("cell", (2, 0)))(X[0])


@pytest.mark.parametrize("function", [sj.site_flow, sj.component_flow])
def test_what_is_no_source(function):
    given = [sj.SumProduct(), *(["sin"] if function is sj.site_flow else [])]
    call = functools.partial(function, lambda x: jnp.sin(x * 1.0).sum(), *given)
    with pytest.raises(TypeError, match=r"real-valued inputs.*give its name as source"):
        call()(jnp.arange(3))
    for source, error, message in [
        ("cosine", ValueError, "No site matches 'cosine'"),
        ([], ValueError, "got no name"),
        (("sin", 3), IndexError, r"index 3 is out of range for sin, which has shape \(3,\)"),
        ((1, 0), ValueError, r"called '\[1\]'. The nearest are '\[0\]'"),
        (np.ones(2, bool), ValueError, r"must have shape \(3,\), got \(2,\)"),
        (np.ones(3), TypeError, "must be boolean"),
        ({"x": np.ones(3, bool)}, ValueError, "structure of the differentiated argument"),
    ]:
        with pytest.raises(error, match=message):
            call(source=source)(jnp.ones(3))
    with pytest.raises(ValueError, match="among those that are traced"):
        function(lambda x, y: jnp.sin(x * y).sum(), *given, argnums=1, traced=0)(X, X)


def test_what_is_looked_at_must_not_be_traced():
    def choosing(x, rate):
        return (jnp.sin(x) if rate > 0 else x).sum()

    with pytest.raises(jax.errors.JAXTypeError) as error:
        sj.site_flow(choosing, sj.SumProduct(), "sin")(X, 0.5)
    assert "traced=… says which" in "".join(error.value.__notes__)
    for call in (
        sj.site_flow(choosing, sj.SumProduct(), "sin", traced=0),
        sj.site_grads(choosing, sj.SumProduct(), "sin", traced=0),
        sj.top_paths(choosing, traced=0),
    ):
        assert len(call(X, 0.5))
