"""What the package says of a program, next to what its paths say."""

import dataclasses
import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

import semijax as sj

from ..compilation import quick_jit
from . import in_numpy
from .generator import program as draw_program
from .oracle import FEATURE, Graph
from .statistics import K, Paths, count_paths, doubtful, paths_from, paths_to

MAX_PATHS = 20_000
RTOL = 1e-7


@dataclasses.dataclass(frozen=True)
class EveryEdge(sj.Semiring):
    """The number of paths, those of weight 0 too: it tells every edge of weight 0 from none.

    With the required methods alone, so that it runs every default of ``Semiring``.
    """

    def zero(self, shape, dtype):
        return jnp.zeros(shape, dtype)

    def one(self, shape, dtype):
        return jnp.ones(shape, dtype)

    def lift(self, weights):
        return jnp.ones_like(weights)

    def add(self, a, b):
        return a + b

    def mul(self, a, b):
        return a * b


def feature(equation):
    return FEATURE.get(equation.primitive.name, 0.0)


SEMIRINGS = {
    "sum": sj.SumProduct(),
    "abs sum": sj.AbsSumProduct(),
    "max": sj.MaxProduct(),
    "min": sj.MinProduct(),
    "abs max": sj.AbsMaxProduct(),
    "top": sj.TopK(K),
    "entropy": sj.Entropy(),
    "length": sj.PathLength(),
    "feature": sj.Expectation(feature),
    "count": sj.PathCount(),
    "reach": sj.Reachability(),
    "every edge": EveryEdge(),
}
SEVERAL = (sj.MaxProduct(), sj.Entropy(), sj.TopK(2))


class TooManyPathsError(Exception):
    """More than ``MAX_PATHS``."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One thing that the package says wrong.

    Attributes:
        what: the function that says it and the semiring, or the order of ``top_paths``.
        where: the argument, output or site.
        found, wanted: what it says and what the paths say, or an exception.
    """

    what: str
    where: str
    found: object
    wanted: object

    def __str__(self):
        return f"{self.what}, {self.where}:\n  found  {self.found}\n  wanted {self.wanted}"


