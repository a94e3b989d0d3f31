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
# # Quickstart: all paths by hand, then a Flax model
#
# **How does a gradient flow through a function?** A gradient is a sum over paths. Here is a
# function with so few paths that they fit in a table. We list them by hand and compute from the
# list the statistic that each semiring of `semijax` returns. One call, `sj.semiring_grad`, finds
# the same numbers without the list, so it also works where there are 10¹⁴ paths, as in the Flax
# model of the second half.
#
# You need to know what `jax.grad` does, and nothing else.

# %%
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

import semijax as sj

# %% [markdown]
# ## A function and its paths
#
# The function of Figure 1 of Du et al. 2023, at x = 0 and y = 3:


# %%
def f(x, y):
    return jnp.exp(x) + (x - y) * y


point = 0.0, 3.0

# %% [markdown]
# Every operation is a node, and every edge has a weight: the derivative of the node it leads to
# with respect to the node it comes from. A **path** leads from an input to the output, and its
# weight is the product of the weights of its edges:
#
# | from | path | weights of its edges | weight of the path |
# |---|---|---|---|
# | x | exp → add | eˣ = 1, 1 | 1 |
# | x | sub → mul → add | 1, y = 3, 1 | 3 |
# | y | mul → add | x − y = −3, 1 | −3 |
# | y | sub → mul → add | −1, y = 3, 1 | −3 |
#
# The two paths from x sum to 1 + 3 = 4, and the derivative ∂f/∂x is eˣ + y = 4. This is no
# coincidence: the derivative *is* the sum over the paths of the products along them (Bauer 1974).
# The same graph, drawn by the machine:

# %%
sj.gradient_graph(f, argnums=(0, 1))(*point)

# %% [markdown]
# *The graph of f. A box is a number that was computed; `[0]` is x and `[1]` is y. Each edge is
# labelled with its weight: red if positive, blue if negative, wider if larger. Multiply along any
# way from left to right to get a path's weight. The picture does not show which path matters most.*
#
# For small functions the machine can list the paths too:

# %%
paths = sj.testing.enumerate_paths(f, *point)
print(paths)

by_hand = [  # argument, primitives, weights
    (0, ("exp", "add"), (1, 1)),
    (0, ("sub", "mul", "add"), (1, 3, 1)),
    (1, ("mul", "add"), (-3, 1)),
    (1, ("sub", "mul", "add"), (-1, 3, 1)),
]
listed = [(int(path.source[0][1]), path.primitives, path.weights) for path in paths]
assert listed == by_hand

# %% [markdown]
# ## Every semiring, by hand
#
# The sum is one statistic of the paths. Others are as easy to compute from the list: the largest
# weight, how many paths there are, and so on. With Z = Σ|w| and p = |w|/Z, a distribution over the
# paths, these are all that `semijax` has:


# %%
def statistics_by_hand(argument):
    """Each statistic, from the list of the paths of one argument."""
    own = [(steps, math.prod(edges)) for start, steps, edges in by_hand if start == argument]
    weights = [weight for _, weight in own]
    sizes = sorted(map(abs, weights), reverse=True)
    mass = sum(sizes)
    p = [abs(weight) / mass for weight in weights]
    return {
        "SumProduct": sum(weights),
        "AbsSumProduct": mass,
        "MaxProduct": max(weights),
        "MinProduct": min(weights),
        "AbsMaxProduct": max(sizes),
        "TopK": [*sizes, 0],  # the three largest: there are but two
        "Entropy": -sum(q * math.log(q) for q in p),
        "PathLength": sum(q * len(steps) for q, (steps, _) in zip(p, own, strict=True)),
        "Expectation": sum(q * steps.count("sub") for q, (steps, _) in zip(p, own, strict=True)),
        "PathCount": math.log(len(own)),
        "Reachability": any(weight != 0 for weight in weights),
    }


def is_subtraction(equation):
    return equation.primitive.name == "sub"


