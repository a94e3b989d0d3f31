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
# # Difficulty: does a harder task take more paths?
#
# **Does a model's gradient take more paths, or fewer, if its task is harder?** Fewer, over the
# paper's tasks that were learned: entropy falls with difficulty, on the published axis and with a
# true code length. Among tasks that count a token in ever more bins it can't be told, neither
# whether entropy rises or falls nor whether it is a quadratic of difficulty, as drawn in the paper.
# Training spreads the gradient over more paths in every run, but most of the entropy is there
# before.
#
# A gradient is a sum over paths, and its *entropy* says over how many of them it is spread. Du et
# al. (2023) plot entropy against difficulty for 20 synthetic tasks, in their Figure 5.
#
# You will see why their measure of difficulty isn't the length of a code, and what changes with one
# that is. Then comes the figure with both measures, from all stored runs, and two controls: the
# same model before training, and the entropy without the pooling that the published entropy
# includes.

# %%
import os
import pathlib

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.stats import rankdata

from semijax import zoo
from semijax.experiments import difficulty
from semijax.experiments.claims import as_markdown
from semijax.pictures.bars import BRANCHES

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it
EXAMPLES, EPOCHS = (47, 2) if SMALL else (900, 30)
DRAWS = 100 if SMALL else 1000
HERE = pathlib.Path(globals().get("__file__", "notebook")).resolve().parent

# %% [markdown]
# ## The tasks
#
# A model reads 36 tokens from a vocabulary of 60. Depending on the task, it says how often token 1
# occurs, in bins; whether all tokens of a set occur; whether the first token occurs again
# immediately, or at the end; or whether any two neighbours are the same. It is always the same BERT
# of 2 layers with 36 labels, so the graph is the same for all tasks.

# %%
TASKS = {task.name: task for task in zoo.figure_5_tasks()}


def family(name):
    """Of a task's name: what is before its parameter."""
    return name.partition("(")[0]


FAMILIES = list(dict.fromkeys(map(family, TASKS)))
STYLES = {
    name: {"color": color, "marker": marker, "linestyle": "none", "markersize": 5}
    for name, color, marker in zip(FAMILIES, BRANCHES, "os^vDP", strict=False)
}
assert len(TASKS) == 20 and {task.length for task in TASKS.values()} == {36}
classes = pd.Series({name: task.classes for name, task in TASKS.items()})
classes.groupby(classes.index.map(family), sort=False).agg(["size", "min", "max"]).set_axis(
    ["tasks", "fewest classes", "most classes"], axis=1
)

# %% [markdown]
# ## A subset, run here
#
# The whole experiment is 60 runs, 20 tasks with 3 seeds each, of 3,600 examples and 50 epochs. It
# takes hours, and one command that resumes if it is interrupted:
#
# ```sh
# python -m semijax.experiments.difficulty --out FOLDER
# ```
#
# **Here are three tasks and one seed, a quarter of the examples, and 30 epochs.** This is enough
# to see how a row of the results comes about, but not for a figure.

# %%
chosen = ["BinCountOnes(2)"] if SMALL else ["BinCountOnes(2)", "BinCountOnes(4)", "Contains1"]
rows = {
    name: difficulty.run(TASKS[name], 0, examples=EXAMPLES, epochs=EPOCHS, progress=False)
    for name in chosen
}
subset = pd.DataFrame([row.record() for row in rows.values()])
subset["guessing"] = [EXAMPLES * np.log2(TASKS[name].classes) for name in chosen]
subset[["task", "accuracy", "entropy", "untrained_entropy", "published", "bits", "guessing"]].round(
    2
)

# %% [markdown]
# - `entropy`, in nats: −Σ p log p over all paths from the embedding of a token to the loss, with
#   p = |weight| / Σ |weight|, summed over the 36 positions and averaged over the validation
#   examples. If the gradient were spread evenly over N paths, a position would contribute log N.
# - `untrained_entropy`: the same for the model before it was trained.
# - `published` and `bits`: two measures of difficulty, computed from the *same* losses and
#   explained next.
# - `guessing`: the bits of a code that knows only how many classes the task has.
#
# ## Two axes from the same losses
#
# A task is hard if it takes many bits to transmit the labels. In the **online code** (Blier and
# Ollivier 2018) they are sent in blocks: the first with a uniform code, each later one with the
# code of a model that was trained on all earlier blocks. An example costs −log₂ p(its label) bits,
# and the length of the code is their sum.
#
# The published axis takes the sum over the first block, as it should. But for every later block it
# takes the *mean*, so a block of two examples counts as much as one with half of the data. This is
# how much each block counts:


