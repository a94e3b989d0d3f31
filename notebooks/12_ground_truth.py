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
# # Ground truth
#
# **Do attribution methods find a mechanism that is known?** It is known in transformers whose
# weights were set by hand, and in trained ones in which every component was patched in turn. Here
# is the answer, computed from the stored results; the rest of the notebook explains it.

# %%
import pathlib

import pandas
from IPython.display import Markdown, display

import semijax as sj
from semijax.experiments.circuits import benchmark, handset, measures, summary

results = pandas.read_csv(pathlib.Path("results") / benchmark.FILE)
means = summary.means(results)
contest = summary.contest(results)
models = [*dict.fromkeys(results["model"])]
LEARNED = 0.9  # the accuracy of a model that has learned its task


def count(contest):
    return contest["verdict"].value_counts().reindex(["ours", "others", "tie"], fill_value=0)


verdicts = count(contest)
of_learned = summary.contest(results[results["accuracy"] >= LEARNED])
wins = contest[contest["verdict"] == "ours"]
losses = contest[contest["verdict"] == "others"]


def named(rows, column):
    counts = rows[column].value_counts()
    return ", ".join(f"{name} ({count})" for name, count in counts.items()) or "none"


Markdown(
    f"Of {len(contest)} comparisons ({len(models)} models × {len(benchmark.MEASURES)} measures) "
    f"between the best method of semijax and the best of the others, ours is better in "
    f"**{verdicts['ours']}**, the other in **{verdicts['others']}**, and in "
    f"**{verdicts['tie']}** they cannot be told apart, over seeds and corrected for the number of "
    f"comparisons. Ours that win: {named(wins, 'ours')}. The others that win: "
    f"{named(losses, 'other')}. The best of each side is picked on the seeds it is judged on, ours "
    f"from up to {contest['candidates of ours'].max()} methods and the other from up to "
    f"{contest['candidates of others'].max()}: this favours ours. Without the models that have not "
    f"learned their tasks, the three numbers are {', '.join(map(str, count(of_learned)))}."
)

# %% [markdown]
# ## The models, and what is true of them
#
# By hand: an induction head behind a previous-token head; a head that copies the first token; and a
# lookup in two hops. Each stands among distractors that attend to everything with random weights;
# half of these leak a little into what the mechanism reads. The truth is the set of heads and edges
# that carry something the answer depends on. In "own axes", each token has an element of the
# residual stream to itself; otherwise the basis is random, since nothing in a transformer prefers
# one.
#
# Trained: two layers with MLPs and norms, on two tasks. A component is true if corrupting it alone
# loses a certain part of the difference between a clean and a corrupted prompt.

# %%
shared = results.groupby("model", sort=False)
pandas.DataFrame(
    {
        "seeds": shared["seed"].nunique(),
        "accuracy": shared["accuracy"].mean().round(3),
        "of the worst": shared["accuracy"].min().round(3),
        "true edges": shared["true_edges"].mean().round(1),
        "of": shared["edges"].first(),
        "true heads, MLPs": shared["true_nodes"].mean().round(1),
        "of them": shared["nodes"].first(),
    }
)

# %%
unlearned = results.loc[results["accuracy"] < LEARNED, ["model", "seed"]].drop_duplicates()
exact = means.xs("patching", level="method")[("edge_auroc", "mean")]
Markdown(
    f"In a trained model a component is true if it loses {benchmark.SHARE:.0%} or more. "
    f"Methods see {benchmark.PAIRS} pairs of prompts; effects and circuits are measured on "
    f"{benchmark.TEST_PAIRS} others. Patching every edge, the oracle, has an AUROC between "
    f"{exact.min():.3f} and {exact.max():.3f}. Of the models, {len(unlearned)} have not learned "
    f"their tasks (less than {LEARNED:.0%}); they are kept, as what they do has a mechanism too."
)

# %% [markdown]
# ## Which edges are true
#
# The probability that a true edge scores higher than a false one. Methods that score no edges
# (attention rollout, integrated gradients at sites) are in the tables below.

# %% tags=["picture"]
STATISTICS = ("sum", "mass", "entropy share", "strongest path", "largest path", "top 8")
wanted = ["patching", "restoring", "random"]
wanted += ["|grad|", "gradient × activation", "attribution patching (EAP)", "EAP-IG"]
wanted += ["information-flow routes"]
for weighting in ("Derivative", "Contrast", "Relevance"):
    wanted += [f"{weighting} · {name}" for name in STATISTICS]
edges = means[("edge_auroc", "mean")].unstack()
wanted = [name for name in wanted if name in edges]
sj.pictures.heat_map(
    edges.loc[models, wanted].T.to_numpy(),
    rows=wanted,
    columns=models,
    unit="AUROC of the true edges",
    normalisation="chance = 0.5; mean over seeds",
    row_label="method",
    column_label="model",
)

# %% [markdown]
# *How well each method ranks the edges of each model. The picture can't show which leads are more
# than chance.*
#
# ## Who leads, and by how much
#
# Each side is represented by its best method on these seeds, so both look a little better than they
# are.

# %%
with pandas.option_context("display.max_rows", None, "display.max_colwidth", None):
    shown = contest.copy()
    shown["lead"] = [
        f"{lead:+.3f} ± {half:.3f}"
        for lead, half in zip(contest["lead"], contest["half"], strict=True)
    ]
    display(shown.drop(columns="half").round(3))

# %% [markdown]
# ## What a basis does to single paths
#
# A path leads through single elements, and in a random basis, what one direction carries is spread
# over all of them. Here are the same mechanisms in their own axes:

# %%
by_hand = [mechanism.task.name for mechanism in handset.MECHANISMS]
rows = []
for name in ("sum", "mass", "strongest path", "largest path"):
    for weighting in ("Derivative", "Contrast"):
        method = f"{weighting} · {name}"
        if method not in edges:
            continue
        own = [
            results[
                (results["method"] == method)
                & results["model"].isin([f"{task}, by hand{suffix}" for task in by_hand])
            ]
            .groupby("seed")["edge_auroc"]
            .mean()
            for suffix in ("", ", own axes")
        ]
        lead, half = measures.interval((own[1] - own[0]).to_numpy())
        rows.append((method, own[0].mean(), own[1].mean(), f"{lead:+.3f} ± {half:.3f}"))
pandas.DataFrame(rows, columns=["edges, AUROC", "random basis", "own axes", "difference"]).round(3)

# %% [markdown]
# ## All methods
#
# Means over seeds ± half of the 95% interval (Student's t), sorted by the AUROC of edges, best
# first. Correlations are those of absolute scores with absolute effects. `cpr` and `cmd` are the
# areas of the Mechanistic Interpretability Benchmark (Mueller et al. 2025). `cpr` is the area under
# the faithfulness of circuits made of the largest scores (higher is better); `cmd` is the area
# between that curve and 1 for the largest absolute scores (0 is best).

# %%
with pandas.option_context("display.max_rows", None):
    for model in models:
        display(Markdown(f"**{model}**"), summary.shown(results, model))

# %% [markdown]
# ## What this does not show
#
# The models are small, their prompts synthetic, and each seed is one model. The truth is what
# carries a difference between two prompts; a part that is the same in both is not counted. Paths
# lead through single elements of the residual stream here; paths through whole components, whose
# weights are sums over elements, were not tried.
