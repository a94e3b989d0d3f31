"""The leaves of a call's arguments, paired with those of a second run it is compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks


class Leaf(NamedTuple):
    """One leaf of the arguments.

    Attributes:
        argnum: the position of its argument.
        name: such as ``"[0]['w']"``.
        value: its value.
        reference: its value in the second run; the same object where it cannot differ.
    """

    argnum: int
    name: str
    value: Any
    reference: Any

    @property
    def differs(self) -> bool:
        """True if it may differ in the second run."""
        return self.value is not self.reference

    @property
    def is_floating(self) -> bool:
        """True if it is a real number or an array of real numbers."""
        if isinstance(self.value, (jax.Array, np.ndarray, np.generic)):
            return jnp.issubdtype(self.value.dtype, jnp.floating)
        return isinstance(self.value, float)

    def arrays(self) -> tuple[jax.Array, jax.Array]:
        """Return both values as arrays; if they do not differ, the same array twice."""
        value = jnp.asarray(self.value)
        return value, jnp.asarray(self.reference, value.dtype) if self.differs else value


def paired_leaves(
    args: Sequence[Any], reference: Sequence[Any] | None, chosen: Collection[int] | None = None
) -> list[Leaf]:
    """Return the leaves of arguments, each with its counterpart.

    Args:
        args: the arguments.
        reference: those of the second run; None if there is none.
        chosen: the positions to look at if there is no second run; by default all.

    Raises:
        ValueError: if these differ from the arguments in structure, shape or kind.
    """
    if reference is None:
        every = range(len(args)) if chosen is None else chosen
        return [
            Leaf(n, name, leaf, leaf)
            for n in every
            for name, leaf in checks.named_leaves(n, args[n])
        ]
    if len(reference) != len(args):
        raise ValueError(
            f"The reference must have as many arguments as the call, {len(args)}, got "
            f"{len(reference)}: Contrast takes all of them."
        )
    leaves = []
    for argnum, (arg, other) in enumerate(zip(args, reference, strict=True)):
        tree, others = jax.tree.structure(arg), jax.tree.structure(other)
        if tree != others:
            raise ValueError(
                f"Argument {argnum} of the reference must have the structure of the call's, "
                f"{tree}, got {others}."
            )
        named = checks.named_leaves(argnum, arg)
        for (name, value), counterpart in zip(named, jax.tree.leaves(other), strict=True):
            leaves.append(Leaf(argnum, name, value, _checked(name, value, counterpart)))
    return leaves


def _checked(name: str, value: Any, reference: Any) -> Any:
    """Return the counterpart of a leaf, or the leaf itself if they are plainly the same."""
    if reference is value:
        return value
    try:
        own, other = jnp.asarray(value), jnp.asarray(reference)
    except TypeError:
        own = other = None
    if own is None or other is None:
        if value == reference:
            return value
        raise ValueError(
            f"{name} is {value!r} in the call and {reference!r} in the reference, and it is not an "
            "array: whatever is fixed when a function is traced must be the same in both."
        )
    if isinstance(value, (bool, int)) and isinstance(reference, (bool, int)) and value == reference:
        return value
    if own.shape != other.shape:
        raise ValueError(
            f"{name} has shape {own.shape} in the call and {other.shape} in the reference; they "
            "must be alike, position by position."
        )
    if _kind(own.dtype) != _kind(other.dtype):
        raise ValueError(
            f"{name} has dtype {own.dtype} in the call and {other.dtype} in the reference."
        )
    return reference


def _kind(dtype: Any) -> Any:
    for kind in (np.bool_, jnp.integer, jnp.floating, jnp.complexfloating):
        if jnp.issubdtype(dtype, kind):
            return kind
    return dtype


def replaced(args: Sequence[Any], leaves: Sequence[Leaf], instead: Mapping[str, Any]) -> list[Any]:
    """Return the arguments with some leaves replaced, by name; the rest are the same objects."""
    full = list(args)
    for argnum in {leaf.argnum for leaf in leaves if leaf.name in instead}:
        own = [instead.get(x.name, x.value) for x in leaves if x.argnum == argnum]
        full[argnum] = jax.tree.structure(args[argnum]).unflatten(own)
    return full
