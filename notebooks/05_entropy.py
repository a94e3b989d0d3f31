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
# # Entropy: what does it measure, and what not?
#
# **Is a gradient made of a few strong paths, or of many weak ones?** The entropy of its paths tells
# us, but it measures the architecture first: it grows with the width of a network and the length of
# a sentence before training, too. What comes from training is that the feature that matters has
# somewhat more entropy than others. Attractors don't raise it.
#
# Figures 6 and 7 of Du et al. (2023) ask what makes it larger: a feature that matters (6b), a
# longer sentence (6a), more attractors (7). We repeat each over many trainings, beside networks
# that have learned nothing. All numbers come from two tables, each made by one command:
#
# ```sh
# python -m semijax.experiments.features --out results   # 6b: results/features.csv
# python -m semijax.experiments.entropy --out results    # 6a and 7: results/entropy.csv
# ```

# %%
import jax
import jax.numpy as jnp
import numpy as np
import pandas
from flax import nnx
from IPython.display import Markdown

import semijax as sj
from semijax import zoo
from semijax.experiments import agreement, entropy, features, generated, pretrained
from semijax.experiments.claims import as_markdown, estimate
from semijax.experiments.controls import MODELS

of_features = pandas.read_csv("results/features.csv")
of_sentences = pandas.read_csv("results/entropy.csv")
of_encoder = pretrained.summaries(pandas.read_csv("results/pretrained.csv"))
claims = [*features.claims(of_features), *entropy.claims(of_sentences)]


def over_seeds(column, model="trained", table=of_sentences):
    """A mean over seeds with its interval."""
    return estimate(table.loc[table["model"] == model, column].to_numpy())


# %% [markdown]
# ## In short
#
# Words in bold are verdicts over seeds, beside a control; `docs/paper.md` defines them.

# %% tags=["prose"]
feature, width, length, bins, equal, versions = claims
Markdown(
    f"""
- **6b, the feature that matters has more entropy: {feature.verdict}**, by {feature.ours:.2f} nats
  in networks of {features.WIDE} hidden units and more ({feature.ours.n} seeds).
- **6b, wider networks have more: {width.verdict}**: {width.ours:.2f} nats per doubling, where the
  number of paths alone would add {np.log(2):.2f}. Untrained networks have
  {estimate(width.control):.2f}, {estimate(width.control).mean / width.ours.mean:.0%} of that: what
  training adds is small.
- **6a, longer sentences have more: {length.verdict}**: {length.ours:.3f} nats per token, and
  {estimate(length.control):.3f} in untrained models ({length.ours.n} seeds).
- **7, more attractors go with more entropy: {bins.verdict}** in bins of the length, where the
  correlation is {bins.ours:.2f}, and {estimate(bins.control):.2f} in untrained models. At equal
  length it is {equal.ours:.2f}. Where attractors are all that changes in a sentence, four of them
  change the entropy by {versions.ours:.2f} of {over_seeds("level"):.0f} nats:
  **{versions.verdict}**. The paper's App. B.2 calls its correlations minimal.
"""
)

# %% [markdown]
# Trained again on another processor, the models differ, and so do all numbers. The sentences above
# are computed from the tables, and change with them.
#
# ## The measure and its bound
#
# With p = |w| / Σ|w|, a distribution over the paths from an input, the entropy is −Σ p log p, in
# nats. An entropy of H is that of exp(H) paths of equal weight. It is therefore never above the
# log of the number of paths, `sj.PathCount()`, whatever the weights are, and the number of paths
# is the architecture's. So compare an entropy with its bound, and with a control.
#
# ## Fig. 6b: a feature that matters
#
# Each point has four uniform features, and its label says whether the first is above ½. An MLP of H
# hidden units is trained for one epoch; the entropies are those of the paths from a feature to the
# loss. The control is the same network before training.
#
# How many paths are there? Each of the H hidden units leads to two logits, and from these two there
# are 6 ways through the cross-entropy as the paper's code writes it, so there are 6H paths. JAX's
# own cross-entropy cuts the paths through the largest logit, whose gradients cancel, which leaves
# 3H: a gradient doesn't depend on how a function is written, but its paths do.