# %%
def by_block(code):
    """What each block contributes to the two axes."""
    sizes, losses = np.array(code.sizes), np.array(code.losses)
    counted = np.where(np.arange(len(sizes)) == 0, sizes, 1)
    return pd.DataFrame(
        {
            "examples": sizes,
            "mean loss, nats": losses,
            "published": counted * losses,
            "bits": sizes * losses / np.log(2),
        },
        index=pd.RangeIndex(1, len(sizes) + 1, name="block"),
    )


for row in rows.values():
    sums = by_block(row.code).sum()
    np.testing.assert_allclose(sums["published"], row.code.published)
    np.testing.assert_allclose(sums["bits"], row.code.bits)

code = rows[chosen[0]].code
blocks = by_block(code)
blocks.round(2)

# %%
AXES = {"published": "published axis", "bits": "code length"}


def draw_blocks(blocks, name):
    axes = plt.figure(figsize=(9, 3), layout="constrained").subplots()
    for shift, color, (axis, title) in zip((-0.2, 0.2), BRANCHES, AXES.items(), strict=False):
        share = blocks[axis] / blocks[axis].sum()
        axes.bar(blocks.index + shift, share, 0.4, color=color, label=f"{title}: sums to 1")
    axes.set(
        xticks=blocks.index,
        xticklabels=blocks["examples"],
        xlabel="examples in the block, from the first to the last",
        ylabel="share of the whole",
        title=f"What each block counts: {name}, {blocks['examples'].sum()} examples, one run",
    )
    axes.legend()


draw_blocks(blocks, chosen[0])

# %% [markdown]
# *How much each block of one run counts. On the published axis, the first blocks, of a few
# examples, decide; in the code, the large ones do. One run can't show which tasks change places as
# a result.*
#
# A code's length doesn't depend on how we do the bookkeeping. Cut the last block in two, without
# training in between: every example has the same probability as before, and the code has the same
# length. But the published number grows by the block's mean loss.

# %%
half = code.sizes[-1] // 2
cut = zoo.CodeLength(
    code.classes,
    (*code.sizes[:-1], half, code.sizes[-1] - half),
    (*code.losses, code.losses[-1]),
)
print(f"code: {code.bits:.1f} → {cut.bits:.1f} bits")
print(f"published axis: {code.published:.2f} → {cut.published:.2f}")
np.testing.assert_allclose(cut.bits, code.bits)
np.testing.assert_allclose(cut.published, code.published + code.losses[-1])

# %% [markdown]
# So the two can put tasks in different orders. Of the tasks that ran here, from easy to hard:

# %%
for axis in ("published", "bits"):
    ordered = subset.sort_values(axis)
    print(
        f"{axis}:", " < ".join(f"{row.task} ({row.accuracy:.0%})" for row in ordered.itertuples())
    )

# %% [markdown]
# The accuracy on new examples is in parentheses; guessing a binary label reaches half. If a model
# only guesses, the code is about as long as `guessing`, or longer. The published axis hardly shows
# this, because each large block counts only once.
#
# ## The stored results
#
# Here are all runs of the full size that are stored beside this notebook. As in the paper, runs
# below 90% accuracy are left out, because their entropy is that of a model that doesn't do the
# task.


# %%
def in_order(column):
    """To sort tasks as the paper does, and seeds by number."""
    return column.map(list(TASKS).index) if column.name == "task" else column


stored = HERE / "results" / difficulty.FILE
full = difficulty.read(stored.parent) if stored.exists() else subset[:0]
full = full[(full["examples"] == 3600) & (full["epochs"] == 50) & full["task"].isin(list(TASKS))]
full = full.astype(subset.dtypes[full.columns].to_dict())
full = full.sort_values(["task", "seed"], key=in_order)
full["family"] = full["task"].map(family)
full["gain"] = full["entropy"] - full["untrained_entropy"]  # by training
learnt, failed = full[full["accuracy"] >= 0.9], full[full["accuracy"] < 0.9]
assert not full.duplicated(difficulty.KEY).any()

