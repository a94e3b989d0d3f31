"""Statistics over many examples: a function streamed over batches, its outputs reduced to means."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import math
import operator
import os
import pathlib
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks
from semijax.study.means import Label, Moments, Study, read_json, write_json
from semijax.study.padding import check_buckets, check_pad, pad_batch

Reducers = Mapping[str, Callable[[Any, Any], Any]]

ALL = "all"
"""The group of all observations where there is no ``group_by``."""


def run_study(
    fn: Callable[[Any], Any],
    batches: Iterable[Any],
    *,
    reducers: Reducers,
    group_by: Callable[[Any], Any] | None = None,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    buckets: Sequence[int] | None = None,
    pad: Any = 0,
    axis: int = 0,
    jit: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> Study:
    """Means, with standard errors, of what a function says of many batches of any lengths.

    ``jax.jit(fn)`` runs on one batch after another, each padded to one of a few lengths, and so
    compiles once for each of these. ``fn`` must itself disregard what was padded: give it a mask in
    the batch. A fresh lambda compiles anew in every study, a named function only once.

    With a ``checkpoint``, a study may be killed at any moment and started again: it goes on after
    the last batch it has written down, and ends with the numbers of one that was never killed. A
    finished one returns without calling ``fn``; given more batches, it goes on with these.

    Args:
        fn: a function of one batch that returns any pytree of arrays.
        batches: any iterable of pytrees of arrays: sentences, or groups of them.
        reducers: by the statistics' names, functions of ``(output, batch)``: the output of the
            padded batch and the batch as given, not padded, both on the host as NumPy arrays. So
            ``output[: len(batch["ids"])]`` are the tokens'. They return a number, an array of them,
            each an observation, or a dict of these, whose statistics are called ``"name/key"``. NaN
            is no observation.
        group_by: a function of the batch as given that returns a label (str, int or bool), or an
            array of labels, one for every observation of each statistic. By default all are in one
            group, ``"all"``.
        progress: whether to show a bar (of tqdm).
        checkpoint: the path of a file to write the state to, and to resume from if it exists. It
            grows by 16 bytes a batch. Two studies must not share one.
        checkpoint_every: after how many batches to write it. It is written at the end too, also
            when that is an exception.
        buckets: the lengths to pad to, increasing; powers of two from 8 by default.
        pad: what to pad with at the end of ``axis``, a pytree prefix of a batch: numbers, or None
            where a leaf is not to be padded, as a label. A leaf without the axis never is. Boolean
            leaves, as masks, are padded with False (with ``pad=True``, True). ``pad=None`` pads
            nothing; every new shape compiles.
        axis: the axis in which leaves differ in length.
        jit: whether to compile ``fn``; False if it has compiled all of its work itself, as one that
            calls a jitted function with a model's parameters, for several studies to share.
        provenance: what else to remember of where the numbers come from, as the model's name. A
            checkpoint knows functions by name only: this tells changed ones apart.

    Returns:
        A ``Study``, accumulated in float64.

    Raises:
        TypeError: if an argument is of the wrong type, a reducer does not return real numbers, or
            labels are not all str, all int or all bool.
        ValueError: if there are no batches; leaves to pad differ in length or are longer than the
            last bucket; there are not as many labels as observations; outputs differ in provenance;
            or the checkpoint is of another study or of other batches.
        FloatingPointError: if an observation is infinite, as the log of 0, and with it the mean; a
            reducer leaves it out by NaN. Also if moments overflow float64.
        ModuleNotFoundError: if there is to be a bar, but no tqdm.

    Example:
        >>> import jax.numpy as jnp, numpy as np, semijax as sj
        >>> study = sj.run_study(
        ...     jnp.square,
        ...     [np.arange(3.0), np.arange(5.0)],
        ...     reducers={"square": lambda output, batch: output[: len(batch)]},
        ...     progress=False,
        ... )
        >>> print(study)
        square over 2 batches
        statistic  group  count   mean   stderr
        square     all        8  4.375  1.97247
        >>> study.provenance["compiled"]  # both were padded to 8
        1
    """
    checks.check_callable(fn)
    _check_reducers(reducers)
    if group_by is not None:
        checks.check_callable(group_by)
    if isinstance(batches, (str, Mapping)) or not hasattr(batches, "__iter__"):
        raise TypeError(f"Expected an iterable of batches, got {type(batches).__name__}.")
    checks.check_positive("checkpoint_every", checkpoint_every)
    padding = {
        "pad": check_pad(pad),
        "axis": operator.index(axis),
        "buckets": check_buckets(buckets),
    }
    settings = _settings(fn, reducers, group_by, padding, {} if provenance is None else provenance)
    pad_one = functools.partial(pad_batch, **padding)
    path = None if checkpoint is None else pathlib.Path(checkpoint)
    state = _State(settings, Study({}, 0, settings))
    if path is not None:
        if path.exists():
            state = _resumed(path, settings)
        else:
            state.write(path)  # what cannot be written fails now, not hours later
    done, seen = state.study.batches, 0
    run = jax.jit(fn) if jit else fn
    try:
        with _bar(batches, progress) as stream:
            for batch in stream:
                # Each state is new, and assigned at once: an interrupt leaves the last one whole.
                try:
                    if seen < done:
                        _check_seen(state, seen, batch)
                    else:
                        state = _after(state, batch, run, pad_one, reducers, group_by)
                except Exception as error:
                    error.add_note(f"In batch {seen} of the study.")
                    raise
                seen += 1
                if path is not None and seen > done and seen % checkpoint_every == 0:
                    state.write(path)
    finally:
        if path is not None and state.study.batches > done:
            state.write(path)
    if not seen:
        raise ValueError("There are no batches. An iterator that was used up yields none.")
    if seen < done:
        raise ValueError(f"The checkpoint {path} is of {done} batches, there are only {seen}.")
    return state.study


@dataclasses.dataclass(frozen=True)
class _State:
    """All that it takes to go on with a study."""

    settings: Mapping[str, Any]
    study: Study
    digests: str = ""  # of all batches, 16 characters each
    shapes: tuple[str, ...] = ()  # digests of those that were compiled

    def write(self, path: pathlib.Path) -> None:
        fields = {"settings": self.settings, "digests": self.digests, "shapes": self.shapes}
        write_json(path, fields | {"study": self.study.to_json()})

    @classmethod
    def from_json(cls, data: Any) -> _State:
        study = Study.from_json(data["study"])
        return cls(data["settings"], study, data["digests"], tuple(data["shapes"]))


def _after(
    state: _State,
    batch: Any,
    run: Callable[[Any], Any],
    pad_one: Callable[[Any], Any],
    reducers: Reducers,
    group_by: Callable[[Any], Any] | None,
) -> _State:
    """The state after one more batch."""
    digest = _digest(batch)
    padded = pad_one(batch)
    signature = jax.tree.structure(padded), [jax.typeof(leaf) for leaf in jax.tree.leaves(padded)]
    shapes = tuple(dict.fromkeys([*state.shapes, _short(repr(signature).encode())]))
    output = run(padded)
    provenance = {**state.study.provenance, "compiled": len(shapes)}
    for key, value in _provenance_of(output).items():
        # Numbers of two semirings have no mean in common.
        if provenance.setdefault(key, value) != value:
            raise ValueError(
                f"The output's provenance says {key} is {value!r}, the study's {provenance[key]!r}."
            )
    host = jax.device_get(batch)
    observed = _observations(reducers, jax.device_get(output), host)
    labels = _labels(ALL if group_by is None else group_by(host), state.study)
    statistics = _added(state.study.statistics, observed, labels)
    study = Study(statistics, state.study.batches + 1, provenance)
    return _State(state.settings, study, state.digests + digest, shapes)


def _observations(reducers: Reducers, output: Any, batch: Any) -> dict[str, np.ndarray]:
    """The observations of every statistic, as vectors of float64."""
    found: dict[str, np.ndarray] = {}
    for name, reducer in reducers.items():
        value = reducer(output, batch)
        parts = (
            [(f"{name}/{key}", part) for key, part in value.items()]
            if isinstance(value, Mapping)
            else [(name, value)]
        )
        for statistic, part in parts:
            if statistic in found:
                raise ValueError(f"Two statistics are called {statistic!r}.")
            found[statistic] = _numbers(statistic, part)
    return found


def _numbers(statistic: str, value: Any) -> np.ndarray:
    array = np.asanyarray(value)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (bool, jnp.integer, jnp.floating)):
        raise TypeError(f"Reducers must return real numbers, got {value!r} for {statistic!r}.")
    # What a masked array masks is no observation either.
    numbers = np.ma.filled(array.astype(np.float64), np.nan).ravel()
    if np.isinf(numbers).any():
        raise FloatingPointError(
            f"An observation of {statistic!r} is infinite. If it is none, let the reducer return "
            "NaN for it."
        )
    return numbers


def _labels(found: Any, study: Study) -> np.ndarray:
    """One label, as an array of no axes, or a vector of them."""
    labels = np.asarray(found, dtype=object)
    flat = [label.item() if isinstance(label, np.generic) else label for label in labels.flat]
    kinds = {type(label) for groups in study.statistics.values() for label in groups}
    kinds.update(map(type, flat))
    if not kinds <= {str, int, bool}:
        raise TypeError(f"The label of a group must be str, int or bool, got {found!r}.")
    if len(kinds) > 1:  # 1 and True would be one key of a dict
        names = sorted(kind.__name__ for kind in kinds)
        raise TypeError(f"The labels of groups must be of one type, got {' and '.join(names)}.")
    return np.array(flat if labels.ndim else flat[0], dtype=object)


def _added(
    statistics: Mapping[str, Mapping[Label, Moments]],
    observed: Mapping[str, np.ndarray],
    labels: np.ndarray,
) -> dict[str, dict[Label, Moments]]:
    """The statistics with more observations added to their groups."""
    added = {name: dict(groups) for name, groups in statistics.items()}
    for name, values in observed.items():
        if labels.ndim and labels.size != values.size:
            raise ValueError(
                f"group_by must return one label, or one for each of the {values.size} "
                f"observations of {name!r}, got {labels.size}."
            )
        groups = added.setdefault(name, {})
        for label in dict.fromkeys(labels.flat):
            own = values[labels == label] if labels.ndim else values
            total = groups.get(label, Moments()).merged(Moments.of(own[~np.isnan(own)]))
            if not (math.isfinite(total.centre) and math.isfinite(total.squares)):
                raise FloatingPointError(f"The moments of {name!r} overflow float64.")
            groups[label] = total
    return added


def _provenance_of(output: Any) -> dict[str, Any]:
    """What the nodes of an output say of themselves; a list where they differ."""
    found: dict[str, list[Any]] = {}
    for node in jax.tree.leaves(output, is_leaf=lambda node: hasattr(node, "provenance")):
        for key, value in _plain(getattr(node, "provenance", {})).items():
            values = found.setdefault(key, [])
            if value not in values:
                values.append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in found.items()}


def _settings(
    fn: Any, reducers: Reducers, group_by: Any, padding: Mapping[str, Any], own: Any
) -> dict[str, Any]:
    """What a study must have in common with the one it resumes."""
    from semijax import __version__  # set only when the package has imported this module

    settings = {
        "semijax": __version__,
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "function": _name(fn),
        "reducers": sorted(reducers),
        "group_by": _name(group_by),
        **padding,
    }
    if not isinstance(own, Mapping):
        raise TypeError(f"provenance must be a mapping, got {own!r}.")
    if taken := sorted(own.keys() & {*settings, "compiled"}):
        raise ValueError(f"A study itself says what these are in provenance: {', '.join(taken)}.")
    return _plain({**settings, **own})


def _plain(value: Any) -> Any:
    """In JSON's types; what it has not, as infinity, by its repr."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, (str, int)):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else repr(value)


