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
# # Is it true?
#
# **Are the components that a flow calls important the ones that a model needs?** Partly:
# rankings by the mass and by the strongest path are better than chance for sentences, and by
# insertion for the classifiers' True examples. But none is better than both usual rankings by the
# gradient, whatever takes a component's place, and a share doesn't say how much a component
# matters.
#
# A statistic of paths describes derivatives at one point. To test what a model needs, remove
# components and see what is left. We do this for the ten classifiers of notebook 02 and the ten
# language models of notebook 03, and compare rankings by paths with the usual ones by the gradient,
# and with chance. All numbers come from `results/faithfulness_*.csv`, which one command makes:
#
# ```sh
# python -m semijax.experiments.faithfulness --out results
# ```

# %%
import os

import jax
import numpy as np
import pandas
from IPython.display import Markdown
from scipy.stats import spearmanr

import semijax as sj
from semijax import zoo
from semijax.experiments import faithfulness, first_token
from semijax.experiments.claims import OPEN, as_markdown, estimate
from semijax.experiments.comparisons import BETTER, WORSE, comparisons, unanimous
from semijax.experiments.faithfulness import DATA, SENTENCES, TRUE
from semijax.experiments.rankings import BY_PATHS, CURVES, RANKINGS, REPLACEMENTS

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it
stored = {name: pandas.read_csv(f"results/faithfulness_{name}.csv") for name in faithfulness.TABLES}
tables = {name: faithfulness.learned(table) for name, table in stored.items()}
compared = comparisons(tables["areas"])
claims = faithfulness.claims(tables)
tokens = tables["tokens"].set_index(["data", "model", "kind", "site"]).sort_index()
GRADIENTS = ("|grad|", "gradient × activation")


def trained(data, kind, site):
    """The numbers of the trained models for tokens of a kind at a site, a row per seed."""
    return tokens.loc[data, "trained", kind, site]


# %% [markdown]
# ## In short
#
# Words in bold are verdicts over seeds, beside a control; `docs/paper.md` defines them.


# %% tags=["prose"]
def listed(verdict, among, over):
    """By curve and data, the rankings with this verdict, whatever the replacement."""
    found = unanimous(compared, verdict, among=among, over=over)
    if not any(found.values()):
        return "  - none: on no data, by neither curve"
    return "\n".join(
        f"  - {curve}: "
        + "; ".join(
            f"{data}: " + (", ".join(map("**{}**".format, found[data, curve])) or "none")
            for data in DATA
        )
        for curve in CURVES
    )


def tally(ranking, rival):
    """How often a ranking is better and worse than a rival, each replacement by itself."""
    own = compared[(compared["ranking"] == ranking) & (compared["rival"] == rival)]["verdict"]
    return f"{(own == BETTER).sum()} times better and {(own == WORSE).sum()} worse"


models = {data: own["seed"].nunique() for data, own in tables["areas"].groupby("data")}
key, value = (trained(TRUE, "repeat", site) for site in ("key", "value"))
(needs_value,) = (claim for claim in claims if "value" in claim.statement)
Markdown(
    f"""
{models[TRUE]} of {stored["areas"]["seed"].nunique()} classifiers and {models[SENTENCES]} language
models have learned their tasks; what follows is about those. Verdicts on rankings are over seeds,
corrected for {len(compared)} comparisons, and a ranking is named only if all three replacements
agree.

- **Does the flow find what a model needs, or the gradient?** Better than chance:
{listed(BETTER, ("mass", "strongest path", *GRADIENTS, "untrained"), ("random",))}
- **Better than the gradient does?** Rankings by paths that are better than both |grad| and gradient
  × activation:
{listed(BETTER, BY_PATHS, GRADIENTS)}
- **Or worse?** Rankings by paths that are worse than |grad|:
{listed(WORSE, BY_PATHS, ("|grad|",))}
- **And one replacement at a time?** Of {2 * len(DATA) * len(REPLACEMENTS)} comparisons with |grad|
  each, {"; ".join(f"{ranking}: {tally(ranking, '|grad|')}" for ranking in BY_PATHS)}. The remaining
  ones are inconclusive.
- **|grad| or gradient × activation?** Better than the other:
{listed(BETTER, GRADIENTS, GRADIENTS)}
- **Is a share how much it matters?** In True examples the value of the repeated token has
  {estimate(100 * value["share"]):.1f}% of the mass, its key {estimate(100 * key["share"]):.0f}%.
  Without that value the logit falls by {estimate(value["measured"]):.1f}, without that key by
  {estimate(key["measured"]):.1f}. That the model needs this value, with the mean in its place and
  not corrected: **{needs_value.verdict}**.
"""
)

