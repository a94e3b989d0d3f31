"""Paths as objects: the best ones, a greedy one, samples, and what is in them."""

from semijax.paths.counts import component_counts as component_counts
from semijax.paths.graph import GradientGraph as GradientGraph
from semijax.paths.graph import GraphEdge as GraphEdge
from semijax.paths.graph import GraphNode as GraphNode
from semijax.paths.graph import gradient_graph as gradient_graph
from semijax.paths.path import Edge as Edge
from semijax.paths.path import Node as Node
from semijax.paths.path import Path as Path
from semijax.paths.path import Paths as Paths
from semijax.paths.path import Stage as Stage
from semijax.paths.path import Story as Story
from semijax.paths.path import Variable as Variable
from semijax.paths.search import sample_paths as sample_paths
from semijax.paths.search import top_paths as top_paths
from semijax.paths.search import trace_gradient as trace_gradient
