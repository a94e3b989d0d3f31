# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A semiring of your own
#
# **Which statistics of the paths can one sweep compute, and how do I add mine?** A statistic is a
# semiring: five short methods. Here are four new ones, each checked against a list of all paths:
# the widest path, how many paths attain a maximum, how many have no narrow edge, and the gradient
# by path length. `check_semiring` tests whether yours satisfies the axioms. Then we break one axiom
# and measure how often the signed maximum is wrong. (For a primitive of your own, see the guide.)

# %%
import dataclasses
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import binomtest

import semijax as sj
from semijax.testing import check_semiring, enumerate_paths

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it

# %% [markdown]
# ## The widest path
#
# A semiring says how paths are combined. ⊗ extends a path by an edge, ⊕ joins the paths that meet,
# 1̄ is the path without edges, 0̄ is no path, and `lift` turns a local derivative into an element.
# Let an edge be as wide as its |derivative|, and a path as wide as its narrowest edge. Then ⊗ is
# the minimum, ⊕ the maximum, and the sweep finds the widest path.


# %%
@dataclasses.dataclass(frozen=True)
class Bottleneck(sj.Semiring):
    """The widest path: the largest, over paths, of the smallest |derivative| on the path."""

    def zero(self, shape, dtype):
        return jnp.zeros(shape, dtype)

    def one(self, shape, dtype):
        return jnp.full(shape, jnp.inf, dtype)

    def lift(self, weights):
        return jnp.abs(weights)

    def add(self, a, b):
        return jnp.maximum(a, b)

    def mul(self, a, b):
        return jnp.minimum(a, b)


check_semiring(Bottleneck())  # tries every axiom; silent if all hold

# %% [markdown]
# A residual network of random weights, small enough that we can list its paths:


# %%
def draw(key, blocks, width, networks=()):
    """Random weights and inputs, of one network or with an axis for several in front."""
    keys = jax.random.split(key, 4)
    square, row = (*networks, blocks, width, width), (*networks, width)
    up, down = (jax.random.normal(k, square) / width**0.5 for k in keys[:2])
    readout = jax.random.normal(keys[2], row) / width**0.5
    return (up, down, readout), jax.random.normal(keys[3], row)


def network(weights, x, skip=True):
    """Blocks of two layers, with a skip connection around each or without, and a readout."""
    *blocks, readout = weights

    def block(x, layers):
        up, down = layers
        y = jnp.tanh(x @ up) @ down
        return (x + y if skip else y), None

    return jax.lax.scan(block, x, tuple(blocks))[0] @ readout


weights, x = draw(jax.random.key(14), blocks=2, width=3)


def small(x):
    return network(weights, x)


paths = enumerate_paths(small, x, argnums=0)
print(len(paths), "paths from", len(x), "inputs")

# %% [markdown]
# We compute the same numbers in three ways: by the definition, from the list of paths; by folding
# the semiring over the list; and by the sweep, which needs no list.


# %%
def width_of(path):
    return min(map(abs, path.weights))


by_definition = [max(width_of(path) for path in paths.from_source(0, (i,))) for i in range(len(x))]
swept = jax.jit(sj.semiring_grad(small, Bottleneck()))(x)
print("width of the widest path from each input:", swept)

np.testing.assert_allclose(swept, by_definition, rtol=1e-6)
np.testing.assert_allclose(swept, paths.fold(Bottleneck()), rtol=1e-6)

from_first = paths.from_source(0, (0,))
widest = max(from_first, key=width_of)
strongest = max(from_first, key=lambda path: abs(path.weight))
print(f"one of the widest from input 0, width {width_of(widest):.4f}:\n  {widest}")
print(f"the strongest, width {width_of(strongest):.4f}:\n  {strongest}")
assert width_of(strongest) < width_of(widest)

# %% [markdown]
# What is it good for? If a gradient vanishes with depth, the bottleneck shows whether all paths
# must squeeze through one narrow edge, or whether many factors below 1 multiply.

# %%
depths = (1, 3) if SMALL else (1, 2, 4, 8, 16)
networks = 50 if SMALL else 200
statistics = {"widest path": Bottleneck(), "strongest path": sj.AbsMaxProduct()}
(ups, downs, readouts), inputs = draw(jax.random.key(1), max(depths), 8, (networks,))


