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
# **Are the components that a flow calls important the ones that a model needs?** A statistic of
# paths speaks of derivatives at one point. What a model needs has a test of its own: take
# components away, and see what is left.
#
# We do it with the models of notebooks 02 and 03: rankings by several semirings against the
# absolute gradient and chance, with confidence intervals, and with three ways to take something
# away. You will see that the flow does find what matters, where it does so no better than |grad|,
# and that a large share and a large effect are two things.

# %%
import functools
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from flax import nnx

import semijax as sj
from semijax import zoo
from semijax.experiments import agreement, first_token, generated

SMALL = bool(os.environ.get("SEMIJAX_SMALL"))  # as the tests run it
# What runs for moments takes longer to compile than to run.
jax.config.update("jax_disable_most_optimizations", SMALL)

# %% [markdown]
# ## One example
#
# The first model says whether the first of ten tokens comes back. It has one layer, in which each
# token has a query, a key and a value: 30 components. How much of the gradient's mass, of all paths
# from the embeddings to the logit of the correct class, flows through each?

# %%
splits = zoo.split(first_token.TASK.sample(10_000))


def trained_classifier(seed):
    model = first_token.untrained_model(seed)
    if not SMALL:
        kept = {"checkpoint": f"output/first_token_{seed}.msgpack", "progress": False}
        model, _ = first_token.trained_model(splits, seed, **kept)
    accuracy = jax.jit(zoo.accuracy)(model, splits.test)
    print(f"seed {seed}, test accuracy: {accuracy:.1%}")
    assert SMALL or accuracy > 0.98
    return first_token.with_maximum_in_softmax(model)  # the paper's graph, as in 02


classifier = trained_classifier(4)

ATTENTION = "BertForSequenceClassification/bert/encoder/layer/0/attention/self"
BRANCHES = ("query", "key", "value")
BRANCH_SITES = tuple(f"{ATTENTION}/{name}" for name in BRANCHES)


def correct_logit(model, example):
    with sj.scopes(model):
        return model(example.tokens)[example.labels]


def rows(data, chosen):
    return jax.tree.map(lambda array: array[chosen], data)


(true,) = np.nonzero(splits.test.labels == 1)
example = rows(splits.test, true[0])
quantity = functools.partial(correct_logit, classifier)
flow = sj.site_flow(quantity, sj.AbsSumProduct(), BRANCH_SITES, source="*/embeddings", aggregate=-1)
shares = jax.jit(flow)(example).share()

sj.pictures.heat_map(
    np.stack([shares[site] for site in BRANCH_SITES]),
    rows=BRANCHES,
    columns=[*map(str, example.tokens)],
    unit="share of Σ |path weight|",
    normalisation="of all paths from the embeddings to the logit",
    row_label="branch",
)

# %% [markdown]
# *What flows through the query, key and value of each token of one example; whether the model
# needs them, a share can't show.*
#
# `sj.faithfulness` takes the components away one by one, the most important first (deletion); or it
# takes all away and gives them back, the most important first (insertion). If a ranking is right,
# the logit falls fast in one and rises fast in the other. Beside it are the ranking by |gradient|
# and random ones.

# %%
curves_of_one = sj.faithfulness(quantity, shares, steps=30)(example)
print(curves_of_one)
curves_of_one.plot()

# %% [markdown]
# *Deletion on one example, components replaced by zeros; whether such differences are more than
# chance, one example can't show.*
#
# The random curve flatters the others. There is one layer and only position 0 is read, so that the
# queries of the other nine tokens have no path to the logit. To rank them last is to know the
# architecture, not the model.

# %%
reach = sj.site_grads(quantity, sj.Reachability(), BRANCH_SITES, aggregate=-1)
reachable = jax.jit(reach)(example)
HAS_PATH = np.stack([reachable[site] for site in BRANCH_SITES])  # bool [sites, tokens]
print(f"{HAS_PATH.sum()} of {HAS_PATH.size} components have a path to the logit.")
assert HAS_PATH.sum() == 21 and HAS_PATH[0].sum() == 1

