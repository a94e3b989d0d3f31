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
# # Any model
#
# **Does semijax work on *my* model?** If JAX can differentiate it, very likely. Here are four
# that it knows nothing about: Hugging Face's GPT-2 and ViT, an MLP-Mixer in Equinox, and an LSTM in
# `lax.scan`. It answers the same four questions about each, and no line of any model is edited.
#
# **All weights are random.** The pictures show what an *architecture* does with a gradient before
# anything is learned: means over several initialisations, with 95% confidence intervals. They say
# nothing about trained models, but are a baseline for them.

# %%
import fnmatch
import os
import warnings

os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # that its Flax models are deprecated is known

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import linen as nn

import semijax as sj

with warnings.catch_warnings():  # it looks for the widgets of progress bars
    warnings.simplefilter("ignore")
    from transformers import (
        FlaxGPT2LMHeadModel,
        FlaxViTForImageClassification,
        GPT2Config,
        ViTConfig,
    )

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it
LAYERS = 1 if SMALL else 2
INITIALISATIONS = 3 if SMALL else 20

# Models as small as these take longer to compile than to run.
jax.config.update("jax_disable_most_optimizations", True)
keys = jax.random.split(jax.random.key(0), INITIALISATIONS)

# %% [markdown]
# ## The questions
#
# 1. *By which branch does the gradient leave a layer's input?* `branch_flow` finds the branches
#    itself: they are the modules that read the array.
# 2. *Which way do complete paths take?* `site_flow`, from the embeddings to the output. A path has
#    exactly four ways past the attention of a transformer's layer: through the query, the key or
#    the value, or along the skip connection. So the four shares sum to 1.
# 3. *What comes from each token?* `site_grads`, several semirings in one sweep.
# 4. *Which modules do the paths pass?* `component_flow`, at the end.


# %%
def questions(fun, x, *, at, ways, source):
    """The first three, about a function, its input, and globs over the names of its arrays."""
    statistics = {"strongest": sj.AbsMaxProduct(), "entropy": sj.Entropy()}
    return {
        "branches": sj.branch_flow(fun, sj.AbsSumProduct(), at)(x),
        "ways": sj.site_flow(fun, sj.AbsSumProduct(), ways, source=source)(x),
        "statistics": sj.site_grads(fun, statistics, at, aggregate=-1)(x),
    }


