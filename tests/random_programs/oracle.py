"""An independent oracle: a program at a point as nodes and weighted edges, and all of its paths.

It shares nothing with the package it checks. The jaxpr is run once on numbers, with calls inlined,
loops unrolled, and only the branch of a ``cond`` that was taken. Every equation adds its edges
(``edges.py``). Then the paths are listed, each with its weight, so that every statistic of them is
a line of NumPy (``statistics.py``).
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.extend
import numpy as np

from . import in_numpy
from .edges import (
    CUSTOM,
    floating,
    function_of,
    is_complex,
    is_real_or_complex,
    local_edges,
    real_size,
)
from .in_numpy import CALLS, called, is_literal, literal_value, opened

FEATURE = {"mul": 1.0, "add": 0.25, "sin": 2.0, "dot_general": -0.5, "select_n": 0.75, "name": -1.0}
"""What a path counts for every edge of these primitives; 0 for the others."""


class Value(NamedTuple):
    """An array of the running program, and the node of each of its real numbers (−1: a constant).

    ``nodes`` is flat: one per element, two per complex element.
    """

    value: Any
    nodes: np.ndarray


class Graph:
    """The nodes and the edges of ``function(*args)``; heads are later nodes than tails.

    Attributes:
        sources: the nodes of each argument.
        outputs: the nodes of each output.
        names: by the name of a ``checkpoint_name`` outside of loops, the nodes of that array.
        results: the values of the outputs.
        astray: the nodes that an infinite derivative leads to from an element that is constant.
        is_complex: whether a node is a part of a complex number.
        tails, heads, weights, cuts, primitives: of each edge.
    """

    def __init__(self, function, *args):
        self.count, self.names, self.is_complex = 0, {}, False
        self.astray, self._bundles = [], []
        closed = jax.make_jaxpr(function)(*args)
        inputs = [constant(np.asarray(arg)) for arg in jax.tree.leaves(args)]
        inputs = [Value(x.value, self._new(x.value)) for x in inputs]
        self.sources = [x.nodes for x in inputs]
        self.depth = 0
        outputs = self.run(*opened(closed), inputs)
        self.outputs = [x.nodes for x in outputs]
        self.results = [x.value for x in outputs]
        empty = (np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(0, bool), [])
        columns = list(zip(*self._bundles, strict=True)) or [[part] for part in empty]
        self.tails, self.heads, self.weights, self.cuts = map(np.concatenate, columns[:4])
        self.primitives = [name for names in columns[4] for name in names]

    def _new(self, value):
        n = real_size(value)
        self.count += n
        self.is_complex |= bool(is_complex(value))
        return np.arange(self.count - n, self.count)

    def run(self, jaxpr, constants, inputs):
        """Run a jaxpr on values; every equation that has edges adds them."""
        known = [constant(in_numpy.array(value)) for value in constants]
        environment = dict(zip(jaxpr.constvars, known, strict=True))
        environment.update(zip(jaxpr.invars, inputs, strict=True))

        def read(atom):
            return constant(literal_value(atom)) if is_literal(atom) else environment[atom]

        for equation in jaxpr.eqns:
            results = self.step(equation, [read(atom) for atom in equation.invars])
            environment.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def step(self, equation, inputs):
        name, params = equation.primitive.name, equation.params
        if name in CALLS and not is_atomic(equation):
            return self.run(*called(equation), inputs)
        if name == "cond":
            taken = min(max(int(inputs[0].value), 0), len(params["branches"]) - 1)
            return self.run(*opened(params["branches"][taken]), inputs[1:])
        if name == "scan":
            return self.scan(equation, inputs)
        if name == "while":
            return self.loop(params, inputs)
        return self.node(equation, inputs)

    def scan(self, equation, inputs):
        params = equation.params
        body, length = opened(params["jaxpr"]), params["length"]
        n, n_carry, _ = in_numpy.scan_layout(equation)
        constants, carry = inputs[:n], inputs[n : n + n_carry]
        rows = [None] * length
        self.depth += 1
        for t in reversed(range(length)) if params["reverse"] else range(length):
            xs = [row_of(x, t) for x in inputs[n + n_carry :]]
            out = self.run(*body, [*constants, *carry, *xs])
            carry, rows[t] = out[:n_carry], out[n_carry:]
        self.depth -= 1
        if not length:
            ys = [v.aval for v in equation.outvars[n_carry:]]
            return [*carry, *(constant(np.zeros(y.shape, y.dtype)) for y in ys)]
        return [*carry, *(stacked(column) for column in zip(*rows, strict=True))]

    def loop(self, params, inputs):
        n_test, n_body = params["cond_nconsts"], params["body_nconsts"]
        of_test, of_body = inputs[:n_test], inputs[n_test : n_test + n_body]
        carry = inputs[n_test + n_body :]
        test, body = opened(params["cond_jaxpr"]), opened(params["body_jaxpr"])
        self.depth += 1
        while self.run(*test, [constant(x.value) for x in (*of_test, *carry)])[0].value:
            carry = self.run(*body, [*of_body, *carry])
        self.depth -= 1
        return carry

    def node(self, equation, inputs):
        name, values = equation.primitive.name, [x.value for x in inputs]
        results = in_numpy.bind(equation, values)
        outputs = [constant(value) for value in results]
        wrt = [p for p, x in enumerate(inputs) if (x.nodes >= 0).any()]
        made = [k for k, value in enumerate(results) if is_real_or_complex(value)]
        if not wrt or not made or name == "stop_gradient":
            return outputs
        rule = None
        if name in CUSTOM or is_atomic(equation):
            rule = rule_masks(equation, values, made)
        nodes = {k: self._new(results[k]) for k in made}
        for (k, p), edges in local_edges(equation, values, results, wrt, made, rule).items():
            tails, heads = inputs[p].nodes[edges.i], nodes[k][edges.o]
            live = tails >= 0
            # No path comes from a constant; but in a sweep, 0 times infinity is not 0.
            astray = ~live & ~np.isfinite(edges.weight)
            self.astray += heads[astray].tolist()
            outputs[k].nodes[edges.o[live | astray]] = heads[live | astray]
            columns = (tails, heads, edges.weight, edges.cut)
            self._bundles.append((*(c[live] for c in columns), [name] * int(live.sum())))
        if name == "name" and not self.depth:
            self.names[equation.params["name"]] = outputs[0].nodes
        return outputs


def is_atomic(equation):
    """Whether the equation is a function that the user made one node."""
    return str(equation.params.get("name", "")).startswith("sj.atomic:")


def constant(value):
    n = real_size(value) if is_real_or_complex(value) else value.size
    return Value(value, np.full(n, -1))


def row_of(x, t):
    return Value(x.value[t], x.nodes.reshape(x.value.shape[0], -1)[t])


def stacked(rows):
    return Value(np.stack([x.value for x in rows]), np.concatenate([x.nodes for x in rows]))


def rule_masks(equation, values, made):
    """Which tangents a custom rule lets through, and which it only cuts, by its jaxpr.

    For a function that is one node, which elements are connected inside of it.
    """
    together = floating(values)
    function = function_of(equation, values, together, made)
    point = [values[p] for p in together]
    if equation.primitive.name == "custom_vjp_call":
        outputs = function(*point)
        inner = Graph(lambda *g: jax.vjp(function, *point)[1](list(g)), *outputs)
    elif is_atomic(equation):
        inner = Graph(inside(equation, made, together, values), *point)
    else:
        inner = Graph(lambda *t: jax.jvp(function, point, list(t))[1], *point)
    reach, uncut = (reachable(inner, cuts) for cuts in (False, True))
    masks = {}
    for (m, k), (n, p) in itertools.product(enumerate(made), enumerate(together)):
        one, other = (m, n) if equation.primitive.name == "custom_vjp_call" else (n, m)
        ends = inner.outputs[other], inner.sources[one]
        found, through = (np.zeros((len(ends[0]), len(ends[1])), bool) for _ in range(2))
        there = ends[0] >= 0
        found[there] = reach[ends[0][there]][:, ends[1]]
        through[there] = uncut[ends[0][there]][:, ends[1]]
        if equation.primitive.name == "custom_vjp_call":
            found, through = found.T, through.T
        masks[k, p] = found, found & ~through
    return masks


def inside(equation, made, together, values):
    """What a function that is one node computes, as a function of its floating inputs."""
    call = jax.extend.core.jaxpr_as_fun(equation.params["jaxpr"])

    def function(*variables):
        given = dict(zip(together, variables, strict=True))
        results = call(*(given.get(p, value) for p, value in enumerate(values)))
        return [results[k] for k in made]

    return function


def reachable(graph, without_cuts):
    """For each node, from which sources it is reached."""
    n = sum(map(len, graph.sources))
    reach = np.zeros((graph.count, n), bool)
    reach[:n] = np.eye(n, dtype=bool)
    for tail, head, cut in zip(graph.tails, graph.heads, graph.cuts, strict=True):
        if not (cut and without_cuts):
            reach[head] |= reach[tail]
    return reach
