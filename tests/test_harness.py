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

# JAX has no gradient of some cases of these groups, so there is nothing to compare them with.
NO_GRADIENT_OF_SOME = {
    "clamp": "its rule fails where the bounds are scalars and differentiated",
    "custom_linear_solve": "no transpose_solve was given",
    "eig": "eigenvectors of a matrix that may not be symmetric",
    "reduce": "a rule for one operand only, and not for every computation",
    "reduce_window_add": "a rule for the initial value 0 only",
    "reduce_window_max": "a rule for the initial value -inf only",
    "reduce_window_min": "a rule for the initial value inf only",
    "scatter_mul": "a rule for unique indices only",
    "select_and_gather_add": "no transpose with window dilation",
    "svd": "none with full matrices",
}

# Groups of which no case can be compared. Every other group must have one.
NO_CASE = {
    "argmax": "no floating result",
    "argmin": "no floating result",
    "conj": "the harness binds it without a parameter that its transpose needs",
    "eq": "no floating result",
    "ge": "no floating result",
    "gt": "no floating result",
    "iota": "no floating argument",
    "is_finite": "no floating result",
    "le": "no floating result",
    "lt": "no floating result",
    "mul": "the harness binds it without a parameter that its transpose needs",
    "ne": "no floating result",
    "random_categorical": "no floating result",
    "random_uniform": "no floating argument",
    "reduce_window_mul": "JAX has no rule for it",
    "regularized_incomplete_beta": "JAX has no gradient with respect to a and b",
}
if jax.__version_info__ < (0, 12):
    NO_CASE["nextafter"] = "JAX has no rule for it"
else:
    for reduction in ("reduce_max", "reduce_min"):
        NO_CASE[reduction] = "the harness binds it without a parameter that its rule needs"

# The dense Jacobian of one equation is the oracle for the other semirings. Some groups have none.
NO_DENSE_JACOBIAN = {
    "complex": "its real and imaginary parts are further equations",
    "convert_element_type": "all cases are too large",
    "eig": "the real and imaginary parts of its results are further equations",
    "eigh": "the matrix is first made symmetric",
    "fft": "the real and imaginary parts of its result are further equations",
    "stop_gradient": "nothing flows",
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


def cotangents_of(function, primals):
    """Random ones, a list like the outputs of the function."""
    rng = np.random.RandomState(1)
    outs = jax.eval_shape(function, *primals)
    return [jnp.asarray(rng.randn(*out.shape), out.dtype) for out in outs]


def jax_vjp(function):
    return lambda primals, cotangents: jax.vjp(function, *primals)[1](cotangents)


def differentiable_cases(group):
    """Name, function, primals and cotangents of the cases that JAX has a gradient of."""
    for harness in groups()[group]:
        function, primals = real_function(harness)
        if not primals:
            continue
        try:
            cotangents = cotangents_of(function, primals)
            jax.eval_shape(jax_vjp(function), primals, cotangents)
        except Exception as error:
            known = group in NO_GRADIENT_OF_SOME or group in NO_CASE
            assert known, f"{harness.fullname}: {error}"
        else:
            if cotangents:
                yield harness.fullname, function, primals, cotangents


def check_sum(group, limit):
    checked = 0
    for case, function, primals, cotangents in itertools.islice(differentiable_cases(group), limit):
        expected = quick_jit(jax_vjp(function))(primals, cotangents)

        @quick_jit
        def pulled(primals, cotangents, function=function):
            return sj.semiring_vjp(function, *primals, semiring=sj.SumProduct())[1](cotangents)

        for got, want in zip(pulled(primals, cotangents), expected, strict=True):
            # JAX rounds the cotangent to the reduced precision too; the sweep does not.
            rtol = 2**-7 if group == "reduce_precision" else 1e-3
            atol = 1e-4 * _scale(want)
            np.testing.assert_allclose(got, want, rtol, atol, err_msg=case)
        checked += 1
    assert (checked == 0) == (group in NO_CASE), f"{checked} cases"


def check_every_semiring(group, limit):
    checked = 0
    cases = (case for case in differentiable_cases(group) if has_one_equation(*case[1:]))
    for case, function, primals, cotangents in itertools.islice(cases, limit):
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
                compare(name, got[name], want[name], case)
        checked += 1
    without = group in NO_CASE or group in NO_DENSE_JACOBIAN
    assert (checked == 0) == without, f"{checked} cases"


def has_one_equation(function, primals, cotangents):
    """Whether the case is one equation of a size for which the whole Jacobian can be had."""
    graph, _ = trace(function, *primals)
    edges = sum(p.size for p in primals) * sum(c.size for c in cotangents)
    return sum(bool(equation.wrt) for equation in graph.equations) == 1 and 0 < edges < 4e5


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


def test_the_groups_without_a_case_are_groups():
    assert NO_GRADIENT_OF_SOME.keys() | NO_CASE.keys() | NO_DENSE_JACOBIAN.keys() <= groups().keys()


@pytest.mark.parametrize("group", sorted(groups()))
def test_sum_is_the_gradient(group):
    check_sum(group, limit=3)


@pytest.mark.parametrize("group", sorted(groups()))
def test_every_semiring_is_its_product_with_the_jacobian(group):
    check_every_semiring(group, limit=1)


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted(groups()))
def test_sum_is_the_gradient_on_all_cases(group):
    check_sum(group, limit=None)


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted(groups()))
def test_every_semiring_is_its_product_with_the_jacobian_on_all_cases(group):
    check_every_semiring(group, limit=None)
