"""Gradient tracing in LSTM language models: greedy, exact, and over all paths.

``python -m semijax.experiments.tracing --out FOLDER`` trains models of several seeds on a generated
language, and compares DuSell's gradient tracing, which goes from a parameter always on to where the
gradient is largest, with the strongest path, and with what all paths do.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import semijax as sj
from semijax import zoo
from semijax.experiments.results import ResultTable
from semijax.zoo.language_model import LSTMLanguageModel, next_word_loss

FILE = "tracing.csv"
"""The name of the table in a grid's folder."""

KEY = ("seed", "texts", "epochs", "examined")
"""The columns that tell its runs apart."""

WIDTH = 32
"""Of the models."""

COMPONENTS = (
    *("embedding", "input_gate", "forget_gate", "candidate", "output_gate"),
    *("cell", "hidden", "head"),
)
"""The parts of a model, by names in the scopes of its equations."""

GROUPS = ("embedding", "input_gate", "forget_gate", "candidate", "output_gate", "head")
"""The groups of parameters that paths start from."""

LENGTHS = (5, 9)
"""The numbers of words before the verb."""

BEST = (1, 20, 1000)
"""The numbers of best paths that are added up."""

REST = "(rest)"
"""The component of a node between the head and the margin."""

EMBEDDING = "[0]['embedding']['embedding']"


class Prefix(NamedTuple):
    """The words before a verb, as tokens, and the two forms of the verb.

    Attributes:
        tokens: int32 ``[length]``, with ``[CLS]`` first.
        right: int32 ``[]``, the form that agrees with the subject.
        wrong: int32 ``[]``.
    """

    tokens: jax.Array
    right: jax.Array
    wrong: jax.Array


@functools.cache
def grammar() -> zoo.Grammar:
    """Return the generated language, with DuSell's *keys to the cabinet*."""
    words = zoo.Grammar()
    return dataclasses.replace(
        words,
        nouns=(*words.nouns, "key", "cabinet"),
        prepositions=(*words.prepositions, "to"),
    )


@functools.cache
def _tokenizer() -> Any:
    tokenizer = grammar().tokenizer()
    tokenizer.enable_padding()  # with token 0
    return tokenizer


def text(n: int, seed: int) -> list[zoo.AgreementSentence]:
    """Draw the sentences that a model is trained on."""
    return grammar().sample(n, attractors=range(3), intervening=range(3), seed=seed)


def sentences(length: int, n: int) -> list[zoo.AgreementSentence]:
    """Draw sentences with so many words before the verb, and one attractor or two."""
    some = grammar().sample(60 * n, attractors=(1, 2), seed=100_000)
    return [sentence for sentence in some if sentence.verb == length][:n]


def prefix(words: Sequence[str], right: str, wrong: str) -> Prefix:
    """Encode the words before a verb, and its two forms."""
    tokens = _tokenizer().encode(" ".join(words)).ids[:-1]  # [CLS] and the words
    forms = (jnp.asarray(_tokenizer().token_to_id(form)) for form in (right, wrong))
    return Prefix(jnp.asarray(tokens), *forms)


def prefix_of(sentence: zoo.AgreementSentence) -> Prefix:
    """Encode what comes before a sentence's verb."""
    assert sentence.wrong is not None  # every verb of the language has another number
    return prefix(sentence.words[: sentence.verb], sentence.right, sentence.wrong)


def untrained_model(seed: int) -> LSTMLanguageModel:
    """Make a model with random weights."""
    return LSTMLanguageModel(_tokenizer().get_vocab_size(), WIDTH, rngs=nnx.Rngs(seed))