def first(tree):
    """Of the first initialisation; models and results are pytrees."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def print_names(fun, x, *globs):
    """Some of the names by which arrays can be asked for."""
    names = sj.list_sites(fun)(x).names
    print(f"{len(names)} names, among them:")
    for glob in globs:
        print(*fnmatch.filter(names, glob)[:4], sep="\n")


# %% [markdown]
# ## GPT-2
#
# Hugging Face's Flax model with a small configuration; the function is a logit at the last token.
# Flax Linen names its modules, so all arrays have names already. Here are some.

# %%
gpt2 = FlaxGPT2LMHeadModel(
    GPT2Config(vocab_size=97, n_embd=32, n_layer=LAYERS, n_head=4, n_positions=16), _do_init=False
)
tokens = jnp.array([[11, 7, 23, 5, 17, 3, 2]])
gpt2_params = jax.jit(jax.vmap(lambda key: gpt2.init_weights(key, tokens.shape)))(keys)


def gpt2_logit(params):
    return lambda tokens: gpt2(tokens, params=params).logits[0, -1, 5]


print_names(gpt2_logit(first(gpt2_params)), tokens, "*/h/0*:input", "*/h/0/attn/split#?")

# %% [markdown]
# GPT-2 computes query, key and value in one matrix product and splits it: `split#1`, `#2` and `#3`.
# Results pass through `jit` and `vmap`, so that all initialisations are one compiled program.


# %%
@jax.jit
@jax.vmap
def ask_gpt2(params):
    globs = {"at": "*/h/*:input", "ways": ["*/attn/split", "*/attn"], "source": "*/h/0:input"}
    return questions(gpt2_logit(params), tokens, **globs)


gpt2_found = ask_gpt2(gpt2_params)
print(first(gpt2_found["branches"]))


# %%
def total(numbers, glob):
    """The arrays whose name matches, each summed over its elements: [initialisations, arrays]."""
    found = [np.asarray(numbers[name]) for name in fnmatch.filter(numbers, glob)]
    return np.stack([array.reshape(len(array), -1).sum(1) for array in found], 1)


def mean_and_interval(samples):
    """The mean over initialisations, and half of its 95% confidence interval."""
    return samples.mean(0), 1.96 * samples.std(0, ddof=1) / np.sqrt(len(samples))


def picture_of_ways(shares, groups, group_label, title):
    """Shares by way, each [initialisations, groups], as stacked bars."""
    means = {name: mean_and_interval(own) for name, own in shares.items()}
    return sj.pictures.stacked_bars(
        {name: mean.clip(0) for name, (mean, _) in means.items()},
        errors={name: half for name, (_, half) in means.items()},
        groups=groups,
        group_label=group_label,
        unit="share of Σ |path weight|",
        normalisation=f"all paths sum to 1; mean, 95% CI of {INITIALISATIONS} random models",
        title=title,
    )


shares = gpt2_found["ways"].share()
parts = {"query": "*/split#1", "key": "*/split#2", "value": "*/split#3"}
ways = {name: total(shares, glob) for name, glob in parts.items()}
attention = total(shares, "*/attn")
np.testing.assert_allclose(sum(ways.values()), attention, rtol=1e-3)  # there is no other way in

layers = [str(n) for n in range(LAYERS)]
ways["skip"] = 1 - attention
picture_of_ways(ways, layers, "layer", "GPT-2, random weights: past the attention")

# %% [markdown]
# *Which way all paths from the embeddings to the logit take past the attention of each layer; it
# can't show what a trained GPT-2 does.*

# %%
strongest = {
    name: np.log10(own[:, 0]) for name, own in gpt2_found["statistics"]["strongest"].items()
}
curves = {f"layer {n}": mean_and_interval(own) for n, own in enumerate(strongest.values())}
sj.pictures.curves(
    range(tokens.size),
    {name: mean for name, (mean, _) in curves.items()},
    errors={name: half for name, (_, half) in curves.items()},
    x_label="position of the token",
    unit="log₁₀ |weight| of the strongest path from the layer's input",
    normalisation=f"none; mean, 95% CI of {INITIALISATIONS} random models",
    title="GPT-2, random weights",
)

# %% [markdown]
# *The strongest path from each token. Only the last token has one along skip connections alone; the
# paths of all others must go through an attention. Signs are dropped, and the number of paths is
# not shown.*
#
# The entropy says over how many paths the gradient is spread: each layer multiplies the number of
# ways.

# %%
for name, own in gpt2_found["statistics"]["entropy"].items():
    mean, interval = mean_and_interval(own[:, 0])
    print(name, *(f"{a:.1f}±{b:.1f}" for a, b in zip(mean, interval, strict=True)), "nats")

# %% [markdown]
# ## ViT
#
# The same with an image: other globs, and nothing else changes. The function is the logit of a
# class, which is read off the first token, `[CLS]`.

# %%
side, patch = (8, 4) if SMALL else (32, 4)
vit = FlaxViTForImageClassification(
    ViTConfig(
        image_size=side,
        patch_size=patch,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_labels=3,
    ),
    _do_init=False,
)
disc = jnp.where(jnp.hypot(*jnp.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]) < 0.7, 1.0, -0.5)
image = jnp.broadcast_to(disc, (1, 3, side, side))  # three channels alike
vit_params = jax.jit(jax.vmap(lambda key: vit.init_weights(key, (1, side, side, 3))))(keys)


def vit_logit(params):
    return lambda image: vit(image, params=params).logits[0, 1]


@jax.jit
@jax.vmap
def ask_vit(params):
    parts = [f"*/attention/{name}" for name in ("query", "key", "value")]
    globs = {"at": "*/layer/*:input", "ways": [*parts, "*/attention"], "source": "*/embeddings"}
    return questions(vit_logit(params), image, **globs)


print_names(vit_logit(first(vit_params)), image, "*/layer/0*:input", "*/layer/0/*/query")
vit_found = ask_vit(vit_params)

# %%
shares = vit_found["ways"].share()
ways = {name: total(shares, f"*/{name}") for name in ("query", "key", "value")}
attention = total(shares, "*/layer/?/attention")
np.testing.assert_allclose(sum(ways.values()), attention, rtol=1e-3)

ways["skip"] = 1 - attention
picture_of_ways(ways, layers, "layer", "ViT, random weights: past the attention")

# %% [markdown]
# *The same shares for ViT. They can't show that in the last layer only `[CLS]`, the one token that
# is read, has a path through its query or its skip connection.*

# %% tags=["picture"]
at_embeddings = {
    name: next(iter(own.values()))[:, 0] for name, own in vit_found["statistics"].items()
}
maps = {"strongest path": np.log10(at_embeddings["strongest"]), "entropy": at_embeddings["entropy"]}
units = {"strongest path": "log₁₀ |logit per unit|", "entropy": "nats"}
figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
axes[0].imshow(disc, cmap="gray")
axes[0].set(title="the image", xlabel="pixel", ylabel="pixel")
for ax, (name, values) in zip(axes[1:], maps.items(), strict=True):
    cls, *patches = values[0]  # of the first initialisation
    drawn = ax.imshow(np.reshape(patches, (side // patch, side // patch)), cmap="YlGn")
    figure.colorbar(drawn, ax=ax, label=units[name])
    ax.set(title=f"{name}; of [CLS]: {cls:.2f}", xlabel="patch")
plt.show()

# %% [markdown]
# *One random model: the strongest path from each patch's embedding to the logit, and the entropy of
# all its paths, without sign or normalisation. The disc is visible although nothing has been
# learned, so such a map can't show whether a model knows anything about an image.*
#
# Where does the disc come from? The first layer norm divides by the size of a patch's embedding, so
# the derivative by a small embedding is large. Over all initialisations the two go together:


# %%
@jax.jit
@jax.vmap
def vit_embeddings(params):
    return sj.site_values(vit_logit(params), "*/embeddings")(image)


(embeddings,) = vit_embeddings(vit_params).values()
sizes = np.log(np.std(embeddings, -1)[:, 0, 1:])
strongest = np.log(at_embeddings["strongest"])
correlation = np.array(
    [np.corrcoef(a, -b)[0, 1] for a, b in zip(strongest[:, 1:], sizes, strict=True)]
)
mean, interval = mean_and_interval(correlation)
print(f"Correlation of log |weight| and −log size over patches: {mean:.3f} ± {interval:.3f}")
assert mean > 0.9

ahead, interval = mean_and_interval(strongest[:, 0] - strongest[:, 1:].mean(1))
print(f"The strongest path from [CLS] is {np.exp(ahead):.0f} times as strong as one from a patch")
print(f"(geometric mean; 95% CI {np.exp(ahead - interval):.0f} to {np.exp(ahead + interval):.0f}).")
assert ahead > interval  # it alone has a path by skip connections only

# %% [markdown]
# ## An MLP-Mixer in Equinox
#
# A model without attention, put together from `eqx.nn`: one MLP mixes the tokens, another the
# channels. Equinox supplies only the names of classes; within `sj.scopes(model)`, modules are named
# after their attributes.


# %%
class Block(eqx.Module):
    norms: list[eqx.nn.LayerNorm]
    tokens: eqx.nn.MLP
    channels: eqx.nn.MLP

    def __init__(self, length, width, key):
        keys = jax.random.split(key)
        self.norms = [eqx.nn.LayerNorm(width) for _ in range(2)]
        self.tokens = eqx.nn.MLP(length, length, 2 * length, 1, jax.nn.gelu, key=keys[0])
        self.channels = eqx.nn.MLP(width, width, 2 * width, 1, jax.nn.gelu, key=keys[1])

    def __call__(self, x):
        x = x + jax.vmap(self.tokens, 1, 1)(jax.vmap(self.norms[0])(x))
        return x + jax.vmap(self.channels)(jax.vmap(self.norms[1])(x))


class Mixer(eqx.Module):
    blocks: list[Block]
    head: eqx.nn.Linear

    def __init__(self, length, width, key):
        keys = jax.random.split(key, LAYERS + 1)
        self.blocks = [Block(length, width, key) for key in keys[1:]]
        self.head = eqx.nn.Linear(width, 3, key=keys[0])

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(0))


embedded = jax.random.normal(jax.random.key(1), (7, 16))  # 7 tokens, 16 channels
mixers = eqx.filter_vmap(lambda key: Mixer(*embedded.shape, key))(keys)
mixer_params, mixer_static = eqx.partition(mixers, eqx.is_array)


def mixer_logit(params):
    def logit(x):
        model = eqx.combine(params, mixer_static)
        with sj.scopes(model):
            return model(x)[1]

    return logit


@jax.jit
@jax.vmap
def ask_mixer(params):
    globs = {"at": "*/blocks/?:input", "ways": ["*/tokens", "*/channels"], "source": "[0]"}
    return questions(mixer_logit(params), embedded, **globs)


print_names(mixer_logit(first(mixer_params)), embedded, "*/blocks/?:input", "*/blocks/?/*s:input")
mixer_found = ask_mixer(mixer_params)
print(first(mixer_found["branches"]))

# %%
shares = mixer_found["ways"].share()
mixed = total(shares, "*/blocks/?/[tc]*")
groups = [f"{n}: {name}" for n in range(LAYERS) for name in ("tokens", "channels")]
ways = {"MLP": mixed, "skip": 1 - mixed}
picture_of_ways(ways, groups, "block and what it mixes", "MLP-Mixer, random weights")

# %% [markdown]
# *The share of all paths, by weight, that goes through each MLP of the Mixer, and the share that
# goes around it. It can't show which tokens are mixed with which.*

# %% [markdown]
# ## An LSTM in `lax.scan`
#
# Flax's `nn.RNN` runs a cell in `lax.scan`; its arrays have a first axis of time steps. Which gate
# does the gradient use on its way back through time? From one step to the next a path from the
# first input to the last state has exactly five ways: it stays in the cell, or goes through the
# matrix of one of the gates: `hi` (input gate), `hf` (forget gate), `hg` (new content), `ho`
# (output gate).

# %%
steps = 7 if SMALL else 17
lstm = nn.RNN(nn.LSTMCell(16))
series = jax.random.normal(jax.random.key(2), (steps, 8))
lstm_params = jax.vmap(lambda key: lstm.init(key, series))(keys)


def lstm_unit(params):
    def unit(start):
        return lstm.apply(params, series.at[0].set(start))[-1, 3]

    return unit


@jax.jit
@jax.vmap
def ask_lstm(params):
    globs = {"at": "*/cell:input", "ways": ["*/h?", "*/cell/mul#1"], "source": "[0]"}
    return questions(lstm_unit(params), series[0], **globs)


print_names(lstm_unit(first(lstm_params)), series[0], "*/cell:input*", "*/cell/h?")
lstm_found = ask_lstm(lstm_params)
print(first(lstm_found["branches"]))

# %%
shares = lstm_found["ways"].share()
gates = {"input gate": "hi", "forget gate": "hf", "new content": "hg", "output gate": "ho"}
ways = {
    gate: shares[f"RNN/cell.scan_fn/cell/{name}"].sum(-1)[:, 1:] for gate, name in gates.items()
}
cell = 1 - sum(ways.values())
kept = shares["RNN/cell.scan_fn/cell/mul#1"].sum(-1)[:, 1:]  # forget gate × cell
np.testing.assert_allclose(cell + ways["forget gate"], kept, atol=1e-3)

later = [str(n) for n in range(1, steps)]
picture_of_ways({"cell": cell} | ways, later, "time step", "LSTM, random weights")

# %% [markdown]
# *How the paths from the first input to the last state get from each time step to the next. It
# can't show how much flows: that is the next picture.*

# %%
state, content = lstm_found["statistics"]["strongest"].values()
curves = {
    "from the state h": mean_and_interval(np.log10(state)),
    "from the cell c": mean_and_interval(np.log10(content)),
}
sj.pictures.curves(
    range(steps),
    {name: mean for name, (mean, _) in curves.items()},
    errors={name: half for name, (_, half) in curves.items()},
    x_label="time step at which h and c are read",
    unit="log₁₀ |weight| of the strongest path to the last state",
    normalisation=f"none; mean, 95% CI of {INITIALISATIONS} random models",
    title="LSTM, random weights",
)

# %% [markdown]
# *The strongest path from each time step on. Going back in time, it loses the same factor at every
# step, about that of a half-open forget gate. The picture can't show how many weaker paths there
# are.*

# %%
(slope, _) = np.polyfit(range(steps - 1), curves["from the cell c"][0][:-1], 1)
print(f"What is left of the strongest path per time step back: {10**-slope:.2f}")
assert 0.4 < 10**-slope < 0.7  # about what a forget gate lets through that is half open

# %% [markdown]
# ## Which modules do the paths pass?
#
# `component_flow` of the first initialisation: the mass of the paths that enter each module, the
# expected number of a path's edges in it, and the share of all paths that enter it at all.

# %%
asked = {
    "LSTM": (lstm_unit, lstm_params, series[0], 4, "[0]"),
    "Mixer": (mixer_logit, mixer_params, embedded, 4, "[0]"),
    "GPT-2": (gpt2_logit, gpt2_params, tokens, 5, "*/h/0:input"),
    "ViT": (vit_logit, vit_params, image, 6, "*/embeddings"),
}
if SMALL:
    asked = {"LSTM": (lstm_unit, lstm_params, series[0], 3, "[0]")}
for name, (function, params, x, depth, source) in asked.items():
    options = {"source": source, "iterations": False}  # the LSTM's cell is one module
    flow = sj.component_flow(function(first(params)), sj.AbsSumProduct(), depth, **options)(x)
    print(name, flow, sep="\n", end="\n\n")
    assert all(share <= 1.001 for share in flow.share().values())
