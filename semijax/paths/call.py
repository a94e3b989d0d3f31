"""A call whose paths are asked for: the function traced, run, and its arguments named."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import SequenceKey, keystr, tree_leaves_with_path

from semijax import checks
from semijax.graph import trace
from semijax.paths.run import Array, Run


class Call:
    """``fun(*args, **kwargs)``, with paths from the arguments at ``argnums`` to its scalar output.

    Attributes:
        fun, args, kwargs: the call.
        run: its steps.
        end: the array of the output; None where no path reaches it.
        names: the name of every leaf of the differentiated arguments, as ``"[0]['w']"``.
        argnums: the positions of these arguments.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        argnums: int | Sequence[int],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        caller: str = "semijax.Path",
    ) -> None:
        self.fun, self.args, self.kwargs = fun, args, kwargs
        self.argnums = tuple(checks.positions(checks.check_argnums(argnums), args))
        primals = tuple(args[i] for i in self.argnums)
        checks.check_inputs(caller, primals)
        named = [
            (keystr((SequenceKey(argnum), *path)), leaf)
            for argnum in self.argnums
            for path, leaf in tree_leaves_with_path(args[argnum])
        ]
        self.names = [name for name, _ in named]
        leaves = [jnp.asarray(leaf) for _, leaf in named]
        self._check_concrete(caller, leaves)

        def of_chosen(*primals: Any) -> Any:
            full = list(args)
            for i, primal in zip(self.argnums, primals, strict=True):
                full[i] = primal
            return fun(*full, **kwargs)

        graph, shapes = trace(of_chosen, *primals)
        checks.check_scalar(shapes)
        self._check_concrete(caller, graph.constants.values())
        self.run = Run(graph, leaves)
        (self.end,) = self.run.outputs
        self._shapes = [leaf.shape for leaf in leaves]
        self._like = primals[0] if isinstance(argnums, int) else primals

    def sources(self, source: Any) -> dict[Array, np.ndarray]:
        """The positions in each input array that a ``source`` argument means; all for None.

        Raises:
            TypeError, ValueError, IndexError: if it means none.
        """
        if source is None:
            chosen = [np.arange(math.prod(shape)) for shape in self._shapes]
        elif _is_pair(source):
            chosen = self._element(*source)
        else:
            chosen = self._masked(source)
        return {
            array: positions
            for array, positions in zip(self.run.inputs, chosen, strict=True)
            if array is not None and len(positions)
        }

    def _element(self, leaf: Any, index: Any) -> list[np.ndarray]:
        keys = leaf if isinstance(leaf, tuple) else (leaf,)
        name = leaf if isinstance(leaf, str) else "".join(f"[{key!r}]" for key in keys)
        if name not in self.names:
            raise ValueError(
                f"No differentiated argument is called {name!r}; there are: "
                f"{', '.join(self.names)}."
            )
        number = self.names.index(name)
        shape = self._shapes[number]
        wanted = tuple(index) if isinstance(index, (tuple, list)) else (index,)
        inside = len(wanted) == len(shape) and all(
            -n <= operator.index(i) < n for i, n in zip(wanted, shape, strict=True)
        )
        if not inside:
            raise IndexError(
                f"source index {index} is out of range for {name}, which has shape {shape}."
            )
        flat = np.arange(math.prod(shape)).reshape(shape)[wanted]
        none = np.zeros(0, int)
        return [flat.reshape(1) if n == number else none for n in range(len(self.names))]

    def _masked(self, mask: Any) -> list[np.ndarray]:
        given, wanted = jax.tree.structure(mask), jax.tree.structure(self._like)
        if given != wanted:
            raise ValueError(
                "source must be a pair of an argument's name and an index, or a boolean mask with "
                f"the structure of the differentiated argument, {wanted}; got {source_text(mask)}."
            )
        masks = [np.asarray(leaf) for leaf in jax.tree.leaves(mask)]
        for name, leaf, shape in zip(self.names, masks, self._shapes, strict=True):
            if leaf.dtype != bool:
                raise TypeError(f"The mask of {name} must be boolean, got {leaf.dtype}.")
            if leaf.shape != shape:
                raise ValueError(f"The mask of {name} must have shape {shape}, got {leaf.shape}.")
        return [np.flatnonzero(leaf) for leaf in masks]

    def _check_concrete(self, caller: str, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, jax.core.Tracer):
                raise jax.errors.ConcretizationTypeError(
                    value,
                    f"{caller} returns Python objects that depend on the numbers. Call it outside "
                    "of jit, vmap and grad.",
                )


def _is_pair(source: Any) -> bool:
    return (
        isinstance(source, tuple)
        and len(source) == 2
        and (isinstance(source[0], (int, str)) or _is_path(source[0]))
    )


def _is_path(leaf: Any) -> bool:
    return isinstance(leaf, tuple) and all(isinstance(key, (int, str)) for key in leaf)


def source_text(source: Any) -> str:
    """A source, for a message: an index in full, a mask by its structure."""
    return repr(source) if _is_pair(source) else f"a mask of structure {jax.tree.structure(source)}"
