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
# # Keys, queries, values: which of them does a transformer use?
#
# **How does a transformer find out whether its first token comes back?** Figure 2 of Du et al.
# 2023, from the data to the bars: a BERT of one layer is trained on 7,000 sequences until it knows
# all of the validation data, and we ask by which branch of the attention the strongest path of the
# gradient leaves each token. Beside it stand models of other seeds and models that were never
# trained: how much of the picture is the model, how much the architecture?

# %%
import os
import pathlib

import matplotlib.pyplot as plt
import numpy as np
import pandas

import semijax as sj
from semijax import zoo
from semijax.demo import as_sentence, strongest_path
from semijax.experiments import first_token
from semijax.experiments.branches import ALL, BRANCHES, branch_bars, branch_table

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it
SEQUENCES, EPOCHS, SEEDS = (600, 2, 2) if SMALL else (10_000, 100, 10)
OUTPUT = pathlib.Path("output")
KINDS = [*first_token.KINDS]

# %% [markdown]
# ## The task and the model
#
# Sequences of ten tokens from 1 to 19. In half of them the first token comes back exactly once, at
# any place (label 1); in the other half it never does (label 0).

# %%
splits = zoo.split(first_token.TASK.sample(SEQUENCES))
for tokens, label in zip(splits.train.tokens[:4], splits.train.labels, strict=False):
    print(tokens, "comes back" if label else "does not")

# %% [markdown]
# The model is the paper's: one layer, width 16, two heads, a feed-forward block of 32, a tanh
# pooler on position 0; Adam with 1e-3, batches of 32. It is trained from ten seeds, each until it
# gets all validation sequences right, or for 100 epochs.

# %%
runs = {}
for seed in range(SEEDS):
    checkpoint = OUTPUT / f"first_token_{seed}{'_small' * SMALL}.msgpack"
    runs[seed] = first_token.trained_model(
        splits, seed, epochs=EPOCHS, checkpoint=checkpoint, progress=False
    )
    history = runs[seed][1]
    print(f"seed {seed}: {len(history.losses):>3} epochs, {history.scores[-1]:.1%} right")

# %% [markdown]
# Not every seed arrives. Some stay on a plateau at about 62%, where a model of this size starts to
# see how often tokens occur, but not which is the first. What follows is about the seeds that got
# everything right.

# %%
arrived = [seed for seed, (_, history) in runs.items() if history.reached]
if SMALL:
    arrived = [*runs]  # there was no time to arrive
models = {seed: runs[seed][0] for seed in arrived}
print(f"{len(arrived)} of {len(runs)} seeds arrived: {arrived}")
assert SMALL or len(arrived) >= 3

# %% [markdown]
# ## The branch value
#
# A token enters the layer as 16 hidden units, and each is read four times: by the key, the query
# and the value of the attention, and by the skip connection around it. Of all paths from one of
# the units to the logit of the correct class, the one with the largest weight leaves by one of
# these branches. The unit with the largest weight of all gives it to its branch, the other three
# get 0, and this is averaged over tokens (Du et al. 2023, §5.1).
#
# "The strongest path" means two things, and `semijax` computes both. **`"element"`** is Equation 5
# of the paper: a path goes from unit to unit. **`"op"`** is what the paper's code computes: inside
# of a matrix product gradients add up as they always do, and only where arrays meet the larger one
# wins.

# %%
tables = []
for name, by_seed in {
    "trained": models,
    "untrained": {seed: first_token.untrained_model(seed) for seed in arrived},
}.items():
    for seed, model in by_seed.items():
        study = first_token.branch_values(model, splits.test)
        tables.append(branch_table(study).assign(model=name, seed=seed))
values = pandas.concat(tables, ignore_index=True)
assert set(values["seed"]) == set(arrived)

# %% [markdown]
# ## Figure 2
#
# First one seed, as the paper has it:

# %%
seed = 4 if 4 in arrived else arrived[0]
own = values[(values["model"] == "trained") & (values["seed"] == seed)]
op = own[own["granularity"] == "op"]
branch_bars(op, KINDS, title=f"The paper's granularity, seed {seed}")

# %% [markdown]
# *Mean branch values of one trained model as the paper's code computes them; error bars are over
# the tokens of the test set, so they say nothing of other seeds.*

# %%
element = own[own["granularity"] == "element"]
branch_bars(element, KINDS, title=f"Equation 5, path by path, seed {seed}")

# %% [markdown]
# *The same model by single paths: the skip connection has the strongest one for the first token,
# since one edge of weight 1 is hard to beat for any single path through an attention; it can't
# show that there are many more paths on the other way.*
#
# Now all seeds. A row is one trained model, and the last one is the paper's, read off its figure:

# %%
PAPER = pandas.DataFrame(
    {"key": [0.095, 0.27, 0.009], "query": [0.174, 0, 0], "skip": [0.095, 0, 0]},
    index=pandas.Index(["first", "repeat", "other"], name="kind"),
)


def means(granularity, model="trained"):
    """Branch values, ``[seed and kind, branch]``."""
    rows = values[(values["granularity"] == granularity) & (values["model"] == model)]
    return rows.pivot(index=["seed", "kind"], columns="branch", values="mean")[[*BRANCHES]]


def numbers(granularity, model="trained"):
    """What Figure 2 is about: a row per seed."""
    table = means(granularity, model)
    first, repeat, other = (table.xs(kind, level="kind") for kind in KINDS)
    return pandas.DataFrame(
        {
            "first: query": first["query"],
            "first: key": first["key"],
            "first: skip": first["skip"],
            "repeat: key": repeat["key"],
            "other: key": other["key"],
        }
    )


