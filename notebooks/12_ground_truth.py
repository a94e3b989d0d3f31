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
# **Do attribution methods find a mechanism that is known?** The best do, those of semijax as well
# as the others. Mostly the two can't be told apart; where they can, the others lead more often.
# Sums over all paths find the mechanism. Single paths find it where each token has an axis of its
# own, and less well in a random basis. The mass and the entropy of the paths are near chance in
# models built by hand.
#
# The mechanism is known in transformers whose weights were set by hand, and in trained ones in
# which every component was patched in turn. Here is the count, computed from the stored results.

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
# ## The methods and the measures
#
# An edge leads from a writer (embeddings, a head or an MLP) to a reader. The writer writes v in the
# clean run and v′ in the corrupted one; d is the derivative of the preference for the right answer
# by what the reader reads. Σ is over elements and tokens, or over all complete paths through the
# edge, whose weights are w. A node is scored likewise, by all its edges together.
#
# | method | score of an edge | source |
# |---|---|---|
# | patching | fall of the preference if this edge alone carries v′ | Goldowsky-Dill et al. 2023 |
# | restoring | its rise if in the corrupted run this edge alone carries v | Meng et al. 2022 |
# | random | a random number | |
# | \|grad\| | Σ\|d\|, the same for all writers | Simonyan et al. 2013 |
# | gradient × activation | Σ d · v | Shrikumar et al. 2016 |
# | attribution patching (EAP) | Σ d · (v − v′) | Nanda 2023, Syed et al. 2023 |
# | EAP-IG | the same, d averaged between the prompts' embeddings | Hanna et al. 2024 |
# | integrated gradients | nodes only: so, d averaged from v′ to v | Sundararajan et al. 2017 |
# | attention rollout | heads only: attention that passes through it | Abnar and Zuidema 2020 |
# | information-flow routes | nearness of v to all that is read there | Ferrando and Voita 2024 |
# | … · sum | Σ w, not for Derivative | Bauer 1974 |
# | … · mass | Σ\|w\|, as a share of all paths | Du et al. 2023 |
# | … · entropy share | share of −Σ p log p, with p = \|w\| / mass of all | Du et al. 2023 |
# | … · largest path | max w | Du et al. 2023 |
# | … · strongest path, top 8 | max \|w\|; Σ of the 8 largest \|w\| | Lu et al. 2021 |
# | Derivative · … | w: product of the derivatives along the path | Du et al. 2023 |
# | Contrast · … | derivatives averaged between the runs, by equation | Aumann and Shapley 1974 |
# | Relevance · … | derivatives averaged from 0, by equation | Bach et al. 2015 |
# | …, frozen · … | no path through patterns and scales of norms | Achtibat et al. 2024 |
# | **measure** | | |
# | AUROC | probability that a true one scores above a false one | Hanley and McNeil 1982 |
# | CPR | area under the faithfulness of circuits of the largest scores | Mueller et al. 2025 |
# | CMD | area between that and 1, for the largest absolute scores | Mueller et al. 2025 |
#
# Patching is the oracle; with restoring, it measures what the others predict. In CPR higher is
# better, in CMD 0 is best.
#
# *Sources.* Abnar and Zuidema 2020 `arXiv:2005.00928`; Achtibat et al. 2024 `arXiv:2402.05602`;
# Aumann and Shapley 1974, Values of non-atomic games; Bach et al. 2015, On pixel-wise explanations
# for non-linear classifier decisions by layer-wise relevance propagation; Bauer 1974, Computational
# graphs and rounding error; Du et al. 2023 `arXiv:2307.03056`; Ferrando and Voita 2024
# `arXiv:2403.00824`; Goldowsky-Dill et al. 2023 `arXiv:2304.05969`; Hanley and McNeil 1982, The
# meaning and use of the area under a receiver operating characteristic (ROC) curve; Hanna et al.
# 2024 `arXiv:2403.17806`; Lu et al. 2021, Influence patterns for explaining information flow in
# BERT; Meng et al. 2022 `arXiv:2202.05262`; Mueller et al. 2025 `arXiv:2504.13151`; Nanda 2023,
# Attribution patching: activation patching at industrial scale; Shrikumar et al. 2016
# `arXiv:1605.01713`; Simonyan et al. 2013 `arXiv:1312.6034`; Sundararajan et al. 2017
# `arXiv:1703.01365`, at each node as in Marks et al. 2025 `arXiv:2403.19647`; Syed et al. 2023
# `arXiv:2310.10348`.
#
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
# first. Correlations are those of absolute scores with absolute effects.

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
