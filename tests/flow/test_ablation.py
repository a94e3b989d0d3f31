"""``ablate``, ``site_values``, ``faithfulness``, ``randomization_test``, against loops by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj

X = jnp.array([[0.3, -0.8, 0.5], [1.1, 0.2, -0.4]])
ROWS = np.array([True, False])
WEIGHTS = jax.random.normal(jax.random.key(0), (3, 4))


def constant(value):
    return lambda h: jnp.broadcast_to(jnp.asarray(value, h.dtype), h.shape)


def mean(h):
    return jnp.broadcast_to(h.mean(tuple(range(h.ndim - 1)), keepdims=True), h.shape)


def plain(x, edit=lambda h: h):
    return edit(jnp.sin(x)) * 2 + x


def called(x, edit=lambda h: h):
    return jax.checkpoint(jax.jit(lambda x: edit(jnp.sin(x)) * x))(x)


def mapped(x, edit=lambda h: h):
    """The edit sees all rows, as the site does."""
    h = edit(jax.vmap(lambda row: jnp.sin(row))(x))
    return {"sum": h.sum(), "best": jnp.argmax(h), "none": None}


def branching(x, edit=lambda h: h):
    return lax.cond(x[0, 0] > 0, lambda x: edit(jnp.sin(x)) * 2, lambda x: jnp.cos(x), x)


def until(x, edit=lambda h: h):
    step = lambda c: (c[0] + 1, edit(jnp.sin(c[1])) + x)  # noqa: E731
    return lax.while_loop(lambda c: c[0] < 3, step, (0, x))


EDITS = {
    "zero": ({}, constant(0)),
    "a number": ({"value": 0.7}, constant(0.7)),
    "an array": ({"value": X[0]}, constant(X[0])),
    "rows": (
        {"value": 0.5, "where": ROWS},
        lambda h: jnp.where(ROWS[:, None], jnp.asarray(0.5, h.dtype), h),
    ),
    "by name": ({"value": {"sin": 0.7}, "where": {"sin": np.ones(2, bool)}}, constant(0.7)),
    "mean": ({"value": "mean"}, mean),
}


@pytest.mark.parametrize("fun", [plain, called, mapped, branching, until])
@pytest.mark.parametrize(("options", "edit"), EDITS.values(), ids=EDITS)
def test_as_if_the_model_were_edited(fun, options, edit):
    if fun is until and options.get("value") == "mean":
        with pytest.raises(ValueError, match="while_loop"):
            sj.ablate(fun, "sin", **options)(X)
        return
    ablated = sj.ablate(fun, "sin", **options)
    for run in (ablated, jax.jit(ablated)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), run(X), fun(X, edit))
    batch = jnp.stack([X, -X])
    many, each = jax.vmap(ablated)(batch), [fun(x, edit) for x in batch]
    for n in range(2):
        own = jax.tree.map(lambda leaf, n=n: leaf[n], many)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), own, each[n])


def test_gradients_lead_through_what_is_left_and_what_is_put_in():
    def loss(x, edit=lambda h: h):
        return (plain(x, edit) ** 2).sum()

    for options, edit in EDITS.values():
        found = jax.grad(sj.ablate(loss, "sin", **options))(X)
        np.testing.assert_allclose(found, jax.grad(lambda x, e=edit: loss(x, e))(X), rtol=1e-5)
    of_value = jax.grad(lambda v: sj.ablate(loss, "sin", v)(X))(jnp.ones(3))
    np.testing.assert_allclose(of_value, jax.grad(lambda v: loss(X, constant(v)))(jnp.ones(3)))


@pytest.mark.parametrize("reverse", [False, True])
def test_in_a_scan_every_iteration_has_its_own(reverse):
    def run(x, edit=lambda n, h: h):
        def step(carry, row):
            n, y = row
            return edit(n, sj.tap(jnp.tanh(carry + y), "h")), carry.sum()

        return lax.scan(step, x[0], (jnp.arange(2), x), reverse=reverse)

    own = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    cases = [
        ({"value": own}, lambda n, h: own[n]),
        ({"value": 7.0, "where": ROWS}, lambda n, h: jnp.where(jnp.array(ROWS)[n], 7.0, h)),
        ({"value": own, "where": own > 3}, lambda n, h: jnp.where(own[n] > 3, own[n], h)),
    ]
    for options, edit in cases:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
            sj.ablate(run, "h", **options)(X),
            run(X, edit),
        )
    values = sj.site_values(run, "h")(X)["h"]
    again = sj.ablate(run, "h", values)(X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), again, run(X))


def test_a_site_behind_another_is_replaced_too():
    def fun(x):
        return jnp.cos(jnp.sin(x)) + jnp.sin(x)

    values, where = {"sin#1": 1.0, "cos": 3.0}, {"sin#1": True, "cos": ROWS}
    expected = jnp.where(ROWS[:, None], 3.0, jnp.cos(1.0)) + jnp.sin(X)
    found = sj.ablate(fun, ["sin#1", "cos"], values, where=where)(X)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    nested = sj.ablate(sj.ablate(fun, "sin#1", 1.0), "cos", 3.0, where=ROWS)(X)
    np.testing.assert_allclose(nested, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sites": "sinn"}, ValueError, "nearest are 'sin'"),
        ({"sites": []}, ValueError, "got none"),
        ({"sites": ["sin", 3]}, TypeError, "got 3 of type int"),
        ({"value": "max"}, ValueError, "one of"),
        ({"value": np.ones((5, 2, 3))}, ValueError, "does not broadcast"),
        ({"value": {"cos": 1.0}}, ValueError, "nothing for site 'sin'"),
        ({"where": np.ones(2)}, TypeError, "must be boolean"),
        ({"where": np.ones(3, bool)}, ValueError, "first axes of its shape"),
    ],
)
def test_what_does_not_fit_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        sj.ablate(plain, **{"sites": "sin", **options})(X)


def test_the_mean_of_one_vector_is_refused():
    with pytest.raises(ValueError, match="nothing to average"):
        sj.ablate(plain, "sin", "mean")(X[0])


def net(x, edit=lambda h: h):
    return (jnp.sin(edit(jnp.tanh(x @ WEIGHTS))) @ jnp.arange(1.0, 5)).sum()


SCORES = np.abs(np.random.default_rng(0).normal(size=(2, 4)))


@pytest.mark.parametrize("scores", [SCORES, SCORES.sum(1)], ids=["units", "rows"])
@pytest.mark.parametrize("value", ["zero", "mean", 0.3])
def test_curves_are_those_of_a_loop(scores, value):
    found = sj.faithfulness(net, {"tanh": scores}, value=value, steps=3)(X)
    gradient = jax.grad(lambda h: net(X, lambda _: h))(jnp.tanh(X @ WEIGHTS))
    replaced_by = {"zero": constant(0), "mean": mean}.get(value, constant(value))
    size = np.abs(gradient).sum(tuple(range(scores.ndim, 2)))
    for name, ranking in (("ranking", scores), ("|grad|", size)):
        order = np.argsort(-np.asarray(ranking).ravel(), kind="stable")
        for n, fraction in enumerate(found.fraction):
            first = np.zeros(scores.size, bool)
            first[order[: round(fraction * scores.size)]] = True
            first = first.reshape(scores.shape + (1,) * (2 - scores.ndim))
            for curve, mask in ((found.deletion, first), (found.insertion, ~first)):
                expected = net(X, lambda h, m=mask: jnp.where(m, replaced_by(h), h))
                np.testing.assert_allclose(curve[name][n], expected, rtol=1e-4, atol=1e-5)
    assert found.components == scores.size and len(found.deletion["random"]) == len(found.fraction)
    assert found.deletion["random"][0] == found.insertion["ranking"][-1] == pytest.approx(net(X))


def test_randomisation_shuffles_group_after_group():
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=(6, 6)).astype(np.float32) for name in ("low", "top")}
    seen = []

    def analysis(params, x):
        seen.append(jax.tree.map(np.asarray, params))
        return {"grad": jax.grad(lambda x: jnp.tanh(x @ params["low"]).sum())(x)}

    test = sj.randomization_test(analysis, params, ["*top*", "*low*"])(jnp.ones(6))
    changed = [{k for k in params if (p[k] != params[k]).any()} for p in seen]
    assert changed == [set(), {"top"}, {"top", "low"}]
    for name, array in params.items():
        np.testing.assert_array_equal(np.sort(seen[2][name], None), np.sort(array, None))
    assert test.correlation[0] == pytest.approx(1) and abs(test.correlation[1]) < 1
    assert test.size == 6 and test.shuffled == ("*top*", "*low*")
    with pytest.raises(ValueError, match="No parameter matches"):
        sj.randomization_test(analysis, params, ["*middle*"])


def test_a_ranking_may_be_a_list_of_names():
    def f(x):
        return (jnp.sin(x) + 2 * jnp.cos(x) + jnp.exp(x)).sum()

    x = jnp.array([0.3, 0.7])
    listed = sj.faithfulness(f, ["exp", "cos", "sin"])(x)
    scored = sj.faithfulness(f, {"sin": 0.1, "cos": 0.2, "exp": 3.0})(x)
    np.testing.assert_array_equal(listed.deletion["ranking"], scored.deletion["ranking"])
    assert listed.components == 3


def test_what_is_shuffled_has_a_name():
    params = {"a": {"w": np.arange(5.0), "n": np.arange(5)}, "b": np.arange(5.0) + 1}
    seen = []

    def analysis(params, x):
        seen.append(params)
        return x * params["b"] + params["a"]["w"]

    test = sj.randomization_test(analysis, params, ["a", "b"])(np.ones(5))
    assert test.correlation[0] != 1 and test.shuffled == ("a", "b") and test.size == 5
    assert (seen[1]["b"] == params["b"]).all() and (seen[2]["b"] != params["b"]).any()
    assert all((each["a"]["n"] == params["a"]["n"]).all() for each in seen)
    with pytest.raises(ValueError, match="No parameter matches 'c'"):
        sj.randomization_test(analysis, params, "c")
    with pytest.raises(ValueError, match="Keys of parameters are joined"):
        sj.randomization_test(analysis, params, "['a']")
