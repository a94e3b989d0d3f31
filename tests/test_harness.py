"""Every primitive, against JAX's own test harness: the sum is ``jax.vjp``, and every other semiring
is its own product of the dense Jacobian and the cotangent.

The harness is a part of the JAX wheel, a private one; nothing but this test rests on it.
"""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.internal_test_util import test_harnesses

import semijax as sj
from semijax import elements as el
from semijax.semirings import Semiring, as_semiring
from semijax.trace.graph import trace

from .compilation import quick_jit

# JAX has no gradient of these, so there is nothing to compare with.
NO_GRADIENT = {
    "clamp": "its rule fails where the bounds are scalars and differentiated",
    "conj": "the harness binds it without a parameter that its transpose needs",
    "custom_linear_solve": "no transpose_solve was given",
    "eig": "eigenvectors of a matrix that may not be symmetric",
    "mul": "the harness binds it without a parameter that its transpose needs",
    "nextafter": "no rule",
    "reduce": "a rule for one operand only, and not for every computation",
    "reduce_max": "from 0.12 on the harness binds it without a parameter that its rule needs",
    "reduce_min": "from 0.12 on the harness binds it without a parameter that its rule needs",
    "reduce_window_add": "a rule for the initial value 0 only",
    "reduce_window_max": "a rule for the initial value -inf only",
    "reduce_window_min": "a rule for the initial value inf only",
    "reduce_window_mul": "no rule",
    "regularized_incomplete_beta": "none with respect to a and b",
    "scatter_mul": "a rule for unique indices only",
    "select_and_gather_add": "no transpose with window dilation",
    "svd": "none with full matrices",
}

SEMIRINGS = {
    "mass": sj.AbsSumProduct(),
    "max": sj.MaxProduct(),
    "min": sj.MinProduct(),
    "abs_max": sj.AbsMaxProduct(),
    "entropy": sj.Entropy(),
    "top": sj.TopK(3),
    "count": sj.PathCount(),
    "reachable": sj.Reachability(),
}


@functools.cache
def groups():
    """The float32 cases, by group."""
    found = collections.defaultdict(list)
    for harness in test_harnesses.all_harnesses:
        if harness.dtype == np.float32:
            found[harness.group_name].append(harness)
    return found


def real_function(harness):
    """The case as a function of its floating arguments to its floating outputs, and arguments."""
    args = harness.dyn_args_maker(np.random.RandomState(0))
    places = [
        i for i, arg in enumerate(args) if jnp.issubdtype(jnp.asarray(arg).dtype, jnp.floating)
    ]

    def function(*primals):
        full = list(args)
        for i, primal in zip(places, primals, strict=True):
            full[i] = primal
        parts = []
        for leaf in jax.tree.leaves(harness.dyn_fun(*full)):
            complex_ = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
            parts += [leaf.real, leaf.imag] if complex_ else [leaf]
        return [part for part in parts if jnp.issubdtype(part.dtype, jnp.floating)]

    return function, [jnp.asarray(args[i]) for i in places]


def jax_vjp(function, primals):
    """Cotangents and JAX's answer, or None where it has none."""
    rng = np.random.RandomState(1)
    try:
        outs = jax.eval_shape(function, *primals)
        cotangents = [jnp.asarray(rng.randn(*o.shape), o.dtype) for o in outs]
        if not outs:
            return None
        pulled = quick_jit(lambda p, ct: jax.vjp(function, *p)[1](ct))(primals, cotangents)
        return cotangents, pulled
    except Exception as error:
        return error


def differentiable_cases(group, limit):
    for harness in groups()[group]:
        function, primals = real_function(harness)
        reference = jax_vjp(function, primals) if primals else None
        if isinstance(reference, Exception):
            assert group in NO_GRADIENT, f"{harness.fullname}: {reference}"
        elif reference is not None:
            yield harness, function, primals, *reference
            limit -= 1
        if not limit:
            return


