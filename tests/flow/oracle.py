"""All paths of a function, and what sites, branches and components are to say of them.

The paths come from ``enumerate_paths``, also those that begin at a site: ``mark`` is a ``tap`` to
which the brute force adds numbers that are 0, so that paths start there too. Every statistic of
them is computed from its definition, without a semiring.
"""

import contextlib
import dataclasses
import fnmatch
import functools
import itertools
import math

import jax.numpy as jnp
import numpy as np

import semijax as sj
from semijax.flow import branch_flow, component_flow, list_sites, site_flow, site_grads, tap
from semijax.testing import enumerate_paths

from ..compilation import quick_jit
from ..jacobians.oracle import ALL as OTHERS
from ..jacobians.oracle import statistics

SIZE = 8
"""How many different values ``at`` may have: iterations of loops, uses of a module."""

STARTS = [None]


def mark(h, name, at=0):
    """A tap; ``at`` tells apart those of one name, by iteration or use, for the brute force."""
    zeros = STARTS[-1]
    if zeros == "bare":
        return h
    zero = np.zeros((), h.dtype) if zeros is None else zeros[at].astype(h.dtype)
    return tap(h + zero, name)


@contextlib.contextmanager
def marked_by(zeros):
    STARTS.append(zeros)
    try:
        yield
    finally:
        STARTS.pop()


def feature(equation):
    return {"sin": 2.0, "mul": 1.0, "dot_general": -0.5}.get(equation.primitive.name, 0.0)


ALL = OTHERS | {"feature": sj.Expectation(feature)}  # "bare" among them is a user's own
MEANS = ("entropy", "length", "feature")
LOGS = ("count", *MEANS)
PARTS = [
    {name: ALL[name] for name in ("sum", "max", "entropy", "reach", "feature")},
    {name: ALL[name] for name in ("abs sum", "min", "top", "count")},
    {name: ALL[name] for name in ("abs max", "length", "bare")},
]
PAIRS = [{name: ALL[name] for name in [*ALL][n : n + 2]} for n in range(0, len(ALL), 2)]


class Brute:
    """All paths: complete ones, and those from the elements of marks to the output."""

    def __init__(self, fun, args, argnums=(0,), limit=60_000):
        def started(zeros, *args):
            with marked_by(zeros):
                return fun(*args)

        sources = (0, *(n + 1 for n in argnums))
        paths = enumerate_paths(started, jnp.zeros(SIZE), *args, argnums=sources, limit=limit)
        graph = self.graph = paths._graph
        self.features = np.array([feature(equation) for equation in graph.equations] or [0.0])
        self.complete, self.beyond = [], {}
        for path in paths:
            edges = np.array(path.edges, int)
            if path.source[0] != "[0]":
                self.complete.append(edges)
                continue
            n = path.primitives.index("name")
            name = self.equation(edges[n]).params["name"]
            key = name, path.source[1][0], path.nodes[n][1]
            node, found = self.beyond.setdefault(key, (graph.heads[edges[n]], []))
            assert node == graph.heads[edges[n]]
            found.append(edges[n + 1 :])

    def equation(self, edge):
        return self.graph.equations[self.graph.equation_of[edge]]

    def after(self, *key):
        """The paths from an element to the output."""
        return self.beyond.get(key, (None, []))[1]

    def passing(self, *key):
        """The complete paths that pass an element."""
        node = self.beyond.get(key, (-1, []))[0]
        return [edges for edges in self.complete if (self.graph.heads[edges] == node).any()]

    def components(self, edges, depth):
        """How many edges of a path lie in each component."""
        scopes = [self.equation(edge).scope for edge in edges]
        names = ["/".join(scope.split("/")[:depth]) or "(outside)" for scope in scopes]
        return {name: names.count(name) for name in names}

    def of(self, paths):
        """Every statistic of some paths."""
        weights = [self.graph.weights[edges] for edges in paths]
        products = np.array([w.prod() for w in weights])
        alive = np.array([float((w != 0).all()) for w in weights])
        found = statistics(products, np.array([len(w) for w in weights], float), alive)
        features = [self.features[self.graph.equation_of[edges]].sum() for edges in paths]
        return found | {"feature": self.mean(paths, features)}

    def mean(self, paths, values):
        p = np.abs([self.graph.weights[edges].prod() for edges in paths])
        return (p / p.sum() * np.array(values)).sum() if p.sum() else 0.0

    def table(self, shape, paths_at):
        """Every statistic of the paths at every index of a shape."""
        none = self.of([])
        cells = [self.of(paths_at(index)) for index in np.ndindex(shape)]
        return {
            key: np.array([c[key] for c in cells]).reshape((*shape, *np.shape(none[key])))
            for key in none
        }


