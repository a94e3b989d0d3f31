"""Weighted graphs of others: their paths, and the statistics of them."""

from semijax.graphs.attribution import AttributionGraph
from semijax.graphs.weighted import WeightedGraph, graph_function

__all__ = ["AttributionGraph", "WeightedGraph", "graph_function"]