meanings = {
    "SumProduct": "Σ w, the gradient",
    "AbsSumProduct": "Z = Σ |w|, the mass",
    "MaxProduct": "max w",
    "MinProduct": "min w",
    "AbsMaxProduct": "max |w|",
    "TopK": "the 3 largest |w|",
    "Entropy": "−Σ p log p, in nats",
    "PathLength": "mean over p of the number of edges",
    "Expectation": "mean over p of the edges in `sub`",
    "PathCount": "log of the number of paths with w ≠ 0, in nats",
    "Reachability": "is there a path with w ≠ 0?",
}
semirings = {
    "SumProduct": sj.SumProduct(),
    "AbsSumProduct": sj.AbsSumProduct(),
    "MaxProduct": sj.MaxProduct(),
    "MinProduct": sj.MinProduct(),
    "AbsMaxProduct": sj.AbsMaxProduct(),
    "TopK": sj.TopK(3),
    "Entropy": sj.Entropy(),
    "PathLength": sj.PathLength(),
    "Expectation": sj.Expectation(is_subtraction),
    "PathCount": sj.PathCount(),
    "Reachability": sj.Reachability(),
}

# %% [markdown]
# `sj.semiring_grad` has the arguments of `jax.grad`, and a semiring. It lists no paths: it goes
# through the graph once, from the output back, as backpropagation does, with another sum and
# another product. Given a dict of semirings it computes all of them in that one sweep.

# %%
swept = sj.semiring_grad(f, semirings, argnums=(0, 1))(*point)


def show(value):
    return ", ".join(f"{number:.4g}" for number in np.atleast_1d(value))


print(f"{'semiring':14} {'x by hand':10} {'x swept':10} {'y by hand':10} {'y swept':10} reads")
for name, meaning in meanings.items():
    hand = [statistics_by_hand(argument)[name] for argument in (0, 1)]
    np.testing.assert_allclose(swept[name], hand, rtol=1e-6)
    cells = [show(number) for pair in zip(hand, swept[name], strict=True) for number in pair]
    print(f"{name:14}", *(f"{cell:10}" for cell in cells), meaning)

assert swept["SumProduct"] == jax.grad(f, argnums=(0, 1))(*point)

# %% [markdown]
# Look at the column of x: the gradient is 4, three quarters of it on one path (`MaxProduct` 3),
# which goes through the subtraction (`Expectation` 0.75). The two paths from y have equal weights,
# so the entropy there is the largest that two paths can have, log 2 = 0.6931 nats.
#
# Where a number is not enough, ask for the path:

# %%
best = sj.top_paths(f, k=2)(*point)
print(best)
assert [path.weight for path in best] == [3, 1]

# %% [markdown]
# ## No path, or a path of weight 0?
#
# A dead ReLU is an edge of weight 0: a path leads through it, but it weighs nothing. An element
# that slicing drops has no path at all. Four inputs, four cases:


# %%
def four(x):
    alive, both, dead = x[:3]
    return -3 * alive - 3 * both + jax.nn.relu(both) + jax.nn.relu(dead)


x = jnp.array([1.0, -1.0, -1.0, 1.0])
cases = sj.testing.enumerate_paths(four, x, argnums=0)
for n, name in enumerate(("alive", "both", "dead", "unused")):
    print(f"{name:7} weights of its paths: {cases.weights(0, (n,))}")

found = jax.jit(sj.semiring_grad(four, semirings))(x)
print(f"\n{'':14} {'alive':>8} {'both':>8} {'dead':>8} {'unused':>8}")
for name in meanings:
    print(f"{name:14}", *(f"{show(value):>8}" for value in found[name]))

for name in ("MaxProduct", "MinProduct", "Reachability"):
    np.testing.assert_array_equal(found[name], cases.fold(semirings[name]))  # path by path
assert found["MaxProduct"].tolist() == [-3, 0, 0, -math.inf]
assert found["MinProduct"].tolist() == [-3, -3, 0, math.inf]
for name in meanings.keys() - {"MaxProduct", "MinProduct"}:
    alive, both, dead, unused = found[name].tolist()
    assert alive == both and dead == unused

