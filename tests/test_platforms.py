"""``lax.platform_dependent``: paths lead through the branch for this platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

import semijax as sj

X = jnp.array([0.3, -1.0, 2.0], jnp.float32)

fast_sin_p = Primitive("fast_sin")
"""A kernel that only a TPU can run."""
fast_sin_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(fast_sin_p, mlir.lower_fun(jnp.sin, multiple_results=False), platform="tpu")
batching.defvectorized(fast_sin_p)


@jax.custom_jvp
def fast_sin(x):
    return fast_sin_p.bind(x)


fast_sin.defjvp(lambda p, t: (fast_sin(p[0]), jnp.cos(p[0]) * t[0]))


def sin(x):
    return lax.platform_dependent(x, tpu=lambda x: jnp.tanh(fast_sin(x)), default=plain)


def plain(x):
    return jnp.tanh(jnp.sin(x))


def total(layer):
    return lambda x: layer(x).sum()


def in_scan(layer):
    return lambda x: lax.scan(lambda c, t: (layer(c) * t, None), x, jnp.arange(1.0, 3.0))[0].sum()


def in_cond(layer):
    """In a branch, within another choice of platform."""

    def taken(x):
        return lax.platform_dependent(x, tpu=fast_sin, default=layer)

    return lambda x: lax.cond(x[0] > 0, taken, lambda x: x, x).sum()


def in_while(layer):
    step = lambda s: (s[0] + 1, layer(s[1]))  # noqa: E731
    return lambda x: lax.while_loop(lambda s: s[0] < 2, step, (0, x))[1].sum()


PROGRAMS = [total, in_scan, in_cond]
SEMIRINGS = {"sum": sj.SumProduct(), "max": sj.MaxProduct(), "entropy": sj.Entropy()}


def alike(ask, layers=(sin, plain)):
    found, expected = (jax.tree.leaves(ask(layer)) for layer in layers)
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("compile", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_sweeps(program, compile):
    alike(lambda layer: compile(sj.semiring_grad(program(layer), SEMIRINGS))(X))


def test_the_sum_is_the_gradient_of_jax():
    for program in PROGRAMS:
        found = sj.semiring_grad(program(sin), sj.SumProduct())(X)
        np.testing.assert_allclose(found, jax.grad(program(sin))(X), 1e-5)


@pytest.mark.parametrize("program", [*PROGRAMS, in_while])
def test_forward_sweeps(program):
    ones = sj.MaxProduct().one(X.shape, X.dtype)
    alike(lambda layer: sj.semiring_jvp(program(layer), (X,), (ones,), sj.MaxProduct()))


def test_under_vmap():
    batch = jnp.stack([X, 2 * X])
    alike(lambda layer: jax.vmap(sj.semiring_grad(in_scan(layer), sj.MaxProduct()))(batch))


@pytest.mark.parametrize("program", [*PROGRAMS, in_while])
def test_path_searches(program):
    alike(lambda layer: [path.weight for path in sj.top_paths(program(layer), k=3)(X)])
    path = sj.top_paths(program(sin))(X)[0]
    assert {node.primitive for node in path.nodes} >= {"sin", "tanh"}
    assert path.verify() < 1e-5


@pytest.mark.parametrize("program", PROGRAMS)
def test_sites_and_ablation(program):
    alike(lambda layer: sj.site_flow(program(layer), sj.AbsSumProduct(), "sin")(X)["sin"])
    alike(lambda layer: sj.site_values(program(layer), "sin")(X))
    alike(lambda layer: sj.ablate(program(layer), "sin")(X))
    alike(lambda layer: sj.component_flow(program(layer), sj.AbsMaxProduct())(X).elements)


def test_on_a_platform_that_has_the_kernel():
    """It compiles for a TPU with the kernel, and for the CPU not without the other branch."""
    gradient = jax.jit(sj.semiring_grad(in_scan(sin), sj.SumProduct()))
    assert jax.export.export(gradient, platforms=["tpu"])(X).platforms == ("tpu",)
    only_fast = jax.jit(sj.semiring_value_and_grad(total(fast_sin), sj.SumProduct()))
    with pytest.raises(NotImplementedError, match="fast_sin"):
        only_fast(X)
