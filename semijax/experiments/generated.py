"""A masked language model of a generated language, as files, for want of the real ones.

The folder it is saved to is a checkpoint in Hugging Face's format, and its sentences are written
like Linzen et al.'s: ``semijax.experiments.agreement`` reads both.

``python -m semijax.experiments.generated --out FOLDER`` trains models of several seeds, and tells
by which branches the strongest paths leave subject and attractors, beside untrained models: Fig. 4
of Du et al. (2023) over seeds. It may be killed and started again.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from semijax import zoo
from semijax.experiments.agreement import (
    Batch,
    batches,
    branch_values,
    encodable,
    margin,
    padded,
)
from semijax.experiments.branches import ALL, branch_table
from semijax.experiments.claims import Claim, claims_table
from semijax.experiments.controls import MODELS, controls
from semijax.experiments.results import ResultTable

LENGTH = 36
"""The number of tokens that a model has positions for; the longest sentence has 35."""

VALIDATION = 10_000
"""The seed of the sentences that end a training."""

PAPER_KEYS = {
    "subject": (0.0195, 0.0006, 0.0014, 0.0140, 0.0800, 0.1145),
    "attractor": (0.0314, 0.0053, 0.0107, 0.0899, 0.0099, 0.0385),
}
"""The branch values of keys in Fig. 4, by kind of token and layer."""

PAPER_SUBJECT_VALUE = 0.0359
"""That of the subject's values in the last layer."""

PAPER_SKIPS = (0.142, 0.106, 0.125, 0.124, 0.117, 0.066)
"""Those of the skip connections, of all tokens."""

PAPER_RIVALS = (0.0185, 0.0081, 0.0067, 0.0207, 0.0202, 0.0360)
"""The largest of the other branches there, keys or values."""

FILE = "agreement.csv"
"""The name of the table in a grid's folder."""

KEY = ("seed", "sentences", "epochs", "examined")
"""The columns that tell its runs apart."""


def config(grammar: zoo.Grammar, *, layers: int = 4, width: int = 64) -> zoo.BertConfig:
    """Return the sizes of a BERT that learns the language in a minute or two on two cores."""
    return zoo.BertConfig(
        vocab_size=grammar.tokenizer().get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        max_position_embeddings=LENGTH,
    )


def train(
    folder: str | os.PathLike[str], *, seed: int = 0, **options: Any
) -> tuple[zoo.BertForMaskedLM, zoo.History]:
    """Train one BERT, and save it in the folder itself: `train_seeds` with one seed."""
    ((model, history),) = _train([pathlib.Path(folder)], [seed], **options)
    return model, history


def train_seeds(
    folder: str | os.PathLike[str], seeds: Sequence[int], **options: Any
) -> list[tuple[zoo.BertForMaskedLM, zoo.History]]:
    """Train a BERT per seed to fill in masked verbs, and save each as a checkpoint.

    They see sentences of 0 to 4 nouns between subject and verb, of either number. Each stops when
    it gets all of 500 other sentences with 1 attractor right, or after ``epochs``. Called again, it
    reads what it has written.

    Args:
        folder: where to save them, each in a folder of its own with its tokenizer, called by the
            seed.
        seeds: of the sentences, the weights and the batches.
        **options: ``sentences`` to train on (10,000), ``layers`` (4) and ``width`` (64) of the
            BERT, the largest number of ``epochs`` (15), and whether to show ``progress``.

    Returns:
        The models, and how their trainings went; the scores are accuracies on 1 attractor.
    """
    return _train([pathlib.Path(folder) / str(seed) for seed in seeds], seeds, **options)


def _train(
    folders: Sequence[pathlib.Path],
    seeds: Sequence[int],
    *,
    sentences: int = 10_000,
    layers: int = 4,
    width: int = 64,
    epochs: int = 15,
    progress: bool = True,
) -> list[tuple[zoo.BertForMaskedLM, zoo.History]]:
    grammar = zoo.Grammar()

    def data(seed: int) -> Batch:
        numbers = {"attractors": range(5), "intervening": range(5)}
        return encoded_batch(grammar.sample(sentences, **numbers, seed=seed), grammar)

    validation = encoded_batch(grammar.sample(500, attractors=1, seed=VALIDATION), grammar)
    sizes = config(grammar, layers=layers, width=width)
    models = [zoo.BertForMaskedLM(sizes, rngs=nnx.Rngs(seed)) for seed in seeds]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    histories = zoo.train_ensemble(
        models,
        masked_verb_loss,
        [data(seed) for seed in seeds],
        seeds=seeds,
        epochs=epochs,
        batch_size=64,
        evaluate=lambda model: accuracy(model, validation),
        until=1.0,
        checkpoint=folders[0] / "training.msgpack",
        progress=progress,
    )
    for model, folder in zip(models, folders, strict=True):
        zoo.save_checkpoint(model, folder)
        grammar.tokenizer().save(str(folder / "tokenizer.json"))
    return [*zip(models, histories, strict=True)]


def encoded_batch(sentences: Sequence[zoo.AgreementSentence], grammar: zoo.Grammar) -> Batch:
    """Encode sentences of the language as one batch, padded to ``LENGTH``."""
    _, encoded, _ = encodable(sentences, grammar.tokenizer())
    (batch,) = batches(encoded, len(encoded), buckets=[LENGTH])
    return padded(batch, LENGTH)


def masked_verb_loss(model: zoo.BertForMaskedLM, batch: Batch) -> jax.Array:
    """Compute the mean cross-entropy of the masked verbs, in nats."""
    hidden = model.bert(batch.ids, batch.attention_mask)
    at_mask = jnp.take_along_axis(hidden, batch.mask[:, None, None], axis=1)[:, 0]
    logits = model.predict(at_mask)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.right).mean()