class Check:
    """A program, its graph, and the differences found so far."""

    def __init__(self, program, run=in_numpy.run):
        self.program, self.run = program, run
        self.args = [jnp.asarray(value) for value in program.args.values()]
        self.argnums = tuple(range(len(self.args)))
        self.graph = Graph(program.both, *self.args)
        (self.end,) = self.graph.outputs[0]
        ends = [node for nodes in self.graph.outputs for node in nodes]
        counts = count_paths(self.graph, ends)
        sources = [node for nodes in self.graph.sources for node in nodes.tolist()]
        if sum(counts[node] for node in sources) > MAX_PATHS:
            raise TooManyPathsError(program)
        self.differences = []

    def all(self, searches):
        if self.program.has_reverse:
            self.reverse()
            self.site()
        self.forward()
        if np.isfinite(self.graph.weights).all():
            for by in [search for search in searches if search != "all"]:
                self.top_paths(by)
            if "all" in searches and not self.graph.is_complex:
                self.enumeration()
        return self.differences

    @functools.cached_property
    def behind(self):
        """The paths from every node to the scalar."""
        return paths_to(self.graph, self.end)

    def guarded(self, what, call):
        """What a call returns; an exception is a difference."""
        try:
            return call()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self.differences.append(Difference(what, "exception", text, "a number"))
            return None

    def reverse(self):
        argnums, args = self.argnums, self.args
        grads = sj.semiring_grad(self.program.scalar, SEMIRINGS | {"several": SEVERAL}, argnums)
        found = self.guarded("semiring_grad", lambda: self.run(grads, *args))
        if found is None:
            return
        wanted = [table(self.behind, nodes) for nodes in self.graph.sources]
        unknown = doubtful(self.graph, forward=False)
        skipped = [unknown[nodes] for nodes in self.graph.sources]
        for n, arg in enumerate(args):
            for key, value in found.items():
                own = [member[n] for member in value] if key == "several" else value[n]
                what = f"semiring_grad {key}"
                self.compare(what, f"x{n}", own, wanted[n], key, skipped[n], arg.shape)
        for n, value in enumerate(self.jax_gradient()):
            self.compare("jax.grad sum", f"x{n}", value, wanted[n], "sum", skipped[n], value.shape)
            known = [{"sum": x, "abs sum": abs(x)} for x in value.ravel().tolist()]
            what, infinite = "semiring_grad sum, as jax.grad", ~np.isfinite(value.ravel())
            self.compare(what, f"x{n}", found["sum"][n], known, "sum", infinite, value.shape)

    def jax_gradient(self):
        try:
            return self.run(jax.grad(self.program.scalar, self.argnums), *self.args)
        except (NotImplementedError, ValueError):  # of some primitives JAX has no reverse mode
            return []

    def forward(self):
        random = np.random.default_rng(self.program.seed)
        numbers = [
            random.uniform(0.5, 1.5, np.shape(x)) * random.choice([-1, 1]) for x in self.args
        ]
        weights = {
            node: weight
            for nodes, array in zip(self.graph.sources, numbers, strict=True)
            for node, weight in zip(nodes.tolist(), array.ravel().tolist(), strict=True)
        }
        numbers = [jnp.asarray(t) for t in numbers]

        def push(args, numbers):
            sources = [{key: s.lift(t) for key, s in SEMIRINGS.items()} for t in numbers]
            _, pushed = sj.semiring_jvp(self.program.arrays, args, sources, SEMIRINGS)
            return {k: [s.readout(e) for e in pushed[k]] for k, s in SEMIRINGS.items()}

        found = self.guarded("semiring_jvp", lambda: self.run(push, self.args, numbers))
        if found is None:
            return
        tangents = self.jax_tangents(numbers)
        ahead = paths_from(self.graph, weights)
        unknown = doubtful(self.graph, forward=True)
        results, nodes = self.graph.results[1:], self.graph.outputs[1:]
        for n, name in enumerate(self.program.outputs):
            wanted = table(ahead, nodes[n])
            skipped = np.array([unknown[node] if node >= 0 else False for node in nodes[n]], bool)
            where, shape = f"output {name}", results[n].shape
            for key, values in found.items():
                self.compare(f"semiring_jvp {key}", where, values[n], wanted, key, skipped, shape)
            if tangents is not None:
                # JAX's own derivative of a maximum over nothing is 0/0.
                no_number = np.isnan(np.ravel(tangents[n]))
                known = tangents[n], wanted, "sum", skipped | no_number, shape
                self.compare("jax.jvp sum", where, *known)

    def jax_tangents(self, numbers):
        def push(args, numbers):
            return jax.jvp(self.program.arrays, args, numbers)[1]

        try:
            return self.run(push, self.args, numbers)
        except TypeError:  # a custom_vjp has no forward mode
            return None

    def site(self):
        """Complete paths through the marked array."""
        nodes = self.graph.names.get("site")
        if nodes is None:
            return
        random = np.random.default_rng(self.program.seed)
        keys = [*random.choice([*SEMIRINGS], 4, replace=False), "every edge"]
        semirings = {key: SEMIRINGS[key] for key in dict.fromkeys(keys)}
        flow = sj.site_flow(self.program.scalar, semirings, "site", self.argnums)
        found = self.guarded("site_flow", lambda: self.run(flow, *self.args))
        if found is None:
            return
        starts = {node: 1.0 for nodes in self.graph.sources for node in nodes.tolist()}
        ahead = paths_from(self.graph, starts)
        through = {n: ahead[n].times(self.behind[n]) for n in nodes.tolist() if n >= 0}
        unknown = doubtful(self.graph, True) | doubtful(self.graph, False)
        skipped = np.array([unknown[node] if node >= 0 else False for node in nodes], bool)
        wanted = table(through, nodes)
        for key, values in found.items():
            value = np.asarray(values["site"])
            shape = value.shape[:-1] if key == "top" else value.shape
            self.compare(f"site_flow {key}", "site", value, wanted, key, skipped, shape)

    def top_paths(self, by, k=5):
        sources = [node for nodes in self.graph.sources for node in nodes.tolist()]
        weights = Paths.union([self.behind[node] for node in sources]).weight
        what = f"top_paths by {by}"
        function = replayed(self.program.scalar, *self.args)
        search = sj.top_paths(function, k, by=by, argnums=self.argnums)
        with jax.disable_jit():  # what the search runs is not compiled either
            found = self.guarded(what, lambda: search(*self.args))
        if found is None:
            return
        found = np.array([path.weight for path in found])
        order = {"abs": -np.abs(weights), "max": -weights, "min": weights}[by]
        best = weights[np.argsort(order, kind="stable")[:k]]
        if by == "abs":  # of two that are equally strong, either may come first
            found, best = np.abs(found), np.abs(best)
        if found.shape != best.shape or not np.allclose(found, best, RTOL, 1e-12):
            self.differences.append(Difference(what, "weights", found, best))

    def enumeration(self):
        """The package's own list of all paths; derivatives of 0 may be missing in it."""
        function = replayed(self.program.scalar, *self.args)
        with jax.disable_jit():
            found = self.guarded(
                "enumerate_paths",
                lambda: sj.testing.enumerate_paths(function, *self.args, limit=MAX_PATHS),
            )
        if found is None:
            return
        listed = {}
        for path in found:
            listed.setdefault(path.source, []).append(path.weight)
        for n, nodes in enumerate(self.graph.sources):
            for index, node in zip(np.ndindex(self.args[n].shape), nodes.tolist(), strict=True):
                weights = self.behind[node].weight
                got = np.array(listed.get((f"[{n}]", index), []))
                got, wanted = (np.sort(w[w != 0]) for w in (got, weights))
                if got.shape != wanted.shape or not np.allclose(got, wanted, RTOL, 1e-12):
                    where = f"x{n}{list(index)}"
                    self.differences.append(Difference("enumerate_paths", where, got, wanted))

    def compare(self, what, where, value, wanted, key, skipped, shape):
        """Compare statistics, element by element, those that are not skipped."""
        if key == "several":
            for name, part, want in zip(("max", "entropy", "top"), value, range(3), strict=True):
                rows = [row["several"][want] for row in wanted]
                self.compare_rows(f"{what}: {name}", where, part, rows, wanted, skipped, shape)
        else:
            rows = [row[key] for row in wanted]
            self.compare_rows(what, where, value, rows, wanted, skipped, shape)

    def compare_rows(self, what, where, value, rows, wanted, skipped, shape):
        value = np.asarray(value, np.float64)
        if value.shape[: len(shape)] != tuple(shape):
            self.differences.append(Difference(what, where, f"shape {value.shape}", f"{shape}"))
            return
        if not rows:
            return
        found = value.reshape(len(rows), -1)
        rows = np.array(rows, np.float64).reshape(len(rows), -1)
        # Numbers that cancel are as exact as their mass is large; logarithms as 1 is.
        scale = np.array([[row["abs sum"]] for row in wanted])
        with np.errstate(invalid="ignore"):
            near = np.abs(found - rows) <= RTOL * (np.abs(rows) + np.maximum(scale, 1))
        same = (found == rows) | (near & np.isfinite(rows))
        bad = ~same & ~np.asarray(skipped, bool)[:, None]
        if bad.any():
            at = int(np.argwhere(bad)[0][0])
            self.differences.append(
                Difference(what, f"{where}, element {at}", found.ravel(), rows.ravel())
            )