STATE = f"{len(full)} of {3 * len(TASKS)} runs are in"
print(f"{STATE}: {full['task'].nunique()} of {len(TASKS)} tasks have one or more.")
print(f"{len(learnt)} have learnt their task. Left out, below 90%: {len(failed)}")
for run in failed.itertuples():
    print(f"  {run.task}, seed {run.seed}: {run.accuracy:.1%}, {run.bits:.0f} bits")

# %%
shown = ["task", "seed", "accuracy", "entropy", "entropy_stderr", "untrained_entropy"]
full[[*shown, "pooled_entropy", "published", "bits"]].round(2)

# %% [markdown]
# For the published axis there are reference values, the medians of BinCountOnes in the paper. Those
# here are of three seeds at most, so they have no interval:

# %%
PAPER = {2: 12.5, 3: 17.9, 4: 22, 6: 27, 9: 32.7, 12: 37, 18: 41.7, 36: 50.8}  # read off
reference = pd.DataFrame({"paper": PAPER})
reference.index = [f"BinCountOnes({bins})" for bins in PAPER]
by_task = learnt.groupby("task")["published"]
reference["here"], reference["runs"] = by_task.median(), by_task.size()
reference["runs"] = reference["runs"].fillna(0).astype(int)
reference.round(1)

# %% [markdown]
# ## Figure 5, with both axes


# %% tags=["picture"]
def scatter(axes, runs, x, y, error=None):
    """The runs as points, a colour and a marker for each family."""
    for name in FAMILIES:
        own = runs[runs["family"] == name]
        if len(own):
            label = f"{name} (n = {len(own)})"
            error_bars = None if error is None else own[error]
            axes.errorbar(own[x], own[y], error_bars, capsize=2, label=label, **STYLES[name])


def number_bins(axes, runs, x, y):
    """How many bins there are, beside the mean of a task's runs."""
    for name, own in runs.groupby("task"):
        if family(name) == "BinCountOnes":
            at = own[x].mean(), own[y].mean()
            bins = str(TASKS[name].bins)
            axes.annotate(bins, at, (7, 5), textcoords="offset points", color=BRANCHES[0])


def figure_5(runs):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), sharey=True, layout="constrained")
    for axes, x in ((left, "published"), (right, "bits")):
        scatter(axes, runs, x, "entropy", "entropy_stderr")
        number_bins(axes, runs, x, "entropy")
    bottom = left.get_xaxis_transform()  # x in the axis's unit, y from 0 to 1
    label = "medians of BinCountOnes in the paper"
    left.plot([*PAPER.values()], [0.02] * len(PAPER), "k|", transform=bottom, label=label)
    for bins, x in PAPER.items():
        left.text(x, 0.04, str(bins), transform=bottom, ha="center", fontsize=8)
    left.set(
        xlabel="(a) published axis: nats of block 1 + mean nats of each further block",
        ylabel="entropy of the paths, summed over 36 positions [nats]",
    )
    right.set(xlabel="(b) online code of 3,600 labels [bits]", xscale="log")
    right.set_xticks(ticks := [300, 1000, 3000, 10000], [f"{tick:,}" for tick in ticks])
    right.xaxis.set_minor_formatter("")
    if not len(runs):
        left.set_yticks([])
    figure.suptitle(f"Entropy against difficulty: {STATE}, {len(runs)} drawn")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


figure_5(learnt)

# %% [markdown]
# *Entropy against difficulty, one point per run, with its standard error over 360 validation
# examples, not normalised. Blue numbers are numbers of bins; black ones are those of the paper's
# medians, for which only the difficulty is known. The figure can't show whether difficulty is the
# cause, since tasks of different families also differ in other ways.*
#
# ## Up or down?
#
# Spearman's rank correlation ρ of entropy with each axis, for each family. Runs of one task with
# different seeds are not new tasks, so the confidence interval comes from a bootstrap that draws
# whole tasks, with all their runs. With so few tasks the interval is rough and tends to be too
# narrow; below 6 tasks, none is given.


# %%
def spearman(x, y):
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (x, y))
    sizes = np.sqrt((x @ x) * (y @ y))
    return x @ y / sizes if sizes > 0 else np.nan


