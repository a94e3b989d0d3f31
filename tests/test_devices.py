"""Several devices, and devices that are not here: sharded inputs, and lowering for a GPU."""

import itertools
import math
import os
import re
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import semijax as sj
from semijax import native
from semijax.semirings import blocks, real
from semijax.semirings.blocks import ACCELERATOR_BYTES, LIFTED_BYTES

SEMIRINGS = {
    "sum": sj.SumProduct(),
    "mass": sj.AbsSumProduct(),
    "strongest": sj.AbsMaxProduct(),
    "max": sj.MaxProduct(),
    "top": sj.TopK(2),
    "entropy": sj.Entropy(),
    "count": sj.PathCount(),
    "length": sj.PathLength(),
    "reached": sj.Reachability(),
}
SHARDED = {name: SEMIRINGS[name] for name in ("sum", "strongest", "max", "top", "entropy", "count")}
DEVICES = 8


def network(x, w):
    """A layer of attention and one of a perceptron, from tokens [n, width] to a number."""
    scores = jax.nn.softmax((x @ w["query"]) @ (x @ w["key"]).T)
    hidden = x + scores @ x
    return jnp.tanh(jax.nn.gelu(hidden @ w["up"]) @ w["down"])[0, 0]


def arguments(batch=16, tokens=5, width=8, hidden=48):
    random = np.random.default_rng(0)

    def normal(*shape):
        return (random.standard_normal(shape) / np.sqrt(shape[-2])).astype(np.float32)

    shapes = {"query": (width, width), "key": (width, width)}
    shapes |= {"up": (width, hidden), "down": (hidden, width)}
    return normal(batch, tokens, width), {name: normal(*shape) for name, shape in shapes.items()}


def gradients(semirings):
    return jax.vmap(sj.semiring_grad(network, semirings), (0, None))


