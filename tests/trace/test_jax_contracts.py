"""What the rules rest on in JAX's jaxprs. A failure here says which assumption a release broke."""

import weakref

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import io_callback
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from semijax.trace import compat
from semijax.trace.primitives import primitive, primitives
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


MESH = AbstractMesh((1, 1), ("i", "j"), axis_types=(AxisType.Auto,) * 2)


def mapped(body, *, check_vma):
    """The equation of a shard_map over the first axis of a mesh, and those of its body."""

    def function(x):
        options = {"mesh": MESH, "axis_names": {"i"}, "check_vma": check_vma}
        return jax.shard_map(body, in_specs=P("i"), out_specs=P("i"), **options)(x)

    (found,) = equations(function, X)
    assert found.primitive is primitive("shard_map")
    return found, found.params["jaxpr"].eqns


def test_a_shard_map_has_its_body_specs_and_axes():
    found, _ = mapped(jnp.sin, check_vma=True)
    assert found.params["newly_manual_axes"] == {"i"} and found.params["check_vma"]
    assert found.params["in_specs"] == found.params["out_specs"] == (P("i"),)
    assert found.params["mesh"].axis_names == ("i", "j") and found.params["mesh"].shape["i"] == 1
    weakref.ref(found.params["jaxpr"])


def test_a_pmap_is_a_shard_map_that_is_called():
    (outer,) = equations(jax.pmap(jnp.sin), X[:1])
    called = compat.called_jaxpr(outer)
    assert [e.primitive for e in compat.open_jaxpr(called)[0].eqns] == [primitive("shard_map")]


def test_types_say_what_an_array_varies_over_if_that_is_checked():
    for check_vma, varying in ((True, ("i",)), (False, ())):
        _, (largest, *_) = mapped(lambda x: x - lax.pmax(x, "i"), check_vma=check_vma)
        assert compat.varies_over(largest.invars[0].aval, MESH) == varying
        assert compat.varies_over(largest.outvars[0].aval, MESH) == ()
        assert compat.has_in_common(largest, ("i",)) == check_vma


COLLECTIVES = {
    "psum": (lambda x: lax.psum(x, "i"), {"axes", "axis_index_groups"}),
    "pmax": (lambda x: lax.pmax(x, "i"), {"axes", "axis_index_groups"}),
    "all_gather": (
        lambda x: lax.all_gather(x, "i")[0],
        {"axis_name", "all_gather_dimension", "axis_size", "tiled", "axis_index_groups"},
    ),
    "reduce_scatter": (
        lambda x: lax.psum_scatter(x, "i", tiled=True),
        {"axis_name", "scatter_dimension", "axis_size", "tiled", "axis_index_groups"},
    ),
    "all_to_all": (
        lambda x: lax.all_to_all(x, "i", 0, 0, tiled=True),
        {"axis_name", "split_axis", "concat_axis", "axis_index_groups"},
    ),
    "ppermute": (lambda x: lax.ppermute(x, "i", [(0, 0)]), {"axis_name", "perm"}),
    "pbroadcast": (lambda x: lax.pbroadcast(x, "i", 0), {"axis_name", "source"}),
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_the_parameters_of_collectives(name):
    function, expected = COLLECTIVES[name]
    outer, (found, *_) = mapped(function, check_vma=False)
    assert found.primitive is primitive(name) and expected <= set(found.params)
    assert list(compat.collectives(outer.params["jaxpr"])) == [(name, {"i"})]
    whole = jax.make_jaxpr(lambda x: compat.bind(outer, x))(X)
    assert not list(compat.collectives(whole))  # the axis is mapped within


def test_collectives_that_are_checked_have_names_of_their_own():
    body = lambda x: lax.pcast(lax.psum(x, "i"), "i", to="varying")  # noqa: E731
    _, found = mapped(body, check_vma=True)
    assert [e.primitive for e in found] == [*primitives("psum_invariant", "pvary")]
    assert all(e.params["axes"] == ("i",) for e in found)


def test_an_axis_that_vmap_has_mapped_is_a_number():
    (found, *_) = equations(jax.vmap(lambda x: x * lax.psum(x, "i"), axis_name="i"), X)
    assert found.primitive is primitive("psum") and found.params["axes"] == (0,)


def test_to_ask_for_the_index_is_to_exchange_nothing():
    outer, (found, *_) = mapped(lambda x: x * lax.axis_index("i"), check_vma=False)
    assert found.primitive is primitive("axis_index")
    assert not list(compat.collectives(outer.params["jaxpr"]))


def callback(x):
    return io_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def own_reference(x):
    reference = jax.new_ref(x)
    reference[...] = 2 * x
    return jax.freeze(reference)


EFFECTS = {
    "nothing": (lambda x: jnp.sin(x), False),
    "a print": (lambda x: jax.debug.print("{}", x), True),
    "a callback": (callback, True),
    "a pure callback": (
        lambda x: jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
        False,
    ),
    "a reference": (own_reference, False),
    "random numbers": (lambda x: jax.random.normal(jax.random.key(0), x.shape), False),
}


@pytest.mark.parametrize("name", EFFECTS)
def test_effects_are_noticed_wherever_they_are(name):
    function, has_effects = EFFECTS[name]
    called = lambda x: lax.cond(x[0, 0] > 0, lambda: function(x), lambda: function(x))  # noqa: E731
    for asked in (function, called, lambda x: lax.scan(lambda c, _: (c, function(x)), x, None, 1)):
        jaxpr = jax.make_jaxpr(asked)(X)
        made = {v for e in jaxpr.eqns for v in e.outvars}
        found = any(compat.has_effects(e, made.__contains__) for e in jaxpr.eqns)
        assert found == has_effects


def test_a_reference_from_outside_is_noticed():
    def function(x):
        reference = jax.new_ref(x)

        def body(c, _):
            reference[...] += c
            return c, None

        return lax.scan(body, x, None, 2)[0]

    made, loop = equations(function, X)
    assert made.primitive is primitive("new_ref") and not compat.acts_on_references(made)
    assert compat.acts_on_references(loop) and compat.has_effects(loop, lambda var: False)
    assert not compat.has_effects(loop, lambda var: var in made.outvars)


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
nameless = jax.custom_jvp(lambda x: x)
nameless.defjvps(lambda t, a, x: t)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (jax.nn.relu, "relu"),
        (jax.nn.relu6, "relu6"),
        (lambda x: jnp.logaddexp(x, 0.0), "logaddexp"),
        (doubled, "doubled"),
        (jax.vmap(doubled), "doubled"),
        (lambda x: jax.jvp(jax.nn.relu, (x,), (x,))[0], "relu"),
        (nameless, None),
    ],
)
def test_a_function_with_a_derivative_of_its_own_has_its_name(function, name):
    found = [e for e in equations(function, X) if e.primitive in compat.CUSTOM_DERIVATIVES]
    assert [compat.custom_derivative_name(e) for e in found] == [name]
    assert compat.custom_derivative_name(equation("sin", jnp.sin, X)) is None