def correlation(runs, x, y):
    """Spearman's ρ and its 95% interval, or None if there are too few tasks."""
    tasks = [own[[x, y]].to_numpy() for _, own in runs.groupby("task")]
    if len(tasks) < 6:
        return None
    rng = np.random.default_rng(0)
    draws = rng.integers(len(tasks), size=(DRAWS, len(tasks)))
    found = [spearman(*np.concatenate([tasks[n] for n in drawn]).T) for drawn in draws]
    return spearman(runs[x], runs[y]), *np.nanpercentile(found, [2.5, 97.5])


groups = {name: learnt[learnt["family"] == name] for name in FAMILIES} | {"all tasks": learnt}
correlations = {
    (name, y, x): correlation(runs, x, y)
    for name, runs in groups.items()
    for y in ("entropy", "gain")
    for x in AXES
}


def interval(found):
    return "too few tasks" if found is None else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*found)


def shown_correlations(y):
    """The correlations of a column, a row for each family."""
    return pd.DataFrame(
        {
            "runs": {name: len(runs) for name, runs in groups.items()},
            "tasks": {name: runs["task"].nunique() for name, runs in groups.items()},
        }
        | {
            f"ρ with the {title} [95% CI]": {
                name: interval(correlations[name, y, x]) for name in groups
            }
            for x, title in AXES.items()
        }
    )


shown_correlations("entropy")

# %%
both = interval(correlation(learnt, "published", "bits"))
print(f"The two axes with each other, ρ over all tasks [95% CI]: {both}")

# %% [markdown]
# In words, *rises* or *falls* only where the interval leaves out 0:


# %%
def in_words(y, what):
    for (name, column, x), found in correlations.items():
        if column == y and found is not None:
            rho, low, high = found
            verb = "rises" if low > 0 else "falls" if high < 0 else "may rise or fall"
            runs = groups[name]
            print(f"{name} ({len(runs)} runs of {runs['task'].nunique()} tasks), by the {AXES[x]}:")
            print(f"  {what} {verb} with difficulty, ρ = {rho:+.2f}")
    if all(found is None for found in correlations.values()):
        print(f"Too few runs to say anything: {len(learnt)}.")


in_words("entropy", "the entropy")

# %% [markdown]
# The paper draws a quadratic through BinCountOnes. It has one parameter more than a line, and so
# always fits better; what counts is which of the two predicts a task that it was not fitted to.

# %% tags=["prose"]
Markdown(as_markdown(difficulty.claims(full)))

# %% [markdown]
# ## How much of it is the model, how much the architecture?
#
# The control is the same model, from the same seed and on the same sequences, before it was
# trained. It knows nothing about the task, so its entropy is due to the architecture with its
# initial weights.


# %%
def draw_control(runs, learnt, failed):
    names = [name for name in TASKS if name in set(runs["task"])]
    place = {name: n for n, name in enumerate(names)}
    figure, axes = plt.subplots(figsize=(8, 1.6 + 0.24 * len(names)), layout="constrained")
    for own, fill, label in (
        (learnt, BRANCHES[0], "trained"),
        (failed, "white", "trained, below 90%"),
    ):
        axes.errorbar(
            own["entropy"],
            own["task"].map(place),
            xerr=own["entropy_stderr"],
            fmt="o",
            color=BRANCHES[0],
            markerfacecolor=fill,
            markersize=5,
            label=f"{label} (n = {len(own)})",
        )
    axes.plot(
        runs["untrained_entropy"],
        runs["task"].map(place),
        "x",
        color=BRANCHES[5],
        label=f"untrained, of the same seeds (n = {len(runs)})",
    )
    axes.set(
        yticks=range(len(names)),
        yticklabels=names,
        ylim=(max(len(names), 1) - 0.5, -0.5),
        xlabel="entropy of the paths, summed over 36 positions [nats]",
        title=f"Trained and untrained: {STATE}",
    )
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)


draw_control(full, learnt, failed)

# %% [markdown]
# *The entropy of each run, with its standard error, beside that of its untrained model; a
# difference between the two is due to training, but need not be due to the task's rule: models
# that haven't learnt theirs (open circles) have been trained too.*


