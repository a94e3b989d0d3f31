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
# # Gradient tracing in an LSTM language model
#
# *The keys to the cabinet …* — *are* or *is*? A language model must remember the number of *keys*
# past *cabinet*. **Through which parts of an LSTM does the gradient flow that connects the two
# words?** Through the cell and, once it is trained, through the gates more than through the
# candidate; before training it is the other way round. Following the gradient greedily finds the
# strongest path in fewer than half of the sentences.
#
# DuSell's gradient tracing follows one path: starting at a parameter, it always moves on to where
# the gradient is largest. We compare it with the path that *is* the strongest, and with all paths,
# in ten trained and ten untrained models. The numbers come from `results/tracing.csv`, which one
# command makes:
#
# ```sh
# python -m semijax.experiments.tracing --out results
# ```

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown

import semijax as sj
from semijax.experiments import tracing
from semijax.experiments.claims import estimate

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it
table = pd.read_csv("results/tracing.csv")
seeds = sorted(set(table["seed"]))


def over_seeds(measure, part="", model="trained", scale=1.0):
    """A measure's mean over seeds with its interval; 0 where a model has none of it."""
    part = table["part"].fillna("") == part
    rows = table[(table["measure"] == measure) & part & (table["model"] == model)]
    return estimate(scale * rows.set_index("seed")["value"].reindex(seeds, fill_value=0))


# %% [markdown]
# ## In short

# %% tags=["prose"]
short, long = (f"{length} words" for length in tracing.LENGTHS)
gates = ("input_gate", "forget_gate", "output_gate")


def edges(*parts, model="trained", group="embedding"):
    """How many edges of a path from this group of parameters lie in these parts."""
    assert {*parts} <= {*tracing.COMPONENTS}, parts
    rows = table[(table["measure"] == f"edges of {group}") & (table["model"] == model)]
    by_seed = rows[rows["part"].isin(parts)].groupby("seed")["value"].sum()
    return estimate(by_seed.reindex(seeds, fill_value=0))


Markdown(
    f"""
Over {len(seeds)} trained models (and untrained ones):

- The greedy trace finds the strongest path in {over_seeds("found", short, scale=100):.0f}% of
  sentences with {short} before the verb ({over_seeds("found", short, "untrained", 100):.0f}%), and
  in {over_seeds("found", long, scale=100):.0f}% of those with {long}
  ({over_seeds("found", long, "untrained", 100):.0f}%). Its path has
  {over_seeds("kept", long, scale=100):.0f}% of the strongest one's |weight|, in the longer
  sentences.
- In sentences with {short} before the verb, the strongest path is
  {over_seeds("mass 1", scale=100):.1f}% of the mass of all paths from its parameter (a median over
  sentences), the {max(tracing.BEST):,} strongest are
  {over_seeds(f"mass {max(tracing.BEST)}", scale=100):.0f}%.
- Training sends paths from the embedding through the gates rather than through the candidate: per
  path, {edges(*gates):.1f} edges in the three gates ({edges(*gates, model="untrained"):.1f}), and
  {edges("candidate"):.1f} in the candidate ({edges("candidate", model="untrained"):.1f}). In the
  cell there are {edges("cell"):.1f} ({edges("cell", model="untrained"):.1f}).
"""
)

# %% [markdown]
# ## The text and a model
#
# A small grammar generates sentences in which verbs agree with their subjects across other nouns;
# those of the other number are the attractors. *Key*, *cabinet* and *to* are added to the grammar.

# %%
print(*(" ".join(sentence.words) for sentence in tracing.text(4, 0)), sep="\n")

# %%
sizes = {"texts": 500, "epochs": 2} if SMALL else {}
checkpoint = f"output/lstm{'_small' * SMALL}.msgpack"
(model,) = tracing.trained_models([0], checkpoint=checkpoint, progress=False, **sizes)
trained = tracing.parameters(model)