def test_each_call_of_vmap_can_be_told_from_the_next():
    mapped = jax.vmap(jnp.sin)
    found = [
        list(compat.maps_entered(e)) for e in equations(lambda x: mapped(jnp.cos(mapped(x))), X)
    ]
    (first,), none, (second,) = found
    assert none == [] and first != second
    inner = lambda x: jnp.cos(jax.vmap(jnp.sin)(x))  # noqa: E731
    (outer, of_inner), (outer_again,) = (
        list(compat.maps_entered(e)) for e in equations(jax.vmap(inner), X)
    )
    assert outer == outer_again != of_inner


def test_what_vmap_moves_to_the_front_it_moves_in_the_mapped_function():
    """An output whose mapped axis lies behind is transposed, and that is on its stack."""
    W = jnp.ones((4, 5))
    product, moved = equations(jax.vmap(lambda x: W @ x), X)
    assert product.outvars[0].aval.shape == (4, 3)
    assert moved.primitive.name == "transpose" and moved.params["permutation"] == (1, 0)
    assert list(compat.maps_entered(product)) == list(compat.maps_entered(moved)) != []


@pytest.mark.parametrize(
    "function",
    [
        jax.jit(jnp.sin),
        jax.checkpoint(jnp.sin),
        lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
        lambda x: lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=2)[0],
    ],
)
def test_what_is_called_in_a_mapped_function_has_a_stack_of_its_own(function):
    for e in equations(jax.vmap(lambda x: function(x) + 1), X):
        assert len(list(compat.maps_entered(e))) == 1
        for parameter in e.params.values():
            for body in parameter if isinstance(parameter, (tuple, list)) else [parameter]:
                for inner in getattr(compat.open_jaxpr(body)[0], "eqns", ()):
                    assert not list(compat.maps_entered(inner))


def test_the_layout_of_a_scan_that_jax_has_transposed_is_found_too():
    def function(c, w, xs):
        return lax.scan(lambda c, x: (c * w + x, c * x), c, xs)

    primals = jnp.float32(1), jnp.float32(2), jnp.ones(3)
    out, pull = jax.vjp(function, *primals)
    (found,) = (e for e in jax.make_jaxpr(pull)(out).eqns if e.primitive is primitive("scan"))
    consts, carries = compat.scan_layout(found.params)
    body = compat.open_jaxpr(found.params["jaxpr"])[0]
    per_iteration = len(body.outvars) - carries
    assert per_iteration >= 1 and consts + carries <= len(body.invars)
    assert [v.aval for v in body.invars[consts : consts + carries]] == [
        v.aval for v in body.outvars[:carries]
    ]
