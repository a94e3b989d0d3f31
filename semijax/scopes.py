"""Names for the modules of a model that gives none: Flax NNX, Equinox, plain Python objects."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax

from semijax.scope_names import Given

NO_MODULES = ("jax", "jaxlib", "numpy", "builtins", "functools", "types", "ml_dtypes", "jaxtyping")
"""Packages whose objects have no modules in them."""

_BASES = ("Module", "Pytree", "Object")
"""Base classes of Flax and Equinox, whose own methods compute nothing."""


@contextlib.contextmanager
def scopes(model: Any) -> Iterator[None]:
    """Name the modules of a model by their place in it, for all that is traced meanwhile.

    A Flax NNX model gives its equations no names, an Equinox model those of classes only. Inside of
    this context each method of each of its modules enters a scope: ``"Transformer/layers/0/query"``
    for ``model.layers[0].query``. The model's code is not touched, and JAX compiles the same
    program. Flax Linen names its modules itself; there this does nothing.

    A module is named where it is called by its place in the object that calls it, so that a model
    is known again after ``nnx.merge``, ``jax.tree.map`` or ``eqx.combine`` has made it anew.

    Args:
        model: a Flax NNX or Equinox model, or any object that has its modules as attributes, in
            lists or in dicts.

    Raises:
        TypeError: if there are no modules in it.

    What ``jit`` has traced before keeps the names it had then: enter this context first. A module
    within another one that was made anew outside of the caller's sight, as by ``eqx.filter_vmap``
    of one of several alike, keeps no name of its own.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> class Layer:
        ...     def __call__(self, x):
        ...         return jnp.tanh(x)
        >>> class Model:
        ...     def __init__(self):
        ...         self.layers = [Layer(), Layer()]
        ...     def __call__(self, x):
        ...         return self.layers[1](self.layers[0](x)).sum()
        >>> model = Model()
        >>> with sj.scopes(model):
        ...     names = sj.list_sites(model)(jnp.ones(2)).names
        >>> [name for name in names if name.endswith("tanh")]
        ['Model/layers/0/tanh', 'Model/layers/1/tanh']
    """
    linen = sys.modules.get("flax.linen")
    if linen is not None and isinstance(model, linen.Module):
        yield
        return
    kinds = dict.fromkeys(kind for module in _places(model).kinds for kind in module.__mro__)
    methods = [
        (kind, name, method)
        for kind in kinds
        if not (kind.__name__ in _BASES and _package(kind) in ("flax", "equinox"))
        for name, method in vars(kind).items()
        if inspect.isfunction(method) and (name == "__call__" or not name.startswith("_"))
    ]
    if not methods:
        raise TypeError(
            "semijax.scopes expects a model, an object with modules among its attributes, got "
            f"{model!r} of type {type(model).__name__}."
        )
    root = _Called(model, _places(model))
    for kind, name, method in methods:
        setattr(kind, name, _named(method, root))
    try:
        yield
    finally:
        for kind, name, method in methods:
            setattr(kind, name, method)


class _Places:
    """Where the modules of an object are: names by identity."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.objects: list[Any] = []  # so that no identity is given to another object

    @property
    def kinds(self) -> dict[type, None]:
        """Their classes."""
        return dict.fromkeys(map(type, self.objects))

    def find(self, module: Any) -> str | None:
        """The name of a module; if it is a new one, that of the only one of its class."""
        if id(module) in self.names:
            return self.names[id(module)]
        alike = [known for known in self.objects if type(known) is type(module)]
        return self.names[id(alike[0])] if len(alike) == 1 else None


class _Called:
    """A module while one of its methods runs."""

    def __init__(self, module: Any, places: _Places | None = None) -> None:
        self.module = module
        self._places = places

    @property
    def places(self) -> _Places:
        if self._places is None:
            self._places = _places(self.module)
        return self._places


_running: contextvars.ContextVar[tuple[_Called, ...]] = contextvars.ContextVar(
    "semijax_running", default=()
)


def _named(method: Callable[..., Any], root: _Called) -> Callable[..., Any]:
    """A method that runs within the scope of its object."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        running = _running.get()
        if running and running[-1].module is self:  # a method of its own
            return method(self, *args, **kwargs)
        scope = _scope(self, running, root)
        token = _running.set((*running, _Called(self)))
        try:
            with jax.named_scope(Given(scope)) if scope else contextlib.nullcontext():
                return method(self, *args, **kwargs)
        finally:
            _running.reset(token)

    return run


def _scope(module: Any, running: tuple[_Called, ...], root: _Called) -> str | None:
    """What to call a module, within the scopes of those that are running."""
    for called in reversed(running):
        name = called.places.find(module)
        if name is not None:
            return name
    top = type(root.module).__name__
    if module is root.module or (not running and type(module) is type(root.module)):
        return top
    name = root.places.find(module)
    return None if name is None else f"{top}/{name}"


def _places(model: Any) -> _Places:
    """The modules of a model, without itself but for its class, from the outside in."""
    found = _Places()
    seen = {id(model)}
    found.objects.append(model)
    found.names[id(model)] = ""
    waiting = [("", model)]
    while waiting:
        outer, parent = waiting.pop(0)
        for name, child in _children(parent):
            if id(child) in seen or _is_leaf(child):
                continue
            seen.add(id(child))
            full = f"{outer}/{name}" if outer else name
            waiting.append((full, child))
            if not isinstance(child, (list, tuple, dict)):
                found.objects.append(child)
                found.names[id(child)] = full
    return found


def _children(parent: Any) -> list[tuple[str, Any]]:
    if isinstance(parent, dict):
        return [(str(key), child) for key, child in parent.items()]
    if isinstance(parent, (list, tuple)):
        return [(str(n), child) for n, child in enumerate(parent)]
    own = getattr(parent, "__dict__", {})
    return [(name, child) for name, child in own.items() if not name.startswith("_")]


def _is_leaf(child: Any) -> bool:
    """Whether there can be no modules in it."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(child, nnx.Variable):
        return True
    if isinstance(child, (list, tuple, dict)):
        return False
    return (
        inspect.isroutine(child) or isinstance(child, type) or _package(type(child)) in NO_MODULES
    )


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]
