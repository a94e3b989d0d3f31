"""A ``shard_map`` or ``pmap`` inside a function, read as the ``vmap`` it stands for.

Each device runs the body on its part of the arrays. A single device that maps the body over an
axis, with an index for each device, computes the same numbers along the same paths; collectives in
the body are then sums, transpositions and the like over that axis. So the equations of the body's
``vmap`` take the place of the ``shard_map``, and sweeps, path searches and sites need not know of
devices. The arrays that come in are told to stay split among the devices as they were; XLA places
the rest accordingly.

An array that is split gets axes for those of the mesh: that is one edge of weight 1 (two on several
devices, because of the constraint), and another where an output is joined. A conditional whose test
differs among the devices is a selection, as under any ``vmap``.

A jaxpr that was traced for devices speaks of their mesh throughout: in the types of its arrays, in
collectives, in custom derivatives. It is therefore evaluated anew, equation by equation.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import source_info_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from semijax.trace import compat
from semijax.trace.primitives import primitive
from semijax.trace.regions import region_of

_DONE: weakref.WeakKeyDictionary[Any, tuple[dict[str, Any], Any]] = weakref.WeakKeyDictionary()


def called_jaxpr(equation: Any) -> Any | None:
    """Return the jaxpr that an equation merely calls; None if it does more or is to stay one node.

    A ``shard_map`` calls its body by ``vmap``. One that has none stays an equation, which does no
    harm where no path leads through; ``as_vmap`` says why.
    """
    if equation.primitive is not compat.SHARD_MAP:
        return compat.called_jaxpr(equation)
    try:
        return as_vmap(equation)
    except ValueError:
        return None


def as_vmap(equation: Any) -> Any:
    """Return the closed jaxpr of the ``vmap`` that a ``shard_map`` stands for.

    Raises:
        ValueError: if there is none.
    """
    params = equation.params
    of, found = _DONE.get(params["jaxpr"], ({}, None))
    if of == params:
        return found
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
    try:
        with source_info_util.user_context(equation.source_info.traceback):
            found = jax.make_jaxpr(lambda *args: _Members().shard_map(params, args))(*shapes)
    except Exception as error:  # whatever JAX raises where it cannot map something
        line = source_info_util.summarize(equation.source_info)
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            "Paths through a shard_map or pmap are those through the vmap that it stands for, and "
            f"this one has none, at {line} ({type(error).__name__}: {reason}). Map with jax.vmap "
            "instead, or wrap the function in semijax.atomic, which makes it one equation."
        ) from error
    _DONE[params["jaxpr"]] = params, found
    return found


@dataclasses.dataclass(frozen=True)
class _Members:
    """An evaluator of what was traced for the devices of a mesh, with a ``vmap`` in their place.

    Attributes:
        mesh: the mesh; None outside every ``shard_map``.
        names: those of its axes that are mapped.
        check_vma: whether its arrays say which axes they vary over.
    """

    mesh: Any = None
    names: frozenset[str] = frozenset()
    check_vma: bool = False

    def shard_map(self, params: dict[str, Any], args: Sequence[Any]) -> list[Any]:
        """Map the body over an axis for each axis of the mesh that it is mapped over."""
        mesh, body, own = params["mesh"], params["jaxpr"], params["newly_manual_axes"]
        outermost = mesh if self.mesh is None else self.mesh
        inner = _Members(outermost, self.names | own, params["check_vma"])
        names = [name for name in mesh.axis_names if name in own]
        ins, outs = (
            [_Split(mesh, spec, v.aval.shape) for spec, v in zip(specs, variables, strict=True)]
            for specs, variables in (
                (params["in_specs"], body.invars),
                (params["out_specs"], body.outvars),
            )
        )
        parts = [split.apart(arg) for split, arg in zip(ins, args, strict=True)]

        def mapped(choose: bool) -> Sequence[Any]:
            function: Callable[..., Any] = functools.partial(inner.evaluate, body, ())
            for n in reversed(range(len(names))):
                name, outer = names[n], names[:n]
                if choose:
                    function = _of_first_member(function, name, [split.has(name) for split in outs])
                function = jax.vmap(
                    functools.partial(_without_first, function),
                    in_axes=(0, *(split.position(name, outer) for split in ins)),
                    out_axes=[split.position(name, outer) for split in outs],
                    axis_name=name,
                )
                function = functools.partial(function, np.arange(mesh.shape[name]))
            return function(*parts)

        try:
            results = mapped(choose=False)
        except ValueError:  # JAX does not see that all members return the same
            results = mapped(choose=True)
        return [split.together(result) for split, result in zip(outs, results, strict=True)]

    def evaluate(
        self, jaxpr: Any, consts: Sequence[Any], *args: Any, traceback: Any = None
    ) -> list[Any]:
        """Evaluate a jaxpr.

        Args:
            jaxpr: an open jaxpr.
            consts: its constants.
            *args: one for each of its inputs.
            traceback: the line to report for all of it; by default those it was traced from.
        """
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

        def read(atom: Any) -> Any:
            return compat.literal(atom) if isinstance(atom, compat.Literal) else values[atom]

        for equation in jaxpr.eqns:
            info = equation.source_info
            stack = source_info_util.current_name_stack() + info.name_stack
            line = traceback or info.traceback
            with source_info_util.user_context(line, name_stack=stack):
                results = self._equation(equation, [read(atom) for atom in equation.invars], line)
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, values: Sequence[Any], line: Any) -> Sequence[Any]:
        known, params = equation.primitive, equation.params
        if known in _REPLACED:
            return [_REPLACED[known](values[0], **params)]
        if known is compat.SHARD_MAP:
            return self.shard_map(params, values)
        if compat.is_atomic(equation):
            return self._call(params["jaxpr"], values, params["name"])
        if (called := compat.called_jaxpr(equation)) is not None:
            if compat.is_internal_to_jax(called):
                return self.evaluate(*compat.open_jaxpr(called), *values, traceback=line)
            if compat.is_checkpoint(equation):
                again = functools.partial(jax.checkpoint, policy=params["policy"])
                return self._call(called, values, transformed=again)
            return self._call(called, values)
        if (region := region_of(equation)) is not None:
            bodies = {None: region.test, **dict(enumerate(region.bodies))}

            def run(body: int | None, inputs: Sequence[Any], _: Any) -> tuple[list[Any], Any]:
                return self.evaluate(*compat.open_jaxpr(bodies[body]), *inputs), {}

            return region.interpret(run, values)[0]
        if known is primitive("custom_jvp_call"):
            return self._custom(equation, jax.custom_jvp)(*values)
        if known is primitive("custom_vjp_call"):
            return self._custom(equation, jax.custom_vjp)(*values)
        return compat.bind(equation, *values, mesh=jax.sharding.get_abstract_mesh())

    def _call(
        self, called: Any, values: Sequence[Any], name: str = "call", transformed: Any = jax.jit
    ) -> Sequence[Any]:
        def call(*args: Any) -> list[Any]:
            return self.evaluate(*compat.open_jaxpr(called), *args)

        call.__name__ = name
        return transformed(call)(*values)

    def _custom(self, equation: Any, kind: Any) -> Callable[..., Any]:
        """Return a function with a custom derivative without the mesh; its rule is a jaxpr too."""
        floats, results = (
            [jnp.issubdtype(v.aval.dtype, jnp.inexact) for v in variables]
            for variables in (equation.invars, equation.outvars)
        )

        def of_floats(inputs: Sequence[Any]) -> tuple[Callable[..., Any], Sequence[Any]]:
            def call(*moving: Any) -> Any:
                given = iter(moving)
                full = [next(given) if f else x for f, x in zip(floats, inputs, strict=True)]
                outputs = compat.bind(equation, *full)
                return _pick(outputs, results), outputs

            return call, _pick(inputs, floats)

        def pushed(inputs: Sequence[Any], tangents: Sequence[Any]) -> Any:
            call, moving = of_floats(inputs)
            _, moved, outputs = jax.jvp(call, moving, tangents, has_aux=True)
            return outputs, moved

        def pulled(inputs: Sequence[Any], cotangents: Sequence[Any]) -> Any:
            call, moving = of_floats(inputs)
            return jax.vjp(call, *moving, has_aux=True)[1](cotangents)

        @kind
        def function(*inputs: Any) -> list[Any]:
            return self.evaluate(*compat.open_jaxpr(equation.params["call_jaxpr"]), *inputs)

        if kind is jax.custom_jvp:
            rule = self._traced(pushed, equation.invars, _pick(equation.invars, floats))

            def function_jvp(inputs: Sequence[Any], tangents: Sequence[Any]) -> Any:
                found = rule(*inputs, *_pick(tangents, floats))
                outputs, moved = found[: len(results)], iter(found[len(results) :])
                none = (np.zeros(np.shape(x), jax.dtypes.float0) for x in outputs)
                return outputs, [
                    next(moved) if f else z for f, z in zip(results, none, strict=True)
                ]

            function.defjvp(function_jvp)
        else:
            rule = self._traced(pulled, equation.invars, _pick(equation.outvars, results))

            def backward(inputs: Sequence[Any], cotangents: Sequence[Any]) -> Any:
                found = iter(rule(*inputs, *_pick(cotangents, results)))
                return tuple(next(found) if f else None for f in floats)

            function.defvjp(lambda *inputs: (function(*inputs), inputs), backward)
        return function

    def _traced(
        self, function: Callable[..., Any], *variables: Sequence[Any]
    ) -> Callable[..., list[Any]]:
        """Return a function of arrays like these as traced on the devices, but run without them."""
        found: list[Any] = []
        avals = [v.aval for own in variables for v in own]
        varying = [compat.varies_over(aval, self.mesh) for aval in avals]
        sizes = [math.prod(self.mesh.shape[name] for name in names) for names in varying]

        def on_device(*parts: Any) -> tuple[()]:
            arrays = iter(part[0] for part in parts)
            found.append(jax.make_jaxpr(function)(*([next(arrays) for _ in v] for v in variables)))
            return ()

        mapped = jax.shard_map(
            on_device,
            mesh=self.mesh,
            in_specs=tuple(PartitionSpec(names or None) for names in varying),
            out_specs=(),
            axis_names=self.names,
            check_vma=self.check_vma,
        )
        stacked = zip(sizes, avals, strict=True)
        jax.eval_shape(mapped, *(jax.ShapeDtypeStruct((n, *a.shape), a.dtype) for n, a in stacked))
        if exchanged := dict(compat.collectives(found[0])):
            raise NotImplementedError(
                "a custom derivative in it exchanges data between devices "
                f"(by {', '.join(exchanged)})"
            )
        return functools.partial(self.evaluate, *compat.open_jaxpr(found[0]))


def everyone(x: Any, names: Any, *, common: bool = False) -> Any:
    """Gather what all members of named axes have, along a new first axis.

    Args:
        x: an array of each member.
        names: the axes, or one.
        common: whether to tell ``shard_map`` that all members have the same now.
    """
    options: dict[str, Any] = {"to": "invarying"} if common else {}
    shape = np.shape(x)
    for name in reversed(names if isinstance(names, tuple) else (names,)):
        x = lax.all_gather(x, name, **options)  # over one at a time, or JAX does not map it
    return x.reshape(-1, *shape)


def _pick(values: Iterable[Any], chosen: Sequence[bool]) -> list[Any]:
    return [x for x, c in zip(values, chosen, strict=True) if c]


def _without_first(function: Callable[..., Any], _: Any, *args: Any) -> Any:
    return function(*args)


def _of_first_member(
    function: Callable[..., Any], name: str, split: Sequence[bool]
) -> Callable[..., Any]:
    """Take from the first member of an axis what is not split among its members."""

    def first(*args: Any) -> list[Any]:
        results = zip(function(*args), split, strict=True)
        return [x if is_split else lax.all_gather(x, name)[0] for x, is_split in results]

    return first


class _Split:
    """The way an array is split among the members.

    Attributes:
        sizes: its shape with an axis for each axis of the mesh that splits one of its own.
        labels: for each of these, the name of the mesh's axis; None for an axis of its own.
        whole: its shape.
    """

    def __init__(self, mesh: Any, spec: PartitionSpec, part: tuple[int, ...]) -> None:
        """Describe the split of a whole whose parts have the shape ``part``."""
        self.mesh = mesh
        self.labels: list[str | None] = []
        self.sizes: list[int] = []
        self.whole: list[int] = []
        for axis, size in enumerate(part):
            entry = spec[axis] if axis < len(spec) else None
            names = entry if isinstance(entry, tuple) else (entry,) if entry else ()
            counts = [mesh.shape[name] for name in names]
            self.labels += [*names, None]
            self.sizes += [*counts, size]
            self.whole.append(math.prod(counts) * size)

    def has(self, name: str) -> bool:
        """Tell whether an axis of the mesh splits it."""
        return name in self.labels

    def position(self, name: str, gone: Sequence[str]) -> int | None:
        """Return a mesh axis's place when others are gone; None if it does not split the array."""
        left = [label for label in self.labels if label is None or label not in gone]
        return left.index(name) if name in left else None

    def apart(self, x: Any) -> Any:
        """Give each axis of the mesh an axis of its own."""
        if len(self.sizes) == len(self.whole):
            return x
        x = jnp.reshape(x, self.sizes)
        is_inside = bool(jax.sharding.get_abstract_mesh().manual_axes)
        if is_inside or not isinstance(self.mesh, Mesh) or self.mesh.size == 1:
            return x
        free = PartitionSpec.UNCONSTRAINED
        spec = PartitionSpec(*(free if label is None else label for label in self.labels))
        return lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

    def together(self, x: Any) -> Any:
        """Undo ``apart``."""
        return x if len(self.sizes) == len(self.whole) else jnp.reshape(x, self.whole)