def at_depth(blocks, skip):
    """For the first input of each network: float [networks] for each statistic."""

    def of_one(weights, x):
        found = sj.semiring_grad(lambda x: network(weights, x, skip), statistics)(x)
        return {name: values[0] for name, values in found.items()}

    weights = ups[:, :blocks], downs[:, :blocks], readouts
    return jax.jit(jax.vmap(of_one))(weights, inputs)


fig, axes = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
means = {}
for skip, style in ((True, "-"), (False, "--")):
    found = [at_depth(blocks, skip) for blocks in depths]
    for name, colour in zip(statistics, ("tab:blue", "tab:orange"), strict=True):
        logs = np.log([values[name] for values in found])
        mean, error = logs.mean(1), 1.96 * logs.std(1, ddof=1) / networks**0.5
        means[name, skip] = np.exp(mean)
        label = f"{name},\n{'with' if skip else 'without'} skips"
        axes.plot(depths, np.exp(mean), style, color=colour, label=label)
        axes.fill_between(
            depths, np.exp(mean - error), np.exp(mean + error), color=colour, alpha=0.2, linewidth=0
        )
axes.set(xlabel="blocks", ylabel="width, or |weight| (geometric mean)", yscale="log")
axes.set_xticks(depths)
fig.legend(frameon=False, loc="outside right center")
plt.show()

# %% [markdown]
# *The widest and the strongest path from the first input of 200 random networks of width 8, as
# sizes without sign, not normalised; bands (thin) are 95% confidence intervals of the geometric
# mean. Without skips, the strongest path fades by a constant factor per block, while the widest
# stays as wide as it was: no edge is narrow, but the factors multiply. The picture can't show what
# training would change.*

# %%
lost = means["strongest path", False][-1] / means["strongest path", False][0]
kept = means["widest path", False][-1] / means["widest path", False][0]
print(f"Without skips, {depths[-1]} blocks against {depths[0]}: strongest × {lost:.2g},", end=" ")
print(f"widest × {kept:.2g}")
assert lost < 0.5 < kept

# %% [markdown]
# ## An element may be several numbers
#
# How many paths are as wide as the widest? An element can be any pytree of arrays, so why not carry
# the value and the number of paths that attain it? ⊕ keeps the larger value and adds the numbers
# where both are equal; ⊗ multiplies the numbers. (A method `readout` would choose which part of an
# element to report; by default, it is all of it.) Here it is, for any semiring whose ⊕ is a
# maximum:


# %%
class Best(NamedTuple):
    """The largest value, and how many paths attain it."""

    value: jax.Array
    ways: jax.Array


@dataclasses.dataclass(frozen=True)
class HowMany(sj.Semiring):
    """What a semiring that takes a maximum finds, and how many paths attain it."""

    of: sj.Semiring

    def zero(self, shape, dtype):
        return Best(self.of.zero(shape, dtype), jnp.zeros(shape, dtype))

    def one(self, shape, dtype):
        return Best(self.of.one(shape, dtype), jnp.ones(shape, dtype))

    def lift(self, weights):
        return Best(self.of.lift(weights), (weights != 0).astype(weights.dtype))

    def add(self, a, b):
        ways = jnp.where(a.value >= b.value, a.ways, 0) + jnp.where(b.value >= a.value, b.ways, 0)
        return Best(jnp.maximum(a.value, b.value), ways)

    def mul(self, a, b):
        return Best(self.of.mul(a.value, b.value), a.ways * b.ways)


def complaint(semiring):
    """What check_semiring has to say."""
    try:
        check_semiring(semiring)
    except AssertionError as error:
        return str(error)
    return "a commutative semiring"


print(complaint(HowMany(sj.AbsMaxProduct())), end="\n\n")
print(complaint(HowMany(Bottleneck())))

# %% [markdown]
# For products this is a semiring; for the bottleneck it is not, and the check shows three elements
# for which a law fails. Two paths of different width become equally wide if the same narrow edge is
# put in front of both, but a sweep that has already dropped the narrower one counts one path
# instead of two. In a product with the same factor, the larger one stays larger (unless the factor
# is 0, which is why `lift` says that an edge of weight 0 counts as no path).
#
# So the count of the strongest is right. Here weights are ±1 and ±½, so that many paths are
# equally strong and their products exact:

