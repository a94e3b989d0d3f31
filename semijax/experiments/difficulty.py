"""A test whether a harder task's gradient is more spread out: entropy against a code's length.

Figure 5 of Du et al. (2023). ``python -m semijax.experiments.difficulty --out FOLDER`` runs all of
it, which takes hours; killed and started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import itertools
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

import semijax as sj
from semijax import checks, zoo
from semijax.experiments.claims import Claim
from semijax.experiments.results import ResultTable

FILE = "difficulty.csv"
"""The name of the table in a grid's folder."""

KEY = ("task", "seed", "examples", "epochs")
"""The columns that tell its rows apart."""

BATCH_SIZE = 32

# The released code's AdamW is that of transformers, whose default is no weight decay.
OPTIMIZER = optax.adamw(1e-3, eps=1e-6, weight_decay=0.0)


@dataclasses.dataclass(frozen=True)
class Row:
    """The results for one task and seed.

    Entropies are those of `token_entropies`, in nats, summed over the positions and averaged over
    the validation examples.

    Attributes:
        task: its name.
        seed: of the data, of the parameters and of the order of the batches.
        examples: how many there are to train on.
        epochs: of each training.
        accuracy: of the model trained on all examples, on the validation examples, from 0 to 1.
        entropy: of that model.
        entropy_stderr: its standard error.
        untrained_entropy: of the same model before it was trained.
        untrained_stderr: its standard error.
        pooled_entropy: of the trained model, over 4 examples together, as published.
        code: what it takes to send the labels of the training examples.
    """

    task: str
    seed: int
    examples: int
    epochs: int
    accuracy: float
    entropy: float
    entropy_stderr: float
    untrained_entropy: float
    untrained_stderr: float
    pooled_entropy: float
    code: zoo.CodeLength

    def record(self) -> dict[str, Any]:
        """Return the row of the table.

        In place of the code, it has its ``bits``, ``uniform_bits`` and ``published`` (which is in
        nats), its ``classes``, and the ``sizes`` and ``losses`` of its blocks, separated by spaces.
        """
        code = self.code
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[:-1]}
        lengths = {name: getattr(code, name) for name in ("bits", "uniform_bits", "published")}
        sizes, losses = (" ".join(map(repr, numbers)) for numbers in (code.sizes, code.losses))
        return row | lengths | {"classes": code.classes, "sizes": sizes, "losses": losses}


