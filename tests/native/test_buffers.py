"""Kernels called with buffers that don't belong together: an error names the wrong one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semijax import native
from semijax.native.calls import KERNELS

pytestmark = pytest.mark.skipif(native.target() is None, reason="no native kernels here")

SIZES = {"b": 2, "m": 3, "k": 5, "n": 7, "p": 4}


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A buffer of these shape and dtype; `axes` has a letter of ``SIZES`` for each axis."""

    axes: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def resized(self, axis, size):
        return self.reshaped((*self.shape[:axis], size, *self.shape[axis + 1 :]))

    def reshaped(self, shape):
        return dataclasses.replace(self, shape=shape)

    def cast(self, dtype):
        return dataclasses.replace(self, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class Call:
    """A kernel, and the buffers for a call of it by the names that errors give them."""

    kernel: str
    layout: native.ColumnsFirst
    operands: dict[str, Buffer]
    results: dict[str, Buffer]

    @property
    def buffers(self):
        return self.operands | self.results

    def replaced(self, name, change):
        """The same with another buffer of this name."""
        buffers = {name: change(self.buffers[name])}
        kind = "operands" if name in self.operands else "results"
        return dataclasses.replace(self, **{kind: getattr(self, kind) | buffers})

    def run(self):
        results = [jax.ShapeDtypeStruct(b.shape, b.dtype) for b in self.results.values()]
        call = jax.ffi.ffi_call(f"semijax_{self.kernel}", results)
        layout = self.layout
        flags = {"weights_columns_first": layout.weights, "columns_first": layout.elements}
        operands = [np.ones(b.shape, jnp.dtype(b.dtype)) for b in self.operands.values()]
        return jax.block_until_ready(jax.jit(lambda *operands: call(*operands, **flags))(*operands))


ROWS_FIRST = native.ColumnsFirst()


def correct(kernel, layout=ROWS_FIRST, sizes=SIZES, lists="", dtype="float32"):
    """A call of buffers that belong together; ``lists`` is "p" for elements that are lists."""
    weights = "bkm" if layout.weights else "bmk"
    elements, result = ("bnk", "bnm") if layout.elements else ("bkn", "bmn")

    def buffer(axes, dtype):
        return Buffer(axes, tuple(sizes[a] for a in axes), dtype)

    def buffers(name, axes):
        return {f"{name}[{i}]": buffer(axes + lists, dtype) for i in range(KERNELS[kernel])}

    operands = {"weights": buffer(weights, "float32")} | buffers("elements", elements)
    return Call(kernel, layout, operands, buffers("result", result))


TRANSPOSED = native.ColumnsFirst(weights=True, elements=True)
CALLS = {kernel: correct(kernel) for kernel in KERNELS}
CALLS |= {
    "lists": correct("largest", lists="p"),
    "lists, transposed": correct("largest", TRANSPOSED, lists="p"),
    "transposed": correct("mean", TRANSPOSED),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def assert_refused(call, name):
    """The call is refused because of the buffer of this name."""
    with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT") as refused:
        call.run()
    assert f"semijax: {name} is " in str(refused.value)


@each_call
def test_sizes(call):
    assert [x.shape for x in call.run()] == [b.shape for b in call.results.values()]
    following = [name for name in call.buffers if name not in ("weights", "elements[0]")]
    for name, buffer in call.buffers.items():
        for axis, letter in enumerate(buffer.axes):
            # The weights say how large b, k and m are, the first elements how large n and p are.
            if name in following:
                named = name
            elif letter in "bk":
                named = "elements[0]"
            else:
                named = "result[0]" if letter == "m" else following[0]
            for size in (buffer.shape[axis] - 1, buffer.shape[axis] + 1):
                wrong = call.replaced(name, lambda b, a=axis, s=size: b.resized(a, s))
                assert_refused(wrong, named)


@each_call
def test_ranks(call):
    for name, buffer in call.buffers.items():
        for shape in ((), buffer.shape[:2], (*buffer.shape, 1, 1)):
            assert_refused(call.replaced(name, lambda b, s=shape: b.reshaped(s)), name)


@each_call
def test_dtypes(call):
    with jax.enable_x64(True):
        for name in call.buffers:
            for dtype in ("int32", "float64", "complex64", "bool", "float8_e4m3fn"):
                if (name, dtype) != ("elements[0]", "float64"):
                    assert_refused(call.replaced(name, lambda b, d=dtype: b.cast(d)), name)
        for name in call.buffers.keys() - {"weights"}:
            assert_refused(call.replaced(name, lambda b: b.cast("float16")), name)


@each_call
def test_the_first_elements_dtype_is_that_of_the_others(call):
    others = "elements[1]" if KERNELS[call.kernel] == 2 else "result[0]"
    with jax.enable_x64(True):
        assert_refused(call.replaced("elements[0]", lambda b: b.cast("float64")), others)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_may_be_narrower(dtype):
    with jax.enable_x64(True):
        for weights in ("float16", "bfloat16", "float32", dtype):
            call = correct("count", dtype=dtype)
            (found,) = call.replaced("weights", lambda b, d=weights: b.cast(d)).run()
            np.testing.assert_allclose(found, np.log(SIZES["k"]) + 1, 1e-6)


def test_the_longest_list():
    longest = native.LONGEST_LIST
    correct("largest", sizes=SIZES | {"p": longest}, lists="p").run()
    too_long = correct("largest", sizes=SIZES | {"p": longest + 1}, lists="p")
    assert_refused(too_long, "elements[0]")


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel != "largest"])
def test_only_the_largest_come_in_lists(kernel):
    assert_refused(correct(kernel, lists="p"), "elements[0]")


@pytest.mark.parametrize("axis", SIZES)
def test_buffers_without_numbers(axis):
    found = correct("largest", sizes=SIZES | {axis: 0}, lists="p").run()[0]
    np.testing.assert_array_equal(found, np.full(found.shape, -np.inf))


@pytest.mark.parametrize("kernel", KERNELS)
def test_numbers_of_buffers(kernel):
    call = correct(kernel)
    fewer = {name: call.operands[name] for name in list(call.operands)[:-1]}
    more = call.operands | {"more": call.operands["elements[0]"]}
    results = call.results | {"more": call.results["result[0]"]}
    for change in ({"operands": fewer}, {"operands": more}, {"results": results}):
        with pytest.raises(jax.errors.JaxRuntimeError, match="Wrong number of"):
            dataclasses.replace(call, **change).run()