# %% [markdown]
# Trained again on another processor the models differ, and so do all numbers. The sentences are
# computed from the tables.
#
# ## One example
#
# The classifier says whether the first of ten tokens comes back. In its only layer each token has a
# query, a key and a value: 30 components. How much of the gradient's mass, Σ|w| of all paths from
# the embeddings to the logit of the correct class, flows through each? Here is one more such model:

# %%
splits = zoo.split(first_token.TASK.sample(10_000))
model, _ = first_token.trained_model(
    splits,
    seed=int(tables["areas"]["seed"].iloc[0]),
    epochs=1 if SMALL else 100,
    checkpoint=f"output/first_token{'_small' * SMALL}.msgpack",
    progress=False,
)
model = first_token.with_maximum_in_softmax(model)  # the paper's graph, as in 02
example = jax.tree.map(lambda array: array[(splits.test.labels == 1).argmax()], splits.test)


def correct_logit(example):
    with sj.scopes(model):
        return first_token.correct_logit(model, example)


sites = [f"*/attention/self/{name}" for name in faithfulness.BRANCHES]
flow = sj.site_flow(correct_logit, sj.AbsSumProduct(), sites, source="*/embeddings", aggregate=-1)
shares = jax.jit(flow)(example).share()
sj.pictures.heat_map(
    np.stack([*shares.values()]),
    rows=faithfulness.BRANCHES,
    columns=[*map(str, example.tokens)],
    unit="share of Σ |path weight|",
    normalisation="of all paths from the embeddings to the logit",
    row_label="branch",
)

# %% [markdown]
# *What flows through the query, key and value of each token of one example. A share can't show
# whether the model needs them.*
#
# `sj.faithfulness` removes the components one by one, the most important first (deletion); or it
# removes all of them and gives them back, the most important first (insertion). If a ranking is
# right, the logit falls fast under deletion and rises fast under insertion. `.plot()` draws the
# curves; the area under each sums it up in one number:

# %%
sj.faithfulness(correct_logit, shares, steps=30)(example)

# %% [markdown]
# One example of one model can't show whether such differences are more than chance. And the random
# curve flatters the others: there is one layer and only position 0 is read, so the queries of the
# other nine tokens have no path to the logit. To rank them last, it is enough to know the
# architecture. So below, only components with a path are ranked.
#
# ## Many examples, many models
#
# A component is a token at a site: a query, key or value of the classifier, or the state at the
# input of a layer of the language model, whose quantity is the margin between the right and the
# wrong verb. (`[MASK]`, where the verb is read, is excluded: to rank it first, it is enough to know
# where the output is.) The rankings of `semijax.experiments.rankings`:
#
# | ranking | score of a component |
# |---|---|
# | mass | Σ\|w\| over all complete paths through it, from the embeddings to the output |
# | strongest path | max \|w\| over these |
# | largest path | max w over these, with its sign |
# | entropy | of the distribution of these, in nats |
# | mass onwards | Σ\|w\| over the paths from it to the output, whatever leads to it |
# | \|grad\| | Σ\|derivative\| over its hidden units |
# | gradient × activation | Σ derivative · value over its hidden units, with its sign |
# | \|gradient × activation\| | the absolute value of that |
# | untrained | the mass in the same model with random weights: what the architecture says |
# | random | drawn anew for each example |
#
# Two more rankings do not compete, because they have seen the answer: they know what a component
# will be replaced with.
#
# | ranking | score of a component |
# |---|---|
# | first order | gradient · (value − replacement): its effect, if the model were linear |
# | each alone | its effect, measured: how far the quantity falls when it alone is replaced |
#
# What should take a component's place? Zero is simple, but no key in this model is zero, so the
# model is tested on inputs that it has never met. The mean over other examples and all tokens lies
# within the range that it knows. The value from another example is familiar, but may carry other
# information. If a result holds with one replacement and not with the others, it is not a fact
# about the ranking. (With zeros, gradient × activation is the same as first order, so it knows the
# replacement as well.)
#
# The area of a curve is the mean value along it, over 200 examples; the *gain* of a ranking over a
# rival is the difference of their areas, positive where the ranking is better. Each trained model
# is one draw, so intervals and tests are over seeds and paired, and the false discovery rate is
# controlled over all data, curves, replacements, rankings and rivals at once (Benjamini and
# Yekutieli 2001).
#
# ## The classifiers


