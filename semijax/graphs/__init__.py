"""Weighted graphs from other tools: their paths, and statistics of the paths."""

from semijax.graphs.attribution import AttributionGraph
from semijax.graphs.weighted import WeightedGraph, graph_function

__all__ = ["AttributionGraph", "WeightedGraph", "graph_function"]
