"""Fig. 2: a test whether a transformer finds a repeated token through its keys and queries.

``python -m semijax.experiments.first_token --out FOLDER`` trains and examines models of several
seeds, with and without dropout, beside untrained ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import semijax as sj
from semijax import zoo
from semijax.experiments.branches import ALL, GRANULARITIES, branch_study, branch_table
from semijax.experiments.claims import Claim, claims_table
from semijax.experiments.controls import MODELS, shuffled_like
from semijax.experiments.results import ResultTable
from semijax.experiments.softmax import log_softmax

TASK = zoo.FirstTokenRepeatedOnce()

CONFIG = zoo.BertConfig(
    vocab_size=TASK.vocabulary,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=TASK.length,
    num_labels=TASK.classes,
)

KINDS = ("first", "repeat", "other")
"""The kinds of tokens: the first of its sequence, its repetition, or another."""

DROPOUTS = (0.0, 0.2)
"""The rates of dropout: the paper's text has none, its released run 0.2, though only after hidden
layers, and for 42 epochs."""

PAPER = {
    ("first", "query"): 0.174,
    ("first", "key"): 0.095,
    ("first", "skip"): 0.095,
    ("repeat", "key"): 0.27,
    ("other", "key"): 0.009,
}
"""Branch values read off the paper's figure."""

FILE = "first_token.csv"
"""The name of the table in a grid's folder."""

KEY = ("dropout", "seed", "sequences", "epochs")
"""The columns that tell its runs apart."""


def untrained_model(seed: int = 0, *, dropout: float = 0.0) -> zoo.BertForSequenceClassification:
    """Make the paper's classifier of one layer and width 16, with random weights.

    Args:
        seed: of the weights.
        dropout: the rate of all dropout in training.
    """
    config = dataclasses.replace(
        CONFIG, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
    )
    return zoo.BertForSequenceClassification(config, rngs=nnx.Rngs(seed))


def trained_model(
    splits: zoo.Splits, seed: int = 0, **options: Any
) -> tuple[zoo.BertForSequenceClassification, zoo.History]:
    """Train one classifier: `trained_models` with one seed."""
    ((model, history),) = trained_models(splits, [seed], **options)
    return model, history