def close(found, wanted, where, rtol=1e-4):
    """Compare what semirings say with every statistic; numbers that cancel by their mass."""
    for key, value in found.items():
        got, want = np.asarray(value, np.float64), np.asarray(wanted[key], np.float64)
        mass = np.asarray(wanted["abs sum"], np.float64)
        slack = 1.0 if key in LOGS else mass[(...,) + (None,) * (want.ndim - mass.ndim)]
        assert got.shape == want.shape, f"{where}, {key}: {got.shape}, wanted {want.shape}"
        with np.errstate(invalid="ignore"):
            same = (got == want) | (np.abs(got - want) <= rtol * (np.abs(want) + 0.1 * slack))
        assert same.all(), f"{where}, {key}:\nfound {got}\nwanted {want}"


def sizes(cell, kind):
    """What shares are of: the absolute value of a weight, a mass, a number of paths."""
    if kind == "count":
        return np.exp(cell["count"])
    return np.abs(cell["abs sum" if kind in MEANS else kind])


SIZED = ("sum", "abs sum", "max", "min", "abs max", "count", *MEANS)


@dataclasses.dataclass(frozen=True)
class Case:
    """A function, and what is known of it.

    Attributes:
        args: its arguments; those at ``argnums`` are where complete paths start.
        sites: names of arrays, to the marks that are the same arrays; the marks by default.
        loops: the lengths of the loops a mark lies in; in reverse it makes no difference.
        branches: by mark and branch, globs over the scopes and names of the equations that read it.
    """

    fun: object
    args: tuple
    sites: object = ("h",)
    loops: dict = dataclasses.field(default_factory=dict)
    branches: dict = dataclasses.field(default_factory=dict)
    argnums: tuple = (0,)
    depths: tuple = (1, None)
    groups: object = None
    of: tuple = ("grads", "flow", "branch", "component")

    @property
    def marks(self):
        return self.sites if isinstance(self.sites, dict) else {name: name for name in self.sites}


def measured(case, semirings, some=None, **options):
    """All that is to be compared, of a function's arguments; of some semirings what is slow."""
    fun, sites, argnums = case.fun, list(case.sites), case.argnums
    some = some or semirings

    def everything(*args):
        found = {}
        if "grads" in case.of:
            found["grads"] = site_grads(fun, semirings, sites, **options)(*args)
        if "flow" in case.of:
            found["flow"] = site_flow(fun, semirings, sites, argnums, **options)(*args)
        if "branch" in case.of:
            found["oplus"] = branch_flow(fun, semirings, sites, case.groups, **options)(*args)
        if case.branches:
            found["sum"] = branch_flow(fun, some, sites, case.groups, "sum", **options)(*args)
        if "component" in case.of:
            flows = [
                component_flow(fun, some, d, argnums, iterations=False, **options)(*args)
                for d in case.depths
            ]
            found["component"] = flows
        return found

    return everything


def by_semiring(results, *path):
    """``{semiring: result[path]}`` of results in a dict of semirings."""
    return {key: functools.reduce(lambda r, p: r[p], path, r) for key, r in results.items()}


def keys_of(case, name):
    """What the brute force calls the elements of a site."""
    base, _, use = name.partition("#")
    base = case.marks.get(base, base.split("/")[-1])
    loops = case.loops.get(base, ())
    start = (int(use or 1) - 1) * math.prod(loops)

    def key(index):
        at = int(np.ravel_multi_index(index[: len(loops)], loops)) if loops else 0
        return base, start + at, index[len(loops) :]

    return key


def shapes_of(case):
    """The shapes of a case's sites, by the names that results have."""
    rows = list_sites(case.fun)(*case.args)
    return {
        name: row.shape
        for row in rows
        for name in row.names
        if (base := name.split("#")[0]) in case.marks
        or (row.primitive == "name" and base.split("/")[-1] in case.marks)
    }


def check_case(case, semirings=ALL, some=None, rtol=1e-4, jit=quick_jit):
    brute = Brute(case.fun, case.args, case.argnums)
    found = jit(measured(case, semirings, some))(*case.args)
    same = functools.partial(close, rtol=rtol)
    everything = brute.of(brute.complete)
    for name, spec in shapes_of(case).items():
        key = keys_of(case, name)
        if "grads" in found:
            wanted = brute.table(spec, lambda i, key=key: brute.after(*key(i)))
            same(by_semiring(found["grads"], name), wanted, name)
        if "flow" in found:
            passing = brute.table(spec, lambda i, key=key: brute.passing(*key(i)))
            same(by_semiring(found["flow"], name), passing, f"flow {name}")
            shares = {k: f.share()[name] for k, f in found["flow"].items() if k in SIZED}
            check_shares(shares, passing, everything, f"flow share {name}", rtol)
        for reduce in ("oplus", "sum"):
            if reduce in found:
                check_branches(case, brute, reduce, found[reduce], name, spec, key, same)
    if "flow" in found:
        totals = {k: f.total for k, f in found["flow"].items()}
        same(totals, everything, "flow total")
    for depth, component in zip(case.depths, found.get("component", ()), strict=False):
        check_components(brute, component, depth, everything, same, rtol)


