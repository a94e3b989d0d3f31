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
# past *cabinet*. Where in an LSTM does the gradient go that connects the two words? DuSell's
# **gradient tracing** follows one path: from a parameter always on to where the gradient is
# largest. We trace it in a model trained on generated text, and set it beside the path that *is*
# the strongest, and the k strongest, which `semijax` finds exactly.
#
# You will see the paths, how often the greedy trace misses the strongest one and what it loses, and
# which components the gradient of each group of parameters goes through: over many paths and
# sentences, in the trained and in an untrained model.

# %%
import dataclasses
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pandas as pd
from flax import nnx

import semijax as sj
from semijax import zoo
from semijax.zoo.language_model import LSTMLanguageModel, next_word_loss

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it

# %% [markdown]
# ## The text and the model
#
# A small grammar generates sentences in which verbs agree with their subjects across other nouns,
# the attractors among which have the other number. To *key* and *cabinet* we have to add the words.

# %%
grammar = zoo.Grammar()
grammar = dataclasses.replace(
    grammar,
    nouns=(*grammar.nouns, "key", "cabinet"),
    prepositions=(*grammar.prepositions, "to"),
)
tokenizer = grammar.tokenizer()
tokenizer.enable_padding()  # with token 0


def encode(texts):
    return np.array([encoding.ids for encoding in tokenizer.encode_batch(texts)])


text = grammar.sample(500 if SMALL else 8000, attractors=range(3), intervening=range(3))
tokens = encode([" ".join(sentence.words) for sentence in text])
print(*(" ".join(sentence.words) for sentence in text[:4]), sep="\n")
print(f"{len(tokens)} sentences, {tokenizer.get_vocab_size()} words")

# %%
model = LSTMLanguageModel(tokenizer.get_vocab_size(), 32, rngs=nnx.Rngs(0))
untrained = nnx.to_pure_dict(nnx.state(model))
history = zoo.train(
    model,
    next_word_loss,
    tokens,
    epochs=2 if SMALL else 15,
    batch_size=64,
    optimizer=optax.adam(1e-2),
    progress=False,
)
definition, state = nnx.split(model)
trained = nnx.to_pure_dict(state)
print(f"loss: {history.losses[0]:.2f} → {history.losses[-1]:.2f} nats per word")

# %% [markdown]
# The quantity to explain is the *margin*: the logit of the right form of the verb minus that of the
# wrong one, after the words before it. It is a function of the parameters; `sj.scopes` names the
# modules.


# %%
def margin(params, tokens, right, wrong):
    model = nnx.merge(definition, params)
    with sj.scopes(model):
        logits = model(tokens)[-1]
    return logits[right] - logits[wrong]


def arguments(words, right, wrong):
    """The words before the verb, and the two forms of it, as tokens."""
    start = tokenizer.encode(" ".join(words)).ids[:-1]  # [CLS] and the words
    return jnp.array(start), *(jnp.array(tokenizer.token_to_id(form)) for form in (right, wrong))


def prefix(sentence):
    return arguments(sentence.words[: sentence.verb], sentence.right, sentence.wrong)


unseen = grammar.sample(400, attractors=1, seed=1)
unseen = [sentence for sentence in unseen if sentence not in text and sentence.verb == 5]
margins = jax.jit(jax.vmap(margin, (None, 0, 0, 0)))
batch = [jnp.stack(parts) for parts in zip(*map(prefix, unseen), strict=True)]
right = np.asarray(margins(trained, *batch)) > 0
print(f"{len(unseen)} new sentences with one attractor before the verb, as:")
print(" ", *unseen[0].words)
print(f"right: {right.mean():.1%}")
assert SMALL or right.mean() > 0.95

# %% [markdown]
# ## One sentence: greedy, exact, k best
#
# A path starts at a parameter. We take one in the embedding of *keys*: the unit with the largest
# gradient. `trace_gradient` is DuSell's tracing, `top_paths` is exact.