def trained_models(
    splits: zoo.Splits,
    seeds: Sequence[int],
    *,
    dropout: float = 0.0,
    epochs: int = 100,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> list[tuple[zoo.BertForSequenceClassification, zoo.History]]:
    """Train classifiers until all validation examples are right, or ``epochs`` have passed.

    Not every seed gets there. Which ones do is decided by the last bits of the arithmetic, and so
    by the processor.

    Args:
        splits: the data.
        seeds: of the weights and of the order of the batches, one per model.
        dropout: its rate, see ``DROPOUTS``.
        epochs: the largest number of epochs.
        checkpoint: where to keep the training, as for ``zoo.train_ensemble``.
        progress: show a progress bar.

    Returns:
        Each model, and how its training went; the scores are validation accuracies.
    """
    models = [untrained_model(seed, dropout=dropout) for seed in seeds]
    histories = zoo.train_ensemble(
        models,
        zoo.cross_entropy,
        [splits.train] * len(models),
        seeds=seeds,
        epochs=epochs,
        evaluate=lambda model: zoo.accuracy(model, splits.validation),
        until=1.0,
        checkpoint=checkpoint,
        progress=progress,
    )
    return [*zip(models, histories, strict=True)]


def checkpoint_path(
    out: str | os.PathLike[str], dropout: float, sequences: int, seeds: Sequence[int]
) -> pathlib.Path:
    """Return where a grid in the folder ``out`` keeps the training of these seeds."""
    name = f"{dropout}-{sequences}-{'-'.join(map(str, seeds))}"
    return pathlib.Path(out) / "models" / name


def correct_logit(model: zoo.BertForSequenceClassification, example: zoo.Dataset) -> jax.Array:
    """Return the logit of the correct class of one example, tokens ``[length]`` and a label."""
    return model(example.tokens)[example.labels]


def kinds(data: zoo.Dataset) -> np.ndarray:
    """Name each token's kind, one of ``KINDS``: str ``[n, length]``."""
    found = np.where(data.tokens == data.tokens[:, :1], "repeat", "other").astype(object)
    found[:, 0] = "first"
    return found


def branch_values(
    model: zoo.BertForSequenceClassification,
    data: zoo.Dataset,
    *,
    batch_size: int = 500,
    granularities: tuple[str, ...] = GRANULARITIES,
    progress: bool = False,
) -> sj.Study:
    """Find the branch of the strongest paths to the correct class's logit, by kind of token.

    Args:
        model: the classifier.
        data: tokens ``[n, length]`` and labels ``[n]``.
        batch_size: how many examples are examined at a time.
        granularities: ``"element"``, Eq. 5 of the paper, ``"op"``, its code, or both.
        progress: show a progress bar.

    Returns:
        The study of ``branch_study``; ``branch_table`` makes a table of it.
    """

    def batches() -> Iterator[zoo.Dataset]:
        for start in range(0, len(data.labels), batch_size):
            yield zoo.Dataset(*(array[start : start + batch_size] for array in data))

    return branch_study(
        with_maximum_in_softmax(model),
        correct_logit,
        batches(),
        kinds,
        granularities=granularities,
        progress=progress,
    )


def grid(
    seeds: Sequence[int],
    out: str | os.PathLike[str],
    *,
    dropouts: Sequence[float] = DROPOUTS,
    sequences: int = 10_000,
    epochs: int = 100,
    progress: bool = True,
) -> Any:
    """Train and examine models of all seeds, but for those that are in the table already.

    Args:
        seeds: of the weights and of the order of the batches.
        out: the folder of the table, ``first_token.csv``, and of the trainings, in ``models``.
        dropouts: the rates of dropout.
        sequences: of the data: 7 of 10 to train on, 2 of 10 to examine.
        epochs: at most, of each training.
        progress: show progress bars.

    Returns:
        A ``pandas.DataFrame``: the rows of a ``branch_table`` for each ``dropout``, ``seed`` and
        ``model`` (``controls.MODELS``), with the ``validation`` accuracy that the
        training ended with and whether it ``arrived`` at 100%.
    """
    import pandas

    out = pathlib.Path(out)
    table = ResultTable(out / FILE, KEY)
    keys = [(dropout, seed, sequences, epochs) for dropout in dropouts for seed in seeds]
    if [*table.missing(keys)]:
        splits = zoo.split(TASK.sample(sequences))
        for dropout in dropouts:
            checkpoint = checkpoint_path(out, dropout, sequences, seeds)
            options = {"dropout": dropout, "epochs": epochs, "progress": progress}
            models = dict(
                zip(
                    seeds,
                    trained_models(splits, seeds, checkpoint=checkpoint, **options),
                    strict=True,
                )
            )
            for key in table.missing(key for key in keys if key[0] == dropout):
                model, history = models[key[1]]
                untrained = untrained_model(key[1], dropout=dropout)
                by_name = dict(
                    zip(MODELS, (model, untrained, shuffled_like(model, key[1])), strict=True)
                )
                for each in by_name.values():
                    each.eval()
                run = dict(zip(KEY, key, strict=True))
                run |= {"arrived": history.reached, "validation": history.scores[-1]}
                rows = [
                    branch_table(branch_values(each, splits.test)).assign(model=name, **run)
                    for name, each in by_name.items()
                ]
                table.append(pandas.concat(rows))
    return table.of(keys)


def claims(table: Any, *, dropout: float = 0.0) -> list[Claim]:
    """State what Fig. 2 claims over the seeds that arrived, beside them untrained and shuffled.

    Args:
        table: of ``grid``.
        dropout: the rate of the models to look at.
    """
    own = table[(table["dropout"] == dropout) & table["arrived"] & (table["kind"] != ALL)]
    own = own[own["granularity"] == "op"]
    cells = own.pivot(index=["model", "seed"], columns=["kind", "branch"], values="mean")

    def share(cell: tuple[str, str], others: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
        """Of a branch value and the largest of others, its share less one half, by model."""
        value, largest = cells[cell], cells[list(others)].max(axis=1)
        found = (value / (value + largest)).fillna(0.5) - 0.5
        return {name: found.loc[name].to_numpy() for name in MODELS}

    def claim(statement: str, measure: str, paper: str, found: dict[str, np.ndarray]) -> Claim:
        return Claim("Fig. 2", statement, measure, paper, *(found[name] for name in MODELS))

    def published(cell: tuple[str, str], *others: tuple[str, str]) -> str:
        rival = max(PAPER[other] for other in others)
        return f"{PAPER[cell] / (PAPER[cell] + rival) - 0.5:.2f}"

    key, query = ("repeat", "key"), ("first", "query")
    others = [cell for cell in cells.columns if cell != key]
    return [
        claim(
            "The repeated token's keys carry more than those of any other token.",
            "repeat keys / (repeat keys + largest other keys) − ½",
            published(key, ("first", "key"), ("other", "key")),
            share(key, [("first", "key"), ("other", "key")]),
        ),
        claim(
            "The repeated token's keys carry more than any branch of any token.",
            "repeat keys / (repeat keys + largest other value) − ½",
            published(key, query),
            share(key, others),
        ),
        claim(
            "The first token's paths take its queries rather than its keys, values or skip.",
            "queries / (queries + largest other branch) − ½, first token",
            published(query, ("first", "key"), ("first", "skip")),
            share(query, [("first", name) for name in ("key", "value", "skip")]),
        ),
    ]


def with_maximum_in_softmax(model: Any) -> Any:
    """Copy a BERT with the softmax of the paper's code, for the same graph as there.

    No value changes, but paths lead through the maximum as well, see ``log_softmax``.
    """
    model = nnx.clone(model)
    for layer in model.bert.encoder.layer:
        layer.attention.self.softmax = _softmax
    return model


def _softmax(x: jax.Array) -> jax.Array:
    return jnp.exp(log_softmax(x))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the grid of Fig. 2 over seeds.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m semijax.experiments.first_token",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(10)])
    parser.add_argument("--epochs", type=int, default=100, help="at most, of each training")
    parser.add_argument("--sequences", type=int, default=10_000, help="of the data")
    options = parser.parse_args(argv)
    table = grid(options.seeds, options.out, sequences=options.sequences, epochs=options.epochs)
    for dropout in DROPOUTS:
        print(f"Dropout {dropout}:")
        print(claims_table(claims(table, dropout=dropout)).to_string(index=False))
    print(f"Written to {options.out / FILE}.")


if __name__ == "__main__":
    main()
