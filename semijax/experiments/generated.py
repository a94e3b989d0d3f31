"""A masked language model of a generated language, as files, for want of the real ones.

The folder it is saved to is a checkpoint in Hugging Face's format, and its sentences are written
like Linzen et al.'s: ``semijax.experiments.agreement`` reads both.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from semijax import zoo
from semijax.experiments.agreement import Batch, batches, encodable, margin

LENGTH = 36
"""The number of tokens that a model has positions for; the longest sentence has 35."""


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
    folder: str | os.PathLike[str],
    *,
    sentences: int = 10_000,
    layers: int = 4,
    width: int = 64,
    epochs: int = 15,
    seed: int = 0,
    progress: bool = True,
) -> tuple[zoo.BertForMaskedLM, zoo.History]:
    """Train a BERT to fill in masked verbs, and save it as a checkpoint with its tokenizer.

    It sees sentences of 0 to 4 nouns between subject and verb, of either number, and stops when it
    gets all of 500 other sentences with 1 attractor right, or after ``epochs``. Called again, it
    reads what it has written.

    Args:
        folder: where to save it.
        sentences: to train on.
        layers: of the BERT.
        width: of its hidden states.
        epochs: the largest number of epochs.
        seed: of the sentences, the weights and the batches.
        progress: show a progress bar.

    Returns:
        The model, and how the training went; the scores are accuracies on 1 attractor.
    """
    path = pathlib.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    grammar = zoo.Grammar()
    drawn = grammar.sample(sentences, attractors=range(5), intervening=range(5), seed=seed)
    data = encoded_batch(drawn, grammar)
    validation = encoded_batch(grammar.sample(500, attractors=1, seed=seed + 1), grammar)
    model = zoo.BertForMaskedLM(config(grammar, layers=layers, width=width), rngs=nnx.Rngs(seed))
    history = zoo.train(
        model,
        masked_verb_loss,
        data,
        epochs=epochs,
        batch_size=64,
        seed=seed,
        evaluate=lambda model: accuracy(model, validation),
        until=1.0,
        checkpoint=path / "training.msgpack",
        progress=progress,
    )
    zoo.save_checkpoint(model, path)
    grammar.tokenizer().save(str(path / "tokenizer.json"))
    return model, history


def encoded_batch(sentences: Sequence[zoo.AgreementSentence], grammar: zoo.Grammar) -> Batch:
    """Encode sentences of the language as one batch."""
    _, encoded, _ = encodable(sentences, grammar.tokenizer())
    (batch,) = batches(encoded, len(encoded), buckets=[LENGTH])
    return batch


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
