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
# # Training with path entropy
#
# **What happens to a model, and to the paths its gradient takes, if their entropy is pushed up or
# down during training?** Pushed down hard, few strong paths carry much of the gradient: the model
# gives up its attention, most of its weights shrink to almost nothing, and it makes more mistakes.
# Pushed up, more of the gradient goes through the attention, and the model answers about as well as
# usual.
#
# A semiring gradient is a JAX function of the parameters like any other, so `jax.grad` can
# differentiate it, and what it says about the paths can be a term of the loss. A small attention
# model learns a task as usual, with its path entropy pushed up, and with it pushed down, gently and
# hard. You will see the learning curves, what each training did to the paths and to the weights,
# the strongest paths, and ablations that show which parts the models need.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import nnx
from IPython.display import Markdown

import semijax as sj
from semijax import zoo
from semijax.experiments.claims import estimate

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it
EXAMPLES, EPOCHS, SEEDS = (700, 3, 2) if SMALL else (4000, 30, 10)
RATES = [-0.1, 0.0, 0.1] if SMALL else [-0.1, 0.0, 0.03, 0.1]
jax.config.update("jax_disable_most_optimizations", SMALL)  # it mostly compiles then

# %% [markdown]
# ## The task and the model
#
# Does a sequence of ten tokens contain both token 1 and token 2? Attention pools the tokens'
# embeddings into one vector, a residual block works on it, a linear layer decides. A path from an
# embedding leads through the value or through the score, and then through the block's hidden
# layer or around it.


# %%
class Pool(nnx.Module):
    def __init__(self, rngs):
        self.score = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x):
        weights = jax.nn.softmax(self.score(x)[..., 0])
        return (weights[..., None] * x).sum(-2)


class Block(nnx.Module):
    def __init__(self, rngs):
        self.up = nnx.Linear(16, 32, rngs=rngs)
        self.down = nnx.Linear(32, 16, rngs=rngs)

    def __call__(self, x):
        return x + self.down(jnp.tanh(self.up(x)))


class Reader(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(20, 16, rngs=rngs)
        self.pool = Pool(rngs)
        self.block = Block(rngs)
        self.head = nnx.Linear(16, 2, rngs=rngs)

    def read(self, x):
        return self.head(self.block(self.pool(x)))

    def __call__(self, tokens):
        return self.read(self.embed(tokens))


task = zoo.ContainsTokenSet(length=10, vocabulary=20, tokens=(1, 2))
train, validation, test = jax.tree.map(jnp.asarray, zoo.split(task.sample(EXAMPLES)))

# %% [markdown]
# ## The entropy as a term of the loss
#
# The quantity is the margin: the logit of the right class minus that of the wrong one. The paths of
# one example start at all units of all its embeddings; each path has the probability |weight|/Z,
# and the entropy, in nats, says over how many paths this is spread. Examples don't interact, so in
# the graph of the batch's summed margin each example has its own paths, and one sweep finds all
# their entropies.


# %%
def margins(model, x, labels):
    """The right logit less the wrong one: [batch, length, width] -> [batch]."""
    logits = model.read(x)
    return (logits[..., 1] - logits[..., 0]) * (2 * labels - 1)


def statistic(model, batch, semiring, aggregate=(1, 2)):
    """What a semiring reads of each example's paths: [batch], or a dict of these."""

    def total(x):
        return margins(model, x, batch.labels).sum()

    return sj.semiring_grad(total, semiring, aggregate=aggregate)(model.embed(batch.tokens))


def entropy(model, batch):
    return statistic(model, batch, sj.Entropy()).mean()


def loss(model, batch, rate):
    """With a positive rate, few strong paths are rewarded; with a negative one, many even ones."""
    return zoo.cross_entropy(model, batch) + rate * entropy(model, batch)


untrained = Reader(nnx.Rngs(0))
few = [zoo.Dataset(train.tokens[:n], train.labels[:n]) for n in (3, 1)]
of_three, of_one = jax.jit(lambda: [statistic(untrained, own, sj.Entropy()) for own in few])()
assert jnp.allclose(of_three[0], of_one[0], rtol=1e-5)
print("nats, of three examples:", of_three)

# %% [markdown]
# For one model, `zoo.train(model, lambda model, batch: loss(model, batch, 0.1), train, epochs=30)`
# is all you need. To compare many models with error bars, we make all trainings one compiled
# program: each is a `scan` over epochs of a `scan` over steps, and a `vmap` over rates and seeds
# runs them side by side. After each epoch, we keep two numbers on held-out examples.

# %%
BATCH_SIZE = 32
optimizer = optax.adam(3e-3)
structure = nnx.graphdef(untrained)


def run(rate, key):
    """One training: the parameters at its end, and what was measured after each epoch."""
    params = nnx.state(Reader(nnx.Rngs(key)))

    def step(state, batch):
        params, moments = state
        gradient = jax.grad(lambda params: loss(nnx.merge(structure, params), batch, rate))(params)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments), None

    def epoch(state, key):
        count = len(train.tokens) // BATCH_SIZE
        order = jax.random.permutation(key, len(train.tokens))[: count * BATCH_SIZE]
        batches = jax.tree.map(lambda leaf: leaf[order.reshape(count, BATCH_SIZE)], train)
        state, _ = jax.lax.scan(step, state, batches)
        model = nnx.merge(structure, state[0])
        measures = {"cross-entropy": zoo.cross_entropy, "entropy": entropy}
        return state, {name: measure(model, validation) for name, measure in measures.items()}

    start = params, optimizer.init(params)
    (params, _), history = jax.lax.scan(epoch, start, jax.random.split(key, EPOCHS))
    return params, history


