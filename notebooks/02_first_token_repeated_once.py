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
# **How does a transformer find out whether its first token comes back?** By the keys of the token
# that comes back: they carry more than those of any other token, which they do only after training.
# This is clear without dropout. Whether these keys also carry more than all other branches differs
# from model to model.
#
# Figure 2 of Du et al. (2023) shows one trained model. Here are ten, with and without dropout, each
# beside the same model before training and one with its trained weights in random order. All
# numbers come from `results/first_token.csv`, which one command makes:
#
# ```sh
# python -m semijax.experiments.first_token --out results
# ```

# %%
import os

import pandas
from IPython.display import Markdown

from semijax import zoo
from semijax.demo import as_sentence, strongest_path
from semijax.experiments import first_token
from semijax.experiments.branches import branch_bars, over_seeds
from semijax.experiments.claims import as_markdown, estimate
from semijax.experiments.controls import MODELS

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it
table = pandas.read_csv("results/first_token.csv")
claims = {dropout: first_token.claims(table, dropout=dropout) for dropout in first_token.DROPOUTS}

# %% [markdown]
# ## In short
#
# Words in bold are verdicts over seeds, beside a control; `docs/paper.md` defines them.

# %% tags=["prose"]
arrivals = table.groupby(["dropout", "seed"])["arrived"].first().groupby("dropout")
arrived, trained = arrivals.sum(), arrivals.size()


def verdict(number):
    """What a claim comes to, without and with dropout."""
    first, second = (own[number].verdict for own in claims.values())
    return f"**{first}**" if first == second else f"**{first}**, with dropout **{second}**"


Markdown(
    f"""
- {arrived[0.0]} of {trained[0.0]} models get every validation sequence right without dropout, and
  {arrived[0.2]} of {trained[0.2]} with a rate of 0.2. What follows is about those.
- Through the keys, the repeated token carries more than any other token: {verdict(0)}. (No key wins
  in an untrained model; the control that counts here is the shuffled one.)
- The repeated token's keys carry more than *any* branch of any token, as in the paper's one model:
  {verdict(1)}.
- The first token's paths take its queries: {verdict(2)}.
- Other tokens have no path through their queries or skips, whatever the model has learned.
"""
)

# %% [markdown]
# Which seeds arrive, that is, get every validation sequence right, depends on the last bits of the
# arithmetic, and so on the processor. If the models are trained again on another one, other seeds
# fall short, and every number below changes. The sentences above are computed from the table and
# would change with it.
#
# ## The task and the model
#
# Sequences of ten tokens from 1 to 19. In half of them the first token comes back exactly once, at
# any place; in the other half it never does. The model is the paper's: a BERT of one layer, width
# 16 and two heads, with a pooler on position 0; Adam with 1e-3, batches of 32, until all
# validation sequences are right, for 100 epochs at most (the paper's released run: 42 epochs).

# %%
splits = zoo.split(first_token.TASK.sample(10_000))
for tokens, label in zip(splits.train.tokens[:4], splits.train.labels, strict=False):
    print(tokens, "comes back" if label else "does not")

# %% [markdown]
# ## The branch value
#
# A token enters the layer as 16 hidden units, and each unit is read four times: by the key, the
# query and the value of the attention, and by the skip connection around it. Of all paths from one
# unit to the logit of the correct class, the one with the largest weight leaves through one of
# these branches. For each token, we take the unit whose path has the largest weight of all. Its
# branch gets this weight, the other three branches get 0, and these values are averaged over tokens
# (Du et al. 2023, §5.1).
#
# "The strongest path" means two things, and `semijax` computes both. **`"element"`** is Equation 5
# of the paper: a path goes from unit to unit. **`"op"`** is what the paper's code computes: inside
# a matrix product, gradients add up as usual, and the larger one wins only where arrays meet.
#
# ## Figure 2, over seeds
#
# Trained models in the granularity of the paper's code, the same models before training, trained
# models path by path, and trained models with dropout:


