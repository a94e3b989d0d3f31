"""The kernels of another processor, AArch64 with NEON, in an emulator: as this processor's."""

import pathlib
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semijax import native
from semijax.native import ColumnsFirst, calls

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(native.target() is None, reason="no native kernels here"),
    pytest.mark.skipif(
        not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
        reason=f"needs {COMPILER} and {EMULATOR}",
    ),
]

KINDS = ["largest", "hull", "count", "mass", "mean", "entropy"]
"""In the order of ``Kind`` in contraction.h."""


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    program = tmp_path_factory.mktemp("aarch64") / "one_call"
    here, kernels = pathlib.Path(__file__).parent, pathlib.Path(native.__file__).parent
    sources = [kernels / "kernels.cc", here / "one_call.cc"]
    options = ["-std=c++17", "-O2", "-static", "-DSEMIJAX_TARGET=baseline", f"-I{kernels}"]
    subprocess.run([COMPILER, *options, *sources, "-o", program], check=True)

    def call(kind, layout, weights, *elements):
        batch, *of_weights = weights.shape
        _, *of_elements = elements[0].shape
        rows, depth = of_weights[::-1] if layout.weights else of_weights
        columns = of_elements[0 if layout.elements else 1]
        numbers = of_elements[2:]
        sizes = [KINDS.index(kind), *(numbers or [0]), *layout, batch, rows, depth, columns]
        header = np.array([*sizes, len(elements)], np.int64)
        given = b"".join(np.asarray(x).tobytes() for x in (header, weights, *elements))
        found = subprocess.run([EMULATOR, program], input=given, stdout=subprocess.PIPE, check=True)
        shape = (batch, *((columns, rows) if layout.elements else (rows, columns)), *numbers)
        return np.frombuffer(found.stdout, np.float32).reshape(len(elements), *shape)

    return call


def operands(kind, layout, numbers, random):
    batch, rows, depth, columns = 2, 37, 300, 75
    weights = random.normal(size=(batch, rows, depth)) * (random.random((batch, rows, depth)) > 0.2)
    shape = (batch, depth, columns, *numbers)
    first = random.normal(size=shape)
    if kind == "largest":
        first = np.sort(np.abs(first), -1)[..., ::-1] if numbers else np.abs(first)
    elements = [first] + [first - random.random(shape)] * (calls.KERNELS[kind] - 1)
    if kind in ("mean", "entropy"):
        elements[1] = np.abs(elements[1])
    if layout.weights:
        weights = weights.swapaxes(1, 2)
    if layout.elements:
        elements = [x.swapaxes(1, 2) for x in elements]
    return [jnp.asarray(x, jnp.float32) for x in (weights, *elements)]


@pytest.mark.parametrize(
    "layout", [ColumnsFirst(), ColumnsFirst(True), ColumnsFirst(elements=True)]
)
@pytest.mark.parametrize("kind, numbers", [*((kind, ()) for kind in KINDS), ("largest", (4,))])
def test_neon(emulated, kind, numbers, layout):
    layout = ColumnsFirst(*layout)
    given = operands(kind, layout, numbers, np.random.default_rng(0))
    wanted = jax.jit(lambda w, *e: calls._call(kind, layout, w, e))(*given)
    found = emulated(kind, layout, *given)
    tolerance = 0 if kind in ("largest", "hull") else 1e-5
    np.testing.assert_allclose(found, np.stack(wanted), tolerance, tolerance)
