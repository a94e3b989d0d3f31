"""A trainer of small Flax NNX models: Adam, a progress bar, seeds, resumable checkpoints."""

import dataclasses
import hashlib
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, serialization
from tqdm import tqdm

from semijax.study.means import write_whole
from semijax.zoo.tasks import Dataset

FORMAT = 2  # of a checkpoint; counted up when its layout changes


@dataclasses.dataclass(frozen=True)
class History:
    """The course of a training.

    Attributes:
        losses: each epoch's mean loss.
        scores: what ``evaluate`` returned after each epoch; empty without one.
        reached: whether the last score reached ``until``.
    """

    losses: tuple[float, ...]
    scores: tuple[float, ...]
    reached: bool


def train(
    model: nnx.Module,
    loss: Callable[[Any, Any], jax.Array],
    data: Any,
    *,
    epochs: int,
    batch_size: int = 32,
    optimizer: optax.GradientTransformation | None = None,
    seed: int = 0,
    evaluate: Callable[[Any], Any] | None = None,
    until: float = math.inf,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> History:
    """Train a model in place, until a score is reached or ``epochs`` have passed.

    With a ``checkpoint``, a training may be killed at any moment and called again with the same
    arguments: it goes on after the last epoch it has written down, and ends with the parameters of
    one that was never killed. A finished one only reads them.

    Args:
        model: a Flax NNX model. It is left in evaluation mode, as ``model.eval()`` sets.
        loss: a function of a model and a batch that returns a real scalar; the model is in
            training mode. It may change the model's state, such as dropout's keys, but not its
            structure.
        data: a pytree of arrays ``[n, ...]``. An epoch reads them in a fresh random order, in
            batches ``[batch_size, ...]``, and leaves out what doesn't fill one.
        epochs: the largest number of passes over the data.
        batch_size: examples per step.
        optimizer: of Optax; by default Adam with a step size of 1e-3.
        seed: of the order of the batches. The parameters' is the model's own.
        evaluate: a function of the model, in evaluation mode, that returns a real scalar after each
            epoch, such as a validation accuracy. It is compiled.
        until: the score at which the training stops.
        checkpoint: the path of a file to write the state to after each epoch, and to resume from if
            it exists; missing folders are made.
        progress: show a progress bar.

    Raises:
        ValueError: if there isn't one full batch or one epoch, arrays differ in length, or the
            checkpoint is of another training.
        FloatingPointError: if an epoch's mean loss is not finite.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from flax import nnx
        >>> from semijax import zoo
        >>> model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
        >>> x = jnp.linspace(-1, 1, 64)[:, None]
        >>> def loss(model, batch):
        ...     x, y = batch
        ...     return jnp.mean((model(x) - y) ** 2)
        >>> history = zoo.train(
        ...     model, loss, (x, 3 * x), epochs=40, optimizer=optax.adam(0.1), progress=False
        ... )
        >>> bool(jnp.allclose(model(x), 3 * x, atol=0.1)), len(history.losses)
        (True, 40)
    """
    data = jax.tree.map(jnp.asarray, data)
    lengths = {len(leaf) for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1:
        raise ValueError(f"The arrays of the data differ in length: {sorted(lengths)}.")
    (n,) = lengths
    steps = n // batch_size
    if steps == 0 or epochs < 1:
        raise ValueError(
            "Training needs at least one epoch and one full batch. Got "
            f"epochs={epochs}, batch_size={batch_size} and {n} examples."
        )
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer
    structure, params, rest = nnx.split(model, nnx.Param, ...)

    def objective(params: Any, rest: Any, batch: Any) -> tuple[jax.Array, Any]:
        copy = nnx.merge(structure, params, rest, copy=True)
        copy.train()
        value = loss(copy, batch)
        return value, nnx.split(copy, nnx.Param, ...)[2]

    def step(state: Any, chosen: jax.Array) -> tuple[Any, jax.Array]:
        params, rest, moments = state
        batch = jax.tree.map(lambda leaf: leaf[chosen], data)
        (value, rest), grads = jax.value_and_grad(objective, has_aux=True)(params, rest, batch)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), rest, moments), value

    @jax.jit
    def epoch(state: Any, key: jax.Array) -> tuple[Any, jax.Array, Any]:
        order = jax.random.permutation(key, n)[: steps * batch_size]
        state, values = jax.lax.scan(step, state, order.reshape(steps, batch_size))
        return state, values.mean(), score(state)

    def score(state: Any) -> Any:
        if evaluate is None:
            return None
        copy = nnx.merge(structure, *state[:2], copy=True)
        copy.eval()
        return evaluate(copy)

    run = _Run((params, rest, optimizer.init(params)))
    file = None
    if checkpoint is not None:
        settings = {"batch_size": batch_size, "seed": seed}
        file = _Checkpoint(pathlib.Path(checkpoint), settings, run.state, data)
        run = file.read(run)
        if len(run.losses) > epochs:
            raise ValueError(
                f"The checkpoint {checkpoint} is of {len(run.losses)} epochs already, got "
                f"epochs={epochs}."
            )
    key = jax.random.key(seed)
    with tqdm(total=epochs, desc="training", unit="epoch", disable=not progress) as bar:
        bar.update(len(run.losses))
        while len(run.losses) < epochs and not run.reached(until):
            state, value, scored = epoch(run.state, jax.random.fold_in(key, len(run.losses)))
            scores = () if scored is None else (float(scored),)
            run = _Run(state, (*run.losses, float(value)), (*run.scores, *scores))
            if not math.isfinite(run.losses[-1]):
                raise FloatingPointError(
                    f"The mean loss of epoch {len(run.losses)} is {run.losses[-1]}. A smaller step "
                    "size may help, or jax.debug_nans(True) to see where it comes from."
                )
            if file is not None:
                file.write(run)
            bar.set_postfix({"loss": run.losses[-1]} | ({"score": scores[0]} if scores else {}))
            bar.update()
    nnx.update(model, *run.state[:2])
    model.eval()
    return History(run.losses, run.scores, run.reached(until))