# %% [markdown]
# The quantity to explain is the *margin*: the logit of the right form of the verb minus that of the
# wrong one, after the words before it. It is a function of the parameters; `sj.scopes` names the
# modules.
#
# ## One sentence: greedy, exact, k best
#
# A path starts at a parameter. We take one in the embedding of *keys*: the unit with the largest
# gradient. `trace_gradient` is DuSell's tracing, `top_paths` is exact.

# %%
words = ["the", "keys", "to", "the", "cabinet"]
inputs = tracing.prefix(words, "are", "is")
print(f"logit of 'are' − logit of 'is': {tracing.margin(trained, *inputs):.2f}")

source = tracing.strongest_unit(trained, inputs, subject=1)
greedy = sj.trace_gradient(tracing.margin, source=source)(trained, *inputs)
best = sj.top_paths(tracing.margin, k=6, source=source)(trained, *inputs)
assert abs(greedy.weight) <= abs(best[0].weight) * (1 + 1e-6) and best[0].verify() < 1e-4

# %% [markdown]
# The greedy trace and the best paths, side by side, in readable form. Each stage is a component and
# the word at which the path is there; `×4` says for how many words it stays.

# %%
paths = {"greedy": greedy} | {f"best {n}": path for n, path in enumerate(best, 1)}
pd.set_option("display.max_colwidth", None)
pd.DataFrame.from_dict(
    {
        name: {
            "weight": f"{path.weight:.4f}",
            "edges": path.length,
            "path": tracing.story(path, words),
        }
        for name, path in paths.items()
    },
    orient="index",
)