# %%
points, labels = (jnp.asarray(array) for array in features.sample(7))
for hidden in features.PUBLISHED:
    network = features.MLP(hidden, rngs=nnx.Rngs(0))

    def loss(points, max_in_graph, network=network):
        return features.cross_entropy(network(points), labels, max_in_graph=max_in_graph)

    for max_in_graph, ways in ((True, 6), (False, 3)):
        counts = sj.semiring_grad(loss, sj.PathCount())(points, max_in_graph)
        np.testing.assert_allclose(counts, np.log(ways * hidden), rtol=1e-5)

# %%
cells = of_features.groupby(["network", "hidden"])


def column(network, feature):
    return [f"{estimate(cells.get_group((network, h))[feature].to_numpy()):.2f}" for h in widths]


widths = sorted(features.PUBLISHED)
pandas.DataFrame(
    {
        (feature, source): values
        for number, feature in enumerate(("relevant", "irrelevant"))
        for source, values in {
            "paper": [features.PUBLISHED[h][number] for h in widths],
            "trained": column("trained", feature),
            "untrained": column("untrained", feature),
        }.items()
    }
    | {("bound", "log 6H"): np.log(6 * np.array(widths)).round(2)},
    index=pandas.Index(widths, name="H"),
)

# %% [markdown]
# *Entropies in nats, mean and 95% interval over seeds, beside those read off the paper's figure.*
# Most of what they show is the bound: a network twice as wide has log 2 nats more to spread over.


# %%
def difference(network):
    """Relevant − irrelevant by width: estimates over seeds."""
    groups = (cells.get_group((network, h)) for h in widths)
    return [estimate((own["relevant"] - own["irrelevant"]).to_numpy()) for own in groups]


found = {network: difference(network) for network in ("trained", "untrained")}
sj.pictures.curves(
    widths,
    {network: [each.mean for each in own] for network, own in found.items()}
    | {"paper": [relevant - irrelevant for relevant, irrelevant in features.PUBLISHED.values()]},
    errors={network: [each.half_width for each in own] for network, own in found.items()},
    unit="relevant − irrelevant [nats]",
    normalisation=f"95% confidence over {len(set(of_features['seed']))} seeds",
    x_label="hidden units H",
)

# %% [markdown]
# *How much larger the entropy is for the feature that matters. It doesn't show whether the paths
# matter to what the network does.*
#
# ## A language model and two controls
#
# Now we use BERTs that fill in masked verbs of a generated language (notebook 03). The
# **untrained** control has the same architecture and random weights, of the size that training
# starts from. Trained weights are larger, so the **shuffled** control keeps the trained weights but
# puts each array's entries in random order: they have the right sizes, but no relation to each
# other.
#
# The quantity is the margin: the logit of the verb's right form minus that of the wrong one. The
# entropy of a sentence is that of the paths from a token's embedding to the margin, averaged over
# the tokens. For one sentence and an untrained model:

# %%
grammar = zoo.Grammar()
(sentence,), _ = ([one] for one in entropy.sentence_sets(4, 1)[0][:2])
model = zoo.BertForMaskedLM(generated.config(grammar), rngs=nnx.Rngs(0))
batch = generated.encoded_batch([sentence], grammar)
example = jax.tree.map(lambda array: array[0], batch)
measures = {"entropy": sj.Entropy(), "bound": sj.PathCount()}
with sj.scopes(model):
    per_token = sj.site_grads(
        lambda example: agreement.margin(model, example), measures, agreement.WORDS, aggregate=-1
    )(example)
print(" ".join(sentence.words))
for name, own in per_token.items():
    (values,) = own.values()
    print(f"{name}: {values[example.attention_mask].mean():.1f} nats per token")

# %% [markdown]
# ## Fig. 6a: the length of the sentence
#
# Sentences as in the paper's App. B.2: 250 each with 1, 2, 3 and 4 attractors, nouns between the
# subject and its verb that have the other number. More attractors make longer sentences.

# %%
rows = {
    "level [nats]": ("level", 1),
    "slope [nats per token of length]": ("slope", 3),
    "explained by the length": ("length", 2),
    "… and the kind of the verb": ("length_kind", 2),
    "… or its form": ("length_form", 2),
}
pandas.DataFrame(
    {
        model: {
            name: f"{over_seeds(column, model):.{digits}f}"
            for name, (column, digits) in rows.items()
        }
        for model in MODELS
    }
)