keys = jax.random.split(jax.random.key(0), SEEDS)
trained, history = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(jnp.array(RATES), keys)

# %% [markdown]
# ## The curves


# %%
def half_widths(samples):
    """Half of the 95% confidence interval of each row's mean, by Student's t."""
    return np.array([estimate(row).half_width for row in samples])


def name_of(rate):
    return f"rate {rate:+.2f}" if rate else "as usual"


def curves(measure, unit):
    """A curve per rate, over the epochs."""
    samples = {
        name_of(rate): np.asarray(of_rate).T
        for rate, of_rate in zip(RATES, history[measure], strict=True)
    }
    return sj.pictures.curves(
        np.arange(1, EPOCHS + 1),
        {name: each.mean(-1) for name, each in samples.items()},
        errors={name: half_widths(each) for name, each in samples.items()},
        x_label="epoch",
        unit=unit,
        normalisation=f"mean of {len(validation.labels)} held-out examples; "
        f"band: 95% CI of {SEEDS} trainings",
    )


curves("entropy", "path entropy of the margin, nats")

# %% [markdown]
# *The term moves the entropy in both directions, down much further than up. The scale in nats
# belongs to this program: another program for the same function has other paths.*

# %%
curves("cross-entropy", "cross-entropy, nats")

# %% [markdown]
# *The loss goes down with every rate, but later than without the term. If the entropy is pushed
# down hard, most models don't get all the way. The bands are symmetric, so they reach below 0 where
# trainings differ much, because some have solved the task and some have not.*
#
# ## What it did to the paths
#
# One more sweep over the trained models, on test examples. Besides the entropy H it finds the
# share of Z = Σ|weight| on the ten strongest paths, the number of paths and their mean length. A
# path passes an `exp` exactly if it leads through the scores, as only the softmax has one, and a
# `tanh` exactly if it leads through the hidden layer: so the mean number of such edges is the
# share of Z that goes there.


# %%
def edges_of(primitive):
    """A feature of an edge: does it belong to this primitive?"""
    return lambda equation: equation.primitive.name == primitive


semirings = {
    "H": sj.Entropy(),
    "top": sj.TopK(10),
    "mass": sj.AbsSumProduct(),
    "count": sj.PathCount(),
    "length": sj.PathLength(),
    "scores": sj.Expectation(edges_of("exp")),
    "hidden": sj.Expectation(edges_of("tanh")),
}


def of_all_runs(analysis):
    """Applies a function of a model to all trained ones: leaves [rates, seeds, ...]."""
    return jax.jit(jax.vmap(jax.vmap(lambda params: analysis(nnx.merge(structure, params)))))(
        trained
    )