# %% tags=["picture"]
COLOURS = ("black", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")


def draw(paths, words, title):
    """Paths over the grid of time steps and components."""
    axes = plt.figure(figsize=(1.2 + 1.3 * len(words), 4.5), layout="constrained").subplots()
    strongest = max(abs(path.weight) for path in paths.values())
    for number, (name, path) in enumerate(paths.items()):
        shift = 0.09 * (number - len(paths) // 2)
        places = [
            (time, tracing.COMPONENTS.index(name))
            for name, times in tracing.stages(path)
            for time in times
        ]
        axes.plot(
            *(np.array(places).T + shift),
            ":" if name == "greedy" else "-",
            color=COLOURS[number],
            lw=0.8 + 3 * abs(path.weight) / strongest,
            marker=".",
            label=f"{name}: {path.weight:+.4f}",
        )
    axes.set_xticks(range(1, len(words) + 1), words)
    axes.set_yticks(range(len(tracing.COMPONENTS)), tracing.COMPONENTS)
    axes.set(xlabel="time step: the word read", ylabel="component", title=title)
    title = "weight, logit per unit\n(width: |weight|)"
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title=title)
    axes.grid(alpha=0.3)
    plt.show()


draw(paths, words, "From one unit of the embedding of 'keys' to the margin")

# %% [markdown]
# *The greedy trace and the six best paths from one parameter to the margin, in one model. The
# picture can't show how much of the gradient they account for.*
#
# A path that enters the cell at *keys* and stays there until the verb is what LSTMs were made for
# (Hochreiter and Schmidhuber 1997). By ablation, Lakretz et al. (2019) found single cells in a
# large LSTM that carry the number of a noun. How much of the gradient do the best paths account
# for?

# %%
rows = {
    "of the mass, Σ|weight| / Σ|weight| of all": "mass",
    "of the gradient, Σ weight / gradient": "sum",
}
pd.DataFrame(
    {
        f"{k:,} best": {
            name: f"{over_seeds(f'{measure} {k}', scale=100):.1f}%"
            for name, measure in rows.items()
        }
        for k in tracing.BEST
    }
)

# %% [markdown]
# *Percent, for the median sentence, mean and 95% interval over seeds.* The mass is a sum of sizes,
# so its share can only grow with more paths. A signed sum is not a share: if the best paths'
# weights add up to the gradient, the other paths cancel, and how nearly they do so is a matter of
# chance.
#
# ## How often does the greedy trace miss?

# %%
rows = {"finds the strongest path": "found", "|weight| it keeps, mean": "kept"}
pd.DataFrame(
    {
        (model, f"{length} words"): {
            name: f"{over_seeds(measure, f'{length} words', model, 100):.0f}%"
            for name, measure in rows.items()
        }
        for model in ("trained", "untrained")
        for length in tracing.LENGTHS
    }
)

# %% [markdown]
# *In how many new sentences with attractors, by the number of words before the verb; mean and 95%
# interval over seeds.* Here is where the two paths diverge, in the sentence (out of several) in
# which this model's trace loses most:

# %%
n = 2 if SMALL else 20
cases = [(*tracing.greedy_and_best(trained, one), one) for one in tracing.sentences(9, n)]
trace, top, sentence = min(cases, key=lambda case: case[0].log_abs_weight - case[1].log_abs_weight)
before = sentence.words[: sentence.verb]
draw({"greedy": trace, "best": top}, before, f"From '{before[sentence.subject]}' to the verb")
print("greedy:", tracing.story(trace, before), "\nbest:  ", tracing.story(top, before))

# %% [markdown]
# The trace compares gradients, which are sums over all paths from there on. If many weak paths
# agree in sign, it may follow them and miss a single strong one. Whether that is what happened here
# was not measured.
#
# ## Which components does the gradient go through?
#
# For DuSell, a component is important if many edges of the path lie in it; how to count over many
# samples and groups of parameters is left as an open question. Here, `sample_paths` draws paths
# with probability |weight| / Σ|weight|, so their mean estimates that of *all* paths, and
# `component_counts` counts their edges by component.

# %%
pd.DataFrame(
    {
        (group, model): {
            part: f"{edges(part, model=model, group=group):.1f}" for part in tracing.COMPONENTS
        }
        for group in tracing.GROUPS
        for model in ("trained", "untrained")
    }
)

# %% [markdown]
# *Edges of a path in each component (rows), by the group of parameters it starts from (columns);
# mean and 95% interval over seeds. Signs are dropped, so the table can't show which paths carry the
# gradient and which cancel.*

# %%
found = {
    model: [edges(part, model=model) for part in tracing.COMPONENTS]
    for model in ("trained", "untrained")
}
sj.pictures.grouped_bars(
    {model: [each.mean for each in own] for model, own in found.items()},
    errors={model: [each.half_width for each in own] for model, own in found.items()},
    groups=tracing.COMPONENTS,
    group_label="component",
    of="model",
    unit="edges per path from the embedding",
    normalisation=f"95% confidence over {len(seeds)} seeds",
)

# %% [markdown]
# If you only need the mean, you don't need samples: the semiring `sj.Expectation` computes it
# exactly, in one sweep. For *keys to the cabinet*:

# %%
in_cell = sj.Expectation(lambda equation: "cell" in equation.scope.split("/"))
exact = jax.jit(sj.semiring_grad(tracing.margin, in_cell))(trained, *inputs)
exact = float(exact["embedding"]["embedding"][source[1]])
samples = sj.sample_paths(tracing.margin, 300, source=source)(jax.random.key(0), trained, *inputs)
sampled = [sum(tracing.component(node) == "cell" for node in path.nodes) for path in samples]
mean, error = np.mean(sampled), np.std(sampled) / np.sqrt(len(sampled))
print(f"edges in the cell: {exact:.2f}; by {len(samples)} samples {mean:.2f} ± {1.96 * error:.2f}")
assert abs(mean - exact) < 4 * error

# %% [markdown]
# In both examples, the strongest path stays in the cell from the subject to the verb. It carries
# little of the mass; over all paths, most edges lie in other components. To find out what the model
# depends on, ablate its components, as in notebook 08.
