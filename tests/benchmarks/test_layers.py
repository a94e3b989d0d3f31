"""The layers of the benchmark: their sweeps are right, and the state space is the recurrence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj
from benchmarks.layers import CONVOLUTIONS, STATE_SPACE


@pytest.mark.parametrize("layer", [*CONVOLUTIONS, STATE_SPACE], ids=lambda layer: layer.name)
def test_the_sum_is_the_gradient(layer):
    arguments = layer.arguments()
    gradient = jax.jit(jax.grad(layer.function))(*arguments)
    assert np.ptp(gradient) > 0
    swept = jax.jit(sj.semiring_grad(layer.function, sj.SumProduct()))(*arguments)
    np.testing.assert_allclose(swept, gradient, 1e-4, 1e-5)


def test_the_state_space_is_a_recurrence():
    inputs, params, _ = STATE_SPACE.arguments()
    own = params["params"]
    step = np.exp(-own["decay"] + 1j * own["angle"])
    into, out = (own[f"{name}_real"] + 1j * own[f"{name}_imaginary"] for name in ("into", "out"))
    state, outputs = 0, []
    for u in np.asarray(inputs):
        state = step * state + np.asarray(into) @ u
        outputs.append((np.asarray(out) @ state).real + own["skip"] * u)
    expected = jax.nn.gelu(jnp.array(outputs))
    found = STATE_SPACE.module.apply(params, inputs)
    np.testing.assert_allclose(found, expected, 1e-4, 1e-4)
