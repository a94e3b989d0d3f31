"""The paths to the feature that matters, against those to others: Fig. 6b of Du et al. (2023).

``python -m semijax.experiments.features --out FOLDER`` does it over widths and seeds, beside
untrained networks.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import semijax as sj
from semijax import checks, zoo
from semijax.experiments.claims import Claim, claims_table
from semijax.experiments.results import ResultTable
from semijax.experiments.softmax import log_softmax

FEATURES = 4
POINTS = 14_000  # of 20,000, the released code trains on 0.7
BATCH_SIZE = 32

PUBLISHED = {
    4: (2.31, 2.29),
    8: (2.83, 2.85),
    16: (3.75, 3.61),
    32: (4.47, 4.31),
    64: (5.10, 4.95),
    128: (5.79, 5.60),
}
"""The entropies read off the figure, in nats by hidden units: relevant, irrelevant features."""


FILE = "features.csv"
"""The name of the table in a grid's folder."""

KEY = ("hidden", "seed", "points")
"""The columns that tell its runs apart."""

WIDE = 16
"""The least width of a network at which the paper's difference shows."""


class FeatureEntropies(NamedTuple):
    """Path entropies in nats, float64 ``[seeds]``.

    Attributes:
        relevant: of the feature that decides the label.
        irrelevant: the mean of the others'.
    """

    relevant: np.ndarray
    irrelevant: np.ndarray