def paths_and_weights(model):
    found = statistic(model, test, semirings)
    per_token = statistic(model, test, sj.AbsSumProduct(), aggregate=2)
    deciding = jnp.isin(test.tokens, jnp.array(task.tokens))
    layers = [model.pool.score, model.block.up, model.block.down, model.head]
    weights = jnp.concatenate([layer.kernel[...].ravel() for layer in layers])
    return jnp.stack(
        [
            zoo.accuracy(model, test),
            found["H"].mean(),
            found["count"].mean(),
            (found["top"].sum(-1) / found["mass"]).mean(),
            found["length"].mean(),
            found["scores"].mean(),
            found["hidden"].mean(),
            ((per_token * deciding).sum(-1) / found["mass"]).mean(),
            deciding.mean(),
            (jnp.abs(weights) < 0.01).mean(),
        ]
    )


NAMES = (
    "test accuracy",
    "H, nats",
    "log number of paths, nats",
    "share of Z on the 10 strongest",
    "mean length, edges",
    "share of Z through the scores",
    "share of Z through the hidden layer",
    "share of Z from tokens 1 and 2",
    "share of tokens 1 and 2",
    "share of weights below 0.01",
)
found = dict(zip(NAMES, np.moveaxis(of_all_runs(paths_and_weights), -1, 0), strict=True))
pd.DataFrame(
    {
        name_of(rate): [f"{estimate(each[n]):.3f}" for each in found.values()]
        for n, rate in enumerate(RATES)
    },
    index=NAMES,
)

# %%
UP, USUAL, DOWN = 0, 1, -1  # the places of three rates
means = {name: of_runs.mean(-1) for name, of_runs in found.items()}
assert means["H, nats"][DOWN] < means["H, nats"][USUAL] < means["H, nats"][UP]
if not SMALL:
    assert means["share of Z on the 10 strongest"][DOWN] > 0.3
    assert means["share of weights below 0.01"][DOWN] > 0.8
    assert means["share of Z through the scores"][DOWN] < 0.01
    assert means["share of Z through the scores"][USUAL] > 0.6
    from_them, are_them = found["share of Z from tokens 1 and 2"], found["share of tokens 1 and 2"]
    assert (from_them[USUAL] > 2.5 * are_them[USUAL]).all()
    assert np.allclose(from_them[DOWN], are_them[DOWN], atol=0.01)

# %% [markdown]
# *Means over the trainings, ± half of the 95% confidence interval. The table does not say what is
# cause and what is effect.*
#
# What does the table say?

# %%
H, accuracy = means["H, nats"], means["test accuracy"]
scores = means["share of Z through the scores"]
Markdown(
    f"""
Pushed down hard, the entropy ends at {H[DOWN]:.0f} nats instead of {H[USUAL]:.0f}.
{means["share of Z on the 10 strongest"][DOWN]:.0%} of Z is on ten out of
{np.exp(means["log number of paths, nats"][DOWN]) / 1e6:.0f} million paths, and
{means["share of weights below 0.01"][DOWN]:.0%} of the weights are as good as zero; their paths are
still there, as the number of paths says, but carry little. Three lines go with that:
{scores[DOWN]:.0%} of Z flows through the scores ({scores[USUAL]:.0%} as usual), the paths are
shorter by what the softmax has, and {means["share of Z from tokens 1 and 2"][DOWN]:.0%} of Z comes
from tokens 1 and 2, which are {means["share of tokens 1 and 2"][DOWN]:.0%} of all tokens, though
{means["share of Z from tokens 1 and 2"][USUAL]:.0%} does in a model trained as usual. The attention
carries hardly anything, and {1 - accuracy[DOWN]:.0%} of the answers are wrong. Pushed up,
{scores[UP]:.0%} of Z goes through the scores, {means["share of weights below 0.01"][UP]:.1%} of the
weights are near zero, and {accuracy[UP]:.1%} of the answers are right, against
{accuracy[USUAL]:.1%} as usual.
"""
)

# %% [markdown]
# ## The strongest paths, drawn
#
# The five strongest paths of one example, in a model trained as usual and in one whose entropy
# was pushed down hard, from the same initial parameters.


# %%
example = test.tokens[jnp.argmax(test.labels == 1)]