def _name(fun: Any) -> str | None:
    return None if fun is None else getattr(fun, "__qualname__", type(fun).__name__)


def _check_seen(state: _State, number: int, batch: Any) -> None:
    if _digest(batch) != state.digests[16 * number : 16 * (number + 1)]:
        raise ValueError(
            f"Batch {number} is not the one that the checkpoint has seen in its place. To resume, "
            "the iterable must yield the same batches in the same order."
        )


def _digest(batch: Any) -> str:
    leaves, tree = jax.tree.flatten_with_path(batch)
    parts = [str(tree).encode()]
    for path, leaf in leaves:
        array = np.asarray(leaf)
        if array.dtype != bool and not jnp.issubdtype(array.dtype, jnp.number):
            where = jax.tree_util.keystr(path)
            raise TypeError(f"batch{where} of type {type(leaf)} is not a valid JAX type.")
        parts += [f"{array.dtype} {array.shape}".encode(), array.tobytes()]
    return _short(*parts)


def _short(*parts: bytes) -> str:
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()


def _bar(batches: Iterable[Any], progress: bool) -> Any:
    if not progress:
        return contextlib.nullcontext(batches)
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The progress bar needs tqdm: pip install 'semijax[study]', or pass progress=False."
        ) from error
    return tqdm(batches, unit="batch")


def _resumed(path: pathlib.Path, settings: Mapping[str, Any]) -> _State:
    state = read_json(path, "a checkpoint of run_study", _State.from_json)
    differences = [
        f"{key} was {state.settings.get(key)!r} and is {settings.get(key)!r}"
        for key in dict.fromkeys([*state.settings, *settings])
        if state.settings.get(key) != settings.get(key)
    ]
    if differences:
        raise ValueError(
            f"The checkpoint {path} is of another study: {'; '.join(differences)}. Remove it, or "
            "give another path."
        )
    return state


def _check_reducers(reducers: Any) -> None:
    if not isinstance(reducers, Mapping) or not reducers:
        raise TypeError(
            f"reducers must be a non-empty mapping from names to functions, got {reducers!r}."
        )
    for name, reducer in reducers.items():
        if not isinstance(name, str):
            raise TypeError(f"The name of a reducer must be str, got {name!r}.")
        checks.check_callable(reducer)