# %% [markdown]
# Only the signed maximum and minimum can tell the difference. For paths of weight −3 and 0 the
# maximum is 0; for −3 alone it is −3. With no path at all, the two return −∞ and +∞, the maximum
# and the minimum of an empty set. For every other semiring, a path of weight 0 counts as no path.

# %% [markdown]
# ## A Flax model
#
# Now a model as you would write it: two blocks of attention with skip connections, in Flax NNX.
# Nothing in it knows of `semijax`. Its weights are random, so the pictures show how to look, not
# what a trained model does; notebook 02 trains one.


# %%
class Block(nnx.Module):
    def __init__(self, width, rngs):
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, width, decode=False, rngs=rngs)

    def __call__(self, x):
        return x + self.attention(self.norm(x))


class Tagger(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(100, 16, rngs=rngs)
        self.layers = nnx.List([Block(16, rngs) for _ in range(2)])
        self.head = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


# %% [markdown]
# For each of five tokens: what is its gradient, how large is it before signs cancel, how strong is
# the strongest path, how many paths are there, and over how many is the gradient spread?

# %%
model = Tagger(nnx.Rngs(0))
embedded = model.embed(jnp.array([5, 7, 11, 13, 17]))  # 5 tokens, 16 hidden units

questions = {
    "gradient": sj.SumProduct(),
    "mass": sj.AbsSumProduct(),
    "strongest": sj.AbsMaxProduct(),
    "log count": sj.PathCount(),
    "entropy": sj.Entropy(),
}

# %% [markdown]
# Five lines answer all five in one sweep, under `jit`. `aggregate=-1` combines the 16 hidden units
# of a token by the semiring's own ⊕: the paths from a token are those from all of its units.


# %%
def logit(embedded):
    return model(embedded)[-1, 0]  # of class 0 at the last token


per_token = jax.jit(sj.semiring_grad(logit, questions, aggregate=-1))
answers = per_token(embedded)
gradient = jax.jit(jax.grad(logit))(embedded)

# %%
for name in questions:
    print(f"{name:10}", *(f"{value:10.4g}" for value in answers[name]))

np.testing.assert_allclose(answers["gradient"], gradient.sum(-1), atol=1e-5)

# %% [markdown]
# The gradient agrees with `jax.grad`, and shows what a sum can hide: summed over the hidden units
# of each of the first four tokens, it is 0 up to rounding. These tokens reach the last one only
# through a layer norm, and a layer norm ignores what is added to all units alike. The mass is not
# 0, nor are the other statistics: a token has more than 10¹³ paths, and its gradient is spread over
# them as evenly as over 10¹¹ equally strong ones. That is what an entropy of log 10¹¹ = 25.3 nats
# means.

# %%
assert np.abs(answers["gradient"][:4]).max() < 1e-5 < answers["mass"].min()
assert answers["log count"].min() > math.log(1e13)
assert answers["entropy"].min() > math.log(1e11)
assert (answers["entropy"] <= answers["log count"]).all()  # of equally strong paths, the count

# %% [markdown]
# ## The strongest path, as a sentence
#
# `sj.scopes(model)` gives the modules of an NNX model their names while something is traced.
# `collapse` shows a path module by module, and `verify` recomputes its weight, equation by
# equation.

# %%
with sj.scopes(model):
    (path,) = sj.top_paths(logit)(embedded)
    (through_values,) = sj.top_paths(logit, through="*/layers/0/attention/value")(embedded)

print(f"The strongest path weighs {path.weight:+.4f}:\n  {path.collapse()}")
print(f"The strongest through the first block's values weighs {through_values.weight:+.4f}:")
print(f"  {through_values.collapse()}")

np.testing.assert_allclose(abs(path.weight), answers["strongest"].max(), rtol=1e-5)
assert path.verify() < 1e-5
assert np.logaddexp.reduce(answers["log count"]) > math.log(1e14)

# %% [markdown]
# Here is how to read the first one, with `[token, unit]` in brackets: it starts at a hidden unit of
# the last token, skips the attention of both blocks, and ends in the head; `slice` and `squeeze`
# are the `[-1, 0]` in `logit`. The search is exact over all of the more than 10¹⁴ paths.

# %% [markdown]
# ## Which way does the gradient leave a layer?
#
# Each block's input is read twice: by the norm in front of the attention, and by the skip
# connection (`add`). `branch_flow` says how much goes each way, from outside the model. We ask
# twice in one sweep: by the mass of all paths, and by the strongest path.

# %%
with sj.scopes(model):
    ways = {"mass": sj.AbsSumProduct(), "strongest": sj.AbsMaxProduct()}
    flow = sj.branch_flow(logit, ways, "*/layers/*:input")(embedded)

print(flow["mass"], end="\n\n")
print(flow["strongest"])

# %% tags=["picture"]
first = "Tagger/layers/0:input"
sj.pictures.stacked_bars(
    flow["strongest"].share()[first],
    groups=["0", "1", "2", "3", "4"],
    group_label="token",
    unit="share of the strongest paths' |weights|",
    normalisation="per token, the two branches sum to 1",
    title="Leaving the input of the first block",
)

# %% [markdown]
# *Each token at the input of the first block: its strongest path through the norm and its strongest
# path through the skip connection (add), as shares of their sum. The picture compares two single
# paths per token and can't show how many others there are.*
#
# By the strongest path, token 4 leaves through the skip connection. By the mass, it does not: there
# are so many more paths through the attention that the skip connection has less than a thousandth
# of the mass, even though the best path of all goes through it. Both are right; they answer
# different questions, and a claim about "the flow" has to say which. In the second block, tokens 0
# to 3 have no path through the skip connection at all, because only the last token's logit is read.
# That is due to the architecture, not the model.

# %%
by_mass = flow["mass"].share()[first]
print("share of the skip connection by mass:", by_mass["add"])
assert by_mass["add"].max() < 1e-3
assert flow["strongest"].winner()[first].tolist() == ["norm"] * 4 + ["add"]
assert flow["mass"].winner()[first].tolist() == ["norm"] * 5
assert flow["mass"]["Tagger/layers/1:input"]["add"].astype(bool).tolist() == [False] * 4 + [True]

# %% [markdown]
# ## Other models
#
# Flax Linen names its modules by itself, and needs no `sj.scopes`:

# %%
perceptron = linen.Sequential([linen.Dense(8), linen.tanh, linen.Dense(1)])
parameters = perceptron.init(jax.random.key(0), jnp.ones(4))


def output(x):
    return perceptron.apply(parameters, x)[0]


print(sj.top_paths(output)(jnp.ones(4)))

# %% [markdown]
# Any other function of arrays works too: Equinox, Hugging Face's Flax models, your own.
#
# ## Where to go next
#
# | notebook | question |
# |---|---|
# | 02_first_token_repeated_once | keys, queries, values: which of them does a transformer use? |
# | 03_agreement | through which branch does BERT look at the subject of a sentence? |
# | 04_difficulty | is the gradient spread over more paths where a task is harder? |
# | 05_entropy | what does the entropy of the paths measure, and what not? |
# | 06_gradient_tracing | where does a single path go, and which components matter to it? |
# | 07_your_own | a semiring of your own; what goes wrong without the axioms |
# | 08_is_it_true | are the tokens and layers that it finds the ones that matter? |
# | 09_training_with_entropy | can one train with a statistic of the paths in the loss? |
# | 10_any_model | other people's models, unmodified |
# | 11_why_this | which paths carry the difference between two answers? |
# | 12_ground_truth | which methods find a mechanism that is known? |
#
# One warning before you go. A flow is made of derivatives, and tells which way a gradient takes.
# What a model *needs* is another question. Notebook 08 answers it by taking parts away, and 12
# where the mechanism is known: read their first paragraphs before you call a part important.