# %%
layers = jax.random.choice(jax.random.key(3), jnp.array([-1, -0.5, 0.5, 1]), (3, 4, 4))


def rectified(x):
    for layer in layers:
        x = jax.nn.relu(x @ layer)
    return x.sum()


point = jnp.array([1.0, -2.0, 0.5, 3.0])
best = jax.jit(sj.semiring_grad(rectified, HowMany(sj.AbsMaxProduct())))(point)
rectified_paths = enumerate_paths(rectified, point, argnums=0)
for i, (value, ways) in enumerate(zip(*best, strict=True)):
    sizes = np.abs(rectified_paths.weights(0, (i,)))
    print(f"input {i}: {int(ways)} of {(sizes > 0).sum()} paths weigh ±{value}")
    assert value == sizes.max() and ways == (sizes == sizes.max()).sum()

# %% [markdown]
# The count of the widest paths, however, is wrong:

# %%
claimed = sj.semiring_grad(small, HowMany(Bottleneck()))(x)
sizes = np.array([width_of(path) for path in from_first])
really = int(np.isclose(sizes, sizes.max(), rtol=1e-6).sum())
print(f"paths from input 0 as wide as the widest: {really}; claimed: {int(claimed.ways[0])}")
assert claimed.ways[0] != really

# %% [markdown]
# The solution is two sweeps: the first finds the width, and the second, with a semiring of its own,
# counts the paths that are as wide. The second also shows what the bottleneck *means*: if you cut
# every edge below a threshold, the input still reaches the output if and only if the threshold is
# at most its bottleneck.


# %%
@dataclasses.dataclass(frozen=True)
class CountWide(sj.Semiring):
    """The number of paths with no edge below a threshold."""

    threshold: float

    def zero(self, shape, dtype):
        return jnp.zeros(shape, dtype)

    def one(self, shape, dtype):
        return jnp.ones(shape, dtype)

    def lift(self, weights):
        return (jnp.abs(weights) >= self.threshold).astype(weights.dtype)

    def add(self, a, b):
        return a + b

    def mul(self, a, b):
        return a * b


check_semiring(CountWide(0.5))
threshold = float(swept[0])
just_below, just_above = (
    sj.semiring_grad(small, CountWide(threshold * factor))(x)[0] for factor in (1 - 1e-6, 1 + 1e-6)
)
print(f"no edge below {threshold:.4f}: {int(just_below)} paths; a little more: {int(just_above)}")
assert just_below == really and just_above == 0

# %% [markdown]
# ## An element may have axes of its own
#
# Veit et al. (2016) found that the gradient of a residual network comes through its short paths,
# though most paths are long. To see that in one sweep, an element becomes a polynomial: the
# coefficient of zⁿ belongs to the paths of n edges. An edge is w·z, ⊕ adds polynomials, ⊗
# multiplies them, and powers above the longest path are dropped. The coefficients live on a
# trailing axis, of the same size for every array.


# %%
@dataclasses.dataclass(frozen=True)
class ByLength(sj.Semiring):
    """Σ over the paths of n edges, for n = 0, …, longest: of 1, of |w|, or of w.

    Elements have shape S + (longest + 1,).
    """

    longest: int
    what: str  # "paths", "mass" or "gradient"

    def amount(self, weights):
        if self.what == "gradient":
            return weights
        return jnp.abs(weights) if self.what == "mass" else (weights != 0).astype(weights.dtype)

    def zero(self, shape, dtype):
        return jnp.zeros((*shape, self.longest + 1), dtype)

    def one(self, shape, dtype):
        return self.zero(shape, dtype).at[..., 0].set(1)

    def lift(self, weights):
        return self.zero(weights.shape, weights.dtype).at[..., 1].set(self.amount(weights))

    def add(self, a, b):
        return a + b

    def mul(self, a, b):
        # The coefficient of zⁿ is the sum of those of zⁱ times those of zʲ with i + j = n.
        i, j, n = np.ogrid[: self.longest + 1, : self.longest + 1, : self.longest + 1]
        return jnp.einsum("...i,...j,ijn->...n", a, b, jnp.asarray(i + j == n, a.dtype))


check_semiring(ByLength(longest=2, what="gradient"))

