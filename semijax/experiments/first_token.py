"""Fig. 2: a test whether a transformer finds a repeated token through its keys and queries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import semijax as sj
from semijax import zoo
from semijax.experiments.branches import GRANULARITIES, branch_study
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


def untrained_model(seed: int = 0) -> zoo.BertForSequenceClassification:
    """Make the paper's classifier of one layer and width 16, with random weights."""
    return zoo.BertForSequenceClassification(CONFIG, rngs=nnx.Rngs(seed))


def trained_model(
    splits: zoo.Splits,
    seed: int = 0,
    *,
    epochs: int = 100,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> tuple[zoo.BertForSequenceClassification, zoo.History]:
    """Train the classifier until all validation examples are right, or ``epochs`` have passed.

    Not every seed gets there: some stay where the loss has a plateau, at 62% of the examples.

    Args:
        splits: the data.
        seed: of the weights and of the order of the batches.
        epochs: the largest number of epochs.
        checkpoint: where to keep the training, as for ``zoo.train``.
        progress: show a progress bar.

    Returns:
        The model, and how the training went; the scores are validation accuracies.
    """
    model = untrained_model(seed)
    history = zoo.train(
        model,
        zoo.cross_entropy,
        splits.train,
        epochs=epochs,
        seed=seed,
        evaluate=lambda model: zoo.accuracy(model, splits.validation),
        until=1.0,
        checkpoint=checkpoint,
        progress=progress,
    )
    return model, history


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