# %%
def own(model, granularity, dropout=0.0):
    """The rows of the models that arrived."""
    chosen = (table["model"] == model) & (table["granularity"] == granularity)
    return table[chosen & (table["dropout"] == dropout) & table["arrived"]]


def bars(model, granularity, dropout=0.0):
    title = f"{model}, {granularity!r}" + (f", dropout {dropout}" if dropout else "")
    return branch_bars(over_seeds(own(model, granularity, dropout)), first_token.KINDS, title=title)


# %% tags=["picture"]
bars("trained", "op")

# %%
bars("untrained", "op")

# %%
bars("trained", "element")

# %%
bars("trained", "op", dropout=0.2)

# %% [markdown]
# *Mean branch values over the seeds that arrived, with 95% intervals over seeds; each picture has
# its own scale. They show by which branch the gradient is strongest, not whether the model relies
# on it: notebook 08 takes branches away.*
#
# Path by path, the skip connection has the strongest path of the first token: hardly any single
# path through an attention has more weight than the one edge around it.
#
# ## The paper's claims, seed by seed
#
# Each claim is expressed as a number per model that is positive if the claim holds: a branch value
# divided by the sum of itself and its largest rival, minus one half. The control is the same model
# before training; a shuffled model has the trained weights, each array's entries in random order.

# %% tags=["prose"]
Markdown("\n\n".join(f"Dropout {rate}:\n\n{as_markdown(own)}" for rate, own in claims.items()))

# %% [markdown]
# Where a claim holds in some models and not in others, one model, as in the paper, could not have
# said so:

# %%
by_seed = own("trained", "op").pivot(index="seed", columns=["kind", "branch"], values="mean")
by_seed = pandas.DataFrame({": ".join(cell): by_seed[cell] for cell in first_token.PAPER})
by_seed.loc["paper"] = [*first_token.PAPER.values()]  # read off its Figure 2
by_seed.round(3)

# %% [markdown]
# ## What is due to the architecture?
#
# Only position 0 is read after the only layer. So whatever the weights, the other tokens have no
# path through their query or their skip connection. That these bars are 0 says nothing about the
# model:

# %%
structural = table[
    table["kind"].isin(["repeat", "other"]) & table["branch"].isin(["query", "skip"])
]
assert (structural["mean"] == 0).all()


def share_of_keys(model, dropout, kind):
    """Of what goes into the attention by keys or values, the keys' part: a value per seed."""
    rows = own(model, "op", dropout)
    cells = rows.pivot(index="seed", columns=["kind", "branch"], values="mean")[kind]
    return estimate(100 * cells["key"] / (cells["key"] + cells["value"]))


pandas.DataFrame(
    {
        (model, f"dropout {rate}"): {
            kind: f"{share_of_keys(model, rate, kind):.0f}" for kind in ("repeat", "other")
        }
        for model in MODELS
        for rate in first_token.DROPOUTS
    }
)

# %% [markdown]
# *Keys / (keys + values), in percent, mean and 95% interval over seeds.* Training can only change
# what the architecture leaves open: without dropout, it favours keys over values, and the repeated
# token over the others.
#
# ## One path, step by step
#
# A number averages over many paths; `top_paths` returns one. Here is the strongest path from the
# first token, and from its repetition, to the logit in one more model, trained here:

# %%
model, history = first_token.trained_model(
    splits,
    seed=int(own("trained", "op")["seed"].iloc[0]),
    epochs=1 if SMALL else 100,
    checkpoint=f"output/first_token{'_small' * SMALL}.msgpack",
    progress=False,
)
example = int((splits.test.labels == 1).argmax())
tokens = splits.test.tokens[example]
repeat = int((tokens[1:] == tokens[0]).argmax()) + 1
print(f"{history.scores[-1]:.1%} right; the sequence: {tokens}")
for position in (0, repeat):
    path = strongest_path(model, tokens, 1, position)
    assert path.verify() < 1e-4
    print("\n" + as_sentence(path, tokens, 1))