# %% [markdown]
# The same three ways agree on the small network, whose paths have 3, 6 or 9 edges:

# %%
by_length = {what: ByLength(longest=9, what=what) for what in ("paths", "mass", "gradient")}
polynomials = jax.jit(sj.semiring_grad(small, by_length))(x)
lengths = np.array([path.length for path in from_first])
own = paths.weights(0, (0,))

print("edges:   ", *range(10))
print("paths:   ", polynomials["paths"][0])
np.testing.assert_array_equal(polynomials["paths"][0], np.bincount(lengths))
np.testing.assert_allclose(polynomials["mass"][0], np.bincount(lengths, abs(own)), rtol=1e-5)
np.testing.assert_allclose(
    polynomials["gradient"][0], np.bincount(lengths, own), rtol=1e-5, atol=1e-6
)
np.testing.assert_allclose(polynomials["gradient"].sum(-1), jax.grad(small)(x), atol=1e-6)

# %% [markdown]
# ## Faster, with the same result
#
# The five methods are enough for every function. Other methods are derived from them, and you can
# override these where you know a faster way: `scale` (an edge ⊗ an element), `pass_through` (an
# edge of weight 1), `sum` (⊕ over axes) and `contract` (a matrix product). An edge only shifts a
# polynomial by one power, so a product of two polynomials is never needed, and a matrix product is
# an ordinary one and a shift:


# %%
@dataclasses.dataclass(frozen=True)
class FastByLength(ByLength):
    """The same, without products of polynomials."""

    def scale(self, weights, elements):
        return self.amount(weights)[..., None] * self.pass_through(elements)

    def pass_through(self, elements):
        return jnp.concatenate([jnp.zeros_like(elements[..., :1]), elements[..., :-1]], -1)

    def sum(self, elements, axes):
        return elements.sum(axes)

    def contract(self, weights, elements):
        product = jnp.einsum("bmk,bknl->bmnl", self.amount(weights), elements)
        return self.pass_through(product)


check_semiring(FastByLength(longest=2, what="gradient"))  # compares them with the defaults

blocks = 3 if SMALL else 12
deep_weights, deep_x = draw(jax.random.key(3), blocks, width=16)
results, seconds = {}, {}
for kind in (ByLength, FastByLength):
    semiring = kind(longest=4 * blocks + 1, what="mass")
    sweep = jax.jit(sj.semiring_grad(lambda x: network(deep_weights, x), semiring))
    sweep(deep_x).block_until_ready()  # compiles
    start = time.perf_counter()
    results[kind] = sweep(deep_x).block_until_ready()
    seconds[kind] = time.perf_counter() - start

np.testing.assert_allclose(results[ByLength], results[FastByLength], rtol=1e-4)
print(f"defaults {1e3 * seconds[ByLength]:.2f} ms, overridden {1e3 * seconds[FastByLength]:.2f} ms")

# %% [markdown]
# An override must give the same result, and `check_semiring` compares it with the default:


# %%
class Wrong(ByLength):
    def pass_through(self, elements):
        return elements  # forgets to count the edge


print(complaint(Wrong(longest=2, what="mass")))

# %% [markdown]
# Now the question, on deep networks: through how many blocks do most paths go, which paths have the
# mass, and which make up the gradient?

# %%
networks = 5 if SMALL else 50
kinds = {what: FastByLength(4 * blocks + 1, what) for what in ("paths", "mass", "gradient")}


@jax.jit
@jax.vmap
def polynomials_and_gradient(weights, x):
    def fun(x):
        return network(weights, x)

    return sj.semiring_grad(fun, kinds)(x), jax.grad(fun)(x)


found, gradients = polynomials_and_gradient(*draw(jax.random.key(4), blocks, 16, (networks,)))
np.testing.assert_allclose(found["gradient"].sum(-1), gradients, atol=1e-4)

# A path through k blocks: the readout, an addition per block, three more edges in each of the k.
through = 1 + blocks + 3 * np.arange(blocks + 1)
sizes = {
    "paths": found["paths"].sum(1),
    "mass Σ |w|": found["mass"].sum(1),
    "gradient ‖Σ w‖": jnp.linalg.norm(found["gradient"], axis=1),
}
shares = {name: np.asarray(v / v.sum(-1, keepdims=True))[:, through] for name, v in sizes.items()}