# %%
def gains(data, curve, rival, unit, rankings=RANKINGS):
    """Draw the gains over a rival, by ranking and replacement."""
    own = compared[(compared["data"] == data) & (compared["curve"] == curve)]
    own = own[own["rival"] == rival]
    chosen = [name for name in rankings if name in {*own["ranking"]}]
    means, errors = (
        own.pivot(index="replacement", columns="ranking", values=column)[chosen]
        for column in ("mean", "half_width")
    )
    return sj.pictures.grouped_bars(
        {kind: means.loc[kind].to_numpy() for kind in REPLACEMENTS},
        errors={kind: errors.loc[kind].to_numpy() for kind in REPLACEMENTS},
        groups=chosen,
        unit=f"area gained over {rival} [{unit}]",
        normalisation=f"95% confidence over {own['seeds'].max()} seeds, not corrected",
        group_label="ranking",
        of="replacement",
        title=f"{data}, {curve}",
    )


# %% tags=["picture"]
gains(TRUE, "insertion", "random", "logit")

# %% [markdown]
# *How much more area the curve of each ranking has than that of a random one, by insertion, on True
# examples: above 0 it is better than chance. All rankings are tested on the same models, so their
# intervals don't show which of two close bars is higher.*
#
# All verdicts against chance, with a sign for each replacement (zero, mean, another example): +
# better, − worse, · inconclusive:

# %%
SIGNS = {BETTER: "+", WORSE: "−", OPEN: "·"}


def signs(rival):
    """By ranking, data and curve, a sign for each replacement."""
    own = compared[compared["rival"] == rival].assign(sign=compared["verdict"].map(SIGNS))
    keys = ["ranking", "data", "curve"]
    return own.groupby(keys, sort=False)["sign"].agg(" ".join).unstack(["data", "curve"])


signs("random")

# %% [markdown]
# Over |grad|, paired model by model:

# %%
CLOSE = [name for name in RANKINGS if name not in ("entropy", "untrained", "random")]
gains(TRUE, "insertion", "|grad|", "logit", CLOSE)

# %% [markdown]
# *The same over |grad|, without the entropy and the untrained models' mass, which are in the
# tables. `first order` and `each alone` know the replacement.*
#
# All verdicts over |grad|:

# %%
signs("|grad|")

# %% [markdown]
# And over gradient × activation:

# %%
signs("gradient × activation")

# %% [markdown]
# ## The language models

# %%
gains(SENTENCES, "insertion", "random", "nats")

# %% [markdown]
# *The same for the margin of the verb, when the states of all tokens but `[MASK]` at the inputs of
# the layers are given back. The layer of a state matters, too: a ranking that prefers early layers
# may do well without knowing anything about the tokens. The gain of an untrained model is of that
# kind.*


# %% tags=["prose"]
def gain(data, curve, ranking, rival="random"):
    """The gain of a ranking, replaced by the mean."""
    names = {"data": data, "curve": curve, "ranking": ranking, "rival": rival}
    names["replacement"] = "mean"
    own = compared[(compared[[*names]] == pandas.Series(names)).all(axis=1)].iloc[0]
    return f"{own['mean']:+.2f} ± {own['half_width']:.2f} ({own['verdict']})"


Markdown(
    f"""
An untrained model's flow says what the architecture and the tokens alone say. With the mean in
place, its gain over chance by insertion is {gain(TRUE, "insertion", "untrained")} for the
classifiers and {gain(SENTENCES, "insertion", "untrained")} for the language models; that of the
trained models' own mass is {gain(TRUE, "insertion", "mass")} and
{gain(SENTENCES, "insertion", "mass")}.
"""
)

# %% [markdown]
# ## What a share does not say
#
# Rankings use only the order. Here are the numbers themselves, per token of a kind: its share of
# the mass, and how far the quantity falls if one such token is replaced by the mean at one site, as
# predicted by the gradient and as measured.


# %%
def of_tokens(data):
    """By kind of token and site, the trained models' numbers over seeds."""
    own = tables["tokens"][(tables["tokens"]["data"] == data)]
    cells = own[own["model"] == "trained"].groupby(["kind", "site"], sort=False)
    return pandas.DataFrame(
        {
            "share [%]": cells["share"].agg(lambda values: f"{estimate(100 * values):.1f}"),
            "expected fall": cells["expected"].agg(lambda values: f"{estimate(values):.2f}"),
            "measured fall": cells["measured"].agg(lambda values: f"{estimate(values):.2f}"),
        }
    )


