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
# # Why this and not that?
#
# **Two sentences differ in one word, and a model fills in *are* in one and *is* in the other. Along
# which paths did the difference travel from that word to the answer?** In the pair shown here, most
# of it goes from the word through the values of one layer to the mask. It is spread over more
# single paths than anyone could list, so only sums over tokens, layers and branches tell the story.
#
# A gradient sees only one sentence. `sj.Contrast` averages every local derivative between the two,
# so that each path from the word to the answer carries a part of the difference, and together they
# carry all of it.
#
# You will see the difference by token, layer and branch, the ten paths that carry the most, what no
# path carries (nothing), and the same by gradient. Where the two methods disagree, patching
# decides: it puts an activation of one sentence into the other. Contrast comes nearer to it.

# %%
import os
import re

import inflect
import jax
import jax.numpy as jnp
import numpy as np
import pandas

import semijax as sj
from semijax import zoo
from semijax.experiments import agreement, generated

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it
SEEDS = (0, 1) if SMALL else (0, 1, 2)
SENTENCES = 6 if SMALL else 100

# %% [markdown]
# ## Models, and pairs of sentences
#
# We use masked language models of the generated language of notebook 03, one for each of a few
# seeds. A pair is a sentence (the *point*) and the same sentence with its subject in the other
# number (the *reference*).


# %%
def trained_model(seed):
    sizes = {"sentences": 640, "layers": 2, "width": 16, "epochs": 1} if SMALL else {}
    folder = f"output/agreement{'_small' * SMALL}{f'_{seed}' if seed else ''}"
    model, _ = generated.train(folder, seed=seed, **sizes, progress=False)
    return model


grammar, words_of = zoo.Grammar(), inflect.engine()
models = {seed: trained_model(seed) for seed in SEEDS}
number_of_word = grammar.tokenizer().token_to_id


def other_number(word):
    return words_of.singular_noun(word) or words_of.plural_noun(word)


sentences = [
    sentence
    for sentence in grammar.sample(4 * SENTENCES, attractors=1, seed=500)
    if number_of_word(other_number(sentence.words[sentence.subject])) is not None
][:SENTENCES]
points = generated.encoded_batch(sentences, grammar)
subjects = [number_of_word(s.words[s.subject]) for s in sentences]
places = (np.asarray(points.ids) == np.array(subjects)[:, None]).argmax(1)
ids = np.array(points.ids)
for row, place, sentence in zip(ids, places, sentences, strict=True):
    row[place] = number_of_word(other_number(sentence.words[sentence.subject]))
references = jnp.asarray(ids)

first = sentences[0]
print(" ".join(first.words), "→", first.right)
print("with", other_number(first.words[first.subject]), "for", first.words[first.subject])


def preference(model, example):
    """The logit of the verb form that is right for the point, less that of the other."""

    def of_tokens(tokens):
        with sj.scopes(model):
            return agreement.margin(model, example._replace(ids=tokens))

    return of_tokens


margins = {
    seed: [
        jax.jit(jax.vmap(lambda e, t, m=model: preference(m, e)(t)))(points, tokens)
        for tokens in (points.ids, references)
    ]
    for seed, model in models.items()
}
pandas.DataFrame(
    {
        seed: {
            "right in the point": float((a > 0).mean()),
            "the other in the reference": float((b < 0).mean()),
        }
        for seed, (a, b) in margins.items()
    }
).round(3)

# %% [markdown]
# ## One pair, token by token and layer by layer
#
# How much of the difference passes each token in each layer, over all paths from the embeddings to
# the preference? Every row adds up to the same number: the difference between the two preferences.

