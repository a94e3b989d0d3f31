"""The transformations: JAX's ``grad``, ``vjp`` and ``jvp``, with a semiring."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks, sweep
from semijax import elements as el
from semijax.arguments import paired_leaves, replaced
from semijax.elements import Elements
from semijax.evaluation import Runs, check_finite, evaluate, output_values
from semijax.semirings import Product, Semiring, as_semiring
from semijax.semirings.jitted import Jitted
from semijax.trace.compat import ATOMIC
from semijax.trace.graph import build, reported_as, stage
from semijax.trace.module_scopes import naming_models
from semijax.weighting import DERIVATIVE, Weighting, check_weighting


def semiring_grad(
    fun: Callable[..., Any],
    semiring: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    raw: bool = False,
    aggregate: int | Sequence[int] | None = None,
    granularity: str = "element",
    weighting: Weighting = DERIVATIVE,
) -> Callable[..., Any]:
    """Return the semiring gradient of ``fun``: ``jax.grad``, with a semiring in place of (+, ×).

    The gradient at an input element is the ⊕ over all paths from that element to the output, where
    each path contributes the ⊗ of the local derivatives along it (Du et al. 2023, Eq. 1). With
    ``SumProduct``, the result is that of ``jax.grad``. ``semiring_grad`` composes with ``jit``,
    ``vmap``, ``scan`` and ``grad`` as ``jax.grad`` does.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        semiring: a ``Semiring``, or a tuple, list or dict of them, which are then computed in one
            sweep and returned in that container.
        argnums: the positional argument(s) where paths start. To start at intermediate arrays,
            such as the embeddings of integers, use ``site_grads``.
        has_aux: whether ``fun`` returns a pair of the scalar and something else.
        raw: return the semiring's elements instead of what it reads out of them.
        aggregate: axes of every leaf to ⊕-combine before the readout (ibid., Eq. 3), for instance
            -1 to get a number per token instead of one per hidden unit. Negative axes count from
            the last axis of the leaf.
        granularity: what counts as one step of a path. With ``"element"``, a node is one element of
            an array, and a path leads from element to element (ibid., Eq. 5). With ``"op"``, a step
            is a whole equation, taken as one linear map: contributions are added inside it, and ⊕
            acts only where branches of arrays meet. The paper's own code computes the max in this
            way; the result is not the weight of a path. Semirings whose ⊕ adds (gradient, mass,
            entropy, counts) give the same result with both.
        weighting: the rule that gives edges their weights, by default the local derivative.
            ``Contrast(*reference)`` compares the call with a second one, and ``Relevance()`` with
            0; paths then carry what they contribute. The readout of ``SumProduct`` is the part of
            the difference that comes from each element, that of ``MaxProduct`` the largest
            contribution of a path.

    Returns:
        A function with the arguments of ``fun``. It returns a pytree with the structure of the
        argument(s). Each leaf is the semiring's readout: its shape is that of the argument's leaf
        without the aggregated axes and, if the readout is a weight, its dtype is that of the
        argument's leaf. With ``has_aux``, the function returns a pair of this pytree and the
        auxiliary data.

    Raises:
        TypeError: if ``fun`` does not return a real scalar, an argument to differentiate is not
            real and floating, or ``semiring`` is not a semiring or is not defined at this
            granularity.
        ValueError: if ``argnums`` or ``aggregate`` is out of range, the granularity is unknown,
            or the function cannot be swept in reverse (a ``while_loop``).
        NotImplementedError: where JAX has no derivative for a primitive on the way.

    Example:
        The function of the paper's Figure 1; its paths from x weigh eˣ and y, those from y −y and
        x − y:

        >>> import jax.numpy as jnp, semijax as sj
        >>> f = lambda x, y: jnp.exp(x) + (x - y) * y
        >>> dx, dy = sj.semiring_grad(f, sj.MaxProduct(), argnums=(0, 1))(0.0, 3.0)
        >>> print(dx, dy)
        3.0 -3.0
    """
    value_and_grad = semiring_value_and_grad(
        fun,
        semiring,
        argnums,
        has_aux,
        raw=raw,
        aggregate=aggregate,
        granularity=granularity,
        weighting=weighting,
    )

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"))
    def grad(*args: Any, **kwargs: Any) -> Any:
        value, gradients = value_and_grad(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return grad


INSTEAD = (
    "semijax.site_grads has the gradient at intermediate arrays, such as those computed from this "
    "argument."
)
"""The hint for arguments that have no gradient."""


def semiring_value_and_grad(
    fun: Callable[..., Any],
    semiring: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    raw: bool = False,
    aggregate: int | Sequence[int] | None = None,
    granularity: str = "element",
    weighting: Weighting = DERIVATIVE,
) -> Callable[..., tuple[Any, Any]]:
    """Return the value and the semiring gradient of ``fun``, like ``jax.value_and_grad``.

    Args and Raises are those of ``semiring_grad``.

    Returns:
        A function with the arguments of ``fun`` that returns ``(value, gradients)``, or
        ``((value, aux), gradients)`` with ``has_aux``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> value, g = sj.semiring_value_and_grad(jnp.sum, sj.PathLength())(jnp.ones(3))
        >>> print(value, g)
        3.0 [1. 1. 1.]
    """
    checks.check_callable(fun)
    checked = as_semiring(semiring, granularity)
    chosen_argnums = checks.check_argnums(argnums)
    check_weighting(weighting)

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"))
    def value_and_grad(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        chosen = checks.positions(chosen_argnums, args)
        primals = tuple(args[i] for i in chosen)
        checks.check_inputs("semiring_grad", primals, INSTEAD)

        @reported_as(fun)
        def of_args(*args: Any) -> Any:
            return fun(*args, **kwargs)

        traced = _Traced(of_args, args, has_aux, weighting, chosen)
        checks.check_scalar(traced.out_shapes)
        out = traced.out
        cotangent = checked.one((), el.accumulation_dtype(out.dtype))
        pulled = traced.pull(checked, [cotangent], contributions=True)
        leaves = traced.leaves
        if aggregate is not None:
            axes = [checks.normalise_axes(aggregate, leaf.ndim) for leaf in leaves]
            pulled = [checked.sum(e, a) for e, a in zip(pulled, axes, strict=True)]

        def gradients(member: Semiring, elements: Sequence[Elements]) -> Any:
            read = [
                e if raw else _read_out(member, e, leaf.dtype)
                for e, leaf in zip(elements, leaves, strict=True)
            ]
            tree = jax.tree.unflatten(traced.tree, read)
            return tree[0] if isinstance(chosen_argnums, int) else tree

        value = (out, traced.aux) if has_aux else out
        return value, _for_each_member(checked, pulled, gradients)

    return value_and_grad


def semiring_vjp(
    fun: Callable[..., Any],
    *primals: Any,
    semiring: Any,
    has_aux: bool = False,
    weighting: Weighting = DERIVATIVE,
) -> tuple[Any, ...]:
    """Compute the semiring's vector-Jacobian product: ``jax.vjp``, elements in and elements out.

    Args:
        fun: a function of arrays or pytrees of arrays that returns any pytree of arrays.
        *primals: where to differentiate it.
        semiring: as for ``semiring_grad``.
        has_aux: whether ``fun`` returns a pair of its output and something else.
        weighting: as for ``semiring_grad``. The elements combine the edges' weights alone, without
            what paths carry at their start, so between two equal runs they are those of
            derivatives.

    Returns:
        ``(out, pull)``, or ``(out, pull, aux)`` with ``has_aux``. ``pull(elements)`` takes a pytree
        like the output, with the semiring's elements at its leaves; ``semiring.lift(ct)`` makes
        elements from an array of numbers. ``None`` at a leaf stands for 0̄. Without an argument,
        every output element gets 1̄. ``pull`` returns a tuple with the elements of every primal;
        for a container of semirings, each primal's elements come in that container.

    Raises:
        TypeError, ValueError, NotImplementedError: as ``semiring_grad``, but for any output shape.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> s = sj.MaxProduct()
        >>> out, pull = sj.semiring_vjp(jnp.cumsum, jnp.arange(3.0), semiring=s)
        >>> (elements,) = pull(s.lift(jnp.array([2.0, -1.0, 1.0])))
        >>> print(s.readout(elements))
        [2. 1. 1.]
    """
    checks.check_callable(fun)
    checked = as_semiring(semiring)
    checks.check_inputs("semiring_vjp", primals)
    traced = _Traced(fun, primals, has_aux, check_weighting(weighting))

    def pull(elements: Any = None) -> tuple[Any, ...]:
        if elements is None:
            cotangents = [_one(checked, v) if _has_nodes(v) else None for v in traced.outputs]
        else:
            cotangents = _match(checked, elements, traced.out_tree, traced.outputs, "output")
        pulled = traced.pull(checked, cotangents)
        return _per_primal(checked, traced.tree, pulled)

    return (traced.out, pull, traced.aux) if has_aux else (traced.out, pull)


def semiring_jvp(
    fun: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    semiring: Any,
    has_aux: bool = False,
    weighting: Weighting = DERIVATIVE,
) -> tuple[Any, ...]:
    """Compute the semiring's Jacobian-vector product, by a forward sweep.

    The local Jacobians are those of ``semiring_grad``. One forward sweep gives all outputs for one
    set of tangents, whereas ``semiring_grad`` gives all inputs for one output. Unlike a reverse
    sweep, a forward sweep can follow a ``while_loop``.

    Args:
        fun: a function of arrays or pytrees of arrays that returns any pytree of arrays.
        primals: a tuple of arguments.
        tangents: for every primal a pytree like it with the semiring's elements at its leaves:
            ``semiring.lift(t)`` of numbers ``t``, for instance; ``None`` for a primal that no path
            starts from.
        semiring: as for ``semiring_grad``.
        has_aux: whether ``fun`` returns a pair of its output and something else.
        weighting: as for ``semiring_grad``. The tangents are what paths carry where they start: for
            contributions, ``semiring.lift`` of the difference between the two runs.

    Returns:
        ``(out, elements)``, or ``(out, elements, aux)`` with ``has_aux``: the function's value, and
        the semiring's elements of the output: the ⊕ over all paths of tangent ⊗ path. A container
        of semirings returns that container of elements.

    Raises:
        TypeError, ValueError, NotImplementedError: as ``semiring_grad``.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> s = sj.PathCount()
        >>> x = jnp.arange(1.0, 4.0)
        >>> ones = s.one(x.shape, x.dtype)
        >>> _, log_count = sj.semiring_jvp(jnp.cumsum, (x,), (ones,), semiring=s)
        >>> print(jnp.exp(log_count).round())
        [1. 2. 3.]
    """
    checks.check_callable(fun)
    checked = as_semiring(semiring)
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise TypeError(
            "primal and tangent arguments to semijax.semiring_jvp must be tuples or lists; "
            f"found {type(primals).__name__} and {type(tangents).__name__}."
        )
    if len(primals) != len(tangents):
        raise TypeError(
            "primal and tangent arguments to semijax.semiring_jvp must have the same length; "
            f"found {len(primals)} and {len(tangents)}."
        )
    checks.check_inputs("semiring_jvp", primals)
    traced = _Traced(fun, tuple(primals), has_aux, check_weighting(weighting), backward=False)
    elements: list[Elements | None] = []
    variables = iter(traced.graph.inputs)
    for primal, tangent in zip(primals, tangents, strict=True):
        leaves, tree = jax.tree.flatten(primal)
        own = [next(variables) for _ in leaves]
        elements += (
            [None] * len(own) if tangent is None else _match(checked, tangent, tree, own, "primal")
        )
    pushed = traced.push(checked, elements)
    found = _for_each_member(checked, pushed, lambda _, e: jax.tree.unflatten(traced.out_tree, e))
    return (traced.out, found, traced.aux) if has_aux else (traced.out, found)


def aggregate(elements: Any, semiring: Any, axes: int | Sequence[int] | None = None) -> Any:
    """Combine elements over axes with ⊕: the aggregated derivative of Du et al. 2023, Eq. 3.

    The parameter ``aggregate`` of other functions does this before the readout.

    Args:
        elements: a semiring's elements, or a pytree with such at its leaves.
        semiring: the semiring they belong to.
        axes: the axis or axes of the array (not of the trailing axes that some elements have);
            all of them by default.

    Returns:
        Elements with those axes removed.

    Raises:
        TypeError: if they are not arrays.
        ValueError: if an axis is out of range or given twice.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> s = sj.TopK(2)
        >>> g = sj.semiring_grad(lambda x: (x * jnp.arange(4.0)).sum(), s, raw=True)(jnp.ones(4))
        >>> print(sj.aggregate(g, s, 0))
        [3. 2.]
    """
    checked = as_semiring(semiring)
    for leaf in jax.tree.leaves(elements):
        if not _is_array(leaf):
            raise TypeError(
                "aggregate expects a semiring's elements, arrays or pytrees of arrays, "
                f"got {leaf!r} of type {type(leaf).__name__}."
            )

    def combine(member: Semiring, tree: Any) -> Any:
        structure = jax.tree.structure(member.element_type())

        def one(e: Elements) -> Elements:
            ndim = len(member.shape(e))
            own = tuple(range(ndim)) if axes is None else axes
            return member.sum(e, checks.normalise_axes(own, ndim))

        return jax.tree.map(one, tree, is_leaf=lambda t: jax.tree.structure(t) == structure)

    if isinstance(checked, Product):
        parts = checked.split(elements)
        return checked.container.unflatten(
            [combine(m, part) for m, part in zip(checked.members, parts, strict=True)]
        )
    return combine(checked, elements)


def atomic(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function one equation of the graph: paths pass through it by its own Jacobian.

    The paths inside the function are summed, as in an ordinary gradient; seen from outside, it is a
    single equation. Use it to make the graph coarser on purpose: a softmax as one step, or a whole
    layer as one step.

    Args:
        fun: a function of arrays or pytrees of arrays; bind anything else with
            ``functools.partial``.

    Returns:
        A function with the same arguments and values, under every JAX transformation.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> square = lambda x: x * x
        >>> count = lambda f: float(jnp.exp(sj.semiring_grad(f, sj.PathCount())(3.0)))
        >>> print(count(square), count(sj.atomic(square)))
        2.0 1.0
    """
    checks.check_callable(fun)
    name = getattr(fun, "__name__", type(fun).__name__)

    @functools.wraps(fun)
    def node(*args: Any, **kwargs: Any) -> Any:
        return fun(*args, **kwargs)

    node.__name__ = node.__qualname__ = ATOMIC + name
    return functools.wraps(fun)(jax.jit(node))


