"""All paths of a graph, listed, and what is said of a list of paths: definitions in NumPy."""

import numpy as np

from .oracle import FEATURE

K = 3


class Paths:
    """Some paths, as arrays with a number for each.

    Attributes:
        weight: the product of the weights of its edges.
        length: the number of its edges.
        alive: whether no edge weighs 0.
        feature: the sum of the edges' features.
    """

    def __init__(self, weight, length, alive, feature):
        self.weight, self.length, self.alive, self.feature = weight, length, alive, feature

    def __len__(self):
        return len(self.weight)

    @classmethod
    def empty_path(cls, weight=1.0):
        """The path without edges, of a weight that all that go on from it are multiplied by."""
        return cls(np.array([weight]), np.zeros(1), np.ones(1, bool), np.zeros(1))

    @classmethod
    def union(cls, parts):
        if not parts:
            return cls(np.zeros(0), np.zeros(0), np.zeros(0, bool), np.zeros(0))
        columns = ((p.weight, p.length, p.alive, p.feature) for p in parts)
        return cls(*map(np.concatenate, zip(*columns, strict=True)))

    def after(self, weight, cut, primitive):
        """With one more edge at the end that is being extended."""
        with np.errstate(all="ignore"):
            product = np.zeros_like(self.weight) if cut else self.weight * weight
        feature = self.feature + FEATURE.get(primitive, 0.0)
        return Paths(product, self.length + 1, self.alive & (weight != 0), feature)

    def times(self, other):
        """Each of these followed by each of the others."""
        return Paths(
            np.multiply.outer(self.weight, other.weight).ravel(),
            np.add.outer(self.length, other.length).ravel(),
            np.logical_and.outer(self.alive, other.alive).ravel(),
            np.add.outer(self.feature, other.feature).ravel(),
        )

    def statistics(self):
        """What each semiring says of them."""
        w = self.weight
        mass = np.abs(w)
        live = mass > 0
        with np.errstate(all="ignore"):
            p = mass[live] / mass.sum()
            found = {
                "sum": w.sum(),
                "abs sum": mass.sum(),
                "max": w.max(initial=-np.inf),
                "min": w.min(initial=np.inf),
                "abs max": mass.max(initial=0),
                "top": np.concatenate([-np.sort(-mass), np.zeros(K)])[:K],
                "entropy": -(p * np.log(p)).sum(),
                "length": (p * self.length[live]).sum(),
                "feature": (p * self.feature[live]).sum(),
                "count": np.log(self.alive.sum()),
                "reach": self.alive.any(),
                "every edge": float(len(w)),
            }
        return found | {"several": (found["max"], found["entropy"], found["top"][:2])}


def count_paths(graph, nodes):
    """The number of paths from each node to these, as exact integers."""
    ways = [0] * graph.count
    for node in nodes:
        if node >= 0:
            ways[node] += 1
    for tail, head in zip(graph.tails[::-1].tolist(), graph.heads[::-1].tolist(), strict=True):
        ways[tail] += ways[head]
    return ways


def paths_to(graph, node):
    """For each node, the paths from it to one node."""
    return _extended(graph, {node: Paths.empty_path()}, reversed(range(len(graph.tails))), False)


def paths_from(graph, weights):
    """For each node, the paths to it from sources of these weights, by node."""
    begun = {node: Paths.empty_path(weight) for node, weight in weights.items()}
    return _extended(graph, begun, range(len(graph.tails)), True)


def _extended(graph, begun, order, forward):
    parts = {node: [paths] for node, paths in begun.items()}
    done = {}

    def paths_at(node):
        if node not in done:
            done[node] = Paths.union(parts.get(node, []))
        return done[node]

    near, far = (graph.tails, graph.heads) if forward else (graph.heads, graph.tails)
    near, far, weights, cuts = near.tolist(), far.tolist(), graph.weights.tolist(), graph.cuts
    for edge in order:
        here = paths_at(near[edge])
        if len(here):
            further = here.after(weights[edge], cuts[edge], graph.primitives[edge])
            parts.setdefault(far[edge], []).append(further)
    return [paths_at(node) for node in range(graph.count)]


def doubtful(graph, forward):
    """The nodes whose statistics depend on how infinite numbers are added up.

    Where an infinite derivative lies on the way, ⊗ does not distribute over ⊕; but not where a
    selection cuts it off from the side that a sweep comes from.
    """
    found = np.zeros(graph.count, bool)
    found[graph.astray] = forward
    order = range(len(graph.tails)) if forward else reversed(range(len(graph.tails)))
    for e in order:
        near, far = graph.tails[e], graph.heads[e]
        near, far = (near, far) if forward else (far, near)
        if not graph.cuts[e] and (found[near] or not np.isfinite(graph.weights[e])):
            found[far] = True
    return found