# %%
model, example, tokens = models[0], jax.tree.map(lambda x: x[0], points), references[0]
quantity = preference(model, example)
contrast = sj.Contrast(tokens)
whole = float(quantity(example.ids) - quantity(tokens))
LAYERS = "*/encoder/layer/*"
flow = sj.site_flow(
    quantity, sj.SumProduct(), LAYERS, source="*/embeddings", weighting=contrast, aggregate=-1
)(example.ids)
by_layer = {name.rpartition("layer/")[2]: np.asarray(x) for name, x in flow.items()}
length = int(example.attention_mask.sum())
sums = [round(float(x.sum()), 4) for x in by_layer.values()]
print(f"difference {whole:.4f}; the rows add up to {sums}")

labels = ["[CLS]", *first.words, "[SEP]"][:length]
labels[int(example.mask)] = "[MASK]"
sj.pictures.heat_map(
    np.stack([x[:length] for x in by_layer.values()]),
    rows=[f"out of layer {name}" for name in by_layer],
    columns=labels,
    unit="nats of the difference",
    normalisation=f"a row adds up to {whole:.2f}",
    row_label="site",
)

# %% [markdown]
# *Where the difference is, layer by layer: at the subject first, at the mask in the end. The
# picture can't show which branch it took from one to the other.*
#
# ## By branch
#
# The subject's embedding is read by the skip connection, the queries, the keys and the values.

# %%
GROUPS = {"query": "*/query", "key": "*/key", "value": "*/value", "skip": sj.REST}
branches = sj.branch_flow(quantity, sj.SumProduct(), LAYERS + ":input", GROUPS, weighting=contrast)(
    example.ids
)
table = pandas.DataFrame(
    {
        f"into layer {name.rpartition('layer/')[2].removesuffix(':input')}": {
            branch: float(x.sum()) for branch, x in own.items()
        }
        for name, own in branches.items()
    }
).T
table["all"] = table.sum(axis=1)
table.round(3)

# %% [markdown]
# ## Ten paths
#
# Here are the ten paths that carry the most, each described by the modules it goes through, and how
# much of the difference they explain together.

# %%
STOPS = re.compile(r"layer/(\d+)/(?:attention/self/)?(query|key|value|intermediate)")


def story(path):
    """The modules that a path goes through where it could have kept to the skip connections."""
    found = (STOPS.search(stage.scope) for stage in path.collapse())
    stops = dict.fromkeys(f"{m[2]} of layer {m[1]}" for m in found if m)
    return f"{path.nodes[0].name.rpartition('/')[2]} → {' → '.join(stops) or 'skips only'}"


paths = sj.top_paths(quantity, 10, source="*/embeddings", weighting=contrast)(example.ids)
for path in paths:
    print(f"{path.contribution:+.4f}  {path.contribution / whole:+.1%}  {story(path)}")
together = sum(path.contribution for path in paths)
print(f"together {together:+.4f} of {whole:+.4f}: {together / whole:.1%}")
effective = np.exp(
    float(
        sj.site_flow(
            quantity,
            sj.Entropy(),
            "*/embeddings",
            source="*/embeddings",
            weighting=contrast,
            aggregate=(0, 1),
        )(example.ids)["BertForMaskedLM/bert/embeddings"]
    )
)
print(f"the contributions are as spread as those of {effective:,.0f} equal paths")

# %% [markdown]
# There are too many single paths through single units, and they cancel, as the effective number of
# paths shows. All ten tell one story, from the subject through the values of layer 1 to the mask,
# and the table of branches says how much of the difference went that way. Only sums over tokens,
# layers and branches make the story short.
#
# ## What no path carries

# %%
print(sj.residuals(quantity, (example.ids,), (tokens,), source="*/embeddings"))

# %% [markdown]
# ## By gradient, and what patching says
#
# The usual approximation is gradient × difference: the same sum, with every derivative at one of
# the two sentences. Which is right? For every token in every layer of every pair, we replace its
# activation at the point by that in the reference, and compute the preference anew.