# %% tags=["prose"]
shares = {
    (model, column): over_seeds(column, model).mean
    for model in MODELS
    for column in ("length", "length_form")
}
level = {model: over_seeds("level", model) for model in MODELS}
Markdown(
    f"""
The number of paths grows with the length, and in models that know nothing the entropy grows with
it: the length explains {shares["untrained", "length"]:.0%} of its variance in untrained models and
{shares["shuffled", "length"]:.0%} in shuffled ones, but {shares["trained", "length"]:.0%} in
trained ones. There, length and the form of the verb that we asked about explain
{shares["trained", "length_form"]:.0%}; the rest lies in words that we did not ask about.

The level, too, says little of what a model knows. Trained models have {level["trained"]:.0f} nats,
untrained ones {level["untrained"]:.0f}, and the trained weights in random order
{level["shuffled"]:.0f}.
"""
)

# %% [markdown]
# (The paper's BERT, of 6 layers and width 512, has from 269 nats at 10 tokens to 277.5 at 69.
# Levels and slopes do not carry over from one architecture to another.)
#
# ## Fig. 7: attractors
#
# The paper compares sentences in bins of about the same length. But within a bin, sentences with
# more attractors are still the longer ones. So we also correlate the ranks after centring them
# among sentences of equal length. And in a second set of sentences only the attractors change: of
# the four nouns between subject and verb, between none and all four have the other number.

# %% tags=["picture"]
names = [f"spearman_{n}" for n in range(1, entropy.BINS + 1)]
groups = [f"quarter {n}\nby length" for n in range(1, entropy.BINS + 1)] + ["equal\nlength"]
found = {
    model: [over_seeds(name, model) for name in [*names, "spearman_equal"]] for model in MODELS
}
sj.pictures.grouped_bars(
    {model: [each.mean for each in own] for model, own in found.items()},
    errors={model: [each.half_width for each in own] for model, own in found.items()},
    groups=groups,
    group_label="sentences",
    of="model",
    unit="Spearman's correlation of entropy and attractors",
    normalisation=f"95% confidence over {len(set(of_sentences['seed']))} seeds",
)

# %% [markdown]
# *The correlation of a sentence's entropy with its number of attractors. A mean over tokens can't
# show whether the paths of single tokens change.*

# %%
changes = {model: [over_seeds(f"change_{n}", model) for n in range(1, 5)] for model in MODELS}
sj.pictures.curves(
    range(1, 5),
    {model: [each.mean for each in own] for model, own in changes.items()},
    errors={model: [each.half_width for each in own] for model, own in changes.items()},
    unit="change of the entropy per token [nats]",
    normalisation="against the version without attractors; 95% confidence over seeds",
    x_label="attractors, of four nouns in between",
)

# %% [markdown]
# *What attractors change when all else in a sentence stays the same.*
#
# ## The paper's claims, over seeds

# %% tags=["prose"]
Markdown(as_markdown(claims))

# %% [markdown]
# ## In a pretrained encoder
#
# The same analyses for all-MiniLM-L6-v2 (notebook 03), with the margin of its probe. The intervals
# are over draws of sentences.

# %% tags=["prose"]
encoder = entropy.claims(of_encoder)
levels = {model: over_seeds("level", model, of_encoder) for model in MODELS}
slopes = {model: over_seeds("slope", model, of_encoder) for model in MODELS}
Markdown(
    as_markdown(encoder)
    + f"""

The pretrained encoder's paths have {levels["trained"]:.0f} nats per token, those of an untrained
one {levels["untrained"]:.0f}, and with the pretrained weights in random order
{levels["shuffled"]:.0f}. Per token of length that is {slopes["trained"]:.2f} nats more,
{slopes["untrained"]:.2f} and {slopes["shuffled"]:.2f}. On the generated language they were
{level["trained"]:.0f}, {level["untrained"]:.0f} and {level["shuffled"]:.0f} nats.
"""
)

# %% [markdown]
# So compare entropies only for the same architecture, length and quantity, and beside a model that
# has learned nothing. Nor does an entropy say whether the paths matter to what the model does;
# notebook 08 asks that.