def check_sum(group, limit):
    for harness, function, primals, cotangents, expected in differentiable_cases(group, limit):

        @quick_jit
        def pulled(primals, cotangents, function=function):
            return sj.semiring_vjp(function, *primals, semiring=sj.SumProduct())[1](cotangents)

        for got, want in zip(pulled(primals, cotangents), expected, strict=True):
            # JAX rounds the cotangent to the reduced precision too; the sweep does not.
            rtol = 2**-7 if group == "reduce_precision" else 1e-3
            atol = 1e-4 * _scale(want)
            np.testing.assert_allclose(got, want, rtol, atol, err_msg=harness.fullname)


def check_every_semiring(group, limit):
    cases = (case for case in differentiable_cases(group, -1) if has_one_equation(*case[1:4]))
    for harness, function, primals, cotangents, _ in itertools.islice(cases, limit):
        products = as_semiring(SEMIRINGS)

        @quick_jit
        def both(primals, cotangents, function=function, products=products):
            elements = {k: [s.lift(c) for c in cotangents] for k, s in SEMIRINGS.items()}
            pulled = sj.semiring_vjp(function, *primals, semiring=SEMIRINGS)[1](elements)
            jacobians = jax.jacrev(function, tuple(range(len(primals))))(*primals)
            oracles = [
                {k: oracle(s, i, jacobians, cotangents) for k, s in SEMIRINGS.items()}
                for i in range(len(primals))
            ]
            return [products.readout(p) for p in pulled], oracles

        for got, want in zip(*both(primals, cotangents), strict=True):
            for name in SEMIRINGS:
                compare(name, got[name], want[name], harness.fullname)


def has_one_equation(function, primals, cotangents):
    """Whether the case is one equation of a size for which the whole Jacobian can be had."""
    graph, _ = trace(function, *primals)
    edges = sum(p.size for p in primals) * sum(c.size for c in cotangents)
    return sum(bool(equation.wrt) for equation in graph.equations) == 1 and 0 < edges < 2e5


def oracle(semiring, i, jacobians, cotangents):
    """⊕ lift(∂o/∂i) ⊗ cotangent by the defaults of the base class, without and with the edges of
    weight 0: the Jacobian alone does not say whether there are such edges."""
    answers = []
    for keep_zeros in (False, True):
        total = None
        for jacobian, cotangent in zip(jacobians, cotangents, strict=True):
            weights, axes = jacobian[i], tuple(range(cotangent.ndim))
            g = el.broadcast_in_dim(semiring.lift(cotangent), weights.shape, axes)
            terms = semiring.mul(semiring.lift(weights), g)
            kept = (weights != 0) | keep_zeros
            terms = el.where(kept, terms, semiring.zero(weights.shape, weights.dtype))
            part = Semiring.sum(semiring, terms, axes)
            total = part if total is None else semiring.add(total, part)
        answers.append(semiring.readout(total))
    return answers


def compare(name, got, candidates, case):
    if name == "top":
        # A NaN leaks from one row of jacrev's Jacobian into the others, and so down the list.
        got, *candidates = (np.where(np.isnan(v[..., :1]), np.nan, v) for v in (got, *candidates))
    close = [np.isclose(got, c, 1e-3, 1e-4 * _scale(c), equal_nan=True) for c in candidates]
    assert np.logical_or(*close).all(), f"{name} of {case}: got {got}, expected {candidates[0]}"


def _scale(values):
    finite = np.abs(np.where(np.isfinite(values), values, 0)).astype(np.float32)
    return max(1e-2, float(finite.max(initial=0)))


@pytest.mark.parametrize("group", sorted(groups()))
def test_sum_is_the_gradient(group):
    check_sum(group, limit=3)


@pytest.mark.parametrize("group", sorted(groups()))
def test_every_semiring_is_its_product_with_the_jacobian(group):
    check_every_semiring(group, limit=1)


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted(groups()))
def test_sum_is_the_gradient_on_all_cases(group):
    check_sum(group, limit=-1)


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted(groups()))
def test_every_semiring_is_its_product_with_the_jacobian_on_all_cases(group):
    check_every_semiring(group, limit=None)