# %%
words = ["the", "keys", "to", "the", "cabinet"]
keys_or_cabinet = arguments(words, "are", "is")
print(f"logit of 'are' − logit of 'is': {margin(trained, *keys_or_cabinet):.2f}")

EMBEDDING = "[0]['embedding']['embedding']"
gradient = jax.jit(jax.grad(margin))


def strongest_unit(params, inputs, subject):
    """The parameter to start from: of the subject's embedding, that with the largest gradient."""
    word = int(inputs[0][subject + 1])  # [CLS] comes first
    unit = np.abs(gradient(params, *inputs)["embedding"]["embedding"][word]).argmax()
    return EMBEDDING, (word, int(unit))


source = strongest_unit(trained, keys_or_cabinet, 1)
greedy = sj.trace_gradient(margin, source=source)(trained, *keys_or_cabinet)
best = sj.top_paths(margin, k=1000, source=source)(trained, *keys_or_cabinet)
assert abs(greedy.weight) <= abs(best[0].weight) * (1 + 1e-6) and best[0].verify() < 1e-4

# %% [markdown]
# How much is a single path? From this one parameter there are many:

# %%
statistics = {"gradient": sj.SumProduct(), "mass": sj.AbsSumProduct(), "count": sj.PathCount()}
swept = jax.jit(sj.semiring_grad(margin, statistics))(trained, *keys_or_cabinet)
at_source = {name: own["embedding"]["embedding"][source[1]] for name, own in swept.items()}
mass = float(at_source["mass"])
print(f"{np.exp(float(at_source['count'])):.1e} paths, their sum {at_source['gradient']:.3f},")
print(f"the sum of their sizes, Z = {mass:.3f}; the strongest weighs {best[0].weight:.3f}")

# %% [markdown]
# Side by side: the greedy trace and the best paths, as a person would tell them. Each stage is a
# component and the word at which the path is there; `×4` says for how many words it stays.

# %%
COMPONENTS = (
    *("embedding", "input_gate", "forget_gate", "candidate", "output_gate"),
    *("cell", "hidden", "head"),
)


def component(node):
    """The part of the model in which a node was computed."""
    names = node.scope.split("/")
    return next((name for name in names if name in COMPONENTS), "(rest)")


def stages(path):
    """The components a path goes through, each with the time steps it spends there."""
    found = []
    for node in path.nodes[1:]:
        name = component(node)
        if name == "(rest)":  # between the head and the margin
            continue
        time = (*node.iteration, *node.index)[0]
        if found and found[-1][0] == name:
            found[-1][1].append(time)
        else:
            found.append((name, [time]))
    return [(name, list(dict.fromkeys(times))) for name, times in found]


def story(path, words):
    parts = []
    for name, times in stages(path):
        stays = f" ×{len(times)}" if len(times) > 1 else ""
        parts.append(f"{name} ({words[times[0] - 1]}{stays})")
    return " → ".join(parts)