class _Traced:
    """A function traced and evaluated at its arguments, ready for sweeps.

    Paths start at the arguments at some positions, its primals. Whatever else differs in the run it
    is compared with is traced too.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        args: tuple[Any, ...],
        has_aux: bool,
        weighting: Weighting,
        chosen: Sequence[int] | None = None,
        *,
        backward: bool = True,
    ) -> None:
        chosen = range(len(args)) if chosen is None else chosen
        self.tree = jax.tree.structure(tuple(args[n] for n in chosen))
        everything = paired_leaves(args, weighting.reference, chosen)
        primals = [leaf for n in chosen for leaf in everything if leaf.argnum == n]
        others = [leaf for leaf in everything if leaf.differs and leaf.argnum not in chosen]
        runs = Runs.of_arguments([*primals, *others], weighting, backward=backward)
        self.leaves = list(runs.inputs[0][: len(primals)])
        aux_leaves: list[Any] = []
        aux_tree = None

        @reported_as(fun)  # so that JAX's errors name the user's function
        def with_arrays_of_aux(*arrays: Any) -> Any:
            nonlocal aux_leaves, aux_tree
            names = (leaf.name for leaf in (*primals, *others))
            given = replaced(args, everything, dict(zip(names, arrays, strict=True)))
            with naming_models(given):
                result = fun(*given)
            if not has_aux:
                return result, []
            out, aux = _pair(result)
            aux_leaves, aux_tree = jax.tree.flatten(aux)
            return out, [leaf for leaf in aux_leaves if _is_array(leaf)]

        closed, (self.out_shapes, _) = stage(with_arrays_of_aux, *runs.inputs[0])
        starting = [n < len(primals) for n in range(len(runs.inputs[0]))]
        self.graph = build(closed, active=starting)
        self.out_tree = jax.tree.structure(self.out_shapes)
        self.at = evaluate(self.graph, runs)
        results = output_values(self.graph, self.at.values)
        n = self.out_tree.num_leaves
        self.outputs = jax.tree.leaves(self.out_shapes)
        self.out = jax.tree.unflatten(self.out_tree, map(jnp.asarray, results[:n]))
        arrays = iter(results[n:])
        filled = [next(arrays) if _is_array(leaf) else leaf for leaf in aux_leaves]
        self.aux = jax.tree.unflatten(aux_tree, filled) if has_aux else None
        self.n_aux = len(results) - n

    def pull(
        self,
        semiring: Semiring,
        cotangents: Sequence[Elements | None],
        *,
        contributions: bool = False,
    ) -> list[Elements]:
        """Pull elements to every leaf of the primals; contributions include what paths carry."""
        given = [*cotangents, *[None] * self.n_aux]
        jitted = Jitted(semiring)
        pulled = sweep.pull(self.graph, jitted, self.at, given)
        primals = self.graph.inputs[: len(self.leaves)]
        found = pulled[: len(primals)]
        if contributions:
            found = [
                None if element is None else self.at.started(jitted, v, element)
                for v, element in zip(primals, found, strict=True)
            ]
        check_finite(self.graph, semiring, self.at, found)
        return _filled(semiring, primals, found)

    def push(self, semiring: Semiring, tangents: Sequence[Elements | None]) -> list[Elements]:
        """Push elements to every leaf of the output."""
        pushed = sweep.push(self.graph, Jitted(semiring), self.at, tangents)
        pushed = pushed[: len(self.outputs)]  # without the auxiliary ones
        check_finite(self.graph, semiring, self.at, pushed)
        return _filled(semiring, self.outputs, pushed)


def _row(semiring: Product, elements: Sequence[Any]) -> Any:
    """Put the members' elements of one leaf into their container."""
    missing = [e is None for e in elements]
    if any(missing) and not all(missing):
        raise TypeError("None stands for no path in every semiring of a container, or in none.")
    return None if any(missing) else semiring.container.unflatten(elements)