def trained_models(
    seeds: Sequence[int],
    *,
    texts: int = 8000,
    epochs: int = 15,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> list[LSTMLanguageModel]:
    """Train a model per seed: of its text, its weights and the order of its batches.

    Args:
        seeds: one per model.
        texts: the number of sentences of each.
        epochs: of each training.
        checkpoint: as for ``zoo.train_ensemble``.
        progress: show a progress bar.
    """
    models = [untrained_model(seed) for seed in seeds]
    encoded = [
        np.array([one.ids for one in _tokenizer().encode_batch(own)])
        for own in ([" ".join(s.words) for s in text(texts, seed)] for seed in seeds)
    ]
    longest = max(one.shape[1] for one in encoded)
    zoo.train_ensemble(
        models,
        next_word_loss,
        [np.pad(one, ((0, 0), (0, longest - one.shape[1]))) for one in encoded],
        seeds=seeds,
        epochs=epochs,
        batch_size=64,
        optimizer=optax.adam(1e-2),
        checkpoint=checkpoint,
        progress=progress,
    )
    return models


def parameters(model: LSTMLanguageModel) -> Any:
    """Return a model's parameters as nested dicts: what `margin` is a function of."""
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def margin(params: Any, tokens: jax.Array, right: jax.Array, wrong: jax.Array) -> jax.Array:
    """Return the logit of the right form of the verb less that of the wrong one."""
    model = nnx.merge(_definition(), nnx.State(params))
    with sj.scopes(model):
        logits = model(tokens)[-1]
    return logits[right] - logits[wrong]


@functools.cache
def _definition() -> Any:
    return nnx.graphdef(untrained_model(0))


_margin = jax.jit(margin)
_gradient = jax.jit(jax.grad(margin))
_sums = jax.jit(sj.semiring_grad(margin, {"gradient": sj.SumProduct(), "mass": sj.AbsSumProduct()}))


def strongest_unit(params: Any, inputs: Prefix, subject: int) -> tuple[str, tuple[int, int]]:
    """Return the parameter to start from: of the subject's embedding, that of largest gradient."""
    word = int(inputs.tokens[subject + 1])  # [CLS] comes first
    unit = np.abs(_gradient(params, *inputs)["embedding"]["embedding"][word]).argmax()
    return EMBEDDING, (word, int(unit))


def component(node: Any) -> str:
    """Name the part of the model in which a node was computed."""
    names = node.scope.split("/")
    return next((name for name in names if name in COMPONENTS), REST)


def group_of(name: str) -> str:
    """Name the group that an array of parameters belongs to."""
    return next(group for group in GROUPS if f"'{group}'" in name)


def stages(path: sj.Path) -> list[tuple[str, list[int]]]:
    """Return the components that a path goes through, each with the time steps it spends there."""
    found: list[tuple[str, list[int]]] = []
    for node in path.nodes[1:]:
        name = component(node)
        if name == REST:
            continue
        time = (*node.iteration, *node.index)[0]
        if found and found[-1][0] == name:
            found[-1][1].append(time)
        else:
            found.append((name, [time]))
    return [(name, list(dict.fromkeys(times))) for name, times in found]


def story(path: sj.Path, words: Sequence[str]) -> str:
    """Tell a path: each component, the word at which the path is there, and how long it stays."""
    parts = []
    for name, times in stages(path):
        stays = f" ×{len(times)}" if len(times) > 1 else ""
        parts.append(f"{name} ({words[times[0] - 1]}{stays})")
    return " → ".join(parts)


def greedy_and_best(params: Any, sentence: zoo.AgreementSentence) -> tuple[sj.Path, sj.Path]:
    """Trace greedily from the subject's embedding, and find the strongest path from there."""
    inputs = prefix_of(sentence)
    source = strongest_unit(params, inputs, sentence.subject)
    trace = sj.trace_gradient(margin, source=source)(params, *inputs)
    (best,) = sj.top_paths(margin, source=source)(params, *inputs)
    return trace, best


def _of_traces(params: Any, length: int, n: int) -> dict[str, float]:
    """Measure how often the greedy trace finds the strongest path, and how much of it it keeps."""
    pairs = [greedy_and_best(params, sentence) for sentence in sentences(length, n)]
    kept = np.exp([trace.log_abs_weight - best.log_abs_weight for trace, best in pairs])
    return {"found": float((kept > 1 - 1e-6).mean()), "kept": float(kept.mean())}


def _of_best(params: Any, n: int) -> dict[str, float]:
    """Measure what the best paths from one parameter add up to, as means over sentences."""
    found = []
    for sentence in sentences(LENGTHS[0], n):
        inputs = prefix_of(sentence)
        source = strongest_unit(params, inputs, sentence.subject)
        best = sj.top_paths(margin, k=max(BEST), source=source)(params, *inputs)
        weights = np.array([path.weight for path in best])
        of_source = {
            name: float(own["embedding"]["embedding"][source[1]])
            for name, own in _sums(params, *inputs).items()
        }
        found.append(
            {
                f"{name} {k}": sum_of(weights[:k]) / of_source[whole]
                for k in BEST
                for name, whole, sum_of in (
                    ("mass", "mass", lambda own: np.abs(own).sum()),
                    ("sum", "gradient", np.sum),
                )
            }
        )
    return {name: float(np.median([own[name] for own in found])) for name in found[0]}


def edges(params: Any, seed: int, n: int, samples: int = 30) -> Any:
    """Count the edges of sampled paths by component, for each group of parameters.

    Returns:
        A ``component_counts`` table: means over sentences.
    """
    groups = jax.tree_util.tree_map_with_path(
        lambda keys, leaf: np.full(leaf.shape, group_of(jax.tree_util.keystr(keys))), params
    )
    masks = {group: jax.tree.map(lambda own, group=group: own == group, groups) for group in GROUPS}
    paths = []
    for sentence, key in zip(
        sentences(LENGTHS[-1], n), jax.random.split(jax.random.key(seed), n), strict=True
    ):
        inputs = prefix_of(sentence)
        paths.append(
            [
                path
                for mask in masks.values()
                for path in sj.sample_paths(margin, samples, source=mask)(key, params, *inputs)
            ]
        )
    return sj.component_counts(
        paths, groups=component, sources=lambda node: group_of(node.variable), weighted=False
    )


def grid(
    seeds: Sequence[int],
    out: str | os.PathLike[str],
    *,
    texts: int = 8000,
    epochs: int = 15,
    examined: int = 30,
    progress: bool = True,
) -> Any:
    """Train and examine models of all seeds, but for those that are in the table already.

    Args:
        seeds: as for ``trained_models``.
        out: the folder of the table, ``tracing.csv``, and of the trainings, in ``models``.
        texts: as for ``trained_models``.
        epochs: as for ``trained_models``.
        examined: the number of sentences for each measure.
        progress: show a progress bar.

    Returns:
        A ``pandas.DataFrame`` with a row per ``seed``, ``model`` (``"trained"`` or
        ``"untrained"``), ``measure`` and ``part``: the ``value``. The measures are ``right``, the
        share of verbs; ``found`` and ``kept`` by the number of words before the verb, how often
        the greedy trace is the strongest path and the mean part of its |weight| that it has;
        ``mass k`` and ``sum k``, the medians over sentences of what the k best paths have of the
        mass and of the gradient; and ``edges of GROUP`` by component, per path.
    """
    out = pathlib.Path(out)
    table = ResultTable(out / FILE, KEY)
    keys = [(seed, texts, epochs, examined) for seed in seeds]
    if missing := [*table.missing(keys)]:
        checkpoint = out / "models" / f"lstm-{texts}-{'-'.join(map(str, seeds))}"
        options = {"texts": texts, "epochs": epochs, "progress": progress}
        trained = trained_models(seeds, checkpoint=checkpoint, **options)
        by_seed = dict(zip(seeds, trained, strict=True))
        for key in missing:
            models = {"trained": by_seed[key[0]], "untrained": untrained_model(key[0])}
            rows = []
            for name, model in models.items():
                run = dict(zip(KEY, key, strict=True)) | {"model": name}
                for measure, part, value in _measures(parameters(model), key[0], examined):
                    rows.append(run | {"measure": measure, "part": part, "value": value})
            table.append(rows)
    return table.of(keys)


def _measures(params: Any, seed: int, n: int) -> list[tuple[str, str, float]]:
    every = [prefix_of(one) for one in sentences(LENGTHS[0], n)]
    right = [float(_margin(params, *inputs)) > 0 for inputs in every]
    found: list[tuple[str, str, float]] = [("right", "", float(np.mean(right)))]
    for length in LENGTHS:
        of_length = _of_traces(params, length, n)
        found += [(measure, f"{length} words", value) for measure, value in of_length.items()]
    found += [(measure, "", value) for measure, value in _of_best(params, n).items()]
    for row in edges(params, seed, n).itertuples():
        found.append((f"edges of {row.source}", row.component, row.edges))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the grid over seeds.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m semijax.experiments.tracing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(10)])
    options = parser.parse_args(argv)
    table = grid(options.seeds, options.out)
    by_seed = table.pivot_table(index=["measure", "part"], columns="model", values="value")
    print(by_seed.round(3).to_string())
    print(f"Written to {options.out / FILE}.")


if __name__ == "__main__":
    main()