# %%
def span(values, digits=0):
    """The range of some numbers, in words."""
    if not len(values):
        return "no runs"
    low, middle, high = (f"{at:.{digits}f}" for at in np.percentile(values, [0, 50, 100]))
    return f"{low} to {high}, median {middle} (n = {len(values)})"


print("entropy, nats")
print(f"  untrained: {span(full['untrained_entropy'])}")
print(f"  trained: {span(learnt['entropy'])}; below 90%: {span(failed['entropy'])}")
print("what training adds, nats")
print(f"  task learnt: {span(learnt['gain'])}")
print(f"  below 90%: {span(failed['gain'])}")
print("untrained / trained")
print(f"  {span(learnt['untrained_entropy'] / learnt['entropy'], 2)}")

by_task = learnt.groupby("task")["entropy"]
several = by_task.std()[by_task.size() > 1]
if len(several):
    between, within = by_task.mean()[several.index].std(), np.sqrt((several**2).mean())
    print(f"standard deviation over {len(several)} tasks with several seeds, nats")
    print(f"  between tasks' means: {between:.0f}; between seeds of a task: {within:.0f}")

# %% [markdown]
# For each seed, the untrained model is the same for all tasks; only the sequences differ.
# Subtracting its entropy removes the effect of the sequences at the initial weights. Does this
# change the order of the tasks?

# %%
shown_correlations("gain")

# %%
in_words("gain", "what training adds")

# %% [markdown]
# ## What pooling adds
#
# The published entropies are those of *rows of the embedding*, pooled over 4 examples: a position
# has the paths from every place in the 4 sequences where its token occurs. If these places have
# equal weight and entropy, their number multiplies the number of paths, and the entropy grows by
# its logarithm: by 36 log 4 = 50 nats for four equal sequences of distinct tokens, and by more
# where a token repeats. The number of places is known from the data alone, without a model.


# %%
def log_places(run):
    """Σ over positions of log(how many places of the 4 sequences have the token); the mean."""
    validation = TASKS[run.task].sample(3960, seed=run.seed).tokens[3600:]
    fours = validation.reshape(-1, 4 * 36)
    places = (fours[:, :, None] == fours[:, None, :]).sum(-1)
    return 36 * np.log(places).mean()


def draw_pooling(runs):
    axes = plt.figure(figsize=(6, 4), layout="constrained").subplots()
    scatter(axes, runs, "places", "pooled")
    top = max(60, runs["places"].max() * 1.05 if len(runs) else 0)
    axes.plot([0, top], [0, top], color="0.6", label="equal")
    axes.axvline(36 * np.log(4), color="0.6", linestyle=":", label="36 log 4")
    axes.set(
        xlabel="Σ log(number of places of a token in 4 sequences) [nats]",
        ylabel="pooled − per position [nats]",
        title=f"What pooling adds to the entropy: {STATE}",
    )
    axes.legend(fontsize=8)


pooling = learnt.assign(
    places=[log_places(run) for run in learnt.itertuples()],
    pooled=learnt["pooled_entropy"] - learnt["entropy"],
)
draw_pooling(pooling)

# %% [markdown]
# *What pooling adds to the entropy of each run, against what one would expect from the tokens alone
# if all places were alike. The figure can't show how unlike they are.*

# %%
print("pooled, nats (paper: 2055 to 2380)")
print(f"  {span(learnt['pooled_entropy'])}")
print("per position, nats")
print(f"  {span(learnt['entropy'])}")
print("what pooling adds, nats")
for name in FAMILIES:
    own = pooling[pooling["family"] == name]
    print(f"  {name}: {span(own['pooled'])}; expected of the tokens: {span(own['places'])}")

# %% [markdown]
# ## What this can't show
#
# - A correlation over tasks doesn't show that difficulty is the cause. Tasks of different families
#   have different sequences and different numbers of classes, so compare within a family.
# - The entropy is that of the graph as written. In the paper's code, paths lead through the maximum
#   that a softmax subtracts; in JAX's, they don't. So compare trends with the paper, not the last
#   digits.
# - All codes allow for 36 labels. A task with fewer classes pays bits until the model has learnt to
#   leave the others out, as in the paper. Also, the examples are sorted so that the first blocks
#   have many classes; strictly, one would have to send the order too.
# - One architecture, one size, one optimiser.
