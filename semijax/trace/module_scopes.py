"""Names for the modules of models that give none: Flax NNX, Equinox, PyTorch, plain objects."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import os
import reprlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jax.extend import source_info_util

from semijax.trace.scope_names import Given

source_info_util.register_exclusion(__file__)  # it calls the user's lines, and has none

_FRAMEWORKS = {"flax", "equinox", "torch"}
_BASES = {"Module", "Pytree", "Object"}
"""Base classes of Flax, Equinox and PyTorch, whose own methods compute nothing."""

_NO_MODULES = {"jax", "jaxlib", "numpy", "ml_dtypes", "jaxtyping", *sys.stdlib_module_names}
"""Packages whose objects contain no modules."""

_NAMING_THEMSELVES = (("flax.linen", "Module"), ("haiku", "Module"), ("keras", "Layer"))
"""The classes of modules that enter scopes of their own names."""

_DISPATCHING = (("torchax", ""), ("torch", "_"), ("torch", "utils"), ("torch", "overrides"))
"""Packages that run a PyTorch model's lines but have none, and how the files in them begin."""


@contextlib.contextmanager
def scopes(model: Any) -> Iterator[None]:
    """Name the modules of a model by their place in it, for all that is traced in this context.

    A Flax NNX model gives its equations no names, an Equinox model only those of classes, a Penzai
    model only numbers. Inside of this context each method of each of its modules enters a scope:
    ``"Transformer/layers/0/query"`` for ``model.layers[0].query``. A private container has no name.
    The model's code is not touched, and JAX compiles the same program. Flax Linen, Haiku and Keras
    name their modules themselves; there this does nothing.

    The modules of a PyTorch model, called through torchax, are named as in its ``named_modules()``,
    with slashes. torchax's own names, which are those of operations (``"aten::addmm"``), are left
    out, and lines are the model's, not torchax's.

    Modules are looked up in the object that calls them, so a model is still recognised after
    ``nnx.merge``, ``jax.tree.map`` or ``eqx.combine`` has rebuilt it. A module that is not found is
    named after its class: for example, one of several equal modules that ``eqx.filter_vmap``
    rebuilds by itself, or one of the layers of a Penzai ``LayerStack``.

    Whatever ``jit`` has traced before keeps its names: enter this context first, or call
    ``jax.clear_caches()``. Two models of one class have the same names.

    Args:
        model: a Flax NNX, Equinox, Penzai or PyTorch model, or any object that has its modules as
            attributes, in lists or in dicts.

    Raises:
        TypeError: if there are no modules in it.

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
    if _names_itself(model):
        yield
        return
    _exclude_dispatching()
    root = _Root(model)
    kinds = {} if _is_leaf(model) else root.names.kinds
    methods = dict.fromkeys(method for kind in kinds for method in _methods(kind))
    if not methods:
        raise TypeError(
            "semijax.scopes expects a model, an object with modules among its attributes, got "
            f"{reprlib.repr(model)} of type {type(model).__name__}."
        )
    with _PATCHES.of(methods), _PATCHES.knowing([root]):
        yield


@contextlib.contextmanager
def naming_models(objects: Iterable[Any]) -> Iterator[None]:
    """Recognise models among some objects, such as the arguments of a function that is traced."""
    kinds = {type(root.model) for root in _PATCHES.roots}
    roots = [_Root(model) for model in objects if type(model) in kinds]
    with _PATCHES.knowing(roots):
        yield


class _Names:
    """The modules in an object, by their place in it; the object itself is ``""``."""

    def __init__(self, model: Any) -> None:
        self._names: dict[int, str] = {}
        self._objects: list[Any] = []  # kept, so that no identity is given to another object
        self._add("", model)
        seen, waiting = {id(model)}, [("", model)]
        while waiting:
            outer, parent = waiting.pop(0)
            for name, child in _children(parent):
                if id(child) in seen:
                    continue
                seen.add(id(child))
                full = f"{outer}/{name}" if outer else name
                waiting.append((full, child))
                if not isinstance(child, (list, tuple, dict)):
                    self._add(full, child)

    @property
    def kinds(self) -> dict[type, None]:
        """Their classes and the classes that these inherit from."""
        return dict.fromkeys(kind for o in self._objects for kind in type(o).__mro__)

    def of(self, module: Any) -> str | None:
        """Return the place of a module; None if it is not in the object."""
        return self._names.get(id(module))

    def of_one_alike(self, module: Any) -> str | None:
        """Return the place of the only module that this one, made anew by JAX, may be."""
        tree = jax.tree.structure(module)
        if jax.tree_util.treedef_is_leaf(tree):
            return None  # no pytree: nothing has made it anew
        alike = [known for known in self._objects if type(known) is type(module)]
        if len(alike) != 1 or jax.tree.structure(alike[0]) != tree:
            return None
        return self.of(alike[0])

    def _add(self, name: str, module: Any) -> None:
        self._objects.append(module)
        self._names[id(module)] = name


class _Root:
    """A model whose modules have names, or a module while one of its methods runs."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @functools.cached_property
    def names(self) -> _Names:
        return _Names(self.model)


