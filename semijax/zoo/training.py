"""A trainer of small Flax NNX models: Adam, a progress bar, seeds, resumable checkpoints."""

import dataclasses
import hashlib
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, serialization
from tqdm import tqdm

from semijax.study.means import write_whole
from semijax.zoo.tasks import Dataset

FORMAT = 3  # of a checkpoint; counted up when its layout changes


@dataclasses.dataclass(frozen=True)
class History:
    """The course of a training.

    Attributes:
        losses: each epoch's mean loss.
        scores: what ``evaluate`` returned after each epoch; empty without one.
        reached: whether the last score reached ``until``.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from semijax import zoo
        >>> class Constant(nnx.Module):  # the same number for all examples, to be learnt
        ...     def __init__(self):
        ...         self.logit = nnx.Param(jnp.zeros(()))
        ...     def __call__(self, tokens):
        ...         return jnp.zeros((len(tokens), 2)).at[:, 1].set(self.logit[...])
        >>> data = zoo.Contains1(length=3, vocabulary=9).sample(8)
        >>> history = zoo.train(
        ...     Constant(), zoo.cross_entropy, data, epochs=2, batch_size=4, progress=False
        ... )
        >>> len(history.losses), history.scores, history.reached
        (2, (), False)
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
    (history,) = train_ensemble(
        [model],
        loss,
        [data],
        seeds=[seed],
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        evaluate=evaluate,
        until=until,
        checkpoint=checkpoint,
        progress=progress,
    )
    return history


def train_ensemble(
    models: Sequence[nnx.Module],
    loss: Callable[[Any, Any], jax.Array],
    data: Sequence[Any],
    *,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int = 32,
    optimizer: optax.GradientTransformation | None = None,
    evaluate: Callable[[Any], Any] | None = None,
    until: float = math.inf,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> list[History]:
    """Train models that differ in their numbers only, side by side in one program, by ``vmap``.

    Each member ends as `train` would have left it, up to rounding: it stops at its own score, in
    its own epoch, while the others go on. Small models leave a processor idle, so ten of them take
    much less than ten times as long as one.

    Args:
        models: the members, trained in place: NNX models of one structure.
        loss: as for `train`.
        data: a pytree of arrays ``[n, ...]`` for each member, with the same shapes.
        seeds: of the order of each member's batches.
        epochs: as for `train`, and so are all further arguments.
        batch_size: examples per step and member.
        optimizer: of Optax; each member has a state of its own.
        evaluate: as for `train`.
        until: the score at which a member stops.
        checkpoint: one file for all members.
        progress: show a progress bar.

    Returns:
        The members' histories.

    Raises:
        ValueError: as for `train`; also if there are no models, if they differ in structure, or if
            there are more or fewer data or seeds than models.
        FloatingPointError: if a member's mean loss of an epoch is not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from semijax import zoo
        >>> models = [nnx.Linear(1, 1, rngs=nnx.Rngs(seed)) for seed in (0, 1)]
        >>> x = jnp.linspace(-1, 1, 64)[:, None]
        >>> def loss(model, batch):
        ...     x, y = batch
        ...     return jnp.mean((model(x) - y) ** 2)
        >>> data = [(x, 3 * x), (x, 5 * x)]
        >>> histories = zoo.train_ensemble(
        ...     models, loss, data, seeds=[0, 1], epochs=3, progress=False
        ... )
        >>> [len(history.losses) for history in histories]
        [3, 3]
    """
    if not models or not len(models) == len(data) == len(seeds):
        raise ValueError(
            "An ensemble needs at least one model, and data and a seed for each. Got "
            f"{len(models)} models, {len(data)} data sets and {len(seeds)} seeds."
        )
    members = [jax.tree.map(jnp.asarray, own) for own in data]
    lengths = {len(leaf) for leaf in jax.tree.leaves(members)}
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
    structures, *variables = zip(
        *(nnx.split(model, nnx.Param, ...) for model in models), strict=True
    )
    structure = structures[0]
    if any(other != structure for other in structures):
        raise ValueError("The models of an ensemble must differ in their arrays only.")
    params, rest = map(_stacked, variables)
    examples = _stacked(members)

    def objective(params: Any, rest: Any, batch: Any) -> tuple[jax.Array, Any]:
        copy = nnx.merge(structure, params, rest, copy=True)
        copy.train()
        value = loss(copy, batch)
        return value, nnx.split(copy, nnx.Param, ...)[2]

    def epoch(state: Any, key: jax.Array, examples: Any, active: jax.Array) -> Any:
        def step(state: Any, chosen: jax.Array) -> tuple[Any, jax.Array]:
            params, rest, moments = state
            batch = jax.tree.map(lambda leaf: leaf[chosen], examples)
            (value, rest), grads = jax.value_and_grad(objective, has_aux=True)(params, rest, batch)
            updates, moments = optimizer.update(grads, moments, params)
            return (optax.apply_updates(params, updates), rest, moments), value

        order = jax.random.permutation(key, n)[: steps * batch_size]
        trained, values = jax.lax.scan(step, state, order.reshape(steps, batch_size))
        state = jax.tree.map(lambda new, old: jnp.where(active, new, old), trained, state)
        return state, values.mean(), score(state)

    def score(state: Any) -> Any:
        if evaluate is None:
            return None
        copy = nnx.merge(structure, *state[:2], copy=True)
        copy.eval()
        return evaluate(copy)

    next_epoch = jax.jit(jax.vmap(epoch))
    start = (params, rest, jax.vmap(optimizer.init)(params))
    run = _Run(start, tuple(_Course() for _ in models))
    file = None
    if checkpoint is not None:
        settings = {"batch_size": batch_size, "seeds": [*map(int, seeds)]}
        file = _Checkpoint(pathlib.Path(checkpoint), settings, run.state, examples)
        run = file.read(run)
        if run.epochs > epochs:
            raise ValueError(
                f"The checkpoint {checkpoint} is of {run.epochs} epochs already, got "
                f"epochs={epochs}."
            )
    keys = [jax.random.key(seed) for seed in seeds]
    with tqdm(total=epochs, desc="training", unit="epoch", disable=not progress) as bar:
        bar.update(run.epochs)
        while run.epochs < epochs and any(run.active(until)):
            active = run.active(until)
            state, values, scores = next_epoch(
                run.state,
                jnp.stack([jax.random.fold_in(key, run.epochs) for key in keys]),
                examples,
                np.array(active),
            )
            run = run.after(state, active, values, scores)
            _check_finite(run.members)
            if file is not None:
                file.write(run)
            bar.set_postfix(run.postfix())
            bar.update()
    for number, model in enumerate(models):
        nnx.update(model, *jax.tree.map(lambda leaf: leaf[number], run.state[:2]))  # noqa: B023
        model.eval()
    return [History(member.losses, member.scores, member.reached(until)) for member in run.members]


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def cross_entropy(model: Any, data: Dataset) -> jax.Array:
    """Compute the mean cross-entropy of a classifier's labels, in nats: a loss for `train`.

    Example:
        >>> import jax.numpy as jnp
        >>> from semijax import zoo
        >>> data = zoo.Dataset(jnp.zeros((4, 3), int), jnp.array([0, 1, 1, 1]))
        >>> undecided = lambda tokens: jnp.zeros((len(tokens), 2))
        >>> print(zoo.cross_entropy(undecided, data).round(3))  # log 2
        0.693
    """
    logits = model(data.tokens)
    return optax.softmax_cross_entropy_with_integer_labels(logits, data.labels).mean()


def accuracy(model: Any, data: Dataset) -> jax.Array:
    """Return the fraction of labels that have the largest logit.

    Example:
        >>> import jax.numpy as jnp
        >>> from semijax import zoo
        >>> data = zoo.Dataset(jnp.zeros((4, 3), int), jnp.array([0, 1, 1, 1]))
        >>> always_1 = lambda tokens: jnp.tile(jnp.array([0.0, 1.0]), (len(tokens), 1))
        >>> print(zoo.accuracy(always_1, data))
        0.75
    """
    return jnp.mean(jnp.argmax(model(data.tokens), axis=-1) == data.labels)


@dataclasses.dataclass(frozen=True)
class _Course:
    """What a member's epochs have come to."""

    losses: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()

    def reached(self, until: float) -> bool:
        return bool(self.scores) and self.scores[-1] >= until


