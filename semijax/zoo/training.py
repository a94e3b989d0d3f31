"""Trains the zoo's classifiers, and keeps them in a file."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import serialization
from tqdm import tqdm

from semijax.zoo.tasks import Dataset
from semijax.zoo.transformer import SequenceClassifier

FORMAT = 1  # of the saved file; counted up when its layout changes


@dataclasses.dataclass(frozen=True)
class Trained:
    """A classifier, its parameters, and how the training went.

    Attributes:
        model: the architecture.
        params: the parameters, as in ``model.apply({"params": params}, tokens)``.
        seed: of the initialisation and of the order of the batches.
        losses: each epoch's mean training loss, in nats.
        accuracies: the validation accuracy after each epoch, from 0 to 1.
    """

    model: SequenceClassifier
    params: Any
    seed: int
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]


def train(
    model: SequenceClassifier,
    training: Dataset,
    validation: Dataset,
    *,
    seed: int = 0,
    epochs: int = 42,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    progress: bool = True,
) -> Trained:
    """Trains with Adam until every validation example is right, or until ``epochs`` have passed.

    Args:
        model: the architecture.
        training: tokens ``[n, length]`` and labels ``[n]``. An epoch reads them in a fresh random
            order and leaves out what doesn't fill a batch.
        validation: what the accuracy after each epoch is measured on.
        seed: of the initialisation and of the order of the batches.
        epochs: at most so many passes over the training data.
        batch_size: examples per step, at most ``n``.
        learning_rate: Adam's step size.
        progress: show a progress bar on standard error.

    Raises:
        ValueError: if there isn't one full batch, one validation example or one epoch.
    """
    n = len(training.labels)
    steps = n // batch_size
    if steps == 0 or epochs < 1 or len(validation.labels) == 0:
        raise ValueError(
            "Training needs at least one epoch, one full batch and one validation example. Got "
            f"epochs={epochs}, batch_size={batch_size}, {n} training examples and "
            f"{len(validation.labels)} validation examples."
        )
    optimizer = optax.adam(learning_rate)
    tokens, labels = jnp.asarray(training.tokens), jnp.asarray(training.labels)

    def loss(params, batch):
        logits = predict(model, params, tokens[batch])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()

    def step(state, batch):
        params, moments = state
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    @jax.jit
    def epoch(state, key):
        order = jax.random.permutation(key, n)[: steps * batch_size]
        state, values = jax.lax.scan(step, state, order.reshape(steps, batch_size))
        return state, values.mean(), mistakes(model, state[0], validation)

    init_key, order_key = jax.random.split(jax.random.key(seed))
    params = model.init(init_key, tokens[:1])["params"]
    state = params, optimizer.init(params)
    losses, accuracies = [], []
    with tqdm(total=epochs, desc="training", unit="epoch", disable=not progress) as bar:
        for key in jax.random.split(order_key, epochs):
            state, value, wrong = epoch(state, key)
            losses.append(float(value))
            accuracies.append(1 - int(wrong) / len(validation.labels))
            bar.set_postfix(loss=f"{losses[-1]:.4f}", validation=f"{accuracies[-1]:.2%}")
            bar.update()
            if wrong == 0:
                break
    return Trained(model, state[0], seed, tuple(losses), tuple(accuracies))


def predict(model: SequenceClassifier, params: Any, tokens: jax.typing.ArrayLike) -> jax.Array:
    """Maps tokens, int ``[..., length]``, to logits, float ``[..., classes]``."""
    return cast(jax.Array, model.apply({"params": params}, tokens))


def mistakes(model: SequenceClassifier, params: Any, data: Dataset) -> jax.Array:
    """Counts the examples whose label doesn't have the largest logit, an int32 scalar."""
    logits = predict(model, params, data.tokens)
    return jnp.sum(jnp.argmax(logits, axis=-1) != data.labels, dtype=jnp.int32)


def save(trained: Trained, path: Path) -> None:
    """Writes a trained classifier to a MessagePack file (Flax's own), architecture included.

    Args:
        trained: what `train` returned.
        path: the file; missing folders are made, and an older file is replaced in one go.
    """
    hyperparameters = {field.name for field in dataclasses.fields(trained.model)}
    hyperparameters -= {"parent", "name"}  # Flax's own
    content = {
        "format": FORMAT,
        "model": {name: getattr(trained.model, name) for name in sorted(hyperparameters)},
        "params": jax.device_get(trained.params),
        "seed": trained.seed,
        "losses": list(trained.losses),
        "accuracies": list(trained.accuracies),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(serialization.msgpack_serialize(content))
    unfinished.replace(path)


def load(path: Path) -> Trained:
    """Reads what `save` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds something else, or another version's format.
    """
    content = serialization.msgpack_restore(path.read_bytes())
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise ValueError(f"{path} doesn't hold a classifier saved in format {FORMAT}.")
    return Trained(
        model=SequenceClassifier(**content["model"]),
        params=jax.tree.map(jnp.asarray, content["params"]),
        seed=content["seed"],
        losses=tuple(content["losses"]),
        accuracies=tuple(content["accuracies"]),
    )