def table(greedy, best, words, mass):
    paths = {"greedy": greedy} | {f"best {n}": path for n, path in enumerate(best[:6], 1)}
    rows = {
        name: {
            "weight": f"{path.weight:.4f}",
            "|weight| / Z": f"{abs(path.weight) / mass:.4f}",
            "edges": path.length,
            "path": story(path, words),
        }
        for name, path in paths.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


pd.set_option("display.max_colwidth", None)
table(greedy, best, words, mass)

# %% tags=["picture"]
COLOURS = ("black", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")


def draw(greedy, best, words, title):
    """Paths over the grid of time steps and components."""
    paths = {"greedy": greedy} | {f"best {n}": path for n, path in enumerate(best[:6], 1)}
    axes = plt.figure(figsize=(1.2 + 1.3 * len(words), 4.5), layout="constrained").subplots()
    for number, (name, path) in enumerate(paths.items()):
        shift = 0.09 * (number - 3)
        places = [(t, COMPONENTS.index(name)) for name, times in stages(path) for t in times]
        x, y = np.array(places).T
        width = 0.8 + 3 * abs(path.weight / best[0].weight)
        style = ":" if name == "greedy" else "-"
        label = f"{name}: {path.weight:+.4f}"
        axes.plot(
            x + shift, y + shift, style, color=COLOURS[number], lw=width, marker=".", label=label
        )
    axes.set_xticks(range(1, len(words) + 1), words)
    axes.set_yticks(range(len(COMPONENTS)), COMPONENTS)
    axes.set(xlabel="time step: the word read", ylabel="component", title=title)
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        title="weight, logit per unit\n(width: |weight|)",
    )
    axes.grid(alpha=0.3)
    plt.show()


draw(greedy, best, words, "From one unit of the embedding of 'keys' to the margin")

# %% [markdown]
# *The greedy trace and the six best paths from one parameter to the margin, each with its weight;
# they can't show how much of the gradient that is.*
#
# The strongest path enters the cell at *keys*, by the input gate, and stays there until the verb:
# what LSTMs were made for (Hochreiter and Schmidhuber 1997). In a large one, Lakretz et al. (2019)
# found single cells that carry the number of a noun, by taking them away. How much of the gradient
# do such short stories tell?

# %%
shortest = ["embedding", "input_gate", "cell", "hidden", "head"]
assert SMALL or [name for name, _ in stages(best[0])] == shortest

weights = np.array([path.weight for path in best])
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
rank = np.arange(1, len(weights) + 1)
axes.semilogx(rank, np.abs(weights).cumsum() / mass, label="Σ |weight| / Z")
axes.semilogx(rank, weights.cumsum() / at_source["gradient"], "--", label="Σ weight / gradient")
axes.axhline(1, color="0.7", lw=0.8)
axes.set(xlabel="number of best paths", ylabel="share")
axes.legend()
plt.show()
for n in (1, 20, len(best)):
    print(
        f"{n:5} best: {np.abs(weights[:n]).sum() / mass:4.0%} of the mass, their sum "
        f"{weights[:n].sum():+.3f} of {at_source['gradient']:+.3f}"
    )

# %% [markdown]
# *The best paths of one parameter added up: sizes over that of all paths, signed weights over the
# gradient. It can't show what the paths beyond these add, but their signs cancel to the difference
# from 1.*
#
# ## How often does the greedy trace miss?
#
# In many new sentences, we trace from the unit of the subject's embedding with the largest
# gradient, and search the best path from the same parameter.

# %%
LENGTHS = (5,) if SMALL else (5, 9)  # words before the verb
N = 3 if SMALL else 60


def sentences(length, n):
    """New sentences with so many words before the verb, and at least one attractor."""
    some = grammar.sample(40 * n, attractors=(1, 2), seed=2)
    return [s for s in some if s.verb == length and s not in text][:n]


def compare(params, sentence):
    """The trace, the best path, and the words, of one sentence."""
    inputs = prefix(sentence)
    source = strongest_unit(params, inputs, sentence.subject)
    trace = sj.trace_gradient(margin, source=source)(params, *inputs)
    (top,) = sj.top_paths(margin, source=source)(params, *inputs)
    return trace, top, sentence


models = {"trained": trained, "untrained": untrained}
COLOUR_OF = {"trained": "#0072b2", "untrained": "#e69f00"}
COLOUR_OF |= {"greedy trace": "0.6", "best path": "#d55e00", "all paths": "#009e73"}
compared = {
    (name, length): [compare(params, sentence) for sentence in sentences(length, N)]
    for length in LENGTHS
    for name, params in models.items()
}
kept = {
    key: np.exp([trace.log_abs_weight - top.log_abs_weight for trace, top, _ in own])
    for key, own in compared.items()
}
assert all((own < 1 + 1e-6).all() for own in kept.values())  # no path is stronger than the best


def wilson(hits, n):
    """The 95% confidence interval of a fraction (Wilson 1927)."""
    z = 1.96
    centre, half = hits + z**2 / 2, z * np.sqrt(hits * (n - hits) / n + z**2 / 4)
    return (centre - half) / (n + z**2), (centre + half) / (n + z**2)


rows = []
for (name, length), own in kept.items():
    found = int((own > 1 - 1e-6).sum())
    low, high = wilson(found, len(own))
    error = 1.96 * own.std(ddof=1) / np.sqrt(len(own))
    rows.append(
        {
            "model": name,
            "words before the verb": length,
            "sentences": len(own),
            "finds the best path": f"{found / len(own):.0%} ({low:.0%} to {high:.0%})",
            "|weight| it keeps, mean": f"{own.mean():.2f} ± {error:.2f}",
        }
    )
pd.DataFrame(rows)

# %%
figure, axes = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
for (name, length), own in kept.items():
    style = "-" if length == LENGTHS[0] else "--"
    axes.ecdf(own, label=f"{name}, {length} words", color=COLOUR_OF[name], linestyle=style)
axes.set(xlabel="|weight| of the trace / |weight| of the best path", ylabel="share of sentences")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="cumulative")
plt.show()