def cross_entropy(model: Any, data: Dataset) -> jax.Array:
    """Compute the mean cross-entropy of a classifier's labels, in nats: a loss for `train`."""
    logits = model(data.tokens)
    return optax.softmax_cross_entropy_with_integer_labels(logits, data.labels).mean()


def accuracy(model: Any, data: Dataset) -> jax.Array:
    """Return the fraction of labels that have the largest logit."""
    return jnp.mean(jnp.argmax(model(data.tokens), axis=-1) == data.labels)


@dataclasses.dataclass(frozen=True)
class _Run:
    """The state of a training after some epochs."""

    state: Any  # parameters, other variables, the optimizer's
    losses: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()

    def reached(self, until: float) -> bool:
        return bool(self.scores) and self.scores[-1] >= until


class _Checkpoint:
    """The file that a training is written to, whole or not at all."""

    def __init__(self, path: pathlib.Path, settings: dict[str, Any], state: Any, data: Any) -> None:
        self._path = path
        self._leaves, self._tree = jax.tree.flatten(state)
        digest = hashlib.blake2b(digest_size=16)
        for leaf in (*map(_as_numpy, self._leaves), *map(np.asarray, jax.tree.leaves(data))):
            digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
        # Of the model as it was given and of the data: a checkpoint of others does not fit.
        self._settings = settings | {"format": FORMAT, "start": digest.hexdigest()}

    def read(self, start: _Run) -> _Run:
        """Return the run as far as it was written; ``start`` if it never was."""
        if not self._path.exists():
            return start
        try:
            content = serialization.msgpack_restore(self._path.read_bytes())
            settings, leaves = content["settings"], content["leaves"]
            run = dict(losses=tuple(content["losses"]), scores=tuple(content["scores"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._path} is not a checkpoint of a training.") from error
        if settings != self._settings:
            raise ValueError(
                f"The checkpoint {self._path} is of another training: of another model, other data "
                f"or other settings ({settings} instead of {self._settings}). Remove it, or give "
                "another path."
            )
        restored = [_like(old, leaf) for old, leaf in zip(self._leaves, leaves, strict=True)]
        return _Run(jax.tree.unflatten(self._tree, restored), **run)

    def write(self, run: _Run) -> None:
        content = {
            "settings": self._settings,
            "losses": list(run.losses),
            "scores": list(run.scores),
            "leaves": [_as_numpy(leaf) for leaf in jax.tree.leaves(run.state)],
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, serialization.msgpack_serialize(content))


def _as_numpy(leaf: Any) -> np.ndarray:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _like(old: Any, leaf: np.ndarray) -> jax.Array:
    """Restore an array, or random keys, from what was written."""
    if jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(leaf), impl=jax.random.key_impl(old))
    return jnp.asarray(leaf)