class MLP(nnx.Module):
    """A classifier with one hidden layer and leaky ReLUs, initialised as in the released code.

    Args:
        hidden: the number of hidden units.
        rngs: of the parameters.
    """

    def __init__(self, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.up: nnx.Linear = _linear(FEATURES, hidden, rngs)
        self.down: nnx.Linear = _linear(hidden, 2, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map float ``[..., 4]`` to logits ``[..., 2]``."""
        return self.down(jax.nn.leaky_relu(self.up(x), 0.01))


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(
        inputs,
        outputs,
        kernel_init=nnx.initializers.variance_scaling(1.0, "fan_avg", "normal"),
        bias_init=nnx.initializers.normal(outputs**-0.5),
        rngs=rngs,
    )


def sample(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw points whose label says whether their first coordinate is above one half.

    Args:
        n: how many.
        seed: equal arguments give equal data.

    Returns:
        Points float32 ``[n, 4]``, uniform from 0 to 1, and labels int32 ``[n]``.
    """
    points = np.random.default_rng(seed).random((n, FEATURES), np.float32)
    return points, (points[:, 0] > 0.5).astype(np.int32)


def cross_entropy(logits: jax.Array, labels: jax.Array, *, max_in_graph: bool = True) -> jax.Array:
    """Compute the mean cross-entropy, with the graph of the released code or with JAX's.

    Args:
        logits: float ``[n, classes]``.
        labels: int ``[n]``.
        max_in_graph: whether there are paths through the largest logit, see ``log_softmax``.

    Returns:
        A scalar, in nats.
    """
    log_p = log_softmax(logits, max_in_graph=max_in_graph)
    return -log_p[jnp.arange(len(labels)), labels].mean()


def feature_entropies(
    hidden: int,
    seeds: Sequence[int] = (0,),
    *,
    trained: bool = True,
    max_in_graph: bool = True,
    points: int = POINTS,
) -> FeatureEntropies:
    """Train MLPs on points of which one feature matters, and measure each feature's entropy.

    It is that of the distribution of the paths from one input element to the mean cross-entropy of
    a batch (Du et al. 2023, Eq. 6), averaged over the batch. Training is for one epoch, with Adam.

    Args:
        hidden: the number of hidden units.
        seeds: of the points, the parameters and the order of the batches, one per network.
        trained: False for the control: the same networks before training.
        max_in_graph: as for ``cross_entropy``.
        points: what a network is trained on; the last 32 are the batch.

    Raises:
        ValueError: if there is no hidden unit or no seed, or too few points to train on.

    Source: Du et al. 2023, Fig. 6b.

    Example:
        >>> before, after = (feature_entropies(16, trained=trained) for trained in (False, True))
        >>> bool(before.relevant[0] < after.relevant[0])
        True
    """
    checks.check_positive("hidden", hidden)
    checks.check_positive("the number of seeds", len(seeds))
    data = [sample(points, seed=seed) for seed in seeds]
    models = [MLP(hidden, rngs=nnx.Rngs(seed)) for seed in seeds]

    def loss(model: MLP, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        inputs, labels = batch
        return cross_entropy(model(inputs), labels, max_in_graph=max_in_graph)

    if trained:
        options = {"epochs": 1, "batch_size": BATCH_SIZE, "progress": False}
        zoo.train_ensemble(models, loss, data, seeds=seeds, **options)
    structure = nnx.graphdef(models[0])

    @jax.jit
    @jax.vmap
    def entropies(state: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        model = nnx.merge(structure, state)
        return sj.semiring_grad(lambda x: loss(model, (x, labels)), sj.Entropy())(inputs)

    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(nnx.state, models))
    batches = (
        np.stack([own[-BATCH_SIZE:] for own in arrays]) for arrays in zip(*data, strict=True)
    )
    found = np.asarray(entropies(states, *batches), np.float64).mean(axis=1)
    return FeatureEntropies(found[:, 0], found[:, 1:].mean(axis=1))


def grid(
    seeds: Sequence[int],
    out: str | os.PathLike[str],
    *,
    widths: Sequence[int] = tuple(PUBLISHED),
    points: int = POINTS,
) -> Any:
    """Measure networks of all widths and seeds, but for those that are in the table already.

    Args:
        seeds: as for ``feature_entropies``.
        out: the folder of the table, ``features.csv``.
        widths: the numbers of hidden units.
        points: as for ``feature_entropies``.

    Returns:
        A ``pandas.DataFrame`` with the columns ``hidden``, ``seed``, ``points``, ``network``
        (``"trained"`` or ``"untrained"``), ``relevant`` and ``irrelevant``, in nats.
    """
    table = ResultTable(pathlib.Path(out) / FILE, KEY)
    keys = {width: [(width, seed, points) for seed in seeds] for width in widths}
    for width, of_width in keys.items():
        missing = [key[1] for key in table.missing(of_width)]
        if not missing:
            continue
        rows = []
        for network in ("trained", "untrained"):
            found = feature_entropies(width, missing, trained=network == "trained", points=points)
            for seed, relevant, irrelevant in zip(missing, *found, strict=True):
                key = dict(zip(KEY, (width, seed, points), strict=True))
                rows.append(
                    key | {"network": network, "relevant": relevant, "irrelevant": irrelevant}
                )
        table.append(rows)
    return table.of(key for of_width in keys.values() for key in of_width)


def claims(table: Any) -> list[Claim]:
    """State what Fig. 6b claims over seeds, beside networks before training.

    Args:
        table: of ``grid``.
    """
    wide = table[table["hidden"] >= WIDE]
    difference = wide.assign(value=wide["relevant"] - wide["irrelevant"])
    by_seed = difference.groupby(["network", "seed"])["value"].mean()
    log_width = np.log2(table["hidden"])
    slopes = (
        table.assign(log_width=log_width)
        .groupby(["network", "seed"])[["log_width", "relevant"]]
        .apply(lambda own: np.polyfit(own["log_width"], own["relevant"], 1)[0])
    )

    def claim(statement: str, measure: str, paper: str, found: Any) -> Claim:
        values = (found.loc[name].to_numpy() for name in ("trained", "untrained"))
        return Claim("Fig. 6b", statement, measure, paper, *values)

    published = {width: pair for width, pair in PUBLISHED.items() if width >= WIDE}
    mean = np.mean([relevant - irrelevant for relevant, irrelevant in published.values()])
    slope = np.polyfit(np.log2([*PUBLISHED]), [pair[0] for pair in PUBLISHED.values()], 1)[0]
    return [
        claim(
            "The paths from the feature that matters have more entropy than those from others.",
            f"relevant − irrelevant, mean over widths from {WIDE} on [nats]",
            f"{mean:.2f}",
            by_seed,
        ),
        claim(
            "Wider networks have more entropy.",
            "slope of the relevant feature's entropy [nats per doubling of the width]",
            f"{slope:.2f}",
            slopes,
        ),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the grid of Fig. 6b over seeds.

    Args:
        argv: the command line's arguments; by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m semijax.experiments.features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(20)])
    options = parser.parse_args(argv)
    print(claims_table(claims(grid(options.seeds, options.out))).to_string(index=False))
    print(f"Written to {options.out / FILE}.")


if __name__ == "__main__":
    main()