def run(
    task: zoo.Task,
    seed: int,
    *,
    examples: int = 3600,
    epochs: int = 50,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Row:
    """Send a task's labels in the online code, and examine the model trained on all of them.

    Each of the 14 models is a BERT of 2 layers and width 64. It has as many labels as a sequence
    has tokens, however many classes the task has, so that the models of all tasks have the same
    graph.

    Args:
        task: from which to draw the training examples, and a tenth as many to validate on.
        seed: of the data, of the parameters and of the order of the batches.
        examples: how many to train on, at least 21.
        epochs: of each training.
        folder: where to keep the models, each under the number of examples that it was trained on.
            A model that is there is not trained again; it must be of the same run.
        progress: show a progress bar.

    Raises:
        ValueError: if there are too few examples or epochs.
    """
    sizes = zoo.paper_blocks(examples)
    checks.check_positive("epochs", epochs)
    data = task.sample(examples + examples // 10, seed=seed)
    training, validation = (
        zoo.Dataset(data.tokens[part], data.labels[part])
        for part in (slice(examples), slice(examples, None))
    )
    training = zoo.interleave(training)
    steps = sum(_steps(n) for n in itertools.accumulate(sizes))
    title = f"{task.name}, seed {seed}"
    with tqdm(total=epochs * steps, desc=title, unit="step", disable=not progress) as bar:

        def fit(data: zoo.Dataset) -> Callable[[np.ndarray], np.ndarray]:
            model = _trained(task, seed, data, epochs, folder, bar.update)
            return lambda tokens: logits(model, tokens)

        code = zoo.online_code_length(fit, training, classes=task.length)
        model = _trained(task, seed, training, epochs, folder, bar.update)
        accuracy = np.mean(logits(model, validation.tokens).argmax(-1) == validation.labels)
        entropies, untrained = (
            np.asarray(token_entropies(each, validation), np.float64).sum(-1)
            for each in (model, _untrained(task, seed))
        )
        pooled = token_entropies(model, validation, together=4).sum(-1).mean()
        row = Row(
            task.name,
            seed,
            examples,
            epochs,
            float(accuracy),
            *_mean_and_error(entropies),
            *_mean_and_error(untrained),
            float(pooled),
            code,
        )
        bar.set_postfix(accuracy=row.accuracy, entropy=row.entropy, bits=code.bits)
    return row


def grid(
    tasks: Iterable[zoo.Task],
    seeds: Iterable[int],
    out: str | os.PathLike[str],
    *,
    examples: int = 3600,
    epochs: int = 50,
    progress: bool = True,
) -> Any:
    """Run all tasks with all seeds, except for those that are in the table already.

    Each row is written to the table as soon as it is known. A run that was killed goes on with the
    training it was at. Several processes may share a folder, if they don't share runs.

    Args:
        tasks: the tasks.
        seeds: the seeds; the next one comes after all tasks.
        out: the folder of the table, ``difficulty.csv``, and of the models that were trained on all
            examples, in ``models``.
        examples: as for `run`.
        epochs: as for `run`.
        progress: as for `run`.

    Returns:
        The rows of these tasks, seeds, examples and epochs, as `read` returns them.
    """
    out = pathlib.Path(out)
    by_name = {task.name: task for task in tasks}
    keys = [(name, seed, examples, epochs) for seed in seeds for name in by_name]
    table = ResultTable(out / FILE, KEY)
    for key in table.missing(keys):
        name, seed, *_ = key
        folder = out / "models" / "-".join(map(str, key))
        options = {"examples": examples, "epochs": epochs, "progress": progress}
        table.append([run(by_name[name], seed, folder=folder, **options).record()])
        for kept in folder.iterdir():
            if kept.name != str(examples):
                shutil.rmtree(kept)
    return table.of(keys)


def read(folder: str | os.PathLike[str]) -> Any:
    """Read the table of a grid, as a ``pandas.DataFrame``: the `Row.record` of each run."""
    return ResultTable(pathlib.Path(folder) / FILE, KEY).read()


def claims(table: Any) -> list[Claim]:
    """State what Fig. 5 claims of BinCountOnes over seeds, beside the same models before training.

    A quadratic has one parameter more than a line, and so always fits better. What counts is which
    of the two predicts a task that it was not fitted to.

    Args:
        table: of ``grid``. Runs below 90% accuracy are left out, as in the paper, and so are seeds
            with fewer than 5 tasks.

    Returns:
        No claim if no seed has enough tasks.
    """
    own = table[table["task"].str.startswith("BinCountOnes") & (table["accuracy"] >= 0.9)]
    seeds = [of_seed for _, of_seed in own.groupby("seed") if len(of_seed) >= 5]
    if not seeds:
        return []

    def gains(column: str) -> list[float]:
        return [
            math.log(held_out_error(x, y, 1) / held_out_error(x, y, 2))
            for x, y in ((one["published"].to_numpy(), one[column].to_numpy()) for one in seeds)
        ]

    return [
        Claim(
            "Fig. 5",
            "For BinCountOnes, entropy is a quadratic of difficulty rather than a line.",
            "log of the squared error of a line over that of a quadratic, at tasks left out",
            "a quadratic is drawn",
            gains("entropy"),
            gains("untrained_entropy"),
        )
    ]


def held_out_error(x: np.ndarray, y: np.ndarray, degree: int) -> float:
    """Return the mean squared error of a polynomial at each point, fitted to all others.

    Args:
        x: float ``[n]``, with n at least the degree plus 2.
        y: float ``[n]``.
        degree: of the polynomial.
    """
    x = (x - x.mean()) / x.std()  # the same polynomials, and fits that are well conditioned
    errors = []
    for n in range(len(x)):
        rest = np.arange(len(x)) != n
        errors.append(y[n] - np.polyval(np.polyfit(x[rest], y[rest], degree), x[n]))
    return float(np.mean(np.square(errors)))


def token_entropies(
    model: zoo.BertForSequenceClassification, data: zoo.Dataset, *, together: int = 1
) -> jax.Array:
    """Compute the entropy of the paths from each token's word embedding to the loss, in nats.

    The hidden units of an embedding are one node, and the loss is the cross-entropy, as in the
    released code of Du et al. (2023). Its entropies are not of one example, but of 4: the loss is
    their sum, and a position has the paths from *all* places of the 4 where its token is, as these
    share a row of the embedding.

    Args:
        model: the classifier.
        data: tokens ``[n, length]`` and labels ``[n]``.
        together: how many consecutive examples to take this way, instead of each by itself.

    Returns:
        float ``[n, length]``.
    """
    semiring = sj.Entropy()
    elements = _in_batches(_elements, model, data.tokens, data.labels)
    if together > 1:
        n, vocabulary = len(data.tokens), model.config.vocab_size
        rows = data.tokens + vocabulary * (np.arange(n) // together)[:, None]
        flat = jax.tree.map(jnp.ravel, elements)
        count = vocabulary * -(-n // together)
        pooled = semiring.segment_sum(flat, jnp.asarray(rows.ravel()), count)
        elements = jax.tree.map(lambda leaf: leaf[rows], pooled)
    return semiring.readout(elements)


def logits(model: zoo.BertForSequenceClassification, tokens: np.ndarray) -> np.ndarray:
    """Compute the model's logits ``[n, labels]`` for tokens ``[n, length]``, batch by batch."""
    return _in_batches(_logits, model, tokens)


def _in_batches(function: Callable[..., Any], model: Any, *arrays: np.ndarray) -> Any:
    """Apply a function of the model and a batch to n examples, compiled once for any n."""
    n = len(arrays[0])
    found = [function(model, *(array[at % n] for array in arrays)) for at in _batches(n)]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *found)


@nnx.jit
def _logits(model: zoo.BertForSequenceClassification, tokens: jax.Array) -> jax.Array:
    return model(tokens)


@nnx.jit
def _elements(
    model: zoo.BertForSequenceClassification, tokens: jax.Array, labels: jax.Array
) -> Any:
    """Return the elements of the entropy at each position of each example."""

    def of_one(tokens: Any, label: Any) -> Any:
        def loss(tokens: Any) -> jax.Array:
            return zoo.cross_entropy(model, zoo.Dataset(tokens, label))

        found = sj.site_grads(loss, sj.Entropy(), "*/word_embeddings", aggregate=-1)(tokens)
        (elements,) = found.elements.values()
        return elements

    with sj.scopes(model):
        return jax.vmap(of_one)(tokens, labels)


def _untrained(task: zoo.Task, seed: int) -> zoo.BertForSequenceClassification:
    config = zoo.BertConfig(
        vocab_size=task.vocabulary,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=task.length,
        num_labels=task.length,
    )
    return zoo.BertForSequenceClassification(config, rngs=nnx.Rngs(seed))


def _trained(
    task: zoo.Task,
    seed: int,
    data: zoo.Dataset,
    epochs: int,
    folder: str | os.PathLike[str] | None,
    tick: Callable[[int], Any],
) -> zoo.BertForSequenceClassification:
    """Return the model trained on some data: read from the folder, or else trained and written."""
    n = len(data.labels)
    if folder is not None:
        try:
            model = zoo.load_checkpoint(
                zoo.BertForSequenceClassification, pathlib.Path(folder) / str(n)
            )
        except FileNotFoundError:
            pass
        else:
            tick(epochs * _steps(n))
            return model
    model = _untrained(task, seed)
    _train(model, data, epochs, np.random.default_rng([seed, n]), tick)
    if folder is not None:
        zoo.save_checkpoint(model, pathlib.Path(folder) / str(n))
    return model


# Not `zoo.train`: it compiles for every data set, and leaves out what doesn't fill a batch. Here
# one program trains on all blocks of all tasks, and what doesn't fill a batch is a smaller one.
def _train(
    model: zoo.BertForSequenceClassification,
    data: zoo.Dataset,
    epochs: int,
    rng: np.random.Generator,
    tick: Callable[[int], Any],
) -> None:
    n = len(data.labels)
    structure, params, rest = nnx.split(model, nnx.Param, ...)
    state = params, OPTIMIZER.init(params)
    for _ in range(epochs):
        order = rng.permutation(n)
        for at in _batches(n):
            chosen = order[at % n]
            batch = zoo.Dataset(data.tokens[chosen], data.labels[chosen])
            state = _step(structure, state, rest, batch, np.float32(at < n))
        jax.block_until_ready(state)
        tick(_steps(n))
    nnx.update(model, state[0])


def _steps(n: int) -> int:
    """Count the batches in an epoch."""
    return -(-n // BATCH_SIZE)


def _batches(n: int) -> np.ndarray:
    """Return the places of n examples, int ``[steps, BATCH_SIZE]``; those from n on fill it up."""
    return np.arange(_steps(n) * BATCH_SIZE).reshape(-1, BATCH_SIZE)


@jax.jit(static_argnums=0)
def _step(structure: Any, state: Any, rest: Any, batch: zoo.Dataset, weights: jax.Array) -> Any:
    """Return the parameters and the optimizer's state after a batch's examples of weight 1."""
    params, moments = state

    def loss(params: Any) -> jax.Array:
        found = nnx.merge(structure, params, rest)(batch.tokens)
        losses = optax.softmax_cross_entropy_with_integer_labels(found, batch.labels)
        return weights @ losses / weights.sum()

    updates, moments = OPTIMIZER.update(jax.grad(loss)(params), moments, params)
    return optax.apply_updates(params, updates), moments


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the grid of Figure 5, or some of it.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    tasks = zoo.figure_5_tasks()
    names = [task.name for task in tasks]
    parser = argparse.ArgumentParser(
        prog="python -m semijax.experiments.difficulty",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"The tasks: {', '.join(names)}.",
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--tasks", nargs="+", default=["*"], metavar="GLOB", help="by their names")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=50, help="of each training")
    parser.add_argument("--examples", type=int, default=3600, help="to train on")
    options = parser.parse_args(argv)

    chosen = {glob: fnmatch.filter(names, glob) for glob in options.tasks}
    if unknown := [glob for glob, found in chosen.items() if not found]:
        parser.error(f"no task is called {unknown[0]!r}. The tasks: {', '.join(names)}.")
    try:
        zoo.paper_blocks(options.examples)
        checks.check_positive("epochs", options.epochs)
    except ValueError as error:
        parser.error(str(error))
    asked = [task for task in tasks if any(task.name in found for found in chosen.values())]
    table = grid(
        asked, options.seeds, options.out, examples=options.examples, epochs=options.epochs
    )
    print(
        table[["task", "seed", "accuracy", "entropy", "bits", "published"]].to_string(index=False)
    )
    print(f"Written to {options.out / FILE}.")


if __name__ == "__main__":
    main()
