"""A call whose paths are asked for: the function traced, run, and its arguments named."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from semijax import checks
from semijax.paths.run import Array, Run
from semijax.trace import scope_names
from semijax.trace.graph import trace


class Call:
    """``fun(*args, **kwargs)``, with paths from the arguments at ``argnums`` to its scalar output.

    Attributes:
        fun, args, kwargs: the call.
        argnums: the positions of the arguments that paths start from.
        names: the name of every leaf of these, as ``"[0]['w']"``.
        run: its steps.
        end: the array of the output; None where no path reaches it.
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
        given = checks.check_argnums(argnums)
        self.argnums = tuple(checks.positions(given, args))
        primals = tuple(args[i] for i in self.argnums)
        checks.check_inputs(caller, primals)
        named = [leaf for n in self.argnums for leaf in checks.named_leaves(n, args[n])]
        self.names = [name for name, _ in named]
        leaves = [jnp.asarray(leaf) for _, leaf in named]
        self._check_concrete(caller, [*leaves, jnp.zeros(())])  # a tracer under jit, too

        def of_chosen(*primals: Any) -> Any:
            full = list(args)
            for i, primal in zip(self.argnums, primals, strict=True):
                full[i] = primal
            return fun(*full, **kwargs)

        graph, shapes = trace(of_chosen, *primals)
        checks.check_scalar(shapes, caller)
        self._check_concrete(caller, graph.constants.values())
        self.run = Run(graph, leaves)
        (self.end,) = self.run.outputs
        self._shapes = [leaf.shape for leaf in leaves]
        self._like = primals[0] if isinstance(given, int) else primals

    def sources(self, source: Any) -> dict[Array, np.ndarray | None]:
        """The positions in each input array that a ``source`` argument means; None for all.

        Raises:
            TypeError, ValueError, IndexError: if it means none.
        """
        if source is None:
            chosen: Sequence[np.ndarray | None] = [None] * len(self.names)
        elif isinstance(source, str):
            chosen = self._only(self._leaf(source), None)
        elif _is_pair(source):
            chosen = self._element(*source)
        else:
            chosen = self._masked(source)
        return {
            array: positions
            for array, positions in zip(self.run.inputs, chosen, strict=True)
            if array is not None and (positions is None or len(positions))
        }

    def _leaf(self, leaf: Any) -> int:
        """The number of a leaf, by its name or by its keys."""
        keys = leaf if isinstance(leaf, tuple) else (leaf,)
        name = leaf if isinstance(leaf, str) and leaf.startswith("[") else _name(keys)
        if name not in self.names:
            likely = ", ".join(scope_names.nearest(name, self.names))
            raise ValueError(
                f"No differentiated argument is called {name!r}. The nearest: {likely}."
            )
        return self.names.index(name)

    def _only(self, number: int, positions: np.ndarray | None) -> list[np.ndarray | None]:
        """Positions in one leaf."""
        none = np.zeros(0, int)
        return [positions if n == number else none for n in range(len(self.names))]

    def _element(self, leaf: Any, index: Any) -> list[np.ndarray | None]:
        number = self._leaf(leaf)
        shape = self._shapes[number]
        wanted = tuple(index) if isinstance(index, (tuple, list)) else (index,)
        inside = len(wanted) == len(shape) and all(
            _is_integer(i) and -n <= i < n for i, n in zip(wanted, shape, strict=True)
        )
        if not inside:
            raise IndexError(
                f"source index {index} is out of range for {self.names[number]}, which has shape "
                f"{shape}."
            )
        positive = [operator.index(i) % n for i, n in zip(wanted, shape, strict=True)]
        flat = np.ravel_multi_index(positive, shape) if shape else 0
        return self._only(number, np.array([flat]))

    def _masked(self, mask: Any) -> list[np.ndarray]:
        given, wanted = jax.tree.structure(mask), jax.tree.structure(self._like)
        if given != wanted:
            raise ValueError(
                "source must be a leaf of the arguments and an index, a leaf's name, or a boolean "
                f"mask with the structure of the differentiated argument, {wanted}; got "
                f"{source_text(mask)}."
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
    """Whether it is a leaf and an index, and no mask of a pair of arguments."""
    if not isinstance(source, tuple) or len(source) != 2:
        return False
    keys = source[0] if isinstance(source[0], tuple) else (source[0],)
    return all(isinstance(key, str) or _is_integer(key) for key in keys)


def _is_integer(key: Any) -> bool:
    return hasattr(key, "__index__") and not isinstance(key, (bool, np.ndarray, jax.Array))


def _name(keys: tuple[Any, ...]) -> str:
    return "".join(
        f"[{key!r}]" if isinstance(key, str) else f"[{operator.index(key)}]" for key in keys
    )


def source_text(source: Any) -> str:
    """A source, for a message: an index in full, a mask by its structure."""
    if isinstance(source, str) or _is_pair(source):
        return repr(source)
    return f"a mask of structure {jax.tree.structure(source)}"
