"""Attribution graphs of circuit-tracer and Neuronpedia: read, scored, and written."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax.graphs.weighted import WeightedGraph
from semijax.semirings import SumProduct
from semijax.transforms import semiring_grad

SCHEMA = 1
"""The version of the schema (``metadata.schema_version``) that is read and written."""

LOGIT = "logit"
"""The type of the nodes where paths end."""

TINY = 1e-10
"""The smallest sum by which the |weights| of the edges to a node are divided to normalise them."""


@dataclasses.dataclass(frozen=True, eq=False)
class AttributionGraph:
    """Features, errors, tokens and logits of a prompt, and their direct effects on each other.

    Attributes:
        graph: the nodes, by their ``node_id``, and the links.
        features: all that the file says of each node, in the same order.
        metadata: the file's ``metadata``: ``slug``, ``prompt_tokens``, …
        other: what else the file has, such as ``qParams``.

    Source: Ameisen et al. 2025; the format of ``safety-research/circuit-tracer``, schema 1.

    Example:
        >>> import json, semijax as sj
        >>> kinds = [("word", "embedding"), ("feature", "transcoder"), ("logit", "logit")]
        >>> nodes = [{"node_id": name, "feature_type": kind} for name, kind in kinds]
        >>> nodes[-1]["token_prob"] = 0.5
        >>> ends = [("word", "feature", 2.0), ("feature", "logit", 3.0), ("word", "logit", -1.0)]
        >>> links = [{"source": s, "target": t, "weight": w} for s, t, w in ends]
        >>> text = json.dumps({"metadata": {"slug": "tiny"}, "nodes": nodes, "links": links})
        >>> graph = sj.graphs.AttributionGraph.from_json(text)
        >>> {name: round(influence, 3) for name, influence in graph.influence().items()}
        {'word': 0.5, 'feature': 0.375, 'logit': 0.0}
    """

    graph: WeightedGraph
    features: tuple[Mapping[str, Any], ...]
    metadata: Mapping[str, Any]
    other: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> AttributionGraph:
        """Read the graph that a file contains.

        Raises:
            ValueError: if it is not an attribution graph, or has another schema.
        """
        try:
            content = json.loads(text)
            nodes, links = content["nodes"], content["links"]
            metadata = content["metadata"]
            edges = [(link["source"], link["target"], float(link["weight"])) for link in links]
            graph = WeightedGraph.from_edges([node["node_id"] for node in nodes], edges)
        except (TypeError, KeyError) as error:
            raise ValueError(f"This is no attribution graph: {error!r}.") from error
        version = metadata.get("schema_version") or SCHEMA
        if version != SCHEMA:
            raise ValueError(f"The schema's version is {version}; {SCHEMA} is known.")
        known = "nodes", "links", "metadata"
        other = {key: value for key, value in content.items() if key not in known}
        return cls(graph, tuple(nodes), metadata, other)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AttributionGraph:
        """Read the graph that a file contains, see ``from_json``."""
        with open(path, encoding="utf-8") as file:
            return cls.from_json(file.read())

    def to_json(self) -> str:
        """Return the text of a file that Neuronpedia and circuit-tracer read."""
        ends = zip(self.graph.sources, self.graph.targets, self.graph.weights, strict=True)
        names = self.graph.nodes
        links = [{"source": names[s], "target": names[t], "weight": float(w)} for s, t, w in ends]
        metadata = {**self.metadata, "schema_version": SCHEMA}
        content = {"metadata": metadata, **self.other, "nodes": [*self.features], "links": links}
        return json.dumps(content)

    @property
    def logits(self) -> dict[str, float]:
        """The logits' nodes, where paths end, with their probabilities."""
        return {
            node["node_id"]: float(node.get("token_prob", 0.0))
            for node in self.features
            if node["feature_type"] == LOGIT
        }

    @property
    def normalized(self) -> WeightedGraph:
        """The graph with each edge's share of the absolute weights of all edges to its target."""
        sizes = np.abs(self.graph.weights)
        sums = np.bincount(self.graph.targets, sizes, len(self.graph.nodes))
        shares = sizes / np.maximum(sums, TINY)[self.graph.targets]
        return dataclasses.replace(self.graph, weights=shares)

    def influence(self) -> dict[str, float]:
        """Compute each node's influence on the logits: the mass of its paths in normalised weights.

        The sum over all paths of at least one edge from the node to a logit of the products of the
        edges' shares, times the logit's probability.

        Source: circuit-tracer's ``compute_node_influence``: w A + w A² + … for the matrix A of
        shares and the logits' probabilities w.
        """
        with jax.enable_x64(True):
            function = self.normalized.function(self.logits)
            ones = jnp.ones(len(self.graph.nodes), jnp.float64)
            found = np.asarray(semiring_grad(function, SumProduct())(ones))
        names, own = [node["node_id"] for node in self.features], self.logits
        return {n: float(x) - own.get(n, 0.0) for n, x in zip(names, found, strict=True)}