# %% [markdown]
# From here on only those with a path are ranked.
#
# ## Many examples
#
# `faithfulness` looks at one example. For hundreds, here is the same test as one program, with
# `sj.ablate`: a function with some of its arrays replaced. A component is a token at a site. First,
# the scores to be tested:
#
# | ranking | score of a component |
# |---|---|
# | mass | Σ\|w\| over all complete paths through it, from the embeddings to the output |
# | strongest path | max \|w\| over these |
# | largest path | max w over these, with its sign |
# | entropy | of the distribution of these, in nats |
# | mass onwards | Σ\|w\| over the paths from it to the output, whatever leads to it |
# | \|grad\| | Σ\|derivative\| over its hidden units |


# %%
COMPLETE = {"mass": sj.Entropy(), "strongest path": sj.AbsMaxProduct()}
if not SMALL:
    COMPLETE["largest path"] = sj.MaxProduct()


@functools.partial(jax.jit, static_argnums=(0, 1))
def flow_scores(quantity, sites, model, examples):
    """By ranking, the scores: float [examples, sites, tokens]."""
    onwards = {"gradient": sj.SumProduct(), "mass": sj.AbsSumProduct()}

    def scores(example):
        fun = functools.partial(quantity, model)
        flow = sj.site_flow(fun, COMPLETE, sites, source="*/embeddings", aggregate=-1)(example)
        grads = sj.site_grads(fun, onwards, sites)(example)
        found = flow | {
            "mass": flow["mass"].share(),  # from logarithms, which never overflow
            "entropy": flow["mass"],
            "mass onwards": {site: grads["mass"][site].sum(-1) for site in sites},
            "|grad|": {site: jnp.abs(grads["gradient"][site]).sum(-1) for site in sites},
        }
        return {name: jnp.stack([of[site] for site in sites]) for name, of in found.items()}

    return jax.vmap(scores)(examples)


# %% [markdown]
# For comparison, two that know what a component will be replaced with. They are no rivals: they
# have looked at the answer.
#
# | ranking | score of a component |
# |---|---|
# | first order | gradient · (value − replacement): its effect, if the model were linear |
# | each alone | its effect, measured: how far the quantity falls when it alone is replaced |


# %%
def without(quantity, sites, model, example, replacement, replaced):
    """The quantity when components are replaced, bool [sites, tokens]."""
    where = dict(zip(sites, replaced, strict=True))
    return sj.ablate(functools.partial(quantity, model), sites, replacement, where=where)(example)


@functools.partial(jax.jit, static_argnums=(0, 1))
def effect_scores(quantity, sites, model, examples, replacements):
    """By ranking, the scores: float [examples, sites, tokens]."""

    def scores(given):
        example, replacement = given
        fun = functools.partial(quantity, model)
        grads = sj.site_grads(fun, sj.SumProduct(), sites)(example)
        values = sj.site_values(fun, sites)(example)
        change = [(grads[site] * (values[site] - replacement[site])).sum(-1) for site in sites]
        first_order = jnp.stack(change)
        alone = jnp.eye(first_order.size, dtype=bool).reshape(-1, *first_order.shape)
        value = functools.partial(without, quantity, sites, model, example, replacement)
        effect = fun(example) - jax.vmap(value)(alone).reshape(first_order.shape)
        return {"first order": first_order, "each alone": effect}

    return jax.lax.map(scores, (examples, replacements))  # one by one: faster than all at once


# %% [markdown]
# The curves of a ranking. Only *candidates* are replaced, bool [examples, sites, tokens].


# %%
@functools.partial(jax.jit, static_argnums=(0, 1))
def curves(quantity, sites, model, examples, replacements, candidates, counts, scores):
    """The quantity by deletion and by insertion: float [examples, 2, counts]."""

    def of_one(given):
        example, replacement, candidates, scores = given
        order = jnp.argsort(-jnp.where(candidates, scores, -jnp.inf), axis=None)
        ranks = jnp.argsort(order).reshape(scores.shape)
        first = ranks < counts[:, None, None]
        value = functools.partial(without, quantity, sites, model, example, replacement)
        return jax.vmap(jax.vmap(value))(jnp.stack([first, ~first]) & candidates)

    return jax.lax.map(of_one, (examples, replacements, candidates, scores))