fig, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for n, (name, values) in enumerate(shares.items()):
    error = 1.96 * values.std(0, ddof=1) / networks**0.5
    places = np.arange(blocks + 1) + 0.27 * (n - 1)
    axes.bar(places, values.mean(0), 0.27, yerr=error, label=name, error_kw={"linewidth": 1})
axes.set(xlabel="blocks that a path goes through", ylabel="share (sums to 1 over all lengths)")
axes.set_xticks(range(blocks + 1))
axes.legend(frameon=False, loc="upper left")
plt.show()

# %% [markdown]
# *Shares of the paths, of their mass and of the gradient by the number of blocks that a path does
# not skip, all ≥ 0; 50 random networks of 12 blocks and width 16; error bars are 95% confidence
# intervals of the mean. Nearly all paths go through every block, but the gradient comes from those
# through few, because the many long ones cancel. Untrained networks can't show what training
# changes.*

# %%
mean_blocks = {
    name: float((v * np.arange(blocks + 1)).sum(-1).mean()) for name, v in shares.items()
}
print({name: round(number, 2) for name, number in mean_blocks.items()})
counts, masses, gradient = mean_blocks.values()
assert gradient < masses < counts

# %% [markdown]
# ## Without an axiom: the signed maximum
#
# What is the largest weight of a path, with its sign? It looks like (max, ×) on ordinary numbers:


# %%
@dataclasses.dataclass(frozen=True)
class PlainMax(sj.Semiring):
    """The largest product of weights. It is not."""

    def zero(self, shape, dtype):
        return jnp.full(shape, -jnp.inf, dtype)

    def one(self, shape, dtype):
        return jnp.ones(shape, dtype)

    def lift(self, weights):
        return weights

    def add(self, a, b):
        return jnp.maximum(a, b)

    def mul(self, a, b):
        return a * b


print(complaint(PlainMax()))

# %% [markdown]
# A negative factor turns the larger into the smaller. Whenever paths meet, a sweep relies on
# a ⊗ (b ⊕ c) = (a ⊗ b) ⊕ (a ⊗ c): it joins b and c first, and knows only their maximum by the time
# it reaches a. Two layers are enough to go wrong:

# %%
first, second = jnp.array([[-1.0]]), jnp.array([[2.0, -3.0]])


def two_layers(x):
    return (x @ first @ second).sum()


one_input = jnp.ones(1)
sj.gradient_graph(two_layers)(one_input)

# %% [markdown]
# *The graph of the two layers; at each edge its weight, red if positive, blue if negative. The two
# paths weigh −1 · 2 = −2 and −1 · (−3) = 3.*

# %%
print(enumerate_paths(two_layers, one_input))
naive = sj.semiring_grad(two_layers, PlainMax())(one_input)
true = sj.semiring_grad(two_layers, sj.MaxProduct())(one_input)
print(f"\nlargest weight: plain max {naive[0]}, MaxProduct {true[0]}")

# Forward, the same edges meet in another order, and so plain max gives another number.
plain = PlainMax()
begin = plain.one((1,), jnp.float32)
_, forward = sj.semiring_jvp(two_layers, (one_input,), (begin,), semiring=plain)
print(f"plain max, swept forward: {forward}")

assert naive[0] == -2 and true[0] == 3 and forward == 3

# %% [markdown]
# At the middle node the sweep from the output has seen 2 and −3, and keeps 2. The factor −1 makes
# it −2, though the path that was dropped weighs 3. `MaxProduct` keeps both ends, the largest and
# the smallest: whatever the sign of the next factor, the new ends are products of the old ones.
# These pairs *are* a semiring.

# %%
after_first = sj.semiring_grad(lambda h: (h @ second).sum(), sj.MaxProduct(), raw=True)(-one_input)
at_input = sj.semiring_grad(two_layers, sj.MaxProduct(), raw=True)(one_input)
print(f"at the middle node: max {after_first.max[0]}, min {after_first.min[0]}")
print(f"times −1:           max {at_input.max[0]}, min {at_input.min[0]}")
check_semiring(sj.MaxProduct())

