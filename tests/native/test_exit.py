"""Processes that end while kernels run: their status and what they print are as without kernels."""

import os
import subprocess
import sys
import textwrap

import pytest

from semijax import native

pytestmark = pytest.mark.skipif(native.target() is None, reason="no native kernels here")

# Exit handlers run in reverse order: these after the kernels' own, if there were any, and before
# JAX's. One writes where something was freed, the next gives the kernels time to come across it.
SLOW_EXIT = """
    import ctypes
    import jax
    libc = ctypes.CDLL(None)
    libc.__cxa_atexit(libc.usleep, ctypes.c_void_p(200_000), None)
    garbage = [b"x" * size for size in range(7, 256, 16)]
    for text in 32 * garbage:
        libc.__cxa_atexit(libc.strdup, text, None)

    from semijax import native
    assert native.target() is not None
"""
# Without the arithmetic beside the kernel, JAX would take the loop for a short one and wait for it.
COMPUTATION = """
    import sys, threading, time
    import numpy as np, semijax as sj

    def repeated(weights, elements):
        def body(_, elements):
            contracted = sj.MaxProduct().contract(weights, elements)
            return jax.tree.map(lambda x: x / 2, contracted)

        return jax.lax.fori_loop(0, {times}, body, elements)

    ones = np.ones((1, 64, 64), np.float32)
    elements = sj.MaxProduct().lift(ones)
    run = jax.jit(repeated).lower(ones, elements).compile()
    assert "semijax_" in run.as_text()
"""
# JAX waits for a computation when nothing refers to its result any more: here something does.
UNFINISHED = """
    started = threading.Event()

    def start():
        result = run(ones, elements)
        assert not jax.tree.leaves(result)[0].is_ready()
        started.set()
        time.sleep(1000)

    threading.Thread(target=start, daemon=True).start()
    assert started.wait(60)
"""
FINISHED = """
    result = run(ones, elements)
    assert not jax.tree.leaves(result)[0].is_ready()
"""
ENDS = {
    "": (0, ""),
    "sys.exit(7)": (7, ""),
    "raise ValueError('ours')": (1, "ValueError: ours"),
}


def assert_ends(program, status, last_line):
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(map(textwrap.dedent, program))],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (ended.returncode, ended.stdout) == (status, ""), ended.stderr
    *_, last = ["", *ended.stderr.splitlines()]
    assert last == last_line, ended.stderr
    assert last_line or not ended.stderr


@pytest.mark.parametrize("end", ENDS)
def test_exit_during_a_computation(end):
    computation = COMPUTATION.format(times=10**8)
    for _ in range(3):
        assert_ends([SLOW_EXIT, computation, UNFINISHED, end], *ENDS[end])


@pytest.mark.parametrize("end", ENDS)
def test_exit_waits_for_a_computation(end):
    assert_ends([SLOW_EXIT, COMPUTATION.format(times=10**4), FINISHED, end], *ENDS[end])