# %%
def effects(model, example, tokens):
    """By layer and token: what patching does, and the two predictions of it."""
    f = preference(model, example)
    contributions = sj.site_grads(
        f, sj.SumProduct(), LAYERS, weighting=sj.Contrast(tokens), aggregate=-1
    )(example.ids)
    gradients = sj.site_grads(f, sj.SumProduct(), LAYERS)(example.ids)
    clean, other = (sj.site_values(f, LAYERS)(t) for t in (example.ids, tokens))
    base = f(example.ids)
    found = []
    for name in contributions:
        at = jnp.eye(len(example.ids), dtype=bool)

        def patched(mask, name=name):
            return base - sj.ablate(f, name, other[name], where=mask)(example.ids)

        found.append(
            {
                "patching": jax.lax.map(patched, at),
                "Contrast": contributions[name],
                "gradient × difference": (gradients[name] * (clean[name] - other[name])).sum(-1),
            }
        )
    return found


def compared(seed):
    model = models[seed]
    run = jax.jit(lambda e, t: jax.lax.map(lambda pair: effects(model, *pair), (e, t)))
    layers = run(points, references)
    rows = []
    for layer, own in enumerate(layers):
        for n in range(len(sentences)):
            kept = np.asarray(points.attention_mask[n], bool)
            truth = np.asarray(own["patching"][n])[kept]
            for method in ("Contrast", "gradient × difference"):
                guess = np.asarray(own[method][n])[kept]
                error = np.abs(guess - truth).sum() / np.abs(truth).sum()
                r = np.corrcoef(guess, truth)[0, 1]
                rows.append((seed, layer, n, method, error, r, guess.sum()))
    columns = ["seed", "layer", "sentence", "method", "error", "r", "sum"]
    return pandas.DataFrame(rows, columns=columns)


results = pandas.concat([compared(seed) for seed in SEEDS])


def interval(values):
    """Mean and 95% bootstrap interval, sentences drawn anew."""
    means = values.groupby("sentence").mean().to_numpy()
    rng = np.random.default_rng(0)
    drawn = means[rng.integers(len(means), size=(2000, len(means)))].mean(1)
    return f"{means.mean():.2f} [{np.quantile(drawn, 0.025):.2f}, {np.quantile(drawn, 0.975):.2f}]"


summary = pandas.DataFrame(
    {
        (measure, method): {
            (seed, layer): interval(own.set_index("sentence")[measure])
            for (seed, layer), own in results[results["method"] == method].groupby(
                ["seed", "layer"]
            )
        }
        for measure in ("error", "r")
        for method in ("Contrast", "gradient × difference")
    }
)
summary.index.names = ["seed", "out of layer"]
summary.sort_index()

# %% [markdown]
# *`error`: Σ|prediction − effect of patching| over Σ|effect|, per sentence, over its tokens; `r`:
# their correlation. Means over the sentences and 95% intervals, sentences drawn anew; a row for
# each model and layer. After the last layer, only the mask is read, and it carries all of the
# difference: there, Contrast agrees with patching by construction.*

# %% tags=["picture"]
METHODS = "Contrast", "gradient × difference"
errors = results.groupby(["method", "seed", "layer"])["error"].mean().groupby(["method", "layer"])
by_method = errors.mean().unstack()
sj.pictures.grouped_bars(
    {method: by_method.loc[method].to_numpy() for method in METHODS},
    groups=[f"out of layer {n}" for n in by_method.columns],
    unit="error of the prediction / size of the effect",
    normalisation="mean over sentences and models",
    group_label="layer",
)

# %% [markdown]
# *How far each prediction is from what patching does. Predicting 0 everywhere would give an error
# of 1, and in one of the models Contrast does no better in most layers (table below). There are few
# models, so the bars have no intervals over seeds. The picture can't show why an error remains:
# patching one token leaves the others as they are at the point, so its effects need not add up,
# whereas contributions do.*

# %%
print(results.groupby(["method", "seed"])["error"].mean().unstack().round(3))
wide = results.pivot_table(index=["seed", "sentence", "layer"], columns="method", values="error")
nearer = wide[METHODS[0]] < wide[METHODS[1]]
print("how often Contrast is nearer:", nearer.groupby("seed").mean().round(3).to_dict())
