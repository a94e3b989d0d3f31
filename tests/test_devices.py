"""Several devices, and devices that are not here: sharded inputs, and lowering for a GPU."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj

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
    """The body of the test below, in a process that has several devices."""
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
    for manual in ({"a", "b"}, {"a"}):
        over = P(tuple(sorted(manual)))
        mapped = jax.shard_map(
            gradients(SHARDED),
            mesh=mesh,
            in_specs=(over, P()),
            out_specs=over,
            axis_names=manual,
            check_vma=False,
        )
        for name, value in jax.jit(mapped)(x, w).items():
            np.testing.assert_allclose(value, expected[name], 1e-5, 1e-6, err_msg=name)

    columns = nowhere | {"up": P(None, "model"), "down": P("model", None)}
    by_model, x, w = compiled_for(P("batch"), columns)
    for name, value in by_model(x, w).items():
        np.testing.assert_allclose(value, expected[name], 1e-5, 1e-6, err_msg=name)


def test_sharded_inputs():
    script = f"""
        import importlib.util
        spec = importlib.util.spec_from_file_location("test_devices", {__file__!r})
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.check_on_many_devices()
    """
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lowers_for_other_platforms(platform):
    lowered = jax.export.export(jax.jit(gradients(SEMIRINGS)), platforms=[platform])(*arguments())
    assert lowered.platforms == (platform,)