def _pair(result: Any) -> tuple[Any, Any]:
    if not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise TypeError(
            "With has_aux=True the function must return a pair of its output and auxiliary data, "
            f"got {type(result).__name__}."
        )
    return result[0], result[1]


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def _filled(
    semiring: Semiring, avals: Sequence[Any], found: Sequence[Elements | None]
) -> list[Any]:
    """Write out 0̄ in full where a sweep left it symbolic."""
    return [
        semiring.zero(el.node_shape(v), _dtype(v)) if e is None else e
        for v, e in zip(avals, found, strict=True)
    ]


def _dtype(aval: Any) -> Any:
    return el.accumulation_dtype(aval.dtype if _has_nodes(aval) else jnp.float32)


def _has_nodes(aval: Any) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.inexact)


def _one(semiring: Semiring, aval: Any) -> Elements:
    return semiring.one(el.node_shape(aval), _dtype(aval))


def _match(semiring: Semiring, given: Any, tree: Any, avals: Sequence[Any], what: str) -> list[Any]:
    """Return the elements at the leaves of ``given``, checked against the arrays they belong to."""
    members = semiring.members if isinstance(semiring, Product) else (semiring,)
    parts = semiring.split(given) if isinstance(semiring, Product) else (given,)
    try:
        columns = [tree.flatten_up_to(part) for part in parts]
    except ValueError as error:
        raise TypeError(
            f"The tree structure of the elements does not match that of the {what}, {tree}: {error}"
        ) from error
    for member, column in zip(members, columns, strict=True):
        for aval, elements in zip(avals, column, strict=True):
            if elements is None:
                continue
            expected = jax.eval_shape(lambda m=member, v=aval: m.zero(el.node_shape(v), _dtype(v)))
            _check_elements(member, elements, expected, what)
    if not isinstance(semiring, Product):
        return columns[0]
    return [_row(semiring, row) for row in zip(*columns, strict=True)]