of_tokens(TRUE)

# %% tags=["prose"]
own = tables["tokens"][
    (tables["tokens"]["data"] == TRUE) & (tables["tokens"]["model"] == "trained")
]
falls = (own["count"] * own["measured"]).groupby(own["seed"]).sum()
areas = tables["areas"][
    (tables["areas"]["data"] == TRUE) & (tables["areas"]["replacement"] == "mean")
]
ends = areas.groupby("seed")[["whole", "none"]].first()
Markdown(
    f"""
The key of the repetition has {estimate(100 * key["share"]):.0f}% of the mass, its value
{estimate(100 * value["share"]):.1f}%. Without that key the logit falls by
{estimate(key["measured"]):.1f}, without that value by {estimate(value["measured"]):.1f}, of which
the gradient expects {estimate(value["expected"]):.1f}. The flow is made of derivatives; these say
what a small change does, and to lose a value is no small change. So such shares don't say that the
model uses keys and not values: it is *the gradient* that flows through keys.

Nor need effects add up. Replaced one at a time, the components' effects sum to
{estimate(falls):.1f}; replaced all at once, the logit falls by
{estimate(ends["whole"] - ends["none"]):.1f}.
"""
)

# %% [markdown]
# The language models' states, by the layer whose input they are:

# %%
of_tokens(SENTENCES)

# %% tags=["prose"]
subject = tokens.loc[SENTENCES, "trained", "subject"]


def span(layer, column, scale=1, digits=1):
    """From the smallest to the largest among the models."""
    found = scale * subject.loc[layer, column]
    return f"{found.min():.{digits}f} to {found.max():.{digits}f}"


def follows(layer):
    """Whether models that need the subject's state more give it a larger share."""
    found = spearmanr(subject.loc[layer, "share"], subject.loc[layer, "measured"])
    return f"{found.statistic:.2f} (p = {found.pvalue:.2f})"


Markdown(
    "Models differ in the layers where they need the subject's state. From the smallest to the "
    "largest among them, and Spearman's correlation of the two over models:\n\n"
    "| input of | subject's share of the mass [%] | fall when it is replaced [nats] | correlation |"
    "\n|---|---|---|---|\n"
    + "\n".join(
        f"| {layer} | {span(layer, 'share', 100, 0)} | {span(layer, 'measured')} "
        f"| {follows(layer)} |"
        for layer in subject.index.unique()
    )
)

# %% [markdown]
# ## What has the model learned?
#
# The architecture alone may make a ranking right. `sj.randomization_test` shuffles the weights,
# module by module from the output to the input, and says how much of the analysis is left, as
# Spearman's correlation over all components and examples. A value near 1 means that these weights
# do not matter.

# %%
tables["shuffled"].groupby(["data", "group", "ranking"], sort=False)["correlation"].agg(
    lambda values: f"{estimate(values):.2f}"
).unstack()

# %% tags=["prose"]
left = tables["shuffled"].set_index(["data", "ranking", "group"])["correlation"].sort_index()
Markdown(
    f"""
All paths of the classifier end in its head, which scales them much alike: with the head shuffled,
the order by mass keeps a correlation of {estimate(left[TRUE, "mass", "classifier"]):.2f} in True
examples. With all weights shuffled, {estimate(left[TRUE, "mass", "bert/embeddings"]):.2f} is left:
what the architecture and the sizes of the weights give.
"""
)

# %% [markdown]
# ## The claims, over seeds
#
# Each claim is a number per model that is positive if the claim holds. For a ranking, the control
# is the mass in an untrained model, used as a ranking; for a fall or a share, it is the same number
# in the untrained model. These few claims were fixed before the tables were made, but an earlier
# version of this notebook had suggested them; their 95% intervals are not corrected.

# %% tags=["prose"]
Markdown(as_markdown(claims))

# %% [markdown]
# ## What such tests can't show
#
# - **The unmodified model.** A sentence in which some states are zeros, means or those of another
#   sentence is unlike anything the model has met. This is why there are three replacements:
#   wherever the signs above differ within a cell, one replacement alone would have told another
#   story.
# - **Interactions.** One order is one way through all sets of components. `each alone` is not an
#   upper bound, and effects do not add up.
# - **Use.** A component that can be replaced without loss may still be used, if others make up for
#   it. One that can't be replaced may hold only a constant.
# - **Size.** A verdict says that a difference is there over seeds, not that it is large; the
#   pictures have the sizes.
# - **Other models.** These are small, and their languages are generated.