# %% [markdown]
# What to put in a component's place? Zero is simple, but no key in this model is zero: the model is
# asked about what it has never met. The mean over other examples and all tokens lies amid what it
# knows. The value from another example, drawn at random, is something it knows, but may say
# something else. What holds with one of them and not with the others is no fact about the ranking.

# %%
REPLACEMENTS = ("zero", "mean", "another example")
BY_PATHS = (*COMPLETE, "entropy", "mass onwards")
RANKINGS = (*BY_PATHS, "|grad|", "untrained", "random", "first order", "each alone")


@functools.partial(jax.jit, static_argnums=(0, 1))
def replacements_from(quantity, sites, model, others):
    """By kind and site, what to put in its place: float [examples, tokens, units]."""
    values = jax.vmap(sj.site_values(functools.partial(quantity, model), sites))(others)
    zeros = jax.tree.map(jnp.zeros_like, values)
    means = jax.tree.map(lambda a: jnp.broadcast_to(a.mean((0, 1)), a.shape), values)
    return dict(zip(REPLACEMENTS, (zeros, means, values), strict=True))


def examine(quantity, sites, model, untrained, examples, others, candidates, steps):
    """By replacement and ranking: the curves, and the scores."""
    test = functools.partial(curves, quantity, sites, model, examples)
    replacements = replacements_from(quantity, sites, model, others)
    counts = np.round(np.linspace(0, candidates[0].sum(), steps + 1)).astype(int)
    scores = flow_scores(quantity, sites, model, examples)
    scores["untrained"] = flow_scores(quantity, sites, untrained, examples)["mass"]
    scores["random"] = np.random.default_rng(0).random(candidates.shape)
    found, used = {}, {}
    for kind in REPLACEMENTS:
        told = effect_scores(quantity, sites, model, examples, replacements[kind])
        used[kind] = {name: np.asarray((scores | told)[name]) for name in RANKINGS}
        found[kind] = {
            name: np.asarray(test(replacements[kind], candidates, counts, own), np.float64)
            for name, own in used[kind].items()
        }
    return found, used


# %% [markdown]
# `untrained` is the mass in a model with random weights: what the architecture and the tokens alone
# say. `random` is drawn anew for each example.
#
# ## The classifier
#
# We take True examples, of which there is something to find, and others, True and False, to replace
# with:

# %%
n = 8 if SMALL else 200
chosen, others = true[:n], np.arange(len(splits.test.labels))[-n:]
assert chosen.max() < others.min()


def examine_classifier(chosen, model=classifier):
    return examine(
        correct_logit,
        BRANCH_SITES,
        model,
        first_token.with_maximum_in_softmax(first_token.untrained_model(1)),
        rows(splits.test, chosen),
        rows(splits.test, others),
        np.broadcast_to(HAS_PATH, (n, *HAS_PATH.shape)),
        steps=21,
    )


in_classifier, classifier_scores = examine_classifier(chosen)


def check(found):
    """What must hold of any model: where curves begin and end."""
    for of_kind in found.values():
        clean, nothing = of_kind["random"][:, 0, 0], of_kind["random"][:, 0, -1]
        for deletion, insertion in (np.moveaxis(each, 1, 0) for each in of_kind.values()):
            for ends, value in (((0, -1), clean), ((-1, 0), nothing)):
                np.testing.assert_allclose(deletion[:, ends[0]], value, atol=1e-4)
                np.testing.assert_allclose(insertion[:, ends[1]], value, atol=1e-4)


check(in_classifier)
for name, given in (("mass", "ranking"), ("|grad|", "|grad|")):  # what faithfulness says
    deletion, expected = in_classifier["zero"][name][0, 0], curves_of_one.deletion[given]
    np.testing.assert_allclose(deletion, expected[: len(deletion)], atol=1e-4)
