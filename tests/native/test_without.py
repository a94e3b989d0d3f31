"""Without the native kernels: switched off, or never built."""

import os
import subprocess
import sys
import textwrap

import pytest

GRADIENT = """
    import jax.numpy as jnp, semijax as sj
    from semijax import native
    x, w = jnp.arange(3.0), jnp.ones((3, 4)) - jnp.eye(3, 4)
    found = sj.semiring_grad(lambda x: jnp.tanh(x @ w).sum(), sj.MaxProduct())(x)
    print(native.target(), found.round(4))
"""
HIDDEN = """
    import importlib.util
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *a: None if "_contractions" in name else find(name, *a)
"""


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={k: v for k, v in os.environ.items() if k != "SEMIJAX_NATIVE"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def switched_off():
    return run(GRADIENT, SEMIJAX_NATIVE="off")


def test_switched_off(switched_off):
    assert switched_off.stdout == "None [0.42   0.42   0.0707]\n", switched_off.stderr
    assert "native" not in switched_off.stderr


def test_never_built_says_so_once_and_computes_the_same(switched_off):
    hidden = run(textwrap.dedent(HIDDEN) + textwrap.dedent(GRADIENT) * 2)
    assert hidden.stdout == switched_off.stdout * 2, hidden.stderr
    assert hidden.stderr.count("semijax runs without its native kernels") == 1


def test_an_instruction_set_that_is_not_there():
    failed = run(GRADIENT, SEMIJAX_NATIVE="sse")
    assert "SEMIJAX_NATIVE='sse' is no instruction set" in failed.stderr