class _Patches:
    """The methods that enter scopes while a context needs them, and the models they know."""

    def __init__(self) -> None:
        self.roots: tuple[_Root, ...] = ()
        self._uses: dict[tuple[type, str], int] = {}
        self._originals: dict[tuple[type, str], Any] = {}
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def of(self, methods: Iterable[tuple[type, str]]) -> Iterator[None]:
        taken: list[tuple[type, str]] = []
        try:
            with self._lock:
                for kind, name in methods:
                    if not self._uses.get((kind, name)):
                        original = vars(kind)[name]
                        setattr(kind, name, _entering_scope(original))
                        self._originals[kind, name] = original
                    self._uses[kind, name] = self._uses.get((kind, name), 0) + 1
                    taken.append((kind, name))
            yield
        finally:
            with self._lock:
                for method in taken:
                    self._uses[method] -= 1
                    if not self._uses[method]:
                        setattr(*method, self._originals.pop(method))

    @contextlib.contextmanager
    def knowing(self, roots: Iterable[_Root]) -> Iterator[None]:
        added = tuple(roots)
        with self._lock:
            self.roots += added
        try:
            yield
        finally:
            with self._lock:
                self.roots = tuple(root for root in self.roots if root not in added)


_PATCHES = _Patches()

_running: contextvars.ContextVar[tuple[_Root, ...]] = contextvars.ContextVar(
    "semijax_running", default=()
)


def _entering_scope(method: Any) -> Callable[..., Any]:
    """Wrap a method to run within the scope of its object."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = method.__get__(self, type(self))
        running = _running.get()
        if running and running[-1].model is self:  # a method of its own
            return bound(*args, **kwargs)
        token = _running.set((*running, _Root(self)))
        try:
            with jax.named_scope(_scope(self, running)):
                return bound(*args, **kwargs)
        finally:
            _running.reset(token)

    return run


def _scope(module: Any, running: tuple[_Root, ...]) -> str:
    """Return the name of a module within the scopes of those that are running."""
    kind = type(module).__name__
    given = functools.partial(Given, kind=kind, of_torch=_is_of_torch(module))
    for outer in reversed(running):
        name = outer.names.of(module)
        if name is not None:
            return given(name or kind)
    roots = _PATCHES.roots
    for root in roots:
        name = root.names.of(module)
        if name is not None:
            return given("/".join(filter(None, [type(root.model).__name__, name])))
    if running and (name := running[-1].names.of_one_alike(module)):
        return given(name)
    return given(kind)


def _methods(kind: type) -> list[tuple[type, str]]:
    """Return the public methods that a class itself defines, decorated or not."""
    if _package(kind) in _NO_MODULES or (_package(kind) in _FRAMEWORKS and kind.__name__ in _BASES):
        return []
    return [
        (kind, name)
        for name, method in vars(kind).items()
        if (name == "__call__" or not name.startswith("_"))
        and not isinstance(method, (type, staticmethod, classmethod, property))
        and (inspect.isfunction(method) or _is_decorated(method))
    ]


def _is_decorated(method: Any) -> bool:
    """Tell whether it is a function that has been wrapped by ``jit`` or the like."""
    return callable(method) and hasattr(method, "__wrapped__") and hasattr(method, "__get__")


def _children(parent: Any) -> list[tuple[str, Any]]:
    """Return the children that may be or hold modules, by name; private containers have none."""
    if _is_of_torch(parent):
        return list(parent.named_children())
    if isinstance(parent, dict):
        return _no_leaves((str(key), child) for key, child in parent.items())
    if isinstance(parent, (list, tuple)):
        return _no_leaves((str(n), child) for n, child in enumerate(parent))
    own = _no_leaves(_attributes(parent).items())
    found = {name: child for name, child in own if not _is_private_container(name, child)}
    for name, child in own:
        if name not in found:
            inside = dict(_children(child))
            found |= {name: child} if found.keys() & inside.keys() else inside
    return list(found.items())


def _attributes(parent: Any) -> dict[str, Any]:
    own = dict(getattr(parent, "__dict__", {}))
    for kind in type(parent).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(parent, name):
                own[name] = getattr(parent, name)
    hidden = ("__", "_pytree__", "_object__")
    return {name: child for name, child in own.items() if not name.startswith(hidden)}


def _is_private_container(name: str, child: Any) -> bool:
    return name.startswith("_") and isinstance(child, (list, tuple, dict))


def _no_leaves(children: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(name, child) for name, child in children if not _is_leaf(child)]


def _is_leaf(child: Any) -> bool:
    """Tell whether it can contain no modules, or only ones that have names."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is not None and isinstance(child, nnx.Variable):
        return True
    if isinstance(child, (list, tuple, dict)):
        return False
    kind = type(child)
    is_array = hasattr(kind, "shape") and hasattr(kind, "dtype")  # of whatever library
    is_function = inspect.isroutine(child) or isinstance(child, type)
    no_modules = _package(kind) in _NO_MODULES
    return is_array or is_function or no_modules or _names_itself(child)


def _is_of_torch(module: Any) -> bool:
    """Tell whether it is a module of PyTorch, which has its own list of those in it."""
    nn = sys.modules.get("torch.nn")
    return nn is not None and isinstance(module, nn.Module)


def _exclude_dispatching() -> None:
    for package, beginning in _DISPATCHING:
        file = getattr(sys.modules.get(package), "__file__", None)
        if file is not None:
            _exclude(os.path.join(os.path.dirname(file), beginning))


_exclude = functools.cache(source_info_util.register_exclusion)  # once each


def _names_itself(module: Any) -> bool:
    """Tell whether it is from a library whose modules enter scopes of their own names."""
    libraries = ((sys.modules.get(name), kind) for name, kind in _NAMING_THEMSELVES)
    kinds = (getattr(library, kind, None) for library, kind in libraries)
    return any(isinstance(module, kind) for kind in kinds if kind is not None)


def _package(kind: type) -> str:
    return "" if kind.__module__ == "__main__" else kind.__module__.partition(".")[0]
