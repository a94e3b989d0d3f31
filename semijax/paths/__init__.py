"""Paths as objects: the best ones, a greedy one, samples, and what is in them."""

from semijax.paths.counts import component_counts
from semijax.paths.graph import GradientGraph, GraphEdge, GraphNode, gradient_graph
from semijax.paths.path import Edge, Node, Path, Paths, Stage, Story, Variable
from semijax.paths.search import sample_paths, top_paths, trace_gradient

__all__ = [
    "Edge",
    "GradientGraph",
    "GraphEdge",
    "GraphNode",
    "Node",
    "Path",
    "Paths",
    "Stage",
    "Story",
    "Variable",
    "component_counts",
    "gradient_graph",
    "sample_paths",
    "top_paths",
    "trace_gradient",
]
