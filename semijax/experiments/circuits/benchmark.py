"""All methods on one transformer, and the table over transformers and seeds."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from semijax.experiments.circuits import baselines, flows, handset, measures, patching, trained
from semijax.experiments.circuits.baselines import Scores
from semijax.experiments.circuits.model import Prompt, Weights, Wiring, read_sum, run
from semijax.experiments.circuits.tasks import LENGTH, Pair, Task

FILE = "circuits.csv"
"""The name of the table in a folder."""

KEY = ["model", "seed"]
"""The columns that tell transformers apart; each has a row for every method."""

PAIRS = 8
"""How many pairs of prompts the methods see."""

TEST_PAIRS = 32
"""How many other pairs effects and circuits are measured on."""

SHARE = 0.05
"""In a trained transformer, components are true that lose this part of the whole difference."""

EXACT = ("patching", "restoring")
"""The methods that measure: one by one, components are corrupted, or restored."""

RANDOM = "random"

OURS = " · "
"""What is in the name of a method of semijax: weighting · statistic."""

MEASURES = {
    "edge_auroc": 1,
    "edge_pearson": 1,
    "edge_spearman": 1,
    "node_auroc": 1,
    "node_pearson": 1,
    "node_spearman": 1,
    "cpr": 1,
    "cmd": -1,
}
"""The measures, and whether higher or lower is better."""


class Model(NamedTuple):
    """A transformer to be examined.

    Attributes:
        name: its name in the table.
        seed: its seed.
        task: the task.
        wiring: the transformer's.
        weights: the transformer's.
        truth: the writers and the edges that its mechanism needs, bool ``[W]`` and ``[W, R]``; if
            None they are those that exact patching finds.
    """

    name: str
    seed: int
    task: Task
    wiring: Wiring
    weights: Weights
    truth: tuple[np.ndarray, np.ndarray] | None


def handset_name(mechanism: handset.Mechanism, aligned: bool = False) -> str:
    """Return the name of the transformers of a mechanism."""
    return f"{mechanism.task.name}, by hand" + ", own axes" * aligned


def handset_model(mechanism: handset.Mechanism, seed: int, aligned: bool = False) -> Model:
    """Build a transformer with weights set by hand, see `handset.build`."""
    built = handset.build(mechanism, seed, aligned=aligned)
    name, truth = handset_name(mechanism, aligned), (built.writers, built.edges)
    return Model(name, seed, mechanism.task, handset.WIRING, built.weights, truth)


def trained_name(task: Task) -> str:
    """Return the name of the transformers that are trained on a task."""
    return f"{task.name}, trained"


def trained_models(
    task: Task, seeds: Sequence[int], folder: pathlib.Path, steps: int = trained.STEPS
) -> list[Model]:
    """Return a trained transformer for each seed: read from the folder, or trained and written."""
    paths = {seed: folder / f"{task.name}-{seed}-{steps}.npz" for seed in seeds}
    missing = [seed for seed, path in paths.items() if not path.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        weights = jax.tree.map(np.asarray, trained.train(task, missing, steps))
        for n, seed in enumerate(missing):
            own = jax.tree.map(lambda leaf, n=n: leaf[n], weights)
            np.savez(paths[seed], **own._asdict())
    models = []
    for seed, path in paths.items():
        with np.load(path) as arrays:
            weights = Weights(**{name: jnp.asarray(array) for name, array in arrays.items()})
        models.append(Model(trained_name(task), seed, task, trained.WIRING, weights, None))
    return models


def score(model: Model, pairs: Pair, rng: np.random.Generator) -> dict[str, Scores]:
    """Score the components of a transformer by every method, averaged over the pairs."""
    wiring, weights = model.wiring, model.weights
    found = {name: _baseline(wiring, name, weights, pairs) for name in baselines.METHODS}
    for frozen in (False, True):
        for weighting in flows.WEIGHTINGS:
            if weighting == "Relevance" and wiring.norm and not frozen:
                continue  # the scale of a norm is infinite at 0
            how = weighting + ", frozen" * frozen
            statistics = _flow(wiring, weighting, frozen, weights, pairs)
            found |= {how + OURS + name: own for name, own in statistics.items()}
    for name, effects in zip(EXACT, (patching.noising, patching.denoising), strict=True):
        edges, writers = effects(wiring, weights, pairs)
        square = jnp.zeros(wiring.edges.shape).at[np.nonzero(wiring.edges)].set(edges.mean(0))
        found[name] = Scores(square, writers.mean(0))
    found[RANDOM] = Scores(
        *(jnp.asarray(rng.random(n)) for n in (wiring.edges.shape, len(wiring.writers)))
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _baseline(wiring: Wiring, name: str, weights: Weights, pairs: Pair) -> Scores:
    method = baselines.METHODS[name]
    found = jax.lax.map(lambda pair: method(wiring, weights, pair), pairs)
    return jax.tree.map(lambda leaf: leaf.mean(0), found)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _flow(wiring: Wiring, weighting: str, frozen: bool, weights: Weights, pairs: Pair) -> Any:
    found = jax.lax.map(lambda pair: flows.scores(wiring, weights, pair, weighting, frozen), pairs)
    return jax.tree.map(lambda leaf: leaf.mean(0), found)


def examine(model: Model, pairs: int = PAIRS, test_pairs: int = TEST_PAIRS) -> list[dict[str, Any]]:
    """Compare every method with the truth of one transformer.

    Nodes are heads and MLPs; all edges count. AUROC is that of absolute scores, and so are the
    correlations, with absolute effects: of corrupting one component alone, on the test pairs.
    ``cpr`` and ``cmd`` are of circuits of edges, on the test pairs, see `measures.area_under`. All
    edges outside of a circuit carry the corrupted run's values, so that nothing is left to prune:
    a component without inputs writes what it wrote there.

    Args:
        model: the transformer.
        pairs: how many pairs of prompts the methods see.
        test_pairs: how many others effects and circuits are measured on.

    Returns:
        A row for each method.
    """
    wiring = model.wiring
    rng = np.random.default_rng([model.seed, *model.name.encode()])
    seen, test = model.task.pairs(rng, pairs), model.task.pairs(rng, test_pairs)
    preferences = functools.partial(_mean_preferences, wiring, model.weights, test)
    whole, empty = preferences(np.stack([wiring.edges, np.zeros_like(wiring.edges)]))
    effects = patching.noising(wiring, model.weights, test)
    edge_effects, effects_of_writers = (
        np.abs(np.asarray(effect, np.float64).mean(0)) for effect in effects
    )
    is_node = np.isin(wiring.writers, wiring.components)
    node_effects = effects_of_writers[is_node]
    if model.truth is None:
        true_edges, true_nodes = (
            effect >= SHARE * abs(whole - empty) for effect in (edge_effects, node_effects)
        )
    else:
        writers, edges = model.truth
        true_edges, true_nodes = edges[wiring.edges], writers[is_node]
    shared = {
        "model": model.name,
        "seed": model.seed,
        "accuracy": accuracy(model),
        "true_edges": int(true_edges.sum()),
        "edges": len(true_edges),
        "true_nodes": int(true_nodes.sum()),
        "nodes": len(true_nodes),
    }
    scores = score(model, seen, rng)
    rows = []
    for method, own in scores.items():
        edges, nodes = np.asarray(own.edges)[wiring.edges], np.asarray(own.writers)[is_node]
        row = shared | {"method": method}
        for kind, values, effect, truth in (
            ("edge", np.abs(edges), edge_effects, true_edges),
            ("node", np.abs(nodes), node_effects, true_nodes),
        ):
            row[f"{kind}_auroc"] = measures.auroc(values, truth)
            row[f"{kind}_pearson"] = measures.pearson(values, effect)
            row[f"{kind}_spearman"] = measures.spearman(values, effect)
        row |= dict.fromkeys(("cpr", "cmd"), np.nan)
        if not np.isnan(edges).any():
            chosen = [measures.largest(values, rng) for values in (edges, np.abs(edges))]
            circuits = np.zeros((2, len(measures.FRACTIONS), *wiring.edges.shape), bool)
            circuits[..., wiring.edges] = chosen
            found = preferences(circuits.reshape(-1, *wiring.edges.shape)).reshape(2, -1)
            faithful = (found - empty) / (whole - empty)
            row["cpr"] = measures.area_under(faithful[0])
            row["cmd"] = measures.distance_from_1(faithful[1])
        rows.append(row)
    return rows


def _mean_preferences(
    wiring: Wiring, weights: Weights, pairs: Pair, circuits: np.ndarray
) -> np.ndarray:
    """Compute the mean preference of some circuits ``[c, W, R]``: float ``[c]``."""
    found = patching.circuit_preferences(wiring, weights, pairs, jnp.asarray(circuits))
    return np.asarray(found, np.float64).mean(0)


def accuracy(model: Model, count: int = 1000) -> float:
    """Compute the fraction of prompts whose answer has the largest logit."""
    examples = model.task.sample(np.random.default_rng([model.seed, count]), count)
    found = _logits(model.wiring, model.weights, jnp.asarray(examples.tokens))
    return float((np.asarray(found).argmax(-1) == examples.answers).mean())


@functools.partial(jax.jit, static_argnums=0)
def _logits(wiring: Wiring, weights: Weights, tokens: jax.Array) -> jax.Array:
    def of_one(tokens: jax.Array) -> jax.Array:
        return run(wiring, weights, Prompt(tokens, jnp.arange(LENGTH)), read_sum).logits

    return jax.vmap(of_one)(tokens)


def grid(
    models: Iterable[tuple[str, int, Callable[[], Model]]],
    out: str | os.PathLike[str],
    *,
    progress: bool = True,
    **options: int,
) -> Any:
    """Examine transformers, except for those that are in the table already.

    The rows of a transformer are written to the table as soon as they are known.

    Args:
        models: names, seeds, and what makes them.
        out: the folder of the table, ``circuits.csv``.
        progress: show a progress bar.
        **options: those of `examine`.

    Returns:
        The whole table, as `read` returns it.
    """
    import pandas

    path = pathlib.Path(out) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, seed, make in tqdm(list(models), disable=not progress):
        if path.exists() and (name, seed) in set(read(out).set_index(KEY).index):
            continue
        table = pandas.DataFrame(examine(make(), **options))
        # One write, so that a run that is killed leaves no part of a transformer's rows.
        text = table.to_csv(index=False, header=not path.exists(), float_format="%.5g")
        with path.open("a") as file:
            file.write(text)
    return read(out)


def read(folder: str | os.PathLike[str]) -> Any:
    """Read the table of a grid, as a ``pandas.DataFrame``: see `examine` for its columns."""
    import pandas

    return pandas.read_csv(pathlib.Path(folder) / FILE)
