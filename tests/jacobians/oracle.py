"""Every statistic of a function's paths, from the list of its paths.

The paths come from ``enumerate_paths``, one by one. What is computed of their weights here is
written from the definitions, in float64, without any semiring.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import semijax as sj
from semijax.evaluation import Runs, evaluate, read
from semijax.jacobians import Table, equation_jacobian
from semijax.testing import enumerate_paths
from semijax.trace.graph import trace

from ..compilation import quick_jit

RTOL = 1e-4
K = 3


@dataclasses.dataclass(frozen=True)
class BareHull(sj.Semiring):
    """The largest and the smallest weight with the required methods alone, on a trailing axis.

    The largest and the smallest of no paths at all are −∞ and +∞. Being signed, it knows an absent
    edge from one of weight 0; having nothing else, it runs every default of ``Semiring``.
    """

    def zero(self, shape, dtype):
        return jnp.broadcast_to(jnp.array([-jnp.inf, jnp.inf], dtype), (*shape, 2))

    def one(self, shape, dtype):
        return jnp.ones((*shape, 2), dtype)

    def lift(self, weights):
        return jnp.stack([weights, weights], -1)

    def add(self, a, b):
        largest, smallest = jnp.maximum(a, b), jnp.minimum(a, b)
        return jnp.stack([largest[..., 0], smallest[..., 1]], -1)

    def mul(self, a, b):
        products = [a[..., i] * b[..., j] for i, j in itertools.product(range(2), repeat=2)]
        hull = jnp.stack(
            [functools.reduce(jnp.maximum, products), functools.reduce(jnp.minimum, products)], -1
        )
        empty = (a[..., 0] < a[..., 1]) | (b[..., 0] < b[..., 1])
        return jnp.where(empty[..., None], self.zero(empty.shape, a.dtype), hull)


ALL = {
    "sum": sj.SumProduct(),
    "abs sum": sj.AbsSumProduct(),
    "max": sj.MaxProduct(),
    "min": sj.MinProduct(),
    "abs max": sj.AbsMaxProduct(),
    "entropy": sj.Entropy(),
    "length": sj.PathLength(),
    "top": sj.TopK(K),
    "count": sj.PathCount(),
    "reach": sj.Reachability(),
    "bare": BareHull(),
}
LIGHT = {name: ALL[name] for name in ("sum", "abs sum", "max", "min", "abs max", "reach")}
"""Those that compile fast, for the many shapes and layouts of one kind of Jacobian."""


def statistics(weights: np.ndarray, lengths: np.ndarray, alive: np.ndarray) -> dict[str, Any]:
    """What each semiring of ``ALL`` says of some paths.

    Args:
        weights: of each path.
        lengths: the numbers of edges.
        alive: 1 where no edge weighs 0, NaN where that is unknown.
    """
    with np.errstate(all="ignore"):
        mass = np.abs(weights)
        p = mass[mass != 0] / mass.sum()
        best = -np.sort(-mass)  # NaN comes last, and first below
        best = np.concatenate([best[np.isnan(best)], best[~np.isnan(best)], np.zeros(K)])
        return {
            "sum": weights.sum(),
            "abs sum": mass.sum(),
            "max": weights.max(initial=-np.inf),
            "min": weights.min(initial=np.inf),
            "abs max": mass.max(initial=0),
            "entropy": np.abs(-(p * np.log(p)).sum()),
            "length": (p * lengths[mass != 0]).sum(),
            "top": best[:K],
            "count": np.log(alive.sum()),
            "reach": (alive != 0).any(),
            "bare": np.array([weights.max(initial=-np.inf), weights.min(initial=np.inf)]),
        }


def numbers(shape, seed=0, *, negative=False):
    """Of mixed signs or all negative; no two of the same size, none of them near 0."""
    n = int(np.prod(shape))
    values = np.random.default_rng([seed, n]).permutation(0.4 + 1.7 * np.arange(n) / max(n, 1))
    signs = -np.ones(n) if negative else np.where(np.arange(n) % 3 == 1, -1.0, 1.0)
    return (values * signs).reshape(shape).astype(np.float32)


def check(
    fun,
    *args,
    semirings=ALL,
    reference=None,
    reverse=True,
    forward=True,
    against_jax=True,
    axis_name=None,
    labels=None,
    limit=20_000,
):
    """Both sweeps of ``fun`` in every semiring, against all of its paths one by one.

    Cotangents and sources are numbers that tell the elements apart, once of mixed sign and once all
    negative: then an edge of weight 0 is the best there is, and an absent one is not. The sums are
    compared with JAX's own derivatives as well.

    Args:
        fun: a function of real arrays that returns an array or a pytree of them.
        *args: its arguments; paths start from those that are floating.
        semirings: names and semirings, of those in ``ALL``.
        reference: a function with the same paths to enumerate instead of those of ``fun``.
        reverse, forward: which sweeps.
        against_jax: whether JAX can differentiate the function in reverse.
        axis_name: of an axis that is mapped outside of the sweeps, the first of all arguments; the
            paths are those of all members together.
        labels: what to call the arguments where they differ.
        limit: how many paths there may be.
    """
    args = [jnp.asarray(a) for a in args]
    active = [i for i, a in enumerate(args) if jnp.issubdtype(a.dtype, jnp.floating)]
    primals = tuple(args[i] for i in active)

    def of_active(function):
        def called(*primals):
            full = list(args)
            for i, primal in zip(active, primals, strict=True):
                full[i] = primal
            return function(*full)

        return called

    against_jax = against_jax and "sum" in semirings
    mapped = functools.partial(jax.vmap, axis_name=axis_name) if axis_name else lambda f: f
    whole = of_active(mapped(fun))
    fun, reference = of_active(fun), of_active(reference) if reference else whole
    named, out_tree = jax.tree_util.tree_flatten_with_path(jax.eval_shape(whole, *primals))
    out_names, outputs = [jax.tree_util.keystr(path) for path, _ in named], [v for _, v in named]

    def sweeps(primals, cotangents, sources):
        found = {}
        if reverse:
            _, pull = sj.semiring_vjp(fun, *primals, semiring=semirings)
            pulled = pull(
                {name: out_tree.unflatten(map(s.lift, cotangents)) for name, s in semirings.items()}
            )
            found["pull"] = [
                {name: s.readout(elements[name]) for name, s in semirings.items()}
                for elements in pulled
            ]
            if against_jax:
                typed = [c.astype(v.dtype) for c, v in zip(cotangents, outputs, strict=True)]
                found["vjp"] = jax.vjp(fun, *primals)[1](out_tree.unflatten(typed))
        if forward:
            lifted = [{name: s.lift(t) for name, s in semirings.items()} for t in sources]
            _, pushed = sj.semiring_jvp(fun, primals, lifted, semiring=semirings)
            columns = {name: out_tree.flatten_up_to(tree) for name, tree in pushed.items()}
            found["push"] = [
                {name: s.readout(columns[name][n]) for name, s in semirings.items()}
                for n in range(len(outputs))
            ]
        return found

    sweeps = quick_jit(mapped(sweeps))
    paths = list(enumerate_paths(reference, *primals, limit=limit))
    names = [f"[{n}]" for n in range(len(primals))]
    for negative in (False, True):
        cotangents = [numbers(v.shape, 7 + n, negative=negative) for n, v in enumerate(outputs)]
        sources = [numbers(v.shape, 70 + n, negative=negative) for n, v in enumerate(primals)]
        found = sweeps(primals, cotangents, sources)
        if reverse:
            wanted = _expected(paths, names, primals, cotangents, out_names, by_source=True)
            own = [f"argument {labels[n] if labels else n}" for n in active]
            _compare("pull to", own, found["pull"], wanted)
            if against_jax:
                for n, value in enumerate(found["vjp"]):
                    where = f"sum against jax.vjp, {own[n]}"
                    _close(found["pull"][n]["sum"], value, wanted[n]["abs sum"], where)
        if forward:
            wanted = _expected(paths, out_names, outputs, sources, names, by_source=False)
            _compare("push to", [f"output {name}" for name in out_names], found["push"], wanted)


def check_each(cases, **options):
    """``check`` of several functions, compiled together: a dict of (function, *arguments)."""
    counts = [len(args) for _, *args in cases.values()]
    starts = np.cumsum([0, *counts])

    def each(*args):
        return {
            name: fun(*args[start : start + n])
            for (name, (fun, *_)), start, n in zip(cases.items(), starts, counts, strict=False)
        }

    labels = [f"{n} of {name}" for (name, case) in cases.items() for n in range(len(case) - 1)]
    check(each, *[a for _, *args in cases.values() for a in args], labels=labels, **options)


def _expected(paths, names, arrays, factors, factor_names, *, by_source):
    """The statistics at every element of every array, of the paths to it times the factors."""
    factor_of = {
        (name, index): float(factor[index])
        for name, factor in zip(factor_names, map(np.asarray, factors), strict=True)
        for index in np.ndindex(factor.shape)
    }
    found = {}
    for path in paths:
        here, there = (path.source, path.target) if by_source else (path.target, path.source)
        edges = np.array(path.weights)
        alive = np.nan if np.isnan(edges).any() else float((edges != 0).all())
        row = (path.weight * factor_of[there], path.length, alive)
        found.setdefault(here, []).append(row)
    none = statistics(*np.zeros((3, 0)))
    results = []
    for name, array in zip(names, arrays, strict=True):
        result = {key: np.zeros((*array.shape, *np.shape(none[key]))) for key in none}
        for index in np.ndindex(array.shape):
            table = np.array(found.get((name, index), np.zeros((0, 3))), np.float64)
            for key, value in statistics(*table.T).items():
                result[key][index] = value
        results.append(result)
    return results


def _compare(sweep, arrays, found, expected):
    for array, values, wanted in zip(arrays, found, expected, strict=True):
        for name, value in values.items():
            where = f"{name}, {sweep} {array}"
            want = wanted[name]
            if name in ("entropy", "length"):  # an infinite mass has no distribution
                defined = np.isfinite(wanted["abs sum"]) | np.isnan(wanted["abs sum"])
                value, want = np.where(defined, value, 0), np.where(defined, want, 0)
            if name == "top":  # which of its numbers are NaN is unimportant, if the first one is
                value, want = (np.where(np.isnan(x[..., :1]), np.nan, x) for x in (value, want))
            mass = wanted["abs sum"]
            if name in ("top", "bare"):
                mass = mass[..., None]
            _close(value, want, 1.0 if name == "entropy" else mass, where)


def _close(found, wanted, mass, where):
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape, f"{where}: shape {found.shape}, wanted {wanted.shape}"
    with np.errstate(invalid="ignore"):
        tolerance = RTOL * np.abs(wanted) + 1e-5 * np.where(np.isfinite(mass), mass, 0)
        same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
        bad = ~(same | (np.abs(found - wanted) <= tolerance) & np.isfinite(wanted))
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise AssertionError(
            f"{where}: {bad.sum()} of {bad.size} differ; at {at}: {found[at]}, wanted {wanted[at]}"
            f"\nfound\n{found}\nwanted\n{wanted}"
        )


def check_dense(fun, *args):
    """``dense()`` of every local Jacobian of a function, against JAX's derivative of its equation.

    The same through ``push``: one column of the matrix for every element of the input.
    """
    graph, _ = trace(fun, *args)
    checked = 0

    def tables(args):
        values = evaluate(graph, Runs.once(args)).values
        found = []
        for equation in graph.equations:
            if not equation.wrt:
                continue
            inputs = read(values, equation.inputs)
            table = equation_jacobian(equation, *inputs)
            assert isinstance(table, Table)
            for (i, o), jacobian in table.entries.items():

                def output(x, equation=equation, inputs=inputs, i=i, o=o):
                    return equation.bind(*inputs[:i], x, *inputs[i + 1 :])[o]

                found.append(
                    (
                        equation.name,
                        *jacobian.dense(),
                        _columns(jacobian),
                        jax.jacrev(output)(jnp.asarray(inputs[i])),
                    )
                )
        names[:] = [name for name, *_ in found]
        return [arrays for _, *arrays in found]

    names: list[str] = []
    leaves = jax.tree.leaves(args)
    found = quick_jit(tables)([jnp.asarray(a) for a in leaves])
    for name, (weights, present, columns, wanted) in zip(names, found, strict=True):
        np.testing.assert_allclose(weights, wanted, RTOL, 1e-6, err_msg=f"{name}: pull")
        np.testing.assert_allclose(columns, wanted, RTOL, 1e-6, err_msg=f"{name}: push")
        assert present.shape == weights.shape and present.dtype == bool
        assert not np.any((wanted != 0) & ~present), f"{name}: an edge is missing"
        checked += 1
    assert checked, "there is nothing to check"


def _columns(jacobian):
    n = int(np.prod(jacobian.in_shape))
    basis = jnp.eye(n).reshape(n, *jacobian.in_shape)
    pushed = jax.vmap(lambda column: jacobian.push(sj.SumProduct(), column), out_axes=-1)(basis)
    return pushed.reshape(*jacobian.out_shape, *jacobian.in_shape)