by_seed = numbers("op")
by_seed.loc["paper"] = [
    PAPER.loc["first", "query"],
    PAPER.loc["first", "key"],
    PAPER.loc["first", "skip"],
    PAPER.loc["repeat", "key"],
    PAPER.loc["other", "key"],
]
print(by_seed.to_string(float_format="%.3f"))

# %% [markdown]
# The scale differs from seed to seed by a factor of ten, as that of a logit does. The paper's
# **ordering** is a claim that can be checked seed by seed:

# %%
ours = numbers("op")
keys = (ours["repeat: key"] > ours["first: key"]) & (ours["repeat: key"] > ours["other: key"])
queries = (ours["first: query"] > ours["first: key"]) & (ours["first: query"] > ours["first: skip"])
print(f"The repeated token's keys carry more than any other's: {keys.sum()} of {len(keys)} seeds")
print(f"Of the first token, the queries lead: {queries.sum()} of {len(queries)} seeds")
print("In the mean over seeds, the first token's values are:")
print(ours.filter(like="first").mean().to_string(float_format="%.3f"))
assert SMALL or keys.all()
assert SMALL or ours.mean().idxmax() in ("first: query", "repeat: key")

# %% [markdown]
# That the repeated token is found by its key holds for every seed that learnt the task. That the
# first token's strongest way is its query holds for most: in some models its own skip connection
# is stronger. One trained model, as in the paper, would not have told.


# %% tags=["picture"]
def interval(samples):
    """The mean over seeds, and half the width of its 95% confidence interval (t distribution)."""
    from scipy import stats

    n = len(samples)
    return samples.mean(), stats.t.ppf(0.975, n - 1) * samples.std(ddof=1) / np.sqrt(n)


def bars_over_seeds(axes, granularity, model):
    table = means(granularity, model).drop(index=ALL, level="kind")
    for number, branch in enumerate(BRANCHES):
        found = [interval(table.xs(kind, level="kind")[branch]) for kind in KINDS]
        places = np.arange(len(KINDS)) + 0.2 * (number - 1.5)
        axes.bar(
            places,
            [mean for mean, _ in found],
            0.2,
            yerr=[error for _, error in found],
            color=sj.pictures.bars.BRANCHES[number],
            capsize=2,
            error_kw={"elinewidth": 1},
            label=branch,
        )
    axes.set_xticks(range(len(KINDS)), KINDS)
    axes.set_title(f"{model}, {granularity!r}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


figure, grid = plt.subplots(2, 2, figsize=(8, 5.5), layout="constrained")
for row, granularity in zip(grid, ("op", "element"), strict=True):
    for axes, model in zip(row, ("trained", "untrained"), strict=True):
        bars_over_seeds(axes, granularity, model)
    row[0].set_ylabel("mean branch value\n[logit per hidden unit]")
grid[0, 1].legend(title="branch", frameon=False)
figure.supxlabel(
    f"kind of token. Sign: the largest weight, mostly positive; normalisation: none; "
    f"bars: 95% confidence over {len(arrived)} seeds.",
    fontsize=9,
)
plt.show()

# %% [markdown]
# *Branch values of trained and untrained models, both granularities, each panel with its own
# scale; whether a branch is used for the task it can't show, only by which the gradient is
# strongest.*

# %% [markdown]
# ## What is the architecture's doing?
#
# Only position 0 is read after the only layer. So for any weights whatsoever the other tokens have
# no path by their query and none by their skip connection: two of their four bars are 0 before any
# training, and that they are says nothing of the model.

# %%
structural = values[
    values["kind"].isin(["repeat", "other"]) & values["branch"].isin(["query", "skip"])
]
assert (structural["mean"] == 0).all()


def share_of_keys(granularity, model, kind):
    table = means(granularity, model).xs(kind, level="kind")
    return table["key"] / (table["key"] + table["value"])


for model in ("trained", "untrained"):
    for kind in ("repeat", "other"):
        mean, error = interval(share_of_keys("op", model, kind))
        print(f"{model:>9}, {kind:<6}: by keys rather than values {mean:.0%} ± {error:.0%}")

untrained = numbers("op", "untrained")
print("\nKeys of the repeated token over keys of the others, median over seeds, op:")
print(f"  trained   {(ours['repeat: key'] / ours['other: key']).median():.0f}")
print(f"  untrained: no key has more than {untrained.filter(like='key').max(axis=None):.1g}")

# %% [markdown]
# What the training adds is thus seen within what the architecture leaves open: keys instead of
# values, and the repeated token instead of the others. In an untrained model the strongest way
# into the attention is always a value, and the repeated token is like any other.

# %% [markdown]
# ## One path, told
#
# A number averages over many paths; `top_paths` returns one. Of an example in which the first
# token comes back:

# %%
example = int(np.argmax(splits.test.labels == 1))
tokens = splits.test.tokens[example]
repeat = int(np.argmax(tokens[1:] == tokens[0])) + 1
print(tokens)
for position in (0, repeat):
    path = strongest_path(models[seed], tokens, 1, position)
    assert path.verify() < 1e-4
    print(as_sentence(path, tokens, 1), end="\n\n")

# %% [markdown]
# The first leads around the attention, the second through its keys into position 0, and on to the
# pooler. Whether tokens with large branch values matter to the prediction is another question:
# notebook 08 takes them away.