# %% [markdown]
# *In how many sentences the greedy trace keeps at most so much of the best path's weight; 1 where
# it is the best path. It can't show where the two part.*
#
# Where do they? Here is the sentence in which it loses most in the trained model:

# %%
cases = [case for (name, _), own in compared.items() if name == "trained" for case in own]
trace, top, sentence = min(cases, key=lambda case: case[0].log_abs_weight - case[1].log_abs_weight)
before = sentence.words[: sentence.verb]
draw(trace, [top], before, f"From '{before[sentence.subject]}' to '{sentence.right}'")
print("greedy:", story(trace, before), "\nbest:  ", story(top, before))

# %% [markdown]
# *The greedy trace and the best path in one sentence, chosen because they differ most there; it
# can't show how often that happens.*
#
# The trace compares gradients, which are sums over all paths from there on. Where many weak paths
# agree in sign, it follows them, and not the strong one that goes alone.
#
# ## Which components does the gradient go through?
#
# To DuSell a component is important when many edges of the path lie in it; how to count over many
# samples and groups of parameters is an open question there. Here, `sample_paths` draws paths with
# probability |weight|/Z, so that their mean is that of *all* paths, and `component_counts` counts
# the edges by component, sentence by sentence. A group of parameters is where paths start, from any
# of its elements.

# %%
GROUPS = ("embedding", "input_gate", "forget_gate", "candidate", "output_gate", "head")
SAMPLES, SENTENCES = (10, 3) if SMALL else (30, 20)
keys = jax.random.split(jax.random.key(0), SENTENCES)


def group_of(name):
    """The group that an array of parameters belongs to, by its name."""
    return next(group for group in GROUPS if f"'{group}'" in name)


def paths_from_groups(params, sentence, key):
    """As many paths from each group of parameters to the margin."""
    groups = jax.tree_util.tree_map_with_path(
        lambda keys, leaf: np.full(leaf.shape, group_of(jax.tree_util.keystr(keys))), params
    )
    found = []
    for group in GROUPS:
        mask = jax.tree.map(lambda own, group=group: own == group, groups)
        found += sj.sample_paths(margin, SAMPLES, source=mask)(key, params, *prefix(sentence))
    return found


def count(paths, sources=None):
    return sj.component_counts(paths, groups=component, sources=sources, weighted=False)


some = sentences(LENGTHS[-1], SENTENCES)
counts = {
    name: count(
        [paths_from_groups(params, *pair) for pair in zip(some, keys, strict=True)],
        sources=lambda node: group_of(node.variable),
    )
    for name, params in models.items()
}
counts["trained"].query("source == 'forget_gate'")