def strongest(rate):
    """The five strongest paths of the example in the first training at a rate."""
    model = nnx.merge(structure, jax.tree.map(lambda leaf: leaf[rate, 0], trained))
    x = model.embed(example)

    def margin(x):
        return margins(model, x[None], jnp.array([1])).sum()

    with sj.scopes(model):
        paths = sj.top_paths(margin, k=5)(x)
        mass = sj.semiring_grad(margin, sj.AbsSumProduct(), aggregate=(0, 1))(x)
    assert max(path.verify() for path in paths) < 1e-4
    share = sum(abs(path.weight) for path in paths) / mass
    return sj.pictures.path_grid(
        paths,
        layers={"pool": "*/pool*", "block": "*/block*", "head": "*/head"},
        tokens=[str(token) for token in example],
        title=f"{name_of(RATES[rate])}: these five are {share:.1%} of Z",
    )


strongest(USUAL)

# %%
strongest(DOWN)

# %% [markdown]
# *The five strongest paths of one example; the titles say how much of Z they are. In this example
# of this model, trained as usual, they start at a token that matters, but stand for few of the
# other paths. In the one pushed down hard, they are a large part of Z and start at any token. No
# path can say which part of the model decides.*
#
# ## Does the model use fewer parts?
#
# Where the paths lead is one thing; what the model needs is another. We replace first the scores,
# and then what the hidden layer adds, by their means over the test examples, and look at the
# accuracy.


# %% tags=["picture"]
def without(site):
    """Test accuracies of all models, with an array replaced by its mean."""

    def accuracy(model):
        with sj.scopes(model):
            read = model.read if site is None else sj.ablate(model.read, site, "mean")
            logits = read(model.embed(test.tokens))
        return jnp.mean(jnp.argmax(logits, -1) == test.labels)

    return np.asarray(of_all_runs(accuracy))


parts = {"intact": None, "no scores": "*/pool/score", "no hidden layer": "*/block/down"}
accuracies = {name: without(site) for name, site in parts.items()}
sj.pictures.grouped_bars(
    {name: each.mean(-1) for name, each in accuracies.items()},
    errors={name: half_widths(each) for name, each in accuracies.items()},
    groups=[name_of(rate) for rate in RATES],
    group_label="training",
    unit="test accuracy",
    normalisation=f"1 is all of {len(test.labels)} examples; 95% CI of {SEEDS} trainings",
)

# %%
if not SMALL:
    assert (accuracies["no scores"][USUAL] < 0.6).all()
    assert (abs(accuracies["no scores"] - accuracies["intact"])[DOWN] < 0.01).all()
    without_scores, through_them = accuracies["no scores"], means["share of Z through the scores"]
    assert without_scores.mean(-1)[UP] > 0.7 and through_them[UP] > through_them[USUAL]

# %% [markdown]
# *Which parts a model needs: trained as usual, both; pushed down hard, not the scores. Only these
# two were tried, one at a time, and the bars don't say how much the parts are worth together.*
#
# In the models pushed down hard, almost nothing flows through the scores, and without them every
# model answers as before. Of those pushed gently, some have given up attention and some have not,
# hence the long error bar. But a part that carries more flow need not be needed more:

# %%
without_scores = accuracies["no scores"].mean(-1)
Markdown(
    f"""
Pushed up, {scores[UP]:.0%} of Z leads through the scores, more than the {scores[USUAL]:.0%} as
usual, and yet the models keep an accuracy of {without_scores[UP]:.0%} without them, against
{without_scores[USUAL]:.0%}. How much flows through a part and how much depends on it are two
questions.
"""
)

# %% [markdown]
# ## What it shows, and what it doesn't
#
# A statistic of all paths can be trained on, in a few lines. It is a lever on the model, not on its
# explanation: training met the demand for few strong paths by giving up attention, and, when pushed
# hard, at the price of accuracy. With attention went the preference for the tokens that matter. Few
# strong paths are easier to look at, but no truer.
#
# One task and one small model prove no rule. We did not try whether a penalty on the weights would
# have done the same. And rates don't carry over to other programs, because the entropy is that of
# the program as written. The numbers come from the trainings in this notebook; no table of them is
# stored.