NO_PATHS = Paths.union([]).statistics()


def table(paths, nodes):
    """The statistics at each node; of no paths where there is no node."""
    return [paths[node].statistics() if node >= 0 else NO_PATHS for node in nodes.tolist()]


def replayed(function, *args):
    """The function as what ``jax.jit`` would make of it, equation by equation."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    tree = jax.tree.structure(shapes)
    return lambda *args: jax.tree.unflatten(tree, jax.extend.core.jaxpr_as_fun(closed)(*args))


def compiled(function, *args):
    """``function(*args)`` under ``jax.jit``."""
    return quick_jit(function)(*args)


SEARCHES = "abs", "max", "min", "all"
"""The orders of ``top_paths``; and the list of all paths."""


def check(program, run=in_numpy.run, searches=SEARCHES):
    """The differences between the package and the paths of a program, in float64.

    Args:
        program: a program.
        run: how sweeps are run, ``in_numpy.run`` or ``compiled``.
        searches: which of ``SEARCHES`` to check.

    Raises:
        TooManyPathsError: if it has more than ``MAX_PATHS``.
    """
    with jax.enable_x64(True):
        return Check(program, run).all(searches)


def check_seed(seed, run=in_numpy.run, searches=SEARCHES, families=None):
    """The program of a seed, its end left out where it has too many paths; its differences."""
    with jax.enable_x64(True):
        whole = draw_program(seed, families)
        for length in range(len(whole.steps), 0, -1):
            program = draw_program(seed, families, length)
            try:
                return program, Check(program, run).all(searches)
            except TooManyPathsError:
                continue
            except Exception as error:
                error.add_note(f"seed {seed}:\n{program}")
                raise
    raise AssertionError(f"one step has too many paths: {program}")