# %% [markdown]
# **How often does it matter?** In a network of L tanh layers whose weights are independent and
# symmetric about 0, plain max is wrong with probability 1 − 2^(1−L), for every width of at least 2.
# It keeps the best path only if, at each unit of that path where suffixes compete, the part of the
# path *before* the unit has a positive weight, so that the largest suffix is the right one. Now
# flip the signs of all weights into and out of such a unit: since tanh is odd, no path's weight
# changes, but the sign of that part does. So it is a fair coin, one for each of L − 1 layers (after
# the last, there is only one suffix).

# %%
layer_counts = (1, 3) if SMALL else (1, 2, 3, 4, 5, 6, 7, 8)
widths = (4,) if SMALL else (4, 16)
networks = 200 if SMALL else 2000


def tanh_network(layers, readout, x):
    return jax.lax.scan(lambda x, layer: (jnp.tanh(x @ layer), None), x, layers)[0] @ readout


@jax.jit
@jax.vmap
def compare(layers, readout, x):
    """Plain max and MaxProduct from the first input of each network: two of float [networks]."""
    both = PlainMax(), sj.MaxProduct()
    found = sj.semiring_grad(lambda x: tanh_network(layers, readout, x), both)(x)
    return [values[0] for values in found]


results = {}
for width in widths:
    (layers, _, readouts), inputs = draw(jax.random.key(5), max(layer_counts), width, (networks,))
    for count in layer_counts:
        results[width, count] = np.array(compare(layers[:, :count], readouts, inputs))
    if width == 4:  # MaxProduct against all paths of the first network with three layers
        every_path = enumerate_paths(tanh_network, layers[0, :3], readouts[0], inputs[0], argnums=2)
        largest = every_path.weights(2, (0,)).max()
        np.testing.assert_allclose(results[4, 3][1, 0], largest, rtol=1e-5)


# %% tags=["picture"]
count = np.array(layer_counts)
predicted = 1 - 2.0 ** (1 - count)
wrong = {
    width: [int((~np.isclose(*results[width, n], rtol=1e-4, atol=0)).sum()) for n in layer_counts]
    for width in widths
}

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.plot(count, predicted, "k--", linewidth=1, label="predicted")
right.axhline(1, color="k", linestyle="--", linewidth=1)
for number, width in enumerate(widths):
    share = np.array(wrong[width]) / networks
    intervals = [binomtest(n, networks).proportion_ci(method="wilson") for n in wrong[width]]
    bars = np.abs(np.transpose(intervals) - share)
    left.errorbar(count + 0.1 * number, share, bars, fmt="o", capsize=3, label=f"width {width}")
    ratios = [plain / true for plain, true in (results[width, n] for n in layer_counts)]
    lower, middle, upper = np.quantile(ratios, [0.25, 0.5, 0.75], axis=1)
    right.plot(count, middle, "o-")
    right.fill_between(count, lower, upper, alpha=0.2, linewidth=0)
left.set(xlabel="layers L", ylabel="share of networks where it is wrong")
left.legend(frameon=False)
right.set(xlabel="layers L", ylabel="plain max / largest path weight")
for axes in (left, right):
    axes.set_xticks(count)
plt.show()

# %% [markdown]
# *Left: how often the naive sweep misses the largest path weight from the first input (2,000
# networks each; bars are 95% Wilson intervals), and the prediction. Right: its result divided by
# the true weight, with sign; lines are medians, bands are quartiles, and the dashed line is the
# correct value. Random tanh networks; if weights were mostly of one sign, as training may make
# them, the numbers would differ.*

# %%
deviation = np.sqrt(predicted * (1 - predicted) / networks)
for width in widths:
    share = np.array(wrong[width]) / networks
    print(f"width {width}: predicted, measured")
    for n, expected, found in zip(count, predicted, share, strict=True):
        print(f"  L = {n}: {expected:.1%}, {found:.1%}")
    assert (np.abs(share - predicted) <= 4 * deviation).all()
for plain_max, true in results.values():  # it is some path's weight, so it can't be too large
    assert (plain_max <= true + 1e-5 * np.abs(true)).all()

# %% [markdown]
# ## In short
#
# | you want | you write | check with |
# |---|---|---|
# | another statistic | `zero`, `one`, `lift`, `add`, `mul` | `check_semiring`, all paths |
# | several numbers | elements that are pytrees, trailing axes | the same |
# | speed | `sum`, `scale`, `pass_through`, `contract`, `segment_sum` | `check_semiring` |