def compiled_for(x_spec, w_spec):
    """The analysis compiled for sharded arguments, and those arguments."""
    automatic = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((DEVICES // 2, 2), ("batch", "model"), axis_types=automatic)

    def put(value, spec):
        return jax.device_put(value, jax.NamedSharding(mesh, spec))

    x, w = arguments()
    x, w = put(x, x_spec), {name: put(value, w_spec[name]) for name, value in w.items()}
    return jax.jit(gradients(SHARDED)).lower(x, w).compile(), x, w


def check_on_many_devices():
    """A batch, or parameters, that are sharded."""
    P = jax.sharding.PartitionSpec
    assert jax.device_count() == DEVICES
    expected = jax.jit(gradients(SHARDED))(*arguments())
    nowhere = dict.fromkeys(arguments()[1], P())

    by_batch, x, w = compiled_for(P("batch"), nowhere)
    text = by_batch.as_text()
    for collective in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text, collective
    found = by_batch(x, w)
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], 1e-5, 1e-6, err_msg=name)
        assert value.sharding.shard_shape(value.shape)[0] == value.shape[0] // (DEVICES // 2), name

    mesh = jax.make_mesh(
        (2, DEVICES // 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    x, w = arguments()
    x = jax.device_put(x, jax.NamedSharding(mesh, P(("a", "b"))))
    for manual, check in itertools.product(({"a", "b"}, {"a"}), (False, True)):
        over = P(tuple(sorted(manual)))
        mapped = jax.shard_map(
            gradients(SHARDED),
            mesh=mesh,
            in_specs=(over, P()),
            out_specs=over,
            axis_names=manual,
            check_vma=check,
        )
        for name, value in jax.jit(mapped)(x, w).items():
            np.testing.assert_allclose(value, expected[name], 1e-5, 1e-6, err_msg=name)

    columns = nowhere | {"up": P(None, "model"), "down": P("model", None)}
    by_model, x, w = compiled_for(P("batch"), columns)
    for name, value in by_model(x, w).items():
        np.testing.assert_allclose(value, expected[name], 1e-5, 1e-6, err_msg=name)


def check_collectives_between_devices():
    """Sweeps on each device, which meet at collectives: as under vmap."""
    P, pairs = jax.sharding.PartitionSpec, [(0, 3), (1, 2)]
    mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    grid = jax.make_mesh((2, 2), ("i", "j"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    x, w = (jnp.asarray(a) for a in np.random.default_rng(1).standard_normal((2, 4, 4)))

    def both(f, mesh, check_vma):
        over = P(mesh.axis_names)
        one = lambda x, w: jax.tree.map(lambda y: y[None], f(x[0], w[0]))  # noqa: E731
        options = {"mesh": mesh, "in_specs": (over, over), "out_specs": over}
        return jax.jit(jax.shard_map(one, check_vma=check_vma, **options))(x, w)

    def total(f):
        return lambda x, w: (jnp.sin(f(x * w)) * w).sum()

    groups = {"axis_index_groups": pairs}
    few = {name: SEMIRINGS[name] for name in ("sum", "mass", "strongest", "max", "entropy")}
    everywhere = {
        "psum": lambda x: x * jax.lax.psum(x, "i"),
        "pmax": lambda x: x * jax.lax.pmax(x, "i"),
        "all_gather": lambda x: jax.lax.all_gather(x, "i"),
        "psum_scatter": lambda x: jax.lax.psum_scatter(x, "i"),
        "all_to_all": lambda x: jax.lax.all_to_all(x, "i", 0, 0),
    }
    for name, f in everywhere.items():
        expected = jax.vmap(sj.semiring_grad(total(f), few), axis_name="i")(x, w)
        for check_vma in (False, True):
            found = both(sj.semiring_grad(total(f), few), mesh, check_vma)
            for s in few:
                np.testing.assert_allclose(
                    found[s], expected[s], 1e-4, 1e-5, err_msg=f"{name}, {s}"
                )

    # JAX has no vmap of these; the gradient is what is left to compare.
    nowhere = {
        "groups": (lambda x: x * jax.lax.psum(x, "i", **groups), mesh),
        "gathered in groups": (lambda x: jax.lax.all_gather(x, "i", **groups)[:1] * x, mesh),
        "some": (lambda x: x - jax.lax.ppermute(x, "i", pairs), mesh),
        "two axes": (lambda x: x * jax.lax.psum(x, ("i", "j")), grid),
        "one of two": (lambda x: x * jax.lax.psum(x, "j"), grid),
        "gathered over two": (lambda x: jax.lax.all_gather(x, ("i", "j")) * x, grid),
        "scattered over two": (lambda x: jax.lax.psum_scatter(x, ("i", "j")) * x, grid),
    }
    for name, (f, axes) in nowhere.items():
        expected = both(jax.grad(total(f)), axes, False)
        found = both(sj.semiring_grad(total(f), sj.SumProduct()), axes, False)
        np.testing.assert_allclose(found, expected, 1e-4, 1e-5, err_msg=name)

    # Where nothing is sent to there is no path, and the gradient is the same as of a weight of 0.
    found = both(sj.semiring_grad(lambda x, w: -nowhere["some"][0](x).sum(), few), mesh, False)
    np.testing.assert_array_equal(found["max"], [[1] * 4] * 2 + [[-1] * 4] * 2)


def check_functions_of_devices():
    """A shard_map, or pmap, inside of the function: it stays on the devices it was on."""
    P, few = jax.sharding.PartitionSpec, {s: SEMIRINGS[s] for s in ("sum", "strongest", "entropy")}
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    x, w, v = (np.random.default_rng(2).standard_normal(s) for s in ((5, 8), (8, 16), (16, 8)))
    specs = {"in_specs": (P(), P(None, "d"), P("d")), "out_specs": P()}

    def layer(x, w, v):
        return jax.nn.gelu(x @ w) @ v

    def on_devices(x, w, v):
        return jax.lax.psum(layer(x, w, v), "d")

    def pmapped(x):
        body = jax.pmap(lambda x: x * jax.lax.psum(jnp.sin(x), "p"), axis_name="p")
        return body(x.reshape(4, -1))

    def vmapped(x):
        return jax.vmap(lambda x: x * jax.lax.psum(jnp.sin(x), "p"), axis_name="p")(
            x.reshape(4, -1)
        )

    def grad(f, semirings, argnums=(0, 1, 2)):
        return sj.semiring_grad(lambda *args: jnp.sin(f(*args)).sum(), semirings, argnums)

    sharding = [jax.NamedSharding(mesh, spec) for spec in specs["in_specs"]]
    args = [jax.device_put(a, s) for a, s in zip((x, w, v), sharding, strict=True)]
    expected = jax.jit(grad(layer, few))(x, w, v)
    for check_vma in (False, True):
        mapped = jax.shard_map(on_devices, mesh=mesh, check_vma=check_vma, **specs)
        compiled = jax.jit(grad(mapped, few)).lower(*args).compile()
        found = compiled(*args)
        for name in few:
            for a, b in zip(found[name], expected[name], strict=True):
                np.testing.assert_allclose(a, b, 1e-4, 1e-4, err_msg=name)
        text = jax.jit(grad(mapped, sj.SumProduct())).lower(*args).compile().as_text()
        assert "all-gather" not in text
        paths, same = (
            sj.top_paths(lambda x, f=f: jnp.sin(f(x, w, v)).sum())(jnp.asarray(x))
            for f in (mapped, layer)
        )
        np.testing.assert_allclose(paths[0].weight, same[0].weight, 1e-5)
    found, expected = (grad(f, few, 0)(jnp.asarray(x[:4])) for f in (pmapped, vmapped))
    for name in few:
        np.testing.assert_allclose(found[name], expected[name], 1e-4, 1e-5, err_msg=name)


def decoder_layer(x, w):
    """Grouped-query attention and a gated MLP, [batch, token, width] to log-probabilities."""

    def norm(x, scale):
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale

    n, tokens, _ = x.shape
    hidden = norm(x, w["attention"])
    query, key, value = (jnp.einsum("btd,dhk->bthk", hidden, w[p]) for p in ("q", "k", "v"))
    heads, groups, size = query.shape[2], key.shape[2], key.shape[3]
    query = query.reshape(n, tokens, groups, heads // groups, size)
    scores = jnp.einsum("btgrk,bsgk->bgrts", query, key) / np.sqrt(size)
    scores = jnp.where(jnp.tril(jnp.ones((tokens, tokens), bool)), scores, -1e9)
    mixed = jnp.einsum("bgrts,bsgk->btgrk", jax.nn.softmax(scores), value)
    x += jnp.einsum("bthk,hkd->btd", mixed.reshape(n, tokens, heads, size), w["o"])
    hidden = norm(x, w["mlp"])
    x += (jax.nn.silu(hidden @ w["gate"]) * (hidden @ w["up"])) @ w["down"]
    return jax.nn.log_softmax(x @ w["words"])[..., 0].sum()


def decoder_weights(width=64, heads=8, groups=4, size=8, hidden=192, words=128):
    random = np.random.default_rng(0)
    shapes = {"q": (width, heads, size), "k": (width, groups, size), "v": (width, groups, size)}
    shapes |= {"o": (heads, size, width), "gate": (width, hidden), "up": (width, hidden)}
    shapes |= {"down": (hidden, width), "words": (width, words)}
    weights = {name: random.standard_normal(s) / np.sqrt(width) for name, s in shapes.items()}
    return weights | {"attention": np.ones(width), "mlp": np.ones(width)}


def over(data, model):
    """Specs of the weights: over which mesh axes their widths and their hidden axes are sharded."""
    P = jax.sharding.PartitionSpec
    specs = dict.fromkeys(("q", "k", "v", "gate", "up", "words"), P(data, model))
    specs |= {"o": P(model, None, data), "down": P(model, data)}
    return specs | {"attention": P(), "mlp": P()}


def members_of_a_group(text):
    """How many devices take part together, in any of XLA's spellings; 1 for a permutation."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)", text):
        return len(listed[1].split(","))
    if reshaped := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(reshaped[1])
    if named := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", named[2]))
    assert "replica_groups" not in text, text
    return 1


def collectives(text):
    """The collectives of a program: the kind, the shapes, and the bytes that a device sends."""
    sizes = {"pred": 1, "s8": 1, "bf16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    found = []
    for shapes, kind, groups in re.findall(rf"= (.*?) ({kinds})(?:-start)?\((.*)", text):
        arrays = [
            (dtype, tuple(map(int, filter(None, shape.split(",")))))
            for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
        ]
        members = members_of_a_group(groups)
        times = {"all-reduce": 2, "reduce-scatter": members}.get(kind, 1)
        share = 1 if members == 1 else (members - 1) / members
        size = sum(sizes[dtype] * math.prod(shape) for dtype, shape in arrays)
        found.append((kind, [shape for _, shape in arrays], times * share * size))
    return found


def check_a_sharded_layer():
    """What each device sends, next to what it sends for the gradient."""
    P = jax.sharding.PartitionSpec
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    cases = {
        "tensor-parallel": (P("data"), over(None, "model")),
        "fully sharded": (P("data"), over("data", None)),
        "both": (P("data"), over("data", "model")),
        "sequence-parallel": (P("data", "model"), dict.fromkeys(over(None, None), P())),
    }
    w = {name: jnp.asarray(value, jnp.float32) for name, value in decoder_weights().items()}
    x = jnp.asarray(np.random.default_rng(1).standard_normal((8, 16, 64)), jnp.float32)
    few = {name: SEMIRINGS[name] for name in ("sum", "mass", "strongest", "max", "entropy")}
    few["top"] = sj.TopK(4)
    expected = {name: jax.jit(sj.semiring_grad(decoder_layer, s))(x, w) for name, s in few.items()}
    for case, (of_x, of_w) in cases.items():
        put = {name: jax.device_put(w[name], jax.NamedSharding(mesh, of_w[name])) for name in w}
        args = jax.device_put(x, jax.NamedSharding(mesh, of_x)), put

        def compiled(f, args=args):
            program = jax.jit(f).lower(*args).compile()
            return program, collectives(program.as_text())

        def gathered(sent):
            """The arrays with an axis of the weights that are gathered; not the parts of sums."""
            arrays = {array for kind, shapes, _ in sent if kind == "all-gather" for array in shapes}
            axes = {array: len(array) - (array[-1] == few["top"].k) for array in arrays}
            return {a for a, rank in axes.items() if rank > 1 and {64, 128, 192} & {*a}}

        _, of_grad = compiled(jax.grad(decoder_layer))
        for name, semiring in few.items():
            label = f"{case}, {name}"
            program, sent = compiled(sj.semiring_grad(decoder_layer, semiring))
            np.testing.assert_allclose(program(*args), expected[name], 1e-3, 1e-4, err_msg=label)
            bound = 4 if name == "top" else 2
            bytes_sent, of_gradient = (sum(each[2] for each in s) for s in (sent, of_grad))
            assert bytes_sent <= bound * of_gradient, (label, bytes_sent, of_gradient)
            more = gathered(sent) - gathered(of_grad)
            assert not more, (label, more)


def check_parts_of_sharded_arrays():
    """A slice of a sharded axis, and everything that is summed over one: as if not sharded."""
    mesh = jax.make_mesh((DEVICES,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    random = np.random.default_rng(3)
    x, w = (random.standard_normal(s).astype(np.float32) for s in ((4, 16), (16, 64)))
    sharded = jax.device_put(w, jax.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "d")))
    functions = {
        "an element": lambda x, w: jnp.sin(x @ w)[..., 0].sum(),
        "every other one": lambda x, w: jnp.sin(x @ w)[..., 1::2].sum(),
        "a sum": lambda x, w: jnp.sin((x @ w).sum(-1)).sum(),
        "logarithms of a softmax": lambda x, w: jax.nn.log_softmax(x @ w)[..., 3].sum(),
        "a maximum": lambda x, w: (x @ w).max(-1).sum(),
    }
    grads = {name: jax.jit(sj.semiring_grad(f, SEMIRINGS)) for name, f in functions.items()}
    for name, grad in grads.items():
        expected, found = grad(x, w), grad(x, sharded)
        for s in SEMIRINGS:
            np.testing.assert_allclose(found[s], expected[s], 1e-4, 1e-5, err_msg=f"{name}, {s}")
    # What is not a number is not lost on the way: one weight touches all inputs of one row.
    w[3, 9] = np.nan
    sharded = jax.device_put(w, sharded.sharding)
    for s in ("sum", "mass", "strongest", "max", "top", "entropy"):
        grad = jax.jit(sj.semiring_grad(lambda x, w: (x @ w).sum(), SEMIRINGS[s]))
        np.testing.assert_array_equal(np.isnan(grad(x, sharded)), np.isnan(grad(x, w)), err_msg=s)
        assert np.isnan(grad(x, sharded)[:, 3]).all(), s


def check_a_mesh_with_explicit_axes():
    """There, sharding is part of the types; auto_axes takes it out of them and puts it back."""
    P, explicit = jax.sharding.PartitionSpec, jax.sharding.AxisType.Explicit
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(explicit,) * 2)
    x, w = arguments()
    grads = jax.vmap(sj.semiring_grad(network, SHARDED), (0, None))
    expected = jax.jit(grads)(x, w)
    with jax.set_mesh(mesh):
        x = jax.device_put(x, P("data"))
        columns = {"up": P(None, "model"), "down": P("model", None)}
        w = {name: jax.device_put(value, columns.get(name, P())) for name, value in w.items()}
        automatic = jax.sharding.auto_axes(grads, out_sharding=dict.fromkeys(SHARDED, P("data")))
        for name, value in jax.jit(automatic)(x, w).items():
            np.testing.assert_allclose(value, expected[name], 1e-5, 1e-6, err_msg=name)
            assert value.sharding.spec[0] == "data", name
        with pytest.raises(NotImplementedError, match=r"sharded over \('data',\).*auto_axes"):
            sj.semiring_grad(lambda x: jnp.tanh(x).sum(), sj.MaxProduct())(x)


CHECKS = [
    check_a_mesh_with_explicit_axes,
    check_on_many_devices,
    check_collectives_between_devices,
    check_functions_of_devices,
    check_a_sharded_layer,
    check_parts_of_sharded_arrays,
]


@pytest.mark.parametrize("check", CHECKS)
def test_on_many_devices(check):
    """In a process that has several devices."""
    if check is check_a_sharded_layer and not native.wanted():
        pytest.skip("without kernels, XLA partitions contractions by itself")
    script = f"""
        import importlib.util
        spec = importlib.util.spec_from_file_location("test_devices", {__file__!r})
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.{check.__name__}()
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


PLATFORMS = ["cuda", "rocm", "tpu"]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_lowers_for_other_platforms(platform):
    lowered = jax.export.export(jax.jit(gradients(SEMIRINGS)), platforms=[platform])(*arguments())
    assert lowered.platforms == (platform,)


def contraction_for(platform, semiring, columns=300):
    """A contraction of so many terms, lowered for a platform."""
    weights = jax.ShapeDtypeStruct((1, 40, columns), jnp.float32)
    elements = jax.eval_shape(lambda: semiring.one((1, columns, 50), jnp.float32))
    with native.off():
        lowered = jax.export.export(jax.jit(semiring.contract), platforms=[platform])
        return lowered(weights, elements).mlir_module()


@pytest.mark.parametrize("semiring", [sj.AbsMaxProduct(), sj.MaxProduct()], ids=repr)
def test_a_contraction_is_one_reduction_but_on_a_cpu(semiring):
    """No loop with a pass over the results for every few terms: that is the CPU's form."""
    assert "stablehlo.while" in contraction_for("cpu", semiring)
    for platform in PLATFORMS:
        assert "stablehlo.while" not in contraction_for(platform, semiring)


@pytest.mark.parametrize("semiring", [sj.AbsSumProduct(), sj.Entropy()], ids=repr)
def test_a_matrix_of_weights_is_lifted_whole_but_on_a_cpu(semiring):
    """What is left is the loop that repeats what underflowed, if anything has."""
    columns = 4 * LIFTED_BYTES // (4 * 40)
    loops = {
        platform: contraction_for(platform, semiring, columns).count("stablehlo.while")
        for platform in ("cpu", *PLATFORMS)
    }
    assert loops.pop("cpu") > max(loops.values())


@pytest.mark.parametrize("limit", [1, 40 * 50 * 4 * 100, ACCELERATOR_BYTES])
def test_the_form_of_other_platforms_computes_the_same(limit, monkeypatch):
    """Run on the CPU: in blocks of all sizes."""
    random = np.random.default_rng(0)
    weights = jnp.asarray(random.normal(size=(1, 40, 300)), jnp.float32)
    elements = jnp.asarray(random.normal(size=(1, 300, 50)), jnp.float32)
    semirings = {
        "strongest": sj.AbsMaxProduct(),
        "max": sj.MaxProduct(),
        "mass": sj.AbsSumProduct(),
    }
    lifted = {name: semiring.lift(elements) for name, semiring in semirings.items()}
    expected = {name: s.contract(weights, lifted[name]) for name, s in semirings.items()}

    def default(*operands, default, **branches):
        assert {*branches} == {"cpu"}
        return default(*operands)

    monkeypatch.setattr(lax, "platform_dependent", default)
    monkeypatch.setattr(blocks, "ACCELERATOR_BYTES", limit)
    monkeypatch.setattr(real, "LIFTED_BYTES", 2**10)
    for name, semiring in semirings.items():
        for a, b in zip(
            *map(jax.tree.leaves, (semiring.contract(weights, lifted[name]), expected[name])),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, 1e-5, err_msg=name)