for of_kind in in_classifier.values():  # the first step, one component, is the worst there is
    worst = of_kind["each alone"][:, 0, 1]
    assert all((worst <= each[:, 0, 1] + 1e-4).all() for each in of_kind.values())


# %%
def mean_and_interval(values):
    """Over the first axis, the examples: the mean, and half of its 95% confidence interval."""
    return values.mean(0), 1.96 * values.std(0, ddof=1) / len(values) ** 0.5


STYLES = {
    "mass": ("tab:cyan", "-"),
    "strongest path": ("tab:blue", "-"),
    "entropy": ("tab:purple", "-"),
    "|grad|": ("tab:orange", "--"),
    "random": ("0.5", ":"),
    "each alone": ("k", "-."),
}


def draw(found, unit):
    """Deletion above, insertion below, a column for each replacement."""
    figure, axes = plt.subplots(
        2, len(found), figsize=(10, 5), sharex=True, sharey=True, layout="constrained"
    )
    for column, (kind, of_kind) in zip(axes.T, found.items(), strict=True):
        for curve, ax in enumerate(column):
            for name, (colour, style) in STYLES.items():
                mean, half = mean_and_interval(of_kind[name][:, curve])
                x = np.linspace(0, 1, len(mean))
                ax.plot(x, mean, style, color=colour, label=name)
                ax.fill_between(x, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
        column[0].set(title=f"replaced by: {kind}", xlabel="fraction replaced")
        column[1].set(xlabel="fraction left")
    axes[0, 0].set(ylabel="deletion")
    axes[1, 0].set(ylabel="insertion")
    figure.supylabel(unit, fontsize="medium")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside right")
    plt.show()


# %% tags=["picture"]
draw(in_classifier, "logit of the correct class")

# %% [markdown]
# *The logit while the 21 components are replaced (above, the lower the better) or given back
# (below, the higher the better), in the order of each ranking; no normalisation, bands are 95%
# confidence intervals of the mean over 200 True examples. Which of two close curves is better can't
# be seen from the bands: all rankings are tested on the same examples.*
#
# So we compare example by example. A curve's area is the mean value on its way; how much more
# faithful than |grad| is a ranking?


# %%
def gains(found, over):
    """By curve, replacement and ranking: by how much its area is better, float [examples]."""

    def area(curve):
        return np.trapezoid(curve, dx=1 / (curve.shape[-1] - 1))

    return {
        (curve, kind): {
            name: sign * (area(own) - area(of_kind[over]))[:, row]
            for name, own in of_kind.items()
            if name != over
        }
        for row, (curve, sign) in enumerate((("deletion", -1), ("insertion", 1)))
        for kind, of_kind in found.items()
    }


def table(values, show):
    return pd.DataFrame(
        {
            column: {name: show(*mean_and_interval(own)) for name, own in by_ranking.items()}
            for column, by_ranking in values.items()
        }
    )


def in_words(mean, half):
    return f"{mean:+.2f} ± {half:.2f}"


def in_signs(mean, half):
    return int(np.sign(mean) * (abs(mean) > half))  # 0: can't be told from 0


VERDICTS = {
    frozenset({1}): "better",
    frozenset({0, 1}): "not worse",
    frozenset({0}): "no different",
    frozenset({-1, 0}): "not better",
    frozenset({-1}): "worse",
}


def verdicts(found):
    """What holds whatever the replacement."""
    columns = {}
    for over in ("|grad|", "random"):
        signs = table(gains(found, over), in_signs)
        for curve in ("deletion", "insertion"):
            columns[f"than {over}", curve] = {
                name: VERDICTS.get(frozenset(row), "depends")
                for name, row in signs[curve].iterrows()
            }
    return pd.DataFrame(columns).reindex(RANKINGS).fillna("")


print("More faithful than |grad| by (area, in units of the logit):")
print(table(gains(in_classifier, "|grad|"), in_words).to_string(), end="\n\n")
of_classifier = verdicts(in_classifier)
print(of_classifier.to_string())

# %% [markdown]
# The second table has what the three replacements agree on: a ranking is "not worse" if it is
# better with some of them and can't be told apart with others, and it "depends" if one says better
# and another worse.
#
# All rankings by the trained model's paths or gradients are far better than chance, and that by an
# untrained model's paths is not. By deletion no ranking by paths is better than |grad|. By
# insertion that by the strongest path is, and that by the mass is worse with two of the three
# replacements. The entropy is a bad guide: through how many paths a component acts is not how much.
# And by insertion first order, which is told what will be put in place, is worse than those that
# are not: so far from where it was taken, a gradient says little.

# %%
if not SMALL:
    learned = ["mass", "strongest path", "largest path", "mass onwards", "|grad|"]
    than_random = of_classifier["than random"].isin(["better", "not worse"])
    assert than_random.loc[learned].to_numpy().all()
    assert not than_random.loc["untrained"].any()

# %% [markdown]
# ## What a share does not say
#
# Rankings know only the order. Here are the numbers themselves, by branch and kind of token: the
# share of the mass, and the effect, expected (first order) and measured.

# %%
MEASURED = {
    "mass": "share of Σ |path weight|",
    "first order": "expected fall",
    "each alone": "measured fall",
}


def of_kinds(scores, kinds, names):
    """By ranking and kind of token, its mean per token: float [examples, sites]."""
    return {
        ranking: {
            kind: np.mean(scores[ranking], -1, where=(kinds == kind)[:, None]) for kind in names
        }
        for ranking in MEASURED
    }


def draw_kinds(values, groups, unit, group_label):
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
    for ax, (ranking, by_kind) in zip(axes, values.items(), strict=True):
        width = 0.8 / len(by_kind)
        for place, (kind, own) in enumerate(by_kind.items()):
            mean, half = mean_and_interval(own)
            x = np.arange(len(groups)) + width * (place - (len(by_kind) - 1) / 2)
            ax.bar(x, mean, width, yerr=half, label=kind, error_kw={"linewidth": 1})
        ax.set_xticks(range(len(groups)), groups)
        label = MEASURED[ranking] + (f" [{unit}]" if ranking != "mass" else "")
        ax.set(ylabel=label, xlabel=group_label)
    figure.legend(
        *axes[0].get_legend_handles_labels(), frameon=False, loc="outside right", title="token"
    )
    plt.show()


token_kinds = first_token.kinds(rows(splits.test, chosen))
by_branch = of_kinds(classifier_scores["mean"], token_kinds, first_token.KINDS)
draw_kinds(by_branch, BRANCHES, "logit", "branch")

# %% [markdown]
# *Per token of each kind, over 200 True examples with 95% confidence intervals: the share of the
# mass (all ≥ 0, of all complete paths), and by how much the logit falls when this one is replaced
# by the mean, by the gradient and measured (signed, not normalised). What several have in common
# can't be seen where one is replaced at a time.*
#
# The query of the first token and the key of its repetition have nearly all of the mass, and
# without either the model fails: so far the flow is right. But without the *value* of the
# repetition it fails as well, with a hundredth of the mass. The flow is made of derivatives; these
# say what a small change does, and to lose a value is no small change. (The gradient itself expects
# little of it, too.) So "the model uses keys, not values" is no reading of such shares: it is *the
# gradient* that flows through queries and keys.

# %%
for kind, branch in (("first", "query"), ("repeat", "key"), ("repeat", "value")):
    share, expected, measured = (
        by_kind[kind][:, BRANCHES.index(branch)].mean() for by_kind in by_branch.values()
    )
    print(f"{branch} of {kind}: {share:.1%} of the mass;", end=" ")
    print(f"the logit is expected to fall by {expected:.2f}, and falls by {measured:.2f}")

# %% [markdown]
# Nor do effects add up. Replaced one at a time, the components' effects sum to far more than what
# all of them are worth together, because each of three is enough to break the match:

# %%
alone = classifier_scores["mean"]["each alone"][:, HAS_PATH].sum(-1)
ends = in_classifier["mean"]["random"][:, 0]
for name, values in (("sum of the falls", alone), ("all at once", ends[:, 0] - ends[:, -1])):
    print(f"{name}:", "{:.2f} ± {:.2f}".format(*mean_and_interval(values)))
assert SMALL or alone.mean() > 2 * (ends[:, 0] - ends[:, -1]).mean()

# %% [markdown]
# **And the False examples?** That a token is missing is nothing that a component could say, and so
# there is less to find. More of the comparisons end without a result, chance included:

# %%
(false,) = np.nonzero(splits.test.labels == 0)
in_false, _ = examine_classifier(false[:n])
check(in_false)
print(table(gains(in_false, "|grad|"), in_words).to_string(), end="\n\n")
print(verdicts(in_false).to_string())

# %% [markdown]
# **And other models?** Our intervals are over examples; they say nothing of another training run.
# Here are three more, from other random weights:

# %%
classifiers = {4: (of_classifier, by_branch)}
for seed in (2, 3, 5):
    of_seed, scores_of_seed = examine_classifier(chosen, trained_classifier(seed))
    of_seed_by_branch = of_kinds(scores_of_seed["mean"], token_kinds, first_token.KINDS)
    classifiers[seed] = verdicts(of_seed), of_seed_by_branch

print("\nMore faithful than |grad|, by seed:")
compared = {seed: verdict["than |grad|"] for seed, (verdict, _) in classifiers.items()}
print(pd.concat(compared, axis=1).loc[[*BY_PATHS]].to_string(), end="\n\n")
for seed, (_, by_ranking) in classifiers.items():
    ratio = {}
    for ranking in ("mass", "each alone"):
        _, key, value = by_ranking[ranking]["repeat"].mean(0)
        ratio[ranking] = value / key
    print(f"seed {seed}: the repetition's value has {ratio['mass']:.0%} of its key's mass", end=" ")
    print(f"and {ratio['each alone']:.0%} of its effect")
    assert SMALL or (ratio["mass"] < 0.1 and ratio["each alone"] > 0.3)
for verdict in compared.values():
    assert SMALL or verdict.loc["strongest path", "insertion"] in ("better", "not worse")
    assert SMALL or verdict.loc["entropy", "insertion"] == "worse"

# %% [markdown]
# Two things hold in every run: by insertion the strongest path is a better guide than |grad|, and
# the value that the shares pass over is needed. By deletion, who is better changes from run to run.
#
# ## What has it learned?
#
# A ranking may be right by the architecture alone. `sj.randomization_test` shuffles the weights,
# module after module from the output to the input, and says how much of the analysis is left
# (Spearman's correlation over all components and examples; near 1: these weights do not matter).

# %%
GROUPS = ("classifier", "bert/pooler", "bert/encoder", "bert/embeddings")


def shuffled(ranking):
    def analysis(model):
        scores = flow_scores(correct_logit, BRANCH_SITES, model, rows(splits.test, chosen))
        return scores[ranking][:, HAS_PATH]

    test = functools.partial(sj.randomization_test, analysis, classifier, GROUPS)
    return mean_and_interval(np.array([test(seed=seed)().correlation for seed in range(5)]))


correlations = {name: shuffled(name) for name in ("mass", "strongest path", "|grad|")}
print("Rank correlation, mean ± 1.96 standard errors over 5 shufflings:")
columns = {
    name: [in_words(*each) for each in zip(*own, strict=True)] for name, own in correlations.items()
}
print(pd.DataFrame(columns, [f"{name}, with all above" for name in GROUPS]).to_string())
for mean, _ in correlations.values():
    assert SMALL or ((mean[:2] > 0.9).all() and (mean[2:] < 0.6).all())

# %% [markdown]
# The head does not matter to the order: all paths end in it, and it scales them alike. The layer
# does. What is left of the mass then, a third, is the architecture's; and we have seen that it is
# no help.
#
# ## The language model
#
# The second model fills in masked verbs, of a generated language. How much larger is the logit of
# the verb's right form than that of the wrong one? A component is now the state of a token at the
# input of a layer. `[MASK]`, where the verb is read, is no candidate: whatever puts it first wins,
# and that is no news. All sentences have 14 tokens, so that they fit in one batch, and one or two
# attractors, nouns of the other number between subject and verb.

# %%
LENGTH, LAYERS = 14, 1 if SMALL else 4
LAYER_SITES = tuple(f"BertForMaskedLM/bert/encoder/layer/{n}:input" for n in range(LAYERS))
KINDS = ("subject", "attractor", "other", "special")

m = 5 if SMALL else 200
grammar = zoo.Grammar()
drawn = grammar.sample(200 if SMALL else 5000, attractors=(1, 2), seed=7)
drawn, encoded, _ = agreement.encodable(drawn, grammar.tokenizer())
fitting = [number for number, one in enumerate(encoded) if len(one.ids) == LENGTH][: 2 * m]
sentences, other_sentences = agreement.batches([encoded[number] for number in fitting], m)
is_candidate = np.arange(LENGTH) != sentences.mask[:, None]
print(" ".join(drawn[fitting[0]].words))


def margin(model, example):
    with sj.scopes(model):
        return agreement.margin(model, example)


def examine_language_model(seed):
    """The curves, their verdicts, and the scores by kind of token."""
    if SMALL:
        config = generated.config(grammar, layers=LAYERS, width=8)
        model = zoo.BertForMaskedLM(config, rngs=nnx.Rngs(seed))
    else:
        folder = f"output/agreement_{seed}" if seed else "output/agreement"
        model, _ = generated.train(folder, seed=seed, progress=False)
    right = jax.jit(generated.accuracy)(model, sentences)
    print(f"seed {seed}: {len(sentences.ids)} sentences, right: {right:.1%}")
    assert SMALL or right > 0.95
    found, scores = examine(
        margin,
        LAYER_SITES,
        model,
        agreement.untrained_like(model),
        sentences,
        other_sentences,
        np.repeat(is_candidate[:, None], LAYERS, axis=1),
        steps=13,
    )
    check(found)
    for kind in REPLACEMENTS:  # all paths pass the input of every layer
        np.testing.assert_allclose(scores[kind]["mass"].sum(-1), 1, rtol=1e-3)
    return found, verdicts(found), scores["mean"]


in_language_model, of_language_model, language_scores = examine_language_model(0)
draw(in_language_model, "margin of the verb [nats]")

# %% [markdown]
# *The margin (in nats, not normalised) while the 52 states are replaced or given back in the order
# of each ranking; bands are 95% confidence intervals of the mean over 200 sentences. Below 0 the
# model prefers the wrong verb; why, the curves can't show.*

# %%
print("More faithful than |grad| by (area, in nats):")
print(table(gains(in_language_model, "|grad|"), in_words).to_string(), end="\n\n")
print(of_language_model.to_string())

# %% [markdown]
# And the same of a model from other random weights:

# %%
in_second, of_second, second_scores = examine_language_model(1)
print(table(gains(in_second, "|grad|"), in_words).to_string(), end="\n\n")
print(of_second.to_string())

# %% [markdown]
# All rankings by the trained models are better than chance. Which of mass, strongest path and
# |grad| is the best guide differs between the two, and there is no winner. By insertion, two fall
# behind in both. One is the entropy, again. The other is `mass onwards`: it counts only the paths
# that lead on from a state, and the earlier the layer, the more there are, so that it ranks by
# layers, whatever leads there. With complete paths (`site_flow`) every layer has all of the mass.
#
# An untrained model's flow is better than chance, too, here. The architecture alone gives the
# states of early layers more of the mass, of all tokens but `[MASK]`, and early is right.

# %%
means = {
    name: np.mean(language_scores[name], (0, 2), where=is_candidate[:, None])
    for name in ("mass onwards", "untrained")
}
for name, by_layer in means.items():
    print(f"{name}, mean of a candidate by layer:", *(f"{value:.2g}" for value in by_layer))
    assert (np.diff(by_layer) < 0).all()
if not SMALL:
    for verdict in (of_language_model, of_second):
        learned = verdict.loc[["mass", "strongest path", "largest path", "|grad|"], "than random"]
        assert learned.isin(["better", "not worse"]).to_numpy().all()
        behind = verdict.loc[["entropy", "mass onwards"], ("than |grad|", "insertion")]
        assert behind.isin(["worse", "not better"]).all()

# %% [markdown]
# Again the numbers themselves, by layer and kind of token, of the first model:


# %%
def layers_of(scores):
    return of_kinds(scores, agreement.kinds(sentences), KINDS)


draw_kinds(layers_of(language_scores), range(LAYERS), "nats", "input of layer")

# %% [markdown]
# *As for the classifier, per state of each kind of token but `[MASK]`, over 200 sentences with 95%
# confidence intervals (special tokens are `[CLS]` and `[SEP]`); the shares of a layer sum to 1,
# together with that of `[MASK]`, so that in which layer something happens they can't show.*
#
# And of the second:

# %%
draw_kinds(layers_of(second_scores), range(LAYERS), "nats", "input of layer")

# %% [markdown]
# *The same for the second model.*
#
# The flow names the right token in both models: the subject, whose state is the only one that is
# needed. But not in which layers. At the input of layer 2 the subject carries a fifth of the mass
# in both. In the first model that state can be replaced without loss: its number must be elsewhere
# by then. The second model fails without it.

# %%
for seed, scores in enumerate((language_scores, second_scores)):
    share, _, measured = layers_of(scores).values()
    for name, own in (("share", share), ("measured fall", measured)):
        print(f"seed {seed}, subject, {name} by layer: {np.round(own['subject'].mean(0), 2)}")
    if not SMALL:
        assert measured["subject"].mean(0)[:2].min() > 3
        assert max(measured[kind].mean(0).max() for kind in KINDS[1:]) < 1
        assert all((share["subject"].mean(0) > share[kind].mean(0))[:2].all() for kind in KINDS[1:])

# %% [markdown]
# ## All comparisons

# %%
judged = {f"classifier {seed}": verdict for seed, (verdict, _) in classifiers.items()}
judged |= {"language model 0": of_language_model, "language model 1": of_second}
for over in ("|grad|", "random"):
    print(f"More faithful than {over}:")
    shown = {
        name: verdict.loc[["mass", "strongest path", "entropy"], f"than {over}"].stack()
        for name, verdict in judged.items()
    }
    print(pd.DataFrame(shown).T.to_string(), end="\n\n")

# %% [markdown]
# ## What such tests can't show
#
# - **The model as it is.** A sentence some states of which are zeros, means or another sentence's
#   is none that it ever met. This is why there are three replacements: wherever it says "not
#   better", "not worse" or "depends" above, one of them alone would have told another story.
# - **Interactions.** One order is one way through 2²¹ sets of components. `each alone` is no upper
#   bound, and effects do not add up.
# - **Use.** What can be replaced without loss may be used all the same, and be made up for. What
#   can't be replaced may hold but a constant.
# - **Other models.** These are small, and their languages are generated. How much one training run
#   differs from the next, you have seen.
# - **Chance.** At 95% one of twenty differences is there by chance. That three replacements and
#   several runs agree says more than one interval.
#
# ## In short
#
# | question | answer |
# |---|---|
# | does the flow find what a model needs? | by insertion better than chance in all six models |
# | … better than \|grad\| does? | by deletion in none for certain, by insertion in some |
# | which statistic? | the strongest path or the mass, of complete paths; not the entropy |
# | is it what the model has learned? | yes: untrained models' flow is far behind |
# | does it depend on the replacement? | where rankings are close, it does |
# | is a share how much it matters? | no: it may be a hundredth and indispensable, a fifth and not |

# %%
if not SMALL:
    for verdict in judged.values():
        assert (
            verdict.loc[["mass", "strongest path"], ("than random", "insertion")] == "better"
        ).all()
        assert verdict.loc["untrained", ("than |grad|", "insertion")] == "worse"
        assert verdict.loc["entropy", ("than |grad|", "insertion")] == "worse"