# %%
def bars(axes, tables, title):
    """Edges per path in each component, with 95% confidence intervals over sentences."""
    for number, (name, table) in enumerate(tables.items()):
        own = table.set_index("component")[["edges", "stderr"]].reindex(COMPONENTS, fill_value=0)
        axes.barh(
            np.arange(len(COMPONENTS)) + 0.8 * ((number + 0.5) / len(tables) - 0.5),
            own.edges,
            0.8 / len(tables),
            xerr=1.96 * own.stderr,
            color=COLOUR_OF[name],
            label=name,
        )
    axes.set(title=title, xlabel="edges per path", yticks=range(len(COMPONENTS)))
    axes.set_yticklabels(COMPONENTS)


figure, panels = plt.subplots(2, 3, figsize=(10, 6), sharex=True, sharey=True, layout="constrained")
for axes, group in zip(panels.flat, GROUPS, strict=True):
    tables = {name: table[table.source == group] for name, table in counts.items()}
    bars(axes, tables, f"from: {group}")
panels[1, 2].legend(loc="center right")
plt.show()

# %% [markdown]
# *The mean number of edges of a path in each component, by the group of parameters it starts from;
# sampled paths, 95% confidence intervals over sentences. It can't show which paths carry the
# gradient and which cancel: signs are dropped.*
#
# Before training, paths go from state to state through the candidate. Training sends them through
# the gates, and shortens them. From the embedding:


# %%
def edges(name, group, *parts):
    """Edges per path in some components, or in all, and their error at most."""
    own = counts[name]
    own = own[(own.source == group) & own.component.isin(parts or own.component)]
    return own.edges.sum(), 1.96 * own.stderr.sum()


for parts in (("candidate",), ("input_gate", "forget_gate", "output_gate"), ()):
    old, old_error = edges("untrained", "embedding", *parts)
    new, new_error = edges("trained", "embedding", *parts)
    what = ", ".join(parts) or "all components"
    print(f"{what}: {old:.1f} ± {old_error:.1f} → {new:.1f} ± {new_error:.1f} edges")
    assert SMALL or abs(new - old) > old_error + new_error

# %% [markdown]
# Where only the mean is asked for, samples are not needed: `sj.Expectation` is a semiring that has
# it exactly, in one sweep. For the sentence of *keys* and *cabinet*:

# %%
in_cell = sj.Expectation(lambda equation: "cell" in equation.scope.split("/"))
exact = jax.jit(sj.semiring_grad(margin, in_cell))(trained, *keys_or_cabinet)
exact = float(exact["embedding"]["embedding"][source[1]])
samples = sj.sample_paths(margin, 300, source=source)(keys[0], trained, *keys_or_cabinet)
sampled = [sum(component(node) == "cell" for node in path.nodes) for path in samples]
mean, error = np.mean(sampled), np.std(sampled) / np.sqrt(len(sampled))
print(f"edges in the cell: {exact:.2f}; by {len(samples)} samples {mean:.2f} ± {1.96 * error:.2f}")
assert abs(mean - exact) < 4 * error

# %% [markdown]
# ## Is one path representative?
#
# Of all paths from the same parameter in the same sentences as above: what the greedy trace says,
# what the best path says, and what all paths say.


# %%
def sample(sentence, key):
    inputs = prefix(sentence)
    source = strongest_unit(trained, inputs, sentence.subject)
    return sj.sample_paths(margin, SAMPLES, source=source)(key, trained, *inputs)


cases = compared["trained", LENGTHS[-1]][:SENTENCES]
paths = {
    "greedy trace": [[trace] for trace, _, _ in cases],
    "best path": [[top] for _, top, _ in cases],
    "all paths": [sample(case[2], key) for case, key in zip(cases, keys, strict=False)],
}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
bars(
    axes,
    {name: count(own) for name, own in paths.items()},
    "from one unit of the subject's embedding",
)
axes.legend()
plt.show()

# %% [markdown]
# *Edges per path in each component by three ways to choose paths in the trained model, 95%
# confidence intervals over sentences; "all paths" are samples. It can't say which of the three is
# the right one: they answer different questions.*
#
# A single path, greedy or best, says: the gradient stays in the cell. Most of the mass does
# something else, but as we have seen most of the mass cancels. To know what the model depends on,
# take components away and see: notebook 08.