def accuracy(model: zoo.BertForMaskedLM, batch: Batch) -> jax.Array:
    """Return the fraction of verbs whose right form has a larger logit than the wrong one."""
    margins = jax.vmap(lambda example: margin(model, example))(batch)
    return jnp.mean(margins > 0)


def grid(
    seeds: Sequence[int],
    out: str | os.PathLike[str],
    *,
    examined: int = 1000,
    sentences: int = 10_000,
    epochs: int = 15,
    progress: bool = True,
    **sizes: int,
) -> Any:
    """Train models of all seeds and find their branch values, but for those in the table already.

    Args:
        seeds: of the sentences to train on, the weights and the batches. All models are examined on
            the same sentences, as many of 1, 2, 3 and 4 attractors.
        out: the folder of the table, ``agreement.csv``, and of the models, in ``models``.
        examined: the number of sentences to examine.
        sentences: to train on.
        epochs: at most, of each training.
        progress: show progress bars.
        **sizes: ``layers`` and ``width`` of the models.

    Returns:
        A ``pandas.DataFrame``: the rows of a ``branch_table`` for each ``seed`` and ``model``
        (``controls.MODELS``), with its part of verbs that are ``right``.
    """
    import pandas

    out = pathlib.Path(out)
    table = ResultTable(out / FILE, KEY)
    keys = [(seed, sentences, epochs, examined) for seed in seeds]
    if missing := [*table.missing(keys)]:
        grammar = zoo.Grammar()
        drawn = [
            sentence
            for number in (1, 2, 3, 4)
            for sentence in grammar.sample(examined // 4, attractors=number, seed=200 + number)
        ]
        _, encoded, _ = encodable(drawn, grammar.tokenizer())
        whole = encoded_batch(drawn, grammar)
        sizes |= {"sentences": sentences, "epochs": epochs}
        models = train_seeds(out / "models", seeds, progress=progress, **sizes)
        by_seed = {seed: model for seed, (model, _) in zip(seeds, models, strict=True)}
        for key in missing:
            model = by_seed[key[0]]
            rows = []
            for name, each in controls(model, key[0]).items():
                # One shape, so that all models are examined by one program.
                study = branch_values(each, batches(encoded, 20), buckets=(LENGTH,))
                right = float(accuracy(each, whole))
                run = dict(zip(KEY, key, strict=True)) | {"right": right}
                rows.append(branch_table(study).assign(model=name, **run))
            table.append(pandas.concat(rows))
    return table.of(keys)


def claims(table: Any) -> list[Claim]:
    """State what Fig. 4 claims over seeds, beside untrained and shuffled models.

    Args:
        table: of ``grid``.
    """
    own = table[table["granularity"] == "op"]
    cells = own.pivot(index=["model", "seed"], columns=["kind", "layer", "branch"], values="mean")
    cells = cells.sort_index(axis=1)
    last = int(own["layer"].max())
    last_keys, skips = PAPER_KEYS["subject"][-1], np.array(PAPER_SKIPS)
    by_layer = zip(*PAPER_KEYS.values(), strict=True)
    attractors_lead = [n for n, (subject, attractor) in enumerate(by_layer) if attractor > subject]

    def share(part: Any, other: Any) -> dict[str, np.ndarray]:
        """Of two series of numbers, the first's share less one half, by model."""
        found = (part / (part + other)).fillna(0.5) - 0.5
        return {name: found.loc[name].to_numpy() for name in MODELS}

    def claim(statement: str, measure: str, paper: str, found: dict[str, np.ndarray]) -> Claim:
        return Claim("Fig. 4", statement, measure, paper, *(found[name] for name in MODELS))

    def over_layers(kind: str, branch: str) -> Any:
        return sum(cells[kind, layer, branch] for layer in range(last + 1))

    def skip_leads(kind: str) -> dict[str, np.ndarray]:
        """The least share, over the layers, of the skip connection beside the next branch."""
        shares = [
            share(
                cells[kind, layer, "skip"],
                cells[kind, layer][["key", "query", "value"]].max(axis=1),
            )
            for layer in range(last + 1)
        ]
        return {name: np.min([each[name] for each in shares], axis=0) for name in MODELS}

    return [
        claim(
            "In the last layer, the subject's paths take the keys rather than the values.",
            "keys / (keys + values) − ½, subject, last layer",
            f"{last_keys / (last_keys + PAPER_SUBJECT_VALUE) - 0.5:.2f}",
            share(cells["subject", last, "key"], cells["subject", last, "value"]),
        ),
        claim(
            "Through the keys, subjects carry more than attractors.",
            "subject / (subject + attractor) − ½, keys of all layers",
            f"{sum(PAPER_KEYS['subject']) / sum(map(sum, PAPER_KEYS.values())) - 0.5:.2f}; below 0 "
            f"in layers {', '.join(map(str, attractors_lead))}",
            share(over_layers("subject", "key"), over_layers("attractor", "key")),
        ),
        claim(
            "Skip connections carry most, in every layer.",
            "least of skip / (skip + largest other branch) − ½ over layers, all tokens",
            f"{min(skips / (skips + np.array(PAPER_RIVALS))) - 0.5:.2f}",
            skip_leads(ALL),
        ),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the grid of Fig. 4 on the generated language, over seeds.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m semijax.experiments.generated",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(10)])
    options = parser.parse_args(argv)
    table = grid(options.seeds, options.out)
    print(claims_table(claims(table)).to_string(index=False))
    print(f"Written to {options.out / FILE}.")


if __name__ == "__main__":
    main()