def _check_elements(semiring: Semiring, elements: Any, expected: Any, what: str) -> None:
    name = type(semiring).__name__
    got, wanted = jax.tree.structure(elements), jax.tree.structure(expected)
    if got != wanted:
        raise TypeError(
            f"Expected elements of {name}, {wanted}, for a leaf of the {what}, got {got}. "
            "The semiring's lift(numbers) makes elements from numbers."
        )
    for leaf, like in zip(jax.tree.leaves(elements), jax.tree.leaves(expected), strict=True):
        if jnp.shape(leaf) != like.shape:
            raise ValueError(
                f"Elements of {name} for a leaf of the {what} must have shape {like.shape}, "
                f"got {jnp.shape(leaf)}."
            )


def _per_primal(semiring: Semiring, tree: Any, elements: list[Elements]) -> tuple[Any, ...]:
    """Return a tuple over the primals; for a container of semirings, a tuple of such containers."""
    by_member = _for_each_member(semiring, elements, lambda _, e: jax.tree.unflatten(tree, e))
    if not isinstance(semiring, Product):
        return by_member
    columns = semiring.split(by_member)
    return tuple(semiring.container.unflatten(row) for row in zip(*columns, strict=True))


def _for_each_member(
    semiring: Semiring, elements: Sequence[Elements], build: Callable[[Semiring, Any], Any]
) -> Any:
    """Return ``build(semiring, elements)``; for a container of semirings, in that container."""
    if not isinstance(semiring, Product):
        return build(semiring, elements)
    split = [semiring.split(e) for e in elements]
    columns = zip(*split, strict=True) if split else [()] * len(semiring.members)
    return semiring.container.unflatten(
        [build(m, list(c)) for m, c in zip(semiring.members, columns, strict=True)]
    )


def _read_out(semiring: Semiring, elements: Elements, dtype: Any) -> Any:
    result = semiring.readout(elements)
    if semiring.units != "weight":
        return result
    return jax.tree.map(lambda leaf: leaf.astype(dtype), result)