@dataclasses.dataclass(frozen=True)
class _Run:
    """The state of a training after some epochs."""

    state: Any  # parameters, other variables, the optimizer's: arrays [members, ...]
    members: tuple[_Course, ...]

    @property
    def epochs(self) -> int:
        return max(len(member.losses) for member in self.members)

    def active(self, until: float) -> list[bool]:
        return [not member.reached(until) for member in self.members]

    def after(self, state: Any, active: list[bool], losses: Any, scores: Any) -> "_Run":
        """Return the run after an epoch of the active members."""
        scores = [()] * len(active) if scores is None else [(float(score),) for score in scores]
        members = (
            _Course((*old.losses, float(loss)), (*old.scores, *score)) if trained else old
            for old, trained, loss, score in zip(self.members, active, losses, scores, strict=True)
        )
        return _Run(state, tuple(members))

    def postfix(self) -> dict[str, float]:
        """Return the means over the members, for a progress bar."""
        last = {"loss": [member.losses[-1] for member in self.members]}
        last["score"] = [score for member in self.members for score in member.scores[-1:]]
        return {name: float(np.mean(own)) for name, own in last.items() if own}


def _check_finite(members: Sequence[_Course]) -> None:
    for member in members:
        if not math.isfinite(member.losses[-1]):
            raise FloatingPointError(
                f"The mean loss of epoch {len(member.losses)} is {member.losses[-1]}. A smaller "
                "step size may help, or jax.debug_nans(True) to see where it comes from."
            )


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
            courses = [*zip(content["losses"], content["scores"], strict=True)]
            members = tuple(_Course(tuple(losses), tuple(scores)) for losses, scores in courses)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._path} is not a checkpoint of a training.") from error
        if settings != self._settings:
            raise ValueError(
                f"The checkpoint {self._path} is of another training: of another model, other data "
                f"or other settings ({settings} instead of {self._settings}). Remove it, or give "
                "another path."
            )
        restored = [_like(old, leaf) for old, leaf in zip(self._leaves, leaves, strict=True)]
        return _Run(jax.tree.unflatten(self._tree, restored), members)

    def write(self, run: _Run) -> None:
        content = {
            "settings": self._settings,
            "losses": [list(member.losses) for member in run.members],
            "scores": [list(member.scores) for member in run.members],
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
