"""What the rules rest on in JAX's jaxprs. A failure here says which assumption a release broke."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from semijax.trace import compat
from semijax.trace.scope_names import Given

X = jnp.ones((3, 5))


def equations(function, *args):
    return compat.open_jaxpr(jax.make_jaxpr(function)(*args))[0].eqns


def equation(name, function, *args):
    (found,) = [e for e in equations(function, *args) if e.primitive.name == name]
    return found


def test_the_floor_is_the_oldest_version_the_differences_name():
    assert jax.__version_info__ >= (0, 10, 2)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("jit", lambda x: jax.jit(jnp.sin)(x)),
        ("remat2", lambda x: jax.checkpoint(jnp.sin)(x)),
        ("composite", lambda x: lax.composite(jnp.sin, "my.sin")(x)),
    ],
)
def test_a_call_has_its_jaxpr_where_it_is_looked_for(name, function):
    called = compat.called_jaxpr(equation(name, function, X))
    assert called is not None
    assert [e.primitive.name for e in compat.open_jaxpr(called)[0].eqns] == ["sin"]


def test_a_custom_vmap_is_a_call():
    @jax.custom_batching.custom_vmap
    def function(x):
        return jnp.sin(x)

    function.def_vmap(lambda size, batched, x: (jnp.sin(x), True))
    called = compat.called_jaxpr(equation("custom_vmap_call", function, X))
    assert [e.primitive.name for e in compat.open_jaxpr(called)[0].eqns] == ["sin"]


def test_a_jaxpr_as_a_function_inlines_or_calls():
    closed = jax.make_jaxpr(jnp.sin)(X)
    names = [e.primitive.name for e in equations(jax.extend.core.jaxpr_as_fun(closed), X)]
    assert names in (["sin"], ["eval_jaxpr"], ["closed_call"])


def test_custom_derivatives_are_one_equation_with_a_call_jaxpr():
    @jax.custom_vjp
    def twice(x):
        return 2 * x

    twice.defvjp(lambda x: (2 * x, None), lambda _, g: (g,))
    assert equation("custom_jvp_call", jax.nn.relu, X).params["call_jaxpr"]
    assert equation("custom_vjp_call", twice, X).params["call_jaxpr"]


def test_stop_gradient_is_an_equation():
    assert equation("stop_gradient", lax.stop_gradient, X)


def test_scan_is_consts_then_carry_then_xs():
    def function(c, w, xs):
        return lax.scan(lambda c, x: (c * w + x, c), c, xs)

    found = equation("scan", function, 1.0, 2.0, jnp.ones(3))
    assert compat.scan_layout(found.params) == (1, 1)
    assert [v.aval.shape for v in found.invars] == [(), (), (3,)]
    assert {"jaxpr", "length", "reverse"} <= set(found.params)


def test_cond_has_its_index_first():
    found = equation("cond", lambda i, x: lax.switch(i, [jnp.sin, jnp.cos], x), 1, X)
    assert [v.aval.shape for v in found.invars] == [(), (3, 5)]
    assert len(found.params["branches"]) == 2


def test_while_has_the_constants_of_test_and_body_first():
    found = equation("while", lambda n, x: lax.fori_loop(0, n, lambda i, y: y * x, x), 3, X)
    assert {"cond_nconsts", "body_nconsts", "cond_jaxpr", "body_jaxpr"} <= set(found.params)


def test_elementwise_equations_take_scalar_literals_and_axes_of_size_1():
    (scalar,) = equations(lambda x: x * 2.0, X)
    assert [v.aval.shape for v in scalar.invars] == [(3, 5), ()]
    found = equation("sub", lambda x: x - x.max(-1, keepdims=True), X)
    assert [v.aval.shape for v in found.invars] == [(3, 5), (3, 1)]


PARAMETERS = {
    "reshape": (lambda x: x.reshape(5, 3), {"dimensions"}),
    "transpose": (lambda x: x.T, {"permutation"}),
    "squeeze": (lambda x: lax.squeeze(x[None], [0]), {"dimensions"}),
    "rev": (lambda x: x[::-1], {"dimensions"}),
    "broadcast_in_dim": (lambda x: jnp.broadcast_to(x, (2, 3, 5)), {"broadcast_dimensions"}),
    "pad": (lambda x: lax.pad(x, 0.0, [(1, 1, 0)] * 2), {"padding_config"}),
    "slice": (lambda x: lax.slice(x, (0, 1), (2, 3)), {"start_indices", "strides"}),
    "concatenate": (lambda x: jnp.concatenate([x, x]), {"dimension"}),
    "split": (lambda x: jnp.split(x, [2], 1), {"axis"}),
    "gather": (
        lambda x: x[jnp.array([0, 2])],
        {"dimension_numbers", "slice_sizes", "mode"},
    ),
    "scatter-add": (
        lambda x: x.at[jnp.array([0, 2])].add(1.0),
        {"dimension_numbers", "mode", "indices_are_sorted", "unique_indices"},
    ),
    "sort": (lambda x: lax.sort(x), {"dimension", "is_stable", "num_keys"}),
    "reduce_sum": (lambda x: x.sum(0), {"axes"}),
    "cumsum": (lambda x: lax.cumsum(x), {"axis", "reverse"}),
    "dot_general": (lambda x: x @ x.T, {"dimension_numbers"}),
    "reduce_window_sum": (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "VALID"),
        {"window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation"},
    ),
    "conv_general_dilated": (
        lambda x: lax.conv(x[None, None], x[None, None], (1, 1), "SAME"),
        {
            *("window_strides", "padding", "lhs_dilation", "rhs_dilation", "dimension_numbers"),
            *("feature_group_count", "batch_group_count"),
        },
    ),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_parameters_that_a_rule_reads(name):
    function, expected = PARAMETERS[name]
    assert expected <= set(equation(name, function, X).params)


def scoped(x):
    for _ in range(2):
        with jax.named_scope("layer"):
            x = jnp.sin(jnp.cos(x))
    return x


def test_each_time_a_scope_is_entered_can_be_told_from_the_next():
    found = [list(compat.scopes_entered(e)) for e in equations(scoped, X)]
    assert [[name for name, _ in own] for own in found] == [["layer"]] * 4
    first, second, third, last = (own[0][1] for own in found)
    assert first == second != third == last


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: jax.vmap(f),
        lambda f: lambda x: jax.jvp(f, (x,), (x,)),
        lambda f: jax.vmap(lambda x: jax.jvp(jax.vmap(f), (x[None],), (x[None],))),
    ],
)
def test_transformations_on_the_name_stack_are_no_scopes(transform):
    for e in equations(transform(scoped), X):
        names = [name for name, _ in compat.scopes_entered(e)]
        assert names == ["layer"] or (not names and e.primitive.name == "broadcast_in_dim")


def test_a_scopes_name_is_kept_as_it_was_given():
    (e,) = equations(lambda x: jax.named_scope(Given("a/b"))(jnp.sin)(x), X)
    ((name, _),) = compat.scopes_entered(e)
    assert name == "a/b" and isinstance(name, Given)


def test_a_named_array_is_an_equation_with_its_name():
    (e,) = equations(lambda x: checkpoint_name(x, "hidden"), X)
    assert e.primitive.name == "name" and e.params["name"] == "hidden"


def test_an_equation_is_bound_with_its_own_parameters():
    for function in (jax.nn.relu, jax.jit(jnp.sin), lambda x: lax.cumsum(x)):
        (found,) = equations(function, X)
        (value,) = compat.bind(found, X)
        assert jnp.array_equal(value, function(X))