def check_shares(shares, parts, whole, where, rtol):
    for kind, share in shares.items():
        with np.errstate(all="ignore"):
            wanted = sizes(parts, kind) / sizes(whole, kind)
            known = np.isfinite(wanted) & np.isfinite(whole["max"]) & (sizes(parts, kind) > 1e-4)
        got, wanted = np.where(known, share, 0), np.where(known, wanted, 0)
        assert np.allclose(got, wanted, 30 * rtol, 1e-5), f"{where}, {kind}: {got}, {wanted}"


def check_branches(case, brute, reduce, flows, name, shape, key, same):
    """Each branch, all together, and which one wins."""
    globs = case.branches.get(key((0,) * len(shape))[0])
    hidden = shape or (1,)
    names = dict(next(iter(flows.values())).branches)[name]

    def first(edges):
        if not len(edges):
            return "(output)"
        equation = brute.equation(edges[0])
        return f"{equation.scope}/{equation.name}".lstrip("/")

    def through(branch, index):
        for path in brute.after(*key(index if shape else ())):
            if branch is None or any(fnmatch.fnmatchcase(first(path), g) for g in globs[branch]):
                yield path

    def table(branch):
        if reduce == "oplus":
            units = range(hidden[-1])
            return brute.table(
                hidden[:-1], lambda i: [p for u in units for p in through(branch, (*i, u))]
            )
        unit = brute.table(hidden, lambda i: [*through(branch, i)])
        return {k: v.sum(len(hidden) - 1) for k, v in unit.items()}

    if reduce == "oplus" and names:  # all branches together are the gradient at the site
        parts = {k: f.elements[name].values() for k, f in flows.items()}
        added = {k: functools.reduce(ALL[k].add, own) for k, own in parts.items()}
        together = {k: ALL[k].readout(elements) for k, elements in added.items()}
        same(together, table(None), f"all branches of {name}")
    if globs is None:
        return
    assert set(names) == set(globs), f"{name}: branches {names}"
    cells = {branch: table(branch) for branch in names}
    for branch, cell in cells.items():
        same(by_semiring(flows, name, branch), cell, f"{reduce} {name}: {branch}")
    if reduce == "oplus":
        check_winners(flows, name, cells, [*np.ndindex(hidden[:-1])])


def check_winners(flows, name, cells, lines):
    for kind in flows.keys() & set(SIZED):
        winner, alone = flows[kind].winner()[name], flows[kind].only_winners()[name]
        shares = flows[kind].share()[name]
        for i in lines:
            there = {b: {k: v[i] for k, v in cell.items()} for b, cell in cells.items()}
            rank = {b: sizes(c, kind) for b, c in there.items()}
            if kind in ("max", "min"):
                signed = 1 if kind == "max" else -1
                rank = {b: signed * c[kind] for b, c in there.items() if np.isfinite(c[kind])}
            best = max(rank.values(), default=0)
            chosen = str(winner[i])
            if not chosen:
                assert not rank or (kind not in ("max", "min") and best == 0), (kind, name, i)
            else:
                assert rank[chosen] >= best - 1e-4 * (1 + abs(best)), (kind, name, i, chosen)
            for branch in cells:
                value = there[branch][kind] if branch == chosen else 0
                assert np.allclose(alone[branch][i], value, 1e-3, 1e-4), (kind, name, branch)
            total = sum(sizes(c, kind) for c in there.values() if np.isfinite(c["max"]))
            for branch, c in there.items():
                part = sizes(c, kind) / total if np.isfinite(c["max"]) and total else 0
                assert np.allclose(shares[branch][i], part, 1e-3, 1e-4), (kind, name, branch)


def check_components(brute, component, depth, everything, same, rtol):
    counts = [brute.components(edges, depth) for edges in brute.complete]
    one = next(iter(component.values()))
    assert set(itertools.chain(*counts)) <= set(one.names)
    same({k: f.total for k, f in component.items()}, everything, "component total")
    for name in one.names:
        paths = [p for p, own in zip(brute.complete, counts, strict=True) if name in own]
        entering, where = brute.of(paths), f"component {name} at depth {depth}"
        same(by_semiring(component, name), entering, where)
        edges = brute.mean(brute.complete, [own.get(name, 0) for own in counts])
        np.testing.assert_allclose(one.edges[name], edges, 10 * rtol, 1e-5, err_msg=where)
        shares = {k: f.share()[name] for k, f in component.items() if k in SIZED}
        check_shares(shares, entering, everything, where, rtol)
    total = sum(np.asarray(edges) for edges in one.edges.values())
    np.testing.assert_allclose(total, everything["length"], 10 * rtol, 1e-5)
