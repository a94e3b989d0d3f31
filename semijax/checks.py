"""Checks of a transformation's arguments, and the messages for wrong ones."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_callable(fun: Any) -> None:
    """Raise unless ``fun`` can be called."""
    if not callable(fun):
        raise TypeError(f"Expected a callable value, got {fun!r} of type {type(fun).__name__}.")


def check_argnums(argnums: Any, name: str = "argnums") -> int | tuple[int, ...]:
    """Return the argument numbers as integers; ``name`` is the parameter's name, for messages."""
    try:
        if hasattr(argnums, "__index__"):
            return operator.index(argnums)
        return tuple(map(operator.index, argnums))
    except TypeError:
        raise TypeError(
            f"{name} must be an integer or a sequence of integers, got {argnums!r}."
        ) from None


def positions(
    argnums: int | tuple[int, ...], args: tuple[Any, ...], name: str = "argnums"
) -> list[int]:
    """Return the positions in ``args`` that ``argnums`` means; ``name`` is the parameter's name."""
    given = (argnums,) if isinstance(argnums, int) else argnums
    n = len(args)
    if any(not -n <= i < n for i in given):
        needed = max(i + 1 if i >= 0 else -i for i in given)
        what = "differentiating with respect to" if name == "argnums" else "a call with"
        raise ValueError(
            f"{what} {name}={argnums} requires at least {needed} "
            f"positional arguments to be passed by the caller, but got only {n} positional "
            "arguments."
        )
    found = [i % n for i in given]
    if len(set(found)) != len(found):
        raise ValueError(f"{name}={argnums} names an argument twice.")
    return found


def check_inputs(transformation: str, primals: Any, instead: str = "") -> None:
    """Raise unless all leaves are real and floating.

    Args:
        transformation: whose arguments they are.
        primals: a pytree.
        instead: what to do with integers.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(primals):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            if not isinstance(leaf, (bool, int, float, complex)):
                raise TypeError(
                    f"Argument '{leaf!r}' of type {type(leaf)} is not a valid JAX type."
                )
            dtype = jnp.asarray(leaf).dtype
        if jnp.issubdtype(dtype, jnp.floating):
            continue
        where = jax.tree_util.keystr(path)
        hint = (
            " Pass its real and imaginary parts as two arguments."
            if jnp.issubdtype(dtype, jnp.complexfloating)
            else f" {instead}"
        )
        raise TypeError(
            f"{transformation} requires real-valued inputs (input dtype that is a sub-dtype of "
            f"np.floating), but got {dtype} at args{where}.{hint.rstrip()}"
        )


def check_scalar(shapes: Any, transformation: str = "semiring_grad") -> None:
    """Raise unless the output, given by its shape and dtype, is a real scalar."""
    if not hasattr(shapes, "shape"):
        has_aux = " If it is a pair with auxiliary data, use has_aux=True."
        raise TypeError(
            "Gradient only defined for scalar-output functions. Output was a pytree: "
            f"{jax.tree.structure(shapes)}.{has_aux * transformation.startswith('semiring')}"
        )
    if shapes.shape != ():
        raise TypeError(
            f"Gradient only defined for scalar-output functions. Output had shape: {shapes.shape}."
        )
    if not jnp.issubdtype(shapes.dtype, jnp.floating):
        raise TypeError(
            f"{transformation} requires real-valued outputs (output dtype that is a sub-dtype of "
            f"np.floating), but got {shapes.dtype}."
        )


def check_positive(name: str, value: Any) -> int:
    """Return a positive integer; raise if ``value`` is anything else."""
    try:
        number = 0 if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    return number


def check_depth(depth: int | None) -> None:
    """Raise unless ``depth`` is None or a positive integer."""
    if depth is not None:
        check_positive("depth", depth)


def normalise_axes(axes: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return axes of an array of ``ndim`` dimensions, counted from the first."""
    try:
        given = (axes,) if isinstance(axes, int) else tuple(map(operator.index, axes))
    except TypeError:
        raise TypeError(
            f"axes must be an integer or a sequence of integers, got {axes!r}."
        ) from None
    for axis in given:
        if not -ndim <= axis < ndim:
            raise ValueError(f"axis {axis} is out of bounds for array of dimension {ndim}")
    found = tuple(axis % ndim for axis in given)
    if len(set(found)) != len(found):
        raise ValueError(f"duplicate value in axes {given}")
    return found


def named_leaves(argnum: int, arg: Any) -> list[tuple[str, Any]]:
    """Return the leaves of an argument with their names, such as ``"[0]['w']"``."""
    paths = jax.tree_util.tree_leaves_with_path(arg)
    key = jax.tree_util.SequenceKey(argnum)
    return [(jax.tree_util.keystr((key, *path)), leaf) for path, leaf in paths]


def check_share(share: Any) -> None:
    """Raise unless ``share`` is a share of a whole.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is not in (0, 1].
    """
    if isinstance(share, bool) or not isinstance(share, (int, float, np.floating)):
        raise TypeError(f"share must be a number in (0, 1], got {share!r}.")
    if not 0 < share <= 1:
        raise ValueError(f"share must be a number in (0, 1], got {share!r}.")