def _psum(x: Any, *, axes: Any, **_: Any) -> Any:
    return lax.psum(x, axes)


def _all_gather(
    x: Any, *, axis_name: Any, all_gather_dimension: int, tiled: bool, **params: Any
) -> Any:
    if params.get("axis_index_groups") is not None:
        raise NotImplementedError("axis_index_groups not supported in vmap")
    moved = jnp.moveaxis(everyone(x, axis_name), 0, all_gather_dimension)
    if not tiled:
        return moved
    shape = list(np.shape(x))
    shape[all_gather_dimension] = -1
    return moved.reshape(shape)


def _ppermute(x: Any, *, axis_name: Any, perm: Any, **_: Any) -> Any:
    gathered = everyone(x, axis_name)
    senders = np.full(len(gathered), len(gathered))  # one past the last if nothing is received
    for source, target in perm:
        senders[target] = source
    sender = jnp.asarray(senders)[lax.axis_index(axis_name)]
    return gathered.at[sender].get(mode="fill", fill_value=0)


def _pbroadcast(x: Any, *, axis_name: Any, source: int, **_: Any) -> Any:
    return everyone(x, axis_name)[source]


def _as_it_is(x: Any, **_: Any) -> Any:
    return x


_REPLACED: dict[Any, Callable[..., Any]] = {
    primitive("psum_invariant"): _psum,
    primitive("pvary"): _as_it_is,
    primitive("sharding_constraint"): _as_it_is,
    # What JAX does not map, or not over several axes.
    primitive("all_gather"): _all_gather,
    primitive("all_gather_invariant"): _all_gather,
    primitive("ppermute"): _ppermute,
    primitive("pbroadcast"): _pbroadcast,
}
