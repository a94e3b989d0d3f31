"""What semijax scores components by: statistics of the paths through them, from one pair.

All complete paths count, from the embeddings to the preference for the right answer. A component's
array is one node: all elements at all places together.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import semijax as sj
from semijax.experiments.circuits.baselines import Scores
from semijax.experiments.circuits.model import Prompt, Weights, Wiring, run
from semijax.experiments.circuits.patching import preference
from semijax.experiments.circuits.tasks import Pair

WEIGHTINGS = ("Derivative", "Contrast", "Relevance")

BEST = 8
"""How many paths the k best are."""

POINTS = 16
"""The points of the quadrature, which is of softmaxes only here: half as many as by default."""

SEMIRINGS: dict[str, Any] = {
    "sum": sj.SumProduct(),
    "largest path": sj.MaxProduct(),
    "strongest path": sj.AbsMaxProduct(),
    "top 8": sj.TopK(BEST),
    "paths": sj.Entropy(),
}


def scores(
    wiring: Wiring, weights: Weights, pair: Pair, weighting: str, frozen: bool
) -> dict[str, Scores]:
    """Compute the statistics of one sweep.

    Args:
        wiring: the transformer's.
        weights: the transformer's.
        pair: the prompts. Only ``"Contrast"`` knows the corrupted one.
        weighting: one of ``WEIGHTINGS``.
        frozen: whether attention patterns, and the scales of norms, are closed to paths.

    Returns:
        By method:

        * ``"sum"``, Σ w: what the paths carry of the difference (``"Contrast"``) or of the output
          (``"Relevance"``); not of derivatives, as the sum over embeddings means nothing;
        * ``"largest path"``, max w, or 0 without a path; ``"strongest path"``, max |w|; and
          ``"top 8"``, Σ |w| of 8;
        * ``"mass"``, the share of Σ |w|;
        * ``"entropy share"``, the share of the entropy H of all paths, −Σ p log p / H.
    """

    def quantity(prompt: Prompt) -> jax.Array:
        return preference(run(wiring, weights, prompt).logits, pair)

    if frozen:
        quantity = sj.freeze(quantity, ["patterns/*", *["scales/*"] * wiring.norm])
    edges_weigh = {
        "Derivative": sj.Derivative(),
        "Contrast": sj.Contrast(pair.corrupted, points=POINTS),
        "Relevance": sj.Relevance(points=POINTS),
    }[weighting]
    flow = sj.site_flow(
        quantity,
        SEMIRINGS,
        ["nodes/*", "edges/*"],
        source="nodes/embeddings",
        weighting=edges_weigh,
        aggregate=(-2, -1),
    )(pair.clean)
    best = {name: jnp.where(x == -jnp.inf, 0, x) for name, x in flow["largest path"].items()}
    found = {"largest path": _assemble(wiring, best)}
    found["strongest path"] = _assemble(wiring, flow["strongest path"])
    found["top 8"] = _assemble(wiring, {name: x.sum(-1) for name, x in flow["top 8"].items()})
    shares, entropies = flow["paths"].share(), flow["paths"]
    found["mass"] = _assemble(wiring, shares)
    found["entropy share"] = _assemble(
        wiring,
        {
            name: share
            * (entropies[name] - jnp.log(jnp.where(share > 0, share, 1)))
            / entropies.total
            for name, share in shares.items()
        },
    )
    if weighting != "Derivative":
        found["sum"] = _assemble(wiring, flow["sum"])
    return found


def _assemble(wiring: Wiring, sites: Any) -> Scores:
    """Order the numbers of all sites, ``[w]`` for nodes and ``[r, w]`` for edges."""
    edges = jnp.zeros(wiring.edges.shape)
    writers = []
    for name, values in sites.items():
        kind, _, place = name.partition("/")
        if kind == "nodes":
            writers.append(values)
        else:
            readers, seen = values.shape
            edges = edges.at[:seen, int(place) : int(place) + readers].set(values.T)
    return Scores(edges, jnp.concatenate(writers))
