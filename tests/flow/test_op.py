"""Granularity ``"op"``: against linear maps of whole equations, and Du et al.'s own code."""

import dataclasses
import functools
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax.flow import branch_flow, component_flow, site_flow, site_grads

from .. import test_golden as golden
from ..compilation import quick_jit
from .oracle import ALL, measured
from .test_exact import CASES, W, X, attention, residual


def by_operations(fun, *args):
    """The largest and the smallest weight, by linear maps of whole equations."""
    jaxpr = jax.make_jaxpr(fun)(*args)
    state = {}

    known = dict(
        zip([*jaxpr.jaxpr.constvars, *jaxpr.jaxpr.invars], [*jaxpr.consts, *args], strict=True)
    )
    pulls = []
    for eqn in jaxpr.eqns:
        operands = [v.val if hasattr(v, "val") else known[v] for v in eqn.invars]
        dtypes = [jnp.result_type(v) for v in operands]
        floating = [n for n, dtype in enumerate(dtypes) if jnp.issubdtype(dtype, jnp.floating)]
        bind = functools.partial(_bind, eqn)
        known.update(zip(eqn.outvars, bind(*operands), strict=True))
        pulls.append((eqn, operands, floating, bind))
    (out,) = jaxpr.jaxpr.outvars
    state[out] = (jnp.ones(()), jnp.ones(()))
    for eqn, operands, floating, bind in reversed(pulls):
        pairs = [state.get(v) for v in eqn.outvars]
        if all(pair is None for pair in pairs) or not floating:
            continue

        def of_floating(*xs, operands=operands, floating=floating, bind=bind):
            full = list(operands)
            for n, x in zip(floating, xs, strict=True):
                full[n] = x
            return bind(*full)

        outs, pull = jax.vjp(of_floating, *(jnp.asarray(operands[n]) for n in floating))
        ends = [
            pull(
                [jnp.zeros_like(o) if p is None else p[k] for o, p in zip(outs, pairs, strict=True)]
            )
            for k in range(2)
        ]
        for n, a, b in zip(floating, *ends, strict=True):
            v, pair = eqn.invars[n], (jnp.maximum(a, b), jnp.minimum(a, b))
            if hasattr(v, "val"):
                continue
            old = state.get(v, pair)
            state[v] = jnp.maximum(old[0], pair[0]), jnp.minimum(old[1], pair[1])
    return [state[v] for v in jaxpr.jaxpr.invars]


def _bind(eqn, *values):
    if "jaxpr" in eqn.params and eqn.primitive.name == "jit":
        return list(jax.core.jaxpr_as_fun(eqn.params["jaxpr"])(*values))
    out = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


MIXED = {
    "products": lambda x, w: (jnp.sin(x) @ w * x * x @ w[0]).sum() + (x[0] * x[1]).sum(),
    "attention": lambda x, w: attention(x[:, :2]) + (w * w.T).sum(),
    "norm": lambda x, w: ((x - x.mean()) * lax.rsqrt((x**2).mean(-1, keepdims=True)) @ w).sum(),
    "sorted": lambda x, w: (lax.sort((x, x * 2), num_keys=1)[1] @ w).sum() + jnp.max(x),
}


@pytest.mark.parametrize("name", MIXED)
def test_op_is_a_linear_map_per_equation(name):
    args = jnp.asarray(X), jnp.asarray(W)
    signed = {"max": sj.MaxProduct(), "min": sj.MinProduct(), "abs max": sj.AbsMaxProduct()}
    grads = quick_jit(sj.semiring_grad(MIXED[name], signed, (0, 1), granularity="op"))(*args)
    for n, (high, low) in enumerate(by_operations(MIXED[name], *args)):
        np.testing.assert_allclose(grads["max"][n], high, 1e-4, 1e-5)
        np.testing.assert_allclose(grads["min"][n], low, 1e-4, 1e-5)
        largest = np.maximum(np.abs(high), np.abs(low))
        np.testing.assert_allclose(grads["abs max"][n], largest, 1e-4, 1e-5)


@pytest.mark.parametrize("path", golden.FILES, ids=lambda path: path.stem)
def test_op_is_what_brunoflow_computes(path):
    fun, inputs, _, _ = golden.load(path)
    recorded = json.loads(pathlib.Path(path).read_text())["brunoflow"]
    signed = {"max_pos": sj.MaxProduct(), "max_neg": sj.MinProduct()}
    with jax.enable_x64(True):
        args = [jnp.asarray(value) for value in inputs.values()]
        of = fun, signed, tuple(range(len(args)))
        found = quick_jit(sj.semiring_grad(*of, granularity="op"))(*args)
    for (n, name), key in itertools.product(enumerate(inputs), signed):
        got = np.where(np.isinf(found[key][n]), 0, found[key][n])
        np.testing.assert_allclose(got, recorded[name][key], 1e-9, 1e-12, err_msg=f"{name} {key}")


@pytest.mark.parametrize("name", ["residual", "nested scans"])
def test_op_is_the_same_where_oplus_adds(name):
    case = dataclasses.replace(CASES[name], depths=(1,), branches={})
    additive = {key: s for key, s in ALL.items() if s.additive}
    assert {*additive} == {"sum", "abs sum", "entropy", "length", "count", "reach", "feature"}
    if name != "residual":
        additive = {key: additive[key] for key in ("sum", "entropy", "reach")}
    found = [
        quick_jit(measured(case, additive, granularity=g))(*case.args) for g in ("element", "op")
    ]
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
        *(jax.tree.leaves(each) for each in found),
    )


@pytest.mark.parametrize("function", [site_grads, site_flow, branch_flow])
def test_op_is_not_for_top_k(function):
    with pytest.raises(TypeError, match="op"):
        function(residual, sj.TopK(3), "h", granularity="op")
    with pytest.raises(TypeError, match="op"):
        component_flow(residual, sj.TopK(3), granularity="op")
